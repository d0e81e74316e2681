"""A clip of Colt: its files checked, loaded once, and sampled."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from generation.backends import CannotRender, ReportStep, Request
from generation.backends.colt.backend import WEIGHTS, files_of
from generation.backends.colt.sample import Release, load_release, sample
from generation.backends.scenes.renderer import SAMPLE_RATE
from generation.media.masters import RawClip
from generation.rendering.model_cache import WARM


def make_clip(settings: Mapping[str, Any], request: Request, progress: ReportStep) -> RawClip:
    return WARM.within_memory(
        f"Colt from {settings['weights']}",
        lambda frugal: _make(settings, request, progress),  # it has no way to take less
        full=torch.OutOfMemoryError,
    )


def _make(settings: Mapping[str, Any], request: Request, progress: ReportStep) -> RawClip:
    model = _model(settings)
    config = model.colt.config
    if abs(request.conditions.seconds - config.seconds) > 1e-6:
        raise CannotRender(
            f"{settings['weights']} makes clips of {config.seconds:g} s; "
            f"{request.conditions.seconds:g} s were asked for."
        )
    first = None
    if request.image is not None:
        small = request.image.resize((config.size, config.size), Image.Resampling.BOX)
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


def _model(settings: Mapping[str, Any]) -> Release:
    files = files_of(settings)
    return WARM.model(
        ("colt", *files.items()),
        lambda: load_version(settings),
        # Weights are 8 bits in the file and computed with in float32.
        size=lambda: 4 * sum((WEIGHTS / name).stat().st_size for name in files),
        on_gpu=True,
    )


def load_version(settings: Mapping[str, Any]) -> Release:
    """The modules of a version, its files checked; raises CannotRender if one is another file."""
    files = files_of(settings)
    for name, wanted in files.items():
        # A version is immutable, so its weights are too: a retrained file is another version.
        found = hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest()
        if found != wanted:
            raise CannotRender(
                f"{name} is not the file this version was entered with: its SHA-256 is {found}, "
                f"not {wanted}. Enter it as a new version."
            )
    return load_release(*(WEIGHTS / name for name in files))
