"""Budgets and prices are shown and set by command."""

import io
from collections.abc import Callable
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command

from generation.models import Clip, ClipState, HostedJob, PromptSet, Version
from tests.generation.hosted.services.test_fal import FalStandIn
from tests.generation.hosted.stand_in import StandIn, only, work

pytestmark = pytest.mark.django_db


def budget(*options: str) -> str:
    out = io.StringIO()
    call_command("budget", *options, stdout=out)
    return out.getvalue()


@only(FalStandIn)
def test_what_is_spent_is_shown_beside_it(
    service: StandIn, rival: Version, one: Callable[[], Clip]
) -> None:
    work(1)
    assert budget() == "rival (fal, active): $0.1 a second, $0.20 of $10.00\n"
    assert "$0.20 of $0.10: nothing more is ordered" in budget("rival", "--set", "0.1")
    assert Version.objects.get(slug="rival").budget == Decimal("0.10")


@only(FalStandIn)
def test_what_costs_nothing_needs_no_more_than_a_budget_of_nothing(
    service: StandIn, rival: Version, one: Callable[[], Clip]
) -> None:
    assert "$0 a second, $0.00 of $0.00" in budget("rival", "--set", "0", "--price", "0")
    work(1)
    assert one().state == ClipState.READY
    assert HostedJob.objects.get().cost == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("rival", "--set", "-1"), "“-1” is no amount"),
        (("rival", "--set", "much"), "“much” is no amount"),
        (("rival", "--set", "1e9"), "“1e9” is no amount"),
        (("rival", "--set", "1.005"), "1.005 has more than 2 decimal places."),
        (("nobody", "--set", "1"), "There is no version nobody."),
        (("sharp", "--set", "1"), "sharp is made by no paid service."),
        (("--set", "1"), "Name the versions"),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    few: PromptSet, make_version: Callable[..., Version], options: tuple[str, ...], said: str
) -> None:
    make_version("sharp")
    make_version("rival", backend="fal", settings=FalStandIn.settings)
    with pytest.raises(CommandError) as error:
        budget(*options)
    assert said in str(error.value)
    assert not Version.objects.exclude(budget=None).exists()
