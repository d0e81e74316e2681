"""The whole product as a user starts it, for the tests that need all of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import redis
import requests

from arena.local.processes import find_processes, free_port

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE = 600  # seconds for anything to happen on a machine that is busy with other things


class RunningDemo:
    """`make demo` without the installation: its address, its settings and its database."""

    def __init__(self, home: Path, prompts: int) -> None:
        self.home, self.port = home, free_port()
        self.site = f"http://127.0.0.1:{self.port}"
        # A short lease: a killed worker's clip is taken over within the patience of a test.
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST")},
            "PHOTOFINISH_HOME": str(home),
            "LEASE_SECONDS": "8",
        }
        self.output = (home.parent / "demo-output.txt").open("w+b")
        arguments = ["--port", str(self.port), "--voters", "0", "--prompts", str(prompts)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "arena.local.demo", *arguments],
            cwd=PROJECT,
            env=self.environment,
            stdout=self.output,
            stderr=subprocess.STDOUT,
        )

    def said(self) -> str:
        self.output.seek(0)
        return self.output.read().decode()

    @property
    def settings(self) -> dict[str, str]:
        return json.loads((self.home / "demo.json").read_text())

    def sql(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.settings["DATABASE_URL"]) as database:
            return database.execute(query, parameters).fetchall()

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.settings["REDIS_URL"])

    def health(self) -> dict[str, Any]:
        return requests.get(f"{self.site}/healthz", timeout=10).json()

    def manage(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "arena.local.demo", "manage", *arguments],
            cwd=PROJECT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def wait_for(self, what: str, condition: Callable[[], Any]) -> Any:
        """The condition's first true value; an error with the demo's own words otherwise."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.process.poll() is None, f"the demo ended:\n{self.said()}"
            try:
                if value := condition():
                    return value
            except (OSError, requests.RequestException, psycopg.OperationalError):
                pass  # something that was killed is not back yet
            time.sleep(0.2)
        raise AssertionError(f"{what} did not happen in {PATIENCE} s:\n{self.said()}")

    def wait_for_all_clips(self) -> None:
        """By the database: what /healthz says may be some seconds old."""

        def done() -> bool:
            states = dict(self.sql("SELECT state, count(*) FROM generation_clip GROUP BY state"))
            assert "failed" not in states, self.sql("SELECT error FROM generation_clip")
            return "ready" in states and not {"waiting", "rendering"} & states.keys()

        self.wait_for("all clips", done)


@contextmanager
def running_demo(home: Path, prompts: int) -> Iterator[RunningDemo]:
    demo = RunningDemo(home, prompts)
    try:
        demo.wait_for("a first pair", lambda: "first pair to vote on" in demo.said())
        yield demo
    finally:
        demo.process.terminate()
        try:
            demo.process.wait(timeout=60)
        finally:
            demo.process.kill()
            demo.output.close()


def processes(demo: RunningDemo, word: str) -> list[int]:
    """The demo's processes with this argument; nobody else's are touched."""
    own = find_processes(f"photofinish={demo.home.resolve()}")
    return [process.pid for process in find_processes(word) if process in own]


def postmaster(demo: RunningDemo) -> int:
    return int((demo.home / "postgres" / "postmaster.pid").read_text().split()[0])


def kill(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
