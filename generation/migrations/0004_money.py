"""What was the priority of clips is their position; the priority comes before it. Orders that a
service took can be stopped: asked after no more, until somebody says so."""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("generation", "0003_files")]
    operations = [
        migrations.RemoveIndex("clip", "clip_queue_of_version"),
        migrations.RenameField("clip", "priority", "position"),
        migrations.AlterField(
            "clip",
            "position",
            models.IntegerField(
                default=0, help_text="Among clips of one priority: lower comes first."
            ),
        ),
        migrations.AddField(
            "clip",
            "priority",
            models.SmallIntegerField(
                default=0, help_text="Higher is rendered first, whatever else waits."
            ),
        ),
        migrations.AddIndex(
            "clip",
            models.Index(
                fields=["version", "category", "-priority", "position", "created_at"],
                name="clip_queue_of_version",
                condition=Q(state__in=["waiting", "rendering"]),
            ),
        ),
        migrations.AlterField(
            "hostedjob",
            "state",
            models.CharField(
                choices=[
                    ("waiting", "Waiting"),
                    ("submitting", "Submitting"),
                    ("submitted", "Submitted"),
                    ("collected", "Collected"),
                    ("stopped", "Stopped"),
                    ("failed", "Failed"),
                ],
                default="waiting",
                max_length=10,
            ),
        ),
        migrations.AlterField(
            "hostedjob",
            "status_url",
            models.TextField(
                blank=True,
                help_text="Where to ask; before it was accepted, where to look for it by name.",
            ),
        ),
        migrations.RemoveConstraint("hostedjob", "job_failed_says_why"),
        migrations.AddConstraint(
            "hostedjob",
            models.CheckConstraint(
                name="job_failed_says_why",
                condition=~Q(state__in=["failed", "stopped"]) | ~Q(error=""),
            ),
        ),
    ]
