"""What a vote on a pair is worth. The rows are the next refit's to write again."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("arena", "0002_append_only_ledger")]
    operations = [
        migrations.RunSQL("DELETE FROM arena_pairneed", migrations.RunSQL.noop),
        migrations.RenameField("pairneed", "uncertainty", "worth"),
        migrations.AlterField(
            "pairneed",
            "worth",
            models.FloatField(
                help_text="Elo points by which all 95 % intervals together are expected to shrink."
            ),
        ),
    ]
