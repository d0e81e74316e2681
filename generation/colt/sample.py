"""From a sentence to a clip: loading weights and integrating the flow."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from generation.colt.config import EMPTY, VOCABULARY, Config
from generation.colt.mel import to_sound
from generation.colt.model import Colt
from generation.scenes.grammar import parse


def save(model: Colt, path: Path, note: dict[str, str]) -> None:
    """Half-precision weights with the configuration and a note in the file's own header."""
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    header = {"config": json.dumps(model.config.__dict__), **note}
    temporary = path.with_suffix(".tmp")
    save_file(weights, temporary, metadata=header)
    temporary.chmod(0o644)  # safetensors writes 0600, which other users could not read
    temporary.replace(path)


def load(path: Path) -> Colt:
    """The model in a weights file, in float32 on the CPU, ready to sample."""
    with safe_open(path, "pt") as file:
        config = Config(**json.loads(file.metadata()["config"]))
    model = Colt(config)
    model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return model.eval()


def encode_words(text: str, config: Config) -> Tensor:
    """int64 [1, text_length]; a sentence outside the grammar raises `NotAScene`."""
    words = [VOCABULARY[word] for word in str(parse(text)).split()]
    return torch.tensor([words + [0] * (config.text_length - len(words))])


@torch.inference_mode()
def sample(
    model: Colt,
    texts: list[str],
    *,
    seeds: list[int],
    steps: int,
    guidance: float,
    first: Tensor | None = None,
    progress: Callable[[int, int], None] = lambda step, steps: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Clips for sentences: uint8 [B, F, H, W, 3] and float32 sound [B, samples].

    Euler steps along the rectified flow z = level * clean + (1 - level) * noise, with
    classifier-free guidance (Ho & Salimans 2022). `first` is float [B, 3, H, W] in -1..1. Noise
    comes from one seeded CPU generator per clip, so a batch does not change a clip's noise.
    """
    config = model.config
    batch = len(texts)
    noise = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = (3, config.frames, config.size, config.size)
    columns = (config.frames * config.mel_per_frame, config.mel_bins)
    video = torch.stack([torch.randn(shape, generator=g) for g in noise])
    audio = torch.stack([torch.randn(columns, generator=g) for g in noise])
    words = torch.cat([encode_words(text, config) for text in texts])
    given = torch.full((batch,), first is not None)
    if first is None:
        first = torch.zeros(batch, 3, config.size, config.size)
    empty = torch.full_like(words, EMPTY)
    levels = torch.linspace(0, 1, steps + 1) ** 1.0
    for index in range(steps):
        level, ahead = levels[index], levels[index + 1]
        v, a = model(
            torch.cat([video, video]),
            torch.cat([audio, audio]),
            level.expand(2 * batch),
            torch.cat([words, empty]),
            torch.cat([first, first]),
            torch.cat([given, given]),
        )
        clean_video = v[batch:] + guidance * (v[:batch] - v[batch:])
        clean_audio = a[batch:] + guidance * (a[:batch] - a[batch:])
        pace = (ahead - level) / (1 - level)
        video = video + pace * (clean_video - video)
        audio = audio + pace * (clean_audio - audio)
        progress(index + 1, steps)
    pixels = ((video.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    sounds = torch.stack([to_sound(columns, config) for columns in audio])
    return pixels.permute(0, 2, 3, 4, 1).numpy(), sounds.numpy()
