"""Keep programs running, and end those of this run or of one that was killed.

supervisor does the keeping: it restarts a program that dies, gives up on one that dies at every
start, and keeps the logs short. It is a child of ours and is asked over XML-RPC, its documented
interface. It would also end the programs, but one after another, a second each; and what a killed
run left has to be found and ended here anyway.
"""

import ctypes
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

import psutil

# A program that dies so often, each time within so many seconds of its start, is given up.
DEATHS_ALLOWED = 5
STEADY_SECONDS = 12

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

# supervisor's settings. Paths are from the home where possible: in those, it reads `%` twice.
SUPERVISOR_SETTINGS = """
[supervisord]
nodaemon = true
; its output has the log already
logfile = /dev/null
logfile_maxbytes = 0
pidfile = supervisor.pid

[inet_http_server]
port = 127.0.0.1:{port}
username = photofinish
password = {password}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
PROGRAM_SETTINGS = """
[program:{name}]
command = {command}
directory = {folder}
environment = {env}
{user}
priority = {priority}
autostart = false
autorestart = true
startsecs = {steady}
startretries = {retries}
stopsignal = {stop_signal}
killasgroup = true
redirect_stderr = true
stdout_logfile = log/{name}.log
stdout_logfile_maxbytes = 5MB
stdout_logfile_backups = 1
"""


class LocalRunError(Exception):
    """The demo or its servers cannot run; the message is one sentence for the terminal."""


@dataclass(frozen=True)
class Program:
    """A program that runs until it is told to end."""

    name: str
    command: Sequence[str]
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)  # beside the variables of this process
    account: str = ""  # the one to run as, where that is not our own
    stop_signal: signal.Signals = signal.SIGTERM


class ProcessManager:
    """supervisor, with the programs it keeps running; the later of them may use the earlier."""

    def __init__(
        self, home: Path, programs: Sequence[Program], say: Callable[[str, str], None]
    ) -> None:
        self.home = home
        self.programs = programs
        self.pids: dict[str, int] = {}  # of each program, as `watch` saw it last
        self._say = say
        self._port, self._password = free_port(), secrets.token_urlsafe(24)
        address = f"http://photofinish:{self._password}@127.0.0.1:{self._port}/RPC2"
        self._supervisor: Any = ServerProxy(address).supervisor
        settings = home / "supervisor.conf"
        write_private(settings, self._settings())
        command = [
            sys.executable,
            *arguments_that_mark(home),
            "-m",
            "supervisor.supervisord",
            "-c",
            str(settings),
        ]
        with log_of(home, "supervisor").open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # away from the terminal's Ctrl-C
                preexec_fn=end_with_parent,  # safe: it takes no lock
            )
        while not self._answers():
            self._check_life()
            time.sleep(0.02)

    def start(self, program: Program) -> None:
        self._supervisor.startProcess(program.name, False)

    def watch(self) -> None:
        """Say what has started since the last time; LocalRunError when a program is given up."""
        self._check_life()
        try:
            states = self._supervisor.getAllProcessInfo()
        except (OSError, HTTPException):
            raise LocalRunError("The process manager, supervisor, does not answer.") from None
        for state in states:
            name, pid = state["name"], state["pid"]
            if state["statename"] == "FATAL":
                log = log_of(self.home, name)
                raise LocalRunError(
                    f"{name} died {DEATHS_ALLOWED} times in a row ({last_words(log)}); "
                    f"its log says more: {log}."
                )
            if pid and pid != self.pids.get(name):
                again = "died; running again" if name in self.pids else "running"
                self.pids[name] = pid
                self._say(name, f"{again} (process {pid})")

    def close(self) -> None:
        """End supervisor alone."""
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            return bool(self._supervisor.getState())
        except (OSError, HTTPException):
            return False

    def _check_life(self) -> None:
        if self._process.poll() is not None:
            log = log_of(self.home, "supervisor")
            raise LocalRunError(
                f"The process manager, supervisor, ended ({last_words(log)}); see {log}."
            )

    def _settings(self) -> str:
        def escaped(text: object) -> str:
            return str(text).replace("%", "%%")

        text = SUPERVISOR_SETTINGS.format(port=self._port, password=self._password)
        for priority, program in enumerate(self.programs):
            text += PROGRAM_SETTINGS.format(
                name=program.name,
                command=escaped(shlex.join(program.command)),
                folder=escaped(program.folder),
                env=",".join(f'{name}="{escaped(value)}"' for name, value in program.env.items()),
                user=f"user = {program.account}" if program.account else "",
                priority=priority,
                steady=STEADY_SECONDS,
                retries=DEATHS_ALLOWED - 1,
                stop_signal=program.stop_signal.name,
            )
        return text


def log_of(home: Path, name: str) -> Path:
    return home / "log" / f"{name}.log"


def arguments_that_mark(home: Path) -> tuple[str, str]:
    """Arguments that Python ignores and that tell this home's processes from all others."""
    return "-X", f"photofinish={home}"


def end_with_parent(sign: signal.Signals = signal.SIGTERM) -> None:
    """Called in a new process: on Linux it gets the signal when the thread that started it ends;
    if that is the main thread, however the process ends."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(sign), 0, 0, 0)


def list_processes() -> list[psutil.Process]:
    """All others; `info` holds what is asked of them, None where the system does not tell it."""
    listed = psutil.process_iter(["cmdline", "cwd", "name", "ppid"])
    return [process for process in listed if process.pid != os.getpid()]


def find_processes(
    *words: str, among: Iterable[psutil.Process] | None = None
) -> list[psutil.Process]:
    """Other processes whose command line holds `words` as consecutive arguments."""

    def has_words(arguments: list[str]) -> bool:
        starts = range(len(arguments) - len(words) + 1)
        return any(tuple(arguments[at : at + len(words)]) == words for at in starts)

    processes = list_processes() if among is None else among
    return [process for process in processes if has_words(process.info["cmdline"] or [])]


def end_processes(
    processes: Iterable[psutil.Process],
    first: signal.Signals = signal.SIGTERM,
    grace: float = 5.0,
) -> int:
    """Ask each to end, kill what is left after `grace` seconds; return how many ended."""
    waiting = [process for process in processes if is_alive(process)]
    count = len(waiting)
    for sign, seconds in ((first, grace), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + seconds
        for process in waiting:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                process.send_signal(sign)
        while (waiting := [p for p in waiting if is_alive(p)]) and time.monotonic() < deadline:
            time.sleep(0.02)
    if waiting:
        raise LocalRunError(
            f"Process {waiting[0].pid} of an earlier run does not end; its user, or root, can "
            "end it."
        )
    return count


def is_alive(process: psutil.Process) -> bool:
    """A zombie is not: in a container nobody may collect the exit status of an orphan."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def free_port() -> int:
    """A port that the system gives to nobody else for a minute.

    A connection closed from this side first leaves the port waiting for late packets: the system
    no longer offers it, and a server may still listen there.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with socket.create_connection(listener.getsockname()):
            listener.accept()[0].close()
        port: int = listener.getsockname()[1]
        return port


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    temporary.touch(0o600, exist_ok=False)
    temporary.write_text(text)
    temporary.replace(path)


def last_words(log: Path) -> str:
    """The line at the end of a log that says best why a program ended."""
    text = log.read_bytes()[-4096:].decode(errors="replace") if log.exists() else ""
    if "No space left on device" in text:
        return "the disk is full"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    fatal = [line for line in lines if re.search("FATAL: |PANIC: |Error: ", line)]
    words = (fatal or lines or ["it wrote nothing"])[-1]
    return re.sub(r"^.*(?:FATAL|PANIC): +", "", words).rstrip(".")
