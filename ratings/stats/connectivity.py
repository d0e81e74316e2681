"""Which versions the votes can compare at all, and which of them only on one side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from ratings.stats.comparisons import BoolArray, IntArray, PairCounts


@dataclass(frozen=True, eq=False)
class Component:
    """The largest connected part of the graph whose edges are the pairs that met.

    Attributes
    ----------
    versions : int array, shape (k,)
        The versions in it, ascending.
    rows : int array, shape (p,)
        The rows of the counts between them.
    first, second : int array, shape (p,)
        Those rows' versions, as positions in `versions`.
    core : bool array, shape (k,)
        Whether the votes alone, without a prior, place the version at a finite distance from
        the other versions of the core.
    bounded : str array, shape (k,)
        ``"below"`` if the votes bound the version from below only (it won every vote, or it
        is in a group that never lost to the core), ``"above"`` if from above only, else ``""``.
    """

    versions: IntArray
    rows: IntArray
    first: IntArray
    second: IntArray
    core: BoolArray
    bounded: NDArray[np.str_]


def largest_component(counts: PairCounts) -> Component:
    """Find the versions that a chain of votes connects.

    The component with most versions is taken; of two alike the one with more votes, then the
    one with the lowest version index.

    Maximum-likelihood ratings are finite exactly where the graph "scored against" is strongly
    connected (Ford 1957, American Mathematical Monthly 64(8), 28-33). The largest strongly
    connected part, when it has two versions or more and no other is as large, is the core.
    """
    n = counts.n_versions
    met = csr_array((np.ones(counts.first.size), (counts.first, counts.second)), shape=(n, n))
    label = connected_components(met, directed=False)[1].astype(np.int64)
    sizes = np.bincount(label)
    votes = np.bincount(label[counts.first], weights=counts.votes, minlength=sizes.size)
    lowest_member = np.unique(label, return_index=True)[1]
    largest = int(np.lexsort((lowest_member, -votes, -sizes))[0])
    versions = np.flatnonzero(label == largest)
    rows = np.flatnonzero(label[counts.first] == largest)
    first = np.searchsorted(versions, counts.first[rows])
    second = np.searchsorted(versions, counts.second[rows])
    scored = np.zeros((versions.size, versions.size), dtype=bool)
    scored[first, second] = counts.first_wins[rows] > 0
    scored[second, first] = counts.second_wins[rows] > 0
    core, bounded = _one_sided(scored)
    return Component(versions, rows, first, second, core, bounded)


def _one_sided(scored: BoolArray) -> tuple[BoolArray, NDArray[np.str_]]:
    """Find the core and the side on which the votes bound each version outside it.

    `scored[i, j]` says that i won or tied a vote against j, shape (k, k).
    """
    graph = csr_array(scored.astype(np.int8))
    n_groups, group = connected_components(graph, directed=True, connection="strong")
    bounded = np.full(len(scored), "", dtype="<U5")
    if n_groups == 1:
        return np.ones(len(scored), dtype=bool), bounded

    elsewhere = group[:, None] != group[None, :]
    scores = np.bincount(group[(scored & elsewhere).any(axis=1)], minlength=n_groups)[group] > 0
    concedes = np.bincount(group[(scored & elsewhere).any(axis=0)], minlength=n_groups)[group] > 0
    bounded[scores & ~concedes] = "below"
    bounded[concedes & ~scores] = "above"

    sizes = np.bincount(group)
    largest = sizes.max()
    if largest < 2 or np.count_nonzero(sizes == largest) > 1:
        return np.zeros(len(scored), dtype=bool), bounded

    core = group == np.argmax(sizes)
    member = int(np.flatnonzero(core)[0])
    beaten = breadth_first_order(graph, member, return_predecessors=False)
    beating = breadth_first_order(csr_array(graph.T), member, return_predecessors=False)
    both = scores & concedes
    bounded[np.intersect1d(beating, np.flatnonzero(both))] = "below"
    bounded[np.intersect1d(beaten, np.flatnonzero(both))] = "above"
    bounded[core] = ""
    return core, bounded
