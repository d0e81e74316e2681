"""Scores releases of Colt with the judge and writes the table and the sheet of docs/colt.md.

python -m generation.backends.colt.score [--clips 64]
"""

import argparse
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from generation.backends.colt.clip import load_version
from generation.backends.colt.config import Config
from generation.backends.colt.mel import to_mel
from generation.backends.colt.sample import Release, sample
from generation.backends.scenes.grammar import Scene, draw_scene
from generation.backends.scenes.judge import judge, name
from generation.backends.scenes.renderer import (
    SAMPLE_RATE,
    first_frame,
    plan_tracks,
    render_frames,
    render_sound,
)

CATALOGUE_FILE = Path(__file__).resolve().parents[2] / "catalogue" / "catalogue.toml"
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "colt.md"
SHEET = DOCUMENT.parent / "images" / "colt.png"
BEGIN, END = "<!-- scores: written by generation.backends.colt.score -->", "<!-- end of scores -->"
BATCH = 8
SHOWN, PICTURE, SPECTRUM = 8, 112, 56  # frames of a clip on the sheet, their pixels, its sound's

MadeClip = tuple[Scene, np.ndarray, np.ndarray]  # scene, frames [F, H, W, 3], sound [samples]


def scenes(count: int) -> list[Scene]:
    """Scenes that no training run draws from: another seed than any run's."""
    rng = np.random.default_rng(2**32 + 1)
    return [draw_scene(rng) for _ in range(count)]


def rendered(chosen: list[Scene], config: Config) -> Iterator[MadeClip]:
    """The renderer itself at the model's size and frame rate: what the judge gives at best."""
    for seed, scene in enumerate(chosen):
        tracks = plan_tracks(scene, 900 + seed, 900 + seed, config.seconds)
        size, fps, seconds = config.size, config.fps, config.seconds
        frames = render_frames(scene, tracks, size=size, fps=fps, seconds=seconds)
        yield scene, frames, render_sound(tracks, seconds)[:, 0]


def sampled(
    chosen: list[Scene], release: Release, settings: dict[str, Any], with_image: bool
) -> Iterator[MadeClip]:
    for begin in range(0, len(chosen), BATCH):
        part = chosen[begin : begin + BATCH]
        first = None
        if with_image:
            size = release.colt.config.size
            images = [first_frame(str(scene), scene, size) for scene in part]
            first = torch.tensor(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
        frames, sounds = sample(
            release,
            [str(scene) for scene in part],
            seeds=list(range(begin, begin + len(part))),
            steps=settings["steps"],
            guidance=settings["guidance"],
            renoise=settings.get("renoise", False),
            first=first,
        )
        yield from zip(part, frames, sounds, strict=True)


def row(title: str, clips: Iterable[MadeClip], fps: float) -> str:
    found = []
    for scene, frames, sound in clips:
        scores, answers = judge(scene, frames, fps, sound, SAMPLE_RATE), name(scene, frames, fps)
        found.append(
            [
                answers.colour,
                answers.shape,
                answers.motion,
                scores.sound,
                scores.clean,
                scores.overall,
            ]
        )
    cells = [f"{mean:.2f}" for mean in np.mean(found, axis=0)]
    return f"| {title} | " + " | ".join(cells) + " |"


def releases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and settings of each version of Colt in the catalogue."""
    for model in tomllib.loads(CATALOGUE_FILE.read_text())["model"]:
        for version in model.get("version", []):
            if version["backend"] == "colt":
                yield version["name"], version["settings"]


def strip(frames: np.ndarray, sound: np.ndarray, config: Config) -> np.ndarray:
    """A clip on the sheet: some of its frames in a line, and the spectrogram of its sound."""
    chosen = frames[np.linspace(0, len(frames) - 1, SHOWN).round().astype(int)]
    pictures = [
        np.asarray(Image.fromarray(f).resize((PICTURE, PICTURE), Image.Resampling.NEAREST))
        for f in chosen
    ]
    level = ((to_mel(torch.from_numpy(sound), config) + 1) / 2).clamp(0, 1).numpy()
    grey = Image.fromarray((level.T[::-1] * 255).astype(np.uint8))
    wide = np.asarray(grey.resize((SHOWN * PICTURE, SPECTRUM), Image.Resampling.BILINEAR)) / 255.0
    hues = np.stack([wide**0.8, wide**2, 0.35 * np.sin(np.pi * wide) + 0.1], axis=-1)
    return np.concatenate(
        [np.concatenate(pictures, axis=1), (hues.clip(0, 1) * 255).astype(np.uint8)]
    )


def draw_sheet(chosen: list[Scene], made: list[tuple[str, list[MadeClip]]], config: Config) -> None:
    """Sentence by sentence, what each version made of it."""
    rows, labels, height = [], [], 0
    for index, scene in enumerate(chosen):
        for title, clips in made:
            picture = strip(*clips[index][1:], config)
            label = np.full((22, picture.shape[1], 3), 255, np.uint8)
            labels.append((height, f"{scene}: {title}"))
            rows += [label, picture]
            height += len(label) + len(picture)
    sheet = Image.fromarray(np.concatenate(rows))
    for y, text in labels:
        ImageDraw.Draw(sheet).text((4, y + 4), text, fill=(0, 0, 0), font_size=13)
    SHEET.parent.mkdir(exist_ok=True)
    sheet.quantize(128).save(SHEET, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=64)
    chosen = scenes(parser.parse_args().clips)
    config, made = Config(), []
    titles = ["colour right", "shape right", "motion right", "sound in sync", "clean", "overall"]
    lines = [
        f"| {len(chosen)} clips each | " + " | ".join(titles) + " |",
        "| --- |" + " --- |" * (len(titles) + 1),
        row("the renderer at Colt's size", rendered(chosen, config), config.fps),
    ]
    for title, settings in releases():
        release = load_version(settings)
        for task, with_image in (("t2v", False), ("i2v", True)):
            clips = list(sampled(chosen, release, settings, with_image))
            lines.append(row(f"{title}, {task}", clips, config.fps))
            print(lines[-1], flush=True)
            if not with_image:
                made.append((title, clips))
    draw_sheet(chosen[:4], made, config)
    head, rest = DOCUMENT.read_text().split(BEGIN)
    _, tail = rest.split(END)
    DOCUMENT.write_text(head + BEGIN + "\n\n" + "\n".join(lines) + "\n\n" + END + tail)


if __name__ == "__main__":
    main()
