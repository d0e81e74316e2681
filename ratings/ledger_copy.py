"""A copy of the ledger's votes on the machine's own disk, so that a refit reads only what is new.

The ledger stays the truth. It is append-only, so a copy can only lack its newest part; the copy is
thrown away and read anew when its first or last vote is not the ledger's: another database, or one
restored from a backup. Losing a copy costs the time to read it again.
"""

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from django.conf import settings
from django.db import connection

from arena.models import Choice

log = logging.getLogger(__name__)

CHOICES = list(Choice)  # a choice's place here is its code in the copy
ROW = np.dtype(
    [
        ("id", "<i8"),
        ("voter", "<i8"),
        ("prompt", "<i8"),
        ("left", "<i8"),
        ("right", "<i8"),
        ("choice", "u1"),
        ("simulated", "u1"),
    ]
)
# PostgreSQL's binary COPY: a header of 19 bytes, then for each row the number of fields and for
# each field its length and its big-endian bytes. No field here is null or of varying length, so
# all rows have one shape, and what has another is not what was asked for.
FIELDS = {"id": ">i8", "voter": "V16", "prompt": ">i8", "left": ">i8", "right": ">i8"} | {
    "choice": ">i2",
    "simulated": "u1",
}
SENT = np.dtype(
    [("fields", ">i2")]
    + [part for name, kind in FIELDS.items() for part in ((f"{name} length", ">i4"), (name, kind))]
)
HEADER, TRAILER = 19, 2
NAMES = [choice.value for choice in CHOICES]
COPY = f"""
    COPY (
        SELECT id, voter_id, prompt_id, left_version_id, right_version_id,
            array_position(ARRAY{NAMES}::varchar[], choice)::smallint, simulated
        FROM arena_vote
        WHERE category = %s AND kind = 'arena' AND id > %s AND id <= %s ORDER BY id
    ) TO STDOUT (FORMAT BINARY)
"""
BYTES_AT_ONCE = 64_000_000


def votes_of(category: str, last_vote: int, folder: Path | None = None) -> np.ndarray:
    """The category's votes up to `last_vote`, oldest first: `ROW`s, shape (n_votes,), read-only.

    Kept in `folder`, or in the one of this database.
    """
    folder = folder or _folder()
    path = folder / f"{category}.votes"
    with _alone(folder / f"{category}.lock"):
        if path.exists() and not _is_of_this_ledger(category, _open(path)):
            log.warning("%s is not a copy of this ledger; reading the ledger anew", path)
            path.unlink()  # whoever reads it now goes on with what was mapped
        with open(path, "ab") as file:
            _add_new_votes(file, category, last_vote)
        rows = _open(path)
    return rows[: int(np.searchsorted(rows["id"], last_vote, side="right"))]


def voter_labels(voter_ids: np.ndarray) -> np.ndarray:
    """Whole numbers for voters' random UUIDs, 16 bytes each: 62 of their bits."""
    halves = voter_ids.view(">u8").reshape(-1, 2)[:, 1]
    return (halves & np.uint64(2**63 - 1)).astype(np.int64)


def _folder() -> Path:
    address = "{HOST}:{PORT}/{NAME}".format(**connection.settings_dict)
    address += f" {NAMES} {ROW.descr}"  # another release may write other rows
    folder = Path(settings.LEDGER_COPY) / hashlib.sha256(address.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _alone(path: Path) -> Iterator[None]:
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
            "SELECT id, uuid_send(voter_id), prompt_id, left_version_id, right_version_id,"
            " choice, simulated FROM arena_vote WHERE category = %s AND id = ANY(%s)",
            [category, [int(row["id"]) for row in ends]],
        )
        for pk, voter, prompt, left, right, choice, simulated in cursor.fetchall():
            label = voter_labels(np.frombuffer(bytes(voter), dtype="V16"))[0]
            code = NAMES.index(choice)
            found[pk] = (pk, int(label), prompt, left, right, code, int(simulated))
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
    pending = bytearray()
    header = HEADER
    connection.ensure_connection()
    # psycopg's own cursor: Django's knows COPY without parameters only.
    with (
        connection.connection.cursor() as cursor,
        cursor.copy(COPY, [category, newest, last_vote]) as copy,
    ):
        for data in copy:
            pending += data
            if header and len(pending) >= header:
                del pending[:header]
                header = 0
            if len(pending) >= BYTES_AT_ONCE:
                whole = len(pending) // SENT.itemsize * SENT.itemsize
                _append(file, pending[:whole])
                del pending[:whole]
    _append(file, pending[:-TRAILER])
    file.flush()


def _append(file: BinaryIO, data: bytearray) -> None:
    if len(data) % SENT.itemsize:
        raise ValueError("PostgreSQL sent votes in a shape that this version does not know.")
    sent = np.frombuffer(data, SENT)
    for name in FIELDS:
        if (sent[f"{name} length"] != SENT[name].itemsize).any():
            raise ValueError(f"PostgreSQL sent a {name} of a vote of another length than asked.")
    rows = np.empty(sent.size, ROW)
    for name in ("id", "prompt", "left", "right", "simulated"):
        rows[name] = sent[name]
    rows["choice"] = sent["choice"] - 1  # PostgreSQL counts from 1
    rows["voter"] = voter_labels(np.ascontiguousarray(sent["voter"]))
    file.write(rows.tobytes())
