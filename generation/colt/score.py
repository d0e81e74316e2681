"""Scores releases of Colt with the judge and writes the table of docs/colt.md.

python -m generation.colt.score [--clips 64]
"""

import argparse
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from generation.backends.colt import WEIGHTS
from generation.colt.config import Config
from generation.colt.model import Colt
from generation.colt.sample import load, sample
from generation.scenes.grammar import Scene, draw_scene
from generation.scenes.judge import Scores, judge
from generation.scenes.renderer import SAMPLE_RATE, first_frame, plan, render_frames, render_sound

CATALOG = Path(__file__).resolve().parents[1] / "catalog.toml"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "colt.md"
SHEET = DOCUMENT.parent / "images" / "colt.png"
BEGIN, END = "<!-- scores: written by generation.colt.score -->", "<!-- end of scores -->"
PARTS = ("colour", "shape", "motion", "clean", "sound")
BATCH = 8

Clip = tuple[Scene, np.ndarray, np.ndarray]  # scene, frames [F, H, W, 3], sound [samples]


def scenes(count: int) -> list[Scene]:
    """Scenes that no training run draws from: another seed than any run's."""
    rng = np.random.default_rng(2**32 + 1)
    return [draw_scene(rng) for _ in range(count)]


def rendered(chosen: list[Scene], config: Config) -> Iterator[Clip]:
    """The renderer itself at the model's size and frame rate: what the judge gives at best."""
    for seed, scene in enumerate(chosen):
        tracks = plan(scene, 900 + seed, 900 + seed, config.seconds)
        size, fps, seconds = config.size, config.fps, config.seconds
        frames = render_frames(scene, tracks, size=size, fps=fps, seconds=seconds)
        yield scene, frames, render_sound(tracks, seconds)[:, 0]


def sampled(
    chosen: list[Scene], model: Colt, settings: dict[str, Any], with_image: bool
) -> Iterator[Clip]:
    for begin in range(0, len(chosen), BATCH):
        part = chosen[begin : begin + BATCH]
        first = None
        if with_image:
            images = [first_frame(str(scene), scene, model.config.size) for scene in part]
            first = torch.tensor(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
        frames, sounds = sample(
            model,
            [str(scene) for scene in part],
            seeds=list(range(begin, begin + len(part))),
            steps=settings["steps"],
            guidance=settings["guidance"],
            first=first,
        )
        yield from zip(part, frames, sounds, strict=True)


def row(name: str, clips: Iterable[Clip], fps: float) -> str:
    scores: list[Scores] = [
        judge(scene, frames, fps, sound, SAMPLE_RATE) for scene, frames, sound in clips
    ]
    means = [float(np.mean([getattr(s, part) for s in scores])) for part in PARTS]
    overall = float(np.mean([s.overall for s in scores]))
    return f"| {name} | " + " | ".join(f"{mean:.2f}" for mean in [*means, overall]) + " |"


def releases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and settings of each version of Colt in the catalogue."""
    for model in tomllib.loads(CATALOG.read_text())["model"]:
        for version in model.get("version", []):
            if version["backend"] == "colt":
                yield version["name"], version["settings"]


def draw_sheet(clips: list[Clip]) -> None:
    """One row per clip, one frame after the other, each pixel three wide."""
    picture = np.concatenate([np.concatenate(list(frames), axis=1) for _, frames, _ in clips])
    sheet = Image.fromarray(picture)
    SHEET.parent.mkdir(exist_ok=True)
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(SHEET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=64)
    chosen = scenes(parser.parse_args().clips)
    config = Config()
    lines = [
        f"| {len(chosen)} clips each | " + " | ".join(PARTS) + " | overall |",
        "| --- |" + " --- |" * (len(PARTS) + 1),
        row("the renderer at Colt's size", rendered(chosen, config), config.fps),
    ]
    for name, settings in releases():
        model = load(WEIGHTS / settings["weights"])
        for task, with_image in (("t2v", False), ("i2v", True)):
            clips = list(sampled(chosen, model, settings, with_image))
            lines.append(row(f"{name}, {task}", clips, config.fps))
            print(lines[-1], flush=True)
            if not with_image:
                draw_sheet(clips[:10])  # the last release named in the catalogue stays
    text = DOCUMENT.read_text()
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    DOCUMENT.write_text(head + BEGIN + "\n\n" + "\n".join(lines) + "\n\n" + END + tail)


if __name__ == "__main__":
    main()
