"""Orders are counted where they are paid for: never two for one clip unless somebody says so.

Every paid service, every fault that may come after it took the order: the stand-in takes it, and
answers as if it had not.
"""

import io
from collections.abc import Callable
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from generation.models import Clip, ClipState, HostedJob
from tests.generation.hosted.services.test_kling import KlingStandIn
from tests.generation.hosted.stand_in import Answer, StandIn, aged, due, work

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

# What a service does with an order that it has taken.
FAULTS = {
    "408": Answer(408, {}, takes=True),
    "500": Answer(500, {}, takes=True),
    "502": Answer(502, b"<html>Bad gateway</html>", takes=True),
    "503": Answer(503, {}, {"Retry-After": "1"}, takes=True),
    "504": Answer(504, {}, takes=True),
    "520": Answer(520, {}, takes=True),
    "late": Answer(delay=0.5, takes=True),
    "drop": Answer(drop=True, takes=True),
    "cut": Answer(200, {"id": "x" * 500}, cut=300, takes=True),
    "nonsense": Answer(200, b"<html>Thank you</html>", takes=True),
}


def render(*more: str) -> str:
    """`render` of the one clip that is looked at."""
    out = io.StringIO()
    which = ("--version-slug", "rival", "--category", "t2v-silent", "--prompt-set", "few")
    call_command("render", *which, "--limit", "1", "--no-wait", *more, stdout=out)
    return out.getvalue()


@pytest.mark.parametrize("fault", FAULTS)
def test_an_order_that_was_taken_is_paid_once_whatever_its_answer(
    service: StandIn, one: Callable[[], Clip], settings, fault: str
) -> None:
    settings.HOSTED_TIMEOUT_SECONDS = 0.25
    service.orders = [FAULTS[fault]]
    work(3)
    settings.HOSTED_TIMEOUT_SECONDS = 5
    aged(minutes=6)
    work(3)
    assert (len(service.posts), len(service.taken)) == (1, 1)
    assert HostedJob.objects.get().cost == Decimal("0.2")  # the books say so, too
    service.orders = []
    if isinstance(service, KlingStandIn):  # found by its name
        assert one().state == ClipState.READY
        return
    assert "may have been billed" in one().error or "answer can't be used" in one().error
    # Neither a bare retry nor one of everything orders it again.
    assert "1 was left" in render("--retry-failed")
    work(2)
    assert (one().state, len(service.posts)) == (ClipState.FAILED, 1)
    if fault != "500":
        return
    # Somebody looked there, and says: pay again.
    assert "1 failed clip waits again" in render("--again")
    work(2)
    assert (one().state, len(service.posts), len(service.taken)) == (ClipState.READY, 2, 2)


def test_an_order_that_was_surely_not_taken_is_sent_again(
    service: StandIn, one: Callable[[], Clip]
) -> None:
    service.orders = [service.no(429, "Slow down"), service.no(429, "Slow down")]
    work(1)
    assert (len(service.posts), len(service.taken)) == (1, 0)
    assert HostedJob.objects.get().cost is None
    work(1)
    service.orders = []
    work(2)
    assert one().state == ClipState.READY
    assert len(service.taken) == 1


@pytest.mark.parametrize("how", ["failed", "wrong", "no file"])
def test_a_clip_that_was_paid_for_and_came_to_nothing_is_not_bought_again_by_a_retry(
    service: StandIn, one: Callable[[], Clip], how: str
) -> None:
    if how == "failed":
        service.jobs = ["failed"]
    elif how == "wrong":
        service.files = [Answer(body=b"\x89PNG" * 500)]
    else:
        service.files.insert(0, Answer(404, {}))
    work(1)
    if how == "no file":
        work(1)
        assert (one().state, len(service.taken)) == (ClipState.READY, 1)
        return
    assert one().state == ClipState.FAILED
    spent = HostedJob.objects.get().cost is not None
    service.jobs = []
    said = render("--retry-failed")
    assert ("1 was left" in said) == spent
    work(1)
    assert len(service.taken) == (1 if spent else 2)


def test_the_admin_pays_again_only_when_told(
    service: StandIn, one: Callable[[], Clip], admin_client: Client
) -> None:
    def act(action: str) -> str:
        page = reverse("admin:generation_clip_changelist")
        chosen = {"action": action, "_selected_action": str(one().pk)}
        return admin_client.post(page, chosen, follow=True).text

    service.files = [Answer(body=b"\x89PNG" * 500)]
    work(1)
    assert "1 clips were left as they are: an order of each counts as spent." in act("retry_failed")
    work(1)
    assert (one().state, len(service.taken)) == (ClipState.FAILED, 1)
    assert "1 failed clips are waiting again." in act("order_again")
    assert "1 clips now have the priority 100." in act("render_first")
    work(1)
    assert len(service.taken) == 2


def test_a_retry_while_the_order_is_out_orders_nothing(
    service: StandIn, one: Callable[[], Clip]
) -> None:
    """Somebody cancels the clip and tries it again before any hosted worker has looked."""
    service.jobs = ["pending"]
    work(1)
    Clip.objects.update(state=ClipState.FAILED, error="Cancelled by me.", leased_until=None)
    assert "1 failed clip waits again" in render("--retry-failed")
    service.jobs = []
    due()
    work(2)
    assert (one().state, len(service.posts)) == (ClipState.READY, 1)
