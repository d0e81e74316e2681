"""Veo through the Gemini API: the messages, written and read.

Settings beside the common ones (generation/hosted/service.py):

    aspects     which it makes: "16:9" and "9:16"
    resolution  "720p", or "1080p", which it makes in 8 s only

The key is read from GEMINI_API_KEY, and is needed for the file as well. GEMINI_URL leads elsewhere
than to the API itself.

Followed: the client's source (google-genai 3.4.0) for the form of the image (`bytesBase64Encoded`;
the pages show `inlineData`) and for whole numbers as durations (the pages show texts), the pages
for the rest. Veo makes sound whatever is asked, rewrites prompts as it likes, and marks pictures
invisibly: none of it can be switched off in this API. A clip that is filtered is not billed.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from generation.backends import CannotRender, Request
from generation.hosted.messages import UnreadableAnswer, at, file_address, png, sentence
from generation.hosted.service import NO_REWRITER, Accepted, Done, Failed, Pending, Service

OPERATION = re.compile(r"models/[\w.-]+/operations/[\w.-]+", re.ASCII)
SAMPLE = ("response", "generateVideoResponse", "generatedSamples", 0, "video", "uri")


class Veo(Service):
    name = "Gemini"
    url = "https://generativelanguage.googleapis.com"
    url_variable = "GEMINI_URL"
    own_settings = ("aspects", "resolution")
    choices: ClassVar = {"resolution": ("720p", "1080p")}
    arena_arguments = ("aspectRatio", "durationSeconds", "resolution", "seed", "sampleCount")
    sounds = ("always",)
    shape_by_image = False
    notes = (NO_REWRITER,)
    file_needs_key = True

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        super().check_settings(settings)
        if settings["resolution"] == "1080p" and settings["durations"] != [8]:
            raise CannotRender("Veo makes 1080p in 8 s only: set durations to [8].")

    def headers(self) -> dict[str, str]:
        return {"x-goog-api-key": self.key("GEMINI_API_KEY")}

    def write_order(
        self, settings: Mapping[str, Any], request: Request, model: str, seconds: int
    ) -> tuple[str, dict[str, Any]]:
        instance: dict[str, Any] = {"prompt": request.text}
        if request.image is not None:
            instance["image"] = {"bytesBase64Encoded": png(request.image), "mimeType": "image/png"}
        parameters = {
            **settings["arguments"],
            "aspectRatio": request.conditions.aspect,
            "durationSeconds": seconds,
            "resolution": settings["resolution"],
            "seed": request.seed,
        }
        body = {"instances": [instance], "parameters": parameters}
        return f"/v1beta/models/{model}:predictLongRunning", body

    def read_accepted(self, order_url: str, answer: Any) -> Accepted:
        name = at(answer, "name")
        if not (isinstance(name, str) and OPERATION.fullmatch(name)):
            raise UnreadableAnswer("it lacks a usable name")
        url = f"{order_url.partition('/models/')[0]}/{name}"
        return Accepted(name, url, url)

    def read_status(self, answer: Any) -> Pending | Done | Failed:
        if not isinstance(answer, dict) or "name" not in answer:
            raise UnreadableAnswer("it has no name")
        if not answer.get("done"):
            return Pending()
        if answer.get("error") or at(answer, *SAMPLE) is None:
            return Failed(self.reason_in(answer), billed=False)
        return Done()

    def read_result(self, status: int, answer: Any) -> str | Failed:
        return file_address(status, answer, *SAMPLE)

    def reason_in(self, answer: Any) -> str:
        error, response = at(answer, "error"), at(answer, "response", "generateVideoResponse")
        filtered = at(response, "raiMediaFilteredReasons", 0)
        return sentence(at(error, "status"), at(error, "message") or filtered)


SERVICE = Veo()
