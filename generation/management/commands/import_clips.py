from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from generation.importing import ManifestError, What, import_rows, read_manifest


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
        counts: Counter[What] = Counter()
        for outcome in import_rows(rows, manifest.parent, dry_run):
            counts[outcome.what] += 1
            what = imported if outcome.what == What.IMPORTED else outcome.what.value
            self.stdout.write(f"line {outcome.line}: {what}: {outcome.sentence}")
            self.stdout.flush()
        self.stdout.write(
            f"{counts[What.IMPORTED]} {imported}, {counts[What.THERE]} already there, "
            f"{counts[What.REFUSED]} refused."
        )
        if refused := counts[What.REFUSED]:
            raise CommandError(
                f"{refused} of {len(rows)} lines were refused; mend them and import again."
            )
