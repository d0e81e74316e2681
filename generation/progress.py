"""What the workers do and how far the clips are, read from the clips themselves.

Seven queries, however many clips, versions and workers there are:

    held        clips in rendering with version and prompt, and what is left of their leases
    finished    ready clips of the last 24 hours, counted by hour and worker
    counts      clips by version, category and state
    asked       distinct prompts and seed slots of active versions, by category
    speeds      median seconds of ready clips, by version and hardware
    reasons     clips with an error, counted by what their sentences have in common
    versions    the catalogue

`held` looks only into the queue's own index, which is as long as the queue. No index leads to
failed clips or to those of a certain hour, so the other five on clips read each clip once: of
100,000 clips, in 0.2 s altogether on two shared cores.

A worker that waits for work writes nothing: it is known only by the clips that it finished.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import (
    Aggregate,
    Count,
    DurationField,
    ExpressionWrapper,
    F,
    FloatField,
    Func,
    Max,
    Min,
    Q,
    TextField,
    Value,
)
from django.db.models.functions import Coalesce, Left, Now, TruncHour
from django.utils import timezone

from generation.categories import Category
from generation.models import Clip, ClipState, Version, VersionState

HOURS = 24
SEEN_WITHIN = timedelta(minutes=10)
REASONS_SHOWN = 10
SHAPE_LENGTH = 200  # in an address it stays far below the 4,094 bytes that servers take
BAR_HEIGHT = 100  # of the tallest bar, in the units of the drawing
# What differs between two failures for the same reason: ids, measured numbers, large numbers.
PARTICULARS = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+\.\d+|\d{4,}"


# Counted in two steps, which takes a seventh of the time of one count of distinct pairs.
ASKED = """
    SELECT category, count(*) FROM (
        SELECT DISTINCT clip.category, clip.prompt_id, clip.seed_slot FROM generation_clip clip
        JOIN generation_version version ON version.id = clip.version_id
        WHERE version.state = 'active'
    ) asked GROUP BY category
"""


class Median(Aggregate):
    function = "percentile_cont"
    name = "median"
    template = "%(function)s(0.5) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = FloatField()


def first_line(expression: Any) -> Func:
    text = Func(expression, Value(" \n"), function="btrim", output_field=TextField())
    return Func(text, Value("\n"), Value(1), function="split_part", output_field=TextField())


def shape_of_error() -> Left:
    """What the errors of one reason have in common: the first line without its particulars."""
    general = Func(
        F("error"), Value(PARTICULARS), Value("…"), Value("g"),
        function="regexp_replace", output_field=TextField(),
    )  # fmt: skip
    return Left(first_line(general), SHAPE_LENGTH)


def spell(seconds: float) -> str:
    """A stretch of time as people say it, in at most two units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} days {hours} h" if hours else f"{days} days"


@dataclass(frozen=True)
class Holding:
    """A clip in a worker's hands, and how long the worker may still be silent."""

    clip: Clip
    left: float  # seconds; negative once the lease has run out

    @property
    def alive(self) -> bool:
        return self.left > 0

    @property
    def lease(self) -> str:
        if self.alive:
            return f"expires in {spell(self.left)}"
        active = self.clip.version.state == VersionState.ACTIVE
        until = "" if active else f" once {self.clip.version} is active again"
        return (
            f"ran out {spell(-self.left)} ago: the worker is taken for dead, and another takes "
            f"the clip over{until}"
        )


@dataclass(frozen=True)
class Resting:
    """A worker that holds nothing and finished a clip not long ago."""

    worker: str
    since: float  # seconds

    @property
    def words(self) -> str:
        return f"holds no clip; finished its last {spell(self.since)} ago"


@dataclass(frozen=True)
class Speed:
    """The median time of rendering and encoding a clip on the hardware that made most of them."""

    seconds: float
    hardware: str


@dataclass
class Line:
    """One version's clips by state, and when the waiting ones may be done."""

    version: Version
    speed: Speed | None
    workers: int
    states: Counter[str] = field(default_factory=Counter)

    @property
    def seconds_left(self) -> float | None:
        """None if it can't be known, 0 if nothing of it will be rendered."""
        if not self.states[ClipState.WAITING] or self.version.state != VersionState.ACTIVE:
            return 0
        if self.speed is None or not self.workers:
            return None
        return self.states[ClipState.WAITING] * self.speed.seconds / self.workers

    @property
    def finish(self) -> str:
        if not self.states[ClipState.WAITING]:
            return "nothing waits"
        if self.version.state != VersionState.ACTIVE:
            return f"not rendered while {self.version.get_state_display().lower()}"
        if self.speed is None:
            return f"unknown: nothing of {self.version} was rendered yet"
        return finish_in_words(self.seconds_left)


def finish_in_words(seconds: float | None) -> str:
    if seconds is None:
        return f"unknown: no worker was seen for {spell(SEEN_WITHIN.total_seconds())}"
    return f"about {spell(seconds)}"


@dataclass(frozen=True)
class Hour:
    start: datetime
    count: int
    height: int
    position: int

    @property
    def x(self) -> int:
        return self.position * 10 + 1

    @property
    def y(self) -> int:
        return BAR_HEIGHT - self.height


@dataclass(frozen=True)
class Reason:
    """Failures whose sentences differ only in particulars; `sentence` is one of them."""

    shape: str
    sentence: str
    failed: int
    again: int
    newest: datetime


@dataclass(frozen=True)
class Cell:
    """One version in one category: `ready` of `asked` clips, `unasked` that others were asked."""

    category: Category
    ready: int
    asked: int
    unasked: int

    @property
    def missing(self) -> int:
        return self.asked - self.ready


@dataclass(frozen=True)
class Coverage:
    version: Version
    cells: list[Cell | None]  # one for each category; None where the version makes no clips


@dataclass(frozen=True)
class Progress:
    at: datetime
    held: list[Holding]
    resting: list[Resting]
    workers: int
    lines: list[Line]
    hours: list[Hour]
    reasons: list[Reason]
    more_reasons: bool  # than are shown
    coverage: list[Coverage]
    states: Counter[str]

    @property
    def finished(self) -> int:
        return sum(hour.count for hour in self.hours)

    @property
    def busiest(self) -> int:
        return max(hour.count for hour in self.hours)

    @property
    def finish(self) -> str:
        """For the whole queue. Workers are shared, so the versions' times add up."""
        if not self.states[ClipState.WAITING]:
            return "nothing waits"
        active = [line for line in self.lines if line.version.state == VersionState.ACTIVE]
        waiting = [line for line in active if line.states[ClipState.WAITING]]
        if not waiting:
            return "no version that waits is active"
        if unknown := next((line for line in waiting if line.seconds_left is None), None):
            return unknown.finish
        return finish_in_words(sum(line.seconds_left or 0 for line in waiting))


def read_progress() -> Progress:
    """The whole page's facts, in the seven queries listed above."""
    now = timezone.now()
    held = _held()
    finished = _finished(now)
    reasons = _reasons()
    resting, workers = _workers(now, held, finished)
    counts = {
        (version, category, state): count
        for version, category, state, count in Clip.objects.values_list(
            "version_id", "category", "state"
        ).annotate(count=Count("pk"))
    }
    versions = list(Version.objects.order_by("name"))
    lines = _lines(versions, counts, workers)
    states: Counter[str] = Counter()
    for (_, _, state), count in counts.items():
        states[state] += count
    return Progress(
        at=now,
        held=held,
        resting=resting,
        workers=workers,
        lines=lines,
        hours=_hours(now, finished),
        reasons=reasons[:REASONS_SHOWN],
        more_reasons=len(reasons) > REASONS_SHOWN,
        coverage=_coverage(versions, counts),
        states=states,
    )


def _held() -> list[Holding]:
    """By worker's name. What is left of a lease is told by the database's clock, as leases are."""
    clips = (
        Clip.objects.filter(state=ClipState.RENDERING)
        .exclude(version__backend="imported")  # whoever imports is no worker
        .select_related("version", "prompt")
        .annotate(
            left=ExpressionWrapper(F("lease_expires_at") - Now(), output_field=DurationField())
        )
        .order_by("worker", "pk")
    )
    return [Holding(clip, clip.left.total_seconds()) for clip in clips]


@dataclass(frozen=True)
class _Finished:
    hour: datetime
    worker: str
    count: int
    last: datetime


def _finished(now: datetime) -> list[_Finished]:
    ready = Clip.objects.filter(state=ClipState.READY, ready_at__gte=_first_hour(now))
    rows = (
        ready.exclude(version__backend="imported")
        .annotate(hour=TruncHour("ready_at"))
        .values("hour", "worker")
        .annotate(count=Count("pk"), last=Max("ready_at"))
    )
    return [_Finished(**row) for row in rows]


def _hour_of(now: datetime) -> datetime:
    return timezone.localtime(now).replace(minute=0, second=0, microsecond=0)


def _first_hour(now: datetime) -> datetime:
    return _hour_of(now) - timedelta(hours=HOURS - 1)


def _workers(
    now: datetime, held: list[Holding], finished: list[_Finished]
) -> tuple[list[Resting], int]:
    """Those that hold nothing now, and how many were seen at all.

    Workers on one machine share its name: a name counts once for each clip it holds.
    """
    busy = Counter(holding.clip.worker for holding in held if holding.alive)
    silent = {holding.clip.worker for holding in held} - set(busy)
    last: dict[str, datetime] = {}
    for row in finished:
        if row.last > now - SEEN_WITHIN and row.worker not in busy and row.worker not in silent:
            last[row.worker] = max(row.last, last.get(row.worker, row.last))
    resting = [
        Resting(worker, max(0.0, (now - moment).total_seconds()))
        for worker, moment in sorted(last.items())
    ]
    return resting, busy.total() + len(resting)


def _speeds() -> dict[int, Speed]:
    rows = (
        Clip.objects.filter(state=ClipState.READY, render_seconds__isnull=False)
        .values("version_id", "hardware")
        .annotate(
            seconds=Median(F("render_seconds") + Coalesce("encode_seconds", 0.0)),
            count=Count("pk"),
        )
        .order_by("count", "hardware")  # the most frequent hardware comes last and stays
    )
    return {row["version_id"]: Speed(row["seconds"], row["hardware"]) for row in rows}


def _lines(
    versions: Iterable[Version], counts: dict[tuple[int, str, str], int], workers: int
) -> list[Line]:
    """Active versions, and others that have anything but ready clips."""
    speeds = _speeds()
    lines = {v.pk: Line(v, speeds.get(v.pk), workers) for v in versions}
    for (version, _, state), count in counts.items():
        lines[version].states[state] += count
    return [
        line
        for line in lines.values()
        if line.version.state == VersionState.ACTIVE or set(line.states) - {ClipState.READY.value}
    ]


def _hours(now: datetime, finished: list[_Finished]) -> list[Hour]:
    """The last 24 by the clock, the one that runs included."""
    counts: Counter[datetime] = Counter()
    for row in finished:
        # The database's clock may be a little ahead of ours.
        counts[min(row.hour, _hour_of(now))] += row.count
    most = max(counts.values(), default=1)
    starts = [_first_hour(now) + timedelta(hours=n) for n in range(HOURS)]
    return [
        Hour(start, counts[start], round(BAR_HEIGHT * counts[start] / most), position)
        for position, start in enumerate(starts)
    ]


def _reasons() -> list[Reason]:
    """Most frequent first, one more than is shown.

    A clip that has an error and is not failed is tried again.
    """
    failed = Q(state=ClipState.FAILED)
    rows = (
        Clip.objects.exclude(error="")
        .annotate(shape=shape_of_error())
        .values("shape")
        .annotate(
            sentence=Min(first_line(F("error"))),
            failed=Count("pk", filter=failed),
            again=Count("pk", filter=~failed),
            newest=Max("created_at"),
        )
        .order_by("-failed", "-again", "shape")
    )
    return [Reason(**row) for row in rows[: REASONS_SHOWN + 1]]


def _coverage(
    versions: Iterable[Version], counts: dict[tuple[int, str, str], int]
) -> list[Coverage]:
    with connection.cursor() as cursor:
        cursor.execute(ASKED)
        of_anybody = dict(cursor.fetchall())
    covered = []
    for version in versions:
        if version.state != VersionState.ACTIVE:
            continue
        cells: list[Cell | None] = []
        for category in Category:
            by_state = {state: counts.get((version.pk, category, state), 0) for state in ClipState}
            asked = sum(by_state.values())
            makes = asked or category in version.categories
            unasked = of_anybody.get(category.value, 0) - asked
            cell = Cell(category, by_state[ClipState.READY], asked, unasked)
            cells.append(cell if makes else None)
        covered.append(Coverage(version, cells))
    return covered
