"""Leaderboards as they were stored, keys of the API, and verdicts on their way to webhooks."""

from django.contrib import admin, messages
from django.db.models import F, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest

from generation.admin.base import ReadOnlyAdmin, ReadOnlyInline
from ratings.models import ApiToken, Delivery, Leaderboard, Standing


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

    @admin.display(description="95% interval")
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


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnlyAdmin):
    list_display = ("name", "opens", "state", "created_at", "expires_at", "used_at")
    list_filter = ("revoked",)
    actions = ("revoke",)

    @admin.display(description="scopes")
    def opens(self, token: ApiToken) -> str:
        return ", ".join(token.scopes)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("ratings.change_apitoken")

    @admin.action(description="Revoke permanently", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        count = queryset.filter(revoked=False).update(revoked=True)
        self.message_user(request, f"{count} revoked.", messages.SUCCESS)


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    list_display = ("experiment", "verdict", "attempts", "next_try_at", "delivered_at", "error")
    list_select_related = ("assessment__experiment",)
    ordering = (F("next_try_at").asc(nulls_last=True), "-delivered_at")
    readonly_fields = ("id",)
    actions = ("send_again",)

    def has_send_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("ratings.change_delivery")

    @admin.display(description="experiment")
    def experiment(self, delivery: Delivery) -> str:
        return str(delivery.assessment.experiment)

    @admin.display(description="verdict")
    def verdict(self, delivery: Delivery) -> str:
        return delivery.assessment.verdict or "withdrawn"

    @admin.action(description="Send now (restart the attempts)", permissions=["send"])
    def send_again(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        waiting = queryset.filter(delivered_at=None)
        count = waiting.update(next_try_at=Now(), attempts=0)
        self.message_user(request, f"{count} will be sent within seconds.", messages.SUCCESS)
