"""Ties as an answer of their own.

The leaderboard counts a tie as half a win for each side. Davidson (1970, Journal of the American
Statistical Association 65, 317-328) gives a tie a probability of its own, so that the votes also
say how often equals tie. A difference in his ratings is about decided votes only, so it is larger
than on the leaderboard, the more so the more ties there are. Where every pair met equally often
the order is the same; where it is not, who met whom, and who ties with whom, decides the order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import softmax

from ratings.elo_scale import ELO_PER_LOGIT
from ratings.stats.bradley_terry import (
    DEFAULT_PRIOR,
    MAX_ITERATIONS,
    TOLERANCE,
    Anchor,
    NotConverged,
    anchor_position,
    curvature,
    require_prior,
    to_elo,
)
from ratings.stats.comparisons import BoolArray, Comparisons, FloatArray, PairCounts, collapsed
from ratings.stats.connectivity import Component, largest_component

# Standard deviation of the prior on log nu around 0, where equals tie a third of the time. One
# standard deviation is from 2 % ties to 91 %; at 300 votes with 20 % ties it moves log nu by a
# hundredth of its standard error.
TIE_PRIOR = 3.0
# How much a win of the first version, a win of the second and a tie each gain from a larger
# difference: the logarithms of the three chances are half of it, minus half of it, and log nu.
GAIN = np.array([[0.5], [-0.5], [0.0]])


@dataclass(frozen=True, eq=False)
class Davidson:
    """Ratings and how likely ties are.

    Attributes
    ----------
    elo : float array, shape (n_versions,)
        Rating in Elo points, about the odds of a vote that is decided; NaN for a version that is
        not comparable.
    comparable : bool array, shape (n_versions,)
        Whether the version is in the largest connected part of the votes.
    covariance : float array, shape (n_versions, n_versions)
        Inverse curvature at the estimate, under the same anchor, in squared Elo points; NaN for
        a version that is not comparable. It treats votes as independent.
    tie : float
        Davidson's nu: two equal versions tie with probability ``tie / (2 + tie)``.
    iterations : int
        Newton steps taken.
    """

    elo: FloatArray
    comparable: BoolArray
    covariance: FloatArray
    tie: float
    iterations: int


def davidson(
    votes: Comparisons | PairCounts,
    *,
    prior: float = DEFAULT_PRIOR,
    anchor: Anchor | None = None,
) -> Davidson:
    """Rate the versions with ties as an answer of their own.

    Parameters
    ----------
    votes : Comparisons or PairCounts
    prior : float
        Standard deviation of the prior on the ratings in Elo points, as in `fit`. With a finite
        one, log nu has a normal prior too, of standard deviation `TIE_PRIOR` around 0, so that
        votes without a tie, and ties alone, have an answer; ``math.inf`` leaves both out.
    anchor : (int, float), optional
        As in `fit`.

    Returns
    -------
    Davidson

    Raises
    ------
    ValueError
        The prior is not positive, or the anchor is unfit.
    NotConverged
        Plain maximum likelihood was asked for and has no finite answer, or Newton's method did
        not reach one.

    Notes
    -----
    With t in natural logits, i beats j with probability
    ``exp(t_i) / (exp(t_i) + exp(t_j) + nu exp((t_i + t_j) / 2))`` and ties with the share of the
    third term. In (t, log nu) the log-likelihood is concave. It is maximised on the counts of
    each pair by Newton steps shortened as in `bradley_terry.solve`: the bound there holds for
    any exponential family, with d the largest range of a step's effect on the log chances of
    one vote's three answers. A general trust-region search compares values of the likelihood
    and stops short of the answer where these differ by rounding only.
    """
    counts = collapsed(votes)
    component = largest_component(counts)
    require_prior(prior)
    place = anchor_position(component, anchor, counts.n_versions)
    # Answers of each pair: the first version won, the second won, a tie; shape (3, pairs).
    answers = np.stack([counts.first_won, counts.second_won, counts.tied])[:, component.rows]
    if math.isinf(prior):
        _require_an_answer(component, answers)
    logits, log_tie, inverse, iterations = _maximise(component, answers, prior)

    size, n = component.versions.size, counts.n_versions
    elo = np.full(n, np.nan)
    elo[component.versions] = to_elo(logits[:, None], place, anchor)[:, 0]
    comparable = np.zeros(n, dtype=bool)
    comparable[component.versions] = True
    centring = np.eye(size) - (1 / size if place is None else np.eye(size)[place])
    covariance = np.full((n, n), np.nan)
    covariance[np.ix_(component.versions, component.versions)] = (
        ELO_PER_LOGIT**2 * centring @ inverse @ centring.T
    )
    for values in (elo, comparable, covariance):
        values.setflags(write=False)
    return Davidson(
        elo=elo,
        comparable=comparable,
        covariance=covariance,
        tie=math.exp(log_tie),
        iterations=iterations,
    )


def _maximise(
    component: Component, answers: FloatArray, prior: float
) -> tuple[FloatArray, float, FloatArray, int]:
    """Give the ratings in logits, log nu, the ratings' inverse curvature and the steps taken."""
    size, pairs = component.versions.size, component.first.size
    incidence = csr_array(
        (
            np.repeat([1.0, -1.0], pairs),
            (np.concatenate([component.first, component.second]), np.tile(np.arange(pairs), 2)),
        ),
        shape=(size, pairs),
    )
    votes = answers.sum(axis=0)
    precision, tie_precision = (ELO_PER_LOGIT / prior) ** 2, TIE_PRIOR**-2
    if math.isinf(prior):
        tie_precision = 0.0

    logits, log_tie = np.zeros(size), 0.0
    for iteration in range(MAX_ITERATIONS):
        margin = logits[component.first] - logits[component.second]
        chance = softmax(GAIN * margin + [[0.0], [0.0], [log_tie]], axis=0)
        won, lost, tied = chance
        # Sums of answers times the chance of another answer: what is left keeps its digits when
        # one of the chances is close to one.
        slope = (
            answers[0] * (lost + tied / 2)
            - answers[1] * (won + tied / 2)
            + answers[2] * (lost - won) / 2
        )
        tie_slope = answers[2] * (won + lost) - (answers[0] + answers[1]) * tied
        gradient = np.append(
            incidence @ slope - precision * logits, tie_slope.sum() - tie_precision * log_tie
        )
        matrix = np.empty((size + 1, size + 1))
        weight = votes * ((won + lost) * tied + 4 * won * lost) / 4
        matrix[:size, :size] = curvature(component, weight[None, :], prior)[0]
        matrix[:size, size] = matrix[size, :size] = incidence @ (votes * (lost - won) * tied / 2)
        matrix[size, size] = np.sum(votes * tied * (won + lost)) + tie_precision
        step = np.linalg.solve(matrix, gradient)
        if np.abs(step).max() < TOLERANCE:
            inverse = np.linalg.inv(matrix)[:size, :size].astype(np.float64)
            return logits, log_tie, inverse, iteration
        furthest = np.ptp(step[:size])
        change = max(furthest, furthest / 2 + abs(step[size]))
        step *= np.log1p(change) / change
        logits = logits + step[:size] - step[:size].mean()
        log_tie += float(step[size])
    raise NotConverged(
        f"The ratings of {size} versions with ties were not reached in {MAX_ITERATIONS} Newton "
        f"steps; the last step was {np.abs(step).max():.1e} natural logits. Use a stronger prior."
    )


def _require_an_answer(component: Component, answers: FloatArray) -> None:
    """Raise NotConverged unless plain maximum likelihood surely has finite ratings and nu.

    Davidson's condition: in every division of the versions in two, each part has beaten the
    other. Ties do not count here: a version that only won and tied may be any distance ahead.
    """
    size = component.versions.size
    first, second = component.first, component.second
    beat = [(first[answers[0] > 0], second[answers[0] > 0])]
    beat.append((second[answers[1] > 0], first[answers[1] > 0]))
    winner, loser = np.concatenate(beat, axis=1)
    graph = csr_array((np.ones(winner.size), (winner, loser)), shape=(size, size))
    parts = connected_components(graph, directed=True, connection="strong")[0]
    if parts > 1 or answers[2].sum() == 0:
        raise NotConverged(
            "Plain maximum likelihood with ties needs a tie, and wins that lead from every "
            "version to every other and back; give a finite prior."
        )
