"""Backends: one module each, named in the catalogue.

A backend module has:

    GPU                                  whether it uses one where there is one
    check(settings, request)             raises CannotRender if it never could; cheap, no torch
    render(settings, request, progress)  returns a RawClip; only ever called inside a worker

A module named in HOSTED orders its clips from a paid service instead. It has GPU and check, a
render that refuses, and what generation/hosted.py asks of it (`Hosted`): functions that write and
read messages, and send none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from generation.categories import Conditions
from generation.encoding import RawClip

HOSTED = ("fal",)
NAMES = ("scenes", "colt", "diffusers", "imported", *HOSTED)


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


@dataclass(frozen=True)
class Order:
    """A clip as it is ordered: one POST. `seconds` is the length that will be billed."""

    url: str
    headers: Mapping[str, str]  # with the key: neither stored nor logged
    body: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Accepted:
    """The service took the order; the clip can be asked for at these addresses."""

    job_id: str
    status_url: str
    result_url: str


@dataclass(frozen=True)
class Pending:
    """Not done yet."""


@dataclass(frozen=True)
class Done:
    """It can be fetched from the job's result address."""


@dataclass(frozen=True)
class Failed:
    """It will never be done; the reason ends in a full stop."""

    reason: str
    billed: bool


class Unreadable(Exception):
    """An answer does not have the form that is documented; the message says what is wrong."""


class Hosted(Protocol):
    GPU: bool
    SERVICE: str  # its name, in sentences

    def check(self, settings: Mapping[str, Any], request: Request) -> None: ...

    def headers(self) -> dict[str, str]:
        """What every message but the file's download carries; CannotRender without a key."""

    def order(self, settings: Mapping[str, Any], request: Request) -> Order: ...

    def read_accepted(self, answer: Any) -> Accepted: ...

    def read_status(self, answer: Any) -> Pending | Done | Failed: ...

    def read_result(self, status: int, answer: Any) -> str | Failed:
        """The file's address."""

    def reason_in(self, answer: Any) -> str:
        """Why the service says no, in its own words, ending in a full stop."""


def hosted(name: str) -> Hosted:
    """The hosted backend of that name."""
    if name not in HOSTED:
        raise CannotRender(f"The backend “{name}” is not hosted; hosted are {', '.join(HOSTED)}.")
    module: Any = import_module(f"generation.backends.{name}")
    return module


def backend(name: str) -> Backend:
    """The backend of that name; importing it must not import torch."""
    if name not in NAMES:
        raise CannotRender(f"There is no backend “{name}”; there are {', '.join(NAMES)}.")
    module: Any = import_module(f"generation.backends.{name}")
    return module
