"""The container refuses bad votes by row and counts good ones as a plain loop does."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratings.stats import Comparisons, Outcome, PairCounts

pytestmark = pytest.mark.filterwarnings("error")

GOOD: dict[str, Any] = {
    "a": [0, 1, 2],
    "b": [1, 2, 0],
    "outcome": [0, 1, 2],
    "voter": [0, 0, 7],
    "prompt": [3, 4, 3],
    "n_versions": 3,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": [1, 2]}, r"row 2: .* b has none"),
        ({"voter": [0, 0, 7, 8]}, r"row 3: voter has a value"),
        ({"a": [0, 3, 2]}, r"row 1: a is 3; it must be from 0 to 2"),
        ({"b": [1, 2, -1]}, r"row 2: b is -1"),
        ({"outcome": [0, 3, 2]}, r"row 1: outcome is 3; it must be from 0 to 2"),
        ({"voter": [0, -5, 7]}, r"row 1: voter is -5; it must be 0 or more"),
        ({"prompt": [-1, 4, 3]}, r"row 0: prompt is -1"),
        ({"b": [1, 1, 0]}, r"row 1: version 1 is compared with itself"),
        ({"outcome": [0.0, float("nan"), 1.0]}, r"row 1: outcome is nan"),
        ({"voter": [0.0, 1.0, float("inf")]}, r"row 2: voter is inf"),
        ({"outcome": [0.5, 1.0, 1.0]}, r"row 0: outcome is 0.5; it must be a whole number"),
        ({"outcome": ["A", "B", "tie"]}, r"row 0: outcome is .*'A'"),
        ({"a": [[0, 1, 2]]}, r"a has 2 dimensions"),
        ({"n_versions": 1}, r"n_versions is 1"),
        ({name: [] for name in GOOD if name != "n_versions"}, r"a is empty"),
    ],
)
def test_bad_votes_are_refused_by_row(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Comparisons(**(GOOD | change))


def test_whole_numbers_in_floats_are_taken() -> None:
    votes = Comparisons(**(GOOD | {"outcome": np.array([0.0, 1.0, 2.0])}))
    assert votes.outcome.dtype == np.int64
    assert votes.n_votes == 3


def test_votes_cannot_be_changed_afterwards() -> None:
    source = np.array([0, 1, 2])
    votes = Comparisons(**(GOOD | {"a": source}))
    source[0] = 2
    assert votes.a.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="read-only"):
        votes.a[0] = 1


def test_collapse_forgets_sides_and_keeps_winners() -> None:
    # Version 2 beats version 0 once from either side, they tie once, and 0 wins once.
    votes = Comparisons(
        a=[2, 0, 0, 0],
        b=[0, 2, 2, 2],
        outcome=[Outcome.A, Outcome.B, Outcome.TIE, Outcome.A],
        voter=[0, 1, 2, 3],
        prompt=[0, 0, 0, 0],
        n_versions=3,
    )
    counts = votes.collapse()
    assert (counts.first.tolist(), counts.second.tolist()) == ([0], [2])
    assert counts.first_wins.tolist() == [1.5]
    assert counts.second_wins.tolist() == [2.5]
    assert counts.votes.tolist() == [4]
    assert counts.votes_per_version().tolist() == [4, 0, 4]
    assert counts.wins_per_version().tolist() == [1.5, 0.0, 2.5]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 4), st.sampled_from(list(Outcome))),
        min_size=1,
        max_size=60,
    )
)
def test_collapse_counts_what_a_loop_counts(rows: list[tuple[int, int, Outcome]]) -> None:
    a = [row[0] for row in rows]
    b = [(row[0] + row[1]) % 5 for row in rows]
    outcome = [row[2] for row in rows]
    nobody = [0] * len(rows)
    counts = Comparisons(a, b, outcome, nobody, nobody, 5).collapse()

    expected: Counter[tuple[int, int, int | None]] = Counter()
    for one, other, result in zip(a, b, outcome, strict=True):
        winner = {Outcome.A: one, Outcome.B: other, Outcome.TIE: None}[result]
        expected[min(one, other), max(one, other), winner] += 1
    found: Counter[tuple[int, int, int | None]] = Counter()
    for i, j, i_won, j_won, tied in zip(
        counts.first.tolist(),
        counts.second.tolist(),
        counts.first_won.tolist(),
        counts.second_won.tolist(),
        counts.tied.tolist(),
        strict=True,
    ):
        found += Counter({(i, j, i): i_won, (i, j, j): j_won, (i, j, None): tied})
    assert found == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": [1, 0]}, r"row 0: first is 1 and second is 1"),
        ({"first": [0, 2]}, r"row 1: first is 2 and second is 2"),
        ({"second": [1, 3]}, r"row 1: second is 3"),
        ({"first": [0, 0], "second": [1, 1]}, r"row 1: the pair occurs twice"),
        ({"first_won": [0, 1], "second_won": [0, 0], "tied": [0, 0]}, r"row 0: .*no vote"),
        ({"tied": [0, -1]}, r"row 1: tied is -1"),
        ({"first_won": [1.0, float("nan")]}, r"row 1: first_won is nan"),
    ],
)
def test_bad_counts_are_refused_by_row(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "first": [0, 1],
        "second": [1, 2],
        "first_won": [1, 2],
        "second_won": [0, 1],
        "tied": [0, 0],
        "n_versions": 3,
    }
    with pytest.raises(ValueError, match=message):
        PairCounts(**(good | change))


def test_counts_are_put_in_order() -> None:
    counts = PairCounts([1, 0, 0], [2, 2, 1], [5, 6, 7], [1, 1, 1], [0, 0, 0], 3)
    assert list(zip(counts.first.tolist(), counts.second.tolist(), strict=True)) == [
        (0, 1),
        (0, 2),
        (1, 2),
    ]
    assert counts.first_won.tolist() == [7, 6, 5]
