"""A GPU worker reports itself, keeps its time, and stops when an operator says so."""

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from generation.catalogue.categories import Category
from generation.models import Clip, ClipState, PromptSet, Version, Worker
from generation.rendering.queue import queue_clips
from generation.rendering.workers import report
from generation.tasks import render_waiting
from tests.generation.tiny_clips import tiny
from tests.whole.demo import PATIENCE
from tests.whole.faults import worker as faults
from tests.whole.faults.worker import until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads processes from /proc"),
]

FOREVER = 1000  # steps, the most that a version may ask for


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worker")


@pytest.fixture(autouse=True)
def media(settings, home: Path) -> Path:
    """One media folder for the file: the worker outlives a test."""
    folder = home / "media"
    folder.mkdir(exist_ok=True)
    storages = {name: dict(value) for name, value in settings.STORAGES.items()}
    storages["default"]["OPTIONS"] = {"location": str(folder)}
    settings.STORAGES = storages
    return folder


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.generation.backends.tiny_pipelines import save_wan

    return save_wan(tmp_path_factory.mktemp("weights") / "wan", image=False)


@pytest.fixture(scope="module")
def worker(home: Path, django_db_setup: None) -> Iterator[faults.Worker]:
    running = faults.Worker(home, HF_HUB_OFFLINE="1")
    yield running
    running.kill()


@pytest.fixture
def queue(make_version: Callable[..., Version], few: PromptSet, wan: Path) -> Callable[..., Clip]:
    """The only clip of a new version of one tiny pipeline, with so many steps."""

    def make(slug: str, steps: int) -> Clip:
        settings: dict[str, Any] = tiny("WanPipeline", wan)
        settings["arguments"] = {**settings["arguments"], "num_inference_steps": steps}
        version = make_version(
            slug, backend="diffusers", settings=settings, categories=["t2v-silent"],
            width=64, height=64, fps=16,
        )  # fmt: skip
        queued = queue_clips(Category.T2V_SILENT, few, [version], limit=1)
        assert queued.refused == []
        return Clip.objects.get(version=version)

    return make


def state(clip: Clip) -> str:
    clip.refresh_from_db()
    return clip.state


def warm_up(worker: faults.Worker, queue: Callable[..., Clip]) -> None:
    """One clip, so that the libraries and the model are loaded; then the worker is idle.

    Its queue is empty then: what it takes next comes with the limits of `wake`. Of two messages
    the second comes after the one that a worker sends to itself at the end of a clip.
    """
    clip = queue("before", steps=2)
    until("a clip before", lambda: state(clip) == ClipState.READY, wake=True)
    for _ in range(2):
        sent = render_waiting.delay().id
        until("an idle worker", lambda sent=sent: f"[{sent}] succeeded" in worker.all_said())


def wake(soft: float, hard: float) -> None:
    """Wake an idle worker up for one clip under limits of its own, in seconds."""
    assert (render_waiting.soft_time_limit, render_waiting.time_limit) == (3600, 3660)
    render_waiting.apply_async(soft_time_limit=soft, time_limit=hard)


def in_its_steps(clip: Clip) -> bool:
    return state(clip) == ClipState.RENDERING and clip.step > 0


def loads(worker: faults.Worker) -> int:
    return worker.all_said().count("loading a model")


def test_an_idle_worker_reports_itself(
    worker: faults.Worker, queue: Callable[..., Clip], admin_client: Client
) -> None:
    until("a report", lambda: Worker.objects.exists())
    reported = Worker.objects.get()
    assert reported.name.startswith("gpu@")
    assert reported.hardware
    queue("quick", steps=1)  # the page says nothing of workers while no clip was ever asked for
    page = admin_client.get("/admin/progress/").text
    assert reported.name in page
    assert "<strong>1</strong> active worker" in page


def test_a_clip_carries_what_it_took(worker: faults.Worker, queue: Callable[..., Clip]) -> None:
    clip = queue("quick", steps=2)
    until("the clip", lambda: state(clip) == ClipState.READY, wake=True)
    assert (clip.step, clip.steps) == (2, 2)
    assert clip.render_seconds is not None
    assert clip.render_seconds > 0
    assert clip.hardware
    assert clip.claimed_by.startswith("gpu@")
    assert (clip.gpu_seconds, clip.gpu_peak_bytes) == (None, None)  # there is no GPU here


def test_what_takes_too_long_fails_in_words_and_its_model_stays(
    worker: faults.Worker, queue: Callable[..., Clip]
) -> None:
    warm_up(worker, queue)
    child, loaded = worker.child(), loads(worker)
    endless = queue("endless", steps=FOREVER)
    wake(soft=3, hard=PATIENCE)
    until("the limit", lambda: state(endless) == ClipState.FAILED)
    assert endless.attempts == 1
    said = rf"stopped at step \d+ of {FOREVER} after \d+ s: raise RENDER_SECONDS_AT_MOST"
    assert re.search(said, endless.error)
    assert endless.failed_at is not None
    after = queue("again", steps=2)
    until("a clip after", lambda: state(after) == ClipState.READY, wake=True)
    assert (worker.child(), loads(worker)) == (child, loaded)
    until("an empty scratch folder", lambda: not list(worker.scratch.iterdir()))


def test_a_process_that_does_not_stop_is_killed_and_its_clip_made_by_another(
    worker: faults.Worker, queue: Callable[..., Clip]
) -> None:
    warm_up(worker, queue)
    clip = queue("stuck", steps=150)
    wake(soft=5, hard=6)
    until("a step", lambda: in_its_steps(clip))
    child = worker.child()
    os.kill(child, signal.SIGSTOP)  # it hangs, whatever is asked of it
    until("the kill", lambda: faults.state_of(child)[0] == "Z")
    until("the second attempt", lambda: state(clip) == ClipState.READY, wake=True)
    assert (clip.fence, clip.attempts, clip.error) == (2, 2, "")
    until("an empty scratch folder", lambda: not list(worker.scratch.iterdir()))


def test_an_operator_cancels_what_waits_and_what_runs(
    worker: faults.Worker, queue: Callable[..., Clip], admin_client: Client
) -> None:
    running = queue("endless", steps=FOREVER)
    until("a step", lambda: in_its_steps(running), wake=True)
    waiting = queue("waiting", steps=2)
    child, clips = worker.child(), [str(running.pk), str(waiting.pk)]
    page, list_page = "admin:generation_clip_change", reverse("admin:generation_clip_changelist")
    said = admin_client.post(
        list_page, {"action": "cancel_chosen", "_selected_action": clips}, follow=True
    ).text
    assert "Cancelled 2 of the selected clips" in said
    for clip in (running, waiting):
        assert state(clip) == ClipState.FAILED
        assert clip.error == "Cancelled by admin."
        assert clip.failed_at is not None
        assert "Cancelled by admin." in admin_client.get(reverse(page, args=[clip.pk])).text
    # The process that ran the endless clip has let go of it, and renders another.
    other = queue("other", steps=2)
    until("another clip", lambda: state(other) == ClipState.READY, wake=True)
    assert worker.child() == child
    assert state(running) == state(waiting) == ClipState.FAILED  # they do not come back
    assert (running.fence, waiting.fence) == (1, 0)
    admin_client.post(list_page, {"action": "retry_failed", "_selected_action": clips[1:]})
    until("the clip after all", lambda: state(waiting) == ClipState.READY, wake=True)
    assert (waiting.attempts, waiting.error, waiting.failed_at) == (1, "", None)


def test_a_worker_that_ended_in_peace_is_no_longer_listed(worker: faults.Worker) -> None:
    report(f"gpu@{socket.gethostname()}")  # what it says itself every 10 s
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(timeout=60)
    assert not Worker.objects.exists()
