"""The headline of one small data set, as it was when the methods were checked.

The votes stand in `headline.csv`, their ratings, intervals and ranks in `headline.json`. After a
change that is meant to move the numbers, write them anew and read the difference::

    python -m tests.stats.golden
"""

from pathlib import Path
from typing import Any

import numpy as np

from ratings.stats import Comparisons, fit, rank, rating_interval, two_way_bootstrap

VOTES = Path(__file__).parent / "headline.csv"
HEADLINE = Path(__file__).parent / "headline.json"
N_VERSIONS = 7  # the last of which nobody saw
SEED = 20


def golden_votes() -> Comparisons:
    """Read the votes: 36 voters, 24 prompts, 600 votes on six versions."""
    left, right, outcome, voter, prompt = np.loadtxt(
        VOTES, delimiter=",", skiprows=1, dtype=np.int64
    ).T
    return Comparisons(left, right, outcome, voter, prompt, N_VERSIONS)


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
        "tie_group": ranks.tie_group.tolist(),
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 3) for value in values]
