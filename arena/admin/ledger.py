"""Votes and exclusions, and how votes are taken out of the ratings.

The ledger is only ever added to: an exclusion is one more entry, and so is its withdrawal.
"""

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import User
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse
from django.utils.html import format_html

from arena.admin.base import SHORT_ID, IdSearch, voter_link
from arena.ledger import look_after_exclusion, record_exclusions
from arena.models import Exclusion, Vote
from generation.admin.base import ReadOnlyAdmin, ReadOnlyInline, minute

# Each chosen row travels through the page that asks for the reason, and Django takes at most a
# thousand fields from a form.
EXCLUDE_AT_ONCE = 500


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=300, widget=forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"})
    )


def latest_action(**about: OuterRef) -> Subquery:
    """The action of the entry that holds about each row; null when there is none."""
    return Subquery(Exclusion.objects.filter(**about).order_by("-pk").values("action")[:1])


class ExclusionActions(ReadOnlyAdmin):
    """Excludes the selected rows from ratings or includes them again, once a reason is given."""

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
                f"More than {EXCLUDE_AT_ONCE} {self.opts.verbose_name_plural} were selected, so "
                "nothing was recorded. Select fewer at a time."
            )
            self.message_user(request, sentence, messages.ERROR)
            return None
        form = ReasonForm(request.POST if "reason" in request.POST else None)
        if form.is_valid():
            self._record(request, things, action, form.cleaned_data["reason"])
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": f"{action.label}: give a reason",
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
        recorded = record_exclusions(action, self.exclusion_field, things, reason, by)
        done = "excluded from ratings" if action == Exclusion.Action.EXCLUDE else "included again"
        if recorded:
            names = self.opts.verbose_name if recorded == 1 else self.opts.verbose_name_plural
            sentence = f"{recorded} {names} {done}. The next leaderboards will use this."
            self.message_user(request, sentence, messages.SUCCESS)
        if left := len(things) - recorded:
            sentence = (
                f"{left} of the selected rows needed no entry, because the ledger says so already."
            )
            self.message_user(request, sentence, messages.INFO)


class ExclusionInline(ReadOnlyInline):
    model = Exclusion
    fields = ("action", "reason", "by", "made_at")
    readonly_fields = fields
    ordering = ("-pk",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Exclusion]:
        return super().get_queryset(request).select_related("by")


@admin.register(Vote)
class VoteAdmin(IdSearch, ExclusionActions):
    list_display = (
        "number",
        "cast_minute",
        "category_slug",
        "prompt",
        "version_a",
        "version_b",
        "choice_word",
        "kind_word",
        "whose",
        "excluded",
    )
    list_filter = ("category", "choice", "kind", "simulated")
    list_select_related = ("prompt", "version_a", "version_b")
    ordering = ("-pk",)
    sortable_by = ("number",)
    id_fields = ("voter__id",)
    search_help_text = "Search by the first four or more characters of a voter's id"
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

    @admin.display(description="voter")
    def whose(self, vote: Vote) -> str:
        voter = voter_link(vote.voter_id)
        return format_html("{} simulated", voter) if vote.simulated else voter

    @admin.display(description="excluded")
    def excluded(self, vote: Any) -> str:
        """Either entry excludes the vote, so an operator must see which."""
        if vote.latest == Exclusion.Action.EXCLUDE:
            return "this vote"
        return "its voter" if vote.latest_of_voter == Exclusion.Action.EXCLUDE else "-"


class ExclusionForm(forms.ModelForm):
    class Meta:
        model = Exclusion
        fields = ("action", "voter", "vote", "reason")

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean() or self.cleaned_data
        named = [field for field in ("voter", "vote") if cleaned.get(field) is not None]
        if len(named) != 1 and not {"voter", "vote"} & set(self.errors):
            self.add_error(
                "voter", "An entry is about one voter or one vote. Give exactly one of them."
            )
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
    search_help_text = "Search by the first four or more characters of a voter's id"
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
        look_after_exclusion()

    @admin.display(description="entry", ordering="pk")
    def number(self, entry: Exclusion) -> str:
        return f"{entry.pk}"

    def about(self, entry: Exclusion) -> str:
        if entry.voter_id is not None:
            return f"voter {str(entry.voter_id)[:SHORT_ID]}"
        return f"vote {entry.vote_id}"
