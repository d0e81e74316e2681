"""What operators do about models, prompts and clips, and what admin pages of large tables share."""

import io
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.core.paginator import Page, Paginator
from django.db import models, transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from PIL import Image

from generation import backends
from generation.backends import CannotRender
from generation.catalog import check_version
from generation.categories import Category
from generation.media import send_file
from generation.models import (
    RENDERED_STATES,
    Clip,
    ClipState,
    HostedJob,
    Model,
    Prompt,
    PromptSet,
    PromptSetEntry,
    ReferenceImage,
    Version,
    VersionState,
)
from generation.progress import read_progress, shape_of_error
from generation.prompts import CheckedImage, ImageRefused, check_image, store_image
from generation.rendering import cancel, queue_clips

# Counting a million rows takes longer than showing a page of them. Nobody turns 200 pages: beyond
# this many rows the page says "more than" and asks to narrow the list.
COUNT_AT_MOST = 10_000
# 16 megapixels of PNG are at most 48 MB of pixels; photographs are far below half of that.
UPLOAD_BYTES_AT_MOST = 24 * 1024 * 1024
THUMBNAIL_PIXELS = 240
REFUSALS_SHOWN = 10


class LargeTablePaginator(Paginator):
    """Reads a bounded part of the table however long it is.

    Counting stops at COUNT_AT_MOST. A page is found by its keys alone and only its own rows are
    joined to what the list shows beside them.
    """

    capped = False  # read by templates/admin/pagination.html

    @cached_property
    def count(self) -> int:
        rows = cast(QuerySet[Any], self.object_list).order_by().values("pk")
        counted = rows[: COUNT_AT_MOST + 1].count()
        self.capped = counted > COUNT_AT_MOST
        return min(counted, COUNT_AT_MOST)

    def page(self, number: int | str) -> Page:
        page = super().page(number)
        keys = list(cast(QuerySet[Any], page.object_list).values_list("pk", flat=True))
        page.object_list = cast(QuerySet[Any], self.object_list).filter(pk__in=keys)
        return page


class TableAdmin(admin.ModelAdmin):
    """A list that stays quick when its table is long. Rows are never deleted by the hundred."""

    paginator = LargeTablePaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50

    class Media:
        css = {"all": ["css/admin.css"]}

    @admin.display(description="category", ordering="category")
    def category_slug(self, row: Any) -> str:
        """The word of the addresses and the files: lists have no room for the label."""
        return row.category

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {
            name: action
            for name, action in super().get_actions(request).items()
            if name != "delete_selected"
        }


class ReadOnlyAdmin(TableAdmin):
    """Rows that the site writes and operators only look at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyInline(admin.TabularInline):
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def minute(moment: datetime | None) -> str:
    """Short enough for a column, and sorts as it reads."""
    return "-" if moment is None else timezone.localtime(moment).strftime("%Y-%m-%d %H:%M")


def link_to(address: str, text: object) -> SafeString:
    return format_html('<a href="{}">{}</a>', address, text)


def say_cancelled(page: admin.ModelAdmin, request: HttpRequest, count: int, whose: str) -> None:
    if count:
        sentence = f"Cancelled {count:,} of {whose}; “Retry failed” on clips queues them again."
        page.message_user(request, sentence, messages.SUCCESS)
    else:
        page.message_user(request, f"None of {whose} waited or ran.", messages.WARNING)


class VersionInline(ReadOnlyInline):
    model = Version
    fields = ("codename", "state", "backend", "width", "height", "fps", "released_on")
    readonly_fields = fields
    show_change_link = True


class ChildInline(VersionInline):
    fk_name = "parent"
    verbose_name = "child version"
    verbose_name_plural = "child versions"


@admin.register(Model)
class ModelAdmin(TableAdmin):
    list_display = ("name", "lab", "weights", "licence", "in_house", "released_on")
    list_filter = ("in_house", "weights")
    search_fields = ("name", "slug", "lab")
    prepopulated_fields = {"slug": ["name"]}
    inlines = (VersionInline,)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        used = obj is not None and obj.versions.exists()
        return super().has_delete_permission(request, obj) and not used


class VersionForm(forms.ModelForm):
    backend = forms.ChoiceField(choices=[(name, name) for name in backends.NAMES])
    categories = forms.MultipleChoiceField(
        choices=Category.choices, widget=forms.CheckboxSelectMultiple
    )

    def _post_clean(self) -> None:
        """A version that is rendered must be able to make its clips."""
        super()._post_clean()  # type: ignore[misc]  # the stubs leave it out
        if not self.errors and self.instance.state in RENDERED_STATES:
            try:
                check_version(self.instance)
            except CannotRender as error:
                state = self.instance.get_state_display().lower()
                self.add_error("state", f"It can't be {state}: {error}")

    def clean_parent(self) -> Version | None:
        """Lineages are followed from child to parent, so they may not run in a circle."""
        parent: Version | None = self.cleaned_data["parent"]
        ancestor = parent
        while ancestor is not None:
            if ancestor.pk == self.instance.pk:
                raise ValidationError(
                    f"{parent} descends from this version: choose a parent that came before it."
                )
            ancestor = ancestor.parent
        return parent


@admin.register(Version)
class VersionAdmin(TableAdmin):
    """Once a version has clips, what determines them is frozen (a database trigger holds it)."""

    form = VersionForm
    list_display = ("name", "model", "codename", "revealed_on", "state", "backend", "its_clips")
    list_filter = ("state", "backend", ("model", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("model",)
    search_fields = ("name", "slug", "codename", "model__name")
    autocomplete_fields = ("model", "parent")
    readonly_fields = ("created_at", "its_clips")
    actions = ("activate", "put_on_trial", "pause", "retire", "reveal_today", "cancel_clips")
    fieldsets = (
        (None, {"fields": ("model", "parent", "name", "slug", "state", "its_clips")}),
        ("Disguise", {"fields": ("codename", "revealed_on")}),
        (
            "What makes its clips",
            {
                "description": "Frozen once the version has clips: a change is a new version.",
                "fields": ("backend", "settings", "width", "height", "fps"),
            },
        ),
        (
            "What it offers",
            {
                "fields": (
                    "categories", "min_seconds", "max_seconds", "price_per_second", "budget",
                    "released_on", "availability", "created_at",
                )
            },
        ),
    )  # fmt: skip
    inlines = (ChildInline,)

    def get_readonly_fields(
        self, request: HttpRequest, obj: Version | None = None
    ) -> tuple[str, ...]:
        frozen: tuple[str, ...] = ()
        if obj is not None and obj.clips.exists():
            frozen = tuple(name.removesuffix("_id") for name in Version.FROZEN)
        return (*self.readonly_fields, *frozen)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        used = obj is not None and obj.clips.exists()
        return super().has_delete_permission(request, obj) and not used

    @admin.display(description="clips")
    def its_clips(self, version: Version) -> str:
        if version.pk is None:
            return "-"
        address = reverse("admin:generation_clip_changelist")
        return link_to(f"{address}?version__id__exact={version.pk}", "its clips")

    @admin.action(description="Activate: render and show", permissions=["change"])
    def activate(self, request: HttpRequest, queryset: QuerySet[Version]) -> None:
        self._render(request, queryset, VersionState.ACTIVE)

    @admin.action(
        description="Put on trial: render, show in experiments only", permissions=["change"]
    )
    def put_on_trial(self, request: HttpRequest, queryset: QuerySet[Version]) -> None:
        self._render(request, queryset, VersionState.TRIAL)

    def _render(
        self, request: HttpRequest, queryset: QuerySet[Version], state: VersionState
    ) -> None:
        for version in queryset:
            try:
                check_version(version)
            except CannotRender as error:
                said = f"{version} can't be {state.label.lower()}: {error}"
                self.message_user(request, said, messages.ERROR)
                queryset = queryset.exclude(pk=version.pk)
        self._set_state(request, queryset, state)

    @admin.action(description="Pause: do not show for now", permissions=["change"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Version]) -> None:
        self._set_state(request, queryset, VersionState.PAUSED)

    @admin.action(description="Retire: keep the rating, meet nobody", permissions=["change"])
    def retire(self, request: HttpRequest, queryset: QuerySet[Version]) -> None:
        self._set_state(request, queryset, VersionState.RETIRED)

    def _set_state(
        self, request: HttpRequest, queryset: QuerySet[Version], state: VersionState
    ) -> None:
        others = queryset.exclude(state=state)
        self._update(request, others, f"state set to {state.label.lower()}", state=state)

    @admin.action(description="Reveal today", permissions=["change"])
    def reveal_today(self, request: HttpRequest, queryset: QuerySet[Version]) -> None:
        disguised = queryset.exclude(codename="").exclude(revealed_on__lte=timezone.localdate())
        self._update(request, disguised, "revealed", revealed_on=timezone.localdate())

    @admin.action(description="Cancel clips that wait or run", permissions=["change"])
    def cancel_clips(self, request: HttpRequest, queryset: QuerySet[Version]) -> None:
        for version in queryset:
            count = cancel(version.clips.all(), by=request.user.get_username())
            say_cancelled(self, request, count, f"{version}’s clips")
            if count:
                LogEntry.objects.log_actions(
                    cast(int, request.user.pk),
                    [version],
                    CHANGE,
                    change_message=f"{count:,} clips cancelled.",
                )

    def _update(
        self, request: HttpRequest, queryset: QuerySet[Version], said: str, **values: Any
    ) -> None:
        """Change those of the chosen that need it, log each, and say which."""
        with transaction.atomic():
            chosen = list(queryset.select_for_update(of=("self",)))
            changed = Version.objects.filter(pk__in=[v.pk for v in chosen]).update(**values)
            LogEntry.objects.log_actions(
                cast(int, request.user.pk), chosen, CHANGE, change_message=f"{said}."
            )
        names = ", ".join(str(version) for version in chosen)
        if changed:
            self.message_user(request, f"{said.capitalize()}: {names}.", messages.SUCCESS)
        else:
            self.message_user(
                request, f"None of the chosen versions had to be {said}.", messages.WARNING
            )


class ReferenceImageForm(forms.ModelForm):
    """Takes a file only when the row is made: an image never changes, another is another row."""

    upload = forms.FileField(
        label="Image",
        help_text="JPEG, PNG or WebP, at most 16 megapixels. It is re-encoded without metadata.",
        widget=forms.FileInput(attrs={"accept": "image/jpeg,image/png,image/webp"}),
    )

    class Meta:
        model = ReferenceImage
        fields = ("note",)

    def clean_upload(self) -> CheckedImage:
        file: UploadedFile = self.cleaned_data["upload"]
        if (file.size or 0) > UPLOAD_BYTES_AT_MOST:
            raise ValidationError(
                f"{file.name} has {(file.size or 0) / 2**20:.0f} MB; at most "
                f"{UPLOAD_BYTES_AT_MOST // 2**20} MB are taken: scale it down."
            )
        try:
            image = check_image(file.read(), str(file.name))
        except ImageRefused as refused:
            raise ValidationError(str(refused)) from None
        if known := ReferenceImage.objects.filter(sha256=image.sha256).first():
            raise ValidationError(f"{file.name} is here already, as “{known}”: use that one.")
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
            raise Http404(f"There is no file of reference image {image_id}.")
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
        return link_to(f"{address}?prompt__id__exact={prompt.pk}", "its clips")

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
            for category in Category:
                queued = queue_clips(category, prompt_set)
                added, existing = added + queued.added, existing + queued.existing
                refused += [f"{category}, {sentence}" for sentence in queued.refused]
                self.message_user(
                    request,
                    f"{prompt_set}, {category}: {queued.added:,} clips added, "
                    f"{queued.existing:,} there already.",
                    messages.SUCCESS if queued.added else messages.INFO,
                )
            if not (added or existing or refused):
                sentence = f"No active version makes clips of {prompt_set}: activate one first."
                self.message_user(request, sentence, messages.WARNING)
            for sentence in refused[:REFUSALS_SHOWN]:
                self.message_user(request, f"Refused: {sentence}", messages.WARNING)
            if len(refused) > REFUSALS_SHOWN:
                more = f"{len(refused) - REFUSALS_SHOWN:,} more clips of {prompt_set} were refused."
                self.message_user(request, more, messages.WARNING)


class RenderedVersionFilter(admin.RelatedFieldListFilter):
    """Only versions that have clips, each found by one look into the index."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        has_clips = Q(Exists(Clip.objects.filter(version=OuterRef("pk"))))
        return field.get_choices(
            include_blank=False, ordering=("name",), limit_choices_to=has_clips
        )


class ReasonFilter(admin.SimpleListFilter):
    """What the page of progress leads to; it offers nothing of its own, only the way back."""

    title = "reason of failure"
    parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        chosen = self.value()
        return [(chosen, chosen)] if chosen else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value():
            return queryset
        return queryset.exclude(error="").alias(shape=shape_of_error()).filter(shape=self.value())


class HostedJobInline(ReadOnlyInline):
    """The orders of a clip that a paid service makes; most clips have none."""

    model = HostedJob
    template = "admin/edit_inline/stacked.html"  # sentences and messages are too wide for columns
    fields = ("state", "submitted_at", "job_id", "polls", "cost", "error", "request", "answer")
    readonly_fields = fields
    ordering = ("pk",)
    verbose_name, verbose_name_plural = "order", "orders"


@admin.register(Clip)
class ClipAdmin(ReadOnlyAdmin):
    inlines = (HostedJobInline,)
    list_display = (
        "version",
        "prompt",
        "category_slug",
        "seed_slot",
        "state",
        "attempts",
        "rendered_in",
        "ready_minute",
    )
    list_display_links = ("version", "prompt")
    list_filter = ("state", "category", ("version", RenderedVersionFilter), ReasonFilter)
    list_select_related = ("version", "prompt")
    ordering = ("-created_at",)
    search_fields = ("prompt__key",)
    search_help_text = "Part of the prompt's key"
    actions = ("retry_failed", "cancel_chosen")
    readonly_fields = (
        "player", "poster_image", "prompt_text", "reference", "progress", "files", "gpu_peak",
        "failed_at",
    )  # fmt: skip
    fieldsets = (
        (None, {"fields": ("player", "poster_image", "error")}),
        (
            "What was asked",
            {
                "fields": (
                    "version", "prompt", "prompt_text", "reference", "category", "seed_slot",
                    "seed",
                )
            },
        ),
        (
            "How it stands",
            {
                "fields": (
                    "state", "priority", "attempts", "fence", "worker", "lease_expires_at",
                    "progress", "created_at", "ready_at", "failed_at",
                )
            },
        ),
        (
            "What was made",
            {
                "fields": (
                    "width", "height", "fps", "seconds", "loudness", "motion", "render_seconds",
                    "gpu_seconds", "gpu_peak", "encode_seconds", "hardware", "files",
                    "rendition_sha256",
                )
            },
        ),
    )  # fmt: skip

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("generation.change_clip")

    @admin.action(description="Retry failed", permissions=["retry"])
    def retry_failed(self, request: HttpRequest, queryset: QuerySet[Clip]) -> None:
        failed = Clip.objects.filter(state=ClipState.FAILED, pk__in=queryset.values("pk"))
        waiting = failed.update(state=ClipState.WAITING, attempts=0, error="")
        if waiting:
            sentence = f"{waiting:,} failed clips wait for a worker again."
            self.message_user(request, sentence, messages.SUCCESS)
        else:
            self.message_user(request, "None of the chosen clips has failed.", messages.WARNING)

    @admin.action(description="Cancel those that wait or run", permissions=["retry"])
    def cancel_chosen(self, request: HttpRequest, queryset: QuerySet[Clip]) -> None:
        chosen = Clip.objects.filter(pk__in=queryset.order_by().values("pk"))
        count = cancel(chosen, by=request.user.get_username())
        say_cancelled(self, request, count, "the chosen clips")

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        clip: Clip = context["original"]
        context["subtitle"] = f"{clip.version}, {clip.prompt}, {clip.category}"
        return super().render_change_form(request, context, *args, **kwargs)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.send_clip_file)
        own = [
            path(f"<uuid:clip_id>/{name}", view, {"field": field}, f"generation_clip_{field}")
            for field, name in (("rendition", "rendition.mp4"), ("poster", "poster.jpg"))
        ]
        return own + super().get_urls()

    def send_clip_file(self, request: HttpRequest, clip_id: Any, field: str) -> HttpResponseBase:
        if not self.has_view_permission(request):
            raise PermissionDenied
        clip = Clip.objects.filter(pk=clip_id).first()
        file = getattr(clip, field) if clip is not None else None
        if not file or not file.storage.exists(file.name):
            raise Http404(f"Clip {clip_id} has no {field}.")
        return send_file(request, file.name)

    @admin.display(description="clip")
    def player(self, clip: Clip) -> str:
        if clip.state != ClipState.READY:
            return f"{clip.get_state_display()}: there is nothing to watch."
        return format_html(
            '<video class="clip" controls loop preload="metadata" poster="{}" src="{}"></video>',
            reverse("admin:generation_clip_poster", args=[clip.pk]),
            reverse("admin:generation_clip_rendition", args=[clip.pk]),
        )

    @admin.display(description="render seconds", ordering="render_seconds")
    def rendered_in(self, clip: Clip) -> str:
        return "-" if clip.render_seconds is None else f"{clip.render_seconds:,.2f}"

    @admin.display(description="GPU memory at its peak")
    def gpu_peak(self, clip: Clip) -> str:
        return "-" if clip.gpu_peak_bytes is None else filesizeformat(clip.gpu_peak_bytes)

    @admin.display(description="ready at", ordering="ready_at")
    def ready_minute(self, clip: Clip) -> str:
        return minute(clip.ready_at)

    @admin.display(description="poster")
    def poster_image(self, clip: Clip) -> str:
        if clip.state != ClipState.READY:
            return "-"
        address = reverse("admin:generation_clip_poster", args=[clip.pk])
        return format_html('<img class="thumbnail" src="{}" alt="Poster of the clip">', address)

    @admin.display(description="text")
    def prompt_text(self, clip: Clip) -> str:
        return clip.prompt.text

    @admin.display(description="reference image")
    def reference(self, clip: Clip) -> str:
        return image_thumbnail(clip.prompt.image) if clip.prompt.image is not None else "-"

    def progress(self, clip: Clip) -> str:
        return f"step {clip.step} of {clip.steps}" if clip.steps else "-"

    def files(self, clip: Clip) -> str:
        names = [file.name for file in (clip.master, clip.rendition, clip.poster) if file]
        return format_html_join("", "<div>{}</div>", [(name,) for name in names]) or "-"


def progress_page(request: HttpRequest) -> HttpResponse:
    """What the workers do; with ?fragment only the part that changes, for progress.js."""
    if not request.user.has_perm("generation.view_clip"):
        raise PermissionDenied
    context: dict[str, Any] = {"progress": read_progress(), "categories": list(Category)}
    if "fragment" in request.GET:
        return render(request, "admin/_progress.html", context)
    context |= {**admin.site.each_context(request), "title": "Workers and progress"}
    return render(request, "admin/progress.html", context)
