"""Do the 95 % intervals hold what they claim: `make bench-coverage`.

Simulates data sets whose truth is known, in designs from many voters with few votes to few voters
with many, and counts how often each method's intervals contain the truth. Every voter has a taste
of their own for each version, and so has every prompt: that is what makes votes of one voter, or on
one prompt, depend on each other. The truth is what the ratings would tend to with ever more
voters and prompts, not what these voters and these prompts happen to think.

The result is the same on every machine and with any number of processes.
"""

import argparse
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from bench.markers import METHODOLOGY, around_markers
from ratings.significance import LEVEL
from ratings.stats.bootstrap import rating_interval, two_way_bootstrap, vote_bootstrap
from ratings.stats.bradley_terry import Ratings, fit
from ratings.stats.comparisons import Comparisons, FloatArray, IntArray, Outcome, PairCounts
from ratings.stats.ranks import rank
from ratings.stats.sandwich import sandwich

COVERAGE_SEED = 20_261_122
# In natural logits. Four versions are nearly alike: among them a rank is easily claimed too soon.
STRENGTHS = np.array([-1.0, -0.5, -0.05, -0.02, 0.02, 0.05, 0.5, 1.0])
TASTE = 0.5  # standard deviation in logits, per version, of a voter's taste and of a prompt's
TIES = 0.15  # of the votes, whatever the pair
COVERAGE_MARKERS = "<!-- coverage:begin -->", "<!-- coverage:end -->"

UPPER = np.triu_indices(STRENGTHS.size, 1)


@dataclass(frozen=True)
class VotingDesign:
    voters: int
    votes_each: int
    prompts: int

    def __str__(self) -> str:
        return f"{self.voters:,} voters × {self.votes_each} votes, {self.prompts} prompts"


DESIGNS = {
    "public": VotingDesign(1000, 4, 200),
    "panel": VotingDesign(100, 40, 50),
    "team": VotingDesign(30, 130, 50),
}


@dataclass(frozen=True)
class CoverageFigures:
    """What one method's intervals did on one data set, or on average.

    Attributes
    ----------
    ratings, differences : float
        Share of the versions' and of the pairs' own intervals that contain the truth.
    width : float
        Mean length of the ratings' intervals, Elo points.
    all_differences, all_ranks : float
        1 where the simultaneous intervals of `rank` contain the truth for all pairs at once, and
        its ranges the true ranks of all versions, else 0; NaN where the method gives none.
    """

    ratings: float
    differences: float
    width: float
    all_differences: float = math.nan
    all_ranks: float = math.nan


def truth() -> FloatArray:
    """The ratings that the fit tends to with ever more voters and prompts, in Elo points.

    A vote on versions i and j is decided by the difference of their strengths and by four tastes,
    which add up to a normal number; the share of votes that i wins is the mean over it. The
    population's votes follow no Bradley-Terry model exactly, so their fit is the truth.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    spread = math.sqrt(4) * TASTE
    first, second = UPPER
    difference = STRENGTHS[first] - STRENGTHS[second]
    wins = expit(difference[:, None] + spread * nodes) @ weights / weights.sum()
    points = (1 - TIES) * wins + TIES / 2
    many = 10**12  # votes a pair: rounding to whole votes then changes nothing that is printed
    won = np.rint(many * points).astype(np.int64)
    counts = PairCounts(first, second, won, many - won, np.zeros_like(won), STRENGTHS.size)
    return fit(counts, prior=math.inf).elo


def simulate_design(design: VotingDesign, rng: np.random.Generator) -> Comparisons:
    n, count = STRENGTHS.size, design.voters * design.votes_each
    voter = np.repeat(np.arange(design.voters), design.votes_each)
    prompt = rng.integers(design.prompts, size=count)
    a = rng.integers(n, size=count)
    b = (a + rng.integers(1, n, size=count)) % n
    of_voter = rng.normal(0.0, TASTE, (design.voters, n))
    of_prompt = rng.normal(0.0, TASTE, (design.prompts, n))

    def appeal(version: IntArray) -> FloatArray:
        return STRENGTHS[version] + of_voter[voter, version] + of_prompt[prompt, version]

    a_wins = rng.random(count) < expit(appeal(a) - appeal(b))
    outcome = np.where(a_wins, Outcome.A, Outcome.B)
    outcome[rng.random(count) < TIES] = Outcome.TIE
    return Comparisons(a, b, outcome, voter, prompt, n)


def by_draws(
    bootstrap: Callable[..., FloatArray],
    votes: Comparisons,
    ratings: Ratings,
    true: FloatArray,
    rng: np.random.Generator,
) -> CoverageFigures:
    draws = bootstrap(votes, rng=rng)
    low, high = rating_interval(ratings, draws, LEVEL)
    first, second = UPPER
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    differences = np.quantile(draws[:, first] - draws[:, second], tails, axis=0)
    ranks = rank(ratings, draws, LEVEL)
    together = ranks.differences
    true_difference = true[:, None] - true[None, :]
    within = (together.low <= true_difference) & (true_difference <= together.high)
    true_rank = 1 + np.argsort(np.argsort(-true))
    return CoverageFigures(
        ratings=_share_within(true, low, high),
        differences=_share_within(true[first] - true[second], *differences),
        width=float((high - low).mean()),
        all_differences=float(within.all()),
        all_ranks=float(((ranks.low <= true_rank) & (true_rank <= ranks.high)).all()),
    )


def by_formula(
    votes: Comparisons, ratings: Ratings, true: FloatArray, _: np.random.Generator
) -> CoverageFigures:
    found = sandwich(votes, ratings)
    variance = np.diagonal(found.covariance)
    first, second = UPPER
    of_difference = variance[first] + variance[second] - 2 * found.covariance[first, second]
    reach = found.reach(LEVEL) * np.sqrt(variance)
    reach_of_difference = found.reach(LEVEL) * np.sqrt(np.maximum(of_difference, 0.0))
    differences = ratings.elo[first] - ratings.elo[second]
    return CoverageFigures(
        ratings=_share_within(true, ratings.elo - reach, ratings.elo + reach),
        differences=_share_within(
            true[first] - true[second],
            differences - reach_of_difference,
            differences + reach_of_difference,
        ),
        width=float(2 * reach.mean()),
    )


METHODS: dict[str, Callable[..., CoverageFigures]] = {
    "vote bootstrap (control)": partial(by_draws, vote_bootstrap),
    "two-way bootstrap (headline)": partial(by_draws, two_way_bootstrap),
    "two-way sandwich, t quantile": by_formula,
}


def try_design(
    design: VotingDesign, true: FloatArray, seed: np.random.SeedSequence
) -> list[CoverageFigures]:
    """One data set: what each method made of it."""
    of_votes, *of_methods = seed.spawn(1 + len(METHODS))
    votes = simulate_design(design, np.random.default_rng(of_votes))
    ratings = fit(votes)
    return [
        method(votes, ratings, true, np.random.default_rng(own))
        for method, own in zip(METHODS.values(), of_methods, strict=True)
    ]


def summary(sets: list[CoverageFigures]) -> tuple[CoverageFigures, CoverageFigures]:
    """Means over the data sets, and their standard errors: intervals of one set share its votes."""
    values = np.array([astuple(figures) for figures in sets])
    return (
        CoverageFigures(*values.mean(axis=0)),
        CoverageFigures(*values.std(axis=0, ddof=1) / math.sqrt(len(values))),
    )


def coverage_table(results: dict[VotingDesign, list[list[CoverageFigures]]]) -> str:
    lines = [
        "| design | method | ratings | differences | all differences at once "
        "| all rank ranges at once | mean width of a rating's interval |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for design, sets in results.items():
        for name, of_method in zip(METHODS, zip(*sets, strict=True), strict=True):
            mean, error = summary(list(of_method))
            cells = [
                f"{100 * share:.1f} % ± {100 * by:.1f}" if np.isfinite(share) else "–"
                for share, by in (
                    (mean.ratings, error.ratings),
                    (mean.differences, error.differences),
                    (mean.all_differences, error.all_differences),
                    (mean.all_ranks, error.all_ranks),
                )
            ]
            lines.append(f"| {design} | {name} | {' | '.join(cells)} | {mean.width:.1f} Elo |")
    return "\n".join(lines)


def _share_within(true: FloatArray, low: FloatArray, high: FloatArray) -> float:
    return float(((low <= true) & (true <= high)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sets", type=int, default=2000, help="data sets for each design")
    parser.add_argument("--only", choices=DESIGNS, help="this design alone")
    parser.add_argument("--into", type=Path, default=METHODOLOGY, help="the file with the markers")
    arguments = parser.parse_args()
    if arguments.sets < 2:
        sys.exit(f"--sets is {arguments.sets}; a standard error needs 2 or more.")
    # says now, not at the end, that they are missing
    around_markers(arguments.into, *COVERAGE_MARKERS)
    # One thread each: the processes already use every core. The children read it at their start.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    context: Any = multiprocessing.get_context("spawn")
    true = truth()
    results: dict[VotingDesign, list[list[CoverageFigures]]] = {}
    with ProcessPoolExecutor(mp_context=context) as pool:
        for place, (name, design) in enumerate(DESIGNS.items()):
            if arguments.only not in (None, name):
                continue
            begin = time.perf_counter()
            seeds = np.random.SeedSequence([COVERAGE_SEED, place]).spawn(arguments.sets)
            work = partial(try_design, design, true)
            results[design] = list(pool.map(work, seeds, chunksize=5))
            print(
                f"{name}: {arguments.sets} data sets, {time.perf_counter() - begin:.0f} s",
                flush=True,
            )
    print(coverage_table(results))
    before, after = around_markers(arguments.into, *COVERAGE_MARKERS)
    arguments.into.write_text(f"{before}{coverage_table(results)}\n{after}")


if __name__ == "__main__":
    main()
