"""Battles, and what one more vote on a pair of versions is worth."""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from arena.models.experiments import Block, Experiment
from arena.models.voters import Voter
from generation.catalogue.categories import Category
from generation.models import Clip, Prompt, Version

MIXED = "mixed"
PANEL = "panel"  # the stream of an invited panel


class BattleKind(models.TextChoices):
    """What a battle is for. Only those of the arena count in ratings."""

    ARENA = "arena", "Arena"
    EXPERIMENT = "experiment", "Experiment"
    SAME = "same", "Check: same version on both sides"
    REPEAT = "repeat", "Check: same pair again, sides swapped"
    GOLD = "gold", "Check: a clip beside a degraded copy"


class Battle(models.Model):
    """Two clips of the same prompt, category and seed slot shown to one voter.

    Its random id is its address: clips are handed out under it, to this voter alone.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    voter = models.ForeignKey(Voter, models.PROTECT, related_name="battles")
    stream = models.CharField(max_length=12, help_text="The page the pair was drawn for.")
    category = models.CharField(max_length=12, choices=Category)
    prompt = models.ForeignKey(Prompt, models.PROTECT, related_name="battles")
    clip_a = models.ForeignKey(Clip, models.PROTECT, related_name="battles_as_a")
    clip_b = models.ForeignKey(Clip, models.PROTECT, related_name="battles_as_b")
    draw_probability = models.FloatField(
        help_text="Probability of this pair of versions when it was drawn."
    )
    kind = models.CharField(max_length=10, choices=BattleKind, default=BattleKind.ARENA)
    experiment = models.ForeignKey(
        Experiment,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="battles",
        help_text="The experiment it is part of, or whose panel it checks.",
    )
    block = models.ForeignKey(Block, models.PROTECT, null=True, blank=True, related_name="battles")
    repeats = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="repeated_by"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(name="battle_two_clips", condition=~Q(clip_a=F("clip_b"))),
            models.CheckConstraint(
                name="battle_of_its_kind",
                condition=Q(kind="arena", experiment=None, block=None, repeats=None)
                | Q(kind="experiment", experiment__isnull=False, block__isnull=False, repeats=None)
                | Q(kind__in=("same", "gold"), experiment__isnull=False, block=None, repeats=None)
                | Q(kind="repeat", experiment__isnull=False, block=None, repeats__isnull=False),
            ),
        ]
        indexes = [models.Index(fields=["voter", "created_at"], name="battle_of_voter")]

    def __str__(self) -> str:
        return f"battle {str(self.id)[:8]}"

    @property
    def expired(self) -> bool:
        return self.expires_at <= timezone.now()


class PairChance(models.Model):
    """How likely a draw in the category gives this pair (arena/voting/pair_chances.py)."""

    category = models.CharField(max_length=12, choices=Category)
    first = models.ForeignKey(Version, models.CASCADE, related_name="+")
    second = models.ForeignKey(Version, models.CASCADE, related_name="+")
    probability = models.FloatField()
    up_to = models.FloatField(help_text="The sum of the probabilities up to this pair.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["category", "up_to"], name="pair_chance_to_draw"),
        ]

    def __str__(self) -> str:
        return f"{self.category}: {self.first_id} against {self.second_id}"


class PairList(models.Model):
    """Of which versions a category's chances are: those that were ready when they were laid out."""

    category = models.CharField(max_length=12, choices=Category, primary_key=True)
    versions = ArrayField(models.BigIntegerField(), help_text="Their ids, ascending.")

    def __str__(self) -> str:
        return self.category


class ReadyChange(models.Model):
    """A transaction that may have changed which versions are ready, since the lists of pairs were
    compared with them. Triggers write it (migration 0005), whoever changes clips or versions."""

    transaction = models.BigIntegerField(primary_key=True)

    def __str__(self) -> str:
        return f"ready clips or versions changed in transaction {self.transaction}"


class PairNeed(models.Model):
    """What one more vote on this pair of versions is worth; written by the ratings, read when the
    chances are laid out. A pair without a row has not been rated yet."""

    category = models.CharField(max_length=12, choices=Category)
    first = models.ForeignKey(Version, models.CASCADE, related_name="+")
    second = models.ForeignKey(Version, models.CASCADE, related_name="+")
    worth = models.FloatField(
        help_text="Elo points by which all 95% intervals together are expected to shrink."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["category", "first", "second"], name="need_once"),
            models.CheckConstraint(name="need_ordered", condition=Q(first__lt=F("second"))),
        ]

    def __str__(self) -> str:
        return f"{self.category}: {self.first_id} against {self.second_id}"
