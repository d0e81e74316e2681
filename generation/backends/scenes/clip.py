"""A clip of a scene: drawn, then spoiled as the version's settings say."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from generation.backends import CannotRender, ReportStep, Request
from generation.backends.scenes.backend import scene_of
from generation.backends.scenes.grammar import Scene
from generation.backends.scenes.renderer import (
    SAMPLE_RATE,
    first_frame,
    layout_seed_of,
    plan_tracks,
    render_frames,
    render_sound,
)
from generation.media.masters import RawClip

# Mean absolute difference per channel up to which an image counts as the scene's own first frame:
# re-encoding changes a few levels, another scene tens.
SAME_IMAGE = 6.0


def make_clip(settings: Mapping[str, Any], request: Request, progress: ReportStep) -> RawClip:
    scene = scene_of(request)
    if request.image is not None:
        _check_first_frame(request.image, request.text, scene)
    fps, seconds = float(settings["fps"]), request.conditions.seconds
    layout = request.seed if request.image is None else layout_seed_of(request.text)
    tracks = plan_tracks(scene, layout, request.seed, seconds)
    progress(0, 1)
    frames = render_frames(scene, tracks, size=settings["size"], fps=fps, seconds=seconds)
    frames = _spoil(frames, settings, np.random.default_rng(request.seed))
    sound = _delay(render_sound(tracks, seconds), settings.get("late", 0.0))
    progress(1, 1)
    if not request.audio:
        return RawClip(frames, fps, None, None)
    return RawClip(frames, fps, sound, SAMPLE_RATE)


def _check_first_frame(image: Image.Image, text: str, scene: Scene) -> None:
    own = first_frame(text, scene, 64).astype(float)
    given = np.asarray(image.resize((64, 64), Image.Resampling.BOX), float)
    if np.abs(given - own).mean() > SAME_IMAGE:
        raise CannotRender(
            f"The reference image is not the first frame of “{text}”: scenes can only "
            "continue images rendered by this project."
        )


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
