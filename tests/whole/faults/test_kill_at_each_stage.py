"""At whatever stage of a render a worker is killed, its clip is made again, once, and is whole.

The stages are seen from outside: in the clip's row, in the memory map of the process that renders,
in the media folder. That process is stopped when it seems to be in the stage, looked at again while
it stands still, and killed. The test plays beat's part and wakes the worker up each second.
"""

import hashlib
import os
import signal
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import av
import pytest
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone
from PIL import Image

from generation.catalogue.categories import Category
from generation.catalogue.entries import CATALOGUE
from generation.catalogue.prompts import load_prompt_set
from generation.models import Clip, ClipState, Version, VersionState
from generation.rendering.queue import queue_clips
from generation.tasks import sweep_media, wake_workers
from tests.arena.voting.test_vote import battle_on, body
from tests.whole.demo import PATIENCE
from tests.whole.faults.worker import Worker, has_torch, state_of, until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads processes from /proc"),
]

TRIES = 6  # a stage of milliseconds may pass while the machine is busy elsewhere
END_AT_ONCE = 20  # seconds in which a worker is gone that was told to drop its clip

SCENE = """
slug = "one"
name = "One scene"
aspect = "1:1"
seconds = 2

[[prompt]]
key = "one-1"
text = "a big red circle bounces by day"
"""


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
def get_worker(home: Path, django_db_setup: None) -> Iterator[Callable[[], Worker]]:
    """The running worker, or a new one in the place of one that a test has ended."""
    workers: list[Worker] = []

    def get() -> Worker:
        if not workers or not workers[-1].alive():
            workers.append(Worker(home))
        return workers[-1]

    yield get
    for worker in workers:
        worker.kill()


@dataclass(frozen=True)
class Stage:
    """What to render, and how to see from outside that the render has come so far."""

    here: Callable[[Clip, int, Path], bool]  # the clip as it stands, the process, its folder
    backend: str
    settings: dict[str, object]
    fresh: bool = False  # must the process be one that has not loaded torch?


def colt(steps: int) -> dict[str, object]:
    """The settings of the first Colt of the catalogue, with so many steps."""
    models = tomllib.loads(CATALOGUE.read_text())["model"]
    settings = next(v for m in models for v in m["version"] if v["backend"] == "colt")["settings"]
    return {**settings, "steps": steps}


def claimed(clip: Clip, child: int, folder: Path) -> bool:
    return bool(clip.claimed_by) and (clip.step, clip.steps) == (0, 0) and not has_torch(child)


def loading(clip: Clip, child: int, folder: Path) -> bool:
    return (clip.step, clip.steps) == (0, 0) and has_torch(child)


def sampling(clip: Clip, child: int, folder: Path) -> bool:
    return 0 < clip.step < clip.steps


def encoding(clip: Clip, child: int, folder: Path) -> bool:
    return 0 < clip.step == clip.steps and not folder.exists()


def publishing(clip: Clip, child: int, folder: Path) -> bool:
    return (folder / "master.mkv").exists()


LARGE = {"size": 256, "fps": 24}
STAGES = {
    "claimed": Stage(claimed, "colt", colt(steps=2), fresh=True),
    "loading": Stage(loading, "colt", colt(steps=2), fresh=True),
    "sampling": Stage(sampling, "colt", colt(steps=10)),
    "encoding": Stage(encoding, "scenes", LARGE),
    "publishing": Stage(publishing, "scenes", LARGE),
}


@pytest.fixture
def queue(make_version: Callable[..., Version], tmp_path: Path) -> Callable[..., Clip]:
    """A new version's only clip, waiting."""

    def make(slug: str, backend: str, settings: dict[str, object]) -> Clip:
        version = make_version(slug, backend=backend, settings=settings)
        file = tmp_path / "scene.toml"
        file.write_text(SCENE)
        queued = queue_clips(Category.T2V_AUDIO, load_prompt_set(file)[0], [version])
        assert queued.refused == []
        return Clip.objects.get(version=version)

    return make


def is_ready(clip: Clip) -> bool:
    clip.refresh_from_db()
    assert clip.state != ClipState.FAILED, clip.error
    return clip.state == ClipState.READY


def stop_at(stage: Stage, clip: Clip, worker: Worker, child: int, media: Path) -> bool:
    """Stop the process that renders in this stage; False when the clip got ready unseen."""
    folder = media / "clips" / str(clip.pk) / str(clip.fence + 1)

    def here() -> bool:
        clip.refresh_from_db()
        return clip.state == ClipState.RENDERING and stage.here(clip, child, folder)

    end, waking = time.monotonic() + PATIENCE, 0.0
    while not is_ready(clip):
        assert time.monotonic() < end, f"no render in {PATIENCE} s:\n{worker.said()}"
        if time.monotonic() > waking:
            wake_workers()
            waking = time.monotonic() + 1
        if here():
            os.kill(child, signal.SIGSTOP)
            until("a stop", lambda: state_of(child)[0] in "TZ")
            if here():
                return True
            os.kill(child, signal.SIGCONT)
        time.sleep(0.002)  # leaves the processor to the render; every stage is longer
    return False


def catch(
    name: str, queue: Callable[..., Clip], get_worker: Callable[[], Worker], media: Path
) -> Clip:
    """A clip in the stage, its process stopped there."""
    stage = STAGES[name]
    for number in range(TRIES):
        worker = get_worker()
        # Before there is a clip: a process that has just rendered looks for the next by itself.
        child = worker.fresh_child() if stage.fresh else worker.child()
        clip = queue(f"{name}-{number}", stage.backend, stage.settings)
        if stop_at(stage, clip, worker, child, media):
            return clip
        Version.objects.filter(pk=clip.version_id).update(state=VersionState.PAUSED)
    raise AssertionError(
        f"None of {TRIES} clips was seen in the stage “{name}” before it was ready: make the "
        "stage last longer."
    )


def check_files(clip: Clip, fence: int) -> None:
    """All of one attempt, and every frame of them can be decoded."""
    names = {Path(file.name).name: file for file in (clip.master, clip.rendition, clip.poster)}
    assert set(names) == {"master.mkv", "rendition.mp4", "poster.jpg"}
    for name, file in names.items():
        assert file.name == f"clips/{clip.pk}/{fence}/{name}"
    for file in (clip.master, clip.rendition):
        with av.open(file.path) as made:
            rate = made.streams.video[0].average_rate
            assert rate is not None
            frames = sum(1 for _ in made.decode(video=0))
        assert frames == round(clip.prompt.seconds * rate)
        with av.open(file.path) as made:
            assert sum(frame.samples for frame in made.decode(audio=0)) > 0
    Image.open(clip.poster.path).load()
    digest = hashlib.sha256(Path(clip.rendition.path).read_bytes()).hexdigest()
    assert digest == clip.rendition_sha256


def check_sweep(clip: Clip, media: Path) -> int:
    """What dead attempts left behind goes after a day, the rest stays; returns how much went."""
    files = {path for path in (media / "clips" / str(clip.pk)).rglob("*") if path.is_file()}
    published = {Path(file.path) for file in (clip.master, clip.rendition, clip.poster)}
    Clip.objects.update(sweep_at=Now())
    assert sweep_media() == 0  # younger than a day
    long_ago = (timezone.now() - timedelta(days=2)).timestamp()
    for path in files:
        os.utime(path, (long_ago, long_ago))
    Clip.objects.update(sweep_at=Now())
    assert sweep_media() == len(files - published)
    assert {path for path in files if path.exists()} == published
    return len(files - published)


def check_pair(client: Client, clips: list[Clip]) -> None:
    """Voters get a pair of these clips, and their files."""
    battle = battle_on(client)
    assert battle is not None
    sides = [body(client.get(battle[side]["video"])) for side in ("a", "b")]
    found = {hashlib.sha256(video).hexdigest() for video in sides}
    assert found == {clip.rendition_sha256 for clip in clips}


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("encoding", False),
        ("publishing", False),
        ("loading", False),
        ("claimed", True),
        ("sampling", False),  # last: its model is loaded for the next test
    ],
)
def test_killed_while(
    name: str,
    whole: bool,  # is all of the worker killed, or the process that renders alone?
    queue: Callable[..., Clip],
    get_worker: Callable[[], Worker],
    media: Path,
    client: Client,
) -> None:
    rival = queue("rival", "scenes", {"size": 32, "fps": 8})
    get_worker()
    until("the rival", lambda: is_ready(rival), wake=True)
    clip = catch(name, queue, get_worker, media)
    worker = get_worker()
    assert (clip.fence, clip.attempts) == (1, 1)
    assert battle_on(client) is None
    if whole:
        worker.kill()
    else:
        os.kill(worker.child(), signal.SIGKILL)
    clip.refresh_from_db()
    assert clip.state == ClipState.RENDERING  # its own until the lease runs out
    get_worker()
    assert battle_on(client) is None
    until("the second attempt", lambda: is_ready(clip), wake=True)
    assert (clip.fence, clip.attempts, clip.error, clip.leased_until) == (2, 2, "", None)
    assert Clip.objects.filter(version=clip.version).count() == 1
    assert not Clip.objects.exclude(state=ClipState.READY).exists()
    check_files(clip, fence=2)
    scratch = media.parent / "scratch"
    until("the end of all scratch folders", lambda: not list(scratch.iterdir()))
    swept = check_sweep(clip, media)
    assert (1 <= swept <= 3) if name == "publishing" else swept == 0
    check_pair(client, [clip, rival])


@pytest.mark.parametrize(("way", "name"), [("drop", "sampling"), ("group", "encoding")])
def test_a_worker_that_drops_its_clip_hands_it_back(
    way: str, name: str, queue: Callable[..., Clip], get_worker: Callable[[], Worker], media: Path
) -> None:
    """SIGQUIT is what the demo sends; a supervisor may ask the whole group of processes to end."""
    clip = catch(name, queue, get_worker, media)
    worker = get_worker()
    child = worker.child()
    if way == "drop":
        worker.process.send_signal(signal.SIGQUIT)
    else:
        os.killpg(worker.process.pid, signal.SIGTERM)
    os.kill(child, signal.SIGCONT)
    worker.process.wait(timeout=END_AT_ONCE if way == "drop" else PATIENCE)
    until("the end of its child", lambda: state_of(child)[0] == "Z")
    get_worker()
    until("another attempt", lambda: is_ready(clip), wake=True)
    assert clip.fence <= 2
    assert clip.attempts == 1  # an attempt that was handed back, or finished, costs none
    assert clip.error == ""
    check_files(clip, fence=clip.fence)
    check_sweep(clip, media)


def test_a_worker_that_is_asked_to_end_finishes_its_clip(
    queue: Callable[..., Clip], get_worker: Callable[[], Worker], media: Path
) -> None:
    clip = catch("encoding", queue, get_worker, media)
    later = queue("later", "scenes", {"size": 32, "fps": 8})
    worker = get_worker()
    worker.process.send_signal(signal.SIGTERM)
    os.kill(worker.child(), signal.SIGCONT)
    worker.process.wait(timeout=PATIENCE)
    assert is_ready(clip)
    assert (clip.fence, clip.attempts, clip.error) == (1, 1, "")
    check_files(clip, fence=1)
    # It claims no other: that waits for another worker.
    later.refresh_from_db()
    assert (later.state, later.fence) == (ClipState.WAITING, 0)
    get_worker()
    until("the next clip", lambda: is_ready(later), wake=True)
    assert later.attempts == 1
