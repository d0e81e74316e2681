"""Leaderboards and verdicts: what the ledger said up to one vote."""

import math
import uuid

from django.db import models
from django.db.models import Q

from arena.models import Experiment
from generation.categories import Category
from generation.models import Version

LARGEST_FLOAT = 700.0  # e to this power is still a number


class Leaderboard(models.Model):
    """A snapshot of the ratings of one category, or of one slice of it, with all that is needed to
    make it again: from the same ledger and settings comes the same digest."""

    category = models.CharField(max_length=12, choices=Category)
    slice = models.CharField(
        max_length=40, blank=True, help_text="A tag of prompts; empty for the whole category."
    )
    last_vote_id = models.BigIntegerField(help_text="The ledger was read up to this vote ...")
    last_exclusion_id = models.BigIntegerField(help_text="... and this exclusion.")
    simulated_counted = models.BooleanField()
    votes = models.PositiveIntegerField()
    simulated_votes = models.PositiveIntegerField()
    voters = models.PositiveIntegerField()
    prompts = models.PositiveIntegerField()
    method = models.CharField(max_length=300)
    settings = models.JSONField(help_text="Numbers the method was given, the seed among them.")
    digest = models.CharField(max_length=64, help_text="SHA-256 of the board's content.")
    seconds = models.FloatField(help_text="What the refit took.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        get_latest_by = "pk"
        indexes = [models.Index(fields=["category", "slice", "-id"], name="leaderboard_latest")]

    def __str__(self) -> str:
        name = f"{self.category}, {self.slice}" if self.slice else self.category
        return f"{name} up to vote {self.last_vote_id}"


class Standing(models.Model):
    """One version's row on a leaderboard. Elo points; no number means not comparable yet."""

    leaderboard = models.ForeignKey(Leaderboard, models.CASCADE, related_name="standings")
    version = models.ForeignKey(Version, models.PROTECT, related_name="standings")
    rating = models.FloatField(null=True)
    low = models.FloatField(null=True, help_text="95 % interval; empty where it is open.")
    high = models.FloatField(null=True)
    rank_low = models.PositiveIntegerField(null=True)
    rank_high = models.PositiveIntegerField(null=True)
    tied_with_leader = models.BooleanField(default=False)
    votes = models.PositiveIntegerField()
    win_rate = models.FloatField(help_text="Ties count half.")
    from_category = models.FloatField(
        null=True, help_text="On a slice: rating less the category's, Elo points."
    )
    differs = models.BooleanField(
        default=False, help_text="On a slice: shown to do better or worse than elsewhere."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["leaderboard", "version"], name="standing_once"),
        ]

    def __str__(self) -> str:
        return f"{self.version} on {self.leaderboard}"


class Robustness(models.Model):
    """How one category's leaderboard stands up to other ways of looking at the same votes.

    Made beside the leaderboards and less often, for it costs more.
    """

    category = models.CharField(max_length=12, choices=Category)
    last_vote_id = models.BigIntegerField()
    last_exclusion_id = models.BigIntegerField()
    simulated_counted = models.BooleanField()
    findings = models.JSONField()
    seconds = models.FloatField(help_text="What it took.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        get_latest_by = "pk"
        verbose_name_plural = "robustness"
        indexes = [models.Index(fields=["category", "-id"], name="robustness_latest")]

    def __str__(self) -> str:
        return f"{self.category} up to vote {self.last_vote_id}"


class Verdict(models.TextChoices):
    PASS = "pass", "Pass"
    REGRESSED = "regressed", "Regressed"
    INCONCLUSIVE = "inconclusive", "Inconclusive"


class Assessment(models.Model):
    """Where an experiment stood up to one vote; the newest one holds.

    One is stored when its votes or exclusions have changed, in place of the one before unless that
    one had another verdict: every turn of a verdict stays.
    """

    experiment = models.ForeignKey(Experiment, models.PROTECT, related_name="assessments")
    last_vote_id = models.BigIntegerField()
    last_exclusion_id = models.BigIntegerField()
    simulated_counted = models.BooleanField()
    verdict = models.CharField(
        max_length=12, choices=Verdict, blank=True, help_text="Empty while it goes on."
    )
    rule = models.CharField(max_length=20, blank=True, help_text="That gave the verdict.")
    votes = models.PositiveIntegerField()
    blocks = models.PositiveIntegerField(help_text="Complete ones.")
    decided_at = models.PositiveIntegerField(null=True, help_text="Blocks, when it was decided.")
    llr = models.FloatField()
    log_e = models.FloatField()
    estimate = models.FloatField(null=True, help_text="Elo of the candidate over the baseline.")
    low = models.FloatField(null=True, help_text="95 % interval.")
    high = models.FloatField(null=True)
    findings = models.JSONField(help_text="Curves, counts, trust, slices, contributors, sound.")
    seconds = models.FloatField(help_text="What it took.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        get_latest_by = "pk"
        indexes = [models.Index(fields=["experiment", "-id"], name="assessment_latest")]

    def __str__(self) -> str:
        return f"{self.experiment} up to vote {self.last_vote_id}: {self.verdict or 'goes on'}"

    @property
    def e_value(self) -> float:
        return math.exp(min(self.log_e, LARGEST_FLOAT))


class ApiToken(models.Model):
    """A key for the API; only its hash is kept."""

    name = models.CharField(max_length=120)
    digest = models.CharField(max_length=64, unique=True, editable=False, help_text="SHA-256.")
    created_at = models.DateTimeField(auto_now_add=True)
    used_at = models.DateTimeField(null=True, editable=False)
    revoked = models.BooleanField(default=False)

    class Meta:
        verbose_name = "API key"

    def __str__(self) -> str:
        return self.name


class Delivery(models.Model):
    """A verdict on its way to an experiment's webhook; tried again until it arrives."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    assessment = models.OneToOneField(Assessment, models.PROTECT, related_name="delivery")
    attempts = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField(null=True, help_text="Empty when it arrived or was given up.")
    delivered_at = models.DateTimeField(null=True)
    body = models.TextField(blank=True, help_text="As sent, each time the same.")
    answer = models.TextField(blank=True, help_text="The last one, shortened.")
    error = models.TextField(blank=True)

    class Meta:
        verbose_name_plural = "deliveries"
        indexes = [
            models.Index(fields=["due_at"], name="delivery_due", condition=Q(due_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"verdict on {self.assessment}"
