"""Panels of invited voters."""

from django.db import models

from arena.models.experiments import Experiment
from arena.models.voters import Voter


class Panel(models.Model):
    """People invited by a link to judge experiments."""

    slug = models.SlugField(max_length=80, unique=True)
    name = models.CharField(max_length=120)
    instructions = models.TextField(blank=True, help_text="Shown before the first pair.")
    quota = models.PositiveIntegerField(default=100, help_text="Votes asked of each member.")
    experiments = models.ManyToManyField(Experiment, related_name="panels", blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Member(models.Model):
    """One member of a panel. Whoever opens the link first is its voter."""

    id = models.BigAutoField(primary_key=True)
    panel = models.ForeignKey(Panel, models.PROTECT, related_name="members")
    label = models.CharField(max_length=120, help_text="Who was invited.")
    token = models.CharField(max_length=64, unique=True, editable=False)
    voter = models.OneToOneField(
        Voter, models.PROTECT, null=True, blank=True, editable=False, related_name="member"
    )
    revoked = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return f"{self.label} of {self.panel_id}"
