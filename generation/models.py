"""Models, versions, prompts and clips."""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.text import slugify

from generation.categories import ASPECTS, Category, Conditions

SLUG = RegexValidator(r"^[a-z0-9][a-z0-9.-]*$", "Use lower-case letters, digits, dots and hyphens.")


class Weights(models.TextChoices):
    OPEN = "open", "Open weights"
    CLOSED = "closed", "Closed"


class Model(models.Model):
    """A family with one name and one lab; what competes are its versions."""

    slug = models.CharField(max_length=80, unique=True, validators=[SLUG])
    name = models.CharField(max_length=120)
    lab = models.CharField(max_length=120)
    weights = models.CharField(max_length=6, choices=Weights)
    licence = models.CharField(max_length=120, blank=True)
    released_on = models.DateField(null=True, blank=True)
    links = models.JSONField(default=list, blank=True, help_text="A list of {label, url}.")
    description = models.TextField(blank=True)
    in_house = models.BooleanField(default=False)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("model", args=[self.slug])


class VersionState(models.TextChoices):
    DRAFT = "draft", "Draft"  # neither rendered nor shown
    TRIAL = "trial", "On trial"  # rendered, and shown in experiments only
    ACTIVE = "active", "Active"  # rendered and shown
    PAUSED = "paused", "Paused"  # not shown for now
    RETIRED = "retired", "Retired"  # keeps its place on the boards, meets nobody any more


RENDERED_STATES = (VersionState.TRIAL, VersionState.ACTIVE)


class Version(models.Model):
    """One model's checkpoint with fixed settings. Immutable once it has clips.

    The database itself refuses a change of what determines its clips (trigger in migration 0002).
    """

    FROZEN = ("model_id", "parent_id", "backend", "settings", "width", "height", "fps")

    model = models.ForeignKey(Model, models.PROTECT, related_name="versions")
    slug = models.CharField(max_length=80, unique=True, validators=[SLUG])
    name = models.CharField(max_length=120, help_text="As voters read it after the reveal.")
    parent = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="children"
    )
    codename = models.CharField(max_length=80, blank=True)
    revealed_on = models.DateField(null=True, blank=True)
    state = models.CharField(max_length=8, choices=VersionState, default=VersionState.DRAFT)
    backend = models.CharField(max_length=40)
    settings = models.JSONField(default=dict, blank=True)
    categories = ArrayField(models.CharField(max_length=12, choices=Category))
    width = models.PositiveIntegerField(help_text="Native pixels.")
    height = models.PositiveIntegerField()
    fps = models.FloatField(help_text="Native frames per second.")
    min_seconds = models.FloatField()
    max_seconds = models.FloatField()
    price_per_second = models.DecimalField(
        max_digits=8, decimal_places=4, null=True, blank=True, help_text="US dollars."
    )
    budget = models.DecimalField(
        max_digits=10,
        decimal_places=2,
        null=True,
        blank=True,
        help_text="US dollars that a hosted version may spend on clips; empty is nothing.",
    )
    released_on = models.DateField(null=True, blank=True)
    availability = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)
        constraints = [
            models.UniqueConstraint(
                fields=["codename"], condition=~Q(codename=""), name="version_codename_unique"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def disguised(self) -> bool:
        """It competes under its codename: nothing public may name it or its model."""
        revealed = self.revealed_on is not None and self.revealed_on <= timezone.localdate()
        return bool(self.codename) and not revealed

    @property
    def public_name(self) -> str:
        return self.codename if self.disguised else self.name

    @property
    def public_lab(self) -> str:
        return "To be revealed" if self.disguised else self.model.lab

    @property
    def public_slug(self) -> str:
        return slugify(self.codename) if self.disguised else self.slug

    @property
    def public_url(self) -> str:
        return "" if self.disguised else f"{self.model.get_absolute_url()}#{self.slug}"


class ReferenceImage(models.Model):
    """What an image-to-video prompt starts from, always re-encoded by us."""

    class Source(models.TextChoices):
        SHIPPED = "shipped", "Rendered by this project's own code"
        UPLOADED = "uploaded", "Uploaded by an operator"

    file = models.FileField(upload_to="references/", max_length=200)
    sha256 = models.CharField(max_length=64, unique=True, help_text="Of the re-encoded file.")
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    source = models.CharField(max_length=8, choices=Source)
    note = models.CharField(max_length=200, blank=True)

    def __str__(self) -> str:
        return f"{self.note or self.sha256[:12]} ({self.width}×{self.height})"


class Prompt(models.Model):
    """What is asked: words, for image-to-video also a first frame, and the conditions."""

    key = models.CharField(max_length=80, unique=True, validators=[SLUG])
    text = models.TextField()
    language = models.CharField(max_length=8, default="en")
    tags = ArrayField(models.CharField(max_length=40), default=list, blank=True)
    sounds = ArrayField(models.CharField(max_length=6), help_text="silent, audio or both")
    image = models.ForeignKey(ReferenceImage, models.PROTECT, null=True, blank=True)
    aspect = models.CharField(max_length=5, choices=[(a, a) for a in ASPECTS])
    seconds = models.FloatField()

    class Meta:
        ordering = ("key",)
        indexes = [GinIndex(fields=["tags"], name="prompt_tags")]

    def __str__(self) -> str:
        return self.key

    @property
    def task(self) -> str:
        return "i2v" if self.image_id else "t2v"

    @property
    def categories(self) -> list[Category]:
        return [Category(f"{self.task}-{sound}") for sound in self.sounds]

    @property
    def conditions(self) -> Conditions:
        return Conditions(self.aspect, self.seconds)


class PromptSet(models.Model):
    """A named list of prompts, frozen once a clip has been asked for on any of them."""

    slug = models.CharField(max_length=80, unique=True, validators=[SLUG])
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    seed_slots = models.PositiveIntegerField(default=1)
    digest = models.CharField(max_length=64, help_text="SHA-256 of its contents.")
    prompts: "models.ManyToManyField[Prompt, PromptSetEntry]" = models.ManyToManyField(
        Prompt, through="PromptSetEntry", related_name="sets"
    )

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.name


class PromptSetEntry(models.Model):
    prompt_set = models.ForeignKey(PromptSet, models.CASCADE, related_name="entries")
    prompt = models.ForeignKey(Prompt, models.PROTECT, related_name="entries")
    position = models.PositiveIntegerField()

    class Meta:
        ordering = ("position",)
        constraints = [
            models.UniqueConstraint(fields=["prompt_set", "prompt"], name="entry_prompt_once"),
            models.UniqueConstraint(fields=["prompt_set", "position"], name="entry_position_once"),
        ]

    def __str__(self) -> str:
        return f"{self.position} of {self.prompt_set_id}"


class ClipState(models.TextChoices):
    WAITING = "waiting", "Waiting"
    RENDERING = "rendering", "Rendering"
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"


class Stratum(models.TextChoices):
    NEAR = "near", "Near the profile"
    FAR = "far", "Far from the profile"


class Clip(models.Model):
    """What one version made of one prompt with one seed, in one category.

    A worker that claims it raises `fence`; only the holder of the current fence can publish, so a
    worker that lost its lease can never overwrite the work of the one that took over.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    version = models.ForeignKey(Version, models.PROTECT, related_name="clips")
    prompt = models.ForeignKey(Prompt, models.PROTECT, related_name="clips")
    category = models.CharField(max_length=12, choices=Category)
    seed_slot = models.PositiveIntegerField(default=0)
    seed = models.PositiveBigIntegerField()
    state = models.CharField(max_length=9, choices=ClipState, default=ClipState.WAITING)
    priority = models.IntegerField(default=0, help_text="Lower comes first.")
    attempts = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    fence = models.PositiveIntegerField(default=0)
    worker = models.CharField(max_length=120, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    step = models.PositiveIntegerField(default=0)
    steps = models.PositiveIntegerField(default=0)

    master = models.FileField(max_length=200, blank=True)
    rendition = models.FileField(max_length=200, blank=True)
    poster = models.FileField(max_length=200, blank=True)
    rendition_sha256 = models.CharField(max_length=64, blank=True)
    width = models.PositiveIntegerField(null=True, blank=True, help_text="Of the master.")
    height = models.PositiveIntegerField(null=True, blank=True)
    fps = models.FloatField(null=True, blank=True)
    seconds = models.FloatField(null=True, blank=True)
    stratum = models.CharField(
        max_length=4,
        choices=Stratum,
        blank=True,
        help_text="Whether the master's frame rate, size and shape are near the rendition's.",
    )
    profile = models.PositiveIntegerField(
        default=1, help_text="Number of the profile of the rendition; only equals meet in battles."
    )
    loudness = models.FloatField(
        null=True, blank=True, help_text="Of the rendition, in LUFS; empty if silent."
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
        help_text="For which rendering held its GPU, loading the model apart; empty without one.",
    )
    gpu_peak_bytes = models.BigIntegerField(
        null=True, blank=True, help_text="The most GPU memory that its model and its work took."
    )
    encode_seconds = models.FloatField(null=True, blank=True)
    hardware = models.CharField(max_length=120, blank=True)
    ready_at = models.DateTimeField(null=True, blank=True)
    # Written by a trigger (migration 0005), whoever writes the error.
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
                condition=~Q(state="ready")
                | (~Q(master="") & ~Q(rendition="") & ~Q(poster="") & ~Q(rendition_sha256="")),
            ),
            models.CheckConstraint(
                name="clip_rendering_has_lease",
                condition=~Q(state="rendering") | Q(lease_expires_at__isnull=False),
            ),
            models.CheckConstraint(
                name="clip_failed_says_why", condition=~Q(state="failed") | ~Q(error="")
            ),
        ]
        indexes = [
            models.Index(
                fields=["version", "category", "priority", "created_at"],
                name="clip_queue_of_version",
                condition=Q(state__in=["waiting", "rendering"]),
            ),
            models.Index(
                fields=["category", "version", "prompt", "seed_slot"],
                name="clip_ready",
                condition=Q(state="ready"),
            ),
            models.Index(
                fields=["lease_expires_at"], name="clip_leases", condition=Q(state="rendering")
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
            models.Index(fields=["failed_at"], name="clip_errors", condition=~Q(error="")),
            models.Index(
                fields=["category", "version"],
                name="clip_far",
                condition=Q(state="ready", stratum="far"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.version_id}/{self.prompt_id}/{self.category}/{self.seed_slot}"


class Worker(models.Model):
    """A process that renders, as it last reported itself (generation/workers.py)."""

    name = models.CharField(max_length=120, unique=True, help_text="As of its clips.")
    hardware = models.CharField(max_length=120)
    gpu_used = models.BigIntegerField(
        null=True, blank=True, help_text="Bytes, by all processes; empty until it uses a GPU."
    )
    gpu_total = models.BigIntegerField(null=True, blank=True)
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class JobState(models.TextChoices):
    WAITING = "waiting", "Waiting"  # nothing was sent, or what was sent was turned away
    SUBMITTING = "submitting", "Submitting"  # sent; nobody knows yet whether it arrived
    SUBMITTED = "submitted", "Submitted"  # accepted, to be polled
    COLLECTED = "collected", "Collected"
    FAILED = "failed", "Failed"


class HostedJob(models.Model):
    """One order to a paid service: what was sent, what it answers, what it costs.

    `fence` is the clip's when the job was made or taken over. A job is open until it is collected
    or failed, and a clip has one open job at most, so nothing is ordered twice.
    """

    OPEN = (JobState.WAITING, JobState.SUBMITTING, JobState.SUBMITTED)

    clip = models.ForeignKey(Clip, models.PROTECT, related_name="jobs")
    fence = models.PositiveIntegerField()
    backend = models.CharField(max_length=40)
    state = models.CharField(max_length=10, choices=JobState, default=JobState.WAITING)
    request = models.JSONField(
        default=dict, blank=True, help_text="As sent, without keys; images by their SHA-256."
    )
    answer = models.JSONField(default=dict, blank=True, help_text="The last one, shortened.")
    job_id = models.CharField(max_length=200, blank=True, help_text="The service's own.")
    status_url = models.TextField(blank=True)
    result_url = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    submitted_at = models.DateTimeField(null=True, blank=True, help_text="When it was sent.")
    next_poll_at = models.DateTimeField(help_text="When a worker looks at it next.")
    tries = models.PositiveIntegerField(default=0, help_text="Of the step that it is at.")
    polls = models.PositiveIntegerField(default=0)
    cost = models.DecimalField(
        max_digits=10,
        decimal_places=4,
        null=True,
        blank=True,
        help_text="US dollars, by the version's price; empty if nothing was billed.",
    )
    error = models.TextField(blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["clip"],
                condition=Q(state__in=["waiting", "submitting", "submitted"]),
                name="job_open_once",
            ),
            models.CheckConstraint(
                name="job_submitted_has_addresses",
                condition=~Q(state="submitted") | (~Q(status_url="") & ~Q(result_url="")),
            ),
            models.CheckConstraint(
                name="job_failed_says_why", condition=~Q(state="failed") | ~Q(error="")
            ),
        ]
        indexes = [
            models.Index(
                fields=["state", "next_poll_at"],
                name="job_due",
                condition=Q(state__in=["waiting", "submitting", "submitted"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.backend} {self.job_id or self.pk}"


class UploadState(models.TextChoices):
    ARRIVING = "arriving", "Arriving"  # its files are being stored
    OPEN = "open", "Open"  # rows wait to be imported
    DONE = "done", "Done"  # every row has an outcome; the files are deleted


class Upload(models.Model):
    """Clips made elsewhere that an operator sent, with the rows that say what they are.

    Whoever imports a row raises `fence` under a lease, and notes the outcome only while it holds.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    by = models.CharField(max_length=150, help_text="The operator's name.")
    created_at = models.DateTimeField(auto_now_add=True)
    state = models.CharField(max_length=8, choices=UploadState, default=UploadState.ARRIVING)
    files = models.JSONField(
        default=dict, help_text="Where each file lies in the media storage, by its own name."
    )
    fence = models.PositiveIntegerField(default=0)
    lease_expires_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-created_at",)
        indexes = [
            models.Index(
                fields=["created_at"], name="upload_unfinished", condition=~Q(state="done")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.by} at {self.created_at:%Y-%m-%d %H:%M}"


class UploadRow(models.Model):
    """A line of an upload's manifest, and what became of it."""

    class What(models.TextChoices):
        """As `generation.importing.What`; empty until the row was looked at."""

        IMPORTED = "imported", "Imported"
        THERE = "already there", "Already there"
        REFUSED = "refused", "Refused"

    upload = models.ForeignKey(Upload, models.CASCADE, related_name="rows")
    line = models.PositiveIntegerField()
    cells = models.JSONField(help_text="By column.")
    whole = models.BooleanField(help_text="As many cells as the header.")
    attempts = models.PositiveIntegerField(default=0)
    what = models.CharField(max_length=13, choices=What, blank=True)
    sentence = models.TextField(blank=True)

    class Meta:
        ordering = ("line",)
        constraints = [
            models.UniqueConstraint(fields=["upload", "line"], name="upload_line_once"),
            models.CheckConstraint(
                name="upload_row_says_why", condition=Q(what="") | ~Q(sentence="")
            ),
        ]

    def __str__(self) -> str:
        return f"line {self.line} of {self.upload_id}"
