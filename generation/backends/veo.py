"""Veo through the Gemini API: the messages, written and read.

Settings beside the common ones (ordering.py):

    aspects     which it makes: "16:9" and "9:16"
    resolution  "720p", or "1080p", which it makes in 8 s only

The key is read from GEMINI_API_KEY, and is needed for the file as well. GEMINI_URL leads elsewhere
than to the API itself.

Followed: the client's source (google-genai 3.4.0) for the form of the image (`bytesBase64Encoded`;
the pages show `inlineData`) and for whole numbers as durations (the pages show texts), the pages
for the rest. Veo makes sound whatever is asked, rewrites prompts as it likes, and marks pictures
invisibly: none of it can be switched off in this API. A clip that is filtered is not billed.
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
    check_choice,
    check_durations,
    check_order,
    check_settings,
    file_address,
    key,
    model_of,
    notes,
    png,
    seconds_of,
    sentence,
)

SERVICE = "Gemini"
FILE_WITH_KEY = True
API = "https://generativelanguage.googleapis.com"
SETTINGS = Service(
    SERVICE,
    own={"aspects", "resolution"},
    reserved={"aspectRatio", "durationSeconds", "resolution", "seed", "sampleCount"},
    sounds=("always",),
)
OPERATION = re.compile(r"models/[\w.-]+/operations/[\w.-]+", re.ASCII)
SAMPLE = ("response", "generateVideoResponse", "generatedSamples", 0, "video", "uri")
NO_REWRITER = "The API has no switch for prompt rewriting."


def check(settings: Mapping[str, Any], request: Request) -> None:
    check_settings(SETTINGS, settings)
    check_durations(SETTINGS, settings["durations"])
    check_aspects(SETTINGS, settings["aspects"])
    check_choice(SETTINGS, settings, "resolution", ("720p", "1080p"))
    if settings["resolution"] == "1080p" and settings["durations"] != [8]:
        raise CannotRender("Veo makes 1080p in 8 s only: set durations to [8].")
    check_order(SETTINGS, settings, request, aspects=settings["aspects"], follows_image=False)


def headers() -> dict[str, str]:
    return {"x-goog-api-key": key(SERVICE, "GEMINI_API_KEY")}


def order(settings: Mapping[str, Any], request: Request) -> Order:
    check(settings, request)
    seconds = seconds_of(settings, request)
    instance: dict[str, Any] = {"prompt": request.text}
    if request.image is not None:
        instance["image"] = {"bytesBase64Encoded": png(request.image), "mimeType": "image/png"}
    parameters = {
        **settings["arguments"],
        "aspectRatio": request.conditions.aspect,
        "durationSeconds": seconds,
        "resolution": settings["resolution"],
        "seed": request.seed,
    }
    model = model_of(settings, request)
    url = f"{address('GEMINI_URL', API)}/v1beta/models/{model}:predictLongRunning"
    body = {"instances": [instance], "parameters": parameters}
    return Order(url, headers(), body, seconds, notes(settings, request, NO_REWRITER))


def turned_away(status: int, answer: Any) -> bool:
    return status in (429, 500, 503)


def read_accepted(order_url: str, answer: Any) -> Accepted:
    name = at(answer, "name")
    if not (isinstance(name, str) and OPERATION.fullmatch(name)):
        raise Unreadable("it lacks a usable name")
    url = f"{order_url.partition('/models/')[0]}/{name}"
    return Accepted(name, url, url)


def read_status(answer: Any) -> Pending | Done | Failed:
    if not isinstance(answer, dict) or "name" not in answer:
        raise Unreadable("it has no name")
    if not answer.get("done"):
        return Pending()
    if answer.get("error") or at(answer, *SAMPLE) is None:
        return Failed(reason_in(answer), billed=False)
    return Done()


def read_result(status: int, answer: Any) -> str | Failed:
    return file_address(status, answer, *SAMPLE)


def cancel(status_url: str) -> tuple[str, str] | None:
    return None


def reason_in(answer: Any) -> str:
    error, response = at(answer, "error"), at(answer, "response", "generateVideoResponse")
    filtered = at(response, "raiMediaFilteredReasons", 0)
    return sentence(at(error, "status"), at(error, "message") or filtered)
