"""The votes on an experiment as the ledger has them: of its blocks, and of its panel's checks."""

from dataclasses import dataclass
from uuid import UUID

from arena.ledger import Excluded, LedgerEnd, excluded_up_to
from arena.models import BattleKind, Choice, Experiment, Vote


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
    candidate_is_a: bool
    candidate_clip: UUID
    baseline_clip: UUID
    out: str  # why it does not count: "excluded", "simulated" or ""

    @property
    def half_points(self) -> int:
        """What it gives the candidate, in half points: 2 for a win, 0 for a loss, 1 otherwise."""
        if self.choice not in (Choice.A, Choice.B):
            return 1
        return 2 if (self.choice == Choice.A) == self.candidate_is_a else 0


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


def votes_behind(experiment: Experiment, end: LedgerEnd) -> list[BlockVote]:
    """The votes on the experiment's blocks up to an end of the ledger, in the ledger's order.

    Those that do not count are among them and say why in `out`.
    """
    excluded = excluded_up_to(end.last_exclusion)
    rows = (
        Vote.objects.filter(
            experiment=experiment, kind=BattleKind.EXPERIMENT, pk__lte=end.last_vote
        )
        .order_by("pk")
        .values_list(
            "pk",
            "voter_id",
            "choice",
            "simulated",
            "prompt_id",
            "prompt__key",
            "battle__clip_a_id",
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
            candidate_is_a=clip_a == candidate,
            candidate_clip=candidate,
            baseline_clip=baseline,
            out=_why_out(pk, voter, simulated, excluded, end),
        )
        for (
            pk, voter, choice, simulated, prompt, key, clip_a, block, position, slot, muted,
            candidate, baseline,
        ) in rows
    ]  # fmt: skip


def _why_out(vote: int, voter: UUID, simulated: bool, excluded: Excluded, end: LedgerEnd) -> str:
    if vote in excluded.votes or voter in excluded.voters:
        return "excluded"
    return "simulated" if simulated and not end.simulated else ""


def checks_behind(experiment: Experiment, end: LedgerEnd) -> list[CheckVote]:
    """The votes that count on the checks of the experiment's panel, in the ledger's order.

    A repeat counts if the vote that it repeats does.
    """
    excluded = excluded_up_to(end.last_exclusion)
    rows = (
        Vote.objects.filter(experiment=experiment, pk__lte=end.last_vote)
        .exclude(kind=BattleKind.EXPERIMENT)
        .order_by("pk")
        .values_list(
            "pk",
            "voter_id",
            "prompt_id",
            "kind",
            "choice",
            "simulated",
            "version_a_id",
            "version_a__settings__check",
            "version_b__settings__check",
            "battle__repeats__vote__pk",
            "battle__repeats__vote__choice",
            "battle__repeats__vote__version_a_id",
        )
    )
    checks = []
    for (
        pk, voter, prompt, kind, choice, simulated, version_a, check_of_a, check_of_b, before,
        choice_before, version_a_before,
    ) in rows:  # fmt: skip
        if before in excluded.votes or _why_out(pk, voter, simulated, excluded, end):
            continue
        candidate_was_a = version_a_before == experiment.candidate_id
        if kind == BattleKind.REPEAT:
            names, damage = ("candidate", "baseline"), ""
            side = version_a == experiment.candidate_id
        else:
            names = ("first", "second") if kind == BattleKind.SAME else ("intact", "degraded")
            side, damage = not check_of_a, check_of_a or check_of_b or ""
        checks.append(
            CheckVote(
                voter=voter,
                prompt=prompt,
                kind=kind,
                damage=damage,
                before=_preferred(choice_before, candidate_was_a, names),
                answer=_preferred(choice, side, names),
            )
        )
    return checks


def _preferred(choice: str | None, first_is_a: bool, names: tuple[str, str]) -> str:
    if choice not in (Choice.A, Choice.B):
        return "even"
    return names[0] if (choice == Choice.A) == first_is_a else names[1]
