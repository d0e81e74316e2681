"""A verdict reaches the address that the experiment names: signed, again until it arrives."""

import json
import socket
import ssl
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from arena.experiments.proposal import NotStarted
from arena.experiments.start import cancel_experiment
from arena.models import Exclusion, Experiment, Voter
from generation.models import Version
from ratings.experiments.assessment import assess
from ratings.models import Delivery
from ratings.pipeline.webhooks import PAUSES
from ratings.tasks import send_verdicts
from tests.panels import make_panel
from tests.pipeline import cast, start_experiment

pytestmark = pytest.mark.django_db
PROJECT = Path(__file__).resolve().parents[3]
SECRET = "what only the two of us know"


class Receiver:
    """A pipeline's web server; `answers` are used from the front, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]] | str] = [(200, {})]
        self.got: list[tuple[Any, bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.headers, body))
                given = receiver.answers
                answer = given.pop(0) if len(given) > 1 else given[0]
                if answer == "slow":
                    time.sleep(1)
                if isinstance(answer, str):  # "closed": not a word
                    return
                status, headers = answer
                self.send_response(status)
                for name, value in {"Content-Length": "6", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"thanks")

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://localhost:{self.server.server_port}/hooks?from=photofinish"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture(autouse=True)
def configured(settings: Any) -> None:
    settings.WEBHOOK_SECRET = SECRET
    settings.WEBHOOK_PRIVATE = True
    settings.WEBHOOK_TIMEOUT_SECONDS = 0.3
    settings.SITE_ADDRESS = "https://arena.example"


@pytest.fixture
def decided(receiver: Receiver, make_version: Callable[..., Version]) -> Callable[..., Experiment]:
    """An experiment that has just got its verdict."""

    def decide(webhook: str = "") -> Experiment:
        experiment = start_experiment(make_version, webhook=webhook or receiver.address)
        cast(experiment, wins=0.1, blocks=60)
        assert assess(experiment).verdict == "regressed"
        return experiment

    return decide


def due() -> None:
    """Time passes: what waits for its time is due."""
    past = timezone.now() - timedelta(seconds=1)
    Delivery.objects.exclude(next_try_at=None).update(next_try_at=past)


def checked(headers: Any, body: bytes, secret: str = SECRET) -> dict[str, Any]:
    """The body, read as docs/pipeline.md tells receivers to; ValueError if it is not genuine."""
    lines = (PROJECT / "docs" / "pipeline.md").read_text().splitlines()
    begin = lines.index("    import hashlib, hmac, json, time")
    end = lines.index("        return json.loads(body)")
    names: dict[str, Any] = {}
    exec(textwrap.dedent("\n".join(lines[begin : end + 1])), names)  # noqa: S102
    return names["verdict_in"](headers["Photofinish-Signature"], body, secret)


def test_a_verdict_arrives_once_and_signed(
    receiver: Receiver, decided: Callable[..., Experiment]
) -> None:
    experiment = decided()
    assert send_verdicts() == 1
    assert send_verdicts() == 0
    ((headers, body),) = receiver.got
    said = checked(headers, body)
    assert (said["event"], said["verdict"]) == ("verdict", "regressed")
    assert said["experiment"] == str(experiment.pk)
    assert said["address"] == f"https://arena.example/experiments/{experiment.pk}/"
    assert said["delivery"] == headers["Photofinish-Delivery"]
    assert headers["Content-Type"] == "application/json"
    assert headers["Host"] == receiver.address.split("/")[2]
    delivery = Delivery.objects.get()
    assert delivery.next_try_at is None
    assert delivery.delivered_at is not None
    assert delivery.answer == "200 thanks"
    assert delivery.body.encode() == body


def test_one_that_was_changed_or_signed_by_another_is_told(
    receiver: Receiver, decided: Callable[..., Experiment]
) -> None:
    decided()
    send_verdicts()
    ((headers, body),) = receiver.got
    with pytest.raises(ValueError, match="signed by somebody else, or changed"):
        checked(headers, body.replace(b"regressed", b"pass"))
    with pytest.raises(ValueError, match="signed by somebody else, or changed"):
        checked(headers, body, secret="another")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ((500, {}), "localhost answered 500, not 2xx."),
        ((302, {"Location": "/elsewhere"}), "localhost answered 302, not 2xx."),
        ("slow", "localhost did not take it: it took too long."),
        ("closed", "localhost did not take it: the connection failed."),
    ],
)
def test_after_a_fault_it_is_sent_again_the_same(
    receiver: Receiver, decided: Callable[..., Experiment], fault: Any, said: str
) -> None:
    decided()
    receiver.answers = [fault, (204, {"Content-Length": "0"})]
    assert send_verdicts() == 0
    delivery = Delivery.objects.get()
    assert (delivery.attempts, delivery.error) == (1, said)
    wait = (delivery.next_try_at - timezone.now()).total_seconds()
    assert PAUSES[0] - 5 < wait <= PAUSES[0]
    assert send_verdicts() == 0  # it is not due yet
    due()
    assert send_verdicts() == 1
    (first, one), (second, two) = receiver.got
    assert one == two
    assert first["Photofinish-Delivery"] == second["Photofinish-Delivery"]
    delivery.refresh_from_db()
    assert (delivery.attempts, delivery.error, delivery.next_try_at) == (2, "", None)


def test_what_is_sent_is_what_was_written_with_the_delivery(
    receiver: Receiver, decided: Callable[..., Experiment], settings: Any
) -> None:
    """However often it is tried, and whatever becomes of the experiment in between."""
    experiment = decided()
    first = Delivery.objects.get()
    written = first.body.encode()
    assert json.loads(written)["state"] == "decided"
    receiver.answers = [(500, {})]
    assert send_verdicts() == 0
    settings.SITE_ADDRESS = "https://moved.example"
    experiment.panels.add(make_panel("others"))
    due()
    assert send_verdicts() == 0
    for voter in Voter.objects.all():
        Exclusion.objects.create(action="exclude", voter=voter, reason="a test")
    assert assess(experiment).verdict == ""
    cancel_experiment(experiment)
    receiver.answers = [(200, {})]
    due()
    assert send_verdicts() == 2
    bodies: dict[str, list[bytes]] = {}
    for headers, body in receiver.got:
        assert checked(headers, body)["delivery"] == headers["Photofinish-Delivery"]
        bodies.setdefault(headers["Photofinish-Delivery"], []).append(body)
    assert bodies.pop(str(first.pk)) == [written] * 3
    ((second,),) = bodies.values()
    said = json.loads(second)
    assert (said["verdict"], said["state"]) == (None, "running")  # as it was when it was written
    assert said["address"].startswith("https://moved.example/")


def test_nobody_there_for_a_day_is_given_up(
    receiver: Receiver, decided: Callable[..., Experiment]
) -> None:
    decided()
    receiver.server.server_close()  # nothing listens any more
    waits = []
    for _ in PAUSES:
        assert send_verdicts() == 0
        delivery = Delivery.objects.get()
        waits.append((delivery.next_try_at - timezone.now()).total_seconds())
        due()
    assert waits == sorted(waits)
    assert 20 * 3600 < sum(waits) < 24 * 3600
    send_verdicts()
    delivery.refresh_from_db()
    assert delivery.next_try_at is None
    assert delivery.delivered_at is None
    assert "the connection failed" in delivery.error


def test_a_worker_that_died_while_sending_leaves_it_to_the_next(
    receiver: Receiver, decided: Callable[..., Experiment]
) -> None:
    decided()
    # As the claim leaves it: counted, and under a lease.
    Delivery.objects.update(attempts=1, leased_until=timezone.now() + timedelta(minutes=5))
    assert send_verdicts() == 0
    Delivery.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
    assert send_verdicts() == 1
    assert Delivery.objects.get().attempts == 2


def test_a_verdict_taken_back_is_told_too(
    receiver: Receiver, decided: Callable[..., Experiment]
) -> None:
    experiment = decided()
    send_verdicts()
    for voter in Voter.objects.all():
        Exclusion.objects.create(action="exclude", voter=voter, reason="a test")
    assess(experiment)
    assert send_verdicts() == 1
    said = [checked(*got) for got in receiver.got]
    assert [each["verdict"] for each in said] == ["regressed", None]
    assert said[0]["assessment"] < said[1]["assessment"]


@pytest.mark.parametrize("host", ["localhost", "[::1]", "169.254.169.254", "192.0.0.192"])
def test_private_addresses_are_not_asked(
    receiver: Receiver, decided: Callable[..., Experiment], settings: Any, host: str
) -> None:
    settings.WEBHOOK_PRIVATE = False
    decided(webhook=receiver.address.replace("localhost", host))
    assert send_verdicts() == 0
    assert receiver.got == []
    assert "is not a public address" in Delivery.objects.get().error


@pytest.mark.parametrize(("name", "arrived"), [("localhost", 1), ("another.example", 0)])
def test_its_certificate_must_be_of_its_name(
    receiver: Receiver,
    decided: Callable[..., Experiment],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    arrived: int,
) -> None:
    authority = certify(receiver, name, tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    decided(webhook=receiver.address.replace("http:", "https:"))
    assert send_verdicts() == arrived
    assert len(receiver.got) == arrived
    refused = "localhost did not take it: its certificate is not good for this name."
    assert Delivery.objects.get().error == ("" if arrived else refused)


def certify(receiver: Receiver, name: str, folder: Path) -> Path:
    """Let it speak TLS with a certificate of that name; returns who vouches for it."""
    key, file = ec.generate_private_key(ec.SECP256R1()), folder / "both.pem"
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = timezone.now()
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    unlocked = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    pem = serialization.Encoding.PEM
    file.write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, form, unlocked))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
    return file


@pytest.mark.parametrize(
    ("webhook", "sentence"),
    [
        ("https://no-such-host.invalid/hook", "The host no-such-host.invalid is unknown: "),
        ("https://bücher.invalid/hook", "The host xn--bcher-kva.invalid is unknown: "),
        (f"https://{'x' * 64}.invalid/hook", "is no name that can be looked up"),
        ("https://example.invalid:99999/hook", "is no address that can be asked: "),
    ],
)
def test_a_host_that_is_unknown_is_a_sentence(
    decided: Callable[..., Experiment],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    webhook: str,
    sentence: str,
) -> None:
    known = socket.getaddrinfo

    def look_up(host: str, *args: Any, **kwargs: Any) -> Any:
        if host.endswith("host.invalid") or host.startswith("xn--"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    settings.WEBHOOK_PRIVATE = False
    decided(webhook=webhook)
    assert send_verdicts() == 0
    assert sentence in Delivery.objects.get().error


def test_without_a_secret_no_webhook_is_accepted(
    receiver: Receiver, make_version: Callable[..., Version], settings: Any
) -> None:
    settings.WEBHOOK_SECRET = ""
    with pytest.raises(NotStarted, match="There is no WEBHOOK_SECRET"):
        start_experiment(make_version, webhook=receiver.address)


def test_the_admin_shows_what_was_sent_and_answered(
    receiver: Receiver, decided: Callable[..., Experiment], client: Client
) -> None:
    decided()
    receiver.answers = [(500, {})]
    send_verdicts()
    delivery = Delivery.objects.get()
    client.force_login(User.objects.create_superuser("olga", password="x"))
    shown = client.get(f"/admin/ratings/delivery/{delivery.pk}/change/").content.decode()
    assert "500 thanks" in shown
    assert "&quot;event&quot;: &quot;verdict&quot;" in shown
    data = {"action": "send_again", "_selected_action": [str(delivery.pk)]}
    client.post("/admin/ratings/delivery/", data)
    receiver.answers = [(200, {})]
    assert send_verdicts() == 1
