"""Celery tasks of the GPU worker and of the beat that keeps it awake."""

import socket
import time
from datetime import timedelta

from celery import shared_task
from django.core.files.storage import default_storage
from django.utils import timezone

from generation.models import Clip
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
    """Delete files of attempts that died before publication, once they are a day old."""
    swept, oldest_kept = 0, timezone.now() - ORPHAN_AGE
    folders, _ = default_storage.listdir("clips") if default_storage.exists("clips") else ([], [])
    for folder in folders:
        clip = Clip.objects.filter(pk=folder).first()
        published = {clip.master.name, clip.rendition.name, clip.poster.name} if clip else set()
        attempts, _ = default_storage.listdir(f"clips/{folder}")
        for attempt in attempts:
            for name in default_storage.listdir(f"clips/{folder}/{attempt}")[1]:
                path = f"clips/{folder}/{attempt}/{name}"
                if path in published or default_storage.get_modified_time(path) > oldest_kept:
                    continue
                default_storage.delete(path)
                swept += 1
    return swept
