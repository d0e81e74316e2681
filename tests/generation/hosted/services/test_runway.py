"""Runway: a stand-in that follows its documents, and what is its own."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from generation.models import Clip
from tests.generation.hosted.stand_in import (
    WORDS,
    Answer,
    Message,
    StandIn,
    check_refused,
    is_png,
    only,
    work,
    wrong_field,
)

pytestmark = pytest.mark.django_db


class RunwayStandIn(StandIn):
    backend, name = "runway", "Runway"
    order_paths = ("/v1/text_to_video", "/v1/image_to_video")
    keys: ClassVar = {"RUNWAYML_API_SECRET": "key_0123456789abcdef"}
    url_variable = "RUNWAY_URL"
    cancels_by = "DELETE"
    cancel_path = "/v1/tasks/17f20503-6c24-4c16-946b-35dbbce2af2f"
    settings: ClassVar = {
        "text_model": "veo3.1",
        "image_model": "veo3.1",
        "sound": "switch",
        "durations": [2, 4],
        "text_ratios": {"1:1": "960:960"},
        "image_ratios": {"1:1": "960:960"},
        "seed": True,
        "arguments": {},
    }

    def unlock(self, message: Message) -> Answer | None:
        if message.headers.get("X-Runway-Version") != "2024-11-06":
            return self.no(400, "X-Runway-Version is missing")
        return super().unlock(message)

    def fault(self, message: Message) -> str:
        needed = {"model": str, "promptText": str, "ratio": str, "duration": int}
        if message.path == "/v1/image_to_video":
            needed["promptImage"] = str
            if not is_png(message.body.get("promptImage", "")):
                return "promptImage is no image"
        return wrong_field(message.body, needed, {"seed": int, "audio": bool})

    def accepted(self, message: Message) -> Answer:
        return Answer(200, {"id": "17f20503-6c24-4c16-946b-35dbbce2af2f"})

    def job(self, state: str) -> Any:
        task = {"id": "17f20503-6c24-4c16-946b-35dbbce2af2f", "createdAt": "2026-11-22T10:00:00Z"}
        if state == "pending":
            return {**task, "status": "THROTTLED", "estimatedCost": {"credits": 20}}
        if state == "failed":  # and billed
            return {**task, "status": "FAILED", "failure": WORDS, "cost": {"credits": 20}}
        if state == "refused":
            code = {"failureCode": "SAFETY.INPUT.TEXT", "cost": {"credits": 0}}
            return {**task, "status": "FAILED", "failure": WORDS, **code}
        return {**task, "status": "SUCCEEDED", "output": [self.file], "cost": {"credits": 20}}

    def no(self, status: int, words: str, **headers: str) -> Answer:
        return Answer(status, {"error": words}, headers)


@only(RunwayStandIn)
class TestRunway:
    def test_a_cancelled_task_at_runway_says_so(
        self, service: StandIn, one: Callable[[], Clip]
    ) -> None:
        service.jobs = [Answer(200, {"id": "x", "status": "CANCELLED", "cost": {"credits": 0}})]
        work(1)
        assert one().error == "Runway failed: It was cancelled."


@pytest.mark.parametrize(
    ("change", "asked", "said"),
    [
        ({"arguments": {"audio": True}}, {}, "The argument audio is set by the arena"),
        ({"text_ratios": {"4:3": "1"}}, {}, "setting text_ratios is"),
        ({"seed": 1.5}, {}, "setting seed is 1.5; it can be true, false"),
        ({"image_ratios": {}}, {"side": 512}, "from an image, not 1:1"),
        ({"durations": ["2"]}, {}, "setting durations is"),
    ],
)
def test_what_it_could_never_make_is_refused(
    change: dict[str, Any], asked: dict[str, Any], said: str
) -> None:
    check_refused(RunwayStandIn, change, asked, said)
