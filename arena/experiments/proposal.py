"""What somebody proposes as an experiment, and the objections to it.

The page's form, the API and the commands read the same schema, `ProposalInput`, and an objection
names its field. What the schema alone can't know, such as whether a version makes the
category, is checked against the database by `objections`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from django.conf import settings
from django.db.models import Count, QuerySet
from django.db.models import Model as Row
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from arena.experiments.slots import PairKey
from arena.models import Panel
from generation.backends import CannotRender
from generation.backends.registry import IMPORTED
from generation.catalogue.categories import Category
from generation.catalogue.entries import check_clip
from generation.models import RENDERED_STATES, Clip, ClipState, Prompt, PromptSet, Version
from generation.rendering.queue import prompts_of, request_of, seed_of
from ratings.least_numbers import (
    LEAST_CHANCE,
    LEAST_MARGIN,
    LEAST_PROMPTS,
    LEAST_VOTERS,
    LEAST_VOTES,
)

# A margin of 5 Elo takes some 40,000. All blocks are laid out at once, in some seconds.
MOST_VOTES = 100_000
MOST_MARGIN = 400  # Elo: ten wins to one. A larger loss needs no experiment
MOST_PLANNED_VOTERS = 10_000
NAME_LENGTH = 120
ERROR_CHARACTERS = 500  # of a clip's error that are quoted
WEBHOOK_LENGTH = 500
# Who votes where nobody is named: this share of the category's pairs in the public stream.
DEFAULT_PUBLIC_SHARE = 0.25

Slug = Annotated[str, StringConstraints(max_length=80, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Chance = Annotated[FiniteFloat, Field(ge=LEAST_CHANCE, lt=0.5)]
Named = TypeVar("Named", bound=Row)
Read = TypeVar("Read", bound=BaseModel)


@dataclass(frozen=True)
class Objection:
    """Why a proposal is refused: the field it is about, a code for programs, and a sentence."""

    field: str
    code: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.field}: {self.sentence}" if self.field else self.sentence


CLIPS_MISSING, CLIPS_REFUSED, CLIPS_FAILED = "clips_missing", "clips_refused", "clips_failed"


class NotStarted(Exception):
    """The proposal was refused, for all of these reasons."""

    def __init__(self, objections: Sequence[Objection]) -> None:
        super().__init__(" ".join(map(str, objections)))
        self.objections = list(objections)

    @property
    def lacks_clips(self) -> bool:
        """Whether the only reason is that a version can't make its clips."""
        codes = (CLIPS_MISSING, CLIPS_REFUSED, CLIPS_FAILED)
        return all(each.code in codes for each in self.objections)


# --- the schema ----------------------------------------------------------------------------------


class ExperimentDesign(BaseModel):
    """What an experiment fixes; `arena.models.Experiment` says what each number means."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    category: Category
    seed_slots: int = Field(1, ge=1, description="Clip pairs per prompt.")
    margin: FiniteFloat = Field(
        25.0,
        ge=LEAST_MARGIN,
        le=MOST_MARGIN,
        description="The smallest loss to catch, in normalised Elo.",
    )
    alpha: Chance = Field(0.05, description="Chance of passing a candidate worse by the margin.")
    beta: Chance = Field(0.05, description="Chance of failing a candidate that is not worse.")
    max_votes: int = Field(3000, ge=LEAST_VOTES, le=MOST_VOTES, multiple_of=2)
    muted_share: Share = Field(0.0, description="Share of the pairs shown without sound, 0 to 1.")
    webhook: Text = Field("", max_length=WEBHOOK_LENGTH, description="Receives the verdict.")


class ProposalInput(ExperimentDesign):
    """A proposal as a form, a request or a command has it: versions and panels by their slugs."""

    candidate: Slug = Field(description="The version in question.")
    baseline: Slug = Field(description="The version that it is compared with.")
    prompt_set: Slug = "scenes"
    panels: tuple[Slug, ...] = Field((), max_length=50, description="Who votes.")
    public_share: Share | None = Field(
        None,
        description="Share of the category's public pairs, 0 to 1. Default: 0 with a "
        f"panel, else {DEFAULT_PUBLIC_SHARE}.",
    )
    name: Text = Field("", max_length=NAME_LENGTH, description="Default: the versions' names.")


class PlanInput(ProposalInput):
    """The same, and what to plan with."""

    tie_rate: FiniteFloat | None = Field(
        None, ge=0, lt=1, description="Share of ties to expect. Default: as in this category."
    )
    voters: int | None = Field(
        None,
        ge=LEAST_VOTERS,
        le=MOST_PLANNED_VOTERS,
        description="Voters to expect. Default: the panels' members and last week's public voters.",
    )


class Proposal(ExperimentDesign):
    """A proposal whose versions, prompt set and panels exist."""

    name: Annotated[str, Field(min_length=1, max_length=NAME_LENGTH)]
    candidate: Version
    baseline: Version
    prompt_set: PromptSet
    panels: tuple[Panel, ...] = ()
    public_share: Share = 0.0
    created_by: str = ""

    @property
    def versions(self) -> tuple[Version, Version]:
        return self.candidate, self.baseline


# What to say where a value is outside the limits of its field.
LIMITS = {
    "name": f"An experiment needs a name of at most {NAME_LENGTH} characters.",
    "seed_slots": "Clip pairs per prompt is {value}. Give 1 or more.",
    "margin": "The margin is {value} Elo. Give the smallest loss to catch, from "
    f"{LEAST_MARGIN} to {MOST_MARGIN}.",
    "alpha": f"Alpha is {{value}}. Give a chance from {LEAST_CHANCE} to below 0.5.",
    "beta": f"Beta is {{value}}. Give a chance from {LEAST_CHANCE} to below 0.5.",
    "max_votes": "Maximum votes is {value}. Give an even number, as each pair is judged twice, "
    f"from {LEAST_VOTES} to {MOST_VOTES:,}.",
    "public_share": "The public share is {value}. Give a share from 0 to 1.",
    "muted_share": "The muted share is {value}. Give a share from 0 to 1.",
    "webhook": f"The webhook is longer than {WEBHOOK_LENGTH} characters.",
    "tie_rate": "The tie rate is {value}. Give a share from 0 to below 1.",
    "voters": f"The number of voters is {{value}}. Give {LEAST_VOTERS}, which a verdict needs, to "
    f"{MOST_PLANNED_VOTERS:,}.",
}
LIMIT_ERRORS = {
    "finite_number", "greater_than", "greater_than_equal", "less_than", "less_than_equal",
    "multiple_of", "string_too_long", "string_too_short",
}  # fmt: skip


def objection_to(error: ErrorDetails, field: str = "") -> Objection:
    """What pydantic found wrong, in a sentence of ours where it is a limit."""
    field = field or ".".join(map(str, error["loc"]))
    if error["type"] in LIMIT_ERRORS and field in LIMITS:
        value = _as_number(error["input"])
        shown = f"{value:g}" if isinstance(value, float) else value
        return Objection(field, "out_of_range", LIMITS[field].format(value=shown))
    return Objection(field, error["type"], f"{error['msg']}.")


def _as_number(value: Any) -> Any:
    """What a form and a command have as text is said as a request's number is."""
    for kind in (int, float) if isinstance(value, str) else ():
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def read_input(schema: type[Read], fields: Mapping[str, Any]) -> Read:
    """These fields as the schema has them; NotStarted where they break its rules."""
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        raise NotStarted([objection_to(each) for each in error.errors()]) from None


def resolve(asked: ProposalInput, created_by: str = "") -> Proposal:
    """The proposal that the slugs mean; NotStarted where one means nothing."""
    unknown: list[Objection] = []

    def named(model: type[Named], field: str, slug: str) -> Named:
        row = model._default_manager.filter(slug=slug).first()
        if row is None:
            name = model._meta.verbose_name
            unknown.append(Objection(field, "unknown", f"There is no {name} “{slug}”."))
            return model(slug=slug)
        return row

    candidate = named(Version, "candidate", asked.candidate)
    baseline = named(Version, "baseline", asked.baseline)
    prompt_set = named(PromptSet, "prompt_set", asked.prompt_set)
    panels = tuple(named(Panel, "panels", slug) for slug in dict.fromkeys(asked.panels))
    if unknown:
        raise NotStarted(unknown)
    share = asked.public_share
    if share is None:
        share = 0.0 if panels else DEFAULT_PUBLIC_SHARE
    return Proposal(
        **asked.model_dump(include=set(ExperimentDesign.model_fields)),
        name=asked.name or default_name(candidate, baseline, asked.category),
        candidate=candidate,
        baseline=baseline,
        prompt_set=prompt_set,
        panels=panels,
        public_share=share,
        created_by=created_by[:150],
    )


def default_name(candidate: Version, baseline: Version, category: str) -> str:
    """Of an experiment that nobody named."""
    kind = Category(category).label.replace(",", "").lower()
    return f"{candidate.name} against {baseline.name}, {kind}"[:NAME_LENGTH]


# --- against the database ------------------------------------------------------------------------


def objections(proposal: Proposal) -> list[Objection]:
    """Why this experiment can't be started; empty if it can.

    Whether the clips can be made is asked last, as it costs most.
    """
    found = [*_about_voters(proposal), *_about_webhook(proposal.webhook)]
    if proposal.candidate == proposal.baseline:
        sentence = f"{proposal.candidate.slug} is on both sides. Choose another baseline."
        return [*found, Objection("baseline", "same_version", sentence)]
    about_parts = [*_about_versions(proposal), *_about_prompts(proposal)]
    if about_parts:
        return found + about_parts
    return [*found, *_about_clips(proposal)]


def _about_voters(proposal: Proposal) -> Iterator[Objection]:
    if not proposal.panels and not proposal.public_share > 0:
        sentence = "Nobody can vote. Choose a panel, or give the public stream a share."
        yield Objection("public_share", "nobody_votes", sentence)
    if proposal.muted_share > 0 and not proposal.category.audio:
        sentence = f"{proposal.category} has no sound to mute. Set the muted share to 0."
        yield Objection("muted_share", "silent_category", sentence)


def _about_webhook(webhook: str) -> Iterator[Objection]:
    if not webhook:
        return
    try:
        parts = urlsplit(webhook)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_address = False
    if not is_address:
        sentence = (
            f"The webhook is “{webhook[:100]}”. Give an address that begins with https:// or "
            "http://."
        )
        yield Objection("webhook", "not_an_address", sentence)
    elif "@" in parts.netloc:
        sentence = "The webhook contains a user name. Remove it. Deliveries are signed instead."
        yield Objection("webhook", "user_name", sentence)
    if not settings.WEBHOOK_SECRET:
        sentence = (
            "There is no WEBHOOK_SECRET to sign webhook deliveries. Set it at the site, or leave "
            "the webhook empty."
        )
        yield Objection("webhook", "no_secret", sentence)


def _about_versions(proposal: Proposal) -> Iterator[Objection]:
    for field, version in _by_field(proposal):
        if version.state not in RENDERED_STATES:
            state = version.get_state_display().lower()
            sentence = f"{version.slug} is {state}. Put it on trial first."
            yield Objection(field, "not_rendered", sentence)
        if proposal.category not in version.categories:
            sentence = (
                f"{version.slug} does not make {proposal.category}. It makes "
                f"{', '.join(version.categories)}."
            )
            yield Objection(field, "other_categories", sentence)


def _by_field(proposal: Proposal) -> tuple[tuple[str, Version], tuple[str, Version]]:
    return ("candidate", proposal.candidate), ("baseline", proposal.baseline)


def _about_prompts(proposal: Proposal) -> Iterator[Objection]:
    prompt_set, slots = proposal.prompt_set, proposal.seed_slots
    prompts = prompts_of(prompt_set, proposal.category).count()
    if prompts < LEAST_PROMPTS:
        sentence = (
            f"The prompt set {prompt_set.slug} has {prompts or 'no'} "
            f"prompt{'s' if prompts > 1 else ''} for {proposal.category}. A verdict needs "
            f"{LEAST_PROMPTS} or more."
        )
        yield Objection("prompt_set", "too_few_prompts", sentence)
    if slots > prompt_set.seed_slots:
        sentence = (
            f"{slots} clip pairs per prompt are requested. The prompt set {prompt_set.slug} "
            f"allows 1 to {prompt_set.seed_slots}."
        )
        yield Objection("seed_slots", "too_many_seeds", sentence)


def _about_clips(proposal: Proposal) -> Iterator[Objection]:
    """Clips that are not there must be such as the version's backend can make, and some of those
    that were tried must not have failed."""
    prompts = list(prompts_of(proposal.prompt_set, proposal.category).select_related("image"))
    for field, version in _by_field(proposal):
        missing = missing_pairs(proposal, version, pair_keys(proposal, prompts))
        if version.backend == IMPORTED:
            if missing:
                sentence = (
                    f"{version.slug} uses imported clips and lacks {len(missing)} of "
                    f"{len(prompts) * proposal.seed_slots}. Import them first."
                )
                yield Objection(field, CLIPS_MISSING, sentence)
            continue
        wanted = {prompt for prompt, _ in missing}
        refused = {
            prompt.key: reason
            for prompt in prompts
            if prompt.pk in wanted and (reason := _why_not(version, proposal.category, prompt))
        }
        if refused:
            key, reason = next(iter(refused.items()))
            sentence = (
                f"{version.slug} can't make {len(refused)} of the {len(prompts)} prompts, such as "
                f"{key}: {reason}"
            )
            yield Objection(field, CLIPS_REFUSED, sentence)
        elif missing and (
            error := _all_failed(proposal, version, len(pair_keys(proposal, prompts)))
        ):
            yield Objection(field, CLIPS_FAILED, error)


def _all_failed(proposal: Proposal, version: Version, pairs: int) -> str:
    clips = Clip.objects.filter(
        version=version,
        category=proposal.category,
        prompt__sets=proposal.prompt_set,
        seed_slot__lt=proposal.seed_slots,
        state=ClipState.FAILED,
    )
    if not pairs or clips.count() < pairs:
        return ""
    return f"{all_failed(version, clips)} Fix the cause and retry them first."


def all_failed(version: Version, clips: QuerySet[Clip]) -> str:
    """That all these clips of a version failed, and the error that most of them have."""
    errors = clips.order_by().values_list("error").annotate(count=Count("pk"))
    error, _ = errors.order_by("-count", "error")[0]
    said = " ".join(error.split())[:ERROR_CHARACTERS].rstrip(".")
    return f"All {clips.count()} clips of {version.slug} failed: {said}."


def _why_not(version: Version, category: Category, prompt: Prompt) -> str:
    try:
        check_clip(version, category, request_of(prompt, category, seed_of(prompt, 0)))
    except CannotRender as error:
        return str(error)
    return ""


def pair_keys(proposal: Proposal, prompts: Sequence[Prompt] | None = None) -> list[PairKey]:
    """All its clip pairs, in the order of the prompt set."""
    if prompts is None:
        prompts = list(prompts_of(proposal.prompt_set, proposal.category))
    return [(prompt.pk, slot) for prompt in prompts for slot in range(proposal.seed_slots)]


def missing_pairs(proposal: Proposal, version: Version, pairs: Sequence[PairKey]) -> list[PairKey]:
    """Of these pairs, those of which the version's clip is not ready."""
    ready = Clip.objects.filter(
        version=version,
        category=proposal.category,
        prompt__sets=proposal.prompt_set,
        seed_slot__lt=proposal.seed_slots,
        state=ClipState.READY,
    )
    there = set(ready.values_list("prompt_id", "seed_slot"))
    return [pair for pair in pairs if pair not in there]


def clips_missing(proposal: Proposal) -> dict[str, int]:
    """How many clips of each version must still be made, by its slug.

    On average, where the votes are too few to show all clip pairs.
    """
    pairs = pair_keys(proposal)
    shown = min(1.0, proposal.max_votes / 2 / max(1, len(pairs)))
    return {
        version.slug: round(shown * len(missing_pairs(proposal, version, pairs)))
        for version in proposal.versions
    }
