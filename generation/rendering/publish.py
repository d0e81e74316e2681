"""A clip's files: made from any master, stored under names of their own, published by its row."""

import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from uuid import UUID

from django.core.files.storage import default_storage
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from generation.backends.registry import RENDERED_HERE
from generation.catalogue.categories import Category
from generation.media.intake import Wanted, take_in
from generation.media.profile import (
    SOUND_SLACK,
    EncodingError,
    MediaFacts,
    is_off_format,
)
from generation.media.reading import probe
from generation.media.renditions import RenditionFacts, encode_rendition
from generation.media.scratch import scratch_folder
from generation.media.storage import StorageRefuses, media_storage, store_whole
from generation.models import Clip, ClipState, Prompt, Version
from generation.rendering.leases import LeaseLost, drop_idle_connection, release
from generation.rendering.sweep import ORPHAN_AGE

# A master made elsewhere may be called anything; its row has room for a name of this kind.
SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")


# Of luma, 0 to 255. A night scene has lights. Encoding moves the mean of a block of a still picture
# by 2 at most, but for white noise.
BLACK_BELOW = 16.0
STILL_BELOW = 6.0


@dataclass(frozen=True)
class ClipFiles:
    """A clip's files before publication, and what they measure."""

    master: Path
    rendition: Path
    poster: Path
    facts: MediaFacts  # of the master, or of the file that it was taken in from
    made: RenditionFacts
    rendition_sha256: str
    off_format: bool
    held_because: str  # empty if voters may see it at once


def take_in_clip(
    file: Path, folder: Path, version: Version, prompt: Prompt, category: str
) -> tuple[Path, MediaFacts]:
    """A master of ours, in the folder, made of a file of somebody else, and what that file was.

    The file is read by a process of its own, and refused there if it is no clip as the prompt, the
    version and the category ask for.
    """
    of = Category(category)
    wanted = Wanted(
        aspect=prompt.aspect,
        seconds=prompt.seconds,
        category=of.value,
        audio=of.audio,
        fps=of.terms.fps,
        version=version.slug,
        width=version.width,
        height=version.height,
    )
    master = folder / "master.mkv"
    facts = take_in(file, master, wanted)
    _refuse_short_sound(file.name, facts, prompt, category)
    return master, facts


def _refuse_short_sound(name: str, facts: MediaFacts, prompt: Prompt, category: str) -> None:
    """Sound that ends before the picture does would be heard as a fault of the model."""
    wanted = min(facts.seconds, prompt.seconds)
    sound = facts.audio_seconds
    if Category(category).audio and sound is not None and sound < wanted - SOUND_SLACK:
        raise EncodingError(
            f"{name} has {sound:.2f} s of sound for {wanted:.2f} s of video: make its sound as "
            "long as its picture."
        )


def encode_clip(
    master: Path, folder: Path, prompt: Prompt, category: str, facts: MediaFacts | None = None
) -> ClipFiles:
    """Make the rendition and the poster of any master of ours in the folder.

    `facts` are those of the file that the master was taken in from, if it was.
    """
    rendition, poster = folder / "rendition.mp4", folder / "poster.jpg"
    if facts is None:
        facts = probe(master)
        _refuse_short_sound(master.name, facts, prompt, category)
    made = encode_rendition(
        master,
        rendition,
        poster,
        aspect=prompt.aspect,
        seconds=prompt.seconds,
        audio=Category(category).audio,
    )
    off_format = is_off_format(facts, prompt.aspect)
    held = why_held(made)
    return ClipFiles(master, rendition, poster, facts, made, sha256_of(rendition), off_format, held)


def sha256_of(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def why_held(made: RenditionFacts) -> str:
    """What an operator must look at before voters do; empty if nothing.

    A model may be asked for a still or a silence. Far more often something broke on the way.
    """
    reasons = []
    if made.brightest < BLACK_BELOW:
        reasons.append("its picture is black")
    elif made.moved < STILL_BELOW:
        reasons.append("its picture stands still")
    if made.has_audio and made.loudness is None:
        reasons.append("its sound is silence")
    return " and ".join(reasons)


def publish(
    clip: Clip,
    files: ClipFiles,
    *,
    render_seconds: float | None,
    encode_seconds: float,
    hardware: str,
    source_sha256: str = "",
    hold: bool = True,
    attempt: str = "",
    measured: Mapping[str, object] | None = None,
) -> None:
    """Store the files and make the clip ready, if it is still ours; raises LeaseLost if not.

    It becomes held instead if there is a reason, unless `hold` is False, of clips that are spoilt
    on purpose. `source_sha256` is of the file that the master was taken in from. `attempt` names
    this one where several share a fence.
    """
    held_because = files.held_because if hold else ""
    made = {"master": files.master, "rendition": files.rendition, "poster": files.poster}
    names = _store(clip, attempt or str(clip.fence), made)
    published = release(
        clip,
        state=ClipState.HELD if held_because else ClipState.READY,
        error="",
        held_because=held_because,
        source_sha256=source_sha256,
        rendition_sha256=files.rendition_sha256,
        rendition_bytes=files.rendition.stat().st_size,
        width=files.facts.width,
        height=files.facts.height,
        fps=files.facts.fps,
        seconds=files.facts.seconds,
        off_format=files.off_format,
        profile=files.made.profile,
        loudness=files.made.loudness,
        motion=files.made.motion,
        render_seconds=render_seconds,
        encode_seconds=encode_seconds,
        hardware=hardware,
        ready_at=None if held_because else Now(),
        **(measured or {}),
        **names,
    )
    # An update whose answer was lost may have happened: what the row names stays.
    if not published and Clip.objects.get(pk=clip.pk).rendition != names["rendition"]:
        _delete(names.values())
        raise LeaseLost(f"clip {clip.pk}: it was taken over or cancelled before publication")


def _store(clip: Clip, attempt: str, files: Mapping[str, Path]) -> dict[str, str]:
    """Store the files under names of this attempt's own, all of them whole, or none; returns the
    names by the clip's fields. A name is published by the clip's row alone.

    Whatever becomes of this worker, the clip's folder is looked at again (`delete_orphans`).
    """
    Clip.objects.filter(pk=clip.pk).update(sweep_at=Now() + ORPHAN_AGE)
    names: dict[str, str] = {}
    try:
        for field_name, file in files.items():
            suffix = file.suffix.lower()
            stored = field_name + (suffix if SUFFIX.fullmatch(suffix) else "")
            names[field_name] = store_whole(f"clips/{clip.pk}/{attempt}/{stored}", file)
    except StorageRefuses:
        _delete(names.values())
        raise
    return names


def _delete(names: Iterable[str]) -> None:
    """What can't be deleted now is swept."""
    with suppress(*media_storage().refusals()):
        for name in names:
            default_storage.delete(name)


def fetch_master(clip: Clip, folder: Path) -> Path:
    """A copy of the clip's master in the folder, with the whole name it has in the storage.

    Earlier versions kept files of others as they came; such a one is taken in first.
    """
    stored = folder / PurePath(str(clip.master)).name
    with default_storage.open(str(clip.master)) as master, stored.open("wb") as copy:
        shutil.copyfileobj(master, copy)
    if clip.version.backend in RENDERED_HERE or clip.source_sha256:
        return stored
    ours = folder / "taken-in"
    ours.mkdir()
    return take_in_clip(stored, ours, clip.version, clip.prompt, clip.category)[0]


def encode_again(pk: UUID, clips: QuerySet[Clip]) -> bool:
    """Make a ready clip's rendition again from its master with the newest profile.

    1. Raise the fence, so that the new files have names of their own and those that are left over,
       now or after a crash, are swept.
    2. Encode, store, and name the new files on the clip if it is still one of `clips`.
    """
    clip = Clip.objects.select_related("prompt", "version").get(pk=pk)
    if clips.filter(pk=pk, fence=clip.fence).update(fence=F("fence") + 1) != 1:
        return False
    with scratch_folder(f"{pk}-{clip.fence + 1}") as folder:
        master = fetch_master(clip, folder)
        files = encode_clip(master, folder, clip.prompt, clip.category)
        drop_idle_connection()
        made = {"rendition": files.rendition, "poster": files.poster}
        names = _store(clip, str(clip.fence + 1), made)
        size = files.rendition.stat().st_size
    return (
        clips.filter(pk=pk, fence=clip.fence + 1).update(
            rendition_sha256=files.rendition_sha256,
            rendition_bytes=size,
            # A file without a constant rate has a master with one: what counts is the file's own.
            off_format=is_off_format(
                replace(files.facts, fps=clip.fps or files.facts.fps), clip.prompt.aspect
            ),
            profile=files.made.profile,
            loudness=files.made.loudness,
            motion=files.made.motion,
            **names,
        )
        == 1
    )
