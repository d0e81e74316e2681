"""Do voters agree with each other and with themselves, and is clip A favoured?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from ratings.significance import LEVEL
from ratings.stats.bootstrap import BATCH_NUMBERS, require_level
from ratings.stats.comparisons import BoolArray, Comparisons, FloatArray, IntArray, Outcome, compact
from ratings.stats.parts import wilson
from ratings.stats.sandwich import clustered

# Answers seen from the pair's first version, in their order.
WORSE, EVEN, BETTER = 0, 1, 2
N_ANSWERS = 3


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far answers can be relied on, with the number of votes that says so.

    Attributes
    ----------
    alpha, alpha_low, alpha_high : float
        Krippendorff's alpha: 1 where voters always agree, 0 where they agree as often as answers
        drawn at random would. NaN without a repeated unit, and where every answer in the
        repeated units is a tie: nothing can then be said of agreement. The interval is NaN
        with fewer than two units, too.
    units : int
        Same prompt and same pair of versions judged by two or more different voters.
    answers : int
        Answers on these units, one a voter.
    same_again, same_low, same_high : float
        Share of identical answers where a voter judged the same pair on the same prompt again,
        and Wilson's interval; NaN without a repeat.
    repeats : int
        Answers to a pair and prompt that the same voter had judged before.
    a_share, a_low, a_high : float
        Share of the votes with a winner that went to clip A; a half means no bias. NaN
        without such a vote. The interval is clustered by voter and by prompt, and NaN where one
        of the two is the same in all these votes, or every one went to the same side: they then
        do not vary as others would.
    decided : int
        Votes with a winner.
    """

    alpha: float
    alpha_low: float
    alpha_high: float
    units: int
    answers: int
    same_again: float
    same_low: float
    same_high: float
    repeats: int
    a_share: float
    a_low: float
    a_high: float
    decided: int


def agreement(
    votes: Comparisons, *, rng: np.random.Generator, replicates: int = 200, level: float = LEVEL
) -> Agreement:
    """Measure agreement between voters, of voters with themselves, and the bias towards clip A.

    Every vote counts once, whatever its weight. Where a voter repeated a judgement, the first
    answer counts for the agreement with others.

    Parameters
    ----------
    votes : Comparisons
        Rows in the order of time.
    rng : numpy.random.Generator
    replicates : int
        Resamples of the units behind alpha's interval.
    level : float

    Returns
    -------
    Agreement

    Raises
    ------
    ValueError
        The level is not between 0 and 1, or replicates is below 1.

    Notes
    -----
    Alpha is the ordinal one (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability) of
    the answers first version worse, tie, better. Which version is a pair's first is an accident
    of numbering, so each unit is entered from both sides: agreeing by chance then means agreeing
    with someone who knows nothing of the versions, and other numbers change nothing.
    Its interval is the percentile one over resampled units, which are taken as independent.
    """
    require_level(level)
    if replicates < 1:
        raise ValueError(f"replicates is {replicates}; it must be at least 1.")
    unit, answer = _units_and_answers(votes)
    # Rows of the same voter and unit, neighbours in their order of time.
    order = np.lexsort((votes.voter, unit))
    again = np.zeros(votes.n_votes, dtype=bool)
    again[1:] = (np.diff(unit[order]) == 0) & (np.diff(votes.voter[order]) == 0)
    before = answer[order][np.flatnonzero(again) - 1]
    same_again, same_low, same_high = _share_with_interval(answer[order][again] == before, level)

    first_answers = order[~again]
    table = np.bincount(unit[first_answers] * N_ANSWERS + answer[first_answers])
    table = np.pad(table, (0, -table.size % N_ANSWERS)).reshape(-1, N_ANSWERS)
    table = table[table.sum(axis=1) >= 2]
    alpha, alpha_low, alpha_high = _alpha(table, rng, replicates, level)
    a_share, a_low, a_high, decided = _share_of_a(votes, level)
    return Agreement(
        alpha=alpha,
        alpha_low=alpha_low,
        alpha_high=alpha_high,
        units=len(table),
        answers=int(table.sum()),
        same_again=same_again,
        same_low=same_low,
        same_high=same_high,
        repeats=int(again.sum()),
        a_share=a_share,
        a_low=a_low,
        a_high=a_high,
        decided=decided,
    )


def _units_and_answers(votes: Comparisons) -> tuple[IntArray, IntArray]:
    """Number each vote's unit (prompt and pair) and read its answer from the first version."""
    swapped = votes.a > votes.b
    first = np.where(swapped, votes.b, votes.a)
    second = np.where(swapped, votes.a, votes.b)
    prompt = compact(votes.prompt)[1]
    unit = compact((prompt * votes.n_versions + first) * votes.n_versions + second)[1]
    first_won = (votes.outcome == Outcome.A) ^ swapped
    answer = np.where(votes.outcome == Outcome.TIE, EVEN, np.where(first_won, BETTER, WORSE))
    return unit, answer


def _share_with_interval(same: BoolArray, level: float) -> tuple[float, float, float]:
    """Share of true values and Wilson's interval; NaN without any value."""
    if same.size == 0:
        return np.nan, np.nan, np.nan
    share = float(same.mean())
    return share, *wilson(share, same.size, level)


def _alpha(
    table: IntArray, rng: np.random.Generator, replicates: int, level: float
) -> tuple[float, float, float]:
    """Alpha of units that two voters or more judged, and its interval.

    `table`, shape (units, 3), counts each unit's answers. A replicate's alpha comes from sums
    over its units, so the units with the same counts are drawn together and none is copied.
    """
    if table[:, [WORSE, BETTER]].sum() == 0:
        return np.nan, np.nan, np.nan
    kinds, times = np.unique(table, axis=0, return_counts=True)
    coincidences = _coincidences(kinds)
    alpha = float(ordinal_alpha(np.tensordot(times, coincidences, 1)[None])[0])
    if len(table) < 2:
        return alpha, np.nan, np.nan
    cells = coincidences.reshape(len(kinds), -1)
    batch = max(1, BATCH_NUMBERS // len(kinds))
    draws = np.concatenate(
        [
            rng.multinomial(len(table), times / len(table), size=min(batch, replicates - begin))
            @ cells
            for begin in range(0, replicates, batch)
        ]
    ).reshape(-1, N_ANSWERS, N_ANSWERS)
    # A replicate of ties alone has no alpha.
    varied = draws[:, [WORSE, BETTER]].sum(axis=(1, 2)) > 0
    if not varied.any():
        return alpha, np.nan, np.nan
    tail = (1 - level) / 2
    low, high = np.quantile(ordinal_alpha(draws[varied]), [tail, 1 - tail])
    return alpha, float(low), float(high)


def _coincidences(table: IntArray) -> FloatArray:
    """Pairs of answers within each unit, entered from both sides, shape (units, 3, 3)."""
    pairs = table[:, :, None] * table[:, None, :] - table[:, :, None] * np.eye(N_ANSWERS)
    share = pairs / (table.sum(axis=1) - 1)[:, None, None]
    both: FloatArray = share + share[:, ::-1, ::-1]
    return both


def ordinal_alpha(coincidences: FloatArray) -> FloatArray:
    """Krippendorff's ordinal alpha of many coincidence matrices at once.

    Parameters
    ----------
    coincidences : float array, shape (r, v, v)
        How often each two of the v ordered answers met within a unit.

    Returns
    -------
    float array, shape (r,)

    Notes
    -----
    ``1 - (n - 1) sum(o d) / sum(n_c n_k d)`` with ``d_ck`` the square of the answers from c to k,
    the ends counted half (Krippendorff 2011, section C; its step for ordinal data).
    """
    totals = coincidences.sum(axis=2)
    # Answers up to the middle of each place: their differences are the ordinal distances.
    middle = np.cumsum(totals, axis=1) - totals / 2
    distance = (middle[:, :, None] - middle[:, None, :]) ** 2
    observed = (coincidences * distance).sum(axis=(1, 2))
    expected = (totals[:, :, None] * totals[:, None, :] * distance).sum(axis=(1, 2))
    alpha: FloatArray = 1 - (totals.sum(axis=1) - 1) * observed / expected
    return alpha


def _share_of_a(votes: Comparisons, level: float) -> tuple[float, float, float, int]:
    """Share of clip A among the votes with a winner, its interval, and their number."""
    rows = np.flatnonzero(votes.outcome != Outcome.TIE)
    if rows.size == 0:
        return np.nan, np.nan, np.nan, 0
    for_a = votes.outcome[rows] == Outcome.A
    share = float(for_a.mean())
    scores = csr_array((for_a - share)[:, None])
    spread = clustered(scores, np.eye(1) / rows.size, votes.voter[rows], votes.prompt[rows])
    if min(spread.voters, spread.prompts) < 2 or share in (0.0, 1.0):
        return share, np.nan, np.nan, rows.size
    reach = spread.reach(level) * float(np.sqrt(spread.covariance[0, 0]))
    return share, max(0.0, share - reach), min(1.0, share + reach), rows.size
