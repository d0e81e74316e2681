"""fal: a stand-in that follows its documents, and what is its own."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from generation.models import Clip, HostedJob
from tests.generation.hosted.stand_in import (
    FILE,
    WORDS,
    Answer,
    Message,
    StandIn,
    check_refused,
    is_png,
    next_of,
    only,
    work,
    wrong_field,
)

pytestmark = pytest.mark.django_db


class FalStandIn(StandIn):
    backend, name = "fal", "fal"
    order_paths = ("/somebody/fast/text-to-video", "/somebody/fast/image-to-video")
    keys: ClassVar = {"FAL_KEY": "f4l-5ecret-0123456789:abcdef"}
    url_variable = "FAL_URL"
    cancels_by = "PUT"
    cancel_path = "/somebody/fast/requests/r-1/cancel"
    failures_cost = True
    settings: ClassVar = {
        "text_model": "somebody/fast/text-to-video",
        "image_model": "somebody/fast/image-to-video",
        "sound": "switch",
        "durations": {"2": "2s", "4": "4s"},
        "aspects": ["1:1"],
        "names": {
            "aspect": "aspect_ratio",
            "image": "image_url",
            "sound": "generate_audio",
            "seed": "seed",
        },
        "arguments": {"auto_fix": False},
    }

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Answer] = []

    def unlock(self, message: Message) -> Answer | None:
        known = message.headers.get("Authorization") == f"Key {self.keys['FAL_KEY']}"
        return None if known else self.no(401, "Who are you?")

    def fault(self, message: Message) -> str:
        needed = {"prompt": str, "duration": str}
        allowed = {
            "aspect_ratio": str, "image_url": str, "generate_audio": bool, "seed": int,
            "auto_fix": bool,
        }  # fmt: skip
        if "image_url" in message.body and not is_png(message.body["image_url"]):
            return "image_url is no image"
        return wrong_field(message.body, needed, allowed)

    def accepted(self, message: Message) -> Answer:
        job = f"r-{len(self.posts)}"
        base = f"{self.address}/somebody/fast/requests/{job}"
        names = {"status_url": f"{base}/status", "response_url": base}
        return Answer(200, {"request_id": job, **names, "cancel_url": f"{base}/cancel"})

    def ask(self, message: Message) -> Answer:
        if message.path.endswith("/status"):
            return super().ask(message)
        return next_of(self.results) or Answer(200, {"video": {"url": self.file}})

    def job(self, state: str) -> Any:
        if state == "pending":
            return {"status": "IN_QUEUE", "queue_position": 3}
        if state in ("failed", "refused"):
            return {"status": "COMPLETED", "error": WORDS}
        return {"status": "COMPLETED"}

    def no(self, status: int, words: str, **headers: str) -> Answer:
        return Answer(status, {"detail": [{"msg": words}]}, headers)


@only(FalStandIn)
class TestFal:
    def test_a_file_whose_address_leads_in_circles_is_none(
        self, service: StandIn, one: Callable[[], Clip]
    ) -> None:
        service.files = [Answer(302, {}, {"Location": FILE})]
        work(1)
        assert "its address leads on and on" in HostedJob.objects.get().error


@pytest.mark.parametrize(
    ("change", "asked", "said"),
    [
        ({"arguments": {"seed": 1}}, {}, "The argument seed is set by the arena"),
        ({"names": {"aspect": "aspect_ratio"}}, {}, "give the switch's name in names"),
    ],
)
def test_what_it_could_never_make_is_refused(
    change: dict[str, Any], asked: dict[str, Any], said: str
) -> None:
    check_refused(FalStandIn, change, asked, said)
