"""Where media are kept: an object store on this machine, and a disk of a few megabytes."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arena.settings import storage
from tests.object_storage import S3_ACCESS_KEY, S3_SECRET_KEY, ObjectStorage, object_storage

DISK_MB = 32


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, settings) -> Iterator[ObjectStorage]:
    """The media are kept in a bucket on this machine."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", S3_ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET_KEY)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    with object_storage() as started:
        started.buckets["clips"] = {}
        url = f"s3://clips/arena?endpoint_url={started.address}&region_name=us-east-1"
        settings.STORAGES = {**settings.STORAGES, "default": storage(url)}
        yield started


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of DISK_MB megabytes in memory, where this account may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs"]
    mounted = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this account may not mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def fill(small_disk: Path) -> Callable[[int], None]:
    """Fill the disk up to so many free kilobytes, or empty it again."""

    def fill(kilobytes_left: int) -> None:
        filler = small_disk / "filler"
        filler.write_bytes(bytes((DISK_MB << 20) - used(small_disk) - (kilobytes_left << 10)))

    return fill


def used(folder: Path) -> int:
    """Bytes of all files in it, as tmpfs counts them: in pages."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // 4096) * 4096 for size in sizes if size)
