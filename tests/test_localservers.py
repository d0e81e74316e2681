"""The demo's own PostgreSQL and Valkey: what is left after every kind of violent end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from arena.localservers import AlreadyRunning, LocalServerError, LocalServers, end_processes

PROJECT = Path(__file__).resolve().parent.parent

# Runs in a process of its own, which the test kills. Servers started from the main thread end with
# it; started from another thread they are left behind, as they are where the system has no tie.
OWNER = """
import sys, threading, time
from pathlib import Path
from arena.localservers import LocalServers

def own() -> None:
    servers = LocalServers(Path(sys.argv[1]), durable=False)
    servers.start()
    print(servers.postgres_pid, servers.valkey_pid, flush=True)
    time.sleep(60)

if sys.argv[2] == "tied":
    own()
else:
    thread = threading.Thread(target=own)
    thread.start()
    thread.join()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for most tests, because a new one is a thousand files."""
    return tmp_path_factory.mktemp("localservers") / "home"


@pytest.fixture
def servers(home: Path) -> Iterator[LocalServers]:
    with LocalServers(home, durable=False) as running:
        forget(running)
        yield running


def insert(servers: LocalServers, number: int) -> None:
    with psycopg.connect(servers.servers.owner_database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
        connection.execute("INSERT INTO kept VALUES (%s)", [number])


def forget(servers: LocalServers) -> None:
    with psycopg.connect(servers.servers.owner_database_url) as connection:
        connection.execute("DROP TABLE IF EXISTS kept")


def kept(servers: LocalServers) -> list[int]:
    with psycopg.connect(servers.servers.owner_database_url) as connection:
        rows = connection.execute("SELECT number FROM kept ORDER BY number").fetchall()
    return [cast(int, number) for (number,) in rows]


def broker(servers: LocalServers) -> redis.Redis:
    return redis.Redis.from_url(servers.servers.redis_url)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


def killed_owner(home: Path, how: str) -> tuple[int, int]:
    """Let another process start the servers and kill it; return the servers' process ids."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(home), how],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    postgres, valkey = (int(word) for word in owner.stdout.readline().split())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    return postgres, valkey


def test_killed_servers_come_back_at_their_address_with_the_data(servers: LocalServers) -> None:
    insert(servers, 1)
    before = servers.servers
    killed = {servers.postgres_pid, servers.valkey_pid}
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    assert servers.revive() == ["postgres", "valkey"]

    assert servers.servers == before
    assert kept(servers) == [1]
    assert broker(servers).ping()
    assert killed.isdisjoint({servers.postgres_pid, servers.valkey_pid})
    assert servers.revive() == []


def test_restart_of_postgres_keeps_address_and_data(servers: LocalServers) -> None:
    insert(servers, 1)
    before, pid = servers.servers, servers.postgres_pid
    servers.restart_postgres()
    assert servers.postgres_pid != pid
    assert servers.servers == before
    assert kept(servers) == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a process's children")
def test_restart_of_postgres_that_does_not_stop_in_time(
    servers: LocalServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that hangs outlives the killed postmaster and holds its shared memory."""
    monkeypatch.setattr("arena.localservers.STOP_GRACE", 0.5)
    insert(servers, 1)
    pid = servers.postgres_pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        with suppress(ProcessLookupError):  # the one that served `insert` may be ending
            os.kill(int(child), signal.SIGSTOP)
    servers.restart_postgres()
    assert kept(servers) == [1]
    assert not any(is_running(int(child)) for child in children)


def test_data_passwords_and_roles_survive_a_stop(servers: LocalServers) -> None:
    insert(servers, 7)
    postgres, valkey = servers.postgres_pid, servers.valkey_pid
    servers.stop()
    assert not is_running(postgres)
    assert not is_running(valkey)
    with LocalServers(servers.home, durable=False) as second:
        assert kept(second) == [7]


def test_second_owner_is_refused_while_the_first_lives(servers: LocalServers) -> None:
    second = LocalServers(servers.home, durable=False)
    with pytest.raises(AlreadyRunning, match=rf"already running .* \(process {os.getpid()}\)"):
        second.start()
    assert broker(servers).ping(), "the refused one must not touch the servers of the first"
    insert(servers, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent")
def test_servers_end_with_a_killed_owner(home: Path) -> None:
    postgres, valkey = killed_owner(home, "tied")
    assert ends_within(postgres, 10)
    assert ends_within(valkey, 10)


def test_servers_of_a_killed_owner_are_ended_and_their_data_taken_over(home: Path) -> None:
    with LocalServers(home, durable=False) as first:
        forget(first)
        insert(first, 3)
    postgres, valkey = killed_owner(home, "untied")
    assert is_running(postgres), "the test needs orphans"
    assert is_running(valkey), "the test needs orphans"
    with LocalServers(home, durable=False) as heir:
        assert not is_running(postgres)
        assert not is_running(valkey)
        assert kept(heir) == [3]
        assert broker(heir).ping()
        assert "Ended the servers that a killed run had left behind." in heir.notices


def test_backends_of_a_killed_postmaster_do_not_stop_the_next_start(home: Path) -> None:
    postgres, valkey = killed_owner(home, "untied")
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


def test_half_made_database_is_made_again(tmp_path: Path) -> None:
    """A kill in the middle of the first start leaves a directory under a provisional name."""
    half = tmp_path / "home" / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with LocalServers(tmp_path / "home", durable=False) as servers:
        insert(servers, 1)
        assert not half.exists()


def test_site_role_has_no_rights_of_its_own(servers: LocalServers) -> None:
    insert(servers, 1)
    with psycopg.connect(servers.servers.database_url) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM kept")
        connection.rollback()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE mine (number int)")


def test_owner_role_may_make_a_test_database(servers: LocalServers) -> None:
    url = servers.servers.owner_database_url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE test_photofinish")
        connection.execute("DROP DATABASE test_photofinish")


def test_both_servers_ask_for_the_password(servers: LocalServers) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(servers.servers.owner_database_url, password="no")
    port = int(servers.servers.redis_url.rsplit(":", 1)[1].split("/")[0])
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis(port=port, retry=Retry(NoBackoff(), 0)).ping()
    assert (servers.home / "passwords.json").stat().st_mode & 0o777 == 0o600


def test_lost_passwords_are_said_and_the_data_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "home" / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("18\n")
    with pytest.raises(LocalServerError, match=r"passwords\.json is gone; put that file back"):
        LocalServers(tmp_path / "home").start()
    assert (data / "PG_VERSION").exists()


def test_unreadable_passwords_are_said(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "passwords.json").write_text("{")
    with pytest.raises(LocalServerError, match="cannot be read; put a good copy back"):
        LocalServers(tmp_path / "home").start()


def test_home_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(LocalServerError, match="is a file, not a directory"):
        LocalServers(tmp_path / "home").start()


def test_process_that_ignores_the_request_is_killed() -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)\n"
    deaf = subprocess.Popen(
        [sys.executable, "-c", code + "time.sleep(60)"], stdout=subprocess.PIPE, text=True
    )
    assert deaf.stdout is not None
    deaf.stdout.readline()
    assert end_processes([deaf.pid], grace=0.3) == 1
    assert deaf.wait() == -signal.SIGKILL
    deaf.stdout.close()
