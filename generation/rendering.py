"""From a waiting clip to a ready one: queue, claim, render, publish.

PostgreSQL is the truth. A worker claims one clip at a time under a lease and a fence; every later
write names the fence and counts the rows it changed, so that a worker which was taken for dead
notices and throws its work away.
"""

import hashlib
import logging
import math
import os
import platform
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path, PurePath
from uuid import UUID

import numpy as np
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from PIL import Image

from generation.backends import RENDERED_HERE, CannotRender, NeverRenders, Request, backend
from generation.backends.warm import WARM
from generation.catalog import check_clip
from generation.categories import Category
from generation.encoding import (
    EncodingError,
    MediaFacts,
    RenditionFacts,
    encode_rendition,
    far_from_profile,
    probe,
    write_master,
)
from generation.models import (
    RENDERED_STATES,
    Clip,
    ClipState,
    Prompt,
    PromptSet,
    Stratum,
    Version,
)
from generation.scratch import scratch_folder

log = logging.getLogger(__name__)
# A master made elsewhere may be called anything; its row has room for a name of this kind.
SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
SIGNAL_SECONDS = 2.0  # in which a signal that a render takes too long has come, if it comes


class LeaseLost(Exception):
    """The clip was taken over or cancelled; what was rendered here is discarded."""


@dataclass
class Queued:
    """What `queue_clips` did: clips added, clips that existed, and sentences about the refused."""

    added: int = 0
    existing: int = 0
    refused: list[str] = field(default_factory=list)


def seed_of(prompt: Prompt, slot: int) -> int:
    """One seed per prompt and slot, the same for every version: 0 <= seed < 2**31."""
    return int.from_bytes(hashlib.sha256(f"{prompt.key}/{slot}".encode()).digest()[:4]) >> 1


def request_of(prompt: Prompt, category: str, seed: int) -> Request:
    image = None
    if prompt.image is not None:
        with prompt.image.file.open("rb") as file, Image.open(file) as picture:
            image = np.asarray(picture.convert("RGB"))
    return Request(prompt.text, prompt.conditions, Category(category).audio, seed, image)


def prompts_of(prompt_set: PromptSet, category: Category) -> QuerySet[Prompt]:
    """Those of the set that are for the category, in the set's order."""
    return prompt_set.prompts.filter(
        sounds__contains=[category.sound], image__isnull=category.task == "t2v"
    ).order_by("entries__position")


def queue_clips(
    category: Category,
    prompt_set: PromptSet,
    versions: Iterable[Version] | None = None,
    limit: int | None = None,
    ranks: Mapping[tuple[int, int], int] | None = None,
) -> Queued:
    """Ask for every clip of a category that is missing, in prompt order.

    Only versions that are active or on trial and can make this category take part; what a backend
    could never render is refused here, in words, rather than queued to fail. `limit` counts
    prompts. `ranks` has prompts and seed slots with their places in the queue, when only these are
    wanted and in another order; what waits already is put into it.
    """
    queued = Queued()
    if versions is not None:
        asked, versions = list(versions), []
        for version in asked:
            if version.state not in RENDERED_STATES:
                queued.refused.append(
                    f"{version.slug} is {version.state}: activate it or put it on trial first."
                )
            elif category.value not in version.categories:
                queued.refused.append(f"{version.slug} does not make {category.value}.")
            else:
                versions.append(version)
    else:
        versions = Version.objects.filter(
            state__in=RENDERED_STATES, categories__contains=[category.value]
        ).order_by("pk")  # as listed in the catalogue
    prompts = prompts_of(prompt_set, category)
    chosen, clips = list(versions), []
    for position, prompt in enumerate(prompts.select_related("image")[:limit]):
        slots: Sequence[int] = range(prompt_set.seed_slots)
        if ranks is not None:
            slots = [slot for slot in slots if (prompt.pk, slot) in ranks]
            if not slots:
                continue
        request = request_of(prompt, category, seed_of(prompt, 0))
        for version in list(chosen):
            try:
                check_clip(version, category, request)
            except NeverRenders as error:
                queued.refused.append(f"{version.slug}: {error}")
                chosen.remove(version)
                continue
            except CannotRender as error:
                queued.refused.append(f"{version.slug}, {prompt.key}: {error}")
                continue
            clips += [
                Clip(
                    version=version,
                    prompt=prompt,
                    category=category.value,
                    seed_slot=slot,
                    seed=seed_of(prompt, slot),
                    priority=position if ranks is None else ranks[prompt.pk, slot],
                )
                for slot in slots
            ]
    wanted = Q(category=category.value, version__in=chosen)
    before = Clip.objects.filter(wanted).count()
    Clip.objects.bulk_create(clips, ignore_conflicts=True, batch_size=500)
    if ranks is not None:
        _put_in_order(wanted, ranks)
    queued.added = Clip.objects.filter(wanted).count() - before
    queued.existing = len(clips) - queued.added
    return queued


def _put_in_order(wanted: Q, ranks: Mapping[tuple[int, int], int]) -> None:
    waiting = list(Clip.objects.filter(wanted, state=ClipState.WAITING).select_for_update())
    waiting = [clip for clip in waiting if (clip.prompt_id, clip.seed_slot) in ranks]
    for clip in waiting:
        clip.priority = ranks[clip.prompt_id, clip.seed_slot]
    Clip.objects.bulk_update(waiting, ["priority"], batch_size=500)


CLAIMABLE = """
    clip.state IN ('waiting', 'rendering')
    AND (clip.lease_expires_at IS NULL OR clip.lease_expires_at < now())
    AND clip.attempts < %(attempts)s
"""
# A place is a version's task: its text to video and its image to video may be different weights.
# In its turn a worker prefers the places whose models it holds, in the order of the queue. After it
# the others come first: those it has not served, then the one it served longest ago.
#
# Only the first clips of each version and category are looked at, by their index: more of them than
# are claimed at the same instant. What is locked meanwhile may have changed, so it is asked again.
CLAIM = f"""
    UPDATE generation_clip SET
        state = 'rendering', fence = fence + 1, attempts = attempts + 1, worker = %(worker)s,
        lease_expires_at = now() + %(lease)s * interval '1 second', step = 0, steps = 0
    WHERE id = (
        SELECT clip.id
        FROM generation_version version
        CROSS JOIN unnest(%(categories)s::text[]) category
        CROSS JOIN LATERAL (
            SELECT clip.id FROM generation_clip clip
            WHERE clip.version_id = version.id AND clip.category = category.category
              AND {CLAIMABLE}
            ORDER BY clip.priority, clip.created_at
            LIMIT 16
        ) first
        JOIN generation_clip clip ON clip.id = first.id
        CROSS JOIN LATERAL (
            SELECT version.id || '/' || split_part(clip.category, '-', 1) AS name
        ) place
        CROSS JOIN LATERAL (SELECT place.name = ANY(%(warm)s::text[]) AS warm) model
        WHERE version.state = ANY(%(states)s) AND version.backend = ANY(%(backends)s)
          AND {CLAIMABLE}
        ORDER BY
            model.warm = %(in_turn)s DESC,
            CASE WHEN NOT model.warm THEN array_position(%(served)s::text[], place.name) END
                NULLS FIRST,
            clip.priority, clip.created_at
        FOR UPDATE OF clip SKIP LOCKED
        LIMIT 1
    )
    RETURNING id
"""


def place_of(clip: Clip) -> str:
    """What `CLAIM` calls a place."""
    return f"{clip.version_id}/{Category(clip.category).task}"


def claim(worker: str) -> Clip | None:
    """The next clip that is rendered here, leased to this worker, or None when nothing waits.

    Times are the database's own throughout, so that workers need not agree on the clock.
    """
    drop_idle_connection()
    fail_exhausted()
    with connection.cursor() as cursor:
        cursor.execute(
            CLAIM,
            {
                "worker": worker,
                "lease": settings.RENDER_LEASE_SECONDS,
                "attempts": settings.RENDER_ATTEMPTS,
                "states": list(RENDERED_STATES),
                "backends": list(RENDERED_HERE),
                "categories": Category.values,
                "warm": WARM.warm,
                "served": WARM.served,
                "in_turn": WARM.in_turn,
            },
        )
        row = cursor.fetchone()
    if row is None:
        return None
    return Clip.objects.select_related("version", "prompt__image").get(pk=row[0])


def fail_exhausted() -> int:
    """Clips whose last allowed attempt died without a word are failed, with the reason."""
    return Clip.objects.filter(
        state=ClipState.RENDERING,
        lease_expires_at__lt=Now(),
        attempts__gte=settings.RENDER_ATTEMPTS,
        version__backend__in=RENDERED_HERE,
    ).update(
        state=ClipState.FAILED,
        lease_expires_at=None,
        error=f"The worker died in each of {settings.RENDER_ATTEMPTS} attempts.",
    )


def claimable() -> int:
    """How many clips a worker could start on now."""
    return Clip.objects.filter(
        Q(lease_expires_at=None) | Q(lease_expires_at__lt=Now()),
        state__in=(ClipState.WAITING, ClipState.RENDERING),
        attempts__lt=settings.RENDER_ATTEMPTS,
        version__state__in=RENDERED_STATES,
        version__backend__in=RENDERED_HERE,
    ).count()


class Heartbeat:
    """Extends the lease from a thread of its own, and carries the step that is being rendered."""

    def __init__(self, clip: Clip, seconds_at_most: float = math.inf) -> None:
        self.clip = clip
        self.seconds_at_most = seconds_at_most
        self.lost = False
        self.progress = (0, 0)
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def step(self, step: int, steps: int) -> None:
        """Called by the backend; stops a render whose lease is gone, or whose time is up.

        Celery raises SoftTimeLimitExceeded wherever the process is, once. Python drops what is
        raised inside a destructor, so a later step raises it again.
        """
        self.progress = (step, steps)
        if self.lost:
            raise LeaseLost(f"clip {self.clip.pk} was taken over or cancelled")
        if self.seconds > self.seconds_at_most + SIGNAL_SECONDS:
            raise SoftTimeLimitExceeded

    def _beat(self) -> None:
        lease = settings.RENDER_LEASE_SECONDS
        while not self._stop.wait(lease / 4):
            step, steps = self.progress
            try:
                kept = _held(self.clip).update(
                    lease_expires_at=Now() + timedelta(seconds=lease),
                    step=step,
                    steps=steps,
                )
                self.lost = kept == 0
            except Exception:  # the database restarts: the next beat tries again
                log.warning("clip %s: heartbeat failed, trying again", self.clip.pk, exc_info=True)
            finally:
                connection.close()
            if self.lost:
                return


def _held(clip: Clip) -> QuerySet[Clip]:
    return Clip.objects.filter(pk=clip.pk, fence=clip.fence, state=ClipState.RENDERING)


def drop_idle_connection() -> None:
    """After a long render the connection may be dead without knowing: start with a new one."""
    if not connection.in_atomic_block:
        close_old_connections()


def _write(clip: Clip, **values: object) -> bool:
    """Update the clip if this worker still holds it; True when that happened.

    The connection has been idle for as long as the render took, and the database may be restarting:
    it is asked again for as long as the lease would last.
    """
    end = time.monotonic() + settings.RENDER_LEASE_SECONDS
    while True:
        drop_idle_connection()
        try:
            return _held(clip).update(**values) == 1
        except (OperationalError, InterfaceError):
            if time.monotonic() > end:
                raise
            log.warning("clip %s: the database is away, trying again", clip.pk)
            connection.close()
            time.sleep(0.5)


def give_up(clip: Clip, reason: str) -> None:
    """The clip fails for good, in words, if it is still ours."""
    _write(clip, state=ClipState.FAILED, error=reason, lease_expires_at=None)


def hand_back(clip: Clip) -> None:
    """The clip waits again at once and loses no attempt; it must not take long, nor fail."""
    try:
        connection.close()  # what it was doing is not known
        _held(clip).update(
            state=ClipState.WAITING, lease_expires_at=None, attempts=F("attempts") - 1
        )
    except Exception:  # the lease runs out all the same
        log.warning("clip %s could not be handed back", clip.pk, exc_info=True)


def cancel(clips: QuerySet[Clip], by: str) -> int:
    """Waiting and running clips fail, to be tried again only when somebody says so.

    Whoever renders one has lost it from now on, and stops at its next step.
    """
    return clips.filter(state__in=(ClipState.WAITING, ClipState.RENDERING)).update(
        state=ClipState.FAILED, lease_expires_at=None, error=f"Cancelled by {by}."
    )


def render_claimed(clip: Clip, seconds_at_most: float = math.inf) -> bool:
    """Render, encode and publish a claimed clip. True when it is ready afterwards.

    A failure is kept in words on the clip: for good if the backend says that it can't, or if it
    takes too long, to be tried again up to the cap otherwise.
    """
    heartbeat = Heartbeat(clip, seconds_at_most)
    try:
        with heartbeat, scratch_folder(f"{clip.pk}-{clip.fence}") as folder:
            _render_into(clip, heartbeat, folder)
        return True
    except LeaseLost as error:
        log.warning("%s", error)
        return False
    except SystemExit:  # told to end at once, by an operator or because it did not stop in time
        if heartbeat.seconds < settings.RENDER_SECONDS_AT_MOST:
            hand_back(clip)
        else:
            give_up(clip, _too_long(heartbeat))
        raise
    except SoftTimeLimitExceeded:
        give_up(clip, _too_long(heartbeat))
        return False
    except (CannotRender, EncodingError) as error:
        log.warning("clip %s failed: %s", clip.pk, error)
        give_up(clip, str(error))
        return False
    except Exception as error:
        log.exception("clip %s: attempt %s failed", clip.pk, clip.attempts)
        last = clip.attempts >= settings.RENDER_ATTEMPTS
        # What is not the clip's own fault, such as a full disk, gets time to pass: 15 s, then 45 s.
        pause = timedelta(seconds=5 * 3**clip.attempts)
        _write(
            clip,
            state=ClipState.FAILED if last else ClipState.WAITING,
            error=f"{type(error).__name__}: {error}",
            lease_expires_at=None if last else Now() + pause,
        )
        return False


def _too_long(heartbeat: Heartbeat) -> str:
    step, steps = heartbeat.progress
    where = f"at step {step} of {steps}" if steps else "before its first step"
    return (
        f"It was stopped {where} after {heartbeat.seconds:.0f} s: raise RENDER_SECONDS_AT_MOST, or "
        "render it on faster hardware."
    )


def _render_into(clip: Clip, heartbeat: Heartbeat, folder: Path) -> None:
    version = clip.version
    request = request_of(clip.prompt, clip.category, clip.seed)
    started = time.perf_counter()
    with WARM.rendering(place_of(clip)) as measured:
        raw = backend(version.backend).render(version.settings, request, heartbeat.step)
        rendered = time.perf_counter()
    write_master(raw, folder / "master.mkv")
    files = encode_clip(folder / "master.mkv", folder, clip.prompt, clip.category)
    on_gpu = measured.gpu_peak is not None
    step, steps = heartbeat.progress
    publish(
        clip,
        files,
        render_seconds=rendered - started,
        encode_seconds=time.perf_counter() - rendered,
        hardware=hardware(gpu=backend(version.backend).GPU),
        measured={
            "step": step,
            "steps": steps,
            "gpu_seconds": rendered - started - measured.loading if on_gpu else None,
            "gpu_peak_bytes": measured.gpu_peak,
        },
    )


@dataclass(frozen=True)
class ClipFiles:
    """A clip's files before publication, and what they measure."""

    master: Path
    rendition: Path
    poster: Path
    facts: MediaFacts  # of the master
    made: RenditionFacts
    rendition_sha256: str
    stratum: Stratum


def encode_clip(master: Path, folder: Path, prompt: Prompt, category: str) -> ClipFiles:
    """Make the rendition and the poster of any master, rendered here or not, in the folder."""
    rendition, poster = folder / "rendition.mp4", folder / "poster.jpg"
    facts = probe(master)
    made = encode_rendition(
        master,
        rendition,
        poster,
        aspect=prompt.aspect,
        seconds=prompt.seconds,
        audio=Category(category).audio,
    )
    digest = hashlib.sha256(rendition.read_bytes()).hexdigest()
    stratum = Stratum.FAR if far_from_profile(facts, prompt.aspect) else Stratum.NEAR
    return ClipFiles(master, rendition, poster, facts, made, digest, stratum)


def publish(
    clip: Clip,
    files: ClipFiles,
    *,
    render_seconds: float | None,
    encode_seconds: float,
    hardware: str,
    measured: Mapping[str, object] | None = None,
) -> None:
    """Store the files and make the clip ready, if it is still ours; raises LeaseLost if not."""
    # The fence in the name keeps two attempts apart; a name is published by the row alone.
    prefix = f"clips/{clip.pk}/{clip.fence}"
    names: dict[str, str] = {}
    for field_name, file in (
        ("master", files.master),
        ("rendition", files.rendition),
        ("poster", files.poster),
    ):
        suffix = file.suffix.lower()
        stored = field_name + (suffix if SUFFIX.fullmatch(suffix) else "")
        with file.open("rb") as source:
            names[field_name] = default_storage.save(f"{prefix}/{stored}", File(source, stored))
    published = _write(
        clip,
        state=ClipState.READY,
        error="",
        lease_expires_at=None,
        rendition_sha256=files.rendition_sha256,
        width=files.facts.width,
        height=files.facts.height,
        fps=files.facts.fps,
        seconds=files.facts.seconds,
        stratum=files.stratum,
        profile=files.made.profile,
        loudness=files.made.loudness,
        motion=files.made.motion,
        render_seconds=render_seconds,
        encode_seconds=encode_seconds,
        hardware=hardware,
        ready_at=Now(),
        **(measured or {}),
        **names,
    )
    # An update whose answer was lost may have happened: what the row names stays.
    if not published and Clip.objects.get(pk=clip.pk).rendition != names["rendition"]:
        for name in names.values():
            default_storage.delete(name)
        raise LeaseLost(f"clip {clip.pk}: it was taken over or cancelled before publication")


def encode_again(pk: UUID, clips: QuerySet[Clip]) -> bool:
    """Make a ready clip's rendition again from its master with the newest profile.

    1. Raise the fence, so that the new files have names of their own and those that are left over,
       now or after a crash, are swept.
    2. Encode, store, and name the new files on the clip if it is still one of `clips`.
    """
    clip = Clip.objects.select_related("prompt").get(pk=pk)
    if clips.filter(pk=pk, fence=clip.fence).update(fence=F("fence") + 1) != 1:
        return False
    prefix = f"clips/{pk}/{clip.fence + 1}"
    names: dict[str, str] = {}
    with scratch_folder(f"{pk}-{clip.fence + 1}") as folder:
        master = folder / PurePath(str(clip.master)).name
        with default_storage.open(str(clip.master)) as stored, master.open("wb") as copy:
            shutil.copyfileobj(stored, copy)
        files = encode_clip(master, folder, clip.prompt, clip.category)
        drop_idle_connection()
        for field_name, file in (("rendition", files.rendition), ("poster", files.poster)):
            with file.open("rb") as source:
                names[field_name] = default_storage.save(
                    f"{prefix}/{file.name}", File(source, file.name)
                )
    return (
        clips.filter(pk=pk, fence=clip.fence + 1).update(
            rendition_sha256=files.rendition_sha256,
            stratum=files.stratum,
            profile=files.made.profile,
            loudness=files.made.loudness,
            motion=files.made.motion,
            **names,
        )
        == 1
    )


def hardware(gpu: bool) -> str:
    """What renders here, by name: for a backend that uses one the GPU, else the processor."""
    torch = sys.modules.get("torch")
    if gpu and torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{name}, {cores} core{'s' if cores > 1 else ''}"
