"""What keeps a running experiment from its verdict until somebody acts.

A worker looks every ten seconds, and at once after a start, a cancellation and an exclusion, and
notes what it found. Whoever shows an experiment reads the note.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta

from celery.exceptions import SoftTimeLimitExceeded
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone

from arena.experiments.panels import votes_left
from arena.experiments.proposal import CLIPS_FAILED, all_failed
from arena.models import Block, Experiment, ExperimentState, Member, ObstacleNote, VoteSlot
from generation.models import Clip, ClipState
from ratings.least_numbers import LEAST_VOTERS


@dataclass(frozen=True)
class Obstacle:
    """A code for programs, and a sentence."""

    code: str
    sentence: str


CLIPS_HELD = "clips_held"
# Workers look three times within this: a note that is older was left by one that is away.
NOTE_HOLDS = timedelta(seconds=30)

log = logging.getLogger(__name__)


# --- the note ------------------------------------------------------------------------------------


def note_of(experiment: Experiment) -> ObstacleNote | None:
    """What was found when a worker last looked; None of an experiment that is not running, or that
    no worker has looked at yet. No query where the note was selected with the experiment."""
    if experiment.state != ExperimentState.RUNNING:
        return None
    note: ObstacleNote | None = getattr(experiment, "obstacle_note", None)
    return note


def noted_obstacles(experiment: Experiment) -> list[Obstacle]:
    """Those of the note; none where there is no note."""
    note = note_of(experiment)
    return [Obstacle(**each) for each in note.obstacles] if note else []


def look_for_obstacles() -> int:
    """Look at all running experiments: those that are hopeless fail, of the others it is noted what
    keeps them from a verdict. Returns how many failed.

    One that can't be looked at, which the log tells, does not hold up the others.
    """
    failed = _fail_hopeless(Experiment.objects.all())
    ObstacleNote.objects.exclude(experiment__state=ExperimentState.RUNNING).delete()
    longest_ago_first = F("obstacle_note__looked_at").asc(nulls_first=True)
    for experiment in _running(Experiment.objects.all()).order_by(longest_ago_first):
        try:
            _note_obstacles(experiment)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            log.exception("The obstacles of the experiment %s could not be noted", experiment.pk)
    return failed


def look_if_old(experiment: Experiment) -> None:
    """The same of one experiment, unless a worker has looked of late."""
    young = ObstacleNote.objects.filter(looked_at__gt=timezone.now() - NOTE_HOLDS)
    if young.filter(experiment=experiment).exists():
        return
    chosen = Experiment.objects.filter(pk=experiment.pk)
    _fail_hopeless(chosen)
    for running in _running(chosen):
        _note_obstacles(running)


def _running(experiments: QuerySet[Experiment]) -> QuerySet[Experiment]:
    running = experiments.filter(state=ExperimentState.RUNNING)
    return running.select_related("candidate", "baseline")


def _note_obstacles(experiment: Experiment) -> None:
    now = timezone.now()
    found = [*_missing_clips(experiment), *_used_up_panels(experiment)]
    said = {
        "obstacles": [asdict(obstacle) for obstacle in found],
        "out_of_clips": _is_out_of_clips(experiment),
        "looked_at": now,
    }
    ObstacleNote.objects.update_or_create(experiment=experiment, defaults=said)


# --- looking -------------------------------------------------------------------------------------


def _is_out_of_clips(experiment: Experiment) -> bool:
    """Whether every pair that is left to judge has a clip that failed."""
    left = VoteSlot.objects.filter(experiment=experiment, voted=False)
    return left.exists() and not left.exclude(_has_failed_clip("block__")).exists()


def _fail_hopeless(running: QuerySet[Experiment]) -> int:
    """Of these, running experiments of which no pair can be shown, and none was judged, fail: each
    pair has a clip that failed. Returns how many.

    One that has votes is left to whoever mends the clips: it may still come to a verdict.
    """
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
