"""The four categories: a task with a sound, and what each asks of those that compete in it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from django.db import models

ASPECTS = ("16:9", "1:1", "9:16")

# Resolution classes by the pixels of a frame, least first: a model's own sizes differ by what its
# network can divide (832x480, 848x480 and 960x544 are all called 480p).
RESOLUTIONS = {"small": 0, "480p": 320_000, "720p": 640_000, "1080p": 1_500_000}


def ratio(aspect: str) -> float:
    across, down = (int(part) for part in aspect.split(":"))
    return across / down


def nearest_aspect(width: int, height: int) -> str:
    return min(ASPECTS, key=lambda aspect: abs(math.log(width / height / ratio(aspect))))


def resolution_class(width: int, height: int) -> str:
    return [name for name, least in RESOLUTIONS.items() if least <= width * height][-1]


@dataclass(frozen=True)
class Terms:
    """What a category asks of every version, whatever the prompt.

    Aspect, length and seed come with the prompt and are the same for all. The frame rate and the
    exact size stay the model's own, within these bounds, and are recorded at each clip.
    """

    fps: tuple[float, float]  # native frames a second, from and to
    resolutions: Mapping[str, tuple[str, ...]]  # the classes admitted, by aspect


# A site whose models all make 720p narrows the class here, and the rest is refused. Square prompts
# are the small world's, whose models make far smaller pictures.
REAL = ("480p", "720p", "1080p")
OPEN_TERMS = Terms(fps=(8, 60), resolutions={"16:9": REAL, "9:16": REAL, "1:1": tuple(RESOLUTIONS)})


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
    def terms(self) -> Terms:
        return TERMS[self]

    @property
    def short(self) -> str:
        start = "Text" if self.task == "t2v" else "Image"
        return f"{start} → video" + (" + audio" if self.audio else "")


@dataclass(frozen=True)
class Conditions:
    """What is asked of every version that renders a prompt, so that only the version differs."""

    aspect: str
    seconds: float


TERMS: Mapping[Category, Terms] = dict.fromkeys(Category, OPEN_TERMS)
