"""An experiment is started and judged: who is shown what, and what is kept of it."""

import io
import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from arena.experiments.panels import add_members
from arena.experiments.proposal import (
    NotStarted,
    Proposal,
    ProposalInput,
    clips_missing,
    objections,
    read_input,
    resolve,
)
from arena.experiments.slots import reconcile_excluded
from arena.experiments.start import cancel_experiment, same_design, start
from arena.models import (
    Battle,
    BattleKind,
    Block,
    Exclusion,
    Experiment,
    ExperimentState,
    Member,
    Panel,
    Vote,
    VoteSlot,
)
from arena.tasks import free_all_excluded_slots, free_excluded_slots, look_at_experiments
from generation.media.profile import PROFILE
from generation.models import (
    EXPERIMENT_PRIORITY,
    Clip,
    ClipState,
    PromptSet,
    Version,
    VersionState,
)
from generation.rendering.claims import claim_clip
from tests.arena.voting.test_vote import JSON, battle_on, battle_shown
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

pytestmark = pytest.mark.django_db
PAIRS = PROMPTS * SLOTS


@pytest.fixture
def no_checks(settings) -> None:
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
    return make_panel(members=6)


@pytest.fixture
def proposal(versions: tuple[Version, Version], quartet: PromptSet, panel: Panel) -> Proposal:
    return propose(*versions, quartet, panel)


@pytest.fixture
def running(proposal: Proposal, no_checks: None) -> Experiment:
    """All clips are there, and nothing but vote slots is shown."""
    for version in proposal.versions:
        stock(version, proposal.prompt_set)
    return start(proposal)


def changed(proposal: Proposal, **changes: object) -> Proposal:
    return Proposal(**{**dict(proposal), **changes})


def fields_of(proposal: Proposal) -> dict[str, object]:
    """What somebody sends to propose the same."""
    slugs = {name: getattr(proposal, name).slug for name in ("candidate", "baseline", "prompt_set")}
    panels = [panel.slug for panel in proposal.panels]
    fields = proposal.model_dump(include=set(ProposalInput.model_fields) - {"panels", *slugs})
    return {**fields, **slugs, "panels": panels}


class TestStarting:
    def test_queues_the_missing_clips_in_the_order_of_the_blocks(self, proposal: Proposal) -> None:
        stock(proposal.baseline, proposal.prompt_set)
        assert objections(proposal) == []
        assert clips_missing(proposal) == {"colt-2": PAIRS, "colt-1": 0}
        experiment = start(proposal)
        waiting = Clip.objects.filter(state=ClipState.WAITING)
        assert {clip.version.slug for clip in waiting} == {"colt-2"}
        order = [b.candidate_clip_id for b in experiment.blocks.all()[:PAIRS]]
        assert [clip.pk for clip in waiting.order_by("position")] == order
        assert {clip.priority for clip in waiting} == {EXPERIMENT_PRIORITY}
        assert experiment.blocks.count() == 30
        assert experiment.vote_slots.filter(voted=False).count() == 60
        rounds = [b.candidate_clip_id for b in experiment.blocks.all()[PAIRS : 2 * PAIRS]]
        assert rounds == order
        first = claim_clip("a worker")  # what is on trial is rendered
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
        again = start(changed(proposal, name="Another order"))
        first = again.blocks.first()
        assert first is not None
        assert first.candidate_clip.position == first.baseline_clip.position == 0

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
        assert same_design(changed(proposal, name="By another name")) == running
        assert same_design(changed(proposal, margin=10)) is None
        assert same_design(changed(proposal, panels=(make_panel("others"),))) is None
        assert cancel_experiment(running)
        assert not cancel_experiment(running)
        assert same_design(proposal) is None

    @pytest.mark.parametrize(
        ("changes", "field", "code", "words"),
        [
            ({"margin": 0.0}, "margin", "out_of_range", "margin is 0"),
            ({"margin": 1e-6}, "margin", "out_of_range", "margin is 1e-06"),
            ({"margin": 4.9}, "margin", "out_of_range", "from 5 to 400"),
            ({"margin": 401.0}, "margin", "out_of_range", "from 5 to 400"),
            ({"margin": float("nan")}, "margin", "out_of_range", "margin is nan"),
            ({"alpha": 0.5}, "alpha", "out_of_range", "Alpha is 0.5"),
            ({"beta": 0.0}, "beta", "out_of_range", "Beta is 0"),
            ({"max_votes": 61}, "max_votes", "out_of_range", "even number"),
            ({"max_votes": 20}, "max_votes", "out_of_range", "even number"),
            ({"seed_slots": 0}, "seed_slots", "out_of_range", "Clip pairs per prompt is 0"),
            ({"seed_slots": 3}, "seed_slots", "too_many_seeds", "1 to 1"),
            ({"public_share": 1.5}, "public_share", "out_of_range", "public share is 1.5"),
            ({"muted_share": -0.1}, "muted_share", "out_of_range", "muted share is -0.1"),
            ({"muted_share": 0.5}, "muted_share", "silent_category", "no sound to mute"),
            (
                {"panels": (), "public_share": 0},
                "public_share",
                "nobody_votes",
                "Nobody can vote",
            ),
            (
                {"webhook": "ftp://example.org/"},
                "webhook",
                "not_an_address",
                "begins with https://",
            ),
            ({"webhook": "http:///nowhere"}, "webhook", "not_an_address", "begins with https://"),
            ({"category": "t2v-smell"}, "category", "enum", "'t2v-silent', 't2v-audio'"),
            (
                {"category": "i2v-silent"},
                "prompt_set",
                "too_few_prompts",
                "no prompt for i2v-silent. A verdict needs 4 or more",
            ),
            ({"name": "x" * 121}, "name", "out_of_range", "needs a name"),
            ({"candidate": "colt-9"}, "candidate", "unknown", "no version “colt-9”"),
        ],
    )
    def test_is_refused_in_a_sentence_about_its_field(
        self, proposal: Proposal, changes: dict[str, object], field: str, code: str, words: str
    ) -> None:
        with pytest.raises(NotStarted) as refused:
            start(resolve(read_input(ProposalInput, fields_of(proposal) | changes)))
        found = refused.value.objections
        assert any((o.field, o.code) == (field, code) and words in o.sentence for o in found), found
        assert all(each.sentence.endswith(".") for each in refused.value.objections)
        assert not Experiment.objects.exists()
        assert not Clip.objects.exists()

    def test_is_refused_for_versions_that_cannot_take_part(
        self, proposal: Proposal, make_version: Callable[..., Version]
    ) -> None:
        def about(candidate: Version) -> str:
            return " ".join(
                objection.sentence
                for objection in objections(changed(proposal, candidate=candidate))
            )

        assert "on both sides" in about(proposal.baseline)
        assert "is draft. Put it on trial" in about(make_version("a", state="draft"))
        assert "is retired. Put it on trial" in about(make_version("b", state="retired"))
        assert "does not make t2v-silent" in about(make_version("c", categories=["t2v-audio"]))
        imported = make_version("d", backend="imported")
        assert f"lacks {PAIRS} of {PAIRS}" in about(imported)
        stock(imported, proposal.prompt_set)
        assert about(imported) == ""
        too_long = make_version("e", min_seconds=2)
        assert f"can't make {PROMPTS} of the {PROMPTS} prompts" in about(too_long)


class TestDrawing:
    @pytest.mark.slow
    def test_each_block_is_judged_twice_with_sides_swapped_by_two_voters(
        self, running: Experiment, panel: Panel
    ) -> None:
        members = [sit_down(member) for member in panel.members.all()[:4]]
        for client in members:
            for _ in range(PAIRS):
                assert judge(client) is not None
            assert judge(client) is None  # of each clip pair once
        assert running.votes.count() == 4 * PAIRS
        for block in running.blocks.filter(battles__isnull=False).distinct():
            first, second = block.battles.all()
            assert first.voter != second.voter
            assert first.clip_a_id == second.clip_b_id
            assert first.clip_b_id == second.clip_a_id
        judged = Counter(b.block.position for b in Battle.objects.all() if b.block)
        assert sorted(judged) == list(range(2 * PAIRS))  # in order, two rounds
        assert set(judged.values()) == {2}
        assert not running.vote_slots.filter(voted=True, block__position__gte=2 * PAIRS).exists()

    def test_both_sides_come_first(self, running: Experiment) -> None:
        firsts = running.vote_slots.filter(rank__in=range(0, 60, 2)).values_list("candidate_is_a")
        assert 5 < sum(left for (left,) in firsts) < 25

    def test_a_block_with_one_vote_comes_before_new_ones(
        self, running: Experiment, panel: Panel
    ) -> None:
        one, two = (sit_down(member) for member in panel.members.all()[:2])
        voted = judge(one)
        held = battle_on(one, "/vote/panel/")
        assert voted is not None
        assert held is not None
        other = judge(two)
        assert other is not None
        assert other.block == voted.block

    def test_a_skipped_or_expired_vote_slot_is_free_again(
        self, running: Experiment, panel: Panel
    ) -> None:
        one = sit_down(panel.members.all()[0])
        skipped = battle_on(one, "/vote/panel/")
        assert skipped is not None
        one.post(skipped["skip_url"], **JSON)
        first = Battle.objects.get(pk=skipped["id"])
        again = judge(sit_down(panel.members.all()[1]))
        assert again is not None
        assert (again.block, again.clip_a) == (first.block, first.clip_a)
        sit_down(panel.members.all()[2])
        past = timezone.now() - timedelta(seconds=1)
        late = Battle.objects.get(voter__member__isnull=False, vote=None, skip=None)
        Battle.objects.filter(pk=late.pk).update(expires_at=past)
        VoteSlot.objects.filter(held_until__isnull=False).update(held_until=past)
        afresh = judge(sit_down(panel.members.all()[3]))
        assert afresh is not None
        assert (afresh.block, afresh.clip_a) == (late.block, late.clip_a)

    def test_an_excluded_vote_is_asked_for_again(self, running: Experiment, panel: Panel) -> None:
        members = panel.members.all()
        one = sit_down(members[0])
        first, second = judge(one), judge(sit_down(members[1]))
        assert first is not None
        assert second is not None
        assert first.block == second.block
        assert reconcile_excluded() == 0
        Exclusion.objects.create(action="exclude", voter=first.voter, reason="clicks at random")
        assert reconcile_excluded() == 2
        assert battle_on(one, "/vote/panel/") is None  # who does not count holds nothing
        again = judge(sit_down(members[2]))
        assert again is not None
        assert (again.block, again.clip_a) == (first.block, first.clip_a)
        Exclusion.objects.create(action="include", voter=first.voter, reason="a mistake")
        reconcile_excluded()
        assert running.vote_slots.filter(voted=True).count() == 2
        assert battle_on(one, "/vote/panel/") is not None

    def test_exclusions_made_while_no_worker_was_there_are_found_too(
        self, running: Experiment, panel: Panel
    ) -> None:
        first = judge(sit_down(panel.members.all()[0]))
        assert first is not None
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO arena_exclusion (action, voter_id, reason, made_at) "
                "VALUES ('exclude', %s, 'clicks at random', now() - interval '1 hour')",
                [first.voter_id],
            )
        assert free_excluded_slots() == 0
        assert free_all_excluded_slots() == 2
        with CaptureQueriesContext(connection) as queries:
            assert free_all_excluded_slots() == 0
        assert "FOR UPDATE" not in str(queries.captured_queries)  # nobody is kept from a vote slot

    def test_pairs_wait_for_both_clips(
        self, proposal: Proposal, panel: Panel, no_checks: None
    ) -> None:
        stock(proposal.baseline, proposal.prompt_set)
        experiment = start(proposal)
        client = sit_down(panel.members.all()[0])
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
        Clip.objects.filter(pk=third.pk).update(state=ClipState.FAILED, error="It is gone.")
        assert battle_on(sit_down(panel.members.all()[1]), "/vote/panel/") is None

    def test_a_cancelled_experiment_asks_nobody(self, running: Experiment, panel: Panel) -> None:
        cancel_experiment(running)
        assert battle_on(sit_down(panel.members.all()[0]), "/vote/panel/") is None

    def test_a_panels_experiments_advance_together(
        self, running: Experiment, proposal: Proposal, panel: Panel
    ) -> None:
        other = start(changed(proposal, name="Second", margin=50))
        for member in panel.members.all()[:3]:
            client = sit_down(member)
            for _ in range(3):
                judge(client)
        counts = Counter(Vote.objects.values_list("experiment_id", flat=True))
        assert min(counts[running.pk], counts[other.pk]) >= 3

    def test_simulated_voters_use_up_nothing_where_they_do_not_count(
        self, running: Experiment, panel: Panel, make_voter: Callable, settings
    ) -> None:
        client, voter = make_voter(simulated=True)
        member = panel.members.all()[0]
        Member.objects.filter(pk=member.pk).update(voter=voter)
        assert battle_on(client, "/vote/panel/") is None
        settings.COUNT_SIMULATED_VOTES = True
        assert judge(client) is not None
        assert Vote.objects.get().simulated
        assert Vote.objects.get().voter == voter


def held_for(battle: str) -> float:
    """Seconds for which this battle's vote slot is held."""
    slot = VoteSlot.objects.get(held_by=battle)
    assert slot.held_until is not None
    return (slot.held_until - timezone.now()).total_seconds()


def hear_nothing_of(battle: str) -> None:
    """For two minutes, so that its vote slot is held no more."""
    VoteSlot.objects.filter(held_by=battle).update(held_until=timezone.now() - timedelta(seconds=1))


class TestHolding:
    """A slot is kept for who watches, and given away when nobody does."""

    @pytest.fixture
    def pair(self, running: Experiment, panel: Panel) -> tuple[Client, dict]:
        """A member, and the pair on the screen."""
        client = sit_down(panel.members.all()[0])
        shown = battle_on(client, "/vote/panel/")
        assert shown is not None
        return client, shown

    def test_lasts_two_minutes_from_the_draw_and_from_the_fetch_of_a_clip(
        self, pair: tuple[Client, dict], make_voter: Callable
    ) -> None:
        client, shown = pair
        assert 100 < held_for(shown["id"]) <= 120
        almost_over = timezone.now() + timedelta(seconds=5)
        VoteSlot.objects.filter(held_by=shown["id"]).update(held_until=almost_over)
        client.head(shown["a"]["video"])
        client.get(shown["a"]["poster"])
        client.get("/vote/panel/")
        make_voter()[0].get(shown["a"]["video"])
        assert held_for(shown["id"]) <= 5
        assert client.get(shown["b"]["video"]).status_code == 200
        assert 100 < held_for(shown["id"]) <= 120

    def test_goes_on_while_the_page_plays_but_no_longer_than_the_battle(
        self, pair: tuple[Client, dict], panel: Panel
    ) -> None:
        client, shown = pair
        ahead = client.post("/vote/panel/next/", {"have": [shown["id"]]}, **JSON).json()["battle"]
        stranger = battle_on(sit_down(panel.members.all()[1]), "/vote/panel/")
        assert stranger is not None
        both = [shown["id"], ahead["id"]]
        for battle in (*both, stranger["id"]):
            hear_nothing_of(battle)
        sent = {"have": [*both, stranger["id"], "nonsense"]}
        kept = client.post("/vote/panel/keep/", sent, **JSON).json()
        assert kept == {"open": both}
        assert all(100 < held_for(battle) <= 120 for battle in both)
        assert held_for(stranger["id"]) < 0
        soon = timezone.now() + timedelta(seconds=30)
        Battle.objects.filter(pk=shown["id"]).update(expires_at=soon)
        client.post("/vote/panel/keep/", sent, **JSON)
        assert held_for(shown["id"]) <= 30
        Battle.objects.filter(pk=shown["id"]).update(expires_at=timezone.now())
        assert client.post("/vote/panel/keep/", sent, **JSON).json() == {"open": [ahead["id"]]}

    def test_given_away_the_late_vote_is_refused_and_nothing_counts_twice(
        self, running: Experiment, pair: tuple[Client, dict], panel: Panel
    ) -> None:
        client, shown = pair
        hear_nothing_of(shown["id"])
        other = sit_down(panel.members.all()[1])
        taken = battle_on(other, "/vote/panel/")
        assert taken is not None
        first, second = Battle.objects.get(pk=shown["id"]), Battle.objects.get(pk=taken["id"])
        assert (first.block, first.clip_a) == (second.block, second.clip_a)
        kept = client.post("/vote/panel/keep/", {"have": [shown["id"]]}, **JSON).json()
        assert kept == {"open": []}
        client.get(shown["a"]["video"])  # too late
        late = client.post(shown["vote_url"], {"choice": "a"}, **JSON)
        assert late.status_code == 410
        assert "Start with a new one" in late.json()["error"]
        client.post(shown["skip_url"], **JSON)  # frees nothing of the other's
        assert held_for(taken["id"]) > 100
        assert other.post(taken["vote_url"], {"choice": "b"}, **JSON).status_code == 200
        assert running.vote_slots.filter(voted=True).count() == 1
        assert running.votes.count() == 1
        following = battle_on(client, "/vote/panel/")
        assert following is not None
        assert following["id"] != shown["id"]

    def test_that_ran_out_is_no_loss_as_long_as_nobody_else_was_given_it(
        self, running: Experiment, pair: tuple[Client, dict]
    ) -> None:
        client, shown = pair
        hear_nothing_of(shown["id"])
        assert battle_shown(client.get("/vote/panel/")) == shown
        assert client.post(shown["vote_url"], {"choice": "a"}, **JSON).status_code == 200
        voted = running.vote_slots.get(voted=True)
        assert (voted.held_until, voted.held_by) == (None, None)

    def test_keeps_the_last_pairs_from_a_member_who_is_told_so(
        self, running: Experiment, panel: Panel
    ) -> None:
        one, two = (panel.members.all()[number] for number in range(2))
        last = running.vote_slots.order_by("rank").first()
        assert last is not None
        running.vote_slots.exclude(pk=last.pk).update(voted=True)
        shown, waiting = battle_on(sit_down(one), "/vote/panel/"), sit_down(two)
        assert shown is not None
        said = waiting.post("/vote/panel/next/", **JSON).json()
        assert said["battle"] is None
        assert said["reason"].startswith("Others are judging the last pairs")
        assert said["again"] is True
        page = waiting.post("/vote/panel/next/").text
        assert "Others are judging the last pairs" in page
        assert "judged every pair" not in page
        hear_nothing_of(shown["id"])
        taken = battle_on(waiting, "/vote/panel/")
        assert taken is not None
        assert waiting.post(taken["vote_url"], {"choice": "a"}, **JSON).status_code == 200
        done = waiting.post("/vote/panel/next/", **JSON).json()
        assert done["reason"].startswith("You have judged every pair available")

    @pytest.mark.slow
    def test_by_the_public_leaves_the_panel_its_part(
        self,
        proposal: Proposal,
        panel: Panel,
        no_checks: None,
        make_voter: Callable,
    ) -> None:
        for version in proposal.versions:
            stock(version, proposal.prompt_set)
        for share, most in ((0.1, 6), (1.0, 30)):
            experiment = start(changed(proposal, name=f"{share}", public_share=share))
            drawn = [battle_on(make_voter()[0], "/vote/t2v-silent/") for _ in range(most + 30)]
            held = experiment.vote_slots.filter(held_until__gt=timezone.now())
            assert held.count() == most
            assert len([battle for battle in drawn if battle]) == most
            members = [sit_down(member) for member in panel.members.all()]
            assert all(judge(client) for client in members)
            cancel_experiment(experiment)
            Battle.objects.filter(vote=None).update(expires_at=timezone.now())


@pytest.mark.django_db(transaction=True)
def test_a_vote_that_is_being_stored_keeps_its_slot(running: Experiment, panel: Panel) -> None:
    client = sit_down(panel.members.all()[0])
    shown = battle_on(client, "/vote/panel/")
    assert shown is not None
    hear_nothing_of(shown["id"])
    stored, locked = threading.Event(), threading.Event()

    def vote_slowly() -> None:
        with transaction.atomic():
            list(Battle.objects.select_for_update(of=("self",)).filter(pk=shown["id"]))
            locked.set()
            stored.wait(timeout=30)
            assert client.post(shown["vote_url"], {"choice": "a"}, **JSON).status_code == 200
        connection.close()

    with ThreadPoolExecutor(1) as pool:
        voting = pool.submit(vote_slowly)
        assert locked.wait(timeout=30)
        other = battle_on(sit_down(panel.members.all()[1]), "/vote/panel/")
        stored.set()
        voting.result(timeout=30)
    assert other is not None
    mine, theirs = Battle.objects.get(pk=shown["id"]), Battle.objects.get(pk=other["id"])
    assert (mine.block_id, mine.clip_a_id) != (theirs.block_id, theirs.clip_a_id)
    assert running.vote_slots.get(voted=True).block_id == mine.block_id


def _a_file() -> str:
    return default_storage.listdir("stock")[1][0]


class TestThePublicStream:
    @pytest.fixture
    def shared(self, proposal: Proposal, no_checks: None) -> Experiment:
        """The public gets every pair; the arena itself has two other versions."""
        for version in proposal.versions:
            stock(version, proposal.prompt_set)
        return start(changed(proposal, panels=(), public_share=1.0))

    def test_gets_its_share_and_goes_on_with_the_arena(
        self, shared: Experiment, make_version: Callable, make_voter: Callable
    ) -> None:
        stock(make_version("other"), shared.prompt_set)
        client, _ = make_voter()
        kinds = [judge(client, path="/vote/t2v-silent/") for _ in range(2 * PAIRS)]
        assert [battle.kind for battle in kinds if battle] == (
            PAIRS * [BattleKind.EXPERIMENT] + PAIRS * [BattleKind.ARENA]
        )
        trial = {b.clip_a.version.slug for b in kinds[PAIRS:] if b} | {
            b.clip_b.version.slug for b in kinds[PAIRS:] if b
        }
        assert trial == {"colt-1", "other"}  # what is on trial stays out of the arena
        assert judge(client, path="/vote/") is None
        assert Vote.objects.filter(kind="experiment", experiment=shared).count() == PAIRS
        assert Vote.objects.filter(kind="arena", experiment=None).count() == PAIRS

    def test_gives_a_share_only(
        self,
        proposal: Proposal,
        make_version: Callable,
        make_voter: Callable,
        no_checks: None,
    ) -> None:
        for version in (*proposal.versions, make_version("other")):
            stock(version, proposal.prompt_set)
        start(changed(proposal, panels=(), public_share=0.5))
        for _ in range(24):
            battle_on(make_voter()[0])
        taken = Battle.objects.filter(kind=BattleKind.EXPERIMENT)
        assert 3 <= taken.count() <= 21  # 12 are expected; beyond this once in 50,000 runs
        assert {battle.draw_probability for battle in taken} == {0.5}

    def test_tells_nothing_before_the_vote_and_no_name_after_it(
        self, shared: Experiment, make_voter: Callable
    ) -> None:
        client, _ = make_voter()
        shown = battle_on(client)
        page = client.get("/vote/").text
        assert shown is not None
        assert not {"kind", "experiment", "block"} & set(shown)
        answer = client.post(shown["vote_url"], {"choice": "a"}, **JSON)
        assert answer.json() == {"choice": "a", "my_votes": 1}
        after = client.get(f"/battles/{shown['id']}/").text
        assert "stay hidden" in after
        for text in (page, answer.text, after):
            assert "colt" not in text.lower()

    def test_shows_its_pairs_once_to_a_voter_of_both_streams(
        self, shared: Experiment, panel: Panel
    ) -> None:
        shared.panels.add(panel)
        client = sit_down(panel.members.all()[0])
        for _ in range(PAIRS // 2):
            judge(client)
            judge(client, path="/vote/")
        assert judge(client) is judge(client, path="/vote/") is None
        assert Vote.objects.count() == PAIRS


class TestMuted:
    def test_blocks_are_shown_without_sound(
        self,
        versions: tuple[Version, Version],
        quartet: PromptSet,
        panel: Panel,
        no_checks: None,
    ) -> None:
        for version in versions:
            stock(version, quartet, "t2v-audio")
        proposal = propose(*versions, quartet, panel, category="t2v-audio", muted_share=0.5)
        experiment = start(proposal)
        assert 5 < experiment.blocks.filter(muted=True).count() < 25
        client = sit_down(panel.members.all()[0])
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
    """Their sentences, once a worker has looked."""
    look_at_experiments()
    out = io.StringIO()
    call_command("experiment", "show", str(experiment.pk), stdout=out)
    return [obstacle["sentence"] for obstacle in json.loads(out.getvalue())["obstacles"]]


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

    def test_clips_that_are_held_are_told_until_somebody_looks(self, running: Experiment) -> None:
        held = running.baseline.clips.order_by("pk")[:1]
        Clip.objects.filter(pk__in=held.values("pk")).update(
            state=ClipState.HELD, held_because="its picture is black"
        )
        (sentence,) = obstacles_of(running)
        assert sentence == (
            f"1 clip of {running.baseline.slug} is held, so their pairs can't be shown. Look at "
            "the held clips in admin, then show them to voters or refuse them."
        )
        Clip.objects.update(state=ClipState.READY)
        assert obstacles_of(running) == []

    def test_clips_of_pairs_that_are_judged_may_be_gone(self, running: Experiment) -> None:
        judged = running.blocks.first()
        assert judged is not None
        running.vote_slots.filter(block__candidate_clip=judged.candidate_clip).update(voted=True)
        Clip.objects.filter(pk=judged.candidate_clip_id).update(
            state=ClipState.FAILED, error="noise"
        )
        assert obstacles_of(running) == []

    @pytest.mark.slow
    def test_a_panel_that_has_met_all_pairs(self, running: Experiment, panel: Panel) -> None:
        members = list(panel.members.all())
        clients = [sit_down(member) for member in members]
        for client in clients[1:]:
            while judge(client):
                pass
        Panel.objects.update(quota=1)  # the member that is left has not voted yet
        assert obstacles_of(running) == []
        assert judge(clients[0])
        (sentence,) = obstacles_of(running)
        assert sentence.startswith("Every member of its panels")
        Panel.objects.update(quota=2)
        assert obstacles_of(running) == []
        Exclusion.objects.create(action="exclude", voter=Member.objects.get(pk=members[0].pk).voter)
        assert len(obstacles_of(running)) == 1
        add_members(panel, 1)
        assert obstacles_of(running) == []
        panel.members.latest("pk").delete()
        assert len(obstacles_of(running)) == 1
        cancel_experiment(running)
        assert obstacles_of(running) == []

    def test_a_panel_too_small_for_a_verdict(self, running: Experiment, panel: Panel) -> None:
        three = panel.members.order_by("pk")[:3].values("pk")
        panel.members.filter(pk__in=three).update(revoked=True)
        assert obstacles_of(running) == [
            "Its panels have 3 members, and a verdict needs 4 voters. Add members."
        ]

    def test_a_voter_at_a_pair_or_the_public_is_enough(
        self, proposal: Proposal, running: Experiment, panel: Panel
    ) -> None:
        Panel.objects.update(quota=1)
        client, *others = [sit_down(member) for member in panel.members.all()]
        for other in others:
            judge(other)
        assert battle_on(client, "/vote/panel/")
        Panel.objects.update(quota=0)
        assert obstacles_of(running) == []
        Battle.objects.update(expires_at=timezone.now())
        assert len(obstacles_of(running)) == 1
        assert obstacles_of(start(changed(proposal, public_share=0.5))) == []


def test_another_panel_is_another_experiment(
    proposal: Proposal, running: Experiment, panel: Panel
) -> None:
    assert same_design(proposal) == running
    more = changed(proposal, panels=(panel, make_panel("critics", members=2)))
    assert same_design(more) is None
    both = start(more)
    assert same_design(more) == both
    assert same_design(proposal) == running


def test_what_a_draw_costs_does_not_grow_with_the_votes(running: Experiment, panel: Panel) -> None:
    counts = set()
    for member, voted in zip(panel.members.all(), (0, 20, 40), strict=False):
        VoteSlot.objects.filter(rank__lt=voted).update(voted=True)
        client = sit_down(member)
        with CaptureQueriesContext(connection) as queries:
            assert battle_on(client, "/vote/panel/") is not None
        counts.add(len(queries))
    assert len(counts) == 1, counts


@pytest.mark.django_db(transaction=True)
def test_voters_who_draw_at_once_judge_different_slots(running: Experiment, panel: Panel) -> None:
    clients = [sit_down(member) for member in panel.members.all()]
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
    battles = Battle.objects.filter(kind=BattleKind.EXPERIMENT)
    assert battles.count() == 12
    assert battles.values("block", "clip_a").distinct().count() == 12
    assert running.vote_slots.filter(voted=True).count() == 12
    assert ExperimentState(running.state) == ExperimentState.RUNNING
