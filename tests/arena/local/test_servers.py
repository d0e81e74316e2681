"""The demo's own PostgreSQL and Valkey: what is left after every kind of violent end."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from arena.local.processes import (
    LocalRunError,
    ProcessManager,
    Program,
    arguments_that_mark,
    end_processes,
    find_processes,
    free_port,
    is_alive,
)
from arena.local.servers import LocalServers
from tests.servers import open_folder

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[3]

# Runs in a process of its own, which the test kills.
OWNER = """
import sys, time
from pathlib import Path
from arena.local.servers import LocalServers

servers = LocalServers(Path(sys.argv[1]), durable=False)
servers.start()
print(servers.manager.pids["postgres"], servers.manager.pids["valkey"], flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """One home for most tests, because a new one is a thousand files."""
    with open_folder() as folder:
        yield folder / "home"


@pytest.fixture
def new_home() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder / "it's a 50% home"


@pytest.fixture
def servers(home: Path) -> Iterator[LocalServers]:
    with LocalServers(home, durable=False) as running:
        forget(running)
        yield running


def insert(servers: LocalServers, number: int) -> None:
    with psycopg.connect(servers.owner_database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
        connection.execute("INSERT INTO kept VALUES (%s)", [number])


def forget(servers: LocalServers) -> None:
    with psycopg.connect(servers.owner_database_url) as connection:
        connection.execute("DROP TABLE IF EXISTS kept")


def kept(servers: LocalServers) -> list[int]:
    with psycopg.connect(servers.owner_database_url) as connection:
        rows = connection.execute("SELECT number FROM kept ORDER BY number").fetchall()
    return [cast(int, number) for (number,) in rows]


def broker(servers: LocalServers) -> redis.Redis:
    return redis.Redis.from_url(servers.redis_url)


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and is_alive(psutil.Process(pid))


def until(what: str, condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen in {seconds:.0f} s"
        time.sleep(0.05)


def pid_of(servers: LocalServers, name: str) -> int:
    assert servers.manager is not None
    return servers.manager.pids[name]


def killed_owner(home: Path, with_manager: bool) -> tuple[int, int]:
    """Let another process start the servers and kill it; return the servers' process ids.

    Without the manager, which could still end them, the servers are left behind.
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(home)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    postgres, valkey = (int(word) for word in owner.stdout.readline().split())
    if with_manager:
        [manager] = find_processes(*arguments_that_mark(home), "-m", "supervisor.supervisord")
        manager.kill()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    return postgres, valkey


def test_killed_servers_come_back_at_their_address_with_the_data(servers: LocalServers) -> None:
    insert(servers, 1)
    killed = {name: pid_of(servers, name) for name in ("postgres", "valkey")}
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)

    def are_back() -> bool:
        assert servers.manager is not None
        servers.manager.watch()
        with suppress(psycopg.OperationalError, redis.ConnectionError):
            return killed.items().isdisjoint(servers.manager.pids.items()) and (
                kept(servers) == [1] and bool(broker(servers).ping())
            )
        return False

    until("a new start of both", are_back)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a process's children")
def test_stop_of_postgres_that_does_not_stop_in_time(
    servers: LocalServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that hangs outlives the killed postmaster and holds its shared memory."""
    monkeypatch.setattr("arena.local.servers.STOP_GRACE", 0.5)
    insert(servers, 1)
    pid = pid_of(servers, "postgres")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        with suppress(ProcessLookupError):  # the one that served `insert` may be ending
            os.kill(int(child), signal.SIGSTOP)
    servers.stop()
    assert not any(is_running(int(child)) for child in children)
    servers.start()
    assert kept(servers) == [1]


def test_data_passwords_and_roles_survive_a_stop(servers: LocalServers) -> None:
    insert(servers, 7)
    postgres, valkey = pid_of(servers, "postgres"), pid_of(servers, "valkey")
    servers.stop()
    assert not is_running(postgres)
    assert not is_running(valkey)
    with LocalServers(servers.home, durable=False) as second:
        assert kept(second) == [7]


def test_second_owner_is_refused_while_the_first_lives(servers: LocalServers) -> None:
    second = LocalServers(servers.home, durable=False)
    with pytest.raises(LocalRunError, match=rf"already running .* \(process {os.getpid()}\)"):
        second.start()
    assert broker(servers).ping(), "the refused one must not touch the servers of the first"
    insert(servers, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent")
def test_servers_end_with_a_killed_owner(home: Path) -> None:
    pids = killed_owner(home, with_manager=False)
    until("their end", lambda: not any(is_running(pid) for pid in pids), seconds=15)


def test_servers_of_a_killed_owner_are_ended_and_their_data_taken_over(home: Path) -> None:
    with LocalServers(home, durable=False) as first:
        forget(first)
        insert(first, 3)
    postgres, valkey = killed_owner(home, with_manager=True)
    assert is_running(postgres), "the test needs orphans"
    assert is_running(valkey), "the test needs orphans"
    with LocalServers(home, durable=False) as heir:
        assert not is_running(postgres)
        assert not is_running(valkey)
        assert kept(heir) == [3]
        assert broker(heir).ping()


def test_backends_of_a_killed_postmaster_do_not_stop_the_next_start(home: Path) -> None:
    postgres, valkey = killed_owner(home, with_manager=True)
    os.kill(postgres, signal.SIGKILL)
    with LocalServers(home, durable=False) as heir:
        insert(heir, 1)
        assert not is_running(valkey)


def test_stale_pid_file_that_names_a_stranger_does_not_stop_the_start(home: Path) -> None:
    """After a reboot the process id in postmaster.pid may be somebody else's."""
    with LocalServers(home, durable=False) as first:
        forget(first)
        insert(first, 5)
    account = (home / "postgres").stat()
    # PostgreSQL takes only a process of its own account for a live postmaster.
    stranger = subprocess.Popen(
        ["sleep", "60"], user=account.st_uid, group=account.st_gid, start_new_session=True
    )
    try:
        stale = home / "postgres" / "postmaster.pid"
        stale.write_text(f"{stranger.pid}\n{home / 'postgres'}\n1700000000\n5432\n\n\n\nready\n")
        with LocalServers(home, durable=False) as second:
            assert kept(second) == [5]
        assert stranger.poll() is None, "a process that is not ours must be left alone"
    finally:
        stranger.kill()
        stranger.wait()


def test_processes_that_only_mention_the_home_are_left_alone(home: Path) -> None:
    code = "import time; time.sleep(60)"
    bystander = subprocess.Popen([sys.executable, "-c", code, str(home / "postgres")])
    try:
        with LocalServers(home, durable=False):
            assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_half_made_database_is_made_again(new_home: Path) -> None:
    """A kill in the middle of the first start leaves a directory under a provisional name."""
    half = new_home / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with LocalServers(new_home, durable=False) as servers:
        insert(servers, 1)
        assert not half.exists()


def test_site_role_has_no_rights_of_its_own(servers: LocalServers) -> None:
    insert(servers, 1)
    with psycopg.connect(servers.database_url) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM kept")
        connection.rollback()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE mine (number int)")


def test_owner_role_may_make_a_test_database(servers: LocalServers) -> None:
    url = servers.owner_database_url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE test_photofinish")
        connection.execute("DROP DATABASE test_photofinish")


def test_both_servers_ask_for_the_password(servers: LocalServers) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(servers.owner_database_url, password="no")
    port = int(servers.redis_url.rsplit(":", 1)[1].split("/")[0])
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis(port=port, retry=Retry(NoBackoff(), 0)).ping()
    assert (servers.home / "secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [None, "cut"])
def test_lost_passwords_are_said_and_the_data_left_alone(
    tmp_path: Path, damage: str | None
) -> None:
    data = tmp_path / "home" / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("18\n")
    if damage:
        (tmp_path / "home" / "secret").write_text(damage)
    with pytest.raises(LocalRunError, match=r"passwords are lost.* put a good copy back"):
        LocalServers(tmp_path / "home").secret("site")
    assert (data / "PG_VERSION").exists()


def modes_above(path: Path) -> list[int]:
    return [folder.stat().st_mode for folder in path.parents]


def test_no_mode_outside_the_home_and_no_account_is_changed(new_home: Path) -> None:
    accounts = Path("/etc/passwd").read_bytes()
    modes = modes_above(new_home)
    with LocalServers(new_home, durable=False) as servers:
        owner = psutil.Process(pid_of(servers, "postgres")).uids().real
        assert owner == psutil.Process(pid_of(servers, "valkey")).uids().real != 0
    assert modes_above(new_home) == modes
    assert Path("/etc/passwd").read_bytes() == accounts


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another account")
def test_home_that_the_servers_account_cannot_reach_is_said(new_home: Path) -> None:
    closed = new_home
    closed.mkdir(mode=0o700)
    home = closed / "home"
    with pytest.raises(LocalRunError, match=f"run as nobody, who can't reach {home}; put it"):
        LocalServers(home).start()
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another account")
def test_roots_servers_run_as_the_account_that_called_sudo(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "daemon")
    with LocalServers(new_home, durable=False) as servers:
        assert psutil.Process(pid_of(servers, "postgres")).username() == "daemon"
    monkeypatch.delenv("SUDO_USER")
    with LocalServers(new_home, durable=False) as servers:
        assert psutil.Process(pid_of(servers, "postgres")).username() == "daemon"


def managed(folder: Path, code: str) -> tuple[ProcessManager, Program, list[str]]:
    """A manager of one program, started, and what it says of it."""
    (folder / "log").mkdir(exist_ok=True)
    said: list[str] = []
    program = Program("part", [sys.executable, "-c", code], folder)
    manager = ProcessManager(folder, [program], lambda name, text: said.append(f"{name} {text}"))
    manager.start(program)
    return manager, program, said


def test_program_that_dies_is_started_again(tmp_path: Path) -> None:
    manager, _, said = managed(tmp_path, "import time; time.sleep(60)")
    try:
        manager.watch()
        first = manager.pids["part"]
        os.kill(first, signal.SIGKILL)

        def is_back() -> bool:
            manager.watch()
            return manager.pids["part"] != first

        until("a new start", is_back)
        assert said == [
            f"part running (process {first})",
            f"part died; running again (process {manager.pids['part']})",
        ]
    finally:
        manager.close()
        os.kill(manager.pids["part"], signal.SIGKILL)


def test_program_that_dies_at_every_start_is_given_up(tmp_path: Path) -> None:
    manager, _, _ = managed(tmp_path, "print('no luck today');raise SystemExit(3)")
    try:
        with pytest.raises(LocalRunError, match=r"part died 5 times in a row \(no luck today\)"):
            until("the sentence", lambda: manager.watch() or False, seconds=60)
    finally:
        manager.close()


def test_killed_manager_is_said(tmp_path: Path) -> None:
    manager, _, _ = managed(tmp_path, "import time; time.sleep(60)")
    manager.watch()
    [process] = find_processes(*arguments_that_mark(tmp_path), "-m", "supervisor.supervisord")
    end_processes([process], signal.SIGKILL)
    os.kill(manager.pids["part"], signal.SIGKILL)
    with pytest.raises(LocalRunError, match="The process manager, supervisor, "):
        manager.watch()
    manager.close()


def test_free_port_is_given_to_nobody_else_and_can_be_listened_at() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == len(ports)
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", ports[0]))
        server.listen(1)


def test_process_that_ignores_the_request_is_killed() -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)\n"
    deaf = subprocess.Popen(
        [sys.executable, "-c", code + "time.sleep(60)"], stdout=subprocess.PIPE, text=True
    )
    assert deaf.stdout is not None
    deaf.stdout.readline()
    assert end_processes([psutil.Process(deaf.pid)], grace=0.3) == 1
    assert deaf.wait() == -signal.SIGKILL
    deaf.stdout.close()
