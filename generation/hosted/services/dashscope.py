"""HappyHorse and WAN at Alibaba's DashScope (Model Studio): the messages, written and read.

Settings beside the common ones (generation/hosted/service.py):

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
from typing import Any, ClassVar

from generation.backends import Request
from generation.hosted.messages import (
    at,
    data_address,
    file_address,
    job_id,
    sentence,
)
from generation.hosted.service import Accepted, Done, Failed, Pending, Service, Unknown

PATH = "/api/v1/services/aigc/video-generation/video-synthesis"
# No money: these come with 429, too, and waiting does not help.
FOR_GOOD = ("CommodityNotPurchased", "PrepaidBillOverdue", "PostpaidBillOverdue", "Arrearage")


class DashScope(Service):
    name = "DashScope"
    url = "https://dashscope-intl.aliyuncs.com"
    url_variable = "DASHSCOPE_URL"
    own_settings = ("aspects", "resolution", "rewriter")
    choices: ClassVar = {"resolution": ("720P", "1080P"), "rewriter": (True, False)}
    arena_arguments = (
        "resolution", "ratio", "size", "duration", "seed", "watermark", "prompt_extend", "audio",
    )  # fmt: skip
    least_side = 300
    shape_by_image = True
    order_headers: ClassVar = {"X-DashScope-Async": "enable"}

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key('DASHSCOPE_API_KEY')}"}

    def write_order(
        self, settings: Mapping[str, Any], request: Request, model: str, seconds: int
    ) -> tuple[str, dict[str, Any]]:
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
        body = {"model": model, "input": wanted, "parameters": parameters}
        return PATH, body

    def read_accepted(self, order_url: str, answer: Any) -> Accepted:
        found = job_id(answer, "output", "task_id")
        url = f"{order_url.removesuffix(PATH)}/api/v1/tasks/{found}"
        return Accepted(found, url, url)

    def read_status(self, answer: Any) -> Pending | Done | Failed | Unknown:
        status = at(answer, "output", "task_status")
        if status in ("PENDING", "RUNNING"):
            return Pending()
        if status == "SUCCEEDED":
            return Done()
        if status in ("FAILED", "CANCELED"):
            # Billed are the seconds of video that came out, which stand in `usage`.
            return Failed(self.reason_in(answer), billed=bool(at(answer, "usage", "duration")))
        if status == "UNKNOWN":  # no such task, or not for now
            return Unknown(self.reason_in(answer))
        return self.other_status(status, answer)

    def read_result(self, status: int, answer: Any) -> str | Failed:
        return file_address(status, answer, "output", "video_url")

    def turned_away(self, status: int, answer: Any) -> bool:
        return super().turned_away(status, answer) and at(answer, "code") not in FOR_GOOD

    def cancel(self, status_url: str) -> tuple[str, str] | None:
        """Only a task that has not begun can be cancelled; the service refuses otherwise."""
        return "POST", f"{status_url}/cancel"

    def reason_in(self, answer: Any) -> str:
        output = at(answer, "output")
        where = output if at(output, "code") or at(output, "message") else answer
        if at(output, "task_status") == "CANCELED":
            return "It was cancelled."
        return sentence(at(where, "code"), at(where, "message"))


SERVICE = DashScope()
