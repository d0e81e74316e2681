"""A GPU worker in processes of its own, and what can be seen of it from outside."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from django.db import connection

from arena.local.processes import end_with_parent
from generation.tasks import wake_workers
from tests.whole.demo import PATIENCE, PROJECT

LEASE = 1.2  # seconds; the row carries a new step each quarter of it


class Worker:
    """A GPU worker as an operator starts it, in a process group of its own."""

    def __init__(self, home: Path, **variables: str) -> None:
        address = urlsplit(os.environ["DATABASE_URL"])
        database = address._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
        self.scratch = home / "scratch"
        self.scratch.mkdir(exist_ok=True)
        self.log = home / "worker.log"
        environment = {
            **{name: value for name, value in os.environ.items() if name[:6] != "PYTEST"},
            "DATABASE_URL": database,
            "MEDIA_STORAGE": f"file://{home / 'media'}",
            "LEASE_SECONDS": str(LEASE),
            "OMP_NUM_THREADS": "1",
            "SCRATCH": str(self.scratch),
            **variables,
        }
        words = (
            "-m celery -A arena worker -l info -Q gpu -P prefork -c 1 -n gpu@%h --without-mingle"
        )
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *words.split()],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=PROJECT,
                start_new_session=True,
                # It ends with the tests, however these end.
                preexec_fn=lambda: end_with_parent(signal.SIGKILL),
            )
        self.child()

    def alive(self) -> bool:
        return self.process.poll() is None

    def child(self) -> int:
        """The one process that renders, as soon as the pool has it."""
        children: list[int] = []

        def one() -> bool:
            assert self.alive(), self.said()
            children[:] = children_of(self.process.pid)
            return len(children) == 1

        until("a process in the pool", one)
        return children[0]

    def fresh_child(self) -> int:
        """One that has not loaded torch yet; an idle one that has makes room for it."""
        return self.kill_child() if has_torch(self.child()) else self.child()

    def kill_child(self) -> int:
        """Kill the process that renders; returns the one that takes its place."""
        child = self.child()
        os.kill(child, signal.SIGKILL)
        until("a new process in the pool", lambda: self.child() != child)
        return self.child()

    def kill(self) -> None:
        """Kill all of it, as a machine that loses power does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def all_said(self) -> str:
        return self.log.read_text(errors="replace")

    def said(self) -> str:
        return "\n".join(self.all_said().splitlines()[-40:])


def state_of(pid: int) -> tuple[str, int]:
    """A process's state letter and its parent; Z and 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "Z", 0
    return fields[0], int(fields[1])


def children_of(parent: int) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if (found := state_of(pid))[0] != "Z" and found[1] == parent]


def has_torch(pid: int) -> bool:
    try:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def until(what: str, condition: Callable[[], bool], wake: bool = False) -> None:
    """Wait for the condition; with `wake`, wake workers up meanwhile, as beat does."""
    end, waking = time.monotonic() + PATIENCE, 0.0
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen in {PATIENCE} s"
        if wake and time.monotonic() > waking:
            wake_workers()
            waking = time.monotonic() + 1
        time.sleep(0.02)
