"""Frames as voters see them: at the profile's times, on its canvas; their motion; the poster."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import Interpolation
from PIL import Image, ImageFilter

from generation.media import profile
from generation.media.padding import DoesNotFit, pad_poster
from generation.media.profile import CLOCK_SLACK, EncodingError, fills
from generation.media.reading import ShownFrame, read_frames

# Code points of ITU-T H.273, which FFmpeg and its scaler use as numbers.
BT709 = 1
BT601 = 5
LIMITED_RANGE = 1
FULL_RANGE = 2
LIMITED_SPAN = 219  # black is 16 and white 235
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
# Curves that players show like BT.709's, and primaries that are nearly its own; 2 is "not stated".
TRANSFERS = {1, 2, 4, 5, 6, 7, 11, 12, 13, 14, 15}
PRIMARIES = {1, 2, 4, 5, 6, 7}
WIDE_PRIMARIES = {8: "film", 9: "BT.2020", 10: "XYZ", 11: "DCI-P3", 12: "Display P3", 22: "EBU"}
# Colour matrices as files state them -> as the scaler knows them; 2 means "not stated", 0 is RGB.
SWS_MATRICES = {1: BT709, 4: 4, 5: BT601, 6: BT601, 7: 7, 9: 9}
# What a file that states no colour matrix means depends on its height, by the custom of players.
SD_MAX_HEIGHT = 576

# One filter whatever the size, and the same result on every processor.
SCALER = Interpolation.LANCZOS | Interpolation.ACCURATE_RND | Interpolation.BITEXACT

BLOCK = 8  # pixels
POSTER_BLURS = (0.0, 1.0, 2.0, 4.0)  # pixels; white noise alone needs more than the first


def on_canvas(master: Path, width: int, height: int, count: int) -> Iterator[VideoFrame]:
    """Yield exactly `count` frames of the canvas's size, ready for the encoder."""
    source, picture = None, None
    for number, shown in enumerate(_sampled(master, count)):
        if picture is None or shown is not source:
            source, picture = shown, _fit(shown, width, height, master)
        picture.pts, picture.time_base = number, Fraction(1, profile.PROFILE.fps)
        # A decoded frame remembers its type, and x264 would take that as an order.
        picture.pict_type = PictureType.NONE
        yield picture


def _sampled(master: Path, count: int) -> Iterator[ShownFrame]:
    """Yield, for each tick of the rendition, the frame that the master shows at that time."""
    tick, ticks = Fraction(1, profile.PROFILE.fps), 0
    first: ShownFrame | None = None
    current: ShownFrame | None = None
    # The whole master is decoded, so that a damaged one never passes unnoticed.
    for shown in read_frames(master):
        first = first or shown
        while current and ticks < count and ticks * tick + CLOCK_SLACK < shown.start - first.start:
            yield current
            ticks += 1
        current = shown
    if first is None or current is None:
        raise EncodingError(f"{master.name} holds no video frame: make or fetch the clip again.")
    length = current.end - first.start
    refuse_short(master.name, length, current.end - current.start, count * tick)
    for _ in range(ticks, count):
        yield current


def _fit(shown: ShownFrame, width: int, height: int, master: Path) -> VideoFrame:
    """Scale a frame to the canvas with one filter for every source.

    A picture of nearly the canvas's shape fills it and loses a sliver at two edges: thin bars
    would be the mark of every model whose sizes are multiples of 32. Others stand on black.
    """
    refuse_unshowable(shown.frame, master.name)
    scaled_width, scaled_height = _scaled_size(shown.aspect, width, height)
    scaled = recoloured(shown.frame, profile.PROFILE.pixel_format, (scaled_width, scaled_height))
    if (scaled_width, scaled_height) == (width, height):
        return scaled
    return _on_black(scaled, width, height)


def recoloured(frame: VideoFrame, pixel_format: str, size: tuple[int, int] = (0, 0)) -> VideoFrame:
    """The frame in BT.709 and limited range, scaled to `size` if one is given."""
    untagged_matrix = BT601 if frame.height <= SD_MAX_HEIGHT else BT709
    return frame.reformat(
        size[0] or frame.width,
        size[1] or frame.height,
        pixel_format,
        src_colorspace=SWS_MATRICES.get(frame.colorspace, untagged_matrix),
        dst_colorspace=BT709,
        interpolation=SCALER,
        src_color_range=FULL_RANGE if frame.color_range == FULL_RANGE else LIMITED_RANGE,
        dst_color_range=LIMITED_RANGE,
        threads=1,
    )


def refuse_unshowable(frame: VideoFrame, name: str) -> None:
    """Raise if a player would show something else than these pixels with BT.709's meaning."""
    if frame.rotation:
        raise EncodingError(
            f"{name} is stored rotated by {frame.rotation} degrees: re-save it upright."
        )
    if _is_turned(frame):
        raise EncodingError(f"{name} is stored mirrored: re-save it as it is to be seen.")
    if frame.interlaced_frame:
        raise EncodingError(f"{name} is interlaced: deinterlace it first.")
    if frame.color_trc in HDR_TRANSFERS:
        raise EncodingError(
            f"{name} is {HDR_TRANSFERS[frame.color_trc]} high dynamic range: "
            "convert it to BT.709 first."
        )
    if frame.color_primaries not in PRIMARIES:
        primaries = WIDE_PRIMARIES.get(frame.color_primaries, f"no. {frame.color_primaries}")
        raise EncodingError(f"{name} has {primaries} primaries: convert it to BT.709 first.")
    if frame.color_trc not in TRANSFERS:
        raise EncodingError(
            f"{name} has the transfer curve no. {frame.color_trc} of ITU-T H.273: convert it to "
            "BT.709 first."
        )
    if frame.colorspace not in {0, 2, *SWS_MATRICES}:
        raise EncodingError(
            f"{name} has the colour matrix no. {frame.colorspace} of ITU-T H.273: convert it to "
            "BT.709 first."
        )


def _is_turned(frame: VideoFrame) -> bool:
    """Whether the display matrix does anything but scale: 3 x 3 numbers of 32 bits, by rows."""
    for entry in frame.side_data:
        matrix: Any = entry  # its stubs take the container's keys for its entries
        if matrix.type == SideDataType.DISPLAYMATRIX:
            a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
            return bool(a <= 0 or d <= 0 or b or c)
    return False


def refuse_short(name: str, length: Fraction, last: Fraction, asked: Fraction) -> None:
    """The last frame, which stays for `last` s, may stay for the time of one more, no longer."""
    if length + last + CLOCK_SLACK < asked:
        raise EncodingError(
            f"{name} lasts {float(length):.2f} s, too short for a rendition of "
            f"{float(asked):.2f} s: make a longer clip or ask for less."
        )


def _scaled_size(aspect: Fraction, width: int, height: int) -> tuple[int, int]:
    """The even size that a picture of this shape is scaled to: round the canvas or inside it."""
    full_width = 2 * max(1, round(height * aspect / 2))  # at the canvas's height
    full_height = 2 * max(1, round(width / aspect / 2))  # at the canvas's width
    if fills(aspect, width, height):
        return max(width, full_width), max(height, full_height)
    return min(width, full_width), min(height, full_height)


def _on_black(picture: VideoFrame, width: int, height: int) -> VideoFrame:
    """The picture in the middle of a black canvas; what stands out beyond the canvas is cut off."""
    canvas = [np.full((height, width), 16, np.uint8)]  # black in limited range: Y 16, U and V 128
    canvas += [np.full((height // 2, width // 2), 128, np.uint8) for _ in "UV"]
    for plane, source in zip(canvas, _planes(picture), strict=True):
        shrink = height // len(plane)
        to_rows, from_rows = _centred(height, picture.height, shrink)
        to_columns, from_columns = _centred(width, picture.width, shrink)
        plane[to_rows, to_columns] = source[from_rows, from_columns]
    packed = np.concatenate([plane.reshape(-1) for plane in canvas]).reshape(-1, width)
    return VideoFrame.from_ndarray(packed, format=profile.PROFILE.pixel_format)


def _centred(outer: int, inner: int, shrink: int) -> tuple[slice, slice]:
    """Where a centred picture lies on the canvas, and which part of the picture that is."""
    gap = abs(outer - inner) // 4 * 2 // shrink
    whole, part = slice(None), slice(gap, gap + min(outer, inner) // shrink)
    return (part, whole) if inner < outer else (whole, part)


@dataclass
class Watched:
    """What a rendition's frames showed, on the scale of luma from black, 0, to white, 255."""

    changes: list[float] = field(default_factory=list)  # of each frame from the one before
    brightest: float = 0.0  # but for a thousandth of the pixels of the brightest frame
    moved: float = 0.0  # most that the mean of any block differs from the first frame's


def watch_frames(rendition: Iterable[ShownFrame], watched: Watched) -> Iterator[ShownFrame]:
    """Hand on a rendition's frames; note in `watched` what they show.

    A change is the mean absolute difference of luma over the canvas, bars and all: a grey picture
    that turns from 100 to 150 has changed by 50. The mean of the changes is the motion of the
    rendition, per frame of 1/24 s; the jump from the end of the loop to its start is not part of
    it.
    """
    first = before = None
    for shown in rendition:
        luma = _planes(shown.frame)[0]
        scale = 255 / LIMITED_SPAN
        if first is None or before is None:
            first = _blocks(luma)
        else:
            watched.changes.append(float(_difference(luma, before).mean()) * scale)
            moved = float(np.abs(_blocks(luma) - first).max()) * scale
            watched.moved = max(watched.moved, moved)
        bright = np.percentile(luma[::4, ::4], 99.9, method="lower")
        watched.brightest = max(watched.brightest, (float(bright) - 16) * scale)
        before = luma
        yield shown


def _blocks(luma: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The mean of each block: compression changes single pixels of a still picture, not these."""
    rows, columns = luma.shape[0] // BLOCK, luma.shape[1] // BLOCK
    cut = luma[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    return cut.mean(axis=(1, 3), dtype=np.float32)


def _difference(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    # Bytes can't hold a negative difference; the larger minus the smaller has none.
    return np.maximum(one, other) - np.minimum(one, other)


def _planes(frame: VideoFrame) -> list[npt.NDArray[np.uint8]]:
    """Y, U and V of 8-bit 4:2:0, as they lie in the memory of decoder or scaler."""
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(cast(memoryview, plane), np.uint8).reshape(-1, plane.line_size)
        planes.append(rows[: plane.height, : plane.width])  # rows are padded
    return planes


def write_poster(rendition: Path, poster: Path) -> None:
    """Save the rendition's first frame, smaller; Pillow writes neither EXIF nor a name.

    A frame that is too large for the poster's size is blurred: a lower quality would be told by the
    file's tables.
    """
    first = next(read_frames(rendition)).frame
    rgb = first.reformat(
        format="rgb24",
        src_colorspace=BT709,
        src_color_range=LIMITED_RANGE,
        dst_color_range=FULL_RANGE,
        threads=1,
    )
    picture = Image.fromarray(rgb.to_ndarray()).reduce(profile.PROFILE.poster_shrink)
    size = round(picture.width * picture.height * profile.PROFILE.poster_bits_per_pixel / 8)
    for blur in POSTER_BLURS:
        coded = io.BytesIO()
        blurred = picture.filter(ImageFilter.GaussianBlur(blur)) if blur else picture
        blurred.save(coded, "JPEG", quality=profile.PROFILE.poster_quality)
        try:
            poster.write_bytes(pad_poster(coded.getvalue(), size))
            return
        except DoesNotFit:
            continue
    raise EncodingError(f"{rendition.name} has no poster of {size} bytes: report this as a defect.")
