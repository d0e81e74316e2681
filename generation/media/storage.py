"""The media storage: a folder (generation/media/folder.py) or a bucket of an object store
(generation/media/bucket.py). Beyond what Django asks of a storage both read a part of a file, list
what begins with a name, and say when they take nothing more.
"""

import errno
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import Storage, default_storage

from generation.media.profile import SiteFault

READ_BYTES_AT_ONCE = 64 * 1024
PROBE_BYTES = 1 << 20
READ_BACK_AT_MOST = 64 << 20  # bytes; more than any rendition has, and most masters
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

    Its size is asked for, and unless it is large it is read back. Raises StorageRefuses if another
    file is kept.
    """
    storage, size = media_storage(), file.stat().st_size
    with file.open("rb") as source:
        stored = storage.save(name, File(source, file.name))
        kept = storage.size(stored)
        why = ""
        if kept != size:
            why = f"The media storage kept {kept} of {size} bytes of the file {stored}."
        elif size <= READ_BACK_AT_MOST and not _is_kept(stored, source):
            why = f"The media storage kept other bytes than it was given as the file {stored}."
    if why:
        storage.delete(stored)
        raise StorageRefuses(why)
    return stored


def _is_kept(name: str, source: BufferedReader) -> bool:
    source.seek(0)
    given, found = hashlib.file_digest(source, "sha256"), hashlib.sha256()
    for piece in media_storage().read_part(name, 0, source.tell()):
        found.update(piece)
    return found.digest() == given.digest()


def probe_storage() -> None:
    """Write a small file and delete it again; raises what the storage raises."""
    name = default_storage.save("checks/probe", ContentFile(bytes(PROBE_BYTES)))
    default_storage.delete(name)
