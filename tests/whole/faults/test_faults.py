"""Whatever dies, no clip is lost or made twice, and no vote is lost or counted twice."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import requests

from tests.whole.demo import PATIENCE, RunningDemo, kill, postmaster, processes

DATA = re.compile(r'battle-data" type="application/json">(.*?)</script>', re.S)
# Two slow versions: enough to be caught at it, and soon done.
RENDER = (
    "render", "--prompt-set", "scenes", "--category", "t2v-silent",
    "--version-slug", "colt-2", "colt-2-hd", "--no-wait", "--limit",
)  # fmt: skip
RENDERING = "SELECT id, fence, attempts FROM generation_clip WHERE state = 'rendering'"


def orphans(demo: RunningDemo) -> list[str]:
    """Finished renditions that no row names. What a row names is there."""
    named = {
        name
        for row in demo.sql("SELECT master, rendition, poster FROM generation_clip")
        for name in row
        if name
    }
    media = Path(demo.settings["MEDIA_STORAGE"].removeprefix("file://"))
    renditions = [str(p.relative_to(media)) for p in media.glob("clips/*/*/rendition.mp4")]
    assert all((media / name).exists() for name in named)
    return [name for name in renditions if name not in named]


def test_a_worker_killed_in_mid_render(demo: RunningDemo) -> None:
    demo.wait_for_all_clips()
    # Clips for an experiment's checks come by themselves, and are not rendered.
    rendered = "FROM generation_clip WHERE version_id IN "
    rendered += "(SELECT id FROM generation_version WHERE backend <> 'imported')"
    before = demo.sql(f"SELECT count(*) {rendered}")[0][0]
    demo.manage(*RENDER, "2")
    total = demo.sql(f"SELECT count(*) {rendered}")[0][0]
    assert total > before
    clip, fence, attempts = demo.wait_for("a render", lambda: demo.sql(RENDERING))[0]
    kill(processes(demo, "gpu@%h"))
    # The dead worker's clip is still its own until the lease runs out, then somebody else's.
    state = "SELECT state, fence, attempts FROM generation_clip WHERE id = %s"
    demo.wait_for("the takeover", lambda: demo.sql(state, clip)[0][0] == "ready")
    ended, fence_now, attempts_now = demo.sql(state, clip)[0]
    assert (ended, fence_now, attempts_now) in {
        ("ready", fence + 1, attempts + 1),
        ("ready", fence, attempts),  # it was published in the instant before the kill
    }
    demo.wait_for_all_clips()
    assert demo.sql(f"SELECT count(*) {rendered} AND state = 'ready'")[0][0] == total
    assert len(orphans(demo)) <= 1  # at most what the killed attempt left behind


def test_redis_flushed_in_mid_render(demo: RunningDemo) -> None:
    demo.wait_for_all_clips()
    demo.manage(*RENDER, "3")
    demo.wait_for("a render", lambda: demo.sql(RENDERING))
    demo.redis().flushall()
    kill(processes(demo, "gpu@%h"))  # the worker that comes back finds an empty queue
    demo.wait_for_all_clips()
    doubled = "SELECT count(*) FROM generation_clip WHERE state = 'ready' AND attempts > 2"
    assert demo.sql(doubled)[0][0] == 0


def test_postgres_killed_in_mid_render(demo: RunningDemo) -> None:
    demo.wait_for_all_clips()
    demo.manage(*RENDER, "4")
    clip = demo.wait_for("a render", lambda: demo.sql(RENDERING))[0][0]
    os.kill(postmaster(demo), signal.SIGKILL)
    demo.wait_for_all_clips()
    state = "SELECT state, attempts, error FROM generation_clip WHERE id = %s"
    ended, attempts, error = demo.sql(state, clip)[0]
    assert (ended, error) == ("ready", "")
    assert attempts <= 2
    assert len(orphans(demo)) <= 2  # swept after a day


class Voter(threading.Thread):
    """Votes without pause, sends again what got no answer, and keeps what was acknowledged."""

    def __init__(self, demo: RunningDemo) -> None:
        super().__init__(daemon=True)
        self.demo, self.http = demo, requests.Session()
        self.acknowledged: dict[str, str] = {}
        self.refusals: list[str] = []
        self.unanswered = 0
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self._vote()
            except (requests.RequestException, OSError):
                self.unanswered += 1
                time.sleep(0.1)

    def _vote(self) -> None:
        if "csrftoken" not in self.http.cookies:
            self.http.get(f"{self.demo.site}/vote/", timeout=10)
        page = self.http.post(
            f"{self.demo.site}/vote/mixed/next/",
            headers={"X-CSRFToken": self.http.cookies.get("csrftoken", "")},
            timeout=10,
        )
        found = DATA.search(page.text)
        if not page.ok or found is None:
            self.unanswered += 1
            time.sleep(0.1)
            return
        battle = found[1]
        if battle == "null":  # this voter has seen all: another takes over
            self.http = requests.Session()
            return
        path = re.search(r'"vote_url": "(.*?)"', battle)
        assert path is not None
        headers = {"Accept": "application/json", "X-CSRFToken": self.http.cookies["csrftoken"]}
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                answer = self.http.post(
                    self.demo.site + path[1], {"choice": "a"}, headers=headers, timeout=10
                )
            except (requests.RequestException, OSError):
                self.unanswered += 1
                time.sleep(0.1)
                continue
            if answer.status_code >= 500:
                self.unanswered += 1
                time.sleep(0.1)
                continue
            if answer.ok:
                self.acknowledged[path[1].split("/")[2]] = "a"
            else:
                self.refusals.append(answer.text)
            return


def test_postgres_killed_while_people_vote(demo: RunningDemo) -> None:
    before = demo.sql("SELECT count(*) FROM arena_vote")[0][0]
    voters = [Voter(demo) for _ in range(3)]
    for voter in voters:
        voter.start()
    demo.wait_for("some votes", lambda: sum(len(v.acknowledged) for v in voters) > 20)
    for number, sign in enumerate((signal.SIGINT, signal.SIGKILL), start=1):  # orderly, then not
        os.kill(postmaster(demo), sign)
        demo.wait_for("an interruption", lambda n=number: sum(v.unanswered for v in voters) >= n)
        seen = sum(len(v.acknowledged) for v in voters)
        demo.wait_for(
            "more votes", lambda s=seen: sum(len(v.acknowledged) for v in voters) > s + 20
        )
    for voter in voters:
        voter.stop.set()
    for voter in voters:
        voter.join(timeout=PATIENCE)
    assert [v.refusals for v in voters] == [[], [], []]
    acknowledged = {battle for voter in voters for battle in voter.acknowledged}
    stored = [str(row[0]) for row in demo.sql("SELECT battle_id FROM arena_vote")]
    assert len(stored) == len(set(stored))
    assert acknowledged <= set(stored)
    assert len(stored) - before == len(acknowledged)


def test_the_site_comes_back_after_a_kill(demo: RunningDemo) -> None:
    kill(processes(demo, "arena.wsgi:application"))
    demo.wait_for("the site", lambda: demo.health()["ok"])
