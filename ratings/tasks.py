"""The refits, which beat asks for again and again, and the thinning of what they leave.

Every worker imports this module, and few compute: SciPy comes with the first task that needs it.
"""

import logging
from collections.abc import Callable

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded

from arena.models import Experiment
from generation.catalogue.categories import Category
from generation.messages import limited_to
from ratings.boards.thin import delete_old_snapshots
from ratings.experiments.plans import delete_old_plans
from ratings.pipeline.webhooks import send_due

log = logging.getLogger(__name__)

# A verdict that a pipeline waits for stands behind nothing longer than this.
CONTROL_SECONDS_AT_MOST = 120
BOARDS_SECONDS_AT_MOST = 3600  # of all categories, with millions of votes


@shared_task(**limited_to(BOARDS_SECONDS_AT_MOST))
def refit_changed() -> list[str]:
    """Refit what has new votes or exclusions; returns the categories."""
    from ratings.boards.refit import refit_if_behind

    return _each_category(refit_if_behind)


@shared_task(**limited_to(BOARDS_SECONDS_AT_MOST))
def write_robustness_reports() -> list[str]:
    """Write robustness reports, with slices, where the ledger has changed enough; returns the
    categories."""
    from ratings.robustness.report import write_report_if_due

    return _each_category(write_report_if_due)


def _each_category(make: Callable[[Category], object | None]) -> list[str]:
    """One that fails, which the log tells, does not hold up the others."""
    done = []
    for category in Category:
        try:
            if make(category) is not None:
                done.append(category.value)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            log.exception("%s could not be rated", category)
    return done


@shared_task(**limited_to(CONTROL_SECONDS_AT_MOST))
def send_verdicts() -> int:
    """Send the verdicts that are due to the experiments' webhooks; returns how many arrived."""
    return send_due()


@shared_task(**limited_to(CONTROL_SECONDS_AT_MOST))
def assess_changed() -> list[str]:
    """Judge the experiments that have new votes, exclusions or defects; returns their ids."""
    from ratings.experiments.assessment import assess_if_behind, changed_experiments

    done = []
    for experiment in changed_experiments():
        try:
            if assess_if_behind(experiment) is not None:
                done.append(str(experiment.pk))
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            log.exception("The experiment %s could not be judged", experiment.pk)
    return done


@shared_task(**limited_to(CONTROL_SECONDS_AT_MOST))
def assess_experiment(experiment_id: str) -> None:
    """Judge one experiment at once, a cancelled one too: somebody excluded a voter on its page."""
    from ratings.experiments.assessment import assess

    assess(Experiment.objects.get(pk=experiment_id))


@shared_task(**limited_to(CONTROL_SECONDS_AT_MOST))
def compute_plans() -> int:
    """Compute the plans that pages and the API wait for; returns how many."""
    from ratings.experiments.planning import compute_waiting_plans

    return compute_waiting_plans()


@shared_task(**limited_to(60))
def sweep_plans() -> int:
    """Delete old plans; returns how many."""
    return delete_old_plans()


@shared_task(**limited_to(300))
def thin_leaderboards() -> int:
    """Delete old leaderboards and robustness reports; returns how many went."""
    return delete_old_snapshots()
