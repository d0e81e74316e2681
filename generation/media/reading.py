"""Reads masters and renditions whole: their facts, frames and sound. Damage is an error.

They are files that this product wrote. What somebody else made is read by a process of its own
(generation/media/intake.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from generation.media import profile
from generation.media.profile import CLOCK_SLACK, SOUND_SLACK, EncodingError, MediaFacts

if TYPE_CHECKING:
    from generation.media.sound import Samples

OUR_CODECS = "h264,aac,flac"  # of renditions and masters


@dataclass(frozen=True)
class ShownFrame:
    """A decoded frame and when it is on screen, in seconds of the file's own clock."""

    frame: VideoFrame
    aspect: Fraction  # of the picture, with the shape of its pixels
    start: Fraction
    end: Fraction


def probe(path: Path) -> MediaFacts:
    """Decode the whole file and say what is in it; a truncated or damaged one is an error."""
    return facts_of(path, read_frames(path))


def facts_of(path: Path, frames: Iterable[ShownFrame]) -> MediaFacts:
    """What `probe` says, of a file whose frames are read by somebody else too."""
    count, first, last = 0, None, None
    for last in frames:
        first = first or last
        count += 1
    if first is None or last is None:
        raise EncodingError(f"{path.name} holds no video frame: make or fetch the clip again.")
    with opened(path) as media:
        video = _video_stream(media, path)
        rate, video_codec = _frame_rate(video, path), video.codec_context.name
        sounds = media.streams.audio
        audio_codec = sounds[0].codec_context.name if sounds else None
    samples, sample_rate, channels = 0, None, None
    for frame in read_sound_frames(path) if audio_codec else ():
        samples += frame.samples
        sample_rate, channels = frame.sample_rate, frame.layout.nb_channels
    span, nominal = last.end - first.start, count / rate
    return MediaFacts(
        width=last.frame.width,
        height=last.frame.height,
        aspect=float(last.aspect),
        frames=count,
        fps=float(rate),
        seconds=float(nominal if abs(nominal - span) <= CLOCK_SLACK else span),
        pixel_format=last.frame.format.name,
        video_codec=video_codec,
        has_audio=audio_codec is not None,
        audio_codec=audio_codec,
        sample_rate=sample_rate,
        channels=channels,
        audio_seconds=samples / sample_rate if sample_rate else None,
    )


def read_frames(path: Path) -> Iterator[ShownFrame]:
    """Decode every frame; at the end, raise if the file declared more than it held."""
    with opened(path) as media:
        video = _video_stream(media, path)
        rate = _frame_rate(video, path)
        count, first, end, size = 0, Fraction(0), Fraction(0), None
        for frame in media.decode(video):
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise EncodingError(f"{path.name} changes its frame size: re-save it at one size.")
            if frame.is_corrupt:
                raise damaged(path, f"frame {count + 1} is corrupt")
            if frame.pts is None or frame.time_base is None:
                raise damaged(path, f"frame {count + 1} carries no time")
            start = frame.pts * frame.time_base
            length = frame.duration * frame.time_base
            if not length or abs(length - 1 / rate) <= CLOCK_SLACK:
                length = 1 / rate
            end = start + length
            first = first if count else start
            count += 1
            aspect = Fraction(*size) * (video.sample_aspect_ratio or 1)
            yield ShownFrame(frame, aspect, start, end)
        declared = declared_end(media, video)
        if declared is not None and end < declared - 1 / rate - CLOCK_SLACK:
            raise damaged(path, f"its video ends at {float(end):.2f} s of {float(declared):.2f} s")
        # Matroska alone drops a damaged cluster without a decoding error.
        expected = (end - first) * rate
        if media.format.name.startswith("matroska") and count < expected - Fraction(3, 2):
            raise damaged(path, f"only {count} of about {round(expected)} frames can be decoded")


def read_sound_frames(path: Path) -> Iterator[av.AudioFrame]:
    """Decode the first audio track; at the end, raise if the file declared more than it held."""
    with opened(path) as media:
        sound = media.streams.audio[0]
        end = Fraction(0)
        for frame in media.decode(sound):
            if frame.is_corrupt:
                raise damaged(path, "its sound is corrupt")
            if frame.pts is not None and frame.time_base is not None:
                end = frame.pts * frame.time_base + Fraction(frame.samples, frame.sample_rate)
            yield frame
        declared = declared_end(media, sound)
        if declared is not None and end < declared - SOUND_SLACK:
            raise damaged(path, f"its sound ends at {float(end):.2f} s of {float(declared):.2f} s")


def read_sound(path: Path, count: int) -> Samples:
    """Read a file's sound as stereo at the profile's rate: `count` samples from its first frame."""
    with opened(path) as media:
        if not media.streams.audio:
            raise EncodingError(
                f"{path.name} has no audio track, but its category has sound: make it with sound."
            )
        late = _start(media.streams.audio[0]) - _start(_video_stream(media, path))
    rate = profile.PROFILE.sample_rate
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=rate)
    pieces: list[npt.NDArray[Any]] = []
    for frame in read_sound_frames(path):
        pieces += [piece.to_ndarray() for piece in resampler.resample(frame)]
    if not pieces:
        raise EncodingError(f"{path.name} has an empty audio track: make or fetch the clip again.")
    pieces += [piece.to_ndarray() for piece in resampler.resample(None)]
    sound = np.concatenate(pieces, axis=1).T.astype(np.float32)
    shift = round(late * rate)
    placed = np.zeros((count, 2), np.float32)
    wanted = sound[max(0, -shift) :][: max(0, count - max(0, shift))]
    start = max(0, shift)
    placed[start : start + len(wanted)] = wanted
    return placed


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a file so that damage is an error: decoders conceal it unless told otherwise."""
    try:
        with av.open(str(path), options={"codec_whitelist": OUR_CODECS}) as media:
            for stream in (*media.streams.video, *media.streams.audio):
                stream.codec_context.options = {"err_detect": "crccheck+explode"}
            yield media
    except FileNotFoundError as error:
        raise EncodingError(f"{path.name} does not exist: make or fetch the clip again.") from error
    except (av.FFmpegError, OSError) as error:
        raise damaged(path, error.strerror or type(error).__name__) from error


def damaged(path: Path, what: str) -> EncodingError:
    """What is raised of a file that is not whole."""
    return EncodingError(
        f"{path.name} is truncated or damaged ({what}): make or fetch the clip again."
    )


def _video_stream(media: InputContainer, path: Path) -> VideoStream:
    if not media.streams.video:
        raise EncodingError(f"{path.name} has no video track: make or fetch the clip again.")
    return media.streams.video[0]


def _frame_rate(video: VideoStream, path: Path) -> Fraction:
    rate = video.average_rate or video.guessed_rate
    if not rate:
        raise EncodingError(f"{path.name} states no frame rate: re-save the clip with one.")
    return rate


def _start(stream: VideoStream | AudioStream) -> Fraction:
    return (stream.start_time or 0) * (stream.time_base or Fraction(1))


def declared_end(media: InputContainer, stream: VideoStream | AudioStream) -> Fraction | None:
    """When the header says the track ends; MP4 states a length, Matroska a tag hh:mm:ss."""
    if stream.duration is not None and stream.time_base is not None:
        return _start(stream) + stream.duration * stream.time_base
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds = tag.groups()
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    if len(media.streams) == 1 and media.duration is not None:
        return Fraction(media.duration, av.time_base)
    return None
