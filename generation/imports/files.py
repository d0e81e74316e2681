"""Clips made elsewhere: a manifest names files; each becomes a ready clip or is refused in words.

From its master on, an imported clip takes the way of a rendered one (generation/rendering/): one
encoder, one check of what it made, one conditional update under a lease and a fence.
"""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.core.files.storage import default_storage
from django.db import InterfaceError, OperationalError, transaction
from django.db.models.functions import Now

from generation.backends.registry import IMPORTED
from generation.imports.manifest import (
    Arrival,
    ManifestRow,
    RowRefused,
    find_arrival,
    listed_before,
)
from generation.media.pauses import why_paused
from generation.media.profile import EncodingError, SiteFault
from generation.media.scratch import scratch_folder
from generation.media.storage import StorageRefuses
from generation.models import Clip, ClipState, RowOutcome
from generation.rendering.claims import give_up
from generation.rendering.leases import Heartbeat, LeaseLost, claim, drop_idle_connection
from generation.rendering.publish import ClipFiles, encode_clip, publish, take_in_clip
from generation.rendering.queue import seed_of

log = logging.getLogger(__name__)

COPY_BYTES = 1 << 20


class ClipBusy(RowRefused):
    """Somebody else imports this clip now, or was killed at it a moment ago."""


@dataclass(frozen=True)
class RowResult:
    line: int
    outcome: RowOutcome
    sentence: str  # why, of a refused row; which file and clip, of others
    is_busy: bool = False  # refused for the moment: after a lease it can be tried again


def import_rows(
    rows: Sequence[ManifestRow], folder: Path, dry_run: bool = False
) -> Iterator[RowResult]:
    """Import row by row, one clip in hand at a time; what is refused leaves the others alone.

    A dry run does everything but publish, so it refuses what an import would refuse. Raises
    SiteFault at the first row that could not be tried.
    """
    listed = listed_before(rows)
    for row in rows:
        if why := why_paused():
            raise StorageRefuses(why)
        yield import_row(row, folder, listed.get(row.line), dry_run)


def import_row(
    row: ManifestRow, folder: Path, listed_at: int | None = None, dry_run: bool = False
) -> RowResult:
    """One row, whose clip an earlier line may have asked for; refused rows change nothing.

    Whatever its file or its cells raise is its refusal. What is the site's own fault, such as a
    full disk or a database that is away, is none: it raises SiteFault.
    """
    try:
        arrival = find_arrival(row, folder.resolve())
        if listed_at is not None:
            raise RowRefused(f"Line {listed_at} already asks for this clip. Keep one of the two.")
        outcome, held_because = import_clip(arrival, dry_run)
        return RowResult(row.line, outcome, f"{arrival}{_to_be_looked_at(held_because)}")
    except (SiteFault, SoftTimeLimitExceeded):
        raise
    except (RowRefused, EncodingError) as error:
        return RowResult(row.line, RowOutcome.REFUSED, str(error), isinstance(error, ClipBusy))
    except (OperationalError, InterfaceError) as error:
        raise SiteFault(f"The database does not answer ({error}).") from error
    except OSError as error:  # those of the row's own file are refusals by now
        raise SiteFault(f"The file could not be taken in ({error}).") from error
    except Exception as error:
        log.exception("line %s could not be imported", row.line)
        why = f"It could not be imported ({type(error).__name__}: {error}). Fix this first."
        return RowResult(row.line, RowOutcome.REFUSED, why)


def _to_be_looked_at(held_because: str) -> str:
    if not held_because:
        return ""
    return f". Held: {held_because}. Show it to voters or refuse it in /admin/, Clips, state Held"


def import_clip(arrival: Arrival, dry_run: bool = False) -> tuple[RowOutcome, str]:
    """Bring one file in; returns why an operator has to look at the clip, too, if so.

    1. Copy it, so that what is checked, encoded and kept are the same bytes.
    2. A ready clip is immutable: the same file is there already, another is refused.
    3. Have a master made of it, and encode its rendition and poster as of any rendered clip.
    4. Claim the clip, store the files, publish.
    """
    with scratch_folder("import") as folder:
        (folder / "source").mkdir()
        file = folder / "source" / arrival.file.name  # errors name the file by its own name
        digest = _copy(arrival.file, file)
        known = Clip.objects.filter(**arrival.clip).first()
        if known is not None and known.state == ClipState.READY:
            _refuse_another_file(known, digest, arrival)
            return RowOutcome.ALREADY_THERE, ""
        if known is not None and known.state == ClipState.HELD and known.source_sha256 == digest:
            return RowOutcome.ALREADY_THERE, known.held_because
        started = time.perf_counter()
        category = arrival.category.value
        master, facts = take_in_clip(file, folder, arrival.version, arrival.prompt, category)
        files = encode_clip(master, folder, arrival.prompt, category, facts)
        encode_seconds = time.perf_counter() - started
        drop_idle_connection()
        _refuse_another_rendition(arrival, files)
        if not dry_run:
            _store(arrival, files, encode_seconds, digest)
    return RowOutcome.HELD if files.held_because else RowOutcome.IMPORTED, files.held_because


def _copy(source: Path, target: Path) -> str:
    """Copy the file; returns its SHA-256."""
    digest = hashlib.sha256()
    with target.open("wb") as copy:
        try:
            with source.open("rb") as given:
                while chunk := given.read(COPY_BYTES):
                    digest.update(chunk)
                    _write(copy, chunk, source)
        except OSError as error:
            raise RowRefused(
                f"{source.name} can't be read ({error.strerror}): check the file and its rights."
            ) from None
    return digest.hexdigest()


def _write(copy: IO[bytes], chunk: bytes, source: Path) -> None:
    try:
        copy.write(chunk)
    except OSError as error:
        raise SiteFault(
            f"{source.name} can't be copied to SCRATCH ({error.strerror}): check the space there."
        ) from error


def _refuse_another_file(clip: Clip, digest: str, arrival: Arrival) -> None:
    if (clip.source_sha256 or _digest_of_master(clip)) != digest:
        raise RowRefused(
            f"{arrival.file.name} is another file than the ready clip was made of, and clips do "
            "not change. Add a new version for new clips."
        )


def _digest_of_master(clip: Clip) -> str:
    """Earlier versions kept the file itself as the master."""
    stored = hashlib.sha256()
    try:
        with default_storage.open(str(clip.master)) as master:
            for chunk in master.chunks(COPY_BYTES):
                stored.update(chunk)
    except FileNotFoundError:
        raise RowRefused(
            f"The clip is ready, but its master {clip.master} is missing from the media storage. "
            "Restore it so that the files can be compared."
        ) from None
    return stored.hexdigest()


def _refuse_another_rendition(arrival: Arrival, files: ClipFiles) -> None:
    """A clip that was ready and lost its files may have votes: only the same comes back."""
    known = Clip.objects.filter(**arrival.clip, ready_at__isnull=False).first()
    if known is not None and known.profile != files.made.profile:
        raise RowRefused(
            f"{arrival.file.name} can't be compared with the rendition people saw before the "
            f"clip's file was lost, which was made with profile {known.profile}. Add a new version."
        )
    if known is not None and known.rendition_sha256 != files.rendition_sha256:
        raise RowRefused(
            f"{arrival.file.name} makes a different rendition from the one people saw before "
            "its file was lost. Import the same file again, or add a new version."
        )


def _store(arrival: Arrival, files: ClipFiles, encode_seconds: float, digest: str) -> None:
    clip = claim_arrival(arrival)
    if clip is None:
        raise ClipBusy(
            "Another import is working on this clip, or was killed less than "
            f"{settings.LEASE_SECONDS:g} s ago. Import the manifest again then."
        )
    try:
        with Heartbeat(clip):
            publish(
                clip,
                files,
                render_seconds=arrival.seconds_taken,
                encode_seconds=encode_seconds,
                hardware=arrival.hardware,
                source_sha256=digest,
            )
    except LeaseLost:
        raise ClipBusy("Another import took over this clip. Import the manifest again.") from None
    except Exception as error:
        log.exception("clip %s: the import failed", clip.pk)
        reason = f"{arrival.file.name} could not be stored ({type(error).__name__}: {error})"
        give_up(clip, f"{reason}.")
        raise SiteFault(f"{reason}.") from error


def fail_killed() -> int:
    """Clips whose import died without a word are failed, with the reason."""
    return Clip.objects.filter(
        state=ClipState.RENDERING, leased_until__lt=Now(), version__backend=IMPORTED
    ).update(
        state=ClipState.FAILED,
        leased_until=None,
        error="Its import was killed. Import the manifest again.",
    )


@transaction.atomic
def claim_arrival(arrival: Arrival) -> Clip | None:
    """The clip under a lease and a new fence, or None if it is ready or somebody holds it.

    The row is made and claimed at once, so no worker ever sees it waiting.
    """
    seed = seed_of(arrival.prompt, arrival.seed_slot)
    new = Clip(**arrival.clip, seed=seed, state=ClipState.FAILED, error="File not uploaded yet.")
    Clip.objects.bulk_create([new], ignore_conflicts=True)
    missing = Clip.objects.filter(**arrival.clip).exclude(state=ClipState.READY)
    return claim(missing, state=ClipState.RENDERING, step=0, steps=0)
