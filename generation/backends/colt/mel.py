"""Sound as Colt sees it: normalised log-mel columns, and back by Griffin-Lim.

Mel scale: O'Shaughnessy's 2595 log10(1 + f/700). Inversion: Griffin & Lim 1984, with the momentum
of Perraudin et al. 2013.
"""

from functools import cache

import numpy as np
import torch

from generation.backends.colt.config import Config
from generation.backends.scenes.renderer import SAMPLE_RATE

N_FFT = 1024
QUIETEST = 1e-3  # magnitudes below this are silence
SPREAD = 3.5  # natural-log units mapped to 1: silence is about -1, the loudest strikes about +1.2


@cache
def filterbank(bins: int) -> torch.Tensor:
    """float32 [bins, N_FFT // 2 + 1]: triangles of equal height from 50 Hz to 7.5 kHz."""

    def mel(f: float) -> float:
        return 2595 * float(np.log10(1 + f / 700))

    edges = 700 * (10 ** (np.linspace(mel(50), mel(7500), bins + 2) / 2595) - 1)
    frequencies = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    triangles = np.clip(np.minimum(rising, falling), 0, None)
    return torch.tensor(triangles / triangles.sum(1, keepdims=True), dtype=torch.float32)


def _stft(sound: torch.Tensor, hop: int) -> torch.Tensor:
    return torch.stft(
        sound, N_FFT, hop, window=torch.hann_window(N_FFT), return_complex=True, pad_mode="constant"
    )


def to_mel(sound: torch.Tensor, config: Config) -> torch.Tensor:
    """float [..., samples] -> float [..., columns, bins]; column k is centred on k hops + half."""
    half = config.hop // 2
    magnitude = _stft(torch.nn.functional.pad(sound, (0, half))[..., half:], config.hop).abs()
    columns = config.mel_columns
    bands = (filterbank(config.mel_bins) @ magnitude)[..., :columns].transpose(-1, -2)
    return (torch.log(bands.clamp_min(QUIETEST)) - float(np.log(QUIETEST))) / SPREAD - 1.0


def to_sound(mel: torch.Tensor, config: Config, rounds: int = 48) -> torch.Tensor:
    """float [columns, bins] -> float [samples] in -1..1. Phase starts at zero: deterministic."""
    bands = torch.exp((mel.clamp(-1.0, 2.0) + 1.0) * SPREAD + float(np.log(QUIETEST))) - QUIETEST
    inverse = torch.linalg.pinv(filterbank(config.mel_bins))
    magnitude = (inverse @ bands.clamp_min(0).T).clamp_min(0)
    samples = config.mel_columns * config.hop
    magnitude = torch.nn.functional.pad(magnitude, (0, 1))
    phase = torch.polar(
        torch.ones_like(magnitude),
        torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(0)) * 6.2832,
    )
    window, previous = torch.hann_window(N_FFT), torch.zeros_like(phase)
    for _ in range(rounds):
        sound = torch.istft(magnitude * phase, N_FFT, config.hop, window=window, length=samples)
        rebuilt = _stft(sound, config.hop)
        phase = rebuilt + 0.9 * (rebuilt - previous)
        phase = phase / phase.abs().clamp_min(1e-9)
        previous = rebuilt
    sound = torch.istft(magnitude * phase, N_FFT, config.hop, window=window, length=samples)
    half = config.hop // 2  # undo the half column by which to_mel looks ahead
    return torch.nn.functional.pad(sound, (half, 0))[:samples].clamp(-1, 1)
