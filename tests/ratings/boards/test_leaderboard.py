"""A reader opens a leaderboard; an operator excludes votes; files go out."""

import csv
import io
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from arena.models import Battle, Exclusion, PairNeed, Vote, Voter
from generation.catalogue.categories import Category
from generation.models import Clip, Prompt, Version
from ratings.boards import refit as leaderboards
from ratings.boards.refit import refit, refit_if_behind
from ratings.models import Leaderboard, Standing
from ratings.tasks import refit_changed, thin_leaderboards

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast(few, make_version: Callable[..., Version]) -> Callable[..., list[Vote]]:
    """Write votes between two versions into the ledger, each on a battle of its own."""

    def cast_votes(
        winner: str,
        loser: str,
        count: int,
        choice: str = "a",
        simulated: bool = False,
        people: int = 40,
    ) -> list[Vote]:
        prompt = Prompt.objects.get(key="few-1")
        versions = [
            Version.objects.filter(slug=slug).first() or make_version(slug)
            for slug in (winner, loser)
        ]
        clips = [
            Clip.objects.get_or_create(
                version=version, prompt=prompt, category="t2v-silent", defaults={"seed": 1}
            )[0]
            for version in versions
        ]
        # Many people cast a few each: votes of one voter would say little of what others think.
        voters = [Voter.objects.create(simulated=simulated) for _ in range(min(count, people))]
        votes = []
        for number in range(count):
            voter = voters[number % len(voters)]
            battle = Battle.objects.create(
                voter=voter,
                stream="mixed",
                category="t2v-silent",
                prompt=prompt,
                clip_a=clips[0],
                clip_b=clips[1],
                draw_probability=1.0,
                expires_at=timezone.now() + timedelta(hours=1),
            )
            votes.append(
                Vote.objects.create(
                    battle=battle,
                    voter=voter,
                    category="t2v-silent",
                    version_a=versions[0],
                    version_b=versions[1],
                    prompt=prompt,
                    choice=choice,
                    simulated=simulated,
                )
            )
        return votes

    return cast_votes


def board() -> dict[str, Standing]:
    snapshot = refit(Category.T2V_SILENT)
    return {standing.version.slug: standing for standing in snapshot.standings.all()}


def test_an_empty_arena_says_so(client: Client) -> None:
    for path in ("/", "/leaderboards/", "/leaderboards/t2v-silent/", "/models/", "/methodology/"):
        assert client.get(path).status_code == 200
    assert "<h2>No votes yet</h2>" in client.get("/leaderboards/t2v-silent/").text
    assert client.get("/leaderboards/t2v-silent.json").json()["standings"] == []
    assert client.get("/leaderboards/t2v-loud/").status_code == 404


def test_winners_stand_above_losers_on_page_and_in_files(client: Client, cast: Callable) -> None:
    cast("fast", "slow", 260)
    cast("slow", "fast", 90)
    cast("fast", "slow", 30, choice="tie")
    board()
    page = client.get("/leaderboards/t2v-silent/").text
    assert "Fast leads." in page
    assert page.index(">Fast<") < page.index(">Slow<")
    document = client.get("/leaderboards/t2v-silent.json").json()
    assert [s["name"] for s in document["standings"]] == ["Fast", "Slow"]
    assert document["votes"] == 380
    first = document["standings"][0]
    assert (first["rank_low"], first["rank_high"]) == (1, 1)
    assert first["low"] < first["rating"] < first["high"]
    assert first["win_rate"] == pytest.approx((260 + 15) / 380)
    rows = list(csv.DictReader(io.StringIO(client.get("/leaderboards/t2v-silent.csv").text)))
    assert [row["name"] for row in rows] == ["Fast", "Slow"]
    assert float(rows[0]["rating"]) == pytest.approx(first["rating"], abs=0.001)


def test_a_version_far_from_the_profile_is_marked(client: Client, cast: Callable) -> None:
    cast("fast", "slow", 260)
    cast("slow", "fast", 90)
    files = {"master": "m", "rendition": "r", "poster": "p", "rendition_sha256": "0"}
    Clip.objects.filter(version__slug="slow").update(state="ready", off_format=True, **files)
    board()
    page = client.get("/leaderboards/t2v-silent/").text
    assert page.count('<span class="tag">off-format</span>') == 1
    rows = client.get("/leaderboards/t2v-silent.json").json()["standings"]
    assert {row["slug"]: row["off_format"] for row in rows} == {"fast": False, "slow": True}
    assert client.get("/models/scenes/").text.count("off-format") == 1


def test_a_lead_within_chance_is_called_a_tie(client: Client, cast: Callable) -> None:
    cast("fast", "slow", 155)
    cast("slow", "fast", 150)
    board()
    assert (
        "Fast and Slow are in a statistical tie for first place."
        in client.get("/leaderboards/t2v-silent/").text
    )


def test_a_new_version_is_listed_apart(client: Client, cast: Callable) -> None:
    cast("fast", "slow", 120)
    cast("slow", "fast", 80)
    cast("fast", "newcomer", 5)
    board()
    document = client.get("/leaderboards/t2v-silent.json").json()
    assert [s["name"] for s in document["standings"]] == ["Fast", "Slow"]
    assert [s["name"] for s in document["not_ranked"]] == ["Newcomer"]
    assert "Newcomer" in client.get("/leaderboards/t2v-silent/").text


def test_both_bad_counts_as_a_tie(cast: Callable) -> None:
    cast("fast", "slow", 50)
    cast("fast", "slow", 50, choice="both_bad")
    assert board()["slow"].win_rate == pytest.approx(0.25)


def test_the_same_ledger_gives_the_same_standings(cast: Callable) -> None:
    cast("fast", "slow", 40)
    cast("slow", "fast", 20)
    values = [
        list(
            refit(Category.T2V_SILENT)
            .standings.order_by("version_id")
            .values_list("version_id", "rating", "low", "high", "rank_low", "rank_high")
        )
        for _ in range(2)
    ]
    assert values[0] == values[1]


def test_exclusions_are_honoured_and_can_be_taken_back(cast: Callable) -> None:
    kept = cast("fast", "slow", 30)
    bad = cast("slow", "fast", 200, people=1)
    assert board()["slow"].rating > board()["fast"].rating
    Exclusion.objects.create(action="exclude", voter=bad[0].voter, reason="a bot")
    assert board()["fast"].rating > board()["slow"].rating
    assert board()["fast"].votes == 30
    Exclusion.objects.create(action="exclude", vote=kept[0], reason="a slip")
    assert board()["fast"].votes == 29
    Exclusion.objects.create(action="include", voter=bad[0].voter, reason="no bot")
    assert board()["fast"].votes == 229
    Exclusion.objects.create(action="include", vote=kept[0], reason="no slip")
    assert board()["fast"].votes == 230


class TestSimulatedVotes:
    def test_do_not_count_by_themselves(self, cast: Callable, settings) -> None:
        settings.COUNT_SIMULATED_VOTES = False
        cast("fast", "slow", 10)
        cast("slow", "fast", 300, simulated=True)
        assert board()["fast"].votes == 10

    def test_count_where_the_site_says_so_and_the_page_says_it(
        self, client: Client, cast: Callable, settings
    ) -> None:
        settings.COUNT_SIMULATED_VOTES = True
        cast("fast", "slow", 100)
        cast("slow", "fast", 300, simulated=True)
        assert board()["fast"].votes == 400
        page = client.get("/leaderboards/t2v-silent/").text
        assert "300 of these 400 votes are simulated" in page
        rows = csv.DictReader(io.StringIO(client.get("/leaderboards/t2v-silent.csv").text))
        assert {(r["simulated_votes"], r["board_votes"]) for r in rows} == {("300", "400")}


class TestTheRefit:
    def test_runs_only_where_something_is_new(self, cast: Callable) -> None:
        assert refit_changed() == []
        cast("fast", "slow", 3)
        assert refit_changed() == ["t2v-silent"]
        assert refit_changed() == []
        vote = cast("fast", "slow", 1)[0]
        assert refit_if_behind(Category.T2V_AUDIO) is None
        assert refit_changed() == ["t2v-silent"]
        Exclusion.objects.create(action="exclude", vote=vote, reason="a test")
        assert refit_changed() == ["t2v-silent"]
        assert Leaderboard.objects.count() == 3

    def test_tells_matchmaking_which_pairs_are_worth_a_vote(self, cast: Callable) -> None:
        cast("fast", "slow", 400)
        cast("slow", "fast", 300)
        cast("fast", "newcomer", 6)
        cast("newcomer", "fast", 6)
        board()
        need = {
            frozenset((row.first.slug, row.second.slug)): row.worth
            for row in PairNeed.objects.select_related("first", "second")
        }
        assert need[frozenset(("fast", "newcomer"))] > 3 * need[frozenset(("fast", "slow"))]


def test_a_codename_hides_model_and_lab_until_the_reveal(
    client: Client, cast: Callable, make_version: Callable[..., Version]
) -> None:
    make_version("secret", name="Scenes 9 Secret", codename="grey-mare")
    cast("secret", "slow", 150)
    cast("slow", "secret", 60)
    board()
    for path in ("/leaderboards/t2v-silent/", "/leaderboards/t2v-silent.json", "/models/"):
        page = client.get(path).text
        assert "Secret" not in page
        assert "secret" not in page
    assert "grey-mare" in client.get("/leaderboards/t2v-silent/").text
    Version.objects.filter(slug="secret").update(revealed_on=timezone.now().date())
    page = client.get("/leaderboards/t2v-silent/").text
    assert "Scenes 9 Secret" in page
    standings = client.get("/leaderboards/t2v-silent.json").json()["standings"]
    assert standings[0]["name"] == "Scenes 9 Secret"  # the rating carries over


def test_old_snapshots_are_thinned_to_one_a_day(cast: Callable) -> None:
    cast("fast", "slow", 3)
    boards = [refit(Category.T2V_SILENT) for _ in range(4)]
    days_ago = timezone.now() - timedelta(days=3)
    Leaderboard.objects.filter(pk__in=[b.pk for b in boards[:3]]).update(created_at=days_ago)
    assert thin_leaderboards() == 2
    assert [b.pk for b in Leaderboard.objects.order_by("pk")] == [boards[2].pk, boards[3].pk]


def test_a_new_version_takes_no_rank_from_others(client: Client, cast: Callable) -> None:
    cast("fast", "slow", 200)
    cast("slow", "fast", 150)
    cast("newcomer", "fast", 40)
    standings = board()
    assert standings["newcomer"].rating > standings["fast"].rating
    assert standings["newcomer"].rank_low is None
    assert (standings["fast"].rank_low, standings["slow"].rank_high) == (1, 2)


@pytest.mark.django_db(transaction=True)
def test_a_refit_waits_for_votes_that_are_being_cast(cast: Callable) -> None:
    """A vote has its number before it is committed; a refit may not pass it by."""
    first = cast("fast", "slow", 1)[0]
    late = Battle.objects.get(pk=first.battle_id)
    late.pk = None
    late.save(force_insert=True)
    begun, finish = threading.Event(), threading.Event()

    def vote_slowly() -> None:
        with transaction.atomic():
            Vote.objects.create(
                battle=late, voter=first.voter, category=first.category, choice="a",
                version_a=first.version_a, version_b=first.version_b,
                prompt=first.prompt, simulated=False,
            )  # fmt: skip
            begun.set()
            finish.wait(timeout=30)
        connection.close()

    slow = threading.Thread(target=vote_slowly)
    slow.start()
    assert begun.wait(timeout=30)
    threading.Timer(0.5, finish.set).start()
    snapshot = refit(Category.T2V_SILENT)  # returns only once the slow vote is in
    slow.join()
    assert snapshot.votes == 2
    assert refit_if_behind(Category.T2V_SILENT) is None


@pytest.mark.django_db(transaction=True)
def test_nobody_waits_for_a_refit_to_vote(cast: Callable, monkeypatch) -> None:
    """While a refit computes, a vote goes through; and a second refit does not queue up."""
    first = cast("fast", "slow", 1)[0]
    battle = Battle.objects.get(pk=first.battle_id)
    battle.pk = None
    battle.save(force_insert=True)
    computing, go_on = threading.Event(), threading.Event()
    real = leaderboards.read_votes

    def slowly(*args: object) -> leaderboards.CountedVotes:
        computing.set()
        assert go_on.wait(timeout=30)
        return real(*args)

    monkeypatch.setattr(leaderboards, "read_votes", slowly)
    boards: list[Leaderboard | None] = []

    def fit() -> None:
        try:
            boards.append(refit_if_behind(Category.T2V_SILENT))
        finally:
            connection.close()

    fitting = threading.Thread(target=fit)
    fitting.start()
    try:
        assert computing.wait(timeout=30)
        assert refit_if_behind(Category.T2V_SILENT) is None
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '5s'")
            Vote.objects.create(
                battle=battle, voter=first.voter, category=first.category, choice="a",
                version_a=first.version_a, version_b=first.version_b,
                prompt=first.prompt, simulated=False,
            )  # fmt: skip
    finally:
        go_on.set()
        fitting.join(timeout=30)
    assert [board.votes for board in boards if board] == [1]
    assert refit_if_behind(Category.T2V_SILENT).votes == 2


def test_boards_of_an_older_method_are_made_again(cast: Callable) -> None:
    cast("fast", "slow", 3)
    refit_changed()
    Leaderboard.objects.update(method="what an older release did")
    assert refit_changed() == ["t2v-silent"]
    assert refit_changed() == []
