"""Files made to break decoders are refused in words, or harmless; the child stays within 2 GB."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from generation.media import intake
from generation.media.intake import MEMORY_AT_MOST, Wanted, take_in
from generation.media.profile import EncodingError, SiteFault
from tests.generation.media.hostile import HOSTILE, measure, muxed

pytestmark = pytest.mark.slow

WANTED = Wanted("16:9", 1.0, "t2v-silent", False, (8, 60), "rival-1", 16, 9)
TAKEN = "taken in"
EXPECTED = {
    "an-hour-of-sound.mp4": "holds more than 60 s of sound",
    "hours-of-frames.mp4": "lasts more than 60 s",
    "tiny-frames.mkv": "holds more than 3,600 frames",
    "600-of-4096.mp4": "is 4096x4096: make it of at most 9,437,184 pixels",
    "600-of-4k.mp4": "holds 600 frames of 4096x2304, more than 4 billion pixels",
    "largest-taken.mp4": TAKEN,
    "largest-whole-chroma.mkv": "needs more than 2 GB to decode",
    "png-frames.mov": "are in png, which is not taken",
    "30000-says-the-track.mov": "or more than 9,437,184 pixels",
    "30000-says-the-picture.mov": "is truncated or damaged",
    "larger-in-the-middle.webm": "is truncated or damaged",
    "smaller-in-the-middle.webm": "changes its frame size",
    "rate-changes.mkv": "changes the rate or the channels of its sound",
    "channels-change.mkv": "changes the rate or the channels of its sound",
    "one-sample-pieces.mkv": "holds its sound in more than 45,000 pieces",
    "60-channels.mkv": "has 24 channels at 48,000 Hz",
    "no-numbers.mkv": "is no numbers in places",
    "nested-boxes.mp4": TAKEN,
    "nested-first.mp4": "is not a readable MP4",
    "packed-header.mov": "has no video track",
    "endless-edits.mp4": "lasts more than 60 s",
    "endless-samples.mp4": "holds no video frame",
    "thousands-of-tracks.mp4": "holds more than 32 tracks",
    "theora.mkv": "are in theora, which is not taken",
    "text.mkv": "has no video track",
    "attachment.mkv": TAKEN,
    "huge-tags.mp4": TAKEN,
    "huge-tags.mkv": TAKEN,
    "tags-not-utf8.mp4": TAKEN,
    "late-times.mkv": "lasts 2147484 s",
    "late-times.mp4": TAKEN,  # as the one frame that its edit list leaves: a still, so it is held
    "negative-times.mp4": TAKEN,
    "truncated.mp4": "has no video track",
    "truncated.mkv": "is truncated or damaged",
    "wrong-magic.mp4": "is not a readable MP4",
    "empty.mp4": "is not a readable MP4",
    "one-box.mp4": "is not a readable MP4",
    "noise.mp4": "is not a readable MP4",
    "playlist.mp4": "is not a readable MP4",
    "concat.mp4": "is not a readable MP4",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_or_harmless_within_2_gb(tmp_path: Path, name: str) -> None:
    found = measure(name, tmp_path)
    assert EXPECTED[name] in found.outcome
    assert (found.outcome == TAKEN) == (EXPECTED[name] == TAKEN)
    assert "SiteFault" not in found.outcome
    assert found.peak < MEMORY_AT_MOST


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What runs in the place of the interpreter that reads files."""
    program = tmp_path / "python"
    program.touch(0o755)
    monkeypatch.setattr(intake.sys, "executable", str(program))
    return program


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("kill -SEGV $$", "a.mp4 breaks its decoder \\(SIGSEGV\\): re-save it"),
        ("kill -XCPU $$", "a.mp4 takes more than 10 minutes to decode: make a shorter"),
        ("kill -KILL $$", "a.mp4 could not be decoded, as the system ended the process"),
        ("echo MemoryError >&2; exit 1", "a.mp4 needs more than 2 GB to decode"),
    ],
)
def test_how_the_child_died_is_a_sentence_about_the_file(
    tmp_path: Path, child: Path, script: str, sentence: str
) -> None:
    child.write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(EncodingError, match=sentence) as raised:
        take_in(tmp_path / "a.mp4", tmp_path / "m.mkv", WANTED)
    assert not isinstance(raised.value, SiteFault)


def test_a_child_that_takes_too_long_is_ended(
    tmp_path: Path, child: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(intake, "TAKE_IN_SECONDS", 0.2)
    with pytest.raises(EncodingError, match=r"a\.mp4 takes more than"):
        take_in(tmp_path / "a.mp4", tmp_path / "m.mkv", WANTED)


def test_a_child_that_can_not_start_is_no_fault_of_the_file(tmp_path: Path, child: Path) -> None:
    child.write_text("#!/bin/sh\necho 'no such module' >&2\nexit 1\n")
    with pytest.raises(SiteFault, match=r"reads a\.mp4 failed \(no such module\)"):
        take_in(tmp_path / "a.mp4", tmp_path / "m.mkv", WANTED)
    child.unlink()
    with pytest.raises(SiteFault, match=r"No process can be started to read a\.mp4"):
        take_in(tmp_path / "a.mp4", tmp_path / "m.mkv", WANTED)


def test_the_child_knows_nothing_of_the_site(
    tmp_path: Path, child: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither secrets of the environment nor open files of the worker come with it."""
    assert {"DATABASE_URL", "SECRET_KEY"} <= os.environ.keys()
    monkeypatch.setenv("FAL_KEY", "a secret")
    said = tmp_path / "said"
    child.write_text(f"#!/bin/sh\nenv > {said}\nls /proc/self/fd | wc -l >> {said}\nexit 1\n")
    with (tmp_path / "open").open("w"), pytest.raises(SiteFault):
        take_in(tmp_path / "a.mp4", tmp_path / "m.mkv", WANTED)
    *environment, files = said.read_text().split()
    names = {line.partition("=")[0] for line in environment}
    shells_own = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert names - shells_own == {"MALLOC_ARENA_MAX", "OPENBLAS_NUM_THREADS", "PYTHONUTF8"}
    assert int(files) == 4  # the three that all have, and the folder that is listed


def test_the_child_can_not_have_more_than_its_limits(tmp_path: Path) -> None:
    """Its own limits, as the system holds them while it waits for its request."""
    child = subprocess.Popen(
        [sys.executable, "-m", "generation.media.foreign"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=intake.ROOT,
        env={},
    )
    assert child.stdin
    assert child.stdout
    try:
        (tmp_path / "a.mp4").write_bytes(muxed())
        while b"libavcodec" not in Path(f"/proc/{child.pid}/maps").read_bytes():
            assert child.poll() is None
        limits = Path(f"/proc/{child.pid}/limits").read_text()
    finally:
        request = {"source": "/none.mp4", "master": "/none.mkv", "wanted": vars(WANTED)}
        child.stdin.write(json.dumps(request).encode())
        child.stdin.close()
        answer = json.loads(child.stdout.read())
        child.wait()
    assert f"Max address space         {2 << 30}" in limits
    assert "Max cpu time              600" in limits
    assert "is not a readable MP4" in answer["refused"]
