"""Masters and renditions: the one encoder every clip goes through before anybody sees it.

A backend returns a `RawClip`; `write_master` stores it nearly without loss. `encode_rendition`
turns any master, ours or one fetched from a hosted API, into the file voters get. All renditions
share one profile, down to the order of the boxes, the pattern of frame types and the size of every
packet, so that nothing in a file but its pixels and its sound tells who made it.

No torch and no Django here: arrays and files in, files and facts out.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from PIL import Image, ImageFilter
from scipy.ndimage import minimum_filter1d, uniform_filter1d
from scipy.signal import lfilter, resample_poly

from generation.padding import DoesNotFit, pad_picture, pad_poster, pad_sound

Samples = npt.NDArray[np.float32]

# Code points of ITU-T H.273, which FFmpeg and its scaler use as numbers.
BT709 = 1
BT601 = 5
LIMITED_RANGE = 1
FULL_RANGE = 2
LIMITED_SPAN = 219  # black is 16 and white 235
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
# Colour matrices as files state them -> as the scaler knows them; 2 means "not stated".
SWS_MATRICES = {1: BT709, 4: 4, 5: BT601, 6: BT601, 7: 7, 9: 9, 10: 9}
# What a file that states no colour matrix means depends on its height, by the custom of players.
SD_MAX_HEIGHT = 576

# One filter whatever the size, and the same result on every processor.
SCALER = Interpolation.LANCZOS | Interpolation.ACCURATE_RND | Interpolation.BITEXACT

# Matroska rounds times to the millisecond: what is no further apart is read as the same time.
CLOCK_SLACK = Fraction(1, 1000)
# Sound may stop this much before its declared end: one AAC frame at 16 kHz is 64 ms.
SOUND_SLACK = Fraction(1, 10)
AAC_FRAME_S = 1024 / 48_000

# The two filters of ITU-R BS.1770-4 (tables 1 and 2), which the standard gives for 48 kHz.
K_WEIGHTING_48K = (
    (
        (1.53512485958697, -2.69169618940638, 1.19839281085285),
        (1.0, -1.69065929318241, 0.73248077421585),
    ),
    ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
)
SILENCE = -70.0  # LUFS, the absolute gate of BS.1770
LOUDNESS_TOLERANCE = 0.05  # LU; a tenth of what anybody could hear
LIMITER_ROUNDS = 8  # a bound; on clicks over noise one to three were enough

# What the encoders are asked to stay below, as shares of a packet's size: rate control may miss its
# aim by a little. A clip with a packet that is larger all the same is encoded again at the next.
TRIES = (0.98, 0.8, 0.6, 0.4)
POSTER_BLURS = (0.0, 1.0, 2.0, 4.0)  # pixels; white noise alone needs more than the first


class EncodingError(Exception):
    """One sentence: which file, what is wrong with it, what to do."""


@dataclass(frozen=True)
class RawClip:
    """What a backend returns: pictures and, in an audio category, sound."""

    frames: npt.NDArray[np.uint8]  # [F, H, W, 3] RGB
    fps: float
    audio: Samples | None  # [N, C] in -1..1, one or two channels
    sample_rate: int | None


@dataclass(frozen=True)
class MediaFacts:
    """What decoding a whole file showed; nothing here is taken from a header on trust."""

    width: int
    height: int
    aspect: float  # of the picture, with the shape of its pixels
    frames: int
    fps: float
    seconds: float
    pixel_format: str
    video_codec: str
    has_audio: bool
    audio_codec: str | None
    sample_rate: int | None
    channels: int | None
    audio_seconds: float | None


@dataclass(frozen=True)
class Profile:
    """The one setting of every rendition.

    A change here takes a new number: clips of two numbers never meet in a battle, and
    `manage.py encode_again` brings all to the newest.
    """

    number: int = 2
    canvases: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: MappingProxyType(
            {"16:9": (1280, 720), "1:1": (720, 720), "9:16": (720, 1280)}
        )
    )
    fps: int = 24
    pixel_format: str = "yuv420p"
    h264_profile: str = "high"
    h264_level: str = "3.1"  # 720p up to 30 frames a second: every phone decodes it in hardware
    preset: str = "faster"
    crf: int = 18  # no visible loss at this preset, so the encoder is not what voters compare
    gop: int = 48  # two seconds: a seek decodes that much at most
    # Sizes of packets, which are the same whatever a clip shows: 253,440 bytes for a key frame and
    # 40,320 for any other at 1280x720, 1.07 MB for a second of pictures.
    key_bits_per_pixel: float = 2.2
    bits_per_pixel: float = 0.35
    sound_packet: int = 1024  # bytes; at most 806 were seen, of clicks
    sample_rate: int = 48_000
    audio_bitrate: int = 192_000
    loudness: float = -23.0  # LUFS, EBU R 128
    true_peak: float = -1.0  # dBTP, EBU R 128
    max_gain: float = 30.0  # dB; a fainter track is noise, and more would turn it into a sound
    max_limiting: float = 6.0  # dB taken off a peak; more would be heard as another sound
    poster_quality: int = 85
    poster_shrink: int = 2
    poster_bits_per_pixel: float = 5.0  # of the poster

    def packet_sizes(self, width: int, height: int) -> tuple[int, int]:
        """Bytes of a key frame and of any other frame on this canvas."""
        area = width * height
        return round(area * self.key_bits_per_pixel / 8), round(area * self.bits_per_pixel / 8)

    @property
    def samples_per_frame(self) -> int:
        """48,000 / 24 is a whole number, which is what makes sound and video end together."""
        return self.sample_rate // self.fps


PROFILE = Profile()


# A master with less than this share of the profile's frame rate, or of the canvas's short side, is
# far from the profile, as is one that leaves bars on the canvas: voters may see that much at once.
NEAR = 0.5
# How far a picture's shape may be from the canvas's and still fill it; the common sizes 832x480 and
# 1280x704 are 2.5 % and 2.3 % from 16:9.
FILL_WITHIN = 0.04


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
    gain: float | None  # dB added to the master's sound; None as above
    motion: float | None  # mean change of luma per frame, 0..255; None when there is only one
    size_bytes: int
    poster_size_bytes: int
    profile: int  # its number


def far_from_profile(master: MediaFacts, aspect: str) -> bool:
    """Whether what a version made is of a stratum of its own, by frame rate, size or shape."""
    width, height = _canvas(aspect)
    return (
        master.fps < NEAR * PROFILE.fps
        or min(master.width, master.height) < NEAR * min(width, height)
        or not _fills(master.aspect, width, height)
    )


# --- masters -------------------------------------------------------------------------------------


def write_master(clip: RawClip, path: Path) -> None:
    """Store a clip as Matroska: 4:4:4 H.264 at a near-lossless rate and 24-bit FLAC."""
    _check_raw_clip(clip, path)
    rate = Fraction(clip.fps).limit_denominator(1001)
    _, height, width, _ = clip.frames.shape
    with _scratch(path) as scratch, _writing(path):
        options = {"fflags": "+bitexact"}
        with av.open(str(scratch), "w", format="matroska", container_options=options) as out:
            video = _add_h264(
                out, rate, width, height, "yuv444p", {"preset": "veryfast", "crf": "6"}
            )
            sound = None
            if clip.audio is not None and clip.sample_rate is not None:
                layout = "mono" if clip.audio.shape[1] == 1 else "stereo"
                sound = out.add_stream("flac", rate=clip.sample_rate, layout=layout)
                sound.codec_context.format = "s32"
                sound.codec_context.flags |= Flags.bitexact
                # Matroska interleaves by time, so sound first costs nothing but a queue.
                out.mux(sound.encode(_pcm24_frame(clip.audio, clip.sample_rate, layout)))
                out.mux(sound.encode(None))
            for number, rgb in enumerate(clip.frames):
                frame = VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
                frame = frame.reformat(
                    format="yuv444p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE
                )
                frame.pts, frame.time_base = number, 1 / rate
                out.mux(video.encode(frame))
            out.mux(video.encode(None))
        _publish(scratch, path)


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


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shown:
    """A decoded frame and when it is on screen, in seconds of the file's own clock."""

    frame: VideoFrame
    aspect: Fraction  # of the picture, with the shape of its pixels
    start: Fraction
    end: Fraction


def probe(path: Path) -> MediaFacts:
    """Decode the whole file and say what is in it; a truncated or damaged one is an error."""
    return _facts(path, _read_frames(path))


def _facts(path: Path, frames: Iterable[_Shown]) -> MediaFacts:
    count, first, last = 0, None, None
    for last in frames:
        first = first or last
        count += 1
    if first is None or last is None:
        raise EncodingError(f"{path.name} holds no video frame: make or fetch the clip again.")
    with _reading(path) as media:
        video = _video_stream(media, path)
        rate, video_codec = _frame_rate(video, path), video.codec_context.name
        sounds = media.streams.audio
        audio_codec = sounds[0].codec_context.name if sounds else None
    samples, sample_rate, channels = 0, None, None
    for frame in _read_sound_frames(path) if audio_codec else ():
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


def _read_frames(path: Path) -> Iterator[_Shown]:
    """Decode every frame; at the end, raise if the file declared more than it held."""
    with _reading(path) as media:
        video = _video_stream(media, path)
        rate = _frame_rate(video, path)
        count, first, end, size = 0, Fraction(0), Fraction(0), None
        for frame in media.decode(video):
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise EncodingError(f"{path.name} changes its frame size: re-save it at one size.")
            if frame.is_corrupt:
                raise _damaged(path, f"frame {count + 1} is corrupt")
            if frame.pts is None or frame.time_base is None:
                raise _damaged(path, f"frame {count + 1} carries no time")
            start = frame.pts * frame.time_base
            length = frame.duration * frame.time_base
            if not length or abs(length - 1 / rate) <= CLOCK_SLACK:
                length = 1 / rate
            end = start + length
            first = first if count else start
            count += 1
            aspect = Fraction(*size) * (video.sample_aspect_ratio or 1)
            yield _Shown(frame, aspect, start, end)
        declared = _declared_end(media, video)
        if declared is not None and end < declared - 1 / rate - CLOCK_SLACK:
            raise _damaged(path, f"its video ends at {float(end):.2f} s of {float(declared):.2f} s")
        # Matroska alone drops a damaged cluster without a decoding error.
        expected = (end - first) * rate
        if media.format.name.startswith("matroska") and count < expected - Fraction(3, 2):
            raise _damaged(path, f"only {count} of about {round(expected)} frames can be decoded")


def _read_sound_frames(path: Path) -> Iterator[av.AudioFrame]:
    """Decode the first audio track; at the end, raise if the file declared more than it held."""
    with _reading(path) as media:
        sound = media.streams.audio[0]
        end = Fraction(0)
        for frame in media.decode(sound):
            if frame.is_corrupt:
                raise _damaged(path, "its sound is corrupt")
            if frame.pts is not None and frame.time_base is not None:
                end = frame.pts * frame.time_base + Fraction(frame.samples, frame.sample_rate)
            yield frame
        declared = _declared_end(media, sound)
        if declared is not None and end < declared - SOUND_SLACK:
            raise _damaged(path, f"its sound ends at {float(end):.2f} s of {float(declared):.2f} s")


@contextmanager
def _reading(path: Path) -> Iterator[InputContainer]:
    """Open a file so that damage is an error: decoders conceal it unless told otherwise."""
    try:
        with av.open(str(path)) as media:
            for stream in (*media.streams.video, *media.streams.audio):
                stream.codec_context.options = {"err_detect": "crccheck+explode"}
            yield media
    except FileNotFoundError as error:
        raise EncodingError(f"{path.name} does not exist: make or fetch the clip again.") from error
    except (av.FFmpegError, OSError) as error:
        raise _damaged(path, error.strerror or type(error).__name__) from error


def _damaged(path: Path, what: str) -> EncodingError:
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


def _declared_end(media: InputContainer, stream: VideoStream | AudioStream) -> Fraction | None:
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


# --- renditions ----------------------------------------------------------------------------------


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
    width, height = _canvas(aspect)
    count = _frame_count(seconds)
    with _scratch(rendition) as draft, _scratch(poster) as poster_draft:
        samples, gain = None, None
        if audio:
            samples = _read_sound(master, count * PROFILE.samples_per_frame)
            samples, gain = normalise_loudness(samples)
        with _writing(rendition):
            _write_within_sizes(draft, master, samples, width, height, count)
        facts, loudness, motion = _check_rendition(
            draft, rendition.name, width, height, count, audio
        )
        with _writing(poster):
            _write_poster(draft, poster_draft)
        result = RenditionFacts(
            width=facts.width,
            height=facts.height,
            frames=facts.frames,
            fps=facts.fps,
            seconds=facts.seconds,
            has_audio=facts.has_audio,
            audio_seconds=facts.audio_seconds,
            loudness=loudness,
            gain=gain,
            motion=motion,
            size_bytes=draft.stat().st_size,
            poster_size_bytes=poster_draft.stat().st_size,
            profile=PROFILE.number,
        )
        # The rendition comes last: whoever sees it may rely on the poster.
        _publish(poster_draft, poster)
        try:
            _publish(draft, rendition)
        except EncodingError:
            poster.unlink(missing_ok=True)
            raise
    return result


def as_shown(master: Path, *, aspect: str, seconds: float, audio: bool) -> RawClip:
    """What voters would see and hear of a master, decoded: on the canvas, at the profile's rates,
    cut to `seconds`; `audio` is False in silent categories. Raises EncodingError as a rendition."""
    width, height = _canvas(aspect)
    count = _frame_count(seconds)
    frames = np.empty((count, height, width, 3), np.uint8)
    for number, picture in enumerate(_on_canvas(master, width, height, count)):
        frames[number] = picture.reformat(
            format="rgb24", src_colorspace=BT709, src_color_range=LIMITED_RANGE
        ).to_ndarray()
    if not audio:
        return RawClip(frames, PROFILE.fps, None, None)
    sound = _read_sound(master, count * PROFILE.samples_per_frame)
    return RawClip(frames, PROFILE.fps, np.clip(sound, -1, 1), PROFILE.sample_rate)


def _canvas(aspect: str) -> tuple[int, int]:
    if aspect not in PROFILE.canvases:
        known = ", ".join(PROFILE.canvases)
        raise EncodingError(f"No canvas has the aspect {aspect!r}: use one of {known}.")
    return PROFILE.canvases[aspect]


def _frame_count(seconds: float) -> int:
    count = round(seconds * PROFILE.fps) if math.isfinite(seconds) else 0
    if count < 1:
        raise EncodingError(f"A rendition of {seconds} s has no frame: ask for a longer one.")
    return count


def _write_within_sizes(
    path: Path, master: Path, samples: Samples | None, width: int, height: int, count: int
) -> None:
    """Encode as well as the sizes of packets allow; the same rule for every clip."""
    for share in TRIES:
        try:
            return _write_mp4(path, master, samples, width, height, count, share)
        except DoesNotFit:
            continue
    raise EncodingError(
        f"{master.name} can't be held within the profile's packets, even at {TRIES[-1]:.0%} of "
        "their size: look whether it shows anything but noise."
    )


def _write_mp4(
    path: Path,
    master: Path,
    samples: Samples | None,
    width: int,
    height: int,
    count: int,
    share: float,
) -> None:
    """Encode and interleave; every choice an encoder could take by content is fixed."""
    key, other = PROFILE.packet_sizes(width, height)
    # The box of bit rates would state x264's buffer, and so which try it was.
    mux_options = {"fflags": "+bitexact", "movflags": "+faststart", "write_btrt": "0"}
    with av.open(str(path), "w", format="mp4", container_options=mux_options) as out:
        limits, zones = _limits(round(key * share), round(other * share), count)
        video = _add_h264(
            out,
            Fraction(PROFILE.fps),
            width,
            height,
            PROFILE.pixel_format,
            {
                "preset": PROFILE.preset,
                "crf": str(PROFILE.crf),
                "profile": PROFILE.h264_profile,
                "level": PROFILE.h264_level,
                **limits,
            },
            # A fixed pattern of frame types: the file's tables then do not depend on content.
            # All but key frames have one size, so none may lean on another's bits as B-frames do.
            f"keyint={PROFILE.gop}:min-keyint={PROFILE.gop}:scenecut=0:open-gop=0:bframes=0"
            f":vbv-init=1:{zones}",
        )
        sound = None
        if samples is not None:
            sound = out.add_stream("aac", rate=PROFILE.sample_rate, layout="stereo")
            sound.codec_context.bit_rate = round(PROFILE.audio_bitrate * share)
            sound.codec_context.profile = "LC"
            sound.codec_context.flags |= Flags.bitexact
        out.start_encoding()
        sound_packets = _encode_sound(sound, samples) if sound and samples is not None else []
        for frame in chain(_on_canvas(master, width, height, count), (None,)):
            for encoded in video.encode(frame):
                size = key if encoded.is_keyframe else other
                packet = _with_bytes(encoded, pad_picture(bytes(encoded), size))
                while sound_packets and _decode_time(sound_packets[0]) <= _decode_time(packet):
                    out.mux(sound_packets.pop(0))
                out.mux(packet)
        out.mux(sound_packets)


def _limits(key: int, other: int, count: int) -> tuple[dict[str, str], str]:
    """What holds each frame below its size in bytes: x264's buffer model, zone by zone.

    The buffer holds one frame and is full before each, so no frame takes more than it holds. It is
    filled after a frame at the rate of that frame's zone, and a zone's smaller buffer cuts what it
    holds; so a key frame's bits arrive in a zone of the one frame before it.
    """
    key, other = key * 8 // 1000, other * 8 // 1000  # x264 counts in kilobits
    zones = []
    for first in range(0, count, PROFILE.gop):
        last = first + PROFILE.gop - 1
        for begin, end, size, fill in (
            (first, first, key, other),
            (first + 1, last - 1, other, other),
            (last, last, key, key),
        ):
            zones.append(f"{begin},{end},vbv-bufsize={size},vbv-maxrate={fill * PROFILE.fps}")
    limits = {"bufsize": str(key * 1000), "maxrate": str(other * PROFILE.fps * 1000)}
    return limits, f"zones={'/'.join(zones)}"


def _with_bytes(packet: Packet[Any], content: bytes) -> Packet[Any]:
    """The packet with other contents: a packet's own can't change their length."""
    new = Packet(content)
    new.stream, new.time_base = packet.stream, packet.time_base
    new.pts, new.dts, new.duration = packet.pts, packet.dts, packet.duration
    new.is_keyframe = packet.is_keyframe
    return new


def _add_h264(
    out: OutputContainer,
    rate: Fraction,
    width: int,
    height: int,
    pixel_format: str,
    options: dict[str, str],
    x264_params: str = "",
) -> VideoStream:
    """Add an x264 stream whose bytes depend on neither the run nor the number of cores."""
    stream = out.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
    # x264 decides differently with each number of threads and with each kind of processor; and
    # without cpu-independent its fast routines let unused memory into rate control (measured: the
    # same frames gave other bytes in the same process), so even one machine disagrees with itself.
    fixed = "threads=1:lookahead-threads=1:cpu-independent=1"
    x264 = {"x264-params": f"{fixed}:{x264_params}" if x264_params else fixed}
    stream.options = {**options, **x264}
    codec = stream.codec_context
    codec.time_base = 1 / rate
    codec.flags |= Flags.bitexact
    codec.color_range = LIMITED_RANGE
    codec.colorspace = codec.color_primaries = codec.color_trc = BT709
    return stream


def _decode_time(packet: Packet[Any]) -> Fraction:
    if packet.dts is None:
        raise EncodingError("The encoder made a packet without a time: report this as a defect.")
    return packet.dts * packet.time_base


# --- picture -------------------------------------------------------------------------------------


def _on_canvas(master: Path, width: int, height: int, count: int) -> Iterator[VideoFrame]:
    """Yield exactly `count` frames of the canvas's size, ready for the encoder."""
    source, picture = None, None
    for number, shown in enumerate(_sampled(master, count)):
        if picture is None or shown is not source:
            source, picture = shown, _fit(shown, width, height, master)
        picture.pts, picture.time_base = number, Fraction(1, PROFILE.fps)
        # A decoded frame remembers its type, and x264 would take that as an order.
        picture.pict_type = PictureType.NONE
        yield picture


def _sampled(master: Path, count: int) -> Iterator[_Shown]:
    """Yield, for each tick of the rendition, the frame that the master shows at that time."""
    tick, ticks = Fraction(1, PROFILE.fps), 0
    first: _Shown | None = None
    current: _Shown | None = None
    # The whole master is decoded, so that a damaged one never passes unnoticed.
    for shown in _read_frames(master):
        first = first or shown
        while current and ticks < count and ticks * tick + CLOCK_SLACK < shown.start - first.start:
            yield current
            ticks += 1
        current = shown
    if first is None or current is None:
        raise EncodingError(f"{master.name} holds no video frame: make or fetch the clip again.")
    length, asked = current.end - first.start, count * tick
    # The last frame may stay for the time of one more, and no longer.
    if length + (current.end - current.start) + CLOCK_SLACK < asked:
        raise EncodingError(
            f"{master.name} lasts {float(length):.2f} s, too short for a rendition of "
            f"{float(asked):.2f} s: make a longer clip or ask for less."
        )
    for _ in range(ticks, count):
        yield current


def _fit(shown: _Shown, width: int, height: int, master: Path) -> VideoFrame:
    """Scale a frame to the canvas with one filter for every source.

    A picture of nearly the canvas's shape fills it and loses a sliver at two edges: thin bars
    would be the mark of every model whose sizes are multiples of 32. Others stand on black.
    """
    frame = shown.frame
    if frame.rotation:
        raise EncodingError(
            f"{master.name} is stored rotated by {frame.rotation} degrees: re-save it upright."
        )
    if frame.color_trc in HDR_TRANSFERS:
        raise EncodingError(
            f"{master.name} is {HDR_TRANSFERS[frame.color_trc]} high dynamic range: "
            "convert it to BT.709 first."
        )
    full_width = 2 * max(1, round(height * shown.aspect / 2))  # at the canvas's height
    full_height = 2 * max(1, round(width / shown.aspect / 2))  # at the canvas's width
    choose = max if _fills(shown.aspect, width, height) else min
    inner_width, inner_height = choose(width, full_width), choose(height, full_height)
    untagged_matrix = BT601 if frame.height <= SD_MAX_HEIGHT else BT709
    scaled = frame.reformat(
        inner_width,
        inner_height,
        PROFILE.pixel_format,
        src_colorspace=SWS_MATRICES.get(frame.colorspace, untagged_matrix),
        dst_colorspace=BT709,
        interpolation=SCALER,
        src_color_range=FULL_RANGE if frame.color_range == FULL_RANGE else LIMITED_RANGE,
        dst_color_range=LIMITED_RANGE,
        threads=1,
    )
    if (inner_width, inner_height) == (width, height):
        return scaled
    planes = cast(npt.NDArray[np.uint8], scaled.to_ndarray())
    canvas = np.empty(width * height * 3 // 2, np.uint8)
    offset = taken = 0
    flat = planes.reshape(-1)
    for shrink, black in ((1, 16), (2, 128), (2, 128)):
        rows, columns = height // shrink, width // shrink
        inner_rows, inner_columns = inner_height // shrink, inner_width // shrink
        plane = canvas[offset : offset + rows * columns].reshape(rows, columns)
        inner = flat[taken : taken + inner_rows * inner_columns]
        plane[:] = black
        to_rows, from_rows = _centred(height, inner_height, shrink)
        to_columns, from_columns = _centred(width, inner_width, shrink)
        picture = inner.reshape(inner_rows, inner_columns)
        plane[to_rows, to_columns] = picture[from_rows, from_columns]
        offset += rows * columns
        taken += inner_rows * inner_columns
    return VideoFrame.from_ndarray(canvas.reshape(-1, width), format=PROFILE.pixel_format)


def _fills(aspect: float | Fraction, width: int, height: int) -> bool:
    return abs(float(aspect) * height / width - 1) <= FILL_WITHIN


def _centred(outer: int, inner: int, shrink: int) -> tuple[slice, slice]:
    """Where a centred picture lies on the canvas, and which part of the picture that is."""
    gap = abs(outer - inner) // 4 * 2 // shrink
    whole, part = slice(None), slice(gap, gap + min(outer, inner) // shrink)
    return (part, whole) if inner < outer else (whole, part)


def _write_poster(rendition: Path, poster: Path) -> None:
    """Save the rendition's first frame, smaller; Pillow writes neither EXIF nor a name.

    A frame that is too large for the poster's size is blurred: a lower quality would be told by the
    file's tables.
    """
    first = next(_read_frames(rendition)).frame
    rgb = first.reformat(
        format="rgb24",
        src_colorspace=BT709,
        src_color_range=LIMITED_RANGE,
        dst_color_range=FULL_RANGE,
        threads=1,
    )
    picture = Image.fromarray(rgb.to_ndarray()).reduce(PROFILE.poster_shrink)
    size = round(picture.width * picture.height * PROFILE.poster_bits_per_pixel / 8)
    for blur in POSTER_BLURS:
        coded = io.BytesIO()
        blurred = picture.filter(ImageFilter.GaussianBlur(blur)) if blur else picture
        blurred.save(coded, "JPEG", quality=PROFILE.poster_quality)
        try:
            poster.write_bytes(pad_poster(coded.getvalue(), size))
            return
        except DoesNotFit:
            continue
    raise EncodingError(f"{rendition.name} has no poster of {size} bytes: report this as a defect.")


# --- sound ---------------------------------------------------------------------------------------


def _read_sound(path: Path, count: int) -> Samples:
    """Read a file's sound as stereo at the profile's rate: `count` samples from its first frame."""
    with _reading(path) as media:
        if not media.streams.audio:
            raise EncodingError(
                f"{path.name} has no audio track, but its category has sound: make it with sound."
            )
        late = _start(media.streams.audio[0]) - _start(_video_stream(media, path))
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=PROFILE.sample_rate)
    pieces: list[npt.NDArray[Any]] = []
    for frame in _read_sound_frames(path):
        pieces += [piece.to_ndarray() for piece in resampler.resample(frame)]
    if not pieces:
        raise EncodingError(f"{path.name} has an empty audio track: make or fetch the clip again.")
    pieces += [piece.to_ndarray() for piece in resampler.resample(None)]
    sound = np.concatenate(pieces, axis=1).T.astype(np.float32)
    shift = round(late * PROFILE.sample_rate)
    placed = np.zeros((count, 2), np.float32)
    wanted = sound[max(0, -shift) :][: max(0, count - max(0, shift))]
    start = max(0, shift)
    placed[start : start + len(wanted)] = wanted
    return placed


def _encode_sound(stream: AudioStream, samples: Samples) -> list[Packet[Any]]:
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples.T), format="fltp", layout="stereo"
    )
    frame.sample_rate, frame.pts = PROFILE.sample_rate, 0
    frame.time_base = Fraction(1, PROFILE.sample_rate)
    packets = [*stream.encode(frame), *stream.encode(None)]
    return [_with_bytes(p, pad_sound(bytes(p), PROFILE.sound_packet)) for p in packets]


def normalise_loudness(samples: Samples) -> tuple[Samples, float | None]:
    """Bring stereo sound at the profile's rate to its loudness; return it and the gain in dB.

    One gain for the whole clip, so that its own dynamics stay, and a limiter for peaks only. The
    gain is found again while the limiter takes loudness away. Silence stays silence; a lone click
    or a track too faint to be meant stays below the target rather than being blown up.
    """
    measured = integrated_loudness(samples)
    if measured is None:
        return samples, None
    peak = 20 * math.log10(true_peak(samples))
    highest = min(PROFILE.max_gain, PROFILE.true_peak - peak + PROFILE.max_limiting)
    gain = min(PROFILE.loudness - measured, highest)
    for _ in range(LIMITER_ROUNDS):
        result = _limit_peaks(samples * np.float32(10 ** (gain / 20)))
        reached = integrated_loudness(result)
        if reached is None or abs(PROFILE.loudness - reached) < LOUDNESS_TOLERANCE:
            break
        step = min(PROFILE.loudness - reached, highest - gain)
        if step <= 0:
            break
        gain += step
    return result, gain


def integrated_loudness(samples: Samples) -> float | None:
    """Gated loudness in LUFS of samples [N, 2] at the profile's rate; None for silence.

    ITU-R BS.1770-4: K-weighting, blocks of 400 ms every 100 ms, a gate at -70 LUFS and one 10 LU
    below the mean of what passed. Clips are seconds long and play in a loop, so the blocks run
    round the end: otherwise a sound in the last moments of a clip would hardly be counted, and a
    clip shorter than a block could not be measured.
    """
    block, hop = PROFILE.sample_rate * 4 // 10, PROFILE.sample_rate // 10
    looped = np.resize(samples, (len(samples) + block, 2)).astype(np.float64)
    for numerator, denominator in K_WEIGHTING_48K:
        looped = lfilter(numerator, denominator, looped, axis=0)
    power = np.concatenate(([0.0], np.cumsum((looped**2).sum(axis=1))))
    starts = np.arange(0, len(samples), hop)
    energy = (power[starts + block] - power[starts]) / block
    energy = energy[energy > _energy(SILENCE)]
    if not energy.size:
        return None
    energy = energy[energy > energy.mean() / 10]
    return -0.691 + 10 * math.log10(energy.mean())


def _energy(loudness: float) -> float:
    return float(10 ** ((loudness + 0.691) / 10))


def true_peak(samples: Samples) -> float:
    """Largest value between the samples too, by four times oversampling (BS.1770-4, annex 2)."""
    return float(_oversampled_peaks(samples).max(initial=0.0))


def _oversampled_peaks(samples: Samples) -> npt.NDArray[np.float64]:
    """For each sample the largest magnitude of any channel up to the next sample."""
    fine = np.abs(resample_poly(samples.astype(np.float64), 4, 1, axis=0))
    return cast(npt.NDArray[np.float64], fine.reshape(len(samples), -1).max(axis=1))


def _limit_peaks(samples: Samples) -> Samples:
    """Turn the sound down around each peak above the ceiling, smoothly, looking ahead."""
    ceiling = 10 ** (PROFILE.true_peak / 20)
    needed = ceiling / np.maximum(_oversampled_peaks(samples), ceiling)
    if needed.min() >= 1.0:
        return samples
    # The lowest gain of a neighbourhood, averaged over no more than that neighbourhood,
    # never exceeds the gain needed at its centre.
    reach = PROFILE.sample_rate * 5 // 1000
    lowest = minimum_filter1d(needed, 2 * reach + 1, mode="nearest")
    gain = uniform_filter1d(lowest, reach + 1, mode="nearest")
    gain = uniform_filter1d(gain, reach + 1, mode="nearest")
    return cast(Samples, (samples * gain[:, None]).astype(np.float32))


# --- checking and publishing ---------------------------------------------------------------------


def _check_rendition(
    draft: Path, name: str, width: int, height: int, count: int, audio: bool
) -> tuple[MediaFacts, float | None, float | None]:
    """Decode the draft and compare it with the profile; return its facts, loudness and motion."""
    changes: list[float] = []
    facts = _facts(draft, _watched(_read_frames(draft), changes))
    expected = {
        "width": width,
        "height": height,
        "frames": count,
        "fps": float(PROFILE.fps),
        "seconds": count / PROFILE.fps,
        "pixel_format": PROFILE.pixel_format,
        "video_codec": "h264",
        "has_audio": audio,
        "audio_codec": "aac" if audio else None,
        "sample_rate": PROFILE.sample_rate if audio else None,
        "channels": 2 if audio else None,
    }
    wrong = [
        f"{key} is {getattr(facts, key)}, not {value}"
        for key, value in expected.items()
        if getattr(facts, key) != value
    ]
    seconds = count / PROFILE.fps
    # The decoder hands out whole AAC frames; the container says where the last one ends.
    if facts.audio_seconds is not None and not 0 <= facts.audio_seconds - seconds < AAC_FRAME_S:
        wrong.append(f"its sound lasts {facts.audio_seconds} s, not {seconds} s")
    wrong += _file_problems(draft) + _packet_problems(draft, width, height, count)
    if wrong:
        raise EncodingError(
            f"The rendition {name} came out wrong ({'; '.join(wrong)}): report this as a defect."
        )
    motion = sum(changes) / len(changes) if changes else None
    if not audio:
        return facts, None, motion
    sound = _read_sound(draft, count * PROFILE.samples_per_frame)
    return facts, integrated_loudness(sound), motion


def _watched(rendition: Iterable[_Shown], changes: list[float]) -> Iterator[_Shown]:
    """Hand on a rendition's frames; add to `changes` how far each is from the one before.

    That is the mean absolute difference of luma over the canvas, bars and all, on the scale from
    black, 0, to white, 255: a grey picture that turns from 100 to 150 has changed by 50. The mean
    of the changes is the motion of the rendition, per frame of 1/24 s; the jump from the end of
    the loop to its start is not part of it.
    """
    before = None
    for shown in rendition:
        luma = _luma(shown.frame)
        if before is not None:
            # Bytes can't hold a negative difference; the larger minus the smaller has none.
            change = np.maximum(luma, before) - np.minimum(luma, before)
            changes.append(float(change.mean()) * 255 / LIMITED_SPAN)
        before = luma
        yield shown


def _luma(frame: VideoFrame) -> npt.NDArray[np.uint8]:
    """The first plane of 8-bit planar YUV, as it lies in the decoder's memory."""
    plane = frame.planes[0]
    rows = np.frombuffer(cast(memoryview, plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : frame.width]  # rows are padded


def _file_problems(path: Path) -> list[str]:
    """What could delay playback or tell the maker: box order, and names of tools."""
    content = path.read_bytes()
    problems = []
    boxes = [kind for kind, _ in top_level_boxes(content)]
    if boxes[:2] != ["ftyp", "moov"] or "mdat" not in boxes:
        problems.append(f"its boxes are {' '.join(boxes)}, not ftyp moov ... mdat")
    # Long enough that compressed bytes don't spell it by chance.
    name = re.search(rb"x264 - |Lav[cf]\d\d\.", content)
    if name:
        problems.append(f"it names its encoder, {name.group().decode()!r}")
    return problems


def _packet_problems(path: Path, width: int, height: int, count: int) -> list[str]:
    """Packets of another size than the profile's."""
    key, other = PROFILE.packet_sizes(width, height)
    problems = []
    with _reading(path) as media:
        pictures = [packet.size for packet in media.demux(video=0) if packet.size]
        if pictures != [other if n % PROFILE.gop else key for n in range(count)]:
            problems.append(f"its pictures have the sizes {sorted(set(pictures))}")
        if media.streams.audio:
            media.seek(0)
            sounds = {packet.size for packet in media.demux(audio=0) if packet.size}
            if sounds != {PROFILE.sound_packet}:
                problems.append(f"its packets of sound have the sizes {sorted(sounds)}")
    return problems


def top_level_boxes(content: bytes) -> list[tuple[str, int]]:
    """The type and size of each box of an MP4 file, or of the inside of a box, in order."""
    boxes, offset = [], 0
    while offset + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, offset)
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, offset + 8)
        if size < 8:
            break
        boxes.append((kind.decode("latin-1"), size))
        offset += size
    return boxes


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A name beside the target, so that publishing is a rename; gone whatever happens."""
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Say which file could not be written, and where to look."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise EncodingError(
            f"{target.name} can't be written ({error.strerror or error}): "
            f"check the space and the rights of {target.parent}."
        ) from error


def _publish(scratch: Path, target: Path) -> None:
    """Put a complete file under its name at once; its bytes reach the disk before its name does."""
    with _writing(target):
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(scratch, target)
