"""The media storage: a folder (generation/media/folder.py) or a bucket of an object store
(generation/media/bucket.py). Beyond what Django asks of a storage both read a part of a file, list
what begins with a name, and say when they take nothing more.
"""

import errno
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import Storage, default_storage

from generation.media.profile import SiteFault

READ_BYTES_AT_ONCE = 64 * 1024
PROBE_BYTES = 1 << 20
# Errors of a folder that say something of a name, and nothing of the files of other names.
OF_NAMES = (errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOTDIR)


class StorageRefuses(SiteFault):
    """Nothing can be written to the media storage or to a worker's disk: one sentence says why."""


@dataclass(frozen=True)
class StoredFile:
    name: str
    size: int  # bytes
    modified: datetime


class MediaStorage(Storage):
    """What both kinds have in common."""

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        """As Django's. Raises StorageRefuses if the storage takes no file; if it does not take one
        of this name, what it raises itself."""
        try:
            return super().save(name, content, max_length)
        except self.refusals() as error:
            if getattr(error, "errno", None) in OF_NAMES:
                raise
            raise StorageRefuses(f"The media storage refuses what is written ({error}).") from error

    def refusals(self) -> tuple[type[Exception], ...]:
        """What it raises when it takes nothing."""
        raise NotImplementedError

    def read_part(self, name: str, first: int, length: int) -> Iterator[bytes]:
        """So many bytes from the byte `first` on, which must be there, piece by piece."""
        raise NotImplementedError

    def files_under(self, prefix: str) -> Iterator[StoredFile]:
        """All whose names begin so, in folders, too."""
        raise NotImplementedError

    def free_bytes(self) -> int | None:
        """How many it can still take; None if nobody knows."""
        raise NotImplementedError


def media_storage() -> MediaStorage:
    return cast(MediaStorage, default_storage)


def store_whole(name: str, file: Path) -> str:
    """Store a file of ours and look at what is kept; returns its name there.

    Its size is asked for, and it is read back. Raises StorageRefuses if another file is kept.
    """
    storage = media_storage()
    with file.open("rb") as source:
        stored = storage.save(name, File(source, file.name))
        source.seek(0)
        given, size = hashlib.file_digest(source, "sha256"), file.stat().st_size
    kept, found = storage.size(stored), hashlib.sha256()
    if kept == size:
        for piece in storage.read_part(stored, 0, size):
            found.update(piece)
    if kept != size or found.digest() != given.digest():
        storage.delete(stored)
        raise StorageRefuses(
            f"The media storage did not keep {stored} as it was given: {kept} of {size} bytes."
        )
    return stored


def probe_storage() -> None:
    """Write a small file and delete it again; raises what the storage raises."""
    name = default_storage.save("checks/probe", ContentFile(bytes(PROBE_BYTES)))
    default_storage.delete(name)
