"""The verdict on an experiment: against published figures, other estimators, and simulation."""

import json
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from bench import gate
from ratings.design import Design
from ratings.elo_scale import block_effect
from ratings.stats.blocks import Blocks
from ratings.stats.comparisons import FloatArray
from ratings.stats.design_effects import design_effects
from ratings.stats.sequential import (
    SCORES,
    UNSEEN_SCORE_COUNT,
    log_e_process,
    log_likelihood_ratio,
    sequential_test,
)
from ratings.stats.stopping import median_unbiased, stopping
from tests.ratings.stats.golden import EXPERIMENT, experiment, golden_blocks

pytestmark = pytest.mark.filterwarnings("error")

DESIGN = Design(margin=25)


def panel(score: list[int], voters: int = 12, prompts: int = 40) -> Blocks:
    """These scores from a panel in which everybody meets everybody."""
    n = np.arange(len(score))
    first = n % voters
    second = (first + 1 + n // voters % (voters - 1)) % voters
    return Blocks(score, np.stack([first, second], axis=1), n % prompts)


def strangers(counts: list[int]) -> Blocks:
    """These counts of scores, in a shuffled order, each block of voters and a prompt of its own."""
    score = np.random.default_rng(0).permutation(np.repeat(np.arange(5), counts))
    n = np.arange(score.size)
    return Blocks(score, np.stack([2 * n, 2 * n + 1], axis=1), n)


# Likelihoods


@pytest.mark.parametrize(
    ("counts", "low", "high", "published"),
    [
        # Zeno's doubled pawns, as its match runner printed it.
        ([352, 579, 1264, 743, 464], 9, 16, "4.60"),
        # The pentanomial in Fishtest's own check of its module, by that module.
        ([39, 2226, 31451, 2412, 40], 0.764, 3.439, "2.1629409"),
    ],
)
def test_published_ratios(counts: list[int], low: float, high: float, published: str) -> None:
    found = log_likelihood_ratio([counts], block_effect(low), block_effect(high))[0]
    digits = len(published.partition(".")[2])
    assert f"{found:.{digits}f}" == published


def test_a_published_match_has_the_published_elo() -> None:
    """The same match: 19.83 ± 6.77 Elo. Its blocks share nothing, so nothing is taken off."""
    found = sequential_test(strangers([352, 579, 1264, 743, 464]), DESIGN)
    assert found.plain_estimate == pytest.approx(19.83, abs=0.005)
    assert (found.plain_high - found.plain_low) / 2 == pytest.approx(6.77, abs=0.02)
    assert found.design_effect == pytest.approx(1, abs=0.005)


def most_likely(counts: FloatArray, value: float) -> float:
    """The best log-likelihood of a pentanomial with this effect, by a general optimiser."""
    over_even = SCORES - 0.5

    def probabilities(logits: FloatArray) -> FloatArray:
        weights = np.exp(logits - logits.max())
        return weights / weights.sum()

    def off(logits: FloatArray) -> float:
        p = probabilities(logits)
        mean = p @ over_even
        return mean - value * math.sqrt(max(p @ over_even**2 - mean**2, 1e-12))

    starts = (np.zeros(5), np.log(counts / counts.sum() + 0.02))
    found = [
        minimize(
            lambda logits: -counts @ np.log(probabilities(logits)) / counts.sum(),
            start,
            method="SLSQP",
            bounds=[(-25, 25)] * 5,
            constraints={"type": "eq", "fun": off},
            options={"maxiter": 500, "ftol": 1e-13},
        )
        for start in starts
    ]
    return max(-float(one.fun) for one in found if abs(off(one.x)) < 1e-7) * counts.sum()


@pytest.mark.parametrize(
    "counts", [[20, 30, 60, 25, 15], [3, 0, 5, 2, 40], [0, 1, 90, 2, 0], [30, 12, 3, 0, 1]]
)
@pytest.mark.parametrize("low", [-0.1, -0.6])
def test_ratios_by_a_general_optimiser(counts: list[int], low: float) -> None:
    seen = np.where(np.array(counts) > 0, counts, UNSEEN_SCORE_COUNT)
    expected = most_likely(seen, 0.0) - most_likely(seen, low)
    assert log_likelihood_ratio([counts], low, 0.0)[0] == pytest.approx(expected, abs=2e-3)


def test_no_bet_gains_where_the_candidate_is_not_worse() -> None:
    """Over all courses of four blocks, the mean wealth is what it was; and less if it is better."""
    even, better = np.array([0.2, 0.1, 0.4, 0.1, 0.2]), np.array([0.1, 0.1, 0.4, 0.2, 0.2])
    for law, expected in ((even, 1.0), (better, 0.9)):
        courses = np.array(list(product(range(5), repeat=4)))
        wealth = np.array([np.exp(log_e_process(course)[-1]) for course in courses])
        mean = float(law[courses].prod(axis=1) @ wealth)
        assert mean == pytest.approx(1.0) if expected == 1.0 else mean < expected


# Design effects


def by_all_pairs(blocks: Blocks) -> float:
    """Clustered variance over that of independent blocks, pair by pair."""
    residual = blocks.score - blocks.score.mean()
    share = np.array(
        [
            [bool({*a} & {*b}) or p == q for b, q in zip(blocks.voter, blocks.prompt, strict=True)]
            for a, p in zip(blocks.voter, blocks.prompt, strict=True)
        ]
    )
    n = len(blocks)
    variance = np.outer(residual, residual)[share].sum() / (1 - share.sum() / n**2)
    return max(1.0, float(variance / (n * residual @ residual / (n - 1))))


@pytest.mark.parametrize("voters", [8, 60])
def test_design_effects_pair_by_pair(voters: int) -> None:
    """Up to what is added for few voters, which depends on the numbers in the design alone."""
    rng = np.random.default_rng(voters)
    taste = rng.normal(0, 1, voters)
    voter = np.array([rng.choice(voters, 2, replace=False) for _ in range(90)])
    voter[7] = voter[7, 0]  # somebody judged a block alone
    score = np.clip(np.rint(2 + taste[voter].sum(axis=1) + rng.normal(0, 1, 90)), 0, 4)
    blocks = Blocks(score, voter, rng.integers(0, 15, 90))
    flat = Blocks(np.full(90, 2), voter, blocks.prompt)
    found = design_effects(blocks, DESIGN) / design_effects(flat, DESIGN)
    for n in (40, 63, 90):
        part = Blocks(blocks.score[:n], voter[:n], blocks.prompt[:n])
        assert found[n - 1] == pytest.approx(by_all_pairs(part))


def test_few_voters_count_for_less() -> None:
    """The t quantile at 2.45 standard errors is 2.90 with 11 degrees of freedom."""
    by_twelve = design_effects(panel([2] * 480), DESIGN)[-1]
    assert by_twelve == pytest.approx((2.903 / 2.448) ** 2, rel=0.01)
    assert design_effects(panel([2] * 480, voters=4), DESIGN)[-1] > 3
    assert design_effects(strangers([0, 0, 900, 0, 0]), DESIGN)[-1] < 1.01


# Verdicts


@pytest.mark.parametrize(
    ("score", "verdict", "sign"),
    [(2, "pass", 0), (4, "pass", 1), (3, "pass", 1), (0, "regressed", -1), (1, "regressed", -1)],
)
def test_a_candidate_that_always_does_the_same(score: int, verdict: str, sign: int) -> None:
    found = sequential_test(panel([score] * 1500), DESIGN)
    assert found.verdict == verdict
    assert found.decided_at is not None
    assert found.decided_at < 900
    assert found.low <= found.estimate <= found.high
    assert np.sign(round(found.plain_estimate)) == sign
    assert (found.low < 5) and (found.high > -5) if sign == 0 else sign * found.estimate > 100
    assert np.isfinite([found.low, found.high, found.plain_low, found.plain_high]).all()


@pytest.mark.parametrize("alike", ["voter", "prompt"])
@pytest.mark.parametrize("score", [0, 2, 4])
def test_one_voter_or_one_prompt_shows_nothing(alike: str, score: int) -> None:
    blocks = panel([score] * 200)
    voter = 0 * blocks.voter if alike == "voter" else blocks.voter
    prompt = 0 * blocks.prompt if alike == "prompt" else blocks.prompt
    found = sequential_test(Blocks(blocks.score, voter, prompt), Design(margin=25, max_blocks=150))
    assert (found.verdict, found.rule, found.decided_at) == ("inconclusive", "votes used up", 150)
    assert found.counts.sum() == 200


@pytest.mark.parametrize("n", range(4))
def test_hardly_any_block(n: int) -> None:
    found = sequential_test(panel([4] * n), DESIGN)
    assert (found.verdict, found.rule, found.decided_at) == ("", "", None)
    assert found.llr.shape == found.log_e.shape == found.design_effects.shape == (n,)
    assert math.isnan(found.estimate) == math.isnan(found.plain_low) == (n < 2)


def test_nothing_is_decided_before_thirty_blocks() -> None:
    for score in (0, 4):
        assert sequential_test(panel([score] * 29), Design(margin=300)).verdict == ""
        assert sequential_test(panel([score] * 30), Design(margin=300)).decided_at == 30


def some_blocks(seed: int, n: int, lean: float) -> Blocks:
    rng = np.random.default_rng(seed)
    voter = np.array([rng.choice(9, 2, replace=False) for _ in range(n)])
    return Blocks(rng.binomial(4, 0.5 + lean, n), voter, rng.integers(0, 20, n))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(2, 250), st.sampled_from([-0.12, -0.04, 0.0, 0.1]))
def test_whatever_the_votes(seed: int, n: int, lean: float) -> None:
    """Finite, in order, the same under other names, and never changed by later blocks."""
    blocks, design = some_blocks(seed, n, lean), Design(margin=60, max_blocks=200)
    found = sequential_test(blocks, design)
    for values in (found.llr, found.log_e):
        assert np.isfinite(values).all()
    assert (found.design_effects >= 1).all()
    assert found.low <= found.estimate <= found.high
    assert found.plain_low <= found.plain_estimate <= found.plain_high

    renamed = sequential_test(
        Blocks(blocks.score, 1000 - 7 * blocks.voter[:, ::-1], blocks.prompt * 3), design
    )
    np.testing.assert_allclose(renamed.llr, found.llr)
    np.testing.assert_allclose(renamed.log_e, found.log_e)

    part = n // 2 + 1
    before = sequential_test(
        Blocks(blocks.score[:part], blocks.voter[:part], blocks.prompt[:part]), design
    )
    np.testing.assert_allclose(before.llr, found.llr[:part], atol=1e-6)
    if before.verdict:
        assert (before.verdict, before.rule, before.decided_at) == (
            found.verdict,
            found.rule,
            found.decided_at,
        )
        assert before.estimate == pytest.approx(found.estimate)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="Block 1 has the score 5"):
        Blocks([0, 5], [[0, 1], [1, 2]], [0, 1])
    with pytest.raises(ValueError, match="1 scores, 2 pairs of voters"):
        Blocks([0], [[0, 1], [1, 2]], [0, 1])
    with pytest.raises(ValueError, match="The margin is 0"):
        Design(margin=0)
    with pytest.raises(ValueError, match=r"alpha is 0\.5"):
        Design(margin=25, alpha=0.5)
    with pytest.raises(ValueError, match="The most blocks are 29"):
        Design(margin=25, max_blocks=29)


# Stopping


def never(information: FloatArray) -> FloatArray:
    return np.full(information.size, -1e9)


def test_the_walk_ends_as_wald_says() -> None:
    """Of a Brownian motion between two bounds the chances and the mean time are known exactly."""
    gap, bounds = 0.1, DESIGN.bounds
    information = np.arange(1.0, 9001) / 2
    law = stopping(information, 1, gap, bounds, never(information))
    for value, passes in ((-gap, 0.05), (0.0, 0.95), (-gap / 2, 0.5)):
        chance = law.under(value)
        passed = float(chance[law.side == 1].sum())
        assert passed == pytest.approx(passes, abs=0.004)
        drift = gap * (value + gap / 2)
        if drift:
            time = float(chance @ law.information[law.look])
            ends = (1 - passes) * bounds[0] + passes * bounds[1]
            assert time == pytest.approx(ends / drift, rel=0.03)


def test_without_a_stop_the_estimate_is_the_mean() -> None:
    information = np.arange(1.0, 201)
    law = stopping(information, 200, 0.1, (-90.0, 90.0), never(information), value=-0.5)
    effect_then = (-0.5 / 0.1 - 0.1 * 200 / 2) / 200
    half = 1.959964 / math.sqrt(200)
    found = median_unbiased(law, "", -0.5)
    expected = (effect_then, effect_then - half, effect_then + half)
    assert found == pytest.approx(expected, abs=1e-3)


def test_verdicts_and_estimates_in_simulation() -> None:
    """Coarsely what `make bench-gate` shows finely, at a margin that needs few blocks."""
    design = Design(margin=90, max_blocks=300)
    case, sets = gate.CASES[0], 150
    drift = gate.drift_for(case, normalised=-90)
    true = 400 * math.log10(gate.mean_score(case, drift) / (1 - gate.mean_score(case, drift)))
    found = [
        sequential_test(
            gate.simulate_blocks(case, drift, 300, np.random.default_rng([7, seed]))[0], design
        )
        for seed in range(sets)
    ]
    assert sum(one.verdict == "pass" for one in found) <= 15  # 7.5 expected
    assert sum(one.verdict == "regressed" for one in found) >= 125
    assert sum(one.low <= true <= one.high for one in found) >= 133  # 142.5 expected
    assert 57 <= sum(one.estimate > true for one in found) <= 93  # 75 expected


def test_the_golden_experiment() -> None:
    """See `tests.ratings.stats.golden`: 500 blocks of a panel of 14, each number checked."""
    assert len(golden_blocks()) == 500
    expected = json.loads(EXPERIMENT.read_text())
    found = experiment()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, float):
            assert found[name] == pytest.approx(value, abs=1.5e-3), name
        else:
            assert found[name] == value, name


def test_the_bench_writes_its_tables() -> None:
    """Two experiments of two cases each; the document has the place that they go to."""
    results = {
        case: {
            truth: gate.mean_of(
                [
                    gate.try_case(case, gate.drift_for(case, **difference), seed)
                    for seed in np.random.SeedSequence(1).spawn(2)
                ]
            )
            for truth, difference in gate.TRUTHS.items()
        }
        for case in (gate.CASES[1], gate.CASES[-1])
    }
    lines = gate.tables(results, 2).splitlines()
    assert sum(line.startswith("| panel of 12, strong tastes |") for line in lines) == 4
    assert lines[0].startswith("2 experiments for each case")
    before, after = gate.around_markers(gate.METHODOLOGY, *gate.GATE_MARKERS)
    assert before.endswith("<!-- gate:begin -->\n")
    assert after.startswith("<!-- gate:end -->")
