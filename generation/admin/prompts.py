"""Reference images, prompts and prompt sets."""

import io
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.db import models, transaction
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from PIL import Image

from generation.admin.base import ReadOnlyAdmin, ReadOnlyInline, TableAdmin, link_to
from generation.catalogue.categories import Category
from generation.catalogue.prompts import CheckedImage, ImageRefused, check_image, store_image
from generation.media.serving import send_file
from generation.models import Clip, Prompt, PromptSet, PromptSetEntry, ReferenceImage
from generation.rendering.queue import queue_clips

# 16 megapixels of PNG are at most 48 MB of pixels; photographs are far below half of that.
UPLOAD_BYTES_AT_MOST = 24 * 1024 * 1024
THUMBNAIL_PIXELS = 240
REFUSALS_SHOWN = 10


class ReferenceImageForm(forms.ModelForm):
    """Takes a file only when the row is made: an image never changes, another is another row."""

    upload = forms.FileField(
        label="Image",
        help_text="JPEG, PNG or WebP, at most 16 megapixels. Re-encoded without metadata.",
        widget=forms.FileInput(attrs={"accept": "image/jpeg,image/png,image/webp"}),
    )

    class Meta:
        model = ReferenceImage
        fields = ("note",)

    def clean_upload(self) -> CheckedImage:
        file: UploadedFile = self.cleaned_data["upload"]
        if (file.size or 0) > UPLOAD_BYTES_AT_MOST:
            raise ValidationError(
                f"{file.name} has {(file.size or 0) / 2**20:.0f} MB. The limit is "
                f"{UPLOAD_BYTES_AT_MOST // 2**20} MB. Make the image smaller."
            )
        try:
            image = check_image(file.read(), str(file.name))
        except ImageRefused as refused:
            raise ValidationError(str(refused)) from None
        if known := ReferenceImage.objects.filter(sha256=image.sha256).first():
            raise ValidationError(f"{file.name} already exists as “{known}”. Use that image.")
        return image


class NoteForm(forms.ModelForm):
    class Meta:
        model = ReferenceImage
        fields = ("note",)


@admin.register(ReferenceImage)
class ReferenceImageAdmin(TableAdmin):
    FACTS = ("size", "source", "sha256")

    list_display = ("thumbnail", "note", "size", "source", "digest")
    list_display_links = ("thumbnail", "note")
    list_filter = ("source",)
    ordering = ("-pk",)
    search_fields = ("note", "sha256")

    def get_form(
        self,
        request: HttpRequest,
        obj: ReferenceImage | None = None,
        change: bool = False,
        **kwargs: Any,
    ) -> type[forms.ModelForm]:
        kwargs["form"] = NoteForm if change else ReferenceImageForm
        return super().get_form(request, obj, change, **kwargs)

    def get_fields(
        self, request: HttpRequest, obj: ReferenceImage | None = None
    ) -> tuple[str, ...]:
        return ("upload", "note") if obj is None else ("picture", "note", *self.FACTS)

    def get_readonly_fields(
        self, request: HttpRequest, obj: ReferenceImage | None = None
    ) -> tuple[str, ...]:
        return () if obj is None else ("picture", *self.FACTS)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        used = obj is not None and obj.prompt_set.exists()
        return super().has_delete_permission(request, obj) and not used

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:
        instance = super().save_form(request, form, change)
        if change:
            return instance
        uploaded = ReferenceImage.Source.UPLOADED
        return store_image(form.cleaned_data["upload"], uploaded, form.cleaned_data["note"])

    def delete_model(self, request: HttpRequest, obj: ReferenceImage) -> None:
        storage, name = obj.file.storage, str(obj.file.name)
        super().delete_model(request, obj)
        transaction.on_commit(lambda: storage.delete(name))

    def get_urls(self) -> list[URLPattern]:
        def file_view(view: Callable[..., HttpResponseBase], name: str) -> URLPattern:
            return path(
                f"<int:image_id>/{name}.webp",
                self.admin_site.admin_view(view, cacheable=True),
                name=f"generation_referenceimage_{name}",
            )

        own = [file_view(self.send_image, "image"), file_view(self.send_thumbnail, "thumbnail")]
        return own + super().get_urls()

    def _image(self, request: HttpRequest, image_id: int) -> ReferenceImage:
        if not self.has_view_permission(request):
            raise PermissionDenied
        image = ReferenceImage.objects.filter(pk=image_id).first()
        if image is None or not image.file.storage.exists(str(image.file.name)):
            raise Http404(f"Reference image {image_id} has no file.")
        return image

    def send_image(self, request: HttpRequest, image_id: int) -> HttpResponseBase:
        return send_file(request, str(self._image(request, image_id).file.name))

    def send_thumbnail(self, request: HttpRequest, image_id: int) -> HttpResponse:
        """Small: a page of originals would be hundreds of megabytes."""
        buffer = io.BytesIO()
        with self._image(request, image_id).file.open("rb") as file, Image.open(file) as picture:
            picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
            picture.save(buffer, "WEBP", quality=80)
        headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
        return HttpResponse(buffer.getvalue(), content_type="image/webp", headers=headers)

    @admin.display(description="image")
    def thumbnail(self, image: ReferenceImage) -> str:
        return image_thumbnail(image)

    @admin.display(description="image")
    def picture(self, image: ReferenceImage) -> str:
        return format_html(
            '<img class="reference" src="{}" width="{}" height="{}" alt="{}">',
            reverse("admin:generation_referenceimage_image", args=[image.pk]),
            image.width,
            image.height,
            image.note or "Reference image",
        )

    @admin.display(description="SHA-256")
    def digest(self, image: ReferenceImage) -> str:
        return image.sha256[:12]

    @admin.display(description="size")
    def size(self, image: ReferenceImage) -> str:
        return f"{image.width}×{image.height}"


def image_thumbnail(image: ReferenceImage) -> SafeString:
    return format_html(
        '<img class="thumbnail" src="{}" alt="{}" loading="lazy">',
        reverse("admin:generation_referenceimage_thumbnail", args=[image.pk]),
        image.note or "Reference image",
    )


class TagFilter(admin.SimpleListFilter):
    title = "tag"
    parameter_name = "tag"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        tags = Prompt.objects.annotate(tag=models.Func("tags", function="unnest"))
        names = tags.order_by("tag").values_list("tag", flat=True).distinct()
        return [(name, name) for name in names]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(tags__contains=[self.value()]) if self.value() else queryset


class PromptForm(forms.ModelForm):
    sounds = forms.MultipleChoiceField(
        choices=[("silent", "Silent"), ("audio", "With audio")],
        widget=forms.CheckboxSelectMultiple,
    )


@admin.register(Prompt)
class PromptAdmin(TableAdmin):
    """Once a prompt has clips, what was asked is frozen (a database trigger holds it)."""

    FROZEN = ("key", "text", "image", "aspect", "seconds")

    form = PromptForm
    list_display = ("key", "words", "language", "task", "aspect", "seconds", "tag_list")
    list_filter = (
        ("language", admin.AllValuesFieldListFilter),
        TagFilter,
        ("image", admin.EmptyFieldListFilter),
    )
    search_fields = ("key", "text")
    autocomplete_fields = ("image",)

    def get_readonly_fields(
        self, request: HttpRequest, obj: Prompt | None = None
    ) -> tuple[str, ...]:
        frozen = self.FROZEN if obj is not None and obj.clips.exists() else ()
        return (*frozen, "its_clips", "its_image")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        used = obj is not None and (obj.clips.exists() or obj.entries.exists())
        return super().has_delete_permission(request, obj) and not used

    @admin.display(description="text", ordering="text")
    def words(self, prompt: Prompt) -> str:
        return prompt.text if len(prompt.text) <= 90 else prompt.text[:89] + "…"

    @admin.display(description="tags")
    def tag_list(self, prompt: Prompt) -> str:
        return ", ".join(prompt.tags)

    @admin.display(description="clips")
    def its_clips(self, prompt: Prompt) -> str:
        if prompt.pk is None:
            return "-"
        address = reverse("admin:generation_clip_changelist")
        return link_to(f"{address}?prompt__id__exact={prompt.pk}", "show clips")

    @admin.display(description="reference image")
    def its_image(self, prompt: Prompt) -> str:
        return image_thumbnail(prompt.image) if prompt.image is not None else "-"


class EntryInline(ReadOnlyInline):
    model = PromptSetEntry
    verbose_name_plural = "prompts"
    fields = ("position", "its_prompt", "words", "task")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[PromptSetEntry]:
        return super().get_queryset(request).select_related("prompt")

    @admin.display(description="prompt")
    def its_prompt(self, entry: PromptSetEntry) -> str:
        address = reverse("admin:generation_prompt_change", args=[entry.prompt_id])
        return link_to(address, entry.prompt.key)

    @admin.display(description="text")
    def words(self, entry: PromptSetEntry) -> str:
        return entry.prompt.text

    def task(self, entry: PromptSetEntry) -> str:
        return entry.prompt.task


@admin.register(PromptSet)
class PromptSetAdmin(ReadOnlyAdmin):
    """Prompt sets come from files (`load_prompts`); here they are read and sent to the workers."""

    list_display = ("name", "slug", "prompt_count", "seed_slots")
    search_fields = ("name", "slug")
    fields = ("name", "slug", "description", "seed_slots", "digest", "clip_counts")
    readonly_fields = ("clip_counts",)
    actions = ("queue_missing",)
    inlines = (EntryInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[PromptSet]:
        return super().get_queryset(request).annotate(prompt_count=Count("entries"))

    def has_queue_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("generation.add_clip")

    @admin.display(description="prompts", ordering="prompt_count")
    def prompt_count(self, prompt_set: Any) -> int:
        return prompt_set.prompt_count

    @admin.display(description="clips")
    def clip_counts(self, prompt_set: PromptSet) -> str:
        rows = (
            Clip.objects.filter(prompt__sets=prompt_set)
            .values_list("category", "state")
            .annotate(count=Count("pk"))
            .order_by("category", "state")
        )
        lines = [(category, f"{count:,} {state}") for category, state, count in rows]
        return format_html_join("", "<div>{}: {}</div>", lines) or "none yet"

    @admin.action(description="Queue all missing clips", permissions=["queue"])
    def queue_missing(self, request: HttpRequest, queryset: QuerySet[PromptSet]) -> None:
        for prompt_set in queryset:
            added = existing = 0
            refused: list[str] = []
            left_out: set[str] = set()
            for category in Category:
                queued = queue_clips(category, prompt_set)
                added, existing = added + queued.added, existing + queued.existing
                refused += [f"{category}, {sentence}" for sentence in queued.refused]
                self.message_user(
                    request,
                    f"{prompt_set}, {category}: {queued.added:,} clips added, "
                    f"{queued.existing:,} already there.",
                    messages.SUCCESS if queued.added else messages.INFO,
                )
                left_out |= set(queued.left_out)
            if not (added or existing or refused or left_out):
                sentence = f"No active version can make clips of {prompt_set}. Activate one first."
                self.message_user(request, sentence, messages.WARNING)
            if left_out:
                sentence = (
                    f"Left out, as a paid service makes their clips: {', '.join(sorted(left_out))}."
                    " To order them, use `manage.py render` and name the version."
                )
                self.message_user(request, sentence, messages.WARNING)
            for sentence in refused[:REFUSALS_SHOWN]:
                self.message_user(request, f"Rejected: {sentence}", messages.WARNING)
            if len(refused) > REFUSALS_SHOWN:
                more = (
                    f"{len(refused) - REFUSALS_SHOWN:,} more clips of {prompt_set} were rejected."
                )
                self.message_user(request, more, messages.WARNING)
