"""Covariates against published figures, an optimiser, clusters counted by hand and bad tables."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm, t

from ratings.stats import ELO_PER_LOGIT, Comparisons, NotConverged, fit
from ratings.stats.robustness.covariates import SIDE_A, contextual
from ratings.stats.sandwich import sandwich, two_way

pytestmark = pytest.mark.filterwarnings("error")

Float = NDArray[np.float64]


def simulated(
    rng: np.random.Generator,
    logits: Any,
    effects: Any,
    n_votes: int,
    *,
    side_a: float = 0.0,
    voter_spread: float = 0.0,
    ties: float = 0.0,
) -> Comparisons:
    """Draw votes with normal covariates; a voter's preference for clip A has `voter_spread`."""
    strength, effect = np.asarray(logits, dtype=float), np.asarray(effects, dtype=float)
    n = strength.size
    one = rng.integers(0, n, n_votes)
    other = (one + rng.integers(1, n, n_votes)) % n
    table = rng.normal(size=(n_votes, effect.size))
    voter, prompt = rng.integers(0, 40, n_votes), rng.integers(0, 60, n_votes)
    preference = side_a + voter_spread * rng.normal(size=40)[voter]
    margin = strength[one] - strength[other] + table @ effect + preference
    won = rng.random(n_votes) < 1 / (1 + np.exp(-margin))
    outcome = np.where(rng.random(n_votes) < ties, 2, np.where(won, 0, 1))
    return Comparisons(one, other, outcome, voter, prompt, n, covariates=table)


# Home wins and away wins of the home team (row) against the visitor (column): American League
# East, 1987, in Agresti, Categorical Data Analysis, 2nd ed. 2002, page 438.
BASEBALL = [
    [None, (4, 3), (4, 2), (4, 3), (6, 1), (4, 2), (6, 0)],  # Milwaukee
    [(3, 3), None, (4, 2), (4, 3), (6, 0), (6, 1), (4, 3)],  # Detroit
    [(2, 5), (4, 3), None, (2, 4), (4, 3), (4, 2), (6, 0)],  # Toronto
    [(3, 3), (5, 1), (2, 5), None, (4, 3), (4, 2), (6, 1)],  # New York
    [(5, 1), (2, 5), (3, 3), (4, 2), None, (5, 2), (6, 0)],  # Boston
    [(2, 5), (3, 3), (3, 4), (4, 3), (4, 2), None, (2, 4)],  # Cleveland
    [(2, 5), (1, 5), (1, 6), (2, 4), (1, 6), (3, 4), None],  # Baltimore
]


def test_home_advantage_in_baseball() -> None:
    """Agresti's table 10.11: home advantage 0.302, standard error 0.131, and the worths.

    The home team is A. The printed standard error is the likelihood's own; with
    every game a cluster of its own the sandwich estimates the same.
    """
    games = [
        (home, away, outcome)
        for home, row in enumerate(BASEBALL)
        for away, cell in enumerate(row)
        if cell is not None
        for outcome in [0] * cell[0] + [1] * cell[1]
    ]
    home, away, outcome = np.array(games).T
    each = np.arange(len(games))
    result = contextual(Comparisons(home, away, outcome, each, each, 7), [], prior=math.inf)
    worth = np.exp(result.elo / ELO_PER_LOGIT)
    np.testing.assert_allclose(
        worth / worth.sum(), [0.220, 0.190, 0.164, 0.157, 0.137, 0.088, 0.044], atol=5e-4
    )
    assert result.names == (SIDE_A,)
    assert result.effect[0] / ELO_PER_LOGIT == pytest.approx(0.3023, abs=5e-5)
    error = math.sqrt(result.covariance[7, 7]) / ELO_PER_LOGIT
    assert error == pytest.approx(0.131, rel=0.02)
    reach = t.ppf(0.975, len(games) - 1) * error
    assert (result.effect_high - result.effect)[0] / ELO_PER_LOGIT == pytest.approx(reach)


@pytest.mark.parametrize("prior", [150.0, 400.0, math.inf])
def test_agrees_with_an_optimiser_on_every_single_vote(prior: float) -> None:
    votes = simulated(
        np.random.default_rng(3), [-0.5, 0.0, 0.2, 0.8], [0.4, -0.3], 800, side_a=0.2, ties=0.2
    )
    assert votes.covariates is not None
    table = np.column_stack([np.ones(800), votes.covariates])
    scale = np.sqrt((table**2).mean(axis=0))
    points = np.array([1.0, 0.0, 0.5])[votes.outcome]

    def loss(x: Float) -> float:
        margin = x[votes.a] - x[votes.b] + table @ x[4:]
        lost = points * np.logaddexp(0, -margin) + (1 - points) * np.logaddexp(0, margin)
        squares = np.sum(x[:4] ** 2) + np.sum((x[4:] * scale) ** 2)
        return float(lost.sum() + squares * (ELO_PER_LOGIT / prior) ** 2 / 2)

    found = minimize(loss, np.zeros(7), method="BFGS", options={"gtol": 1e-4}).x
    result = contextual(votes, ["length", "loudness"], prior=prior)
    expected = 1000 + ELO_PER_LOGIT * (found[:4] - found[:4].mean())
    np.testing.assert_allclose(result.elo, expected, atol=0.01)
    np.testing.assert_allclose(result.effect, ELO_PER_LOGIT * found[4:], atol=0.01)
    assert result.names == (SIDE_A, "length", "loudness")


def test_the_covariance_is_the_sandwich_counted_by_hand() -> None:
    """One row a vote in a dense table, clusters added up in a loop."""
    votes = simulated(np.random.default_rng(5), [0.0, 0.3, 0.6], [0.5], 300, voter_spread=1.0)
    result = contextual(votes, ["length"], level=0.9)
    assert votes.covariates is not None
    rows = np.arange(300)
    design = np.zeros((300, 5))
    design[rows, votes.a], design[rows, votes.b] = 1, -1
    design[:, 3], design[:, 4] = 1, votes.covariates[:, 0]
    parameters = np.append(result.elo - 1000, result.effect) / ELO_PER_LOGIT
    chance = 1 / (1 + np.exp(-design @ parameters))
    scores = design * ((votes.outcome == 0) - chance)[:, None]
    penalty = np.array([1, 1, 1, 1, np.mean(votes.covariates**2)]) * (ELO_PER_LOGIT / 400) ** 2
    bread = np.linalg.inv((design.T * (chance * (1 - chance))) @ design + np.diag(penalty))
    by = []
    for labels in (votes.voter, votes.prompt, votes.voter * 60 + votes.prompt):
        names = np.unique(labels)
        meat = sum(np.outer(s, s) for s in (scores[labels == name].sum(axis=0) for name in names))
        by.append(ELO_PER_LOGIT**2 * bread @ meat @ bread * names.size / (names.size - 1))
    # Combined in units in which all numbers are of one size, as the raising of eigenvalues asks.
    unit = np.append(np.ones(4), np.sqrt(penalty[4] / penalty[0]))
    expected = two_way(*(v * unit * unit[:, None] for v in by))[0] / unit / unit[:, None]
    np.testing.assert_allclose(result.covariance, expected, rtol=1e-6, atol=1e-6)
    assert result.degrees == 39
    reach = t.ppf(0.95, 39) * np.sqrt(np.diagonal(expected))
    np.testing.assert_allclose(result.high - result.elo, reach[:3], rtol=1e-6)
    np.testing.assert_allclose(result.effect - result.effect_low, reach[3:], rtol=1e-6)


def test_without_covariates_it_is_the_leaderboard() -> None:
    votes = simulated(np.random.default_rng(1), [0.0, 0.3, 0.6, 1.0], [], 500, ties=0.3)
    ratings, result = fit(votes), contextual(votes, [], side_a=False)
    np.testing.assert_allclose(result.elo, ratings.elo, atol=1e-6)
    np.testing.assert_allclose(
        result.covariance, sandwich(votes, ratings).covariance, rtol=1e-6, atol=1e-6
    )
    assert result.effect.size == 0


def test_a_version_outside_the_core_has_the_leaderboards_curvature_for_an_interval() -> None:
    """Version 1 won all of its 9 votes: votes that agree have no spread."""
    zero = np.zeros(12, dtype=int)
    votes = Comparisons(
        [1] * 9 + [0, 2, 0], [0] * 9 + [2, 0, 2], [0] * 9 + [0, 0, 2], np.arange(12), zero, 3
    )
    ratings, result = fit(votes), contextual(votes, [], side_a=False)
    normal = norm.ppf(0.975) * math.sqrt(ratings.covariance[1, 1])
    assert result.elo[1] - result.low[1] == pytest.approx(normal, rel=1e-6)
    assert result.high[1] == math.inf


def test_a_few_votes_with_a_huge_covariate_stop_no_step() -> None:
    """Covariates with the heavy tails of a t distribution with 2 degrees of freedom."""
    rng = np.random.default_rng(8)
    plain = simulated(rng, rng.normal(0, 3, 6), [], 1000)
    table = rng.standard_t(2, size=(1000, 2))
    outcome = (rng.random(1000) > expit(table @ [5.0, -8.0])).astype(int)
    votes = Comparisons(plain.a, plain.b, outcome, plain.voter, plain.prompt, 6, covariates=table)
    result = contextual(votes, ["a", "b"], prior=5000.0)
    assert result.iterations < 40
    assert result.effect_low[1] < 5 * ELO_PER_LOGIT < result.effect_high[1]


def test_strengths_and_effects_come_back() -> None:
    logits, effects = np.array([-0.8, 0.0, 0.3, 0.5]), np.array([0.3, -0.2])
    votes = simulated(np.random.default_rng(8), logits, effects, 100_000, side_a=0.15)
    result = contextual(votes, ["length", "loudness"], level=0.9999)
    true = ELO_PER_LOGIT * np.append(0.15, effects)
    assert np.all((result.effect_low < true) & (true < result.effect_high))
    true = 1000 + ELO_PER_LOGIT * logits
    assert np.all((result.low < true) & (true < result.high))
    assert np.all(result.high - result.low < 30)


def test_a_version_with_longer_clips_is_rated_for_clips_alike() -> None:
    """All versions are equal, version 0 makes longer clips, and voters like those."""
    rng = np.random.default_rng(2)
    plain = simulated(rng, [0.0, 0.0, 0.0], [0.0], 20_000)
    length = rng.normal(size=plain.n_votes) + (plain.a == 0.0) - (plain.b == 0.0)
    outcome = (rng.random(plain.n_votes) > 1 / (1 + np.exp(-0.5 * length))).astype(int)
    votes = Comparisons(
        plain.a, plain.b, outcome, plain.voter, plain.prompt, 3, covariates=length[:, None]
    )
    assert fit(votes).elo[0] - 1000 > 40
    result = contextual(votes, ["length"])
    assert result.low[0] < 1000 < result.high[0]
    assert abs(result.elo[0] - 1000) < 12
    assert result.effect[1] == pytest.approx(0.5 * ELO_PER_LOGIT, abs=8)


def test_intervals_hold_though_every_voter_leans_in_a_way_of_their_own() -> None:
    """40 voters of 40 votes; with votes taken as independent about 70 % would cover."""
    rng = np.random.default_rng(11)
    covered = np.zeros(2)
    for _ in range(200):
        votes = simulated(rng, [0.0, 0.5], [0.3], 1600, side_a=0.1, voter_spread=0.6)
        result = contextual(votes, ["length"])
        # The chance is 1 / (1 + e^-x) for a voter without such a preference; averaged over voters
        # the logit shrinks by about 1 / sqrt(1 + 0.346 * 0.6 ** 2).
        true = ELO_PER_LOGIT * np.array([0.1, 0.3]) / math.sqrt(1 + 0.346 * 0.36)
        covered += (result.effect_low < true) & (true < result.effect_high)
    assert np.all((covered > 180) & (covered < 200))


def test_per_unit_whatever_the_unit() -> None:
    votes = simulated(np.random.default_rng(4), [0.0, 0.3, 0.6], [0.5, 0.1], 400)
    assert votes.covariates is not None
    seconds = Comparisons(
        votes.a,
        votes.b,
        votes.outcome,
        votes.voter,
        votes.prompt,
        3,
        covariates=votes.covariates * [1e-6, 1e6],
    )
    one, other = contextual(votes, ["a", "b"]), contextual(seconds, ["a", "b"])
    unit = np.array([1, 1e6, 1e-6])
    np.testing.assert_allclose(other.effect, one.effect * unit, rtol=1e-6)
    np.testing.assert_allclose(other.effect_low, one.effect_low * unit, rtol=1e-6)
    np.testing.assert_allclose(other.high, one.high, atol=1e-4)


def test_swapping_sides_turns_the_effect_of_side_a_and_nothing_else() -> None:
    votes = simulated(np.random.default_rng(9), [0.0, 0.3, 0.6], [0.5], 400, side_a=0.3, ties=0.2)
    assert votes.covariates is not None
    swapped = Comparisons(
        votes.b,
        votes.a,
        np.array([1, 0, 2])[votes.outcome],
        votes.voter,
        votes.prompt,
        3,
        covariates=-votes.covariates,
    )
    one, other = contextual(votes, ["length"]), contextual(swapped, ["length"])
    np.testing.assert_allclose(other.elo, one.elo, atol=1e-5)
    np.testing.assert_allclose(other.effect, one.effect * [-1, 1], atol=1e-5)
    np.testing.assert_allclose(other.high, one.high, atol=1e-4)


def test_a_weight_is_so_many_votes() -> None:
    votes = simulated(np.random.default_rng(7), [0.0, 0.3, 0.6], [0.5], 200)
    # Where A won thirty times as much, so that unweighted votes would object to the answer.
    weight = np.where(votes.outcome == 0, 30, 1 + np.arange(200) % 3)
    weighted = Comparisons(
        votes.a,
        votes.b,
        votes.outcome,
        votes.voter,
        votes.prompt,
        3,
        weight=weight,
        covariates=votes.covariates,
    )
    repeated = votes.select(np.repeat(np.arange(200), weight))
    # The prior's unit is the covariate's root mean square over rows, which differ: leave it out.
    one = contextual(weighted, ["length"], prior=math.inf)
    other = contextual(repeated, ["length"], prior=math.inf)
    np.testing.assert_allclose(one.elo, other.elo, atol=1e-5)
    np.testing.assert_allclose(one.effect, other.effect, atol=1e-5)


def test_versions_that_no_vote_connects_have_no_say() -> None:
    votes = simulated(np.random.default_rng(6), [0.0, 0.3, 0.6], [0.5], 300)
    assert votes.covariates is not None
    more = Comparisons(
        np.append(votes.a, [3, 3]),
        np.append(votes.b, [4, 4]),
        np.append(votes.outcome, [0, 1]),
        np.append(votes.voter, [77, 78]),
        np.append(votes.prompt, [77, 78]),
        6,
        covariates=np.append(votes.covariates, [[1e3], [-1e3]], axis=0),
    )
    alone, result = contextual(votes, ["length"]), contextual(more, ["length"])
    assert result.comparable.tolist() == [True, True, True, False, False, False]
    assert np.isnan(result.low).tolist() == [False, False, False, True, True, True]
    np.testing.assert_array_equal(result.elo[:3], alone.elo)
    np.testing.assert_array_equal(result.effect_low, alone.effect_low)
    assert np.isnan(result.covariance[3:6]).all()
    np.testing.assert_array_equal(result.covariance[6:, 6:], alone.covariance[3:, 3:])


def test_a_version_that_won_everything_is_open_above() -> None:
    votes = simulated(np.random.default_rng(6), [0.0, 0.3, 0.6], [0.5], 300)
    a, b = votes.a == 2, votes.b == 2
    outcome = np.where(a, 0, np.where(b, 1, votes.outcome))
    result = contextual(
        Comparisons(
            votes.a,
            votes.b,
            outcome,
            votes.voter,
            votes.prompt,
            3,
            covariates=votes.covariates,
        ),
        ["length"],
    )
    assert result.bounded.tolist() == ["", "", "below"]
    assert result.high[2] == math.inf
    assert np.isfinite(result.high[:2]).all()
    assert result.elo[2] - result.low[2] > 100


def test_an_effect_that_decides_every_vote_is_wide_and_finite() -> None:
    """All 40 votes go to A: the prior alone says that the effect is no larger."""
    zero = np.zeros(40, dtype=int)
    votes = Comparisons([0, 1] * 20, [1, 0] * 20, zero, np.arange(40), zero, 2)
    result = contextual(votes, [])
    np.testing.assert_allclose(result.elo, 1000, atol=1e-6)
    assert 400 < result.effect[0] < 1000
    assert result.effect_low[0] > 100
    assert result.effect_high[0] - result.effect[0] > 250
    with pytest.raises(
        NotConverged, match="ratings of 2 versions and the covariates' effects were not"
    ):
        contextual(votes, [], prior=math.inf)


def test_plain_likelihood_without_an_answer_says_so() -> None:
    votes = Comparisons([0, 1, 0], [1, 0, 1], [0, 1, 0], [0, 1, 2], [0, 1, 2], 2)
    with pytest.raises(NotConverged, match="give a finite prior"):
        contextual(votes, [], prior=math.inf)


# Covariates that nothing can be told of ---------------------------------------------------------


def with_table(make: Any) -> Comparisons:
    """300 votes of four versions with the covariates that `make(votes, rng)` says."""
    rng = np.random.default_rng(0)
    votes = simulated(rng, [0.0, 0.1, 0.2, 0.3], [0.0], 300)
    return Comparisons(
        votes.a,
        votes.b,
        votes.outcome,
        votes.voter,
        votes.prompt,
        4,
        covariates=make(votes, rng.normal(size=300)),
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda votes, x: np.stack([x, 0 * x], 1), "b is the same for both clips in every vote"),
        (lambda votes, x: np.stack([x, 3 * x], 1), "b follows from the versions and the cov"),
        (lambda votes, x: np.stack([0 * x + 2, x], 1), "a follows from"),
        (lambda votes, x: np.stack([x, 9 - 5 * x], 1), "b follows from"),
        # Versions 0 and 2 make clips of 5 seconds, the others of 8.
        (lambda votes, x: np.stack([x, 3.0 * (votes.a % 2 - votes.b % 2)], 1), "b follows"),
    ],
)
def test_what_cannot_be_told_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contextual(with_table(make), ["a", "b"])


def test_a_constant_is_fine_where_it_is_the_only_one() -> None:
    votes = with_table(lambda votes, x: np.stack([x, 0 * x + 2], 1))
    alone = contextual(votes, ["a", "b"], side_a=False)
    sides = contextual(with_table(lambda votes, x: x[:, None]), ["a"])
    np.testing.assert_allclose(alone.effect[::-1] * [2, 1], sides.effect, atol=1e-5)


def test_a_side_that_the_version_decides_cannot_be_told() -> None:
    votes = Comparisons([0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 2], range(4), range(4), 2)
    with pytest.raises(ValueError, match="side A follows from the versions"):
        contextual(votes, [])


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "0 names and 1 covariates"),
        (["a", "b"], {}, "2 names and 1 covariates"),
        (["a"], {"prior": -1.0}, "prior is -1.0; it must be a positive number"),
        (["a"], {"level": 0.0}, "level is 0.0; it must be between 0 and 1"),
    ],
)
def test_bad_options(names: list[str], options: dict[str, float], message: str) -> None:
    votes = with_table(lambda votes, x: x[:, None])
    with pytest.raises(ValueError, match=message):
        contextual(votes, names, **options)  # type: ignore[arg-type]
