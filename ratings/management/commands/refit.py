from typing import Any

from django.core.management.base import BaseCommand

from generation.categories import Category
from ratings.leaderboards import refit


class Command(BaseCommand):
    help = "Rate every category as the ledger stands now."

    def handle(self, *args: Any, **options: Any) -> None:
        for category in Category:
            board = refit(category)
            self.stdout.write(f"{category}: {board.votes} votes of {board.voters} voters.")
