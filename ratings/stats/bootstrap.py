"""Intervals of the ratings by resampling votes."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from ratings.stats.bradley_terry import (
    DEFAULT_PRIOR,
    ELO_PER_LOGIT,
    MEAN_ELO,
    Anchor,
    Ratings,
    anchor_position,
    curvature_at,
    fit,
    require_prior,
    solve,
    to_elo,
)
from ratings.stats.comparisons import Comparisons, FloatArray, PairCounts, collapsed
from ratings.stats.connectivity import largest_component

# Replicates are fitted in batches whose matrices take about this much memory, in numbers:
# 16 MB, so that the work stays near the processor whatever the number of replicates.
BATCH_NUMBERS = 2_000_000
# Draws that spread less than this, in Elo points, are all the same but for the solver's rounding.
NO_SPREAD = 1e-4


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
    where voters vote often or prompts are few these intervals are too narrow.

    A version outside the core has no vote that resampling could turn around: its draws vary too
    little or not at all. `rating_interval` and the functions in `ranks` allow for that.

    Parameters
    ----------
    votes : Comparisons or PairCounts
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
        The prior is not positive and finite, the anchor is unfit, or replicates is below 1.
    NotConverged

    Notes
    -----
    Resampling n votes with replacement (Efron 1979, Annals of Statistics 7, 1-26) is a
    multinomial draw over the distinct (pair, outcome) cells, so the cost after collapsing does
    not depend on n. All replicates start from the point estimate and are solved together.
    """
    counts = collapsed(votes)
    require_prior(prior)
    if math.isinf(prior):
        raise ValueError("The prior is infinite; the bootstrap needs a finite one.")
    if replicates < 1:
        raise ValueError(f"replicates is {replicates}; it must be at least 1.")
    component = largest_component(counts)
    place = anchor_position(component, anchor, counts.n_versions)
    start = (fit(counts, prior=prior).elo[component.versions] - MEAN_ELO) / ELO_PER_LOGIT
    near = curvature_at(component, counts, start, prior)

    cells = np.stack([counts.first_won, counts.second_won, counts.tied])[:, component.rows]
    seen = cells > 0
    share = cells[seen] / cells.sum()
    size, pairs = component.versions.size, component.rows.size
    batch = max(1, BATCH_NUMBERS // (size**2 + 6 * pairs))
    draws = np.full((replicates, counts.n_versions), np.nan)
    for begin in range(0, replicates, batch):
        end = min(begin + batch, replicates)
        drawn = np.zeros((*cells.shape, end - begin))
        drawn[seen] = rng.multinomial(cells.sum(), share, size=end - begin).T
        first_won, second_won, tied = drawn
        solution = solve(
            component,
            first_won + tied / 2,
            second_won + tied / 2,
            prior=prior,
            start=start,
            start_curvature=near,
        )
        draws[begin:end, component.versions] = to_elo(solution.logits, place, anchor).T
    return draws


def percentile_interval(draws: FloatArray, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
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
    ratings: Ratings, draws: FloatArray, level: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Give each version's interval, open on the side where the votes do not bound it.

    For a version of the core this is the percentile interval. For any other the draws vary too
    little, so each end is at least as far out as the normal interval from the likelihood's
    curvature, and the side on which no vote bounds the version is infinite.

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
    still = ratings.comparable & (~ratings.core | (high - low < NO_SPREAD))
    reach = ndtri((1 + level) / 2) * np.sqrt(np.diagonal(ratings.covariance)[still])
    low[still] = np.minimum(low[still], ratings.elo[still] - reach)
    high[still] = np.maximum(high[still], ratings.elo[still] + reach)
    low[ratings.bounded == "above"] = -np.inf
    high[ratings.bounded == "below"] = np.inf
    return low, high


def require_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"The level is {level}; it must be between 0 and 1, as 0.95.")
