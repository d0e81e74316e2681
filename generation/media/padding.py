"""Coded pictures, sound and posters filled up to one size, so that sizes tell nothing.

What is added is what each format has for it, and every decoder passes over it: filler data in
H.264, fill elements in AAC, bytes after a JPEG's end. Bytes in, bytes out.
"""

START = b"\0\0\0\1"  # as long as the length that takes its place in MP4
SEI, FILLER = 6, 12  # ITU-T H.264, table 7-1
END, FILL = 0b111, 0b110  # ISO/IEC 14496-3, table 4.85
LONGEST_FILL = 269  # bytes, by the widths of a fill element's two counts


class DoesNotFit(Exception):
    """What was coded is larger than its place: code it again with fewer bits."""


def pad_picture(coded: bytes, size: int) -> bytes:
    """An access unit (Annex B) of `size` bytes, as MP4 counts them.

    Units of supplemental information go: x264 writes its name and settings into one. The filler
    unit is 0xFF throughout (7.3.2.7), so nothing in it looks like a start code.
    """
    units = [unit.rstrip(b"\0") for unit in coded.split(b"\0\0\1")[1:]]
    kept = b"".join(START + unit for unit in units if unit[0] & 31 != SEI)
    room = size - len(kept) - len(START) - 2
    if room < 0:
        raise DoesNotFit
    return kept + START + bytes([FILLER]) + b"\xff" * room + b"\x80"


def pad_sound(coded: bytes, size: int) -> bytes:
    """A raw data block of AAC of `size` bytes: fill elements go in before its end.

    The block ends in the element END and zeros up to a whole byte (4.4.2.1), so the last bit that
    is set is END's.
    """
    number = int.from_bytes(coded)
    zeros = (number & -number).bit_length() - 1
    if number >> zeros & END != END:
        raise ValueError("The block of AAC does not close with its END element.")
    bits = number >> zeros + 3
    room = 8 * (size - len(coded)) + zeros
    if room < 0:
        raise DoesNotFit
    while room >= 8:  # fewer bits fill up the last byte
        if room >= 15 + 8 * 15:
            count = min(LONGEST_FILL, (room - 15) // 8)
            head, width = FILL << 12 | 15 << 8 | count - 14, 15
        else:
            count = min(14, (room - 7) // 8)
            head, width = FILL << 4 | count, 7
        bits = (bits << width | head) << 8 * count  # zeros within are "extension type: fill"
        room -= width + 8 * count
    return ((bits << 3 | END) << room).to_bytes(size)


def pad_poster(coded: bytes, size: int) -> bytes:
    """A JPEG of `size` bytes; what follows its end is not looked at."""
    if len(coded) > size:
        raise DoesNotFit
    return coded.ljust(size, b"\0")
