"""The headline's intervals: clustered covariances, their combination, draws made from them."""

import math
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ratings.stats import ELO_PER_LOGIT, bootstrap, fit
from ratings.stats import sandwich as sandwich_module
from ratings.stats.bootstrap import (
    percentile_interval,
    rating_interval,
    two_way_bootstrap,
    vote_bootstrap,
)
from ratings.stats.comparisons import Comparisons
from ratings.stats.sandwich import (
    Clustered,
    bread,
    clustered,
    one_way,
    sandwich,
    two_way,
    vote_scores,
)
from tests.ratings.stats.covariances import sandwich_and_its_parts

pytestmark = pytest.mark.filterwarnings("error")

Simulate = Callable[..., Comparisons]
FloatArray = NDArray[np.float64]
FIRST, SECOND, TIE = 0, 1, 2


def with_tastes(
    rng: np.random.Generator,
    logits: list[float],
    voters: int,
    votes_each: int,
    prompts: int,
    taste: float,
) -> Comparisons:
    """Votes of voters who each have a taste for each version, and so has each prompt.

    `taste` is its standard deviation in natural logits.
    """
    strength = np.array(logits)
    n, count = strength.size, voters * votes_each
    voter = np.repeat(np.arange(voters), votes_each)
    prompt = rng.integers(prompts, size=count)
    a = rng.integers(n, size=count)
    b = (a + rng.integers(1, n, size=count)) % n
    liking = strength + rng.normal(0, taste, (voters, 1, n)) + rng.normal(0, taste, (1, prompts, n))
    margin = liking[voter, prompt, a] - liking[voter, prompt, b]
    a_wins = rng.random(count) < 1 / (1 + np.exp(-margin))
    return Comparisons(a, b, np.where(a_wins, FIRST, SECOND), voter, prompt, n)


def repeated(votes: Comparisons, times: int) -> Comparisons:
    """Every vote cast so many times by the same voter on the same prompt."""
    return votes.select(np.tile(np.arange(votes.n_votes), times))


def renamed(
    votes: Comparisons,
    *,
    versions: NDArray[np.int64] | None = None,
    voters: NDArray[np.int64] | None = None,
    prompts: NDArray[np.int64] | None = None,
) -> Comparisons:
    return Comparisons(
        votes.a if versions is None else versions[votes.a],
        votes.b if versions is None else versions[votes.b],
        votes.outcome,
        votes.voter if voters is None else voters[votes.voter],
        votes.prompt if prompts is None else prompts[votes.prompt],
        votes.n_versions,
    )


def widths(votes: Comparisons, seed: int = 0, replicates: int = 1000) -> FloatArray:
    """Lengths of the headline's 95 % intervals, shape (n_versions,)."""
    rng = np.random.default_rng(seed)
    low, high = percentile_interval(two_way_bootstrap(votes, rng=rng, replicates=replicates))
    return high - low


# Sandwich --------------------------------------------------------------------------------------


def dense_covariances(votes: Comparisons, elo: FloatArray, prior: float) -> list[FloatArray]:
    """By voter, prompt, both and vote, added up vote by vote, for ratings whose mean is fixed."""
    n = votes.n_versions
    t = elo / ELO_PER_LOGIT
    hessian = np.eye(n) * (ELO_PER_LOGIT / prior) ** 2
    scores = []
    for a, b, outcome in zip(votes.a, votes.b, votes.outcome, strict=True):
        towards = np.zeros(n)
        towards[a], towards[b] = 1.0, -1.0
        chance = 1 / (1 + math.exp(t[b] - t[a]))
        hessian += chance * (1 - chance) * np.outer(towards, towards)
        scores.append(((1.0, 0.0, 0.5)[outcome] - chance) * towards)
    centring = np.eye(n) - 1 / n
    inverse = np.linalg.pinv(centring @ hessian @ centring, hermitian=True)
    found = []
    both = 1000 * votes.voter + votes.prompt
    for label in (votes.voter, votes.prompt, both, np.arange(votes.n_votes)):
        clusters = np.unique(label)
        total = np.zeros((n, n))
        for cluster in clusters:
            rows = np.flatnonzero(label == cluster)
            moved = ELO_PER_LOGIT * inverse @ np.sum([scores[row] for row in rows], axis=0)
            total += np.outer(moved, moved)
        found.append(total * clusters.size / (clusters.size - 1))
    return found


@pytest.mark.parametrize("prior", [80.0, 400.0, math.inf])
def test_one_way_covariances_agree_with_a_loop_over_votes(simulate: Simulate, prior: float) -> None:
    votes = simulate(np.random.default_rng(4), [0.0, 0.6, -0.3, 1.0], 120)
    # Fewer voters, so that some vote twice on a prompt.
    votes = renamed(votes, voters=np.arange(50) // 5)
    ratings = fit(votes, prior=prior)
    found = sandwich_and_its_parts(votes, ratings)
    by_voter, by_prompt, by_both, by_vote = dense_covariances(votes, ratings.elo, prior)
    np.testing.assert_allclose(found.by_voter, by_voter, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.by_prompt, by_prompt, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.by_both, by_both, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.by_vote, by_vote, rtol=1e-8, atol=1e-8)
    assert np.abs(by_both - by_vote).max() > 0.05 * by_vote.max()
    voters, prompts = np.unique(votes.voter).size, np.unique(votes.prompt).size
    assert (found.voters, found.prompts) == (voters, prompts)
    assert found.degrees == min(voters, prompts) - 1


def test_variance_of_the_log_odds_clustered_by_voter_by_hand() -> None:
    """4 voters, 5 prompts, every voter once on every prompt; 5, 4, 3 and 0 wins of 5.

    The derivative of the log odds is 1 / (n p q), so with p = 0.6 the variance by voter is
    ``4/3 * (2^2 + 1^2 + 0^2 + 3^2) / (20 * 0.24)^2``; the wins on the prompts are 3, 3, 3, 2 and
    1 of 4, and each vote is off by 0.4 or 0.6.
    """
    wins = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    voter, prompt = np.indices(wins.shape).reshape(2, -1)
    zero = np.zeros(20, dtype=int)
    votes = Comparisons(zero, zero + 1, 1 - wins.ravel(), voter, prompt, 2)
    ratings = fit(votes, prior=math.inf)
    found = sandwich_and_its_parts(votes, ratings)

    def of_log_odds(covariance: FloatArray) -> float:
        return float(np.array([1, -1]) @ covariance @ np.array([1, -1])) / ELO_PER_LOGIT**2

    assert ratings.elo[0] - ratings.elo[1] == pytest.approx(ELO_PER_LOGIT * math.log(1.5))
    information = 20 * 0.24
    by_voter, by_prompt = 4 / 3 * 14 / information**2, 5 / 4 * 3.2 / information**2
    by_both = 20 / 19 / information
    assert of_log_odds(found.by_voter) == pytest.approx(by_voter, rel=1e-6)
    assert of_log_odds(found.by_prompt) == pytest.approx(by_prompt, rel=1e-6)
    assert of_log_odds(found.by_both) == pytest.approx(by_both, rel=1e-6)
    assert of_log_odds(found.covariance) == pytest.approx(by_voter + by_prompt - by_both, rel=1e-6)


def test_a_mean_of_crossed_numbers_by_hand() -> None:
    """`clustered` on any scores: the mean of the table 1 2 / 3 6, rows and columns its clusters.

    Deviations from 3 are -2 -1 / 0 3: rows add up to -3 and 3, columns to -2 and 2.
    """
    deviations = np.array([[-2.0], [-1.0], [0.0], [3.0]])
    scores = csr_array(deviations)
    given = scores, np.eye(1) / 4, np.array([0, 0, 1, 1]), np.array([5, 9, 5, 9])
    by_voter, by_prompt, by_both = one_way(*given)
    assert by_voter[0, 0] == pytest.approx(2 * 18 / 16)
    assert by_prompt[0, 0] == pytest.approx(2 * 8 / 16)
    assert by_both[0, 0] == pytest.approx(4 / 3 * 14 / 16)
    found = clustered(*given)
    assert found.covariance[0, 0] == pytest.approx(2.25 + 1 - 14 / 12)
    assert found.degrees == 1


def test_a_quantile_of_t_from_the_tables() -> None:
    """Student's t at 97.5 %: 2.228 with 10 degrees of freedom, 12.706 with one."""
    reaches = []
    for clusters in (2, 11):
        label = np.arange(clusters)
        found = clustered(csr_array(np.ones((clusters, 1))), np.eye(1), label, label)
        reaches.append(found.reach(0.95))
    assert reaches == [pytest.approx(12.706, abs=5e-4), pytest.approx(2.228, abs=5e-4)]


def test_influence_is_what_leaving_a_vote_out_moves(simulate: Simulate) -> None:
    votes = simulate(np.random.default_rng(6), [0.0, 0.5, -0.5, 0.2], 1500)
    ratings = fit(votes)
    influence = vote_scores(votes, ratings) @ bread(ratings)
    for row in range(0, 1500, 150):
        without = fit(votes.select(np.arange(1500) != row))
        np.testing.assert_allclose(influence[row], ratings.elo - without.elo, rtol=0.02, atol=1e-3)


def test_versions_that_are_not_comparable_have_no_variance() -> None:
    """0 and 1 are one island with three votes, 2 and 3 another with two, and nobody saw 4."""
    votes = Comparisons(
        [0, 0, 1, 2, 3], [1, 1, 0, 3, 2], [0, 1, 2, 0, 0], [0, 1, 2, 0, 1], [0, 1, 0, 1, 0], 5
    )
    ratings = fit(votes)
    found = sandwich_and_its_parts(votes, ratings)
    assert ratings.comparable.tolist() == [True, True, False, False, False]
    assert vote_scores(votes, ratings)[[3, 4]].count_nonzero() == 0
    for covariance in (found.covariance, found.by_voter, found.by_prompt, found.by_both):
        assert np.isfinite(covariance).all()
        assert not covariance[2:].any()
        assert not covariance[:, 2:].any()
        assert covariance[0, 0] > 0


def test_the_anchor_only_moves_the_zero(simulate: Simulate) -> None:
    """Under an anchor the covariance is that of the differences from the anchored version."""
    votes = simulate(np.random.default_rng(3), [0.0, 0.4, -0.4, 0.1], 800)
    plain = sandwich_and_its_parts(votes, fit(votes))
    anchored = sandwich_and_its_parts(votes, fit(votes, anchor=(2, 1300.0)))
    from_anchor = np.eye(4) - np.eye(4)[2]
    for name in ("by_voter", "by_prompt", "by_both", "by_vote"):
        expected = from_anchor @ getattr(plain, name) @ from_anchor.T
        np.testing.assert_allclose(getattr(anchored, name), expected, rtol=1e-7, atol=1e-7)
    assert not anchored.covariance[2].any()


def weighted_and_repeated(votes: Comparisons, times: int) -> tuple[Comparisons, Comparisons]:
    """Every third vote counted so many times: by its weight, and row by row."""
    weight = np.where(np.arange(votes.n_votes) % 3 == 0, times, 1)
    weighted = Comparisons(
        votes.a,
        votes.b,
        votes.outcome,
        votes.voter,
        votes.prompt,
        votes.n_versions,
        weight=weight,
    )
    return weighted, votes.select(np.repeat(np.arange(votes.n_votes), weight))


@pytest.mark.parametrize("times", [2, 5])
def test_a_whole_weight_is_a_repeated_row(simulate: Simulate, times: int) -> None:
    votes = simulate(np.random.default_rng(8), [0.0, 0.7, -0.2], 300)
    weighted, rows = weighted_and_repeated(votes, times)
    one, other = fit(weighted), fit(rows)
    np.testing.assert_allclose(one.elo, other.elo, atol=1e-6)
    found, expected = sandwich_and_its_parts(weighted, one), sandwich_and_its_parts(rows, other)
    for name in ("by_voter", "by_prompt", "by_both", "covariance"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6)


def test_a_whole_weight_is_drawn_as_a_repeated_row(simulate: Simulate) -> None:
    votes = simulate(np.random.default_rng(8), [0.0, 0.7, -0.2], 300)
    one, other = (
        two_way_bootstrap(given, rng=np.random.default_rng(0), replicates=30)
        for given in weighted_and_repeated(votes, 5)
    )
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_sparse_table_of_clusters_adds_up_the_same(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    votes = simulate(np.random.default_rng(8), [0.0, 0.7, -0.2], 300)
    ratings = fit(votes)
    dense = sandwich_and_its_parts(votes, ratings)
    monkeypatch.setattr(sandwich_module, "DENSE_AT_MOST", 0)
    sparse = sandwich_and_its_parts(votes, ratings)
    for name in ("by_voter", "by_prompt", "by_both", "covariance"):
        np.testing.assert_allclose(getattr(sparse, name), getattr(dense, name), rtol=1e-9)


# Two ways at once ------------------------------------------------------------------------------


def test_the_sum_less_what_both_share_by_hand() -> None:
    """Shares of 5 that are left: 4, or 0.8; of 9: 7, or 0.78. Both lie between a half and one."""
    covariance, recolouring = two_way(np.diag([3.0, 5.0]), np.diag([2.0, 4.0]), np.diag([1.0, 2.0]))
    np.testing.assert_allclose(covariance, np.diag([4.0, 7.0]), atol=1e-12)
    np.testing.assert_allclose(recolouring, np.diag([0.8**0.5, (7 / 9) ** 0.5]), atol=1e-12)


def test_a_variance_below_zero_is_raised_to_half_the_sum() -> None:
    """1 + 1 - 3 is no variance, and 2 + 2 - 3 is less than either; the mean of the two is taken."""
    covariance, recolouring = two_way(np.diag([1.0, 2.0, 6.0]), np.diag([1.0, 2.0, 4.0]), 3 * ONE)
    np.testing.assert_allclose(covariance, np.diag([1.0, 2.0, 7.0]), atol=1e-12)
    np.testing.assert_allclose(
        np.diagonal(recolouring), np.sqrt([0.5, 0.5, 0.7]), rtol=0, atol=1e-12
    )


def test_only_the_direction_that_is_too_small_is_raised() -> None:
    """Raw: variance 3 along (1, 1) and -1 across it. C is 4 all round, so across it gets 2."""
    along, across = np.full((2, 2), 0.5), np.array([[0.5, -0.5], [-0.5, 0.5]])
    covariance, _ = two_way(2 * np.eye(2), 2 * np.eye(2), 1 * along + 5 * across)
    np.testing.assert_allclose(covariance, 3 * along + 2 * across, atol=1e-12)


ONE = np.eye(3)


@st.composite
def covariances(draw: st.DrawFn) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Two positive semi-definite matrices and a third, of any ranks and sizes."""
    size = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(st.integers(-3, 5))
    ranks = draw(st.tuples(st.integers(1, 6), st.integers(0, 6), st.integers(0, 6)))
    # What clusters know little of, the votes know little of: the third is within the span.
    roots = [rng.normal(size=(size, rank)) for rank in ranks]
    one, other, third = (scale * root @ root.T for root in roots)
    span = np.linalg.qr(np.hstack(roots[:2]))[0]
    inside = span @ span.T
    share = draw(st.sampled_from([0.01, 0.3, 1.0, 4.0]))
    return one, other, share * inside @ third @ inside


@settings(deadline=None, max_examples=200)
@given(covariances())
def test_any_three_covariances(given: tuple[FloatArray, FloatArray, FloatArray]) -> None:
    by_bothr, by_prompt, by_both = given
    total = by_bothr + by_prompt
    covariance, recolouring = two_way(by_bothr, by_prompt, by_both)
    largest = np.linalg.eigvalsh(total).max()
    slack = 1e-5 * largest
    np.testing.assert_allclose(recolouring @ total @ recolouring.T, covariance, rtol=0, atol=slack)
    np.testing.assert_allclose(recolouring, recolouring.T, rtol=0, atol=1e-6)
    values = np.linalg.eigvalsh(recolouring)
    assert values.min() > math.sqrt(0.5) - 1e-3
    assert values.max() < 1 + 1e-3
    np.testing.assert_allclose(covariance, covariance.T, rtol=0, atol=1e-9 * largest)
    assert np.linalg.eigvalsh(covariance).min() > -1e-9 * largest
    # Between half of the sum and the sum, and the plain difference wherever that is.
    assert np.linalg.eigvalsh(covariance - total / 2).min() > -slack
    assert np.linalg.eigvalsh(total - covariance).min() > -slack
    if np.linalg.eigvalsh(total / 2 - by_both).min() > 0:
        np.testing.assert_allclose(covariance, total - by_both, rtol=0, atol=slack)


# Draws -----------------------------------------------------------------------------------------


def test_draws_have_the_covariance_of_the_sandwich() -> None:
    """A balanced design of many clusters: V, times d / (d - 2) for the tails of t.

    150 voters with 20 votes each on 120 prompts: 3,000 votes on 4 versions, so each version has
    about 110 effective voters and prompts.
    """
    votes = with_tastes(np.random.default_rng(2), [-0.4, -0.1, 0.1, 0.4], 150, 20, 120, 0.5)
    ratings = fit(votes)
    found = sandwich_and_its_parts(votes, ratings)
    draws = two_way_bootstrap(votes, rng=np.random.default_rng(0), replicates=4000)
    np.testing.assert_allclose(draws.mean(axis=0), ratings.elo, atol=0.5)
    expected = found.covariance * 110 / 108
    error = np.sqrt(np.diagonal(expected))
    np.testing.assert_allclose(draws.std(axis=0), error, rtol=0.06)
    correlation = expected / np.outer(error, error)
    np.testing.assert_allclose(np.corrcoef(draws.T), correlation, atol=0.08)
    # Both kinds of cluster are in it.
    one_way = np.sqrt(np.diagonal(found.by_voter)), np.sqrt(np.diagonal(found.by_prompt))
    assert (draws.std(axis=0) > np.maximum(*one_way)).all()


def test_the_spread_of_few_clusters_is_not_too_small() -> None:
    """Six voters: the variance is raised by 6 / 5 and the tails are those of t with 5 degrees."""
    rng = np.random.default_rng(5)
    voter = np.repeat(np.arange(6), 500)
    wins = np.array([0.40, 0.45, 0.48, 0.53, 0.57, 0.60])
    outcome = np.where(np.arange(3000) % 500 < 500 * wins[voter], FIRST, SECOND)
    zero = np.zeros(3000, dtype=int)
    votes = Comparisons(zero, zero + 1, outcome, voter, rng.permutation(3000) % 300, 2)
    found = sandwich(votes, fit(votes))
    assert (found.voters, found.degrees) == (6, 5)
    draws = two_way_bootstrap(votes, rng=np.random.default_rng(0), replicates=10_000)
    quartiles = np.quantile(draws[:, 0], [0.25, 0.75])
    expected = 2 * found.reach(0.5) * math.sqrt(found.covariance[0, 0])
    assert quartiles[1] - quartiles[0] == pytest.approx(expected, rel=0.05)


def test_two_versions_mirror_each_other() -> None:
    """Their mean is fixed, in every draw."""
    draws = two_way_bootstrap(lopsided(), rng=np.random.default_rng(0), replicates=50)
    np.testing.assert_allclose(draws.sum(axis=1), 2000, atol=1e-6)


def test_a_tie_is_half_a_vote_to_each_side(simulate: Simulate) -> None:
    votes = simulate(np.random.default_rng(2), [0.0, 0.5, -0.4], 400)
    tied = votes.outcome == TIE
    rows = np.append(np.arange(400), np.flatnonzero(tied))
    halves = Comparisons(
        votes.a[rows],
        votes.b[rows],
        np.append(np.where(tied, FIRST, votes.outcome), np.full(tied.sum(), SECOND)),
        votes.voter[rows],
        votes.prompt[rows],
        3,
        weight=np.append(np.where(tied, 0.5, 1.0), np.full(tied.sum(), 0.5)),
    )
    one, other = (
        two_way_bootstrap(given, rng=np.random.default_rng(3), replicates=50)
        for given in (votes, halves)
    )
    np.testing.assert_allclose(other, one, atol=1e-4)


def test_many_clusters_are_drawn_in_blocks(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many voters at once, and their wins as a sparse table or a dense one: the same law."""
    votes = simulate(np.random.default_rng(2), [0.0, 0.5, -0.4], 900)

    def draws() -> FloatArray:
        return two_way_bootstrap(votes, rng=np.random.default_rng(0), replicates=4000)

    whole = draws()
    monkeypatch.setattr(bootstrap, "DENSE_FROM", 0.0)
    np.testing.assert_allclose(draws(), whole, atol=1e-6)
    monkeypatch.setattr(bootstrap, "DENSE_FROM", 1.0)
    np.testing.assert_allclose(draws(), whole, atol=1e-6)
    monkeypatch.setattr(bootstrap, "CLUSTERS_AT_ONCE", 7)
    np.testing.assert_allclose(draws().std(axis=0), whole.std(axis=0), rtol=0.06)


def lopsided(*, mirrored: bool = False) -> Comparisons:
    """14 voters with 20 votes each: 12 prefer version 0 in 13 of 20, one never, one nearly so."""
    wins = np.array([13] * 12 + [0, 1])
    voter = np.repeat(np.arange(14), 20)
    order = np.tile(np.arange(20), 14)
    # A voter's wins start at another prompt each, so all prompts are alike.
    won = (order + 7 * voter) % 20 < wins[voter]
    outcome = np.where(won ^ mirrored, FIRST, SECOND)
    zero = np.zeros(280, dtype=int)
    return Comparisons(zero, zero + 1, outcome, voter, order, 2)


def test_skewness_survives() -> None:
    """A few voters far below the rest: the rating may be much lower, hardly higher.

    The plain voter bootstrap, here on the log odds of the voters drawn, is the judge.
    """
    wins = np.array([13] * 12 + [0, 1])
    chosen = np.random.default_rng(1).integers(14, size=(20_000, 14))
    share = wins[chosen].sum(axis=1) / 280
    by_voters = np.quantile(np.log(share / (1 - share)), [0.025, 0.5, 0.975])
    expected = (by_voters[1] - by_voters[0]) / (by_voters[2] - by_voters[1])
    assert expected > 1.1

    found = []
    for mirrored in (False, True):
        draws = two_way_bootstrap(
            lopsided(mirrored=mirrored), rng=np.random.default_rng(0), replicates=4000
        )
        low, middle, high = np.quantile(draws[:, 0] - draws[:, 1], [0.025, 0.5, 0.975])
        found.append((middle - low) / (high - middle))
    assert found[0] > 1.05
    assert found[1] < 1 / 1.05


def test_independent_votes_keep_the_width_of_the_vote_bootstrap() -> None:
    """6,000 independent votes of 300 voters on 200 prompts: nothing to allow for."""
    votes = with_tastes(np.random.default_rng(7), [-0.5, 0.0, 0.2, 0.3], 300, 20, 200, 0.0)
    plain = percentile_interval(vote_bootstrap(votes, rng=np.random.default_rng(1)))
    assert np.mean(widths(votes)) == pytest.approx(np.mean(plain[1] - plain[0]), rel=0.1)


def test_votes_cast_twice_tell_no_more() -> None:
    """Cast by the same voter on the same prompt, they are no news of other voters or prompts."""
    once = with_tastes(np.random.default_rng(1), [-0.4, 0.0, 0.4], 100, 12, 80, 0.4)
    twice = repeated(once, 2)
    one, other = sandwich(once, fit(once)), sandwich(twice, fit(twice))
    error = np.sqrt(np.diagonal(one.covariance))
    np.testing.assert_allclose(np.sqrt(np.diagonal(other.covariance)), error, rtol=0.01)
    np.testing.assert_allclose(widths(twice), widths(once), rtol=0.02)


def test_the_vote_bootstrap_believes_in_votes_cast_twice() -> None:
    once = with_tastes(np.random.default_rng(1), [-0.4, 0.0, 0.4], 100, 12, 80, 0.4)
    spread = [
        vote_bootstrap(votes, rng=np.random.default_rng(0)).std(axis=0)
        for votes in (once, repeated(once, 2))
    ]
    np.testing.assert_allclose(spread[1] / spread[0], math.sqrt(0.5), rtol=0.07)


def test_one_voter_who_cast_most_votes_is_not_many() -> None:
    """40 voters of 30 votes each, or the same votes with 20 of the voters taken for one."""
    votes = with_tastes(np.random.default_rng(5), [-0.3, 0.0, 0.3], 40, 30, 400, 0.0)
    heavy = renamed(votes, voters=np.maximum(np.arange(40) - 19, 0))
    assert (widths(heavy) > 1.3 * widths(votes)).all()


# What names and sides must not change ----------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_new_names_change_no_covariance(seed: int, random: Random) -> None:
    votes = with_tastes(np.random.default_rng(seed), [-0.5, 0.0, 0.2, 0.3], 9, 12, 7, 0.5)

    def names(of: int) -> NDArray[np.int64]:
        return np.array(random.sample(range(3 * of), of))

    versions = np.array(random.sample(range(4), 4))
    other = renamed(votes, versions=versions, voters=names(9), prompts=names(7))
    one_fit, other_fit = fit(votes), fit(other)
    one, found = sandwich_and_its_parts(votes, one_fit), sandwich_and_its_parts(other, other_fit)
    for name in ("covariance", "by_voter", "by_prompt", "by_both", "recolouring"):
        expected, there = getattr(one, name), getattr(found, name)[np.ix_(versions, versions)]
        np.testing.assert_allclose(there, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert (one.voters, one.prompts, one.degrees) == (found.voters, found.prompts, found.degrees)


def test_new_names_change_the_intervals_by_simulation_error_only() -> None:
    rng = np.random.default_rng(9)
    votes = with_tastes(rng, [-0.5, 0.0, 0.2, 0.3], 60, 20, 50, 0.5)
    versions = np.array([2, 0, 3, 1])
    other = renamed(
        votes, versions=versions, voters=rng.permutation(60), prompts=rng.permutation(50)
    )
    intervals = [
        np.array(
            percentile_interval(
                two_way_bootstrap(given, rng=np.random.default_rng(0), replicates=4000)
            )
        )
        for given in (votes, other)
    ]
    # An end's standard error over 4,000 draws is 2.7 / sqrt(4000) of the draws' deviation: 1 % of
    # the width.
    width = intervals[0][1] - intervals[0][0]
    assert (np.abs(intervals[1][:, versions] - intervals[0]) < 0.06 * width).all()


def test_swapping_sides_changes_nothing(simulate: Simulate) -> None:
    votes = simulate(np.random.default_rng(2), [0.0, 0.5, -0.4], 400)
    swapped = Comparisons(
        votes.b,
        votes.a,
        np.array([SECOND, FIRST, TIE])[votes.outcome],
        votes.voter,
        votes.prompt,
        3,
    )
    one, other = (
        two_way_bootstrap(given, rng=np.random.default_rng(3), replicates=50)
        for given in (votes, swapped)
    )
    np.testing.assert_allclose(other, one, atol=1e-6)


def test_the_order_of_rows_changes_nothing(simulate: Simulate) -> None:
    votes = simulate(np.random.default_rng(2), [0.0, 0.5, -0.4], 400)
    shuffled = votes.select(np.random.default_rng(0).permutation(400))
    one, other = (
        two_way_bootstrap(given, rng=np.random.default_rng(3), replicates=50)
        for given in (votes, shuffled)
    )
    np.testing.assert_allclose(other, one, atol=1e-6)


def test_a_seed_gives_the_same_bytes_with_any_number_of_threads(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    votes = simulate(np.random.default_rng(2), [0.0, 0.5, -0.4, 0.2], 600)
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(bootstrap, "THREADS", threads)
        rng = np.random.default_rng(11)
        found.append(two_way_bootstrap(votes, rng=rng, replicates=600).tobytes())
    assert found[0] == found[1] == found[2]
    other = two_way_bootstrap(votes, rng=np.random.default_rng(12), replicates=600)
    assert other.tobytes() != found[0]


def test_clusters_that_the_caller_has_are_the_same(simulate: Simulate) -> None:
    votes = simulate(np.random.default_rng(2), [0.0, 0.5, -0.4], 300)

    def draws(clusters: Clustered | None) -> FloatArray:
        rng = np.random.default_rng(1)
        return two_way_bootstrap(votes, rng=rng, replicates=30, clusters=clusters)

    np.testing.assert_array_equal(draws(sandwich(votes, fit(votes))), draws(None))


def test_the_anchor_holds_in_every_draw(simulate: Simulate) -> None:
    votes = simulate(np.random.default_rng(1), [0.0, 0.3, -0.5], 300)
    ratings = fit(votes, anchor=(1, 1100.0))
    rng = np.random.default_rng(0)
    draws = two_way_bootstrap(votes, rng=rng, replicates=200, anchor=(1, 1100.0))
    np.testing.assert_allclose(draws[:, 1], 1100, atol=1e-6)
    low, high = rating_interval(ratings, draws)
    assert low[0] < ratings.elo[0] < high[0]


def with_an_island(votes: Comparisons, voters: list[int], prompts: list[int]) -> Comparisons:
    """Add two versions and four votes between them, which nothing connects with the rest."""
    last = votes.n_versions
    return Comparisons(
        np.append(votes.a, [last] * 4),
        np.append(votes.b, [last + 1] * 4),
        np.append(votes.outcome, [FIRST, SECOND, FIRST, TIE]),
        np.append(votes.voter, voters),
        np.append(votes.prompt, prompts),
        last + 2,
    )


def test_versions_that_are_not_comparable_have_no_draws() -> None:
    votes = with_tastes(np.random.default_rng(3), [0.0, 0.3, -0.2], 8, 20, 6, 0.3)
    island = with_an_island(votes, [0, 1, 1, 3], [4, 5, 0, 0])
    together, alone = (
        two_way_bootstrap(given, rng=np.random.default_rng(1), replicates=40)
        for given in (island, votes)
    )
    assert np.isnan(together[:, 3:]).all()
    np.testing.assert_allclose(together[:, :3], alone, atol=1e-6)


@pytest.mark.parametrize("voters", [1, 8])
def test_votes_elsewhere_change_no_covariance(voters: int) -> None:
    """Voters and prompts that only other versions met are no clusters of these."""
    votes = with_tastes(np.random.default_rng(3), [0.0, 0.3, -0.2], voters, 160 // voters, 6, 0.3)
    island = with_an_island(votes, [8, 9, 9, 10], [6, 7, 8, 8])
    alone, together = sandwich(votes, fit(votes)), sandwich(island, fit(island))
    np.testing.assert_allclose(together.covariance[:3, :3], alone.covariance, rtol=1e-9)
    assert (together.voters, together.prompts) == (alone.voters, alone.prompts)
    assert together.degrees == alone.degrees


# Few clusters ----------------------------------------------------------------------------------


def test_one_voter_and_one_prompt_resample_the_votes() -> None:
    """Nothing says how others would differ: the width is the vote bootstrap's."""
    many = with_tastes(np.random.default_rng(3), [0.0, 0.3, -0.2], 1, 600, 1, 0.0)
    plain = percentile_interval(vote_bootstrap(many, rng=np.random.default_rng(1)))
    assert np.mean(widths(many)) == pytest.approx(np.mean(plain[1] - plain[0]), rel=0.1)
    assert sandwich(many, fit(many)).degrees == 599


@pytest.mark.parametrize(("voters", "prompts"), [(1, 25), (25, 1)])
def test_one_voter_leaves_the_prompts(voters: int, prompts: int) -> None:
    """Of one voter, the other kind of cluster is all there is: its one-way covariance."""
    votes = with_tastes(
        np.random.default_rng(3), [0.0, 0.3, -0.2], voters, 1000 // voters, prompts, 0.5
    )
    found = sandwich_and_its_parts(votes, fit(votes))
    assert (found.voters, found.prompts, found.degrees) == (voters, prompts, 24)
    expected = found.by_prompt if voters == 1 else found.by_voter
    np.testing.assert_allclose(found.by_voter if voters == 1 else found.by_prompt, found.by_vote)
    error = np.sqrt(np.diagonal(expected))
    np.testing.assert_allclose(np.sqrt(np.diagonal(found.covariance)), error, rtol=0.15)
    draws = two_way_bootstrap(votes, rng=np.random.default_rng(0))
    spread = np.diff(np.quantile(draws, [0.16, 0.84], axis=0), axis=0)[0] / 2
    np.testing.assert_allclose(spread, error, rtol=0.2)


def test_a_version_seen_by_two_voters_has_heavy_tails() -> None:
    """Two effective voters leave one degree of freedom: 12.7 standard errors and not 1.96."""
    rng = np.random.default_rng(3)
    common = with_tastes(rng, [0.0, 0.2, -0.2], 80, 20, 60, 0.3)
    n = 100
    a, b = np.full(n, 3), rng.integers(3, size=n)
    votes = Comparisons(
        np.append(common.a, a),
        np.append(common.b, b),
        np.append(common.outcome, rng.integers(2, size=n)),
        np.append(common.voter, np.repeat([4, 9], n // 2)),
        np.append(common.prompt, rng.integers(60, size=n)),
        4,
    )
    draws = two_way_bootstrap(votes, rng=np.random.default_rng(0), replicates=2000)
    centred = np.abs(draws - np.median(draws, axis=0))
    tails = np.quantile(centred, 0.95, axis=0) / np.quantile(centred, 0.68, axis=0)
    assert tails[3] > 4
    assert (tails[:3] < 2.5).all()


@pytest.mark.parametrize("prior", [200.0, 400.0])
def test_nobody_is_less_sure_than_before_the_first_vote(prior: float) -> None:
    """A newcomer with one win and one loss: t with one degree alone would be thousands wide."""
    common = with_tastes(np.random.default_rng(3), [0.0, 0.2, -0.2], 80, 20, 60, 0.3)
    votes = Comparisons(
        np.append(common.a, [3, 1]),
        np.append(common.b, [0, 3]),
        np.append(common.outcome, [FIRST, FIRST]),
        np.append(common.voter, [4, 9]),
        np.append(common.prompt, [7, 30]),
        4,
    )
    ratings = fit(votes, prior=prior)
    rng = np.random.default_rng(0)
    draws = two_way_bootstrap(votes, rng=rng, replicates=2000, prior=prior)
    low, high = percentile_interval(draws)
    by_curvature = 2 * 1.96 * math.sqrt(ratings.covariance[3, 3])
    assert by_curvature < high[3] - low[3] < 1.05 * 2 * 1.96 * prior


# Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replicates": 1}, "replicates is 1; it must be at least 2"),
        ({"replicates": 0}, "replicates is 0"),
        ({"prior": math.inf}, "needs a finite one"),
        ({"prior": 0.0}, "must be a positive number"),
        ({"prior": math.nan}, "must be a positive number"),
        ({"anchor": (9, 1000.0)}, "version 9"),
        ({"anchor": (0, math.inf)}, "must be a finite number"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    votes = Comparisons([0, 1, 0], [1, 0, 1], [0, 0, 1], [0, 1, 2], [0, 1, 1], 2)
    with pytest.raises(ValueError, match=message):
        two_way_bootstrap(votes, rng=np.random.default_rng(0), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("voter", "prompt"), [([0, 0, 0], [0, 1, 2]), ([0, 1, 2], [0, 0, 0])])
def test_weights_cannot_be_drawn_one_by_one(voter: list[int], prompt: list[int]) -> None:
    """One voter's votes are resampled in place of voters, and half a vote can't be."""
    votes = Comparisons([0, 1, 0], [1, 0, 1], [0, 0, 1], voter, prompt, 2, weight=[1.5, 1, 1])
    with pytest.raises(ValueError, match="The votes carry weights"):
        two_way_bootstrap(votes, rng=np.random.default_rng(0), replicates=5)


def test_weights_are_fine_with_two_voters_and_two_prompts() -> None:
    votes = Comparisons(
        [0, 1, 0, 0],
        [1, 0, 1, 1],
        [0, 0, 1, 2],
        [0, 0, 1, 1],
        [0, 1, 0, 1],
        2,
        weight=[0.5, 2, 3, 1],
    )
    assert np.isfinite(two_way_bootstrap(votes, rng=np.random.default_rng(0), replicates=20)).all()


# Coverage --------------------------------------------------------------------------------------


def population_ratings(logits: list[float], taste: float) -> FloatArray:
    """What the fit tends to with ever more voters and prompts, in Elo points.

    A vote's margin is the difference of the strengths plus four tastes, a normal number; its mean
    chance is summed over a fine grid. Found by gradient ascent on the share of wins of each pair.
    """
    strength = np.array(logits)
    n = strength.size
    grid = np.linspace(-8, 8, 2001)
    density = np.exp(-(grid**2) / 2)
    margin = strength[:, None] - strength[None, :]
    wins = (density / (1 + np.exp(-margin[..., None] - 2 * taste * grid))).sum(-1) / density.sum()
    t = np.zeros(n)
    for _ in range(2000):
        t += 2 / n * (wins - 1 / (1 + np.exp(t[None, :] - t[:, None]))).sum(axis=1)
    result: FloatArray = 1000 + ELO_PER_LOGIT * (t - t.mean())
    return result


@pytest.mark.slow
def test_intervals_cover_where_votes_depend_on_each_other() -> None:
    """60 data sets of 30 voters with 60 votes each on 30 prompts: 300 intervals that claim 95 %.

    The voters' and prompts' tastes are half as large as the strengths; four versions in five are
    free, and the versions of a data set share voters, so 90 % is about three standard errors off.
    """
    logits = [-0.8, -0.3, 0.0, 0.3, 0.8]
    truth = population_ratings(logits, 0.5)
    rng = np.random.default_rng(21)
    covered: dict[str, list[NDArray[np.bool_]]] = {"two ways": [], "votes": []}
    for _ in range(60):
        votes = with_tastes(rng, logits, 30, 60, 30, 0.5)
        for name, method in (("two ways", two_way_bootstrap), ("votes", vote_bootstrap)):
            low, high = percentile_interval(method(votes, rng=rng, replicates=300))
            covered[name].append((low <= truth) & (truth <= high))
    assert 0.90 <= np.mean(covered["two ways"]) <= 0.99
    assert np.mean(covered["votes"]) < 0.85
