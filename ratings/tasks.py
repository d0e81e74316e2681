"""The refit, which beat asks for every few seconds."""

from celery import shared_task

from ratings.leaderboards import changed_categories, refit


@shared_task
def refit_changed() -> list[str]:
    """Refit what has new votes or exclusions; returns the categories."""
    categories = changed_categories()
    for category in categories:
        refit(category)
    return [category.value for category in categories]
