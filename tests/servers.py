"""A pytest plugin: each run has a folder, a PostgreSQL and a Redis-protocol server of its own.

Loaded with `-p` so that it runs before Django reads its settings. Real servers named in
DATABASE_URL and REDIS_URL are used instead when both are given.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from arena.localservers import SITE_ROLE, LocalServers


def _home() -> Path:
    """A folder that servers which do not run as root can enter, until the tests end."""
    home = Path(tempfile.mkdtemp(prefix="photofinish-test-"))
    home.chmod(0o755)
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


def _start(home: Path) -> None:
    servers = LocalServers(home / "servers", durable=False)
    atexit.register(servers.stop)
    addresses = servers.start()
    os.environ["DATABASE_URL"] = addresses.owner_database_url
    os.environ["PHOTOFINISH_TEST_SITE_URL"] = addresses.database_url
    os.environ["REDIS_URL"] = addresses.redis_url
    os.environ["SITE_ROLE"] = SITE_ROLE
    os.environ["MEDIA_STORAGE"] = f"file://{home / 'media'}"
    os.environ["LEDGER_COPY"] = str(home / "ledger-copy")
    os.environ["SCRATCH"] = str(home / "scratch")


os.environ.setdefault("SECRET_KEY", "only for tests, and long enough that no check objects to it")
os.environ["DEBUG"] = "1"
HOME = _home()
# A run that begins closes pytest's usual folder to all but its user, and so to others' servers.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(HOME))
if "DATABASE_URL" not in os.environ or "REDIS_URL" not in os.environ:
    _start(HOME)
