"""Judges a clip of a scene against the renderer's own renderings.

A clip is free in what the sentence leaves open (where things stand, when they start), so it is
compared with many renderings and scored by the nearest one. Beside the scores, which tell how good
a clip is, stand three answers of yes or no: would somebody who saw the clip name the right colours,
shapes and motions?
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from PIL import Image

from generation.backends.scenes.grammar import MOTIONS, SHAPES, Actor, Scene
from generation.backends.scenes.renderer import (
    FLOOR,
    GROUND,
    PAINT,
    SKY,
    Track,
    _coverage,
    plan_tracks,
    render_frames,
)

SIZE = 48  # clips are judged at this many pixels square ...
FPS = 8  # ... and this many frames per second
CANDIDATES = 40  # renderings with different timing that a clip may be nearest to
OTHERS = 16  # renderings of each motion when it is asked which one a clip shows


@dataclass(frozen=True)
class Scores:
    """Each in 0..1, 1 is what the renderer itself reaches; `sound` is nan for a silent clip."""

    colour: float
    shape: float
    motion: float
    clean: float
    sound: float

    @property
    def overall(self) -> float:
        """The mean, with motion counted twice: it is what a video is about."""
        parts = [self.colour, self.shape, self.motion, self.motion, self.clean]
        return float(np.mean([*parts, self.sound] if np.isfinite(self.sound) else parts))


@dataclass(frozen=True)
class Answers:
    """Shares of a scene's actors: whose paint is among the ones seen most, whose shape fits best in
    most frames, whose path is nearest to a rendering of the wanted motion."""

    colour: float
    shape: float
    motion: float


def _resample(frames: np.ndarray, fps: float, seconds: float) -> np.ndarray:
    """Any uint8 [F, H, W, 3] to float [round(FPS * seconds), SIZE, SIZE, 3]."""
    times = (np.arange(round(FPS * seconds)) + 0.25) / FPS
    picked = frames[np.minimum((times * fps).astype(int), len(frames) - 1)]
    small = [
        np.asarray(Image.fromarray(frame).resize((SIZE, SIZE), Image.Resampling.BOX))
        for frame in picked
    ]
    return np.stack(small).astype(float)


def _mask(frames: np.ndarray, scene: Scene, actor: Actor) -> np.ndarray:
    """float [F, SIZE, SIZE] in 0..1: how much a pixel is this actor's paint and not what is behind.

    The projection of the pixel on the line from the backdrop's colour to the paint's.
    """
    paint = np.array(PAINT[actor.colour], float)
    others = [np.array(PAINT[a.colour], float) for a in scene.actors if a is not actor]
    sky = np.array(SKY[scene.time], float)
    along = (frames - sky) @ (paint - sky) / ((paint - sky) @ (paint - sky))
    off = np.linalg.norm(frames - sky - along[..., None] * (paint - sky), axis=-1)
    mask = np.clip(along, 0, 1) * np.exp(-((off / 60) ** 2))
    mask[mask < 0.3] = 0
    ground = np.array(GROUND[scene.time], float)
    behind = [ground, *others]
    for colour in behind:
        nearer = np.linalg.norm(frames - colour, axis=-1) < np.linalg.norm(frames - paint, axis=-1)
        mask[nearer & (np.linalg.norm(frames - colour, axis=-1) < 60)] = 0
    return mask


def _path(mask: np.ndarray) -> np.ndarray:
    """float [F, 3]: centre x, centre y and radius (root of area) in unit squares; nan if absent."""
    area = mask.sum((1, 2))
    centres = (np.arange(SIZE) + 0.5) / SIZE
    with np.errstate(invalid="ignore", divide="ignore"):
        x = (mask.sum(1) @ centres) / area
        y = (mask.sum(2) @ centres) / area
    path = np.stack([x, y, np.sqrt(area / np.pi) / SIZE], axis=1)
    path[area < 4] = np.nan
    return path


@cache
def _renderings(scene: Scene, seconds: float) -> tuple[tuple[np.ndarray, tuple[Track, ...]], ...]:
    """Paths [actors, F, 3] of the candidates and the tracks that made them."""
    found = []
    for seed in range(CANDIDATES):
        tracks = plan_tracks(scene, seed, seed, seconds)
        frames = render_frames(scene, tracks, size=SIZE, fps=FPS, seconds=seconds).astype(float)
        paths = np.stack([_path(_mask(frames, scene, actor)) for actor in scene.actors])
        found.append((paths, tuple(tracks)))
    return tuple(found)


def _motion_distance(path: np.ndarray, other: np.ndarray, actor: Actor) -> float:
    """Mean distance in unit squares, blind to where along its free axis the actor stands."""
    gap = path - other
    both = np.isfinite(gap).all(1)
    lost = np.isfinite(other).all(1) & ~both
    if not both.any():
        return 1.0
    gap = gap[both]
    free = {"pulses": (0, 1), "slides left": (), "slides right": ()}.get(actor.motion, (0,))
    for axis in free:
        gap[:, axis] -= gap[:, axis].mean()
    distance = np.sqrt((gap[:, :2] ** 2).sum(1) + 4 * gap[:, 2] ** 2)
    return float((distance.sum() + lost.sum()) / (both.sum() + lost.sum()))


@cache
def _paths_with(scene: Scene, index: int, motion: str, seconds: float) -> tuple[np.ndarray, ...]:
    """Paths [F, 3] of one actor if it moved like this."""
    actors = list(scene.actors)
    actors[index] = replace(actors[index], motion=motion)
    moved = Scene(tuple(actors), scene.time)
    paths = []
    for seed in range(OTHERS):
        track = plan_tracks(moved, seed, seed, seconds)[index]
        alone = Scene((actors[index],), scene.time)
        frames = render_frames(alone, [track], size=SIZE, fps=FPS, seconds=seconds).astype(float)
        paths.append(_path(_mask(frames, alone, actors[index])))
    return tuple(paths)


def _motion_right(scene: Scene, index: int, path: np.ndarray, seconds: float) -> bool:
    def distance(motion: str) -> float:
        actor = replace(scene.actors[index], motion=motion)
        known = _paths_with(scene, index, motion, seconds)
        return min(_motion_distance(path, other, actor) for other in known)

    if not np.isfinite(path).any():
        return False
    return min(MOTIONS, key=distance) == scene.actors[index].motion


def _colours_right(frames: np.ndarray, scene: Scene) -> float:
    """Of the actors' paints, the share that is among as many paints as are seen most."""
    paints = np.array(list(PAINT.values()), float)
    backdrop = np.array([SKY[scene.time], GROUND[scene.time]], float)
    nearest = np.linalg.norm(
        frames[..., None, :] - np.concatenate([paints, backdrop]), axis=-1
    ).argmin(-1)
    seen = np.bincount(nearest.ravel(), minlength=len(PAINT))[: len(PAINT)]
    names = [name for name, count in zip(PAINT, seen, strict=True) if count]
    most = sorted(names, key=lambda name: -seen[list(PAINT).index(name)])[: len(scene.actors)]
    return float(np.mean([actor.colour in most for actor in scene.actors]))


def _shape_fits(mask: np.ndarray, path: np.ndarray) -> list[dict[str, float]]:
    """How well each shape fits in each frame (intersection over union); {} where nothing is."""
    centres = (np.arange(SIZE) + 0.5) / SIZE
    x, y = np.meshgrid(centres, centres)
    found = []
    for frame, place in zip(mask, path, strict=True):
        fits = {}
        for shape in SHAPES if np.isfinite(place).all() else ():
            best = 0.0
            for stretch in (1.0, 1.12, 1.3):  # shapes of one radius differ in area
                r = place[2] * stretch
                ink = _coverage(shape, x - 0.5, y - 0.5, r, 1 / SIZE)
                cx, cy = (ink.sum(0) @ centres) / ink.sum(), (ink.sum(1) @ centres) / ink.sum()
                ink = _coverage(
                    shape, x - place[0] - 0.5 + cx, y - place[1] - 0.5 + cy, r, 1 / SIZE
                )
                union = np.maximum(ink, frame).sum()
                best = max(best, float(np.minimum(ink, frame).sum() / union))
            fits[shape] = best
        found.append(fits)
    return found


def _shape_score(frames: list[dict[str, float]], actor: Actor) -> float:
    """How much better the wanted shape fits than the others, averaged over frames."""
    scores = []
    for fits in frames:
        wanted = fits.get(actor.shape, 0.0)
        others = max((fit for shape, fit in fits.items() if shape != actor.shape), default=1.0)
        scores.append(float(np.clip(0.5 + 8 * (wanted - others), 0, 1)) * wanted**0.5)
    return float(np.mean(scores))


def _shape_right(frames: list[dict[str, float]], actor: Actor) -> bool:
    named = [max(fits, key=lambda shape: fits[shape]) for fits in frames if fits]
    return 2 * named.count(actor.shape) > len(frames)


def onsets(sound: np.ndarray, rate: int) -> np.ndarray:
    """Times in seconds at which something is struck; `sound` is float [samples]."""
    window = rate // 100
    level = np.sqrt((sound[: len(sound) // window * window].reshape(-1, window) ** 2).mean(1))
    if level.max(initial=0.0) < 1e-3:
        return np.array([])
    level = level / level.max()
    before = np.array([level[max(0, k - 8) : k].max(initial=0.0) for k in range(len(level))])
    rises = np.flatnonzero((level > 0.12) & (level > 1.6 * before))
    starts = [k for i, k in enumerate(rises) if i == 0 or k - rises[i - 1] > 8]
    return np.array(starts, float) / 100


def _sound_score(sound: np.ndarray, rate: int, tracks: tuple[Track, ...], seconds: float) -> float:
    """F1 of heard against seen strikes, falling from 1 at 60 ms apart to 0 at 250 ms."""
    heard = onsets(sound, rate)
    strikes = [s for track in tracks for s in track.strikes if s.strength > 0.25]
    seen = np.array(sorted(s.at for s in strikes if s.at < seconds - 0.05))
    if len(heard) == 0 or len(seen) == 0:
        return float(len(heard) == len(seen))
    apart = np.abs(heard[:, None] - seen[None, :])
    near = np.clip((0.25 - apart) / 0.19, 0, 1)
    precision, recall = near.max(1).mean(), near.max(0).mean()
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def _seconds(frames: np.ndarray, fps: float) -> float:
    return round(len(frames) / fps * FPS) / FPS


def _see(
    scene: Scene, frames: np.ndarray, fps: float
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """The clip as it is judged, and of each actor where its paint is and the path it takes."""
    small = _resample(frames, fps, _seconds(frames, fps))
    masks = [_mask(small, scene, actor) for actor in scene.actors]
    return small, masks, [_path(mask) for mask in masks]


def name(scene: Scene, frames: np.ndarray, fps: float) -> Answers:
    """Whether one would name what the sentence says: `frames` uint8 [F, H, W, 3], square."""
    small, masks, paths = _see(scene, frames, fps)
    seconds = _seconds(frames, fps)
    return Answers(
        colour=_colours_right(small, scene),
        shape=float(
            np.mean(
                [
                    _shape_right(_shape_fits(mask, path), actor)
                    for mask, path, actor in zip(masks, paths, scene.actors, strict=True)
                ]
            )
        ),
        motion=float(
            np.mean([_motion_right(scene, i, path, seconds) for i, path in enumerate(paths)])
        ),
    )


def judge(
    scene: Scene,
    frames: np.ndarray,
    fps: float,
    sound: np.ndarray | None = None,
    rate: int | None = None,
) -> Scores:
    """Scores of a clip: `frames` uint8 [F, H, W, 3] (square), `sound` float [samples] or None."""
    seconds = _seconds(frames, fps)
    small, masks, paths = _see(scene, frames, fps)
    candidates = _renderings(scene, seconds)
    distances = [
        np.mean(
            [
                _motion_distance(path, known, actor)
                for path, known, actor in zip(paths, knowns, scene.actors, strict=True)
            ]
        )
        for knowns, _ in candidates
    ]
    nearest = int(np.argmin(distances))
    strength = [float(np.percentile(mask, 99.5)) for mask in masks]
    present = [float(np.isfinite(path).all(1).mean()) for path in paths]
    colour = float(np.mean([s * p for s, p in zip(strength, present, strict=True)]))
    shape = float(
        np.mean(
            [
                _shape_score(_shape_fits(mask, path), actor)
                for mask, path, actor in zip(masks, paths, scene.actors, strict=True)
            ]
        )
    )
    # What is neither actor nor its edge should be plain sky or ground.
    rows = (np.arange(SIZE) + 0.5) / SIZE
    backdrop = np.where(
        (rows < FLOOR)[:, None, None],
        np.array(SKY[scene.time], float),
        np.array(GROUND[scene.time], float),
    )
    inked = np.clip(sum(masks), 0, 1)
    away = np.abs(small - backdrop).mean(-1) * (1 - inked)
    jitter = np.abs(np.diff(frames[:, ::8, ::8].astype(float), axis=0)).mean((1, 2, 3))
    frozen = float((jitter < 0.02).mean()) if fps > FPS else 0.0
    clean = float(np.exp(-np.clip(away.mean() - 2.5, 0, None) / 8)) * (1 - 0.3 * frozen)
    return Scores(
        colour=colour,
        shape=shape,
        motion=float(np.exp(-distances[nearest] / 0.08)),
        clean=clean,
        sound=float("nan")
        if sound is None or rate is None
        else _sound_score(sound, rate, candidates[nearest][1], seconds),
    )
