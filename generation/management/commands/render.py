import signal
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Count, Q, QuerySet
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from generation.catalogue.categories import Category
from generation.media.pauses import pauses_now
from generation.models import Clip, ClipState, PromptSet, Version
from generation.rendering.queue import Queued, queue_clips, retry_failed
from generation.tasks import wake_workers

WATCH_EVERY = 1.0  # s
LINE_EVERY = 30.0  # without a terminal
PRIORITIES = 1000  # either way


def whole_number(said: str) -> int:
    if not said.isdigit() or not int(said):
        raise ArgumentTypeError(f"“{said}” is no count: give a whole number from 1")
    return int(said)


def clip_priority(said: str) -> int:
    try:
        if -PRIORITIES <= (number := int(said)) <= PRIORITIES:
            return number
    except ValueError:
        pass
    raise ArgumentTypeError(
        f"“{said}” is no priority: give a whole number from -{PRIORITIES} to {PRIORITIES}"
    )


@dataclass(frozen=True)
class Progressed:
    """How far the selected clips are."""

    total: int
    ready: int
    failed: int

    @property
    def left(self) -> int:
        return self.total - self.ready - self.failed

    def __str__(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.ready} of {self.total} clips ready{failed}, {self.left} to go"


class Command(BaseCommand):
    help = (
        "Queue the clips of a category and prompt set that are missing, and watch them being made. "
        "All that is queued, retried, watched and counted is what the options select. Clips of "
        "paid services are ordered only for versions that are named, or with --paid."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--category", choices=Category.values, nargs="+")
        parser.add_argument("--prompt-set", default="scenes")
        parser.add_argument("--version-slug", nargs="+", help="Only these versions.")
        parser.add_argument("--limit", type=whole_number, help="Only the first so many prompts.")
        parser.add_argument(
            "--paid",
            action="store_true",
            help="Without --version-slug: versions of paid services, too, within their budgets.",
        )
        parser.add_argument(
            "--retry-failed",
            action="store_true",
            help="Selected clips that failed wait again, but for those that were paid for.",
        )
        parser.add_argument(
            "--again",
            action="store_true",
            help="As --retry-failed, and those that were or may have been paid for are ordered, "
            "and paid for, again.",
        )
        parser.add_argument(
            "--priority",
            type=clip_priority,
            help="Selected clips that wait get this priority: higher is rendered first. The "
            "default is 0, and 10 for clips of experiments.",
        )
        parser.add_argument("--no-wait", action="store_true", help="Queue and return at once.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            clips = self._select(options)
            if not options["no_wait"]:
                self._watch(clips)
        except KeyboardInterrupt:
            raise CommandError(
                "Interrupted: what was queued stays queued and is made all the same; the same "
                "command watches it again.",
                returncode=128 + signal.SIGINT,
            ) from None

    def _select(self, options: dict[str, Any]) -> QuerySet[Clip]:
        """Queue what is missing and retry what failed; returns the selected clips."""
        try:
            prompt_set = PromptSet.objects.get(slug=options["prompt_set"])
        except PromptSet.DoesNotExist:
            known = ", ".join(PromptSet.objects.values_list("slug", flat=True)) or "none"
            raise CommandError(
                f"There is no prompt set “{options['prompt_set']}”; loaded are: {known}."
            ) from None
        versions = self._versions(options["version_slug"])
        categories = [Category(value) for value in options["category"] or Category.values]
        selected, left_out = Clip.objects.none(), dict[str, None]()
        for category in categories:
            queued = queue_clips(
                category,
                prompt_set,
                versions,
                options["limit"],
                paid=options["paid"],
                priority=options["priority"],
            )
            self._tell_queued(category, prompt_set, queued)
            left_out |= dict.fromkeys(queued.left_out)
            selected |= queued.selected
        if left_out:
            self.stdout.write(
                f"Left out, as paid services make their clips: {', '.join(left_out)}. Name them "
                "with --version-slug, or use --paid."
            )
        clips = Clip.objects.filter(pk__in=selected.order_by().values("pk"))
        if not clips.exists():
            raise CommandError("Nothing is selected, for the reasons above: nothing was queued.")
        if options["retry_failed"] or options["again"]:
            self._retry(clips, options["again"])
            if options["priority"] is not None:
                clips.filter(state=ClipState.WAITING).update(priority=options["priority"])
        wake_workers()
        return clips

    def _versions(self, slugs: list[str] | None) -> list[Version] | None:
        if slugs is None:
            return None
        versions = list(Version.objects.filter(slug__in=slugs))
        if missing := set(slugs) - {version.slug for version in versions}:
            raise CommandError(f"There is no version {', '.join(sorted(missing))}.")
        return versions

    def _tell_queued(self, category: Category, prompt_set: PromptSet, queued: Queued) -> None:
        self.stdout.write(
            f"{category}: {queued.added} clips queued, {queued.existing} there already, "
            f"{len(queued.refused)} refused."
        )
        for sentence in queued.refused[:5]:
            self.stdout.write(f"  {sentence}")
        if len(queued.refused) > 5:
            self.stdout.write(f"  … and {len(queued.refused) - 5} more.")
        for sentence in self._reasons(category, prompt_set, queued):
            self.stdout.write(f"  {sentence}")

    def _reasons(self, category: Category, prompt_set: PromptSet, queued: Queued) -> Iterator[str]:
        """Why nothing is selected, beside what was refused."""
        if queued.added or queued.existing or queued.refused:
            return
        if not queued.prompts:
            needs = "a reference image" if category.task == "i2v" else "no reference image"
            yield (
                f"{prompt_set.slug} has no prompt for it: one needs {needs}, and to list the "
                f"sound {category.sound}."
            )
        elif not queued.left_out:
            yield "No version that makes it is active or on trial."

    def _retry(self, clips: QuerySet[Clip], again: bool) -> None:
        retried = retry_failed(clips, again=again)
        one = retried.waiting == 1
        waits = f"{retried.waiting} failed clip{' waits' if one else 's wait'} again"
        if retried.asked_again:
            waits += f"; {retried.asked_again} ordered before, not ordered again"
        self.stdout.write(f"{waits}.")
        if retried.kept:
            self.stdout.write(
                f"{retried.kept} {'was' if retried.kept == 1 else 'were'} left failed, as an order "
                "counts as spent: look at the service first. --again orders, and pays, again."
            )

    def _watch(self, clips: QuerySet[Clip]) -> None:
        """Say how far the selected clips are until each is ready or has failed."""
        if self.stdout.isatty():
            self._draw_bar(clips)
        else:
            self._write_lines(clips)
        failed = clips.filter(state=ClipState.FAILED)
        for clip in failed.select_related("version", "prompt")[:10]:
            self.stdout.write(f"{clip.version.slug}, {clip.prompt.key}: {clip.error}")
        if count := failed.count():
            raise CommandError(
                f"{count} clip{'s' if count > 1 else ''} failed; mend the cause and use "
                "--retry-failed."
            )

    def _progress(self, clips: QuerySet[Clip]) -> Iterator[Progressed]:
        """How far they are, every second until none is left."""
        while True:
            progress = Progressed(
                **clips.aggregate(
                    total=Count("pk"),
                    ready=Count("pk", filter=Q(state__in=(ClipState.READY, ClipState.HELD))),
                    failed=Count("pk", filter=Q(state=ClipState.FAILED)),
                )
            )
            yield progress
            if not progress.left:
                return
            time.sleep(WATCH_EVERY)

    def _draw_bar(self, clips: QuerySet[Clip]) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        with Progress(*columns, TimeRemainingColumn(), console=Console()) as bar:
            row = bar.add_task("")
            for progress in self._progress(clips):
                text = f"{progress.failed} failed" if progress.failed else ""
                text = "paused: " + pauses[0].reason if (pauses := pauses_now()) else text
                done = progress.ready + progress.failed
                bar.update(row, total=progress.total, completed=done, description=text)

    def _write_lines(self, clips: QuerySet[Clip]) -> None:
        """A line at first, at the end, and now and then between."""
        tell_at = 0.0
        for progress in self._progress(clips):
            now = time.monotonic()
            if now >= tell_at or not progress.left:
                tell_at = now + LINE_EVERY
                paused = [f"Paused: {pause.reason}" for pause in pauses_now()]
                self.stdout.write(" ".join([f"{progress}.", *(paused if progress.left else [])]))
                self.stdout.flush()
