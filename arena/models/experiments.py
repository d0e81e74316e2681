"""Experiments, their blocks and the vote slots of these."""

import uuid

from django.db import models
from django.db.models import F, Q

from generation.catalogue.categories import Category
from generation.models import Clip, Prompt, PromptSet, Version


class ExperimentState(models.TextChoices):
    RUNNING = "running", "Running"
    DECIDED = "decided", "Decided"  # has a verdict; goes on if exclusions take it away
    CANCELLED = "cancelled", "Cancelled"
    FAILED = "failed", "Failed"  # no pair of it can be shown, and none was


class Experiment(models.Model):
    """Candidate version against baseline version, with everything fixed beforehand.

    The database refuses a change of any of it but the state and the error (trigger in migration
    0003): another question is another experiment. Its verdict is made by the ratings.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120)
    candidate = models.ForeignKey(Version, models.PROTECT, related_name="experiments")
    baseline = models.ForeignKey(Version, models.PROTECT, related_name="experiments_as_baseline")
    category = models.CharField(max_length=12, choices=Category)
    prompt_set = models.ForeignKey(PromptSet, models.PROTECT, related_name="experiments")
    seed_slots = models.PositiveIntegerField(help_text="Clip pairs per prompt.")
    margin = models.FloatField(
        help_text="Normalised Elo. A candidate this much worse must not pass."
    )
    alpha = models.FloatField(help_text="Chance of passing a candidate worse by the margin.")
    beta = models.FloatField(help_text="Chance of failing a candidate that is not worse.")
    max_votes = models.PositiveIntegerField()
    public_share = models.FloatField(
        default=0, help_text="Share of the category's public pairs, 0 to 1."
    )
    muted_share = models.FloatField(
        default=0, help_text="Share of the blocks shown without sound, 0 to 1."
    )
    webhook = models.URLField(max_length=500, blank=True, help_text="Receives the verdict.")
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)
    state = models.CharField(max_length=9, choices=ExperimentState, default=ExperimentState.RUNNING)
    error = models.TextField(blank=True, help_text="Why it failed, with a clip's own error.")

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
            models.Index(fields=["-created_at"], name="experiment_newest"),
            models.Index(fields=["state", "-created_at"], name="experiment_newest_of_state"),
        ]

    def __str__(self) -> str:
        return self.name


class ObstacleNote(models.Model):
    """What kept a running experiment from its verdict when a worker last looked
    (arena/experiments/obstacles.py). Pages, the API and the gate read it: looking takes longer the
    more votes there are."""

    experiment = models.OneToOneField(
        Experiment, models.CASCADE, primary_key=True, related_name="obstacle_note"
    )
    obstacles = models.JSONField(help_text="Of each its code and its sentence.")
    out_of_clips = models.BooleanField(help_text="Each pair that is left has a clip that failed.")
    looked_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"obstacles of {self.experiment_id} at {self.looked_at:%H:%M:%S}"


class Block(models.Model):
    """A clip pair of an experiment, judged twice with sides swapped, by two voters.

    After all pairs were judged once, a new round begins with the same pairs and other voters.
    """

    id = models.BigAutoField(primary_key=True)
    experiment = models.ForeignKey(Experiment, models.PROTECT, related_name="blocks")
    position = models.PositiveIntegerField(help_text="Order in which they are shown.")
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


class VoteSlot(models.Model):
    """One of a block's two votes, as the next to be drawn or out of the queue
    (arena/experiments/slots.py).

    What counts is the ledger; this says what is still asked, without reading it.
    """

    id = models.BigAutoField(primary_key=True)
    # The index below is the only one by experiment: with another the next slot could be looked for
    # by sorting all of them.
    experiment = models.ForeignKey(
        Experiment, models.PROTECT, related_name="vote_slots", db_index=False
    )
    block = models.ForeignKey(Block, models.PROTECT, related_name="vote_slots")
    candidate_is_a = models.BooleanField()
    rank = models.PositiveIntegerField(help_text="Order in which they are drawn.")
    voted = models.BooleanField(default=False)
    completes = models.BooleanField(default=False, help_text="The block's other vote is in.")
    held_until = models.DateTimeField(null=True, help_text="Nobody else is given it until then.")
    held_by = models.ForeignKey(
        "arena.Battle",
        models.SET_NULL,
        null=True,
        related_name="+",
        help_text="The pair on a voter's screen that shows it, until it is answered or given away.",
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["block", "candidate_is_a"], name="vote_slot_once"),
        ]
        indexes = [
            models.Index(
                fields=["experiment", "-completes", "rank"],
                name="vote_slot_to_draw",
                condition=Q(voted=False),
            ),
        ]

    def __str__(self) -> str:
        return f"vote slot {self.rank} of {self.experiment_id}"
