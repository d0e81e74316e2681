"""Which pair is worth a vote most: what matchmaking shows next."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from ratings.elo_scale import ELO_PER_LOGIT
from ratings.significance import normal_reach
from ratings.stats.bootstrap import DEGENERATE_SD_RATIO
from ratings.stats.bradley_terry import Ratings
from ratings.stats.comparisons import FloatArray, IntArray

# Full width of a normal 95 % interval in standard errors.
FULL_WIDTH = 2 * normal_reach()


def vote_worth(ratings: Ratings, covariance: FloatArray) -> FloatArray:
    """Say by how much one more vote on each pair is expected to shrink the intervals.

    Parameters
    ----------
    ratings : Ratings
    covariance : float array, shape (n_versions, n_versions)
        How uncertain the ratings are, in squared Elo points: the covariance of bootstrap draws
        of the same votes, or `ratings.covariance`. Cells of versions that are not comparable
        are not read.

    Returns
    -------
    float array, shape (n_versions, n_versions)
        Elo points by which the full widths of all versions' 95 % intervals, their mean held,
        together shrink, whatever the anchor of the fit. Symmetric; NaN on the diagonal and
        where a version is not comparable, which does not mean that
        the pair is worth nothing: the first vote there is worth most of all.

    Raises
    ------
    ValueError
        The covariance has another shape, or a missing value for comparable versions.

    Notes
    -----
    A vote between i and j carries the Fisher information ``w = p (1 - p)`` on their difference,
    p the win rate that the ratings expect. With x = 1 at i and -1 at j, the covariance C becomes
    ``C - w C x x' C / (1 + w x' C x)`` (Sherman and Morrison), whichever side wins. Choosing
    what lowers the sum of the variances most is the A-optimal design; here it is the sum of the
    standard errors, because those are what a reader sees. Glickman and Jensen 2005, Journal of
    Statistical Planning and Inference 127, 279-293, choose pairs by an expected gain in the same
    way, in Kullback-Leibler information. Takes time for ``n_versions ** 3`` numbers.

    Draws of a version outside the core vary too little (see `vote_bootstrap`). It is taken to
    depend on the core's versions as the likelihood's curvature says, and they to vary as
    `covariance` says: two versions that never lost to the core but met each other often stay
    near each other, however unsure their common place is.
    """
    n = len(ratings.elo)
    if covariance.shape != (n, n):
        raise ValueError(
            f"The covariance has shape {covariance.shape}; it must have one row and one column "
            f"for each of the {n} versions."
        )
    versions = np.flatnonzero(ratings.comparable)
    if not np.isfinite(covariance[np.ix_(versions, versions)]).all():
        raise ValueError(
            "The covariance has no value for some versions that the ratings compare; "
            "make both from the same votes."
        )
    spread = _uncertainty(ratings, covariance, versions)
    variance = np.maximum(np.diagonal(spread), 0.0)
    error = np.sqrt(variance)
    elo = ratings.elo[versions]
    worth = np.full((n, n), np.nan)
    for place, version in enumerate(versions):
        won = expit((elo[place] - elo) / ELO_PER_LOGIT)
        information = won * (1 - won) / ELO_PER_LOGIT**2
        moved = spread[:, [place]] - spread  # C x, one column an opponent.
        of_difference = moved[place] - np.diagonal(moved)
        less = information * moved**2 / (1 + information * of_difference)
        after = np.sqrt(np.maximum(variance[:, None] - less, 0.0))
        worth[version, versions] = FULL_WIDTH * (error[:, None] - after).sum(axis=0)
    np.fill_diagonal(worth, np.nan)
    return worth


def _uncertainty(ratings: Ratings, covariance: FloatArray, versions: IntArray) -> FloatArray:
    """Give the versions' covariance, shape (k, k), by curvature where draws can't vary.

    Measured from the core's mean, the curvature says that the others are normal around `slope`
    times the core's ratings, with the covariance `own`. Both hold whatever the core's own
    covariance is. The result is measured from the mean of all.
    """
    everyone = np.arange(versions.size)
    given = _less_mean_of(covariance[np.ix_(versions, versions)], everyone)
    curvature = ratings.covariance[np.ix_(versions, versions)]
    varied = np.diagonal(given) > DEGENERATE_SD_RATIO**2 * np.diagonal(curvature)
    varied &= ratings.core[versions]
    core, others = np.flatnonzero(varied), np.flatnonzero(~varied)
    if core.size == 0:
        return _less_mean_of(curvature, everyone)
    if others.size == 0:
        return given
    spread, curvature = _less_mean_of(given, core), _less_mean_of(curvature, core)
    inside = spread[np.ix_(core, core)]
    along = curvature[np.ix_(others, core)]
    slope = along @ np.linalg.pinv(curvature[np.ix_(core, core)], hermitian=True)
    own = curvature[np.ix_(others, others)] - slope @ along.T
    spread[np.ix_(others, core)] = slope @ inside
    spread[np.ix_(core, others)] = (slope @ inside).T
    spread[np.ix_(others, others)] = own + slope @ inside @ slope.T
    return _less_mean_of(spread, everyone)


def _less_mean_of(covariance: FloatArray, on: IntArray) -> FloatArray:
    """Covariance of the ratings less the mean of the versions `on`."""
    rows = covariance - covariance[on].mean(axis=0)
    centred: FloatArray = rows - rows[:, on].mean(axis=1)[:, None]
    return centred
