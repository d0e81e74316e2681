"""A model team reads an experiment: verdict, trust in the panel, slices, who answers oddly."""

import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from unittest import mock

import numpy as np
import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from redis import Redis

from arena.experiments.panels import add_members
from arena.models import (
    Battle,
    BattleKind,
    Block,
    Choice,
    Defect,
    Exclusion,
    Experiment,
    Member,
    Panel,
    Vote,
    Voter,
)
from arena.tasks import look_at_experiments
from generation.catalogue.categories import Category
from generation.models import Clip, Prompt, PromptSet, PromptSetEntry, Version
from ratings.experiments.assessment import assess, assess_if_behind
from ratings.experiments.state import newest_assessment
from ratings.models import Assessment, Delivery, StoredPlan
from ratings.tasks import assess_changed, assess_experiment, compute_plans, sweep_plans

pytestmark = pytest.mark.django_db
Chance = Callable[[Block, Voter], float]
MakeBench = Callable[..., "Bench"]
TAGS = ("people", "places", "animals")
PROMPTS = 24
SCENE = "a big red circle bounces by day"


@dataclass
class Bench:
    """An experiment whose votes are put straight into the ledger."""

    experiment: Experiment
    voters: list[Voter]
    rng: np.random.Generator
    blocks: list[Block] = field(default_factory=list)
    judged: Iterator[int] = field(default_factory=count)

    def vote(self, voter: Voter, block: Block, left: bool, choice: str, **more: object) -> Vote:
        """One answer to a pair; `left` says whether the candidate's clip is on the left."""
        clips = [block.candidate_clip, block.baseline_clip]
        one, two = clips if left else clips[::-1]
        fields = {"kind": BattleKind.EXPERIMENT, "block": block, **more}
        return self.answer(voter, one, two, choice, **fields)

    def answer(self, voter: Voter, left: Clip, right: Clip, choice: str, **more: object) -> Vote:
        battle = Battle.objects.create(
            voter=voter, stream="panel", category=self.experiment.category, prompt=left.prompt,
            clip_a=left, clip_b=right, draw_probability=1, expires_at=timezone.now(),
            experiment=self.experiment, **more,
        )  # fmt: skip
        return Vote.objects.create(
            battle=battle, voter=voter, category=battle.category, prompt=battle.prompt,
            version_a=left.version, version_b=right.version, choice=choice,
            kind=battle.kind, experiment=self.experiment, simulated=voter.simulated,
        )  # fmt: skip

    def judge(self, blocks: int, wins: float | Chance, ties: float = 0.1) -> None:
        """So many blocks more, by voters in turn; `wins` is the candidate's chance."""
        battles, choices = [], []
        for number in (next(self.judged) for _ in range(blocks)):
            block = self.blocks[number]
            for left in (True, False):
                voter = self.voters[(2 * number + left) % len(self.voters)]
                clips = [block.candidate_clip, block.baseline_clip]
                one, two = clips if left else clips[::-1]
                battles.append(
                    Battle(
                        voter=voter, stream="panel", category=self.experiment.category,
                        prompt=block.prompt, clip_a=one, clip_b=two, draw_probability=1,
                        expires_at=timezone.now(), kind=BattleKind.EXPERIMENT,
                        experiment=self.experiment, block=block,
                    )
                )  # fmt: skip
                chance = wins(block, voter) if callable(wins) else wins
                won = self.rng.random() < chance
                even = self.rng.random() < ties
                choices.append(Choice.TIE if even else Choice.A if won == left else Choice.B)
        Battle.objects.bulk_create(battles)
        Vote.objects.bulk_create(
            Vote(
                battle=battle, voter=battle.voter, category=battle.category, prompt=battle.prompt,
                version_a=battle.clip_a.version, version_b=battle.clip_b.version,
                choice=choice, kind=BattleKind.EXPERIMENT,
                experiment=self.experiment, simulated=False,
            )
            for battle, choice in zip(battles, choices, strict=True)
        )  # fmt: skip


@pytest.fixture
def make_bench(make_version: Callable[..., Version]) -> MakeBench:
    def make(voters: int = 12, rounds: int = 8, **fields: object) -> Bench:
        category = fields.pop("category", Category.T2V_SILENT)
        muted = fields.get("muted_share", 0)
        candidate, baseline = make_version("swift-2"), make_version("swift-1")
        prompts = Prompt.objects.bulk_create(
            Prompt(
                key=f"p{i}", text=SCENE, sounds=["silent", "audio"], aspect="1:1",
                seconds=1, tags=[TAGS[i % len(TAGS)]],
            )
            for i in range(PROMPTS)
        )  # fmt: skip
        clips = {
            (version.pk, prompt.pk): Clip(version=version, prompt=prompt, category=category, seed=1)
            for version in (candidate, baseline)
            for prompt in prompts
        }
        Clip.objects.bulk_create(clips.values())
        values: dict = {
            "name": "Swift 2 against 1", "candidate": candidate, "baseline": baseline,
            "category": category, "seed_slots": 1, "margin": 25, "alpha": 0.05, "beta": 0.05,
            "max_votes": 2 * rounds * PROMPTS, "created_by": "ada",
            "prompt_set": PromptSet.objects.create(slug="team", name="The team's prompts"),
        }  # fmt: skip
        experiment = Experiment.objects.create(**values | fields)
        bench = Bench(
            experiment,
            Voter.objects.bulk_create(Voter() for _ in range(voters)),
            np.random.default_rng(5),
        )
        order = bench.rng.permutation(PROMPTS).tolist() * rounds
        bench.blocks = Block.objects.bulk_create(
            Block(
                experiment=experiment, position=position, prompt=prompts[place], seed_slot=0,
                candidate_clip=clips[candidate.pk, prompts[place].pk],
                baseline_clip=clips[baseline.pk, prompts[place].pk],
                muted=position % 4 < 4 * muted,
            )
            for position, place in enumerate(order)
        )  # fmt: skip
        return bench

    return make


@pytest.fixture
def team(db) -> Client:
    """Somebody of the model team, signed in."""
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    return client


def page_of(bench: Bench) -> str:
    return f"/experiments/{bench.experiment.pk}/"


def words(html: str) -> str:
    """A page's words alone, with single spaces."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def exclude(client: Client, bench: Bench, voter: Voter, **fields: str) -> str:
    """What the page says at once, and what it shows once a worker has assessed the experiment."""
    fields = {"voter": voter.pk, **fields}
    answer = client.post(f"{page_of(bench)}exclude/", fields, follow=True)
    assert answer.status_code == 200
    assess_experiment(str(bench.experiment.pk))
    return answer.text + client.get(page_of(bench)).text


# --- the verdict ----------------------------------------------------------------------------------


def test_before_the_first_vote_it_goes_on(make_bench: MakeBench, team: Client) -> None:
    bench = make_bench()
    assert "No results yet" in team.get(page_of(bench)).text
    made = assess(bench.experiment)
    assert (made.verdict, made.votes, made.blocks) == ("", 0, 0)
    assert assess_if_behind(bench.experiment) is None
    assert "No clip pair has been judged by two voters yet" in team.get(page_of(bench)).text


def test_a_worse_candidate_regresses(make_bench: MakeBench, team: Client) -> None:
    bench = make_bench()
    bench.judge(100, 0.25)
    assert assess_changed() == [str(bench.experiment.pk)]
    made = newest_assessment(bench.experiment)
    assert (made.verdict, made.votes, made.blocks) == ("regressed", 200, 100)
    assert 0 < made.decided_at <= 100
    assert made.high < 0
    bench.experiment.refresh_from_db()
    assert bench.experiment.state == "decided"
    page = words(team.get(page_of(bench)).text)
    assert re.search(
        r"Swift 2 is worse than Swift 1\. (The votes support|If it were not worse)", page
    )
    assert f"at block {made.decided_at}" in page
    about = r"\(about \d+ Elo with the spread and the \d+% ties seen here\)"
    assert re.search(f"25 normalised Elo {about}", page)
    assert re.search(r" \d+ Elo below the baseline, 95% interval \d+ to \d+ below,", page)


def test_a_better_candidate_passes(make_bench: MakeBench, team: Client) -> None:
    bench = make_bench()
    bench.judge(100, 0.75)
    made = assess(bench.experiment)
    assert made.verdict == "pass"
    assert "is not worse than" in team.get(page_of(bench)).text


def test_the_same_ledger_gives_the_same_assessment(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.judge(50, 0.4)
    one, two = assess(bench.experiment), assess(bench.experiment)
    assert one.findings == two.findings
    assert (one.llr, one.log_e, one.estimate) == (two.llr, two.log_e, two.estimate)


def test_every_verdict_change_stays_and_the_rest_is_replaced(make_bench: MakeBench) -> None:
    bench = make_bench()
    for _ in range(4):
        bench.judge(8, 0.45)
        assess(bench.experiment)
    assert Assessment.objects.count() == 2  # the first and the newest
    bench.judge(80, 0.1)
    for _ in range(3):
        assess(bench.experiment)
    verdicts = Assessment.objects.order_by("pk").values_list("verdict", "blocks")
    assert list(verdicts) == [("", 8), ("", 32), ("regressed", 112), ("regressed", 112)]


def test_a_verdict_change_is_on_its_way_to_the_webhook_once(make_bench: MakeBench) -> None:
    bench = make_bench(webhook="https://example.org/hook")
    assess(bench.experiment)
    assert not Delivery.objects.exists()
    bench.judge(100, 0.2)
    for _ in range(3):
        assess(bench.experiment)
    delivery = Delivery.objects.get()
    assert delivery.assessment.verdict == "regressed"
    assert delivery.next_try_at is not None


def test_only_what_has_news_is_judged_again(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.judge(100, 0.2)
    assert assess_changed() == [str(bench.experiment.pk)]
    assert assess_changed() == []
    vote = Vote.objects.earliest("pk")
    Defect.objects.create(vote=vote, clip=vote.battle.clip_a, kind="hands", second=1)
    assert assess_changed() == [str(bench.experiment.pk)]
    assert newest_assessment(bench.experiment).findings["defects"]["kinds"].keys() == {"hands"}
    assert assess_changed() == []
    bench.judge(1, 0.2)
    assert assess_changed() == [str(bench.experiment.pk)]
    Experiment.objects.update(state="cancelled")
    bench.judge(1, 0.2)
    assert assess_changed() == []


def test_a_defect_that_was_numbered_early_and_came_late_is_not_missed(
    make_bench: MakeBench,
) -> None:
    bench = make_bench()
    bench.judge(4, 0.5)
    vote = Vote.objects.earliest("pk")
    Defect.objects.create(pk=1000, vote=vote, clip=vote.battle.clip_a, kind="hands")
    assess(bench.experiment)
    Defect.objects.create(pk=999, vote=vote, clip=vote.battle.clip_a, kind="text")
    assert assess_changed() == [str(bench.experiment.pk)]
    assert newest_assessment(bench.experiment).findings["defects"]["kinds"].keys() == {
        "hands",
        "text",
    }
    assert assess_changed() == []


def test_a_cancelled_experiment_stays_cancelled_and_tells_nobody(
    make_bench: MakeBench, team: Client
) -> None:
    bench = make_bench(webhook="https://example.org/hook")
    assess(bench.experiment)
    assert "</span> to go" in team.get(page_of(bench)).text
    page = team.post(f"{page_of(bench)}cancel/", follow=True).text
    assert "Experiment cancelled" in page
    assert "</span> to go" not in page
    bench.judge(100, 0.2)
    exclude(team, bench, bench.voters[0], reason="Did not look.")
    assert newest_assessment(bench.experiment).verdict == "regressed"
    bench.experiment.refresh_from_db()
    assert bench.experiment.state == "cancelled"
    assert not Delivery.objects.exists()


# --- taking voters out ----------------------------------------------------------------------------


def test_excluding_a_voter_reopens_it_and_the_page_says_so(
    make_bench: MakeBench, team: Client
) -> None:
    bench = make_bench()
    bench.judge(48, 0.12)
    decided = assess(bench.experiment).decided_at
    assert decided is not None
    odd = bench.voters[:8:2]
    for voter in odd:
        page = exclude(team, bench, voter, reason="Did not look.")
    assert "is excluded. The new assessment appears within seconds." in page
    said = words(page)
    assert f"Was regressed at block {decided}." in said
    cause = r"Voter [0-9a-f]{8} excluded by ada on .*“Did not look.”.*"
    assert re.search(cause + r"\. The experiment continues\.", said)
    made = newest_assessment(bench.experiment)
    assert (made.verdict, made.blocks) == ("", 16)
    assert made.findings["left_out"] == {"excluded": 32}
    bench.experiment.refresh_from_db()
    assert bench.experiment.state == "running"

    for voter in odd:
        page = exclude(team, bench, voter, action="include", reason="They did.")
    said = words(page)
    assert "Was not decided." in said
    assert re.search(
        r"included again by ada on .*“They did.”.*\. The verdict is now regressed\.", said
    )
    again = newest_assessment(bench.experiment)
    assert (again.verdict, again.decided_at) == ("regressed", decided)


def test_a_reason_that_cannot_be_kept_is_refused_in_a_sentence(
    make_bench: MakeBench, team: Client
) -> None:
    bench = make_bench()
    bench.judge(4, 0.5)
    assess(bench.experiment)
    with transaction.atomic():  # what failed is rolled back
        fields = {"voter": bench.voters[0].pk, "reason": "Clicks at\0random."}
        answer = team.post(f"{page_of(bench)}exclude/", fields, follow=True)
    assert answer.status_code == 400
    assert "contains a NUL character" in words(answer.text)
    assert not Exclusion.objects.exists()


def test_an_exclusion_wakes_the_worker_that_assesses(
    make_bench: MakeBench, team: Client, django_capture_on_commit_callbacks: Callable, settings
) -> None:
    bench = make_bench()
    bench.judge(4, 0.5)
    made = assess(bench.experiment)
    fields = {"voter": bench.voters[0].pk, "reason": "Did not look."}
    with Redis.from_url(settings.CELERY_BROKER_URL) as broker:
        broker.delete("control")
        with django_capture_on_commit_callbacks(execute=True):
            team.post(f"{page_of(bench)}exclude/", fields)
        messages = broker.lrange("control", 0, -1)
        broker.delete("control")
    tasks = {json.loads(message)["headers"]["task"] for message in messages}
    assert tasks == {"ratings.tasks.assess_experiment", "arena.tasks.look_at_experiments"}
    assert newest_assessment(bench.experiment) == made  # nothing is computed in the request


def test_an_exclusion_needs_a_reason_and_a_voter_of_the_experiment(
    make_bench: MakeBench, team: Client
) -> None:
    bench = make_bench()
    bench.judge(4, 0.5)
    assess(bench.experiment)
    refused = team.post(f"{page_of(bench)}exclude/", {"voter": bench.voters[0].pk, "reason": " "})
    assert refused.status_code == 400
    assert "Nothing was recorded. Give a reason of at most 300 characters." in refused.text
    for stranger in (Voter.objects.create().pk, "nobody"):
        answer = team.post(f"{page_of(bench)}exclude/", {"voter": stranger, "reason": "x"})
        assert answer.status_code == 404
    assert not Exclusion.objects.exists()


def test_of_two_votes_on_a_vote_slot_the_earlier_counts(make_bench: MakeBench) -> None:
    """One was excluded, another voter gave the vote again, and the first was put back."""
    bench = make_bench()
    first, second, third = bench.voters[:3]
    bench.vote(first, bench.blocks[0], True, "a")
    bench.vote(second, bench.blocks[0], False, "b")
    bench.vote(third, bench.blocks[0], True, "b")
    assert assess(bench.experiment).findings["counts"] == [0, 0, 0, 0, 1]
    Exclusion.objects.create(action="exclude", voter=first, reason="a test")
    assert assess(bench.experiment).findings["counts"] == [0, 0, 1, 0, 0]


def test_simulated_voters_count_only_where_the_site_says_so(
    make_bench: MakeBench, settings
) -> None:
    bench = make_bench()
    bench.judge(10, 0.5)
    for left, choice in ((True, "a"), (False, "b")):
        robot = Voter.objects.create(simulated=True)
        bench.vote(robot, bench.blocks[20], left, choice)
    made = assess(bench.experiment)
    assert (made.votes, made.blocks) == (20, 10)
    assert made.findings["left_out"] == {"simulated": 2}
    settings.COUNT_SIMULATED_VOTES = True
    assert assess_changed() == [str(bench.experiment.pk)]
    made = newest_assessment(bench.experiment)
    assert (made.votes, made.blocks, made.simulated_counted) == (22, 11, True)


# --- what the findings say ------------------------------------------------------------------------


def test_trust_in_the_panel_is_measured(
    make_bench: MakeBench, make_version: Callable[..., Version], team: Client
) -> None:
    bench = make_bench()
    baseline = bench.experiment.baseline
    source = Clip.objects.filter(version=baseline)[0]

    def made_of(check: str) -> Clip:
        version = make_version(
            check.replace(" ", "-"), state="trial", settings={"check": check, "of": baseline.slug}
        )
        return Clip.objects.create(
            version=version, prompt=source.prompt, category=source.category, seed=1
        )

    twin, frozen, noisy = made_of("same"), made_of("frozen"), made_of("noisy")
    for number in range(24):
        voter = bench.voters[number % 12]
        bench.answer(voter, source, twin, "a" if number % 2 else "b", kind=BattleKind.SAME)
        bench.answer(voter, source, frozen, "a" if number < 20 else "tie", kind=BattleKind.GOLD)
        bench.answer(voter, noisy, source, "b" if number < 12 else "a", kind=BattleKind.GOLD)
        first = bench.vote(voter, bench.blocks[number], True, "a")
        bench.answer(
            voter, first.battle.clip_b, first.battle.clip_a, "b" if number < 18 else "a",
            kind=BattleKind.REPEAT, repeats=first.battle,
        )  # fmt: skip
    trust = assess(bench.experiment).findings["trust"]
    assert (trust["same"]["n"], trust["same"]["share"], trust["same"]["word"]) == (24, 0.5, "fine")
    assert trust["same"]["zero"]
    gold = {kind["kind"]: (kind["n"], kind["share"]) for kind in trust["gold"]["kinds"]}
    assert gold == {"frozen": (24, 0.8333), "noisy": (24, 0.5)}
    assert trust["gold"]["word"] == "doubtful"
    assert (trust["repeats"]["n"], trust["repeats"]["share"]) == (24, 0.75)
    # All chose the candidate first, then 18 of 24 again: chance alone would give as many.
    assert trust["repeats"]["chance"] == 0.75
    assert trust["repeats"]["word"] == "doubtful"
    assert trust["sides"]["share"] == 1.0
    assert trust["sides"]["word"] == "doubtful"
    page = words(team.get(page_of(bench)).text)
    assert "3 of 4 checks are doubtful" in page
    assert "The interval includes 0, as it should." in page
    assert "frozen picture: 83 % of 24" in page.replace("%", " %").replace("  ", " ")
    assert "so far" not in page

    Exclusion.objects.create(action="exclude", voter=bench.voters[0], reason="a test")
    trust = assess(bench.experiment).findings["trust"]
    assert [trust[name]["n"] for name in ("same", "repeats", "gold")] == [22, 22, 44]


def test_few_answers_are_counted_and_not_judged(
    make_bench: MakeBench, make_version: Callable[..., Version], team: Client
) -> None:
    bench = make_bench()
    baseline = bench.experiment.baseline
    source = Clip.objects.filter(version=baseline)[0]
    for check, kind in (("same", BattleKind.SAME), ("frozen", BattleKind.GOLD)):
        made_of = make_version(check, state="draft", settings={"check": check, "of": baseline.slug})
        made = Clip.objects.create(
            version=made_of, prompt=source.prompt, category=source.category, seed=1
        )
        for voter in bench.voters[:9]:
            bench.answer(voter, source, made, "a", kind=kind)
    first = bench.vote(bench.voters[0], bench.blocks[0], True, "a").battle
    bench.answer(
        bench.voters[0], first.clip_b, first.clip_a, "a", kind=BattleKind.REPEAT, repeats=first
    )
    assess(bench.experiment)
    page = words(team.get(page_of(bench)).text)
    assert "A check needs 20 answers for a result" in page
    for said in (
        "Same version on both sides … too few 9 answers so far.",
        "Preference for one side … too few 1 vote for A or B so far.",
        "sides swapped … too few 1 repeat so far.",
        "A clip beside a degraded copy … too few 9 answers so far.",
    ):
        assert said in page
    for judged in ("includes 0", "Elo for one copy", "were for A", "80% or more is fine"):
        assert judged not in page


def test_a_version_against_itself_is_judged_by_prompts_too(
    make_bench: MakeBench, make_version: Callable[..., Version]
) -> None:
    bench = make_bench()
    baseline = bench.experiment.baseline
    other = make_version("same", state="draft", settings={"check": "same", "of": baseline.slug})
    for number, source in enumerate(Clip.objects.filter(version=baseline).order_by("prompt")[:4]):
        twin = Clip.objects.create(
            version=other, prompt=source.prompt, category=source.category, seed=2
        )
        for voter in bench.voters[:10]:
            choice = "a" if number < 2 else "tie"
            bench.answer(voter, source, twin, choice, kind=BattleKind.SAME)
    same = assess(bench.experiment).findings["trust"]["same"]
    # Of forty answers these would be far from even; of four prompts they are not.
    assert (same["n"], same["share"], same["zero"]) == (40, 0.75, True)
    assert same["low"] < 0.5


def test_a_tag_on_which_it_is_worse_is_found_and_shown(make_bench: MakeBench, team: Client) -> None:
    bench = make_bench(voters=30)
    bench.judge(180, lambda block, _: 0.2 if "people" in block.prompt.tags else 0.65)
    slices = {row["tag"]: row for row in assess(bench.experiment).findings["slices"]}
    assert slices.keys() == set(TAGS)
    people = slices["people"]
    assert people["differs"]
    assert not people["better"]
    assert people["raw"] < people["estimate"] < 0  # pulled towards the whole
    assert people["from_whole"] < -50
    assert people["high"] < 0
    lost = [pair["lost"] - pair["won"] for pair in people["pairs"]]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 0
    page = team.get(page_of(bench)).text
    assert "▼ worse here" in page
    shown = people["pairs"][0]
    for clip in (shown["candidate"], shown["baseline"]):
        assert f"/admin/generation/clip/{clip}/rendition.mp4" in page
    assert "people" in Prompt.objects.get(pk=shown["prompt"]).tags
    assert SCENE in page


def test_a_voter_unlike_the_rest_stands_out(make_bench: MakeBench, team: Client) -> None:
    bench = make_bench()
    odd = bench.voters[3]
    panel = Panel.objects.create(slug="studio", name="Studio")
    Member.objects.create(panel=panel, label="Grace of the studio", token="t", voter=odd)
    bench.judge(120, lambda _, voter: 0.0 if voter == odd else 0.6)
    shown = assess(bench.experiment).findings["contributors"]["shown"]
    assert shown[0]["voter"] == str(odd.pk)
    assert shown[0]["stands_out"]
    assert sum(row["stands_out"] for row in shown) <= 2
    assert shown[0]["answers"][0] == 0
    page = words(team.get(page_of(bench)).text)
    name = f"Grace of the studio {str(odd.pk)[:8]}"
    assert f"{name} unusual" in page
    page = words(exclude(team, bench, odd, reason="Answers blindly."))
    assert f"{name} is excluded. The new assessment appears within seconds." in page
    assert f"{name}, 20 votes: excluded by ada" in page
    assert f"Include {name} again" in page
    other = bench.voters[4]
    page = words(exclude(team, bench, other, reason="Answers blindly."))
    assert f"Voter {str(other.pk)[:8]} is excluded" in page


def test_voters_who_are_unusual_come_first_and_the_rest_is_folded(
    make_bench: MakeBench, team: Client
) -> None:
    bench = make_bench(voters=110)
    odd = bench.voters[3]
    bench.judge(110, 0.5)
    assess(bench.experiment)
    page = team.get(page_of(bench)).text
    assert "110 voters none unusual" in words(page)
    assert "10 more voters are not shown" in words(page)
    for block in bench.blocks[110:150]:
        bench.vote(odd, block, True, "b")
    assess(bench.experiment)
    page = team.get(page_of(bench)).text
    first, folded = page.split('<details class="shown-by" id="other-voters">')
    folded = folded.split('<section class="section" id="live-defects"')[0]
    assert "109 other voters who are not unusual" in words(folded)
    assert re.findall(r'<tr id="voter-(\w+)"', first) == [str(odd.pk)[:8]]
    others = re.findall(r'<tr id="voter-(\w+)"', folded)
    assert len(set(others)) == 99
    usual = next(each for each in bench.voters if str(each.pk)[:8] == others[50])
    refused = team.post(f"{page_of(bench)}exclude/", {"voter": usual.pk, "reason": " "}).text
    assert '<details class="shown-by" id="other-voters" open>' in refused
    refused = team.post(f"{page_of(bench)}exclude/", {"voter": odd.pk, "reason": " "}).text
    assert '<details class="shown-by" id="other-voters">' in refused


def test_what_the_sound_does(make_bench: MakeBench, team: Client) -> None:
    bench = make_bench(voters=24, category=Category.T2V_AUDIO, muted_share=0.5)
    assess(bench.experiment)
    assert "Known once blocks with sound" in team.get(page_of(bench)).text
    bench.judge(160, lambda block, _: 0.5 if block.muted else 0.2)
    sound = assess(bench.experiment).findings["sound"]
    assert [row["votes"] for row in sound["rows"]] == [160, 160]
    assert sound["low"] < sound["difference"] < sound["high"] < 0
    page = words(team.get(page_of(bench)).text)
    less, low, high = (-100 * sound[name] for name in ("difference", "high", "low"))
    assert (
        f"scores {less:.1f} points per hundred votes less than muted (95% interval {low:.1f} to "
        f"{high:.1f}). This is more than chance."
    ) in page


def test_defects_are_counted_by_version_and_tag(make_bench: MakeBench, team: Client) -> None:
    bench = make_bench()
    bench.judge(10, 0.5)
    for number, vote in enumerate(Vote.objects.order_by("pk")[:6]):
        of_candidate = vote.battle.clip_a.version == bench.experiment.candidate
        clip = vote.battle.clip_a if of_candidate else vote.battle.clip_b
        Defect.objects.create(vote=vote, clip=clip, kind="hands", second=1.5)
        if number == 0:
            Defect.objects.create(vote=vote, clip=clip, kind="text")
            for back in (False, True):
                Defect.objects.create(vote=vote, clip=clip, kind="flicker", taken_back=back)
    Exclusion.objects.create(action="exclude", vote=vote, reason="a test")
    found = assess(bench.experiment).findings["defects"]
    assert found["kinds"] == {
        "hands": {"candidate": 5, "baseline": 0}, "text": {"candidate": 1, "baseline": 0},
    }  # fmt: skip
    assert sum(row["candidate"] for row in found["tags"].values()) == 6
    page = team.get(page_of(bench)).text
    assert "Hands at 1.5 s" in page


# --- the pages ------------------------------------------------------------------------------------


def test_the_pages_are_the_teams(make_bench: MakeBench, client: Client) -> None:
    bench = make_bench()
    for path in ("/experiments/", "/experiments/new/", page_of(bench)):
        answer = client.get(path)
        assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/admin/login/")
    assert "/experiments/" not in client.get("/").text
    eve = User.objects.create_user("eve", is_staff=True)
    client.force_login(eve)
    assert client.get(page_of(bench)).status_code == 403
    assert "/experiments/" not in client.get("/").text
    eve.user_permissions.add(Permission.objects.get(codename="view_experiment"))
    assert client.get(page_of(bench)).status_code == 200
    assert "/experiments/" in client.get("/").text


def test_queries_do_not_grow_with_votes(make_bench: MakeBench, team: Client) -> None:
    bench = make_bench()
    counted = []
    for blocks in (40, 100):
        bench.judge(blocks, 0.45)
        assess(bench.experiment)
        team.get(page_of(bench))
        for path in (page_of(bench), "/experiments/"):
            with CaptureQueriesContext(connection) as queries:
                assert team.get(path).status_code == 200
            counted.append(len(queries))
    assert counted[:2] == counted[2:]
    assert counted[0] <= 14


def test_the_fragment_has_the_parts_that_change(make_bench: MakeBench, team: Client) -> None:
    bench = make_bench()
    bench.judge(40, 0.45)
    assess(bench.experiment)
    part = team.get(f"{page_of(bench)}?fragment").text
    assert "<html" not in part
    for name in ("head", "course", "trust", "slices", "contributors", "defects", "history"):
        assert re.search(rf'id="live-{name}" data-live', part), name
    assert "<polyline" in part


def test_the_list_has_verdicts(make_bench: MakeBench, team: Client) -> None:
    assert "No experiments yet" in team.get("/experiments/").text
    bench = make_bench()
    bench.judge(100, 0.2)
    assess(bench.experiment)
    page = words(team.get("/experiments/").text)
    assert "Decided Swift 2 against 1 Regressed" in page
    assert "200 of 384" in page
    assert "action needed" not in page
    Experiment.objects.update(state="running")  # its panels have no members
    look_at_experiments()
    assert "Blocked: action needed." in words(team.get("/experiments/").text)


# --- the planner ----------------------------------------------------------------------------------


@pytest.fixture
def asked(make_bench: MakeBench) -> dict[str, object]:
    """What the planner's form is sent: two versions with all their clips, one panel."""
    experiment = make_bench().experiment
    files = {"master": "m.mp4", "rendition": "r.mp4", "poster": "p.jpg", "rendition_sha256": "0"}
    Clip.objects.update(state="ready", render_seconds=2, **files)
    PromptSetEntry.objects.bulk_create(
        PromptSetEntry(prompt_set=experiment.prompt_set, prompt=prompt, position=number)
        for number, prompt in enumerate(Prompt.objects.all())
    )
    Panel.objects.create(slug="studio", name="Studio")
    return {
        "candidate": "swift-2", "baseline": "swift-1", "category": "t2v-silent",
        "prompt_set": "team", "seed_slots": 1, "margin": 25, "alpha": 0.05, "beta": 0.05,
        "max_votes": 2000, "panels": "studio", "public_share": 0, "muted_share": 0,
    }  # fmt: skip


def planned(client: Client, asked: dict):
    """The planner's page once a worker has computed the plan."""
    assert client.get("/experiments/new/", {**asked, "plan": 1}).status_code == 200
    compute_plans()
    page = client.get("/experiments/new/", {**asked, "plan": 1})
    assert "Computing the plan" not in page.text
    return page


def test_a_plan_is_computed_by_a_worker_and_the_page_waits_for_this_one(
    asked: dict, team: Client
) -> None:
    page = team.get("/experiments/new/", {**asked, "plan": 1}).text
    assert "Computing the plan" in page
    assert "Start this experiment" not in page
    (plan,) = StoredPlan.objects.all()
    refresh = html.unescape(re.search(r'http-equiv="refresh" content="2; url=([^"]*)"', page)[1])
    assert f"plan={plan.pk}" in refresh
    add_members(Panel.objects.get(), 60)  # another plan by now
    fragment = team.get(f"{refresh}&fragment=").text
    assert "Computing the plan" in fragment
    assert "<html" not in fragment
    assert compute_plans() == 1
    assert compute_plans() == 0
    fragment = team.get(f"{refresh}&fragment=").text
    assert "data-ready" in fragment
    assert "0 members can give 0 votes" in words(fragment)
    assert 'name="fragment"' not in fragment
    assert StoredPlan.objects.count() == 1
    team.get("/experiments/new/", {**asked, "plan": 1})
    assert StoredPlan.objects.count() == 2


def test_old_plans_are_swept(asked: dict, team: Client) -> None:
    planned(team, asked)
    assert sweep_plans() == 0
    StoredPlan.objects.update(made_at=timezone.now() - timedelta(hours=2))
    page = team.get("/experiments/new/", {**asked, "plan": 1})
    assert "Computing the plan" in page.text  # what was asked for so long ago is asked again
    StoredPlan.objects.update(made_at=timezone.now() - timedelta(days=8))
    assert sweep_plans() == 2


def test_a_plan_that_cannot_be_computed_says_so(asked: dict, team: Client) -> None:
    page = {**asked, "plan": 1}
    team.get("/experiments/new/", page)
    StoredPlan.objects.update(facts={})
    assert compute_plans() == 1
    plan = StoredPlan.objects.get()
    assert plan.state == "failed"
    assert "could not be computed" in team.get("/experiments/new/", {**asked, "plan": plan.pk}).text


def test_the_plan_comes_before_the_start(asked: dict, team: Client) -> None:
    missing = Clip.objects.filter(prompt__key__in=("p1", "p2"), version__slug="swift-2")
    missing.update(state="waiting")
    Panel.objects.all().delete()
    form = team.get("/experiments/new/?candidate=swift-2").text
    assert "There is no panel yet" in form
    assert '<option value="swift-2" selected>' in form
    assert "Start this experiment" not in form
    Panel.objects.create(slug="studio", name="Studio")
    small = words(planned(team, asked).text)
    assert (
        "0 members can give 0 votes. A verdict needs at least 60 votes from at least 4 voters"
        in small
    )
    assert "Votes, 90% end by" not in small
    page = planned(team, {**asked, "voters": 40})
    said = words(page.text)
    for words_ in (
        "2,000 , two on each of 1,000 blocks",
        "4 GPU seconds",
        "This plan assumes 20% ties, 40 voters and 24 prompts",
        "judged in 42 rounds",
        "members can still give at most 0 votes",
    ):
        assert words_ in said, words_
    assert "Start this experiment" in said
    started = team.post("/experiments/new/", asked, follow=True)
    experiment = Experiment.objects.latest("created_at")
    assert started.redirect_chain == [(f"/experiments/{experiment.pk}/", 302)]
    assert (experiment.created_by, experiment.max_votes) == ("ada", 2000)
    assert experiment.name == "Swift 2 against Swift 1, text to video silent"
    assert [panel.slug for panel in experiment.panels.all()] == ["studio"]
    assert experiment.blocks.count() == 1000


BAD = (
    ("margin", -1, "from 5 to 400"),
    ("margin", 0.000001, "margin is 1e-06 Elo"),
    ("margin", "wide", "number"),
    ("alpha", 0.7, "below 0.5"),
    ("beta", 0, "below 0.5"),
    ("max_votes", 301, "even number"),
    ("seed_slots", 4, "clip pairs per prompt"),
    ("baseline", "swift-2", "Choose another baseline"),
    ("candidate", "nothing", "active or on trial"),
    ("public_share", 130, "100"),
    ("muted_share", 50, "no sound to mute"),
    ("webhook", "gopher", "begins with"),
)


def test_bad_input_is_told_at_its_field(asked: dict, team: Client) -> None:
    before = Experiment.objects.count()
    for field_, value, sentence in BAD:
        for answer in (
            team.get("/experiments/new/", {**asked, field_: value, "plan": 1}),
            team.post("/experiments/new/", {**asked, field_: value}),
        ):
            assert answer.status_code == 400
            said = answer.text.split(f'id="id_{field_}"')[1].split('<div class="field')[0]
            assert re.search(rf'class="field-error">[^<]*{sentence}', said), said
            assert "Start this experiment" not in answer.text
    assert Experiment.objects.count() == before


def test_too_few_prompts_for_a_verdict_are_refused(asked: dict, team: Client) -> None:
    PromptSetEntry.objects.filter(position__gt=2).delete()
    answer = team.get("/experiments/new/", {**asked, "plan": 1})
    assert answer.status_code == 400
    assert "has 3 prompts for t2v-silent. A verdict needs 4 or more." in answer.text


def vote_in_arena(ago: timedelta = timedelta(0), voter: Voter | None = None) -> Vote:
    """A tie; the ledger has it from so long ago."""
    one, two = Clip.objects.filter(prompt__key="p1")
    battle = Battle.objects.create(
        voter=voter or Voter.objects.create(), stream="mixed", category=one.category,
        prompt=one.prompt, clip_a=one, clip_b=two, draw_probability=1, expires_at=timezone.now(),
    )  # fmt: skip
    then = timezone.now() - ago
    with mock.patch("django.utils.timezone.now", return_value=then):
        return Vote.objects.create(
            battle=battle, voter=battle.voter, category=one.category, prompt=one.prompt,
            version_a=one.version, version_b=two.version, choice="tie", simulated=False,
        )  # fmt: skip


HALF_AN_HOUR, DAY = timedelta(minutes=30), timedelta(days=1)


@pytest.mark.parametrize(
    ("ago", "said", "per_day"),
    [
        ([HALF_AN_HOUR, *[timedelta(minutes=5)] * 9], "30 min", 480),
        ([2 * DAY, DAY], "2 days", 1),
        ([30 * DAY, *[2 * DAY] * 14], "7 days", 2),
        ([timedelta(0)], "10 min", 144),
    ],
)
def test_the_rate_of_votes_is_measured_while_there_was_a_site(
    asked: dict, team: Client, ago: list[timedelta], said: str, per_day: float
) -> None:
    for each in ago:
        vote_in_arena(each)
    page = words(planned(team, {**asked, "panels": [], "public_share": 100, "voters": 40}).text)
    facts = StoredPlan.objects.get().facts
    assert facts["votes_per_day"] == pytest.approx(per_day, rel=0.05)
    assert facts["days_at_most"] == pytest.approx(2000 / per_day, rel=0.05)
    assert f"Days, at the voting rate measured over the last {said} " in page


def test_a_panels_rate_is_measured_while_there_was_a_site_too(asked: dict, team: Client) -> None:
    panel = Panel.objects.get()
    (member,) = add_members(panel, 1)
    Member.objects.filter(pk=member.pk).update(voter=Voter.objects.create())
    member.refresh_from_db()
    vote_in_arena(timedelta(hours=6))  # of the public: the site's first
    vote_in_arena(timedelta(hours=1), member.voter)
    planned(team, {**asked, "voters": 40})
    facts = StoredPlan.objects.get().facts
    assert facts["votes_per_day"] == pytest.approx(4, rel=0.05)
    assert facts["measured_seconds"] == pytest.approx(6 * 3600, rel=0.05)


def test_ties_alone_leave_something_to_plan_with(asked: dict, team: Client) -> None:
    vote_in_arena()
    page = planned(team, asked)
    assert "This plan assumes 24% ties" in words(page.text)
