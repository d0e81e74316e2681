"""Is the candidate worse than the baseline: two stopping rules on blocks, and an estimate after.

A block is one pair of clips judged by two voters with the sides swapped. The candidate's score in
it, 0 to 4 half points, is the outcome (the pentanomial of Fishtest, Stockfish's testing framework):
what the two votes share, the clips among it, is inside one outcome and needs no assumption.

Two rules run side by side, and whichever decides first gives the verdict:

- a sequential probability ratio test of "worse by the margin" against "not worse";
- an e-process against "not worse", which may be looked at whenever one likes.

Blocks depend on each other, so both are divided by a design effect (see `design_effects`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ratings.design import Design
from ratings.elo_scale import elo_of_score, normalised_elo
from ratings.least_numbers import LEAST_BLOCKS, LEAST_PROMPTS, LEAST_VOTERS
from ratings.significance import normal_reach
from ratings.stats.blocks import Blocks
from ratings.stats.comparisons import BoolArray, FloatArray, IntArray
from ratings.stats.design_effects import design_effects
from ratings.stats.stopping import median_unbiased, stopping

# Blocks that a score which never came up counts for, as in Fishtest: without it the likelihoods of
# a candidate that always wins, or always ties, don't exist.
UNSEEN_SCORE_COUNT = 1e-3
# Betting fractions of the e-process (Waudby-Smith and Ramdas 2024, see `log_e_process`). The best
# one is the candidate's deficit over a block's variance: 0.2 suits 15 Elo and 0.8 suits 60.
BETTING_FRACTIONS = np.array([0.2, 0.4, 0.8, 1.6])
SCORES = np.arange(5) / 4  # what a block's score can be, from 0 to 1
# The searches for the most likely pentanomial end when a step can gain no more log-likelihood a
# block than this (half of Newton's decrement), or changes the deviation by no larger share.
LEAST_GAIN = 1e-12
LEAST_CHANGE = 1e-4
MAX_SEARCH_STEPS = 100  # both end far sooner
UNREACHABLE_LLR = -1e9  # where the e-process can't alarm whatever the score
# The line at which the e-process alarms is found at so many blocks and drawn straight between.
ALARM_LINE_POINTS = 60


@dataclass(frozen=True, eq=False)
class SequentialResult:
    """What an experiment's blocks say.

    Attributes
    ----------
    verdict : str
        "pass", "regressed", "inconclusive", or "" while it goes on.
    rule : str
        What gave it: "sprt", "e-process", "votes used up", or "".
    decided_at : int or None
        Number of blocks at which it was decided. Later blocks change no verdict and not the
        estimate that goes with it; they count in everything else.
    llr, log_e : float array, shape (n,)
        Log-likelihood ratio and log e-value after every block, divided by the design effect.
    lower, upper, log_alarm : float
        What they decide at.
    design_effects : float array, shape (n,)
        After every block: how many blocks tell as much as one independent block would.
    design_effect : float
        The last of them; 1 where there is no block.
    counts : int array, shape (5,)
        Blocks of each score.
    estimate, low, high : float
        The candidate's Elo over the baseline with its 95 % interval, corrected for stopping
        (median-unbiased); NaN before there are two blocks.
    normalised, normalised_low, normalised_high : float
        The same in normalised Elo, the margin's unit.
    plain_estimate, plain_low, plain_high : float
        Elo by the mean of all blocks with its clustered interval, uncorrected.
    """

    verdict: str
    rule: str
    decided_at: int | None
    llr: FloatArray
    log_e: FloatArray
    lower: float
    upper: float
    log_alarm: float
    design_effects: FloatArray
    design_effect: float
    counts: IntArray
    estimate: float
    low: float
    high: float
    normalised: float
    normalised_low: float
    normalised_high: float
    plain_estimate: float
    plain_low: float
    plain_high: float


def sequential_test(blocks: Blocks, design: Design) -> SequentialResult:
    """Say whether the candidate passed, regressed, or neither yet; and by how much it differs.

    Parameters
    ----------
    blocks : Blocks
        In the order in which they were completed.
    design : Design

    Returns
    -------
    SequentialResult

    Notes
    -----
    See docs/methodology.md for what of this is exact and what is shown by simulation. Takes time
    for ``n log n`` numbers: some 10 ms for 1,500 blocks.
    """
    n = len(blocks)
    effects = design_effects(blocks, design)
    llr = log_likelihood_ratio(_score_counts(blocks.score), -design.gap, 0.0) / effects
    log_e = log_e_process(blocks.score) / effects
    ready = enough_to_decide(blocks)
    verdict, rule, decided_at = _first_decision(llr, log_e, ready, design)
    corrected = normalised = plain = (math.nan, math.nan, math.nan)
    if n > 1:
        end = decided_at or n
        first_look = min(int(np.argmax(ready)) + 1 if ready.any() else n, end)
        moments = _ScoreMoments.of(blocks.score[:end])
        effect = _effect_after_stopping(moments, effects[:end], first_look, verdict, design)
        corrected, normalised = moments.elo(effect), _each(normalised_elo, effect)
        moments = _ScoreMoments.of(blocks.score)
        reach = normal_reach() * math.sqrt(effects[-1] / n)
        plain = moments.elo(moments.effect + np.array([0.0, -reach, reach]))
    return SequentialResult(
        verdict=verdict,
        rule=rule,
        decided_at=decided_at,
        llr=llr,
        log_e=log_e,
        lower=design.bounds[0],
        upper=design.bounds[1],
        log_alarm=design.log_alarm,
        design_effects=effects,
        design_effect=float(effects[-1]) if n else 1.0,
        counts=np.bincount(blocks.score, minlength=5),
        estimate=corrected[0],
        low=corrected[1],
        high=corrected[2],
        normalised=normalised[0],
        normalised_low=normalised[1],
        normalised_high=normalised[2],
        plain_estimate=plain[0],
        plain_low=plain[1],
        plain_high=plain[2],
    )


def log_likelihood_ratio(counts: ArrayLike, low: float, high: float) -> FloatArray:
    """Compare two values of the effect by the most likely pentanomial that has each.

    Parameters
    ----------
    counts : array_like, shape (n, 5)
        Blocks of each score, one row for each moment.
    low, high : float
        Mean of a block's score over even, in its standard deviations: normalised Elo over 347.4,
        times the root of 2.

    Returns
    -------
    float array, shape (n,)
        The logarithm of the likelihood under `high` over that under `low`.

    Notes
    -----
    The generalised ratio of Fishtest (Van den Bergh, "Normalized Elo" and "A practical
    introduction", cantate.be/Fishtest). Scores that did not come up count as `UNSEEN` blocks.
    """
    seen = np.asarray(counts, dtype=np.float64).T
    seen = np.where(seen > 0, seen, UNSEEN_SCORE_COUNT)
    total = seen.sum(axis=0)
    share = seen / total
    ratio: FloatArray = total * (
        _constrained_log_likelihood(share, high) - _constrained_log_likelihood(share, low)
    )
    return ratio


def _constrained_log_likelihood(share: FloatArray, effect: float) -> FloatArray:
    """Find the most likely pentanomial with this effect for each column of shares, shape (5, n).

    Gives the logarithm of its likelihood over that of the shares themselves, a block; shape (n,).

    With y a block's score over even, the effect is ``E y / sd(y)``; it is `effect` where
    ``E y = k r``, ``r = sqrt(E y^2)``, ``k = effect / sqrt(1 + effect^2)``. At ``c = r`` the root r
    is ``(E y^2 / c + c) / 2``, linear in the probabilities for a given c, under which the answer
    is ``share / (1 + x g)``, g the constraint and x its Lagrange multiplier (Owen 2001, Empirical
    Likelihood, section 2.9). So c and x are found in turn.
    """
    over_even = (SCORES - 0.5)[:, None]
    pull = effect / math.sqrt(1 + effect**2)
    root = np.full(share.shape[1], math.sqrt(np.mean(over_even**2)))
    multiplier = np.zeros(share.shape[1])
    for _ in range(MAX_SEARCH_STEPS):
        constraint = over_even - pull * (over_even**2 / root + root) / 2
        multiplier = _lagrange_multiplier(share, constraint, multiplier)
        tilt = 1 + multiplier * constraint
        found = np.sqrt(np.sum(share / tilt * over_even**2, axis=0))
        change = np.abs(found / root - 1).max(initial=0.0)
        root = found
        if pull == 0 or change < LEAST_CHANGE:
            break
    answer: FloatArray = -np.sum(share * np.log(tilt), axis=0)
    return answer


def _lagrange_multiplier(
    share: FloatArray, constraint: FloatArray, start: FloatArray
) -> FloatArray:
    """Solve ``sum_i share_i g_i / (1 + x g_i) = 0`` for x, shape (n,), between the sum's poles.

    `share` and the constraint's values g have shape (5, n). The sum falls in x: Newton's method,
    the bracket halved where a step would leave it.
    """
    low, high = -1 / constraint.max(axis=0), -1 / constraint.min(axis=0)
    x = np.where((low < start) & (start < high), start, 0.0)
    moving = np.arange(x.size)
    for _ in range(MAX_SEARCH_STEPS):
        part = constraint[:, moving] / (1 + x[moving] * constraint[:, moving])
        weighed = share[:, moving] * part
        value, slope = weighed.sum(axis=0), (weighed * part).sum(axis=0)
        gains = value**2 > LEAST_GAIN * slope
        moving, value, slope = moving[gains], value[gains], slope[gains]
        if moving.size == 0:
            break
        at = x[moving]
        low[moving] = np.where(value > 0, at, low[moving])
        high[moving] = np.where(value > 0, high[moving], at)
        step = at + value / slope
        inside = (low[moving] < step) & (step < high[moving])
        x[moving] = np.where(inside, step, (low[moving] + high[moving]) / 2)
    return x


def log_e_process(score: IntArray) -> FloatArray:
    """Bet against "not worse", block by block, and give the logarithm of the wealth.

    Parameters
    ----------
    score : int array, shape (n,)
        Of each block, 0 to 4.

    Returns
    -------
    float array, shape (n,)
        After every block, from a wealth of 1.

    Notes
    -----
    Each betting fraction s multiplies its wealth by ``1 + s (1/2 - x)``, x the block's score from
    0 to 1: where the mean of x given all before is at least 1/2, no fraction gains on average, nor
    does the mean of their wealths. So wealth beyond 1 / alpha at any time has a chance of at most
    alpha (Ville's inequality; Waudby-Smith and Ramdas 2024, Journal of the Royal Statistical
    Society B 86, 1-27).
    """
    gains = np.log1p(BETTING_FRACTIONS[:, None] * (0.5 - SCORES))
    wealth: FloatArray = np.logaddexp.reduce(np.cumsum(gains[:, score], axis=1), axis=0)
    return wealth - math.log(len(BETTING_FRACTIONS))


def _score_counts(score: IntArray) -> IntArray:
    """Blocks of each score after every block, shape (n, 5)."""
    counts: IntArray = np.cumsum(np.eye(5, dtype=np.int64)[score], axis=0)
    return counts


def enough_to_decide(blocks: Blocks) -> BoolArray:
    """After which blocks there are enough of everything to decide, shape (n,)."""
    n = len(blocks)

    def seen(labels: IntArray) -> IntArray:
        """Different labels in the rows up to each."""
        new = np.zeros(labels.size, dtype=np.int64)
        new[np.unique(labels, return_index=True)[1]] = 1
        return np.cumsum(new.reshape(n, -1).sum(axis=1))

    if n == 0:
        return np.zeros(0, dtype=bool)
    ready = np.arange(1, n + 1) >= LEAST_BLOCKS
    ready &= seen(blocks.voter.ravel()) >= LEAST_VOTERS
    ready &= seen(blocks.prompt) >= LEAST_PROMPTS
    return ready


def _first_decision(
    llr: FloatArray, log_e: FloatArray, ready: BoolArray, design: Design
) -> tuple[str, str, int | None]:
    """The first decision of either rule: verdict, rule, and number of blocks."""
    n = min(len(llr), design.max_blocks)
    lower, upper = design.bounds
    below, above = llr[:n] <= lower, llr[:n] >= upper
    stops = np.flatnonzero(ready[:n] & (below | above | (log_e[:n] >= design.log_alarm)))
    if stops.size:
        at = int(stops[0])
        if below[at]:
            return "regressed", "sprt", at + 1
        if log_e[at] >= design.log_alarm:
            return "regressed", "e-process", at + 1
        return "pass", "sprt", at + 1
    if n == design.max_blocks:
        return "inconclusive", "votes used up", n
    return "", "", None


@dataclass(frozen=True)
class _ScoreMoments:
    """Mean and standard deviation of a block's score from 0 to 1, and what Elo they make.

    Half a block lost and half a block won are added to the deviation: a candidate that always ties
    has one, too.
    """

    n: int
    mean: float
    deviation: float

    @classmethod
    def of(cls, score: IntArray) -> _ScoreMoments:
        points = score / 4
        squares = points.size * points.var() + 0.25
        return cls(points.size, float(points.mean()), math.sqrt(float(squares) / (points.size + 1)))

    @property
    def effect(self) -> float:
        return (self.mean - 0.5) / self.deviation

    def elo(self, effects: FloatArray) -> tuple[float, float, float]:
        return _each(elo_of_score, 0.5 + effects * self.deviation)


def _each(convert: Callable[[float], float], values: FloatArray) -> tuple[float, float, float]:
    """Put an estimate, its low and its high on another scale."""
    estimate, low, high = values.tolist()
    return convert(estimate), convert(low), convert(high)


def alarm_line(
    count: FloatArray, effects: FloatArray, deviation: float, design: Design
) -> FloatArray:
    """The log-likelihood ratio at or below which the e-process alarms, near enough.

    Parameters
    ----------
    count, effects : float array, shape (n,)
        Numbers of blocks and their design effects.
    deviation : float
        Of a block's score from 0 to 1.
    design : Design

    Returns
    -------
    float array, shape (n,)
        By the first two terms of the logarithm of each bet's gain, and the normal approximation
        of the ratio.
    """
    fractions = BETTING_FRACTIONS[:, None]
    low, high = np.zeros(len(count)), np.full(len(count), 0.5)
    for _ in range(20):  # halvings of the deficit at which it alarms: to a millionth
        deficit = (low + high) / 2
        gain = fractions * deficit - fractions**2 * (deviation**2 + deficit**2) / 2
        wealth = np.logaddexp.reduce(count * gain, axis=0) - math.log(len(BETTING_FRACTIONS))
        alarmed = wealth >= effects * design.log_alarm
        low, high = np.where(alarmed, low, deficit), np.where(alarmed, deficit, high)
    line: FloatArray = design.gap * count / effects * (design.gap / 2 - high / deviation)
    return np.where(high < 0.5, line, UNREACHABLE_LLR)


def _effect_after_stopping(
    moments: _ScoreMoments, effects: FloatArray, first_look: int, verdict: str, design: Design
) -> FloatArray:
    """The effect, its low and its high, corrected for stopping at the last of these blocks."""
    count = np.arange(1.0, moments.n + 1)
    information = np.maximum.accumulate(count / effects)
    lower, upper = design.bounds
    drift = design.gap * (moments.effect + design.gap / 2)
    if not lower < drift * information[first_look - 1] < upper:
        # With this mean it would have ended at the first look: nothing was chosen by stopping.
        reach = normal_reach() / math.sqrt(information[-1])
        return moments.effect + np.array([0.0, -reach, reach])
    llr = drift * information[-1]
    some = np.unique(np.linspace(0, moments.n - 1, ALARM_LINE_POINTS).astype(np.int64))
    line = alarm_line(count[some], effects[some], moments.deviation, design)
    line = np.interp(count, count[some], line)
    law = stopping(information, first_look, design.gap, design.bounds, line, value=llr)
    return np.array(median_unbiased(law, verdict, llr))
