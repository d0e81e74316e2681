"""Devices for codes of operators: who has one. `manage.py totp` makes them."""

from django.contrib import admin
from django.http import HttpRequest
from django_otp.plugins.otp_totp.models import TOTPDevice

from generation.admin.base import ReadOnlyAdmin

admin.site.unregister(TOTPDevice)  # the library's page adds devices, and shows their keys


@admin.register(TOTPDevice)
class TotpDeviceAdmin(ReadOnlyAdmin):
    list_display = ("user", "created_at", "last_used_at", "throttling_failure_count")
    list_select_related = ("user",)
    search_fields = ("user__username",)
    fields = readonly_fields = list_display

    def has_delete_permission(self, request: HttpRequest, obj: TOTPDevice | None = None) -> bool:
        """One that is lost can't be used any more once it is deleted."""
        return request.user.has_perm("otp_totp.delete_totpdevice")
