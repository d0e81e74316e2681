"""Files that no clip names are deleted; clips whose files are gone leave the arena."""

import logging
from datetime import timedelta
from typing import Any

from django.core.files.storage import default_storage
from django.db.models import Q
from django.utils import timezone

from generation.models import Clip, ClipState

ORPHAN_AGE = timedelta(hours=24)

log = logging.getLogger(__name__)


def delete_orphans() -> int:
    """Delete files of attempts that died before publication, once they are a day old.

    Only a clip that was claimed more than once, or is not ready, can have such files.
    """
    deleted, youngest = 0, timezone.now() - ORPHAN_AGE
    for clip in Clip.objects.filter(
        Q(fence__gt=1) | Q(fence=1) & ~Q(state=ClipState.READY)
    ).iterator():
        published = {str(clip.master), str(clip.rendition), str(clip.poster)}
        for attempt in range(1, clip.fence + 1):
            folder = f"clips/{clip.pk}/{attempt}"
            for name in _files_in(folder):
                path = f"{folder}/{name}"
                if path not in published and default_storage.get_modified_time(path) < youngest:
                    default_storage.delete(path)
                    deleted += 1
    return deleted


def _files_in(folder: str) -> list[str]:
    try:
        return default_storage.listdir(folder)[1]
    except FileNotFoundError:  # an object store has no folders and lists nothing instead
        return []


def fail_lost_clips() -> int:
    """Take clips whose files are gone out of the arena, with the reason; returns how many.

    When most files seem to be gone it is the storage that is away, and nothing is withdrawn.
    """
    ready = Clip.objects.filter(state=ClipState.READY)
    lost: dict[Any, str] = {}
    seen = 0
    for pk, *names in ready.values_list("pk", "rendition", "poster").iterator():
        seen += 1
        if missing := [name for name in names if not default_storage.exists(name)]:
            lost[pk] = missing[0]
    if len(lost) > max(1, seen // 2):
        log.error("%s of %s ready clips have no file: is the storage away?", len(lost), seen)
        return 0
    for pk, name in lost.items():
        ready.filter(pk=pk).update(
            state=ClipState.FAILED, error=f"The file {name} is missing from the media storage."
        )
    return len(lost)
