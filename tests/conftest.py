"""What many tests need: a small catalogue, prompts, ready clips, voters."""

import json
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db.backends.signals import connection_created
from django.db.models.functions import Now
from django.test import Client
from xdist.scheduler import LoadFileScheduling

from arena.models import Voter
from arena.settings import storage
from arena.voting.identity import COOKIE, cookie_value
from generation.catalogue.categories import Category
from generation.catalogue.prompts import load_prompt_set
from generation.media import profile
from generation.models import Clip, ClipState, Model, PromptSet, Version, VersionState
from generation.rendering.claims import claim_clip
from generation.rendering.leases import release
from generation.rendering.queue import queue_clips
from generation.rendering.render import render_claimed
from tests.servers import open_folder
from tests.whole.demo import RunningDemo, running_demo

SHARE_THE_DEMO = (
    "tests/whole/browser/test_walk.py",
    "tests/whole/faults/test_faults.py",
    "tests/whole/test_regression.py",
    "tests/whole/test_true_order.py",
)
# Importing torch and diffusers takes seconds: one process does so.
SHARE_TORCH = (
    "tests/generation/backends/test_colt.py",
    "tests/generation/backends/test_diffusers_backend.py",
    "tests/generation/backends/test_diffusers_families.py",
    "tests/generation/backends/test_open_models.py",
    "tests/generation/rendering/test_gpu_bench.py",
    "tests/generation/rendering/test_model_cache.py",
)
LONGEST = (
    *SHARE_THE_DEMO,
    "tests/whole/faults/test_kill_at_each_stage.py",
    *SHARE_TORCH,
    "tests/generation/hosted/test_money.py",
    "tests/whole/faults/test_worker.py",
)

SCENES = """
slug = "few"
name = "A few scenes"
aspect = "1:1"
seconds = 1

[[prompt]]
key = "few-1"
text = "a big red circle bounces by day"
tags = ["single-subject"]

[[prompt]]
key = "few-2"
text = "a small blue star slides right at night"
tags = ["single-subject"]

[[prompt]]
key = "few-3"
text = "a big green square falls by day"
tags = ["single-subject"]
image = "scene"
"""


@connection_created.connect
def _allow_truncate(connection, **_: object) -> None:
    """Tests with real transactions end by emptying all tables; nobody else may empty the ledger."""
    with connection.cursor() as cursor:
        cursor.execute("SET photofinish.allow_truncate = 'on'")


class ByFile(LoadFileScheduling):
    """In several processes a file stays in one; so do those with the demo, and those with torch.

    By name, as pytest-xdist 3.8 loses its own groups with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        groups = {"demo": SHARE_THE_DEMO, "torch": SHARE_TORCH}
        return next((name for name, files in groups.items() if file in files), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    config.option.loadscopereorder = False  # it would put those with the most tests first
    return ByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """What takes the longest comes first, so that no process ends long after the others."""
    yield
    last = len(LONGEST)
    turn = {file: number for number, file in enumerate(LONGEST)}
    items.sort(key=lambda item: turn.get(item.nodeid.partition("::")[0], last))


@pytest.fixture(scope="session")
def demo() -> Iterator[RunningDemo]:
    """The whole product, started once for all tests that need it; one prompt per category."""
    with open_folder() as folder, running_demo(folder / "home", prompts=1) as running:
        yield running


@pytest.fixture(autouse=True)
def quick_passwords(settings) -> None:
    """Half a second for each account is for those who guess passwords."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def media(settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each test has a media folder of its own."""
    folder = tmp_path_factory.mktemp("media")
    settings.STORAGES = {**settings.STORAGES, "default": storage(f"file://{folder}")}
    return folder


@pytest.fixture(autouse=True)
def small_canvas(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests see as much on a small picture, which is encoded at once."""
    if request.node.get_closest_marker("full_size") is None:
        canvases = {"16:9": (448, 256), "1:1": (256, 256), "9:16": (256, 448)}
        monkeypatch.setattr(profile, "PROFILE", replace(profile.PROFILE, canvases=canvases))


@pytest.fixture
def few(db, tmp_path: Path) -> PromptSet:
    """A prompt set of three: two text to video, one image to video."""
    file = tmp_path / "few.toml"
    file.write_text(SCENES)
    return load_prompt_set(file)[0]


@pytest.fixture
def make_version(db) -> Callable[..., Version]:
    def make(slug: str, **fields: object) -> Version:
        model, _ = Model.objects.get_or_create(
            slug="scenes", defaults={"name": "Scenes", "lab": "Photofinish", "weights": "open"}
        )
        values: dict[str, object] = {
            "name": slug.replace("-", " ").capitalize(),
            "state": VersionState.ACTIVE,
            "backend": "scenes",
            "settings": {"size": 32, "fps": 8},
            "categories": list(Category.values),
            "width": 32,
            "height": 32,
            "fps": 8,
            "min_seconds": 1,
            "max_seconds": 10,
        }
        return Version.objects.create(**{"model": model, "slug": slug, **values, **fields})

    return make


@pytest.fixture
def two_versions(make_version: Callable[..., Version]) -> tuple[Version, Version]:
    return make_version("sharp"), make_version(
        "tardy", settings={"size": 32, "fps": 8, "late": 0.05}
    )


@dataclass(frozen=True)
class MadeClip:
    """A clip that was rendered and encoded once in this process, for all tests that ask for it."""

    fields: dict[str, object]
    files: dict[str, tuple[str, bytes]]  # of each field: the file's name and its bytes


@pytest.fixture(scope="session")
def made_clips() -> dict[tuple[object, ...], MadeClip]:
    """By all that decides what a clip shows."""
    return {}


@pytest.fixture
def render_all(made_clips: dict[tuple[object, ...], MadeClip]) -> Callable[..., list[Clip]]:
    """Queue and render, in this process, everything that is missing in the categories.

    What another test had rendered is published with the same files: rows and files are real.
    """

    def render(prompt_set: PromptSet, *categories: Category) -> list[Clip]:
        for category in categories or tuple(Category):
            queue_clips(category, prompt_set)
        while clip := claim_clip("test"):
            key = _what_it_shows(clip)
            if made := made_clips.get(key):
                _publish_made(clip, made)
                continue
            assert render_claimed(clip), Clip.objects.get(pk=clip.pk).error
            clip.refresh_from_db()
            if clip.state == ClipState.READY:
                made_clips[key] = _made_of(clip)
        return list(Clip.objects.filter(state=ClipState.READY))

    return render


FILES = ("master", "rendition", "poster")
MEASURED = (
    "rendition_sha256", "width", "height", "fps", "seconds", "off_format", "profile", "loudness",
    "motion", "render_seconds", "encode_seconds", "hardware", "step", "steps",
)  # fmt: skip


def _what_it_shows(clip: Clip) -> tuple[object, ...]:
    version, prompt = clip.version, clip.prompt
    image = prompt.image and prompt.image.sha256
    return (
        version.backend, json.dumps(version.settings, sort_keys=True), prompt.text, prompt.aspect,
        prompt.seconds, image, clip.category, clip.seed, repr(profile.PROFILE),
    )  # fmt: skip


def _made_of(clip: Clip) -> MadeClip:
    files = {}
    for field in FILES:
        name = str(getattr(clip, field))
        with default_storage.open(name) as file:
            files[field] = PurePath(name).name, file.read()
    return MadeClip({field: getattr(clip, field) for field in MEASURED}, files)


def _publish_made(clip: Clip, made: MadeClip) -> None:
    names = {
        field: default_storage.save(f"clips/{clip.pk}/{clip.fence}/{name}", ContentFile(content))
        for field, (name, content) in made.files.items()
    }
    assert release(clip, state=ClipState.READY, error="", ready_at=Now(), **made.fields, **names)


@pytest.fixture
def votable(few: PromptSet, two_versions, render_all) -> list[Clip]:
    """Clips of two versions of both text prompts, silent: two battles for every voter."""
    return render_all(few, Category.T2V_SILENT)


@pytest.fixture
def make_voter(db) -> Callable[..., tuple[Client, Voter]]:
    """A browser with a voter's cookie; it checks the CSRF token as a real one would."""

    def make(simulated: bool = False) -> tuple[Client, Voter]:
        voter = Voter.objects.create(simulated=simulated)
        client = Client()
        client.cookies[COOKIE] = cookie_value(voter)
        return client, voter

    return make
