"""Colt, the in-house model, as a backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.backends import CannotRender, ReportStep, Request
from generation.backends.scenes.grammar import NotAScene, parse

if TYPE_CHECKING:
    from generation.media.masters import RawClip

WEIGHTS = Path(__file__).with_name("weights")
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
    for name in files_of(settings):
        if Path(name).name != name or not (WEIGHTS / name).is_file():
            raise CannotRender(f"Colt has no weights “{name}” in generation/backends/colt/weights.")
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


def files_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Weights files of a version with the SHA-256 each must have."""
    files = {settings["weights"]: settings["sha256"]}
    if "upscaler" in settings:
        files[settings["upscaler"]] = settings.get("upscaler_sha256", "")
    return files


def render(settings: Mapping[str, Any], request: Request, progress: ReportStep) -> RawClip:
    from generation.backends.colt.clip import make_clip

    check(settings, request)
    return make_clip(settings, request, progress)
