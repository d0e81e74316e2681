"""What a voter's machine gets of one pair is alike; native formats and profiles are recorded."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from arena.models import Battle
from arena.voting.matchmaking import votable_pairs
from generation.catalogue.categories import Category
from generation.media import profile, renditions
from generation.media.profile import PROFILE
from generation.models import Clip, PromptSet, Version
from generation.tasks import sweep_media
from tests.arena.voting.test_vote import JSON, battle_on, body

pytestmark = pytest.mark.django_db


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From here on the profile has its next number, so that clips made before are older."""

    def change() -> None:
        newer = replace(PROFILE, number=PROFILE.number + 1, bits_per_pixel=0.4)
        monkeypatch.setattr(profile, "PROFILE", newer)

    return change


def encode_again() -> str:
    out = StringIO()
    call_command("encode_again", stdout=out)
    return out.getvalue()


def test_both_clips_of_a_pair_are_answered_alike(client: Client, votable: list[Clip]) -> None:
    assert len({clip.rendition_sha256 for clip in votable}) > 1
    battle = battle_on(client)
    assert battle is not None
    for what, headers in (("video", {}), ("video", {"range": "bytes=100-2047"}), ("poster", {})):
        answers = [client.get(battle[side][what], headers=headers) for side in ("a", "b")]
        assert len({len(body(answer)) for answer in answers}) == 1
        assert len({str(sorted(answer.headers.items())) for answer in answers}) == 1


def test_a_clip_records_whether_it_is_off_format_and_its_profile(
    few: PromptSet, make_version: Callable[..., Version], render_all: Callable[..., list[Clip]]
) -> None:
    make_version("near", settings={"size": 128, "fps": 24}, width=128, height=128, fps=24)
    make_version("small", settings={"size": 64, "fps": 24}, width=64, height=64, fps=24)
    make_version("slow", settings={"size": 128, "fps": 8}, width=128, height=128, fps=8)
    off_format: dict[str, set[bool]] = {}
    for clip in render_all(few, Category.T2V_SILENT):
        off_format.setdefault(clip.version.slug, set()).add(clip.off_format)
        assert clip.profile == PROFILE.number
    assert off_format == {"near": {False}, "small": {True}, "slow": {True}}
    # They meet all the same: ratings are on one scale.
    assert votable_pairs() == {"t2v-silent": 3}


def test_clips_of_two_profiles_never_meet(client: Client, votable: list[Clip]) -> None:
    Clip.objects.filter(version__slug="tardy").update(profile=1)
    assert battle_on(client) is None
    assert votable_pairs() == {}


def test_old_renditions_meet_each_other_until_they_are_encoded_again(
    client: Client, votable: list[Clip], older: Callable[[], None], media: Path
) -> None:
    battle = battle_on(client)
    assert battle is not None
    length = len(body(client.get(battle["a"]["video"])))
    masters = set(Clip.objects.values_list("master", flat=True))
    older()
    # The clips on the voter's screen stay as they are; the others become new.
    assert "2 renditions made again" in encode_again()
    assert len(body(client.get(battle["a"]["video"]))) == length
    assert votable_pairs() == {"t2v-silent": 1}
    client.post(battle["vote_url"], {"choice": "a"}, **JSON)
    assert "2 renditions made again with profile 3; 0 of earlier" in encode_again()
    assert "0 renditions made again" in encode_again()
    assert set(Clip.objects.values_list("master", flat=True)) == masters
    for clip in Clip.objects.all():
        assert clip.profile == PROFILE.number + 1
        assert clip.rendition_sha256 not in {old.rendition_sha256 for old in votable}
        assert default_storage.size(str(clip.rendition)) > length
    # The voter can still look at the battle.
    assert len(body(client.get(battle["a"]["video"]))) > length


def test_files_left_over_are_swept_and_those_in_use_stay(
    votable: list[Clip], older: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    older()
    encode_again()
    monkeypatch.setattr("generation.rendering.sweep.ORPHAN_AGE", timedelta(0))
    Clip.objects.update(sweep_at=Now())
    assert sweep_media() == 2 * len(votable)
    for clip in Clip.objects.all():
        for name in (clip.master, clip.rendition, clip.poster):
            assert default_storage.exists(str(name))
    assert not any(default_storage.exists(str(clip.rendition)) for clip in votable)


def test_what_can_not_be_encoded_again_stays_and_is_named(
    votable: list[Clip], older: Callable[[], None], media: Path
) -> None:
    lost = votable[0]
    (media / str(lost.master)).write_text("broken")
    older()
    with pytest.raises(CommandError, match="1 clips could not be encoded again"):
        encode_again()
    clip = Clip.objects.get(pk=lost.pk)
    assert (clip.profile, clip.rendition) == (PROFILE.number, lost.rendition)
    assert Clip.objects.filter(profile=PROFILE.number + 1).count() == len(votable) - 1


def test_a_clip_drawn_while_it_is_encoded_stays(
    votable: list[Clip],
    older: Callable[[], None],
    make_voter: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older()
    encode, voter = renditions.encode_rendition, make_voter()[1]

    def encode_while_somebody_draws(*args: object, **fields: object) -> object:
        if not Battle.objects.exists():
            left, right = Clip.objects.filter(prompt__key="few-1")
            Battle.objects.create(
                voter=voter, stream="mixed", category="t2v-silent", prompt=left.prompt,
                clip_a=left, clip_b=right, draw_probability=1.0,
                expires_at=timezone.now() + timedelta(hours=1),
            )  # fmt: skip
        return encode(*args, **fields)  # type: ignore[arg-type]

    monkeypatch.setattr(
        "generation.rendering.publish.encode_rendition", encode_while_somebody_draws
    )
    encode_again()
    battle = Battle.objects.get()
    assert {battle.clip_a.profile, battle.clip_b.profile} == {PROFILE.number}
