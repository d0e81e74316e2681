"""Clips as the transformer sees them: encoded once, kept in files."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from generation.backends.colt.codec import Codec
from generation.backends.colt.data import clips
from generation.backends.colt.run import autocast

PART, BATCH = 1000, 20  # clips in a file, and encoded at once


@dataclass(frozen=True)
class Clips:
    """Encoded clips: video [N,steps,latents,rows,columns], first [N,latents,rows,columns] (the
    first frame alone, as the codec sees a still), audio [N,mel columns,bins], words [N,length]."""

    video: Tensor
    first: Tensor
    audio: Tensor
    words: Tensor

    def take(self, which: Tensor) -> "Clips":
        """Those clips, with all but the words in float32."""
        return Clips(
            self.video[which].float(),
            self.first[which].float(),
            self.audio[which].float(),
            self.words[which],
        )

    def to(self, where: torch.device) -> "Clips":
        return Clips(*(getattr(self, field.name).to(where) for field in fields(self)))


@torch.inference_mode()
def _encode(codec: Codec, seed: int, count: int) -> Clips:
    config, where = codec.config, next(codec.parameters()).device
    video, audio, words = clips(config, count, np.random.default_rng([seed, 3]))
    pictures = video.to(where).float() / 127.5 - 1
    with autocast(where):
        latents, first = codec.encode(pictures), codec.of_still(pictures[:, :, 0])
    return Clips(latents.half().cpu(), first.half().cpu(), audio.half(), words)


def load_or_make(folder: Path, codec: Codec, count: int, seed: int) -> Clips:
    """Encoded clips, made a thousand at a time; those that a run before this one made are read.

    Files are one per thousand, so that a run may be stopped while it makes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number in track(range(-(-count // PART)), description=f"{count} clips"):
        path = folder / f"{seed}-{number:04}.pt"
        if not path.exists():
            pieces = [
                _encode(codec, seed * 1_000_000 + number * PART + begin, BATCH)
                for begin in range(0, PART, BATCH)
            ]
            named = {
                field.name: torch.cat([getattr(piece, field.name) for piece in pieces])
                for field in fields(Clips)
            }
            torch.save(named, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
        parts.append(torch.load(path, weights_only=True))
    return Clips(*(torch.cat([p[f.name] for p in parts])[:count] for f in fields(Clips)))
