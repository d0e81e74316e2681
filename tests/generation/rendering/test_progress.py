"""An operator looks at what the workers do: /admin/progress/."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from html import unescape
from itertools import count

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from playwright.sync_api import expect

from generation.catalogue.categories import Category
from generation.models import (
    Clip,
    ClipState,
    HostedJob,
    JobState,
    Prompt,
    Version,
    VersionState,
    Worker,
)
from tests.browser import fits, running_browser

pytestmark = pytest.mark.django_db

PROGRESS = "/admin/progress/"
FILES = {"master": "m.mkv", "poster": "p.jpg", "rendition": "r.mp4", "rendition_sha256": "0" * 64}
MakeClip = Callable[..., Clip]


@pytest.fixture
def make_clip(db: None) -> MakeClip:
    """A clip in any state, of a new prompt unless one is named; times are given as ages."""
    numbers = count()

    def make(
        version: Version, state: str, ready: timedelta | None = None, **values: object
    ) -> Clip:
        key = values.pop("key", None) or f"prompt-{next(numbers)}"
        prompt, _ = Prompt.objects.get_or_create(
            key=key, defaults={"text": "…", "sounds": ["silent"], "aspect": "1:1", "seconds": 1}
        )
        values = {"category": Category.T2V_SILENT, "seed": 1, **values}
        if state == ClipState.READY:
            values = {
                "claimed_by": "gpu-1", "render_seconds": 30.0, "encode_seconds": 10.0,
                "hardware": "A GPU", "ready_at": timezone.now() - (ready or timedelta()),
                **FILES, **values,
            }  # fmt: skip
        if state == ClipState.RENDERING:
            left = values.pop("left", timedelta(seconds=40))
            values = {"claimed_by": "gpu-1", "leased_until": Now() + left, **values}
        return Clip.objects.create(version=version, prompt=prompt, state=state, **values)

    return make


def reports(name: str, age: timedelta = timedelta(), **values: object) -> None:
    """A worker that said so much, so long ago."""
    Worker.objects.create(name=name, seen_at=Now() - age, **{"hardware": "A GPU", **values})


@pytest.fixture
def a_busy_site(make_version: Callable[..., Version], make_clip: MakeClip) -> tuple[Version, ...]:
    """Two active versions with clips in all states, and a paused one that waits."""
    day, minute = timedelta(days=1), timedelta(minutes=1)
    swift, tardy = make_version("swift"), make_version("tardy", categories=["t2v-silent"])
    paused = make_version("paused", state=VersionState.PAUSED)
    reports("gpu-1", gpu_used=30 << 30, gpu_total=80 << 30)
    reports("gpu-2", hardware="A processor")
    reports("gpu-8", 5 * minute)
    reports("gpu-9", 4 * minute)
    make_clip(swift, "rendering", key="crane", claimed_by="gpu-1", step=12, steps=30)
    make_clip(swift, "rendering", key="stork", claimed_by="gpu-9", left=-3 * minute)
    for _ in range(6):
        make_clip(swift, "waiting")
    for render_seconds, age in ((20, 2 * minute), (30, 2 * minute), (50, 3 * day)):
        make_clip(
            swift, "ready", age, claimed_by="gpu-2", render_seconds=render_seconds,
            key=f"done-{age}-{render_seconds}",
        )  # fmt: skip
    make_clip(swift, "ready", 2 * day, hardware="An old GPU", render_seconds=900.0)
    for free in ("131.81", "7.25"):
        make_clip(swift, "failed", error=f"\nOutOfMemoryError: {free} MiB is free.\nTraceback")
    make_clip(swift, "failed", error="The worker died in each of 3 attempts.")
    make_clip(tardy, "waiting", key="crane", error="OutOfMemoryError: 2.50 MiB is free.")
    make_clip(paused, "waiting", key="crane")
    return swift, tardy, paused


def moment_long_ago() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def words(html: str) -> str:
    """The page as it reads, on one line."""
    text = unescape(re.sub(r"<[^>]+>", " ", html))
    return re.sub(r"\s+([,.)])", r"\1", re.sub(r"\s+", " ", text))


def section(html: str, name: str) -> str:
    found = re.search(rf'<section[^>]*aria-labelledby="{name}">.*?</section>', html, re.DOTALL)
    assert found, name
    return found[0]


class TestWhoMaySeeIt:
    def test_strangers_are_sent_to_the_login(self, client: Client) -> None:
        assert client.get(PROGRESS).url == f"/admin/login/?next={PROGRESS}"

    def test_so_are_people_who_are_not_staff(self, client: Client) -> None:
        client.force_login(User.objects.create_user("reader"))
        assert client.get(PROGRESS).url == f"/admin/login/?next={PROGRESS}"
        assert client.get(f"{PROGRESS}?fragment").status_code == 302

    def test_staff_must_be_allowed_to_see_clips(self, client: Client) -> None:
        user = User.objects.create_user("operator", is_staff=True)
        client.force_login(user)
        assert client.get(PROGRESS).status_code == 403
        assert PROGRESS not in client.get("/admin/").text
        user.user_permissions.add(Permission.objects.get(codename="view_clip"))
        assert client.get(PROGRESS).status_code == 200
        assert PROGRESS in client.get("/admin/").text


class TestWhatItSays:
    def test_an_empty_site_says_so(self, admin_client: Client) -> None:
        page = admin_client.get(PROGRESS).text
        assert "No clip has been queued yet." in page
        assert "<section" not in page

    def test_the_totals(self, admin_client: Client, a_busy_site: tuple[Version, ...]) -> None:
        page = words(admin_client.get(PROGRESS).text)
        assert "2 active workers 8 waiting 2 rendering 4 ready 3 failed" in page
        assert "Time to finish: unknown: no clip of Tardy has been rendered yet" in page

    def test_the_workers(self, admin_client: Client, a_busy_site: tuple[Version, ...]) -> None:
        said = words(section(admin_client.get(PROGRESS).text, "workers"))
        assert re.search(
            r"gpu-1 A GPU 30.0 GB of 80.0 GB in use Swift, crane, t2v-silent 12 of 30 expires in "
            r"(39|40) s gpu-2 A processor idle "
            r"gpu-8 A GPU no report for 5 min: it died or lost its connection to the database "
            r"gpu-9 A GPU Swift, stork, t2v-silent none yet expired 3 min ago: the worker is "
            r"presumed dead, and another will take over the clip ",
            said,
        )

    def test_the_queue(self, admin_client: Client, a_busy_site: tuple[Version, ...]) -> None:
        said = words(section(admin_client.get(PROGRESS).text, "queue"))
        # Six times 30 s and 10 s of encoding, shared by two workers; the clip of 900 s was made on
        # other hardware.
        assert "Swift 6 2 4 3 30.0 s on A GPU about 2 min" in said
        assert "Tardy 1 0 0 0 unknown unknown: no clip of Tardy has been rendered yet" in said
        assert "Paused (paused) 1 0 0 0 unknown not rendered while paused" in said

    def test_no_worker_means_that_nobody_knows_when(
        self, admin_client: Client, make_version: Callable[..., Version], make_clip: MakeClip
    ) -> None:
        version = make_version("swift")
        make_clip(version, "ready", timedelta(minutes=11))
        make_clip(version, "waiting")
        page = admin_client.get(PROGRESS).text
        assert "No worker has reported in the last day, and none is working on a clip." in page
        assert page.count("unknown: no active worker") == 2
        reports("gpu-1", timedelta(minutes=2))
        page = admin_client.get(PROGRESS).text
        assert "no report for 2 min" in page
        assert page.count("unknown: no active worker") == 2

    def test_the_whole_queue_takes_as_long_as_its_versions_together(
        self, admin_client: Client, make_version: Callable[..., Version], make_clip: MakeClip
    ) -> None:
        reports("gpu-1")
        for slug in ("swift", "tardy"):
            version = make_version(slug)
            make_clip(version, "ready")
            for _ in range(90):
                make_clip(version, "waiting")
        said = words(admin_client.get(PROGRESS).text)
        assert said.count("about 1 h ") == 2
        assert "Time to finish: about 2 h " in said

    def test_the_hours(
        self, admin_client: Client, make_version: Callable[..., Version], make_clip: MakeClip
    ) -> None:
        version, this_hour = make_version("swift"), timezone.now().replace(minute=0, second=0)
        for hours_ago, made in ((0, 1), (5, 4), (23, 2), (25, 3)):
            for _ in range(made):
                make_clip(version, "ready", ready_at=this_hour - timedelta(hours=hours_ago))
        drawn = section(admin_client.get(PROGRESS).text, "finished")
        assert "7 in the last 24 hours, at most 4 in one hour." in drawn
        rows = [int(n) for n in re.findall(r"</th><td>(\d+)</td>", drawn)]
        assert rows == [2] + [0] * 17 + [4] + [0] * 4 + [1]
        assert [int(n) for n in re.findall(r'height="(\d+)"/></g>', drawn)] == [
            25 * n for n in rows
        ]

    def test_the_reasons_lead_to_their_clips(
        self, admin_client: Client, a_busy_site: tuple[Version, ...]
    ) -> None:
        reasons = section(admin_client.get(PROGRESS).text, "failures")
        said = words(reasons)
        first = r"OutOfMemoryError: (131.81|7.25|2.50) MiB is free\. 2 1 \d{4}-"
        assert re.search(first + r".* The worker died in each of 3 attempts\. 1 0 ", said)
        assert "Traceback" not in said
        for address, clips in zip(re.findall(r'href="([^"]+)"', reasons), (3, 1), strict=True):
            page = admin_client.get(unescape(address))
            assert page.status_code == 200
            assert f"{clips} clip" in words(page.text)

    def test_a_failure_carries_its_time(
        self, admin_client: Client, make_version: Callable[..., Version], make_clip: MakeClip
    ) -> None:
        version = make_version("swift")
        clip = make_clip(version, "waiting")
        Clip.objects.update(created_at=timezone.now() - timedelta(days=30))
        assert clip.failed_at is None
        Clip.objects.update(state="failed", error="Reason.")
        clip.refresh_from_db()
        assert clip.failed_at is not None
        moment = timezone.localtime(clip.failed_at).strftime("%Y-%m-%d %H:%M")
        said = words(section(admin_client.get(PROGRESS).text, "failures"))
        assert f"Reason. 1 0 {moment}" in said
        Clip.objects.update(failed_at=moment_long_ago())
        Clip.objects.update(step=1)  # a heartbeat
        clip.refresh_from_db()
        assert clip.failed_at == moment_long_ago()
        Clip.objects.update(state="rendering", leased_until=Now())  # another attempt begins
        Clip.objects.update(state="failed", error="Reason.", leased_until=None)
        clip.refresh_from_db()
        assert clip.failed_at > moment_long_ago()
        Clip.objects.update(state="waiting", error="")
        clip.refresh_from_db()
        assert clip.failed_at is None

    def test_what_hosted_versions_cost(
        self, admin_client: Client, make_version: Callable[..., Version], make_clip: MakeClip
    ) -> None:
        assert "Cost of hosted" not in admin_client.get(PROGRESS).text
        dear, cheap = (
            make_version(slug, backend="fal", budget=budget)
            for slug, budget in (("dear", 100), ("cheap", None))
        )
        for version, state, cost in (
            (dear, JobState.COLLECTED, "12.50"),
            (dear, JobState.COLLECTED, "12.50"),
            (dear, JobState.SUBMITTED, "1.25"),
            (cheap, JobState.FAILED, None),
        ):
            HostedJob.objects.create(
                clip=make_clip(version, "ready"), clip_fence=0, backend="fal", state=state,
                cost=cost, status_url="s", result_url="r", error="No.",
            )  # fmt: skip
        make_clip(dear, "waiting")
        page = admin_client.get(PROGRESS).text
        said = words(section(page, "costs"))
        assert "Cheap 1 0 $0.00 none Dear 3 1 $26.25 $100.00 Total $26.25," in said
        assert "Dear 1 0 3 0 30.0 s on A GPU not rendered here" in words(section(page, "queue"))

    def test_a_thousand_lost_files_are_one_reason(
        self, admin_client: Client, make_version: Callable[..., Version], make_clip: MakeClip
    ) -> None:
        version = make_version("swift")
        for _ in range(3):
            clip = make_clip(version, "waiting")
            clip.state, clip.error = (
                ClipState.FAILED,
                f"The file clips/{clip.pk}/1/r.mp4 is missing.",
            )
            clip.save()
        said = words(section(admin_client.get(PROGRESS).text, "failures"))
        assert re.search(r"The file clips/[0-9a-f-]{36}/1/r.mp4 is missing\. 3 0 ", said)

    def test_of_many_reasons_the_ten_most_frequent_are_shown(
        self, admin_client: Client, make_version: Callable[..., Version], make_clip: MakeClip
    ) -> None:
        version = make_version("swift")
        for letter in "abcdefghij":
            make_clip(version, "failed", error=f"Reason {letter}.")
        assert "most frequent reasons" not in admin_client.get(PROGRESS).text
        for _ in range(2):
            make_clip(version, "failed", error="Reason z.")
        said = words(section(admin_client.get(PROGRESS).text, "failures"))
        assert re.findall(r"Reason (.)\.", said) == list("zabcdefghi")
        assert "These are the 10 most frequent reasons." in said

    def test_the_coverage_leads_to_what_is_missing(
        self, admin_client: Client, a_busy_site: tuple[Version, ...]
    ) -> None:
        coverage = section(admin_client.get(PROGRESS).text, "coverage")
        # Of Swift's 15 clips 4 are ready; Tardy's only one is of a prompt that Swift has too.
        assert "Swift 4 of 15 11 missing none requested none requested" in words(coverage)
        assert "Tardy 0 of 1 1 missing, 14 not requested not made by this version" in words(
            coverage
        )
        assert "Paused" not in coverage
        addresses = re.findall(r'href="([^"]+version[^"]+)"', coverage)
        for address, clips in zip(addresses, (11, 1), strict=True):
            assert f"{clips} clip" in words(admin_client.get(unescape(address)).text)

    def test_a_name_is_text_and_never_markup(
        self, admin_client: Client, make_version: Callable[..., Version], make_clip: MakeClip
    ) -> None:
        version = make_version("swift", name="<b>Swift</b>")
        make_clip(version, "rendering", claimed_by="<i>gpu</i>")
        make_clip(version, "failed", error="<u>No</u> & never")
        page = admin_client.get(PROGRESS).text
        for markup in ("<b>Swift", "<i>gpu", "<u>No"):
            assert markup not in page
        assert "&lt;u&gt;No&lt;/u&gt; &amp; never" in page


class TestHowItIsMade:
    def test_takes_as_many_queries_for_sixty_clips_as_for_three(
        self, admin_client: Client, make_version: Callable[..., Version], make_clip: MakeClip
    ) -> None:
        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                assert admin_client.get(f"{PROGRESS}?fragment").status_code == 200
            return len(captured)

        def add(versions: range) -> None:
            for n in versions:
                version = make_version(f"v{n}")
                make_clip(version, "rendering", claimed_by=f"gpu-{n}")
                make_clip(version, "ready", claimed_by=f"other-{n}")
                make_clip(version, "failed", error=f"Reason {n}.")

        add(range(1))
        few = queries()
        add(range(1, 20))
        assert Clip.objects.count() == 60
        assert queries() == few
        assert few == 10 + 2  # the session and its user

    def test_holds_nothing_inline_and_is_never_cached(
        self, admin_client: Client, a_busy_site: tuple[Version, ...]
    ) -> None:
        page = admin_client.get(PROGRESS)
        assert page["Content-Security-Policy"].startswith("default-src 'self'")
        assert "no-store" in page["Cache-Control"]
        assert re.findall(r'<style|\sstyle="|\son[a-z]+="|<script(?![^>]*\bsrc=)', page.text) == []

    def test_without_scripts_it_reloads_itself(self, admin_client: Client) -> None:
        page = admin_client.get(PROGRESS).text
        assert '<noscript><meta http-equiv="refresh" content="10"></noscript>' in page


def aside(work: Callable[[], object]) -> None:
    """In another thread: Playwright runs a loop in ours, and Django bars the database there."""

    def run() -> None:
        work()
        connection.close()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()


@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
def test_it_refreshes_itself_and_fits_every_screen(
    live_server, admin_client: Client, a_busy_site: tuple[Version, ...]
) -> None:
    """In a real browser, whose clock is turned on instead of waiting."""
    crane = Clip.objects.filter(prompt__key="crane", state="rendering")
    session = admin_client.cookies[settings.SESSION_COOKIE_NAME].value
    with running_browser() as browser:
        context = browser.new_context(viewport={"width": 390, "height": 844})
        cookie = {"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}
        context.add_cookies([cookie])
        page = context.new_page()
        problems: list[str] = []
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else "")
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.clock.install()
        page.goto(live_server.url + PROGRESS)
        expect(page.locator("#content")).to_contain_text("12 of 30")
        expect(page.get_by_role("status", include_hidden=True)).to_be_hidden()
        for width in (390, 768, 1024, 1440):
            page.set_viewport_size({"width": width, "height": 900})
            assert fits(page), width
        aside(lambda: crane.update(step=13))
        page.get_by_role("link", name="Swift, crane").focus()
        page.clock.fast_forward(10_000)
        expect(page.locator("#content")).to_contain_text("13 of 30")
        expect(page.get_by_role("link", name="Swift, crane")).to_be_focused()
        assert problems == []
        page.route("**/*fragment*", lambda route: route.abort())
        page.clock.fast_forward(10_000)
        expect(page.get_by_role("status")).to_contain_text("could not be updated")
        page.unroute("**/*fragment*")
        page.clock.fast_forward(10_000)
        expect(page.get_by_role("status", include_hidden=True)).to_be_hidden()
        aside(admin_client.logout)
        page.clock.fast_forward(10_000)
        page.wait_for_url("**/admin/login/?next=/admin/progress/")
