"""The catalogue's open models, and what a version must meet before it may compete."""

import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from generation.backends import CannotRender
from generation.backends.diffusers import backend as diffusers
from generation.catalogue.categories import Category, Terms, nearest_aspect, resolution_class
from generation.catalogue.entries import CATALOGUES, check_version, load_catalogue, read_toml
from generation.models import PromptSet, Version
from generation.rendering.queue import queue_clips

pytestmark = pytest.mark.torch

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ENTRIES = [
    version
    for path in CATALOGUES
    for model in read_toml(path)["model"]
    for version in model["version"]
    if version["backend"] == "diffusers"
]
# None of the arena's aspects, and its authors support no other size.
ODD_SHAPES = ("cogvideox-2b", "cogvideox-5b")


def pinned(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, as an operator who chose a commit would leave them."""
    return {
        name: pinned(value) if isinstance(value, dict) else COMMIT if name == "revision" else value
        for name, value in settings.items()
    }


def tasks_of(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of each task of an entry."""
    settings = entry["settings"]
    common = {name: value for name, value in settings.items() if name not in diffusers.TASKS}
    tasks = {category.split("-")[0] for category in entry["categories"]}
    return {task: {**common, **settings.get(task, {})} for task in tasks}


@pytest.mark.django_db
def test_each_entry_is_a_draft_and_only_lacks_its_pin(subtests: pytest.Subtests) -> None:
    load_catalogue()
    assert ENTRIES
    for entry in ENTRIES:
        with subtests.test(entry["slug"]):
            only_lacks_its_pin(Version.objects.get(slug=entry["slug"]))


def only_lacks_its_pin(version: Version) -> None:
    assert version.state == "draft"
    with pytest.raises(CannotRender, match="must be pinned"):
        check_version(version)
    version.settings = pinned(version.settings)
    if version.slug in ODD_SHAPES:
        with pytest.raises(CannotRender, match="720x480 is not 16:9"):
            check_version(version)
    else:
        check_version(version)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["slug"])
def test_an_entry_says_only_what_the_installed_library_knows(entry: dict[str, Any]) -> None:
    import diffusers as library

    for settings in tasks_of(entry).values():
        pipeline = getattr(library, settings["pipeline"])
        known = set(inspect.signature(pipeline.__call__).parameters)
        assert set(settings["arguments"]) <= known - diffusers.RESERVED
        scheduler = dict(settings.get("scheduler", {}))
        name = scheduler.pop("class", None)
        if name is None:
            name = "UniPC" if "flow_shift" in scheduler else "FlowMatchEulerDiscrete"
            name = {"UniPC": "UniPCMultistepScheduler"}.get(name, f"{name}Scheduler")
        assert set(scheduler) <= set(inspect.signature(getattr(library, name)).parameters)


CATALOGUE = """
[[model]]
slug = "one"
name = "One"
lab = "Lab"
weights = "open"

  [[model.version]]
  slug = "one-a"
  name = "One A"
  state = "active"
  backend = "scenes"
  settings = { size = 32, fps = 8 }
  categories = ["t2v-silent", "i2v-audio"]
  width = 32
  height = 32
  fps = 8
  min_seconds = 1
  max_seconds = 2
"""
OPEN = """
settings = { pipeline = "WanPipeline", source = "lab/wan", revision = "", dtype = "bfloat16", \
offload = "none", width = 832, height = 480, fps = 16, frames = 81, \
arguments = { num_inference_steps = 50 } }
categories = ["t2v-silent"]
backend = "diffusers"
width = 832
height = 480
fps = 16
min_seconds = 5
max_seconds = 5
"""


def with_open(**values: str) -> str:
    """The catalogue with an open model in it; `values` replace what stands in its lines."""
    head = CATALOGUE.split("  backend =")[0]
    body = OPEN
    for old, new in values.items():
        line = next(line for line in OPEN.splitlines() if line.startswith(f"{old} ="))
        body = body.replace(f"\n{line}\n", f"\n{old} = {new}\n")
    return head + body


PINNED = OPEN.splitlines()[1].split(" = ", 1)[1].replace('revision = ""', f'revision = "{COMMIT}"')


@pytest.fixture
def load(db: None, tmp_path: Path) -> Callable[[str], str]:
    file = tmp_path / "catalogue.toml"

    def load(text: str) -> str:
        file.write_text(text)
        out = io.StringIO()
        call_command("load_catalogue", file, stdout=out)
        return out.getvalue()

    return load


class TestAVersionThatIsToBeActive:
    def test_may_be(self, load: Callable[[str], str]) -> None:
        load(CATALOGUE)
        load(with_open(settings=PINNED).replace('"one', '"two'))
        assert Version.objects.filter(state="active").count() == 2

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (with_open(), "one-a can't be active: .*lab/wan must be pinned"),
            (with_open(settings=PINNED, max_seconds="6"), "81 frames are too few for 6 s"),
            (with_open(settings=PINNED, fps="24"), "fps is 24 in the catalogue and 16 in its"),
            (with_open(settings=PINNED.replace("81", "80")), "can't make 80 frames"),
            (with_open(settings=PINNED, categories='["t2v-audio"]'), "makes no sound"),
            (with_open(settings=PINNED, categories='["i2v-silent"]'), "takes no reference image"),
            (
                CATALOGUE.replace("fps = 8", "fps = 4"),
                "4 frames a second; t2v-silent asks for 8 to",
            ),
            (
                CATALOGUE.replace("width = 32", "width = 57"),
                "57x32 pixels are of the class small; t2v-silent at 16:9 asks for 480p",
            ),
        ],
    )
    def test_must_be_able_to_make_its_clips(
        self, load: Callable[[str], str], text: str, words: str
    ) -> None:
        with pytest.raises(CommandError, match=words):
            load(text)
        assert not Version.objects.exists()
        load(text.replace('state = "active"', 'state = "draft"'))  # as a draft it may stand there

    def test_is_looked_at_by_the_admins_action_and_form(
        self, load: Callable[[str], str], admin_client: Client
    ) -> None:
        load(with_open().replace('state = "active"', 'state = "draft"'))
        version = Version.objects.get()
        answer = admin_client.post(
            reverse("admin:generation_version_changelist"),
            {"action": "activate", "_selected_action": [version.pk]},
            follow=True,
        )
        assert "must be pinned" in answer.content.decode()
        page = reverse("admin:generation_version_change", args=[version.pk])
        form = admin_client.get(page).context["adminform"].form
        values = {
            name: "" if form[name].value() is None else form[name].value() for name in form.fields
        }
        inline = {"children-TOTAL_FORMS": 0, "children-INITIAL_FORMS": 0}
        answer = admin_client.post(page, {**values, **inline, "state": "active"})
        assert "This version can&#x27;t be active" in answer.content.decode()
        assert Version.objects.get().state == "draft"


class TestAPrompt:
    """Aspect and length come with it; a version that would have to change them is refused."""

    def test_longer_than_the_version_makes(
        self, few: PromptSet, make_version: Callable[..., Version]
    ) -> None:
        make_version("brief", max_seconds=0.5, min_seconds=0.5)
        make_version("long", min_seconds=4)
        queued = queue_clips(Category.T2V_SILENT, few, limit=1)
        assert queued.added == 0
        assert queued.refused[0].endswith("It makes clips of 0.5 to 0.5 s, not of 1 s.")
        assert queued.refused[1].endswith("It makes clips of 4 to 10 s, not of 1 s.")

    def test_in_a_category_with_narrower_terms(
        self,
        few: PromptSet,
        make_version: Callable[..., Version],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from generation.catalogue import categories

        square = {"1:1": ("720p",), "16:9": ("720p",), "9:16": ("720p",)}
        narrow = {**categories.TERMS, Category.T2V_SILENT: Terms((24, 24), square)}
        monkeypatch.setattr(categories, "TERMS", narrow)
        make_version("slow")
        make_version("small", fps=24)
        make_version("fitting", fps=24, width=960, height=960)
        queued = queue_clips(Category.T2V_SILENT, few, limit=1)
        assert queued.added == 1
        assert queued.refused[0].endswith("8 frames a second; t2v-silent asks for 24 to 24.")
        assert "of the class small; t2v-silent at 1:1 asks for 720p" in queued.refused[1]
        assert queue_clips(Category.T2V_AUDIO, few, limit=1).refused == []


@pytest.mark.parametrize(
    ("width", "height", "aspect", "named"),
    [
        (832, 480, "16:9", "480p"),
        (720, 480, "16:9", "480p"),
        (960, 544, "16:9", "480p"),
        (704, 1280, "9:16", "720p"),
        (1360, 768, "16:9", "720p"),
        (1920, 1088, "16:9", "1080p"),
        (512, 512, "1:1", "small"),
    ],
)
def test_classes_and_aspects(width: int, height: int, aspect: str, named: str) -> None:
    assert nearest_aspect(width, height) == aspect
    assert resolution_class(width, height) == named
