"""Leaderboards: what the ledger said up to one vote."""

from django.db import models

from generation.categories import Category
from generation.models import Version


class Leaderboard(models.Model):
    """A snapshot of one category's ratings, with all that is needed to make it again."""

    category = models.CharField(max_length=12, choices=Category)
    last_vote_id = models.BigIntegerField(help_text="The ledger was read up to this vote ...")
    last_exclusion_id = models.BigIntegerField(help_text="... and this exclusion.")
    simulated_counted = models.BooleanField()
    votes = models.PositiveIntegerField()
    simulated_votes = models.PositiveIntegerField()
    voters = models.PositiveIntegerField()
    method = models.CharField(max_length=200)
    replicates = models.PositiveIntegerField()
    seed = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        get_latest_by = "pk"
        indexes = [models.Index(fields=["category", "-id"], name="leaderboard_latest")]

    def __str__(self) -> str:
        return f"{self.category} up to vote {self.last_vote_id}"


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

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["leaderboard", "version"], name="standing_once"),
        ]

    def __str__(self) -> str:
        return f"{self.version} on {self.leaderboard}"
