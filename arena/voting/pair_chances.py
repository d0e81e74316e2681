"""The list from which pairs of versions are drawn: each ready pair's chance in a category.

It is laid out when the ratings have changed what votes are worth, or when other versions are ready.
A draw then reads one row of it, by an index, however many versions there are. Which versions are
ready is looked for only after a change: triggers note those of clips and versions (`ReadyChange`).
"""

import random
from collections.abc import Collection, Sequence
from typing import Any

from django.db import connection, transaction

from arena.ledger import advisory_lock
from arena.models import PairChance, PairList, ReadyChange
from generation.catalogue.categories import Category

Pair = tuple[int, int]  # version ids, the lower first

READY_VERSIONS = """
    SELECT wanted, version.id
    FROM generation_version version CROSS JOIN unnest(version.categories) AS wanted
    WHERE version.state = 'active' AND EXISTS (
        SELECT 1 FROM generation_clip clip
        WHERE clip.version_id = version.id AND clip.category = wanted AND clip.state = 'ready'
    )
    ORDER BY 1, 2
"""
LISTS = """
    SELECT category, cardinality(versions), EXISTS (SELECT 1 FROM arena_readychange)
    FROM arena_pairlist
"""
UNIFORM_SHARE = 0.2
LAY_OUT = """
    WITH pair AS (
        SELECT one.id AS first_id, two.id AS second_id, need.worth
        FROM unnest(%(versions)s::bigint[]) AS one (id)
        JOIN unnest(%(versions)s::bigint[]) AS two (id) ON one.id < two.id
        LEFT JOIN arena_pairneed need ON need.category = %(category)s
            AND need.first_id = one.id AND need.second_id = two.id
    ), weighed AS (
        SELECT first_id, second_id, coalesce(worth, max(worth) OVER (), 1) AS weight FROM pair
    ), likely AS (
        SELECT first_id, second_id,
            %(uniform)s / count(*) OVER () + (1 - %(uniform)s)
            * coalesce(weight / nullif(sum(weight) OVER (), 0), 1.0 / count(*) OVER ())
            AS probability
        FROM weighed
    )
    INSERT INTO arena_pairchance (category, first_id, second_id, probability, up_to)
    SELECT %(category)s, first_id, second_id, probability,
        sum(probability) OVER (ORDER BY first_id, second_id)
    FROM likely
"""
# A sample without replacement, in the order of its draws: the least of exponential times whose
# rates are the probabilities comes first (Efraimidis and Spirakis 2006, Information Processing
# Letters 97, 181-185).
AMONG = """
    SELECT first_id, second_id, probability FROM arena_pairchance
    WHERE category = %(category)s AND (first_id, second_id) IN ({pairs})
      AND NOT EXISTS (
        SELECT 1 FROM unnest(%(tried_first)s::bigint[], %(tried_second)s::bigint[]) AS tried (a, b)
        WHERE (tried.a, tried.b) = (first_id, second_id)
      )
    ORDER BY -ln(1 - random()) / probability LIMIT %(count)s
"""


def ready_versions() -> dict[str, list[int]]:
    """Per category the active versions that have at least one ready clip, ascending."""
    found: dict[str, list[int]] = {category: [] for category in Category.values}
    with connection.cursor() as cursor:
        cursor.execute(READY_VERSIONS)
        for category, version in cursor.fetchall():
            found.setdefault(category, []).append(version)
    return found


def lay_out_pairs(category: str) -> None:
    """Each pair's chance: `UNIFORM_SHARE` uniform, the rest in proportion to its worth. A pair that
    was never rated is worth as much as the most valuable one that was."""
    # One lock for all categories: a voter may need several lists, in any order.
    with advisory_lock("pair lists"):
        _lay_out(category, ready_versions()[category])


def categories_to_draw() -> set[str]:
    """Those in which two versions or more are ready; their lists are of just these versions."""
    lists = _lists()
    if lists is None:
        with advisory_lock("pair lists"):
            lists = _lists()  # another may have brought them up to date while this one waited
            if lists is None:
                lists = _bring_up_to_date()
    return {category for category, versions in lists.items() if versions >= 2}


def _lists() -> dict[str, int] | None:
    """Of how many versions each category's list is; None if one may be out of date."""
    with connection.cursor() as cursor:
        cursor.execute(LISTS)
        rows = cursor.fetchall()
    if len(rows) < len(Category) or any(changed for *_, changed in rows):
        return None
    return {category: versions for category, versions, _ in rows}


def _bring_up_to_date() -> dict[str, int]:
    """Lays out the lists that are of other versions than those that are ready now.

    The notes go first: what changes after that is noted again, and looked for by the next draw.
    """
    ReadyChange.objects.all().delete()
    ready = ready_versions()
    listed = dict(PairList.objects.values_list("category", "versions"))
    for category, versions in ready.items():
        if listed.get(category) != versions:
            _lay_out(category, versions)
    return {category: len(versions) for category, versions in ready.items()}


def _lay_out(category: str, versions: Sequence[int]) -> None:
    PairChance.objects.filter(category=category).delete()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            LAY_OUT,
            {"category": category, "versions": list(versions), "uniform": UNIFORM_SHARE},
        )
    PairList.objects.update_or_create(category=category, defaults={"versions": list(versions)})


def draw_pair_of_versions(category: str, rng: random.Random) -> tuple[Pair, float] | None:
    """By its chance, which comes with it. None if the list has no pair, and, once in some 10^15
    draws, where rounding has left the end of the list just below 1."""
    above = PairChance.objects.filter(category=category, up_to__gt=rng.random())
    row = above.order_by("up_to").values_list("first_id", "second_id", "probability").first()
    return row and (row[:2], row[2])


def draw_pairs_among(
    pairs: str, facts: dict[str, Any], count: int, tried: Collection[Pair]
) -> list[tuple[Pair, float]]:
    """Up to `count` of the pairs that the query `pairs` gives and that were not tried, in the order
    in which they are drawn."""
    with connection.cursor() as cursor:
        cursor.execute(
            AMONG.format(pairs=pairs),
            {
                **facts,
                "count": count,
                "tried_first": [first for first, _ in tried],
                "tried_second": [second for _, second in tried],
            },
        )
        return [((first, second), probability) for first, second, probability in cursor.fetchall()]
