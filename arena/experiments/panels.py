"""Panels: people invited by a link, each member is one voter."""

import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import Count, Q, QuerySet

from arena.experiments.proposal import Proposal, pair_keys
from arena.experiments.slots import PairKey, others_judge, panel_experiments, votes_count
from arena.models import (
    PANEL,
    Battle,
    Exclusion,
    Experiment,
    ExperimentState,
    Member,
    Panel,
    Vote,
    Voter,
)
from arena.voting.votes import Refused
from generation.models import PromptSet, Version

VOTER_ID_SHOWN = 8  # digits of a voter's id that pages show
UNINVITED = "This page is for members of a panel. Open the link that you were sent."
QUOTA_REACHED = "Thank you. You have cast all your votes for this panel."
NONE_RUNNING = (
    "This panel has no running experiment, so there is nothing to judge. Keep your link: it will "
    "work again when the next experiment starts."
)
ALL_JUDGED = (
    "You have judged every pair available to you. More may appear while this panel's experiments "
    "run."
)
OTHERS_JUDGE = (
    "Others are judging the last pairs that you have not seen. One may be free within two minutes."
)
UNKNOWN = "This invitation does not exist. Ask the person who sent you the link."
WITHDRAWN = "This invitation was withdrawn. Ask the person who sent you the link."


def add_members(panel: Panel, count: int) -> list[Member]:
    """Further members, each with a link of its own; they are numbered on from those there are."""
    taken = panel.members.count()
    return Member.objects.bulk_create(
        Member(panel=panel, label=f"Member {taken + number}", token=secrets.token_urlsafe(24))
        for number in range(1, count + 1)
    )


def member_of(voter: Voter | None) -> Member | None:
    """Who this voter is in a panel; None for the public and where it was revoked."""
    if voter is None:
        return None
    return (
        Member.objects.filter(voter=voter, revoked=False).select_related("panel", "voter").first()
    )


def voter_names(voters: Iterable[UUID]) -> dict[UUID, str]:
    """What pages call voters: by their label as members, where they are some. Two panels may each
    have a “Member 1”, so part of the id stands beside it."""
    chosen = list(voters)
    labels = dict(Member.objects.filter(voter__in=chosen).values_list("voter", "label"))
    return {
        voter: f"{labels.get(voter, 'Voter')} {str(voter)[:VOTER_ID_SHOWN]}" for voter in chosen
    }


def invited_member(token: str) -> Member:
    """The member of this link, who may not have joined yet. Writes nothing."""
    return _invited(Member.objects.filter(token=token))


@transaction.atomic
def join_panel(token: str) -> Voter:
    """The voter that this link's member is. The first time it is a new one, whoever asks: a voter
    that was there before may be somebody else's."""
    member = _invited(Member.objects.filter(token=token).select_for_update(of=("self",)))
    if member.voter is None:
        member.voter = Voter.objects.create()
        member.save(update_fields=["voter"])
    return member.voter


def _invited(members: QuerySet[Member]) -> Member:
    member = members.select_related("panel", "voter").first()
    if member is None:
        raise Refused(404, UNKNOWN)
    if member.revoked:
        raise Refused(403, WITHDRAWN)
    return member


def votes_given(member: Member) -> int:
    """Of the quota."""
    return Vote.objects.filter(voter=member.voter, battle__stream=PANEL).count()


def why_done(member: Member) -> str:
    """Why nothing is asked of the member now; nothing said while there may be a pair."""
    if votes_given(member) >= member.panel.quota:
        return QUOTA_REACHED
    running = member.panel.experiments.filter(state=ExperimentState.RUNNING)
    return "" if running.exists() else NONE_RUNNING


def why_none_now(member: Member) -> str:
    """Why nothing was drawn for a member who is not done."""
    assert member.voter is not None
    waits = any(others_judge(member.voter, each) for each in panel_experiments(member))
    return OTHERS_JUDGE if waits else ALL_JUDGED


def left_to_draw(member: Member, open_battles: int) -> int:
    """Pairs that the quota leaves beside those on the voter's screen."""
    return member.panel.quota - votes_given(member) - open_battles


def votes_left(
    panels: Iterable[Panel], versions: Sequence[Version], category: str, pairs: set[PairKey]
) -> int:
    """The most votes that the panels' members can still give on these clip pairs of two versions.

    Within each member's quota, and one on a pair that the member has not met anywhere yet; none
    from members that were revoked or whose votes do not count.
    """
    members = list(
        Member.objects.filter(panel__in=panels, revoked=False).select_related("panel", "voter")
    )
    voters = [member.voter_id for member in members if member.voter_id]
    given = dict(
        Vote.objects.filter(voter__in=voters, battle__stream=PANEL)
        .values_list("voter")
        .annotate(Count("pk"))
    )
    entries = Exclusion.objects.filter(voter__in=voters).order_by("pk")
    latest = dict(entries.values_list("voter", "action"))
    met: defaultdict[UUID, set[PairKey]] = defaultdict(set)
    shown = Battle.objects.filter(
        voter__in=voters,
        category=category,
        clip_a__version__in=versions,
        clip_b__version__in=versions,
    )
    for voter, prompt, slot in shown.values_list("voter_id", "prompt_id", "clip_a__seed_slot"):
        met[voter].add((prompt, slot))

    def left(member: Member) -> int:
        voter = member.voter
        if voter is None:
            return min(member.panel.quota, len(pairs))
        if not votes_count(voter, latest.get(voter.pk)):
            return 0
        return max(0, min(member.panel.quota - given.get(voter.pk, 0), len(pairs - met[voter.pk])))

    return sum(map(left, members))


def votes_of_panels(proposal: Proposal) -> int | None:
    """The most that the panels' members can give it; None where the public votes, too.

    A block takes two of them, so of an odd number one is over on each clip pair.
    """
    if proposal.public_share > 0:
        return None
    pairs = set(pair_keys(proposal))
    left = votes_left(proposal.panels, proposal.versions, proposal.category, pairs)
    members = Member.objects.filter(panel__in=proposal.panels, revoked=False).count()
    return min(left, members // 2 * 2 * len(pairs))


def rivals(proposal: Proposal) -> list[Experiment]:
    """Running experiments that ask some of the same voters, oldest first."""
    asked = Q(panels__in=proposal.panels)
    if proposal.public_share > 0:
        asked |= Q(public_share__gt=0, category=proposal.category)
    running = Experiment.objects.filter(asked, state=ExperimentState.RUNNING)
    return list(running.distinct().order_by("created_at"))


def shows_the_same(proposal: Proposal, rival: Experiment) -> bool:
    """Whether clip pairs of both are the same: a voter who met one there can't judge it here."""
    return (
        {rival.candidate_id, rival.baseline_id} == {version.pk for version in proposal.versions}
        and rival.category == proposal.category
        and PromptSet.objects.filter(
            pk=proposal.prompt_set.pk, prompts__sets=rival.prompt_set_id
        ).exists()
    )
