"""Sound as voters hear it: its loudness, and a limiter for its peaks.

SciPy comes with the first sound: workers without one start sooner, and take less memory.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import numpy.typing as npt

from generation.media import profile

Samples = npt.NDArray[np.float32]

# The two filters of ITU-R BS.1770-4 (tables 1 and 2), which the standard gives for 48 kHz.
K_WEIGHTING_48K = (
    (
        (1.53512485958697, -2.69169618940638, 1.19839281085285),
        (1.0, -1.69065929318241, 0.73248077421585),
    ),
    ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
)
SILENCE = -70.0  # LUFS, the absolute gate of BS.1770
LOUDNESS_TOLERANCE = 0.05  # LU; a tenth of what anybody could hear
LIMITER_ROUNDS = 8  # a bound; on clicks over noise one to three were enough


def normalise_loudness(samples: Samples) -> tuple[Samples, float | None]:
    """Bring stereo sound at the profile's rate to its loudness; return it and the gain in dB.

    One gain for the whole clip, so that its own dynamics stay, and a limiter for peaks only. The
    gain is found again while the limiter takes loudness away. Silence stays silence; a lone click
    or a track too faint to be meant stays below the target rather than being blown up.
    """
    wanted = profile.PROFILE
    measured = integrated_loudness(samples)
    if measured is None:
        return samples, None
    peak = 20 * math.log10(true_peak(samples))
    highest = min(wanted.max_gain, wanted.true_peak - peak + wanted.max_limiting)
    gain = min(wanted.loudness - measured, highest)
    for _ in range(LIMITER_ROUNDS):
        result = _limit_peaks(samples * np.float32(10 ** (gain / 20)))
        reached = integrated_loudness(result)
        if reached is None or abs(wanted.loudness - reached) < LOUDNESS_TOLERANCE:
            break
        step = min(wanted.loudness - reached, highest - gain)
        if step <= 0:
            break
        gain += step
    return result, gain


def integrated_loudness(samples: Samples) -> float | None:
    """Gated loudness in LUFS of samples [N, 2] at the profile's rate; None for silence.

    ITU-R BS.1770-4: K-weighting, blocks of 400 ms every 100 ms, a gate at -70 LUFS and one 10 LU
    below the mean of what passed. Clips are seconds long and play in a loop, so the blocks run
    round the end: otherwise a sound in the last moments of a clip would hardly be counted, and a
    clip shorter than a block could not be measured.
    """
    from scipy.signal import lfilter

    block, hop = profile.PROFILE.sample_rate * 4 // 10, profile.PROFILE.sample_rate // 10
    looped = np.resize(samples, (len(samples) + block, 2)).astype(np.float64)
    for numerator, denominator in K_WEIGHTING_48K:
        looped = lfilter(numerator, denominator, looped, axis=0)
    power = np.concatenate(([0.0], np.cumsum((looped**2).sum(axis=1))))
    starts = np.arange(0, len(samples), hop)
    energy = (power[starts + block] - power[starts]) / block
    energy = energy[energy > _energy(SILENCE)]
    if not energy.size:
        return None
    energy = energy[energy > energy.mean() / 10]
    return -0.691 + 10 * math.log10(energy.mean())


def _energy(loudness: float) -> float:
    return float(10 ** ((loudness + 0.691) / 10))


def true_peak(samples: Samples) -> float:
    """Largest value between the samples too, by four times oversampling (BS.1770-4, annex 2)."""
    return float(_oversampled_peaks(samples).max(initial=0.0))


def _oversampled_peaks(samples: Samples) -> npt.NDArray[np.float64]:
    """For each sample the largest magnitude of any channel up to the next sample."""
    from scipy.signal import resample_poly

    fine = np.abs(resample_poly(samples.astype(np.float64), 4, 1, axis=0))
    return cast(npt.NDArray[np.float64], fine.reshape(len(samples), -1).max(axis=1))


def _limit_peaks(samples: Samples) -> Samples:
    """Turn the sound down around each peak above the ceiling, smoothly, looking ahead."""
    from scipy.ndimage import minimum_filter1d, uniform_filter1d

    ceiling = 10 ** (profile.PROFILE.true_peak / 20)
    needed = ceiling / np.maximum(_oversampled_peaks(samples), ceiling)
    if needed.min() >= 1.0:
        return samples
    # The lowest gain of a neighbourhood, averaged over no more than that neighbourhood,
    # never exceeds the gain needed at its centre.
    reach = profile.PROFILE.sample_rate * 5 // 1000
    lowest = minimum_filter1d(needed, 2 * reach + 1, mode="nearest")
    gain = uniform_filter1d(lowest, reach + 1, mode="nearest")
    gain = uniform_filter1d(gain, reach + 1, mode="nearest")
    return cast(Samples, (samples * gain[:, None]).astype(np.float32))
