"""Renders the reference stills of the `open` prompt set.

An image-to-video prompt needs a first frame that anybody may use, so the arena draws its own:
a small signed-distance-field ray marcher in numpy, and one function per still that describes
what stands in front of the camera. Points and colours are arrays of shape (3, N), float32;
y is up, the camera looks towards -z, colours are linear light until the last step.

    python -m generation.stills OUT_DIR
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
Vec = tuple[float, float, float]
Sdf = Callable[[Array], Array]
Paint = Callable[[Array], Array]
Height = Callable[[Array], Array]
Environment = Callable[[Array, float], Array]
Outline = list[tuple[float, float]]

MAX_FILE_BYTES = 90_000  # the stills travel with the repository, so each stays small
CHUNK = 1 << 16  # rays per batch: the working arrays then fit the processor's cache
MARCH_STEPS = 110
SURFACE = 0.0006  # a ray this near to a surface has hit it
LIFT = 0.004  # secondary rays start this far above the surface they leave
MAX_DEPTH = 3


# --- small vector and colour helpers ---------------------------------------------------------


def vec(v: Sequence[float] | Array) -> Array:
    return np.asarray(v, dtype=np.float32).reshape(3, 1)


def unit(v: Array) -> Array:
    length: Array = np.sqrt((v * v).sum(axis=0)) + 1e-9
    return np.asarray(v / length)


def dot(a: Array, b: Array) -> Array:
    return np.asarray((a * b).sum(axis=0))


def mix(a: Any, b: Any, amount: Array | float) -> Array:
    return np.asarray(a + (b - a) * amount)


def ramp(low: float, high: float, x: Array) -> Array:
    """Zero below `low`, one above `high`, smooth between."""
    s = np.clip((x - low) / (high - low), 0.0, 1.0)
    return np.asarray(s * s * (3.0 - 2.0 * s))


def rgb(code: str) -> Array:
    """A web colour such as `#c0392b` as linear light, shape (3, 1)."""
    srgb = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32) / 255.0
    return np.asarray((srgb**2.2).astype(np.float32).reshape(3, 1))


def plain(code: str) -> Paint:
    color = rgb(code)
    return lambda p: np.repeat(color, p.shape[1], axis=1)


_LATTICE = np.random.default_rng(7).random((64, 64, 64), dtype=np.float32)


def noise(p: Array) -> Array:
    """Smooth value noise in [0, 1], repeating every 64 units."""
    cell = np.floor(p)
    f = p - cell
    f = f * f * (3.0 - 2.0 * f)
    x, y, z = cell.astype(np.int32) & 63
    x1, y1, z1 = (x + 1) & 63, (y + 1) & 63, (z + 1) & 63
    near = mix(
        mix(_LATTICE[x, y, z], _LATTICE[x1, y, z], f[0]),
        mix(_LATTICE[x, y1, z], _LATTICE[x1, y1, z], f[0]),
        f[1],
    )
    far = mix(
        mix(_LATTICE[x, y, z1], _LATTICE[x1, y, z1], f[0]),
        mix(_LATTICE[x, y1, z1], _LATTICE[x1, y1, z1], f[0]),
        f[1],
    )
    return mix(near, far, f[2])


def fbm(p: Array, octaves: int = 4) -> Array:
    """Several octaves of noise, in [0, 1]."""
    total = np.zeros(p.shape[1], dtype=np.float32)
    weight = 0.5
    for _ in range(octaves):
        total += weight * noise(p)
        p = p * 2.03 + 11.7
        weight *= 0.5
    return np.asarray(total / (1.0 - 0.5**octaves))


# --- shapes: functions from points (3, N) to signed distances (N) ----------------------------


def sphere(center: Vec, radius: float) -> Sdf:
    c = vec(center)
    return lambda p: np.sqrt(((p - c) ** 2).sum(axis=0)) - radius


def ellipsoid(center: Vec, radii: Vec) -> Sdf:
    c, r = vec(center), vec(radii)

    def sdf(p: Array) -> Array:
        q = p - c
        k0 = np.sqrt(((q / r) ** 2).sum(axis=0))
        k1 = np.sqrt(((q / (r * r)) ** 2).sum(axis=0))
        return np.asarray(k0 * (k0 - 1.0) / (k1 + 1e-6))

    return sdf


def box(center: Vec, half: Vec, rounding: float = 0.0) -> Sdf:
    c, h = vec(center), vec(half) - rounding

    def sdf(p: Array) -> Array:
        q = np.abs(p - c) - h
        outside = np.sqrt((np.maximum(q, 0.0) ** 2).sum(axis=0))
        return np.asarray(outside + np.minimum(q.max(axis=0), 0.0) - rounding)

    return sdf


def cylinder(center: Vec, radius: float, half_height: float, rounding: float = 0.0) -> Sdf:
    """Stands upright; `turn` lays it down."""
    c = vec(center)

    def sdf(p: Array) -> Array:
        q = p - c
        side = np.hypot(q[0], q[2]) - radius + rounding
        cap = np.abs(q[1]) - half_height + rounding
        outside = np.hypot(np.maximum(side, 0.0), np.maximum(cap, 0.0))
        return np.asarray(outside + np.minimum(np.maximum(side, cap), 0.0) - rounding)

    return sdf


def rod(a: Vec, b: Vec, radius_a: float, radius_b: float | None = None) -> Sdf:
    """A capsule from a to b whose radius may change along the way."""
    start, along = vec(a), vec(b) - vec(a)
    length_squared = float((along**2).sum())
    end = radius_a if radius_b is None else radius_b

    def sdf(p: Array) -> Array:
        q = p - start
        s = np.clip(dot(q, along) / length_squared, 0.0, 1.0)
        distance = np.sqrt(((q - along * s) ** 2).sum(axis=0))
        return np.asarray(distance - mix(radius_a, end, s))

    return sdf


def torus(center: Vec, ring: float, tube: float) -> Sdf:
    """Lies flat, its axis upright."""
    c = vec(center)

    def sdf(p: Array) -> Array:
        q = p - c
        return np.asarray(np.hypot(np.hypot(q[0], q[2]) - ring, q[1]) - tube)

    return sdf


def sheet(a: Vec, b: Vec, c: Vec, thickness: float = 0.006) -> Sdf:
    """A triangle of paper."""
    pa, pb, pc = vec(a), vec(b), vec(c)
    edges = ((pa, pb - pa), (pb, pc - pb), (pc, pa - pc))
    normal = np.cross((pb - pa)[:, 0], (pa - pc)[:, 0]).astype(np.float32).reshape(3, 1)
    inward = [np.cross(e[:, 0], normal[:, 0]).astype(np.float32).reshape(3, 1) for _, e in edges]

    def sdf(p: Array) -> Array:
        inside = np.ones(p.shape[1], dtype=bool)
        nearest = np.full(p.shape[1], 1e9, dtype=np.float32)
        for (corner, edge), side in zip(edges, inward, strict=True):
            q = p - corner
            inside &= dot(q, side) >= 0.0
            s = np.clip(dot(q, edge) / float((edge**2).sum()), 0.0, 1.0)
            nearest = np.minimum(nearest, ((q - edge * s) ** 2).sum(axis=0))
        height = dot(p - pa, normal) ** 2 / float((normal**2).sum())
        return np.asarray(np.sqrt(np.where(inside, height, nearest)) - thickness)

    return sdf


def _smooth(points: Outline) -> Outline:
    """A smooth line through the points, as more points (Catmull-Rom)."""
    knots = np.array([points[0], *points, points[-1]], dtype=np.float64)
    s = (np.arange(8) / 8.0)[:, None]
    pieces = []
    for a, b, c, d in zip(knots, knots[1:], knots[2:], knots[3:], strict=False):
        pieces.append(
            b
            + 0.5 * s * (c - a)
            + s**2 * (a - 2.5 * b + 2.0 * c - 0.5 * d)
            + s**3 * (1.5 * (b - c) + 0.5 * (d - a))
        )
    line = np.concatenate([*pieces, knots[-1:]])
    return [(float(x), float(y)) for x, y in line]


def path(text: str) -> Outline:
    """An outline written as `x,y` pairs; those in parentheses are joined by a smooth line."""
    outline: Outline = []
    for stretch in re.findall(r"\([^)]*\)|[^\s()]+", text):
        pairs = [pair.split(",") for pair in stretch.strip("()").split()]
        points = [(float(x), float(y)) for x, y in pairs]
        outline += _smooth(points) if len(points) > 1 else points
    return outline


def _bake(outline: Outline) -> Callable[[Array, Array], Array]:
    """The signed distance to a polygon, computed once on a grid and looked up afterwards."""
    polygon = np.array(outline, dtype=np.float64)
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    margin = 0.06 * float((high - low).max())
    low, high = low - margin, high + margin
    cell = float((high - low).max()) / 320.0
    columns, rows = (int(n) for n in np.ceil((high - low) / cell) + 1)
    u, v = np.meshgrid(
        low[0] + cell * np.arange(columns), low[1] + cell * np.arange(rows), indexing="ij"
    )
    squared = np.full(u.shape, 1e9)
    inside = np.zeros(u.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        if ex == 0.0 and ey == 0.0:
            continue
        s = np.clip(((u - ax) * ex + (v - ay) * ey) / (ex * ex + ey * ey), 0.0, 1.0)
        squared = np.minimum(squared, (u - ax - ex * s) ** 2 + (v - ay - ey * s) ** 2)
        if ey != 0.0:
            inside ^= ((ay > v) != (by > v)) & (u < ax + ex * (v - ay) / ey)
    grid = np.where(inside, -np.sqrt(squared), np.sqrt(squared)).astype(np.float32)
    # Python floats, because a numpy scalar would widen every later array to float64.
    left, bottom, right, top = float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def lookup(u: Array, v: Array) -> Array:
        x = np.clip((u - left) / cell, 0.0, columns - 1.001)
        y = np.clip((v - bottom) / cell, 0.0, rows - 1.001)
        i, j = x.astype(np.int32), y.astype(np.int32)
        fx, fy = x - i, y - j
        value = mix(
            mix(grid[i, j], grid[i + 1, j], fx), mix(grid[i, j + 1], grid[i + 1, j + 1], fx), fy
        )
        away_u = np.maximum(np.maximum(left - u, u - right), 0.0)
        away_v = np.maximum(np.maximum(bottom - v, v - top), 0.0)
        # Beyond the grid: a lower bound, since the angle at the clamped point is obtuse.
        away = away_u * away_u + away_v * away_v
        return np.where(away > 0.0, np.sqrt(away + value * value), value)

    return lookup


def lathe(profile: Outline) -> Sdf:
    """A turned solid; the profile is (radius, height) from the axis round to the axis."""
    mirrored = [(-r, y) for r, y in reversed(profile)]
    lookup = _bake([*profile, *mirrored])
    return lambda p: lookup(np.hypot(p[0], p[2]), p[1])


def slab(outline: Outline, half_depth: float, rounding: float = 0.0) -> Sdf:
    """A polygon in x and y, extruded along z."""
    lookup = _bake(outline)

    def sdf(p: Array) -> Array:
        flat = lookup(p[0], p[1]) + rounding
        deep = np.abs(p[2]) - half_depth + rounding
        outside = np.hypot(np.maximum(flat, 0.0), np.maximum(deep, 0.0))
        return np.asarray(outside + np.minimum(np.maximum(flat, deep), 0.0) - rounding)

    return sdf


def either(*shapes: Sdf) -> Sdf:
    def sdf(p: Array) -> Array:
        best = shapes[0](p)
        for shape in shapes[1:]:
            best = np.minimum(best, shape(p))
        return best

    return sdf


def blend(first: Sdf, second: Sdf, width: float) -> Sdf:
    """A union whose seam is filled smoothly over `width`."""

    def sdf(p: Array) -> Array:
        a, b = first(p), second(p)
        overlap = np.maximum(width - np.abs(a - b), 0.0)
        return np.asarray(np.minimum(a, b) - overlap * overlap / (4.0 * width))

    return sdf


def without(solid: Sdf, hole: Sdf) -> Sdf:
    return lambda p: np.maximum(solid(p), -hole(p))


def both(first: Sdf, second: Sdf) -> Sdf:
    return lambda p: np.maximum(first(p), second(p))


def move(shape: Sdf, offset: Vec) -> Sdf:
    o = vec(offset)
    return lambda p: shape(p - o)


def scale(shape: Sdf, factor: float) -> Sdf:
    return lambda p: shape(p / factor) * factor


def turned(p: Array, axis: str, degrees: float) -> Array:
    """The points as seen by a thing that was turned by `degrees` about an axis."""
    angle = np.deg2rad(degrees)
    c, s = float(np.cos(angle)), float(np.sin(angle))
    x, y, z = p
    if axis == "x":
        return np.stack([x, c * y + s * z, c * z - s * y])
    if axis == "y":
        return np.stack([c * x - s * z, y, s * x + c * z])
    return np.stack([c * x + s * y, c * y - s * x, z])


def turn(shape: Sdf, axis: str, degrees: float) -> Sdf:
    return lambda p: shape(turned(p, axis, degrees))


def mirror_x(shape: Sdf) -> Sdf:
    return lambda p: shape(np.stack([np.abs(p[0]), p[1], p[2]]))


def rough(shape: Sdf, amount: float, frequency: float) -> Sdf:
    """Adds an uneven surface; the factor keeps the march from stepping through it."""

    def sdf(p: Array) -> Array:
        return np.asarray((shape(p) - amount * (fbm(p * frequency + 9.0, 3) - 0.5)) * 0.8)

    return sdf


def terrain(height: Callable[[Array, Array], Array], half: float, steepness: float) -> Sdf:
    """Land whose height over (x, z) is tabulated once on a square of side 2 * half."""
    size = 900
    axis = np.linspace(-half, half, size, dtype=np.float32)
    gx, gz = np.meshgrid(axis, axis, indexing="ij")
    table = height(gx.ravel(), gz.ravel()).reshape(size, size).astype(np.float32)

    def sdf(p: Array) -> Array:
        x = np.clip((p[0] + half) / (2.0 * half) * (size - 1), 0.0, size - 1.001)
        z = np.clip((p[2] + half) / (2.0 * half) * (size - 1), 0.0, size - 1.001)
        i, k = x.astype(np.int32), z.astype(np.int32)
        fx, fz = x - i, z - k
        ground = mix(
            mix(table[i, k], table[i + 1, k], fx), mix(table[i, k + 1], table[i + 1, k + 1], fx), fz
        )
        beyond = np.maximum(np.abs(p[0]), np.abs(p[2])) - half
        return np.asarray(np.maximum((p[1] - ground) * steepness, beyond))

    return sdf


# --- what a scene is made of -----------------------------------------------------------------


@dataclass(frozen=True)
class Glass:
    """`solid` glass bends light and may hold a dyed liquid; hollow glass is a thin skin."""

    solid: bool = False
    index: float = 1.45
    absorbance: Paint | None = None


@dataclass(frozen=True)
class Material:
    color: Paint
    roughness: float = 0.5
    metal: bool = False
    detail: float = 0.0025  # the step by which slopes are measured; tabulated shapes need it
    wrap: float = 0.0  # light that creeps round the edge: wax, paper, petals
    bump: Height | None = None
    glow: Paint | None = None
    glass: Glass | None = None


@dataclass(frozen=True)
class Light:
    position: Vec
    color: Array
    size: float = 0.08  # the larger, the softer its shadows
    falloff: bool = False  # a lamp in the scene weakens with distance, a studio light does not


class Part:
    """A shape with its material, and the box it lies in, found by sampling the shape."""

    def __init__(self, shape: Sdf, material: Material, extent: float = 3.0) -> None:
        self.shape = shape
        self.material = material
        cells = 44
        step = 2.0 * extent / cells
        axis = (np.arange(cells, dtype=np.float32) + 0.5) * step - extent
        grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, -1)
        inside = grid[:, shape(grid) < step]  # the half diagonal of a cell is 0.87 step
        if inside.shape[1] == 0:
            raise ValueError(f"A part lies outside its extent of {extent}: enlarge the extent.")
        low = inside.min(axis=1) - 0.5 * step
        high = inside.max(axis=1) + 0.5 * step
        self.center = ((low + high) / 2.0).reshape(3, 1)
        self.half = ((high - low) / 2.0).reshape(3, 1)

    def reach(self, p: Array) -> Array:
        """A lower bound of the distance, from the box alone."""
        away = np.maximum(np.abs(p - self.center) - self.half, 0.0)
        return np.asarray(np.sqrt((away * away).sum(axis=0)))


@dataclass(frozen=True)
class Scene:
    parts: tuple[Part, ...]
    eye: Vec
    target: Vec
    field_of_view: float
    backdrop: Environment
    surroundings: Environment  # what reflections see: the studio's soft boxes, or the sky
    lights: tuple[Light, ...]
    fill_above: Array
    fill_below: Array
    ground: Material | None = None
    ground_fade: tuple[float, float] = (3.0, 7.0)  # where the ground melts into the backdrop
    haze: float = 0.0
    exposure: float = 1.0
    bloom: float = 0.0
    lens_blur: float = 0.0


def backdrop(center: str, edge: str, toward: Vec, spread: float = 0.35) -> Environment:
    """A painted studio wall, brightest where the camera looks."""
    inner, outer, axis = rgb(center), rgb(edge), unit(vec(toward))

    def see(d: Array, _blur: float) -> Array:
        off = 1.0 - np.clip(dot(d, axis), -1.0, 1.0)
        return mix(outer, inner, np.exp(-off / (spread * spread)))

    return see


def studio(above: str, below: str, strength: float = 1.0) -> Environment:
    """A dim room with a large soft box at the left, a strip at the right and one overhead."""
    top, bottom = rgb(above), rgb(below)
    boxes = (
        (unit(vec((-0.9, 0.5, 0.45))), 0.30, 0.45, 3.4),
        (unit(vec((0.95, 0.25, 0.25))), 0.10, 0.55, 2.2),
        (unit(vec((0.1, 1.0, 0.1))), 0.45, 0.35, 1.8),
    )

    def see(d: Array, blur: float) -> Array:
        light = mix(bottom, top, ramp(-0.6, 0.8, d[1]))
        soft = 0.03 + blur
        for axis, half_width, half_height, power in boxes:
            a = axis[:, 0]
            helper = np.array([0.0, 0.0, 1.0]) if abs(a[1]) > 0.9 else np.array([0.0, 1.0, 0.0])
            right = np.cross(helper, a)
            right = right / np.sqrt((right**2).sum())
            x = np.abs(dot(d, vec(right)))
            y = np.abs(dot(d, vec(np.cross(a, right))))
            mask = ramp(half_width + soft, half_width - soft, x)
            mask = mask * ramp(half_height + soft, half_height - soft, y) * (dot(d, axis) > 0.0)
            light = light + strength * power / (1.0 + 2.0 * blur) * mask
        return np.asarray(light)

    return see


def sky(
    zenith: str, horizon: str, sun: Vec, sunlight: str, glow: float = 1.0, clouds: float = 0.0
) -> Environment:
    high, low, star, warm = rgb(zenith), rgb(horizon), unit(vec(sun)), rgb(sunlight)

    def see(d: Array, _blur: float) -> Array:
        up = np.clip(d[1], 0.0, 1.0)
        light = mix(low, high, 1.0 - np.exp(-up * 4.5))
        facing = np.clip(dot(d, star), 0.0, 1.0)
        if clouds > 0.0:
            flat = np.stack([d[0] / (up + 0.14), up * 0.0, d[2] / (up + 0.14)])
            cover = ramp(0.48, 0.78, fbm(flat * np.float32(1.3) + 4.0, 5)) * ramp(0.0, 0.12, up)
            white = mix(low * 0.9 + 0.1, warm * 0.9 + 0.1, facing**3)
            light = mix(light, white, cover * clouds)
        halo = 0.45 * facing**12 + 0.9 * facing**160 + 9.0 * ramp(0.9990, 0.9996, facing)
        return np.asarray(light + glow * warm * halo)

    return see


# --- tracing ---------------------------------------------------------------------------------


def distance(parts: Sequence[Part], p: Array, detail: float) -> Array:
    """The distance to the nearest part.

    A part whose box is farther away than `detail` is not asked: the distance to its box, a lower
    bound, stands for it.
    """
    best = np.full(p.shape[1], 2.0, dtype=np.float32)
    for part in parts:
        reach = part.reach(p)
        near = np.flatnonzero(reach < np.minimum(best, detail))
        best = np.where(reach < detail, best, np.minimum(best, reach))
        if near.size:
            best[near] = np.minimum(best[near], part.shape(p[:, near]))
    return best


def _box_span(parts: Sequence[Part], o: Array, d: Array) -> tuple[Array, Array]:
    """Where each ray enters and leaves the box around all parts."""
    low = np.min([(part.center - part.half) for part in parts], axis=0)
    high = np.max([(part.center + part.half) for part in parts], axis=0)
    inverse = 1.0 / np.where(np.abs(d) < 1e-7, 1e-7, d)
    a, b = (low - o) * inverse, (high - o) * inverse
    enter = np.minimum(a, b).max(axis=0)
    leave = np.maximum(a, b).min(axis=0)
    return np.maximum(enter, 0.0), leave


def march(parts: Sequence[Part], o: Array, d: Array, limit: Array) -> Array:
    """Distance along each ray to the first surface before `limit`, else infinity."""
    found = np.full(o.shape[1], np.inf, dtype=np.float32)
    if not parts:
        return found
    enter, leave = _box_span(parts, o, d)
    leave = np.minimum(leave, limit)
    alive = np.flatnonzero(enter < leave)
    t, end, o, d = enter[alive], leave[alive], o[:, alive], d[:, alive]
    for _ in range(MARCH_STEPS):
        if not alive.size:
            break
        gap = distance(parts, o + d * t, 0.06)
        hit = gap < SURFACE * (1.0 + 0.3 * t)
        found[alive[hit]] = t[hit]
        t = t + np.maximum(gap, 0.0005)
        keep = ~hit & (t < end)
        alive, t, end, o, d = alive[keep], t[keep], end[keep], o[:, keep], d[:, keep]
    return found


def normal_of(shape: Sdf, p: Array, detail: float) -> Array:
    e = np.float32(detail)
    total = np.zeros_like(p)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        k = vec(corner)
        total += k * shape(p + k * e)
    return unit(total)


def bumped(height: Height, p: Array, n: Array) -> Array:
    """Tilts the normals by the slope of a height given in space."""
    e = np.float32(0.004)
    here = height(p)
    slope = np.stack([(height(p + vec(a) * e) - here) / e for a in np.eye(3)])
    return unit(n - (slope - n * dot(slope, n)))


def shadow(parts: Sequence[Part], p: Array, to_light: Array, reach: Array, size: float) -> Array:
    """How much of a light with angular `size` each point sees: 1 all, 0 none."""
    seen = np.ones(p.shape[1], dtype=np.float32)
    if not parts:
        return seen
    enter, leave = _box_span(parts, p, to_light)
    leave = np.minimum(leave, reach)
    alive = np.flatnonzero(enter < leave)
    t, end = np.maximum(enter[alive], 0.01), leave[alive]
    p, d = p[:, alive], to_light[:, alive]
    for _ in range(60):
        if not alive.size:
            break
        gap = distance(parts, p + d * t, 0.4)
        # Half a light is covered when the ray just grazes: 0.5 + gap / width of the penumbra.
        seen[alive] = np.minimum(seen[alive], np.clip(0.5 + 0.5 * gap / (size * t), 0.0, 1.0))
        t = t + np.clip(np.abs(gap), 0.012, 0.25)
        keep = (seen[alive] > 0.005) & (t < end)
        alive, t, end, p, d = alive[keep], t[keep], end[keep], p[:, keep], d[:, keep]
    return ramp(0.0, 1.0, seen)


def openness(parts: Sequence[Part], floor: bool, p: Array, n: Array) -> Array:
    """Ambient occlusion: how far the surroundings are, against how far they could be."""
    covered = np.zeros(p.shape[1], dtype=np.float32)
    weight = 1.0
    for step in (0.03, 0.08, 0.16, 0.28, 0.42):
        q = p + n * np.float32(step)
        gap = distance(parts, q, 0.45) if parts else np.full(p.shape[1], 2.0, dtype=np.float32)
        if floor:
            gap = np.minimum(gap, q[1])
        covered += weight * np.clip(step - gap, 0.0, step) / step
        weight *= 0.72
    return np.asarray(np.clip(1.0 - 0.42 * covered, 0.0, 1.0))


def reflected(d: Array, n: Array) -> Array:
    return np.asarray(d - 2.0 * dot(d, n) * n)


def refracted(d: Array, n: Array, ratio: float) -> Array:
    """Snell's law; where no light passes, the direction is mirrored instead."""
    cosine = -dot(d, n)
    under = 1.0 - ratio * ratio * (1.0 - cosine * cosine)
    bent = ratio * d + (ratio * cosine - np.sqrt(np.maximum(under, 0.0))) * n
    return np.where(under > 0.0, unit(bent), reflected(d, n))


def lit(
    scene: Scene, material: Material, p: Array, d: Array, n: Array, solid: Sequence[Part]
) -> tuple[Array, Array]:
    """Diffuse and specular light from the lamps, with shadows."""
    diffuse = np.zeros_like(p)
    glint = np.zeros_like(p)
    shine = float(np.clip(2.0 / max(material.roughness, 0.08) ** 4, 4.0, 900.0))
    clear = [part for part in scene.parts if part.material.glass is not None]
    # A flame or a bulb must not stand in the way of the light it gives.
    opaque = [part for part in solid if part.material.glow is None]
    for light in scene.lights:
        toward = vec(light.position) - p
        reach = np.sqrt((toward * toward).sum(axis=0))
        toward = toward / reach
        facing = np.clip((dot(n, toward) + material.wrap) / (1.0 + material.wrap), 0.0, 1.0)
        front = np.flatnonzero(facing > 0.0)
        seen = np.zeros(p.shape[1], dtype=np.float32)
        start = p[:, front] + n[:, front] * np.float32(LIFT)
        seen[front] = shadow(opaque, start, toward[:, front], reach[front], light.size)
        if clear and material.glass is None:
            through = shadow(clear, start, toward[:, front], reach[front], light.size * 2.0)
            seen[front] *= 0.55 + 0.45 * through
        power = facing * seen
        if light.falloff:
            power = power / (0.05 + reach * reach)
        diffuse += light.color * power
        half = np.clip(dot(n, unit(toward - d)), 0.0, 1.0)
        glint += light.color * (power * (shine + 2.0) / 8.0 * half**shine)
    return diffuse, glint


def shade(
    scene: Scene, material: Material, p: Array, d: Array, n: Array, depth: int, floor: bool
) -> Array:
    solid = [part for part in scene.parts if part.material.glass is None]
    color = material.color(p)
    if material.bump is not None:
        n = bumped(material.bump, p, n)
    diffuse, glint = lit(scene, material, p, d, n, solid)
    grounded = scene.ground is not None and not floor
    air = openness(solid, grounded, p, n)
    diffuse += mix(scene.fill_below, scene.fill_above, 0.5 + 0.5 * n[1]) * air
    base = color if material.metal else np.float32(0.04)
    ceiling = np.maximum(np.float32(1.0 - material.roughness), base)
    grazing = (1.0 - np.clip(-dot(d, n), 0.0, 1.0)) ** 5
    fresnel = mix(base, ceiling, grazing)
    mirror = reflected(d, n)
    if material.roughness < 0.3 and depth < MAX_DEPTH - 1:
        start = p + n * np.float32(LIFT)
        seen, _ = trace(scene, solid, start, mirror, depth + 1, scene.surroundings)
    else:
        seen = scene.surroundings(mirror, material.roughness) * air
    glint = glint * (color if material.metal else np.float32(0.04))
    result = fresnel * seen + glint
    if not material.metal:
        result = result + color * diffuse * (1.0 - fresnel)
    if material.glow is not None:
        result = result + material.glow(p)
    return np.asarray(result)


def shade_glass(scene: Scene, part: Part, p: Array, d: Array, n: Array, depth: int) -> Array:
    material = part.material
    glass = material.glass
    if glass is None:
        raise ValueError("A part without glass was shaded as glass: give its material a Glass.")
    if depth >= MAX_DEPTH:
        return scene.surroundings(d, 0.0)
    solid = [other for other in scene.parts if other.material.glass is None]
    facing = np.clip(-dot(d, n), 0.0, 1.0)
    fresnel = 0.045 + 0.955 * (1.0 - facing) ** 5
    start = p + n * np.float32(LIFT)
    mirror, _ = trace(scene, solid, start, reflected(d, n), depth + 1, scene.surroundings)
    if glass.solid:
        inside = refracted(d, n, 1.0 / glass.index)
        enter = p - n * np.float32(LIFT)
        shape = part.shape
        t = np.zeros(p.shape[1], dtype=np.float32)
        for _ in range(40):
            t += np.clip(-shape(enter + inside * t), 0.0, 0.5)
        leave = enter + inside * t
        out = refracted(inside, -normal_of(shape, leave, part.material.detail), glass.index)
        behind = leave + out * np.float32(LIFT)
        loss = np.zeros_like(p)
        if glass.absorbance is not None:
            samples = 14
            for i in range(samples):
                at = enter + inside * (t * np.float32((i + 0.5) / samples))
                loss += glass.absorbance(at) * (t / samples)
        through, _ = trace(scene, solid, behind, out, depth + 1, scene.backdrop)
        through = through * np.exp(-loss)
    else:
        behind = p - n * np.float32(LIFT)
        through, _ = trace(scene, solid, behind, d, depth + 1, scene.backdrop)
        through = through * material.color(p) ** (1.0 / (facing + 0.12))
    _, glint = lit(scene, material, p, d, n, [])
    return np.asarray(mirror * fresnel + through * (1.0 - fresnel) + 0.04 * glint)


def trace(
    scene: Scene, parts: Sequence[Part], o: Array, d: Array, depth: int, beyond: Environment
) -> tuple[Array, Array]:
    """The light that comes along each ray, and how far away it was reflected."""
    count = o.shape[1]
    limit = np.full(count, np.inf, dtype=np.float32)
    if scene.ground is not None:
        down = d[1] < -1e-5
        limit[down] = np.maximum(-o[1, down] / d[1, down], 0.0)
    t = march(parts, o, d, limit)
    color = np.zeros((3, count), dtype=np.float32)
    empty = np.flatnonzero(~np.isfinite(t) & ~np.isfinite(limit))
    color[:, empty] = beyond(d[:, empty], 0.0)
    floor = np.flatnonzero(~np.isfinite(t) & np.isfinite(limit))
    if scene.ground is not None and floor.size:
        p, ray = o[:, floor] + d[:, floor] * limit[floor], d[:, floor]
        fade = ramp(*scene.ground_fade, np.hypot(p[0], p[2]))
        wall = scene.backdrop(ray, 0.0)
        near = np.flatnonzero(fade < 0.999)
        up = np.zeros((3, near.size), dtype=np.float32)
        up[1] = 1.0
        shaded = shade(scene, scene.ground, p[:, near], ray[:, near], up, depth, floor=True)
        wall[:, near] = mix(shaded, wall[:, near], fade[near])
        color[:, floor] = wall
    struck = np.flatnonzero(np.isfinite(t))
    if struck.size:
        p = o[:, struck] + d[:, struck] * t[struck]
        nearest = np.full(struck.size, 1e9, dtype=np.float32)
        owner = np.full(struck.size, -1)
        for index, part in enumerate(parts):
            close = np.flatnonzero(part.reach(p) < 0.02)
            gap = part.shape(p[:, close])
            wins = gap < nearest[close]
            nearest[close[wins]] = gap[wins]
            owner[close[wins]] = index
        for index, part in enumerate(parts):
            mine = np.flatnonzero(owner == index)
            if not mine.size:
                continue
            at, ray = p[:, mine], d[:, struck[mine]]
            n = normal_of(part.shape, at, part.material.detail)
            if part.material.glass is not None:
                color[:, struck[mine]] = shade_glass(scene, part, at, ray, n, depth)
            else:
                color[:, struck[mine]] = shade(scene, part.material, at, ray, n, depth, floor=False)
    t = np.minimum(t, limit)
    if scene.haze > 0.0:
        level = np.stack([d[0], np.abs(d[1]) * 0.3, d[2]])
        veil = 1.0 - np.exp(-scene.haze * np.where(np.isfinite(t), t, 0.0))
        color = mix(color, np.minimum(scene.backdrop(unit(level), 0.0), 1.5), veil)
    return color, t


# --- the camera and the darkroom -------------------------------------------------------------


def _rays(scene: Scene, x: Array, y: Array, width: int, height: int) -> tuple[Array, Array]:
    forward = unit(vec(scene.target) - vec(scene.eye))
    right = unit(np.cross(forward[:, 0], [0.0, 1.0, 0.0]).astype(np.float32).reshape(3, 1))
    up = np.cross(right[:, 0], forward[:, 0]).astype(np.float32).reshape(3, 1)
    zoom = float(np.tan(np.deg2rad(scene.field_of_view) / 2.0))
    u = (2.0 * x / width - 1.0) * zoom * width / height
    v = (1.0 - 2.0 * y / height) * zoom
    d = unit((forward + right * u + up * v).astype(np.float32))
    return np.repeat(vec(scene.eye), x.size, axis=1), d


def _expose(scene: Scene, x: Array, y: Array, width: int, height: int) -> tuple[Array, Array]:
    """Light at pixel positions, compressed to [0, 1) so that averages look right at edges."""
    color = np.empty((3, x.size), dtype=np.float32)
    depth = np.empty(x.size, dtype=np.float32)
    for start in range(0, x.size, CHUNK):
        part = slice(start, start + CHUNK)
        o, d = _rays(scene, x[part], y[part], width, height)
        light, t = trace(scene, scene.parts, o, d, 0, scene.backdrop)
        light = np.clip(light, 0.0, 60.0)
        color[:, part] = light / (1.0 + light)
        depth[part] = t
    return color, depth


def _blurred(image: Array, sigma: float) -> Array:
    """A Gaussian blur of an image (H, W, C), edges held."""
    radius = max(1, int(np.ceil(2.5 * sigma)))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype(np.float32)
    taps /= taps.sum()
    for axis in (0, 1):
        padding = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(image, padding, mode="edge")
        total = np.zeros_like(image)
        for i, tap in enumerate(taps):
            window = [slice(None)] * 3
            window[axis] = slice(i, i + image.shape[axis])
            total += tap * padded[tuple(window)]
        image = total
    return image


def _edges(image: Array) -> Array:
    """Pixels that differ from a neighbour, and those beside them."""
    rough_spot = np.zeros(image.shape[:2], dtype=bool)
    across = np.abs(np.diff(image, axis=1)).max(axis=2) > 0.03
    down = np.abs(np.diff(image, axis=0)).max(axis=2) > 0.03
    rough_spot[:, 1:] |= across
    rough_spot[:, :-1] |= across
    rough_spot[1:] |= down
    rough_spot[:-1] |= down
    return rough_spot


def _focus(scene: Scene, image: Array, depth: Array, width: int) -> Array:
    """Softens what lies before or behind the target, as a lens would."""
    focus = float(np.sqrt(((vec(scene.eye) - vec(scene.target)) ** 2).sum()))
    circle = np.clip(scene.lens_blur * (np.abs(1.0 - focus / np.minimum(depth, 1e4)) - 0.1), 0, 1)
    # Weighting by the circle keeps sharp things from bleeding into the soft background.
    weight = (circle + 0.01)[..., None]
    result = image
    for sigma, low, high in ((1.2, 0.02, 0.15), (3.0, 0.15, 0.45), (7.0, 0.45, 1.0)):
        sigma = max(sigma * width / 1280.0, 0.3)
        soft = _blurred(image * weight, sigma) / _blurred(weight, sigma)
        result = mix(result, soft, ramp(low, high, circle)[..., None])
    return result


def render_still(name: str, width: int = 1280, height: int = 720) -> NDArray[np.uint8]:
    """One still as an array [H, W, 3]; the same arguments always give the same picture."""
    if name not in STILLS:
        raise ValueError(f"There is no still named {name!r}: choose from {', '.join(STILLS)}.")
    scene = STILLS[name]()
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = columns.ravel() + 0.5, rows.ravel() + 0.5
    flat, depth = _expose(scene, x, y, width, height)
    image = flat.T.reshape(height, width, 3)
    again = np.flatnonzero(_edges(image).ravel())
    offsets = ((-0.36, -0.12), (0.12, -0.36), (0.36, 0.12), (-0.12, 0.36))
    total = flat[:, again].copy()
    for dx, dy in offsets:
        total += _expose(scene, x[again] + dx, y[again] + dy, width, height)[0]
    flat[:, again] = total / (1 + len(offsets))
    image = flat.T.reshape(height, width, 3)
    image = image / (1.0 - image)
    if scene.lens_blur > 0.0:
        image = _focus(scene, image, depth.reshape(height, width), width)
    if scene.bloom > 0.0:
        bright = np.maximum(image - 1.0, 0.0)
        for sigma in (6.0, 22.0, 60.0):
            image = image + scene.bloom / 3.0 * _blurred(bright, sigma * width / 1280.0)
    corner = ((columns / width - 0.5) ** 2 + (rows / height - 0.5) ** 2)[..., None]
    image = image * scene.exposure * (1.0 - 0.45 * corner)
    film = 1.0 - np.exp(-1.35 * image)
    film = film ** (1.0 / 2.2)
    film = mix(film, film * film * (3.0 - 2.0 * film), 0.35)
    return np.clip(film * 255.0 + 0.5, 0.0, 255.0).astype(np.uint8)


# --- surfaces and studios shared by the scenes -----------------------------------------------


def wood(light: str, dark: str, grain: float = 1.0) -> Paint:
    pale, deep = rgb(light), rgb(dark)

    def paint(p: Array) -> Array:
        q = np.stack([p[0] * 0.6, p[1] * 3.0, p[2] * 5.0]) * np.float32(grain)
        ring = 0.5 + 0.5 * np.sin(22.0 * fbm(q * 0.5, 3) + 6.0 * q[2])
        fine = noise(np.stack([q[0] * 3.0, q[1] * 14.0, q[2] * 14.0]))
        return mix(pale, deep, np.clip(0.65 * ring + 0.35 * fine, 0.0, 1.0))

    return paint


def planks(light: str, dark: str, width: float = 0.62) -> Paint:
    """A table top: boards along x, each of its own shade, with a thin gap between."""
    grain = wood(light, dark, 0.8)

    def paint(p: Array) -> Array:
        board = np.floor(p[2] / width)
        offset = np.stack([board * 7.3, board * 3.1, board * 0.0])
        tone = 0.78 + 0.44 * noise(np.stack([board * 5.7, board * 0.0 + 0.5, board * 0.0]))
        inside = np.abs(p[2] / width - board - 0.5)
        return grain(p + offset) * tone * (1.0 - 0.75 * ramp(0.488, 0.497, inside))

    return paint


def mottled(light: str, dark: str, frequency: float) -> Paint:
    pale, deep = rgb(light), rgb(dark)
    return lambda p: mix(pale, deep, ramp(0.25, 0.75, fbm(p * frequency, 4)))


def glowing(code: str, strength: float) -> Paint:
    color = rgb(code) * np.float32(strength)
    return lambda p: np.repeat(color, p.shape[1], axis=1)


def ripples(amount: float, frequency: float) -> Height:
    """Water: gentle waves that fade with distance, where a pixel holds many of them."""

    def height(p: Array) -> Array:
        q = np.stack([p[0] * 0.45, p[1] * 0.0, p[2] * 1.3]) * np.float32(frequency)
        calm = 1.0 / (1.0 + 0.012 * (p[0] ** 2 + p[2] ** 2))
        return np.asarray(amount * calm * (fbm(q, 3) - 0.5))

    return height


KEY = Light((-4.0, 6.5, 4.5), np.float32(2.3) * rgb("#fff1df"), 0.10)
KEY_SOFT = Light((-5.0, 5.0, 5.0), np.float32(0.7) * rgb("#dfe6ff"), 0.3)


def studio_scene(
    parts: Sequence[Part],
    ground: Material,
    wall: Environment,
    eye: Vec,
    target: Vec,
    field_of_view: float,
    lights: tuple[Light, ...] = (KEY,),
    fill: tuple[str, str] = ("#a9b4c6", "#6f675e"),
    **options: Any,
) -> Scene:
    return Scene(
        parts=tuple(parts),
        ground=ground,
        backdrop=wall,
        surroundings=options.pop("surroundings", studio("#8b93a3", "#3b3733")),
        eye=eye,
        target=target,
        field_of_view=field_of_view,
        lights=lights,
        fill_above=rgb(fill[0]),
        fill_below=rgb(fill[1]),
        **options,
    )


# --- the stills ------------------------------------------------------------------------------


def mug() -> Scene:
    """A glazed mug of coffee on a wooden table."""
    body = lathe(
        path(
            "0,0 0.34,0 0.4,0.03 0.43,0.12 0.43,0.9 0.42,0.93 0.395,0.93 0.38,0.9 "
            "0.37,0.14 0.3,0.08 0,0.08"
        )
    )
    ring = move(turn(torus((0, 0, 0), 0.25, 0.055), "x", 90), (0.45, 0.48, 0.0))
    handle = without(ring, cylinder((0, 0.5, 0), 0.40, 0.6))
    dip = rgb("#1f6f78")
    raw = mottled("#efe4d2", "#d9c7ab", 26.0)

    def glaze(p: Array) -> Array:
        edge = 0.42 + 0.05 * np.sin(3.0 * np.arctan2(p[2], p[0])) + 0.04 * noise(p * 9.0)
        speckle = ramp(0.72, 0.80, noise(p * 60.0))
        return mix(mix(raw(p), rgb("#7a5a3c"), 0.5 * speckle), dip, ramp(-0.01, 0.01, p[1] - edge))

    coffee = cylinder((0, 0.78, 0), 0.375, 0.02)
    beans = []
    for x, z, angle in ((-0.75, 0.42, 20), (-0.98, 0.18, 75), (-0.62, 0.68, 130), (0.72, 0.62, 50)):
        bean = without(
            ellipsoid((0, 0, 0), (0.085, 0.05, 0.06)), box((0, 0.06, 0), (0.09, 0.03, 0.006))
        )
        beans.append(move(turn(bean, "y", angle), (x, 0.05, z)))
    window = backdrop("#c9b79c", "#5d4b3c", (0.35, 0.05, -1.0), 0.5)
    return studio_scene(
        [
            Part(turn(blend(body, handle, 0.05), "y", -28), Material(glaze, 0.18)),
            Part(coffee, Material(plain("#2a1409"), 0.08)),
            Part(either(*beans), Material(mottled("#4a2a16", "#2c170b", 12.0), 0.35)),
        ],
        Material(planks("#a9764a", "#7b4d2b"), 0.42),
        window,
        eye=(0.1, 1.95, 3.5),
        target=(0.05, 0.42, 0.0),
        field_of_view=25,
        ground_fade=(2.2, 7.0),
        lens_blur=0.9,
    )


def perfume() -> Scene:
    """A square glass bottle, half full of amber, with a golden cap."""
    glass = box((0, 0.56, 0), (0.42, 0.52, 0.20), 0.07)
    liquid = box((0, 0.46, 0), (0.34, 0.34, 0.13), 0.04)
    amber = vec((0.55, 2.1, 5.2))

    def dye(p: Array) -> Array:
        return np.asarray(amber * ramp(0.01, -0.01, liquid(p)) + 0.06)

    gold = Material(plain("#e3b565"), 0.16, metal=True)
    plinth = box((0, -0.06, 0), (0.95, 0.10, 0.62), 0.02)
    tall = cylinder((-0.78, 0.17, -0.75), 0.30, 0.33, 0.02)
    petals = []
    for x, z, angle in ((0.66, 0.30, 15), (0.50, 0.46, 100), (-0.62, 0.36, 60)):
        petal = ellipsoid((0, 0, 0), (0.12, 0.018, 0.075))
        petals.append(move(turn(turn(petal, "z", 12), "y", angle), (x, 0.07, z)))
    stone = mottled("#f1e7e0", "#d8c6bc", 3.0)

    def veins(p: Array) -> Array:
        line = np.abs(fbm(p * 1.7 + 3.0, 5) - 0.5)
        return mix(rgb("#9a8a86"), stone(p), ramp(0.0, 0.05, line) * 0.5 + 0.5)

    return studio_scene(
        [
            Part(glass, Material(plain("#ffffff"), 0.06, glass=Glass(solid=True, absorbance=dye))),
            Part(cylinder((0, 1.12, 0), 0.115, 0.06, 0.01), gold),
            Part(box((0, 1.33, 0), (0.17, 0.17, 0.17), 0.03), gold),
            Part(plinth, Material(veins, 0.2)),
            Part(tall, Material(plain("#d99f92"), 0.55)),
            Part(either(*petals), Material(plain("#f3b6b4"), 0.5, wrap=0.4)),
        ],
        Material(plain("#d9a79b"), 0.6),
        backdrop("#f6d3c4", "#c88f84", (0.05, 0.0, -1.0), 0.4),
        eye=(0.9, 1.25, 4.4),
        target=(0.0, 0.68, 0.0),
        field_of_view=28,
        ground_fade=(1.8, 5.5),
        fill=("#d8b7b0", "#a87f74"),
    )


def stones() -> Scene:
    """Five balanced stones at the edge of still water, at first light."""
    sizes = (
        (0.00, 0.20, 0.62, 0.22, 0.50, "#5d6068", "#3f4248"),
        (0.06, 0.55, 0.46, 0.17, 0.38, "#8d8379", "#6c635a"),
        (-0.05, 0.83, 0.36, 0.14, 0.30, "#6d7178", "#4d5157"),
        (0.03, 1.05, 0.25, 0.11, 0.22, "#b5aa9c", "#91867a"),
        (-0.01, 1.22, 0.15, 0.09, 0.13, "#54565c", "#3b3d42"),
    )
    parts = []
    for x, y, rx, ry, rz, light, dark in sizes:
        shape = rough(ellipsoid((x, y, 0.0), (rx, ry, rz)), 0.035, 4.0 / (rx + 0.4))
        paint = mottled(light, dark, 9.0)
        parts.append(Part(shape, Material(paint, 0.55, bump=lambda p: 0.012 * fbm(p * 22.0, 3))))
    pebbles = []
    for x, z, r in ((-1.2, 0.3, 0.16), (-0.95, 0.62, 0.1), (1.15, -0.2, 0.2), (0.98, 0.5, 0.09)):
        pebbles.append(ellipsoid((x, 0.02, z), (r, 0.5 * r, 0.8 * r)))
    parts.append(Part(either(*pebbles), Material(mottled("#6f6a66", "#47444a", 8.0), 0.4)))
    dawn = sky("#7f93b8", "#f3c9a4", (0.55, 0.16, -1.0), "#ffb67a", 0.7)
    return Scene(
        parts=tuple(parts),
        eye=(0.0, 0.95, 5.0),
        target=(0.1, 0.62, 0.0),
        field_of_view=25,
        backdrop=dawn,
        surroundings=dawn,
        ground=Material(plain("#2b3a4a"), 0.03, bump=ripples(0.05, 3.2)),
        ground_fade=(14.0, 40.0),
        lights=(Light((5.5, 2.6, -6.0), np.float32(2.4) * rgb("#ffbf86"), 0.08), KEY_SOFT),
        fill_above=rgb("#8798b8"),
        fill_below=rgb("#66605f"),
        haze=0.012,
        bloom=0.25,
        lens_blur=0.5,
    )


def watch() -> Scene:
    """A wrist-watch with a blue dial, its strap closed, on a grey slab."""

    def place(shape: Sdf) -> Sdf:
        return move(turn(turn(shape, "x", 68), "y", 22), (0.0, 0.84, 0.28))

    def local(p: Array) -> Array:
        return turned(turned(p - vec((0.0, 0.84, 0.28)), "y", 22), "x", 68)

    case = lathe(
        path(
            "0,-0.12 0.44,-0.12 0.51,-0.07 0.535,0 0.52,0.08 0.485,0.115 0.45,0.115 "
            "0.435,0.07 0,0.07"
        )
    )
    lugs = [
        turn(box((sx * 0.27, 0.0, 0.53), (0.05, 0.055, 0.10), 0.03), "x", sz)
        for sx in (-1.0, 1.0)
        for sz in (10.0, 170.0)
    ]
    crown = turn(cylinder((0, -0.60, 0), 0.06, 0.05, 0.015), "z", 90)
    hands = [
        rod((0, 0.088, 0), (-0.165, 0.088, -0.12), 0.017, 0.010),
        rod((0, 0.096, 0), (0.20, 0.096, -0.255), 0.014, 0.008),
        cylinder((0, 0.09, 0), 0.03, 0.02, 0.005),
    ]
    second = rod((0.03, 0.104, -0.09), (-0.10, 0.104, 0.32), 0.0055)
    deep, bright, ink = rgb("#12305c"), rgb("#2f64a8"), rgb("#eef2f5")

    def dial(p: Array) -> Array:
        q = local(p)
        r, angle = np.hypot(q[0], q[2]), np.arctan2(q[0], -q[2])
        brushed = 0.5 + 0.5 * np.sin(2.0 * angle + 0.6)
        color = mix(deep, bright, np.clip(0.25 + 0.5 * brushed - 0.6 * r, 0.0, 1.0))
        hour = np.abs((angle / (np.pi / 6.0) + 0.5) % 1.0 - 0.5) * (np.pi / 6.0) * r
        minute = np.abs((angle / (np.pi / 30.0) + 0.5) % 1.0 - 0.5) * (np.pi / 30.0) * r
        marks = (hour < 0.013) & (r > 0.30) & (r < 0.39)
        marks |= (minute < 0.0035) & (r > 0.405) & (r < 0.425)
        return np.where(marks, ink, color)

    def strap(p: Array) -> Array:
        y, z = (p[1] + 0.44) / 0.56, p[2] / 0.80
        k0 = np.hypot(y, z)
        loop = k0 * (k0 - 1.0) / (np.hypot(y / 0.56, z / 0.80) + 1e-6)
        band, width = np.abs(loop) - 0.012, np.abs(p[0]) - 0.205
        outside = np.hypot(np.maximum(band, 0.0), np.maximum(width, 0.0))
        ring = outside + np.minimum(np.maximum(band, width), 0.0) - 0.025
        return np.asarray(np.maximum(ring, 0.50 - np.hypot(p[0], p[2]) - (p[1] < -0.3)) * 0.9)

    steel = Material(plain("#c9ccd1"), 0.14, metal=True)
    leather = Material(
        mottled("#7a4524", "#56301a", 7.0), 0.45, bump=lambda p: 0.006 * noise(p * 60.0)
    )
    slab_box = box((0, -0.1, 0), (1.5, 0.1, 1.0), 0.03)
    return studio_scene(
        [
            Part(place(either(case, *lugs, crown)), steel),
            Part(place(cylinder((0, 0.07, 0), 0.44, 0.006)), Material(dial, 0.22)),
            Part(place(either(*hands)), Material(plain("#f4f5f6"), 0.2, metal=True)),
            Part(place(second), Material(plain("#e0572f"), 0.4)),
            Part(place(strap), leather),
            Part(slab_box, Material(mottled("#5b5f66", "#484b52", 2.0), 0.4)),
        ],
        Material(plain("#3a3e46"), 0.4),
        backdrop("#79828f", "#2b2f37", (0.0, -0.05, -1.0), 0.35),
        eye=(0.25, 1.35, 4.0),
        target=(0.0, 0.66, 0.0),
        field_of_view=27,
        ground_fade=(2.0, 6.0),
    )


def headphones() -> Scene:
    """Over-ear headphones in cream and brass on a soft green set."""
    arc = without(turn(torus((0, 0, 0), 0.80, 0.055), "x", 90), box((0, -0.9, 0), (2.0, 0.95, 2.0)))
    pad_band = without(
        turn(torus((0, 0, 0), 0.735, 0.065), "x", 90), box((0, -0.55, 0), (2.0, 0.95, 2.0))
    )
    top = (0.0, 0.98, 0.0)
    stem = mirror_x(rod((0.80, 0.02, 0), (0.83, -0.28, 0), 0.026))
    cup = turn(cylinder((0, 0, 0), 0.36, 0.11, 0.07), "z", 90)
    cushion = turn(either(torus((0, 0, 0), 0.23, 0.115), cylinder((0, 0, 0), 0.2, 0.03)), "z", 90)
    disc = turn(cylinder((0, 0, 0), 0.20, 0.02, 0.01), "z", 90)
    tilt = -4.0

    def side(shape: Sdf, x: float) -> Sdf:
        return mirror_x(move(turn(shape, "z", tilt), (x, -0.58, 0.0)))

    def stand(shape: Sdf) -> Sdf:
        return turn(move(shape, top), "y", 32)

    yoke = without(
        turn(torus((0, 0, 0), 0.40, 0.028), "z", 90), box((0, -0.55, 0), (1.0, 0.5, 1.0))
    )
    brass = Material(plain("#d8a75c"), 0.2, metal=True)
    shell = Material(plain("#efe6d6"), 0.22)
    soft = Material(mottled("#6e4a35", "#5a3a29", 6.0), 0.5, bump=lambda p: 0.004 * noise(p * 70.0))
    return studio_scene(
        [
            Part(stand(arc), shell),
            Part(stand(pad_band), soft),
            Part(stand(either(stem, side(yoke, 0.88))), brass),
            Part(stand(side(cup, 0.84)), shell),
            Part(stand(side(disc, 0.955)), brass),
            Part(stand(side(cushion, 0.68)), soft),
            Part(cylinder((0, -0.1, 0), 1.25, 0.105, 0.02), Material(plain("#8fb09a"), 0.5)),
        ],
        Material(plain("#7ea08b"), 0.55),
        backdrop("#b9d0bd", "#6b8f7b", (0.0, 0.0, -1.0), 0.4),
        eye=(0.0, 1.45, 5.6),
        target=(0.0, 0.86, 0.0),
        field_of_view=27,
        ground_fade=(2.4, 7.0),
    )


def desk_lamp() -> Scene:
    """An articulated lamp that lights a stack of books at night."""
    elbow, joint = (-0.95, 1.05, 0.0), (-0.25, 1.72, 0.0)
    foot = (-0.62, 0.10, 0.0)
    arm = either(rod(foot, elbow, 0.028), rod(elbow, joint, 0.028))
    knobs = either(sphere(elbow, 0.065), sphere(joint, 0.065), sphere(foot, 0.06))
    shade_shape = lathe(
        path("0,0.36 0.1,0.36 0.13,0.3 0.15,0.22 0.37,-0.16 0.355,-0.16 0.13,0.2 0,0.26")
    )

    def hang(shape: Sdf) -> Sdf:
        return move(turn(turn(shape, "x", -24), "z", 24), (-0.02, 1.58, 0.03))

    bulb = (0.0, 1.50, 0.06)
    books = (
        (0.46, 0.07, 0.62, 0.07, 0.42, -8, "#8c2f2b"),
        (0.50, 0.20, 0.55, 0.06, 0.38, 6, "#d9a441"),
        (0.45, 0.315, 0.48, 0.055, 0.34, -14, "#2e6170"),
    )
    parts = [
        Part(either(arm, knobs), Material(plain("#c8a45c"), 0.22, metal=True)),
        Part(cylinder((-0.62, 0.05, 0), 0.33, 0.05, 0.02), Material(plain("#1f5a52"), 0.25)),
        Part(hang(shade_shape), Material(plain("#1f6b5f"), 0.25)),
        Part(sphere(bulb, 0.095), Material(plain("#fff2d0"), 0.9, glow=glowing("#ffdf9e", 9.0))),
        Part(
            box((0, 1.2, -1.25), (4.0, 1.8, 0.04)),
            Material(mottled("#3d566a", "#354c5e", 2.0), 0.9),
            extent=4.4,
        ),
    ]
    for x, y, half_x, half_y, half_z, angle, code in books:
        cover = without(
            box((0, 0, 0), (half_x, half_y, half_z), 0.012),
            box((0.03, 0, 0.03), (half_x, half_y - 0.016, half_z)),
        )
        pages = box((0, 0, 0), (half_x - 0.03, half_y - 0.014, half_z - 0.03))
        at = (x, y, 0.25)
        parts.append(Part(move(turn(cover, "y", angle), at), Material(plain(code), 0.5)))
        parts.append(Part(move(turn(pages, "y", angle), at), Material(plain("#e8dcc0"), 0.8)))
    warm = Light((0.10, 1.34, 0.10), np.float32(5.0) * rgb("#ffd08a"), 0.10, falloff=True)
    moon = Light((4.0, 5.0, 4.0), np.float32(0.22) * rgb("#9fb7e8"), 0.25)
    return studio_scene(
        parts,
        Material(planks("#8d5f3a", "#5f3b22"), 0.35),
        backdrop("#20303e", "#111a22", (0.0, 0.0, -1.0), 0.6),
        eye=(0.35, 1.45, 5.4),
        target=(0.05, 0.95, 0.0),
        field_of_view=29,
        lights=(warm, moon),
        fill=("#3b4a5e", "#2c2722"),
        surroundings=studio("#2a3340", "#151210", 0.25),
        ground_fade=(5.0, 9.0),
        bloom=0.10,
    )


def sailboat() -> Scene:
    """A small sailing boat on a flat sea in the evening."""
    hull = both(ellipsoid((0, 0.30, 0), (0.95, 0.42, 0.27)), box((0, 0.10, 0), (1.2, 0.20, 0.5)))
    inner = box((0.08, 0.33, 0), (0.42, 0.09, 0.11), 0.03)
    white, red = rgb("#f3efe6"), rgb("#b5352d")

    def planking(p: Array) -> Array:
        return mix(red, white, ramp(0.045, 0.055, p[1]))

    def billow(outline: Outline, depth: float) -> Sdf:
        flat = slab(outline, 0.010, 0.004)

        def sdf(p: Array) -> Array:
            belly = depth * np.sin(np.clip((p[1] - 0.3) / 2.0, 0.0, 1.0) * np.pi)
            reach = np.clip(np.abs(p[0]) / 0.8, 0.0, 1.0)
            return np.asarray(flat(np.stack([p[0], p[1], p[2] - belly * reach])) * 0.85)

        return sdf

    main_sail = billow(
        [*path("(0.03,0.48 0.45,0.46 0.86,0.5)"), *path("(0.86,0.5 0.62,1.05 0.32,1.75 0.05,2.3)")],
        0.16,
    )
    jib = billow(path("-0.06,0.5 -0.86,0.4 -0.45,1.15 -0.05,2 -0.13,1.2"), 0.18)
    cloth, seam = rgb("#fbf3e2"), rgb("#d8c7a6")

    def canvas(p: Array) -> Array:
        q = turned(p, "y", -28.0)
        panel = np.abs((q[1] / 0.24) % 1.0 - 0.5)
        return mix(cloth, seam, ramp(0.465, 0.49, panel))

    mast = rod((0, 0.25, 0), (0, 2.42, 0), 0.022, 0.014)
    boom = rod((0, 0.44, 0), (0.90, 0.44, 0), 0.017)

    def sail(shape: Sdf) -> Sdf:
        return turn(shape, "y", 28)

    evening = sky("#5878ad", "#ffc58f", (-0.62, 0.13, -1.0), "#ffab5e", 0.8, clouds=0.7)
    return Scene(
        parts=(
            Part(sail(without(hull, inner)), Material(planking, 0.25)),
            Part(sail(either(main_sail, jib)), Material(canvas, 0.8, wrap=0.6)),
            Part(sail(either(mast, boom)), Material(plain("#8a5b33"), 0.4)),
        ),
        eye=(0.3, 1.0, 7.6),
        target=(-0.35, 1.12, 0.0),
        field_of_view=26,
        backdrop=evening,
        surroundings=evening,
        ground=Material(plain("#173648"), 0.03, bump=ripples(0.09, 2.2)),
        ground_fade=(25.0, 70.0),
        lights=(
            Light((-4.5, 2.6, 3.6), np.float32(2.7) * rgb("#ffc489"), 0.06),
            Light((5.0, 4.0, 6.0), np.float32(0.5) * rgb("#cfdcff"), 0.3),
        ),
        fill_above=rgb("#8fa6cc"),
        fill_below=rgb("#7b736f"),
        haze=0.010,
        bloom=0.30,
    )


def lake() -> Scene:
    """A mountain lake at dusk, snow on the ridge, one lit hut on the shore."""

    def height(x: Array, z: Array) -> Array:
        p = np.stack([x, x * 0.0, z])
        far = ramp(0.6, -2.6, z)
        ridge = 1.0 - np.abs(2.0 * fbm(p * np.float32(0.85) + 2.6, 6) - 1.0)
        valley = np.abs(x + 0.25 + 0.25 * np.sin(1.1 * z))
        side = ramp(0.25, 2.4, valley)
        hills = 0.34 * ramp(0.75, 2.0, valley + 0.3 * noise(p * 1.7)) * (0.5 + fbm(p * 2.2, 4))
        peak = 1.45 * np.exp(-((x - 0.55) ** 2) / 0.55 - (z + 2.1) ** 2 / 0.45)
        peak += 1.05 * np.exp(-((x + 1.25) ** 2) / 0.4 - (z + 2.3) ** 2 / 0.4)
        land = hills * (0.35 + 0.9 * side) + far * ridge**2 * (0.25 + peak) * 1.15
        return np.asarray(land - 0.10)

    snow, rock, forest = rgb("#e9eef8"), rgb("#5b5866"), rgb("#35523f")

    def cover(p: Array) -> Array:
        e = 0.02
        steep = np.abs(land(p + vec((e, 0, 0))) - land(p - vec((e, 0, 0))))
        steep = steep + np.abs(land(p + vec((0, 0, e))) - land(p - vec((0, 0, e))))
        grain = fbm(p * np.float32(9.0), 4)
        color = mix(forest, rock, ramp(0.30, 0.52, p[1] + 0.25 * (grain - 0.5)))
        line = ramp(0.50, 0.75, p[1] + 0.35 * (grain - 0.5)) * ramp(0.055, 0.03, steep)
        return mix(color * (0.6 + 0.8 * grain), snow, line)

    land = terrain(height, 3.0, 0.55)
    trees: list[Sdf] = []
    placing = np.random.default_rng(5)
    while len(trees) < 26:
        x, z = placing.uniform(-1.7, 1.9), placing.uniform(-0.8, 1.1)
        top = float(height(np.array([x], np.float32), np.array([z], np.float32))[0])
        if 0.005 < top < 0.14:
            tall = float(placing.uniform(0.11, 0.19))
            trees.append(rod((x, top, z), (x, top + tall, z), 0.034, 0.002))
    hx, hz = 0.72, 0.02
    hy = max(0.0, float(height(np.array([hx], np.float32), np.array([hz], np.float32))[0]))
    roof = slab(path("-0.085,0.07 0,0.135 0.085,0.07 0,0.115"), 0.075)
    dusk = sky("#42568c", "#f2bfa6", (-0.75, 0.10, -1.0), "#ff9a6b", 0.5, clouds=0.7)
    return Scene(
        parts=(
            Part(land, Material(cover, 0.9, detail=0.012)),
            Part(either(*trees[:13]), Material(mottled("#1c3026", "#0f1c1a", 30.0), 0.95)),
            Part(either(*trees[13:]), Material(mottled("#1c3026", "#0f1c1a", 30.0), 0.95)),
            Part(box((hx, hy + 0.035, hz), (0.065, 0.045, 0.06)), Material(plain("#4a3226"), 0.8)),
            Part(move(roof, (hx, hy, hz)), Material(plain("#30262a"), 0.8)),
            Part(
                either(
                    box((hx - 0.03, hy + 0.045, hz + 0.06), (0.014, 0.016, 0.004)),
                    box((hx + 0.03, hy + 0.045, hz + 0.06), (0.014, 0.016, 0.004)),
                ),
                Material(plain("#ffd890"), 0.9, glow=glowing("#ffc469", 5.0)),
            ),
        ),
        eye=(-0.1, 0.34, 3.4),
        target=(0.0, 0.42, 0.0),
        field_of_view=36,
        backdrop=dusk,
        surroundings=dusk,
        ground=Material(plain("#16283a"), 0.03, bump=ripples(0.005, 5.0)),
        ground_fade=(25.0, 70.0),
        lights=(Light((-14.0, 6.0, 6.0), np.float32(3.0) * rgb("#ffb08a"), 0.05),),
        fill_above=rgb("#a3b4dd"),
        fill_below=rgb("#666a85"),
        haze=0.03,
        exposure=1.15,
        bloom=0.35,
    )


def paper_boat() -> Scene:
    """A folded paper boat on a rain puddle."""
    bow, stern, peak = (-1.0, 0.52, 0.0), (1.0, 0.52, 0.0), (0.0, 0.98, 0.0)
    parts_list = []
    for side in (-1.0, 1.0):
        left, right = (-0.50, 0.0, 0.10 * side), (0.50, 0.0, 0.10 * side)
        rim = (0.0, 0.36, 0.36 * side)
        parts_list += [
            sheet(bow, left, rim, 0.008),
            sheet(stern, right, rim, 0.008),
            sheet(left, right, rim, 0.008),
            sheet((-0.52, 0.20, 0.10 * side), (0.52, 0.20, 0.10 * side), peak, 0.008),
        ]
    paper = mottled("#fbfaf5", "#eceae2", 14.0)
    overcast = backdrop("#d3dee2", "#7d939d", (0.1, 0.05, -1.0), 0.45)
    leaf = ellipsoid((0, 0, 0), (0.24, 0.012, 0.11))
    leaves = [
        (move(turn(leaf, "y", 35), (-1.35, 0.012, 0.55)), "#d98b2b"),
        (move(turn(leaf, "y", -50), (1.25, 0.012, -0.45)), "#b9502a"),
        (move(turn(leaf, "y", 80), (1.45, 0.012, 0.75)), "#e0a93c"),
    ]

    def rings(p: Array) -> Array:
        waves = np.zeros(p.shape[1], dtype=np.float32)
        for x, z, size in (
            (-0.9, 1.0, 0.30),
            (1.9, 0.3, 0.45),
            (-2.1, -0.6, 0.5),
            (0.5, -1.7, 0.4),
        ):
            r = np.hypot(p[0] - x, p[2] - z)
            waves += 0.006 * np.sin(34.0 * r) * np.exp(-(((r - size) / 0.13) ** 2))
        return waves + ripples(0.02, 2.0)(p)

    return studio_scene(
        [
            Part(
                move(turn(either(*parts_list), "y", -24), (0, -0.04, 0)),
                Material(paper, 0.8, wrap=0.35),
            ),
            *[Part(shape, Material(mottled(code, "#8a4a1e", 7.0), 0.6)) for shape, code in leaves],
        ],
        Material(plain("#33424a"), 0.03, bump=rings),
        overcast,
        eye=(0.2, 1.7, 4.6),
        target=(0.0, 0.28, 0.0),
        field_of_view=29,
        surroundings=backdrop("#e6eef0", "#5d727c", (0.2, 0.75, -0.6), 0.7),
        ground_fade=(3.5, 12.0),
        fill=("#aebdc6", "#7f8c90"),
    )


def paper_crane() -> Scene:
    """A folded red crane on a pale wooden table."""
    tail, neck, head = (-1.02, 0.98, 0.0), (0.92, 1.10, 0.0), (1.16, 0.92, 0.0)
    back, bottom_l, bottom_r = (0.0, 0.62, 0.0), (-0.34, 0.0, 0.0), (0.34, 0.0, 0.0)
    folds = [sheet(neck, head, (0.99, 0.97, 0.025)), sheet(neck, head, (0.99, 0.97, -0.025))]
    for side in (-1.0, 1.0):
        hip_l, hip_r = (-0.34, 0.34, 0.10 * side), (0.34, 0.34, 0.10 * side)
        tip = (-0.10, 1.16, 1.02 * side)
        folds += [
            sheet((-0.30, 0.40, 0.06 * side), (0.30, 0.40, 0.06 * side), tip),
            sheet(hip_l, hip_r, (0.0, 0.0, 0.06 * side)),
            sheet(hip_l, hip_r, back),
            sheet(hip_l, (0.0, 0.0, 0.06 * side), bottom_l),
            sheet(hip_r, (0.0, 0.0, 0.06 * side), bottom_r),
            sheet(hip_l, bottom_l, tail),
            sheet((-0.16, 0.14, 0.05 * side), hip_l, tail),
            sheet((0.16, 0.14, 0.05 * side), hip_r, neck),
            sheet(hip_r, bottom_r, neck),
        ]
    red, gold = rgb("#c22f33"), rgb("#e9bf6a")

    def washi(p: Array) -> Array:
        q = turned(p, "y", 36.0)
        cell = np.stack([q[0] * 6.0, q[1] * 6.0, q[2] * 6.0])
        near = cell - np.floor(cell) - 0.5
        dots = ramp(0.20, 0.15, np.sqrt((near * near).sum(axis=0)))
        return mix(red, gold, dots * 0.8)

    crane = turn(either(*folds), "y", -36)
    return studio_scene(
        [Part(crane, Material(washi, 0.75, wrap=0.3))],
        Material(planks("#d3b98f", "#b59568", 0.9), 0.45),
        backdrop("#f3ead9", "#bda98a", (0.2, 0.0, -1.0), 0.5),
        eye=(0.3, 1.75, 4.6),
        target=(0.05, 0.56, 0.0),
        field_of_view=27,
        ground_fade=(2.6, 7.5),
        fill=("#c4c2bd", "#9a8a74"),
        lens_blur=0.7,
    )


def chess() -> Scene:
    """A king, a rook, a bishop and pawns on a wooden board."""

    foot = path("0,0 0.3,0 0.31,0.05 0.28,0.1 0.25,0.12 0.25,0.16")

    def piece(profile: Outline) -> Sdf:
        return lathe([*foot, *profile])

    pawn = piece(
        path(
            "(0.2,0.2 0.11,0.42 0.09,0.56) 0.17,0.58 0.17,0.62 0.1,0.64 (0.09,0.65 "
            "0.165,0.74 0.12,0.88 0,0.92)"
        )
    )
    rook = without(
        piece(path("(0.21,0.2 0.15,0.5 0.16,0.76) 0.23,0.8 0.24,1.02 0.16,1.02 0.15,0.92 0,0.92")),
        either(
            *[
                turn(box((0.2, 1.0, 0), (0.12, 0.07, 0.035)), "y", a)
                for a in (0, 60, 120, 180, 240, 300)
            ]
        ),
    )
    bishop = without(
        piece(
            path(
                "(0.21,0.2 0.11,0.6 0.1,0.82) 0.19,0.85 0.19,0.89 0.11,0.92 (0.1,0.93 "
                "0.17,1.08 0.12,1.24 0.03,1.34) (0.03,1.34 0.055,1.38 0,1.43)"
            )
        ),
        move(turn(box((0, 0, 0), (0.2, 0.016, 0.3)), "z", -38), (0.13, 1.20, 0.0)),
    )
    king = either(
        piece(
            path(
                "(0.22,0.2 0.13,0.7 0.12,1.05) 0.22,1.09 0.22,1.14 0.13,1.18 (0.13,1.19 "
                "0.18,1.4 0.22,1.5) 0.19,1.55 0.06,1.6 0,1.6"
            )
        ),
        box((0, 1.72, 0), (0.032, 0.14, 0.028), 0.01),
        box((0, 1.75, 0), (0.095, 0.032, 0.028), 0.01),
    )
    queen = either(
        piece(
            path(
                "(0.22,0.2 0.12,0.66 0.11,0.98) 0.21,1.02 0.21,1.07 0.12,1.1 (0.12,1.11 "
                "0.15,1.3 0.23,1.46) 0.17,1.44 0.05,1.52 0,1.52"
            )
        ),
        sphere((0, 1.56, 0), 0.06),
    )
    ivory = Material(wood("#ead7ae", "#d3b67f", 0.5), 0.24)
    ebony = Material(wood("#3a2620", "#1d1210", 0.5), 0.22)
    size = 0.74
    light, dark = wood("#dfc08c", "#c79f63", 0.7), wood("#7a4a2a", "#56311b", 0.7)

    def board(p: Array) -> Array:
        square = (np.floor(p[0] / size) + np.floor(p[2] / size)) % 2.0
        edge = np.maximum(np.abs(p[0]), np.abs(p[2])) > 4 * size
        return np.where(edge | (square > 0.5), dark(p), light(p))

    def at(shape: Sdf, column: float, row: float) -> Sdf:
        return move(shape, ((column + 0.5) * size, 0.0, (row + 0.5) * size))

    return studio_scene(
        [
            Part(at(king, -1, 0), ivory, 3.5),
            Part(at(pawn, 0, 1), ivory, 3.5),
            Part(at(pawn, -2, 1), ivory, 3.5),
            Part(at(rook, -3, -1), ivory, 3.5),
            Part(at(queen, 1, -1), ebony, 3.5),
            Part(at(turn(bishop, "y", 40), 2, 0), ebony, 3.5),
            Part(at(pawn, 0, -2), ebony, 3.5),
            Part(at(pawn, 2, -3), ebony, 3.5),
            Part(at(rook, -1, -4), ebony, 3.5),
            Part(at(pawn, 3, -3), ebony, 3.5),
        ],
        Material(board, 0.22),
        backdrop("#7a6552", "#2b221c", (-0.2, 0.05, -1.0), 0.35),
        eye=(0.5, 1.75, 5.4),
        target=(0.1, 0.68, 0.0),
        field_of_view=28,
        ground_fade=(3.6, 8.0),
        lens_blur=1.6,
    )


def snow_globe() -> Scene:
    """A snow globe with a cottage and two firs."""
    center = (0.0, 1.02, 0.0)
    base = lathe(
        path(
            "0,0 0.74,0 0.76,0.05 0.72,0.1 (0.68,0.14 0.6,0.3) 0.63,0.34 0.63,0.4 0.56,0.42 0,0.42"
        )
    )
    hill = both(sphere((0, 0.22, 0), 0.50), sphere(center, 0.70))
    house = box((0.02, 0.82, 0.0), (0.19, 0.13, 0.15))
    roof = slab(path("-0.27,0.92 0.02,1.17 0.31,0.92 0.28,0.9 0.02,1.12 -0.24,0.9"), 0.19)
    chimney = box((0.15, 1.10, 0.03), (0.035, 0.10, 0.035))
    wall, door, pane = rgb("#a5452f"), rgb("#5a3522"), rgb("#ffd27a")

    def brick(p: Array) -> Array:
        q = turned(p, "y", 24.0)
        entrance = (np.abs(q[0] - 0.02) < 0.045) & (q[1] < 0.84) & (q[2] > 0.1)
        window = (np.abs(np.abs(q[0] - 0.02) - 0.115) < 0.035) & (np.abs(q[1] - 0.83) < 0.04)
        color = np.where(entrance, door, wall)
        return np.where(window & (q[2] > 0.1), pane, color)

    def shine(p: Array) -> Array:
        q = turned(p, "y", 24.0)
        window = (np.abs(np.abs(q[0] - 0.02) - 0.115) < 0.035) & (np.abs(q[1] - 0.83) < 0.04)
        return np.where(window & (q[2] > 0.1), pane * 1.6, np.float32(0.0))

    firs = []
    for x, z, tall in ((-0.36, 0.05, 1.0), (0.38, -0.16, 1.15), (-0.22, -0.30, 0.9)):
        for level in range(3):
            y = 0.70 + 0.13 * level * tall
            r = (0.15 - 0.035 * level) * tall
            firs.append(rod((x, y, z), (x, y + 0.20 * tall, z), r, 0.006))
    scatter = np.random.default_rng(11)
    flakes: list[Sdf] = []
    while len(flakes) < 46:
        x, y, z = scatter.uniform(-0.62, 0.62, 3)
        if x * x + y * y + z * z < 0.36 and y > -0.1:
            flakes.append(sphere((float(x), 1.02 + float(y), float(z)), 0.013))

    def face(shape: Sdf) -> Sdf:
        return turn(shape, "y", 24)

    snow = Material(mottled("#f6f9ff", "#e3ebf7", 8.0), 0.8, wrap=0.3)
    needles, frost = rgb("#2f6b47"), rgb("#eef4fb")

    def fir(p: Array) -> Array:
        top = fbm(p * np.float32(16.0), 3) + 0.55 * np.sin(p[1] * 48.0)
        return mix(needles, frost, ramp(0.5, 1.0, top))

    return studio_scene(
        [
            Part(base, Material(wood("#7a3f24", "#4f2614", 0.8), 0.22)),
            Part(
                lathe(path("0,0.36 0.645,0.36 0.655,0.39 0.6,0.44 0,0.44")),
                Material(plain("#d9ac5d"), 0.2, metal=True),
            ),
            Part(hill, snow),
            Part(face(house), Material(brick, 0.8, glow=shine)),
            Part(face(roof), snow),
            Part(face(chimney), Material(plain("#7d3a2a"), 0.8)),
            Part(either(*firs), Material(fir, 0.8)),
            Part(either(*flakes[:23]), snow),
            Part(either(*flakes[23:]), snow),
            Part(sphere(center, 0.72), Material(plain("#f7fbff"), 0.08, glass=Glass())),
        ],
        Material(plain("#6b7f9c"), 0.35),
        backdrop("#9db3d0", "#3e5170", (0.0, 0.05, -1.0), 0.35),
        eye=(0.0, 1.35, 5.0),
        target=(0.0, 0.86, 0.0),
        field_of_view=25,
        ground_fade=(1.8, 6.0),
        fill=("#b7c6de", "#76808f"),
        bloom=0.2,
    )


def fruit_bowl() -> Scene:
    """Oranges, apples, a pear, a banana and grapes in a blue bowl, by window light."""
    bowl = lathe(
        path(
            "0,0 0.36,0 0.38,0.05 0.34,0.08 (0.5,0.14 0.8,0.34 0.95,0.58) 0.93,0.6 "
            "0.9,0.58 (0.76,0.38 0.48,0.2 0,0.14)"
        )
    )
    cobalt, cream = rgb("#27508c"), rgb("#eee7d8")

    def painted(p: Array) -> Array:
        angle = np.arctan2(p[2], p[0])
        petal = np.abs(np.sin(7.0 * angle)) * 0.10
        band = ramp(0.012, 0.0, np.abs(p[1] - 0.34 - petal) - 0.022)
        rim = ramp(0.52, 0.53, p[1])
        return mix(cream, cobalt, np.maximum(np.maximum(band, rim), ramp(0.12, 0.11, p[1])))

    apple_outline = path(
        "(0,-0.2 0.1,-0.24 0.22,-0.16 0.285,0.06 0.22,0.22 0.1,0.25 0.03,0.19 0,0.16)"
    )
    apple = lathe(apple_outline)
    stalk = rod((0, 0.17, 0), (0.04, 0.33, 0.01), 0.012, 0.018)
    pear = lathe(
        path("(0,-0.28 0.14,-0.27 0.255,-0.12 0.22,0.08 0.125,0.24 0.1,0.36 0.05,0.42 0,0.42)")
    )
    red, green = rgb("#b3202a"), rgb("#c9b23a")

    def skin(center: Vec) -> Paint:
        def paint(p: Array) -> Array:
            q = p - vec(center)
            streak = fbm(np.stack([q[0] * 22.0, q[1] * 3.0, q[2] * 22.0]), 4)
            blush = noise(p * 3.1 + 2.0)
            return mix(red, green, ramp(0.62, 1.05, 0.55 * streak + 0.6 * blush + 0.3 * q[1]))

        return paint

    def banana(p: Array) -> Array:
        q = turned(turned(p - vec((-0.12, 0.44, 0.02)), "y", 12.0), "x", -18.0)
        angle = np.arctan2(q[0], q[1] + 0.05)
        thick = 0.095 * np.clip(1.12 - (np.abs(angle) / 1.15) ** 4, 0.22, 1.0)
        ring = np.hypot(np.hypot(q[0], q[1] + 0.05) - 0.62, q[2]) - thick
        return np.asarray(np.maximum(ring, (np.abs(angle) - 1.22) * 0.5) * 0.7)

    def ripe(p: Array) -> Array:
        q = turned(turned(p - vec((-0.12, 0.44, 0.02)), "y", 12.0), "x", -18.0)
        tip = ramp(1.08, 1.18, np.abs(np.arctan2(q[0], q[1] + 0.05)))
        spots = ramp(0.70, 0.78, noise(p * 17.0)) * 0.6
        return mix(rgb("#f0c22e"), rgb("#5a4420"), np.maximum(tip, spots))

    grapes = []
    cluster = np.random.default_rng(3)
    for layer, count in enumerate((5, 5, 4, 3, 2)):
        for _ in range(count):
            x = 0.80 + 0.13 * layer * 0.55 + float(cluster.uniform(-0.09, 0.09))
            y = 0.66 - 0.115 * layer + float(cluster.uniform(-0.03, 0.03))
            z = 0.42 + 0.02 * layer + float(cluster.uniform(-0.12, 0.12))
            grapes.append(sphere((x, max(y, 0.085), z), 0.088))
    peel = Material(plain("#e8821e"), 0.38, bump=lambda p: 0.006 * noise(p * 75.0))
    apples = [(-0.46, 0.60, 0.34), (0.30, 0.62, -0.34)]
    parts = [
        Part(bowl, Material(painted, 0.16)),
        Part(either(sphere((0.12, 0.58, 0.42), 0.285), sphere((-0.52, 0.58, -0.28), 0.28)), peel),
        Part(move(pear, (0.44, 0.74, 0.06)), Material(mottled("#b9bb45", "#8f9a35", 9.0), 0.35)),
        Part(banana, Material(ripe, 0.45)),
        Part(either(*grapes), Material(plain("#4a2252"), 0.22)),
        Part(move(apple, (-1.35, 0.24, 0.45)), Material(skin((-1.35, 0.24, 0.45)), 0.22)),
        Part(move(stalk, (-1.35, 0.24, 0.45)), Material(plain("#4d3820"), 0.8)),
    ]
    for center in apples:
        parts.append(Part(move(apple, center), Material(skin(center), 0.22)))
        parts.append(Part(move(stalk, center), Material(plain("#4d3820"), 0.8)))
    return studio_scene(
        parts,
        Material(planks("#7d5637", "#553820"), 0.4),
        backdrop("#5d5348", "#221d1a", (-0.35, 0.12, -1.0), 0.32),
        eye=(0.0, 1.85, 4.7),
        target=(-0.15, 0.46, 0.0),
        field_of_view=25,
        lights=(Light((-5.0, 4.5, 2.6), np.float32(3.0) * rgb("#fff0d8"), 0.14),),
        fill=("#6d7078", "#4b4038"),
        ground_fade=(2.8, 6.5),
    )


def lighthouse() -> Scene:
    """A striped lighthouse on a rock, its lamp just lit."""
    tower = lathe(path("0,0.3 0.27,0.3 0.255,0.4 0.165,1.62 0,1.62"))
    gallery = lathe(path("0,1.6 0.19,1.6 0.27,1.66 0.27,1.7 0,1.7"))
    rail = either(
        torus((0, 1.82, 0), 0.255, 0.009),
        torus((0, 1.76, 0), 0.255, 0.006),
        *[
            rod(
                (0.255 * np.cos(a), 1.70, 0.255 * np.sin(a)),
                (0.255 * np.cos(a), 1.82, 0.255 * np.sin(a)),
                0.008,
            )
            for a in np.linspace(0.0, 2.0 * np.pi, 12, endpoint=False)
        ],
    )
    roof = lathe(path("0,2.26 0.02,2.24 0.19,2.04 0.19,2.01 0,2.01"))
    posts = either(
        *[
            rod(
                (0.125 * np.cos(a), 1.70, 0.125 * np.sin(a)),
                (0.125 * np.cos(a), 2.02, 0.125 * np.sin(a)),
                0.012,
            )
            for a in np.linspace(0.2, 2.0 * np.pi + 0.2, 6, endpoint=False)
        ]
    )
    white, red, dark = rgb("#f2eee6"), rgb("#b8352e"), rgb("#2a2626")

    def bands(p: Array) -> Array:
        stripe = ramp(-0.02, 0.02, np.sin((p[1] - 0.30) * 2.0 * np.pi / 0.53))
        angle = np.arctan2(p[0], p[2]) - 0.12
        window = (np.abs(angle) < 0.16) & (
            (np.abs(p[1] - 0.82) < 0.05) | (np.abs(p[1] - 1.34) < 0.045)
        )
        door = (np.abs(angle) < 0.26) & (p[1] < 0.55)
        return np.where(window | door, dark, mix(white, red, stripe))

    rock = rough(
        blend(
            ellipsoid((0, -0.02, 0), (1.05, 0.36, 0.75)),
            ellipsoid((0.85, -0.10, 0.15), (0.75, 0.28, 0.5)),
            0.2,
        ),
        0.30,
        3.4,
    )
    shoal = rough(
        either(
            ellipsoid((-1.7, -0.08, 0.55), (0.42, 0.17, 0.3)),
            ellipsoid((2.2, -0.1, -0.4), (0.4, 0.2, 0.3)),
        ),
        0.16,
        4.5,
    )
    hut = box((0.62, 0.36, 0.05), (0.22, 0.15, 0.17))
    gable = move(slab(path("-0.27,0 0,0.2 0.27,0"), 0.20), (0.62, 0.49, 0.05))
    pane = rgb("#ffcf80")

    def walls(p: Array) -> Array:
        return np.repeat(white, p.shape[1], axis=1)

    def lamplight(p: Array) -> Array:
        window = (np.abs(np.abs(p[0] - 0.62) - 0.10) < 0.04) & (np.abs(p[1] - 0.37) < 0.05)
        return np.where(window & (p[2] > 0.2), pane * 1.5, np.float32(0.0))

    stone = Material(
        mottled("#6d6259", "#3f3a39", 4.0), 0.75, bump=lambda p: 0.03 * fbm(p * 9.0, 4)
    )
    evening = sky("#31487f", "#f4b496", (0.85, 0.10, -1.0), "#ff9d72", 0.6, clouds=0.9)
    return Scene(
        parts=(
            Part(rock, stone),
            Part(shoal, stone),
            Part(tower, Material(bands, 0.5)),
            Part(either(gallery, rail, posts), Material(plain("#2b2d33"), 0.4)),
            Part(roof, Material(plain("#a52f2a"), 0.35)),
            Part(
                cylinder((0, 1.86, 0), 0.075, 0.11, 0.03),
                Material(plain("#fff0c8"), 0.9, glow=glowing("#ffe2a0", 14.0)),
            ),
            Part(hut, Material(walls, 0.8, glow=lamplight)),
            Part(gable, Material(plain("#8a3d2f"), 0.7)),
        ),
        eye=(0.0, 0.75, 6.6),
        target=(0.15, 1.10, 0.0),
        field_of_view=29,
        backdrop=evening,
        surroundings=evening,
        ground=Material(plain("#183043"), 0.04, bump=ripples(0.11, 2.6)),
        ground_fade=(25.0, 70.0),
        lights=(
            Light((6.0, 3.0, 2.0), np.float32(2.0) * rgb("#ffb083"), 0.06),
            Light((-6.0, 5.0, 6.0), np.float32(0.6) * rgb("#b9c8f0"), 0.3),
        ),
        fill_above=rgb("#8ea0cc"),
        fill_below=rgb("#5f6070"),
        haze=0.012,
        bloom=0.45,
    )


def toy_car() -> Scene:
    """A small red wooden car on a play mat road."""
    profile = path(
        "-1.02,0.2 1.04,0.2 1.08,0.3 (1.06,0.46 0.92,0.53 0.52,0.57) (0.4,0.62 "
        "0.24,0.92 0.05,0.98 -0.42,0.98 -0.6,0.92 -0.78,0.6) (-0.84,0.57 -1.02,0.52 "
        "-1.08,0.38)"
    )
    arches = turn(cylinder((0, 0, 0), 0.275, 0.8), "x", 90)
    body = without(
        slab(profile, 0.46, 0.07),
        either(move(arches, (0.62, 0.22, 0)), move(arches, (-0.62, 0.22, 0))),
    )
    front = path("0.1,0.6 0.34,0.6 0.2,0.89 0.1,0.9")
    rear = path("0.02,0.6 0.02,0.9 -0.4,0.9 -0.52,0.86 -0.68,0.6")
    panes = (_bake(front), _bake(rear))
    red, glass, cream = rgb("#c8261f"), rgb("#1c2733"), rgb("#f0e4cc")

    def drive(shape: Sdf) -> Sdf:
        return turn(shape, "y", -34)

    def livery(p: Array) -> Array:
        q = turned(p, "y", -34.0)
        side = np.abs(q[2]) > 0.36
        pane = np.minimum(panes[0](q[0], q[1]), panes[1](q[0], q[1])) < 0.0
        screen = (q[1] > 0.62) & (q[1] < 0.90) & (np.abs(q[2]) < 0.34) & (q[0] > 0.2)
        back = (q[1] > 0.64) & (q[1] < 0.88) & (np.abs(q[2]) < 0.34) & (q[0] < -0.58)
        stripe = (np.abs(q[2]) < 0.10) & (q[1] > 0.3) & ~screen & ~back
        color = np.where(stripe, cream, red)
        door = side & (q[1] > 0.30) & (q[1] < 0.60)
        gap = door & ((np.abs(q[0] - 0.30) < 0.006) | (np.abs(q[0] + 0.30) < 0.006))
        return np.where(((side & pane) | screen | back) | gap, glass, color)

    tire = turn(
        blend(torus((0, 0, 0), 0.17, 0.08), cylinder((0, 0, 0), 0.2, 0.07, 0.03), 0.02), "x", 90
    )
    hub = turn(cylinder((0, 0, 0), 0.115, 0.09, 0.02), "x", 90)
    places = [(x, 0.25, z) for x in (0.62, -0.62) for z in (0.40, -0.40)]
    lamps = either(*[ellipsoid((1.05, 0.40, z), (0.05, 0.085, 0.085)) for z in (0.27, -0.27)])
    bumpers = either(
        rod((1.06, 0.27, -0.36), (1.06, 0.27, 0.36), 0.045),
        rod((-1.06, 0.27, -0.36), (-1.06, 0.27, 0.36), 0.045),
    )
    blocks = [
        (turn(box((0, 0.24, 0), (0.24, 0.24, 0.24), 0.03), "y", 20), (-1.45, 0.0, -1.2), "#e0a92f"),
        (
            turn(box((0, 0.24, 0), (0.24, 0.24, 0.24), 0.03), "y", -12),
            (-0.85, 0.0, -1.5),
            "#2f7fb0",
        ),
        (
            turn(box((0, 0.24, 0), (0.24, 0.24, 0.24), 0.03), "y", 35),
            (-1.2, 0.48, -1.32),
            "#4d9a58",
        ),
    ]
    road, line, lawn = rgb("#6b7078"), rgb("#f2efe4"), rgb("#7fb069")

    def mat(p: Array) -> Array:
        q = turned(p, "y", -34.0)
        dash = (np.abs(q[2] + 0.85) < 0.035) & ((q[0] / 0.7) % 1.0 < 0.55)
        edge = np.abs(np.abs(q[2] + 0.85) - 1.62) < 0.035
        color = np.where(np.abs(q[2] + 0.85) < 1.7, road, lawn)
        weave = 0.92 + 0.16 * noise(p * 55.0)
        return np.where(dash | edge, line, color) * weave

    chrome = Material(plain("#d6d8dc"), 0.15, metal=True)
    return studio_scene(
        [
            Part(drive(body), Material(livery, 0.16)),
            Part(
                drive(either(*[move(tire, at) for at in places])), Material(plain("#1c1c1e"), 0.6)
            ),
            Part(drive(either(*[move(hub, at) for at in places])), chrome),
            Part(drive(lamps), Material(plain("#fff3cf"), 0.1)),
            Part(drive(bumpers), chrome),
            *[Part(move(shape, at), Material(plain(code), 0.4)) for shape, at, code in blocks],
        ],
        Material(mat, 0.9),
        backdrop("#cfe3ee", "#86a9bd", (0.0, 0.0, -1.0), 0.45),
        eye=(0.7, 1.75, 4.9),
        target=(0.0, 0.38, 0.0),
        field_of_view=28,
        ground_fade=(3.6, 8.5),
        fill=("#bccbd6", "#8d9488"),
        lens_blur=1.0,
    )


def candle() -> Scene:
    """A lit candle in a brass holder, in a dark room."""
    wax = lathe(path("0,0.1 0.2,0.1 0.205,0.85 (0.2,1.02 0.175,1.06 0.14,1.03 0,0.99)"))
    plate = lathe(
        path(
            "0,0 0.4,0 (0.44,0.02 0.6,0.06 0.66,0.12) 0.64,0.13 (0.58,0.09 0.42,0.05 "
            "0.25,0.05) 0.25,0.2 0.215,0.21 0.21,0.05 0,0.05"
        )
    )
    loop = move(turn(torus((0, 0, 0), 0.15, 0.03), "x", 90), (0.78, 0.13, 0.0))
    wick = rod((0, 0.97, 0), (0.012, 1.12, 0), 0.012, 0.009)
    outline = path("(0,1.07 0.058,1.12 0.085,1.21 0.066,1.33 0.028,1.46 0,1.56)")
    flame = lathe(outline)
    core, tip = rgb("#fff0c0"), rgb("#ff9a2e")

    def burn(p: Array) -> Array:
        return np.asarray(
            mix(core * 9.0, tip * 6.0, ramp(1.20, 1.52, p[1])) * ramp(1.02, 1.18, p[1])
        )

    def inner_light(p: Array) -> Array:
        return np.asarray(rgb("#ff9f4a") * 0.85 * np.exp(-(1.06 - p[1]) / 0.22))

    ivory = plain("#f1e3c8")
    matchbox = turn(box((0, 0, 0), (0.22, 0.055, 0.14), 0.01), "y", 28)
    sticks = either(
        rod((0.55, 0.02, 0.62), (0.95, 0.02, 0.48), 0.014),
        rod((0.70, 0.02, 0.74), (1.08, 0.02, 0.78), 0.014),
    )
    heads = either(sphere((0.55, 0.022, 0.62), 0.026), sphere((0.70, 0.022, 0.74), 0.026))
    fire = Light((0.0, 1.36, 0.0), np.float32(2.6) * rgb("#ffb35c"), 0.12, falloff=True)
    # The rim would hide the table from a flame drawn as one point, so a second one stands higher.
    high = Light((0.0, 1.95, 0.25), np.float32(2.8) * rgb("#ffae55"), 0.2, falloff=True)
    night = Light((-4.0, 4.0, 5.0), np.float32(0.12) * rgb("#9db4e6"), 0.25)
    return studio_scene(
        [
            Part(wax, Material(ivory, 0.4, wrap=0.6, glow=inner_light)),
            Part(
                either(plate, without(loop, box((0.4, 0.1, 0), (0.24, 0.1, 0.3)))),
                Material(plain("#c9963f"), 0.24, metal=True),
            ),
            Part(wick, Material(plain("#201512"), 0.9)),
            Part(flame, Material(plain("#ffe0a0"), 0.9, glow=burn)),
            Part(
                move(matchbox, (-0.95, 0.055, 0.45)),
                Material(mottled("#7a2d28", "#5d211e", 6.0), 0.7),
            ),
            Part(sticks, Material(plain("#d9b98a"), 0.7)),
            Part(heads, Material(plain("#9c2a22"), 0.7)),
        ],
        Material(planks("#6f4a2c", "#452c18"), 0.36),
        backdrop("#46301f", "#120c09", (0.0, 0.08, -1.0), 0.30),
        eye=(0.1, 1.25, 4.5),
        target=(0.0, 0.70, 0.0),
        field_of_view=27,
        lights=(fire, high, night),
        fill=("#2d2a33", "#241a14"),
        surroundings=studio("#1d1a1c", "#0d0a08", 0.15),
        ground_fade=(2.0, 6.0),
        bloom=0.35,
        exposure=1.1,
    )


def robot() -> Scene:
    """A wind-up tin robot."""
    body = box((0, 0.86, 0), (0.36, 0.36, 0.25), 0.06)
    head = box((0, 1.49, 0), (0.27, 0.20, 0.21), 0.06)
    neck = cylinder((0, 1.25, 0), 0.11, 0.06)
    eyes = either(
        *[turn(cylinder((x, 0.20, -1.53), 0.075, 0.025, 0.01), "x", 90) for x in (-0.115, 0.115)]
    )
    eye_rings = either(
        *[
            move(turn(torus((0, 0, 0), 0.085, 0.02), "x", 90), (x, 1.53, 0.215))
            for x in (-0.115, 0.115)
        ]
    )
    grille = either(
        *[box((x, 1.375, 0.205), (0.014, 0.035, 0.015)) for x in np.linspace(-0.12, 0.12, 6)]
    )
    antenna = rod((0, 1.68, 0), (0, 1.90, 0), 0.016)
    ball = sphere((0, 1.93, 0), 0.05)
    ears = turn(cylinder((0, 0, 0), 0.085, 0.34, 0.02), "z", 90)
    arms = mirror_x(
        either(
            sphere((0.41, 1.10, 0), 0.10),
            rod((0.43, 1.08, 0), (0.56, 0.80, 0.06), 0.062),
            rod((0.56, 0.80, 0.06), (0.54, 0.62, 0.30), 0.055),
        )
    )
    claw = without(
        turn(torus((0, 0, 0), 0.085, 0.032), "x", 15), box((0, 0, 0.1), (0.05, 0.2, 0.1))
    )
    claws = mirror_x(move(claw, (0.54, 0.58, 0.38)))
    legs = mirror_x(rod((0.18, 0.52, 0), (0.18, 0.16, 0), 0.075))
    feet = mirror_x(box((0.19, 0.085, 0.05), (0.14, 0.085, 0.22), 0.05))
    key = either(
        rod((0, 0, 0), (0.20, 0, 0), 0.022),
        move(turn(torus((0, 0, 0), 0.075, 0.022), "x", 90), (0.26, 0.075, 0)),
        move(turn(torus((0, 0, 0), 0.075, 0.022), "x", 90), (0.26, -0.075, 0)),
    )
    teal, cream, coral = rgb("#3d9aa0"), rgb("#f0e6d0"), rgb("#e0563b")

    def face(shape: Sdf) -> Sdf:
        return turn(shape, "y", 20)

    def panel(p: Array) -> Array:
        q = turned(p, "y", 20.0)
        plate = (np.abs(q[0]) < 0.25) & (np.abs(q[1] - 0.89) < 0.23) & (q[2] > 0.2)
        color = np.where(plate, cream, teal)
        gauge = np.hypot(q[0] + 0.11, q[1] - 0.98)
        color = np.where(plate & (gauge < 0.085), rgb("#26343c"), color)
        needle = np.abs((q[0] + 0.11) * 0.8 - (q[1] - 0.95) * 0.6) < 0.008
        color = np.where(plate & (gauge < 0.07) & needle & (q[1] > 0.95), coral, color)
        for x, code in ((0.05, "#e0563b"), (0.12, "#eab93f"), (0.19, "#4d9a58")):
            button = np.hypot(q[0] - x, q[1] - 0.98) < 0.028
            color = np.where(plate & button, rgb(code), color)
        slot = (np.abs(q[0]) < 0.2) & (np.abs(((q[1] - 0.70) / 0.05) % 1.0 - 0.5) < 0.2)
        color = np.where(plate & slot & (np.abs(q[1] - 0.77) < 0.075), rgb("#26343c"), color)
        rivet_x, rivet_y = np.abs(np.abs(q[0]) - 0.30), np.abs(np.abs(q[1] - 0.86) - 0.29)
        return np.where((np.hypot(rivet_x, rivet_y) < 0.018) & (q[2] > 0.2), cream * 0.6, color)

    steel = Material(plain("#c3c7cc"), 0.2, metal=True)
    tin = Material(plain("#3d9aa0"), 0.2)
    red = Material(plain("#e0563b"), 0.25)
    return studio_scene(
        [
            Part(face(body), Material(panel, 0.2)),
            Part(face(head), tin),
            Part(face(either(neck, arms, legs, eye_rings, antenna)), steel),
            Part(face(eyes), Material(plain("#ffe3a0"), 0.3, glow=glowing("#ffd97a", 2.4))),
            Part(face(grille), Material(plain("#24313a"), 0.5)),
            Part(face(either(ball, claws, feet, move(ears, (0, 1.49, 0)))), red),
            Part(
                face(move(turn(key, "y", 140), (-0.30, 0.92, -0.2))),
                Material(plain("#d9ad57"), 0.2, metal=True),
            ),
        ],
        Material(plain("#e3b95c"), 0.5),
        backdrop("#f7d98a", "#d79a3d", (0.0, 0.05, -1.0), 0.4),
        eye=(0.0, 1.45, 5.6),
        target=(0.0, 0.98, 0.0),
        field_of_view=26,
        ground_fade=(2.0, 6.0),
        fill=("#d6c49a", "#a58443"),
        bloom=0.2,
    )


def balloon() -> Scene:
    """A striped hot-air balloon over misty hills in the morning."""
    outline = path("(0.1,1.3 0.2,1.42 0.5,1.76 0.66,2.14 0.58,2.5 0.3,2.76 0,2.82)")
    envelope = lathe([(0.0, 1.30), *outline])
    basket = box((0, 0.98, 0), (0.10, 0.085, 0.10), 0.02)
    ropes = either(
        *[
            rod((0.09 * x, 1.05, 0.09 * z), (0.11 * x, 1.33, 0.11 * z), 0.006)
            for x in (-1.0, 1.0)
            for z in (-1.0, 1.0)
        ]
    )
    colors = [rgb(code) for code in ("#c9342c", "#f0a93b", "#f4ead6", "#2a6f97")]

    def stripes(center: Vec, factor: float) -> Paint:
        def paint(p: Array) -> Array:
            q = (p - vec(center)) / factor
            sector = (
                np.floor((np.arctan2(q[2], q[0]) / (2.0 * np.pi) + 0.52) * 16.0).astype(int) % 4
            )
            color = np.choose(sector, [c.repeat(p.shape[1], axis=1) for c in colors])
            belt = ramp(0.02, 0.0, np.abs(q[1] - 2.14) - 0.09)
            return mix(color, colors[2], belt * 0.9)

        return paint

    def height(x: Array, z: Array) -> Array:
        p = np.stack([x, x * 0.0, z])
        return np.asarray(
            1.15 * fbm(p * np.float32(0.62) + 1.4, 3) - 0.52 + 0.25 * ramp(-0.5, -4.5, z)
        )

    meadow, wood_green, gold = rgb("#6f9447"), rgb("#2f5532"), rgb("#c9b458")

    def fields(p: Array) -> Array:
        trees = ramp(0.46, 0.62, fbm(p * np.float32(1.6) + 7.0, 5))
        color = mix(meadow, gold, ramp(0.40, 0.75, noise(p * np.float32(0.9) + 3.0)) * 0.6)
        return mix(color, wood_green * (0.5 + noise(p * 30.0)), trees * 0.85)

    small = (-1.75, 0.55, -2.2)
    morning = sky("#3f79c4", "#e6d6c2", (0.9, 0.20, -1.0), "#ffd9a0", 0.4, clouds=0.6)
    weave = Material(mottled("#9a6b3c", "#6d4726", 30.0), 0.8)
    return Scene(
        parts=(
            Part(
                move(envelope, (0.35, -0.35, 0)),
                Material(stripes((0.35, -0.35, 0.0), 1.0), 0.55, wrap=0.3),
            ),
            Part(move(either(basket, ropes), (0.35, -0.35, 0)), weave),
            Part(
                move(scale(envelope, 0.42), small),
                Material(stripes(small, 0.42), 0.6, wrap=0.3),
                extent=4.5,
            ),
            Part(move(scale(either(basket, ropes), 0.42), small), weave, extent=3.0),
            Part(terrain(height, 4.5, 0.7), Material(fields, 0.95, detail=0.012), extent=4.6),
        ),
        eye=(0.0, 1.75, 5.6),
        target=(0.0, 1.22, 0.0),
        field_of_view=30,
        backdrop=morning,
        surroundings=morning,
        ground=None,
        lights=(Light((5.0, 5.0, 3.0), np.float32(2.5) * rgb("#ffe0b0"), 0.06),),
        fill_above=rgb("#a9bfe0"),
        fill_below=rgb("#86897a"),
        haze=0.022,
        bloom=0.15,
    )


def hourglass() -> Scene:
    """An hourglass whose sand is half run through."""
    bulb = lathe(
        path(
            "0,0.13 (0.3,0.13 0.4,0.3 0.39,0.5 0.24,0.76 0.05,0.91 0.05,0.95 0.24,1.1 "
            "0.39,1.36 0.4,1.56 0.3,1.73) 0,1.73"
        )
    )
    shrunk = lambda p: bulb(p) + 0.025  # noqa: E731
    pile = both(shrunk, lathe(path("0,0.1 0.5,0.1 0.5,0.26 (0.4,0.3 0.06,0.6 0,0.62)")))
    rest = both(shrunk, lathe(path("0,0.9 0.5,0.9 0.5,1.38 0.36,1.37 0.1,1.2 0,1.16")))
    stream = cylinder((0, 0.75, 0), 0.012, 0.24)
    plate_shape = lathe(path("0,0 0.54,0 0.56,0.04 0.54,0.08 0.48,0.1 0.46,0.13 0,0.13"))
    lid = lathe(path("0,1.73 0.46,1.73 0.48,1.76 0.54,1.78 0.56,1.82 0.54,1.86 0,1.86"))
    post = lathe(
        path(
            "0,0.12 0.035,0.12 (0.035,0.2 0.05,0.3 0.026,0.55 0.026,0.8 0.05,0.93 "
            "0.026,1.06 0.026,1.31 0.05,1.56 0.035,1.66) 0.035,1.74 0,1.74"
        )
    )
    posts = either(
        *[
            move(post, (0.47 * float(np.sin(a)), 0.0, 0.47 * float(np.cos(a))))
            for a in np.deg2rad([50.0, 170.0, 290.0])
        ]
    )
    walnut = Material(wood("#7c4a28", "#4e2b15", 0.8), 0.28)
    sand = Material(
        mottled("#e9b872", "#d39a4f", 40.0), 0.9, bump=lambda p: 0.004 * noise(p * 90.0)
    )
    clear = Material(plain("#f4fbfa"), 0.06, glass=Glass())
    return studio_scene(
        [
            Part(either(plate_shape, lid), walnut),
            Part(posts, walnut),
            Part(pile, sand),
            Part(rest, sand),
            Part(stream, sand),
            Part(bulb, clear),
        ],
        Material(plain("#4f7577"), 0.4),
        backdrop("#8fb5b2", "#345256", (0.1, 0.0, -1.0), 0.35),
        eye=(0.4, 1.55, 5.6),
        target=(0.0, 0.92, 0.0),
        field_of_view=25,
        ground_fade=(1.8, 6.0),
        fill=("#a9c0bf", "#6b7f7d"),
    )


def cactus() -> Scene:
    """A ribbed cactus with one flower in a clay pot, in hard sunlight."""
    pot = lathe(path("0,0 0.33,0 0.42,0.46 0.47,0.46 0.48,0.64 0.43,0.64 0.42,0.58 0,0.58"))
    soil = cylinder((0, 0.58, 0), 0.425, 0.02)

    def ribbed(a: Vec, b: Vec, radius: float, ribs: int) -> Sdf:
        stem = rod(a, b, radius)
        middle = (vec(a) + vec(b)) / 2.0

        def sdf(p: Array) -> Array:
            q = p - middle
            wave = np.cos(ribs * np.arctan2(q[2], q[0]))
            return np.asarray((stem(p) + 0.022 * (1.0 - wave) * radius / 0.25) * 0.8)

        return sdf

    trunk = ribbed((0, 0.62, 0), (0, 1.62, 0), 0.25, 14)
    left = either(
        rod((-0.2, 1.00, 0), (-0.46, 1.04, 0), 0.11),
        ribbed((-0.48, 1.06, 0), (-0.48, 1.38, 0), 0.125, 10),
    )
    right = either(
        rod((0.2, 0.86, 0), (0.44, 0.90, 0), 0.10),
        ribbed((0.46, 0.92, 0), (0.46, 1.12, 0), 0.115, 10),
    )
    green, pale = rgb("#3f7d4c"), rgb("#dfe3b8")

    def flesh(p: Array) -> Array:
        ridge = ramp(0.80, 0.97, np.cos(14 * np.arctan2(p[2], p[0]))) * (
            np.hypot(p[0], p[2]) < 0.28
        )
        spine = ramp(0.35, 0.5, np.abs((p[1] / 0.085) % 1.0 - 0.5))
        return mix(green * (0.8 + 0.4 * noise(p * 8.0)), pale, ridge * spine)

    petals = []
    for ring, count in ((0, 8), (1, 6)):
        for i in range(count):
            petal = ellipsoid((0.10, 0, 0), (0.11, 0.018, 0.045))
            petals.append(
                turn(turn(petal, "z", 22 + 30 * ring), "y", 360.0 * i / count + 20 * ring)
            )
    flower = move(either(*petals), (0.0, 1.87, 0.0))
    clay, glaze = rgb("#c06a40"), rgb("#f0e3d2")

    def terracotta(p: Array) -> Array:
        zigzag = np.abs(((np.arctan2(p[2], p[0]) * 7.0 / np.pi) % 1.0) - 0.5) * 0.16
        band = ramp(0.012, 0.0, np.abs(p[1] - 0.21 - zigzag) - 0.022)
        return mix(clay * (0.85 + 0.3 * noise(p * 12.0)), glaze, band * ramp(0.47, 0.45, p[1]))

    wall = box((0, 1.5, -1.0), (5.0, 2.4, 0.05))
    plaster = Material(
        mottled("#eeb9a3", "#e8ad96", 2.5), 0.95, bump=lambda p: 0.006 * fbm(p * 14.0, 3)
    )
    sun = Light((-5.0, 6.0, 6.5), np.float32(3.0) * rgb("#fff0d2"), 0.02)
    return studio_scene(
        [
            Part(pot, Material(terracotta, 0.8)),
            Part(soil, Material(mottled("#5b4232", "#3a291e", 20.0), 0.95)),
            Part(either(trunk, left, right), Material(flesh, 0.6)),
            Part(flower, Material(plain("#ea4f86"), 0.6, wrap=0.5)),
            Part(sphere((0, 1.90, 0), 0.05), Material(plain("#f6d04a"), 0.7)),
            Part(wall, plaster, extent=5.2),
        ],
        Material(plain("#d7c2a8"), 0.7),
        backdrop("#eeb9a3", "#dfa58d", (0.0, 0.0, -1.0), 0.5),
        eye=(0.6, 1.30, 5.2),
        target=(0.1, 0.96, 0.0),
        field_of_view=27,
        lights=(sun,),
        fill=("#b9b6c4", "#a58a7a"),
        ground_fade=(6.0, 9.0),
    )


STILLS: dict[str, Callable[[], Scene]] = {
    "mug": mug,
    "perfume": perfume,
    "stones": stones,
    "watch": watch,
    "headphones": headphones,
    "desk-lamp": desk_lamp,
    "sailboat": sailboat,
    "lake": lake,
    "paper-boat": paper_boat,
    "paper-crane": paper_crane,
    "chess": chess,
    "snow-globe": snow_globe,
    "fruit-bowl": fruit_bowl,
    "lighthouse": lighthouse,
    "toy-car": toy_car,
    "candle": candle,
    "robot": robot,
    "balloon": balloon,
    "hourglass": hourglass,
    "cactus": cactus,
}


def encode_still(picture: NDArray[np.uint8]) -> bytes:
    """WebP of at most MAX_FILE_BYTES, at the best quality from 88 downwards that fits."""
    for quality in range(88, 49, -2):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() <= MAX_FILE_BYTES:
            return buffer.getvalue()
    raise ValueError(
        f"A still needs more than {MAX_FILE_BYTES} bytes even at quality 50: "
        "make its surfaces smoother."
    )


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print("usage: python -m generation.stills OUT_DIR [NAME ...]", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments[1:] or STILLS:
        data = encode_still(render_still(name))
        (folder / f"{name}.webp").write_bytes(data)
        print(f"{folder / name}.webp  {len(data)} bytes", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
