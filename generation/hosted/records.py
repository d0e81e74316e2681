"""What is kept of a message: no key, no picture, and not too long."""

import json
import math
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

SECRET_HEADERS = ("authorization", "x-goog-api-key")
PNG = "iVBORw0KGgo"  # how a PNG file begins in base64
KEPT_CHARACTERS = 4000


def clean_text(value: str, headers: Mapping[str, str] | None = None) -> str:
    """Words as the database takes them, without the key should a service have quoted it."""
    for secret in _secrets(headers):
        value = value.replace(secret, "[key]")
    return value.replace("\0", "").encode("utf-8", "replace").decode()


def clean_message(message: Any, headers: Mapping[str, str] | None = None) -> Any:
    """A message for its job: images by their SHA-256, no key, not too long."""

    def clean(item: Any) -> Any:
        if isinstance(item, str):
            if item.startswith(("data:", PNG)):
                kind = "data:image/png;base64" if item.startswith(PNG) else item.split(",")[0]
                return f"{kind},sha256:{sha256(item.encode()).hexdigest()}"
            return clean_text(item, headers)
        if isinstance(item, float) and not math.isfinite(item):
            return str(item)
        if isinstance(item, Mapping):
            return {clean(str(key)): clean(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [clean(inner) for inner in item]
        return item

    cleaned = clean(message)
    text = json.dumps(cleaned)
    if len(text) > KEPT_CHARACTERS:
        return {"shortened": text[:KEPT_CHARACTERS]}
    return {} if cleaned is None else cleaned


def _secrets(headers: Mapping[str, str] | None) -> list[str]:
    """Whole header values and their last words: “Key abc…” and “abc…”."""
    values = [v for name, v in (headers or {}).items() if name.lower() in SECRET_HEADERS]
    return [text for value in values for text in (value, value.split()[-1])]
