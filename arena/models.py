"""Voters, battles, the ledger, and experiments as they are laid out and judged."""

import uuid
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from generation.categories import Category
from generation.models import Clip, Prompt, PromptSet, Version

MIXED = "mixed"
PANEL = "panel"  # the stream of an invited panel


class Voter(models.Model):
    """Somebody who votes, known by a signed cookie."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    simulated = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{'simulated ' if self.simulated else ''}voter {str(self.id)[:8]}"


class ExperimentState(models.TextChoices):
    RUNNING = "running", "Running"
    DECIDED = "decided", "Decided"  # has a verdict; goes on if exclusions take it away
    CANCELLED = "cancelled", "Cancelled"


class Experiment(models.Model):
    """Candidate version against baseline version, with everything fixed beforehand.

    The database refuses a change of any of it but the state (trigger in migration 0004): another
    question is another experiment. Its verdict is made by the ratings.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120)
    candidate = models.ForeignKey(Version, models.PROTECT, related_name="experiments")
    baseline = models.ForeignKey(Version, models.PROTECT, related_name="experiments_as_baseline")
    category = models.CharField(max_length=12, choices=Category)
    prompt_set = models.ForeignKey(PromptSet, models.PROTECT, related_name="experiments")
    seed_slots = models.PositiveIntegerField(help_text="Clip pairs per prompt.")
    margin = models.FloatField(help_text="Normalised Elo: one worse by so much must not pass.")
    alpha = models.FloatField(help_text="Chance that one worse by the margin is passed.")
    beta = models.FloatField(help_text="Chance that one that is not worse is failed.")
    max_votes = models.PositiveIntegerField()
    public_share = models.FloatField(
        default=0, help_text="Of the category's pairs in the public stream, 0 to 1."
    )
    muted_share = models.FloatField(
        default=0, help_text="Of the blocks that are shown without sound, 0 to 1."
    )
    webhook = models.URLField(max_length=500, blank=True, help_text="Is sent the verdict.")
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)
    state = models.CharField(max_length=9, choices=ExperimentState, default=ExperimentState.RUNNING)

    class Meta:
        ordering = ("-created_at",)
        constraints = [
            models.CheckConstraint(
                name="experiment_two_versions", condition=~Q(candidate=F("baseline"))
            ),
            models.CheckConstraint(
                name="experiment_numbers",
                condition=Q(
                    margin__gt=0,
                    alpha__gt=0,
                    alpha__lt=0.5,
                    beta__gt=0,
                    beta__lt=0.5,
                    seed_slots__gt=0,
                    max_votes__gt=1,
                    public_share__gte=0,
                    public_share__lte=1,
                    muted_share__gte=0,
                    muted_share__lte=1,
                ),
            ),
        ]
        indexes = [
            models.Index(
                fields=["category"], name="experiment_running", condition=Q(state="running")
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Block(models.Model):
    """A clip pair of an experiment, judged twice with sides swapped, by two voters.

    After all pairs were judged once, a new round begins with the same pairs and other voters.
    """

    id = models.BigAutoField(primary_key=True)
    experiment = models.ForeignKey(Experiment, models.PROTECT, related_name="blocks")
    position = models.PositiveIntegerField(help_text="In the order in which they are shown.")
    prompt = models.ForeignKey(Prompt, models.PROTECT, related_name="+")
    seed_slot = models.PositiveIntegerField()
    candidate_clip = models.ForeignKey(Clip, models.PROTECT, related_name="+")
    baseline_clip = models.ForeignKey(Clip, models.PROTECT, related_name="+")
    muted = models.BooleanField(default=False, help_text="Shown without sound.")

    class Meta:
        ordering = ("position",)
        constraints = [
            models.UniqueConstraint(fields=["experiment", "position"], name="block_once"),
        ]

    def __str__(self) -> str:
        return f"block {self.position} of {self.experiment_id}"


class Half(models.Model):
    """One of a block's two votes, as the next to be drawn or out of the queue
    (arena/experiment_pairs.py).

    What counts is the ledger; this says what is still asked, without reading it.
    """

    id = models.BigAutoField(primary_key=True)
    # The index below is the only one by experiment: with another the next half could be looked for
    # by sorting all of them.
    experiment = models.ForeignKey(
        Experiment, models.PROTECT, related_name="halves", db_index=False
    )
    block = models.ForeignKey(Block, models.PROTECT, related_name="halves")
    candidate_left = models.BooleanField()
    rank = models.PositiveIntegerField(help_text="In the order in which they are drawn.")
    voted = models.BooleanField(default=False)
    completes = models.BooleanField(default=False, help_text="The block's other half is voted.")
    held_until = models.DateTimeField(null=True, help_text="A voter has it on the screen.")

    class Meta:
        verbose_name_plural = "halves"
        constraints = [
            models.UniqueConstraint(fields=["block", "candidate_left"], name="half_once"),
        ]
        indexes = [
            models.Index(
                fields=["experiment", "-completes", "rank"],
                name="half_to_draw",
                condition=Q(voted=False),
            ),
        ]

    def __str__(self) -> str:
        return f"half {self.rank} of {self.experiment_id}"


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


class Seat(models.Model):
    """One member of a panel. Whoever opens the link first takes the seat and is its voter."""

    id = models.BigAutoField(primary_key=True)
    panel = models.ForeignKey(Panel, models.PROTECT, related_name="seats")
    label = models.CharField(max_length=120, help_text="Who was invited.")
    token = models.CharField(max_length=64, unique=True, editable=False)
    voter = models.OneToOneField(
        Voter, models.PROTECT, null=True, blank=True, editable=False, related_name="seat"
    )
    revoked = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return f"{self.label} of {self.panel_id}"


class Kind(models.TextChoices):
    """What a battle is for. Only those of the arena count in ratings."""

    ARENA = "arena", "Arena"
    EXPERIMENT = "experiment", "Experiment"
    SAME = "same", "Check: one version under two ids"
    REPEAT = "repeat", "Check: shown before, sides swapped"
    GOLD = "gold", "Check: a clip against itself degraded"


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
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.ARENA)
    experiment = models.ForeignKey(
        Experiment,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="battles",
        help_text="That it is part of, or whose panel it checks.",
    )
    block = models.ForeignKey(Block, models.PROTECT, null=True, blank=True, related_name="battles")
    repeats = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="repeated_by"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(name="battle_two_clips", condition=~Q(left=F("right"))),
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
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.ARENA)
    experiment = models.ForeignKey(
        Experiment, models.PROTECT, null=True, blank=True, related_name="votes"
    )
    simulated = models.BooleanField()
    cast_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(name="vote_choice", condition=Q(choice__in=Choice.values)),
            models.CheckConstraint(
                name="vote_two_versions", condition=~Q(left_version=F("right_version"))
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


class Defects(models.QuerySet["Defect"]):
    def standing(self) -> Self:
        """Those that were not taken back: the latest entry about a thing in a clip holds."""
        same_thing = {name: OuterRef(name) for name in ("vote", "clip", "what")}
        later = Defect.objects.filter(**same_thing, pk__gt=OuterRef("pk"))
        return self.filter(~Exists(later), taken_back=False)


class Defect(models.Model):
    """What a voter marked as wrong in a clip of an experiment, after the vote, or took back again.
    Never changed; the latest entry about a thing in a clip holds."""

    class What(models.TextChoices):
        FLICKER = "flicker", "Flicker"
        MORPHING = "morphing", "Morphing"
        PHYSICS = "physics", "Physics"
        HANDS = "hands", "Hands"
        TEXT = "text", "Text"
        LIP_SYNC = "lip_sync", "Lip sync"
        AUDIO = "audio", "Audio artefact"
        IGNORED = "ignored", "Prompt ignored"

    id = models.BigAutoField(primary_key=True)
    vote = models.ForeignKey(Vote, models.PROTECT, related_name="defects")
    clip = models.ForeignKey(Clip, models.PROTECT, related_name="+")
    what = models.CharField(max_length=8, choices=What)
    second = models.FloatField(null=True, blank=True, help_text="Into the clip.")
    taken_back = models.BooleanField(default=False)
    marked_at = models.DateTimeField(auto_now_add=True)

    objects = Defects.as_manager()

    # What a pair without sound can't have.
    OF_SOUND = (What.LIP_SYNC, What.AUDIO)

    def __str__(self) -> str:
        return f"{self.what} in {self.clip_id}"


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
