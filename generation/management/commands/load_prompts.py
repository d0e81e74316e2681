from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from generation.catalogue.entries import CatalogueError
from generation.catalogue.prompts import FOLDER, load_prompt_set


class Command(BaseCommand):
    help = "Load prompt sets from files (by default those of the repository); safe to repeat."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="*", type=Path)

    def handle(self, *args: Any, files: list[Path], **options: Any) -> None:
        for file in files or sorted(FOLDER.glob("*.toml")):
            try:
                prompt_set, what = load_prompt_set(file)
            except CatalogueError as error:
                raise CommandError(str(error)) from None
            count = prompt_set.prompts.count()
            self.stdout.write(f"Prompt set {prompt_set.slug}: {count} prompts, {what}.")
