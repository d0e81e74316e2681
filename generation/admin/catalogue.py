"""Models and their versions."""

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from generation.admin.base import ReadOnlyInline, TableAdmin, link_to
from generation.admin.clips import say_cancelled
from generation.backends import CannotRender
from generation.backends.registry import BACKENDS
from generation.catalogue.categories import Category
from generation.catalogue.entries import check_version
from generation.models import RENDERED_STATES, Model, Version, VersionState
from generation.rendering.queue import cancel_clips


class VersionInline(ReadOnlyInline):
    model = Version
    fields = ("codename", "state", "backend", "width", "height", "fps", "released_on")
    readonly_fields = fields
    show_change_link = True


class ChildInline(VersionInline):
    fk_name = "parent"
    verbose_name = "child version"
    verbose_name_plural = "child versions"


@admin.register(Model)
class ModelAdmin(TableAdmin):
    list_display = ("name", "lab", "weights", "licence", "in_house", "released_on")
    list_filter = ("in_house", "weights")
    search_fields = ("name", "slug", "lab")
    prepopulated_fields = {"slug": ["name"]}
    inlines = (VersionInline,)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        used = obj is not None and obj.versions.exists()
        return super().has_delete_permission(request, obj) and not used


class VersionForm(forms.ModelForm):
    backend = forms.ChoiceField(choices=[(name, name) for name in BACKENDS])
    categories = forms.MultipleChoiceField(
        choices=Category.choices, widget=forms.CheckboxSelectMultiple
    )

    def _post_clean(self) -> None:
        """A version that is rendered must be able to make its clips."""
        super()._post_clean()  # type: ignore[misc]  # the stubs leave it out
        if not self.errors and self.instance.state in RENDERED_STATES:
            try:
                check_version(self.instance)
            except CannotRender as error:
                state = self.instance.get_state_display().lower()
                self.add_error("state", f"This version can't be {state}: {error}")

    def clean_parent(self) -> Version | None:
        """Lineages are followed from child to parent, so they may not run in a circle."""
        parent: Version | None = self.cleaned_data["parent"]
        ancestor = parent
        while ancestor is not None:
            if ancestor.pk == self.instance.pk:
                raise ValidationError(
                    f"{parent} descends from this version. Choose an earlier parent."
                )
            ancestor = ancestor.parent
        return parent


@admin.register(Version)
class VersionAdmin(TableAdmin):
    """Once a version has clips, what determines them is frozen (a database trigger holds it)."""

    form = VersionForm
    list_display = ("name", "model", "codename", "revealed_on", "state", "backend", "its_clips")
    list_filter = ("state", "backend", ("model", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("model",)
    search_fields = ("name", "slug", "codename", "model__name")
    autocomplete_fields = ("model", "parent")
    readonly_fields = ("created_at", "activated_at", "its_clips")
    actions = ("activate", "put_on_trial", "pause", "retire", "reveal_today", "cancel_clips")
    fieldsets = (
        (None, {"fields": ("model", "parent", "name", "slug", "state", "its_clips")}),
        ("Codename", {"fields": ("codename", "revealed_on")}),
        (
            "How its clips are made",
            {
                "description": "Fixed once the version has clips. To change it, add a new version.",
                "fields": ("backend", "settings", "width", "height", "fps"),
            },
        ),
        (
            "What it can make",
            {
                "fields": (
                    "categories", "min_seconds", "max_seconds", "price_per_second", "budget",
                    "released_on", "availability", "created_at", "activated_at",
                )
            },
        ),
    )  # fmt: skip
    inlines = (ChildInline,)

    def get_readonly_fields(
        self, request: HttpRequest, obj: Version | None = None
    ) -> tuple[str, ...]:
        frozen: tuple[str, ...] = ()
        if obj is not None and obj.clips.exists():
            frozen = tuple(name.removesuffix("_id") for name in Version.FROZEN)
        return (*self.readonly_fields, *frozen)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        used = obj is not None and obj.clips.exists()
        return super().has_delete_permission(request, obj) and not used

    @admin.display(description="clips")
    def its_clips(self, version: Version) -> str:
        if version.pk is None:
            return "-"
        address = reverse("admin:generation_clip_changelist")
        return link_to(f"{address}?version__id__exact={version.pk}", "show clips")

    @admin.action(description="Activate (render and show)", permissions=["change"])
    def activate(self, request: HttpRequest, queryset: QuerySet[Version]) -> None:
        self._render(request, queryset, VersionState.ACTIVE)

    @admin.action(
        description="Put on trial (render, show in experiments only)", permissions=["change"]
    )
    def put_on_trial(self, request: HttpRequest, queryset: QuerySet[Version]) -> None:
        self._render(request, queryset, VersionState.TRIAL)

    def _render(
        self, request: HttpRequest, queryset: QuerySet[Version], state: VersionState
    ) -> None:
        for version in queryset:
            try:
                check_version(version)
            except CannotRender as error:
                said = f"{version} can't be {state.label.lower()}: {error}"
                self.message_user(request, said, messages.ERROR)
                queryset = queryset.exclude(pk=version.pk)
        self._set_state(request, queryset, state)

    @admin.action(description="Pause (stop showing for now)", permissions=["change"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Version]) -> None:
        self._set_state(request, queryset, VersionState.PAUSED)

    @admin.action(description="Retire (keep the rating, stop showing)", permissions=["change"])
    def retire(self, request: HttpRequest, queryset: QuerySet[Version]) -> None:
        self._set_state(request, queryset, VersionState.RETIRED)

    def _set_state(
        self, request: HttpRequest, queryset: QuerySet[Version], state: VersionState
    ) -> None:
        others = queryset.exclude(state=state)
        self._update(request, others, f"state set to {state.label.lower()}", state=state)

    @admin.action(description="Reveal names today", permissions=["change"])
    def reveal_today(self, request: HttpRequest, queryset: QuerySet[Version]) -> None:
        disguised = queryset.exclude(codename="").exclude(revealed_on__lte=timezone.localdate())
        self._update(request, disguised, "revealed", revealed_on=timezone.localdate())

    @admin.action(description="Cancel waiting and rendering clips", permissions=["change"])
    def cancel_clips(self, request: HttpRequest, queryset: QuerySet[Version]) -> None:
        for version in queryset:
            count = cancel_clips(version.clips.all(), by=request.user.get_username())
            say_cancelled(self, request, count, f"{version}’s clips")
            if count:
                LogEntry.objects.log_actions(
                    cast(int, request.user.pk),
                    [version],
                    CHANGE,
                    change_message=f"{count:,} clips cancelled.",
                )

    def _update(
        self, request: HttpRequest, queryset: QuerySet[Version], said: str, **values: Any
    ) -> None:
        """Change those of the chosen that need it, log each, and say which."""
        with transaction.atomic():
            chosen = list(queryset.select_for_update(of=("self",)))
            changed = Version.objects.filter(pk__in=[v.pk for v in chosen]).update(**values)
            LogEntry.objects.log_actions(
                cast(int, request.user.pk), chosen, CHANGE, change_message=f"{said}."
            )
        names = ", ".join(str(version) for version in chosen)
        if changed:
            self.message_user(request, f"{said.capitalize()}: {names}.", messages.SUCCESS)
        else:
            self.message_user(
                request, f"No selected version needed this change: {said}.", messages.WARNING
            )
