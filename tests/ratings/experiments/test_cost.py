"""What experiments cost to show: it does not grow with votes, nor the queries with experiments."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from redis import Redis

from arena.experiments.panels import add_members
from arena.experiments.start import start
from arena.ledger import LEDGER_LOCK
from arena.models import (
    Battle,
    Block,
    Exclusion,
    Experiment,
    ObstacleNote,
    Panel,
    Vote,
    Voter,
    VoteSlot,
)
from arena.tasks import look_at_experiments
from generation.models import Clip, PromptSet, Version
from ratings.experiments.assessment import assess
from ratings.experiments.state import newest_assessment
from ratings.experiments.views import LISTED
from ratings.tasks import assess_changed
from tests.counting import Cost, cost_of
from tests.panels import propose
from tests.pipeline import cast, set_scene
from tests.ratings.pipeline.test_api import Pipeline, make_key
from tests.ratings.pipeline.test_gate import gate_beside_a_worker

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
FEW, MANY = 20, 1000  # blocks, of two votes each
VOTERS = 10
TINY = 60  # rows


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


def costs_more(one: Cost, other: Cost) -> bool:
    """By a query, or by more rows than there are in the tables that the database may read whole,
    as they are tiny here."""
    differs = len(one.queries) != len(other.queries)
    return differs or one.rows.total() > other.rows.total() + TINY


def options_of(margin: int) -> list[str]:
    """Of the gate, for the experiment of `start_one` with this margin."""
    numbers = f"--max-votes {2 * MANY + 200} --margin {margin} --alpha 0.001 --beta 0.001"
    return numbers.split()


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
        assert not costs_more(other, one), (name, one.rows, other.rows)
    for name, look in of_many.items():
        cost = cost_of(look)
        assert cost.rows["arena_vote"] == cost.rows["arena_voteslot"] == 0, name
        assert cost.rows.total() <= 100, (name, cost.rows)
    # Beside workers, who look again and again: the gate asks what the page asks.
    ObstacleNote.objects.update(looked_at=timezone.now() + timedelta(hours=1))
    for margin in (5, 6):
        assert gate_beside_a_worker(*options_of(margin))[0] == 21
    one, other = (cost_of(lambda at=at: gate_beside_a_worker(*options_of(at))) for at in (5, 6))
    assert not costs_more(other, one), (one.rows, other.rows)
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
        assert not costs_more(costs[2][name], costs[1][name]), (name, costs[2][name].rows)
    for name in ("list", "rows"):  # a few rows for each that is listed
        assert costs[2][name].rows.total() <= 20 * 30, (name, costs[2][name].rows)


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
    happening = events(versions, team)
    exclusions = ("an exclusion on the page", "an exclusion in admin")
    with Redis.from_url(settings.CELERY_BROKER_URL) as broker:
        for expected in ("start", *exclusions, "a cancellation"):
            broker.delete("control")
            with django_capture_on_commit_callbacks(execute=True):
                assert next(happening) == expected
            messages = [json.loads(each) for each in broker.lrange("control", 0, -1)]
            asked = {message["headers"]["task"] for message in messages}
            assert "arena.tasks.look_at_experiments" in asked, expected
        broker.delete("control")
    assert Exclusion.objects.count() == 2


# --- what workers do again and again --------------------------------------------------------------


class Work:
    """What a round of `assess_changed` did."""

    def __init__(self) -> None:
        with CaptureQueriesContext(connection) as queries:
            self.assessed = {UUID(each) for each in assess_changed()}
        said = [query["sql"] for query in queries]
        self.locks = sum(f"pg_advisory_xact_lock({LEDGER_LOCK})" in sql for sql in said)
        self.queries = len(said)


def vote_in(experiment: Experiment) -> Voter:
    """A voter of this experiment who has judged nothing else."""
    cast(experiment, wins=0.5, blocks=1, voters=2)
    vote = Vote.objects.filter(experiment=experiment).latest("pk")
    return vote.voter


def make_entry(about: Voter | Vote, action: str = "exclude") -> None:
    field = "voter" if isinstance(about, Voter) else "vote"
    Exclusion.objects.create(action=action, reason="a test", **{field: about})


def test_running_experiments_without_news_leave_the_ledger_unlocked(
    versions: tuple[Version, Version],
) -> None:
    experiments = [start_one(versions, 60, margin) for margin in (50.0, 60.0, 70.0)]
    first = Work()
    assert first.assessed == {each.pk for each in experiments}
    idle = Work()
    assert (idle.assessed, idle.locks) == (set(), 0)
    vote_in(experiments[1])
    work = Work()
    assert (work.assessed, work.locks) == ({experiments[1].pk}, 1)
    assert Work().locks == 0
    more = [start_one(versions, 60, 80.0 + number) for number in range(5)]
    assert Work().assessed == {each.pk for each in more}
    assert (Work().locks, Work().queries) == (0, idle.queries)


@pytest.mark.parametrize("state", ["running", "decided"])
def test_an_exclusion_has_only_the_experiments_assessed_that_it_concerns(
    versions: tuple[Version, Version], state: str
) -> None:
    theirs, other, third = (start_one(versions, 60, margin) for margin in (50.0, 60.0, 70.0))
    voter, stranger = vote_in(theirs), vote_in(other)
    vote_in(third)
    Work()
    Experiment.objects.update(state=state)
    make_entry(voter)
    work = Work()
    assert work.assessed == {theirs.pk}
    assert work.locks == 2  # to see which entries there are, and to assess this one
    assert newest_assessment(theirs).votes == 1
    assert Work().locks == 0
    Experiment.objects.update(state=state)
    make_entry(Vote.objects.filter(experiment=other, voter=stranger).get())
    assert Work().assessed == {other.pk}
    assert newest_assessment(other).votes == 1
    nobody = Voter.objects.create()
    make_entry(nobody)
    work = Work()
    assert (work.assessed, work.locks) == (set(), 1)
    assert Work().locks == 0
    # What the entries before said of a voter still holds for a vote that comes late.
    Experiment.objects.update(state=state)
    block = third.blocks.filter(battles=None)[0]
    answer(third, block, nobody)
    assert Work().assessed == {third.pk}
    made = newest_assessment(third)
    assert (made.votes, made.findings["left_out"]) == (2, {"excluded": 1})


def answer(experiment: Experiment, block: Block, voter: Voter) -> None:
    """One vote on the block, by somebody who was excluded before."""
    battle = Battle.objects.create(
        voter=voter, stream="panel", category=experiment.category, prompt=block.prompt,
        clip_a=block.candidate_clip, clip_b=block.baseline_clip, draw_probability=1,
        expires_at=timezone.now(), kind="experiment", experiment=experiment, block=block,
    )  # fmt: skip
    Vote.objects.create(
        battle=battle, voter=voter, category=battle.category, prompt=battle.prompt,
        version_a=experiment.candidate, version_b=experiment.baseline, choice="a",
        kind="experiment", experiment=experiment, simulated=False,
    )  # fmt: skip


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_one_that_ended_without_a_verdict_is_not_looked_at(
    versions: tuple[Version, Version], state: str
) -> None:
    experiment, other = (start_one(versions, 60, margin) for margin in (50.0, 60.0))
    voter = vote_in(experiment)
    Work()
    look_at_experiments()
    experiment.state = state
    experiment.save()
    vote_in(experiment)
    make_entry(voter)
    with CaptureQueriesContext(connection) as queries:
        assert assess_changed() == []
        look_at_experiments()
    assert not [query for query in queries if experiment.pk.hex in query["sql"].replace("-", "")]
    assert ObstacleNote.objects.get().experiment == other
    assert newest_assessment(experiment).votes == 2
