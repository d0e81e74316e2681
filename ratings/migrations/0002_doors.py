"""Keys of the API have scopes and an end. Those that are there keep all scopes, for 90 days more."""

from datetime import timedelta

import django.contrib.postgres.fields
from django.db import migrations, models
from django.utils import timezone

SCOPES = [
    ("read", "read experiments, plans and snapshots"),
    ("experiments", "plan and start experiments"),
    ("versions", "enter versions on trial"),
]


def all_scopes() -> list[str]:
    return [scope for scope, _ in SCOPES]


def in_90_days():
    return timezone.now() + timedelta(days=90)


class Migration(migrations.Migration):
    dependencies = [("ratings", "0001_initial")]
    operations = [
        migrations.AddField(
            model_name="apitoken",
            name="scopes",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(choices=SCOPES, max_length=12),
                default=all_scopes,
                size=None,
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="apitoken",
            name="expires_at",
            field=models.DateTimeField(default=in_90_days),
            preserve_default=False,
        ),
    ]
