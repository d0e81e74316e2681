import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from arena.experiments.proposal import NotStarted, PlanInput, ProposalInput, resolve
from arena.experiments.start import cancel_experiment, start_or_find
from arena.models import Experiment
from ratings.experiments.planning import plan_now
from ratings.experiments.snapshots import file_name, make_snapshot, public_key
from ratings.experiments.state import newest_assessment, newest_assessments, state_of
from ratings.experiments.verification import UnreadableSnapshot, differences, read_snapshot
from ratings.pipeline.options import add_options, read_options, whose


class Command(BaseCommand):
    help = "Plan, start, list, show and cancel experiments; make and verify snapshots of them."
    requires_system_checks = []  # to verify a snapshot takes no site

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        planned = actions.add_parser(
            "plan", help="What an experiment would cost and find, as JSON; nothing is started."
        )
        add_options(planned, PlanInput)
        started = actions.add_parser(
            "start", help="Start one, or find the one of the same design; prints it as JSON."
        )
        add_options(started, ProposalInput)
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
            "agrees, and with 1 if it differs or the file can't be trusted.",
        )
        checked.add_argument("file", type=Path)
        checked.add_argument("--key", help="The site's public key; default: this site's own.")
        actions.add_parser("key", help="The public key that checks this site's snapshots.")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        try:
            getattr(self, f"_{action}")(**options)
        except NotStarted as error:
            raise CommandError(str(error)) from None

    def _plan(self, **options: Any) -> None:
        self._print(plan_now(read_options(PlanInput, options)))

    def _start(self, **options: Any) -> None:
        proposal = resolve(read_options(ProposalInput, options), whose())
        experiment, new = start_or_find(proposal)
        self.stderr.write("Started." if new else "Found: it has been started before.")
        self._print(state_of(experiment, newest_assessment(experiment)))

    def _list(self, **options: Any) -> None:
        experiments = list(Experiment.objects.order_by("-created_at"))
        newest = newest_assessments(experiments)
        for experiment in experiments:
            made = newest.get(experiment.pk)
            votes = f"{made.votes if made else 0} of {experiment.max_votes} votes"
            verdict = made.verdict if made and made.verdict else experiment.state
            self.stdout.write(
                f"{experiment.pk}  {experiment.category}  {verdict}  {votes}  {experiment.name}"
            )

    def _show(self, id: UUID, **options: Any) -> None:
        experiment = self._experiment(id)
        self._print(state_of(experiment, newest_assessment(experiment)))

    def _cancel(self, id: UUID, **options: Any) -> None:
        experiment = self._experiment(id)
        if not cancel_experiment(experiment):
            raise CommandError(f"The experiment {id} is {experiment.state}, not running.")
        self.stdout.write(f"The experiment {id} is cancelled.")

    def _snapshot(self, id: UUID, to: Path | None, **options: Any) -> None:
        experiment = self._experiment(id)
        made = newest_assessment(experiment)
        if made is None:
            raise CommandError(f"The experiment {id} was not assessed yet: try again in a while.")
        file = to or Path(file_name(experiment))
        try:
            file.write_bytes(make_snapshot(made))
        except OSError as error:
            raise CommandError(f"{file} can't be written: {error.strerror}.") from None
        self.stdout.write(f"{file}: {made.votes} votes, {made.verdict or 'no verdict yet'}.")

    def _verify(self, file: Path, key: str | None, **options: Any) -> None:
        try:
            found = read_snapshot(file, key or self._own_key())
            differ = differences(found)
        except UnreadableSnapshot as error:
            raise CommandError(str(error)) from None
        for difference in differ:
            self.stdout.write(str(difference))
        if differ:
            raise CommandError(f"{file}: its votes give other numbers.")
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
