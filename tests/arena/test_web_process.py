"""The web process does without what computes: its host has neither torch nor PyAV nor numpy."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.db import connection
from django.test import Client
from django.utils import timezone

from arena.models import Battle, Choice, Experiment, Vote, Voter
from arena.voting.identity import COOKIE
from generation.catalogue.categories import Category
from generation.catalogue.prompts import load_prompt_set
from generation.models import Clip, Model, Version
from ratings.boards.refit import refit
from ratings.experiments.assessment import assess
from ratings.robustness.report import write_report
from tests.pipeline import cast, start_experiment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SILENT = Category.T2V_SILENT
# What a web host does not install.
ABSENT = ("torch", "diffusers", "transformers", "av", "numpy", "scipy", "safetensors")
WEB_HOST = """
import json, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"{name} is not installed on a web host", name=name)

asked = json.load(sys.stdin)
absent = set(asked["absent"])
sys.meta_path.insert(0, NotInstalled())

from arena.wsgi import application
from wsgiref.util import setup_testing_defaults

answers = {}
for address in asked["addresses"]:
    path, _, query = address.partition("?")
    environ = {"PATH_INFO": path, "QUERY_STRING": query, "HTTP_HOST": "127.0.0.1",
               "HTTP_COOKIE": asked["cookies"]}
    setup_testing_defaults(environ)
    status = []
    content = b"".join(application(environ, lambda line, headers, *_: status.append(line)))
    answers[address] = [int(status[0].split()[0]), content.decode(errors="replace")]
exec(asked["then"])
loaded = sorted({name.partition(".")[0] for name in sys.modules})
json.dump({"answers": answers, "loaded": loaded}, sys.stdout)
"""


def on_a_web_host(
    addresses: list[str] | None = None, cookies: str = "", then: str = ""
) -> tuple[dict[str, list], list[str]]:
    """What a site's process without those packages answers to GET, and the packages it loaded.

    `then` is a program that it runs afterwards.
    """
    database = urlsplit(os.environ["DATABASE_URL"])
    name = connection.settings_dict["NAME"]
    asked = {"addresses": addresses or [], "cookies": cookies, "then": then, "absent": ABSENT}
    done = subprocess.run(
        [sys.executable, "-c", WEB_HOST],
        input=json.dumps(asked),
        env={
            **os.environ,
            "DATABASE_URL": database._replace(path=f"/{name}").geturl(),
            "MEDIA_STORAGE": f"file://{default_storage.location}",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    return said["answers"], said["loaded"]


@pytest.fixture
def experiment(make_version: Callable[..., Version]) -> Experiment:
    """One with a verdict, between versions of an in-house model that have a board as well."""
    made = start_experiment(make_version)
    Model.objects.update(in_house=True)
    cast(made, wins=0.9)
    assess(made)
    clips = {
        slug: list(Clip.objects.filter(version__slug=slug).order_by("prompt_id"))
        for slug in ("swift-1", "swift-2")
    }
    voters = Voter.objects.bulk_create(Voter() for _ in range(20))
    draws = np.random.default_rng(5)
    for _ in range(200):
        number = int(draws.integers(len(clips["swift-1"])))
        one, two = clips["swift-1"][number], clips["swift-2"][number]
        battle = Battle.objects.create(
            voter=voters[draws.integers(20)], stream="mixed", category=SILENT, prompt=one.prompt,
            clip_a=one, clip_b=two, draw_probability=0.5, expires_at=timezone.now(),
        )  # fmt: skip
        Vote.objects.create(
            battle=battle, voter=battle.voter, category=SILENT, prompt=one.prompt,
            version_a=one.version, version_b=two.version, simulated=False,
            choice=draws.choice([Choice.A, Choice.B, Choice.TIE]),
        )  # fmt: skip
    refit(SILENT)
    write_report(SILENT)
    return made


@pytest.mark.django_db(transaction=True)
def test_pages_need_nothing_that_computes(experiment: Experiment, client: Client) -> None:
    staff = User.objects.create_superuser("olga")
    client.force_login(staff)
    assert client.post("/vote/t2v-silent/next/", follow=True).status_code == 200
    cookies = "; ".join(f"{c.key}={c.value}" for c in client.cookies.values())
    assert COOKIE in cookies
    board, page = "/leaderboards/t2v-silent", f"/experiments/{experiment.pk}/"
    planned = "candidate=swift-2&baseline=swift-1&category=t2v-silent&prompt_set=quartet"
    addresses = [
        "/", "/healthz", "/leaderboards/", f"{board}/", f"{board}.csv", f"{board}.json",
        f"{board}/robustness/", f"{board}/robustness.json", "/models/", "/models/scenes/",
        "/models/scenes/?since=swift-1", "/methodology/", "/vote/", "/vote/t2v-silent/",
        "/experiments/", page, "/experiments/new/", f"/experiments/new/?{planned}",
        f"{page}snapshot.jsonl.gz", "/api/openapi.json",
        "/admin/", "/admin/progress/", "/admin/uploads/", "/admin/generation/version/",
        "/admin/generation/clip/", "/admin/generation/prompt/",
        "/admin/generation/referenceimage/", "/admin/arena/voter/", "/admin/ratings/leaderboard/",
        "/admin/ratings/delivery/",
    ]  # fmt: skip
    answers, loaded = on_a_web_host(addresses, cookies)
    assert {address: status for address, (status, _) in answers.items() if status != 200} == {}
    for address in (f"{board}/", f"{board}/robustness/", "/models/scenes/", page):
        assert "Swift 2" in answers[address][1], address
    assert not set(ABSENT) & set(loaded)


ASKED_FOR = """
from generation.backends.registry import BACKENDS, load_backend
from generation.catalogue.categories import Category
from generation.catalogue.entries import load_catalogue
from generation.models import Clip, PromptSet, Version
from generation.rendering.queue import queue_clips

for name in BACKENDS:
    load_backend(name)
load_catalogue()  # checks every version that is active
queued = queue_clips(Category.I2V_SILENT, PromptSet.objects.get(), Version.objects.all())
assert queued.added == Clip.objects.count() > 0, queued
"""


@pytest.mark.django_db(transaction=True)
def test_versions_are_checked_and_clips_asked_for_where_none_can_be_made(tmp_path: Path) -> None:
    file = tmp_path / "one.toml"
    file.write_text(
        'slug = "one"\nname = "One"\naspect = "1:1"\nseconds = 2\n'
        '[[prompt]]\nkey = "one-1"\ntext = "a big red circle bounces by day"\nimage = "scene"\n'
    )
    load_prompt_set(file)
    _, loaded = on_a_web_host(then=ASKED_FOR)
    assert not set(ABSENT) & set(loaded)
