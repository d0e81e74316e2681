"""Leaderboards as they were stored, for operators to look back at."""

from django.contrib import admin
from django.db.models import F, QuerySet
from django.http import HttpRequest

from generation.admin import ReadOnlyAdmin, ReadOnlyInline
from ratings.models import Leaderboard, Standing


def points(elo: float | None) -> str:
    return "open" if elo is None else f"{elo:,.1f}"


class StandingInline(ReadOnlyInline):
    model = Standing
    fields = ("version", "elo", "interval", "ranks", "tied_with_leader", "votes", "won")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Standing]:
        standings = super().get_queryset(request).select_related("version")
        return standings.order_by(F("rating").desc(nulls_last=True), "pk")

    @admin.display(description="rating")
    def elo(self, standing: Standing) -> str:
        return "not comparable yet" if standing.rating is None else points(standing.rating)

    @admin.display(description="95 % interval")
    def interval(self, standing: Standing) -> str:
        return f"{points(standing.low)} … {points(standing.high)}"

    @admin.display(description="win rate")
    def won(self, standing: Standing) -> str:
        return f"{standing.win_rate:.1%}"

    @admin.display(description="ranks")
    def ranks(self, standing: Standing) -> str:
        if standing.rank_low is None:
            return "-"
        if standing.rank_low == standing.rank_high:
            return f"{standing.rank_low}"
        return f"{standing.rank_low}–{standing.rank_high}"


@admin.register(Leaderboard)
class LeaderboardAdmin(ReadOnlyAdmin):
    list_display = (
        "number",
        "category_slug",
        "slice",
        "created_at",
        "votes",
        "voters",
        "simulated_counted",
        "last_vote_id",
        "last_exclusion_id",
    )
    list_filter = ("category", "slice")
    ordering = ("-pk",)
    sortable_by = ("number",)
    readonly_fields = ("created_at",)
    inlines = (StandingInline,)

    @admin.display(description="leaderboard", ordering="pk")
    def number(self, board: Leaderboard) -> str:
        return f"{board.pk}"
