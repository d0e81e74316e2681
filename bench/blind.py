"""Is what a voter's machine receives blind: `make bench-blind`.

Eight made-up versions with native formats of their own make clips of the same prompts. Every clip
is imported as an operator would import it, encoded by the one encoder, and fetched as a voter's
browser fetches it. Then classifiers try to name the version from all that was received short of
the coded pictures and sound. A blind arena leaves them at chance, 1 in as many as there are
versions. What they make of the pixels and the sound is printed beside it and is not judged: those
are what voters compare. So is what they make of how long a picture's code is before its packet is
filled up: whoever takes packets apart reads there how busy a picture is, as in the picture itself.

Canvases and native sizes are a quarter of the real ones, so that it ends within the hour; packets
are as much smaller, and the rest of the profile is the real one. `--scale 1` takes the real ones.
Whether anything but coded pictures and sound differs at the real size and length is looked at
apart, on a few dozen clips. Times are of this process: no network, no server.

`--write` puts the tables into docs/methodology.md. PASS needs the whole 95 % interval of the
accuracy at or below chance + 5 points; OVER is an accuracy above that; UNSURE lies between and asks
for more clips.
"""

import argparse
import csv
import hashlib
import io
import math
import multiprocessing
import os
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, cast

# One thread per process: two of them already fill two cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SVT_LOG", "1")  # errors only

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream
from scipy.optimize import minimize
from scipy.special import logsumexp

from bench.servers import own_servers
from generation import encoding
from generation.encoding import RawClip, probe, top_level_boxes, write_master

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Facts = dict[str, float | str]  # "family|detail" -> a number, or a string that is only compared

SEED = 20_261_122
ALLOWED = 0.05  # above chance, without pixels
FOLDS = 5
MANY = 20  # values of a string that get a column of their own
ASPECTS = ("16:9", "1:1", "9:16")
SILENT, AUDIO = "t2v-silent", "t2v-audio"


@dataclass(frozen=True)
class Plan:
    """How much is made."""

    clips: int  # prompts; every version makes a clip of each
    audio_every: int  # every so many prompts are asked for with sound too
    scale: int  # canvases and native sizes are divided by it
    seconds: float  # of every rendition


# --- the versions --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """How a made-up version makes its files, and how its pictures and its sound look and measure.

    Sizes are those of its wide pictures at the real scale; `longer` is how long its files are, of
    what is asked; `noise` the deviation of its grain, of 255; `loud` the peak of its sound and
    `rate` its rate. One that is `unmuted` leaves its sound in the files of the silent category.
    """

    slug: str
    width: int
    height: int
    fps: int
    longer: float
    noise: float
    container: str = "raw"  # a RawClip, which write_master stores
    video: str = ""
    pixels: str = "yuv420p"
    sound: str = ""
    rate: int = 48_000
    channels: int = 2
    loud: float = 0.3
    unmuted: bool = False


VERSIONS = (
    Made("small-raw", 448, 256, 24, 1.0, 0.0, rate=16_000, channels=1, loud=0.1),
    Made("slow-raw", 832, 480, 16, 1.07, 1.0, rate=24_000, channels=1, loud=0.6),
    Made("usual-mp4", 1280, 720, 24, 1.2, 2.0, "mp4", "libx264", sound="aac", rate=44_100),
    Made(
        "large-hevc", 1920, 1080, 30, 1.0, 0.5, "mp4", "libx265", "yuv420p10le",
        "aac", 48_000, loud=0.9, unmuted=True,
    ),
    Made(
        "web-vp9", 1280, 704, 25, 1.1, 4.0, "webm", "libvpx-vp9",
        sound="libopus", rate=48_000, channels=1, loud=0.03, unmuted=True,
    ),
    Made(
        "studio-mov", 1920, 1080, 24, 1.0, 1.0, "mov", "prores_ks", "yuv422p10le",
        "pcm_s16le", 48_000, loud=0.2, unmuted=True,
    ),
    Made(
        "fast-av1", 960, 544, 60, 1.0, 2.0, "mp4", "libsvtav1",
        sound="aac", rate=44_100, channels=1, loud=0.15,
    ),
    Made(
        "old-mkv", 848, 480, 12, 1.5, 0.5, "matroska", "mpeg4",
        sound="flac", rate=32_000, loud=0.5,
    ),
)  # fmt: skip
REAL_KINDS = 6  # each aspect, silent and with sound
SUFFIXES = {"raw": ".mkv", "matroska": ".mkv", "mp4": ".mp4", "mov": ".mov", "webm": ".webm"}
# Masters are made on one thread each; otherwise near lossless, or as their tools do by default.
MASTER_OPTIONS = {
    "libx264": {"crf": "14", "preset": "veryfast", "threads": "1"},
    "libx265": {
        "crf": "16",
        "preset": "ultrafast",
        "x265-params": "pools=none:frame-threads=1:log-level=none",
    },
    "libvpx-vp9": {"crf": "18", "b": "0", "deadline": "realtime", "cpu-used": "8", "threads": "1"},
    "libsvtav1": {"crf": "22", "preset": "12", "svtav1-params": "lp=1"},
    "mpeg4": {"flags": "+qscale", "global_quality": "236", "threads": "1"},
    "prores_ks": {"profile": "2", "threads": "1"},
}
GRAIN = np.random.default_rng(SEED).normal(0, 1, 1 << 20).astype(np.float32)


def size_of(made: Made, aspect: str, scale: int) -> tuple[int, int]:
    long, short = made.width // scale, made.height // scale
    return {"16:9": (long, short), "1:1": (short, short), "9:16": (short, long)}[aspect]


def picture(
    made: Made, prompt: int, size: tuple[int, int], seconds: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """The prompt's scene as this version shows it: the prompt draws it, the version adds grain.

    `rng` belongs to the clip and moves things a little, as another seed of a model would.
    """
    scene = np.random.default_rng([SEED, prompt])
    (width, height), count = size, math.ceil(made.longer * seconds * made.fps)
    x, y = np.linspace(0, 1, width), np.linspace(0, 1, height)
    t = np.arange(count)[:, None] / made.fps
    light = np.zeros((count, height, width), np.float32)
    for _ in range(4):
        across, down, speed, phase = scene.uniform(2, 40), scene.uniform(2, 40), *scene.random(2)
        phase += rng.normal(0, 0.05)
        rows = np.sin(down * y + 6 * phase + 0 * t)
        columns = np.sin(across * x + 8 * (speed - 0.5) * t)
        light += 14 * (rows[:, :, None] * columns[:, None, :]).astype(np.float32)
    colours = scene.uniform(60, 190, (2, 3)).astype(np.float32)
    frames = light[..., None] + colours[0]
    for _ in range(2):
        start, speed = scene.random(2) + rng.normal(0, 0.02, 2), scene.uniform(-0.6, 0.6, 2)
        radius = scene.uniform(0.08, 0.2)
        at = start + speed * t
        inside = (x - at[:, :1])[:, None, :] ** 2 + (y - at[:, 1:])[:, :, None] ** 2 < radius**2
        frames[inside] += colours[1] - 120
    if made.noise:
        begin = rng.integers(GRAIN.size, size=count)
        for frame, first in zip(frames, begin, strict=True):
            grain = np.resize(np.roll(GRAIN, int(first)), frame.size)
            frame += made.noise * grain.reshape(frame.shape)
    return np.clip(frames, 0, 255).astype(np.uint8)


def sound_of(made: Made, prompt: int, seconds: float, rng: np.random.Generator) -> encoding.Samples:
    """The prompt's sound: three falling tones over a hiss, as loud as this version makes it."""
    scene = np.random.default_rng([SEED, prompt, 1])
    t = np.arange(math.ceil(made.longer * seconds * made.rate)) / made.rate
    wave = 0.02 * rng.normal(0, 1 + made.noise, t.size)
    for _ in range(3):
        begin, pitch, fall = (
            scene.uniform(0, 0.8) * seconds,
            scene.uniform(150, 3000),
            scene.uniform(2, 12),
        )
        since = np.maximum(t - begin - rng.normal(0, 0.01), 0)
        wave += (since > 0) * np.exp(-fall * since) * np.sin(2 * np.pi * pitch * since)
    wave = made.loud * wave / np.abs(wave).max()
    return np.repeat(wave[:, None], made.channels, axis=1).astype(np.float32)


def make_master(made: Made, prompt: int, plan: Plan, sound: bool, path: Path) -> None:
    number = [other.slug for other in VERSIONS].index(made.slug)
    rng = np.random.default_rng([SEED, prompt, number])
    size = size_of(made, ASPECTS[prompt % 3], plan.scale)
    frames = picture(made, prompt, size, plan.seconds, rng)
    heard = sound_of(made, prompt, plan.seconds, rng) if sound else None
    clip = RawClip(frames, made.fps, heard, made.rate if heard is not None else None)
    if made.container == "raw":
        write_master(clip, path)
    else:
        _write_elsewhere(made, clip, path)


def _write_elsewhere(made: Made, clip: RawClip, path: Path) -> None:
    """A file as another program leaves it, with its maker's name in it."""
    with av.open(str(path), "w", format=made.container) as out:
        out.metadata["title"] = out.metadata["comment"] = f"made by {made.slug}"
        video = cast(VideoStream, out.add_stream(made.video, rate=made.fps))
        video.options = {**MASTER_OPTIONS[made.video]}
        _, video.height, video.width, _ = clip.frames.shape
        video.pix_fmt = made.pixels
        layout = "mono" if made.channels == 1 else "stereo"
        if clip.audio is not None:
            sound = cast(AudioStream, out.add_stream(made.sound, rate=made.rate, layout=layout))
        for number, rgb in enumerate(clip.frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, made.fps)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if clip.audio is not None:
            words = np.rint(clip.audio * 32767).astype(np.int16).reshape(1, -1)
            heard = av.AudioFrame.from_ndarray(words, format="s16", layout=layout)
            heard.sample_rate, heard.pts, heard.time_base = made.rate, 0, Fraction(1, made.rate)
            out.mux(sound.encode(heard))
            out.mux(sound.encode(None))


# --- importing, in worker processes --------------------------------------------------------------


def set_up(plan: Plan) -> None:
    """Django, and the smaller canvases, in this process."""
    import django

    django.setup()
    real = encoding.Profile()
    small = {a: (w // plan.scale, h // plan.scale) for a, (w, h) in real.canvases.items()}
    encoding.PROFILE = replace(real, canvases=small)


def import_prompt(plan: Plan, prompt: int) -> dict[tuple[str, int], Facts]:
    """Make and import all versions' clips of one prompt; what their masters are, by version."""
    from generation.importing import What, import_rows, read_manifest

    facts: dict[tuple[str, int], Facts] = {}
    with tempfile.TemporaryDirectory(prefix="photofinish-blind-") as name:
        folder = Path(name)
        rows = [("file", "version", "prompt", "category")]
        for number, made in enumerate(VERSIONS):
            categories = [SILENT]
            if prompt % plan.audio_every == 0:
                categories.append(AUDIO)
            for category in categories:
                sound = category == AUDIO or made.unmuted
                file = f"{made.slug}-{sound}{SUFFIXES[made.container]}"
                if not (folder / file).exists():
                    make_master(made, prompt, plan, sound, folder / file)
                rows.append((file, made.slug, f"p{prompt}", category))
                facts[category, number] = master_facts(folder / file)
        with (folder / "manifest.csv").open("w", newline="") as manifest:
            csv.writer(manifest).writerows(rows)
        for outcome in import_rows(read_manifest(folder / "manifest.csv"), folder):
            if outcome.what != What.IMPORTED:
                raise SystemExit(f"A clip was not imported: {outcome.sentence}")
    return facts


def rewrapped_alike(plan: Plan, prompt: int) -> bool:
    """Whether the same pictures and sound in another container give the same rendition."""
    made = VERSIONS[-1]
    with tempfile.TemporaryDirectory(prefix="photofinish-blind-") as name:
        folder = Path(name)
        make_master(made, prompt, plan, True, folder / "a.mkv")
        make_master(replace(made, container="mp4"), prompt, plan, True, folder / "b.mp4")
        for file in ("a.mkv", "b.mp4"):
            encoding.encode_rendition(
                folder / file, folder / f"{file}.r.mp4", folder / f"{file}.jpg",
                aspect=ASPECTS[prompt % 3], seconds=plan.seconds, audio=True,
            )  # fmt: skip
        first, second = ((folder / f"{file}.r.mp4").read_bytes() for file in ("a.mkv", "b.mp4"))
    return first == second


@dataclass(frozen=True)
class RealClip:
    """A clip at the real size: what its rendition may depend on, and how it came out."""

    aspect: str
    seconds: float
    audio: bool
    length: int
    poster_length: int
    head: str  # SHA-256 of all that stands before the coded pictures and sound


def at_real_size(number: int) -> RealClip:
    """Make one clip at the real size and length; small files can't show what a muxer does then.

    Masters are half the native size: they are made faster, and fit into memory.
    """
    made, kind = VERSIONS[number % len(VERSIONS)], number // len(VERSIONS)
    aspect, seconds, audio = ASPECTS[kind % 3], (5.0, 5.0, 8.0)[kind % 3], kind >= 3
    set_up(Plan(clips=1, audio_every=1, scale=1, seconds=seconds))
    with tempfile.TemporaryDirectory(prefix="photofinish-blind-") as name:
        master, into = Path(name) / f"m{SUFFIXES[made.container]}", Path(name) / "r.mp4"
        # The prompt of this number has that aspect.
        make_master(made, kind, Plan(1, 1, 2, seconds), audio, master)
        encoding.encode_rendition(
            master, into, Path(name) / "r.jpg", aspect=aspect, seconds=seconds, audio=audio
        )
        content, poster = into.read_bytes(), (Path(name) / "r.jpg").read_bytes()
    before = sum(size for box, size in top_level_boxes(content) if box != "mdat")
    head = hashlib.sha256(content[: before + 8]).hexdigest()
    return RealClip(aspect, seconds, audio, len(content), len(poster), head)


def told_by_real_size(clips: Sequence[RealClip]) -> list[str]:
    """The kinds of clips of which not all are the same in all but what they show, in words."""
    kinds = defaultdict(set)
    for clip in clips:
        kinds[clip.aspect, clip.seconds, clip.audio].add(
            (clip.length, clip.poster_length, clip.head)
        )
    return [f"{kind} in {len(found)} forms" for kind, found in kinds.items() if len(found) > 1]


def master_facts(path: Path) -> Facts:
    """What nobody outside sees; the classifiers must know versions by it, or they know nothing."""
    seen = probe(path)
    return {
        "native size|": float(seen.width * seen.height),
        "native rate|": seen.fps,
        "native length|": seen.seconds,
        "native codec|": seen.video_codec,
        "native pixels|": seen.pixel_format,
    }


# --- fetching, as a browser does -----------------------------------------------------------------


@dataclass
class Received:
    """All that a voter's machine gets for one clip."""

    category: str
    version: int
    prompt: int
    # What was asked -> status and headers.
    answers: dict[str, tuple[int, list[tuple[str, str]]]] = field(default_factory=dict)
    video: bytes = b""
    poster: bytes = b""
    times: Facts = field(default_factory=dict)


def fetch_all(category: str, rng: np.random.Generator) -> list[Received]:
    """Draw battles by hand so that each clip stands in one, and fetch in random order."""
    from datetime import timedelta

    from django.test import Client
    from django.utils import timezone

    from arena.identity import COOKIE, cookie_value
    from arena.models import Battle, Voter
    from generation.models import Clip

    voter = Voter.objects.create()
    browser = Client()
    browser.cookies[COOKIE] = cookie_value(voter)
    numbers = {made.slug: number for number, made in enumerate(VERSIONS)}
    of_prompt: dict[int, list[Clip]] = defaultdict(list)
    for clip in Clip.objects.filter(category=category).select_related("version", "prompt"):
        of_prompt[clip.prompt_id].append(clip)
    wanted: list[tuple[Clip, str]] = []
    for clips in of_prompt.values():
        order = [clips[i] for i in rng.permutation(len(clips))]
        for left, right in zip(order[::2], order[1::2], strict=True):
            battle = Battle.objects.create(
                voter=voter, stream="mixed", category=category, prompt_id=left.prompt_id,
                left=left, right=right, draw_probability=0.01,
                expires_at=timezone.now() + timedelta(hours=1),
            )  # fmt: skip
            wanted += [(left, f"/battles/{battle.pk}/left"), (right, f"/battles/{battle.pk}/right")]
    browser.get(wanted[0][1] + ".mp4")  # the first answer of a process waits for imports
    got = []
    for clip, address in (wanted[i] for i in rng.permutation(len(wanted))):
        version, prompt = numbers[clip.version.slug], int(clip.prompt.key[1:])
        got.append(fetch(browser, address, Received(category, version, prompt)))
    return got


def fetch(browser: Any, address: str, into: Received) -> Received:
    """The poster, the whole file, a part of it, its headers alone, and the whole file again."""
    asked: tuple[tuple[str, str, str, dict[str, str]], ...] = (
        ("poster", "get", ".jpg", {}),
        ("whole", "get", ".mp4", {}),
        ("part", "get", ".mp4", {"range": "bytes=0-1023"}),
        ("head", "head", ".mp4", {}),
        ("again", "get", ".mp4", {}),
    )
    for what, method, suffix, headers in asked:
        begin = time.perf_counter()
        answer = getattr(browser, method)(address + suffix, headers=headers)
        first = time.perf_counter()
        body = b"".join(answer)
        end = time.perf_counter()
        if answer.status_code not in (200, 206):
            raise SystemExit(f"{address}{suffix} answered {answer.status_code}.")
        cookies = [("Set-Cookie", morsel.OutputString()) for morsel in answer.cookies.values()]
        into.answers[what] = (answer.status_code, [*answer.headers.items(), *cookies])
        into.times[f"{what}, first byte|"] = math.log(first - begin)
        into.times[f"{what}, rest|"] = math.log(end - first)
        if what == "poster":
            into.poster = body
        elif what == "whole":
            into.video = body
    return into


# --- what can be read from it --------------------------------------------------------------------

GROUPS = ("headers", "container", "codec", "sizes", "timings", "coded", "pixels")
INNER = {
    "moov": 0, "trak": 0, "mdia": 0, "minf": 0, "stbl": 0, "dinf": 0, "edts": 0, "udta": 0,
    "meta": 4, "stsd": 8, "avc1": 78, "mp4a": 28,
}  # fmt: skip
# Boxes that hold nothing but sizes, or places that follow from sizes.
SIZE_BOXES = ("stsz", "stco", "co64", "btrt", "mdat")


def read(received: Received) -> dict[str, Facts]:
    groups: dict[str, Facts] = {name: {} for name in GROUPS}
    groups["timings"] = received.times
    for what, (status, headers) in received.answers.items():
        groups["headers"][f"{what}: status|"] = str(status)
        groups["headers"][f"{what}: order|"] = " ".join(name for name, _ in headers)
        for name, value in headers:
            group = "sizes" if name in ("Content-Length", "Content-Range") else "headers"
            if group == "headers":
                groups[group][f"{what}: {name}|"] = value
    _read_boxes(received.video, "", groups)
    _read_jpeg(received.poster, groups["container"])
    _read_packets(received.video, groups)
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
        elif kind in INNER:
            groups["container"][f"head of {place}|"] = inside[: INNER[kind]].hex()
            _read_boxes(inside[INNER[kind] :], place, groups)
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


def _read_packets(content: bytes, groups: dict[str, Facts]) -> None:
    """Packets, and, in another pass over the same file, what is in them."""
    codec, sizes, coded = groups["codec"], groups["sizes"], groups["coded"]
    with cast(InputContainer, av.open(io.BytesIO(content))) as media:
        for stream in media.streams:
            kind, packets = stream.type, [p for p in media.demux(stream) if p.size]
            media.seek(0)
            context = stream.codec_context
            codec[f"{kind}: parameter sets|"] = (context.extradata or b"").hex()
            codec[f"{kind}: profile|"] = str(context.profile)
            codec[f"{kind}: times|"] = " ".join(f"{p.pts} {p.dts} {p.duration}" for p in packets)
            codec[f"{kind}: clock|"] = f"{stream.time_base} {stream.start_time} {stream.duration}"
            codec[f"{kind}: flags|"] = "".join("dk"[p.is_keyframe] for p in packets)
            codec[f"{kind}: metadata|"] = str(dict(stream.metadata))
            if kind == "video":
                units = [list(_units(bytes(p))) for p in packets]
                codec["video: units|"] = " ".join(str(u[0] & 31) for all_ in units for u in all_)
                codec["video: slice types|"] = "".join(
                    _slice_type(u) for all_ in units for u in all_ if u[0] & 31 in (1, 5)
                )
            for number, packet in enumerate(packets):
                sizes[f"{kind}: packet sizes|{number}"] = math.log(packet.size)
            if kind == "video":  # the last unit of each fills it up
                inside = np.array([sum(len(unit) for unit in all_[:-1]) for all_ in units], float)
            else:
                inside = np.array([_sound_bytes(bytes(p)) for p in packets], float)
            coded[f"{kind}: sum|"] = math.log(inside.sum())
            for number, own in enumerate(inside):
                coded[f"{kind}: lengths|{number}"] = math.log(own)
                coded[f"{kind}: shares|{number}"] = math.log(own / inside.sum())
            for number, own in enumerate(np.sort(inside)):
                coded[f"{kind}: shares, sorted|{number}"] = math.log(own / inside.sum())
        codec["metadata|"] = str(dict(media.metadata))
    _read_pixels(content, groups["pixels"])


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


# --- telling versions apart ----------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Clips by what was read from them. Columns of one family are shuffled together.

    Attributes
    ----------
    x : float array [clips, columns]
    families : the family of each column
    fixed : how many facts were the same in all clips, and so are no column
    differing : how many facts differ between versions' clips of the same prompt
    """

    x: Floats
    families: tuple[str, ...]
    fixed: int
    differing: int


def table(rows: Sequence[Facts], prompts: Ints) -> Table:
    columns: list[Floats] = []
    families: list[str] = []
    fixed = differing = 0
    for name in sorted({name for row in rows for name in row}):
        family = name.split("|")[0]
        values = [row.get(name, "absent") for row in rows]
        counts = Counter(values)
        if len(counts) == 1:
            fixed += 1
            continue
        pairs = len(set(zip(values, prompts.tolist(), strict=True)))
        differing += pairs > len(set(prompts.tolist()))
        if any(isinstance(value, str) for value in values):
            made = [
                [float(value == one) for value in values] for one, _ in counts.most_common(MANY)
            ]
            made.append([float(len(str(value))) for value in values])
        else:
            made = [[float(value) for value in values]]
        columns += [np.array(column) for column in made]
        families += [family] * len(made)
    x = np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))
    return Table(x, tuple(families), fixed, differing)


Fitted = Callable[[Floats], Floats]  # clips [n, columns] -> the weight of each version [n, k]


def standard(x: Floats) -> Callable[[Floats], Floats]:
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread[spread < 1e-9] = 1.0
    return lambda new: np.clip((new - mean) / spread, -8, 8)


def neighbours(x: Floats, y: Ints, k: int, rng: np.random.Generator) -> Fitted:
    scale = standard(x)
    known, near = scale(x), 9

    def judge(new: Floats) -> Floats:
        at = scale(new)
        distance = (at**2).sum(1)[:, None] - 2 * at @ known.T + (known**2).sum(1)
        return np.eye(k)[y[np.argpartition(distance, near, axis=1)[:, :near]]].sum(axis=1)

    return judge


def logistic(x: Floats, y: Ints, k: int, rng: np.random.Generator) -> Fitted:
    """Multinomial logistic regression with a small ridge, by L-BFGS."""
    scale = standard(x)
    inputs, wanted = np.c_[scale(x), np.ones(len(x))], np.eye(k)[y]
    ridge = 0.01

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(-1, k)
        scores = inputs @ weights
        norm = logsumexp(scores, axis=1, keepdims=True)
        slope = inputs.T @ (np.exp(scores - norm) - wanted) / len(x) + ridge * weights
        value = (norm[:, 0] - (scores * wanted).sum(1)).mean() + ridge / 2 * (flat @ flat)
        return float(value), slope.ravel()

    start = np.zeros(inputs.shape[1] * k)
    weights = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 150}).x
    return lambda new: np.c_[scale(new), np.ones(len(new))] @ weights.reshape(-1, k)


def forest(x: Floats, y: Ints, k: int, rng: np.random.Generator) -> Fitted:
    """Forty extremely randomised trees (Geurts, Ernst and Wehenkel, 2006)."""
    wanted = np.eye(k)[y]
    trees = [_tree(x, wanted, np.arange(len(x)), rng) for _ in range(40)]
    return lambda new: sum((_grade(tree, new, k) for tree in trees), np.zeros((len(new), k)))


def _tree(x: Floats, wanted: Floats, rows: Ints, rng: np.random.Generator) -> Any:
    counts = wanted[rows].sum(axis=0)
    if len(rows) < 10 or counts.max() == len(rows):
        return counts / len(rows)
    tries = min(x.shape[1], 2 * math.isqrt(x.shape[1]) + 1)
    columns = rng.choice(x.shape[1], tries, replace=False)
    part = x[np.ix_(rows, columns)]
    low, high = part.min(axis=0), part.max(axis=0)
    below = part < low + (high - low) * rng.random(tries)
    left = below.T.astype(float) @ wanted[rows]  # versions of the clips that go left, per try
    sizes = np.stack([left.sum(axis=1), len(rows) - left.sum(axis=1)])
    pure = (left**2).sum(axis=1) / np.maximum(sizes[0], 1)
    pure += ((counts - left) ** 2).sum(axis=1) / np.maximum(sizes[1], 1)
    best = int(np.argmax(np.where(sizes.min(axis=0) > 0, pure, -1)))
    if not 0 < sizes[0, best] < len(rows):
        return counts / len(rows)
    goes, edge = below[:, best], part[below[:, best], best].max()
    return (
        int(columns[best]), float(edge),
        _tree(x, wanted, rows[goes], rng), _tree(x, wanted, rows[~goes], rng),
    )  # fmt: skip


def _grade(tree: Any, new: Floats, k: int) -> Floats:
    grades = np.zeros((len(new), k))
    waiting = [(tree, np.arange(len(new)))]
    while waiting:
        node, rows = waiting.pop()
        if not isinstance(node, tuple):
            grades[rows] = node
        elif rows.size:
            column, edge, left, right = node
            goes = new[rows, column] <= edge
            waiting += [(left, rows[goes]), (right, rows[~goes])]
    return grades


LEARNERS = {"neighbours": neighbours, "logistic": logistic, "forest": forest}


@dataclass(frozen=True)
class Verdict:
    """How often held-out clips were given to the right version.

    `low` and `high` are a 95 % interval, by drawing prompts with replacement: clips of one prompt
    depend on each other. `losses` is by how much the accuracy falls when the columns of a family
    are shuffled among the held-out clips.
    """

    data: Table
    accuracy: float
    low: float
    high: float
    used: str
    losses: Mapping[str, float]


def judge(
    title: str, data: Table, y: Ints, prompts: Ints, k: int, explain: bool
) -> tuple[str, Verdict]:
    """Cross-validate over prompts, so that folds hold equally many clips of every version.

    Which learner is used in a fold is decided by a quarter of that fold's own training prompts,
    so that picking the best of three does not flatter it.
    """
    rng = np.random.default_rng(SEED)
    if not data.families:
        return title, Verdict(data, 1 / k, 1 / k, 1 / k, "nothing varies", {})
    right, losses, used = np.zeros(len(y)), defaultdict[str, float](float), Counter[str]()
    for held in np.array_split(rng.permutation(np.unique(prompts)), FOLDS):
        test = np.isin(prompts, held)
        rest = rng.permutation(np.unique(prompts[~test]))
        inner = np.isin(prompts, rest[: len(rest) // 4])
        scores = {}
        for name, learn in LEARNERS.items():
            known = ~test & ~inner
            guess = learn(data.x[known], y[known], k, rng)(data.x[inner]).argmax(axis=1)
            scores[name] = float((guess == y[inner]).mean())
        best = max(scores, key=scores.__getitem__)
        used[best] += 1
        fitted = LEARNERS[best](data.x[~test], y[~test], k, rng)
        right[test] = fitted(data.x[test]).argmax(axis=1) == y[test]
        for family in set(data.families) if explain else ():
            shuffled, columns = data.x[test], np.array([f == family for f in data.families])
            shuffled[:, columns] = shuffled[rng.permutation(len(shuffled))][:, columns]
            lost = right[test].sum() - (fitted(shuffled).argmax(axis=1) == y[test]).sum()
            losses[family] += float(lost) / len(y)
    of_prompt = np.array([right[prompts == p].mean() for p in np.unique(prompts)])
    draws = of_prompt[rng.integers(of_prompt.size, size=(4000, of_prompt.size))].mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    names = ", ".join(name for name, _ in used.most_common())
    return title, Verdict(data, float(right.mean()), float(low), float(high), names, losses)


# --- the report ----------------------------------------------------------------------------------

RECEIVED = ("headers", "container", "codec", "timings", "sizes")
JUDGED = (*RECEIVED, "everything")
DOCS = Path(__file__).resolve().parents[1] / "docs" / "methodology.md"
BEGIN, END = "<!-- blind:begin -->", "<!-- blind:end -->"


def tables(
    reads: Sequence[Mapping[str, Facts]], masters: Sequence[Facts], prompts: Ints
) -> dict[str, Table]:
    """What is set against each other, in the order in which it is printed."""

    def of(*groups: str) -> Table:
        return table([{n: v for g in groups for n, v in r[g].items()} for r in reads], prompts)

    return {
        **{group: of(group) for group in RECEIVED},
        "everything": of(*RECEIVED),
        "lengths of codes inside": of("coded"),
        "pixels and sound": of("pixels"),
        "both": of("coded", "pixels"),
        "control: the masters": table(masters, prompts),
    }


def shuffled_within(y: Ints, prompts: Ints, rng: np.random.Generator) -> Ints:
    """The versions' names, dealt anew among the clips of each prompt."""
    dealt = y.copy()
    for prompt in np.unique(prompts):
        dealt[prompts == prompt] = rng.permutation(y[prompts == prompt])
    return dealt


def report(
    category: str, received: Sequence[Received], reads: Any, masters: Any, pool: Any
) -> tuple[list[str], list[str]]:
    """Print one category's table; return what did not pass, in words, and rows for the docs."""
    kinds = sorted({r.version for r in received})
    k, y = len(kinds), np.array([kinds.index(r.version) for r in received])
    prompts = np.array([r.prompt for r in received])
    of_master = [masters[r.prompt][category, r.version] for r in received]
    every = tables(reads, of_master, prompts)
    jobs = [
        pool.submit(judge, title, data, y, prompts, k, title in JUDGED)
        for title, data in every.items()
    ]
    dealt = shuffled_within(y, prompts, np.random.default_rng(SEED))
    control = ("control: names shuffled", every["everything"], dealt, prompts, k, False)
    jobs.append(pool.submit(judge, *control))
    chance, failed, rows = 1 / k, [], []
    target = chance + ALLOWED
    print(
        f"\n{category}: {k} versions, {len(y) // k} clips of each; chance {chance:.1%}, "
        f"target {target:.1%}"
    )
    print(f"{'':<28}{'named right':>12}  {'95 % interval':<17}{'differ':>7}{'same':>6}")
    for job in jobs:
        title, found = job.result()
        word = ""
        if title in JUDGED:
            word = "PASS" if found.high <= target else "UNSURE"
            word = "OVER" if found.accuracy > target else word
            failed += [] if word == "PASS" else [f"{category} {title} {found.accuracy:.1%} {word}"]
        interval = f"{found.low:.1%} to {found.high:.1%}"
        rows.append(f"| {category} | {title} | {found.accuracy:.1%} | {interval} | {word or '–'} |")
        print(
            f"{title:<28}{found.accuracy:>12.1%}  {interval:<17}{found.data.differing:>7}"
            f"{found.data.fixed:>6}  {word:<6} {found.used}",
            flush=True,
        )
        if word == "OVER":
            for family, lost in sorted(found.losses.items(), key=lambda item: -item[1])[:5]:
                print(f"    {lost * -100:+6.1f} points without {family}")
    return failed, rows


def write_down(plan: Plan, rows: Sequence[str], real: Sequence[RealClip]) -> None:
    """Put the tables into the docs, between their marks."""
    chance = 1 / len(VERSIONS)
    table = [
        f"{len(VERSIONS)} versions, {plan.clips} clips of each in a category; chance {chance:.1%}, "
        f"target {chance + ALLOWED:.1%}.",
        "",
        "| category | what is looked at | named right | 95 % interval | |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"At the real size, {len(real)} clips: bytes of a file and of its poster.",
        "",
        "| aspect | seconds | sound | file | poster |",
        "| --- | --- | --- | --- | --- |",
        *sorted(
            {
                f"| {clip.aspect} | {clip.seconds:g} | {'yes' if clip.audio else 'no'} | "
                f"{clip.length:,} | {clip.poster_length:,} |"
                for clip in real
            }
        ),
    ]
    before, rest = DOCS.read_text().split(BEGIN)
    _, after = rest.split(END)
    DOCS.write_text("\n".join([before + BEGIN, *table, END + after]))


def fill(plan: Plan) -> None:
    from generation.models import Model, Prompt, Version

    model = Model.objects.create(slug="m", name="M", lab="L", weights="open")
    Version.objects.bulk_create(
        Version(
            model=model, slug=made.slug, name=made.slug, state="active", backend="imported",
            categories=[SILENT, AUDIO], width=made.width // plan.scale,
            height=made.height // plan.scale, fps=made.fps, min_seconds=plan.seconds,
            max_seconds=2 * plan.seconds,
        )
        for made in VERSIONS
    )  # fmt: skip
    Prompt.objects.bulk_create(
        Prompt(
            key=f"p{n}", text=f"prompt {n}", aspect=ASPECTS[n % 3], seconds=plan.seconds,
            sounds=["silent", "audio"] if n % plan.audio_every == 0 else ["silent"],
        )
        for n in range(plan.clips)
    )  # fmt: skip


def run(plan: Plan, processes: int, write: bool) -> None:
    begin = time.perf_counter()
    set_up(plan)
    from django.core.management import call_command
    from django.db import connection
    from django.test.utils import setup_test_environment

    call_command("migrate", verbosity=0)
    setup_test_environment()
    fill(plan)
    connection.close()
    print(f"{plan}; differ: facts that differ between versions' clips of one prompt", flush=True)
    spawn = multiprocessing.get_context("spawn")
    failed: list[str] = []
    rows: list[str] = []
    with ProcessPoolExecutor(processes, spawn, set_up, (plan,)) as pool:
        masters = dict(enumerate(pool.map(partial(import_prompt, plan), range(plan.clips))))
        made = time.perf_counter() - begin
        tried = range(0, plan.clips, max(1, plan.clips // 10))
        alike = list(pool.map(partial(rewrapped_alike, plan), tried))
        for category in (SILENT, AUDIO):
            received = fetch_all(category, np.random.default_rng(SEED))
            reads = list(pool.map(read, received, chunksize=20))
            over, more = report(category, received, reads, masters, pool)
            failed, rows = failed + over, rows + more
    with ProcessPoolExecutor(processes, spawn) as pool:
        real = list(pool.map(at_real_size, range(REAL_KINDS * len(VERSIONS))))
    told = told_by_real_size(real)
    print(f"\n{made:.0f} s to make and import, {time.perf_counter() - begin:.0f} s in all.")
    print(f"In another container: {sum(alike)} of {len(alike)} renditions the same byte for byte.")
    print(
        f"At the real size, of {len(real)} clips, kinds that differ by version: "
        f"{'; '.join(told) or 'none'}."
    )
    if not all(alike):
        failed.append("the master's container tells OVER")
    if told:
        failed.append("files of the real size OVER")
    print(f"NOT BLIND: {'; '.join(failed)}." if failed else "PASS: no version can be named.")
    if write:
        write_down(plan, rows, real)


def main() -> None:
    parser = argparse.ArgumentParser(description="Is what a voter's machine receives blind?")
    parser.add_argument("--clips", type=int, default=200, help="of each version")
    parser.add_argument("--quick", type=int, nargs="?", const=40, help="so many instead, 40")
    parser.add_argument("--audio-every", type=int, default=1, help="2: sound for every 2nd")
    parser.add_argument("--scale", type=int, default=4, choices=(1, 2, 4), help="1 is real size")
    parser.add_argument("--seconds", type=float, default=1.0, help="of every rendition")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the tables into the docs")
    given = parser.parse_args()
    plan = Plan(given.quick or given.clips, given.audio_every, given.scale, given.seconds)
    if plan.clips < 4 * FOLDS * plan.audio_every / 2:
        parser.error(f"{plan.clips} clips are too few to learn from: ask for 20 or more.")
    with own_servers():
        run(plan, given.processes, given.write)


if __name__ == "__main__":
    main()
