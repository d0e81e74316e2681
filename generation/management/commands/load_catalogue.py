from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from generation.catalogue.entries import CatalogueError, load_catalogue


class Command(BaseCommand):
    help = (
        "Load models and versions from catalogue files, or from the repository's; safe to repeat."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="*", type=Path)

    def handle(self, *args: Any, files: list[Path], **options: Any) -> None:
        try:
            counts = load_catalogue(*files)
        except CatalogueError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"Catalogue: {counts.created} created, {counts.changed} changed, "
            f"{counts.same} as before."
        )
