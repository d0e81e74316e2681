"""An operator sets the site up: every mistake is a sentence that says what to set."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
PRODUCTION = {
    "DEBUG": "0",
    "SECRET_KEY": "a key of more than fifty characters, as random as a test needs it",
    "ALLOWED_HOSTS": "arena.example",
    "REQUIRE_TOTP": "1",
}


def manage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env={**os.environ, **PRODUCTION, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def site_database(transactional_db) -> str:
    """The test database's address, as the site's own role."""
    base = os.environ.get("PHOTOFINISH_TEST_SITE_URL")
    if base is None:
        pytest.skip("the servers of this run are not ours, and have no site role that we know")
    return base.rsplit("/", 1)[0] + "/" + connection.settings_dict["NAME"]


def test_production_settings_are_clean(site_database: str) -> None:
    done = manage("check", "--deploy", "--fail-level", "WARNING", DATABASE_URL=site_database)
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


def test_a_site_that_never_decided_on_codes_is_told(site_database: str) -> None:
    environment = {"DATABASE_URL": site_database, "REQUIRE_TOTP": ""}
    done = manage("check", "--deploy", "--fail-level", "WARNING", **environment)
    assert done.returncode != 0
    assert "Operators sign in with a password alone" in done.stderr
    environment["REQUIRE_TOTP"] = "0"
    done = manage("check", "--deploy", "--fail-level", "WARNING", **environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("environment", "said", "hint"),
    [
        ({"SECRET_KEY": ""}, "There is no SECRET_KEY", "SECRET_KEY to 50 random"),
        (
            {"DATABASE_URL": "postgres://nobody:x@127.0.0.1:9/none"},
            "PostgreSQL does not answer",
            "Set DATABASE_URL",
        ),
        ({"REDIS_URL": "redis://127.0.0.1:9/0"}, "Redis does not answer", "Set REDIS_URL"),
        ({"SIGN_IN_FAILURES": "0"}, "hold nobody back", "Set SIGN_IN_FAILURES"),
    ],
)
def test_a_mistake_is_a_sentence(
    site_database: str, environment: dict[str, str], said: str, hint: str
) -> None:
    done = manage("check", "--deploy", **{"DATABASE_URL": site_database, **environment})
    assert done.returncode != 0
    assert said in done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_the_ledgers_owner_must_not_run_the_site(site_database: str) -> None:
    owner = os.environ["DATABASE_URL"].rsplit("/", 1)[0] + "/" + site_database.rsplit("/", 1)[1]
    done = manage("check", "--deploy", DATABASE_URL=owner)
    assert done.returncode != 0
    assert "may change the ledger" in done.stderr
    assert "SITE_ROLE" in done.stderr


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_static_files_collect_with_hashed_modules(tmp_path: Path) -> None:
    done = manage("collectstatic", "--no-input", STATIC_ROOT=str(tmp_path))
    assert done.returncode == 0, done.stderr
    vote = next(tmp_path.glob("js/vote.*.js"))
    assert "./players.js" not in vote.read_text()


def test_the_proxys_file_fits_the_site(settings: Any) -> None:
    """What docs/operations.md asks of a proxy, in the file that it gives."""
    text = (PROJECT / "deploy" / "nginx.conf").read_text()
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    said = [line for line in lines if line]
    assert "proxy_request_buffering on;" in said
    assert not [line for line in said if line.endswith("buffering off;")]
    for name in ("client_header_timeout", "client_body_timeout", "send_timeout", "limit_conn"):
        assert any(line.startswith(f"{name} ") for line in said), name
    for header in ("X-Forwarded-Proto $scheme", "X-Real-IP $remote_addr"):
        assert f"proxy_set_header {header};" in said
    upload = text.split("location /admin/uploads/ {")[1].split("}")[0]
    (megabytes,) = re.findall(r"client_max_body_size (\d+)m;", upload)
    assert int(megabytes) * 1024**2 > settings.UPLOAD_MB_AT_MOST * 10**6
    assert text.count("{") == text.count("}")
    docs = (PROJECT / "docs" / "operations.md").read_text()
    assert "--worker-class gthread --threads 4 --no-control-socket`" in docs
