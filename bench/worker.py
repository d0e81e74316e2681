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

from bench.servers import own_servers

TARGET = 0.05
AT_LEAST_SECONDS = 5.0
CATEGORY = "t2v-audio"
TEXT = "a big red circle bounces by day"


def run(clips: int, rounds: int) -> bool:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)

    from django.db.models import F

    from generation.backends import backend
    from generation.catalog import CATALOG, read_toml
    from generation.models import Clip, ClipState, Model, Prompt, Version
    from generation.rendering import request_of, seed_of
    from generation.tasks import render_waiting

    entry = next(
        version
        for model in read_toml(CATALOG)["model"]
        for version in model["version"]
        if version["slug"] == "colt-2"
    )
    model = Model.objects.create(slug="colt", name="Colt", lab="Photofinish", weights="open")
    prompt = Prompt.objects.create(
        key="bench", text=TEXT, sounds=["audio"], aspect="1:1", seconds=entry["max_seconds"]
    )
    colt, settings = backend("colt"), dict(entry["settings"])

    def bare(slot: int) -> float:
        request = request_of(prompt, CATEGORY, seed_of(prompt, slot))
        begin = time.perf_counter()
        colt.render(settings, request, lambda step, steps: None)
        return time.perf_counter() - begin

    bare(0)  # loads torch and the weights
    once = bare(0)
    settings["steps"] = int(settings["steps"] * max(1.0, 1.3 * AT_LEAST_SECONDS / once)) + 1
    fields = ("categories", "width", "height", "fps", "min_seconds", "max_seconds")
    version = Version.objects.create(
        model=model, slug="bench", name="Bench", state="active", backend="colt",
        settings=settings, **{name: entry[name] for name in fields},
    )  # fmt: skip

    def through_worker(first_slot: int) -> list[float]:
        """Seconds from one publication to the next, encoding apart; the first clip warms up."""
        made = Clip.objects.bulk_create(
            Clip(version=version, prompt=prompt, category=CATEGORY, seed_slot=slot,
                 seed=seed_of(prompt, slot))
            for slot in range(first_slot, first_slot + clips + 1)
        )  # fmt: skip
        keys = [clip.pk for clip in made]
        render_waiting.apply_async()
        while Clip.objects.filter(pk__in=keys, state=ClipState.READY).count() < len(keys):
            failed = Clip.objects.filter(pk__in=keys, state=ClipState.FAILED).first()
            if failed is not None:
                raise SystemExit(f"A clip failed: {failed.error}")
            time.sleep(0.5)
        ready = Clip.objects.filter(pk__in=keys).order_by(F("ready_at"))
        times = [(clip.ready_at, clip.encode_seconds or 0.0) for clip in ready]
        return [
            (later - earlier).total_seconds() - encoding  # type: ignore[operator]
            for (earlier, _), (later, encoding) in itertools.pairwise(times)
        ]

    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "arena", "worker", "-Q", "gpu", "-P", "prefork",
         "-c", "1", "--loglevel", "ERROR"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        alone: list[float] = []
        path: list[float] = []
        for number in range(rounds):
            alone += [bare(slot) for slot in range(clips)]
            path += through_worker(1000 * (number + 1))
    finally:
        worker.terminate()
        worker.wait(timeout=120)
    bare_seconds, path_seconds = statistics.median(alone), statistics.median(path)
    overhead = path_seconds / bare_seconds - 1
    print(f"Colt, {settings['steps']} steps, {len(alone)} clips each way; medians in seconds")
    print(f"the model alone           {bare_seconds:8.2f}   {min(alone):.2f} to {max(alone):.2f}")
    print(f"through the worker        {path_seconds:8.2f}   {min(path):.2f} to {max(path):.2f}")
    good = overhead <= TARGET
    print(
        f"the path adds {overhead:+.1%}, target {TARGET:.0%} at most: {'PASS' if good else 'OVER'}"
    )
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=5, help="clips of a round, each way")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with own_servers():
        raise SystemExit(0 if run(options.clips, options.rounds) else 1)


if __name__ == "__main__":
    main()
