"""A reader looks at slices of a board and at how robust it is."""

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pytest
from django.core.management import call_command
from django.db.models import Q
from django.test import Client
from django.utils import timezone

from arena.models import Battle, Choice, Exclusion, Vote, Voter
from generation.catalogue.categories import Category
from generation.models import Clip, Prompt, Version
from ratings.boards.refit import refit
from ratings.models import Leaderboard, Robustness
from ratings.robustness.report import write_report, write_report_if_due
from ratings.tasks import thin_leaderboards, write_robustness_reports

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
SILENT = Category.T2V_SILENT
PAGE = "/leaderboards/t2v-silent/robustness/"
VOTERS, PROMPTS = 40, 24


@pytest.fixture
def ledger(make_version: Callable[..., Version]) -> list[Version]:
    """1,600 votes on four versions. v0 is best by day, v3 is best at night; clips
    that move more win more often."""
    rng = np.random.default_rng(8)
    versions = [make_version(f"v{i}") for i in range(4)]
    strength = {"day": [1.0, 0.3, 0.0, -1.3], "night": [-0.6, 0.3, 0.0, 1.2]}
    prompts = Prompt.objects.bulk_create(
        Prompt(
            key=f"p{i}", text=f"prompt {i}", sounds=["silent"], aspect="1:1", seconds=1,
            tags=["night" if i % 4 == 0 else "day"],
        )
        for i in range(PROMPTS)
    )  # fmt: skip
    clips = {
        (v, p): Clip.objects.create(
            version=version, prompt=prompt, category=SILENT, seed=1, width=32, height=32, fps=8.0,
            motion=float(2 ** rng.uniform(1, 5) - 1),
        )
        for v, version in enumerate(versions)
        for p, prompt in enumerate(prompts)
    }  # fmt: skip
    people = Voter.objects.bulk_create(Voter() for _ in range(VOTERS))
    battles, choices = [], []
    for _ in range(1600):
        left, right = rng.choice(4, 2, replace=False)
        prompt = int(rng.integers(PROMPTS))
        one, two = clips[left, prompt], clips[right, prompt]
        power = strength[prompts[prompt].tags[0]]
        logit = (
            power[left] - power[right] + 0.4 * (np.log2(one.motion + 1) - np.log2(two.motion + 1))
        )
        won = rng.random() < 1 / (1 + np.exp(-logit))
        choices.append(Choice.TIE if rng.random() < 0.1 else Choice.A if won else Choice.B)
        battles.append(
            Battle(
                voter=people[rng.integers(VOTERS)], stream="mixed", category=SILENT,
                prompt=prompts[prompt], clip_a=one, clip_b=two, draw_probability=0.1,
                expires_at=timezone.now(),
            )
        )  # fmt: skip
    Battle.objects.bulk_create(battles)
    Vote.objects.bulk_create(
        Vote(
            battle=battle, voter=battle.voter, category=SILENT, prompt=battle.prompt,
            version_a=battle.clip_a.version, version_b=battle.clip_b.version,
            choice=choice, simulated=False,
        )
        for battle, choice in zip(battles, choices, strict=True)
    )  # fmt: skip
    refit(SILENT)
    return versions


def test_before_there_are_findings_the_page_says_so(client: Client) -> None:
    assert "No report yet" in client.get(PAGE).text
    assert client.get("/leaderboards/t2v-silent/robustness.json").json()["votes"] == 0
    assert client.get("/leaderboards/t2v-loud/robustness/").status_code == 404


def test_the_page_shows_what_the_votes_hold(client: Client, ledger: list[Version]) -> None:
    write_report(SILENT)
    page = client.get(PAGE).text
    for words in ("Votes that would change who is first", "Krippendorff", "Preference for side A",
                  "twice the motion", "Davidson", "Single votes", "Head to head"):  # fmt: skip
        assert words in page, words
    found = client.get("/leaderboards/t2v-silent/robustness.json").json()
    assert found["votes"] == 1600
    assert found["names"] == ["V0", "V1", "V2", "V3"]

    motion = next(
        e for e in found["other_influences"]["effects"] if e["name"] == "with twice the motion"
    )
    assert motion["low"] < 0.4 * 173.7 < motion["high"]
    assert motion["low"] > 0
    left = found["other_influences"]["effects"][0]
    assert left["low"] < 0 < left["high"]  # sides were drawn at random

    headline, sandwich, votes = (
        np.array(found["intervals"][name])
        for name in ("two_way_bootstrap", "sandwich", "vote_bootstrap")
    )
    width = headline[1] - headline[0]
    np.testing.assert_allclose(sandwich[1] - sandwich[0], width, rtol=0.2)
    assert (width > 1.2 * (votes[1] - votes[0])).all()  # prompts differ by design

    pairs = np.array(found["head_to_head"]["votes"])
    assert pairs.sum() == 2 * 1600
    assert (pairs == pairs.T).all()


def test_what_the_lead_hangs_on_is_what_an_operator_would_find(ledger: list[Version]) -> None:
    """The prompt said to weigh most: without its votes the board has the lead that is claimed."""
    influence = write_report(SILENT).findings["influence"]
    for vote in Vote.objects.filter(prompt_id=influence["prompt"]["id"]):
        Exclusion.objects.create(action="exclude", vote=vote, reason="a test")
    standings = {row.version_id: row.rating for row in refit(SILENT).standings.all()}
    lead = standings[influence["leader"]] - standings[influence["runner_up"]]
    assert lead == pytest.approx(influence["prompt"]["lead"], abs=0.01)


def test_a_slice_has_a_board_of_its_own(client: Client, ledger: list[Version]) -> None:
    write_report(SILENT)
    whole = client.get("/leaderboards/t2v-silent/")
    assert "?slice=night" in whole.text
    page = client.get("/leaderboards/t2v-silent/?slice=night").text
    assert page.count('class="tag differs"') == 2
    night = client.get("/leaderboards/t2v-silent.json?slice=night").json()
    assert night["slice"] == "night"
    assert night["prompts"] == 6
    assert night["votes"] < 600
    rows = {row["name"]: row for row in night["standings"]}
    assert rows["V3"]["differs"]
    assert rows["V3"]["from_category"] > 50
    assert rows["V0"]["from_category"] < -50
    assert not rows["V2"]["differs"]
    day = client.get("/leaderboards/t2v-silent.csv?slice=day").text
    assert day.startswith("category,slice,")
    for wrong in ("dusk", "%00", "'"):
        assert client.get(f"/leaderboards/t2v-silent/?slice={wrong}").status_code == 404
    call_command("refit", "--verify")


def test_a_slice_that_lost_its_votes_is_gone(client: Client, ledger: list[Version]) -> None:
    write_report(SILENT)
    Robustness.objects.update(seconds=0)  # else the next one waits longer the longer this one took
    for voter in Voter.objects.order_by("pk")[4:]:
        Exclusion.objects.create(action="exclude", voter=voter, reason="a test")
    refit(SILENT)
    assert write_report_if_due(SILENT) is not None  # nine tenths of the votes are out
    assert client.get("/leaderboards/t2v-silent/?slice=night").status_code == 404


def test_a_slice_with_a_perfect_winner(client: Client, ledger: list[Version]) -> None:
    """Whoever won every vote has an open interval, on the slice as on the board, and leads both."""
    for vote in Vote.objects.filter(Q(version_a=ledger[0]) | Q(version_b=ledger[0])):
        won = Choice.A if vote.version_a == ledger[0] else Choice.B
        if vote.choice != won:
            Exclusion.objects.create(action="exclude", vote=vote, reason="a test")
    refit(SILENT)
    findings = write_report(SILENT).findings
    assert findings["lead"]["high"] is None
    assert client.get(PAGE).status_code == 200
    for query in ("", "?slice=day"):
        rows = client.get(f"/leaderboards/t2v-silent.json{query}").json()["standings"]
        assert (rows[0]["name"], rows[0]["high"]) == ("V0", None)
        assert (rows[0]["rank_low"], rows[0]["rank_high"]) == (1, 1)


def test_findings_of_an_older_form_are_made_again(client: Client, ledger: list[Version]) -> None:
    Robustness.objects.create(
        category=SILENT, last_vote_id=Vote.objects.latest("pk").pk, last_exclusion_id=0,
        simulated_counted=False, findings={"versions": [1]}, seconds=0.1,
    )  # fmt: skip
    assert client.get(PAGE).status_code == 200
    assert write_robustness_reports() == ["t2v-silent"]


def test_a_slice_without_an_effect_stays_near_the_category(
    client: Client, ledger: list[Version]
) -> None:
    for number, prompt in enumerate(Prompt.objects.order_by("key")):
        prompt.tags = ["odd"] if number % 2 else ["even"]
        prompt.save()
    write_report(SILENT)
    for tag in ("odd", "even"):
        rows = client.get(f"/leaderboards/t2v-silent.json?slice={tag}").json()["standings"]
        assert not any(row["differs"] for row in rows)


def test_the_same_ledger_gives_the_same_slices(ledger: list[Version]) -> None:
    for _ in range(2):
        write_report(SILENT)
    for tag in ("day", "night"):
        digests = Leaderboard.objects.filter(slice=tag).values_list("digest", flat=True)
        assert len(digests) == 2
        assert len(set(digests)) == 1
    one, two = Robustness.objects.order_by("pk")
    assert one.findings == two.findings


def test_findings_are_made_when_the_ledger_has_grown_enough(ledger: list[Version]) -> None:
    assert write_robustness_reports() == ["t2v-silent"]
    assert write_robustness_reports() == []
    Exclusion.objects.create(action="exclude", vote=Vote.objects.latest("pk"), reason="a test")
    refit(SILENT)
    assert write_report_if_due(SILENT) is None  # one vote of 1,600 can wait
    hours_ago = timezone.now() - timedelta(hours=2)
    Robustness.objects.update(created_at=hours_ago)
    assert write_robustness_reports() == ["t2v-silent"]
    Robustness.objects.update(created_at=timezone.now() - timedelta(days=2))
    assert thin_leaderboards() == 1
    assert Robustness.objects.count() == 1


def test_a_board_of_one_vote_has_a_report(client: Client, ledger: list[Version]) -> None:
    for vote in Vote.objects.order_by("pk")[1:]:
        Exclusion.objects.create(action="exclude", vote=vote, reason="a test")
    write_report(SILENT)
    assert client.get(PAGE).status_code == 200
    Exclusion.objects.create(action="exclude", vote=Vote.objects.earliest("pk"), reason="a test")
    assert "versions" not in write_report(SILENT).findings
    assert "No report yet" in client.get(PAGE).text


def test_codenames_hold_on_the_robustness_page(client: Client, ledger: list[Version]) -> None:
    Version.objects.filter(slug="v3").update(codename="grey-mare")
    write_report(SILENT)
    for path in (PAGE, "/leaderboards/t2v-silent/robustness.json"):
        text = client.get(path).text
        assert "grey-mare" in text
        assert "V3" not in text
