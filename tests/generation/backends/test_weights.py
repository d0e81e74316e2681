"""The digest of a directory covers what is loaded from it, links included."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from generation.backends import CannotRender
from generation.backends.diffusers.weights import digest_of, size_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline as it is downloaded."""
    folder = tmp_path / "pipeline"
    for name, content in (
        ("model_index.json", b"{}"),
        ("transformer/part.safetensors", b"1" * 100),
        ("text_encoder/model.safetensors", b"2" * 50),
    ):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def link_out(folder: Path, name: str, elsewhere: Path) -> Path:
    """Move a part out and link it back, as checkpoints share their text encoder."""
    shutil.move(folder / name, elsewhere)
    (folder / name).symlink_to(elsewhere)
    return elsewhere


def test_a_part_that_is_a_link_counts_as_what_it_leads_to(folder: Path, tmp_path: Path) -> None:
    before, size = digest_of(folder), size_of(folder)
    shared = link_out(folder, "text_encoder", tmp_path / "shared")
    link_out(folder, "transformer/part.safetensors", tmp_path / "step_120000.safetensors")
    assert (digest_of(folder), size_of(folder)) == (before, size) == (before, 150)
    (shared / "model.safetensors").write_bytes(b"2" * 49 + b"3")  # one bit
    assert digest_of(folder) != before


def test_a_link_that_leads_elsewhere_is_another_digest(folder: Path, tmp_path: Path) -> None:
    before = digest_of(folder)
    link_out(folder, "transformer", tmp_path / "step_1")
    other = tmp_path / "step_2"
    shutil.copytree(tmp_path / "step_1", other)
    (other / "part.safetensors").write_bytes(b"4" * 100)
    (folder / "transformer").unlink()
    (folder / "transformer").symlink_to(other)
    assert digest_of(folder) != before


def test_a_directory_that_is_linked_twice_is_no_circle(folder: Path) -> None:
    (folder / "text_encoder_2").symlink_to(folder / "text_encoder")
    assert size_of(folder) == 200
    assert digest_of(folder)


def circle(folder: Path) -> None:
    (folder / "vae").symlink_to(folder)


def circle_below(folder: Path) -> None:
    (folder / "transformer" / "again").symlink_to(folder / "transformer")


def circle_of_links(folder: Path) -> None:
    (folder / "one").symlink_to(folder / "two")
    (folder / "two").symlink_to(folder / "one")


def dangling(folder: Path) -> None:
    (folder / "vae").symlink_to("/nowhere/vae")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (circle, "vae links to .*, a directory that holds it: remove the link"),
        (circle_below, "again links to .*, a directory that holds it: remove the link"),
        (circle_of_links, "links to .*, which is not there: mend or remove the link"),
        (dangling, "vae links to /nowhere/vae, which is not there: mend or remove the link"),
        (pipe, "pipe is neither a file nor a directory: remove it"),
    ],
)
def test_what_cannot_be_read_whole_is_refused_in_words(
    folder: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(folder)
    with pytest.raises(CannotRender, match=said):
        digest_of(folder)
    with pytest.raises(CannotRender, match=said):
        size_of(folder)


def test_what_a_download_keeps_may_hang(folder: Path) -> None:
    before = digest_of(folder)
    (folder / ".cache").symlink_to("/nowhere")
    assert digest_of(folder) == before


def run(*arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "generation.backends.diffusers", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_command_ends_with_an_error_where_there_is_nothing(
    folder: Path, tmp_path: Path
) -> None:
    assert run(str(folder)) == (0, digest_of(folder) + "\n", "")
    code, out, err = run(str(tmp_path / "nowhere"))
    assert (code, out) == (1, "")
    assert err.endswith("nowhere does not exist: give the directory that holds the weights.\n")
    code, out, err = run(str(folder / "model_index.json"))
    assert (code, out) == (1, "")
    assert "model_index.json is no directory" in err
    (tmp_path / "empty").mkdir()
    assert run(str(tmp_path / "empty"))[:2] == (1, "")
    assert run()[:2] == (2, "")
