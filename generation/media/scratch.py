"""Folders for files in the making, gone with the process that made them.

Each is locked by its process for as long as that lives. A process that was killed can't tidy up,
but its lock is gone: whoever makes the next folder on that machine sweeps what nobody holds, and so
do hosted and media workers now and then.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from generation.media.pauses import pausing


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """An empty folder of one's own, whose name begins with the given one.

    Whatever is made for the media storage is made in one. So a disk or a storage that refuses what
    is written while it is open pauses all that writes there, and StorageRefuses is raised.
    """
    root = Path(settings.SCRATCH)
    with pausing():
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(root):  # or a folder could be swept between its making and its locking
            sweep(root)
            folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))
            lock = _lock(folder, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def sweep_scratch() -> None:
    """Remove what dead processes left on this machine, though nobody makes a folder now."""
    if (root := Path(settings.SCRATCH)).exists():
        with _locked(root):
            sweep(root)


def sweep(root: Path) -> None:
    """Remove the folders whose processes are dead."""
    for folder in root.iterdir():
        try:
            lock = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError, NotADirectoryError):
            continue  # somebody works in it, or has just removed it
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path, how: int) -> int:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, how)
    except BaseException:
        os.close(lock)
        raise
    return lock


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = _lock(folder, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)
