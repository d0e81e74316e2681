"""Do the verdicts of experiments err as seldom as they claim: `make bench-gate`.

Simulates experiments whose truth is known. Every voter has a taste of their own for the candidate
over the baseline, every prompt suits one of the two better, and every pair of clips came out better
for one of them: that is what makes blocks depend on each other. The truth is the difference that
the population of voters would see on the population of prompts, as on the leaderboards, not what
these voters and these prompts happen to say.

The result is the same on every machine and with any number of processes.
"""

import argparse
import math
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from bench.markers import METHODOLOGY, around_markers
from ratings.design import Design
from ratings.elo_scale import NORMALISED_ELO, elo_of_score, normalised_elo
from ratings.significance import normal_reach
from ratings.stats.blocks import Blocks
from ratings.stats.comparisons import BoolArray, FloatArray, IntArray
from ratings.stats.sequential import (
    enough_to_decide,
    log_likelihood_ratio,
    sequential_test,
)

GATE_SEED = 20_261_123
GATE_DESIGN = Design(margin=25, alpha=0.05, beta=0.05, max_blocks=1500)
BIAS = 0.3  # standard deviation in logits of how much a voter leans to clip A
GATE_MARKERS = "<!-- gate:begin -->", "<!-- gate:end -->"
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
NODE_WEIGHTS = NODE_WEIGHTS / NODE_WEIGHTS.sum()


@dataclass(frozen=True)
class GateCase:
    """Standard deviations are in logits of one vote.

    Attributes
    ----------
    panel : int
        Voters, each with a fifth to five thirds of the mean number of votes; 0 for a public
        stream of people who give 1 to 3 votes.
    prompts, slots : int
        Prompts, and clip pairs of each.
    ties : float
        Share of the votes.
    taste, appeal, luck : float
        Of voters, of prompts, and of clip pairs beyond their prompt.
    """

    name: str
    panel: int
    prompts: int
    slots: int
    ties: float
    taste: float
    appeal: float
    luck: float


CASES = [
    GateCase("independent votes", 0, 200, 8, 0.2, 0.0, 0.0, 0.0),
    GateCase("public stream, 200 prompts", 0, 200, 4, 0.2, 0.3, 0.3, 0.8),
    GateCase("public stream, 60 prompts", 0, 60, 8, 0.2, 0.3, 0.5, 0.8),
    GateCase("panel of 40, 120 prompts", 40, 120, 4, 0.2, 0.2, 0.3, 0.8),
    GateCase("panel of 40, 120 prompts, half ties", 40, 120, 4, 0.5, 0.2, 0.3, 0.8),
    GateCase("panel of 12, 120 prompts", 12, 120, 4, 0.2, 0.1, 0.3, 0.8),
    GateCase("panel of 12, strong tastes", 12, 120, 4, 0.2, 0.5, 0.3, 0.8),
]
# True differences: in normalised Elo, the margin's unit, or in Elo.
TRUTHS: dict[str, dict[str, float]] = {
    "0": {"normalised": 0.0},
    f"−{GATE_DESIGN.margin:g} normalised Elo": {"normalised": -GATE_DESIGN.margin},
    "−40 Elo": {"elo": -40.0},
}
EQUAL, WORSE_BY_MARGIN, WORSE_BY_40 = TRUTHS
ERROR, ALARM, POWER = 0.06, 0.05, 0.95  # what must hold of a case


def mean_score(case: GateCase, drift: float) -> float:
    """Of one vote, over everything."""
    spread = math.sqrt(case.taste**2 + case.appeal**2 + case.luck**2 + BIAS**2)
    return case.ties / 2 + (1 - case.ties) * float(expit(drift + spread * NODES) @ NODE_WEIGHTS)


def deviation(case: GateCase, drift: float) -> float:
    """Standard deviation of a block's score from 0 to 1: two voters, one pair of clips."""
    mean = mean_score(case, drift)
    vote = mean - case.ties / 4 - mean**2  # a win is 1 squared, a tie 1/2 squared
    shared = math.sqrt(case.appeal**2 + case.luck**2)
    own = math.sqrt(case.taste**2 + BIAS**2)
    given = expit(drift + shared * NODES[:, None] + own * NODES) @ NODE_WEIGHTS
    between = (1 - case.ties) ** 2 * float(given**2 @ NODE_WEIGHTS - (given @ NODE_WEIGHTS) ** 2)
    return math.sqrt((vote + between) / 2)


def drift_for(
    case: GateCase, *, normalised: float | None = None, elo: float | None = None
) -> float:
    """The candidate's advantage in logits that makes this true difference."""

    def beyond(drift: float) -> float:
        score = mean_score(case, drift)
        if elo is not None:
            return elo_of_score(score) - elo
        assert normalised is not None
        effect = (score - 0.5) / deviation(case, drift)
        return normalised_elo(effect) - normalised

    return float(brentq(beyond, -2.0, 2.0))


def simulate_blocks(case: GateCase, drift: float, blocks: int, rng: np.random.Generator) -> tuple:
    """Blocks, and the points of their two votes, shape (n, 2), 0 to 2 half points.

    All pairs of clips are judged once before any is judged again: at first in the order of the
    prompts, slot after slot, then in any order.
    """
    pairs = case.prompts * case.slots
    rounds = [np.arange(pairs)]
    while len(rounds) * pairs < blocks:
        rounds.append(rng.permutation(pairs))
    pair = np.concatenate(rounds)[:blocks]
    prompt = pair % case.prompts
    voter = voters(case, blocks, rng)
    taste = rng.normal(0.0, case.taste, voter.max() + 1)
    bias = rng.normal(0.0, BIAS, voter.max() + 1)
    appeal = rng.normal(0.0, case.appeal, case.prompts)
    luck = rng.normal(0.0, case.luck, pairs)
    logit = drift + (appeal[prompt] + luck[pair])[:, None] + taste[voter]
    logit += bias[voter] * np.array([1, -1])
    points = np.where(rng.random((blocks, 2)) < expit(logit), 2, 0)
    points[rng.random((blocks, 2)) < case.ties] = 1
    return Blocks(points.sum(axis=1), voter, prompt), points


def voters(case: GateCase, blocks: int, rng: np.random.Generator) -> IntArray:
    """Two different voters for every block, shape (n, 2)."""
    if case.panel:
        keenness = rng.uniform(0.2, 1.8, case.panel)
        # The two largest of the weighted exponentials: draws without replacement.
        race = rng.exponential(size=(blocks, case.panel)) / keenness
        first_two: IntArray = np.argsort(race, axis=1)[:, :2]
        return first_two
    sides = []
    for side in (0, 1):
        stays = rng.integers(1, 4, blocks)
        who = np.repeat(np.arange(blocks), stays)[:blocks]
        # Some are at it at the same time.
        sides.append(2 * who[np.argsort(np.arange(blocks) + rng.uniform(0, 20, blocks))] + side)
    return np.stack(sides, axis=1)


@dataclass(frozen=True)
class GateFigures:
    """One experiment, or the mean of many.

    Attributes
    ----------
    passed, regressed : float
        By the verdict, which is whichever rule decides first.
    blocks : float
        Until the verdict.
    ratio_passed, ratio_regressed : float
        By the ratio test had it been alone.
    alarmed : float
        The e-process alone, looked at until the votes are used up.
    vote_passed, vote_regressed : float
        By a ratio test that takes single votes as independent.
    covered, above : float
        The corrected interval holds the truth; the corrected estimate is above it.
    plain_covered, plain_above : float
        The same of the mean and the clustered interval at the verdict, uncorrected.
    effect : float
        The design effect at the last block.
    """

    passed: float
    regressed: float
    blocks: float
    ratio_passed: float
    ratio_regressed: float
    alarmed: float
    vote_passed: float
    vote_regressed: float
    covered: float
    above: float
    plain_covered: float
    plain_above: float
    effect: float


def try_case(case: GateCase, drift: float, seed: np.random.SeedSequence) -> GateFigures:
    blocks, points = simulate_blocks(
        case, drift, GATE_DESIGN.max_blocks, np.random.default_rng(seed)
    )
    found = sequential_test(blocks, GATE_DESIGN)
    n = found.decided_at or len(blocks)
    ready = enough_to_decide(blocks)
    ratio = first_side(found.llr, ready)
    vote = first_side(vote_ratio(points.ravel()), np.repeat(ready, 2))
    true = mean_score(case, drift)
    mean = blocks.score[:n].mean() / 4
    reach = blocks.score[:n].std() / 4 * math.sqrt(found.design_effects[n - 1] / n) * normal_reach()
    return GateFigures(
        passed=found.verdict == "pass",
        regressed=found.verdict == "regressed",
        blocks=n,
        ratio_passed=ratio == 1,
        ratio_regressed=ratio == -1,
        alarmed=bool((ready & (found.log_e >= found.log_alarm)).any()),
        vote_passed=vote == 1,
        vote_regressed=vote == -1,
        covered=found.low <= elo_of_score(true) <= found.high,
        above=found.estimate > elo_of_score(true),
        plain_covered=abs(mean - true) <= reach,
        plain_above=mean > true,
        effect=found.design_effect,
    )


def vote_ratio(points: IntArray) -> FloatArray:
    """The log-likelihood ratio of single votes taken as independent, shape (2 n,)."""
    counts = np.cumsum(np.eye(5)[2 * points], axis=0)
    return log_likelihood_ratio(counts, -GATE_DESIGN.margin / NORMALISED_ELO, 0.0)


def first_side(llr: FloatArray, ready: BoolArray) -> int:
    """The bound that is passed first: 1 the upper one, -1 the lower one, 0 none."""
    lower, upper = GATE_DESIGN.bounds
    beyond = np.flatnonzero(ready & ((llr <= lower) | (llr >= upper)))
    return int(np.sign(llr[beyond[0]])) if beyond.size else 0


def mean_of(experiments: list[GateFigures]) -> GateFigures:
    return GateFigures(*np.array([astuple(one) for one in experiments], dtype=float).mean(axis=0))


Results = dict[GateCase, dict[str, GateFigures]]


def tables(results: Results, sets: int) -> str:
    return f"{errors(results, sets)}\n\n{course(results)}"


def errors(results: Results, sets: int) -> str:
    """A line a case: how often each rule errs, and whether what must hold does."""
    lines = [
        f"{sets:,} experiments for each case and true difference; margin {GATE_DESIGN.margin:g} "
        f"normalised Elo, alpha and beta {GATE_DESIGN.alpha:g}, at most "
        f"{2 * GATE_DESIGN.max_blocks:,} votes. A share of 5 % is known to "
        f"{100 * math.sqrt(0.05 * 0.95 / sets):.1f} points, one "
        "standard error.",
        "",
        "| case | ratio test passes one worse by the margin | ratio test regresses an equal one "
        "| e-process regresses an equal one | either rule regresses an equal one "
        "| votes as independent: passes a worse one | regresses an equal one "
        "| −40 Elo found | design effect at the end | holds |",
        "| --- |" + 9 * " --- |",
    ]
    for case, of in results.items():
        equal, worse, found = of[EQUAL], of[WORSE_BY_MARGIN], of[WORSE_BY_40]
        missed = [
            name
            for name, holds in (
                ("pass", worse.ratio_passed <= ERROR),
                ("regressed", equal.ratio_regressed <= ERROR),
                ("e-process", equal.alarmed <= ALARM),
                ("−40 Elo", found.regressed >= POWER),
            )
            if not holds
        ]
        shares = [
            worse.ratio_passed,
            equal.ratio_regressed,
            equal.alarmed,
            equal.regressed,
            worse.vote_passed,
            equal.vote_regressed,
            found.regressed,
        ]
        cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
        holds = "not: " + ", ".join(missed) if missed else "yes"
        lines.append(f"| {case.name} | {cells} | {equal.effect:.1f} | {holds} |")
    return "\n".join(lines)


def course(results: Results) -> str:
    """A line a case and truth: the verdicts, what they cost, and the estimate after."""
    lines = [
        "| case | truth | pass | regressed | inconclusive | mean votes | interval holds the truth "
        "| estimate above the truth | uncorrected: holds | above |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case, of in results.items():
        for truth, mean in of.items():
            verdicts = (mean.passed, mean.regressed, abs(1 - mean.passed - mean.regressed))
            estimates = (mean.covered, mean.above, mean.plain_covered, mean.plain_above)
            first, then = (
                " | ".join(f"{100 * share:.1f} %" for share in shares)
                for shares in (verdicts, estimates)
            )
            lines.append(f"| {case.name} | {truth} | {first} | {2 * mean.blocks:,.0f} | {then} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--sets", type=int, default=1000, help="experiments for each case and true difference"
    )
    parser.add_argument("--quick", action="store_true", help="10 experiments each: does it run")
    parser.add_argument("--into", type=Path, default=METHODOLOGY, help="the file with the markers")
    arguments = parser.parse_args()
    sets = 10 if arguments.quick else arguments.sets
    if sets < 1:
        sys.exit(f"--sets is {sets}; it must be 1 or more.")
    # says now, not at the end, that they are missing
    around_markers(arguments.into, *GATE_MARKERS)
    # One thread each: the processes already use every core. The children read it at their start.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    context: Any = multiprocessing.get_context("spawn")
    results: Results = {}
    with ProcessPoolExecutor(mp_context=context) as pool:
        for place, case in enumerate(CASES):
            begin = time.perf_counter()
            results[case] = {}
            for number, (truth, difference) in enumerate(TRUTHS.items()):
                seeds = np.random.SeedSequence([GATE_SEED, place, number]).spawn(sets)
                work = partial(try_case, case, drift_for(case, **difference))
                results[case][truth] = mean_of(list(pool.map(work, seeds, chunksize=10)))
            print(f"{case.name}: {time.perf_counter() - begin:.0f} s", flush=True)
    print(tables(results, sets))
    before, after = around_markers(arguments.into, *GATE_MARKERS)
    arguments.into.write_text(f"{before}{tables(results, sets)}\n{after}")


if __name__ == "__main__":
    main()
