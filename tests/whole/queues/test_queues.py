"""Nothing periodic is lost behind long work: beat, Valkey and real workers under load.

Each queue has one worker with one process, and all but control are held by work that takes eight
times as long as the shortest period. The schedule runs ten times as fast as on a site.
"""

import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import signature
from django.conf import settings
from django.db import connection
from redis import Redis

from arena.celery import app
from generation.messages import count_waiting
from tests.whole.demo import PATIENCE, PROJECT

pytestmark = pytest.mark.django_db(transaction=True)

QUEUES = ("control", "boards", "media", "gpu", "hosted")
STARTED = ("control", "boards", "media")  # those that periodic tasks go to
LONG = 8.0  # s
BUSY_FOR = 24.0  # s
FASTER = 10.0
# A message of the control queue waits for the one before it alone; the machine may be busy.
LATE = 5.0  # s


def ours() -> dict[str, Any]:
    app.loader.import_default_modules()
    return {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}


def test_every_task_has_a_queue_and_limits() -> None:
    tasks = ours()
    assert set(tasks) == set(app.conf.task_routes)
    assert {route["queue"] for route in app.conf.task_routes.values()} == set(QUEUES)
    for name, task in tasks.items():
        assert task.soft_time_limit, name
        assert task.time_limit > task.soft_time_limit, name


def test_every_periodic_task_exists_and_its_message_does_not_expire() -> None:
    for entry in app.conf.beat_schedule.values():
        assert entry["task"] in ours()
        assert "expires" not in entry.get("options", {})
        assert ours()[entry["task"]].expires is None


class Watch(threading.Thread):
    """What became of each message, as the workers tell in events."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.names: dict[str, str] = {}
        self.times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.workers: set[str] = set()
        self.broker = app.connection_for_read()
        self.receiver = app.events.Receiver(self.broker, handlers={"*": self._note})

    def run(self) -> None:
        with self.broker:
            self.receiver.capture(limit=None, timeout=None, wakeup=False)

    def _note(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        self.workers.add(event["hostname"].partition("@")[0])
        if not kind.startswith("task-"):
            return
        if kind == "task-received":
            self.names[event["uuid"]] = event["name"]
        self.times[self.names.get(event["uuid"], "?")][kind].append(time.monotonic())

    def stop(self) -> None:
        self.receiver.should_stop = True
        self.join(PATIENCE)

    def count(self, name: str, kind: str) -> int:
        return len(self.times[name][f"task-{kind}"])


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Workers and beat as an operator starts them, and what is heard from them."""
    with Redis.from_url(settings.CELERY_BROKER_URL) as broker:
        broker.flushdb()
    address = urlsplit(os.environ["DATABASE_URL"])
    environment = {
        **{name: value for name, value in os.environ.items() if name[:6] != "PYTEST"},
        "DATABASE_URL": address._replace(path=f"/{connection.settings_dict['NAME']}").geturl(),
        "OMP_NUM_THREADS": "1",
    }
    watch = Watch()
    watch.start()
    programs = {
        q: ("worker", "-l", "info", "-E", "-Q", q, "-c", "1", "-n", f"{q}@%h") for q in STARTED
    }
    programs["beat"] = ("beat", "-l", "info", "-s", str(tmp_path / "schedule"))
    processes = []
    for name, words in programs.items():
        command = [sys.executable, "-m", "celery", "-A", "tests.whole.queues.app", *words]
        with (tmp_path / f"{name}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log)
            )
    try:
        end = time.monotonic() + 2 * PATIENCE
        while not set(STARTED) <= watch.workers:
            assert time.monotonic() < end, f"only these workers came: {watch.workers}"
            time.sleep(0.1)
        yield watch
    finally:
        watch.stop()
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_no_periodic_task_expires_or_is_forgotten_behind_long_work(watch: Watch) -> None:
    held = [queue for queue in STARTED if queue != "control"]
    occupy = signature("tests.occupy", args=(LONG,), app=app)
    began = time.monotonic()
    for _ in range(round(BUSY_FOR / LONG)):
        for queue in held:
            occupy.apply_async(queue=queue)
    most: dict[str, int] = defaultdict(int)
    while time.monotonic() < began + BUSY_FOR:
        for name in app.conf.task_routes:
            most[name] = max(most[name], count_waiting(name))
        time.sleep(0.2)
    ended = time.monotonic()
    end = ended + PATIENCE
    schedule = {e["task"]: e["schedule"] / FASTER for e in app.conf.beat_schedule.values()}
    frequent = {name: period for name, period in schedule.items() if period <= BUSY_FOR / 4}
    while not all(watch.count(name, "succeeded") for name in frequent):
        assert time.monotonic() < end, {n: watch.count(n, "succeeded") for n in frequent}
        time.sleep(0.2)

    assert watch.count("tests.occupy", "succeeded") >= len(held)  # the load was there
    for name, kinds in watch.times.items():
        assert not kinds["task-revoked"], f"{name} expired {len(kinds['task-revoked'])} times"
        assert not kinds["task-failed"], name
    assert max(most[name] for name in schedule) == 1  # nothing piles up
    rows = []
    for name, period in frequent.items():
        times = [began, *(t for t in watch.times[name]["task-succeeded"] if t > began)]
        gap = max(b - a for a, b in zip(times, [*times[1:], max(ended, times[-1])], strict=True))
        queue = app.conf.task_routes[name]["queue"]
        rows.append(f"{name} ({queue}) every {period:g} s: {len(times) - 1} runs, gap {gap:.1f} s")
        if queue == "control":
            assert gap < period + LATE, rows[-1]
            assert len(times) - 1 > BUSY_FOR / (period + LATE)
    print("\n".join(rows))
