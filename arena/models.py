"""Voters, battles and the ledger."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from generation.categories import Category
from generation.models import Clip, Prompt, Version

MIXED = "mixed"


class Voter(models.Model):
    """Somebody who votes, known by a signed cookie."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    simulated = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{'simulated ' if self.simulated else ''}voter {str(self.id)[:8]}"


class Battle(models.Model):
    """Two clips of the same prompt, category and seed slot shown to one voter.

    Its random id is its address: clips are handed out under it, to this voter alone.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    voter = models.ForeignKey(Voter, models.PROTECT, related_name="battles")
    stream = models.CharField(max_length=12, help_text="The page it was drawn for.")
    category = models.CharField(max_length=12, choices=Category)
    prompt = models.ForeignKey(Prompt, models.PROTECT, related_name="battles")
    left = models.ForeignKey(Clip, models.PROTECT, related_name="battles_left")
    right = models.ForeignKey(Clip, models.PROTECT, related_name="battles_right")
    draw_probability = models.FloatField(help_text="Of this pair of versions, when it was drawn.")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(name="battle_two_clips", condition=~Q(left=F("right"))),
        ]
        indexes = [models.Index(fields=["voter", "created_at"], name="battle_of_voter")]

    def __str__(self) -> str:
        return f"battle {str(self.id)[:8]}"

    @property
    def expired(self) -> bool:
        return self.expires_at <= timezone.now()


class Choice(models.TextChoices):
    LEFT = "left", "Left is better"
    RIGHT = "right", "Right is better"
    TIE = "tie", "Tie"
    BOTH_BAD = "both_bad", "Both are bad"


class Vote(models.Model):
    """The voter's answer to one battle. Part of the ledger: inserted, never changed.

    Versions, prompt and category are those of the battle, repeated here so that ratings read the
    ledger alone.
    """

    id = models.BigAutoField(primary_key=True)
    battle = models.OneToOneField(Battle, models.PROTECT, related_name="vote")
    voter = models.ForeignKey(Voter, models.PROTECT, related_name="votes")
    category = models.CharField(max_length=12, choices=Category)
    left_version = models.ForeignKey(Version, models.PROTECT, related_name="votes_left")
    right_version = models.ForeignKey(Version, models.PROTECT, related_name="votes_right")
    prompt = models.ForeignKey(Prompt, models.PROTECT, related_name="votes")
    choice = models.CharField(max_length=8, choices=Choice)
    simulated = models.BooleanField()
    cast_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(name="vote_choice", condition=Q(choice__in=Choice.values)),
            models.CheckConstraint(
                name="vote_two_versions", condition=~Q(left_version=F("right_version"))
            ),
        ]
        indexes = [models.Index(fields=["category", "id"], name="vote_of_category")]

    def __str__(self) -> str:
        return f"vote {self.pk}: {self.choice}"


class Skip(models.Model):
    """The voter passed on a battle. Recorded, and not a vote."""

    battle = models.OneToOneField(Battle, models.PROTECT, primary_key=True, related_name="skip")
    skipped_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"skip of {self.battle_id}"


class Exclusion(models.Model):
    """A vote, or all votes of a voter, taken out of the ratings or put back. Never changed.

    The latest entry about a vote or a voter holds.
    """

    class Action(models.TextChoices):
        EXCLUDE = "exclude", "Exclude"
        INCLUDE = "include", "Include again"

    id = models.BigAutoField(primary_key=True)
    action = models.CharField(max_length=7, choices=Action)
    voter = models.ForeignKey(
        Voter, models.PROTECT, null=True, blank=True, related_name="exclusions"
    )
    vote = models.ForeignKey(Vote, models.PROTECT, null=True, blank=True, related_name="exclusions")
    reason = models.CharField(max_length=300)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, editable=False)
    made_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="exclusion_of_one_thing",
                condition=Q(voter__isnull=False, vote__isnull=True)
                | Q(voter__isnull=True, vote__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.voter or self.vote}"


class PairNeed(models.Model):
    """What one more vote on this pair of versions is worth; written by the ratings, read when a
    pair is drawn. A pair without a row has not been rated yet."""

    category = models.CharField(max_length=12, choices=Category)
    first = models.ForeignKey(Version, models.CASCADE, related_name="+")
    second = models.ForeignKey(Version, models.CASCADE, related_name="+")
    worth = models.FloatField(
        help_text="Elo points by which all 95 % intervals together are expected to shrink."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["category", "first", "second"], name="need_once"),
            models.CheckConstraint(name="need_ordered", condition=Q(first__lt=F("second"))),
        ]

    def __str__(self) -> str:
        return f"{self.category}: {self.first_id} against {self.second_id}"
