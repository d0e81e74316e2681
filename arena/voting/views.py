"""Pages of the voter, and the small JSON answers behind them.

A GET only reads: voters begin, pairs are drawn and invitations are accepted by POST. What a GET of
a clip moves is how long the voter's own vote slot is held, and, if its file is gone, the clip.
"""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from arena.context_processors import my_votes
from arena.experiments.panels import (
    OTHERS_JUDGE,
    UNINVITED,
    invited_member,
    join_panel,
    member_of,
    votes_given,
    why_done,
    why_none_now,
)
from arena.experiments.slots import hold_on
from arena.models import MIXED, PANEL, SOUND_DEFECTS, Battle, Choice, DefectKind, Member, Voter
from arena.voting.identity import remember, voter_of
from arena.voting.matchmaking import current_battle, next_battle, open_battles
from arena.voting.votes import (
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
from generation.catalogue.categories import Category
from generation.media import profile
from generation.media.serving import send_file
from generation.media.storage import media_storage
from generation.models import Version
from generation.rendering.sweep import fail_if_lost

log = logging.getLogger(__name__)

NOTHING_LEFT = "You've seen every pair here. New ones appear as clips are made."
ENOUGH_OPEN = "Finish the pairs already open in your other tabs."
NO_COOKIE = "Your browser sent no voter cookie. Allow cookies and reload the page."
GONE = "This clip no longer exists. Start with another pair."
STORAGE_AWAY = "The clips can't be reached at the moment. Please try again in a minute."
SIDES = ("a", "b")

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
    width, height = profile.PROFILE.canvases[battle.prompt.aspect]
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
    return [(kind.value, kind.label, kind in SOUND_DEFECTS) for kind in DefectKind]


def _panel_facts(member: Member | None) -> dict[str, Any] | None:
    if member is None:
        return None
    return {"name": member.panel.name, "given": votes_given(member), "quota": member.panel.quota}


def _member_in(stream: str, voter: Voter | None) -> Member | None:
    """The member, in the panel's stream; other streams are anybody's."""
    if stream != PANEL:
        return None
    if (member := member_of(voter)) is None:
        raise Refused(403, UNINVITED)
    return member


def _empty(title: str, reason: str, again: bool) -> dict[str, Any]:
    """What a page without a pair says, and whether it is to ask again by itself."""
    return {"title": title, "reason": reason, "again": again}


def _done(member: Member | None) -> dict[str, Any] | None:
    reason = why_done(member) if member else ""
    return _empty("You're done for now", reason, again=False) if reason else None


def _why_empty(member: Member | None) -> dict[str, Any]:
    """Asked when no pair was found for the voter."""
    if done := _done(member):
        return done
    reason = why_none_now(member) if member else NOTHING_LEFT
    title = "One moment" if reason == OTHERS_JUDGE else "You're done for now"
    return _empty(title, reason, again=True)


def _voting_page(
    request: HttpRequest,
    stream: str,
    member: Member | None,
    battle: Battle | None = None,
    empty: dict[str, Any] | None = None,
) -> HttpResponse:
    """With a pair, with what there is to say instead, or, with neither, with the offer to draw."""
    context = {
        "stream": stream,
        "panel": _panel_facts(member),
        "sides": SIDES,
        "defects": _defect_kinds() if member else [],
        "battle": battle_facts(battle) if battle else None,
        "empty": empty or _empty("Ready for the next pair?", "", again=True),
    }
    return render(request, "arena/vote.html", context)


@never_cache
@require_safe
@sentences
def vote_page(request: HttpRequest, stream: str = MIXED) -> HttpResponseBase:
    """The pair that the voter has open, ready to play; to newcomers, what voting is."""
    _check_stream(stream)
    voter = voter_of(request)
    member = _member_in(stream, voter)
    if voter is None:
        return render(request, "arena/start.html", {"stream": stream})
    battle = open_battles(voter, stream).first()
    return _voting_page(request, stream, member, battle, None if battle else _done(member))


@never_cache
@require_POST
@sentences
def next_pair(request: HttpRequest, stream: str) -> HttpResponseBase:
    """The next pair. To a script a further one, for loading ahead; `have` names the battles that
    its page holds. From a form the one to vote on now; a newcomer's form makes the voter."""
    _check_stream(stream)
    voter = voter_of(request)
    member = _member_in(stream, voter)
    if not wants_json(request):
        return _go_on(request, voter, stream)
    if voter is None:
        raise Refused(403, NO_COOKIE)
    held = request.POST.getlist("have")
    if battle := next_battle(voter, stream, held):
        return JsonResponse({"battle": battle_facts(battle)})
    empty = _empty("You're done for now", ENOUGH_OPEN, True) if held else _why_empty(member)
    return JsonResponse({"battle": None, **empty})


def _go_on(
    request: HttpRequest, voter: Voter | None, stream: str, joined: bool = False
) -> HttpResponseBase:
    """Draws the voter's next pair, if none is open, and leads to it."""
    newcomer = voter is None
    if voter is None:
        voter = Voter.objects.create()
    response: HttpResponseBase
    if current_battle(voter, stream):
        response = _see(_stream_url(stream))
    else:
        member = _member_in(stream, voter)
        response = _voting_page(request, stream, member, empty=_why_empty(member))
    if newcomer or joined:
        remember(response, voter)
    return response


def _see(address: str) -> HttpResponse:
    """After a POST: the answer is there, by GET (303, RFC 9110)."""
    response = redirect(address)
    response.status_code = 303
    return response


@require_POST
@sentences
def keep(request: HttpRequest, stream: str) -> HttpResponseBase:
    """From a page that plays: those of its battles, named in `have`, that it may still show. The
    vote slots of these are held on."""
    _check_stream(stream)
    voter = voter_of(request)
    if voter is None:
        raise Refused(403, NO_COOKIE)
    _member_in(stream, voter)
    shown = set(request.POST.getlist("have"))
    kept = [battle for battle in open_battles(voter, stream) if str(battle.pk) in shown]
    for battle in kept:
        if battle.block_id is not None:
            hold_on(battle.pk)
    return JsonResponse({"open": [str(battle.pk) for battle in kept]})


def _entrant(version: Version) -> dict[str, str]:
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
        said |= {side: _entrant(getattr(battle, f"clip_{side}").version) for side in SIDES}
    elif may_mark_defects(battle):
        said["defects_url"] = reverse("mark_defect", args=[battle_id])
        said["take_back_url"] = reverse("take_back_defect", args=[battle_id])
    if battle.stream == PANEL:
        said["panel"] = _panel_facts(member_of(battle.voter))
    return JsonResponse(said)


@require_POST
@sentences
def mark(request: HttpRequest, battle_id: UUID) -> HttpResponseBase:
    """Mark what was wrong in one clip of a pair; answers with all that is marked there."""
    given = (request.POST.get(name, "") for name in ("side", "kind", "second"))
    return _with_marks(request, mark_defect(voter_of(request), battle_id, *given))


@require_POST
@sentences
def take_back(request: HttpRequest, battle_id: UUID) -> HttpResponseBase:
    """Take a mark back; answers with what is marked still."""
    given = (request.POST.get(name, "") for name in ("side", "kind"))
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
        "sides": SIDES,
        "kinds": [
            (kind, label) for kind, label, of_sound in _defect_kinds() if audio or not of_sound
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
    return _go_on(request, voter, Battle.objects.get(pk=battle_id).stream)


def _stream_url(stream: str) -> str:
    return reverse("vote") if stream == MIXED else reverse("vote_category", args=[stream])


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@sentences
def panel_page(request: HttpRequest, token: str) -> HttpResponseBase:
    """What a panel's members read before they begin; its form makes this browser the member."""
    if request.method == "POST":
        return _go_on(request, join_panel(token), PANEL, joined=True)
    member, voter = invited_member(token), voter_of(request)
    context = {
        "panel": _panel_facts(member),
        "instructions": member.panel.instructions,
        "done": why_done(member),
        "joined": voter is not None and voter == member.voter,
        "votes_before": my_votes(request) if voter != member.voter else 0,
        "member_before": None if voter == member.voter else member_of(voter),
    }
    return render(request, "arena/panel.html", context)


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
        "a": facts["a"] | (_entrant(battle.clip_a.version) if named else {}),
        "b": facts["b"] | (_entrant(battle.clip_b.version) if named else {}),
        "prompt": battle.prompt.text,
        "language": battle.prompt.language,
        "category_label": facts["category_label"],
        "my_votes": my_votes(request),
        "width": facts["width"],
        "height": facts["height"],
        "marking": _marking(battle, facts["audio"]),
    }
    context = {"reveal": reveal, "battle_id": battle_id, "stream": battle.stream}
    return render(request, "arena/battle.html", context)


def _send(request: HttpRequest, name: str, clip: UUID | None) -> HttpResponseBase:
    """The file. A clip whose file is gone fails, and no pair with it is shown any more."""
    try:
        return send_file(request, name)
    except FileNotFoundError:
        lost = clip is None or fail_if_lost(clip)
        status, sentence = (404, GONE) if lost else (503, STORAGE_AWAY)
    except media_storage().refusals():
        log.exception("%s can't be read from the media storage", name)
        status, sentence = 503, STORAGE_AWAY
    raise Refused(status, sentence)


def _file_of(
    request: HttpRequest, battle_id: UUID, file: str, clip: str = ""
) -> tuple[str, UUID | None]:
    """The name of a battle's file and its clip, in one query, for the voter it was drawn for."""
    voter, fields = voter_of(request), [file, f"{clip}_id"] if clip else [file]
    row = Battle.objects.filter(pk=battle_id).values_list("voter_id", *fields).first()
    if row is None:
        raise Refused(404, "This pair does not exist.")
    if voter is None or row[0] != voter.pk:
        raise Refused(403, "This pair was shown to someone else.")
    if not row[1]:
        raise Refused(404, "This pair has no such file.")
    return str(row[1]), row[2] if clip else None


@require_safe
@sentences
def battle_video(request: HttpRequest, battle_id: UUID, side: str) -> HttpResponseBase:
    name, clip = _file_of(request, battle_id, f"clip_{side}__rendition", f"clip_{side}")
    if request.method == "GET":
        hold_on(battle_id)
    return _send(request, name, clip)


@require_safe
@sentences
def battle_poster(request: HttpRequest, battle_id: UUID, side: str) -> HttpResponseBase:
    name, clip = _file_of(request, battle_id, f"clip_{side}__poster", f"clip_{side}")
    return _send(request, name, clip)


@require_safe
@sentences
def battle_reference(request: HttpRequest, battle_id: UUID) -> HttpResponseBase:
    return _send(request, *_file_of(request, battle_id, "prompt__image__file"))


@require_safe
def robots(request: HttpRequest) -> HttpResponse:
    """An invitation is its member's alone, and the pages of votes are their voters'."""
    return HttpResponse(
        "User-agent: *\nDisallow: /battles/\nDisallow: /panel/\n", content_type="text/plain"
    )
