"""What operators send as clips made elsewhere: files with a manifest, or one clip."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile

from generation.backends.registry import IMPORTED
from generation.catalogue.categories import Category
from generation.imports.manifest import (
    HARDWARE_AT_MOST,
    ManifestError,
    ManifestRow,
    one_spelling,
    parse_manifest,
)
from generation.models import Prompt, Version

MANIFEST_BYTES_AT_MOST = 1 << 20  # some ten thousand lines; what is larger is no manifest
NAME_BYTES_AT_MOST = 200  # a folder takes names of 255 bytes
SUFFIXES_TAKEN = ".mp4,.mov,.mkv,.webm"


class FilesInput(forms.FileInput):
    allow_multiple_selected = True


class FilesField(forms.FileField):
    """One file or several; one without contents is the worker's to refuse, with its name."""

    widget = FilesInput(attrs={"accept": SUFFIXES_TAKEN})

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_empty_file=True, **kwargs)

    def clean(self, data: Any, initial: Any = None) -> list[UploadedFile]:
        given = data if isinstance(data, (list, tuple)) and data else [data]
        files = [super(FilesField, self).clean(file, initial) for file in given]
        for file in files:
            file.name = one_spelling(str(file.name))
        names = Counter(file.name for file in files)
        if twice := [name for name, times in names.items() if times > 1]:
            raise ValidationError(
                f"Two files have the name {twice[0]}. Rename one, in the manifest as well."
            )
        if long := [name for name in names if len(name.encode()) > NAME_BYTES_AT_MOST]:
            raise ValidationError(
                f"The name {long[0][:40]}… is longer than {NAME_BYTES_AT_MOST} bytes. Shorten it."
            )
        return files


class ManifestForm(forms.Form):
    """Many clips, as a manifest lists them."""

    manifest = forms.FileField(
        widget=forms.FileInput(attrs={"accept": ".csv,text/csv"}),
        help_text="CSV in UTF-8 with the columns file, version, prompt and category. Optional "
        "columns: seed_slot, seconds_taken and hardware.",
    )
    clips = FilesField(
        label="Files",
        help_text="The files that the manifest lists. Folders in its file names are ignored.",
    )

    def clean_manifest(self) -> list[ManifestRow]:
        file: UploadedFile = self.cleaned_data["manifest"]
        if (file.size or 0) > MANIFEST_BYTES_AT_MOST:
            raise ValidationError(
                f"{file.name} is larger than 1 MB. Check that it is the manifest."
            )
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
                    "folders. Upload them separately."
                )
        return [_without_folder(row) for row in rows]

    @property
    def rows(self) -> list[ManifestRow]:
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

    file = FilesField(widget=forms.FileInput(attrs={"accept": SUFFIXES_TAKEN}))
    version = forms.ModelChoiceField(
        Version.objects.filter(backend=IMPORTED),
        to_field_name="slug",
        help_text="Only versions whose backend is “imported”.",
    )
    prompt = PromptField(Prompt.objects.all(), to_field_name="key")
    category = forms.ChoiceField(choices=Category.choices)
    seed_slot = forms.IntegerField(
        min_value=0,
        max_value=9999,
        initial=0,
        help_text="Number of the clip, where a prompt has several.",
    )
    seconds_taken = forms.FloatField(
        required=False,
        help_text="Wall time to make the clip, if known. Shown on the leaderboards as stated.",
    )
    hardware = forms.CharField(
        required=False,
        max_length=HARDWARE_AT_MOST,
        help_text="Hardware that made the clip, if known. Shown beside the time.",
    )
    left_out: Sequence[str] = ()

    @property
    def named(self) -> dict[str, UploadedFile]:
        return {file.name: file for file in self.cleaned_data["file"]}

    @property
    def rows(self) -> list[ManifestRow]:
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
        return [ManifestRow(1, cells)]


def _last_part(path: str) -> str:
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def _without_folder(row: ManifestRow) -> ManifestRow:
    """Browsers send files without their folders."""
    if "file" not in row.cells:
        return row
    name = one_spelling(_last_part(row.cells["file"]))
    return replace(row, cells={**row.cells, "file": name})
