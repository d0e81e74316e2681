"""What an experiment will cost and how it may end, before any clip is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammainc

from ratings.stats.comparisons import FloatArray
from ratings.stats.sequential import (
    LEAST_BLOCKS,
    LEAST_PROMPTS,
    LEAST_VOTERS,
    NORMALISED_ELO,
    Design,
    alarm_floor,
    elo_of_score,
    stretch,
)
from ratings.stats.stopping import Stopping, stopping

# Correlations of two blocks that share one voter, or a prompt, or the pair of clips: those of
# tastes of 0.2 logits, prompts of 0.3 and pairs of clips of 0.8 (see bench/gate.py).
VOTER_CORRELATION = 0.003
PROMPT_CORRELATION = 0.025
PAIR_CORRELATION = 0.2
# Voters whose keenness differs ninefold count as four fifths of their number, by Kish. A measured
# design effect scatters as if it had a third of their degrees of freedom, because blocks share
# voters crosswise: both as `design_effects` has it on simulated panels.
UNEVEN = 0.8
SCATTER = 3


@dataclass(frozen=True)
class Chances:
    """How an experiment may end if the candidate truly differs by so much.

    Attributes
    ----------
    normalised, elo : float
        The true difference in normalised Elo and in Elo.
    passed, regressed, inconclusive : float
        Chances of the verdicts; they add up to one.
    blocks, blocks_90 : float
        Until the verdict: on average, and at most with a chance of 90 %.
    votes, votes_90 : float
        Two a block.
    clips, clips_90 : float
        Of both versions together, for so many blocks.
    """

    normalised: float
    elo: float
    passed: float
    regressed: float
    inconclusive: float
    blocks: float
    blocks_90: float
    votes: float
    votes_90: float
    clips: float
    clips_90: float


@dataclass(frozen=True)
class Plan:
    """What to expect of an experiment.

    Attributes
    ----------
    chances : tuple of Chances
        One for each true difference.
    design_effect : float
        Expected at the last block: how many blocks tell as much as one independent block would.
    max_votes, max_clips : int
        If it goes on to the last block.
    """

    chances: tuple[Chances, ...]
    design_effect: float
    max_votes: int
    max_clips: int


def plan(
    design: Design,
    *,
    tie_rate: float,
    voters: int,
    prompts: int,
    seed_slots: int,
    voter_correlation: float = VOTER_CORRELATION,
    prompt_correlation: float = PROMPT_CORRELATION,
    pair_correlation: float = PAIR_CORRELATION,
    elos: Sequence[float] | None = None,
) -> Plan:
    """Say what an experiment will cost and how likely each verdict is.

    Parameters
    ----------
    design : Design
    tie_rate : float
        Share of the votes that are ties or "both bad".
    voters : int
        Expected to take part, each in many blocks. For a public stream, how many will have voted
        by the last block.
    prompts, seed_slots : int
        Prompts, and pairs of clips of each.
    voter_correlation, prompt_correlation, pair_correlation : float
        Of the scores of two blocks that share one voter and nothing else; the prompt, but neither
        the pair of clips nor a voter; and the pair of clips, but no voter.
    elos : sequence of float, optional
        True differences in normalised Elo; none, half the margin worse, the margin, and twice it
        where left out.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        A value is out of range.

    Notes
    -----
    The log-likelihood ratio is followed as a Brownian motion in the time of its information (see
    `stopping`), blocks over the expected design effect. All pairs of clips are judged once before
    any is judged again. Takes some 10 ms; the same on every call.
    """
    _check(tie_rate, voters, prompts, seed_slots)
    correlations = (voter_correlation, prompt_correlation, pair_correlation)
    if not (min(correlations) >= 0 and prompt_correlation <= pair_correlation < 1):
        raise ValueError(
            f"The correlations by voter, prompt and pair are {correlations}; none may be below 0, "
            "and that by pair must be below 1 and no less than that by prompt."
        )
    count = np.arange(1.0, design.max_blocks + 1)
    sharing = 4 * count / (UNEVEN * voters) * voter_correlation
    sharing += np.maximum(count / prompts - 1, 0) * prompt_correlation
    extra = pair_correlation - prompt_correlation
    sharing += np.maximum(count / (prompts * seed_slots) - 1, 0) * extra
    degrees = np.minimum(UNEVEN * min(voters, 2 * design.max_blocks), np.minimum(count, prompts))
    degrees = np.maximum(degrees - 1, 2.0)
    effects = _measured(1 + sharing, degrees / SCATTER) * stretch(degrees, design)

    # Two votes of a block share its pair of clips: their correlation is that of blocks that share
    # it, undone by half.
    within = pair_correlation / (2 - pair_correlation)
    deviation = math.sqrt((1 - tie_rate) / 4 * (1 + within) / 2)
    information = np.maximum.accumulate(count / effects)
    floor = alarm_floor(count, effects, deviation, design)
    law = stopping(information, LEAST_BLOCKS, design.gap, design.bounds, floor)
    blocks = np.append(
        np.interp(law.information[:-1], information, count), float(design.max_blocks)
    )
    pairs = prompts * seed_slots
    margin = design.margin
    truths = (0.0, -margin / 2, -margin, -2 * margin) if elos is None else elos
    return Plan(
        chances=tuple(_chances(law, blocks, deviation, pairs, truth) for truth in truths),
        design_effect=float(effects[-1]),
        max_votes=2 * design.max_blocks,
        max_clips=2 * min(pairs, design.max_blocks),
    )


def _chances(
    law: Stopping, blocks: FloatArray, deviation: float, pairs: int, normalised: float
) -> Chances:
    effect = normalised / NORMALISED_ELO * math.sqrt(2)
    chance = law.under(effect)
    side = [float(chance[law.side == which].sum()) for which in (-1, 0, 1)]
    at_look = np.bincount(law.look, chance, minlength=blocks.size)
    mean = float(at_look @ blocks)
    most = float(blocks[min(int(np.searchsorted(np.cumsum(at_look), 0.9)), blocks.size - 1)])
    return Chances(
        normalised=float(normalised),
        elo=float(elo_of_score(0.5 + effect * deviation)),
        passed=side[2],
        regressed=side[0],
        inconclusive=side[1],
        blocks=mean,
        blocks_90=most,
        votes=2 * mean,
        votes_90=2 * most,
        clips=2 * min(mean, pairs),
        clips_90=2 * min(most, pairs),
    )


def _measured(effects: FloatArray, degrees: FloatArray) -> FloatArray:
    """Mean of design effects as measured: they scatter like a gamma, and none is below 1."""
    shape = degrees / 2
    beyond = 1 - gammainc(shape + 1, shape / effects)
    mean: FloatArray = effects * beyond + gammainc(shape, shape / effects)
    return mean


def _check(tie_rate: float, voters: int, prompts: int, seed_slots: int) -> None:
    if not 0 <= tie_rate < 1:
        raise ValueError(f"The tie rate is {tie_rate}; it must be 0 or more and below 1.")
    for name, number, least in (
        ("voters", voters, LEAST_VOTERS),
        ("prompts", prompts, LEAST_PROMPTS),
        ("seed slots", seed_slots, 1),
    ):
        if number < least:
            raise ValueError(f"There are {number} {name}; a verdict needs {least} or more.")
