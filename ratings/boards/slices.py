"""Leaderboards of parts of a category: the prompts with one tag."""

import time
from dataclasses import replace
from hashlib import sha256

import numpy as np
from django.db import transaction

from generation.catalogue.categories import Category
from generation.models import Prompt
from ratings.boards.refit import (
    BOARD_SEED,
    BOARD_SETTINGS,
    REPLICATES,
    CountedVotes,
    blank_board,
    is_ranked,
    ranks_among,
    store,
)
from ratings.boards.stored import NEW_BELOW
from ratings.models import Leaderboard, Standing
from ratings.significance import FALSE_DISCOVERIES, LEVEL, normal_reach
from ratings.stats import Ratings, fit
from ratings.stats.slices import SliceRatings, rate_slices
from ratings.stored import rounded

SLICE_METHOD = (
    "The slice's own Bradley-Terry ratings pulled towards the category's by their noise; intervals "
    "clustered by voter and prompt; differences tested with false discoveries controlled"
)
SLICE_SETTINGS = BOARD_SETTINGS | {"false_discoveries": FALSE_DISCOVERIES}
FEWEST_VOTES = 100  # of a slice that gets a leaderboard


def tags_of(votes: CountedVotes) -> dict[str, np.ndarray]:
    """Which votes are on prompts of each tag: bool arrays, shape (n_votes,), tags in order.

    Tags that too few votes have, and those that all votes have, are no slices.
    """
    assert votes.comparisons is not None
    place = {pk: index for index, pk in enumerate(votes.prompts)}
    prompts: dict[str, list[int]] = {}
    for pk, tags in Prompt.objects.filter(pk__in=place).values_list("pk", "tags"):
        for tag in filter(None, tags):
            prompts.setdefault(tag, []).append(place[pk])
    members = {}
    for tag in sorted(prompts):
        chosen = np.zeros(len(place), dtype=bool)
        chosen[prompts[tag]] = True
        member = chosen[votes.comparisons.prompt]
        if FEWEST_VOTES <= np.count_nonzero(member) < member.size:
            members[tag] = member
    return members


@transaction.atomic
def refit_slices(category: Category, votes: CountedVotes) -> list[Leaderboard]:
    """Store a snapshot of each slice of the category."""
    begin = time.monotonic()
    return [store(board, rows, begin) for board, rows in rated_slices(category, votes)]


def rated_slices(
    category: Category, votes: CountedVotes
) -> list[tuple[Leaderboard, list[Standing]]]:
    """Each slice's leaderboard and rows, not stored.

    Slices are of the ranked versions: a new one would move the others' mean on every slice.
    """
    votes = _among_ranked(votes)
    members = tags_of(votes) if votes.comparisons is not None else {}
    if votes.comparisons is None or not members:
        return []
    ratings = fit(votes.comparisons)
    found = rate_slices(votes.comparisons, ratings, np.array(list(members.values())), level=LEVEL)
    made = []
    for place, (tag, member) in enumerate(members.items()):
        part = votes.comparisons.select(member)
        prompts = np.unique(part.prompt)
        # Tags may be changed later, so the board says which prompts it is of.
        named = ",".join(str(votes.prompts[index]) for index in prompts)
        of = {"prompts": sha256(named.encode()).hexdigest()[:16]}
        board = blank_board(category, votes, SLICE_METHOD, SLICE_SETTINGS | of)
        board.slice = tag
        board.votes = part.n_votes
        board.voters = np.unique(part.voter).size
        board.prompts = prompts.size
        board.simulated_votes = int(np.count_nonzero(votes.simulated[member]))
        wins = part.collapse().wins_per_version()
        made.append((board, _standings(votes, ratings, found, place, wins)))
    return made


def _among_ranked(votes: CountedVotes) -> CountedVotes:
    """The votes between ranked versions; versions and prompts keep their places."""
    if votes.comparisons is None:
        return votes
    ranked = is_ranked(votes.comparisons.collapse(), fit(votes.comparisons))
    among = ranked[votes.comparisons.a] & ranked[votes.comparisons.b]
    if not among.any():
        return replace(votes, comparisons=None)
    return replace(
        votes,
        ids=votes.ids[among],
        simulated=votes.simulated[among],
        comparisons=votes.comparisons.select(among),
    )


def _standings(
    votes: CountedVotes, ratings: Ratings, found: SliceRatings, place: int, wins: np.ndarray
) -> list[Standing]:
    known, pooled, numbers = found.comparable[place], found.pooled[place], found.votes[place]
    ranked = known & (numbers >= NEW_BELOW)
    if np.count_nonzero(ranked) > 1:
        own = replace(
            ratings,
            elo=pooled,
            comparable=known,
            core=known & ratings.core,
            bounded=np.full(known.size, ""),
            covariance=found.covariance[place],
        )
        ranks = ranks_among(ranked, own, _draws(found, place))
        leader = int(np.nanargmax(np.where(ranked, pooled, np.nan)))
    else:
        ranked = np.zeros_like(ranked)
    return [
        Standing(
            version_id=version,
            rating=rounded(pooled[index]),
            low=rounded(found.low[place, index]),
            high=rounded(found.high[place, index]),
            rank_low=int(ranks.low[index]) if ranked[index] else None,
            rank_high=int(ranks.high[index]) if ranked[index] else None,
            tied_with_leader=bool(ranked[index] and ranks.low[index] == 1 and index != leader),
            votes=int(numbers[index]),
            win_rate=round(float(wins[index] / numbers[index]), 6),
            from_category=rounded(pooled[index] - ratings.elo[index]),
            differs=bool(found.discovery[place, index]),
        )
        for index, version in enumerate(votes.versions)
        if numbers[index]
    ]


def _draws(found: SliceRatings, place: int) -> np.ndarray:
    """Normal draws of the pooled ratings, stretched to the tails that their intervals have."""
    known = found.comparable[place]
    covariance = found.covariance[place][np.ix_(known, known)]
    rng = np.random.default_rng(BOARD_SEED)
    shape = (REPLICATES, np.count_nonzero(known))
    values, vectors = np.linalg.eigh(covariance)
    spread = rng.standard_normal(shape) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    error = np.sqrt(np.diagonal(covariance))
    # An interval that is open on one side reaches as far on the other.
    below = found.pooled[place, known] - found.low[place, known]
    above = found.high[place, known] - found.pooled[place, known]
    reach = np.minimum(below, above)
    normal = error * normal_reach(LEVEL)
    stretch = np.divide(reach, normal, out=np.ones_like(reach), where=normal > 0)
    draws = np.full((REPLICATES, known.size), np.nan)
    draws[:, known] = found.pooled[place, known] + spread * stretch
    return draws
