"""What is asked of tiny pipelines: settings and requests of one second at 64x64."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from generation.backends import Request
from generation.backends.diffusers.weights import digest_of
from generation.catalogue.categories import Conditions
from generation.media.masters import RawClip

SQUARE = np.random.default_rng(5).integers(0, 256, (96, 96, 3), np.uint8)
# Guidance that the real LTX-2 uses by default, but that needs more layers than two.
PLAIN_LTX2 = {
    "stg_scale": 0.0,
    "audio_stg_scale": 0.0,
    "modality_scale": 1.0,
    "audio_modality_scale": 1.0,
}


def tiny(pipeline: str, source: Path | str, **changes: Any) -> dict[str, Any]:
    """Settings of a tiny pipeline; a directory is pinned to what lies in it now."""
    arguments = {"num_inference_steps": 2, "max_sequence_length": 32}
    pin = {"digest": digest_of(source)} if isinstance(source, Path) else {}
    return {
        "pipeline": pipeline,
        "source": str(source),
        "dtype": "float32",
        "offload": "none",
        "width": 64,
        "height": 64,
        "frames": 17,
        "fps": 16,
        "arguments": arguments | (PLAIN_LTX2 if pipeline.startswith("LTX2") else {}),
        **pin,
        **changes,
    }


def wish(
    audio: bool = False,
    image: np.ndarray | None = None,
    seed: int = 7,
    text: str = "a big red circle bounces",
) -> Request:
    reference = None if image is None else Image.fromarray(image)
    return Request(text, Conditions("1:1", 1.0), audio, seed, reference)


def ignore(step: int, steps: int) -> None:
    """Progress that nobody watches."""


def same(one: RawClip, other: RawClip) -> bool:
    sounds_equal = one.audio is other.audio or np.array_equal(one.audio, other.audio)
    return np.array_equal(one.frames, other.frames) and sounds_equal
