"""What experiments cost to show: it does not grow with votes, nor the queries with experiments."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from redis import Redis

from arena.experiments.panels import add_members
from arena.experiments.start import start
from arena.models import Exclusion, Experiment, ObstacleNote, Panel, Voter, VoteSlot
from arena.tasks import look_at_experiments
from generation.models import Clip, PromptSet, Version
from ratings.experiments.assessment import assess
from ratings.experiments.views import LISTED
from tests.counting import cost_of
from tests.panels import propose
from tests.pipeline import cast, set_scene
from tests.ratings.pipeline.test_api import Pipeline, make_key

pytestmark = pytest.mark.django_db
FEW, MANY = 20, 1000  # blocks, of two votes each
VOTERS = 10


@pytest.fixture
def team(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    return client


@pytest.fixture
def versions(make_version: Callable[..., Version]) -> tuple[Version, Version]:
    pair = set_scene(make_version)
    add_members(Panel.objects.get(), VOTERS)
    return pair


def start_one(versions: tuple[Version, Version], max_votes: int, margin: float) -> Experiment:
    panel, prompt_set = Panel.objects.get(), PromptSet.objects.get()
    numbers = {"max_votes": max_votes, "margin": margin, "alpha": 0.001, "beta": 0.001}
    return start(propose(*versions, prompt_set, panel, **numbers))


def have_judged(experiment: Experiment, blocks: int) -> None:
    """So few votes for so small a margin decide nothing."""
    cast(experiment, wins=0.5, blocks=blocks, voters=VOTERS)
    judged = experiment.blocks.exclude(battles=None)
    VoteSlot.objects.filter(block__in=judged).update(voted=True)
    assert assess(experiment).verdict == ""


Look = Callable[[], object]


@pytest.fixture
def looks(team: Client) -> Callable[[Experiment], dict[str, Look]]:
    pipeline = Pipeline(make_key())

    def of(experiment: Experiment) -> dict[str, Look]:
        def ok(answer: Any) -> None:
            assert answer.status_code == 200, answer.content

        return {
            "page": lambda: ok(team.get(f"/experiments/{experiment.pk}/")),
            "list": lambda: ok(team.get("/experiments/")),
            "row": lambda: ok(pipeline.get(f"/api/experiments/{experiment.pk}")),
            "rows": lambda: ok(pipeline.get("/api/experiments")),
        }

    return of


def test_what_showing_one_costs_does_not_grow_with_its_votes(
    versions: tuple[Version, Version], looks: Callable[[Experiment], dict[str, Look]]
) -> None:
    few, many = (start_one(versions, 2 * MANY + 200, margin) for margin in (5.0, 6.0))
    have_judged(few, FEW)
    have_judged(many, MANY)
    look_at_experiments()
    of_few, of_many = looks(few), looks(many)
    for name in ("page", "row"):
        one, other = cost_of(of_few[name]), cost_of(of_many[name])
        assert one.numbers == other.numbers, (name, one.rows, other.rows)
    for name, look in of_many.items():
        cost = cost_of(look)
        assert cost.rows["arena_vote"] == cost.rows["arena_voteslot"] == 0, name
        assert cost.rows.total() <= 100, (name, cost.rows)
    # What the workers do for it does grow: so rows are counted where there are some.
    of_assessing = [cost_of(lambda one=one: assess(one)).rows.total() for one in (few, many)]
    assert of_assessing[1] > of_assessing[0] + 2 * (MANY - FEW)


def test_queries_do_not_grow_with_the_number_of_experiments(
    versions: tuple[Version, Version], looks: Callable[[Experiment], dict[str, Look]]
) -> None:
    experiments: list[Experiment] = []
    costs = []
    for number in (1, 10, 30):
        for margin in range(len(experiments), number):
            experiments.append(start_one(versions, 60, 50.0 + margin))
            have_judged(experiments[-1], 2)
        look_at_experiments()
        costs.append({name: cost_of(look) for name, look in looks(experiments[0]).items()})
    for name, one in costs[0].items():
        assert {len(cost[name].queries) for cost in costs} == {len(one.queries)}, name
    for name in ("page", "row"):
        assert costs[2][name].rows.total() == costs[1][name].rows.total(), name
    for name in ("list", "rows"):  # a few rows for each that is listed
        assert costs[2][name].rows.total() <= 10 * 30, (name, costs[2][name].rows)


def test_the_list_reads_those_it_shows_of_many_experiments(
    versions: tuple[Version, Version], looks: Callable[[Experiment], dict[str, Look]]
) -> None:
    experiment = start_one(versions, 60, 50.0)
    cancelled = [
        Experiment(**(fields_of(experiment) | {"state": "cancelled"})) for _ in range(2000)
    ]
    Experiment.objects.bulk_create(cancelled)
    for name, at_most in (("list", LISTED), ("rows", 50)):  # without ?limit
        cost = cost_of(looks(experiment)[name])
        assert cost.rows["arena_experiment"] <= at_most + 5, (name, cost.rows)


def fields_of(experiment: Experiment) -> dict[str, Any]:
    every = (field.attname for field in Experiment._meta.concrete_fields)
    return {name: getattr(experiment, name) for name in every if name != "id"}


def test_the_page_and_the_api_read_what_was_noted_and_when(
    versions: tuple[Version, Version], team: Client
) -> None:
    experiment = start_one(versions, 60, 50.0)
    pipeline = Pipeline(make_key())

    def row() -> dict[str, Any]:
        return pipeline.get(f"/api/experiments/{experiment.pk}").json()

    assert (row()["obstacles"], row()["obstacles_at"]) == ([], None)
    Clip.objects.filter(pk=experiment.candidate.clips.all()[0].pk).update(
        state="failed", error="noise"
    )
    assert row()["obstacles"] == []  # nobody has looked yet
    look_at_experiments()
    noted = ObstacleNote.objects.get()
    assert [each["code"] for each in row()["obstacles"]] == ["clips_failed"]
    assert row()["obstacles_at"] == noted.looked_at.isoformat()
    page = team.get(f"/experiments/{experiment.pk}/").text
    assert "1 clip of swift-2 failed" in page
    assert f"As of {noted.looked_at:%H:%M:%S} UTC." in page
    assert "Blocked: action needed." in team.get("/experiments/").text
    team.post(f"/experiments/{experiment.pk}/cancel/")
    assert (row()["obstacles"], row()["obstacles_at"]) == ([], None)
    look_at_experiments()
    assert not ObstacleNote.objects.exists()


def test_one_that_cannot_be_looked_at_does_not_hold_up_the_others(
    versions: tuple[Version, Version], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (start_one(versions, 60, margin) for margin in (50.0, 60.0))
    with connection.cursor() as cursor:  # its note can't be written
        cursor.execute(
            "ALTER TABLE arena_obstaclenote ADD CONSTRAINT not_this"
            f" CHECK (experiment_id <> '{first.pk}')"
        )
    look_at_experiments()
    assert ObstacleNote.objects.get().experiment == second
    assert f"The obstacles of the experiment {first.pk} could not be noted" in caplog.text


def events(versions: tuple[Version, Version], team: Client) -> Iterator[str]:
    """What workers look after at once; each is done when the next is asked for."""
    experiment = start_one(versions, 60, 50.0)
    yield "start"
    cast(experiment, wins=0.5, blocks=2, voters=4)
    voters = Voter.objects.all()
    page = f"/experiments/{experiment.pk}/"
    team.post(f"{page}exclude/", {"voter": voters[0].pk, "reason": "Did not look."})
    yield "an exclusion on the page"
    asked = {"action": "exclude", "voter": voters[1].pk, "vote": "", "reason": "Did not look."}
    team.post("/admin/arena/exclusion/add/", asked)
    yield "an exclusion in admin"
    team.post(f"{page}cancel/")
    yield "a cancellation"


def test_workers_look_at_once_after_what_matters(
    versions: tuple[Version, Version],
    team: Client,
    django_capture_on_commit_callbacks: Callable[..., Any],
) -> None:
    broker = Redis.from_url(settings.CELERY_BROKER_URL)
    happening = events(versions, team)
    for expected in (
        "start",
        "an exclusion on the page",
        "an exclusion in admin",
        "a cancellation",
    ):
        broker.flushdb()
        with django_capture_on_commit_callbacks(execute=True):
            assert next(happening) == expected
        messages = [json.loads(each) for each in broker.lrange("control", 0, -1)]
        asked = {message["headers"]["task"] for message in messages}
        assert "arena.tasks.look_at_experiments" in asked, expected
    assert Exclusion.objects.count() == 2
    broker.flushdb()
