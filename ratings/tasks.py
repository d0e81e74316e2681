"""The refit, which beat asks for every few seconds, and the thinning of old snapshots."""

import logging
from datetime import timedelta

from celery import shared_task
from django.db.models import Max
from django.db.models.functions import TruncDate
from django.utils import timezone

from ratings.leaderboards import changed_categories, is_resting, newest_board, refit
from ratings.models import Leaderboard

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
def thin_leaderboards() -> int:
    """Of snapshots older than a day keep the last of each day; any can be computed again."""
    old = Leaderboard.objects.filter(created_at__lt=timezone.now() - KEEP_ALL_FOR)
    last_of_day = (
        Leaderboard.objects.values("category", "slice", day=TruncDate("created_at"))
        .annotate(last=Max("pk"))
        .values("last")
    )
    return old.exclude(pk__in=last_of_day).delete()[1].get("ratings.Leaderboard", 0)
