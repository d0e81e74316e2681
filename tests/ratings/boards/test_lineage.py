"""A model team looks at an in-house model: how its versions did, and whether anything regressed."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from arena.models import Experiment, ExperimentState
from generation.models import Clip, Model, PromptSet, Version
from ratings.models import Assessment, Leaderboard, Robustness, Standing
from ratings.robustness.stored import ROBUSTNESS_SCHEMA_VERSION

pytestmark = pytest.mark.django_db
SILENT = "t2v-silent"
PAGE = "/models/foal/"


@pytest.fixture
def release(make_version: Callable[..., Version]) -> Callable[..., Version]:
    """A version of the in-house model Foal: "foal-3" is Foal 3, of 3 March 2026."""

    def make(number: int, parent: Version | None = None, **fields: Any) -> Version:
        model, _ = Model.objects.get_or_create(
            slug="foal", defaults={"name": "Foal", "lab": "Us", "weights": "open", "in_house": True}
        )
        values = {
            "name": f"Foal {number}",
            "released_on": date(2026, number, number),
            "categories": [SILENT],
        }
        return make_version(f"foal-{number}", model=model, parent=parent, **{**values, **fields})

    return make


def board(ratings: dict[Version, tuple[float, float]], slice_: str = "", **fields: Any) -> None:
    """A leaderboard as it stands: each version's rating and half of its interval."""
    made = Leaderboard.objects.create(
        category=SILENT, slice=slice_, last_vote_id=1, last_exclusion_id=0, simulated_counted=False,
        votes=400, simulated_votes=0, voters=40, prompts=20, method="", settings={}, seconds=1,
    )  # fmt: skip
    Standing.objects.bulk_create(
        Standing(
            leaderboard=made, version=version, rating=rating, low=rating - half,
            high=rating + half, **{"rank_low": 1, "votes": 400, "win_rate": 0.5, **fields},
        )
        for version, (rating, half) in ratings.items()
    )  # fmt: skip


def sliced(*tags: str) -> None:
    Robustness.objects.create(
        category=SILENT, last_vote_id=1, last_exclusion_id=0, simulated_counted=False,
        findings={"schema_version": ROBUSTNESS_SCHEMA_VERSION, "slices": list(tags)}, seconds=1,
    )  # fmt: skip


@pytest.fixture
def experiment(few: PromptSet) -> Callable[..., Experiment]:
    def make(candidate: Version, baseline: Version, *verdicts: str, **findings: Any) -> Experiment:
        made = Experiment.objects.create(
            name=f"{candidate} against {baseline}", candidate=candidate, baseline=baseline,
            category=SILENT, prompt_set=few, seed_slots=1, margin=25, alpha=0.05, beta=0.05,
            max_votes=1000, created_by="olga",
        )  # fmt: skip
        for verdict in verdicts:
            Assessment.objects.create(
                experiment=made, last_vote_id=1, last_exclusion_id=0, simulated_counted=False,
                verdict=verdict, votes=212, blocks=106, llr=0, log_e=0, estimate=-48, low=-70,
                high=-25, findings=findings, seconds=1,
            )  # fmt: skip
        return made

    return make


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(operator())
    return client


def operator(*codenames: str) -> User:
    """One who may view versions and experiments, unless others are given."""
    user = User.objects.create_user("olga", is_staff=True)
    allowed = codenames or ("view_version", "view_experiment")
    user.user_permissions.add(*Permission.objects.filter(codename__in=allowed))
    return user


def text_of(client: Client, address: str = PAGE) -> str:
    return " ".join(client.get(address).text.split())


class TestHasAnythingRegressed:
    def test_a_version_whose_interval_lies_below_has(
        self, client: Client, release: Callable
    ) -> None:
        first = release(1)
        second, third = release(2, first), release(3, first)
        board({first: (1000, 20), second: (900, 20), third: (1010, 20)})
        page = text_of(client, f"{PAGE}?since=foal-1")
        assert "<strong>Regression found</strong> in Foal 2:" in page
        assert "rated 100 points lower, 900 (880 to 920) against 1000 (980 to 1020)." in page
        assert page.count('href="#mark-worse"') == 1
        assert "worse than Foal 1 by 100 points" in page
        assert "no clear difference from Foal 1" in page

    def test_nothing_shown_says_how_sure_that_is(self, client: Client, release: Callable) -> None:
        first = release(1)
        second, third = release(2, first), release(3, first)
        board({first: (1000, 20), second: (990, 31), third: (1050, 20)})
        release(4, third)
        page = text_of(client, f"{PAGE}?since=foal-1")
        assert "<strong>No regression found on the leaderboards</strong> since Foal 1" in page
        assert "compared with 2 of 3 newer versions, each with at least 400 votes" in page
        assert "The widest interval is 62 points, so a smaller drop could go unnoticed" in page
        assert "Not comparable yet: Foal 4" in page

    def test_versions_without_enough_votes_are_not_compared(
        self, client: Client, release: Callable
    ) -> None:
        first = release(1)
        board({first: (1000, 20), release(2, first): (500, 20)}, rank_low=None, votes=60)
        page = text_of(client)
        assert "<strong>Not comparable yet.</strong>" in page
        assert 'href="#mark-worse"' not in page
        assert page.count('href="#mark-new"') == 2

    def test_a_slice_has_when_it_is_more_than_chance(
        self, client: Client, release: Callable
    ) -> None:
        first = release(1)
        second = release(2, first)
        board({first: (1000, 20), second: (1000, 20)})
        board({first: (1000, 30), second: (850, 30)}, "night")
        board({first: (1000, 30), second: (1150, 30)}, "day")
        board({first: (1000, 30), second: (939, 30)}, "rain")  # apart alone, not among all of them
        board({first: (1000, 30), second: (1000, 30)}, "snow")
        board({first: (1000, 30), second: (500, 30)}, "gone")
        sliced("night", "day", "rain", "snow")
        page = text_of(client)
        assert "</a>: worse on 1 of 4 slices, night (−150)." in page
        assert "worse on 1 of 4 slices: night (−150); better on 1 of 4 slices: day (+150)" in page
        assert "gone" not in page

    def test_the_usual_question_is_about_the_newest_versions_parent(
        self, client: Client, release: Callable
    ) -> None:
        first = release(1)
        release(3, first)
        release(2)
        assert '<option value="foal-1" selected>' in text_of(client)
        assert "<h3" in text_of(client, f"{PAGE}?since=foal-2")
        assert "Foal 3 is the newest version" in text_of(client, f"{PAGE}?since=foal-3")
        assert client.get(f"{PAGE}?since=foal-9").status_code == 404

    def test_the_only_version_has_nothing_to_regress_from(
        self, client: Client, release: Callable
    ) -> None:
        board({release(1): (1000, 20)})
        page = text_of(client)
        assert "This is the only version so far" in page
        assert '<select id="since"' not in page


class TestExperiments:
    def test_staff_see_them_with_their_verdicts(
        self, staff: Client, release: Callable, experiment: Callable
    ) -> None:
        first = release(1)
        second, third = release(2, first), release(3, first, state="trial")
        experiment(second, first, "pass")
        night = {"tag": "night", "estimate": -90.0, "high": -40.0, "differs": True, "better": False}
        failed = experiment(third, second, "", "regressed", slices=[night])
        experiment(third, first)
        cancelled = experiment(third, first, "regressed")
        Experiment.objects.filter(pk=cancelled.pk).update(state=ExperimentState.CANCELLED)
        page = text_of(staff, f"{PAGE}?since=foal-1")
        assert "Pass</strong> 2 against 1" in page
        assert "Regressed</strong> 3 against 2" in page
        assert "Running</strong> 3 against 1" in page
        assert (
            "Of 3 experiments that compared a newer version with an earlier one, 1 passed, "
            "1 regressed and 1 is running."
        ) in page
        assert f'<a href="/experiments/{failed.pk}/">Foal 3 against Foal 2</a>' in page
        assert (
            "<strong>Foal 3</strong> regressed compared with Foal 2 in Text to video, silent"
            in page
        )
        assert "−48 Elo (−70 to −25); worse on night (−90)" in page
        assert page.count('class="lineage-track regressed"') == 2  # in the drawing and in the list
        assert str(cancelled.pk) not in page

    def test_one_that_passes_may_have_a_slice_that_regressed(
        self, staff: Client, release: Callable, experiment: Callable
    ) -> None:
        first = release(1)
        night = {"tag": "night", "estimate": -90.0, "high": -40.0, "differs": True, "better": False}
        experiment(release(2, first), first, "pass", slices=[night])
        page = text_of(staff)
        assert "<strong>Foal 2</strong> is worse on a slice compared with Foal 1" in page

    def test_to_be_worse_than_a_later_version_is_no_regression(
        self, staff: Client, release: Callable, experiment: Callable
    ) -> None:
        first = release(1)
        second, third = release(2, first), release(3, first)
        experiment(second, third, "regressed")
        page = text_of(staff, f"{PAGE}?since=foal-1")
        assert "Regressed</strong> 2 against 3" in page
        assert "<strong>Regression found</strong>" not in page
        experiment(third, second, "inconclusive")
        page = text_of(staff, f"{PAGE}?since=foal-1")
        assert (
            "The one experiment that compared a newer version with an earlier one was inconclusive."
        ) in page

    def test_a_pass_against_another_version_is_not_a_comparison_with_this_one(
        self, staff: Client, release: Callable, experiment: Callable
    ) -> None:
        first = release(1)
        second = release(2, first)
        experiment(release(3, first), first, "pass")
        page = text_of(staff, f"{PAGE}?since={second.slug}")
        assert "<strong>Not comparable yet.</strong>" in page
        page = text_of(staff, f"{PAGE}?since={first.slug}")
        assert "<strong>No regression found</strong> since Foal 1" in page

    def test_the_public_sees_nothing_of_them(
        self, client: Client, release: Callable, experiment: Callable
    ) -> None:
        first = release(1)
        second = release(2, first)
        experiment(second, first, "regressed")
        page = text_of(client)
        assert "/experiments/" not in page
        assert "egressed against" not in page
        assert "experiment" not in page.lower()


def test_the_public_sees_public_versions_only(client: Client, release: Callable) -> None:
    first = release(1)
    secret = release(2, first, codename="Grey Mare")
    trial = release(3, first, state="trial")
    draft = release(4, first, state="draft")
    fifth = release(5, secret)
    board({first: (1000, 20), secret: (700, 20), fifth: (990, 20)})
    page = text_of(client, f"{PAGE}?since=foal-1")
    for hidden in (secret, trial, draft):
        assert hidden.name not in page
        assert client.get(f"{PAGE}?since={hidden.slug}").status_code == 404
    assert "Grey Mare" not in page
    assert "No regression found on the leaderboards" in page
    assert "based on" not in page

    client.force_login(operator())
    page = text_of(client, f"{PAGE}?since=foal-1")
    for words in ("Foal 2", "codename Grey Mare", "on trial", "based on Foal 2"):
        assert words in page
    assert "In experiments only: Foal 3." in page
    assert "On trial: shown in experiments only." in page
    assert "Not comparable" not in page
    Standing.objects.exclude(version=first).delete()
    fifth.delete()
    secret.delete()
    page = text_of(client, f"{PAGE}?since=foal-1")
    assert "<strong>Not on a leaderboard.</strong>" in page
    assert "no newer version competes here" in page
    assert "Foal 4" not in page


def test_a_model_wholly_on_trial_has_a_page_for_staff_alone(
    client: Client, release: Callable
) -> None:
    release(1, state="trial")
    assert client.get(PAGE).status_code == 404
    client.force_login(operator())
    assert "Foal 1" in text_of(client)


def test_times_per_clip_stand_with_their_hardware(
    client: Client, release: Callable, few: PromptSet
) -> None:
    Clip.objects.create(
        version=release(1), prompt=few.prompts.first(), category=SILENT, seed=1, state="ready",
        master="m", rendition="r", poster="p", rendition_sha256="0", render_seconds=2.5,
        hardware="one fast card",
    )  # fmt: skip
    assert "2.5 s per clip on one fast card" in text_of(client)


@pytest.mark.parametrize("address", ["/models/%00/", "/models/fo%00al/", f"{PAGE}?since=%00"])
def test_an_address_with_a_nul_is_of_nothing(
    client: Client, release: Callable, address: str
) -> None:
    release(1)
    assert client.get(address).status_code == 404


def test_other_labs_models_have_no_lineage(client: Client, release: Callable) -> None:
    release(1)
    Model.objects.update(in_house=False)
    assert 'id="lineage"' not in text_of(client)


def test_the_page_asks_as_much_of_the_database_for_many_versions(
    staff: Client, release: Callable, experiment: Callable
) -> None:
    versions = [release(1)]
    versions.append(release(2, versions[0]))

    def judge() -> None:
        board(dict.fromkeys(versions, (1000, 20)))
        for tag in ("night", "day"):
            board(dict.fromkeys(versions, (1000, 20)), tag)
        sliced("night", "day")
        for candidate, baseline in zip(versions[1:], versions, strict=False):
            experiment(candidate, baseline, "pass")

    judge()
    few_versions = queries_of(staff)
    for number in range(3, 13):
        versions.append(release(number, versions[-1]))
    judge()
    assert queries_of(staff) == few_versions


def queries_of(client: Client) -> int:
    with CaptureQueriesContext(connection) as queries:
        assert client.get(PAGE).status_code == 200
    return len(queries)
