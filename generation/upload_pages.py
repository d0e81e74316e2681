"""The operators' page for clips made elsewhere: send them, and watch what becomes of each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, TooManyFilesSent, ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_safe

from generation.categories import Category
from generation.importing import (
    CHUNK,
    HARDWARE_AT_MOST,
    ManifestError,
    Row,
    parse_manifest,
)
from generation.models import Prompt, Upload, UploadRow, UploadState, Version
from generation.uploads import take_in

PERMISSION = "generation.add_clip"
MANIFEST_BYTES_AT_MOST = 1 << 20  # some ten thousand lines; what is larger is no manifest
NAME_BYTES_AT_MOST = 200  # a folder takes names of 255 bytes
UPLOADS_SHOWN = 20
CONTAINERS = ".mp4,.mov,.mkv,.webm"


class FilesInput(forms.FileInput):
    allow_multiple_selected = True


class FilesField(forms.FileField):
    """One file or several; one without contents is the worker's to refuse, with its name."""

    widget = FilesInput(attrs={"accept": CONTAINERS})

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_empty_file=True, **kwargs)

    def clean(self, data: Any, initial: Any = None) -> list[UploadedFile]:
        given = data if isinstance(data, (list, tuple)) and data else [data]
        files = [super(FilesField, self).clean(file, initial) for file in given]
        names = Counter(file.name for file in files)
        if twice := [name for name, times in names.items() if times > 1]:
            raise ValidationError(f"Two files have the name {twice[0]}: rename one, there too.")
        if long := [name for name in names if len(name.encode()) > NAME_BYTES_AT_MOST]:
            raise ValidationError(
                f"The name {long[0][:40]}… is longer than {NAME_BYTES_AT_MOST} bytes: shorten it."
            )
        return files


class ManifestForm(forms.Form):
    """Many clips, as a manifest lists them."""

    manifest = forms.FileField(
        widget=forms.FileInput(attrs={"accept": ".csv,text/csv"}),
        help_text="CSV in UTF-8 with the columns file, version, prompt, category and, if wanted, "
        "seed_slot, seconds_taken, hardware.",
    )
    clips = FilesField(
        label="Files", help_text="Those that the manifest names; folders in its names do not count."
    )

    def clean_manifest(self) -> list[Row]:
        file: UploadedFile = self.cleaned_data["manifest"]
        if (file.size or 0) > MANIFEST_BYTES_AT_MOST:
            raise ValidationError(f"{file.name} is larger than 1 MB: is it the manifest?")
        try:
            rows = parse_manifest(file.read(), str(file.name))
        except ManifestError as error:
            raise ValidationError(str(error)) from None
        paths: dict[str, str] = {}
        for row in rows:
            path = row.cells.get("file", "")
            if paths.setdefault(_last_part(path), path) != path:
                raise ValidationError(
                    f"{paths[_last_part(path)]} and {path} have the same name without their "
                    "folders: send them one after the other."
                )
        return [_without_folder(row) for row in rows]

    @property
    def rows(self) -> list[Row]:
        return self.cleaned_data["manifest"]

    @property
    def named(self) -> dict[str, UploadedFile]:
        wanted = {row.cells.get("file") for row in self.rows}
        return {file.name: file for file in self.cleaned_data["clips"] if file.name in wanted}

    @property
    def left_out(self) -> list[str]:
        """Files that no line of the manifest names."""
        return [file.name for file in self.cleaned_data["clips"] if file.name not in self.named]


class PromptField(forms.ModelChoiceField):
    def label_from_instance(self, prompt: Any) -> str:
        return f"{prompt.key}: {prompt.text[:60]}"


class ClipForm(forms.Form):
    """One clip without a manifest; what it says is a row all the same."""

    file = FilesField(widget=forms.FileInput(attrs={"accept": CONTAINERS}))
    version = forms.ModelChoiceField(
        Version.objects.filter(backend="imported"),
        to_field_name="slug",
        help_text="Of those with the backend imported.",
    )
    prompt = PromptField(Prompt.objects.all(), to_field_name="key")
    category = forms.ChoiceField(choices=Category.choices)
    seed_slot = forms.IntegerField(
        min_value=0, max_value=9999, initial=0, help_text="Which of several clips of the prompt."
    )
    seconds_taken = forms.FloatField(
        required=False, help_text="Wall time of making it, if known: the boards show it as stated."
    )
    hardware = forms.CharField(
        required=False,
        max_length=HARDWARE_AT_MOST,
        help_text="What it was made on, if known; shown beside the time.",
    )
    left_out: Sequence[str] = ()

    @property
    def named(self) -> dict[str, UploadedFile]:
        return {file.name: file for file in self.cleaned_data["file"]}

    @property
    def rows(self) -> list[Row]:
        data = self.cleaned_data
        taken = data["seconds_taken"]
        cells = {
            "file": next(iter(self.named)),
            "version": data["version"].slug,
            "prompt": data["prompt"].key,
            "category": data["category"],
            "seed_slot": str(data["seed_slot"]),
            "seconds_taken": "" if taken is None else str(taken),
            "hardware": data["hardware"],
        }
        return [Row(1, cells)]


def _last_part(path: str) -> str:
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def _without_folder(row: Row) -> Row:
    """Browsers send files without their folders."""
    if "file" not in row.cells:
        return row
    return replace(row, cells={**row.cells, "file": _last_part(row.cells["file"])})


@csrf_exempt  # a body is looked at before it is read; then _uploads_page checks the token
@require_http_methods(["GET", "HEAD", "POST"])
def uploads_page(request: HttpRequest) -> HttpResponse:
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    if request.method == "POST" and (sentence := _too_much(request)):
        while request.read(CHUNK):  # a browser that is cut off while it sends shows no answer
            pass
        return _show(request, ManifestForm(prefix="all"), ClipForm(prefix="one"), sentence)
    return _uploads_page(request)


def _too_much(request: HttpRequest) -> str:
    """Why the body is not taken, or nothing."""
    size = int(request.META.get("CONTENT_LENGTH") or 0)
    if size > settings.UPLOAD_MB_AT_MOST * 10**6:
        return (
            f"What you sent has {size / 10**6:,.0f} MB and at most {settings.UPLOAD_MB_AT_MOST:,} "
            "MB are taken at once: send it in parts, each with the lines of its own files."
        )
    try:
        request.FILES  # noqa: B018  reads the body
    except TooManyFilesSent:
        return (
            f"You sent more than {settings.UPLOAD_FILES_AT_MOST:,} files at once, with the "
            "manifest: send them in parts, each with the lines of its own files."
        )
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
            upload = take_in(form.rows, form.named, request.user.get_username())
        except OSError as error:
            form.add_error(None, f"The files could not be stored ({error}): mend that and retry.")
        else:
            if names := ", ".join(form.left_out):
                messages.warning(request, f"No line of the manifest names {names}: left out.")
            return redirect("upload", upload.pk)
    return _show(request, many_form, one_form)


def _show(
    request: HttpRequest, many_form: ManifestForm, one_form: ClipForm, error: str = ""
) -> HttpResponse:
    context = {
        **admin.site.each_context(request),
        "title": "Clips made elsewhere",
        "forms": [(many_form, "all"), (one_form, "one")],
        "error": error,
        "limits": (settings.UPLOAD_MB_AT_MOST, settings.UPLOAD_FILES_AT_MOST),
        "uploads": _counted().exclude(state=UploadState.ARRIVING)[:UPLOADS_SHOWN],
    }
    return render(request, "admin/uploads.html", context, status=413 if error else 200)


def _counted() -> Any:
    What = UploadRow.What  # noqa: N806  a class
    counts = {"imported": What.IMPORTED, "there": What.THERE, "refused": What.REFUSED}
    return Upload.objects.annotate(
        waiting=Count("rows", filter=Q(rows__what="")),
        **{name: Count("rows", filter=Q(rows__what=what)) for name, what in counts.items()},
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
    }
    return render(request, "admin/upload.html", context)
