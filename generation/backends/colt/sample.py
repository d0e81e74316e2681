"""From a sentence to a clip: loading weights, integrating the flow, decoding."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from generation.backends.colt.codec import Codec
from generation.backends.colt.config import EMPTY
from generation.backends.colt.data import encode_words
from generation.backends.colt.mel import to_sound
from generation.backends.colt.model import Colt
from generation.backends.colt.run import device
from generation.backends.colt.upscale import Upscaler
from generation.backends.colt.weights import load, read_config

Guess = tuple[Tensor, Tensor]  # clean video latents and audio as the model sees them


@dataclass(frozen=True)
class Release:
    """A release ready to sample: transformer, codec, and the upscaler if there is one."""

    colt: Colt
    codec: Codec
    upscaler: Upscaler | None


def load_release(path: Path, upscaler: Path | None = None) -> Release:
    """The modules of a weights file, in float32 on this machine's device."""
    config = read_config(path)
    colt, codec, larger = Colt(config), Codec(config), None
    load(colt, path, "colt")
    load(codec, path, "codec")
    if upscaler is not None:
        larger = Upscaler(config).to(device()).eval()
        load(larger, upscaler, "upscaler")
    return Release(colt.to(device()).eval(), codec.to(device()).eval(), larger)


def guided(
    colt: Colt, now: Guess, level: Tensor, words: Tensor, first: Guess, guidance: float
) -> Guess:
    """The clean clip as the model sees it, with classifier-free guidance (Ho & Salimans 2022)."""
    batch = len(words)
    level = level.expand(batch)
    if guidance == 1.0:
        clean: Guess = colt(*now, level, words, *first)
        return clean
    video, audio = colt(
        *(torch.cat([part, part]) for part in now),
        torch.cat([level, level]),
        torch.cat([words, torch.full_like(words, EMPTY)]),
        *(torch.cat([part, part]) for part in first),
    )
    return (
        video[batch:] + guidance * (video[:batch] - video[batch:]),
        audio[batch:] + guidance * (audio[:batch] - audio[batch:]),
    )


def draw_noise(colt: Colt, seeds: list[int]) -> Guess:
    """One seeded CPU generator per clip: neither batch nor device changes a clip's noise."""
    config = colt.config
    made = [torch.Generator().manual_seed(seed) for seed in seeds]
    steps, rows, columns = config.grid
    video = [torch.randn(steps, config.latents, rows, columns, generator=g) for g in made]
    audio = [torch.randn(config.mel_columns, config.mel_bins, generator=g) for g in made]
    return torch.stack(video).to(device()), torch.stack(audio).to(device())


@torch.inference_mode()
def sample(
    release: Release,
    texts: list[str],
    *,
    seeds: list[int],
    steps: int,
    guidance: float,
    renoise: bool = False,
    first: Tensor | None = None,
    progress: Callable[[int, int], None] = lambda step, steps: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Clips for sentences: uint8 [B, F, H, W, 3] and float32 sound [B, samples].

    Euler steps along the rectified flow z = level * clean + (1 - level) * noise. A distilled model
    guesses the clean clip at each step, and with `renoise` noise of the next level is put on the
    guess, as in its training (multistep sampling of arXiv 2303.01469). `first` is float
    [B, 3, H, W] in -1..1.
    """
    colt, codec = release.colt, release.codec
    video, audio = draw_noise(colt, seeds)
    words = torch.stack([encode_words(text, colt.config) for text in texts]).to(device())
    given = torch.full((len(texts),), first is not None, device=device())
    still = torch.zeros_like(video[:, 0]) if first is None else codec.of_still(first.to(device()))
    again = [seed + 2**40 for seed in seeds]
    for index, (level, ahead) in enumerate(schedule(steps)):
        clean = guided(colt, (video, audio), level, words, (still, given), guidance)
        if renoise:
            noise = draw_noise(colt, [seed + index for seed in again])
            video, audio = (ahead * c + (1 - ahead) * n for c, n in zip(clean, noise, strict=True))
        else:
            pace = (ahead - level) / (1 - level)
            video = video + pace * (clean[0] - video)
            audio = audio + pace * (clean[1] - audio)
        progress(index + 1, steps)
    pictures = codec.decode(video).clamp(-1, 1)
    if release.upscaler is not None:
        pictures = release.upscaler.enlarge(pictures).clamp(-1, 1)
    frames = ((pictures + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().numpy()
    return frames, torch.stack([to_sound(a.cpu(), colt.config) for a in audio]).numpy()


def schedule(steps: int) -> list[tuple[Tensor, Tensor]]:
    """Pairs of levels (now, next) from noise to clean, denser near noise, where it is decided
    what is where."""
    levels = torch.linspace(0, 1, steps + 1, device=device()) ** 1.3
    return list(pairwise(levels))
