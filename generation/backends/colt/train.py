"""Trains the base model on clips of the scene renderer.

    python -m generation.backends.colt.train --out runs/base --codec runs/codec/codec.safetensors

Resumes from its last checkpoint; `--clips` and `--steps` may be raised between two goes. Leaves
`step-N.safetensors` at each step named with --release and at the last one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generation.backends.colt.codec import Codec
from generation.backends.colt.config import EMPTY
from generation.backends.colt.latents import Clips, load_or_make
from generation.backends.colt.model import Colt
from generation.backends.colt.run import Run, arguments, autocast, compiled, device
from generation.backends.colt.weights import load, read_config

GIVEN = 0.3  # share of clips trained with their first frame given: one checkpoint does t2v and i2v
WORDLESS = 0.1  # share trained without words, for classifier-free guidance
NEAREST = 0.05  # 1 - level is not taken below this, so that the loss weight stays finite
RATE = 2e-3


class Average(nn.Module):
    """An exponential average of a model's weights, which is what gets released."""

    def __init__(self, model: nn.Module, kept: nn.Module) -> None:
        super().__init__()
        kept.load_state_dict(model.state_dict())
        self.kept = kept.requires_grad_(False)

    @torch.no_grad()
    def follow(self, model: nn.Module, decay: float) -> None:
        for kept, new in zip(self.kept.parameters(), model.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)


def optimisers(model: Colt) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for all else (Jordan 2024)."""
    blocks = [p for n, p in model.blocks.named_parameters() if p.ndim == 2 and "shift" not in n]
    chosen = {id(p) for p in blocks}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(blocks, lr=RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=RATE, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def noised(video: Tensor, audio: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Video and audio at a level [B] between noise (0) and clean (1)."""
    v, a = level.view(-1, 1, 1, 1, 1), level.view(-1, 1, 1)
    return (
        v * video + (1 - v) * torch.randn_like(video),
        a * audio + (1 - a) * torch.randn_like(audio),
    )


def draw_level(batch: int, where: torch.device) -> Tensor:
    """Logit-normal levels [B]: most of the work lies between noise and nearly clean (Esser et al.
    2024)."""
    return torch.sigmoid(torch.randn(batch, device=where) - 0.5)


def draw_conditions(clips: Clips) -> tuple[Tensor, Tensor]:
    """Words, some of them taken away, and which clips are given their first frame."""
    batch, where = len(clips.words), clips.words.device
    wordless = torch.rand(batch, 1, device=where) < WORDLESS
    words = torch.where(wordless, torch.full_like(clips.words, EMPTY), clips.words)
    return words, torch.rand(batch, device=where) < GIVEN


def velocity_error(guess: Tensor, clean: Tensor, level: Tensor) -> Tensor:
    """Mean square error of the velocity that a guess of the clean clip stands for."""
    error = (guess.float() - clean).square().flatten(1).mean(1)
    return (error / (1 - level).clamp_min(NEAREST) ** 2).mean()


def losses(model: nn.Module, clips: Clips) -> tuple[Tensor, Tensor]:
    """Velocity-weighted x-prediction losses of picture and sound (arXiv 2511.13720)."""
    level = draw_level(len(clips.words), clips.words.device)
    words, given = draw_conditions(clips)
    video, audio = noised(clips.video, clips.audio, level)
    with autocast(level.device):
        guess_video, guess_audio = model(video, audio, level, words, clips.first, given)
    picture = velocity_error(guess_video, clips.video, level)
    return picture, velocity_error(guess_audio, clips.audio, level)


def batches(clips: Clips, batch: int) -> Iterator[Clips]:
    """Random batches on the device, without end."""
    while True:
        yield clips.take(torch.randint(len(clips.words), (batch,))).to(device())


def train(
    out: Path,
    codec: Path,
    steps: int,
    down: int,
    batch: int,
    clips: int,
    seed: int,
    release: list[int],
    compile: bool,
) -> None:
    config, where = read_config(codec), device()
    torch.manual_seed(seed)
    model = Colt(config).to(where)
    average, pair = Average(model, Colt(config).to(where)), optimisers(model)
    known: dict[str, Any] = {"model": model, "average": average, "muon": pair[0], "adam": pair[1]}
    coder = Codec(config).to(where).eval()
    load(coder, codec, "codec")
    found = load_or_make(out / "clips", coder, clips, seed)
    run_model = compiled(model, compile)
    with Run(out, steps, ("picture", "sound"), seed=seed, **known) as run:
        stream = batches(found, batch)
        while run.more():
            for optimiser in pair:
                run.pace(optimiser, RATE, warm=200, down=down)
            picture, sound = losses(run_model, next(stream))
            run.learn(picture + sound, model, *pair)
            average.follow(model, min(0.999, run.step / (run.step + 20)))
            run.row(picture=picture, sound=sound)
            if run.step in release or run.step == steps:
                parts = {"colt": average.kept, "codec": coder}
                run.release(f"step-{run.step}.safetensors", parts, config)


def main() -> None:
    # `down`: the last steps, over which the learning rate falls.
    parser = arguments(__doc__, steps=12_000, down=4000, batch=32, clips=40_000)
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--release", type=int, nargs="*", default=[], help="steps to release")
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
