"""What the hosted backends share: the terms of an order, the common settings, keys and images.

A hosted backend is a module that writes and reads the messages of one service and sends none. A
version's settings say everything that is sent but the prompt's own. These are common to all:

    text_model      the model's name at the service for text to video; left out if it has none
    image_model     the same for image to video
    sound           "switch" if it can be asked for a clip with or without, "always" if it makes
                    sound whatever is asked (a silent clip's track is dropped), "never" if it can't
    durations       which lengths it makes, in whole seconds
    aspects         which it makes from text
    prompt_at_most  characters; some services cut a longer prompt without a word. Left out if
                    there is no limit
    arguments       whatever else is sent, the same for every clip
"""

import base64
import io
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from PIL import Image

from generation.backends import HOSTED, CannotRender, Request
from generation.categories import ASPECTS
from generation.encoding import FILL_WITHIN

NEEDED = {"sound", "durations", "arguments"}
OPTIONAL = {"text_model", "image_model", "prompt_at_most"}
MODEL = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]*\w)*", re.ASCII)
JOB_ID = re.compile(r"[\w.:-]{1,200}", re.ASCII)
REASON_AT_MOST = 500  # characters of the service's own words; some quote the whole request
SOUNDS = ("switch", "always", "never")


# --- the terms -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """A clip as it is ordered: one POST. `seconds` is the length that will be billed."""

    url: str
    headers: Mapping[str, str]  # with the key: neither stored nor logged
    body: Mapping[str, Any]
    seconds: float
    notes: tuple[str, ...] = ()  # what was wanted and could not be asked for


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
    SERVICE: str  # its name, in sentences
    FILE_WITH_KEY: bool  # whether the file itself is given out for the key alone

    def check(self, settings: Mapping[str, Any], request: Request) -> None: ...

    def headers(self) -> dict[str, str]:
        """What every message to the service carries; CannotRender without a key."""

    def order(self, settings: Mapping[str, Any], request: Request) -> Order: ...

    def turned_away(self, status: int, answer: Any) -> bool:
        """Whether this answer to an order says: not taken, come back later."""

    def read_accepted(self, order_url: str, answer: Any) -> Accepted | Failed: ...

    def read_status(self, answer: Any) -> Pending | Done | Failed: ...

    def read_result(self, status: int, answer: Any) -> str | Failed:
        """The file's address."""

    def cancel(self, status_url: str) -> tuple[str, str] | None:
        """Method and address by which an order is cancelled, if the service has a way."""

    def reason_in(self, answer: Any) -> str:
        """Why the service says no, in its own words, ending in a full stop."""


def hosted(name: str) -> Hosted:
    """The hosted backend of that name."""
    if name not in HOSTED:
        raise CannotRender(f"The backend “{name}” is not hosted; hosted are {', '.join(HOSTED)}.")
    module: Any = import_module(f"generation.backends.{name}")
    return module


# --- what can be told before anything is sent ----------------------------------------------------


@dataclass(frozen=True)
class Service:
    """How the settings of one service differ from the common ones."""

    name: str
    own: Collection[str]  # settings of its own, all of them needed
    reserved: Collection[str]  # arguments that the arena sets
    sounds: Collection[str] = SOUNDS
    image_side: int = 1  # pixels that each side of a first frame must have


def check_order(
    service: Service,
    settings: Mapping[str, Any],
    request: Request,
    *,
    aspects: Collection[str],
    follows_image: bool,
) -> None:
    """Refuse what the service could not make: in the settings, then in the request.

    `aspects` are what it makes of this kind of request, unless the first frame decides.
    """
    model_of(settings, request)
    seconds_of(settings, request)
    limit = settings.get("prompt_at_most")
    length = len(request.text.encode("utf-16-le")) // 2  # as they are counted in the services
    if limit is not None and length > limit:
        raise CannotRender(f"The prompt has {length} characters; {service.name} takes {limit}.")
    if request.audio and settings["sound"] == "never":
        raise CannotRender("It makes no sound: ask it for silent clips only.")
    if request.image is not None:
        _check_image(service, request)
    if (request.image is None or not follows_image) and request.conditions.aspect not in aspects:
        source = "text" if request.image is None else "an image"
        raise CannotRender(
            f"It makes {', '.join(aspects)} from {source}, not {request.conditions.aspect}."
        )


def _check_image(service: Service, request: Request) -> None:
    assert request.image is not None
    height, width = request.image.shape[:2]
    if min(width, height) < service.image_side:
        raise CannotRender(
            f"The reference image is {width}x{height}; {service.name} takes none with a side "
            f"below {service.image_side} pixels."
        )
    across, down = (int(part) for part in request.conditions.aspect.split(":"))
    # Some services would follow the image's shape, others cut it: no two would start from the same.
    if abs(width / height * down / across - 1) > FILL_WITHIN:
        raise CannotRender(
            f"The reference image is {width}x{height}, not {request.conditions.aspect}, as the "
            "prompt asks."
        )


def check_settings(service: Service, settings: Mapping[str, Any]) -> None:
    """The settings by themselves: complete, known, and of the right kind."""
    known = NEEDED | OPTIONAL | set(service.own)
    if unknown := set(settings) - known:
        raise CannotRender(
            f"Unknown {service.name} setting {', '.join(sorted(unknown))}; there are "
            f"{', '.join(sorted(known))}."
        )
    if missing := known - OPTIONAL - set(settings):
        raise CannotRender(f"The {service.name} setting {', '.join(sorted(missing))} is missing.")
    for name in ("text_model", "image_model"):
        model = settings.get(name)
        if model is not None and not (isinstance(model, str) and MODEL.fullmatch(model)):
            raise CannotRender(
                f"The {service.name} setting {name} is {model!r}; give the model's name."
            )
    check_choice(service, settings, "sound", service.sounds)
    limit = settings.get("prompt_at_most")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise CannotRender(f"The {service.name} setting prompt_at_most is {limit!r}; give a count.")
    arguments = settings["arguments"]
    if not isinstance(arguments, Mapping):
        raise CannotRender(
            f"The {service.name} setting arguments is {arguments!r}; it must be a table."
        )
    if reserved := set(service.reserved) & set(arguments):
        raise CannotRender(
            f"The argument {', '.join(sorted(reserved))} is set by the arena: remove it from "
            "arguments."
        )


def check_choice(
    service: Service, settings: Mapping[str, Any], name: str, known: Collection[Any]
) -> None:
    if settings[name] not in known:
        words = ", ".join(str(k).lower() if isinstance(k, bool) else str(k) for k in known)
        raise CannotRender(
            f"The {service.name} setting {name} is {settings[name]!r}; it can be {words}."
        )


def check_aspects(service: Service, aspects: Any) -> None:
    if not isinstance(aspects, list) or not set(aspects) <= set(ASPECTS):
        raise CannotRender(
            f"The {service.name} setting aspects is {aspects!r}; list {', '.join(ASPECTS)}."
        )


def check_durations(service: Service, durations: Any) -> None:
    if not isinstance(durations, list) or not all(type(d) is int and d > 0 for d in durations):
        raise CannotRender(
            f"The {service.name} setting durations is {durations!r}; list whole seconds."
        )


def model_of(settings: Mapping[str, Any], request: Request) -> str:
    asked = "text" if request.image is None else "image"
    model: str | None = settings.get(f"{asked}_model")
    if model is None:
        raise CannotRender(f"It makes no video from {asked}: its settings have no {asked}_model.")
    return model


def seconds_of(settings: Mapping[str, Any], request: Request) -> int:
    """The shortest length it makes that is not shorter than what the prompt asks."""
    asked, offered = request.conditions.seconds, sorted(int(d) for d in settings["durations"])
    for seconds in offered:
        if seconds >= asked:
            return seconds
    longest = f"at most {offered[-1]} s" if offered else "no length that is listed"
    raise CannotRender(f"It makes {longest}; {asked:g} s were asked for.")


# --- writing and reading -------------------------------------------------------------------------


def key(service: str, name: str) -> str:
    """A key from the environment, as it can stand in a header."""
    value = os.environ.get(name, "").strip()
    if not (value and value.isascii() and value.isprintable() and " " not in value):
        raise CannotRender(
            f"There is no usable key for {service}: set {name} where hosted workers run."
        )
    return value


def address(name: str, default: str) -> str:
    """Where the service is, unless the environment leads elsewhere."""
    return os.environ.get(name, default).rstrip("/")


def png(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def data_address(image: np.ndarray) -> str:
    return f"data:image/png;base64,{png(image)}"


def notes(settings: Mapping[str, Any], request: Request, *more: str) -> tuple[str, ...]:
    """What was wanted and can't be asked for, to be kept with the order."""
    if settings["sound"] == "always" and not request.audio:
        more = (*more, "It has no switch for sound: the track is dropped.")
    return more


def at(value: Any, *path: str | int) -> Any:
    """What lies there in a message, or None."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and len(value) > step else None
    return value


def job_id(answer: Any, *path: str) -> str:
    """The service's own name of the job; it becomes a part of an address."""
    found = at(answer, *path)
    if not (isinstance(found, str) and JOB_ID.fullmatch(found)):
        raise Unreadable(f"it lacks a usable {'.'.join(path)}")
    return found


def file_address(status: int, answer: Any, *path: str | int) -> str:
    found = at(answer, *path)
    if status != 200 or not isinstance(found, str):
        raise Unreadable(f"it has no {'.'.join(str(step) for step in path)}")
    return found


def sentence(*words: Any) -> str:
    """The service's words in one line that ends in a full stop."""
    said = ": ".join(str(word) for word in words if word)
    text = " ".join((said or "it gives no reason").split())
    return text[:REASON_AT_MOST].rstrip(".") + "."
