"""Votes and skips: what is accepted, what is refused, and what was already there."""

from dataclasses import dataclass
from uuid import UUID

from django.db import transaction

from arena.models import Battle, Choice, Skip, Vote, Voter


@dataclass
class Refused(Exception):
    """The answer is not taken; `status` is HTTP's, `sentence` is for the voter."""

    status: int
    sentence: str


def battle_of(voter: Voter | None, battle_id: UUID) -> Battle:
    """The voter's own battle, with what its pages need."""
    battle = (
        Battle.objects.select_related(
            "left__version__model", "right__version__model", "prompt", "vote", "skip"
        )
        .filter(pk=battle_id)
        .first()
    )
    if battle is None:
        raise Refused(404, "There is no such battle.")
    if voter is None or battle.voter_id != voter.pk:
        raise Refused(403, "This battle was drawn for another voter: take a pair of your own.")
    return battle


@transaction.atomic
def cast_vote(voter: Voter | None, battle_id: UUID, choice: str) -> Battle:
    """Record the voter's answer. Sending the same answer again changes nothing and is no error.

    The battle's row is locked first, so of two answers that arrive together one waits, and a battle
    never has both a vote and a skip.
    """
    if choice not in Choice.values:
        raise Refused(400, f"“{choice}” is not an answer: send {', '.join(Choice.values)}.")
    _lock(battle_id)
    battle = battle_of(voter, battle_id)
    assert voter is not None  # or the battle would not be theirs
    if not hasattr(battle, "vote"):
        if hasattr(battle, "skip"):
            raise Refused(409, "You skipped this pair: it can't be voted on any more.")
        if battle.expired:
            raise Refused(410, "This pair has expired: take a new one.")
        battle.vote = Vote.objects.create(
            battle=battle,
            voter=voter,
            category=battle.category,
            left_version=battle.left.version,
            right_version=battle.right.version,
            prompt=battle.prompt,
            choice=choice,
            simulated=voter.simulated,
        )
    if battle.vote.choice != choice:
        raise Refused(409, "You have given this pair another answer already. A vote is final.")
    return battle


@transaction.atomic
def skip_battle(voter: Voter | None, battle_id: UUID) -> None:
    """Record that the voter passes. Skipping twice is no error."""
    _lock(battle_id)
    battle = battle_of(voter, battle_id)
    if hasattr(battle, "vote"):
        raise Refused(409, "You have voted on this pair already. A vote is final.")
    Skip.objects.get_or_create(battle=battle)


def _lock(battle_id: UUID) -> None:
    list(Battle.objects.select_for_update().filter(pk=battle_id).values_list("pk"))
