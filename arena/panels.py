"""Panels: people invited by a link, each with a seat that is one voter."""

import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import Count

from arena.experiment_pairs import Place, votes_count
from arena.models import (
    PANEL,
    Battle,
    Exclusion,
    ExperimentState,
    Panel,
    Seat,
    Vote,
    Voter,
)
from arena.voting import Refused
from generation.models import Version

UNINVITED = "This page is for invited panels: open the link that you were sent."
QUOTA_REACHED = "Thank you: you have given all the votes that were asked of you."
NONE_RUNNING = (
    "No experiment of this panel is running now, so there is nothing to judge. Keep your link: "
    "with the next one it works again."
)
ALL_JUDGED = (
    "You have judged all pairs that there are for you now, fewer than were asked of you. More can "
    "come while this panel's experiments run."
)


def make_seats(panel: Panel, count: int) -> list[Seat]:
    """Further seats, each with a link of its own; they are numbered on from those there are."""
    taken = panel.seats.count()
    return Seat.objects.bulk_create(
        Seat(panel=panel, label=f"Seat {taken + number}", token=secrets.token_urlsafe(24))
        for number in range(1, count + 1)
    )


def seat_of(voter: Voter | None) -> Seat | None:
    """The seat of this voter; None for the public, and for a seat that was revoked."""
    if voter is None:
        return None
    return Seat.objects.filter(voter=voter, revoked=False).select_related("panel", "voter").first()


@transaction.atomic
def take_seat(token: str, voter: Voter | None) -> Seat:
    """The seat of this link. Whoever opens the link first becomes its voter; later openings, on
    whatever device, are the same voter. A voter has one seat: another seat is another voter."""
    seats = Seat.objects.filter(token=token)
    seat = seats.select_for_update(of=("self",)).select_related("panel", "voter").first()
    if seat is None:
        raise Refused(404, "There is no such invitation: ask whoever sent you the link.")
    if seat.revoked:
        raise Refused(403, "This invitation was withdrawn: ask whoever sent you the link.")
    if seat.voter is None:
        if voter is None or Seat.objects.filter(voter=voter).exists():
            voter = Voter.objects.create()
        seat.voter = voter
        seat.save(update_fields=["voter"])
    return seat


def votes_given(seat: Seat) -> int:
    """Of the quota."""
    return Vote.objects.filter(voter=seat.voter, battle__stream=PANEL).count()


def why_done(seat: Seat) -> str:
    """Why nothing is asked of the member now; nothing said while there may be a pair."""
    if votes_given(seat) >= seat.panel.quota:
        return QUOTA_REACHED
    running = seat.panel.experiments.filter(state=ExperimentState.RUNNING)
    return "" if running.exists() else NONE_RUNNING


def left_to_draw(seat: Seat, open_battles: int) -> int:
    """Pairs that the quota leaves beside those on the voter's screen."""
    return seat.panel.quota - votes_given(seat) - open_battles


def votes_left(
    panels: Iterable[Panel], versions: Sequence[Version], category: str, places: set[Place]
) -> int:
    """The most votes that the panels' seats can still give on these clip pairs of two versions.

    Within each seat's quota, and one on a pair that the seat has not met anywhere yet; none from
    seats that were withdrawn or whose votes do not count.
    """
    seats = list(
        Seat.objects.filter(panel__in=panels, revoked=False).select_related("panel", "voter")
    )
    voters = [seat.voter_id for seat in seats if seat.voter_id]
    given = dict(
        Vote.objects.filter(voter__in=voters, battle__stream=PANEL)
        .values_list("voter")
        .annotate(Count("pk"))
    )
    entries = Exclusion.objects.filter(voter__in=voters).order_by("pk")
    latest = dict(entries.values_list("voter", "action"))
    met: defaultdict[UUID, set[Place]] = defaultdict(set)
    shown = Battle.objects.filter(
        voter__in=voters, category=category, left__version__in=versions, right__version__in=versions
    )
    for voter, prompt, slot in shown.values_list("voter_id", "prompt_id", "left__seed_slot"):
        met[voter].add((prompt, slot))

    def left(seat: Seat) -> int:
        voter = seat.voter
        if voter is None:
            return min(seat.panel.quota, len(places))
        if not votes_count(voter, latest.get(voter.pk)):
            return 0
        return max(0, min(seat.panel.quota - given.get(voter.pk, 0), len(places - met[voter.pk])))

    return sum(map(left, seats))
