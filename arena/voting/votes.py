"""Votes, skips and marked defects: what is accepted, what is refused, and what was there."""

import math
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction

from arena.experiments.slots import reconcile_slots, release_slot
from arena.models import Battle, BattleKind, Choice, Defect, DefectKind, Defects, Skip, Vote, Voter
from generation.models import Clip


@dataclass
class Refused(Exception):
    """The answer is not taken; `status` is HTTP's, `sentence` is for the voter."""

    status: int
    sentence: str


def battle_of(voter: Voter | None, battle_id: UUID) -> Battle:
    """The voter's own battle, with what its pages need."""
    battle = (
        Battle.objects.select_related(
            "clip_a__version__model",
            "clip_b__version__model",
            "prompt",
            "block",
            "repeats__block",
            "vote",
            "skip",
            "voter__member",
        )
        .filter(pk=battle_id)
        .first()
    )
    if battle is None:
        raise Refused(404, "This pair does not exist.")
    if voter is None or battle.voter_id != voter.pk:
        raise Refused(403, "This pair was shown to someone else. Start with a new one.")
    return battle


@transaction.atomic
def cast_vote(voter: Voter | None, battle_id: UUID, choice: str) -> Battle:
    """Record the voter's answer. Sending the same answer again changes nothing and is no error.

    The battle's row is locked first, so of two answers that arrive together one waits, and a battle
    never has both a vote and a skip.
    """
    if choice not in Choice.values:
        raise Refused(400, f"“{choice}” is not an answer. Send {', '.join(Choice.values)}.")
    _lock(battle_id)
    battle = battle_of(voter, battle_id)
    assert voter is not None  # or the battle would not be theirs
    if not hasattr(battle, "vote"):
        if hasattr(battle, "skip"):
            raise Refused(409, "You skipped this pair, so you can't vote on it.")
        if battle.expired:
            raise Refused(410, "This pair has expired. Start with a new one.")
        battle.vote = Vote.objects.create(
            battle=battle,
            voter=voter,
            category=battle.category,
            version_a=battle.clip_a.version,
            version_b=battle.clip_b.version,
            prompt=battle.prompt,
            choice=choice,
            kind=battle.kind,
            experiment_id=battle.experiment_id,
            simulated=voter.simulated,
        )
        if battle.block_id is not None:
            reconcile_slots([battle.block_id])
    if battle.vote.choice != choice:
        raise Refused(409, "You have already voted on this pair. A vote is final.")
    return battle


@transaction.atomic
def skip_battle(voter: Voter | None, battle_id: UUID) -> None:
    """Record that the voter passes. Skipping twice is no error."""
    _lock(battle_id)
    battle = battle_of(voter, battle_id)
    if hasattr(battle, "vote"):
        raise Refused(409, "You have already voted on this pair. A vote is final.")
    _, new = Skip.objects.get_or_create(battle=battle)
    if new and battle.block_id is not None:
        release_slot(battle)


def names_are_told(battle: Battle) -> bool:
    """After the vote: of the arena's pairs, but not to members of panels. Whoever learnt which
    style belongs to an experiment's candidate or baseline would judge it blind no more."""
    return battle.kind == BattleKind.ARENA and not _is_members(battle)


def may_mark_defects(battle: Battle) -> bool:
    """Members of panels may say more of any pair that is not the arena's; which of those are
    checks they don't learn by it."""
    return battle.kind != BattleKind.ARENA and _is_members(battle)


def _is_members(battle: Battle) -> bool:
    """Drawn for a member of a panel that was not revoked."""
    voter = battle.voter
    return hasattr(voter, "member") and not voter.member.revoked


@transaction.atomic
def mark_defect(voter: Voter | None, battle_id: UUID, side: str, kind: str, second: str) -> Battle:
    """Record what was wrong in one clip of a pair that was voted on.

    `second` is text, of the position into the clip, or empty. Marking it twice is no error.
    """
    battle, clip = _to_mark(voter, battle_id, side, kind)
    at = _second(second, battle.prompt.seconds)
    if not _marked(battle).filter(clip=clip, kind=kind).exists():
        Defect.objects.create(vote=battle.vote, clip=clip, kind=kind, second=at)
    return battle


@transaction.atomic
def take_back_defect(voter: Voter | None, battle_id: UUID, side: str, kind: str) -> Battle:
    """Record that a mark counts no more, for as long as marks may be made. Twice is no error."""
    battle, clip = _to_mark(voter, battle_id, side, kind)
    mark = _marked(battle).filter(clip=clip, kind=kind).first()
    if mark:
        Defect.objects.create(
            vote=battle.vote, clip=clip, kind=kind, second=mark.second, taken_back=True
        )
    return battle


def marked_defects(battle: Battle) -> list[dict[str, Any]]:
    """What is marked in a pair that was voted on, in the words of its page."""
    return [
        {
            "side": "a" if defect.clip_id == battle.clip_a_id else "b",
            "kind": defect.kind,
            "label": defect.get_kind_display(),
            "second": defect.second,
        }
        for defect in _marked(battle)
    ]


def _marked(battle: Battle) -> Defects:
    return battle.vote.defects.standing().order_by("pk")


def _to_mark(voter: Voter | None, battle_id: UUID, side: str, kind: str) -> tuple[Battle, Clip]:
    """The voter's battle and the clip on that side; of answers that arrive together one waits."""
    _lock(battle_id)
    battle = battle_of(voter, battle_id)
    if not may_mark_defects(battle):
        raise Refused(
            403, "Only members of a panel can mark defects, in the pairs of its experiments."
        )
    if not hasattr(battle, "vote"):
        raise Refused(409, "Vote on this pair first. Then you can mark defects.")
    if side not in ("a", "b"):
        raise Refused(400, f"“{side}” is not a clip. Send a or b.")
    if kind not in DefectKind.values:
        raise Refused(400, f"“{kind}” is not a defect. Send {', '.join(DefectKind.values)}.")
    return battle, battle.clip_a if side == "a" else battle.clip_b


def _second(text: str, length: float) -> float | None:
    if not text:
        return None
    try:
        second = float(text)
    except ValueError:
        second = math.nan
    if not 0 <= second <= length:
        raise Refused(
            400, f"“{text[:20]}” is not a time in this clip. Send 0 to {length:g} seconds."
        )
    return round(second, 2)


def _lock(battle_id: UUID) -> None:
    list(Battle.objects.select_for_update().filter(pk=battle_id).values_list("pk"))
