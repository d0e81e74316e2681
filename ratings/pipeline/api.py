"""What a training pipeline asks over HTTP: enter a version, start an experiment, read its state.

Whoever asks sends a key of `manage.py token`; sessions of the site do not count here. Asking the
same again changes nothing and finds what is there.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal
from uuid import UUID

from django.db import DataError
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from ninja import NinjaAPI, Query, Schema, Status
from ninja.errors import (
    AuthenticationError,
    HttpError,
    ValidationError,
    ValidationErrorContext,
)
from ninja.security import HttpBearer
from pydantic import ConfigDict, Field, FiniteFloat

from arena.experiments.proposal import (
    NotStarted,
    Objection,
    PlanInput,
    ProposalInput,
    Slug,
    Text,
    objection_to,
    resolve,
)
from arena.experiments.start import start_or_find
from arena.ledger import advisory_lock
from arena.models import Experiment
from generation.catalogue.categories import Category
from generation.catalogue.entries import CatalogueError, SlugTaken, enter_version
from generation.models import CLIP_LENGTHS, FRAME_RATES, SIDE_PIXELS, Version
from ratings.experiments.plans import plan_as_json, request_plan
from ratings.experiments.snapshots import snapshot_answer
from ratings.experiments.state import newest_assessment, newest_assessments, state_of
from ratings.models import ApiToken, Assessment, PlanState, Scope, StoredPlan
from ratings.pipeline.tokens import KeyRefused, token_row

Size = Annotated[int, Field(ge=SIDE_PIXELS[0], le=SIDE_PIXELS[1])]
FrameRate = Annotated[FiniteFloat, Field(ge=FRAME_RATES[0], le=FRAME_RATES[1])]
Seconds = Annotated[FiniteFloat, Field(ge=CLIP_LENGTHS[0], le=CLIP_LENGTHS[1])]


# What an experiment is selected with, so that showing many takes as many queries as showing one.
SHOWN_WITH = ("candidate", "baseline", "prompt_set", "obstacle_note")


class Token(HttpBearer):
    """`Authorization: Bearer KEY`, of a key that has the scope."""

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self.scope = scope

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken | None:
        return token_row(token, self.scope)


class PipelineApi(NinjaAPI):
    """Says what is wrong with a request as objections, like the form and the commands."""

    def validation_error_from_error_contexts(
        self, error_contexts: list[ValidationErrorContext]
    ) -> ValidationError:
        errors = [
            error
            for context in error_contexts
            for error in context.pydantic_validation_error.errors()
        ]
        return ValidationError([asdict(objection_to(error, _field_in(error))) for error in errors])


def _field_in(error: Any) -> str:
    """Where in the body or query; the name of our own parameter is no part of it."""
    return ".".join(str(part) for part in error["loc"] if part != "asked") or "body"


# No page of documentation: those of the library bring styles that the site's policy refuses.
api = PipelineApi(
    title="Photofinish",
    version="1",
    description="Experiments for a training pipeline; docs/pipeline.md shows how.",
    auth=Token(Scope.READ),
    docs_url=None,
    urls_namespace="api",
)


class VersionIn(Schema):
    """A version as in the catalogue: `settings` name the checkpoint by a path or by a repository
    and its revision, as the backend asks for them."""

    model_config = ConfigDict(extra="forbid")

    model: Slug
    slug: Slug
    name: Annotated[Text, Field(min_length=1, max_length=120)]
    parent: Slug | None = None
    backend: Slug
    settings: dict[str, Any] = {}
    categories: Annotated[list[Category], Field(min_length=1)]
    width: Size
    height: Size
    fps: FrameRate
    min_seconds: Seconds
    max_seconds: Seconds


class VersionOut(Schema):
    slug: str
    model: str
    name: str
    state: str
    categories: list[str]
    created: bool


class ObstacleOut(Schema):
    code: str
    sentence: str


class ExperimentOut(Schema):
    """What is fixed, and where it stands. `verdict` is null while it goes on."""

    experiment: UUID
    address: str
    name: str
    candidate: str
    baseline: str
    category: str
    prompt_set: str
    seed_slots: int
    margin: float
    alpha: float
    beta: float
    max_votes: int
    public_share: float
    muted_share: float
    panels: list[str]
    state: Literal["running", "decided", "cancelled", "failed"]
    error: str | None  # why it failed
    created_at: str
    verdict: Literal["pass", "regressed", "inconclusive"] | None
    rule: str | None
    votes: int
    blocks: int
    decided_at: int | None
    llr: float
    bounds: list[float]
    e_value: float
    alarm: float
    estimate: float | None
    low: float | None
    high: float | None
    assessment: int | None
    obstacles: list[ObstacleOut]
    obstacles_at: str | None  # when a worker last looked for them


class PlanWaiting(Schema):
    """It is being computed: ask at the address."""

    plan: UUID
    address: str


class Problem(Schema):
    error: str


class ObjectionOut(Schema):
    field: str
    code: str
    sentence: str


class Rejection(Problem):
    """`error` is all of its sentences."""

    objections: list[ObjectionOut]


@api.post(
    "/versions",
    auth=Token(Scope.VERSIONS),
    response={200: VersionOut, 201: VersionOut, 409: Problem, 422: Rejection},
)
def post_version(request: HttpRequest, asked: VersionIn) -> Status:
    """Enter a version on trial: it is rendered, and shown in experiments only."""
    fields = asked.dict(exclude={"model", "parent"})
    fields["categories"] = [category.value for category in asked.categories]
    try:
        with advisory_lock(f"enter version {asked.slug}"):
            version, new = enter_version(asked.model, asked.parent or "", fields)
    except SlugTaken as error:
        raise HttpError(409, str(error)) from None
    except DataError:
        sentence = "A value is none that the database can keep."
        raise NotStarted([Objection("settings", "not_storable", sentence)]) from None
    return Status(201 if new else 200, _version_out(version, new))


def _version_out(version: Version, new: bool) -> dict[str, Any]:
    return {
        "slug": version.slug,
        "model": version.model.slug,
        "name": version.name,
        "state": version.state,
        "categories": version.categories,
        "created": new,
    }


@api.post(
    "/experiments",
    auth=Token(Scope.EXPERIMENTS),
    response={200: ExperimentOut, 201: ExperimentOut, 409: Problem, 422: Rejection},
)
def post_experiment(request: HttpRequest, asked: ProposalInput) -> Status:
    """Start an experiment, or find the one of the same design. Without panels and public share, a
    quarter of the category's public pairs votes on it."""
    token: ApiToken = request.auth  # type: ignore[attr-defined]  # put there by the library
    experiment, new = start_or_find(resolve(asked, f"the API key {token.name}"))
    if asked.webhook not in ("", experiment.webhook):
        raise HttpError(
            409, f"webhook: the experiment {experiment.pk} has this design and another webhook."
        )
    made = newest_assessments([experiment]).get(experiment.pk)
    return Status(201 if new else 200, _state(request, experiment, made))


@api.post(
    "/plans",
    auth=Token(Scope.EXPERIMENTS),
    response={200: dict[str, Any], 202: PlanWaiting, 422: Rejection},
)
def post_plan(request: HttpRequest, asked: PlanInput) -> Status:
    """What such an experiment would cost and find; nothing is started. 202 while it is computed."""
    return _plan_answer(request, request_plan(asked))


@api.get("/plans/{uuid:plan_id}", response={200: dict[str, Any], 202: PlanWaiting, 404: Problem})
def get_plan(request: HttpRequest, plan_id: UUID) -> Status:
    """A plan that was asked for; it is kept for a week."""
    plan = StoredPlan.objects.filter(pk=plan_id).first()
    if plan is None:
        raise HttpError(404, f"There is no plan {plan_id}: ask for it again.")
    return _plan_answer(request, plan)


def _plan_answer(request: HttpRequest, plan: StoredPlan) -> Status:
    if plan.state == PlanState.FAILED:
        raise HttpError(500, f"The plan {plan.pk} could not be computed: {plan.error}")
    if plan.chances is None:
        address = request.build_absolute_uri(reverse("api:get_plan", args=[plan.pk]))
        return Status(202, {"plan": plan.pk, "address": address})
    return Status(200, plan_as_json(plan.facts, plan.chances))


@api.get("/experiments", response=list[ExperimentOut])
def list_experiments(
    request: HttpRequest,
    candidate: Text = "",
    state: Literal["", "running", "decided", "cancelled", "failed"] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> list[dict[str, Any]]:
    """Experiments, newest first."""
    rows = Experiment.objects.select_related(*SHOWN_WITH)
    filters = {"candidate__slug": candidate, "state": state}
    rows = rows.filter(**{name: value for name, value in filters.items() if value})
    page = list(rows.prefetch_related("panels").order_by("-created_at")[offset : offset + limit])
    made = newest_assessments(page)
    return [_state(request, row, made.get(row.pk)) for row in page]


@api.get("/experiments/{uuid:experiment_id}", response={200: ExperimentOut, 404: Problem})
def get_experiment(request: HttpRequest, experiment_id: UUID) -> dict[str, Any]:
    """Where it stands by its newest assessment, which follows the votes within seconds."""
    experiment = _find_experiment(experiment_id)
    return _state(request, experiment, newest_assessments([experiment]).get(experiment.pk))


@api.get("/experiments/{uuid:experiment_id}/snapshot", response={404: Problem})
def get_snapshot(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    """The votes behind the newest assessment, signed: gzip of JSON lines."""
    experiment = _find_experiment(experiment_id)
    made = newest_assessment(experiment)
    if made is None:
        raise HttpError(404, f"The experiment {experiment.pk} was not assessed yet: ask again.")
    return snapshot_answer(made)


def _find_experiment(experiment_id: UUID) -> Experiment:
    experiment = Experiment.objects.select_related(*SHOWN_WITH).filter(pk=experiment_id).first()
    if experiment is None:
        raise HttpError(404, f"There is no experiment {experiment_id}.")
    return experiment


def _state(request: HttpRequest, experiment: Experiment, made: Assessment | None) -> dict[str, Any]:
    said = state_of(experiment, made)
    return {**said, "address": request.build_absolute_uri(said["address"])}


# --- errors: {"error": sentence}, and for 422 each objection by field -----------------------------


@api.exception_handler(AuthenticationError)
def _no_token(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    sentence = "Send a key that is good: “Authorization: Bearer KEY”, of `manage.py token new`."
    return _bad_token(request, KeyRefused(401, sentence))


@api.exception_handler(KeyRefused)
def _bad_token(request: HttpRequest, error: KeyRefused) -> HttpResponse:
    response = api.create_response(request, {"error": str(error)}, status=error.status)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


@api.exception_handler(HttpError)
def _refused(request: HttpRequest, error: HttpError) -> HttpResponse:
    unread = error.status_code == 400  # the library's own, where it can't parse the body
    sentence = "The body is not JSON: send one object." if unread else str(error)
    return api.create_response(request, {"error": sentence}, status=error.status_code)


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    return _reject(request, [Objection(**each) for each in error.errors])


@api.exception_handler(NotStarted)
def _not_started(request: HttpRequest, error: NotStarted) -> HttpResponse:
    return _reject(request, error.objections)


@api.exception_handler(CatalogueError)
def _not_entered(request: HttpRequest, error: CatalogueError) -> HttpResponse:
    return _reject(request, [Objection(error.field, "catalogue", str(error))])


def _reject(request: HttpRequest, objections: Sequence[Objection]) -> HttpResponse:
    said = {
        "error": " ".join(map(str, objections)),
        "objections": [asdict(objection) for objection in objections],
    }
    return api.create_response(request, said, status=422)
