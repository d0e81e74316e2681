"""The refits, which beat asks for again and again, and the thinning of what they leave."""

import logging
from datetime import timedelta
from typing import Any

from celery import shared_task
from django.db.models import Max, QuerySet
from django.db.models.functions import TruncDate
from django.utils import timezone

from generation.categories import Category
from ratings.leaderboards import changed_categories, is_resting, newest_board, refit
from ratings.models import Leaderboard, Robustness
from ratings.robustness import is_due, scrutinise

log = logging.getLogger(__name__)

KEEP_ALL_FOR = timedelta(days=1)


@shared_task
def refit_changed() -> list[str]:
    """Refit what has new votes or exclusions; returns the categories. One that fails, which the
    log tells, does not hold up the others."""
    done = []
    for category in changed_categories():
        if is_resting(newest_board(category.value)):
            continue
        try:
            refit(category)
        except Exception:
            log.exception("%s could not be rated", category)
        else:
            done.append(category.value)
    return done


@shared_task
def scrutinise_changed() -> list[str]:
    """Make slices and robustness findings anew where the ledger has grown enough; returns the
    categories."""
    done = []
    for category in Category:
        if not is_due(category):
            continue
        try:
            scrutinise(category)
        except Exception:
            log.exception("%s could not be scrutinised", category)
        else:
            done.append(category.value)
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
