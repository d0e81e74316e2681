"""While the media storage, or a machine's own disk, takes nothing, what writes waits.

One mechanism for all of it, renders, results of paid services, imports, uploads and checks:

    why_paused()      asked before the work: a sentence, or nothing
    with pausing():   around the work: a refusal becomes StorageRefuses and pauses what follows

A place is the media storage, for all machines, or one machine's disk for files in the making. It
pauses when it refuses a file, and when less than MEDIA_MIN_FREE bytes are free. From `try_at` on
one of those who ask looks whether it takes a file again; if so all go on, else they wait longer. No
clip and no job is failed for it, and none of their tries is used up.
"""

import errno
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import BooleanField, ExpressionWrapper, Q
from django.db.models.functions import Now

from generation.media.folder import free_bytes_at
from generation.media.storage import (
    PROBE_BYTES,
    StorageRefuses,
    media_storage,
    probe_storage,
)
from generation.models import StoragePause
from generation.rendering.leases import drop_idle_connection

MEDIA = "the media storage"
# What a disk says that takes nothing more, whatever is written.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# Whoever finds too little room looks again soon, as looking costs nothing. After a refusal a clip
# may be made in vain: so longer each time, and a refusal within the hour is one more in a row.
LOOK_AGAIN_SECONDS = 10
PAUSE_SECONDS, PAUSE_SECONDS_AT_MOST = 30, 600
IN_A_ROW = timedelta(hours=1)
FORGOTTEN = timedelta(days=1)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    name: str
    free_bytes: Callable[[], int | None]
    probe: Callable[[], None]  # writes a little; raises what the place raises

    def why_too_full(self) -> str:
        free, least = self.free_bytes(), settings.MEDIA_MIN_FREE
        if free is None or free >= least:
            return ""
        return (
            f"{_begin(self.name)} has {free / 1e6:,.0f} MB free, and the least is "
            f"{least / 1e6:,.0f} MB (MEDIA_MIN_FREE)."
        )


def why_paused(scratch: bool = True) -> str:
    """Why nothing should be written now, in a sentence; nothing if it can be.

    `scratch` is False for who writes to the media storage alone.
    """
    places = [_media(), _disk()] if scratch else [_media()]
    due = ExpressionWrapper(Q(try_at__lte=Now()), output_field=BooleanField())
    paused = StoragePause.objects.filter(ended_at=None, place__in=[place.name for place in places])
    pauses = {pause.place: pause for pause in paused.annotate(due=due)}
    for place in places:
        if why := _why_paused_at(place, pauses.get(place.name)):
            return why
    return ""


def why_too_full() -> str:
    """Why the media storage should take nothing, by what it has free; nothing if it has room."""
    return _media().why_too_full()


def pauses_now() -> list[StoragePause]:
    """What is paused, as was found last."""
    return list(StoragePause.objects.filter(ended_at=None))


@contextmanager
def pausing() -> Iterator[None]:
    """A refusal of a disk or of the media storage inside pauses all that writes there, and is
    raised as StorageRefuses."""
    try:
        yield
    except Exception as error:
        refused = _refusal_in(error)
        if refused is None:
            raise
        name, why = refused
        drop_idle_connection()
        _pause(name, why, refused=True)
        raise StorageRefuses(why) from error


def forget_pauses() -> int:
    """Those that are over, and those of machines that look no more."""
    old = Q(ended_at__lt=Now() - FORGOTTEN) | Q(try_at__lt=Now() - FORGOTTEN)
    return StoragePause.objects.filter(old).delete()[0]


def _media() -> Place:
    return Place(MEDIA, media_storage().free_bytes, probe_storage)


def _disk() -> Place:
    scratch = Path(settings.SCRATCH)

    def probe() -> None:
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=scratch) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())

    return Place(_disk_name(), lambda: free_bytes_at(scratch), probe)


def _disk_name() -> str:
    return f"the disk of {socket.gethostname()} for files in the making (SCRATCH)"[:120]


def _why_paused_at(place: Place, pause: StoragePause | None) -> str:
    if pause is not None and not (pause.due and _take_turn(pause)):  # type: ignore[attr-defined]
        return pause.reason
    if why := place.why_too_full():
        _pause(place.name, why, refused=False)
        return why
    if pause is not None:
        refusals: tuple[type[Exception], ...] = (
            OSError,
            StorageRefuses,
            *media_storage().refusals(),
        )
        try:
            place.probe()
        except refusals as error:
            why = str(error) if isinstance(error, StorageRefuses) else _words(place.name, error)
            _pause(place.name, why, refused=True, looked=True)
            return why
        StoragePause.objects.filter(pk=pause.pk).update(ended_at=Now())
        log.warning("What writes goes on: %s takes files again.", place.name)
    return ""


def _take_turn(pause: StoragePause) -> bool:
    """One looks, the others wait for what it finds; if it dies, for so long."""
    mine = StoragePause.objects.filter(pk=pause.pk, ended_at=None, try_at=pause.try_at)
    return mine.update(try_at=Now() + timedelta(seconds=PAUSE_SECONDS)) == 1


@transaction.atomic
def _pause(name: str, why: str, *, refused: bool, looked: bool = False) -> None:
    """Begin a pause, or lengthen the one that is on; `looked` is True for who took the turn."""
    over = Now() - 2 * IN_A_ROW
    new = StoragePause(place=name, reason=why, since=over, try_at=over, ended_at=over, times=0)
    StoragePause.objects.bulk_create([new], ignore_conflicts=True)
    pause = StoragePause.objects.select_for_update().annotate(now=Now()).get(place=name)
    now: datetime = pause.now
    if pause.ended_at is not None:
        log.error("What writes waits: %s", why)
        pause.times = 0 if now - pause.ended_at > IN_A_ROW else pause.times
        pause.since, pause.ended_at = now, None
    elif refused and not looked and pause.try_at > now:
        return  # somebody met the same a moment ago
    pause.times += refused
    longest = min(PAUSE_SECONDS * 2.0 ** (pause.times - 1), PAUSE_SECONDS_AT_MOST)
    pause.try_at = now + timedelta(seconds=longest if refused else LOOK_AGAIN_SECONDS)
    pause.reason = why
    pause.save()


def _refusal_in(error: BaseException) -> tuple[str, str] | None:
    """Which place refused, and a sentence, if the error or what led to it is a refusal."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, StorageRefuses):
            return MEDIA, str(seen)
        if isinstance(seen, OSError):
            if seen.errno in DISK_FULL:
                return _disk_name(), _words(_disk_name(), seen)
        elif isinstance(seen, media_storage().refusals()):
            return MEDIA, _words(MEDIA, seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def _words(name: str, error: BaseException) -> str:
    return f"{_begin(name)} refuses what is written ({error})."


def _begin(name: str) -> str:
    """As the first words of a sentence."""
    return name[0].upper() + name[1:]
