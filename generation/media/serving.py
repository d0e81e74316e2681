"""Hands out stored files, in parts where a browser asks for parts (RFC 9110, section 14)."""

import re
from pathlib import PurePath
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from generation.media.storage import media_storage

TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg", ".webp": "image/webp"}
# One range with at least one end, of a sane length; any other header is ignored, as it may be.
RANGE = re.compile(r"bytes=(?=\d|-\d)(\d{0,15})-(\d{0,15})", re.ASCII)


def send_file(request: HttpRequest, name: str) -> HttpResponseBase:
    """The stored file `name`. The answer names neither file nor time, which could tell versions
    apart; it may be kept by the asking browser only.

    Of the storage its size is asked for, and then the bytes that are sent. With ACCEL_REDIRECT the
    proxy is told which file to send, and sends it with its ranges; it passes that header on to
    nobody.
    """
    storage = media_storage()
    size = storage.size(name)
    headers = {"Cache-Control": "private, max-age=3600, immutable"}
    kind = TYPES[PurePath(name).suffix]
    if settings.ACCEL_REDIRECT:
        headers["X-Accel-Redirect"] = settings.ACCEL_REDIRECT + quote(name)
        return HttpResponse(content_type=kind, headers=headers)
    first, last, status = 0, size - 1, 200
    asked = request.headers.get("Range", "") if request.method == "GET" else ""
    if match := RANGE.fullmatch(asked):
        span = _span(match[1], match[2], size)
        if span is None:
            return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
        (first, last), status = span, 206
    response = StreamingHttpResponse(
        storage.read_part(name, first, last - first + 1),
        status=status,
        content_type=kind,
        headers={
            **headers,
            "Accept-Ranges": "bytes",
            "Content-Length": str(last - first + 1),
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
