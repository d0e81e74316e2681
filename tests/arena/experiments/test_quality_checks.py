"""Clips that check the voters are made of a baseline's own, and shown now and then."""

import io
from collections.abc import Callable

import av
import numpy as np
import pytest
from django.db.models import Q

from arena.experiments.start import check_prompts, start
from arena.models import Battle, BattleKind, Experiment, Panel, Vote
from arena.tasks import make_experiment_checks
from generation.media.container import top_level_boxes
from generation.media.masters import RawClip
from generation.models import Clip, ClipState, Version, VersionState
from generation.rendering.claims import claim_clip
from generation.rendering.quality_checks import PICTURE, SOUND, degrade
from generation.rendering.render import render_claimed
from tests.panels import judge, make_panel, make_prompt_set, propose, sit_down, stock

pytestmark = pytest.mark.django_db


def clip(seconds: float = 2) -> RawClip:
    """A grey ramp that moves, with a click at its beginning."""
    count = round(24 * seconds)
    ramp = np.linspace(60, 190, 64, dtype=np.uint8)
    frames = np.stack([np.tile(np.roll(ramp, 2 * n), (64, 1)) for n in range(count)])
    sound = np.zeros((round(48_000 * seconds), 2), np.float32)
    sound[:480] = 0.5
    return RawClip(frames[..., None].repeat(3, axis=-1), 24, sound, 48_000)


@pytest.mark.parametrize("kind", [*PICTURE, *SOUND])
def test_a_degradation_is_beyond_doubt_and_repeatable(kind: str) -> None:
    original, spoilt = clip(), degrade(clip(), kind, 7, np.full((30_000, 2), 0.1, np.float32))
    again = degrade(clip(), kind, 7, np.full((30_000, 2), 0.1, np.float32))
    assert original.audio is not None
    assert spoilt.audio is not None
    assert (spoilt.frames == again.frames).all()
    changed = np.abs(spoilt.frames.astype(float) - original.frames).mean(axis=(1, 2, 3))
    if kind in SOUND:
        assert not changed.any()
        assert np.abs(spoilt.audio - original.audio).max() > 0.05
        assert spoilt.audio.shape == original.audio.shape
        moved = int(np.argmax(spoilt.audio[:, 0] > 0.4))
        assert kind == "sound replaced" or 48_000 <= moved <= 95_000
    else:
        assert (changed > 5).mean() > 0.5
        assert (spoilt.audio == original.audio).all()


@pytest.fixture
def panel(db) -> Panel:
    return make_panel(members=1)


@pytest.fixture
def running(
    make_version: Callable[..., Version], panel: Panel, settings
) -> tuple[Experiment, list[Clip]]:
    """With sound. Of the baseline both clips of a prompt are rendered, whose check is to get
    another sound, and one of the prompt after it."""
    candidate, baseline = make_version("colt-2", state=VersionState.TRIAL), make_version("colt-1")
    prompt_set = make_prompt_set(slots=2)
    stock(candidate, prompt_set, "t2v-audio")
    experiment = start(propose(candidate, baseline, prompt_set, panel, category="t2v-audio"))
    shown = check_prompts(experiment)
    # Kinds take turns, and a sound of a second can't be shifted.
    place = next(n for n, prompt in enumerate(shown) if prompt.pk % 5 in (3, 4))
    lender = Q(prompt=shown[(place + 1) % len(shown)], seed_slot=0)
    rest = baseline.clips.exclude(lender | Q(prompt=shown[place]))
    rest.update(state=ClipState.FAILED, error="not needed")
    assert make_experiment_checks() == 0  # their sources are not there yet
    while waiting := claim_clip("test"):
        assert render_claimed(waiting), Clip.objects.get(pk=waiting.pk).error
    return experiment, list(baseline.clips.filter(state=ClipState.READY))


def content(clip: Clip) -> bytes:
    with clip.rendition.open("rb") as file:
        return file.read()


def made() -> int:
    """How many checks the workers make now; a busy machine needs several turns."""
    count = 0
    while more := make_experiment_checks():
        count += more
    return count


def test_checks_are_made_once_and_shown_as_any_pair(
    running: tuple[Experiment, list[Clip]], panel: Panel, settings
) -> None:
    experiment, sources = running
    (lender,) = (clip for clip in sources if [c.prompt for c in sources].count(clip.prompt) == 1)
    the_lender = Clip.objects.filter(pk=lender.pk)
    the_lender.update(state=ClipState.FAILED, error="not there yet")
    assert made() == 1  # the version against itself; the other waits for a sound
    the_lender.update(state=ClipState.READY, error="")
    assert made() == 1
    assert made() == 0
    checks = Clip.objects.filter(version__model__slug="checks")
    assert {check.state for check in checks} == {ClipState.READY}
    assert {check.version.state for check in checks} == {VersionState.DRAFT}
    assert {check.version.settings["check"] for check in checks} == {"same", "sound replaced"}
    shape = {(len(content(c)), str(top_level_boxes(content(c)))) for c in [*checks, *sources]}
    assert len(shape) == 1  # nothing but picture and sound tells them apart
    for check in checks.filter(version__settings__check="same"):
        twin = next(c for c in sources if c.prompt_id == check.prompt_id and c.seed_slot == 1)
        assert (pictures(check) == pictures(twin)).all()

    settings.CHECK_SAME, settings.CHECK_GOLD, settings.CHECK_REPEAT = 1.0, 0, 0
    client = sit_down(panel.members.get())
    for kind in (BattleKind.SAME, BattleKind.GOLD):
        settings.CHECK_SAME, settings.CHECK_GOLD = (
            float(kind == BattleKind.SAME),
            float(kind == BattleKind.GOLD),
        )
        battle = judge(client)
        assert battle is not None
        assert battle.kind == kind
        assert battle.experiment == experiment
        versions = {battle.clip_a.version.slug, battle.clip_b.version.slug}
        assert "colt-1" in versions
        assert any(slug.startswith("check-") for slug in versions)
    assert Vote.objects.filter(experiment=experiment, kind__in=("same", "gold")).count() == 2
    assert not experiment.vote_slots.filter(held_until__isnull=False).exists()
    settings.CHECK_SAME, settings.CHECK_GOLD, settings.CHECK_REPEAT = 0, 0, 0
    seen = [judge(client) for _ in range(2)]
    assert [battle.kind for battle in seen if battle] == 2 * [BattleKind.EXPERIMENT]


def pictures(clip: Clip) -> np.ndarray:
    with av.open(io.BytesIO(content(clip)), mode="r") as media:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in media.decode(video=0)])


def test_a_repetition_swaps_the_sides_after_a_while(
    make_version: Callable[..., Version], settings
) -> None:
    settings.CHECK_SAME = settings.CHECK_GOLD = settings.CHECK_REPEAT = 0
    candidate, baseline = make_version("colt-2", state=VersionState.TRIAL), make_version("colt-1")
    prompt_set = make_prompt_set(slots=2)
    panel = make_panel(members=1)
    for version in (candidate, baseline):
        stock(version, prompt_set)
    start(propose(candidate, baseline, prompt_set, panel))
    member = panel.members.get()
    client = sit_down(member)
    judged = [judge(client) for _ in range(5)]
    settings.CHECK_REPEAT = 1.0
    sixth = judge(client)
    assert sixth is not None
    assert sixth.kind == BattleKind.EXPERIMENT  # nothing is old enough
    again = judge(client)
    assert again is not None
    assert again.kind == BattleKind.REPEAT
    first = judged[0]
    assert first is not None
    assert again.repeats == first
    assert (again.clip_a, again.clip_b) == (first.clip_b, first.clip_a)
    following = judge(client)  # the second is old enough now
    assert following is not None
    assert following.repeats != first
    assert Battle.objects.filter(repeats=first).count() == 1
