"""Online Elo by hand, against the textbook formula, and what it is not fit for."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ratings.stats import ELO_PER_LOGIT, Comparisons, fit
from ratings.stats.robustness.online_elo import online_elo

pytestmark = pytest.mark.filterwarnings("error")

Simulate = Callable[..., Comparisons]


def in_order(rows: list[tuple[int, int, int]], n: int, **options: Any) -> Comparisons:
    a, b, outcome = np.array(rows).T
    nobody = np.zeros(len(rows), dtype=int)
    return Comparisons(a, b, outcome, nobody, nobody, n, **options)


def test_three_votes_by_hand() -> None:
    """From equal ratings a win is worth k / 2; 16 points ahead, 0.523 points are expected."""
    ahead = 1 / (1 + 10 ** (-32 / 400))
    rows = [(0, 1, 0)]
    assert online_elo(in_order(rows, 2), k=32).tolist() == [1016, 984]
    rows.append((0, 1, 2))
    after_tie = 1016 + 32 * (0.5 - ahead)
    np.testing.assert_allclose(online_elo(in_order(rows, 2), k=32), [after_tie, 2000 - after_tie])
    rows.append((1, 0, 1))
    expected = 1 / (1 + 10 ** ((2000 - 2 * after_tie) / 400))
    np.testing.assert_allclose(
        online_elo(in_order(rows, 2), k=32)[0], after_tie + 32 * (1 - expected)
    )


def test_agrees_with_the_textbook_vote_by_vote(simulate: Simulate) -> None:
    votes = simulate(np.random.default_rng(1), np.linspace(-1, 1, 6), 3000)
    elo = np.full(6, 1500.0)
    for a, b, outcome in zip(votes.a, votes.b, votes.outcome, strict=True):
        expected = 1 / (1 + 10 ** ((elo[b] - elo[a]) / 400))
        gain = 20 * ((1.0, 0.0, 0.5)[outcome] - expected)
        elo[a] += gain
        elo[b] -= gain
    np.testing.assert_allclose(online_elo(votes, k=20, start=1500), elo, atol=1e-8)


def test_a_version_nobody_saw_has_no_rating() -> None:
    elo = online_elo(in_order([(0, 3, 1)], 5))
    assert np.isnan(elo).tolist() == [False, True, True, False, True]
    assert elo[3] > elo[0]


def test_a_weight_counts_that_many_times() -> None:
    plain = online_elo(in_order([(0, 1, 0)], 2), k=12)
    weighted = online_elo(in_order([(0, 1, 0)], 2, weight=[3.0]), k=4)
    np.testing.assert_allclose(plain, weighted)


def test_another_order_is_another_rating_but_the_same_fit(simulate: Simulate) -> None:
    """The reason why nothing ranks by it."""
    votes = simulate(np.random.default_rng(4), [0.0, 0.2, 0.4, 0.6], 2000)
    backwards = votes.select(np.arange(votes.n_votes)[::-1])
    one, other = online_elo(votes, k=32), online_elo(backwards, k=32)
    assert np.abs(one - other).max() > 20
    np.testing.assert_allclose(fit(backwards).elo, fit(votes).elo, atol=1e-6)


@pytest.mark.parametrize("k", [4.0, 32.0])
def test_it_finds_the_strengths_and_wanders_about_them_as_told(
    simulate: Simulate, k: float
) -> None:
    """The spread about the truth is near sqrt(k ELO_PER_LOGIT / 2), however many the votes."""
    logits = np.linspace(-0.5, 0.5, 40)
    votes = simulate(np.random.default_rng(6), logits, 150_000, tie_share=0.0)
    off = online_elo(votes, k=k) - 1000 - ELO_PER_LOGIT * logits
    assert np.std(off) == pytest.approx(math.sqrt(k * ELO_PER_LOGIT / 2), rel=0.3)


def test_an_absurd_step_overflows_nowhere() -> None:
    elo = online_elo(in_order([(0, 1, 0), (1, 0, 0), (0, 1, 2)], 2), k=1e9)
    assert np.isfinite(elo).all()


@pytest.mark.parametrize("k", [0.0, -4.0, math.inf, math.nan])
def test_bad_steps(k: float) -> None:
    with pytest.raises(ValueError, match=f"k is {k}; it must be a positive, finite number"):
        online_elo(in_order([(0, 1, 0)], 2), k=k)


def test_a_bad_start() -> None:
    with pytest.raises(ValueError, match="start is inf; it must be a finite number"):
        online_elo(in_order([(0, 1, 0)], 2), start=math.inf)
