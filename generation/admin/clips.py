"""Clips, and the orders of those that a paid service makes."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from generation.admin.base import ReadOnlyAdmin, ReadOnlyInline, minute
from generation.admin.prompts import image_thumbnail
from generation.media.serving import send_file
from generation.models import FIRST_PRIORITY, Clip, ClipState, HostedJob
from generation.rendering.progress import shape_of_error
from generation.rendering.queue import cancel_clips, refuse_held, retry_failed, show_held

VISIBLE_STATES = (ClipState.READY, ClipState.HELD)  # to operators


def say_cancelled(page: admin.ModelAdmin, request: HttpRequest, count: int, whose: str) -> None:
    if count:
        sentence = (
            f"Cancelled {count:,} of {whose}. To queue them again, use “Retry failed” on clips."
        )
        page.message_user(request, sentence, messages.SUCCESS)
    else:
        page.message_user(request, f"None of {whose} was waiting or rendering.", messages.WARNING)


class RenderedVersionFilter(admin.RelatedFieldListFilter):
    """Only versions that have clips, each found by one look into the index."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        has_clips = Q(Exists(Clip.objects.filter(version=OuterRef("pk"))))
        return field.get_choices(
            include_blank=False, ordering=("name",), limit_choices_to=has_clips
        )


class ReasonFilter(admin.SimpleListFilter):
    """Filters by the reason that the progress page links to. It offers no choices of its own."""

    title = "failure reason"
    parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        chosen = self.value()
        return [(chosen, chosen)] if chosen else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value():
            return queryset
        return queryset.exclude(error="").alias(shape=shape_of_error()).filter(shape=self.value())


def _player(clip: Clip, style: str, preload: str) -> SafeString:
    return format_html(
        '<video class="{}" controls loop preload="{}" poster="{}" src="{}"></video>',
        style,
        preload,
        reverse("admin:generation_clip_poster", args=[clip.pk]),
        reverse("admin:generation_clip_rendition", args=[clip.pk]),
    )


class HostedJobInline(ReadOnlyInline):
    """The orders of a clip that a paid service makes; most clips have none."""

    model = HostedJob
    template = "admin/edit_inline/stacked.html"  # sentences and messages are too wide for columns
    fields = ("state", "submitted_at", "job_id", "attempts", "cost", "error", "request", "answer")
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
        "priority",
        "attempts",
        "rendered_in",
        "ready_minute",
    )
    list_display_links = ("version", "prompt")
    list_filter = ("state", "category", ("version", RenderedVersionFilter), ReasonFilter)
    list_select_related = ("version", "prompt")
    ordering = ("-created_at",)
    search_fields = ("prompt__key",)
    search_help_text = "Search by part of the prompt's key"
    actions = (
        "show_to_voters", "refuse_chosen", "retry_failed", "order_again", "render_first",
        "cancel_chosen",
    )  # fmt: skip
    readonly_fields = (
        "player", "poster_image", "prompt_text", "reference", "progress", "files", "gpu_peak",
        "failed_at",
    )  # fmt: skip
    fieldsets = (
        (None, {"fields": ("player", "poster_image", "held_because", "error")}),
        (
            "Request",
            {
                "fields": (
                    "version", "prompt", "prompt_text", "reference", "category", "seed_slot",
                    "seed",
                )
            },
        ),
        (
            "Status",
            {
                "fields": (
                    "state", "priority", "position", "attempts", "fence", "claimed_by",
                    "leased_until", "progress", "created_at", "ready_at", "failed_at",
                )
            },
        ),
        (
            "Result",
            {
                "fields": (
                    "width", "height", "fps", "seconds", "loudness", "motion", "render_seconds",
                    "gpu_seconds", "gpu_peak", "encode_seconds", "hardware", "files",
                    "rendition_sha256", "source_sha256",
                )
            },
        ),
    )  # fmt: skip

    def get_list_display(self, request: HttpRequest) -> Any:
        """Held clips are looked at in the list itself."""
        if request.GET.get("state__exact") != ClipState.HELD:
            return self.list_display
        return ("small_player", "held_because", "version", "prompt", "category_slug", "seed_slot")

    @admin.action(description="Show held clips to voters", permissions=["retry"])
    def show_to_voters(self, request: HttpRequest, queryset: QuerySet[Clip]) -> None:
        count = show_held(Clip.objects.filter(pk__in=queryset.order_by().values("pk")))
        self._say_held(request, count, "Voters may see {} now.")

    @admin.action(description="Refuse held clips", permissions=["retry"])
    def refuse_chosen(self, request: HttpRequest, queryset: QuerySet[Clip]) -> None:
        chosen = Clip.objects.filter(pk__in=queryset.order_by().values("pk"))
        count = refuse_held(chosen, by=request.user.get_username())
        self._say_held(request, count, "Refused {}. No voter will see them.")

    def _say_held(self, request: HttpRequest, count: int, sentence: str) -> None:
        if count:
            clips = f"{count:,} held clip{'' if count == 1 else 's'}"
            self.message_user(request, sentence.format(clips), messages.SUCCESS)
        else:
            self.message_user(request, "None of the selected clips is held.", messages.WARNING)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("generation.change_clip")

    @admin.action(description="Retry failed", permissions=["retry"])
    def retry_failed(self, request: HttpRequest, queryset: QuerySet[Clip]) -> None:
        self._retry(request, queryset, again=False)

    @admin.action(description="Retry failed, and pay again", permissions=["retry"])
    def order_again(self, request: HttpRequest, queryset: QuerySet[Clip]) -> None:
        self._retry(request, queryset, again=True)

    def _retry(self, request: HttpRequest, queryset: QuerySet[Clip], again: bool) -> None:
        retried = retry_failed(queryset, again=again)
        if retried.waiting:
            sentence = f"{retried.waiting:,} failed clips are waiting again."
            if retried.asked_again:
                sentence += (
                    f" {retried.asked_again:,} of them were ordered already and are not ordered "
                    "again."
                )
            self.message_user(request, sentence, messages.SUCCESS)
        if retried.kept:
            sentence = (
                f"{retried.kept:,} clips were left as they are: an order of each counts as spent. "
                "Look at the service first, then use “Retry failed, and pay again”."
            )
            self.message_user(request, sentence, messages.WARNING)
        if not retried.waiting and not retried.kept:
            self.message_user(request, "None of the selected clips has failed.", messages.WARNING)

    @admin.action(description="Render before everything else", permissions=["retry"])
    def render_first(self, request: HttpRequest, queryset: QuerySet[Clip]) -> None:
        chosen = Clip.objects.filter(pk__in=queryset.order_by().values("pk"))
        count = chosen.filter(state=ClipState.WAITING).update(priority=FIRST_PRIORITY)
        if count:
            sentence = f"{count:,} clips now have the priority {FIRST_PRIORITY}."
            self.message_user(request, sentence, messages.SUCCESS)
        else:
            self.message_user(request, "None of the selected clips waits.", messages.WARNING)

    @admin.action(description="Cancel waiting and rendering clips", permissions=["retry"])
    def cancel_chosen(self, request: HttpRequest, queryset: QuerySet[Clip]) -> None:
        chosen = Clip.objects.filter(pk__in=queryset.order_by().values("pk"))
        count = cancel_clips(chosen, by=request.user.get_username())
        say_cancelled(self, request, count, "the selected clips")

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
        if clip.state not in VISIBLE_STATES:
            return f"{clip.get_state_display()}: no video yet."
        return _player(clip, "clip", preload="metadata")

    @admin.display(description="clip")
    def small_player(self, clip: Clip) -> str:
        if clip.state not in VISIBLE_STATES:
            return "-"
        return _player(clip, "clip small", preload="none")  # a page has fifty

    @admin.display(description="render time (s)", ordering="render_seconds")
    def rendered_in(self, clip: Clip) -> str:
        return "-" if clip.render_seconds is None else f"{clip.render_seconds:,.2f}"

    @admin.display(description="peak GPU memory")
    def gpu_peak(self, clip: Clip) -> str:
        return "-" if clip.gpu_peak_bytes is None else filesizeformat(clip.gpu_peak_bytes)

    @admin.display(description="ready at", ordering="ready_at")
    def ready_minute(self, clip: Clip) -> str:
        return minute(clip.ready_at)

    @admin.display(description="poster")
    def poster_image(self, clip: Clip) -> str:
        if clip.state not in VISIBLE_STATES:
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
