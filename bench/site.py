"""What a page costs as votes grow: `make bench-site`.

Fills a database of its own with 20 versions, 200 prompts and ever more votes, and measures through
Django's test client. Times on a shared machine wander, so what counts is each row's ratio to the
first one.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bench.servers import own_servers

if TYPE_CHECKING:
    from django.test import Client

    from arena.models import Panel

NUMBERS = {"versions": 20, "prompts": 200, "voters": 2000}
VOTES_STORED = (10_000, 100_000, 1_000_000)
RUNS_OF_EACH = 25  # each figure is the median of so many

MAKE_VOTERS = """
INSERT INTO arena_voter (id, simulated, created_at)
SELECT gen_random_uuid(), false, now() FROM generate_series(1, {voters});
CREATE TEMP TABLE voters AS SELECT id, row_number() OVER () AS n FROM arena_voter;
CREATE TEMP TABLE clips AS SELECT id, version_id, prompt_id, row_number() OVER (
    PARTITION BY prompt_id ORDER BY version_id) AS v, dense_rank() OVER (ORDER BY prompt_id) AS p
FROM generation_clip;
CREATE INDEX ON voters (n); CREATE INDEX ON clips (p, v); ANALYZE voters; ANALYZE clips;
"""
CAST_VOTES = """
WITH drawn AS (
    SELECT gen_random_uuid() AS battle, 1 + floor(random() * {voters})::int AS n,
        1 + floor(random() * {prompts})::int AS p, 1 + floor(random() * {versions})::int AS a,
        1 + floor(random() * ({versions} - 1))::int AS step, random() AS luck
    FROM generate_series(1, {count})
), pairs AS (
    SELECT drawn.*, l.id AS clip_a_id, r.id AS clip_b_id, l.version_id AS lv, r.version_id AS rv,
        l.prompt_id, voters.id AS voter
    FROM drawn JOIN voters USING (n) JOIN clips l ON l.p = drawn.p AND l.v = drawn.a
    JOIN clips r ON r.p = drawn.p AND r.v = 1 + (drawn.a - 1 + drawn.step) % {versions}
), battles AS (
    INSERT INTO arena_battle (id, voter_id, stream, category, prompt_id, clip_a_id, clip_b_id,
        draw_probability, kind, created_at, expires_at)
    SELECT battle, voter, 'mixed', 't2v-silent', prompt_id, clip_a_id, clip_b_id, 0.01, 'arena',
        now() - interval '2 days', now() - interval '1 day' FROM pairs
)
INSERT INTO arena_vote (battle_id, voter_id, category, version_a_id, version_b_id,
    prompt_id, choice, kind, simulated, cast_at)
SELECT battle, voter, 't2v-silent', lv, rv, prompt_id,
    CASE WHEN luck < 0.1 THEN 'tie' WHEN luck < 0.1 + 0.9 / (1 + exp((rv - lv) / 5.0))
    THEN 'a' ELSE 'b' END, 'arena', false, now() FROM pairs
"""


def fill_site(home: Path) -> "Panel":
    """Versions, prompts, clips, voters, and an experiment of the panel that is given back."""
    from arena.experiments.proposal import Proposal
    from arena.experiments.start import start
    from arena.models import Panel
    from generation.models import Clip, Model, Prompt, PromptSet, PromptSetEntry, Version

    for name in ("r.mp4", "p.jpg"):
        (home / "media" / name).write_bytes(b"x")
    model = Model.objects.create(slug="m", name="M", lab="L", weights="open")
    facts = {"width": 32, "height": 32, "fps": 8, "min_seconds": 1, "max_seconds": 2}
    versions = Version.objects.bulk_create(
        Version(
            model=model, slug=f"v{i}", name=f"V{i}", state="active", backend="scenes",
            categories=["t2v-silent"], **facts,
        )
        for i in range(NUMBERS["versions"])
    )  # fmt: skip
    prompts = Prompt.objects.bulk_create(
        Prompt(key=f"p{i}", text=f"prompt {i}", sounds=["silent"], aspect="1:1", seconds=1)
        for i in range(NUMBERS["prompts"])
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
    execute(*MAKE_VOTERS.split(";"))
    return panel


def execute(*statements: str) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        for statement in filter(str.strip, statements):
            cursor.execute(statement.format(**NUMBERS))


def cast_votes_up_to(size: int) -> None:
    from arena.models import Vote

    execute(CAST_VOTES.replace("{count}", str(size - Vote.objects.count())), "VACUUM ANALYZE")


def busiest_voter(panel: "Panel") -> "Client":
    """The voter with the most votes, for whom everything is slowest, as the panel's member."""
    from django.db import connection
    from django.test import Client

    from arena.models import Member, Voter
    from arena.voting.identity import COOKIE, cookie_value

    with connection.cursor() as cursor:
        cursor.execute("SELECT voter_id FROM arena_vote GROUP BY 1 ORDER BY count(*) DESC LIMIT 1")
        voter = Voter.objects.get(pk=cursor.fetchone()[0])
    Member.objects.get_or_create(voter=voter, panel=panel, defaults={"token": str(voter.pk)})
    client = Client(headers={"accept": "application/json"})
    client.cookies[COOKIE] = cookie_value(voter)
    return client


def fetch_pair(client: "Client", stream: str) -> str:
    """Ask for a new pair as the voting page does; gives the address to vote at."""
    return str(client.post(f"/vote/{stream}/next/").json()["battle"]["vote_url"])


def post_vote(client: "Client", address: str) -> None:
    answer = client.post(address, {"choice": "a"})
    assert answer.status_code == 200, answer.text


# --- what is measured, in milliseconds -----------------------------------------------------------


def milliseconds(what: Callable[[], object]) -> float:
    begin = time.perf_counter()
    what()
    return (time.perf_counter() - begin) * 1000


def measure_voting(client: "Client", stream: str) -> tuple[float, float]:
    """A new pair, and the vote on it."""
    pairs, votes = [], []
    for _ in range(RUNS_OF_EACH):
        begin = time.perf_counter()
        address = fetch_pair(client, stream)
        pairs.append((time.perf_counter() - begin) * 1000)
        votes.append(milliseconds(lambda at=address: post_vote(client, at)))  # type: ignore[misc]
    return statistics.median(pairs), statistics.median(votes)


def count_queries(client: "Client") -> tuple[int, int]:
    """Of a new pair, and of the vote on it."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as of_pair:
        address = fetch_pair(client, "mixed")
    with CaptureQueriesContext(connection) as of_vote:
        post_vote(client, address)
    return len(of_pair), len(of_vote)


def measure_refit() -> float:
    """With a few new votes: the copy of the ledger is there already."""
    from generation.catalogue.categories import Category
    from ratings.boards.refit import refit

    return milliseconds(lambda: refit(Category.T2V_SILENT))


def measure_leaderboard(client: "Client") -> float:
    return statistics.median(
        milliseconds(lambda: client.get("/leaderboards/t2v-silent/")) for _ in range(RUNS_OF_EACH)
    )


def measure_site(client: "Client") -> Iterator[tuple[str, float]]:
    pair, vote = measure_voting(client, "mixed")
    panel_pair, panel_vote = measure_voting(client, "panel")
    measure_refit()  # reads the votes that were cast by SQL
    pair_queries, vote_queries = count_queries(client)
    yield f"new pair ({pair_queries} queries)", pair
    yield f"vote ({vote_queries} queries)", vote
    yield "a panel's new pair", panel_pair
    yield "a panel's vote", panel_vote
    refit = measure_refit()
    yield "leaderboard", measure_leaderboard(client)
    yield "refit", refit


def bench_site(home: Path) -> None:
    import django
    from django.core.management import call_command
    from django.test.utils import setup_test_environment

    django.setup()
    call_command("migrate", verbosity=0)
    setup_test_environment()
    panel = fill_site(home)
    print(", ".join(f"{n} {name}" for name, n in NUMBERS.items()), end="; ")
    print(f"medians of {RUNS_OF_EACH}, in ms")
    first: dict[str, float] = {}
    for size in VOTES_STORED:
        cast_votes_up_to(size)
        for name, ms in measure_site(busiest_voter(panel)):
            first.setdefault(name, ms)
            print(f"{size:>9} votes  {name:<24} {ms:8.1f}  x{ms / first[name]:.2f}", flush=True)


def main() -> None:
    with own_servers() as home:
        bench_site(home)


if __name__ == "__main__":
    main()
