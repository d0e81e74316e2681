"""An operator keeps the media in an S3-compatible store: the same line works from there."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta

import boto3
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client
from moto.server import ThreadedMotoServer

from arena.settings import storage
from generation import tasks
from generation.categories import Category
from generation.models import Clip, ReferenceImage
from generation.tasks import sweep_media

pytestmark = pytest.mark.django_db


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, settings) -> Iterator[str]:
    """A store that speaks the S3 protocol on this machine."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="clips")
    url = f"s3://clips/arena?endpoint_url={endpoint}&region_name=us-east-1"
    settings.STORAGES = {**settings.STORAGES, "default": storage(url)}
    yield url
    server.stop()


def test_clips_are_kept_and_shown_from_there(
    bucket: str, client: Client, few, two_versions, render_all
) -> None:
    clips = render_all(few, Category.T2V_SILENT)
    assert len(clips) == 4
    assert all(default_storage.exists(str(clip.rendition)) for clip in clips)
    page = client.get("/vote/").text
    found = re.search(r'battle-data" type="application/json">(.*?)</script>', page, re.S)
    assert found is not None
    battle = json.loads(found[1])
    whole = b"".join(client.get(battle["left"]["video"]).streaming_content)
    assert whole[4:8] == b"ftyp"
    part = client.get(battle["left"]["video"], headers={"range": "bytes=100-199"})
    assert part.status_code == 206
    assert b"".join(part.streaming_content) == whole[100:200]
    assert not ReferenceImage.objects.filter(file="").exists()


def test_orphans_are_swept_there(
    bucket: str, few, two_versions, render_all, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = render_all(few, Category.T2V_SILENT)[0]
    Clip.objects.filter(pk=clip.pk).update(fence=2)  # another attempt has begun since
    orphan = default_storage.save(f"clips/{clip.pk}/2/rendition.mp4", ContentFile(b"half"))
    assert sweep_media() == 0  # younger than a day
    monkeypatch.setattr(tasks, "ORPHAN_AGE", timedelta(seconds=-5))
    assert sweep_media() == 1
    assert not default_storage.exists(orphan)
    assert default_storage.exists(str(Clip.objects.get(pk=clip.pk).rendition))
