"""Masters and renditions, judged by decoding the files: what voters, and a bot, could see."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pyloudnorm
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from generation.media.container import top_level_boxes
from generation.media.masters import RawClip, write_master
from generation.media.profile import PROFILE, EncodingError
from generation.media.reading import probe
from generation.media.renditions import RenditionFacts, encode_rendition
from generation.media.sound import integrated_loudness, normalise_loudness, true_peak

ROOT = Path(__file__).resolve().parents[3]
Sound = npt.NDArray[np.float32]
Pictures = npt.NDArray[np.uint8]
CONTAINER_BOXES = {"moov", "trak", "mdia", "minf", "stbl", "edts", "dinf", "udta"}


def gradient(frames: int, height: int, width: int, step: int = 4) -> Pictures:
    """A coloured gradient that moves, so that every frame differs from the one before."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack(
        [
            np.stack([columns + step * n, rows + 3 * n, np.full_like(rows, 5 * n)], axis=-1).astype(
                np.uint8
            )
            for n in range(frames)
        ]
    )


def tone(seconds: float, rate: int, channels: int, level: float = 0.2, pitch: float = 440) -> Sound:
    time = np.arange(round(seconds * rate)) / rate
    wave = level * np.sin(2 * np.pi * pitch * time)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def as_master(path: Path, frames: Pictures, fps: float, sound: Sound | None, rate: int) -> Path:
    write_master(RawClip(frames, fps, sound, rate if sound is not None else None), path)
    return path


def hosted_master(path: Path) -> Path:
    """A clip as a hosted API might send it: MP4, 4:2:0, AAC, full of names."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        out.metadata.update({"title": "made by somebody", "comment": "a secret model"})
        video = out.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = 448, 256, "yuv420p"
        sound = out.add_stream("aac", rate=44100, layout="stereo")
        for number, rgb in enumerate(gradient(66, 256, 448)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            out.mux(video.encode(frame))
        wave = np.ascontiguousarray(tone(2.2, 44100, 2, level=0.6, pitch=900).T)
        heard = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
        heard.sample_rate, heard.pts = 44100, 0
        out.mux(sound.encode(heard))
        out.mux(sound.encode(None))
        out.mux(video.encode(None))
    return path


def render(
    master: Path, *, aspect: str = "1:1", seconds: float = 2, audio: bool = False, name: str = "r"
) -> tuple[Path, RenditionFacts]:
    rendition = master.with_name(f"{name}.mp4")
    poster = master.with_name(f"{name}.jpg")
    facts = encode_rendition(master, rendition, poster, aspect=aspect, seconds=seconds, audio=audio)
    return rendition, facts


def pictures_of(path: Path) -> Pictures:
    with av.open(str(path)) as media:
        frames = [frame.to_ndarray(format="rgb24") for frame in media.decode(video=0)]
    return np.stack(frames).astype(np.uint8)


def sound_of(path: Path) -> Sound:
    with av.open(str(path)) as media:
        pieces = [frame.to_ndarray() for frame in media.decode(audio=0)]
    return np.concatenate(pieces, axis=1).T.astype(np.float32)


def boxes_of(content: bytes, parent: str = "") -> Iterator[tuple[str, bytes]]:
    """Every box of an MP4 file in order, as its path and its contents."""
    offset = 0
    for kind, size in top_level_boxes(content):
        inside = content[offset + 8 : offset + size]
        yield f"{parent}/{kind}", inside
        if kind in CONTAINER_BOXES:
            yield from boxes_of(inside, f"{parent}/{kind}")
        offset += size


def left_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# --- masters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "channels", "rate"), [(8, 1, 16000), (24, 2, 48000), (30000 / 1001, 2, 44100)]
)
def test_a_master_keeps_picture_and_sound(
    tmp_path: Path, fps: float, channels: int, rate: int
) -> None:
    frames, sound = gradient(16, 75, 101), tone(16 / fps, rate, channels)
    master = as_master(tmp_path / "m.mkv", frames, fps, sound, rate)
    facts = probe(master)
    assert (facts.width, facts.height, facts.frames) == (101, 75, 16)
    assert facts.fps == pytest.approx(fps, abs=1e-3)
    assert facts.seconds == pytest.approx(16 / fps, abs=1e-3)
    assert (facts.has_audio, facts.audio_codec) == (True, "flac")
    assert (facts.sample_rate, facts.channels) == (rate, channels)
    assert facts.audio_seconds == pytest.approx(len(sound) / rate)
    # A wrong colour matrix is off by tens; near-lossless compression by one or two.
    error = np.abs(pictures_of(master).astype(int) - frames)
    assert np.median(error) <= 2
    with av.open(str(master)) as media:
        words = np.concatenate([f.to_ndarray() for f in media.decode(audio=0)], axis=1)
    stored = words.reshape(-1, channels) / 2**31
    assert np.abs(stored - sound).max() <= 2**-23


def test_a_silent_master_has_no_audio_track(tmp_path: Path) -> None:
    facts = probe(as_master(tmp_path / "m.mkv", gradient(8, 32, 32), 8, None, 0))
    assert not facts.has_audio
    assert (facts.audio_codec, facts.sample_rate, facts.channels) == (None, None, None)
    assert facts.audio_seconds is None


def test_the_same_clip_makes_the_same_master(tmp_path: Path) -> None:
    frames, sound = gradient(12, 64, 64), tone(0.5, 16000, 1)
    one = as_master(tmp_path / "one.mkv", frames, 24, sound, 16000)
    two = as_master(tmp_path / "two.mkv", frames, 24, sound, 16000)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("clip", "complaint"),
    [
        (RawClip(np.zeros((4, 8, 8), np.uint8), 8, None, None), "uint8 \\[F, H, W, 3\\]"),
        (RawClip(np.zeros((0, 8, 8, 3), np.uint8), 8, None, None), "frames"),
        (RawClip(gradient(4, 8, 8), 0, None, None), "frame rate is 0"),
        (RawClip(gradient(4, 8, 8), math.nan, None, None), "frame rate is nan"),
        (RawClip(gradient(4, 8, 8), 8, tone(1, 8000, 1), None), "both or neither"),
        (RawClip(gradient(4, 8, 8), 8, tone(1, 8000, 3), 8000), "shape \\[8000, 3\\]"),
        (RawClip(gradient(4, 8, 8), 8, tone(1, 8000, 1) * np.nan, 8000), "NaN"),
        (RawClip(gradient(4, 8, 8), 8, tone(1, 8000, 1) * 10, 8000), "peaks at 2.0"),
    ],
)
def test_a_backend_that_returns_the_wrong_thing_is_told_so(
    tmp_path: Path, clip: RawClip, complaint: str
) -> None:
    with pytest.raises(EncodingError, match=complaint):
        write_master(clip, tmp_path / "m.mkv")
    assert left_in(tmp_path) == []


# --- one profile for all -------------------------------------------------------------------------


@pytest.mark.full_size
def test_renditions_of_unlike_masters_differ_in_nothing_but_content(tmp_path: Path) -> None:
    masters = [
        as_master(tmp_path / "tiny.mkv", gradient(16, 64, 64), 8, tone(2, 16000, 1), 16000),
        as_master(
            tmp_path / "still.mkv", gradient(60, 90, 120, 0) * 0, 30, tone(2, 48000, 2), 48000
        ),
        as_master(tmp_path / "odd.mkv", gradient(51, 301, 203, 9), 25, tone(2, 22050, 2), 22050),
        hosted_master(tmp_path / "hosted.mp4"),
    ]
    structures, tables, parameters, pattern = set(), set(), set(), set()
    for master in masters:
        rendition, _ = render(master, audio=True, name=master.stem)
        content = rendition.read_bytes()
        for name in (b"x264", b"Lavf", b"Lavc", b"somebody", b"secret"):
            assert name not in content
        boxes = list(boxes_of(content))
        structures.add(tuple(path for path, _ in boxes))
        fixed = ("ftyp", "mvhd", "tkhd", "elst", "mdhd", "hdlr", "stts", "ctts", "stss", "udta")
        tables.add(tuple(inside for path, inside in boxes if path.endswith(fixed)))
        with av.open(str(rendition)) as media:
            parameters.add(tuple(bytes(s.codec_context.extradata or b"") for s in media.streams))
            pattern.add(tuple(frame.pict_type for frame in media.decode(video=0)))
            assert set(media.metadata) == {"major_brand", "minor_version", "compatible_brands"}
    assert len(structures) == len(tables) == len(parameters) == len(pattern) == 1
    (order,) = structures
    assert order.index("/moov") < order.index("/mdat")


@pytest.mark.full_size
@pytest.mark.parametrize(
    ("aspect", "width", "height"), [("16:9", 1280, 720), ("1:1", 720, 720), ("9:16", 720, 1280)]
)
def test_each_aspect_has_its_canvas(tmp_path: Path, aspect: str, width: int, height: int) -> None:
    master = as_master(tmp_path / "m.mkv", np.full((6, 60, 60, 3), 200, np.uint8), 24, None, 0)
    rendition, facts = render(master, aspect=aspect, seconds=0.25)
    assert (facts.width, facts.height, facts.frames) == (width, height, 6)
    found = probe(rendition)
    assert (found.width, found.height, found.pixel_format) == (width, height, "yuv420p")
    assert (found.video_codec, found.fps, found.seconds) == ("h264", 24, 0.25)
    picture = pictures_of(rendition)[3]
    # A square source: grey in the middle 720 x 720, black beside or above it.
    bright = picture.mean(axis=2) > 100
    assert int(bright.any(axis=0).sum()) == pytest.approx(720, abs=2)
    assert int(bright.any(axis=1).sum()) == pytest.approx(720, abs=2)
    assert bright[height // 2, width // 2]
    if width != height:
        assert picture[2, 2].max() <= 3
    with Image.open(tmp_path / "r.jpg") as poster:
        assert (poster.format, poster.size) == ("JPEG", (width // 2, height // 2))
        assert not poster.getexif()
        shown = Image.fromarray(pictures_of(rendition)[0]).reduce(2)
        assert np.abs(np.asarray(poster).astype(int) - np.asarray(shown)).mean() < 2


@pytest.mark.full_size
@pytest.mark.parametrize(("width", "height"), [(832, 480), (1280, 704), (1216, 704)])
def test_a_picture_of_nearly_the_right_shape_fills_the_canvas(
    tmp_path: Path, width: int, height: int
) -> None:
    frames = np.full((6, height, width, 3), 200, np.uint8)
    master = as_master(tmp_path / "m.mkv", frames, 24, None, 0)
    rendition, facts = render(master, aspect="16:9", seconds=0.25)
    assert (facts.width, facts.height) == (1280, 720)
    assert pictures_of(rendition)[3].min() > 190  # no bar at any edge


@pytest.mark.full_size
def test_colours_survive(tmp_path: Path) -> None:
    colours = np.array([[250, 10, 10], [10, 240, 20], [20, 10, 250], [200, 180, 40]], np.uint8)
    bars = np.repeat(np.repeat(colours[None, :], 90, axis=0), 40, axis=1)
    master = as_master(tmp_path / "m.mkv", np.repeat(bars[None], 6, axis=0), 24, None, 0)
    rendition, _ = render(master, aspect="16:9", seconds=0.25)
    shown = pictures_of(rendition)[5, 360, [160, 480, 800, 1120]]
    assert np.abs(shown.astype(int) - colours).max() <= 4
    with Image.open(tmp_path / "r.jpg") as poster:
        still = np.asarray(poster)[180, [80, 240, 400, 560]]
    assert np.abs(still.astype(int) - colours).max() <= 6


@pytest.mark.full_size
@pytest.mark.parametrize("fps", [8, 12, 16, 24, 25, 30, 48, 60])
def test_each_moment_shows_what_the_master_shows_then(tmp_path: Path, fps: int) -> None:
    # Frame n is a grey whose value tells n.
    greys = np.linspace(20, 235, fps)
    frames = np.stack([np.full((48, 48, 3), grey, np.uint8) for grey in greys])
    rendition, _ = render(as_master(tmp_path / "m.mkv", frames, fps, None, 0), seconds=1)
    shown = pictures_of(rendition)[:, 360, 360].mean(axis=1)
    expected = [np.floor(greys[math.floor(n * fps / 24 + 1e-9)]) for n in range(24)]
    assert np.abs(shown - expected).max() < (greys[1] - greys[0]) / 2 + 0.5


def test_a_longer_master_is_trimmed(tmp_path: Path) -> None:
    master = as_master(tmp_path / "m.mkv", gradient(72, 48, 48), 24, tone(3, 16000, 1), 16000)
    rendition, facts = render(master, seconds=1.5, audio=True)
    assert (facts.frames, facts.seconds) == (36, 1.5)
    with av.open(str(rendition)) as media:
        lengths = [float((s.duration or 0) * (s.time_base or 0)) for s in media.streams]
    assert lengths == [1.5, 1.5]


def test_the_last_frame_is_held_for_one_source_frame_and_no_longer(tmp_path: Path) -> None:
    film = as_master(tmp_path / "film.mkv", gradient(47, 48, 48), 24, None, 0)
    _, facts = render(film, seconds=2)
    assert facts.frames == 48
    with pytest.raises(EncodingError, match=r"lasts 1\.96 s, too short for .* 2\.04 s"):
        render(film, seconds=49 / 24, name="long")
    # 15 frames at 8 a second last 1.875 s: 2 s is one frame more, 2.1 s is not.
    master = as_master(tmp_path / "m.mkv", gradient(15, 48, 48), 8, None, 0)
    _, facts = render(master, seconds=2)
    assert facts.frames == 48
    with pytest.raises(EncodingError, match=r"lasts 1\.8\d s, too short for .* 2\.08 s"):
        render(master, seconds=2.1, name="long")
    assert left_in(tmp_path) == ["film.mkv", "m.mkv", "r.jpg", "r.mp4"]


@pytest.mark.slow
def test_same_master_same_bytes_whatever_lies_in_memory(tmp_path: Path) -> None:
    """Encode in two processes whose unused memory holds different bytes.

    Without x264's cpu-independent setting these differ: rate control reads memory nobody wrote.
    """
    rng = np.random.default_rng(7)
    frames = np.clip(
        gradient(12, 160, 288).astype(int) + rng.integers(-20, 20, (12, 160, 288, 3)), 0, 255
    )
    master = as_master(tmp_path / "m.mkv", frames.astype(np.uint8), 24, tone(0.5, 44100, 2), 44100)
    program = (
        "import sys; from pathlib import Path;"
        "from generation.media.renditions import encode_rendition;"
        "m, r, p = map(Path, sys.argv[1:]);"
        "encode_rendition(m, r, p, aspect='1:1', seconds=0.5, audio=True)"
    )
    digests = set()
    for filler in ("1", "85"):
        rendition, poster = tmp_path / f"{filler}.mp4", tmp_path / f"{filler}.jpg"
        # glibc fills memory with the given byte, and hands out none fresh (zeroed) from the kernel.
        memory = {"MALLOC_PERTURB_": filler, "MALLOC_MMAP_THRESHOLD_": "4000000000"}
        subprocess.run(
            [sys.executable, "-c", program, str(master), str(rendition), str(poster)],
            check=True,
            cwd=ROOT,
            env=os.environ | memory,
        )
        digests.add(hashlib.sha256(rendition.read_bytes() + poster.read_bytes()).hexdigest())
    assert len(digests) == 1


# --- motion --------------------------------------------------------------------------------------


def sliding(speed: int, frames: int = 30) -> Pictures:
    """A soft grey texture that slides right by `speed` pixels a frame, round the edge."""
    texture = gaussian_filter(np.random.default_rng(2).normal(size=(360, 360)), 6, mode="wrap")
    grey = (255 * (texture - texture.min()) / np.ptp(texture)).astype(np.uint8)
    shown = [np.roll(grey, speed * n, axis=1) for n in range(frames)]
    return np.repeat(np.stack(shown)[..., None], 3, axis=3)


def test_motion_grows_with_speed(tmp_path: Path) -> None:
    found = {}
    for speed in (0, 1, 2, 4):
        frames = sliding(speed)
        master = as_master(tmp_path / f"{speed}.mkv", frames, 24, None, 0)
        _, facts = render(master, seconds=30 / 24, name=f"r{speed}")
        # The same mean over the pictures as they were drawn, before any scaling or encoding.
        drawn = np.abs(np.diff(frames[..., 0].astype(int), axis=0)).mean()
        assert facts.motion == pytest.approx(drawn, rel=0.05, abs=0.1)
        found[speed] = facts.motion or 0
    assert found[0] < 0.1 < found[1]
    assert found[2] == pytest.approx(2 * found[1], rel=0.1)
    assert found[4] > 1.5 * found[2]


@pytest.mark.parametrize(("dark", "light"), [(100, 150), (0, 255)])
@pytest.mark.parametrize(("aspect", "covered"), [("1:1", 1), ("16:9", 256 / 448)])
def test_motion_counts_levels_of_grey_over_the_whole_canvas(
    tmp_path: Path, dark: int, light: int, aspect: str, covered: float
) -> None:
    greys = np.array([dark, light, light] * 4, np.uint8)  # 7 of the 11 frames after the first turn
    frames = np.broadcast_to(greys[:, None, None, None], (12, 60, 60, 3)).copy()
    master = as_master(tmp_path / "m.mkv", frames, 24, None, 0)
    _, facts = render(master, aspect=aspect, seconds=0.5)
    # The bars beside a square picture stand still.
    assert facts.motion == pytest.approx(covered * (light - dark) * 7 / 11, rel=0.03)


def test_a_single_frame_has_no_motion_to_speak_of(tmp_path: Path) -> None:
    master = as_master(tmp_path / "m.mkv", gradient(6, 48, 48), 24, None, 0)
    _, facts = render(master, seconds=1 / 24)
    assert (facts.frames, facts.motion) == (1, None)


# --- sound ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "rate", "channels", "fps"),
    [(0.9, 44100, 2, 24), (0.01, 16000, 1, 8), (0.2, 48000, 2, 30)],
)
def test_every_clip_is_equally_loud(
    tmp_path: Path, level: float, rate: int, channels: int, fps: int
) -> None:
    sound = tone(2, rate, channels, level)
    master = as_master(tmp_path / "m.mkv", gradient(2 * fps, 48, 48), fps, sound, rate)
    rendition, facts = render(master, audio=True)
    heard = sound_of(rendition)
    assert heard.shape[1] == 2
    # Whole AAC frames come out of a decoder; the container says that the track ends at 2 s.
    assert 96_000 <= len(heard) < 96_000 + 1024
    independent = pyloudnorm.Meter(48_000).integrated_loudness(heard[:96_000].astype(float))
    assert independent == pytest.approx(PROFILE.loudness, abs=0.5)
    assert facts.loudness == pytest.approx(independent, abs=0.1)


def test_sound_stays_in_time_with_the_picture(tmp_path: Path) -> None:
    # The flash is in frame 12 of 24, the click at its first sample.
    frames = np.zeros((24, 48, 48, 3), np.uint8)
    frames[12] = 255
    sound = np.zeros((44100, 1), np.float32)
    sound[22050:22500] = tone(450 / 44100, 44100, 1, 0.8, 2000)
    master = as_master(tmp_path / "m.mkv", frames, 24, sound, 44100)
    rendition, _ = render(master, seconds=1, audio=True)
    flash = int(pictures_of(rendition).mean(axis=(1, 2, 3)).argmax())
    heard = np.abs(sound_of(rendition)[:, 0])
    click = int((heard > heard.max() / 3).argmax())
    assert flash == 12
    assert click == pytest.approx(24_000, abs=48)  # a millisecond


def test_a_silent_category_carries_no_audio_track(tmp_path: Path) -> None:
    sound = tone(1, 16000, 1)
    master = as_master(tmp_path / "m.mkv", gradient(8, 48, 48), 8, sound, 16000)
    rendition, facts = render(master, seconds=1)
    assert not facts.has_audio
    assert facts.loudness is facts.audio_seconds is None
    assert not probe(rendition).has_audio
    assert b"soun" not in rendition.read_bytes()


def test_a_category_with_sound_refuses_a_master_without(tmp_path: Path) -> None:
    master = as_master(tmp_path / "m.mkv", gradient(8, 48, 48), 8, None, 0)
    with pytest.raises(EncodingError, match=r"m\.mkv has no audio track"):
        render(master, seconds=1, audio=True)
    assert left_in(tmp_path) == ["m.mkv"]


def test_silence_stays_silence(tmp_path: Path) -> None:
    quiet = np.zeros((16000, 1), np.float32)
    master = as_master(tmp_path / "m.mkv", gradient(8, 48, 48), 8, quiet, 16000)
    rendition, facts = render(master, seconds=1, audio=True)
    assert facts.has_audio
    assert facts.loudness is None
    assert np.abs(sound_of(rendition)).max() < 1e-4


def test_short_sound_is_padded_with_silence(tmp_path: Path) -> None:
    sound = tone(0.5, 16000, 1)
    master = as_master(tmp_path / "m.mkv", gradient(8, 48, 48), 8, sound, 16000)
    rendition, _ = render(master, seconds=1, audio=True)
    heard = sound_of(rendition)
    assert len(heard) >= 48_000
    assert np.abs(heard[:20_000]).max() > 0.01
    assert np.abs(heard[28_000:]).max() < 1e-3


def burst(seconds: float, at: float, length: float = 0.1, level: float = 0.5) -> Sound:
    sound = np.zeros((round(seconds * 48_000), 2), np.float32)
    first = round(at * 48_000)
    piece = tone(length, 48_000, 2, level, 800)[: len(sound) - first]
    sound[first : first + len(piece)] = piece
    return sound


@pytest.mark.parametrize(
    "sound",
    [
        tone(2, 48_000, 2, 0.1, 997),
        np.random.default_rng(3).normal(0, 0.05, (96_000, 2)).astype(np.float32),
        burst(2, 0.0),
        burst(2, 1.0),
        burst(2, 1.9),
        burst(3, 0.2) + burst(3, 1.1, level=0.1) + burst(3, 2.5, level=0.7),
    ],
    ids=["tone", "noise", "first", "middle", "last", "several"],
)
def test_loudness_agrees_with_another_meter(sound: Sound) -> None:
    other = pyloudnorm.Meter(48_000).integrated_loudness(sound.astype(float))
    assert integrated_loudness(sound) == pytest.approx(other, abs=0.25)


def test_loudness_of_the_standards_own_example() -> None:
    # BS.1770: a full-scale 997 Hz sine in one channel reads -3.01 LKFS, for any length.
    for seconds in (0.25, 2.0, 5.0):
        sound = tone(seconds, 48_000, 2, 1.0, 997)
        sound[:, 1] = 0
        assert integrated_loudness(sound) == pytest.approx(-3.01, abs=0.02)


def test_a_sound_at_the_very_end_is_heard() -> None:
    # 40 ms after the last whole block of a 2.04 s clip: a meter that stops there reads silence.
    sound = burst(2.04, 2.0, 0.04)
    assert integrated_loudness(sound) == pytest.approx(
        integrated_loudness(burst(2.04, 1.0, 0.04)) or 0, abs=0.2
    )


def test_peaks_are_limited_but_a_click_is_not_crushed() -> None:
    rng = np.random.default_rng(5)
    clicks = rng.normal(0, 5e-4, (96_000, 2)).astype(np.float32)
    clicks[5_000::12_000] = 0.1
    louder, gain = normalise_loudness(clicks)
    ceiling = 10 ** (PROFILE.true_peak / 20)
    assert gain is not None
    assert 10 ** (gain / 20) * true_peak(clicks) > ceiling  # the limiter was needed
    assert true_peak(louder) <= ceiling * 1.001
    lost = 20 * math.log10(10 ** (gain / 20) * true_peak(clicks) / true_peak(louder))
    assert lost <= PROFILE.max_limiting + 0.01


def test_a_track_too_faint_to_be_meant_is_not_blown_up() -> None:
    noise = np.random.default_rng(1).normal(0, 3e-4, (96_000, 2)).astype(np.float32)
    _, gain = normalise_loudness(noise)
    assert gain == PROFILE.max_gain


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_truncated_master_is_refused(tmp_path: Path, share: float) -> None:
    whole = as_master(tmp_path / "w.mkv", gradient(48, 128, 128), 24, tone(2, 16000, 1), 16000)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    with pytest.raises(EncodingError, match=r"cut\.mkv is truncated or damaged"):
        probe(cut)
    with pytest.raises(EncodingError, match=r"cut\.mkv is truncated or damaged"):
        render(cut, seconds=2, audio=True)
    assert left_in(tmp_path) == ["cut.mkv", "w.mkv"]


def test_a_truncated_hosted_clip_is_refused(tmp_path: Path) -> None:
    whole = hosted_master(tmp_path / "w.mp4")
    probe(whole)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.7)])
    with pytest.raises(EncodingError, match=r"cut\.mp4 is truncated or damaged"):
        render(cut, seconds=1)


@pytest.mark.parametrize("where", [0.2, 0.5, 0.8])
def test_a_master_with_a_hole_is_refused(tmp_path: Path, where: float) -> None:
    master = as_master(tmp_path / "m.mkv", gradient(48, 128, 128), 24, None, 0)
    content = bytearray(master.read_bytes())
    start = int(len(content) * where)
    content[start : start + 2000] = bytes(2000)
    master.write_bytes(content)
    with pytest.raises(EncodingError, match="truncated or damaged"):
        render(master, seconds=1)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "m.mkv"
    text.write_text("502 bad gateway")
    with pytest.raises(EncodingError, match=r"m\.mkv is truncated or damaged"):
        probe(text)
    with pytest.raises(EncodingError, match=r"gone\.mkv does not exist"):
        probe(tmp_path / "gone.mkv")


def test_a_failure_leaves_the_earlier_rendition(tmp_path: Path) -> None:
    master = as_master(tmp_path / "m.mkv", gradient(8, 48, 48), 8, None, 0)
    rendition, _ = render(master, seconds=1)
    before = rendition.read_bytes()
    with pytest.raises(EncodingError, match="too short"):
        render(master, seconds=5)
    assert rendition.read_bytes() == before
    assert left_in(tmp_path) == ["m.mkv", "r.jpg", "r.mp4"]


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    master = as_master(tmp_path / "m.mkv", gradient(8, 48, 48), 8, None, 0)
    target = tmp_path / "missing" / "r.mp4"
    with pytest.raises(EncodingError, match=r"r\.mp4 can't be written .*/missing"):
        encode_rendition(master, target, tmp_path / "r.jpg", aspect="1:1", seconds=1, audio=False)
    (tmp_path / "taken.mp4").mkdir()
    with pytest.raises(EncodingError, match=r"taken\.mp4 can't be written"):
        render(master, seconds=1, name="taken")
    assert left_in(tmp_path) == ["m.mkv", "taken.mp4"]


@pytest.mark.parametrize(
    ("aspect", "seconds", "complaint"),
    [("4:3", 1.0, "'4:3': use one of 16:9, 1:1, 9:16"), ("1:1", 0.0, "0.0 s has no frame")],
)
def test_impossible_requests_say_what_is_possible(
    tmp_path: Path, aspect: str, seconds: float, complaint: str
) -> None:
    master = as_master(tmp_path / "m.mkv", gradient(8, 48, 48), 8, None, 0)
    with pytest.raises(EncodingError, match=complaint):
        render(master, aspect=aspect, seconds=seconds)
