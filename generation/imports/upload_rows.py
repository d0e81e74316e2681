"""An upload's rows, imported one by one by a worker.

PostgreSQL is the truth, as for renders: an upload is worked on under a lease and a fence, and a row
whose worker died is taken up again. What a row becomes is decided in generation/imports/files.py.
"""

import logging
import shutil
from pathlib import Path

from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.core.files.storage import default_storage
from django.db import InterfaceError, OperationalError

from generation.imports.files import RowResult, import_row
from generation.imports.manifest import ManifestRow, listed_before
from generation.imports.uploads import delete_files, next_in_line
from generation.media.pauses import why_paused
from generation.media.profile import SiteFault
from generation.media.scratch import scratch_folder
from generation.models import RowOutcome, Upload, UploadRow, UploadState
from generation.rendering.leases import (
    Heartbeat,
    claim,
    drop_idle_connection,
    held,
    postpone,
    release,
)

log = logging.getLogger(__name__)


def import_next_row() -> bool:
    """Import the first row that has no outcome; False if there was nothing to do, nothing can be
    written, or it must wait.

    1. Claim the upload whose turn it is.
    2. Import the row as the command does, note the outcome if the fence still holds.
    3. After the last row delete the files.

    What must wait is tried again after as long as a lease lasts, up to the cap. What is the site's
    own fault, such as a full disk, waits without being counted.
    """
    drop_idle_connection()
    first = None if why_paused() else next_in_line()
    upload = first and claim(Upload.objects.filter(pk=first.pk, state=UploadState.OPEN))
    if upload is None:
        return False
    with Heartbeat(upload):
        row = upload.rows.filter(outcome="").first()
        if row is not None:
            try:
                result = _try_row(upload, row)
            except SiteFault as error:
                log.error("upload %s, line %s: %s", upload.pk, row.line, error)
                postpone(upload, settings.LEASE_SECONDS, attempts=0)
                upload.rows.filter(pk=row.pk).update(sentence=str(error))
                return False
            drop_idle_connection()
            if result is None:
                postpone(upload, settings.LEASE_SECONDS)
                return False
            if not _note(upload, row, result):
                return False
        done = not upload.rows.filter(outcome="").exists()
        if done:
            delete_files(upload)
    return release(upload, attempts=0, state=UploadState.DONE if done else UploadState.OPEN)


def _try_row(upload: Upload, row: UploadRow) -> RowResult | None:
    """What became of the row, or None if it is to be tried again."""
    most = settings.RENDER_ATTEMPTS
    if upload.attempts > most:  # what kills its worker must not do so for ever
        died = f"The worker died in each of {most} attempts. Check the size of the file."
        return RowResult(row.line, RowOutcome.REFUSED, row.sentence or died)
    try:
        result = _import_row(upload, row)
    except SiteFault:
        raise
    except (OperationalError, InterfaceError) as error:
        raise SiteFault(f"The database does not answer ({error}).") from error
    except SoftTimeLimitExceeded:
        slow = "It took too long to import. Send a shorter clip, or one of fewer pixels."
        result = RowResult(row.line, RowOutcome.REFUSED, slow)
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise SiteFault(f"The file could not be taken in ({error}).") from error
        log.exception("upload %s, line %s: try %s failed", upload.pk, row.line, upload.attempts)
        failed = f"It could not be imported ({type(error).__name__}: {error}). Fix this first."
        result = RowResult(row.line, RowOutcome.REFUSED, failed, is_busy=True)
    if result.is_busy and upload.attempts < most:
        upload.rows.filter(pk=row.pk).update(sentence=result.sentence)
        return None
    return result


def _import_row(upload: Upload, row: UploadRow) -> RowResult:
    above = upload.rows.filter(line__lte=row.line)
    rows = [ManifestRow(each.line, each.cells, each.whole) for each in above]
    with scratch_folder(f"upload-{upload.pk}-{upload.fence}") as folder:
        name = row.cells.get("file", "")
        if (stored := upload.files.get(name)) is not None:
            _fetch(stored, folder / name)
        return import_row(rows[-1], folder, listed_before(rows).get(row.line))


def _fetch(stored: str, target: Path) -> None:
    try:
        with default_storage.open(stored) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    except FileNotFoundError:
        raise
    except Exception as error:  # each kind of storage has errors of its own
        raise SiteFault(
            f"{target.name} can't be fetched from the media storage ({error})."
        ) from error


def _note(upload: Upload, row: UploadRow, result: RowResult) -> bool:
    rows = UploadRow.objects.filter(pk=row.pk, outcome="", upload__in=held(upload))
    return rows.update(outcome=result.outcome, sentence=result.sentence) == 1
