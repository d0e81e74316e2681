"""How pairs of versions are drawn: with which probabilities, and of how many the site reads."""

import json
import random
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from arena.models import Battle, PairChance, PairNeed
from arena.voting.pair_chances import draw_pair_of_versions, draw_pairs_among, lay_out_pairs
from generation.catalogue.categories import Category
from generation.models import Version
from ratings.boards.refit import refit
from tests.arena.voting.test_vote import battle_on
from tests.panels import judge, make_prompt_set, stock

pytestmark = pytest.mark.django_db
SILENT = "t2v-silent"


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
    rate(versions, WORTHS)
    return versions


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
    lay_out_pairs(SILENT, list(place))
    assert chances(place) == pytest.approx(EXPECTED)
    assert PairChance.objects.latest("up_to").up_to == pytest.approx(1)
    lay_out_pairs(SILENT, list(place)[:2])
    assert chances(place) == {(0, 1): 1.0}
    PairNeed.objects.update(worth=0)
    lay_out_pairs(SILENT, list(place)[:3])
    assert set(chances(place).values()) == {1 / 3}
    lay_out_pairs(SILENT, [])
    assert draw_pair_of_versions(SILENT, random.Random(1)) is None


def too_far(seen: Counter, expected: dict[tuple[int, int], float], runs: int) -> bool:
    """By chi-square with 5 degrees of freedom: once in a thousand seeds."""
    return sum((seen[pair] - runs * p) ** 2 / (runs * p) for pair, p in expected.items()) > 20.5


def test_pairs_come_as_often_as_their_chances_say(four: list[Version]) -> None:
    place, rng, runs = places(four), random.Random(7), 5000
    lay_out_pairs(SILENT, list(place))
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
    lay_out_pairs(SILENT, list(place))
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


class RowsRead:
    """Of each query: what it says, and how many rows it gave."""

    def __init__(self) -> None:
        self.queries: list[tuple[str, int]] = []

    def __call__(self, execute: Callable, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        self.queries.append((sql, context["cursor"].rowcount))
        return result


def test_a_draw_reads_a_few_pairs_however_many_there_are(
    make_version: Callable[..., Version], make_voter: Callable[..., tuple[Client, Any]]
) -> None:
    """Also the database: by an index, one row. Once other versions are ready, or a refit has
    changed the worths, the list is laid out, without passing through the site."""
    prompt_set, versions = make_prompt_set(1), []
    for wanted in (3, 40):
        versions += [make_version(f"v{number}") for number in range(len(versions), wanted)]
        for version in versions:
            if not version.clips.exists():
                stock(version, prompt_set)
        for laid_out in (False, True):
            read = RowsRead()
            browser = make_voter()[0]
            with connection.execute_wrapper(read):
                assert battle_on(browser) is not None
            of_pairs = [(sql, rows) for sql, rows in read.queries if "arena_pair" in sql]
            assert all(rows <= 1 for sql, rows in of_pairs if sql.startswith("SELECT"))
            if laid_out:  # the list's versions, and the pair
                assert [rows for _, rows in of_pairs] == [1, 1], of_pairs
            battle = Battle.objects.latest("created_at")
            assert battle.draw_probability == pytest.approx(2 / wanted / (wanted - 1))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE arena_pairchance")
        cursor.execute(
            "EXPLAIN ANALYZE SELECT first_id FROM arena_pairchance"
            " WHERE category = 't2v-silent' AND up_to > 0.5 ORDER BY up_to LIMIT 1"
        )
        plan = " ".join(row[0] for row in cursor.fetchall())
    assert "Index Scan using pair_chance_to_draw" in plan
    assert "Sort" not in plan


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
