"""Clips from paid services: order once, ask now and then, copy the result at once.

The way of one clip, each step a conditional update whose rows are counted:

    waiting     a hosted worker claimed the clip: it has a lease, a fence and a job
    submitting  its cost is set aside from the version's budget, and the order is being sent
    submitted   the service took it and said where to ask
    collected   the file was fetched, checked, encoded and published, as of any other clip
    failed      why, in words, on the job and on the clip

An order is sent again only when it surely was not taken: nobody answered the door, or the service
turned it away for now, as its documents say. An order without an answer may be billed. It is never
sent again by itself: the clip fails and says so. What is only asked for or fetched can be tried
again at will. A service that is full (429) gets one order now and then until it takes one.

No worker waits for a service. `next_poll_at` says when a job is looked at next; whoever looks moves
it on first, so that two workers never look at one job, and one that dies is stood in for.
"""

import json
import logging
import math
import socket
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from django.conf import settings
from django.db import transaction
from django.db.models import DurationField, ExpressionWrapper, F, Q, QuerySet, Sum
from django.db.models.functions import Now
from django.utils import timezone
from urllib3.exceptions import MaxRetryError, NewConnectionError

from generation.backends import HOSTED, CannotRender
from generation.backends.ordering import (
    Accepted,
    Failed,
    Hosted,
    Order,
    Pending,
    Unreadable,
    hosted,
)
from generation.categories import Category
from generation.encoding import EncodingError
from generation.importing import Refused, Wanted, look_at
from generation.models import RENDERED_STATES, Clip, ClipState, HostedJob, JobState, Version
from generation.rendering import (
    LeaseLost,
    drop_idle_connection,
    encode_clip,
    publish,
    request_of,
)

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5
# 15, 30 ... 480 s of waiting and seven tries: a quarter of an hour of trouble passes unnoticed.
SUBMIT_TRIES = 7
FULL_SECONDS = 30  # between orders to a service that is full and does not say for how long
FULL_AT_MOST = timedelta(days=1)  # daily quotas begin anew by then
COLLECT_TRIES = 5  # 20, 40, 80, 160 s
LONGEST_WAIT = 3600  # s; a Retry-After beyond it is not believed
REDIRECTS = 5
SECRET_HEADERS = ("authorization", "x-goog-api-key")
PNG = "iVBORw0KGgo"  # how a PNG file begins in base64
ANSWER_BYTES = 1 << 20
KEPT_CHARACTERS = 4000  # of an answer, on its job
FILE_BYTES = 500 << 20  # a minute of 4K at 60 Mbit/s
DOWNLOAD_SECONDS = 300
# Longer than a download and encoding take: after it, a worker that died while collecting is
# stood in for.
COLLECT_LEASE = timedelta(minutes=20)
# A clip is given away only if no hosted worker has looked at its job for this long.
CLIP_LEASE = timedelta(days=1)
SUFFIXES = {
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "video/x-matroska": ".mkv",
    "application/octet-stream": ".mp4",  # some file stores know no better
}


# --- claiming ------------------------------------------------------------------------------------


def _take(clip: Clip) -> None:
    """The open job of a clip that was just claimed; an order that is out is taken over."""
    job = clip.jobs.filter(state__in=HostedJob.OPEN).first() or HostedJob(
        clip=clip, backend=clip.version.backend, next_poll_at=Now()
    )
    job.fence = clip.fence
    # Nobody else writes a job whose clip has just been claimed: they miss the new fence.
    job.save(update_fields=["fence"] if job.pk else None)


def _claimable() -> QuerySet[Clip]:
    return Clip.objects.filter(
        Q(lease_expires_at=None) | Q(lease_expires_at__lt=Now()),
        state__in=(ClipState.WAITING, ClipState.RENDERING),
        version__state__in=RENDERED_STATES,
        version__backend__in=HOSTED,
    ).exclude(version__backend__in=_full())


def _full() -> QuerySet[HostedJob, str]:
    """Services that said 429 and are waited for: the order that they refused is sent first."""
    jobs = HostedJob.objects.filter(state=JobState.WAITING, next_poll_at__gt=Now())
    return jobs.filter(submitted_at__isnull=False, tries=0).values_list("backend", flat=True)


@transaction.atomic
def _claim() -> bool:
    """Make the next hosted clip a job; False when none waits."""
    clips = _claimable().select_for_update(skip_locked=True, of=("self",))
    clip = clips.select_related("version").order_by("priority", "created_at").first()
    if clip is None:
        return False
    Clip.objects.filter(pk=clip.pk).update(
        state=ClipState.RENDERING,
        fence=F("fence") + 1,
        attempts=F("attempts") + 1,
        worker=socket.gethostname(),
        lease_expires_at=Now() + CLIP_LEASE,
        step=0,
        steps=0,
    )
    clip.fence += 1
    _take(clip)
    return True


def _due(*states: JobState) -> QuerySet[HostedJob]:
    jobs = HostedJob.objects.filter(state__in=states, next_poll_at__lte=Now())
    # What is ordered is paid for and collected; what is not waits while its version is paused.
    idle = ~Q(clip__version__state__in=RENDERED_STATES) | Q(backend__in=_full())
    return jobs.exclude(Q(state=JobState.WAITING) & idle)


@transaction.atomic
def _next(*states: JobState) -> HostedJob | None:
    """The job that has been due longest, kept from other workers while this one looks at it."""
    age = ExpressionWrapper(Now() - F("submitted_at"), output_field=DurationField())
    jobs = _due(*states).select_for_update(skip_locked=True, of=("self",)).annotate(age=age)
    jobs = jobs.select_related("clip__version", "clip__prompt__image")
    job = jobs.order_by("next_poll_at", "clip__priority", "pk").first()
    if job is not None:
        _mine(job).update(next_poll_at=Now() + _look_lease())
    return job


def _look_lease() -> timedelta:
    """Longer than any one message can take: its connection, its answer, and time to spare."""
    return timedelta(seconds=settings.RENDER_LEASE_SECONDS + 2 * settings.HOSTED_TIMEOUT_SECONDS)


def _mine(job: HostedJob) -> QuerySet[HostedJob]:
    return HostedJob.objects.filter(pk=job.pk, state=job.state, fence=job.fence)


def _held(job: HostedJob) -> QuerySet[Clip]:
    return Clip.objects.filter(pk=job.clip_id, fence=job.fence, state=ClipState.RENDERING)


def _age(job: HostedJob) -> timedelta:
    """Since the order was sent, by the database's clock."""
    age: timedelta | None = getattr(job, "age", None)
    return age or timedelta()


def work_waiting() -> tuple[int, int]:
    """How many orders could be sent now, and how many jobs are to be looked at."""
    room = max(0, settings.HOSTED_JOBS_AT_MOST - _out().count())
    orders = _due(JobState.WAITING).count() + _claimable().count()
    return min(room, orders), _due(JobState.SUBMITTING, JobState.SUBMITTED).count()


def _out() -> QuerySet[HostedJob]:
    return HostedJob.objects.filter(state__in=(JobState.SUBMITTING, JobState.SUBMITTED))


# --- ordering ------------------------------------------------------------------------------------


def submit_waiting(seconds: float) -> int:
    """Send orders until none waits, enough are out, or the time is over; returns how many went."""
    sent, end = 0, time.monotonic() + seconds
    drop_idle_connection()
    while time.monotonic() < end and _out().count() < settings.HOSTED_JOBS_AT_MOST:
        job = _next(JobState.WAITING)
        if job is not None:
            sent += _is_ours(job) and _submit(job)
        elif not _claim():
            break
    return sent


def _submit(job: HostedJob) -> bool:
    """Order the clip; True when the service took it.

    1. Write the order. 2. Set its cost aside and say that it is being sent. 3. Send it, once.
    4. Write down where to ask.
    """
    clip, service = job.clip, hosted(job.backend)
    try:
        order = service.order(
            clip.version.settings, request_of(clip.prompt, clip.category, clip.seed)
        )
        if not _set_aside(job, order):
            return False
    except CannotRender as error:
        _fail(job, str(error), billed=False)
        return False
    except (OSError, ValueError) as error:  # the prompt's image is missing or damaged
        _fail(job, f"The order can't be written ({type(error).__name__}: {error}).", billed=False)
        return False
    try:
        reply = _ask("POST", order.url, order.headers, order.body)
    except NotSent as error:
        _turned_away(job, f"{service.SERVICE} can't be reached ({error}).")
        return False
    except NoAnswer as error:
        log.warning("job %s: no answer to an order (%s)", job.pk, error)
        _mine(job).update(error=str(error))
        return False
    return _read_acceptance(job, order, reply)


def _set_aside(job: HostedJob, order: Order) -> bool:
    """Count the cost before anything is sent; False if the job is no longer this worker's.

    Orders of one version are counted one after the other, under its lock.
    """
    with transaction.atomic():
        version = Version.objects.select_for_update(no_key=True).get(pk=job.clip.version_id)
        cost = _cost(version, order)
        spent = HostedJob.objects.filter(clip__version=version).aggregate(sum=Sum("cost"))["sum"]
        spent = spent or Decimal(0)
        if version.budget is None or spent + cost > version.budget:
            has = "no budget" if version.budget is None else f"a budget of ${version.budget:.2f}"
            raise CannotRender(
                f"This clip would cost ${cost:.2f}; {version.slug} has {has} and has spent "
                f"${spent:.2f}. Raise the budget and try it again."
            )
        changed = _mine(job).update(
            state=JobState.SUBMITTING,
            request=_recorded({"url": order.url, "body": order.body, "notes": order.notes}),
            submitted_at=Now(),
            next_poll_at=Now() + _look_lease(),
            tries=F("tries") + 1,
            cost=cost,
            error="",
        )
        if not changed or not _held(job).update(lease_expires_at=Now() + CLIP_LEASE):
            transaction.set_rollback(True)
            return False
    job.state, job.cost, job.tries = JobState.SUBMITTING, cost, job.tries + 1
    return True


def _cost(version: Version, order: Order) -> Decimal:
    if version.price_per_second is None:
        raise CannotRender(
            f"Nobody said what {version.slug} costs, so its budget can't be kept: give the "
            "version a price_per_second."
        )
    return round(version.price_per_second * Decimal(str(order.seconds)), 4)


def _read_acceptance(job: HostedJob, order: Order, reply: "Reply") -> bool:
    """True when the service took the order and said where to ask."""
    service, answer = hosted(job.backend), reply.json()
    keep = {"answer": _recorded(answer, order.headers)}
    if not 200 <= reply.status < 300:
        _read_refusal(job, order, reply, keep)
        return False
    try:
        accepted = service.read_accepted(order.url, answer)
        if isinstance(accepted, Failed):
            reason = f"{service.SERVICE} refused the order: {accepted.reason}"
            _fail(job, reason, accepted.billed, order.headers, **keep)
            return False
        for url in (accepted.status_url, accepted.result_url):
            _refuse_elsewhere(url, order.url)
    except Unreadable as error:
        reason = f"{service.SERVICE} took the order, but its answer can't be used: {error}."
        _fail(job, reason, True, order.headers, **keep)
        return False
    return _write_down(job, accepted, keep)


def _read_refusal(job: HostedJob, order: Order, reply: "Reply", keep: Mapping[str, Any]) -> None:
    service, answer = hosted(job.backend), reply.json()
    said = f"the order with {reply.status}: {service.reason_in(answer)}"
    if service.turned_away(reply.status, answer):
        reason = f"{service.SERVICE} turned away {said}"
        (_full_up if reply.status == 429 else _turned_away)(job, reason, reply, order.headers)
    elif reply.status == 408 or reply.status >= 500:  # somebody in between gave up, or worse
        _mine(job).update(error=f"only a {reply.status}", **keep)
    else:
        _fail(job, f"{service.SERVICE} refused {said}", False, order.headers, **keep)


def _write_down(job: HostedJob, accepted: Accepted, keep: Mapping[str, Any]) -> bool:
    name = hosted(job.backend).SERVICE
    where = {
        "job_id": accepted.job_id[:200],
        "status_url": accepted.status_url,
        "result_url": accepted.result_url,
        **keep,
    }
    if not _mine(job).update(
        state=JobState.SUBMITTED, tries=0, next_poll_at=Now() + _pause(job), **where
    ):
        # Given up meanwhile; whoever reads the bill still finds what it was for.
        HostedJob.objects.filter(pk=job.pk).update(**where)
        log.error("job %s: %s took the order after it was given up", job.pk, name)
        return False
    log.info("job %s: %s took clip %s as %s", job.pk, name, job.clip_id, where["job_id"])
    return True


def _refuse_elsewhere(url: str, base: str) -> None:
    """The key goes to where orders go, and nowhere else."""
    if not _same_host(url, base):
        raise Unreadable("it names an address on another host")


def _same_host(url: str, base: str) -> bool:
    try:
        given, own = (
            (parts.scheme, parts.hostname, parts.port) for parts in map(urlsplit, (url, base))
        )
    except ValueError:
        raise Unreadable("it names an address that is none") from None
    return given == own


def _turned_away(
    job: HostedJob,
    reason: str,
    reply: "Reply | None" = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Nothing was accepted: wait and send the order again, so many times."""
    if job.tries >= SUBMIT_TRIES:
        _fail(job, f"{reason} That was try {job.tries}, the last.", False, headers)
        return
    wait = 15.0 * 2 ** (job.tries - 1)
    if reply is not None and reply.retry_after is not None:
        wait = reply.retry_after
    _wait(job, wait, reason, headers)


def _full_up(job: HostedJob, reason: str, reply: "Reply", headers: Mapping[str, str]) -> None:
    """The service takes no more for now: its orders wait, for a day at most."""
    if job.created_at + FULL_AT_MOST < timezone.now():
        _fail(job, f"{reason} So it has been for a day.", False, headers)
        return
    _wait(job, reply.retry_after or FULL_SECONDS, reason, headers, tries=0)


def _wait(
    job: HostedJob, seconds: float, reason: str, headers: Mapping[str, str] | None, **also: int
) -> None:
    _mine(job).update(
        state=JobState.WAITING,
        cost=None,
        next_poll_at=Now() + timedelta(seconds=seconds),
        error=_text(reason, headers),
        **also,
    )


# --- asking and collecting -----------------------------------------------------------------------


def poll_due(seconds: float) -> int:
    """Look at jobs until none is due or the time is over; returns how many clips became ready."""
    ready, end = 0, time.monotonic() + seconds
    drop_idle_connection()
    while time.monotonic() < end:
        job = _next(JobState.SUBMITTING, JobState.SUBMITTED)
        if job is None:
            break
        if not _is_ours(job):
            continue
        if job.state == JobState.SUBMITTING:
            _unanswered(job)
        else:
            ready += _poll(job)
    return ready


def _unanswered(job: HostedJob) -> None:
    service = hosted(job.backend).SERVICE
    why = job.error or "the worker died"
    reason = f"The order was sent to {service}, no answer came ({why}), and it may have been billed"
    _fail(job, f"{reason}: look there before you try it again.", billed=True)


def _is_ours(job: HostedJob) -> bool:
    """Whether the clip still waits for this job; the job of one that does not is closed."""
    if _held(job).update(lease_expires_at=Now() + CLIP_LEASE):
        return True
    state = Clip.objects.values_list("state", flat=True).get(pk=job.clip_id)
    if state == ClipState.READY:
        _mine(job).update(state=JobState.COLLECTED, error="")
    elif state == ClipState.FAILED:
        what = "before its order was sent." if job.state == JobState.WAITING else "meanwhile."
        out = f" {_cancel(job)}" if job.state == JobState.SUBMITTED else ""
        _mine(job).update(state=JobState.FAILED, error=f"The clip was failed {what}{out}")
    return False  # a clip that waits again takes its job over when it is claimed


def _poll(job: HostedJob) -> bool:
    service = hosted(job.backend)
    try:
        headers = service.headers()
        reply = _ask("GET", job.status_url, headers)
        _refuse_status(reply)
        answer = reply.json()
        outcome = service.read_status(answer)
    except (CannotRender, NotSent, NoAnswer, Unreadable) as error:
        # Asking costs nothing: go on until the time for the whole job is over.
        _later(job, f"{service.SERVICE} does not say how far it is: {str(error).rstrip('.')}.")
        return False
    keep = {"answer": _recorded(answer, headers)}
    if isinstance(outcome, Pending):
        _later(job, "", **keep)
        return False
    if isinstance(outcome, Failed):
        reason = f"{service.SERVICE} failed: {outcome.reason}"
        _fail(job, reason, billed=outcome.billed, headers=headers, **keep)
        return False
    if not _mine(job).update(next_poll_at=Now() + COLLECT_LEASE, **keep):
        return False
    return _collect(job, headers)


def _refuse_status(reply: "Reply") -> None:
    if not 200 <= reply.status < 300:
        raise Unreadable(f"it answers {reply.status}")


def _pause(job: HostedJob) -> timedelta:
    """Ask often at first, seldom later: a tenth of the time it has taken, 5 to 30 s."""
    return min(max(_age(job) / 10, timedelta(seconds=5)), timedelta(seconds=30))


def _later(job: HostedJob, error: str, **keep: Any) -> None:
    """Ask again in a while, unless the time for the whole job is over."""
    if _age(job).total_seconds() > settings.HOSTED_SECONDS_AT_MOST:
        reason = (
            f"{hosted(job.backend).SERVICE} had not finished {job.job_id} after "
            f"{settings.HOSTED_SECONDS_AT_MOST:g} s and is asked no more."
        )
        _fail(job, " ".join(filter(None, (reason, error, _cancel(job)))), billed=True, **keep)
        return
    _mine(job).update(
        polls=F("polls") + 1, next_poll_at=Now() + _pause(job), error=_text(error), **keep
    )


def _cancel(job: HostedJob) -> str:
    """Ask the service to make no clip any more; what became of it, in a sentence."""
    service = hosted(job.backend)
    how = service.cancel(job.status_url)
    if how is None:
        return f"{service.SERVICE} has no way to cancel an order."
    try:
        headers = service.headers()
        reply = _ask(*how, headers)
    except (CannotRender, NotSent, NoAnswer) as error:
        return f"It could not be cancelled there ({str(error).rstrip('.')})."
    if 200 <= reply.status < 300:
        return "It was cancelled there."
    reason = _text(service.reason_in(reply.json()), headers)
    return f"It could not be cancelled there, which answers {reply.status}: {reason}"


def _collect(job: HostedJob, headers: Mapping[str, str]) -> bool:
    """Fetch the file and make it the clip; True when it is ready.

    What may pass is tried again, as fetching is free; a whole file that is no good is final.
    """
    service, file = hosted(job.backend), None
    with tempfile.TemporaryDirectory() as name:
        try:
            reply = _ask("GET", job.result_url, headers)
            result = service.read_result(reply.status, reply.json())
            if isinstance(result, Failed):
                keep = {"answer": _recorded(reply.json(), headers)}
                reason = f"{service.SERVICE} failed: {result.reason}"
                _fail(job, reason, result.billed, headers, **keep)
                return False
            file = _download(result, Path(name), _file_key(service, headers), job.result_url)
            _publish(job, file, Path(name))
            return True
        except LeaseLost as error:
            log.warning("%s", error)
            _is_ours(job)
        except (Refused, EncodingError) as error:
            if file is not None and file.whole:
                _fail(job, f"What {service.SERVICE} made can't be used: {error}", billed=True)
            else:  # it may have been cut off without anybody noticing
                _fetch_again(job, f"The result of {job.job_id} can't be used: {error}")
        except (NotSent, NoAnswer, Unreadable) as error:
            _fetch_again(job, f"The result of {job.job_id} can't be fetched: {error}.")
        except Exception as error:  # a full disk, a storage that is away
            log.exception("job %s: the result could not be stored", job.pk)
            _fetch_again(job, f"The result could not be stored ({type(error).__name__}: {error}).")
    return False


def _file_key(service: Hosted, headers: Mapping[str, str]) -> Mapping[str, str]:
    return headers if service.FILE_WITH_KEY else {}


def _publish(job: HostedJob, file: "File", folder: Path) -> None:
    clip, started = job.clip, time.perf_counter()
    category = Category(clip.category)
    wanted = Wanted(file.path, clip.version, clip.prompt, category, clip.seed_slot, None, "")
    look_at(file.path, wanted)
    files = encode_clip(file.path, folder, clip.prompt, clip.category)
    publish(
        clip,
        files,
        render_seconds=_age(job).total_seconds(),
        encode_seconds=time.perf_counter() - started,
        hardware=f"{hosted(job.backend).SERVICE}, hosted",
    )
    _mine(job).update(state=JobState.COLLECTED, polls=F("polls") + 1, error="")


def _fetch_again(job: HostedJob, reason: str) -> None:
    tries = job.tries + 1
    if tries >= COLLECT_TRIES:
        _fail(job, f"{reason} That was try {tries}, the last.", billed=True)
        return
    _mine(job).update(
        tries=tries,
        polls=F("polls") + 1,
        next_poll_at=Now() + timedelta(seconds=10 * 2**tries),
        error=_text(reason),
    )


def _fail(
    job: HostedJob,
    reason: str,
    billed: bool,
    headers: Mapping[str, str] | None = None,
    **keep: Any,
) -> None:
    """Close the job and fail its clip, in words, if both are still this worker's."""
    reason = _text(reason, headers)
    cost = job.cost if billed else None
    if cost:
        reason += f" Counted as spent: ${cost:.2f}."
    log.warning("clip %s failed: %s", job.clip_id, reason)
    with transaction.atomic():
        # The clip first: while somebody else claims it, its job stays open for them to take over,
        # or they would order again.
        failed = _held(job).update(state=ClipState.FAILED, error=reason, lease_expires_at=None)
        if not failed or not _mine(job).update(
            state=JobState.FAILED, error=reason, cost=cost, **keep
        ):
            transaction.set_rollback(True)


# --- messages ------------------------------------------------------------------------------------


class NotSent(Exception):
    """Nobody answered the door: nothing can have arrived."""


class NoAnswer(Exception):
    """Something was sent, and what became of it is not known."""


@dataclass(frozen=True)
class Reply:
    status: int
    retry_after: float | None  # s
    body: bytes

    def json(self) -> Any:
        """The answer, or None if it is not JSON."""
        try:
            return json.loads(self.body, parse_constant=str)
        except (ValueError, RecursionError):
            return None


def _ask(
    method: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any] | None = None
) -> Reply:
    """One message with the key; it follows no redirect, as the key would go along."""
    with _sending(method, url, headers=dict(headers), json=body, allow_redirects=False) as reply:
        content = b"".join(_chunks(reply, ANSWER_BYTES, settings.HOSTED_TIMEOUT_SECONDS))
        return Reply(reply.status_code, _retry_after(reply), content)


@contextmanager
def _sending(method: str, url: str, **options: Any) -> Any:
    """requests, with its errors told apart by whether anything was sent; none of them is quoted."""
    try:
        with requests.request(
            method,
            url,
            stream=True,
            timeout=(CONNECT_SECONDS, settings.HOSTED_TIMEOUT_SECONDS),
            auth=lambda request: request,  # no other key from the machine's .netrc
            **options,
        ) as reply:
            yield reply
    except requests.ConnectTimeout:
        raise NotSent("no connection in time") from None
    except requests.Timeout:
        raise NoAnswer(f"nothing for {settings.HOSTED_TIMEOUT_SECONDS:g} s") from None
    except requests.RequestException as error:
        if isinstance(error, ValueError):  # an address or a header that can't be sent
            raise NotSent(f"the message is no good: {type(error).__name__}") from None
        inner = error.args[0] if error.args else None
        if isinstance(inner, MaxRetryError) and isinstance(inner.reason, NewConnectionError):
            raise NotSent("no connection") from None
        raise NoAnswer(f"the connection broke: {type(error).__name__}") from None


def _chunks(reply: requests.Response, limit: int, seconds: float) -> Iterable[bytes]:
    """The body, no more and no longer than allowed."""
    got, end = 0, time.monotonic() + seconds
    for chunk in reply.iter_content(1 << 16):
        got += len(chunk)
        if got > limit:
            raise NoAnswer(f"the answer is larger than {limit >> 20} MiB")
        if time.monotonic() > end:
            raise NoAnswer(f"the answer took more than {seconds:g} s")
        yield chunk


def _retry_after(reply: requests.Response) -> float | None:
    """Retry-After in seconds: it may be a number or a date."""
    value = reply.headers.get("Retry-After", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - timezone.now()).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 1.0), LONGEST_WAIT) if math.isfinite(seconds) else None


@dataclass(frozen=True)
class File:
    """A fetched file; `whole` if its length was announced and is right."""

    path: Path
    whole: bool


@contextmanager
def _opening(url: str, key: Mapping[str, str], own: str) -> Any:
    """The file, wherever its address leads; the key, if one is needed, stays with the service."""
    for _ in range(REDIRECTS):
        if urlsplit(url).scheme not in ("http", "https"):
            raise Unreadable("its address is none of the web")
        headers = {"Accept-Encoding": "identity", **(key if _same_host(url, own) else {})}
        with _sending("GET", url, headers=headers, allow_redirects=False) as reply:
            if not reply.is_redirect:
                yield reply
                return
            url = urljoin(url, reply.headers["Location"])
    raise Unreadable("its address leads on and on")


def _download(url: str, folder: Path, key: Mapping[str, str], own: str) -> File:
    """Copy the result; Unreadable or NoAnswer says why it did not work."""
    with _opening(url, key, own) as reply:
        if reply.status_code != 200:
            gone = " (the address may have expired)" if reply.status_code in (403, 404, 410) else ""
            raise Unreadable(f"its address answers {reply.status_code}{gone}")
        kind = reply.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if kind not in SUFFIXES:
            raise Unreadable(f"it is “{kind[:80]}”, not a video")
        announced = reply.headers.get("Content-Length", "")
        path = folder / f"result{SUFFIXES[kind]}"
        with path.open("wb") as file:
            for chunk in _chunks(reply, FILE_BYTES, DOWNLOAD_SECONDS):
                file.write(chunk)
    size = path.stat().st_size
    if announced.isdigit() and size != int(announced):
        raise Unreadable(f"it ended after {size} of {announced} bytes")
    return File(path, announced.isdigit())


# --- what is written down ------------------------------------------------------------------------


def _secrets(headers: Mapping[str, str] | None) -> list[str]:
    """Whole header values and their last words: “Key abc…” and “abc…”."""
    values = [v for name, v in (headers or {}).items() if name.lower() in SECRET_HEADERS]
    return [text for value in values for text in (value, value.split()[-1])]


def _text(value: str, headers: Mapping[str, str] | None = None) -> str:
    """Words as the database takes them, without the key should a service have quoted it."""
    for secret in _secrets(headers):
        value = value.replace(secret, "[key]")
    return value.replace("\0", "").encode("utf-8", "replace").decode()


def _recorded(value: Any, headers: Mapping[str, str] | None = None) -> Any:
    """A message for its job: images by their SHA-256, no key, not too long."""

    def clean(item: Any) -> Any:
        if isinstance(item, str):
            if item.startswith(("data:", PNG)):
                kind = "data:image/png;base64" if item.startswith(PNG) else item.split(",")[0]
                return f"{kind},sha256:{sha256(item.encode()).hexdigest()}"
            return _text(item, headers)
        if isinstance(item, float) and not math.isfinite(item):
            return str(item)
        if isinstance(item, Mapping):
            return {clean(str(key)): clean(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [clean(inner) for inner in item]
        return item

    cleaned = clean(value)
    text = json.dumps(cleaned)
    if len(text) > KEPT_CHARACTERS:
        return {"shortened": text[:KEPT_CHARACTERS]}
    return {} if cleaned is None else cleaned
