import json
import re
import time
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError

from arena.experiments import NotStarted, obstacles
from arena.models import Experiment, ExperimentState
from ratings.experiment_page import RULES
from ratings.experiments import assess_if_behind, newest
from ratings.management.pipeline_command import PipelineCommand, add_design, proposed
from ratings.models import Assessment, Verdict
from ratings.pipeline import start_or_find, state_of

CODES = {Verdict.PASS: 0, Verdict.REGRESSED: 1, Verdict.INCONCLUSIVE: 2}
TIME_OUT = 2
LOOK_EVERY = 5.0  # seconds; the site itself assesses every ten
TELL_EVERY = 60.0
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(said: str) -> float:
    """`90`, `90s`, `45m`, `3h` or `2d` in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", said)
    if match is None:
        raise ArgumentTypeError(f"“{said}” is no time: give such as 90s, 45m, 3h or 2d")
    return float(match[1]) * UNITS[match[2] or "s"]


class Command(PipelineCommand):
    help = (
        "Ask whether the candidate is no worse than the baseline, wait for the verdict and print "
        "it as one line of JSON. Starts the experiment, or finds the one of the same design. "
        "Ends with 0 pass, 1 regressed, 2 inconclusive or time-out, 3 wrong usage or an error."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_design(parser)
        parser.add_argument(
            "--wait", type=seconds_of, default="3h", help="For at most so long; default: 3h."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            experiment, new = start_or_find(proposed(options))
        except NotStarted as error:
            raise CommandError(str(error)) from None
        said = state_of(experiment, newest(experiment))
        what = "Started" if new else "Found"
        self.stderr.write(f"{what} the experiment {experiment.pk}: {said['address']}")
        made = self._wait(experiment, options["wait"])
        said = state_of(experiment, made)
        self.stdout.write(json.dumps({**said, "timed_out": not said["verdict"]}, allow_nan=False))
        if made is None or not made.verdict:
            held_up = bool(obstacles(experiment))
            goes_on = "it is held up by what was said above" if held_up else "votes go on"
            self.stderr.write(f"No verdict in time; {goes_on}, and the same command finds it.")
            self.answer(TIME_OUT)
        self.stderr.write(f"{made.get_verdict_display()} {RULES[made.rule]}.")
        self.answer(CODES[Verdict(made.verdict)])

    def _wait(self, experiment: Experiment, seconds: float) -> Assessment | None:
        """The first assessment with a verdict, or where it stands when the time is over."""
        end = time.monotonic() + seconds
        tell_at, known = 0.0, set[str]()
        while True:
            assess_if_behind(experiment)  # unless a worker has done so
            made = newest(experiment)
            if made is not None and made.verdict:
                return made
            experiment.refresh_from_db(fields=["state"])
            if experiment.state == ExperimentState.CANCELLED:
                raise CommandError(f"The experiment {experiment.pk} was cancelled: no verdict.")
            now = time.monotonic()
            if now >= tell_at:
                tell_at = now + TELL_EVERY
                known = self._tell_obstacles(experiment, known)
                if self.stderr.isatty():
                    self._tell(experiment, made)
            if now >= end:
                return made
            time.sleep(min(LOOK_EVERY, end - now))

    def _tell_obstacles(self, experiment: Experiment, known: set[str]) -> set[str]:
        """Those that are new: whoever waits in vain should know why."""
        there = obstacles(experiment)
        for sentence in there:
            if sentence not in known:
                self.stderr.write(sentence)
        return set(there)

    def _tell(self, experiment: Experiment, made: Assessment | None) -> None:
        said = state_of(experiment, made)
        lower, upper = said["bounds"]
        self.stderr.write(
            f"{said['votes']} of {said['max_votes']} votes, LLR {said['llr']:.2f} of "
            f"{lower:.2f} … {upper:.2f}, e-value {said['e_value']:.2f} of {said['alarm']:g}."
        )
