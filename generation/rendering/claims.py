"""Which clip a worker renders next, and what becomes of one that can't be made.

The order is the render queue's own; the lease is every queue's (generation/rendering/leases.py).
"""

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from generation.backends.registry import RENDERED_HERE
from generation.catalogue.categories import Category
from generation.media.pauses import why_paused
from generation.models import RENDERED_STATES, Clip, ClipState
from generation.rendering import leases
from generation.rendering.leases import drop_idle_connection, lease, release
from generation.rendering.model_cache import WARM

# As `leases.claimable`, for clips.
CLAIMABLE = """
    clip.state IN ('waiting', 'rendering')
    AND (clip.leased_until IS NULL OR clip.leased_until < statement_timestamp())
    AND (clip.next_try_at IS NULL OR clip.next_try_at <= statement_timestamp())
    AND clip.attempts < %(attempts)s
"""
NEXT_CLIP = f"""
    SELECT clip.id
    FROM generation_version version
    -- Each version has a queue for each category.
    CROSS JOIN unnest(%(categories)s::text[]) AS category(name)
    -- Its head, read by its index: more clips than are claimed at the same instant.
    CROSS JOIN LATERAL (
        SELECT clip.id FROM generation_clip clip
        WHERE clip.version_id = version.id AND clip.category = category.name AND {CLAIMABLE}
        ORDER BY clip.priority DESC, clip.position, clip.created_at
        LIMIT 16
    ) head
    -- The clips themselves, to be locked; what was locked meanwhile may have changed, so all is
    -- asked again below.
    JOIN generation_clip clip ON clip.id = head.id
    -- A version's text to video and its image to video may be different weights.
    CROSS JOIN LATERAL (
        SELECT version.id || '/' || split_part(clip.category, '-', 1) AS task_key
    ) task
    -- Whether this worker holds the weights.
    CROSS JOIN LATERAL (SELECT task.task_key = ANY(%(warm)s::text[]) AS is_warm) model
    WHERE version.state = ANY(%(states)s) AND version.backend = ANY(%(backends)s)
      AND {CLAIMABLE}
    ORDER BY
        -- What is wanted first comes first, whatever has to be loaded for it.
        clip.priority DESC,
        -- In its turn a worker stays with the models it holds; after it the others come first:
        model.is_warm = %(in_turn)s DESC,
        -- of these, those it has not served, then the one it served longest ago.
        CASE WHEN NOT model.is_warm THEN array_position(%(served)s::text[], task.task_key) END
            NULLS FIRST,
        -- Within a task, and among the models it holds, the order of the queue.
        clip.position, clip.created_at
    FOR UPDATE OF clip SKIP LOCKED
    LIMIT 1
"""


def task_key_of(clip: Clip) -> str:
    """What `NEXT_CLIP` calls a task's key."""
    return f"{clip.version_id}/{Category(clip.category).task}"


def claim_clip(worker: str) -> Clip | None:
    """The next clip that is rendered here, leased to this worker, or None when nothing waits or
    nothing can be written."""
    drop_idle_connection()
    if why_paused():
        return None
    fail_exhausted()
    values = {
        "attempts": settings.RENDER_ATTEMPTS,
        "states": list(RENDERED_STATES),
        "backends": list(RENDERED_HERE),
        "categories": Category.values,
        "warm": WARM.warm,
        "served": WARM.served,
        "in_turn": WARM.in_turn,
    }
    with transaction.atomic():
        found = next(iter(Clip.objects.raw(NEXT_CLIP, values)), None)
        if found is None:
            return None
        clip = Clip.objects.select_related("version", "prompt__image").get(pk=found.pk)
        lease(clip, worker, state=ClipState.RENDERING, step=0, steps=0)
    return clip


def fail_exhausted() -> int:
    """Clips whose last allowed attempt died without a word are failed, with the reason."""
    return Clip.objects.filter(
        state=ClipState.RENDERING,
        leased_until__lt=Now(),
        attempts__gte=settings.RENDER_ATTEMPTS,
        version__backend__in=RENDERED_HERE,
    ).update(
        state=ClipState.FAILED,
        leased_until=None,
        error=f"The worker died in each of {settings.RENDER_ATTEMPTS} attempts.",
    )


def count_claimable() -> int:
    """How many clips a worker could start on now."""
    clips = Clip.objects.filter(
        state__in=(ClipState.WAITING, ClipState.RENDERING),
        attempts__lt=settings.RENDER_ATTEMPTS,
        version__state__in=RENDERED_STATES,
        version__backend__in=RENDERED_HERE,
    )
    return leases.claimable(clips).count()


def give_up(clip: Clip, reason: str) -> None:
    """The clip fails for good, in words, if it is still ours."""
    release(clip, state=ClipState.FAILED, error=reason)
