"""Clips made elsewhere that operators send through the site, imported row by row by a CPU worker.

PostgreSQL is the truth, as for renders: an upload is worked on under a lease and a fence, and a row
whose worker died is taken up again. What a row becomes is decided in generation/importing.py.
"""

import logging
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from generation.importing import Outcome, Row, What, import_row, listed_before
from generation.models import Upload, UploadRow, UploadState
from generation.rendering import drop_idle_connection
from generation.scratch import scratch_folder

log = logging.getLogger(__name__)

ARRIVES_WITHIN = timedelta(days=1)


def take_in(rows: Sequence[Row], files: Mapping[str, File], by: str) -> Upload:
    """Store the files, then open the upload with all its rows at once."""
    upload = Upload.objects.create(by=by)
    names = {
        name: default_storage.save(f"{_folder(upload)}/{number}", file)
        for number, (name, file) in enumerate(files.items(), 1)
    }
    with transaction.atomic():
        UploadRow.objects.bulk_create(
            UploadRow(upload=upload, line=row.line, cells=dict(row.cells), whole=row.whole)
            for row in rows
        )
        arriving = Upload.objects.filter(pk=upload.pk, state=UploadState.ARRIVING)
        if arriving.update(state=UploadState.OPEN, files=names) != 1:
            raise TimeoutError(f"the files took more than {ARRIVES_WITHIN} to arrive")
    return upload


def next_in_line() -> Upload | None:
    """The oldest upload that is open, unless somebody is at it."""
    upload = Upload.objects.filter(state=UploadState.OPEN).order_by("created_at").first()
    return _free().filter(pk=upload.pk).first() if upload is not None else None


def import_next_row(pk: str, fence: int) -> bool:
    """Import the first row that has no outcome; False if there was nothing to do or it must wait.

    1. Take the upload under a lease and a new fence.
    2. Import the row as the command does, note the outcome if the fence still holds.
    3. After the last row delete the files.

    What must wait keeps the lease: when that has run out, it is tried again, up to the cap.
    """
    drop_idle_connection()
    upload = _take(pk, fence)
    if upload is None:
        return False
    with _lease_extended(upload):
        row = upload.rows.filter(what="").first()
        if row is not None:
            outcome = _outcome_of(upload, row)
            drop_idle_connection()
            if outcome is None or not _note(upload, row, outcome):
                return False
        if not upload.rows.filter(what="").exists():
            _delete_files(upload)
            _held(upload).update(state=UploadState.DONE)
    return _held(upload).update(lease_expires_at=None) == 1


def sweep_uploads() -> int:
    """Forget uploads whose files never arrived in full; returns how many."""
    late = Upload.objects.filter(state=UploadState.ARRIVING, created_at__lt=Now() - ARRIVES_WITHIN)
    for upload in late:
        _delete_files(upload)
        upload.delete()
    return len(late)


def _free() -> QuerySet[Upload]:
    nobody = Q(lease_expires_at=None) | Q(lease_expires_at__lt=Now())
    return Upload.objects.filter(nobody, state=UploadState.OPEN)


def _held(upload: Upload) -> QuerySet[Upload]:
    return Upload.objects.filter(pk=upload.pk, fence=upload.fence)


def _take(pk: str, fence: int) -> Upload | None:
    lease = Now() + timedelta(seconds=settings.RENDER_LEASE_SECONDS)
    taken = _free().filter(pk=pk, fence=fence)
    if taken.update(fence=F("fence") + 1, lease_expires_at=lease) != 1:
        return None
    return Upload.objects.filter(pk=pk, fence=fence + 1).first()


@contextmanager
def _lease_extended(upload: Upload) -> Iterator[None]:
    """By a thread of its own, for as long as this process lives."""
    stop, lease = threading.Event(), settings.RENDER_LEASE_SECONDS

    def extend() -> None:
        while not stop.wait(lease / 4):
            try:
                _held(upload).update(lease_expires_at=Now() + timedelta(seconds=lease))
            except Exception:  # the database restarts: the next beat tries again
                log.warning("upload %s: no heartbeat, trying again", upload.pk, exc_info=True)
            finally:
                connection.close()

    thread = threading.Thread(target=extend, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _outcome_of(upload: Upload, row: UploadRow) -> Outcome | None:
    """What became of the row, or None if it is to be tried again."""
    last = row.attempts + 1 >= settings.RENDER_ATTEMPTS
    if row.attempts >= settings.RENDER_ATTEMPTS:
        died = f"The worker died in each of {row.attempts} attempts: look at the file's size."
        return Outcome(row.line, What.REFUSED, row.sentence or died)
    # Noted first: what kills its worker must not do so for ever.
    upload.rows.filter(pk=row.pk).update(attempts=F("attempts") + 1)
    try:
        outcome = _import(upload, row)
    except Exception as error:
        log.exception("upload %s, line %s: attempt %s failed", upload.pk, row.line, row.attempts)
        failed = f"It could not be imported ({type(error).__name__}: {error}): mend that first."
        outcome = Outcome(row.line, What.REFUSED, failed, held=True)
    if outcome.held and not last:
        upload.rows.filter(pk=row.pk).update(sentence=outcome.sentence)
        return None
    return outcome


def _import(upload: Upload, row: UploadRow) -> Outcome:
    above = upload.rows.filter(line__lte=row.line)
    rows = [Row(each.line, each.cells, each.whole) for each in above]
    with scratch_folder(f"upload-{upload.pk}-{upload.fence}") as folder:
        name = row.cells.get("file", "")
        if (stored := upload.files.get(name)) is not None:
            _fetch(stored, folder / name)
        return import_row(rows[-1], folder, listed_before(rows).get(row.line))


def _fetch(stored: str, target: Path) -> None:
    with default_storage.open(stored) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)


def _note(upload: Upload, row: UploadRow, outcome: Outcome) -> bool:
    mine = UploadRow.objects.filter(pk=row.pk, what="", upload__fence=upload.fence)
    return mine.update(what=outcome.what.value, sentence=outcome.sentence) == 1


def _folder(upload: Upload) -> str:
    return f"uploads/{upload.pk}"


def _delete_files(upload: Upload) -> None:
    folder = _folder(upload)
    try:
        names = default_storage.listdir(folder)[1]
    except FileNotFoundError:  # gone already; an object store has no folders and lists nothing
        return
    for name in names:
        default_storage.delete(f"{folder}/{name}")
    default_storage.delete(folder)
