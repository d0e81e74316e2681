"""Starts experiments: what speaks against one, what is fixed, which clips are asked for."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q
from django.utils import timezone

from arena.experiment_pairs import Place, lay_out
from arena.models import Block, Experiment, ExperimentState, Half, Panel, Seat
from arena.panels import votes_left
from generation.backends import CannotRender
from generation.catalog import check_clip
from generation.categories import Category
from generation.models import RENDERED_STATES, Clip, ClipState, Prompt, PromptSet, Version
from generation.rendering import prompts_of, queue_clips, request_of, seed_of

# No verdict comes before 30 blocks (ratings/stats/sequential.py): fewer votes could only be
# inconclusive.
VOTES_AT_LEAST = 60
PROMPTS_AT_LEAST = VOTERS_AT_LEAST = 4  # nor does one come from fewer
# A margin of 5 Elo takes some 40,000. All blocks are laid out at once, in some seconds.
VOTES_AT_MOST = 100_000
CHECK_PROMPTS = 12  # a voter of a hundred pairs meets six degraded clips
MARGIN_AT_MOST = 400  # Elo: ten wins to one


class NotStarted(Exception):
    """The experiment was refused; each sentence is one reason."""

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__(" ".join(sentences))
        self.sentences = list(sentences)


@dataclass(frozen=True)
class Proposal:
    """What an experiment would fix; see `arena.models.Experiment` for what each number means."""

    name: str
    candidate: Version
    baseline: Version
    category: str
    prompt_set: PromptSet
    seed_slots: int = 1
    margin: float = 25.0
    alpha: float = 0.05
    beta: float = 0.05
    max_votes: int = 3000
    public_share: float = 0.0
    muted_share: float = 0.0
    webhook: str = ""
    panels: tuple[Panel, ...] = ()
    created_by: str = ""

    @property
    def versions(self) -> tuple[Version, Version]:
        return self.candidate, self.baseline


def default_name(candidate: Version, baseline: Version, category: str) -> str:
    """Of an experiment that nobody named."""
    kind = dict(Category.choices).get(category, category).replace(",", "").lower()
    return f"{candidate.name} against {baseline.name}, {kind}"[:120]


# What makes two experiments one: with the same of all this a second would ask the same question.
DESIGN = (
    "candidate", "baseline", "category", "prompt_set", "seed_slots", "margin", "alpha", "beta",
    "max_votes", "public_share", "muted_share",
)  # fmt: skip


# --- what speaks against it ----------------------------------------------------------------------


def objections(proposal: Proposal) -> list[str]:
    """Why this experiment can't be started, a sentence each; empty if it can."""
    found = [*_about_numbers(proposal), *_about_voters(proposal)]
    if proposal.candidate == proposal.baseline:
        return [*found, f"{proposal.candidate.slug} is on both sides: choose another baseline."]
    if proposal.category not in Category.values:
        known = ", ".join(Category.values)
        return [*found, f"There is no category “{proposal.category}”; there are {known}."]
    about_versions = [
        sentence for version in proposal.versions for sentence in _about_version(proposal, version)
    ]
    about_prompts = list(_about_prompts(proposal))
    if about_versions or about_prompts:
        return [*found, *about_versions, *about_prompts]
    return [*found, *_about_clips(proposal)]


def _about_numbers(proposal: Proposal) -> Iterator[str]:
    if not 0 < len(proposal.name) <= 120:
        yield "An experiment needs a name of at most 120 characters."
    if not 0 < proposal.margin <= MARGIN_AT_MOST:
        yield (
            f"The margin is {proposal.margin:g} Elo: give how much worse must not pass, above 0 "
            f"and at most {MARGIN_AT_MOST}."
        )
    for name, value in (("alpha", proposal.alpha), ("beta", proposal.beta)):
        if not 0 < value < 0.5:
            yield f"{name.capitalize()} is {value:g}: give a chance above 0 and below 0.5."
    votes = proposal.max_votes
    if not VOTES_AT_LEAST <= votes <= VOTES_AT_MOST or votes % 2:
        yield (
            f"The most votes are {votes}: give an even number, as each pair is judged twice, from "
            f"{VOTES_AT_LEAST} to {VOTES_AT_MOST}."
        )
    for name, share in (
        ("public share", proposal.public_share),
        ("muted share", proposal.muted_share),
    ):
        if not 0 <= share <= 1:
            yield f"The {name} is {share:g}: give a share from 0 to 1."


def _about_voters(proposal: Proposal) -> Iterator[str]:
    if not proposal.panels and not proposal.public_share > 0:
        yield "Nobody may vote: name a panel, or give the public stream a share."
    if proposal.webhook:
        try:
            parts = urlsplit(proposal.webhook)
            right = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            right = False
        if not right or len(proposal.webhook) > 500:
            yield (
                f"The webhook is “{proposal.webhook[:100]}”: give an address that begins with "
                "https:// or http://, of at most 500 characters."
            )
        elif "@" in parts.netloc:
            yield "The webhook holds a user name: leave it out, what is sent is signed instead."
        if not settings.WEBHOOK_SECRET:
            yield (
                "There is no WEBHOOK_SECRET to sign the webhook with: set it at the site, or leave "
                "the webhook out."
            )


def _about_version(proposal: Proposal, version: Version) -> Iterator[str]:
    if version.state not in RENDERED_STATES:
        yield f"{version.slug} is {version.get_state_display().lower()}: put it on trial first."
    if proposal.category not in version.categories:
        yield (
            f"{version.slug} does not make {proposal.category}; it makes "
            f"{', '.join(version.categories)}."
        )


def _about_prompts(proposal: Proposal) -> Iterator[str]:
    prompt_set, slots = proposal.prompt_set, proposal.seed_slots
    prompts = prompts_of(prompt_set, Category(proposal.category)).count()
    if prompts < PROMPTS_AT_LEAST:
        yield (
            f"The prompt set {prompt_set.slug} has {prompts or 'no'} "
            f"prompt{'s' if prompts > 1 else ''} for {proposal.category}: a verdict needs "
            f"{PROMPTS_AT_LEAST} or more."
        )
    if not 1 <= slots <= prompt_set.seed_slots:
        yield (
            f"{slots} clip pairs per prompt are asked for; the prompt set {prompt_set.slug} has "
            f"1 to {prompt_set.seed_slots}."
        )
    if proposal.muted_share > 0 and not Category(proposal.category).audio:
        yield f"{proposal.category} has no sound to mute: make the muted share 0."


def _about_clips(proposal: Proposal) -> Iterator[str]:
    """Clips that are not there must be such as the version's backend can make."""
    category = Category(proposal.category)
    prompts = list(prompts_of(proposal.prompt_set, category).select_related("image"))
    for version in proposal.versions:
        ready = _ready(proposal, version)
        missing = [place for place in _places(proposal, prompts) if place not in ready]
        if version.backend == "imported":
            if missing:
                yield (
                    f"{version.slug} is made of imported clips and lacks {len(missing)} of "
                    f"{len(prompts) * proposal.seed_slots}: import them first."
                )
            continue
        wanted = {prompt for prompt, _ in missing}
        refused = {}
        for prompt in prompts:
            if prompt.pk in wanted and (said := _cannot_make(version, category, prompt)):
                refused[prompt.key] = said
        if refused:
            key, said = next(iter(refused.items()))
            yield (
                f"{version.slug} can't make {len(refused)} of the {len(prompts)} prompts, such as "
                f"{key}: {said}"
            )


def _cannot_make(version: Version, category: Category, prompt: Prompt) -> str:
    try:
        check_clip(version, category, request_of(prompt, category, seed_of(prompt, 0)))
    except CannotRender as error:
        return str(error)
    return ""


def _places(proposal: Proposal, prompts: Sequence[Prompt]) -> list[Place]:
    """Prompt and seed slot of each clip pair."""
    return [(prompt.pk, slot) for prompt in prompts for slot in range(proposal.seed_slots)]


def _ready(proposal: Proposal, version: Version) -> set[Place]:
    clips = Clip.objects.filter(
        version=version,
        category=proposal.category,
        prompt__sets=proposal.prompt_set,
        seed_slot__lt=proposal.seed_slots,
        state=ClipState.READY,
    )
    return set(clips.values_list("prompt_id", "seed_slot"))


def clips_missing(proposal: Proposal) -> dict[str, int]:
    """How many clips of each version must still be made, by its slug.

    On average, where the votes are too few to show all clip pairs.
    """
    prompts = list(prompts_of(proposal.prompt_set, Category(proposal.category)))
    places = set(_places(proposal, prompts))
    shown = min(1.0, proposal.max_votes / 2 / max(1, len(places)))
    return {v.slug: round(shown * len(places - _ready(proposal, v))) for v in proposal.versions}


def votes_of_panels(proposal: Proposal) -> int | None:
    """The most that the panels' seats can give it; None where the public votes, too.

    A block takes two of them, so of an odd number one is over on each clip pair.
    """
    if proposal.public_share > 0:
        return None
    prompts = list(prompts_of(proposal.prompt_set, Category(proposal.category)))
    places = set(_places(proposal, prompts))
    left = votes_left(proposal.panels, proposal.versions, proposal.category, places)
    seats = Seat.objects.filter(panel__in=proposal.panels, revoked=False).count()
    return min(left, seats // 2 * 2 * len(places))


def rivals(proposal: Proposal) -> list[Experiment]:
    """Running experiments that ask some of the same voters, oldest first."""
    asked = Q(panels__in=proposal.panels)
    if proposal.public_share > 0:
        asked |= Q(public_share__gt=0, category=proposal.category)
    running = Experiment.objects.filter(asked, state=ExperimentState.RUNNING)
    return list(running.distinct().order_by("created_at"))


def shows_the_same(proposal: Proposal, rival: Experiment) -> bool:
    """Whether clip pairs of both are the same: a voter who met one there can't judge it here."""
    return (
        {rival.candidate_id, rival.baseline_id} == {version.pk for version in proposal.versions}
        and rival.category == proposal.category
        and PromptSet.objects.filter(
            pk=proposal.prompt_set.pk, prompts__sets=rival.prompt_set_id
        ).exists()
    )


# --- starting ------------------------------------------------------------------------------------


@transaction.atomic
def start(proposal: Proposal) -> Experiment:
    """Fix the experiment; NotStarted with sentences if something speaks against it.

    1. Shuffle the clip pairs, by the experiment's id: one that is stopped early must not have seen
       only the prompts that stand first in the set.
    2. Ask for the missing clips that will be shown, in that order. What failed stays so, and is
       among the experiment's obstacles.
    3. Lay out the blocks, and let the panels in.
    """
    if sentences := objections(proposal):
        raise NotStarted(sentences)
    fixed = {name: getattr(proposal, name) for name in DESIGN}
    experiment = Experiment.objects.create(
        name=proposal.name, webhook=proposal.webhook, created_by=proposal.created_by, **fixed
    )
    rng = random.Random(experiment.pk.int)
    category = Category(proposal.category)
    order = _places(proposal, list(prompts_of(proposal.prompt_set, category)))
    rng.shuffle(order)
    order = order[: proposal.max_votes // 2]
    for version in proposal.versions:
        if version.backend == "imported":
            continue
        ready = _ready(proposal, version)
        wanted = {place: rank for rank, place in enumerate(order) if place not in ready}
        queued = queue_clips(category, proposal.prompt_set, [version], ranks=wanted)
        if queued.refused:
            raise NotStarted(queued.refused)
    lay_out(experiment, order, rng)
    experiment.panels.set(proposal.panels)
    return experiment


def check_prompts(experiment: Experiment) -> list[Prompt]:
    """The prompts on whose clips this experiment's voters are checked: the first that it shows."""
    chosen: dict[int, Prompt] = {}
    first = experiment.blocks.filter(position__lt=CHECK_PROMPTS * experiment.seed_slots)
    for block in first.select_related("prompt__image"):
        chosen.setdefault(block.prompt_id, block.prompt)
    return list(chosen.values())[:CHECK_PROMPTS]


def same_design(proposal: Proposal) -> Experiment | None:
    """The newest experiment that asks this very question of just these panels, not a cancelled
    one."""
    same = Experiment.objects.exclude(state=ExperimentState.CANCELLED).filter(
        **{name: getattr(proposal, name) for name in DESIGN}
    )
    newest_first = same.order_by("-created_at").prefetch_related("panels")
    panels = set(proposal.panels)
    return next((found for found in newest_first if set(found.panels.all()) == panels), None)


def cancel(experiment: Experiment) -> bool:
    """Ask nobody any more; votes stay. False if it was not running."""
    running = Experiment.objects.filter(pk=experiment.pk, state=ExperimentState.RUNNING)
    return running.update(state=ExperimentState.CANCELLED) == 1


# --- going on ------------------------------------------------------------------------------------


def obstacles(experiment: Experiment) -> list[str]:
    """What keeps a running experiment from its verdict until somebody acts, a sentence each.

    Six queries; none for one that is not running.
    """
    if experiment.state != ExperimentState.RUNNING:
        return []
    return [*_failed_clips(experiment), *_used_up_panels(experiment)]


def _failed_clips(experiment: Experiment) -> Iterator[str]:
    asked = Block.objects.filter(experiment=experiment).filter(
        Exists(Half.objects.filter(block=OuterRef("pk"), voted=False))
    )
    failed = Clip.objects.filter(state=ClipState.FAILED).filter(
        Q(pk__in=asked.values("candidate_clip")) | Q(pk__in=asked.values("baseline_clip"))
    )
    by_version = failed.values_list("version__slug").annotate(Count("pk"))
    for slug, count in by_version.order_by("version__slug"):
        yield (
            f"{count} clip{'s' if count > 1 else ''} of {slug} failed, and nobody can be shown "
            "their pairs: mend the cause, then “Retry failed” on the clips in the admin."
        )


def _used_up_panels(experiment: Experiment) -> Iterator[str]:
    """Where the public votes, too, new voters can always come."""
    if experiment.public_share > 0:
        return
    seats = Seat.objects.filter(panel__experiments=experiment, revoked=False).count()
    if seats < VOTERS_AT_LEAST:
        yield (
            f"Its panels have {seats or 'no'} seat{'' if seats == 1 else 's'}, and a verdict takes "
            f"{VOTERS_AT_LEAST} voters: add seats."
        )
        return
    unvoted = Half.objects.filter(experiment=experiment, voted=False)
    if unvoted.filter(held_until__gt=timezone.now()).exists():
        return  # somebody is at it
    open_places = unvoted.exclude(block__candidate_clip__state=ClipState.FAILED).exclude(
        block__baseline_clip__state=ClipState.FAILED
    )
    places = set(open_places.values_list("block__prompt_id", "block__seed_slot").distinct())
    versions = experiment.candidate, experiment.baseline
    if places and not votes_left(experiment.panels.all(), versions, experiment.category, places):
        yield (
            "Every seat of its panels has given its quota or has met all clip pairs that are left: "
            "add seats, raise the quota, or cancel it."
        )
