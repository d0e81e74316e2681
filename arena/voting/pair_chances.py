"""The list from which pairs of versions are drawn: each ready pair's chance in a category.

It is laid out when the ratings have changed what votes are worth, or when other versions are ready.
A draw then reads one row of it, by an index, however many versions there are.
"""

import random
from collections.abc import Collection, Sequence
from typing import Any

from django.db import connection, transaction

from arena.ledger import advisory_lock
from arena.models import PairChance, PairList

Pair = tuple[int, int]  # version ids, the lower first

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


def lay_out_pairs(category: str, versions: Sequence[int]) -> None:
    """Each pair's chance: `UNIFORM_SHARE` uniform, the rest in proportion to its worth. A pair that
    was never rated is worth as much as the most valuable one that was. `versions` ascend."""
    # One lock for all categories: a voter may need several lists, in any order.
    with advisory_lock("pair lists"):
        _lay_out(category, versions)


def bring_up_to_date(category: str, versions: Sequence[int]) -> None:
    """Lays the list out if it is not of these versions."""
    if _is_of(category, versions):
        return
    with advisory_lock("pair lists"):
        if not _is_of(category, versions):  # nobody did while this waited
            _lay_out(category, versions)


def _is_of(category: str, versions: Sequence[int]) -> bool:
    return PairList.objects.filter(category=category, versions=list(versions)).exists()


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
