"""Files made to break who reads them, and what reading them takes.

    python -m tests.generation.media.hostile        a table: what came out of each, memory, seconds

Each is small and quickly made; most are good files of a few boxes or packets that were turned into
lies. `HOSTILE` names them all.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.packet import Packet

from generation.media.intake import MEMORY_AT_MOST

ROOT = Path(__file__).resolve().parents[3]
RATE = 48_000


def pictures(
    codec: str, size: tuple[int, int], count: int, pixels: str = "yuv420p", **options: str
) -> tuple[Any, list[Packet[Any]]]:
    """A stream's settings and so many encoded pictures of one grey that slowly turns."""
    form = "mov" if codec == "png" else "matroska"
    with av.open(io.BytesIO(), "w", format=form) as out:
        stream = out.add_stream(codec, rate=24, options=options)
        (stream.width, stream.height), stream.pix_fmt = size, pixels
        packets: list[Packet[Any]] = []
        for number in range(count):
            plane = np.full((size[1] * 3 // 2, size[0]), 60 + number % 100, np.uint8)
            frame = av.VideoFrame.from_ndarray(plane, format="yuv420p").reformat(format=pixels)
            frame.pts, frame.time_base = number, Fraction(1, 24)
            packets += stream.encode(frame)
        packets += stream.encode(None)
    return stream, packets


def silence(codec: str, count: int, rate: int = RATE, layout: str = "stereo") -> list[bytes]:
    """So many encoded pieces of silence."""
    with av.open(io.BytesIO(), "w", format="matroska") as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        context = stream.codec_context
        context.open()
        channels, size = context.layout.nb_channels, context.frame_size or 1024
        kind = context.format.name
        zeros = np.zeros((channels, size) if kind.endswith("p") else (1, size * channels))
        kinds = {"fltp": np.float32, "flt": np.float32, "s16": np.int16, "s32p": np.int32}
        packets: list[Packet[Any]] = []
        for number in range(count + 4):
            frame = av.AudioFrame.from_ndarray(zeros.astype(kinds[kind]), kind, layout)
            frame.sample_rate, frame.pts = rate, number * size
            frame.time_base = Fraction(1, rate)
            packets += stream.encode(frame)
    return [bytes(packet) for packet in packets[2 : 2 + count]]


def muxed(
    form: str = "mp4",
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (64, 36),
    count: int = 48,
    times: Callable[[int], int] = lambda number: number,
    clock: Fraction = Fraction(1, 24),
    repeat: int = 1,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    sound: tuple[str, list[bytes], int, int] | None = None,
    sound_rate: int = RATE,
    layout: str = "stereo",
    attach: bytes = b"",
    extra: list[bytes] | None = None,
) -> bytes:
    """A file of such packets. `sound` is a codec, its packets, how often they are repeated, and the
    samples of each; `extra` are packets of pictures that follow the others."""
    target = io.BytesIO()
    with av.open(target, "w", format=form, container_options=container or {}) as out:
        out.metadata.update(metadata or {})
        video = out.add_stream(codec, rate=24, options=options or {})
        (video.width, video.height), video.pix_fmt = size, pixels
        video.codec_context.time_base = video.time_base = clock
        if sound:
            heard = out.add_stream(sound[0], rate=sound_rate, layout=layout)
        if attach:
            out.add_attachment("a.html", "text/html", attach)
        _, packets = pictures(codec, size, count, pixels, **(options or {}))
        contents = [bytes(packet) for packet in packets] * repeat + (extra or [])
        keys = [packet.is_keyframe for packet in packets] * repeat + [True] * len(extra or [])
        out.start_encoding()
        for number, (content, key) in enumerate(zip(contents, keys, strict=True)):
            out.mux(_packet(content, video, times(number), 1, clock, key))
        if sound:
            _, pieces, again, samples = sound
            for number in range(again * len(pieces)):
                content = pieces[number % len(pieces)]
                out.mux(_packet(content, heard, number * samples, samples, Fraction(1, RATE)))
    return target.getvalue()


def _packet(
    content: bytes, stream: Any, time: int, length: int, clock: Fraction, key: bool = True
) -> Packet[Any]:
    packet = Packet(content)
    packet.stream, packet.time_base = stream, clock
    packet.pts = packet.dts = time
    packet.duration, packet.is_keyframe = length, key
    return packet


# --- boxes ---------------------------------------------------------------------------------------

INSIDE = {"moov", "trak", "mdia", "minf", "stbl", "edts", "udta"}


def box(kind: str, inside: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(inside), kind.encode("latin-1")) + inside


def boxes(content: bytes) -> Iterator[tuple[str, bytes]]:
    offset = 0
    while offset + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, offset)
        yield kind.decode("latin-1"), content[offset + 8 : offset + size]
        offset += size


def changed(content: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """The file with each box as `change` wants it: its new inside, or None to look into it."""
    result = b""
    for kind, inside in boxes(content):
        new = change(kind, inside)
        if new is None:
            new = changed(inside, change) if kind in INSIDE else inside
        result += box(kind, new)
    return result


def in_box(wanted: str, offset: int, layout: str, *values: int) -> Callable[[str, bytes], Any]:
    """A change that writes numbers into each box of a kind."""

    def change(kind: str, inside: bytes) -> bytes | None:
        if kind != wanted:
            return None
        data = bytearray(inside)
        struct.pack_into(layout, data, offset, *values)
        return bytes(data)

    return change


def with_durations(content: bytes, seconds: int) -> bytes:
    """Says everywhere that it lasts so long, in each box's own clock."""

    def change(kind: str, inside: bytes) -> bytes | None:
        data = bytearray(inside)
        if kind in ("mvhd", "mdhd"):
            (clock,) = struct.unpack_from(">I", data, 12)
            struct.pack_into(">I", data, 16, seconds * clock)
        elif kind == "tkhd":
            struct.pack_into(">I", data, 20, seconds * 1000)
        elif kind == "edts":
            return b""
        else:
            return None
        return bytes(data)

    return changed(content, change)


def edit_list(content: bytes, entries: int) -> bytes:
    """Each track is to be played again and again from its start."""
    entry = struct.pack(">IiHH", 2000, 0, 1, 0)

    def change(kind: str, inside: bytes) -> bytes | None:
        if kind != "trak":
            return None
        rest = b"".join(box(k, i) for k, i in boxes(inside) if k != "edts")
        loop = box("elst", struct.pack(">II", 0, entries) + entry * entries)
        return rest + box("edts", loop)

    return changed(content, change)


def many_tracks(content: bytes, count: int) -> bytes:
    def change(kind: str, inside: bytes) -> bytes | None:
        if kind != "moov":
            return None
        parts = [box(k, i) for k, i in boxes(inside)]
        track = next(part for part in parts if part[4:8] == b"trak")
        return b"".join(parts) + track * count

    return changed(content, change)


def nested(kind: str, depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = box(kind, content)
    return content


def endless_samples(content: bytes) -> bytes:
    """A few hundred bytes that claim to be two billion samples of one byte."""
    content = changed(content, in_box("stsz", 4, ">II", 1, 0x7FFFFFFF))
    content = changed(content, in_box("stsc", 12, ">I", 0x7FFFFFFF))
    return changed(content, in_box("stts", 8, ">II", 0x7FFFFFFF, 1))


def packed_header(content: bytes, size: int) -> bytes:
    """A header of `size` zeros that is stored compressed."""
    packed = zlib.compress(bytes(size), 9)
    inside = box("dcom", b"zlib") + box("cmvd", struct.pack(">I", size) + packed)
    kept = b"".join(box(kind, i) for kind, i in boxes(content) if kind != "moov")
    return kept + box("moov", box("cmov", inside))


def jpeg_of(content: bytes, width: int, height: int, headers: bool) -> bytes:
    """Motion JPEG whose pictures say that they are larger; `headers` says it in the track, too."""
    for start in (b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x08"):
        content = content.replace(
            start + struct.pack(">HH", 36, 64), start + struct.pack(">HH", height, width)
        )
    if headers:
        content = changed(content, in_box("stsd", 8 + 32, ">HH", width, height))
    return content


# --- the files -----------------------------------------------------------------------------------


def _good() -> bytes:
    pieces = silence("aac", 8)
    return muxed(sound=("aac", pieces, 12, 1024))


def _hours_of_sound(hours: int) -> bytes:
    pieces = silence("aac", 8)
    return with_durations(muxed(sound=("aac", pieces, hours * 21_000, 1024)), 2)


def _large_later() -> bytes:
    _, large = pictures("libvpx-vp9", (4400, 2476), 1)
    return muxed("webm", codec="libvpx-vp9", extra=[bytes(packet) for packet in large])


def _sound_changes(rate: int, layout: str) -> bytes:
    pieces = silence("libmp3lame", 20) + silence("libmp3lame", 60, rate, layout)
    return muxed("matroska", sound=("libmp3lame", pieces, 1, 1152))


def other_codec(name: bytes) -> bytes:
    return muxed("matroska").replace(b"V_MPEG4/ISO/AVC", name.ljust(15, b"\0"))


def _numbers_that_are_none() -> bytes:
    samples = np.zeros((1024, 2), "<f4")
    samples[100] = np.nan
    return muxed("matroska", sound=("pcm_f32le", [samples.tobytes()], 94, 1024))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "an-hour-of-sound.mp4": lambda: _hours_of_sound(1),  # finding: took 4.2 GB
    "hours-of-frames.mp4": lambda: with_durations(muxed(repeat=6_000), 60),
    "tiny-frames.mkv": lambda: muxed(
        "matroska", size=(32, 18), repeat=1_000, clock=Fraction(1, 1000)
    ),
    "600-of-4096.mp4": lambda: muxed(
        size=(4096, 4096), count=25, repeat=24, options={"preset": "ultrafast"}
    ),  # finding: 13 s of CPU for 61 KB
    "600-of-4k.mp4": lambda: muxed(
        size=(4096, 2304), count=25, repeat=24, options={"preset": "ultrafast"}
    ),
    "largest-taken.mp4": lambda: muxed(
        size=(4096, 2304), count=24, options={"preset": "ultrafast"}
    ),
    "largest-whole-chroma.mkv": lambda: muxed(
        "matroska", codec="ffv1", size=(4096, 2304), count=2, repeat=12,
        pixels="yuv444p16le", options={"g": "1"},
    ),
    "png-frames.mov": lambda: muxed("mov", codec="png", pixels="rgb24", count=24),  # took 6 GB
    "30000-says-the-track.mov": lambda: jpeg_of(
        muxed("mov", codec="mjpeg", pixels="yuvj420p"), 30_000, 30_000, headers=True
    ),
    "30000-says-the-picture.mov": lambda: jpeg_of(
        muxed("mov", codec="mjpeg", pixels="yuvj420p"), 30_000, 30_000, headers=False
    ),
    "larger-in-the-middle.webm": _large_later,
    "smaller-in-the-middle.webm": lambda: muxed(
        "webm",
        codec="libvpx-vp9",
        size=(640, 360),
        extra=[bytes(packet) for packet in pictures("libvpx-vp9", (64, 36), 1)[1]],
    ),
    "rate-changes.mkv": lambda: _sound_changes(32_000, "stereo"),
    "channels-change.mkv": lambda: _sound_changes(RATE, "mono"),
    "one-sample-pieces.mkv": lambda: muxed(
        "matroska", sound=("pcm_s16le", [b"\1\0\1\0"], 150_000, 1)
    ),
    "60-channels.mkv": lambda: muxed(
        "matroska", sound=("pcm_s16le", [bytes(2 * 24 * 1024)], 94, 1024), layout="22.2"
    ),
    "no-numbers.mkv": _numbers_that_are_none,
    "nested-boxes.mp4": lambda: _good() + nested("moov", 20_000),
    "nested-first.mp4": lambda: box("ftyp", b"isom\0\0\2\0isom") + nested("moov", 20_000),
    "packed-header.mov": lambda: packed_header(_good(), 300 << 20),
    "endless-edits.mp4": lambda: edit_list(_good(), 200_000),
    "endless-samples.mp4": lambda: endless_samples(_good()),
    "thousands-of-tracks.mp4": lambda: many_tracks(_good(), 3_000),
    "theora.mkv": lambda: other_codec(b"V_THEORA"),
    "text.mkv": lambda: other_codec(b"S_TEXT/UTF8"),
    "attachment.mkv": lambda: muxed("matroska", attach=b"<script>" * 500_000),
    "huge-tags.mp4": lambda: muxed(metadata={"title": "x" * 20_000_000}),
    "huge-tags.mkv": lambda: muxed("matroska", metadata={"title": "x" * 20_000_000}),
    "tags-not-utf8.mp4": lambda: muxed(metadata={"title": "AAAAAAAA"}).replace(
        b"AAAAAAAA", b"\xff\xfe\xc3\x28\xa0\xa1\xf5\x80"
    ),
    "late-times.mkv": lambda: muxed(
        "matroska", times=lambda n: n if n < 40 else n + (1 << 31), clock=Fraction(1, 1000)
    ),
    "late-times.mp4": lambda: changed(_good(), in_box("stts", 12, ">I", 100_000_000)),
    "negative-times.mp4": lambda: muxed(times=lambda n: n - 100, container={"use_editlist": "0"}),
    "truncated.mp4": lambda: _good()[: len(_good()) * 6 // 10],
    "truncated.mkv": lambda: muxed("matroska", count=100)[:1500],
    "wrong-magic.mp4": lambda: b"\x7fELF" + _good()[4:],
    "empty.mp4": lambda: b"",
    "one-box.mp4": lambda: box("ftyp", b"isom\0\0\2\0isom"),
    "noise.mp4": lambda: np.random.default_rng(1).bytes(1_000_000),
    "playlist.mp4": lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/hostname\n",
    "concat.mp4": lambda: b"ffconcat version 1.0\nfile /etc/hostname\n",
}  # fmt: skip


# Those that are read for a category with sound; of others the sound is not looked at.
HEARD = {
    "an-hour-of-sound.mp4", "rate-changes.mkv", "channels-change.mkv", "one-sample-pieces.mkv",
    "60-channels.mkv", "no-numbers.mkv", "endless-edits.mp4", "endless-samples.mp4",
    "thousands-of-tracks.mp4", "truncated.mp4",
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What taking a file in came to."""

    outcome: str  # "taken in", or the sentence of the refusal
    peak: int  # bytes of memory that the child held at most
    seconds: float


PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from generation.media.intake import Wanted, take_in
from generation.media.profile import EncodingError
source, audio = Path(sys.argv[1]), sys.argv[2] == "audio"
wanted = Wanted("16:9", 1.0, "t2v-audio", audio, (8, 60), "rival-1", 16, 9)
begin = time.perf_counter()
try:
    take_in(source, source.with_suffix(".master.mkv"), wanted)
    outcome = "taken in"
except EncodingError as error:
    outcome = f"{type(error).__name__}: {error}"
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps([outcome, peak, time.perf_counter() - begin]))
"""


def measure(name: str, folder: Path) -> Measured:
    """Make the file and take it in, by a process whose only child is the one that reads it."""
    file = folder / name
    file.write_bytes(HOSTILE[name]())
    heard = "audio" if name in HEARD else "silent"
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file), heard],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return Measured(*json.loads(said.stdout))


SECONDS_AT_MOST = 60


def main() -> None:
    """A table of all of them; ends with 1 if reading one took more memory or time than it may."""
    beyond = []
    print("| file | bytes | what came out | peak memory, MB | seconds |")
    print("| --- | ---: | --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for name in HOSTILE:
            found = measure(name, Path(folder))
            size = (Path(folder) / name).stat().st_size
            outcome = "harmless" if found.outcome == "taken in" else found.outcome
            print(
                f"| {name} | {size:,} | {outcome.removeprefix('EncodingError: ')} | "
                f"{found.peak / 1e6:,.0f} | {found.seconds:.1f} |",
                flush=True,
            )
            if found.peak > MEMORY_AT_MOST or found.seconds > SECONDS_AT_MOST:
                beyond.append(name)
    if beyond:
        sys.exit(f"More than {MEMORY_AT_MOST:,} bytes or {SECONDS_AT_MOST} s: {', '.join(beyond)}.")


if __name__ == "__main__":
    main()
