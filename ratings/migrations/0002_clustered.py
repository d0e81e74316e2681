"""Slices and robustness; a snapshot's settings and digest. Snapshots made before keep theirs."""

from django.db import migrations, models

CATEGORY = models.CharField(
    choices=[
        ("t2v-silent", "Text to video, silent"),
        ("t2v-audio", "Text to video with audio"),
        ("i2v-silent", "Image to video, silent"),
        ("i2v-audio", "Image to video with audio"),
    ],
    max_length=12,
)
FORWARD = """
UPDATE ratings_leaderboard SET settings = jsonb_build_object('replicates', replicates, 'seed', seed)
"""
BACKWARD = """
SET CONSTRAINTS ALL IMMEDIATE;
DELETE FROM ratings_standing USING ratings_leaderboard board
WHERE board.id = leaderboard_id AND board.slice <> '';
DELETE FROM ratings_leaderboard WHERE slice <> '';
UPDATE ratings_leaderboard
SET replicates = (settings->>'replicates')::int, seed = (settings->>'seed')::bigint
"""


class Migration(migrations.Migration):
    dependencies = [("ratings", "0001_initial")]
    operations = [
        migrations.RemoveIndex("leaderboard", "leaderboard_latest"),
        migrations.AddField(
            "leaderboard",
            "slice",
            models.CharField(
                blank=True,
                default="",
                help_text="A tag of prompts; empty for the whole category.",
                max_length=40,
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            "leaderboard",
            "prompts",
            models.PositiveIntegerField(default=0),
            preserve_default=False,
        ),
        migrations.AlterField("leaderboard", "method", models.CharField(max_length=300)),
        migrations.AddField(
            "leaderboard",
            "settings",
            models.JSONField(
                default=dict, help_text="Numbers the method was given, the seed among them."
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            "leaderboard",
            "digest",
            models.CharField(
                default="", help_text="SHA-256 of the board's content.", max_length=64
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            "leaderboard",
            "seconds",
            models.FloatField(default=0.0, help_text="What the refit took."),
            preserve_default=False,
        ),
        migrations.AlterField(
            "leaderboard", "replicates", models.PositiveIntegerField(default=0)
        ),
        migrations.AlterField("leaderboard", "seed", models.PositiveBigIntegerField(default=0)),
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.RemoveField("leaderboard", "replicates"),
        migrations.RemoveField("leaderboard", "seed"),
        migrations.AddIndex(
            "leaderboard",
            models.Index(fields=["category", "slice", "-id"], name="leaderboard_latest"),
        ),
        migrations.AddField(
            "standing",
            "from_category",
            models.FloatField(
                help_text="On a slice: rating less the category's, Elo points.", null=True
            ),
        ),
        migrations.AddField(
            "standing",
            "differs",
            models.BooleanField(
                default=False, help_text="On a slice: shown to do better or worse than elsewhere."
            ),
        ),
        migrations.CreateModel(
            "Robustness",
            [
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("category", CATEGORY),
                ("last_vote_id", models.BigIntegerField()),
                ("last_exclusion_id", models.BigIntegerField()),
                ("simulated_counted", models.BooleanField()),
                ("findings", models.JSONField()),
                ("seconds", models.FloatField(help_text="What it took.")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            {"get_latest_by": "pk", "verbose_name_plural": "robustness"},
        ),
        migrations.AddIndex(
            "robustness",
            models.Index(fields=["category", "-id"], name="robustness_latest"),
        ),
    ]
