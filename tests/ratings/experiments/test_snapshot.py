"""A verdict's votes leave the site as a file; whoever has it makes the verdict again."""

import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from arena.models import Exclusion, Experiment, Vote
from generation.models import Version
from ratings.experiments.assessment import assess
from ratings.experiments.snapshots import make_snapshot
from tests.pipeline import cast, start_experiment

pytestmark = pytest.mark.django_db


@pytest.fixture
def experiment(make_version: Callable[..., Version]) -> Experiment:
    """One whose candidate is worse, with a vote that was taken out."""
    experiment = start_experiment(make_version)
    cast(experiment, wins=0.2)
    vote = Vote.objects.order_by("pk")[10]
    Exclusion.objects.create(action="exclude", vote=vote, reason="a test")
    assess(experiment)
    return experiment


@pytest.fixture
def file(experiment: Experiment, tmp_path: Path) -> Path:
    file = tmp_path / "votes.jsonl.gz"
    call_command("experiment", "snapshot", str(experiment.pk), "--to", str(file))
    return file


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]


def verify(file: Path, *options: str) -> tuple[int, str]:
    """The exit code and what was said."""
    out = io.StringIO()
    try:
        call_command("experiment", "verify", str(file), *options, stdout=out)
    except CommandError as error:
        return error.returncode, out.getvalue() + str(error)
    return 0, out.getvalue()


def test_it_holds_the_design_every_vote_and_the_numbers(file: Path, experiment: Experiment) -> None:
    header, *votes, numbers, signed = lines_of(file)
    assert header["experiment"] == str(experiment.pk)
    assert (header["candidate"], header["margin"]) == ("swift-2", 60.0)
    assert [line["vote"] for line in votes] == list(
        Vote.objects.order_by("pk").values_list("pk", flat=True)
    )
    assert [line["out"] for line in votes].count("excluded") == 1
    assert len({line["voter"] for line in votes}) == 12
    assert {line["block"] for line in votes} == set(range(100))
    assert (numbers["verdict"], numbers["votes"]) == ("regressed", 199)
    assert set(signed) == {"signature", "key"}


def test_it_names_no_voter(file: Path) -> None:
    text = gzip.decompress(file.read_bytes()).decode()
    voters = Vote.objects.values_list("voter_id", flat=True)
    assert not any(str(voter) in text or voter.hex in text for voter in voters)


def test_made_again_it_is_the_same_bytes(file: Path, experiment: Experiment) -> None:
    assert make_snapshot(experiment.assessments.latest()) == file.read_bytes()


def test_staff_find_it_on_the_experiments_page(
    file: Path, experiment: Experiment, client: Client
) -> None:
    page = f"/experiments/{experiment.pk}/"
    address = f"{page}snapshot.jsonl.gz"
    assert client.get(address).status_code == 302  # to the login
    client.force_login(User.objects.create_superuser("olga", password="x"))
    assert address in client.get(page).content.decode()
    assert client.get(address).content == file.read_bytes()


def test_the_votes_give_the_verdict_again_without_a_database(
    file: Path, django_db_blocker: Any
) -> None:
    with django_db_blocker.block():
        code, said = verify(file)
    assert code == 0, said
    assert "regressed by 199 votes" in said


def test_another_site_asks_for_the_key(file: Path, settings: Any) -> None:
    key = lines_of(file)[-1]["key"]
    settings.SNAPSHOT_KEY = "ab" * 32
    code, said = verify(file)
    assert code == 1
    assert f"signed with the key {key}" in said
    assert verify(file, "--key", key)[0] == 0


def test_away_from_a_site_the_key_is_given(file: Path, settings: Any) -> None:
    key = lines_of(file)[-1]["key"]
    settings.SECRET_KEY = ""
    assert verify(file)[0] == 1
    assert verify(file, "--key", key)[0] == 0


def test_numbers_that_the_votes_do_not_give_are_named(
    experiment: Experiment, tmp_path: Path
) -> None:
    made = experiment.assessments.latest()
    made.verdict, made.llr = "pass", made.llr + 0.5
    file = tmp_path / "wrong.jsonl.gz"
    file.write_bytes(make_snapshot(made))
    code, said = verify(file)
    assert code == 1
    assert "verdict: the file says pass, its votes give regressed." in said
    assert re.search(r"^llr: the file says .*, its votes give .*\.$", said, re.M)
    assert said.splitlines()[2:] == [f"{file}: its votes give other numbers."]


def changed(data: bytes) -> bytes:
    return gzip.compress(gzip.decompress(data).replace(b'"a","choice"', b'"b","choice"', 1))


def without_end(data: bytes) -> bytes:
    return gzip.compress(b"".join(gzip.decompress(data).splitlines(True)[:-1]))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (changed, "was changed after it was signed"),
        (without_end, "does not end with a signature: it was cut"),
        (lambda data: data[:-100], "is no gzip file, or was cut"),
        (lambda data: b"", "does not end with a signature"),
        (lambda data: b"something else", "is no gzip file"),
        (lambda data: gzip.compress(b"[1]\n"), "does not end with a signature"),
    ],
)
def test_a_spoilt_file_is_one_sentence(
    file: Path, spoil: Callable[[bytes], bytes], sentence: str
) -> None:
    file.write_bytes(spoil(file.read_bytes()))
    code, said = verify(file)
    assert code == 1
    assert sentence in said


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    assert verify(tmp_path / "none.gz") == (
        1,
        f"{tmp_path / 'none.gz'} can't be read: No such file or directory.",
    )
