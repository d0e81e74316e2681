"""Who is ahead of whom, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtr, ndtri

from ratings.stats.bootstrap import STILL_BELOW, require_level
from ratings.stats.bradley_terry import ELO_PER_LOGIT, Ratings
from ratings.stats.comparisons import (
    BoolArray,
    Comparisons,
    FloatArray,
    IntArray,
    PairCounts,
    collapsed,
)


@dataclass(frozen=True, eq=False)
class Differences:
    """Simultaneous intervals of all differences between versions.

    Attributes
    ----------
    estimate, low, high : float array, shape (n_versions, n_versions)
        Row version minus column version in Elo points; NaN for versions that are not comparable.
    error : float array, shape (n_versions, n_versions)
        Standard error of each difference in Elo points.
    critical : float
        How many standard errors each interval reaches to either side.
    level : float
        Probability with which all the intervals hold together.
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    error: FloatArray
    critical: float
    level: float


@dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks that hold together at the level of the differences.

    Attributes
    ----------
    low, high : int array, shape (n_versions,)
        Best and worst rank that the simultaneous intervals leave to each version, 1 the best;
        0 for a version that is not comparable.
    tie_group : int array, shape (n_versions,)
        1 for the leader and every version not shown to be worse than it, 2 for the best of the
        rest and every other version not shown to be worse than that, and so on; 0 for a
        version that is not comparable. A version with few votes may be in a better group than
        one rated above it.
    differences : Differences
    """

    low: IntArray
    high: IntArray
    tie_group: IntArray
    differences: Differences


@dataclass(frozen=True, eq=False)
class WinRates:
    """How often the row version beats the column version, a tie as half a win.

    Attributes
    ----------
    observed : float array, shape (n_versions, n_versions)
        Share of the pair's votes; NaN where the two never met.
    expected : float array, shape (n_versions, n_versions)
        What the ratings say; NaN where one is not comparable, and on the diagonal.
    votes : float array, shape (n_versions, n_versions)
        Votes of each pair, or their weight.
    overall : float array, shape (n_versions,)
        Observed share of all votes of the version; NaN without votes.
    """

    observed: FloatArray
    expected: FloatArray
    votes: FloatArray
    overall: FloatArray


def difference_intervals(ratings: Ratings, draws: FloatArray, level: float = 0.95) -> Differences:
    """Give intervals for all differences that hold together with probability `level`.

    Parameters
    ----------
    ratings : Ratings
    draws : float array, shape (replicates, n_versions)
        From a bootstrap of the same votes with the same prior, in Elo points; at least two rows.
    level : float

    Returns
    -------
    Differences

    Raises
    ------
    ValueError

    Notes
    -----
    The critical value is the `level` quantile, over the draws, of the largest absolute
    studentised difference (the single-step method of Westfall and Young 1993,
    Resampling-Based Multiple Testing). Where resampling cannot vary a difference (see
    `vote_bootstrap`), its standard error comes from the likelihood's curvature, and the
    critical value is at least Sidak's normal bound for the number of such pairs.
    """
    require_level(level)
    error, still = _difference_errors(ratings, draws)
    versions = np.flatnonzero(ratings.comparable)
    largest = np.zeros(len(draws))
    # One version at a time, so that memory grows with the versions and not with the pairs.
    for place, version in enumerate(versions[:-1]):
        others = versions[place + 1 :]
        shift = np.abs(
            (draws[:, [version]] - draws[:, others]) - (ratings.elo[version] - ratings.elo[others])
        )
        known = error[version, others]
        # An error of zero is an anchor's or an exact one: there is nothing to exceed.
        studentised = np.divide(shift, known, out=np.zeros_like(shift), where=known > 0)
        np.maximum(largest, studentised.max(axis=1), out=largest)
    n_still = max(1, int(np.count_nonzero(still[np.triu_indices(len(still), 1)])))
    sidak = float(ndtri((1 + level ** (1 / n_still)) / 2))
    critical = max(float(np.quantile(largest, level, method="higher")), sidak)
    estimate = ratings.elo[:, None] - ratings.elo[None, :]
    return Differences(
        estimate=estimate,
        low=estimate - critical * error,
        high=estimate + critical * error,
        error=error,
        critical=critical,
        level=level,
    )


def rank(ratings: Ratings, draws: FloatArray, level: float = 0.95) -> Ranks:
    """Give each version's range of ranks and its group of statistical ties.

    A version's best rank is one more than the number of versions shown to be better than it,
    its worst rank the number of versions not shown to be worse. Because the intervals of the
    differences hold together, so do all the ranges (Mogstad, Romano, Shaikh and Wilhelm 2024,
    Review of Economic Studies 91, 476-518).

    Parameters
    ----------
    ratings : Ratings
    draws : float array, shape (replicates, n_versions)
        In Elo points, as for `difference_intervals`.
    level : float
        Probability with which all ranges hold together.

    Returns
    -------
    Ranks

    Raises
    ------
    ValueError
    """
    differences = difference_intervals(ratings, draws, level)
    better = differences.low > 0  # False where NaN: not comparable is never better.
    n_comparable = int(np.count_nonzero(ratings.comparable))
    low = np.where(ratings.comparable, 1 + better.sum(axis=0), 0)
    high = np.where(ratings.comparable, n_comparable - better.sum(axis=1), 0)

    tie_group = np.zeros(len(ratings.elo), dtype=np.int64)
    waiting = ratings.comparable.copy()
    group = 0
    while waiting.any():
        group += 1
        leader = int(np.argmax(np.where(waiting, ratings.elo, -np.inf)))
        tied = waiting & ~better[leader]
        tie_group[tied] = group
        waiting &= ~tied
    return Ranks(low=low, high=high, tie_group=tie_group, differences=differences)


def probability_better(ratings: Ratings, draws: FloatArray) -> FloatArray:
    """Give the probability that the row version is truly better than the column version.

    The share of draws in which it is, an equal draw as half. Where resampling cannot vary the
    difference (see `vote_bootstrap`), the normal probability of its curvature is given instead:
    one vote does not make anybody better with certainty.

    Parameters
    ----------
    ratings : Ratings
    draws : float array, shape (replicates, n_versions)
        In Elo points, as for `difference_intervals`.

    Returns
    -------
    float array, shape (n_versions, n_versions)
        Opposite cells add up to 1; NaN on the diagonal and for versions not comparable.

    Raises
    ------
    ValueError
    """
    error, still = _difference_errors(ratings, draws)
    n = len(ratings.elo)
    probability = np.full((n, n), np.nan)
    versions = np.flatnonzero(ratings.comparable)
    for version in versions:
        difference = draws[:, [version]] - draws[:, versions]
        probability[version, versions] = ((np.sign(difference) + 1) / 2).mean(axis=0)
    estimate = ratings.elo[:, None] - ratings.elo[None, :]
    normal = ndtr(np.divide(estimate, error, out=np.zeros((n, n)), where=error > 0))
    probability = np.where(still, normal, probability)
    np.fill_diagonal(probability, np.nan)
    return probability


def win_rates(votes: Comparisons | PairCounts, ratings: Ratings) -> WinRates:
    """Set the observed win rate of each pair beside the one its ratings expect."""
    counts = collapsed(votes)
    n = counts.n_versions
    met = np.zeros((n, n))
    met[counts.first, counts.second] = met[counts.second, counts.first] = counts.votes
    wins = np.zeros((n, n))
    wins[counts.first, counts.second] = counts.first_wins
    wins[counts.second, counts.first] = counts.second_wins
    expected = expit((ratings.elo[:, None] - ratings.elo[None, :]) / ELO_PER_LOGIT)
    np.fill_diagonal(expected, np.nan)
    return WinRates(
        observed=_share(wins, met),
        expected=expected,
        votes=met,
        overall=_share(wins.sum(axis=1), met.sum(axis=1)),
    )


def _difference_errors(ratings: Ratings, draws: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Standard errors of all differences in Elo points, and where resampling can't give them.

    Both have shape (n_versions, n_versions); the second is true for pairs of which one is
    outside the core, or whose draws spread far less than the likelihood says.
    """
    n = len(ratings.elo)
    if draws.ndim != 2 or draws.shape[1] != n or len(draws) < 2:
        raise ValueError(
            f"The draws have shape {draws.shape}; they must have two rows or more and one "
            f"column for each of the {n} versions."
        )
    comparable = ratings.comparable
    if np.isnan(draws[:, comparable]).any() or not np.isnan(draws[:, ~comparable]).all():
        raise ValueError(
            "The draws and the ratings disagree on which versions are comparable; "
            "make both from the same votes."
        )
    # Centred on the estimate first: a variance from a sum of squares of numbers near 1000 with
    # a spread near 1 would lose its digits.
    centred = draws[:, comparable] - ratings.elo[comparable]
    centred = centred - centred.mean(axis=0)
    product = centred.T @ centred / (len(draws) - 1)
    spread = _variance_of_difference(product)
    curvature = _variance_of_difference(ratings.covariance[np.ix_(comparable, comparable)])
    core = ratings.core[comparable]
    still = ~(core[:, None] & core[None, :]) | (spread <= STILL_BELOW**2 * curvature)
    np.fill_diagonal(still, False)
    error = np.sqrt(np.where(still, np.maximum(spread, curvature), spread))
    np.fill_diagonal(error, 0.0)
    full_error = np.full((n, n), np.nan)
    full_error[np.ix_(comparable, comparable)] = error
    full_still = np.zeros((n, n), dtype=bool)
    full_still[np.ix_(comparable, comparable)] = still
    return full_error, full_still


def _variance_of_difference(covariance: FloatArray) -> FloatArray:
    variance = np.diagonal(covariance)
    of_difference: FloatArray = variance[:, None] + variance[None, :] - 2 * covariance
    return np.maximum(of_difference, 0.0)


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    share = np.full(part.shape, np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share
