"""The pages' scripts by themselves, in the browser: real clips, and a site that answers as told."""

import mimetypes
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.generation.imports.test_import_clips import film
from tests.whole.demo import PROJECT

SOON_MS = 20_000
EMPTY = "<!doctype html><title>A page</title>"
PLAYERS = EMPTY + "<video id=a muted></video><video id=b muted></video>"
LOAD = """async ([a, b]) => {
    const { Players } = await import("/static/js/players.js");
    const [one, two] = document.querySelectorAll("video");
    window.told = [];
    window.players = new Players(one, two);
    for (const name of ["started", "blocked", "broken"])
        players.addEventListener(name, (event) => told.push([name, event.detail]));
    const clip = (video) => ({ video, poster: "" });
    players.load({ a: clip(a), b: clip(b), width: 64, height: 64 });
}"""
POSITIONS = "() => [...document.querySelectorAll('video')].map((video) => video.currentTime)"
PAUSED = "() => [...document.querySelectorAll('video')].map((video) => video.paused)"


class Site:
    """Pages, our scripts, and clips; of a clip under /slow/ the second half waits for `go_on`."""

    def __init__(self, clips: Path) -> None:
        self.clips, self.go_on = clips, threading.Event()
        self.pages: dict[str, str] = {"/": EMPTY, "/players": PLAYERS}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = urlsplit(request.path).path
        slow = path.startswith("/slow/")
        if path in self.pages:
            kind, body = "text/html; charset=utf-8", self.pages[path].encode()
        else:
            file = (
                PROJECT / path[1:] if path.startswith("/static/") else self.clips / Path(path).name
            )
            if not file.is_file():
                request.send_error(404)
                return
            kind, body = mimetypes.guess_type(file.name)[0] or "", file.read_bytes()
        start = int((request.headers["Range"] or "bytes=0-")[6:].split("-")[0])
        request.send_response(206 if "Range" in request.headers else 200)
        request.send_header("Content-Type", kind)
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        now = max(start, len(body) // 2) if slow else len(body)
        try:
            request.wfile.write(body[start:now])
            request.wfile.flush()
            if slow:
                self.go_on.wait()
                request.wfile.write(body[now:])
        except ConnectionError:  # the browser has enough, or went elsewhere
            request.close_connection = True


def noise(path: Path, seconds: int) -> None:
    """Some megabytes, so that a browser does not take all of it into its buffers at once."""
    draw = np.random.default_rng(1)
    # What the browser needs before it can play comes first.
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as out:
        video = out.add_stream("libx264", rate=12, options={"g": "12"})
        video.width, video.height, video.pix_fmt = 320, 320, "yuv420p"
        for _ in range(seconds * 12):
            picture = draw.integers(0, 255, (320, 320, 3), np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(video.encode(None))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    film(folder / "a.mp4", seconds=2, sound=True)
    film(folder / "b.mp4", seconds=2, sound=True, pitch=660)
    noise(folder / "long.mp4", seconds=12)
    (folder / "broken.mp4").write_bytes(b"no video " * 100)
    return folder


@pytest.fixture
def site(clips: Path) -> Iterator[Site]:
    site = Site(clips)
    yield site
    site.go_on.set()
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(SOON_MS)
    page = context.new_page()
    page.goto(site.address)
    yield page
    context.close()


def two_players(page: Page, site: Site, a: str = "/a.mp4", b: str = "/b.mp4") -> None:
    page.goto(f"{site.address}/players")
    page.evaluate(LOAD, [a, b])


class TestPlayers:
    def test_they_start_together_stay_together_and_loop(self, page: Page, site: Site) -> None:
        two_players(page, site)
        page.evaluate("void players.play()")
        page.wait_for_function("told.some(([name]) => name === 'started')")
        page.wait_for_function("players.position > 0.5")
        page.evaluate("document.querySelector('#b').currentTime += 0.15")
        page.wait_for_function("document.querySelector('#b').playbackRate < 1")
        page.wait_for_function("document.querySelector('#b').playbackRate === 1")
        page.wait_for_function("players.position > 1.6")
        page.wait_for_function("players.position < 1")  # both from the start again
        a, b = page.evaluate(POSITIONS)
        assert abs(a - b) < 0.3
        assert page.evaluate("told") == [["started", None]]

    def test_a_pause_shows_the_same_moment_of_both(self, page: Page, site: Site) -> None:
        two_players(page, site)
        page.evaluate("void players.play()")
        page.wait_for_function("players.position > 0.3")
        page.evaluate("players.pause()")
        a, b = page.evaluate(POSITIONS)
        assert a == b
        assert page.evaluate(PAUSED) == [True, True]
        page.evaluate("players.seek(99)")
        length = page.evaluate("players.length")
        assert page.evaluate(POSITIONS) == pytest.approx([length, length])

    def test_neither_plays_on_while_the_other_lacks_data(self, page: Page, site: Site) -> None:
        two_players(page, site, "/long.mp4", "/slow/long.mp4")
        page.evaluate("void players.play()")
        page.wait_for_function("told.some(([name]) => name === 'started')")
        page.evaluate("players.seek(4)")
        page.wait_for_function(f"({PAUSED})()[0] === true")
        assert page.evaluate("players.playing")  # it goes on by itself
        held = page.evaluate(POSITIONS)[0]
        site.go_on.set()
        page.wait_for_function("(held) => players.position > held + 0.5", arg=held)
        assert page.evaluate(PAUSED) == [False, False]

    def test_at_most_one_is_heard(self, page: Page, site: Site) -> None:
        two_players(page, site)
        muted = "[...document.querySelectorAll('video')].map((video) => video.muted)"
        for hearing, expected in (("a", [False, True]), ("b", [True, False]), ("mute", [True] * 2)):
            page.evaluate("(hearing) => players.hear(hearing)", hearing)
            assert page.evaluate(muted) == expected

    def test_a_browser_that_wants_a_click_for_sound_plays_without(
        self, page: Page, site: Site
    ) -> None:
        # By the page's own script, and nothing is asked of the page before: that counts as a click.
        site.pages["/unasked"] = f"""{PLAYERS}<script type=module>
            await ({LOAD})(["/a.mp4", "/b.mp4"]);
            players.addEventListener("started", () => fetch("/a.mp4?started"));
            players.hear("a");
            void players.play();
        </script>"""
        with page.expect_request("**/a.mp4?started"):
            page.goto(f"{site.address}/unasked")
        assert page.evaluate("told") == [["blocked", {"sound": True}], ["started", None]]
        assert page.evaluate("players.hearing") == "mute"

    def test_a_clip_that_is_none_is_told(self, page: Page, site: Site) -> None:
        two_players(page, site, b="/broken.mp4")
        page.wait_for_function("told.some(([name]) => name === 'broken')")


BATTLE = {
    "id": "1",
    "a": {"video": "/a.mp4", "poster": ""},
    "b": {"video": "/b.mp4", "poster": ""},
    "image": None,
    "vote_url": "/vote-here",
    "skip_url": "/skip-here",
}
CALL = """async ([name, args]) => {
    const module = await import("/static/js/battle.js");
    try {
        return { value: await module[name](...args) };
    } catch (error) {
        return { error: error.constructor.name, message: error.message };
    }
}"""


class TestBattle:
    def call(self, page: Page, name: str, *args: object) -> dict[str, Any]:
        return page.evaluate(CALL, [name, args])

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            ({"status": 200, "json": {"choice": "a"}}, {"value": {"choice": "a"}}),
            (
                {"status": 409, "json": {"error": "You voted."}},
                {"error": "Refused", "message": "You voted."},
            ),
            (
                {"status": 403, "body": "<html>"},
                {
                    "error": "Refused",
                    "message": "The site refused the request (error 403). Reload the page.",
                },
            ),
            (
                {"status": 503, "json": {"error": "Back soon."}},
                {"error": "Unreachable", "message": "Back soon."},
            ),
            (
                {"status": 502, "body": "<html>"},
                {
                    "error": "Unreachable",
                    "message": "Something went wrong on our side (error 502). "
                    "Try again in a moment.",
                },
            ),
            (
                None,
                {
                    "error": "Unreachable",
                    "message": "The site can't be reached. Check your connection and try again.",
                },
            ),
        ],
    )
    def test_a_vote_is_taken_refused_or_to_be_sent_again(
        self, page: Page, answer: dict[str, Any] | None, expected: dict[str, Any]
    ) -> None:
        sent: list[tuple[str | None, str | None]] = []

        def reply(route: Route) -> None:
            sent.append((route.request.post_data, route.request.header_value("x-csrftoken")))
            if answer is None:
                route.abort()
            else:
                route.fulfill(**answer)

        page.route("**/vote-here", reply)
        assert self.call(page, "castVote", BATTLE, "a", "the token") == expected
        assert sent == [("choice=a", "the token")]

    def test_the_next_pair_comes_with_its_clips(self, page: Page) -> None:
        asked: list[str | None] = []

        def reply(route: Route) -> None:
            asked.append(route.request.post_data)
            route.fulfill(json={"battle": BATTLE})

        page.route("**/next-here", reply)
        next_ = self.call(page, "fetchNext", "/next-here", "t", ["7", "8"])["value"]
        assert asked == ["have=7&have=8"]
        assert all(next_["battle"][side]["video"].startswith("blob:") for side in "ab")

    def test_a_pair_without_its_clip_is_passed_over(self, page: Page) -> None:
        gone = {**BATTLE, "id": "2", "b": {"video": "/gone.mp4", "poster": ""}}
        there = [gone, BATTLE]
        page.route("**/next-here", lambda route: route.fulfill(json={"battle": there.pop(0)}))
        next_ = self.call(page, "fetchNext", "/next-here", "t", [])["value"]
        assert next_["battle"]["id"] == "1"
        assert there == []

    def test_clips_that_do_not_come_are_a_sentence(self, page: Page) -> None:
        page.route("**/next-here", lambda route: route.fulfill(json={"battle": BATTLE}))
        page.route("**/b.mp4", lambda route: route.fulfill(status=503, body=""))
        said = self.call(page, "fetchNext", "/next-here", "t", [])
        assert said == {
            "error": "Unreachable",
            "message": "A clip of the next pair could not be loaded (error 503).",
        }


def test_a_chosen_theme_is_remembered(page: Page, site: Site) -> None:
    site.pages["/theme"] = (
        EMPTY + "<script src=/static/js/theme.js></script><button data-theme-toggle>Theme</button>"
    )
    page.emulate_media(color_scheme="dark")
    page.goto(f"{site.address}/theme")
    theme = page.locator("html")
    assert theme.get_attribute("data-theme") is None  # as the system has it
    page.locator("button").click()
    expect(theme).to_have_attribute("data-theme", "light")
    page.reload()
    expect(theme).to_have_attribute("data-theme", "light")
    page.locator("button").click()
    expect(theme).to_have_attribute("data-theme", "dark")


def test_numbers_are_fetched_again_and_say_when_they_could_not_be(page: Page, site: Site) -> None:
    link = '<a href="/one">{}</a>'
    site.pages["/progress"] = (
        EMPTY + f"<div data-progress>{link.format(0)}</div><p data-progress-stale hidden></p>"
        "<script type=module src=/static/js/progress.js></script>"
    )
    answers: list[dict[str, Any]] = [
        {"body": link.format(1)},
        {"status": 503},
        {"body": link.format(2)},
    ]
    page.route("**/progress?fragment", lambda route: route.fulfill(**answers.pop(0)))
    page.clock.install()
    page.goto(f"{site.address}/progress")
    numbers, stale = page.locator("[data-progress]"), page.locator("[data-progress-stale]")
    numbers.locator("a").focus()
    expect(numbers).to_have_text("0")
    page.clock.run_for(10_000)
    expect(numbers).to_have_text("1")
    expect(numbers.locator("a")).to_be_focused()
    expect(stale).to_be_hidden()
    page.clock.run_for(10_000)
    expect(stale).to_contain_text("could not be updated (the site answered 503)")
    expect(numbers).to_have_text("1")
    page.clock.run_for(10_000)
    expect(numbers).to_have_text("2")
    expect(stale).to_be_hidden()
