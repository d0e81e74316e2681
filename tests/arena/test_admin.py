"""An operator looks after the arena in the admin: what may be done there, and what never."""

import io
import re
import uuid
from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pytest
from django.contrib.auth.models import Permission, User
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from PIL import Image

from arena.models import Battle, Choice, Exclusion, Vote, Voter
from generation.admin import base as admin_base
from generation.admin import prompts as admin_prompts
from generation.catalogue.categories import Category
from generation.models import (
    Clip,
    ClipState,
    Model,
    Prompt,
    PromptSet,
    ReferenceImage,
    Version,
    VersionState,
)
from ratings.boards.refit import refit
from ratings.models import Leaderboard, Standing

pytestmark = pytest.mark.django_db

TABLES = {
    "generation_model": Model,
    "generation_version": Version,
    "generation_referenceimage": ReferenceImage,
    "generation_prompt": Prompt,
    "generation_promptset": PromptSet,
    "generation_clip": Clip,
    "arena_voter": Voter,
    "arena_battle": Battle,
    "arena_vote": Vote,
    "arena_exclusion": Exclusion,
    "ratings_leaderboard": Leaderboard,
}


def changelist(table: str) -> str:
    return reverse(f"admin:{table}_changelist")


def page_of(row: object, verb: str = "change") -> str:
    table = row._meta.db_table  # type: ignore[attr-defined]
    return reverse(f"admin:{table}_{verb}", args=[row.pk])  # type: ignore[attr-defined]


def act(client: Client, action: str, *rows: object, **more: str) -> str:
    """Run an action on rows of one list; returns the page it ends on."""
    table = rows[0]._meta.db_table  # type: ignore[attr-defined]
    keys = [str(row.pk) for row in rows]  # type: ignore[attr-defined]
    data = {"action": action, "_selected_action": keys, **more}
    page = client.post(changelist(table), data, follow=True)
    assert page.status_code == 200
    return page.text


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 30), shade: int = 0) -> io.BytesIO:
    pixels = np.random.default_rng(shade).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, lossless=True)
    file.seek(0)
    file.name = f"still.{kind.lower()}"
    return file


@pytest.fixture
def admin_user(db: None) -> User:
    """Without a password: hashing one takes longer than most of the tests."""
    return User.objects.create_superuser("admin")


@pytest.fixture
def make_votes(few: PromptSet, two_versions: tuple[Version, Version]) -> Callable[..., list[Vote]]:
    """Votes of as many voters on the same two clips; what the clips show plays no part."""

    def make(count: int) -> list[Vote]:
        prompt = few.prompts.get(key="few-1")
        one, two = (
            Clip.objects.get_or_create(
                version=version,
                prompt=prompt,
                category=Category.T2V_SILENT,
                defaults={
                    "seed": 1, "state": ClipState.READY, "master": "m.mkv", "poster": "p.jpg",
                    "rendition": "r.mp4", "rendition_sha256": "0" * 64,
                },
            )[0]
            for version in two_versions
        )  # fmt: skip
        voters = Voter.objects.bulk_create(Voter() for _ in range(count))
        battles = Battle.objects.bulk_create(
            Battle(
                voter=voter,
                stream=one.category,
                category=one.category,
                prompt=one.prompt,
                clip_a=one,
                clip_b=two,
                draw_probability=1,
                expires_at=timezone.now() + timedelta(hours=1),
            )
            for voter in voters
        )
        return Vote.objects.bulk_create(
            Vote(
                battle=battle,
                voter=battle.voter,
                category=battle.category,
                version_a=one.version,
                version_b=two.version,
                prompt=battle.prompt,
                choice=Choice.A,
                simulated=False,
            )
            for battle in battles
        )

    return make


@pytest.fixture
def operator(client: Client) -> Callable[..., Client]:
    """A browser of a staff member with just these permissions."""

    def log_in(*permissions: str) -> Client:
        user = User.objects.create_user("operator", is_staff=True)
        for permission in permissions:
            app, codename = permission.split(".")
            user.user_permissions.add(
                Permission.objects.get(content_type__app_label=app, codename=codename)
            )
        client.force_login(user)
        return client

    return log_in


class TestThePages:
    def test_the_index_is_titled_photofinish(self, admin_client: Client) -> None:
        page = admin_client.get("/admin/").text
        assert "<h1>Photofinish</h1>" in page
        for table in TABLES:
            assert changelist(table) in page
        assert "arena/skip" not in page

    def test_nobody_else_gets_in(self, client: Client, votable: list[Clip]) -> None:
        for address in (changelist("arena_vote"), page_of(votable[0], "rendition")):
            assert client.get(address).url.startswith("/admin/login/")

    @pytest.mark.parametrize("filters", ["state=%00", "category__exact=x%00"])
    def test_a_filter_that_no_text_can_match_is_refused_in_a_sentence(
        self, admin_client: Client, filters: str
    ) -> None:
        page = admin_client.get(f"{changelist('generation_clip')}?{filters}")
        assert page.status_code == 400
        assert "contains a NUL character" in page.text

    def test_a_cookie_with_a_nul_is_nobodys(self) -> None:
        stranger = Client(headers={"cookie": 'sessionid="\\000and so on"'})
        assert stranger.get("/").status_code == 200
        assert stranger.get("/admin/").url.startswith("/admin/login/")

    def test_they_hold_nothing_inline_that_the_policy_forbids(
        self, admin_client: Client, make_votes: Callable, few: PromptSet
    ) -> None:
        vote = make_votes(1)[0]
        record = {"action": "exclude_from_ratings", "_selected_action": str(vote.pk)}
        image = ReferenceImage.objects.get()
        pages = [admin_client.get(changelist(table)) for table in TABLES]
        pages += [
            admin_client.get(page_of(row))
            for row in (vote, vote.voter, vote.battle, vote.battle.clip_a, vote.prompt, few, image)
        ]
        pages += [
            admin_client.get(page_of(vote.version_a)),
            admin_client.get(reverse("admin:generation_version_add")),
            admin_client.get(reverse("admin:generation_referenceimage_add")),
            admin_client.get(reverse("admin:arena_exclusion_add")),
            admin_client.post(changelist("arena_vote"), record),
        ]
        for page in pages:
            assert page.status_code == 200, page.request["PATH_INFO"]
            assert page["Content-Security-Policy"].startswith("default-src 'self'")
            inline = re.findall(r"<script(?![^>]*\bsrc=)[^>]*>[^<]*\S[^<]*</script>", page.text)
            assert inline == []
            assert re.findall(r'<style|\sstyle="|\son[a-z]+="|javascript:', page.text) == []


class TestLongTables:
    @pytest.fixture
    def grow(
        self, few: PromptSet, make_votes: Callable, make_version: Callable, admin_user: User
    ) -> Callable[[int], None]:
        """Add rows to every table that is listed."""
        numbers = iter(range(1000))

        def add(count: int) -> None:
            prompt = few.prompts.first()
            assert prompt is not None
            for _ in range(count):
                n = next(numbers)
                lab = Model.objects.create(slug=f"m{n}", name=f"M {n}", lab="L", weights="open")
                version = make_version(f"v{n}", model=lab)
                image = ReferenceImage.objects.create(
                    sha256=f"{n}", width=1, height=1, source="uploaded", file=f"{n}.webp"
                )
                Prompt.objects.create(
                    key=f"p{n}", text="…", sounds=["silent"], image=image, aspect="1:1", seconds=1
                )
                PromptSet.objects.create(slug=f"s{n}", name=f"Set {n}")
                Clip.objects.create(
                    version=version, prompt=prompt, category=Category.T2V_SILENT, seed=n
                )
                board = Leaderboard.objects.create(
                    category=Category.T2V_SILENT,
                    last_vote_id=0,
                    last_exclusion_id=0,
                    simulated_counted=False,
                    votes=0,
                    simulated_votes=0,
                    voters=0,
                    prompts=1,
                    settings={},
                    seconds=0.1,
                )
                Standing.objects.create(leaderboard=board, version=version, votes=0, win_rate=0)
            Exclusion.objects.bulk_create(
                Exclusion(action="exclude", vote=vote, reason="bot", by=admin_user)
                for vote in make_votes(count)
            )

        return add

    def test_take_as_many_queries_for_thirty_rows_as_for_three(
        self, admin_client: Client, grow: Callable[[int], None]
    ) -> None:
        def queries() -> dict[str, int]:
            taken = {}
            for table in TABLES:
                with CaptureQueriesContext(connection) as captured:
                    assert admin_client.get(changelist(table)).status_code == 200
                taken[table] = len(captured)
            return taken

        grow(3)
        few_rows = queries()
        grow(27)
        for kind in TABLES.values():
            assert kind.objects.count() >= 30
        assert queries() == few_rows
        assert max(few_rows.values()) <= 9

    def test_pages_beyond_the_first_show_the_rows_in_order(
        self, admin_client: Client, make_votes: Callable
    ) -> None:
        keys = [vote.pk for vote in make_votes(60)]
        second = admin_client.get(changelist("arena_vote"), {"p": "2"})
        assert [vote.pk for vote in second.context["cl"].result_list] == keys[9::-1]
        assert "60 votes" in second.text

    def test_counting_stops_at_a_bound_and_the_page_says_so(
        self, admin_client: Client, make_votes: Callable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(admin_base, "COUNT_AT_MOST", 3)
        make_votes(3)
        assert "More than" not in admin_client.get(changelist("arena_vote")).text
        make_votes(1)
        with CaptureQueriesContext(connection) as captured:
            page = admin_client.get(changelist("arena_vote"))
        assert "More than 3 votes" in page.text
        counts = [query["sql"] for query in captured if "COUNT(" in query["sql"].upper()]
        assert counts
        assert all("LIMIT 4" in sql for sql in counts)

    def test_are_searched_by_the_beginning_of_a_voter_id(
        self, admin_client: Client, make_votes: Callable
    ) -> None:
        vote = make_votes(3)[1]
        for term in (str(vote.voter_id), str(vote.voter_id)[:8], vote.voter_id.hex[:12].upper()):
            for table in ("arena_vote", "arena_voter", "arena_battle"):
                page = admin_client.get(changelist(table), {"q": term})
                found = [str(row.pk) for row in page.context["cl"].result_list]
                wanted = {"arena_vote": vote, "arena_voter": vote.voter}.get(table, vote.battle)
                assert found == [str(wanted.pk)]
        nobody = admin_client.get(changelist("arena_vote"), {"q": "%_' nobody"})
        assert list(nobody.context["cl"].result_list) == []


class TestVersions:
    def test_state_actions_say_what_they_changed(
        self, admin_client: Client, two_versions: tuple[Version, Version]
    ) -> None:
        sharp, tardy = two_versions
        for action, state in (
            ("put_on_trial", VersionState.TRIAL),
            ("pause", VersionState.PAUSED),
            ("retire", VersionState.RETIRED),
            ("activate", VersionState.ACTIVE),
        ):
            page = act(admin_client, action, sharp)
            assert f"State set to {state.label.lower()}: Sharp." in page
            assert Version.objects.get(pk=sharp.pk).state == state
            assert Version.objects.get(pk=tardy.pk).state == VersionState.ACTIVE
        assert "No selected version" in act(admin_client, "activate", sharp, tardy)
        history = admin_client.get(page_of(sharp, "history")).text
        assert "state set to retired." in history

    def test_reveal_touches_only_what_is_disguised(
        self, admin_client: Client, make_version: Callable
    ) -> None:
        known = make_version("known")
        secret = make_version("secret", codename="Quiet River")
        page = act(admin_client, "reveal_today", known, secret)
        assert "Revealed: Secret." in page
        assert Version.objects.get(pk=secret.pk).revealed_on == timezone.localdate()
        assert Version.objects.get(pk=known.pk).revealed_on is None

    def test_what_determines_clips_is_read_only_once_there_are_some(
        self, admin_client: Client, few: PromptSet, make_version: Callable, render_all: Callable
    ) -> None:
        fresh = make_version("fresh")
        assert 'name="settings"' in admin_client.get(page_of(fresh)).text
        render_all(few, Category.T2V_SILENT)
        page = admin_client.get(page_of(fresh)).text
        for field in ("model", "parent", "backend", "settings", "width", "height", "fps"):
            assert f'name="{field}"' not in page
        assert f"clip/?version__id__exact={fresh.pk}" in page
        form = {
            "slug": "fresh", "name": "Fresher", "state": "paused", "settings": "{}", "fps": "99",
            "categories": ["t2v-silent"], "min_seconds": "1", "max_seconds": "5",
            "children-TOTAL_FORMS": "0", "children-INITIAL_FORMS": "0",
        }  # fmt: skip
        assert admin_client.post(page_of(fresh), form).status_code == 302
        fresh.refresh_from_db()
        assert (fresh.name, fresh.state, fresh.categories) == ("Fresher", "paused", ["t2v-silent"])
        assert (fresh.fps, fresh.settings) == (8, {"size": 32, "fps": 8})
        assert admin_client.get(page_of(fresh, "delete")).status_code == 403

    def test_a_new_one_is_entered_with_its_backend_and_categories(
        self, admin_client: Client, two_versions: tuple[Version, Version]
    ) -> None:
        sharp = two_versions[0]
        form = {
            "model": str(sharp.model_id), "parent": str(sharp.pk), "slug": "sharper",
            "name": "Sharper", "state": "draft", "backend": "scenes", "settings": '{"size": 64}',
            "categories": ["t2v-silent", "i2v-audio"], "width": "64", "height": "64", "fps": "8",
            "min_seconds": "1", "max_seconds": "5",
            "children-TOTAL_FORMS": "0", "children-INITIAL_FORMS": "0",
        }  # fmt: skip
        add = reverse("admin:generation_version_add")
        wrong = admin_client.post(add, form | {"backend": "abacus"})
        assert "abacus is not one of the available choices" in wrong.text
        unkeepable = admin_client.post(add, form | {"settings": '{"pose": "\\u0000"}'})
        assert "A value is none that the database can keep." in unkeepable.text
        assert admin_client.post(add, form).status_code == 302
        version = Version.objects.get(slug="sharper")
        assert version.parent == sharp
        assert version.categories == ["t2v-silent", "i2v-audio"]
        assert "Sharper" in admin_client.get(page_of(sharp)).text  # among its children
        assert "Sharper" in admin_client.get(page_of(sharp.model)).text

    def test_lineages_do_not_run_in_circles(
        self, admin_client: Client, make_version: Callable
    ) -> None:
        parent = make_version("elder")
        child = make_version("younger", parent=parent)
        form = {
            "model": str(parent.model_id), "parent": str(child.pk), "slug": "elder",
            "name": "Elder", "state": "draft", "backend": "scenes", "settings": "{}",
            "categories": ["t2v-silent"], "width": "64", "height": "64", "fps": "8",
            "min_seconds": "1", "max_seconds": "5",
            "children-TOTAL_FORMS": "0", "children-INITIAL_FORMS": "0",
        }  # fmt: skip
        assert "descends from this version" in admin_client.post(page_of(parent), form).text
        parent.refresh_from_db()
        assert parent.parent is None


class TestReferenceImages:
    ADD = "/admin/generation/referenceimage/add/"

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_an_upload_is_encoded_anew_and_kept(self, admin_client: Client, kind: str) -> None:
        sent = picture(kind)
        form = {"upload": sent, "note": "a still"}
        assert admin_client.post(self.ADD, form).status_code == 302
        image = ReferenceImage.objects.get()
        assert (image.source, image.note, image.width, image.height) == (
            "uploaded",
            "a still",
            40,
            30,
        )
        answer = admin_client.get(page_of(image, "image"))
        assert answer["Content-Type"] == "image/webp"
        data = b"".join(answer.streaming_content)
        assert data[:4] == b"RIFF"
        assert data != sent.getvalue()
        small = admin_client.get(page_of(image, "thumbnail"))
        assert Image.open(io.BytesIO(small.content)).format == "WEBP"
        assert (
            page_of(image, "thumbnail")
            in admin_client.get(changelist("generation_referenceimage")).text
        )

    def test_refusals_are_sentences_beside_the_field(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = io.BytesIO(b"not a picture at all")
        text.name = "notes.png"
        frames = [Image.new("RGB", (8, 8), shade) for shade in ("red", "blue")]
        moving = io.BytesIO()
        frames[0].save(moving, "WEBP", save_all=True, append_images=frames[1:])
        moving.name = "moving.webp"
        moving.seek(0)
        cut = io.BytesIO(picture().getvalue()[:900])
        cut.name = "cut.png"
        monkeypatch.setattr("generation.catalogue.prompts.IMAGE_PIXELS_AT_MOST", 1000)
        for file, sentence in (
            (text, "notes.png is not a JPEG, PNG or WebP image."),
            (moving, "moving.webp is an animation; give a still image."),
            (cut, "cut.png"),
            (picture(size=(100, 11)), "still.png has 100×11 pixels"),
        ):
            page = admin_client.post(self.ADD, {"upload": file, "note": ""})
            assert page.status_code == 200
            errors = page.context["adminform"].form.errors
            assert list(errors) == ["upload"]
            assert sentence in errors["upload"][0]
        assert not ReferenceImage.objects.exists()

    def test_the_same_pixels_and_too_many_bytes_are_refused(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        admin_client.post(self.ADD, {"upload": picture("PNG"), "note": "first"})
        for kind in ("PNG", "WEBP"):
            same = admin_client.post(self.ADD, {"upload": picture(kind), "note": "second"})
            assert "already exists as “first (40×30)”. Use that image." in same.text
        monkeypatch.setattr(admin_prompts, "UPLOAD_BYTES_AT_MOST", 100)
        big = admin_client.post(self.ADD, {"upload": picture(shade=1), "note": ""})
        assert "The limit is" in big.text
        assert ReferenceImage.objects.get().note == "first"

    def test_one_in_use_stays_and_one_unused_goes_with_its_file(
        self, admin_client: Client, few: PromptSet, django_capture_on_commit_callbacks: Callable
    ) -> None:
        used = ReferenceImage.objects.get()
        assert admin_client.post(page_of(used, "delete"), {"post": "yes"}).status_code == 403
        admin_client.post(self.ADD, {"upload": picture(), "note": "wrong one"})
        unused = ReferenceImage.objects.get(note="wrong one")
        with django_capture_on_commit_callbacks(execute=True):
            admin_client.post(page_of(unused, "delete"), {"post": "yes"})
        assert list(ReferenceImage.objects.all()) == [used]
        assert not unused.file.storage.exists(unused.file.name)
        assert used.file.storage.exists(used.file.name)

    def test_a_note_may_change_and_the_picture_may_not(
        self, admin_client: Client, few: PromptSet
    ) -> None:
        image = ReferenceImage.objects.get()
        form = {"note": "renamed", "upload": picture()}
        assert admin_client.post(page_of(image), form).status_code == 302
        after = ReferenceImage.objects.get()
        assert (after.note, after.sha256, after.source) == ("renamed", image.sha256, "shipped")

    def test_files_are_for_those_who_may_view_them(
        self, operator: Callable, few: PromptSet, votable: list[Clip]
    ) -> None:
        stranger = operator("arena.view_vote")
        image = ReferenceImage.objects.get()
        for address in (
            page_of(image, "image"),
            page_of(image, "thumbnail"),
            page_of(votable[0], "rendition"),
            page_of(votable[0], "poster"),
        ):
            assert stranger.get(address).status_code == 403


class TestPrompts:
    def test_are_filtered_by_language_and_tag(self, admin_client: Client, few: PromptSet) -> None:
        Prompt.objects.create(
            key="de-1", text="Ein Hund", language="de", tags=["foley"], sounds=["audio"],
            aspect="16:9", seconds=5,
        )  # fmt: skip
        for query in ({"language": "de"}, {"tag": "foley"}):
            found = admin_client.get(changelist("generation_prompt"), query).context["cl"]
            assert [prompt.key for prompt in found.result_list] == ["de-1"]

    def test_what_was_asked_is_read_only_once_there_are_clips(
        self, admin_client: Client, votable: list[Clip]
    ) -> None:
        prompt = votable[0].prompt
        page = admin_client.get(page_of(prompt)).text
        for field in ("key", "text", "image", "aspect", "seconds"):
            assert f'name="{field}"' not in page
        form = {"language": "en", "tags": "foley,speech", "sounds": ["silent"], "text": "other"}
        assert admin_client.post(page_of(prompt), form).status_code == 302
        after = Prompt.objects.get(pk=prompt.pk)
        assert (after.text, after.tags) == (prompt.text, ["foley", "speech"])
        unasked = Prompt.objects.get(key="few-3")
        assert 'name="text"' in admin_client.get(page_of(unasked)).text

    def test_a_set_is_queued_for_every_category_and_said_so(
        self, admin_client: Client, few: PromptSet, two_versions, make_version: Callable
    ) -> None:
        make_version("stuck", backend="abacus", categories=["t2v-silent"])
        page = act(admin_client, "queue_missing", few)
        assert Clip.objects.filter(state=ClipState.WAITING).count() == 12
        assert "A few scenes, t2v-silent: 4 clips added, 0 already there." in page
        assert "A few scenes, i2v-audio: 2 clips added, 0 already there." in page
        assert "Rejected: t2v-silent, stuck, few-1: There is no backend “abacus”" in page
        again = act(admin_client, "queue_missing", few)
        assert "A few scenes, t2v-silent: 0 clips added, 4 already there." in again
        assert Clip.objects.count() == 12
        shown = admin_client.get(page_of(few)).text
        assert "t2v-audio: 4 waiting" in shown
        assert "a big red circle bounces by day" in shown

    def test_queueing_without_an_active_version_says_so(
        self, admin_client: Client, few: PromptSet
    ) -> None:
        assert "No active version can make clips of A few scenes" in act(
            admin_client, "queue_missing", few
        )

    def test_queueing_needs_the_right_to_add_clips(
        self, operator: Callable, few: PromptSet, two_versions
    ) -> None:
        viewer = operator("generation.view_promptset")
        act(viewer, "queue_missing", few)
        assert not Clip.objects.exists()


class TestClips:
    def test_show_what_was_measured_and_do_without(
        self, admin_client: Client, votable: list[Clip]
    ) -> None:
        clip = votable[0]
        Clip.objects.filter(pk=clip.pk).update(loudness=-23.25, motion=4.5)
        page = admin_client.get(page_of(clip)).text
        assert re.search(r"Loudness:.*?-23\.25.*?LUFS.*?Motion:.*?4\.5", page, re.DOTALL)
        Clip.objects.filter(pk=clip.pk).update(loudness=None, motion=None)
        page = admin_client.get(page_of(clip)).text
        assert re.search(r'Loudness:.*?"readonly">-<.*?Motion:.*?"readonly">-<', page, re.DOTALL)

    def test_are_watched_on_their_page(self, admin_client: Client, votable: list[Clip]) -> None:
        clip = votable[0]
        page = admin_client.get(page_of(clip)).text
        video, poster = page_of(clip, "rendition"), page_of(clip, "poster")
        assert re.search(rf'<video [^>]*controls[^>]* poster="{poster}" src="{video}"', page)
        assert clip.prompt.text in page
        whole = b"".join(admin_client.get(video).streaming_content)
        assert whole[4:8] == b"ftyp"
        part = admin_client.get(video, headers={"range": "bytes=4-7"})
        assert part.status_code == 206
        assert b"".join(part.streaming_content) == b"ftyp"
        assert admin_client.get(poster)["Content-Type"] == "image/jpeg"

    def test_one_that_failed_says_why_and_is_retried(
        self, admin_client: Client, votable: list[Clip]
    ) -> None:
        failed, ready = votable[:2]
        Clip.objects.filter(pk=failed.pk).update(
            state=ClipState.FAILED, error="Out of memory.", attempts=3
        )
        assert "Out of memory." in admin_client.get(page_of(failed)).text
        assert "1 failed clips are waiting again." in act(
            admin_client, "retry_failed", failed, ready
        )
        failed.refresh_from_db()
        ready.refresh_from_db()
        assert (failed.state, failed.attempts, failed.error) == (ClipState.WAITING, 0, "")
        assert ready.state == ClipState.READY
        assert "None of the selected clips has failed" in act(admin_client, "retry_failed", ready)

    def test_are_filtered_and_found(self, admin_client: Client, votable: list[Clip]) -> None:
        clip = votable[0]
        listed = admin_client.get(changelist("generation_clip"))
        assert "Sharp" in listed.text
        for query, wanted in (
            ({"q": "few-2"}, {c.pk for c in votable if c.prompt.key == "few-2"}),
            ({"state__exact": "failed"}, set()),
            (
                {"version__id__exact": str(clip.version_id)},
                {c.pk for c in votable if c.version_id == clip.version_id},
            ),
        ):
            found = admin_client.get(changelist("generation_clip"), query).context["cl"]
            assert {c.pk for c in found.result_list} == wanted

    def test_a_missing_file_is_not_found(self, admin_client: Client, votable: list[Clip]) -> None:
        clip = votable[0]
        clip.rendition.storage.delete(clip.rendition.name)
        assert admin_client.get(page_of(clip, "rendition")).status_code == 404
        address = page_of(clip, "rendition").replace(str(clip.pk), str(uuid.uuid4()))
        assert admin_client.get(address).status_code == 404


class TestTheLedger:
    def test_nothing_is_added_changed_or_deleted_but_exclusions_are_added(
        self, admin_client: Client, admin_user: User, make_votes: Callable
    ) -> None:
        vote = make_votes(1)[0]
        entry = Exclusion.objects.create(action="exclude", vote=vote, reason="bot", by=admin_user)
        refit(Category.T2V_SILENT)
        board = Leaderboard.objects.get()
        rows = (vote, entry, vote.voter, vote.battle, vote.battle.clip_a, board)
        for row in rows:
            assert admin_client.get(page_of(row)).status_code == 200
            assert admin_client.get(page_of(row, "delete")).status_code == 403
            assert admin_client.post(page_of(row, "delete"), {"post": "yes"}).status_code == 403
            form = {"choice": "b", "reason": "other", "simulated": "on", "state": "failed"}
            assert admin_client.post(page_of(row), form).status_code == 403
            act(admin_client, "delete_selected", row, post="yes")
            before = type(row).objects.filter(pk=row.pk).values().get()
            assert before == {f.attname: getattr(row, f.attname) for f in row._meta.concrete_fields}
            if row is not entry:
                add = reverse(f"admin:{row._meta.db_table}_add")
                assert admin_client.get(add).status_code == 403

    def test_deleting_something_else_never_takes_entries_along(
        self, admin_client: Client, make_votes: Callable
    ) -> None:
        vote = make_votes(1)[0]
        colleague = User.objects.create_user("colleague", is_staff=True)
        Exclusion.objects.create(action="exclude", vote=vote, reason="bot", by=colleague)
        page = admin_client.post(page_of(colleague, "delete"), {"post": "yes"})
        assert page.status_code == 200
        assert "Cannot delete user" in page.text
        act(admin_client, "delete_selected", colleague, post="yes")
        prompt, version = vote.prompt, vote.version_a
        for row in (prompt, version, version.model):
            admin_client.post(page_of(row, "delete"), {"post": "yes"})
            assert type(row).objects.filter(pk=row.pk).exists()
        assert User.objects.filter(pk=colleague.pk).exists()
        assert Vote.objects.get() == vote
        assert Exclusion.objects.get().by == colleague
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            Exclusion.objects.update(reason="other")

    @pytest.mark.parametrize("field", ["vote", "voter"])
    def test_exclusion_asks_for_a_reason_and_is_withdrawn_by_another_entry(
        self, admin_client: Client, admin_user: User, make_votes: Callable, field: str
    ) -> None:
        votes = make_votes(3)
        chosen = votes[:2] if field == "vote" else [vote.voter for vote in votes[:2]]
        asked = act(admin_client, "exclude_from_ratings", *chosen)
        assert "Exclude: give a reason" in asked
        empty = act(admin_client, "exclude_from_ratings", *chosen, reason="  ")
        assert "This field is required." in empty
        assert not Exclusion.objects.exists()

        done = act(admin_client, "exclude_from_ratings", *chosen, reason="a bot")
        assert f"2 {field}s excluded from ratings" in done
        entries = list(Exclusion.objects.order_by("pk"))
        assert {getattr(entry, field) for entry in entries} == set(chosen)
        assert {(e.action, e.reason, e.by) for e in entries} == {("exclude", "a bot", admin_user)}

        twice = act(admin_client, "exclude_from_ratings", chosen[0], reason="again")
        assert "the ledger says so already" in twice
        assert Exclusion.objects.count() == 2

        act(admin_client, "include_again", chosen[0], reason="a mistake")
        latest = Exclusion.objects.latest("pk")
        assert (latest.action, getattr(latest, field)) == ("include", chosen[0])
        shown = admin_client.get(changelist("arena_vote")).context["cl"].result_list
        excluded = [vote.pk for vote in shown if "exclude" in (vote.latest, vote.latest_of_voter)]
        assert excluded == [votes[1].pk]
        assert "a mistake" in admin_client.get(page_of(chosen[0])).text

    def test_an_exclusion_takes_the_vote_out_of_the_next_leaderboard(
        self, admin_client: Client, make_votes: Callable
    ) -> None:
        votes = make_votes(4)
        assert refit(Category.T2V_SILENT).votes == 4
        act(admin_client, "exclude_from_ratings", votes[0].voter, reason="a bot")
        assert refit(Category.T2V_SILENT).votes == 3
        act(admin_client, "include_again", votes[0].voter, reason="a mistake")
        assert refit(Category.T2V_SILENT).votes == 4

    def test_too_many_at_once_are_refused(
        self, admin_client: Client, make_votes: Callable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("arena.admin.ledger.EXCLUDE_AT_ONCE", 2)
        votes = make_votes(3)
        page = act(
            admin_client, "exclude_from_ratings", votes[0], select_across="1", reason="a bot"
        )
        assert "More than 2 votes were selected, so nothing was recorded" in page
        assert not Exclusion.objects.exists()

    def test_excluding_needs_the_right_to_add_exclusions(
        self, operator: Callable, make_votes: Callable
    ) -> None:
        vote = make_votes(1)[0]
        viewer = operator("arena.view_vote", "arena.change_vote", "arena.delete_vote")
        act(viewer, "exclude_from_ratings", vote, reason="a bot")
        assert not Exclusion.objects.exists()

    def test_an_entry_is_about_one_thing_and_signed(
        self, admin_client: Client, admin_user: User, make_votes: Callable
    ) -> None:
        vote = make_votes(1)[0]
        add = reverse("admin:arena_exclusion_add")
        both = {"action": "exclude", "vote": str(vote.pk), "voter": str(vote.voter_id)}
        for form in (both, {"action": "exclude"}):
            page = admin_client.post(add, form | {"reason": "a bot"})
            errors = page.context["adminform"].form.errors
            assert errors == {
                "voter": ["An entry is about one voter or one vote. Give exactly one of them."]
            }
        unexplained = admin_client.post(add, {"action": "exclude", "vote": str(vote.pk)})
        assert list(unexplained.context["adminform"].form.errors) == ["reason"]
        assert not Exclusion.objects.exists()
        form = {"action": "exclude", "vote": str(vote.pk), "reason": "a bot"}
        assert admin_client.post(add, form).status_code == 302
        entry = Exclusion.objects.get()
        assert (entry.vote, entry.voter, entry.by) == (vote, None, admin_user)

    def test_a_voter_page_counts_the_votes(
        self, admin_client: Client, make_votes: Callable
    ) -> None:
        voter = make_votes(2)[0].voter
        page = admin_client.get(page_of(voter)).text
        assert re.search(r"Votes:</label>\s*<div class=\"readonly\">1</div>", page)
        assert f"vote/?voter__id__exact={voter.pk}" in page
        votes = admin_client.get(changelist("arena_vote"), {"voter__id__exact": str(voter.pk)})
        assert [vote.voter for vote in votes.context["cl"].result_list] == [voter]


def test_a_leaderboard_shows_its_standings(admin_client: Client, make_votes: Callable) -> None:
    make_votes(3)
    board = refit(Category.T2V_SILENT)
    page = admin_client.get(page_of(board)).text
    assert "Sharp" in page
    assert "Tardy" in page
    assert 'name="_save"' not in page
