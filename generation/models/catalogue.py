"""Models and their versions."""

import json
from typing import Any, Self
from urllib.parse import urlsplit

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.deconstruct import deconstructible
from django.utils.text import slugify

from generation.catalogue.categories import Category

SLUG = RegexValidator(r"^[a-z0-9][a-z0-9.-]*$", "Use lower-case letters, digits, dots and hyphens.")

# No screen shows more, and no clip is longer; a number beyond is a slip of the pen.
SIDE_PIXELS = (16, 8192)
FRAME_RATES = (1, 240)  # frames a second
CLIP_LENGTHS = (0.1, 60)
LINK_LABEL_LENGTH = 80

# Of the model whose versions' clips check voters, and of the kind that is a baseline's own clips.
CHECKS_MODEL, SAME_CHECK = "checks", "same"


@deconstructible
class Within:
    """A number from `low` to `high`; nan is none."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, value: float) -> None:
        if not self.low <= value <= self.high:
            raise ValidationError(f"{str(value)[:40]} is not from {self.low:g} to {self.high:g}.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Within) and (self.low, self.high) == (other.low, other.high)

    def __hash__(self) -> int:
        return hash((self.low, self.high))


def is_web_link(link: Any) -> bool:
    """Whether it is {label, url}, and leads to a page of the web."""
    if not isinstance(link, dict) or set(link) != {"label", "url"}:
        return False
    label, url = link["label"], link["url"]
    if not (isinstance(label, str) and 0 < len(label.strip()) <= LINK_LABEL_LENGTH):
        return False
    if not isinstance(url, str) or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def check_links(links: Any) -> None:
    if not isinstance(links, list):
        raise ValidationError("Links are a list of {label, url}.")
    for link in links:
        if not is_web_link(link):
            raise ValidationError(
                f"The link {str(link)[:200]} is none: give a label, and a url that begins with "
                "https:// or http://."
            )


def check_storable(settings: Any) -> None:
    """JSON as the database keeps it: no nan, no infinity, no NUL."""
    try:
        text = json.dumps(settings, allow_nan=False)
    except TypeError:
        return  # the field itself says so
    except ValueError:
        text = "\\u0000"
    if "\\u0000" in text:
        raise ValidationError("A value is none that the database can keep.")


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
    links = models.JSONField(
        default=list, blank=True, validators=[check_links], help_text="A list of {label, url}."
    )
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


NOT_PUBLIC = "To be revealed"
RENDERED_STATES = (VersionState.TRIAL, VersionState.ACTIVE)


class Versions(models.QuerySet["Version"]):
    def public(self) -> Self:
        """Those that anybody may be told of: once active, whatever their state is by now, and not
        under a codename."""
        revealed = Q(codename="") | Q(revealed_on__lte=timezone.localdate())
        return self.filter(revealed, activated_at__isnull=False)


class Version(models.Model):
    """One model's checkpoint with fixed settings. Immutable once it has clips.

    The database itself refuses a change of what determines its clips (trigger in migration 0002),
    and notes when a version first became active (migration 0003).
    """

    FROZEN = ("model_id", "parent_id", "backend", "settings", "width", "height", "fps")

    model = models.ForeignKey(Model, models.PROTECT, related_name="versions")
    slug = models.CharField(max_length=80, unique=True, validators=[SLUG])
    name = models.CharField(max_length=120, help_text="Shown to voters after the reveal.")
    parent = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="children"
    )
    codename = models.CharField(max_length=80, blank=True)
    revealed_on = models.DateField(null=True, blank=True)
    state = models.CharField(max_length=8, choices=VersionState, default=VersionState.DRAFT)
    backend = models.CharField(max_length=40)
    settings = models.JSONField(default=dict, blank=True, validators=[check_storable])
    categories = ArrayField(models.CharField(max_length=12, choices=Category))
    width = models.PositiveIntegerField(
        validators=[Within(*SIDE_PIXELS)], help_text="Native pixels."
    )
    height = models.PositiveIntegerField(validators=[Within(*SIDE_PIXELS)])
    fps = models.FloatField(
        validators=[Within(*FRAME_RATES)], help_text="Native frames per second."
    )
    min_seconds = models.FloatField(validators=[Within(*CLIP_LENGTHS)])
    max_seconds = models.FloatField(validators=[Within(*CLIP_LENGTHS)])
    price_per_second = models.DecimalField(
        max_digits=8,
        decimal_places=4,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="US dollars.",
    )
    budget = models.DecimalField(
        max_digits=10,
        decimal_places=2,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="Budget for clips of a hosted version, in US dollars. Empty means none.",
    )
    released_on = models.DateField(null=True, blank=True)
    availability = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    activated_at = models.DateTimeField(
        null=True,
        editable=False,
        help_text="When it first became active. Before that no public page names it.",
    )

    objects = Versions.as_manager()

    class Meta:
        ordering = ("name",)
        constraints = [
            models.UniqueConstraint(
                fields=["codename"], condition=~Q(codename=""), name="version_codename_unique"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        lengths = self.min_seconds, self.max_seconds
        if None not in lengths and self.min_seconds > self.max_seconds:
            said = (
                f"Its shortest clip has {self.min_seconds:g} s, its longest {self.max_seconds:g}."
            )
            raise ValidationError({"max_seconds": said})

    @property
    def disguised(self) -> bool:
        """It competes under its codename: nothing public may name it or its model."""
        revealed = self.revealed_on is not None and self.revealed_on <= timezone.localdate()
        return bool(self.codename) and not revealed

    @property
    def is_public(self) -> bool:
        """Whether anybody may be told of it, as `Versions.public` has it."""
        return self.activated_at is not None and not self.disguised

    @property
    def public_name(self) -> str:
        return self.name if self.is_public else self.codename or NOT_PUBLIC

    @property
    def public_lab(self) -> str:
        return self.model.lab if self.is_public else NOT_PUBLIC

    @property
    def public_slug(self) -> str:
        return self.slug if self.is_public else slugify(self.codename)

    @property
    def public_url(self) -> str:
        return f"{self.model.get_absolute_url()}#{self.slug}" if self.is_public else ""
