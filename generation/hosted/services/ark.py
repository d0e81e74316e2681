"""Seedance at ByteDance's Ark: the messages, written and read.

Settings beside the common ones (generation/hosted/service.py):

    aspects     which it makes
    resolution  "480p", "720p" or "1080p"

The key is read from ARK_API_KEY. ARK_URL leads elsewhere than to BytePlus, for accounts outside
China: there the model is dreamina-seedance-2-0-260128, at https://ark.cn-beijing.volces.com/api/v3
it is doubao-seedance-2-0-260128.

Followed: the request as Ark's own pages have it, quoted by several projects. The older way of
writing settings into the prompt (--ratio 16:9) is not used. Tasks are kept for two days, files one.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from generation.backends import Request
from generation.hosted.messages import (
    at,
    data_address,
    file_address,
    job_id,
    sentence,
)
from generation.hosted.service import NO_REWRITER, Accepted, Done, Failed, Pending, Service


class Ark(Service):
    name = "Ark"
    url = "https://ark.ap-southeast.bytepluses.com/api/v3"
    url_variable = "ARK_URL"
    own_settings = ("aspects", "resolution")
    choices: ClassVar = {"resolution": ("480p", "720p", "1080p")}
    arena_arguments = (
        "model", "content", "resolution", "ratio", "duration", "frames", "seed", "generate_audio",
        "watermark",
    )  # fmt: skip
    sounds = ("switch", "never")
    least_side = 300
    shape_by_image = False
    notes = (NO_REWRITER,)

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key('ARK_API_KEY')}"}

    def write_order(
        self, settings: Mapping[str, Any], request: Request, model: str, seconds: int
    ) -> tuple[str, dict[str, Any]]:
        content: list[dict[str, Any]] = [{"type": "text", "text": request.text}]
        if request.image is not None:
            frame = {"url": data_address(request.image)}
            content.append({"type": "image_url", "image_url": frame, "role": "first_frame"})
        body = {
            **settings["arguments"],
            "model": model,
            "content": content,
            "resolution": settings["resolution"],
            "ratio": request.conditions.aspect,
            "duration": seconds,
            "seed": request.seed,
            "watermark": False,
        }
        if settings["sound"] == "switch":
            body["generate_audio"] = request.audio
        return "/contents/generations/tasks", body

    def read_accepted(self, order_url: str, answer: Any) -> Accepted:
        found = job_id(answer, "id")
        return Accepted(found, f"{order_url}/{found}", f"{order_url}/{found}")

    def read_status(self, answer: Any) -> Pending | Done | Failed:
        status = at(answer, "status")
        if status in ("queued", "running"):
            return Pending()
        if status == "succeeded":
            return Done()
        if status in ("failed", "expired", "cancelled"):
            # Billed are the tokens of what came out.
            return Failed(
                self.reason_in(answer), billed=bool(at(answer, "usage", "completion_tokens"))
            )
        return self.other_status(status, answer)

    def read_result(self, status: int, answer: Any) -> str | Failed:
        return file_address(status, answer, "content", "video_url")

    def cancel(self, status_url: str) -> tuple[str, str] | None:
        """Only a queued task is cancelled; the service refuses while one runs."""
        return "DELETE", status_url

    def reason_in(self, answer: Any) -> str:
        said = at(answer, "error", "message")
        if said is None and at(answer, "status") in ("expired", "cancelled"):
            said = f"It was {answer['status']}"
        return sentence(at(answer, "error", "code"), said)


SERVICE = Ark()
