"""Clips ordered from paid services: each is ordered once, at a cost that was set aside.

An order is sent again only when it surely was not taken: no connection was made, or the service
is full (429, with the codes that its documents have for it) and gets one order now and then until
it takes one. Any other trouble, server errors among it, may have come after the order was taken
and billed. Such an order is looked for where the service knows it by a name of ours; else the clip
fails and says so, its cost counts as spent, and nothing is sent again by itself.
"""

import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Sum
from django.db.models.functions import Now
from django.utils import timezone

from generation.backends import CannotRender
from generation.hosted.http import MessageNotSent, NoAnswer, Reply, is_same_host, send
from generation.hosted.jobs import (
    claim_job,
    extend_clip,
    fail_job,
    hold_clip,
    jobs_out,
    look_seconds,
    poll_pause,
    service_of,
    start_job,
    words_of,
)
from generation.hosted.messages import UnreadableAnswer
from generation.hosted.records import clean_message, clean_text
from generation.hosted.service import Accepted, Failed, Order
from generation.media.pauses import why_paused
from generation.models import HostedJob, JobState, Version
from generation.rendering.leases import drop_idle_connection, held, postpone
from generation.rendering.queue import request_of

log = logging.getLogger(__name__)

# 15, 30 ... 480 s of waiting and seven tries: a quarter of an hour of trouble passes unnoticed.
ORDER_TRIES = 7
FULL_SECONDS = 30  # between orders to a service that is full and does not say for how long
FULL_AT_MOST = timedelta(days=1)  # daily quotas begin again by then


def submit_waiting(seconds: float) -> int:
    """Send orders until none waits, enough are out, the time is over, or nothing that is made could
    be written; returns how many went."""
    sent, end = 0, time.monotonic() + seconds
    drop_idle_connection()
    while time.monotonic() < end and jobs_out() < settings.HOSTED_JOBS_AT_MOST:
        if why_paused():
            break
        job = claim_job(JobState.WAITING)
        if job is not None:
            sent += hold_clip(job) and _submit(job)
        elif not start_job():
            break
    return sent


def _submit(job: HostedJob) -> bool:
    """Order the clip; True when the service took it.

    1. Write the order. 2. Set its cost aside and say that it is being sent. 3. Send it, once.
    4. Write down where to ask.
    """
    clip, service = job.clip, service_of(job)
    try:
        order = service.order(
            clip.version.settings, request_of(clip.prompt, clip.category, clip.seed)
        )
        order = service.name_order(order, f"{clip.pk}-{job.pk}")
        if not _set_aside(job, order):
            return False
    except CannotRender as error:
        fail_job(job, str(error), billed=False)
        return False
    except (OSError, ValueError) as error:  # the prompt's image is missing or damaged
        fail_job(job, f"The order can't be written ({type(error).__name__}: {error}).", False)
        return False
    try:
        reply = send("POST", order.url, order.headers, order.body)
    except MessageNotSent as error:
        _wait_longer(job, f"{service.name} can't be reached ({error}).", order)
        return False
    except NoAnswer as error:
        log.warning("job %s: no answer to an order (%s)", job.pk, error)
        held(job).update(error=f"no answer came ({error})")  # and the lease runs out
        return False
    return _read_acceptance(job, order, reply)


def _set_aside(job: HostedJob, order: Order) -> bool:
    """Count the cost before anything is sent; False if the job is no longer this worker's.

    Orders of one version are counted one after the other, under its lock.
    """
    with transaction.atomic():
        version = Version.objects.select_for_update(no_key=True).get(pk=job.clip.version_id)
        cost = _cost(version, order)
        spent = spent_on(version)
        if version.budget is None or spent + cost > version.budget:
            has = "no budget" if version.budget is None else f"a budget of ${version.budget:.2f}"
            raise CannotRender(
                f"This clip would cost ${cost:.2f}; {version.slug} has {has} and has spent "
                f"${spent:.2f}. Raise the budget and try it again."
            )
        changed = held(job).update(
            state=JobState.SUBMITTING,
            request=clean_message({"url": order.url, "body": order.body, "notes": order.notes}),
            submitted_at=Now(),
            status_url=order.lookup_url,
            leased_until=Now() + timedelta(seconds=look_seconds()),
            tries=F("tries") + 1,
            cost=cost,
            error="",
        )
        if not changed or not extend_clip(job):
            transaction.set_rollback(True)
            return False
    job.state, job.cost, job.tries = JobState.SUBMITTING, cost, job.tries + 1
    return True


def spent_on(version: Version) -> Decimal:
    """US dollars: what was paid, what may have been, and what is set aside for orders now out."""
    orders = HostedJob.objects.filter(clip__version=version)
    return orders.aggregate(sum=Sum("cost"))["sum"] or Decimal(0)


def _cost(version: Version, order: Order) -> Decimal:
    if version.price_per_second is None:
        raise CannotRender(
            f"Nobody said what {version.slug} costs, so its budget can't be kept: give the "
            "version a price_per_second."
        )
    return round(version.price_per_second * Decimal(str(order.seconds)), 4)


def _read_acceptance(job: HostedJob, order: Order, reply: Reply) -> bool:
    """True when the service took the order and said where to ask."""
    service, answer = service_of(job), reply.json()
    keep = {"answer": clean_message(answer, order.headers)}
    if not reply.ok:
        _read_refusal(job, order, reply, keep)
        return False
    try:
        accepted = service.read_accepted(order.url, answer)
        if isinstance(accepted, Failed):
            reason = f"{service.name} refused the order: {accepted.reason}"
            fail_job(job, reason, accepted.billed, order.headers, **keep)
            return False
        for url in (accepted.status_url, accepted.result_url):
            if not is_same_host(url, order.url):  # the key goes to where orders go, nowhere else
                raise UnreadableAnswer("it names an address on another host")
    except UnreadableAnswer as error:
        if order.lookup_url:
            held(job).update(error=f"its answer can't be used ({error})", **keep)
            return False
        reason = f"{service.name} took the order, but its answer can't be used: {error}."
        fail_job(job, reason, True, order.headers, **keep)
        return False
    return _write_down(job, accepted, keep)


def _read_refusal(job: HostedJob, order: Order, reply: Reply, keep: Mapping[str, Any]) -> None:
    service, answer = service_of(job), reply.json()
    said = clean_text(f"{reply.status}: {words_of(service, reply)}", order.headers)
    if service.turned_away(reply.status, answer):
        reason = f"{service.name} refused the order with {said}"
        _wait_while_full(job, reason, order, reply.retry_after)
    elif reply.status == 408 or reply.status >= 500:  # it may have been taken before that
        held(job).update(error=f"it answered {said}".rstrip("."), **keep)
    else:
        reason = f"{service.name} refused the order with {said}"
        fail_job(job, reason, False, order.headers, **keep)


def _write_down(job: HostedJob, accepted: Accepted, keep: Mapping[str, Any]) -> bool:
    name = service_of(job).name
    where = {
        "job_id": accepted.job_id[:200],
        "status_url": accepted.status_url,
        "result_url": accepted.result_url,
        **keep,
    }
    if not postpone(job, poll_pause(job), state=JobState.SUBMITTED, tries=0, **where):
        # Given up meanwhile: whoever reads the bill finds what it was for, and a retry asks there.
        HostedJob.objects.filter(pk=job.pk).update(**where)
        given_up = HostedJob.objects.filter(pk=job.pk, state=JobState.FAILED)
        given_up.update(state=JobState.STOPPED)
        log.error("job %s: %s took the order after it was given up", job.pk, name)
        return False
    log.info("job %s: %s took clip %s as %s", job.pk, name, job.clip_id, where["job_id"])
    return True


def _wait_longer(job: HostedJob, reason: str, order: Order) -> None:
    """Nothing arrived: wait and send the order again, so many times."""
    if job.tries >= ORDER_TRIES:
        reason = f"{reason} That was try {job.tries}, the last."
        fail_job(job, reason, False, order.headers)
        return
    _wait(job, 15.0 * 2 ** (job.tries - 1), reason, order)


def _wait_while_full(job: HostedJob, reason: str, order: Order, retry_after: float | None) -> None:
    """The service takes no more for now: its orders wait, for a day at most."""
    if job.created_at + FULL_AT_MOST < timezone.now():
        fail_job(job, f"{reason} So it has been for a day.", False, order.headers)
        return
    _wait(job, retry_after or FULL_SECONDS, reason, order, tries=0)


def _wait(job: HostedJob, seconds: float, reason: str, order: Order, **also: int) -> None:
    error = clean_text(reason, order.headers)
    postpone(job, seconds, state=JobState.WAITING, cost=None, error=error, **also)
