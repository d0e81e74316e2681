"""A person votes: takes a pair, watches it, answers, sees who was who."""

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from arena.models import Battle, Skip, Vote, Voter
from arena.tasks import sweep_visitors
from arena.voting.identity import COOKIE, cookie_value, voter_of
from arena.voting.views import GONE, STORAGE_AWAY
from generation.catalogue.categories import Category
from generation.models import Clip, ClipState
from generation.rendering.queue import show_held
from generation.rendering.sweep import fail_if_lost
from generation.tasks import withdraw_lost_clips

pytestmark = pytest.mark.django_db
JSON = {"headers": {"accept": "application/json"}}


def battle_on(client: Client, path: str = "/vote/") -> dict | None:
    """Ask for the next pair by the page's form, as without JavaScript; what the page then shows."""
    stream = path.removeprefix("/vote/") or "mixed/"
    return battle_shown(client.post(f"/vote/{stream}next/", follow=True))


def battle_shown(page) -> dict | None:
    assert page.status_code == 200
    data = re.search(
        r'<script id="battle-data" type="application/json">(.*?)</script>', page.text, re.S
    )
    assert data is not None
    return json.loads(data[1])


def voter_in(client: Client) -> Voter | None:
    """Who the site takes this browser for."""
    request = RequestFactory().get("/")
    request.COOKIES = {name: morsel.value for name, morsel in client.cookies.items()}
    return voter_of(request)


def body(response) -> bytes:
    return b"".join(response.streaming_content)


def test_a_newcomer_reads_what_voting_is_and_starts_with_a_form(
    client: Client, votable: list[Clip]
) -> None:
    for path, action in (("/vote/", "mixed"), ("/vote/t2v-silent/", "t2v-silent"), ("/", "mixed")):
        page = client.get(path)
        assert page.status_code == 200
        assert f'<form method="post" action="/vote/{action}/next/">' in page.text
        assert "Start voting" in page.text
    assert COOKIE not in client.cookies
    assert not Voter.objects.exists()
    started = client.post("/vote/t2v-silent/next/")
    assert (started.status_code, started["Location"]) == (303, "/vote/t2v-silent/")
    battle = battle_shown(client.get("/vote/t2v-silent/"))
    assert battle is not None
    assert Battle.objects.get().voter == Voter.objects.get()
    assert Battle.objects.get().stream == "t2v-silent"


def test_who_starts_gets_a_cookie_and_a_pair(client: Client, votable: list[Clip]) -> None:
    battle = battle_on(client)
    assert battle is not None
    assert client.cookies["voter"]["httponly"]
    assert Voter.objects.count() == 1
    video = client.get(battle["a"]["video"])
    assert video.status_code == 200
    assert video["Content-Type"] == "video/mp4"
    assert body(video)[4:8] == b"ftyp"
    assert client.get(battle["b"]["poster"])["Content-Type"] == "image/jpeg"


def test_nothing_on_the_page_or_in_the_files_names_a_version(
    client: Client, votable: list[Clip]
) -> None:
    battle = battle_on(client)
    assert battle is not None
    page = client.get("/vote/").text.lower()
    for word in ("sharp", "tardy", "scenes", "photofinish lab"):
        assert word not in re.sub(r"<(title|script).*?</\1>", "", page, flags=re.S)
    answer = client.get(battle["a"]["video"])
    told = " ".join(f"{k}: {v}" for k, v in answer.headers.items()).lower()
    assert "last-modified" not in told
    assert "etag" not in told
    for clip in votable:
        assert str(clip.pk) not in told
        assert str(clip.pk) not in page


def test_a_reload_shows_the_same_pair(client: Client, votable: list[Clip]) -> None:
    first, second = battle_on(client), battle_on(client)
    assert first == second == battle_shown(client.get("/vote/"))
    assert Battle.objects.count() == 1


def test_a_page_never_draws_a_pair(client: Client, votable: list[Clip]) -> None:
    battle = battle_on(client)
    assert battle is not None
    client.post(battle["vote_url"], {"choice": "a"})
    assert battle_shown(client.get("/vote/")) is None
    page = client.get(f"/battles/{battle['id']}/").text
    for text in (page, client.get("/vote/").text):
        assert 'action="/vote/mixed/next/"' in text
        assert "Next pair" in text
    assert Battle.objects.count() == 1
    assert battle_on(client) is not None


def test_a_script_without_the_cookie_is_told_so(client: Client, votable: list[Clip]) -> None:
    for path in ("/vote/mixed/next/", "/vote/mixed/keep/"):
        refused = client.post(path, **JSON)
        assert refused.status_code == 403
        assert "sent no voter cookie" in refused.json()["error"]
    assert not Voter.objects.exists()


def test_a_vote_is_recorded_once_and_reveals_the_names(client: Client, votable: list[Clip]) -> None:
    battle = battle_on(client)
    assert battle is not None
    answers = [client.post(battle["vote_url"], {"choice": "a"}, **JSON) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert {answers[0].json()[side]["name"] for side in ("a", "b")} == {"Sharp", "Tardy"}
    vote = Vote.objects.get()
    assert vote.choice == "a"
    assert vote.version_a == vote.battle.clip_a.version
    assert answers[0].json()["a"]["name"] == vote.version_a.name
    assert answers[0].json()["my_votes"] == 1
    assert not vote.simulated


def test_another_answer_to_the_same_pair_is_refused(client: Client, votable: list[Clip]) -> None:
    battle = battle_on(client)
    assert battle is not None
    client.post(battle["vote_url"], {"choice": "a"}, **JSON)
    again = client.post(battle["vote_url"], {"choice": "tie"}, **JSON)
    assert again.status_code == 409
    assert "final" in again.json()["error"]
    assert Vote.objects.get().choice == "a"


def test_without_javascript_the_form_leads_to_the_reveal(
    client: Client, votable: list[Clip]
) -> None:
    battle = battle_on(client)
    assert battle is not None
    page = client.post(battle["vote_url"], {"choice": "both_bad"}, follow=True)
    assert page.redirect_chain[0][0] == f"/battles/{battle['id']}/"
    assert "Sharp" in page.text
    assert "Tardy" in page.text


def test_the_reveal_is_not_given_before_the_vote(client: Client, votable: list[Clip]) -> None:
    battle = battle_on(client)
    assert battle is not None
    assert client.get(f"/battles/{battle['id']}/").status_code == 302


def test_another_voter_can_neither_watch_nor_vote(
    client: Client, votable: list[Clip], make_voter: Callable
) -> None:
    battle = battle_on(client)
    assert battle is not None
    stranger, _ = make_voter()
    assert stranger.get(battle["a"]["video"]).status_code == 403
    refused = stranger.post(battle["vote_url"], {"choice": "a"}, **JSON)
    assert refused.status_code == 403
    assert "shown to someone else" in refused.json()["error"]
    assert Client().post(battle["vote_url"], {"choice": "a"}, **JSON).status_code == 403
    assert not Vote.objects.exists()


def test_an_expired_pair_is_refused_and_replaced(client: Client, votable: list[Clip]) -> None:
    battle = battle_on(client)
    assert battle is not None
    Battle.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    refused = client.post(battle["vote_url"], {"choice": "a"}, **JSON)
    assert refused.status_code == 410
    assert not Vote.objects.exists()
    following = battle_on(client)
    assert following is not None
    assert following["id"] != battle["id"]


def test_an_answer_that_is_none_is_refused(client: Client, votable: list[Clip]) -> None:
    battle = battle_on(client)
    assert battle is not None
    for choice in ("", "LEFT", "winner"):
        assert client.post(battle["vote_url"], {"choice": choice}, **JSON).status_code == 400
    assert client.get(battle["vote_url"]).status_code == 405
    assert not Vote.objects.exists()


def test_a_post_without_a_token_is_refused(votable: list[Clip], make_voter: Callable) -> None:
    plain, voter = make_voter()
    battle = battle_on(plain)
    assert battle is not None
    strict = Client(enforce_csrf_checks=True)
    strict.cookies[COOKIE] = cookie_value(voter)
    assert strict.post(battle["vote_url"], {"choice": "a"}).status_code == 403
    assert not Vote.objects.exists()


def test_a_skip_is_recorded_and_is_not_a_vote(client: Client, votable: list[Clip]) -> None:
    battle = battle_on(client)
    assert battle is not None
    assert client.post(battle["skip_url"], **JSON).json() == {"skipped": True}
    assert client.post(battle["skip_url"], **JSON).json() == {"skipped": True}
    assert Battle.objects.count() == 1
    assert Skip.objects.count() == 1
    late = client.post(battle["vote_url"], {"choice": "a"}, **JSON)
    assert late.status_code == 409
    assert not Vote.objects.exists()
    following = battle_on(client)
    assert following is not None
    assert following["id"] != battle["id"]


def test_the_next_pair_is_given_ahead_but_pairs_can_not_be_collected(
    client: Client, votable: list[Clip]
) -> None:
    battle = battle_on(client)
    assert battle is not None
    ahead = client.post("/vote/mixed/next/", {"have": [battle["id"]]}, **JSON).json()["battle"]
    assert ahead["id"] != battle["id"]
    same = client.post("/vote/mixed/next/", {"have": [battle["id"]]}, **JSON).json()["battle"]
    assert same["id"] == ahead["id"]
    client.post(battle["vote_url"], {"choice": "tie"}, **JSON)
    shown = battle_on(client)
    assert shown is not None
    assert shown["id"] == ahead["id"]


def test_every_pair_comes_once_and_then_the_page_says_so(
    client: Client, votable: list[Clip]
) -> None:
    seen = set()
    while battle := battle_on(client):
        seen.add(battle["prompt"])
        assert len(seen) <= 2
        client.post(battle["vote_url"], {"choice": "b"}, **JSON)
    assert len(seen) == 2  # two prompts, one pair of versions
    assert "seen every pair here" in client.post("/vote/mixed/next/").text


def test_sides_are_drawn_at_random(votable: list[Clip], make_voter: Callable) -> None:
    left = set()
    for _ in range(20):  # all on one side would happen by chance once in half a million runs
        browser, _ = make_voter()
        battle = battle_on(browser)
        assert battle is not None
        left.add(Battle.objects.get(pk=battle["id"]).clip_a.version.slug)
    assert left == {"sharp", "tardy"}


def lose(clip: Clip) -> None:
    clip.rendition.storage.delete(clip.rendition.name)


def test_a_clip_whose_file_is_gone_is_found_within_a_day(
    client: Client, votable: list[Clip], caplog: pytest.LogCaptureFixture, admin_client: Client
) -> None:
    """It is drawn no more, and the operator reads why."""
    for clip in votable:
        if clip.prompt.key == "few-1":
            lose(clip)
    assert withdraw_lost_clips() == 2
    lost = Clip.objects.filter(state=ClipState.FAILED)
    assert {clip.prompt.key for clip in lost} == {"few-1"}
    assert all("missing from the media storage" in clip.error for clip in lost)
    assert all(f"clip {clip.pk} is shown no more" in caplog.text for clip in lost)
    page = admin_client.get(reverse("progress")).text
    assert "is missing from the media storage" in page
    battle = battle_on(client)
    assert battle is not None
    assert battle["prompt"] == "a small blue star slides right at night"
    client.post(battle["vote_url"], {"choice": "tie"}, **JSON)
    assert battle_on(client) is None


def test_a_file_that_was_cut_off_is_found_within_a_day(votable: list[Clip], media: Path) -> None:
    """Votable clips of tests were stored without their size, as those of earlier versions."""
    short = votable[0]
    size = (media / str(short.rendition)).stat().st_size
    Clip.objects.filter(pk=short.pk).update(rendition_bytes=size + 1)
    Clip.objects.filter(pk=votable[1].pk).update(
        rendition_bytes=(media / str(votable[1].rendition)).stat().st_size
    )
    assert withdraw_lost_clips() == 1
    short.refresh_from_db()
    assert f"has {size} of {size + 1} bytes of the file {short.rendition}" in short.error


def test_a_held_clip_without_its_file_is_not_shown(votable: list[Clip]) -> None:
    for clip in votable[:2]:
        Clip.objects.filter(pk=clip.pk).update(state=ClipState.HELD, held_because="it is black")
    lose(votable[0])
    assert show_held(Clip.objects.all()) == 1
    states = [Clip.objects.get(pk=clip.pk).state for clip in votable[:2]]
    assert states == [ClipState.FAILED, ClipState.READY]


def test_a_voter_whose_clip_has_lost_its_file_gets_the_next_pair(
    client: Client, votable: list[Clip]
) -> None:
    battle = battle_on(client)
    assert battle is not None
    lost = Battle.objects.get(pk=battle["id"]).clip_a
    lose(lost)
    gone = client.get(battle["a"]["video"], **JSON)
    assert (gone.status_code, gone.json()) == (404, {"error": GONE})
    lost.refresh_from_db()
    assert lost.state == ClipState.FAILED
    assert "missing from the media storage" in lost.error
    ahead = client.post("/vote/mixed/next/", **JSON).json()["battle"]
    assert ahead["id"] != battle["id"]
    following = Battle.objects.get(pk=ahead["id"])
    assert lost.pk not in (following.clip_a_id, following.clip_b_id)
    assert client.head(ahead["a"]["video"]).status_code == 200
    # A page that is opened again has that pair, too.
    shown = client.get("/vote/").text
    assert ahead["id"] in shown
    assert battle["id"] not in shown
    # An answer that was given before the page knew is taken still.
    assert client.post(battle["vote_url"], {"choice": "a"}, **JSON).status_code == 200


def test_a_file_that_is_there_again_costs_no_clip(client: Client, votable: list[Clip]) -> None:
    battle = battle_on(client)
    assert battle is not None
    assert not any(fail_if_lost(clip.pk) for clip in votable)
    assert client.get(battle["a"]["video"]).status_code == 200


def test_a_storage_that_is_away_costs_no_clip(
    client: Client, votable: list[Clip], media: Path
) -> None:
    battle = battle_on(client)
    assert battle is not None
    away = media.rename(media.with_name("away"))
    answer = client.get(battle["a"]["video"], **JSON)
    assert (answer.status_code, answer.json()) == (503, {"error": STORAGE_AWAY})
    assert withdraw_lost_clips() == 0
    away.rename(media)
    assert client.get(battle["a"]["video"]).status_code == 200
    again = battle_on(client)
    assert again is not None
    assert again["id"] == battle["id"]


def test_a_poster_that_is_gone_is_a_lost_clip(client: Client, votable: list[Clip]) -> None:
    battle = battle_on(client)
    assert battle is not None
    lost = Battle.objects.get(pk=battle["id"]).clip_b
    lost.poster.storage.delete(lost.poster.name)
    assert client.get(battle["b"]["poster"]).status_code == 404
    lost.refresh_from_db()
    assert lost.state == ClipState.FAILED


def test_a_page_for_one_category_shows_only_that(
    client: Client, few, two_versions, render_all
) -> None:
    render_all(few, Category.T2V_SILENT, Category.I2V_AUDIO)
    battle = battle_on(client, "/vote/i2v-audio/")
    assert battle is not None
    assert battle["audio"] is True
    assert client.get(battle["image"])["Content-Type"] == "image/webp"
    assert battle_on(client, "/vote/i2v-silent/") is None
    assert client.get("/vote/nonsense/").status_code == 404


def test_parts_of_a_file_as_browsers_ask_for_them(client: Client, votable: list[Clip]) -> None:
    battle = battle_on(client)
    assert battle is not None
    url = battle["a"]["video"]
    whole = body(client.get(url))
    part = client.get(url, headers={"range": "bytes=4-7"})
    assert part.status_code == 206
    assert part["Content-Range"] == f"bytes 4-7/{len(whole)}"
    assert body(part) == whole[4:8]
    assert body(client.get(url, headers={"range": "bytes=-5"})) == whole[-5:]
    assert body(client.get(url, headers={"range": "bytes=10-"})) == whole[10:]
    assert client.get(url, headers={"range": f"bytes={len(whole)}-"}).status_code == 416
    for ignored in ("bytes=0-" + 5000 * "9", "frames=1-2", "bytes=-", "bytes=1-2,5-6"):
        assert client.get(url, headers={"range": ignored}).status_code == 200
    assert client.head(url).headers["Content-Length"] == str(len(whole))
    assert client.get(f"/battles/{36 * '-'}/a.mp4").status_code == 404


class TestTheLedger:
    def test_refuses_changes_even_by_its_owner(self, client: Client, votable: list[Clip]) -> None:
        battle = battle_on(client)
        assert battle is not None
        client.post(battle["vote_url"], {"choice": "a"}, **JSON)
        for change in (
            lambda: Vote.objects.update(choice="b"),
            lambda: Vote.objects.all().delete(),
        ):
            with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
                change()
        assert Vote.objects.get().choice == "a"

    def test_gives_the_site_no_right_to_change_it(self, db) -> None:
        with connection.cursor() as cursor:
            for table in ("arena_vote", "arena_skip", "arena_exclusion"):
                cursor.execute(
                    "SELECT has_table_privilege('photofinish_site', %s, 'INSERT'),"
                    " has_table_privilege('photofinish_site', %s, 'UPDATE, DELETE, TRUNCATE')",
                    [table, table],
                )
                assert cursor.fetchone() == (True, False)

    def test_refuses_two_votes_on_one_battle(self, client: Client, votable: list[Clip]) -> None:
        battle = battle_on(client)
        assert battle is not None
        client.post(battle["vote_url"], {"choice": "a"}, **JSON)
        vote = Vote.objects.get()
        vote.pk = None
        with pytest.raises(DatabaseError), transaction.atomic():
            vote.save(force_insert=True)


@pytest.mark.django_db(transaction=True)
class TestManyRequestsAtOnce:
    """Of one voter, each from a browser tab of its own."""

    def together(self, count: int, what: Callable[[int], object]) -> list:
        start = threading.Barrier(count)

        def work(number: int) -> object:
            start.wait()
            try:
                return what(number)
            finally:
                connection.close()

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(work, range(count)))

    def tabs(self, voter: Voter, count: int) -> list[Client]:
        clients = [Client() for _ in range(count)]
        for client in clients:
            client.cookies[COOKIE] = cookie_value(voter)
        return clients

    def test_get_one_pair(self, votable: list[Clip], make_voter: Callable) -> None:
        _, voter = make_voter()
        tabs = self.tabs(voter, 6)
        drawn = self.together(6, lambda number: battle_on(tabs[number]))
        assert len({battle["id"] for battle in drawn}) == 1
        assert Battle.objects.count() == 1

    def test_leave_one_answer(self, votable: list[Clip], make_voter: Callable) -> None:
        browser, voter = make_voter()
        while battle := battle_on(browser):
            tabs = self.tabs(voter, 4)
            urls = [battle["vote_url"], battle["skip_url"]] * 2
            self.together(
                4,
                lambda n, tabs=tabs, urls=urls: tabs[n].post(
                    urls[n], {"choice": ("a", "", "tie", "")[n]}, **JSON
                ),
            )
        for battle in Battle.objects.all():
            assert hasattr(battle, "vote") + hasattr(battle, "skip") == 1


def test_visitors_who_never_answered_are_forgotten_after_a_day(
    client: Client, votable: list[Clip], make_voter: Callable
) -> None:
    battle = battle_on(client)
    assert battle is not None
    client.post(battle["vote_url"], {"choice": "a"}, **JSON)
    silent, _ = make_voter()
    battle_on(silent)
    assert sweep_visitors() == 0
    long_ago = timezone.now() - timedelta(days=2)
    Voter.objects.update(created_at=long_ago)
    Battle.objects.update(created_at=long_ago, expires_at=long_ago)
    assert sweep_visitors() == 1
    assert Vote.objects.get().voter == Voter.objects.get()
    assert battle_on(silent) is not None  # who comes back is a newcomer


def test_a_lost_codename_date_in_the_future_reveals_nothing(
    client: Client, votable: list[Clip], make_version: Callable
) -> None:
    version = make_version("x", codename="grey-mare")
    version.refresh_from_db()
    version.revealed_on = timezone.localdate() + timedelta(days=30)
    assert version.public_name == "grey-mare"
    version.revealed_on = timezone.localdate()
    assert version.public_name == "X"
