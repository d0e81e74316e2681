"""Workers, as they last reported themselves."""

from django.db import models


class Worker(models.Model):
    """A process that renders, as it last reported itself (generation/rendering/workers.py)."""

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
