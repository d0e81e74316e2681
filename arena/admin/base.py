"""What the admin pages of voters, battles and the ledger share: the search by id."""

import re
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString

from generation.admin.base import TableAdmin, link_to

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
        """The filter beside the list says what each is for."""
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
