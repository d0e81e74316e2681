"""Rights on the ledger: the site may add to it and read it, nothing else."""

from typing import Any

from django.conf import settings
from django.db import connections, transaction

# The number of the advisory lock that every insert into the ledger shares (migration 0002).
LEDGER_LOCK = 7_301_001
LEDGER_TABLES = ("arena_vote", "arena_skip", "arena_exclusion", "arena_defect")


def grant_site_role(using: str = "default", **_: Any) -> None:
    """After `migrate`: give SITE_ROLE what the site needs and, on the ledger, only INSERT.

    Does nothing when no separate role is configured; `manage.py check --deploy` then objects.
    """
    role = settings.SITE_ROLE
    if not role:
        return
    connection = connections[using]
    with transaction.atomic(using=using), connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        if cursor.fetchone()[0] == role:
            return
        name = connection.ops.quote_name(role)
        tables = ", ".join(map(connection.ops.quote_name, LEDGER_TABLES))
        cursor.execute(f"GRANT USAGE ON SCHEMA public TO {name}")
        cursor.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}"
        )
        cursor.execute(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {name}")
        cursor.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {tables} FROM {name}")
