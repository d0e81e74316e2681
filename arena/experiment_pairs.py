"""What voters are shown of an experiment: the two halves of each block, and checks among them.

The halves are a queue: one is drawn, held while a voter has it on the screen, and voted or free
again. The queue is drawn from without reading the votes, and can be made again from the ledger.
"""

import random
from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, OuterRef, QuerySet, Subquery
from django.utils import timezone

from arena.models import (
    Battle,
    Block,
    Exclusion,
    Experiment,
    ExperimentState,
    Half,
    Kind,
    Seat,
    Voter,
)
from generation.checks import CHECKS, SAME
from generation.media import has_files
from generation.models import Clip, ClipState

Place = tuple[int, int]  # a prompt's id and a seed slot

# Pairs between a vote and its repetition: so that it is judged again, not remembered.
RECENT = 5
# Pairs without files that one draw passes over.
MISSING_AT_MOST = 6

# A voter meets a clip pair once, be it in the arena or in any experiment.
UNSEEN = """
    (least({one}, {two}), greatest({one}, {two})) NOT IN (
        SELECT least(left_id, right_id), greatest(left_id, right_id)
        FROM arena_battle WHERE voter_id = %(voter)s
    )
"""
# Blocks that lack one vote come first, then the order of the experiment. Who draws at the same
# instant passes over what is locked here.
FREE_HALF = f"""
    SELECT half.id
    FROM arena_half half
    JOIN arena_block block ON block.id = half.block_id
    JOIN generation_clip candidate ON candidate.id = block.candidate_clip_id
    JOIN generation_clip baseline ON baseline.id = block.baseline_clip_id
    WHERE half.experiment_id = %(experiment)s AND NOT half.voted
      AND (half.held_until IS NULL OR half.held_until <= %(now)s)
      AND half.block_id <> ALL(%(missing)s)
      AND candidate.state = 'ready' AND baseline.state = 'ready'
      AND candidate.profile = baseline.profile
      AND {UNSEEN.format(one="block.candidate_clip_id", two="block.baseline_clip_id")}
    ORDER BY half.completes DESC, half.rank
    LIMIT 1
    FOR UPDATE OF half SKIP LOCKED
"""
# A clip of the baseline against one made of it (generation/checks.py).
CHECK_PAIR = f"""
    SELECT source.id, made.id, source.prompt_id
    FROM generation_version version
    JOIN generation_model model ON model.id = version.model_id
    JOIN generation_clip made ON made.version_id = version.id
    JOIN generation_clip source USING (category, prompt_id, seed_slot, profile)
    JOIN generation_promptsetentry entry ON entry.prompt_id = made.prompt_id
    WHERE model.slug = %(checks)s AND version.settings ->> 'of' = %(baseline)s
      AND (version.settings ->> 'check' = %(same)s) = %(is_same)s
      AND entry.prompt_set_id = %(prompt_set)s AND source.version_id = %(version)s
      AND made.category = %(category)s AND made.state = 'ready' AND source.state = 'ready'
      AND {UNSEEN.format(one="source.id", two="made.id")}
    ORDER BY random() LIMIT 1
"""
REPEATABLE = """
    SELECT battle_id FROM (
        SELECT battle_id FROM arena_vote
        WHERE voter_id = %(voter)s AND experiment_id = %(experiment)s AND kind = 'experiment'
        ORDER BY id DESC OFFSET %(recent)s
    ) older
    WHERE NOT EXISTS (SELECT 1 FROM arena_battle again WHERE again.repeats_id = older.battle_id)
    ORDER BY random() LIMIT 1
"""
# A vote counts unless the latest entry about it, or about its voter, takes it out.
COUNTED = """
    EXISTS (
        SELECT 1 FROM arena_battle battle JOIN arena_vote vote ON vote.battle_id = battle.id
        WHERE battle.block_id = block.id
          AND (battle.left_id = block.candidate_clip_id) = {candidate_left}
          AND 'exclude' IS DISTINCT FROM (
            SELECT action FROM arena_exclusion WHERE vote_id = vote.id ORDER BY id DESC LIMIT 1
          )
          AND 'exclude' IS DISTINCT FROM (
            SELECT action FROM arena_exclusion WHERE voter_id = vote.voter_id
            ORDER BY id DESC LIMIT 1
          )
    )
"""
# Halves of blocks beside what the ledger says of them.
LEDGER = f"""
    SELECT its.id, {COUNTED.format(candidate_left="its.candidate_left")} AS mine,
           {COUNTED.format(candidate_left="(NOT its.candidate_left)")} AS other
    FROM arena_half its JOIN arena_block block ON block.id = its.block_id
    WHERE its.block_id = ANY(%(blocks)s)
"""
DIFFERS = "half.id = now.id AND (half.voted, half.completes) IS DISTINCT FROM (mine, other)"
SETTLE = f"""
    UPDATE arena_half half SET
        voted = mine, completes = other, held_until = CASE WHEN NOT mine THEN held_until END
    FROM ({LEDGER}) now WHERE {DIFFERS}
"""
UNSETTLED = f"SELECT DISTINCT half.block_id FROM arena_half half, ({LEDGER}) now WHERE {DIFFERS}"
TOUCHED = """
    SELECT DISTINCT battle.block_id
    FROM arena_exclusion exclusion
    JOIN arena_vote vote ON vote.id = exclusion.vote_id OR vote.voter_id = exclusion.voter_id
    JOIN arena_battle battle ON battle.id = vote.battle_id
    JOIN arena_experiment experiment ON experiment.id = vote.experiment_id
    WHERE vote.kind = 'experiment' AND experiment.state = 'running'
      AND (%(since)s::timestamptz IS NULL OR exclusion.made_at >= %(since)s)
"""


# --- the queue -----------------------------------------------------------------------------------


def lay_out(experiment: Experiment, order: Sequence[Place], rng: random.Random) -> None:
    """Make all blocks that may be voted on: the places in this order, then again from the first.

    Which side is shown first, and which blocks are muted, is drawn for each block.
    """
    clips = {
        (version, prompt, slot): pk
        for pk, version, prompt, slot in Clip.objects.filter(
            version__in=(experiment.candidate_id, experiment.baseline_id),
            category=experiment.category,
        ).values_list("pk", "version_id", "prompt_id", "seed_slot")
    }
    blocks = []
    for position in range(experiment.max_votes // 2):
        prompt, slot = order[position % len(order)]
        blocks.append(
            Block(
                experiment=experiment,
                position=position,
                prompt_id=prompt,
                seed_slot=slot,
                candidate_clip_id=clips[experiment.candidate_id, prompt, slot],
                baseline_clip_id=clips[experiment.baseline_id, prompt, slot],
                muted=rng.random() < experiment.muted_share,
            )
        )
    halves = []
    for block in Block.objects.bulk_create(blocks, batch_size=2000):
        left_first = rng.random() < 0.5
        halves += [
            Half(
                experiment=experiment,
                block=block,
                candidate_left=left_first == (number == 0),
                rank=2 * block.position + number,
            )
            for number in range(2)
        ]
    Half.objects.bulk_create(halves, batch_size=2000)


def half_of(battle: Battle) -> QuerySet[Half]:
    """Of the queue, what this battle shows."""
    assert battle.block is not None
    left = battle.left_id == battle.block.candidate_clip_id
    return Half.objects.filter(block=battle.block_id, candidate_left=left)


def give_back(battle: Battle) -> None:
    """The voter passed: the half is free, unless it ran out and another voter holds it."""
    half_of(battle).filter(held_until=battle.expires_at).update(held_until=None)


@transaction.atomic
def settle(blocks: Iterable[int | None]) -> int:
    """Bring the queue to what the ledger says of these blocks; returns how many halves changed.

    Locked first, in one order: what was voted while this waited is then read.
    """
    chosen = list(blocks)
    list(Half.objects.select_for_update().filter(block__in=chosen).order_by("pk").values("pk"))
    with connection.cursor() as cursor:
        cursor.execute(SETTLE, {"blocks": chosen})
        return cursor.rowcount


def settle_excluded(since: datetime | None = None) -> int:
    """Halves whose vote was taken out are asked for again, and those put back are not; returns how
    many changed. With `since`, by the exclusions made from then on alone.

    Only blocks that differ from the ledger are locked: voters would be kept from the others.
    """
    with connection.cursor() as cursor:
        cursor.execute(TOUCHED, {"since": since})
        touched = [row[0] for row in cursor.fetchall()]
        cursor.execute(UNSETTLED, {"blocks": touched})
        blocks = [row[0] for row in cursor.fetchall()]
    return settle(blocks) if blocks else 0


# --- drawing -------------------------------------------------------------------------------------


def may_judge(voter: Voter) -> bool:
    """Votes that do not count would use the blocks up, or keep others from them."""
    latest = voter.exclusions.order_by("-pk").values_list("action", flat=True).first()
    return votes_count(voter, latest)


def votes_count(voter: Voter, latest: str | None) -> bool:
    """Whether the voter's votes count; `latest` is the newest exclusion entry's action, if any."""
    if voter.simulated and not settings.COUNT_SIMULATED_VOTES:
        return False
    return latest != Exclusion.Action.EXCLUDE


def public_experiments(voter: Voter) -> list[Experiment]:
    """Those that take part in the public stream."""
    running = Experiment.objects.filter(state=ExperimentState.RUNNING, public_share__gt=0)
    found = list(running.select_related("baseline"))
    return found if found and may_judge(voter) else []


def panel_experiments(seat: Seat) -> list[Experiment]:
    """Those of the seat's panel, the one that is least far first."""
    if seat.voter is None or not may_judge(seat.voter):
        return []
    fresh = Half.objects.filter(experiment=OuterRef("pk"), voted=False, completes=False)
    reached = Subquery(fresh.order_by("rank").values("rank")[:1])
    running = seat.panel.experiments.filter(state=ExperimentState.RUNNING)
    running = running.annotate(reached=reached).select_related("baseline")
    return list(running.order_by(F("reached").asc(nulls_last=True), "created_at"))


def draw_pair(
    voter: Voter, experiment: Experiment, expires_at: datetime, rng: random.Random
) -> Battle | None:
    """A half for this voter, or now and then a check in its place; not stored yet.

    Checks come only while there is a half to judge, or a voter who has judged all would go on
    with nothing but checks.
    """
    half = _free_half(voter, experiment)
    if half is None:
        return None
    shares = (settings.CHECK_SAME, settings.CHECK_GOLD, settings.CHECK_REPEAT)
    checks = (_same_pair, _gold_pair, _repeated_pair, None)
    check = rng.choices(checks, [*shares, max(0.0, 1 - sum(shares))])[0]
    if check is not None and (battle := check(voter, experiment, rng)):
        return battle
    Half.objects.filter(pk=half.pk).update(held_until=expires_at)
    block = half.block
    sides = [block.candidate_clip_id, block.baseline_clip_id]
    left, right = sides if half.candidate_left else reversed(sides)
    return Battle(
        kind=Kind.EXPERIMENT,
        category=experiment.category,
        experiment=experiment,
        block=block,
        prompt_id=block.prompt_id,
        left_id=left,
        right_id=right,
    )


def _free_half(voter: Voter, experiment: Experiment) -> Half | None:
    missing: list[int] = []
    while len(missing) < MISSING_AT_MOST:
        with connection.cursor() as cursor:
            cursor.execute(
                FREE_HALF,
                {
                    "experiment": experiment.pk,
                    "voter": voter.pk,
                    "now": timezone.now(),
                    "missing": missing,
                },
            )
            row = cursor.fetchone()
        if row is None:
            return None
        half = Half.objects.select_related("block__candidate_clip", "block__baseline_clip").get(
            pk=row[0]
        )
        if has_files(half.block.candidate_clip) and has_files(half.block.baseline_clip):
            return half
        missing.append(half.block_id)
    return None


def _check_pair(
    voter: Voter, experiment: Experiment, rng: random.Random, kind: Kind
) -> Battle | None:
    with connection.cursor() as cursor:
        cursor.execute(
            CHECK_PAIR,
            {
                "checks": CHECKS,
                "same": SAME,
                "is_same": kind == Kind.SAME,
                "baseline": experiment.baseline.slug,
                "version": experiment.baseline_id,
                "prompt_set": experiment.prompt_set_id,
                "category": experiment.category,
                "voter": voter.pk,
            },
        )
        row = cursor.fetchone()
    if row is None or not _showable(row[:2]):
        return None
    left, right = rng.sample(row[:2], 2)
    return Battle(
        kind=kind,
        category=experiment.category,
        experiment=experiment,
        prompt_id=row[2],
        left_id=left,
        right_id=right,
    )


def _same_pair(voter: Voter, experiment: Experiment, rng: random.Random) -> Battle | None:
    return _check_pair(voter, experiment, rng, Kind.SAME)


def _gold_pair(voter: Voter, experiment: Experiment, rng: random.Random) -> Battle | None:
    return _check_pair(voter, experiment, rng, Kind.GOLD)


def _repeated_pair(voter: Voter, experiment: Experiment, _: random.Random) -> Battle | None:
    """A block this voter has judged, with the sides swapped."""
    with connection.cursor() as cursor:
        cursor.execute(
            REPEATABLE, {"voter": voter.pk, "experiment": experiment.pk, "recent": RECENT}
        )
        row = cursor.fetchone()
    if row is None:
        return None
    first = Battle.objects.get(pk=row[0])
    if not _showable((first.left_id, first.right_id)):
        return None
    return Battle(
        kind=Kind.REPEAT,
        category=experiment.category,
        experiment=experiment,
        repeats=first,
        prompt_id=first.prompt_id,
        left_id=first.right_id,
        right_id=first.left_id,
    )


def _showable(clips: Sequence[UUID]) -> bool:
    ready = list(Clip.objects.filter(pk__in=clips, state=ClipState.READY))
    alike = len({clip.profile for clip in ready}) == 1
    return len(ready) == len(clips) and alike and all(map(has_files, ready))
