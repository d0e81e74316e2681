"""Data sets at the edge of what votes can say, through everything that reads votes.

Every number is finite, or the version is marked as not comparable, or the side on which no vote
bounds it is infinite; nothing warns.
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ratings.stats.bootstrap import rating_interval, two_way_bootstrap, vote_bootstrap
from ratings.stats.bradley_terry import Ratings, fit
from ratings.stats.comparisons import Comparisons
from ratings.stats.exploring import vote_worth
from ratings.stats.ranks import difference_intervals, rank, win_rates
from ratings.stats.robustness.agreement import agreement
from ratings.stats.robustness.covariates import contextual
from ratings.stats.robustness.davidson import davidson
from ratings.stats.robustness.influence import fewest_votes_to_change_leader, most_influential
from ratings.stats.robustness.online_elo import online_elo
from ratings.stats.robustness.voters import discriminants
from ratings.stats.sandwich import sandwich
from ratings.stats.slices import rate_slices
from tests.ratings.stats.covariances import sandwich_and_its_parts

pytestmark = pytest.mark.filterwarnings("error")

BoolArray = NDArray[np.bool_]
A, B, C, D, E, F = range(6)
FIRST, SECOND, TIE = 0, 1, 2
REPLICATES = 50
# version A, version B, outcome, how many times
Row = tuple[int, int, int, int]


def votes_of(
    rows: list[Row],
    n: int,
    *,
    voters: int = 7,
    prompts: int = 5,
    weight: list[float] | None = None,
) -> Comparisons:
    """Votes dealt out to voters and prompts in turn, so that each meets all that it can.

    The numbers of voters and prompts have no common divisor unless they are 1.
    """
    a, b, outcome, times = np.array(rows).T
    order = np.arange(times.sum())
    return Comparisons(
        np.repeat(a, times),
        np.repeat(b, times),
        np.repeat(outcome, times),
        order % voters,
        order % prompts,
        n,
        weight=weight,
    )


def both_ways(pairs: list[tuple[int, int]], times: int) -> list[Row]:
    return [(i, j, side, times) for i, j in pairs for side in (FIRST, SECOND)]


def one_voter_of_most() -> Comparisons:
    """792 votes of one voter and 8 of eight others."""
    rng = np.random.default_rng(1)
    a = rng.integers(4, size=800)
    b = (a + rng.integers(1, 4, size=800)) % 4
    voter = np.append(np.zeros(792, dtype=int), np.arange(1, 9))
    return Comparisons(a, b, rng.integers(3, size=800), voter, np.arange(800) % 20, 4)


def everybody_once(n_votes: int, voters: int, prompts: int) -> Comparisons:
    """So many votes on four versions; `voters` and `prompts` as many, or fewer in turn."""
    order = np.arange(n_votes)
    a = order % 4
    b = (a + 1 + order // 4 % 3) % 4
    return Comparisons(a, b, order * 7 % 5 % 3, order % voters, order % prompts, 4)


RING = [(i, (i + 1) % 200, FIRST, 1) for i in range(200)]
DEGENERATE: dict[str, Comparisons] = {
    "perfect winner": votes_of(
        [(A, B, FIRST, 30), (C, A, SECOND, 30), *both_ways([(B, C)], 15)], 3
    ),
    "perfect loser": votes_of([(A, B, SECOND, 30), (C, A, FIRST, 30), (B, C, TIE, 20)], 3),
    "perfect winner and perfect loser": votes_of(
        [
            (A, B, FIRST, 9),
            (A, C, FIRST, 9),
            (B, D, FIRST, 9),
            (C, D, FIRST, 9),
            *both_ways([(B, C)], 9),
        ],
        4,
    ),
    "perfect winner with one vote": votes_of([(A, B, FIRST, 1), *both_ways([(B, C)], 40)], 3),
    "winner of a million votes": votes_of(
        [(A, B, FIRST, 20), (A, B, SECOND, 1)], 2, weight=[5e4] * 20 + [1.0]
    ),
    "each beats the next": votes_of([(A, B, FIRST, 9), (B, C, FIRST, 9), (A, C, FIRST, 9)], 3),
    "a pair beats another pair": votes_of(
        [(A, B, TIE, 9), (C, D, TIE, 9), (A, C, FIRST, 5), (B, D, FIRST, 5)], 4
    ),
    "two pairs that never met": votes_of(both_ways([(A, B), (C, D)], 6), 4),
    "two islands, one larger": votes_of(
        both_ways([(A, B)], 30) + both_ways([(C, D), (D, E)], 3), 5
    ),
    "islands of three versions each": votes_of(
        [*both_ways([(A, B), (B, C), (A, C)], 4), (D, E, FIRST, 8), (E, F, FIRST, 8)], 6
    ),
    "all ties": votes_of([(A, B, TIE, 9), (B, C, TIE, 9), (A, C, TIE, 9)], 3),
    "one tie": votes_of([(A, B, TIE, 1)], 2),
    "one vote": votes_of([(A, B, FIRST, 1)], 2),
    "one vote among a hundred versions": votes_of([(71, 9, SECOND, 1)], 100),
    "one vote each way": votes_of(both_ways([(A, B)], 1), 2),
    "one vote each way, one voter and prompt": votes_of(
        both_ways([(A, B)], 1), 2, voters=1, prompts=1
    ),
    "one voter": votes_of([*both_ways([(A, B), (B, C), (C, A)], 6), (A, B, FIRST, 6)], 3, voters=1),
    "one prompt": votes_of(
        [*both_ways([(A, B), (B, C), (C, A)], 6), (A, B, FIRST, 6)], 3, prompts=1
    ),
    "one voter and one prompt": votes_of(
        [*both_ways([(A, B), (B, C)], 6), (A, C, FIRST, 6)], 3, voters=1, prompts=1
    ),
    "one voter on each island": Comparisons(
        [A, B, C, A, D, D],
        [B, C, A, C, E, E],
        [0, 0, 0, 2, 0, 1],
        [0, 0, 0, 0, 1, 1],
        [*range(6)],
        5,
    ),
    "the same vote a thousand times": votes_of([(B, A, SECOND, 1000)], 2, voters=1, prompts=1),
    "the same vote by everybody": votes_of([(B, A, SECOND, 35)], 2),
    "two versions": votes_of([(A, B, FIRST, 31), (B, A, FIRST, 22), (A, B, TIE, 12)], 2),
    "a circle": votes_of([(A, B, FIRST, 5), (B, C, FIRST, 5), (C, A, FIRST, 5)], 3),
    "every vote to side A": votes_of(
        [(i, j, FIRST, 4) for i in range(4) for j in range(4) if i != j], 4
    ),
    "a version nobody saw": votes_of(both_ways([(A, B), (B, D)], 9), 5),
    "a version with one vote": votes_of(
        [*both_ways([(A, B), (B, C), (A, C)], 20), (D, A, TIE, 1)], 4
    ),
    "a version that only tied": votes_of(
        [*both_ways([(A, B)], 12), (C, A, TIE, 7), (C, B, TIE, 7)], 3
    ),
    "a chain": votes_of(
        [(i, i + 1, side, 2) for i in range(9) for side in (FIRST, SECOND, FIRST)], 10
    ),
    "a chain of perfect wins": votes_of([(i, i + 1, FIRST, 2) for i in range(9)], 10),
    "one voter cast nearly all votes": one_voter_of_most(),
    "every voter once": everybody_once(120, 120, 7),
    "every prompt once": everybody_once(120, 7, 120),
    "every voter and prompt once": everybody_once(120, 120, 120),
    "every vote a voter of each prompt": everybody_once(120, 11, 11),
    "weights from tiny to huge": votes_of(
        both_ways([(A, B), (B, C), (A, C)], 4), 3, weight=[1e-3, 1.0, 1e3] * 8
    ),
    "two hundred versions in a ring": votes_of(RING, 200, voters=13, prompts=11),
    "two hundred versions in a chain": votes_of(RING[:-1], 200, voters=13, prompts=11),
}
named = pytest.mark.parametrize("name", DEGENERATE)


def whole(votes: Comparisons) -> bool:
    """Whether the weights can be drawn, or removed, vote by vote."""
    return votes.weight is None or bool((votes.weight == np.floor(votes.weight)).all())


def require_finite_where(expected: BoolArray, *tables: NDArray[np.float64]) -> None:
    for table in tables:
        assert np.isfinite(table[expected]).all()
        assert np.isnan(table[~expected]).all()


def pairs(ratings: Ratings) -> BoolArray:
    comparable = ratings.comparable
    return comparable[:, None] & comparable[None, :]


def draws_of(votes: Comparisons) -> list[NDArray[np.float64]]:
    """Draws of both bootstraps, of those that can draw these votes."""
    methods = (two_way_bootstrap, vote_bootstrap) if whole(votes) else (two_way_bootstrap,)
    return [
        method(votes, rng=np.random.default_rng(0), replicates=REPLICATES) for method in methods
    ]


def require_bounds(
    ratings: Ratings,
    elo: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> None:
    """An end is infinite where no vote bounds the version on that side, and nowhere else."""
    comparable = ratings.comparable
    assert np.isnan(low[~comparable]).all()
    assert np.isnan(high[~comparable]).all()
    assert set(np.flatnonzero(np.isinf(low))) == set(np.flatnonzero(ratings.bounded == "above"))
    assert set(np.flatnonzero(np.isinf(high))) == set(np.flatnonzero(ratings.bounded == "below"))
    assert (low[comparable] < elo[comparable]).all()
    assert (elo[comparable] < high[comparable]).all()


@named
def test_ratings_and_intervals(name: str) -> None:
    votes = DEGENERATE[name]
    ratings = fit(votes)
    require_finite_where(ratings.comparable, ratings.elo)
    require_finite_where(pairs(ratings), ratings.covariance)
    assert ratings.comparable.sum() >= 2
    for draws in draws_of(votes):
        require_finite_where(np.tile(ratings.comparable, (REPLICATES, 1)), draws)
        low, high = rating_interval(ratings, draws)
        require_bounds(ratings, ratings.elo, low, high)


@named
def test_sandwich(name: str) -> None:
    votes = DEGENERATE[name]
    ratings = fit(votes)
    found = sandwich_and_its_parts(votes, ratings)
    seen = pairs(ratings)
    for covariance in (found.covariance, found.by_voter, found.by_prompt, found.by_both):
        assert np.isfinite(covariance).all()
        assert not covariance[~seen].any()
        assert np.linalg.eigvalsh(covariance).min() > -1e-9 * max(1.0, covariance.max())
    assert np.isfinite(found.recolouring).all()
    assert found.degrees >= 1
    assert math.isfinite(sandwich(votes, ratings).reach())


@named
def test_ranks(name: str) -> None:
    votes = DEGENERATE[name]
    ratings = fit(votes)
    seen, number = pairs(ratings), ratings.comparable.sum()
    for draws in draws_of(votes):
        ranks = rank(ratings, draws)
        comparable = ratings.comparable
        assert (ranks.low[comparable] >= 1).all()
        assert (ranks.low <= ranks.high).all()
        assert (ranks.high <= number).all()
        assert not ranks.high[~comparable].any()
        assert ((ranks.high > 0) == comparable).all()

        found = difference_intervals(ratings, draws)
        require_finite_where(seen, found.estimate, found.low, found.high, found.error)
        assert (found.low[seen] <= found.estimate[seen]).all()
        assert (found.estimate[seen] <= found.high[seen]).all()
        np.testing.assert_allclose(found.low[seen], -found.high.T[seen], atol=1e-6)
        assert math.isfinite(found.critical)
        apart = seen & ~np.eye(len(seen), dtype=bool)
        assert (found.error[apart] > 0).all()


@named
def test_win_rates(name: str) -> None:
    votes = DEGENERATE[name]
    ratings = fit(votes)
    rates = win_rates(votes, ratings)
    met = np.zeros(rates.observed.shape, dtype=bool)
    met[votes.a, votes.b] = met[votes.b, votes.a] = True
    require_finite_where(met, rates.observed)
    require_finite_where(np.logical_or.reduce(met, axis=1), rates.overall)
    require_finite_where(pairs(ratings) & ~np.eye(len(met), dtype=bool), rates.expected)
    assert (rates.observed[met] >= 0).all()
    np.testing.assert_allclose(rates.observed[met] + rates.observed.T[met], 1)


@named
def test_second_opinions(name: str) -> None:
    """Davidson, the online Elo and the voters' discriminants."""
    votes = DEGENERATE[name]
    ratings = fit(votes)
    ties = davidson(votes)
    assert ties.comparable.tolist() == ratings.comparable.tolist()
    require_finite_where(ratings.comparable, ties.elo)
    require_finite_where(pairs(ratings), ties.covariance)
    assert 0 < ties.tie < math.inf

    seen = np.isin(np.arange(votes.n_versions), [votes.a, votes.b])
    require_finite_where(seen, online_elo(votes))

    sharp = discriminants(votes)
    assert sharp.comparable.tolist() == ratings.comparable.tolist()
    require_finite_where(ratings.comparable, sharp.elo)
    known = ratings.comparable[votes.a]
    assert sharp.voter.tolist() == np.unique(votes.voter[known]).tolist()
    assert np.isfinite(sharp.discriminant).all()
    assert np.average(sharp.discriminant, weights=sharp.votes) == pytest.approx(1)
    assert (sharp.error > 0).all()
    assert np.isfinite(sharp.error).all()


@named
def test_side_a_held_equal(name: str) -> None:
    """Where every pair was shown one way round, in no circle, a side says no more than a version.

    Then the column of ones for side A adds nothing to the rank of the table of versions.
    """
    votes = DEGENERATE[name]
    ratings = fit(votes)
    known = ratings.comparable[votes.a]
    table = np.eye(votes.n_versions)[votes.a] - np.eye(votes.n_versions)[votes.b]
    with_side = np.column_stack([table, np.ones(votes.n_votes)])
    if np.linalg.matrix_rank(with_side[known]) == np.linalg.matrix_rank(table[known]):
        with pytest.raises(ValueError, match="cannot be estimated; leave it out"):
            contextual(votes, ())
        found = contextual(votes, (), side_a=False)
        np.testing.assert_allclose(
            found.elo[ratings.comparable], ratings.elo[ratings.comparable], atol=1e-4
        )
    else:
        found = contextual(votes, ())
    assert found.comparable.tolist() == ratings.comparable.tolist()
    require_finite_where(ratings.comparable, found.elo)
    require_bounds(ratings, found.elo, found.low, found.high)
    assert np.isfinite([found.effect, found.effect_low, found.effect_high]).all()
    assert (found.effect_low < found.effect).all()
    assert (found.effect < found.effect_high).all()


@named
def test_what_first_place_hangs_on(name: str) -> None:
    votes = DEGENERATE[name]
    ratings = fit(votes)
    if whole(votes):
        fewest = fewest_votes_to_change_leader(votes, ratings)
        total = votes.collapse().votes.sum()
        assert ratings.comparable[fewest.leader]
        if fewest.removed is None:
            assert (fewest.new_leader, fewest.votes) == (None, 0)
            assert math.isnan(fewest.share)
        else:
            assert fewest.new_leader not in (None, fewest.leader)
            assert 1 <= fewest.votes < total
            assert fewest.removed.votes.sum() == fewest.votes
            assert fewest.share == pytest.approx(fewest.votes / total)
    else:
        with pytest.raises(ValueError, match="a weight that is not whole"):
            fewest_votes_to_change_leader(votes, ratings)

    most = most_influential(votes, ratings)
    assert most.lead >= 0
    assert most.leader != most.runner_up
    for removal, label in ((most.voter, votes.voter), (most.prompt, votes.prompt)):
        assert (removal is None) == (np.unique(label).size == 1)
        if removal is not None:
            assert removal.votes == np.count_nonzero(label == removal.number)
            assert not math.isinf(removal.lead)


@named
def test_agreement(name: str) -> None:
    votes = DEGENERATE[name]
    found = agreement(votes, rng=np.random.default_rng(0), replicates=REPLICATES)
    for low, middle, high, least in (
        (found.alpha_low, found.alpha, found.alpha_high, -1.0),
        (found.same_low, found.same_again, found.same_high, 0.0),
        (found.a_low, found.a_share, found.a_high, 0.0),
    ):
        assert math.isnan(low) == math.isnan(high)
        if math.isnan(middle):
            assert math.isnan(low)
        else:
            assert least <= middle <= 1
        if not math.isnan(low):
            assert least <= low <= high <= 1
    assert math.isnan(found.same_again) == (found.repeats == 0)
    assert math.isnan(found.a_share) == (found.decided == 0)
    if found.units == 0:
        assert math.isnan(found.alpha)


@named
def test_what_a_vote_is_worth(name: str) -> None:
    votes = DEGENERATE[name]
    ratings = fit(votes)
    apart = pairs(ratings) & ~np.eye(votes.n_versions, dtype=bool)
    for covariance in (
        ratings.covariance,
        sandwich(votes, ratings).covariance,
        *(np.cov(draws.T) for draws in draws_of(votes)),
    ):
        worth = vote_worth(ratings, covariance)
        require_finite_where(apart, worth)
        assert (worth[apart] >= 0).all()


@named
def test_slices(name: str) -> None:
    """Half of the votes, all of them and none."""
    votes = DEGENERATE[name]
    ratings = fit(votes)
    order = np.arange(votes.n_votes)
    members = np.stack([order < votes.n_votes / 2, order >= 0, order < 0])
    found = rate_slices(votes, ratings, members)
    assert not found.comparable[2].any()
    require_finite_where(found.comparable, found.raw, found.pooled, found.share)
    # What the category does not know of a version, its slices do not know.
    for end, side, endless in ((found.low, "above", -math.inf), (found.high, "below", math.inf)):
        open_end = found.comparable & (ratings.bounded == side)
        assert (end[open_end] == endless).all()
        require_finite_where(found.comparable, np.where(open_end, 0.0, end))
    assert not found.comparable[:, ~ratings.comparable].any()
    assert (found.low[found.comparable] <= found.pooled[found.comparable]).all()
    assert (found.pooled[found.comparable] <= found.high[found.comparable]).all()
    for comparable, covariance, spread in zip(
        found.comparable, found.covariance, found.spread, strict=True
    ):
        require_finite_where(comparable[:, None] & comparable[None, :], covariance)
        assert math.isnan(spread) == (not comparable.any())
    tested = ~np.isnan(found.p_value)
    assert not (tested & ~found.comparable).any()
    assert ((found.p_value[tested] >= 0) & (found.p_value[tested] <= 1)).all()
    # Nothing is said of how all the votes differ from all the votes.
    assert not tested[1].any()
    assert not found.discovery[1].any()


# What little the votes say, and no more --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "version"), [("a version with one vote", D), ("a version that only tied", C)]
)
def test_ties_alone_are_no_certainty(name: str, version: int) -> None:
    """A version with nothing but ties is as unsure as its few votes make it: half as much at least.

    One tie leaves 800 Elo points open, and fourteen 240, if the likelihood's curvature is asked.
    """
    votes = DEGENERATE[name]
    ratings = fit(votes)
    by_curvature = 2 * 1.96 * math.sqrt(ratings.covariance[version, version])
    for draws in draws_of(votes):
        low, high = rating_interval(ratings, draws)
        assert high[version] - low[version] > by_curvature / 2
        error = rank(ratings, draws).differences.error
        assert error[version, A] > 30


def test_many_ties_are_some_certainty() -> None:
    """Half of the votes tied: the variance is half of what the curvature takes it for."""
    votes = votes_of([(A, B, TIE, 200), *both_ways([(A, B)], 100)], 2)
    ratings = fit(votes)
    draws = vote_bootstrap(votes, rng=np.random.default_rng(0), replicates=2000)
    low, high = rating_interval(ratings, draws)
    by_curvature = 2 * 1.96 * np.sqrt(np.diagonal(ratings.covariance))
    np.testing.assert_allclose((high - low) / by_curvature, math.sqrt(0.5), rtol=0.07)


@pytest.mark.parametrize("name", ["all ties", "a version that only tied"])
def test_ties_alone_are_no_certainty_on_a_slice(name: str) -> None:
    votes = DEGENERATE[name]
    found = rate_slices(votes, fit(votes), np.ones((1, votes.n_votes), dtype=bool))
    assert (found.high[found.comparable] - found.low[found.comparable] > 30).all()
