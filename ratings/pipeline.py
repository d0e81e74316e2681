"""Experiments as a training pipeline asks for them: by slugs, answered in plain data."""

from dataclasses import dataclass
from typing import Any, TypeVar

from django.conf import settings
from django.db.models import Model as Row
from django.urls import reverse

from arena.experiments import (
    NotStarted,
    Proposal,
    default_name,
    objections,
    obstacles,
    same_design,
    start,
)
from arena.models import Experiment, ExperimentState, Panel
from generation.models import PromptSet, Version
from ratings.experiments import design_of, plan_of
from ratings.leaderboards import alone
from ratings.models import Assessment
from ratings.stats.sequential import LEAST_VOTERS

# Who votes where nobody is named: this share of the category's pairs in the public stream.
PUBLIC_SHARE = 0.25
MOST_VOTERS = 10_000  # that are planned with
Kind = TypeVar("Kind", bound=Row)


class Refused(Exception):
    """What was asked for can't be done; the message is a sentence that names the field."""


@dataclass(frozen=True)
class Asked:
    """An experiment as a command or a request asks for it."""

    candidate: str
    baseline: str
    category: str
    prompt_set: str = "scenes"
    seed_slots: int = 1
    margin: float = 25.0
    alpha: float = 0.05
    beta: float = 0.05
    max_votes: int = 3000
    panels: tuple[str, ...] = ()
    public_share: float | None = None
    muted_share: float = 0.0
    webhook: str = ""
    name: str = ""


def proposal_of(asked: Asked, created_by: str) -> Proposal:
    """The proposal that the slugs mean; Refused if one means nothing."""
    share = asked.public_share
    if share is None:
        share = 0.0 if asked.panels else PUBLIC_SHARE
    candidate = _named(Version, "candidate", asked.candidate)
    baseline = _named(Version, "baseline", asked.baseline)
    return Proposal(
        name=asked.name or default_name(candidate, baseline, asked.category),
        candidate=candidate,
        baseline=baseline,
        category=asked.category,
        prompt_set=_named(PromptSet, "prompt_set", asked.prompt_set),
        seed_slots=asked.seed_slots,
        margin=asked.margin,
        alpha=asked.alpha,
        beta=asked.beta,
        max_votes=asked.max_votes,
        public_share=share,
        muted_share=asked.muted_share,
        webhook=asked.webhook,
        panels=tuple(_named(Panel, "panels", slug) for slug in dict.fromkeys(asked.panels)),
        created_by=created_by[:150],
    )


def _named(kind: type[Kind], field: str, slug: str) -> Kind:
    row = kind._default_manager.filter(slug=slug).first()
    if row is None:
        raise Refused(f"{field}: there is no {kind._meta.verbose_name} “{slug}”.")
    return row


def start_or_find(proposal: Proposal, running_only: bool = False) -> tuple[Experiment, bool]:
    """The experiment of this design and whether it was started now: asking twice is asking once.

    With `running_only` one that is decided is not found. Raises NotStarted with what stands
    against it.
    """
    with alone("start experiment"):
        found = same_design(proposal)
        if found and (not running_only or found.state == ExperimentState.RUNNING):
            return found, False
        return start(proposal), True


def planned(
    proposal: Proposal, tie_rate: float | None = None, voters: int | None = None
) -> dict[str, Any]:
    """What it would cost and find, by the planner; NotStarted if it could not be started.

    `tie_rate` is a share, at least 0 and below 1; both are those of the last week unless given.
    """
    sentences = objections(proposal)
    if tie_rate is not None and not 0 <= tie_rate < 1:
        sentences.append(f"The tie rate is {tie_rate:g}: give a share from 0 to below 1.")
    if voters is not None and not LEAST_VOTERS <= voters <= MOST_VOTERS:
        sentences.append(
            f"The voters are {voters}: a verdict takes {LEAST_VOTERS}, and no more than "
            f"{MOST_VOTERS:,} are planned with."
        )
    if sentences:
        raise NotStarted(sentences)
    return plan_of(proposal, tie_rate, voters)


def address_of(experiment: Experiment) -> str:
    """Of its page: whole if the site knows its own address, else from the root."""
    return settings.SITE_ADDRESS + reverse("experiment", args=[experiment.pk])


def state_of(experiment: Experiment, made: Assessment | None) -> dict[str, Any]:
    """What it fixed, and where it stands by this assessment; finite numbers, null where unknown."""
    lower, upper = design_of(experiment).bounds
    return {
        "experiment": str(experiment.pk),
        "address": address_of(experiment),
        "name": experiment.name,
        "candidate": experiment.candidate.slug,
        "baseline": experiment.baseline.slug,
        "category": experiment.category,
        "prompt_set": experiment.prompt_set.slug,
        "seed_slots": experiment.seed_slots,
        "margin": experiment.margin,
        "alpha": experiment.alpha,
        "beta": experiment.beta,
        "max_votes": experiment.max_votes,
        "public_share": experiment.public_share,
        "muted_share": experiment.muted_share,
        "panels": sorted(panel.slug for panel in experiment.panels.all()),
        "state": experiment.state,
        "created_at": experiment.created_at.isoformat(),
        "verdict": (made.verdict or None) if made else None,
        "rule": (made.rule or None) if made else None,
        "votes": made.votes if made else 0,
        "blocks": made.blocks if made else 0,
        "decided_at": made.decided_at if made else None,
        "llr": made.llr if made else 0.0,
        "bounds": [lower, upper],
        "e_value": made.e_value if made else 1.0,
        "alarm": 1 / experiment.alpha,
        "estimate": made.estimate if made else None,
        "low": made.low if made else None,
        "high": made.high if made else None,
        "assessment": made.pk if made else None,
        "obstacles": obstacles(experiment),
    }
