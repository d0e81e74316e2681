"""A pipeline waits for a verdict: one line of JSON, and an exit code that no error can imitate."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, ManagementUtility, call_command
from django.db import connection

from arena.models import Experiment
from generation.models import Clip, Version
from ratings.experiment_page import RULES
from ratings.management.pipeline_command import Answer
from tests.pipeline import OPTIONS, cast, set_scene

PROJECT = Path(__file__).resolve().parent.parent
Versions = tuple[Version, Version]


@pytest.fixture
def versions(make_version: Callable[..., Version]) -> Versions:
    return set_scene(make_version)


def gate(*options: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, JSON and what was said beside it."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(Answer) as end:
        call_command("gate", *OPTIONS, "--wait", "0", *options, stdout=out, stderr=err)
    (line,) = out.getvalue().splitlines()
    return int(str(end.value.code)), json.loads(line), err.getvalue()


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as error:
        call_command(*arguments)
    return str(error.value)


@pytest.mark.django_db
class TestTheAnswer:
    def test_it_starts_once_and_then_finds(self, versions: Versions) -> None:
        code, said, beside = gate()
        assert code == 2
        assert (said["verdict"], said["timed_out"], said["votes"]) == (None, True, 0)
        assert beside.startswith(f"Started the experiment {said['experiment']}: /experiments/")
        assert said["name"] == "Swift 2 against Swift 1, text to video silent"
        again = gate()
        assert again[1]["experiment"] == said["experiment"]
        assert again[2].startswith("Found the experiment")
        assert gate("--margin", "50")[1]["experiment"] != said["experiment"]

    def test_pass_is_0(self, versions: Versions) -> None:
        gate()
        cast(Experiment.objects.get(), wins=0.7, blocks=150)
        code, said, _ = gate()
        assert (code, said["verdict"], said["rule"]) == (0, "pass", "sprt")
        assert said["llr"] >= said["bounds"][1]
        assert said["low"] < said["estimate"] < said["high"]
        assert (said["votes"], said["blocks"], said["timed_out"]) == (300, 150, False)

    def test_regressed_is_1(self, versions: Versions) -> None:
        gate()
        cast(Experiment.objects.get(), wins=0.2)
        code, said, beside = gate()
        assert (code, said["verdict"]) == (1, "regressed")
        assert said["llr"] <= said["bounds"][0] or said["e_value"] >= said["alarm"]
        assert said["high"] < 0
        assert beside.splitlines()[1:] == [f"Regressed {RULES[said['rule']]}."]

    def test_inconclusive_is_2(self, versions: Versions) -> None:
        few = ("--max-votes", "60", "--margin", "10")
        gate(*few)
        cast(Experiment.objects.get(), wins=0.5, blocks=30)
        code, said, _ = gate(*few)
        assert (code, said["verdict"], said["timed_out"]) == (2, "inconclusive", False)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (["--candidate", "swift-3"], "candidate: there is no version “swift-3”."),
            (["--panel", "nobody"], "panels: there is no panel “nobody”."),
            (["--prompt-set", "none"], "prompt_set: there is no prompt set “none”."),
            (["--margin", "0"], "The margin is 0 Elo"),
            (["--margin", "nan"], "The margin is nan Elo"),
            (["--max-votes", "61"], "The most votes are 61"),
            (["--baseline", "swift-2"], "swift-2 is on both sides"),
            (["--webhook", "ftp://x"], "The webhook is “ftp://x”"),
        ],
    )
    def test_what_makes_no_sense_is_a_sentence(
        self, versions: Versions, options: list[str], sentence: str
    ) -> None:
        assert sentence in refused("gate", *OPTIONS, *options)
        assert not Experiment.objects.exists()

    def test_a_cancelled_one_has_no_verdict(self, versions: Versions) -> None:
        said = gate()[1]
        call_command("experiment", "cancel", said["experiment"])
        assert gate()[1]["experiment"] != said["experiment"]
        again = refused("experiment", "cancel", said["experiment"])
        assert again == f"The experiment {said['experiment']} is cancelled, not running."


@pytest.mark.django_db
class TestTheOtherActions:
    def test_plan_start_list_show(self, versions: Versions) -> None:
        def said(*arguments: str) -> Any:
            out = io.StringIO()
            call_command("experiment", *arguments, stdout=out, stderr=io.StringIO())
            return out.getvalue()

        Clip.objects.filter(version=versions[0], prompt__key="quartet-0").delete()
        plan = json.loads(said("plan", *OPTIONS))
        assert plan["max_votes"] == 400
        assert not Experiment.objects.exists()
        started = json.loads(said("start", *OPTIONS))
        assert started == json.loads(said("start", *OPTIONS))
        assert started == json.loads(said("show", started["experiment"]))
        assert Clip.objects.filter(version=versions[0], prompt__key="quartet-0").exists()
        (line,) = said("list").splitlines()
        assert line.startswith(f"{started['experiment']}  t2v-silent  running  0 of 400 votes")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gate", "--candidate", "a"], "the following arguments are required"),
        (["gate", *OPTIONS, "--wait", "long"], "“long” is no time"),
        (["experiment", "undo"], "invalid choice: 'undo'"),
    ],
)
def test_wrong_usage_is_3(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        ManagementUtility(["manage.py", *arguments]).execute()
    assert end.value.code == 3
    assert sentence in capsys.readouterr().err


# --- as a pipeline runs it -----------------------------------------------------------------------


def command(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background their children would ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    process = command(*arguments, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture
def database(transactional_db: None) -> str:
    """The test database's address, for other processes."""
    return os.environ["DATABASE_URL"].rsplit("/", 1)[0] + "/" + connection.settings_dict["NAME"]


def test_exit_codes_are_those_of_the_verdict(versions: Versions, database: str) -> None:
    process = command("gate", *OPTIONS, "--wait", "1h", DATABASE_URL=database)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Started the experiment")
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (3, "")
    assert err == "Interrupted: whatever was started goes on; the same command finds it.\n"

    cast(Experiment.objects.get(), wins=0.2)
    code, out, err = run("gate", *OPTIONS, "--wait", "1h", DATABASE_URL=database)
    assert code == 1, err
    assert json.loads(out)["verdict"] == "regressed"
    assert out.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (
            ["gate", *OPTIONS],
            {"DATABASE_URL": "postgres://nobody:x@127.0.0.1:9/none"},
            "The database does not answer: connection failed",
        ),
        (["gate", *OPTIONS], {"MEDIA_STORAGE": "nonsense"}, "MEDIA_STORAGE is “nonsense”"),
    ],
)
def test_no_error_looks_like_a_verdict(
    arguments: list[str], environment: dict[str, str], sentence: str
) -> None:
    code, out, err = run(*arguments, **environment)
    assert (code, out) == (3, ""), err
    assert sentence in err
