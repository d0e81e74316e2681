"""Keys of the API: shown once when they are made, kept as a hash."""

import hashlib
import secrets
from datetime import timedelta

from django.db.models import Q
from django.db.models.functions import Now

from ratings.models import ApiToken

NOTED_EVERY = timedelta(minutes=1)


def new_token(name: str) -> str:
    """Make a key and return it; it is random enough that a plain hash hides it."""
    token = f"photofinish_{secrets.token_urlsafe(32)}"
    ApiToken.objects.create(name=name, digest=_digest(token))
    return token


def token_row(token: str) -> ApiToken | None:
    """What this key belongs to, unless it was revoked; its use is noted once a minute."""
    row = ApiToken.objects.filter(digest=_digest(token), revoked=False).first()
    if row is not None:
        stale = Q(used_at=None) | Q(used_at__lt=Now() - NOTED_EVERY)
        ApiToken.objects.filter(stale, pk=row.pk).update(used_at=Now())
    return row


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
