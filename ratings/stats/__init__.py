"""From votes to numbers: ratings, intervals and ranks, in pure numpy and scipy.

Arrays go in, frozen results come out; nothing here knows of Django or of a database.
A leaderboard is four calls::

    votes = Comparisons(left, right, outcome, voter, prompt, n_versions)
    ratings = fit(votes)
    draws = two_way_bootstrap(votes, rng=numpy.random.default_rng(seed))
    low, high = rating_interval(ratings, draws)
    ranks = rank(ratings, draws)

The other modules look at the same votes in other ways: `sandwich`, `davidson`, `elo`, `covariates`,
`voters`, `slices`, `influence`, `agreement`, `exploring`. An experiment, one version against
another, is planned and judged by itself::

    expected = plan(Design(margin=25), tie_rate=0.2, voters=40, prompts=120, seed_slots=4)
    found = assess(Blocks(score, voter, prompt), Design(margin=25))
"""

from ratings.stats.bootstrap import (
    percentile_interval,
    rating_interval,
    two_way_bootstrap,
    vote_bootstrap,
)
from ratings.stats.bradley_terry import (
    DEFAULT_PRIOR,
    ELO_PER_LOGIT,
    MEAN_ELO,
    NotConverged,
    Ratings,
    fit,
    recentred,
)
from ratings.stats.comparisons import Comparisons, Outcome, PairCounts
from ratings.stats.planning import Chances, Plan, plan
from ratings.stats.ranks import (
    Differences,
    Ranks,
    WinRates,
    difference_intervals,
    probability_better,
    rank,
    win_rates,
)
from ratings.stats.sequential import Assessment, Blocks, Design, assess

__all__ = [
    "DEFAULT_PRIOR",
    "ELO_PER_LOGIT",
    "MEAN_ELO",
    "Assessment",
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
    "WinRates",
    "assess",
    "difference_intervals",
    "fit",
    "percentile_interval",
    "plan",
    "probability_better",
    "rank",
    "rating_interval",
    "recentred",
    "two_way_bootstrap",
    "vote_bootstrap",
    "win_rates",
]
