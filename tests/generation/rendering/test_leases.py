"""The lease that all queues share: races, kills at each point, late writers, a database away.

Proved on uploads, whose queue needs nothing else. Holders that are killed are processes of their
own; what they do is here, so that each is killed at the point it has announced.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection

import psycopg
import pytest
from django.db import OperationalError, connection, transaction
from django.db.models.functions import Now

from generation.models import Upload, UploadState
from generation.rendering.leases import (
    Heartbeat,
    LeaseLost,
    claim,
    claimable,
    hand_back,
    held,
    postpone,
    release,
    update_held,
)

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE = 30.0
OPEN = Upload.objects.filter(state=UploadState.OPEN).order_by("created_at")


def add(number: int = 1) -> list[Upload]:
    return [Upload.objects.create(by="olga", state=UploadState.OPEN) for _ in range(number)]


def stored() -> Upload:
    return Upload.objects.get()


def expire() -> None:
    Upload.objects.update(leased_until=Now() - timedelta(seconds=1))


def claim_again() -> Upload:
    """The row in other hands, as soon as somebody may have it."""
    end = time.monotonic() + PATIENCE
    while (row := claim(OPEN, "another")) is None:
        assert time.monotonic() < end, "nobody could claim the row"
        time.sleep(0.02)
    return row


def test_a_claim_takes_the_first_row_and_writes_with_it() -> None:
    first, second = add(2)
    row = claim(OPEN, "one", seconds=100, files={"a": "b"})
    assert row == first
    assert (row.claimed_by, row.fence, row.attempts, row.files) == ("one", 1, 1, {"a": "b"})
    same = Upload.objects.get(pk=first.pk)
    assert (same.claimed_by, same.fence, same.attempts, same.files) == ("one", 1, 1, {"a": "b"})
    assert same.leased_until == row.leased_until
    left = claimable(OPEN)
    assert list(left) == [second]
    assert Upload.objects.filter(leased_until__gt=Now() + timedelta(seconds=90)).get() == first
    assert claim(OPEN) == second
    assert claim(OPEN) is None


def test_workers_that_race_get_each_row_once() -> None:
    rows = add(60)
    got: list[list[Upload]] = [[] for _ in range(8)]
    start = threading.Barrier(len(got))

    def work(mine: list[Upload]) -> None:
        try:
            start.wait()
            while row := claim(OPEN, f"worker {threading.get_ident()}"):
                mine.append(row)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(mine,)) for mine in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row.pk for mine in got for row in mine) == sorted(row.pk for row in rows)
    assert {(row.fence, row.attempts) for row in Upload.objects.all()} == {(1, 1)}
    for mine in got:  # each was handed what it asked for in the queue's order
        assert mine == sorted(mine, key=lambda row: row.created_at)


# --- a holder that is killed ---------------------------------------------------------------------


def hold(point: str, parent: Connection) -> None:
    """Claim the row and stop at this point, to be killed there."""

    def stop_here() -> None:
        parent.send(point)
        time.sleep(PATIENCE)

    if point == "claiming":
        with transaction.atomic():
            claim(OPEN, "doomed")
            stop_here()
    row = claim(OPEN, "doomed")
    assert row is not None
    if point == "claimed":
        stop_here()
    with Heartbeat(row):
        if point == "working":
            stop_here()
    if point == "worked":
        stop_here()
    with transaction.atomic():
        release(row, state=UploadState.DONE)
        if point == "writing":
            stop_here()
    stop_here()  # written


@contextmanager
def killed_at(point: str, meanwhile: Callable[[], None] = lambda: None) -> Iterator[None]:
    """A process that held the row, killed at that point."""
    connection.close()  # not to be shared with the other process
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(point, theirs))
    process.start()
    try:
        assert ours.poll(PATIENCE), f"it never came to “{point}”"
        assert ours.recv() == point
        meanwhile()
    finally:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    yield


@pytest.mark.slow
@pytest.mark.parametrize("point", ["claimed", "working", "worked", "writing"])
def test_the_row_of_a_killed_holder_is_claimed_again_after_its_lease(point: str, settings) -> None:
    settings.LEASE_SECONDS = 1.5
    (row,) = add()
    with killed_at(point):
        left = stored()
    assert (left.claimed_by, left.state, left.fence) == ("doomed", UploadState.OPEN, 1)
    again = claim_again()
    assert (again.pk, again.fence, again.attempts) == (row.pk, 2, 2)
    assert left.leased_until is not None
    # Each lease is as long as the other: the second began when the first was over.
    assert again.leased_until >= left.leased_until + timedelta(seconds=settings.LEASE_SECONDS)
    assert release(again, state=UploadState.DONE)
    assert stored().state == UploadState.DONE


def test_a_claim_that_was_not_finished_never_was(settings) -> None:
    settings.LEASE_SECONDS = 600.0
    add()
    with killed_at("claiming", meanwhile=nobody_gets_it):
        pass
    again = claim_again()
    assert (again.fence, again.attempts) == (1, 1)


def test_a_write_that_was_finished_stays() -> None:
    add()
    with killed_at("written"):
        pass
    assert (stored().state, stored().leased_until) == (UploadState.DONE, None)
    assert claim(OPEN) is None


@pytest.mark.slow
def test_a_heartbeat_keeps_the_row_until_its_process_is_killed(settings) -> None:
    settings.LEASE_SECONDS = 1.0
    add()

    def watch() -> None:
        began = stored().leased_until
        assert began is not None
        end = time.monotonic() + PATIENCE
        # It works for longer than one lease, and nobody else gets the row.
        while stored().leased_until < began + timedelta(seconds=settings.LEASE_SECONDS):
            nobody_gets_it()
            assert time.monotonic() < end, "the heartbeat did not extend the lease"

    with killed_at("working", meanwhile=watch):
        pass
    again = claim_again()
    assert (again.fence, again.attempts) == (2, 2)


def nobody_gets_it() -> None:
    assert claim(OPEN, "too early") is None


# --- a holder that was taken for dead ------------------------------------------------------------


def late_writes(row: Upload) -> list[bool]:
    hand_back(row, by="late")
    return [
        update_held(row, by="late"),
        postpone(row, 60, by="late"),
        release(row, by="late"),
        held(row).exists(),
    ]


def test_a_late_writer_changes_nothing() -> None:
    add()
    late = claim(OPEN, "late")
    assert late is not None
    expire()
    second = claim_again()
    before = Upload.objects.values().get()
    assert late_writes(late) == [False] * 4
    assert Upload.objects.values().get() == before
    assert release(second, state=UploadState.DONE)
    assert late_writes(second) == [False] * 4  # once released it is nobody's
    assert stored().by == "olga"


def test_one_whose_lease_ran_out_and_that_nobody_took_may_still_write() -> None:
    add()
    row = claim(OPEN)
    assert row is not None
    expire()
    assert release(row, state=UploadState.DONE)
    assert stored().state == UploadState.DONE


@pytest.mark.parametrize("how", ["taken over", "cancelled"])
def test_a_holder_learns_from_its_heartbeat_that_it_has_lost_the_row(how: str, settings) -> None:
    settings.LEASE_SECONDS = 0.4
    add()
    row = claim(OPEN, "slow", seconds=0.0)
    assert row is not None
    if how == "taken over":
        claim_again()
    else:
        Upload.objects.update(leased_until=None)
    before = stored()
    with Heartbeat(row) as heartbeat:
        end = time.monotonic() + PATIENCE
        while not heartbeat.lost:
            assert time.monotonic() < end
            time.sleep(0.02)
        with pytest.raises(LeaseLost, match=f"upload {row.pk} was taken over or cancelled"):
            heartbeat.check()
    assert stored().leased_until == before.leased_until


# --- put off, handed back ------------------------------------------------------------------------


def test_what_is_put_off_waits_for_its_time() -> None:
    add()
    row = claim(OPEN)
    assert row is not None
    assert postpone(row, 100, by="put off")
    put_off = stored()
    assert (put_off.leased_until, put_off.attempts, put_off.by) == (None, 1, "put off")
    assert claim(OPEN) is None
    assert Upload.objects.filter(next_try_at__gt=Now() + timedelta(seconds=90)).exists()
    Upload.objects.update(next_try_at=Now())
    again = claim(OPEN)
    assert again is not None
    assert (again.fence, again.attempts) == (2, 2)


def test_what_is_handed_back_can_be_claimed_at_once_and_costs_no_attempt() -> None:
    add()
    row = claim(OPEN)
    assert row is not None
    hand_back(row)
    again = claim(OPEN)
    assert again is not None
    assert (again.fence, again.attempts) == (2, 1)


# --- the database goes away ----------------------------------------------------------------------


@pytest.fixture
def database() -> Iterator["Database"]:
    connection.ensure_connection()
    database = Database()
    yield database
    database.let_in()
    connection.close()


class Database:
    """The tests' own, which lets nobody in while it is away, as one that restarts."""

    def __init__(self) -> None:
        names = {**connection.get_connection_params(), "dbname": "postgres"}
        for not_for_libpq in ("cursor_factory", "context", "prepare_threshold"):
            names.pop(not_for_libpq, None)
        self.name = connection.settings_dict["NAME"]
        self.operator = psycopg.connect(**names, autocommit=True)

    def go_away(self) -> None:
        self.operator.execute(f'ALTER DATABASE "{self.name}" ALLOW_CONNECTIONS false')
        self.operator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [self.name],
        )

    def let_in(self) -> None:
        self.operator.execute(f'ALTER DATABASE "{self.name}" ALLOW_CONNECTIONS true')

    @contextmanager
    def away_for(self, seconds: float) -> Iterator[None]:
        self.go_away()
        back = threading.Timer(seconds, self.let_in)
        back.start()
        yield
        back.join()


def test_a_write_is_tried_until_the_database_is_back(database: Database, settings) -> None:
    settings.LEASE_SECONDS = PATIENCE
    add()
    row = claim(OPEN)
    assert row is not None
    with database.away_for(1.0):
        assert release(row, state=UploadState.DONE)
    assert stored().state == UploadState.DONE


@pytest.mark.slow
def test_a_database_that_is_away_for_longer_than_a_lease_is_an_error(
    database: Database, settings
) -> None:
    add()
    row = claim(OPEN)
    assert row is not None
    settings.LEASE_SECONDS = 0.5
    with database.away_for(3.0), pytest.raises(OperationalError):
        release(row, state=UploadState.DONE)
    assert stored().state == UploadState.OPEN


def test_a_heartbeat_goes_on_when_the_database_is_back(database: Database, settings) -> None:
    settings.LEASE_SECONDS = 1.0
    add()
    row = claim(OPEN, seconds=600)
    assert row is not None
    began = row.leased_until
    with Heartbeat(row, seconds=1.0) as heartbeat:
        with database.away_for(1.0):
            connection.close()  # it is dead
        end = time.monotonic() + PATIENCE
        while stored().leased_until == began:
            assert time.monotonic() < end, "no beat came after the database was back"
            time.sleep(0.05)
        assert not heartbeat.lost
        assert release(row, state=UploadState.DONE)
    assert stored().state == UploadState.DONE
