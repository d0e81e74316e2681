"""Whoever only looks changes nothing: visitors, link previews, crawlers and bots."""

import re
import uuid
from collections.abc import Callable, Iterator
from itertools import product

import pytest
from django.db import connection
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RoutePattern

from arena.experiments.start import start
from arena.models import Battle, Experiment, Member, Panel
from generation.models import Version, VersionState
from tests.arena.voting.test_vote import JSON, battle_on
from tests.panels import judge, make_panel, make_prompt_set, propose, sit_down, stock

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
PART = re.compile(r"<(?:(\w+):)?(\w+)>")
ANY_OF_KIND = {"int": ["1"], "uuid": [str(uuid.UUID(int=7))], "side": ["a"]}


@pytest.fixture
def panel(db) -> Panel:
    return make_panel(members=6)


@pytest.fixture
def running(make_version: Callable[..., Version], panel: Panel, settings) -> Experiment:
    """An experiment of a panel and of the public, and an arena of two versions beside it."""
    settings.CHECK_SAME = settings.CHECK_REPEAT = settings.CHECK_GOLD = 0
    candidate, baseline = make_version("colt-2", state=VersionState.TRIAL), make_version("colt-1")
    prompt_set = make_prompt_set()
    for version in (candidate, baseline, make_version("other")):
        stock(version, prompt_set)
    return start(propose(candidate, baseline, prompt_set, panel, public_share=0.5))


def content() -> dict[str, tuple[int, str]]:
    """Of each table the number of its rows and a digest of them."""
    found = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(
                "SELECT count(*), md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), ''))"
                f' FROM "{table}" t'
            )
            found[table] = cursor.fetchone()
    return found


def routes(patterns: list[URLPattern | URLResolver], before: str = "/") -> Iterator[str]:
    for each in patterns:
        if not isinstance(each.pattern, RoutePattern):  # admin's answer to all that it has not
            continue
        route = before + str(each.pattern)
        if isinstance(each, URLResolver):
            yield from routes(each.url_patterns, route)
        else:
            yield route


def addresses(known: dict[str, list[str]]) -> list[str]:
    """All of the site's, with these values in the places of that name."""
    found = []
    for route in routes(get_resolver().url_patterns):
        parts = PART.findall(route)
        values = [known.get(name) or ANY_OF_KIND.get(kind, ["x"]) for kind, name in parts]
        for chosen in product(*values):
            filled = iter(chosen)
            found.append(PART.sub(lambda _, filled=filled: next(filled), route))
    return found


def test_neither_head_nor_get_changes_anything(running: Experiment, make_voter: Callable) -> None:
    member = Member.objects.all()[0]
    judging, (voter, _) = sit_down(member), make_voter()
    voted, shown = judge(voter, path="/vote/"), battle_on(voter)
    assert voted is not None
    assert shown is not None
    unopened = Member.objects.all()[1]
    known = {
        "battle_id": [str(pk) for pk in Battle.objects.values_list("pk", flat=True)],
        "stream": ["mixed", "panel", "t2v-silent"],
        "category": ["t2v-silent"],
        "token": [member.token, unopened.token],
        "experiment_id": [str(running.pk)],
        "slug": ["scenes"],
    }
    everything = addresses(known)
    assert {"/", "/vote/", "/vote/panel/", f"/panel/{unopened.token}/"} <= set(everything)
    assert f"/battles/{shown['id']}/a.mp4" in everything
    assert len(everything) > 100
    before = content()
    assert {"arena_voter", "arena_battle", "arena_voteslot", "django_session"} <= set(before)
    for address in everything:
        for method in ("head", "get"):
            visitor = Client(raise_request_exception=False)
            answer = getattr(visitor, method)(address)
            assert answer.status_code < 500, (method, address)
            assert "voter" not in visitor.cookies
        for known_one in (voter, judging):
            assert known_one.head(address).status_code < 500, address
            if not address.endswith(".mp4"):  # which holds the voter's own slot on
                known_one.get(address)
    assert content() == before


def test_bots_without_cookies_hold_nothing_and_hinder_nobody(
    running: Experiment, panel: Panel
) -> None:
    links = [f"/panel/{member.token}/" for member in panel.members.all()]
    pages = ["/", "/vote/", "/vote/t2v-silent/", "/vote/panel/", "/leaderboards/", *links]
    before = content()
    for number in range(500):
        assert Client().get(pages[number % len(pages)]).status_code in (200, 403)
    for number in range(200):
        bot = Client(enforce_csrf_checks=True)
        bot.head(pages[number % len(pages)])
        bot.cookies.clear()
        stream = ("mixed", "t2v-silent", "panel")[number % 3]
        assert bot.post(f"/vote/{stream}/next/").status_code == 403
        assert bot.post(links[number % len(links)]).status_code == 403
    assert content() == before
    assert running.vote_slots.filter(held_until=None, voted=False).count() == 60
    for member in panel.members.all():  # all from one address
        client = sit_down(member)
        assert judge(client) is not None
        assert judge(client) is not None
    assert running.votes.count() == 12


@pytest.fixture
def browser(running: Experiment) -> Client:
    """It holds the CSRF cookie, so that the site reads the forms that it sends."""
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    client.get("/vote/")
    return client


FORM = "application/x-www-form-urlencoded"
OTHER_CHARSET = "Send forms in UTF-8"
UNREADABLE = "can&#x27;t be read or is too large"


@pytest.mark.parametrize(
    ("kind", "sent", "words"),
    [
        *(
            (f"{kind}; charset={charset}", b"choice=a", OTHER_CHARSET)
            for kind in (FORM, "multipart/form-data; boundary=x")
            for charset in ("utf-7", "utf-16", "rot13", "idna", "undefined", "latin-1")
        ),
        (FORM, b"choice=" + b"a" * 3_000_000, UNREADABLE),
        (FORM, b"&".join([b"choice=a"] * 2000), UNREADABLE),
        ("multipart/form-data; boundary=", b"choice=a", UNREADABLE),
    ],
)
def test_a_form_that_cannot_be_read_is_a_page_of_ours(
    browser: Client, kind: str, sent: bytes, words: str
) -> None:
    for path in ("/vote/mixed/next/", "/admin/login/"):
        answer = browser.generic("POST", path, sent, kind)
        assert answer.status_code == 400, path
        assert words in answer.text
        assert "site-header" in answer.text
    assert browser.generic("POST", "/nowhere/", sent, kind).status_code in (400, 404)
    in_json = browser.generic("POST", "/vote/mixed/next/", sent, kind, **JSON)
    assert in_json.status_code == 400
    assert in_json.json()["error"].endswith(".")


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", "nonsense"])
def test_a_form_in_utf_8_is_read(browser: Client, charset: str) -> None:
    token = browser.cookies["csrftoken"].value
    sent = f"csrfmiddlewaretoken={token}".encode()
    answer = browser.generic("POST", "/vote/mixed/next/", sent, f"{FORM}; charset={charset}")
    assert answer.status_code == 303


@pytest.mark.parametrize("charset", ["utf-7", "rot13", "utf-16"])
def test_an_address_is_read_as_utf_8(browser: Client, charset: str) -> None:
    for path in ("/leaderboards/t2v-silent/?slice=%C3%A9", "/vote/?x=%C3%A9"):
        answer = browser.generic("GET", path, b"", f"{FORM}; charset={charset}")
        assert answer.status_code in (200, 404)
