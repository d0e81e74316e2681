"""A pipeline enters a version and starts an experiment over HTTP, with a key and no session."""

import gzip
import io
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from arena.experiments.panels import add_members
from arena.models import Experiment, Panel
from generation.models import Version, VersionState
from ratings.experiments.assessment import assess
from ratings.models import ApiToken, Scope, StoredPlan
from ratings.tasks import compute_plans
from tests.panels import judge, sit_down
from tests.pipeline import DESIGN, OPTIONS, PROMPTS, cast, set_scene, start_experiment

pytestmark = pytest.mark.django_db
VERSION = {
    "model": "scenes",
    "slug": "swift-3",
    "name": "Swift 3",
    "backend": "scenes",
    "settings": {"size": 32, "fps": 8},
    "categories": ["t2v-silent"],
    "width": 32,
    "height": 32,
    "fps": 8,
    "min_seconds": 1,
    "max_seconds": 2,
}


def colt(**changes: object) -> dict[str, Any]:
    """What makes the version one of Colt's."""
    settings = {"weights": "colt-base.safetensors", "sha256": "", "steps": 1, "guidance": 1}
    return {"backend": "colt", "settings": {**settings, **changes}}


def opened(**arguments: object) -> dict[str, Any]:
    """What makes the version one of an open model."""
    settings = {
        "pipeline": "WanPipeline", "source": "some/weights", "revision": "0" * 40,
        "dtype": "bfloat16", "offload": "none", "width": 32, "height": 32, "frames": 17, "fps": 8,
        "arguments": arguments,
    }  # fmt: skip
    return {"backend": "diffusers", "settings": settings}


def token(*arguments: str) -> str:
    out = io.StringIO()
    call_command("token", *arguments, stdout=out)
    return out.getvalue().strip()


def make_key(name: str = "nightly", *scopes: str, days: int = 90) -> str:
    """With all scopes, unless some are given."""
    given = [f"--scope={scope}" for scope in scopes or Scope.values]
    return token("new", name, *given, f"--days={days}")


class Pipeline:
    """What a script does with a key."""

    def __init__(self, key: str) -> None:
        self.client = Client(enforce_csrf_checks=True, raise_request_exception=False)
        self.headers = {"Authorization": f"Bearer {key}"}

    def get(self, path: str) -> Any:
        return self.client.get(path, headers=self.headers)

    def plan(self, body: dict[str, Any]) -> Any:
        """The plan, once a worker has computed it."""
        waiting = self.post("/api/plans", body)
        assert waiting.status_code == 202, waiting.content
        compute_plans()
        answer = self.get(waiting.json()["address"])
        assert answer.status_code == 200, answer.content
        return answer.json()

    def post(self, path: str, body: Any) -> Any:
        body = body if isinstance(body, str) else json.dumps(body)
        return self.client.post(path, body, content_type="application/json", headers=self.headers)


@pytest.fixture
def pipeline(db: None) -> Pipeline:
    return Pipeline(make_key())


@pytest.fixture
def versions(make_version: Callable[..., Version]) -> tuple[Version, Version]:
    return set_scene(make_version)


def error_of(response: HttpResponse) -> str:
    said = json.loads(response.content)
    assert list(said) == ["error", "objections"] if response.status_code == 422 else ["error"]
    return str(said["error"])


def fields_of(response: HttpResponse) -> list[str]:
    """Which fields a 422 is about."""
    objections = json.loads(response.content)["objections"]
    assert all(objection["code"] and objection["sentence"] for objection in objections)
    return [objection["field"] for objection in objections]


class TestKeys:
    def test_only_the_hash_is_kept(self) -> None:
        key = make_key()
        row = ApiToken.objects.get()
        assert key not in {row.digest, row.name}
        assert len(row.digest) == 64
        with pytest.raises(CommandError, match="There is a key “nightly”"):
            make_key()

    @pytest.mark.parametrize("scope", Scope.values)
    def test_each_scope_opens_its_own(self, versions: tuple[Version, Version], scope: str) -> None:
        holder = Pipeline(make_key("ci", scope))
        unknown = "00000000-0000-4000-8000-000000000000"
        answers = {
            ("read", 200): holder.get("/api/experiments"),
            ("read", 404): holder.get(f"/api/experiments/{unknown}/snapshot"),
            ("read", 404, "plan"): holder.get(f"/api/plans/{unknown}"),
            ("experiments", 202): holder.post("/api/plans", DESIGN),
            ("experiments", 201): holder.post("/api/experiments", DESIGN),
            ("versions", 201): holder.post("/api/versions", VERSION),
        }
        for (needed, status, *_), answer in answers.items():
            assert answer.status_code == (status if needed == scope else 403)
            if needed != scope:
                assert error_of(answer).startswith(f"The key “ci” lacks the scope “{needed}” (")
        assert Experiment.objects.exists() == (scope == "experiments")
        assert Version.objects.filter(slug="swift-3").exists() == (scope == "versions")

    def test_one_is_for_reading_unless_more_is_asked_for(self) -> None:
        token("new", "dashboard")
        assert ApiToken.objects.get().scopes == ["read"]

    def test_it_expires(self, pipeline: Pipeline) -> None:
        key = ApiToken.objects.get()
        assert timedelta(days=89) < key.expires_at - timezone.now() < timedelta(days=90)
        used = key.used_at
        ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        for answer in (pipeline.get("/api/experiments"), pipeline.post("/api/versions", VERSION)):
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            today = f"{timezone.now() - timedelta(seconds=1):%Y-%m-%d}"
            assert error_of(answer).startswith(f"The key “nightly” expired on {today}: make anoth")
        assert ApiToken.objects.get().used_at == used
        assert Pipeline(make_key()).get("/api/experiments").status_code == 200  # the name is free

    @pytest.mark.parametrize("days", [0, -1, 367, 10**9])
    def test_none_is_for_ever(self, days: int) -> None:
        with pytest.raises(CommandError, match=f"--days is {days}: give 1 to 366"):
            make_key(days=days)

    def test_a_list_names_them_with_their_ends(self) -> None:
        make_key("ci", "versions", "read", days=10)
        make_key("dashboard", "read", days=1)
        soon, later = (f"{timezone.now() + timedelta(days=d):%Y-%m-%d}" for d in (1, 10))
        assert token("list").splitlines() == [
            f"dashboard: read; expires {soon}, never used",
            f"ci: read, versions; expires {later}, never used",
        ]
        assert token("revoke", "ci") == "Revoked: ci."
        assert "ci" not in token("list")
        with pytest.raises(CommandError, match="There is no key “ci”"):
            token("revoke", "ci")

    @pytest.mark.parametrize("header", [None, "Bearer ", "Bearer wrong", "Basic eDp5", "Bearer é"])
    def test_without_a_good_one_nothing_is_answered(self, client: Client, header: str) -> None:
        make_key()
        headers = {"Authorization": header} if header else {}
        for answer in (
            client.get("/api/experiments", headers=headers),
            client.post("/api/versions", VERSION, "application/json", headers=headers),
        ):
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert error_of(answer).startswith("Send a key that is good")

    def test_a_session_of_the_site_does_not_count(self, client: Client) -> None:
        client.force_login(User.objects.create_superuser("olga", password="x"))
        assert client.get("/api/experiments").status_code == 401
        assert client.post("/api/plans", {}, "application/json").status_code == 401

    def test_an_operator_revokes_it(self, client: Client, pipeline: Pipeline) -> None:
        assert pipeline.get("/api/experiments").status_code == 200
        client.force_login(User.objects.create_superuser("olga", password="x"))
        row = ApiToken.objects.get()
        assert row.digest not in client.get("/admin/ratings/apitoken/").content.decode()
        data = {"action": "revoke", "_selected_action": [str(row.pk)]}
        client.post("/admin/ratings/apitoken/", data)
        assert pipeline.get("/api/experiments").status_code == 401

    def test_its_use_is_noted_once_a_minute(self, pipeline: Pipeline) -> None:
        def noted(age: timedelta) -> bool:
            before = timezone.now() - age
            ApiToken.objects.update(used_at=before)
            pipeline.get("/api/experiments")
            return ApiToken.objects.get().used_at != before

        assert ApiToken.objects.get().used_at is None
        pipeline.get("/api/experiments")
        assert ApiToken.objects.get().used_at is not None
        assert not noted(timedelta(seconds=30))
        assert noted(timedelta(seconds=61))


class TestVersions:
    def test_one_is_entered_on_trial_once(
        self, pipeline: Pipeline, versions: tuple[Version, Version]
    ) -> None:
        wanted = {**VERSION, "parent": "swift-2"}
        answer = pipeline.post("/api/versions", wanted)
        assert (answer.status_code, answer.json()["created"]) == (201, True)
        version = Version.objects.get(slug="swift-3")
        assert (version.state, version.parent) == (VersionState.TRIAL, versions[0])
        version.state = VersionState.ACTIVE
        version.save()
        again = pipeline.post("/api/versions", wanted)
        assert (again.status_code, again.json()["created"]) == (200, False)
        assert again.json()["state"] == "active"

    def test_another_of_its_slug_is_409(
        self, pipeline: Pipeline, versions: tuple[Version, Version]
    ) -> None:
        pipeline.post("/api/versions", VERSION)
        other = {**VERSION, "settings": {"size": 32, "fps": 8, "late": 0.2}}
        answer = pipeline.post("/api/versions", other)
        assert answer.status_code == 409
        assert error_of(answer) == (
            "There is a version swift-3 already, which differs in settings: give the new one a "
            "slug of its own."
        )
        assert Version.objects.get(slug="swift-3").settings == VERSION["settings"]

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"model": "none"}, "model: There is no model “none”"),
            ({"parent": "swift-9"}, "names the parent “swift-9”, which does not exist"),
            ({"backend": "magic"}, "There is no backend “magic”"),
            ({"settings": {"size": 32, "fps": 9}}, "Its fps is 8 in the catalogue and 9 in its"),
            ({"settings": {"dog": 1}}, "Unknown scenes setting dog"),
            ({"settings": {"size": 32, "fps": 8, "pose": "\0"}}, "settings: A value is none"),
            (colt(weights=5), "settings: A value is of the wrong kind"),
            (colt(weights="../run.py"), "Colt has no weights “../run.py”"),
            (colt(steps=201), "Colt's steps are 201: give a whole number from 1 to 200."),
            (colt(steps=0), "Colt's steps are 0: give a whole number from 1 to 200."),
            (colt(steps=2.5), "Colt's steps are 2.5: give a whole number from 1 to 200."),
            (colt(guidance=1e9), "Colt's guidance is 1000000000.0: give a number from 0 to 20."),
            ({"settings": []}, "settings: "),
            ({"categories": []}, "categories: "),
            ({"categories": ["t2v"]}, "categories.0: "),
            ({"fps": 61, "settings": {}}, "It makes 61 frames a second"),
            ({"fps": 500}, "fps: Input should be less than or equal to 240"),
            ({"max_seconds": 3600}, "max_seconds: Input should be less than or equal to 60"),
            ({"min_seconds": 2, "max_seconds": 1}, "Its shortest clip has 2 s, its longest 1"),
            ({"settings": {"size": 10**7, "fps": 8}}, "size is 10000000; give a whole number"),
            (opened(num_inference_steps=10**9), "must be a whole number from 1 to 1,000"),
            (opened(num_inference_steps=9, guidance_scale=1e9), "a number from 0 to 100"),
            ({"fps": "fast"}, "fps: "),
            ({"width": 10**12}, "width: "),
            ({"name": "x\0"}, "name: "),
            ({"slug": "Swift 3"}, "slug: "),
            ({"budget": 5}, "budget: "),
            ({"state": "active"}, "state: "),
        ],
    )
    def test_what_could_not_compete_is_a_sentence(
        self,
        pipeline: Pipeline,
        versions: tuple[Version, Version],
        change: dict[str, Any],
        sentence: str,
    ) -> None:
        answer = pipeline.post("/api/versions", {**VERSION, **change})
        assert answer.status_code == 422
        assert sentence in error_of(answer)
        assert not Version.objects.filter(slug="swift-3").exists()


class TestExperiments:
    def test_one_is_started_once(
        self, pipeline: Pipeline, versions: tuple[Version, Version]
    ) -> None:
        answer = pipeline.post("/api/experiments", DESIGN)
        assert answer.status_code == 201, answer.content
        said = answer.json()
        assert (said["state"], said["verdict"], said["votes"]) == ("running", None, 0)
        assert said["address"] == f"http://testserver/experiments/{said['experiment']}/"
        assert Experiment.objects.get().created_by == "the API key nightly"
        again = pipeline.post("/api/experiments", DESIGN)
        assert (again.status_code, again.json()) == (200, said)
        listed = pipeline.get("/api/experiments?candidate=swift-2&state=running").json()
        assert listed == [said]
        assert pipeline.get("/api/experiments?state=decided").json() == []

    def test_with_another_webhook_it_is_409(
        self, pipeline: Pipeline, versions: tuple[Version, Version], settings: Any
    ) -> None:
        settings.WEBHOOK_SECRET = "s"
        pipeline.post("/api/experiments", DESIGN)
        hook = {**DESIGN, "webhook": "https://ci.example/hook"}
        answer = pipeline.post("/api/experiments", hook)
        assert answer.status_code == 409
        assert error_of(answer).startswith("webhook: ")

    def test_its_state_follows_the_votes(
        self, pipeline: Pipeline, make_version: Callable[..., Version]
    ) -> None:
        experiment = start_experiment(make_version)
        cast(experiment, wins=0.2)
        assess(experiment)
        said = pipeline.get(f"/api/experiments/{experiment.pk}").json()
        assert (said["state"], said["verdict"], said["votes"]) == ("decided", "regressed", 200)
        assert said["low"] < said["estimate"] < said["high"] < 0
        file = pipeline.get(f"/api/experiments/{experiment.pk}/snapshot")
        assert file.headers["Content-Type"] == "application/gzip"
        assert f"{experiment.pk}.jsonl.gz" in file.headers["Content-Disposition"]
        assert len(gzip.decompress(file.content).splitlines()) == 203

    def test_a_plan_starts_nothing(
        self, pipeline: Pipeline, versions: tuple[Version, Version]
    ) -> None:
        plan = pipeline.plan(DESIGN)
        assert plan["max_votes"] == 400
        again = pipeline.post("/api/plans", DESIGN)  # computed already
        assert (again.status_code, again.json()) == (200, plan)
        assert StoredPlan.objects.count() == 1
        assert not Experiment.objects.exists()

    def test_a_plan_counts_on_no_more_votes_than_the_panel_can_give(
        self, pipeline: Pipeline, versions: tuple[Version, Version]
    ) -> None:
        def plan(members: int) -> dict[str, Any]:
            add_members(Panel.objects.get(), members)
            return pipeline.plan(DESIGN | {"margin": 120})

        few = plan(6)
        many = plan(54)
        assert (few["votes_of_panels"], many["votes_of_panels"]) == (6 * PROMPTS, 60 * PROMPTS)
        assert all(truth["votes_90"] <= few["votes_of_panels"] for truth in few["truths"])
        assert few["truths"][0]["inconclusive"] > many["truths"][0]["inconclusive"]

    def test_a_plan_is_made_with_the_ties_and_voters_that_are_expected(
        self, pipeline: Pipeline, versions: tuple[Version, Version]
    ) -> None:
        def plan(**more: float) -> Any:
            return pipeline.plan(DESIGN | {"public_share": 0.2} | more)

        def refused(**more: float) -> str:
            return error_of(pipeline.post("/api/plans", DESIGN | more))

        few, many = plan(tie_rate=0.1, voters=8), plan(tie_rate=0.7, voters=8)
        assert (few["tie_rate"], many["tie_rate"], many["voters"]) == (0.1, 0.7, 8)
        assert few["margin_elo"] > many["margin_elo"]
        assert refused(tie_rate=1).startswith("tie_rate: The tie rate is 1. ")
        assert refused(voters=3).startswith("voters: The number of voters is 3. ")
        out = io.StringIO()
        call_command(
            "experiment", "plan", *OPTIONS, "--tie-rate", "0.7", "--voters", "8", stdout=out
        )
        assert json.loads(out.getvalue())["margin_elo"] == many["margin_elo"]

    def test_a_plan_names_those_who_ask_the_same_voters(
        self, pipeline: Pipeline, versions: tuple[Version, Version]
    ) -> None:
        assert pipeline.plan(DESIGN)["rivals"] == []
        running = pipeline.post("/api/experiments", DESIGN).json()
        members = add_members(Panel.objects.get(), 3)
        judge(sit_down(members[0]))
        plan = pipeline.plan(DESIGN | {"margin": 120})
        assert plan["rivals"] == [
            {"experiment": running["experiment"], "name": running["name"], "same_pairs": True}
        ]
        # A block takes two voters, so one of three is over on each pair; and the first met one.
        assert plan["votes_of_panels"] == 2 * PROMPTS
        members[2].delete()
        plan = pipeline.plan(DESIGN | {"margin": 120})
        assert plan["votes_of_panels"] == 2 * PROMPTS - 1
        Panel.objects.create(slug="critics", name="Critics")
        other = pipeline.plan(DESIGN | {"panels": ["critics"]})
        assert other["rivals"] == []

    @pytest.mark.parametrize("path", ["/api/experiments", "/api/plans"])
    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"candidate": "swift-9"}, "candidate: There is no version “swift-9”."),
            ({"panels": ["nobody"]}, "panels: There is no panel “nobody”."),
            ({"panels": "judges"}, "panels: Input should be"),
            ({"category": "t2v"}, "category: "),
            ({"margin": 0}, "margin: The margin is 0 Elo"),
            ({"margin": "wide"}, "margin: Input should be a valid number"),
            ({"margin": 1000}, "The margin is 1000 Elo"),
            (
                {"margin": 1e-6},
                "margin: The margin is 1e-06 Elo. Give the smallest loss to catch, ",
            ),
            ({"margin": 4.999}, "from 5 to 400."),
            ({"alpha": 1e-300}, "Alpha is 1e-300. Give a chance from 0.001 to below 0.5."),
            ({"max_votes": 61}, "Maximum votes is 61"),
            ({"max_votes": 10**30}, "max_votes: Maximum votes is 1000"),
            ({"alpha": 0.5}, "Alpha is 0.5"),
            ({"webhook": "https://ci.example/hook"}, "There is no WEBHOOK_SECRET"),
            ({"wait": "3h"}, "wait: "),
        ],
    )
    def test_bad_input_names_the_field(
        self,
        pipeline: Pipeline,
        versions: tuple[Version, Version],
        path: str,
        change: dict[str, Any],
        sentence: str,
    ) -> None:
        answer = pipeline.post(path, {**DESIGN, **change})
        assert answer.status_code == 422
        assert sentence in error_of(answer)
        assert fields_of(answer) == list(change)
        assert not Experiment.objects.exists()


class TestErrors:
    @pytest.mark.parametrize(
        ("path", "status", "sentence"),
        [
            (f"/api/experiments/{UUID(int=1)}", 404, "There is no experiment"),
            (f"/api/plans/{UUID(int=1)}", 404, "There is no plan"),
            (f"/api/experiments/{UUID(int=1)}/snapshot", 404, "There is no experiment"),
            ("/api/experiments/1", 404, "There is nothing at this address."),
            ("/api/nothing", 404, "There is nothing at this address."),
            ("/api/plans", 405, "This address does not accept that method"),
            ("/api/experiments?limit=0", 422, "limit: "),
            ("/api/experiments?state=odd", 422, "state: "),
            ("/api/experiments?candidate=%00", 422, "candidate: "),
        ],
    )
    def test_each_is_a_sentence_in_json(
        self, pipeline: Pipeline, path: str, status: int, sentence: str
    ) -> None:
        answer = pipeline.get(path)
        assert answer.status_code == status
        assert error_of(answer).startswith(sentence)

    @pytest.mark.parametrize("body", ["{", "", "[]", "null", '{"margin": NaN}'])
    def test_a_body_that_is_no_object(self, pipeline: Pipeline, body: str) -> None:
        answer = pipeline.post("/api/experiments", body)
        assert answer.status_code in (400, 422)
        assert error_of(answer)
        if body == "{":
            assert error_of(answer) == "The body is not JSON: send one object."

    def test_one_that_was_not_assessed_has_no_snapshot(
        self, pipeline: Pipeline, make_version: Callable[..., Version]
    ) -> None:
        experiment = start_experiment(make_version)
        answer = pipeline.get(f"/api/experiments/{experiment.pk}/snapshot")
        assert answer.status_code == 404
        assert "was not assessed yet" in error_of(answer)


def test_its_document_lists_the_addresses(client: Client) -> None:
    document = client.get("/api/openapi.json").json()
    assert set(document["paths"]) == {
        "/api/versions",
        "/api/experiments",
        "/api/plans",
        "/api/plans/{plan_id}",
        "/api/experiments/{experiment_id}",
        "/api/experiments/{experiment_id}/snapshot",
    }
    assert client.get("/api/docs").status_code == 404
