"""What an experiment will cost and how it may end, before any clip is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammainc

from ratings.design import Design
from ratings.elo_scale import block_effect, elo_of_score
from ratings.least_numbers import LEAST_BLOCKS, LEAST_PROMPTS, LEAST_VOTERS
from ratings.stats.comparisons import FloatArray
from ratings.stats.design_effects import LEAST_DEGREES, small_sample_inflation
from ratings.stats.sequential import alarm_line
from ratings.stats.stopping import Stopping, stopping

# Correlations of two blocks that share one voter, or a prompt, or the pair of clips: those of
# tastes of 0.2 logits, prompts of 0.3 and pairs of clips of 0.8 (see bench/gate.py).
VOTER_CORRELATION = 0.003
PROMPT_CORRELATION = 0.025
PAIR_CORRELATION = 0.2
# Both as `design_effects` has it on simulated panels. Voters whose numbers of votes differ ninefold
# count as four fifths of their number, by Kish; and a measured design effect scatters as if it had
# a third of the degrees of freedom, because blocks share voters crosswise.
# Variance of the log-likelihood ratio, in squares of the distance of its bounds, after which a walk
# between them goes on with a chance below exp(-pi**2 / 2 * 6) < 1e-12, whatever its drift.
SURELY_ENDED = 6
EFFECTIVE_VOTER_SHARE = 0.8
SCATTER_DEGREES_SHARE = 1 / 3


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
    clips : float
        Of both versions together, for the mean number of blocks.
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


@dataclass(frozen=True)
class Plan:
    """What to expect of an experiment.

    Attributes
    ----------
    chances : tuple of Chances
        One for each true difference.
    design_effect : float
        Expected at the last block: how many blocks tell as much as one independent block would.
    """

    chances: tuple[Chances, ...]
    design_effect: float


def plan_experiment(
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
    effects = _expected_design_effects(design, voters, prompts, seed_slots, correlations)
    effect_at_end = float(effects[-1])
    # Two votes of a block share its pair of clips: their correlation is that of blocks that share
    # it, undone by half.
    within = pair_correlation / (2 - pair_correlation)
    deviation = math.sqrt((1 - tie_rate) / 4 * (1 + within) / 2)
    count = np.arange(1.0, design.max_blocks + 1)
    information = np.maximum.accumulate(count / effects)
    enough = SURELY_ENDED * (design.bounds[1] - design.bounds[0]) ** 2 / design.gap**2
    ended = int(np.searchsorted(information, information[LEAST_BLOCKS - 1] + enough)) + 1
    count, effects, information = count[:ended], effects[:ended], information[:ended]
    line = alarm_line(count, effects, deviation, design)
    law = stopping(information, LEAST_BLOCKS, design.gap, design.bounds, line)
    blocks = np.append(np.interp(law.information[:-1], information, count), count[-1])
    pairs = prompts * seed_slots
    margin = design.margin
    truths = (0.0, -margin / 2, -margin, -2 * margin) if elos is None else elos
    return Plan(
        chances=tuple(_chances(law, blocks, deviation, pairs, truth) for truth in truths),
        design_effect=effect_at_end,
    )


def _chances(
    law: Stopping, blocks: FloatArray, deviation: float, pairs: int, normalised: float
) -> Chances:
    effect = block_effect(normalised)
    chance = law.under(effect)
    side = [float(chance[law.side == which].sum()) for which in (-1, 0, 1)]
    at_look = np.bincount(law.look, chance, minlength=blocks.size)
    mean = float(at_look @ blocks)
    most = float(blocks[min(int(np.searchsorted(np.cumsum(at_look), 0.9)), blocks.size - 1)])
    return Chances(
        normalised=float(normalised),
        elo=elo_of_score(0.5 + effect * deviation),
        passed=side[2],
        regressed=side[0],
        inconclusive=side[1],
        blocks=mean,
        blocks_90=most,
        votes=2 * mean,
        votes_90=2 * most,
        clips=2 * min(mean, pairs),
    )


def _expected_design_effects(
    design: Design,
    voters: int,
    prompts: int,
    seed_slots: int,
    correlations: tuple[float, float, float],
) -> FloatArray:
    """What `design_effects` is expected to measure after every block, shape (max_blocks,).

    A block's design effect is one more than the correlations with the other blocks so far, added
    up: it shares a voter with ``4 / voters`` of them, a prompt with ``1 / prompts``, and the pair
    of clips with ``1 / (prompts * seed_slots)``.
    """
    by_voter, by_prompt, by_pair = correlations
    count = np.arange(1.0, design.max_blocks + 1)
    effective_voters = EFFECTIVE_VOTER_SHARE * voters
    effects = 1 + 4 * count / effective_voters * by_voter
    effects += np.maximum(count / prompts - 1, 0) * by_prompt
    effects += np.maximum(count / (prompts * seed_slots) - 1, 0) * (by_pair - by_prompt)
    most_voters = EFFECTIVE_VOTER_SHARE * min(voters, 2 * design.max_blocks)
    degrees = np.minimum(most_voters, np.minimum(count, prompts))
    degrees = np.maximum(degrees - 1, LEAST_DEGREES)
    measured = _mean_as_measured(effects, degrees * SCATTER_DEGREES_SHARE)
    return measured * small_sample_inflation(degrees, design)


def _mean_as_measured(effects: FloatArray, degrees: FloatArray) -> FloatArray:
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
