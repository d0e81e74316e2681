"""The covariances that a two-way one is made of."""

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np

from ratings.stats.bradley_terry import Ratings
from ratings.stats.comparisons import Comparisons
from ratings.stats.sandwich import bread, one_way, sandwich, vote_scores


def sandwich_and_its_parts(votes: Comparisons, ratings: Ratings) -> SimpleNamespace:
    """`sandwich` with its one-way covariances beside it, that of single votes included."""
    known = votes.select(ratings.comparable[votes.a] & ratings.comparable[votes.b])
    scores, inverse = vote_scores(known, ratings), bread(ratings)
    by_voter, by_prompt, by_both = one_way(scores, inverse, known.voter, known.prompt)
    every = np.arange(known.n_votes)
    return SimpleNamespace(
        **asdict(sandwich(votes, ratings)),
        by_voter=by_voter,
        by_prompt=by_prompt,
        by_both=by_both,
        by_vote=one_way(scores, inverse, every, every)[0],
    )
