"""Models that fal.ai hosts, through its queue: the messages, written and read.

A version's settings say everything that is sent but the prompt's own:

    text_model   the model's name at fal for text to video; left out if it has none
    image_model  the same for image to video
    sound        whether it makes sound
    durations    which lengths it makes, in seconds, and how the API writes each: {4 = "4s"}
    aspects      which it makes from text; from an image, the image decides
    names        the API's names of "aspect", "image", "sound" (a switch) and "seed"; what is not
                 named is not sent
    arguments    whatever else is sent, the same for every clip; pin a prompt rewriter here

The key is read from FAL_KEY. FAL_URL leads elsewhere than to fal's own queue.
"""

import base64
import io
import os
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from generation.backends import (
    Accepted,
    CannotRender,
    Done,
    Failed,
    Order,
    Pending,
    Progress,
    Request,
    Unreadable,
)
from generation.categories import ASPECTS

GPU = False
SERVICE = "fal"
QUEUE = "https://queue.fal.run"
SETTINGS = {
    "text_model", "image_model", "sound", "durations", "aspects", "names", "arguments",
}  # fmt: skip
NAMES = {"aspect", "image", "sound", "seed"}
MODEL = re.compile(r"[a-z0-9][\w.-]*(/[\w.-]*\w)+", re.ASCII)
REASON_AT_MOST = 500  # characters of the service's own words; some quote the whole request


# --- what can be told before anything is sent ----------------------------------------------------


def check(settings: Mapping[str, Any], request: Request) -> None:
    _check_settings(settings)
    _seconds(settings, request)
    if _model(settings, request) is None:
        asked = "text" if request.image is None else "image"
        raise CannotRender(f"It makes no video from {asked}: its settings have no {asked}_model.")
    if request.audio and not settings["sound"]:
        raise CannotRender("It makes no sound: ask it for silent clips only.")
    if request.image is None and request.conditions.aspect not in settings["aspects"]:
        raise CannotRender(
            f"It makes {', '.join(settings['aspects'])} from text, not {request.conditions.aspect}."
        )


def _check_settings(settings: Mapping[str, Any]) -> None:
    if unknown := set(settings) - SETTINGS:
        raise CannotRender(
            f"Unknown fal setting {', '.join(sorted(unknown))}; there are "
            f"{', '.join(sorted(SETTINGS))}."
        )
    if missing := SETTINGS - {"text_model", "image_model"} - set(settings):
        raise CannotRender(f"The fal setting {', '.join(sorted(missing))} is missing.")
    for name in ("text_model", "image_model"):
        model = settings.get(name)
        if model is not None and not (isinstance(model, str) and MODEL.fullmatch(model)):
            raise CannotRender(f"The fal setting {name} is {model!r}; give owner/name.")
    if type(settings["sound"]) is not bool:
        raise CannotRender(f"The fal setting sound is {settings['sound']!r}; say true or false.")
    aspects = settings["aspects"]
    if not isinstance(aspects, list) or not set(aspects) <= set(ASPECTS):
        raise CannotRender(f"The fal setting aspects is {aspects!r}; list {', '.join(ASPECTS)}.")
    durations = settings["durations"]
    if not isinstance(durations, Mapping) or not all(re.fullmatch(r"\d+", d) for d in durations):
        raise CannotRender(
            f"The fal setting durations is {durations!r}; give whole seconds and how the API "
            'writes them, such as {4 = "4s"}.'
        )
    _check_names(settings["names"], settings["arguments"])


def _check_names(names: Any, arguments: Any) -> None:
    if not isinstance(names, Mapping) or not set(names) <= NAMES:
        raise CannotRender(f"The fal setting names is {names!r}; name {', '.join(sorted(NAMES))}.")
    if not isinstance(arguments, Mapping):
        raise CannotRender(f"The fal setting arguments is {arguments!r}; it must be a table.")
    if reserved := {"prompt", "duration", *names.values()} & set(arguments):
        raise CannotRender(
            f"The argument {', '.join(sorted(reserved))} is set by the arena: remove it from "
            "arguments."
        )


def _model(settings: Mapping[str, Any], request: Request) -> str | None:
    return settings.get("text_model" if request.image is None else "image_model")


def _seconds(settings: Mapping[str, Any], request: Request) -> int:
    """The shortest length it makes that is not shorter than what the prompt asks."""
    asked, offered = request.conditions.seconds, sorted(int(d) for d in settings["durations"])
    for seconds in offered:
        if seconds >= asked:
            return seconds
    longest = f"at most {offered[-1]} s" if offered else "no length that is listed"
    raise CannotRender(f"It makes {longest}; {asked:g} s were asked for.")


def render(settings: Mapping[str, Any], request: Request, progress: Progress) -> NoReturn:
    raise CannotRender("fal makes these clips, not this machine: run a worker of the queue hosted.")


# --- messages ------------------------------------------------------------------------------------


def headers() -> dict[str, str]:
    key = os.environ.get("FAL_KEY", "").strip()
    if not (key and key.isascii() and key.isprintable()):
        raise CannotRender("There is no usable key for fal: set FAL_KEY where hosted workers run.")
    return {"Authorization": f"Key {key}"}


def order(settings: Mapping[str, Any], request: Request) -> Order:
    """1. fixed arguments; 2. the prompt's conditions, under the names the API has for them."""
    check(settings, request)
    names, seconds = settings["names"], _seconds(settings, request)
    values: dict[str, Any] = {"seed": request.seed}
    if settings["sound"]:
        values["sound"] = request.audio
    if request.image is None:
        values["aspect"] = request.conditions.aspect
    else:
        values["image"] = _data_address(request.image)
    body = {
        **settings["arguments"],
        "prompt": request.text,
        "duration": settings["durations"][str(seconds)],
        **{names[what]: value for what, value in values.items() if what in names},
    }
    base = os.environ.get("FAL_URL", QUEUE).rstrip("/")
    # Another model in place of the one asked for would compete under a wrong name.
    alone = {"x-app-fal-disable-fallback": "true"}
    return Order(f"{base}/{_model(settings, request)}", {**headers(), **alone}, body, seconds)


def _data_address(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def read_accepted(answer: Any) -> Accepted:
    fields = ("request_id", "status_url", "response_url")
    if not isinstance(answer, dict) or not all(
        isinstance(answer.get(name), str) and answer[name] for name in fields
    ):
        raise Unreadable("it lacks request_id, status_url or response_url")
    return Accepted(*(answer[name] for name in fields))


def read_status(answer: Any) -> Pending | Done | Failed:
    status = answer.get("status") if isinstance(answer, dict) else None
    if status in ("IN_QUEUE", "IN_PROGRESS"):
        return Pending()
    if status != "COMPLETED":
        raise Unreadable(f"its status is {status!r}")
    if answer.get("error"):  # a failed request is “completed” too
        # fal does not say whether it bills a failure: count it, until somebody reads the bill.
        return Failed(reason_in(answer), billed=True)
    return Done()


def read_result(status: int, answer: Any) -> str | Failed:
    if status in (400, 422):  # the model's own refusal is told here, not in the status
        return Failed(reason_in(answer), billed=True)
    video = answer.get("video") if isinstance(answer, dict) else None
    address = video.get("url") if isinstance(video, dict) else None
    if status != 200 or not isinstance(address, str):
        raise Unreadable("it has no video.url")
    return address


def reason_in(answer: Any) -> str:
    """The service's words: `error`, or `detail`, which is a text or a list of {msg}."""
    words: Any = None
    if isinstance(answer, dict):
        words = answer.get("error") or answer.get("detail")
    if isinstance(words, list):
        words = "; ".join(str(w.get("msg", w)) if isinstance(w, dict) else str(w) for w in words)
    text = " ".join(str(words or "it gives no reason").split())
    return text[:REASON_AT_MOST].rstrip(".") + "."
