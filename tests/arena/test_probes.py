"""A load balancer asks whether the site lives and is ready: by address, over HTTP, and often."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from arena import probes
from generation.models import Clip

BY_ADDRESS = {"HTTP_HOST": "10.1.2.3:8000", "secure": False}


@pytest.fixture(autouse=True)
def production(settings: Any) -> Iterator[None]:
    settings.ALLOWED_HOSTS = ["arena.example"]
    settings.SECURE_SSL_REDIRECT = True
    probes.readiness.forget()
    probes.counts.forget()
    yield
    probes.readiness.forget()
    probes.counts.forget()


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Cuts the way to the database: nothing listens there."""

    def cut() -> None:
        connection.close()
        monkeypatch.setitem(connection.settings_dict, "PORT", "9")
        monkeypatch.setitem(connection.settings_dict, "HOST", "127.0.0.1")

    return cut


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["/livez", "/readyz"])
@pytest.mark.parametrize("method", ["get", "head"])
def test_a_probe_by_address_gets_an_answer(client: Client, address: str, method: str) -> None:
    answer = getattr(client, method)(address, **BY_ADDRESS)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "address",
    ["/", "/healthz", "/livez/", "/readyz/", "/livez/../", "//livez", "/livez.json", "/admin/",
     "/api/experiments", "/static/css/base.css", "/LIVEZ"],
)  # fmt: skip
def test_nothing_else_answers_there(client: Client, address: str) -> None:
    assert client.get(address, **BY_ADDRESS).status_code in (301, 400, 404)
    assert client.get(address, HTTP_HOST="arena.example", secure=False).status_code == 301


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["/livez", "/readyz"])
def test_a_probe_only_asks(client: Client, address: str) -> None:
    for method in (client.post, client.put, client.delete, client.options):
        assert method(address, **BY_ADDRESS).status_code in (301, 400)


@pytest.mark.django_db(transaction=True)
def test_a_site_without_its_database_lives_and_is_not_ready(
    client: Client, away: Callable[[], None]
) -> None:
    away()
    assert client.get("/livez", **BY_ADDRESS).status_code == 200
    answer = client.get("/readyz", **BY_ADDRESS)
    assert answer.status_code == 503
    assert answer.json()["error"].startswith("The site can't reach its database.")


@pytest.mark.django_db
def test_asking_often_costs_nothing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(probes.time, "monotonic", lambda: now[0])

    def asked(seconds: float) -> int:
        now[0] += seconds
        with CaptureQueriesContext(connection) as queries:
            for _ in range(20):
                assert client.get("/readyz", **BY_ADDRESS).status_code == 200
                assert client.get("/livez", **BY_ADDRESS).status_code == 200
        return len(queries)

    assert [asked(0), asked(4.9), asked(0.2), asked(0)] == [1, 0, 1, 0]


def test_health_counts_clips_and_pairs(client: Client, votable: list[Clip]) -> None:
    def health() -> Any:
        return client.get("/healthz", HTTP_HOST="arena.example", secure=True).json()

    said = health()
    assert said["ok"] is True
    assert said["votable"] == {"t2v-silent": 2, "t2v-audio": 0, "i2v-silent": 0, "i2v-audio": 0}
    assert said["clips"] == {"ready": 4, "waiting": 0, "failed": 0}
    with CaptureQueriesContext(connection) as queries:
        assert health() == said
    assert not queries
