"""What every page knows."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest

from arena.models import Vote
from arena.voting.identity import COOKIE, voter_of
from generation.catalogue.categories import Category


def category_facts(category: Category) -> dict[str, str]:
    return {
        "slug": category.value,
        "label": category.label,
        "task": category.task,
        "sound": category.sound,
        "short": category.short,
    }


def my_votes(request: HttpRequest) -> int:
    if COOKIE not in request.COOKIES:
        return 0
    voter = voter_of(request)
    return Vote.objects.filter(voter=voter).count() if voter else 0


def site(request: HttpRequest) -> dict[str, Any]:
    return {
        "categories": [category_facts(category) for category in Category],
        "demo": settings.DEMO,
        "counts_simulated": settings.COUNT_SIMULATED_VOTES,
        "my_votes": my_votes(request),
    }
