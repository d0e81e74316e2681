"""Pages and files of the leaderboards."""

import csv
from decimal import Decimal
from typing import Any

from django.db.models import Count, Prefetch, QuerySet, prefetch_related_objects
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_safe

from arena.context_processors import category_facts
from arena.operators import may_view
from generation.catalogue.categories import Category
from generation.models import Clip, ClipState, Model, Version, VersionState, is_web_link
from generation.rendering.progress import Speed, speeds
from ratings.boards.lineage import Lineage, lineage_page, read_lineage, usual_since
from ratings.boards.stored import NEW_BELOW, newest_board
from ratings.models import Leaderboard, Standing
from ratings.robustness import page as robustness_page
from ratings.robustness.stored import newest_findings, newest_slices

PROVISIONAL_BELOW = 300  # votes
SETTLED_WITHIN = 25.0  # Elo points to either side
COLUMNS = (
    "category", "slice", "slug",
    "rank_low", "rank_high", "name", "lab", "weights", "rating", "low", "high", "votes",
    "win_rate", "mark", "off_format", "from_category", "differs",
    "tied_with_leader", "board_votes", "voters", "prompts", "simulated_votes", "last_vote_id",
    "last_exclusion_id", "digest", "created_at",
)  # fmt: skip


def latest_boards(categories: list[Category], slice_: str = "") -> dict[str, Leaderboard]:
    """The newest snapshot of each category, or of a slice of it, with its standings."""
    boards = [board for c in categories if (board := newest_board(c.value, slice_))]
    standings: QuerySet[Standing] = (
        Standing.objects.filter(version__activated_at__isnull=False)
        .select_related("version__model")
        .order_by("-rating", "version_id")
    )
    prefetch_related_objects(boards, Prefetch("standings", standings))
    return {board.category: board for board in boards}


def mark_of(standing: Standing) -> str:
    """new, provisional or settled: how far the standing is to be trusted."""
    if standing.votes < NEW_BELOW:
        return "new"
    rating, low, high = standing.rating, standing.low, standing.high
    if rating is None or low is None or high is None or standing.votes < PROVISIONAL_BELOW:
        return "provisional"
    wide = max(high - rating, rating - low) > SETTLED_WITHIN
    return "provisional" if wide else "settled"


def off_format_versions(clips: QuerySet[Clip]) -> set[int]:
    """Versions with ready clips among these that are off-format."""
    off_format = clips.filter(state=ClipState.READY, off_format=True)
    return set(off_format.values_list("version_id", flat=True).distinct())


def standing_facts(
    standing: Standing, speed: Speed | None = None, off_format: bool = False
) -> dict[str, Any]:
    version = standing.version
    return {
        "rank_low": standing.rank_low,
        "rank_high": standing.rank_high,
        "name": version.public_name,
        "slug": version.public_slug,
        "lab": version.public_lab,
        "url": version.public_url,
        "weights": version.model.weights if version.is_public else "",
        "rating": standing.rating,
        "low": standing.low,
        "high": standing.high,
        "votes": standing.votes,
        "win_rate": standing.win_rate,
        "mark": mark_of(standing),
        "off_format": off_format if version.is_public else None,
        "price": _number(version.price_per_second) if version.is_public else None,
        "seconds_per_clip": speed.seconds if speed and version.is_public else None,
        "hardware": speed.hardware if speed and version.is_public else "",
        "tied_with_leader": standing.tied_with_leader,
        "from_category": standing.from_category,
        "from_words": _from_words(standing.from_category),
        "in_house": version.is_public and version.model.in_house,
        "differs": standing.differs,
    }


def _from_words(points: float | None) -> str:
    """How a rating on a slice compares with the one on all prompts."""
    if points is None:
        return ""
    if round(points) == 0:
        return "same as overall"
    return f"{abs(points):.0f} {'above' if points > 0 else 'below'} overall"


def _number(price: Decimal | None) -> float | None:
    return None if price is None else float(price)


def split_standings(
    board: Leaderboard, with_facts: bool = True
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The ranked rows, best first, and those that can't be ranked yet; `with_facts` adds what
    their clips measure."""
    clips = Clip.objects.filter(category=board.category)
    known, off_format = (speeds(clips), off_format_versions(clips)) if with_facts else ({}, set())
    ranked: list[dict[str, Any]] = []
    unranked: list[dict[str, Any]] = []
    for standing in board.standings.all():
        pk = standing.version_id
        facts = standing_facts(standing, known.get(pk), pk in off_format)
        (unranked if standing.rank_low is None else ranked).append(facts)
    return ranked, unranked


def tie_sentence(standings: list[dict[str, Any]]) -> str:
    if not standings:
        return "No version has enough votes to be ranked yet."
    names = [standings[0]["name"]] + [s["name"] for s in standings[1:] if s["tied_with_leader"]]
    if len(names) == 1:
        return f"{names[0]} leads."
    return f"{', '.join(names[:-1])} and {names[-1]} are in a statistical tie for first place."


def _axis(standings: list[dict[str, Any]]) -> dict[str, float]:
    """The part of the rating axis that the bars are drawn on, rounded outward to 50 points."""
    ends = [s[key] for s in standings for key in ("low", "rating", "high") if s[key] is not None]
    if not ends:
        return {"low": 950.0, "high": 1050.0}
    return {"low": min(ends) // 50 * 50, "high": -(-max(ends) // 50) * 50}


def _category(slug: str) -> Category:
    try:
        return Category(slug)
    except ValueError:
        raise Http404(f"There is no category {slug}.") from None


def _summary(category: Category, board: Leaderboard | None, top: int) -> dict[str, Any]:
    ranked, unranked = split_standings(board, with_facts=False) if board else ([], [])
    leader = ranked[0] if ranked else None
    return {
        "category": category_facts(category),
        "leader": leader
        and {**leader, "interval_low": leader["low"], "interval_high": leader["high"]},
        "votes": board.votes if board else 0,
        "ranked": len(ranked),
        "unranked": len(unranked),
        "more": max(0, len(ranked) - top),
        "tied": [s["name"] for s in ranked if s["tied_with_leader"]],
        "top": ranked[:top],
        "windows": _axis(ranked[:top]),
    }


def _summaries(top: int) -> list[dict[str, Any]]:
    boards = latest_boards(list(Category))
    return [_summary(category, boards.get(category.value), top) for category in Category]


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "ratings/home.html", {"boards": _summaries(1)})


@require_safe
def leaderboards(request: HttpRequest) -> HttpResponse:
    return render(request, "ratings/leaderboards.html", {"boards": _summaries(5)})


def _chosen(request: HttpRequest, category: str) -> tuple[Category, str, Leaderboard | None]:
    """The category and slice that an address asks for, and its newest snapshot, if there is one."""
    chosen, slice_ = _category(category), request.GET.get("slice", "")
    if slice_ and slice_ not in newest_slices(chosen.value):
        raise Http404("This leaderboard has no such slice.")
    return chosen, slice_, latest_boards([chosen], slice_).get(chosen.value)


@require_safe
def leaderboard(request: HttpRequest, category: str) -> HttpResponse:
    chosen, slice_, board = _chosen(request, category)
    ranked, unranked = split_standings(board) if board else ([], [])
    asked = f"?{urlencode({'slice': slice_})}" if slice_ else ""
    context = {
        "category": category_facts(chosen),
        "board": board and _board_facts(board),
        "slice": slice_,
        "slices": newest_slices(chosen.value),
        "standings": ranked,
        "unranked": unranked,
        "tie_sentence": tie_sentence(ranked),
        "windows": _axis(ranked),
        "with_price": any(s["price"] is not None for s in ranked),
        "with_speed": any(s["seconds_per_clip"] is not None for s in ranked),
        "any_off_format": any(s["off_format"] for s in ranked),
        "csv_url": reverse("leaderboard_csv", args=[chosen.value]) + asked,
        "json_url": reverse("leaderboard_json", args=[chosen.value]) + asked,
    }
    return render(request, "ratings/leaderboard.html", context)


def _board_facts(board: Leaderboard) -> dict[str, Any]:
    return {
        "category": board.category,
        "slice": board.slice,
        "created_at": board.created_at,
        "last_vote_id": board.last_vote_id,
        "last_exclusion_id": board.last_exclusion_id,
        "votes": board.votes,
        "voters": board.voters,
        "prompts": board.prompts,
        "simulated_votes": board.simulated_votes,
        "simulated_share": board.simulated_votes / board.votes if board.votes else 0.0,
        "method": board.method,
        "settings": board.settings,
        "digest": board.digest,
    }


@require_safe
def leaderboard_json(request: HttpRequest, category: str) -> JsonResponse:
    chosen, _, board = _chosen(request, category)
    ranked, unranked = split_standings(board) if board else ([], [])
    facts = _board_facts(board) if board else {"category": chosen.value, "votes": 0}
    return JsonResponse({**facts, "standings": ranked, "not_ranked": unranked})


@require_safe
def leaderboard_csv(request: HttpRequest, category: str) -> HttpResponse:
    chosen, slice_, board = _chosen(request, category)
    ranked, unranked = split_standings(board) if board else ([], [])
    name = "-".join(filter(None, [chosen.value, slice_]))
    response = HttpResponse(
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"'},
    )
    writer = csv.DictWriter(response, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    # Each row says which board it is from and what that counted: files travel without their page.
    source: dict[str, Any] = {"category": chosen.value}
    if board:
        source |= {**_board_facts(board), "board_votes": board.votes}
    for row in ranked + unranked:
        rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
        writer.writerow({**source, **rounded})
    return response


@require_safe
def robustness(request: HttpRequest, category: str) -> HttpResponse:
    chosen = _category(category)
    newest = newest_findings(chosen.value)
    has_votes = newest is not None and "versions" in newest.findings
    context = {
        "category": category_facts(chosen),
        "made": newest,
        "counts_simulated": newest is not None and newest.simulated_counted,
        **(robustness_page.context_of(newest.findings) if newest and has_votes else {}),
    }
    return render(request, "ratings/robustness.html", context)


@require_safe
def robustness_json(request: HttpRequest, category: str) -> JsonResponse:
    """The findings as they were stored, with names beside the versions' numbers."""
    chosen = _category(category)
    newest = newest_findings(chosen.value)
    if newest is None or "versions" not in newest.findings:
        return JsonResponse({"category": chosen.value, "votes": 0})
    names = robustness_page.names_of(newest.findings["versions"])
    return JsonResponse(
        {
            "category": chosen.value,
            "created_at": newest.created_at,
            "last_vote_id": newest.last_vote_id,
            "last_exclusion_id": newest.last_exclusion_id,
            "names": [names[pk] for pk in newest.findings["versions"]],
            **newest.findings,
        }
    )


@require_safe
def methodology(request: HttpRequest) -> HttpResponse:
    return render(request, "ratings/methodology.html")


@require_safe
def models_page(request: HttpRequest) -> HttpResponse:
    """Every model that may be named, with its versions."""
    shown = []
    named = Prefetch("versions", Version.objects.public())
    for model in Model.objects.prefetch_related(named):
        versions = list(model.versions.all())
        if not versions:
            continue
        shown.append(
            {
                "name": model.name,
                "lab": model.lab,
                "weights": model.weights,
                "licence": model.licence,
                "released_on": model.released_on,
                "url": model.get_absolute_url(),
                "versions": [
                    {
                        "name": version.name,
                        "state": version.state,
                        "categories": [Category(c).short for c in version.categories],
                        "url": version.public_url,
                    }
                    for version in versions
                ],
            }
        )
    return render(request, "ratings/models.html", {"models": shown})


@require_safe
def model_page(request: HttpRequest, slug: str) -> HttpResponse:
    """What may be told of a model. Whoever may view versions sees those on trial too, and who
    competes under which codename."""
    sees_all = may_view(request, "generation.view_version")
    chosen = Version.objects.filter(model__slug=slug).select_related("model", "parent")
    shown = chosen.public()
    if sees_all:
        shown |= chosen.exclude(state=VersionState.DRAFT)
    versions = list(shown)
    if not versions:  # also of a model that has no public version yet
        raise Http404("There is no such model.")
    model = versions[0].model
    known, boards = speeds(Clip.objects.filter(version__in=versions)), latest_boards(list(Category))
    context: dict[str, Any] = {
        "model": _model_facts(model),
        "versions": _cards(versions, boards, known),
    }
    if model.in_house:
        with_experiments = sees_all and may_view(request, "arena.view_experiment")
        lineage = read_lineage(versions, boards, with_experiments)
        context["with_experiments"] = with_experiments
        context["lineage"] = lineage_page(lineage, known, _since(request, lineage))
    return render(request, "ratings/model.html", context)


def _cards(
    versions: list[Version], boards: dict[str, Leaderboard], known: dict[int, Speed]
) -> list[dict[str, Any]]:
    clips = Clip.objects.filter(version__in=versions)
    off_format = off_format_versions(clips)
    ready = dict(
        clips.filter(state=ClipState.READY).values_list("version_id").annotate(count=Count("pk"))
    )
    return [
        {
            **_version_facts(version, boards, versions),
            "clips_ready": ready.get(version.pk, 0),
            "off_format": version.pk in off_format,
            "seconds_per_clip": known[version.pk].seconds if version.pk in known else None,
            "hardware": known[version.pk].hardware if version.pk in known else "",
        }
        for version in versions
    ]


def _since(request: HttpRequest, lineage: Lineage) -> Version:
    """The version that the address asks to compare with."""
    slug = request.GET.get("since")
    if not slug:
        return usual_since(lineage.versions)
    for version in lineage.versions:
        if version.slug == slug:
            return version
    raise Http404("This model has no such version.")


def _model_facts(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "lab": model.lab,
        "weights": model.weights,
        "licence": model.licence,
        "released_on": model.released_on,
        "links": [link for link in model.links if is_web_link(link)],
        "in_house": model.in_house,
        "description": model.description,
    }


def _version_facts(
    version: Version, boards: dict[str, Leaderboard], shown: list[Version]
) -> dict[str, Any]:
    standings = [
        {
            **standing_facts(standing),
            "category_label": Category(board.category).label,
            "url": reverse("leaderboard", args=[board.category]),
        }
        for board in boards.values()
        for standing in board.standings.all()
        if standing.version_id == version.pk and standing.rating is not None
    ]
    length = f"{version.min_seconds:g} s"
    if version.max_seconds != version.min_seconds:
        length = f"{version.min_seconds:g}–{version.max_seconds:g} s"
    return {
        "slug": version.slug,
        "name": version.name,
        "state": version.state,
        "public": version.is_public,
        "codename": version.codename,
        "parent": version.parent.name if version.parent in shown else "",
        "categories": [Category(c).short for c in version.categories],
        "resolution": f"{version.width}×{version.height}",
        "fps": f"{version.fps:g}",
        "length": length,
        "price": version.price_per_second,
        "availability": version.availability,
        "standings": standings,
    }
