"""The refits, which beat asks for again and again, and the thinning of what they leave."""

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from celery import shared_task
from django.db.models import Max, QuerySet
from django.db.models.functions import TruncDate
from django.utils import timezone

from generation.categories import Category
from ratings.experiments import assess_if_behind, changed_experiments
from ratings.leaderboards import refit_if_behind
from ratings.models import Leaderboard, Robustness
from ratings.robustness import scrutinise_if_due
from ratings.webhooks import SECONDS_AT_MOST, send_due

log = logging.getLogger(__name__)

KEEP_ALL_FOR = timedelta(days=1)


@shared_task
def refit_changed() -> list[str]:
    """Refit what has new votes or exclusions; returns the categories."""
    return _each_category(refit_if_behind)


@shared_task
def scrutinise_changed() -> list[str]:
    """Make slices and robustness findings anew where the ledger has changed enough; returns the
    categories."""
    return _each_category(scrutinise_if_due)


def _each_category(make: Callable[[Category], object | None]) -> list[str]:
    """One that fails, which the log tells, does not hold up the others."""
    done = []
    for category in Category:
        try:
            if make(category) is not None:
                done.append(category.value)
        except Exception:
            log.exception("%s could not be rated", category)
    return done


@shared_task(soft_time_limit=SECONDS_AT_MOST)
def send_verdicts() -> int:
    """Send the verdicts that are due to the experiments' webhooks; returns how many arrived."""
    return send_due()


@shared_task
def assess_changed() -> list[str]:
    """Judge the experiments that have new votes, exclusions or defects; returns their ids."""
    done = []
    for experiment in changed_experiments():
        try:
            if assess_if_behind(experiment) is not None:
                done.append(str(experiment.pk))
        except Exception:
            log.exception("The experiment %s could not be judged", experiment.pk)
    return done


@shared_task
def thin_leaderboards() -> int:
    """Of snapshots and findings older than a day keep the last of each day; any leaderboard can be
    computed again. Returns how many went."""
    return _thin(Leaderboard.objects.all(), "category", "slice") + _thin(
        Robustness.objects.all(), "category"
    )


def _thin(made: QuerySet[Any], *of: str) -> int:
    last_of_day = (
        made.values(*of, day=TruncDate("created_at")).annotate(last=Max("pk")).values("last")
    )
    old = made.filter(created_at__lt=timezone.now() - KEEP_ALL_FOR)
    return old.exclude(pk__in=last_of_day).delete()[1].get(made.model._meta.label, 0)
