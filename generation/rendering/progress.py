"""What the workers do and how far the clips are, read from the clips and the workers' reports.

Ten queries, however many clips, versions and workers there are:

    pauses      where nothing can be written at the moment
    workers     what each said of itself last
    held        clips in rendering with version and prompt, and what is left of their leases
    finished    ready clips of the last 24 hours, counted by hour
    counts      clips by version, category and state
    asked       distinct prompts and seed slots of active versions, by category
    speeds      median seconds of ready clips, by version and hardware
    reasons     clips with an error, counted by what their sentences have in common
    costs       what was spent on each hosted version, and how many of its orders are out
    versions    the catalogue

None of them reads the table of clips whole: held, finished and reasons look up the few rows that
they want, the other three are answered by an index alone (so they count rows, not keys).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
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
    QuerySet,
    Sum,
    TextField,
    Value,
)
from django.db.models.functions import Coalesce, Left, Now, TruncHour
from django.utils import timezone

from generation.backends.registry import HOSTED, IMPORTED, RENDERED_HERE
from generation.catalogue.categories import Category
from generation.media.pauses import pauses_now
from generation.models import (
    RENDERED_STATES,
    Clip,
    ClipState,
    HostedJob,
    JobState,
    StoragePause,
    Version,
    Worker,
)

HOURS = 24
SILENT_AFTER = timedelta(minutes=1)  # six reports
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
        WHERE version.state IN ('trial', 'active')
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
    """A length of time as people say it, in at most two units."""
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
class ClaimedClip:
    """A clip that a worker has claimed, and how long the worker may still be silent."""

    clip: Clip
    left: float  # seconds; negative once the lease has run out

    @property
    def alive(self) -> bool:
        return self.left > 0

    @property
    def lease(self) -> str:
        if self.alive:
            return f"expires in {spell(self.left)}"
        rendered = self.clip.version.state in RENDERED_STATES
        until = "" if rendered else f" once {self.clip.version} is active again"
        return (
            f"expired {spell(-self.left)} ago: the worker is presumed dead, and another will take "
            f"over the clip{until}"
        )


@dataclass(frozen=True)
class WorkerStatus:
    """A worker, by its last report, and what it holds; one that never reported has no report."""

    name: str
    report: Worker | None
    silent: float  # seconds since the report
    claimed: list[ClaimedClip]

    @property
    def alive(self) -> bool:
        return self.silent < SILENT_AFTER.total_seconds()

    @property
    def capacity(self) -> int:
        """How many clips it can be expected to work on at once."""
        return int(self.alive) if self.report else sum(held.alive for held in self.claimed)

    @property
    def words(self) -> str:
        if self.alive:
            return "idle"
        return f"no report for {spell(self.silent)}: it died or lost its connection to the database"


@dataclass(frozen=True)
class Speed:
    """The median wall time of rendering a clip on the hardware that made most of them.

    Encoding is the arena's own work and no speed of a model, so it is kept separate.
    """

    seconds: float
    encoding: float
    hardware: str


def speeds(clips: QuerySet[Clip]) -> dict[int, Speed]:
    """The speed of each version among these clips."""
    rows = (
        clips.filter(state=ClipState.READY, render_seconds__isnull=False)
        .values("version_id", "version__backend", "hardware")
        .annotate(
            seconds=Median("render_seconds"),
            encoding=Median(Coalesce("encode_seconds", 0.0)),
            count=Count("*"),
        )
        .order_by("count", "hardware")  # the most frequent hardware comes last and stays
    )
    return {
        row["version_id"]: Speed(row["seconds"], row["encoding"], _hardware(row)) for row in rows
    }


def _hardware(row: Mapping[str, Any]) -> str:
    """Times of clips made elsewhere are what their manifest says; the arena measured all others."""
    if row["version__backend"] == IMPORTED:
        return ", ".join(filter(None, [row["hardware"], "as stated"]))
    return str(row["hardware"])


@dataclass
class VersionRow:
    """One version's clips by state, and when the waiting ones may be done."""

    version: Version
    speed: Speed | None
    workers: int
    states: Counter[str] = field(default_factory=Counter)

    @property
    def waits(self) -> bool:
        """For workers of this site; what is hosted or imported is made elsewhere."""
        here = self.version.backend in RENDERED_HERE and self.version.state in RENDERED_STATES
        return here and self.states[ClipState.WAITING] > 0

    @property
    def seconds_left(self) -> float | None:
        """None if it can't be known, 0 if nothing of it will be rendered here."""
        if not self.waits:
            return 0
        if self.speed is None or not self.workers:
            return None
        each = self.speed.seconds + self.speed.encoding
        return self.states[ClipState.WAITING] * each / self.workers

    @property
    def finish(self) -> str:
        if not self.states[ClipState.WAITING]:
            return "nothing waiting"
        if self.version.state not in RENDERED_STATES:
            return f"not rendered while {self.version.get_state_display().lower()}"
        if not self.waits:
            return "not rendered here"
        if self.speed is None:
            return f"unknown: no clip of {self.version} has been rendered yet"
        return finish_in_words(self.seconds_left)


def finish_in_words(seconds: float | None) -> str:
    if seconds is None:
        return "unknown: no active worker"
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
    newest: datetime | None


@dataclass(frozen=True)
class Cost:
    """What a hosted version has spent, in US dollars, orders that are out included."""

    version: Version
    spent: Decimal
    out: int
    ready: int


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
    pauses: list[StoragePause]
    statuses: list[WorkerStatus]
    workers: int
    rows: list[VersionRow]
    hours: list[Hour]
    reasons: list[Reason]
    more_reasons: bool  # than are shown
    coverage: list[Coverage]
    costs: list[Cost]
    states: Counter[str]

    @property
    def spent(self) -> Decimal:
        return sum((cost.spent for cost in self.costs), Decimal(0))

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
            return "nothing waiting"
        waiting = [row for row in self.rows if row.waits]
        if not waiting:
            return "nothing to render here"
        if unknown := next((row for row in waiting if row.seconds_left is None), None):
            return unknown.finish
        return finish_in_words(sum(row.seconds_left or 0 for row in waiting))


def read_progress() -> Progress:
    """The whole page's facts, in the ten queries listed above."""
    now = timezone.now()
    statuses = _worker_statuses(_held())
    workers = sum(status.capacity for status in statuses)
    reasons = _reasons()
    counts = {
        (version, category, state): count
        for version, category, state, count in Clip.objects.values_list(
            "version_id", "category", "state"
        ).annotate(count=Count("*"))
    }
    versions = list(Version.objects.order_by("name"))
    rows = _version_rows(versions, counts, workers)
    states: Counter[str] = Counter()
    for (_, _, state), count in counts.items():
        states[state] += count
    return Progress(
        at=now,
        pauses=pauses_now(),
        statuses=statuses,
        workers=workers,
        rows=rows,
        hours=_hours(now),
        reasons=reasons[:REASONS_SHOWN],
        more_reasons=len(reasons) > REASONS_SHOWN,
        coverage=_coverage(versions, counts),
        costs=_costs(versions, counts),
        states=states,
    )


def _held() -> list[ClaimedClip]:
    """By worker's name. What is left of a lease is told by the database's clock, as leases are."""
    clips = (
        Clip.objects.filter(state=ClipState.RENDERING, version__backend__in=RENDERED_HERE)
        .select_related("version", "prompt")
        .annotate(left=ExpressionWrapper(F("leased_until") - Now(), output_field=DurationField()))
        .order_by("claimed_by", "pk")
    )
    return [ClaimedClip(clip, clip.left.total_seconds()) for clip in clips]


def _worker_statuses(held: list[ClaimedClip]) -> list[WorkerStatus]:
    """By name: all workers that reported, and those that hold clips without having reported."""
    age = ExpressionWrapper(Now() - F("seen_at"), output_field=DurationField())
    reports = {worker.name: worker for worker in Worker.objects.annotate(age=age)}
    claimed: dict[str, list[ClaimedClip]] = {name: [] for name in reports}
    for held_clip in held:
        claimed.setdefault(held_clip.clip.claimed_by, []).append(held_clip)
    return [
        WorkerStatus(name, reports.get(name), _age(reports.get(name)), claimed[name])
        for name in sorted(claimed)
    ]


def _age(report: Any) -> float:
    return report.age.total_seconds() if report else 0.0


def _finished(now: datetime) -> Iterable[tuple[datetime, int]]:
    ready = Clip.objects.filter(state=ClipState.READY, ready_at__gte=_first_hour(now))
    return (
        ready.exclude(version__backend=IMPORTED)
        .annotate(hour=TruncHour("ready_at"))
        .values_list("hour")
        .annotate(count=Count("*"))
    )


def _hour_of(now: datetime) -> datetime:
    return timezone.localtime(now).replace(minute=0, second=0, microsecond=0)


def _first_hour(now: datetime) -> datetime:
    return _hour_of(now) - timedelta(hours=HOURS - 1)


def _version_rows(
    versions: Iterable[Version], counts: dict[tuple[int, str, str], int], workers: int
) -> list[VersionRow]:
    """Versions that are rendered, and others that have anything but ready clips."""
    known = speeds(Clip.objects.all())
    rows = {v.pk: VersionRow(v, known.get(v.pk), workers) for v in versions}
    for (version, _, state), count in counts.items():
        rows[version].states[state] += count
    return [
        row
        for row in rows.values()
        if row.version.state in RENDERED_STATES or set(row.states) - {ClipState.READY.value}
    ]


def _hours(now: datetime) -> list[Hour]:
    """The last 24 by the clock, the one that runs included."""
    counts: Counter[datetime] = Counter()
    for hour, count in _finished(now):
        # The database's clock may be a little ahead of ours.
        counts[min(hour, _hour_of(now))] += count
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
            newest=Max("failed_at"),
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
        if version.state not in RENDERED_STATES:
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


def _costs(versions: Iterable[Version], counts: dict[tuple[int, str, str], int]) -> list[Cost]:
    out = Q(state__in=(JobState.SUBMITTING, JobState.SUBMITTED))
    jobs = {
        version: (spent or Decimal(0), orders)
        for version, spent, orders in HostedJob.objects.values_list("clip__version_id").annotate(
            spent=Sum("cost"), orders=Count("pk", filter=out)
        )
    }
    return [
        Cost(
            version,
            *jobs.get(version.pk, (Decimal(0), 0)),
            ready=sum(counts.get((version.pk, c, ClipState.READY), 0) for c in Category),
        )
        for version in versions
        if version.pk in jobs or (version.backend in HOSTED and version.state != "draft")
    ]
