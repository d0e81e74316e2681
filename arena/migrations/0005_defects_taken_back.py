"""A mark can be taken back: a new entry says so, and the latest about a thing in a clip holds."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("arena", "0004_experiments")]
    operations = [
        migrations.RemoveConstraint("defect", "defect_once"),
        migrations.AddField("defect", "taken_back", models.BooleanField(default=False)),
    ]
