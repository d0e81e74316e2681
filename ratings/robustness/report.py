"""How a leaderboard stands up to other ways of looking at the same votes.

Other intervals and other models beside the board's, the fewest votes that would change who leads,
the voter and the prompt that weigh most, how far voters agree, and what else may sway them.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import numpy as np
from django.db import connection
from django.utils import timezone
from scipy.special import ndtr

from arena.ledger import LedgerEnd, advisory_lock
from generation.catalogue.categories import Category
from ratings.boards.refit import (
    BOARD_SEED,
    REPLICATES,
    CountedVotes,
    end_of_ledger,
    is_ranked,
    ranks_among,
    read_votes,
)
from ratings.boards.slices import refit_slices
from ratings.boards.stored import newest_board
from ratings.models import Robustness
from ratings.robustness.stored import PAIR_VOTES, ROBUSTNESS_SCHEMA_VERSION, newest_findings
from ratings.significance import LEVEL, discoveries, normal_reach
from ratings.stats import (
    MEAN_ELO,
    Comparisons,
    NotConverged,
    Outcome,
    Ratings,
    fit,
    percentile_interval,
    rating_interval,
    recentred,
    two_way_bootstrap,
    vote_bootstrap,
    win_rates,
)
from ratings.stats.robustness.agreement import agreement
from ratings.stats.robustness.covariates import contextual
from ratings.stats.robustness.davidson import davidson
from ratings.stats.robustness.influence import fewest_votes_to_change_leader, most_influential
from ratings.stats.robustness.online_elo import DEFAULT_STEP, online_elo
from ratings.stats.robustness.voters import discriminants
from ratings.stats.sandwich import Clustered, sandwich
from ratings.stored import is_of_another_ledger, is_throttled, rounded

log = logging.getLogger(__name__)

# Findings are computed again when the votes have changed by this share, or when they are so old.
CHANGED = 0.1
OLD = timedelta(hours=1)
# The covariates are looked at in the newest votes of a large ledger; they need every vote's clips.
COVARIATE_VOTES = 200_000
# A covariate that fewer votes know is left out.
KNOWN_FROM = 0.5
# Name, and what one unit of it is in words. Length is none: it belongs to the prompt, so both clips
# of a battle have the same.
COVARIATES = (
    ("resolution", "with twice the pixels"),
    ("frame rate", "with 10 more frames per second"),
    ("loudness", "one loudness unit louder"),
    ("motion", "with twice the motion"),
)
CLIP_FACTS = """
    SELECT ln(nullif(a.width * a.height, 0)) - ln(nullif(b.width * b.height, 0)),
        a.fps - b.fps, a.loudness - b.loudness, ln(a.motion + 1) - ln(b.motion + 1)
    FROM arena_vote vote JOIN arena_battle battle ON battle.id = vote.battle_id
    JOIN generation_clip a ON a.id = battle.clip_a_id
    JOIN generation_clip b ON b.id = battle.clip_b_id
    WHERE vote.id = ANY(%s) ORDER BY vote.id
"""
UNITS = np.array([math.log(2), 10.0, 1.0, math.log(2)])  # of the columns of CLIP_FACTS


def is_due(category: Category, end: LedgerEnd) -> bool:
    """Whether the newest findings are behind the ledger by a tenth of their votes, or an hour."""
    newest, board = newest_findings(category.value), newest_board(category.value)
    if board is None or newest is None:
        return board is not None
    if not is_of_another_ledger(newest, end) or is_throttled(newest):
        return False
    votes = newest.findings.get("votes", 0)
    return (
        abs(board.votes - votes) >= CHANGED * votes
        or newest.simulated_counted != end.simulated
        or timezone.now() - newest.created_at > OLD
    )


def write_report(category: Category) -> Robustness:
    """Store the findings on the category's ratings as the ledger stands now, and its slices."""
    end = end_of_ledger(category.value)
    with advisory_lock(f"robustness {category}"):
        return _write_report(category, end)


def write_report_if_due(category: Category) -> Robustness | None:
    """The same, unless it is not due or another worker is at it."""
    end = end_of_ledger(category.value)
    with advisory_lock(f"robustness {category}", wait=False) as free:
        return _write_report(category, end) if free and is_due(category, end) else None


def _write_report(category: Category, end: LedgerEnd) -> Robustness:
    begin = time.monotonic()
    votes = read_votes(category.value, end)
    findings: dict[str, Any] = {}
    if votes.comparisons is not None:
        findings = findings_of(category, votes, votes.comparisons)
    return Robustness.objects.create(
        category=category.value,
        last_vote_id=end.last_vote,
        last_exclusion_id=end.last_exclusion,
        simulated_counted=end.simulated,
        findings={
            "schema_version": ROBUSTNESS_SCHEMA_VERSION,
            "slices": [board.slice for board in refit_slices(category, votes)],
            **findings,
        },
        seconds=time.monotonic() - begin,
    )


def findings_of(
    category: Category, votes: CountedVotes, comparisons: Comparisons
) -> dict[str, Any]:
    """Numbers for the robustness page, as JSON; matrices and lists are in the order of `versions`,
    and null is what is open or can't be told."""
    ratings = fit(comparisons)
    clusters = sandwich(comparisons, ratings)

    def rng() -> np.random.Generator:
        return np.random.default_rng(BOARD_SEED)

    draws = two_way_bootstrap(comparisons, rng=rng(), replicates=REPLICATES, clusters=clusters)
    control = vote_bootstrap(comparisons, rng=rng(), replicates=REPLICATES)
    ranked = is_ranked(comparisons.collapse(), ratings)
    intervals = _intervals(ratings, draws, control, clusters, ranked)
    if ranked.any():
        ratings, draws = recentred(ratings, draws, ranked)
    influences, held_equal = _measure_other_influences(category, votes, comparisons)
    return {
        "versions": list(votes.versions),
        "ranked": ranked.tolist(),
        "votes": comparisons.n_votes,
        "ties": int(np.count_nonzero(comparisons.outcome == Outcome.TIE)),
        "voters": votes.voters,
        "prompts": len(votes.prompts),
        "seed": BOARD_SEED,
        "replicates": REPLICATES,
        "ratings": _numbers(ratings.elo),
        "intervals": intervals,
        "head_to_head": _head_to_head(comparisons, ratings),
        "second_opinions": {
            "davidson": _opinion(lambda: davidson(comparisons).elo, ranked),
            "discriminants": _opinion(lambda: discriminants(comparisons).elo, ranked),
            "held_equal": _opinion(lambda: held_equal, ranked),
            "online_elo": _opinion(lambda: online_elo(comparisons), ranked),
            "online_elo_step": DEFAULT_STEP,
        },
        "lead": _lead(votes, ratings, draws, ranked),
        "influence": _influence(votes, comparisons, ranked),
        "agreement": _json(asdict(agreement(comparisons, rng=rng()))),
        "other_influences": influences,
    }


def _opinion(
    rate: Callable[[], np.ndarray | None], ranked: np.ndarray
) -> list[float | None] | None:
    """Another model's ratings, the mean of the ranked versions 1000 as on the board; None where it
    has none or did not converge."""
    try:
        elo = rate()
    except NotConverged as reason:
        log.warning("another way of rating has no answer: %s", reason)
        return None
    if elo is None:
        return None
    rated = ranked & np.isfinite(elo)
    return _numbers(elo - elo[rated].mean() + MEAN_ELO if rated.any() else elo)


def _numbers(values: np.ndarray) -> list[float | None]:
    return [rounded(value) for value in values]


def _json(fields: dict[str, Any]) -> dict[str, Any]:
    """Floats rounded, what is not a number as null."""
    return {
        name: (round(value, 6) if math.isfinite(value) else None)
        if isinstance(value, float)
        else int(value)
        for name, value in fields.items()
    }


def _intervals(
    ratings: Ratings,
    draws: np.ndarray,
    control: np.ndarray,
    clusters: Clustered,
    ranked: np.ndarray,
) -> dict[str, Any]:
    """Low and high of each version by the three methods, the mean of the ranked ones 1000."""
    among = ranked if ranked.any() else ratings.comparable
    centred, draws = recentred(ratings, draws, among)
    _, control = recentred(ratings, control, among)
    centring = np.eye(among.size) - among / np.count_nonzero(among)
    variance = np.diagonal(centring @ clusters.covariance @ centring.T)
    reach = clusters.reach(LEVEL) * np.sqrt(np.maximum(variance, 0.0))
    reach[~ratings.core] = np.nan  # outside the core the votes' scores say nothing of the width
    ends = {
        "two_way_bootstrap": rating_interval(centred, draws, LEVEL),
        "sandwich": (centred.elo - reach, centred.elo + reach),
        "vote_bootstrap": rating_interval(centred, control, LEVEL),
    }
    return {name: [_numbers(low), _numbers(high)] for name, (low, high) in ends.items()}


def _lead(
    votes: CountedVotes, ratings: Ratings, draws: np.ndarray, ranked: np.ndarray
) -> dict[str, Any]:
    """The first two ranked versions, the interval of the points between them, and who is tied."""
    if np.count_nonzero(ranked) < 2:
        return {}
    ranks = ranks_among(ranked, ratings, draws)
    order = np.argsort(-np.where(ranked, ratings.elo, -np.inf), kind="stable")
    leader, runner_up = (int(index) for index in order[:2])
    points = ratings.elo[leader] - ratings.elo[runner_up]
    low, high = (
        float(end[0])
        for end in percentile_interval(draws[:, [leader]] - draws[:, [runner_up]], LEVEL)
    )
    # Where draws can't vary enough, the error that the ranks are made of is the wider one.
    reach = normal_reach(LEVEL) * ranks.differences.error[leader, runner_up]
    if not (ratings.core[leader] and ratings.core[runner_up]):
        low, high = min(low, points - reach), max(high, points + reach)
    if ratings.bounded[leader] == "below" or ratings.bounded[runner_up] == "above":
        high = math.inf
    tied = [votes.versions[i] for i in order if ranked[i] and ranks.low[i] == 1 and i != leader]
    return {
        "leader": votes.versions[leader],
        "runner_up": votes.versions[runner_up],
        "points": rounded(points),
        "low": rounded(low),
        "high": rounded(high),
        "tied": tied,
    }


def _head_to_head(votes: Comparisons, ratings: Ratings) -> dict[str, Any]:
    """Observed and expected win rates, and the pairs that differ by more than chance.

    A normal test of each pair with votes enough, each vote taken as independent, at a
    false-discovery rate of 5 %.
    """
    rates = win_rates(votes, ratings)
    first, second = np.nonzero(np.triu(rates.votes >= PAIR_VOTES, 1) & ~np.isnan(rates.expected))
    beyond = np.zeros(rates.votes.shape, dtype=bool)
    if first.size:
        expected, number = rates.expected[first, second], rates.votes[first, second]
        error = np.sqrt(expected * (1 - expected) / number)
        chance = 2 * ndtr(-np.abs(rates.observed[first, second] - expected) / error)
        found = np.array(discoveries(chance.tolist()))
        beyond[first[found], second[found]] = beyond[second[found], first[found]] = True
    return {
        "votes": rates.votes.astype(int).tolist(),
        "observed": [_numbers(row) for row in rates.observed],
        "expected": [_numbers(row) for row in rates.expected],
        "beyond_chance": beyond.tolist(),
    }


def _influence(votes: CountedVotes, comparisons: Comparisons, ranked: np.ndarray) -> dict[str, Any]:
    """What the lead hangs on, in the votes between ranked versions: a new one could lead by a few
    votes, and is no challenger yet."""
    among = ranked[comparisons.a] & ranked[comparisons.b]
    if not among.any():
        return {}
    comparisons = comparisons.select(among)
    ratings = fit(comparisons)
    fragility = fewest_votes_to_change_leader(comparisons, ratings)
    top = most_influential(comparisons, ratings)

    def version(index: int | None) -> int | None:
        return None if index is None else votes.versions[index]

    found: dict[str, Any] = {
        "leader": version(top.leader),
        "runner_up": version(top.runner_up),
        "lead": rounded(top.lead),
        "of": comparisons.n_votes,
        "fewest": {
            "new_leader": version(fragility.new_leader),
            "votes": fragility.votes,
            "share": rounded(100 * fragility.share),
        },
    }
    for name, removal in (("voter", top.voter), ("prompt", top.prompt)):
        found[name] = removal and {
            "votes": removal.votes,
            "leader": version(removal.leader),
            "lead": rounded(removal.lead),
        }
    if top.prompt is not None:
        found["prompt"]["id"] = votes.prompts[top.prompt.number]
    return found


def _measure_other_influences(
    category: Category, votes: CountedVotes, comparisons: Comparisons
) -> tuple[dict[str, Any], np.ndarray | None]:
    """What else than the versions sways voters, and the ratings with all of it held equal."""
    newest = np.arange(comparisons.n_votes)[-COVARIATE_VOTES:]
    with connection.cursor() as cursor:
        cursor.execute(CLIP_FACTS, [votes.ids[newest].tolist()])
        table = np.array(cursor.fetchall(), dtype=float) / UNITS
    recent = comparisons.select(newest)
    usable: list[int] = []
    left_out: list[dict[str, str]] = []
    for column, (name, _) in enumerate(COVARIATES):
        known = np.isfinite(table[:, [*usable, column]]).all(axis=1)
        if known.mean() < KNOWN_FROM:
            why = "not measured on enough clips"
        elif not table[known, column].any():
            why = "the same on both sides of every pair"
        elif not _can_be_told(recent, table, [*usable, column]):
            why = "differs between versions only"
        else:
            usable.append(column)
            continue
        left_out.append({"name": name, "why": why})
    if not usable and not _can_be_told(recent, table, usable):  # versions that never change sides
        return {"votes": 0, "effects": [], "left_out": left_out}, None
    used, names = _with_covariates(recent, table, usable)
    result = contextual(used, names, side_a=True, level=LEVEL)
    words = ["shown as A", *(COVARIATES[column][1] for column in usable)]
    found = {
        "votes": used.n_votes,
        "effects": [
            {
                "name": word,
                "effect": rounded(result.effect[i]),
                "low": rounded(result.effect_low[i]),
                "high": rounded(result.effect_high[i]),
            }
            for i, word in enumerate(words)
        ],
        "left_out": left_out,
    }
    return found, result.elo


def _with_covariates(
    votes: Comparisons, table: np.ndarray, columns: list[int]
) -> tuple[Comparisons, list[str]]:
    """The votes of which all these covariates are known, and the covariates' names."""
    known = np.isfinite(table[:, columns]).all(axis=1)
    votes = votes.select(known)
    with_covariates = Comparisons(
        votes.a,
        votes.b,
        votes.outcome,
        votes.voter,
        votes.prompt,
        votes.n_versions,
        covariates=table[known][:, columns],
    )
    return with_covariates, [COVARIATES[column][0] for column in columns]


def _can_be_told(votes: Comparisons, table: np.ndarray, columns: list[int]) -> bool:
    """Whether these covariates, and the side, differ in ways that the versions do not explain."""
    try:
        contextual(*_with_covariates(votes, table, columns))
    except ValueError:
        return False
    return True
