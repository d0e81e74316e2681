"""Kling's own API: the messages, written and read.

Settings beside the common ones (generation/hosted/service.py):

    aspects  which it makes from text; from an image, the image decides
    mode     "std" (720p) or "pro" (1080p)

Two keys are read, KLING_ACCESS_KEY and KLING_SECRET_KEY: each message carries a token that one
names and the other signs. KLING_URL leads elsewhere than to Singapore; accounts of mainland China
use https://api-beijing.klingai.com.

Followed: the documented API of /v1/videos, which most projects use. A newer one (/text-to-video/
kling-3.0 with `contents` and `settings`) has been seen in two projects and not in any document at
hand. The API takes no seed, cancels nothing, and does not bill failures.

Each order carries a name of ours as `external_task_id`. The documents say that it must be unique
within an account, and that a task can be asked for by it in place of its own id: so an order whose
answer is lost is looked for. Nobody has tried this with the service itself.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from generation.backends import Request
from generation.hosted.messages import UnreadableAnswer, at, file_address, job_id, png, sentence
from generation.hosted.service import (
    NO_REWRITER,
    Accepted,
    Done,
    Failed,
    Order,
    Pending,
    Service,
)

TOKEN_SECONDS = 1800
# Of the codes that come with 429: too many requests, too many tasks at once. The others are no
# money and no right, and waiting does not help.
FULL = (1302, 1303)
SERVER_ERRORS = 5000  # and above: what became of the order is not known


class Kling(Service):
    name = "Kling"
    url = "https://api-singapore.klingai.com"
    url_variable = "KLING_URL"
    own_settings = ("aspects", "mode")
    choices: ClassVar = {"mode": ("std", "pro")}
    arena_arguments = (
        "model_name", "prompt", "image", "mode", "duration", "aspect_ratio", "sound",
        "watermark_info", "external_task_id",
    )  # fmt: skip
    sounds = ("switch", "never")
    least_side = 300
    shape_by_image = True
    notes = (NO_REWRITER, "The API takes no seed.")

    def headers(self) -> dict[str, str]:
        """A token made of both keys; the API asks for HS256."""
        import jwt  # in workers only: pages check settings and send nothing

        issuer, secret = self.key("KLING_ACCESS_KEY"), self.key("KLING_SECRET_KEY")
        now = int(time.time())
        claims = {"iss": issuer, "exp": now + TOKEN_SECONDS, "nbf": now - 5}
        return {"Authorization": f"Bearer {jwt.encode(claims, secret, 'HS256')}"}

    def write_order(
        self, settings: Mapping[str, Any], request: Request, model: str, seconds: int
    ) -> tuple[str, dict[str, Any]]:
        body = {
            **settings["arguments"],
            "model_name": model,
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
        return f"/v1/videos/{path}", body

    def turned_away(self, status: int, answer: Any) -> bool:
        """A 429 without a code comes from what stands before the service."""
        return super().turned_away(status, answer) and at(answer, "code") in (None, *FULL)

    def name_order(self, order: Order, name: str) -> Order:
        body = {**order.body, "external_task_id": name}
        return replace(order, body=body, lookup_url=f"{order.url}/{name}")

    def read_accepted(self, order_url: str, answer: Any) -> Accepted | Failed:
        if (code := at(answer, "code")) not in (None, 0):
            if isinstance(code, int) and code >= SERVER_ERRORS:
                raise UnreadableAnswer(f"it says {self.reason_in(answer)}".rstrip("."))
            return Failed(self.reason_in(answer), billed=False)
        found = job_id(answer, "data", "task_id")
        return Accepted(found, f"{order_url}/{found}", f"{order_url}/{found}")

    def read_status(self, answer: Any) -> Pending | Done | Failed:
        status = at(answer, "data", "task_status")
        if status in ("submitted", "processing"):
            return Pending()
        if status == "succeed":
            return Done()
        if status == "failed":
            return Failed(self.reason_in(answer), billed=False)
        return self.other_status(status, answer)

    def read_result(self, status: int, answer: Any) -> str | Failed:
        return file_address(status, answer, "data", "task_result", "videos", 0, "url")

    def reason_in(self, answer: Any) -> str:
        said = at(answer, "data", "task_status_msg") or at(answer, "message")
        return sentence(at(answer, "code"), said)


SERVICE = Kling()
