"""What keeps an experiment from its verdict is noted, so that its page costs the same however many
votes there are."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("arena", "0004_money")]
    operations = [
        migrations.CreateModel(
            name="ObstacleNote",
            fields=[
                (
                    "experiment",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="obstacle_note",
                        serialize=False,
                        to="arena.experiment",
                    ),
                ),
                ("obstacles", models.JSONField(help_text="Of each its code and its sentence.")),
                (
                    "out_of_clips",
                    models.BooleanField(
                        help_text="Each pair that is left has a clip that failed."
                    ),
                ),
                ("looked_at", models.DateTimeField()),
            ],
        ),
        migrations.AddIndex(
            model_name="experiment",
            index=models.Index(fields=["-created_at"], name="experiment_newest"),
        ),
        migrations.AddIndex(
            model_name="experiment",
            index=models.Index(
                fields=["state", "-created_at"], name="experiment_newest_of_state"
            ),
        ),
    ]
