"""From the ledger to leaderboards.

The database adds the votes up per pair and outcome, so what is read does not grow with their
number; the same ledger and seed give the same standings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max

from arena.ledger import LEDGER_LOCK
from arena.models import Exclusion, PairNeed, Vote
from generation.categories import Category
from ratings.models import Leaderboard, Standing
from ratings.stats import PairCounts, Ratings, fit, rank, rating_interval, vote_bootstrap, win_rates
from ratings.stats.ranks import Ranks

REPLICATES = 1000
NEW_BELOW = 100  # votes: listed apart, not ranked
SEED = 20_261_122  # one seed for all boards: what changes between two snapshots is the ledger
METHOD = "Bradley-Terry, ties and both-bad as half a win each; vote bootstrap, percentile intervals"

# What is left of the ledger up to a vote and an exclusion: the latest entry about a vote or about
# its voter decides, and either can take the vote out.
COUNTED = """
    SELECT vote.* FROM arena_vote vote
    LEFT JOIN (
        SELECT DISTINCT ON (vote_id) vote_id, action FROM arena_exclusion
        WHERE vote_id IS NOT NULL AND id <= %(last_exclusion)s ORDER BY vote_id, id DESC
    ) of_vote ON of_vote.vote_id = vote.id AND of_vote.action = 'exclude'
    LEFT JOIN (
        SELECT DISTINCT ON (voter_id) voter_id, action FROM arena_exclusion
        WHERE voter_id IS NOT NULL AND id <= %(last_exclusion)s ORDER BY voter_id, id DESC
    ) of_voter ON of_voter.voter_id = vote.voter_id AND of_voter.action = 'exclude'
    WHERE vote.category = %(category)s AND vote.id <= %(last_vote)s
      AND (NOT vote.simulated OR %(simulated)s)
      AND of_vote.vote_id IS NULL AND of_voter.voter_id IS NULL
"""
PAIRS = f"""
    SELECT least(left_version_id, right_version_id), greatest(left_version_id, right_version_id),
        count(*) FILTER (WHERE choice = CASE WHEN left_version_id < right_version_id
                                             THEN 'left' ELSE 'right' END),
        count(*) FILTER (WHERE choice = CASE WHEN left_version_id < right_version_id
                                             THEN 'right' ELSE 'left' END),
        count(*) FILTER (WHERE choice IN ('tie', 'both_bad'))
    FROM ({COUNTED}) counted GROUP BY 1, 2 ORDER BY 1, 2
"""
TOTALS = f"SELECT count(*) FILTER (WHERE simulated), count(DISTINCT voter_id) FROM ({COUNTED}) c"


@dataclass(frozen=True)
class Ledger:
    """One category's part of the ledger, added up: version ids and counts per pair of them."""

    last_vote: int
    last_exclusion: int
    versions: tuple[int, ...]
    counts: PairCounts | None  # None when nothing counts
    simulated_votes: int
    voters: int


@transaction.atomic
def ends_of_ledger(category: str) -> tuple[int, int]:
    """The last vote of the category and the last exclusion of all, 0 when there is none.

    Numbers are given before rows are committed. The lock waits for every insert under way, so that
    no vote below the last one turns up later.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LEDGER_LOCK])
    last_vote = Vote.objects.filter(category=category).aggregate(last=Max("pk"))["last"]
    last_exclusion = Exclusion.objects.aggregate(last=Max("pk"))["last"]
    return last_vote or 0, last_exclusion or 0


def read_ledger(category: str, last_vote: int, last_exclusion: int, simulated: bool) -> Ledger:
    parameters: dict[str, str | int | bool] = {
        "category": category,
        "last_vote": last_vote,
        "last_exclusion": last_exclusion,
        "simulated": simulated,
    }
    with connection.cursor() as cursor:
        cursor.execute(PAIRS, parameters)
        rows = cursor.fetchall()
        cursor.execute(TOTALS, parameters)
        simulated_votes, voters = cursor.fetchone()
    versions = tuple(sorted({pk for row in rows for pk in row[:2]}))
    counts = None
    if rows:
        place = {pk: index for index, pk in enumerate(versions)}
        table = np.array([[place[row[0]], place[row[1]], *row[2:]] for row in rows])
        first, second, first_won, second_won, tied = table.T
        counts = PairCounts(first, second, first_won, second_won, tied, len(versions))
    return Ledger(last_vote, last_exclusion, versions, counts, simulated_votes, voters)


@transaction.atomic
def refit(category: Category) -> Leaderboard:
    """Rate the category as the ledger stands now and store the snapshot; one at a time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"refit {category}"])
    last_vote, last_exclusion = ends_of_ledger(category.value)
    simulated = settings.COUNT_SIMULATED_VOTES
    ledger = read_ledger(category.value, last_vote, last_exclusion, simulated)
    rows: list[Standing] = []
    needs: list[PairNeed] = []
    if ledger.counts is not None:
        ratings = fit(ledger.counts)
        draws = vote_bootstrap(
            ledger.counts, replicates=REPLICATES, rng=np.random.default_rng(SEED)
        )
        rows = _standings(ledger.versions, ledger.counts, ratings, draws)
        needs = _pair_needs(category.value, ledger.versions, rank(ratings, draws))
    board = Leaderboard.objects.create(
        category=category.value,
        last_vote_id=last_vote,
        last_exclusion_id=last_exclusion,
        simulated_counted=simulated,
        votes=int(ledger.counts.votes.sum()) if ledger.counts is not None else 0,
        simulated_votes=ledger.simulated_votes,
        voters=ledger.voters,
        method=METHOD,
        replicates=REPLICATES,
        seed=SEED,
    )
    for row in rows:
        row.leaderboard = board
    Standing.objects.bulk_create(rows)
    PairNeed.objects.filter(category=category.value).delete()
    PairNeed.objects.bulk_create(needs)
    return board


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _standings(
    versions: Sequence[int], counts: PairCounts, ratings: Ratings, draws: np.ndarray
) -> list[Standing]:
    """A row per version. Ranks are among those with enough votes: a new one takes no place yet."""
    low, high = rating_interval(ratings, draws)
    overall, votes = win_rates(counts, ratings).overall, counts.votes_per_version()
    ranked = ratings.comparable & (votes >= NEW_BELOW)
    if ranked.any():
        elo = np.where(ranked, ratings.elo, np.nan)
        ranks = rank(replace(ratings, elo=elo, comparable=ranked), np.where(ranked, draws, np.nan))
        leader = int(np.nanargmax(elo))
    rows = []
    for index, version in enumerate(versions):
        known = bool(ratings.comparable[index])
        rows.append(
            Standing(
                version_id=version,
                rating=_finite(ratings.elo[index]),
                low=_finite(low[index]) if known else None,
                high=_finite(high[index]) if known else None,
                rank_low=int(ranks.low[index]) if ranked[index] else None,
                rank_high=int(ranks.high[index]) if ranked[index] else None,
                tied_with_leader=bool(ranked[index]) and ranks.low[index] == 1 and index != leader,
                votes=int(votes[index]),
                win_rate=float(overall[index]),
            )
        )
    return rows


def _pair_needs(category: str, versions: Sequence[int], ranks: Ranks) -> list[PairNeed]:
    error = ranks.differences.error
    return [
        PairNeed(category=category, first_id=versions[i], second_id=versions[j], uncertainty=e)
        for i, j in combinations(range(len(versions)), 2)
        if np.isfinite(e := float(error[i, j]))
    ]


def changed_categories() -> list[Category]:
    """Categories whose newest snapshot is behind the ledger or was made by other rules."""
    changed = []
    for category in Category:
        last_vote, last_exclusion = ends_of_ledger(category.value)
        board = Leaderboard.objects.filter(category=category.value).order_by("-pk").first()
        if board is None:
            if last_vote:
                changed.append(category)
        elif (
            board.last_vote_id != last_vote
            or board.last_exclusion_id != last_exclusion
            or board.simulated_counted != settings.COUNT_SIMULATED_VOTES
        ):
            changed.append(category)
    return changed
