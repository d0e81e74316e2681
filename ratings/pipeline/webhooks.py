"""Verdicts sent to the addresses that experiments name, signed, until they arrive.

A delivery is sent under a lease, so two workers do not send it at once, and one that died leaves it
to the next. It may still arrive twice: its id and its body are the same each time, whatever became
of the experiment meanwhile.
"""

import hashlib
import hmac
import time
from urllib.parse import urlsplit

import requests
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db.models.functions import Now
from urllib3.exceptions import HTTPError

from arena.models import Experiment
from generation.outgoing import AddressRefused, HostUnknown, open_session
from generation.rendering.leases import Heartbeat, claim, postpone, release
from ratings.models import Delivery

# Seconds after each attempt that failed: 22 hours in all. After the last it is given up.
PAUSES = (10, 30, 120, 600, 1800, 3600, 7200, 14400, 21600, 28800)
KEPT = 500  # bytes of an answer


class NotSent(Exception):
    """It did not arrive, or nobody said that it did; the message says why."""

    def __init__(self, sentence: str, answer: str = "") -> None:
        super().__init__(sentence)
        self.answer = answer


def send_due(seconds: float = 30.0) -> int:
    """Send what is due, one after another, for at most so long; returns how many arrived."""
    end, arrived = time.monotonic() + seconds, 0
    queue = Delivery.objects.filter(next_try_at__isnull=False).order_by("next_try_at")
    while time.monotonic() < end and (delivery := claim(queue)):
        with Heartbeat(delivery):
            arrived += _deliver(delivery)
    return arrived


def _deliver(delivery: Delivery) -> bool:
    """Send it and note what became of it, unless another worker has taken it over meanwhile."""
    experiment: Experiment = delivery.assessment.experiment
    try:
        answer = post(experiment.webhook, delivery.body.encode(), str(delivery.pk))
    except NotSent as error:
        said = {"error": str(error), "answer": error.answer}
        if delivery.attempts <= len(PAUSES):
            postpone(delivery, PAUSES[delivery.attempts - 1], **said)
        else:
            release(delivery, next_try_at=None, **said)
        return False
    return release(delivery, next_try_at=None, delivered_at=Now(), error="", answer=answer)


def signature(body: bytes, moment: int) -> str:
    """`t=MOMENT,v1=HEX`: the HMAC-SHA256 of "MOMENT." and the body, by WEBHOOK_SECRET."""
    signed = f"{moment}.".encode() + body
    mac = hmac.new(settings.WEBHOOK_SECRET.encode(), signed, hashlib.sha256)
    return f"t={moment},v1={mac.hexdigest()}"


def post(url: str, body: bytes, delivery: str) -> str:
    """Post the body once and return the answer, shortened; NotSent unless it was a 2xx.

    It goes to public addresses alone (generation/outgoing.py), and follows no redirect.
    """
    if not settings.WEBHOOK_SECRET:
        raise NotSent("There is no WEBHOOK_SECRET to sign it with: set one for the workers.")
    headers = {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "Photofinish",
        "Photofinish-Delivery": delivery,
        "Photofinish-Signature": signature(body, int(time.time())),
    }
    with open_session(settings.WEBHOOK_PRIVATE) as session:
        try:
            response = session.post(
                url,
                data=body,
                headers=headers,
                timeout=settings.WEBHOOK_TIMEOUT_SECONDS,
                allow_redirects=False,
                stream=True,
            )
            answer = f"{response.status_code} {_beginning(response)}".strip()
        except AddressRefused as error:
            raise NotSent(f"{error}: set WEBHOOK_PRIVATE=1 to let webhooks go there.") from None
        except HostUnknown as error:
            raise NotSent(str(error)) from None
        except (requests.exceptions.InvalidURL, UnicodeError) as error:
            raise NotSent(f"{url} is no address that can be asked: {error}.") from None
        except (requests.RequestException, SoftTimeLimitExceeded) as error:
            raise NotSent(f"{_host_of(url)} did not take it: {_reason(error)}.") from None
    if not 200 <= response.status_code < 300:
        raise NotSent(f"{_host_of(url)} answered {response.status_code}, not 2xx.", answer)
    return answer


def _host_of(url: str) -> str:
    return urlsplit(url).hostname or url


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
