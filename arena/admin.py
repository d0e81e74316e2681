"""What operators see of voters, battles, panels and the ledger, and how they take votes out of the
ratings.

The ledger is only ever added to: an exclusion is one more entry, and so is its withdrawal.
"""

import csv
import re
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any, cast
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from arena.experiments import cancel
from arena.models import (
    PANEL,
    Battle,
    Exclusion,
    Experiment,
    Panel,
    Seat,
    Vote,
    Voter,
)
from arena.panels import make_seats
from generation.admin import ReadOnlyAdmin, ReadOnlyInline, TableAdmin, link_to, minute

admin.site.site_header = "Photofinish"
admin.site.site_title = "Photofinish operators"
admin.site.index_title = "Photofinish"

# Each chosen row travels through the page that asks for the reason, and Django takes at most a
# thousand fields from a form.
EXCLUDE_AT_ONCE = 500
SHORT_ID = 8  # digits of an id that pages show


def id_range(term: str) -> tuple[UUID, UUID] | None:
    """The lowest and the highest id that begin with these digits; None if no id does."""
    digits = term.replace("-", "").strip().lower()
    if not re.fullmatch(r"[0-9a-f]{4,32}", digits):
        return None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


def voter_link(voter_id: UUID) -> SafeString:
    address = reverse("admin:arena_voter_change", args=[voter_id])
    return link_to(address, str(voter_id)[:SHORT_ID])


class IdSearch(TableAdmin):
    """Finds rows by the beginning of an id, as a range that the index answers."""

    search_fields = ("pk",)  # shows the box; what is searched stands in `id_fields`
    id_fields: Sequence[str] = ("id",)

    @admin.display(description="kind")
    def kind_word(self, row: Any) -> str:
        """What each is for says the filter beside the list."""
        return row.kind

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if not search_term:
            return queryset, False
        span = id_range(search_term)
        if span is None:
            return queryset.none(), False
        return queryset.filter(
            reduce(or_, (Q((f"{f}__range", span)) for f in self.id_fields))
        ), False


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=300, widget=forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"})
    )


def latest_action(**about: OuterRef) -> Subquery:
    """The action of the entry that holds about each row; null when there is none."""
    return Subquery(Exclusion.objects.filter(**about).order_by("-pk").values("action")[:1])


def record(
    action: Exclusion.Action, field: str, things: Sequence[Voter | Vote], reason: str, by: User
) -> int:
    """One entry for each voter or vote about which the latest entry says otherwise."""
    latest = dict(
        Exclusion.objects.filter(**{f"{field}__in": things})
        .order_by(f"{field}_id", "-pk")
        .distinct(f"{field}_id")
        .values_list(f"{field}_id", "action")
    )
    entries = [
        Exclusion(action=action, reason=reason, by=by, **{field: thing})
        for thing in things
        if latest.get(thing.pk, Exclusion.Action.INCLUDE) != action
    ]
    return len(Exclusion.objects.bulk_create(entries))


class ExclusionActions(ReadOnlyAdmin):
    """Takes the chosen rows out of the ratings, or back in, once a reason is given."""

    actions = ("exclude_from_ratings", "include_again")
    exclusion_field = ""

    def has_exclude_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("arena.add_exclusion")

    @admin.action(description="Exclude from ratings", permissions=["exclude"])
    def exclude_from_ratings(
        self, request: HttpRequest, queryset: QuerySet[Any]
    ) -> HttpResponseBase | None:
        return self._ask_reason(request, queryset, Exclusion.Action.EXCLUDE)

    @admin.action(description="Include again", permissions=["exclude"])
    def include_again(
        self, request: HttpRequest, queryset: QuerySet[Any]
    ) -> HttpResponseBase | None:
        return self._ask_reason(request, queryset, Exclusion.Action.INCLUDE)

    def _ask_reason(
        self, request: HttpRequest, queryset: QuerySet[Any], action: Exclusion.Action
    ) -> HttpResponseBase | None:
        things = list(queryset[: EXCLUDE_AT_ONCE + 1])
        if len(things) > EXCLUDE_AT_ONCE:
            sentence = (
                f"More than {EXCLUDE_AT_ONCE} {self.opts.verbose_name_plural} were chosen and "
                "nothing was recorded: choose fewer at a time."
            )
            self.message_user(request, sentence, messages.ERROR)
            return None
        form = ReasonForm(request.POST if "reason" in request.POST else None)
        if form.is_valid():
            self._record(request, things, action, form.cleaned_data["reason"])
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": f"{action.label}: why?",
            "opts": self.opts,
            "media": self.media,
            "form": form,
            "things": things,
            "action": request.POST["action"],
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/arena/reason.html", context)

    def _record(
        self, request: HttpRequest, things: list[Any], action: Exclusion.Action, reason: str
    ) -> None:
        by = cast(User, request.user)
        recorded = record(action, self.exclusion_field, things, reason, by)
        done = "excluded from ratings" if action == Exclusion.Action.EXCLUDE else "included again"
        if recorded:
            names = self.opts.verbose_name if recorded == 1 else self.opts.verbose_name_plural
            sentence = f"{recorded} {names} {done}; the next leaderboards reckon with it."
            self.message_user(request, sentence, messages.SUCCESS)
        if left := len(things) - recorded:
            sentence = f"{left} of the chosen needed no entry: the ledger says so already."
            self.message_user(request, sentence, messages.INFO)


class ExclusionInline(ReadOnlyInline):
    model = Exclusion
    fields = ("action", "reason", "by", "made_at")
    readonly_fields = fields
    ordering = ("-pk",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Exclusion]:
        return super().get_queryset(request).select_related("by")


@admin.register(Voter)
class VoterAdmin(IdSearch, ExclusionActions):
    list_display = ("short_id", "simulated", "created_at", "excluded")
    list_filter = ("simulated",)
    ordering = ("-created_at",)
    sortable_by = ("created_at",)
    search_help_text = "The beginning of a voter's id, at least four characters"
    exclusion_field = "voter"
    fields = ("id", "simulated", "created_at", "vote_count", "its_votes", "its_battles")
    readonly_fields = ("id", "vote_count", "its_votes", "its_battles")
    inlines = (ExclusionInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Voter]:
        return super().get_queryset(request).annotate(latest=latest_action(voter=OuterRef("pk")))

    @admin.display(description="voter")
    def short_id(self, voter: Voter) -> str:
        return str(voter.pk)[:SHORT_ID]

    @admin.display(description="excluded", boolean=True)
    def excluded(self, voter: Any) -> bool:
        return voter.latest == Exclusion.Action.EXCLUDE

    @admin.display(description="votes")
    def vote_count(self, voter: Voter) -> int:
        return voter.votes.count()

    @admin.display(description="list of votes")
    def its_votes(self, voter: Voter) -> str:
        address = reverse("admin:arena_vote_changelist")
        return link_to(f"{address}?voter__id__exact={voter.pk}", "its votes")

    @admin.display(description="list of battles")
    def its_battles(self, voter: Voter) -> str:
        address = reverse("admin:arena_battle_changelist")
        return link_to(f"{address}?voter__id__exact={voter.pk}", "its battles")


@admin.register(Vote)
class VoteAdmin(IdSearch, ExclusionActions):
    list_display = (
        "number",
        "cast_minute",
        "category_slug",
        "prompt",
        "left",
        "right",
        "choice_word",
        "kind_word",
        "whose",
        "excluded",
    )
    list_filter = ("category", "choice", "kind", "simulated")
    list_select_related = ("prompt", "left_version", "right_version")
    ordering = ("-pk",)
    sortable_by = ("number",)
    id_fields = ("voter__id",)
    search_help_text = "The beginning of a voter's id, at least four characters"
    exclusion_field = "vote"
    readonly_fields = ("cast_at",)
    inlines = (ExclusionInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Vote]:
        return (
            super()
            .get_queryset(request)
            .annotate(
                latest=latest_action(vote=OuterRef("pk")),
                latest_of_voter=latest_action(voter=OuterRef("voter")),
            )
        )

    @admin.display(description="vote", ordering="pk")
    def number(self, vote: Vote) -> str:
        return f"{vote.pk}"

    @admin.display(description="cast at")
    def cast_minute(self, vote: Vote) -> str:
        return minute(vote.cast_at)

    @admin.display(description="choice")
    def choice_word(self, vote: Vote) -> str:
        return vote.choice

    def left(self, vote: Vote) -> str:
        return str(vote.left_version)

    def right(self, vote: Vote) -> str:
        return str(vote.right_version)

    @admin.display(description="voter")
    def whose(self, vote: Vote) -> str:
        voter = voter_link(vote.voter_id)
        return format_html("{} simulated", voter) if vote.simulated else voter

    @admin.display(description="excluded")
    def excluded(self, vote: Any) -> str:
        """Either entry takes the vote out, so an operator must see which."""
        if vote.latest == Exclusion.Action.EXCLUDE:
            return "by itself"
        return "with its voter" if vote.latest_of_voter == Exclusion.Action.EXCLUDE else "-"


@admin.register(Battle)
class BattleAdmin(IdSearch, ReadOnlyAdmin):
    list_display = (
        "short_id",
        "created_minute",
        "category_slug",
        "prompt",
        "left_version",
        "right_version",
        "kind_word",
        "whose",
        "answer",
    )
    list_filter = ("category", "kind")
    list_select_related = ("prompt", "left__version", "right__version", "vote", "skip")
    ordering = ("-created_at",)
    sortable_by = ("created_minute",)
    readonly_fields = ("id", "created_at", "answer")
    id_fields = ("id", "voter__id")
    search_help_text = "The beginning of a battle's or a voter's id, at least four characters"

    @admin.display(description="battle")
    def short_id(self, battle: Battle) -> str:
        return str(battle.pk)[:SHORT_ID]

    @admin.display(description="created at", ordering="created_at")
    def created_minute(self, battle: Battle) -> str:
        return minute(battle.created_at)

    @admin.display(description="left")
    def left_version(self, battle: Battle) -> str:
        return str(battle.left.version)

    @admin.display(description="right")
    def right_version(self, battle: Battle) -> str:
        return str(battle.right.version)

    @admin.display(description="voter")
    def whose(self, battle: Battle) -> str:
        return voter_link(battle.voter_id)

    def answer(self, battle: Battle) -> str:
        if hasattr(battle, "vote"):
            return battle.vote.choice
        return "skipped" if hasattr(battle, "skip") else "-"


class ExclusionForm(forms.ModelForm):
    class Meta:
        model = Exclusion
        fields = ("action", "voter", "vote", "reason")

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean() or self.cleaned_data
        named = [field for field in ("voter", "vote") if cleaned.get(field) is not None]
        if len(named) != 1 and not {"voter", "vote"} & set(self.errors):
            self.add_error("voter", "An entry is about one voter or one vote: give one of the two.")
        return cleaned


@admin.register(Exclusion)
class ExclusionAdmin(IdSearch):
    """Entries are added with a reason; a wrong one is answered by another, never changed."""

    form = ExclusionForm
    list_display = ("number", "action", "about", "reason", "by", "made_at")
    list_filter = ("action",)
    list_select_related = ("by",)
    ordering = ("-pk",)
    sortable_by = ("number",)
    id_fields = ("voter__id", "vote__voter__id")
    search_help_text = "The beginning of a voter's id, at least four characters"
    raw_id_fields = ("voter", "vote")

    def get_readonly_fields(
        self, request: HttpRequest, obj: Exclusion | None = None
    ) -> tuple[str, ...]:
        return () if obj is None else ("by", "made_at")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Exclusion, form: Any, change: bool) -> None:
        obj.by = cast(User, request.user)
        super().save_model(request, obj, form, change)

    @admin.display(description="entry", ordering="pk")
    def number(self, entry: Exclusion) -> str:
        return f"{entry.pk}"

    def about(self, entry: Exclusion) -> str:
        if entry.voter_id is not None:
            return f"voter {str(entry.voter_id)[:SHORT_ID]}"
        return f"vote {entry.vote_id}"


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

    @admin.action(description="Cancel: ask nobody any more", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Experiment]) -> None:
        stopped = [experiment for experiment in queryset if cancel(experiment)]
        if stopped:
            names = ", ".join(map(str, stopped))
            self.message_user(request, f"Cancelled: {names}.", messages.SUCCESS)
        else:
            self.message_user(request, "None of the chosen was running.", messages.WARNING)


class PanelForm(forms.ModelForm):
    seats_to_add = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=500,
        help_text="Each is one member, invited by a link of its own.",
    )


class SeatInline(admin.TabularInline):
    model = Seat
    extra = 0
    can_delete = False
    fields = ("label", "link", "given", "whose", "revoked")
    readonly_fields = ("link", "given", "whose")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Seat]:
        self.site = request.build_absolute_uri("/").rstrip("/")  # an inline lives for one request
        in_panel = Q(voter__votes__battle__stream=PANEL)
        return super().get_queryset(request).annotate(count=Count("voter__votes", filter=in_panel))

    def link(self, seat: Seat) -> SafeString:
        address = self.site + reverse("panel", args=[seat.token])
        return format_html('<input class="seat-link" readonly size="60" value="{}">', address)

    @admin.display(description="votes")
    def given(self, seat: Any) -> int:
        return seat.count

    @admin.display(description="voter")
    def whose(self, seat: Seat) -> str:
        return voter_link(seat.voter_id) if seat.voter_id else "link not opened yet"


@admin.register(Panel)
class PanelAdmin(TableAdmin):
    form = PanelForm
    list_display = ("name", "slug", "quota", "seat_count", "created_at")
    prepopulated_fields = {"slug": ["name"]}
    readonly_fields = ("its_experiments", "links_file", "created_at")
    fields = (
        "name", "slug", "instructions", "quota", "its_experiments", "seats_to_add", "links_file",
        "created_at",
    )  # fmt: skip
    inlines = (SeatInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Panel]:
        return super().get_queryset(request).annotate(count=Count("seats"))

    def has_delete_permission(self, request: HttpRequest, obj: Panel | None = None) -> bool:
        used = obj is not None and obj.seats.exists()
        return super().has_delete_permission(request, obj) and not used

    @admin.display(description="seats")
    def seat_count(self, panel: Any) -> int:
        return panel.count

    @admin.display(description="experiments")
    def its_experiments(self, panel: Panel) -> str:
        """Who may vote is fixed when an experiment starts."""
        names = [str(experiment) for experiment in panel.experiments.all()] if panel.pk else []
        return ", ".join(names) or "-"

    @admin.display(description="all links")
    def links_file(self, panel: Panel) -> str:
        if panel.pk is None:
            return "-"
        return link_to(reverse("admin:panel_links", args=[panel.pk]), "as a CSV file")

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if count := form.cleaned_data.get("seats_to_add"):
            make_seats(form.instance, count)
            self.message_user(request, f"{count} seats added.", messages.SUCCESS)

    def get_urls(self) -> list[URLPattern]:
        links = self.admin_site.admin_view(self.links)
        return [path("<int:pk>/links.csv", links, name="panel_links"), *super().get_urls()]

    def links(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Whoever may change the panel may send its links."""
        panel = get_object_or_404(Panel, pk=pk)
        if not self.has_change_permission(request, panel):
            raise PermissionDenied
        name = f"{panel.slug}-links.csv"
        response = HttpResponse(
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )
        writer = csv.writer(response)
        writer.writerow(["label", "link"])
        for seat in panel.seats.filter(revoked=False):
            address = reverse("panel", args=[seat.token])
            writer.writerow([seat.label, request.build_absolute_uri(address)])
        return response
