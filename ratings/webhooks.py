"""Verdicts sent to the addresses that experiments name, signed, until they arrive.

A delivery is claimed by one conditional update that counts the attempt and puts it off for a
while, so two workers do not send it at once, and one that died leaves it to the next. It may still
arrive twice: its id is the same each time.
"""

import hashlib
import hmac
import json
import os
import socket
import time
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

import requests
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db.models import F
from django.db.models.functions import Now
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from arena.models import Experiment
from ratings.models import Delivery
from ratings.pipeline import state_of

# Seconds after each attempt that failed: 22 hours in all. After the last it is given up.
PAUSES = (10, 30, 120, 600, 1800, 3600, 7200, 14400, 21600, 28800)
CLAIMED_FOR = timedelta(minutes=5)  # above what one attempt can take
SECONDS_AT_MOST = 120  # for a task; an address that trickles its answer is cut off then
KEPT = 500  # bytes of an answer
ADDRESSES_AT_MOST = 3  # of one host, tried in turn
# All IPv6 addresses that were ever given to networks lie in here (RFC 4291).
GIVEN = IPv6Network("2000::/3")
# Where a network translates, these hold an IPv4 address in their last bytes (RFC 6052).
TRANSLATED = IPv6Network("64:ff9b::/96")


class NotSent(Exception):
    """It did not arrive, or nobody said that it did; the message says why."""

    def __init__(self, sentence: str, answer: str = "") -> None:
        super().__init__(sentence)
        self.answer = answer


class _Pinned(HTTPAdapter):
    """Connects to the address in the URL, and asks for the certificate of a name."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, server_hostname=self.host, **kwargs)


def send_due(seconds: float = 30.0) -> int:
    """Send what is due, one after another, for at most so long; returns how many arrived."""
    end, arrived = time.monotonic() + seconds, 0
    while time.monotonic() < end and (delivery := _claim()):
        arrived += _deliver(delivery)
    return arrived


def _claim() -> Delivery | None:
    """The delivery that has been due for longest, put off and counted, or None."""
    while True:
        due = Delivery.objects.filter(due_at__lte=Now()).order_by("due_at").first()
        if due is None:
            return None
        mine = Delivery.objects.filter(pk=due.pk, attempts=due.attempts, due_at=due.due_at)
        if mine.update(attempts=F("attempts") + 1, due_at=Now() + CLAIMED_FOR):
            due.attempts += 1
            return due


def _deliver(delivery: Delivery) -> bool:
    """Send it and note what became of it, unless another worker has taken it over meanwhile."""
    experiment: Experiment = delivery.assessment.experiment
    mine = Delivery.objects.filter(pk=delivery.pk, attempts=delivery.attempts)
    if not delivery.body:
        delivery.body = body_of(delivery)
        mine.update(body=delivery.body)
    try:
        answer = post(experiment.webhook, delivery.body.encode(), str(delivery.pk))
    except NotSent as error:
        pause = PAUSES[delivery.attempts - 1] if delivery.attempts <= len(PAUSES) else None
        due_at = None if pause is None else Now() + timedelta(seconds=pause)
        mine.update(due_at=due_at, error=str(error), answer=error.answer)
        return False
    mine.update(due_at=None, delivered_at=Now(), error="", answer=answer)
    return True


def body_of(delivery: Delivery) -> str:
    """What is sent: where the experiment stood by the delivery's assessment."""
    made = delivery.assessment
    said = {"event": "verdict", "delivery": str(delivery.pk), **state_of(made.experiment, made)}
    return json.dumps(said, allow_nan=False)


def signature(body: bytes, moment: int) -> str:
    """`t=MOMENT,v1=HEX`: the HMAC-SHA256 of "MOMENT." and the body, by WEBHOOK_SECRET."""
    signed = f"{moment}.".encode() + body
    mac = hmac.new(settings.WEBHOOK_SECRET.encode(), signed, hashlib.sha256)
    return f"t={moment},v1={mac.hexdigest()}"


def post(url: str, body: bytes, delivery: str) -> str:
    """Post the body once and return the answer, shortened; NotSent unless it was a 2xx.

    The name is looked up once. Every address it has is checked, and the connection goes to one of
    those, so that no second look-up can lead elsewhere. Redirects are not followed, proxies not
    used.
    """
    if not settings.WEBHOOK_SECRET:
        raise NotSent("There is no WEBHOOK_SECRET to sign it with: set one for the workers.")
    parts = _in_ascii(url)
    headers = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "Photofinish",
        "Photofinish-Delivery": delivery,
        "Photofinish-Signature": signature(body, int(time.time())),
    }
    failed = "it has no address"
    for address in addresses_of(parts)[:ADDRESSES_AT_MOST]:
        try:
            return _post_to(parts, address, body, headers)
        except (requests.RequestException, SoftTimeLimitExceeded) as error:
            failed = _reason(error)
    raise NotSent(f"{parts.hostname} did not take it: {failed}.")


def _in_ascii(url: str) -> SplitResult:
    """The parts of the URL, its host as DNS and certificates have it."""
    parts = urlsplit(url)
    try:
        return parts._replace(netloc=parts.netloc.encode("idna").decode())
    except UnicodeError:
        raise NotSent(f"The host of {url} is no name that can be looked up.") from None


def addresses_of(parts: SplitResult) -> list[str]:
    """Where the URL's host is; NotSent if that is unknown, or any of it is not public."""
    try:
        host, port = parts.hostname or "", parts.port
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise NotSent(f"The host of {parts.geturl()} is unknown: {error}.") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not settings.WEBHOOK_PRIVATE and not all(map(is_public, addresses)):
        raise NotSent(
            f"{host} is not a public address: set WEBHOOK_PRIVATE=1 to let webhooks go there."
        )
    return addresses


def is_public(address: str) -> bool:
    """Whether anybody may be asked at this address: it is in no private, local or reserved range,
    and neither is the IPv4 address that it stands for."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        if inner := _inner(ip):
            return is_public(str(inner))
        if ip not in GIVEN:
            return False
    return ip.is_global and not ip.is_multicast


def _inner(ip: IPv6Address) -> IPv4Address | None:
    if ip in TRANSLATED:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


def _post_to(parts: SplitResult, address: str, body: bytes, headers: dict[str, str]) -> str:
    host = f"[{address}]" if ":" in address else address
    port = f":{parts.port}" if parts.port else ""
    with requests.Session() as session:
        session.trust_env = False  # no proxy, which would look the name up again
        session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        session.mount("https://", _Pinned(parts.hostname or ""))
        response = session.post(
            parts._replace(netloc=host + port, fragment="").geturl(),
            data=body,
            headers=headers,
            timeout=settings.WEBHOOK_TIMEOUT_SECONDS,
            allow_redirects=False,
            stream=True,
        )
        answer = f"{response.status_code} {_beginning(response)}".strip()
    if not 200 <= response.status_code < 300:
        raise NotSent(f"{parts.hostname} answered {response.status_code}, not 2xx.", answer)
    return answer


def _beginning(response: requests.Response) -> str:
    """What comes of the answer at once; its status is what counts."""
    try:
        said: str = response.raw.read1(KEPT).decode(errors="replace")
    except (HTTPError, OSError):
        return ""
    return said.replace("\0", "")


def _reason(error: Exception) -> str:
    if isinstance(error, requests.Timeout | SoftTimeLimitExceeded):
        return "it took too long"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not good for this name"
    return "the connection failed"
