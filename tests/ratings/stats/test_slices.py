"""Slices: nearer to the truth than their own votes, and no differences where there are none."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import false_discovery_control, halfnorm, norm, t

from ratings.elo_scale import ELO_PER_LOGIT
from ratings.stats import Comparisons, PairCounts, fit
from ratings.stats.comparisons import BoolArray, FloatArray
from ratings.stats.sandwich import sandwich
from ratings.stats.slices import SliceRatings, rate_slices, shrink

pytestmark = pytest.mark.filterwarnings("error")

N_VERSIONS = 6
TASTE = 0.4


@dataclass
class World:
    """Votes on prompts with one tag each, and what the versions are truly worth on each tag."""

    votes: Comparisons
    members: BoolArray
    truth: FloatArray


def world(rng: np.random.Generator, spread: float, n_votes: int = 2400, n_tags: int = 5) -> World:
    """Voters and prompts have tastes of their own; tags move versions by `spread` logits."""
    prompts, voters = 12 * n_tags, 150
    tag = np.arange(prompts) % n_tags
    strength = np.linspace(-0.8, 0.8, N_VERSIONS)
    moved = strength + rng.normal(0, spread, (n_tags, N_VERSIONS))
    on_prompt = moved[tag] + rng.normal(0, TASTE, (prompts, N_VERSIONS))
    of_voter = rng.normal(0, TASTE, (voters, N_VERSIONS))
    a = rng.integers(0, N_VERSIONS, n_votes)
    b = (a + rng.integers(1, N_VERSIONS, n_votes)) % N_VERSIONS
    voter, prompt = rng.integers(0, voters, n_votes), rng.integers(0, prompts, n_votes)
    worth = on_prompt[prompt] + of_voter[voter]
    row = np.arange(n_votes)
    a_wins = rng.random(n_votes) < expit(worth[row, a] - worth[row, b])
    votes = Comparisons(a, b, np.where(a_wins, 0, 1), voter, prompt, N_VERSIONS)
    return World(
        votes, np.arange(n_tags)[:, None] == tag[prompt], np.array([seen(one) for one in moved])
    )


def seen(strength: NDArray[np.float64]) -> FloatArray:
    """The ratings that votes of infinitely many voters on as many prompts tend to.

    Tastes add a normal number to each difference: its expected win rate by Gauss's quadrature.
    """
    nodes, weights = hermegauss(20)
    first, second = np.triu_indices(N_VERSIONS, 1)
    difference = strength[first] - strength[second]
    wins = expit(difference[:, None] + 2 * TASTE * nodes) @ weights / weights.sum()
    counts = PairCounts(first, second, 1e8 * wins, 1e8 * (1 - wins), 0 * first, N_VERSIONS)
    return fit(counts, prior=math.inf).elo


def rated(here: World) -> SliceRatings:
    return rate_slices(here.votes, fit(here.votes), here.members)


def test_pooled_ratings_are_nearer_to_the_truth_than_either_source() -> None:
    """Mean squared errors over 30 data sets whose tags move versions by 35 Elo points."""
    rng = np.random.default_rng(1)
    raw, pooled, category = [], [], []
    for _ in range(30):
        here = world(rng, 0.2)
        found, ratings = rated(here), fit(here.votes)
        assert found.comparable.all()
        for errors, estimate in ((raw, found.raw), (pooled, found.pooled), (category, ratings.elo)):
            errors.append(np.mean((estimate - here.truth) ** 2))
    assert np.mean(pooled) < 0.7 * np.mean(raw)
    assert np.mean(pooled) < 0.9 * np.mean(category)


@pytest.mark.parametrize("spread", [0.0, 0.25])
def test_intervals_cover(spread: float) -> None:
    """40 data sets of 30 intervals; about three standard errors of the share, and no more than
    a few points too wide where tags mean nothing."""
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(40):
        here = world(rng, spread)
        found = rated(here)
        covered.append(np.mean((found.low <= here.truth) & (here.truth <= found.high)))
    assert 0.91 <= np.mean(covered) <= 0.998


def test_no_discoveries_where_tags_mean_nothing() -> None:
    """Where no difference is true each discovery is false: in at most 5 % of data sets one.

    60 data sets: 3 expected, 7 are 2.4 standard errors more. The p-values are not all large.
    """
    rng = np.random.default_rng(3)
    found = [rated(world(rng, 0.0)) for _ in range(60)]
    p_values = np.concatenate([one.p_value.ravel() for one in found])
    assert np.count_nonzero([one.discovery.any() for one in found]) <= 7
    assert 0.02 <= np.mean(p_values < 0.05) <= 0.065
    assert 0.35 <= np.mean(p_values < 0.5) <= 0.6


def test_a_version_that_fails_on_one_tag_is_found() -> None:
    rng = np.random.default_rng(4)
    here = world(rng, 0.0, n_votes=6000)
    votes = here.votes
    weak = here.members[2] & ((votes.a == 4) | (votes.b == 4))
    lost = weak & (rng.random(votes.n_votes) < 0.7)
    outcome = np.where(lost, np.where(votes.a == 4, 1, 0), votes.outcome)
    changed = Comparisons(votes.a, votes.b, outcome, votes.voter, votes.prompt, N_VERSIONS)
    found = rate_slices(changed, fit(changed), here.members)
    assert found.discovery[2, 4]
    assert found.high[2, 4] < fit(changed).elo[4]
    assert np.count_nonzero(found.discovery) <= 3
    expected = false_discovery_control(found.p_value.ravel()) <= 0.05
    np.testing.assert_array_equal(found.discovery.ravel(), expected)
    assert found.spread[2] == max(found.spread)


def test_the_pooled_rating_lies_between_the_two() -> None:
    here = world(np.random.default_rng(5), 0.2)
    ratings, found = fit(here.votes), rated(here)
    np.testing.assert_allclose(
        found.pooled, ratings.elo + found.share * (found.raw - ratings.elo), rtol=1e-9
    )
    assert ((found.share > 0) & (found.share < 1)).all()
    # Comparable with the category: the same mean over the slice's versions.
    np.testing.assert_allclose(found.raw.mean(axis=1), ratings.elo.mean())
    own = fit(here.votes.select(here.members[3]))
    np.testing.assert_allclose(found.raw[3], own.elo)


def test_the_covariance_is_one_ranks_can_be_drawn_from() -> None:
    here = world(np.random.default_rng(6), 0.2)
    found = rated(here)
    for covariance, low, high in zip(found.covariance, found.low, found.high, strict=True):
        np.testing.assert_allclose(covariance, covariance.T, atol=1e-6)
        assert np.linalg.eigvalsh(covariance).min() > 0
        # Widths are t quantiles of at least 11 degrees of freedom: 12 prompts a tag.
        reach = (high - low) / 2 / np.sqrt(np.diagonal(covariance))
        assert ((reach >= 1.96) & (reach <= t.ppf(0.975, 11) + 1e-9)).all()


def test_pooling_is_the_integral_over_the_unknown_spread() -> None:
    """By quadrature: the half-normal prior of 100 points times the likelihood of two differences.

    The law of total variance: the mean of the variance given the spread and the variance of the
    mean given it.
    """
    difference, variance = np.array([40.0, -40.0]), np.array([900.0, 400.0])
    of_category, crossed = np.diag([100.0, 80.0]), np.diag([5.0, -4.0])
    found = shrink(difference, np.diag(variance), crossed, of_category)

    def mean_of(value: Callable[[float], float]) -> float:
        def density(size: float) -> float:
            likelihood = norm.pdf(difference, scale=np.sqrt(variance + size**2)).prod()
            return float(halfnorm.pdf(size, scale=100) * math.sqrt(likelihood))

        whole = quad(density, 0, 1000)[0]
        return quad(lambda size: value(size) * density(size), 0, 1000)[0] / whole  # type: ignore[no-any-return]

    assert found.spread == pytest.approx(mean_of(lambda size: size), rel=0.01)
    for i in range(2):

        def share(size: float, noise: float = variance[i]) -> float:
            return size**2 / (size**2 + noise)

        mean, square = mean_of(share), mean_of(lambda size: share(size) ** 2)
        lost = mean_of(lambda size: ((1 - share(size)) * size) ** 2)
        assert found.share[i] == pytest.approx(mean, rel=0.01)
        assert found.kept_noise[i] == pytest.approx(square * variance[i], rel=0.01)
        expected = of_category[i, i] + 2 * mean * crossed[i, i] + square * variance[i] + lost
        expected += (square - mean**2) * difference[i] ** 2
        assert found.covariance[i, i] == pytest.approx(expected, rel=0.01)


def test_what_is_left_of_a_large_slice_is_its_own_fit() -> None:
    """With many votes and true differences hardly anything is taken from the category."""
    here = world(np.random.default_rng(7), 1.0, n_votes=40_000)
    found = rated(here)
    assert found.share.min() > 0.9
    own = here.votes.select(here.members[0])
    own_error = np.sqrt(np.diagonal(sandwich(own, fit(own)).covariance))
    pooled_error = np.sqrt(np.diagonal(found.covariance[0]))
    np.testing.assert_allclose(pooled_error, own_error, rtol=0.15)
    # So its interval has the freedom of the slice's 12 prompts, not of the category's 60.
    reach = (found.high[0] - found.low[0]) / 2 / pooled_error
    np.testing.assert_allclose(reach, t.ppf(0.975, 11), rtol=0.03)


def test_a_slice_of_all_votes_is_the_category() -> None:
    here = world(np.random.default_rng(8), 0.0)
    ratings = fit(here.votes)
    found = rate_slices(here.votes, ratings, np.ones((1, here.votes.n_votes), dtype=bool))
    np.testing.assert_allclose(found.raw[0], ratings.elo)
    np.testing.assert_allclose(found.pooled[0], ratings.elo)
    assert np.isnan(found.p_value).all()
    assert not found.discovery.any()
    error = np.sqrt(np.diagonal(sandwich(here.votes, ratings).covariance))
    np.testing.assert_allclose(np.sqrt(np.diagonal(found.covariance[0])), error, rtol=0.05)


def test_one_prompt_is_no_slice() -> None:
    """Votes on one prompt, or of one voter, say nothing of a tag; an empty slice says nothing."""
    here = world(np.random.default_rng(9), 0.0)
    votes = here.votes
    members = np.stack(
        [votes.prompt == 3, votes.voter == 5, np.zeros(votes.n_votes, dtype=bool), here.members[1]]
    )
    found = rate_slices(votes, fit(votes), members)
    assert found.comparable.any(axis=1).tolist() == [False, False, False, True]
    for values in (found.raw, found.pooled, found.low, found.p_value, found.covariance):
        assert np.isnan(values[:3]).all()
        assert not np.isnan(values[3]).any()
    assert found.votes[0].sum() == 2 * np.count_nonzero(votes.prompt == 3)
    assert found.votes[2].sum() == 0


def test_versions_that_the_slice_does_not_connect() -> None:
    """In the slice 0, 1 and 2 meet, 3 meets 4 alone, 5 is on one prompt."""
    rng = np.random.default_rng(10)
    pairs = np.array([(0, 1), (1, 2), (0, 2), (3, 4), (0, 5), (2, 3)])
    chosen = np.repeat(np.arange(6), 40)
    a, b = pairs[chosen].T
    prompt = np.tile(np.arange(40) % 8, 6)
    # In the slice: prompts 0 to 3, 5 only on prompt 0, and no link from 2 to 3.
    member = (prompt < 4) & ~((chosen == 4) & (prompt > 0)) & (chosen != 5)
    votes = Comparisons(a, b, rng.integers(0, 2, 240), rng.integers(0, 9, 240), prompt, 6)
    ratings = fit(votes)
    found = rate_slices(votes, ratings, member[None])
    assert found.comparable[0].tolist() == [True, True, True, False, False, False]
    for values in (found.raw, found.pooled, found.high, np.diagonal(found.covariance[0])[None]):
        assert np.isnan(values[0]).tolist() == [False, False, False, True, True, True]
    assert found.raw[0, :3].mean() == pytest.approx(ratings.elo[:3].mean())


def test_winning_every_vote_of_a_slice_is_no_certainty() -> None:
    """Version 0 won its 16 votes there: no vote could turn, yet its error is at least a curve's."""
    rng = np.random.default_rng(11)
    n = 1200
    a = rng.integers(0, 3, n)
    b = (a + rng.integers(1, 3, n)) % 3
    prompt, voter = rng.integers(0, 40, n), rng.integers(0, 60, n)
    member = prompt < 4
    mine = (a == 0) | (b == 0)
    crowded = np.flatnonzero(member & mine)[16:]
    member[crowded] = False
    outcome = rng.integers(0, 2, n)
    outcome = np.where(member & mine, np.where(a == 0, 0, 1), outcome)
    votes = Comparisons(a, b, outcome, voter, prompt, 3)
    ratings, own = fit(votes), fit(votes.select(member))
    found = rate_slices(votes, ratings, member[None])
    assert own.bounded[0] == "below"
    by_curvature = own.covariance[0, 0] - ratings.covariance[0, 0]
    statistic = (found.raw[0, 0] - ratings.elo[0]) / math.sqrt(by_curvature)
    freedom = np.unique(prompt[member & mine]).size - 1
    assert found.p_value[0, 0] >= 0.99 * 2 * t.sf(statistic, freedom)
    robust = math.sqrt(sandwich(votes.select(member), own).covariance[0, 0])
    assert robust < math.sqrt(by_curvature)


def test_p_value_by_hand_for_two_versions_and_a_slice_of_independent_votes() -> None:
    """One vote a voter and a prompt: the difference's error is that of two independent rates.

    d = slice - category; the category is the slice and the rest, so its variance is the slice's
    less the category's. In Elo points of each rating, half the distance.
    """
    n = 400
    outcome = np.concatenate([np.repeat([0, 1], [120, 80]), np.repeat([0, 1], [100, 100])])
    votes = Comparisons(np.zeros(n), np.ones(n), outcome, np.arange(n), np.arange(n), 2)
    found = rate_slices(votes, fit(votes), (np.arange(n) < 200)[None])
    logit = math.log(120 / 80) - math.log(220 / 180)
    # Each rate's own variance, the slice's part of the category's counted once.
    weights = np.where(np.arange(n) < 200, 1 / (200 * 0.6 * 0.4), 0.0)
    p_slice, p_all = 0.6, 0.55
    won = 1 - outcome
    influence = weights * (won - p_slice) - (won - p_all) / (n * p_all * (1 - p_all))
    error = math.sqrt((influence**2).sum())
    expected = 2 * t.sf(logit / error, 199)
    assert found.p_value[0, 0] == pytest.approx(expected, rel=0.03)
    assert found.raw[0, 0] - fit(votes).elo[0] == pytest.approx(ELO_PER_LOGIT * logit / 2, rel=0.02)


def test_slices_do_not_depend_on_each_other() -> None:
    here = world(np.random.default_rng(12), 0.2)
    ratings = fit(here.votes)
    together, alone = rated(here), rate_slices(here.votes, ratings, here.members[2:3])
    np.testing.assert_array_equal(together.pooled[2], alone.pooled[0])
    np.testing.assert_array_equal(together.p_value[2], alone.p_value[0])


def test_bad_members() -> None:
    here = world(np.random.default_rng(13), 0.0)
    ratings = fit(here.votes)
    for members in (here.members[0], here.members[:, 1:], here.members.astype(int)):
        with pytest.raises(ValueError, match="one row a slice and one column for each of the 2400"):
            rate_slices(here.votes, ratings, members)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        rate_slices(here.votes, ratings, here.members, level=95)
