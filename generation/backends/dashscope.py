"""HappyHorse and WAN at Alibaba's DashScope (Model Studio): the messages, written and read.

Settings beside the common ones (ordering.py):

    aspects     which it makes from text; from an image, the image decides
    resolution  "720P" or "1080P"
    rewriter    whether the model has a prompt rewriter, which is then switched off

Watermarks are on unless they are switched off: HappyHorse writes its name into the picture. The key
is read from DASHSCOPE_API_KEY. DASHSCOPE_URL leads elsewhere than to Singapore; a key belongs to
one region.

Followed: the service's own pages on HappyHorse and WAN 2.7 as other projects quote them, and the
client's source (dashscope 2.0.2) for cancelling. Both models make sound whatever is asked. Some
gateways send WAN 2.7 an `audio` switch; its own pages have none. Set sound to "switch" for a model
that has one. A longer prompt than the documented one is cut without a word: set prompt_at_most.
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

SERVICE = "DashScope"
FILE_WITH_KEY = False
API = "https://dashscope-intl.aliyuncs.com"
PATH = "/api/v1/services/aigc/video-generation/video-synthesis"
SETTINGS = Service(
    SERVICE,
    own={"aspects", "resolution", "rewriter"},
    reserved={
        "resolution", "ratio", "size", "duration", "seed", "watermark", "prompt_extend", "audio",
    },
    image_side=300,
)  # fmt: skip


def check(settings: Mapping[str, Any], request: Request) -> None:
    check_settings(SETTINGS, settings)
    check_durations(SETTINGS, settings["durations"])
    check_aspects(SETTINGS, settings["aspects"])
    check_choice(SETTINGS, settings, "resolution", ("720P", "1080P"))
    check_choice(SETTINGS, settings, "rewriter", (True, False))
    check_order(SETTINGS, settings, request, aspects=settings["aspects"], follows_image=True)


def headers() -> dict[str, str]:
    return {"Authorization": f"Bearer {key(SERVICE, 'DASHSCOPE_API_KEY')}"}


def order(settings: Mapping[str, Any], request: Request) -> Order:
    check(settings, request)
    seconds = seconds_of(settings, request)
    wanted: dict[str, Any] = {"prompt": request.text}
    parameters = {
        **settings["arguments"],
        "resolution": settings["resolution"],
        "duration": seconds,
        "seed": request.seed,
        "watermark": False,
    }
    if settings["rewriter"]:
        parameters["prompt_extend"] = False
    if settings["sound"] == "switch":
        parameters["audio"] = request.audio
    if request.image is None:
        parameters["ratio"] = request.conditions.aspect
    else:
        wanted["media"] = [{"type": "first_frame", "url": data_address(request.image)}]
    model = model_of(settings, request)
    body = {"model": model, "input": wanted, "parameters": parameters}
    later = {"X-DashScope-Async": "enable"}
    url = address("DASHSCOPE_URL", API) + PATH
    return Order(url, {**headers(), **later}, body, seconds, notes(settings, request))


def turned_away(status: int, answer: Any) -> bool:
    return status in (429, 500, 503)


def read_accepted(order_url: str, answer: Any) -> Accepted:
    found = job_id(answer, "output", "task_id")
    url = f"{order_url.removesuffix(PATH)}/api/v1/tasks/{found}"
    return Accepted(found, url, url)


def read_status(answer: Any) -> Pending | Done | Failed:
    status = at(answer, "output", "task_status")
    if status in ("PENDING", "RUNNING"):
        return Pending()
    if status == "SUCCEEDED":
        return Done()
    if status in ("FAILED", "CANCELED"):
        # Billed are the seconds of video that came out, which stand in `usage`.
        return Failed(reason_in(answer), billed=bool(at(answer, "usage", "duration")))
    raise Unreadable(f"its task_status is {status!r}")  # UNKNOWN: no such task, or not for now


def read_result(status: int, answer: Any) -> str | Failed:
    return file_address(status, answer, "output", "video_url")


def cancel(status_url: str) -> tuple[str, str] | None:
    """Only a task that has not begun can be cancelled; the service refuses otherwise."""
    return "POST", f"{status_url}/cancel"


def reason_in(answer: Any) -> str:
    output = at(answer, "output")
    where = output if at(output, "code") or at(output, "message") else answer
    if at(output, "task_status") == "CANCELED":
        return "It was cancelled."
    return sentence(at(where, "code"), at(where, "message"))
