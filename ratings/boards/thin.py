"""Old snapshots go, as any leaderboard can be computed again."""

from datetime import timedelta
from typing import Any

from django.db.models import Max, QuerySet
from django.db.models.functions import TruncDate
from django.utils import timezone

from ratings.models import Leaderboard, Robustness

KEEP_ALL_FOR = timedelta(days=1)


def delete_old_snapshots() -> int:
    """Of leaderboards and robustness reports older than a day keep the last of each day."""
    boards = _thin(Leaderboard.objects.all(), "category", "slice")
    return boards + _thin(Robustness.objects.all(), "category")


def _thin(made: QuerySet[Any], *of: str) -> int:
    last_of_day = (
        made.values(*of, day=TruncDate("created_at")).annotate(last=Max("pk")).values("last")
    )
    old = made.filter(created_at__lt=timezone.now() - KEEP_ALL_FOR)
    return old.exclude(pk__in=last_of_day).delete()[1].get(made.model._meta.label, 0)
