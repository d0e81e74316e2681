"""Media in a folder of this machine, or of a network's file system."""

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage

from generation.media.storage import READ_BYTES_AT_ONCE, MediaStorage, StoredFile


class MediaFolder(MediaStorage, FileSystemStorage):
    """Django's storage of a folder; what was written in part is deleted."""

    def _save(self, name: str, content: Any) -> str:
        try:
            return super()._save(name, content)  # type: ignore[misc]
        except OSError:
            with suppress(OSError):
                self.delete(name)
            raise

    def refusals(self) -> tuple[type[Exception], ...]:
        return (OSError,)

    def read_part(self, name: str, first: int, length: int) -> Iterator[bytes]:
        with self.open(name) as file:
            file.seek(first)
            while length > 0 and (piece := file.read(min(READ_BYTES_AT_ONCE, length))):
                length -= len(piece)
                yield piece

    def files_under(self, prefix: str) -> Iterator[StoredFile]:
        root = Path(self.location)
        folder, _, begin = prefix.rpartition("/")
        try:
            inside = sorted((root / folder).iterdir())
        except FileNotFoundError:
            return
        for path in inside:
            if path.name.startswith(begin):
                files = sorted(path.rglob("*")) if path.is_dir() else [path]
                yield from (stored for file in files if (stored := _stored(file, root)))

    def free_bytes(self) -> int | None:
        return free_bytes_at(Path(self.location))


def _stored(file: Path, root: Path) -> StoredFile | None:
    """None of a folder, and of what was deleted meanwhile."""
    try:
        facts = file.stat()
    except FileNotFoundError:
        return None
    if not file.is_file():
        return None
    modified = datetime.fromtimestamp(facts.st_mtime, UTC)
    return StoredFile(file.relative_to(root).as_posix(), facts.st_size, modified)


def free_bytes_at(folder: Path) -> int:
    """What is free for us on the disk of a folder that need not be there yet; 0 if it has no room
    for another file's name."""
    while not folder.exists():
        folder = folder.parent
    disk = os.statvfs(folder)
    if disk.f_files and not disk.f_favail:
        return 0
    return disk.f_bavail * disk.f_frsize
