"""The `open` prompt set and the pictures it starts from."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
PROMPT_SETS = ROOT / "generation" / "catalogue" / "prompt_sets"
IMAGES = PROMPT_SETS / "images"
TAGS = {
    "single-subject",
    "multi-element",
    "atmospheric",
    "multi-character",
    "camera",
    "physics",
    "text-in-image",
    "product-still",
    "ambient",
    "foley",
    "speech",
}
AUDIO_ONLY = {"ambient", "foley", "speech"}
LANGUAGES = {"en", "zh", "es", "de", "fr", "ja", "hi", "ar", "pt", "ko"}
PICTURES = sorted(path.stem for path in (IMAGES / "open").glob("*.webp"))
PICTURE_BYTES = 90_000  # they travel with the repository, so each stays small


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return tomllib.loads((PROMPT_SETS / "open.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def prompts(document: dict[str, Any]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = document["prompt"]
    return listed


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_a_small_widescreen_webp(name: str) -> None:
    path = IMAGES / "open" / f"{name}.webp"
    assert path.stat().st_size <= PICTURE_BYTES
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("WEBP", (1280, 720))
        assert np.asarray(picture.convert("L")).std() > 8.0, f"{name} is nearly one colour"


def test_prompt_set_header(document: dict[str, Any]) -> None:
    header = {key: value for key, value in document.items() if key != "prompt"}
    assert header.pop("description").endswith(".")
    assert header == {
        "slug": "open",
        "name": "Open prompts",
        "aspect": "16:9",
        "seconds": 5,
        "seed_slots": 1,
    }


def test_keys_and_texts_are_unique(prompts: list[dict[str, Any]]) -> None:
    keys = [prompt["key"] for prompt in prompts]
    texts = [prompt["text"] for prompt in prompts]
    assert len(keys) >= 140
    assert len(set(keys)) == len(keys)
    assert len(set(texts)) == len(texts)
    assert all(re.fullmatch(r"open-\d{3}", key) for key in keys)


def test_every_prompt_obeys_the_format(prompts: list[dict[str, Any]]) -> None:
    for prompt in prompts:
        key = prompt["key"]
        assert set(prompt) <= {"key", "text", "language", "tags", "sound", "image"}, key
        assert prompt["text"] == prompt["text"].strip(), key
        assert 20 <= len(prompt["text"]) <= 400, key
        assert prompt["language"] in LANGUAGES, key
        tags = prompt["tags"]
        assert tags, key
        assert set(tags) <= TAGS, key
        assert len(set(tags)) == len(tags), key
        heard = bool(AUDIO_ONLY & set(tags))
        assert prompt.get("sound", ["silent", "audio"]) == (
            ["audio"] if heard else ["silent", "audio"]
        ), key
        if "image" in prompt:
            assert (IMAGES / prompt["image"]).is_file(), key


def test_texts_are_written_in_their_language(prompts: list[dict[str, Any]]) -> None:
    scripts = {
        "zh": r"[\u4e00-\u9fff]",
        "ja": r"[\u3040-\u30ff]",
        "ko": r"[\uac00-\ud7af]",
        "hi": r"[\u0900-\u097f]",
        "ar": r"[\u0600-\u06ff]",
    }
    for prompt in prompts:
        for language, script in scripts.items():
            found = re.search(script, prompt["text"]) is not None
            if language == prompt["language"]:
                assert found, prompt["key"]
            elif prompt["language"] != "ja":  # Japanese shares its characters with Chinese
                assert not found, prompt["key"]


def test_spoken_lines_are_quoted(prompts: list[dict[str, Any]]) -> None:
    quoted = r'"[^"]+"|“[^”]+”|„[^“]+“|«[^»]+»|「[^」]+」'
    for prompt in prompts:
        if "speech" in prompt["tags"]:
            assert re.search(quoted, prompt["text"]), prompt["key"]


def test_the_set_covers_tags_languages_and_pictures(prompts: list[dict[str, Any]]) -> None:
    tags = Counter(tag for prompt in prompts for tag in prompt["tags"])
    assert {tag: tags[tag] for tag in TAGS if tags[tag] < 10} == {}
    languages = Counter(prompt["language"] for prompt in prompts)
    assert set(languages) == LANGUAGES
    assert 0.65 <= languages["en"] / len(prompts) <= 0.80
    images = Counter(prompt["image"] for prompt in prompts if "image" in prompt)
    assert sum(images.values()) >= 24
    assert set(images) == {f"open/{name}.webp" for name in PICTURES}
    assert max(images.values()) <= 2
