"""Backends: what makes the clips of a version. registry.py finds and loads them.

A backend that renders here is a file, or a folder with backend.py, in this folder. It has:

    GPU                                  whether it uses one where there is one
    check(settings, request)             raises CannotRender if it never could; cheap
    render(settings, request, progress)  returns a RawClip; only ever called inside a worker

The web process imports the module and calls `check`. What `render` needs, numpy and torch among it,
is not even installed there, so it stands in another module that `render` imports.

A backend that orders its clips from a paid service is a file in generation/hosted/services/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from generation.catalogue.categories import Conditions

if TYPE_CHECKING:
    from PIL.Image import Image

    from generation.media.masters import RawClip


class CannotRender(Exception):
    """The version can't make this clip, now or later; the message says why in one sentence."""


class NeverRenders(CannotRender):
    """The version renders nothing here, whatever the request: one sentence is enough for all."""


@dataclass(frozen=True)
class Request:
    """What is asked of a backend; `image` is None for text to video.

    Of the image `check` may look at the size: its pixels are decoded when something needs them.
    """

    text: str
    conditions: Conditions
    audio: bool
    seed: int
    image: Image | None = None  # RGB


ReportStep = Callable[[int, int], None]  # step, steps


class Backend(Protocol):
    """What every backend can do: say beforehand whether it could ever make a clip."""

    def check(self, settings: Mapping[str, Any], request: Request) -> None: ...


@runtime_checkable
class Renderer(Backend, Protocol):
    """A backend that renders in our own workers."""

    GPU: bool

    def render(
        self, settings: Mapping[str, Any], request: Request, progress: ReportStep
    ) -> RawClip: ...
