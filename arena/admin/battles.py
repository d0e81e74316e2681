"""Battles."""

from django.contrib import admin

from arena.admin.base import SHORT_ID, IdSearch, voter_link
from arena.models import Battle
from generation.admin.base import ReadOnlyAdmin, minute


@admin.register(Battle)
class BattleAdmin(IdSearch, ReadOnlyAdmin):
    list_display = (
        "short_id",
        "created_minute",
        "category_slug",
        "prompt",
        "version_a",
        "version_b",
        "kind_word",
        "whose",
        "answer",
    )
    list_filter = ("category", "kind")
    list_select_related = ("prompt", "clip_a__version", "clip_b__version", "vote", "skip")
    ordering = ("-created_at",)
    sortable_by = ("created_minute",)
    readonly_fields = ("id", "created_at", "answer")
    id_fields = ("id", "voter__id")
    search_help_text = "Search by the first four or more characters of a battle's or voter's id"

    @admin.display(description="battle")
    def short_id(self, battle: Battle) -> str:
        return str(battle.pk)[:SHORT_ID]

    @admin.display(description="created at", ordering="created_at")
    def created_minute(self, battle: Battle) -> str:
        return minute(battle.created_at)

    @admin.display(description="A")
    def version_a(self, battle: Battle) -> str:
        return str(battle.clip_a.version)

    @admin.display(description="B")
    def version_b(self, battle: Battle) -> str:
        return str(battle.clip_b.version)

    @admin.display(description="voter")
    def whose(self, battle: Battle) -> str:
        return voter_link(battle.voter_id)

    def answer(self, battle: Battle) -> str:
        if hasattr(battle, "vote"):
            return battle.vote.choice
        return "skipped" if hasattr(battle, "skip") else "-"
