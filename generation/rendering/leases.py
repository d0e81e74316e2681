"""One lease for every queue: who works on a row, until when, and whose writes count.

PostgreSQL is the truth. A worker claims a row and raises its fence; a heartbeat extends the lease
for as long as the worker lives; every later write names the fence and counts the rows it changed.
A worker that died leaves a lease that runs out, and one that was taken for dead finds its fence
gone and throws its work away. Times are the database's own, so workers need not agree on the clock.

    row = claim(queue)             the first row of the queue that nobody holds
    with Heartbeat(row):           work
    release(row, state=done)       or postpone(row, seconds), or hand_back(row)
"""

import logging
import socket
import threading
import time
from datetime import timedelta
from typing import TypeVar

from django.conf import settings
from django.db import (
    InterfaceError,
    OperationalError,
    close_old_connections,
    connection,
    models,
    transaction,
)
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

log = logging.getLogger(__name__)

AGAIN_SECONDS = 0.5  # between two tries of a write while the database is away


class LeaseLost(Exception):
    """Another worker took the row over, or somebody cancelled it: what was made is discarded."""


class Leased(models.Model):
    """A row that one worker at a time may work on."""

    claimed_by = models.CharField(
        max_length=120, blank=True, help_text="The worker that holds it, or held it last."
    )
    leased_until = models.DateTimeField(
        null=True, blank=True, help_text="Another worker takes it over then; empty if nobody's."
    )
    fence = models.PositiveIntegerField(
        default=0, help_text="Raised by each claim: the number that makes a late write harmless."
    )
    attempts = models.PositiveIntegerField(default=0)
    next_try_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True


LeasedRow = TypeVar("LeasedRow", bound=Leased)


def claimable(queue: QuerySet[LeasedRow]) -> QuerySet[LeasedRow]:
    """Those that nobody holds and that are not put off."""
    return queue.filter(
        Q(leased_until=None) | Q(leased_until__lt=Now()),
        Q(next_try_at=None) | Q(next_try_at__lte=Now()),
    )


def claim(
    queue: QuerySet[LeasedRow], by: str = "", seconds: float | None = None, **values: object
) -> LeasedRow | None:
    """Lease the first row of the queue, in the queue's own order; None if there is none.

    Rows that other workers claim at this instant are passed over. A lease lasts LEASE_SECONDS
    unless told otherwise; `values` are written with it.
    """
    with transaction.atomic():
        locked = claimable(queue).select_for_update(skip_locked=True, of=("self",))
        row = locked.first()
        if row is not None:
            lease(row, by, seconds, **values)
        return row


def lease(row: Leased, by: str = "", seconds: float | None = None, **values: object) -> None:
    """Lease a row that is locked and claimable; `claim` does both, in one transaction."""
    fields = {
        "claimed_by": by or socket.gethostname(),
        "leased_until": _lease_end(seconds),
        "fence": F("fence") + 1,
        "attempts": F("attempts") + 1,
        **values,
    }
    type(row)._default_manager.filter(pk=row.pk).update(**fields)
    row.refresh_from_db(fields=list(fields))


def held(row: LeasedRow) -> QuerySet[LeasedRow]:
    """The row while this worker holds it, to be updated with its rows counted; else nothing."""
    rows: QuerySet[LeasedRow] = type(row)._default_manager.all()
    return rows.filter(pk=row.pk, fence=row.fence, leased_until__isnull=False)


def update_held(row: Leased, **values: object) -> bool:
    """Update the row if this worker still holds it; True when that happened.

    After long work the connection may be dead, and the database may be restarting: it is asked
    again for as long as a lease would last. False may also mean that an update happened whose
    answer was lost.
    """
    end = time.monotonic() + settings.LEASE_SECONDS
    while True:
        drop_idle_connection()
        try:
            return held(row).update(**values) == 1
        except (OperationalError, InterfaceError):
            if connection.in_atomic_block or time.monotonic() > end:
                raise
            log.warning("%s: the database is away, trying again", _name(row))
            connection.close()
            time.sleep(AGAIN_SECONDS)


def release(row: Leased, **values: object) -> bool:
    """Let go of the row and write `values`, if this worker still holds it."""
    return update_held(row, leased_until=None, **values)


def postpone(row: Leased, seconds: float, **values: object) -> bool:
    """Let go of the row; nobody claims it for so many seconds."""
    return release(row, next_try_at=Now() + timedelta(seconds=seconds), **values)


def hand_back(row: Leased, **values: object) -> None:
    """Let go of the row at once without counting the attempt, by a worker that is told to end.

    It must not take long, nor fail: the lease runs out all the same.
    """
    try:
        connection.close()  # what it was doing is not known
        held(row).update(leased_until=None, attempts=F("attempts") - 1, **values)
    except Exception:
        log.warning("%s could not be handed back", _name(row), exc_info=True)


class Heartbeat:
    """Extends the lease from a thread of its own while its block runs."""

    def __init__(self, row: Leased, seconds: float | None = None) -> None:
        self.row = row
        self.lost = False
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._extend_until_stopped, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def values(self) -> dict[str, object]:
        """What else each beat writes."""
        return {}

    def check(self) -> None:
        """Stop work whose lease is gone, as the last beat found."""
        if self.lost:
            raise LeaseLost(f"{_name(self.row)} was taken over or cancelled")

    def _extend_until_stopped(self) -> None:
        pause = (settings.LEASE_SECONDS if self._seconds is None else self._seconds) / 4
        while not self.lost and not self._stop.wait(pause):
            try:
                extended = held(self.row).update(
                    leased_until=_lease_end(self._seconds), **self.values()
                )
                self.lost = extended == 0
            except Exception:  # the database restarts: the next beat tries again
                log.warning("%s: heartbeat failed, trying again", _name(self.row), exc_info=True)
            finally:
                connection.close()


def drop_idle_connection() -> None:
    """After long work the connection may be dead without knowing: start with a new one."""
    if not connection.in_atomic_block:
        close_old_connections()


def _lease_end(seconds: float | None) -> object:
    return Now() + timedelta(seconds=settings.LEASE_SECONDS if seconds is None else seconds)


def _name(row: Leased) -> str:
    return f"{row._meta.verbose_name} {row.pk}"
