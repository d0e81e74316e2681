"""An assessment knows up to which exclusion none concerned its experiment, so that each is looked at
once, and its findings' schema stands beside them, so that it is read without them. A plan says over how
long the rate of votes was measured: until now over a week. A delivery is written with its body."""

from django.db import migrations, models

FILL = """
UPDATE ratings_assessment SET
    exclusions_seen = last_exclusion_id, schema = coalesce((findings ->> 'schema')::smallint, 0);
UPDATE ratings_delivery SET next_try_at = NULL, error = 'It had no body yet when the site changed.'
WHERE body = '';
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
        migrations.AlterField(
            model_name="delivery",
            name="body",
            field=models.TextField(help_text="Written with the delivery, and sent so each time."),
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
    ]
