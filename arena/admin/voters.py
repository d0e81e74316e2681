"""Voters."""

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet
from django.http import HttpRequest
from django.urls import reverse

from arena.admin.base import SHORT_ID, IdSearch
from arena.admin.ledger import ExclusionActions, ExclusionInline, latest_action
from arena.models import Exclusion, Voter
from generation.admin.base import link_to


@admin.register(Voter)
class VoterAdmin(IdSearch, ExclusionActions):
    list_display = ("short_id", "simulated", "created_at", "excluded")
    list_filter = ("simulated",)
    ordering = ("-created_at",)
    sortable_by = ("created_at",)
    search_help_text = "Search by the first four or more characters of a voter's id"
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

    @admin.display(description="vote list")
    def its_votes(self, voter: Voter) -> str:
        address = reverse("admin:arena_vote_changelist")
        return link_to(f"{address}?voter__id__exact={voter.pk}", "show votes")

    @admin.display(description="battle list")
    def its_battles(self, voter: Voter) -> str:
        address = reverse("admin:arena_battle_changelist")
        return link_to(f"{address}?voter__id__exact={voter.pk}", "show battles")
