"""Hands out stored files, in parts where a browser asks for parts (RFC 9110, section 14)."""

import re
from collections.abc import Iterator
from pathlib import PurePath

from django.core.files.base import File
from django.core.files.storage import default_storage
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg", ".webp": "image/webp"}
CHUNK = 64 * 1024
# One range with at least one end, of a sane length; any other header is ignored, as it may be.
RANGE = re.compile(r"bytes=(?=\d|-\d)(\d{0,15})-(\d{0,15})", re.ASCII)


def send_file(request: HttpRequest, name: str) -> HttpResponseBase:
    """The stored file `name`. The answer names neither file nor time, which could tell versions
    apart; it may be kept by the asking browser only."""
    file = default_storage.open(name)
    size = file.size
    first, last, status = 0, size - 1, 200
    if match := RANGE.fullmatch(request.headers.get("Range", "")):
        span = _span(match[1], match[2], size)
        if span is None:
            file.close()
            return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
        (first, last), status = span, 206
    response = StreamingHttpResponse(
        _chunks(file, first, last - first + 1),
        status=status,
        content_type=TYPES[PurePath(name).suffix],
        headers={
            "Accept-Ranges": "bytes",
            "Content-Length": str(last - first + 1),
            "Cache-Control": "private, max-age=3600, immutable",
            "X-Content-Type-Options": "nosniff",
        },
    )
    if status == 206:
        response.headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return response


def _span(begin: str, end: str, size: int) -> tuple[int, int] | None:
    """First and last byte of the range; None when nothing of it is in the file."""
    if not begin:  # the last so many bytes
        first, last = max(0, size - int(end)), size - 1
    else:
        first, last = int(begin), min(int(end), size - 1) if end else size - 1
    return (first, last) if first <= last else None


def _chunks(file: File, first: int, length: int) -> Iterator[bytes]:
    with file:
        file.seek(first)
        while length > 0 and (chunk := file.read(min(CHUNK, length))):
            length -= len(chunk)
            yield chunk
