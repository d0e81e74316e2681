"""An assessment knows up to which exclusion none concerned its experiment, so that each is looked at
once, and its findings' schema stands beside them, so that it is read without them. A plan says over how
long the rate of votes was measured: until now over a week."""

from django.db import migrations, models

FILL = """
UPDATE ratings_assessment SET
    exclusions_seen = last_exclusion_id, schema = (findings ->> 'schema')::smallint;
UPDATE ratings_storedplan SET facts = facts || '{"measured_seconds": 604800}';
"""


class Migration(migrations.Migration):
    dependencies = [("ratings", "0002_doors")]
    operations = [
        migrations.AddField(
            model_name="assessment",
            name="exclusions_seen",
            field=models.BigIntegerField(
                default=0,
                help_text=(
                    "The last exclusion of which it is known whether it concerns this experiment: "
                    "of those after last_exclusion_id none did."
                ),
            ),
        ),
        migrations.AddField(
            model_name="assessment",
            name="schema",
            field=models.PositiveSmallIntegerField(
                default=0, help_text="Of the findings; those of an earlier one are made again."
            ),
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
    ]
