"""A database, a broker and folders of a bench's own, gone when it ends."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arena.local.servers import SITE_ROLE, LocalServers


@contextmanager
def own_servers() -> Iterator[Path]:
    """Start the servers and point Django's environment at them; gives the folder of it all."""
    with tempfile.TemporaryDirectory(prefix="photofinish-bench-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # root's servers run as another account
        (home / "media").mkdir()
        with LocalServers(home / "servers", durable=False) as servers:
            os.environ |= {
                "DJANGO_SETTINGS_MODULE": "arena.settings",
                "DATABASE_URL": servers.owner_database_url,
                "REDIS_URL": servers.redis_url,
                "SITE_ROLE": SITE_ROLE,
                "SECRET_KEY": "only for a bench",
                "DEMO": "1",
                "MEDIA_STORAGE": f"file://{home / 'media'}",
                "LEDGER_COPY": str(home / "ledger-copy"),
                "SCRATCH": str(home / "scratch"),
            }
            yield home
