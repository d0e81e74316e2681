import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Count, Q
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from generation.categories import Category
from generation.models import RENDERED_STATES, Clip, ClipState, PromptSet, Version
from generation.rendering import queue_clips
from generation.tasks import wake_workers


class Command(BaseCommand):
    help = (
        "Queue the clips of a category and prompt set that are missing, and watch them being made."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--category", choices=Category.values, nargs="*")
        parser.add_argument("--prompt-set", default="scenes")
        parser.add_argument("--version-slug", nargs="*", help="Only these versions.")
        parser.add_argument("--limit", type=int, help="Only the first so many prompts.")
        parser.add_argument("--retry-failed", action="store_true", help="Failed clips wait again.")
        parser.add_argument("--no-wait", action="store_true", help="Queue and return at once.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            prompt_set = PromptSet.objects.get(slug=options["prompt_set"])
        except PromptSet.DoesNotExist:
            known = ", ".join(PromptSet.objects.values_list("slug", flat=True)) or "none"
            raise CommandError(
                f"There is no prompt set “{options['prompt_set']}”; loaded are: {known}."
            ) from None
        versions = self._versions(options["version_slug"])
        categories = [Category(value) for value in options["category"] or Category.values]
        for category in categories:
            queued = queue_clips(category, prompt_set, versions, options["limit"])
            self.stdout.write(
                f"{category}: {queued.added} clips queued, {queued.existing} there already, "
                f"{len(queued.refused)} refused."
            )
            for sentence in queued.refused[:5]:
                self.stdout.write(f"  {sentence}")
            if len(queued.refused) > 5:
                self.stdout.write(f"  … and {len(queued.refused) - 5} more.")
        clips = Clip.objects.filter(
            category__in=categories, prompt__sets=prompt_set, version__state__in=RENDERED_STATES
        )
        if options["retry_failed"]:
            again = clips.filter(state=ClipState.FAILED).update(
                state=ClipState.WAITING, attempts=0, error="", lease_expires_at=None
            )
            self.stdout.write(f"{again} failed clips wait again.")
        wake_workers()
        if not options["no_wait"]:
            self._watch(clips)

    def _versions(self, slugs: list[str] | None) -> list[Version] | None:
        if slugs is None:
            return None
        versions = list(Version.objects.filter(slug__in=slugs))
        if missing := set(slugs) - {version.slug for version in versions}:
            raise CommandError(f"There is no version {', '.join(sorted(missing))}.")
        return versions

    def _watch(self, clips: Any) -> None:
        """A progress bar until every clip is ready or has failed."""
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        with Progress(*columns, TimeRemainingColumn(), console=Console()) as bar:
            row = bar.add_task("")
            while True:
                counts = clips.aggregate(
                    total=Count("pk"),
                    ready=Count("pk", filter=Q(state=ClipState.READY)),
                    failed=Count("pk", filter=Q(state=ClipState.FAILED)),
                )
                done = counts["ready"] + counts["failed"]
                text = f"{counts['failed']} failed" if counts["failed"] else ""
                bar.update(row, total=counts["total"], completed=done, description=text)
                if done == counts["total"]:
                    break
                time.sleep(1)
        failed = clips.filter(state=ClipState.FAILED)
        for clip in failed.select_related("version", "prompt")[:10]:
            self.stdout.write(f"{clip.version.slug}, {clip.prompt.key}: {clip.error}")
        if count := failed.count():
            raise CommandError(f"{count} clips failed; mend the cause and use --retry-failed.")
