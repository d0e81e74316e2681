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
from arena.models import MIXED, Battle, Choice, Voter
from arena.voting import Refused, battle_of, cast_vote, skip_battle
from generation.categories import Category
from generation.encoding import PROFILE
from generation.media import send_file
from generation.models import Clip, ClipState, Version

NOTHING_LEFT = "There is no pair here that you have not judged: come back when more clips are made."
ENOUGH_OPEN = "Vote on the pairs you have open first."
SIDES = ("left", "right")

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
    if stream != MIXED and stream not in Category.values:
        raise Http404(f"There is no category {stream}.")


def battle_facts(battle: Battle) -> dict[str, Any]:
    """What a voter's page is told about a battle: nothing that names a version."""
    category = Category(battle.category)
    width, height = PROFILE.canvases[battle.prompt.aspect]
    pk = battle.pk
    return {
        "id": str(pk),
        "category": category.value,
        "category_label": category.label,
        "prompt": battle.prompt.text,
        "language": battle.prompt.language,
        "image": reverse("battle_reference", args=[pk]) if battle.prompt.image_id else None,
        "audio": category.audio,
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


@never_cache
@require_safe
@ensure_csrf_cookie
def vote_page(request: HttpRequest, stream: str = MIXED) -> HttpResponse:
    """The voter's next pair, ready to play."""
    _check_stream(stream)
    voter = voter_of(request)
    newcomer = voter is None
    if voter is None:
        voter = Voter.objects.create()
    battle = current_battle(voter, stream)
    context = {
        "stream": stream,
        "battle": battle_facts(battle) if battle else None,
        "empty_reason": "" if battle else NOTHING_LEFT,
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
    held = request.POST.getlist("have")
    battle = next_battle(voter, stream, held)
    if battle is None:
        return JsonResponse({"battle": None, "reason": ENOUGH_OPEN if held else NOTHING_LEFT})
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
    """Take the answer, then say who was who."""
    battle = cast_vote(voter_of(request), battle_id, request.POST.get("choice", ""))
    if not wants_json(request):
        return redirect("battle", battle_id)
    return JsonResponse(
        {
            "choice": battle.vote.choice,
            "left": _stands(battle.left.version),
            "right": _stands(battle.right.version),
            "my_votes": my_votes(request),
        }
    )


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
def battle_page(request: HttpRequest, battle_id: UUID) -> HttpResponseBase:
    """After the vote: both names. Before it: back to voting."""
    battle = battle_of(voter_of(request), battle_id)
    if not hasattr(battle, "vote"):
        return redirect(_stream_url(battle.stream))
    facts = battle_facts(battle)
    reveal = {
        "choice": battle.vote.choice,
        "choice_label": Choice(battle.vote.choice).label,
        "left": facts["left"] | _stands(battle.left.version),
        "right": facts["right"] | _stands(battle.right.version),
        "prompt": battle.prompt.text,
        "category_label": facts["category_label"],
        "my_votes": my_votes(request),
        "width": facts["width"],
        "height": facts["height"],
    }
    context = {"reveal": reveal, "next_url": _stream_url(battle.stream)}
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
    return HttpResponse("User-agent: *\nDisallow: /vote/\n", content_type="text/plain")


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
