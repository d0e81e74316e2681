import time
from argparse import ArgumentParser
from typing import Any

import numpy as np
import requests
from django.core.management.base import BaseCommand, CommandError

from arena.local.simulation import SimulatedVoter, SiteRefused, make_members, make_voters
from arena.models import MIXED, PANEL, Panel
from generation.catalogue.categories import Category


class Command(BaseCommand):
    help = (
        "Let simulated voters vote through the site's pages. Their votes are marked as simulated."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--site", required=True, help="Such as http://127.0.0.1:8000")
        parser.add_argument("--voters", type=int, default=300)
        where = parser.add_mutually_exclusive_group()
        where.add_argument("--stream", choices=[MIXED, *Category.values], default=MIXED)
        where.add_argument(
            "--panel", metavar="SLUG", help="Take this panel's members, new ones if it lacks some."
        )
        parser.add_argument("--rate", type=float, default=4.0, help="Votes per second at most.")
        parser.add_argument("--seed", type=int, default=1)
        much = parser.add_mutually_exclusive_group(required=True)
        much.add_argument("--votes", type=int, help="Stop after so many.")
        much.add_argument("--forever", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["voters"] < 1 or options["rate"] <= 0:
            raise CommandError("--voters and --rate must be positive.")
        voters, stream = self._voters(**options)
        rng = np.random.default_rng(options["seed"])
        cast = idle = 0
        while options["forever"] or cast < options["votes"]:
            started = time.monotonic()
            voter = voters[rng.integers(len(voters))]
            try:
                choice = voter.vote(stream)
            except (requests.RequestException, SiteRefused) as error:
                if not options["forever"]:
                    raise CommandError(f"The site did not take a vote: {error}") from None
                self.stderr.write(f"{error}")
                time.sleep(2)  # the site restarts, or is not up yet: the next voter tries
                continue
            cast += choice is not None
            idle = 0 if choice else idle + 1
            if idle > 3 * len(voters) and not options["forever"]:
                raise CommandError(f"No pair is left to vote on after {cast} votes.")
            # Nothing to vote on yet: ask less often than one votes.
            pause = 1 / options["rate"] if choice else 2 / options["rate"]
            time.sleep(max(0.0, pause - (time.monotonic() - started)))
        self.stdout.write(f"{cast} simulated votes cast.")

    def _voters(
        self, site: str, voters: int, seed: int, panel: str | None, stream: str, **options: Any
    ) -> tuple[list[SimulatedVoter], str]:
        if panel is None:
            return make_voters(site, voters, seed), stream
        found = Panel.objects.filter(slug=panel).first()
        if found is None:
            raise CommandError(f"There is no panel “{panel}”.")
        return make_members(site, found, voters, seed), PANEL
