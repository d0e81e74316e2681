"""The append-only ledger: who may write it, where it ends, and which votes were taken out.

Every insert shares one advisory lock (migration 0002); whoever holds it alone for an instant knows
that no number below the last one is still to come.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.db.models import Max, QuerySet

from arena.celery import wake
from arena.models import Exclusion, Vote, Voter

LEDGER_LOCK = 7_301_001
# The class of locks by name: two keys, so that no name can meet the ledger's lock of one.
NAMED_LOCKS = 7_301
LEDGER_TABLES = ("arena_vote", "arena_skip", "arena_exclusion", "arena_defect")

# The latest entry about a vote or about its voter decides, and either can take the vote out.
EXCLUDED_VOTES = """
    SELECT vote_id FROM (
        SELECT DISTINCT ON (vote_id) vote_id, action FROM arena_exclusion
        WHERE vote_id IS NOT NULL AND id <= %s ORDER BY vote_id, id DESC
    ) latest WHERE action = 'exclude'
"""
EXCLUDED_VOTERS = """
    SELECT voter_id FROM (
        SELECT DISTINCT ON (voter_id) voter_id, action FROM arena_exclusion
        WHERE voter_id IS NOT NULL AND id <= %s ORDER BY voter_id, id DESC
    ) latest WHERE action = 'exclude'
"""


@dataclass(frozen=True)
class LedgerEnd:
    """Up to where the ledger is read, and whether simulated votes count."""

    last_vote: int
    last_exclusion: int
    simulated: bool


@dataclass(frozen=True)
class Excluded:
    """What the latest exclusions up to one entry take out."""

    votes: frozenset[int]
    voters: frozenset[UUID]


def excluded_up_to(last_exclusion: int) -> Excluded:
    """Votes and voters that the ledger's entries up to this one take out."""
    with connection.cursor() as cursor:
        cursor.execute(EXCLUDED_VOTES, [last_exclusion])
        votes = frozenset(row[0] for row in cursor.fetchall())
        cursor.execute(EXCLUDED_VOTERS, [last_exclusion])
        voters = frozenset(row[0] for row in cursor.fetchall())
    return Excluded(votes, voters)


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


@transaction.atomic
def end_of(votes: QuerySet[Vote]) -> LedgerEnd:
    """The last of these votes and the last exclusion of all, 0 when there is none.

    Numbers are given before rows are committed. The lock waits for every insert under way, so that
    no vote below the last one turns up later. Voters wait while it is held, and it is held until
    the transaction ends: never call this within a long one.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LEDGER_LOCK])
    last_vote = votes.aggregate(last=Max("pk"))["last"]
    last_exclusion = Exclusion.objects.aggregate(last=Max("pk"))["last"]
    return LedgerEnd(last_vote or 0, last_exclusion or 0, settings.COUNT_SIMULATED_VOTES)


@contextmanager
def advisory_lock(name: str, wait: bool = True) -> Iterator[bool]:
    """A transaction that only one at a time has under this name. Without `wait`, false where
    another has it."""
    with transaction.atomic(), connection.cursor() as cursor:
        if wait:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [NAMED_LOCKS, name])
            yield True
        else:
            cursor.execute(
                "SELECT pg_try_advisory_xact_lock(%s, hashtext(%s))", [NAMED_LOCKS, name]
            )
            yield cursor.fetchone()[0]


def look_after_exclusion() -> None:
    """Have workers look at once whose panels have too few votes left now, and whose again enough
    (arena/experiments/obstacles.py)."""
    transaction.on_commit(lambda: wake("arena.tasks.look_at_experiments"))


def record_exclusions(
    action: Exclusion.Action, field: str, things: Sequence[Voter | Vote], reason: str, by: User
) -> int:
    """One entry for each voter or vote about which the latest entry says otherwise; returns how
    many."""
    latest = dict(
        Exclusion.objects.filter(**{f"{field}__in": things})
        .order_by(f"{field}_id", "-pk")
        .distinct(f"{field}_id")
        .values_list(f"{field}_id", "action")
    )
    entries = [
        Exclusion(action=action, reason=reason, by=by, **{field: thing})
        for thing in things
        if latest.get(thing.pk, Exclusion.Action.INCLUDE) != action
    ]
    if entries:
        Exclusion.objects.bulk_create(entries)
        look_after_exclusion()
    return len(entries)
