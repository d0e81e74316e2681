"""Online Elo, one vote after another: to show how ratings moved, not to rank by."""

from __future__ import annotations

import math

import numpy as np

from ratings.elo_scale import ELO_PER_LOGIT, MEAN_ELO
from ratings.stats.comparisons import Comparisons, FloatArray, Outcome

# Elo points that one vote can move a rating at most. However many votes there are, a rating goes
# on wandering with a standard deviation of about sqrt(k * ELO_PER_LOGIT / 2): 19 points with 4,
# 53 with the 32 that is common in chess, where strength changes and few games are played.
DEFAULT_STEP = 4.0


def online_elo(
    votes: Comparisons, *, k: float = DEFAULT_STEP, start: float = MEAN_ELO
) -> FloatArray:
    """Update ratings vote by vote in the order of the rows (Elo 1978, The Rating of Chessplayers).

    After each vote version A gains ``k * (points - expected)`` and version B loses as
    much; a win is one point, a tie half of one. A vote with a weight counts that many times.

    Nothing ranks by these numbers. The same votes in another order give other ratings, late
    votes count for more than early ones, `k` decides how far the ratings are from having
    arrived and how much they wander once they have, and they come without intervals. A version's
    quality does not change from vote to vote, so `fit`, to which all votes count alike, wastes
    none of them. Versions that no chain of votes connects are rated too, and cannot be compared.

    Parameters
    ----------
    votes : Comparisons
        Oldest first.
    k : float
        In Elo points.
    start : float
        Rating of a version before its first vote, in Elo points.

    Returns
    -------
    float array, shape (n_versions,)
        Ratings after the last vote, in Elo points; NaN for a version without votes.

    Raises
    ------
    ValueError
        `k` is not positive and finite, or `start` is not finite.
    """
    if not 0 < k < math.inf:
        raise ValueError(f"k is {k}; it must be a positive, finite number of Elo points.")
    if not math.isfinite(start):
        raise ValueError(f"start is {start}; it must be a finite number of Elo points.")
    # Plain floats in lists: each vote needs the ratings that the one before it left.
    elo = [float(start)] * votes.n_versions
    points = np.where(votes.outcome == Outcome.TIE, 0.5, votes.outcome == Outcome.A)
    steps = np.full(votes.n_votes, float(k)) if votes.weight is None else k * votes.weight
    tanh, scale = math.tanh, 0.5 / ELO_PER_LOGIT
    rows = zip(
        votes.a.tolist(),
        votes.b.tolist(),
        # 1 / (1 + exp(-x)) is (1 + tanh(x / 2)) / 2, and tanh overflows nowhere.
        (points - 0.5).tolist(),
        steps.tolist(),
        strict=True,
    )
    for a, b, surplus, step in rows:
        gain = step * (surplus - 0.5 * tanh(scale * (elo[a] - elo[b])))
        elo[a] += gain
        elo[b] -= gain
    ratings = np.full(votes.n_versions, np.nan)
    seen = np.union1d(votes.a, votes.b)
    ratings[seen] = np.array(elo)[seen]
    return ratings
