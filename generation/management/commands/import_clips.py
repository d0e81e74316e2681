from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from generation.imports.files import import_rows
from generation.imports.manifest import ManifestError, read_manifest
from generation.media.profile import SiteFault
from generation.models import RowOutcome


class Command(BaseCommand):
    help = "Import clips made elsewhere, as a manifest lists them; safe to repeat."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("manifest", type=Path, help="A CSV file beside or above the clips.")
        parser.add_argument(
            "--dry-run", action="store_true", help="Check and encode everything, keep nothing."
        )

    def handle(self, *args: Any, manifest: Path, dry_run: bool, **options: Any) -> None:
        try:
            rows = read_manifest(manifest)
        except ManifestError as error:
            raise CommandError(str(error)) from None
        imported = "would be imported" if dry_run else "imported"
        counts: Counter[RowOutcome] = Counter()
        try:
            for result in import_rows(rows, manifest.parent, dry_run):
                counts[result.outcome] += 1
                what = imported if result.outcome == RowOutcome.IMPORTED else result.outcome.value
                self.stdout.write(f"line {result.line}: {what}: {result.sentence}")
                self.stdout.flush()
        except SiteFault as error:
            at = rows[counts.total()].line
            raise CommandError(
                f"Stopped at line {at}: {error} Fix this and import the manifest again: what was "
                "imported stays."
            ) from None
        done, there = counts[RowOutcome.IMPORTED], counts[RowOutcome.ALREADY_THERE]
        held = f", {counts[RowOutcome.HELD]} held" if counts[RowOutcome.HELD] else ""
        self.stdout.write(
            f"{done} {imported}{held}, {there} already there, {counts[RowOutcome.REFUSED]} refused."
        )
        if refused := counts[RowOutcome.REFUSED]:
            raise CommandError(
                f"{refused} of {len(rows)} lines were refused; mend them and import again."
            )
