"""Complete blocks, as the sequential test takes them. Loads numpy."""

from collections.abc import Iterable, Sequence
from uuid import UUID

import numpy as np

from ratings.experiments.votes import BlockVote
from ratings.stats.blocks import Blocks


def complete_blocks(votes: Iterable[BlockVote]) -> list[tuple[BlockVote, BlockVote]]:
    """Both votes of each block that has them, in the order of the second.

    A vote slot has two votes when one of them was excluded for a while: the earlier one counts.
    """
    by_block: dict[int, dict[bool, BlockVote]] = {}
    complete = []
    for vote in votes:
        of_block = by_block.setdefault(vote.block, {})
        if vote.out or vote.candidate_is_a in of_block:
            continue
        of_block[vote.candidate_is_a] = vote
        if len(of_block) == 2:
            first, second = of_block.values()
            complete.append((first, second))
    return complete


def blocks_of(pairs: Sequence[tuple[BlockVote, BlockVote]]) -> Blocks:
    """The blocks as the statistics take them; voters and prompts are numbered as they appear."""
    voters: dict[UUID, int] = {}
    prompts: dict[int, int] = {}
    return Blocks(
        score=np.array([one.half_points + two.half_points for one, two in pairs], dtype=np.int64),
        voter=np.array(
            [[voters.setdefault(vote.voter, len(voters)) for vote in pair] for pair in pairs],
            dtype=np.int64,
        ).reshape(-1, 2),
        prompt=np.array(
            [prompts.setdefault(one.prompt, len(prompts)) for one, _ in pairs], dtype=np.int64
        ),
    )
