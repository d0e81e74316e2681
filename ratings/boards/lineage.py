"""An in-house model's versions in the order of their dates, and what got better or worse.

Three things can show that a version is worse than an earlier one: its interval on a leaderboard
lies below the other's; the same on a slice, with false discoveries controlled; and an experiment's
verdict. All of it is for the model's page. Whoever asks says which versions may be named.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

from django.db.models import Max
from django.urls import reverse
from django.utils import timezone

from arena.models import Experiment, ExperimentState
from generation.catalogue.categories import Category
from generation.models import Version, VersionState
from generation.rendering.progress import Speed
from ratings.models import Assessment, Leaderboard, Standing, Verdict
from ratings.robustness.stored import newest_slices
from ratings.significance import LEVEL, discoveries, normal_reach, two_sided_p_value

RUNNING = "running"  # in place of a verdict
# What is said of one experiment, and of several.
VERDICTS = (
    (Verdict.PASS.value, "passed", "passed"),
    (Verdict.REGRESSED.value, "regressed", "regressed"),
    (Verdict.INCONCLUSIVE.value, "was inconclusive", "were inconclusive"),
    (RUNNING, "is running", "are running"),
)
ASSESSED = ("verdict", "votes", "estimate", "low", "high")
SLICES_NAMED = 3  # of those that a sentence is about, the most different first

# The drawing. Across in percent of its width, so that words keep their size whatever the width is.
LEFT, RIGHT = 12.0, 99.0  # left of it stand the ratings' labels
PLOT_HEIGHT = 220  # pixels
NUMBERS_HEIGHT = 30
TRACK_HEIGHT = 26  # of an experiment
NARROWEST = 100.0  # Elo points on the axis
BEYOND = 150.0  # Elo points by which intervals may widen the axis beyond the ratings
STEPS = (10, 20, 25, 50, 100, 200, 250, 500)  # Elo points between two lines
LINES = 5  # at most


def dated(version: Version) -> date:
    return version.released_on or timezone.localdate(version.created_at)


def in_order(versions: Iterable[Version]) -> list[Version]:
    return sorted(versions, key=lambda v: (dated(v), v.created_at, v.pk))


def signed(points: float) -> str:
    return f"{points:+.0f}".replace("-", "−")


def spelled(low: float | None, high: float | None, form: str = "{:.0f}") -> str:
    """An interval in words; either end can be open."""
    ends = [None if e is None else form.format(e).replace("-", "−") for e in (low, high)]
    if None not in ends:
        return f"{ends[0]} to {ends[1]}"
    if ends == [None, None]:
        return "interval unknown"
    return f"above {ends[0]}" if ends[0] else f"below {ends[1]}"


@dataclass(frozen=True)
class Comparison:
    """A version beside an earlier one, on a category or on one of its slices."""

    category: Category
    slice: str
    version: Version
    new: Standing
    old: Standing

    @property
    def points(self) -> float:
        assert self.new.rating is not None
        assert self.old.rating is not None
        return self.new.rating - self.old.rating

    @property
    def gap(self) -> float:
        return abs(self.points)

    @property
    def words(self) -> str:
        new, old = (
            f"{row.rating:.0f} ({spelled(row.low, row.high)})" for row in (self.new, self.old)
        )
        return f"{new} against {old}"

    @cached_property
    def p_value(self) -> float:
        """Two-sided, below 0.05 where the 95 % intervals do not touch.

        The error of the difference is taken as the sum of both errors, which it never exceeds
        however the two ratings hang together.
        """
        below, above = (self.new, self.old) if self.points < 0 else (self.old, self.new)
        if below.high is None or above.low is None or self.points == 0:
            return 1.0
        assert below.rating is not None
        assert above.rating is not None
        reach = below.high - below.rating + above.rating - above.low
        return two_sided_p_value(normal_reach() * self.points / reach) if reach > 0 else 0.0

    @property
    def change(self) -> str:
        """better, worse, or nothing where the intervals touch."""
        if self.p_value > 1 - LEVEL:
            return ""
        return "worse" if self.points < 0 else "better"


@dataclass(frozen=True)
class Judged:
    """An experiment between two versions of the lineage, as its newest assessment has it."""

    experiment: Experiment
    candidate: Version
    baseline: Version
    verdict: str  # a Verdict or RUNNING
    votes: int
    estimate: float | None  # Elo of the candidate over the baseline
    low: float | None
    high: float | None
    # Slices that differ from the whole by more than chance. While the experiment runs they are
    # looked at again and again, so nothing is said of them yet.
    different: list[dict[str, Any]]

    @property
    def worse_on(self) -> list[dict[str, Any]]:
        """Of these, where the candidate is worse than the baseline."""
        return [s for s in self.different if s["high"] is not None and s["high"] < 0]

    @property
    def category(self) -> Category:
        return Category(self.experiment.category)

    @property
    def word(self) -> str:
        return Verdict(self.verdict).label if self.verdict in Verdict else "Running"

    @property
    def outcome(self) -> str:
        """The estimate, and the slices that clearly differ, in words."""
        if self.estimate is None:
            return ""
        whole = f", {signed(self.estimate)} Elo ({spelled(self.low, self.high, '{:+.0f}')})"
        parts = [
            f"; {'better' if s['better'] else 'worse'} on {s['tag']} ({signed(s['estimate'])})"
            for s in self.different
        ]
        return whole + "".join(parts)

    @property
    def url(self) -> str:
        return reverse("experiment", args=[self.experiment.pk])


@dataclass(frozen=True)
class Lineage:
    versions: list[Version]  # in the order of their dates
    standings: Mapping[str, Mapping[int, Standing]]  # by category and version
    slices: Mapping[tuple[str, str], Mapping[int, Standing]]  # by category and tag, and version
    experiments: list[Judged]

    @cached_property
    def numbers(self) -> dict[int, int]:
        """Each version's place in the lineage, from 1."""
        return {version.pk: number for number, version in enumerate(self.versions, 1)}

    @cached_property
    def categories(self) -> list[Category]:
        made = {category for version in self.versions for category in version.categories}
        return [c for c in Category if c.value in made]

    def newer_than(self, version: Version) -> list[Version]:
        """Those of a later date, whatever they grew from."""
        return self.versions[self.numbers[version.pk] :]

    def older_than(self, version: Version) -> list[Version]:
        return self.versions[: self.numbers[version.pk] - 1]

    def parent_of(self, version: Version) -> Version | None:
        place = self.numbers.get(version.parent_id or 0)
        return self.versions[place - 1] if place else None

    def ranked(self, category: Category, version: Version) -> Standing | None:
        """The version's row where its votes are enough to be compared."""
        row = self.standings.get(category.value, {}).get(version.pk)
        return row if row and row.rank_low is not None else None

    def compared(
        self, category: Category, pairs: Iterable[tuple[Version, Version]]
    ) -> list[Comparison]:
        """Pairs of a version and an earlier one, of those that the category's board ranks."""
        rows = ((v, self.ranked(category, v), self.ranked(category, old)) for v, old in pairs)
        return [Comparison(category, "", v, new, old) for v, new, old in rows if new and old]

    def clear_differences(self, pairs: Sequence[tuple[Version, Version]]) -> "Slices":
        """Every slice of these pairs, and those of them that differ by more than chance."""
        found = [
            Comparison(Category(category), tag, version, rows[version.pk], rows[old.pk])
            for (category, tag), rows in self.slices.items()
            for version, old in pairs
            if _is_rated(rows.get(version.pk)) and _is_rated(rows.get(old.pk))
        ]
        differs = discoveries([c.p_value for c in found])
        different = [c for c, clear in zip(found, differs, strict=True) if clear]
        return Slices(found, sorted(different, key=lambda c: -abs(c.points)))


@dataclass(frozen=True)
class Slices:
    compared: list[Comparison]
    different: list[Comparison]  # the most different first

    def on(self, category: Category, version: Version) -> dict[str, Any]:
        """The version's slices that got better and worse, and how many were compared."""

        def mine(comparisons: list[Comparison]) -> list[Comparison]:
            return [c for c in comparisons if (c.category, c.version) == (category, version)]

        different = mine(self.different)
        sorts = {
            "worse": [c for c in different if c.points < 0],
            "better": [c for c in different if c.points > 0],
        }
        return {
            "of": len(mine(self.compared)),
            **{change: {"count": len(c), "named": _named(c)} for change, c in sorts.items() if c},
        }


def _named(found: list[Comparison]) -> str:
    """The most different of these slices."""
    names = ", ".join(f"{c.slice} ({signed(c.points)})" for c in found[:SLICES_NAMED])
    more = len(found) - SLICES_NAMED
    return f"{names} and {more} more" if more > 0 else names


def _is_rated(row: Standing | None) -> bool:
    return row is not None and row.rating is not None


def read_lineage(
    versions: Iterable[Version], boards: Mapping[str, Leaderboard], with_experiments: bool
) -> Lineage:
    """The lineage of these versions from the newest boards, whose standings are at hand."""
    ordered = in_order(versions)
    return Lineage(
        versions=ordered,
        standings={
            category: {row.version_id: row for row in board.standings.all()}
            for category, board in boards.items()
        },
        slices=_slice_standings(list(boards), ordered),
        experiments=_experiments(ordered) if with_experiments else [],
    )


def _slice_standings(
    categories: list[str], versions: list[Version]
) -> dict[tuple[str, str], dict[int, Standing]]:
    """The versions' rows on the newest board of each slice that the newest findings have."""
    wanted = {(category, tag) for category in categories for tag in newest_slices(category)}
    newest = (
        Leaderboard.objects.filter(
            category__in={category for category, _ in wanted}, slice__in={tag for _, tag in wanted}
        )
        .order_by()
        .values("category", "slice")
        .annotate(newest=Max("pk"))
        .values("newest")
    )
    rows = Standing.objects.filter(leaderboard__in=newest, version__in=versions)
    found: dict[tuple[str, str], dict[int, Standing]] = {key: {} for key in sorted(wanted)}
    for row in rows.select_related("leaderboard"):
        key = (row.leaderboard.category, row.leaderboard.slice)
        if key in found:
            found[key][row.version_id] = row
    return found


def _experiments(versions: list[Version]) -> list[Judged]:
    """Those between two of these versions that were neither cancelled nor failed, oldest first."""
    named = {version.pk: version for version in versions}
    experiments = (
        Experiment.objects.filter(candidate__in=named, baseline__in=named)
        .exclude(state__in=(ExperimentState.CANCELLED, ExperimentState.FAILED))
        .order_by("created_at", "pk")
    )
    newest = {
        row["experiment"]: row
        for row in Assessment.objects.filter(experiment__in=experiments.order_by())
        .order_by("experiment", "-pk")
        .distinct("experiment")
        .values("experiment", *ASSESSED, "findings__slices")
    }
    return [_judged(experiment, named, newest.get(experiment.pk)) for experiment in experiments]


def _judged(
    experiment: Experiment, named: Mapping[int, Version], newest: dict[str, Any] | None
) -> Judged:
    row = newest or dict.fromkeys(ASSESSED)
    slices = (row["findings__slices"] or []) if row["verdict"] else []
    return Judged(
        experiment=experiment,
        candidate=named[experiment.candidate_id],
        baseline=named[experiment.baseline_id],
        verdict=row["verdict"] or RUNNING,
        votes=row["votes"] or 0,
        estimate=row["estimate"],
        low=row["low"],
        high=row["high"],
        different=[s for s in slices if s["differs"]],
    )


# ---- has anything regressed since? ----


def usual_since(versions: Sequence[Version]) -> Version:
    """What the page compares with unasked: the newest version's parent, or the one before it."""
    newest = versions[-1]
    parent = next((v for v in versions if v.pk == newest.parent_id), None)
    return parent or versions[max(0, len(versions) - 2)]


def regressions_since(lineage: Lineage, since: Version) -> dict[str, Any]:
    """Whether anything has been shown to be worse since this version, and how sure that is.

    Of experiments those count that hold a newer version against an earlier one: to be worse than a
    later one is no regression.
    """
    newer = lineage.newer_than(since)
    pairs = [(version, since) for version in newer]
    slices = lineage.clear_differences(pairs)
    ratings = {c: lineage.compared(c, pairs) for c in lineage.categories}
    lower = {
        (c.version, c.category): c
        for found in ratings.values()
        for c in found
        if c.change == "worse"
    }
    worse: list[dict[str, Any]] = [
        {"version": v, "category": c, "rating": lower.get((v, c)), "slices": on_slices}
        for v in newer
        for c in lineage.categories
        if "worse" in (on_slices := slices.on(c, v)) or (v, c) in lower
    ]
    since_then = [
        judged
        for judged in lineage.experiments
        if judged.candidate in newer and judged.baseline in lineage.older_than(judged.candidate)
    ]
    passed = [j for j in since_then if j.verdict == Verdict.PASS and j.baseline == since]
    failed = [j for j in since_then if j.verdict == Verdict.REGRESSED or j.worse_on]
    named = {found["version"].pk for found in worse} | {j.candidate.pk for j in failed}
    return {
        "since": since,
        "newer": newer,
        "regressed": [version.name for version in newer if version.pk in named],
        "worse": worse,
        "experiments": failed,
        "compared": any(ratings.values()) or bool(passed),
        "only_trial": all(map(_is_on_trial, newer)),
        "sure": [_sureness(lineage, c, since, newer, ratings[c]) for c in ratings],
        "verdicts": _verdicts(since_then),
    }


def _verdicts(since_then: list[Judged]) -> str:
    """A sentence on how these experiments ended; nothing where there are none."""
    counts = Counter(judged.verdict for judged in since_then)
    said = [
        (count, one if count == 1 else several)
        for verdict, one, several in VERDICTS
        if (count := counts[verdict])
    ]
    if not said:
        return ""
    if len(since_then) == 1:
        return f"The one experiment that compared a newer version with an earlier one {said[0][1]}."
    *others, last = [f"{count} {word}" for count, word in said]
    ends = f"{', '.join(others)} and {last}" if others else last
    all_of_them = f"{len(since_then)} experiments that compared a newer version with an earlier one"
    return f"Of {all_of_them}, {ends}."


def _sureness(
    lineage: Lineage,
    category: Category,
    since: Version,
    newer: list[Version],
    found: list[Comparison],
) -> dict[str, Any]:
    """On what a category's part of the answer rests."""
    rows = [row for c in found for row in (c.new, c.old)]
    compared = {c.version.pk for c in found}
    made = [v for v in newer if category.value in v.categories]
    trial = [v for v in made if _is_on_trial(v) and v.pk not in compared]
    entered = [v for v in made if v not in trial]
    widest = max(map(_width, rows), default=math.inf)
    return {
        "category": category,
        "since_missing": lineage.ranked(category, since) is None,
        "compared": len(found),
        "votes": min((row.votes for row in rows), default=0),
        "widest": None if widest == math.inf else widest,
        "missing": [v.name for v in entered if v.pk not in compared],
        "entered": len(entered),
        "trial": [v.name for v in trial],
    }


def _is_on_trial(version: Version) -> bool:
    """It meets others in experiments alone, so no board will ever compare it."""
    return version.state == VersionState.TRIAL


def _width(row: Standing) -> float:
    return math.inf if row.low is None or row.high is None else row.high - row.low


# ---- for the page ----


def lineage_page(lineage: Lineage, known: Mapping[int, Speed], since: Version) -> dict[str, Any]:
    answered = regressions_since(lineage, since)
    return {
        "alone": len(lineage.versions) == 1,
        "choices": [{"slug": v.slug, "name": v.name} for v in reversed(lineage.versions[:-1])],
        "answer": answered,
        "charts": [_chart(lineage, category, since) for category in lineage.categories],
        "versions": _rows(lineage, known),
        "experiments": bool(lineage.experiments),
    }


def _rows(lineage: Lineage, known: Mapping[int, Speed]) -> list[dict[str, Any]]:
    pairs = [(v, parent) for v in lineage.versions if (parent := lineage.parent_of(v))]
    slices = lineage.clear_differences(pairs)
    ratings = {c: lineage.compared(c, pairs) for c in lineage.categories}
    rows = []
    for version in lineage.versions:
        parent = lineage.parent_of(version)
        rows.append(
            {
                "number": lineage.numbers[version.pk],
                "version": version,
                "date": dated(version),
                "released": version.released_on is not None,
                "speed": known.get(version.pk),
                "parent": parent,
                "parent_number": lineage.numbers[parent.pk] if parent else None,
                "changes": [
                    {"rating": c, "slices": slices.on(category, version)}
                    for category, found in ratings.items()
                    for c in found
                    if c.version == version
                ],
            }
        )
    return rows


def percent(number: float) -> str:
    return f"{number:.2f}%"


@dataclass(frozen=True)
class Axis:
    """The part of the ratings that is drawn, and how many versions stand side by side."""

    low: float
    high: float
    columns: int

    def across(self, number: int) -> float:
        return LEFT + (RIGHT - LEFT) * (number - 0.5) / self.columns

    def down(self, rating: float) -> float:
        inside = min(max(rating, self.low), self.high)
        return 100 * (self.high - inside) / (self.high - self.low)

    def x(self, number: int) -> str:
        return percent(self.across(number))

    def y(self, rating: float) -> str:
        return percent(self.down(rating))

    @property
    def lines(self) -> list[dict[str, Any]]:
        span = self.high - self.low
        step = next((s for s in STEPS if span / s <= LINES), STEPS[-1])
        first = math.ceil(self.low / step) * step
        return [
            {"rating": rating, "y": self.y(rating)}
            for rating in range(int(first), math.floor(self.high - 0.08 * span) + 1, step)
        ]


def _axis(rows: Iterable[Standing], columns: int) -> Axis:
    """Wide enough for all ratings and intervals, but for what is far beyond the ratings."""
    rated = [(row.rating, row.low, row.high) for row in rows if row.rating is not None]
    if not rated:
        return Axis(950.0, 1050.0, columns)
    floor = min(rating for rating, _, _ in rated) - BEYOND
    ceiling = max(rating for rating, _, _ in rated) + BEYOND
    ends = [e for row in rated for e in row if e is not None]
    low, high = max(floor, min(ends)), min(ceiling, max(ends))
    margin = max(0.08 * (high - low), (NARROWEST - high + low) / 2)
    return Axis(low - margin, high + margin, columns)


def _chart(lineage: Lineage, category: Category, since: Version) -> dict[str, Any]:
    standings = lineage.standings.get(category.value, {})
    rows = {v.pk: standings[v.pk] for v in lineage.versions if _is_rated(standings.get(v.pk))}
    axis = _axis(rows.values(), len(lineage.versions))
    newer = [(version, since) for version in lineage.newer_than(since)]
    beside = {
        c.version.pk: c.change or "no clear difference" for c in lineage.compared(category, newer)
    }
    tracks, height = _tracks(lineage, category, axis)
    return {
        "category": category,
        "rated": bool(rows),
        "lines": axis.lines,
        "band": _band(lineage, lineage.ranked(category, since), axis) if newer else None,
        "edges": _edges(lineage, rows, axis),
        "points": [_point(lineage.numbers[v.pk], v, rows[v.pk], axis, beside.get(v.pk, ""))
                   for v in lineage.versions if v.pk in rows],
        "columns": [{"number": n, "x": axis.x(n), "since": bool(newer) and v.pk == since.pk}
                    for n, v in enumerate(lineage.versions, 1)],
        "tracks": tracks,
        "plot_height": PLOT_HEIGHT,
        "numbers_y": PLOT_HEIGHT + 0.65 * NUMBERS_HEIGHT,
        "height": PLOT_HEIGHT + NUMBERS_HEIGHT + height,
    }  # fmt: skip


def _band(lineage: Lineage, row: Standing | None, axis: Axis) -> dict[str, str] | None:
    """The interval of the version that is compared with, drawn on to the newest one."""
    if row is None:
        return None
    top = axis.high if row.high is None else row.high
    bottom = axis.low if row.low is None else row.low
    x, y = axis.across(lineage.numbers[row.version_id]), axis.down(top)
    return {
        "x": percent(x),
        "y": percent(y),
        "width": percent(RIGHT - x),
        "height": percent(axis.down(bottom) - y),
    }


def _edges(lineage: Lineage, rows: Mapping[int, Standing], axis: Axis) -> list[dict[str, str]]:
    """From each parent to its child, where both are rated."""
    edges = []
    for version in lineage.versions:
        child, parent = rows.get(version.pk), rows.get(version.parent_id or 0)
        if child is None or parent is None:
            continue
        assert child.rating is not None
        assert parent.rating is not None
        edges.append(
            {
                "x1": axis.x(lineage.numbers[parent.version_id]),
                "y1": axis.y(parent.rating),
                "x2": axis.x(lineage.numbers[child.version_id]),
                "y2": axis.y(child.rating),
            }
        )
    return edges


def _point(number: int, version: Version, row: Standing, axis: Axis, beside: str) -> dict[str, Any]:
    assert row.rating is not None
    return {
        "number": number,
        "version": version,
        "standing": row,
        "x": axis.x(number),
        "y": axis.y(row.rating),
        "y_low": axis.y(axis.low if row.low is None else row.low),
        "y_high": axis.y(axis.high if row.high is None else row.high),
        "interval": spelled(row.low, row.high),
        "sort": "worse" if beside == "worse" else "new" if row.rank_low is None else "ranked",
        "beside": beside,
    }


def _tracks(lineage: Lineage, category: Category, axis: Axis) -> tuple[list[dict[str, Any]], int]:
    """The category's experiments, each on the first track that is free there; and their height."""
    taken: list[int] = []  # the last column of each track
    tracks = []
    judged = [j for j in lineage.experiments if j.experiment.category == category]
    ends = {id(j): sorted((lineage.numbers[j.candidate.pk], lineage.numbers[j.baseline.pk]))
            for j in judged}  # fmt: skip
    for each in sorted(judged, key=lambda j: ends[id(j)]):
        first, last = ends[id(each)]
        track = next((n for n, end in enumerate(taken) if end < first), len(taken))
        taken[track : track + 1] = [last]
        tracks.append(
            {
                "judged": each,
                "candidate": lineage.numbers[each.candidate.pk],
                "baseline": lineage.numbers[each.baseline.pk],
                "x": axis.x(lineage.numbers[each.candidate.pk]),
                "x_from": axis.x(lineage.numbers[each.baseline.pk]),
                "y": PLOT_HEIGHT + NUMBERS_HEIGHT + (track + 0.5) * TRACK_HEIGHT,
            }
        )
    return tracks, len(taken) * TRACK_HEIGHT
