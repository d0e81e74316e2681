"""Every paid service: its messages as documented, and every fault that costs money or a clip.

How orders, budgets and results are handled is tested once, in test_orders.py; here each service's
own messages go the whole way, over HTTP.
"""

import hashlib
import logging
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone
from PIL import Image

from generation.backends.registry import HOSTED, load_service
from generation.catalogue.categories import Category, Conditions
from generation.catalogue.entries import check_version, load_catalogue
from generation.hosted.orders import submit_waiting
from generation.hosted.results import poll_due
from generation.models import Clip, ClipState, HostedJob, JobState, PromptSet, Version
from generation.rendering.queue import Retried, queue_clips, retry_failed
from tests.generation.hosted.services import STAND_INS
from tests.generation.hosted.services.test_fal import FalStandIn
from tests.generation.hosted.services.test_runway import RunwayStandIn
from tests.generation.hosted.stand_in import (
    FILE,
    WORDS,
    Answer,
    StandIn,
    aged,
    check_refused,
    due,
    only,
    wait_of,
    wish,
    work,
)

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

HOSTED_MODELS = {
    "happyhorse-1.0-720p", "seedance-2.0-720p", "kling-3-standard", "veo-3.1-720p",
    "runway-gen-4.5", "pika-2.2-720p", "wan-2.7-720p",
}  # fmt: skip


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


def test_every_service_has_a_stand_in() -> None:
    assert {kind.backend for kind in STAND_INS} == set(HOSTED)


class TestAnOrder:
    def test_becomes_a_clip_and_shows_no_key(
        self,
        service: StandIn,
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
        assert clip.source_sha256 == hashlib.sha256(clip_file).hexdigest()
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
        self, service: StandIn, one: Callable[[], Clip]
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
        self, service: StandIn, rival: Version, few: PromptSet
    ) -> None:
        queue_clips(Category.I2V_SILENT, few, [rival])
        work(1)
        assert Clip.objects.get().state == ClipState.READY
        kept = str(HostedJob.objects.get().request)
        assert "data:image/png;base64,sha256:" in kept
        assert len(kept) < 1500

    def test_that_is_full_holds_back_the_others_of_its_service(
        self, service: StandIn, rival: Version, few: PromptSet
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

    @only(FalStandIn)
    def test_that_waits_already_waits_for_the_full_service_too(
        self,
        service: StandIn,
        rival: Version,
        few: PromptSet,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        queue_clips(Category.T2V_SILENT, few, [rival])
        monkeypatch.setenv("FAL_URL", "http://127.0.0.1:9")
        submit_waiting(60)
        monkeypatch.setenv("FAL_URL", service.address)
        due()
        service.orders = [service.no(429, "Slow down")]
        submit_waiting(60)
        assert (HostedJob.objects.count(), len(service.posts)) == (2, 1)
        due()
        submit_waiting(60)
        assert len(service.posts) == 2  # one of them asks, for both

    def test_that_is_full_for_a_day_ends(self, service: StandIn, one: Callable[[], Clip]) -> None:
        service.orders = [service.no(429, "Slow down")]
        submit_waiting(60)
        assert wait_of(HostedJob.objects.get()) == pytest.approx(30, abs=2)
        HostedJob.objects.update(created_at=timezone.now() - timedelta(hours=25))
        due()
        submit_waiting(60)
        assert one().error.endswith("Slow down. So it has been for a day.")

    def test_that_is_refused_costs_nothing(self, service: StandIn, one: Callable[[], Clip]) -> None:
        service.orders = [service.no(400, WORDS)]
        work(2)
        assert "refused the order with 400: " in one().error
        assert one().error.endswith(f"{WORDS}.")
        assert HostedJob.objects.get().cost is None
        assert len(service.posts) == 1

    @pytest.mark.parametrize("body", [{}, [], b"<html>", {"id": "../../etc", "name": "models/x"}])
    def test_with_an_answer_that_is_none_is_never_repeated(
        self, service: StandIn, one: Callable[[], Clip], body: Any
    ) -> None:
        service.orders = [Answer(200, body)]
        submit_waiting(60)
        aged(minutes=6)
        work(1)
        assert "answer can't be used" in one().error
        assert HostedJob.objects.get().cost == Decimal("0.2")
        assert len(service.posts) == 1

    def test_needs_every_key(
        self, service: StandIn, one: Callable[[], Clip], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = list(service.keys)[-1]
        monkeypatch.setenv(name, "")
        work(1)
        assert f"There is no usable key for {service.name}: set {name}" in one().error
        assert not service.got


class TestAJob:
    @pytest.mark.parametrize("how", ["failed", "refused"])
    def test_that_failed_says_why_and_what_it_cost(
        self, service: StandIn, one: Callable[[], Clip], how: str
    ) -> None:
        service.jobs = [how]
        work(2)
        assert one().error.startswith(f"{service.name} failed: ")
        assert f"{WORDS}." in one().error
        billed = service.failures_cost or (isinstance(service, RunwayStandIn) and how == "failed")
        assert one().error.endswith("Counted as spent: $0.20.") == billed
        assert HostedJob.objects.get().cost == (Decimal("0.2") if billed else None)
        assert WORDS in str(HostedJob.objects.get().answer)
        assert len(service.posts) == 1

    def test_is_asked_for_while_the_service_stumbles(
        self, service: StandIn, one: Callable[[], Clip]
    ) -> None:
        submit_waiting(60)
        young = service.no(404, "No such job")
        for stumble in (service.no(500, "Oh"), Answer(200, b"no json"), Answer(200, {}), young):
            service.jobs = [stumble]
            due()
            assert poll_due(60) == 0
            said = "does not know it yet" if stumble is young else "does not say how far it is"
            assert said in HostedJob.objects.get().error
        service.jobs = []
        due()
        assert poll_due(60) == 1

    @pytest.mark.parametrize("status", [401, 403, 404, 400])
    def test_that_the_service_says_for_good_it_has_not_ends_at_once_and_can_be_asked_for_again(
        self, service: StandIn, one: Callable[[], Clip], status: int
    ) -> None:
        submit_waiting(60)
        aged(minutes=2)
        service.jobs = [service.no(status, "W" * 2000)]
        due()
        assert poll_due(60) == 0
        assert f"answers {status}: " in one().error
        assert "WWW" in one().error
        assert "Counted as spent: $0.20. “Retry failed” asks for it there again" in one().error
        assert len(one().error) < 1000
        assert len([m for m in service.got if m.method == "GET"]) == 1
        # The cause is mended: what was paid for comes without a new order.
        service.jobs = []
        assert retry_failed(Clip.objects.all()) == Retried(waiting=1, asked_again=1, kept=0)
        work(2)
        assert one().state == ClipState.READY
        assert HostedJob.objects.get().cost == Decimal("0.2")
        assert (len(service.posts), len(service.taken)) == (1, 1)

    def test_whose_file_is_damaged_is_fetched_again(
        self, service: StandIn, one: Callable[[], Clip]
    ) -> None:
        faults = {
            "the connection broke": Answer(body=b"\0" * 5000, cut=1000),
            "it is a web page, not a video": Answer(body=b"<html>Busy</html>"),
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
        self, service: StandIn, one: Callable[[], Clip], settings, answer: Answer
    ) -> None:
        service.jobs, service.cancels = ["pending"], [answer]
        submit_waiting(60)
        late = timezone.now() - timedelta(seconds=settings.HOSTED_SECONDS_AT_MOST + 60)
        HostedJob.objects.update(submitted_at=late)
        due()
        poll_due(60)
        assert f"{service.name} had not finished" in one().error
        assert "Counted as spent: $0.20." in one().error
        cancelled = service.cancels_by and answer.status == 200
        assert HostedJob.objects.get().state == (JobState.FAILED if cancelled else JobState.STOPPED)
        if not service.cancels_by:
            assert f"{service.name} has no way to cancel an order." in one().error
            assert not service.cancelled
            return
        (message,) = service.cancelled
        assert message.path == service.cancel_path
        if answer.status == 200:
            assert "It was cancelled there." in one().error
        else:
            assert "It could not be cancelled there, which answers 400: " in one().error

    def test_of_a_clip_that_was_failed_meanwhile_is_cancelled_too(
        self, service: StandIn, one: Callable[[], Clip]
    ) -> None:
        submit_waiting(60)
        Clip.objects.update(state=ClipState.FAILED, error="An operator's.", leased_until=None)
        due()
        poll_due(60)
        job = HostedJob.objects.get()
        last = JobState.FAILED if service.cancels_by else JobState.STOPPED
        assert (job.state, job.cost) == (last, Decimal("0.2"))
        assert len(service.cancelled) == bool(service.cancels_by)
        assert ("It was cancelled there." in job.error) == bool(service.cancels_by)
        assert one().error == "An operator's."


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
@pytest.mark.parametrize("kind", STAND_INS, ids=lambda kind: kind.backend)
def test_what_a_service_could_never_make_is_refused_before_anything_is_sent(
    kind: type[StandIn], change: dict[str, Any], asked: dict[str, Any], said: str
) -> None:
    load_service(kind.backend).check(kind.settings, wish())
    check_refused(kind, change, asked, said)


def test_every_hosted_model_of_the_catalogue_is_a_draft_that_could_be_ordered(
    few: PromptSet,
) -> None:
    load_catalogue()
    versions = Version.objects.filter(slug__in=HOSTED_MODELS)
    assert versions.count() == len(HOSTED_MODELS)
    image = Image.new("RGB", (1280, 720))
    for version in versions:
        assert (version.state, version.budget) == ("draft", None)
        assert version.price_per_second
        check_version(version)  # as when it is activated
        backend = load_service(version.backend)
        for category in map(Category, version.categories):
            frame = image if category.task == "i2v" else None
            for seconds in (version.min_seconds, 5, version.max_seconds):
                conditions = Conditions("16:9", seconds)
                backend.check(
                    version.settings,
                    wish(conditions=conditions, audio=category.audio, image=frame),
                )
