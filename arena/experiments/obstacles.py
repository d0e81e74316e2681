"""What keeps a running experiment from its verdict until somebody acts."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from arena.experiments.panels import votes_left
from arena.experiments.proposal import CLIPS_FAILED, all_failed
from arena.models import Block, Experiment, ExperimentState, Member, VoteSlot
from generation.models import Clip, ClipState
from ratings.least_numbers import LEAST_VOTERS


@dataclass(frozen=True)
class Obstacle:
    """A code for programs, and a sentence."""

    code: str
    sentence: str


CLIPS_HELD = "clips_held"


def obstacles(experiment: Experiment) -> list[Obstacle]:
    """All of them. Six queries; none for an experiment that is not running."""
    if experiment.state != ExperimentState.RUNNING:
        return []
    return [*_missing_clips(experiment), *_used_up_panels(experiment)]


def is_out_of_clips(experiment: Experiment) -> bool:
    """Whether every pair that is left to judge has a clip that failed."""
    left = VoteSlot.objects.filter(experiment=experiment, voted=False)
    return left.exists() and not left.exclude(_has_failed_clip("block__")).exists()


def fail_hopeless(experiments: QuerySet[Experiment] | None = None) -> int:
    """Running experiments of which no pair can be shown, and none was judged, fail: each pair has a
    clip that failed. Returns how many.

    One that has votes is left to whoever mends the clips: it may still come to a verdict.
    """
    running = Experiment.objects.all() if experiments is None else experiments
    blocks = Block.objects.filter(experiment=OuterRef("pk"))
    hopeless = running.filter(
        Exists(blocks),
        ~Exists(blocks.exclude(_has_failed_clip())),
        ~Exists(VoteSlot.objects.filter(experiment=OuterRef("pk"), voted=True)),
        state=ExperimentState.RUNNING,
    )
    count = 0
    for experiment in hopeless.select_related("candidate", "baseline"):
        still = hopeless.filter(pk=experiment.pk).order_by()
        error = f"No pair can be shown. {_why_hopeless(experiment)}"
        count += still.update(state=ExperimentState.FAILED, error=error)
    return count


def _why_hopeless(experiment: Experiment) -> str:
    for field in ("candidate", "baseline"):
        version = getattr(experiment, field)
        clips = Clip.objects.filter(pk__in=experiment.blocks.values(f"{field}_clip"))
        if not clips.exclude(state=ClipState.FAILED).exists():
            return all_failed(version, clips)
    failed = (one for one in _missing_clips(experiment) if one.code == CLIPS_FAILED)
    return " ".join(obstacle.sentence for obstacle in failed)


def _has_failed_clip(block: str = "") -> Q:
    return Q(**{f"{block}candidate_clip__state": ClipState.FAILED}) | Q(
        **{f"{block}baseline_clip__state": ClipState.FAILED}
    )


def _missing_clips(experiment: Experiment) -> Iterator[Obstacle]:
    """Those that failed, and those that wait for an operator's look."""
    asked = Block.objects.filter(experiment=experiment, vote_slots__voted=False)
    missing = Clip.objects.filter(state__in=(ClipState.FAILED, ClipState.HELD)).filter(
        Q(pk__in=asked.values("candidate_clip")) | Q(pk__in=asked.values("baseline_clip"))
    )
    by_version = missing.values_list("state", "version__slug").annotate(Count("pk"))
    for state, slug, count in by_version.order_by("state", "version__slug"):
        clips = f"{count} clip{'s' if count > 1 else ''} of {slug}"
        if state == ClipState.FAILED:
            sentence = (
                f"{clips} failed, so their pairs can't be shown. Fix the cause, then use “Retry "
                "failed” on the clips in admin."
            )
            yield Obstacle(CLIPS_FAILED, sentence)
        else:
            sentence = (
                f"{clips} {'are' if count > 1 else 'is'} held, so their pairs can't be shown. Look "
                "at the held clips in admin, then show them to voters or refuse them."
            )
            yield Obstacle(CLIPS_HELD, sentence)


def _used_up_panels(experiment: Experiment) -> Iterator[Obstacle]:
    """Where the public votes, too, new voters can always come."""
    if experiment.public_share > 0:
        return
    members = Member.objects.filter(panel__experiments=experiment, revoked=False).count()
    if members < LEAST_VOTERS:
        sentence = (
            f"Its panels have {members or 'no'} member{'' if members == 1 else 's'}, and a verdict "
            f"needs {LEAST_VOTERS} voters. Add members."
        )
        yield Obstacle("too_few_members", sentence)
        return
    unvoted = VoteSlot.objects.filter(experiment=experiment, voted=False)
    if unvoted.filter(held_by__expires_at__gt=timezone.now()).exists():
        return  # somebody is judging one now
    showable = unvoted.exclude(_has_failed_clip("block__"))
    pairs = set(showable.values_list("block__prompt_id", "block__seed_slot").distinct())
    versions = experiment.candidate, experiment.baseline
    if pairs and not votes_left(experiment.panels.all(), versions, experiment.category, pairs):
        sentence = (
            "Every member of its panels has reached the quota or has seen all remaining clip "
            "pairs. Add members, raise the quota, or cancel the experiment."
        )
        yield Obstacle("panels_used_up", sentence)
