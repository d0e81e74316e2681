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

from arena.experiments.start import cancel_experiment, start
from arena.models import Defect, Experiment, Member, Panel, Vote, Voter
from arena.tasks import sweep_visitors
from generation.models import Version, VersionState
from tests.arena.voting.test_vote import JSON, battle_on, battle_shown, voter_in
from tests.panels import PROMPTS, judge, make_panel, make_prompt_set, propose, sit_down, stock

pytestmark = pytest.mark.django_db


@pytest.fixture
def panel(db) -> Panel:
    return make_panel(quota=2, members=3)


@pytest.fixture
def running(make_version: Callable[..., Version], panel: Panel, settings) -> Experiment:
    settings.CHECK_SAME = settings.CHECK_REPEAT = settings.CHECK_GOLD = 0
    candidate, baseline = make_version("colt-2", state=VersionState.TRIAL), make_version("colt-1")
    prompt_set = make_prompt_set()
    for version in (candidate, baseline):
        stock(version, prompt_set)
    return start(propose(candidate, baseline, prompt_set, panel))


@pytest.fixture
def member(panel: Panel) -> Member:
    member = panel.members.first()
    assert member is not None
    return member


class TestTheLink:
    def test_says_what_is_asked_and_takes_the_seat(
        self, member: Member, running: Experiment
    ) -> None:
        Panel.objects.update(instructions="Look at the hands.\n\nTake your time.")
        client, link = Client(), f"/panel/{member.token}/"
        page = client.get(link).text
        assert "Look at the hands." in page
        assert f'<form method="post" action="{link}">' in page
        assert ">Join</button>" in page
        assert not Voter.objects.exists()
        joined = client.post(link)
        assert (joined.status_code, joined["Location"]) == (303, "/vote/panel/")
        member.refresh_from_db()
        assert member.voter == Voter.objects.get()
        assert battle_shown(client.get("/vote/panel/")) is not None
        assert ">Start</button>" in client.get(link).text

    def test_is_the_same_voter_on_another_device(self, member: Member, running: Experiment) -> None:
        phone, laptop = sit_down(member), sit_down(member)
        assert judge(phone) is not None
        assert judge(laptop) is not None
        assert Voter.objects.count() == 1
        assert {vote.voter for vote in Vote.objects.all()} == {member.voter}

    def test_never_takes_a_voter_over(
        self, votable: list, member: Member, running: Experiment, make_voter: Callable
    ) -> None:
        client, voter = make_voter()
        assert judge(client, path="/vote/") is not None
        shown = battle_on(client)
        assert shown is not None
        link = f"/panel/{member.token}/"
        assert "This browser has cast 1 public vote." in client.get(link).text
        assert voter_in(client) == voter
        client.post(link)
        member.refresh_from_db()
        assert member.voter not in (None, voter)
        assert voter_in(client) == member.voter
        assert Vote.objects.get().voter == voter  # their votes stay theirs
        stranger = sit_down(member)  # the attacker, who knows the link
        refused = stranger.post(shown["vote_url"], {"choice": "a"}, **JSON)
        assert refused.status_code == 403
        assert stranger.get(f"/battles/{shown['id']}/").status_code == 403

    def test_takes_no_browser_over_without_its_consent(
        self, member: Member, running: Experiment
    ) -> None:
        browser = Client(enforce_csrf_checks=True)
        link = f"/panel/{member.token}/"
        assert browser.post(link).status_code == 403  # from another site's form
        member.refresh_from_db()
        assert member.voter is None
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', browser.get(link).text)
        assert token is not None
        assert browser.post(link, {"csrfmiddlewaretoken": token[1]}).status_code == 303
        member.refresh_from_db()
        assert voter_in(browser) == member.voter

    def test_makes_a_second_seat_another_voter_and_says_so(
        self, panel: Panel, running: Experiment
    ) -> None:
        client = Client()
        first, *others = panel.members.all()
        client.post(f"/panel/{first.token}/")
        for member in others:
            link = f"/panel/{member.token}/"
            assert "This browser is a member of “Judges”" in client.get(link).text
            client.post(link)
        assert len(set(panel.members.values_list("voter", flat=True))) == 3
        client.post(f"/panel/{first.token}/")
        first.refresh_from_db()
        assert voter_in(client) == first.voter  # back again

    def test_that_is_unknown_or_withdrawn_is_a_sentence(
        self, member: Member, running: Experiment
    ) -> None:
        unknown = Client().get("/panel/nobody/")
        assert unknown.status_code == 404
        assert "This invitation does not exist" in unknown.text
        assert Client().get("/panel/%00/").status_code == 404
        client = sit_down(member)
        Member.objects.update(revoked=True)
        withdrawn = client.get(f"/panel/{member.token}/")
        assert withdrawn.status_code == 403
        assert "was withdrawn" in withdrawn.text
        assert client.get("/vote/panel/").status_code == 403

    def test_stays_a_voters_who_has_not_voted_yet(self, member: Member) -> None:
        sit_down(member)
        Voter.objects.update(created_at=timezone.now() - timedelta(days=2))
        assert sweep_visitors() == 0


class TestVoting:
    def test_goes_up_to_the_quota(self, member: Member, running: Experiment) -> None:
        client = sit_down(member)
        assert re.search(r"data-given>0</span> of .*>2<", client.get("/vote/panel/").text)
        first = battle_on(client, "/vote/panel/")
        assert first is not None
        ahead = client.post("/vote/panel/next/", {"have": [first["id"]]}, **JSON).json()
        assert ahead["battle"] is not None
        both = {"have": [first["id"], ahead["battle"]["id"]]}
        assert client.post("/vote/panel/next/", both, **JSON).json()["battle"] is None
        answer = client.post(first["vote_url"], {"choice": "a"}, **JSON).json()
        assert answer["panel"] == {"name": "Judges", "given": 1, "quota": 2}
        assert judge(client) is not None
        page = client.get("/vote/panel/").text
        assert "You have cast all your votes" in page
        assert '"again": false' in page
        assert client.post("/vote/panel/next/", **JSON).json()["again"] is False
        assert judge(client) is None
        assert "Thank you" in client.get(f"/panel/{member.token}/").text

    def test_ends_with_what_is_true_and_leads_nowhere_else(
        self, member: Member, running: Experiment
    ) -> None:
        Panel.objects.update(quota=100)
        client = sit_down(member)
        for _ in range(PROMPTS):
            assert judge(client) is not None
        page = client.post("/vote/panel/next/").text
        assert "You have judged every pair available to you" in page
        assert "Vote in all categories" not in page
        assert ">Continue</button>" in client.get(f"/panel/{member.token}/").text
        cancel_experiment(running)
        for path in (f"/panel/{member.token}/", "/vote/panel/"):
            assert "This panel has no running experiment" in client.get(path).text
        assert "Continue" not in client.get(f"/panel/{member.token}/").text
        answer = client.post("/vote/panel/next/", **JSON).json()
        assert answer["reason"].startswith("This panel has no running experiment")
        assert answer["again"] is False

    def test_in_public_names_nobody_to_a_member(
        self, member: Member, votable: list, make_voter: Callable
    ) -> None:
        member, (anybody, _) = sit_down(member), make_voter()
        told = []
        for client in (anybody, member):
            shown = battle_on(client)
            assert shown is not None
            with CaptureQueriesContext(connection) as queries:
                answer = client.post(shown["vote_url"], {"choice": "a"}, **JSON)
            told.append((len(queries), answer.text, client.get(f"/battles/{shown['id']}/").text))
        (asked, named, named_page), (asked_of_member, hidden, hidden_page) = told
        assert asked == asked_of_member
        for style in ("Sharp", "Tardy"):
            assert style in named
            assert style in named_page
            assert style not in hidden
            assert style not in hidden_page
        assert "Names stay hidden to keep experiments blind" in hidden_page
        Member.objects.update(revoked=True)
        assert "Sharp" in member.get(f"/battles/{shown['id']}/").text

    def test_is_for_members_alone(
        self, member: Member, running: Experiment, make_voter: Callable
    ) -> None:
        for client in (Client(), make_voter()[0]):
            page = client.get("/vote/panel/")
            assert page.status_code == 403
            assert "Open the link that you were sent" in page.text
        refused = make_voter()[0].post("/vote/panel/next/", **JSON)
        assert refused.status_code == 403
        assert not member.voter


class TestDefects:
    def mark(self, client: Client, battle: str, **sent: object):
        data = {"side": "a", "kind": "hands", "second": "0.5", **sent}
        return client.post(f"/battles/{battle}/defects/", data, **JSON)

    def test_are_marked_after_the_vote(self, member: Member, running: Experiment) -> None:
        client = sit_down(member)
        shown = battle_on(client, "/vote/panel/")
        assert shown is not None
        early = self.mark(client, shown["id"])
        assert early.status_code == 409
        assert "Vote on this pair first" in early.json()["error"]
        answer = client.post(shown["vote_url"], {"choice": "a"}, **JSON).json()
        assert answer["defects_url"] == f"/battles/{shown['id']}/defects/"
        self.mark(client, shown["id"])
        self.mark(client, shown["id"])  # twice is once
        marked = self.mark(client, shown["id"], side="b", kind="flicker", second="").json()
        assert marked["defects"] == [
            {"side": "a", "kind": "hands", "label": "Hands", "second": 0.5},
            {"side": "b", "kind": "flicker", "label": "Flicker", "second": None},
        ]
        vote = Vote.objects.get()
        assert {defect.clip for defect in vote.defects.all()} == {
            vote.battle.clip_a,
            vote.battle.clip_b,
        }

    @pytest.mark.parametrize(
        ("sent", "words"),
        [
            ({"side": "middle"}, "not a clip"),
            ({"kind": "boredom"}, "not a defect"),
            ({"second": "-1"}, "not a time in this clip"),
            ({"second": "1.5"}, "Send 0 to 1 seconds"),
            ({"second": "nan"}, "not a time in this clip"),
        ],
    )
    def test_that_are_none_are_refused(
        self, member: Member, running: Experiment, sent: dict[str, str], words: str
    ) -> None:
        client = sit_down(member)
        battle = judge(client)
        assert battle is not None
        refused = self.mark(client, str(battle.pk), **sent)
        assert refused.status_code == 400
        assert words in refused.json()["error"]
        assert not Defect.objects.exists()

    def test_are_taken_back_and_the_ledger_keeps_both(
        self, member: Member, running: Experiment
    ) -> None:
        client = sit_down(member)
        battle = judge(client)
        assert battle is not None
        path, hands = f"/battles/{battle.pk}/defects/", {"side": "a", "kind": "hands"}
        self.mark(client, str(battle.pk))
        self.mark(client, str(battle.pk), side="b")
        right = {"side": "b", "kind": "hands", "label": "Hands", "second": 0.5}
        for _ in range(2):  # twice is once
            left = client.post(f"{path}take-back/", hands, **JSON).json()
            assert left["defects"] == [right]
        again = self.mark(client, str(battle.pk), second="0.8").json()
        assert again["defects"] == [right, {**right, "side": "a", "second": 0.8}]
        entries = Defect.objects.filter(clip=battle.clip_a).order_by("pk")
        assert list(entries.values_list("second", "taken_back")) == [
            (0.5, False), (0.5, True), (0.8, False),
        ]  # fmt: skip
        assert Client().post(f"{path}take-back/", hands, **JSON).status_code == 403
        Member.objects.update(revoked=True)
        assert client.post(f"{path}take-back/", hands, **JSON).status_code == 403
        assert Defect.objects.standing().count() == 2

    def test_are_marked_and_taken_back_by_plain_forms(
        self, member: Member, running: Experiment
    ) -> None:
        client = sit_down(member)
        shown = battle_on(client, "/vote/panel/")
        assert shown is not None
        page = client.post(shown["vote_url"], {"choice": "a"}, follow=True)
        path = f"/battles/{shown['id']}/defects/"
        assert f'action="{path}"' in page.text
        assert 'value="flicker"' in page.text
        assert 'value="lip_sync"' not in page.text  # a silent pair
        flicker = {"side": "b", "kind": "flicker"}
        marked = client.post(path, {**flicker, "second": "0.25"}, follow=True)
        assert marked.redirect_chain == [(f"/battles/{shown['id']}/#marking", 302)]
        assert re.search(
            r"Clip\s+B:</span>\s*Flicker\s*<span class=\"figure\">0.[23] s", marked.text
        )
        assert f'action="{path}take-back/"' in marked.text
        gone = client.post(f"{path}take-back/", flicker, follow=True)
        assert "take-back" not in gone.text
        refused = client.post(path, {**flicker, "second": "7"})
        assert refused.status_code == 400
        assert "not a time in this clip" in refused.text

    def test_are_not_asked_of_the_public(self, votable: list, make_voter: Callable) -> None:
        client, _ = make_voter()
        shown = battle_on(client)
        assert shown is not None
        page = client.post(shown["vote_url"], {"choice": "a"}, follow=True)
        assert "What was wrong?" not in page.text

    def test_are_for_members_and_stay(self, member: Member, running: Experiment) -> None:
        client = sit_down(member)
        battle = judge(client)
        assert battle is not None
        self.mark(client, str(battle.pk))
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            Defect.objects.all().delete()
        assert self.mark(Client(), str(battle.pk)).status_code == 403
        Member.objects.update(revoked=True)
        assert self.mark(client, str(battle.pk), kind="text").status_code == 403


class TestTheOperator:
    @pytest.fixture
    def operator(self, client: Client) -> Client:
        client.force_login(User.objects.create_superuser("admin"))
        return client

    def change(self, operator: Client, panel: Panel, **fields: object) -> str:
        address = f"/admin/arena/panel/{panel.pk}/change/"
        form = operator.get(address).context["adminform"].form
        data = {name: form.initial.get(name) or "" for name in form.fields}
        members = list(panel.members.all())
        data |= {"members-TOTAL_FORMS": len(members), "members-INITIAL_FORMS": len(members)}
        for number, member in enumerate(members):
            data |= {f"members-{number}-{k}": getattr(member, k) for k in ("id", "label")}
            data[f"members-{number}-panel"] = panel.pk
        page = operator.post(address, {**data, **fields}, follow=True)
        assert "errorlist" not in page.text
        return page.text

    def test_adds_seats_and_takes_their_links(self, operator: Client, panel: Panel) -> None:
        assert "4 members added" in self.change(operator, panel, members_to_add=4)
        assert len(set(panel.members.values_list("token", flat=True))) == 7
        page = operator.get(f"/admin/arena/panel/{panel.pk}/change/").text
        file = operator.get(f"/admin/arena/panel/{panel.pk}/links.csv").text
        for member in panel.members.all():
            assert f"http://testserver/panel/{member.token}/" in page
            assert f"{member.label},http://testserver/panel/{member.token}/" in file

    def test_withdraws_a_seat(self, operator: Client, panel: Panel, member: Member) -> None:
        self.change(operator, panel, **{"members-0-revoked": "on", "members-0-label": "Ada"})
        member.refresh_from_db()
        assert member.revoked
        assert member.label == "Ada"
        assert member.token not in operator.get(f"/admin/arena/panel/{panel.pk}/links.csv").text

    def test_cancels_an_experiment(self, operator: Client, running: Experiment) -> None:
        data = {"action": "cancel", "_selected_action": [str(running.pk)]}
        address = "/admin/arena/experiment/"
        assert "Cancelled: Is it worse?" in operator.post(address, data, follow=True).text
        assert (
            "No selected experiment was running" in operator.post(address, data, follow=True).text
        )
        assert operator.get(f"{address}{running.pk}/change/").status_code == 200

    def test_gives_the_links_to_nobody_else(self, client: Client, panel: Panel) -> None:
        client.force_login(User.objects.create_user("clerk", is_staff=True))
        assert client.get(f"/admin/arena/panel/{panel.pk}/links.csv").status_code == 403


def test_what_is_on_trial_is_on_no_public_page(client: Client, running: Experiment) -> None:
    page = client.get("/models/scenes/").text
    assert "Colt 1" in page
    assert "Colt 2" not in page
