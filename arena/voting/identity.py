"""Voters are known by a signed cookie; voting needs no account."""

from uuid import UUID

from django.conf import settings
from django.core import signing
from django.http import HttpRequest, HttpResponse

from arena.models import Voter

COOKIE = "voter"
A_YEAR = 365 * 24 * 3600


def voter_of(request: HttpRequest) -> Voter | None:
    """Who sent this request; None for a newcomer or a cookie that is not ours. Asked once."""
    if not hasattr(request, "_voter"):
        request._voter = _read_voter(request)  # type: ignore[attr-defined]
    voter: Voter | None = request._voter  # type: ignore[attr-defined]
    return voter


def _read_voter(request: HttpRequest) -> Voter | None:
    value = request.COOKIES.get(COOKIE)
    if not value:
        return None
    try:
        voter_id = UUID(signing.loads(value, salt=COOKIE))
    except (signing.BadSignature, ValueError):
        return None
    return Voter.objects.filter(pk=voter_id).first()


def cookie_value(voter: Voter) -> str:
    return signing.dumps(str(voter.pk), salt=COOKIE)


def remember(response: HttpResponse, voter: Voter) -> None:
    response.set_cookie(
        COOKIE,
        cookie_value(voter),
        max_age=A_YEAR,
        httponly=True,
        samesite="Lax",
        secure=settings.SESSION_COOKIE_SECURE,
    )
