"""Pages of the model team: experiments, the planner, one experiment."""

from typing import Any, cast
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from arena.celery import wake
from arena.experiments.panels import voter_names
from arena.experiments.proposal import NotStarted, resolve
from arena.experiments.start import cancel_experiment, start_or_find
from arena.ledger import record_exclusions
from arena.models import Exclusion, Experiment, ExperimentState, Vote, Voter
from ratings.experiments.forms import ExperimentForm
from ratings.experiments.page import page_of, plan_facts, rows_of
from ratings.experiments.plans import find_plan, plan_as_json, request_plan
from ratings.experiments.snapshots import snapshot_answer
from ratings.experiments.state import newest_assessment
from ratings.models import PlanState, StoredPlan

LISTED = 100  # of each state
EXCLUSION_REASON_LENGTH = 300


def _allow(request: HttpRequest, permission: str) -> None:
    if not request.user.has_perm(permission):
        raise PermissionDenied


@require_safe
def experiments(request: HttpRequest) -> HttpResponse:
    _allow(request, "arena.view_experiment")
    chosen = Experiment.objects.select_related("candidate", "baseline", "obstacle_note")
    listed = [each for state in ExperimentState for each in chosen.filter(state=state)[:LISTED]]
    rows = rows_of(listed)
    groups = [
        {
            "label": state.label,
            "state": state.value,
            "rows": [row for row in rows if row["experiment"].state == state],
        }
        for state in ExperimentState
    ]
    context = {"groups": groups, "any": bool(rows), "listed": LISTED}
    return render(request, "ratings/experiments.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def new_experiment(request: HttpRequest) -> HttpResponse:
    """GET with `plan` shows what the experiment would cost, POST starts it."""
    _allow(request, "arena.add_experiment")
    if request.method == "POST":
        return _start_experiment(request)
    asked = request.GET if "plan" in request.GET else None
    form = ExperimentForm(asked, initial=request.GET.dict())
    stored = None
    if form.is_valid():
        try:
            stored = find_plan(request.GET["plan"], form.asked) or request_plan(form.asked)
        except NotStarted as refused:
            form.add_objections(refused.objections)
    return _render_planner(request, form, stored)


def _start_experiment(request: HttpRequest) -> HttpResponse:
    """Start it, or find it if the button was pressed twice."""
    form = ExperimentForm(request.POST)
    if form.is_valid():
        by = cast(User, request.user).get_username()
        try:
            started, _ = start_or_find(resolve(form.asked, by), running_only=True)
            return redirect("experiment", started.pk)
        except NotStarted as refused:
            form.add_objections(refused.objections)
    return _render_planner(request, form, None)


def _render_planner(
    request: HttpRequest, form: ExperimentForm, stored: StoredPlan | None
) -> HttpResponse:
    asked = request.POST if request.method == "POST" else request.GET
    context: dict[str, Any] = {"form": form, "stored": stored, "asked": asked.lists()}
    if stored is not None and stored.chances is not None:
        context["plan"] = plan_facts(plan_as_json(stored.facts, stored.chances))
    if stored is not None and stored.state == PlanState.WAITING:
        context["refresh"] = _address_of_plan(request, stored)
    template = "ratings/_plan.html" if "fragment" in request.GET else "ratings/experiment_new.html"
    return render(request, template, context, status=400 if form.errors else 200)


def _address_of_plan(request: HttpRequest, stored: StoredPlan) -> str:
    """Shows this very plan, whatever votes come while it is computed."""
    query = request.GET.copy()
    query["plan"] = str(stored.pk)
    query.pop("fragment", None)
    return f"{request.path}?{query.urlencode()}"


def _experiment_or_404(experiment_id: UUID) -> Experiment:
    chosen = Experiment.objects.select_related(
        "candidate__model", "baseline__model", "prompt_set", "obstacle_note"
    )
    return get_object_or_404(chosen, pk=experiment_id)


@require_safe
def experiment(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    """Where it stands; with ?fragment only the part that changes, for experiment.js."""
    _allow(request, "arena.view_experiment")
    return _render_experiment(request, _experiment_or_404(experiment_id))


def _render_experiment(request: HttpRequest, shown: Experiment, **refusal: str) -> HttpResponse:
    context = {**page_of(shown, newest_assessment(shown)), "refusal": refusal}
    usual = context.get("usual", [])  # folded, unless what was refused is among them
    context["refused_usual"] = any(row["voter"] == refusal.get("voter") for row in usual)
    part = "ratings/_experiment.html" if "fragment" in request.GET else "ratings/experiment.html"
    return render(request, part, context, status=400 if refusal else 200)


@require_POST
def exclude_voter(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    """Take a voter's votes out of all ratings, or back in; a worker assesses the experiment."""
    _allow(request, "arena.view_experiment")
    _allow(request, "arena.add_exclusion")
    shown, voter = _experiment_or_404(experiment_id), _voter_in(request, experiment_id)
    back = request.POST.get("action") == Exclusion.Action.INCLUDE
    action = Exclusion.Action.INCLUDE if back else Exclusion.Action.EXCLUDE
    reason = request.POST.get("reason", "").strip()
    if not 0 < len(reason) <= EXCLUSION_REASON_LENGTH:
        sentence = (
            f"Nothing was recorded. Give a reason of at most {EXCLUSION_REASON_LENGTH} characters."
        )
        return _render_experiment(request, shown, voter=str(voter.pk), sentence=sentence)
    name = voter_names([voter.pk])[voter.pk]
    if record_exclusions(action, "voter", [voter], reason, cast(User, request.user)):
        transaction.on_commit(lambda: wake("ratings.tasks.assess_experiment", str(shown.pk)))
        done = "is included again" if back else "is excluded"
        messages.success(request, f"{name} {done}. The new assessment appears within seconds.")
    else:
        messages.info(request, f"{name} needed no entry, because the ledger says so already.")
    return redirect("experiment", shown.pk)


def _voter_in(request: HttpRequest, experiment_id: UUID) -> Voter:
    try:
        voter_id = UUID(request.POST.get("voter", ""))
    except ValueError:
        raise Http404("This voter does not exist.") from None
    votes = Vote.objects.filter(experiment=experiment_id, voter=voter_id)
    if not votes.exists():
        raise Http404("This voter has no vote in this experiment.")
    return Voter.objects.get(pk=voter_id)


@require_POST
def cancel_from_page(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    _allow(request, "arena.change_experiment")
    shown = _experiment_or_404(experiment_id)
    if cancel_experiment(shown):
        messages.success(request, "Experiment cancelled. Its votes stay.")
    else:
        messages.info(
            request, f"This experiment was not running. It is {shown.get_state_display().lower()}."
        )
    return redirect("experiment", shown.pk)


@require_safe
def snapshot_file(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    """The votes behind the newest assessment, signed."""
    _allow(request, "arena.view_experiment")
    made = newest_assessment(_experiment_or_404(experiment_id))
    if made is None:
        raise Http404("This experiment has not been assessed yet.")
    return snapshot_answer(made)
