"""The disk is full or the store refuses: what writes waits, loses no try, and goes on by itself."""

import errno
import io
import logging
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from arena import probes
from arena.settings import storage
from generation.catalogue.categories import Category
from generation.hosted.orders import submit_waiting
from generation.hosted.results import poll_due
from generation.media.pauses import MEDIA, pauses_now, pausing, why_paused
from generation.media.profile import PROFILE
from generation.media.storage import StorageRefuses
from generation.models import (
    Clip,
    ClipState,
    HostedJob,
    JobState,
    PromptSet,
    StoragePause,
    Upload,
    UploadRow,
    UploadState,
    Version,
)
from generation.rendering.claims import claim_clip
from generation.rendering.quality_checks import make_checks
from generation.rendering.queue import queue_clips
from generation.rendering.render import render_claimed
from generation.tasks import import_waiting, sweep_media
from tests.generation.hosted.services.test_fal import FalStandIn
from tests.generation.hosted.stand_in import due, serving
from tests.generation.imports.test_import_clips import film
from tests.object_storage import ObjectStorage, S3Fault

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

MANIFEST = "file,version,prompt,category\na.mp4,rival,few-1,t2v-silent\n"


@pytest.fixture
def queued(few: PromptSet, make_version: Callable[..., Version]) -> list[Clip]:
    """Two clips of one version wait."""
    queue_clips(Category.T2V_SILENT, few, [make_version("sharp")])
    return list(Clip.objects.order_by("pk"))


def render_next() -> bool | None:
    """As a worker does; None if it finds nothing to do."""
    clip = claim_clip("test")
    return clip and render_claimed(clip)


def time_passes() -> None:
    StoragePause.objects.update(try_at=Now())


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "filler"]


def words_for_operators(client: Client) -> str:
    return unescape(client.get(reverse("progress")).text)


def count_of_pauses(client: Client) -> int:
    probes.counts.forget()
    return int(client.get("/healthz").json()["paused"])


def complaints() -> list[str]:
    messages = run_checks(include_deployment_checks=True)
    return [message.msg for message in messages if message.id == "photofinish.W014"]


@pytest.mark.full_size
def test_a_full_media_disk_keeps_the_night_s_queue(
    queued: list[Clip],
    small_disk: Path,
    fill: Callable[[int], None],
    settings,
    admin_client: Client,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.STORAGES = {**settings.STORAGES, "default": storage(f"file://{small_disk}")}
    fill(300)  # a rendition has more
    assert render_next() is False
    assert render_next() is None  # no other is even tried
    for clip in Clip.objects.all():
        assert (clip.state, clip.attempts, clip.leased_until) == (ClipState.WAITING, 0, None)
    assert files_in(small_disk) == []  # nothing half written takes what room is left
    [pause] = pauses_now()
    assert (pause.place, pause.times) == (MEDIA, 1)
    assert os.strerror(errno.ENOSPC) in pause.reason
    assert f"What writes waits: {pause.reason}" in caplog.text
    assert pause.reason in words_for_operators(admin_client)
    assert count_of_pauses(admin_client) == 1
    assert admin_client.get("/readyz").status_code == 200  # voters are served
    assert complaints() == [f"What writes is paused: {pause.reason}"]
    # Looked at again, it is as full as before: the pause gets longer, and no clip is tried.
    time_passes()
    assert render_next() is None
    [longer] = pauses_now()
    assert longer.times == 2
    assert longer.since == pause.since
    assert {clip.attempts for clip in Clip.objects.all()} == {0}
    # Room is made, and nobody says so.
    (small_disk / "filler").unlink()
    time_passes()
    assert render_next() is True
    assert render_next() is True
    assert render_next() is None
    for clip in Clip.objects.all():
        assert (clip.state, clip.attempts, clip.error) == (ClipState.READY, 1, "")
    assert pauses_now() == []
    assert "What writes goes on" in caplog.text
    assert "Paused since" not in words_for_operators(admin_client)
    assert count_of_pauses(admin_client) == 0
    assert complaints() == []


@pytest.mark.full_size
def test_a_full_disk_of_a_worker_is_its_own(
    queued: list[Clip], small_disk: Path, fill: Callable[[int], None], settings
) -> None:
    """Another machine renders on."""
    elsewhere, settings.SCRATCH = settings.SCRATCH, str(small_disk)
    fill(100)
    assert render_next() is False
    [pause] = pauses_now()
    assert "(SCRATCH)" in pause.place
    assert os.strerror(errno.ENOSPC) in pause.reason
    assert {(one.state, one.attempts) for one in Clip.objects.all()} == {(ClipState.WAITING, 0)}
    assert render_next() is None
    StoragePause.objects.update(place="the disk of another machine")
    settings.SCRATCH = elsewhere
    assert render_next() is True


@pytest.mark.parametrize("code", ["SlowDown", "InsufficientStorage", "AccessDenied"])
def test_a_store_that_refuses_keeps_the_queue(
    store: ObjectStorage, queued: list[Clip], code: str
) -> None:
    """503, 507 and 403; some of them the client asks again by itself."""
    store.faults = [S3Fault(method="PUT"), *[S3Fault(code, method="PUT")] * 2]
    assert render_next() is False
    assert render_next() is None
    [pause] = pauses_now()
    assert pause.place == MEDIA
    assert code in pause.reason
    assert {(one.state, one.attempts) for one in Clip.objects.all()} == {(ClipState.WAITING, 0)}
    assert not any("/clips/" in f"/{key}" for key in store.buckets["clips"] if "checks" not in key)
    store.faults = [S3Fault(code, method="PUT")] * 2
    time_passes()
    assert render_next() is None
    store.faults = []
    time_passes()
    assert render_next() is True
    assert pauses_now() == []


def test_a_store_that_can_t_be_reached_keeps_the_queue(
    store: ObjectStorage, few: PromptSet, make_version: Callable[..., Version]
) -> None:
    """Nor can the reference image be read that the render begins with."""
    queue_clips(Category.I2V_SILENT, few, [make_version("sharp")])
    clip = claim_clip("test")
    assert clip is not None
    store.faults = [S3Fault("SlowDown")] * 2
    assert render_claimed(clip) is False
    clip.refresh_from_db()
    assert (clip.state, clip.attempts) == (ClipState.WAITING, 0)
    assert len(pauses_now()) == 1


def test_too_little_room_is_found_before_anything_is_made(
    queued: list[Clip], settings, media: Path, admin_client: Client
) -> None:
    settings.MEDIA_MIN_FREE = 10**18
    assert "MEDIA_MIN_FREE" in complaints()[0]
    assert pauses_now() == []  # a check decides nothing
    assert render_next() is None
    assert not (media / "clips").exists()
    [pause] = pauses_now()
    assert "MB free, and the least is 1,000,000,000,000 MB (MEDIA_MIN_FREE)" in pause.reason
    assert pause.reason in words_for_operators(admin_client)
    settings.MEDIA_MIN_FREE = 0
    time_passes()
    assert render_next() is True
    assert pauses_now() == []


@pytest.fixture
def full(settings) -> None:
    """There is less room than there must be."""
    settings.MEDIA_MIN_FREE = 10**18


@pytest.fixture
def rival(make_version: Callable[..., Version], few: PromptSet) -> Version:
    return make_version("rival", backend="imported", settings={})


class TestEveryWriterWaits:
    def test_orders_to_paid_services_and_their_results(
        self,
        few: PromptSet,
        make_version: Callable[..., Version],
        monkeypatch: pytest.MonkeyPatch,
        settings,
        store: ObjectStorage,
        tmp_path: Path,
    ) -> None:
        fal = FalStandIn()
        paid = {"price_per_second": Decimal("0.1"), "budget": 10}
        version = make_version("paid", backend="fal", settings=fal.settings, **paid)
        queue_clips(Category.T2V_AUDIO, few, [version], limit=1)
        with serving(fal, film(tmp_path / "made.mp4", seconds=2, sound=True).read_bytes()):
            monkeypatch.setenv("FAL_KEY", FalStandIn.keys["FAL_KEY"])
            monkeypatch.setenv("FAL_URL", fal.address)
            settings.MEDIA_MIN_FREE = 10**18
            store.faults = []
            StoragePause.objects.create(
                place=MEDIA, reason="Full.", since=Now(), try_at=Now() + timedelta(hours=1)
            )
            assert submit_waiting(60) == 0
            assert fal.posts == []  # what can't be kept is not paid for
            settings.MEDIA_MIN_FREE = 0
            time_passes()
            assert submit_waiting(60) == 1
            due()
            store.faults = [S3Fault("InsufficientStorage", method="PUT")]
            poll_due(60)
            due()
            assert poll_due(60) == 0
            job = HostedJob.objects.get()
            assert (job.state, job.tries) == (JobState.SUBMITTED, 0)
            assert "InsufficientStorage" in job.error
            fetched = fal.fetched
            due()
            poll_due(60)
            assert fal.fetched == fetched  # it is not fetched in vain again
            time_passes()
            due()
            poll_due(60)
            assert len(fal.posts) == 1
            assert Clip.objects.get().state == ClipState.READY

    def test_imports_from_a_manifest(
        self, rival: Version, tmp_path: Path, small_disk: Path, fill: Callable[[int], None],
        settings,
    ) -> None:  # fmt: skip
        """Also where the process that reads the file, not ours, finds the disk full."""
        film(tmp_path / "a.mp4")
        manifest = tmp_path / "list.csv"
        manifest.write_text(MANIFEST)
        settings.SCRATCH = str(small_disk)
        fill(30)
        with pytest.raises(CommandError, match=r"Stopped at line 2: The disk of .* refuses"):
            call_command("import_clips", manifest, stdout=io.StringIO())
        assert not Clip.objects.filter(state=ClipState.READY).exists()
        with pytest.raises(CommandError, match=r"Stopped at line 2: The disk of .* refuses"):
            call_command("import_clips", manifest, stdout=io.StringIO())
        (small_disk / "filler").unlink()
        time_passes()
        call_command("import_clips", manifest, stdout=io.StringIO())
        assert Clip.objects.get().state == ClipState.READY

    def test_rows_of_an_upload(
        self, rival: Version, settings, store: ObjectStorage, admin_client: Client, tmp_path: Path
    ) -> None:
        assert self.upload(admin_client, tmp_path).redirect_chain
        upload = Upload.objects.get()
        store.faults = [S3Fault("SlowDown")] * 2
        assert import_waiting() is False
        assert import_waiting() is False
        page = unescape(admin_client.get(f"/admin/uploads/{upload.pk}/").text)
        [pause] = pauses_now()
        assert pause.reason in page
        upload.refresh_from_db()
        assert (upload.state, upload.attempts) == (UploadState.OPEN, 0)
        assert UploadRow.objects.get().outcome == ""
        time_passes()
        Upload.objects.update(next_try_at=None)
        assert import_waiting() is True
        assert UploadRow.objects.get().outcome == "imported"

    def upload(self, client: Client, folder: Path) -> Any:
        given = SimpleUploadedFile("a.mp4", film(folder / "a.mp4").read_bytes())
        manifest = SimpleUploadedFile("list.csv", MANIFEST.encode())
        data = {"all-manifest": manifest, "all-clips": [given], "all": "1"}
        return client.post("/admin/uploads/", data, follow=True)

    def test_uploads(
        self, rival: Version, store: ObjectStorage, admin_client: Client, tmp_path: Path
    ) -> None:
        """The operator reads why; nothing of it is kept."""
        store.faults = [S3Fault("InsufficientStorage", method="PUT")]
        for _ in range(2):
            said = unescape(self.upload(admin_client, tmp_path).text)
            assert "Nothing was stored. The media storage refuses what is written" in said
            assert "InsufficientStorage" in said
            assert not Upload.objects.exists()
            assert store.buckets["clips"].keys() <= {"arena/checks/probe"} | {
                key for key in store.buckets["clips"] if "/uploads/" not in key
            }
        time_passes()
        assert self.upload(admin_client, tmp_path).redirect_chain
        assert Upload.objects.get().state == UploadState.OPEN

    def test_renditions_of_a_new_profile(self, votable: list[Clip], settings) -> None:
        Clip.objects.update(profile=PROFILE.number - 1)
        settings.MEDIA_MIN_FREE = 10**18
        with pytest.raises(CommandError, match=r"MEDIA_MIN_FREE.*0 renditions were made"):
            call_command("encode_again", stdout=io.StringIO())
        settings.MEDIA_MIN_FREE = 0
        time_passes()
        call_command("encode_again", stdout=io.StringIO())
        assert {clip.profile for clip in Clip.objects.all()} == {PROFILE.number}

    def test_the_last_rendition_of_a_new_profile(
        self, store: ObjectStorage, votable: list[Clip]
    ) -> None:
        Clip.objects.filter(pk=votable[0].pk).update(profile=PROFILE.number - 1)
        store.faults = [S3Fault("InsufficientStorage", method="PUT")]
        with pytest.raises(CommandError, match=r"InsufficientStorage.*0 renditions were made"):
            call_command("encode_again", stdout=io.StringIO())
        time_passes()
        call_command("encode_again", stdout=io.StringIO())
        assert {clip.profile for clip in Clip.objects.all()} == {PROFILE.number}

    def test_clips_that_check_voters(self, votable: list[Clip], settings) -> None:
        source = votable[0]

        def make() -> int:
            made = make_checks(source.version, Category.T2V_SILENT, [source.prompt], 1, 600)
            return int(made)

        settings.MEDIA_MIN_FREE = 10**18
        assert make() == 0
        settings.MEDIA_MIN_FREE = 0
        time_passes()
        assert make() == 2

    def test_a_check_that_the_store_refuses_is_made_later(
        self, store: ObjectStorage, few: PromptSet, two_versions, render_all
    ) -> None:
        source = render_all(few, Category.T2V_SILENT)[0]
        store.faults = [S3Fault("InsufficientStorage", method="PUT")]
        arguments = (source.version, Category.T2V_SILENT, [source.prompt], 1, 600)
        assert make_checks(*arguments) == 0
        assert not Clip.objects.filter(state=ClipState.FAILED).exists()
        time_passes()
        assert make_checks(*arguments) == 2


def test_the_render_command_says_why_nothing_goes_on(
    queued: list[Clip], full: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert render_next() is None
    out = io.StringIO()

    def leave(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", leave)  # between two looks, the operator presses Ctrl-C
    with pytest.raises(CommandError, match="Interrupted"):
        call_command(
            "render", "--category", "t2v-silent", "--prompt-set", "few",
            "--version-slug", "sharp", stdout=out,
        )  # fmt: skip
    assert "0 of 2 clips ready, 2 to go. Paused: The media storage has" in out.getvalue()


class TestThePause:
    def refuse(self) -> None:
        with pytest.raises(StorageRefuses), pausing():
            raise OSError(errno.ENOSPC, "No space left on device")

    def test_is_one_for_all_who_meet_it_at_once(self) -> None:
        for _ in range(8):
            self.refuse()
        assert [pause.times for pause in pauses_now()] == [1]

    def test_gets_longer_and_no_longer_than_ten_minutes(self) -> None:
        lengths = []
        for _ in range(7):
            time_passes()
            self.refuse()
            pause = StoragePause.objects.annotate(left=F("try_at") - Now()).get()
            lengths.append(round(pause.left.total_seconds()))
        assert lengths == [30, 60, 120, 240, 480, 600, 600]

    def test_that_comes_again_within_the_hour_goes_on_growing(self) -> None:
        """A disk that takes a small file and no clip costs a render each time."""
        self.refuse()
        time_passes()
        assert why_paused() == ""
        self.refuse()
        assert [pause.times for pause in pauses_now()] == [2]
        time_passes()
        assert why_paused() == ""
        StoragePause.objects.update(ended_at=F("ended_at") - timedelta(hours=2))
        self.refuse()
        assert [pause.times for pause in pauses_now()] == [1]

    @pytest.mark.django_db(transaction=True)
    def test_is_looked_at_by_one(self, store: ObjectStorage) -> None:
        """The others wait for what it finds."""
        with pytest.raises(StorageRefuses), pausing():
            raise StorageRefuses("The media storage is full.")
        time_passes()
        start, found = threading.Barrier(6), []

        def look() -> None:
            start.wait()
            found.append(why_paused())
            connection.close()

        threads = [threading.Thread(target=look) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [one.method for one in store.requests].count("PUT") == 1
        assert set(found) <= {"", "The media storage is full."}
        assert "" in found
        assert pauses_now() == []

    def test_of_a_machine_that_is_gone_is_forgotten(self) -> None:
        self.refuse()
        StoragePause.objects.update(place="the disk of a machine that is gone")
        sweep_media()
        assert len(pauses_now()) == 1
        StoragePause.objects.update(try_at=Now() - timedelta(days=2))
        sweep_media()
        assert not StoragePause.objects.exists()

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOENT, "No such file"),
            OSError(errno.ENOTDIR, "Not a directory"),
            ValueError("The clip's own fault."),
            ConnectionResetError("A service that hangs up."),
        ],
    )
    def test_is_for_refusals_alone(self, error: Exception) -> None:
        with pytest.raises(type(error)), pausing():
            raise error
        assert not StoragePause.objects.exists()

    def test_begins_whoever_wraps_the_error(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.ERROR)
        cause = OSError(errno.EDQUOT, "Disk quota exceeded")
        with pytest.raises(StorageRefuses), pausing():
            raise RuntimeError("The frame can't be written.") from cause
        assert "Disk quota exceeded" in caplog.text
