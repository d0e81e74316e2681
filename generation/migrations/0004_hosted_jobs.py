"""Orders to paid services, and what a version may spend on them."""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("generation", "0003_measure_renditions")]
    operations = [
        migrations.AddField(
            model_name="version",
            name="budget",
            field=models.DecimalField(
                max_digits=10,
                decimal_places=2,
                null=True,
                blank=True,
                help_text="US dollars that a hosted version may spend on clips; empty is nothing.",
            ),
        ),
        migrations.CreateModel(
            name="HostedJob",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("fence", models.PositiveIntegerField()),
                ("backend", models.CharField(max_length=40)),
                (
                    "state",
                    models.CharField(
                        max_length=10,
                        default="waiting",
                        choices=[
                            ("waiting", "Waiting"),
                            ("submitting", "Submitting"),
                            ("submitted", "Submitted"),
                            ("collected", "Collected"),
                            ("failed", "Failed"),
                        ],
                    ),
                ),
                (
                    "request",
                    models.JSONField(
                        default=dict,
                        blank=True,
                        help_text="As sent, without keys; images by their SHA-256.",
                    ),
                ),
                (
                    "answer",
                    models.JSONField(
                        default=dict, blank=True, help_text="The last one, shortened."
                    ),
                ),
                (
                    "job_id",
                    models.CharField(
                        max_length=200, blank=True, help_text="The service's own."
                    ),
                ),
                ("status_url", models.TextField(blank=True)),
                ("result_url", models.TextField(blank=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "submitted_at",
                    models.DateTimeField(null=True, blank=True, help_text="When it was sent."),
                ),
                (
                    "next_poll_at",
                    models.DateTimeField(help_text="When a worker looks at it next."),
                ),
                (
                    "tries",
                    models.PositiveIntegerField(
                        default=0, help_text="Of the step that it is at."
                    ),
                ),
                ("polls", models.PositiveIntegerField(default=0)),
                (
                    "cost",
                    models.DecimalField(
                        max_digits=10,
                        decimal_places=4,
                        null=True,
                        blank=True,
                        help_text="US dollars, by the version's price; empty if nothing was billed.",
                    ),
                ),
                ("error", models.TextField(blank=True)),
                (
                    "clip",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="jobs",
                        to="generation.clip",
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="hostedjob",
            constraint=models.UniqueConstraint(
                fields=["clip"],
                condition=Q(state__in=["waiting", "submitting", "submitted"]),
                name="job_open_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="hostedjob",
            constraint=models.CheckConstraint(
                name="job_submitted_has_addresses",
                condition=~Q(state="submitted") | (~Q(status_url="") & ~Q(result_url="")),
            ),
        ),
        migrations.AddConstraint(
            model_name="hostedjob",
            constraint=models.CheckConstraint(
                name="job_failed_says_why", condition=~Q(state="failed") | ~Q(error="")
            ),
        ),
        migrations.AddIndex(
            model_name="hostedjob",
            index=models.Index(
                fields=["state", "next_poll_at"],
                name="job_due",
                condition=Q(state__in=["waiting", "submitting", "submitted"]),
            ),
        ),
    ]
