"""Paid services on this machine: each follows its documents, over real HTTP, faults included.

A service accepts an order that its documents allow and refuses another in its own words. What it
answers can be set beforehand: each list is used from its front, and its last entry for ever.
"""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

FILE = "/files/clip.mp4"
WORDS = "This is against our rules"


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int = 0  # so many bytes at the end are announced and not sent


@dataclass
class Message:
    method: str
    path: str
    headers: Any  # in any case
    body: Any


class Service:
    """What all have in common; `jobs` may hold “pending”, “failed” and “refused” by name."""

    backend: ClassVar[str]
    name: ClassVar[str]  # in sentences
    order_paths: ClassVar[tuple[str, ...]]
    keys: ClassVar[dict[str, str]]
    url_variable: ClassVar[str]
    settings: ClassVar[dict[str, Any]]
    cancels_by: ClassVar[str] = ""  # the method, if it cancels at all
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
            return _next(self.files) or Answer(404)
        if (refusal := self.unlock(message)) is not None:
            return refusal
        if message.method == "POST" and self.is_order(message):
            return _next(self.orders) or self.take(message)
        if message.method != "GET":
            return _next(self.cancels) or Answer(200, {})
        return self.ask(message)

    def unlock(self, message: Message) -> Answer | None:
        key = next(iter(self.keys.values()))
        known = message.headers.get("Authorization") == f"Bearer {key}"
        return None if known else self.no(401, "Who are you?")

    def take(self, message: Message) -> Answer:
        fault = self.fault(message)
        return self.no(400, fault) if fault else self.accepted(message)

    def ask(self, message: Message) -> Answer:
        one = _next(self.jobs)
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


def _next(answers: list[Any]) -> Any:
    if len(answers) > 1:
        return answers.pop(0)
    return answers[0] if answers else None


def _fields(body: Any, needed: dict[str, type], allowed: dict[str, type]) -> str:
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


def _is_png(value: str, prefix: str = "data:image/png;base64,") -> bool:
    data = value.removeprefix(prefix)
    return value.startswith(prefix) and base64.b64decode(data).startswith(b"\x89PNG")


class Fal(Service):
    backend, name = "fal", "fal"
    order_paths = ("/somebody/fast/text-to-video", "/somebody/fast/image-to-video")
    keys: ClassVar = {"FAL_KEY": "f4l-5ecret-0123456789:abcdef"}
    url_variable = "FAL_URL"
    cancels_by = "PUT"
    failures_cost = True
    settings: ClassVar = {
        "text_model": "somebody/fast/text-to-video",
        "image_model": "somebody/fast/image-to-video",
        "sound": "switch",
        "durations": {"2": "2s", "4": "4s"},
        "aspects": ["1:1"],
        "names": {
            "aspect": "aspect_ratio",
            "image": "image_url",
            "sound": "generate_audio",
            "seed": "seed",
        },
        "arguments": {"auto_fix": False},
    }

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Answer] = []

    def unlock(self, message: Message) -> Answer | None:
        known = message.headers.get("Authorization") == f"Key {self.keys['FAL_KEY']}"
        return None if known else self.no(401, "Who are you?")

    def fault(self, message: Message) -> str:
        needed = {"prompt": str, "duration": str}
        allowed = {
            "aspect_ratio": str, "image_url": str, "generate_audio": bool, "seed": int,
            "auto_fix": bool,
        }  # fmt: skip
        if "image_url" in message.body and not _is_png(message.body["image_url"]):
            return "image_url is no image"
        return _fields(message.body, needed, allowed)

    def accepted(self, message: Message) -> Answer:
        job = f"r-{len(self.posts)}"
        base = f"{self.address}/somebody/fast/requests/{job}"
        names = {"status_url": f"{base}/status", "response_url": base}
        return Answer(200, {"request_id": job, **names, "cancel_url": f"{base}/cancel"})

    def ask(self, message: Message) -> Answer:
        if message.path.endswith("/status"):
            return super().ask(message)
        return _next(self.results) or Answer(200, {"video": {"url": self.file}})

    def job(self, state: str) -> Any:
        if state == "pending":
            return {"status": "IN_QUEUE", "queue_position": 3}
        if state in ("failed", "refused"):
            return {"status": "COMPLETED", "error": WORDS}
        return {"status": "COMPLETED"}

    def no(self, status: int, words: str, **headers: str) -> Answer:
        return Answer(status, {"detail": [{"msg": words}]}, headers)


class Runway(Service):
    backend, name = "runway", "Runway"
    order_paths = ("/v1/text_to_video", "/v1/image_to_video")
    keys: ClassVar = {"RUNWAYML_API_SECRET": "key_0123456789abcdef"}
    url_variable = "RUNWAY_URL"
    cancels_by = "DELETE"
    settings: ClassVar = {
        "text_model": "veo3.1",
        "image_model": "veo3.1",
        "sound": "switch",
        "durations": [2, 4],
        "text_ratios": {"1:1": "960:960"},
        "image_ratios": {"1:1": "960:960"},
        "seed": True,
        "arguments": {},
    }

    def unlock(self, message: Message) -> Answer | None:
        if message.headers.get("X-Runway-Version") != "2024-11-06":
            return self.no(400, "X-Runway-Version is missing")
        return super().unlock(message)

    def fault(self, message: Message) -> str:
        needed = {"model": str, "promptText": str, "ratio": str, "duration": int}
        if message.path == "/v1/image_to_video":
            needed["promptImage"] = str
            if not _is_png(message.body.get("promptImage", "")):
                return "promptImage is no image"
        return _fields(message.body, needed, {"seed": int, "audio": bool})

    def accepted(self, message: Message) -> Answer:
        return Answer(200, {"id": "17f20503-6c24-4c16-946b-35dbbce2af2f"})

    def job(self, state: str) -> Any:
        task = {"id": "17f20503-6c24-4c16-946b-35dbbce2af2f", "createdAt": "2026-11-22T10:00:00Z"}
        if state == "pending":
            return {**task, "status": "THROTTLED", "estimatedCost": {"credits": 20}}
        if state == "failed":  # and billed
            return {**task, "status": "FAILED", "failure": WORDS, "cost": {"credits": 20}}
        if state == "refused":
            code = {"failureCode": "SAFETY.INPUT.TEXT", "cost": {"credits": 0}}
            return {**task, "status": "FAILED", "failure": WORDS, **code}
        return {**task, "status": "SUCCEEDED", "output": [self.file], "cost": {"credits": 20}}

    def no(self, status: int, words: str, **headers: str) -> Answer:
        return Answer(status, {"error": words}, headers)


class DashScope(Service):
    backend, name = "dashscope", "DashScope"
    order_paths = ("/api/v1/services/aigc/video-generation/video-synthesis",)
    keys: ClassVar = {"DASHSCOPE_API_KEY": "sk-0123456789abcdef"}
    url_variable = "DASHSCOPE_URL"
    cancels_by = "POST"
    mute = False
    settings: ClassVar = {
        "text_model": "wan2.7-t2v",
        "image_model": "wan2.7-i2v",
        "sound": "always",
        "durations": [2, 4],
        "aspects": ["1:1"],
        "resolution": "720P",
        "rewriter": True,
        "arguments": {},
    }

    def fault(self, message: Message) -> str:
        if message.headers.get("X-DashScope-Async") != "enable":
            return "current user api does not support synchronous calls"
        parts = {"model": str, "input": dict, "parameters": dict}
        if fault := _fields(message.body, parts, {}):
            return fault
        text = message.body["model"].endswith("t2v")
        if fault := _fields(
            message.body["input"], {"prompt": str} | ({} if text else {"media": list}), {}
        ):
            return fault
        if not text:
            (frame,) = message.body["input"]["media"]
            if frame["type"] != "first_frame" or not _is_png(frame["url"]):
                return "media is no first frame"
        needed = {"resolution": str, "duration": int} | ({"ratio": str} if text else {})
        allowed = {"seed": int, "watermark": bool, "prompt_extend": bool}
        return _fields(message.body["parameters"], needed, allowed)

    def accepted(self, message: Message) -> Answer:
        return Answer(
            200, {"request_id": "q", "output": {"task_id": "t-1", "task_status": "PENDING"}}
        )

    def job(self, state: str) -> Any:
        output: dict[str, Any] = {"task_id": "t-1"}
        if state == "pending":
            return {"request_id": "q", "output": {**output, "task_status": "RUNNING"}}
        if state in ("failed", "refused"):
            code = "InternalError" if state == "failed" else "DataInspectionFailed"
            output |= {"task_status": "FAILED", "code": code, "message": WORDS}
            return {"request_id": "q", "output": output}
        output |= {"task_status": "SUCCEEDED", "video_url": self.file, "orig_prompt": "as sent"}
        return {"request_id": "q", "output": output, "usage": {"duration": 2, "SR": 720}}

    def no(self, status: int, words: str, **headers: str) -> Answer:
        code = "Throttling.RateQuota" if status == 429 else "InvalidParameter"
        return Answer(status, {"code": code, "message": words, "request_id": "q"}, headers)


class Ark(Service):
    backend, name = "ark", "Ark"
    order_paths = ("/api/v3/contents/generations/tasks",)
    keys: ClassVar = {"ARK_API_KEY": "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"}
    url_variable = "ARK_URL"
    cancels_by = "DELETE"
    settings: ClassVar = {
        "text_model": "dreamina-seedance-2-0-260128",
        "image_model": "dreamina-seedance-2-0-260128",
        "sound": "switch",
        "durations": [2, 4],
        "aspects": ["1:1"],
        "resolution": "720p",
        "arguments": {},
    }

    def fault(self, message: Message) -> str:
        needed = {"model": str, "content": list}
        allowed = {
            "resolution": str, "ratio": str, "duration": int, "seed": int, "watermark": bool,
            "generate_audio": bool,
        }  # fmt: skip
        if fault := _fields(message.body, needed, allowed):
            return fault
        text, *images = message.body["content"]
        if text["type"] != "text":
            return "content has no text"
        for image in images:
            if image["role"] != "first_frame" or not _is_png(image["image_url"]["url"]):
                return "content has no first frame"
        return ""

    def accepted(self, message: Message) -> Answer:
        return Answer(200, {"id": "cgt-20261122-abcde"})

    def job(self, state: str) -> Any:
        task = {"id": "cgt-20261122-abcde", "model": "dreamina-seedance-2-0-260128"}
        if state == "pending":
            return {**task, "status": "queued"}
        if state in ("failed", "refused"):
            code = "InternalServiceError" if state == "failed" else "OutputVideoSensitiveContent"
            return {**task, "status": "failed", "error": {"code": code, "message": WORDS}}
        usage = {"completion_tokens": 108900, "total_tokens": 108900}
        return {**task, "status": "succeeded", "content": {"video_url": self.file}, "usage": usage}

    def no(self, status: int, words: str, **headers: str) -> Answer:
        return Answer(status, {"error": {"code": "InvalidParameter", "message": words}}, headers)


class Kling(Service):
    backend, name = "kling", "Kling"
    order_paths = ("/v1/videos/text2video", "/v1/videos/image2video")
    keys: ClassVar = {"KLING_ACCESS_KEY": "AK0123456789", "KLING_SECRET_KEY": "SK9876543210"}
    url_variable = "KLING_URL"
    seed = False
    settings: ClassVar = {
        "text_model": "kling-v3",
        "image_model": "kling-v3",
        "sound": "switch",
        "durations": [2, 4],
        "aspects": ["1:1"],
        "mode": "std",
        "arguments": {},
    }

    def unlock(self, message: Message) -> Answer | None:
        """The token is checked as RFC 7519 says, not with the code that made it."""
        token = message.headers.get("Authorization", "").removeprefix("Bearer ")
        signed, _, signature = token.rpartition(".")
        secret = self.keys["KLING_SECRET_KEY"].encode()
        right = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), hashlib.sha256))
        if not signed or right.decode().rstrip("=") != signature:
            return self.no(401, "Authorization failed", code=1002)
        head, claims = (json.loads(base64.urlsafe_b64decode(p + "==")) for p in signed.split("."))
        if head != {"alg": "HS256", "typ": "JWT"} or claims["iss"] != self.keys["KLING_ACCESS_KEY"]:
            return self.no(401, "Authorization is invalid", code=1002)
        if not claims["nbf"] <= time.time() < claims["exp"] <= time.time() + 1800:
            return self.no(401, "Authorization has expired", code=1004)
        return None

    def fault(self, message: Message) -> str:
        needed = {"model_name": str, "prompt": str, "duration": str, "mode": str}
        allowed = {"sound": str, "watermark_info": dict}
        if message.path.endswith("image2video"):
            needed["image"] = str
            if not _is_png(message.body.get("image", ""), prefix=""):
                return "image is no image"
        else:
            allowed["aspect_ratio"] = str
        if message.body.get("sound", "on") not in ("on", "off"):
            return "sound is neither on nor off"
        return _fields(message.body, needed, allowed)

    def accepted(self, message: Message) -> Answer:
        return Answer(200, self.said({"task_id": "7700", "task_status": "submitted"}))

    def said(self, data: dict[str, Any]) -> Any:
        return {"code": 0, "message": "SUCCEED", "request_id": "q", "data": data}

    def job(self, state: str) -> Any:
        if state == "pending":
            return self.said({"task_id": "7700", "task_status": "processing"})
        if state in ("failed", "refused"):
            return self.said({"task_id": "7700", "task_status": "failed", "task_status_msg": WORDS})
        video = {"id": "v", "url": self.file, "duration": "2"}
        return self.said(
            {"task_id": "7700", "task_status": "succeed", "task_result": {"videos": [video]}}
        )

    def no(self, status: int, words: str, code: int = 1201, **headers: str) -> Answer:
        if status == 429:
            code = 1302
        return Answer(status, {"code": code, "message": words, "request_id": "q"}, headers)


class Veo(Service):
    backend, name = "veo", "Gemini"
    order_paths = ("/v1beta/models/veo-3.1-generate-preview:predictLongRunning",)
    keys: ClassVar = {"GEMINI_API_KEY": "AIza0123456789abcdef"}
    url_variable = "GEMINI_URL"
    mute = False
    settings: ClassVar = {
        "text_model": "veo-3.1-generate-preview",
        "image_model": "veo-3.1-generate-preview",
        "sound": "always",
        "durations": [2, 4],
        "aspects": ["1:1"],
        "resolution": "720p",
        "arguments": {},
    }
    operation = "models/veo-3.1-generate-preview/operations/abc123"

    def unlock(self, message: Message) -> Answer | None:
        known = message.headers.get("X-Goog-Api-Key") == self.keys["GEMINI_API_KEY"]
        return None if known else self.no(403, "API key not valid")

    def reply(self, message: Message) -> Answer:
        """The file is behind the key too, and then somewhere else."""
        if message.path == FILE + ":download?alt=media":
            led = {"Location": self.file.replace("127.0.0.1", "localhost")}
            return self.unlock(message) or Answer(302, {}, led)
        return super().reply(message)

    def fault(self, message: Message) -> str:
        parts = {"instances": list, "parameters": dict}
        if fault := _fields(message.body, parts, {}):
            return fault
        (instance,) = message.body["instances"]
        if fault := _fields(instance, {"prompt": str}, {"image": dict}):
            return fault
        if "image" in instance and not _is_png(instance["image"]["bytesBase64Encoded"], prefix=""):
            return "image is no image"
        allowed = {"aspectRatio": str, "durationSeconds": int, "resolution": str, "seed": int}
        return _fields(message.body["parameters"], {}, allowed)

    def accepted(self, message: Message) -> Answer:
        return Answer(200, {"name": self.operation})

    def job(self, state: str) -> Any:
        if state == "pending":
            return {"name": self.operation}
        if state == "failed":
            error = {"code": 13, "message": WORDS}
            return {"name": self.operation, "done": True, "error": error}
        answer: dict[str, Any] = {
            "generatedSamples": [{"video": {"uri": f"{self.file}:download?alt=media"}}]
        }
        if state == "refused":
            answer = {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": [WORDS]}
        response = {"generateVideoResponse": answer}
        return {"name": self.operation, "done": True, "response": response}

    def no(self, status: int, words: str, **headers: str) -> Answer:
        error = {"code": status, "message": words, "status": "INVALID_ARGUMENT"}
        return Answer(status, {"error": error}, headers)


SERVICES: tuple[type[Service], ...] = (Fal, Runway, DashScope, Ark, Kling, Veo)


class Handler(BaseHTTPRequestHandler):
    service: Service

    def _reply(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        sent = json.loads(self.rfile.read(length)) if length else None
        message = Message(self.command, self.path, self.headers, sent)
        self.service.got.append(message)
        answer = self.service.reply(message)
        time.sleep(answer.delay)
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        kind = "video/mp4" if isinstance(answer.body, bytes) else "application/json"
        for name, value in {"Content-Type": kind, **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - answer.cut])

    do_GET = do_POST = do_PUT = do_DELETE = _reply  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Keep the tests' output to what matters."""


@contextmanager
def serving(service: Service, clip: bytes) -> Iterator[Service]:
    """The service answers at its `address`, and what it makes is this file."""
    handler = type("ServiceHandler", (Handler,), {"service": service, "timeout": 5})
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
