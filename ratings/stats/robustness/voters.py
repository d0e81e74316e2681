"""How sharply each voter judges: whether the order rests on treating all voters alike.

One voter looks closely, another clicks. Here voter v prefers i to j with probability
``1 / (1 + exp(-a_v (t_i - t_j)))``; the discriminant a_v is 1 for the voter of average vote, 0
for one who guesses, and negative for one whose votes go against everybody else's. (Birnbaum's
two-parameter logistic model, in Lord and Novick 1968, Statistical Theories of Mental Test Scores,
with voters as items.) Ratings fitted this way count a sharp voter's votes for more. If they order
the versions as the leaderboard does, the order does not rest on treating all voters alike.

Compare the order and not the distances: a discriminant fitted to few votes fits their noise, too,
and that stretches the ratings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.linalg import LinAlgError
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array
from scipy.special import expit

from ratings.elo_scale import ELO_PER_LOGIT, MEAN_ELO
from ratings.stats.bradley_terry import DEFAULT_PRIOR, fit, require_prior
from ratings.stats.comparisons import (
    BoolArray,
    Comparisons,
    FloatArray,
    IntArray,
    Outcome,
    compact,
)
from ratings.stats.connectivity import Component, largest_component
from ratings.stats.robustness.covariates import climb

# Standard deviation of the discriminants around 1. A voter who guesses is two of them away and
# one who votes against all others four, so a few unlucky votes make neither; and sharpness from
# 0 to 2 is what voters who try may differ by.
DEFAULT_SPREAD = 0.5


@dataclass(frozen=True, eq=False)
class Voters:
    """Ratings that trust voters by how sharply they judge.

    Attributes
    ----------
    elo : float array, shape (n_versions,)
        Rating in Elo points, mean 1000, on the scale of a voter with discriminant 1; NaN for a
        version that is not comparable.
    comparable : bool array, shape (n_versions,)
        Whether the version is in the largest connected part of the votes.
    voter : int array, shape (k,)
        The voters with votes between comparable versions, ascending.
    discriminant : float array, shape (k,)
        Of each of them; their mean, each voter counted once a vote, is 1.
    error : float array, shape (k,)
        Its standard error with the ratings taken as known, votes independent; one that is near
        the prior's standard deviation says that the votes tell little of this voter.
    votes : float array, shape (k,)
        Votes of each of them between comparable versions, or their weight.
    iterations : int
        Steps taken.
    """

    elo: FloatArray
    comparable: BoolArray
    voter: IntArray
    discriminant: FloatArray
    error: FloatArray
    votes: FloatArray
    iterations: int


def discriminants(
    votes: Comparisons, *, prior: float = DEFAULT_PRIOR, spread: float = DEFAULT_SPREAD
) -> Voters:
    """Estimate the ratings and each voter's discriminant together.

    A tie counts as half a win for each side, as on the leaderboard; so a voter who often ties
    gets a lower discriminant than one who decides.

    Parameters
    ----------
    votes : Comparisons
    prior : float
        Standard deviation of the prior on the ratings in Elo points, as in `fit`.
    spread : float
        Standard deviation of the normal prior on the discriminants around 1.

    Returns
    -------
    Voters

    Raises
    ------
    ValueError
        The prior or the spread is not positive, or the spread not finite.
    NotConverged
        Plain maximum likelihood was asked for and has no finite answer, or no maximum was reached.

    Notes
    -----
    Maximises the penalised log-likelihood of (t, a) under the constraint that the mean of a over
    votes is 1, without which only the priors would tell the scale of t from that of a. Votes are
    first added up for each voter and pair. Each Newton step (see `covariates.climb`) solves for t
    and a together, the voters' block eliminated first because it is diagonal. Where the curvature
    is not positive definite its expectation, which is, serves instead (Fisher scoring). The
    search starts from `fit` with every a at 1: together t and a do not make the likelihood
    concave, and what is found is the maximum next to the leaderboard's. Memory is
    needed for 3 numbers for each version and voter.
    """
    require_prior(prior)
    if not 0 < spread < math.inf:
        raise ValueError(f"The spread is {spread}; it must be a positive, finite number.")
    counts = votes.collapse()
    component = largest_component(counts)
    model, voter = _voter_likelihood(votes, component, prior, spread)
    size = component.versions.size
    start = np.ones(size + voter.size)
    start[:size] = (fit(counts, prior=prior).elo[component.versions] - MEAN_ELO) / ELO_PER_LOGIT
    found, iterations = climb(
        model.likelihood,
        model.newton_step,
        start,
        f"The ratings of {size} versions and the discriminants of {voter.size} voters",
    )
    logits, sharpness = model.split(found)

    elo = np.full(votes.n_versions, np.nan)
    elo[component.versions] = MEAN_ELO + ELO_PER_LOGIT * logits
    comparable = ~np.isnan(elo)
    error = 1 / np.sqrt(model.voter_curvature(found))
    for values in (elo, comparable, voter, sharpness, error, model.by_voter):
        values.setflags(write=False)
    return Voters(
        elo=elo,
        comparable=comparable,
        voter=voter,
        discriminant=sharpness,
        error=error,
        votes=model.by_voter,
        iterations=iterations,
    )


@dataclass(frozen=True, eq=False)
class _VoterLikelihood:
    """Votes added up for each voter and pair, m rows; k versions and v voters.

    Attributes
    ----------
    versions : csr_array, shape (m, k)
        1 for the row's first version and -1 for its second.
    member : int array, shape (m,)
        The row's voter, 0 to v - 1.
    first_wins, second_wins : float array, shape (m,)
        A tie as half a win.
    by_voter : float array, shape (v,)
        Votes of each voter.
    precision, voter_precision : float
        Of the priors on the ratings in natural logits and on the discriminants.
    """

    versions: csr_array
    member: IntArray
    first_wins: FloatArray
    second_wins: FloatArray
    by_voter: FloatArray
    precision: float
    voter_precision: float

    def split(self, parameters: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Take the k ratings in natural logits and the v discriminants apart."""
        size = self.versions.shape[1]
        return parameters[:size], parameters[size:]

    def likelihood(self, parameters: FloatArray) -> float:
        """Penalised log-likelihood."""
        logits, sharpness = self.split(parameters)
        margin = sharpness[self.member] * (self.versions @ logits)
        lost = self.first_wins * np.logaddexp(0, -margin)
        lost += self.second_wins * np.logaddexp(0, margin)
        penalty = self.precision * np.sum(logits**2)
        penalty += self.voter_precision * np.sum((sharpness - 1) ** 2)
        return -float(lost.sum() + penalty / 2)

    def voter_curvature(self, parameters: FloatArray) -> FloatArray:
        """Negative second derivative for each discriminant, shape (v,)."""
        logits, sharpness = self.split(parameters)
        ahead = self.versions @ logits
        weight = self._weight(sharpness[self.member] * ahead)
        return _add_up(self.member, weight * ahead**2, sharpness.size) + self.voter_precision

    def newton_step(self, parameters: FloatArray) -> FloatArray:
        """Newton's step; it keeps the ratings' mean and that of the discriminants over votes."""
        logits, sharpness = self.split(parameters)
        size = logits.size
        sharp, ahead = sharpness[self.member], self.versions @ logits
        margin = sharp * ahead
        residual = self.first_wins * expit(-margin) - self.second_wins * expit(margin)
        weight = self._weight(margin)

        slope = self.versions.T @ (sharp * residual) - self.precision * logits
        voter_slope = _add_up(self.member, ahead * residual, sharpness.size)
        voter_slope -= self.voter_precision * (sharpness - 1)
        diagonal = self.voter_curvature(parameters)
        block = (self.versions.T @ (self.versions * (weight * sharp**2)[:, None])).toarray()
        block[np.diag_indices(size)] += self.precision
        # Ratings have mean zero; as in `bradley_terry.curvature` this changes no step.
        block += np.trace(block) / size**2

        expected = weight * margin
        try:
            across, factor = self._eliminate(expected - residual, block, diagonal)
        except LinAlgError:
            across, factor = self._eliminate(expected, block, diagonal)
        move = cho_solve(factor, slope - across @ self._respond(voter_slope, diagonal))
        answer = self._respond(voter_slope - across.T @ move, diagonal)
        return np.append(move - move.mean(), answer)

    def _weight(self, margin: FloatArray) -> FloatArray:
        """Votes times the variance of one vote, shape (m,)."""
        variance: FloatArray = expit(margin) * expit(-margin)
        return (self.first_wins + self.second_wins) * variance

    def _eliminate(
        self, mixed: FloatArray, block: FloatArray, diagonal: FloatArray
    ) -> tuple[FloatArray, tuple[FloatArray, bool]]:
        """Factor what the voters' best response leaves of the ratings' block.

        `mixed`, shape (m,), is each row's curvature between its margin and its voter. Returns
        the curvature between ratings and discriminants, shape (k, v), and the factor;
        LinAlgError if the whole is not positive definite under the constraint.
        """
        rows, voters = self.member.size, diagonal.size
        scattered = csr_array((mixed, self.member, np.arange(rows + 1)), shape=(rows, voters))
        across: FloatArray = (self.versions.T @ scattered).toarray()
        return across, cho_factor(block - across @ self._respond(across.T, diagonal))

    def _respond(self, slope: FloatArray, diagonal: FloatArray) -> FloatArray:
        """Newton's answer of the discriminants to a slope, (v,) or (v, r), their mean kept."""
        free = (slope.T / diagonal).T
        pull = self.by_voter / diagonal
        answer: FloatArray = free - np.multiply.outer(
            pull / (self.by_voter @ pull), self.by_voter @ free
        )
        return answer


def _voter_likelihood(
    votes: Comparisons, component: Component, prior: float, spread: float
) -> tuple[_VoterLikelihood, IntArray]:
    """Add the votes between comparable versions up; give the voters' numbers, too."""
    known = np.isin(votes.a, component.versions)
    votes = votes if known.all() else votes.select(known)
    size = component.versions.size
    a = np.searchsorted(component.versions, votes.a)
    b = np.searchsorted(component.versions, votes.b)
    points = np.where(votes.outcome == Outcome.TIE, 0.5, votes.outcome == Outcome.A)
    weight = np.ones(votes.n_votes) if votes.weight is None else votes.weight
    first_points = np.where(a < b, points, 1 - points)

    voter, member = compact(votes.voter)
    key = (member * size + np.minimum(a, b)) * size + np.maximum(a, b)
    cells, cell = compact(key)
    both = np.stack([cells // size % size, cells % size], axis=1)
    versions = csr_array(
        (np.tile([1.0, -1.0], cells.size), both.ravel(), np.arange(0, 2 * cells.size + 1, 2)),
        shape=(cells.size, size),
    )
    model = _VoterLikelihood(
        versions=versions,
        member=cells // size**2,
        first_wins=_add_up(cell, weight * first_points, cells.size),
        second_wins=_add_up(cell, weight * (1 - first_points), cells.size),
        by_voter=_add_up(member, weight, voter.size),
        precision=(ELO_PER_LOGIT / prior) ** 2,
        voter_precision=spread**-2,
    )
    return model, voter


def _add_up(group: IntArray, values: FloatArray, groups: int) -> FloatArray:
    """Add the values up within each group, shape (groups,)."""
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64, copy=False)
