"""From votes to numbers: ratings, intervals and ranks, with numpy and scipy.

Arrays go in, frozen results come out; nothing here knows of Django or of a database.
A leaderboard is four calls::

    votes = Comparisons(a, b, outcome, voter, prompt, n_versions)
    ratings = fit(votes)
    draws = two_way_bootstrap(votes, rng=numpy.random.default_rng(seed))
    low, high = rating_interval(ratings, draws)
    ranks = rank(ratings, draws)

`slices` rates parts of the votes and `exploring` says which pair is worth a vote most; the second
opinions are in `robustness`. An experiment, one version against another, is planned and tested by
itself::

    expected = plan_experiment(
        Design(margin=25), tie_rate=0.2, voters=40, prompts=120, seed_slots=4
    )
    found = sequential_test(Blocks(score, voter, prompt), Design(margin=25))
"""

from ratings.design import Design
from ratings.elo_scale import ELO_PER_LOGIT, MEAN_ELO
from ratings.stats.blocks import Blocks
from ratings.stats.bootstrap import (
    percentile_interval,
    rating_interval,
    two_way_bootstrap,
    vote_bootstrap,
)
from ratings.stats.bradley_terry import DEFAULT_PRIOR, NotConverged, Ratings, fit, recentred
from ratings.stats.comparisons import Comparisons, Outcome, PairCounts
from ratings.stats.planning import Chances, Plan, plan_experiment
from ratings.stats.ranks import (
    Differences,
    Ranks,
    WinRates,
    difference_intervals,
    rank,
    win_rates,
)
from ratings.stats.sequential import SequentialResult, sequential_test

__all__ = [
    "DEFAULT_PRIOR",
    "ELO_PER_LOGIT",
    "MEAN_ELO",
    "Blocks",
    "Chances",
    "Comparisons",
    "Design",
    "Differences",
    "NotConverged",
    "Outcome",
    "PairCounts",
    "Plan",
    "Ranks",
    "Ratings",
    "SequentialResult",
    "WinRates",
    "difference_intervals",
    "fit",
    "percentile_interval",
    "plan_experiment",
    "rank",
    "rating_interval",
    "recentred",
    "sequential_test",
    "two_way_bootstrap",
    "vote_bootstrap",
    "win_rates",
]
