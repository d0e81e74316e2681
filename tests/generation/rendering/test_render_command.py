"""`render` queues, retries, watches and counts what its options select, and nothing else."""

import io
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from decimal import Decimal

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connection

from arena.local.demo import VERSIONS
from generation.catalogue.categories import Category
from generation.management.commands import render as command
from generation.models import Clip, ClipState, PromptSet, Version
from generation.rendering.claims import claim_clip
from generation.rendering.queue import queue_clips
from tests.generation.hosted.services.test_fal import FalStandIn

pytestmark = pytest.mark.django_db

WHICH = ("--category", "t2v-silent", "--prompt-set", "few")


def render(*more: str, wait: bool = False) -> str:
    out = io.StringIO()
    call_command("render", *WHICH, *(() if wait else ("--no-wait",)), *more, stdout=out)
    return out.getvalue()


@pytest.fixture
def rival(few: PromptSet, make_version: Callable[..., Version]) -> Version:
    return make_version(
        "rival",
        backend="fal",
        settings=FalStandIn.settings,
        price_per_second=Decimal("0.1"),
        budget=10,
    )


def fail_all() -> None:
    Clip.objects.update(state=ClipState.FAILED, error="Oh no.", attempts=3)


def failed() -> set[str]:
    chosen = Clip.objects.filter(state=ClipState.FAILED).select_related("prompt", "version")
    return {f"{clip.version.slug} {clip.prompt.key} {clip.category}" for clip in chosen}


def test_retries_what_was_selected_and_nothing_else(few: PromptSet, two_versions) -> None:
    for category in (Category.T2V_SILENT, Category.T2V_AUDIO):
        queue_clips(category, few)
    fail_all()
    said = render("--version-slug", "sharp", "--limit", "1", "--retry-failed")
    assert "1 failed clip waits again." in said
    keys = [entry.prompt.key for entry in few.entries.order_by("position")]
    everything = {
        f"{slug} {clip.prompt.key} {clip.category}"
        for slug in ("sharp", "tardy")
        for clip in Clip.objects.all()
    }
    assert failed() == everything - {f"sharp {keys[0]} t2v-silent"}


def test_watches_and_counts_what_was_selected_and_nothing_else(
    few: PromptSet, two_versions
) -> None:
    """Clips of others that failed, or wait for ever, are none of this command's."""
    queue_clips(Category.T2V_SILENT, few)
    first = few.prompts.order_by("entries__position").first()
    chosen = Clip.objects.filter(version__slug="sharp", prompt=first)
    fail_all()
    Clip.objects.filter(version__slug="tardy").update(state=ClipState.WAITING, error="")
    with pytest.raises(CommandError, match="1 clip failed; mend"):
        render("--version-slug", "sharp", "--limit", "1", wait=True)
    assert chosen.get().state == ClipState.FAILED


def test_says_how_far_it_is_without_a_terminal(
    few: PromptSet, two_versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "WATCH_EVERY", 0.01)
    monkeypatch.setattr(command, "LINE_EVERY", 0.02)
    queue_clips(Category.T2V_SILENT, few, limit=1)
    Clip.objects.update(state=ClipState.FAILED, error="Oh no.")
    Clip.objects.filter(version__slug="sharp").update(state=ClipState.WAITING, error="")
    looked, sleep = [], time.sleep

    def look(seconds: float) -> None:
        looked.append(seconds)
        sleep(seconds)
        if len(looked) == 6:
            Clip.objects.update(state=ClipState.FAILED, error="Oh no.")

    monkeypatch.setattr(command.time, "sleep", look)
    out = io.StringIO()
    with pytest.raises(CommandError, match="2 clips failed"):
        call_command("render", *WHICH, "--limit", "1", stdout=out)
    lines = [line for line in out.getvalue().splitlines() if "clips ready" in line]
    assert lines[0] == "0 of 2 clips ready, 1 failed, 1 to go."
    assert len(lines) >= 3
    assert lines[-1] == "0 of 2 clips ready, 2 failed, 0 to go."


class TestPaid:
    def test_a_bare_render_orders_nothing_and_says_so(self, rival: Version, two_versions) -> None:
        said = render()
        assert "Left out, as paid services make their clips: rival." in said
        assert "4 clips queued" in said
        assert not rival.clips.exists()

    @pytest.mark.parametrize("how", [("--paid",), ("--version-slug", "rival")])
    def test_what_was_asked_for_is_queued(
        self, rival: Version, two_versions, how: tuple[str, ...]
    ) -> None:
        assert "Left out" not in render(*how)
        assert rival.clips.count() == 2

    def test_a_retry_of_everything_leaves_paid_clips_alone(
        self, rival: Version, few: PromptSet, two_versions
    ) -> None:
        queue_clips(Category.T2V_SILENT, few, paid=True)
        fail_all()
        assert "4 failed clips wait again." in render("--retry-failed")
        assert {slug.split()[0] for slug in failed()} == {"rival"}
        assert "2 failed clips wait again." in render("--retry-failed", "--paid")

    def test_the_demo_names_its_own_versions(self) -> None:
        file = django_settings.BASE_DIR / "generation" / "catalogue" / "catalogue.toml"
        models = tomllib.loads(file.read_text())["model"]
        active = [
            version["slug"]
            for model in models
            for version in model["version"]
            if version["state"] == "active"
        ]
        assert sorted(VERSIONS) == sorted(active)


class TestNothing:
    def test_for_no_version_says_why(self, few: PromptSet) -> None:
        out = io.StringIO()
        with pytest.raises(CommandError, match="Nothing is selected, for the reasons above"):
            call_command("render", *WHICH, stdout=out)
        assert "No version that makes it is active or on trial." in out.getvalue()

    def test_for_no_prompt_says_why(self, few: PromptSet, two_versions) -> None:
        few.entries.filter(prompt__image__isnull=False).delete()
        out = io.StringIO()
        with pytest.raises(CommandError, match="Nothing is selected"):
            call_command("render", "--category", "i2v-silent", "--prompt-set", "few", stdout=out)
        assert "few has no prompt for it: one needs a reference image" in out.getvalue()

    def test_but_paid_versions_says_how_to_ask_for_them(self, rival: Version) -> None:
        out = io.StringIO()
        with pytest.raises(CommandError, match="Nothing is selected"):
            call_command("render", *WHICH, stdout=out)
        assert "Name them with --version-slug, or use --paid." in out.getvalue()


class TestPriority:
    def test_says_what_is_rendered_first(self, few: PromptSet, two_versions) -> None:
        render("--version-slug", "sharp")
        render("--version-slug", "tardy", "--priority", "5")
        first = [claim_clip("test") for _ in range(4)]
        assert [clip.version.slug for clip in first if clip] == ["tardy"] * 2 + ["sharp"] * 2

    def test_is_given_to_what_waits_already(self, few: PromptSet, two_versions) -> None:
        render()
        render("--version-slug", "tardy", "--limit", "1", "--priority", "7")
        clip = claim_clip("test")
        assert clip is not None
        assert (clip.version.slug, clip.priority, clip.position) == ("tardy", 7, 0)
        assert Clip.objects.filter(priority=7).count() == 1

    @pytest.mark.parametrize("wrong", ["high", "1001", "0.5"])
    def test_that_is_none_is_refused(self, few: PromptSet, wrong: str) -> None:
        with pytest.raises(CommandError, match=f"“{re.escape(wrong)}” is no priority"):
            render("--priority", wrong)


@pytest.mark.django_db(transaction=True)
def test_ctrl_c_says_that_clips_stay_queued(few: PromptSet, two_versions) -> None:
    env = {
        **os.environ,
        "DATABASE_URL": os.environ["DATABASE_URL"].rsplit("/", 1)[0]
        + "/"
        + connection.settings_dict["NAME"],
        "REDIS_URL": django_settings.CELERY_BROKER_URL,
        "PYTHONUNBUFFERED": "1",
    }
    started = subprocess.Popen(
        [sys.executable, "manage.py", "render", *WHICH],
        cwd=django_settings.BASE_DIR,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    for line in started.stdout:
        if "to go" in line:
            break
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "what was queued stays queued" in said
    assert "Traceback" not in said
    assert Clip.objects.filter(state=ClipState.WAITING).count() == 4
