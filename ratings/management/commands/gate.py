import json
import re
import signal
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError, connection

from arena.experiments.obstacles import Obstacle, look_if_old, note_of, noted_obstacles
from arena.experiments.proposal import CLIPS_FAILED, NotStarted, ProposalInput, resolve
from arena.experiments.start import start_or_find
from arena.models import Experiment, ExperimentState
from ratings.experiments.assessment import assess_if_behind
from ratings.experiments.state import newest_assessment, state_of
from ratings.models import Assessment, Verdict
from ratings.pipeline.options import add_options, read_options, whose

LOOK_EVERY = 5.0  # seconds; the site itself assesses every ten
TELL_EVERY = 60.0
AGAIN_AFTER = 2.0  # seconds, while the database is away
ANSWER_SECONDS = 60.0  # for which an answer that is there is tried to be told
SECONDS_IN = {"s": 1, "m": 60, "h": 3600, "d": 86400}
Answer = TypeVar("Answer")


class GateCode(IntEnum):
    """What the gate ends with. Python and Django end with 1 and 2 on errors of their own."""

    PASS = 0
    REGRESSED = 10
    INCONCLUSIVE = 20
    TIME_OVER = 21
    NO_CLIPS = 30


CODES = {
    Verdict.PASS: GateCode.PASS,
    Verdict.REGRESSED: GateCode.REGRESSED,
    Verdict.INCONCLUSIVE: GateCode.INCONCLUSIVE,
}


def parse_duration(said: str) -> float:
    """`90`, `90s`, `45m`, `3h` or `2d` in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", said)
    if match is None:
        raise ArgumentTypeError(f"“{said}” is no time: give such as 90s, 45m, 3h or 2d")
    return float(match[1]) * SECONDS_IN[match[2] or "s"]


def _words(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


class Command(BaseCommand):
    help = (
        "Ask whether the candidate is no worse than the baseline, wait for the verdict and print "
        "it as one line of JSON. Starts the experiment, or finds the one of the same design. "
        "Ends with 0 pass, 10 regressed, 20 inconclusive, 21 time over, 30 clips that can't be "
        "made; anything else is an error."
    )
    requires_system_checks = []  # they answer for the whole site, and this waits for one verdict

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_options(parser, ProposalInput)
        parser.add_argument(
            "--wait",
            type=parse_duration,
            default="3h",
            help="Wait for at most this long; default: 3h.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            code = self._run(options)
        except NotStarted as error:
            if not error.lacks_clips:
                raise CommandError(str(error)) from None
            self.stderr.write(str(error))
            code = GateCode.NO_CLIPS
        except (OperationalError, InterfaceError) as error:
            raise CommandError(
                f"The database does not answer: {_words(error)}. Nothing is lost: run the same "
                "again."
            ) from error
        except KeyboardInterrupt:
            raise CommandError(
                "Interrupted: whatever was started goes on; the same command finds it.",
                returncode=128 + signal.SIGINT,
            ) from None
        self.stdout.flush()
        sys.exit(code)

    def _run(self, options: dict[str, Any]) -> GateCode:
        """Start or find the experiment, wait, and print where it stands."""
        proposal = resolve(read_options(ProposalInput, options), whose())
        experiment, new = start_or_find(proposal)
        said = state_of(experiment, newest_assessment(experiment))
        what = "Started" if new else "Found"
        self.stderr.write(f"{what} the experiment {experiment.pk}: {said['address']}")
        end = time.monotonic() + options["wait"]
        made = self._wait(experiment, end)
        last = max(end, time.monotonic() + ANSWER_SECONDS)
        said = self._until(last, lambda: state_of(experiment, made))
        self.stdout.write(json.dumps({**said, "timed_out": not said["verdict"]}, allow_nan=False))
        if made is not None and made.verdict:
            self.stderr.write(f"{made.get_verdict_display()} {made.get_rule_display()}.")
            return CODES[Verdict(made.verdict)]
        if experiment.state == ExperimentState.FAILED:
            self.stderr.write(experiment.error)
            return GateCode.NO_CLIPS
        if any(obstacle["code"] == CLIPS_FAILED for obstacle in said["obstacles"]):
            self.stderr.write("No verdict: clips failed. With them made, the same command goes on.")
            return GateCode.NO_CLIPS
        goes_on = "what was said above blocks it" if said["obstacles"] else "votes go on"
        self.stderr.write(f"No verdict in time; {goes_on}, and the same command finds it.")
        return GateCode.TIME_OVER

    def _wait(self, experiment: Experiment, end: float) -> Assessment | None:
        """The first assessment with a verdict, or the newest when the time is over, the experiment
        failed, or no pair is left whose clips could be made."""
        self._tell_at, self._told = 0.0, list[Obstacle]()
        while True:
            made, over = self._until(end, lambda: self._look(experiment))
            now = time.monotonic()
            if over or now >= end:
                return made
            time.sleep(min(LOOK_EVERY, end - now))

    def _look(self, experiment: Experiment) -> tuple[Assessment | None, bool]:
        """The newest assessment, and whether there is nothing to wait for."""
        assess_if_behind(experiment)  # unless a worker has done so
        made = newest_assessment(experiment)
        if made is not None and made.verdict:
            return made, True
        look_if_old(experiment)  # unless a worker has done so
        experiment.refresh_from_db()
        if experiment.state == ExperimentState.CANCELLED:
            raise CommandError(f"The experiment {experiment.pk} was cancelled: no verdict.")
        if experiment.state == ExperimentState.FAILED:
            return made, True
        if time.monotonic() >= self._tell_at:
            self._told = self._tell_obstacles(experiment, self._told)
            if self.stderr.isatty():
                self._tell_progress(experiment, made)
            self._tell_at = time.monotonic() + TELL_EVERY
        note = note_of(experiment)
        return made, note is not None and note.out_of_clips

    def _until(self, end: float, ask: Callable[[], Answer]) -> Answer:
        """What the database says, however often it has to be asked: it may restart meanwhile."""
        told = False
        while True:
            try:
                return ask()
            except (OperationalError, InterfaceError) as error:
                if connection.in_atomic_block or time.monotonic() >= end:
                    raise
                connection.close()
                if not told:
                    self.stderr.write(f"The database is away ({_words(error)}): waiting for it.")
                told = True
                time.sleep(max(0.0, min(AGAIN_AFTER, end - time.monotonic())))

    def _tell_obstacles(self, experiment: Experiment, told: list[Obstacle]) -> list[Obstacle]:
        """Those that are new: whoever waits in vain should know why."""
        there = noted_obstacles(experiment)
        for obstacle in there:
            if obstacle not in told:
                self.stderr.write(obstacle.sentence)
        return there

    def _tell_progress(self, experiment: Experiment, made: Assessment | None) -> None:
        said = state_of(experiment, made)
        lower, upper = said["bounds"]
        self.stderr.write(
            f"{said['votes']} of {said['max_votes']} votes, LLR {said['llr']:.2f} of "
            f"{lower:.2f} … {upper:.2f}, e-value {said['e_value']:.2f} of {said['alarm']:g}."
        )
