"""Pages of the voter, and the small JSON answers behind them."""

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_POST, require_safe

from arena.context import my_votes
from arena.identity import remember, voter_of
from arena.matchmaking import current_battle, next_battle, votable_pairs
from arena.models import MIXED, PANEL, Battle, Choice, Defect, Seat, Voter
from arena.panels import ALL_JUDGED, UNINVITED, seat_of, take_seat, votes_given, why_done
from arena.voting import (
    Refused,
    battle_of,
    cast_vote,
    mark_defect,
    marked_defects,
    may_mark_defects,
    names_are_told,
    skip_battle,
    take_back_defect,
)
from generation.categories import Category
from generation.encoding import PROFILE
from generation.media import send_file
from generation.models import Clip, ClipState, Version

NOTHING_LEFT = "There is no pair here that you have not judged: come back when more clips are made."
ENOUGH_OPEN = "Vote on the pairs you have open first."
SIDES = ("left", "right")
LANES = (("left", 1), ("right", 2))

View = Callable[..., HttpResponseBase]


def wants_json(request: HttpRequest) -> bool:
    return not request.accepts("text/html")


def sentences(view: View) -> View:
    """Refusals become their status and one sentence, as JSON or as a page."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except Refused as refused:
            if wants_json(request):
                return JsonResponse({"error": refused.sentence}, status=refused.status)
            context = {"message": refused.sentence, "status": refused.status}
            return render(request, "refused.html", context, status=refused.status)

    return wrapped


def _check_stream(stream: str) -> None:
    if stream not in (MIXED, PANEL, *Category.values):
        raise Http404(f"There is no category {stream}.")


def battle_facts(battle: Battle) -> dict[str, Any]:
    """What a voter's page is told about a battle: nothing that names a version."""
    category, muted = Category(battle.category), _muted(battle)
    width, height = PROFILE.canvases[battle.prompt.aspect]
    pk = battle.pk
    return {
        "id": str(pk),
        "category": category.value,
        "category_label": category.label,
        "prompt": battle.prompt.text,
        "language": battle.prompt.language,
        "image": reverse("battle_reference", args=[pk]) if battle.prompt.image_id else None,
        "audio": category.audio and not muted,
        "muted": muted,
        **{
            side: {
                "video": reverse("battle_video", args=[pk, side]),
                "poster": reverse("battle_poster", args=[pk, side]),
            }
            for side in SIDES
        },
        "vote_url": reverse("cast_vote", args=[pk]),
        "skip_url": reverse("skip", args=[pk]),
        "width": width,
        "height": height,
    }


def _muted(battle: Battle) -> bool:
    """A repetition is shown as the pair was the first time."""
    shown = battle.repeats or battle
    return shown.block is not None and shown.block.muted


def _defect_kinds() -> list[tuple[str, str, bool]]:
    """What can be wrong: value, label, and whether only a clip with sound can have it."""
    return [(what.value, what.label, what in Defect.OF_SOUND) for what in Defect.What]


def _panel_facts(seat: Seat | None) -> dict[str, Any] | None:
    if seat is None:
        return None
    return {"name": seat.panel.name, "given": votes_given(seat), "quota": seat.panel.quota}


def _seat_in(stream: str, voter: Voter | None) -> Seat | None:
    """The member's seat in the panel's stream; other streams are anybody's."""
    if stream != PANEL:
        return None
    if (seat := seat_of(voter)) is None:
        raise Refused(403, UNINVITED)
    return seat


def _why_empty(seat: Seat | None) -> str:
    return NOTHING_LEFT if seat is None else why_done(seat) or ALL_JUDGED


@never_cache
@require_safe
@ensure_csrf_cookie
@sentences
def vote_page(request: HttpRequest, stream: str = MIXED) -> HttpResponseBase:
    """The voter's next pair, ready to play."""
    _check_stream(stream)
    voter = voter_of(request)
    seat = _seat_in(stream, voter)
    newcomer = voter is None
    if voter is None:
        voter = Voter.objects.create()
    battle = current_battle(voter, stream)
    context = {
        "stream": stream,
        "panel": _panel_facts(seat),
        "lanes": LANES,
        "defects": _defect_kinds() if seat else [],
        "battle": battle_facts(battle) if battle else None,
        "empty_reason": "" if battle else _why_empty(seat),
    }
    response = render(request, "arena/vote.html", context)
    if newcomer:
        remember(response, voter)
    return response


@require_POST
@sentences
def next_pair(request: HttpRequest, stream: str) -> JsonResponse:
    """A further pair for loading ahead; `have` names the battles the page holds."""
    _check_stream(stream)
    voter = voter_of(request)
    if voter is None:
        raise Refused(403, "Your browser sent no voter cookie: allow cookies and load the page.")
    seat = _seat_in(stream, voter)
    held = request.POST.getlist("have")
    battle = next_battle(voter, stream, held)
    if battle is None:
        return JsonResponse({"battle": None, "reason": ENOUGH_OPEN if held else _why_empty(seat)})
    return JsonResponse({"battle": battle_facts(battle), "reason": ""})


def _stands(version: Version) -> dict[str, str]:
    return {
        "name": version.public_name,
        "lab": version.public_lab,
        "url": version.public_url,
    }


@require_POST
@sentences
def vote(request: HttpRequest, battle_id: UUID) -> HttpResponseBase:
    """Take the answer, then say who was who, where that may be told."""
    battle = cast_vote(voter_of(request), battle_id, request.POST.get("choice", ""))
    if not wants_json(request):
        return redirect("battle", battle_id)
    said = {"choice": battle.vote.choice, "my_votes": my_votes(request)}
    if names_are_told(battle):
        said |= {side: _stands(getattr(battle, side).version) for side in SIDES}
    elif may_mark_defects(battle):
        said["defects_url"] = reverse("mark_defect", args=[battle_id])
        said["take_back_url"] = reverse("take_back_defect", args=[battle_id])
    if battle.stream == PANEL:
        said["panel"] = _panel_facts(seat_of(battle.voter))
    return JsonResponse(said)


@require_POST
@sentences
def mark(request: HttpRequest, battle_id: UUID) -> HttpResponseBase:
    """Mark what was wrong in one clip of a pair; answers with all that is marked there."""
    given = (request.POST.get(name, "") for name in ("side", "what", "second"))
    return _with_marks(request, mark_defect(voter_of(request), battle_id, *given))


@require_POST
@sentences
def take_back(request: HttpRequest, battle_id: UUID) -> HttpResponseBase:
    """Take a mark back; answers with what is marked still."""
    given = (request.POST.get(name, "") for name in ("side", "what"))
    return _with_marks(request, take_back_defect(voter_of(request), battle_id, *given))


def _with_marks(request: HttpRequest, battle: Battle) -> HttpResponseBase:
    if wants_json(request):
        return JsonResponse({"defects": marked_defects(battle)})
    return redirect(f"{reverse('battle', args=[battle.pk])}#marking")


def _marking(battle: Battle, audio: bool) -> dict[str, Any] | None:
    """What the page of a pair that was voted on offers to mark, and what is marked."""
    if not may_mark_defects(battle):
        return None
    return {
        "lanes": LANES,
        "kinds": [
            (what, label) for what, label, of_sound in _defect_kinds() if audio or not of_sound
        ],
        "seconds": battle.prompt.seconds,
        "marks": marked_defects(battle),
    }


@require_POST
@sentences
def skip(request: HttpRequest, battle_id: UUID) -> HttpResponseBase:
    voter = voter_of(request)
    skip_battle(voter, battle_id)
    if wants_json(request):
        return JsonResponse({"skipped": True})
    return redirect(_stream_url(Battle.objects.get(pk=battle_id).stream))


def _stream_url(stream: str) -> str:
    return reverse("vote") if stream == MIXED else reverse("vote_category", args=[stream])


@never_cache
@require_safe
@sentences
def panel_page(request: HttpRequest, token: str) -> HttpResponseBase:
    """What a panel's members read before they begin. The first visit takes the seat."""
    seat = take_seat(token, voter_of(request))
    assert seat.voter is not None
    context = {
        "panel": _panel_facts(seat),
        "instructions": seat.panel.instructions,
        "done": why_done(seat),
    }
    response = render(request, "arena/panel.html", context)
    remember(response, seat.voter)
    return response


@never_cache
@require_safe
@sentences
def battle_page(request: HttpRequest, battle_id: UUID) -> HttpResponseBase:
    """After the vote: both names, where they may be told. Before it: back to voting."""
    battle = battle_of(voter_of(request), battle_id)
    if not hasattr(battle, "vote"):
        return redirect(_stream_url(battle.stream))
    facts, named = battle_facts(battle), names_are_told(battle)
    reveal = {
        "choice": battle.vote.choice,
        "choice_label": Choice(battle.vote.choice).label,
        "named": named,
        "left": facts["left"] | (_stands(battle.left.version) if named else {}),
        "right": facts["right"] | (_stands(battle.right.version) if named else {}),
        "prompt": battle.prompt.text,
        "category_label": facts["category_label"],
        "my_votes": my_votes(request),
        "width": facts["width"],
        "height": facts["height"],
        "marking": _marking(battle, facts["audio"]),
    }
    context = {
        "reveal": reveal,
        "battle_id": battle_id,
        "next_url": _stream_url(battle.stream),
    }
    return render(request, "arena/battle.html", context)


def _send(request: HttpRequest, name: str) -> HttpResponseBase:
    try:
        return send_file(request, name)
    except FileNotFoundError:
        raise Refused(404, "This clip is gone: take another pair.") from None


def _file_of(request: HttpRequest, battle_id: UUID, *fields: str) -> str:
    """The name of a battle's file in one query, for the voter it was drawn for."""
    voter = voter_of(request)
    row = Battle.objects.filter(pk=battle_id).values_list("voter_id", *fields).first()
    if row is None:
        raise Refused(404, "There is no such battle.")
    if voter is None or row[0] != voter.pk:
        raise Refused(403, "This battle was drawn for another voter.")
    if not row[1]:
        raise Refused(404, "This battle has no such file.")
    return str(row[1])


@require_safe
@sentences
def battle_video(request: HttpRequest, battle_id: UUID, side: str) -> HttpResponseBase:
    return _send(request, _file_of(request, battle_id, f"{side}__rendition"))


@require_safe
@sentences
def battle_poster(request: HttpRequest, battle_id: UUID, side: str) -> HttpResponseBase:
    return _send(request, _file_of(request, battle_id, f"{side}__poster"))


@require_safe
@sentences
def battle_reference(request: HttpRequest, battle_id: UUID) -> HttpResponseBase:
    return _send(request, _file_of(request, battle_id, "prompt__image__file"))


@require_safe
def robots(request: HttpRequest) -> HttpResponse:
    """Every visit to a voting page draws a battle: crawlers stay away from there."""
    return HttpResponse(
        "User-agent: *\nDisallow: /vote/\nDisallow: /panel/\n", content_type="text/plain"
    )


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """For supervisors and the demo: is there something to vote on, and how far are the clips."""
    states = dict(Clip.objects.values_list("state").annotate(count=Count("pk")))
    votable = votable_pairs()
    return JsonResponse(
        {
            "ok": True,
            "votable": {value: votable.get(value, 0) for value in Category.values},
            "clips": {
                "ready": states.get(ClipState.READY, 0),
                "waiting": states.get(ClipState.WAITING, 0) + states.get(ClipState.RENDERING, 0),
                "failed": states.get(ClipState.FAILED, 0),
            },
        }
    )
