"""The job of a clip that a paid service makes: who works on it, how it waits and how it ends.

    waiting     a hosted worker claimed the clip and made its job; nothing is ordered
    submitting  its cost is set aside from the version's budget, and the order is being sent
    submitted   the service took it and said where to ask
    collected   the file was fetched, checked, encoded and published, as of any other clip
    stopped     the service took it, and is asked no more: “Retry failed” asks there again
    failed      why, in words, on the job and on the clip

No worker waits for a service: a worker claims a job that is due, looks at it, and lets it go until
it is due again (generation/rendering/leases.py). If the worker dies, another takes the job over
when the lease has run out. Each step is an update that counts only while the lease is held.
"""

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import DurationField, ExpressionWrapper, F, Q, QuerySet
from django.db.models.functions import Now

from generation.backends import CannotRender
from generation.backends.registry import HOSTED, load_service
from generation.hosted.http import MessageNotSent, NoAnswer, Reply, send
from generation.hosted.messages import NO_REASON, sentence
from generation.hosted.records import clean_text
from generation.hosted.service import Service
from generation.models import RENDERED_STATES, Clip, ClipState, HostedJob, JobState
from generation.rendering.leases import claim, claimable, held, release

log = logging.getLogger(__name__)

# A clip is given away only if no hosted worker has looked at its job for this long, a day.
CLIP_SECONDS = 86400.0
OUT = (JobState.SUBMITTING, JobState.SUBMITTED)


def service_of(job: HostedJob) -> Service:
    return load_service(job.backend)


def words_of(service: Service, reply: Reply) -> str:
    """What the service says, in one bounded line that ends in a full stop."""
    answer = reply.json()
    said = service.reason_in(answer)
    return sentence(reply.text()) if said == NO_REASON else said


def age_of(job: HostedJob) -> timedelta:
    """Since the order was sent, by the database's clock."""
    age: timedelta | None = getattr(job, "age", None)
    return age or timedelta()


def poll_pause(job: HostedJob) -> float:
    """Seconds between two looks at an order that is out: few at first, a tenth of its age later."""
    return min(max(age_of(job).total_seconds() / 10, 5.0), 30.0)


def jobs_out() -> int:
    """How many orders are out."""
    return HostedJob.objects.filter(state__in=OUT).count()


def work_waiting() -> tuple[int, int]:
    """How many orders could be sent now, and how many jobs are to be looked at."""
    room = max(0, settings.HOSTED_JOBS_AT_MOST - jobs_out())
    orders = claimable(_queue(JobState.WAITING)).count() + claimable_clips().count()
    return min(room, orders), claimable(_queue(*OUT)).count()


# --- claiming ------------------------------------------------------------------------------------


def claim_job(*states: JobState) -> HostedJob | None:
    """The job in one of these states that has been due longest; of orders to be sent, the first by
    its clip's priority."""
    age = ExpressionWrapper(Now() - F("submitted_at"), output_field=DurationField())
    jobs = _queue(*states).select_related("clip__version", "clip__prompt__image").annotate(age=age)
    due = ("next_try_at", "-clip__priority", "clip__position", "pk")
    first = ("-clip__priority", *due) if states == (JobState.WAITING,) else due
    return claim(jobs.order_by(*first), seconds=look_seconds())


def look_seconds() -> float:
    """Longer than any one message can take: its connection, its answer, and time to spare."""
    return settings.LEASE_SECONDS + 2 * settings.HOSTED_TIMEOUT_SECONDS


def _queue(*states: JobState) -> QuerySet[HostedJob]:
    # What is ordered is paid for and collected; what is not waits while its version is paused.
    idle = ~Q(clip__version__state__in=RENDERED_STATES) | Q(backend__in=_full_services())
    jobs = HostedJob.objects.filter(state__in=states)
    return jobs.exclude(Q(state=JobState.WAITING) & idle)


def _full_services() -> QuerySet[HostedJob, str]:
    """Services that said 429 and are waited for: the order that they refused is sent first."""
    waited_for = Q(next_try_at__gt=Now()) | Q(leased_until__gt=Now())
    refused = HostedJob.objects.filter(
        waited_for, state=JobState.WAITING, submitted_at__isnull=False, tries=0
    )
    return refused.values_list("backend", flat=True)


def claimable_clips() -> QuerySet[Clip]:
    clips = Clip.objects.filter(
        state__in=(ClipState.WAITING, ClipState.RENDERING),
        version__state__in=RENDERED_STATES,
        version__backend__in=HOSTED,
    )
    return claimable(clips.exclude(version__backend__in=_full_services()))


@transaction.atomic
def start_job() -> bool:
    """Make the next hosted clip a job; False when none waits."""
    clips = (
        claimable_clips().select_related("version").order_by("-priority", "position", "created_at")
    )
    clip = claim(clips, seconds=CLIP_SECONDS, state=ClipState.RENDERING, step=0, steps=0)
    if clip is None:
        return False
    # An order that is out is taken over, and whoever works on it finds the fence raised.
    open_jobs = clip.jobs.filter(state__in=HostedJob.OPEN)
    if not open_jobs.update(clip_fence=clip.fence, fence=F("fence") + 1):
        HostedJob.objects.create(
            clip=clip, clip_fence=clip.fence, backend=clip.version.backend, next_try_at=Now()
        )
    return True


def clip_held(job: HostedJob) -> QuerySet[Clip]:
    """The job's clip while it waits for this job; else nothing."""
    return Clip.objects.filter(pk=job.clip_id, fence=job.clip_fence, state=ClipState.RENDERING)


def extend_clip(job: HostedJob) -> bool:
    return clip_held(job).update(leased_until=Now() + timedelta(seconds=CLIP_SECONDS)) == 1


def hold_clip(job: HostedJob) -> bool:
    """Whether the clip still waits for this job; the job of one that does not is closed."""
    if extend_clip(job):
        return True
    state = Clip.objects.values_list("state", flat=True).get(pk=job.clip_id)
    if state in (ClipState.READY, ClipState.HELD):
        release(job, state=JobState.COLLECTED, error="")
    elif state == ClipState.FAILED:
        when = "before its order was sent." if job.state == JobState.WAITING else "meanwhile."
        words, last = f"The clip was failed {when}", JobState.FAILED
        if job.state == JobState.SUBMITTED:
            cancelled, said = cancel_order(job)
            words, last = f"{words} {said}", JobState.FAILED if cancelled else JobState.STOPPED
        release(job, state=last, error=words)
    return False  # a clip that waits again takes its job over when it is claimed


# --- ending --------------------------------------------------------------------------------------


def fail_job(
    job: HostedJob,
    reason: str,
    billed: bool,
    headers: Mapping[str, str] | None = None,
    state: JobState = JobState.FAILED,
    **keep: Any,
) -> None:
    """Close the job and fail its clip, in words, if both are still this worker's.

    The state says whether the order can be asked after again (STOPPED) or not.
    """
    reason = clean_text(reason, headers)
    cost = job.cost if billed else None
    if cost:
        reason += f" Counted as spent: ${cost:.2f}."
    if state == JobState.STOPPED:
        reason += " “Retry failed” asks for it there again and orders nothing."
    log.warning("clip %s failed: %s", job.clip_id, reason)
    with transaction.atomic():
        # The clip first: while somebody else claims it, its job stays open for them to take over,
        # or they would order again.
        failed = clip_held(job).update(state=ClipState.FAILED, error=reason, leased_until=None)
        if not failed or not held(job).update(
            state=state, leased_until=None, error=reason, cost=cost, **keep
        ):
            transaction.set_rollback(True)


def cancel_order(job: HostedJob) -> tuple[bool, str]:
    """Ask the service to make no clip any more: whether it says so, and what, in a sentence."""
    service = service_of(job)
    how = service.cancel(job.status_url)
    if how is None:
        return False, f"{service.name} has no way to cancel an order."
    try:
        headers = service.headers()
        reply = send(*how, headers)
    except (CannotRender, MessageNotSent, NoAnswer) as error:
        return False, f"It could not be cancelled there ({str(error).rstrip('.')})."
    if reply.ok:
        return True, "It was cancelled there."
    reason = clean_text(words_of(service, reply), headers)
    return False, f"It could not be cancelled there, which answers {reply.status}: {reason}"
