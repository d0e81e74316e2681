"""An experiment's fields as the options of a command, read by the same schema as a request."""

import getpass
from argparse import ArgumentParser
from typing import Any, TypeVar

from pydantic import BaseModel

from arena.experiments.proposal import ProposalInput, read_input

# Options named otherwise than their field.
OPTIONS = {"seed_slots": "--seeds", "panels": "--panel"}
Options = TypeVar("Options", bound=BaseModel)


def add_options(parser: ArgumentParser, schema: type[ProposalInput]) -> None:
    """One for each field; what a value must be is left to the schema."""
    for name, field in schema.model_fields.items():
        option = OPTIONS.get(name, "--" + name.replace("_", "-"))
        says_default = field.is_required() or field.default in (None, "", ())
        help_ = field.description or ""
        if not says_default:
            help_ = f"{help_} Default: {field.default}.".strip()
        parser.add_argument(
            option,
            dest=name,
            required=field.is_required(),
            action="append" if name == "panels" else "store",
            metavar=option.lstrip("-").upper().replace("-", "_"),
            help=help_.replace("%", "%%"),
        )


def read_options(schema: type[Options], options: dict[str, Any]) -> Options:
    """What was given of the schema's fields; NotStarted where it breaks their rules."""
    given = {name: options[name] for name in schema.model_fields if options[name] is not None}
    return read_input(schema, given)


def whose() -> str:
    """Who runs the command, as experiments keep it."""
    return f"{getpass.getuser()} on the command line"
