"""Simulated voters: programs that vote through the site's own pages.

A simulated voter watches both clips, scores each against the renderer's own renderings of the
prompt (generation/backends/scenes/judge.py), adds noise of its own and picks the better one. Its
votes are marked in the ledger; a site counts them only if its settings say so, and then its pages
say so.
"""

import hashlib
import io
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import requests
from django.db.models import Q

from arena.experiments.panels import add_members
from arena.models import MIXED, Choice, Member, Panel, Voter
from arena.voting.identity import COOKIE, cookie_value
from generation.backends.scenes.grammar import NotAScene, Scene, parse
from generation.backends.scenes.judge import judge

# Median noise on a score from 0 to 1: of anybody, and of those whom a team would invite, who see
# what is spoilt.
NOISE, NOISE_OF_MEMBERS = 0.22, 0.08
SCORES_KEPT = 5000  # clips come back in battle after battle; each is judged once
TIMEOUT = 30  # seconds for one request


class SiteRefused(Exception):
    """The site did not take what a simulated voter sent; the message holds its sentence."""


@dataclass(frozen=True)
class Taste:
    """How one voter differs from the judge: noise on each score, and when it calls a tie."""

    noise: float
    tie_within: float
    bad_below: float = 0.25

    @classmethod
    def draw(cls, rng: np.random.Generator, noise: float) -> "Taste":
        return cls(
            noise=float(noise * rng.lognormal(0, 0.4)), tie_within=float(rng.uniform(0.02, 0.08))
        )

    def choose(self, left: float, right: float, rng: np.random.Generator) -> Choice:
        seen_left, seen_right = np.array([left, right]) + rng.normal(0, self.noise, 2)
        if max(seen_left, seen_right) < self.bad_below:
            return Choice.BOTH_BAD
        if abs(seen_left - seen_right) < self.tie_within:
            return Choice.TIE
        return Choice.A if seen_left > seen_right else Choice.B


def watch(data: bytes, audio: bool) -> tuple[np.ndarray, float, np.ndarray | None, int | None]:
    """Decode an MP4: uint8 frames [F, H, W, 3], their rate, float sound [samples], its rate."""
    with av.open(io.BytesIO(data), mode="r") as media:
        rate = float(media.streams.video[0].average_rate or 0)
        frames = np.stack([f.to_ndarray(format="rgb24") for f in media.decode(video=0)])
    if not audio:
        return frames, rate, None, None
    with av.open(io.BytesIO(data), mode="r") as media:
        pieces = [f.to_ndarray().mean(0) for f in media.decode(audio=0)]
        sample_rate = media.streams.audio[0].rate
    return frames, rate, np.concatenate(pieces), sample_rate


def grain(frames: np.ndarray) -> float:
    """Mean roughness of neighbouring pixels, of 255, in uint8 [F, H, W, 3]: clips have about 1."""
    row = frames[:: max(1, len(frames) // 8), ..., 1].astype(np.int16)
    return float(np.abs(2 * row[..., 1:-1] - row[..., :-2] - row[..., 2:]).mean())


class Judge:
    """Scores clips, each only once.

    The renderer's judge looks at few pixels, in which fine grain drowns; whoever watches sees it.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, float] = OrderedDict()

    def score(self, scene: Scene, data: bytes, audio: bool) -> float:
        key = hashlib.sha256(f"{scene}{audio}".encode() + data).hexdigest()
        if key not in self._known:
            frames, fps, sound, rate = watch(data, audio)
            seen = np.exp(-max(0.0, grain(frames) - 3) / 20)
            self._known[key] = float(judge(scene, frames, fps, sound, rate).overall * seen)
            if len(self._known) > SCORES_KEPT:
                self._known.popitem(last=False)
        return self._known[key]


class SimulatedVoter:
    """One voter with its own cookie, taste and random numbers."""

    def __init__(
        self, site: str, voter: Voter, judge_: Judge, seed: int, noise: float = NOISE
    ) -> None:
        self.site, self.judge = site.rstrip("/"), judge_
        self.rng = np.random.default_rng(seed)
        self.taste = Taste.draw(self.rng, noise)
        self.http = requests.Session()
        self.http.cookies.set(COOKIE, cookie_value(voter))

    @classmethod
    def for_member(cls, site: str, token: str, judge_: Judge, seed: int) -> "SimulatedVoter":
        """A voter who joins a panel by a member's link, then votes in the stream of panels.

        A link that was never opened gets a simulated voter; an opened one keeps its own.
        """
        member = Member.objects.get(token=token)
        if member.voter is None:
            member.voter = Voter.objects.create(simulated=True)
            member.save(update_fields=["voter"])
        voter = cls(site, member.voter, judge_, seed, NOISE_OF_MEMBERS)
        voter._ask("POST", f"/panel/{token}/")
        return voter

    def vote(self, stream: str = MIXED) -> Choice | None:
        """Take the next pair and answer it; None when there is none, or it was skipped."""
        battle: dict[str, Any] | None = self._ask("POST", f"/vote/{stream}/next/").json()["battle"]
        if battle is None:
            return None
        try:
            scene = parse(battle["prompt"])
        except NotAScene:  # it can only judge the small world, and says so as a person would
            self._ask("POST", battle["skip_url"])
            return None
        left, right = (
            self.judge.score(
                scene, self._ask("GET", battle[side]["video"]).content, battle["audio"]
            )
            for side in ("a", "b")
        )
        choice = self.taste.choose(left, right, self.rng)
        self._ask("POST", battle["vote_url"], {"choice": choice.value})
        return choice

    def _ask(self, method: str, path: str, data: dict[str, str] | None = None) -> requests.Response:
        headers = {}
        if method == "POST":
            if "csrftoken" not in self.http.cookies:
                self._ask("GET", "/vote/")  # its forms bring one
            headers = {
                "Accept": "application/json",
                "Referer": f"{self.site}/",  # over HTTPS a token counts only with one
                "X-CSRFToken": self.http.cookies.get("csrftoken") or "",
            }
        answer = self.http.request(
            method, self.site + path, data=data, headers=headers, timeout=TIMEOUT
        )
        if not answer.ok:
            raise SiteRefused(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer


def make_voters(site: str, count: int, seed: int) -> list[SimulatedVoter]:
    """`count` voters of this site; those of an earlier run come back before new ones are made."""
    voters = list(Voter.objects.filter(simulated=True).order_by("created_at")[:count])
    voters += Voter.objects.bulk_create(Voter(simulated=True) for _ in range(count - len(voters)))
    shared = Judge()
    return [SimulatedVoter(site, voter, shared, seed + i) for i, voter in enumerate(voters)]


def make_members(site: str, panel: Panel, count: int, seed: int) -> list[SimulatedVoter]:
    """`count` simulated members of a panel; members are added where none is free, and none that a
    person has taken is touched."""
    members = panel.members.filter(Q(voter=None) | Q(voter__simulated=True), revoked=False)
    free = list(members.order_by("pk")[:count])
    free += add_members(panel, count - len(free))
    shared = Judge()
    return [
        SimulatedVoter.for_member(site, member.token, shared, seed + i)
        for i, member in enumerate(free)
    ]
