"""Which two clips a voter sees next.

Pairs of versions are drawn in proportion to what one more vote on them is worth, mixed with a
uniform share so that every pair keeps being asked about; the probability is stored with the battle.
Experiments take their share of the public stream first, and the whole stream of their panels.
"""

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from arena.experiments.panels import left_to_draw, member_of
from arena.experiments.slots import draw_pair, panel_experiments, public_experiments
from arena.models import MIXED, PANEL, Battle, Experiment, Voter
from arena.voting.pair_chances import (
    Pair,
    categories_to_draw,
    draw_pair_of_versions,
    draw_pairs_among,
)
from generation.models import ClipState

# Open battles one voter may hold in a stream: the one on the screen, the next one already loaded,
# and one more for a second tab. More would let a voter pick pairs by asking again and again.
OPEN_AT_MOST = 3
# A voter who has seen most of a category misses often: then only pairs are drawn of which something
# is left.
MISSES_BEFORE_LOOKING = 3

# What a page shows of a battle.
SHOWN = ("clip_a", "clip_b", "prompt__image", "block", "repeats__block")

# Pairs of clips of one prompt and seed slot that this voter has not met before, in either order.
# Their files are of one profile, so they are equally long to the byte. Off-format clips meet all
# others: ratings are on one scale only if chains of battles connect all versions, and what sets
# them apart is seen in their pixels anyway.
UNSEEN = """
    FROM generation_clip one
    JOIN generation_clip two USING (category, prompt_id, seed_slot, profile)
    WHERE one.category = %(category)s AND one.state = 'ready' AND two.state = 'ready'
      AND one.version_id < two.version_id
      AND (least(one.id, two.id), greatest(one.id, two.id)) NOT IN (
        SELECT least(clip_a_id, clip_b_id), greatest(clip_a_id, clip_b_id)
        FROM arena_battle WHERE voter_id = %(voter)s
      )
"""
UNSEEN_CLIPS = f"""
    SELECT one.id, two.id, one.prompt_id {UNSEEN}
      AND one.version_id = %(first)s AND two.version_id = %(second)s
    ORDER BY random() LIMIT 1
"""
UNSEEN_PAIRS = f"SELECT one.version_id, two.version_id {UNSEEN}"


VOTABLE_PAIRS = """
    SELECT wanted, count(*)
    FROM generation_version a JOIN generation_version b ON a.id < b.id
    CROSS JOIN unnest(a.categories) AS wanted
    WHERE a.state = 'active' AND b.state = 'active' AND wanted = ANY(b.categories) AND EXISTS (
        SELECT 1 FROM generation_clip one
        JOIN generation_clip two USING (prompt_id, seed_slot, profile)
        WHERE one.category = wanted AND one.version_id = a.id AND one.state = 'ready'
          AND two.category = wanted AND two.version_id = b.id AND two.state = 'ready'
    )
    GROUP BY wanted
"""


def votable_pairs() -> dict[str, int]:
    """Per category the pairs of active versions that both have a ready clip of one same prompt."""
    with connection.cursor() as cursor:
        cursor.execute(VOTABLE_PAIRS)
        return dict(cursor.fetchall())


def open_battles(voter: Voter, stream: str) -> QuerySet[Battle]:
    """What the voter was given, has not answered and can still be shown, oldest first."""
    now = timezone.now()
    return (
        Battle.objects.filter(
            voter=voter,
            stream=stream,
            # The same bound twice: the first one uses the index on the voter's battles.
            created_at__gt=now - timedelta(minutes=settings.BATTLE_MINUTES),
            expires_at__gt=now,
            vote__isnull=True,
            skip__isnull=True,
            clip_a__state=ClipState.READY,
            clip_b__state=ClipState.READY,
        )
        .select_related(*SHOWN)
        .order_by("created_at")
    )


def _lock(voter: Voter) -> None:
    """Two requests of one voter draw one after the other, so neither gets what the other got."""
    list(Voter.objects.select_for_update().filter(pk=voter.pk).values_list("pk"))


@transaction.atomic
def current_battle(voter: Voter, stream: str) -> Battle | None:
    """The battle that the voter has open, or else a new one: so pairs can't be picked."""
    _lock(voter)
    return open_battles(voter, stream).first() or draw_battle(voter, stream)


@transaction.atomic
def next_battle(voter: Voter, stream: str, held: Sequence[str]) -> Battle | None:
    """A battle beside those the voter's page holds already, for loading it ahead."""
    _lock(voter)
    battles = list(open_battles(voter, stream))
    for battle in battles:
        if str(battle.pk) not in held:
            return battle
    return draw_battle(voter, stream) if len(battles) < OPEN_AT_MOST else None


def draw_battle(voter: Voter, stream: str, rng: random.Random | None = None) -> Battle | None:
    """Draw a pair that this voter has not seen, and hand it out."""
    rng = rng or random.SystemRandom()
    expires_at = timezone.now() + timedelta(minutes=settings.BATTLE_MINUTES)
    draw = _draw_for_panel if stream == PANEL else _draw_for_public
    battle = draw(voter, stream, expires_at, rng)
    if battle is None:
        return None
    battle.voter, battle.stream, battle.expires_at = voter, stream, expires_at
    battle.save(force_insert=True)
    return Battle.objects.select_related(*SHOWN).get(pk=battle.pk)


def _draw_for_panel(
    voter: Voter, stream: str, expires_at: datetime, rng: random.Random
) -> Battle | None:
    member = member_of(voter)
    if member is None or left_to_draw(member, open_battles(voter, stream).count()) <= 0:
        return None
    for experiment in panel_experiments(member):
        if battle := draw_pair(voter, experiment, expires_at, rng):
            battle.draw_probability = 1.0
            return battle
    return None


def _draw_for_public(
    voter: Voter, stream: str, expires_at: datetime, rng: random.Random
) -> Battle | None:
    """Draw a category, and in it the arena or an experiment by its share."""
    ready = categories_to_draw()
    experiments: dict[str, list[Experiment]] = {}
    for experiment in public_experiments(voter):
        experiments.setdefault(experiment.category, []).append(experiment)
    categories = sorted({*ready, *experiments} if stream == MIXED else {stream})
    rng.shuffle(categories)
    for category in categories:
        for experiment_, share in _in_turn(experiments.get(category, []), rng):
            if experiment_ is None:
                battle = _draw_for_arena(voter, category, rng) if category in ready else None
            elif battle := draw_pair(voter, experiment_, expires_at, rng):
                battle.draw_probability = share
            if battle is not None:
                return battle
    return None


def _in_turn(
    experiments: Sequence[Experiment], rng: random.Random
) -> Iterator[tuple[Experiment | None, float]]:
    """The experiments of a category, each by its share, and None for the arena, with what is left.

    The next in turn counts only if the first has no pair for this voter.
    """
    total = max(1.0, sum(experiment.public_share for experiment in experiments))
    shares: list[tuple[Experiment | None, float]] = [
        (experiment, experiment.public_share / total) for experiment in experiments
    ]
    shares.append((None, max(0.0, 1 - sum(share for _, share in shares))))
    while shares:
        weights = [share for _, share in shares]
        chosen = rng.choices(shares, weights if sum(weights) > 0 else None)[0]
        yield chosen
        shares.remove(chosen)


def _draw_for_arena(voter: Voter, category: str, rng: random.Random) -> Battle | None:
    """Draw pairs of versions and prompts until one is found that this voter has not seen."""
    tried: list[Pair] = []
    for _ in range(MISSES_BEFORE_LOOKING):
        drawn = draw_pair_of_versions(category, rng)
        if drawn is None or drawn[0] in tried:
            continue
        if battle := _draw_of_pair(voter, category, drawn, rng):
            return battle
        tried.append(drawn[0])
    facts = {"category": category, "voter": voter.pk}
    while left := draw_pairs_among(UNSEEN_PAIRS, facts, 1 + len(tried), tried):
        for drawn in left:
            if battle := _draw_of_pair(voter, category, drawn, rng):
                return battle
            tried.append(drawn[0])  # others had the last of it; twice as many next time
    return None


def _draw_of_pair(
    voter: Voter, category: str, drawn: tuple[Pair, float], rng: random.Random
) -> Battle | None:
    battle = _draw_clips(voter, category, drawn[0], rng)
    if battle is not None:
        battle.draw_probability = drawn[1]
    return battle


def _draw_clips(voter: Voter, category: str, pair: Pair, rng: random.Random) -> Battle | None:
    """The storage is not asked: clips that are ready have their files, and those that lose them are
    failed (generation/rendering/sweep.py)."""
    with connection.cursor() as cursor:
        cursor.execute(
            UNSEEN_CLIPS,
            {"category": category, "voter": voter.pk, "first": pair[0], "second": pair[1]},
        )
        row = cursor.fetchone()
    if row is None:
        return None
    sides = rng.sample(row[:2], 2)
    return Battle(category=category, prompt_id=row[2], clip_a_id=sides[0], clip_b_id=sides[1])
