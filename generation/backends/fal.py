"""Models that fal.ai hosts, through its queue: the messages, written and read.

Settings beside the common ones (ordering.py):

    durations    which lengths it makes, in seconds, and how the API writes each: {4 = "4s"}
    aspects      which it makes from text; from an image, the image decides
    names        the API's names of "aspect", "image", "sound" (a switch) and "seed"; what is not
                 named is not sent

A prompt rewriter that a model has is switched off in `arguments`. The key is read from FAL_KEY.
FAL_URL leads elsewhere than to fal's own queue.

Followed: the client's source (fal-client 1.0.3), which takes the addresses from the answer, and for
cancelling builds the address from the job's.
"""

import re
from collections.abc import Mapping
from typing import Any

from generation.backends import CannotRender, Request
from generation.backends.ordering import (
    Accepted,
    Done,
    Failed,
    Order,
    Pending,
    Service,
    Unreadable,
    address,
    at,
    check_aspects,
    check_order,
    check_settings,
    data_address,
    file_address,
    key,
    model_of,
    notes,
    seconds_of,
    sentence,
)

SERVICE = "fal"
FILE_WITH_KEY = False
QUEUE = "https://queue.fal.run"
NAMES = {"aspect", "image", "sound", "seed"}


def check(settings: Mapping[str, Any], request: Request) -> None:
    names = settings.get("names")
    if not isinstance(names, Mapping) or not set(names) <= NAMES:
        raise CannotRender(f"The fal setting names is {names!r}; name {', '.join(sorted(NAMES))}.")
    reserved = {"prompt", "duration", *names.values()}
    service = Service(SERVICE, {"aspects", "names"}, reserved)
    check_settings(service, settings)
    check_aspects(service, settings["aspects"])
    durations = settings["durations"]
    if not isinstance(durations, Mapping) or not all(re.fullmatch(r"\d+", d) for d in durations):
        raise CannotRender(
            f"The fal setting durations is {durations!r}; give whole seconds and how the API "
            'writes them, such as {4 = "4s"}.'
        )
    if settings["sound"] == "switch" and "sound" not in names:
        raise CannotRender("The fal setting sound is 'switch': give the switch's name in names.")
    check_order(service, settings, request, aspects=settings["aspects"], follows_image=True)


def headers() -> dict[str, str]:
    return {"Authorization": f"Key {key(SERVICE, 'FAL_KEY')}"}


def order(settings: Mapping[str, Any], request: Request) -> Order:
    """1. fixed arguments; 2. the prompt's conditions, under the names the API has for them."""
    check(settings, request)
    names, seconds = settings["names"], seconds_of(settings, request)
    values: dict[str, Any] = {"seed": request.seed}
    if settings["sound"] == "switch":
        values["sound"] = request.audio
    if request.image is None:
        values["aspect"] = request.conditions.aspect
    else:
        values["image"] = data_address(request.image)
    body = {
        **settings["arguments"],
        "prompt": request.text,
        "duration": settings["durations"][str(seconds)],
        **{names[what]: value for what, value in values.items() if what in names},
    }
    # Another model in place of the one asked for would compete under a wrong name.
    alone = {"x-app-fal-disable-fallback": "true"}
    url = f"{address('FAL_URL', QUEUE)}/{model_of(settings, request)}"
    return Order(url, {**headers(), **alone}, body, seconds, notes(settings, request))


def turned_away(status: int, answer: Any) -> bool:
    return status in (429, 500, 502, 503)


def read_accepted(order_url: str, answer: Any) -> Accepted:
    found = [at(answer, name) for name in ("request_id", "status_url", "response_url")]
    if not all(isinstance(one, str) and one for one in found):
        raise Unreadable("it lacks request_id, status_url or response_url")
    return Accepted(*found)


def read_status(answer: Any) -> Pending | Done | Failed:
    status = at(answer, "status")
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
    return file_address(status, answer, "video", "url")


def cancel(status_url: str) -> tuple[str, str] | None:
    return "PUT", status_url.removesuffix("/status") + "/cancel"


def reason_in(answer: Any) -> str:
    """The service's words: `error`, or `detail`, which is a text or a list of {msg}."""
    words: Any = at(answer, "error") or at(answer, "detail")
    if isinstance(words, list):
        words = "; ".join(str(w.get("msg", w)) if isinstance(w, dict) else str(w) for w in words)
    return sentence(words)
