"""What an experiment collects: blocks of two votes.

A block is one pair of clips judged by two voters with the sides swapped. The candidate's score in
it, 0 to 4, is twice its points in the two votes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ratings.stats.comparisons import IntArray


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
        Lengths differ or a score is not 0 to 4.
    """

    score: IntArray
    voter: IntArray
    prompt: IntArray

    def __post_init__(self) -> None:
        score, prompt = np.asarray(self.score, np.int64), np.asarray(self.prompt, np.int64)
        voter = np.asarray(self.voter, np.int64).reshape(-1, 2)
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
