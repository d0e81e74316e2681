"""Kling's own API: the messages, written and read.

Settings beside the common ones (ordering.py):

    aspects  which it makes from text; from an image, the image decides
    mode     "std" (720p) or "pro" (1080p)

Two keys are read, KLING_ACCESS_KEY and KLING_SECRET_KEY: each message carries a token that one
names and the other signs. KLING_URL leads elsewhere than to Singapore; accounts of mainland China
use https://api-beijing.klingai.com.

Followed: the documented API of /v1/videos, which most projects use. A newer one (/text-to-video/
kling-3.0 with `contents` and `settings`) has been seen in two projects and not in any document at
hand. The API takes no seed, cancels nothing, and does not bill failures.
"""

import base64
import hashlib
import hmac
import json
import time
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
    file_address,
    job_id,
    key,
    model_of,
    notes,
    png,
    seconds_of,
    sentence,
)

SERVICE = "Kling"
FILE_WITH_KEY = False
API = "https://api-singapore.klingai.com"
SETTINGS = Service(
    SERVICE,
    own={"aspects", "mode"},
    reserved={
        "model_name", "prompt", "image", "mode", "duration", "aspect_ratio", "sound",
        "watermark_info",
    },
    sounds=("switch", "never"),
    image_side=300,
)  # fmt: skip
TOKEN_SECONDS = 1800
# No money, no right: these come with 429 too, and waiting does not help.
NEVER = (1100, 1101, 1102, 1304)
NOTES = ("The API has no switch for prompt rewriting.", "The API takes no seed.")


def check(settings: Mapping[str, Any], request: Request) -> None:
    check_settings(SETTINGS, settings)
    check_durations(SETTINGS, settings["durations"])
    check_aspects(SETTINGS, settings["aspects"])
    check_choice(SETTINGS, settings, "mode", ("std", "pro"))
    check_order(SETTINGS, settings, request, aspects=settings["aspects"], follows_image=True)


def headers() -> dict[str, str]:
    return {"Authorization": f"Bearer {_token()}"}


def _token() -> str:
    """A JSON web token, signed with HS256 (RFC 7519)."""
    issuer, secret = key(SERVICE, "KLING_ACCESS_KEY"), key(SERVICE, "KLING_SECRET_KEY")
    now = int(time.time())
    parts = (
        {"alg": "HS256", "typ": "JWT"},
        {"iss": issuer, "exp": now + TOKEN_SECONDS, "nbf": now - 5},
    )
    signed = ".".join(_part(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{_part(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


def _part(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def order(settings: Mapping[str, Any], request: Request) -> Order:
    check(settings, request)
    seconds = seconds_of(settings, request)
    body = {
        **settings["arguments"],
        "model_name": model_of(settings, request),
        "prompt": request.text,
        "mode": settings["mode"],
        "duration": str(seconds),
        "watermark_info": {"enabled": False},
    }
    if settings["sound"] == "switch":
        body["sound"] = "on" if request.audio else "off"
    if request.image is None:
        path, body["aspect_ratio"] = "text2video", request.conditions.aspect
    else:
        path, body["image"] = "image2video", png(request.image)
    url = f"{address('KLING_URL', API)}/v1/videos/{path}"
    return Order(url, headers(), body, seconds, notes(settings, request, *NOTES))


def turned_away(status: int, answer: Any) -> bool:
    return status in (429, 500, 503) and at(answer, "code") not in NEVER


def read_accepted(order_url: str, answer: Any) -> Accepted | Failed:
    if at(answer, "code") not in (None, 0):
        return Failed(reason_in(answer), billed=False)
    found = job_id(answer, "data", "task_id")
    return Accepted(found, f"{order_url}/{found}", f"{order_url}/{found}")


def read_status(answer: Any) -> Pending | Done | Failed:
    status = at(answer, "data", "task_status")
    if status in ("submitted", "processing"):
        return Pending()
    if status == "succeed":
        return Done()
    if status == "failed":
        return Failed(reason_in(answer), billed=False)
    raise Unreadable(f"its task_status is {status!r}")


def read_result(status: int, answer: Any) -> str | Failed:
    return file_address(status, answer, "data", "task_result", "videos", 0, "url")


def cancel(status_url: str) -> tuple[str, str] | None:
    return None


def reason_in(answer: Any) -> str:
    said = at(answer, "data", "task_status_msg") or at(answer, "message")
    return sentence(at(answer, "code"), said)
