"""Leaderboards and robustness reports, as they were stored."""

from django.db import models

from generation.catalogue.categories import Category
from generation.models import Version


class Leaderboard(models.Model):
    """A snapshot of the ratings of one category, or of one slice of it, with all that is needed to
    make it again: from the same ledger and settings comes the same digest."""

    category = models.CharField(max_length=12, choices=Category)
    slice = models.CharField(
        max_length=40, blank=True, help_text="A tag of prompts; empty for the whole category."
    )
    last_vote_id = models.BigIntegerField(help_text="Includes the ledger up to this vote.")
    last_exclusion_id = models.BigIntegerField(
        help_text="Includes the ledger up to this exclusion."
    )
    simulated_counted = models.BooleanField()
    votes = models.PositiveIntegerField()
    simulated_votes = models.PositiveIntegerField()
    voters = models.PositiveIntegerField()
    prompts = models.PositiveIntegerField()
    method = models.CharField(max_length=300)
    settings = models.JSONField(help_text="Parameters of the method, including the random seed.")
    digest = models.CharField(max_length=64, help_text="SHA-256 of the board's content.")
    seconds = models.FloatField(help_text="Duration of the refit.")
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
    low = models.FloatField(null=True, help_text="95% interval. Empty where it is open.")
    high = models.FloatField(null=True)
    rank_low = models.PositiveIntegerField(null=True)
    rank_high = models.PositiveIntegerField(null=True)
    tied_with_leader = models.BooleanField(default=False)
    votes = models.PositiveIntegerField()
    win_rate = models.FloatField(help_text="Ties count half.")
    from_category = models.FloatField(
        null=True, help_text="On a slice, the rating minus the category's, in Elo points."
    )
    differs = models.BooleanField(
        default=False, help_text="On a slice, clearly better or worse than overall."
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
    seconds = models.FloatField(help_text="Duration of the assessment.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        get_latest_by = "pk"
        verbose_name_plural = "robustness"
        indexes = [models.Index(fields=["category", "-id"], name="robustness_latest")]

    def __str__(self) -> str:
        return f"{self.category} up to vote {self.last_vote_id}"
