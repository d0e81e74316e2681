"""The four categories: a task with a sound."""

from dataclasses import dataclass

from django.db import models


class Category(models.TextChoices):
    T2V_SILENT = "t2v-silent", "Text to video, silent"
    T2V_AUDIO = "t2v-audio", "Text to video with audio"
    I2V_SILENT = "i2v-silent", "Image to video, silent"
    I2V_AUDIO = "i2v-audio", "Image to video with audio"

    @property
    def task(self) -> str:
        return self.value.split("-")[0]

    @property
    def sound(self) -> str:
        return self.value.split("-")[1]

    @property
    def audio(self) -> bool:
        return self.sound == "audio"

    @property
    def short(self) -> str:
        start = "Text" if self.task == "t2v" else "Image"
        return f"{start} → video" + (" + audio" if self.audio else "")


@dataclass(frozen=True)
class Conditions:
    """What is asked of every version that renders a prompt, so that only the version differs."""

    aspect: str
    seconds: float


ASPECTS = ("16:9", "1:1", "9:16")
