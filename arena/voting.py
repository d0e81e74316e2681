"""Votes and skips: what is accepted, what is refused, and what was already there."""

from dataclasses import dataclass
from uuid import UUID

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


def cast_vote(voter: Voter | None, battle_id: UUID, choice: str) -> Battle:
    """Record the voter's answer. Sending the same answer again changes nothing and is no error."""
    if choice not in Choice.values:
        raise Refused(400, f"“{choice}” is not an answer: send {', '.join(Choice.values)}.")
    battle = battle_of(voter, battle_id)
    assert voter is not None  # or the battle would not be theirs
    if hasattr(battle, "skip"):
        raise Refused(409, "You skipped this pair: it can't be voted on any more.")
    if not hasattr(battle, "vote"):
        if battle.expired:
            raise Refused(410, "This pair has expired: take a new one.")
        vote = Vote(
            battle=battle,
            voter=voter,
            category=battle.category,
            left_version=battle.left.version,
            right_version=battle.right.version,
            prompt=battle.prompt,
            choice=choice,
            simulated=voter.simulated,
        )
        # One statement: of two answers that arrive together one is kept, and both read it.
        Vote.objects.bulk_create([vote], ignore_conflicts=True)
        battle.vote = Vote.objects.get(battle=battle)
    if battle.vote.choice != choice:
        label = Choice(battle.vote.choice).label.lower()
        raise Refused(409, f"You have voted on this pair already: {label}. A vote is final.")
    return battle


def skip_battle(voter: Voter | None, battle_id: UUID) -> None:
    """Record that the voter passes. Skipping twice is no error."""
    battle = battle_of(voter, battle_id)
    if hasattr(battle, "vote"):
        raise Refused(409, "You have voted on this pair already. A vote is final.")
    Skip.objects.get_or_create(battle=battle)
