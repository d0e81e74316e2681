"""Discriminants against an optimiser, known voters, symmetries and voters who contradict."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from ratings.stats import DEFAULT_PRIOR, ELO_PER_LOGIT, Comparisons, NotConverged, fit
from ratings.stats.robustness import covariates
from ratings.stats.robustness.voters import DEFAULT_SPREAD, Voters, discriminants

pytestmark = pytest.mark.filterwarnings("error")

Simulate = Callable[..., Comparisons]
Float = NDArray[np.float64]


def simulated(
    rng: np.random.Generator, logits: Any, sharpness: Any, n_votes: int, ties: float = 0.0
) -> Comparisons:
    """Draw votes on random pairs, each by a voter of the sharpness given."""
    strength, keen = np.asarray(logits, dtype=float), np.asarray(sharpness, dtype=float)
    a = rng.integers(0, strength.size, n_votes)
    b = (a + rng.integers(1, strength.size, n_votes)) % strength.size
    voter = rng.integers(0, keen.size, n_votes)
    margin = keen[voter] * (strength[a] - strength[b])
    won = rng.random(n_votes) < 1 / (1 + np.exp(-margin))
    outcome = np.where(rng.random(n_votes) < ties, 2, np.where(won, 0, 1))
    return Comparisons(a, b, outcome, voter, voter * 0, strength.size)


def per_vote(
    votes: Comparisons, prior: float, spread: float
) -> tuple[Callable[[Float], float], Float]:
    """The penalised loss as a function of ratings in logits, then discriminants, vote by vote."""
    n = votes.n_versions
    member = np.unique(votes.voter, return_inverse=True)[1]
    points = np.array([1.0, 0.0, 0.5])[votes.outcome]

    def loss(x: Float) -> float:
        margin = x[n:][member] * (x[votes.a] - x[votes.b])
        lost = points * np.logaddexp(0, -margin) + (1 - points) * np.logaddexp(0, margin)
        squares = np.sum((x[n:] - 1) ** 2) / spread**2
        squares += np.sum(x[:n] ** 2) * (ELO_PER_LOGIT / prior) ** 2
        return float(lost.sum() + squares / 2)

    return loss, np.bincount(member) / votes.n_votes


def parameters(result: Voters) -> Float:
    return np.append((result.elo - 1000) / ELO_PER_LOGIT, result.discriminant)


@pytest.mark.parametrize(("prior", "spread"), [(400.0, 0.5), (150.0, 0.1), (math.inf, 1.0)])
def test_agrees_with_an_optimiser_on_every_single_vote(prior: float, spread: float) -> None:
    """SLSQP under the same constraint: the mean discriminant over votes is 1."""
    votes = simulated(
        np.random.default_rng(3), [-0.6, 0.0, 0.2, 0.9], [1.5, 1, 0.2, -0.5, 1.2], 600, ties=0.2
    )
    loss, share = per_vote(votes, prior, spread)
    found = minimize(
        loss,
        np.append(np.zeros(4), np.ones(5)) + np.arange(9) / 100,
        method="SLSQP",
        constraints={"type": "eq", "fun": lambda x: share @ x[4:] - 1},
        options={"ftol": 1e-12, "maxiter": 500},
    ).x
    result = discriminants(votes, prior=prior, spread=spread)
    expected = 1000 + ELO_PER_LOGIT * (found[:4] - found[:4].mean())
    np.testing.assert_allclose(result.elo, expected, atol=0.05)
    np.testing.assert_allclose(result.discriminant, found[4:], atol=5e-4)


def test_sharp_voters_guessers_and_contrarians_differ() -> None:
    true = np.repeat([1.8, 1.1, 0.0, -0.8], [4, 14, 2, 2])
    logits = np.array([-0.8, -0.1, 0.2, 0.7])
    votes = simulated(np.random.default_rng(8), logits, true, 60_000)
    result = discriminants(votes)
    mean = true @ result.votes / votes.n_votes
    assert np.all(np.abs(result.discriminant - true / mean) < 4 * result.error)
    assert np.all(result.error < 0.12)
    sharp, plain, guessing, against = np.split(result.discriminant, [4, 18, 20])
    assert sharp.min() > plain.max() > plain.min() > guessing.max()
    assert guessing.min() > against.max()
    assert against.max() < -0.5
    error = np.sqrt(np.diagonal(fit(votes).covariance))
    assert np.all(np.abs(result.elo - 1000 - ELO_PER_LOGIT * logits * mean) < 4 * error)


def test_ratings_are_nearer_the_truth_where_voters_differ() -> None:
    """What the weighting is for: the order of close versions, over 30 draws."""
    rng = np.random.default_rng(12)
    logits = np.linspace(-0.5, 0.5, 8)
    keen = np.repeat([2.0, 0.0], 15)
    off = np.zeros(2)
    for _ in range(30):
        votes = simulated(rng, logits, keen, 3000)
        for place, elo in enumerate((discriminants(votes).elo, fit(votes).elo)):
            off[place] += 1 - np.corrcoef(elo, logits)[0, 1]
    assert off[0] < 0.8 * off[1]


def test_voters_all_alike_are_the_leaderboard(simulate: Simulate) -> None:
    votes = simulate(np.random.default_rng(1), [0.0, 0.3, 0.6, 1.0], 800)
    result = discriminants(votes, spread=1e-4)
    np.testing.assert_allclose(result.elo, fit(votes).elo, atol=1e-3)
    np.testing.assert_allclose(result.discriminant, 1, atol=1e-4)


def test_a_single_voter_is_the_leaderboard() -> None:
    votes = simulated(np.random.default_rng(1), [0.0, 0.3, 0.6, 1.0], [1.0], 300)
    result = discriminants(votes)
    np.testing.assert_allclose(result.elo, fit(votes).elo, atol=1e-6)
    assert result.discriminant.tolist() == pytest.approx([1.0])


def test_few_votes_stay_near_the_prior() -> None:
    """One vote against everybody else's makes nobody a contrarian."""
    many = simulated(np.random.default_rng(2), [0.0, 1.5], [1.0] * 5, 500)
    votes = Comparisons(
        np.append(many.a, 0),
        np.append(many.b, 1),
        np.append(many.outcome, 0),
        np.append(many.voter, 99),
        np.append(many.prompt, 0),
        2,
    )
    result = discriminants(votes)
    assert result.voter.tolist() == [0, 1, 2, 3, 4, 99]
    assert result.votes[-1] == 1
    assert 0.5 < result.discriminant[-1] < 1
    assert 0.8 * DEFAULT_SPREAD < result.error[-1] < DEFAULT_SPREAD


def test_a_weight_is_so_many_votes() -> None:
    votes = simulated(np.random.default_rng(7), [0.0, 0.3, 0.9], [1.5, 1.0, 0.0], 200, ties=0.1)
    weight = 1 + np.arange(200) % 3
    columns = (votes.a, votes.b, votes.outcome, votes.voter, votes.prompt, 3)
    weighted = discriminants(Comparisons(*columns, weight=weight))
    repeated = discriminants(votes.select(np.repeat(np.arange(200), weight)))
    np.testing.assert_allclose(weighted.elo, repeated.elo, atol=1e-5)
    np.testing.assert_allclose(weighted.discriminant, repeated.discriminant, atol=1e-7)
    np.testing.assert_allclose(weighted.votes, repeated.votes)


def test_versions_that_no_vote_connects_have_no_say() -> None:
    votes = simulated(np.random.default_rng(6), [0.0, 0.3, 0.6], [1.0, 0.5], 300)
    more = Comparisons(
        np.append(votes.a, [3, 3]),
        np.append(votes.b, [4, 4]),
        np.append(votes.outcome, [0, 1]),
        np.append(votes.voter, [0, 7]),
        np.append(votes.prompt, [0, 0]),
        6,
    )
    alone, result = discriminants(votes), discriminants(more)
    assert result.comparable.tolist() == [True, True, True, False, False, False]
    np.testing.assert_array_equal(result.elo[:3], alone.elo)
    assert np.isnan(result.elo[3:]).all()
    assert result.voter.tolist() == [0, 1]
    np.testing.assert_array_equal(result.votes, alone.votes)


def test_voters_who_contradict_each_other_still_have_a_maximum() -> None:
    """With so wide a spread the curvature at the start is not positive definite."""
    votes = simulated(np.random.default_rng(18), [0.0, 1.0, 2.0], [2.0, -2.0, 0.1, -0.1], 120)
    result = discriminants(votes, spread=3.0)
    loss, share = per_vote(votes, DEFAULT_PRIOR, 3.0)
    best, rng = parameters(result), np.random.default_rng(0)
    for _ in range(300):
        move = rng.normal(size=best.size) * 10 ** rng.uniform(-4, -1)
        move[3:] -= share @ move[3:]
        assert loss(best + move) > loss(best)


vote_rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 2), st.integers(0, 4)),
    min_size=1,
    max_size=80,
)


@settings(deadline=None, max_examples=60)
@given(vote_rows)
def test_finite_with_mean_one_and_the_same_for_either_side(
    rows: list[tuple[int, int, int, int]],
) -> None:
    a, step, outcome, voter = np.array(rows).T
    b = (a + step) % 4
    votes = Comparisons(a, b, outcome, voter, voter * 0, 4)
    result = discriminants(votes)
    assert np.isfinite(result.elo[result.comparable]).all()
    assert np.isnan(result.elo[~result.comparable]).all()
    assert result.elo[result.comparable].mean() == pytest.approx(1000)
    assert result.discriminant @ result.votes == pytest.approx(result.votes.sum())
    assert np.all((result.error > 0) & (result.error <= DEFAULT_SPREAD))
    seen = np.array([1, 0, 2])[outcome]
    swapped = discriminants(Comparisons(b, a, seen, voter, voter * 0, 4))
    np.testing.assert_allclose(swapped.elo, result.elo, atol=1e-4)
    np.testing.assert_allclose(swapped.discriminant, result.discriminant, atol=1e-6)


def test_a_search_that_does_not_arrive_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    votes = simulated(np.random.default_rng(3), [0.0, 0.5, 1.0], [2.0, 0.0, 1.0], 300)
    monkeypatch.setattr(covariates, "MAX_ITERATIONS", 2)
    with pytest.raises(NotConverged, match="discriminants of 3 voters were not reached in 2"):
        discriminants(votes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spread": 0.0}, "spread is 0.0; it must be a positive, finite number"),
        ({"spread": math.inf}, "spread is inf"),
        ({"prior": 0.0}, "prior is 0.0; it must be a positive number"),
    ],
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    votes = simulated(np.random.default_rng(3), [0.0, 0.5], [1.0], 20)
    with pytest.raises(ValueError, match=message):
        discriminants(votes, **options)
