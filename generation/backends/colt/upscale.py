"""Super-resolution: four times as many pixels each way, frame by frame.

    python -m generation.backends.colt.upscale --out runs/upscale \\
        --codec runs/codec/codec.safetensors

A small convolutional network works at the low resolution and ends in a pixel shuffle (ESPCN, Shi et
al. 2016). It learns on renderings that went through the codec with noise on their vectors, so that
it mends what a sampler leaves and not only enlarges.
"""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from generation.backends.colt.codec import NOISE, Codec, Residual, norm
from generation.backends.colt.config import Config
from generation.backends.colt.data import two_sizes
from generation.backends.colt.run import Run, arguments, autocast, compiled, device
from generation.backends.colt.weights import load, read_config

FACTOR = 4
RATE = 1e-3


class Upscaler(nn.Module):
    def __init__(self, config: Config, width: int = 48, depth: int = 4) -> None:
        super().__init__()
        self.config = config
        # Two by two pixels become one position: four times less work, and a wider view.
        self.enter = nn.Conv2d(9 * 4, 2 * width, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual(2 * width) for _ in range(depth)))
        self.leave = nn.Conv2d(2 * width, 3 * (2 * FACTOR) ** 2, 3, padding=1)
        for start in (self.leave.weight, self.leave.bias):
            nn.init.zeros_(cast(Tensor, start))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 9, H, W], a frame between its neighbours, -> [N, 3, 4 H, 4 W]."""
        deep = functional.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        deep = self.blocks(self.enter(deep))
        fine = functional.pixel_shuffle(self.leave(norm(deep)).contiguous(), 2 * FACTOR)
        smooth = functional.interpolate(x[:, 3:6], scale_factor=FACTOR, mode="bilinear")
        return smooth + fine

    def enlarge(self, video: Tensor, chunk: int = 16) -> Tensor:
        """[B, 3, F, H, W] -> [B, 3, F, 4 H, 4 W]."""
        around = neighbours(video)
        frames = torch.cat([self(part) for part in around.split(chunk)])
        return frames.view(len(video), -1, *frames.shape[1:]).transpose(1, 2)


def neighbours(video: Tensor) -> Tensor:
    """[B, 3, F, H, W] -> [B * F, 9, H, W]: each frame with the one before and the one after."""
    before = torch.cat([video[:, :, :1], video[:, :, :-1]], 2)
    after = torch.cat([video[:, :, 1:], video[:, :, -1:]], 2)
    return torch.cat([before, video, after], 1).transpose(1, 2).flatten(0, 1)


def train(out: Path, codec: Path, steps: int, batch: int, seed: int, compile: bool) -> None:
    config, where = read_config(codec), device()
    torch.manual_seed(seed)
    coder = Codec(config).to(where).eval()
    load(coder, codec, "codec")
    model = Upscaler(config).to(where)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98))
    enlarge, columns = compiled(model, compile), ("loss", "edges")
    with Run(out, steps, columns, seed=seed, model=model, optimiser=optimiser) as run:
        while run.more():
            rng = np.random.default_rng([seed, run.step])
            small, large = (
                part.to(where).float() / 127.5 - 1 for part in two_sizes(config, batch, FACTOR, rng)
            )
            with torch.no_grad(), autocast(where):
                latents = coder.encode(small)
                amount = NOISE * torch.rand(batch, 1, 1, 1, 1, device=where)
                seen = coder.decode(latents + amount * torch.randn_like(latents)).float()
            some = torch.from_numpy(rng.choice(batch * config.frames, 2 * batch, replace=False))
            run.pace(optimiser, RATE, warm=50, down=steps // 2)
            wanted = large.transpose(1, 2).flatten(0, 1)[some]
            with autocast(where):
                guess = enlarge(neighbours(seen.clamp(-1, 1))[some]).float()
            loss = (guess - wanted).abs().mean()
            edges = (guess - wanted).diff(dim=2).abs().mean()
            edges = edges + (guess - wanted).diff(dim=3).abs().mean()
            run.learn(loss + edges, model, optimiser)
            run.row(loss=loss, edges=edges)
        run.release("upscale.safetensors", {"upscaler": model}, config)


def main() -> None:
    parser = arguments(__doc__, steps=1500, batch=4)
    parser.add_argument("--codec", type=Path, required=True)
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
