from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ratings.models import ApiToken, Scope
from ratings.pipeline.tokens import KEY_DAYS, KEY_DAYS_AT_MOST, new_token


class Command(BaseCommand):
    help = "Make, list and revoke keys of the API."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        new = actions.add_parser("new", help="Make a key and print it; it is shown this once.")
        new.add_argument("name", help="Whose it is, such as the pipeline's name.")
        new.add_argument(
            "--scope",
            dest="scopes",
            action="append",
            choices=Scope.values,
            help="What it may do; give the option once for each. "
            + "; ".join(f"{scope.value}: {scope.label}" for scope in Scope)
            + f". Default: {Scope.READ.value}.",
        )
        new.add_argument(
            "--days",
            type=int,
            default=KEY_DAYS,
            help=f"How long it is good, 1 to {KEY_DAYS_AT_MOST}; default: %(default)s.",
        )
        actions.add_parser("list", help="All keys that were not revoked, a line each.")
        revoked = actions.add_parser("revoke", help="Close a key for good.")
        revoked.add_argument("name")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        getattr(self, f"_{action}")(**options)

    def _new(self, name: str, scopes: list[str] | None, days: int, **options: Any) -> None:
        if not 0 < len(name) <= 120:
            raise CommandError("A key needs a name of at most 120 characters.")
        if not 1 <= days <= KEY_DAYS_AT_MOST:
            raise CommandError(f"--days is {days}: give 1 to {KEY_DAYS_AT_MOST}.")
        if any(key.state == "good" for key in ApiToken.objects.filter(name=name)):
            raise CommandError(
                f"There is a key “{name}”: choose another name, or revoke it first with "
                f"`manage.py token revoke`."
            )
        self.stdout.write(new_token(name, [Scope(each) for each in scopes or [Scope.READ]], days))

    def _list(self, **options: Any) -> None:
        for key in ApiToken.objects.filter(revoked=False).order_by("expires_at", "pk"):
            used = f"last used {key.used_at:%Y-%m-%d}" if key.used_at else "never used"
            word = "expired" if key.state == "expired" else "expires"
            self.stdout.write(
                f"{key.name}: {', '.join(key.scopes)}; {word} {key.expires_at:%Y-%m-%d}, {used}"
            )

    def _revoke(self, name: str, **options: Any) -> None:
        if not ApiToken.objects.filter(name=name, revoked=False).update(revoked=True):
            raise CommandError(f"There is no key “{name}”; `manage.py token list` names all.")
        self.stdout.write(f"Revoked: {name}.")
