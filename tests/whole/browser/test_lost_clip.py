"""A voter's page meets a clip whose file is gone, and goes on to the next pair."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from playwright.sync_api import Browser, Page, expect

from arena.models import Battle, Skip
from arena.voting.identity import COOKIE
from generation.models import Clip, ClipState
from tests.arena.voting.test_vote import battle_on

pytestmark = pytest.mark.django_db(transaction=True)
SOON_MS = 30_000


def voting_page(browser: Browser, site: str, client: Client) -> Page:
    context = browser.new_context()
    context.set_default_timeout(SOON_MS)
    cookie = client.cookies[COOKIE].value
    context.add_cookies([{"name": COOKIE, "value": cookie, "url": site}])
    page = context.new_page()
    page.goto(f"{site}/vote/")
    return page


def lose_one(battle: dict[str, Any]) -> Clip:
    clip = Battle.objects.get(pk=battle["id"]).clip_a
    clip.rendition.storage.delete(clip.rendition.name)
    return clip


def test_the_page_of_a_lost_clip_shows_the_next_pair(
    votable: list[Clip],
    live_server: Any,
    browser: Browser,
    make_voter: Callable[..., tuple[Client, Any]],
) -> None:
    client, _ = make_voter()
    battle = battle_on(client)
    assert battle is not None
    lost = lose_one(battle)
    page = voting_page(browser, live_server.url, client)
    expect(page.locator("[data-prompt]")).not_to_have_text(battle["prompt"], timeout=SOON_MS)
    expect(page.locator("[data-arena]")).to_have_attribute("data-state", "watching")
    expect(page.locator("[data-trouble]")).to_be_hidden()
    page.wait_for_function("document.querySelector('[data-video=a]').currentTime > 0")
    lost.refresh_from_db()
    assert lost.state == ClipState.FAILED
    assert not Skip.objects.exists()  # it was no choice of the voter's
    page.context.close()


def test_a_pair_that_is_loaded_ahead_and_lacks_a_clip_is_left_out(
    votable: list[Clip],
    live_server: Any,
    browser: Browser,
    make_voter: Callable[..., tuple[Client, Any]],
) -> None:
    """Of two pairs one is shown; after the vote there is none, and the page says so."""
    client, _ = make_voter()
    battle = battle_on(client)
    assert battle is not None
    shown = Battle.objects.get(pk=battle["id"])
    other = next(clip for clip in votable if clip.prompt_id != shown.prompt_id)
    other.rendition.storage.delete(other.rendition.name)
    page = voting_page(browser, live_server.url, client)
    page.wait_for_function("document.querySelector('[data-video=a]').currentTime > 0")
    page.locator("[data-vote-form] button[value=a]").click()
    page.locator("[data-next]").click()
    expect(page.locator("[data-empty]")).to_be_visible(timeout=SOON_MS)
    expect(page.locator("[data-empty-reason]")).to_contain_text("You've seen every pair here")
    other.refresh_from_db()
    assert other.state == ClipState.FAILED
    assert not Skip.objects.exists()
    page.context.close()
