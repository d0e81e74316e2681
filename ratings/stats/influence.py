"""How few votes, and whose, the first place hangs on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit

from ratings.stats.bradley_terry import (
    DEFAULT_PRIOR,
    ELO_PER_LOGIT,
    NO_SPREAD,
    Ratings,
    fit,
    require_prior,
)
from ratings.stats.comparisons import (
    Comparisons,
    FloatArray,
    IntArray,
    PairCounts,
    collapsed,
    compact,
)
from ratings.stats.sandwich import bread, vote_scores

# A removal is made in about so many rounds, each with an exact fit and influences of its own. On
# 13 of 300 simulated boards it then took fewer votes than in one round, up to a quarter fewer;
# seven times as many rounds found no smaller removal on any.
ROUNDS = 20
# Voters, and prompts, that are removed in an exact fit, of those with the most influence.
CANDIDATES = 10
# A challenger is given up if so many times the fewest votes so far, removed in one round, change
# nothing. On those boards giving up none found no smaller removal; a factor of 1.5 missed one.
SLACK = 2
# Points of a pair's first version for each `Outcome`.
POINTS = np.array([1.0, 0.0, 0.5])


@dataclass(frozen=True, eq=False)
class Fragility:
    """The fewest votes found whose removal changes who is first.

    Attributes
    ----------
    leader : int
        The version that is first with all votes.
    new_leader : int, optional
        The version that is first without the votes removed; None where no removal was found.
    removed : PairCounts, optional
        The votes removed, by pair and outcome; None where no removal was found.
    votes : int
        How many these are; 0 where no removal was found. An upper bound: a fit without them has
        another leader, but it is not proven that fewer cannot do the same.
    share : float
        Of all votes; NaN where no removal was found.
    """

    leader: int
    new_leader: int | None
    removed: PairCounts | None
    votes: int
    share: float


@dataclass(frozen=True, eq=False)
class Removal:
    """What the top of the board is without one voter or one prompt.

    Attributes
    ----------
    number : int
        The voter's or the prompt's, as in the votes.
    votes : int
        Votes that go with it.
    leader : int
        The version that is first without it.
    lead : float
        Elo points from the former runner-up to the former leader without it, negative if the
        runner-up is ahead; NaN if one of them is then not comparable.
    """

    number: int
    votes: int
    leader: int
    lead: float


@dataclass(frozen=True, eq=False)
class MostInfluential:
    """The one voter and the one prompt whose removal moves the top of the board most.

    Attributes
    ----------
    leader, runner_up : int
        The first two versions with all votes.
    lead : float
        Elo points between them.
    voter, prompt : Removal, optional
        None where every vote is of the same voter, or on the same prompt.
    """

    leader: int
    runner_up: int
    lead: float
    voter: Removal | None
    prompt: Removal | None


def fewest_votes_to_change_leader(
    votes: Comparisons | PairCounts, ratings: Ratings, prior: float = DEFAULT_PRIOR
) -> Fragility:
    """Find a small set of votes without which another version is first.

    Parameters
    ----------
    votes : Comparisons or PairCounts
        Without weights, or with whole ones: a weight of 3 is three votes.
    ratings : Ratings
        Fitted to these votes with this prior.
    prior : float
        Standard deviation in Elo points, finite.

    Returns
    -------
    Fragility

    Raises
    ------
    ValueError
        The prior is not positive and finite, or a weight is not whole.
    NotConverged

    Notes
    -----
    The approximate maximum influence of Broderick, Giordano and Meager (2020, An automatic
    finite-sample robustness metric, arXiv:2011.14999): with H the curvature, a vote between i and
    j adds ``(points - p) (H^-1)(x_i - x_j)`` to the ratings to first order, so the votes that add
    most to the lead over one challenger are removed first. Votes of the same pair and outcome
    are interchangeable, so what is sorted are cells of counts. A lead that needs many votes is
    taken down in rounds, each with an exact fit and new influences, and the last round is halved
    until one vote less does not change the leader. So for every challenger that would be first,
    or help another to be, if twice as many votes as found so far went in one round. A leader that
    is left without votes is off the board, and so not first.
    """
    _require_finite_prior(prior)
    counts = collapsed(votes)
    cells = _cells(counts)
    split = np.flatnonzero((cells != np.floor(cells)).any(axis=0))
    if split.size:
        raise ValueError(
            f"The votes between versions {counts.first[split[0]]} and {counts.second[split[0]]} "
            "have a weight that is not whole; votes are removed one by one, so give them without."
        )
    leader, _ = _first_two(ratings)
    fewest, removed, new_leader = cells.sum(), None, None
    challengers = np.flatnonzero(ratings.comparable)
    challengers = challengers[challengers != leader]
    foreseen = np.array(
        [_foreseen(counts, cells, ratings, leader, challenger) for challenger in challengers]
    )
    for place in np.argsort(foreseen, kind="stable"):
        step = max(1, math.ceil(min(foreseen[place], fewest) / ROUNDS))
        found = _take_down(
            counts, cells, ratings, (leader, challengers[place]), prior, step, below=fewest
        )
        if found is not None:
            removed, new_leader = found
            fewest = removed.sum()
    if removed is None:
        return Fragility(leader=leader, new_leader=None, removed=None, votes=0, share=math.nan)
    return Fragility(
        leader=leader,
        new_leader=new_leader,
        removed=_pair_counts(counts, removed),
        votes=int(fewest),
        share=float(fewest / cells.sum()),
    )


def most_influential(
    votes: Comparisons, ratings: Ratings, prior: float = DEFAULT_PRIOR
) -> MostInfluential:
    """Find the one voter and the one prompt that the top of the board hangs on most.

    A removal that changes the leader comes before one that does not; of two alike, the one that
    moves the lead over the runner-up further. One without which the leader or the runner-up is
    not comparable moves it furthest of all.

    Parameters
    ----------
    votes : Comparisons
    ratings : Ratings
        Fitted to these votes with this prior.
    prior : float
        Standard deviation in Elo points, finite.

    Returns
    -------
    MostInfluential

    Raises
    ------
    ValueError
        The prior is not positive and finite.
    NotConverged

    Notes
    -----
    The candidates are those whose votes, to first order, move the lead over the runner-up most,
    those without which the leader is least ahead of whoever then follows, and those with the
    largest share of the leader's or the runner-up's votes: where a version's rating rests on
    them, the first order sees nothing of it. What is reported is an exact fit without the
    candidate.
    """
    _require_finite_prior(prior)
    leader, runner_up = _first_two(ratings)
    counts, scores = votes.collapse(), vote_scores(votes, ratings)
    voter, prompt = (
        _most_influential_of(label, votes, counts, scores, ratings, prior)
        for label in (votes.voter, votes.prompt)
    )
    lead = float(ratings.elo[leader] - ratings.elo[runner_up])
    return MostInfluential(
        leader=leader, runner_up=runner_up, lead=lead, voter=voter, prompt=prompt
    )


def _require_finite_prior(prior: float) -> None:
    require_prior(prior)
    if math.isinf(prior):
        raise ValueError("The prior is infinite; removing votes needs a finite one.")


def _first_two(ratings: Ratings) -> tuple[int, int]:
    """The leader and the runner-up; of equals the one with the lower index first."""
    order = np.argsort(np.where(ratings.comparable, -ratings.elo, np.inf), kind="stable")
    return int(order[0]), int(order[1])


def _cells(counts: PairCounts) -> FloatArray:
    """Votes of each outcome and pair, shape (3, n_pairs), in the order of `Outcome`."""
    return np.stack([counts.first_won, counts.second_won, counts.tied])


def _pair_counts(counts: PairCounts, cells: FloatArray) -> PairCounts:
    """Put other cells, not all empty, in the place of those of `counts`."""
    kept = np.flatnonzero(cells.sum(axis=0))
    first_won, second_won, tied = cells[:, kept]
    return PairCounts(
        counts.first[kept], counts.second[kept], first_won, second_won, tied, counts.n_versions
    )


def _fit_without(
    counts: PairCounts, cells: FloatArray, removed: FloatArray, prior: float
) -> Ratings | None:
    """Fit again without the cells removed; None when no vote is left."""
    left = cells - removed
    return fit(_pair_counts(counts, left), prior=prior) if left.any() else None


def _influence(counts: PairCounts, ratings: Ratings, leader: int, challenger: int) -> FloatArray:
    """Elo points that one vote of each cell adds to the lead, shape (3, n_pairs).

    Zero for pairs that are not comparable.
    """
    lever = ratings.covariance[:, leader] - ratings.covariance[:, challenger]
    lever = np.where(ratings.comparable, lever, 0.0) / ELO_PER_LOGIT
    logits = np.where(ratings.comparable, ratings.elo, 0.0) / ELO_PER_LOGIT
    expected = expit(logits[counts.first] - logits[counts.second])
    influence: FloatArray = (POINTS[:, None] - expected) * (
        lever[counts.first] - lever[counts.second]
    )
    return influence


def _order(influence: FloatArray, cells: FloatArray) -> tuple[IntArray, FloatArray]:
    """Sort the cells that add to the lead, the most influential first.

    Returns their flat positions and how many votes they and those before them have, both of
    shape (n_helpful,).
    """
    flat = np.where(cells > 0, influence, 0.0).ravel()
    order = np.argsort(-flat, kind="stable")[: np.count_nonzero(flat > 0)]
    return order, np.cumsum(cells.ravel()[order])


def _foreseen(
    counts: PairCounts, cells: FloatArray, ratings: Ratings, leader: int, challenger: int
) -> float:
    """Votes to remove for the challenger to catch up, to first order; at most all helpful ones."""
    influence = _influence(counts, ratings, leader, challenger)
    order, reached = _order(influence, cells)
    loss = np.cumsum((influence * cells).ravel()[order])
    lead = ratings.elo[leader] - ratings.elo[challenger]
    return float(np.interp(lead, np.append(0.0, loss), np.append(0.0, reached)))


def _take_down(
    counts: PairCounts,
    cells: FloatArray,
    ratings: Ratings,
    pair: tuple[int, int],
    prior: float,
    step: int,
    below: float,
) -> tuple[FloatArray, int] | None:
    """Remove votes that add to the lead of the pair's first over its second, `step` a round.

    Returns the fewest cells removed, shape (3, n_pairs), and the version that is then first;
    None when it would take `below` votes or more.
    """
    leader, challenger = pair
    order, reached = _order(_influence(counts, ratings, leader, challenger), cells)
    once = _fit_without(counts, cells, _first_votes(cells, order, reached, SLACK * below), prior)
    if once is not None and _new_leader(once, leader) is None:
        return None
    removed = np.zeros_like(cells)
    while ratings.comparable[challenger]:
        left = cells - removed
        order, reached = _order(_influence(counts, ratings, leader, challenger), left)
        most = int(min(step, reached[-1] if order.size else 0, below - 1 - removed.sum()))
        if most <= 0:
            return None
        after = _fit_without(counts, left, _first_votes(left, order, reached, most), prior)
        if after is None:
            return None
        new_leader = _new_leader(after, leader)
        if new_leader is None:
            removed += _first_votes(left, order, reached, most)
            ratings = after
            continue
        too_few = 0
        while most - too_few > 1:
            middle = (most + too_few) // 2
            after = _fit_without(counts, left, _first_votes(left, order, reached, middle), prior)
            found = None if after is None else _new_leader(after, leader)
            if found is None:
                too_few = middle
            else:
                most, new_leader = middle, found
        return removed + _first_votes(left, order, reached, most), new_leader
    return None


def _first_votes(
    cells: FloatArray, order: IntArray, reached: FloatArray, votes: float
) -> FloatArray:
    """Take the first so many votes in an order of the cells, shape (3, n_pairs)."""
    taken = np.zeros(cells.size)
    available = cells.ravel()[order]
    taken[order] = np.clip(votes - (reached - available), 0.0, available)
    return taken.reshape(cells.shape)


def _new_leader(ratings: Ratings, leader: int) -> int | None:
    """The version that has overtaken the leader, or that leads where it is not comparable."""
    first, _ = _first_two(ratings)
    if first == leader:
        return None
    if ratings.comparable[leader] and ratings.elo[first] - ratings.elo[leader] < NO_SPREAD:
        return None
    return first


def _most_influential_of(
    label: IntArray,
    votes: Comparisons,
    counts: PairCounts,
    scores: csr_array,
    ratings: Ratings,
    prior: float,
) -> Removal | None:
    """Remove each candidate among the clusters of votes with the same label."""
    leader, runner_up = _first_two(ratings)
    lead = ratings.elo[leader] - ratings.elo[runner_up]
    names, cluster = compact(label)
    cells, pairs = _cells(counts), counts.first * counts.n_versions + counts.second
    removals = []
    for candidate in _candidates(cluster, names.size, votes, scores, ratings):
        taken = votes.select(cluster == candidate)
        own = taken.collapse()
        removed = np.zeros_like(cells)
        removed[:, np.searchsorted(pairs, own.first * own.n_versions + own.second)] = _cells(own)
        after = _fit_without(counts, cells, removed, prior)
        if after is not None:
            new_leader = _new_leader(after, leader)
            removals.append(
                Removal(
                    number=int(names[candidate]),
                    votes=taken.n_votes,
                    leader=leader if new_leader is None else new_leader,
                    lead=float(after.elo[leader] - after.elo[runner_up]),
                )
            )

    def weight(removal: Removal) -> tuple[bool, float]:
        change = abs(removal.lead - lead)
        return removal.leader != leader, math.inf if math.isnan(change) else change

    return max(removals, key=weight, default=None)


def _candidates(
    cluster: IntArray, size: int, votes: Comparisons, scores: csr_array, ratings: Ratings
) -> IntArray:
    """Choose the clusters, of `size`, whose removal may move the top of the board most."""
    leader, runner_up = _first_two(ratings)
    member = csr_array(
        (np.ones(cluster.size), cluster, np.arange(cluster.size + 1)), shape=(cluster.size, size)
    )
    sums, matrix = csr_array(member.T @ scores), bread(ratings)
    moved = sums @ (matrix[:, leader] - matrix[:, runner_up])
    # The leader's lead over whoever follows without the cluster's votes.
    ahead = np.full(size, np.inf)
    for version in np.flatnonzero(ratings.comparable).tolist():
        if version != leader:
            added = sums @ (matrix[:, leader] - matrix[:, version])
            np.minimum(ahead, ratings.elo[leader] - ratings.elo[version] - added, out=ahead)
    share = np.zeros(size)
    for version in (leader, runner_up):
        own = cluster[(votes.left == version) | (votes.right == version)]
        np.maximum(share, np.bincount(own, minlength=size) / own.size, out=share)
    best = [np.argsort(by, kind="stable")[:CANDIDATES] for by in (-np.abs(moved), ahead, -share)]
    return np.unique(np.concatenate(best))
