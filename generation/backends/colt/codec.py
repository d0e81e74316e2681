"""The codec between pixels and the latent vectors that the transformer works on.

    python -m generation.backends.colt.codec --out runs/codec --steps 6000

A block of 4 frames by 16 x 16 pixels becomes one vector of 64 numbers: its principal components,
scaled so that coarse ones are larger than fine ones and a sampler settles them first. Back goes
the same linear map, and a small convolutional network that knows what clips look like restores the
edges. In its training the vectors get noise, as a sampler's are never quite right.
"""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from generation.backends.colt.config import CONFIGS, Config
from generation.backends.colt.data import pixels
from generation.backends.colt.run import Run, arguments, autocast, compiled, device

NOISE = 0.2  # the most noise that vectors get in training; the finest components vary by 0.5
LARGEST = 2.0  # how much the coarsest components vary
RATE = 1.5e-3


def norm(x: Tensor) -> Tensor:
    """Each position's channels brought to mean square 1."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-4)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(functional.silu(self.first(norm(x))))


class AcrossTime(nn.Module):
    """Mixes each latent step with the one before and the one after."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, 3, padding=1)
        nn.init.zeros_(self.mix.weight)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        rows, width, height, across = x.shape
        line = norm(x).reshape(-1, steps, width, height * across).permute(0, 3, 2, 1)
        mixed = self.mix(line.reshape(-1, width, steps))
        mixed = mixed.view(-1, height * across, width, steps).permute(0, 3, 2, 1)
        return x + mixed.reshape(rows, width, height, across)


class Codec(nn.Module):
    mean: Tensor
    basis: Tensor
    spread: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        volume = 3 * config.block_frames * config.block_pixels**2
        self.register_buffer("mean", torch.zeros(volume))
        self.register_buffer("basis", torch.zeros(volume, config.latents))
        self.register_buffer("spread", torch.ones(config.latents))
        fine, coarse = config.codec_widths
        channels = 3 * config.block_frames * 4  # a block's frames side by side, 2 x 2 pixels deep
        self.enter = nn.Conv2d(channels, fine, 3, padding=1)
        self.down = nn.Sequential(Residual(fine), Residual(fine))
        self.coarser = nn.Conv2d(fine, coarse, 2, stride=2)
        self.middle = nn.ModuleList([Residual(coarse), AcrossTime(coarse), Residual(coarse)])
        self.finer = nn.ConvTranspose2d(coarse, fine, 2, stride=2)
        self.up = nn.Sequential(Residual(fine), Residual(fine))
        self.leave = nn.Conv2d(fine, channels, 3, padding=1)
        for start in (self.leave.weight, self.leave.bias):
            nn.init.zeros_(cast(Tensor, start))

    def _blocks(self, video: Tensor) -> Tensor:
        """[B, 3, F, H, W] -> [B, steps, rows, columns, volume]."""
        frames, side, (_, rows, columns) = (
            self.config.block_frames,
            self.config.block_pixels,
            self.config.grid,
        )
        cut = video.view(len(video), 3, -1, frames, rows, side, columns, side)
        return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)

    @torch.no_grad()
    def fit(self, rng: np.random.Generator, batches: int = 40, batch: int = 20) -> None:
        """Principal components of the blocks of some rendered clips."""
        volume, count = len(self.mean), 0
        total, squares = torch.zeros(volume), torch.zeros(volume, volume)
        for _ in range(batches):
            rows = self._blocks(pixels(self.config, batch, rng).float() / 127.5 - 1)
            rows = rows.reshape(-1, volume)
            total, squares, count = total + rows.sum(0), squares + rows.T @ rows, count + len(rows)
        mean = total / count
        energy, vectors = torch.linalg.eigh(squares / count - mean[:, None] * mean)
        spread = energy.flip(0)[: self.config.latents].sqrt()
        self.mean.copy_(mean)
        self.basis.copy_(vectors.flip(1)[:, : self.config.latents])
        # The first component says day or night and dwarfs all others; it is brought down to them.
        self.spread.copy_(spread / (LARGEST * (spread / spread[1]).clamp_max(1).sqrt()))

    def encode(self, video: Tensor) -> Tensor:
        """[B, 3, F, H, W] in -1..1 -> [B, steps, latents, rows, columns]."""
        found = (self._blocks(video) - self.mean) @ self.basis / self.spread
        return found.movedim(-1, 2)

    def of_still(self, picture: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, latents, rows, columns]: one block in which nothing moves."""
        still = picture[:, :, None].expand(-1, -1, self.config.block_frames, -1, -1)
        return self.encode(still.contiguous())[:, 0]

    def decode(self, latents: Tensor) -> Tensor:
        """[B, steps, latents, rows, columns] -> [B, 3, F, H, W], about -1..1."""
        (batch, steps), frames = latents.shape[:2], self.config.block_frames
        side, (_, rows, columns) = self.config.block_pixels, self.config.grid
        flat = (latents.movedim(2, -1) * self.spread) @ self.basis.T + self.mean
        rough = flat.view(batch * steps, rows, columns, 3 * frames, side, side)
        rough = rough.permute(0, 3, 1, 4, 2, 5).reshape(batch * steps, 3 * frames, rows * side, -1)
        x = functional.pixel_unshuffle(rough, 2).contiguous(memory_format=torch.channels_last)
        x = self.down(self.enter(x))
        deep = self.coarser(x)
        for layer in self.middle:
            deep = layer(deep, steps) if isinstance(layer, AcrossTime) else layer(deep)
        x = self.up(x + self.finer(deep))
        fine = rough + functional.pixel_shuffle(self.leave(norm(x)).contiguous(), 2)
        fine = fine.view(batch, steps, 3, frames, rows * side, columns * side)
        return fine.transpose(1, 2).flatten(2, 3)


class Decoder(nn.Module):
    """`decode` as a module's forward, which can be compiled."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, latents: Tensor) -> Tensor:
        return self.codec.decode(latents)


def train(out: Path, size: str, steps: int, batch: int, seed: int, compile: bool) -> None:
    config, where = CONFIGS[size], device()
    torch.manual_seed(seed)
    codec = Codec(config).to(where)
    optimiser = torch.optim.AdamW(codec.parameters(), lr=RATE, betas=(0.9, 0.98))
    decode, columns = compiled(Decoder(codec), compile), ("loss", "edges")
    with Run(out, steps, columns, seed=seed, codec=codec, optimiser=optimiser) as run:
        if run.step == 0:
            codec.fit(np.random.default_rng([seed, 0]))
            run.release("linear.safetensors", {"codec": codec}, config)
        while run.more():
            rng = np.random.default_rng([seed, run.step])
            video = pixels(config, batch, rng).to(where).float() / 127.5 - 1
            latents = codec.encode(video)
            amount = NOISE * torch.rand(batch, 1, 1, 1, 1, device=where)
            run.pace(optimiser, RATE, warm=50, down=steps // 2)
            with autocast(where):
                guess = decode(latents + amount * torch.randn_like(latents)).float()
            loss = (guess - video).abs().mean()
            # Where neighbouring pixels differ, the eye looks: differences count by themselves.
            edges = sum(
                ((guess - video).diff(dim=axis).abs().mean() for axis in (2, 3, 4)),
                start=torch.zeros((), device=where),
            )
            run.learn(loss + 0.5 * edges, codec, optimiser)
            run.row(loss=loss, edges=edges)
        run.release("codec.safetensors", {"codec": codec}, config)


def main() -> None:
    parser = arguments(__doc__, steps=6000, batch=2)
    parser.add_argument("--size", choices=CONFIGS, default="colt")
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
