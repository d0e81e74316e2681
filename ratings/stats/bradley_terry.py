"""Bradley-Terry ratings by penalised maximum likelihood.

The model (Bradley and Terry 1952, Biometrika 39, 324-345): version i beats version j with
probability ``1 / (1 + exp(-(t_i - t_j)))``, t in natural logits. Elo points are the same
number on another scale: 400 points are a factor of ten in the odds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import expit

from ratings.elo_scale import ELO_PER_LOGIT, MEAN_ELO
from ratings.stats.comparisons import BoolArray, Comparisons, FloatArray, PairCounts, collapsed
from ratings.stats.connectivity import Component, largest_component

# Standard deviation of the prior in Elo points: before any vote, odds of 10 to 1 against the
# average version are one standard deviation away. At 300 votes it moves a rating by well under
# a tenth of its standard error.
DEFAULT_PRIOR = 400.0
# Ratings closer than this, in Elo points, are the same but for the solver's rounding.
NO_SPREAD = 1e-4
# Newton's next step in natural logits below which a fit is done: two millionths of an Elo point,
# and still above the rounding error of a hundred million votes.
TOLERANCE = 1e-8
# A fit takes 4 to 15 steps; so many mean that the numbers are beyond double precision.
MAX_ITERATIONS = 100
# Steps with one matrix shared by all replicates before each that needs more gets its own. With
# 100 versions it makes the solving three times as fast; more than this gained nothing measurable
# from 10 votes a version to 20,000.
SHARED_STEPS = 12

Anchor = tuple[int, float]


class NotConverged(ArithmeticError):
    """The ratings asked for do not exist or were not reached; the message says which."""


@dataclass(frozen=True, eq=False)
class Ratings:
    """The point estimate.

    Attributes
    ----------
    elo : float array, shape (n_versions,)
        Rating in Elo points; NaN for a version that is not comparable.
    comparable : bool array, shape (n_versions,)
        Whether the version is in the largest connected part of the votes.
    bounded : str array, shape (n_versions,)
        ``"below"`` or ``"above"`` for a version that the votes bound on that side only (it won
        or lost every vote, or is in a group that did so against the core): its rating is the
        prior's doing. ``""`` for every other version.
    core : bool array, shape (n_versions,)
        The versions whose distances are finite without the prior.
    covariance : float array, shape (n_versions, n_versions)
        Inverse curvature of the penalised likelihood at the estimate, under the same anchor,
        in squared Elo points; NaN for a version that is not comparable. It treats votes as
        independent and serves where resampling cannot vary: outside the core.
    iterations : int
        Newton steps taken.
    gradient_norm : float
        Largest absolute component of the gradient at the estimate, in votes per natural logit.
    """

    elo: FloatArray
    comparable: BoolArray
    bounded: NDArray[np.str_]
    core: BoolArray
    covariance: FloatArray
    iterations: int
    gradient_norm: float


def fit(
    votes: Comparisons | PairCounts, *, prior: float = DEFAULT_PRIOR, anchor: Anchor | None = None
) -> Ratings:
    """Rate the versions.

    A tie counts as half a win for each side. The likelihood is multiplied by a normal prior on
    each rating around the versions' mean, which keeps a version finite that won everything.

    Parameters
    ----------
    votes : Comparisons or PairCounts
    prior : float
        Standard deviation of the prior in Elo points; ``math.inf`` for plain maximum likelihood.
    anchor : (int, float), optional
        A version's index and the rating in Elo points that it shall have. Without it the
        comparable versions' mean is 1000.

    Returns
    -------
    Ratings

    Raises
    ------
    ValueError
        The prior is not positive, or the anchor is out of range, not finite or not comparable.
    NotConverged
        Plain maximum likelihood was asked for and has no finite answer, or Newton's method did
        not reach one.

    Notes
    -----
    Maximises ``sum_pairs w_ij log p_ij + w_ji log p_ji - sum_i t_i^2 / (2 s^2)`` by the damped
    Newton method of `solve`, on the counts of each pair.
    """
    counts = collapsed(votes)
    component = largest_component(counts)
    require_prior(prior)
    place = anchor_position(component, anchor, counts.n_versions)
    if math.isinf(prior) and not component.core.all():
        raise NotConverged(
            "Some versions never lost, or never won, a point against the rest, so plain maximum "
            "likelihood has no finite ratings for them; give a finite prior."
        )
    size = component.versions.size
    solution = solve(
        component,
        counts.first_wins[component.rows][:, None],
        counts.second_wins[component.rows][:, None],
        prior=prior,
        start=np.zeros(size),
    )
    n = counts.n_versions
    elo = np.full(n, np.nan)
    elo[component.versions] = to_elo(solution.logits, place, anchor)[:, 0]
    centring = np.eye(size) - (1 / size if place is None else np.eye(size)[place])
    inverse = np.linalg.inv(curvature_at(component, counts, solution.logits[:, 0], prior))
    covariance = np.full((n, n), np.nan)
    covariance[np.ix_(component.versions, component.versions)] = (
        ELO_PER_LOGIT**2 * centring @ inverse @ centring.T
    )
    comparable = np.zeros(n, dtype=bool)
    comparable[component.versions] = True
    core = np.zeros(n, dtype=bool)
    core[component.versions] = component.core
    bounded = np.full(n, "", dtype="<U5")
    bounded[component.versions] = component.bounded
    for values in (elo, comparable, bounded, core, covariance):
        values.setflags(write=False)
    return Ratings(
        elo=elo,
        comparable=comparable,
        bounded=bounded,
        core=core,
        covariance=covariance,
        iterations=solution.iterations,
        gradient_norm=solution.gradient_norm,
    )


def recentred(
    ratings: Ratings, draws: FloatArray, members: BoolArray
) -> tuple[Ratings, FloatArray]:
    """Move the scale so that some versions have a mean of 1000, in the estimate and in each draw.

    A version that few votes place then adds nothing to how unsure the others are.

    Parameters
    ----------
    ratings : Ratings
    draws : float array, shape (replicates, n_versions)
        From a bootstrap of the same votes, in Elo points.
    members : bool array, shape (n_versions,)
        Comparable versions, at least one.

    Returns
    -------
    ratings : Ratings
    draws : float array, shape (replicates, n_versions)

    Raises
    ------
    ValueError
    """
    if not members.any() or not ratings.comparable[members].all():
        raise ValueError("The mean needs members, all of them comparable versions.")
    within = np.where(members, 1 / np.count_nonzero(members), 0.0)
    known = np.flatnonzero(ratings.comparable)
    centring = np.eye(known.size) - within[known]
    covariance = np.full_like(ratings.covariance, np.nan)
    inner = np.ix_(known, known)
    covariance[inner] = centring @ ratings.covariance[inner] @ centring.T
    elo = ratings.elo - ratings.elo[members].mean() + MEAN_ELO
    moved = draws - draws[:, members].mean(axis=1, keepdims=True) + MEAN_ELO
    for values in (elo, covariance):
        values.setflags(write=False)
    return replace(ratings, elo=elo, covariance=covariance), moved


@dataclass(frozen=True, eq=False)
class Solution:
    """Maximisers for several sets of votes on the same pairs, one set a column.

    Attributes
    ----------
    logits : float array, shape (k, r)
        Ratings in natural logits with mean zero in each column.
    iterations : int
        Most Newton steps that a column needed.
    gradient_norm : float
        Largest absolute gradient component in any column.
    """

    logits: FloatArray
    iterations: int
    gradient_norm: float


def solve(
    component: Component,
    first_wins: FloatArray,
    second_wins: FloatArray,
    *,
    prior: float,
    start: FloatArray,
    start_curvature: FloatArray | None = None,
) -> Solution:
    """Fit every column of wins at once.

    Parameters
    ----------
    component : Component
        With k versions and p pairs.
    first_wins, second_wins : float array, shape (p, r)
        Wins of each pair's first and second version, one column a set of votes.
    prior : float
        Standard deviation in Elo points.
    start : float array, shape (k,)
        Ratings in natural logits, mean zero, from which every column starts.
    start_curvature : float array, shape (k, k), optional
        The curvature at a point near which the answers are expected. The first steps then
        share this one matrix; only columns that need more get a matrix of their own.

    Raises
    ------
    NotConverged

    Notes
    -----
    Each Newton step v is shortened by ``log(1 + d) / d``, d the largest change it makes to any
    difference. The logistic function's third derivative is at most its second, so along v the
    loss is bounded by one exponential in d, and this factor minimises the bound: every step
    improves every column without a line search (Sun and Tran-Dinh 2019, Mathematical
    Programming 178, 145-213, generalised self-concordance with exponent 2). Near the end the
    factor tends to one and convergence is quadratic.
    """
    size, columns = component.versions.size, first_wins.shape[1]
    pairs = np.arange(component.first.size)
    incidence = csr_array(
        (
            np.repeat([1.0, -1.0], pairs.size),
            (np.concatenate([component.first, component.second]), np.tile(pairs, 2)),
        ),
        shape=(size, pairs.size),
    )
    precision = _precision(prior)
    shared = None if start_curvature is None else np.linalg.inv(start_curvature)

    logits = np.tile(start[:, None], (1, columns))
    active = np.arange(columns)
    gradient_norm = 0.0
    for iteration in range(MAX_ITERATIONS):
        current, wins, losses = logits, first_wins, second_wins
        if active.size < columns:
            current, wins, losses = logits[:, active], wins[:, active], losses[:, active]
        odds_against = np.exp(current[component.second] - current[component.first])
        won = 1 / (1 + odds_against)
        lost = odds_against * won
        # wins - votes * won, written so that it keeps its digits when `won` is close to one.
        gradient = incidence @ (wins * lost - losses * won) - precision * current
        if shared is not None and iteration < SHARED_STEPS:
            step = shared @ gradient
        else:
            curvatures = curvature(component, ((wins + losses) * won * lost).T, prior)
            step = np.linalg.solve(curvatures, gradient.T[:, :, None])[:, :, 0].T

        done = np.abs(step).max(axis=0) < TOLERANCE
        if done.any():
            gradient_norm = max(gradient_norm, float(np.abs(gradient[:, done]).max()))
        if done.all():
            return Solution(logits, iteration, gradient_norm)
        active, step = active[~done], step[:, ~done]
        change = np.ptp(step, axis=0)
        step *= np.log1p(change) / change
        logits[:, active] += step - step.mean(axis=0)
    raise NotConverged(
        f"The ratings of {size} versions were not reached in {MAX_ITERATIONS} Newton steps; "
        f"the last step was {np.abs(step).max():.1e} natural logits. Use a stronger prior."
    )


def curvature(component: Component, weight: FloatArray, prior: float) -> FloatArray:
    """Build the negative Hessian of the penalised log-likelihood.

    `weight`, shape (r, p), is votes times the variance of one vote, for each pair; the result
    has shape (r, k, k). Ratings have mean zero, so a constant added to every cell changes no
    step; it is there because without a prior the matrix could not be inverted.
    """
    size = component.versions.size
    diagonal = np.arange(size)
    matrix = np.zeros((len(weight), size, size))
    matrix[:, component.first, component.second] = -weight
    matrix[:, component.second, component.first] = -weight
    matrix[:, diagonal, diagonal] = _precision(prior) - matrix.sum(axis=2)
    matrix += matrix[:, diagonal, diagonal].mean(axis=1)[:, None, None] / size
    return matrix


def curvature_at(
    component: Component, counts: PairCounts, logits: FloatArray, prior: float
) -> FloatArray:
    """Give the curvature of the votes' own likelihood at `logits`, shape (k,), as (k, k)."""
    won = expit(logits[component.first] - logits[component.second])
    weight: FloatArray = counts.votes[component.rows] * won * (1 - won)
    matrix: FloatArray = curvature(component, weight[None, :], prior)[0]
    return matrix


def _precision(prior: float) -> float:
    """Inverse variance of the prior in natural logits; 0 for no prior."""
    return 0.0 if math.isinf(prior) else (ELO_PER_LOGIT / prior) ** 2


def to_elo(logits: FloatArray, place: int | None, anchor: Anchor | None) -> FloatArray:
    """Put ratings in natural logits, shape (k, r), on the Elo scale of the anchor."""
    if place is None or anchor is None:
        zero, elo = logits.mean(axis=0), MEAN_ELO
    else:
        zero, elo = logits[place], anchor[1]
    on_scale: FloatArray = elo + ELO_PER_LOGIT * (logits - zero)
    return on_scale


def require_prior(prior: float) -> None:
    if not prior > 0:
        raise ValueError(f"The prior is {prior}; it must be a positive number of Elo points.")


def anchor_position(component: Component, anchor: Anchor | None, n_versions: int) -> int | None:
    """Find the anchor among the component's versions; ValueError if it can't be one."""
    if anchor is None:
        return None
    version, elo = anchor
    if not 0 <= version < n_versions:
        raise ValueError(f"The anchor is version {version}; it must be from 0 to {n_versions - 1}.")
    if not math.isfinite(elo):
        raise ValueError(f"The anchor's rating is {elo}; it must be a finite number.")
    place = np.flatnonzero(component.versions == version)
    if place.size == 0:
        raise ValueError(
            f"The anchor, version {version}, is not comparable with most versions; "
            "name a version that is connected to them by votes."
        )
    return int(place[0])
