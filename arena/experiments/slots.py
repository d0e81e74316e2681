"""What voters are shown of an experiment: the two vote slots of each block, and checks among them.

The vote slots are a queue: one is drawn, held while a voter watches it, and voted or free again.
The queue is drawn from without reading the votes, and can be made again from the ledger.

A slot is held for two minutes from the draw, and for two more from each sign that somebody watches:
its clips are fetched, or the page says that it plays. It is held no longer than its battle lasts. A
slot that is held no more stays its battle's until another voter is given it; at that instant the
battle expires.
"""

import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, QuerySet, Subquery
from django.utils import timezone

from arena.models import (
    PANEL,
    Battle,
    BattleKind,
    Block,
    Exclusion,
    Experiment,
    ExperimentState,
    Member,
    Panel,
    Voter,
    VoteSlot,
)
from generation.models import CHECKS_MODEL, SAME_CHECK, Clip, ClipState

PairKey = tuple[int, int]  # a clip pair of an experiment: its prompt's id and its seed slot

# How long a vote slot is kept for a voter of whom nothing more is heard.
HOLD = timedelta(minutes=2)
# Of the slots that an experiment has left, the most that the public holds at once where a panel is
# invited, too, if its share of the public stream is larger than that.
PUBLIC_AT_MOST = 0.5

# Pairs between a vote and its repetition: so that it is judged again, not remembered.
RECENT = 5
# Pairs that one draw passes over, as their last holder's vote is being stored.
PASSED_OVER_AT_MOST = 6

# A voter meets a clip pair once, be it in the arena or in any experiment.
PAIR_UNSEEN = """
    (least({one}, {two}), greatest({one}, {two})) NOT IN (
        SELECT least(clip_a_id, clip_b_id), greatest(clip_a_id, clip_b_id)
        FROM arena_battle WHERE voter_id = %(voter)s
    )
"""
# What is left of an experiment for a voter, be it held by others or free.
LEFT_FOR_VOTER = f"""
    FROM arena_voteslot vote_slot
    JOIN arena_block block ON block.id = vote_slot.block_id
    JOIN generation_clip candidate ON candidate.id = block.candidate_clip_id
    JOIN generation_clip baseline ON baseline.id = block.baseline_clip_id
    WHERE vote_slot.experiment_id = %(experiment)s AND NOT vote_slot.voted
      AND candidate.state = 'ready' AND baseline.state = 'ready'
      AND candidate.profile = baseline.profile
      AND {PAIR_UNSEEN.format(one="block.candidate_clip_id", two="block.baseline_clip_id")}
"""
# Blocks that lack one vote come first, then the order of the experiment. Who draws at the same
# instant passes over what is locked here.
FREE_SLOT = f"""
    SELECT vote_slot.id {LEFT_FOR_VOTER}
      AND (vote_slot.held_until IS NULL OR vote_slot.held_until <= %(now)s)
      AND vote_slot.block_id <> ALL(%(passed_over)s)
    ORDER BY vote_slot.completes DESC, vote_slot.rank
    LIMIT 1
    FOR UPDATE OF vote_slot SKIP LOCKED
"""
ANY_LEFT = f"SELECT EXISTS (SELECT 1 {LEFT_FOR_VOTER})"
HOLD_ON = """
    UPDATE arena_voteslot vote_slot SET held_until = least(%(until)s, battle.expires_at)
    FROM arena_battle battle
    WHERE battle.id = %(battle)s AND vote_slot.held_by_id = battle.id AND NOT vote_slot.voted
"""
LEFT_AND_HELD_BY_PUBLIC = """
    SELECT count(*), count(*) FILTER (WHERE held_until > %(now)s AND EXISTS (
        SELECT 1 FROM arena_battle battle
        WHERE battle.id = held_by_id AND battle.stream <> %(panel)s
    ))
    FROM arena_voteslot WHERE experiment_id = %(experiment)s AND NOT voted
"""
# A clip of the baseline against one made of it (generation/rendering/quality_checks.py).
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
      AND {PAIR_UNSEEN.format(one="source.id", two="made.id")}
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
          AND (battle.clip_a_id = block.candidate_clip_id) = {candidate_is_a}
          AND 'exclude' IS DISTINCT FROM (
            SELECT action FROM arena_exclusion WHERE vote_id = vote.id ORDER BY id DESC LIMIT 1
          )
          AND 'exclude' IS DISTINCT FROM (
            SELECT action FROM arena_exclusion WHERE voter_id = vote.voter_id
            ORDER BY id DESC LIMIT 1
          )
    )
"""
# Vote slots beside what the ledger says of them.
LEDGER = f"""
    SELECT its.id, {COUNTED.format(candidate_is_a="its.candidate_is_a")} AS mine,
           {COUNTED.format(candidate_is_a="(NOT its.candidate_is_a)")} AS other
    FROM arena_voteslot its JOIN arena_block block ON block.id = its.block_id
    WHERE its.block_id = ANY(%(blocks)s)
"""
SLOT_DIFFERS = """vote_slot.id = now.id
    AND (vote_slot.voted, vote_slot.completes) IS DISTINCT FROM (mine, other)"""
RECONCILE = f"""
    UPDATE arena_voteslot vote_slot SET
        voted = mine, completes = other,
        held_until = CASE WHEN NOT mine THEN held_until END,
        held_by_id = CASE WHEN NOT mine THEN held_by_id END
    FROM ({LEDGER}) now WHERE {SLOT_DIFFERS}
"""
UNRECONCILED = f"""
    SELECT DISTINCT vote_slot.block_id FROM arena_voteslot vote_slot, ({LEDGER}) now
    WHERE {SLOT_DIFFERS}
"""
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


def lay_out(experiment: Experiment, order: Sequence[PairKey], rng: random.Random) -> None:
    """Make all blocks that may be voted on: the pairs in this order, then again from the first.

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
    vote_slots = []
    for block in Block.objects.bulk_create(blocks, batch_size=2000):
        candidate_first = rng.random() < 0.5
        vote_slots += [
            VoteSlot(
                experiment=experiment,
                block=block,
                candidate_is_a=candidate_first == (number == 0),
                rank=2 * block.position + number,
            )
            for number in range(2)
        ]
    VoteSlot.objects.bulk_create(vote_slots, batch_size=2000)


def slot_of(battle: Battle) -> QuerySet[VoteSlot]:
    """Of the queue, what this battle shows."""
    assert battle.block is not None
    candidate_is_a = battle.clip_a_id == battle.block.candidate_clip_id
    return VoteSlot.objects.filter(block=battle.block_id, candidate_is_a=candidate_is_a)


def release_slot(battle: Battle) -> None:
    """The voter passed: the vote slot is free, unless another voter was given it."""
    VoteSlot.objects.filter(held_by=battle).update(held_until=None, held_by=None)


def hold_on(battle_id: UUID) -> None:
    """Somebody watches this battle: its vote slot, if it still has one, is held on."""
    with connection.cursor() as cursor:
        cursor.execute(HOLD_ON, {"battle": battle_id, "until": timezone.now() + HOLD})


@transaction.atomic
def reconcile_slots(blocks: Iterable[int | None]) -> int:
    """Bring the queue to what the ledger says of these blocks; returns how many vote slots changed.

    Locked first, in one order: what was voted while this waited is then read.
    """
    chosen = list(blocks)
    list(VoteSlot.objects.select_for_update().filter(block__in=chosen).order_by("pk").values("pk"))
    with connection.cursor() as cursor:
        cursor.execute(RECONCILE, {"blocks": chosen})
        return cursor.rowcount


def reconcile_excluded(since: datetime | None = None) -> int:
    """Ask again for the votes that were taken out, and no longer for those put back; returns how
    many vote slots changed. With `since`, by the exclusions made from then on alone.

    Only blocks that differ from the ledger are locked: voters would be kept from the others.
    """
    with connection.cursor() as cursor:
        cursor.execute(TOUCHED, {"since": since})
        touched = [row[0] for row in cursor.fetchall()]
        cursor.execute(UNRECONCILED, {"blocks": touched})
        blocks = [row[0] for row in cursor.fetchall()]
    return reconcile_slots(blocks) if blocks else 0


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
    """Those that take part in the public stream, and leave enough of themselves to their panels."""
    running = Experiment.objects.filter(state=ExperimentState.RUNNING, public_share__gt=0)
    invited = Exists(Panel.objects.filter(experiments=OuterRef("pk")))
    found = list(running.select_related("baseline").annotate(invited=invited))
    if not found or not may_judge(voter):
        return []
    return [one for one in found if not one.invited or _public_may_hold_more(one)]


def _public_may_hold_more(experiment: Experiment) -> bool:
    """Whether the public holds less than its share of what is left, and than half of it. One slot
    it may always hold, or the last ones would wait for a panel that may be gone."""
    with connection.cursor() as cursor:
        cursor.execute(
            LEFT_AND_HELD_BY_PUBLIC,
            {"experiment": experiment.pk, "panel": PANEL, "now": timezone.now()},
        )
        left, held = cursor.fetchone()
    return held < max(1, int(left * min(experiment.public_share, PUBLIC_AT_MOST)))


def panel_experiments(member: Member) -> list[Experiment]:
    """Those of the member's panel, the one that is least far first."""
    if member.voter is None or not may_judge(member.voter):
        return []
    fresh = VoteSlot.objects.filter(experiment=OuterRef("pk"), voted=False, completes=False)
    reached = Subquery(fresh.order_by("rank").values("rank")[:1])
    running = member.panel.experiments.filter(state=ExperimentState.RUNNING)
    running = running.annotate(reached=reached).select_related("baseline")
    return list(running.order_by(F("reached").asc(nulls_last=True), "created_at"))


def draw_pair(
    voter: Voter, experiment: Experiment, expires_at: datetime, rng: random.Random
) -> Battle | None:
    """A vote slot for this voter, or now and then a check in its place; not stored yet as a battle.

    Checks come only while there is a vote slot to judge, or a voter who has judged all would go on
    with nothing but checks.
    """
    vote_slot = _free_slot(voter, experiment)
    if vote_slot is None:
        return None
    shares = (settings.CHECK_SAME, settings.CHECK_GOLD, settings.CHECK_REPEAT)
    checks = (_same_pair, _gold_pair, _repeated_pair, None)
    check = rng.choices(checks, [*shares, max(0.0, 1 - sum(shares))])[0]
    if check is not None and (battle := check(voter, experiment, rng)):
        return battle
    now, block = timezone.now(), vote_slot.block
    sides = [block.candidate_clip_id, block.baseline_clip_id]
    clip_a, clip_b = sides if vote_slot.candidate_is_a else reversed(sides)
    battle = Battle(
        kind=BattleKind.EXPERIMENT,
        category=experiment.category,
        experiment=experiment,
        block=block,
        prompt_id=block.prompt_id,
        clip_a_id=clip_a,
        clip_b_id=clip_b,
    )
    if vote_slot.held_by_id:  # whoever had it until now can't vote on it any more
        Battle.objects.filter(pk=vote_slot.held_by_id).update(expires_at=now)
    VoteSlot.objects.filter(pk=vote_slot.pk).update(
        held_until=min(now + HOLD, expires_at), held_by=battle.pk
    )
    return battle


def _free_slot(voter: Voter, experiment: Experiment) -> VoteSlot | None:
    """Locked, and so is the battle that held it last."""
    passed_over: list[int] = []
    while len(passed_over) < PASSED_OVER_AT_MOST:
        with connection.cursor() as cursor:
            cursor.execute(
                FREE_SLOT,
                {
                    "experiment": experiment.pk,
                    "voter": voter.pk,
                    "now": timezone.now(),
                    "passed_over": passed_over,
                },
            )
            row = cursor.fetchone()
        if row is None:
            return None
        vote_slot = VoteSlot.objects.select_related("block").get(pk=row[0])
        if _lock_holder(vote_slot):
            return vote_slot
        passed_over.append(vote_slot.block_id)
    return None


def _lock_holder(vote_slot: VoteSlot) -> bool:
    """False while the vote of whoever had it is being stored. Who votes locks the battle first and
    the slot then, so this must not wait."""
    if vote_slot.held_by_id is None:
        return True
    holder = Battle.objects.select_for_update(skip_locked=True).filter(pk=vote_slot.held_by_id)
    return bool(list(holder.values_list("pk")))


def others_judge(voter: Voter, experiment: Experiment) -> bool:
    """Whether there is a pair for this voter that only others keep from them, for now.

    Asked when nothing was free for them. So what is left is held, or was locked a moment ago by
    another's draw.
    """
    with connection.cursor() as cursor:
        cursor.execute(ANY_LEFT, {"experiment": experiment.pk, "voter": voter.pk})
        return bool(cursor.fetchone()[0])


def _check_pair(
    voter: Voter, experiment: Experiment, rng: random.Random, kind: BattleKind
) -> Battle | None:
    with connection.cursor() as cursor:
        cursor.execute(
            CHECK_PAIR,
            {
                "checks": CHECKS_MODEL,
                "same": SAME_CHECK,
                "is_same": kind == BattleKind.SAME,
                "baseline": experiment.baseline.slug,
                "version": experiment.baseline_id,
                "prompt_set": experiment.prompt_set_id,
                "category": experiment.category,
                "voter": voter.pk,
            },
        )
        row = cursor.fetchone()
    if row is None:
        return None
    clip_a, clip_b = rng.sample(row[:2], 2)
    return Battle(
        kind=kind,
        category=experiment.category,
        experiment=experiment,
        prompt_id=row[2],
        clip_a_id=clip_a,
        clip_b_id=clip_b,
    )


def _same_pair(voter: Voter, experiment: Experiment, rng: random.Random) -> Battle | None:
    return _check_pair(voter, experiment, rng, BattleKind.SAME)


def _gold_pair(voter: Voter, experiment: Experiment, rng: random.Random) -> Battle | None:
    return _check_pair(voter, experiment, rng, BattleKind.GOLD)


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
    if not _showable((first.clip_a_id, first.clip_b_id)):
        return None
    return Battle(
        kind=BattleKind.REPEAT,
        category=experiment.category,
        experiment=experiment,
        repeats=first,
        prompt_id=first.prompt_id,
        clip_a_id=first.clip_b_id,
        clip_b_id=first.clip_a_id,
    )


def _showable(clips: Sequence[UUID]) -> bool:
    ready = list(Clip.objects.filter(pk__in=clips, state=ClipState.READY))
    alike = len({clip.profile for clip in ready}) == 1
    return len(ready) == len(clips) and alike
