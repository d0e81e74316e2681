"""An operator lets a paid service make clips: each is ordered once, whatever goes wrong."""

import hashlib
import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone
from redis import Redis

from generation.catalogue.categories import Category
from generation.hosted.orders import submit_waiting
from generation.hosted.results import poll_due
from generation.models import Clip, ClipState, HostedJob, JobState, PromptSet, Version
from generation.rendering.claims import count_claimable
from generation.rendering.queue import queue_clips, retry_failed
from generation.tasks import (
    poll_hosted,
    render_waiting,
    submit_hosted,
    sweep_media,
    wake_hosted,
)
from tests.generation.hosted.services.test_fal import FalStandIn
from tests.generation.hosted.stand_in import FILE, Answer, aged, due, serving, wait_of, work
from tests.generation.imports.test_import_clips import film

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

KEY = FalStandIn.keys["FAL_KEY"]
SETTINGS = FalStandIn.settings


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch, settings, tmp_path: Path) -> Iterator[FalStandIn]:
    """A service that makes clips at once, until told otherwise."""
    fal = FalStandIn()
    clip = film(tmp_path / "made.mp4", seconds=2, sound=True).read_bytes()
    settings.HOSTED_TIMEOUT_SECONDS = 2
    with serving(fal, clip):
        monkeypatch.setenv("FAL_KEY", KEY)
        monkeypatch.setenv("FAL_URL", fal.address)
        yield fal


@pytest.fixture
def rival(few: PromptSet, make_version: Callable[..., Version]) -> Version:
    return make_version(
        "rival", backend="fal", settings=SETTINGS, price_per_second=Decimal("0.1"), budget=10
    )


@pytest.fixture
def one(rival: Version, few: PromptSet) -> Callable[[], Clip]:
    """Ask for one clip; returns what becomes of it, read again."""
    assert queue_clips(Category.T2V_AUDIO, few, [rival], limit=1).added == 1
    return Clip.objects.get


class TestAnOrder:
    def test_becomes_a_clip(self, fal: FalStandIn, one: Callable[[], Clip], rival: Version) -> None:
        fal.jobs = [
            Answer(202, {"status": "IN_QUEUE", "queue_position": 3}),
            Answer(202, {"status": "IN_PROGRESS"}),
            Answer(body={"status": "COMPLETED"}),
        ]
        assert submit_waiting(60) == 1
        job, clip = HostedJob.objects.get(), one()
        assert (job.state, job.job_id, job.clip_fence) == (JobState.SUBMITTED, "r-1", clip.fence)
        assert clip.state == ClipState.RENDERING
        due()
        assert poll_due(60) == 0
        assert wait_of(HostedJob.objects.get()) == pytest.approx(5, abs=2)
        work()
        job, clip = HostedJob.objects.get(), one()
        assert (job.state, job.cost, job.error) == (JobState.COLLECTED, Decimal("0.2"), "")
        assert (clip.state, clip.hardware, clip.error) == (ClipState.READY, "fal, hosted", "")
        assert (clip.width, clip.leased_until) == (64, None)
        assert clip.loudness is not None
        assert clip.source_sha256 == hashlib.sha256(fal.files[0].body).hexdigest()
        (order,) = fal.posts
        body = order.body
        assert order.path == "/somebody/fast/text-to-video"
        assert body == {
            "prompt": clip.prompt.text,
            "duration": "2s",
            "aspect_ratio": "1:1",
            "generate_audio": True,
            "seed": clip.seed,
            "auto_fix": False,
        }
        assert job.request["body"] == body

    def test_carries_the_first_frame(self, fal: FalStandIn, rival: Version, few: PromptSet) -> None:
        queue_clips(Category.I2V_SILENT, few, [rival])
        work()
        (order,) = fal.posts
        body = order.body
        assert order.path == "/somebody/fast/image-to-video"
        assert body["image_url"].startswith("data:image/png;base64,")
        assert body["generate_audio"] is False
        assert "aspect_ratio" not in body
        kept = HostedJob.objects.get().request["body"]["image_url"]
        assert kept.startswith("data:image/png;base64,sha256:")
        assert Clip.objects.get().state == ClipState.READY

    def test_shows_the_key_to_the_queue_alone(
        self, fal: FalStandIn, one: Callable[[], Clip], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        fal.orders = [Answer(401, {"detail": f"Key {KEY} is not known, {KEY}!"})]
        work()
        del fal.orders[:]
        self.again()
        work()
        assert one().state == ClipState.READY
        for message in fal.got:
            assert ("Authorization" in message.headers) == (message.path != FILE)
        rows = [*HostedJob.objects.values(), *Clip.objects.values(), *Version.objects.values()]
        assert "[key] is not known" in str(rows)
        assert KEY not in str(rows)
        assert KEY not in caplog.text

    def again(self) -> None:
        out = io.StringIO()
        which = ("--category", "t2v-audio", "--prompt-set", "few", "--limit", "1")
        call_command(
            "render", "--retry-failed", "--no-wait", "--version-slug", "rival", *which, stdout=out
        )
        assert "1 failed clip waits again" in out.getvalue()

    def test_passes_through_the_tasks(
        self, fal: FalStandIn, one: Callable[[], Clip], settings
    ) -> None:
        with Redis.from_url(settings.CELERY_BROKER_URL) as broker:
            broker.delete("hosted")
            assert wake_hosted() == 1
            assert broker.llen("hosted") == 1
            assert submit_hosted() == 1
            assert wake_hosted() == 0  # its time has not come
            due()
            assert wake_hosted() == 1
            assert poll_hosted() == 1
            assert wake_hosted() == 0
            broker.delete("hosted")

    def test_is_left_to_hosted_workers_by_the_gpu(
        self, fal: FalStandIn, one: Callable[[], Clip]
    ) -> None:
        assert count_claimable() == 0
        assert render_waiting() == 0
        assert (one().state, one().attempts) == (ClipState.WAITING, 0)
        work()
        assert one().state == ClipState.READY
        assert len(fal.posts) == 1

    def test_that_is_out_outlives_the_claim(self, fal: FalStandIn, one: Callable[[], Clip]) -> None:
        """The clip is claimed again, as after a day without hosted workers: its job goes along."""
        submit_waiting(60)
        expired = timezone.now() - timedelta(seconds=1)
        Clip.objects.update(leased_until=expired, attempts=99)
        assert (render_waiting(), submit_waiting(60)) == (0, 0)
        job = HostedJob.objects.get()
        assert (job.state, job.clip_fence, one().fence) == (JobState.SUBMITTED, 2, 2)
        work()
        assert one().state == ClipState.READY
        assert len(fal.posts) == 1

    def test_is_collected_although_its_version_was_paused(
        self, fal: FalStandIn, one: Callable[[], Clip]
    ) -> None:
        submit_waiting(60)
        Version.objects.update(state="paused")
        work()
        assert one().state == ClipState.READY

    def test_waits_while_enough_are_out(
        self, fal: FalStandIn, rival: Version, few: PromptSet, settings
    ) -> None:
        settings.HOSTED_JOBS_AT_MOST = 1
        queue_clips(Category.T2V_AUDIO, few, [rival])
        assert (submit_waiting(60), submit_waiting(60)) == (1, 0)
        work()
        assert Clip.objects.filter(state=ClipState.READY).count() == 2

    def test_is_open_once_per_clip(self, fal: FalStandIn, one: Callable[[], Clip]) -> None:
        submit_waiting(60)
        with pytest.raises(IntegrityError, match="job_open_once"), transaction.atomic():
            HostedJob.objects.create(clip=one(), clip_fence=9, backend="fal")


class TestMoney:
    def test_ends_with_the_budget(self, fal: FalStandIn, rival: Version, few: PromptSet) -> None:
        Version.objects.update(budget=Decimal("0.30"))
        queue_clips(Category.T2V_AUDIO, few, [rival])
        work()
        failed = Clip.objects.get(state=ClipState.FAILED)
        assert failed.error == (
            "This clip would cost $0.20; rival has a budget of $0.30 and has spent $0.20. Raise "
            "the budget and try it again."
        )
        assert len(fal.posts) == 1
        assert Clip.objects.filter(state=ClipState.READY).count() == 1
        assert HostedJob.objects.get(clip=failed).cost is None

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"budget": None}, "rival has no budget and has spent $0.00"),
            ({"price_per_second": None}, "give the version a price_per_second"),
        ],
    )
    def test_needs_a_budget_and_a_price(
        self, fal: FalStandIn, one: Callable[[], Clip], change: dict[str, None], said: str
    ) -> None:
        Version.objects.update(**change)
        work()
        assert said in one().error
        assert not fal.got

    def test_needs_a_key(
        self, fal: FalStandIn, one: Callable[[], Clip], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("FAL_KEY")
        work()
        assert "set FAL_KEY" in one().error
        assert not fal.got

    def test_of_an_order_that_was_refused_is_not_spent(
        self, fal: FalStandIn, one: Callable[[], Clip]
    ) -> None:
        fal.orders = [Answer(422, {"detail": [{"msg": "duration is unknown"}]})]
        work()
        assert one().error == "fal refused the order with 422: duration is unknown."
        assert HostedJob.objects.get().cost is None
        assert len(fal.posts) == 1

    def test_of_a_failure_after_acceptance_is_spent(
        self, fal: FalStandIn, one: Callable[[], Clip]
    ) -> None:
        fal.jobs = [Answer(body={"status": "COMPLETED", "error": "Content policy"})]
        work()
        assert one().error == "fal failed: Content policy. Counted as spent: $0.20."
        assert HostedJob.objects.get().cost == Decimal("0.2")
        assert len(fal.posts) == 1


class TestBeforeAcceptance:
    def test_a_full_service_is_asked_again_when_it_says(
        self, fal: FalStandIn, one: Callable[[], Clip]
    ) -> None:
        fal.orders = [Answer(429, {"detail": "Slow down"}, {"Retry-After": "77"})]
        submit_waiting(60)
        job = HostedJob.objects.get()
        assert (job.state, job.cost) == (JobState.WAITING, None)
        assert "429: Slow down." in job.error
        assert wait_of(job) == pytest.approx(77, abs=2)
        assert submit_waiting(60) == 0  # not before its time
        assert len(fal.posts) == 1
        del fal.orders[:]
        due()
        work()
        assert one().state == ClipState.READY
        assert len(fal.posts) == 2

    def test_nobody_at_the_door_for_long_ends(
        self, fal: FalStandIn, one: Callable[[], Clip], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAL_URL", "http://127.0.0.1:9")
        work()
        assert one().error == "fal can't be reached (no connection). That was try 7, the last."
        assert HostedJob.objects.get().cost is None

    def test_nobody_at_the_door_is_tried_again(
        self, fal: FalStandIn, one: Callable[[], Clip], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAL_URL", "http://127.0.0.1:9")
        submit_waiting(60)
        job = HostedJob.objects.get()
        assert (job.state, job.error) == (
            JobState.WAITING,
            "fal can't be reached (no connection).",
        )
        monkeypatch.setenv("FAL_URL", fal.address)
        due()
        work()
        assert one().state == ClipState.READY


class TestNoAnswer:
    """Whatever is unclear may have been billed, and is never sent again by itself."""

    @pytest.mark.parametrize(
        ("answer", "why"),
        [
            (Answer(delay=1.0), "no answer came (nothing for 0.3 s)"),
            (Answer(504, {"detail": "Gateway"}), "it answered 504: Gateway"),
            (Answer(502, b"<html>nginx</html>"), "it answered 502: it gives no reason"),
            (Answer(500, b"Down for repairs"), "it answered 500: Down for repairs"),
        ],
    )
    def test_ends_in_words(
        self, fal: FalStandIn, one: Callable[[], Clip], settings, answer: Answer, why: str
    ) -> None:
        settings.HOSTED_TIMEOUT_SECONDS = 0.3
        fal.orders = [answer]
        assert submit_waiting(60) == 0
        job = HostedJob.objects.get()
        assert (job.state, one().state) == (JobState.SUBMITTING, ClipState.RENDERING)
        assert poll_due(60) == 0
        assert HostedJob.objects.get().state == JobState.SUBMITTING  # its lease runs
        work()
        assert one().error == (
            f"The order was sent to fal, {why}, and it may have been billed: look there before you "
            "order it again. Counted as spent: $0.20."
        )
        job.refresh_from_db()
        assert (job.state, job.cost) == (JobState.FAILED, Decimal("0.2"))
        assert len(fal.posts) == 1

    def test_of_a_worker_that_died_while_sending(
        self, fal: FalStandIn, one: Callable[[], Clip]
    ) -> None:
        submit_waiting(60)
        HostedJob.objects.update(state=JobState.SUBMITTING, status_url="", result_url="")
        work()
        assert "no answer came (the worker died)" in one().error
        assert len(fal.posts) == 1

    def test_is_not_forgotten_while_the_clip_is_claimed_anew(
        self, fal: FalStandIn, one: Callable[[], Clip]
    ) -> None:
        submit_waiting(60)
        HostedJob.objects.update(state=JobState.SUBMITTING)
        Clip.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
        assert submit_waiting(60) == 0
        job = HostedJob.objects.get()
        assert (job.state, job.clip_fence, one().fence) == (JobState.SUBMITTING, 2, 2)
        work()
        assert "may have been billed" in one().error
        assert len(fal.posts) == 1

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ({"hello": 1}, "it lacks request_id"),
            (b"<html>", "it lacks request_id"),
            (
                {
                    "request_id": "r",
                    "status_url": "http://elsewhere.example/s",
                    "response_url": "http://elsewhere.example/r",
                },
                "it names an address on another host",
            ),
        ],
    )
    def test_that_can_be_used_is_as_bad(
        self, fal: FalStandIn, one: Callable[[], Clip], answer: Any, said: str
    ) -> None:
        fal.orders = [Answer(200, answer)]
        work()
        assert f"fal took the order, but its answer can't be used: {said}" in one().error
        assert HostedJob.objects.get().cost == Decimal("0.2")
        assert len(fal.posts) == 1


class TestTheResult:
    def test_is_fetched_again_whatever_went_wrong(
        self, fal: FalStandIn, one: Callable[[], Clip]
    ) -> None:
        faults = {
            "the connection broke": Answer(body=b"\0" * 5000, cut=1000),
            "it is a web page, not a video": Answer(body=b" <!doctype html><p>Sign in"),
            "it is JSON, not a video": Answer(body={"detail": "Busy"}),
            "it is empty": Answer(body=b""),
            "its address answers 403 (the address may have expired)": Answer(403),
            "its address answers 500": Answer(500),
        }
        fal.files[:0] = faults.values()
        submit_waiting(60)
        for tries, said in enumerate(faults, start=1):
            due()
            assert poll_due(60) == 0
            job = HostedJob.objects.get()
            assert said in job.error
            assert (job.state, job.tries) == (JobState.SUBMITTED, tries)
            assert wait_of(job) == pytest.approx(10 * 2**tries, abs=2)
        due()
        assert poll_due(60) == 1
        assert one().state == ClipState.READY
        assert len(fal.posts) == 1

    def test_that_a_dead_worker_had_half_stored_is_swept(
        self, fal: FalStandIn, one: Callable[[], Clip], media: Path
    ) -> None:
        """Each look at a job has a folder of its own, though all share the clip's fence."""
        submit_waiting(60)
        job, clip = HostedJob.objects.get(), one()
        left = media / "clips" / str(clip.pk) / f"{clip.fence}-{job.fence + 1}" / "master.mkv"
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half")
        os.utime(left, (0, 0))
        HostedJob.objects.update(fence=F("fence") + 1)  # that worker's claim
        work()
        clip = one()
        assert (clip.state, clip.fence) == (ClipState.READY, 1)
        assert Path(clip.master.path).parent != left.parent
        assert sweep_media() == 0
        Clip.objects.update(sweep_at=Now())
        assert sweep_media() == 1
        assert not left.exists()
        assert Path(clip.master.path).exists()

    def test_that_a_dead_worker_was_fetching_leaves_no_folder(
        self, fal: FalStandIn, one: Callable[[], Clip], settings
    ) -> None:
        for sweep in (poll_hosted, sweep_media):
            left = Path(settings.SCRATCH) / "hosted-77-of-a-dead-worker"
            left.mkdir(parents=True, exist_ok=True)
            (left / "result.mp4").write_bytes(b"half")
            sweep()
            assert not left.exists()

    def test_that_never_comes_ends_in_words(self, fal: FalStandIn, one: Callable[[], Clip]) -> None:
        fal.files = [Answer(404, {})]
        work()
        assert one().state == ClipState.RENDERING
        assert HostedJob.objects.get().tries == 12
        assert wait_of(HostedJob.objects.get()) < 0  # `due` came after the longest pause, 900 s
        aged(hours=25)
        work(1)
        assert one().error == (
            "The result of r-1 can't be fetched: its address answers 404 (the address may have "
            "expired). So it has been for a day. Counted as spent: $0.20. “Retry failed” asks for "
            "it there again and orders nothing."
        )
        assert HostedJob.objects.get().state == JobState.STOPPED
        assert len(fal.posts) == 1

    @pytest.mark.parametrize(
        "kind", ["binary/octet-stream", "application/mp4", "video/x-m4v", "text/html", ""]
    )
    def test_is_taken_whatever_its_type_is_called(
        self, fal: FalStandIn, one: Callable[[], Clip], kind: str
    ) -> None:
        fal.files[0].headers = {"Content-Type": kind}
        work(1)
        assert one().state == ClipState.READY

    def test_is_named_by_its_bytes(
        self, fal: FalStandIn, one: Callable[[], Clip], tmp_path: Path
    ) -> None:
        made = film(tmp_path / "made.mkv", seconds=2, sound=True, container="matroska")
        fal.files = [Answer(body=made.read_bytes())]  # said to be video/mp4
        work(1)
        assert str(one().master).endswith(".mkv")

    def test_that_is_no_video_is_final(self, fal: FalStandIn, one: Callable[[], Clip]) -> None:
        fal.files = [Answer(body=b"\x89PNG" * 500)]
        work()
        assert "What fal made can't be used" in one().error
        assert fal.fetched == 1

    def test_that_is_no_clip_is_final(
        self, fal: FalStandIn, one: Callable[[], Clip], tmp_path: Path
    ) -> None:
        wide = film(tmp_path / "wide.mp4", seconds=2, size=(128, 64), sound=True)
        fal.files = [Answer(body=wide.read_bytes())]
        work()
        assert "What fal made can't be used: result.mp4 is 128x64, not 1:1" in one().error
        assert fal.fetched == 1
        assert HostedJob.objects.get().cost == Decimal("0.2")

    def test_that_the_model_refused_is_final(
        self, fal: FalStandIn, one: Callable[[], Clip]
    ) -> None:
        fal.results = [Answer(422, {"detail": [{"msg": "Unsafe\0 content", "type": "policy"}]})]
        work()
        assert one().error == "fal failed: Unsafe content. Counted as spent: $0.20."

    def test_that_is_never_done_is_given_up(
        self, fal: FalStandIn, one: Callable[[], Clip], settings
    ) -> None:
        fal.jobs = [Answer(202, {"status": "IN_PROGRESS"})]
        submit_waiting(60)
        work(3)
        assert one().state == ClipState.RENDERING
        late = timezone.now() - timedelta(seconds=settings.HOSTED_SECONDS_AT_MOST + 60)
        HostedJob.objects.update(submitted_at=late)
        work(1)
        assert one().error == (
            "fal had not finished r-1 after 7200 s and is asked no more. It was cancelled there. "
            "Counted as spent: $0.20."
        )
        assert len(fal.posts) == 1

    def test_is_asked_for_while_the_service_stumbles(
        self, fal: FalStandIn, one: Callable[[], Clip]
    ) -> None:
        fal.jobs = [
            Answer(500, {}), Answer(429, {}), Answer(200, b"no json"), Answer(503, b"<html>"),
            Answer(200, {"status": "NEW"}), Answer(body={"status": "COMPLETED"}),
        ]  # fmt: skip
        submit_waiting(60)
        due()
        poll_due(60)
        assert HostedJob.objects.get().error == (
            "fal does not say how far it is: it answers 500: {}."
        )
        work()
        assert one().state == ClipState.READY

    def test_of_a_clip_that_was_failed_meanwhile_is_left(
        self, fal: FalStandIn, one: Callable[[], Clip]
    ) -> None:
        submit_waiting(60)
        Clip.objects.update(state=ClipState.FAILED, error="An operator's.", leased_until=None)
        work()
        assert HostedJob.objects.get().state == JobState.FAILED
        assert one().error == "An operator's."


@pytest.mark.django_db(transaction=True)
def test_many_workers_order_each_clip_once(fal: FalStandIn, rival: Version, few: PromptSet) -> None:
    for category in (Category.T2V_AUDIO, Category.T2V_SILENT):
        queue_clips(category, few, [rival])
    Version.objects.update(budget=Decimal("0.65"))  # for three of four
    start = threading.Barrier(4)

    def run() -> None:
        start.wait()
        submit_waiting(60)
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fal.posts) == 3
    assert len({m.body["prompt"] + str(m.body["generate_audio"]) for m in fal.posts}) == 3
    assert Clip.objects.filter(error__contains="a budget of $0.65").count() == 1
    due()
    assert poll_due(60) == 3
    assert min(Clip.objects.filter(state="ready").values_list("render_seconds", flat=True)) > 0


@pytest.mark.django_db(transaction=True)
def test_a_late_worker_changes_nothing_but_notes_where_a_retry_asks(
    fal: FalStandIn, one: Callable[[], Clip]
) -> None:
    base = f"{fal.address}/somebody/fast/requests/r-late"
    taken = {"request_id": "r-late", "status_url": f"{base}/status", "response_url": base}
    fal.orders = [Answer(200, taken, delay=1.0)]

    def run() -> None:
        submit_waiting(60)
        connection.close()

    late = threading.Thread(target=run)
    late.start()
    while not fal.posts:
        time.sleep(0.02)
    due()  # its lease has run out before the answer comes
    assert poll_due(60) == 0
    before = HostedJob.objects.get()
    assert (before.state, before.cost) == (JobState.FAILED, Decimal("0.2"))
    late.join()
    after = HostedJob.objects.get()
    assert (after.state, after.error, after.fence) == ("stopped", before.error, before.fence)
    assert (before.job_id, after.job_id) == ("", "r-late")
    assert one().state == ClipState.FAILED
    assert retry_failed(Clip.objects.all()).asked_again == 1
    work(2)
    assert one().state == ClipState.READY
    assert len(fal.posts) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"durations": {"1": "1"}, "sound": "never"}, "It makes no sound"),
        ({"durations": {}}, "It makes no length that is listed; 1 s were asked for."),
        ({"aspects": ["16:9"]}, "It makes 16:9 from text, not 1:1."),
        ({"text_model": "../secret"}, "setting text_model is '../secret'"),
        ({"text_model": None}, "its settings have no text_model"),
        ({"arguments": {"seed": 1}}, "The argument seed is set by the arena"),
        ({"colour": 1}, "Unknown fal setting colour"),
        ({"sound": "yes"}, "it can be switch, always, never"),
    ],
)
def test_what_it_could_never_make_is_refused_in_words(
    few: PromptSet, make_version: Callable[..., Version], change: dict[str, Any], said: str
) -> None:
    version = make_version("rival", backend="fal", settings={**SETTINGS, **change})
    queued = queue_clips(Category.T2V_AUDIO, few, [version])
    assert queued.added == 0
    assert said in queued.refused[0]
