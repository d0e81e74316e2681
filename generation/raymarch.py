"""A small signed-distance-field ray marcher in numpy.

Soft shadows, ambient occlusion, traced reflections, glass and lens blur, enough for pictures that
look like photographs of simple things. Points and colours are arrays of shape (3, N), float32;
y is up, the camera looks towards -z, colours are linear light until the last step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Vec = tuple[float, float, float]
Sdf = Callable[[Array], Array]
Paint = Callable[[Array], Array]
Height = Callable[[Array], Array]
Environment = Callable[[Array, float], Array]
Outline = list[tuple[float, float]]

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


def bake(outline: Outline) -> Callable[[Array, Array], Array]:
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
    lookup = bake([*profile, *mirrored])
    return lambda p: lookup(np.hypot(p[0], p[2]), p[1])


def slab(outline: Outline, half_depth: float, rounding: float = 0.0) -> Sdf:
    """A polygon in x and y, extruded along z."""
    lookup = bake(outline)

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


def render_scene(scene: Scene, width: int, height: int) -> NDArray[np.uint8]:
    """A picture of the scene as an array [H, W, 3]; the same scene gives the same picture."""
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
