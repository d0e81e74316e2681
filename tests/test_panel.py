"""An invited member opens the link, judges up to the quota and marks what was wrong."""

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from arena.experiments import cancel, start
from arena.models import Defect, Experiment, Panel, Seat, Vote, Voter
from arena.tasks import sweep_visitors
from generation.models import Version, VersionState
from tests.panels import PROMPTS, judge, make_panel, make_prompt_set, propose, sit_down, stock
from tests.test_vote import JSON, battle_on

pytestmark = pytest.mark.django_db


@pytest.fixture
def panel(db) -> Panel:
    return make_panel(quota=2, seats=3)


@pytest.fixture
def running(make_version: Callable[..., Version], panel: Panel, settings) -> Experiment:
    settings.CHECK_SAME = settings.CHECK_REPEAT = settings.CHECK_GOLD = 0
    candidate, baseline = make_version("colt-2", state=VersionState.TRIAL), make_version("colt-1")
    prompt_set = make_prompt_set()
    for version in (candidate, baseline):
        stock(version, prompt_set)
    return start(propose(candidate, baseline, prompt_set, panel))


@pytest.fixture
def seat(panel: Panel) -> Seat:
    seat = panel.seats.first()
    assert seat is not None
    return seat


class TestTheLink:
    def test_says_what_is_asked_and_takes_the_seat(self, seat: Seat, running: Experiment) -> None:
        Panel.objects.update(instructions="Look at the hands.\n\nTake your time.")
        client = Client()
        page = client.get(f"/panel/{seat.token}/").text
        assert "Look at the hands." in page
        assert 'href="/vote/panel/"' in page
        seat.refresh_from_db()
        assert seat.voter == Voter.objects.get()

    def test_is_the_same_voter_on_another_device(self, seat: Seat, running: Experiment) -> None:
        phone, laptop = sit_down(seat), sit_down(seat)
        assert judge(phone) is not None
        assert judge(laptop) is not None
        assert Voter.objects.count() == 1
        assert {vote.voter for vote in Vote.objects.all()} == {seat.voter}

    def test_keeps_who_had_voted_before(self, seat: Seat, make_voter: Callable) -> None:
        client, voter = make_voter()
        client.get(f"/panel/{seat.token}/")
        seat.refresh_from_db()
        assert seat.voter == voter

    def test_makes_a_second_seat_another_voter(self, panel: Panel) -> None:
        client = Client()
        for seat in panel.seats.all():
            client.get(f"/panel/{seat.token}/")
        assert len(set(panel.seats.values_list("voter", flat=True))) == 3

    def test_that_is_unknown_or_withdrawn_is_a_sentence(
        self, seat: Seat, running: Experiment
    ) -> None:
        unknown = Client().get("/panel/nobody/")
        assert unknown.status_code == 404
        assert "There is no such invitation" in unknown.text
        assert Client().get("/panel/%00/").status_code == 404
        client = sit_down(seat)
        Seat.objects.update(revoked=True)
        withdrawn = client.get(f"/panel/{seat.token}/")
        assert withdrawn.status_code == 403
        assert "was withdrawn" in withdrawn.text
        assert client.get("/vote/panel/").status_code == 403

    def test_stays_a_voters_who_has_not_voted_yet(self, seat: Seat) -> None:
        sit_down(seat)
        Voter.objects.update(created_at=timezone.now() - timedelta(days=2))
        assert sweep_visitors() == 0


class TestVoting:
    def test_goes_up_to_the_quota(self, seat: Seat, running: Experiment) -> None:
        client = sit_down(seat)
        assert re.search(r"data-given>0</span> of .*>2<", client.get("/vote/panel/").text)
        first = battle_on(client, "/vote/panel/")
        assert first is not None
        ahead = client.post("/vote/panel/next/", {"have": [first["id"]]}, **JSON).json()
        assert ahead["battle"] is not None
        both = {"have": [first["id"], ahead["battle"]["id"]]}
        assert client.post("/vote/panel/next/", both, **JSON).json()["battle"] is None
        answer = client.post(first["vote_url"], {"choice": "left"}, **JSON).json()
        assert answer["panel"] == {"name": "Judges", "given": 1, "quota": 2}
        assert judge(client) is not None
        page = client.get("/vote/panel/").text
        assert "you have given all the votes" in page
        assert judge(client) is None
        assert "Thank you" in client.get(f"/panel/{seat.token}/").text

    def test_ends_with_what_is_true_and_leads_nowhere_else(
        self, seat: Seat, running: Experiment
    ) -> None:
        Panel.objects.update(quota=100)
        client = sit_down(seat)
        for _ in range(PROMPTS):
            assert judge(client) is not None
        page = client.get("/vote/panel/").text
        assert "judged all pairs that there are for you now, fewer than were asked" in page
        assert "Vote on all categories" not in page
        assert 'href="/vote/panel/"' in client.get(f"/panel/{seat.token}/").text
        cancel(running)
        for path in (f"/panel/{seat.token}/", "/vote/panel/"):
            assert "No experiment of this panel is running now" in client.get(path).text
        assert "Go on" not in client.get(f"/panel/{seat.token}/").text
        answer = client.post("/vote/panel/next/", **JSON).json()
        assert answer["reason"].startswith("No experiment of this panel is running now")

    def test_in_public_names_nobody_to_a_member(
        self, seat: Seat, votable: list, make_voter: Callable
    ) -> None:
        member, (anybody, _) = sit_down(seat), make_voter()
        told = []
        for client in (anybody, member):
            shown = battle_on(client)
            assert shown is not None
            with CaptureQueriesContext(connection) as queries:
                answer = client.post(shown["vote_url"], {"choice": "left"}, **JSON)
            told.append((len(queries), answer.text, client.get(f"/battles/{shown['id']}/").text))
        (asked, named, named_page), (asked_of_member, hidden, hidden_page) = told
        assert asked == asked_of_member
        for style in ("Sharp", "Tardy"):
            assert style in named
            assert style in named_page
            assert style not in hidden
            assert style not in hidden_page
        assert "Names stay hidden for this pair" in hidden_page
        Seat.objects.update(revoked=True)
        assert "Sharp" in member.get(f"/battles/{shown['id']}/").text

    def test_is_for_members_alone(
        self, seat: Seat, running: Experiment, make_voter: Callable
    ) -> None:
        for client in (Client(), make_voter()[0]):
            page = client.get("/vote/panel/")
            assert page.status_code == 403
            assert "open the link that you were sent" in page.text
        refused = make_voter()[0].post("/vote/panel/next/", **JSON)
        assert refused.status_code == 403
        assert not seat.voter


class TestDefects:
    def mark(self, client: Client, battle: str, **sent: object):
        data = {"side": "left", "what": "hands", "second": "0.5", **sent}
        return client.post(f"/battles/{battle}/defects/", data, **JSON)

    def test_are_marked_after_the_vote(self, seat: Seat, running: Experiment) -> None:
        client = sit_down(seat)
        shown = battle_on(client, "/vote/panel/")
        assert shown is not None
        early = self.mark(client, shown["id"])
        assert early.status_code == 409
        assert "Vote on this pair first" in early.json()["error"]
        answer = client.post(shown["vote_url"], {"choice": "left"}, **JSON).json()
        assert answer["defects_url"] == f"/battles/{shown['id']}/defects/"
        self.mark(client, shown["id"])
        self.mark(client, shown["id"])  # twice is once
        marked = self.mark(client, shown["id"], side="right", what="flicker", second="").json()
        assert marked["defects"] == [
            {"side": "left", "what": "hands", "label": "Hands", "second": 0.5},
            {"side": "right", "what": "flicker", "label": "Flicker", "second": None},
        ]
        vote = Vote.objects.get()
        assert {defect.clip for defect in vote.defects.all()} == {
            vote.battle.left,
            vote.battle.right,
        }

    @pytest.mark.parametrize(
        ("sent", "words"),
        [
            ({"side": "middle"}, "not a lane"),
            ({"what": "boredom"}, "not a defect"),
            ({"second": "-1"}, "no second of this clip"),
            ({"second": "1.5"}, "send 0 to 1"),
            ({"second": "nan"}, "no second of this clip"),
        ],
    )
    def test_that_are_none_are_refused(
        self, seat: Seat, running: Experiment, sent: dict[str, str], words: str
    ) -> None:
        client = sit_down(seat)
        battle = judge(client)
        assert battle is not None
        refused = self.mark(client, str(battle.pk), **sent)
        assert refused.status_code == 400
        assert words in refused.json()["error"]
        assert not Defect.objects.exists()

    def test_are_taken_back_and_the_ledger_keeps_both(
        self, seat: Seat, running: Experiment
    ) -> None:
        client = sit_down(seat)
        battle = judge(client)
        assert battle is not None
        path, hands = f"/battles/{battle.pk}/defects/", {"side": "left", "what": "hands"}
        self.mark(client, str(battle.pk))
        self.mark(client, str(battle.pk), side="right")
        right = {"side": "right", "what": "hands", "label": "Hands", "second": 0.5}
        for _ in range(2):  # twice is once
            left = client.post(f"{path}take-back/", hands, **JSON).json()
            assert left["defects"] == [right]
        again = self.mark(client, str(battle.pk), second="0.8").json()
        assert again["defects"] == [right, {**right, "side": "left", "second": 0.8}]
        entries = Defect.objects.filter(clip=battle.left).order_by("pk")
        assert list(entries.values_list("second", "taken_back")) == [
            (0.5, False), (0.5, True), (0.8, False),
        ]  # fmt: skip
        assert Client().post(f"{path}take-back/", hands, **JSON).status_code == 403
        Seat.objects.update(revoked=True)
        assert client.post(f"{path}take-back/", hands, **JSON).status_code == 403
        assert Defect.objects.standing().count() == 2

    def test_are_marked_and_taken_back_by_plain_forms(
        self, seat: Seat, running: Experiment
    ) -> None:
        client = sit_down(seat)
        shown = battle_on(client, "/vote/panel/")
        assert shown is not None
        page = client.post(shown["vote_url"], {"choice": "left"}, follow=True)
        path = f"/battles/{shown['id']}/defects/"
        assert f'action="{path}"' in page.text
        assert 'value="flicker"' in page.text
        assert 'value="lip_sync"' not in page.text  # a silent pair
        flicker = {"side": "right", "what": "flicker"}
        marked = client.post(path, {**flicker, "second": "0.25"}, follow=True)
        assert marked.redirect_chain == [(f"/battles/{shown['id']}/#marking", 302)]
        assert re.search(
            r"Lane\s+2:</span>\s*Flicker\s*<span class=\"figure\">0.[23] s", marked.text
        )
        assert f'action="{path}take-back/"' in marked.text
        gone = client.post(f"{path}take-back/", flicker, follow=True)
        assert "take-back" not in gone.text
        refused = client.post(path, {**flicker, "second": "7"})
        assert refused.status_code == 400
        assert "no second of this clip" in refused.text

    def test_are_not_asked_of_the_public(self, votable: list, make_voter: Callable) -> None:
        client, _ = make_voter()
        shown = battle_on(client)
        assert shown is not None
        page = client.post(shown["vote_url"], {"choice": "left"}, follow=True)
        assert "What was wrong?" not in page.text

    def test_are_for_members_and_stay(self, seat: Seat, running: Experiment) -> None:
        client = sit_down(seat)
        battle = judge(client)
        assert battle is not None
        self.mark(client, str(battle.pk))
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            Defect.objects.all().delete()
        assert self.mark(Client(), str(battle.pk)).status_code == 403
        Seat.objects.update(revoked=True)
        assert self.mark(client, str(battle.pk), what="text").status_code == 403


class TestTheOperator:
    @pytest.fixture
    def operator(self, client: Client) -> Client:
        client.force_login(User.objects.create_superuser("admin"))
        return client

    def change(self, operator: Client, panel: Panel, **fields: object) -> str:
        address = f"/admin/arena/panel/{panel.pk}/change/"
        form = operator.get(address).context["adminform"].form
        data = {name: form.initial.get(name) or "" for name in form.fields}
        seats = list(panel.seats.all())
        data |= {"seats-TOTAL_FORMS": len(seats), "seats-INITIAL_FORMS": len(seats)}
        for number, seat in enumerate(seats):
            data |= {f"seats-{number}-{k}": getattr(seat, k) for k in ("id", "label")}
            data[f"seats-{number}-panel"] = panel.pk
        page = operator.post(address, {**data, **fields}, follow=True)
        assert "errorlist" not in page.text
        return page.text

    def test_adds_seats_and_takes_their_links(self, operator: Client, panel: Panel) -> None:
        assert "4 seats added" in self.change(operator, panel, seats_to_add=4)
        assert len(set(panel.seats.values_list("token", flat=True))) == 7
        page = operator.get(f"/admin/arena/panel/{panel.pk}/change/").text
        file = operator.get(f"/admin/arena/panel/{panel.pk}/links.csv").text
        for seat in panel.seats.all():
            assert f"http://testserver/panel/{seat.token}/" in page
            assert f"{seat.label},http://testserver/panel/{seat.token}/" in file

    def test_withdraws_a_seat(self, operator: Client, panel: Panel, seat: Seat) -> None:
        self.change(operator, panel, **{"seats-0-revoked": "on", "seats-0-label": "Ada"})
        seat.refresh_from_db()
        assert seat.revoked
        assert seat.label == "Ada"
        assert seat.token not in operator.get(f"/admin/arena/panel/{panel.pk}/links.csv").text

    def test_cancels_an_experiment(self, operator: Client, running: Experiment) -> None:
        data = {"action": "cancel", "_selected_action": [str(running.pk)]}
        address = "/admin/arena/experiment/"
        assert "Cancelled: Is it worse?" in operator.post(address, data, follow=True).text
        assert "None of the chosen was running" in operator.post(address, data, follow=True).text
        assert operator.get(f"{address}{running.pk}/change/").status_code == 200

    def test_gives_the_links_to_nobody_else(self, client: Client, panel: Panel) -> None:
        client.force_login(User.objects.create_user("clerk", is_staff=True))
        assert client.get(f"/admin/arena/panel/{panel.pk}/links.csv").status_code == 403


def test_what_is_on_trial_is_on_no_public_page(client: Client, running: Experiment) -> None:
    page = client.get("/models/scenes/").text
    assert "Colt 1" in page
    assert "Colt 2" not in page
    Version.objects.filter(slug="colt-1").update(state=VersionState.TRIAL)
    assert client.get("/models/scenes/").status_code == 404
    assert "Scenes" not in client.get("/models/").text
