"""A vote slot knows the battle that holds it, so that it can be held for minutes and held on."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

CATEGORIES = [
    ("t2v-silent", "Text to video, silent"),
    ("t2v-audio", "Text to video with audio"),
    ("i2v-silent", "Image to video, silent"),
    ("i2v-audio", "Image to video with audio"),
]

HELD = """
UPDATE arena_voteslot vote_slot SET held_by_id = battle.id
FROM arena_battle battle JOIN arena_block block ON block.id = battle.block_id
WHERE vote_slot.block_id = block.id AND vote_slot.held_until = battle.expires_at
  AND vote_slot.candidate_is_a = (battle.clip_a_id = block.candidate_clip_id)
"""


class Migration(migrations.Migration):
    dependencies = [
        ("arena", "0002_append_only_ledger"),
        ("generation", "0001_initial"),
    ]
    operations = [
        migrations.AlterField(
            model_name="voteslot",
            name="held_until",
            field=models.DateTimeField(
                help_text="Nobody else is given it until then.", null=True
            ),
        ),
        migrations.AddField(
            model_name="voteslot",
            name="held_by",
            field=models.ForeignKey(
                help_text=(
                    "The pair on a voter's screen that shows it, until it is answered or given away."
                ),
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="arena.battle",
            ),
        ),
        migrations.RunSQL(HELD, migrations.RunSQL.noop),
        migrations.CreateModel(
            name="PairList",
            fields=[
                (
                    "category",
                    models.CharField(
                        choices=CATEGORIES, max_length=12, primary_key=True, serialize=False
                    ),
                ),
                (
                    "versions",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.BigIntegerField(),
                        help_text="Their ids, ascending.",
                        size=None,
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="PairChance",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("category", models.CharField(choices=CATEGORIES, max_length=12)),
                ("probability", models.FloatField()),
                (
                    "up_to",
                    models.FloatField(help_text="The sum of the probabilities up to this pair."),
                ),
                (
                    "first",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="generation.version",
                    ),
                ),
                (
                    "second",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="generation.version",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("category", "up_to"), name="pair_chance_to_draw"
                    )
                ],
            },
        ),
    ]
