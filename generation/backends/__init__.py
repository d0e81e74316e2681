"""Backends: one module each, named in the catalogue.

A backend module has:

    GPU                                  whether it uses one where there is one
    check(settings, request)             raises CannotRender if it never could; cheap, no torch
    render(settings, request, progress)  returns a RawClip; only ever called inside a worker

A module named in HOSTED orders its clips from a paid service instead. It has check and what
generation/hosted.py asks of it (`Hosted` in ordering.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from generation.categories import Conditions
from generation.encoding import RawClip

RENDERED_HERE = ("scenes", "colt", "diffusers")  # what GPU workers claim
HOSTED = ("fal", "runway", "dashscope", "ark", "kling", "veo")
NAMES = (*RENDERED_HERE, "imported", *HOSTED)


class CannotRender(Exception):
    """The version can't make this clip, now or later; the message says why in one sentence."""


class NeverRenders(CannotRender):
    """The version renders nothing here, whatever the request: one sentence is enough for all."""


@dataclass(frozen=True)
class Request:
    """What is asked of a backend; `image` is uint8 [H, W, 3] or None for text to video."""

    text: str
    conditions: Conditions
    audio: bool
    seed: int
    image: np.ndarray | None = None


Progress = Callable[[int, int], None]  # step, steps


class Backend(Protocol):
    GPU: bool

    def check(self, settings: Mapping[str, Any], request: Request) -> None: ...

    def render(
        self, settings: Mapping[str, Any], request: Request, progress: Progress
    ) -> RawClip: ...


def backend(name: str) -> Backend:
    """The backend of that name; importing it must not import torch."""
    if name not in NAMES:
        raise CannotRender(f"There is no backend “{name}”; there are {', '.join(NAMES)}.")
    module: Any = import_module(f"generation.backends.{name}")
    return module
