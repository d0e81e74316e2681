"""An operator asks for clips; workers make them; what can't be made says why."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import av
import numpy as np
import pytest
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from generation.catalogue.categories import Category
from generation.models import Clip, ClipState, Prompt, PromptSet, Version
from generation.rendering.claims import claim_clip, count_claimable
from generation.rendering.queue import queue_clips
from generation.rendering.render import SIGNAL_SECONDS, render_claimed
from generation.tasks import sweep_media

pytestmark = pytest.mark.django_db


def test_every_category_gets_its_clips(few: PromptSet, two_versions, render_all) -> None:
    clips = render_all(few)
    # One sound comes at the very end: the tardy version's clip ends before it begins.
    held = Clip.objects.filter(state=ClipState.HELD, held_because="its sound is silence")
    assert held.count() == 1
    assert len(clips) + 1 == 2 * (2 + 2 + 1 + 1)  # versions x prompts of the four categories
    for clip in clips:
        with av.open(clip.rendition.path) as media:
            assert bool(media.streams.audio) == clip.category.endswith("audio")
            assert media.streams.video[0].frames == 24  # one second
        assert clip.width == 32
        assert clip.render_seconds is not None
        assert clip.hardware
        assert clip.leased_until is None


@pytest.mark.parametrize(
    ("spoilt", "category", "reason"),
    [
        ({"hold": 8}, Category.T2V_SILENT, "its picture stands still"),
        ({"late": 5.0}, Category.T2V_AUDIO, "its sound is silence"),
    ],
)
def test_a_rendered_clip_that_shows_nothing_is_held(
    few: PromptSet,
    make_version: Callable[..., Version],
    render_all,
    spoilt: dict[str, float],
    category: Category,
    reason: str,
) -> None:
    make_version("broken", settings={"size": 32, "fps": 8, **spoilt})
    assert render_all(few, category) == []
    for clip in Clip.objects.all():
        assert (clip.state, clip.held_because, clip.ready_at) == (ClipState.HELD, reason, None)
        assert default_storage.exists(clip.rendition.name)
    again = queue_clips(category, few)
    assert (again.added, again.existing) == (0, 2)
    out = io.StringIO()
    call_command("render", "--prompt-set", "few", "--category", category.value, stdout=out)
    assert "0 clips queued, 2 there already, 0 refused." in out.getvalue()


def test_a_clip_carries_what_its_rendition_measures(
    few: PromptSet, make_version: Callable[..., Version], render_all
) -> None:
    make_version("sharp")
    for clip in render_all(few, Category.T2V_SILENT, Category.T2V_AUDIO):
        with av.open(clip.rendition.path) as media:
            shown = [frame.to_ndarray()[: frame.height] for frame in media.decode(video=0)]
        luma = np.stack(shown).astype(float) * 255 / 219  # stored as 16 to 235
        assert clip.motion == pytest.approx(np.abs(np.diff(luma, axis=0)).mean())
        assert clip.motion > 0
        if clip.category == Category.T2V_AUDIO:
            assert clip.loudness == pytest.approx(-23, abs=0.5)
        else:
            assert clip.loudness is None


def test_both_versions_get_the_same_seed(few: PromptSet, two_versions) -> None:
    queue_clips(Category.T2V_SILENT, few)
    for prompt in Prompt.objects.filter(image=None):
        assert prompt.clips.values_list("seed").distinct().count() == 1


def test_a_clip_of_a_paused_version_waits(few: PromptSet, two_versions) -> None:
    queue_clips(Category.T2V_SILENT, few)
    Version.objects.update(state="paused")
    assert claim_clip("test") is None
    assert count_claimable() == 0


class TestTheLease:
    @pytest.fixture
    def one(self, few: PromptSet, make_version: Callable[..., Version]) -> Clip:
        queue_clips(Category.T2V_SILENT, few, [make_version("sharp")], limit=1)
        return Clip.objects.get()

    def expire(self) -> None:
        Clip.objects.update(leased_until=timezone.now() - timedelta(seconds=1))

    def test_runs_out_and_the_first_worker_can_not_publish(self, one: Clip) -> None:
        first = claim_clip("first")
        assert first is not None
        self.expire()
        second = claim_clip("second")
        assert second is not None
        assert second.fence == first.fence + 1
        assert render_claimed(second)
        published = Clip.objects.get()
        assert not render_claimed(first)  # it rendered all the same, and threw it away
        after = Clip.objects.get()
        assert after.rendition.name == published.rendition.name
        folders, _ = default_storage.listdir(f"clips/{one.pk}")
        kept = [f for f in folders if default_storage.listdir(f"clips/{one.pk}/{f}")[1]]
        assert kept == [str(second.fence)]

    def test_is_given_so_many_times_and_no_more(self, one: Clip, settings) -> None:
        for _ in range(settings.RENDER_ATTEMPTS):
            assert claim_clip("doomed") is not None
            self.expire()
        assert claim_clip("next") is None
        failed = Clip.objects.get()
        assert failed.state == ClipState.FAILED
        assert "died in each of 3 attempts" in failed.error


@pytest.mark.django_db(transaction=True)
def test_two_workers_never_get_the_same_clip(few: PromptSet, two_versions) -> None:
    queue_clips(Category.T2V_SILENT, few)
    queue_clips(Category.T2V_AUDIO, few)
    got: list[str] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        while clip := claim_clip("racer"):
            got.append(str(clip.pk))
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len(set(got)) == 8


def test_a_failure_is_kept_in_words_and_can_be_tried_again(
    few: PromptSet, make_version: Callable[..., Version]
) -> None:
    version = make_version("broken", backend="colt", settings={"weights": "none", "steps": 1})
    queued = queue_clips(Category.T2V_SILENT, few)
    assert queued.added == 0
    assert "Colt needs the settings" in queued.refused[0]
    prompt = Prompt.objects.get(key="few-1")
    Clip.objects.create(version=version, prompt=prompt, category="t2v-silent", seed=1)
    clip = claim_clip("test")
    assert clip is not None
    assert not render_claimed(clip)
    clip.refresh_from_db()
    assert clip.state == ClipState.FAILED
    assert "Colt needs the settings" in clip.error
    call_command(
        "render", "--retry-failed", "--no-wait", "--prompt-set", "few", stdout=io.StringIO()
    )
    clip.refresh_from_db()
    assert (clip.state, clip.attempts) == (ClipState.WAITING, 0)


def test_a_render_that_no_signal_stopped_ends_at_its_next_step(
    few: PromptSet, make_version: Callable[..., Version]
) -> None:
    queue_clips(Category.T2V_SILENT, few, [make_version("slow")], limit=1)
    clip = claim_clip("test")
    assert clip is not None
    assert not render_claimed(clip, seconds_at_most=-SIGNAL_SECONDS)
    clip.refresh_from_db()
    assert (clip.state, clip.attempts) == (ClipState.FAILED, 1)
    assert "It was stopped at step 0 of 1 after 0 s: raise RENDER_SECONDS_AT_MOST" in clip.error


def test_an_operator_cancels_a_version_s_clips(
    few: PromptSet, two_versions: tuple[Version, Version], admin_client: Client
) -> None:
    """Its running clip is thrown away by whoever renders it, and waits again when told so."""
    queue_clips(Category.T2V_SILENT, few)
    clip = claim_clip("test")
    assert clip is not None
    page = reverse("admin:generation_version_changelist")
    action = {"action": "cancel_clips", "_selected_action": [clip.version_id]}
    said = admin_client.post(page, action, follow=True).text
    assert f"Cancelled 2 of {clip.version}’s clips" in said
    assert f"None of {clip.version}’s clips was waiting or rendering." in (
        admin_client.post(page, action, follow=True).text
    )
    assert not render_claimed(clip)
    states = Clip.objects.order_by("version_id").values_list("version_id", "state", "error")
    for version, state, error in states:
        cancelled = version == clip.version_id
        assert (state, error) == (
            ("failed", "Cancelled by admin.") if cancelled else ("waiting", "")
        )
    assert not default_storage.exists(f"clips/{clip.pk}/1/master.mkv")
    call_command(
        "render", "--retry-failed", "--no-wait", "--prompt-set", "few", stdout=io.StringIO()
    )
    again = Clip.objects.get(pk=clip.pk)
    assert (again.state, again.attempts, again.error) == (ClipState.WAITING, 0, "")


def test_a_clip_without_a_rendition_can_not_become_ready(few: PromptSet, two_versions) -> None:
    queue_clips(Category.T2V_SILENT, few)
    with pytest.raises(DatabaseError, match="clip_ready_has_files"), transaction.atomic():
        Clip.objects.update(state=ClipState.READY)


def test_files_of_dead_attempts_are_swept_after_a_day(votable: list[Clip], media: Path) -> None:
    clip = votable[0]
    Clip.objects.filter(pk=clip.pk).update(fence=3)  # two more attempts have begun since
    orphan = media / "clips" / str(clip.pk) / "2" / "rendition.mp4"
    fresh = media / "clips" / str(clip.pk) / "3" / "rendition.mp4"
    for file in (orphan, fresh):
        file.parent.mkdir()
        file.write_bytes(b"half a clip")
    long_ago = (timezone.now() - timedelta(days=2)).timestamp()
    os.utime(orphan, (long_ago, long_ago))
    for name in (clip.master.path, clip.rendition.path, clip.poster.path):
        os.utime(name, (long_ago, long_ago))
    Clip.objects.filter(pk=clip.pk).update(sweep_at=Now())
    assert sweep_media() == 1
    assert not orphan.exists()
    assert fresh.exists()
    assert Path(clip.rendition.path).exists()


def test_an_unknown_prompt_set_is_a_sentence(db) -> None:
    with pytest.raises(CommandError, match="no prompt set “nothing”; loaded are: none"):
        call_command("render", "--prompt-set", "nothing")


WORKER = """
import sys
import arena.celery, arena.wsgi, arena.tasks, generation.tasks, ratings.tasks
print([m for m in ("torch", "diffusers", "transformers", "scipy") if m in sys.modules])
"""


def test_a_worker_loads_torch_and_scipy_only_when_it_needs_them() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKER], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
