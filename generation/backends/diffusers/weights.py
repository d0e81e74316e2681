"""Where a version's weights lie, and whether they are those it was entered with."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from generation.backends import CannotRender


def folder_of(pipeline_class: Any, settings: Mapping[str, Any]) -> str:
    """Where the weights lie: the directory named, or the pinned revision in the hub's cache.

    Fetched in a step of its own because the library prefers a directory that happens to be called
    like the hub's repository.
    """
    source: str = settings["source"]
    if Path(source).is_absolute():
        if not (Path(source) / "model_index.json").is_file():
            raise FileNotFoundError(
                f"{source} holds no diffusers pipeline (no model_index.json): put the weights "
                "there on every machine that renders."
            )
        if (found := digest_of(Path(source))) != settings["digest"]:
            raise CannotRender(
                f"{source} does not hold the files this version was entered with: their digest is "
                f"{found}, not {settings['digest']}. Enter them as a new version."
            )
        return source
    folder = pipeline_class.download(
        source, revision=settings["revision"], use_safetensors=True, trust_remote_code=False
    )
    return str(folder)


def digest_of(folder: Path) -> str:
    """SHA-256 over the names and contents of a directory's files, as `loaded_files` finds them.

    A link counts as what it leads to, so moving a component out and linking it back changes
    nothing, and leading the link elsewhere does. Raises CannotRender.
    """
    whole = hashlib.sha256()
    for file in loaded_files(folder):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        whole.update(f"{digest}  {file.relative_to(folder).as_posix()}\n".encode())
    return whole.hexdigest()


def size_of(folder: Path) -> int:
    """Bytes of the tensors in a directory, links followed; what is linked twice counts twice."""
    tensors = [file for file in loaded_files(folder) if file.suffix == ".safetensors"]
    return sum(file.stat().st_size for file in tensors)


def loaded_files(folder: Path) -> list[Path]:
    """All files of a directory, links followed as whoever loads them does, in one order.

    Hidden ones are left out: they are what a download keeps for itself. Raises CannotRender for
    what can't be read whole: no directory, nothing in it, a link that leads nowhere or in a circle.
    """
    if not folder.is_dir():
        what = "is no directory" if os.path.lexists(folder) else "does not exist"
        raise CannotRender(f"{folder} {what}: give the directory that holds the weights.")
    found = sorted(_files_below(folder, ()))
    if not found:
        raise CannotRender(f"{folder} holds no files: give the directory that holds the weights.")
    return found


def _files_below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """`above` are the directories that lead here, without links."""
    here = folder.resolve()
    if here in above:
        raise CannotRender(f"{folder} links to {here}, a directory that holds it: remove the link.")
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files_below(path, (*above, here))
        elif path.is_file():
            yield path
        elif path.is_symlink():
            raise CannotRender(
                f"{path} links to {os.readlink(path)}, which is not there: mend or remove the link."
            )
        else:
            raise CannotRender(f"{path} is neither a file nor a directory: remove it.")
