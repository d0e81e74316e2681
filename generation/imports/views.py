"""The operators' page for clips made elsewhere: send them, and watch what becomes of each."""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, TooManyFilesSent
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_safe

from generation.imports.forms import ClipForm, ManifestForm
from generation.imports.uploads import store_upload
from generation.media.pauses import DISK_FULL, pauses_now
from generation.media.storage import StorageRefuses
from generation.models import RowOutcome, Upload, UploadState

PERMISSION = "generation.add_clip"
UPLOADS_SHOWN = 20
READ_BYTES = 1 << 20


@csrf_exempt  # a body is looked at before it is read; then _uploads_page checks the token
@require_http_methods(["GET", "HEAD", "POST"])
def uploads_page(request: HttpRequest) -> HttpResponse:
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    if request.method == "POST" and (sentence := _too_much(request)):
        while request.read(READ_BYTES):  # a browser that is cut off while it sends shows no answer
            pass
        return _show(request, ManifestForm(prefix="all"), ClipForm(prefix="one"), sentence)
    return _uploads_page(request)


def _too_much(request: HttpRequest) -> str:
    """Why the body is not taken, or nothing."""
    size = int(request.META.get("CONTENT_LENGTH") or 0)
    if size > settings.UPLOAD_MB_AT_MOST * 10**6:
        return (
            f"This upload has {size / 10**6:,.0f} MB, and the limit is "
            f"{settings.UPLOAD_MB_AT_MOST:,} MB. Upload it in parts, each with the lines of its "
            "own files."
        )
    try:
        request.FILES  # noqa: B018  reads the body
    except TooManyFilesSent:
        return (
            f"This upload has more than {settings.UPLOAD_FILES_AT_MOST:,} files, counting the "
            "manifest. Upload them in parts, each with the lines of its own files."
        )
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        return f"The site's disk for what arrives (TMPDIR) is full ({error.strerror})."
    return ""


@csrf_protect
def _uploads_page(request: HttpRequest) -> HttpResponse:
    one = "one" in request.POST
    data, files = (request.POST, request.FILES) if request.method == "POST" else (None, None)
    many_form = ManifestForm(None if one else data, None if one else files, prefix="all")
    one_form = ClipForm(data if one else None, files if one else None, prefix="one")
    form: ManifestForm | ClipForm = one_form if one else many_form
    if form.is_valid():
        try:
            upload = store_upload(form.rows, form.named, request.user.get_username())
        except StorageRefuses as error:
            form.add_error(
                None, f"Nothing was stored. {error} Upload it again when that is mended."
            )
        except OSError as error:
            form.add_error(
                None, f"The files could not be stored ({error}). Fix this and upload again."
            )
        else:
            if names := ", ".join(form.left_out):
                messages.warning(
                    request, f"Ignored because no line of the manifest lists them: {names}."
                )
            return redirect("upload", upload.pk)
    return _show(request, many_form, one_form)


def _show(
    request: HttpRequest, many_form: ManifestForm, one_form: ClipForm, error: str = ""
) -> HttpResponse:
    context = {
        **admin.site.each_context(request),
        "title": "Import clips",
        "forms": [(many_form, "all"), (one_form, "one")],
        "error": error,
        "limits": (settings.UPLOAD_MB_AT_MOST, settings.UPLOAD_FILES_AT_MOST),
        "pauses": pauses_now(),
        "uploads": _counted().exclude(state=UploadState.ARRIVING)[:UPLOADS_SHOWN],
    }
    return render(request, "admin/uploads.html", context, status=413 if error else 200)


def _counted() -> Any:
    def rows(outcome: str) -> Count:
        return Count("rows", filter=Q(rows__outcome=outcome))

    return Upload.objects.annotate(
        waiting=rows(""),
        imported=rows(RowOutcome.IMPORTED),
        held=rows(RowOutcome.HELD),
        there=rows(RowOutcome.ALREADY_THERE),
        refused=rows(RowOutcome.REFUSED),
    )


@require_safe
def upload_page(request: HttpRequest, upload_id: UUID) -> HttpResponse:
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    upload = get_object_or_404(_counted(), pk=upload_id)
    context = {
        **admin.site.each_context(request),
        "title": f"Upload of {upload}",
        "upload": upload,
        "running": upload.state != UploadState.DONE,
        "rows": upload.rows.all(),
        "pauses": pauses_now(),
    }
    return render(request, "admin/upload.html", context)
