"""What rendering takes and when it failed; workers' reports; indexes for what operators look at."""

from django.db import migrations, models
from django.db.models import Q

# The time at which an error was written, whoever writes it: none is left without, and what failed
# in the same words again carries the time of the last failure.
FORWARD = """
CREATE FUNCTION generation_note_failure() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.error = '' THEN
        NEW.failed_at := NULL;
    ELSIF TG_OP = 'INSERT' OR NEW.error <> OLD.error
        OR (NEW.state <> OLD.state AND NEW.state IN ('waiting', 'failed')) THEN
        NEW.failed_at := now();
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER clip_failure BEFORE INSERT OR UPDATE OF state, error ON generation_clip
FOR EACH ROW EXECUTE FUNCTION generation_note_failure();
"""
BACKWARD = """
DROP TRIGGER clip_failure ON generation_clip;
DROP FUNCTION generation_note_failure();
"""


class Migration(migrations.Migration):
    dependencies = [("generation", "0004_hosted_jobs")]
    operations = [
        migrations.AddField(
            model_name="clip",
            name="gpu_seconds",
            field=models.FloatField(
                null=True,
                blank=True,
                help_text="For which rendering held its GPU, loading the model apart; empty "
                "without one.",
            ),
        ),
        migrations.AddField(
            model_name="clip",
            name="gpu_peak_bytes",
            field=models.BigIntegerField(
                null=True,
                blank=True,
                help_text="The most GPU memory that its model and its work took.",
            ),
        ),
        migrations.AddField(
            model_name="clip",
            name="failed_at",
            field=models.DateTimeField(
                null=True,
                blank=True,
                editable=False,
                help_text="When its error was written.",
            ),
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.CreateModel(
            name="Worker",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "name",
                    models.CharField(max_length=120, unique=True, help_text="As of its clips."),
                ),
                ("hardware", models.CharField(max_length=120)),
                (
                    "gpu_used",
                    models.BigIntegerField(
                        null=True,
                        blank=True,
                        help_text="Bytes, by all processes; empty until it uses a GPU.",
                    ),
                ),
                ("gpu_total", models.BigIntegerField(null=True, blank=True)),
                ("seen_at", models.DateTimeField()),
            ],
            options={"ordering": ("name",)},
        ),
        migrations.RemoveIndex(model_name="clip", name="clip_queue"),
        migrations.AddIndex(
            model_name="clip",
            index=models.Index(
                fields=["version", "category", "priority", "created_at"],
                name="clip_queue_of_version",
                condition=Q(state__in=["waiting", "rendering"]),
            ),
        ),
        migrations.AddIndex(
            model_name="clip",
            index=models.Index(
                fields=["lease_expires_at"], name="clip_leases", condition=Q(state="rendering")
            ),
        ),
        migrations.AddIndex(
            model_name="clip",
            index=models.Index(fields=["version", "category", "state"], name="clip_counts"),
        ),
        migrations.AddIndex(
            model_name="clip",
            index=models.Index(
                fields=["ready_at"],
                include=["version"],
                name="clip_finished",
                condition=Q(state="ready"),
            ),
        ),
        migrations.AddIndex(
            model_name="clip",
            index=models.Index(
                fields=["version", "hardware"],
                include=["category", "render_seconds", "encode_seconds"],
                name="clip_speed",
                condition=Q(state="ready", render_seconds__isnull=False),
            ),
        ),
        migrations.AddIndex(
            model_name="clip",
            index=models.Index(
                fields=["failed_at"], name="clip_errors", condition=~Q(error="")
            ),
        ),
    ]
