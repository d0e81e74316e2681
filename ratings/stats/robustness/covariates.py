"""Contextual Bradley-Terry: ratings with what else sways a voter held constant.

A longer clip, a louder one, the side that clip A is shown on: voters may prefer each of
them whatever the version. The model puts these effects beside the ratings,
``P(A wins) = 1 / (1 + exp(-(t_a - t_b + x e)))``, x the covariates of clip A less those of clip
B and e the effects, so that each is estimated with the others held constant (the home advantage of
Agresti, Categorical Data Analysis, 2nd ed. 2002, section 10.6, and of Turner and Firth 2012,
Journal of Statistical Software 48(9)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import expit

from ratings.elo_scale import ELO_PER_LOGIT, MEAN_ELO
from ratings.significance import LEVEL, normal_reach
from ratings.stats.bootstrap import DEGENERATE_SD_RATIO, require_level
from ratings.stats.bradley_terry import (
    DEFAULT_PRIOR,
    MAX_ITERATIONS,
    TOLERANCE,
    NotConverged,
    require_prior,
)
from ratings.stats.comparisons import BoolArray, Comparisons, FloatArray, IntArray, Outcome
from ratings.stats.connectivity import Component, largest_component
from ratings.stats.sandwich import Clustered, clustered

SIDE_A = "side A"
# Share of a covariate's squares that the versions and the covariates before it must leave
# unexplained. It is far above rounding; an effect told from less would have an interval ten
# thousand times as wide as votes on unrelated versions would give it.
LEAST_UNEXPLAINED = 1e-8
# Share of what is known of an effect that may come from the prior before its interval is not
# taken from the spread of the votes alone. Of 300 votes on an unrelated covariate the share is
# 0.3 %; where a covariate predicts every vote it is 5 % or more however many votes there are, and
# votes that all agree have no spread.
PRIOR_SHARE = 0.02
# Halvings of a step that makes the likelihood worse; a change of a billionth is none.
MAX_HALVINGS = 30
# A likelihood that is worse by less than this share of itself may be the same but for rounding.
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Contextual:
    """Ratings with the covariates held constant, and the covariates' effects.

    Attributes
    ----------
    elo : float array, shape (n_versions,)
        Rating in Elo points, mean 1000, for clips that are alike in every covariate; NaN for a
        version that is not comparable.
    low, high : float array, shape (n_versions,)
        Its interval, infinite on the side where the votes do not bound the version.
    comparable : bool array, shape (n_versions,)
        Whether the version is in the largest connected part of the votes.
    bounded : str array, shape (n_versions,)
        As in `Ratings`.
    names : tuple of str, length c
        The covariates, `SIDE_A` first if it was asked for.
    effect, effect_low, effect_high : float array, shape (c,)
        Elo points that one unit of the covariate more than the other clip is worth, and the
        interval; of `SIDE_A`, what being shown as A is worth.
    covariance : float array, shape (n_versions + c, n_versions + c)
        Of the ratings and then the effects, in squared Elo points, clustered by voter and by
        prompt; NaN for versions that are not comparable.
    degrees : float
        Degrees of freedom of the t quantile that the intervals use.
    level : float
        Of each interval.
    iterations : int
        Newton steps taken.
    """

    elo: FloatArray
    low: FloatArray
    high: FloatArray
    comparable: BoolArray
    bounded: NDArray[np.str_]
    names: tuple[str, ...]
    effect: FloatArray
    effect_low: FloatArray
    effect_high: FloatArray
    covariance: FloatArray
    degrees: float
    level: float
    iterations: int


def contextual(
    votes: Comparisons,
    names: Sequence[str],
    *,
    prior: float = DEFAULT_PRIOR,
    side_a: bool = True,
    level: float = LEVEL,
) -> Contextual:
    """Rate the versions with covariates held constant.

    A tie counts as half a win for each side, as on the leaderboard.

    Parameters
    ----------
    votes : Comparisons
        With a column of `covariates` for each name. Only votes between comparable versions count.
    names : sequence of str
        Of the covariates, in the order of their columns.
    prior : float
        Standard deviation in Elo points, of each rating around the mean and of each effect
        around 0, for the effect of one root mean square of the covariate. It keeps an effect
        finite that predicts every vote; ``math.inf`` for plain maximum likelihood.
    side_a : bool
        Whether to estimate the effect of being shown as A, too.
    level : float
        Of each interval.

    Returns
    -------
    Contextual

    Raises
    ------
    ValueError
        Names and covariates do not match; the effect of a covariate cannot be estimated, because
        it is 0 in every vote or follows from the versions and the covariates before it; the prior
        is not positive or the level not between 0 and 1.
    NotConverged
        Plain maximum likelihood was asked for and has no finite answer, or Newton's method did
        not reach one.

    Notes
    -----
    Newton's method on every vote, in covariates divided by their root mean square; see `climb`.
    Intervals come from the sandwich clustered by voter and by prompt, with a t quantile; for a
    version outside the core, and for an effect of which the prior tells more than `PRIOR_SHARE`,
    they reach at least as far as the normal interval from the likelihood's curvature.
    """
    require_prior(prior)
    require_level(level)
    component = largest_component(votes.collapse())
    if math.isinf(prior) and not component.core.all():
        raise NotConverged(
            "Some versions never lost, or never won, a point against the rest, so plain maximum "
            "likelihood has no finite ratings for them; give a finite prior."
        )
    votes, table, names = _comparable(votes, component, names, side_a)
    scale = np.sqrt(np.mean(table**2, axis=0))
    _require_variation(scale, names)
    model = _ContextualLikelihood(
        votes, component.versions, table / scale, (ELO_PER_LOGIT / prior) ** 2
    )
    _require_identified(model, names)
    estimate, iterations = climb(
        model.likelihood,
        model.newton_step,
        np.zeros(model.size + len(names)),
        f"The ratings of {model.size} versions and the covariates' effects",
    )
    clusters, reach = _errors(model, component, estimate, level)
    # From natural logits and root mean squares to Elo points and the covariates' own units.
    unit = np.append(np.ones(model.size), 1 / scale)
    centre, reach = ELO_PER_LOGIT * estimate * unit, reach * unit
    centre[: model.size] += MEAN_ELO
    low, high = centre - reach, centre + reach
    low[: model.size][component.bounded == "above"] = -np.inf
    high[: model.size][component.bounded == "below"] = np.inf

    n, c = votes.n_versions, len(names)
    place = np.append(component.versions, n + np.arange(c))
    estimates, lows, highs = np.full((3, n + c), np.nan)
    estimates[place], lows[place], highs[place] = centre, low, high
    covariance = np.full((n + c, n + c), np.nan)
    covariance[np.ix_(place, place)] = clusters.covariance * unit * unit[:, None]
    bounded = np.full(n, "", dtype="<U5")
    bounded[component.versions] = component.bounded
    comparable = ~np.isnan(estimates[:n])
    for values in (estimates, lows, highs, covariance, bounded, comparable):
        values.setflags(write=False)
    return Contextual(
        elo=estimates[:n],
        low=lows[:n],
        high=highs[:n],
        comparable=comparable,
        bounded=bounded,
        names=names,
        effect=estimates[n:],
        effect_low=lows[n:],
        effect_high=highs[n:],
        covariance=covariance,
        degrees=clusters.degrees,
        level=level,
        iterations=iterations,
    )


def _errors(
    model: _ContextualLikelihood, component: Component, estimate: FloatArray, level: float
) -> tuple[Clustered, FloatArray]:
    """The clustered covariance of the k ratings and c effects, and how far their intervals reach.

    Both in Elo points for ratings and for one root mean square of a covariate. The reach, shape
    (k + c,), is the sandwich's; for a version outside the core, and where the prior tells much of
    an effect or the votes have no spread, at least that of the likelihood's curvature.
    """
    size, votes = model.size, model.votes
    inverse = np.linalg.inv(model.curvature(estimate)).astype(np.float64)
    inverse[:size, :size] -= inverse[:size, :size].mean()  # for ratings whose mean is fixed
    clusters = clustered(model.scores(estimate), ELO_PER_LOGIT * inverse, votes.voter, votes.prompt)
    reach = clusters.reach(level) * np.sqrt(np.diagonal(clusters.covariance))
    variance = np.diagonal(inverse)
    by_curvature = normal_reach(level) * ELO_PER_LOGIT * np.sqrt(variance)
    from_prior = variance[size:] * model.precision > PRIOR_SHARE
    weak = np.append(~component.core, from_prior) | (reach <= DEGENERATE_SD_RATIO * by_curvature)
    reach[weak] = np.maximum(reach, by_curvature)[weak]
    return clusters, reach


@dataclass(frozen=True, eq=False)
class _ContextualLikelihood:
    """Votes between k versions with a table of c covariates, root mean square 1 each.

    Parameters are the k ratings and then the c effects, in natural logits.
    """

    votes: Comparisons
    versions: IntArray
    table: FloatArray
    precision: float

    @cached_property
    def a(self) -> IntArray:
        """Position of version A, shape (n_votes,)."""
        return np.searchsorted(self.versions, self.votes.a)

    @cached_property
    def b(self) -> IntArray:
        return np.searchsorted(self.versions, self.votes.b)

    @cached_property
    def points(self) -> FloatArray:
        """What version A got of each vote, shape (n_votes,)."""
        outcome = self.votes.outcome
        return np.where(outcome == Outcome.TIE, 0.5, outcome == Outcome.A)

    @property
    def size(self) -> int:
        return self.versions.size

    def margin(self, parameters: FloatArray) -> FloatArray:
        """Advantage of clip A in each vote, shape (n_votes,)."""
        ratings, effects = parameters[: self.size], parameters[self.size :]
        advantage: FloatArray = ratings[self.a] - ratings[self.b] + self.table @ effects
        return advantage

    def likelihood(self, parameters: FloatArray) -> float:
        """Penalised log-likelihood."""
        margin = self.margin(parameters)
        lost = np.logaddexp(0, -margin) * self.points + np.logaddexp(0, margin) * (1 - self.points)
        if self.votes.weight is not None:
            lost *= self.votes.weight
        return -float(lost.sum() + self.precision * np.sum(parameters**2) / 2)

    def newton_step(self, parameters: FloatArray) -> FloatArray:
        """Newton's step to the maximum; it keeps the ratings' mean."""
        gradient = self.gradient(parameters)
        step = np.linalg.solve(self.curvature(parameters), gradient).astype(np.float64)
        step[: self.size] -= step[: self.size].mean()
        return step

    def residual(self, parameters: FloatArray) -> FloatArray:
        """Points less expected points of clip A, times the weight, shape (n_votes,)."""
        margin = self.margin(parameters)
        # Written so that it keeps its digits where the outcome is nearly certain.
        residual = self.points * expit(-margin) - (1 - self.points) * expit(margin)
        return residual if self.votes.weight is None else residual * self.votes.weight

    def gradient(self, parameters: FloatArray) -> FloatArray:
        residual = self.residual(parameters)
        return np.append(self._add_up(residual), residual @ self.table) - (
            self.precision * parameters
        )

    def information(self, weight: FloatArray) -> FloatArray:
        """Add up the squares and products of the votes' regressors, times their weight."""
        size, c = self.size, self.table.shape[1]
        pair = np.bincount(self.a * size + self.b, weights=weight, minlength=size**2).reshape(
            size, size
        )
        matrix = np.empty((size + c, size + c))
        matrix[:size, :size] = np.diag(pair.sum(axis=0) + pair.sum(axis=1)) - pair - pair.T
        weighted = self.table * weight[:, None]
        for column in range(c):
            across = self._add_up(weighted[:, column])
            matrix[:size, size + column] = matrix[size + column, :size] = across
        matrix[size:, size:] = weighted.T @ self.table
        return matrix

    def curvature(self, parameters: FloatArray) -> FloatArray:
        """Build the negative Hessian of the penalised log-likelihood.

        As in `bradley_terry.curvature`, a constant among the ratings makes it invertible without
        a prior and changes no step, because the ratings' mean is zero.
        """
        margin = self.margin(parameters)
        weight = expit(margin) * expit(-margin)
        if self.votes.weight is not None:
            weight = weight * self.votes.weight
        matrix = self.information(weight)
        matrix[np.diag_indices(len(matrix))] += self.precision
        return _fix_mean(matrix, self.size)

    def scores(self, parameters: FloatArray) -> csr_array:
        """Give the derivative of each vote's log-likelihood, shape (n_votes, k + c)."""
        residual = self.residual(parameters)
        n, c = self.table.shape
        effects = np.broadcast_to(self.size + np.arange(c), (n, c))
        return csr_array(
            (
                np.column_stack([residual, -residual, residual[:, None] * self.table]).ravel(),
                np.column_stack([self.a, self.b, effects]).ravel(),
                np.arange(0, (c + 2) * n + 1, c + 2),
            ),
            shape=(n, self.size + c),
        )

    def _add_up(self, values: FloatArray) -> FloatArray:
        """For each version, the sum where it is A less that where it is B."""
        shown_as_a = np.bincount(self.a, weights=values, minlength=self.size)
        shown_as_b = np.bincount(self.b, weights=values, minlength=self.size)
        return (shown_as_a - shown_as_b).astype(np.float64, copy=False)


def climb(
    likelihood: Callable[[FloatArray], float],
    newton_step: Callable[[FloatArray], FloatArray],
    start: FloatArray,
    sought: str,
) -> tuple[FloatArray, int]:
    """Maximise by Newton steps, each halved until the likelihood is no worse.

    A bound that holds for every vote, as in `bradley_terry.solve`, would shorten all steps for
    the sake of a few votes with large covariates.

    Returns
    -------
    parameters : float array
    iterations : int
        Newton steps taken.

    Raises
    ------
    NotConverged
        Naming what was `sought`.
    """
    parameters, value, largest = start, likelihood(start), math.inf
    for iteration in range(MAX_ITERATIONS):
        step = newton_step(parameters)
        largest = float(np.abs(step).max())
        if largest < TOLERANCE:
            return parameters, iteration
        for _ in range(MAX_HALVINGS):
            new_value = likelihood(parameters + step)
            if new_value >= value - ROUNDING * abs(value):
                break
            step = step / 2
        parameters, value = parameters + step, new_value
    raise NotConverged(
        f"{sought} were not reached in {MAX_ITERATIONS} Newton steps; the last step was "
        f"{largest:.1e} natural logits. Use a stronger prior."
    )


def _comparable(
    votes: Comparisons, component: Component, names: Sequence[str], side_a: bool
) -> tuple[Comparisons, FloatArray, tuple[str, ...]]:
    """Keep the votes between comparable versions; give their table of covariates and its names."""
    table = np.empty((votes.n_votes, 0)) if votes.covariates is None else votes.covariates
    if len(names) != table.shape[1]:
        raise ValueError(
            f"There are {len(names)} names and {table.shape[1]} covariates; give each column of "
            "the covariates one name."
        )
    known = np.isin(votes.a, component.versions)
    table = table[known]
    if side_a:
        table = np.column_stack([np.ones(len(table)), table])
        names = (SIDE_A, *names)
    return (votes if known.all() else votes.select(known)), table, tuple(names)


def _require_variation(scale: FloatArray, names: tuple[str, ...]) -> None:
    for name, size in zip(names, scale, strict=True):
        if size == 0:
            raise ValueError(
                f"{name} is the same for both clips in every vote, so its effect cannot be "
                "estimated; leave it out."
            )


def _require_identified(model: _ContextualLikelihood, names: tuple[str, ...]) -> None:
    """Raise ValueError if a covariate follows from the versions and the covariates before it."""
    size = model.size
    squares = model.information(np.ones(model.votes.n_votes))
    within, across = _fix_mean(squares[:size, :size], size), squares[:size, size:]
    unexplained_by_versions = squares[size:, size:] - across.T @ np.linalg.solve(within, across)
    for column, name in enumerate(names):
        before = unexplained_by_versions[:column, :column]
        own = unexplained_by_versions[:column, column]
        unexplained = unexplained_by_versions[column, column] - own @ np.linalg.solve(before, own)
        if unexplained < LEAST_UNEXPLAINED * squares[size + column, size + column]:
            raise ValueError(
                f"{name} follows from the versions and the covariates before it in every vote, "
                "so its effect cannot be estimated; leave it out."
            )


def _fix_mean(matrix: FloatArray, size: int) -> FloatArray:
    """Add a constant among the first `size` rows and columns, where only differences count."""
    fixed = matrix.copy()
    fixed[:size, :size] += np.diagonal(matrix)[:size].mean() / size
    return fixed
