"""Colt: one transformer over text, video and audio tokens.

A single-stream diffusion transformer (Peebles & Xie 2023) in which every token attends to every
other. Video and audio tokens share one time axis in their rotary positions, which is what makes
sound and picture meet. The network predicts the clean clip (x-prediction, as in "Back to Basics",
arXiv 2511.13720); the sampler turns that into a velocity.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from generation.backends.colt.config import VOCABULARY, Config


def _rotary(config: Config) -> tuple[Tensor, Tensor]:
    """cos, sin [tokens, head_dim / 2] over (time, height, width); text stays unrotated."""
    half = config.dim // config.heads // 2
    parts = (half - 2 * (half // 3), half // 3, half // 3)
    steps, rows, columns = config.grid
    beats = config.audio_tokens / steps  # audio tokens in one step of the video
    video = torch.cartesian_prod(
        (torch.arange(steps) + 0.5) * beats - 0.5,
        torch.arange(rows).float(),
        torch.arange(columns).float(),
    )
    audio = torch.zeros(config.audio_tokens, 3)
    audio[:, 0] = torch.arange(config.audio_tokens)
    places = torch.cat([torch.zeros(config.text_length, 3), video, audio])
    angles = torch.cat(
        [
            places[:, axis, None] * (1.0 / 50.0 ** (torch.arange(width) / width))
            for axis, width in enumerate(parts)
        ],
        dim=1,
    )
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class TransformerBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.gate_up = nn.Linear(dim, 2 * (dim * 8 // 3), bias=False)
        self.down = nn.Linear(dim * 8 // 3, dim, bias=False)
        self.shift = nn.Parameter(torch.zeros(6, dim))  # on top of the shared modulation

    def forward(self, x: Tensor, modulation: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        a, b, c, d, e, f = (modulation + self.shift).unbind(1)
        h = functional.rms_norm(x, (dim,)) * (1 + a[:, None]) + b[:, None]
        q, k, v = self.qkv(h).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = functional.rms_norm(q, q.shape[-1:]), functional.rms_norm(k, k.shape[-1:])
        h = functional.scaled_dot_product_attention(_rotate(q, cos, sin), _rotate(k, cos, sin), v)
        x = x + c[:, None] * self.out(h.transpose(1, 2).reshape(batch, tokens, dim))
        h = functional.rms_norm(x, (dim,)) * (1 + d[:, None]) + e[:, None]
        gate, up = self.gate_up(h).chunk(2, dim=-1)
        return x + f[:, None] * self.down(functional.silu(gate) * up)


class Colt(nn.Module):
    """(noisy video, noisy audio, noise level, words, first frame) -> (clean video, clean audio)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, dim = config, config.dim
        sound = config.mel_bins * config.mel_per_token
        self.video_in = nn.Linear(config.latents, dim)
        self.first_in = nn.Linear(config.latents, dim)
        self.audio_in = nn.Linear(sound, dim)
        self.words = nn.Embedding(len(VOCABULARY) + 2, dim)
        self.word_places = nn.Parameter(torch.randn(config.text_length, dim) * 0.02)
        self.kinds = nn.Parameter(torch.randn(3, dim) * 0.02)
        self.level = nn.Sequential(nn.Linear(128, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.modulation = nn.Linear(dim, 6 * dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, config.heads) for _ in range(config.depth)
        )
        self.final = nn.Linear(dim, 2 * dim)
        self.video_out = nn.Linear(dim, config.latents)
        self.audio_out = nn.Linear(dim, sound)
        for layer in (self.final, self.video_out, self.audio_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.words.weight, std=0.02)
        cos, sin = _rotary(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(
        self,
        video: Tensor,
        audio: Tensor,
        level: Tensor,
        words: Tensor,
        first: Tensor,
        given: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Shapes: video [B,steps,latents,rows,columns], audio [B,mel columns,bins], level [B] in
        0 (noise) .. 1 (clean), words [B,text_length] int, first [B,latents,rows,columns] of the
        given first frame, given [B] bool; video and audio come back."""
        config, batch = self.config, video.shape[0]
        steps, rows, columns = config.grid
        pictures = self.video_in(video.movedim(2, -1).reshape(batch, -1, config.latents))
        shown = self.first_in(first.movedim(1, -1).reshape(batch, -1, config.latents))
        shown = shown * given.view(-1, 1, 1)
        pictures = torch.cat(  # the first frame enters at the tokens of the first step
            [pictures[:, : rows * columns] + shown, pictures[:, rows * columns :]], dim=1
        )
        x = torch.cat(
            [
                self.words(words) + self.word_places + self.kinds[0],
                pictures + self.kinds[1],
                self.audio_in(audio.reshape(batch, config.audio_tokens, -1)) + self.kinds[2],
            ],
            dim=1,
        )
        frequencies = torch.exp(torch.linspace(0, 6.9, 64, device=level.device))
        angles = level.float()[:, None] * frequencies
        time = self.level(torch.cat([angles.cos(), angles.sin()], 1).to(x.dtype))
        modulation = self.modulation(functional.silu(time)).view(batch, 6, -1)
        for block in self.blocks:
            x = block(x, modulation, self.cos, self.sin)
        scale, shift = self.final(functional.silu(time)).chunk(2, dim=-1)
        x = functional.rms_norm(x, x.shape[-1:]) * (1 + scale[:, None]) + shift[:, None]
        x = x[:, config.text_length :]
        pictures, sounds = x[:, : -config.audio_tokens], x[:, -config.audio_tokens :]
        clean = self.video_out(pictures).view(batch, steps, rows, columns, -1).movedim(-1, 2)
        return clean, self.audio_out(sounds).reshape(audio.shape)
