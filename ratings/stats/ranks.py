"""Who is ahead of whom, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from ratings.elo_scale import ELO_PER_LOGIT
from ratings.significance import LEVEL, normal_reach
from ratings.stats.bootstrap import DEGENERATE_SD_RATIO, require_level
from ratings.stats.bradley_terry import Ratings
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
    differences : Differences
    """

    low: IntArray
    high: IntArray
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


def difference_intervals(ratings: Ratings, draws: FloatArray, level: float = LEVEL) -> Differences:
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
    error, degenerate = _difference_errors(ratings, draws)
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
    pairs = max(1, int(np.count_nonzero(degenerate[np.triu_indices(len(degenerate), 1)])))
    sidak = normal_reach(level ** (1 / pairs))
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


def rank(ratings: Ratings, draws: FloatArray, level: float = LEVEL) -> Ranks:
    """Give each version's range of ranks.

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
    return Ranks(low=low, high=high, differences=differences)


def win_rates(votes: Comparisons | PairCounts, ratings: Ratings) -> WinRates:
    """Give the observed win rate of each pair beside the one its ratings expect."""
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
        observed=_ratio(wins, met),
        expected=expected,
        votes=met,
        overall=_ratio(wins.sum(axis=1), met.sum(axis=1)),
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
    degenerate = spread <= DEGENERATE_SD_RATIO**2 * curvature
    degenerate |= ~(core[:, None] & core[None, :])
    np.fill_diagonal(degenerate, False)
    error = np.sqrt(np.where(degenerate, np.maximum(spread, curvature), spread))
    np.fill_diagonal(error, 0.0)
    full_error = np.full((n, n), np.nan)
    full_error[np.ix_(comparable, comparable)] = error
    full_degenerate = np.zeros((n, n), dtype=bool)
    full_degenerate[np.ix_(comparable, comparable)] = degenerate
    return full_error, full_degenerate


def _variance_of_difference(covariance: FloatArray) -> FloatArray:
    variance = np.diagonal(covariance)
    of_difference: FloatArray = variance[:, None] + variance[None, :] - 2 * covariance
    return np.maximum(of_difference, 0.0)


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """NaN where the whole is 0."""
    share = np.full(part.shape, np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share
