"""Commands whose exit code a pipeline reads: no error may look like an answer."""

import getpass
import sys
import traceback
from argparse import ArgumentParser
from dataclasses import fields
from typing import Any, NoReturn

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError

from arena.experiments import Proposal
from generation.categories import Category
from ratings.pipeline import PUBLIC_SHARE, Asked, Refused, proposal_of

NO_ANSWER = 3  # of usage and service errors


class Answer(SystemExit):
    """The end of a command that has an answer; the code says which."""

    is_answer = True  # for manage.py


class PipelineCommand(BaseCommand):
    """Ends with the code of its Answer, 0 without one, and NO_ANSWER whatever goes wrong.

    Python itself ends with 1 after an error, and argparse with 2 after a wrong option.
    """

    requires_system_checks = []  # what is wrong turns up as an error, and some need no site

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            super().run_from_argv(argv)
        except Answer:
            raise
        except SystemExit as end:
            sys.exit(NO_ANSWER if end.code else 0)
        except KeyboardInterrupt:
            self._give_up("Interrupted: whatever was started goes on; the same command finds it.")
        except (OperationalError, InterfaceError) as error:
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            self._give_up(
                f"The database does not answer: {reason}. Nothing is lost: run the same again."
            )
        except ImproperlyConfigured as error:
            self._give_up(str(error))
        except Exception as error:
            traceback.print_exc()
            self._give_up(f"An error that nobody foresaw: {error!r}.")

    def _give_up(self, sentence: str) -> NoReturn:
        self.stderr.write(sentence)
        sys.exit(NO_ANSWER)

    def answer(self, code: int) -> NoReturn:
        self.stdout.flush()
        raise Answer(code)


def add_design(parser: ArgumentParser) -> None:
    """The options that describe an experiment, each named as a field of Asked."""
    add = parser.add_argument
    add("--candidate", required=True, metavar="SLUG", help="The version in question.")
    add("--baseline", required=True, metavar="SLUG", help="The version it must not fall behind.")
    add("--category", required=True, choices=Category.values)
    add("--prompt-set", default=Asked.prompt_set, metavar="SLUG", help="Default: %(default)s.")
    add("--seeds", dest="seed_slots", type=int, default=Asked.seed_slots, metavar="N",
        help="Clip pairs per prompt; default: %(default)s.")  # fmt: skip
    add("--margin", type=float, default=Asked.margin, metavar="ELO",
        help="How much worse must not pass, normalised; default: %(default)s.")  # fmt: skip
    add("--alpha", type=float, default=Asked.alpha, help="Default: %(default)s.")
    add("--beta", type=float, default=Asked.beta, help="Default: %(default)s.")
    add("--max-votes", type=int, default=Asked.max_votes, help="Default: %(default)s.")
    add("--panel", dest="panels", action="append", default=[], metavar="SLUG",
        help="Who votes; may be given again.")  # fmt: skip
    add("--public-share", type=float, default=None, metavar="SHARE",
        help="Of the category's pairs in the public stream; default: 0 with a panel, else "
        f"{PUBLIC_SHARE}.")  # fmt: skip
    add("--muted-share", type=float, default=Asked.muted_share, metavar="SHARE",
        help="Of the pairs that are shown without sound; default: %(default)s.")  # fmt: skip
    add("--webhook", default=Asked.webhook, metavar="URL", help="Is sent the verdict.")
    add("--name", default=Asked.name, help="Default: made of the versions.")


def proposed(options: dict[str, Any]) -> Proposal:
    """The proposal that those options describe; CommandError if a slug means nothing."""
    asked = {field.name: options[field.name] for field in fields(Asked)}
    asked["panels"] = tuple(asked["panels"])
    try:
        return proposal_of(Asked(**asked), created_by=f"{getpass.getuser()} on the command line")
    except Refused as error:
        raise CommandError(str(error)) from None
