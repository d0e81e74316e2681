"""Is the candidate worse than the baseline: two stopping rules on blocks, and an estimate after.

A block is one pair of clips judged by two voters with the sides swapped. The candidate's score in
it, 0 to 4 halves, is the outcome (the pentanomial of Fishtest, Stockfish's testing framework):
what the two votes share, the clips among it, is inside one outcome and needs no assumption.

Two rules run side by side, and whichever decides first gives the verdict:

- a sequential probability ratio test of "worse by the margin" against "not worse";
- an e-process against "not worse", which may be looked at whenever one likes.

Blocks depend on each other: a voter judges many of them, and a prompt comes up again. So both are
divided by a design effect, which is how many blocks tell as much as one independent block would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.special import logsumexp, ndtr, stdtrit

from ratings.stats.comparisons import FloatArray, IntArray, compact, whole_numbers
from ratings.stats.stopping import Stopping, median_unbiased

# Van den Bergh: normalised Elo is Elo where a single vote's score has the standard deviation 1/2.
NORMALISED_ELO = 800 / math.log(10)
# Nothing is decided before: a design effect has to be measured from something.
LEAST_BLOCKS = 30
LEAST_VOTERS = 4
LEAST_PROMPTS = 4
# What a score that never came up counts for, as in Fishtest: without it the likelihoods of a
# candidate that always wins, or always ties, don't exist.
UNSEEN = 1e-3
# Shares of the wealth at stake in a block, for and against even odds; all that pays is kept. The
# best stake is the candidate's deficit over a block's variance: 0.2 suits 15 Elo and 0.8 suits 60.
STAKES = np.array([0.2, 0.4, 0.8, 1.6])
# Scores this near 0 or 1 have no Elo worth the name: 1,200 points.
SCORE_MARGIN = 1e-3
POINTS = np.arange(5) / 4  # of a block, 0 to 1


@dataclass(frozen=True, eq=False)
class Blocks:
    """Complete blocks in the order in which they were completed.

    Parameters
    ----------
    score : int array, shape (n,)
        Twice the candidate's points summed over the block's two votes, 0 to 4: a win is one
        point, a tie or "both bad" half a point.
    voter : int array, shape (n, 2)
        Who gave the two votes; any numbers from 0 on.
    prompt : int array, shape (n,)

    Raises
    ------
    ValueError
        Lengths differ, a score is not 0 to 4, or a value is not a whole number.
    """

    score: IntArray
    voter: IntArray
    prompt: IntArray

    def __post_init__(self) -> None:
        score, prompt = whole_numbers("score", self.score), whole_numbers("prompt", self.prompt)
        voter = whole_numbers("voter", np.asarray(self.voter).reshape(-1)).reshape(-1, 2)
        if not len(score) == len(voter) == len(prompt):
            raise ValueError(
                f"There are {len(score)} scores, {len(voter)} pairs of voters and {len(prompt)} "
                "prompts; each block needs one of each."
            )
        if score.size and not 0 <= score.min() <= score.max() <= 4:
            wrong = int(np.flatnonzero((score < 0) | (score > 4))[0])
            raise ValueError(f"Block {wrong} has the score {score[wrong]}; it must be 0 to 4.")
        for name, values in (("score", score), ("voter", voter), ("prompt", prompt)):
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.score)
