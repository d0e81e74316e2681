"""Stand-ins for paid services on this machine: over real HTTP, faults included.

A service accepts an order that its documents allow and refuses another in its own words. What it
answers can be set beforehand: each list is used from its front, and its last entry for ever.
"""

import base64
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from django.utils import timezone
from PIL import Image

from generation.backends import CannotRender, Request
from generation.backends.registry import load_service
from generation.catalogue.categories import Conditions
from generation.hosted.orders import submit_waiting
from generation.hosted.results import poll_due
from generation.models import Clip, ClipState, HostedJob, JobState

FILE = "/files/clip.mp4"
WORDS = "This is against our rules"


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int = 0  # so many bytes at the end are announced and not sent
    drop: bool = False  # the connection is closed without a word
    takes: bool = False  # an order is taken all the same, and the customer pays for it


@dataclass
class Message:
    method: str
    path: str
    headers: Any  # in any case
    body: Any


class StandIn:
    """What all have in common; `jobs` may hold “pending”, “failed” and “refused” by name."""

    backend: ClassVar[str]
    name: ClassVar[str]  # in sentences
    order_paths: ClassVar[tuple[str, ...]]
    keys: ClassVar[dict[str, str]]
    url_variable: ClassVar[str]
    settings: ClassVar[dict[str, Any]]
    base_path: ClassVar[str] = ""
    cancels_by: ClassVar[str] = ""  # the method, if it cancels at all
    cancel_path: ClassVar[str] = ""
    failures_cost: ClassVar[bool] = False
    seed: ClassVar[bool] = True
    mute: ClassVar[bool] = True

    def __init__(self) -> None:
        self.address = ""
        self.orders: list[Answer] = []
        self.jobs: list[Answer | str] = []
        self.files: list[Answer] = []
        self.cancels: list[Answer] = []
        self.got: list[Message] = []
        self.taken: list[Message] = []  # orders that the customer pays for

    @property
    def posts(self) -> list[Message]:
        """Orders alone, however they were answered."""
        return [m for m in self.got if m.method == "POST" and self.is_order(m)]

    def is_order(self, message: Message) -> bool:
        return message.path in self.order_paths

    @property
    def fetched(self) -> int:
        return sum(message.path.startswith(FILE) for message in self.got)

    @property
    def file(self) -> str:
        return f"{self.address}{FILE}"

    @property
    def cancelled(self) -> list[Message]:
        return [m for m in self.got if m.method == self.cancels_by and not self.is_order(m)]

    def reply(self, message: Message) -> Answer:
        if message.path.startswith(FILE):
            return next_of(self.files) or Answer(404)
        if (refusal := self.unlock(message)) is not None:
            return refusal
        if message.method == "POST" and self.is_order(message):
            answer = next_of(self.orders)
            if answer is None:
                return self.take(message)
            if answer.takes:
                self.taken.append(message)
            return answer
        if message.method != "GET":
            return next_of(self.cancels) or Answer(200, {})
        return self.ask(message)

    def unlock(self, message: Message) -> Answer | None:
        key = next(iter(self.keys.values()))
        known = message.headers.get("Authorization") == f"Bearer {key}"
        return None if known else self.no(401, "Who are you?")

    def take(self, message: Message) -> Answer:
        fault = self.fault(message)
        if fault:
            return self.no(400, fault)
        self.taken.append(message)
        return self.accepted(message)

    def ask(self, message: Message) -> Answer:
        one = next_of(self.jobs)
        if isinstance(one, Answer):
            return one
        return Answer(200, self.job(one or "done"))

    def fault(self, message: Message) -> str:
        """What the documents forbid in this order, or nothing."""
        raise NotImplementedError

    def accepted(self, message: Message) -> Answer:
        raise NotImplementedError

    def job(self, state: str) -> Any:
        raise NotImplementedError

    def no(self, status: int, words: str, **headers: str) -> Answer:
        """A refusal in the service's own form."""
        raise NotImplementedError


def next_of(answers: list[Any]) -> Any:
    if len(answers) > 1:
        return answers.pop(0)
    return answers[0] if answers else None


def wrong_field(body: Any, needed: dict[str, type], allowed: dict[str, type]) -> str:
    if not isinstance(body, dict):
        return "no object"
    known = {**needed, **allowed}
    for name in needed:
        if name not in body:
            return f"{name} is missing"
    for name, value in body.items():
        if name not in known:
            return f"{name} is unknown"
        if type(value) is not known[name]:
            return f"{name} is no {known[name].__name__}"
    return ""


def is_png(value: str, prefix: str = "data:image/png;base64,") -> bool:
    data = value.removeprefix(prefix)
    return value.startswith(prefix) and base64.b64decode(data).startswith(b"\x89PNG")


class Handler(BaseHTTPRequestHandler):
    service: StandIn

    def _reply(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        sent = json.loads(self.rfile.read(length)) if length else None
        message = Message(self.command, self.path, self.headers, sent)
        self.service.got.append(message)
        answer = self.service.reply(message)
        time.sleep(answer.delay)
        if answer.drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        kind = "video/mp4" if isinstance(answer.body, bytes) else "application/json"
        for name, value in {"Content-Type": kind, **answer.headers}.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - answer.cut])

    do_GET = do_POST = do_PUT = do_DELETE = _reply  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Keep the tests' output to what matters."""


@contextmanager
def serving(service: StandIn, clip: bytes) -> Iterator[StandIn]:
    """The service answers at its `address`, and what it makes is this file."""
    handler = type("StandInHandler", (Handler,), {"service": service, "timeout": 5})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    service.address = f"http://127.0.0.1:{server.server_address[1]}"
    service.files = [Answer(body=clip)]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield service
    server.shutdown()
    server.server_close()
    thread.join()


# --- a hosted worker, and what it is asked -------------------------------------------------------


def due() -> None:
    """Time passes: whatever waits for its time is due."""
    past = timezone.now() - timedelta(days=1)
    HostedJob.objects.update(next_try_at=past)
    HostedJob.objects.exclude(leased_until=None).update(leased_until=past)


def work(rounds: int = 12) -> None:
    """A hosted worker that is woken so often, with time passing between; once more than there is
    anything to do is enough."""
    unfinished = ClipState.WAITING, ClipState.RENDERING
    still_open = JobState.WAITING, JobState.SUBMITTING, JobState.SUBMITTED
    for _ in range(rounds):
        idle = not (
            Clip.objects.filter(state__in=unfinished).exists()
            or HostedJob.objects.filter(state__in=still_open).exists()
        )
        submit_waiting(60)
        due()
        poll_due(60)
        due()
        if idle:
            return


def aged(**since: float) -> None:
    """Orders were sent so long ago."""
    HostedJob.objects.update(submitted_at=timezone.now() - timedelta(**since))


def wait_of(job: HostedJob) -> float:
    """Seconds until it is looked at again."""
    return (job.next_try_at - timezone.now()).total_seconds()


def only(*kinds: type[StandIn]) -> Any:
    return pytest.mark.parametrize("service", kinds, indirect=True, ids=lambda kind: kind.backend)


def wish(text: str = "a cat", seconds: float = 2, side: int = 0, **fields: Any) -> Request:
    image = Image.new("RGB", (side, side)) if side else None
    values = {"conditions": Conditions("1:1", seconds), "audio": False, "seed": 1, "image": image}
    return Request(text, **{**values, **fields})


def check_refused(
    kind: type[StandIn], change: dict[str, Any], asked: dict[str, Any], said: str
) -> None:
    """Settings that were changed, or a request, are refused before anything is sent."""
    with pytest.raises(CannotRender, match=re.escape(said)):
        load_service(kind.backend).check({**kind.settings, **change}, wish(**asked))
