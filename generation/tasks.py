"""Celery tasks of the GPU worker and of the beat that keeps it awake."""

import socket
import time
from datetime import timedelta

from celery import shared_task
from django.core.files.storage import default_storage
from django.db.models import Q
from django.utils import timezone

from generation.models import Clip, ClipState
from generation.rendering import claim, claimable, render_claimed

# A worker stays with one message for this long, then goes back to the queue for the next.
SHIFT_SECONDS = 600
# More idle workers than this are woken in the next round.
WAKE_AT_MOST = 16
ORPHAN_AGE = timedelta(hours=24)


@shared_task
def render_waiting() -> int:
    """Render clips until none waits or the shift is over; returns how many became ready.

    The message says nothing but "wake up": which clip comes next is decided in PostgreSQL.
    """
    ready, end = 0, time.monotonic() + SHIFT_SECONDS
    while time.monotonic() < end:
        clip = claim(socket.gethostname())
        if clip is None:
            break
        ready += render_claimed(clip)
    return ready


@shared_task
def wake_workers() -> int:
    """One wake-up per clip that could be started on, for as many workers as may be idle."""
    count = min(claimable(), WAKE_AT_MOST)
    for _ in range(count):
        render_waiting.apply_async(expires=20)
    return count


@shared_task
def sweep_media() -> int:
    """Delete files of attempts that died before publication, once they are a day old.

    Only a clip that was claimed more than once, or failed, can have such files.
    """
    swept, youngest = 0, timezone.now() - ORPHAN_AGE
    for clip in Clip.objects.filter(Q(fence__gt=1) | Q(state=ClipState.FAILED)).iterator():
        published = {str(clip.master), str(clip.rendition), str(clip.poster)}
        for attempt in range(1, clip.fence + 1):
            folder = f"clips/{clip.pk}/{attempt}"
            for name in _files_in(folder):
                path = f"{folder}/{name}"
                if path not in published and default_storage.get_modified_time(path) < youngest:
                    default_storage.delete(path)
                    swept += 1
    return swept


def _files_in(folder: str) -> list[str]:
    try:
        return default_storage.listdir(folder)[1]
    except FileNotFoundError:  # an object store has no folders and lists nothing instead
        return []
