"""Which clip a worker renders next: each rule of the order, and which clips are none of its own."""

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db.models.functions import Now

from generation.models import Clip, ClipState, Prompt, Version, VersionState
from generation.rendering import claims
from generation.rendering.claims import claim_clip, count_claimable, task_key_of

pytestmark = pytest.mark.django_db

MakeClip = Callable[..., Clip]


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the worker holds and has served; at first nothing."""
    held = SimpleNamespace(warm=[], served=[], in_turn=False)
    monkeypatch.setattr(claims, "WARM", held)
    return held


@pytest.fixture
def make_clip(make_version: Callable[..., Version]) -> MakeClip:
    """A clip that waits, each newer than the one before; of a version of its own unless told."""

    def make(version: Version | None = None, category: str = "t2v-silent", **values) -> Clip:
        number = Clip.objects.count()
        prompt = Prompt.objects.create(
            key=f"prompt-{number}", text="…", sounds=["silent"], aspect="1:1", seconds=1
        )
        clip = Clip.objects.create(
            version=version or make_version(f"version-{number}"),
            prompt=prompt, category=category, seed=1, **values,
        )  # fmt: skip
        Clip.objects.filter(pk=clip.pk).update(created_at=Now() + timedelta(seconds=number))
        return clip

    return make


def claimed() -> list[Clip]:
    clips = []
    while (clip := claim_clip("a worker")) is not None:
        clips.append(clip)
    return clips


def test_a_higher_priority_comes_before_all_else(
    make_clip: MakeClip, models: SimpleNamespace
) -> None:
    """Whatever the worker holds, and in its turn, too."""
    warm, cold = make_clip(position=0), make_clip(priority=1, position=9)
    low = make_clip(priority=-1)
    models.warm = models.served = [task_key_of(warm), task_key_of(low)]
    models.in_turn = True
    assert claimed() == [cold, warm, low]


def test_the_lower_position_comes_first_then_the_older_clip(make_clip: MakeClip) -> None:
    late, early, first = make_clip(position=2), make_clip(position=2), make_clip(position=1)
    Clip.objects.filter(pk=early.pk).update(created_at=Now() - timedelta(days=1))
    assert claimed() == [first, early, late]


def test_in_its_turn_a_worker_stays_with_the_models_it_holds(
    make_clip: MakeClip, models: SimpleNamespace
) -> None:
    cold, warm, warmer = make_clip(position=0), make_clip(position=3), make_clip(position=2)
    models.warm = models.served = [task_key_of(warm), task_key_of(warmer)]
    models.in_turn = True
    # Among what it holds the order of the queue counts, not what was served last.
    assert claimed() == [warmer, warm, cold]


def test_after_its_turn_what_it_does_not_hold_comes_first(
    make_clip: MakeClip, models: SimpleNamespace
) -> None:
    warm, cold = make_clip(position=0), make_clip(position=9)
    models.warm = models.served = [task_key_of(warm)]
    assert claimed() == [cold, warm]


def test_of_these_first_what_it_never_served_then_what_it_served_longest_ago(
    make_clip: MakeClip, models: SimpleNamespace
) -> None:
    recent, long_ago, never = make_clip(position=0), make_clip(position=1), make_clip(position=9)
    models.served = [task_key_of(long_ago), task_key_of(recent)]
    assert claimed() == [never, long_ago, recent]


def test_a_version_s_two_tasks_are_two_models(
    make_clip: MakeClip, make_version: Callable[..., Version], models: SimpleNamespace
) -> None:
    version = make_version("both")
    text, image = make_clip(version, position=0), make_clip(version, "i2v-audio", position=9)
    assert task_key_of(text) != task_key_of(image)
    models.warm = models.served = [task_key_of(image)]
    models.in_turn = True
    assert claimed() == [image, text]


def test_a_long_queue_hides_no_other(
    make_clip: MakeClip, make_version: Callable[..., Version], models: SimpleNamespace
) -> None:
    version = make_version("busy")
    many = [make_clip(version) for _ in range(20)]  # more than the head of a queue
    other = make_clip(position=9)
    models.warm, models.in_turn = [task_key_of(other)], True
    assert claimed() == [other, *many]


def test_what_is_not_a_worker_s_to_render(
    make_clip: MakeClip, make_version: Callable[..., Version], settings
) -> None:
    for state in (VersionState.DRAFT, VersionState.PAUSED, VersionState.RETIRED):
        make_clip(make_version(f"a-{state}", state=state))
    make_clip(make_version("hosted", backend="fal"))
    make_clip(make_version("elsewhere", backend="imported"))
    make_clip(state=ClipState.FAILED, error="It failed.")
    make_clip(next_try_at=Now() + timedelta(minutes=1))
    make_clip(attempts=settings.RENDER_ATTEMPTS)
    make_clip(state=ClipState.RENDERING, leased_until=Now() + timedelta(minutes=1))
    assert (claimed(), count_claimable()) == ([], 0)
    for values in (
        {},
        {"next_try_at": Now() - timedelta(seconds=1)},
        {"state": ClipState.RENDERING, "leased_until": Now() - timedelta(seconds=1)},
        {"attempts": settings.RENDER_ATTEMPTS - 1},
    ):
        clip = make_clip(**values)
        assert count_claimable() == 1
        assert claimed() == [clip]
        assert count_claimable() == 0


def test_a_claim_is_written_on_the_clip(make_clip: MakeClip) -> None:
    made = make_clip(step=3, steps=9, attempts=1, fence=4)
    clip = claim_clip("gpu@here")
    assert clip == made
    for seen in (clip, Clip.objects.get()):
        assert (seen.state, seen.claimed_by, seen.fence, seen.attempts, seen.step, seen.steps) == (
            ClipState.RENDERING, "gpu@here", 5, 2, 0, 0,
        )  # fmt: skip
        assert seen.leased_until is not None
