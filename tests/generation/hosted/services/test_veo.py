"""Veo: a stand-in that follows its documents, and what is its own."""

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
    only,
    work,
    wrong_field,
)

pytestmark = pytest.mark.django_db


class VeoStandIn(StandIn):
    backend, name = "veo", "Gemini"
    order_paths = ("/v1beta/models/veo-3.1-generate-preview:predictLongRunning",)
    keys: ClassVar = {"GEMINI_API_KEY": "AIza0123456789abcdef"}
    url_variable = "GEMINI_URL"
    mute = False
    settings: ClassVar = {
        "text_model": "veo-3.1-generate-preview",
        "image_model": "veo-3.1-generate-preview",
        "sound": "always",
        "durations": [2, 4],
        "aspects": ["1:1"],
        "resolution": "720p",
        "arguments": {},
    }
    operation = "models/veo-3.1-generate-preview/operations/abc123"

    def unlock(self, message: Message) -> Answer | None:
        known = message.headers.get("X-Goog-Api-Key") == self.keys["GEMINI_API_KEY"]
        return None if known else self.no(403, "API key not valid")

    def reply(self, message: Message) -> Answer:
        """The file is behind the key too, and then somewhere else."""
        if message.path == FILE + ":download?alt=media":
            led = {"Location": self.file.replace("127.0.0.1", "localhost")}
            return self.unlock(message) or Answer(302, {}, led)
        return super().reply(message)

    def fault(self, message: Message) -> str:
        parts = {"instances": list, "parameters": dict}
        if fault := wrong_field(message.body, parts, {}):
            return fault
        (instance,) = message.body["instances"]
        if fault := wrong_field(instance, {"prompt": str}, {"image": dict}):
            return fault
        if "image" in instance and not is_png(instance["image"]["bytesBase64Encoded"], prefix=""):
            return "image is no image"
        allowed = {"aspectRatio": str, "durationSeconds": int, "resolution": str, "seed": int}
        return wrong_field(message.body["parameters"], {}, allowed)

    def accepted(self, message: Message) -> Answer:
        return Answer(200, {"name": self.operation})

    def job(self, state: str) -> Any:
        if state == "pending":
            return {"name": self.operation}
        if state == "failed":
            error = {"code": 13, "message": WORDS}
            return {"name": self.operation, "done": True, "error": error}
        answer: dict[str, Any] = {
            "generatedSamples": [{"video": {"uri": f"{self.file}:download?alt=media"}}]
        }
        if state == "refused":
            answer = {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": [WORDS]}
        response = {"generateVideoResponse": answer}
        return {"name": self.operation, "done": True, "response": response}

    def no(self, status: int, words: str, **headers: str) -> Answer:
        error = {"code": status, "message": words, "status": "INVALID_ARGUMENT"}
        return Answer(status, {"error": error}, headers)


@only(VeoStandIn)
class TestVeo:
    def test_a_key_is_not_shown_where_the_file_really_lies(
        self, service: StandIn, one: Callable[[], Clip]
    ) -> None:
        work(1)
        gate, store = (m for m in service.got if m.path.startswith(FILE))
        assert gate.headers["Host"] != store.headers["Host"]
        assert "x-goog-api-key" in gate.headers
        assert "x-goog-api-key" not in store.headers

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
        ({"resolution": "1080p"}, {}, "Veo makes 1080p in 8 s only"),
        ({"sound": "switch"}, {}, "it can be always"),
    ],
)
def test_what_it_could_never_make_is_refused(
    change: dict[str, Any], asked: dict[str, Any], said: str
) -> None:
    check_refused(VeoStandIn, change, asked, said)
