"""Files that no clip names are deleted; clips whose files are gone leave the arena."""

import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta
from uuid import UUID

from django.core.files.storage import default_storage
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from generation.media.storage import StoredFile, media_storage
from generation.models import Clip, ClipState

ORPHAN_AGE = timedelta(hours=24)
# A folder into which nothing was stored is looked at again after so long, and in one run no more
# than so many folders: at an hour between runs, more than a million clips.
SEEN_WITHIN = timedelta(days=30)
FOLDERS_AT_MOST = 2000
# Of one listing of the storage; whichever of a voter's clips is missing, so many others are asked
# for before the storage is believed.
CLIPS_LISTED = 1000
OTHERS_ASKED = 4

log = logging.getLogger(__name__)


def delete_orphans() -> int:
    """Delete files of attempts that died before publication, and of earlier profiles, once they are
    a day old; returns how many.

    A clip's folder is looked at a day after something was stored there (`_store` in
    generation/rendering/publish.py says so before it does), and every SEEN_WITHIN in any case.
    """
    deleted, youngest = 0, timezone.now() - ORPHAN_AGE
    due = Clip.objects.filter(sweep_at__lte=Now()).order_by("sweep_at")
    for clip in due.only("master", "rendition", "poster", "sweep_at")[:FOLDERS_AT_MOST]:
        named = {str(clip.master), str(clip.rendition), str(clip.poster)}
        others = [file for file in _files_of(clip.pk) if file.name not in named]
        old = [file.name for file in others if file.modified < youngest]
        for name in old:
            default_storage.delete(name)
        deleted += len(old)
        pause = SEEN_WITHIN if len(old) == len(others) else ORPHAN_AGE
        # Unless something is being stored there now.
        same = Clip.objects.filter(pk=clip.pk, sweep_at=clip.sweep_at)
        same.update(sweep_at=Now() + pause)
    return deleted


def _files_of(pk: UUID) -> list[StoredFile]:
    return list(media_storage().files_under(f"clips/{pk}/"))


# --- lost clips ----------------------------------------------------------------------------------


def fail_lost_clips() -> int:
    """Take clips whose files are gone, or cut off, out of the arena, with the reason; returns how
    many.

    The storage is listed, about CLIPS_LISTED clips at a time. When most files seem to be gone it is
    the storage that is away, and nothing is withdrawn.
    """
    lost: dict[UUID, str] = {}
    seen, count = 0, _kept().count()
    digits = 0
    while count > CLIPS_LISTED * 16**digits:
        digits += 1
    for number in range(16**digits):
        begin = f"{number:0{digits}x}" if digits else ""
        sizes = {file.name: file.size for file in media_storage().files_under(f"clips/{begin}")}
        for pk, facts in _facts(_kept().filter(**_beginning(begin))):
            seen += 1
            if why := _why_lost(facts, sizes):
                lost[pk] = why
    if len(lost) > max(1, seen // 2):
        log.error("%s of %s clips have no file: is the media storage away?", len(lost), seen)
        return 0
    return sum(_fail_lost(pk, why) for pk, why in lost.items())


def fail_if_lost(pk: UUID) -> bool:
    """A file of this clip was asked for in vain: whether the clip is out of the arena now.

    It stays if the file is there by now, or if other clips lack theirs: then the storage is away.
    """
    asked = next(iter(_facts(_kept().filter(pk=pk))), None)
    if asked is None:
        return True
    why = _why_lost(asked[1])
    ready = Clip.objects.filter(state=ClipState.READY).exclude(pk=pk)
    others = list(_facts(ready.order_by("-ready_at")[:OTHERS_ASKED]))
    there = sum(not _why_lost(facts) for _, facts in others)
    return bool(why) and 2 * there > len(others) and _fail_lost(pk, why)


def _kept() -> QuerySet[Clip]:
    return Clip.objects.filter(state__in=(ClipState.READY, ClipState.HELD))


def _facts(clips: QuerySet[Clip]) -> Iterator[tuple[UUID, tuple[str, str, int | None]]]:
    for pk, *facts in clips.values_list("pk", "rendition", "poster", "rendition_bytes"):
        yield pk, tuple(facts)


def _beginning(digits: str) -> dict[str, UUID]:
    """The clips whose ids begin with these hexadecimal digits."""
    return {"pk__gte": UUID(digits.ljust(32, "0")), "pk__lte": UUID(digits.ljust(32, "f"))}


def _why_lost(facts: tuple[str, str, int | None], listed: Mapping[str, int] | None = None) -> str:
    """A sentence, or nothing if rendition and poster are there. `listed` are sizes by name; what it
    lacks is asked for."""
    (rendition, poster, size), sizes = facts, listed or {}
    found: dict[str, int] = {}
    for name in (rendition, poster):
        try:
            found[name] = sizes[name] if name in sizes else default_storage.size(name)
        except FileNotFoundError:
            return f"The file {name} is missing from the media storage."
    if size is not None and found[rendition] != size:
        return f"The media storage has {found[rendition]} of {size} bytes of the file {rendition}."
    return ""


def _fail_lost(pk: UUID, why: str) -> bool:
    failed = _kept().filter(pk=pk).update(state=ClipState.FAILED, error=why) == 1
    if failed:
        log.error("clip %s is shown no more: %s", pk, why)
    return failed
