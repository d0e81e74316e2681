"""The votes of one category as arrays, checked once so that nothing downstream has to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class Outcome(IntEnum):
    """What a vote says. A caller maps `both_bad` to `TIE`: neither clip was preferred."""

    A = 0
    B = 1
    TIE = 2


@dataclass(frozen=True, eq=False, init=False)
class Comparisons:
    """Votes, one row each.

    Parameters
    ----------
    a, b : array_like of int, shape (n_votes,)
        Index of the version shown on each side, 0 to ``n_versions - 1``.
    outcome : array_like of int, shape (n_votes,)
        An `Outcome` code: 0 version A won, 1 version B, 2 a tie.
    voter, prompt : array_like of int, shape (n_votes,)
        Who voted and on which prompt; any numbers from 0 on, gaps allowed.
    n_versions : int
        How many versions there are, those without votes included.
    weight : array_like of float, shape (n_votes,), optional
        How many votes each row counts for, above 0; one each when left out.
    covariates : array_like of float, shape (n_votes, n_covariates), optional
        What else may have swayed the voter, clip A's value less clip B's.

    Raises
    ------
    ValueError
        Naming the first offending row: lengths differ, an index is out of range, a value is
        missing, infinite or not a whole number where it must be one, a version meets itself; or
        there is no vote at all.
    """

    a: IntArray
    b: IntArray
    outcome: IntArray
    voter: IntArray
    prompt: IntArray
    n_versions: int
    weight: FloatArray | None
    covariates: FloatArray | None

    def __init__(
        self,
        a: ArrayLike,
        b: ArrayLike,
        outcome: ArrayLike,
        voter: ArrayLike,
        prompt: ArrayLike,
        n_versions: int,
        *,
        weight: ArrayLike | None = None,
        covariates: ArrayLike | None = None,
    ) -> None:
        columns: dict[str, NDArray[Any]] = {
            name: whole_numbers(name, values)
            for name, values in {
                "a": a,
                "b": b,
                "outcome": outcome,
                "voter": voter,
                "prompt": prompt,
            }.items()
        }
        _require_two_versions(n_versions)
        _require_equal_lengths(columns)
        _require_within("a", columns["a"], n_versions)
        _require_within("b", columns["b"], n_versions)
        _require_within("outcome", columns["outcome"], len(Outcome))
        _require_within("voter", columns["voter"], None)
        _require_within("prompt", columns["prompt"], None)
        itself = np.flatnonzero(columns["a"] == columns["b"])
        if itself.size:
            row = int(itself[0])
            raise ValueError(
                f"row {row}: version {columns['a'][row]} is compared with itself; "
                "a battle needs two different versions"
            )
        optional = {"weight": _weights(weight, columns["a"].size)}
        optional["covariates"] = _covariates(covariates, columns["a"].size)
        _freeze(self, columns | optional, n_versions)

    @property
    def n_votes(self) -> int:
        return int(self.a.size)

    def select(self, rows: BoolArray | IntArray) -> Comparisons:
        """Take some of the votes, by mask or by index; versions, voters and prompts keep their
        numbers. ValueError when none is left."""
        return Comparisons(
            self.a[rows],
            self.b[rows],
            self.outcome[rows],
            self.voter[rows],
            self.prompt[rows],
            self.n_versions,
            weight=None if self.weight is None else self.weight[rows],
            covariates=None if self.covariates is None else self.covariates[rows],
        )

    def collapse(self) -> PairCounts:
        """Count the votes of each pair of versions; which side a version was shown on is dropped.

        The ratings depend on the votes through these counts alone, so the cost of every fit
        after this one pass is independent of the number of votes. Needs memory for
        ``3 * n_versions ** 2`` numbers.
        """
        swapped = self.a > self.b
        pair = np.where(
            swapped,
            self.b * self.n_versions + self.a,
            self.a * self.n_versions + self.b,
        )
        decided = self.outcome != Outcome.TIE
        # Seen from the first version of the pair, a swapped row's winner is the other one.
        seen = np.where(decided & swapped, 1 - self.outcome, self.outcome)
        cells = np.bincount(
            pair * len(Outcome) + seen,
            weights=self.weight,
            minlength=self.n_versions**2 * len(Outcome),
        ).reshape(-1, len(Outcome))
        met = np.flatnonzero(cells.sum(axis=1))
        return PairCounts(
            first=met // self.n_versions,
            second=met % self.n_versions,
            first_won=cells[met, Outcome.A],
            second_won=cells[met, Outcome.B],
            tied=cells[met, Outcome.TIE],
            n_versions=self.n_versions,
        )


@dataclass(frozen=True, eq=False, init=False)
class PairCounts:
    """The votes of each pair of versions that met, one row a pair.

    Rows are put in the order of (first, second), so that the same votes give the same
    numbers, random draws included, in whatever order a database returned them.

    Parameters
    ----------
    first, second : array_like of int, shape (n_pairs,)
        Version indices with ``first < second``; each pair occurs once.
    first_won, second_won, tied : array_like of float, shape (n_pairs,)
        Number of votes with that outcome, or their weight; above 0 together in each row.
    n_versions : int
        How many versions there are, those without votes included.

    Raises
    ------
    ValueError
        Naming the first offending row.
    """

    first: IntArray
    second: IntArray
    first_won: FloatArray
    second_won: FloatArray
    tied: FloatArray
    n_versions: int

    def __init__(
        self,
        first: ArrayLike,
        second: ArrayLike,
        first_won: ArrayLike,
        second_won: ArrayLike,
        tied: ArrayLike,
        n_versions: int,
    ) -> None:
        columns: dict[str, NDArray[Any]] = {
            "first": whole_numbers("first", first),
            "second": whole_numbers("second", second),
            "first_won": _finite_numbers("first_won", first_won),
            "second_won": _finite_numbers("second_won", second_won),
            "tied": _finite_numbers("tied", tied),
        }
        _require_two_versions(n_versions)
        _require_equal_lengths(columns)
        _require_within("first", columns["first"], n_versions)
        _require_within("second", columns["second"], n_versions)
        for name in ("first_won", "second_won", "tied"):
            _require_within(name, columns[name], None)
        unordered = np.flatnonzero(columns["first"] >= columns["second"])
        if unordered.size:
            row = int(unordered[0])
            raise ValueError(
                f"row {row}: first is {columns['first'][row]} and second is "
                f"{columns['second'][row]}; the first index must be the smaller one"
            )
        votes = columns["first_won"] + columns["second_won"] + columns["tied"]
        empty = np.flatnonzero(votes == 0)
        if empty.size:
            raise ValueError(f"row {int(empty[0])}: the pair has no vote; leave the row out")
        order = np.lexsort((columns["second"], columns["first"]))
        columns = {name: values[order] for name, values in columns.items()}
        repeated = np.flatnonzero(
            (np.diff(columns["first"]) == 0) & (np.diff(columns["second"]) == 0)
        )
        if repeated.size:
            row = int(order[repeated[0] + 1])
            raise ValueError(f"row {row}: the pair occurs twice; add its counts up first")
        _freeze(self, columns, n_versions)

    @property
    def votes(self) -> FloatArray:
        """Votes of each pair, or their weight, shape (n_pairs,)."""
        return self.first_won + self.second_won + self.tied

    @property
    def first_wins(self) -> FloatArray:
        """Wins of each pair's first version, a tie as half a win, shape (n_pairs,)."""
        return self.first_won + self.tied / 2

    @property
    def second_wins(self) -> FloatArray:
        """Wins of each pair's second version, a tie as half a win, shape (n_pairs,)."""
        return self.second_won + self.tied / 2

    def votes_per_version(self) -> FloatArray:
        """Votes in which each version took part, or their weight, shape (n_versions,)."""
        votes = np.zeros(self.n_versions)
        np.add.at(votes, self.first, self.votes)
        np.add.at(votes, self.second, self.votes)
        return votes

    def wins_per_version(self) -> FloatArray:
        """Wins of each version, a tie as half a win, shape (n_versions,)."""
        wins = np.zeros(self.n_versions)
        np.add.at(wins, self.first, self.first_wins)
        np.add.at(wins, self.second, self.second_wins)
        return wins


def collapsed(votes: Comparisons | PairCounts) -> PairCounts:
    """Take votes in either form and give their counts."""
    return votes.collapse() if isinstance(votes, Comparisons) else votes


def compact(labels: IntArray) -> tuple[IntArray, IntArray]:
    """Name the distinct labels, ascending, and give each row the index of its own among them.

    What ``np.unique(labels, return_inverse=True)`` gives, without sorting where labels are small.
    """
    end = int(labels.max()) + 1
    if end > 4 * labels.size:
        names, place = np.unique(labels, return_inverse=True)
        return names, place
    seen = np.zeros(end, dtype=bool)
    seen[labels] = True
    return np.flatnonzero(seen), (np.cumsum(seen) - 1)[labels]


def whole_numbers(name: str, values: ArrayLike) -> IntArray:
    """Copy a column into int64, or raise ValueError naming the first row that does not fit."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} has {array.ndim} dimensions; it must be one column of numbers")
    if array.size == 0:
        raise ValueError(f"{name} is empty; ratings need at least one vote")
    if array.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(array) | (array != np.floor(array)))
        if wrong.size:
            row = int(wrong[0])
            raise ValueError(f"row {row}: {name} is {array[row]}; it must be a whole number")
    elif array.dtype.kind not in "iu":
        raise ValueError(f"row 0: {name} is {array[0]!r}; it must be a whole number")
    return array.astype(np.int64)


def _finite_numbers(name: str, values: ArrayLike) -> FloatArray:
    """Copy a column into float64, or raise ValueError naming the first row that does not fit."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} has {array.ndim} dimensions; it must be one column of numbers")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} holds {array.dtype}; it must be one column of numbers")
    wrong = np.flatnonzero(~np.isfinite(array))
    if wrong.size:
        row = int(wrong[0])
        raise ValueError(f"row {row}: {name} is {array[row]}; it must be a finite number")
    return array.astype(np.float64)


def _weights(weight: ArrayLike | None, n_votes: int) -> FloatArray | None:
    if weight is None:
        return None
    weights = _finite_numbers("weight", weight)
    if weights.size != n_votes:
        raise ValueError(f"weight has {weights.size} rows and the votes {n_votes}; give each one")
    wrong = np.flatnonzero(weights <= 0)
    if wrong.size:
        row = int(wrong[0])
        raise ValueError(f"row {row}: weight is {weights[row]}; leave the vote out instead")
    return weights


def _covariates(covariates: ArrayLike | None, n_votes: int) -> FloatArray | None:
    if covariates is None:
        return None
    table = np.array(covariates, dtype=np.float64)
    if table.ndim != 2 or len(table) != n_votes:
        raise ValueError(
            f"covariates have shape {table.shape}; they must have one row for each of the "
            f"{n_votes} votes and one column for each covariate"
        )
    wrong = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if wrong.size:
        row = int(wrong[0])
        raise ValueError(f"row {row}: covariates are {table[row]}; they must be finite numbers")
    return table


def _require_two_versions(n_versions: int) -> None:
    if n_versions < 2:
        raise ValueError(f"n_versions is {n_versions}; a comparison needs at least 2 versions")


def _require_equal_lengths(columns: Mapping[str, NDArray[Any]]) -> None:
    name, shortest = min(columns.items(), key=lambda item: item[1].size)
    other, longest = max(columns.items(), key=lambda item: item[1].size)
    if shortest.size != longest.size:
        raise ValueError(
            f"row {shortest.size}: {other} has a value and {name} has none; "
            "all columns must have the same length"
        )


def _require_within(name: str, values: NDArray[Any], end: int | None) -> None:
    wrong = values < 0 if end is None else (values < 0) | (values >= end)
    rows = np.flatnonzero(wrong)
    if rows.size:
        row = int(rows[0])
        allowed = "0 or more" if end is None else f"from 0 to {end - 1}"
        raise ValueError(f"row {row}: {name} is {values[row]}; it must be {allowed}")


def _freeze(
    instance: Comparisons | PairCounts,
    columns: Mapping[str, NDArray[Any] | None],
    n_versions: int,
) -> None:
    """Set the fields of an instance whose class is frozen."""
    for name, values in columns.items():
        if values is not None:
            values.setflags(write=False)
        object.__setattr__(instance, name, values)
    object.__setattr__(instance, "n_versions", n_versions)
