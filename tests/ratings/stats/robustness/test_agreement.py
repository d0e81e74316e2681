"""Agreement against its definition, a published example and answers by hand."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from ratings.stats import Comparisons, Outcome
from ratings.stats.robustness.agreement import Agreement, agreement, ordinal_alpha

pytestmark = pytest.mark.filterwarnings("error")

FIRST, SECOND, TIE = Outcome


def votes_of(rows: list[tuple[int, int, int, int, int]], n_versions: int = 3) -> Comparisons:
    """Rows of (a, b, outcome, voter, prompt)."""
    return Comparisons(*zip(*rows, strict=True), n_versions)


def measured(votes: Comparisons, seed: int = 0, **options: float) -> Agreement:
    return agreement(votes, rng=np.random.default_rng(seed), **options)  # type: ignore[arg-type]


def random_rows(rng: np.random.Generator, n: int) -> list[tuple[int, int, int, int, int]]:
    a = rng.integers(0, 3, n)
    b = (a + rng.integers(1, 3, n)) % 3
    columns = (a, b, rng.integers(0, 3, n), rng.integers(0, 6, n), rng.integers(0, 4, n))
    return [tuple(map(int, row)) for row in zip(*columns, strict=True)]  # type: ignore[misc]


def alpha_by_definition(rows: list[tuple[int, int, int, int, int]]) -> float:
    """Observed over expected disagreement, pair of answers by pair of answers."""
    units: dict[tuple[int, int, int], dict[int, int]] = {}
    for a, b, outcome, voter, prompt in rows:
        answer = {FIRST: 2, SECOND: 0, TIE: 1}[Outcome(outcome)]
        answer = answer if a < b else 2 - answer
        unit = units.setdefault((prompt, min(a, b), max(a, b)), {})
        unit.setdefault(voter, answer)
    lists = [list(unit.values()) for unit in units.values() if len(unit) > 1]
    lists += [[2 - answer for answer in answers] for answers in lists]
    everything = [answer for answers in lists for answer in answers]
    n = len(everything)

    def distance(one: int, other: int) -> float:
        low, high = min(one, other), max(one, other)
        between = sum(low <= answer <= high for answer in everything)
        ends = everything.count(low) / 2 + everything.count(high) / 2
        return (between - ends) ** 2 if low < high else 0.0

    table = [[distance(one, other) for other in range(3)] for one in range(3)]
    observed = sum(
        table[one][other] / (len(answers) - 1)
        for answers in lists
        for one, other in permutations(answers, 2)
    )
    expected = sum(table[one][other] for one, other in permutations(everything, 2))
    return 1 - observed / n / (expected / (n * (n - 1)))


@pytest.mark.parametrize("seed", range(5))
def test_alpha_is_its_definition(seed: int) -> None:
    rows = random_rows(np.random.default_rng(seed), 60)
    found = measured(votes_of(rows))
    assert found.alpha == pytest.approx(alpha_by_definition(rows))
    assert found.alpha_low < found.alpha < found.alpha_high


def test_krippendorffs_four_observers() -> None:
    """Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C: ordinal 0.815.

    Five answers instead of three, hence through the formula that the interval uses; the answers
    that an arena can have are in the test of the definition.
    """
    missing = math.nan
    data = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, missing, missing, missing],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, missing, 3],
            [missing, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, missing],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, missing],
        ]
    )
    coincidences = np.zeros((5, 5))
    for unit in data.T:
        answers = unit[~np.isnan(unit)].astype(int)
        for one, other in permutations(answers, 2):
            coincidences[one - 1, other - 1] += 1 / (answers.size - 1)
    assert ordinal_alpha(coincidences[None])[0] == pytest.approx(0.815, abs=5e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.permutations(range(3)))
def test_numbering_the_versions_anew_changes_nothing(seed: int, numbers: list[int]) -> None:
    rows = random_rows(np.random.default_rng(seed), 30)
    votes = votes_of(rows)
    again = votes_of([(numbers[a], numbers[b], *rest) for a, b, *rest in rows])
    found, renumbered = measured(votes), measured(again)
    assume(not math.isnan(found.alpha))
    assert renumbered.alpha == pytest.approx(found.alpha)
    assert (renumbered.units, renumbered.repeats) == (found.units, found.repeats)


def test_voters_of_one_mind_have_alpha_one_whichever_side_a_clip_was_on() -> None:
    found = measured(
        votes_of(
            [(0, 1, FIRST, 1, 0), (1, 0, SECOND, 2, 0), (0, 1, FIRST, 3, 0)]
            + [(1, 2, TIE, voter, 0) for voter in (1, 2)]
        )
    )
    assert (found.alpha, found.alpha_low, found.alpha_high) == (1.0, 1.0, 1.0)
    assert (found.units, found.answers) == (2, 5)


def test_answers_at_random_have_alpha_zero() -> None:
    found = measured(votes_of(random_rows(np.random.default_rng(8), 40_000)))
    # 12 units of six voters' first answers.
    assert (found.units, found.answers) == (12, 72)
    rng = np.random.default_rng(2)
    rows = [
        (0, 1, int(rng.integers(0, 3)), voter, unit) for unit in range(4000) for voter in (0, 1)
    ]
    found = measured(votes_of(rows))
    assert found.alpha_low < 0 < found.alpha_high
    assert abs(found.alpha) < 0.05


def test_alphas_interval_covers() -> None:
    """80 data sets of 150 units with a taste each; the truth from 100,000 units."""
    rng = np.random.default_rng(3)

    def votes(units: int) -> Comparisons:
        prompt, voter = np.repeat(np.arange(units), 3), np.tile(np.arange(3), units)
        taste = np.repeat(rng.normal(0, 1, units), 3) + rng.normal(0, 1, 3 * units)
        outcome = np.where(np.abs(taste) < 0.3, TIE, np.where(taste > 0, FIRST, SECOND))
        return Comparisons(0 * prompt, 0 * prompt + 1, outcome, voter, prompt, 2)

    truth = measured(votes(100_000)).alpha
    assert 0.2 < truth < 0.6
    found = [agreement(votes(150), rng=rng) for _ in range(80)]
    covered = [one.alpha_low <= truth <= one.alpha_high for one in found]
    assert 0.87 <= np.mean(covered) <= 0.99


def test_without_a_repeated_unit_there_is_no_alpha() -> None:
    """One voter twice is no second voter; other prompts and other pairs are other units."""
    found = measured(
        votes_of(
            [(0, 1, FIRST, 5, 0), (0, 1, FIRST, 5, 0), (0, 2, FIRST, 6, 0), (0, 1, FIRST, 7, 1)]
        )
    )
    assert (found.units, found.answers) == (0, 0)
    assert np.isnan([found.alpha, found.alpha_low, found.alpha_high]).all()


def test_ties_alone_say_nothing_of_agreement() -> None:
    found = measured(votes_of([(0, 1, TIE, voter, voter // 2) for voter in range(6)]))
    assert found.units == 3
    assert math.isnan(found.alpha)
    assert math.isnan(found.a_share)
    assert found.decided == 0


def test_one_unit_has_no_interval() -> None:
    found = measured(votes_of([(0, 1, FIRST, 0, 0), (0, 1, SECOND, 1, 0)]))
    assert found.units == 1
    assert found.alpha < 0
    assert math.isnan(found.alpha_low)


def test_the_same_again_by_hand() -> None:
    """Voter 1 answers three times: the same, sides swapped, then another. Voter 3 the same."""
    found = measured(
        votes_of(
            [
                (0, 1, FIRST, 1, 0),
                (0, 1, FIRST, 2, 0),
                (1, 0, SECOND, 1, 0),
                (0, 1, FIRST, 2, 3),
                (0, 1, TIE, 1, 0),
                (2, 1, TIE, 3, 0),
                (1, 2, TIE, 3, 0),
            ]
        ),
        level=0.9,
    )
    assert found.repeats == 3
    assert found.same_again == pytest.approx(2 / 3)
    wilson = binomtest(2, 3).proportion_ci(0.9, method="wilson")
    assert (found.same_low, found.same_high) == pytest.approx((wilson.low, wilson.high))


def test_without_a_repeat_there_is_no_share() -> None:
    found = measured(votes_of([(0, 1, FIRST, 1, 0), (0, 1, FIRST, 2, 0)]))
    assert found.repeats == 0
    assert np.isnan([found.same_again, found.same_low, found.same_high]).all()


def test_share_of_a_of_independent_votes_is_binomial() -> None:
    n = 40
    outcome = [FIRST] * 26 + [SECOND] * 14 + [TIE] * 10
    votes = Comparisons([0] * 50, [1] * 50, outcome, range(50), range(50), 2)
    found = measured(votes)
    reach = t.ppf(0.975, n - 1) * math.sqrt(0.65 * 0.35 / (n - 1))
    assert found.decided == n
    assert found.a_share == 0.65
    assert (found.a_low, found.a_high) == pytest.approx((0.65 - reach, 0.65 + reach))


def test_share_of_a_is_less_sure_where_a_voter_always_takes_one_side() -> None:
    """Ten voters, each of one mind on 20 prompts: ten answers, not 200."""
    voter, prompt = np.divmod(np.arange(200), 20)
    one_sided = np.where(voter < 6, FIRST, SECOND)
    mixed = np.where((voter + prompt) % 10 < 6, FIRST, SECOND)
    wide, narrow = (
        measured(Comparisons(0 * voter, 0 * voter + 1, outcome, voter, prompt, 2))
        for outcome in (one_sided, mixed)
    )
    assert wide.a_share == narrow.a_share == 0.6
    assert wide.a_high - wide.a_low > 3 * (narrow.a_high - narrow.a_low)
    assert wide.a_high - wide.a_low > 2 * math.sqrt(0.24 / 10)


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 1, FIRST, 1, 0), (0, 1, SECOND, 1, 1)],  # one voter
        [(0, 1, FIRST, 1, 0), (0, 1, SECOND, 2, 0)],  # one prompt
        [(0, 1, FIRST, 1, 0), (0, 1, FIRST, 2, 1)],  # one side
    ],
)
def test_what_does_not_vary_has_no_interval(rows: list[tuple[int, int, int, int, int]]) -> None:
    found = measured(votes_of(rows))
    assert 0.5 <= found.a_share <= 1
    assert np.isnan([found.a_low, found.a_high]).all()


def test_a_seed_gives_the_same_interval() -> None:
    votes = votes_of(random_rows(np.random.default_rng(1), 200))
    one, other, third = (measured(votes, seed) for seed in (5, 5, 6))
    assert one.alpha_low == other.alpha_low != third.alpha_low


@pytest.mark.parametrize(
    ("options", "message"),
    [({"level": 95.0}, "must be between 0 and 1"), ({"replicates": 0}, "replicates is 0")],
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measured(votes_of([(0, 1, FIRST, 0, 0)]), **options)
