"""Orders to hosted services."""

from django.db import models
from django.db.models import Q

from generation.models.clips import Clip
from generation.rendering.leases import Leased


class JobState(models.TextChoices):
    WAITING = "waiting", "Waiting"  # nothing was sent, or what was sent was refused
    SUBMITTING = "submitting", "Submitting"  # sent; nobody knows yet whether it arrived
    SUBMITTED = "submitted", "Submitted"  # accepted, to be polled
    COLLECTED = "collected", "Collected"
    STOPPED = "stopped", "Stopped"  # accepted, and asked after no more: it can be again
    FAILED = "failed", "Failed"


class HostedJob(Leased):
    """One order to a paid service: what was sent, what it answers, what it costs.

    A job is open until it is collected, stopped or failed, and a clip has one open job at most, so
    nothing is ordered twice. Each look at it is an attempt.
    """

    OPEN = (JobState.WAITING, JobState.SUBMITTING, JobState.SUBMITTED)

    clip = models.ForeignKey(Clip, models.PROTECT, related_name="jobs")
    clip_fence = models.PositiveIntegerField(
        help_text="The clip's when the job was made or taken over."
    )
    backend = models.CharField(max_length=40)
    state = models.CharField(max_length=10, choices=JobState, default=JobState.WAITING)
    request = models.JSONField(
        default=dict,
        blank=True,
        help_text="As sent, without keys. Images are given by their SHA-256.",
    )
    answer = models.JSONField(default=dict, blank=True, help_text="The last answer, shortened.")
    job_id = models.CharField(
        max_length=200, blank=True, help_text="The service's id of the order."
    )
    status_url = models.TextField(
        blank=True, help_text="Where to ask; before it was accepted, where to look for it by name."
    )
    result_url = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    submitted_at = models.DateTimeField(null=True, blank=True, help_text="When it was sent.")
    tries = models.PositiveIntegerField(default=0, help_text="Of the step that it is at.")
    cost = models.DecimalField(
        max_digits=10,
        decimal_places=4,
        null=True,
        blank=True,
        help_text="US dollars, from the version's price. Empty if nothing was billed.",
    )
    error = models.TextField(blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["clip"],
                condition=Q(state__in=["waiting", "submitting", "submitted"]),
                name="job_open_once",
            ),
            models.CheckConstraint(
                name="job_submitted_has_addresses",
                condition=~Q(state="submitted") | (~Q(status_url="") & ~Q(result_url="")),
            ),
            models.CheckConstraint(
                name="job_failed_says_why",
                condition=~Q(state__in=["failed", "stopped"]) | ~Q(error=""),
            ),
        ]
        indexes = [
            models.Index(
                fields=["state", "next_try_at"],
                name="job_due",
                condition=Q(state__in=["waiting", "submitting", "submitted"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.backend} {self.job_id or self.pk}"
