"""An experiment is started and judged: who is shown what, and what is kept of it."""

import io
import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from arena.experiment_pairs import settle_excluded
from arena.experiments import (
    NotStarted,
    Proposal,
    cancel,
    clips_missing,
    objections,
    same_design,
    start,
)
from arena.models import (
    Battle,
    Block,
    Exclusion,
    Experiment,
    ExperimentState,
    Half,
    Kind,
    Panel,
    Seat,
    Vote,
)
from arena.panels import make_seats
from arena.tasks import free_excluded_halves
from generation.encoding import PROFILE
from generation.models import Clip, ClipState, PromptSet, Version, VersionState
from generation.rendering import claim
from tests.panels import (
    PROMPTS,
    SLOTS,
    judge,
    make_panel,
    make_prompt_set,
    propose,
    sit_down,
    stock,
)
from tests.test_vote import JSON, battle_on

pytestmark = pytest.mark.django_db
PAIRS = PROMPTS * SLOTS


@pytest.fixture
def only_halves(settings) -> None:
    settings.CHECK_SAME = settings.CHECK_REPEAT = settings.CHECK_GOLD = 0


@pytest.fixture
def quartet(db) -> PromptSet:
    return make_prompt_set()


@pytest.fixture
def versions(make_version: Callable[..., Version]) -> tuple[Version, Version]:
    """A candidate on trial and the baseline."""
    return make_version("colt-2", state=VersionState.TRIAL), make_version("colt-1")


@pytest.fixture
def panel(db) -> Panel:
    return make_panel(seats=6)


@pytest.fixture
def proposal(versions: tuple[Version, Version], quartet: PromptSet, panel: Panel) -> Proposal:
    return propose(*versions, quartet, panel)


@pytest.fixture
def running(proposal: Proposal, only_halves: None) -> Experiment:
    """All clips are there, and nothing but halves is shown."""
    for version in proposal.versions:
        stock(version, proposal.prompt_set)
    return start(proposal)


class TestStarting:
    def test_queues_the_missing_clips_in_the_order_of_the_blocks(self, proposal: Proposal) -> None:
        stock(proposal.baseline, proposal.prompt_set)
        assert objections(proposal) == []
        assert clips_missing(proposal) == {"colt-2": PAIRS, "colt-1": 0}
        experiment = start(proposal)
        waiting = Clip.objects.filter(state=ClipState.WAITING)
        assert {clip.version.slug for clip in waiting} == {"colt-2"}
        order = [b.candidate_clip_id for b in experiment.blocks.all()[:PAIRS]]
        assert [clip.pk for clip in waiting.order_by("priority")] == order
        assert experiment.blocks.count() == 30
        assert experiment.halves.filter(voted=False).count() == 60
        rounds = [b.candidate_clip_id for b in experiment.blocks.all()[PAIRS : 2 * PAIRS]]
        assert rounds == order
        first = claim("a worker")  # what is on trial is rendered
        assert first is not None
        assert first.pk == order[0]
        assert list(experiment.panels.all()) == list(proposal.panels)

    def test_queues_no_clips_that_its_votes_could_not_show(
        self, versions: tuple[Version, Version], panel: Panel
    ) -> None:
        wanted = propose(*versions, make_prompt_set(40), panel)
        assert clips_missing(wanted) == {"colt-2": 30, "colt-1": 30}
        experiment = start(wanted)
        shown = {block.candidate_clip_id for block in experiment.blocks.all()}
        waiting = set(Clip.objects.filter(version=wanted.candidate).values_list("pk", flat=True))
        assert shown == waiting
        assert len(shown) == 30

    def test_what_is_ready_need_not_be_makeable_any_more(self, proposal: Proposal) -> None:
        proposal.prompt_set.prompts.update(text="no scene at all")
        for version in proposal.versions:
            stock(version, proposal.prompt_set)
        assert objections(proposal) == []
        assert start(proposal).blocks.count() == 30

    def test_what_waits_already_is_put_into_its_order(self, proposal: Proposal) -> None:
        start(proposal)
        again = start(replace(proposal, name="Another order"))
        first = again.blocks.first()
        assert first is not None
        assert first.candidate_clip.priority == first.baseline_clip.priority == 0

    def test_is_frozen_by_the_database(self, running: Experiment) -> None:
        for change in (
            lambda: Experiment.objects.update(margin=1),
            lambda: Block.objects.update(muted=True),
        ):
            with pytest.raises(DatabaseError), transaction.atomic():
                change()

    def test_finds_the_one_that_asks_the_same(
        self, running: Experiment, proposal: Proposal
    ) -> None:
        assert same_design(replace(proposal, name="By another name")) == running
        assert same_design(replace(proposal, margin=10)) is None
        assert same_design(replace(proposal, panels=(make_panel("others"),))) is None
        assert cancel(running)
        assert not cancel(running)
        assert same_design(proposal) is None

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"margin": 0.0}, "margin is 0"),
            ({"margin": float("nan")}, "margin is nan"),
            ({"alpha": 0.5}, "Alpha is 0.5"),
            ({"beta": 0.0}, "Beta is 0"),
            ({"max_votes": 61}, "even number"),
            ({"max_votes": 20}, "even number"),
            ({"seed_slots": 3}, "1 to 1"),
            ({"public_share": 1.5}, "public share is 1.5"),
            ({"muted_share": -0.1}, "muted share is -0.1"),
            ({"muted_share": 0.5}, "no sound to mute"),
            ({"panels": ()}, "Nobody may vote"),
            ({"webhook": "ftp://example.org/"}, "begins with https://"),
            ({"webhook": "http:///nowhere"}, "begins with https://"),
            ({"category": "t2v-smell"}, "no category “t2v-smell”"),
            ({"category": "i2v-silent"}, "no prompt for i2v-silent: a verdict needs 4 or more"),
            ({"name": ""}, "needs a name"),
        ],
    )
    def test_is_refused_in_a_sentence(
        self, proposal: Proposal, changes: dict[str, object], words: str
    ) -> None:
        wrong = replace(proposal, **changes)  # type: ignore[arg-type]
        found = objections(wrong)
        assert any(words in sentence for sentence in found), found
        assert all(sentence.endswith(".") for sentence in found)
        with pytest.raises(NotStarted):
            start(wrong)
        assert not Experiment.objects.exists()
        assert not Clip.objects.exists()

    def test_is_refused_for_versions_that_cannot_take_part(
        self, proposal: Proposal, make_version: Callable[..., Version]
    ) -> None:
        def about(candidate: Version) -> str:
            return " ".join(objections(replace(proposal, candidate=candidate)))

        assert "on both sides" in about(proposal.baseline)
        assert "is draft: put it on trial" in about(make_version("a", state="draft"))
        assert "is retired: put it on trial" in about(make_version("b", state="retired"))
        assert "does not make t2v-silent" in about(make_version("c", categories=["t2v-audio"]))
        imported = make_version("d", backend="imported")
        assert f"lacks {PAIRS} of {PAIRS}" in about(imported)
        stock(imported, proposal.prompt_set)
        assert about(imported) == ""
        too_long = make_version("e", min_seconds=2)
        assert f"can't make {PROMPTS} of the {PROMPTS} prompts" in about(too_long)


class TestDrawing:
    def test_each_block_is_judged_twice_with_sides_swapped_by_two_voters(
        self, running: Experiment, panel: Panel
    ) -> None:
        members = [sit_down(seat) for seat in panel.seats.all()[:4]]
        for client in members:
            for _ in range(PAIRS):
                assert judge(client) is not None
            assert judge(client) is None  # of each clip pair once
        assert running.votes.count() == 4 * PAIRS
        for block in running.blocks.filter(battles__isnull=False).distinct():
            first, second = block.battles.all()
            assert first.voter != second.voter
            assert first.left_id == second.right_id
            assert first.right_id == second.left_id
        judged = Counter(b.block.position for b in Battle.objects.all() if b.block)
        assert sorted(judged) == list(range(2 * PAIRS))  # in order, two rounds
        assert set(judged.values()) == {2}
        assert not running.halves.filter(voted=True, block__position__gte=2 * PAIRS).exists()

    def test_both_sides_come_first(self, running: Experiment) -> None:
        firsts = running.halves.filter(rank__in=range(0, 60, 2)).values_list("candidate_left")
        assert 5 < sum(left for (left,) in firsts) < 25

    def test_a_block_with_one_vote_comes_before_new_ones(
        self, running: Experiment, panel: Panel
    ) -> None:
        one, two = (sit_down(seat) for seat in panel.seats.all()[:2])
        voted = judge(one)
        held = battle_on(one, "/vote/panel/")
        assert voted is not None
        assert held is not None
        other = judge(two)
        assert other is not None
        assert other.block == voted.block

    def test_a_skipped_or_expired_half_is_free_again(
        self, running: Experiment, panel: Panel
    ) -> None:
        one, two, three = (sit_down(seat) for seat in panel.seats.all()[:3])
        skipped = battle_on(one, "/vote/panel/")
        assert skipped is not None
        one.post(skipped["skip_url"], **JSON)
        first = Battle.objects.get(pk=skipped["id"])
        again = judge(two)
        assert again is not None
        assert (again.block, again.left) == (first.block, first.left)
        battle_on(three, "/vote/panel/")
        past = timezone.now() - timedelta(seconds=1)
        late = Battle.objects.get(voter__seat__isnull=False, vote=None, skip=None)
        Battle.objects.filter(pk=late.pk).update(expires_at=past)
        Half.objects.filter(held_until__isnull=False).update(held_until=past)
        afresh = judge(sit_down(panel.seats.all()[3]))
        assert afresh is not None
        assert (afresh.block, afresh.left) == (late.block, late.left)

    def test_an_excluded_vote_is_asked_for_again(self, running: Experiment, panel: Panel) -> None:
        one, two, three = (sit_down(seat) for seat in panel.seats.all()[:3])
        first, second = judge(one), judge(two)
        assert first is not None
        assert second is not None
        assert first.block == second.block
        assert settle_excluded() == 0
        Exclusion.objects.create(action="exclude", voter=first.voter, reason="clicks at random")
        assert settle_excluded() == 2
        assert battle_on(one, "/vote/panel/") is None  # who does not count holds nothing
        again = judge(three)
        assert again is not None
        assert (again.block, again.left) == (first.block, first.left)
        Exclusion.objects.create(action="include", voter=first.voter, reason="a mistake")
        settle_excluded()
        assert running.halves.filter(voted=True).count() == 2
        assert battle_on(one, "/vote/panel/") is not None

    def test_exclusions_made_while_no_worker_was_there_are_found_too(
        self, running: Experiment, panel: Panel
    ) -> None:
        first = judge(sit_down(panel.seats.all()[0]))
        assert first is not None
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO arena_exclusion (action, voter_id, reason, made_at) "
                "VALUES ('exclude', %s, 'clicks at random', now() - interval '1 hour')",
                [first.voter_id],
            )
        assert free_excluded_halves() == 0
        assert free_excluded_halves(recent=False) == 2
        with CaptureQueriesContext(connection) as queries:
            assert free_excluded_halves(recent=False) == 0
        assert "FOR UPDATE" not in str(queries.captured_queries)  # nobody is kept from a half

    def test_pairs_wait_for_both_clips_and_their_files(
        self, proposal: Proposal, panel: Panel, only_halves: None
    ) -> None:
        stock(proposal.baseline, proposal.prompt_set)
        experiment = start(proposal)
        client = sit_down(panel.seats.all()[0])
        assert battle_on(client, "/vote/panel/") is None
        third = experiment.blocks.all()[2].candidate_clip
        name = default_storage.save("third.mp4", default_storage.open("stock/" + _a_file()))
        Clip.objects.filter(pk=third.pk).update(
            state=ClipState.READY, master=name, rendition=name, poster=name,
            rendition_sha256="1" * 64, profile=PROFILE.number,
        )  # fmt: skip
        battle = judge(client)
        assert battle is not None
        assert battle.block is not None
        assert battle.block.position == 2
        assert judge(client) is None
        default_storage.delete(name)
        assert battle_on(sit_down(panel.seats.all()[1]), "/vote/panel/") is None

    def test_a_cancelled_experiment_asks_nobody(self, running: Experiment, panel: Panel) -> None:
        cancel(running)
        assert battle_on(sit_down(panel.seats.all()[0]), "/vote/panel/") is None

    def test_a_panels_experiments_advance_together(
        self, running: Experiment, proposal: Proposal, panel: Panel
    ) -> None:
        other = start(replace(proposal, name="Second", margin=50))
        for seat in panel.seats.all()[:3]:
            client = sit_down(seat)
            for _ in range(3):
                judge(client)
        counts = Counter(Vote.objects.values_list("experiment_id", flat=True))
        assert min(counts[running.pk], counts[other.pk]) >= 3

    def test_simulated_voters_use_up_nothing_where_they_do_not_count(
        self, running: Experiment, panel: Panel, make_voter: Callable, settings
    ) -> None:
        client, voter = make_voter(simulated=True)
        seat = panel.seats.all()[0]
        client.get(f"/panel/{seat.token}/")
        assert battle_on(client, "/vote/panel/") is None
        settings.COUNT_SIMULATED_VOTES = True
        assert judge(client) is not None
        assert Vote.objects.get().simulated
        assert Vote.objects.get().voter == voter


def _a_file() -> str:
    return default_storage.listdir("stock")[1][0]


class TestThePublicStream:
    @pytest.fixture
    def shared(self, proposal: Proposal, only_halves: None) -> Experiment:
        """The public gets every pair; the arena itself has two other versions."""
        for version in proposal.versions:
            stock(version, proposal.prompt_set)
        return start(replace(proposal, panels=(), public_share=1.0))

    def test_gets_its_share_and_goes_on_with_the_arena(
        self, shared: Experiment, make_version: Callable, make_voter: Callable
    ) -> None:
        stock(make_version("other"), shared.prompt_set)
        client, _ = make_voter()
        kinds = [judge(client, path="/vote/t2v-silent/") for _ in range(2 * PAIRS)]
        assert [battle.kind for battle in kinds if battle] == (
            PAIRS * [Kind.EXPERIMENT] + PAIRS * [Kind.ARENA]
        )
        trial = {b.left.version.slug for b in kinds[PAIRS:] if b} | {
            b.right.version.slug for b in kinds[PAIRS:] if b
        }
        assert trial == {"colt-1", "other"}  # what is on trial stays out of the arena
        assert judge(client, path="/vote/") is None
        assert Vote.objects.filter(kind="experiment", experiment=shared).count() == PAIRS
        assert Vote.objects.filter(kind="arena", experiment=None).count() == PAIRS

    def test_gives_a_share_only(
        self, proposal: Proposal, make_version: Callable, make_voter: Callable, only_halves: None
    ) -> None:
        for version in (*proposal.versions, make_version("other")):
            stock(version, proposal.prompt_set)
        start(replace(proposal, panels=(), public_share=0.5))
        for _ in range(24):
            battle_on(make_voter()[0])
        taken = Battle.objects.filter(kind=Kind.EXPERIMENT)
        assert 3 <= taken.count() <= 21  # 12 are expected; beyond this once in 50,000 runs
        assert {battle.draw_probability for battle in taken} == {0.5}

    def test_tells_nothing_before_the_vote_and_no_name_after_it(
        self, shared: Experiment, make_voter: Callable
    ) -> None:
        client, _ = make_voter()
        page = client.get("/vote/").text
        shown = battle_on(client)
        assert shown is not None
        assert not {"kind", "experiment", "block"} & set(shown)
        answer = client.post(shown["vote_url"], {"choice": "left"}, **JSON)
        assert answer.json() == {"choice": "left", "my_votes": 1}
        after = client.get(f"/battles/{shown['id']}/").text
        assert "stay hidden" in after
        for text in (page, answer.text, after):
            assert "colt" not in text.lower()

    def test_shows_its_pairs_once_to_a_voter_of_both_streams(
        self, shared: Experiment, panel: Panel
    ) -> None:
        shared.panels.add(panel)
        client = sit_down(panel.seats.all()[0])
        for _ in range(PAIRS // 2):
            judge(client)
            judge(client, path="/vote/")
        assert judge(client) is judge(client, path="/vote/") is None
        assert Vote.objects.count() == PAIRS


class TestMuted:
    def test_blocks_are_shown_without_sound(
        self, versions: tuple[Version, Version], quartet: PromptSet, panel: Panel, only_halves: None
    ) -> None:
        for version in versions:
            stock(version, quartet, "t2v-audio")
        proposal = propose(*versions, quartet, panel, category="t2v-audio", muted_share=0.5)
        experiment = start(proposal)
        assert 5 < experiment.blocks.filter(muted=True).count() < 25
        client = sit_down(panel.seats.all()[0])
        seen = set()
        for _ in range(PAIRS):
            shown = battle_on(client, "/vote/panel/")
            battle = judge(client)
            assert shown is not None
            assert battle is not None
            assert battle.block is not None
            assert shown["audio"] is not battle.block.muted
            assert shown["muted"] is battle.block.muted
            seen.add(battle.block.muted)
        first = experiment.blocks.filter(position__lt=PAIRS)
        assert seen == set(first.values_list("muted", flat=True))


def obstacles_of(experiment: Experiment) -> list[str]:
    out = io.StringIO()
    call_command("experiment", "show", str(experiment.pk), stdout=out)
    found: list[str] = json.loads(out.getvalue())["obstacles"]
    return found


class TestWhatKeepsItFromGoingOn:
    def test_clips_that_failed_are_told_until_they_are_there(self, running: Experiment) -> None:
        assert obstacles_of(running) == []
        failed = running.candidate.clips.order_by("pk")[:2]
        Clip.objects.filter(pk__in=failed.values("pk")).update(
            state=ClipState.FAILED, error="noise"
        )
        (sentence,) = obstacles_of(running)
        assert sentence.startswith("2 clips of colt-2 failed")
        Clip.objects.update(state=ClipState.READY)
        assert obstacles_of(running) == []

    def test_clips_of_pairs_that_are_judged_may_be_gone(self, running: Experiment) -> None:
        judged = running.blocks.first()
        assert judged is not None
        running.halves.filter(block__candidate_clip=judged.candidate_clip).update(voted=True)
        Clip.objects.filter(pk=judged.candidate_clip_id).update(
            state=ClipState.FAILED, error="noise"
        )
        assert obstacles_of(running) == []

    def test_a_panel_that_has_met_all_pairs(self, running: Experiment, panel: Panel) -> None:
        seats = list(panel.seats.all())
        clients = [sit_down(seat) for seat in seats]
        for client in clients[1:]:
            while judge(client):
                pass
        Panel.objects.update(quota=1)  # the seat that is left has not voted yet
        assert obstacles_of(running) == []
        assert judge(clients[0])
        (sentence,) = obstacles_of(running)
        assert sentence.startswith("Every seat of its panels")
        Panel.objects.update(quota=2)
        assert obstacles_of(running) == []
        Exclusion.objects.create(action="exclude", voter=Seat.objects.get(pk=seats[0].pk).voter)
        assert len(obstacles_of(running)) == 1
        make_seats(panel, 1)
        assert obstacles_of(running) == []
        panel.seats.latest("pk").delete()
        assert len(obstacles_of(running)) == 1
        cancel(running)
        assert obstacles_of(running) == []

    def test_a_panel_too_small_for_a_verdict(self, running: Experiment, panel: Panel) -> None:
        three = panel.seats.order_by("pk")[:3].values("pk")
        panel.seats.filter(pk__in=three).update(revoked=True)
        assert obstacles_of(running) == [
            "Its panels have 3 seats, and a verdict takes 4 voters: add seats."
        ]

    def test_a_voter_at_a_pair_or_the_public_is_enough(
        self, proposal: Proposal, running: Experiment, panel: Panel
    ) -> None:
        Panel.objects.update(quota=1)
        client, *others = [sit_down(seat) for seat in panel.seats.all()]
        for other in others:
            judge(other)
        assert battle_on(client, "/vote/panel/")
        Panel.objects.update(quota=0)
        assert obstacles_of(running) == []
        Half.objects.update(held_until=None)
        assert len(obstacles_of(running)) == 1
        assert obstacles_of(start(replace(proposal, public_share=0.5))) == []


def test_another_panel_is_another_experiment(
    proposal: Proposal, running: Experiment, panel: Panel
) -> None:
    assert same_design(proposal) == running
    more = replace(proposal, panels=(panel, make_panel("critics", seats=2)))
    assert same_design(more) is None
    both = start(more)
    assert same_design(more) == both
    assert same_design(proposal) == running


def test_what_a_draw_costs_does_not_grow_with_the_votes(running: Experiment, panel: Panel) -> None:
    counts = set()
    for seat, voted in zip(panel.seats.all(), (0, 20, 40), strict=False):
        Half.objects.filter(rank__lt=voted).update(voted=True)
        client = sit_down(seat)
        with CaptureQueriesContext(connection) as queries:
            assert battle_on(client, "/vote/panel/") is not None
        counts.add(len(queries))
    assert len(counts) == 1, counts


@pytest.mark.django_db(transaction=True)
def test_voters_who_draw_at_once_get_different_halves(running: Experiment, panel: Panel) -> None:
    clients = [sit_down(seat) for seat in panel.seats.all()]
    start_line = threading.Barrier(len(clients))

    def draw(client: Client) -> None:
        start_line.wait()
        try:
            judge(client)
            judge(client)
        finally:
            connection.close()

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(draw, clients))
    battles = Battle.objects.filter(kind=Kind.EXPERIMENT)
    assert battles.count() == 12
    assert battles.values("block", "left").distinct().count() == 12
    assert running.halves.filter(voted=True).count() == 12
    assert ExperimentState(running.state) == ExperimentState.RUNNING
