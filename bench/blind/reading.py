"""Fourth step: what can be read from all that was received."""

import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from bench.blind.fetching import Received
from bench.blind.versions import Facts
from generation.media.container import top_level_boxes

FACT_GROUPS = ("headers", "container", "codec", "sizes", "timings", "coded", "pixels")
BOX_HEADS = {
    "moov": 0, "trak": 0, "mdia": 0, "minf": 0, "stbl": 0, "dinf": 0, "edts": 0, "udta": 0,
    "meta": 4, "stsd": 8, "avc1": 78, "mp4a": 28,
}  # fmt: skip
# Boxes that hold nothing but sizes, or places that follow from sizes.
SIZE_BOXES = ("stsz", "stco", "co64", "btrt", "mdat")


def read_clip(received: Received) -> dict[str, Facts]:
    groups: dict[str, Facts] = {name: {} for name in FACT_GROUPS}
    groups["timings"] = received.times
    for what, (status, headers) in received.answers.items():
        groups["headers"][f"{what}: status|"] = str(status)
        groups["headers"][f"{what}: order|"] = " ".join(name for name, _ in headers)
        for name, value in headers:
            if name not in ("Content-Length", "Content-Range"):  # the lengths stand under sizes
                groups["headers"][f"{what}: {name}|"] = value
    _read_boxes(received.video, "", groups)
    _read_jpeg(received.poster, groups["container"])
    _read_streams(received.video, groups)
    _read_pixels(received.video, groups["pixels"])
    groups["sizes"]["byte length|"] = math.log(len(received.video))
    groups["sizes"]["poster's byte length|"] = math.log(len(received.poster))
    groups["coded"]["poster|"] = math.log(len(received.poster.rstrip(b"\0")))
    return groups


def _read_boxes(content: bytes, path: str, groups: dict[str, Facts]) -> None:
    """Every box: where it stands, how long it is, what it says."""
    offset, seen = 0, Counter[str]()
    boxes = top_level_boxes(content)
    groups["container"][f"boxes in {path or 'the file'}|"] = " ".join(kind for kind, _ in boxes)
    for kind, size in boxes:
        place = f"{path}/{kind}{seen[kind] or ''}"
        seen[kind] += 1
        inside = content[offset + 8 : offset + size]
        offset += size
        if kind in SIZE_BOXES:
            if kind != "mdat":  # as long as the packets, which are counted one by one
                groups["container"][f"length of {place}|"] = float(size)
            if kind == "btrt":
                for number, value in enumerate(np.frombuffer(inside, ">u4")):
                    groups["sizes"][f"stated bit rates|{place} {number}"] = float(value)
        elif kind in BOX_HEADS:
            groups["container"][f"head of {place}|"] = inside[: BOX_HEADS[kind]].hex()
            _read_boxes(inside[BOX_HEADS[kind] :], place, groups)
        elif kind == "esds":
            # Tag 4: 4 bytes of length, kind, stream, 3 of buffer size, 4 + 4 of bit rates.
            at = inside.index(b"\x04\x80\x80\x80") + 7
            for number, value in enumerate(np.frombuffer(inside[at + 3 : at + 11], ">u4")):
                groups["sizes"][f"stated bit rates|{place} {number}"] = float(value)
            groups["container"][f"{place}|"] = (inside[:at] + inside[at + 11 :]).hex()
        else:
            groups["container"][f"{place}|"] = inside.hex()


def _read_jpeg(content: bytes, into: Facts) -> None:
    """The poster's segments up to its picture: tables, comments, all that stands before."""
    at = 2
    while content[at] == 0xFF:
        marker, size = content[at + 1], int.from_bytes(content[at + 2 : at + 4])
        into[f"poster segment {marker:x}|{at}"] = content[at + 4 : at + 2 + size].hex()
        at += 2 + size
        if marker == 0xDA:
            break


def _slice_type(unit: bytes) -> str:
    """The second Exp-Golomb number of a slice's header (ITU-T H.264, 7.3.3)."""
    bits = bin(int.from_bytes(b"\x01" + unit[1:9]))[3:]
    values = []
    for _ in range(2):
        zeros = bits.index("1")
        values.append(int(bits[zeros : 2 * zeros + 1], 2) - 1)
        bits = bits[2 * zeros + 1 :]
    return str(values[1])


def _units(packet: bytes) -> Iterator[bytes]:
    at = 0
    while at + 4 < len(packet):
        size = int.from_bytes(packet[at : at + 4])
        yield packet[at + 4 : at + 4 + size]
        at += 4 + size


def _read_streams(content: bytes, groups: dict[str, Facts]) -> None:
    """What each stream says of itself, its packets, and how much of each packet is code."""
    with cast(InputContainer, av.open(io.BytesIO(content))) as media:
        groups["codec"]["metadata|"] = str(dict(media.metadata))
        for stream in media.streams:
            packets = [packet for packet in media.demux(stream) if packet.size]
            media.seek(0)
            contents = [bytes(packet) for packet in packets]
            groups["codec"] |= _codec_facts(stream, packets)
            groups["sizes"] |= _size_facts(stream.type, contents)
            if stream.type == "video":
                units = [list(_units(packet)) for packet in contents]
                groups["codec"] |= _unit_facts(units)
                # The last unit of each packet fills it up.
                lengths = [sum(map(len, units_of_one[:-1])) for units_of_one in units]
            else:
                lengths = [_sound_bytes(packet) for packet in contents]
            groups["coded"] |= _length_facts(stream.type, lengths)


def _codec_facts(stream: Stream, packets: Sequence[Packet]) -> Facts:
    kind, context = stream.type, stream.codec_context
    return {
        f"{kind}: parameter sets|": (context.extradata or b"").hex(),
        f"{kind}: profile|": str(context.profile),
        f"{kind}: times|": " ".join(f"{p.pts} {p.dts} {p.duration}" for p in packets),
        f"{kind}: clock|": f"{stream.time_base} {stream.start_time} {stream.duration}",
        f"{kind}: flags|": "".join("dk"[packet.is_keyframe] for packet in packets),
        f"{kind}: metadata|": str(dict(stream.metadata)),
    }


def _size_facts(kind: str, packets: Sequence[bytes]) -> Facts:
    return {
        f"{kind}: packet sizes|{number}": math.log(len(packet))
        for number, packet in enumerate(packets)
    }


def _unit_facts(units_of_packets: Sequence[Sequence[bytes]]) -> Facts:
    """The kinds of units in the packets of H.264, and of the slices among them."""
    units = [unit for units in units_of_packets for unit in units]
    kinds = [unit[0] & 31 for unit in units]
    slices = [unit for unit, kind in zip(units, kinds, strict=True) if kind in (1, 5)]
    return {
        "video: units|": " ".join(map(str, kinds)),
        "video: slice types|": "".join(map(_slice_type, slices)),
    }


def _length_facts(kind: str, lengths: Sequence[int]) -> Facts:
    """How long the code in each packet is, alone and as a share of the stream's."""
    whole = sum(lengths)
    facts: Facts = {f"{kind}: sum|": math.log(whole)}
    for number, length in enumerate(lengths):
        facts[f"{kind}: lengths|{number}"] = math.log(length)
        facts[f"{kind}: shares|{number}"] = math.log(length / whole)
    for number, length in enumerate(sorted(lengths)):
        facts[f"{kind}: shares, sorted|{number}"] = math.log(length / whole)
    return facts


def _sound_bytes(block: bytes) -> int:
    """About how long a block of AAC is before its filling, which is nearly all zeros."""
    filling = re.search(rb"\0{16}", block)
    return filling.start() if filling else len(block)


def _read_pixels(content: bytes, into: Facts) -> None:
    with cast(InputContainer, av.open(io.BytesIO(content))) as media:
        frames = [frame.to_ndarray(format="yuv420p") for frame in media.decode(video=0)]
    height = frames[0].shape[0] * 2 // 3
    luma = np.stack([frame[:height] for frame in frames]).astype(np.float32)
    chroma = np.stack([frame[height:].reshape(2, -1) for frame in frames])
    for number, value in enumerate((luma.mean(), *chroma.mean(axis=(0, 2)))):
        into[f"mean colour|{number}"] = float(value)
    still = luma[::6]
    laplace = 4 * still[:, 1:-1, 1:-1] - still[:, :-2, 1:-1] - still[:, 2:, 1:-1]
    laplace -= still[:, 1:-1, :-2] + still[:, 1:-1, 2:]
    into["sharpness|"] = math.log1p(float(np.abs(laplace).mean()))
    # What is left of a 2x2 block when its mean and its slopes are taken away.
    fine = still[:, :-1, :-1] - still[:, 1:, :-1] - still[:, :-1, 1:] + still[:, 1:, 1:]
    into["noise|median"] = math.log1p(float(np.median(np.abs(fine))))
    into["noise|mean"] = math.log1p(float(np.abs(fine).mean()))
    for number, change in enumerate(np.abs(np.diff(luma, axis=0)).mean(axis=(1, 2))):
        into[f"motion|{number}"] = math.log1p(float(change))
    with cast(InputContainer, av.open(io.BytesIO(content))) as media:
        if media.streams.audio:
            heard = np.concatenate([f.to_ndarray()[0] for f in media.decode(audio=0)])
            power = np.abs(np.fft.rfft(heard.astype(np.float64))) ** 2
            bands = np.add.reduceat(power, np.arange(0, power.size, power.size // 24 + 1))
            for number, value in enumerate(bands):
                into[f"decoded sound|{number}"] = math.log(value + 1e-9)
