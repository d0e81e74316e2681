"""A version that was never active is named nowhere: not to the public, nor to an operator who may
not view versions, in whatever state it is by now. For them it does not exist."""

import re
from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from generation.models import Model, PromptSet, Version, VersionState
from ratings.models import Leaderboard, Standing

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
SILENT = "t2v-silent"
NEVER_ACTIVE = [VersionState.DRAFT, VersionState.TRIAL, VersionState.PAUSED, VersionState.RETIRED]
NOBODY = "no-such-thing"
# Addresses that lead to other people's pairs and to single rows; the test of voting walks those.
OWN = ("battles/", "panel/", "experiments/<", "api/plans/<", "api/experiments/<", "admin/")


def patterns(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    for part in resolver.url_patterns:
        route = prefix + str(part.pattern)
        if isinstance(part, URLResolver):
            yield from patterns(part, route)
        elif isinstance(part, URLPattern):
            yield route


def addresses(slug: str, model: str) -> list[str]:
    """Every public address, with a slug in each place and each query that takes one."""
    found = []
    for route in patterns(get_resolver()):
        route = route.replace("^", "").replace("$", "")
        if route.startswith(OWN):
            continue
        bare = (
            route.replace("<slug:category>", SILENT)
            .replace("<slug:stream>", SILENT)
            .replace("<str:slug>", model)
        )
        assert "<" not in bare, f"{route}: say here what to put into it"
        found += [f"/{bare}", f"/{bare}?slice={slug}", f"/{bare}?since={slug}"]
        found += [f"/{bare}?candidate={slug}&baseline={slug}"]
    page = "/admin/login/?next=/models/"
    return [
        *found, f"/leaderboards/{slug}/", f"/leaderboards/{slug}.csv", f"/leaderboards/{slug}.json",
        f"/vote/{slug}/", f"/models/{slug}/", f"/models/mine/?since={slug}",
        f"/experiments/new/?candidate={slug}", f"{page}{model}/",
        f"/admin/generation/version/?q={slug}", f"/admin/autocomplete/?term={slug}",
    ]  # fmt: skip


def said(answer: HttpResponse, *names: str) -> tuple[int, str]:
    """Status and body, without the asked slugs, which an address may repeat, and without what
    differs from one answer to the next: tokens against forged requests, and pairs."""
    body = f"{answer.headers.get('Location', '')} {answer.content.decode(errors='replace')}"
    for name in (*names, NOBODY):
        body = body.replace(name, "-")
    return answer.status_code, re.sub(
        r'value="\w{64}"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-\w{12}', "", body
    )


@pytest.fixture
def hidden(make_version: Callable[..., Version], few: PromptSet) -> list[Version]:
    """Two public versions of one model, and of it and of a model of their own all others."""
    mine = Model.objects.create(
        slug="mine", name="Mine", lab="Us", weights="closed", in_house=True, description="Shown."
    )
    for slug in ("shown-1", "shown-2"):
        make_version(slug, model=mine, categories=[SILENT])
    kept = Model.objects.create(
        slug="zebra-model", name="Zebra model", lab="Zebra lab", weights="closed", in_house=True
    )
    made = []
    for model in (mine, kept):
        for state in NEVER_ACTIVE:
            slug = f"zebra-{model.slug}-{state}"
            # Entered, as the natural end of a candidate that failed: never active in between.
            version = make_version(slug, model=model, state="trial", categories=[SILENT])
            Version.objects.filter(pk=version.pk).update(state=state)
            made.append(version)
    board = Leaderboard.objects.create(
        category=SILENT, last_vote_id=1, last_exclusion_id=0, simulated_counted=False, votes=400,
        simulated_votes=0, voters=40, prompts=20, method="", settings={}, seconds=1,
    )  # fmt: skip
    # No vote of the arena can name them; if a row ever did, it is not shown either.
    Standing.objects.bulk_create(
        Standing(leaderboard=board, version=version, rating=1000, low=900, high=1100, rank_low=1,
                 rank_high=2, votes=400, win_rate=0.5)
        for version in Version.objects.all()
    )  # fmt: skip
    return made


@pytest.fixture(params=["the public", "a clerk"])
def visitor(request: pytest.FixtureRequest, client: Client) -> Client:
    """Who may not view versions. The clerk may see experiments and that is no help to them."""
    if request.param == "a clerk":
        clerk = User.objects.create_user("clerk", is_staff=True)
        clerk.user_permissions.add(Permission.objects.get(codename="view_prompt"))
        client.force_login(clerk)
    return client


def test_what_was_never_active_does_not_exist(visitor: Client, hidden: list[Version]) -> None:
    visitor.get("/vote/")  # the voter's cookie is there from now on
    # One model has public versions and so a page; of the other, nothing at all is there.
    nothing = {
        model: [said(visitor.get(address), model) for address in addresses(NOBODY, instead)]
        for model, instead in (("mine", "mine"), ("zebra-model", NOBODY))
    }
    for version in hidden:
        model = version.model.slug
        asked = addresses(version.slug, model)
        for address, wanted in zip(asked, nothing[model], strict=True):
            answer = visitor.get(address)
            assert said(answer, version.slug, model) == wanted, address
            page = answer.content.decode(errors="replace").replace(address, "")
            assert version.name not in page, address
            assert "Zebra" not in page, address
    assert visitor.get("/models/mine/?since=shown-1").status_code == 200


@pytest.mark.parametrize("state", [VersionState.PAUSED, VersionState.RETIRED, VersionState.TRIAL])
def test_what_was_active_once_stays(
    client: Client, make_version: Callable[..., Version], state: str
) -> None:
    version = make_version("old")
    Version.objects.filter(pk=version.pk).update(state=state)
    assert "Old" in client.get("/models/").text
    assert f'tag {state}">{state}' in client.get("/models/scenes/").text


@pytest.mark.parametrize("state", NEVER_ACTIVE)
def test_an_operator_who_may_view_versions_sees_them(
    client: Client, hidden: list[Version], state: str
) -> None:
    user = User.objects.create_user("olga", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_version"))
    client.force_login(user)
    page = client.get("/models/zebra-model/").text
    assert (f"Zebra zebra model {state}" in page) == (state != VersionState.DRAFT)


class TestWhenItFirstBecameActive:
    def test_is_noted_whoever_writes_the_state(self, make_version: Callable[..., Version]) -> None:
        version = make_version("one", state="trial")
        version.refresh_from_db()
        assert version.activated_at is None
        Version.objects.filter(pk=version.pk).update(state="active")
        version.refresh_from_db()
        first = version.activated_at
        assert first is not None
        version.state = "retired"
        version.activated_at = None  # a row that was read before it was activated
        version.save()
        Version.objects.filter(pk=version.pk).update(state="active")
        version.refresh_from_db()
        assert version.activated_at == first

    def test_a_restored_row_keeps_it(self, make_version: Callable[..., Version]) -> None:
        version = make_version("one")
        version.refresh_from_db()
        copy = make_version("two", state="retired", activated_at=version.activated_at)
        copy.refresh_from_db()
        assert copy.activated_at == version.activated_at

    def test_a_clerk_cannot_set_it(self, make_version: Callable[..., Version]) -> None:
        with connection.cursor() as cursor:
            version = make_version("one")
            cursor.execute(
                "UPDATE generation_version SET activated_at = NULL WHERE id = %s", [version.pk]
            )
        version.refresh_from_db()
        assert version.activated_at is not None
