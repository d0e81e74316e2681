"""Fifth step: classifiers try to name the version by what was read."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from bench.blind.versions import BLIND_SEED, Facts, Floats, Ints

FOLDS = 5
STRINGS_AT_MOST = 20  # values of a string that get a column of their own
LEARNERS = ("neighbours", "logistic", "forest")


@dataclass(frozen=True)
class FactTable:
    """Clips by what was read from them. Columns of one family are shuffled together.

    Attributes
    ----------
    x : float array [clips, columns]
    families : the family of each column
    fixed : how many facts were the same in all clips, and so are no column
    differing : how many facts differ between versions' clips of the same prompt
    """

    x: Floats
    families: tuple[str, ...]
    fixed: int
    differing: int


def fact_table(rows: Sequence[Facts], prompts: Ints) -> FactTable:
    columns: list[Floats] = []
    families: list[str] = []
    fixed = differing = 0
    for name in sorted({name for row in rows for name in row}):
        family = name.split("|")[0]
        values = [row.get(name, "absent") for row in rows]
        counts = Counter(values)
        if len(counts) == 1:
            fixed += 1
            continue
        pairs = len(set(zip(values, prompts.tolist(), strict=True)))
        differing += pairs > len(set(prompts.tolist()))
        if any(isinstance(value, str) for value in values):
            made = [
                [float(value == one) for value in values]
                for one, _ in counts.most_common(STRINGS_AT_MOST)
            ]
            made.append([float(len(str(value))) for value in values])
        else:
            made = [[float(value) for value in values]]
        columns += [np.array(column) for column in made]
        families += [family] * len(made)
    x = np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))
    return FactTable(x, tuple(families), fixed, differing)


def learner(name: str, columns: int, clips: int, rng: np.random.Generator) -> Pipeline:
    """One of LEARNERS, not fitted yet."""
    seed = int(rng.integers(2**31))
    if name == "forest":
        tries = min(columns, 2 * math.isqrt(columns) + 1)
        return make_pipeline(
            ExtraTreesClassifier(40, max_features=tries, min_samples_split=10, random_state=seed)
        )
    scaled = (StandardScaler(), FunctionTransformer(np.clip, kw_args={"a_min": -8, "a_max": 8}))
    if name == "neighbours":
        return make_pipeline(*scaled, KNeighborsClassifier(9))
    # scikit-learn adds losses up and divides the ridge by C; the ridge is 0.01 of a mean loss.
    return make_pipeline(*scaled, LogisticRegression(C=100 / clips, max_iter=500))


@dataclass(frozen=True)
class Guesses:
    """How often held-out clips were given to the right version.

    `low` and `high` are a 95 % interval, by drawing prompts with replacement: clips of one prompt
    depend on each other. `losses` is by how much the accuracy falls when the columns of a family
    are shuffled among the held-out clips.
    """

    data: FactTable
    accuracy: float
    low: float
    high: float
    used: str
    losses: Mapping[str, float]


def classify(
    title: str, data: FactTable, y: Ints, prompts: Ints, k: int, explain: bool
) -> tuple[str, Guesses]:
    """Cross-validate over prompts, so that folds hold equally many clips of every version.

    Which learner is used in a fold is decided by a quarter of that fold's own training prompts,
    so that picking the best of three does not flatter it.
    """
    rng = np.random.default_rng(BLIND_SEED)
    if not data.families:
        return title, Guesses(data, 1 / k, 1 / k, 1 / k, "nothing varies", {})
    right, losses, used = np.zeros(len(y)), defaultdict[str, float](float), Counter[str]()
    for held in np.array_split(rng.permutation(np.unique(prompts)), FOLDS):
        test = np.isin(prompts, held)
        rest = rng.permutation(np.unique(prompts[~test]))
        inner = np.isin(prompts, rest[: len(rest) // 4])
        known = ~test & ~inner
        scores = {}
        for name in LEARNERS:
            tried = learner(name, data.x.shape[1], known.sum(), rng)
            scores[name] = tried.fit(data.x[known], y[known]).score(data.x[inner], y[inner])
        best = max(scores, key=scores.__getitem__)
        used[best] += 1
        fitted = learner(best, data.x.shape[1], (~test).sum(), rng).fit(data.x[~test], y[~test])
        right[test] = fitted.predict(data.x[test]) == y[test]
        for family in set(data.families) if explain else ():
            shuffled, columns = data.x[test], np.array([f == family for f in data.families])
            shuffled[:, columns] = shuffled[rng.permutation(len(shuffled))][:, columns]
            lost = right[test].sum() - (fitted.predict(shuffled) == y[test]).sum()
            losses[family] += float(lost) / len(y)
    of_prompt = np.array([right[prompts == p].mean() for p in np.unique(prompts)])
    draws = of_prompt[rng.integers(of_prompt.size, size=(4000, of_prompt.size))].mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    names = ", ".join(name for name, _ in used.most_common())
    return title, Guesses(data, float(right.mean()), float(low), float(high), names, losses)
