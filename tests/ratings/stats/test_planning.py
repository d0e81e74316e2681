"""What an experiment will cost, against experiments that were run."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from bench import gate
from ratings.design import Design
from ratings.stats.planning import Plan, plan_experiment
from ratings.stats.sequential import sequential_test

pytestmark = pytest.mark.filterwarnings("error")

DESIGN = Design(margin=25)


def usual(**changes: object) -> Plan:
    usually = {"tie_rate": 0.2, "voters": 40, "prompts": 120, "seed_slots": 4}
    return plan_experiment(DESIGN, **{**usually, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("truth", [0.0, -60.0])
def test_it_foretells_what_happens(truth: float) -> None:
    """60 experiments of a panel of 40, by the real test: verdicts and mean number of blocks."""
    design, case = Design(margin=60, max_blocks=400), gate.CASES[3]
    drift = gate.drift_for(case, normalised=truth)
    runs = [
        sequential_test(
            gate.simulate_blocks(case, drift, 400, np.random.default_rng([5, seed]))[0], design
        )
        for seed in range(60)
    ]
    said = plan_experiment(
        design, tie_rate=case.ties, voters=40, prompts=120, seed_slots=4, elos=[truth]
    ).chances[0]
    for verdict, chance in (
        ("pass", said.passed),
        ("regressed", said.regressed),
        ("inconclusive", said.inconclusive),
    ):
        share = sum(run.verdict == verdict for run in runs) / len(runs)
        assert share == pytest.approx(chance, abs=0.13), verdict
    blocks = [run.decided_at for run in runs]
    assert np.mean(blocks) == pytest.approx(said.blocks, rel=0.2)
    assert np.quantile(blocks, 0.9) == pytest.approx(said.blocks_90, rel=0.3)


def test_the_default_differences_and_what_follows_from_blocks() -> None:
    found = usual()
    assert [one.normalised for one in found.chances] == [0, -12.5, -25, -50]
    for one in found.chances:
        assert one.passed + one.regressed + one.inconclusive == pytest.approx(1)
        assert one.votes == 2 * one.blocks
        assert one.blocks <= one.blocks_90 <= 1500
        assert one.clips == min(2 * one.blocks, 960)
    assert usual() == found


def test_the_worse_it_is_the_sooner_it_is_found() -> None:
    found = usual(elos=[0, -25, -50, -100]).chances
    assert np.all(np.diff([one.regressed for one in found]) > 0)
    assert np.all(np.diff([one.passed for one in found]) < 0)
    assert found[0].regressed < 0.06
    assert found[1].passed < 0.06
    assert found[3].blocks < found[2].blocks < found[1].blocks


@pytest.mark.parametrize("harder", [{"voters": 12}, {"prompts": 30}, {"voter_correlation": 0.02}])
def test_what_makes_it_take_longer(harder: dict[str, float]) -> None:
    usually, then = usual(elos=[-25]), usual(elos=[-25], **harder)
    assert then.design_effect > usually.design_effect
    assert then.chances[0].inconclusive > usually.chances[0].inconclusive


def test_ties_take_no_longer_but_mean_less_elo() -> None:
    """Normalised Elo counts in standard deviations of a vote, and ties make that smaller."""
    few, many = (
        usual(tie_rate=0.1, elos=[-25]).chances[0],
        usual(tie_rate=0.7, elos=[-25]).chances[0],
    )
    assert many.elo > few.elo
    assert many.blocks == pytest.approx(few.blocks, rel=0.15)


def test_strangers_need_what_the_brownian_motion_needs() -> None:
    """Wald's mean time, (1 - 2 alpha) times the bound over the drift, if nothing is shared."""
    design = replace(DESIGN, max_blocks=6000)
    found = plan_experiment(
        design, tie_rate=0.0, voters=12_000, prompts=6000, seed_slots=1,
        voter_correlation=0, prompt_correlation=0, pair_correlation=0, elos=[0.0],
    ).chances[0]  # fmt: skip
    assert found.blocks == pytest.approx(0.9 * design.bounds[1] / (design.gap**2 / 2), rel=0.06)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"tie_rate": 1.0}, "The tie rate is 1.0"),
        ({"voters": 3}, "There are 3 voters"),
        ({"prompts": 2}, "There are 2 prompts"),
        ({"seed_slots": 0}, "There are 0 seed slots"),
        ({"pair_correlation": 0.0}, "no less than that by prompt"),
    ],
)
def test_what_is_refused(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        usual(**wrong)


@pytest.mark.parametrize("margin", [5, 25, 400])
@pytest.mark.parametrize("chance", [0.001, 0.05, 0.4])
def test_no_design_that_may_be_proposed_takes_much_memory(margin: float, chance: float) -> None:
    """The largest, 100,000 votes: 400 Elo took 21 GB, as its walk was followed beyond its end."""
    design = Design(margin=margin, alpha=chance, beta=chance, max_blocks=50_000)
    tracemalloc.start()
    plan = plan_experiment(design, tie_rate=0.2, voters=10_000, prompts=5000, seed_slots=10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 400e6
    for row in plan.chances:
        assert row.passed + row.regressed + row.inconclusive == pytest.approx(1)


def test_a_margin_of_next_to_nothing_is_refused_before_it_takes_memory() -> None:
    with pytest.raises(ValueError, match=r"take a grid of .* cells"):
        plan_experiment(Design(margin=1e-6), tie_rate=0.2, voters=10, prompts=50, seed_slots=1)
