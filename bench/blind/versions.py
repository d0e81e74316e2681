"""First step: made-up versions, and the files that they make of a prompt."""

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from generation.catalogue.categories import ASPECTS
from generation.media.masters import RawClip, write_master
from generation.media.sound import Samples

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Facts = dict[str, float | str]  # "family|detail" -> a number, or a string that is only compared

BLIND_SEED = 20_261_122

SILENT, AUDIO = "t2v-silent", "t2v-audio"


@dataclass(frozen=True)
class BlindPlan:
    """How much is made."""

    clips: int  # prompts; every version makes a clip of each
    audio_every: int  # every so many prompts are asked for with sound too
    scale: int  # canvases and native sizes are divided by it
    seconds: float  # of every rendition


@dataclass(frozen=True)
class MadeUpVersion:
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


MADE_UP_VERSIONS = (
    MadeUpVersion("small-raw", 448, 256, 24, 1.0, 0.0, rate=16_000, channels=1, loud=0.1),
    MadeUpVersion("slow-raw", 832, 480, 16, 1.07, 1.0, rate=24_000, channels=1, loud=0.6),
    MadeUpVersion("usual-mp4", 1280, 720, 24, 1.2, 2.0, "mp4", "libx264", sound="aac", rate=44_100),
    MadeUpVersion(
        "large-hevc", 1920, 1080, 30, 1.0, 0.5, "mp4", "libx265", "yuv420p10le",
        "aac", 48_000, loud=0.9, unmuted=True,
    ),
    MadeUpVersion(
        "web-vp9", 1280, 704, 25, 1.1, 4.0, "webm", "libvpx-vp9",
        sound="libopus", rate=48_000, channels=1, loud=0.03, unmuted=True,
    ),
    MadeUpVersion(
        "studio-mov", 1920, 1080, 24, 1.0, 1.0, "mov", "prores_ks", "yuv422p10le",
        "pcm_s16le", 48_000, loud=0.2, unmuted=True,
    ),
    MadeUpVersion(
        "fast-av1", 960, 544, 60, 1.0, 2.0, "mp4", "libsvtav1",
        sound="aac", rate=44_100, channels=1, loud=0.15,
    ),
    MadeUpVersion(
        "old-mkv", 848, 480, 12, 1.5, 0.5, "matroska", "mpeg4",
        sound="flac", rate=32_000, loud=0.5,
    ),
)  # fmt: skip
MASTER_SUFFIXES = {"raw": ".mkv", "matroska": ".mkv", "mp4": ".mp4", "mov": ".mov", "webm": ".webm"}
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
MASTER_GRAIN = np.random.default_rng(BLIND_SEED).normal(0, 1, 1 << 20).astype(np.float32)


def native_size(made: MadeUpVersion, aspect: str, scale: int) -> tuple[int, int]:
    long, short = made.width // scale, made.height // scale
    return {"16:9": (long, short), "1:1": (short, short), "9:16": (short, long)}[aspect]


def draw_frames(
    made: MadeUpVersion,
    prompt: int,
    size: tuple[int, int],
    seconds: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.uint8]:
    """The prompt's scene as this version shows it: the prompt draws it, the version adds grain.

    `rng` belongs to the clip and moves things a little, as another seed of a model would.
    """
    scene = np.random.default_rng([BLIND_SEED, prompt])
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
        begin = rng.integers(MASTER_GRAIN.size, size=count)
        for frame, first in zip(frames, begin, strict=True):
            grain = np.resize(np.roll(MASTER_GRAIN, int(first)), frame.size)
            frame += made.noise * grain.reshape(frame.shape)
    return np.clip(frames, 0, 255).astype(np.uint8)


def draw_sound(
    made: MadeUpVersion, prompt: int, seconds: float, rng: np.random.Generator
) -> Samples:
    """The prompt's sound: three falling tones over a hiss, as loud as this version makes it."""
    scene = np.random.default_rng([BLIND_SEED, prompt, 1])
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


def make_master(made: MadeUpVersion, prompt: int, plan: BlindPlan, sound: bool, path: Path) -> None:
    number = [other.slug for other in MADE_UP_VERSIONS].index(made.slug)
    rng = np.random.default_rng([BLIND_SEED, prompt, number])
    size = native_size(made, ASPECTS[prompt % 3], plan.scale)
    frames = draw_frames(made, prompt, size, plan.seconds, rng)
    heard = draw_sound(made, prompt, plan.seconds, rng) if sound else None
    clip = RawClip(frames, made.fps, heard, made.rate if heard is not None else None)
    if made.container == "raw":
        write_master(clip, path)
    else:
        _write_elsewhere(made, clip, path)


def _write_elsewhere(made: MadeUpVersion, clip: RawClip, path: Path) -> None:
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
