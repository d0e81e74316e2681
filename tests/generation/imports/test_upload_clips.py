"""An operator sends clips made elsewhere through the site; a worker imports them row by row."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from pathlib import Path

import pytest
from django.conf import settings as current
from django.contrib.auth.models import Permission, User
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from redis import Redis

from generation.messages import count_waiting
from generation.models import Clip, ClipState, PromptSet, Upload, UploadState, Version
from generation.tasks import import_waiting, sweep_media, wake_importers
from tests.generation.imports.test_import_clips import film

pytestmark = pytest.mark.django_db

PAGE = "/admin/uploads/"
HEADER = "file,version,prompt,category,seed_slot\n"
A = "a.mp4,rival-1,few-1,t2v-silent,\n"


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("films")
    return {
        "whole": film(folder / "whole.mp4", sound=True).read_bytes(),
        "short": film(folder / "short.mp4", seconds=0.5).read_bytes(),
    }


@pytest.fixture
def rival(few: PromptSet, make_version: Callable[..., Version]) -> Version:
    return make_version("rival-1", backend="imported", settings={"service": "somebody's"})


@pytest.fixture
def operator(db: None) -> User:
    user = User.objects.create_user("olga", password="x", is_staff=True)
    wanted = ("add_clip", "view_clip")
    user.user_permissions.set(Permission.objects.filter(codename__in=wanted))
    return user


@pytest.fixture
def send(client: Client, operator: User) -> Callable[..., str]:
    """Send a manifest with files through the form; returns the page that follows."""
    client.force_login(operator)

    def send(manifest: str | bytes, **files: bytes) -> str:
        content = manifest.encode() if isinstance(manifest, str) else manifest
        given = [SimpleUploadedFile(f"{name}.mp4", body) for name, body in files.items()]
        data = {
            "all-manifest": SimpleUploadedFile("list.csv", content), "all-clips": given, "all": "1",
        }  # fmt: skip
        return unescape(client.post(PAGE, data, follow=True).text)

    return send


def import_next() -> bool:
    """Take the message that beat sends now, as the worker does; False if there is none to do."""
    return import_waiting()


def page_of(client: Client) -> str:
    return unescape(client.get(f"{PAGE}{Upload.objects.get().pk}/").text)


def stored(media: Path) -> list[Path]:
    return [path for path in (media / "uploads").rglob("*") if path.is_file()]


def long_ago() -> object:
    return timezone.now() - timedelta(days=2)


def test_each_row_of_a_manifest_is_reported(
    client: Client,
    rival: Version,
    films: dict[str, bytes],
    media: Path,
    send: Callable[..., str],
) -> None:
    lines = (
        "clips/a.mp4,rival-1,few-1,t2v-audio,\n",
        "clips/b.mp4,rival-1,few-2,t2v-silent,\n",
        "gone.mp4,rival-1,few-2,t2v-silent,1\n",
        "clips/a.mp4,rival-1,few-1,t2v-audio,0\n",
    )
    page = send(HEADER + "".join(lines), a=films["whole"], b=films["short"], c=b"no film")
    assert "Ignored because no line of the manifest lists them: c.mp4." in page
    assert "<strong>4</strong> waiting" in page
    assert 'http-equiv="refresh"' in page
    assert len(stored(media)) == 2
    assert not Clip.objects.exists()
    assert import_next()
    page = page_of(client)
    assert "a.mp4 as few-1, t2v-audio, slot 0, of rival-1" in page
    assert "<strong>3</strong> waiting" in page
    while import_next():
        pass
    page = page_of(client)
    assert "<strong>1</strong> imported" in page
    assert "<strong>3</strong> rejected" in page
    assert "b.mp4 lasts 0.50 s, too short" in page
    assert "There is no file “gone.mp4” beside the manifest" in page
    assert "Line 2 already asks for this clip. Keep one of the two." in page
    assert 'http-equiv="refresh"' not in page
    clip = Clip.objects.get()
    assert clip.state == ClipState.READY
    assert clip.source_sha256 == hashlib.sha256(films["whole"]).hexdigest()
    assert not any((media / "uploads").iterdir())
    assert Upload.objects.get().state == UploadState.DONE
    assert "olga" in client.get(PAGE).text


def test_one_clip_by_its_fields_and_again(
    client: Client, rival: Version, films: dict[str, bytes], operator: User, media: Path
) -> None:
    client.force_login(operator)

    def post(**changes: str) -> str:
        fields = {
            "version": "rival-1", "prompt": "few-2", "category": "t2v-silent", "seed_slot": "1",
            "seconds_taken": "41.5", "hardware": "one H100", **changes,
        }  # fmt: skip
        data = {f"one-{name}": value for name, value in fields.items()}
        file = SimpleUploadedFile("take 1.mp4", films["whole"])
        response = client.post(PAGE, {**data, "one-file": file, "one": "1"}, follow=True)
        while import_next():
            pass
        last = response.redirect_chain[-1][0] if response.redirect_chain else PAGE
        return unescape(client.get(last).text if response.redirect_chain else response.text)

    assert "take 1.mp4 as few-2, t2v-silent, slot 1, of rival-1" in post()
    clip = Clip.objects.get()
    assert (clip.state, clip.seed_slot) == (ClipState.READY, 1)
    assert (clip.render_seconds, clip.hardware) == (41.5, "one H100")
    assert "<strong>1</strong> already there" in post()
    assert "few-2 is not for i2v-silent" in post(category="i2v-silent")
    assert "Select a valid choice" in post(version="nobody")
    assert "The seconds_taken is “-1.0”" in post(seconds_taken="-1")
    assert Clip.objects.count() == 1
    assert stored(media) == []


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        ("file,version\na.mp4,rival-1\n", "list.csv lacks the column prompt, category"),
        (b"\xff\xfe", "list.csv is not UTF-8"),
        (HEADER, "list.csv lists no clips"),
        (HEADER + "x/a.mp4,r,p,c,\ny/a.mp4,r,q,c,\n", "x/a.mp4 and y/a.mp4 have the same name"),
        (
            HEADER + A + "#" * (1 << 20),
            "list.csv is larger than 1 MB. Check that it is the manifest.",
        ),
    ],
)
def test_a_broken_manifest_stores_nothing(
    send: Callable[..., str], media: Path, manifest: str | bytes, sentence: str
) -> None:
    assert sentence in send(manifest, a=b"a film")
    assert not Upload.objects.exists()
    assert stored(media) == []


def test_two_files_of_one_name_are_refused(client: Client, operator: User) -> None:
    client.force_login(operator)
    twice = [SimpleUploadedFile("a.mp4", b"x"), SimpleUploadedFile("a.mp4", b"y")]
    manifest = SimpleUploadedFile("list.csv", (HEADER + A).encode())
    page = client.post(PAGE, {"all-manifest": manifest, "all-clips": twice}).text
    assert "Two files have the name a.mp4. Rename one" in page
    assert not Upload.objects.exists()


def test_too_much_at_once_is_one_sentence(settings, client: Client, operator: User) -> None:
    client.force_login(operator)
    sent = {
        "all-manifest": SimpleUploadedFile("list.csv", (HEADER + A).encode()),
        "all-clips": [SimpleUploadedFile(f"{name}.mp4", b"x" * 2_000_000) for name in "ab"],
    }
    settings.UPLOAD_MB_AT_MOST = 3
    response = client.post(PAGE, sent)
    assert response.status_code == 413
    assert "This upload has 4 MB, and the limit is 3 MB. Upload it in parts" in response.text
    settings.UPLOAD_MB_AT_MOST = 2000
    settings.UPLOAD_FILES_AT_MOST = settings.DATA_UPLOAD_MAX_NUMBER_FILES = 2
    response = client.post(PAGE, sent)
    assert response.status_code == 413
    assert "This upload has more than 2 files" in response.text
    assert not Upload.objects.exists()


def test_only_operators_who_may_add_clips_send_any(operator: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    upload = Upload.objects.create(by="olga")
    for address in (PAGE, f"{PAGE}{upload.pk}/"):
        assert browser.get(address).url == f"/admin/login/?next={address}"
    assert browser.post(PAGE).url == f"/admin/login/?next={PAGE}"
    other = User.objects.create_user("paul", password="x", is_staff=True)
    browser.force_login(other)
    for address in (PAGE, f"{PAGE}{upload.pk}/"):
        assert browser.get(address).status_code == 403
    assert browser.post(PAGE).status_code == 403
    assert PAGE not in browser.get("/admin/").text
    browser.force_login(operator)
    assert browser.get(PAGE).status_code == 200
    assert browser.post(PAGE, {"all": "1"}).status_code == 403  # without the form's token
    token = browser.cookies["csrftoken"].value
    assert browser.post(PAGE, {"all": "1", "csrfmiddlewaretoken": token}).status_code == 200
    assert browser.delete(PAGE).status_code == 405
    assert browser.post(f"{PAGE}{upload.pk}/", headers={"X-CSRFToken": token}).status_code == 405
    for address in ("/admin/", "/admin/generation/clip/"):
        assert f'href="{PAGE}"' in browser.get(address).text


def test_a_row_whose_worker_was_killed_is_taken_up_again(
    client: Client, rival: Version, films: dict[str, bytes], send: Callable[..., str]
) -> None:
    send(HEADER + A, a=films["whole"])
    soon = timezone.now() + timedelta(seconds=30)
    Upload.objects.update(fence=1, attempts=1, leased_until=soon)
    assert wake_importers() == 0
    assert not import_next(), "somebody is at it"
    Upload.objects.update(leased_until=long_ago())
    assert import_next()
    assert not import_next(), "the same message again"
    assert "<strong>1</strong> imported" in page_of(client)


def test_a_row_that_kills_every_worker_is_refused_in_words(
    client: Client, rival: Version, send: Callable[..., str], media: Path
) -> None:
    send(HEADER + A, a=b"poison")
    Upload.objects.update(fence=3, attempts=3, leased_until=long_ago())
    assert import_next()
    assert "The worker died in each of 3 attempts" in page_of(client)
    assert stored(media) == []


def test_a_clip_in_other_hands_is_waited_for(
    client: Client,
    rival: Version,
    few: PromptSet,
    films: dict[str, bytes],
    send: Callable[..., str],
) -> None:
    Clip.objects.create(
        version=rival, prompt=few.prompts.get(key="few-1"), category="t2v-silent", seed=1,
        state=ClipState.RENDERING, leased_until=timezone.now() + timedelta(seconds=60), fence=1,
    )  # fmt: skip
    send(HEADER + A, a=films["whole"])
    assert not import_next()
    assert "Will be retried: Another import is working on this clip" in page_of(client)
    Clip.objects.update(leased_until=long_ago())
    assert not import_next(), "its own time has not come"
    Upload.objects.update(next_try_at=long_ago())
    assert import_next()
    assert "<strong>1</strong> imported" in page_of(client)


def test_what_can_not_be_read_is_tried_again_and_then_refused(
    client: Client, rival: Version, send: Callable[..., str], media: Path
) -> None:
    send(HEADER + A, a=b"a film")
    stored(media)[0].unlink()
    for _ in range(2):
        assert not import_next()
        Upload.objects.update(next_try_at=long_ago())
    assert "<strong>1</strong> waiting" in page_of(client)
    assert import_next()
    page = page_of(client)
    assert "<strong>1</strong> rejected" in page
    assert "It could not be imported (FileNotFoundError" in page


def test_a_fault_of_the_site_is_no_refusal(
    client: Client,
    settings,
    rival: Version,
    films: dict[str, bytes],
    send: Callable[..., str],
    tmp_path: Path,
) -> None:
    """The row waits, however often it is tried, and is imported when the fault is mended."""
    send(HEADER + A, a=films["whole"])
    good, settings.SCRATCH = settings.SCRATCH, str(tmp_path / "taken")
    (tmp_path / "taken").write_text("a file where a folder should be")
    for _ in range(current.RENDER_ATTEMPTS + 2):
        assert not import_next()
        Upload.objects.update(next_try_at=long_ago())
    page = page_of(client)
    assert "<strong>1</strong> waiting" in page
    assert "Will be retried: The file could not be taken in" in page
    settings.SCRATCH = good
    assert import_next()
    assert "<strong>1</strong> imported" in page_of(client)


def test_a_held_clip_is_said_on_the_page(
    client: Client, rival: Version, send: Callable[..., str], tmp_path: Path
) -> None:
    black = film(tmp_path / "black.mp4", light=0).read_bytes()
    send(HEADER + A, a=black)
    assert import_next()
    page = page_of(client)
    assert "<strong>1</strong> held" in page
    assert "<strong>0</strong> imported" in page
    assert "Held: its picture is black. Show it to voters or refuse it in /admin/, Clips" in page
    assert 'href="/admin/generation/clip/?state__exact=held"' in page
    assert Clip.objects.get().state == ClipState.HELD


def test_uploads_are_imported_one_after_the_other(rival: Version, send: Callable[..., str]) -> None:
    for _ in range(2):
        send(HEADER + A, a=b"no film")
    first, second = Upload.objects.order_by("created_at")
    with Redis.from_url(current.CELERY_BROKER_URL) as broker:
        broker.delete("media")
        assert wake_importers() == 1
        assert wake_importers() == 0, "its message still waits"
        assert count_waiting(import_waiting.name) == broker.llen("media") == 1
        broker.delete("media")
        Upload.objects.filter(pk=first.pk).update(
            leased_until=timezone.now() + timedelta(seconds=30)
        )
        assert wake_importers() == 0
        assert not import_next(), "the second waits for the first"
        Upload.objects.filter(pk=first.pk).update(leased_until=None)
        assert import_next(), "and wakes a worker for the next"
        assert count_waiting(import_waiting.name) == 1
        states = [UploadState.DONE, UploadState.OPEN]
        assert [Upload.objects.get(pk=pk).state for pk in (first.pk, second.pk)] == states
        broker.delete("media")


def test_an_upload_that_never_arrived_is_forgotten(media: Path) -> None:
    late, young = Upload.objects.create(by="olga"), Upload.objects.create(by="olga")
    Upload.objects.filter(pk=late.pk).update(created_at=long_ago())
    for upload in (late, young):
        default_storage.save(f"uploads/{upload.pk}/1", SimpleUploadedFile("a.mp4", b"half"))
    sweep_media()
    assert Upload.objects.get().pk == young.pk
    assert [path.parent.name for path in stored(media)] == [str(young.pk)]
