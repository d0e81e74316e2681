"""Panels, their members and the links that invite them."""

import csv
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from arena.admin.base import voter_link
from arena.experiments.panels import add_members
from arena.models import PANEL, Member, Panel
from generation.admin.base import TableAdmin, link_to


class PanelForm(forms.ModelForm):
    members_to_add = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=500,
        help_text="Each member gets an invitation link.",
    )


class MemberInline(admin.TabularInline):
    model = Member
    extra = 0
    can_delete = False
    fields = ("label", "link", "given", "whose", "revoked")
    readonly_fields = ("link", "given", "whose")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Member]:
        self.site = request.build_absolute_uri("/").rstrip("/")  # an inline lives for one request
        in_panel = Q(voter__votes__battle__stream=PANEL)
        return super().get_queryset(request).annotate(count=Count("voter__votes", filter=in_panel))

    def link(self, member: Member) -> SafeString:
        address = self.site + reverse("panel", args=[member.token])
        return format_html('<input class="member-link" readonly size="60" value="{}">', address)

    @admin.display(description="votes")
    def given(self, member: Any) -> int:
        return member.count

    @admin.display(description="voter")
    def whose(self, member: Member) -> str:
        return voter_link(member.voter_id) if member.voter_id else "link not opened yet"


@admin.register(Panel)
class PanelAdmin(TableAdmin):
    form = PanelForm
    list_display = ("name", "slug", "quota", "member_count", "created_at")
    prepopulated_fields = {"slug": ["name"]}
    readonly_fields = ("its_experiments", "links_file", "created_at")
    fields = (
        "name", "slug", "instructions", "quota", "its_experiments", "members_to_add", "links_file",
        "created_at",
    )  # fmt: skip
    inlines = (MemberInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Panel]:
        return super().get_queryset(request).annotate(count=Count("members"))

    def has_delete_permission(self, request: HttpRequest, obj: Panel | None = None) -> bool:
        used = obj is not None and obj.members.exists()
        return super().has_delete_permission(request, obj) and not used

    @admin.display(description="members")
    def member_count(self, panel: Any) -> int:
        return panel.count

    @admin.display(description="experiments")
    def its_experiments(self, panel: Panel) -> str:
        """Who may vote is fixed when an experiment starts."""
        names = [str(experiment) for experiment in panel.experiments.all()] if panel.pk else []
        return ", ".join(names) or "-"

    @admin.display(description="all invitation links")
    def links_file(self, panel: Panel) -> str:
        if panel.pk is None:
            return "-"
        return link_to(reverse("admin:panel_links", args=[panel.pk]), "download as CSV")

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if count := form.cleaned_data.get("members_to_add"):
            add_members(form.instance, count)
            self.message_user(request, f"{count} members added.", messages.SUCCESS)

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
        for member in panel.members.filter(revoked=False):
            address = reverse("panel", args=[member.token])
            writer.writerow([member.label, request.build_absolute_uri(address)])
        return response
