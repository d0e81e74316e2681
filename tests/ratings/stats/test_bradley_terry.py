"""The fit against published figures, independent estimators, symmetries and bad data."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from ratings.stats import (
    ELO_PER_LOGIT,
    Comparisons,
    NotConverged,
    PairCounts,
    Ratings,
    fit,
    rank,
    rating_interval,
    recentred,
    vote_bootstrap,
)

pytestmark = pytest.mark.filterwarnings("error")

Simulate = Callable[..., Comparisons]
GOLDEN = Path(__file__).parent / "golden" / "six_versions.json"


def counts_from_wins(wins: list[list[int]]) -> PairCounts:
    """Turn a square table, row beats column, into counts."""
    table = np.array(wins)
    first, second = np.triu_indices(len(table), 1)
    met = table[first, second] + table[second, first] > 0
    first, second = first[met], second[met]
    return PairCounts(
        first, second, table[first, second], table[second, first], 0 * first, len(table)
    )


def standard_errors(ratings: Ratings) -> NDArray[np.float64]:
    return np.sqrt(np.diagonal(ratings.covariance)) / ELO_PER_LOGIT


def test_baseball_of_1987() -> None:
    """American League East, 1987: Agresti, Categorical Data Analysis (2nd ed., 2002), table 10.10.

    Coefficients and standard errors as printed for the same data by Turner and Firth, Journal of
    Statistical Software 48(9), 2012 (model without home advantage, Baltimore at zero).
    """
    wins = [
        [0, 7, 9, 7, 7, 9, 11],  # Milwaukee
        [6, 0, 7, 5, 11, 9, 9],  # Detroit
        [4, 6, 0, 7, 7, 8, 12],  # Toronto
        [6, 8, 6, 0, 6, 7, 10],  # New York
        [6, 2, 6, 7, 0, 7, 12],  # Boston
        [4, 4, 5, 6, 6, 0, 6],  # Cleveland
        [2, 4, 1, 3, 1, 7, 0],  # Baltimore
    ]
    ratings = fit(counts_from_wins(wins), prior=math.inf, anchor=(6, 0.0))
    np.testing.assert_allclose(
        ratings.elo / ELO_PER_LOGIT,
        [1.5814, 1.4364, 1.2945, 1.2476, 1.1077, 0.6839, 0.0],
        atol=5e-5,
    )
    np.testing.assert_allclose(
        standard_errors(ratings),
        [0.3433, 0.3396, 0.3367, 0.3359, 0.3339, 0.3319, 0.0],
        atol=5e-5,
    )


def test_citations_between_four_journals() -> None:
    """Stigler, Statistical Science 9, 1994, as in Agresti (2002), page 448.

    A citation is a win of the cited journal. Coefficients and standard errors as printed by
    Turner and Firth (2012) with Biometrika at zero.
    """
    wins = [
        [0, 730, 498, 221],  # Biometrika
        [33, 0, 68, 17],  # Communications in Statistics
        [320, 813, 0, 142],  # JASA
        [284, 276, 325, 0],  # JRSS-B
    ]
    ratings = fit(counts_from_wins(wins), prior=math.inf, anchor=(0, 0.0))
    np.testing.assert_allclose(
        ratings.elo / ELO_PER_LOGIT, [0.0, -2.94907, -0.47957, 0.26895], atol=5e-6
    )
    np.testing.assert_allclose(
        standard_errors(ratings), [0.0, 0.10255, 0.06059, 0.07083], atol=5e-6
    )


def test_two_versions_by_hand() -> None:
    """30 wins of 40 are odds of 3, so 400 log10 3 Elo points."""
    ratings = fit(PairCounts([0], [1], [28], [8], [4], 2), prior=math.inf)
    assert ratings.elo[0] - ratings.elo[1] == pytest.approx(400 * math.log10(3), abs=1e-6)
    assert ratings.elo.mean() == pytest.approx(1000)
    assert ratings.gradient_norm < 1e-6


@pytest.mark.parametrize("prior", [150.0, 400.0, math.inf])
def test_agrees_with_an_optimiser_on_every_single_vote(simulate: Simulate, prior: float) -> None:
    votes = simulate(np.random.default_rng(3), np.linspace(-1, 1, 7), 900)
    sign = np.array([1.0, -1.0])

    def loss(logits: NDArray[np.float64]) -> float:
        margin = logits[votes.a] - logits[votes.b]
        both = np.logaddexp(0.0, -margin[:, None] * sign)
        share = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])[votes.outcome]
        penalty = 0.5 * np.sum(logits**2) * (ELO_PER_LOGIT / prior) ** 2
        return float(np.sum(both * share) + penalty)

    found = minimize(loss, np.zeros(7), method="BFGS", options={"gtol": 1e-4}).x
    expected = 1000 + ELO_PER_LOGIT * (found - found.mean())
    np.testing.assert_allclose(fit(votes, prior=prior).elo, expected, atol=0.01)


def test_agrees_with_hunters_mm_iteration(simulate: Simulate) -> None:
    """Hunter, Annals of Statistics 32, 2004, equation 3, without a prior."""
    votes = simulate(np.random.default_rng(5), [0.0, 0.4, 1.1, -0.6], 400)
    wins = np.zeros((4, 4))
    for one, other, outcome in zip(votes.a, votes.b, votes.outcome, strict=True):
        wins[one, other] += (1.0, 0.0, 0.5)[outcome]
        wins[other, one] += (0.0, 1.0, 0.5)[outcome]
    gamma = np.ones(4)
    for _ in range(2000):
        met = (wins + wins.T) / (gamma[:, None] + gamma[None, :])
        gamma = wins.sum(axis=1) / met.sum(axis=1)
        gamma /= np.exp(np.log(gamma).mean())
    expected = 1000 + ELO_PER_LOGIT * np.log(gamma)
    np.testing.assert_allclose(fit(votes, prior=math.inf).elo, expected, atol=1e-4)


def test_strengths_come_back(simulate: Simulate) -> None:
    logits = np.array([-1.0, -0.2, 0.1, 0.3, 0.8])
    votes = simulate(np.random.default_rng(8), logits, 200_000, tie_share=0.0)
    ratings = fit(votes)
    error = np.sqrt(np.diagonal(ratings.covariance))
    assert np.all(np.abs(ratings.elo - 1000 - ELO_PER_LOGIT * logits) < 4 * error)
    assert np.all(error < 3)


def test_the_prior_is_weak(simulate: Simulate) -> None:
    """At 300 votes a version the default prior moves no rating by a tenth of its error."""
    votes = simulate(np.random.default_rng(9), np.linspace(-1, 1, 8), 1200)
    free, held = fit(votes, prior=math.inf), fit(votes)
    moved = np.abs(free.elo - held.elo)
    assert np.all(moved < 0.1 * np.sqrt(np.diagonal(free.covariance)))
    assert moved.max() > 0.01


def test_the_anchor_moves_all_by_the_same(simulate: Simulate) -> None:
    votes = simulate(np.random.default_rng(2), [0.0, 0.5, 1.0], 300)
    plain, anchored = fit(votes), fit(votes, anchor=(2, 1200.0))
    assert anchored.elo[2] == pytest.approx(1200)
    np.testing.assert_allclose(np.diff(anchored.elo), np.diff(plain.elo), atol=1e-9)
    assert anchored.covariance[2, 2] == 0


@pytest.mark.parametrize(
    ("anchor", "message"),
    [
        ((4, 1000.0), "version 4; it must be from 0 to 3"),
        ((-1, 1000.0), "version -1"),
        ((0, math.nan), "rating is nan"),
        ((3, 1000.0), "version 3, is not comparable"),
    ],
)
def test_bad_anchors(anchor: tuple[int, float], message: str) -> None:
    counts = PairCounts([0, 1], [1, 2], [1, 1], [1, 1], [0, 0], 4)
    with pytest.raises(ValueError, match=message):
        fit(counts, anchor=anchor)


@pytest.mark.parametrize("prior", [0.0, -400.0, math.nan])
def test_bad_priors(prior: float) -> None:
    with pytest.raises(ValueError, match="must be a positive number"):
        fit(PairCounts([0], [1], [1], [1], [0], 2), prior=prior)


def test_plain_likelihood_without_an_answer_says_so() -> None:
    with pytest.raises(NotConverged, match="give a finite prior"):
        fit(PairCounts([0], [1], [9], [0], [0], 2), prior=math.inf)


def test_a_fit_beyond_double_precision_says_so() -> None:
    """All votes for one side and a prior too wide to hold it: the rating runs off."""
    with pytest.raises(NotConverged, match="Use a stronger prior"):
        fit(PairCounts([0], [1], [10**15], [0], [0], 2), prior=1e160)


# Properties ------------------------------------------------------------------------------------


@st.composite
def vote_sets(draw: st.DrawFn) -> Comparisons:
    n = draw(st.integers(2, 6))
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, n - 1), st.integers(1, n - 1), st.integers(0, 2)),
            min_size=1,
            max_size=80,
        )
    )
    a, step, outcome = np.array(rows).T
    nobody = np.zeros(len(rows), dtype=int)
    return Comparisons(a, (a + step) % n, outcome, nobody, nobody, n)


def same_component(one: Ratings, other: Ratings) -> None:
    assert one.comparable.tolist() == other.comparable.tolist()
    assert one.bounded.tolist() == other.bounded.tolist()
    assert one.core.tolist() == other.core.tolist()


@settings(deadline=None, max_examples=60)
@given(vote_sets())
def test_every_vote_set_gives_finite_ratings_or_none(votes: Comparisons) -> None:
    ratings = fit(votes)
    assert np.isfinite(ratings.elo[ratings.comparable]).all()
    assert np.isnan(ratings.elo[~ratings.comparable]).all()
    assert ratings.elo[ratings.comparable].mean() == pytest.approx(1000)
    assert ratings.comparable.sum() >= 2


@settings(deadline=None, max_examples=60)
@given(vote_sets())
def test_swapping_sides_changes_nothing(votes: Comparisons) -> None:
    swapped = Comparisons(
        votes.b,
        votes.a,
        np.array([1, 0, 2])[votes.outcome],
        votes.voter,
        votes.prompt,
        votes.n_versions,
    )
    one, other = fit(votes), fit(swapped)
    same_component(one, other)
    np.testing.assert_array_equal(one.elo, other.elo)


@settings(deadline=None, max_examples=60)
@given(vote_sets(), st.randoms(use_true_random=False))
def test_renaming_versions_renames_ratings(votes: Comparisons, random: Random) -> None:
    # Connected by a vote to every other version, so that which component counts is not a draw.
    n = votes.n_versions
    votes = with_ties_to_version_zero(votes)
    order = list(range(n))
    random.shuffle(order)
    name = np.array(order)
    renamed = Comparisons(name[votes.a], name[votes.b], votes.outcome, votes.voter, votes.prompt, n)
    one, other = fit(votes), fit(renamed)
    np.testing.assert_allclose(other.elo[name], one.elo, atol=1e-5)
    assert other.bounded[name].tolist() == one.bounded.tolist()


@settings(deadline=None, max_examples=60)
@given(vote_sets())
def test_doubling_votes_doubles_the_information_only(votes: Comparisons) -> None:
    votes = with_ties_to_version_zero(votes)
    doubled = Comparisons(
        np.tile(votes.a, 2),
        np.tile(votes.b, 2),
        np.tile(votes.outcome, 2),
        np.tile(votes.voter, 2),
        np.tile(votes.prompt, 2),
        votes.n_versions,
    )
    one, other = fit(votes, prior=math.inf), fit(doubled, prior=math.inf)
    np.testing.assert_allclose(other.elo, one.elo, atol=1e-4)
    np.testing.assert_allclose(other.covariance * 2, one.covariance, rtol=1e-5, atol=1e-4)


def with_ties_to_version_zero(votes: Comparisons) -> Comparisons:
    """Tie version 0 with every other once, so that all are comparable without a prior."""
    others = np.arange(1, votes.n_versions)
    nothing = np.zeros_like(others)
    return Comparisons(
        np.concatenate([votes.a, nothing]),
        np.concatenate([votes.b, others]),
        np.concatenate([votes.outcome, nothing + 2]),
        np.concatenate([votes.voter, nothing]),
        np.concatenate([votes.prompt, nothing]),
        votes.n_versions,
    )


# Degenerate data -------------------------------------------------------------------------------

A, B, C, D, E = range(5)
FIRST, SECOND, TIE = 0, 1, 2
# name: rows of (version A, version B, outcome, times), versions, comparable, below, above
DEGENERATE: dict[str, tuple[list[tuple[int, int, int, int]], int, set[int], set[int], set[int]]] = {
    "one vote": ([(A, B, FIRST, 1)], 2, {A, B}, {A}, {B}),
    "one tie": ([(A, B, TIE, 1)], 2, {A, B}, set(), set()),
    "all ties": ([(A, B, TIE, 9), (B, C, TIE, 9)], 3, {A, B, C}, set(), set()),
    "one vote each way": ([(A, B, FIRST, 1), (A, B, SECOND, 1)], 2, {A, B}, set(), set()),
    "a version nobody saw": ([(A, B, TIE, 5)], 3, {A, B}, set(), set()),
    "a hundred versions, one vote": ([(7, 9, SECOND, 1)], 100, {7, 9}, {9}, {7}),
    "perfect winner": (
        [(A, B, FIRST, 50), (A, C, FIRST, 50), (B, C, FIRST, 20), (B, C, SECOND, 20)],
        3,
        {A, B, C},
        {A},
        set(),
    ),
    "perfect loser": (
        [(A, B, SECOND, 50), (A, C, SECOND, 50), (B, C, TIE, 40)],
        3,
        {A, B, C},
        set(),
        {A},
    ),
    "perfect winner of a million votes": ([(A, B, FIRST, 1_000_000)], 2, {A, B}, {A}, {B}),
    "perfect winner and loser": (
        [(A, B, FIRST, 9), (B, C, TIE, 3), (C, D, FIRST, 9), (A, D, FIRST, 9)],
        4,
        {A, B, C, D},
        {A},
        {D},
    ),
    "each beats the next": (
        [(A, B, FIRST, 9), (B, C, FIRST, 9), (A, C, FIRST, 9)],
        3,
        {A, B, C},
        {A},
        {C},
    ),
    "two above a core": (
        [(A, B, FIRST, 9), (B, C, FIRST, 9), (C, D, TIE, 9)],
        4,
        {A, B, C, D},
        {A, B},
        set(),
    ),
    "two below a core": (
        [(A, B, TIE, 9), (B, C, FIRST, 9), (C, D, FIRST, 9)],
        4,
        {A, B, C, D},
        set(),
        {C, D},
    ),
    "one pair beats another": (
        [(A, B, TIE, 9), (C, D, TIE, 9), (A, C, FIRST, 3), (B, D, FIRST, 3)],
        4,
        {A, B, C, D},
        {A, B},
        {C, D},
    ),
    "a circle": (
        [(A, B, FIRST, 5), (B, C, FIRST, 5), (C, A, FIRST, 5)],
        3,
        {A, B, C},
        set(),
        set(),
    ),
    "two islands, one larger": (
        [(A, B, TIE, 1), (C, D, TIE, 99), (D, E, TIE, 1)],
        5,
        {C, D, E},
        set(),
        set(),
    ),
    "two islands, one with more votes": (
        [(A, B, TIE, 1), (C, D, FIRST, 1), (C, D, SECOND, 1)],
        4,
        {C, D},
        set(),
        set(),
    ),
    "two islands alike": ([(A, B, FIRST, 2), (C, D, FIRST, 2)], 4, {A, B}, {A}, {B}),
    "the same row ten thousand times": ([(B, A, SECOND, 10_000)], 2, {A, B}, {A}, {B}),
    "one against very many": (
        [(A, B, FIRST, 10**7), (A, B, SECOND, 1), (B, C, TIE, 1)],
        3,
        {A, B, C},
        set(),
        set(),
    ),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_votes(name: str) -> None:
    rows, n, comparable, below, above = DEGENERATE[name]
    first, second, outcome, times = np.array(rows).T
    expanded = [(first[k], second[k], outcome[k]) for k in range(len(rows))]
    ordered = [(i, j, o) if i < j else (j, i, (1, 0, 2)[o]) for i, j, o in expanded]
    cells: dict[tuple[int, int], list[int]] = {}
    for (i, j, o), count in zip(ordered, times, strict=True):
        cells.setdefault((i, j), [0, 0, 0])[o] += count
    pairs, won = np.array(list(cells)).T, np.array(list(cells.values())).T
    counts = PairCounts(pairs[0], pairs[1], won[0], won[1], won[2], n)

    ratings = fit(counts)
    assert set(np.flatnonzero(ratings.comparable)) == comparable
    assert set(np.flatnonzero(~np.isnan(ratings.elo))) == comparable
    assert np.isfinite(ratings.elo[ratings.comparable]).all()
    assert set(np.flatnonzero(ratings.bounded == "below")) == below
    assert set(np.flatnonzero(ratings.bounded == "above")) == above
    for high in below:
        assert ratings.elo[high] > ratings.elo[sorted(comparable - below)].max()
    for low in above:
        assert ratings.elo[low] < ratings.elo[sorted(comparable - above)].min()

    draws = vote_bootstrap(counts, rng=np.random.default_rng(0), replicates=40)
    assert np.isfinite(draws[:, ratings.comparable]).all()
    assert np.isnan(draws[:, ~ratings.comparable]).all()
    bottom, top = rating_interval(ratings, draws)
    assert set(np.flatnonzero(np.isinf(top))) == below
    assert set(np.flatnonzero(np.isinf(bottom))) == above
    assert np.all(bottom[ratings.comparable] < top[ratings.comparable])
    assert np.isnan(bottom[~ratings.comparable]).all()
    ranks = rank(ratings, draws)
    assert set(np.flatnonzero(ranks.low)) == comparable
    assert set(np.flatnonzero(ranks.high)) == comparable


# Golden file -----------------------------------------------------------------------------------


def test_golden_file() -> None:
    """The numbers of one data set as they were when the methods were checked."""
    golden = json.loads(GOLDEN.read_text())
    counts = PairCounts(**golden["counts"])
    ratings = fit(counts)
    np.testing.assert_allclose(ratings.elo, np.array(golden["elo"], dtype=float), atol=1e-5)
    draws = vote_bootstrap(counts, rng=np.random.default_rng(golden["seed"]))
    low, high = rating_interval(ratings, draws)
    # A later numpy may draw other numbers from the same seed: within simulation error only.
    np.testing.assert_allclose(low, np.array(golden["low"], dtype=float), atol=6)
    np.testing.assert_allclose(high, np.array(golden["high"], dtype=float), atol=6)
    ranks = rank(ratings, draws)
    assert ranks.low.tolist() == golden["rank_low"]
    assert ranks.high.tolist() == golden["rank_high"]


def test_recentring_moves_the_zero_and_nothing_else(simulate: Simulate) -> None:
    """A version with few votes no longer moves the others, in estimate, draws and covariance."""
    rng = np.random.default_rng(5)
    votes = simulate(rng, [0.5, 0.1, -0.2, -0.6], 800, tie_share=0.0)
    few = simulate(rng, [0.5, 0.1, -0.2, -0.6, 2.0], 12, tie_share=0.0)
    both = Comparisons(
        np.append(votes.a, few.a),
        np.append(votes.b, few.b),
        np.append(votes.outcome, few.outcome),
        np.append(votes.voter, few.voter),
        np.append(votes.prompt, few.prompt),
        5,
    )
    ratings = fit(both)
    draws = vote_bootstrap(both, rng=np.random.default_rng(1), replicates=400)
    members = np.array([True, True, True, True, False])
    centred, moved = recentred(ratings, draws, members)
    assert centred.elo[members].mean() == pytest.approx(1000)
    np.testing.assert_allclose(moved[:, members].mean(axis=1), 1000)
    np.testing.assert_allclose(
        centred.elo[:, None] - centred.elo, ratings.elo[:, None] - ratings.elo, atol=1e-9
    )
    np.testing.assert_allclose(moved[:, [0]] - moved, draws[:, [0]] - draws, atol=1e-9)
    assert (moved[:, :4].std(axis=0) < 0.8 * draws[:, :4].std(axis=0)).all()
    variance = np.diagonal(centred.covariance)
    np.testing.assert_allclose(np.sqrt(variance[:4]), moved[:, :4].std(axis=0), rtol=0.15)
    with pytest.raises(ValueError, match="members"):
        recentred(ratings, draws, np.zeros(5, dtype=bool))
