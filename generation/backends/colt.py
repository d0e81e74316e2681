"""Colt, the in-house model, as a backend."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from generation.backends import CannotRender, Progress, Request
from generation.encoding import RawClip
from generation.scenes.grammar import NotAScene, parse
from generation.scenes.renderer import SAMPLE_RATE

if TYPE_CHECKING:
    from generation.colt.model import Colt

WEIGHTS = Path(__file__).resolve().parent.parent / "colt" / "weights"
GPU = False  # small enough for the processor
SETTINGS = {"weights", "sha256", "steps", "guidance"}


def check(settings: Mapping[str, Any], request: Request) -> None:
    if set(settings) != SETTINGS:
        raise CannotRender(f"Colt needs exactly the settings {', '.join(sorted(SETTINGS))}.")
    if not (WEIGHTS / settings["weights"]).is_file():
        raise CannotRender(
            f"Colt has no weights “{settings['weights']}” in generation/colt/weights."
        )
    if request.conditions.aspect != "1:1":
        raise CannotRender(f"Colt makes square clips, not {request.conditions.aspect}.")
    try:
        parse(request.text)
    except NotAScene as error:
        raise CannotRender(f"Colt only knows the words of the scene grammar: {error}") from None


@lru_cache(maxsize=2)  # a few megabytes each; a worker goes back and forth between versions
def _model(weights: str, sha256: str) -> "Colt":
    from generation.colt.sample import load

    # A version is immutable, so its weights are too: a retrained file is another version.
    found = hashlib.sha256((WEIGHTS / weights).read_bytes()).hexdigest()
    if found != sha256:
        raise CannotRender(
            f"{weights} is not the file this version was entered with: its SHA-256 is {found}, "
            f"not {sha256}. Enter it as a new version."
        )
    return load(WEIGHTS / weights)


def render(settings: Mapping[str, Any], request: Request, progress: Progress) -> RawClip:
    import torch

    from generation.colt.sample import sample

    check(settings, request)
    model = _model(settings["weights"], settings["sha256"])
    config = model.config
    if abs(request.conditions.seconds - config.seconds) > 1e-6:
        raise CannotRender(
            f"{settings['weights']} makes clips of {config.seconds:g} s; "
            f"{request.conditions.seconds:g} s were asked for."
        )
    first = None
    if request.image is not None:
        small = Image.fromarray(request.image).resize(
            (config.size, config.size), Image.Resampling.BOX
        )
        pixels = torch.from_numpy(np.asarray(small, np.float32) / 127.5 - 1)
        first = pixels.permute(2, 0, 1)[None]
    frames, sounds = sample(
        model,
        [request.text],
        seeds=[request.seed],
        steps=settings["steps"],
        guidance=settings["guidance"],
        first=first,
        progress=progress,
    )
    if not request.audio:
        return RawClip(frames[0], float(config.fps), None, None)
    return RawClip(frames[0], float(config.fps), sounds[0][:, None], SAMPLE_RATE)
