"""Clips made elsewhere: a manifest names files; each becomes a ready clip or is refused in words.

From its master on, an imported clip takes the way of a rendered one (generation/rendering.py): one
encoder, one check of what it made, one conditional update under a lease and a fence.
"""

import csv
import hashlib
import io
import logging
import math
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from django.conf import settings
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from generation.categories import Category
from generation.encoding import FILL_WITHIN, EncodingError
from generation.models import Clip, ClipState, Prompt, Version
from generation.rendering import (
    ClipFiles,
    Heartbeat,
    LeaseLost,
    drop_idle_connection,
    encode_clip,
    give_up,
    publish,
    seed_of,
)
from generation.scratch import scratch_folder

log = logging.getLogger(__name__)

REQUIRED = ("file", "version", "prompt", "category")
OPTIONAL = ("seed_slot", "seconds_taken", "hardware")
# Playlists and the like can name other files and addresses, and a decoder would fetch them.
CONTAINERS = "mov,matroska"  # FFmpeg's names; MP4 is a kind of the first, WebM of the second
# A clip's sound is read whole: a minute of stereo is 23 MB, and a film put here by mistake would
# not fit.
LONGEST_SECONDS = 60
CHUNK = 1 << 20
HARDWARE_AT_MOST = 120  # characters, as the column has


class ManifestError(Exception):
    """The manifest can't be read as one; nothing was imported."""


class Refused(Exception):
    """One row is not imported; the message says why in one sentence."""


class Held(Refused):
    """Somebody else imports this clip now, or was killed at it a moment ago."""


@dataclass(frozen=True)
class Row:
    """A line of the manifest, its cells by column."""

    line: int
    cells: Mapping[str, str]
    whole: bool = True  # as many cells as the header


@dataclass(frozen=True)
class Wanted:
    """What a row asks for, looked up: the file, the clip it shall be, and how it was made."""

    file: Path
    version: Version
    prompt: Prompt
    category: Category
    seed_slot: int
    seconds_taken: float | None
    hardware: str

    @property
    def clip(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "prompt": self.prompt,
            "category": self.category.value,
            "seed_slot": self.seed_slot,
        }

    def __str__(self) -> str:
        return (
            f"{self.file.name} as {self.prompt.key}, {self.category.value}, slot "
            f"{self.seed_slot}, of {self.version.slug}"
        )


class What(StrEnum):
    IMPORTED = "imported"
    THERE = "already there"
    REFUSED = "refused"


@dataclass(frozen=True)
class Outcome:
    line: int
    what: What
    sentence: str  # why, of a refused row; which file and clip, of others
    held: bool = False  # refused for the moment: after a lease it can be tried again


# --- the manifest --------------------------------------------------------------------------------


def read_manifest(path: Path) -> list[Row]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{path} can't be read: {error.strerror}.") from None
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, name: str) -> list[Row]:
    """All rows, so that a manifest which is broken at its end imports nothing."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ManifestError(f"{name} is not UTF-8: save it as CSV in UTF-8.") from None
    if "\0" in text:
        raise ManifestError(f"{name} holds a NUL character: it is not a CSV file.")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [column.strip() for column in next(reader, [])]
        _check_columns(name, columns)
        rows = [
            Row(
                reader.line_num,
                {column: cell.strip() for column, cell in zip(columns, cells, strict=False)},
                len(cells) == len(columns),
            )
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        raise ManifestError(f"{name}, line {reader.line_num}, is not CSV: {error}.") from None
    if not rows:
        raise ManifestError(f"{name} lists no clips: give one line per file below the header.")
    return rows


def _check_columns(manifest: str, columns: Sequence[str]) -> None:
    known = f"{', '.join(REQUIRED)} and, if wanted, {', '.join(OPTIONAL)}"
    if not any(columns):
        raise ManifestError(f"{manifest} does not begin with a header: its columns are {known}.")
    if missing := [name for name in REQUIRED if name not in columns]:
        raise ManifestError(f"{manifest} lacks the column {', '.join(missing)}: it needs {known}.")
    if unknown := [name or "“”" for name in columns if name not in (*REQUIRED, *OPTIONAL)]:
        raise ManifestError(
            f"{manifest} has the unknown column {', '.join(unknown)}: there are {known}."
        )
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ManifestError(f"{manifest} has the column {', '.join(twice)} twice: keep one.")


def _look_up(row: Row, folder: Path) -> Wanted:
    """What the row asks for, or Refused with the first thing that is wrong with its words."""
    if not row.whole:
        raise Refused("It has more or fewer cells than the header: quote cells that hold a comma.")
    cells = {**dict.fromkeys(OPTIONAL, ""), **row.cells}
    version = Version.objects.filter(slug=cells["version"]).first()
    if version is None:
        raise Refused(f"There is no version “{cells['version']}”: load the catalogue first.")
    if version.backend != "imported":
        raise Refused(
            f"{version.slug} makes its clips with the backend {version.backend}: enter a version "
            "with the backend imported for files made elsewhere."
        )
    prompt = Prompt.objects.filter(key=cells["prompt"]).first()
    if prompt is None:
        raise Refused(f"There is no prompt “{cells['prompt']}”: load its prompt set first.")
    if cells["category"] not in Category.values:
        raise Refused(
            f"There is no category “{cells['category']}”; there are {', '.join(Category.values)}."
        )
    category = Category(cells["category"])
    if category not in prompt.categories:
        known = ", ".join(prompt.categories)
        raise Refused(f"The prompt {prompt.key} is not for {category.value}; it is for {known}.")
    if category.value not in version.categories:
        raise Refused(f"{version.slug} does not make {category.value}.")
    return Wanted(
        _file_inside(folder, cells["file"]),
        version,
        prompt,
        category,
        _slot(cells["seed_slot"]),
        _seconds_taken(cells["seconds_taken"]),
        _hardware(cells["hardware"]),
    )


def _file_inside(folder: Path, name: str) -> Path:
    """The file, its links followed; nothing outside the manifest's folder is ever opened."""
    try:
        path = (folder / name).resolve()
        inside, there = path.is_relative_to(folder), path.is_file()
    except (OSError, RuntimeError) as error:  # rights, a name too long, links in a circle
        raise Refused(f"{name} can't be looked up ({error}): check its name and rights.") from None
    if not inside:
        raise Refused(f"{name} lies outside the manifest's folder: put it there.")
    if not there:
        raise Refused(f"There is no file “{name}” with the manifest: put it there.")
    return path


def _slot(cell: str) -> int:
    if not re.fullmatch(r"\d{0,4}", cell, re.ASCII):
        raise Refused(f"The seed_slot is “{cell}”: give a whole number from 0, or nothing.")
    return int(cell or 0)


def _seconds_taken(cell: str) -> float | None:
    if not cell:
        return None
    try:
        seconds = float(cell)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise Refused(f"The seconds_taken is “{cell}”: give seconds such as 41.5, or nothing.")
    return seconds


def _hardware(cell: str) -> str:
    if len(cell) > HARDWARE_AT_MOST or not cell.isprintable():
        raise Refused(f"The hardware is not one line of at most {HARDWARE_AT_MOST} characters.")
    return cell


# --- importing -----------------------------------------------------------------------------------


def import_rows(rows: Sequence[Row], folder: Path, dry_run: bool = False) -> Iterator[Outcome]:
    """Import row by row, one clip in hand at a time; what is refused leaves the others alone.

    A dry run does everything but publish, so it refuses what an import would refuse.
    """
    listed = listed_before(rows)
    for row in rows:
        yield import_row(row, folder, listed.get(row.line), dry_run)


def listed_before(rows: Sequence[Row]) -> dict[int, int]:
    """Lines that ask for a clip which a line above asks for, each with that line."""
    first: dict[tuple[str, ...], int] = {}
    listed: dict[int, int] = {}
    for row in rows:
        cells = [row.cells.get(name, "") for name in ("version", "prompt", "category")]
        place = (*cells, row.cells.get("seed_slot", "").lstrip("0"))
        if first.setdefault(place, row.line) != row.line:
            listed[row.line] = first[place]
    return listed


def import_row(
    row: Row, folder: Path, listed_at: int | None = None, dry_run: bool = False
) -> Outcome:
    """One row, whose clip an earlier line may have asked for; refused rows change nothing."""
    try:
        wanted = _look_up(row, folder.resolve())
        if listed_at is not None:
            raise Refused(f"Line {listed_at} is this clip already: keep one of the two.")
        return Outcome(row.line, import_clip(wanted, dry_run), str(wanted))
    except (Refused, EncodingError) as error:
        return Outcome(row.line, What.REFUSED, str(error), isinstance(error, Held))


def import_clip(wanted: Wanted, dry_run: bool = False) -> What:
    """Bring one file in.

    1. Copy it, so that what is checked, encoded and kept are the same bytes.
    2. A ready clip is immutable: the same file is there already, another is refused.
    3. Look at the file, and encode its rendition and poster as of any rendered clip.
    4. Claim the clip, store the files, publish.
    """
    with scratch_folder("import") as folder:
        (folder / "source").mkdir()
        master = folder / "source" / wanted.file.name  # errors name the file by its own name
        digest = _copy(wanted.file, master)
        known = Clip.objects.filter(**wanted.clip).first()
        if known is not None and known.state == ClipState.READY:
            _refuse_another_file(known, digest, wanted)
            return What.THERE
        look_at(master, wanted)
        started = time.perf_counter()
        files = encode_clip(master, folder, wanted.prompt, wanted.category.value)
        encode_seconds = time.perf_counter() - started
        drop_idle_connection()
        _refuse_another_rendition(wanted, files)
        if not dry_run:
            _store(wanted, files, encode_seconds)
    return What.IMPORTED


def _copy(source: Path, target: Path) -> str:
    """Copy the file; returns its SHA-256."""
    digest = hashlib.sha256()
    try:
        with source.open("rb") as given, target.open("wb") as copy:
            while chunk := given.read(CHUNK):
                digest.update(chunk)
                copy.write(chunk)
    except OSError as error:
        raise Refused(
            f"{source.name} can't be copied to {target.parent} ({error.strerror}): check the "
            "file's rights and the space there."
        ) from None
    return digest.hexdigest()


def _refuse_another_file(clip: Clip, digest: str, wanted: Wanted) -> None:
    stored = hashlib.sha256()
    try:
        with default_storage.open(str(clip.master)) as master:
            for chunk in master.chunks(CHUNK):
                stored.update(chunk)
    except FileNotFoundError:
        raise Refused(
            f"The clip is ready, but its master {clip.master} is missing from the media storage "
            "and can't be compared: restore it."
        ) from None
    if stored.hexdigest() != digest:
        raise Refused(
            f"{wanted.file.name} is another file than the ready clip was made of, and clips do not "
            "change: enter a new version for new clips."
        )


def _refuse_another_rendition(wanted: Wanted, files: ClipFiles) -> None:
    """A clip that was ready and lost its files may have votes: only the same comes back."""
    known = Clip.objects.filter(**wanted.clip, ready_at__isnull=False).first()
    if known is not None and known.profile != files.made.profile:
        raise Refused(
            f"{wanted.file.name} can't be compared with what people were shown before the clip's "
            f"file was lost, which was made with profile {known.profile}: enter a new version."
        )
    if known is not None and known.rendition_sha256 != files.rendition_sha256:
        raise Refused(
            f"{wanted.file.name} gives another rendition than the one people were shown before its "
            "file was lost: bring back the same file, or enter a new version."
        )


def look_at(master: Path, wanted: Wanted) -> None:
    """Refuse by the first frame what is not worth encoding, or no clip of this version."""
    unreadable = Refused(f"{master.name} is not a readable MP4, MOV, Matroska or WebM file.")
    try:
        with av.open(str(master), options={"format_whitelist": CONTAINERS}) as media:
            if not media.streams.video:
                raise Refused(f"{master.name} has no video track: export it with pictures.")
            seconds = (media.duration or 0) / av.time_base
            shape = Fraction(media.streams.video[0].sample_aspect_ratio or 1)
            frame = next(media.decode(video=0), None)
    except (av.FFmpegError, OSError):
        raise unreadable from None
    if frame is None:
        raise unreadable
    if seconds > LONGEST_SECONDS:
        raise Refused(f"{master.name} lasts {seconds:.0f} s; cut it to {LONGEST_SECONDS} s.")
    width, height, version = frame.width, frame.height, wanted.version
    across, down = (int(part) for part in wanted.prompt.aspect.split(":"))
    if abs(shape * width / height * down / across - 1) > FILL_WITHIN:
        raise Refused(
            f"{master.name} is {width}x{height}, not {wanted.prompt.aspect} within "
            f"{FILL_WITHIN:.0%}, as the prompt asks: make the clip in that aspect."
        )
    # Upright, wide and square pictures of one version share their short side or their area.
    short = min(width, height) < min(version.width, version.height)
    if short and width * height < version.width * version.height:
        raise Refused(
            f"{master.name} is {width}x{height}, smaller than the {version.width}x{version.height} "
            f"that {version.slug} declares: import the clip at the size it was made."
        )


def _store(wanted: Wanted, files: ClipFiles, encode_seconds: float) -> None:
    clip = claim_arrival(wanted)
    if clip is None:
        raise Held(
            "Another import holds this clip, or was killed less than "
            f"{settings.RENDER_LEASE_SECONDS:g} s ago: import the manifest again then."
        )
    try:
        with Heartbeat(clip):
            publish(
                clip,
                files,
                render_seconds=wanted.seconds_taken,
                encode_seconds=encode_seconds,
                hardware=wanted.hardware,
            )
    except LeaseLost:
        raise Held("Another import took this clip over: import the manifest again.") from None
    except Exception as error:
        log.exception("clip %s: the import failed", clip.pk)
        reason = f"{wanted.file.name} could not be stored ({type(error).__name__}: {error})"
        give_up(clip, f"{reason}.")
        raise Refused(f"{reason}: mend that and import the manifest again.") from error


def fail_killed() -> int:
    """Clips whose import died without a word are failed, with the reason."""
    return Clip.objects.filter(
        state=ClipState.RENDERING, lease_expires_at__lt=Now(), version__backend="imported"
    ).update(
        state=ClipState.FAILED,
        lease_expires_at=None,
        error="Its import was killed: import the manifest again.",
    )


@transaction.atomic
def claim_arrival(wanted: Wanted) -> Clip | None:
    """The clip under a lease and a new fence, or None if it is ready or somebody holds it.

    The row is made and claimed at once, so no worker ever sees it waiting.
    """
    seed = seed_of(wanted.prompt, wanted.seed_slot)
    new = Clip(**wanted.clip, seed=seed, state=ClipState.FAILED, error="It has not arrived.")
    Clip.objects.bulk_create([new], ignore_conflicts=True)
    free = Q(state__in=(ClipState.WAITING, ClipState.FAILED)) | Q(
        state=ClipState.RENDERING, lease_expires_at__lt=Now()
    )
    clips = Clip.objects.filter(**wanted.clip)
    taken = clips.filter(free).update(
        state=ClipState.RENDERING,
        fence=F("fence") + 1,
        attempts=1,
        worker=socket.gethostname(),
        lease_expires_at=Now() + timedelta(seconds=settings.RENDER_LEASE_SECONDS),
        step=0,
        steps=0,
    )
    return clips.get() if taken else None
