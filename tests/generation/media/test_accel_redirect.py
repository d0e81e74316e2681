"""nginx sends the clips that the site names, and tells no more of them than the site would."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.checks import run_checks
from django.test import Client

from arena.models import Battle
from arena.settings import storage
from arena.voting.identity import COOKIE
from generation.models import Clip
from tests.arena.voting.test_vote import battle_on

PROJECT = Path(__file__).resolve().parents[3]
ADDRESS = "/stored-media/"
# Beside those of nginx itself.
PASSED_ON = {"Content-Type", "Content-Length", "Cache-Control", "Accept-Ranges", "Content-Range",
             "X-Content-Type-Options"}  # fmt: skip


@pytest.fixture(autouse=True)
def accel(settings) -> None:
    settings.ACCEL_REDIRECT = ADDRESS


@pytest.mark.django_db
def test_the_site_names_the_file_and_reads_none(client: Client, votable: list[Clip]) -> None:
    battle = battle_on(client)
    assert battle is not None
    answer = client.get(battle["a"]["video"])
    clip = Battle.objects.get(pk=battle["id"]).clip_a
    assert answer.status_code == 200
    assert answer.headers["X-Accel-Redirect"] == f"{ADDRESS}{clip.rendition}"
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.content == b""
    stranger = Client().get(battle["a"]["video"])
    assert stranger.status_code == 403
    assert "X-Accel-Redirect" not in stranger.headers
    clip.rendition.storage.delete(clip.rendition.name)
    assert client.get(battle["a"]["video"]).status_code == 404


def complaints() -> list[str]:
    return [message.msg for message in run_checks() if message.id == "photofinish.E015"]


@pytest.mark.django_db
def test_the_check_says_what_does_not_fit(settings) -> None:
    assert complaints() == []
    settings.ACCEL_REDIRECT = "stored media"
    assert "is no address of a location" in complaints()[0]
    settings.ACCEL_REDIRECT = ADDRESS
    settings.STORAGES = {**settings.STORAGES, "default": storage("s3://clips/arena")}
    assert "not in a folder" in complaints()[0]


CONFIG = """
user root;
daemon off;
worker_processes 1;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {site};
            proxy_set_header Host $host;
        }}
        location {location}
    }}
}}
"""


def location_of_the_deployed(media: Path) -> str:
    """The block of deploy/nginx.conf, with this folder."""
    text = (PROJECT / "deploy" / "nginx.conf").read_text()
    block = text.split("location /stored-media/ ")[1].split("}")[0] + "}"
    assert "alias /srv/photofinish/media/;" in block
    return ADDRESS + " " + block.replace("/srv/photofinish/media/", f"{media}/")


@pytest.fixture
def proxy(live_server: Any, media: Path, tmp_path: Path) -> Iterator[str]:
    """nginx in front of the site, where there is one on this machine."""
    program = shutil.which("nginx")
    if program is None:
        pytest.skip("there is no nginx on this machine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "nginx.conf"
    config.write_text(
        CONFIG.format(
            folder=tmp_path,
            port=port,
            site=live_server.url,
            location=location_of_the_deployed(media),
        )
    )
    running = subprocess.Popen([program, "-p", str(tmp_path), "-c", str(config)])
    try:
        for _ in range(100):
            assert running.poll() is None, (tmp_path / "error.log").read_text()
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait()


@pytest.mark.django_db(transaction=True)
def test_nginx_sends_it_and_tells_nothing_more(
    votable: list[Clip], proxy: str, make_voter: Callable[..., tuple[Client, Any]]
) -> None:
    client, _ = make_voter()
    battle = battle_on(client)
    assert battle is not None
    clip = Battle.objects.get(pk=battle["id"]).clip_a
    whole = Path(clip.rendition.path).read_bytes()
    voter = requests.Session()
    voter.cookies[COOKIE] = client.cookies[COOKIE].value
    address = proxy + battle["a"]["video"]
    for asked, status, wanted in (
        (None, 200, whole),
        ("bytes=0-1", 206, whole[:2]),
        ("bytes=1000-1499", 206, whole[1000:1500]),
        ("bytes=-700", 206, whole[-700:]),
        ("bytes=99999999-", 416, None),
    ):
        answer = voter.get(address, headers={"Range": asked} if asked else {})
        assert answer.status_code == status
        assert wanted is None or answer.content == wanted
        assert set(answer.headers) - {"Server", "Date", "Connection"} <= PASSED_ON
        said = str(answer.headers)
        assert str(clip.pk) not in said
        assert "clips/" not in said
    answer = voter.head(address)
    assert answer.headers["Content-Length"] == str(len(whole))
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "private, max-age=3600, immutable"
    # Nobody gets in from outside, and who is not asked gets none.
    assert voter.get(f"{proxy}{ADDRESS}{clip.rendition}").status_code == 404
    assert requests.get(address, timeout=10).status_code == 403
