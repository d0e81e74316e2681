"""An experiment of which no pair can be shown fails, with the reason."""

from django.db import migrations, models

TRIGGER = """
DROP TRIGGER experiment_frozen ON arena_experiment;
CREATE TRIGGER experiment_frozen BEFORE UPDATE ON arena_experiment FOR EACH ROW
WHEN (to_jsonb(OLD) - {free} IS DISTINCT FROM to_jsonb(NEW) - {free})
EXECUTE FUNCTION arena_refuse_experiment_change();
"""


class Migration(migrations.Migration):
    dependencies = [("arena", "0003_voting")]
    operations = [
        migrations.AddField(
            "experiment",
            "error",
            models.TextField(blank=True, default="", help_text="Why it failed, with a clip's own error."),
            preserve_default=False,
        ),
        migrations.AlterField(
            "experiment",
            "state",
            models.CharField(
                choices=[
                    ("running", "Running"),
                    ("decided", "Decided"),
                    ("cancelled", "Cancelled"),
                    ("failed", "Failed"),
                ],
                default="running",
                max_length=9,
            ),
        ),
        migrations.RunSQL(
            TRIGGER.format(free="'{state,error}'::text[]"), TRIGGER.format(free="'state'")
        ),
    ]
