"""Pages of the model team: experiments, the planner, one experiment."""

from typing import cast
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from arena.admin import record
from arena.experiments import cancel
from arena.models import Exclusion, Experiment, ExperimentState, Vote, Voter
from ratings.experiment_form import ExperimentForm
from ratings.experiment_page import page_of, plan_facts, rows_of
from ratings.experiments import assess, names_of, newest, plan_of
from ratings.snapshots import snapshot_answer

LISTED = 100  # of each state
REASON_AT_MOST = 300


def _allow(request: HttpRequest, permission: str) -> None:
    if not request.user.has_perm(permission):
        raise PermissionDenied


@require_safe
def experiments(request: HttpRequest) -> HttpResponse:
    _allow(request, "arena.view_experiment")
    chosen = Experiment.objects.select_related("candidate", "baseline")
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
    by = cast(User, request.user).get_username()
    asked = request.POST if request.method == "POST" else request.GET
    sent = request.method == "POST" or "plan" in request.GET
    form = ExperimentForm(asked if sent else None, initial=asked.dict(), by=by)
    plan = None
    if sent and form.is_valid():
        if request.method == "POST" and (started := form.start()):
            return redirect("experiment", started.pk)
        said = form.cleaned_data
        if not form.errors:
            try:
                found = plan_of(form.proposal(), said["tie_rate"], said["voters"])
                plan = plan_facts(found)
            except ValueError as error:  # with so few prompts there is never a verdict
                form.add_error(None, str(error))
    status = 400 if sent and form.errors else 200
    context = {"form": form, "plan": plan, "asked": asked.lists()}
    return render(request, "ratings/experiment_new.html", context, status=status)


def _experiment(experiment_id: UUID) -> Experiment:
    chosen = Experiment.objects.select_related("candidate__model", "baseline__model", "prompt_set")
    return get_object_or_404(chosen, pk=experiment_id)


@require_safe
def experiment(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    """Where it stands; with ?fragment only the part that changes, for experiment.js."""
    _allow(request, "arena.view_experiment")
    return _show(request, _experiment(experiment_id))


def _show(request: HttpRequest, shown: Experiment, **refusal: str) -> HttpResponse:
    context = {**page_of(shown, newest(shown)), "refusal": refusal}
    part = "ratings/_experiment.html" if "fragment" in request.GET else "ratings/experiment.html"
    return render(request, part, context, status=400 if refusal else 200)


@require_POST
def exclude_voter(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    """Take a voter's votes out of all ratings, or back in, and judge the experiment anew."""
    _allow(request, "arena.view_experiment")
    _allow(request, "arena.add_exclusion")
    shown, voter = _experiment(experiment_id), _voter_in(request, experiment_id)
    back = request.POST.get("action") == Exclusion.Action.INCLUDE
    action = Exclusion.Action.INCLUDE if back else Exclusion.Action.EXCLUDE
    reason = request.POST.get("reason", "").strip()
    if not 0 < len(reason) <= REASON_AT_MOST:
        sentence = f"Say why, in at most {REASON_AT_MOST} characters: nothing was recorded."
        return _show(request, shown, voter=str(voter.pk), sentence=sentence)
    name = names_of([voter.pk])[voter.pk]
    if record(action, "voter", [voter], reason, cast(User, request.user)):
        assess(shown)
        done = "counts again" if back else "is excluded"
        messages.success(request, f"{name} {done}; the experiment was judged anew.")
    else:
        messages.info(request, f"{name} needed no entry: the ledger says so already.")
    return redirect("experiment", shown.pk)


def _voter_in(request: HttpRequest, experiment_id: UUID) -> Voter:
    try:
        voter_id = UUID(request.POST.get("voter", ""))
    except ValueError:
        raise Http404("There is no such voter.") from None
    votes = Vote.objects.filter(experiment=experiment_id, voter=voter_id)
    if not votes.exists():
        raise Http404("This voter has no vote in this experiment.")
    return Voter.objects.get(pk=voter_id)


@require_POST
def cancel_experiment(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    _allow(request, "arena.change_experiment")
    shown = _experiment(experiment_id)
    if cancel(shown):
        messages.success(request, "The experiment is cancelled. Its votes stay.")
    else:
        messages.info(request, f"It was not running: it is {shown.get_state_display().lower()}.")
    return redirect("experiment", shown.pk)


@require_safe
def snapshot_file(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    """The votes behind the newest assessment, signed."""
    _allow(request, "arena.view_experiment")
    made = newest(_experiment(experiment_id))
    if made is None:
        raise Http404("This experiment was not assessed yet.")
    return snapshot_answer(made)
