"""Where nothing can be written at the moment."""

from django.db import models


class StoragePause(models.Model):
    """A place that refused what was written there (generation/media/pauses.py): what writes waits.

    One row per place. It is over once `ended_at` is set; then it tells how often it came again.
    """

    place = models.CharField(
        max_length=120, unique=True, help_text="The media storage, or the disk of one machine."
    )
    reason = models.TextField()
    since = models.DateTimeField()
    try_at = models.DateTimeField(help_text="When somebody looks whether there is room again.")
    times = models.PositiveIntegerField(default=1, help_text="Refusals in a row.")
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("since",)

    def __str__(self) -> str:
        return self.place
