"""Documents in which a bench writes between two markers."""

import sys
from pathlib import Path

METHODOLOGY = Path(__file__).resolve().parents[1] / "docs" / "methodology.md"


def around_markers(path: Path, begin: str, end: str) -> tuple[str, str]:
    """The text before and after what stands between the markers, or one sentence and the end."""
    if not path.is_file():
        sys.exit(f"{path} does not exist; name the file that has the two markers with --into.")
    before, found_begin, rest = path.read_text(encoding="utf-8").partition(f"{begin}\n")
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        sys.exit(f"{path} lacks the lines {begin} and {end}, in this order; put them in.")
    return before + found_begin, found_end + after
