"""The procedural renderer as a backend: the upper yardstick, and, with flaws, weak baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from generation.backends import CannotRender, ReportStep, Request
from generation.backends.scenes.grammar import NotAScene, Scene, parse

if TYPE_CHECKING:
    from generation.media.masters import RawClip

GPU = False
# From, to, and whether it is a whole number: pixels, frames a second, frames, pixels, a share,
# pixels, seconds.
BOUNDS = {
    "size": (16, 2048, True),
    "fps": (1, 120, False),
    "hold": (1, 120, True),
    "blur": (0, 100, False),
    "fade": (0, 1, False),
    "shake": (0, 500, True),
    "late": (0, 60, False),
}


def check(settings: Mapping[str, Any], request: Request) -> None:
    """Whether the image is the scene's first frame is only told in `render`, which can draw it."""
    if unknown := set(settings) - set(BOUNDS):
        raise CannotRender(
            f"Unknown scenes setting {', '.join(sorted(unknown))}; there are "
            f"{', '.join(sorted(BOUNDS))}."
        )
    for name, value in settings.items():
        least, most, is_whole = BOUNDS[name]
        kinds = (int,) if is_whole else (int, float)
        if type(value) not in kinds or not least <= value <= most:
            raise CannotRender(
                f"The scenes setting {name} is {repr(value)[:40]}; give a "
                f"{'whole ' if is_whole else ''}number from {least} to {most:,}."
            )
    scene_of(request)


def scene_of(request: Request) -> Scene:
    """The scene asked for; raises CannotRender for anything outside the small world."""
    if request.conditions.aspect != "1:1":
        raise CannotRender(
            f"Scenes are square: aspect 1:1 can be asked for, not {request.conditions.aspect}."
        )
    try:
        return parse(request.text)
    except NotAScene as error:
        raise CannotRender(str(error)) from None


def render(settings: Mapping[str, Any], request: Request, progress: ReportStep) -> RawClip:
    from generation.backends.scenes.clip import make_clip

    check(settings, request)
    return make_clip(settings, request, progress)
