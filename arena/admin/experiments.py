"""Experiments: their own pages start and judge them; here one can be cancelled."""

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from arena.experiments.start import cancel_experiment
from arena.models import Experiment
from generation.admin.base import ReadOnlyAdmin


@admin.register(Experiment)
class ExperimentAdmin(ReadOnlyAdmin):
    """Their own pages start and judge them; here one can be stopped."""

    list_display = ("name", "candidate", "baseline", "category_slug", "state", "created_at")
    list_filter = ("state", "category")
    list_select_related = ("candidate", "baseline")
    search_fields = ("name",)
    readonly_fields = tuple(field.name for field in Experiment._meta.fields)
    actions = ("cancel",)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("arena.change_experiment")

    @admin.action(description="Cancel (stop asking voters)", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Experiment]) -> None:
        stopped = [experiment for experiment in queryset if cancel_experiment(experiment)]
        if stopped:
            names = ", ".join(map(str, stopped))
            self.message_user(request, f"Cancelled: {names}.", messages.SUCCESS)
        else:
            self.message_user(request, "No selected experiment was running.", messages.WARNING)
