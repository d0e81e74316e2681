"""An operator imports clips made elsewhere; what is wrong with a file is said, line by line."""

import contextlib
import csv
import hashlib
import io
import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from arena.voting.matchmaking import votable_pairs
from generation.catalogue.categories import Category
from generation.media.reading import probe
from generation.models import Clip, ClipState, PromptSet, Version
from generation.rendering.claims import claim_clip
from generation.tasks import sweep_media
from tests.arena.voting.test_vote import battle_on

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

HEADER = ("file", "version", "prompt", "category", "seed_slot", "seconds_taken", "hardware")
RATE = 44_100


def film(
    path: Path,
    seconds: float = 1,
    size: tuple[int, int] = (64, 64),
    sound: bool = False,
    pitch: float = 440,
    container: str = "mp4",
    light: int = 230,
) -> Path:
    """A file as another program would make it: a bright bar that moves, and a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    with av.open(str(path), "w", format=container) as out:
        video = out.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        if sound:
            heard = out.add_stream("aac", rate=RATE, layout="stereo")
        for number in range(round(seconds * 30)):
            picture = np.full((height, width, 3), min(60, light), np.uint8)
            picture[:, number % width] = light
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound:
            wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)
            tone = av.AudioFrame.from_ndarray(
                np.stack([wave, wave]).astype(np.float32), format="fltp", layout="stereo"
            )
            tone.sample_rate, tone.pts = RATE, 0
            out.mux(heard.encode(tone))
            out.mux(heard.encode(None))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "from-elsewhere"
    place.mkdir()
    return place


@pytest.fixture
def rival(few: PromptSet, make_version: Callable[..., Version]) -> Version:
    return make_version("rival-1", backend="imported", settings={"service": "somebody's"})


@pytest.fixture
def run(folder: Path) -> Callable[..., str]:
    """Write a manifest with these lines, import it, return what was printed; short lines are
    filled up with empty cells."""

    def run(*lines: tuple[str, ...], dry_run: bool = False, refused: int = 0) -> str:
        out = io.StringIO()
        manifest = folder / "manifest.csv"
        with manifest.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            writer.writerows((*line, *[""] * (len(HEADER) - len(line))) for line in lines)
        arguments = ["import_clips", str(manifest), *(["--dry-run"] if dry_run else [])]
        if refused:
            with pytest.raises(CommandError, match=f"{refused} of {len(lines)} lines were refused"):
                call_command(*arguments, stdout=out)
        else:
            call_command(*arguments, stdout=out)
        return out.getvalue()

    return run


def stored_files(media: Path) -> list[Path]:
    return [path for path in media.rglob("*") if path.is_file() and "references" not in path.parts]


def long_ago() -> datetime:
    return timezone.now() - timedelta(days=2)


A = ("a.mp4", "rival-1", "few-1", "t2v-silent")


def test_a_file_becomes_a_clip(rival: Version, folder: Path, run: Callable[..., str]) -> None:
    file = film(folder / "clips" / "a.mp4", seconds=1.5, sound=True)
    said = run(("clips/a.mp4", "rival-1", "few-1", "t2v-audio", "", "41.5", "one H100"))
    assert "line 2: imported: a.mp4 as few-1, t2v-audio, slot 0, of rival-1\n" in said
    assert "1 imported, 0 already there, 0 refused." in said
    clip = Clip.objects.get()
    assert (clip.state, clip.error, clip.leased_until) == (ClipState.READY, "", None)
    assert (clip.width, clip.height, clip.fps, clip.seconds) == (64, 64, 30, 1.5)
    assert (clip.render_seconds, clip.hardware) == (41.5, "one H100")
    assert clip.encode_seconds is not None
    assert clip.loudness == pytest.approx(-23, abs=0.5)
    assert clip.motion is not None
    assert clip.motion > 0
    assert clip.source_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    master = probe(Path(clip.master.path))
    assert (master.video_codec, master.audio_codec, master.seconds) == ("h264", "flac", 1.5)
    rendition = Path(clip.rendition.path).read_bytes()
    assert hashlib.sha256(rendition).hexdigest() == clip.rendition_sha256
    assert default_storage.exists(clip.poster.name)
    with av.open(clip.rendition.path) as media:
        assert len(list(media.decode(video=0))) == 24  # the prompt's one second
        assert media.streams.audio


def test_a_silent_category_drops_the_sound(
    rival: Version, folder: Path, run: Callable[..., str]
) -> None:
    film(folder / "a.mp4", sound=True)
    film(folder / "b.webm", container="matroska")
    run(A, ("b.webm", "rival-1", "few-3", "i2v-silent", "1"))
    for clip in Clip.objects.all():
        with av.open(clip.rendition.path) as media:
            assert not media.streams.audio
        assert (clip.loudness, clip.render_seconds, clip.hardware) == (None, None, "")
    assert Clip.objects.get(category="i2v-silent").seed_slot == 1


@pytest.mark.full_size
def test_it_meets_a_rendered_clip(
    client: Client,
    rival: Version,
    make_version: Callable[..., Version],
    render_all: Callable[..., list[Clip]],
    few: PromptSet,
    folder: Path,
    run: Callable[..., str],
) -> None:
    make_version("sharp")
    render_all(few, Category.T2V_SILENT)
    assert votable_pairs() == {}
    film(folder / "a.mp4")
    run(A)
    assert votable_pairs() == {"t2v-silent": 1}
    battle = battle_on(client)
    assert battle is not None
    sizes = set()
    for side in ("a", "b"):
        video = client.get(battle[side]["video"])
        with av.open(io.BytesIO(b"".join(video.streaming_content))) as media:
            stream = media.streams.video[0]
            sizes.add((stream.width, stream.height, len(list(media.decode(video=0)))))
    assert sizes == {(720, 720, 24)}


def test_the_same_manifest_again_imports_nothing(
    rival: Version, folder: Path, media: Path, run: Callable[..., str]
) -> None:
    film(folder / "a.mp4")
    run(A)
    before, files = Clip.objects.values().get(), stored_files(media)
    assert "line 2: already there: a.mp4 as few-1" in run(A)
    assert (Clip.objects.values().get(), stored_files(media)) == (before, files)
    film(folder / "a.mp4", seconds=1.2)
    said = run(A, refused=1)
    assert "line 2: refused: a.mp4 is another file than the ready clip was made of" in said
    assert (Clip.objects.values().get(), stored_files(media)) == (before, files)


@pytest.mark.parametrize("state", [ClipState.WAITING, ClipState.FAILED, "its import was killed"])
def test_a_clip_that_never_came_is_taken_over(
    rival: Version, few: PromptSet, folder: Path, run: Callable[..., str], state: str
) -> None:
    prompt = few.prompts.get(key="few-1")
    clip = Clip(version=rival, prompt=prompt, category="t2v-silent", seed=1, fence=2)
    if state == ClipState.WAITING:
        clip.state = ClipState.WAITING
    elif state == ClipState.FAILED:
        clip.state, clip.error = ClipState.FAILED, "the reason"
    else:
        clip.state, clip.leased_until = ClipState.RENDERING, long_ago()
    clip.save()
    film(folder / "a.mp4")
    assert "1 imported" in run(A)
    clip.refresh_from_db()
    assert (clip.state, clip.error, clip.fence) == (ClipState.READY, "", 3)


def test_a_clip_in_other_hands_is_left_to_them(
    rival: Version, few: PromptSet, folder: Path, media: Path, run: Callable[..., str]
) -> None:
    soon = timezone.now() + timedelta(seconds=30)
    Clip.objects.create(
        version=rival, prompt=few.prompts.get(key="few-1"), category="t2v-silent", seed=1,
        state=ClipState.RENDERING, leased_until=soon, fence=1,
    )  # fmt: skip
    film(folder / "a.mp4")
    assert "Another import is working on this clip" in run(A, refused=1)
    assert Clip.objects.get().fence == 1
    assert stored_files(media) == []


def test_what_a_killed_import_left_is_swept_and_no_worker_makes_it(
    rival: Version, few: PromptSet, media: Path
) -> None:
    clip = Clip.objects.create(
        version=rival, prompt=few.prompts.get(key="few-1"), category="t2v-silent", seed=1,
        state=ClipState.RENDERING, leased_until=long_ago(), fence=1, attempts=1,
        sweep_at=long_ago(),
    )  # fmt: skip
    half = media / "clips" / str(clip.pk) / "1" / "master.mp4"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half a clip")
    os.utime(half, (long_ago().timestamp(), long_ago().timestamp()))
    assert claim_clip("a worker that finds the lease run out") is None
    assert sweep_media() == 1
    assert not half.exists()
    clip.refresh_from_db()
    assert (clip.state, clip.leased_until) == (ClipState.FAILED, None)
    assert clip.error == "Its import was killed. Import the manifest again."


def test_a_lost_clip_comes_back_only_as_it_was(
    rival: Version, folder: Path, run: Callable[..., str]
) -> None:
    original = film(folder / "a.mp4").read_bytes()
    run(A)
    Clip.objects.update(state=ClipState.FAILED, error="The file is missing from the storage.")
    film(folder / "a.mp4", seconds=1.2, size=(96, 96))
    assert "makes a different rendition from the one people saw" in run(A, refused=1)
    (folder / "a.mp4").write_bytes(original)
    assert "1 imported" in run(A)


def test_what_can_not_be_stored_is_kept_in_words_and_can_be_tried_again(
    rival: Version, folder: Path, media: Path, run: Callable[..., str]
) -> None:
    film(folder / "a.mp4")
    (media / "clips").write_text("in the way")
    with pytest.raises(CommandError, match=r"Stopped at line 2: a\.mp4 could not be stored"):
        run(A)
    clip = Clip.objects.get()
    assert clip.state == ClipState.FAILED
    assert clip.error.startswith("a.mp4 could not be stored")
    (media / "clips").unlink()
    assert "1 imported" in run(A)


def test_a_fault_of_the_site_stops_the_import(
    rival: Version, folder: Path, run: Callable[..., str], settings, tmp_path: Path
) -> None:
    """No row is refused for it; what was imported before stays."""
    film(folder / "a.mp4")
    good, settings.SCRATCH = settings.SCRATCH, str(tmp_path / "taken")
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(CommandError, match=r"Stopped at line 2: The file could not be taken in"):
        run(A)
    assert not Clip.objects.exists()
    settings.SCRATCH = good
    assert "1 imported" in run(A)


@pytest.mark.django_db(transaction=True)
def test_two_imports_at_once_make_one_clip(rival: Version, folder: Path, media: Path) -> None:
    film(folder / "a.mp4")
    manifest = folder / "manifest.csv"
    manifest.write_text("file,version,prompt,category\n" + ",".join(A) + "\n")
    said: list[str] = []
    start = threading.Barrier(2)

    def work() -> None:
        out = io.StringIO()
        start.wait()
        with contextlib.suppress(CommandError):  # the other one held the clip
            call_command("import_clips", str(manifest), stdout=out)
        said.append(out.getvalue())
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("1 imported" in text for text in said) == 1
    assert Clip.objects.get().state == ClipState.READY
    assert len(stored_files(media)) == 3


def test_a_dry_run_checks_everything_and_keeps_nothing(
    rival: Version, folder: Path, media: Path, run: Callable[..., str]
) -> None:
    film(folder / "a.mp4")
    film(folder / "short.mp4", seconds=0.5)
    short = ("short.mp4", "rival-1", "few-2", "t2v-silent")
    said = run(A, short, dry_run=True, refused=1)
    assert "line 2: would be imported: a.mp4" in said
    assert "line 3: refused: short.mp4 lasts 0.50 s, too short" in said
    assert "1 would be imported, 0 already there, 1 refused." in said
    assert not Clip.objects.exists()
    assert stored_files(media) == []


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (("a.mp4", "nobody", "few-1", "t2v-silent"), "There is no version “nobody”"),
        (("a.mp4", "sharp", "few-1", "t2v-silent"), "with the backend scenes. Add a version"),
        (("a.mp4", "rival-1", "few-9", "t2v-silent"), "There is no prompt “few-9”"),
        (
            ("a.mp4", "rival-1", "few-1", "t2v"),
            "There is no category “t2v”. The categories are t2v-sil",
        ),
        (("a.mp4", "rival-1", "few-1", "i2v-silent"), "few-1 is not for i2v-silent. It is for t2v"),
        (("a.mp4", "mute-1", "few-1", "t2v-audio"), "mute-1 does not make t2v-audio"),
        (("a.mp4", "rival-1", "few-1", "t2v-audio"), "a.mp4 has no audio track"),
        (("a.mp4", "rival-1", "few-1", "t2v-silent", "-1"), "The seed_slot is “-1”"),
        (("a.mp4", "rival-1", "few-1", "t2v-silent", "0", "nan"), "The seconds_taken is “nan”"),
        (("a.mp4", "rival-1", "few-1", "t2v-silent", "0", "0"), "The seconds_taken is “0”"),
        (
            ("a.mp4", "rival-1", "few-1", "t2v-silent", "", "", "x" * 121),
            "The hardware must be one line",
        ),
        (("../a.mp4", "rival-1", "few-1", "t2v-silent"), "../a.mp4 is outside"),
        (("link.mp4", "rival-1", "few-1", "t2v-silent"), "link.mp4 is outside"),
        (("/etc/hostname", "rival-1", "few-1", "t2v-silent"), "/etc/hostname is outside"),
        (("none.mp4", "rival-1", "few-1", "t2v-silent"), "There is no file “none.mp4”"),
        (("x" * 300, "rival-1", "few-1", "t2v-silent"), "can't be opened"),
        (("", "rival-1", "few-1", "t2v-silent"), "There is no file “”"),
        (("text.mp4", "rival-1", "few-1", "t2v-silent"), "text.mp4 is not a readable MP4"),
        (("list.mp4", "rival-1", "few-1", "t2v-silent"), "list.mp4 is not a readable MP4"),
        (("cut.mp4", "rival-1", "few-1", "t2v-silent"), "cut.mp4 is "),
        (("tone.mp4", "rival-1", "few-1", "t2v-silent"), "tone.mp4 has no video track"),
        (("short.mp4", "rival-1", "few-1", "t2v-silent"), "short.mp4 lasts 0.50 s, too short"),
        (("wide.mp4", "rival-1", "few-1", "t2v-silent"), "wide.mp4 is 128x64, not 1:1 within 4%"),
        (("tiny.mp4", "rival-1", "few-1", "t2v-silent"), "tiny.mp4 is 16x16, smaller than the 32x"),
        (("film.mp4", "rival-1", "few-1", "t2v-silent"), "film.mp4 lasts 61 s. Cut it to 60 s"),
    ],
)
def test_a_refused_line_leaves_the_others(
    rival: Version,
    make_version: Callable[..., Version],
    folder: Path,
    media: Path,
    run: Callable[..., str],
    line: tuple[str, ...],
    sentence: str,
) -> None:
    make_version("sharp")
    make_version("mute-1", backend="imported", settings={}, categories=["t2v-silent"])
    whole = film(folder / "a.mp4").read_bytes()
    outside = film(folder.parent / "a.mp4")
    (folder / "link.mp4").symlink_to(outside)
    (folder / "text.mp4").write_text("this is a letter, not a film\n" * 50)
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    (folder / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    with av.open(str(folder / "tone.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=RATE, layout="mono")
        tone = av.AudioFrame.from_ndarray(np.zeros((1, RATE), np.float32), "fltp", "mono")
        tone.sample_rate, tone.pts = RATE, 0
        out.mux([*stream.encode(tone), *stream.encode(None)])
    film(folder / "short.mp4", seconds=0.5)
    film(folder / "wide.mp4", size=(128, 64))
    film(folder / "tiny.mp4", size=(16, 16))
    film(folder / "film.mp4", seconds=61, size=(16, 16))
    said = run(line, ("a.mp4", "rival-1", "few-2", "t2v-silent"), refused=1)
    assert "line 2: refused: " in said
    assert sentence in said
    assert "1 imported, 0 already there, 1 refused." in said
    clip = Clip.objects.get()
    assert (clip.prompt.key, clip.state) == ("few-2", ClipState.READY)
    assert len(stored_files(media)) == 3


def test_a_clip_listed_twice_is_refused_the_second_time(
    rival: Version, folder: Path, run: Callable[..., str]
) -> None:
    film(folder / "a.mp4")
    assert "line 3: refused: Line 2 already asks for this clip" in run(A, A, refused=1)
    assert Clip.objects.count() == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no header"),
        (b"a.mp4,rival-1,few-1,t2v-silent\n", "lacks the column file, version, prompt, category"),
        (b"file,version,prompt\na.mp4,rival-1,few-1\n", "lacks the column category. It needs"),
        (b"file,version,prompt,category,colour\n", "has the unknown column colour. It can have"),
        (b"file,version,prompt,category,file\n", "has the column file twice"),
        (b"file,version,prompt,category\n", "lists no clips"),
        (b"file,version,prompt,category\na.mp4,rival-1,few-1,\xff\n", "is not UTF-8"),
        (b"file,version,prompt,category\na.mp4,rival-1,few-1,\0\n", "contains a NUL character"),
        (
            b'file,version,prompt,category\na.mp4,rival-1,few-1,t2v-silent\n"b',
            "line 3, is not CSV",
        ),
    ],
)
def test_a_broken_manifest_imports_nothing(
    rival: Version, folder: Path, content: bytes, sentence: str
) -> None:
    film(folder / "a.mp4")
    (folder / "manifest.csv").write_bytes(content)
    with pytest.raises(CommandError, match=sentence):
        call_command("import_clips", str(folder / "manifest.csv"))
    assert not Clip.objects.exists()


def test_a_manifest_from_a_spreadsheet_is_read(rival: Version, folder: Path) -> None:
    film(folder / "a, first.mp4")
    lines = ("version,file,prompt,category", 'rival-1,"a, first.mp4",few-1,t2v-silent', "", "x,y")
    (folder / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    out = io.StringIO()
    with pytest.raises(CommandError, match="1 of 2 lines were refused"):
        call_command("import_clips", str(folder / "manifest.csv"), stdout=out)
    assert "line 2: imported: a, first.mp4" in out.getvalue()
    assert "line 4: refused: It has more or fewer cells than the header" in out.getvalue()


def test_a_manifest_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"none\.csv can't be read: No such file"):
        call_command("import_clips", str(tmp_path / "none.csv"))


def test_render_says_in_one_sentence_where_such_clips_come_from(rival: Version) -> None:
    out = io.StringIO()
    which = ("--prompt-set", "few", "--category", "t2v-silent")
    with pytest.raises(CommandError, match="Nothing is selected"):
        call_command("render", *which, "--no-wait", stdout=out)
    assert "0 clips queued, 0 there already, 1 refused." in out.getvalue()
    assert "rival-1: Its clips were made elsewhere" in out.getvalue()
    assert not Clip.objects.exists()
