"""Computes plans: how likely each verdict of a proposed experiment is, and what it takes.

For workers and commands alone: it loads numpy and scipy, which the web process does without.
"""

import logging
from typing import Any

from arena.experiments.proposal import PlanInput
from arena.ledger import advisory_lock
from ratings.design import Design
from ratings.experiments.plans import plan_as_json, read_facts
from ratings.least_numbers import LEAST_BLOCKS
from ratings.models import PlanState, StoredPlan
from ratings.stats.planning import Chances, plan_experiment
from ratings.stored import rounded

PLANNED_TRUTHS = (0.0, 0.5, 1.0, 2.0)  # of the margin, below zero

log = logging.getLogger(__name__)


def plan_now(asked: PlanInput) -> dict[str, Any]:
    """The whole plan as JSON, not stored; NotStarted if there are objections."""
    facts = read_facts(asked)
    return plan_as_json(facts, compute_chances(asked, facts))


def compute_waiting_plans() -> int:
    """Compute the plans that wait, one worker each; returns how many."""
    done = 0
    for waiting in StoredPlan.objects.filter(state=PlanState.WAITING).order_by("made_at"):
        done += _compute_plan(waiting)
    return done


def _compute_plan(waiting: StoredPlan) -> bool:
    """False where another worker is at it, or was. One that dies leaves it waiting."""
    with advisory_lock(f"plan {waiting.pk}", wait=False) as free:
        mine = StoredPlan.objects.filter(pk=waiting.pk, state=PlanState.WAITING)
        if not free or not mine.exists():
            return False
        try:
            chances = compute_chances(PlanInput(**waiting.asked), waiting.facts)
        except Exception as error:  # it would fail again, and hold up nobody
            log.exception("The plan %s could not be computed", waiting.pk)
            return mine.update(state=PlanState.FAILED, error=str(error) or repr(error)) == 1
        return mine.update(state=PlanState.READY, chances=chances) == 1


def compute_chances(asked: PlanInput, facts: dict[str, Any]) -> dict[str, Any]:
    """The chances of each verdict if the candidate truly is so much worse, as JSON.

    The same facts always give the same. No `truths` where the panels are too small for a verdict.
    """
    design = Design(
        margin=asked.margin,
        alpha=asked.alpha,
        beta=asked.beta,
        max_blocks=max(LEAST_BLOCKS, facts["votes_at_most"] // 2),
    )
    planned = plan_experiment(
        design,
        tie_rate=facts["tie_rate"],
        voters=facts["voters"],
        prompts=facts["prompts"],
        seed_slots=asked.seed_slots,
        elos=[-share * asked.margin for share in PLANNED_TRUTHS],
    )
    by_margin = planned.chances[PLANNED_TRUTHS.index(1.0)]
    return {
        "margin_elo": rounded(-by_margin.elo),
        "design_effect": rounded(planned.design_effect),
        "truths": [] if facts["too_few"] else [_truth(row) for row in planned.chances],
    }


def _truth(row: Chances) -> dict[str, Any]:
    """One true value: the chance of each verdict, and what it takes to get there."""
    return {
        "normalised": rounded(row.normalised) or 0.0,  # not -0.0
        "elo": rounded(row.elo) or 0.0,
        "pass": round(row.passed, 4),
        "regressed": round(row.regressed, 4),
        "inconclusive": round(row.inconclusive, 4),
        "blocks": round(row.blocks),
        "votes": round(row.votes),
        "votes_90": round(row.votes_90),
        "clips": round(row.clips),
    }
