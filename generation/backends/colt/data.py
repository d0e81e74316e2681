"""Clips of the scene renderer as tensors: what Colt learns from."""

import numpy as np
import torch
from torch import Tensor

from generation.backends.colt.config import VOCABULARY, Config
from generation.backends.colt.mel import to_mel
from generation.backends.scenes.grammar import Scene, draw_scene, parse
from generation.backends.scenes.renderer import Track, plan_tracks, render_frames, render_sound

PAIRS = 0.35  # share of clips with two actors: there are far more such sentences


def encode_words(text: str, config: Config) -> Tensor:
    """int64 [text_length]; a sentence outside the grammar raises `NotAScene`."""
    words = [VOCABULARY[word] for word in str(parse(text)).split()]
    return torch.tensor(words + [0] * (config.text_length - len(words)))


def _draw(config: Config, rng: np.random.Generator) -> tuple[Scene, list[Track]]:
    scene = draw_scene(rng, PAIRS)
    layout, motion = (int(n) for n in rng.integers(2**31, size=2))
    return scene, plan_tracks(scene, layout, motion, config.seconds)


def _frames(scene: Scene, tracks: list[Track], config: Config, size: int) -> Tensor:
    frames = render_frames(scene, tracks, size=size, fps=config.fps, seconds=config.seconds)
    return torch.from_numpy(frames).permute(3, 0, 1, 2)


def pixels(config: Config, count: int, rng: np.random.Generator) -> Tensor:
    """uint8 [count, 3, F, H, W]: picture alone."""
    return torch.stack([_frames(*_draw(config, rng), config, config.size) for _ in range(count)])


def clips(config: Config, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 [count, 3, F, H, W], mel float [count, columns, bins], words int64 [count, length]."""
    video, sounds, words = [], [], []
    for _ in range(count):
        scene, tracks = _draw(config, rng)
        video.append(_frames(scene, tracks, config, config.size))
        sounds.append(torch.from_numpy(render_sound(tracks, config.seconds)[:, 0]))
        words.append(encode_words(str(scene), config))
    return torch.stack(video), to_mel(torch.stack(sounds), config), torch.stack(words)


def two_sizes(
    config: Config, count: int, factor: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """The same clips at the model's size and `factor` times it, uint8 [count, 3, F, H, W]."""
    drawn = [_draw(config, rng) for _ in range(count)]
    small, large = (
        torch.stack([_frames(*clip, config, size) for clip in drawn])
        for size in (config.size, config.size * factor)
    )
    return small, large
