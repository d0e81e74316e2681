"""The whole arena on one machine: `python -m arena.demo`, or `make demo`.

A supervisor in one loop, in this order: own the home, end what a killed run left, start the
servers, prepare the database, start the site and its workers, ask for the demo's clips, wait for
the first pair that can be voted on, start the simulated voters. Then it watches: a component that
dies is started again, and the end of the supervisor is the end of everything it started.

`python -m arena.demo manage COMMAND ...` runs a management command against a running demo.
"""

import argparse
import errno
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType

from arena.localservers import (
    SITE_ROLE,
    LocalServerError,
    LocalServers,
    Servers,
    end_processes,
    find_processes,
    kill_group,
    spawn,
    write_private,
)

PROJECT = Path(__file__).resolve().parent.parent

# The clips of a demo take some 100 MB and the database as much again; a full disk stops both.
DISK_NEEDED = 500_000_000

# A component that dies this often in this many seconds will not get well by being started again.
DEATHS_ALLOWED = 5
DEATHS_WINDOW = 60.0

MEMORY_DISK = Path("/dev/shm")  # noqa: S108 (not for files of ours: gunicorn makes its own)

# A clip in the making when the end comes is taken up again by the next run's worker.
GRACE = 5.0
TICK = 0.2

# What the demo's voters are asked in a quarter of the category's pairs; started once, found later.
EXPERIMENT = (
    "experiment", "start", "--candidate", "colt-2-1", "--baseline", "colt-2",
    "--category", "t2v-silent", "--prompt-set", "nightly", "--margin", "50",
)  # fmt: skip
POLL_EVERY = 1.0


class DemoError(Exception):
    """The demo cannot go on; the message is one sentence for the person at the terminal."""


class Ended(Exception):
    """Somebody asked for the end while something was being waited for."""


@dataclass
class Component:
    """One program of the demo: how to start it, and how its life has been so far."""

    name: str
    command: list[str]
    env: dict[str, str]
    log: Path
    niceness: int = 0
    process: subprocess.Popen[bytes] | None = None
    deaths: deque[float] = field(default_factory=deque)
    start_at: float = 0.0

    def start(self) -> None:
        self.process = spawn(
            self.command, log=self.log, env=self.env, cwd=PROJECT, niceness=self.niceness
        )

    def died(self) -> bool:
        """Whether it has ended since the last look; the second look at one death says no."""
        if self.process is None or self.process.poll() is None:
            return False
        kill_group(self.process.pid)
        self.process = None
        return True

    def plan_restart(self, now: float) -> float:
        """Note a death and return the seconds to wait: 0.5, 1, 2, 4; then raise DemoError."""
        self.deaths.append(now)
        while self.deaths[0] < now - DEATHS_WINDOW:
            self.deaths.popleft()
        if len(self.deaths) >= DEATHS_ALLOWED:
            raise DemoError(
                f"{self.name} died {DEATHS_ALLOWED} times within {DEATHS_WINDOW:.0f} s "
                f"({last_line(self.log)}); its log says more: {self.log}"
            )
        pause: float = 0.5 * 2 ** (len(self.deaths) - 1)
        self.start_at = now + pause
        return pause


class Screen:
    """Lines for a person: one per event, and on a terminal one line that changes in place."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self._open_line = False
        self._last_progress = ""
        self._last_progress_at = 0.0

    def line(self, name: str, text: str) -> None:
        self._write(("\r\033[K" if self._open_line else "") + f"{name:<10} {text}\n")
        self._open_line = False

    def progress(self, text: str) -> None:
        """Show where things stand; away from a terminal, only news and at most every 5 s."""
        if text == self._last_progress:
            return
        if self.terminal:
            self._write(f"\r\033[K{'clips':<10} {text}")
            self._open_line = True
        elif time.monotonic() - self._last_progress_at >= 5.0:
            self._write(f"{'clips':<10} {text}\n")
            self._last_progress_at = time.monotonic()
        else:
            return
        self._last_progress = text

    def close_line(self) -> None:
        if self._open_line:
            self._write("\n")
            self._open_line = False

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:
            # The reader, a pipe or a closed terminal, has gone; the demo does not need it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Demo:
    def __init__(self, home: Path, port: int, voters: int, prompts: int) -> None:
        self.home = home
        self.port = port
        self.voters = voters
        self.prompts = prompts
        self.began = time.monotonic()
        self.screen = Screen()
        self.servers = LocalServers(home)
        self.components: list[Component] = []
        self._voters: Component | None = None
        self._end_asked = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self) -> None:
        """Run until the end is asked for; whatever happens, leave nothing running."""
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sign, self._ask_for_end)
        try:
            self._start()
            self._supervise()
        except Ended:
            pass
        finally:
            self._stop()

    # --- the beginning --------------------------------------------------------------------------

    def _start(self) -> None:
        self.servers.lock()
        leftovers = end_processes(find_processes(*mark_of(self.home)))
        if leftovers:
            self.screen.line("takeover", f"ended {leftovers} processes of a run that was killed")
        check_port(self.port)
        check_disk(self.home)

        servers = self.servers.start()
        for notice in self.servers.notices:
            self.screen.line("servers", notice)
        self._go_on()
        self.screen.line("postgres", f"running (process {self.servers.postgres_pid})")
        self.screen.line("valkey", f"running (process {self.servers.valkey_pid})")

        settings = settings_for(self.home, servers) | {"SITE_ADDRESS": self.address}
        write_private(self.home / "demo.json", json.dumps(settings, indent=1))
        site_env = {**os.environ, **settings}
        # Only the migrations may change tables: nothing else is told the owner's password.
        owner_env = site_env | {
            "DATABASE_URL": servers.owner_database_url,
            "DATABASE_OWNER_URL": servers.owner_database_url,
        }
        self._step("database", "tables are up to date", ["migrate", "--no-input"], owner_env)
        self._step("catalogue", "models and versions loaded", ["load_catalog"], site_env)
        self._step("prompts", "prompt sets loaded", ["load_prompts"], site_env)

        for component in self._components(site_env):
            self._add(component)
        ask = ["render", "--prompt-set", "scenes", "--limit", str(self.prompts), "--no-wait"]
        self._step("clips", "asked for the demo's clips", ask, site_env)
        if self.voters:
            self._voters = self._component(
                "voters",
                f"manage.py simulate_votes --site {self.address} --voters {self.voters} --forever",
                site_env,
                niceness=10,
            )

    def _step(self, name: str, done: str, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        """Run one management command to its end, while the components are looked after."""
        log = self.home / "log" / f"{arguments[0]}.log"
        log.unlink(missing_ok=True)
        command = [*python(self.home), "manage.py", *arguments]
        process = spawn(command, log=log, env=env, cwd=PROJECT)
        try:
            while process.poll() is None:
                self._go_on()
                self._look_after_components()
                time.sleep(0.05)
        finally:
            kill_group(process.pid)
        if process.wait() != 0:
            raise DemoError(
                f"`manage.py {arguments[0]}` failed ({last_line(log)}); its output is in {log}"
            )
        self.screen.line(name, done)

    def _components(self, env: Mapping[str, str]) -> Iterator[Component]:
        yield self._component(
            "web",
            "-m gunicorn arena.wsgi:application --worker-class gthread --workers 2 --threads 4 "
            f"--bind 127.0.0.1:{self.port} --graceful-timeout 3 --no-control-socket",
            env,
            # gunicorn's workers touch a file to show that they live; on a disk that can take long.
            *(["--worker-tmp-dir", str(MEMORY_DISK)] if os.access(MEMORY_DISK, os.W_OK) else []),
        )
        # A worker told to end drops its clip at once instead of finishing it first.
        worker_env = {**env, "REMAP_SIGTERM": "SIGQUIT"}
        worker = "-m celery -A arena worker -l info"
        yield self._component(
            "gpu worker", f"{worker} -Q gpu -P prefork -c 1 -n gpu@%h", worker_env
        )
        yield self._component(
            "cpu worker",
            f"{worker} -Q cpu -c 1 -n cpu@%h -B",
            worker_env,
            "-s",
            str(self.home / "celerybeat-schedule"),
        )

    def _component(
        self, name: str, words: str, env: Mapping[str, str], *paths: str, niceness: int = 0
    ) -> Component:
        """A component run by Python with `words`, then with what may hold spaces."""
        log = self.home / "log" / f"{name.replace(' ', '-')}.log"
        command = [*python(self.home), *words.split(), *paths]
        return Component(name, command, dict(env), log, niceness)

    def _add(self, component: Component) -> None:
        component.start()
        self.components.append(component)
        assert component.process is not None
        self.screen.line(component.name, f"running (process {component.process.pid})")

    # --- the middle -----------------------------------------------------------------------------

    def _supervise(self) -> None:
        """Watch everything; until a first pair can be voted on, show how far the clips are."""
        waiting = True
        poll_at = 0.0
        while True:
            self._go_on()
            self._look_after_components()
            now = time.monotonic()
            if waiting and now >= poll_at:
                poll_at = now + POLL_EVERY
                waiting = not self._first_pair_is_there()
                if not waiting and self._voters is not None:
                    self._add(self._voters)
                    self._step(
                        "experiment", "running at /experiments/", EXPERIMENT, self._voters.env
                    )
            time.sleep(TICK)

    def _look_after_components(self) -> None:
        for name in self.servers.revive():
            self.screen.line(name, "died; running again")
        now = time.monotonic()
        for component in self.components:
            if component.died():
                pause = component.plan_restart(now)
                self.screen.line(component.name, f"died; again in {pause:g} s")
            elif component.process is None and now >= component.start_at:
                component.start()
                self.screen.line(component.name, "running again")

    def _first_pair_is_there(self) -> bool:
        health = ask_health(self.port)
        if health is None:
            self.screen.progress("waiting for the site to answer")
            return False
        votable, clips = counts(health, "votable"), counts(health, "clips")
        ready, left = clips.get("ready", 0), clips.get("waiting", 0)
        failed = clips.get("failed", 0)
        if not any(votable.values()):
            if failed and not ready and not left:
                raise DemoError(
                    f"all {failed} clips failed, so there is nothing to vote on; the reason is in "
                    f"{self.home / 'log' / 'gpu-worker.log'}"
                )
            text = f"{ready} ready, {left} waiting" + (f", {failed} failed" if failed else "")
            self.screen.progress(f"{text}, no pair complete yet")
            return False
        pairs = ", ".join(f"{category} {number}" for category, number in votable.items() if number)
        took = time.monotonic() - self.began
        self.screen.line("ready", f"first pair to vote on after {took:.0f} s ({pairs})")
        self.screen.line("", f"vote at {self.address}   (Ctrl-C ends everything)")
        self.screen.line("", "`make admin`, in another terminal, makes an account for /admin/")
        return True

    def _ask_for_end(self, number: int, frame: FrameType | None) -> None:
        self._end_asked = True

    def _go_on(self) -> None:
        if self._end_asked:
            raise Ended

    # --- the end --------------------------------------------------------------------------------

    def _stop(self) -> None:
        """End the components together, then the servers they use; kill what does not listen."""
        running = [part.process for part in self.components if part.process is not None]
        self.screen.close_line()
        if self._end_asked:
            self.screen.line("end", "ending everything")
        for process in running:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + GRACE
        while any(process.poll() is None for process in running) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in running:
            kill_group(process.pid)
            process.wait()
        if running:
            (self.home / "demo.json").unlink(missing_ok=True)
        self.servers.stop()
        if self._end_asked:
            self.screen.line("end", "everything has ended; the data stay in " + str(self.home))


# --- pieces ---------------------------------------------------------------------------------------


def home_directory() -> Path:
    return Path(os.environ.get("PHOTOFINISH_HOME") or PROJECT / ".local").resolve()


def mark_of(home: Path) -> tuple[str, str]:
    """Arguments that Python ignores and that tell this home's processes from all others."""
    return "-X", f"photofinish={home}"


def python(home: Path) -> list[str]:
    return [sys.executable, *mark_of(home)]


def settings_for(home: Path, servers: Servers) -> dict[str, str]:
    """The environment variables that tell the site and its workers where they live."""
    secret = home / "secret-key"
    if not secret.exists():
        write_private(secret, secrets.token_urlsafe(50))
    media = home / "media"
    media.mkdir(exist_ok=True)
    return {
        "DJANGO_SETTINGS_MODULE": "arena.settings",
        "PYTHONUNBUFFERED": "1",
        # The components share the cores; libraries that each take all of them wait for each other.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "DATABASE_URL": servers.database_url,
        "SITE_ROLE": SITE_ROLE,
        "REDIS_URL": servers.redis_url,
        "SECRET_KEY": secret.read_text(),
        "MEDIA_STORAGE": f"file://{media}",
        "LEDGER_COPY": str(home / "ledger-copy"),
        "SCRATCH": str(home / "scratch"),
        "DEBUG": "0",
        "ALLOWED_HOSTS": "127.0.0.1,localhost",
        "DEMO": "1",
        "COUNT_SIMULATED_VOTES": "1",
    }


def check_port(port: int) -> None:
    with socket.socket() as probe:
        # Connections of a site that ended a moment ago do not count, as they do not for gunicorn.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            reason = (
                "is taken by another program"
                if error.errno == errno.EADDRINUSE
                else str(error.strerror)
            )
            raise DemoError(
                f"port {port} {reason}; stop that program, or choose another port with "
                f"`make demo PORT={port + 1}`"
            ) from error


def check_disk(home: Path) -> None:
    free = shutil.disk_usage(home).free
    if free < DISK_NEEDED:
        raise DemoError(
            f"only {free // 1_000_000} MB are free where {home} is and the demo needs "
            f"{DISK_NEEDED // 1_000_000} MB; free some, or set PHOTOFINISH_HOME to another disk"
        )


def ask_health(port: int) -> dict[str, object] | None:
    """What the site says about itself, or None while it does not answer sensibly."""
    wire = http.client.HTTPConnection("127.0.0.1", port, timeout=3.0)
    try:
        wire.request("GET", "/healthz")
        health = json.load(wire.getresponse())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        wire.close()
    return health if isinstance(health, dict) and health.get("ok") else None


def counts(health: dict[str, object], key: str) -> dict[str, int]:
    found = health.get(key)
    return found if isinstance(found, dict) else {}


def last_line(log: Path) -> str:
    """The last thing a program said before it died."""
    if not log.exists():
        return "it left no word"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    words = [line.strip() for line in lines if line.strip()]
    return words[-1].rstrip(".") if words else "it left no word"


def manage(home: Path, arguments: Sequence[str]) -> int:
    """Run a management command against the running demo, with the site's own rights."""
    try:
        settings: dict[str, str] = json.loads((home / "demo.json").read_text())
    except FileNotFoundError:
        raise DemoError(
            f"no demo is running from {home}; start one with `make demo` and leave it running"
        ) from None
    command = [sys.executable, "manage.py", *arguments]
    env = {**os.environ, **settings}
    return subprocess.run(command, cwd=PROJECT, env=env, check=False).returncode


def tell_in_one_sentence(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Let an error that ends the program out as one sentence on stderr, never as a traceback."""
    sentence = str(error)
    if not issubclass(kind, DemoError | LocalServerError):
        crash = home_directory() / "log" / "demo.log"
        sentence = f"the demo stopped on an error that nobody foresaw, {error!r}"
        try:
            crash.write_text("".join(traceback.format_exception(kind, error, trace)))
            sentence += f"; the details are in {crash}"
        except OSError:
            sentence += "; its details could not be written down"
    sys.stdout.flush()
    print(f"photofinish: {sentence.rstrip('.')}.", file=sys.stderr)


def port_number(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port; choose one from 1 to 65535")
    return int(text)


def main(arguments: Sequence[str]) -> int:
    sys.excepthook = tell_in_one_sentence
    home = home_directory()
    if arguments[:1] == ["manage"]:
        return manage(home, arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m arena.demo", description="Run the arena here.")
    parser.add_argument("--port", type=port_number, default=8000, help="the site's port (8000)")
    parser.add_argument(
        "--voters", type=int, default=300, help="simulated voters (300); 0 for none"
    )
    parser.add_argument(
        "--prompts", type=int, default=16, help="prompts to make clips of, per category (16)"
    )
    options = parser.parse_args(arguments)
    Demo(home, options.port, options.voters, options.prompts).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
