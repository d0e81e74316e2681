"""The backend “imported”: no renderer at all, as the clips of such a version are files."""

from collections.abc import Mapping
from typing import Any, NoReturn

from generation.backends import NeverRenders, Request


def check(settings: Mapping[str, Any], request: Request) -> NoReturn:
    """Whatever is asked; the settings are free, a note of how the files were made."""
    raise NeverRenders(
        "Its clips were made elsewhere and can't be rendered here: "
        "bring them in with manage.py import_clips or upload them in /admin/."
    )
