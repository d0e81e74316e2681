"""Prompts, reference images and prompt sets."""

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models

from generation.catalogue.categories import ASPECTS, Category, Conditions
from generation.models.catalogue import SLUG


class ReferenceImage(models.Model):
    """What an image-to-video prompt starts from, always re-encoded by us."""

    class Source(models.TextChoices):
        SHIPPED = "shipped", "Made for this project"
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
