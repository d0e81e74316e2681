"""The fewest votes and the weightiest voter against trying every removal."""

import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest

from ratings.stats import Comparisons, Outcome, PairCounts, Ratings, fit
from ratings.stats.robustness.influence import fewest_votes_to_change_leader, most_influential

pytestmark = pytest.mark.filterwarnings("error")

Simulate = Callable[..., Comparisons]

FIRST, SECOND, TIE = Outcome


def cells_of(counts: PairCounts) -> np.ndarray:
    """Votes by outcome and pair, shape (3, n, n)."""
    cells = np.zeros((3, counts.n_versions, counts.n_versions))
    cells[:, counts.first, counts.second] = counts.first_won, counts.second_won, counts.tied
    return cells


def fit_cells(cells: np.ndarray) -> Ratings:
    met = np.nonzero(cells.sum(axis=0))
    return fit(PairCounts(*met, *cells[:, *met], cells.shape[1]))


def who_leads(ratings: Ratings) -> int:
    return int(np.nanargmax(ratings.elo))


def every_removal(cells: np.ndarray) -> Iterator[np.ndarray]:
    """All ways to remove votes, fewer votes first, never all of them."""
    ways = product(*(range(int(number) + 1) for number in cells[cells > 0]))
    for numbers in sorted(ways, key=sum)[:-1]:
        removed = np.zeros_like(cells)
        removed[cells > 0] = numbers
        yield removed


def fewest_by_trying(counts: PairCounts, leader: int) -> int:
    """The least removal after which another version is ahead by more than rounding."""
    cells = cells_of(counts)
    for removed in every_removal(cells):
        elo = fit_cells(cells - removed).elo
        if math.isnan(elo[leader]) or np.nanmax(elo) > elo[leader] + 1e-3:
            return int(removed.sum())
    return 0


def test_the_fewest_votes_are_mostly_those_found_by_trying_all(simulate: Simulate) -> None:
    """24 boards of nine votes: never fewer than the fewest, and rarely more."""
    more = []
    for seed in range(24):
        votes = simulate(np.random.default_rng(seed), [0.9, 0.0, -0.4], 9)
        counts, ratings = votes.collapse(), fit(votes)
        found = fewest_votes_to_change_leader(votes, ratings)
        assert found.leader == who_leads(ratings)
        assert found.removed is not None
        left = cells_of(counts) - cells_of(found.removed)
        assert left.min() >= 0
        assert who_leads(fit_cells(left)) == found.new_leader != found.leader
        assert found.removed.votes.sum() == found.votes
        assert found.share == found.votes / 9
        more.append(found.votes - fewest_by_trying(counts, found.leader))
    assert min(more) == 0
    assert max(more) <= 1
    assert np.count_nonzero(more) <= 2


@pytest.mark.parametrize("n_votes", [200, 5000])
def test_without_the_votes_another_leads_and_with_one_of_them_it_does_not(
    simulate: Simulate, n_votes: int
) -> None:
    """Verified from outside: the fit without the votes, and with any one cell's vote put back."""
    votes = simulate(np.random.default_rng(5), [0.8, 0.5, 0.4, 0.0, -0.5], n_votes)
    found = fewest_votes_to_change_leader(votes, fit(votes))
    assert found.removed is not None
    assert 0 < found.share < 0.2
    left = cells_of(votes.collapse()) - cells_of(found.removed)
    assert who_leads(fit_cells(left)) == found.new_leader != found.leader
    for cell in zip(*np.nonzero(cells_of(found.removed)), strict=True):
        put_back = left.copy()
        put_back[cell] += 1
        elo = fit_cells(put_back).elo
        assert elo[found.leader] == pytest.approx(np.nanmax(elo), abs=1e-3)


def test_the_third_may_need_fewer_votes_than_the_runner_up() -> None:
    """0 leads; 1 is next by hundreds of votes, 2 has a few votes and is just below."""
    counts = PairCounts([0, 0, 1], [1, 2, 2], [330, 4, 2], [270, 3, 2], [0, 0, 0], 3)
    ratings = fit(counts)
    assert np.argsort(-ratings.elo).tolist() == [0, 1, 2]
    found = fewest_votes_to_change_leader(counts, ratings)
    assert found.new_leader == 2
    assert found.votes <= 2


def test_a_leader_with_few_votes_may_go_with_them() -> None:
    """0 won its only two votes: without them it is not on the board."""
    counts = PairCounts([0, 1], [1, 2], [2, 50], [0, 40], [0, 0], 3)
    found = fewest_votes_to_change_leader(counts, fit(counts))
    assert (found.leader, found.new_leader, found.votes) == (0, 1, 2)
    assert found.removed is not None
    assert found.removed.first_won.tolist() == [2]


def test_two_versions_by_hand() -> None:
    """7 to 4: the lead is gone without three wins, and turned without a fourth."""
    found = fewest_votes_to_change_leader(
        PairCounts([0], [1], [7], [4], [5], 2), fit(PairCounts([0], [1], [7], [4], [5], 2))
    )
    assert found.removed is not None
    assert (found.votes, found.share, found.new_leader) == (4, 0.25, 1)
    assert found.removed.first_won.tolist() == [4]
    assert found.removed.tied.tolist() == [0]


def test_a_leader_that_never_lost_to_the_only_other_cannot_be_overtaken() -> None:
    counts = PairCounts([0], [1], [30], [0], [0], 2)
    found = fewest_votes_to_change_leader(counts, fit(counts))
    assert (found.new_leader, found.removed, found.votes) == (None, None, 0)
    assert math.isnan(found.share)


def test_versions_that_are_not_comparable_do_not_count() -> None:
    """3 and 4 met each other alone."""
    counts = PairCounts([0, 0, 1, 3], [1, 2, 2, 4], [9, 9, 9, 5], [6, 6, 6, 0], [0] * 4, 5)
    found = fewest_votes_to_change_leader(counts, fit(counts))
    assert (found.leader, found.new_leader) == (0, 1)
    assert found.removed is not None
    assert found.removed.first.max() < 3


def influence_by_trying(votes: Comparisons, label: np.ndarray) -> dict[int, Ratings]:
    return {int(number): fit(votes.select(label != number)) for number in np.unique(label).tolist()}


@pytest.mark.parametrize("seed", range(6))
def test_the_most_influential_are_those_found_by_trying_all(simulate: Simulate, seed: int) -> None:
    """50 voters and 30 prompts: the candidates of first order are a fifth and a third of them."""
    votes = simulate(np.random.default_rng(seed), [0.6, 0.4, 0.0, -0.4], 300)
    ratings = fit(votes)
    found = most_influential(votes, ratings)
    first, second = np.argsort(-ratings.elo)[:2]
    assert (found.leader, found.runner_up) == (first, second)
    assert found.lead == pytest.approx(ratings.elo[first] - ratings.elo[second])
    for label, removal in ((votes.voter, found.voter), (votes.prompt, found.prompt)):
        tried = {
            number: (who_leads(without), without.elo[first] - without.elo[second])
            for number, without in influence_by_trying(votes, label).items()
        }
        number = max(
            tried, key=lambda one: (tried[one][0] != first, abs(tried[one][1] - found.lead))
        )
        assert removal is not None
        assert removal.number == number
        assert removal.votes == np.count_nonzero(label == number)
        assert (removal.leader, removal.lead) == (tried[number][0], pytest.approx(tried[number][1]))


def test_one_voter_with_an_agenda_is_named(simulate: Simulate) -> None:
    """Voter 77 votes forty times for the version that is otherwise second."""
    fair = simulate(np.random.default_rng(2), [0.5, 0.3, -0.3], 600)
    extra = np.ones(40, dtype=int)
    votes = Comparisons(
        np.concatenate([fair.a, extra]),
        np.concatenate([fair.b, 0 * extra]),
        np.concatenate([fair.outcome, 0 * extra]),
        np.concatenate([fair.voter, 77 * extra]),
        np.concatenate([fair.prompt, np.arange(40) % 30]),
        3,
    )
    found = most_influential(votes, fit(votes))
    assert found.voter is not None
    assert (found.leader, found.voter.number, found.voter.leader) == (1, 77, 0)
    assert found.voter.votes == 40
    assert found.lead > 0 > found.voter.lead


def test_a_voter_without_whom_the_runner_up_is_gone() -> None:
    """Only voter 9 ever saw version 1, on prompt 4: there is no lead without either."""
    voter = np.append(10 + np.arange(20), [9, 9])
    votes = Comparisons(
        [0] * 20 + [1, 1], [2] * 22, [FIRST] * 18 + [SECOND] * 2 + [FIRST, TIE],
        voter, np.append(10 + np.arange(20) // 2, [4, 4]), 3,
    )  # fmt: skip
    found = most_influential(votes, fit(votes))
    assert (found.leader, found.runner_up) == (0, 1)
    for removal, number in ((found.voter, 9), (found.prompt, 4)):
        assert removal is not None
        assert (removal.number, removal.votes, removal.leader) == (number, 2, 0)
        assert math.isnan(removal.lead)


def test_one_voter_alone_cannot_be_removed() -> None:
    votes = Comparisons([0, 0, 0], [1, 1, 1], [FIRST, FIRST, SECOND], [3, 3, 3], [0, 1, 2], 2)
    found = most_influential(votes, fit(votes))
    assert found.voter is None
    assert found.prompt is not None
    # Without a prompt that the leader won, the two are level; of equal moves the first is named.
    assert (found.prompt.leader, found.prompt.votes) == (0, 1)


def test_weighted_votes() -> None:
    """Voter 2 alone links version 2; what is removed one by one has no weight."""
    weight = [0.1, 0.2, 0.3, 0.1, 0.7]
    votes = Comparisons(
        [0, 0, 2, 2, 2], [1, 1, 1, 1, 1], [0, 1, 0, 0, 0], [1, 1, 2, 2, 2], [0, 1, 2, 3, 4], 3,
        weight=weight,
    )  # fmt: skip
    found = most_influential(votes, fit(votes))
    assert found.voter is not None
    assert (found.leader, found.voter.number) == (2, 2)
    assert found.voter.leader in (0, 1)
    with pytest.raises(ValueError, match="versions 0 and 1 have a weight that is not whole"):
        fewest_votes_to_change_leader(votes, fit(votes))


@pytest.mark.parametrize(
    ("prior", "message"), [(math.inf, "needs a finite one"), (0.0, "must be a positive number")]
)
def test_bad_priors(prior: float, message: str) -> None:
    votes = Comparisons([0, 0], [1, 1], [FIRST, SECOND], [0, 1], [0, 1], 2)
    ratings = fit(votes)
    with pytest.raises(ValueError, match=message):
        fewest_votes_to_change_leader(votes, ratings, prior)
    with pytest.raises(ValueError, match=message):
        most_influential(votes, ratings, prior)
