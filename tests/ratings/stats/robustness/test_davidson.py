"""The ties model against published figures, hand calculation, an optimiser and odd votes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from ratings.stats import ELO_PER_LOGIT, Comparisons, NotConverged, PairCounts, fit
from ratings.stats.robustness.davidson import TIE_PRIOR, davidson

pytestmark = pytest.mark.filterwarnings("error")

Float = NDArray[np.float64]

# Chocolate pudding of six brands, Davidson (1970), example 2: brands i and j, then how many
# preferred i, preferred j, and had no preference.
PUDDING = [
    (1, 2, 19, 22, 16),
    (1, 3, 16, 19, 12),
    (2, 3, 19, 19, 10),
    (1, 4, 18, 23, 13),
    (2, 4, 23, 19, 9),
    (3, 4, 19, 20, 15),
    (1, 5, 13, 19, 18),
    (2, 5, 16, 20, 12),
    (3, 5, 16, 15, 17),
    (4, 5, 17, 14, 16),
    (1, 6, 18, 21, 12),
    (2, 6, 22, 20, 12),
    (3, 6, 13, 18, 10),
    (4, 6, 14, 19, 18),
    (5, 6, 11, 21, 12),
]


def pudding() -> PairCounts:
    first, second, won, lost, tied = np.array(PUDDING).T
    return PairCounts(first - 1, second - 1, won, lost, tied, 6)


def chances(margin: Float, log_tie: float) -> Float:
    """Win, loss and tie as Davidson writes them, shape (3, n)."""
    terms = np.stack([np.exp(margin), np.ones_like(margin), np.exp(log_tie + margin / 2)])
    shares: Float = terms / terms.sum(axis=0)
    return shares


def test_chocolate_pudding() -> None:
    """Worths, nu and standard errors as printed in the vignette of the R package PlackettLuce.

    Its iteration was cut off after seven rounds to give Davidson's own worths, so the last
    digits printed are not the maximum's.
    """
    result = davidson(pudding(), prior=math.inf, anchor=(0, 0.0))
    logits = result.elo / ELO_PER_LOGIT
    worth = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(
        worth, [0.1388005, 0.1729985, 0.1617420, 0.1653930, 0.1586805, 0.2023855], atol=3e-5
    )
    assert result.tie == pytest.approx(0.7468147, abs=3e-5)
    np.testing.assert_allclose(
        np.sqrt(np.diagonal(result.covariance)) / ELO_PER_LOGIT,
        [0, 0.1872168, 0.1935181, 0.1882110, 0.1927043, 0.1924059],
        atol=2e-6,
    )


def test_two_versions_by_hand() -> None:
    """The chances are the shares: odds 3 of a decided vote, nu = ties / sqrt(wins losses)."""
    result = davidson(PairCounts([0], [1], [30], [10], [20], 2), prior=math.inf)
    assert result.elo[0] - result.elo[1] == pytest.approx(400 * math.log10(3), abs=1e-6)
    assert result.elo.mean() == pytest.approx(1000)
    assert result.tie == pytest.approx(20 / math.sqrt(300), abs=1e-9)


def test_without_a_tie_nu_goes_and_bradley_terry_stays() -> None:
    counts = PairCounts([0, 0, 1], [1, 2, 2], [900, 700, 400], [500, 800, 300], [0, 0, 0], 3)
    result = davidson(counts)
    assert result.tie < 0.01
    np.testing.assert_allclose(result.elo, fit(counts).elo, atol=0.2)


@pytest.mark.parametrize("prior", [100.0, 400.0, math.inf])
def test_agrees_with_an_optimiser_on_every_single_vote(prior: float) -> None:
    votes = simulated(np.random.default_rng(3), np.linspace(-1, 1, 6), 0.7, 1200)
    precision = (ELO_PER_LOGIT / prior) ** 2

    def loss(x: Float) -> float:
        share = chances(x[votes.a] - x[votes.b], x[6])
        penalty = precision * np.sum(x[:6] ** 2) / 2
        if math.isfinite(prior):
            penalty += (x[6] / TIE_PRIOR) ** 2 / 2
        return float(penalty - np.log(share[votes.outcome, np.arange(votes.n_votes)]).sum())

    found = minimize(loss, np.zeros(7), method="BFGS", options={"gtol": 1e-4}).x
    result = davidson(votes, prior=prior)
    expected = 1000 + ELO_PER_LOGIT * (found[:6] - found[:6].mean())
    np.testing.assert_allclose(result.elo, expected, atol=0.01)
    assert math.log(result.tie) == pytest.approx(found[6], abs=1e-4)


def test_strengths_and_ties_come_back() -> None:
    logits = np.array([-1.0, -0.2, 0.1, 0.3, 0.8])
    votes = simulated(np.random.default_rng(8), logits, 0.5, 200_000)
    result = davidson(votes)
    error = np.sqrt(np.diagonal(result.covariance))
    assert np.all(np.abs(result.elo - 1000 - ELO_PER_LOGIT * logits) < 4 * error)
    assert np.all(error < 3)
    assert result.tie == pytest.approx(0.5, abs=0.01)
    # Ties as half wins pull the leaderboard's ratings together.
    assert np.ptp(fit(votes).elo) < 0.9 * np.ptp(result.elo)


def test_the_prior_on_ties_is_weak() -> None:
    """As its comment says: a hundredth of the standard error at 300 votes with 20 % ties."""
    counts = PairCounts([0], [1], [130], [110], [60], 2)
    free, held = davidson(counts, prior=math.inf), davidson(counts)
    error = math.sqrt(1 / 60 + 1 / 520 + 1 / 440)  # of log nu = log ties - log(won lost) / 2
    assert 0.001 < abs(math.log(held.tie / free.tie)) / error < 0.015


@pytest.mark.parametrize(
    ("won", "lost", "tied"), [(9, 0, 0), (0, 0, 9), (0, 0, 1), (1, 0, 0), (9, 0, 9), (5, 5, 0)]
)
def test_one_kind_of_answer_stays_finite(won: int, lost: int, tied: int) -> None:
    counts = PairCounts([0], [1], [won], [lost], [tied], 2)
    result = davidson(counts)
    assert np.isfinite(result.elo).all()
    assert 0 < result.tie < math.inf
    assert (result.elo[0] > result.elo[1]) == (won > lost)
    with pytest.raises(NotConverged, match="give a finite prior"):
        davidson(counts, prior=math.inf)


def test_very_many_votes_are_no_trouble() -> None:
    result = davidson(PairCounts([0, 1], [1, 2], [10**8, 1], [3, 0], [7, 2], 3))
    assert np.isfinite(result.elo).all()
    assert result.elo[0] > result.elo[1]
    # From here Newton's method runs off if its steps are not shortened.
    lopsided = PairCounts([0, 0, 1], [1, 2, 2], [0, 2, 0], [2, 0, 340278], [39330, 93, 0], 3)
    assert np.isfinite(davidson(lopsided, prior=357.0).elo).all()


def test_a_fit_beyond_double_precision_says_so() -> None:
    with pytest.raises(NotConverged, match="Use a stronger prior"):
        davidson(PairCounts([0], [1], [10**15], [0], [0], 2), prior=1e100)


def test_versions_that_no_vote_connects_have_no_rating() -> None:
    result = davidson(PairCounts([0, 1, 3], [1, 2, 4], [3, 2, 9], [2, 2, 9], [1, 1, 0], 6))
    assert result.comparable.tolist() == [True, True, True, False, False, False]
    assert np.isnan(result.elo).tolist() == [False, False, False, True, True, True]
    assert np.isnan(result.covariance[3]).all()


def test_the_anchor_moves_all_by_the_same() -> None:
    plain, anchored = davidson(pudding()), davidson(pudding(), anchor=(2, 1200.0))
    assert anchored.elo[2] == pytest.approx(1200)
    np.testing.assert_allclose(np.diff(anchored.elo), np.diff(plain.elo), atol=1e-9)
    assert anchored.covariance[2, 2] == 0
    assert anchored.tie == plain.tie


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": 0.0}, "prior is 0.0; it must be a positive number"),
        ({"anchor": (9, 1000.0)}, "version 9; it must be from 0 to 5"),
    ],
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        davidson(pudding(), **options)  # type: ignore[arg-type]


# Properties ------------------------------------------------------------------------------------

count = st.integers(0, 20)
answers = st.tuples(count, count, count).filter(any)


@settings(deadline=None, max_examples=60)
@given(st.lists(answers, min_size=10, max_size=10))
def test_finite_and_the_same_for_either_side(rows: list[tuple[int, int, int]]) -> None:
    first, second = np.triu_indices(5, 1)
    won, lost, tied = np.array(rows).T
    result = davidson(PairCounts(first, second, won, lost, tied, 5))
    assert np.isfinite(result.elo).all()
    assert result.elo.mean() == pytest.approx(1000)
    # Versions numbered from the other end: each pair is seen from its other side.
    mirrored = davidson(PairCounts(4 - second, 4 - first, lost, won, tied, 5))
    np.testing.assert_allclose(mirrored.elo[::-1], result.elo, atol=1e-4)
    assert mirrored.tie == pytest.approx(result.tie, rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=10, max_size=10))
def test_where_all_met_equally_often_the_points_decide_the_order(
    rows: list[tuple[int, int]],
) -> None:
    first, second = np.triu_indices(5, 1)
    won, tied = np.array(rows).T
    tied = np.minimum(tied, 12 - won)
    counts = PairCounts(first, second, won, 12 - won - tied, tied, 5)
    result = davidson(counts)
    points = counts.wins_per_version()
    more = points[:, None] > points[None, :]
    assert np.all((result.elo[:, None] > result.elo[None, :])[more])


def simulated(rng: np.random.Generator, logits: Float, tie: float, n_votes: int) -> Comparisons:
    """Draw votes on random pairs from Davidson's model."""
    n = logits.size
    a = rng.integers(0, n, n_votes)
    b = (a + rng.integers(1, n, n_votes)) % n
    ends = np.cumsum(chances(logits[a] - logits[b], math.log(tie)), axis=0)
    outcome = (rng.random(n_votes) > ends[:2]).sum(axis=0)
    nobody = np.zeros(n_votes, dtype=int)
    return Comparisons(a, b, outcome, nobody, nobody, n)
