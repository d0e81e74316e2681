"""The whole arena on one machine: `python -m arena.local.demo`, or `make demo`.

In this order: own the home, end what a killed run left, start the servers, prepare the database,
start the site and its workers, ask for the demo's clips, wait for the first pair that can be voted
on, start the simulated voters. A component that dies is started again, and the end of this process
is the end of everything it started.

`python -m arena.local.demo manage COMMAND ...` runs a management command against a running demo.
"""

import argparse
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from urllib.request import ProxyHandler, build_opener

from arena.local.processes import (
    LocalRunError,
    ProcessManager,
    Program,
    arguments_that_mark,
    last_words,
    log_of,
    write_private,
)
from arena.local.servers import SITE_ROLE, LocalServers

PROJECT = Path(__file__).resolve().parents[2]

# One line for each worker: its name, its queues, the tasks it runs at once, what else it is told.
WORKERS = (
    ("control", "control", 1, ("--beat", "--schedule={home}/celerybeat-schedule")),
    ("boards", "boards", 1, ()),
    ("media", "media", 1, ()),
    ("gpu", "gpu", 1, ()),
    ("hosted", "hosted", 1, ()),
)

# The clips of a demo take some 100 MB and the database as much again; a full disk stops both.
DISK_NEEDED = 500_000_000

MEMORY_DISK = Path("/dev/shm")  # noqa: S108 (not for files of ours: gunicorn makes its own)

# What the demo's voters are asked in a quarter of the category's pairs; started once, found later.
EXPERIMENT = (
    "experiment", "start", "--candidate", "colt-2-1", "--baseline", "colt-2",
    "--category", "t2v-silent", "--prompt-set", "nightly", "--margin", "50",
)  # fmt: skip

# The versions whose clips the demo asks for: those of the catalogue that render on any machine.
# What else was entered here is rendered when somebody asks for it.
VERSIONS = (
    "scenes-reference", "scenes-stutter", "scenes-faded", "colt-2-early", "colt-2", "colt-2-fast",
    "colt-2-hd", "colt-2-1",
)  # fmt: skip

LOOK_SECONDS = 0.5
PROGRESS_SECONDS = 5.0


class Demo:
    def __init__(self, home: Path, port: int, voters: int, prompts: int) -> None:
        self.home = home
        self.port = port
        self.voters = voters
        self.prompts = prompts
        self.address = f"http://127.0.0.1:{port}"
        self.began = time.monotonic()
        self.servers = LocalServers(home)

    def run(self) -> None:
        """Run until the end is asked for; whatever happens, leave nothing running."""
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for sign in signals:
            signal.signal(sign, signal.default_int_handler)
        try:
            self._run()
        except KeyboardInterrupt:
            say("end", f"ending everything; the data stay in {self.home}")
        finally:
            for sign in signals:
                signal.signal(sign, signal.SIG_IGN)
            if self.servers.manager is not None:
                (self.home / "demo.json").unlink(missing_ok=True)
            self.servers.stop()

    def _run(self) -> None:
        self.servers.lock()
        if leftovers := self.servers.end_programs():
            say("takeover", f"ended {leftovers} processes of a run that was killed")
        check_port(self.port)
        check_disk(self.home)
        self.servers.prepare()
        settings = settings_for(self.servers) | {"SITE_ADDRESS": self.address}
        components, voters = list(self._components(settings)), self._voters(settings)
        manager = self.servers.run([*components, voters], say)
        write_private(self.home / "demo.json", json.dumps(settings, indent=1))
        # Only the migrations may change tables: nothing else is told the owner's password.
        owner = settings | {"DATABASE_URL": self.servers.owner_database_url}
        self._step("database", "tables are up to date", ["migrate", "--no-input"], owner)
        self._step("catalogue", "models and versions loaded", ["load_catalogue"], settings)
        self._step("prompts", "prompt sets loaded", ["load_prompts"], settings)
        for component in components:
            manager.start(component)
        manager.watch()
        ask = [
            "render", "--prompt-set", "scenes", "--limit", str(self.prompts), "--no-wait",
            "--version-slug", *VERSIONS,
        ]  # fmt: skip
        try:
            self._step("clips", "asked for the demo's clips", ask, settings)
        except LocalRunError as error:  # all of its versions may be paused or retired by now
            say("clips", f"no clips asked for: {error}")

        self._wait_for_first_pair(manager)
        if self.voters:
            manager.start(voters)
            self._step("experiment", "running at /experiments/", EXPERIMENT, settings)
        while True:
            manager.watch()
            time.sleep(LOOK_SECONDS)

    def _components(self, settings: Mapping[str, str]) -> Iterator[Program]:
        web = [
            *python(self.home), "-m", "gunicorn", "arena.wsgi:application",
            "--worker-class=gthread", "--workers=2", "--threads=4", "--graceful-timeout=3",
            f"--bind=127.0.0.1:{self.port}", "--no-control-socket",
        ]  # fmt: skip
        if os.access(MEMORY_DISK, os.W_OK):
            # gunicorn's workers touch a file to show that they live; on a disk that can take long.
            web.append(f"--worker-tmp-dir={MEMORY_DISK}")
        yield Program("web", web, PROJECT, settings)
        for name, queues, tasks, more in WORKERS:
            worker = [
                *python(self.home), "-m", "celery", "-A", "arena", "worker", "-l", "info",
                "-n", f"{name}@%h", "-Q", queues, "-P", "prefork", "-c", str(tasks),
                *(words.format(home=self.home) for words in more),
            ]  # fmt: skip
            # A worker told to end drops its clip at once; the next run takes it up again.
            env = {**settings, "REMAP_SIGTERM": "SIGQUIT"}
            yield Program(f"{name}-worker", worker, PROJECT, env)

    def _voters(self, settings: Mapping[str, str]) -> Program:
        simulate = [
            "nice", "-n", "10", *python(self.home), "manage.py", "simulate_votes",
            "--site", self.address, "--voters", str(self.voters), "--forever",
        ]  # fmt: skip
        return Program("voters", simulate, PROJECT, settings)

    def _step(
        self, name: str, done: str, arguments: Sequence[str], settings: Mapping[str, str]
    ) -> None:
        """Run one management command to its end."""
        log = log_of(self.home, arguments[0])
        with log.open("wb") as output:
            ran = subprocess.run(
                [*python(self.home), "manage.py", *arguments],
                cwd=PROJECT,
                env={**os.environ, **settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # away from the terminal's Ctrl-C
                check=False,
            )
        if ran.returncode:
            raise LocalRunError(
                f"`manage.py {arguments[0]}` failed ({last_words(log)}); its output is in {log}."
            )
        say(name, done)

    def _wait_for_first_pair(self, manager: ProcessManager) -> None:
        """Until a first pair can be voted on, say how far the clips are."""
        said, said_at = "", 0.0
        while True:
            manager.watch()
            health = ask_health(self.address)
            votable, clips = health.get("votable", {}), health.get("clips", {})
            if any(votable.values()):
                break
            ready, waiting, failed = (clips.get(k, 0) for k in ("ready", "waiting", "failed"))
            if failed and not ready and not waiting:
                raise LocalRunError(
                    f"All {failed} clips failed, so there is nothing to vote on; the reason is in "
                    f"{log_of(self.home, 'gpu-worker')}."
                )
            text = f"{ready} ready, {waiting} waiting" + (f", {failed} failed" if failed else "")
            text = f"{text}, no pair complete yet" if health else "waiting for the site to answer"
            if text != said and time.monotonic() - said_at >= PROGRESS_SECONDS:
                said, said_at = text, time.monotonic()
                say("clips", text)
            time.sleep(LOOK_SECONDS)
        pairs = ", ".join(f"{category} {number}" for category, number in votable.items() if number)
        took = time.monotonic() - self.began
        say("ready", f"first pair to vote on after {took:.0f} s ({pairs})")
        say("", f"vote at {self.address}   (Ctrl-C ends everything)")
        say("", "`make admin`, in another terminal, makes an account for /admin/")


def say(name: str, text: str) -> None:
    try:
        print(f"{name:<14} {text}", flush=True)
    except OSError:
        # The reader, a pipe or a closed terminal, has gone; the demo does not need it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def home_folder() -> Path:
    return Path(os.environ.get("PHOTOFINISH_HOME") or PROJECT / ".local").resolve()


def python(home: Path) -> list[str]:
    return [sys.executable, *arguments_that_mark(home)]


def settings_for(servers: LocalServers) -> dict[str, str]:
    """The environment variables that tell the site and its workers where they live."""
    home = servers.home
    (home / "media").mkdir(exist_ok=True)
    return {
        "DJANGO_SETTINGS_MODULE": "arena.settings",
        "PYTHONUNBUFFERED": "1",
        # The components share the cores; libraries that each take all of them wait for each other.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "DATABASE_URL": servers.database_url,
        "SITE_ROLE": SITE_ROLE,
        "REDIS_URL": servers.redis_url,
        "SECRET_KEY": servers.secret("site key"),
        "MEDIA_STORAGE": f"file://{home / 'media'}",
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
            taken = error.errno == errno.EADDRINUSE
            raise LocalRunError(
                f"port {port} {'is taken by another program' if taken else error.strerror}; stop "
                f"that program, or choose another port with `make demo PORT={port + 1}`."
            ) from error


def check_disk(home: Path) -> None:
    free = shutil.disk_usage(home).free
    if free < DISK_NEEDED:
        raise LocalRunError(
            f"only {free // 1_000_000} MB are free where {home} is and the demo needs "
            f"{DISK_NEEDED // 1_000_000} MB; free some, or set PHOTOFINISH_HOME to another disk."
        )


def ask_health(address: str) -> dict[str, dict[str, int]]:
    """What the site says about itself, or nothing while it does not answer sensibly."""
    try:
        with build_opener(ProxyHandler({})).open(f"{address}/healthz", timeout=3.0) as answer:
            health = json.load(answer)
    except (OSError, HTTPException, ValueError):
        return {}
    return health if health.get("ok") else {}


def manage(home: Path, arguments: Sequence[str]) -> int:
    """Run a management command against the running demo, with the site's own rights."""
    try:
        settings: dict[str, str] = json.loads((home / "demo.json").read_text())
    except FileNotFoundError:
        raise LocalRunError(
            f"no demo is running from {home}; start one with `make demo` and leave it running."
        ) from None
    command = [sys.executable, "manage.py", *arguments]
    env = {**os.environ, **settings}
    return subprocess.run(command, cwd=PROJECT, env=env, check=False).returncode


def tell_in_one_sentence(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Let an error that ends the program out as one sentence on stderr, never as a traceback."""
    crash = log_of(home_folder(), "demo")
    if isinstance(error, LocalRunError):
        sentence = str(error)
    elif isinstance(error, OSError) and (error.filename or error.errno == errno.ENOSPC):
        reason = f"{str(error.strerror).lower()} ({error.filename})"
        if error.errno == errno.ENOSPC:
            reason = "the disk is full"
        elif isinstance(error, FileExistsError | NotADirectoryError):
            reason = f"{error.filename} is a file, not a directory"
        sentence = (
            f"Cannot use {home_folder()}: {reason}; put that right, or set PHOTOFINISH_HOME to "
            "another folder."
        )
    else:
        sentence = f"The demo stopped on an error that nobody foresaw, {error!r}; see {crash}."
        with suppress(OSError):
            crash.write_text("".join(traceback.format_exception(kind, error, trace)))
    sys.stdout.flush()
    print(f"photofinish: {sentence}", file=sys.stderr)


def port_number(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port; choose one from 1 to 65535")
    return int(text)


def main(arguments: Sequence[str]) -> int:
    sys.excepthook = tell_in_one_sentence
    home = home_folder()
    if arguments[:1] == ["manage"]:
        return manage(home, arguments[1:])
    parser = argparse.ArgumentParser("python -m arena.local.demo", description="Run the arena.")
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
