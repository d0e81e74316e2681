import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from arena.experiments import NotStarted, cancel
from arena.models import Experiment
from ratings.experiments import newest, newest_of
from ratings.management.pipeline_command import NO_ANSWER, PipelineCommand, add_design, proposed
from ratings.pipeline import planned, start_or_find, state_of
from ratings.snapshots import (
    Unreadable,
    differences,
    file_name,
    public_key,
    read_snapshot,
    snapshot,
)

DIFFERS = 1


class Command(PipelineCommand):
    help = "Plan, start, list, show and cancel experiments; make and verify snapshots of them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        parsers: dict[str, ArgumentParser] = {}
        for name, said in (
            ("plan", "What an experiment would cost and find, as JSON; nothing is started."),
            ("start", "Start one, or find the one of the same design; prints it as JSON."),
        ):
            parsers[name] = actions.add_parser(name, help=said)
            add_design(parsers[name])
        parsers["plan"].add_argument(
            "--tie-rate",
            type=float,
            metavar="SHARE",
            help="To expect; default: as in this category.",
        )
        parsers["plan"].add_argument(
            "--voters",
            type=int,
            metavar="N",
            help="To expect; default: the panels' seats and last week's public voters.",
        )
        actions.add_parser("list", help="All of them, newest first, a line each.")
        for name, said in (
            ("show", "What one fixed and where it stands, as JSON."),
            ("cancel", "Ask nobody any more; its votes stay."),
        ):
            one = actions.add_parser(name, help=said)
            one.add_argument("id", type=UUID)
        made = actions.add_parser("snapshot", help="Write the votes behind a verdict, signed.")
        made.add_argument("id", type=UUID)
        made.add_argument("--to", type=Path, metavar="FILE", help="Default: its id.jsonl.gz here.")
        checked = actions.add_parser(
            "verify",
            help="Make the verdict of a snapshot again, from the file alone. Ends with 0 if it "
            "agrees, 1 if it differs, 3 if the file can't be trusted.",
        )
        checked.add_argument("file", type=Path)
        checked.add_argument("--key", help="The site's public key; default: this site's own.")
        actions.add_parser("key", help="The public key that checks this site's snapshots.")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        getattr(self, f"_{action}")(**options)

    def _plan(self, tie_rate: float | None, voters: int | None, **options: Any) -> None:
        try:
            self._print(planned(proposed(options), tie_rate, voters))
        except NotStarted as error:
            raise CommandError(str(error)) from None

    def _start(self, **options: Any) -> None:
        try:
            experiment, new = start_or_find(proposed(options))
        except NotStarted as error:
            raise CommandError(str(error)) from None
        self.stderr.write("Started." if new else "Found: it has been started before.")
        self._print(state_of(experiment, newest(experiment)))

    def _list(self, **options: Any) -> None:
        experiments = list(Experiment.objects.order_by("-created_at"))
        stand = newest_of(experiments)
        for experiment in experiments:
            made = stand.get(experiment.pk)
            votes = f"{made.votes if made else 0} of {experiment.max_votes} votes"
            verdict = made.verdict if made and made.verdict else experiment.state
            self.stdout.write(
                f"{experiment.pk}  {experiment.category}  {verdict}  {votes}  {experiment.name}"
            )

    def _show(self, id: UUID, **options: Any) -> None:
        experiment = self._experiment(id)
        self._print(state_of(experiment, newest(experiment)))

    def _cancel(self, id: UUID, **options: Any) -> None:
        experiment = self._experiment(id)
        if not cancel(experiment):
            raise CommandError(f"The experiment {id} is {experiment.state}, not running.")
        self.stdout.write(f"The experiment {id} is cancelled.")

    def _snapshot(self, id: UUID, to: Path | None, **options: Any) -> None:
        experiment = self._experiment(id)
        made = newest(experiment)
        if made is None:
            raise CommandError(f"The experiment {id} was not assessed yet: try again in a while.")
        file = to or Path(file_name(experiment))
        try:
            file.write_bytes(snapshot(made))
        except OSError as error:
            raise CommandError(f"{file} can't be written: {error.strerror}.") from None
        self.stdout.write(f"{file}: {made.votes} votes, {made.verdict or 'no verdict yet'}.")

    def _verify(self, file: Path, key: str | None, **options: Any) -> None:
        try:
            found = read_snapshot(file, key or self._own_key())
            differ = differences(found)
        except Unreadable as error:
            raise CommandError(str(error), returncode=NO_ANSWER) from None
        for difference in differ:
            self.stdout.write(str(difference))
        if differ:
            self.answer(DIFFERS)
        said = found.numbers
        self.stdout.write(
            f"{file} agrees: {said['verdict'] or 'no verdict yet'} by {said['votes']} votes in "
            f"{said['blocks']} blocks."
        )

    def _key(self, **options: Any) -> None:
        self.stdout.write(public_key())

    def _own_key(self) -> str:
        try:
            return public_key()
        except ImproperlyConfigured:
            return ""  # not at a site: the key has to be given

    def _experiment(self, id: UUID) -> Experiment:
        experiment = Experiment.objects.filter(pk=id).first()
        if experiment is None:
            raise CommandError(f"There is no experiment {id}.")
        return experiment

    def _print(self, said: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(said, allow_nan=False))
