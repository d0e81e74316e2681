"""The vote bootstrap spreads as theory says and covers what it claims on independent votes."""

import math
import time
from collections.abc import Callable

import numpy as np
import pytest

from ratings.stats import (
    ELO_PER_LOGIT,
    Comparisons,
    PairCounts,
    fit,
    percentile_interval,
    rating_interval,
    vote_bootstrap,
)
from ratings.stats.bootstrap import draw_multinomial

pytestmark = pytest.mark.filterwarnings("error")

Simulate = Callable[..., Comparisons]


def test_replicates_are_the_fits_of_resampled_votes(simulate: Simulate) -> None:
    """Solved together from the shared matrix, each equals a fit of its own."""
    votes = simulate(np.random.default_rng(1), [0.0, 0.3, -0.5, 1.0], 60)
    counts = votes.collapse()
    draws = vote_bootstrap(counts, rng=np.random.default_rng(4), replicates=25)
    cells = np.stack([counts.first_won, counts.second_won, counts.tied])
    seen = cells > 0
    # The same generator, asked the same question, gives the same resampled votes.
    own = np.random.default_rng(4).spawn(1)[0]
    drawn = draw_multinomial(own, cells[seen].astype(np.int64), 25)
    for replicate, numbers in enumerate(drawn):
        again = np.zeros_like(cells)
        again[seen] = numbers
        kept = again.sum(axis=0) > 0
        won, lost, tied = again[:, kept]
        ratings = fit(PairCounts(counts.first[kept], counts.second[kept], won, lost, tied, 4))
        assert ratings.comparable.all()
        np.testing.assert_allclose(draws[replicate], ratings.elo, atol=1e-4)


@pytest.mark.parametrize(
    "numbers", [[1], [2, 1], [3, 0, 5, 1], [400, 900, 30, 7], [20_000, 70_000]]
)
def test_votes_drawn_are_multinomial(numbers: list[int]) -> None:
    """Every draw has n votes; means and covariances are those of the multinomial law."""
    cells = np.array(numbers)
    n, size = cells.sum(), 40_000
    drawn = draw_multinomial(np.random.default_rng(3), cells, size)
    assert (drawn.sum(axis=1) == n).all()
    assert (drawn >= 0).all()
    share = cells / n
    covariance = n * (np.diag(share) - np.outer(share, share))
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(
        drawn.mean(axis=0), cells, atol=4.5 * deviation.max() / math.sqrt(size) + 1e-12
    )
    scale = np.outer(deviation, deviation)
    observed = np.cov(drawn.T).reshape(covariance.shape)
    assert (np.abs(observed - covariance) <= 6 * scale / math.sqrt(size) + 1e-12).all()


def test_spread_of_two_versions_is_the_binomial_one() -> None:
    """The variance of the log odds of n votes is 1 / (n p (1 - p))."""
    counts = PairCounts([0], [1], [600], [400], [0], 2)
    draws = vote_bootstrap(counts, rng=np.random.default_rng(6), replicates=4000)
    spread = np.std(draws[:, 0] - draws[:, 1]) / ELO_PER_LOGIT
    assert spread == pytest.approx(math.sqrt(1 / (1000 * 0.6 * 0.4)), rel=0.05)


def test_spread_agrees_with_the_curvature(simulate: Simulate) -> None:
    votes = simulate(np.random.default_rng(7), np.linspace(-1, 1, 6), 3000, tie_share=0.0)
    ratings = fit(votes)
    draws = vote_bootstrap(votes, rng=np.random.default_rng(1), replicates=2000)
    expected = np.sqrt(np.diagonal(ratings.covariance))
    np.testing.assert_allclose(draws.std(axis=0), expected, rtol=0.1)
    np.testing.assert_allclose(draws.mean(axis=0), ratings.elo, atol=3)


def test_a_seed_gives_the_same_draws_whatever_the_order_of_rows(simulate: Simulate) -> None:
    counts = simulate(np.random.default_rng(1), [0.0, 0.3, -0.5, 1.0], 200).collapse()
    names = ("first", "second", "first_won", "second_won", "tied")
    backwards = PairCounts(**{name: getattr(counts, name)[::-1] for name in names}, n_versions=4)
    one, other, third = (
        vote_bootstrap(given, rng=np.random.default_rng(seed), replicates=20)
        for given, seed in ((counts, 5), (backwards, 5), (counts, 6))
    )
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)


def test_the_anchor_holds_in_every_draw(simulate: Simulate) -> None:
    votes = simulate(np.random.default_rng(1), [0.0, 0.3, -0.5], 200)
    ratings = fit(votes, anchor=(1, 1100.0))
    draws = vote_bootstrap(votes, rng=np.random.default_rng(0), replicates=50, anchor=(1, 1100.0))
    np.testing.assert_allclose(draws[:, 1], 1100, atol=1e-9)
    low, high = rating_interval(ratings, draws)
    assert low[1] == pytest.approx(1100)
    assert high[1] == pytest.approx(1100)
    assert low[0] < ratings.elo[0] < high[0]


def test_intervals_cover_on_independent_votes(simulate: Simulate) -> None:
    """80 data sets, 5 versions, about 200 votes each: 400 intervals that claim 95 %.

    The allowed band is about three standard errors of the share, four versions in five of a
    data set being free.
    """
    truth = np.array([-0.8, -0.3, 0.0, 0.3, 0.8])
    rng = np.random.default_rng(12)
    covered = []
    for _ in range(80):
        votes = simulate(rng, truth, 500, tie_share=0.0)
        low, high = percentile_interval(vote_bootstrap(votes, rng=rng, replicates=300))
        covered.append(
            (low <= 1000 + ELO_PER_LOGIT * truth) & (1000 + ELO_PER_LOGIT * truth <= high)
        )
    assert 0.91 <= np.mean(covered) <= 0.98


def test_intervals_are_too_narrow_when_votes_depend_on_each_other(simulate: Simulate) -> None:
    """Each vote counted nine times over claims a third of the width: the documented limit."""
    votes = simulate(np.random.default_rng(3), [0.0, 0.4, -0.4], 300)
    copied = Comparisons(
        np.tile(votes.a, 9),
        np.tile(votes.b, 9),
        np.tile(votes.outcome, 9),
        np.tile(votes.voter, 9),
        np.tile(votes.prompt, 9),
        votes.n_versions,
    )
    honest, narrow = (
        vote_bootstrap(given, rng=np.random.default_rng(0)).std(axis=0) for given in (votes, copied)
    )
    np.testing.assert_allclose(narrow / honest, 1 / 3, rtol=0.1)


def test_intervals_outside_the_core_are_at_least_the_curvatures() -> None:
    """0 beat all, 3 lost to all, 1 and 2 are alike: only those two can vary by resampling."""
    counts = PairCounts(
        [0, 0, 1, 1, 2], [1, 2, 2, 3, 3], [20, 20, 30, 20, 20], [0, 0, 30, 0, 0], [0] * 5, 4
    )
    ratings = fit(counts)
    draws = vote_bootstrap(counts, rng=np.random.default_rng(0))
    low, high = percentile_interval(draws)
    honest_low, honest_high = rating_interval(ratings, draws)
    assert ratings.core.tolist() == [False, True, True, False]
    np.testing.assert_array_equal(honest_low[1:3], low[1:3])
    np.testing.assert_array_equal(honest_high[1:3], high[1:3])
    reach = 1.96 * np.sqrt(np.diagonal(ratings.covariance))
    assert honest_low[0] == pytest.approx(ratings.elo[0] - reach[0], abs=0.1)
    assert honest_high[3] == pytest.approx(ratings.elo[3] + reach[3], abs=0.1)
    assert (honest_high[0], honest_low[3]) == (math.inf, -math.inf)
    assert low[0] - honest_low[0] > 50


def test_percentiles_by_hand() -> None:
    draws = np.stack([np.arange(101.0), np.full(101, np.nan)], axis=1)
    low, high = percentile_interval(draws, 0.9)
    assert (low[0], high[0]) == (pytest.approx(5), pytest.approx(95))
    assert np.isnan([low[1], high[1]]).all()


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, math.nan])
def test_bad_levels(level: float) -> None:
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        percentile_interval(np.zeros((3, 2)), level)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replicates": 0}, "replicates is 0"),
        ({"prior": math.inf}, "needs a finite one"),
        ({"prior": -1.0}, "must be a positive number"),
        ({"anchor": (9, 1000.0)}, "version 9"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    counts = PairCounts([0], [1], [3], [2], [0], 2)
    with pytest.raises(ValueError, match=message):
        vote_bootstrap(counts, rng=np.random.default_rng(0), **options)  # type: ignore[arg-type]


def test_a_thousand_replicates_take_no_longer_with_more_votes(simulate: Simulate) -> None:
    """30 versions and 100,000 votes; about 0.2 s on one core, with room for a busy machine."""
    votes = simulate(np.random.default_rng(1), np.linspace(-1, 1, 30), 100_000)
    counts = votes.collapse()
    start = time.process_time()
    draws = vote_bootstrap(counts, rng=np.random.default_rng(0))
    assert time.process_time() - start < 2
    assert draws.shape == (1000, 30)
    # The same counts a hundredfold are as quick: only the counts grew.
    hundredfold = PairCounts(
        counts.first,
        counts.second,
        100 * counts.first_won,
        100 * counts.second_won,
        100 * counts.tied,
        30,
    )
    start = time.process_time()
    vote_bootstrap(hundredfold, rng=np.random.default_rng(0))
    assert time.process_time() - start < 2
