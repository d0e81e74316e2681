"""`make bench-blind`: the steps in their order."""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from bench.blind.classifying import FOLDS
from bench.blind.fetching import fetch_all
from bench.blind.importing import (
    REAL_KINDS,
    RealClip,
    at_real_size,
    import_prompt,
    prepare_database,
    rewrapped_alike,
    set_up_django,
    told_by_real_size,
)
from bench.blind.reading import read_clip
from bench.blind.reporting import report_category, write_down
from bench.blind.versions import AUDIO, BLIND_SEED, MADE_UP_VERSIONS, SILENT, BlindPlan
from bench.servers import own_servers


def classify_clips(plan: BlindPlan, processes: int) -> tuple[list[str], list[str]]:
    """Make, import, fetch and classify clips; what failed, in words, and rows for the docs."""
    begin = time.perf_counter()
    failed: list[str] = []
    rows: list[str] = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, set_up_django, (plan,)) as pool:
        masters = dict(enumerate(pool.map(partial(import_prompt, plan), range(plan.clips))))
        print(f"{time.perf_counter() - begin:.0f} s to make and import the clips", flush=True)
        tried = range(0, plan.clips, max(1, plan.clips // 10))
        alike = list(pool.map(partial(rewrapped_alike, plan), tried))
        print(f"In another container: {sum(alike)} of {len(alike)} renditions the same bytes.")
        if not all(alike):
            failed.append("the master's container tells OVER")
        for category in (SILENT, AUDIO):
            received = fetch_all(category, np.random.default_rng(BLIND_SEED))
            reads = list(pool.map(read_clip, received, chunksize=20))
            over, more = report_category(category, received, reads, masters, pool)
            failed, rows = failed + over, rows + more
    return failed, rows


def make_real_clips(processes: int) -> list[RealClip]:
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(at_real_size, range(REAL_KINDS * len(MADE_UP_VERSIONS))))


def bench_blind(plan: BlindPlan, processes: int, write: bool) -> None:
    begin = time.perf_counter()
    prepare_database(plan)
    print(f"{plan}; differ: facts that differ between versions' clips of one prompt", flush=True)
    failed, rows = classify_clips(plan, processes)
    real = make_real_clips(processes)
    told = told_by_real_size(real)
    print(
        f"\nAt the real size, of {len(real)} clips, kinds that differ by version: "
        f"{'; '.join(told) or 'none'}."
    )
    if told:
        failed.append("files of the real size OVER")
    print(f"{time.perf_counter() - begin:.0f} s in all.")
    print(f"NOT BLIND: {'; '.join(failed)}." if failed else "PASS: no version can be named.")
    if write:
        write_down(plan, rows, real)


def main() -> None:
    parser = argparse.ArgumentParser(description="Is what a voter's machine receives blind?")
    parser.add_argument("--clips", type=int, default=200, help="of each version")
    parser.add_argument("--quick", type=int, nargs="?", const=40, help="so many instead, 40")
    parser.add_argument("--audio-every", type=int, default=1, help="2: sound for every 2nd")
    parser.add_argument("--scale", type=int, default=4, choices=(1, 2, 4), help="1 is real size")
    parser.add_argument("--seconds", type=float, default=1.0, help="of every rendition")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the tables into the docs")
    given = parser.parse_args()
    plan = BlindPlan(given.quick or given.clips, given.audio_every, given.scale, given.seconds)
    if plan.clips < 4 * FOLDS * plan.audio_every / 2:
        parser.error(f"{plan.clips} clips are too few to learn from: ask for 20 or more.")
    with own_servers():
        bench_blind(plan, given.processes, given.write)


if __name__ == "__main__":
    main()
