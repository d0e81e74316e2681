"""An experiment with ready clips, and votes on it put straight into the ledger."""

from collections.abc import Callable

import numpy as np
from django.utils import timezone

from arena.experiments.start import start
from arena.models import Battle, BattleKind, Choice, Experiment, Panel, Vote, Voter
from generation.models import PromptSet, Version
from tests.panels import make_panel, make_prompt_set, propose, stock

PROMPTS = 12
DESIGN = {
    "candidate": "swift-2",
    "baseline": "swift-1",
    "category": "t2v-silent",
    "prompt_set": "quartet",
    "max_votes": 400,
    "margin": 60,
    "panels": ["judges"],
}  # as start_experiment starts it
OPTIONS = [
    "--candidate", "swift-2", "--baseline", "swift-1", "--category", "t2v-silent",
    "--prompt-set", "quartet", "--max-votes", "400", "--margin", "60", "--panel", "judges",
]  # fmt: skip


def set_scene(make_version: Callable[..., Version]) -> tuple[Version, Version]:
    """Two versions with all their clips, a prompt set and a panel."""
    versions = make_version("swift-2"), make_version("swift-1")
    prompt_set = make_prompt_set(prompts=PROMPTS, slots=1)
    for version in versions:
        stock(version, prompt_set)
    make_panel("judges")
    return versions


def start_experiment(make_version: Callable[..., Version], **fields: object) -> Experiment:
    candidate, baseline = set_scene(make_version)
    prompt_set, panel = PromptSet.objects.get(), Panel.objects.get()
    values = {"max_votes": 400, "margin": 60.0, **fields}
    return start(propose(candidate, baseline, prompt_set, panel, **values))


def cast(experiment: Experiment, wins: float, blocks: int = 100, voters: int = 12) -> None:
    """Both votes on so many blocks that have none yet; the candidate wins with this chance."""
    rng = np.random.default_rng(7)
    people = Voter.objects.bulk_create(Voter() for _ in range(voters))
    free = experiment.blocks.filter(battles=None).select_related("candidate_clip", "baseline_clip")
    battles, choices = [], []
    for number, block in enumerate(free[:blocks]):
        for left in (True, False):
            pair = [block.candidate_clip, block.baseline_clip]
            one, two = pair if left else pair[::-1]
            battles.append(
                Battle(
                    voter=people[(2 * number + left) % voters],
                    stream="panel",
                    category=experiment.category,
                    prompt=block.prompt,
                    clip_a=one,
                    clip_b=two,
                    draw_probability=1,
                    expires_at=timezone.now(),
                    kind=BattleKind.EXPERIMENT,
                    experiment=experiment,
                    block=block,
                )
            )
            won = rng.random() < wins
            choices.append(Choice.A if won == left else Choice.B)
    Battle.objects.bulk_create(battles)
    Vote.objects.bulk_create(
        Vote(
            battle=battle,
            voter=battle.voter,
            category=battle.category,
            version_a=battle.clip_a.version,
            version_b=battle.clip_b.version,
            prompt=battle.prompt,
            choice=choice,
            kind=battle.kind,
            experiment=experiment,
            simulated=False,
        )
        for battle, choice in zip(battles, choices, strict=True)
    )
