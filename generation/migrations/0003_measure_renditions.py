"""What voters may be swayed by, measured on each rendition; clips made before keep null."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("generation", "0002_freeze_versions")]
    operations = [
        migrations.AddField(
            model_name="clip",
            name="loudness",
            field=models.FloatField(
                null=True, blank=True, help_text="Of the rendition, in LUFS; empty if silent."
            ),
        ),
        migrations.AddField(
            model_name="clip",
            name="motion",
            field=models.FloatField(
                null=True,
                blank=True,
                help_text="Mean absolute change of luma (0 black, 255 white) between frames of "
                "the rendition.",
            ),
        ),
    ]
