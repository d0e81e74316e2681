"""Messages to paid services, and files from them, within limits of size and time.

What goes wrong is one of three: nothing was sent (MessageNotSent), nobody knows what became of it
(NoAnswer), or what came is not what was asked for (UnreadableAnswer). Only the first of them says
that an order was surely not taken.
"""

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from django.conf import settings
from django.utils import timezone
from urllib3.exceptions import MaxRetryError, NewConnectionError

from generation.hosted.messages import UnreadableAnswer
from generation.outgoing import AddressRefused, HostUnknown, open_session

CONNECT_SECONDS = 5
ANSWER_BYTES = 1 << 20
LONGEST_WAIT = 3600  # s; a Retry-After beyond it is not believed
FILE_BYTES = 500 << 20  # a minute of 4K at 60 Mbit/s
DOWNLOAD_SECONDS = 300
REDIRECTS = 5
PASSING = (408, 409, 425, 429)  # of the answers in the four hundreds, those that may pass
# How a file begins, by which it is told from words about it; the decoder says whether it is good.
HEAD_BYTES = 512
QUICKTIME, MATROSKA = b"ftypqt", b"\x1a\x45\xdf\xa3"


class MessageNotSent(Exception):
    """No connection was made: nothing can have arrived."""


class NoAnswer(Exception):
    """Something was sent, and what became of it is not known."""


@dataclass(frozen=True)
class Reply:
    status: int
    retry_after: float | None  # s
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_final(self) -> bool:
        """Whether asking the same again would be answered the same: the request itself is no good,
        the key is, or nothing is there."""
        return 400 <= self.status < 500 and self.status not in PASSING

    def text(self) -> str:
        """The answer as words; nothing if it is a page or no text."""
        return "" if self.body.lstrip()[:1] in (b"<", b"") else self.body.decode(errors="replace")

    def json(self) -> Any:
        """The answer, or None if it is not JSON."""
        try:
            return json.loads(self.body, parse_constant=str)
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True)
class FetchedFile:
    path: Path
    is_whole: bool  # its end was announced and came


def send(
    method: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any] | None = None
) -> Reply:
    """Send one message with the key; it follows no redirect, as the key would go along."""
    with _request(method, url, headers=dict(headers), json=body) as answer:
        content = b"".join(_chunks(answer, ANSWER_BYTES, settings.HOSTED_TIMEOUT_SECONDS))
        return Reply(answer.status_code, _retry_after(answer), content)


def download(url: str, folder: Path, key: Mapping[str, str], own_url: str) -> FetchedFile:
    """Copy a file; the key, if it needs one, is sent only to the host of `own_url`."""
    with _open_file(url, key, own_url) as answer:
        if answer.status_code != 200:
            gone = (403, 404, 410)
            expired = " (the address may have expired)" if answer.status_code in gone else ""
            raise UnreadableAnswer(f"its address answers {answer.status_code}{expired}")
        announced = answer.headers.get("Content-Length", "")
        chunked = answer.headers.get("Transfer-Encoding", "").lower() == "chunked"
        draft = folder / "result"
        with draft.open("wb") as file:
            for chunk in _chunks(answer, FILE_BYTES, DOWNLOAD_SECONDS):
                file.write(chunk)
    size = draft.stat().st_size
    if announced.isdigit() and size != int(announced):
        raise UnreadableAnswer(f"it ended after {size} of {announced} bytes")
    with draft.open("rb") as file:
        suffix = _suffix(file.read(HEAD_BYTES))
    return FetchedFile(draft.rename(draft.with_suffix(suffix)), announced.isdigit() or chunked)


def _suffix(head: bytes) -> str:
    """What the file is called by, from its first bytes: services name types as they like."""
    words = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not words:
        raise UnreadableAnswer("it is empty")
    if words[:1] == b"<":
        raise UnreadableAnswer("it is a web page, not a video")
    if words[:1] in (b"{", b"["):
        raise UnreadableAnswer("it is JSON, not a video")
    if head[4:10] == QUICKTIME:
        return ".mov"
    if head.startswith(MATROSKA):
        return ".webm" if b"webm" in head[:64] else ".mkv"
    return ".mp4"


def is_same_host(url: str, own_url: str) -> bool:
    try:
        given, own = (
            (parts.scheme, parts.hostname, parts.port) for parts in map(urlsplit, (url, own_url))
        )
    except ValueError:
        raise UnreadableAnswer("it names an address that is none") from None
    return given == own


@contextmanager
def _open_file(url: str, key: Mapping[str, str], own_url: str) -> Iterator[requests.Response]:
    """The file, wherever its address leads."""
    for _ in range(REDIRECTS):
        if urlsplit(url).scheme not in ("http", "https"):
            raise UnreadableAnswer("its address is none of the web")
        headers = {"Accept-Encoding": "identity", **(key if is_same_host(url, own_url) else {})}
        with _request("GET", url, anywhere=True, headers=headers) as answer:
            if not answer.is_redirect:
                yield answer
                return
            url = urljoin(url, answer.headers["Location"])
    raise UnreadableAnswer("its address leads on and on")


@contextmanager
def _request(
    method: str, url: str, anywhere: bool = False, **options: Any
) -> Iterator[requests.Response]:
    """requests, with its errors sorted by whether anything was sent; none of them is quoted.

    `anywhere` is for an address that a service gave: it passes the guard of generation/outgoing.py
    unless HOSTED_PRIVATE is set. Services' own addresses are the operators'.
    """
    guarded = anywhere and not settings.HOSTED_PRIVATE
    try:
        with (
            open_session() if guarded else requests.Session() as session,
            session.request(
                method,
                url,
                stream=True,
                allow_redirects=False,
                timeout=(CONNECT_SECONDS, settings.HOSTED_TIMEOUT_SECONDS),
                auth=lambda request: request,  # no other key from the machine's .netrc
                **options,
            ) as answer,
        ):
            yield answer
    except AddressRefused:
        raise UnreadableAnswer("its address is not public") from None
    except HostUnknown:
        raise MessageNotSent("its host is unknown") from None
    except requests.ConnectTimeout:
        raise MessageNotSent("no connection in time") from None
    except requests.Timeout:
        raise NoAnswer(f"nothing for {settings.HOSTED_TIMEOUT_SECONDS:g} s") from None
    except requests.RequestException as error:
        if isinstance(error, ValueError):  # an address or a header that can't be sent
            raise MessageNotSent(f"the message is no good: {type(error).__name__}") from None
        inner = error.args[0] if error.args else None
        if isinstance(inner, MaxRetryError) and isinstance(inner.reason, NewConnectionError):
            raise MessageNotSent("no connection") from None
        raise NoAnswer(f"the connection broke: {type(error).__name__}") from None


def _chunks(answer: requests.Response, limit: int, seconds: float) -> Iterable[bytes]:
    """The body, no more and no longer than allowed."""
    got, end = 0, time.monotonic() + seconds
    for chunk in answer.iter_content(1 << 16):
        got += len(chunk)
        if got > limit:
            raise NoAnswer(f"the answer is larger than {limit >> 20} MiB")
        if time.monotonic() > end:
            raise NoAnswer(f"the answer took more than {seconds:g} s")
        yield chunk


def _retry_after(answer: requests.Response) -> float | None:
    """Retry-After in seconds: it may be a number or a date."""
    value = answer.headers.get("Retry-After", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - timezone.now()).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 1.0), LONGEST_WAIT) if math.isfinite(seconds) else None
