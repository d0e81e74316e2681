"""Clips made elsewhere that operators send through the site: taken in here, imported by a worker
(generation/imports/upload_rows.py)."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

from django.core.files import File
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models.functions import Now

from generation.imports.manifest import ManifestRow
from generation.media.pauses import pausing, why_paused
from generation.media.storage import StorageRefuses, media_storage
from generation.models import Upload, UploadRow, UploadState
from generation.rendering.leases import claimable

ARRIVES_WITHIN = timedelta(days=1)


def store_upload(rows: Sequence[ManifestRow], files: Mapping[str, File], by: str) -> Upload:
    """Store the files, then open the upload with all its rows at once.

    Raises StorageRefuses if nothing can be written; nothing of it is kept then.
    """
    if why := why_paused(scratch=False):
        raise StorageRefuses(why)
    upload = Upload.objects.create(by=by)
    try:
        with pausing():
            names = {
                name: default_storage.save(f"{_folder(upload)}/{number}", file)
                for number, (name, file) in enumerate(files.items(), 1)
            }
    except StorageRefuses:
        with suppress(*media_storage().refusals()):  # what can't be deleted now is swept
            delete_files(upload)
            upload.delete()
        raise
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
    return claimable(Upload.objects.filter(pk=upload.pk)).first() if upload is not None else None


def sweep_uploads() -> int:
    """Forget uploads whose files never arrived in full; returns how many."""
    late = Upload.objects.filter(state=UploadState.ARRIVING, created_at__lt=Now() - ARRIVES_WITHIN)
    for upload in late:
        delete_files(upload)
        upload.delete()
    return len(late)


def _folder(upload: Upload) -> str:
    return f"uploads/{upload.pk}"


def delete_files(upload: Upload) -> None:
    """All that was sent with the upload."""
    folder = _folder(upload)
    try:
        names = default_storage.listdir(folder)[1]
    except FileNotFoundError:  # gone already; an object store has no folders and lists nothing
        return
    for name in names:
        default_storage.delete(f"{folder}/{name}")
    default_storage.delete(folder)
