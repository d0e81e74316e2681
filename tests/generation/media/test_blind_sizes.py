"""Sizes and layout of renditions: the same whatever a clip shows, and the picture still right."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.codec.context import Flags

from generation.media import profile, renditions
from generation.media.container import top_level_boxes
from generation.media.masters import RawClip, write_master
from generation.media.padding import DoesNotFit, pad_picture, pad_poster, pad_sound
from generation.media.profile import PROFILE, EncodingError, is_off_format
from generation.media.reading import probe
from generation.media.renditions import RenditionFacts, encode_rendition

Pictures = npt.NDArray[np.uint8]
Sound = npt.NDArray[np.float32]
RATE = 48_000
RNG = np.random.default_rng(11)


def flat(count: int, height: int = 90, width: int = 160) -> Pictures:
    return np.full((count, height, width, 3), 90, np.uint8)


def noise(count: int, height: int = 180, width: int = 320) -> Pictures:
    return RNG.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def motion(count: int, height: int = 180, width: int = 320) -> Pictures:
    """A sharp texture that slides, with a cut in the middle."""
    texture = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    frames = [np.roll(texture, 7 * n, axis=1) for n in range(count)]
    return np.stack([255 - f if n >= count // 2 else f for n, f in enumerate(frames)])


def silence(seconds: float) -> Sound:
    return np.zeros((round(seconds * RATE), 2), np.float32)


def hiss(seconds: float) -> Sound:
    return RNG.normal(0, 0.1, (round(seconds * RATE), 2)).clip(-1, 1).astype(np.float32)


def clicks(seconds: float) -> Sound:
    sound = silence(seconds)
    sound[RNG.integers(0, len(sound), 150)] = 0.9
    return sound


def made(
    folder: Path,
    name: str,
    frames: Pictures,
    fps: float,
    sound: Sound | None = None,
    *,
    seconds: float = 2,
    aspect: str = "16:9",
) -> tuple[bytes, bytes, RenditionFacts]:
    """Rendition and poster of a clip, with sound if it has some."""
    master = folder / f"{name}.mkv"
    write_master(RawClip(frames, fps, sound, None if sound is None else RATE), master)
    rendition, poster = folder / f"{name}.mp4", folder / f"{name}.jpg"
    facts = encode_rendition(
        master, rendition, poster, aspect=aspect, seconds=seconds, audio=sound is not None
    )
    return rendition.read_bytes(), poster.read_bytes(), facts


def outside(content: bytes) -> tuple[int, str]:
    """A file's length, and all that stands before coded pictures and sound."""
    kinds = [kind for kind, _ in top_level_boxes(content)]
    assert kinds[-1] == "mdat"
    before = sum(size for kind, size in top_level_boxes(content) if kind != "mdat") + 8
    return len(content), hashlib.sha256(content[:before]).hexdigest()


@pytest.mark.parametrize(
    "sounding", [False, pytest.param(True, marks=pytest.mark.full_size)], ids=["silent", "sounding"]
)
def test_files_of_unlike_clips_differ_only_in_pictures_and_sound(
    tmp_path: Path, sounding: bool
) -> None:
    # Lengths, rates and sizes differ too: all are cut to what is asked.
    clips = {
        "flat": (flat(16), 8, silence(2.0)),
        "noise": (noise(51), 25, hiss(2.1)),
        "motion": (motion(90), 30, clicks(3.0)),
    }
    files = {
        name: made(tmp_path, name, frames, fps, sound if sounding else None)
        for name, (frames, fps, sound) in clips.items()
    }
    assert len({outside(video) for video, _, _ in files.values()}) == 1
    assert len({len(poster) for _, poster, _ in files.values()}) == 1
    assert len({poster[: poster.index(b"\xff\xda")] for _, poster, _ in files.values()}) == 1
    key, other = PROFILE.packet_sizes(*profile.canvas_of("16:9"))
    for name in files:
        with av.open(str(tmp_path / f"{name}.mp4")) as media:
            sizes = [p.size for p in media.demux(video=0) if p.size]
        assert sizes == [other if n % PROFILE.gop else key for n in range(48)]
        with av.open(str(tmp_path / f"{name}.mp4")) as media:
            assert len(media.streams.audio) == sounding
            heard = {p.size for p in media.demux(audio=0) if p.size} if sounding else set()
        assert heard == ({PROFILE.sound_packet} if sounding else set())


@pytest.mark.full_size
def test_layout_stays_the_same_beyond_the_muxers_chunks(tmp_path: Path) -> None:
    # Five seconds are several megabytes, at each of which the muxer starts a new chunk.
    one, _, _ = made(tmp_path, "flat", flat(40), 8, silence(5), seconds=5)
    two, _, _ = made(tmp_path, "motion", motion(120), 24, hiss(5), seconds=5)
    assert outside(one) == outside(two)
    assert len(one) > 5_000_000


def test_every_rendition_of_a_prompt_is_cut_to_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(PROFILE, canvases={"16:9": (320, 180)})
    monkeypatch.setattr(profile, "PROFILE", small)
    lengths = set()
    for name, count, fps in (("wan", 81, 16), ("ltx", 121, 24), ("long", 240, 30)):
        video, _, facts = made(tmp_path, name, motion(count, 90, 160), fps, seconds=5)
        lengths.add(outside(video))
        assert (facts.frames, facts.seconds) == (120, 5)
    assert len(lengths) == 1


@pytest.mark.full_size
def test_a_busy_picture_is_still_right(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:360, 0:640] / 8
    frames = np.stack(
        [
            np.stack(
                [
                    127 + 60 * np.sin(columns + n / 3) + 40 * np.sin(rows * 2 + n / 5),
                    127 + 90 * np.sin(rows + columns - n / 4),
                    127 + 90 * np.cos(rows * columns / 40 + n / 6),
                ],
                axis=-1,
            )
            for n in range(48)
        ]
    ).astype(np.uint8)
    made(tmp_path, "busy", frames, 24)
    with av.open(str(tmp_path / "busy.mp4")) as media:
        shown = [
            f.reformat(640, 360, "rgb24", interpolation="AREA").to_ndarray()
            for f in media.decode(video=0)
        ]
    errors = [((a.astype(float) - b) ** 2).mean() for a, b in zip(shown, frames, strict=True)]
    assert max(errors) < 50  # of a frame, all colours: 31 dB
    # Each is the frame of its own moment: the neighbour is further away.
    later = [
        ((a.astype(float) - b) ** 2).mean()
        for a, b in zip(shown, [*frames[1:], frames[0]], strict=True)
    ]
    assert all(own < other / 3 for own, other in zip(errors, later, strict=True))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile whose packets are too small for noise at the first try."""
    canvases = {"16:9": (160, 90)}
    small = replace(PROFILE, canvases=canvases, key_bits_per_pixel=0.6, bits_per_pixel=0.12)
    monkeypatch.setattr(profile, "PROFILE", small)


def test_what_does_not_fit_is_encoded_again_with_fewer_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, narrow: None
) -> None:
    # The encoders are asked for more than there is room for: only a later try can fit.
    monkeypatch.setattr(renditions, "TRIES", (3.0, 1.5, 0.6, 0.3))
    hard, _, _ = made(tmp_path, "noise", noise(48, 90, 160), 24)
    easy, _, _ = made(tmp_path, "flat", flat(48), 24)
    assert outside(hard) == outside(easy)
    assert probe(tmp_path / "noise.mp4").frames == 48


def test_what_never_fits_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, narrow: None
) -> None:
    monkeypatch.setattr(renditions, "TRIES", (3.0, 2.0))
    with pytest.raises(EncodingError, match=r"noise\.mkv can't be held within the profile's"):
        made(tmp_path, "noise", noise(48, 90, 160), 24)
    assert [path.name for path in tmp_path.iterdir()] == ["noise.mkv"]


def test_a_poster_that_is_too_busy_is_blurred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, narrow: None
) -> None:
    busy = replace(profile.PROFILE, poster_bits_per_pixel=2.5, key_bits_per_pixel=8.0)
    monkeypatch.setattr(profile, "PROFILE", busy)
    # The tables of a JPEG are 623 bytes, much for a poster of 80x45.
    _, hard, _ = made(tmp_path, "noise", noise(24, 90, 160), 24, seconds=1)
    _, easy, _ = made(tmp_path, "flat", flat(24), 24, seconds=1)
    assert len(hard) == len(easy) == round(80 * 45 * 2.5 / 8)
    scan = hard.index(b"\xff\xda")
    assert hard[:scan] == easy[:scan]


# --- padding -------------------------------------------------------------------------------------


def coded(name: str, **fields: object) -> av.CodecContext:
    context = av.CodecContext.create(name, "w")
    context.flags |= Flags.bitexact
    for key, value in fields.items():
        setattr(context, key, value)
    return context


def test_padding_leaves_pictures_as_they_are() -> None:
    encoder = coded("libx264", width=64, height=48, pix_fmt="yuv420p", time_base=Fraction(1, 24))
    packets = []
    for number, rgb in enumerate(noise(12, 48, 64)):
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts = number
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    size = max(packet.size for packet in packets) + 7
    padded = [pad_picture(bytes(packet), size) for packet in packets]
    assert {len(unit) for unit in padded} == {size}
    assert b"x264" in bytes(packets[0])
    assert b"x264" not in padded[0]

    def decoded(units: list[bytes]) -> list[Pictures]:
        decoder = av.CodecContext.create("h264", "r")
        frames = [f for unit in units for f in decoder.decode(av.Packet(unit))]
        return [f.to_ndarray() for f in [*frames, *decoder.decode(None)]]

    plain, filled = decoded([bytes(packet) for packet in packets]), decoded(padded)
    assert len(plain) == len(filled) == 12
    assert all((a == b).all() for a, b in zip(plain, filled, strict=True))
    with pytest.raises(DoesNotFit):
        pad_picture(bytes(packets[0]), 100)


def test_padding_leaves_sound_as_it_is() -> None:
    encoder = coded(
        "aac", sample_rate=RATE, layout="stereo", format="fltp", bit_rate=96_000,
        time_base=Fraction(1, RATE),
    )  # fmt: skip
    sound = np.concatenate([hiss(0.3), silence(0.3), clicks(0.3)])
    packets = []
    for first in range(0, len(sound) - 1023, 1024):
        piece = np.ascontiguousarray(sound[first : first + 1024].T)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE, first
        packets += encoder.encode(frame)
    packets += encoder.encode(None)

    def decoded(blocks: list[bytes]) -> Sound:
        decoder = av.CodecContext.create("aac", "r")
        decoder.extradata = encoder.extradata
        frames = [f for block in blocks for f in decoder.decode(av.Packet(block))]
        return np.concatenate([f.to_ndarray() for f in frames], axis=1)

    blocks = [bytes(packet) for packet in packets]
    plain, largest = decoded(blocks), max(len(block) for block in blocks)
    # Every remainder that fill elements have to make up: short ones, long ones, several.
    for room in (*range(40), 268, 269, 270, 271, 272, 600):
        filled = [pad_sound(block, largest + room) for block in blocks]
        assert {len(block) for block in filled} == {largest + room}
        assert (decoded(filled) == plain).all()
    # And from each block itself upwards, whatever its last byte holds.
    for block in blocks:
        for room in range(20):
            assert len(pad_sound(block, len(block) + room)) == len(block) + room
    with pytest.raises(DoesNotFit):
        pad_sound(blocks[0], len(blocks[0]) - 1)


def test_a_poster_is_filled_up_after_its_end() -> None:
    assert pad_poster(b"\xff\xd8\xff\xd9", 6) == b"\xff\xd8\xff\xd9\0\0"
    with pytest.raises(DoesNotFit):
        pad_poster(bytes(7), 6)


# --- off-format ----------------------------------------------------------------------------------


@pytest.mark.full_size
@pytest.mark.parametrize(
    ("frames", "fps", "size", "aspect", "far"),
    [
        (24, 24, (360, 640), "16:9", False),
        (24, 24, (640, 360), "9:16", False),
        (12, 12, (480, 832), "16:9", False),
        (8, 8, (480, 832), "16:9", True),
        (24, 24, (256, 448), "16:9", True),
        (24, 24, (480, 640), "16:9", True),
    ],
)
def test_what_is_far_from_the_profile(
    tmp_path: Path, frames: int, fps: int, size: tuple[int, int], aspect: str, far: bool
) -> None:
    write_master(RawClip(flat(frames, *size), fps, None, None), tmp_path / "m.mkv")
    assert is_off_format(probe(tmp_path / "m.mkv"), aspect) is far
