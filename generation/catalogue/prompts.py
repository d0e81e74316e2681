"""Reads prompt sets from files, checks reference images, and freezes what has been used."""

import hashlib
import io
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.files.base import ContentFile
from django.db import transaction
from PIL import Image, ImageOps, UnidentifiedImageError

from generation.backends.scenes.grammar import NotAScene, parse
from generation.catalogue.categories import ASPECTS
from generation.catalogue.entries import CatalogueError, read_toml
from generation.models import Clip, Prompt, PromptSet, PromptSetEntry, ReferenceImage

FOLDER = Path(__file__).with_name("prompt_sets")
IMAGE_PIXELS_AT_MOST = 16_000_000
FORMATS = ("JPEG", "PNG", "WEBP")
SCENE_IMAGE = "scene"  # a prompt file's word for "the first frame our own renderer draws"
SCENE_PIXELS = 512
PROMPT_FIELDS = {"key", "text", "language", "tags", "sound", "image", "aspect", "seconds"}


class ImageRefused(ValueError):
    """The file can't be a reference image; the message is one sentence for whoever gave it."""


@dataclass(frozen=True)
class CheckedImage:
    """A reference image as we keep it: WebP without metadata, upright, RGB."""

    data: bytes
    width: int
    height: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def check_image(data: bytes, name: str) -> CheckedImage:
    """Validate by content and re-encode losslessly, so that nothing but pixels is kept."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > IMAGE_PIXELS_AT_MOST:
                raise ImageRefused(
                    f"{name} has {image.width}×{image.height} pixels; at most 16 megapixels are "
                    "taken: scale it down."
                )
            if getattr(image, "n_frames", 1) > 1:
                raise ImageRefused(f"{name} is an animation; give a still image.")
            image.load()
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        raise ImageRefused(f"{name} is not a JPEG, PNG or WebP image.") from None
    except Image.DecompressionBombError:
        raise ImageRefused(
            f"{name} has too many pixels; at most 16 megapixels are taken."
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ImageRefused):
            raise
        raise ImageRefused(f"{name} is damaged: {error}.") from None
    return encode_image(upright)


def encode_image(image: Image.Image) -> CheckedImage:
    """An RGB image as lossless WebP."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, method=0, exact=True)
    return CheckedImage(buffer.getvalue(), image.width, image.height)


def store_image(image: CheckedImage, source: str, note: str) -> ReferenceImage:
    """The row of this image; the same pixels are stored once."""
    row = ReferenceImage.objects.filter(sha256=image.sha256).first()
    if row is None:
        row = ReferenceImage(
            sha256=image.sha256, width=image.width, height=image.height, source=source, note=note
        )
        row.file.save(f"{image.sha256[:24]}.webp", ContentFile(image.data), save=True)
    elif not row.file.storage.exists(str(row.file)):
        row.file.storage.save(str(row.file), ContentFile(image.data))
    return row


def load_prompt_set(path: Path) -> tuple[PromptSet, str]:
    """Bring one prompt set to what its file says; returns it and created, changed or same."""
    document = read_toml(path)
    for field in ("slug", "name", "aspect", "seconds", "prompt"):
        if field not in document:
            raise CatalogueError(f"{path.name} lacks “{field}”.")
    slug, entries = document["slug"], document["prompt"]
    if document["aspect"] not in ASPECTS:
        raise CatalogueError(f"{path.name}: aspect must be one of {', '.join(ASPECTS)}.")
    if repeated := _repeated([entry.get("key", "") for entry in entries]):
        raise CatalogueError(f"{path.name}: the key “{repeated}” stands there twice.")
    digest = hashlib.sha256(
        json.dumps(document, sort_keys=True, ensure_ascii=False).encode()
    ).hexdigest()
    known = PromptSet.objects.filter(slug=slug).first()
    if known and known.digest == digest:
        return known, "same"
    if known and Clip.objects.filter(prompt__sets=known).exists():
        raise CatalogueError(
            f"The prompt set “{slug}” is frozen because clips were made for it, but {path.name} "
            "has changed: put the change under a new slug with new keys."
        )
    with transaction.atomic():
        prompt_set, created = PromptSet.objects.update_or_create(
            slug=slug,
            defaults={
                "name": document["name"],
                "description": document.get("description", ""),
                "seed_slots": document.get("seed_slots", 1),
                "digest": digest,
            },
        )
        keys = [entry.get("key") for entry in entries]
        known_prompts = Prompt.objects.filter(key__in=keys).in_bulk(field_name="key")
        prompts = [_read_prompt(path, document, entry, known_prompts) for entry in entries]
        Prompt.objects.bulk_create(prompt for prompt in prompts if prompt.pk is None)
        prompt_set.entries.all().delete()
        PromptSetEntry.objects.bulk_create(
            PromptSetEntry(prompt_set=prompt_set, prompt=prompt, position=position)
            for position, prompt in enumerate(prompts)
        )
    return prompt_set, "created" if created else "changed"


def _repeated(keys: list[str]) -> str | None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return None


def _read_prompt(
    path: Path, document: dict[str, Any], entry: dict[str, Any], known: dict[str, Prompt]
) -> Prompt:
    """The entry as a prompt: a new one unsaved, a known one brought to what the entry says."""
    key = entry.get("key")
    if not key or not entry.get("text"):
        raise CatalogueError(f"{path.name}: a prompt lacks its key or its text: {entry}.")
    if unknown := set(entry) - PROMPT_FIELDS:
        raise CatalogueError(
            f"{path.name}: prompt {key} has the unknown field {sorted(unknown)[0]}."
        )
    image = entry.get("image")
    prompt = Prompt(
        key=key,
        text=entry["text"],
        language=entry.get("language", "en"),
        tags=entry.get("tags", []),
        sounds=entry.get("sound", ["silent", "audio"]),
        aspect=entry.get("aspect", document["aspect"]),
        seconds=float(entry.get("seconds", document["seconds"])),
        image=_shipped_image(path, image, entry["text"], key) if image else None,
    )
    try:
        prompt.clean_fields()
    except ValidationError as error:
        raise CatalogueError(f"{path.name}: prompt {key}: {error.message_dict}.") from None
    if (old := known.get(key)) is None:
        return prompt
    fields = ("text", "language", "tags", "sounds", "image_id", "aspect", "seconds")
    changed = [name for name in fields if getattr(old, name) != getattr(prompt, name)]
    if changed and old.clips.exists():
        raise CatalogueError(
            f"{path.name}: the prompt {key} has clips, so its {', '.join(changed)} can't "
            "change: give the new wording a new key."
        )
    if changed:
        prompt.pk = old.pk
        prompt.save()
        return prompt
    return old


def _shipped_image(path: Path, name: str, text: str, key: str) -> ReferenceImage:
    shipped = ReferenceImage.Source.SHIPPED
    if name == SCENE_IMAGE:
        try:
            image = _scene_image(text)
        except NotAScene as error:
            raise CatalogueError(f"{path.name}: prompt {key}: {error}") from None
        return store_image(image, shipped, f"first frame of: {text}"[:200])
    file = path.parent / "images" / name
    try:
        image = check_image(file.read_bytes(), name)
    except (OSError, ImageRefused) as error:
        raise CatalogueError(f"{path.name}: prompt {key}: image {name}: {error}") from None
    return store_image(image, shipped, name)


@lru_cache(maxsize=8)
def _scene_image(text: str) -> CheckedImage:
    from generation.backends.scenes.renderer import first_frame  # numpy: not on a web host

    return encode_image(Image.fromarray(first_frame(text, parse(text), SCENE_PIXELS)))
