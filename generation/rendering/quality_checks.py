"""Clips that check the voters: a baseline's own under another id, and degraded ones.

They are clips of versions of their own, one per baseline and kind, which stay drafts: nothing shows
them but the checks of experiments. From the master on they take the way of every other clip, so
that nothing but picture and sound tells them apart.
"""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import av
import numpy as np
import numpy.typing as npt
from django.core.files.storage import default_storage
from django.db.models import F

from generation.backends.registry import IMPORTED
from generation.catalogue.categories import Category
from generation.imports.files import claim_arrival
from generation.imports.manifest import Arrival
from generation.media.masters import RawClip, write_master
from generation.media.pauses import why_paused
from generation.media.profile import EncodingError
from generation.media.renditions import as_shown
from generation.media.scratch import scratch_folder
from generation.media.sound import Samples
from generation.media.storage import StorageRefuses
from generation.models import (
    CHECKS_MODEL,
    SAME_CHECK,
    Clip,
    ClipState,
    Model,
    Prompt,
    Version,
    VersionState,
    Weights,
)
from generation.rendering.claims import give_up
from generation.rendering.leases import Heartbeat, LeaseLost, release
from generation.rendering.publish import encode_clip, fetch_master, publish, sha256_of

log = logging.getLogger(__name__)

PICTURE = ("frozen", "noisy", "shuffled")
SOUND = ("sound shifted", "sound replaced")
# Mean change of luma between frames: below this a clip hardly moves, and one that stands still, or
# whose frames are shuffled, would look the same.
MOTION_AT_LEAST = 0.2
GRAIN = 50.0  # standard deviation, of 255: no codec or projector makes anything like it
GRAIN_CELLS = 180  # across the short side, so that it is seen at any size and can be encoded
BLOCK_SECONDS = 0.2  # of frames that stay together when shuffled: motion jumps five times a second
SHIFT_AT_LEAST = 1.0  # seconds
# Standard deviation of the loudness over its mean: of less, such as steady rain, a shifted sound
# sounds like the same.
EVENTS_AT_LEAST = 0.5
PIECE = 4800  # samples of which the loudness is taken: a tenth of a second
FINISHED = (ClipState.READY, ClipState.FAILED)


def make_checks(
    baseline: Version, category: Category, prompts: Sequence[Prompt], slots: int, seconds: float
) -> int:
    """Make what is missing of the checks on these prompts whose sources are ready; returns how
    many were made. It ends after about so many seconds, and goes on when it is called again.

    Each prompt has the baseline against itself, with the clip of another seed slot where there is
    one, and one degradation. What was made stays as it is, whatever becomes ready later.
    """
    end, made = time.monotonic() + seconds, 0
    finished = Clip.objects.filter(
        version__model__slug=CHECKS_MODEL,
        version__settings__of=baseline.slug,
        category=category.value,
        prompt__in=prompts,
        state__in=FINISHED,
    )
    done = {
        (prompt, kind == SAME_CHECK)
        for prompt, kind in finished.values_list("prompt_id", "version__settings__check")
    }
    if len(done) == 2 * len(prompts):
        return 0
    ready = Clip.objects.filter(
        version=baseline, category=category.value, state=ClipState.READY
    ).select_related("prompt")
    sources = {(clip.prompt_id, clip.seed_slot): clip for clip in ready.filter(prompt__in=prompts)}
    for prompt in prompts:
        source = sources.get((prompt.pk, 0))
        twin = sources.get((prompt.pk, min(1, slots - 1)))
        if source is None or twin is None:
            continue
        for same in (True, False):
            if time.monotonic() > end or why_paused():
                return made
            if (prompt.pk, same) not in done:
                made += _make(SAME_CHECK, twin) if same else _make(_degradation(source), source)
    return made


def _degradation(source: Clip) -> str:
    """Kinds take turns by prompt; what would not be seen or heard in this clip gives way to grain,
    or to another sound."""
    kinds = PICTURE + SOUND if Category(source.category).audio else PICTURE
    kind = kinds[source.prompt_id % len(kinds)]
    if kind in PICTURE:
        return kind if (source.motion or 0) >= MOTION_AT_LEAST else "noisy"
    if source.loudness is None:
        return "noisy"
    short = source.prompt.seconds < 2 * SHIFT_AT_LEAST
    return "sound replaced" if kind == "sound shifted" and (short or _steady(source)) else kind


def _steady(clip: Clip) -> bool:
    """Whether the sound has so few events that it would sound the same a second later."""
    with default_storage.open(str(clip.rendition)) as file, av.open(file, mode="r") as media:
        sound = np.concatenate([frame.to_ndarray().mean(0) for frame in media.decode(audio=0)])
    pieces = sound[: len(sound) // PIECE * PIECE].reshape(-1, PIECE)
    loudness = np.sqrt((pieces**2).mean(axis=1))
    return bool(loudness.std() < EVENTS_AT_LEAST * loudness.mean())


def degrade(shown: RawClip, kind: str, seed: int, sound: Samples | None = None) -> RawClip:
    """The clip spoilt in one way; its pictures are changed in place.

    `seed` draws the grain and the order of frames; `sound` is what replaces the clip's own.
    """
    rng = np.random.default_rng(seed)
    frames, audio = shown.frames, shown.audio
    if kind == "frozen":
        frames[:] = frames[0]
    elif kind == "noisy":
        _add_grain(frames, rng)
    elif kind == "shuffled":
        frames = frames[_shuffled(len(frames), round(BLOCK_SECONDS * shown.fps), rng)]
    elif kind == "sound shifted" and audio is not None and shown.sample_rate is not None:
        least = round(SHIFT_AT_LEAST * shown.sample_rate)
        audio = np.roll(audio, max(least, len(audio) // 2), axis=0)
    elif kind == "sound replaced" and audio is not None and sound is not None:
        audio = np.resize(sound, audio.shape)  # repeated if it is shorter
    else:
        raise ValueError(f"There is no degradation “{kind}” of such a clip.")
    return replace(shown, frames=frames, audio=audio)


def _add_grain(frames: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    height, width = frames.shape[1:3]
    cell = max(1, min(height, width) // GRAIN_CELLS)
    for number, frame in enumerate(frames):
        small = rng.normal(0, GRAIN, (-(-height // cell), -(-width // cell), 1))
        grain = small.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width]
        frames[number] = np.clip(frame + grain, 0, 255)


def _shuffled(count: int, block: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Indices of frames whose blocks stand in an order in which none follows its own."""
    blocks = np.array_split(np.arange(count), max(4, count // max(1, block)))
    while True:
        order = rng.permutation(len(blocks))
        if (np.diff(order) != 1).all() and order[0] != 0:
            return np.concatenate([blocks[number] for number in order])


def version_of_checks(baseline: Version, kind: str) -> Version:
    """The version whose clips are this baseline's checks of one kind."""
    digest = hashlib.sha256(baseline.slug.encode()).hexdigest()[:12]
    model, _ = Model.objects.get_or_create(
        slug=CHECKS_MODEL,
        defaults={"name": "Checks", "lab": "This site", "weights": Weights.CLOSED},
    )
    version, _ = Version.objects.get_or_create(
        slug=f"check-{digest}-{kind.replace(' ', '-')}",
        defaults={
            "model": model,
            "name": f"{baseline.name}, {kind}"[:120],
            "state": VersionState.DRAFT,
            "backend": IMPORTED,
            "settings": {"check": kind, "of": baseline.slug},
            "categories": baseline.categories,
            "width": baseline.width,
            "height": baseline.height,
            "fps": baseline.fps,
            "min_seconds": baseline.min_seconds,
            "max_seconds": baseline.max_seconds,
        },
    )
    return version


def _lender(source: Clip) -> Clip | None:
    """Whose sound may replace this clip's: the same version's of the next prompt that has a clip,
    round and round; None while there is none."""
    others = Clip.objects.exclude(prompt=source.prompt_id).filter(
        version=source.version_id, category=source.category, state=ClipState.READY
    )
    ordered = others.select_related("prompt").order_by("prompt_id", "seed_slot")
    return ordered.filter(prompt_id__gt=source.prompt_id).first() or ordered.first()


def _make(kind: str, source: Clip) -> bool:
    """Make one check, unless it is there, failed for good, another worker is at it, or the sound
    that it takes is not there yet.

    It stands in the first seed slot, as what it is compared with does.
    """
    lender = _lender(source) if kind == "sound replaced" else None
    if kind == "sound replaced" and lender is None:
        return False
    name = Path(PurePath(str(source.master)).name)
    category, prompt = Category(source.category), source.prompt
    arrival = Arrival(name, version_of_checks(source.version, kind), prompt, category)
    if Clip.objects.filter(**arrival.clip, state__in=FINISHED).exists():
        return False
    clip = claim_arrival(arrival)
    if clip is None:
        return False
    try:
        with Heartbeat(clip), scratch_folder(f"{clip.pk}-{clip.fence}") as folder:
            started = time.perf_counter()
            master = _master(kind, source, lender, folder)
            files = encode_clip(master, folder, prompt, category.value)
            spent = time.perf_counter() - started
            publish(
                clip,
                files,
                render_seconds=None,
                encode_seconds=spent,
                hardware="",
                source_sha256=sha256_of(master),
                hold=False,  # one kind stands still
            )
    except LeaseLost as error:
        log.warning("%s", error)
        return False
    except StorageRefuses as error:  # no worker renders it: it is made at the next call
        release(clip, state=ClipState.WAITING, error=str(error), attempts=F("attempts") - 1)
        return False
    except (EncodingError, OSError) as error:
        log.warning("check %s failed: %s", clip.pk, error)
        give_up(clip, f"The check “{kind}” of the clip {source.pk} can't be made: {error}")
        return False
    return True


def _master(kind: str, source: Clip, lender: Clip | None, folder: Path) -> Path:
    if kind == SAME_CHECK:
        return _fetched(source, folder / "source")
    sound = _shown(lender, folder / "lender").audio if lender else None
    master = folder / "master.mkv"
    write_master(degrade(_shown(source, folder / "source"), kind, source.seed, sound), master)
    return master


def _fetched(clip: Clip, folder: Path) -> Path:
    folder.mkdir()
    return fetch_master(clip, folder)


def _shown(clip: Clip, folder: Path) -> RawClip:
    """The clip as voters are shown it; its sound comes with it in categories that have one."""
    prompt, audio = clip.prompt, Category(clip.category).audio
    master = _fetched(clip, folder)
    return as_shown(master, aspect=prompt.aspect, seconds=prompt.seconds, audio=audio)
