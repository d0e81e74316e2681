"""Sizes of Colt. Two configurations differ only by numbers."""

from dataclasses import dataclass

from generation.backends.scenes.grammar import WORDS
from generation.backends.scenes.renderer import SAMPLE_RATE


@dataclass(frozen=True)
class Config:
    size: int = 64  # pixels, square
    frames: int = 32
    fps: int = 16
    # The codec turns a block of 4 frames by 16 x 16 pixels into one latent vector.
    block_frames: int = 4
    block_pixels: int = 16
    latents: int = 64
    codec_widths: tuple[int, int] = (64, 128)  # channels at 1/2 and 1/4 of the size
    mel_bins: int = 64
    mel_columns: int = 128
    mel_per_token: int = 8  # mel columns in one audio token: two tokens last as long as one step
    text_length: int = 16  # the longest sentence of the grammar has 15 words
    dim: int = 256
    depth: int = 8
    heads: int = 4

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def hop(self) -> int:
        """Samples between two mel columns."""
        return int(SAMPLE_RATE * self.seconds) // self.mel_columns

    @property
    def grid(self) -> tuple[int, int, int]:
        """Video tokens along time, height and width."""
        side = self.size // self.block_pixels
        return self.frames // self.block_frames, side, side

    @property
    def audio_tokens(self) -> int:
        return self.mel_columns // self.mel_per_token


CONFIGS = {
    "colt": Config(),
    # Learns nothing in seconds: it shows that the commands work.
    "tiny": Config(
        size=32,
        frames=16,
        fps=8,
        block_pixels=8,
        latents=16,
        codec_widths=(8, 16),
        mel_bins=16,
        dim=32,
        depth=2,
        heads=2,
    ),
}

# Word 0 is padding, word 1 stands for "no prompt" in classifier-free guidance.
VOCABULARY = {word: index + 2 for index, word in enumerate(WORDS)}
EMPTY = 1
