"""What a vote is worth, against fits that have the vote."""

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratings.elo_scale import ELO_PER_LOGIT
from ratings.stats import Comparisons, PairCounts, Ratings, fit, vote_bootstrap
from ratings.stats.comparisons import FloatArray
from ratings.stats.exploring import vote_worth

pytestmark = pytest.mark.filterwarnings("error")

Simulate = Callable[..., Comparisons]


def with_one_more(counts: PairCounts, first: int, second: int, share: float) -> PairCounts:
    """Add one vote to a pair, `share` of it won by the first version."""
    n = counts.n_versions
    cells = np.zeros((3, n, n))
    cells[:, counts.first, counts.second] = counts.first_won, counts.second_won, counts.tied
    cells[:2, first, second] += share, 1 - share
    met = np.nonzero(cells.sum(axis=0))
    return PairCounts(*met, *cells[:, *met], n)


def widths(ratings: Ratings) -> float:
    """Full widths of the 95 % intervals by curvature, all together."""
    return float(2 * 1.959964 * np.sqrt(np.diagonal(ratings.covariance)).sum())


# 0 won its votes against 1 and 2 alone, 5 lost its votes against 4.
ONE_SIDED = PairCounts(
    [0, 0, 1, 1, 2, 3, 4], [1, 2, 2, 3, 4, 4, 5], [3, 6, 20, 8, 12, 9, 2], [0, 0, 15, 9, 8, 11, 0],
    [0, 0, 3, 1, 0, 2, 0], 6,
)  # fmt: skip


@pytest.mark.parametrize("board", ["all in the core", "some outside"])
def test_a_vote_that_says_what_was_expected_shrinks_the_intervals_by_its_worth(
    simulate: Simulate, board: str
) -> None:
    """Shared out as the ratings expect, a vote moves no rating: only its information is new."""
    counts = simulate(np.random.default_rng(3), [0.9, 0.2, 0.0, -0.3, -0.8], 60).collapse()
    if board == "some outside":
        counts = ONE_SIDED
    ratings = fit(counts)
    assert ratings.core.all() == (board == "all in the core")
    worth = vote_worth(ratings, ratings.covariance)
    for first, second in combinations(range(counts.n_versions), 2):
        expected = 1 / (1 + 10 ** ((ratings.elo[second] - ratings.elo[first]) / 400))
        after = fit(with_one_more(counts, first, second, expected))
        np.testing.assert_allclose(after.elo, ratings.elo, atol=1e-3)
        assert worth[first, second] == pytest.approx(widths(ratings) - widths(after), rel=1e-4)


def test_half_a_vote_on_each_side_shrinks_them_nearly_so(simulate: Simulate) -> None:
    counts = simulate(np.random.default_rng(3), [0.3, 0.2, 0.0, -0.3, -0.2], 400).collapse()
    ratings = fit(counts)
    worth = vote_worth(ratings, ratings.covariance)
    for first, second in combinations(range(5), 2):
        shrunken = widths(ratings) - widths(fit(with_one_more(counts, first, second, 0.5)))
        assert worth[first, second] == pytest.approx(shrunken, rel=0.1)


def test_two_versions_by_hand() -> None:
    """100 votes at even odds: the difference's variance goes from 4/100 to 4/101 square logits.

    Each rating is half the difference away from their mean.
    """
    ratings = fit(PairCounts([0], [1], [50], [50], [0], 2), prior=math.inf)
    by_hand = 2 * 2 * 1.959964 * ELO_PER_LOGIT / 2 * (math.sqrt(4 / 100) - math.sqrt(4 / 101))
    assert vote_worth(ratings, ratings.covariance)[0, 1] == pytest.approx(by_hand, rel=1e-4)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(0, 2)),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 2**32 - 1),
)
def test_a_vote_never_widens(votes: list[tuple[int, int, int]], seed: int) -> None:
    """Symmetric, positive where defined, whatever the votes and however few draws."""
    a = np.array([vote[0] for vote in votes])
    b = (a + [vote[1] for vote in votes]) % 5
    given_votes = Comparisons(a, b, [vote[2] for vote in votes], 0 * a, 0 * a, 5)
    ratings = fit(given_votes)
    draws = vote_bootstrap(given_votes, rng=np.random.default_rng(seed), replicates=8)
    worth = vote_worth(ratings, np.cov(draws, rowvar=False))
    np.testing.assert_allclose(worth, worth.T, rtol=1e-6)
    known = np.outer(ratings.comparable, ratings.comparable) & ~np.eye(5, dtype=bool)
    assert (worth[known] > 0).all()
    assert np.isnan(worth[~known]).all()


def test_an_uncertain_version_is_worth_more_than_two_certain_ones(simulate: Simulate) -> None:
    """Version 3 has 8 votes and the others hundreds; close opponents beat distant ones."""
    many = simulate(np.random.default_rng(5), [1.5, 0.1, -0.1], 900).collapse()
    counts = PairCounts(
        [*many.first, 1, 2], [*many.second, 3, 3], [*many.first_won, 2, 2],
        [*many.second_won, 2, 2], [*many.tied, 0, 0], 4,
    )  # fmt: skip
    ratings = fit(counts)
    worth = vote_worth(ratings, ratings.covariance)
    assert (
        min(worth[3, 1], worth[3, 2])
        > worth[3, 0]
        > 5 * worth[:3, :3][~np.eye(3, dtype=bool)].max()
    )


def bootstrap_covariance(counts: PairCounts) -> FloatArray:
    draws = vote_bootstrap(counts, rng=np.random.default_rng(0), replicates=200)
    covariance: FloatArray = np.cov(draws, rowvar=False)
    return covariance


def test_a_version_that_won_every_vote_is_uncertain_though_its_draws_agree() -> None:
    """0 won its 6 votes against 1: draws hardly vary it, yet its next vote tells most."""
    counts = PairCounts(
        [0, 1, 1, 2], [1, 2, 3, 3], [6, 200, 200, 200], [0, 200, 200, 200], [0] * 4, 4
    )
    ratings = fit(counts)
    covariance = bootstrap_covariance(counts)
    assert ratings.core.tolist() == [False, True, True, True]
    assert covariance[0, 0] < ratings.covariance[0, 0] / 4
    worth = vote_worth(ratings, covariance)
    assert worth[0, 1:].min() > 2 * worth[1:, 1:][~np.eye(3, dtype=bool)].max()
    by_curvature = vote_worth(ratings, ratings.covariance)
    np.testing.assert_allclose(worth[0, 1:], by_curvature[0, 1:], rtol=0.05)


def test_two_that_never_lost_to_the_core_are_placed_by_votes_against_it() -> None:
    """0 and 1 met 200 times and beat all others: what is not known is their common place."""
    counts = PairCounts(
        [0, 0, 1, 2, 2, 3], [1, 2, 3, 3, 4, 4], [100, 5, 5, 60, 60, 60],
        [100, 0, 0, 60, 60, 60], [0] * 6, 5,
    )  # fmt: skip
    ratings = fit(counts)
    assert ratings.core.tolist() == [False, False, True, True, True]
    worth = vote_worth(ratings, bootstrap_covariance(counts))
    assert worth[0, 2] > 5 * worth[0, 1]


def test_one_vote_has_no_draws_that_vary() -> None:
    counts = PairCounts([0], [1], [1], [0], [0], 2)
    ratings = fit(counts)
    worth = vote_worth(ratings, bootstrap_covariance(counts))
    np.testing.assert_allclose(worth, vote_worth(ratings, ratings.covariance))
    assert worth[0, 1] > 10


def test_the_anchor_changes_nothing(simulate: Simulate) -> None:
    votes = simulate(np.random.default_rng(4), [0.5, 0.0, -0.2, 3.0], 80)
    for anchor in (None, (1, 1000.0)):
        draws = vote_bootstrap(votes, rng=np.random.default_rng(1), replicates=50, anchor=anchor)
        worth = vote_worth(fit(votes, anchor=anchor), np.cov(draws, rowvar=False))
        if anchor is None:
            expected = worth
    np.testing.assert_allclose(worth, expected, rtol=1e-6)


def test_bad_covariances(simulate: Simulate) -> None:
    ratings = fit(simulate(np.random.default_rng(0), [0.0, 0.1, 0.2], 50))
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        vote_worth(ratings, np.eye(2))
    with pytest.raises(ValueError, match="no value for some versions"):
        vote_worth(ratings, np.full((3, 3), np.nan))
