"""A model team's night, on the real stack: a checkpoint that is worse, and one that is the same."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.whole.demo import PATIENCE, PROJECT, RunningDemo, kill, postmaster, processes

CATEGORY = "t2v-silent"
MEMBERS = 50  # two for each of the 25 blocks that a prompt may have, as each meets it once
PROMPTS = """
slug = "last-night"
name = "Last night"
aspect = "1:1"
seconds = 2

[[prompt]]
key = "night-1"
text = "a big blue circle bounces by day"

[[prompt]]
key = "night-2"
text = "a big green star falls by day"

[[prompt]]
key = "night-3"
text = "a big red triangle slides left at night"

[[prompt]]
key = "night-4"
text = "a big yellow square rises by day"

[[prompt]]
key = "night-5"
text = "a big purple circle slides right at night"

[[prompt]]
key = "night-6"
text = "a big red star bounces at night"
"""


def enter(demo: RunningDemo, key: str, slug: str, of: str, **settings: object) -> None:
    """POST a checkpoint with the settings of a version in the catalogue, but for these."""
    catalogue = tomllib.loads((PROJECT / "generation" / "catalogue" / "catalogue.toml").read_text())
    colt = next(model for model in catalogue["model"] if model["slug"] == "colt")
    known = next(version for version in colt["version"] if version["slug"] == of)
    answer = requests.post(
        f"{demo.site}/api/versions",
        headers={"Authorization": f"Bearer {key}"},
        json={
            "model": "colt",
            "slug": slug,
            "name": slug,
            "backend": "colt",
            "settings": {**known["settings"], **settings},
            "categories": [CATEGORY],
            "width": 64,
            "height": 64,
            "fps": 16,
            "min_seconds": 2,
            "max_seconds": 2,
        },
        timeout=30,
    )
    assert answer.status_code == 201, answer.text


@contextmanager
def running(demo: RunningDemo, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """A management command that goes on beside the test."""
    process = subprocess.Popen(
        [sys.executable, "-m", "arena.local.demo", "manage", *arguments],
        cwd=PROJECT,
        env=demo.environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def judged(demo: RunningDemo, candidate: str) -> tuple[int, dict[str, Any]]:
    """Run the gate while the panel votes; its exit code and what it printed."""
    gate = (
        "gate", "--candidate", candidate, "--baseline", "night-a", "--category", CATEGORY,
        "--prompt-set", "last-night", "--margin", "400", "--max-votes", "300",
        # A wrong verdict in one run of a hundred at most; a verdict takes some 50 of 150 blocks.
        "--alpha", "0.01", "--beta", "0.01",
        "--panel", "night-watch", "--wait", f"{2 * PATIENCE}s",
    )  # fmt: skip
    panel = ("simulate_votes", "--site", demo.site, "--panel", "night-watch", "--rate", "1000")
    with (
        running(demo, *panel, "--voters", str(MEMBERS), "--forever"),
        running(demo, *gate) as waiting,
    ):
        said, _ = waiting.communicate(timeout=3 * PATIENCE)
    return waiting.returncode, json.loads(said)


@pytest.fixture(scope="module")
def key(demo: RunningDemo, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A key of the API on a site where a night's checkpoints wait for their panel."""
    demo.wait_for_all_clips()
    prompts = tmp_path_factory.mktemp("night") / "last-night.toml"
    prompts.write_text(PROMPTS)
    demo.manage("load_prompts", str(prompts))
    scopes = [f"--scope={scope}" for scope in ("read", "experiments", "versions")]
    key = demo.manage("token", "new", "night", *scopes).split()[-1]
    enter(demo, key, "night-a", "colt-2-fast")
    enter(demo, key, "night-b", "colt-2-fast")
    enter(demo, key, "night-worse", "colt-2-early", steps=1, guidance=1.0)
    demo.manage("panel", "night-watch", "--members", str(MEMBERS))
    return key


def test_the_gate_stops_a_worse_checkpoint_and_passes_the_same(
    demo: RunningDemo, key: str, tmp_path: Path
) -> None:
    code, worse = judged(demo, "night-worse")
    assert (code, worse["verdict"]) == (10, "regressed"), worse
    assert worse["high"] < 0
    code, verdict = judged(demo, "night-b")
    assert (code, verdict["verdict"]) == (0, "pass"), verdict
    # Whether the interval holds 0 is left to the statistics' own tests: one in twenty may not.
    assert max(verdict["low"], worse["estimate"]) < verdict["estimate"] < verdict["high"]

    snapshot = tmp_path / "votes.jsonl.gz"
    demo.manage("experiment", "snapshot", verdict["experiment"], "--to", str(snapshot))
    assert "agrees: pass" in demo.manage("experiment", "verify", str(snapshot))
    on_boards = "SELECT count(*) FROM arena_vote WHERE kind = 'arena' AND experiment_id IS NOT NULL"
    assert demo.sql(on_boards)[0][0] == 0


def test_the_api_goes_on_after_the_site_and_its_database_were_killed(
    demo: RunningDemo, key: str
) -> None:
    address = f"{demo.site}/api/experiments"
    headers = {"Authorization": f"Bearer {key}"}
    design = {
        "candidate": "night-b", "baseline": "night-a", "category": CATEGORY,
        "prompt_set": "last-night", "margin": 350, "max_votes": 60, "panels": ["night-watch"],
    }  # fmt: skip
    started = requests.post(address, headers=headers, json=design, timeout=30)
    assert started.status_code == 201, started.text
    number = started.json()["experiment"]
    away: list[requests.Response] = []

    def asked_again() -> Any:
        answer = requests.post(address, headers=headers, json=design, timeout=30)
        if answer.status_code == 503:
            away.append(answer)
            return None
        return answer

    os.kill(postmaster(demo), signal.SIGKILL)
    demo.wait_for("an answer without the database", lambda: asked_again() or away)
    kill(processes(demo, "arena.wsgi:application"))
    found = demo.wait_for("an answer of the new site", asked_again)
    assert (found.status_code, found.json()["experiment"]) == (200, number)
    assert all("error" in answer.json() for answer in away)
    listed = requests.get(f"{address}?candidate=night-b&state=running", headers=headers, timeout=30)
    assert [row["experiment"] for row in listed.json()] == [number]
    demo.manage("experiment", "cancel", str(number))
