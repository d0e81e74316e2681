"""A copy of the ledger's votes on the machine's own disk, so that a refit reads only what is new.

The ledger stays the truth. It is append-only, so a copy can only lack its newest part; the copy is
thrown away and read again when its first or last vote is not the ledger's: another database, or one
restored from a backup. Losing a copy costs the time to read it again.
"""

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import numpy as np
from django.conf import settings
from django.db import connection

from arena.models import Choice

log = logging.getLogger(__name__)

CHOICES = list(Choice)  # a choice's position here is its code in the copy
ROW = np.dtype(
    [
        ("id", "<i8"),
        ("voter", "<i8"),
        ("prompt", "<i8"),
        ("a", "<i8"),
        ("b", "<i8"),
        ("choice", "u1"),
        ("simulated", "u1"),
    ]
)
NAMES = [choice.value for choice in CHOICES]
COPY = f"""
    COPY (
        SELECT id, voter_id, prompt_id, version_a_id, version_b_id,
            array_position(ARRAY{NAMES}::varchar[], choice)::smallint, simulated
        FROM arena_vote
        WHERE category = %s AND kind = 'arena' AND id > %s AND id <= %s ORDER BY id
    ) TO STDOUT (FORMAT BINARY)
"""
SENT = ("int8", "uuid", "int8", "int8", "int8", "int2", "bool")  # the types of its columns
ROWS_AT_ONCE = 100_000


def votes_of(category: str, last_vote: int, folder: Path | None = None) -> np.ndarray:
    """The category's votes up to `last_vote`, oldest first: `ROW`s, shape (n_votes,), read-only.

    Kept in `folder`, or in the one of this database.
    """
    folder = folder or _folder()
    path = folder / f"{category}.votes"
    with _locked(folder / f"{category}.lock"):
        if path.exists() and not _is_of_this_ledger(category, _open(path)):
            log.warning("%s is not a copy of this ledger; reading the ledger again", path)
            path.unlink()  # whoever reads it now goes on with what was mapped
        with open(path, "ab") as file:
            _add_new_votes(file, category, last_vote)
        rows = _open(path)
    return rows[: int(np.searchsorted(rows["id"], last_vote, side="right"))]


def voter_label(voter_id: UUID) -> int:
    """A whole number for a voter's random UUID: 62 of its bits."""
    return voter_id.int & (2**63 - 1)


def _folder() -> Path:
    address = "{HOST}:{PORT}/{NAME}".format(**connection.settings_dict)
    address += f" {NAMES} {ROW.descr}"  # another release may write other rows
    folder = Path(settings.LEDGER_COPY) / hashlib.sha256(address.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process of this machine at a time."""
    with open(path, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open(path: Path) -> np.ndarray:
    """Map the whole rows of a copy; a process killed while it wrote leaves part of one."""
    rows = path.stat().st_size // ROW.itemsize
    if rows == 0:
        return np.empty(0, ROW)
    return np.memmap(path, ROW, mode="r", shape=(rows,))


def _is_of_this_ledger(category: str, rows: np.ndarray) -> bool:
    """Whether the first and the last vote are in the ledger as copied, and the ids ascend."""
    if not rows.size:
        return True
    if not (np.diff(rows["id"]) > 0).all():
        return False
    ends = [rows[0], rows[-1]]
    found = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, voter_id, prompt_id, version_a_id, version_b_id,"
            " choice, simulated FROM arena_vote WHERE category = %s AND id = ANY(%s)",
            [category, [int(row["id"]) for row in ends]],
        )
        for pk, voter, prompt, a, b, choice, simulated in cursor.fetchall():
            code = NAMES.index(choice)
            found[pk] = (pk, voter_label(voter), prompt, a, b, code, int(simulated))
    return all(found.get(int(row["id"])) == row.item() for row in ends)


def _add_new_votes(file: BinaryIO, category: str, last_vote: int) -> None:
    end = os.fstat(file.fileno()).st_size
    whole = end // ROW.itemsize * ROW.itemsize
    if whole != end:
        file.truncate(whole)
    rows = _open(Path(file.name))
    newest = int(rows["id"][-1]) if rows.size else 0
    if newest >= last_vote:
        return
    connection.ensure_connection()
    # psycopg's own cursor: Django's knows COPY without parameters only.
    with (
        connection.connection.cursor() as cursor,
        cursor.copy(COPY, [category, newest, last_vote]) as copy,
    ):
        copy.set_types(SENT)
        votes = (
            # PostgreSQL counts the choices from 1.
            (pk, voter_label(voter), prompt, a, b, choice - 1, simulated)
            for pk, voter, prompt, a, b, choice, simulated in copy.rows()
        )
        while (rows := np.fromiter(islice(votes, ROWS_AT_ONCE), ROW)).size:
            file.write(rows.tobytes())
    file.flush()
