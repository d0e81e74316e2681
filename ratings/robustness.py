"""How a leaderboard stands up to other ways of looking at the same votes.

Other intervals and other models beside the board's, the fewest votes that would change who leads,
the voter and the prompt that weigh most, how far voters agree, and what else may sway them.
"""

import math
import time
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import numpy as np
from django.db import connection, transaction
from django.utils import timezone
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from generation.categories import Category
from ratings.leaderboards import (
    LEVEL,
    REPLICATES,
    SEED,
    CountedVotes,
    end_of_ledger,
    is_behind,
    is_ranked,
    is_resting,
    newest_board,
    ranked_only,
    read_votes,
    rounded,
)
from ratings.models import Robustness
from ratings.slices import refit_slices
from ratings.stats import (
    Comparisons,
    Outcome,
    Ratings,
    fit,
    percentile_interval,
    rank,
    rating_interval,
    recentred,
    two_way_bootstrap,
    vote_bootstrap,
    win_rates,
)
from ratings.stats.agreement import agreement
from ratings.stats.bradley_terry import MEAN_ELO
from ratings.stats.covariates import contextual
from ratings.stats.davidson import davidson
from ratings.stats.elo import DEFAULT_STEP, online_elo
from ratings.stats.influence import fewest_votes_to_change_leader, most_influential
from ratings.stats.sandwich import Clustered, sandwich
from ratings.stats.slices import FALSE_DISCOVERIES
from ratings.stats.voters import discriminants

# Findings are made anew when the votes have grown so much, or when they are so old.
GROWN = 1.1
OLD = timedelta(hours=1)
# The covariates are looked at in the newest votes of a large ledger; they need every vote's clips.
COVARIATE_VOTES = 200_000
# Votes of a pair from which on its win rate is held against the expected one.
PAIR_VOTES = 30
# A covariate that fewer votes know is left out.
KNOWN_FROM = 0.5
# Name, and what one unit of it is in words. Length is none: it belongs to the prompt, so both clips
# of a battle have the same.
COVARIATES = (
    ("resolution", "rendered with twice the pixels"),
    ("frame rate", "rendered at ten frames per second more"),
    ("loudness", "one loudness unit louder"),
    ("motion", "twice the motion"),
)
CLIP_FACTS = """
    SELECT vote.id, ln(a.width * a.height) - ln(b.width * b.height),
        a.fps - b.fps, a.loudness - b.loudness, ln(a.motion + 1) - ln(b.motion + 1)
    FROM arena_vote vote JOIN arena_battle battle ON battle.id = vote.battle_id
    JOIN generation_clip a ON a.id = battle.left_id JOIN generation_clip b ON b.id = battle.right_id
    WHERE vote.category = %s AND vote.id BETWEEN %s AND %s ORDER BY vote.id
"""
UNITS = np.array([math.log(2), 10.0, 1.0, math.log(2)])  # of the columns of CLIP_FACTS


def is_due(category: Category) -> bool:
    """Whether the newest findings are behind the ledger by a tenth of their votes, or an hour."""
    newest = Robustness.objects.filter(category=category.value).order_by("-pk").first()
    board = newest_board(category.value)
    if board is None or newest is None:
        return board is not None
    if not is_behind(newest, end_of_ledger(category.value)) or is_resting(newest):
        return False
    grown = board.votes >= GROWN * newest.findings.get("votes", 0)
    return grown or timezone.now() - newest.created_at > OLD


@transaction.atomic
def scrutinise(category: Category) -> Robustness:
    """Store the findings on the category's ratings as the ledger stands now, and its slices."""
    begin = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"scrutinise {category}"])
    votes = read_votes(category.value, end_of_ledger(category.value))
    findings: dict[str, Any] = {}
    if votes.comparisons is not None:
        boards = refit_slices(category, votes, begin)
        findings = findings_of(category, votes, votes.comparisons)
        findings["slices"] = [board.slice for board in boards]
    return Robustness.objects.create(
        category=category.value,
        last_vote_id=votes.end.last_vote,
        last_exclusion_id=votes.end.last_exclusion,
        simulated_counted=votes.end.simulated,
        findings=findings,
        seconds=time.monotonic() - begin,
    )


def findings_of(
    category: Category, votes: CountedVotes, comparisons: Comparisons
) -> dict[str, Any]:
    """Numbers for the robustness page, as JSON; matrices and lists are in the order of `versions`,
    and null is what is open or can't be told."""
    ratings = fit(comparisons)
    clusters = sandwich(comparisons, ratings)
    draws = two_way_bootstrap(comparisons, rng=np.random.default_rng(SEED), clusters=clusters)
    control = vote_bootstrap(comparisons, rng=np.random.default_rng(SEED))
    ranked = is_ranked(comparisons, ratings)
    intervals = _intervals(ratings, draws, control, clusters, ranked)
    if ranked.any():
        ratings, draws = recentred(ratings, draws, ranked)
    swayed, held_equal = _swayed(category, votes, comparisons)

    def opinion(elo: np.ndarray) -> list[float | None]:
        """With the mean of the ranked versions at 1000, as on the board."""
        shift = np.nanmean(elo[ranked]) - MEAN_ELO if np.isfinite(elo[ranked]).any() else 0.0
        return _numbers(elo - shift)

    return {
        "versions": list(votes.versions),
        "ranked": ranked.tolist(),
        "votes": comparisons.n_votes,
        "ties": int(np.count_nonzero(comparisons.outcome == Outcome.TIE)),
        "voters": votes.voters,
        "prompts": len(votes.prompts),
        "seed": SEED,
        "replicates": REPLICATES,
        "ratings": _numbers(ratings.elo),
        "intervals": intervals,
        "head_to_head": _head_to_head(comparisons, ratings),
        "second_opinions": {
            "davidson": opinion(davidson(comparisons).elo),
            "discriminants": opinion(discriminants(comparisons).elo),
            "held_equal": None if held_equal is None else opinion(held_equal),
            "online_elo": opinion(online_elo(comparisons)),
            "online_elo_step": DEFAULT_STEP,
        },
        "lead": _lead(votes, ratings, draws, ranked),
        "influence": _influence(votes, comparisons, ranked),
        "agreement": _json(asdict(agreement(comparisons, rng=np.random.default_rng(SEED)))),
        "swayed": swayed,
    }


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
    reach = clusters.reach(LEVEL) * np.sqrt(variance)
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
    among = ranked_only(ratings, ranked)
    ranks = rank(among, np.where(ranked, draws, np.nan), LEVEL)
    order = np.argsort(-np.where(ranked, ratings.elo, -np.inf), kind="stable")
    leader, runner_up = (int(index) for index in order[:2])
    between = percentile_interval(draws[:, [leader]] - draws[:, [runner_up]], LEVEL)
    tied = [votes.versions[i] for i in order if ranked[i] and ranks.low[i] == 1 and i != leader]
    return {
        "leader": votes.versions[leader],
        "runner_up": votes.versions[runner_up],
        "points": rounded(ratings.elo[leader] - ratings.elo[runner_up]),
        "low": rounded(between[0][0]),
        "high": rounded(between[1][0]),
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
        found = false_discovery_control(chance) <= FALSE_DISCOVERIES
        beyond[first[found], second[found]] = beyond[second[found], first[found]] = True
    return {
        "votes": rates.votes.astype(int).tolist(),
        "observed": [_numbers(row) for row in rates.observed],
        "expected": [_numbers(row) for row in rates.expected],
        "beyond_chance": beyond.tolist(),
    }


def _influence(votes: CountedVotes, comparisons: Comparisons, ranked: np.ndarray) -> dict[str, Any]:
    """What the lead hangs on, among the ranked versions: a new one could lead by a few votes."""
    among = ranked[comparisons.left] & ranked[comparisons.right]
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


def _swayed(
    category: Category, votes: CountedVotes, comparisons: Comparisons
) -> tuple[dict[str, Any], np.ndarray | None]:
    """What else than the versions sways voters, and the ratings with all of it held equal."""
    newest = slice(-COVARIATE_VOTES, None)
    ids = votes.ids[newest]
    with connection.cursor() as cursor:
        cursor.execute(CLIP_FACTS, [category.value, int(ids[0]), int(ids[-1])])
        facts = np.array(cursor.fetchall(), dtype=float)
    table = np.full((ids.size, len(COVARIATES)), np.nan)
    place = np.searchsorted(facts[:, 0], ids)
    table[:] = facts[place, 1:] / UNITS
    recent = comparisons.select(np.arange(comparisons.n_votes)[newest])
    usable: list[int] = []
    left_out: list[str] = []
    if not _can_be_told(recent, table, usable):  # every version stood on one side only
        return {"votes": ids.size, "effects": [], "left_out": []}, None
    for column, (name, _) in enumerate(COVARIATES):
        if np.isfinite(table[:, column]).mean() < KNOWN_FROM:
            continue
        if _can_be_told(recent, table, [*usable, column]):
            usable.append(column)
        else:
            left_out.append(name)
    result = contextual(*_with_covariates(recent, table, usable), left_side=True, level=LEVEL)
    words = ["standing in lane 1", *(COVARIATES[column][1] for column in usable)]
    found = {
        "votes": ids.size,
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
        votes.left,
        votes.right,
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
