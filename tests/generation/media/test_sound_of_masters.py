"""A master made elsewhere can hold numbers that are no sound: that is said of the sound."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from generation.media.profile import EncodingError
from generation.media.renditions import as_shown, encode_rendition

RATE = 48_000


def master(path: Path, wrong: float) -> Path:
    """A second of a grey picture and of a float track with one wrong sample, at 0.5 s."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=24)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        sound = out.add_stream("pcm_f32le", rate=RATE, layout="stereo")
        for number in range(24):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        samples = np.full((1, 2 * RATE), 0.1, np.float32)
        samples[0, RATE] = wrong
        heard = av.AudioFrame.from_ndarray(samples, format="flt", layout="stereo")
        heard.sample_rate, heard.pts = RATE, 0
        out.mux(sound.encode(heard))
        out.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_a_sample_that_is_no_number_is_named(tmp_path: Path, wrong: float) -> None:
    made = master(tmp_path / "made.mov", wrong)
    said = r"The sound of made\.mov contains NaN or infinite samples, the first at 0\.50 s"
    files = tmp_path / "rendition.mp4", tmp_path / "poster.jpg"
    with pytest.raises(EncodingError, match=said):
        encode_rendition(made, *files, aspect="1:1", seconds=1, audio=True)
    assert not any(file.exists() for file in files)
    with pytest.raises(EncodingError, match=said):
        as_shown(made, aspect="1:1", seconds=1, audio=True)
