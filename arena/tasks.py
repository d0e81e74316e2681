"""Housekeeping of the arena, and what experiments need done."""

from datetime import timedelta

from celery import shared_task
from django.db.models import Exists, OuterRef
from django.utils import timezone

from arena.experiment_pairs import settle_excluded
from arena.experiments import check_prompts
from arena.models import Battle, Exclusion, Experiment, ExperimentState, Seat, Skip, Vote, Voter
from generation.categories import Category
from generation.checks import make_checks

VISIT_AGE = timedelta(days=1)
# A worker stays with the checks of one experiment for so many seconds, then does other work.
CHECKS_SECONDS = 20
# Beat has all exclusions looked at again every so often, for those made while no worker was there.
RECENT_EXCLUSIONS = timedelta(minutes=10)


@shared_task
def sweep_visitors() -> int:
    """Forget visitors who came, were shown pairs and answered none, a day after their last pair.

    Link previews and crawlers that ignore robots.txt leave thousands. Whoever has answered
    anything, sits on a panel, or is simulated, stays.
    """
    old = timezone.now() - VISIT_AGE
    mine = {"battle__voter": OuterRef("pk")}
    silent = Voter.objects.filter(
        ~Exists(Vote.objects.filter(voter=OuterRef("pk"))),
        ~Exists(Skip.objects.filter(**mine)),
        ~Exists(Exclusion.objects.filter(voter=OuterRef("pk"))),
        ~Exists(Seat.objects.filter(voter=OuterRef("pk"))),
        ~Exists(Battle.objects.filter(voter=OuterRef("pk"), expires_at__gt=old)),
        simulated=False,
        created_at__lt=old,
    )
    voters = list(silent.values_list("pk", flat=True)[:10_000])
    Battle.objects.filter(voter__in=voters).delete()
    return Voter.objects.filter(pk__in=voters).delete()[0]


@shared_task
def free_excluded_halves(recent: bool = True) -> int:
    """Ask again for the votes of running experiments that were taken out, of late or ever; returns
    how many halves changed."""
    return settle_excluded(timezone.now() - RECENT_EXCLUSIONS if recent else None)


@shared_task
def make_experiment_checks() -> int:
    """Make the clips that check voters, of running experiments, once their sources are ready."""
    running = Experiment.objects.filter(state=ExperimentState.RUNNING).order_by("created_at")
    return sum(
        make_checks(
            experiment.baseline,
            Category(experiment.category),
            check_prompts(experiment),
            experiment.seed_slots,
            CHECKS_SECONDS,
        )
        for experiment in running.select_related("baseline")
    )
