"""Operators: how they sign in, and what they may see beyond the public.

Too many failed sign-ins close the door for a while to one name from one address (django-axes). A
site can ask for a code beside the password (django-otp). Every failure is a line in the log.
"""

import logging
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any

from axes.models import AccessAttempt
from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.auth.signals import user_login_failed
from django.core.validators import MaxLengthValidator
from django.db import transaction
from django.db.models import Max
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django_otp.plugins.otp_totp.models import TOTPDevice

log = logging.getLogger(__name__)

NAME_AT_MOST = 150  # characters, as Django's accounts have it


def may_view(request: HttpRequest, permission: str) -> bool:
    """Whether a public page may show more: to an operator who is signed in as /admin/ asks for, and
    has the permission."""
    return admin.site.has_permission(request) and request.user.has_perm(permission)


class _CodeInput(forms.TextInput):
    """Empty when the form comes back: a code is good once."""

    def format_value(self, value: Any) -> None:
        return None


class SignInForm(AdminAuthenticationForm):
    """Name and password, and with REQUIRE_TOTP the code of the operator's device. Which of them is
    wrong it does not say."""

    error_messages = {
        **AdminAuthenticationForm.error_messages,
        "invalid_login": "This name, password or code is wrong, or the account is no operator’s.",
    }
    code = forms.CharField(
        label="Code from your authenticator app:",
        required=False,
        max_length=8,
        widget=_CodeInput(attrs={"autocomplete": "one-time-code", "inputmode": "numeric"}),
    )

    def __init__(self, request: HttpRequest | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self.fields["username"].validators.append(MaxLengthValidator(NAME_AT_MOST))
        if not settings.REQUIRE_TOTP:
            del self.fields["code"]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean()
        user = self.get_user()
        if user is None or not settings.REQUIRE_TOTP or _is_verified(user, cleaned.get("code", "")):
            return cleaned
        self.user_cache = None
        given = {"username": cleaned["username"]}
        user_login_failed.send(sender=__name__, credentials=given, request=self.request)
        raise self.get_invalid_login_error()


@transaction.atomic
def _is_verified(user: AbstractBaseUser, code: str) -> bool:
    """Whether the code is of the user's device; Django's sign-in then keeps which one it was."""
    device = TOTPDevice.objects.select_for_update().filter(user=user, confirmed=True).first()
    if device is None or not device.verify_token(code):
        return False
    user.otp_device = device  # type: ignore[attr-defined]  # django-otp reads it there
    return True


class OperatorsSite(admin.AdminSite):
    """/admin/, and whatever page asks it who an operator is."""

    login_form = SignInForm
    login_template = "admin/sign_in.html"

    def has_permission(self, request: HttpRequest) -> bool:
        if not super().has_permission(request):
            return False
        return not settings.REQUIRE_TOTP or request.user.is_verified()  # type: ignore[union-attr]


def client_address(request: HttpRequest) -> str | None:
    """Whose sign-in it is, by the address that CLIENT_ADDRESS names: REMOTE_ADDR, or a header that
    the proxy sets. Of several addresses the last counts, which the proxy itself added; of IPv6 the
    network of 64 bits, as whoever has one of its addresses has them all."""
    direct = request.META.get("REMOTE_ADDR", "")
    if settings.CLIENT_ADDRESS == "REMOTE_ADDR":
        given = direct
    else:
        given = request.headers.get(settings.CLIENT_ADDRESS, "").rpartition(",")[2].strip()
    for address in (given, direct):
        try:
            bits = 32 if ip_address(address).version == 4 else 64
            return str(ip_network(f"{address.partition('%')[0]}/{bits}", strict=False)[0])
        except ValueError:
            continue
    return None  # a socket of this machine, without a header


@receiver(user_login_failed)
def note_failed_sign_in(
    credentials: dict[str, Any], request: HttpRequest | None = None, **_: Any
) -> None:
    name = str(credentials.get("username", ""))[:NAME_AT_MOST]
    address = "no address" if request is None else client_address(request) or "a local socket"
    log.warning("Sign-in failed: %r from %s.", name, address)


def locked_out(
    request: HttpRequest, response: HttpResponse, credentials: dict[str, Any] | None
) -> HttpResponse:
    """In place of the sign-in after too many failures: says when to try again."""
    until = _locked_until(request, (credentials or {}).get("username", ""))
    seconds = max(1, round((until - timezone.now()).total_seconds()))
    context = {
        **admin.site.each_context(request),
        "title": "Too many failed sign-ins",
        "until": until,
        "minutes": -(-seconds // 60),
    }
    page = render(request, "admin/locked_out.html", context, status=429)
    page.headers["Retry-After"] = str(seconds)
    return page


def _locked_until(request: HttpRequest, name: str) -> datetime:
    attempts = AccessAttempt.objects.filter(username=name, ip_address=client_address(request))
    last: datetime | None = attempts.aggregate(last=Max("attempt_time"))["last"]
    return (last or timezone.now()) + settings.AXES_COOLOFF_TIME
