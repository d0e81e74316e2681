"""From a master to the files voters get: the one encoder every clip goes through.

A master is ours or was fetched from a hosted service. All renditions share one profile, down to
the order of the boxes, the pattern of frame types and the size of every packet, so that nothing in
a file but its pixels and its sound tells who made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generation.media import profile
from generation.media.container import (
    draft_beside,
    file_problems,
    packet_problems,
    put_in_place,
    write_mp4,
    writing,
)
from generation.media.masters import RawClip
from generation.media.padding import DoesNotFit
from generation.media.picture import (
    BT709,
    LIMITED_RANGE,
    Watched,
    on_canvas,
    watch_frames,
    write_poster,
)
from generation.media.profile import EncodingError, MediaFacts, canvas_of, frame_count
from generation.media.reading import facts_of, read_frames, read_sound
from generation.media.sound import Samples, integrated_loudness, normalise_loudness

# What the encoders are asked to stay below, as shares of a packet's size: rate control may miss its
# aim by a little. A clip with a packet that is larger all the same is encoded again at the next.
TRIES = (0.98, 0.8, 0.6, 0.4)
AAC_FRAME_S = 1024 / 48_000


@dataclass(frozen=True)
class RenditionFacts:
    """A published rendition, as measured on the finished file."""

    width: int
    height: int
    frames: int
    fps: float
    seconds: float
    has_audio: bool
    audio_seconds: float | None
    loudness: float | None  # LUFS; None without sound or when the sound is silence
    motion: float | None  # mean change of luma per frame, 0..255; None when there is only one
    brightest: float  # luma, 0..255, that a thousandth of the pixels of some frame reach
    moved: float  # most that the mean luma of a block of 8 x 8 differs from the first frame's
    profile: int  # its number


def encode_rendition(
    master: Path, rendition: Path, poster: Path, *, aspect: str, seconds: float, audio: bool
) -> RenditionFacts:
    """Make the file voters see, and its poster, or raise and leave nothing behind.

    1. Read the master's sound, if it is wanted, and bring it to the profile's loudness.
    2. Show the master's frames on the canvas at the profile's frame rate, encode both, and fill
       every packet up to its size.
    3. Decode the result, check it against what was asked for, and measure its sound and motion.
    4. Save its first frame as the poster, then publish both under their names.
    """
    canvas, count = canvas_of(aspect), frame_count(seconds)
    with draft_beside(rendition) as draft, draft_beside(poster) as poster_draft:
        samples = None
        if audio:
            samples, _ = normalise_loudness(_sound_of(master, count))
        with writing(rendition):
            _write_within_sizes(draft, master, samples, canvas, count)
        facts = _checked(draft, rendition.name, canvas, count, audio)
        with writing(poster):
            write_poster(draft, poster_draft)
        # The rendition comes last: whoever sees it may rely on the poster.
        put_in_place(poster_draft, poster)
        try:
            put_in_place(draft, rendition)
        except EncodingError:
            poster.unlink(missing_ok=True)
            raise
    return facts


def _sound_of(master: Path, count: int) -> Samples:
    """The master's sound for so many frames; a float track can hold what is no sound at all."""
    samples = read_sound(master, count * profile.PROFILE.samples_per_frame)
    wrong = ~np.isfinite(samples).all(axis=1)
    if wrong.any():
        at = int(np.argmax(wrong)) / profile.PROFILE.sample_rate
        raise EncodingError(
            f"The sound of {master.name} contains NaN or infinite samples, the first at {at:.2f} "
            "s: make the clip again with finite sound."
        )
    return samples


def _write_within_sizes(
    path: Path, master: Path, samples: Samples | None, canvas: tuple[int, int], count: int
) -> None:
    """Encode as well as the sizes of packets allow; the same rule for every clip."""
    for share in TRIES:
        pictures = on_canvas(master, *canvas, count)
        try:
            return write_mp4(path, pictures, samples, canvas=canvas, count=count, share=share)
        except DoesNotFit:
            continue
    raise EncodingError(
        f"{master.name} can't be held within the profile's packets, even at {TRIES[-1]:.0%} of "
        "their size: look whether it shows anything but noise."
    )


def _checked(
    draft: Path, name: str, canvas: tuple[int, int], count: int, audio: bool
) -> RenditionFacts:
    """Decode the draft and compare it with the profile; return what was measured on it."""
    watched = Watched()
    facts = facts_of(draft, watch_frames(read_frames(draft), watched))
    wrong = _differences(facts, canvas, count, audio)
    wrong += file_problems(draft) + packet_problems(draft, canvas, count)
    if wrong:
        raise EncodingError(
            f"The rendition {name} came out wrong ({'; '.join(wrong)}): report this as a defect."
        )
    loudness = None
    if audio:
        loudness = integrated_loudness(read_sound(draft, count * profile.PROFILE.samples_per_frame))
    return RenditionFacts(
        width=facts.width,
        height=facts.height,
        frames=facts.frames,
        fps=facts.fps,
        seconds=facts.seconds,
        has_audio=facts.has_audio,
        audio_seconds=facts.audio_seconds,
        loudness=loudness,
        motion=sum(watched.changes) / len(watched.changes) if watched.changes else None,
        brightest=watched.brightest,
        moved=watched.moved,
        profile=profile.PROFILE.number,
    )


def _differences(facts: MediaFacts, canvas: tuple[int, int], count: int, audio: bool) -> list[str]:
    """In what a file is not as the profile wants it."""
    wanted, seconds = profile.PROFILE, count / profile.PROFILE.fps
    width, height = canvas
    expected = {
        "width": width,
        "height": height,
        "frames": count,
        "fps": float(wanted.fps),
        "seconds": seconds,
        "pixel_format": wanted.pixel_format,
        "video_codec": "h264",
        "has_audio": audio,
        "audio_codec": "aac" if audio else None,
        "sample_rate": wanted.sample_rate if audio else None,
        "channels": 2 if audio else None,
    }
    wrong = [
        f"{key} is {getattr(facts, key)}, not {value}"
        for key, value in expected.items()
        if getattr(facts, key) != value
    ]
    # The decoder hands out whole AAC frames; the container says where the last one ends.
    if facts.audio_seconds is not None and not 0 <= facts.audio_seconds - seconds < AAC_FRAME_S:
        wrong.append(f"its sound lasts {facts.audio_seconds} s, not {seconds} s")
    return wrong


def as_shown(master: Path, *, aspect: str, seconds: float, audio: bool) -> RawClip:
    """What voters would see and hear of a master, decoded: on the canvas, at the profile's rates,
    cut to `seconds`; `audio` is False in silent categories. Raises EncodingError as a rendition."""
    wanted, count = profile.PROFILE, frame_count(seconds)
    width, height = canvas_of(aspect)
    frames = np.empty((count, height, width, 3), np.uint8)
    for number, picture in enumerate(on_canvas(master, width, height, count)):
        frames[number] = picture.reformat(
            format="rgb24", src_colorspace=BT709, src_color_range=LIMITED_RANGE
        ).to_ndarray()
    if not audio:
        return RawClip(frames, wanted.fps, None, None)
    sound = _sound_of(master, count)
    return RawClip(frames, wanted.fps, np.clip(sound, -1, 1), wanted.sample_rate)
