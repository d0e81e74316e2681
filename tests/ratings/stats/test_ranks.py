"""Ranks claim no more than the simultaneous intervals show."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import studentized_range

from ratings.stats import (
    ELO_PER_LOGIT,
    Comparisons,
    PairCounts,
    Ratings,
    difference_intervals,
    fit,
    rank,
    vote_bootstrap,
    win_rates,
)

pytestmark = pytest.mark.filterwarnings("error")

Simulate = Callable[..., Comparisons]


def ratings_of(elo: list[float]) -> Ratings:
    """Ratings as a fit returns them, for draws made by hand; NaN is not comparable."""
    values = np.array(elo)
    comparable = ~np.isnan(values)
    return Ratings(
        elo=values,
        comparable=comparable,
        bounded=np.full(values.size, "", dtype="<U5"),
        core=comparable,
        covariance=np.where(np.outer(comparable, comparable), np.eye(values.size), np.nan),
        iterations=3,
        gradient_norm=0.0,
    )


def normal_draws(
    seed: int, ratings: Ratings, spread: float | list[float], n: int = 4000
) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    drawn: NDArray[np.float64] = ratings.elo + spread * rng.normal(size=(n, ratings.elo.size))
    return drawn


def test_critical_value_is_tukeys_for_equal_independent_draws() -> None:
    """For k independent normal means max-t is Tukey's studentised range over the root of two."""
    ratings = ratings_of([1000.0] * 6)
    differences = difference_intervals(ratings, normal_draws(1, ratings, 10.0, 20_000))
    tukey = studentized_range.ppf(0.95, 6, np.inf) / np.sqrt(2)
    assert differences.critical == pytest.approx(tukey, rel=0.02)
    np.testing.assert_allclose(differences.error[0, 1:], 10 * np.sqrt(2), rtol=0.03)


def test_intervals_hold_together_for_the_level_of_draws() -> None:
    ratings = ratings_of([1000.0, 1020.0, 990.0, 1100.0])
    draws = normal_draws(2, ratings, [5.0, 20.0, 10.0, 40.0], 2000)
    found = difference_intervals(ratings, draws, 0.9)
    difference = draws[:, :, None] - draws[:, None, :]
    inside = (found.low <= difference) & (difference <= found.high)
    assert inside.all(axis=(1, 2)).mean() == pytest.approx(0.9, abs=0.002)


def test_rank_ranges_by_hand() -> None:
    """Two near the top, one alone, two near the bottom, one that cannot be compared."""
    ratings = ratings_of([1195.0, 900.0, 1200.0, np.nan, 1000.0, 905.0])
    ranks = rank(ratings, normal_draws(3, ratings, 5.0))
    assert ranks.low.tolist() == [1, 4, 1, 0, 3, 4]
    assert ranks.high.tolist() == [2, 5, 2, 0, 3, 5]


def test_a_version_with_few_votes_may_be_anywhere() -> None:
    ratings = ratings_of([1200.0, 1000.0, 990.0])
    ranks = rank(ratings, normal_draws(3, ratings, [5.0, 5.0, 300.0]))
    assert ranks.low.tolist() == [1, 2, 1]
    assert ranks.high.tolist() == [2, 3, 3]


def test_one_vote_decides_nothing() -> None:
    """Resampling one vote always gives that vote; the curvature still says how little it is."""
    counts = PairCounts([0], [1], [1], [0], [0], 2)
    ratings = fit(counts)
    draws = vote_bootstrap(counts, rng=np.random.default_rng(0), replicates=100)
    ranks = rank(ratings, draws)
    assert (ranks.low.tolist(), ranks.high.tolist()) == ([1, 1], [2, 2])


def test_a_perfect_record_of_many_votes_decides() -> None:
    counts = PairCounts([0, 0, 1], [1, 2, 2], [100, 100, 50], [0, 0, 50], [0, 0, 0], 3)
    ratings = fit(counts)
    draws = vote_bootstrap(counts, rng=np.random.default_rng(0))
    ranks = rank(ratings, draws)
    assert ranks.low.tolist() == [1, 2, 2]
    assert ranks.high.tolist() == [1, 3, 3]


def test_ties_alone_decide_nothing() -> None:
    counts = PairCounts([0, 1], [1, 2], [0, 0], [0, 0], [50, 50], 3)
    ratings = fit(counts)
    draws = vote_bootstrap(counts, rng=np.random.default_rng(0), replicates=100)
    ranks = rank(ratings, draws)
    assert ranks.low.tolist() == [1, 1, 1]
    assert ranks.high.tolist() == [3, 3, 3]


def test_the_true_order_lies_in_the_rank_ranges(simulate: Simulate) -> None:
    """All ranges together in at least 95 % of data sets; 60 sets, three errors of the share."""
    rng = np.random.default_rng(21)
    truth = np.array([0.6, 0.4, 0.1, 0.0, -0.4])
    rank_of = np.arange(1, 6)
    held = []
    for _ in range(60):
        votes = simulate(rng, truth, 600, tie_share=0.0)
        ranks = rank(fit(votes), vote_bootstrap(votes, rng=rng, replicates=300))
        held.append(np.all((ranks.low <= rank_of) & (rank_of <= ranks.high)))
    assert np.mean(held) >= 0.86


def test_the_ranges_narrow_with_votes(simulate: Simulate) -> None:
    widths = []
    for n_votes in (200, 5_000, 125_000):
        rng = np.random.default_rng(4)
        votes = simulate(rng, np.linspace(-0.5, 0.5, 6), n_votes)
        ranks = rank(fit(votes), vote_bootstrap(votes, rng=rng, replicates=300))
        widths.append(int(np.sum(ranks.high - ranks.low)))
    assert widths[0] > widths[1] > widths[2] == 0


def test_win_rates_by_hand() -> None:
    counts = PairCounts([0, 1], [1, 2], [6, 1], [2, 1], [2, 0], 4)
    ratings = fit(counts)
    rates = win_rates(counts, ratings)
    assert rates.observed[0, 1] == 0.7
    assert rates.observed[1, 0] == pytest.approx(0.3)
    assert np.isnan(rates.observed[0, 2])
    assert rates.votes.tolist() == [[0, 10, 0, 0], [10, 0, 2, 0], [0, 2, 0, 0], [0] * 4]
    np.testing.assert_allclose(rates.overall[:3], [0.7, 4 / 12, 0.5])
    assert np.isnan(rates.overall[3])
    odds = 10 ** ((ratings.elo[0] - ratings.elo[2]) / 400)
    assert rates.expected[0, 2] == pytest.approx(odds / (1 + odds))
    assert np.isnan(rates.expected[3]).all()
    assert np.isnan(np.diagonal(rates.expected)).all()


def test_expected_wins_add_up_to_observed_ones(simulate: Simulate) -> None:
    """The likelihood equations: each version's expected wins are its observed ones."""
    votes = simulate(np.random.default_rng(0), np.linspace(-1, 1, 5), 2000)
    rates = win_rates(votes, fit(votes, prior=np.inf))
    expected = np.nansum(rates.expected * rates.votes, axis=1)
    observed = np.nansum(rates.observed * rates.votes, axis=1)
    np.testing.assert_allclose(expected, observed, atol=1e-4)


def test_draws_of_other_votes_are_refused() -> None:
    ratings = ratings_of([1000.0, 1010.0, np.nan])
    with pytest.raises(ValueError, match=r"shape \(5, 2\)"):
        rank(ratings, np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"shape \(1, 3\)"):
        rank(ratings, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="disagree on which versions are comparable"):
        rank(ratings, np.zeros((5, 3)))


def test_scale_of_the_errors_is_elo() -> None:
    """1,000 votes at even odds: a standard error of the difference of 0.0632 logits."""
    counts = PairCounts([0], [1], [500], [500], [0], 2)
    draws = vote_bootstrap(counts, rng=np.random.default_rng(0), replicates=3000)
    error = difference_intervals(fit(counts), draws).error[0, 1]
    assert error == pytest.approx(ELO_PER_LOGIT * np.sqrt(4 / 1000), rel=0.05)
