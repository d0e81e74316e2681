"""What the worker's path costs over the bare model: `make bench-worker`.

Renders the same clips twice: by calling the backend in a plain process, and through a real Celery
worker with its claims, heartbeats, files and database. What the path adds, encoding apart, is
what a faster pipeline could not win back. The model is Colt with steps enough that one clip takes
more than five seconds here. Both are measured in turns, so a slow minute of a shared machine
slows both.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bench.servers import own_servers

if TYPE_CHECKING:
    from generation.models import Prompt, Version

OVERHEAD_AT_MOST = 0.05
AT_LEAST_SECONDS = 5.0
CATEGORY = "t2v-audio"
COLT_PROMPT = "a big red circle bounces by day"


def make_version(settings: dict[str, Any]) -> "Version":
    """Colt as the catalogue has it, with these settings."""
    from generation.models import Model, Version

    model = Model.objects.create(slug="colt", name="Colt", lab="Photofinish", weights="open")
    fields = ("categories", "width", "height", "fps", "min_seconds", "max_seconds")
    entry = catalogue_entry()
    return Version.objects.create(
        model=model, slug="bench", name="Bench", state="active", backend="colt",
        settings=settings, **{name: entry[name] for name in fields},
    )  # fmt: skip


def catalogue_entry() -> dict[str, Any]:
    from generation.catalogue.entries import CATALOGUE, read_toml

    return next(
        version
        for model in read_toml(CATALOGUE)["model"]
        for version in model["version"]
        if version["slug"] == "colt-2"
    )


def time_bare(prompt: "Prompt", settings: dict[str, Any], slot: int) -> float:
    """Seconds of one clip by the backend alone, in this process."""
    from generation.backends.registry import load_renderer
    from generation.rendering.queue import request_of, seed_of

    request = request_of(prompt, CATEGORY, seed_of(prompt, slot))
    colt = load_renderer("colt")
    begin = time.perf_counter()
    colt.render(settings, request, lambda step, steps: None)
    return time.perf_counter() - begin


def slow_settings(prompt: "Prompt") -> dict[str, Any]:
    """The catalogue's, with steps enough that a clip takes AT_LEAST_SECONDS here."""
    settings = dict(catalogue_entry()["settings"])
    time_bare(prompt, settings, 0)  # loads torch and the weights
    once = time_bare(prompt, settings, 0)
    settings["steps"] = int(settings["steps"] * max(1.0, 1.3 * AT_LEAST_SECONDS / once)) + 1
    return settings


def time_through_worker(
    version: "Version", prompt: "Prompt", first_slot: int, clips: int
) -> list[float]:
    """Seconds from one publication to the next, encoding apart; the first clip warms up."""
    from generation.models import Clip, ClipState
    from generation.rendering.queue import seed_of
    from generation.tasks import render_waiting

    made = Clip.objects.bulk_create(
        Clip(version=version, prompt=prompt, category=CATEGORY, seed_slot=slot,
             seed=seed_of(prompt, slot))
        for slot in range(first_slot, first_slot + clips + 1)
    )  # fmt: skip
    of_round = Clip.objects.filter(pk__in=[clip.pk for clip in made])
    render_waiting.apply_async()
    while of_round.filter(state=ClipState.READY).count() < len(made):
        failed = of_round.filter(state=ClipState.FAILED).first()
        if failed is not None:
            raise SystemExit(f"A clip failed: {failed.error}")
        time.sleep(0.5)
    times = of_round.order_by("ready_at").values_list("ready_at", "encode_seconds")
    return [
        (later - earlier).total_seconds() - (encoding or 0.0)
        for (earlier, _), (later, encoding) in itertools.pairwise(times)
    ]


@contextmanager
def gpu_worker() -> Iterator[None]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "arena", "worker", "-Q", "gpu", "-P", "prefork",
         "-c", "1", "--loglevel", "ERROR"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(timeout=120)


def print_overhead(steps: int, bare: list[float], path: list[float]) -> bool:
    """Whether the path adds no more than OVERHEAD_AT_MOST."""
    overhead = statistics.median(path) / statistics.median(bare) - 1
    print(f"Colt, {steps} steps, {len(bare)} clips each way; medians in seconds")
    for name, seconds in (("the model alone", bare), ("through the worker", path)):
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        print(f"{name:<25} {statistics.median(seconds):8.2f}   {spread}")
    good = overhead <= OVERHEAD_AT_MOST
    print(
        f"the path adds {overhead:+.1%}, target {OVERHEAD_AT_MOST:.0%} at most: "
        f"{'PASS' if good else 'OVER'}"
    )
    return good


def bench_worker(clips: int, rounds: int) -> bool:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)

    from generation.models import Prompt

    prompt = Prompt.objects.create(
        key="bench", text=COLT_PROMPT, sounds=["audio"], aspect="1:1",
        seconds=catalogue_entry()["max_seconds"],
    )  # fmt: skip
    settings = slow_settings(prompt)
    version = make_version(settings)
    bare: list[float] = []
    path: list[float] = []
    with gpu_worker():
        for number in range(rounds):
            bare += [time_bare(prompt, settings, slot) for slot in range(clips)]
            path += time_through_worker(version, prompt, 1000 * (number + 1), clips)
    return print_overhead(settings["steps"], bare, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=5, help="clips of a round, each way")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with own_servers():
        raise SystemExit(0 if bench_worker(options.clips, options.rounds) else 1)


if __name__ == "__main__":
    main()
