"""A new user's walk in a real browser: vote ten times with keys, see the names, find the votes."""

import json
import re
from collections.abc import Iterator

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page, Response, expect

from generation.catalogue.categories import Category
from tests.browser import fits
from tests.whole.demo import PATIENCE, RunningDemo

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1440, "height": 900}
ANSWERS = ("ArrowLeft", "ArrowRight", "ArrowDown", "ArrowUp", "1", "2", "t", "4", "ArrowLeft", "2")


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def context(request: pytest.FixtureRequest, browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport=request.param)
    context.set_default_timeout(PATIENCE * 1000 / 5)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    yield page
    assert problems == []


TEAM = "ada", "a password that nobody guesses"
PANELS = """
from django.contrib.auth.models import User
from arena.experiments.proposal import Proposal
from arena.experiments.start import start
from arena.models import Panel
from arena.experiments.panels import add_members
from generation.models import Clip, Prompt, PromptSet, PromptSetEntry, Version
few = PromptSet.objects.create(slug="walk", name="The walk", digest="0")
one, two = Version.objects.filter(slug__in=("scenes-reference", "scenes-faded"))
ready = Clip.objects.filter(version=one, category="t2v-silent", state="ready")
prompts = list(ready.order_by("position").values_list("prompt", flat=True))
others = Prompt.objects.filter(sets__slug="scenes", sounds__contains=["silent"], image=None)
prompts += others.exclude(pk__in=prompts).values_list("pk", flat=True)[:max(0, 4 - len(prompts))]
for position, prompt in enumerate(prompts):
    PromptSetEntry.objects.create(prompt_set=few, prompt_id=prompt, position=position)
print()
for slug, quota in (("walk", 2), ("watch", 50), ("hold", 50)):
    panel = Panel.objects.create(slug=slug, name=slug, quota=quota, instructions="Look twice.")
    asked = Proposal(
        name=slug, candidate=one, baseline=two, category="t2v-silent", prompt_set=few,
        max_votes=60, panels=(panel,),
    )
    print(start(asked).pk, *[member.token for member in add_members(panel, 2)])
"""


@pytest.fixture(scope="module")
def panels(demo: RunningDemo) -> list[list[str]]:
    """Of each panel, an experiment whose clips are there already, and the tokens of two members."""
    demo.wait_for_all_clips()
    name, password = TEAM
    team = f"User.objects.create_superuser({name!r}, password={password!r})"
    said = demo.manage("shell", "--no-imports", "-c", PANELS + team)
    return [line.split() for line in said.splitlines()[-3:]]


@pytest.fixture(scope="module")
def members(panels: list[list[str]]) -> list[str]:
    return panels[0][1:]


def state(page: Page, name: str) -> None:
    expect(page.locator("[data-arena]")).to_have_attribute("data-state", name, timeout=60_000)


def ready_to_vote(page: Page) -> None:
    state(page, "watching")
    expect(page.locator("[data-vote-form] button").first).to_have_attribute(
        "aria-disabled", "false", timeout=60_000
    )


def start_voting(page: Page, address: str) -> None:
    """As a newcomer does."""
    page.goto(address)
    assert fits(page)
    page.get_by_role("button", name="Start voting").click()


def wait_for_pairs(demo: RunningDemo, number: int) -> None:
    """Clips are made while these tests run."""
    demo.wait_for("so many pairs", lambda: sum(demo.health()["votable"].values()) >= number)


def counted(demo: RunningDemo) -> int:
    boards = [f"{demo.site}/leaderboards/{value}.json" for value in Category.values]
    return sum(requests.get(board, timeout=10).json()["votes"] for board in boards)


@pytest.mark.parametrize("context", [PHONE], indirect=True)
def test_both_clips_really_play_together(demo: RunningDemo, page: Page) -> None:
    start_voting(page, f"{demo.site}/vote/")
    ready_to_vote(page)
    seen = []
    for _ in range(4):
        page.wait_for_timeout(250)
        seen.append(
            page.evaluate(
                "[...document.querySelectorAll('video')].map(v => [v.currentTime, v.videoWidth,"
                " v.getVideoPlaybackQuality().totalVideoFrames, v.paused, v.duration])"
            )
        )
    for left, right in seen:
        assert left[1] == right[1] == 720
        assert not left[3]
        assert not right[3]
        apart = abs(left[0] - right[0])
        assert min(apart, left[4] - apart) < 0.25  # the clips loop
    assert seen[-1][0][2] > seen[0][0][2]
    assert seen[-1][1][2] > seen[0][1][2]


@pytest.mark.parametrize("context", [DESKTOP], indirect=True)
def test_the_next_pair_is_there_before_the_vote(demo: RunningDemo, page: Page) -> None:
    wait_for_pairs(demo, 6)
    fetched: list[str] = []
    page.on("requestfinished", lambda request: fetched.append(request.url))

    def is_next(answer: Response) -> bool:  # to the script; the form's is a redirect
        return answer.url.endswith("/vote/mixed/next/") and answer.ok

    with page.expect_response(is_next) as following:
        start_voting(page, f"{demo.site}/vote/")
    ready_to_vote(page)
    battle = following.value.json()["battle"]
    clips = [demo.site + battle[side]["video"] for side in "ab"]
    # Events arrive while the page is asked for something.
    demo.wait_for("the next clips", lambda: page.title() and set(clips) <= set(fetched))
    page.keyboard.press("t")
    state(page, "revealed")
    page.keyboard.press("n")
    ready_to_vote(page)
    expect(page.locator("[data-video=a]")).to_have_attribute("poster", battle["a"]["poster"])
    sources = page.evaluate("[...document.querySelectorAll('video')].map(v => v.src)")
    assert all(source.startswith("blob:") for source in sources)
    assert [fetched.count(clip) for clip in clips] == [1, 1]


def test_without_javascript(demo: RunningDemo, browser: Browser) -> None:
    wait_for_pairs(demo, 6)
    context = browser.new_context(viewport=PHONE, java_script_enabled=False)
    page = context.new_page()
    start_voting(page, f"{demo.site}/vote/")
    page.locator("button[name=choice][value=a]").click()
    page.wait_for_url(re.compile(r"/battles/[0-9a-f-]{36}/"))
    expect(page.locator("body")).to_contain_text(re.compile("Scenes|Colt"))
    page.get_by_role("button", name="Next pair").first.click()
    expect(page.locator("button[name=choice]")).to_have_count(4)
    page.get_by_role("button", name="Skip this pair").click()
    expect(page.locator("button[name=choice]")).to_have_count(4)
    context.close()


def test_a_panel_member_judges_and_marks_a_defect(
    demo: RunningDemo, page: Page, members: list[str]
) -> None:
    page.clock.install()
    page.goto(f"{demo.site}/panel/{members.pop()}/")
    assert fits(page)
    expect(page.locator("main")).to_contain_text("Look twice.")
    page.get_by_role("button", name="Join").click()
    ready_to_vote(page)
    page.keyboard.press("ArrowLeft")
    state(page, "revealed")
    expect(page.locator("[data-after-more]")).to_contain_text("Names stay hidden")
    expect(page.locator("[data-nameplate=a]")).to_be_hidden()
    page.locator("[data-defects] [data-side=b][data-kind=flicker]").click()
    marked = page.locator("[data-defects] [aria-pressed=true]")
    expect(marked).to_have_text(re.compile(r"Flicker \d\.\d s"))
    marked.click()
    expect(marked).to_have_count(0)
    page.locator("[data-defects] [data-side=a][data-kind=hands]").click()
    expect(marked).to_have_text(re.compile(r"Hands \d\.\d s"))
    assert fits(page)
    page.keyboard.press("n")
    ready_to_vote(page)
    expect(page.locator("[data-given]")).to_have_text("1")
    expect(page.locator("[data-defects]")).to_be_hidden()
    page.keyboard.press("t")
    state(page, "revealed")
    page.keyboard.press("n")
    state(page, "empty")
    expect(page.locator("[data-empty-reason]")).to_contain_text("Thank you")
    expect(page.locator("[data-empty-form]")).to_be_hidden()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(7000)  # an empty page asks after 5 s, unless the voter is done
    page.wait_for_load_state("networkidle")
    assert asked == []


@pytest.mark.parametrize("context", [PHONE], indirect=True)
def test_a_pair_is_held_while_it_plays_and_the_page_says_when_it_is_gone(
    demo: RunningDemo, page: Page, panels: list[list[str]]
) -> None:
    page.clock.install()
    page.goto(f"{demo.site}/panel/{panels[2].pop()}/")
    page.get_by_role("button", name="Join").click()
    ready_to_vote(page)
    page.wait_for_load_state("networkidle")
    with page.expect_response(re.compile("/vote/panel/keep/")) as answer:
        page.clock.run_for(31_000)
    assert len(answer.value.json()["open"]) == 2  # this one and the next
    open_now = "expires_at > now() RETURNING 1"
    demo.sql(f"UPDATE arena_battle SET expires_at = now() WHERE stream = 'panel' AND {open_now}")
    page.clock.run_for(31_000)
    state(page, "troubled")
    expect(page.locator("[data-trouble-words]")).to_contain_text("no longer yours")
    page.get_by_role("button", name="Next pair").click()
    ready_to_vote(page)


class Member:
    """Of a panel, by HTTP: each answer is a tie, and each time something is wrong in clip A."""

    def __init__(self, demo: RunningDemo, experiment: str, token: str) -> None:
        self.demo, self.experiment = demo, experiment
        self.session = requests.Session()
        self.session.get(f"{demo.site}/panel/{token}/", timeout=30).raise_for_status()
        self.post(f"/panel/{token}/")

    def judge(self) -> None:
        """Until an answer counts: some pairs only check the voter."""
        before = self.counted()
        while self.counted() == before:
            page = self.post("/vote/panel/next/").text
            found = re.search('id="battle-data"[^>]*>(.*?)</script>', page)
            assert found
            battle = json.loads(found[1])
            self.post(battle["vote_url"], choice="tie")
            self.post(f"/battles/{battle['id']}/defects/", side="a", kind="text")

    def counted(self) -> int:
        votes = "SELECT count(*) FROM arena_vote WHERE experiment_id = %s AND kind = 'experiment'"
        return self.demo.sql(votes, self.experiment)[0][0]

    def post(self, path: str, **fields: str) -> requests.Response:
        headers = {"X-CSRFToken": self.session.cookies["csrftoken"]}
        answer = self.session.post(self.demo.site + path, fields, headers=headers, timeout=30)
        answer.raise_for_status()
        return answer


@pytest.mark.parametrize("context", [PHONE], indirect=True)
def test_an_experiment_is_watched_without_losing_the_place(
    demo: RunningDemo, page: Page, panels: list[list[str]]
) -> None:
    experiment, *tokens = panels[1]
    first, second = (Member(demo, experiment, token) for token in tokens)
    page.goto(f"{demo.site}/experiments/{experiment}/")
    page.get_by_label("Username").fill(TEAM[0])
    page.get_by_label("Password").fill(TEAM[1])
    page.keyboard.press("Enter")
    facts = page.locator("#live-head .facts")
    expect(facts).to_contain_text("0 of 60 votes", timeout=60_000)
    page.evaluate("window.kept = true")
    first.judge()
    expect(facts).to_contain_text("1 of 60 votes", timeout=60_000)
    marks = page.locator("#newest-marks")
    marks.locator("summary").click()
    expect(marks.locator("li")).to_have_count(1)
    place = "document.querySelector('#newest-marks').getBoundingClientRect().top"
    page.evaluate("document.querySelector('#newest-marks').scrollIntoView({ block: 'center' })")
    curve = page.locator("#live-course polyline")
    expect(curve).to_have_count(0)
    before = page.evaluate(place)

    second.judge()  # the first block: curves appear above
    expect(marks.locator("li")).to_have_count(2, timeout=60_000)
    expect(facts).to_contain_text("2 of 60 votes")
    expect(curve).to_have_count(2)
    assert abs(page.evaluate(place) - before) < 2
    expect(marks).to_have_attribute("open", "")
    expect(marks.locator("summary")).to_be_focused()
    assert page.evaluate("window.kept")
    assert fits(page)


@pytest.mark.parametrize("context", [DESKTOP], indirect=True)
def test_sound_can_be_heard_one_side_at_a_time(demo: RunningDemo, page: Page) -> None:
    audible = "[...document.querySelectorAll('video')].map(v => !v.muted && v.volume > 0)"
    demo.wait_for("clips with sound", lambda: demo.health()["votable"]["t2v-audio"] >= 2)
    start_voting(page, f"{demo.site}/vote/t2v-audio/")
    ready_to_vote(page)
    assert page.evaluate(audible) == [False, False]
    page.get_by_role("button", name="Turn sound on").click()
    assert page.evaluate(audible) == [True, False]
    page.keyboard.press("b")
    assert page.evaluate(audible) == [False, True]
    page.keyboard.press("m")
    assert page.evaluate(audible) == [False, False]


# What follows needs all clips of the demo; they are made meanwhile.


def test_ten_votes_with_keys(demo: RunningDemo, page: Page) -> None:
    demo.wait_for_all_clips()
    before = counted(demo)
    start_voting(page, demo.site)
    names = set()
    for number, key in enumerate(ANSWERS, start=1):
        ready_to_vote(page)
        assert fits(page)
        hidden = page.locator("[data-nameplate=a]")
        expect(hidden).to_be_hidden()
        page.keyboard.press(key)
        state(page, "revealed")
        for side in ("a", "b"):
            plate = page.locator(f"[data-nameplate={side}] .plate-name")
            expect(plate).to_be_visible()
            names.add(plate.inner_text())
        for count in page.locator("[data-my-votes]").all():  # above the clips and in the footer
            expect(count).to_have_text(str(number))
            expect(count).to_be_visible()
        page.keyboard.press("n")
    assert len(names) >= 2
    assert all(re.match(r"(Scenes|Colt)", name) for name in names)
    demo.wait_for("the refit", lambda: counted(demo) == before + len(ANSWERS))
    page.goto(f"{demo.site}/leaderboards/")
    assert fits(page)
    for value in Category.values:
        page.goto(f"{demo.site}/leaderboards/{value}/")
        assert fits(page)
        board = requests.get(f"{demo.site}/leaderboards/{value}.json", timeout=10).json()
        if board["votes"]:
            expect(page.locator(".facts li").first).to_contain_text(str(board["votes"]))


@pytest.mark.parametrize("context", [DESKTOP], indirect=True)
def test_an_empty_page_finds_new_clips_by_itself(demo: RunningDemo, page: Page) -> None:
    demo.wait_for_all_clips()
    start_voting(page, f"{demo.site}/vote/i2v-silent/")
    while page.locator("[data-arena]").get_attribute("data-state") != "empty":
        ready_to_vote(page)
        page.keyboard.press("s")
        expect(page.locator("[data-arena]")).to_have_attribute(
            "data-state", re.compile("watching|empty"), timeout=60_000
        )
        page.wait_for_timeout(200)
    known = "SELECT count(DISTINCT prompt_id) FROM generation_clip WHERE category = 'i2v-silent'"
    prompts = demo.sql(known)[0][0]
    demo.manage(
        "render", "--category", "i2v-silent", "--limit", str(prompts + 1), "--no-wait",
        "--version-slug", "scenes-reference", "scenes-stutter",
    )  # fmt: skip
    ready_to_vote(page)
