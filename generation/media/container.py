"""Writes files in which nothing but pixels and sound differs between clips, and checks them.

Every choice that an encoder could take by content is fixed: the pattern of frame types, the order
of boxes, the size of every packet. Files come under their names when they are whole.
"""

from __future__ import annotations

import os
import re
import struct
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from generation.media import profile
from generation.media.padding import pad_picture, pad_sound
from generation.media.picture import BT709, LIMITED_RANGE
from generation.media.profile import EncodingError, SiteFault
from generation.media.reading import opened

if TYPE_CHECKING:
    from generation.media.sound import Samples


def write_mp4(
    path: Path,
    pictures: Iterable[VideoFrame],
    samples: Samples | None,
    *,
    canvas: tuple[int, int],
    count: int,
    share: float,
) -> None:
    """Encode `count` pictures, and sound if there is some, and interleave the packets.

    The encoders aim at `share` of a packet's size. Raises DoesNotFit if one comes out larger.
    """
    key, other = profile.PROFILE.packet_sizes(*canvas)
    # The box of bit rates would state x264's buffer, and so which try it was.
    options = {"fflags": "+bitexact", "movflags": "+faststart", "write_btrt": "0"}
    with av.open(str(path), "w", format="mp4", container_options=options) as out:
        video = _add_pictures(out, canvas, _limits(round(key * share), round(other * share), count))
        sound = None if samples is None else _add_aac(out, share)
        out.start_encoding()
        sound_packets = _encode_sound(sound, samples) if sound and samples is not None else []
        for frame in chain(pictures, (None,)):
            for encoded in video.encode(frame):
                size = key if encoded.is_keyframe else other
                packet = _with_bytes(encoded, pad_picture(bytes(encoded), size))
                while sound_packets and _decode_time(sound_packets[0]) <= _decode_time(packet):
                    out.mux(sound_packets.pop(0))
                out.mux(packet)
        out.mux(sound_packets)


def _add_pictures(
    out: OutputContainer, canvas: tuple[int, int], limits: tuple[dict[str, str], str]
) -> VideoStream:
    """The video stream of every rendition, with what `_limits` says for this length."""
    wanted = profile.PROFILE
    buffer, zones = limits
    options = {
        "preset": wanted.preset,
        "crf": str(wanted.crf),
        "profile": wanted.h264_profile,
        "level": wanted.h264_level,
        **buffer,
    }
    # A fixed pattern of frame types: the file's tables then do not depend on content.
    # All but key frames have one size, so none may lean on another's bits as B-frames do.
    pattern = (
        f"keyint={wanted.gop}:min-keyint={wanted.gop}:scenecut=0:open-gop=0:bframes=0:vbv-init=1"
    )
    rate = Fraction(wanted.fps)
    return add_h264(out, rate, canvas, wanted.pixel_format, options, f"{pattern}:{zones}")


def _add_aac(out: OutputContainer, share: float) -> AudioStream:
    stream = out.add_stream("aac", rate=profile.PROFILE.sample_rate, layout="stereo")
    stream.codec_context.bit_rate = round(profile.PROFILE.audio_bitrate * share)
    stream.codec_context.profile = "LC"
    stream.codec_context.flags |= Flags.bitexact
    return stream


def _limits(key: int, other: int, count: int) -> tuple[dict[str, str], str]:
    """What holds each frame below its size in bytes: x264's buffer model, zone by zone.

    The buffer holds one frame and is full before each, so no frame takes more than it holds. It is
    filled after a frame at the rate of that frame's zone, and a zone's smaller buffer cuts what it
    holds; so a key frame's bits arrive in a zone of the one frame before it.
    """
    key, other = key * 8 // 1000, other * 8 // 1000  # x264 counts in kilobits
    fps, gop = profile.PROFILE.fps, profile.PROFILE.gop
    zones = []
    for first in range(0, count, gop):
        last = first + gop - 1
        for begin, end, size, fill in (
            (first, first, key, other),
            (first + 1, last - 1, other, other),
            (last, last, key, key),
        ):
            zones.append(f"{begin},{end},vbv-bufsize={size},vbv-maxrate={fill * fps}")
    limits = {"bufsize": str(key * 1000), "maxrate": str(other * fps * 1000)}
    return limits, f"zones={'/'.join(zones)}"


def _encode_sound(stream: AudioStream, samples: Samples) -> list[Packet[Any]]:
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples.T), format="fltp", layout="stereo"
    )
    frame.sample_rate, frame.pts = profile.PROFILE.sample_rate, 0
    frame.time_base = Fraction(1, profile.PROFILE.sample_rate)
    packets = [*stream.encode(frame), *stream.encode(None)]
    return [_with_bytes(p, pad_sound(bytes(p), profile.PROFILE.sound_packet)) for p in packets]


def _with_bytes(packet: Packet[Any], content: bytes) -> Packet[Any]:
    """The packet with other contents: a packet's own can't change their length."""
    new = Packet(content)
    new.stream, new.time_base = packet.stream, packet.time_base
    new.pts, new.dts, new.duration = packet.pts, packet.dts, packet.duration
    new.is_keyframe = packet.is_keyframe
    return new


def _decode_time(packet: Packet[Any]) -> Fraction:
    if packet.dts is None:
        raise EncodingError("The encoder made a packet without a time: report this as a defect.")
    return packet.dts * packet.time_base


def add_h264(
    out: OutputContainer,
    rate: Fraction,
    size: tuple[int, int],
    pixel_format: str,
    options: dict[str, str],
    x264_params: str = "",
) -> VideoStream:
    """Add an x264 stream whose bytes depend on neither the run nor the number of cores."""
    stream = out.add_stream("libx264", rate=rate)
    (stream.width, stream.height), stream.pix_fmt = size, pixel_format
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


def file_problems(path: Path) -> list[str]:
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


def packet_problems(path: Path, canvas: tuple[int, int], count: int) -> list[str]:
    """Packets of another size than the profile's."""
    key, other = profile.PROFILE.packet_sizes(*canvas)
    problems = []
    with opened(path) as media:
        pictures = [packet.size for packet in media.demux(video=0) if packet.size]
        if pictures != [other if n % profile.PROFILE.gop else key for n in range(count)]:
            problems.append(f"its pictures have the sizes {sorted(set(pictures))}")
        if media.streams.audio:
            media.seek(0)
            sounds = {packet.size for packet in media.demux(audio=0) if packet.size}
            if sounds != {profile.PROFILE.sound_packet}:
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
def draft_beside(target: Path) -> Iterator[Path]:
    """A name beside the target, so that publishing is a rename; gone whatever happens."""
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Say which file could not be written, and where to look."""
    try:
        yield
    except MemoryError:
        raise
    except (av.FFmpegError, OSError) as error:
        kind = SiteFault if isinstance(error, OSError) else EncodingError
        raise kind(
            f"{target.name} can't be written ({error.strerror or error}): "
            f"check the space and the rights of {target.parent}."
        ) from error


def put_in_place(draft: Path, target: Path) -> None:
    """Put a complete file under its name at once; its bytes reach the disk before its name does."""
    with writing(target):
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, target)
