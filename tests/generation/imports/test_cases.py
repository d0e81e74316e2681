"""Files that people reported of other tools: each is imported as it was meant, or refused by name.

All in `cases/` show eight patches of colour under a row of eight blocks that write the frame's
number in binary, at 24 frames a second, with beeps at 0.5 s left and at 1.5 s right.
"""

import csv
import io
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client

from arena.voting.matchmaking import votable_pairs
from generation.catalogue.prompts import load_prompt_set
from generation.models import Clip, ClipState, Prompt, RowOutcome, UploadRow, Version
from generation.tasks import import_waiting
from tests.generation.imports.test_import_clips import film

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

CASES = Path(__file__).with_name("cases")
PROMPTS = """
slug = "wide"
name = "Wide"
aspect = "16:9"
seconds = 2.5

[[prompt]]
key = "wide-1"
text = "eight patches"
tags = ["single-subject"]
"""
PATCHES = np.array(
    [
        (200, 30, 30), (30, 200, 30), (30, 30, 200), (128, 128, 128),
        (235, 235, 235), (20, 20, 20), (220, 170, 140), (220, 220, 40),
    ]
)  # fmt: skip
TICKS = 60  # of the rendition: 2.5 s


@pytest.fixture
def wide(tmp_path: Path, db: None) -> Prompt:
    (tmp_path / "wide.toml").write_text(PROMPTS)
    return load_prompt_set(tmp_path / "wide.toml")[0].prompts.get()


@pytest.fixture
def rival(make_version: Callable[..., Version], wide: Prompt) -> Version:
    return make_version("rival-1", backend="imported", settings={}, width=426, height=240, fps=24)


@pytest.fixture
def import_case(rival: Version, tmp_path: Path) -> Callable[[str], str]:
    """Import one of the files in a category with sound; returns what was printed."""

    def run(name: str) -> str:
        shutil.copy(CASES / name, tmp_path / name)
        return import_lines(tmp_path, (name, "rival-1", "wide-1", "t2v-audio"))

    return run


def import_lines(folder: Path, *lines: tuple[str, ...]) -> str:
    manifest, out = folder / "manifest.csv", io.StringIO()
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "version", "prompt", "category", "seed_slot"))
        writer.writerows((*line, *[""] * (5 - len(line))) for line in lines)
    try:
        call_command("import_clips", str(manifest), stdout=out)
    except CommandError as error:
        out.write(str(error))
    return out.getvalue()


def shown(clip: Clip) -> npt.NDArray[np.uint8]:
    with av.open(clip.rendition.path) as media:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in media.decode(video=0)])


def numbers_in(frames: npt.NDArray[np.uint8]) -> list[int]:
    """What the row of blocks at the top says, of each frame."""
    height, width = frames.shape[1:3]
    middles = [round(width * (n + 0.5) / 8) for n in range(8)]
    bits = frames[:, height * 16 // 432, middles].mean(axis=-1) > 128
    return [int("".join(str(int(bit)) for bit in row), 2) for row in bits]


def patches_in(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = frame.shape[:2]
    rows, columns = (
        [round(height * y / 432) for y in (132, 332)],
        range(width // 8, width, width // 4),
    )
    return np.array([frame[y, x] for y in rows for x in columns])


def beeps_in(clip: Clip) -> list[float]:
    """When each channel's beep begins, in seconds."""
    with av.open(clip.rendition.path) as media:
        sound = np.concatenate([frame.to_ndarray() for frame in media.decode(audio=0)], axis=1)
    return [float((np.abs(side) > np.abs(side).max() / 3).argmax()) / 48_000 for side in sound]


def expected_numbers(name: str) -> list[int]:
    """What the file shows at each tick of 1/24 s: the last frame that has begun."""
    with av.open(str(CASES / name)) as media:
        frames = list(media.decode(video=0))
    starts = [float((f.pts - frames[0].pts) * f.time_base) for f in frames]
    own = numbers_in(np.stack([frame.to_ndarray(format="rgb24") for frame in frames]))
    return [own[int(np.searchsorted(starts, n / 24 + 0.002)) - 1] for n in range(TICKS)]


@pytest.mark.parametrize(
    "name",
    [
        "base.mp4",
        "q_apac_second.mp4",  # a second track that nobody can decode: the first is taken
        "w_vfr.webm",
        "w_two_dropped.mkv",
        "p_agap.mp4",  # a hole in the sound: what follows stays at its own time
        "p_lastlong.mp4",  # the last frame says that it lasts 10 s
        "a_two_second_default.mkv",  # the first track is silent, the second is the default
    ],
)
def test_an_odd_file_is_imported_as_a_player_shows_it(
    import_case: Callable[[str], str], name: str
) -> None:
    assert "1 imported, 0 already there, 0 refused." in import_case(name)
    clip = Clip.objects.get()
    assert (clip.state, clip.held_because) == (ClipState.READY, "")
    assert (clip.width, clip.height, clip.fps, clip.off_format) == (768, 432, 24, False)
    assert clip.seconds == pytest.approx(3)
    frames = shown(clip)
    assert numbers_in(frames) == expected_numbers(name)
    if name not in ("w_vfr.webm", "w_two_dropped.mkv"):
        assert numbers_in(frames) == list(range(TICKS))
    for frame in (frames[0], frames[-1]):
        assert np.abs(patches_in(frame).astype(int) - PATCHES).max() <= 6
    assert beeps_in(clip) == pytest.approx([0.5, 1.5], abs=0.01)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "p_vlost.mp4",
            "p_vlost.mp4 is truncated or damaged (only 57 of 66 frames can be decoded)",
        ),
        ("v_prim_2020.mp4", "v_prim_2020.mp4 has BT.2020 primaries: convert it to BT.709 first."),
        ("t_fps1.mp4", "t_fps1.mp4 has 1 frames a second; t2v-audio asks for 8 to 60."),
        ("t_fps1000.mp4", "t_fps1000.mp4 has 1000 frames a second; t2v-audio asks for 8 to 60."),
        ("t_ashort.mp4", "t_ashort.mp4 has 1.00 s of sound for 2.50 s of video: make its sound as"),
        ("p_vflip.mp4", "p_vflip.mp4 is stored mirrored: re-save it as it is to be seen."),
        ("geo_interl.mp4", "geo_interl.mp4 is interlaced: deinterlace it first."),
    ],
)
def test_what_would_be_shown_wrong_is_refused_by_name(
    import_case: Callable[[str], str], media: Path, name: str, sentence: str
) -> None:
    assert f"line 2: refused: {sentence}" in import_case(name)
    assert not Clip.objects.exists()
    assert not any(media.rglob("*.mp4"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x_black.mp4", "its picture is black and its sound is silence"),
        ("x_silent_track.mp4", "its sound is silence"),
        ("t_single.mp4", "its picture stands still"),
    ],
)
def test_what_shows_nothing_waits_for_an_operators_look(
    import_case: Callable[[str], str], name: str, reason: str
) -> None:
    said = import_case(name)
    assert (
        f"line 2: held: {name} as wide-1, t2v-audio, slot 0, of rival-1. Held: {reason}. " in said
    )
    assert "0 imported, 1 held, 0 already there, 0 refused." in said
    clip = Clip.objects.get()
    assert (clip.state, clip.held_because, clip.ready_at) == (ClipState.HELD, reason, None)
    assert f"already there: {name} as wide-1, t2v-audio, slot 0, of rival-1. Held" in import_case(
        name
    )


def test_sound_that_nobody_hears_does_not_matter(rival: Version, tmp_path: Path) -> None:
    """In a silent category a file is taken whatever its sound is."""
    shutil.copy(CASES / "t_ashort.mp4", tmp_path / "t_ashort.mp4")
    said = import_lines(tmp_path, ("t_ashort.mp4", "rival-1", "wide-1", "t2v-silent"))
    assert "1 imported, 0 already there" in said


def test_no_sound_that_can_be_decoded_is_a_sentence(rival: Version, tmp_path: Path) -> None:
    content = (CASES / "q_apac_second.mp4").read_bytes()
    assert content.count(b"mp4a") == 1
    (tmp_path / "a.mp4").write_bytes(content.replace(b"mp4a", b"zzzz").replace(b"esds", b"free"))
    said = import_lines(tmp_path, ("a.mp4", "rival-1", "wide-1", "t2v-audio"))
    assert "refused: The sound of a.mp4 is in a codec that is not known here, which is not" in said


def test_one_bad_row_leaves_the_others(rival: Version, tmp_path: Path) -> None:
    """Tags that are not UTF-8, and a track that no decoder knows, in the middle of a manifest."""
    good = (CASES / "base.mp4").read_bytes()
    assert b"Lavf" in good
    (tmp_path / "tags.mp4").write_bytes(good.replace(b"Lavf", b"\xff\xfe\xfa\xfb"))
    shutil.copy(CASES / "t_fps1.mp4", tmp_path / "bad.mp4")
    shutil.copy(CASES / "base.mp4", tmp_path / "good.mp4")
    rows = [
        ("bad.mp4", "rival-1", "wide-1", "t2v-audio"),
        ("tags.mp4", "rival-1", "wide-1", "t2v-silent"),
        ("good.mp4", "rival-1", "wide-1", "t2v-audio", "1"),
    ]
    said = import_lines(tmp_path, *rows)
    assert "line 2: refused: bad.mp4 has 1 frames a second" in said
    assert "2 imported, 0 already there, 1 refused." in said


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("header", ["file,version,prompt,category", "File,Version,Prompt,CATEGORY"])
def test_a_manifest_as_spreadsheets_write_it(
    rival: Version, tmp_path: Path, separator: str, header: str
) -> None:
    film(tmp_path / "a.mp4", seconds=2.5, size=(432, 240))
    lines = f"{header}\na.mp4,rival-1,wide-1,t2v-silent\n".replace(",", separator)
    (tmp_path / "manifest.csv").write_text(lines)
    call_command("import_clips", str(tmp_path / "manifest.csv"))
    assert Clip.objects.get().state == ClipState.READY


@pytest.mark.parametrize("name", ["semicolon.csv", "upperhead.csv"])
def test_the_manifests_of_the_cases_are_read(db: None, tmp_path: Path, name: str) -> None:
    shutil.copy(CASES / name, tmp_path / name)
    out = io.StringIO()
    with pytest.raises(CommandError, match="1 of 1 lines were refused"):
        call_command("import_clips", str(tmp_path / name), stdout=out)
    assert "line 2: refused: There is no version “bug-1”" in out.getvalue()


@pytest.mark.parametrize(("in_manifest", "on_disk"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_name_with_accents_is_found_in_either_spelling(
    rival: Version, tmp_path: Path, in_manifest: str, on_disk: str
) -> None:
    name = "clips é/Vidéo à.mp4"
    film(tmp_path / unicodedata.normalize(on_disk, name), seconds=2.5, size=(432, 240))  # type: ignore[arg-type]
    listed = unicodedata.normalize(in_manifest, name)  # type: ignore[arg-type]
    assert "1 imported" in import_lines(tmp_path, (listed, "rival-1", "wide-1", "t2v-silent"))


@pytest.mark.parametrize(("in_manifest", "sent"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_an_upload_finds_its_files_in_either_spelling(
    rival: Version, client: Client, tmp_path: Path, in_manifest: str, sent: str
) -> None:
    client.force_login(User.objects.create_superuser("olga"))
    content = film(tmp_path / "a.mp4", seconds=2.5, size=(432, 240)).read_bytes()
    listed = unicodedata.normalize(in_manifest, "Vidéo.mp4")  # type: ignore[arg-type]
    name = unicodedata.normalize(sent, "Vidéo.mp4")  # type: ignore[arg-type]
    manifest = f"file,version,prompt,category\n{listed},rival-1,wide-1,t2v-silent\n"
    data = {
        "all-manifest": SimpleUploadedFile("list.csv", manifest.encode()),
        "all-clips": [SimpleUploadedFile(name, content)],
        "all": "1",
    }
    assert client.post("/admin/uploads/", data).status_code == 302
    assert import_waiting()
    assert UploadRow.objects.get().outcome == RowOutcome.IMPORTED


def test_votes_wait_for_held_clips(
    rival: Version, make_version: Callable[..., Version], client: Client, tmp_path: Path
) -> None:
    """A held clip meets nobody until an operator shows it; refused, it never does."""
    make_version("other-1", backend="imported", settings={}, width=426, height=240, fps=24)
    for name in ("base.mp4", "x_silent_track.mp4"):
        shutil.copy(CASES / name, tmp_path / name)
    import_lines(
        tmp_path,
        ("base.mp4", "other-1", "wide-1", "t2v-audio"),
        ("x_silent_track.mp4", "rival-1", "wide-1", "t2v-audio"),
    )
    held = Clip.objects.get(state=ClipState.HELD)
    assert votable_pairs() == {}
    client.force_login(User.objects.create_superuser("olga"))
    clips = "/admin/generation/clip/"
    page = client.get(f"{clips}?state__exact=held").text
    assert "its sound is silence" in page
    assert f'src="{clips}{held.pk}/rendition.mp4"' in page
    assert client.get(f"{clips}{held.pk}/rendition.mp4").status_code == 200

    def act(action: str) -> str:
        chosen = {"action": action, "_selected_action": [str(held.pk)]}
        return client.post(f"{clips}?state__exact=held", chosen, follow=True).text

    assert "Refused 1 held clip. No voter will see them." in act("refuse_chosen")
    held.refresh_from_db()
    assert (held.state, held.error) == (
        ClipState.FAILED, "Refused by olga: its sound is silence."
    )  # fmt: skip
    assert votable_pairs() == {}
    assert "None of the selected clips is held." in act("show_to_voters")
    Clip.objects.filter(pk=held.pk).update(state=ClipState.HELD, error="")
    assert "Voters may see 1 held clip now." in act("show_to_voters")
    held.refresh_from_db()
    assert held.state == ClipState.READY
    assert held.ready_at is not None
    assert votable_pairs() == {"t2v-audio": 1}
