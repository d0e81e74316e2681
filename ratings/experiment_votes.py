"""The votes on an experiment as the ledger has them: of its blocks, and of its panel's checks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from django.db import connection

from arena.models import Choice, Experiment, Kind, Vote
from ratings.leaderboards import EXCLUDED_VOTERS, EXCLUDED_VOTES, LedgerEnd
from ratings.stats.sequential import Blocks


@dataclass(frozen=True)
class BlockVote:
    """A vote on a block: all that a verdict is made of."""

    id: int
    voter: UUID
    choice: str
    prompt: int
    prompt_key: str
    block: int
    position: int
    seed_slot: int
    muted: bool
    candidate_left: bool
    candidate_clip: UUID
    baseline_clip: UUID
    out: str  # why it does not count: "excluded", "simulated" or ""

    @property
    def halves(self) -> int:
        """What it gives the candidate, in half points: 2 for a win, 0 for a loss, 1 otherwise."""
        if self.choice not in (Choice.LEFT, Choice.RIGHT):
            return 1
        return 2 if (self.choice == Choice.LEFT) == self.candidate_left else 0


@dataclass(frozen=True)
class CheckVote:
    """A vote on a pair that checks the panel, with what the voter preferred in words.

    Of one version under two ids "first", the one that competes, or "second"; of a gold pair
    "intact" or "degraded"; of a repeat "candidate" or "baseline", and `before` is what it was the
    first time; "even" for anything else.
    """

    voter: UUID
    prompt: int
    kind: str
    damage: str  # of a gold pair: what was done to the degraded clip
    before: str
    answer: str


@dataclass(frozen=True)
class Excluded:
    """What the latest exclusions up to one entry take out."""

    votes: frozenset[int]
    voters: frozenset[UUID]


def excluded_up_to(last_exclusion: int) -> Excluded:
    """Votes and voters that the ledger's entries up to this one take out."""
    with connection.cursor() as cursor:
        cursor.execute(EXCLUDED_VOTES, [last_exclusion])
        votes = frozenset(row[0] for row in cursor.fetchall())
        cursor.execute(EXCLUDED_VOTERS, [last_exclusion])
        voters = frozenset(UUID(bytes=bytes(row[0])) for row in cursor.fetchall())
    return Excluded(votes, voters)


def votes_behind(experiment: Experiment, end: LedgerEnd) -> list[BlockVote]:
    """The votes on the experiment's blocks up to an end of the ledger, in the ledger's order.

    Those that do not count are among them and say why in `out`.
    """
    excluded = excluded_up_to(end.last_exclusion)
    rows = (
        Vote.objects.filter(experiment=experiment, kind=Kind.EXPERIMENT, pk__lte=end.last_vote)
        .order_by("pk")
        .values_list(
            "pk",
            "voter_id",
            "choice",
            "simulated",
            "prompt_id",
            "prompt__key",
            "battle__left_id",
            "battle__block_id",
            "battle__block__position",
            "battle__block__seed_slot",
            "battle__block__muted",
            "battle__block__candidate_clip_id",
            "battle__block__baseline_clip_id",
        )
    )
    return [
        BlockVote(
            id=pk,
            voter=voter,
            choice=choice,
            prompt=prompt,
            prompt_key=key,
            block=block,
            position=position,
            seed_slot=slot,
            muted=muted,
            candidate_left=left == candidate,
            candidate_clip=candidate,
            baseline_clip=baseline,
            out=_why_out(pk, voter, simulated, excluded, end),
        )
        for (
            pk, voter, choice, simulated, prompt, key, left, block, position, slot, muted,
            candidate, baseline,
        ) in rows
    ]  # fmt: skip


def _why_out(vote: int, voter: UUID, simulated: bool, excluded: Excluded, end: LedgerEnd) -> str:
    if vote in excluded.votes or voter in excluded.voters:
        return "excluded"
    return "simulated" if simulated and not end.simulated else ""


def complete_blocks(votes: Iterable[BlockVote]) -> list[tuple[BlockVote, BlockVote]]:
    """Both votes of each block that has them, in the order of the second.

    A half has two votes when one of them was excluded for a while: the earlier one counts.
    """
    halves: dict[int, dict[bool, BlockVote]] = {}
    complete = []
    for vote in votes:
        half = halves.setdefault(vote.block, {})
        if vote.out or vote.candidate_left in half:
            continue
        half[vote.candidate_left] = vote
        if len(half) == 2:
            first, second = half.values()
            complete.append((first, second))
    return complete


def blocks_of(pairs: Sequence[tuple[BlockVote, BlockVote]]) -> Blocks:
    """The blocks as the statistics take them; voters and prompts are numbered as they appear."""
    voters: dict[UUID, int] = {}
    prompts: dict[int, int] = {}
    return Blocks(
        score=np.array([one.halves + two.halves for one, two in pairs], dtype=np.int64),
        voter=np.array(
            [[voters.setdefault(vote.voter, len(voters)) for vote in pair] for pair in pairs],
            dtype=np.int64,
        ).reshape(-1, 2),
        prompt=np.array(
            [prompts.setdefault(one.prompt, len(prompts)) for one, _ in pairs], dtype=np.int64
        ),
    )


def checks_behind(experiment: Experiment, end: LedgerEnd) -> list[CheckVote]:
    """The votes that count on the checks of the experiment's panel, in the ledger's order.

    A repeat counts if the vote that it repeats does.
    """
    excluded = excluded_up_to(end.last_exclusion)
    rows = (
        Vote.objects.filter(experiment=experiment, pk__lte=end.last_vote)
        .exclude(kind=Kind.EXPERIMENT)
        .order_by("pk")
        .values_list(
            "pk",
            "voter_id",
            "prompt_id",
            "kind",
            "choice",
            "simulated",
            "left_version_id",
            "left_version__settings__check",
            "right_version__settings__check",
            "battle__repeats__vote__pk",
            "battle__repeats__vote__choice",
            "battle__repeats__vote__left_version_id",
        )
    )
    checks = []
    for (
        pk, voter, prompt, kind, choice, simulated, left, of_left, of_right, before,
        choice_before, left_before,
    ) in rows:  # fmt: skip
        if before in excluded.votes or _why_out(pk, voter, simulated, excluded, end):
            continue
        if kind == Kind.REPEAT:
            names, damage = ("candidate", "baseline"), ""
            side = left == experiment.candidate_id
        else:
            names = ("first", "second") if kind == Kind.SAME else ("intact", "degraded")
            side, damage = not of_left, of_left or of_right or ""
        checks.append(
            CheckVote(
                voter=voter,
                prompt=prompt,
                kind=kind,
                damage=damage,
                before=_preferred(choice_before, left_before == experiment.candidate_id, names),
                answer=_preferred(choice, side, names),
            )
        )
    return checks


def _preferred(choice: str | None, first_on_left: bool, names: tuple[str, str]) -> str:
    if choice not in (Choice.LEFT, Choice.RIGHT):
        return "even"
    return names[0] if (choice == Choice.LEFT) == first_on_left else names[1]
