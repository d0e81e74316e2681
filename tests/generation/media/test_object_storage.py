"""An operator keeps the media in an S3-compatible store: the same line works from there."""

import io
import json
import re
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from django.core.checks import run_checks
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.db.models import F
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from arena.models import Battle
from generation.catalogue.categories import Category
from generation.media.profile import PROFILE
from generation.media.storage import media_storage
from generation.models import Clip, ClipState, ReferenceImage, StoragePause
from generation.rendering import sweep
from generation.rendering.claims import claim_clip
from generation.rendering.queue import queue_clips
from generation.rendering.render import render_claimed
from generation.tasks import sweep_media, withdraw_lost_clips
from tests.object_storage import ObjectStorage, S3Fault

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


def battle_at(client: Client) -> dict[str, Any]:
    page = client.post("/vote/mixed/next/", follow=True).text
    found = re.search(r'battle-data" type="application/json">(.*?)</script>', page, re.S)
    assert found is not None
    return dict(json.loads(found[1]))


def test_clips_are_kept_and_shown_from_there(
    store: ObjectStorage, client: Client, few, two_versions, render_all
) -> None:
    clips = render_all(few, Category.T2V_SILENT)
    assert len(clips) == 4
    assert all(default_storage.exists(str(clip.rendition)) for clip in clips)
    battle = battle_at(client)
    whole = b"".join(client.get(battle["a"]["video"]).streaming_content)
    assert whole[4:8] == b"ftyp"
    part = client.get(battle["a"]["video"], headers={"range": "bytes=100-199"})
    assert part.status_code == 206
    assert b"".join(part.streaming_content) == whole[100:200]
    assert not ReferenceImage.objects.filter(file="").exists()


@pytest.fixture
def video(store: ObjectStorage, client: Client, few, two_versions, render_all) -> tuple[str, bytes]:
    """The address of a battle's clip, and its bytes as the store has them."""
    render_all(few, Category.T2V_SILENT)
    address = battle_at(client)["a"]["video"]
    name = str(Battle.objects.get().clip_a.rendition)
    return address, store.buckets["clips"][f"arena/{name}"].data


HEADERS = {"Content-Type", "Accept-Ranges", "Content-Length", "Cache-Control", "Content-Range",
           "X-Content-Type-Options"}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "status", "first", "length"),
    [
        ("", 200, 0, None),
        ("bytes=0-1", 206, 0, 2),
        ("bytes=0-", 206, 0, None),
        ("bytes=1000-1499", 206, 1000, 500),
        ("bytes=-700", 206, -700, 700),
        ("bytes=-99999999", 206, 0, None),
        ("bytes=99999999-", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
    ],
)
def test_no_more_leaves_the_store_than_a_voter_asks_for(
    store: ObjectStorage,
    client: Client,
    video: tuple[str, bytes],
    asked: str,
    status: int,
    first: int,
    length: int | None,
) -> None:
    address, whole = video
    wanted = whole[first:] if length is None else whole[first:][:length]
    store.bytes_read, store.requests = 0, []
    answer = client.get(address, headers={"range": asked} if asked else {})
    body = b"".join(answer) if answer.streaming else answer.content
    assert (answer.status_code, body) == (status, wanted)
    assert store.bytes_read == len(wanted)
    assert [one.method for one in store.requests] == (["HEAD", "GET"] if wanted else ["HEAD"])
    size = len(whole)
    if status == 416:
        assert answer.headers["Content-Range"] == f"bytes */{size}"
        return
    assert answer.headers["Content-Length"] == str(len(wanted))
    if status == 206:
        begin = first % size
        said = f"bytes {begin}-{begin + len(wanted) - 1}/{size}"
        assert answer.headers["Content-Range"] == said


@pytest.mark.parametrize("method", ["get", "head"])
@pytest.mark.parametrize("asked", ["", "bytes=10-19", "bytes=99999999-"])
def test_a_voter_learns_nothing_of_the_store(
    store: ObjectStorage, client: Client, video: tuple[str, bytes], method: str, asked: str
) -> None:
    """The headers are the site's own, and name neither the object nor its time or digest."""
    answer = getattr(client, method)(video[0], headers={"range": asked} if asked else {})
    of_site = set(client.get("/robots.txt").headers)  # what every answer has
    assert set(answer.headers) - of_site <= HEADERS
    said = str(answer.headers)
    one = next(iter(store.buckets["clips"].values()))
    for secret in (store.address, "clips", "arena", one.etag, f"{one.modified:%b %Y}"):
        assert secret not in said


def test_a_head_reads_nothing(
    store: ObjectStorage, client: Client, video: tuple[str, bytes]
) -> None:
    """Ranges are for GET alone (RFC 9110, section 14.2)."""
    store.bytes_read, store.requests = 0, []
    answer = client.head(video[0], headers={"range": "bytes=0-9"})
    assert answer.status_code == 200
    assert answer.headers["Content-Length"] == str(len(video[1]))
    assert b"".join(answer) == b""
    assert [one.method for one in store.requests] == ["HEAD"]


def test_a_connection_that_breaks_while_a_clip_is_sent_is_made_again_for_the_rest(
    store: ObjectStorage, client: Client, video: tuple[str, bytes]
) -> None:
    address, whole = video
    store.faults = [S3Fault(method="GET", missing_bytes=300)]
    store.requests = []
    assert b"".join(client.get(address)) == whole
    ranges = [one.headers["range"] for one in store.requests if one.method == "GET"]
    assert len(ranges) == 2
    assert ranges[0] == f"bytes=0-{len(whole) - 1}"
    assert ranges[1] != ranges[0]


def test_a_voter_who_leaves_ends_the_reading(store: ObjectStorage) -> None:
    name = default_storage.save("clips/large.mp4", ContentFile(bytes(30_000_000)))
    store.bytes_read, store.requests = 0, []
    pieces = media_storage().read_part(name, 0, 30_000_000)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert len(store.requests) == 1
    assert store.bytes_read < 30_000_000


def test_orphans_are_swept_there(
    store: ObjectStorage, few, two_versions, render_all, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = render_all(few, Category.T2V_SILENT)[0]
    Clip.objects.filter(pk=clip.pk).update(fence=2)  # another attempt has begun since
    orphan = default_storage.save(f"clips/{clip.pk}/2/rendition.mp4", ContentFile(b"half"))
    Clip.objects.update(sweep_at=Now())
    assert sweep_media() == 0  # younger than a day
    monkeypatch.setattr(sweep, "ORPHAN_AGE", timedelta(seconds=-5))
    Clip.objects.update(sweep_at=Now())
    assert sweep_media() == 1
    assert not default_storage.exists(orphan)
    assert default_storage.exists(str(Clip.objects.get(pk=clip.pk).rendition))


def listings(store: ObjectStorage) -> list[str]:
    """What was listed since the last time, by the clips' ids."""
    asked = [one.query["prefix"] for one in store.requests if "list-type" in one.query]
    store.requests = []
    return [prefix.removeprefix("arena/clips/").strip("/") for prefix in asked]


def in_days(days: int) -> None:
    """So much time passes, for the database and for the store."""
    Clip.objects.update(sweep_at=F("sweep_at") - timedelta(days=days))


def test_a_sweep_lists_what_is_new_and_a_slice_of_the_rest(
    store: ObjectStorage, few, two_versions, render_all, monkeypatch: pytest.MonkeyPatch
) -> None:
    for category in (Category.T2V_SILENT, Category.I2V_SILENT):
        render_all(few, category)
    everything = {str(pk) for pk in Clip.objects.values_list("pk", flat=True)}
    assert len(everything) == 6
    Clip.objects.update(sweep_at=Now() + timedelta(days=1))
    store.requests = []
    sweep_media()
    assert listings(store) == []  # nothing is a day old
    in_days(1)
    sweep_media()
    assert set(listings(store)) == everything
    sweep_media()
    assert listings(store) == []
    in_days(29)
    sweep_media()
    assert listings(store) == []
    # One is made again: a day later its folder alone is looked at.
    Clip.objects.filter(pk=(again := min(everything))).update(
        profile=PROFILE.number - 1, sweep_at=Now() + timedelta(days=15)
    )
    call_command("encode_again", stdout=io.StringIO())
    Clip.objects.exclude(pk=again).update(sweep_at=Now() + timedelta(days=2))
    in_days(1)
    store.requests = []
    Clip.objects.filter(pk=again, sweep_at__lte=Now() + timedelta(minutes=1)).update(sweep_at=Now())
    monkeypatch.setattr(sweep, "ORPHAN_AGE", timedelta(seconds=-5))
    assert sweep_media() == 2  # the rendition and the poster of the earlier profile
    assert listings(store) == [again]
    # What is due is taken in slices, what is due longest first; each once.
    monkeypatch.setattr(sweep, "FOLDERS_AT_MOST", 2)
    Clip.objects.update(sweep_at=Now())
    slices = []
    for _ in range(4):
        sweep_media()
        slices.append(listings(store))
    assert [len(one) for one in slices] == [2, 2, 2, 0]
    assert set().union(*slices) == everything


def test_a_young_file_is_looked_at_again_a_day_later(
    store: ObjectStorage, few, two_versions, render_all
) -> None:
    """It may be one that is being published."""
    clip = render_all(few, Category.T2V_SILENT)[0]
    default_storage.save(f"clips/{clip.pk}/9/rendition.mp4", ContentFile(b"half"))
    Clip.objects.update(sweep_at=Now())
    assert sweep_media() == 0
    due = {one.pk: one.sweep_at for one in Clip.objects.all()}
    soon = timezone.now() + timedelta(days=2)
    assert [pk for pk, at in due.items() if at is not None and at < soon] == [clip.pk]


def test_a_large_file_travels_in_parts(store: ObjectStorage) -> None:
    content = bytes(range(256)) * 40_000  # boto3 sends in parts from 8 MB upwards
    name = default_storage.save("clips/large.mkv", ContentFile(content))
    assert sum("partNumber" in request.query for request in store.requests) == 2
    assert store.buckets["clips"] == {
        f"arena/{name}": store.buckets["clips"]["arena/clips/large.mkv"]
    }
    with default_storage.open(name) as file:
        assert file.read() == content


def test_folders_are_listed_page_by_page(store: ObjectStorage) -> None:
    for name in ("a&b.jpg", "one/x.jpg", "one/y.jpg", "two/z.jpg", "v.mp4"):
        default_storage.save(f"clips/{name}", ContentFile(b"x"))
    default_storage.save("other/w.mp4", ContentFile(b"x"))
    assert default_storage.listdir("clips") == (["one", "two"], ["a&b.jpg", "v.mp4"])
    client = default_storage.connection.meta.client  # type: ignore[attr-defined]
    for operation in ("list_objects", "list_objects_v2"):
        pages = client.get_paginator(operation).paginate(
            Bucket="clips", Prefix="arena/clips/", PaginationConfig={"PageSize": 2}
        )
        keys = [
            [entry["Key"].removeprefix("arena/clips/") for entry in page["Contents"]]
            for page in pages
        ]
        assert keys == [["a&b.jpg", "one/x.jpg"], ["one/y.jpg", "two/z.jpg"], ["v.mp4"]]


def test_a_draw_asks_the_store_nothing(
    store: ObjectStorage, client: Client, few, two_versions, render_all
) -> None:
    render_all(few, Category.T2V_SILENT)
    store.requests = []
    battle = battle_at(client)
    client.post(battle["vote_url"], {"choice": "a"})
    ahead = client.post("/vote/mixed/next/", headers={"accept": "application/json"}).json()
    assert ahead["battle"]["id"] != battle["id"]
    assert store.requests == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (S3Fault(method="PUT", forgotten_bytes=10), "bytes of the file clips/"),
        (S3Fault(method="PUT", spoilt=True), "kept other bytes than it was given as the file"),
    ],
)
def test_what_is_stored_is_looked_at_before_a_clip_is_ready(
    store: ObjectStorage, few, two_versions, fault: S3Fault, said: str
) -> None:
    """Its size is asked for and it is read back: a store may answer well and keep another."""
    queue_clips(Category.T2V_SILENT, few, limit=1)
    clip = claim_clip("test")
    assert clip is not None
    store.faults = [S3Fault(method="PUT"), fault]
    assert not render_claimed(clip)
    clip.refresh_from_db()
    assert clip.state == ClipState.WAITING
    assert said in clip.error
    assert store.buckets["clips"].keys() == {  # of what was stored nothing is left
        key for key in store.buckets["clips"] if not key.startswith("arena/clips/")
    }
    StoragePause.objects.update(try_at=Now())
    again = claim_clip("test")
    assert again is not None
    store.bytes_read = 0
    assert render_claimed(again)
    kept = [one for key, one in store.buckets["clips"].items() if f"/{again.pk}/" in key]
    assert len(kept) == 3
    assert store.bytes_read == sum(len(one.data) for one in kept)
    again.refresh_from_db()
    assert again.rendition_bytes == default_storage.size(str(again.rendition))


def test_lost_clips_are_found_by_listing(
    store: ObjectStorage, few, two_versions, render_all, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by asking for each file; where there are many clips, by the first digits of their ids."""
    clips = render_all(few, Category.T2V_SILENT)
    for listed, listings in ((1000, 1), (1, 16)):
        monkeypatch.setattr(sweep, "CLIPS_LISTED", listed)
        store.requests = []
        assert withdraw_lost_clips() == 0
        assert len(store.requests) == listings
        assert {one.query.get("list-type") for one in store.requests} == {"2"}
    default_storage.delete(str(clips[0].poster))
    assert withdraw_lost_clips() == 1
    assert Clip.objects.get(state=ClipState.FAILED).pk == clips[0].pk


def test_a_clip_whose_file_is_gone_is_told_and_withdrawn(
    store: ObjectStorage, client: Client, few, two_versions, render_all
) -> None:
    render_all(few, Category.T2V_SILENT)
    battle = battle_at(client)
    gone = Battle.objects.get().clip_a
    default_storage.delete(str(gone.rendition))
    assert withdraw_lost_clips() == 1
    assert client.get(battle["a"]["video"]).status_code == 404
    assert client.get(battle["b"]["video"]).status_code == 200
    gone.refresh_from_db()
    assert gone.state == ClipState.FAILED
    assert str(gone.rendition) in gone.error
    assert battle_at(client)["id"] != battle["id"]


def test_a_store_that_is_away_is_told_to_the_voter_and_costs_no_clip(
    store: ObjectStorage, client: Client, video: tuple[str, bytes]
) -> None:
    store.faults = [S3Fault("SlowDown", method="HEAD")] * 2
    answer = client.get(video[0], headers={"accept": "application/json"})
    assert answer.status_code == 503
    assert "can't be reached" in answer.json()["error"]
    assert client.get(video[0]).status_code == 200


def test_a_refusal_is_not_taken_for_a_lost_file(
    store: ObjectStorage, few, two_versions, render_all
) -> None:
    clips = render_all(few, Category.T2V_SILENT)
    store.faults = [S3Fault("AccessDenied", method="GET")]
    with pytest.raises(ClientError, match="AccessDenied"):
        withdraw_lost_clips()
    assert Clip.objects.filter(state=ClipState.READY).count() == len(clips)


def test_a_broken_answer_is_asked_for_again(store: ObjectStorage) -> None:
    content = b"0123456789" * 1000
    name = default_storage.save("clips/one.mkv", ContentFile(content))
    store.faults = [S3Fault("SlowDown"), S3Fault(method="GET", missing_bytes=100)]
    with default_storage.open(name) as file:
        assert file.read() == content
    assert store.faults == []


def complaints_about_the_store() -> list[str]:
    messages = run_checks(include_deployment_checks=True)
    return [message.msg for message in messages if message.id == "photofinish.E005"]


def test_the_check_says_why_the_store_refuses(store: ObjectStorage) -> None:
    assert complaints_about_the_store() == []
    store.faults = [S3Fault("AccessDenied", method="PUT")]
    [complaint] = complaints_about_the_store()
    assert "AccessDenied" in complaint


def test_the_check_says_that_the_key_is_wrong(
    store: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody else")
    [complaint] = complaints_about_the_store()
    assert "InvalidAccessKeyId" in complaint
