"""The ledger: votes, skips, defects and exclusions. Rows are added and never changed."""

from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import Exists, F, OuterRef, Q

from arena.models.battles import Battle, BattleKind
from arena.models.experiments import Experiment
from arena.models.voters import Voter
from generation.catalogue.categories import Category
from generation.models import Clip, Prompt, Version


class Choice(models.TextChoices):
    A = "a", "A is better"
    B = "b", "B is better"
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
    version_a = models.ForeignKey(Version, models.PROTECT, related_name="votes_as_a")
    version_b = models.ForeignKey(Version, models.PROTECT, related_name="votes_as_b")
    prompt = models.ForeignKey(Prompt, models.PROTECT, related_name="votes")
    choice = models.CharField(max_length=8, choices=Choice)
    kind = models.CharField(max_length=10, choices=BattleKind, default=BattleKind.ARENA)
    experiment = models.ForeignKey(
        Experiment, models.PROTECT, null=True, blank=True, related_name="votes"
    )
    simulated = models.BooleanField()
    cast_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(name="vote_choice", condition=Q(choice__in=Choice.values)),
            models.CheckConstraint(
                name="vote_two_versions", condition=~Q(version_a=F("version_b"))
            ),
        ]
        indexes = [
            models.Index(
                fields=["category", "id"], name="vote_of_arena", condition=Q(kind="arena")
            ),
            models.Index(
                fields=["experiment", "id"],
                name="vote_of_experiment",
                condition=Q(experiment__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"vote {self.pk}: {self.choice}"


class Skip(models.Model):
    """The voter passed on a battle. Recorded, and not a vote."""

    battle = models.OneToOneField(Battle, models.PROTECT, primary_key=True, related_name="skip")
    skipped_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"skip of {self.battle_id}"


class DefectKind(models.TextChoices):
    FLICKER = "flicker", "Flicker"
    MORPHING = "morphing", "Morphing"
    PHYSICS = "physics", "Physics"
    HANDS = "hands", "Hands"
    TEXT = "text", "Text"
    LIP_SYNC = "lip_sync", "Lip sync"
    AUDIO = "audio", "Audio artefact"
    IGNORED = "ignored", "Prompt ignored"


# What a pair without sound can't have.
SOUND_DEFECTS = (DefectKind.LIP_SYNC, DefectKind.AUDIO)


class Defects(models.QuerySet["Defect"]):
    def standing(self) -> Self:
        """Those that were not taken back: the latest entry about one kind in a clip holds."""
        same = {name: OuterRef(name) for name in ("vote", "clip", "kind")}
        later = Defect.objects.filter(**same, pk__gt=OuterRef("pk"))
        return self.filter(~Exists(later), taken_back=False)


class Defect(models.Model):
    """What a voter marked as wrong in a clip of an experiment, after the vote, or took back again.
    Never changed; the latest entry about one kind in a clip holds."""

    id = models.BigAutoField(primary_key=True)
    vote = models.ForeignKey(Vote, models.PROTECT, related_name="defects")
    clip = models.ForeignKey(Clip, models.PROTECT, related_name="+")
    kind = models.CharField(max_length=8, choices=DefectKind)
    second = models.FloatField(
        null=True, blank=True, help_text="Seconds from the start of the clip."
    )
    taken_back = models.BooleanField(default=False)
    marked_at = models.DateTimeField(auto_now_add=True)

    objects = Defects.as_manager()

    def __str__(self) -> str:
        return f"{self.kind} in {self.clip_id}"


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
