"""What all paid services share: the terms of an order, the common settings, keys.

A service is a file in generation/hosted/services/. It writes and reads the messages of that service
and sends none, and it names its one object SERVICE. A version's settings say everything that is
sent but the prompt's own. These are common to all:

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

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from generation.backends import CannotRender, Request
from generation.catalogue.categories import ASPECTS
from generation.hosted.messages import UnreadableAnswer
from generation.media.profile import FILL_WITHIN

SECONDS_LIMIT = 60  # no clip is longer, and a longer order would be billed
COMMON_SETTINGS = {"sound", "durations", "arguments"}
OPTIONAL_SETTINGS = {"text_model", "image_model", "prompt_at_most"}
MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]*\w)*", re.ASCII)
NO_REWRITER = "The API has no switch for prompt rewriting."
PLAIN_FAILURES = {
    "failed", "failure", "error", "cancelled", "canceled", "expired", "rejected", "aborted",
}  # fmt: skip


# --- the terms -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """A clip as it is ordered: one POST. `seconds` is the length that will be billed."""

    url: str
    headers: Mapping[str, str]  # with the key: neither stored nor logged
    body: Mapping[str, Any]
    seconds: float
    notes: tuple[str, ...] = ()  # what was wanted and could not be asked for
    lookup_url: str = ""  # where it can be looked for if its answer is lost


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


@dataclass(frozen=True)
class Unknown:
    """The service does not know the order, or does not say so to this key; in its own words."""

    reason: str


class Service(ABC):
    """One paid service: what it takes, and its messages."""

    name: ClassVar[str]  # in sentences
    url: ClassVar[str]  # where it is, unless the variable below leads elsewhere
    url_variable: ClassVar[str]
    own_settings: ClassVar[Collection[str]]  # beside the common ones, all of them needed
    choices: ClassVar[Mapping[str, Collection[Any]]] = {}  # own settings with few values
    arena_arguments: ClassVar[Collection[str]]  # what the arena sets, and `arguments` may not
    sounds: ClassVar[Collection[str]] = ("switch", "always", "never")
    least_side: ClassVar[int] = 1  # pixels that each side of a first frame must have
    shape_by_image: ClassVar[bool]  # whether a clip has its first frame's shape, or one it is asked
    order_headers: ClassVar[Mapping[str, str]] = {}  # beside the key
    notes: ClassVar[tuple[str, ...]] = ()  # what no order can ask for
    file_needs_key: ClassVar[bool] = False

    # What each service's file writes and reads.

    @abstractmethod
    def headers(self) -> dict[str, str]:
        """What every message to the service carries; CannotRender without a key."""

    @abstractmethod
    def write_order(
        self, settings: Mapping[str, Any], request: Request, model: str, seconds: int
    ) -> tuple[str, dict[str, Any]]:
        """Path and body of the order for a clip that was checked."""

    @abstractmethod
    def read_accepted(self, order_url: str, answer: Any) -> Accepted | Failed: ...

    @abstractmethod
    def read_status(self, answer: Any) -> Pending | Done | Failed | Unknown: ...

    @abstractmethod
    def read_result(self, status: int, answer: Any) -> str | Failed:
        """The file's address."""

    @abstractmethod
    def reason_in(self, answer: Any) -> str:
        """Why the service says no, in its own words, ending in a full stop."""

    def cancel(self, status_url: str) -> tuple[str, str] | None:
        """Method and address by which an order is cancelled, if the service has a way."""
        return None

    def turned_away(self, status: int, answer: Any) -> bool:
        """Whether this answer to an order is documented as: not taken, come back later.

        Server errors are not: a service may take an order and fail to say so.
        """
        return status == 429

    def name_order(self, order: Order, name: str) -> Order:
        """The order under a name of ours, where the service has such names: with the address at
        which it can be looked for by that name. As it is where it has none."""
        return order

    def other_status(self, status: Any, answer: Any) -> Failed:
        """A status that is not documented: a failure if it says so, else UnreadableAnswer."""
        if isinstance(status, str) and status.lower() in PLAIN_FAILURES:
            return Failed(self.reason_in(answer), billed=True)
        raise UnreadableAnswer(f"its status is {status!r}")

    def order(self, settings: Mapping[str, Any], request: Request) -> Order:
        """The order for one clip; CannotRender if it could not be made."""
        self.check(settings, request)
        model, seconds = model_of(settings, request), seconds_of(settings, request)
        path, body = self.write_order(settings, request, model, seconds)
        url = os.environ.get(self.url_variable, self.url).rstrip("/") + path
        notes = self.notes
        if settings["sound"] == "always" and not request.audio:
            notes = (*notes, "It has no switch for sound: the track is dropped.")
        headers = {**self.headers(), **self.order_headers}
        return Order(url, headers, body, seconds, notes)

    # What can be told before anything is sent.

    def check(self, settings: Mapping[str, Any], request: Request) -> None:
        """Refuse what the service could not make: in the settings, then in the request."""
        self.check_settings(settings)
        self.check_request(settings, request)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """The settings by themselves: complete, known, and of the right kind."""
        known = COMMON_SETTINGS | OPTIONAL_SETTINGS | set(self.own_settings)
        if unknown := set(settings) - known:
            raise CannotRender(
                f"Unknown {self.name} setting {', '.join(sorted(unknown))}; there are "
                f"{', '.join(sorted(known))}."
            )
        if missing := known - OPTIONAL_SETTINGS - set(settings):
            raise CannotRender(f"The {self.name} setting {', '.join(sorted(missing))} is missing.")
        for model in ("text_model", "image_model"):
            name = settings.get(model)
            if name is not None and not (isinstance(name, str) and MODEL_NAME.fullmatch(name)):
                raise self.wrong(model, name, "give the model's name")
        limit = settings.get("prompt_at_most")
        if limit is not None and (type(limit) is not int or limit < 1):
            raise self.wrong("prompt_at_most", limit, "give a count")
        self.check_durations(settings["durations"])
        self.check_arguments(settings)
        for setting, values in {"sound": self.sounds, **self.choices}.items():
            if settings[setting] not in values:
                words = (str(v).lower() if isinstance(v, bool) else str(v) for v in values)
                raise self.wrong(setting, settings[setting], f"it can be {', '.join(words)}")
        if "aspects" in self.own_settings:
            aspects = settings["aspects"]
            if not isinstance(aspects, list) or not set(aspects) <= set(ASPECTS):
                raise self.wrong("aspects", aspects, f"list {', '.join(ASPECTS)}")

    def check_durations(self, durations: Any) -> None:
        if not isinstance(durations, list) or not all(
            type(d) is int and 0 < d <= SECONDS_LIMIT for d in durations
        ):
            raise self.wrong("durations", durations, f"list whole seconds, 1 to {SECONDS_LIMIT}")

    def check_arguments(self, settings: Mapping[str, Any]) -> None:
        arguments = settings["arguments"]
        if not isinstance(arguments, Mapping):
            raise self.wrong("arguments", arguments, "it must be a table")
        if reserved := self.reserved(settings) & set(arguments):
            raise CannotRender(
                f"The argument {', '.join(sorted(reserved))} is set by the arena: remove it from "
                "arguments."
            )

    def reserved(self, settings: Mapping[str, Any]) -> set[str]:
        return set(self.arena_arguments)

    def wrong(self, setting: str, value: Any, instead: str) -> CannotRender:
        return CannotRender(f"The {self.name} setting {setting} is {value!r}; {instead}.")

    def check_request(self, settings: Mapping[str, Any], request: Request) -> None:
        model_of(settings, request)
        seconds_of(settings, request)
        limit = settings.get("prompt_at_most")
        length = len(request.text.encode("utf-16-le")) // 2  # as they are counted in the services
        if limit is not None and length > limit:
            raise CannotRender(f"The prompt has {length} characters; {self.name} takes {limit}.")
        if request.audio and settings["sound"] == "never":
            raise CannotRender("It makes no sound: ask it for silent clips only.")
        if request.image is not None:
            self.check_first_frame(request)
            if self.shape_by_image:
                return
        aspects = self.aspects(settings, request)
        if request.conditions.aspect not in aspects:
            source = "text" if request.image is None else "an image"
            raise CannotRender(
                f"It makes {', '.join(aspects)} from {source}, not {request.conditions.aspect}."
            )

    def aspects(self, settings: Mapping[str, Any], request: Request) -> Collection[str]:
        """What it makes of this kind of request, unless the first frame decides."""
        found: list[str] = settings["aspects"]
        return found

    def check_first_frame(self, request: Request) -> None:
        assert request.image is not None
        width, height = request.image.size
        if min(width, height) < self.least_side:
            raise CannotRender(
                f"The reference image is {width}x{height}; {self.name} takes none with a side "
                f"below {self.least_side} pixels."
            )
        across, down = (int(part) for part in request.conditions.aspect.split(":"))
        # Some services would follow the image's shape, others cut it: no two would start alike.
        if abs(width / height * down / across - 1) > FILL_WITHIN:
            raise CannotRender(
                f"The reference image is {width}x{height}, not {request.conditions.aspect}, as the "
                "prompt asks."
            )

    def key(self, variable: str) -> str:
        """A key from the environment, as it can stand in a header."""
        value = os.environ.get(variable, "").strip()
        if not (value and value.isascii() and value.isprintable() and " " not in value):
            raise CannotRender(
                f"There is no usable key for {self.name}: set {variable} where hosted workers run."
            )
        return value


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
