"""How few votes, and whose, decide who is first."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit

from ratings.elo_scale import ELO_PER_LOGIT
from ratings.stats.bradley_terry import (
    DEFAULT_PRIOR,
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
REMOVAL_ROUNDS = 20
# Voters, and prompts, that are removed in an exact fit, of those with the most influence.
CANDIDATES_REFITTED = 10
# A challenger is given up if so many times the fewest votes so far, removed in one round, change
# nothing. On those boards giving up none found no smaller removal; a factor of 1.5 missed one.
GIVE_UP_FACTOR = 2
# Points of a pair's first version for each `Outcome`.
POINTS_OF_FIRST = np.array([1.0, 0.0, 0.5])


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
    removed in rounds, each with an exact fit and new influences, and the last round is halved
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
        [_votes_foreseen(counts, cells, ratings, leader, challenger) for challenger in challengers]
    )
    for place in np.argsort(foreseen, kind="stable"):
        step = max(1, math.ceil(min(foreseen[place], fewest) / REMOVAL_ROUNDS))
        found = _overtake(
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
    """Find the one voter and the one prompt that the top of the board depends on most.

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
    kept = cells - removed
    return fit(_pair_counts(counts, kept), prior=prior) if kept.any() else None


def _lead_per_vote(
    counts: PairCounts, ratings: Ratings, leader: int, challenger: int
) -> FloatArray:
    """Elo points that one vote of each cell adds to the lead, shape (3, n_pairs).

    Zero for pairs that are not comparable.
    """
    lever = ratings.covariance[:, leader] - ratings.covariance[:, challenger]
    lever = np.where(ratings.comparable, lever, 0.0) / ELO_PER_LOGIT
    logits = np.where(ratings.comparable, ratings.elo, 0.0) / ELO_PER_LOGIT
    expected = expit(logits[counts.first] - logits[counts.second])
    influence: FloatArray = (POINTS_OF_FIRST[:, None] - expected) * (
        lever[counts.first] - lever[counts.second]
    )
    return influence


def _most_helpful_first(influence: FloatArray, cells: FloatArray) -> tuple[IntArray, FloatArray]:
    """Sort the cells that add to the lead, the most influential first.

    Returns their flat positions and how many votes they and those before them have, both of
    shape (n_helpful,).
    """
    flat = np.where(cells > 0, influence, 0.0).ravel()
    order = np.argsort(-flat, kind="stable")[: np.count_nonzero(flat > 0)]
    return order, np.cumsum(cells.ravel()[order])


def _votes_foreseen(
    counts: PairCounts, cells: FloatArray, ratings: Ratings, leader: int, challenger: int
) -> float:
    """Votes to remove for the challenger to catch up, to first order; at most all helpful ones."""
    influence = _lead_per_vote(counts, ratings, leader, challenger)
    order, reached = _most_helpful_first(influence, cells)
    loss = np.cumsum((influence * cells).ravel()[order])
    lead = ratings.elo[leader] - ratings.elo[challenger]
    return float(np.interp(lead, np.append(0.0, loss), np.append(0.0, reached)))


def _overtake(
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
    None when it would take `below` votes or more. With the votes removed so far, the leader is
    still first when a round begins, and `ratings` are an exact fit without them.
    """
    leader, challenger = pair
    once = _Round.of(counts, cells, ratings, pair, prior)
    if once.leader_without(GIVE_UP_FACTOR * below) == leader:
        return None
    removed = np.zeros_like(cells)
    while ratings.comparable[challenger]:
        this = _Round.of(counts, cells - removed, ratings, pair, prior)
        most = int(min(step, this.helpful, below - 1 - removed.sum()))
        after = this.fit_without(most) if most > 0 else None
        if after is None:
            return None
        new_leader = _leader_of(after, leader)
        if new_leader != leader:
            fewest, new_leader = this.fewest_without(most, new_leader)
            return removed + this.first_votes(fewest), new_leader
        removed += this.first_votes(most)
        ratings = after
    return None


@dataclass(frozen=True, eq=False)
class _Round:
    """Votes to remove in one round, those that add most to the leader's lead first.

    Attributes
    ----------
    counts : PairCounts
    cells : float array, shape (3, n_pairs)
        The votes that no round before has removed.
    leader : int
    prior : float
    order : int array, shape (n_helpful,)
        Flat positions of the cells whose votes add to the lead.
    reached : float array, shape (n_helpful,)
        Votes of these cells and those before them.
    """

    counts: PairCounts
    cells: FloatArray
    leader: int
    prior: float
    order: IntArray
    reached: FloatArray

    @classmethod
    def of(
        cls,
        counts: PairCounts,
        cells: FloatArray,
        ratings: Ratings,
        pair: tuple[int, int],
        prior: float,
    ) -> _Round:
        order, reached = _most_helpful_first(_lead_per_vote(counts, ratings, *pair), cells)
        return cls(counts, cells, pair[0], prior, order, reached)

    @property
    def helpful(self) -> float:
        return float(self.reached[-1]) if self.order.size else 0.0

    def first_votes(self, votes: float) -> FloatArray:
        """The first so many votes in this order, shape (3, n_pairs)."""
        taken = np.zeros(self.cells.size)
        available = self.cells.ravel()[self.order]
        taken[self.order] = np.clip(votes - (self.reached - available), 0.0, available)
        return taken.reshape(self.cells.shape)

    def fit_without(self, votes: float) -> Ratings | None:
        return _fit_without(self.counts, self.cells, self.first_votes(votes), self.prior)

    def leader_without(self, votes: float) -> int | None:
        """Who is first without the first so many votes; None when no vote is left."""
        after = self.fit_without(votes)
        return None if after is None else _leader_of(after, self.leader)

    def fewest_without(self, votes: int, new_leader: int) -> tuple[int, int]:
        """Halve so many votes, which make `new_leader` first, until one less changes nothing."""
        too_few = 0
        while votes - too_few > 1:
            middle = (votes + too_few) // 2
            found = self.leader_without(middle)
            if found is None or found == self.leader:
                too_few = middle
            else:
                votes, new_leader = middle, found
        return votes, new_leader


def _leader_of(ratings: Ratings, leader: int) -> int:
    """The first version: the former leader unless another has overtaken it, rounding aside."""
    first, _ = _first_two(ratings)
    if ratings.comparable[leader] and ratings.elo[first] - ratings.elo[leader] < NO_SPREAD:
        return leader
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
            removals.append(
                Removal(
                    number=int(names[candidate]),
                    votes=taken.n_votes,
                    leader=_leader_of(after, leader),
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
        own = cluster[(votes.a == version) | (votes.b == version)]
        np.maximum(share, np.bincount(own, minlength=size) / own.size, out=share)
    best = [
        np.argsort(by, kind="stable")[:CANDIDATES_REFITTED]
        for by in (-np.abs(moved), ahead, -share)
    ]
    return np.unique(np.concatenate(best))
