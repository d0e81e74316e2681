"""DashScope: a stand-in that follows its documents, and what is its own."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from generation.hosted.orders import submit_waiting
from generation.models import Clip
from tests.generation.hosted.stand_in import (
    WORDS,
    Answer,
    Message,
    StandIn,
    check_refused,
    is_png,
    only,
    wrong_field,
)

pytestmark = pytest.mark.django_db


class DashScopeStandIn(StandIn):
    backend, name = "dashscope", "DashScope"
    order_paths = ("/api/v1/services/aigc/video-generation/video-synthesis",)
    keys: ClassVar = {"DASHSCOPE_API_KEY": "sk-0123456789abcdef"}
    url_variable = "DASHSCOPE_URL"
    cancels_by = "POST"
    cancel_path = "/api/v1/tasks/t-1/cancel"
    mute = False
    settings: ClassVar = {
        "text_model": "wan2.7-t2v",
        "image_model": "wan2.7-i2v",
        "sound": "always",
        "durations": [2, 4],
        "aspects": ["1:1"],
        "resolution": "720P",
        "rewriter": True,
        "arguments": {},
    }

    def fault(self, message: Message) -> str:
        if message.headers.get("X-DashScope-Async") != "enable":
            return "current user api does not support synchronous calls"
        parts = {"model": str, "input": dict, "parameters": dict}
        if fault := wrong_field(message.body, parts, {}):
            return fault
        text = message.body["model"].endswith("t2v")
        if fault := wrong_field(
            message.body["input"], {"prompt": str} | ({} if text else {"media": list}), {}
        ):
            return fault
        if not text:
            (frame,) = message.body["input"]["media"]
            if frame["type"] != "first_frame" or not is_png(frame["url"]):
                return "media is no first frame"
        needed = {"resolution": str, "duration": int} | ({"ratio": str} if text else {})
        allowed = {"seed": int, "watermark": bool, "prompt_extend": bool}
        return wrong_field(message.body["parameters"], needed, allowed)

    def accepted(self, message: Message) -> Answer:
        return Answer(
            200, {"request_id": "q", "output": {"task_id": "t-1", "task_status": "PENDING"}}
        )

    def job(self, state: str) -> Any:
        output: dict[str, Any] = {"task_id": "t-1"}
        if state == "pending":
            return {"request_id": "q", "output": {**output, "task_status": "RUNNING"}}
        if state in ("failed", "refused"):
            code = "InternalError" if state == "failed" else "DataInspectionFailed"
            output |= {"task_status": "FAILED", "code": code, "message": WORDS}
            return {"request_id": "q", "output": output}
        output |= {"task_status": "SUCCEEDED", "video_url": self.file, "orig_prompt": "as sent"}
        return {"request_id": "q", "output": output, "usage": {"duration": 2, "SR": 720}}

    def no(self, status: int, words: str, **headers: str) -> Answer:
        code = "Throttling.RateQuota" if status == 429 else "InvalidParameter"
        return Answer(status, {"code": code, "message": words, "request_id": "q"}, headers)


@only(DashScopeStandIn)
class TestDashScope:
    def test_watermark_and_rewriter_are_off_at_dashscope(
        self, service: StandIn, one: Callable[[], Clip]
    ) -> None:
        submit_waiting(60)
        assert service.posts[0].body["parameters"] == {
            "resolution": "720P",
            "duration": 2,
            "ratio": "1:1",
            "seed": one().seed,
            "watermark": False,
            "prompt_extend": False,
        }


@pytest.mark.parametrize(
    ("change", "asked", "said"),
    [
        ({"arguments": {"watermark": True}}, {}, "argument watermark is set by the"),
        ({"resolution": "4K"}, {}, "it can be 720P, 1080P"),
        ({}, {"side": 200}, "takes none with a side below 300 pixels"),
    ],
)
def test_what_it_could_never_make_is_refused(
    change: dict[str, Any], asked: dict[str, Any], said: str
) -> None:
    check_refused(DashScopeStandIn, change, asked, said)
