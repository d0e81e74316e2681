"""Renders the reference stills of the `open` prompt set.

An image-to-video prompt needs a first frame that anybody may use, so the arena draws its own:
one function per still describes what stands in front of the camera of `raymarch.py`.

    python -m generation.stills OUT_DIR
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from generation.raymarch import (
    Array,
    Environment,
    Glass,
    Height,
    Light,
    Material,
    Outline,
    Paint,
    Part,
    Scene,
    Sdf,
    Vec,
    backdrop,
    bake,
    blend,
    both,
    box,
    cylinder,
    either,
    ellipsoid,
    fbm,
    lathe,
    mirror_x,
    mix,
    move,
    noise,
    path,
    plain,
    ramp,
    render_scene,
    rgb,
    rod,
    rough,
    scale,
    sheet,
    sky,
    slab,
    sphere,
    studio,
    terrain,
    torus,
    turn,
    turned,
    vec,
    without,
)

MAX_FILE_BYTES = 90_000  # the stills travel with the repository, so each stays small


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
    panes = (bake(front), bake(rear))
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


def render_still(name: str, width: int = 1280, height: int = 720) -> NDArray[np.uint8]:
    """One still as an array [H, W, 3]; the same arguments always give the same picture."""
    if name not in STILLS:
        raise ValueError(f"There is no still named {name!r}: choose from {', '.join(STILLS)}.")
    return render_scene(STILLS[name](), width, height)


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
