"""Keys of the API: shown once when they are made, kept as a hash. Each has scopes and an end."""

import hashlib
import secrets
from collections.abc import Collection
from datetime import timedelta

from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from ratings.models import ApiToken, Scope

NOTED_EVERY = timedelta(minutes=1)
KEY_DAYS, KEY_DAYS_AT_MOST = 90, 366


class KeyRefused(Exception):
    """A key that opens nothing (401), or not this (403); the message is for whoever sent it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def new_token(name: str, scopes: Collection[Scope], days: int = KEY_DAYS) -> str:
    """Make a key and return it; it is random enough that a plain hash hides it."""
    token = f"photofinish_{secrets.token_urlsafe(32)}"
    ApiToken.objects.create(
        name=name,
        digest=_digest(token),
        scopes=[scope.value for scope in Scope if scope in scopes],
        expires_at=timezone.now() + timedelta(days=days),
    )
    return token


def token_row(token: str, scope: Scope) -> ApiToken | None:
    """What this key belongs to, unless it was revoked; its use is noted once a minute.

    Raises KeyRefused where it has expired, or was not made for this.
    """
    row = ApiToken.objects.filter(digest=_digest(token), revoked=False).first()
    if row is None:
        return None
    if row.state == "expired":
        raise KeyRefused(
            401,
            f"The key “{row.name}” expired on {row.expires_at:%Y-%m-%d}: make another with "
            "`manage.py token new`.",
        )
    if scope not in row.scopes:
        raise KeyRefused(
            403,
            f"The key “{row.name}” lacks the scope “{scope.value}” ({scope.label}): make one that "
            f"has it with `manage.py token new NAME --scope {scope.value}`.",
        )
    stale = Q(used_at=None) | Q(used_at__lt=Now() - NOTED_EVERY)
    ApiToken.objects.filter(stale, pk=row.pk).update(used_at=Now())
    return row


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
