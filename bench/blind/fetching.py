"""Third step: clips are fetched as a voter's browser fetches them."""

import math
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.blind.versions import MADE_UP_VERSIONS, Facts


@dataclass
class Received:
    """All that a voter's machine gets for one clip."""

    category: str
    version: int
    prompt: int
    # What was asked -> status and headers.
    answers: dict[str, tuple[int, list[tuple[str, str]]]] = field(default_factory=dict)
    video: bytes = b""
    poster: bytes = b""
    times: Facts = field(default_factory=dict)


def fetch_all(category: str, rng: np.random.Generator) -> list[Received]:
    """Draw battles by hand so that each clip stands in one, and fetch in random order."""
    from datetime import timedelta

    from django.test import Client
    from django.utils import timezone

    from arena.models import Battle, Voter
    from arena.voting.identity import COOKIE, cookie_value
    from generation.models import Clip

    voter = Voter.objects.create()
    browser = Client()
    browser.cookies[COOKIE] = cookie_value(voter)
    numbers = {made.slug: number for number, made in enumerate(MADE_UP_VERSIONS)}
    of_prompt: dict[int, list[Clip]] = defaultdict(list)
    for clip in Clip.objects.filter(category=category).select_related("version", "prompt"):
        of_prompt[clip.prompt_id].append(clip)
    wanted: list[tuple[Clip, str]] = []
    for clips in of_prompt.values():
        order = [clips[i] for i in rng.permutation(len(clips))]
        for left, right in zip(order[::2], order[1::2], strict=True):
            battle = Battle.objects.create(
                voter=voter, stream="mixed", category=category, prompt_id=left.prompt_id,
                clip_a=left, clip_b=right, draw_probability=0.01,
                expires_at=timezone.now() + timedelta(hours=1),
            )  # fmt: skip
            wanted += [(left, f"/battles/{battle.pk}/a"), (right, f"/battles/{battle.pk}/b")]
    browser.get(wanted[0][1] + ".mp4")  # the first answer of a process waits for imports
    got = []
    for clip, address in (wanted[i] for i in rng.permutation(len(wanted))):
        version, prompt = numbers[clip.version.slug], int(clip.prompt.key[1:])
        got.append(fetch(browser, address, Received(category, version, prompt)))
    return got


def fetch(browser: Any, address: str, into: Received) -> Received:
    """The poster, the whole file, a part of it, its headers alone, and the whole file again."""
    asked: tuple[tuple[str, str, str, dict[str, str]], ...] = (
        ("poster", "get", ".jpg", {}),
        ("whole", "get", ".mp4", {}),
        ("part", "get", ".mp4", {"range": "bytes=0-1023"}),
        ("head", "head", ".mp4", {}),
        ("again", "get", ".mp4", {}),
    )
    for what, method, suffix, headers in asked:
        begin = time.perf_counter()
        answer = getattr(browser, method)(address + suffix, headers=headers)
        first = time.perf_counter()
        body = b"".join(answer)
        end = time.perf_counter()
        if answer.status_code not in (200, 206):
            raise SystemExit(f"{address}{suffix} answered {answer.status_code}.")
        cookies = [("Set-Cookie", morsel.OutputString()) for morsel in answer.cookies.values()]
        into.answers[what] = (answer.status_code, [*answer.headers.items(), *cookies])
        into.times[f"{what}, first byte|"] = math.log(first - begin)
        into.times[f"{what}, rest|"] = math.log(end - first)
        if what == "poster":
            into.poster = body
        elif what == "whole":
            into.video = body
    return into
