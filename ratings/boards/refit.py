"""From the ledger to leaderboards: the same ledger and settings give the same bytes."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from arena.ledger import LedgerEnd, advisory_lock, end_of, excluded_up_to
from arena.models import BattleKind, Choice, PairNeed, Vote
from arena.voting.pair_chances import lay_out_pairs
from generation.catalogue.categories import Category
from ratings.boards.ledger_copy import CHOICES, voter_label, votes_of
from ratings.boards.stored import NEW_BELOW, newest_board
from ratings.models import Leaderboard, Standing
from ratings.significance import LEVEL
from ratings.stats import (
    DEFAULT_PRIOR,
    Comparisons,
    Outcome,
    PairCounts,
    Ranks,
    Ratings,
    fit,
    rank,
    rating_interval,
    recentred,
    two_way_bootstrap,
    win_rates,
)
from ratings.stats.comparisons import compact
from ratings.stats.exploring import vote_worth
from ratings.stored import is_of_another_ledger, is_throttled, rounded

REPLICATES = 1000  # of each kind
BOARD_SEED = 20_261_122  # one seed for all boards: what changes between two snapshots is the ledger
BOARD_METHOD = (
    "Bradley-Terry, ties and both-bad as half a win each; two-way clustered bootstrap over voters "
    "and prompts, percentile intervals; the ranked versions' mean is 1000; rank ranges and ties "
    "from simultaneous 95 % intervals of all differences"
)
BOARD_SETTINGS = {
    "replicates": REPLICATES,
    "prior": DEFAULT_PRIOR,
    "level": LEVEL,
    "new_below": NEW_BELOW,
    "seed": BOARD_SEED,
}
OUTCOME_OF = {
    Choice.A: Outcome.A,
    Choice.B: Outcome.B,
    Choice.TIE: Outcome.TIE,
    Choice.BOTH_BAD: Outcome.TIE,
}
OUTCOMES = np.array([OUTCOME_OF[choice] for choice in CHOICES])


@dataclass(frozen=True)
class CountedVotes:
    """The votes of one category that count, oldest first."""

    end: LedgerEnd
    versions: tuple[int, ...]  # their ids; a version's index is its place here
    prompts: tuple[int, ...]
    voters: int
    ids: np.ndarray  # (n_votes,), of the votes in the ledger
    simulated: np.ndarray  # bool, (n_votes,)
    comparisons: Comparisons | None  # None when nothing counts


def end_of_ledger(category: str) -> LedgerEnd:
    """The last vote of the category and the last exclusion of all, 0 when there is none."""
    return end_of(Vote.objects.filter(category=category, kind=BattleKind.ARENA))


def read_votes(category: str, end: LedgerEnd, folder: Path | None = None) -> CountedVotes:
    """The votes that count, through the copy of the ledger in `folder`, or the usual one."""
    rows = votes_of(category, end.last_vote, folder)
    excluded = excluded_up_to(end.last_exclusion)
    out = np.zeros(rows.size, dtype=bool)
    if not end.simulated:
        out |= rows["simulated"].astype(bool)
    if excluded.votes:
        out |= np.isin(rows["id"], list(excluded.votes))
    if excluded.voters:
        out |= np.isin(rows["voter"], [voter_label(voter) for voter in excluded.voters])
    if out.any():
        rows = rows[~out]
    if not rows.size:
        return CountedVotes(end, (), (), 0, np.empty(0, np.int64), np.empty(0, bool), None)
    versions, place = compact(np.concatenate([rows["a"], rows["b"]]))
    voters, voter = compact(np.ascontiguousarray(rows["voter"]))
    prompts, prompt = compact(np.ascontiguousarray(rows["prompt"]))
    a, b = place.reshape(2, -1)
    outcome = OUTCOMES[rows["choice"]]
    return CountedVotes(
        end=end,
        versions=tuple(versions.tolist()),
        prompts=tuple(prompts.tolist()),
        voters=voters.size,
        ids=np.ascontiguousarray(rows["id"]),
        simulated=rows["simulated"].astype(bool),
        comparisons=Comparisons(a, b, outcome, voter, prompt, versions.size),
    )


def refit(category: Category) -> Leaderboard:
    """Rate the category as the ledger stands now and store the snapshot; one at a time."""
    end = end_of_ledger(category.value)
    with advisory_lock(f"refit {category}"):
        return _refit(category, end)


def refit_if_behind(category: Category) -> Leaderboard | None:
    """The same, unless there is nothing new, the last refit was too hard a while ago, or another
    worker is at it."""
    end = end_of_ledger(category.value)
    with advisory_lock(f"refit {category}", wait=False) as free:
        board = newest_board(category.value)
        if not free or not is_behind(board, end) or is_throttled(board):
            return None
        return _refit(category, end)


def _refit(category: Category, end: LedgerEnd) -> Leaderboard:
    begin = time.monotonic()
    newest = newest_board(category.value)
    if newest:  # another refit may have read further while this one waited
        end = replace(
            end,
            last_vote=max(end.last_vote, newest.last_vote_id),
            last_exclusion=max(end.last_exclusion, newest.last_exclusion_id),
        )
    board, rows, needs = rated(category, read_votes(category.value, end))
    PairNeed.objects.filter(category=category.value).delete()
    PairNeed.objects.bulk_create(needs)
    stored = store(board, rows, begin)
    lay_out_pairs(category.value)
    return stored


def rated(
    category: Category, votes: CountedVotes
) -> tuple[Leaderboard, list[Standing], list[PairNeed]]:
    """The category's leaderboard, its rows and what a vote on each pair is worth; none stored."""
    board = blank_board(category, votes, BOARD_METHOD, BOARD_SETTINGS)
    if votes.comparisons is None:
        return board, [], []
    ratings = fit(votes.comparisons)
    rng = np.random.default_rng(BOARD_SEED)
    draws = two_way_bootstrap(votes.comparisons, rng=rng, replicates=REPLICATES)
    counts = votes.comparisons.collapse()
    ranked = is_ranked(counts, ratings)
    if ranked.any():
        ratings, draws = recentred(ratings, draws, ranked)
    rows = _standings(votes, counts, ratings, draws, ranked)
    known = ratings.comparable
    covariance = np.full((known.size, known.size), np.nan)
    covariance[np.ix_(known, known)] = np.cov(draws[:, known], rowvar=False)
    return board, rows, _needs(category, votes.versions, vote_worth(ratings, covariance))


def blank_board(
    category: Category, votes: CountedVotes, method: str, settings_: dict[str, Any]
) -> Leaderboard:
    return Leaderboard(
        category=category.value,
        last_vote_id=votes.end.last_vote,
        last_exclusion_id=votes.end.last_exclusion,
        simulated_counted=votes.end.simulated,
        votes=votes.ids.size,
        simulated_votes=int(np.count_nonzero(votes.simulated)),
        voters=votes.voters,
        prompts=len(votes.prompts),
        method=method,
        settings=settings_,
    )


def store(board: Leaderboard, rows: list[Standing], begin: float) -> Leaderboard:
    board.digest = hashlib.sha256(content(board, rows)).hexdigest()
    board.seconds = time.monotonic() - begin
    board.save()
    for row in rows:
        row.leaderboard = board
    Standing.objects.bulk_create(rows)
    return board


def content(board: Leaderboard, rows: Sequence[Standing]) -> bytes:
    """What a snapshot says, as bytes; when it was made and how long it took is not part of it."""
    kept = {"id", "digest", "seconds", "created_at", "leaderboard_id"}

    def fields(row: Leaderboard | Standing) -> dict[str, Any]:
        names = [field.attname for field in row._meta.concrete_fields]
        return {name: getattr(row, name) for name in names if name not in kept}

    ordered = sorted(rows, key=lambda row: row.version_id)
    said = {"leaderboard": fields(board), "standings": [fields(row) for row in ordered]}
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def is_ranked(counts: PairCounts, ratings: Ratings) -> np.ndarray:
    """Which versions have votes enough to be ranked."""
    ranked: np.ndarray = ratings.comparable & (counts.votes_per_version() >= NEW_BELOW)
    return ranked


def ranks_among(ranked: np.ndarray, ratings: Ratings, draws: np.ndarray) -> Ranks:
    """Ranks with only these versions comparable: a new one takes no place from others."""
    among = replace(ratings, elo=np.where(ranked, ratings.elo, np.nan), comparable=ranked)
    return rank(among, np.where(ranked, draws, np.nan), LEVEL)


def _standings(
    votes: CountedVotes,
    counts: PairCounts,
    ratings: Ratings,
    draws: np.ndarray,
    ranked: np.ndarray,
) -> list[Standing]:
    """A row per version."""
    low, high = rating_interval(ratings, draws, LEVEL)
    overall, numbers = win_rates(counts, ratings).overall, counts.votes_per_version()
    if ranked.any():
        ranks = ranks_among(ranked, ratings, draws)
        leader = int(np.nanargmax(np.where(ranked, ratings.elo, np.nan)))
    return [
        Standing(
            version_id=version,
            rating=rounded(ratings.elo[index]),
            low=rounded(low[index]),
            high=rounded(high[index]),
            rank_low=int(ranks.low[index]) if ranked[index] else None,
            rank_high=int(ranks.high[index]) if ranked[index] else None,
            tied_with_leader=bool(ranked[index] and ranks.low[index] == 1 and index != leader),
            votes=int(numbers[index]),
            win_rate=round(float(overall[index]), 6),
        )
        for index, version in enumerate(votes.versions)
    ]


def _needs(category: Category, versions: Sequence[int], worth: np.ndarray) -> list[PairNeed]:
    return [
        PairNeed(category=category.value, first_id=versions[i], second_id=versions[j], worth=value)
        for i, j in combinations(range(len(versions)), 2)
        if np.isfinite(value := float(worth[i, j]))
    ]


def is_behind(board: Leaderboard | None, end: LedgerEnd) -> bool:
    """Whether the newest board was made of another ledger, or by other rules, than today's."""
    if board is None:
        return end.last_vote > 0
    return (
        is_of_another_ledger(board, end)
        or board.method != BOARD_METHOD
        or board.settings != BOARD_SETTINGS
    )
