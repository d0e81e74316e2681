"""Reads the catalogue of models and versions into the database, as often as one likes.

Here is also what a version must meet before it is activated and before a clip of it is queued: the
terms of its categories, what it declares of itself, and what its backend can do.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models, transaction
from PIL import Image

from generation.backends import CannotRender, NeverRenders, Request
from generation.backends.registry import IMPORTED, load_backend
from generation.catalogue.categories import (
    Category,
    Conditions,
    nearest_aspect,
    ratio,
    resolution_class,
)
from generation.models import RENDERED_STATES, Clip, Model, Version, VersionState

CATALOGUE = Path(__file__).with_name("catalogue.toml")
CATALOGUES = (CATALOGUE, Path(__file__).with_name("open.toml"))
# Every backend can read it, those of the small world too.
SAMPLE_TEXT = "a big red circle bounces by day"
SAMPLE_PIXELS = 640  # every aspect is cut exactly; some services take no side below 300
MODEL_FIELDS = {
    "slug", "name", "lab", "weights", "licence", "released_on", "links", "description", "in_house",
}  # fmt: skip
VERSION_FIELDS = {
    "slug", "name", "codename", "revealed_on", "state", "backend", "settings",
    "categories", "width", "height", "fps", "min_seconds", "max_seconds", "price_per_second",
    "released_on", "availability",
}  # fmt: skip


class CatalogueError(Exception):
    """The catalogue can't be loaded; nothing was changed. `field` is the entry's field that is
    wrong, empty where it is the entry as a whole."""

    def __init__(self, sentence: str, field: str = "") -> None:
        super().__init__(sentence)
        self.field = field


class SlugTaken(CatalogueError):
    """Another version has the slug."""


@dataclass
class LoadCounts:
    created: int = 0
    changed: int = 0
    same: int = 0


def read_toml(path: Path) -> dict[str, Any]:
    """The file's contents; CatalogueError with one sentence when there is none or it is broken."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogueError(f"{path} can't be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path} is not valid TOML: {error}.") from None


def load_catalogue(*paths: Path) -> LoadCounts:
    """Create or update every model and version named in the files, all or nothing.

    Without files it is the repository's own catalogue. Entries that left a file stay in the
    database: their clips and votes are history.
    """
    documents, counts = [read_toml(path) for path in paths or CATALOGUES], LoadCounts()
    with transaction.atomic():
        for entry in (entry for document in documents for entry in document.get("model", [])):
            versions = entry.pop("version", [])
            model = _apply(Model, entry, MODEL_FIELDS, {}, counts)
            for fields in versions:
                parent = fields.pop("parent", None)
                links = {
                    "model_id": model.pk,
                    "parent_id": _parent(parent, fields.get("slug")).pk if parent else None,
                }
                version = _apply(Version, fields, VERSION_FIELDS, links, counts)
                if version.state in RENDERED_STATES:
                    _check_rendered(version)
    return counts


def _check_rendered(version: Version) -> None:
    try:
        check_version(version)
    except CannotRender as error:
        state = version.get_state_display().lower()
        raise CatalogueError(f"The version {version.slug} can't be {state}: {error}") from None


def enter_version(model: str, parent: str, fields: Mapping[str, Any]) -> tuple[Version, bool]:
    """Enter a version that no file lists, on trial; returns it and whether it is new.

    Entering the same again finds it, whatever its state is by now. Raises SlugTaken if another has
    the slug, CatalogueError if it is not valid or could not compete in one of its categories.
    """
    of = Model.objects.filter(slug=model).first()
    if of is None:
        raise CatalogueError(
            f"There is no model “{model}”: enter it in the catalogue first.", "model"
        )
    links = {
        "model_id": of.pk,
        "parent_id": _parent(parent, fields["slug"]).pk if parent else None,
    }
    known = Version.objects.filter(slug=fields["slug"]).first()
    if known is not None:
        if differing := _set_fields(known, {**fields, **links}, links):
            raise SlugTaken(
                f"There is a version {known.slug} already, which differs in "
                f"{', '.join(differing)}: give the new one a slug of its own."
            )
        return known, False
    with transaction.atomic():
        on_trial = {**fields, "state": VersionState.TRIAL}
        version: Version = _apply(Version, on_trial, VERSION_FIELDS, links, LoadCounts())
        try:
            _check_rendered(version)
        except (TypeError, AttributeError) as error:  # the checks are for settings in earnest
            raise CatalogueError(f"A value is of the wrong kind: {error}.", "settings") from None
    return version, True


def _parent(slug: str, child: str | None) -> Version:
    try:
        return Version.objects.get(slug=slug)
    except Version.DoesNotExist:
        raise CatalogueError(
            f"Version {child} names the parent “{slug}”, which does not exist: enter it first.",
            "parent",
        ) from None


def _apply(
    kind: type[Any],
    entry: Mapping[str, Any],
    allowed: set[str],
    links: Mapping[str, int | None],
    counts: LoadCounts,
) -> Any:
    """Bring the row with the entry's slug to what the entry says."""
    what = kind.__name__.lower()
    slug = entry.get("slug")
    if not slug:
        raise CatalogueError(f"A {what} has no slug: {dict(entry)}.")
    if unknown := set(entry) - allowed:
        raise CatalogueError(
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
    changed = _set_fields(row, wanted, links)
    if not new and not changed:
        counts.same += 1
        return row
    if isinstance(row, Version) and not new:
        refuse_frozen_change(row, changed)
    try:
        row.full_clean(validate_unique=False)
    except ValidationError as error:
        problems = "; ".join(
            f"{name}: {' '.join(messages)}" for name, messages in error.message_dict.items()
        )
        field = next(iter(error.message_dict))
        raise CatalogueError(f"The {what} {slug} is not valid: {problems}", field) from None
    row.save()
    counts.created += new
    counts.changed += not new
    return row


def _set_fields(row: Any, wanted: Mapping[str, Any], links: Mapping[str, int | None]) -> list[str]:
    """Give the row these values, without saving it; returns which fields had others."""
    # Compare as the database would hold them: through each field's own conversion.
    changed = []
    for name, value in wanted.items():
        field = row._meta.get_field(name)
        if isinstance(value, float) and isinstance(field, models.DecimalField):
            value = str(value)  # as it is written, not as the processor rounds it
        value = value if name in links else field.to_python(value)
        if getattr(row, name) != value:
            changed.append(field.attname)
            setattr(row, name, value)
    return changed


def refuse_frozen_change(version: Version, changed: list[str]) -> None:
    """A version with clips may not change in what determines them."""
    frozen = sorted(set(changed) & set(Version.FROZEN))
    if frozen and Clip.objects.filter(version=version).exists():
        raise CatalogueError(
            f"The version {version.slug} has clips, so its {', '.join(frozen)} can't change: "
            "enter the change as a new version."
        )


def check_version(version: Version) -> None:
    """CannotRender if the version could not compete in one of its categories.

    Tried are the shortest and the longest clip it declares, of the aspect nearest to its own.
    """
    comes_as_files = version.backend == IMPORTED  # and its settings are a note
    if not comes_as_files:
        _check_agreement(version)
    aspect = nearest_aspect(version.width, version.height)
    for category in (Category(value) for value in version.categories):
        for seconds in (version.min_seconds, version.max_seconds):
            request = Request(
                SAMPLE_TEXT,
                Conditions(aspect, seconds),
                category.audio,
                seed=0,
                image=_sample_image(aspect) if category.task == "i2v" else None,
            )
            check_terms(version, category, request.conditions)
            if not comes_as_files:
                load_backend(version.backend).check(version.settings, request)


def _sample_image(aspect: str) -> Image.Image:
    """Any picture of the aspect: checks look at its size alone."""
    height = round(SAMPLE_PIXELS / max(1, ratio(aspect)))
    width = round(SAMPLE_PIXELS * min(1, ratio(aspect)))
    return Image.new("RGB", (width, height))


def _check_agreement(version: Version) -> None:
    """What stands both in the catalogue's fields and in the settings stands there alike."""
    for name in ("width", "height", "fps"):
        declared, set_to = getattr(version, name), version.settings.get(name)
        if set_to is not None and set_to != declared:
            raise CannotRender(
                f"Its {name} is {declared:g} in the catalogue and {set_to!r} in its settings: "
                "they must agree."
            )


def check_clip(version: Version, category: Category, request: Request) -> None:
    """CannotRender if the version can't make this clip as everybody else makes it."""
    load_backend(version.backend).check(version.settings, request)
    check_terms(version, category, request.conditions)


def check_terms(version: Version, category: Category, conditions: Conditions) -> None:
    """The category's terms, and the lengths that the version declares."""
    least, most = category.terms.fps
    if not least <= version.fps <= most:
        raise NeverRenders(
            f"It makes {version.fps:g} frames a second; {category.value} asks for {least:g} to "
            f"{most:g}."
        )
    made = resolution_class(version.width, version.height)
    admitted = category.terms.resolutions[conditions.aspect]
    if made not in admitted:
        raise CannotRender(
            f"Its {version.width}x{version.height} pixels are of the class {made}; "
            f"{category.value} at {conditions.aspect} asks for {', '.join(admitted)}."
        )
    if not version.min_seconds <= conditions.seconds <= version.max_seconds:
        raise CannotRender(
            f"It makes clips of {version.min_seconds:g} to {version.max_seconds:g} s, not of "
            f"{conditions.seconds:g} s."
        )
