"""Clips are asked for, in an order, and cancelled; held ones are shown or refused."""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from django.db import transaction
from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Concat, Now
from PIL import Image

from generation.backends import CannotRender, NeverRenders, Request
from generation.backends.registry import HOSTED
from generation.catalogue.categories import Category
from generation.catalogue.entries import check_clip
from generation.models import (
    BULK_PRIORITY,
    RENDERED_STATES,
    Clip,
    ClipState,
    HostedJob,
    JobState,
    Prompt,
    PromptSet,
    Version,
)
from generation.rendering.sweep import fail_if_lost


@dataclass
class Queued:
    """What `queue_clips` did: clips added, clips that existed, and sentences about the refused.

    `selected` are all the clips that were meant, made now or before; `left_out` are versions of
    paid services that nobody named, and `prompts` is how many prompts of the set were meant.
    """

    added: int = 0
    existing: int = 0
    refused: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    prompts: int = 0
    selected: QuerySet[Clip] = field(default_factory=Clip.objects.none)


def seed_of(prompt: Prompt, slot: int) -> int:
    """One seed per prompt and slot, the same for every version: 0 <= seed < 2**31."""
    return int.from_bytes(hashlib.sha256(f"{prompt.key}/{slot}".encode()).digest()[:4]) >> 1


def request_of(prompt: Prompt, category: str, seed: int) -> Request:
    """The prompt as a backend is asked for it; its picture is decoded by who looks at it."""
    image = None
    if prompt.image is not None:
        with prompt.image.file.open("rb") as file:
            image = Image.open(io.BytesIO(file.read()))  # we keep them as RGB
    return Request(prompt.text, prompt.conditions, Category(category).audio, seed, image)


def prompts_of(prompt_set: PromptSet, category: Category) -> QuerySet[Prompt]:
    """Those of the set that are for the category, in the set's order."""
    return prompt_set.prompts.filter(
        sounds__contains=[category.sound], image__isnull=category.task == "t2v"
    ).order_by("entries__position")


def queue_clips(
    category: Category,
    prompt_set: PromptSet,
    versions: Iterable[Version] | None = None,
    limit: int | None = None,
    ranks: Mapping[tuple[int, int], int] | None = None,
    *,
    paid: bool = False,
    priority: int | None = None,
) -> Queued:
    """Ask for every clip of a category that is missing, in prompt order.

    Only versions that are active or on trial and can make this category take part; what a backend
    could never render is refused here, in words, rather than queued to fail. Without `versions`
    those of paid services take part only with `paid`: nobody should order clips by not naming them.
    `limit` counts prompts. `ranks` has prompts and seed slots with their places in the queue, when
    only these are wanted and in another order; what waits already is put into it. `priority` is
    given to what waits already, too.
    """
    queued = Queued()
    if versions is not None:
        asked, versions = list(versions), []
        for version in asked:
            if version.state not in RENDERED_STATES:
                queued.refused.append(
                    f"{version.slug} is {version.state}: activate it or put it on trial first."
                )
            elif category.value not in version.categories:
                queued.refused.append(f"{version.slug} does not make {category.value}.")
            else:
                versions.append(version)
    else:
        versions = Version.objects.filter(
            state__in=RENDERED_STATES, categories__contains=[category.value]
        ).order_by("pk")  # as listed in the catalogue
        if not paid:
            hosted = versions.filter(backend__in=HOSTED)
            queued.left_out = list(hosted.values_list("slug", flat=True))
            versions = versions.exclude(backend__in=HOSTED)
    chosen, clips = list(versions), []
    prompts = list(prompts_of(prompt_set, category).select_related("image")[:limit])
    queued.prompts = len(prompts)
    queued.selected = Clip.objects.filter(
        category=category.value,
        version__in=list(chosen),
        prompt__in=prompts,
        seed_slot__lt=prompt_set.seed_slots,
    )
    for position, prompt in enumerate(prompts):
        slots: Sequence[int] = range(prompt_set.seed_slots)
        if ranks is not None:
            slots = [slot for slot in slots if (prompt.pk, slot) in ranks]
            if not slots:
                continue
        request = request_of(prompt, category, seed_of(prompt, 0))
        for version in list(chosen):
            try:
                check_clip(version, category, request)
            except NeverRenders as error:
                queued.refused.append(f"{version.slug}: {error}")
                chosen.remove(version)
                continue
            except CannotRender as error:
                queued.refused.append(f"{version.slug}, {prompt.key}: {error}")
                continue
            clips += [
                Clip(
                    version=version,
                    prompt=prompt,
                    category=category.value,
                    seed_slot=slot,
                    seed=seed_of(prompt, slot),
                    priority=BULK_PRIORITY if priority is None else priority,
                    position=position if ranks is None else ranks[prompt.pk, slot],
                )
                for slot in slots
            ]
    wanted = Q(category=category.value, version__in=chosen)
    before = Clip.objects.filter(wanted).count()
    Clip.objects.bulk_create(clips, ignore_conflicts=True, batch_size=500)
    if ranks is not None:
        _put_in_order(wanted, ranks, priority)
    elif priority is not None:
        waiting = queued.selected.filter(state=ClipState.WAITING)
        waiting.update(priority=priority)
    queued.added = Clip.objects.filter(wanted).count() - before
    queued.existing = len(clips) - queued.added
    return queued


def _put_in_order(wanted: Q, ranks: Mapping[tuple[int, int], int], priority: int | None) -> None:
    """What waits is put in this order, and given the priority unless it has a higher one."""
    waiting = list(Clip.objects.filter(wanted, state=ClipState.WAITING).select_for_update())
    waiting = [clip for clip in waiting if (clip.prompt_id, clip.seed_slot) in ranks]
    for clip in waiting:
        clip.position = ranks[clip.prompt_id, clip.seed_slot]
        clip.priority = clip.priority if priority is None else max(clip.priority, priority)
    Clip.objects.bulk_update(waiting, ["position", "priority"], batch_size=500)


@dataclass(frozen=True)
class Retried:
    """What `retry_failed` did: clips that wait again, of these those whose order is only asked
    after again, and failed ones that it left, as another order may pay for them twice."""

    waiting: int
    asked_again: int
    kept: int


@transaction.atomic
def retry_failed(clips: QuerySet[Clip], again: bool = False) -> Retried:
    """Failed clips wait again; what a paid service may have been paid for is not ordered again.

    1. An order that is out, or that was accepted and then given up, is asked after again.
    2. A clip of which any order counts as spent stays failed, unless `again` says: pay again.
    3. Everything else waits.
    """
    failed = list(
        Clip.objects.filter(pk__in=clips.order_by().values("pk"), state=ClipState.FAILED)
        .select_for_update()
        .values_list("pk", flat=True)
    )
    jobs: dict[object, list[HostedJob]] = {}
    for job in HostedJob.objects.select_for_update().filter(clip__in=failed).order_by("pk"):
        jobs.setdefault(job.clip_id, []).append(job)
    open_jobs, kept = [], set()
    for clip, orders in jobs.items():
        newest = orders[-1]
        if newest.state in HostedJob.OPEN or (newest.state == JobState.STOPPED and not again):
            open_jobs.append(newest.pk)
        elif not again and any(job.cost for job in orders):
            kept.add(clip)
    # The fence: whoever looks at such an order now must not close it.
    taken = HostedJob.objects.filter(pk__in=open_jobs)
    taken.update(fence=F("fence") + 1, next_try_at=Now(), leased_until=None, tries=0)
    stopped = taken.filter(state=JobState.STOPPED)
    stopped.filter(job_id="").update(state=JobState.SUBMITTING)
    stopped.update(state=JobState.SUBMITTED)
    waiting = Clip.objects.filter(pk__in=set(failed) - kept).update(
        state=ClipState.WAITING, attempts=0, error="", leased_until=None, next_try_at=None
    )
    return Retried(waiting, len(open_jobs), len(kept))


def cancel_clips(clips: QuerySet[Clip], by: str) -> int:
    """Waiting and running clips fail, to be tried again only when somebody says so.

    Whoever renders one has lost it from now on, and stops at its next step.
    """
    return clips.filter(state__in=(ClipState.WAITING, ClipState.RENDERING)).update(
        state=ClipState.FAILED, leased_until=None, error=f"Cancelled by {by}."
    )


def show_held(clips: QuerySet[Clip]) -> int:
    """Held clips that an operator has looked at become ready; returns how many.

    One whose files are gone fails instead.
    """
    held = clips.filter(state=ClipState.HELD)
    there = [pk for pk in held.values_list("pk", flat=True) if not fail_if_lost(pk)]
    return held.filter(pk__in=there).update(state=ClipState.READY, ready_at=Now())


def refuse_held(clips: QuerySet[Clip], by: str) -> int:
    """Held clips fail, as no voter should see them; returns how many."""
    reason = Concat(Value(f"Refused by {by}: "), F("held_because"), Value("."))
    return clips.filter(state=ClipState.HELD).update(state=ClipState.FAILED, error=reason)
