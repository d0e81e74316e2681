"""Plans of proposed experiments: asked for in the web process, computed by a worker, kept a while.

A plan has two parts. Its facts are read from the database when it is asked for: who may vote, which
clips are missing, how many ties there are. The chances of each verdict are computed from them
(ratings/experiments/planning.py), which takes numpy and so a worker.
"""

import hashlib
import json
import math
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from arena.celery import wake
from arena.experiments.panels import rivals, shows_the_same, votes_of_panels
from arena.experiments.proposal import (
    NotStarted,
    PlanInput,
    Proposal,
    clips_missing,
    objections,
    resolve,
)
from arena.models import BattleKind, Choice, Member, Vote
from generation.models import Clip
from generation.rendering.progress import speeds
from generation.rendering.queue import prompts_of
from ratings.least_numbers import LEAST_VOTERS, LEAST_VOTES
from ratings.models import PlanState, StoredPlan
from ratings.stored import DECIMALS

REUSED_FOR = timedelta(hours=1)
KEPT_FOR = timedelta(days=7)
WEEK = timedelta(days=7)
SHORTEST = timedelta(minutes=10)  # a rate of less would be that of a few clicks
RECENT_VOTES = 5000
USUAL_TIE_RATE, USUAL_VOTERS = 0.2, 12  # where nobody has voted yet
USUAL_TIES_COUNT = 20  # votes: the first few may all be ties, and there is no planning with that
# Facts that change with every vote and have no part in the chances: a plan is found again without.
RATES = ("votes_per_day", "measured_seconds", "days_at_most")


def request_plan(asked: PlanInput) -> StoredPlan:
    """The plan of what is asked, waiting for a worker unless it was asked for a while ago.

    Raises NotStarted where such an experiment could not be started.
    """
    facts = read_facts(asked)
    said = asked.model_dump(mode="json")
    digest = _plan_digest(said, facts)
    young = StoredPlan.objects.filter(digest=digest, made_at__gte=timezone.now() - REUSED_FOR)
    if plan := young.exclude(state=PlanState.FAILED).order_by("-made_at").first():
        return plan
    plan, _ = StoredPlan.objects.get_or_create(
        digest=digest, state=PlanState.WAITING, defaults={"asked": said, "facts": facts}
    )
    transaction.on_commit(lambda: wake("ratings.tasks.compute_plans"))
    return plan


def find_plan(plan_id: str, asked: PlanInput) -> StoredPlan | None:
    """The plan of this id, if it was made of what is asked, and not long ago."""
    try:
        chosen = StoredPlan.objects.filter(pk=UUID(plan_id))
    except ValueError:
        return None
    young = chosen.filter(made_at__gte=timezone.now() - REUSED_FOR)
    return young.filter(asked=asked.model_dump(mode="json")).first()


def _plan_digest(said: dict[str, Any], facts: dict[str, Any]) -> str:
    kept = {name: value for name, value in facts.items() if name not in RATES}
    return hashlib.sha256(json.dumps([said, kept], sort_keys=True).encode()).hexdigest()


def plan_as_json(facts: dict[str, Any], chances: dict[str, Any]) -> dict[str, Any]:
    """The plan as the API, the page and the command give it: how likely each verdict is, and how
    many days that takes at the rate of votes."""
    rate = facts["votes_per_day"]
    truths = [
        row
        | {
            "days": round(row["votes"] / rate, DECIMALS) if rate else None,
            "days_90": round(row["votes_90"] / rate, DECIMALS) if rate else None,
        }
        for row in chances["truths"]
    ]
    return {**facts, **chances, "truths": truths}


def delete_old_plans() -> int:
    """Delete plans that were made some days ago; returns how many."""
    return StoredPlan.objects.filter(made_at__lt=timezone.now() - KEPT_FOR).delete()[0]


# --- facts ---------------------------------------------------------------------------------------


def read_facts(asked: PlanInput) -> dict[str, Any]:
    """What the database says of the proposal, as JSON; NotStarted if there are objections to it.

    Ties and voters are those of the category's newest votes and of the panels unless given. Where
    the panels are too small for any verdict, `too_few` says so.
    """
    proposal = resolve(asked)
    if found := objections(proposal):
        raise NotStarted(found)
    recent = _recent_voting(proposal)
    of_panels = votes_of_panels(proposal)
    # With so many voters there would be other members.
    bound = None if asked.voters else of_panels
    votes = proposal.max_votes if bound is None else min(proposal.max_votes, bound)
    prompts = prompts_of(proposal.prompt_set, proposal.category).count()
    pairs = prompts * proposal.seed_slots
    rate = recent.votes_per_day
    return {
        # Whole percents: the next vote should not make another plan of it.
        "tie_rate": round(recent.tie_rate, 2) if asked.tie_rate is None else asked.tie_rate,
        "voters": asked.voters or max(LEAST_VOTERS, recent.voters or USUAL_VOTERS),
        "prompts": prompts,
        "clip_pairs": pairs,
        "max_blocks": proposal.max_votes // 2,
        "max_votes": proposal.max_votes,
        "votes_at_most": votes,
        "votes_per_day": round(rate, DECIMALS),
        "measured_seconds": round(recent.measured.total_seconds()),
        "votes_of_panels": of_panels,
        "too_few": _too_few(recent.voters, bound),
        "rivals": [
            {
                "experiment": str(rival.pk),
                "name": rival.name,
                "same_pairs": shows_the_same(proposal, rival),
            }
            for rival in rivals(proposal)
        ],
        "days_at_most": round(votes / rate, DECIMALS) if rate else None,
        "rounds": math.ceil(votes // 2 / pairs),
        **_clips_to_make(proposal),
    }


def _too_few(members: int, votes: int | None) -> str:
    if votes is None or (votes >= LEAST_VOTES and members >= LEAST_VOTERS):
        return ""
    return (
        f"The panels' {members} members can give {votes} votes. A verdict needs at least "
        f"{LEAST_VOTES} votes from at least {LEAST_VOTERS} voters. Add members first."
    )


class RecentVoting(NamedTuple):
    """How a category is voted on now."""

    tie_rate: float
    voters: int
    votes_per_day: float
    measured: timedelta  # for how long, up to now


def _recent_voting(proposal: Proposal) -> RecentVoting:
    """From the category's newest votes and the panels', of a week at most, or since the site's
    first vote. Where the public votes, no longer than the newest `RECENT_VOTES` of the category
    took."""
    now = timezone.now()
    measured = _measured_at_most(now)
    newest_votes = (
        Vote.objects.filter(category=proposal.category, kind=BattleKind.ARENA)
        .order_by("-pk")
        .values_list("cast_at", "choice", "voter_id")[:RECENT_VOTES]
    )
    rows = [row for row in newest_votes if row[0] >= now - measured]
    ties = sum(choice in (Choice.TIE, Choice.BOTH_BAD) for _, choice, _ in rows)
    tie_rate = (ties + USUAL_TIES_COUNT * USUAL_TIE_RATE) / (len(rows) + USUAL_TIES_COUNT)
    voters, votes = 0, 0.0
    if proposal.public_share:
        if len(rows) == RECENT_VOTES:
            measured = max(SHORTEST, now - rows[-1][0])
        voters = len({voter for _, _, voter in rows})
        votes = len(rows) * proposal.public_share
    if proposal.panels:
        members = Member.objects.filter(panel__in=proposal.panels, revoked=False)
        voters += members.count()
        of_panels = Vote.objects.filter(voter__member__in=members, cast_at__gte=now - measured)
        votes += of_panels.count()
    return RecentVoting(tie_rate, voters, votes / (measured / timedelta(days=1)), measured)


def _measured_at_most(now: datetime) -> timedelta:
    """A week, or how long ago the site's first vote was: there were none before."""
    first = Vote.objects.order_by("pk").values_list("cast_at", flat=True).first()
    return WEEK if first is None else min(WEEK, max(SHORTEST, now - first))


def _clips_to_make(proposal: Proposal) -> dict[str, Any]:
    """The clips that are missing, and for how long they would hold a GPU by the times so far."""
    missing = clips_missing(proposal)
    known = speeds(Clip.objects.filter(version__in=proposal.versions, category=proposal.category))
    clips: list[dict[str, Any]] = []
    for version in proposal.versions:
        number, speed = missing[version.slug], known.get(version.pk)
        seconds = 0.0 if not number else speed.seconds * number if speed else None
        clips.append(
            {
                "version": version.slug,
                "name": version.name,
                "missing": number,
                "seconds": round(seconds, DECIMALS) if seconds is not None else None,
            }
        )
    unknown = any(row["seconds"] is None for row in clips)
    total = None if unknown else round(sum(row["seconds"] for row in clips), DECIMALS)
    return {"clips": clips, "gpu_seconds": total}
