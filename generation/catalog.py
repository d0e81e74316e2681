"""Reads the catalogue of models and versions into the database, as often as one likes."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models, transaction

from generation.models import Clip, Model, Version

CATALOG = Path(__file__).with_name("catalog.toml")
MODEL_FIELDS = {
    "slug", "name", "lab", "weights", "licence", "released_on", "links", "description", "in_house",
}  # fmt: skip
VERSION_FIELDS = {
    "slug", "name", "codename", "revealed_on", "state", "backend", "settings",
    "categories", "width", "height", "fps", "min_seconds", "max_seconds", "price_per_second",
    "released_on", "availability",
}  # fmt: skip


class CatalogError(Exception):
    """The catalogue can't be loaded; nothing was changed."""


@dataclass
class Loaded:
    created: int = 0
    changed: int = 0
    same: int = 0


def read_toml(path: Path) -> dict[str, Any]:
    """The file's contents; CatalogError with one sentence when there is none or it is broken."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogError(f"{path} can't be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path} is not valid TOML: {error}.") from None


def load_catalog(path: Path = CATALOG) -> Loaded:
    """Create or update every model and version named in the file, all or nothing.

    Entries that left the file stay in the database: their clips and votes are history.
    """
    document, loaded = read_toml(path), Loaded()
    with transaction.atomic():
        for entry in document.get("model", []):
            versions = entry.pop("version", [])
            model = _apply(Model, entry, MODEL_FIELDS, {}, loaded)
            for fields in versions:
                parent = fields.pop("parent", None)
                links = {
                    "model_id": model.pk,
                    "parent_id": _parent(parent, fields.get("slug")).pk if parent else None,
                }
                _apply(Version, fields, VERSION_FIELDS, links, loaded)
    return loaded


def _parent(slug: str, child: str | None) -> Version:
    try:
        return Version.objects.get(slug=slug)
    except Version.DoesNotExist:
        raise CatalogError(
            f"Version {child} names the parent “{slug}”, which does not exist: list it first."
        ) from None


def _apply(
    kind: type[Any],
    entry: Mapping[str, Any],
    allowed: set[str],
    links: Mapping[str, int | None],
    loaded: Loaded,
) -> Any:
    """Bring the row with the entry's slug to what the entry says."""
    what = kind.__name__.lower()
    slug = entry.get("slug")
    if not slug:
        raise CatalogError(f"A {what} has no slug: {dict(entry)}.")
    if unknown := set(entry) - allowed:
        raise CatalogError(
            f"The {what} {slug} has the unknown field {', '.join(sorted(unknown))}; known are "
            f"{', '.join(sorted(allowed))}."
        )
    row = kind.objects.filter(slug=slug).first()
    new = row is None
    if row is None:
        row = kind(slug=slug)
    wanted = {**entry, **links}
    if not new:
        wanted.pop("state", None)  # pausing, retiring and activating are the operators'
    # Compare as the database would hold them: through each field's own conversion.
    changed = []
    for name, value in wanted.items():
        field = kind._meta.get_field(name)
        if isinstance(value, float) and isinstance(field, models.DecimalField):
            value = str(value)  # as it is written, not as the processor rounds it
        value = value if name in links else field.to_python(value)
        if getattr(row, name) != value:
            changed.append(field.attname)
            setattr(row, name, value)
    if not new and not changed:
        loaded.same += 1
        return row
    if isinstance(row, Version) and not new:
        refuse_frozen_change(row, changed)
    try:
        row.full_clean(validate_unique=False)
    except ValidationError as error:
        problems = "; ".join(
            f"{name}: {' '.join(messages)}" for name, messages in error.message_dict.items()
        )
        raise CatalogError(f"The {what} {slug} is not valid: {problems}") from None
    row.save()
    loaded.created += new
    loaded.changed += not new
    return row


def refuse_frozen_change(version: Version, changed: list[str]) -> None:
    """A version with clips may not change in what determines them."""
    frozen = sorted(set(changed) & set(Version.FROZEN))
    if frozen and Clip.objects.filter(version=version).exists():
        raise CatalogError(
            f"The version {version.slug} has clips, so its {', '.join(frozen)} can't change: "
            "enter the change as a new version."
        )
