"""Ark: a stand-in that follows its documents, and what is its own."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from generation.hosted.orders import submit_waiting
from generation.models import Clip, HostedJob
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


class ArkStandIn(StandIn):
    backend, name = "ark", "Ark"
    order_paths = ("/api/v3/contents/generations/tasks",)
    keys: ClassVar = {"ARK_API_KEY": "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"}
    url_variable = "ARK_URL"
    base_path = "/api/v3"
    cancels_by = "DELETE"
    cancel_path = "/api/v3/contents/generations/tasks/cgt-20261122-abcde"
    settings: ClassVar = {
        "text_model": "dreamina-seedance-2-0-260128",
        "image_model": "dreamina-seedance-2-0-260128",
        "sound": "switch",
        "durations": [2, 4],
        "aspects": ["1:1"],
        "resolution": "720p",
        "arguments": {},
    }

    def fault(self, message: Message) -> str:
        needed = {"model": str, "content": list}
        allowed = {
            "resolution": str, "ratio": str, "duration": int, "seed": int, "watermark": bool,
            "generate_audio": bool,
        }  # fmt: skip
        if fault := wrong_field(message.body, needed, allowed):
            return fault
        text, *images = message.body["content"]
        if text["type"] != "text":
            return "content has no text"
        for image in images:
            if image["role"] != "first_frame" or not is_png(image["image_url"]["url"]):
                return "content has no first frame"
        return ""

    def accepted(self, message: Message) -> Answer:
        return Answer(200, {"id": "cgt-20261122-abcde"})

    def job(self, state: str) -> Any:
        task = {"id": "cgt-20261122-abcde", "model": "dreamina-seedance-2-0-260128"}
        if state == "pending":
            return {**task, "status": "queued"}
        if state in ("failed", "refused"):
            code = "InternalServiceError" if state == "failed" else "OutputVideoSensitiveContent"
            return {**task, "status": "failed", "error": {"code": code, "message": WORDS}}
        usage = {"completion_tokens": 108900, "total_tokens": 108900}
        return {**task, "status": "succeeded", "content": {"video_url": self.file}, "usage": usage}

    def no(self, status: int, words: str, **headers: str) -> Answer:
        return Answer(status, {"error": {"code": "InvalidParameter", "message": words}}, headers)


@only(ArkStandIn)
class TestArk:
    def test_watermark_is_off_at_ark(self, service: StandIn, one: Callable[[], Clip]) -> None:
        submit_waiting(60)
        assert service.posts[0].body["watermark"] is False
        assert "no switch for prompt rewriting" in str(HostedJob.objects.get().request["notes"])


@pytest.mark.parametrize(
    ("change", "asked", "said"),
    [
        ({"arguments": {"watermark": True}}, {}, "argument watermark is set by the arena"),
        ({"resolution": "720P"}, {}, "it can be 480p, 720p, 1080p"),
        ({"aspects": ["4:3"]}, {}, "setting aspects is"),
        ({"sound": "always"}, {}, "it can be switch, never"),
    ],
)
def test_what_it_could_never_make_is_refused(
    change: dict[str, Any], asked: dict[str, Any], said: str
) -> None:
    check_refused(ArkStandIn, change, asked, said)
