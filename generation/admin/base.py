"""What the admin pages of all apps share: lists that stay quick however long their tables are."""

from datetime import datetime
from typing import Any, cast

from django.contrib import admin
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

# Counting a million rows takes longer than showing a page of them. Nobody turns 200 pages: beyond
# this many rows the page says "more than" and asks to narrow the list.
COUNT_AT_MOST = 10_000


class LargeTablePaginator(Paginator):
    """Reads a bounded part of the table however long it is.

    Counting stops at COUNT_AT_MOST. A page is found by its keys alone and only its own rows are
    joined to what the list shows beside them.
    """

    capped = False  # read by templates/admin/pagination.html

    @cached_property
    def count(self) -> int:
        rows = cast(QuerySet[Any], self.object_list).order_by().values("pk")
        counted = rows[: COUNT_AT_MOST + 1].count()
        self.capped = counted > COUNT_AT_MOST
        return min(counted, COUNT_AT_MOST)

    def page(self, number: int | str) -> Page:
        page = super().page(number)
        keys = list(cast(QuerySet[Any], page.object_list).values_list("pk", flat=True))
        page.object_list = cast(QuerySet[Any], self.object_list).filter(pk__in=keys)
        return page


class TableAdmin(admin.ModelAdmin):
    """A list that stays quick when its table is long. Rows are never deleted by the hundred."""

    paginator = LargeTablePaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50

    class Media:
        css = {"all": ["css/admin.css"]}

    @admin.display(description="category", ordering="category")
    def category_slug(self, row: Any) -> str:
        """The word of the addresses and the files: lists have no room for the label."""
        return row.category

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {
            name: action
            for name, action in super().get_actions(request).items()
            if name != "delete_selected"
        }


class ReadOnlyAdmin(TableAdmin):
    """Rows that the site writes and operators only look at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyInline(admin.TabularInline):
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def minute(moment: datetime | None) -> str:
    """Short enough for a column, and sorts as it reads."""
    return "-" if moment is None else timezone.localtime(moment).strftime("%Y-%m-%d %H:%M")


def link_to(address: str, text: object) -> SafeString:
    return format_html('<a href="{}">{}</a>', address, text)
