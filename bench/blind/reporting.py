"""Last step: the tables, printed and written into the docs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.blind.classifying import FactTable, classify, fact_table
from bench.blind.fetching import Received
from bench.blind.importing import RealClip
from bench.blind.versions import BLIND_SEED, MADE_UP_VERSIONS, BlindPlan, Facts, Ints
from bench.markers import METHODOLOGY, around_markers

ALLOWED = 0.05  # above chance, without pixels
RECEIVED = ("headers", "container", "codec", "timings", "sizes")
JUDGED = (*RECEIVED, "everything")
BLIND_MARKERS = "<!-- blind:begin -->", "<!-- blind:end -->"


def fact_tables(
    reads: Sequence[Mapping[str, Facts]], masters: Sequence[Facts], prompts: Ints
) -> dict[str, FactTable]:
    """What is set against each other, in the order in which it is printed."""

    def of(*groups: str) -> FactTable:
        return fact_table([{n: v for g in groups for n, v in r[g].items()} for r in reads], prompts)

    return {
        **{group: of(group) for group in RECEIVED},
        "everything": of(*RECEIVED),
        "lengths of codes inside": of("coded"),
        "pixels and sound": of("pixels"),
        "both": of("coded", "pixels"),
        "control: the masters": fact_table(masters, prompts),
    }


def shuffled_within(y: Ints, prompts: Ints, rng: np.random.Generator) -> Ints:
    """The versions' names, dealt again among the clips of each prompt."""
    dealt = y.copy()
    for prompt in np.unique(prompts):
        dealt[prompts == prompt] = rng.permutation(y[prompts == prompt])
    return dealt


def report_category(
    category: str, received: Sequence[Received], reads: Any, masters: Any, pool: Any
) -> tuple[list[str], list[str]]:
    """Print one category's table; return what did not pass, in words, and rows for the docs."""
    kinds = sorted({r.version for r in received})
    k, y = len(kinds), np.array([kinds.index(r.version) for r in received])
    prompts = np.array([r.prompt for r in received])
    of_master = [masters[r.prompt][category, r.version] for r in received]
    every = fact_tables(reads, of_master, prompts)
    jobs = [
        pool.submit(classify, title, data, y, prompts, k, title in JUDGED)
        for title, data in every.items()
    ]
    dealt = shuffled_within(y, prompts, np.random.default_rng(BLIND_SEED))
    control = ("control: names shuffled", every["everything"], dealt, prompts, k, False)
    jobs.append(pool.submit(classify, *control))
    chance, failed, rows = 1 / k, [], []
    target = chance + ALLOWED
    print(
        f"\n{category}: {k} versions, {len(y) // k} clips of each; chance {chance:.1%}, "
        f"target {target:.1%}"
    )
    print(f"{'':<28}{'named right':>12}  {'95 % interval':<17}{'differ':>7}{'same':>6}")
    for job in jobs:
        title, found = job.result()
        word = ""
        if title in JUDGED:
            word = "PASS" if found.high <= target else "UNSURE"
            word = "OVER" if found.accuracy > target else word
            failed += [] if word == "PASS" else [f"{category} {title} {found.accuracy:.1%} {word}"]
        interval = f"{found.low:.1%} to {found.high:.1%}"
        rows.append(f"| {category} | {title} | {found.accuracy:.1%} | {interval} | {word or '–'} |")
        print(
            f"{title:<28}{found.accuracy:>12.1%}  {interval:<17}{found.data.differing:>7}"
            f"{found.data.fixed:>6}  {word:<6} {found.used}",
            flush=True,
        )
        if word == "OVER":
            for family, lost in sorted(found.losses.items(), key=lambda item: -item[1])[:5]:
                print(f"    {lost * -100:+6.1f} points without {family}")
    return failed, rows


def write_down(plan: BlindPlan, rows: Sequence[str], real: Sequence[RealClip]) -> None:
    """Put the tables into the docs, between their marks."""
    chance = 1 / len(MADE_UP_VERSIONS)
    table = [
        f"{len(MADE_UP_VERSIONS)} versions, {plan.clips} clips of each in a category; "
        f"chance {chance:.1%}, target {chance + ALLOWED:.1%}.",
        "",
        "| category | what is looked at | named right | 95 % interval | |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"At the real size, {len(real)} clips: bytes of a file and of its poster.",
        "",
        "| aspect | seconds | sound | file | poster |",
        "| --- | --- | --- | --- | --- |",
        *sorted(
            {
                f"| {clip.aspect} | {clip.seconds:g} | {'yes' if clip.audio else 'no'} | "
                f"{clip.length:,} | {clip.poster_length:,} |"
                for clip in real
            }
        ),
    ]
    before, after = around_markers(METHODOLOGY, *BLIND_MARKERS)
    METHODOLOGY.write_text("\n".join([before.rstrip("\n"), *table, after]), encoding="utf-8")
