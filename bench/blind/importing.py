"""Second step: clips are made and imported as an operator would; it runs in worker processes."""

import csv
import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.blind.versions import (
    AUDIO,
    MADE_UP_VERSIONS,
    MASTER_SUFFIXES,
    SILENT,
    BlindPlan,
    Facts,
    make_master,
)
from generation.catalogue.categories import ASPECTS
from generation.media import profile
from generation.media.container import top_level_boxes
from generation.media.intake import Wanted, take_in
from generation.media.profile import MediaFacts
from generation.media.renditions import encode_rendition

REAL_KINDS = 6  # each aspect, silent and with sound


def set_up_django(plan: BlindPlan) -> None:
    """Django, and the smaller canvases, in this process."""
    import django

    django.setup()
    real = profile.Profile()
    small = {a: (w // plan.scale, h // plan.scale) for a, (w, h) in real.canvases.items()}
    profile.PROFILE = replace(real, canvases=small)


def prepare_database(plan: BlindPlan) -> None:
    """The tables, the versions and their prompts."""
    set_up_django(plan)
    from django.core.management import call_command
    from django.db import connection
    from django.test.utils import setup_test_environment

    call_command("migrate", verbosity=0)
    setup_test_environment()
    fill_database(plan)
    connection.close()  # worker processes have connections of their own


def fill_database(plan: BlindPlan) -> None:
    from generation.models import Model, Prompt, Version

    model = Model.objects.create(slug="m", name="M", lab="L", weights="open")
    Version.objects.bulk_create(
        Version(
            model=model, slug=made.slug, name=made.slug, state="active", backend="imported",
            categories=[SILENT, AUDIO], width=made.width // plan.scale,
            height=made.height // plan.scale, fps=made.fps, min_seconds=plan.seconds,
            max_seconds=2 * plan.seconds,
        )
        for made in MADE_UP_VERSIONS
    )  # fmt: skip
    Prompt.objects.bulk_create(
        Prompt(
            key=f"p{n}", text=f"prompt {n}", aspect=ASPECTS[n % 3], seconds=plan.seconds,
            sounds=["silent", "audio"] if n % plan.audio_every == 0 else ["silent"],
        )
        for n in range(plan.clips)
    )  # fmt: skip


def import_prompt(plan: BlindPlan, prompt: int) -> dict[tuple[str, int], Facts]:
    """Make and import all versions' clips of one prompt; what their masters are, by version."""
    from generation.imports.files import import_rows
    from generation.imports.manifest import read_manifest
    from generation.models import RowOutcome

    facts: dict[tuple[str, int], Facts] = {}
    with tempfile.TemporaryDirectory(prefix="photofinish-blind-") as name:
        folder = Path(name)
        rows = [("file", "version", "prompt", "category")]
        for number, made in enumerate(MADE_UP_VERSIONS):
            categories = [SILENT]
            if prompt % plan.audio_every == 0:
                categories.append(AUDIO)
            for category in categories:
                sound = category == AUDIO or made.unmuted
                file = f"{made.slug}-{sound}{MASTER_SUFFIXES[made.container]}"
                if not (folder / file).exists():
                    make_master(made, prompt, plan, sound, folder / file)
                rows.append((file, made.slug, f"p{prompt}", category))
                seen = taken_in(folder / file, ASPECTS[prompt % 3], plan.seconds, sound)[1]
                facts[category, number] = master_facts(seen)
        with (folder / "manifest.csv").open("w", newline="") as manifest:
            csv.writer(manifest).writerows(rows)
        for result in import_rows(read_manifest(folder / "manifest.csv"), folder):
            if result.outcome != RowOutcome.IMPORTED:
                raise SystemExit(f"A clip was not imported: {result.sentence}")
    return facts


def rewrapped_alike(plan: BlindPlan, prompt: int) -> bool:
    """Whether the same pictures and sound in another container give the same rendition."""
    made = MADE_UP_VERSIONS[-1]
    with tempfile.TemporaryDirectory(prefix="photofinish-blind-") as name:
        folder = Path(name)
        make_master(made, prompt, plan, True, folder / "a.mkv")
        make_master(replace(made, container="mp4"), prompt, plan, True, folder / "b.mp4")
        for file in ("a.mkv", "b.mp4"):
            master, _ = taken_in(folder / file, ASPECTS[prompt % 3], plan.seconds, True)
            encode_rendition(
                master, folder / f"{file}.r.mp4", folder / f"{file}.jpg",
                aspect=ASPECTS[prompt % 3], seconds=plan.seconds, audio=True,
            )  # fmt: skip
        first, second = ((folder / f"{file}.r.mp4").read_bytes() for file in ("a.mkv", "b.mp4"))
    return first == second


@dataclass(frozen=True)
class RealClip:
    """A clip at the real size: what its rendition may depend on, and how it came out."""

    aspect: str
    seconds: float
    audio: bool
    length: int
    poster_length: int
    head: str  # SHA-256 of all that stands before the coded pictures and sound


def at_real_size(number: int) -> RealClip:
    """Make one clip at the real size and length; small files can't show what a muxer does then.

    Masters are half the native size: they are made faster, and fit into memory.
    """
    made, kind = MADE_UP_VERSIONS[number % len(MADE_UP_VERSIONS)], number // len(MADE_UP_VERSIONS)
    aspect, seconds, audio = ASPECTS[kind % 3], (5.0, 5.0, 8.0)[kind % 3], kind >= 3
    set_up_django(BlindPlan(clips=1, audio_every=1, scale=1, seconds=seconds))
    with tempfile.TemporaryDirectory(prefix="photofinish-blind-") as name:
        master, into = Path(name) / f"m{MASTER_SUFFIXES[made.container]}", Path(name) / "r.mp4"
        # The prompt of this number has that aspect.
        make_master(made, kind, BlindPlan(1, 1, 2, seconds), audio, master)
        master, _ = taken_in(master, aspect, seconds, audio)
        encode_rendition(
            master, into, Path(name) / "r.jpg", aspect=aspect, seconds=seconds, audio=audio
        )
        content, poster = into.read_bytes(), (Path(name) / "r.jpg").read_bytes()
    before = sum(size for box, size in top_level_boxes(content) if box != "mdat")
    head = hashlib.sha256(content[: before + 8]).hexdigest()
    return RealClip(aspect, seconds, audio, len(content), len(poster), head)


def told_by_real_size(clips: Sequence[RealClip]) -> list[str]:
    """The kinds of clips of which not all are the same in all but what they show, in words."""
    kinds = defaultdict(set)
    for clip in clips:
        kinds[clip.aspect, clip.seconds, clip.audio].add(
            (clip.length, clip.poster_length, clip.head)
        )
    return [f"{kind} in {len(found)} forms" for kind, found in kinds.items() if len(found) > 1]


def taken_in(path: Path, aspect: str, seconds: float, audio: bool) -> tuple[Path, MediaFacts]:
    """A master of ours made of the file, as imports make it, and what the file is."""
    wanted = Wanted(aspect, seconds, AUDIO if audio else SILENT, audio, (1, 120), "made up", 1, 1)
    master = path.with_suffix(f"{path.suffix}.ours.mkv")
    return master, take_in(path, master, wanted)


def master_facts(seen: MediaFacts) -> Facts:
    """What nobody outside sees; the classifiers must know versions by it, or they know nothing."""
    return {
        "native size|": float(seen.width * seen.height),
        "native rate|": seen.fps,
        "native length|": seen.seconds,
        "native codec|": seen.video_codec,
        "native pixels|": seen.pixel_format,
    }
