"""From a waiting clip to a ready one: queue, claim, render, publish.

PostgreSQL is the truth. A worker claims one clip at a time under a lease and a fence; every later
write names the fence and counts the rows it changed, so that a worker which was taken for dead
notices and throws its work away.
"""

import hashlib
import logging
import os
import platform
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from PIL import Image

from generation.backends import CannotRender, NeverRenders, Request, backend
from generation.categories import Category
from generation.encoding import (
    EncodingError,
    MediaFacts,
    RenditionFacts,
    encode_rendition,
    probe,
    write_master,
)
from generation.models import Clip, ClipState, Prompt, PromptSet, Version, VersionState

log = logging.getLogger(__name__)
# A master made elsewhere may be called anything; its row has room for a name of this kind.
SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")


class LeaseLost(Exception):
    """Another worker has taken the clip over; what was rendered here is discarded."""


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


def queue_clips(
    category: Category,
    prompt_set: PromptSet,
    versions: Iterable[Version] | None = None,
    limit: int | None = None,
) -> Queued:
    """Ask for every clip of a category that is missing, in prompt order.

    Only active versions that can make this category take part; what a backend could never render
    is refused here, in words, rather than queued to fail. `limit` counts prompts.
    """
    queued = Queued()
    if versions is not None:
        asked, versions = list(versions), []
        for version in asked:
            if version.state != VersionState.ACTIVE:
                queued.refused.append(f"{version.slug} is {version.state}: activate it first.")
            elif category.value not in version.categories:
                queued.refused.append(f"{version.slug} does not make {category.value}.")
            else:
                versions.append(version)
    else:
        versions = Version.objects.filter(
            state=VersionState.ACTIVE, categories__contains=[category.value]
        ).order_by("pk")  # as listed in the catalogue
    prompts = prompt_set.prompts.filter(
        sounds__contains=[category.sound], image__isnull=category.task == "t2v"
    ).order_by("entries__position")
    chosen, clips = list(versions), []
    for position, prompt in enumerate(prompts.select_related("image")[:limit]):
        request = request_of(prompt, category, seed_of(prompt, 0))
        for version in list(chosen):
            try:
                backend(version.backend).check(version.settings, request)
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
                    priority=position,
                )
                for slot in range(prompt_set.seed_slots)
            ]
    wanted = Q(category=category.value, version__in=chosen)
    before = Clip.objects.filter(wanted).count()
    Clip.objects.bulk_create(clips, ignore_conflicts=True, batch_size=500)
    queued.added = Clip.objects.filter(wanted).count() - before
    queued.existing = len(clips) - queued.added
    return queued


CLAIM = """
    UPDATE generation_clip SET
        state = 'rendering', fence = fence + 1, attempts = attempts + 1, worker = %(worker)s,
        lease_expires_at = now() + %(lease)s * interval '1 second', step = 0, steps = 0
    WHERE id = (
        SELECT clip.id FROM generation_clip clip
        JOIN generation_version version ON version.id = clip.version_id
        WHERE clip.state IN ('waiting', 'rendering')
          AND (clip.lease_expires_at IS NULL OR clip.lease_expires_at < now())
          AND clip.attempts < %(attempts)s
          AND version.state = 'active'
        ORDER BY clip.priority, clip.created_at
        FOR UPDATE OF clip SKIP LOCKED
        LIMIT 1
    )
    RETURNING id
"""


def claim(worker: str) -> Clip | None:
    """The next clip, leased to this worker, or None when nothing waits.

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
        version__state=VersionState.ACTIVE,
    ).count()


class Heartbeat:
    """Extends the lease from a thread of its own, and carries the step that is being rendered."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.lost = False
        self.progress = (0, 0)
        self._stop = threading.Event()
        self._end = time.monotonic() + settings.RENDER_SECONDS_AT_MOST
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def step(self, step: int, steps: int) -> None:
        """Called by the backend; stops a render whose lease is gone."""
        self.progress = (step, steps)
        if self.lost:
            raise LeaseLost(f"clip {self.clip.pk}: another worker has taken over")

    def _beat(self) -> None:
        lease = settings.RENDER_LEASE_SECONDS
        while not self._stop.wait(lease / 4):
            if time.monotonic() > self._end:  # it hangs: let another worker have the clip
                self.lost = True
                return
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


def render_claimed(clip: Clip) -> bool:
    """Render, encode and publish a claimed clip. True when it is ready afterwards.

    A failure is kept in words on the clip: for good if the backend says that it can't, to be tried
    again up to the cap otherwise.
    """
    try:
        with Heartbeat(clip) as heartbeat, tempfile.TemporaryDirectory() as folder:
            _render_into(clip, heartbeat, Path(folder))
        return True
    except LeaseLost as error:
        log.warning("%s", error)
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


def _render_into(clip: Clip, heartbeat: Heartbeat, folder: Path) -> None:
    version = clip.version
    started = time.perf_counter()
    raw = backend(version.backend).render(
        version.settings, request_of(clip.prompt, clip.category, clip.seed), heartbeat.step
    )
    rendered = time.perf_counter()
    write_master(raw, folder / "master.mkv")
    files = encode_clip(folder / "master.mkv", folder, clip.prompt, clip.category)
    publish(
        clip,
        files,
        render_seconds=rendered - started,
        encode_seconds=time.perf_counter() - rendered,
        hardware=hardware(gpu=backend(version.backend).GPU),
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
    return ClipFiles(master, rendition, poster, facts, made, digest)


def publish(
    clip: Clip,
    files: ClipFiles,
    *,
    render_seconds: float | None,
    encode_seconds: float,
    hardware: str,
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
        loudness=files.made.loudness,
        motion=files.made.motion,
        render_seconds=render_seconds,
        encode_seconds=encode_seconds,
        hardware=hardware,
        ready_at=Now(),
        **names,
    )
    # An update whose answer was lost may have happened: what the row names stays.
    if not published and Clip.objects.get(pk=clip.pk).rendition != names["rendition"]:
        for name in names.values():
            default_storage.delete(name)
        raise LeaseLost(f"clip {clip.pk}: another worker took over before publication")


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
