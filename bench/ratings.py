"""How right and how fast the ratings are: `make bench-ratings`.

Five parts, on votes drawn from known strengths with fixed seeds:

i    the ratings beside those of two other libraries, evalica and arena-rank
ii   the vote bootstrap beside theirs
iii  the headline interval: seconds and memory
iv   seconds against the number of votes; writes docs/ratings-speed.md and its plot
v    the refit of a category from PostgreSQL when 1,000 votes have come in

Whatever is timed runs in a process of its own. Times on a shared machine wander: a target is
met or not by a margin, and a ratio tells more than a second does.
"""

import argparse
import datetime
import json
import math
import multiprocessing
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from scipy.special import expit

from bench.servers import own_servers
from ratings.elo_scale import ELO_PER_LOGIT, MEAN_ELO
from ratings.stats.bootstrap import rating_interval, two_way_bootstrap, vote_bootstrap
from ratings.stats.bradley_terry import fit
from ratings.stats.comparisons import Comparisons, Outcome

RATINGS_SEED = 20_261_122
VERSION_COUNT, PROMPT_COUNT, VOTES_EACH = 100, 500, 20
VOTE_COUNTS = (10_000, 100_000, 1_000_000, 10_000_000)
MILLION = 1_000_000
BENCH_REPLICATES = 1000
RUNS = 3
PEER_SECONDS = 60
NEW_VOTES = 1000
AGREEMENT = 0.01  # Elo points
VOTE_BOOTSTRAP_SECONDS, HEADLINE_SECONDS, HEADLINE_BYTES = 1.0, 10.0, 1e9
REFIT_SECONDS = {1_000_000: 10.0, 10_000_000: 60.0}

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(sys.prefix) / "peers" / "bin" / "python"

P = ParamSpec("P")
T = TypeVar("T")


# --- votes ------------------------------------------------------------------------------------


def save_votes(path: Path, size: int, versions: int = VERSION_COUNT) -> None:
    """Draw votes from known strengths, a tenth of them ties, and save their columns."""
    rng = np.random.default_rng([RATINGS_SEED, size])
    strength = rng.normal(0.0, 150.0, versions) / ELO_PER_LOGIT
    a = rng.integers(versions, size=size)
    b = (a + rng.integers(1, versions, size=size)) % versions
    a_wins = rng.random(size) < expit(strength[a] - strength[b])
    outcome = np.where(a_wins, Outcome.A, Outcome.B)
    outcome[rng.random(size) < 0.1] = Outcome.TIE
    voter = rng.integers(max(1, size // VOTES_EACH), size=size)
    prompt = rng.integers(PROMPT_COUNT, size=size)
    np.savez(path, a=a, b=b, outcome=outcome, voter=voter, prompt=prompt)


def columns_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as columns:
        return dict(columns)


def comparisons_of(columns: dict[str, np.ndarray]) -> Comparisons:
    return Comparisons(**columns, n_versions=int(columns["a"].max()) + 1)


# --- what is measured, each in a fresh process --------------------------------------------------


class Steps(NamedTuple):
    """Seconds of each step from votes in memory."""

    collapse: float
    fit: float
    vote_bootstrap: float


class Headline(NamedTuple):
    seconds: float
    bytes: int


class Refit(NamedTuple):
    """Seconds of the first refit and of the one after the new votes; memory of the process."""

    first: float
    again: float
    bytes: int


def centred_ratings(path: Path, decided: bool) -> np.ndarray:
    votes = comparisons_of(columns_of(path))
    if decided:
        votes = votes.select(votes.outcome != Outcome.TIE)
    return fit(votes, prior=math.inf).elo - MEAN_ELO


def moved_by_prior(path: Path) -> float:
    votes = comparisons_of(columns_of(path))
    return float(np.abs(fit(votes).elo - fit(votes, prior=math.inf).elo).max())


def steps(path: Path) -> Steps:
    votes = comparisons_of(columns_of(path))
    begin = time.perf_counter()
    counts = votes.collapse()
    collapsed = time.perf_counter()
    fit(counts)
    fitted = time.perf_counter()
    vote_bootstrap(votes, rng=np.random.default_rng(RATINGS_SEED), replicates=BENCH_REPLICATES)
    end = time.perf_counter()
    return Steps(collapsed - begin, fitted - collapsed, end - fitted)


def headline(path: Path) -> Headline:
    """From the columns in memory to the interval."""
    columns = columns_of(path)
    begin = time.perf_counter()
    votes = comparisons_of(columns)
    ratings = fit(votes)
    draws = two_way_bootstrap(
        votes, rng=np.random.default_rng(RATINGS_SEED), replicates=BENCH_REPLICATES
    )
    rating_interval(ratings, draws)
    return Headline(time.perf_counter() - begin, peak_bytes())


def peak_bytes() -> int:
    """Most memory that this process has held, in bytes; Linux counts it in kilobytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def fresh(what: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it in a new process, so that neither memory nor caches of an earlier run count.

    A new process inherits the most memory its parent ever held, so votes are drawn and kept in
    such processes too and this one stays small.
    """
    context: Any = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(what, *args, **kwargs).result()


# --- PostgreSQL ---------------------------------------------------------------------------------

# A voter's id follows from its number, so no join is needed to draw one.
INSERT_VOTES = """
WITH drawn AS MATERIALIZED (
    SELECT md5('voter ' || floor(random() * {voters})::int)::uuid AS voter,
        floor(random() * {prompts})::int AS prompt, floor(random() * {versions})::int AS l,
        1 + floor(random() * ({versions} - 1))::int AS step, random() AS luck
    FROM generate_series(1, {count})
), pairs AS (SELECT *, (l + step) % {versions} AS r FROM drawn)
INSERT INTO arena_vote (battle_id, voter_id, category, version_a_id, version_b_id,
    prompt_id, choice, kind, simulated, cast_at)
SELECT uuidv7(), voter, 't2v-silent', {first_version} + l, {first_version} + r,
    {first_prompt} + prompt, CASE WHEN luck < 0.1 THEN 'tie'
    WHEN luck < 0.1 + 0.9 / (1 + exp((r - l) / 40.0)) THEN 'a' ELSE 'b' END, 'arena',
    false, now()
FROM pairs
"""
INSERT_VOTERS = """
INSERT INTO arena_voter (id, simulated, created_at)
SELECT md5('voter ' || n)::uuid, false, now() FROM generate_series(0, {voters} - 1) n
"""
# The votes have no battles, and ten million rows are checked and indexed quicker at once.
FOREIGN_KEYS = """
SELECT format('ALTER TABLE arena_vote DROP CONSTRAINT %I', conname), NULL FROM pg_constraint
WHERE conrelid = 'arena_vote'::regclass AND contype = 'f'
"""
INDEXES = """
SELECT format('DROP INDEX %I', indexname), indexdef FROM pg_indexes
WHERE tablename = 'arena_vote' AND indexname NOT IN (SELECT conname FROM pg_constraint)
"""


def refit_from_postgresql(size: int) -> Refit:
    with own_servers():
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        _fill(size)
        return _timed_refits(size)


def _fill(size: int) -> None:
    from django.db import connection

    from generation.models import Model, Prompt, Version

    model = Model.objects.create(slug="m", name="M", lab="L", weights="open")
    facts = {"width": 32, "height": 32, "fps": 8, "min_seconds": 1, "max_seconds": 2}
    Version.objects.bulk_create(
        Version(
            model=model, slug=f"v{i}", name=f"V{i}", state="active", backend="scenes",
            categories=["t2v-silent"], **facts,
        )
        for i in range(VERSION_COUNT)
    )  # fmt: skip
    Prompt.objects.bulk_create(
        Prompt(key=f"p{i}", text=f"prompt {i}", sounds=["silent"], aspect="1:1", seconds=1)
        for i in range(PROMPT_COUNT)
    )
    with connection.cursor() as cursor:
        cursor.execute(INSERT_VOTERS.format(voters=size // VOTES_EACH))
        cursor.execute(FOREIGN_KEYS)
        keys = cursor.fetchall()
        cursor.execute(INDEXES)
        indexes = cursor.fetchall()
        for drop, _ in keys + indexes:
            cursor.execute(drop)
        cursor.execute("SELECT setseed(0.5)")
    _cast(size, voters=size // VOTES_EACH)
    with connection.cursor() as cursor:
        for _, make in indexes:
            cursor.execute(make)
        cursor.execute("VACUUM ANALYZE")


def _cast(count: int, voters: int) -> None:
    from django.db import connection

    from generation.models import Prompt, Version

    with connection.cursor() as cursor:
        cursor.execute(
            INSERT_VOTES.format(
                count=count,
                voters=voters,
                prompts=PROMPT_COUNT,
                versions=VERSION_COUNT,
                first_version=Version.objects.earliest("pk").pk,
                first_prompt=Prompt.objects.earliest("pk").pk,
            )
        )


def _timed_refits(size: int) -> Refit:
    from generation.catalogue.categories import Category
    from ratings.boards.refit import refit

    seconds = []
    for stored in (size, size + NEW_VOTES):
        begin = time.perf_counter()
        board = refit(Category.T2V_SILENT)
        seconds.append(time.perf_counter() - begin)
        known = board.standings.filter(low__isnull=False, high__isnull=False).count()
        assert (board.votes, known) == (stored, VERSION_COUNT)
        _cast(NEW_VOTES, voters=size // VOTES_EACH)
    return Refit(seconds[0], seconds[1], peak_bytes())


# --- the peers ----------------------------------------------------------------------------------


def peer(task: str, votes: Path, *, limit: float | None, full: bool = False) -> list[Any]:
    """What a peer had found when it was done or its time was up."""
    command = [str(PEERS), str(ROOT / "bench" / "peers.py"), task, str(votes)]
    process = subprocess.Popen(
        command + ["full"] * full,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that its children end with it
    )
    try:
        out, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
    else:
        if process.returncode:
            sys.exit(f"{task} failed:\n{errors}")
    # The last line may have been cut off.
    return [json.loads(line) for line in out.splitlines(keepends=True) if line.endswith("\n")]


def seconds_for_all(found: Sequence[dict[str, float]]) -> float:
    """Seconds for all replicates, on the line through the last two numbers that were finished."""
    *earlier, last = found
    if last["replicates"] == BENCH_REPLICATES:
        return last["seconds"]
    before = earlier[-1] if earlier else {"replicates": 0, "seconds": 0.0}
    each = (last["seconds"] - before["seconds"]) / (last["replicates"] - before["replicates"])
    return last["seconds"] + each * (BENCH_REPLICATES - last["replicates"])


# --- the parts ----------------------------------------------------------------------------------


def compare_ratings(folder: Path, options: argparse.Namespace) -> None:
    rows = []
    for size, versions in ((2000, 20), (MILLION, VERSION_COUNT)):
        path = folder / f"agreement-{size}.npz"
        fresh(save_votes, path, size, versions)
        ours = {decided: fresh(centred_ratings, path, decided) for decided in (False, True)}
        for library in ("evalica", "arena-rank"):
            for found in peer(f"{library}-ratings", path, limit=None):
                decided = found["name"] == "newman"
                most = float(np.abs(np.array(found["elo"]) - ours[decided]).max())
                what = f"{library}, {found['name']}{', without the ties' * decided}"
                rows.append([f"{size:,}", versions, what, f"{most:.1e}", verdict(most, AGREEMENT)])
        moved = fresh(moved_by_prior, path)
        rows.append([f"{size:,}", versions, "our own fit with the default prior", f"{moved:.2f}"])
    show(
        "i. Plain maximum likelihood, mean zero: largest difference from our rating "
        f"(target {AGREEMENT} Elo)",
        ["votes", "versions", "beside", "Elo", ""],
        rows,
    )


def bootstraps(folder: Path, options: argparse.Namespace) -> None:
    path = million_votes(folder)
    ours = statistics.median(fresh(steps, path).vote_bootstrap for _ in range(RUNS))
    rows = [["Photofinish", BENCH_REPLICATES, f"{ours:.2f}", f"{ours:.2f}", "1"]]
    for task, what in {
        "evalica-refits": "evalica, refits of votes added up and reweighted",
        "evalica-bootstrap": "evalica.bootstrap, percentile",
        "arena-rank-bootstrap": "arena-rank, ci_method bootstrap",
    }.items():
        limit = None if options.peers_full else options.peer_seconds
        found = peer(task, path, limit=limit, full=options.peers_full)
        if not found:
            rows.append([what, "none", f"over {limit:.0f}", "", ""])
            continue
        whole = seconds_for_all(found)
        last = found[-1]
        rows.append(
            [
                what,
                last["replicates"],
                f"{last['seconds']:.1f}",
                f"{whole:,.1f}{' (line)' * (last['replicates'] < BENCH_REPLICATES)}",
                f"{whole / ours:,.0f}",
            ]
        )
    show(
        f"ii. {BENCH_REPLICATES:,} vote-bootstrap replicates, {VERSION_COUNT} versions, "
        f"{MILLION:,} votes: {ours:.2f} s, target {VOTE_BOOTSTRAP_SECONDS} s "
        f"{verdict(ours, VOTE_BOOTSTRAP_SECONDS)}",
        ["", "replicates run", "seconds", f"seconds for {BENCH_REPLICATES:,}", "times ours"],
        rows,
    )
    print(
        "(line): on the straight line through the last two numbers of replicates that it reached."
    )


def headline_interval(folder: Path, options: argparse.Namespace) -> None:
    runs = [fresh(headline, million_votes(folder)) for _ in range(RUNS)]
    seconds = statistics.median(run.seconds for run in runs)
    most = max(run.bytes for run in runs)
    show(
        f"iii. The headline interval: {MILLION:,} votes, {MILLION // VOTES_EACH:,} voters, "
        f"{PROMPT_COUNT} prompts, {VERSION_COUNT} versions, "
        f"{BENCH_REPLICATES:,} replicates of each kind",
        ["", "measured", "target", ""],
        [
            ["seconds", f"{seconds:.1f}", HEADLINE_SECONDS, verdict(seconds, HEADLINE_SECONDS)],
            ["peak memory, GB", f"{most / 1e9:.2f}", HEADLINE_BYTES / 1e9,
             verdict(most, HEADLINE_BYTES)],
        ],
    )  # fmt: skip


def growth(folder: Path, options: argparse.Namespace) -> None:
    measured: list[tuple[Steps, Headline]] = []
    for size in VOTE_COUNTS:
        path = folder / f"growth-{size}.npz"
        fresh(save_votes, path, size)
        step_runs = [fresh(steps, path) for _ in range(RUNS)]
        runs = [fresh(headline, path) for _ in range(RUNS)]
        median = Steps(*(statistics.median(column) for column in zip(*step_runs, strict=True)))
        seconds = statistics.median(run.seconds for run in runs)
        measured.append((median, Headline(seconds, max(run.bytes for run in runs))))
        path.unlink()
    header = ["votes", "collapse", "fit", "vote bootstrap", "headline interval", "peak memory"]
    rows = [
        [f"{size:,}", *(f"{s:.3f} s" for s in of_steps), f"{head.seconds:.2f} s",
         f"{head.bytes / 1e9:.2f} GB"]
        for size, (of_steps, head) in zip(VOTE_COUNTS, measured, strict=True)
    ]  # fmt: skip
    show("iv. Time against the number of votes", header, rows)
    curves = {name: [getattr(s, name) for s, _ in measured] for name in Steps._fields}
    curves["headline interval"] = [head.seconds for _, head in measured]
    data = {
        "sizes": VOTE_COUNTS,
        "seconds": {name.replace("_", " "): values for name, values in curves.items()},
    }
    plot = options.docs / "ratings-speed.svg"
    command = [str(PEERS), str(ROOT / "bench" / "peers.py"), "plot", str(plot)]
    subprocess.run(command, input=json.dumps(data), text=True, check=True)
    (options.docs / "ratings-speed.md").write_text(SPEED_PAGE.format(
        versions=VERSION_COUNT, prompts=PROMPT_COUNT, votes_each=VOTES_EACH,
        replicates=BENCH_REPLICATES, rounds=RUNS, cores=cores(),
        date=datetime.date.today().isoformat(),
        table=markdown_table(header, rows),
    ))  # fmt: skip


SPEED_PAGE = """\
# How fast the ratings are

Written by `make bench-ratings`. Votes are simulated from known strengths: {versions} versions,
{prompts} prompts, and {votes_each} votes per voter on average. *Collapse* counts the votes per pair
and outcome. *Fit* computes one set of ratings. The *vote bootstrap* computes {replicates:,} sets
from resampled votes. The *headline interval* goes from the votes in memory to the interval
that a leaderboard shows, with {replicates:,} resamplings of the voters and as many of the prompts.
Each number is the median of {rounds} runs, each in its own process. Peak memory is that of the
whole process. {cores} cores, {date}.

{table}

![Seconds against votes, both axes logarithmic](ratings-speed.svg)
"""


def refits(folder: Path, options: argparse.Namespace) -> None:
    rows = []
    for size in options.votes or REFIT_SECONDS:
        found = fresh(refit_from_postgresql, size)
        target = REFIT_SECONDS.get(size)
        rows.append(
            [
                f"{size:,}",
                f"{found.first:.1f}",
                f"{found.again:.1f}",
                "" if target is None else target,
                "" if target is None else verdict(found.again, target),
                f"{found.bytes / 1e9:.2f}",
            ]
        )
    show(
        f"v. Refit from PostgreSQL, intervals included: {VERSION_COUNT} versions, "
        f"{PROMPT_COUNT} prompts, {VOTES_EACH} votes of each voter",
        ["votes stored", "first refit, s", f"refit after {NEW_VOTES:,} new votes, s", "target, s",
         "", "peak memory, GB"],
        rows,
    )  # fmt: skip


PARTS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "i": compare_ratings,
    "ii": bootstraps,
    "iii": headline_interval,
    "iv": growth,
    "v": refits,
}
WITH_PEERS = {"i", "ii", "iv"}  # the plot is drawn by their Python too


def million_votes(folder: Path) -> Path:
    path = folder / "million.npz"
    if not path.exists():
        fresh(save_votes, path, MILLION)
    return path


def verdict(value: float, target: float) -> str:
    return "PASS" if value <= target else "OVER"


def cores() -> int:
    return os.cpu_count() or 1


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n{title}\n\n{markdown_table(header, rows)}", flush=True)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = [list(map(str, row)) + [""] * (len(header) - len(row)) for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(map(str.ljust, row, widths)) + " |"
        for row in [cells[0], ["-" * max(3, width) for width in widths], *cells[1:]]
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help="parts, as i,iii")
    parser.add_argument(
        "--votes", type=int, action="append", help="part v with so many votes; may be repeated"
    )
    parser.add_argument(
        "--peer-seconds", type=float, default=PEER_SECONDS, help="part ii: for each peer"
    )
    parser.add_argument(
        "--peers-full", action="store_true", help="part ii: all replicates, however long it takes"
    )
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where part iv writes")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - PARTS.keys():
        sys.exit(f"There is no part {sorted(unknown)[0]!r}; --only takes {', '.join(PARTS)}.")
    if WITH_PEERS & set(chosen) and not PEERS.exists():
        sys.exit(f"The peers are not installed in {PEERS}; `make bench-ratings` installs them.")
    print(f"{cores()} cores, {datetime.date.today().isoformat()}")
    with tempfile.TemporaryDirectory(prefix="photofinish-bench-") as folder:
        for part in chosen:
            PARTS[part](Path(folder), options)


if __name__ == "__main__":
    main()
