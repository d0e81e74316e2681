"""Kling: a stand-in that follows its documents, and what is its own."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any, ClassVar

import jwt
import pytest

from generation.backends.registry import load_service
from generation.hosted.orders import submit_waiting
from generation.hosted.results import poll_due
from generation.models import Clip, ClipState, HostedJob
from generation.rendering.queue import Retried, retry_failed
from tests.generation.hosted.stand_in import (
    WORDS,
    Answer,
    Message,
    StandIn,
    aged,
    check_refused,
    due,
    is_png,
    only,
    work,
    wrong_field,
)

pytestmark = pytest.mark.django_db


class KlingStandIn(StandIn):
    backend, name = "kling", "Kling"
    order_paths = ("/v1/videos/text2video", "/v1/videos/image2video")
    keys: ClassVar = {
        "KLING_ACCESS_KEY": "AK0123456789",
        "KLING_SECRET_KEY": "SK98765432109876543210abcdefghij",
    }
    url_variable = "KLING_URL"
    seed = False
    settings: ClassVar = {
        "text_model": "kling-v3",
        "image_model": "kling-v3",
        "sound": "switch",
        "durations": [2, 4],
        "aspects": ["1:1"],
        "mode": "std",
        "arguments": {},
    }

    def unlock(self, message: Message) -> Answer | None:
        """The token is checked as RFC 7519 says, not with the code that made it."""
        token = message.headers.get("Authorization", "").removeprefix("Bearer ")
        signed, _, signature = token.rpartition(".")
        secret = self.keys["KLING_SECRET_KEY"].encode()
        right = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), hashlib.sha256))
        if not signed or right.decode().rstrip("=") != signature:
            return self.no(401, "Authorization failed", code=1002)
        head, claims = (json.loads(base64.urlsafe_b64decode(p + "==")) for p in signed.split("."))
        if head != {"alg": "HS256", "typ": "JWT"} or claims["iss"] != self.keys["KLING_ACCESS_KEY"]:
            return self.no(401, "Authorization is invalid", code=1002)
        if not claims["nbf"] <= time.time() < claims["exp"] <= time.time() + 1800:
            return self.no(401, "Authorization has expired", code=1004)
        return None

    def fault(self, message: Message) -> str:
        needed = {"model_name": str, "prompt": str, "duration": str, "mode": str}
        allowed = {"sound": str, "watermark_info": dict, "external_task_id": str}
        if message.path.endswith("image2video"):
            needed["image"] = str
            if not is_png(message.body.get("image", ""), prefix=""):
                return "image is no image"
        else:
            allowed["aspect_ratio"] = str
        if message.body.get("sound", "on") not in ("on", "off"):
            return "sound is neither on nor off"
        return wrong_field(message.body, needed, allowed)

    def ask(self, message: Message) -> Answer:
        """A task is asked for by its own id, or by the name that came with its order."""
        known = {"7700", *(order.body.get("external_task_id") for order in self.taken)}
        if message.path.rpartition("/")[2] not in known:
            return self.no(404, "Task not found", code=1203)
        return super().ask(message)

    def accepted(self, message: Message) -> Answer:
        return Answer(200, self.said({"task_id": "7700", "task_status": "submitted"}))

    def said(self, data: dict[str, Any]) -> Any:
        return {"code": 0, "message": "SUCCEED", "request_id": "q", "data": data}

    def job(self, state: str) -> Any:
        if state == "pending":
            return self.said({"task_id": "7700", "task_status": "processing"})
        if state in ("failed", "refused"):
            return self.said({"task_id": "7700", "task_status": "failed", "task_status_msg": WORDS})
        video = {"id": "v", "url": self.file, "duration": "2"}
        return self.said(
            {"task_id": "7700", "task_status": "succeed", "task_result": {"videos": [video]}}
        )

    def no(self, status: int, words: str, code: int = 1201, **headers: str) -> Answer:
        if status == 429:
            code = 1302
        return Answer(status, {"code": code, "message": words, "request_id": "q"}, headers)


@only(KlingStandIn)
class TestKling:
    def test_token_is_taken_by_another_reader_too(self, service: StandIn) -> None:
        token = load_service("kling").headers()["Authorization"].removeprefix("Bearer ")
        issuer, secret = service.keys["KLING_ACCESS_KEY"], service.keys["KLING_SECRET_KEY"]
        needed = {"require": ["iss", "exp", "nbf"]}
        claims = jwt.decode(token, secret, ["HS256"], needed, issuer=issuer)
        assert 1795 < claims["exp"] - time.time() <= 1800
        assert claims["nbf"] <= time.time() - 5
        with pytest.raises(jwt.InvalidSignatureError):
            jwt.decode(token, f"not {secret}", ["HS256"], needed, issuer=issuer)

    def test_watermark_is_off_and_the_missing_seed_is_noted(
        self, service: StandIn, one: Callable[[], Clip]
    ) -> None:
        submit_waiting(60)
        assert service.posts[0].body["watermark_info"] == {"enabled": False}
        assert "The API takes no seed." in HostedJob.objects.get().request["notes"]

    @pytest.mark.parametrize("code", [1101, 1102])
    def test_an_empty_account_is_not_waited_for(
        self, service: StandIn, one: Callable[[], Clip], code: int
    ) -> None:
        service.orders = [Answer(429, {"code": code, "message": "Account in arrears"})]
        work(2)
        assert one().error == f"Kling refused the order with 429: {code}: Account in arrears."
        assert len(service.posts) == 1

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(500, {"code": 5000, "message": "Oh"}, takes=True),
            Answer(200, {"code": 5002, "message": "Slow"}, takes=True),
            Answer(200, {}, takes=True),
            Answer(drop=True, takes=True),
        ],
        ids=["500", "5002 in a 200", "unreadable", "drop"],
    )
    def test_an_order_without_an_answer_is_found_by_its_name(
        self, service: StandIn, one: Callable[[], Clip], answer: Answer
    ) -> None:
        service.orders = [answer]
        service.jobs = ["pending", "pending", "done"]
        work()
        assert one().state == ClipState.READY
        job = HostedJob.objects.get()
        assert (job.state, job.job_id, job.cost) == ("collected", "7700", Decimal("0.2"))
        name = service.posts[0].body["external_task_id"]
        assert name == f"{one().pk}-{job.pk}"
        assert (len(service.posts), len(service.taken)) == (1, 1)

    def test_an_order_that_it_does_not_know_by_name_may_have_been_billed(
        self, service: StandIn, one: Callable[[], Clip]
    ) -> None:
        service.orders = [Answer(500, {"code": 5000, "message": "Oh"})]
        submit_waiting(60)
        due()
        poll_due(60)
        assert HostedJob.objects.get().state == "submitting"  # it may take a moment
        aged(minutes=6)
        work(1)
        assert one().error == (
            "The order was sent to Kling, it answered 500: 5000: Oh, and it may have been billed: "
            "look there before you order it again. Asked for it by its name, it answers 404: 1203: "
            "Task not found. Counted as spent: $0.20."
        )
        assert len(service.posts) == 1

    def test_a_lookup_that_the_key_does_not_open_can_be_made_again(
        self, service: StandIn, one: Callable[[], Clip]
    ) -> None:
        service.orders = [Answer(500, {"code": 5000, "message": "Oh"}, takes=True)]
        submit_waiting(60)
        due()
        service.jobs = [Answer(401, {"code": 1002, "message": "Who?"})]
        poll_due(60)
        assert HostedJob.objects.get().state == "stopped"
        assert "it answers 401: 1002: Who?. Counted as spent" in one().error
        service.jobs = []
        assert retry_failed(Clip.objects.all()) == Retried(waiting=1, asked_again=1, kept=0)
        work()
        assert one().state == ClipState.READY
        assert len(service.posts) == 1

    @pytest.mark.parametrize("code", [1304, 9999])
    def test_a_429_with_another_code_is_not_waited_for(
        self, service: StandIn, one: Callable[[], Clip], code: int
    ) -> None:
        service.orders = [Answer(429, {"code": code, "message": "No"})]
        work(2)
        assert one().error == f"Kling refused the order with 429: {code}: No."
        assert len(service.posts) == 1

    def test_a_refusal_in_a_200_is_one(self, service: StandIn, one: Callable[[], Clip]) -> None:
        service.orders = [Answer(200, {"code": 1301, "message": WORDS})]
        work(2)
        assert one().error == f"Kling refused the order: 1301: {WORDS}."
        assert HostedJob.objects.get().cost is None


@pytest.mark.parametrize(
    ("change", "asked", "said"),
    [
        ({"arguments": {"watermark_info": {}}}, {}, "argument watermark_info is set by"),
        ({"mode": "4k"}, {}, "it can be std, pro"),
        ({"sound": "never"}, {"audio": True}, "It makes no sound"),
    ],
)
def test_what_it_could_never_make_is_refused(
    change: dict[str, Any], asked: dict[str, Any], said: str
) -> None:
    check_refused(KlingStandIn, change, asked, said)
