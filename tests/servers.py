"""A pytest plugin: each process has a folder, a PostgreSQL and a Redis-protocol server of its own.

Loaded with `-p` so that it runs before Django reads its settings. Real servers named in
DATABASE_URL and REDIS_URL are used instead when both are given. Of tests in several processes
(pytest-xdist) the process that deals them out runs none and needs no servers.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from arena.local.servers import SITE_ROLE, LocalServers


@contextmanager
def open_folder() -> Iterator[Path]:
    """One that every account may enter, unlike pytest's own: root's servers run as another."""
    with tempfile.TemporaryDirectory(prefix="photofinish-open-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _home() -> Path:
    home = Path(tempfile.mkdtemp(prefix="photofinish-test-"))
    home.chmod(0o755)  # root's servers run as another account
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


def _start(home: Path) -> None:
    servers = LocalServers(home / "servers", durable=False)
    atexit.register(servers.stop)
    servers.start()
    os.environ["DATABASE_URL"] = servers.owner_database_url
    os.environ["PHOTOFINISH_TEST_SITE_URL"] = servers.database_url
    os.environ["REDIS_URL"] = servers.redis_url
    os.environ["SITE_ROLE"] = SITE_ROLE
    os.environ["MEDIA_STORAGE"] = f"file://{home / 'media'}"
    os.environ["LEDGER_COPY"] = str(home / "ledger-copy")
    os.environ["SCRATCH"] = str(home / "scratch")


os.environ.setdefault("SECRET_KEY", "only for tests, and long enough that no check objects to it")
os.environ["DEBUG"] = "1"
os.environ["MEDIA_MIN_FREE"] = "0"  # nobody's tests wait for room on a disk
os.environ["HOSTED_PRIVATE"] = "1"  # services that stand in listen on this machine
HOME = _home()
# Tests' own folders go with it.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(HOME))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    """Wraps what pytest-django does here: reading the settings."""
    several = early_config.known_args_namespace.numprocesses
    runs_tests = not several or "PYTEST_XDIST_WORKER" in os.environ
    given = {"DATABASE_URL", "REDIS_URL"} <= os.environ.keys()
    if given and several:
        raise pytest.UsageError(
            "Several processes would share the Redis of REDIS_URL and take each other's tasks: "
            "leave out -n, or run `make test PROCESSES=0`."
        )
    if runs_tests and not given:
        _start(HOME)
    return (yield)
