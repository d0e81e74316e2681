"""The procedural renderer as a backend: the upper yardstick, and, with flaws, weak baselines."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from generation.backends import CannotRender, Progress, Request
from generation.encoding import RawClip
from generation.scenes.grammar import NotAScene, Scene, parse
from generation.scenes.renderer import (
    SAMPLE_RATE,
    first_frame,
    layout_seed_of,
    plan,
    render_frames,
    render_sound,
)

GPU = False
SETTINGS = {"size", "fps", "hold", "blur", "fade", "shake", "late"}
# Mean absolute difference per channel up to which an image counts as the scene's own first frame:
# re-encoding changes a few levels, another scene tens.
SAME_IMAGE = 6.0


def scene_of(request: Request) -> Scene:
    """The scene asked for; raises CannotRender for anything outside the small world."""
    if request.conditions.aspect != "1:1":
        raise CannotRender(
            f"Scenes are square: aspect 1:1 can be asked for, not {request.conditions.aspect}."
        )
    try:
        scene = parse(request.text)
    except NotAScene as error:
        raise CannotRender(str(error)) from None
    if request.image is not None:
        own = first_frame(request.text, scene, 64).astype(float)
        given = Image.fromarray(request.image).resize((64, 64), Image.Resampling.BOX)
        if np.abs(np.asarray(given, float) - own).mean() > SAME_IMAGE:
            raise CannotRender(
                f"The reference image is not the first frame of “{request.text}”: scenes can only "
                "continue images rendered by this project."
            )
    return scene


def check(settings: Mapping[str, Any], request: Request) -> None:
    unknown = set(settings) - SETTINGS
    if unknown:
        raise CannotRender(
            f"Unknown scenes setting {', '.join(sorted(unknown))}; there are "
            f"{', '.join(sorted(SETTINGS))}."
        )
    scene_of(request)


def render(settings: Mapping[str, Any], request: Request, progress: Progress) -> RawClip:
    check(settings, request)
    scene = scene_of(request)
    fps, seconds = float(settings["fps"]), request.conditions.seconds
    layout = request.seed if request.image is None else layout_seed_of(request.text)
    tracks = plan(scene, layout, request.seed, seconds)
    progress(0, 1)
    frames = render_frames(scene, tracks, size=settings["size"], fps=fps, seconds=seconds)
    frames = _spoil(frames, settings, np.random.default_rng(request.seed))
    sound = _delay(render_sound(tracks, seconds), settings.get("late", 0.0))
    progress(1, 1)
    if not request.audio:
        return RawClip(frames, fps, None, None)
    return RawClip(frames, fps, sound, SAMPLE_RATE)


def _spoil(frames: np.ndarray, settings: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
    """The deliberate flaws of the weaker settings, in a fixed order."""
    hold = settings.get("hold", 1)  # each picture stands still for this many frames
    frames = frames[np.arange(len(frames)) // hold * hold]
    if blur := settings.get("blur", 0):  # pixels
        blurred = [Image.fromarray(f).filter(ImageFilter.GaussianBlur(blur)) for f in frames]
        frames = np.stack([np.asarray(f) for f in blurred])
    if fade := settings.get("fade", 0.0):  # share of the colour that is lost
        grey = frames.mean(-1, keepdims=True)
        frames = np.rint(frames + (grey - frames) * fade).astype(np.uint8)
    if shake := settings.get("shake", 0):  # pixels by which a picture may be out of place
        places = np.repeat(rng.integers(-shake, shake + 1, (len(frames), 2)), hold, axis=0)
        size = frames.shape[1]
        wide = np.pad(frames, ((0, 0), (shake, shake), (shake, shake), (0, 0)), mode="edge")
        frames = np.stack(
            [
                picture[shake + y : shake + y + size, shake + x : shake + x + size]
                for picture, (y, x) in zip(wide, places, strict=False)
            ]
        )
    return frames


def _delay(sound: np.ndarray, seconds: float) -> np.ndarray:
    lag = round(seconds * SAMPLE_RATE)
    return np.concatenate([np.zeros((lag, 1), np.float32), sound])[: len(sound)]
