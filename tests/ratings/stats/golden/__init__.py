"""The headline of one small data set, as it was when the methods were checked.

The votes are in `headline.csv`, their ratings, intervals and ranks in `headline.json`; the blocks
of one experiment in `experiment.csv`, what is made of them in `experiment.json`. After a
change that is meant to move the numbers, write them again and read the difference::

    python -m tests.ratings.stats.golden
"""

from pathlib import Path
from typing import Any

import numpy as np

from ratings.design import Design
from ratings.stats import Comparisons, fit, rank, rating_interval, two_way_bootstrap
from ratings.stats.blocks import Blocks
from ratings.stats.sequential import sequential_test

VOTES = Path(__file__).parent / "headline.csv"
HEADLINE = Path(__file__).parent / "headline.json"
BLOCKS = Path(__file__).parent / "experiment.csv"
EXPERIMENT = Path(__file__).parent / "experiment.json"
N_VERSIONS = 7  # the last of which nobody saw
SEED = 20


def golden_votes() -> Comparisons:
    """Read the votes: 36 voters, 24 prompts, 600 votes on six versions."""
    a, b, outcome, voter, prompt = np.loadtxt(VOTES, delimiter=",", skiprows=1, dtype=np.int64).T
    return Comparisons(a, b, outcome, voter, prompt, N_VERSIONS)


def headline() -> dict[str, Any]:
    """What a leaderboard shows of them: Elo points to three places, None for no value."""
    votes = golden_votes()
    ratings = fit(votes)
    draws = two_way_bootstrap(votes, rng=np.random.default_rng(SEED))
    low, high = rating_interval(ratings, draws)
    ranks = rank(ratings, draws)
    return {
        "elo": _rounded(ratings.elo),
        "low": _rounded(low),
        "high": _rounded(high),
        "rank_low": ranks.low.tolist(),
        "rank_high": ranks.high.tolist(),
    }


def golden_blocks() -> Blocks:
    """Read the blocks: 500 of 14 voters on 40 prompts, after which it has regressed."""
    columns = np.loadtxt(BLOCKS, delimiter=",", skiprows=1, dtype=np.int64)
    return Blocks(columns[:, 0], columns[:, 1:3], columns[:, 3])


def experiment() -> dict[str, Any]:
    """What its page shows, to three places; of the trajectories every 50th block."""
    found = vars(sequential_test(golden_blocks(), Design(margin=25, max_blocks=500)))
    shown: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(value, np.ndarray) and len(value) > 5:
            shown |= {f"{name} {at}": round(float(value[at - 1]), 3) for at in range(50, 501, 50)}
        elif isinstance(value, np.ndarray):
            shown[name] = value.tolist()
        else:
            shown[name] = round(value, 3) if isinstance(value, float) else value
    return shown


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 3) for value in values]
