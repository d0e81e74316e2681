from argparse import ArgumentParser, ArgumentTypeError
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from generation.backends.registry import HOSTED
from generation.hosted.orders import spent_on
from generation.models import Version

MOST_DOLLARS = Decimal(10_000_000)


def dollars(said: str) -> Decimal:
    """US dollars from 0, such as 20 or 12.50; 0 is a budget too: of what costs nothing."""
    try:
        amount = Decimal(said)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 <= amount < MOST_DOLLARS:
        raise ArgumentTypeError(f"“{said}” is no amount: give US dollars from 0, such as 12.50")
    return amount


class Command(BaseCommand):
    help = (
        "Show the budgets of versions that paid services make, or set them. A budget is in US "
        "dollars for all clips of a version together, and nothing is ordered without one."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("version", nargs="*", help="Slugs; none means all, to be shown.")
        parser.add_argument("--set", type=dollars, metavar="USD", help="The budget of each.")
        parser.add_argument(
            "--price", type=dollars, metavar="USD", help="The price of each per second of video."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        slugs = list(dict.fromkeys(options["version"]))
        hosted = Version.objects.filter(backend__in=HOSTED)
        chosen = hosted.filter(slug__in=slugs) if slugs else hosted
        if missing := sorted(set(slugs) - set(chosen.values_list("slug", flat=True))):
            there = Version.objects.filter(slug__in=missing).values_list("slug", flat=True)
            raise CommandError(
                " ".join(
                    f"{slug} is made by no paid service."
                    if slug in there
                    else f"There is no version {slug}."
                    for slug in missing
                )
            )
        changes = {"budget": options["set"], "price_per_second": options["price"]}
        changes = {name: amount for name, amount in changes.items() if amount is not None}
        if changes and not slugs:
            raise CommandError("Name the versions whose budget or price is to be set.")
        for name, amount in changes.items():
            places = Version._meta.get_field(name).decimal_places  # type: ignore[union-attr]
            if amount != round(amount, places):
                raise CommandError(f"{amount} has more than {places} decimal places.")
        with transaction.atomic():
            if changes:
                chosen.update(**changes)
            for version in chosen.order_by("slug"):
                self.stdout.write(_line(version))


def _line(version: Version) -> str:
    price = (
        "no price"
        if version.price_per_second is None
        else f"${version.price_per_second.normalize():f} a second"
    )
    spent = spent_on(version)
    budget = "no budget" if version.budget is None else f"of ${version.budget:.2f}"
    over = ""
    if version.budget is not None and spent > version.budget:
        over = ": nothing more is ordered"
    return (
        f"{version.slug} ({version.backend}, {version.state}): {price}, ${spent:.2f} {budget}{over}"
    )
