"""What every rendition is, and how far a master may be from it.

Nothing is imported here but the standard library: pages show these numbers too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType

# Sound may stop this much before its declared end: one AAC frame at 16 kHz is 64 ms.
SOUND_SLACK = Fraction(1, 10)
# Matroska rounds times to the millisecond: what is no further apart is read as the same time.
CLOCK_SLACK = Fraction(1, 1000)
# A master with less than this share of the profile's frame rate, or of the canvas's short side, is
# off-format, as is one that leaves bars on the canvas: voters may see that much at once.
LEAST_SHARE_OF_PROFILE = 0.5
# How far a picture's shape may be from the canvas's and still fill it; the common sizes 832x480 and
# 1280x704 are 2.5 % and 2.3 % from 16:9.
FILL_WITHIN = 0.04


class EncodingError(Exception):
    """One sentence: which file, what is wrong with it, what to do."""


class SiteFault(EncodingError):
    """The file may be good: a disk is full, a folder can't be written, a process can't start."""


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


def canvas_of(aspect: str) -> tuple[int, int]:
    """Width and height of every rendition with this aspect."""
    if aspect not in PROFILE.canvases:
        known = ", ".join(PROFILE.canvases)
        raise EncodingError(f"No canvas has the aspect {aspect!r}: use one of {known}.")
    return PROFILE.canvases[aspect]


def frame_count(seconds: float) -> int:
    """How many frames a rendition of this length has."""
    count = round(seconds * PROFILE.fps) if math.isfinite(seconds) else 0
    if count < 1:
        raise EncodingError(f"A rendition of {seconds} s has no frame: ask for a longer one.")
    return count


def fills(aspect: float | Fraction, width: int, height: int) -> bool:
    """Whether a picture of this shape fills the canvas, less a sliver at two edges."""
    return abs(float(aspect) * height / width - 1) <= FILL_WITHIN


def is_off_format(master: MediaFacts, aspect: str) -> bool:
    """Whether a version's native frame rate, size or shape is far from the profile."""
    width, height = canvas_of(aspect)
    return (
        master.fps < LEAST_SHARE_OF_PROFILE * PROFILE.fps
        or min(master.width, master.height) < LEAST_SHARE_OF_PROFILE * min(width, height)
        or not fills(master.aspect, width, height)
    )
