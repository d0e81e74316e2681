"""The manifest of clips made elsewhere: a CSV file that says which file is which clip.

Spreadsheets of many countries write semicolons or tabs, and people write “File”: the header says
which character separates cells, and in which case its columns are does not matter.
"""

import csv
import io
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generation.backends.registry import IMPORTED
from generation.catalogue.categories import Category
from generation.models import Prompt, Version

NEEDED_COLUMNS = ("file", "version", "prompt", "category")
SEPARATORS = ",;\t"
OPTIONAL_COLUMNS = ("seed_slot", "seconds_taken", "hardware")
HARDWARE_AT_MOST = 120  # characters, as the column has


class ManifestError(Exception):
    """The manifest can't be read as one; nothing was imported."""


class RowRefused(Exception):
    """One row is not imported; the message says why in one sentence."""


@dataclass(frozen=True)
class ManifestRow:
    """A line of the manifest, its cells by column."""

    line: int
    cells: Mapping[str, str]
    whole: bool = True  # as many cells as the header


@dataclass(frozen=True)
class Arrival:
    """A file made elsewhere, the clip it is to become, and how it was made."""

    file: Path
    version: Version
    prompt: Prompt
    category: Category
    seed_slot: int = 0
    seconds_taken: float | None = None
    hardware: str = ""

    @property
    def clip(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "prompt": self.prompt,
            "category": self.category.value,
            "seed_slot": self.seed_slot,
        }

    def __str__(self) -> str:
        return (
            f"{self.file.name} as {self.prompt.key}, {self.category.value}, slot "
            f"{self.seed_slot}, of {self.version.slug}"
        )


def read_manifest(path: Path) -> list[ManifestRow]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{path} can't be read: {error.strerror}.") from None
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, name: str) -> list[ManifestRow]:
    """All rows, so that a manifest which is broken at its end imports nothing."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ManifestError(f"{name} is not UTF-8. Save it as CSV in UTF-8.") from None
    if "\0" in text:
        raise ManifestError(f"{name} contains a NUL character, so it is not a CSV file.")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_separator(text))
    try:
        columns = [column.strip().lower() for column in next(reader, [])]
        _check_columns(name, columns)
        rows = [
            ManifestRow(
                reader.line_num,
                {column: cell.strip() for column, cell in zip(columns, cells, strict=False)},
                len(cells) == len(columns),
            )
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        raise ManifestError(f"{name}, line {reader.line_num}, is not CSV: {error}.") from None
    if not rows:
        raise ManifestError(f"{name} lists no clips. Add one line per file below the header.")
    return rows


def _separator(text: str) -> str:
    """What stands most often in the first line between cells; columns have none in their names."""
    header = text.partition("\n")[0]
    return max(SEPARATORS, key=header.count)


def _check_columns(manifest: str, columns: Sequence[str]) -> None:
    known = f"{', '.join(NEEDED_COLUMNS)} and optionally {', '.join(OPTIONAL_COLUMNS)}"
    allowed = (*NEEDED_COLUMNS, *OPTIONAL_COLUMNS)
    if not any(columns):
        raise ManifestError(
            f"{manifest} has no header. Its first line must name the columns {known}."
        )
    if missing := [name for name in NEEDED_COLUMNS if name not in columns]:
        raise ManifestError(f"{manifest} lacks the column {', '.join(missing)}. It needs {known}.")
    if unknown := [name or "“”" for name in columns if name not in allowed]:
        raise ManifestError(
            f"{manifest} has the unknown column {', '.join(unknown)}. It can have {known}."
        )
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ManifestError(f"{manifest} has the column {', '.join(twice)} twice. Keep one.")


def listed_before(rows: Sequence[ManifestRow]) -> dict[int, int]:
    """Lines that ask for a clip which a line above asks for, each with that line."""
    first: dict[tuple[str, ...], int] = {}
    listed: dict[int, int] = {}
    for row in rows:
        cells = [row.cells.get(name, "") for name in ("version", "prompt", "category")]
        place = (*cells, row.cells.get("seed_slot", "").lstrip("0"))
        if first.setdefault(place, row.line) != row.line:
            listed[row.line] = first[place]
    return listed


def find_arrival(row: ManifestRow, folder: Path) -> Arrival:
    """What the row asks for, or RowRefused with the first thing that is wrong with its words."""
    if not row.whole:
        raise RowRefused(
            "It has more or fewer cells than the header. Quote cells that contain the character "
            "which separates them."
        )
    cells = {**dict.fromkeys(OPTIONAL_COLUMNS, ""), **row.cells}
    version = Version.objects.filter(slug=cells["version"]).first()
    if version is None:
        raise RowRefused(f"There is no version “{cells['version']}”. Load the catalogue first.")
    if version.backend != IMPORTED:
        raise RowRefused(
            f"{version.slug} makes its clips with the backend {version.backend}. Add a version "
            "whose backend is “imported” for files made elsewhere."
        )
    prompt = Prompt.objects.filter(key=cells["prompt"]).first()
    if prompt is None:
        raise RowRefused(f"There is no prompt “{cells['prompt']}”. Load its prompt set first.")
    if cells["category"] not in Category.values:
        raise RowRefused(
            f"There is no category “{cells['category']}”. "
            f"The categories are {', '.join(Category.values)}."
        )
    category = Category(cells["category"])
    if category not in prompt.categories:
        known = ", ".join(prompt.categories)
        raise RowRefused(f"The prompt {prompt.key} is not for {category.value}. It is for {known}.")
    if category.value not in version.categories:
        raise RowRefused(f"{version.slug} does not make {category.value}.")
    return Arrival(
        _file_inside(folder, cells["file"]),
        version,
        prompt,
        category,
        _slot(cells["seed_slot"]),
        _seconds_taken(cells["seconds_taken"]),
        _hardware(cells["hardware"]),
    )


def _file_inside(folder: Path, name: str) -> Path:
    """The file, its links followed; nothing outside the manifest's folder is ever opened."""
    try:
        path = _as_spelled(folder, name).resolve()
        inside, there = path.is_relative_to(folder), path.is_file()
    except (OSError, RuntimeError) as error:  # rights, a name too long, links in a circle
        raise RowRefused(
            f"{name} can't be opened ({error}). Check its name and permissions."
        ) from None
    if not inside:
        raise RowRefused(f"{name} is outside the manifest's folder. Move it there.")
    if not there:
        raise RowRefused(f"There is no file “{name}” beside the manifest. Add it.")
    return path


def one_spelling(name: str) -> str:
    """macOS takes letters with accents apart, most others don't; both look the same."""
    return unicodedata.normalize("NFC", name)


def _as_spelled(folder: Path, name: str) -> Path:
    """The file of that name, or one whose name is the same in another spelling."""
    path = folder / name
    if path.exists() or ".." in path.parts or not path.is_relative_to(folder):
        return path
    for part in path.relative_to(folder).parts:
        there = folder.iterdir() if folder.is_dir() and not (folder / part).exists() else ()
        alike = (other.name for other in there if one_spelling(other.name) == one_spelling(part))
        folder = folder / next(alike, part)
    return folder


def _slot(cell: str) -> int:
    if not re.fullmatch(r"\d{0,4}", cell, re.ASCII):
        raise RowRefused(f"The seed_slot is “{cell}”. Give a whole number from 0, or nothing.")
    return int(cell or 0)


def _seconds_taken(cell: str) -> float | None:
    if not cell:
        return None
    try:
        seconds = float(cell)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise RowRefused(f"The seconds_taken is “{cell}”. Give seconds such as 41.5, or nothing.")
    return seconds


def _hardware(cell: str) -> str:
    if len(cell) > HARDWARE_AT_MOST or not cell.isprintable():
        raise RowRefused(f"The hardware must be one line of at most {HARDWARE_AT_MOST} characters.")
    return cell
