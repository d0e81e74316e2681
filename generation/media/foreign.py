"""The child of generation/media/intake.py: reads a file of somebody else, writes a master of ours.

    python -m generation.media.foreign      a request as JSON on stdin, the answer on stdout

It imports neither Django nor settings. What is more than a clip may be ends the work at once:

1. Take only containers and codecs from a short list, tracks of a sane size, few of them.
2. Read the times of all pictures without decoding any: how many, how long, at what rate.
3. Decode the sound, if it is wanted, each piece at its own time.
4. Decode the pictures one by one, bring them to BT.709, and encode them at a constant rate.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import resource
import signal
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from generation.media.intake import (
    MEMORY_AT_MOST,
    TAKE_IN_SECONDS,
    WRITTEN_AT_MOST,
    Wanted,
    too_large,
)

if __name__ == "__main__":  # before any library is loaded
    for _kind, _most in (
        (resource.RLIMIT_AS, MEMORY_AT_MOST),
        (resource.RLIMIT_CPU, TAKE_IN_SECONDS),
        (resource.RLIMIT_FSIZE, WRITTEN_AT_MOST),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(_kind, (_most, _most))
    with contextlib.suppress(OSError, AttributeError):  # Linux: end when the worker ends
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from generation.media.masters import write_pictures
from generation.media.picture import recoloured, refuse_short, refuse_unshowable
from generation.media.profile import (
    CLOCK_SLACK,
    FILL_WITHIN,
    PROFILE,
    SOUND_SLACK,
    EncodingError,
    MediaFacts,
    SiteFault,
)
from generation.media.reading import damaged, declared_end

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream

    from generation.media.sound import Samples

# Playlists and the like can name other files and addresses, and a decoder would fetch them.
CONTAINERS = "mov,matroska"  # FFmpeg's names; MP4 is a kind of the first, WebM of the second
VIDEO_CODECS = ("h264", "hevc", "vp9", "av1", "prores", "mpeg4", "ffv1", "mjpeg")
_PCM = (
    "u8", "s8", "s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le", "f32be",
    "f64le", "f64be",
)  # fmt: skip
SOUND_CODECS = (
    *("aac", "opus", "vorbis", "flac", "mp3", "ac3"),
    *(f"pcm_{kind}" for kind in _PCM),
)
DECODERS = ",".join((*VIDEO_CODECS, *SOUND_CODECS, "libdav1d", "mp3float"))  # as FFmpeg has them
LONGEST_SECONDS = 60
FRAMES_AT_MOST = LONGEST_SECONDS * 60 + 1  # the terms end at 60 a second
PIXELS_AT_MOST = 4096 * 2304  # of a picture
PIXELS_IN_ALL = 4_000_000_000  # 32 s of 1080p at 60 frames a second, or 20 s of 4K at 24
TRACKS_AT_MOST = 32
CHANNELS_AT_MOST = 8
SOUND_PIECES_AT_MOST = LONGEST_SECONDS * 48_000 // 64  # Vorbis has the smallest: 64 samples
SOUND_GAP = Fraction(1, 100)  # times are rounded to the millisecond; more is a hole
ONE_PIECE = 256 << 20  # bytes; the largest that is asked for at once, an encoder's picture of 4K
# Pictures that keep no constant rate are put on this one: 24, 30 and 60 divide it, so that a
# rendition at any of these shows at each moment what the file shows then.
SAMPLED_FPS = 120
# A constant rate at which most pictures are missing is none.
RATE_FILLED = 0.5
FPS_SLACK = 0.05  # 59.94 and 60 alike, and clocks of a millisecond


@dataclass(frozen=True)
class Survey:
    """What the times of a file's pictures say, before any is decoded. Times are in seconds."""

    starts: tuple[Fraction, ...]  # in the order in which they are shown
    rate: Fraction | None  # None if it is not constant
    last: Fraction  # how long the last one stays

    @property
    def fps(self) -> Fraction:
        if self.rate is not None:
            return self.rate
        span = self.starts[-1] - self.starts[0]
        return (len(self.starts) - 1) / span if span else 1 / self.last

    @property
    def seconds(self) -> Fraction:
        span = self.starts[-1] - self.starts[0]
        # Matroska rounds times to the millisecond; ticks are exact.
        return (round(span * self.rate) + 1) / self.rate if self.rate else span + self.last


def take_in_here(source: Path, master: Path, wanted: Wanted) -> MediaFacts:
    """All steps, in this process; intake.py has them done in a process of their own."""
    with _opened(source) as media:
        video = _video_track(media, source, wanted)
        survey = _survey(media, video, source)
        _check_times(survey, video, source, wanted)
    sound, heard = None, None
    if wanted.audio:
        sound, heard = _read_sound(source, survey.starts[0])
    with _opened(source) as media:
        video = _video_track(media, source, wanted)
        pictures = _checked_pictures(media, video, survey, source)
        first = next(pictures)
        shape = Fraction(video.sample_aspect_ratio or 1)
        seen = (first.width, first.height, first.format.name)
        chroma_is_whole = "420" not in seen[2] or first.width % 2 or first.height % 2
        write_pictures(
            master,
            _at_constant_rate(first, pictures, survey, "yuv444p" if chroma_is_whole else "yuv420p"),
            survey.rate or Fraction(SAMPLED_FPS),
            shape,
            sound,
            PROFILE.sample_rate if sound is not None else None,
        )
        codec = video.codec_context.codec.canonical_name
    width, height, pixels = seen
    return MediaFacts(
        width=width,
        height=height,
        aspect=float(shape * width / height),
        frames=len(survey.starts),
        fps=float(survey.fps),
        seconds=float(survey.seconds),
        pixel_format=pixels,
        video_codec=codec,
        has_audio=sound is not None,
        audio_codec=heard and heard[0],
        sample_rate=heard and heard[1],
        channels=heard and heard[2],
        audio_seconds=len(sound) / PROFILE.sample_rate if sound is not None else None,
    )


# --- opening -------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    """Open with every limit that FFmpeg has; damage is an error."""
    options = {
        "format_whitelist": CONTAINERS,
        "codec_whitelist": DECODERS,
        "protocol_whitelist": "file",
        "max_streams": str(TRACKS_AT_MOST),
        "max_pixels": str(PIXELS_AT_MOST),  # FFmpeg decodes a little to find out what is in a file
        "threads": "1",
    }
    try:
        media = av.open(str(path), options=options, metadata_errors="replace")
    except MemoryError:  # FFmpeg says the same of both
        raise EncodingError(
            f"{path.name} holds more than {TRACKS_AT_MOST} tracks, or needs more than "
            f"{MEMORY_AT_MOST >> 30} GB to read: re-save it with one track of pictures and one of "
            "sound."
        ) from None
    except (av.FFmpegError, OSError, ValueError):
        raise EncodingError(
            f"{path.name} is not a readable MP4, MOV, Matroska or WebM file."
        ) from None
    with media:
        try:
            yield media
        except MemoryError:
            raise
        except av.FFmpegError as error:
            raise damaged(path, error.strerror or type(error).__name__) from None


def _prepare(stream: VideoStream | AudioStream) -> None:
    context = stream.codec_context
    context.options = {
        "err_detect": "crccheck+explode",
        "max_pixels": str(PIXELS_AT_MOST),
        "max_samples": str(LONGEST_SECONDS * 192_000),
    }
    context.thread_count = 1  # each thread holds pictures of its own


def _by_default_flag(streams: Any) -> list[Any]:
    """The file's own order, those first that it says are to be played."""
    return sorted(streams, key=lambda stream: not stream.disposition & stream.disposition.default)


def _codec(stream: Any) -> str:
    context = stream.codec_context
    return context.codec.canonical_name if context is not None else "a codec that is not known here"


def _video_track(media: InputContainer, source: Path, wanted: Wanted) -> VideoStream:
    """The track to be shown, whose size is that of such a clip by what its header says."""
    if (seconds := (media.duration or 0) / av.time_base) > LONGEST_SECONDS:
        raise _too_long(source, f"lasts {seconds:.0f} s")
    shown = [
        stream
        for stream in media.streams.video
        if not stream.disposition & stream.disposition.attached_pic  # the picture of an album
    ]
    if not shown:
        raise EncodingError(f"{source.name} has no video track. Export it with pictures.")
    video: VideoStream = _by_default_flag(shown)[0]
    if video.codec_context is None:
        raise EncodingError(
            f"{source.name} is damaged, or its pictures are in a codec that is not known here: "
            "save it as H.264."
        )
    if _codec(video) not in VIDEO_CODECS:
        raise EncodingError(
            f"The pictures of {source.name} are in {_codec(video)}, which is not taken: save it "
            "as H.264."
        )
    width, height = video.codec_context.width, video.codec_context.height
    if width * height > PIXELS_AT_MOST:
        raise EncodingError(
            f"{source.name} is {width}x{height}: make it of at most {PIXELS_AT_MOST:,} pixels, "
            "as 4096x2304."
        )
    if not width * height:  # FFmpeg forgets what is larger than it was told to take
        raise EncodingError(
            f"{source.name} states no size of its pictures, or more than {PIXELS_AT_MOST:,} "
            "pixels: make it of at most 4096x2304."
        )
    _check_shape(source, width, height, Fraction(video.sample_aspect_ratio or 1), wanted)
    _prepare(video)
    return video


def _check_shape(source: Path, width: int, height: int, pixel: Fraction, wanted: Wanted) -> None:
    across, down = (int(part) for part in wanted.aspect.split(":"))
    if abs(pixel * width / height * down / across - 1) > FILL_WITHIN:
        raise EncodingError(
            f"{source.name} is {width}x{height}, not {wanted.aspect} within "
            f"{FILL_WITHIN:.0%}, as the prompt asks. Make the clip in that aspect."
        )
    # Upright, wide and square pictures of one version share their short side or their area.
    short = min(width, height) < min(wanted.width, wanted.height)
    if short and width * height < wanted.width * wanted.height:
        raise EncodingError(
            f"{source.name} is {width}x{height}, smaller than the {wanted.width}x{wanted.height} "
            f"that {wanted.version} declares. Import the clip at the size it was made."
        )


def _too_long(source: Path, how: str) -> EncodingError:
    return EncodingError(f"{source.name} {how}. Cut it to {LONGEST_SECONDS} s.")


# --- times ---------------------------------------------------------------------------------------


def _survey(media: InputContainer, video: VideoStream, source: Path) -> Survey:
    """Read the times of all pictures; raises at the first that is too many or too late."""
    times: list[tuple[Fraction, Fraction]] = []
    longest = Fraction(LONGEST_SECONDS)
    for packet in media.demux(video):
        if packet.size == 0 or packet.is_discard:  # the end; what an edit list takes out
            continue
        times.append(_time_of(packet, source))
        if len(times) > FRAMES_AT_MOST:
            raise _too_long(source, f"holds more than {FRAMES_AT_MOST - 1:,} frames")
        if abs(times[-1][0] - times[0][0]) > longest:
            raise _too_long(source, f"lasts more than {LONGEST_SECONDS} s")
    if not times:
        raise EncodingError(f"{source.name} holds no video frame: make or fetch the clip again.")
    times.sort()
    starts, stated = tuple(start for start, _ in times), times[-1][1]
    if len(set(starts)) < len(starts):
        raise damaged(source, "two of its frames have the same time")
    rate = _constant_rate(video, starts)
    mean = (starts[-1] - starts[0]) / max(1, len(starts) - 1)
    last = 1 / rate if rate else mean or min(stated or Fraction(1, PROFILE.fps), longest)
    end, declared = starts[-1] + (stated or last), declared_end(media, video)
    if declared is not None and end < declared - last - CLOCK_SLACK:
        raise damaged(source, f"its video ends at {float(end):.2f} s of {float(declared):.2f} s")
    return Survey(starts, rate, last)


def _time_of(packet: Packet[Any], source: Path) -> tuple[Fraction, Fraction]:
    """When its picture is shown, and for how long by the file's word, in seconds."""
    if packet.is_corrupt:
        raise damaged(source, "a part of it is missing")
    if packet.pts is None:
        raise damaged(source, "a frame carries no time")
    return packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base


def _constant_rate(video: VideoStream, starts: tuple[Fraction, ...]) -> Fraction | None:
    """The lowest rate on whose ticks all pictures start; some ticks may have none."""
    if len(starts) < 2:
        return None
    middle = statistics.median(later - one for one, later in pairwise(starts))
    measured = (1 / middle).limit_denominator(1001)
    stated = (video.average_rate, video.guessed_rate, video.base_rate)
    slack = CLOCK_SLACK + (video.time_base or 0)
    for rate in sorted({rate for rate in (*stated, measured) if rate}):
        ticks = [round((start - starts[0]) * rate) for start in starts]
        on_time = all(
            abs(start - starts[0] - tick / rate) <= slack
            for start, tick in zip(starts, ticks, strict=True)
        )
        filled = len(starts) >= RATE_FILLED * (ticks[-1] + 1)
        if on_time and filled and len(set(ticks)) == len(ticks):
            return rate
    return None


def _check_times(survey: Survey, video: VideoStream, source: Path, wanted: Wanted) -> None:
    least, most = wanted.fps
    # A single picture has no rate; it is held for an operator's look.
    if len(survey.starts) > 1 and not least - FPS_SLACK <= survey.fps <= most + FPS_SLACK:
        raise EncodingError(
            f"{source.name} has {float(survey.fps):.4g} frames a second; {wanted.category} asks "
            f"for {least:g} to {most:g}. Make the clip at such a rate."
        )
    refuse_short(source.name, survey.seconds, survey.last, Fraction(wanted.seconds))
    pixels = video.codec_context.width * video.codec_context.height
    if pixels * len(survey.starts) > PIXELS_IN_ALL:
        raise EncodingError(
            f"{source.name} holds {len(survey.starts):,} frames of {video.codec_context.width}x"
            f"{video.codec_context.height}, more than {PIXELS_IN_ALL / 1e9:g} billion pixels: make "
            "it shorter or smaller."
        )


# --- pictures ------------------------------------------------------------------------------------


def _checked_pictures(
    media: InputContainer, video: VideoStream, survey: Survey, source: Path
) -> Iterator[VideoFrame]:
    """Decode them; each is as the header said, whole, and can be shown as it is."""
    size, count = (video.codec_context.width, video.codec_context.height), 0
    decoder = video.codec_context.name
    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture(local=True) as complaints:
        for frame in _decoded(media, video, source):
            if (frame.width, frame.height) != size:
                raise EncodingError(
                    f"{source.name} changes its frame size: re-save it at one size."
                )
            if frame.is_corrupt:
                raise damaged(source, f"frame {count + 1} is corrupt")
            # Decoders conceal what they lack and only say so.
            if said := [text for _, name, text in complaints if name == decoder]:
                raise damaged(source, said[0].strip())
            if frame.pts is None or frame.time_base is None:
                raise damaged(source, f"frame {count + 1} carries no time")
            refuse_unshowable(frame, source.name)
            count += 1
            if count > len(survey.starts):
                raise damaged(source, "it holds more frames than it has times for")
            yield frame
            complaints.clear()
        if said := [text for _, name, text in complaints if name == decoder]:
            raise damaged(source, said[0].strip())
    if count < len(survey.starts):
        raise damaged(source, f"only {count} of {len(survey.starts)} frames can be decoded")


def _decoded(media: InputContainer, video: VideoStream, source: Path) -> Iterator[VideoFrame]:
    """Whoever encodes the pictures must not take an error of theirs for one of its own."""
    try:
        yield from media.decode(video)
    except MemoryError:
        raise
    except av.FFmpegError as error:
        raise damaged(source, error.strerror or type(error).__name__) from None


def _at_constant_rate(
    first: VideoFrame, others: Iterator[VideoFrame], survey: Survey, pixel_format: str
) -> Iterator[VideoFrame]:
    """The picture that is shown at each tick of the master's rate."""
    rate, tick = survey.rate or Fraction(SAMPLED_FPS), 0
    current = recoloured(first, pixel_format)
    for frame in others:
        start = (frame.pts or 0) * (frame.time_base or Fraction(0)) - survey.starts[0]
        while tick / rate + CLOCK_SLACK < start:
            yield current
            tick += 1
        current = recoloured(frame, pixel_format)
    for _ in range(tick, max(tick + 1, round(survey.seconds * rate))):
        yield current


# --- sound ---------------------------------------------------------------------------------------


def _read_sound(source: Path, zero: Fraction) -> tuple[Samples, tuple[str, int, int]]:
    """The sound from the time `zero`, when the first picture is shown, each piece at its own time.

    Returns it as stereo at the profile's rate, with codec, rate and channels of the file's own.
    """
    pieces: list[tuple[Fraction, Samples]] = []
    with _opened(source) as media:
        stream = _sound_track(media, source)
        form: tuple[int, int] | None = None
        resampler, begin, expected = None, Fraction(0), None
        heard: list[Any] = []
        total = end = Fraction(0)
        for count, frame in enumerate(media.decode(stream), 1):
            rate, channels = frame.sample_rate, frame.layout.nb_channels
            form = form or _check_form(rate, channels, source)
            if (rate, channels) != form:
                raise EncodingError(
                    f"{source.name} changes the rate or the channels of its sound: re-save it "
                    "with one of each."
                )
            if frame.is_corrupt:
                raise damaged(source, "its sound is corrupt")
            start = _sound_start(frame, expected)
            length = Fraction(frame.samples, rate)
            total, end = total + length, start + length
            if count > SOUND_PIECES_AT_MOST:
                raise EncodingError(
                    f"{source.name} holds its sound in more than {SOUND_PIECES_AT_MOST:,} pieces: "
                    "re-save it as AAC."
                )
            if max(total, end - zero) > LONGEST_SECONDS + 1:
                raise _too_long(source, f"holds more than {LONGEST_SECONDS} s of sound")
            if resampler is None or expected is None or abs(start - expected) > SOUND_GAP:
                if resampler is not None:
                    pieces.append((begin, _joined(heard, resampler)))
                resampler = av.AudioResampler("fltp", "stereo", PROFILE.sample_rate)
                begin, heard = start, []
            heard += [piece.to_ndarray() for piece in resampler.resample(frame)]
            expected = end
        if resampler is None or form is None:
            raise EncodingError(
                f"{source.name} has an empty audio track: make or fetch the clip again."
            )
        pieces.append((begin, _joined(heard, resampler)))
        declared = declared_end(media, stream)
        if declared is not None and end < declared - SOUND_SLACK:
            raise damaged(
                source, f"its sound ends at {float(end):.2f} s of {float(declared):.2f} s"
            )
        codec = _codec(stream)
    return _placed(pieces, zero, source), (codec, *form)


def _sound_track(media: InputContainer, source: Path) -> AudioStream:
    """Of the tracks that can be decoded here, the one to be played."""
    tracks = list(media.streams.audio)
    if not tracks:
        raise EncodingError(
            f"{source.name} has no audio track, but its category has sound: make it with sound."
        )
    known = [track for track in tracks if _codec(track) in SOUND_CODECS]
    if not known:
        codecs = ", ".join(dict.fromkeys(_codec(track) for track in tracks))
        raise EncodingError(
            f"The sound of {source.name} is in {codecs}, which is not taken: save it as AAC."
        )
    chosen: AudioStream = _by_default_flag(known)[0]
    _prepare(chosen)
    return chosen


def _check_form(rate: int, channels: int, source: Path) -> tuple[int, int]:
    if not (8_000 <= rate <= 192_000 and 1 <= channels <= CHANNELS_AT_MOST):
        raise EncodingError(
            f"The sound of {source.name} has {channels} channels at {rate:,} Hz: save it as stereo "
            "at 48,000 Hz."
        )
    return rate, channels


def _sound_start(frame: AudioFrame, expected: Fraction | None) -> Fraction:
    if frame.pts is None or frame.time_base is None:
        return expected or Fraction(0)
    return frame.pts * frame.time_base


def _joined(heard: list[Any], resampler: Any) -> Samples:
    heard += [piece.to_ndarray() for piece in resampler.resample(None)]
    joined = np.concatenate(heard, axis=1) if heard else np.zeros((2, 0))
    return joined.T.astype(np.float32)


def _placed(pieces: list[tuple[Fraction, Samples]], zero: Fraction, source: Path) -> Samples:
    rate = PROFILE.sample_rate
    at = [(round((begin - zero) * rate), piece) for begin, piece in pieces]
    sound = np.zeros((max(1, max(start + len(piece) for start, piece in at)), 2), np.float32)
    for start, piece in at:
        heard = piece[max(0, -start) :]
        sound[max(0, start) :][: len(heard)] = heard
    if not np.isfinite(sound).all():
        raise EncodingError(
            f"The sound of {source.name} is no numbers in places: re-save it as 16-bit PCM or AAC."
        )
    return np.clip(sound, -1, 1)


# --- the process ---------------------------------------------------------------------------------


def _memory_is_used_up() -> bool:
    """Whether what failed may have failed for want of memory: libraries seldom say so."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmPeak:"):
                return int(line.split()[1]) * 1024 > MEMORY_AT_MOST - ONE_PIECE
    return False


def _answer_to(request: dict[str, Any]) -> dict[str, Any]:
    source, master = Path(request["source"]), Path(request["master"])
    wanted = Wanted(**request["wanted"])
    try:
        return {"facts": asdict(take_in_here(source, master, wanted))}
    except SiteFault as error:
        if _memory_is_used_up():
            return {"refused": str(too_large(source.name))}
        cause = error.__cause__
        return {"fault": str(error), "errno": cause.errno if isinstance(cause, OSError) else None}
    except MemoryError:
        return {"refused": str(too_large(source.name))}
    except EncodingError as error:
        return {"refused": str(too_large(source.name) if _memory_is_used_up() else error)}
    except Exception as error:
        why = f"{source.name} can't be read ({type(error).__name__}: {error})"
        return {"refused": f"{why}: re-save it with another program."}


def main() -> NoReturn:
    json.dump(_answer_to(json.load(sys.stdin)), sys.stdout)
    sys.stdout.flush()
    sys.exit(0)


if __name__ == "__main__":
    main()
