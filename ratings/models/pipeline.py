"""Keys of the API, and verdicts on their way to webhooks."""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone

from generation.rendering.leases import Leased
from ratings.models.experiments import Assessment


class Scope(models.TextChoices):
    """What a key opens; each is given by itself."""

    READ = "read", "read experiments, plans and snapshots"
    EXPERIMENTS = "experiments", "plan and start experiments"
    VERSIONS = "versions", "enter versions on trial"


class ApiToken(models.Model):
    """A key for the API; only its hash is kept."""

    name = models.CharField(max_length=120)
    digest = models.CharField(max_length=64, unique=True, editable=False, help_text="SHA-256.")
    scopes = ArrayField(models.CharField(max_length=12, choices=Scope))
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, editable=False)
    revoked = models.BooleanField(default=False)

    class Meta:
        verbose_name = "API key"

    def __str__(self) -> str:
        return self.name

    @property
    def state(self) -> str:
        """In a word: revoked, expired or good."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expires_at <= timezone.now() else "good"


class Delivery(Leased):
    """A verdict on its way to an experiment's webhook; tried again until it arrives."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    assessment = models.OneToOneField(Assessment, models.PROTECT, related_name="delivery")
    next_try_at = models.DateTimeField(
        null=True, help_text="Empty when it arrived or was given up."
    )
    delivered_at = models.DateTimeField(null=True)
    body = models.TextField(help_text="Written with the delivery, and sent so each time.")
    answer = models.TextField(blank=True, help_text="The last answer, shortened.")
    error = models.TextField(blank=True)

    class Meta:
        verbose_name_plural = "deliveries"
        indexes = [
            models.Index(
                fields=["next_try_at"],
                name="delivery_due",
                condition=Q(next_try_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"verdict on {self.assessment}"
