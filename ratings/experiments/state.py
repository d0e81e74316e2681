"""Where experiments stand, by their newest assessments."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.conf import settings
from django.urls import reverse

from arena.experiments.obstacles import note_of, noted_obstacles
from arena.models import Experiment
from ratings.design import Design
from ratings.models import Assessment


def design_of(experiment: Experiment) -> Design:
    """What the experiment fixed beforehand, for the statistics. A block takes two votes."""
    return Design(
        margin=experiment.margin,
        alpha=experiment.alpha,
        beta=experiment.beta,
        max_blocks=experiment.max_votes // 2,
    )


def newest_assessment(experiment: Experiment) -> Assessment | None:
    """None before the experiment was assessed."""
    return Assessment.objects.filter(experiment=experiment).order_by("-pk").first()


def newest_assessments(experiments: Sequence[Experiment]) -> dict[UUID, Assessment]:
    """The same of many by the experiment's id, without the findings."""
    made = Assessment.objects.filter(experiment__in=experiments).defer("findings")
    rows = made.order_by("experiment_id", "-pk").distinct("experiment_id")
    return {row.experiment_id: row for row in rows}


def address_of(experiment: Experiment) -> str:
    """Of its page: whole if the site knows its own address, else from the root."""
    return settings.SITE_ADDRESS + reverse("experiment", args=[experiment.pk])


def state_of(experiment: Experiment, made: Assessment | None) -> dict[str, Any]:
    """What it fixed, and where it stands by this assessment; finite numbers, null where unknown.

    Its obstacles are those that were noted; `obstacles_at` says when.
    """
    note = note_of(experiment)
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
        "error": experiment.error or None,
        "created_at": experiment.created_at.isoformat(),
        "verdict": (made.verdict or None) if made else None,
        "rule": (made.rule or None) if made else None,
        "votes": made.votes if made else 0,
        "blocks": made.blocks if made else 0,
        "decided_at": made.decided_at if made else None,
        "llr": made.llr if made else 0.0,
        "bounds": list(design_of(experiment).bounds),
        "e_value": made.e_value if made else 1.0,
        "alarm": 1 / experiment.alpha,
        "estimate": made.estimate if made else None,
        "low": made.low if made else None,
        "high": made.high if made else None,
        "assessment": made.pk if made else None,
        "obstacles": [asdict(obstacle) for obstacle in noted_obstacles(experiment)],
        "obstacles_at": note.looked_at.isoformat() if note else None,
    }


def verdict_message(delivery_id: str, made: Assessment) -> str:
    """What an experiment's webhook is sent: where it stands by this assessment, as JSON."""
    said = {"event": "verdict", "delivery": delivery_id, **state_of(made.experiment, made)}
    return json.dumps(said, allow_nan=False)
