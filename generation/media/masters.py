"""What a backend returns, and the file it is kept in: the master, nearly without loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags
from av.video.frame import PictureType, VideoFrame

from generation.media.container import add_h264, draft_beside, put_in_place, writing
from generation.media.picture import BT709, LIMITED_RANGE
from generation.media.profile import EncodingError

if TYPE_CHECKING:
    from generation.media.sound import Samples


@dataclass(frozen=True)
class RawClip:
    """What a backend returns: pictures and, in an audio category, sound."""

    frames: npt.NDArray[np.uint8]  # [F, H, W, 3] RGB
    fps: float
    audio: Samples | None  # [N, C] in -1..1, one or two channels
    sample_rate: int | None


def write_master(clip: RawClip, path: Path) -> None:
    """Store a clip as a master whose pictures are 4:4:4."""
    _check_raw_clip(clip, path)
    rate = Fraction(clip.fps).limit_denominator(1001)
    write_pictures(path, _pictures(clip), rate, Fraction(1), clip.audio, clip.sample_rate)


def _pictures(clip: RawClip) -> Iterator[VideoFrame]:
    for rgb in clip.frames:
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        yield frame.reformat(format="yuv444p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE)


def write_pictures(
    path: Path,
    pictures: Iterable[VideoFrame],
    rate: Fraction,
    pixel_shape: Fraction,
    audio: Samples | None,
    sample_rate: int | None,
) -> None:
    """Write a master: Matroska with H.264 at a near-lossless rate and 24-bit FLAC.

    The pictures are one or more in BT.709 and limited range, all of one size and format; each is
    shown for 1 / `rate` s. `audio` is [N, C] in -1..1 and begins with the first picture.
    """
    pictures = iter(pictures)
    first = next(pictures)
    with draft_beside(path) as draft, writing(path):
        options = {"fflags": "+bitexact"}
        with av.open(str(draft), "w", format="matroska", container_options=options) as out:
            near_lossless = {"preset": "veryfast", "crf": "6"}
            size = first.width, first.height
            video = add_h264(out, rate, size, first.format.name, near_lossless)
            if pixel_shape != 1:
                video.codec_context.sample_aspect_ratio = pixel_shape
            if audio is not None and sample_rate is not None:
                layout = "mono" if audio.shape[1] == 1 else "stereo"
                sound = out.add_stream("flac", rate=sample_rate, layout=layout)
                sound.codec_context.format = "s32"
                sound.codec_context.flags |= Flags.bitexact
                # Matroska interleaves by time, so sound first costs nothing but a queue.
                out.mux(sound.encode(_pcm24_frame(audio, sample_rate, layout)))
                out.mux(sound.encode(None))
            for number, picture in enumerate(chain((first,), pictures)):
                picture.pts, picture.time_base = number, 1 / rate
                # A decoded frame remembers its type, and x264 would take that as an order.
                picture.pict_type = PictureType.NONE
                out.mux(video.encode(picture))
            out.mux(video.encode(None))
        put_in_place(draft, path)


def _check_raw_clip(clip: RawClip, path: Path) -> None:
    """A backend that returns the wrong thing is told so; nothing is bent into shape."""
    problem = None
    frames, audio = clip.frames, clip.audio
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        problem = (
            f"its frames are {frames.dtype} {list(frames.shape)}; return uint8 [F, H, W, 3] RGB"
        )
    elif not (math.isfinite(clip.fps) and clip.fps > 0):
        problem = f"its frame rate is {clip.fps}; return a positive number"
    elif (audio is None) != (clip.sample_rate is None):
        problem = "only one of sound and sample rate is given; return both or neither"
    elif audio is not None:
        if audio.ndim != 2 or audio.shape[1] not in (1, 2) or not audio.size:
            problem = f"its sound has shape {list(audio.shape)}; return [N, 1] or [N, 2]"
        elif audio.dtype != np.float32:
            problem = f"its sound is {audio.dtype}; return float32"
        elif not np.isfinite(audio).all():
            problem = "its sound contains NaN or infinity; return finite samples"
        elif float(np.abs(audio).max()) > 1.0:
            peak = float(np.abs(audio).max())
            problem = f"its sound peaks at {peak:.3f}; return samples within -1..1"
    if problem:
        raise EncodingError(f"The clip for {path.name} can't be stored: {problem}.")


def _pcm24_frame(audio: Samples, sample_rate: int, layout: str) -> av.AudioFrame:
    """One frame of 24-bit samples in 32-bit words, the widest FLAC takes."""
    full_scale = 2**23
    words = np.clip(np.rint(audio.astype(np.float64) * full_scale), -full_scale, full_scale - 1)
    packed = (words.astype(np.int32) << 8).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="s32", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = sample_rate, 0, Fraction(1, sample_rate)
    return frame
