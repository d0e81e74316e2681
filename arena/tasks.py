"""Housekeeping of the arena, and what experiments need done."""

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from arena.experiments.check_clips import make_check_clips
from arena.experiments.obstacles import look_for_obstacles
from arena.experiments.slots import reconcile_excluded
from arena.voting.visitors import forget_visitors
from generation.messages import limited_to

# Beat has all exclusions looked at again every so often, for those made while no worker was there.
RECENT_EXCLUSIONS = timedelta(minutes=10)


@shared_task(**limited_to(120))
def sweep_visitors() -> int:
    """Forget visitors who answered nothing; returns how many."""
    return forget_visitors()


@shared_task(**limited_to(120))
def free_excluded_slots() -> int:
    """Ask again for the votes of running experiments that were taken out of late; returns how many
    vote slots changed."""
    return reconcile_excluded(timezone.now() - RECENT_EXCLUSIONS)


@shared_task(**limited_to(120))
def free_all_excluded_slots() -> int:
    """The same for votes that were taken out at any time."""
    return reconcile_excluded(None)


@shared_task(**limited_to(60))
def look_at_experiments() -> int:
    """Note what keeps running experiments from their verdicts, and end those of which no pair can
    be shown; returns how many ended."""
    return look_for_obstacles()


@shared_task(**limited_to(900))
def make_experiment_checks() -> int:
    """Make the clips that check voters; returns how many were made."""
    return make_check_clips()
