"""Sizes of Colt. Two configurations differ only by numbers."""

from dataclasses import dataclass

from generation.scenes.grammar import WORDS
from generation.scenes.renderer import SAMPLE_RATE


@dataclass(frozen=True)
class Config:
    size: int = 32  # pixels, square
    frames: int = 16
    fps: int = 8
    patch_time: int = 4
    patch_space: int = 4
    mel_bins: int = 32
    mel_per_frame: int = 8  # mel columns in one audio token, which lasts as long as one frame
    text_length: int = 16  # the longest sentence of the grammar has 15 words
    dim: int = 192
    depth: int = 6
    heads: int = 3

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def hop(self) -> int:
        """Samples between two mel columns."""
        return SAMPLE_RATE // (self.fps * self.mel_per_frame)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Video tokens along time, height and width."""
        side = self.size // self.patch_space
        return self.frames // self.patch_time, side, side


# Word 0 is padding, word 1 stands for "no prompt" in classifier-free guidance.
VOCABULARY = {word: index + 2 for index, word in enumerate(WORDS)}
EMPTY = 1
