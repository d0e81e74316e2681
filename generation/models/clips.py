"""Clips, each made of one prompt by one version."""

import uuid

from django.db import models
from django.db.models import Q

from generation.catalogue.categories import Category
from generation.models.catalogue import Version
from generation.models.prompts import Prompt
from generation.rendering.leases import Leased


class ClipState(models.TextChoices):
    WAITING = "waiting", "Waiting"
    RENDERING = "rendering", "Rendering"
    READY = "ready", "Ready"
    HELD = "held", "Held"  # made, and shown to no voter before an operator has looked at it
    FAILED = "failed", "Failed"


BULK_PRIORITY, EXPERIMENT_PRIORITY, FIRST_PRIORITY = 0, 10, 100  # of clips, unless told otherwise


class Clip(Leased):
    """What one version made of one prompt with one seed, in one category.

    A worker renders it under a lease; only the holder of the current fence can publish.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    version = models.ForeignKey(Version, models.PROTECT, related_name="clips")
    prompt = models.ForeignKey(Prompt, models.PROTECT, related_name="clips")
    category = models.CharField(max_length=12, choices=Category)
    seed_slot = models.PositiveIntegerField(default=0)
    seed = models.PositiveBigIntegerField()
    state = models.CharField(max_length=9, choices=ClipState, default=ClipState.WAITING)
    priority = models.SmallIntegerField(
        default=0, help_text="Higher is rendered first, whatever else waits."
    )
    position = models.IntegerField(
        default=0, help_text="Among clips of one priority: lower comes first."
    )
    error = models.TextField(blank=True)
    held_because = models.CharField(
        max_length=200,
        blank=True,
        help_text="Why an operator has to look at it before voters do, or had to.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    step = models.PositiveIntegerField(default=0)
    steps = models.PositiveIntegerField(default=0)

    master = models.FileField(max_length=200, blank=True)
    rendition = models.FileField(max_length=200, blank=True)
    poster = models.FileField(max_length=200, blank=True)
    rendition_sha256 = models.CharField(max_length=64, blank=True)
    rendition_bytes = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="Size of the rendition; unknown of older clips."
    )
    sweep_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="When its folder is next looked at for files that it does not name.",
    )
    source_sha256 = models.CharField(
        max_length=64,
        blank=True,
        help_text="Of the file that somebody else made and the master was taken in from.",
    )
    width = models.PositiveIntegerField(null=True, blank=True, help_text="Of the master.")
    height = models.PositiveIntegerField(null=True, blank=True)
    fps = models.FloatField(null=True, blank=True)
    seconds = models.FloatField(null=True, blank=True)
    off_format = models.BooleanField(
        default=False,
        help_text="The master's frame rate, size or shape is far from the rendition's.",
    )
    profile = models.PositiveIntegerField(
        default=1, help_text="Profile of the rendition. Only clips of one profile meet in battles."
    )
    loudness = models.FloatField(
        null=True, blank=True, help_text="Loudness of the rendition in LUFS. Empty if silent."
    )
    motion = models.FloatField(
        null=True,
        blank=True,
        help_text="Mean absolute change of luma (0 black, 255 white) between frames of the "
        "rendition.",
    )
    render_seconds = models.FloatField(null=True, blank=True, help_text="Wall time of rendering.")
    gpu_seconds = models.FloatField(
        null=True,
        blank=True,
        help_text="GPU time of rendering, without loading the model. Empty without a GPU.",
    )
    gpu_peak_bytes = models.BigIntegerField(
        null=True, blank=True, help_text="Peak GPU memory of the model and its work."
    )
    encode_seconds = models.FloatField(null=True, blank=True)
    hardware = models.CharField(max_length=120, blank=True)
    ready_at = models.DateTimeField(null=True, blank=True)
    # Written by a trigger (migration 0002), whoever writes the error.
    failed_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When its error was written."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "prompt", "category", "seed_slot"], name="clip_once"
            ),
            models.CheckConstraint(
                name="clip_ready_has_files",
                condition=~Q(state__in=["ready", "held"])
                | (~Q(master="") & ~Q(rendition="") & ~Q(poster="") & ~Q(rendition_sha256="")),
            ),
            models.CheckConstraint(
                name="clip_rendering_has_lease",
                condition=Q(state="rendering", leased_until__isnull=False)
                | (~Q(state="rendering") & Q(leased_until__isnull=True)),
            ),
            models.CheckConstraint(
                name="clip_failed_says_why", condition=~Q(state="failed") | ~Q(error="")
            ),
            models.CheckConstraint(
                name="clip_held_says_why", condition=~Q(state="held") | ~Q(held_because="")
            ),
        ]
        indexes = [
            models.Index(
                fields=["version", "category", "-priority", "position", "created_at"],
                name="clip_queue_of_version",
                condition=Q(state__in=["waiting", "rendering"]),
            ),
            models.Index(
                fields=["category", "version", "prompt", "seed_slot"],
                name="clip_ready",
                condition=Q(state="ready"),
            ),
            models.Index(
                fields=["leased_until"], name="clip_leases", condition=Q(state="rendering")
            ),
            # These three answer what the pages of progress and of speed ask, without the clips.
            models.Index(fields=["version", "category", "state"], name="clip_counts"),
            models.Index(
                fields=["ready_at"],
                include=["version"],
                name="clip_finished",
                condition=Q(state="ready"),
            ),
            models.Index(
                fields=["version", "hardware"],
                include=["category", "render_seconds", "encode_seconds"],
                name="clip_speed",
                condition=Q(state="ready", render_seconds__isnull=False),
            ),
            models.Index(
                fields=["sweep_at"], name="clip_to_sweep", condition=Q(sweep_at__isnull=False)
            ),
            models.Index(fields=["failed_at"], name="clip_errors", condition=~Q(error="")),
            models.Index(
                fields=["category", "version"],
                name="clip_off_format",
                condition=Q(state="ready", off_format=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.version_id}/{self.prompt_id}/{self.category}/{self.seed_slot}"
