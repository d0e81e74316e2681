"""A pipeline waits for a verdict: one line of JSON, and an exit code that no error has."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, ManagementUtility, call_command
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from arena.experiments.panels import add_members, why_done
from arena.experiments.slots import reconcile_slots
from arena.models import Block, Experiment, ObstacleNote, Panel
from arena.tasks import look_at_experiments
from generation.models import Clip, Version
from ratings.experiments.assessment import assess
from ratings.management.commands import gate as gate_command
from ratings.models import StoppingRule
from tests.pipeline import OPTIONS, PROMPTS, cast, set_scene

PROJECT = Path(__file__).resolve().parents[3]
Versions = tuple[Version, Version]


@pytest.fixture
def versions(make_version: Callable[..., Version]) -> Versions:
    return set_scene(make_version)


def gate(*options: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, JSON and what was said beside it, where no worker has looked of late."""
    ObstacleNote.objects.update(looked_at=timezone.now() - timedelta(minutes=1))
    return gate_beside_a_worker(*options)


def gate_beside_a_worker(*options: str) -> tuple[int, dict[str, Any], str]:
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(SystemExit) as end:
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
        assert code == 21
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

    def test_regressed_is_10(self, versions: Versions) -> None:
        gate()
        cast(Experiment.objects.get(), wins=0.2)
        code, said, beside = gate()
        assert (code, said["verdict"]) == (10, "regressed")
        assert said["llr"] <= said["bounds"][0] or said["e_value"] >= said["alarm"]
        assert said["high"] < 0
        assert beside.splitlines()[1:] == [f"Regressed {StoppingRule(said['rule']).label}."]

    def test_inconclusive_is_20(self, versions: Versions) -> None:
        few = ("--max-votes", "60", "--margin", "10")
        gate(*few)
        cast(Experiment.objects.get(), wins=0.5, blocks=30)
        code, said, _ = gate(*few)
        assert (code, said["verdict"], said["timed_out"]) == (20, "inconclusive", False)

    def test_a_version_that_cannot_make_the_clips_is_30(self, versions: Versions) -> None:
        Clip.objects.filter(version=versions[0]).delete()
        Version.objects.filter(pk=versions[0].pk).update(min_seconds=2)
        err = io.StringIO()
        with pytest.raises(SystemExit) as end:
            call_command("gate", *OPTIONS, "--wait", "1h", stderr=err)
        assert end.value.code == 30
        assert err.getvalue().startswith(f"candidate: swift-2 can't make {PROMPTS} of the")
        assert not Experiment.objects.exists()

    def test_it_reads_what_a_worker_has_noted_and_looks_only_where_none_did(
        self, versions: Versions
    ) -> None:
        gate()
        assert look_at_experiments() == 0
        noted = [{"code": "panels_used_up", "sentence": "Nobody is left."}]
        ObstacleNote.objects.update(obstacles=noted)
        with CaptureQueriesContext(connection) as queries:
            code, said, beside = gate_beside_a_worker()
        assert (code, said["obstacles"]) == (21, noted)
        assert "Nobody is left." in beside
        assert not [query for query in queries if "arena_voteslot" in query["sql"]]
        ObstacleNote.objects.update(out_of_clips=True)
        assert gate_beside_a_worker("--wait", "1h")[0] == 21  # at once
        assert [each["code"] for each in gate()[1]["obstacles"]] == ["too_few_members"]

    def test_clips_that_failed_are_30_once_nothing_else_is_left_to_judge(
        self, versions: Versions
    ) -> None:
        gate()
        clips = Clip.objects.filter(version=versions[0])
        clips.filter(pk=clips[0].pk).update(state="failed", error="noise")
        code, said, beside = gate()
        assert (code, said["obstacles"][0]["code"]) == (30, "clips_failed")
        assert "1 clip of swift-2 failed" in beside
        cast(Experiment.objects.get(), wins=0.5, blocks=4)  # its votes are not given up
        reconcile_slots(Block.objects.values_list("pk", flat=True))
        clips.update(state="failed", error="noise")
        assert gate("--wait", "1h")[0] == 30  # at once
        clips.update(state="ready", error="")
        assert gate()[0] == 21
        assert Experiment.objects.count() == 1

    def test_a_checkpoint_that_renders_nothing_is_30_at_once_with_its_error(
        self, versions: Versions
    ) -> None:
        first = gate()[1]["experiment"]
        clips = Clip.objects.filter(version=versions[0])
        clips.update(state="failed", error="RuntimeError: size mismatch for proj_out.weight.")
        clips.filter(pk=clips[0].pk).update(error="Another.")
        code, said, beside = gate("--wait", "1h")
        sentence = (
            "No pair can be shown. All 12 clips of swift-2 failed: RuntimeError: size mismatch for "
            "proj_out.weight."
        )
        assert (code, said["state"], said["verdict"]) == (30, "failed", None)
        assert (said["experiment"], said["error"], said["obstacles"]) == (first, sentence, [])
        assert beside.splitlines()[-1] == sentence
        # The same again starts nothing while they are as they were, and is 30 all the same.
        err = io.StringIO()
        with pytest.raises(SystemExit) as end:
            call_command("gate", *OPTIONS, "--wait", "1h", stderr=err)
        assert end.value.code == 30
        assert "candidate: All 12 clips of swift-2 failed: RuntimeError" in err.getvalue()
        assert Experiment.objects.count() == 1
        clips.update(state="ready", error="")
        code, said, _ = gate()
        assert code == 21
        assert said["experiment"] != first

    def test_a_baseline_that_renders_nothing_ends_it_too_and_its_panel_is_told(
        self, versions: Versions
    ) -> None:
        gate()
        member = add_members(Panel.objects.get(), 1)[0]
        assert why_done(member) == ""
        Clip.objects.filter(version=versions[1]).update(state="failed", error="noise")
        assert look_at_experiments() == 1
        assert look_at_experiments() == 0
        experiment = Experiment.objects.get()
        assert experiment.state == "failed"
        assert experiment.error.endswith("All 12 clips of swift-1 failed: noise.")
        assert why_done(member).startswith("This panel has no running experiment")
        assert assess(experiment).verdict == ""
        experiment.refresh_from_db()
        assert experiment.state == "failed"

    def test_one_clip_that_can_be_shown_keeps_it_running(self, versions: Versions) -> None:
        gate()
        clips = Clip.objects.filter(version=versions[0])
        clips.exclude(pk=clips[0].pk).update(state="failed", error="noise")
        assert look_at_experiments() == 0
        assert gate()[1]["obstacles"][0]["code"] == "clips_failed"

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (["--candidate", "swift-3"], "candidate: There is no version “swift-3”."),
            (["--panel", "nobody"], "panels: There is no panel “nobody”."),
            (["--prompt-set", "none"], "prompt_set: There is no prompt set “none”."),
            (["--margin", "0"], "The margin is 0 Elo"),
            (["--margin", "0.000001"], "The margin is 1e-06 Elo. Give the smallest loss to catch"),
            (["--margin", "nan"], "The margin is nan Elo"),
            (["--max-votes", "61"], "Maximum votes is 61"),
            (["--margin", "wide"], "margin: Input should be a valid number"),
            (["--baseline", "swift-2"], "swift-2 is on both sides"),
            (["--category", "t2v"], "category: Input should be 't2v-silent'"),
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
def test_wrong_usage_is_an_error_of_django(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        ManagementUtility(["manage.py", *arguments]).execute()
    assert end.value.code == 2
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


@pytest.mark.slow
def test_exit_codes_are_those_of_the_verdict(versions: Versions, database: str) -> None:
    process = command("gate", *OPTIONS, "--wait", "1h", DATABASE_URL=database)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Started the experiment")
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "Interrupted: whatever was started goes on; the same command finds it.\n" in err

    cast(Experiment.objects.get(), wins=0.2)
    code, out, err = run("gate", *OPTIONS, "--wait", "1h", DATABASE_URL=database)
    assert code == 10, err
    assert json.loads(out)["verdict"] == "regressed"
    assert out.count("\n") == 1


@pytest.mark.slow
def test_two_at_once_wait_for_one_experiment(versions: Versions, database: str) -> None:
    """As when a pipeline starts its step twice."""
    gates = [command("gate", *OPTIONS, "--wait", "1h", DATABASE_URL=database) for _ in range(2)]
    try:
        told = sorted(gate.stderr.readline() for gate in gates if gate.stderr)
        experiment = Experiment.objects.get()
        address = f"the experiment {experiment.pk}: "
        assert [line.split("/experiments/")[0] for line in told] == [
            f"Found {address}",
            f"Started {address}",
        ]
        cast(experiment, wins=0.2)
        ended = [gate.communicate(timeout=60)[0] for gate in gates]
    finally:
        for gate in gates:
            gate.kill()
    assert [gate.returncode for gate in gates] == [10, 10]
    assert {json.loads(out)["experiment"] for out in ended} == {str(experiment.pk)}


@pytest.mark.slow
def test_a_lost_database_does_not_end_the_wait(versions: Versions, database: str) -> None:
    """Its connections are ended again and again, as when PostgreSQL restarts."""
    process = command("gate", *OPTIONS, "--wait", "1h", DATABASE_URL=database)
    assert process.stderr is not None
    try:
        assert process.stderr.readline().startswith("Started the experiment")
        ended = 0
        while ended < 3:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                ended += cursor.fetchone()[0]
            assert process.poll() is None
            time.sleep(0.2)
        assert "The database is away (" in process.stderr.readline()
        cast(Experiment.objects.get(), wins=0.2)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 10
    assert json.loads(out)["verdict"] == "regressed"


def test_a_database_that_stays_away_ends_it_in_time(
    versions: Versions, transactional_db: None
) -> None:
    told = io.StringIO()
    waiting = gate_command.Command(stderr=told)

    def away() -> None:
        raise OperationalError("the connection is closed")

    started = time.monotonic()
    with pytest.raises(OperationalError):
        waiting._until(started + 1, away)
    assert 1 <= time.monotonic() - started < 5
    assert told.getvalue() == ("The database is away (the connection is closed): waiting for it.\n")


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
    assert (code, out) == (1, ""), err
    assert sentence in err
