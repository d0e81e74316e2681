"""How pairs of versions are drawn: with which probabilities, and of how many the site reads."""

import json
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client

from arena.models import Battle, PairChance, PairNeed
from arena.voting.pair_chances import (
    categories_to_draw,
    draw_pair_of_versions,
    draw_pairs_among,
    lay_out_pairs,
)
from generation.catalogue.categories import Category
from generation.models import PromptSet, Version
from ratings.boards.refit import refit
from tests.arena.voting.test_vote import battle_on
from tests.counting import cost_of
from tests.panels import judge, make_prompt_set, stock

pytestmark = pytest.mark.django_db
SILENT = "t2v-silent"
PROMPTS = 30


def rate(versions: list[Version], worths: dict[tuple[int, int], float]) -> None:
    PairNeed.objects.bulk_create(
        PairNeed(category=SILENT, first=versions[a], second=versions[b], worth=worth)
        for (a, b), worth in worths.items()
    )


# Uniform by a fifth, the rest by worth; what was never rated is worth as much as the best, 6.
WORTHS = {(0, 1): 6.0, (0, 2): 2.0, (1, 2): 0.0}
EXPECTED = {
    (0, 1): 0.2 / 6 + 0.8 * 6 / 26,
    (0, 2): 0.2 / 6 + 0.8 * 2 / 26,
    (1, 2): 0.2 / 6,
    **{(a, 3): 0.2 / 6 + 0.8 * 6 / 26 for a in range(3)},
}


@pytest.fixture
def four(make_version: Callable[..., Version]) -> list[Version]:
    versions = [make_version(f"v{number}") for number in range(4)]
    prompt_set = make_prompt_set(1)
    for version in versions:
        stock(version, prompt_set)
    rate(versions, WORTHS)
    return versions


def lay_out(versions: list[Version]) -> None:
    """With just these competing."""
    Version.objects.update(state="paused")
    Version.objects.filter(pk__in=[version.pk for version in versions]).update(state="active")
    lay_out_pairs(SILENT)


def places(versions: list[Version]) -> dict[int, int]:
    return {version.pk: number for number, version in enumerate(versions)}


def chances(place: dict[int, int]) -> dict[tuple[int, int], float]:
    rows = PairChance.objects.values_list("first_id", "second_id", "probability")
    return {(place[a], place[b]): probability for a, b, probability in rows}


def test_chances_are_exact(four: list[Version], make_version: Callable[..., Version]) -> None:
    place = places(four)
    gone = make_version("gone")  # a pair of a version that is not drawn counts for nothing
    PairNeed.objects.create(category=SILENT, first=four[0], second=gone, worth=1000)
    PairNeed.objects.create(category="t2v-audio", first=four[1], second=four[2], worth=9)
    lay_out(four)
    assert chances(place) == pytest.approx(EXPECTED)
    assert PairChance.objects.latest("up_to").up_to == pytest.approx(1)
    lay_out(four[:2])
    assert chances(place) == {(0, 1): 1.0}
    PairNeed.objects.update(worth=0)
    lay_out(four[:3])
    assert set(chances(place).values()) == {1 / 3}
    lay_out([])
    assert draw_pair_of_versions(SILENT, random.Random(1)) is None


def too_far(seen: Counter, expected: dict[tuple[int, int], float], runs: int) -> bool:
    """By chi-square with 5 degrees of freedom: once in a thousand seeds."""
    return sum((seen[pair] - runs * p) ** 2 / (runs * p) for pair, p in expected.items()) > 20.5


@pytest.mark.slow
def test_pairs_come_as_often_as_their_chances_say(four: list[Version]) -> None:
    place, rng, runs = places(four), random.Random(7), 5000
    lay_out(four)
    seen: Counter[tuple[int, ...]] = Counter()
    for _ in range(runs):
        drawn = draw_pair_of_versions(SILENT, rng)
        assert drawn is not None
        pair = tuple(place[version] for version in drawn[0])
        assert drawn[1] == pytest.approx(EXPECTED[pair])
        seen[pair] += 1
    assert not too_far(seen, EXPECTED, runs), seen


def test_pairs_that_are_left_come_in_proportion_to_their_chances(four: list[Version]) -> None:
    place, runs = places(four), 3000
    lay_out(four)
    with connection.cursor() as cursor:
        cursor.execute("SELECT setseed(0.25)")
    every = "SELECT first_id, second_id FROM arena_pairchance"
    tried = [(four[0].pk, four[1].pk)]
    seen: Counter[tuple[int, ...]] = Counter()
    for _ in range(runs):
        ((pair, _), *others) = draw_pairs_among(every, {"category": SILENT}, 9, tried)
        assert len(others) == 4
        seen[tuple(place[version] for version in pair)] += 1
    left = 1 - EXPECTED[0, 1]
    expected = {pair: p / left for pair, p in EXPECTED.items() if pair != (0, 1)}
    assert not too_far(seen, expected, runs), seen


def test_what_a_draw_costs_does_not_grow_with_the_versions(
    make_version: Callable[..., Version], make_voter: Callable[..., tuple[Client, Any]]
) -> None:
    """Of 780 pairs as many rows as of 10; of versions none, and of clips those of that pair. In
    tables as small as those of five versions the database may read all."""
    prompt_set, costs = make_prompt_set(PROMPTS), []
    for before, wanted in ((0, 5), (5, 40)):
        for number in range(before, wanted):
            stock(make_version(f"v{number}"), prompt_set)
        browsers = [make_voter()[0] for _ in range(2)]
        costs.append(cost_of(lambda each=browsers: battle_on(each.pop())))
        battle = Battle.objects.latest("created_at")
        assert battle.draw_probability == pytest.approx(2 / wanted / (wanted - 1))
    few, many = costs
    assert len(many.queries) == len(few.queries)
    for cost in costs:
        assert cost.rows["arena_pairchance"] <= 10, cost.rows
        assert cost.rows["generation_version"] == 0, cost.rows
        assert cost.rows["generation_clip"] <= 5 * PROMPTS + 20, cost.rows
        assert cost.rows.total() <= 5 * PROMPTS + 200, cost.rows


def change_version(version: Version, **fields: object) -> None:
    Version.objects.filter(pk=version.pk).update(**fields)


Change = Callable[[list[Version]], object]
CHANGES: dict[str, tuple[Change, set[int]]] = {
    "nothing": (lambda _: None, {0, 1, 2}),
    "one is paused": (lambda v: change_version(v[0], state="paused"), {1, 2}),
    "one competes": (lambda v: change_version(v[3], state="active"), {0, 1, 2, 3}),
    "one has other categories": (
        lambda v: change_version(v[0], categories=["t2v-audio"]), {1, 2},
    ),
    "its clips are gone": (lambda v: v[0].clips.all().delete(), {1, 2}),
    "its clips are withdrawn": (lambda v: v[0].clips.update(state="waiting"), {1, 2}),
    "its first clip is ready": (lambda v: v[4].clips.update(state="ready"), {0, 1, 2, 4}),
    "its first clip is imported": (lambda v: stock(v[5], PromptSet.objects.get()), {0, 1, 2, 5}),
}  # fmt: skip


@pytest.fixture
def six(make_version: Callable[..., Version]) -> list[Version]:
    """Three that compete, one that is paused, one whose clips wait, one without."""
    versions = [make_version(f"v{number}") for number in range(6)]
    prompt_set = make_prompt_set(1)
    for version in versions[:5]:
        stock(version, prompt_set)
    Version.objects.filter(pk=versions[3].pk).update(state="paused")
    versions[4].clips.update(state="waiting")
    return versions


@pytest.mark.parametrize("change", CHANGES)
def test_a_draw_is_among_the_versions_that_are_ready_now(six: list[Version], change: str) -> None:
    """Whoever changes versions and clips, and however: the next draw has the right chances."""
    assert categories_to_draw() == {SILENT}
    place = places(six)
    assert chances(place) == pytest.approx(dict.fromkeys(combinations(range(3), 2), 1 / 3))
    happens, left = CHANGES[change]
    happens(six)
    assert categories_to_draw() == {SILENT}
    pairs = list(combinations(sorted(left), 2))
    assert chances(place) == pytest.approx(dict.fromkeys(pairs, 1 / len(pairs)))


@pytest.mark.django_db(transaction=True)
def test_a_change_that_is_under_way_during_a_draw_is_not_missed(six: list[Version]) -> None:
    place = places(six)

    def drawn_among() -> set[int]:
        """By another connection, which sees what is committed."""
        try:
            categories_to_draw()
            return {version for pair in chances(place) for version in pair}
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as others:
        with transaction.atomic():
            six[4].clips.update(state="ready")
            Version.objects.filter(pk=six[0].pk).update(state="paused")
            assert others.submit(drawn_among).result() == {0, 1, 2}  # and nobody waits
            assert others.submit(drawn_among).result() == {0, 1, 2}
        assert others.submit(drawn_among).result() == {1, 2, 4}


@pytest.mark.slow
def test_a_refit_brings_the_chances_up_to_date(
    make_version: Callable[..., Version], make_voter: Callable[..., tuple[Client, Any]]
) -> None:
    prompt_set = make_prompt_set()
    for slug in ("a", "b", "c"):
        stock(make_version(slug), prompt_set)
    browsers = [make_voter()[0] for _ in range(8)]
    while all(judge(browser, path="/vote/t2v-silent/") for browser in browsers):
        pass
    before = set(PairChance.objects.values_list("probability", flat=True))
    assert before == {1 / 3}
    refit(Category.T2V_SILENT)
    worths = {(need.first_id, need.second_id): need.worth for need in PairNeed.objects.all()}
    total = sum(worths.values())
    assert len(worths) == 3
    for chance in PairChance.objects.all():
        worth = worths[chance.first_id, chance.second_id]
        assert chance.probability == pytest.approx(0.2 / 3 + 0.8 * worth / total)


def test_versions_without_clips_in_a_category_are_not_drawn_there(
    make_version: Callable[..., Version], make_voter: Callable[..., tuple[Client, Any]]
) -> None:
    """Or the other pairs' probabilities would be stored too small."""
    prompt_set = make_prompt_set(1)
    for slug, category in (("a", SILENT), ("b", SILENT), ("c", "t2v-audio"), ("d", "t2v-audio")):
        stock(make_version(slug), prompt_set, category)
    assert battle_on(make_voter()[0], "/vote/t2v-audio/") is not None
    assert Battle.objects.get().draw_probability == 1.0


def test_a_voter_who_has_seen_most_is_given_the_rest(
    make_version: Callable[..., Version], make_voter: Callable[..., tuple[Client, Any]]
) -> None:
    """Of 15 pairs each is shown once, be it worth ever so little; then there is none."""
    versions = [make_version(f"v{number}") for number in range(6)]
    prompt_set = make_prompt_set(1)
    for version in versions:
        stock(version, prompt_set)
    rate(versions, {pair: 10.0 ** -pair[0] for pair in combinations(range(6), 2)})
    browser, _ = make_voter()
    met = set()
    while shown := battle_on(browser):
        battle = Battle.objects.get(pk=shown["id"])
        met.add(frozenset((battle.clip_a.version_id, battle.clip_b.version_id)))
        answer = browser.post(shown["vote_url"], {"choice": "tie"})
        assert answer.status_code == 302, json.dumps(shown)
    assert len(met) == Battle.objects.count() == 15
