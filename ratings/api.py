"""What a training pipeline asks over HTTP: enter a version, start an experiment, read its state.

Whoever asks sends a key of `manage.py token`; sessions of the site do not count here. Asking the
same again changes nothing and finds what is there.
"""

from typing import Annotated, Any, Literal
from uuid import UUID

from django.db import DataError
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI, Query, Schema, Status
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.security import HttpBearer
from pydantic import ConfigDict, Field, FiniteFloat, StringConstraints

from arena.experiments import NotStarted
from arena.models import Experiment
from generation.catalog import CatalogError, Taken, enter_version
from generation.categories import Category
from generation.models import Version
from ratings.experiments import newest, newest_of
from ratings.leaderboards import alone
from ratings.models import ApiToken, Assessment
from ratings.pipeline import Asked, Refused, planned, proposal_of, start_or_find, state_of
from ratings.snapshots import snapshot_answer
from ratings.tokens import token_row

Slug = Annotated[str, StringConstraints(max_length=80, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Size = Annotated[int, Field(gt=0, le=100_000)]
Positive = Annotated[FiniteFloat, Field(gt=0)]


class Token(HttpBearer):
    """`Authorization: Bearer KEY`."""

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken | None:
        return token_row(token)


# No page of documentation: those of the library bring styles that the site's policy refuses.
api = NinjaAPI(
    title="Photofinish",
    version="1",
    description="Experiments for a training pipeline; docs/pipeline.md shows how.",
    auth=Token(),
    docs_url=None,
    urls_namespace="api",
)


class Wanted(Schema):
    """What a request says; a field that is unknown is an error."""

    model_config = ConfigDict(extra="forbid")


class VersionIn(Wanted):
    """A version as in the catalogue: `settings` name the checkpoint by a path or by a repository
    and its revision, as the backend asks for them."""

    model: Slug
    slug: Slug
    name: Annotated[Text, Field(min_length=1, max_length=120)]
    parent: Slug | None = None
    backend: Slug
    settings: dict[str, Any] = {}
    categories: Annotated[list[Category], Field(min_length=1)]
    width: Size
    height: Size
    fps: Positive
    min_seconds: Positive
    max_seconds: Positive


class VersionOut(Schema):
    slug: str
    model: str
    name: str
    state: str
    categories: list[str]
    created: bool


class ExperimentIn(Wanted):
    """The design. Without panels and public share, a quarter of the category's public pairs."""

    candidate: Slug
    baseline: Slug
    category: Category
    prompt_set: Slug = Asked.prompt_set
    seed_slots: Size = Asked.seed_slots
    margin: Positive = Asked.margin
    alpha: Positive = Asked.alpha
    beta: Positive = Asked.beta
    max_votes: Size = Asked.max_votes
    panels: Annotated[tuple[Slug, ...], Field(max_length=50)] = ()
    public_share: FiniteFloat | None = None
    muted_share: FiniteFloat = Asked.muted_share
    webhook: Annotated[Text, Field(max_length=500)] = ""
    name: Annotated[Text, Field(max_length=120)] = ""


class PlanIn(ExperimentIn):
    """The same, and what to plan with: by default as in the last week."""

    tie_rate: FiniteFloat | None = None
    voters: int | None = None


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
    state: Literal["running", "decided", "cancelled"]
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
    obstacles: list[str]


class Problem(Schema):
    error: str


@api.post("/versions", response={200: VersionOut, 201: VersionOut, 409: Problem, 422: Problem})
def post_version(request: HttpRequest, wanted: VersionIn) -> Status:
    """Enter a version on trial: it is rendered, and shown in experiments only."""
    fields = wanted.dict(exclude={"model", "parent"})
    fields["categories"] = [category.value for category in wanted.categories]
    try:
        with alone(f"enter version {wanted.slug}"):
            version, new = enter_version(wanted.model, wanted.parent or "", fields)
    except Taken as error:
        raise HttpError(409, str(error)) from None
    except CatalogError as error:
        raise HttpError(422, str(error)) from None
    except DataError:
        raise HttpError(422, "settings: a value is none that the database can keep.") from None
    return Status(201 if new else 200, _facts(version, new))


def _facts(version: Version, new: bool) -> dict[str, Any]:
    return {
        "slug": version.slug,
        "model": version.model.slug,
        "name": version.name,
        "state": version.state,
        "categories": version.categories,
        "created": new,
    }


@api.post(
    "/experiments", response={200: ExperimentOut, 201: ExperimentOut, 409: Problem, 422: Problem}
)
def post_experiment(request: HttpRequest, wanted: ExperimentIn) -> Status:
    """Start an experiment, or find the one of the same design."""
    try:
        experiment, new = start_or_find(_proposal(request, wanted))
    except NotStarted as error:
        raise HttpError(422, str(error)) from None
    if wanted.webhook not in ("", experiment.webhook):
        raise HttpError(
            409, f"webhook: the experiment {experiment.pk} has this design and another webhook."
        )
    return Status(201 if new else 200, _state(request, experiment, newest(experiment)))


@api.post("/plans", response={200: dict[str, Any], 422: Problem})
def post_plan(request: HttpRequest, wanted: PlanIn) -> dict[str, Any]:
    """What such an experiment would cost and find; nothing is started."""
    try:
        return planned(_proposal(request, wanted), wanted.tie_rate, wanted.voters)
    except NotStarted as error:
        raise HttpError(422, str(error)) from None


@api.get("/experiments", response=list[ExperimentOut])
def list_experiments(
    request: HttpRequest,
    candidate: Text = "",
    state: Literal["", "running", "decided", "cancelled"] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> list[dict[str, Any]]:
    """Experiments, newest first."""
    rows = Experiment.objects.select_related("candidate", "baseline", "prompt_set")
    asked = {"candidate__slug": candidate, "state": state}
    rows = rows.filter(**{name: value for name, value in asked.items() if value})
    page = list(rows.prefetch_related("panels").order_by("-created_at")[offset : offset + limit])
    made = newest_of(page)
    return [_state(request, row, made.get(row.pk)) for row in page]


@api.get("/experiments/{uuid:experiment_id}", response={200: ExperimentOut, 404: Problem})
def get_experiment(request: HttpRequest, experiment_id: UUID) -> dict[str, Any]:
    """Where it stands by its newest assessment, which follows the votes within seconds."""
    experiment = _experiment(experiment_id)
    return _state(request, experiment, newest(experiment))


@api.get("/experiments/{uuid:experiment_id}/snapshot", response={404: Problem})
def get_snapshot(request: HttpRequest, experiment_id: UUID) -> HttpResponse:
    """The votes behind the newest assessment, signed: gzip of JSON lines."""
    experiment = _experiment(experiment_id)
    made = newest(experiment)
    if made is None:
        raise HttpError(404, f"The experiment {experiment.pk} was not assessed yet: ask again.")
    return snapshot_answer(made)


def _experiment(experiment_id: UUID) -> Experiment:
    experiment = Experiment.objects.filter(pk=experiment_id).first()
    if experiment is None:
        raise HttpError(404, f"There is no experiment {experiment_id}.")
    return experiment


def _proposal(request: HttpRequest, wanted: ExperimentIn) -> Any:
    token: ApiToken = request.auth  # type: ignore[attr-defined]  # put there by the library
    design = wanted.dict(include=set(ExperimentIn.model_fields))
    asked = Asked(**{**design, "category": wanted.category.value})
    try:
        return proposal_of(asked, created_by=f"the API key {token.name}")
    except Refused as error:
        raise HttpError(422, str(error)) from None


def _state(request: HttpRequest, experiment: Experiment, made: Assessment | None) -> dict[str, Any]:
    said = state_of(experiment, made)
    return {**said, "address": request.build_absolute_uri(said["address"])}


# --- errors: {"error": sentence} -----------------------------------------------------------------


@api.exception_handler(AuthenticationError)
def _no_token(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    sentence = "Send a key that is good: “Authorization: Bearer KEY”, made by `manage.py token`."
    response = _problem(request, 401, sentence)
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


@api.exception_handler(HttpError)
def _refused(request: HttpRequest, error: HttpError) -> HttpResponse:
    unread = error.status_code == 400  # the library's own, where it can't parse the body
    sentence = "The body is not JSON: send one object." if unread else str(error)
    return _problem(request, error.status_code, sentence)


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """One sentence on the first field that is wrong, in the library's words."""
    first = error.errors[0]
    field = ".".join(str(part) for part in first["loc"][1:] if part != "wanted") or "body"
    return _problem(request, 422, f"{field}: {first['msg']}.")


def _problem(request: HttpRequest, status: int, sentence: str) -> HttpResponse:
    return api.create_response(request, {"error": sentence}, status=status)
