"""Models that fal.ai hosts, through its queue: the messages, written and read.

Settings beside the common ones (generation/hosted/service.py):

    durations    which lengths it makes, in seconds, and how the API writes each: {4 = "4s"}
    aspects      which it makes from text; from an image, the image decides
    names        the API's names of "aspect", "image", "sound" (a switch) and "seed"; what is not
                 named is not sent

A prompt rewriter that a model has is switched off in `arguments`. The key is read from FAL_KEY.
FAL_URL leads elsewhere than to fal's own queue.

Followed: the client's source (fal-client 1.0.3), which takes the addresses from the answer, and for
cancelling builds the address from the job's. No name of ours can be given to an order, so one whose
answer is lost can't be looked for.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from generation.backends import Request
from generation.hosted.messages import UnreadableAnswer, at, data_address, file_address, sentence
from generation.hosted.service import SECONDS_LIMIT, Accepted, Done, Failed, Pending, Service

NAMED_ARGUMENTS = {"aspect", "image", "sound", "seed"}


class Fal(Service):
    name = "fal"
    url = "https://queue.fal.run"
    url_variable = "FAL_URL"
    own_settings = ("aspects", "names")
    arena_arguments = ("prompt", "duration")
    shape_by_image = True
    # Another model in place of the one asked for would compete under a wrong name.
    order_headers: ClassVar = {"x-app-fal-disable-fallback": "true"}

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        names = settings.get("names")
        if not isinstance(names, Mapping) or not set(names) <= NAMED_ARGUMENTS:
            raise self.wrong("names", names, f"name {', '.join(sorted(NAMED_ARGUMENTS))}")
        super().check_settings(settings)
        if settings["sound"] == "switch" and "sound" not in names:
            raise self.wrong("sound", "switch", "give the switch's name in names")

    def check_durations(self, durations: Any) -> None:
        if not isinstance(durations, Mapping) or not all(
            re.fullmatch(r"\d{1,2}", seconds) and 0 < int(seconds) <= SECONDS_LIMIT
            for seconds in durations
        ):
            instead = (
                f"give whole seconds, 1 to {SECONDS_LIMIT}, and how the API writes them, such as "
                '{4 = "4s"}'
            )
            raise self.wrong("durations", durations, instead)

    def reserved(self, settings: Mapping[str, Any]) -> set[str]:
        return {*super().reserved(settings), *settings["names"].values()}

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Key {self.key('FAL_KEY')}"}

    def write_order(
        self, settings: Mapping[str, Any], request: Request, model: str, seconds: int
    ) -> tuple[str, dict[str, Any]]:
        """1. fixed arguments; 2. the prompt's conditions, under the names the API has for them."""
        names = settings["names"]
        values: dict[str, Any] = {"seed": request.seed}
        if settings["sound"] == "switch":
            values["sound"] = request.audio
        if request.image is None:
            values["aspect"] = request.conditions.aspect
        else:
            values["image"] = data_address(request.image)
        body = {
            **settings["arguments"],
            "prompt": request.text,
            "duration": settings["durations"][str(seconds)],
            **{names[name]: value for name, value in values.items() if name in names},
        }
        return f"/{model}", body

    def read_accepted(self, order_url: str, answer: Any) -> Accepted:
        found = [at(answer, name) for name in ("request_id", "status_url", "response_url")]
        if not all(isinstance(one, str) and one for one in found):
            raise UnreadableAnswer("it lacks request_id, status_url or response_url")
        return Accepted(*found)

    def read_status(self, answer: Any) -> Pending | Done | Failed:
        status = at(answer, "status")
        if status in ("IN_QUEUE", "IN_PROGRESS"):
            return Pending()
        if status != "COMPLETED":
            return self.other_status(status, answer)
        if answer.get("error"):  # a failed request is “completed” too
            # fal does not say whether it bills a failure: count it, until somebody reads the bill.
            return Failed(self.reason_in(answer), billed=True)
        return Done()

    def read_result(self, status: int, answer: Any) -> str | Failed:
        if status in (400, 422):  # the model's own refusal is told here, not in the status
            return Failed(self.reason_in(answer), billed=True)
        return file_address(status, answer, "video", "url")

    def cancel(self, status_url: str) -> tuple[str, str] | None:
        return "PUT", status_url.removesuffix("/status") + "/cancel"

    def reason_in(self, answer: Any) -> str:
        """The service's words: `error`, or `detail`, which is a text or a list of {msg}."""
        words: Any = at(answer, "error") or at(answer, "detail")
        if isinstance(words, list):
            words = "; ".join(
                str(w.get("msg", w)) if isinstance(w, dict) else str(w) for w in words
            )
        return sentence(words)


SERVICE = Fal()
