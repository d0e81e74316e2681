"""An operator loads the catalogue and prompt sets, as often as they like."""

import io
import json
import tomllib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, transaction
from django.test import Client
from PIL import Image

from generation.catalogue.categories import Category
from generation.catalogue.prompts import FOLDER, ImageRefused, check_image
from generation.models import Clip, Model, Prompt, PromptSet, ReferenceImage, Version
from generation.rendering.queue import queue_clips

pytestmark = pytest.mark.django_db

CATALOGUE = """
[[model]]
slug = "one"
name = "One"
lab = "Lab"
weights = "open"

  [[model.version]]
  slug = "one-a"
  name = "One A"
  codename = "grey-mare"
  state = "active"
  backend = "scenes"
  settings = { size = 32, fps = 8 }
  categories = ["t2v-silent"]
  width = 32
  height = 32
  fps = 8
  min_seconds = 1
  max_seconds = 2
  price_per_second = 0.25
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> Callable[..., str]:
    file = tmp_path / "catalogue.toml"

    def load(*changes: tuple[str, str]) -> str:
        text = CATALOGUE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file.write_text(text)
        out = io.StringIO()
        call_command("load_catalogue", file, stdout=out)
        return out.getvalue()

    return load


def test_loading_twice_changes_nothing(catalogue: Callable[..., str]) -> None:
    assert "2 created" in catalogue()
    assert "0 created, 0 changed, 2 as before" in catalogue()
    version = Version.objects.get()
    assert (version.model.name, version.categories) == ("One", ["t2v-silent"])


def test_a_change_is_taken_over(catalogue: Callable[..., str]) -> None:
    catalogue()
    assert "1 changed" in catalogue(('name = "One A"', 'name = "One Alpha"'))
    assert Version.objects.get().name == "One Alpha"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (('lab = "Lab"', 'laboratory = "Lab"'), "unknown field laboratory"),
        (('weights = "open"', 'weights = "leaked"'), "weights"),
        (('categories = ["t2v-silent"]', 'categories = ["t2v"]'), "categories"),
        (('slug = "one-a"', 'parent = "nobody"\n  slug = "one-a"'), "parent “nobody”"),
        (("[[model]]", "[[model"), "not valid TOML"),
    ],
)
def test_a_wrong_catalogue_is_refused_whole(
    catalogue: Callable[..., str], change: tuple[str, str], sentence: str
) -> None:
    with pytest.raises(CommandError, match=sentence):
        catalogue(change)
    assert not Model.objects.exists()


class TestAVersionWithClips:
    @pytest.fixture(autouse=True)
    def clips(self, catalogue: Callable[..., str], few: PromptSet) -> None:
        catalogue()
        assert queue_clips(Category.T2V_SILENT, few).added == 2

    def test_keeps_what_determines_them(self, catalogue: Callable[..., str]) -> None:
        with pytest.raises(CommandError, match="has clips, so its settings can't change"):
            catalogue(("size = 32", "size = 64"))
        catalogue(("price_per_second = 0.25", "price_per_second = 0.5"))  # this does not
        assert Version.objects.get().price_per_second == Decimal("0.5")

    def test_stays_paused_when_the_catalogue_is_loaded_again(
        self, catalogue: Callable[..., str]
    ) -> None:
        Version.objects.update(state="paused")
        catalogue()
        assert Version.objects.get().state == "paused"

    def test_is_frozen_in_the_database_itself(self) -> None:
        with pytest.raises(DatabaseError, match="frozen"), transaction.atomic():
            Version.objects.update(settings={"size": 64, "fps": 8})
        with pytest.raises(DatabaseError, match="frozen"), transaction.atomic():
            Prompt.objects.update(text="something else")

    def test_freezes_the_prompt_set(self, few: PromptSet, tmp_path: Path) -> None:
        file = tmp_path / "few.toml"
        file.write_text(file.read_text().replace("big red", "small red"))
        with pytest.raises(CommandError, match="frozen because clips were made"):
            call_command("load_prompts", file)

    def test_asking_again_adds_nothing(self, few: PromptSet) -> None:
        again = queue_clips(Category.T2V_SILENT, few)
        assert (again.added, again.existing) == (0, 2)


def test_what_a_backend_can_not_make_is_refused_in_words(
    catalogue: Callable[..., str], tmp_path: Path
) -> None:
    catalogue()
    file = tmp_path / "other.toml"
    file.write_text(
        'slug = "other"\nname = "Other"\naspect = "1:1"\nseconds = 1\n'
        '[[prompt]]\nkey = "other-1"\ntext = "a horse gallops along a beach"\n'
    )
    call_command("load_prompts", file)
    queued = queue_clips(Category.T2V_SILENT, PromptSet.objects.get())
    assert queued.added == 0
    assert "word 2 should be a size" in queued.refused[0]
    assert not Clip.objects.exists()


@pytest.mark.slow
def test_the_sets_of_the_repository_load_twice() -> None:
    for expected in ("created", "same"):
        out = io.StringIO()
        call_command("load_prompts", stdout=out)
        lines = out.getvalue().splitlines()
        assert len(lines) == len(list(FOLDER.glob("*.toml")))
        assert all(line.endswith(f"{expected}.") for line in lines)
    open_set = PromptSet.objects.get(slug="open")
    assert open_set.prompts.count() >= 120
    assert PromptSet.objects.get(slug="scenes").prompts.count() >= 200
    shipped = ReferenceImage.objects.all()
    assert {image.source for image in shipped} == {"shipped"}


def image_bytes(width: int, height: int, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 40, 40)).save(buffer, format, **options)
    return buffer.getvalue()


class TestAReferenceImage:
    def test_is_re_encoded_without_metadata_and_upright(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # lying on its side
        exif[0x010E] = "made by somebody"
        checked = check_image(image_bytes(40, 20, "JPEG", exif=exif), "side.jpg")
        assert (checked.width, checked.height) == (20, 40)
        assert b"made by somebody" not in checked.data
        with Image.open(io.BytesIO(checked.data)) as again:
            assert again.format == "WEBP"
            assert not again.getexif()

    @pytest.mark.parametrize(
        ("data", "sentence"),
        [
            (b"GIF89a not an image", "not a JPEG, PNG or WebP"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a JPEG, PNG or WebP"),
            (image_bytes(4001, 4000), "at most 16 megapixels"),
            (image_bytes(64, 64)[:-40], "damaged"),
        ],
    )
    def test_is_judged_by_its_content(self, data: bytes, sentence: str) -> None:
        with pytest.raises(ImageRefused, match=sentence):
            check_image(data, "picture.png")


@pytest.mark.parametrize(
    ("links", "ok"),
    [
        ('[{ label = "Paper", url = "https://example.org/a?b=c#d" }]', True),
        ('[{ label = "Intranet", url = "http://intranet/model" }]', True),
        ("[]", True),
        ('[{ label = "x", url = "javascript:alert(1)" }]', False),
        ('[{ label = "x", url = "JavaScript:alert(1)" }]', False),
        ('[{ label = "x", url = " javascript:alert(1)" }]', False),
        ('[{ label = "x", url = "java\\tscript:alert(1)" }]', False),
        ('[{ label = "x", url = "data:text/html,x" }]', False),
        ('[{ label = "x", url = "//example.org/" }]', False),
        ('[{ label = "x", url = "/admin/" }]', False),
        ('[{ label = "x", url = "https://" }]', False),
        ('[{ label = "x", url = "https://[::1" }]', False),
        ('[{ label = "", url = "https://example.org/" }]', False),
        ('[{ url = "https://example.org/" }]', False),
        ('[{ label = "x", url = "https://example.org/", onclick = "y" }]', False),
        ('["https://example.org/"]', False),
        ('"https://example.org/"', False),
    ],
)
class TestLinks:
    """Whatever is shown as a link leads to a page of the web."""

    def test_are_refused_at_load(self, catalogue: Callable[..., str], links: str, ok: bool) -> None:
        change = ('lab = "Lab"', f'lab = "Lab"\nlinks = {links}')
        if ok:
            catalogue(change)
            return
        said = r"The model one is not valid: links: (The link .* is none|Links are a list)"
        with pytest.raises(CommandError, match=said):
            catalogue(change)
        assert not Model.objects.exists()

    def test_are_refused_in_the_form(self, admin_client: Client, links: str, ok: bool) -> None:
        value = tomllib.loads(f"links = {links}")["links"]
        given = {
            "slug": "two", "name": "Two", "lab": "Lab", "weights": "open",
            "links": json.dumps(value), "versions-TOTAL_FORMS": 0, "versions-INITIAL_FORMS": 0,
        }  # fmt: skip
        answer = admin_client.post("/admin/generation/model/add/", given)
        assert answer.status_code == (302 if ok else 200)
        assert Model.objects.filter(slug="two").exists() == ok

    def test_that_are_stored_already_are_not_shown(
        self, client: Client, catalogue: Callable[..., str], links: str, ok: bool
    ) -> None:
        catalogue(('  codename = "grey-mare"\n', ""))
        value = tomllib.loads(f"links = {links}")["links"]
        Model.objects.update(links=value)
        page = client.get("/models/one/").text
        assert ("noopener" in page) == (ok and bool(value))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("width = 32", "width = 9000"), "width: 9000 is not from 16 to 8192"),
        (("height = 32", "height = 1"), "height: 1 is not from 16 to 8192"),
        (("\n  fps = 8", "\n  fps = 1e9"), "fps: 1000000000.0 is not from 1 to 240"),
        (("\n  fps = 8", "\n  fps = nan"), "fps: nan is not from 1 to 240"),
        (("min_seconds = 1", "min_seconds = 0"), "min_seconds: 0.0 is not from 0.1 to 60"),
        (("max_seconds = 2", "max_seconds = 3600"), "max_seconds: 3600.0 is not from 0.1 to 60"),
        (("max_seconds = 2", "max_seconds = 0.5"), "Its shortest clip has 1 s, its longest 0.5"),
        (("price_per_second = 0.25", "price_per_second = -1"), "price_per_second: Ensure"),
        (("size = 32", "size = 10000000"), "size is 10000000; give a whole number from 16 to"),
        (("size = 32", "size = 32, blur = inf"), "settings: A value is none that the database"),
        (("size = 32", "size = 32, blur = 1e9"), "blur is 1000000000.0; give a number from 0 to"),
        (("size = 32", 'size = 32, hold = "x"'), "hold is 'x'; give a whole number from 1 to"),
    ],
)
def test_numbers_beyond_reason_are_refused(
    catalogue: Callable[..., str], change: tuple[str, str], sentence: str
) -> None:
    with pytest.raises(CommandError, match=sentence):
        catalogue(change)
    assert not Version.objects.exists()
