import tempfile
from argparse import ArgumentParser
from hashlib import sha256
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from arena.ledger import LedgerEnd
from generation.catalogue.categories import Category
from ratings.boards.refit import BOARD_METHOD, BOARD_SETTINGS, content, rated, read_votes, refit
from ratings.boards.slices import SLICE_METHOD, rated_slices
from ratings.boards.stored import newest_board
from ratings.models import Leaderboard
from ratings.robustness.stored import newest_slices


class Command(BaseCommand):
    help = "Rate every category as the ledger stands now, or check the boards against the ledger."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--verify",
            action="store_true",
            help="read the whole ledger, make every newest board again, of slices too, and compare "
            "it with what is stored, byte by byte",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["verify"]:
            self._verify_all()
            return
        for category in Category:
            board = refit(category)
            self.stdout.write(
                f"{category}: {board.votes} votes of {board.voters} voters on {board.prompts} "
                f"prompts, {board.seconds:.1f} s."
            )

    def _verify_all(self) -> None:
        checked: list[bool] = []
        for category in Category:
            # The refits' own copy of the votes is not trusted here: the ledger is read again.
            with tempfile.TemporaryDirectory() as folder:
                for name in ["", *newest_slices(category.value)]:
                    board = newest_board(category.value, name)
                    if board is not None:
                        checked.append(self._verify(board, Path(folder)))
        if not all(checked):
            raise CommandError(f"{checked.count(False)} of {len(checked)} boards differ.")

    def _verify(self, board: Leaderboard, folder: Path) -> bool:
        if board.method not in (BOARD_METHOD, SLICE_METHOD) or not BOARD_SETTINGS.items() <= (
            board.settings.items()
        ):
            self.stdout.write(f"{board}: made by another method or other settings; not compared.")
            return True
        end = LedgerEnd(board.last_vote_id, board.last_exclusion_id, board.simulated_counted)
        category = Category(board.category)
        votes = read_votes(board.category, end, folder)
        if board.slice:
            made = {fresh.slice: (fresh, rows) for fresh, rows in rated_slices(category, votes)}
            again = content(*made[board.slice]) if board.slice in made else b""
        else:
            again = content(*rated(category, votes)[:2])
        stored = content(board, list(board.standings.all()))
        same = again == stored and sha256(stored).hexdigest() == board.digest
        said = "the same bytes" if same else "DIFFERENT from what the ledger gives now"
        self.stdout.write(f"{board}: {said}, {board.digest[:16]}.")
        return same
