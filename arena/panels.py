"""Panels: people invited by a link, each with a seat that is one voter."""

import secrets

from django.db import transaction

from arena.models import PANEL, Panel, Seat, Vote, Voter
from arena.voting import Refused

UNINVITED = "This page is for invited panels: open the link that you were sent."


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


def left_to_draw(seat: Seat, open_battles: int) -> int:
    """Pairs that the quota leaves beside those on the voter's screen."""
    return seat.panel.quota - votes_given(seat) - open_battles
