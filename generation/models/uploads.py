"""Clips that operators upload."""

import uuid

from django.db import models
from django.db.models import Q

from generation.rendering.leases import Leased


class UploadState(models.TextChoices):
    ARRIVING = "arriving", "Arriving"  # its files are being stored
    OPEN = "open", "Open"  # rows wait to be imported
    DONE = "done", "Done"  # every row has an outcome; the files are deleted


class Upload(Leased):
    """Clips made elsewhere that an operator sent, with the rows that say what they are.

    Its rows are imported one by one, each under a lease; `attempts` counts those at the next row.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    by = models.CharField(max_length=150, help_text="The operator's name.")
    created_at = models.DateTimeField(auto_now_add=True)
    state = models.CharField(max_length=8, choices=UploadState, default=UploadState.ARRIVING)
    files = models.JSONField(
        default=dict, help_text="Path of each file in the media storage, by file name."
    )

    class Meta:
        ordering = ("-created_at",)
        indexes = [
            models.Index(
                fields=["created_at"], name="upload_unfinished", condition=~Q(state="done")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.by} at {self.created_at:%Y-%m-%d %H:%M}"


class RowOutcome(models.TextChoices):
    """What became of a manifest's row."""

    IMPORTED = "imported", "Imported"
    HELD = "held", "Held"  # imported, and waits for an operator's look
    ALREADY_THERE = "already there", "Already there"
    REFUSED = "refused", "Rejected"


class UploadRow(models.Model):
    """A line of an upload's manifest, and what became of it."""

    upload = models.ForeignKey(Upload, models.CASCADE, related_name="rows")
    line = models.PositiveIntegerField()
    cells = models.JSONField(help_text="By column.")
    whole = models.BooleanField(help_text="Has as many cells as the header.")
    outcome = models.CharField(
        max_length=13, choices=RowOutcome, blank=True, help_text="Empty until the row is processed."
    )
    sentence = models.TextField(blank=True)

    class Meta:
        ordering = ("line",)
        constraints = [
            models.UniqueConstraint(fields=["upload", "line"], name="upload_line_once"),
            models.CheckConstraint(
                name="upload_row_says_why", condition=Q(outcome="") | ~Q(sentence="")
            ),
        ]

    def __str__(self) -> str:
        return f"line {self.line} of {self.upload_id}"
