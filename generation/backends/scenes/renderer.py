"""Draws a scene and its sound.

Space is the unit square, y down, with the floor at `FLOOR`; time is in seconds. What stands where
in the first frame comes from `layout_seed` alone, how it then moves also from `motion_seed`: two
renderings with one layout share their first frame, which is what image-to-video needs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from generation.backends.scenes.grammar import Actor, Scene

FLOOR = 0.93
GRAVITY = 5.0  # unit squares per second squared: a fall from the top takes about half a second
RADIUS = {"small": 0.16, "big": 0.26}
PAINT = {
    "red": (226, 58, 48),
    "green": (48, 176, 84),
    "blue": (56, 112, 240),
    "yellow": (246, 204, 44),
    "purple": (156, 74, 208),
}
SKY = {"by day": (232, 236, 242), "at night": (24, 28, 46)}
GROUND = {"by day": (196, 202, 212), "at night": (52, 58, 84)}
SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Strike:
    """One audible contact: when (s), how hard (0..1)."""

    at: float
    strength: float


@dataclass(frozen=True)
class Track:
    """How one actor moves: centre (x, y) and scale as functions of time, and what is heard."""

    actor: Actor
    radius: float
    place: Callable[[float], tuple[float, float]]
    scale: Callable[[float], float]
    strikes: tuple[Strike, ...]


def layout_seed_of(text: str) -> int:
    """The layout of the reference image shipped with an image-to-video scene prompt."""
    return crc32(text.encode())


def plan_tracks(scene: Scene, layout_seed: int, motion_seed: int, seconds: float) -> list[Track]:
    """One track per actor. Raises nothing: every sentence of the grammar can be played."""
    layout = np.random.default_rng([layout_seed, 1])
    motion = np.random.default_rng([motion_seed, 2])
    ranges = [(0.3, 0.7)] if len(scene.actors) == 1 else [(0.22, 0.34), (0.66, 0.78)]
    tracks = []
    for actor, range_ in zip(scene.actors, ranges, strict=True):
        radius = RADIUS[actor.size] * (1.0 if len(scene.actors) == 1 else 0.8)
        bearing = float(layout.uniform(*range_))
        tracks.append(_track(actor, radius, bearing, layout, motion, seconds))
    return tracks


def _track(
    actor: Actor,
    radius: float,
    x: float,
    layout: np.random.Generator,
    motion: np.random.Generator,
    seconds: float,
) -> Track:
    rest, top = FLOOR - radius, radius + 0.02
    height = float(layout.uniform(0.0, 0.12)) + top  # where a falling actor hangs at first
    still = lambda t: 1.0  # noqa: E731
    if actor.motion == "pulses":
        beat = float(motion.uniform(0.55, 0.8))
        y = float(layout.uniform(0.4, 0.5))
        peaks = np.arange(beat / 2, seconds, beat)
        return Track(
            actor,
            radius,
            lambda t: (x, y),
            lambda t: 0.85 - 0.35 * float(np.cos(2 * np.pi * t / beat)),
            tuple(Strike(float(t), 0.7) for t in peaks),
        )
    if actor.motion in ("slides left", "slides right"):
        wait = float(motion.uniform(0.1, 0.4))
        travel = float(motion.uniform(0.6, 1.0))
        start, end = radius + 0.02, 1 - radius
        speed = (end - start) / travel
        hit = wait + travel

        def slide(t: float) -> tuple[float, float]:
            if t < hit:
                along = start + speed * max(0.0, t - wait)
            else:  # thrown back a little, slowing down over about 0.3 s
                along = end - 0.25 * speed * 0.3 * (1 - float(np.exp(-(t - hit) / 0.3)))
            return (along if actor.motion == "slides right" else 1 - along), rest

        return Track(actor, radius, slide, still, (Strike(hit, 1.0),))
    if actor.motion == "rises":
        wait = float(motion.uniform(0.1, 0.4))
        travel = float(motion.uniform(0.7, 1.0))
        hit = wait + travel

        def rise(t: float) -> tuple[float, float]:
            if t < hit:
                return x, rest + (top - 0.02 - rest) * (max(0.0, t - wait) / travel) ** 1.5
            dip = 0.06 * float(np.sin(min(1.0, (t - hit) / 0.35) * np.pi))
            return x, top - 0.02 + dip

        return Track(actor, radius, rise, still, (Strike(hit, 0.9),))
    # falls and bounces: free flights between contacts with the floor
    wait = float(motion.uniform(0.15, 0.6)) if actor.motion == "falls" else 0.0
    keep = 0.3 if actor.motion == "falls" else 0.88
    gravity = GRAVITY * float(motion.uniform(0.85, 1.15))
    flights: list[tuple[float, float, float]] = []  # begins at, upward speed, length
    clock, speed = wait + float(np.sqrt(2 * (rest - height) / gravity)), 0.0
    first_hit = clock
    speed = float(np.sqrt(2 * (rest - height) * gravity))
    strikes = []
    while clock < seconds and speed > 0.15:
        strikes.append(Strike(clock, min(1.0, speed / 2.2)))
        speed *= keep
        flights.append((clock, speed, 2 * speed / gravity))
        clock += flights[-1][2]

    def drop(t: float) -> tuple[float, float]:
        if t < first_hit:
            return x, height + 0.5 * gravity * max(0.0, t - wait) ** 2
        for begin, up, length in flights:
            if begin <= t < begin + length:
                s = t - begin
                return x, rest - (up * s - 0.5 * gravity * s * s)
        return x, rest

    return Track(actor, radius, drop, still, tuple(strikes))


def _coverage(shape: str, dx: np.ndarray, dy: np.ndarray, r: float, pixel: float) -> np.ndarray:
    """Anti-aliased coverage in 0..1 of a shape of radius r at offsets dx, dy from its centre."""
    if shape == "circle":
        distance = np.hypot(dx, dy) - r
    elif shape == "square":
        distance = np.maximum(np.abs(dx), np.abs(dy)) - 0.84 * r
    elif shape == "triangle":  # base down, apex up, standing on the same floor as the others
        distance = np.maximum(dy - r * 0.84, (np.abs(dx) * 1.8 - dy - r) / np.hypot(1.8, 1))
    else:  # star: a radius that swings with the angle, five times round, a point at the top
        angle = np.arctan2(dx, -dy)
        swing = np.abs((angle * 5 / (2 * np.pi)) % 1.0 - 0.5) * 2  # 1 at the points
        distance = (np.hypot(dx, dy) - r * 1.08 * (0.45 + 0.55 * swing)) * 0.75
    return np.clip(0.5 - distance / pixel, 0.0, 1.0)


def render_frames(
    scene: Scene, tracks: list[Track], *, size: int, fps: float, seconds: float
) -> np.ndarray:
    """uint8 [frames, size, size, 3], RGB."""
    pixel = 1.0 / size
    centres = (np.arange(size) + 0.5) * pixel
    x, y = np.meshgrid(centres, centres)
    ground = np.clip((y - FLOOR) / pixel + 0.5, 0, 1)[..., None]
    sky, soil = np.array(SKY[scene.time], float), np.array(GROUND[scene.time], float)
    backdrop = sky * (1 - ground) + soil * ground
    frames = np.empty((round(fps * seconds), size, size, 3), np.uint8)
    for index in range(len(frames)):
        t = index / fps
        picture = backdrop.copy()
        for track in tracks:
            cx, cy = track.place(t)
            r = track.radius * track.scale(t)
            cover = _coverage(track.actor.shape, x - cx, y - cy, r, pixel)[..., None]
            picture += (np.array(PAINT[track.actor.colour], float) - picture) * cover
        frames[index] = np.rint(picture)
    return frames


def _voice(actor: Actor, strength: float) -> np.ndarray:
    """The sound of one contact, float [samples]: the shape is the instrument, size its pitch."""
    pitch = 0.75 if actor.size == "big" else 1.25
    seconds = {"circle": 0.22, "square": 0.12, "triangle": 0.45, "star": 0.4}[actor.shape]
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    if actor.shape == "circle":  # a rubber ball: a falling sine
        sound = np.sin(2 * np.pi * pitch * (170 * t + 130 * 0.06 * (1 - np.exp(-t / 0.06))))
        sound *= np.exp(-t / 0.07)
    elif actor.shape == "square":  # a wooden block: two short modes
        sound = np.sin(2 * np.pi * 620 * pitch * t) + 0.6 * np.sin(2 * np.pi * 1130 * pitch * t)
        sound *= 0.6 * np.exp(-t / 0.025)
    elif actor.shape == "triangle":  # a bell: inharmonic partials
        sound = np.zeros_like(t)
        for ratio, gain, decay in ((1, 0.5, 0.16), (2.76, 0.35, 0.09), (5.4, 0.2, 0.04)):
            sound += gain * np.sin(2 * np.pi * 880 * ratio * pitch * t) * np.exp(-t / decay)
    else:  # glass: a high pair that beats
        sound = 0.4 * (np.sin(2 * np.pi * 2100 * pitch * t) + np.sin(2 * np.pi * 2260 * pitch * t))
        sound *= np.exp(-t / 0.11)
    attack = np.minimum(1.0, t / 0.002)
    return strength * sound * attack


def render_sound(tracks: list[Track], seconds: float) -> np.ndarray:
    """float32 [samples, 1] at `SAMPLE_RATE`, exactly as long as the picture."""
    sound = np.zeros(round(seconds * SAMPLE_RATE))
    for track in tracks:
        for strike in track.strikes:
            begin = round(strike.at * SAMPLE_RATE)
            note = _voice(track.actor, strike.strength)[: max(0, len(sound) - begin)]
            sound[begin : begin + len(note)] += note
    return (0.5 * sound).clip(-1, 1).astype(np.float32)[:, None]


def first_frame(text: str, scene: Scene, size: int) -> np.ndarray:
    """uint8 [size, size, 3]: the reference image of an image-to-video scene prompt."""
    tracks = plan_tracks(scene, layout_seed_of(text), 0, 1.0)
    return render_frames(scene, tracks, size=size, fps=1.0, seconds=1.0)[0]
