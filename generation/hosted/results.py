"""What became of orders: ask now and then, and copy the result at once.

Asking and fetching cost nothing and can be tried again at will. A service that says for good that
there is nothing, or nothing for this key, is believed at once; one that never finishes is asked no
more after HOSTED_SECONDS_AT_MOST, and its order is cancelled where that is possible. What was not
cancelled stays paid for, so its job is stopped rather than failed: an operator who mends the cause
has it asked for again, without a new order (`retry_failed` in generation/rendering/queue.py).
"""

import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings

from generation.backends import CannotRender
from generation.hosted.http import FetchedFile, MessageNotSent, NoAnswer, Reply, download, send
from generation.hosted.jobs import (
    OUT,
    age_of,
    cancel_order,
    claim_job,
    fail_job,
    hold_clip,
    poll_pause,
    service_of,
    words_of,
)
from generation.hosted.messages import UnreadableAnswer
from generation.hosted.records import clean_message, clean_text
from generation.hosted.service import Accepted, Done, Failed, Pending, Service, Unknown
from generation.media.pauses import why_paused
from generation.media.profile import EncodingError, SiteFault
from generation.media.scratch import scratch_folder
from generation.media.storage import StorageRefuses
from generation.models import HostedJob, JobState
from generation.rendering.leases import (
    Heartbeat,
    LeaseLost,
    drop_idle_connection,
    postpone,
    release,
    update_held,
)
from generation.rendering.publish import encode_clip, publish, sha256_of, take_in_clip

log = logging.getLogger(__name__)

# A finished clip that can't be copied is tried again for as long as every service keeps it, after
# 20, 40, 80 ... s.
RESULT_KEPT = timedelta(days=1)
FETCH_PAUSE_AT_MOST = 900  # s
# A file whose end was not announced may have been cut off; one that is no good so often is no good.
UNUSABLE_TRIES = 5
# A service may need a moment until it knows what it has just taken.
YOUNG = timedelta(minutes=1)
LOOKUP_FOR = timedelta(minutes=5)  # the same for an order that is looked for by our name


def poll_due(seconds: float) -> int:
    """Look at jobs until none is due, the time is over, or nothing can be written; returns how many
    clips became ready."""
    ready, end = 0, time.monotonic() + seconds
    drop_idle_connection()
    while time.monotonic() < end and not why_paused():
        job = claim_job(*OUT)
        if job is None:
            break
        if not hold_clip(job):
            continue
        if job.state == JobState.SUBMITTING:
            if job.status_url and not job.job_id:
                _look_up(job)
            else:
                _fail_unanswered(job)
        else:
            ready += _poll(job)
    return ready


def _fail_unanswered(
    job: HostedJob, found: str = "", state: JobState = JobState.FAILED, **keep: Any
) -> None:
    why = job.error or "no answer came (the worker died)"
    reason = (
        f"The order was sent to {service_of(job).name}, {why}, and it may have been billed: look "
        f"there before you order it again.{found}"
    )
    fail_job(job, reason, billed=True, state=state, **keep)


def _look_up(job: HostedJob) -> None:
    """Look for an order whose answer was lost, by the name that it was given."""
    service = service_of(job)
    try:
        headers = service.headers()
        reply = send("GET", job.status_url, headers)
        accepted = _read_lookup(service, job, reply)
    except (CannotRender, MessageNotSent, NoAnswer, UnreadableAnswer) as error:
        if age_of(job).total_seconds() > settings.HOSTED_SECONDS_AT_MOST:
            said = str(error).rstrip(".")
            _fail_unanswered(job, f" It could not be looked for ({said}).", JobState.STOPPED)
        else:
            log.warning("job %s: %s does not say whether it has it: %s", job.pk, job.backend, error)
            postpone(job, poll_pause(job))
        return
    keep = {"answer": clean_message(reply.json(), headers)}
    if accepted is not None:
        where = {
            "job_id": accepted.job_id[:200],
            "status_url": accepted.status_url,
            "result_url": accepted.result_url,
        }
        postpone(job, 0, state=JobState.SUBMITTED, tries=0, error="", **where, **keep)
        return
    words = clean_text(f"{reply.status}: {words_of(service, reply)}", headers)
    if reply.status in (401, 403):
        _fail_unanswered(job, f" Asked for it, it answers {words}", JobState.STOPPED, **keep)
    elif age_of(job) > LOOKUP_FOR:
        _fail_unanswered(job, f" Asked for it by its name, it answers {words}", **keep)
    else:
        postpone(job, poll_pause(job), **keep)


def _read_lookup(service: Service, job: HostedJob, reply: Reply) -> Accepted | None:
    """The order, or None if the service says that it has none; UnreadableAnswer if it says
    neither."""
    if reply.is_final:
        return None
    if not reply.ok:
        raise UnreadableAnswer(f"it answers {reply.status}")
    order_url = job.status_url.rpartition("/")[0]
    found = service.read_accepted(order_url, reply.json())
    return found if isinstance(found, Accepted) else None


def _poll(job: HostedJob) -> bool:
    """Ask how far the order is; True when its clip became ready."""
    service = service_of(job)
    try:
        headers = service.headers()
        reply = send("GET", job.status_url, headers)
        answer = reply.json()
        state: Pending | Done | Failed | Unknown
        if reply.is_final:
            state = Unknown(f"{reply.status}: {words_of(service, reply)}")
        elif not reply.ok:
            raise UnreadableAnswer(f"it answers {reply.status}: {words_of(service, reply)}")
        else:
            state = service.read_status(answer)
    except (CannotRender, MessageNotSent, NoAnswer, UnreadableAnswer) as error:
        _ask_later(job, f"{service.name} does not say how far it is: {str(error).rstrip('.')}.")
        return False
    keep = {"answer": clean_message(answer, headers)}
    if isinstance(state, Pending):
        _ask_later(job, "", **keep)
        return False
    if isinstance(state, Failed):
        reason = f"{service.name} failed: {state.reason}"
        fail_job(job, reason, billed=state.billed, headers=headers, **keep)
        return False
    if isinstance(state, Unknown):
        if reply.status in (200, 404) and age_of(job) < YOUNG:
            said = clean_text(f"{service.name} does not know it yet: {state.reason}", headers)
            _ask_later(job, said, **keep)
        else:
            _stop(job, f"{service.name}, asked for {job.job_id}, answers {state.reason}", headers,
                  **keep)  # fmt: skip
        return False
    return update_held(job, **keep) and _collect(job, headers)


def _ask_later(job: HostedJob, error: str, **keep: Any) -> None:
    """Ask again in a while, unless the time for the whole job is over."""
    if age_of(job).total_seconds() > settings.HOSTED_SECONDS_AT_MOST:
        reason = (
            f"{service_of(job).name} had not finished {job.job_id} after "
            f"{settings.HOSTED_SECONDS_AT_MOST:g} s and is asked no more."
        )
        cancelled, said = cancel_order(job)
        words = " ".join(filter(None, (reason, error, said)))
        state = JobState.FAILED if cancelled else JobState.STOPPED
        fail_job(job, words, billed=True, state=state, **keep)
        return
    postpone(job, poll_pause(job), error=clean_text(error), **keep)


def _stop(job: HostedJob, reason: str, headers: Mapping[str, str] | None, **keep: Any) -> None:
    """The service took the order and is asked no more until an operator says so."""
    fail_job(job, reason, billed=True, headers=headers, state=JobState.STOPPED, **keep)


def _collect(job: HostedJob, headers: Mapping[str, str]) -> bool:
    """Fetch the file and make it the clip; True when it is ready.

    What may pass is tried again, as fetching is free; a whole file that is no good is final.
    """
    service, file = service_of(job), None
    try:
        with Heartbeat(job), scratch_folder(f"hosted-{job.pk}") as folder:
            reply = send("GET", job.result_url, headers)
            result = _read_result(service, reply)
            if isinstance(result, Unknown):
                said = f"{service.name}, asked for the result of {job.job_id}, answers"
                _stop(job, f"{said} {result.reason}", headers)
                return False
            if isinstance(result, Failed):
                answer = clean_message(reply.json(), headers)
                reason = f"{service.name} failed: {result.reason}"
                fail_job(job, reason, result.billed, headers, answer=answer)
                return False
            key = headers if service.file_needs_key else {}
            file = download(result, folder, key, job.result_url)
            _publish(job, file, folder)
            return True
    except LeaseLost as error:
        log.warning("%s", error)
        hold_clip(job)
    except StorageRefuses as error:
        log.warning("job %s waits: %s", job.pk, error)
        postpone(job, poll_pause(job), error=str(error))
    except SiteFault as error:
        _fetch_again(job, f"The result could not be stored: {error}")
    except EncodingError as error:
        if file is not None and (file.is_whole or job.tries + 1 >= UNUSABLE_TRIES):
            fail_job(job, f"What {service.name} made can't be used: {error}", billed=True)
        else:
            _fetch_again(job, f"The result of {job.job_id} can't be used: {error}")
    except (MessageNotSent, NoAnswer, UnreadableAnswer) as error:
        _fetch_again(job, f"The result of {job.job_id} can't be fetched: {error}.")
    except Exception as error:
        log.exception("job %s: the result could not be stored", job.pk)
        _fetch_again(job, f"The result could not be stored ({type(error).__name__}: {error}).")
    return False


def _publish(job: HostedJob, file: FetchedFile, folder: Path) -> None:
    clip, started = job.clip, time.perf_counter()
    master, facts = take_in_clip(file.path, folder, clip.version, clip.prompt, clip.category)
    files = encode_clip(master, folder, clip.prompt, clip.category, facts)
    publish(
        clip,
        files,
        render_seconds=age_of(job).total_seconds(),
        encode_seconds=time.perf_counter() - started,
        hardware=f"{service_of(job).name}, hosted",
        # Tries to fetch one result share the clip's fence.
        attempt=f"{clip.fence}-{job.fence}",
        source_sha256=sha256_of(file.path),
    )
    release(job, state=JobState.COLLECTED, error="")


def _read_result(service: Service, reply: Reply) -> str | Failed | Unknown:
    try:
        return service.read_result(reply.status, reply.json())
    except UnreadableAnswer as error:
        if reply.is_final:
            return Unknown(f"{reply.status}: {words_of(service, reply)}")
        if not reply.ok:
            said = f"it answers {reply.status}: {words_of(service, reply)}".rstrip(".")
            raise UnreadableAnswer(said) from None
        raise error


def _fetch_again(job: HostedJob, reason: str) -> None:
    """The clip is made and paid for: fetch it again while the service keeps it."""
    tries = job.tries + 1
    if age_of(job) > RESULT_KEPT:
        _stop(job, f"{reason} So it has been for a day.", None)
        return
    pause = min(10.0 * 2 ** min(tries, 10), FETCH_PAUSE_AT_MOST)
    postpone(job, pause, tries=tries, error=clean_text(reason))
