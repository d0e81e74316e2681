"""An object storage on this machine that speaks as much of Amazon's S3 protocol as boto3 asks for.

Objects live in memory. A request must name the right access key; its signature is not checked.
What the next requests are answered instead can be set beforehand, in `faults`. A request that this
file does not know is answered with 501, so that a test fails rather than passes by chance.
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

S3_ACCESS_KEY = S3_SECRET_KEY = "testing"
PIECE_BYTES = 64 * 1024  # of an answer, sent one after the other
XML = {"Content-Type": "application/xml"}
REASONS = {
    "AccessDenied": 403,
    "BucketAlreadyOwnedByYou": 409,
    "InsufficientStorage": 507,
    "InvalidAccessKeyId": 403,
    "InvalidPart": 400,
    "InvalidRange": 416,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchUpload": 404,
    "NotImplemented": 501,
    "PreconditionFailed": 412,
    "SlowDown": 503,
}


class S3Error(Exception):
    """An answer that S3 gives as XML; `code` is one of REASONS."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class S3Fault:
    """What the next request that `method` fits is answered instead of what it asked for."""

    code: str = ""  # of REASONS
    method: str = ""  # any
    missing_bytes: int = 0  # of the right answer, at its end: the connection breaks there
    spoilt: bool = False  # it keeps other bytes than were sent
    forgotten_bytes: int = 0  # of what was sent, at its end: the store answers well and loses them


@dataclass(frozen=True)
class S3Object:
    data: bytes
    content_type: str = "binary/octet-stream"
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'


@dataclass
class S3Upload:
    """An object that arrives in parts."""

    content_type: str
    parts: dict[int, S3Object] = field(default_factory=dict)


@dataclass(frozen=True)
class S3Request:
    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class S3Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class ObjectStorage:
    """Buckets and their objects; `address` is what boto3 calls the endpoint's URL."""

    def __init__(self) -> None:
        self.address = ""
        self.buckets: dict[str, dict[str, S3Object]] = {}
        self.uploads: dict[str, S3Upload] = {}
        self.faults: list[S3Fault] = []
        self.requests: list[S3Request] = []
        self.bytes_read = 0  # of objects, by GET
        self._numbers = count(1)
        self._lock = threading.Lock()

    def answer(self, request: S3Request) -> tuple[S3Answer, int]:
        """The answer, and how many bytes at its end are not sent."""
        with self._lock:
            self.requests.append(request)
            fault = self._next_fault(request.method)
            try:
                if fault.code:
                    raise S3Error(fault.code)
                kept = request.body[: len(request.body) - fault.forgotten_bytes]
                kept = kept[::-1] if fault.spoilt else kept
                return self._answer(replace(request, body=kept)), fault.missing_bytes
            except S3Error as error:
                body = f"<Error><Code>{error.code}</Code><Message>As asked.</Message></Error>"
                return S3Answer(REASONS[error.code], XML, body.encode()), 0

    def _next_fault(self, method: str) -> S3Fault:
        for number, fault in enumerate(self.faults):
            if fault.method in ("", method):
                return self.faults.pop(number)
        return S3Fault()

    def _answer(self, request: S3Request) -> S3Answer:
        if f"Credential={S3_ACCESS_KEY}/" not in request.headers.get("authorization", ""):
            raise S3Error("InvalidAccessKeyId")
        if "aws-chunked" in request.headers.get("content-encoding", ""):
            raise S3Error("NotImplemented")  # boto3 sends bodies so over TLS only
        if not request.key:
            return self._of_bucket(request)
        objects = self._objects(request.bucket)
        if request.query.keys() & {"uploads", "uploadId"}:
            return self._in_parts(request, objects)
        if request.method == "PUT" and "x-amz-copy-source" not in request.headers:
            return _stored(objects, request.key, S3Object(request.body, _content_type(request)))
        if request.method in ("GET", "HEAD"):
            return _read_object(objects, request)
        if request.method == "DELETE":
            objects.pop(request.key, None)  # S3 does not tell whether it was there
            return S3Answer(204)
        raise S3Error("NotImplemented")

    def _objects(self, bucket: str) -> dict[str, S3Object]:
        if bucket not in self.buckets:
            raise S3Error("NoSuchBucket")
        return self.buckets[bucket]

    def _of_bucket(self, request: S3Request) -> S3Answer:
        if request.method == "PUT":
            if request.bucket in self.buckets:
                raise S3Error("BucketAlreadyOwnedByYou")
            self.buckets[request.bucket] = {}
            return S3Answer(200)
        objects = self._objects(request.bucket)
        if request.method == "HEAD":
            return S3Answer(200)
        if request.method == "GET":
            return _list_objects(objects, request)
        raise S3Error("NotImplemented")

    def _in_parts(self, request: S3Request, objects: dict[str, S3Object]) -> S3Answer:
        if request.method == "POST" and "uploads" in request.query:
            name = f"upload-{next(self._numbers)}"
            self.uploads[name] = S3Upload(_content_type(request))
            return _xml("InitiateMultipartUploadResult", f"<UploadId>{name}</UploadId>")
        name = request.query["uploadId"]
        if name not in self.uploads:
            raise S3Error("NoSuchUpload")
        upload = self.uploads[name]
        if request.method == "PUT":
            part = upload.parts[int(request.query["partNumber"])] = S3Object(request.body)
            return S3Answer(200, {"ETag": part.etag})
        del self.uploads[name]
        if request.method == "DELETE":
            return S3Answer(204)
        wanted = [int(n) for n in re.findall(rb"<PartNumber>(\d+)</PartNumber>", request.body)]
        if not wanted or not set(wanted) <= upload.parts.keys():
            raise S3Error("InvalidPart")
        data = b"".join(upload.parts[number].data for number in wanted)
        objects[request.key] = S3Object(data, upload.content_type)
        return _xml("CompleteMultipartUploadResult", f"<ETag>{objects[request.key].etag}</ETag>")


def _content_type(request: S3Request) -> str:
    return request.headers.get("content-type", S3Object.content_type)


def _xml(name: str, inside: str) -> S3Answer:
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return S3Answer(200, XML, f'<{name} xmlns="{space}">{inside}</{name}>'.encode())


def _stored(objects: dict[str, S3Object], key: str, new: S3Object) -> S3Answer:
    objects[key] = new
    return S3Answer(200, {"ETag": new.etag})


def _read_object(objects: dict[str, S3Object], request: S3Request) -> S3Answer:
    if request.key not in objects:
        raise S3Error("NoSuchKey")
    found = objects[request.key]
    if request.headers.get("if-match", found.etag) != found.etag:
        raise S3Error("PreconditionFailed")
    headers = {
        "ETag": found.etag,
        "Accept-Ranges": "bytes",
        "Content-Type": found.content_type,
        "Last-Modified": format_datetime(found.modified, usegmt=True),
    }
    span = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if span is None:
        return S3Answer(200, headers, found.data)
    size = len(found.data)
    if span[1]:
        first, last = int(span[1]), min(int(span[2] or size), size - 1)
    else:  # the last so many bytes
        first, last = max(0, size - int(span[2])), size - 1
    if first > last:
        raise S3Error("InvalidRange")
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return S3Answer(206, headers, found.data[first : last + 1])


def _list_objects(objects: dict[str, S3Object], request: S3Request) -> S3Answer:
    """ListObjects, and ListObjectsV2 with `list-type=2`: keys, and common prefixes, in order."""
    query, second = request.query, request.query.get("list-type") == "2"
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    after = query.get("continuation-token" if second else "marker", "")
    at_most = int(query.get("max-keys", 1000))
    entries: dict[str, str] = {}
    for key in sorted(key for key in objects if key.startswith(prefix)):
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        name = key if end < 0 else key[: end + len(delimiter)]
        one = objects[key]
        entries[name] = (
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            if end >= 0
            else f"<Contents><Key>{escape(key)}</Key><Size>{len(one.data)}</Size>"
            f"<LastModified>{one.modified:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            f"<ETag>{escape(one.etag)}</ETag></Contents>"
        )
    names = [name for name in entries if name > after]
    shown, more = names[:at_most], len(names) > at_most
    inside = f"<Prefix>{escape(prefix)}</Prefix><IsTruncated>{str(more).lower()}</IsTruncated>"
    if more:
        tag = "NextContinuationToken" if second else "NextMarker"
        inside += f"<{tag}>{escape(shown[-1])}</{tag}>"
    return _xml("ListBucketResult", inside + "".join(entries[name] for name in shown))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).removeprefix("/").partition("/")
        query = {n: v[0] for n, v in parse_qs(parts.query, keep_blank_values=True).items()}
        request = S3Request(
            self.command,
            bucket,
            key,
            query,
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(int(self.headers.get("Content-Length", 0))),
        )
        storage = self.server.storage
        answer, missing_bytes = storage.answer(request)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            body = memoryview(answer.body)[: len(answer.body) - missing_bytes]
            with suppress(ConnectionError):  # whoever asked has left
                for start in range(0, len(body), PIECE_BYTES):
                    piece = body[start : start + PIECE_BYTES]
                    storage.bytes_read += len(piece) if key and self.command == "GET" else 0
                    self.wfile.write(piece)
        self.close_connection = self.close_connection or missing_bytes > 0

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, storage: ObjectStorage) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.storage = storage


@contextmanager
def object_storage() -> Iterator[ObjectStorage]:
    storage = ObjectStorage()
    with _Server(storage) as server:
        storage.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield storage
        finally:
            server.shutdown()
            thread.join()
