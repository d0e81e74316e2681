"""Models that Runway's own API serves: the messages, written and read.

Settings beside the common ones (generation/hosted/service.py):

    text_ratios   what it makes from text, and how the API writes it: {"16:9" = "1280:720"}
    image_ratios  the same for image to video
    seed          whether the model takes one

The key is read from RUNWAYML_API_SECRET. RUNWAY_URL leads elsewhere than to Runway's own API.

Followed: the client's source (runwayml 5.24.0), generated from the API's description. Over the
account's concurrency an order is taken and waits as THROTTLED; 429 is the daily limit. The client
sends orders again after 502, 503, 504 and a time-out, too; here that might pay twice, and is not
done. It sends no name with an order by which a lost one could be looked for.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from generation.backends import Request
from generation.catalogue.categories import ASPECTS
from generation.hosted.messages import (
    at,
    data_address,
    file_address,
    job_id,
    sentence,
)
from generation.hosted.service import NO_REWRITER, Accepted, Done, Failed, Pending, Service

VERSION = "2024-11-06"  # of the API
RATIOS = ("text_ratios", "image_ratios")


class Runway(Service):
    name = "Runway"
    url = "https://api.dev.runwayml.com"
    url_variable = "RUNWAY_URL"
    own_settings = (*RATIOS, "seed")
    choices: ClassVar = {"seed": (True, False)}
    arena_arguments = (
        "model", "promptText", "promptImage", "ratio", "duration", "seed", "audio",
    )  # fmt: skip
    shape_by_image = False
    notes = (NO_REWRITER,)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        super().check_settings(settings)
        for name in RATIOS:
            ratios = settings[name]
            if not isinstance(ratios, Mapping) or not set(ratios) <= set(ASPECTS):
                instead = 'give pixels by aspect, such as {"16:9" = "1280:720"}'
                raise self.wrong(name, ratios, instead)

    def aspects(self, settings: Mapping[str, Any], request: Request) -> Mapping[str, str]:
        """What it makes, and how the API writes it."""
        found: Mapping[str, str] = settings[RATIOS[request.image is not None]]
        return found

    def headers(self) -> dict[str, str]:
        secret = self.key("RUNWAYML_API_SECRET")
        return {"Authorization": f"Bearer {secret}", "X-Runway-Version": VERSION}

    def write_order(
        self, settings: Mapping[str, Any], request: Request, model: str, seconds: int
    ) -> tuple[str, dict[str, Any]]:
        body = {
            **settings["arguments"],
            "model": model,
            "promptText": request.text,
            "ratio": self.aspects(settings, request)[request.conditions.aspect],
            "duration": seconds,
        }
        if settings["seed"]:
            body["seed"] = request.seed
        if settings["sound"] == "switch":
            body["audio"] = request.audio
        path = "text_to_video"
        if request.image is not None:
            path, body["promptImage"] = "image_to_video", data_address(request.image)
        return f"/v1/{path}", body

    def read_accepted(self, order_url: str, answer: Any) -> Accepted:
        found = job_id(answer, "id")
        url = f"{order_url.rsplit('/', 1)[0]}/tasks/{found}"
        return Accepted(found, url, url)

    def read_status(self, answer: Any) -> Pending | Done | Failed:
        status = at(answer, "status")
        if status in ("PENDING", "THROTTLED", "RUNNING"):
            return Pending()
        if status == "SUCCEEDED":
            return Done()
        if status in ("FAILED", "CANCELLED"):
            # A task that was refunded in full says 0.
            return Failed(self.reason_in(answer), billed=at(answer, "cost", "credits") != 0)
        return self.other_status(status, answer)

    def read_result(self, status: int, answer: Any) -> str | Failed:
        return file_address(status, answer, "output", 0)

    def cancel(self, status_url: str) -> tuple[str, str] | None:
        return "DELETE", status_url

    def reason_in(self, answer: Any) -> str:
        cancelled = "It was cancelled" if at(answer, "status") == "CANCELLED" else None
        said = at(answer, "error") or at(answer, "failure") or cancelled
        return sentence(at(answer, "failureCode"), said)


SERVICE = Runway()
