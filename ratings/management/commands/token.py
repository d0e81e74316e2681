from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ratings.models import ApiToken
from ratings.tokens import new_token


class Command(BaseCommand):
    help = "Make a key for the API and print it; it is shown this once. /admin/ revokes it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="Whose it is, such as the pipeline's name.")

    def handle(self, *args: Any, name: str, **options: Any) -> None:
        if not 0 < len(name) <= 120:
            raise CommandError("A key needs a name of at most 120 characters.")
        if ApiToken.objects.filter(name=name, revoked=False).exists():
            raise CommandError(
                f"There is a key “{name}”: choose another name, or revoke it in /admin/ first."
            )
        self.stdout.write(new_token(name))
