"""A refit reads only what is new, survives what happens to its copy, and repeats itself exactly."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from arena.models import Battle, Choice, Exclusion, Vote, Voter
from generation.catalogue.categories import Category
from generation.models import Clip, Prompt, Version
from ratings.boards import ledger_copy
from ratings.boards.refit import content, end_of_ledger, read_votes, refit
from ratings.models import Leaderboard

pytestmark = pytest.mark.django_db
SILENT = Category.T2V_SILENT
Fill = Callable[..., None]


@pytest.fixture(autouse=True)
def copy(settings, tmp_path: Path) -> Path:
    settings.LEDGER_COPY = str(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def fill(make_version: Callable[..., Version]) -> Fill:
    """Write random votes between four versions by so many voters into the ledger."""
    versions = [make_version(f"v{i}") for i in range(4)]
    prompts = Prompt.objects.bulk_create(
        Prompt(key=f"p{i}", text="…", sounds=["silent"], aspect="1:1", seconds=1) for i in range(15)
    )
    clips = {
        (version.pk, prompt.pk): Clip.objects.create(
            version=version, prompt=prompt, category=SILENT, seed=1
        )
        for version in versions
        for prompt in prompts
    }
    rng = np.random.default_rng(5)

    def fill_ledger(count: int, voters: int = 20) -> None:
        people = Voter.objects.bulk_create(Voter() for _ in range(voters))
        battles, choices = [], []
        for number in range(count):
            left, right = rng.choice(4, 2, replace=False)
            better = (Choice.A, Choice.B) if left < right else (Choice.B, Choice.A)
            options = [*better, Choice.TIE, Choice.BOTH_BAD]
            choices.append(options[rng.choice(4, p=[0.5, 0.3, 0.1, 0.1])])
            prompt = prompts[number % 15]
            battles.append(
                Battle(
                    voter=people[number % voters],
                    stream="mixed",
                    category=SILENT,
                    prompt=prompt,
                    clip_a=clips[versions[left].pk, prompt.pk],
                    clip_b=clips[versions[right].pk, prompt.pk],
                    draw_probability=1.0,
                    expires_at=timezone.now(),
                )
            )
        Battle.objects.bulk_create(battles)
        Vote.objects.bulk_create(
            Vote(
                battle=battle,
                voter=battle.voter,
                category=SILENT,
                version_a=battle.clip_a.version,
                version_b=battle.clip_b.version,
                prompt=battle.prompt,
                choice=choice,
                simulated=False,
            )
            for battle, choice in zip(battles, choices, strict=True)
        )

    return fill_ledger


def said(board: Leaderboard) -> bytes:
    return content(board, list(board.standings.all()))


def only_file(copy: Path) -> Path:
    (file,) = copy.glob("*/t2v-silent.votes")
    return file


def test_the_copy_holds_what_the_ledger_holds(fill: Fill) -> None:
    fill(300)
    rows = ledger_copy.votes_of(SILENT.value, 10**9)
    votes = list(Vote.objects.order_by("pk"))
    assert rows["id"].tolist() == [vote.pk for vote in votes]
    assert rows["a"].tolist() == [vote.version_a_id for vote in votes]
    assert rows["b"].tolist() == [vote.version_b_id for vote in votes]
    assert rows["prompt"].tolist() == [vote.prompt_id for vote in votes]
    assert [str(ledger_copy.CHOICES[code]) for code in rows["choice"]] == [v.choice for v in votes]
    assert {voter for voter in rows["voter"].tolist() if voter < 0} == set()
    by_label: dict[int, set[object]] = {}
    for label, vote in zip(rows["voter"].tolist(), votes, strict=True):
        by_label.setdefault(label, set()).add(vote.voter_id)
    assert len(by_label) == 20
    assert all(len(people) == 1 for people in by_label.values())


def test_only_new_votes_are_read(fill: Fill, copy: Path) -> None:
    fill(200)
    refit(SILENT)
    before = only_file(copy).read_bytes()
    fill(7)
    with CaptureQueriesContext(connection) as queries:
        board = refit(SILENT)
    assert board.votes == 207
    after = only_file(copy).read_bytes()
    assert after[: len(before)] == before
    assert len(after) - len(before) == 7 * ledger_copy.ROW.itemsize
    # Beside the copying, which is counted above, only the ends of ledger and copy are asked for.
    reading = [q["sql"] for q in queries if "arena_vote" in q["sql"]]
    assert len(reading) == 2
    assert "MAX(" in reading[0]
    assert "id = ANY" in reading[1]


def test_a_cold_and_a_warm_copy_give_the_same_bytes(fill: Fill, copy: Path) -> None:
    fill(150)
    refit(SILENT)
    fill(150)
    warm = refit(SILENT)
    only_file(copy).unlink()
    cold = refit(SILENT)
    assert said(warm) == said(cold)
    assert warm.digest == cold.digest
    assert len(json.loads(said(cold))["standings"]) == 4


def test_a_digest_tells_boards_apart(fill: Fill) -> None:
    fill(150)
    first = refit(SILENT)
    fill(1)
    assert refit(SILENT).digest != first.digest


def test_a_copy_of_another_ledger_is_not_used(fill: Fill, copy: Path) -> None:
    fill(100)
    right = refit(SILENT)
    file = only_file(copy)
    rows = np.fromfile(file, ledger_copy.ROW)
    for name, change in (("voter", 1), ("a", 1), ("id", 5000), ("choice", 1)):
        wrong = rows.copy()
        wrong[name][-1] = (
            (wrong[name][-1] + change) % 4 if name == "choice" else wrong[name][-1] + change
        )
        wrong.tofile(file)
        assert refit(SILENT).digest == right.digest
    rows[::-1].tofile(file)
    assert refit(SILENT).digest == right.digest


def test_a_copy_cut_off_in_mid_row_is_mended(fill: Fill, copy: Path) -> None:
    fill(100)
    right = refit(SILENT)
    file = only_file(copy)
    file.write_bytes(file.read_bytes()[:-17])
    assert refit(SILENT).digest == right.digest
    file.write_bytes(b"")
    assert refit(SILENT).digest == right.digest


def test_an_earlier_end_of_the_ledger_can_be_read_again(fill: Fill) -> None:
    """Votes and exclusions that came later are as if they had not been."""
    fill(120)
    early = end_of_ledger(SILENT.value)
    before = refit(SILENT)
    fill(80)
    Exclusion.objects.create(action="exclude", vote=Vote.objects.first(), reason="a test")
    refit(SILENT)
    assert read_votes(SILENT.value, early).ids.size == 120
    call_command("refit", "--verify")
    Leaderboard.objects.exclude(pk=before.pk).delete()
    call_command("refit", "--verify")


def test_what_was_tampered_with_is_found(fill: Fill, copy: Path, capsys) -> None:
    fill(120)
    board = refit(SILENT)
    call_command("refit", "--verify")
    assert "the same bytes" in capsys.readouterr().out

    Leaderboard.objects.filter(pk=board.pk).update(digest="0" * 64)
    with pytest.raises(CommandError, match="1 of 1 boards differ"):
        call_command("refit", "--verify")
    Leaderboard.objects.filter(pk=board.pk).update(digest=board.digest)
    call_command("refit", "--verify")

    standing = board.standings.get(version__slug="v1")
    board.standings.filter(pk=standing.pk).update(rating=2000.0)
    with pytest.raises(CommandError, match="1 of 1 boards differ"):
        call_command("refit", "--verify")
    board.standings.filter(pk=standing.pk).update(rating=standing.rating)
    call_command("refit", "--verify")


def test_a_damaged_middle_of_the_copy_is_found(fill: Fill, copy: Path) -> None:
    """The copy's ends are looked at each time; what lies between, by --verify."""
    fill(120)
    refit(SILENT)
    rows = np.fromfile(only_file(copy), ledger_copy.ROW)
    rows["choice"][40:90] = 0
    rows.tofile(only_file(copy))
    fill(1)
    refit(SILENT)
    with pytest.raises(CommandError, match="1 of 1 boards differ"):
        call_command("refit", "--verify")


def test_votes_of_one_voter_widen_the_interval(fill: Fill) -> None:
    """The same number of votes says less when two people cast them."""

    def width() -> float:
        standing = refit(SILENT).standings.get(version__slug="v1")
        return standing.high - standing.low

    fill(400, voters=100)
    many = width()
    for voter in Voter.objects.all():
        Exclusion.objects.create(action="exclude", voter=voter, reason="a test")
    fill(400, voters=2)
    assert width() > 2 * many
