"""Intervals of the ratings by resampling: clusters of votes for the headline, votes as control."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import chdtri
from threadpoolctl import threadpool_limits

from ratings.elo_scale import ELO_PER_LOGIT, MEAN_ELO
from ratings.significance import LEVEL, normal_reach
from ratings.stats.bradley_terry import (
    DEFAULT_PRIOR,
    Anchor,
    Ratings,
    anchor_position,
    curvature_at,
    fit,
    require_prior,
    solve,
    to_elo,
)
from ratings.stats.comparisons import (
    Comparisons,
    FloatArray,
    IntArray,
    Outcome,
    PairCounts,
    collapsed,
    compact,
)
from ratings.stats.connectivity import Component, largest_component
from ratings.stats.sandwich import Clustered, sandwich

# Replicates are fitted in batches whose matrices take about this much memory, in numbers:
# 16 MB, so that the work stays near the processor whatever the number of replicates.
BATCH_NUMBERS = 2_000_000
BATCH_AT_LEAST, BATCH_AT_MOST = 8, 250
# Draws whose standard deviation is below this share of the asymptotic standard error are
# degenerate: all votes were ties, so resampling can't vary them. (Many ties thin the spread less:
# nine in ten to a third.)
DEGENERATE_SD_RATIO = 0.3
# Votes for which a table of each one's cell is small enough to be quicker than a search.
TABLE_AT_MOST = 2_000_000
# Of a matrix's cells that are not zero, from which on a dense product is the quicker one.
DENSE_FROM = 0.3
# Voters or prompts whose resampled numbers lie close enough together for the processor's cache.
CLUSTERS_AT_ONCE = 4096
# The cores this process may use, as far as the system tells.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = min(8, CORES)

Wins = tuple[FloatArray, FloatArray]
# Draws wins and losses of each pair, shape (p, columns) each, for so many replicates.
Resample = Callable[[np.random.Generator, int], Wins]


def vote_bootstrap(
    votes: Comparisons | PairCounts,
    *,
    rng: np.random.Generator,
    replicates: int = 1000,
    prior: float = DEFAULT_PRIOR,
    anchor: Anchor | None = None,
) -> FloatArray:
    """Draw ratings by resampling the votes with replacement and fitting again.

    Votes are treated as independent. Votes of one voter, and votes on one prompt, are not, so
    where voters vote often or prompts are few these intervals are too narrow; `two_way_bootstrap`
    is for those, and this one is its control.

    A version outside the core has no vote that resampling could turn around: its draws vary too
    little or not at all. `rating_interval` and the functions in `ranks` allow for that.

    Parameters
    ----------
    votes : Comparisons or PairCounts
        Without weights.
    rng : numpy.random.Generator
    replicates : int
    prior : float
        Standard deviation in Elo points, as in `fit`, but finite: a replicate may lack the
        votes that kept a plain maximum-likelihood rating finite.
    anchor : (int, float), optional
        As in `fit`.

    Returns
    -------
    float array, shape (replicates, n_versions)
        Ratings in Elo points; NaN for versions that are not comparable in the votes given. A
        version stays comparable in a replicate that happens to miss its votes.

    Raises
    ------
    ValueError
        The prior is not positive and finite, the anchor is unfit, replicates is below 1, or the
        votes carry weights.
    NotConverged

    Notes
    -----
    Resampling n votes with replacement (Efron 1979, Annals of Statistics 7, 1-26) is a
    multinomial draw over the distinct (pair, outcome) cells, so the cost after collapsing hardly
    depends on n. All replicates start from the point estimate and are solved together.
    """
    refits = _Refits.of(collapsed(votes), prior, anchor, replicates)
    draws = refits.fit_all(_votes_resampled(refits), rng, replicates)
    return refits.spread(to_elo(draws, refits.place, anchor).T)


def two_way_bootstrap(
    votes: Comparisons,
    *,
    rng: np.random.Generator,
    replicates: int = 1000,
    prior: float = DEFAULT_PRIOR,
    anchor: Anchor | None = None,
    clusters: Clustered | None = None,
) -> FloatArray:
    """Draw ratings as they would come out with other voters and other prompts.

    The voters are resampled with replacement and the ratings fitted again, `replicates` times;
    the same is done with the prompts. The two deviations from the estimate are added, which
    counts twice what a voter thinks of a single prompt, and recoloured to the covariance
    ``V = V_voter + V_prompt - V_both`` (see `sandwich.two_way`). The draws keep the skewness and
    the joint law of the versions, so intervals, ranks and probabilities are all taken from them.

    With few clusters a bootstrap is too sure of itself, in two ways that are corrected here: its
    variance is raised by G / (G - 1), G the number of voters or prompts, and its draws get the
    tails of a t distribution, for each version with the degrees of freedom of its own votes:
    one less than the effective number of voters or prompts, whichever is less, and no wider than
    the prior allows. The effective number is ``(sum_g n_g)^2 / sum_g n_g^2``, n_g the
    version's votes in cluster g (Kish 1965, Survey Sampling), so one voter who cast most of the
    votes does not count as many.

    Where there is only one voter nothing says how others would differ, and the votes are
    resampled in that voter's place; the same holds for one prompt. Such an interval is about
    this voter or this prompt.

    Parameters
    ----------
    votes : Comparisons
    rng : numpy.random.Generator
    replicates : int
        Refits of each kind; at least 2.
    prior : float
        In Elo points, finite, as in `vote_bootstrap`.
    anchor : (int, float), optional
        As in `fit`.
    clusters : Clustered, optional
        ``sandwich(votes, fit(votes, prior=prior, anchor=anchor))`` if the caller has it already.

    Returns
    -------
    float array, shape (replicates, n_versions)
        Ratings in Elo points around the estimate, NaN for versions that are not comparable.

    Raises
    ------
    ValueError
        As in `vote_bootstrap`; weights are fine where there are two voters and two prompts.
    NotConverged

    Notes
    -----
    The variance of a mean over two crossed factors is the sum of the two one-way variances less
    the one they share (Owen 2007, Annals of Applied Statistics 1, 386-411; Menzel 2021,
    Econometrica 89, 2143-2188). Resampling both factors at once instead has the variance
    V_voter + V_prompt + V_both, which is too wide. The work grows with the votes only where they
    are added up per resampled cluster: one sparse product.
    """
    if replicates < 2:
        raise ValueError(f"replicates is {replicates}; it must be at least 2.")
    refits = _Refits.of(votes.collapse(), prior, anchor, replicates)
    ratings = fit(refits.counts, prior=prior, anchor=anchor)
    if clusters is None:
        clusters = sandwich(votes, ratings)
    known = ratings.comparable[votes.a] & ratings.comparable[votes.b]
    votes = votes if known.all() else votes.select(known)
    among = refits.component.versions

    total = np.zeros((replicates, among.size))
    degrees = np.full(among.size, np.inf)
    for labels in (votes.voter, votes.prompt):
        names, cluster = compact(labels)
        if names.size < 2:
            resample, correction = _votes_resampled(refits), 1.0
        else:
            resample = _clusters_resampled(refits, votes, cluster, names.size)
            correction = math.sqrt(names.size / (names.size - 1))
            effective = _effective_clusters(votes, cluster, names.size)[among]
            degrees = np.minimum(degrees, np.maximum(effective - 1, 1.0))
        elo = to_elo(refits.fit_all(resample, rng, replicates), refits.place, anchor).T
        total += (elo - elo.mean(axis=0)) * correction
    total = total @ clusters.recolouring[np.ix_(among, among)]
    # One chance for all versions of a draw: where they share the degrees, a multivariate t.
    chance = rng.random((replicates, 1))
    tails = np.ones_like(total)
    limited = np.isfinite(degrees)
    tails[:, limited] = np.sqrt(degrees[limited] / chdtri(degrees[limited], chance))
    # Nobody is less sure than the prior was before the first vote: precisions add up.
    tails /= np.sqrt(1 + (tails * total.std(axis=0) / prior) ** 2)
    return refits.spread(ratings.elo[among] + total * tails)


@dataclass(frozen=True, eq=False)
class _Refits:
    """What all replicates share: the votes' counts and the estimate that each starts from."""

    counts: PairCounts
    component: Component
    place: int | None
    prior: float
    start: FloatArray
    near: FloatArray

    @classmethod
    def of(
        cls, counts: PairCounts, prior: float, anchor: Anchor | None, replicates: int
    ) -> _Refits:
        require_prior(prior)
        if math.isinf(prior):
            raise ValueError("The prior is infinite; the bootstrap needs a finite one.")
        if replicates < 1:
            raise ValueError(f"replicates is {replicates}; it must be at least 1.")
        component = largest_component(counts)
        place = anchor_position(component, anchor, counts.n_versions)
        elo = fit(counts, prior=prior).elo[component.versions]
        start = (elo - MEAN_ELO) / ELO_PER_LOGIT
        near = curvature_at(component, counts, start, prior)
        return cls(counts, component, place, prior, start, near)

    def fit_all(self, resample: Resample, rng: np.random.Generator, replicates: int) -> FloatArray:
        """Fit `replicates` resampled sets of votes: natural logits, shape (k, replicates).

        Each batch has a generator of its own, so the result does not depend on the threads.
        """
        size, pairs = self.start.size, self.component.rows.size
        batch = BATCH_NUMBERS // (size**2 + 6 * pairs)
        batch = min(max(batch, BATCH_AT_LEAST), BATCH_AT_MOST)
        sizes = [min(batch, replicates - begin) for begin in range(0, replicates, batch)]

        def one_batch(rng: np.random.Generator, columns: int) -> FloatArray:
            wins, losses = resample(rng, columns)
            return solve(
                self.component,
                wins,
                losses,
                prior=self.prior,
                start=self.start,
                start_curvature=self.near,
            ).logits

        with ThreadPoolExecutor(THREADS) as threads, threadpool_limits(1, "blas"):
            return np.hstack(list(threads.map(one_batch, rng.spawn(len(sizes)), sizes)))

    def spread(self, elo: FloatArray) -> FloatArray:
        """Columns for all versions from those of the component, shape (replicates, k)."""
        draws = np.full((len(elo), self.counts.n_versions), np.nan)
        draws[:, self.component.versions] = elo
        return draws


def _votes_resampled(refits: _Refits) -> Resample:
    counts, rows = refits.counts, refits.component.rows
    cells = np.stack([counts.first_won, counts.second_won, counts.tied])[:, rows]
    if not np.array_equal(cells, np.floor(cells)):
        raise ValueError(
            "The votes carry weights, so they can't be drawn one by one; resample clusters."
        )
    seen = cells > 0
    numbers = cells[seen].astype(np.int64)

    def resample(rng: np.random.Generator, columns: int) -> Wins:
        drawn = np.zeros((*cells.shape, columns))
        drawn[seen] = draw_multinomial(rng, numbers, columns).T
        first_won, second_won, tied = drawn
        return first_won + tied / 2, second_won + tied / 2

    return resample


def draw_multinomial(rng: np.random.Generator, numbers: IntArray, size: int) -> IntArray:
    """Draw n = numbers.sum() votes with replacement from cells of `numbers` votes, `size` times.

    Exactly multinomial, three times as fast as drawing cell by cell: independent Poisson numbers
    with means a little lower are, given their sum, a multinomial draw of it, nearly always at
    most n, and the few votes that are missing are drawn one by one.

    Returns
    -------
    int array, shape (size, numbers.size)
    """
    n = int(numbers.sum())
    lower = max(0.0, 1 - 3 / math.sqrt(n))
    drawn = rng.poisson(lower * numbers, size=(size, numbers.size))
    while (over := np.flatnonzero(drawn.sum(axis=1) > n)).size:
        drawn[over] = rng.poisson(lower * numbers, size=(over.size, numbers.size))
    missing = n - drawn.sum(axis=1)
    vote = rng.integers(n, size=int(missing.sum()))
    if n <= TABLE_AT_MOST:
        cell = np.repeat(np.arange(numbers.size), numbers)[vote]
    else:
        cell = np.searchsorted(np.cumsum(numbers), vote, side="right")
    place = np.repeat(np.arange(size) * numbers.size, missing) + cell
    drawn += np.bincount(place, minlength=drawn.size).reshape(drawn.shape)
    return drawn


def _clusters_resampled(
    refits: _Refits, votes: Comparisons, cluster: IntArray, n_clusters: int
) -> Resample:
    """Wins of each pair per cluster, to be added up for the clusters drawn."""
    component, n_versions = refits.component, refits.counts.n_versions
    pairs = component.rows.size
    row = np.zeros((n_versions, n_versions), dtype=np.int64)
    first, second = component.versions[component.first], component.versions[component.second]
    row[first, second] = np.arange(pairs)  # wins of the first of the pair
    row[second, first] = np.arange(pairs) + pairs  # and of the second, further down
    # Single precision: exact for halves up to eight million votes of a pair, seven digits beyond.
    points = np.ones(votes.n_votes, np.float32) if votes.weight is None else votes.weight.copy()
    points[votes.outcome == Outcome.TIE] /= 2
    a_scored, b_scored = votes.outcome != Outcome.B, votes.outcome != Outcome.A
    wins = csr_array(
        (
            np.concatenate([points[a_scored], points[b_scored]]),
            (
                np.concatenate(
                    [
                        row[votes.a[a_scored], votes.b[a_scored]],
                        row[votes.b[b_scored], votes.a[b_scored]],
                    ]
                ),
                np.concatenate([cluster[a_scored], cluster[b_scored]]),
            ),
        ),
        shape=(2 * pairs, n_clusters),
    )
    begins = np.arange(0, n_clusters, CLUSTERS_AT_ONCE)
    sizes = np.diff(np.append(begins, n_clusters))
    by_column = wins.tocsc()
    blocks = [
        block.toarray() if block.nnz > DENSE_FROM * math.prod(block.shape) else block.tocsr()
        for block in (by_column[:, i : i + size] for i, size in zip(begins, sizes, strict=True))
    ]

    def resample(rng: np.random.Generator, columns: int) -> Wins:
        drawn = np.zeros((2 * pairs, columns))
        draws_of = rng.multinomial(n_clusters, sizes / n_clusters, size=columns)
        for block, size, draws in zip(blocks, sizes, draws_of.T, strict=True):
            chosen = rng.integers(size, size=int(draws.sum()), dtype=np.int32).astype(np.int64)
            place = chosen * columns + np.repeat(np.arange(columns), draws)
            times = np.bincount(place, minlength=size * columns).astype(points.dtype)
            drawn += block @ times.reshape(size, columns)
        return drawn[:pairs], drawn[pairs:]

    return resample


def _effective_clusters(votes: Comparisons, cluster: IntArray, n_clusters: int) -> FloatArray:
    """Kish's effective number of clusters among each version's votes, shape (n_versions,)."""
    both = np.concatenate([votes.a, votes.b])
    weight = np.ones(votes.n_votes) if votes.weight is None else votes.weight
    numbers = csr_array(
        (np.tile(weight, 2), (np.tile(cluster, 2), both)), shape=(n_clusters, votes.n_versions)
    )
    numbers.sum_duplicates()
    squares = np.bincount(numbers.indices, numbers.data**2, minlength=votes.n_versions)
    votes_of = np.bincount(numbers.indices, numbers.data, minlength=votes.n_versions)
    return np.divide(votes_of**2, squares, out=np.zeros(votes.n_versions), where=squares > 0)


def percentile_interval(draws: FloatArray, level: float = LEVEL) -> tuple[FloatArray, FloatArray]:
    """Take the central share `level` of each version's draws.

    Parameters
    ----------
    draws : float array, shape (replicates, n_versions)
        In Elo points; a version that is not comparable is NaN in every row.
    level : float
        Between 0 and 1.

    Returns
    -------
    low, high : float array, shape (n_versions,)
        In Elo points; NaN for versions that are not comparable.

    Raises
    ------
    ValueError
    """
    require_level(level)
    low, high = np.full((2, draws.shape[1]), np.nan)
    comparable = ~np.isnan(draws[0])
    tail = (1 - level) / 2
    low[comparable], high[comparable] = np.quantile(draws[:, comparable], [tail, 1 - tail], axis=0)
    return low, high


def rating_interval(
    ratings: Ratings, draws: FloatArray, level: float = LEVEL
) -> tuple[FloatArray, FloatArray]:
    """Give each version's interval, open on the side where the votes do not bound it.

    For a version of the core this is the percentile interval. For any other, and for one that
    did nothing but tie, the draws vary too little, so each end is at least as far out as the
    normal interval from the likelihood's curvature; the side on which no vote bounds the version
    is infinite.

    Parameters
    ----------
    ratings : Ratings
    draws : float array, shape (replicates, n_versions)
        From a bootstrap of the same votes with the same prior and anchor, in Elo points.
    level : float

    Returns
    -------
    low, high : float array, shape (n_versions,)
        In Elo points, possibly infinite; NaN for versions that are not comparable.

    Raises
    ------
    ValueError
    """
    low, high = percentile_interval(draws, level)
    error = np.sqrt(np.diagonal(ratings.covariance))
    degenerate = np.zeros(error.size, dtype=bool)
    known = ratings.comparable
    degenerate[known] = ~ratings.core[known] | (
        draws[:, known].std(axis=0) <= DEGENERATE_SD_RATIO * error[known]
    )
    reach = normal_reach(level) * error[degenerate]
    low[degenerate] = np.minimum(low[degenerate], ratings.elo[degenerate] - reach)
    high[degenerate] = np.maximum(high[degenerate], ratings.elo[degenerate] + reach)
    low[ratings.bounded == "above"] = -np.inf
    high[ratings.bounded == "below"] = np.inf
    return low, high


def require_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"The level is {level}; it must be between 0 and 1, as 0.95.")
