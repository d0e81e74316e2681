from argparse import ArgumentParser
from hashlib import sha256
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from generation.categories import Category
from ratings.leaderboards import METHOD, SETTINGS, newest_board, recomputed, refit
from ratings.models import Leaderboard


class Command(BaseCommand):
    help = "Rate every category as the ledger stands now, or check a snapshot against the ledger."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--verify",
            action="store_true",
            help="make each category's newest snapshot once more and compare, byte by byte",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["verify"]:
            boards = [board for c in Category if (board := newest_board(c.value))]
            differing = [board for board in boards if not self._verify(board)]
            if differing:
                raise CommandError(f"{len(differing)} of {len(boards)} snapshots differ.")
            return
        for category in Category:
            board = refit(category)
            self.stdout.write(
                f"{category}: {board.votes} votes of {board.voters} voters on {board.prompts} "
                f"prompts, {board.seconds:.1f} s."
            )

    def _verify(self, board: Leaderboard) -> bool:
        if (board.method, board.settings) != (METHOD, SETTINGS):
            self.stdout.write(f"{board}: made by another method or other settings; not compared.")
            return True
        same = sha256(recomputed(board)).hexdigest() == board.digest
        said = "the same bytes" if same else "DIFFERENT from what the ledger gives now"
        self.stdout.write(f"{board}: {said}, {board.digest[:16]}.")
        return same
