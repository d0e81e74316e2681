"""Celery tasks of the GPU and hosted workers and of the beat that keeps them awake."""

import logging
import socket
from datetime import timedelta
from typing import Any, cast

from celery import shared_task
from django.conf import settings
from django.core.files.storage import default_storage
from django.db.models import Q
from django.utils import timezone
from redis import Redis

from generation.hosted import poll_due, submit_waiting, work_waiting
from generation.importing import fail_killed
from generation.models import Clip, ClipState
from generation.rendering import claim, claimable, render_claimed
from generation.uploads import import_next_row, next_in_line, sweep_uploads
from generation.workers import QUEUE, forget_silent

# A hosted worker stays with one message for this long, then goes back to the queue for the next.
SHIFT_SECONDS = 60
EXPIRES = 20  # seconds after which a wake-up that nobody took means nothing any more
# A message carries its sender's limits unless told otherwise; the worker's own hold instead.
WAKE_UP = {"expires": EXPIRES, "time_limit": None, "soft_time_limit": None}
# More idle workers than this are woken in the next round.
WAKE_AT_MOST = 16
HOSTED_QUEUE = "hosted"
HOSTED_WAKE_AT_MOST = 8  # each looks at all the jobs that it finds due
ORPHAN_AGE = timedelta(hours=24)

log = logging.getLogger(__name__)


@shared_task(
    bind=True,
    soft_time_limit=settings.RENDER_SECONDS_AT_MOST,
    time_limit=settings.RENDER_SECONDS_AT_MOST + settings.RENDER_SECONDS_TO_STOP,
)
def render_waiting(self: Any) -> bool:
    """Render the clip that comes next; True when it became ready.

    The message says nothing but "wake up": which clip comes next is decided in PostgreSQL. Each
    message is for one clip, so that the limits of its time are the clip's, and a worker that is
    told to end does so after it; while clips wait, a worker sends itself the next.
    """
    clip = claim(self.request.hostname or socket.gethostname())
    if clip is None:
        return False
    _, limit = self.request.timelimit or (None, None)
    ready = render_claimed(clip, limit or self.soft_time_limit)
    render_waiting.apply_async(**WAKE_UP)
    return ready


@shared_task
def wake_workers() -> int:
    """One wake-up per clip that could be started on, for as many workers as may be idle.

    An expired message stays in Redis until a worker looks at it, so as many as are there already
    are not sent again.
    """
    with Redis.from_url(settings.CELERY_BROKER_URL) as broker:
        queued = cast(int, broker.llen(QUEUE))
    count = max(0, min(claimable(), WAKE_AT_MOST) - queued)
    for _ in range(count):
        render_waiting.apply_async(**WAKE_UP)
    return count


@shared_task
def submit_hosted() -> int:
    """Order clips from paid services; returns how many orders were taken."""
    return submit_waiting(SHIFT_SECONDS)


@shared_task
def poll_hosted() -> int:
    """Ask after orders and collect what is done; returns how many clips became ready."""
    return poll_due(SHIFT_SECONDS)


@shared_task
def wake_hosted() -> int:
    """Wake hosted workers if they have anything to do, and are not about to wake anyway."""
    orders, jobs = work_waiting()
    if not orders and not jobs:
        return 0
    with Redis.from_url(settings.CELERY_BROKER_URL) as broker:
        room = HOSTED_WAKE_AT_MOST - cast(int, broker.llen(HOSTED_QUEUE))
    wanted = [submit_hosted] * min(orders, 2) + [poll_hosted] * min(jobs, 4)
    for task in wanted[: max(0, room)]:
        task.apply_async(expires=EXPIRES)
    return min(len(wanted), max(0, room))


@shared_task
def import_uploaded(pk: str, fence: int) -> bool:
    """Import one row of an upload; True when that was done. Other work comes between two rows.

    The fence says how far the upload was when the message was sent: of two alike one does nothing.
    """
    if not import_next_row(pk, fence):
        return False
    wake_importers()
    return True


@shared_task
def wake_importers() -> None:
    """Uploads are imported one after the other: wake a worker for the one whose turn it is."""
    if (upload := next_in_line()) is not None:
        import_uploaded.apply_async((str(upload.pk), upload.fence), expires=EXPIRES)


@shared_task
def sweep_media() -> int:
    """Delete files of attempts that died before publication, once they are a day old.

    Imports that died are failed in words: nobody else takes them up until somebody imports again.

    Only a clip that was claimed more than once, or is not ready, can have such files.
    """
    forget_silent()
    fail_killed()
    sweep_uploads()
    swept, youngest = 0, timezone.now() - ORPHAN_AGE
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
                    swept += 1
    return swept


def _files_in(folder: str) -> list[str]:
    try:
        return default_storage.listdir(folder)[1]
    except FileNotFoundError:  # an object store has no folders and lists nothing instead
        return []


@shared_task
def withdraw_lost_clips() -> int:
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
