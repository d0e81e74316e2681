"""An experiment with clips that were never rendered, and a panel: enough to draw and to vote."""

import uuid
from collections.abc import Callable

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client

from arena.experiments.panels import add_members
from arena.experiments.proposal import Proposal
from arena.models import Battle, Member, Panel
from generation.media.profile import PROFILE
from generation.models import Clip, ClipState, Prompt, PromptSet, PromptSetEntry, Version
from generation.rendering.queue import seed_of
from tests.arena.voting.test_vote import JSON, battle_on

PROMPTS, SLOTS = 4, 1


def make_prompt_set(prompts: int = PROMPTS, slots: int = SLOTS) -> PromptSet:
    """Text to video, silent and with sound."""
    prompt_set = PromptSet.objects.create(
        slug="quartet", name="Quartet", seed_slots=slots, digest="0"
    )
    for position in range(prompts):
        prompt = Prompt.objects.create(
            key=f"quartet-{position}",
            text="a big red circle bounces by day",
            tags=["round"],
            sounds=["silent", "audio"],
            aspect="1:1",
            seconds=1,
        )
        PromptSetEntry.objects.create(prompt_set=prompt_set, prompt=prompt, position=position)
    return prompt_set


def stock(version: Version, prompt_set: PromptSet, category: str = "t2v-silent") -> list[Clip]:
    """Ready clips of the whole set, with files that hold nothing."""
    name = default_storage.save(f"stock/{uuid.uuid4()}.mp4", ContentFile(b"a clip"))
    return Clip.objects.bulk_create(
        Clip(
            version=version,
            prompt=prompt,
            category=category,
            seed_slot=slot,
            seed=seed_of(prompt, slot),
            state=ClipState.READY,
            master=name,
            rendition=name,
            poster=name,
            rendition_sha256="0" * 64,
            profile=PROFILE.number,
        )
        for prompt in prompt_set.prompts.order_by("key")
        for slot in range(prompt_set.seed_slots)
    )


def make_panel(slug: str = "judges", quota: int = 100, members: int = 0) -> Panel:
    panel = Panel.objects.create(slug=slug, name=slug.capitalize(), quota=quota)
    add_members(panel, members)
    return panel


def sit_down(member: Member) -> Client:
    """A browser that accepted the member's invitation."""
    client = Client()
    assert client.post(f"/panel/{member.token}/").status_code in (200, 303)
    member.refresh_from_db()
    return client


def propose(
    candidate: Version, baseline: Version, prompt_set: PromptSet, *panels: Panel, **fields: object
) -> Proposal:
    values: dict[str, object] = {
        "name": "Is it worse?",
        "category": "t2v-silent",
        "seed_slots": prompt_set.seed_slots,
        "max_votes": 60,
        "created_by": "tests",
    }
    return Proposal(
        candidate=candidate,
        baseline=baseline,
        prompt_set=prompt_set,
        panels=panels,
        **{**values, **fields},  # type: ignore[arg-type]
    )


def judge(
    client: Client,
    choose: Callable[[Battle], str] = lambda battle: "tie",
    path: str = "/vote/panel/",
) -> Battle | None:
    """Take the next pair and answer it; None when there is none."""
    shown = battle_on(client, path)
    if shown is None:
        return None
    battle = Battle.objects.select_related("clip_a__version", "clip_b__version", "block").get(
        pk=shown["id"]
    )
    answer = client.post(shown["vote_url"], {"choice": choose(battle)}, **JSON)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return battle
