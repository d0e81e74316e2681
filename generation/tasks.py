"""Tasks that make clips: rendering, hosted orders, imports, and what keeps their workers awake.

A message says nothing but "wake up": what comes next is decided in PostgreSQL.
"""

import socket
from typing import Any

from celery import shared_task
from django.conf import settings

from generation.hosted.jobs import work_waiting
from generation.hosted.orders import submit_waiting
from generation.hosted.results import poll_due
from generation.imports.files import fail_killed
from generation.imports.upload_rows import import_next_row
from generation.imports.uploads import next_in_line, sweep_uploads
from generation.media.pauses import forget_pauses
from generation.media.scratch import sweep_scratch
from generation.messages import count_waiting, limited_to
from generation.rendering.claims import claim_clip, count_claimable
from generation.rendering.render import render_claimed
from generation.rendering.sweep import delete_orphans, fail_lost_clips
from generation.rendering.workers import forget_silent

# A hosted worker stays with one message for this long, then goes back to the queue for the next.
SHIFT_SECONDS = 60
# For the job at which a shift ends: its download and its encoding.
SHIFT_SECONDS_AT_MOST = 1200.0
# An upload's row: a minute of 4K takes minutes to encode.
IMPORT_SECONDS_AT_MOST = 1800.0
SWEEP_SECONDS_AT_MOST = 3600.0
# More idle workers than this are woken in the next round.
WAKE_AT_MOST = 16
SUBMIT_AT_MOST = 2  # messages that wait; each looks at all the jobs that it finds due
POLL_AT_MOST = 4
# A message carries its sender's limits unless told otherwise; the worker's own hold instead.
WORKERS_LIMITS = {"time_limit": None, "soft_time_limit": None}


@shared_task(
    bind=True,
    soft_time_limit=settings.RENDER_SECONDS_AT_MOST,
    time_limit=settings.RENDER_SECONDS_AT_MOST + settings.RENDER_SECONDS_TO_STOP,
)
def render_waiting(self: Any) -> bool:
    """Render the clip that comes next; True when it became ready.

    Each message is for one clip, so that the limits of its time are the clip's, and a worker that
    is told to end does so after it; while clips wait, a worker sends itself the next.
    """
    clip = claim_clip(self.request.hostname or socket.gethostname())
    if clip is None:
        return False
    _, limit = self.request.timelimit or (None, None)
    ready = render_claimed(clip, limit or self.soft_time_limit)
    render_waiting.apply_async(**WORKERS_LIMITS)
    return ready


@shared_task(**limited_to(30))
def wake_workers() -> int:
    """One wake-up per clip that could be started on, for as many workers as may be idle."""
    count = max(0, min(count_claimable(), WAKE_AT_MOST) - count_waiting(render_waiting.name))
    for _ in range(count):
        render_waiting.apply_async(**WORKERS_LIMITS)
    return count


@shared_task(**limited_to(SHIFT_SECONDS_AT_MOST))
def submit_hosted() -> int:
    """Order clips from paid services; returns how many orders were taken."""
    return submit_waiting(SHIFT_SECONDS)


@shared_task(**limited_to(SHIFT_SECONDS_AT_MOST))
def poll_hosted() -> int:
    """Ask after orders and collect what is done; returns how many clips became ready."""
    sweep_scratch()
    return poll_due(SHIFT_SECONDS)


@shared_task(**limited_to(30))
def wake_hosted() -> int:
    """Wake hosted workers if they have anything to do, and are not about to wake anyway."""
    orders, jobs = work_waiting()
    count = 0
    for task, wanted in (
        (submit_hosted, min(orders, SUBMIT_AT_MOST)),
        (poll_hosted, min(jobs, POLL_AT_MOST)),
    ):
        for _ in range(wanted - count_waiting(task.name) if wanted else 0):
            task.apply_async()
            count += 1
    return count


@shared_task(**limited_to(IMPORT_SECONDS_AT_MOST))
def import_waiting() -> bool:
    """Import one row of the upload whose turn it is; True when that was done.

    Other work of the queue comes between two rows.
    """
    if not import_next_row():
        return False
    wake_importers()
    return True


@shared_task(**limited_to(30))
def wake_importers() -> int:
    """Wake a worker for the next row of an upload; uploads are imported one after the other."""
    if next_in_line() is None or count_waiting(import_waiting.name):
        return 0
    import_waiting.apply_async()
    return 1


@shared_task(**limited_to(SWEEP_SECONDS_AT_MOST))
def sweep_media() -> int:
    """Clear up after workers and imports that died; returns how many files were deleted.

    Imports that died are failed in words: nobody else takes them up until somebody imports again.
    """
    forget_silent()
    fail_killed()
    sweep_scratch()
    forget_pauses()
    sweep_uploads()
    return delete_orphans()


@shared_task(**limited_to(SWEEP_SECONDS_AT_MOST))
def withdraw_lost_clips() -> int:
    """Take clips whose files are gone out of the arena; returns how many."""
    return fail_lost_clips()
