"""Plans of proposed experiments."""

import uuid

from django.db import models


class PlanState(models.TextChoices):
    WAITING = "waiting", "Waiting"  # for a worker to compute it
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"


class StoredPlan(models.Model):
    """What a proposed experiment would take: asked for by a page or the API, made by a worker.

    It is found again by the digest of what was asked and of the facts that it is made of, and kept
    for some days.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    digest = models.CharField(max_length=64, help_text="SHA-256 of what was asked and the facts.")
    asked = models.JSONField(help_text="The proposal, and what to plan with.")
    facts = models.JSONField(help_text="Read from the database when it was asked for.")
    chances = models.JSONField(null=True, help_text="Of each verdict, and what they take.")
    error = models.TextField(blank=True)
    state = models.CharField(max_length=7, choices=PlanState, default=PlanState.WAITING)
    made_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["digest"],
                condition=models.Q(state=PlanState.WAITING),
                name="plan_waits_once",
            ),
            models.CheckConstraint(
                name="plan_ready_has_chances",
                condition=~models.Q(state=PlanState.READY) | models.Q(chances__isnull=False),
            ),
        ]
        indexes = [models.Index(fields=["digest", "-made_at"], name="plan_newest")]

    def __str__(self) -> str:
        return f"plan {self.pk}: {self.state}"
