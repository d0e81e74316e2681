"""Parts of an experiment's votes: against plain formulas, other libraries, and simulated truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2_contingency

from ratings.elo_scale import elo_of_score
from ratings.stats.parts import by_tag, contributors, parts, wilson

TAGS = 6
PROMPTS, VOTERS = 60, 30


def simulated(
    rng: np.random.Generator, effects: np.ndarray, votes: int = 1200
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points, voters, prompts, members: each prompt has one tag, with its effect in logits."""
    prompt, voter = rng.integers(PROMPTS, size=votes), rng.integers(VOTERS, size=votes)
    tag = prompt % TAGS
    logit = effects[tag] + rng.normal(0, 0.2, PROMPTS)[prompt] + rng.normal(0, 0.2, VOTERS)[voter]
    points = (rng.random(votes) < 1 / (1 + np.exp(-logit))).astype(float)
    points[rng.random(votes) < 0.2] = 0.5
    return points, voter, prompt, tag[None, :] == np.arange(TAGS)[:, None]


def test_independent_votes_have_the_plain_standard_error() -> None:
    rng = np.random.default_rng(1)
    points = (rng.random(400) < 0.6).astype(float)
    members = np.stack([np.arange(400) < 100, np.arange(400) >= 100])
    found = parts(points, np.arange(400), np.arange(400), members)
    plain = [points[m].var(ddof=1) / m.sum() for m in members]
    np.testing.assert_allclose(np.diagonal(found.covariance), plain, rtol=0.02)
    difference, low, high = found.difference(0, 1)
    assert difference == pytest.approx(points[:100].mean() - points[100:].mean())
    assert (high - low) / 2 == pytest.approx(1.98 * np.sqrt(sum(plain)), rel=0.03)


def test_what_cannot_be_told_is_nan() -> None:
    nobody = np.empty(0, dtype=np.int64)
    empty = parts(np.empty(0), nobody, nobody, np.empty((1, 0), dtype=bool))
    assert np.isnan(empty.mean[0])
    assert np.isnan(empty.interval(0)).all()
    alike = parts(np.full(9, 0.5), np.arange(9), np.arange(9), np.ones((1, 9), dtype=bool))
    assert np.isnan(alike.interval(0)).all()


def test_a_tag_that_differs_is_found_and_pulled_towards_the_whole() -> None:
    effects = np.zeros(TAGS)
    effects[2] = -1.0
    found = by_tag(*simulated(np.random.default_rng(2), effects))
    assert found.discovery.tolist() == [tag == 2 for tag in range(TAGS)]
    assert found.raw[2] < found.pooled[2] < np.median(found.pooled)
    assert found.high[2] < 0
    assert ((found.share > 0) & (found.share < 1)).all()


def test_where_no_tag_differs_few_are_found_and_intervals_cover() -> None:
    rng = np.random.default_rng(3)
    found = [by_tag(*simulated(rng, np.zeros(TAGS), votes=500)) for _ in range(150)]
    assert np.mean([each.discovery.any() for each in found]) <= 0.1
    covered = [(each.low < 0) & (each.high > 0) for each in found]
    assert np.mean(covered) >= 0.93


def test_intervals_cover_tags_that_differ() -> None:
    """The truth of a tag: the mean over prompts and voters at large, by a large simulation."""
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(120):
        effects = rng.normal(0, 0.3, TAGS)
        found = by_tag(*simulated(rng, effects, votes=900))
        spread = rng.normal(0, np.hypot(0.2, 0.2), 4000)
        chance = (1 / (1 + np.exp(-(effects[:, None] + spread)))).mean(axis=1)
        truth = np.array([elo_of_score(0.8 * each + 0.1) for each in chance])
        covered.append((found.low < truth) & (truth < found.high))
    assert np.mean(covered) >= 0.92


def test_a_tag_of_one_voter_or_of_all_votes_has_no_number() -> None:
    points = np.array([1.0, 0.0, 1.0, 0.0, 0.5, 1.0])
    voter, prompt = np.array([0, 0, 1, 2, 3, 1]), np.arange(6)
    members = np.stack([voter == 0, np.ones(6, dtype=bool), np.arange(6) % 2 == 0])
    found = by_tag(points, voter, prompt, members)
    assert np.isnan(found.pooled).tolist() == [True, True, False]
    assert not found.discovery.any()


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 30)] * 3), min_size=2, max_size=6))
def test_chi_square_is_that_of_the_two_by_three_table(rows: list[tuple[int, int, int]]) -> None:
    counts = np.array(rows)
    found = contributors(counts)
    for own, chi_square, p_value in zip(counts, found.chi_square, found.p_value, strict=True):
        table = np.stack([own, counts.sum(axis=0) - own])
        table = table[:, table.sum(axis=0) > 0]
        if np.isnan(chi_square):
            assert own.sum() < 10 or table.shape[1] < 2 or table[1].sum() == 0
            continue
        other = chi2_contingency(table, correction=False)
        assert chi_square == pytest.approx(other.statistic, abs=1e-9)
        assert p_value == pytest.approx(other.pvalue, abs=1e-9)


def test_voters_alike_seldom_stand_out() -> None:
    rng = np.random.default_rng(5)
    found = [contributors(rng.multinomial(30, [0.4, 0.2, 0.4], size=20)) for _ in range(200)]
    assert np.mean([each.stands_out.any() for each in found]) <= 0.08


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (3, 7), (40, 40), (11, 60)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    other = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits / n, n) == pytest.approx((other.low, other.high), abs=1e-9)
