"""Seedance at ByteDance's Ark: the messages, written and read.

Settings beside the common ones (ordering.py):

    aspects     which it makes
    resolution  "480p", "720p" or "1080p"

The key is read from ARK_API_KEY. ARK_URL leads elsewhere than to BytePlus, for accounts outside
China: there the model is dreamina-seedance-2-0-260128, at https://ark.cn-beijing.volces.com/api/v3
it is doubao-seedance-2-0-260128.

Followed: the request as Ark's own pages have it, quoted by several projects. The older way of
writing settings into the prompt (--ratio 16:9) is not used. Tasks are kept for two days, files one.
"""

from collections.abc import Mapping
from typing import Any

from generation.backends import Request
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
    data_address,
    file_address,
    job_id,
    key,
    model_of,
    notes,
    seconds_of,
    sentence,
)

SERVICE = "Ark"
FILE_WITH_KEY = False
API = "https://ark.ap-southeast.bytepluses.com/api/v3"
SETTINGS = Service(
    SERVICE,
    own={"aspects", "resolution"},
    reserved={
        "model", "content", "resolution", "ratio", "duration", "frames", "seed", "generate_audio",
        "watermark",
    },
    sounds=("switch", "never"),
    image_side=300,
)  # fmt: skip
NO_REWRITER = "The API has no switch for prompt rewriting."


def check(settings: Mapping[str, Any], request: Request) -> None:
    check_settings(SETTINGS, settings)
    check_durations(SETTINGS, settings["durations"])
    check_aspects(SETTINGS, settings["aspects"])
    check_choice(SETTINGS, settings, "resolution", ("480p", "720p", "1080p"))
    check_order(SETTINGS, settings, request, aspects=settings["aspects"], follows_image=False)


def headers() -> dict[str, str]:
    return {"Authorization": f"Bearer {key(SERVICE, 'ARK_API_KEY')}"}


def order(settings: Mapping[str, Any], request: Request) -> Order:
    check(settings, request)
    seconds = seconds_of(settings, request)
    content: list[dict[str, Any]] = [{"type": "text", "text": request.text}]
    if request.image is not None:
        frame = {"url": data_address(request.image)}
        content.append({"type": "image_url", "image_url": frame, "role": "first_frame"})
    body = {
        **settings["arguments"],
        "model": model_of(settings, request),
        "content": content,
        "resolution": settings["resolution"],
        "ratio": request.conditions.aspect,
        "duration": seconds,
        "seed": request.seed,
        "watermark": False,
    }
    if settings["sound"] == "switch":
        body["generate_audio"] = request.audio
    url = f"{address('ARK_URL', API)}/contents/generations/tasks"
    return Order(url, headers(), body, seconds, notes(settings, request, NO_REWRITER))


def turned_away(status: int, answer: Any) -> bool:
    return status in (429, 500, 503)


def read_accepted(order_url: str, answer: Any) -> Accepted:
    found = job_id(answer, "id")
    return Accepted(found, f"{order_url}/{found}", f"{order_url}/{found}")


def read_status(answer: Any) -> Pending | Done | Failed:
    status = at(answer, "status")
    if status in ("queued", "running"):
        return Pending()
    if status == "succeeded":
        return Done()
    if status in ("failed", "expired", "cancelled"):
        # Billed are the tokens of what came out.
        return Failed(reason_in(answer), billed=bool(at(answer, "usage", "completion_tokens")))
    raise Unreadable(f"its status is {status!r}")


def read_result(status: int, answer: Any) -> str | Failed:
    return file_address(status, answer, "content", "video_url")


def cancel(status_url: str) -> tuple[str, str] | None:
    """Only a queued task is cancelled; the service refuses while one runs."""
    return "DELETE", status_url


def reason_in(answer: Any) -> str:
    said = at(answer, "error", "message")
    if said is None and at(answer, "status") in ("expired", "cancelled"):
        said = f"It was {answer['status']}"
    return sentence(at(answer, "error", "code"), said)
