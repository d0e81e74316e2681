"""Models that Runway's own API serves: the messages, written and read.

Settings beside the common ones (ordering.py):

    text_ratios   what it makes from text, and how the API writes it: {"16:9" = "1280:720"}
    image_ratios  the same for image to video
    seed          whether the model takes one

The key is read from RUNWAYML_API_SECRET. RUNWAY_URL leads elsewhere than to Runway's own API.

Followed: the client's source (runwayml 5.24.0), generated from the API's description. Over the
account's concurrency an order is taken and waits as THROTTLED; 429 is the daily limit. The client
sends orders again after 504 and after a time-out too; here that might pay twice, and is not done.
"""

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
    check_choice,
    check_durations,
    check_order,
    check_settings,
    data_address,
    file_address,
    job_id,
    key,
    model_of,
    notes,
    seconds_of,
    sentence,
)
from generation.categories import ASPECTS

SERVICE = "Runway"
FILE_WITH_KEY = False
API = "https://api.dev.runwayml.com"
VERSION = "2024-11-06"  # of the API
RATIOS = ("text_ratios", "image_ratios")
SETTINGS = Service(
    SERVICE,
    own={*RATIOS, "seed"},
    reserved={"model", "promptText", "promptImage", "ratio", "duration", "seed", "audio"},
)
NO_REWRITER = "The API has no switch for prompt rewriting."


def check(settings: Mapping[str, Any], request: Request) -> None:
    check_settings(SETTINGS, settings)
    check_durations(SETTINGS, settings["durations"])
    check_choice(SETTINGS, settings, "seed", (True, False))
    for name in RATIOS:
        ratios = settings[name]
        if not isinstance(ratios, Mapping) or not set(ratios) <= set(ASPECTS):
            raise CannotRender(
                f"The Runway setting {name} is {ratios!r}; give pixels by aspect, such as "
                '{"16:9" = "1280:720"}.'
            )
    ratios = _ratios(settings, request)
    check_order(SETTINGS, settings, request, aspects=ratios, follows_image=False)


def _ratios(settings: Mapping[str, Any], request: Request) -> Mapping[str, str]:
    found: Mapping[str, str] = settings[RATIOS[request.image is not None]]
    return found


def headers() -> dict[str, str]:
    secret = key(SERVICE, "RUNWAYML_API_SECRET")
    return {"Authorization": f"Bearer {secret}", "X-Runway-Version": VERSION}


def order(settings: Mapping[str, Any], request: Request) -> Order:
    check(settings, request)
    seconds = seconds_of(settings, request)
    body = {
        **settings["arguments"],
        "model": model_of(settings, request),
        "promptText": request.text,
        "ratio": _ratios(settings, request)[request.conditions.aspect],
        "duration": seconds,
    }
    if settings["seed"]:
        body["seed"] = request.seed
    if settings["sound"] == "switch":
        body["audio"] = request.audio
    path = "text_to_video"
    if request.image is not None:
        path, body["promptImage"] = "image_to_video", data_address(request.image)
    url = f"{address('RUNWAY_URL', API)}/v1/{path}"
    return Order(url, headers(), body, seconds, notes(settings, request, NO_REWRITER))


def turned_away(status: int, answer: Any) -> bool:
    return status in (429, 502, 503)


def read_accepted(order_url: str, answer: Any) -> Accepted:
    found = job_id(answer, "id")
    url = f"{order_url.rsplit('/', 1)[0]}/tasks/{found}"
    return Accepted(found, url, url)


def read_status(answer: Any) -> Pending | Done | Failed:
    status = at(answer, "status")
    if status in ("PENDING", "THROTTLED", "RUNNING"):
        return Pending()
    if status == "SUCCEEDED":
        return Done()
    if status in ("FAILED", "CANCELLED"):
        # A task that was refunded in full says 0.
        return Failed(reason_in(answer), billed=at(answer, "cost", "credits") != 0)
    raise Unreadable(f"its status is {status!r}")


def read_result(status: int, answer: Any) -> str | Failed:
    return file_address(status, answer, "output", 0)


def cancel(status_url: str) -> tuple[str, str] | None:
    return "DELETE", status_url


def reason_in(answer: Any) -> str:
    cancelled = "It was cancelled" if at(answer, "status") == "CANCELLED" else None
    said = at(answer, "error") or at(answer, "failure") or cancelled
    return sentence(at(answer, "failureCode"), said)
