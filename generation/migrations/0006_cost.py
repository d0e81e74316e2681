"""When each clip's folder is next swept, the size of its rendition, and where writing pauses.

Folders of clips that are there are swept within a month, each at a time of its own.
"""

from django.db import migrations, models

SPREAD = """
UPDATE generation_clip SET sweep_at = now() + random() * interval '30 days' WHERE fence > 0;
"""


class Migration(migrations.Migration):
    dependencies = [("generation", "0005_doors")]
    operations = [
        migrations.AddField(
            model_name="clip",
            name="rendition_bytes",
            field=models.PositiveBigIntegerField(
                blank=True,
                help_text="Size of the rendition; unknown of older clips.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="clip",
            name="sweep_at",
            field=models.DateTimeField(
                blank=True,
                editable=False,
                help_text="When its folder is next looked at for files that it does not name.",
                null=True,
            ),
        ),
        migrations.RunSQL(SPREAD, migrations.RunSQL.noop),
        migrations.AddIndex(
            model_name="clip",
            index=models.Index(
                condition=models.Q(("sweep_at__isnull", False)),
                fields=["sweep_at"],
                name="clip_to_sweep",
            ),
        ),
        migrations.CreateModel(
            name="StoragePause",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "place",
                    models.CharField(
                        help_text="The media storage, or the disk of one machine.",
                        max_length=120,
                        unique=True,
                    ),
                ),
                ("reason", models.TextField()),
                ("since", models.DateTimeField()),
                (
                    "try_at",
                    models.DateTimeField(
                        help_text="When somebody looks whether there is room again."
                    ),
                ),
                (
                    "times",
                    models.PositiveIntegerField(default=1, help_text="Refusals in a row."),
                ),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={"ordering": ("since",)},
        ),
    ]
