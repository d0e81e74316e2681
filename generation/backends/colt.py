"""Colt, the in-house model, as a backend."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from generation.backends import CannotRender, Progress, Request
from generation.backends.warm import WARM
from generation.encoding import RawClip
from generation.scenes.grammar import NotAScene, parse
from generation.scenes.renderer import SAMPLE_RATE

if TYPE_CHECKING:
    from generation.colt.sample import Loaded

WEIGHTS = Path(__file__).resolve().parent.parent / "colt" / "weights"
GPU = True  # and small enough for the processor where there is none
SETTINGS = {"weights", "sha256", "steps", "guidance"}
# What only some versions have: a distilled one puts noise on its guesses, and the picture may be
# enlarged by another file of weights.
OPTIONAL = {"renoise", "upscaler", "upscaler_sha256"}
# The released versions take 5 to 24 steps. More than some hundred change nothing that is seen, and
# would hold a worker.
STEPS_AT_MOST = 200
GUIDANCE_AT_MOST = 20  # of the released ones 2 is the strongest; far beyond it all is saturated


def check(settings: Mapping[str, Any], request: Request) -> None:
    if not SETTINGS <= set(settings) <= SETTINGS | OPTIONAL:
        raise CannotRender(
            f"Colt needs the settings {', '.join(sorted(SETTINGS))} and knows "
            f"{', '.join(sorted(OPTIONAL))}."
        )
    _check_sampling(settings["steps"], settings["guidance"])
    for name in _files(settings):
        if Path(name).name != name or not (WEIGHTS / name).is_file():
            raise CannotRender(f"Colt has no weights “{name}” in generation/colt/weights.")
    if request.conditions.aspect != "1:1":
        raise CannotRender(f"Colt makes square clips, not {request.conditions.aspect}.")
    try:
        parse(request.text)
    except NotAScene as error:
        raise CannotRender(f"Colt only knows the words of the scene grammar: {error}") from None


def _check_sampling(steps: Any, guidance: Any) -> None:
    if type(steps) is not int or not 1 <= steps <= STEPS_AT_MOST:
        raise CannotRender(
            f"Colt's steps are {str(steps)[:40]}: give a whole number from 1 to {STEPS_AT_MOST}."
        )
    if type(guidance) not in (int, float) or not 0 <= guidance <= GUIDANCE_AT_MOST:
        raise CannotRender(
            f"Colt's guidance is {str(guidance)[:40]}: give a number from 0 to {GUIDANCE_AT_MOST}."
        )


def _files(settings: Mapping[str, Any]) -> dict[str, str]:
    """Weights files of a version with the SHA-256 each must have."""
    files = {settings["weights"]: settings["sha256"]}
    if "upscaler" in settings:
        files[settings["upscaler"]] = settings.get("upscaler_sha256", "")
    return files


def _model(settings: Mapping[str, Any]) -> "Loaded":
    files = _files(settings)
    return WARM.model(
        ("colt", *files.items()),
        lambda: load_version(settings),
        # Weights are 8 bits in the file and computed with in float32.
        size=lambda: 4 * sum((WEIGHTS / name).stat().st_size for name in files),
        on_gpu=GPU,
    )


def load_version(settings: Mapping[str, Any]) -> "Loaded":
    """The modules of a version, its files checked; raises CannotRender if one is another file."""
    from generation.colt.sample import load_release

    files = _files(settings)
    for name, wanted in files.items():
        # A version is immutable, so its weights are too: a retrained file is another version.
        found = hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest()
        if found != wanted:
            raise CannotRender(
                f"{name} is not the file this version was entered with: its SHA-256 is {found}, "
                f"not {wanted}. Enter it as a new version."
            )
    return load_release(*(WEIGHTS / name for name in files))


def render(settings: Mapping[str, Any], request: Request, progress: Progress) -> RawClip:
    import torch

    check(settings, request)
    return WARM.within_memory(
        f"Colt from {settings['weights']}",
        lambda frugal: _make(settings, request, progress),  # it has no way to take less
        full=torch.OutOfMemoryError,
    )


def _make(settings: Mapping[str, Any], request: Request, progress: Progress) -> RawClip:
    import torch

    from generation.colt.sample import sample

    model = _model(settings)
    config = model.colt.config
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
        renoise=settings.get("renoise", False),
        first=first,
        progress=progress,
    )
    if not request.audio:
        return RawClip(frames[0], float(config.fps), None, None)
    return RawClip(frames[0], float(config.fps), sounds[0][:, None], SAMPLE_RATE)
