"""Every paid service: its messages as documented, and every fault that costs money or a clip.

How orders, budgets and results are handled is tested once, in test_hosted.py; here each service's
own messages go the whole way, over HTTP.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.utils import timezone

from generation.backends import CannotRender, Request
from generation.backends.ordering import hosted
from generation.catalog import check_version, load_catalog
from generation.categories import Category, Conditions
from generation.hosted import poll_due, submit_waiting
from generation.models import Clip, ClipState, HostedJob, JobState, PromptSet, Version
from generation.rendering import queue_clips
from tests.services import (
    FILE,
    SERVICES,
    WORDS,
    Answer,
    Ark,
    DashScope,
    Fal,
    Kling,
    Runway,
    Service,
    Veo,
    serving,
)
from tests.test_hosted import due, wait_of, work
from tests.test_import_clips import film

pytestmark = pytest.mark.django_db

HOSTED_MODELS = {
    "happyhorse-1.0-720p", "seedance-2.0-720p", "kling-3-standard", "veo-3.1-720p",
    "runway-gen-4.5", "pika-2.2-720p", "wan-2.7-720p",
}  # fmt: skip


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    made = tmp_path_factory.mktemp("made") / "made.mp4"
    return film(made, seconds=2, sound=True).read_bytes()


@pytest.fixture(params=SERVICES, ids=lambda kind: kind.backend)
def service(
    request: pytest.FixtureRequest,
    clip_file: bytes,
    monkeypatch: pytest.MonkeyPatch,
    settings,
) -> Iterator[Service]:
    """A service that makes clips at once, until told otherwise."""
    service: Service = request.param()
    settings.HOSTED_TIMEOUT_SECONDS = 2
    with serving(service, clip_file):
        for name, value in service.keys.items():
            monkeypatch.setenv(name, value)
        base = "/api/v3" if isinstance(service, Ark) else ""
        monkeypatch.setenv(service.url_variable, service.address + base)
        yield service


@pytest.fixture
def rival(service: Service, few: PromptSet, make_version: Callable[..., Version]) -> Version:
    return make_version(
        "rival",
        backend=service.backend,
        settings=service.settings,
        price_per_second=Decimal("0.1"),
        budget=10,
    )


@pytest.fixture
def one(rival: Version, few: PromptSet) -> Callable[[], Clip]:
    """Ask for one silent clip; returns what becomes of it, read anew."""
    assert queue_clips(Category.T2V_SILENT, few, [rival], limit=1).added == 1
    return Clip.objects.get


def only(*kinds: type[Service]) -> Any:
    return pytest.mark.parametrize("service", kinds, indirect=True, ids=lambda kind: kind.backend)


def everything_stored() -> str:
    return str([*HostedJob.objects.values(), *Clip.objects.values(), *Version.objects.values()])


def flat(value: Any) -> dict[str, Any]:
    """The innermost names of a message with what stands there."""
    if isinstance(value, list):
        return {name: inner for item in value for name, inner in flat(item).items()}
    if not isinstance(value, dict):
        return {}
    plain = {name: inner for name, inner in value.items() if not isinstance(inner, dict | list)}
    return plain | {n: i for v in value.values() for n, i in flat(v).items()}


class TestAnOrder:
    def test_becomes_a_clip_and_shows_no_key(
        self,
        service: Service,
        rival: Version,
        few: PromptSet,
        clip_file: bytes,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        service.jobs = ["pending", "done"]
        queue_clips(Category.T2V_AUDIO, few, [rival], limit=1)
        assert submit_waiting(60) == 1
        due()
        assert poll_due(60) == 0
        assert HostedJob.objects.get().state == JobState.SUBMITTED
        due()
        assert poll_due(60) == 1
        job, clip = HostedJob.objects.get(), Clip.objects.get()
        assert (job.state, job.cost, job.error) == (JobState.COLLECTED, Decimal("0.2"), "")
        assert clip.hardware == f"{service.name}, hosted"
        assert clip.loudness is not None
        assert Path(clip.master.path).read_bytes() == clip_file
        (order,) = service.posts
        assert job.request["body"] == order.body
        assert clip.prompt.text in flat(order.body).values()
        assert (flat(order.body).get("seed") == clip.seed) == service.seed
        for secret in service.keys.values():
            assert secret not in everything_stored()
            assert secret not in caplog.text
        # Whoever makes files is told no key, but for the one that asks for it.
        for message in service.got:
            if message.path.startswith(FILE):
                asked = "?" in message.path
                assert ("x-goog-api-key" in message.headers) == asked
                assert "Authorization" not in message.headers

    def test_of_a_silent_clip_is_silent_whether_or_not_it_can_be_asked_for(
        self, service: Service, one: Callable[[], Clip]
    ) -> None:
        work(1)
        clip, job = one(), HostedJob.objects.get()
        assert (clip.state, clip.loudness) == (ClipState.READY, None)
        switches = {"generate_audio": False, "audio": False, "sound": "off"}
        sent = flat(service.posts[0].body)
        assert any(sent.get(name) == off for name, off in switches.items()) == service.mute
        dropped = "It has no switch for sound: the track is dropped."
        assert (dropped in job.request["notes"]) == (not service.mute)

    def test_carries_the_first_frame(
        self, service: Service, rival: Version, few: PromptSet
    ) -> None:
        queue_clips(Category.I2V_SILENT, few, [rival])
        work(1)
        assert Clip.objects.get().state == ClipState.READY
        kept = str(HostedJob.objects.get().request)
        assert "data:image/png;base64,sha256:" in kept
        assert len(kept) < 1500

    def test_that_is_full_holds_back_the_others_of_its_service(
        self, service: Service, rival: Version, few: PromptSet
    ) -> None:
        queue_clips(Category.T2V_SILENT, few, [rival])
        service.orders = [service.no(429, "Slow down", **{"Retry-After": "77"})]
        assert (submit_waiting(60), submit_waiting(60)) == (0, 0)
        job = HostedJob.objects.get()
        assert (job.state, job.cost) == (JobState.WAITING, None)
        assert "429" in job.error
        assert "Slow down." in job.error
        assert wait_of(job) == pytest.approx(77, abs=2)
        assert len(service.posts) == 1
        for _ in range(9):  # and it may last
            due()
            submit_waiting(60)
        assert HostedJob.objects.get().state == JobState.WAITING
        service.orders = []
        due()
        assert submit_waiting(60) == 2

    @only(Fal)
    def test_that_waits_already_waits_for_the_full_service_too(
        self, service: Service, rival: Version, few: PromptSet
    ) -> None:
        queue_clips(Category.T2V_SILENT, few, [rival])
        service.orders = [service.no(503, "Closed"), service.no(429, "Slow down")]
        submit_waiting(60)
        assert (HostedJob.objects.count(), len(service.posts)) == (2, 2)
        due()
        submit_waiting(60)
        assert len(service.posts) == 3  # one of them asks, for both

    def test_that_is_full_for_a_day_ends(self, service: Service, one: Callable[[], Clip]) -> None:
        service.orders = [service.no(429, "Slow down")]
        submit_waiting(60)
        assert wait_of(HostedJob.objects.get()) == pytest.approx(30, abs=2)
        HostedJob.objects.update(created_at=timezone.now() - timedelta(hours=25))
        due()
        submit_waiting(60)
        assert one().error.endswith("Slow down. So it has been for a day.")

    def test_is_sent_again_after_a_503(self, service: Service, one: Callable[[], Clip]) -> None:
        service.orders = [service.no(503, "Closed"), service.no(503, "Closed")]
        for wait in (15, 30):
            submit_waiting(60)
            assert wait_of(HostedJob.objects.get()) == pytest.approx(wait, abs=2)
            due()
        service.orders = []
        assert submit_waiting(60) == 1

    def test_that_is_refused_costs_nothing(self, service: Service, one: Callable[[], Clip]) -> None:
        service.orders = [service.no(400, WORDS)]
        work(2)
        assert "refused the order with 400: " in one().error
        assert one().error.endswith(f"{WORDS}.")
        assert HostedJob.objects.get().cost is None
        assert len(service.posts) == 1

    @pytest.mark.parametrize("status", [0, 408, 504, 520])
    def test_without_an_answer_is_never_repeated(
        self, service: Service, one: Callable[[], Clip], settings, status: int
    ) -> None:
        settings.HOSTED_TIMEOUT_SECONDS = 0.2
        service.orders = [service.no(status, "?") if status else Answer(delay=0.5)]
        work(2)
        assert "it may have been billed: look there before you try it again." in one().error
        assert HostedJob.objects.get().cost == Decimal("0.2")
        assert len(service.posts) == 1

    @pytest.mark.parametrize("body", [{}, [], b"<html>", {"id": "../../etc", "name": "models/x"}])
    def test_with_an_answer_that_is_none_is_never_repeated(
        self, service: Service, one: Callable[[], Clip], body: Any
    ) -> None:
        service.orders = [Answer(200, body)]
        work(2)
        assert "took the order, but its answer can't be used: it lacks" in one().error
        assert HostedJob.objects.get().cost == Decimal("0.2")
        assert len(service.posts) == 1

    def test_needs_every_key(
        self, service: Service, one: Callable[[], Clip], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = list(service.keys)[-1]
        monkeypatch.setenv(name, "")
        work(1)
        assert f"There is no usable key for {service.name}: set {name}" in one().error
        assert not service.got


class TestAJob:
    @pytest.mark.parametrize("how", ["failed", "refused"])
    def test_that_failed_says_why_and_what_it_cost(
        self, service: Service, one: Callable[[], Clip], how: str
    ) -> None:
        service.jobs = [how]
        work(2)
        assert one().error.startswith(f"{service.name} failed: ")
        assert f"{WORDS}." in one().error
        billed = service.failures_cost or (isinstance(service, Runway) and how == "failed")
        assert one().error.endswith("Counted as spent: $0.20.") == billed
        assert HostedJob.objects.get().cost == (Decimal("0.2") if billed else None)
        assert WORDS in str(HostedJob.objects.get().answer)
        assert len(service.posts) == 1

    def test_is_asked_for_while_the_service_stumbles(
        self, service: Service, one: Callable[[], Clip]
    ) -> None:
        submit_waiting(60)
        gone = Answer(404)
        for stumble in (service.no(500, "Oh"), Answer(200, b"no json"), Answer(200, {}), gone):
            service.jobs = [stumble]
            due()
            assert poll_due(60) == 0
            assert "does not say how far it is" in HostedJob.objects.get().error
        service.jobs = []
        due()
        assert poll_due(60) == 1

    def test_whose_file_is_damaged_is_fetched_again(
        self, service: Service, one: Callable[[], Clip]
    ) -> None:
        faults = {
            "the connection broke": Answer(body=b"\0" * 5000, cut=1000),
            "it is “text/html”, not a video": Answer(headers={"Content-Type": "text/html"}),
            "its address answers 403 (the address may have expired)": Answer(403),
        }
        service.files[:0] = faults.values()
        submit_waiting(60)
        for said in faults:
            due()
            assert poll_due(60) == 0
            assert said in HostedJob.objects.get().error
        asked = len([m for m in service.got if m.method == "GET"])
        due()
        assert poll_due(60) == 1
        assert one().state == ClipState.READY
        assert len([m for m in service.got if m.method == "GET"]) > asked + 1  # a new address
        assert len(service.posts) == 1

    @pytest.mark.parametrize("answer", [Answer(200, {}), Answer(400, {"message": "Too late"})])
    def test_that_is_given_up_is_cancelled_where_it_can_be(
        self, service: Service, one: Callable[[], Clip], settings, answer: Answer
    ) -> None:
        service.jobs, service.cancels = ["pending"], [answer]
        submit_waiting(60)
        late = timezone.now() - timedelta(seconds=settings.HOSTED_SECONDS_AT_MOST + 60)
        HostedJob.objects.update(submitted_at=late)
        due()
        poll_due(60)
        assert f"{service.name} had not finished" in one().error
        assert one().error.endswith("Counted as spent: $0.20.")
        assert HostedJob.objects.get().state == JobState.FAILED
        if not service.cancels_by:
            assert f"{service.name} has no way to cancel an order." in one().error
            assert not service.cancelled
            return
        (message,) = service.cancelled
        assert message.path == cancel_path(service)
        if answer.status == 200:
            assert "It was cancelled there." in one().error
        else:
            assert "It could not be cancelled there, which answers 400: " in one().error

    def test_of_a_clip_that_was_failed_meanwhile_is_cancelled_too(
        self, service: Service, one: Callable[[], Clip]
    ) -> None:
        submit_waiting(60)
        Clip.objects.update(state=ClipState.FAILED, error="An operator's.", lease_expires_at=None)
        due()
        poll_due(60)
        job = HostedJob.objects.get()
        assert (job.state, job.cost) == (JobState.FAILED, Decimal("0.2"))
        assert len(service.cancelled) == bool(service.cancels_by)
        assert ("It was cancelled there." in job.error) == bool(service.cancels_by)
        assert one().error == "An operator's."


def cancel_path(service: Service) -> str:
    return {
        "fal": "/somebody/fast/requests/r-1/cancel",
        "runway": "/v1/tasks/17f20503-6c24-4c16-946b-35dbbce2af2f",
        "dashscope": "/api/v1/tasks/t-1/cancel",
        "ark": "/api/v3/contents/generations/tasks/cgt-20261122-abcde",
    }[service.backend]


class TestEachServicesOwn:
    @only(DashScope)
    def test_watermark_and_rewriter_are_off_at_dashscope(
        self, service: Service, one: Callable[[], Clip]
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

    @only(Ark)
    def test_watermark_is_off_at_ark(self, service: Service, one: Callable[[], Clip]) -> None:
        submit_waiting(60)
        assert service.posts[0].body["watermark"] is False
        assert "no switch for prompt rewriting" in str(HostedJob.objects.get().request["notes"])

    @only(Kling)
    def test_watermark_is_off_at_kling_and_the_missing_seed_is_noted(
        self, service: Service, one: Callable[[], Clip]
    ) -> None:
        submit_waiting(60)
        assert service.posts[0].body["watermark_info"] == {"enabled": False}
        assert "The API takes no seed." in HostedJob.objects.get().request["notes"]

    @only(Kling)
    @pytest.mark.parametrize("code", [1101, 1102])
    def test_an_empty_account_at_kling_is_not_waited_for(
        self, service: Service, one: Callable[[], Clip], code: int
    ) -> None:
        service.orders = [Answer(429, {"code": code, "message": "Account in arrears"})]
        work(2)
        assert one().error == f"Kling refused the order with 429: {code}: Account in arrears."
        assert len(service.posts) == 1

    @only(Kling)
    def test_a_refusal_in_a_200_at_kling_is_one(
        self, service: Service, one: Callable[[], Clip]
    ) -> None:
        service.orders = [Answer(200, {"code": 1301, "message": WORDS})]
        work(2)
        assert one().error == f"Kling refused the order: 1301: {WORDS}."
        assert HostedJob.objects.get().cost is None

    @only(Veo)
    def test_a_key_is_not_shown_where_the_file_really_lies(
        self, service: Service, one: Callable[[], Clip]
    ) -> None:
        work(1)
        gate, store = (m for m in service.got if m.path.startswith(FILE))
        assert gate.headers["Host"] != store.headers["Host"]
        assert "x-goog-api-key" in gate.headers
        assert "x-goog-api-key" not in store.headers

    @only(Veo, Fal)
    def test_a_file_whose_address_leads_in_circles_is_none(
        self, service: Service, one: Callable[[], Clip]
    ) -> None:
        service.files = [Answer(302, {}, {"Location": FILE})]
        work(1)
        assert "its address leads on and on" in HostedJob.objects.get().error

    @only(Runway)
    def test_a_cancelled_task_at_runway_says_so(
        self, service: Service, one: Callable[[], Clip]
    ) -> None:
        service.jobs = [Answer(200, {"id": "x", "status": "CANCELLED", "cost": {"credits": 0}})]
        work(1)
        assert one().error == "Runway failed: It was cancelled."


def wish(text: str = "a cat", seconds: float = 2, side: int = 0, **fields: Any) -> Request:
    image = np.zeros((side, side, 3), np.uint8) if side else None
    values = {"conditions": Conditions("1:1", seconds), "audio": False, "seed": 1, "image": image}
    return Request(text, **{**values, **fields})


CHANGES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"colour": 1}, {}, "setting colour; there are"),
    ({"sound": "loud"}, {}, "setting sound is 'loud'; it can be"),
    ({"text_model": "../secret"}, {}, "setting text_model is '../secret'"),
    ({"text_model": None}, {}, "its settings have no text_model"),
    ({"image_model": None}, {"side": 512}, "its settings have no image_model"),
    ({"prompt_at_most": 4}, {}, "The prompt has 5 characters; "),
    ({"arguments": 1}, {}, "it must be a table"),
    ({}, {"seconds": 5}, "It makes at most 4 s; 5 s were asked for."),
    ({}, {"conditions": Conditions("16:9", 2)}, "from text, not 16:9."),
    ({}, {"side": 512, "conditions": Conditions("16:9", 2)}, "is 512x512, not 16:9"),
]


@pytest.mark.parametrize(("change", "asked", "said"), CHANGES)
@pytest.mark.parametrize("kind", SERVICES, ids=lambda kind: kind.backend)
def test_what_a_service_could_never_make_is_refused_before_anything_is_sent(
    kind: type[Service], change: dict[str, Any], asked: dict[str, Any], said: str
) -> None:
    backend = hosted(kind.backend)
    backend.check(kind.settings, wish())
    with pytest.raises(CannotRender, match=said.replace(".", r"\.")):
        backend.check({**kind.settings, **change}, wish(**asked))


@pytest.mark.parametrize(
    ("kind", "change", "asked", "said"),
    [
        (Fal, {"arguments": {"seed": 1}}, {}, "The argument seed is set by the arena"),
        (DashScope, {"arguments": {"watermark": True}}, {}, "argument watermark is set by the"),
        (Ark, {"arguments": {"watermark": True}}, {}, "argument watermark is set by the arena"),
        (Kling, {"arguments": {"watermark_info": {}}}, {}, "argument watermark_info is set by"),
        (Veo, {"arguments": {"seed": 1}}, {}, "The argument seed is set by the arena"),
        (Runway, {"arguments": {"audio": True}}, {}, "The argument audio is set by the arena"),
        (Runway, {"text_ratios": {"4:3": "1"}}, {}, "setting text_ratios is"),
        (Runway, {"seed": 1.5}, {}, "setting seed is 1.5; it can be true, false"),
        (Runway, {"image_ratios": {}}, {"side": 512}, "from an image, not 1:1"),
        (Runway, {"durations": ["2"]}, {}, "setting durations is"),
        (DashScope, {"resolution": "4K"}, {}, "it can be 720P, 1080P"),
        (DashScope, {}, {"side": 200}, "takes none with a side below 300 pixels"),
        (Ark, {"resolution": "720P"}, {}, "it can be 480p, 720p, 1080p"),
        (Ark, {"aspects": ["4:3"]}, {}, "setting aspects is"),
        (Ark, {"sound": "always"}, {}, "it can be switch, never"),
        (Kling, {"mode": "4k"}, {}, "it can be std, pro"),
        (Kling, {"sound": "never"}, {"audio": True}, "It makes no sound"),
        (Veo, {"resolution": "1080p"}, {}, "Veo makes 1080p in 8 s only"),
        (Veo, {"sound": "switch"}, {}, "it can be always"),
        (Fal, {"names": {"aspect": "aspect_ratio"}}, {}, "give the switch's name in names"),
    ],
)
def test_what_one_service_alone_can_not_do_is_refused_too(
    kind: type[Service], change: dict[str, Any], asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(CannotRender, match=said):
        hosted(kind.backend).check({**kind.settings, **change}, wish(**asked))


def test_every_hosted_model_of_the_catalogue_is_a_draft_that_could_be_ordered(
    few: PromptSet,
) -> None:
    load_catalog()
    versions = Version.objects.filter(slug__in=HOSTED_MODELS)
    assert versions.count() == len(HOSTED_MODELS)
    image = np.zeros((720, 1280, 3), np.uint8)
    for version in versions:
        assert (version.state, version.budget) == ("draft", None)
        assert version.price_per_second
        check_version(version)  # as when it is activated
        backend = hosted(version.backend)
        for category in map(Category, version.categories):
            frame = image if category.task == "i2v" else None
            for seconds in (version.min_seconds, 5, version.max_seconds):
                conditions = Conditions("16:9", seconds)
                backend.check(
                    version.settings,
                    wish(conditions=conditions, audio=category.audio, image=frame),
                )
