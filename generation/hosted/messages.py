"""What services' messages are written with, and how their answers are read."""

import base64
import io
import re
from typing import Any

from PIL.Image import Image

JOB_ID = re.compile(r"[\w.:-]{1,200}", re.ASCII)
NO_REASON = "it gives no reason."
SERVICE_WORDS_AT_MOST = 500  # characters of the service's own words; some quote the whole request


class UnreadableAnswer(Exception):
    """An answer does not have the form that is documented; the message says what is wrong."""


def png(image: Image) -> str:
    """The image as PNG, in base64."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def data_address(image: Image) -> str:
    return f"data:image/png;base64,{png(image)}"


def at(value: Any, *path: str | int) -> Any:
    """What a message has there, or None."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and len(value) > step else None
    return value


def job_id(answer: Any, *path: str) -> str:
    """The service's own name of the job; it becomes a part of an address."""
    found = at(answer, *path)
    if not (isinstance(found, str) and JOB_ID.fullmatch(found)):
        raise UnreadableAnswer(f"it lacks a usable {'.'.join(path)}")
    return found


def file_address(status: int, answer: Any, *path: str | int) -> str:
    found = at(answer, *path)
    if status != 200 or not isinstance(found, str):
        raise UnreadableAnswer(f"it has no {'.'.join(str(step) for step in path)}")
    return found


def sentence(*words: Any) -> str:
    """The service's words in one line that ends in a full stop."""
    text = " ".join(": ".join(str(word) for word in words if word).split())
    return text[:SERVICE_WORDS_AT_MOST].rstrip(".") + "." if text else NO_REASON
