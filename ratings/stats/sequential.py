"""Is the candidate worse than the baseline: two stopping rules on blocks, and an estimate after.

A block is one pair of clips judged by two voters with the sides swapped. The candidate's score in
it, 0 to 4 halves, is the outcome (the pentanomial of Fishtest, Stockfish's testing framework):
what the two votes share, the clips among it, is inside one outcome and needs no assumption.

Two rules run side by side, and whichever decides first gives the verdict:

- a sequential probability ratio test of "worse by the margin" against "not worse";
- an e-process against "not worse", which may be looked at whenever one likes.

Blocks depend on each other: a voter judges many of them, and a prompt comes up again. So both are
divided by a design effect, which is how many blocks tell as much as one independent block would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtrit

from ratings.stats.comparisons import BoolArray, FloatArray, IntArray, compact
from ratings.stats.stopping import median_unbiased, stopping

# Van den Bergh: normalised Elo is Elo where a single vote's score has the standard deviation 1/2.
NORMALISED_ELO = 800 / math.log(10)
# Nothing is decided before: a design effect has to be measured from something.
LEAST_BLOCKS = 30
LEAST_VOTERS = 4
LEAST_PROMPTS = 4
# What a score that never came up counts for, as in Fishtest: without it the likelihoods of a
# candidate that always wins, or always ties, don't exist.
UNSEEN = 1e-3
# Shares of the wealth at stake in a block, for and against even odds; all that pays is kept. The
# best stake is the candidate's deficit over a block's variance: 0.2 suits 15 Elo and 0.8 suits 60.
STAKES = np.array([0.2, 0.4, 0.8, 1.6])
# Scores this near 0 or 1 have no Elo worth the name: 1,200 points.
SCORE_MARGIN = 1e-3
POINTS = np.arange(5) / 4  # of a block, 0 to 1
REACH = 1.959964  # standard errors of a 95 % interval
# Both searches end, far sooner than after so many rounds, when a step can gain no more of
# log-likelihood a block (half of Newton's decrement), or moves the deviation by no larger share.
STILL = 1e-12
STILL_SHARE = 1e-4
ROUNDS = 100
# Sums of squares below are no variance but rounding.
TINY = 1e-9
# Of freedom: nothing is decided on fewer, and a t quantile of one degree is no number to show.
LEAST_DEGREES = 2.0
# A log-likelihood ratio that is never reached; and between how many points the level at which the
# e-process alarms is taken as straight.
NEVER = -1e9
FLOOR_POINTS = 60
# Where nearly all pairs of blocks share a voter or a prompt, nothing is left to tell them apart.
LEAST_REST = 0.05


@dataclass(frozen=True, eq=False)
class Blocks:
    """Complete blocks in the order in which they were completed.

    Parameters
    ----------
    score : int array, shape (n,)
        Twice the candidate's points summed over the block's two votes, 0 to 4: a win is one
        point, a tie or "both bad" half a point.
    voter : int array, shape (n, 2)
        Who gave the two votes; any numbers from 0 on.
    prompt : int array, shape (n,)

    Raises
    ------
    ValueError
        Lengths differ or a score is not 0 to 4.
    """

    score: IntArray
    voter: IntArray
    prompt: IntArray

    def __post_init__(self) -> None:
        score, prompt = np.asarray(self.score, np.int64), np.asarray(self.prompt, np.int64)
        voter = np.asarray(self.voter, np.int64).reshape(-1, 2)
        if not len(score) == len(voter) == len(prompt):
            raise ValueError(
                f"There are {len(score)} scores, {len(voter)} pairs of voters and {len(prompt)} "
                "prompts; each block needs one of each."
            )
        if score.size and not 0 <= score.min() <= score.max() <= 4:
            wrong = int(np.flatnonzero((score < 0) | (score > 4))[0])
            raise ValueError(f"Block {wrong} has the score {score[wrong]}; it must be 0 to 4.")
        for name, values in (("score", score), ("voter", voter), ("prompt", prompt)):
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Design:
    """What an experiment fixes beforehand.

    Parameters
    ----------
    margin : float
        By how much worse must not pass, in normalised Elo, above 0.
    alpha : float
        Chance of `pass` for a candidate that is worse by the margin, and of a false alarm of the
        e-process.
    beta : float
        Chance of `regressed` by the ratio test for one that is not worse.
    max_blocks : int
        Blocks after which an undecided experiment is inconclusive.

    Raises
    ------
    ValueError
        A value is out of range.
    """

    margin: float
    alpha: float = 0.05
    beta: float = 0.05
    max_blocks: int = 1500

    def __post_init__(self) -> None:
        if not 0 < self.margin < math.inf:
            raise ValueError(f"The margin is {self.margin} Elo; it must be above 0.")
        for name, chance in (("alpha", self.alpha), ("beta", self.beta)):
            if not 0 < chance < 0.5:
                raise ValueError(f"{name} is {chance}; it must be between 0 and 0.5.")
        if self.max_blocks < LEAST_BLOCKS:
            raise ValueError(
                f"The most blocks are {self.max_blocks}; a verdict needs {LEAST_BLOCKS} or more."
            )

    @property
    def gap(self) -> float:
        """The margin in standard deviations of a block: of two votes, hence the root."""
        return self.margin / NORMALISED_ELO * math.sqrt(2)

    @property
    def bounds(self) -> tuple[float, float]:
        """Wald's lower and upper bound of the log-likelihood ratio."""
        return (
            math.log(self.beta / (1 - self.alpha)),
            math.log((1 - self.beta) / self.alpha),
        )

    @property
    def log_alarm(self) -> float:
        return -math.log(self.alpha)


@dataclass(frozen=True, eq=False)
class Assessment:
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


def assess(blocks: Blocks, design: Design) -> Assessment:
    """Say whether the candidate passed, regressed, or neither yet; and by how much it differs.

    Parameters
    ----------
    blocks : Blocks
        In the order in which they were completed.
    design : Design

    Returns
    -------
    Assessment

    Notes
    -----
    See docs/methodology.md for what of this is exact and what is shown by simulation. Takes time
    for ``n log n`` numbers: some 10 ms for 1,500 blocks.
    """
    n = len(blocks)
    effects = design_effects(blocks, design)
    llr = log_likelihood_ratio(_counts(blocks.score), -design.gap, 0.0) / effects
    log_e = log_wealth(blocks.score) / effects
    ready = enough(blocks)
    verdict, rule, decided_at = _verdict(llr, log_e, ready, design)
    corrected, plain = np.full((2, 3), math.nan)
    normalised = np.full(3, math.nan)
    if n > 1:
        then = decided_at or n
        scale = _Scale.of(blocks.score[:then])
        first = int(np.argmax(ready)) + 1 if ready.any() else n
        effect = _corrected(scale, effects[:then], min(first, then), verdict, design)
        corrected, normalised = scale.elo(effect), effect * NORMALISED_ELO / math.sqrt(2)
        scale = _Scale.of(blocks.score)
        reach = REACH * math.sqrt(effects[-1] / n)
        plain = scale.elo(scale.effect + np.array([0.0, -reach, reach]))
    return Assessment(
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
        estimate=float(corrected[0]),
        low=float(corrected[1]),
        high=float(corrected[2]),
        normalised=float(normalised[0]),
        normalised_low=float(normalised[1]),
        normalised_high=float(normalised[2]),
        plain_estimate=float(plain[0]),
        plain_low=float(plain[1]),
        plain_high=float(plain[2]),
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
    seen = np.where(seen > 0, seen, UNSEEN)
    total = seen.sum(axis=0)
    share = seen / total
    ratio: FloatArray = total * (_nearest(share, high) - _nearest(share, low))
    return ratio


def _nearest(share: FloatArray, effect: float) -> FloatArray:
    """Find the most likely pentanomial with this effect for each column of shares, shape (5, n).

    Gives the logarithm of its likelihood over that of the shares themselves, a block; shape (n,).

    With y a block's score over even, the effect is ``E y / sd(y)``; it is `effect` where
    ``E y = k r``, ``r = sqrt(E y^2)``, ``k = effect / sqrt(1 + effect^2)``. At ``c = r`` the root r
    is ``(E y^2 / c + c) / 2``, linear in the probabilities for a given c, under which the answer
    is ``share / (1 + x g)``. So c and x are found in turn.
    """
    over_even = (POINTS - 0.5)[:, None]
    pull = effect / math.sqrt(1 + effect**2)
    scale = np.full(share.shape[1], math.sqrt(np.mean(over_even**2)))
    x = np.zeros(share.shape[1])
    for _ in range(ROUNDS):
        g = over_even - pull * (over_even**2 / scale + scale) / 2
        x = _root(share, g, x)
        tilt = 1 + x * g
        found = np.sqrt(np.sum(share / tilt * over_even**2, axis=0))
        moved = np.abs(found / scale - 1).max(initial=0.0)
        scale = found
        if pull == 0 or moved < STILL_SHARE:
            break
    answer: FloatArray = -np.sum(share * np.log(tilt), axis=0)
    return answer


def _root(share: FloatArray, g: FloatArray, start: FloatArray) -> FloatArray:
    """Solve ``sum_i share_i g_i / (1 + x g_i) = 0`` for x, shape (n,), between the sum's poles.

    The sum falls in x: Newton's method, halving where a step would leave.
    """
    low, high = -1 / g.max(axis=0), -1 / g.min(axis=0)
    x = np.where((low < start) & (start < high), start, 0.0)
    left = np.arange(x.size)  # columns that still move
    for _ in range(ROUNDS):
        part = g[:, left] / (1 + x[left] * g[:, left])
        weighed = share[:, left] * part
        value, slope = weighed.sum(axis=0), (weighed * part).sum(axis=0)
        moves = value**2 > STILL * slope
        left, value, slope = left[moves], value[moves], slope[moves]
        if left.size == 0:
            break
        at = x[left]
        low[left] = np.where(value > 0, at, low[left])
        high[left] = np.where(value > 0, high[left], at)
        step = at + value / slope
        inside = (low[left] < step) & (step < high[left])
        x[left] = np.where(inside, step, (low[left] + high[left]) / 2)
    return x


def log_wealth(score: IntArray) -> FloatArray:
    """Bet against "not worse", block by block, and give the logarithm of the wealth, shape (n,).

    Notes
    -----
    Each stake s multiplies its wealth by ``1 + s (1/2 - x)``, x the block's score from 0 to 1:
    where the mean of x given all before is at least 1/2, no stake gains on average, nor does
    their mean. So wealth beyond 1 / alpha at any time has a chance of at most alpha (Ville; Waudby-
    Smith and Ramdas 2024, Journal of the Royal Statistical Society B 86, 1-27).
    """
    gains = np.log1p(STAKES[:, None] * (0.5 - POINTS))
    wealth: FloatArray = np.logaddexp.reduce(np.cumsum(gains[:, score], axis=1), axis=0)
    return wealth - math.log(len(STAKES))


def design_effects(blocks: Blocks, design: Design) -> FloatArray:
    """How many blocks tell as much as one independent block would, after every block.

    Parameters
    ----------
    blocks : Blocks
    design : Design

    Returns
    -------
    float array, shape (n,)
        At least 1.

    Notes
    -----
    Rao and Scott 1981, Journal of the American Statistical Association 76, 221-230, divide a
    test's statistic by the variance of the mean over what it would be if all were independent.
    The variance is the two-way clustered one (see `sandwich`): products of the residuals of all
    pairs of blocks that share a voter or a prompt, each pair once. A block has two voters, so by
    voter a pair that shares both is counted twice and taken off once. Residuals from the mean make
    it too small, by the share of all pairs that are in it where the design is balanced. Then it is
    stretched (see `stretch`), the degrees of freedom one less than Kish's effective number of
    voters or of prompts, whichever is less.
    """
    n = len(blocks)
    if n == 0:
        return np.ones(0)
    over_even = blocks.score.astype(np.float64) - 2
    count = np.arange(1, n + 1)
    mean = np.cumsum(over_even) / count
    alone = np.cumsum(over_even**2) - count * mean**2

    voter = compact(blocks.voter.ravel())[1].reshape(n, 2)
    prompt = compact(blocks.prompt)[1]
    pair = voter.min(axis=1) * (voter.max() + 1) + voter.max(axis=1)
    two = np.stack([np.ones(n), voter[:, 0] != voter[:, 1]], axis=1)
    prompts = int(prompt.max()) + 1
    kinds = [
        (1, voter, two),
        (-1, pair[:, None], two[:, 1:]),
        (1, prompt[:, None], two[:, :1]),
        (-1, voter * prompts + prompt[:, None], two),
        (1, (pair * prompts + prompt)[:, None], two[:, 1:]),
    ]
    together, shared = np.zeros(n), np.zeros(n)
    squares = []
    for sign, cluster, weight in kinds:
        of_sums, of_products, of_sizes = _within(cluster, weight, over_even)
        together += sign * (of_sums - 2 * mean * of_products + mean**2 * of_sizes)
        shared += sign * of_sizes
        squares.append(of_sizes)
    rest = np.maximum(1 - shared / count**2, LEAST_REST)
    independent = np.where(alone > TINY, alone / np.maximum(1 - 1 / count, 0.5), 1.0)
    effect = np.where(alone > TINY, together / rest / independent, 1.0)
    votes = np.cumsum(two.sum(axis=1))
    effective = np.minimum(votes**2 / squares[0], count**2 / squares[2])
    return np.maximum(effect, 1.0) * stretch(np.maximum(effective - 1, LEAST_DEGREES), design)


def stretch(degrees: FloatArray, design: Design) -> FloatArray:
    """How much larger a design effect is taken to be because few voters or prompts measured it.

    Neither rule decides at less than ``sqrt(2 log(1 / alpha))`` standard errors; there the squared
    ratio of the t quantile with these degrees of freedom and the normal one.
    """
    deviate = math.sqrt(2 * design.log_alarm)
    ratio: FloatArray = stdtrit(degrees, ndtr(deviate)) / deviate
    return ratio**2


def _within(
    cluster: IntArray, weight: FloatArray, values: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Add up over clusters, after every block, shape (n,) each.

    Parameters
    ----------
    cluster, weight : array, shape (n, m)
        The clusters that each block is in, all different, and 0 for one that it is not in.
    values : float array, shape (n,)

    Returns
    -------
    Of each cluster's sum s and size m: s squared, s times m, and m squared.
    """
    flat, size = cluster.ravel(), weight.ravel()
    own = size * np.repeat(values, cluster.shape[1])
    order = np.argsort(flat, kind="stable")
    starts = np.flatnonzero(np.diff(flat[order], prepend=-1))
    lengths = np.diff(np.append(starts, flat.size))

    def before(parts: FloatArray) -> FloatArray:
        """Sum of the same cluster's earlier parts."""
        sums = np.cumsum(parts[order]) - parts[order]
        earlier = np.empty(flat.size)
        earlier[order] = sums - np.repeat(sums[starts], lengths)
        return earlier

    s, m = before(own), before(size)
    growth = (
        own * (2 * s + own),
        own * m + size * s + own * size,
        size * (2 * m + size),
    )
    sums = (np.cumsum(part.reshape(cluster.shape).sum(axis=1)) for part in growth)
    of_sums, of_products, of_sizes = sums
    return of_sums, of_products, of_sizes


def _counts(score: IntArray) -> IntArray:
    """Blocks of each score after every block, shape (n, 5)."""
    counts: IntArray = np.cumsum(np.eye(5, dtype=np.int64)[score], axis=0)
    return counts


def enough(blocks: Blocks) -> BoolArray:
    """After which blocks there are enough of everything to decide, shape (n,)."""
    n = len(blocks)

    def seen(labels: IntArray) -> IntArray:
        """Different labels in the rows up to each."""
        new = np.zeros(labels.size, dtype=np.int64)
        new[np.unique(labels, return_index=True)[1]] = 1
        return np.cumsum(new.reshape(n, -1).sum(axis=1))

    if n == 0:
        return np.zeros(0, dtype=bool)
    enough = np.arange(1, n + 1) >= LEAST_BLOCKS
    enough &= seen(blocks.voter.ravel()) >= LEAST_VOTERS
    enough &= seen(blocks.prompt) >= LEAST_PROMPTS
    return enough


def _verdict(
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
class _Scale:
    """Mean and standard deviation of a block's score from 0 to 1, and what Elo they make.

    Half a block lost and half a block won are added to the deviation: a candidate that always ties
    has one, too.
    """

    n: int
    mean: float
    deviation: float

    @classmethod
    def of(cls, score: IntArray) -> _Scale:
        points = score / 4
        squares = points.size * points.var() + 0.25
        return cls(points.size, float(points.mean()), math.sqrt(float(squares) / (points.size + 1)))

    @property
    def effect(self) -> float:
        return (self.mean - 0.5) / self.deviation

    def elo(self, effect: FloatArray) -> FloatArray:
        return elo_of_score(0.5 + effect * self.deviation)


def elo_of_score(score: ArrayLike) -> FloatArray:
    """Elo points of a mean score from 0 to 1; at most 1,200 either way."""
    kept = np.clip(score, SCORE_MARGIN, 1 - SCORE_MARGIN)
    elo: FloatArray = 400 * np.log10(kept / (1 - kept))
    return elo


def alarm_floor(
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
    low, high = np.zeros(len(count)), np.full(len(count), 0.5)
    for _ in range(20):
        deficit = (low + high) / 2
        gain = STAKES[:, None] * deficit - STAKES[:, None] ** 2 * (deviation**2 + deficit**2) / 2
        wealth = np.logaddexp.reduce(count * gain, axis=0) - math.log(len(STAKES))
        alarmed = wealth >= effects * design.log_alarm
        low, high = np.where(alarmed, low, deficit), np.where(alarmed, deficit, high)
    floor: FloatArray = design.gap * count / effects * (design.gap / 2 - high / deviation)
    return np.where(high < 0.5, floor, NEVER)


def _corrected(
    scale: _Scale, effects: FloatArray, first: int, verdict: str, design: Design
) -> FloatArray:
    """The effect and its interval, corrected for stopping at the last of these blocks."""
    count = np.arange(1.0, scale.n + 1)
    information = np.maximum.accumulate(count / effects)
    lower, upper = design.bounds
    drift = design.gap * (scale.effect + design.gap / 2)
    if not lower < drift * information[first - 1] < upper:
        # With this mean it would have ended at the first look: nothing was chosen by stopping.
        reach = REACH / math.sqrt(information[-1])
        return scale.effect + np.array([0.0, -reach, reach])
    value = drift * information[-1]
    some = np.unique(np.linspace(0, scale.n - 1, FLOOR_POINTS).astype(np.int64))
    floor = alarm_floor(count[some], effects[some], scale.deviation, design)
    floor = np.interp(count, count[some], floor)
    law = stopping(information, first, design.gap, design.bounds, floor, value=value)
    return np.array(median_unbiased(law, verdict, value))
