"""Starts, finds and cancels experiments."""

import random

from django.db import transaction

from arena.celery import wake
from arena.experiments.proposal import (
    CLIPS_REFUSED,
    NotStarted,
    Objection,
    Proposal,
    missing_pairs,
    objections,
    pair_keys,
)
from arena.experiments.slots import PairKey, lay_out
from arena.ledger import advisory_lock
from arena.models import Experiment, ExperimentState
from generation.backends.registry import IMPORTED
from generation.models import EXPERIMENT_PRIORITY, Prompt
from generation.rendering.queue import queue_clips

CHECK_PROMPTS = 12  # a voter of a hundred pairs meets six degraded clips
# What makes two experiments one: with the same of all this a second would ask the same question.
DESIGN = (
    "candidate", "baseline", "category", "prompt_set", "seed_slots", "margin", "alpha", "beta",
    "max_votes", "public_share", "muted_share",
)  # fmt: skip


@transaction.atomic
def start(proposal: Proposal) -> Experiment:
    """Fix the experiment; NotStarted if there are objections.

    1. Shuffle the clip pairs, by the experiment's id: one that is stopped early must not have seen
       only the prompts that stand first in the set.
    2. Ask for the missing clips that will be shown, in that order. What failed stays so, and is
       among the experiment's obstacles.
    3. Lay out the blocks, and let the panels in.
    """
    if found := objections(proposal):
        raise NotStarted(found)
    experiment = Experiment.objects.create(
        name=proposal.name,
        webhook=proposal.webhook,
        created_by=proposal.created_by,
        **_design(proposal),
    )
    rng = random.Random(experiment.pk.int)
    order = pair_keys(proposal)
    rng.shuffle(order)
    order = order[: proposal.max_votes // 2]
    _queue_missing_clips(proposal, order)
    lay_out(experiment, order, rng)
    experiment.panels.set(proposal.panels)
    _have_workers_look()
    return experiment


def _have_workers_look() -> None:
    """For obstacles, at once (arena/experiments/obstacles.py)."""
    transaction.on_commit(lambda: wake("arena.tasks.look_at_experiments"))


def _design(proposal: Proposal) -> dict[str, object]:
    return {name: getattr(proposal, name) for name in DESIGN}


def _queue_missing_clips(proposal: Proposal, order: list[PairKey]) -> None:
    rank = {pair: number for number, pair in enumerate(order)}
    for field, version in (("candidate", proposal.candidate), ("baseline", proposal.baseline)):
        if version.backend == IMPORTED:
            continue
        wanted = {pair: rank[pair] for pair in missing_pairs(proposal, version, order)}
        queued = queue_clips(
            proposal.category,
            proposal.prompt_set,
            [version],
            ranks=wanted,
            priority=EXPERIMENT_PRIORITY,
        )
        if queued.refused:
            raise NotStarted([Objection(field, CLIPS_REFUSED, said) for said in queued.refused])


def same_design(proposal: Proposal) -> Experiment | None:
    """The newest experiment that asks this very question of just these panels, neither a cancelled
    one nor one that failed."""
    ended = (ExperimentState.CANCELLED, ExperimentState.FAILED)
    same = Experiment.objects.exclude(state__in=ended).filter(**_design(proposal))
    newest_first = same.order_by("-created_at").prefetch_related("panels")
    panels = set(proposal.panels)
    return next((found for found in newest_first if set(found.panels.all()) == panels), None)


def start_or_find(proposal: Proposal, running_only: bool = False) -> tuple[Experiment, bool]:
    """The experiment of this design and whether it was started now: asking twice is asking once.

    With `running_only` one that is decided is not found. Raises NotStarted.
    """
    with advisory_lock("start experiment"):
        found = same_design(proposal)
        if found and (not running_only or found.state == ExperimentState.RUNNING):
            return found, False
        return start(proposal), True


def cancel_experiment(experiment: Experiment) -> bool:
    """Ask nobody any more; votes stay. False if it was not running."""
    running = Experiment.objects.filter(pk=experiment.pk, state=ExperimentState.RUNNING)
    if not running.update(state=ExperimentState.CANCELLED):
        return False
    _have_workers_look()
    return True


def check_prompts(experiment: Experiment) -> list[Prompt]:
    """The prompts on whose clips this experiment's voters are checked: the first that it shows."""
    chosen: dict[int, Prompt] = {}
    first = experiment.blocks.filter(position__lt=CHECK_PROMPTS * experiment.seed_slots)
    for block in first.select_related("prompt__image"):
        chosen.setdefault(block.prompt_id, block.prompt)
    return list(chosen.values())[:CHECK_PROMPTS]
