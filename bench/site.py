"""What a page costs as votes grow: `make bench-site`.

Fills a database of its own with 20 versions, 200 prompts and ever more votes, and measures through
Django's test client. Times on a shared machine wander, so what counts is each row's ratio to the
first one.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.servers import own_servers

VERSIONS, PROMPTS, VOTERS = 20, 200, 2000
SIZES = (10_000, 100_000, 1_000_000)
ROUNDS = 25

FILL = """
INSERT INTO arena_voter (id, simulated, created_at)
SELECT gen_random_uuid(), false, now() FROM generate_series(1, {voters});
CREATE TEMP TABLE voters AS SELECT id, row_number() OVER () AS n FROM arena_voter;
CREATE TEMP TABLE clips AS SELECT id, version_id, prompt_id, row_number() OVER (
    PARTITION BY prompt_id ORDER BY version_id) AS v, dense_rank() OVER (ORDER BY prompt_id) AS p
FROM generation_clip;
CREATE INDEX ON voters (n); CREATE INDEX ON clips (p, v); ANALYZE voters; ANALYZE clips;
"""
MORE = """
WITH drawn AS (
    SELECT gen_random_uuid() AS battle, 1 + floor(random() * {voters})::int AS n,
        1 + floor(random() * {prompts})::int AS p, 1 + floor(random() * {versions})::int AS a,
        1 + floor(random() * ({versions} - 1))::int AS step, random() AS luck
    FROM generate_series(1, {count})
), pairs AS (
    SELECT drawn.*, l.id AS left_id, r.id AS right_id, l.version_id AS lv, r.version_id AS rv,
        l.prompt_id, voters.id AS voter
    FROM drawn JOIN voters USING (n) JOIN clips l ON l.p = drawn.p AND l.v = drawn.a
    JOIN clips r ON r.p = drawn.p AND r.v = 1 + (drawn.a - 1 + drawn.step) % {versions}
), battles AS (
    INSERT INTO arena_battle (id, voter_id, stream, category, prompt_id, left_id, right_id,
        draw_probability, kind, created_at, expires_at)
    SELECT battle, voter, 'mixed', 't2v-silent', prompt_id, left_id, right_id, 0.01, 'arena',
        now() - interval '2 days', now() - interval '1 day' FROM pairs
)
INSERT INTO arena_vote (battle_id, voter_id, category, left_version_id, right_version_id,
    prompt_id, choice, kind, simulated, cast_at)
SELECT battle, voter, 't2v-silent', lv, rv, prompt_id,
    CASE WHEN luck < 0.1 THEN 'tie' WHEN luck < 0.1 + 0.9 / (1 + exp((rv - lv) / 5.0))
    THEN 'left' ELSE 'right' END, 'arena', false, now() FROM pairs
"""


def median_ms(what: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        what()
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times)


def run(home: Path) -> None:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)

    import json
    import re

    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext, setup_test_environment

    from arena.experiments import Proposal, start
    from arena.identity import COOKIE, cookie_value
    from arena.models import Panel, Seat, Vote, Voter
    from generation.categories import Category
    from generation.models import Clip, Model, Prompt, PromptSet, PromptSetEntry, Version
    from ratings.leaderboards import refit

    setup_test_environment()
    for name in ("r.mp4", "p.jpg"):
        (home / "media" / name).write_bytes(b"x")
    model = Model.objects.create(slug="m", name="M", lab="L", weights="open")
    facts = {"width": 32, "height": 32, "fps": 8, "min_seconds": 1, "max_seconds": 2}
    versions = Version.objects.bulk_create(
        Version(
            model=model, slug=f"v{i}", name=f"V{i}", state="active", backend="scenes",
            categories=["t2v-silent"], **facts,
        )
        for i in range(VERSIONS)
    )  # fmt: skip
    prompts = Prompt.objects.bulk_create(
        Prompt(key=f"p{i}", text=f"prompt {i}", sounds=["silent"], aspect="1:1", seconds=1)
        for i in range(PROMPTS)
    )
    Clip.objects.bulk_create(
        Clip(
            version=v, prompt=p, category="t2v-silent", seed=1, state="ready", master="m",
            rendition="r.mp4", poster="p.jpg", rendition_sha256="x", render_seconds=1.0,
        )
        for v in versions for p in prompts
    )  # fmt: skip
    every = PromptSet.objects.create(slug="every", name="Every", seed_slots=1, digest="0")
    PromptSetEntry.objects.bulk_create(
        PromptSetEntry(prompt_set=every, prompt=prompt, position=position)
        for position, prompt in enumerate(prompts)
    )
    panel = Panel.objects.create(slug="panel", name="Panel", quota=10_000)
    start(
        Proposal(
            name="Bench", candidate=versions[0], baseline=versions[1], category="t2v-silent",
            prompt_set=every, max_votes=3000, panels=(panel,),
        )
    )  # fmt: skip
    numbers = {"voters": VOTERS, "prompts": PROMPTS, "versions": VERSIONS}
    with connection.cursor() as cursor:
        for statement in FILL.format(**numbers).split(";"):
            if statement.strip():
                cursor.execute(statement)

    def old_hand() -> Client:
        """The voter with the most votes, for whom everything is slowest, with a panel's seat."""
        busiest = "SELECT voter_id FROM arena_vote GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"
        with connection.cursor() as cursor:
            cursor.execute(busiest)
            voter = Voter.objects.get(pk=cursor.fetchone()[0])
        Seat.objects.get_or_create(voter=voter, panel=panel, defaults={"token": str(voter.pk)})
        client = Client(headers={"accept": "application/json"})
        client.cookies[COOKIE] = cookie_value(voter)
        return client

    data = re.compile(r'battle-data" type="application/json">(.*?)</script>', re.S)
    first: dict[str, float] = {}
    print(f"{VERSIONS} versions, {PROMPTS} prompts, {VOTERS} voters; medians of {ROUNDS}, in ms")
    for size in SIZES:
        with connection.cursor() as cursor:
            cursor.execute(MORE.format(count=size - Vote.objects.count(), **numbers))
            cursor.execute("VACUUM ANALYZE")
        client = old_hand()
        battle: dict[str, str] = {}

        def pair(
            path: str = "/vote/", client: Client = client, battle: dict[str, str] = battle
        ) -> None:
            page = client.get(path, headers={"accept": "text/html"})
            found = data.search(page.text)
            assert found is not None
            battle.update(json.loads(found[1]))

        def vote(client: Client = client, battle: dict[str, str] = battle) -> None:
            answer = client.post(battle["vote_url"], {"choice": "left"})
            assert answer.status_code == 200, answer.text

        def pair_and_vote(path: str = "/vote/") -> tuple[float, float]:
            begin = time.perf_counter()
            pair(path)
            middle = time.perf_counter()
            vote()
            return (middle - begin) * 1000, (time.perf_counter() - middle) * 1000

        drawn = [pair_and_vote() for _ in range(ROUNDS)]
        judged = [pair_and_vote("/vote/panel/") for _ in range(ROUNDS)]
        refit(Category.T2V_SILENT)
        with CaptureQueriesContext(connection) as queries:
            pair()
        with CaptureQueriesContext(connection) as vote_queries:
            vote()
        begin = time.perf_counter()
        refit(Category.T2V_SILENT)
        figures = {
            f"new pair ({len(queries)} queries)": statistics.median(d[0] for d in drawn),
            f"vote ({len(vote_queries)} queries)": statistics.median(d[1] for d in drawn),
            "a panel's new pair": statistics.median(d[0] for d in judged),
            "a panel's vote": statistics.median(d[1] for d in judged),
            "leaderboard": median_ms(partial(client.get, "/leaderboards/t2v-silent/")),
            "refit": (time.perf_counter() - begin) * 1000,
        }
        for name, ms in figures.items():
            first.setdefault(name, ms)
            print(f"{size:>9} votes  {name:<24} {ms:8.1f}  x{ms / first[name]:.2f}", flush=True)


def main() -> None:
    with own_servers() as home:
        run(home)


if __name__ == "__main__":
    main()
