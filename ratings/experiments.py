"""From the ledger to a verdict on an experiment: the same votes always give the same verdict."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import numpy as np
from django.conf import settings
from django.db.models import Count, Max, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from arena.experiments import (
    VOTES_AT_LEAST,
    Proposal,
    clips_missing,
    rivals,
    shows_the_same,
    votes_of_panels,
)
from arena.models import (
    Choice,
    Defect,
    Exclusion,
    Experiment,
    ExperimentState,
    Kind,
    Seat,
    Vote,
)
from generation.categories import Category
from generation.models import Clip
from generation.progress import speeds
from generation.rendering import prompts_of
from ratings.experiment_findings import findings_of
from ratings.experiment_votes import blocks_of, complete_blocks, votes_behind
from ratings.leaderboards import (
    LedgerEnd,
    alone,
    end_of,
    is_of_another_ledger,
    is_resting,
    rounded,
)
from ratings.models import Assessment, Delivery
from ratings.stats import sequential
from ratings.stats.planning import Chances, plan
from ratings.stats.sequential import LEAST_BLOCKS, LEAST_VOTERS, Design

# Raised when the findings get another form or the method changes: then all are made anew.
FORM = 2
POINTS_ON_CURVES = 300
SHORT_ID = 8  # digits of an id that pages show
WEEK = timedelta(days=7)
RECENT_VOTES = 5000
RECENT_MARKS = 200  # defects; whether they were read already is looked at more closely
TIE_RATE, VOTERS = 0.2, 12  # where nobody has voted yet
TIE_RATE_COUNTS = 20  # votes: the first few may all be ties, and there is no planning with that
TRUE_VALUES = (0.0, 0.5, 1.0, 2.0)  # of the margin, below zero


def design_of(experiment: Experiment | Proposal) -> Design:
    """What the experiment fixed beforehand, for the statistics. A block takes two votes."""
    return Design(
        margin=experiment.margin,
        alpha=experiment.alpha,
        beta=experiment.beta,
        max_blocks=experiment.max_votes // 2,
    )


def _end(experiment: Experiment) -> LedgerEnd:
    """The last vote of the experiment, checks included, and the last exclusion of all."""
    return end_of(Vote.objects.filter(experiment=experiment))


def newest(experiment: Experiment) -> Assessment | None:
    """Where the experiment stands; None before it was looked at."""
    return Assessment.objects.filter(experiment=experiment).order_by("-pk").first()


def newest_of(experiments: Sequence[Experiment]) -> dict[UUID, Assessment]:
    """The same of many by the experiment's id, without the findings."""
    made = Assessment.objects.filter(experiment__in=experiments).defer("findings")
    rows = made.order_by("experiment_id", "-pk").distinct("experiment_id")
    return {row.experiment_id: row for row in rows}


def assess(experiment: Experiment) -> Assessment:
    """Judge the experiment as the ledger stands now and store where it stands; one at a time.

    The experiment's state follows the verdict, unless it was cancelled.
    """
    end = _end(experiment)
    with alone(f"assess {experiment.pk}"):
        return _assess(experiment, end)


def assess_if_behind(experiment: Experiment) -> Assessment | None:
    """The same, unless nothing is new, the last one was too hard a while ago, or another worker is
    at it."""
    end = _end(experiment)
    with alone(f"assess {experiment.pk}", wait=False) as free:
        before = newest(experiment)
        if not free or not is_behind(before, end) or is_resting(before):
            return None
        return _assess(experiment, end)


def changed_experiments() -> Sequence[Experiment]:
    """Those that may need another look, the ones that run first; without waiting for anybody.

    A decided one is among them, too, if a defect was marked there of late. Cancelled ones are left
    as they were.
    """
    votes = Vote.objects.filter(experiment=OuterRef("pk")).order_by("-pk")
    made = Assessment.objects.filter(experiment=OuterRef("pk")).order_by("-pk")
    last_exclusion = Exclusion.objects.aggregate(last=Max("pk"))["last"] or 0
    rows = (
        Experiment.objects.exclude(state=ExperimentState.CANCELLED)
        .annotate(
            last_vote=Coalesce(Subquery(votes.values("pk")[:1]), 0),
            read_vote=Subquery(made.values("last_vote_id")[:1]),
            read_exclusion=Subquery(made.values("last_exclusion_id")[:1]),
            with_simulated=Subquery(made.values("simulated_counted")[:1]),
            form=Subquery(made.values("findings__form")[:1]),
        )
        .order_by("created_at")
    )
    marks = Defect.objects.order_by("-pk").values_list("vote__experiment", flat=True)
    marked = set(marks[:RECENT_MARKS])
    running, decided = [], []
    for row in rows:
        read = (row.read_vote, row.read_exclusion, row.with_simulated, row.form)
        now = (row.last_vote, last_exclusion, settings.COUNT_SIMULATED_VOTES, FORM)
        if row.state == ExperimentState.RUNNING:
            running.append(row)
        elif read != now or row.pk in marked:
            decided.append(row)
    return running + decided


def is_behind(made: Assessment | None, end: LedgerEnd) -> bool:
    return (
        made is None
        or is_of_another_ledger(made, end)
        or made.findings.get("form") != FORM
        or made.findings["defects_read"] != _defects_read(made.experiment_id)
    )


def _defects_read(experiment_id: UUID) -> list[int]:
    """How many entries about defects there are, and the last: numbers are given before rows are
    committed, so the last alone would not tell that an earlier one turned up later."""
    entries = Defect.objects.filter(vote__experiment=experiment_id)
    found = entries.aggregate(count=Count("pk"), last=Max("pk"))
    return [found["count"], found["last"] or 0]


def _assess(experiment: Experiment, end: LedgerEnd) -> Assessment:
    begin = time.monotonic()
    before = newest(experiment)
    if before:  # another assessment may have read further while this one waited
        end = replace(
            end,
            last_vote=max(end.last_vote, before.last_vote_id),
            last_exclusion=max(end.last_exclusion, before.last_exclusion_id),
        )
    made = judged(experiment, end)
    made.findings["turned"] = _why_turned(experiment, before, made)
    made.seconds = time.monotonic() - begin
    made.save()
    if before:
        _drop_unless_turn(before, made)
    _follow(experiment, before, made)
    return made


def judged(experiment: Experiment, end: LedgerEnd) -> Assessment:
    """Where the experiment stood at an end of the ledger; not stored."""
    votes = votes_behind(experiment, end)
    pairs = complete_blocks(votes)
    result = sequential.assess(blocks_of(pairs), design_of(experiment))
    counted = sum(not vote.out for vote in votes)
    return Assessment(
        experiment=experiment,
        last_vote_id=end.last_vote,
        last_exclusion_id=end.last_exclusion,
        simulated_counted=end.simulated,
        verdict=result.verdict,
        rule=result.rule,
        votes=counted,
        blocks=len(pairs),
        decided_at=result.decided_at,
        llr=float(result.llr[-1]) if len(pairs) else 0.0,
        log_e=float(result.log_e[-1]) if len(pairs) else 0.0,
        estimate=rounded(result.estimate),
        low=rounded(result.low),
        high=rounded(result.high),
        findings={
            "form": FORM,
            "defects_read": _defects_read(experiment.pk),
            **_test(result),
            **findings_of(experiment, votes, pairs, end),
        },
    )


def _test(result: sequential.Assessment) -> dict[str, Any]:
    """The course of the test as JSON: curves at `POINTS_ON_CURVES` blocks at most."""
    n = result.llr.size
    shown = np.unique(np.linspace(1, n, min(n, POINTS_ON_CURVES)).round().astype(int))
    if result.decided_at is not None:
        shown = np.union1d(shown, [result.decided_at])
    return {
        "curves": {
            "block": shown.tolist(),
            "llr": [rounded(value) for value in result.llr[shown - 1]],
            "log_e": [rounded(value) for value in result.log_e[shown - 1]],
        },
        "lower": rounded(result.lower),
        "upper": rounded(result.upper),
        "log_alarm": rounded(result.log_alarm),
        "design_effect": rounded(result.design_effect),
        "counts": [int(count) for count in result.counts],
        "normalised": {
            "estimate": rounded(result.normalised),
            "low": rounded(result.normalised_low),
            "high": rounded(result.normalised_high),
        },
        "plain": {
            "estimate": rounded(result.plain_estimate),
            "low": rounded(result.plain_low),
            "high": rounded(result.plain_high),
        },
    }


def _why_turned(
    experiment: Experiment, before: Assessment | None, made: Assessment
) -> dict[str, Any] | None:
    """What took a verdict away, changed it or gave it back: the exclusions made since."""
    if before is None or before.verdict == made.verdict:
        return None
    of_experiment = Vote.objects.filter(experiment=experiment)
    entries = Exclusion.objects.filter(
        Q(vote__in=of_experiment) | Q(voter__in=of_experiment.values("voter")),
        pk__gt=before.last_exclusion_id,
        pk__lte=made.last_exclusion_id,
    ).order_by("pk")
    if not before.verdict and not entries:
        return None  # votes gave it
    names = names_of([entry.voter_id for entry in entries if entry.voter_id])
    return {
        "from": before.verdict,
        "at": before.decided_at,
        "because": [
            {
                "what": names[entry.voter_id] if entry.voter_id else f"Vote {entry.vote_id}",
                "action": entry.action,
                "by": entry.by.get_username() if entry.by else "",
                "reason": entry.reason,
                "at": entry.made_at.isoformat(),
            }
            for entry in entries.select_related("by")
        ],
    }


def names_of(voters: Sequence[UUID]) -> dict[UUID, str]:
    """What pages call voters: by the label of their seat, where they have one. Two panels may each
    have a “Seat 1”, so part of the id stands beside it."""
    labels = dict(Seat.objects.filter(voter__in=voters).values_list("voter", "label"))
    return {voter: f"{labels.get(voter, 'Voter')} {str(voter)[:SHORT_ID]}" for voter in voters}


def _drop_unless_turn(before: Assessment, made: Assessment) -> None:
    """Every turn of a verdict stays, as it was when it turned; of what follows, the newest."""
    if before.verdict != made.verdict:
        return
    earlier = Assessment.objects.filter(experiment=before.experiment_id, pk__lt=before.pk)
    turned_from = earlier.order_by("-pk").values_list("verdict", flat=True).first()
    if turned_from == before.verdict:
        before.delete()


def _follow(experiment: Experiment, before: Assessment | None, made: Assessment) -> None:
    """The experiment's state follows its verdict, and whoever asked to be told is told.

    A cancelled one keeps its state, and nobody is told.
    """
    state = ExperimentState.DECIDED if made.verdict else ExperimentState.RUNNING
    kept = (state, ExperimentState.CANCELLED)
    Experiment.objects.filter(pk=experiment.pk).exclude(state__in=kept).update(state=state)
    experiment.refresh_from_db(fields=["state"])
    cancelled = experiment.state == ExperimentState.CANCELLED
    turned = made.verdict != (before.verdict if before else "")
    if experiment.webhook and turned and not cancelled:
        Delivery.objects.create(assessment=made, due_at=timezone.now())


# --- what one would cost --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Recent:
    """How the category is voted on now."""

    tie_rate: float
    voters: int
    votes_per_day: float


def plan_of(
    proposal: Proposal, tie_rate: float | None = None, voters: int | None = None
) -> dict[str, Any]:
    """What the proposed experiment would take and how likely each verdict is, as JSON.

    Ties and voters are those of the category's newest votes and of the panels unless given.
    Where the panels are too small for any verdict, `too_few` says so and there are no `truths`.
    Raises ValueError with a sentence where too few voters or prompts could never give a verdict.
    """
    recent = _recent(proposal)
    tie_rate = recent.tie_rate if tie_rate is None else tie_rate
    of_panels = votes_of_panels(proposal)
    bound = None if voters else of_panels  # with so many voters there would be other seats
    too_few = _too_few(recent.voters, bound)
    if voters is None:
        voters = max(LEAST_VOTERS, recent.voters or VOTERS)
    prompts = prompts_of(proposal.prompt_set, Category(proposal.category)).count()
    design = design_of(proposal)
    truths = [-share * proposal.margin for share in TRUE_VALUES]
    votes = proposal.max_votes if bound is None else min(proposal.max_votes, bound)
    blocks = votes // 2
    planned = plan(
        replace(design, max_blocks=max(LEAST_BLOCKS, blocks)),
        tie_rate=tie_rate,
        voters=voters,
        prompts=prompts,
        seed_slots=proposal.seed_slots,
        elos=truths,
    )
    rate = recent.votes_per_day
    return {
        "tie_rate": round(tie_rate, 4),
        "voters": voters,
        "prompts": prompts,
        "clip_pairs": prompts * proposal.seed_slots,
        "max_blocks": design.max_blocks,
        "max_votes": proposal.max_votes,
        "votes_at_most": votes,
        "votes_per_day": rounded(rate),
        "margin_elo": rounded(-planned.chances[TRUE_VALUES.index(1.0)].elo),
        "votes_of_panels": of_panels,
        "too_few": too_few,
        "rivals": [
            {
                "experiment": str(rival.pk),
                "name": rival.name,
                "same_pairs": shows_the_same(proposal, rival),
            }
            for rival in rivals(proposal)
        ],
        "days_at_most": rounded(votes / rate) if rate else None,
        "rounds": math.ceil(blocks / (prompts * proposal.seed_slots)),
        "design_effect": rounded(planned.design_effect),
        **_clips_to_make(proposal),
        "truths": [] if too_few else [_truth(row, rate) for row in planned.chances],
    }


def _too_few(seats: int, votes: int | None) -> str:
    if votes is None or (votes >= VOTES_AT_LEAST and seats >= LEAST_VOTERS):
        return ""
    return (
        f"The panels' {seats} seats can give {votes} votes; a verdict takes {VOTES_AT_LEAST} or "
        f"more, of {LEAST_VOTERS} voters or more: add seats first."
    )


def _truth(row: Chances, rate: float) -> dict[str, Any]:
    """One true value: the chance of each verdict, and what it takes to get there."""
    return {
        "normalised": rounded(row.normalised) or 0.0,  # not -0.0
        "elo": rounded(row.elo) or 0.0,
        "pass": round(row.passed, 4),
        "regressed": round(row.regressed, 4),
        "inconclusive": round(row.inconclusive, 4),
        "blocks": round(row.blocks),
        "votes": round(row.votes),
        "votes_90": round(row.votes_90),
        "clips": round(row.clips),
        "days": rounded(row.votes / rate) if rate else None,
        "days_90": rounded(row.votes_90 / rate) if rate else None,
    }


def _recent(proposal: Proposal) -> _Recent:
    """From the category's newest votes, of a week at most, and the panels' last week."""
    now = timezone.now()
    week_ago = now - WEEK
    newest_votes = (
        Vote.objects.filter(category=proposal.category, kind=Kind.ARENA)
        .order_by("-pk")
        .values_list("cast_at", "choice", "voter_id")[:RECENT_VOTES]
    )
    rows = [row for row in newest_votes if row[0] >= week_ago]
    ties = sum(choice in (Choice.TIE, Choice.BOTH_BAD) for _, choice, _ in rows)
    tie_rate = (ties + TIE_RATE_COUNTS * TIE_RATE) / (len(rows) + TIE_RATE_COUNTS)
    # Fewer than a week's may have been read.
    span = (now - rows[-1][0]) if len(rows) == RECENT_VOTES else WEEK
    per_day = len(rows) / (span / timedelta(days=1)) * proposal.public_share
    voters = len({voter for _, _, voter in rows}) if proposal.public_share else 0
    if proposal.panels:
        seats = Seat.objects.filter(panel__in=proposal.panels, revoked=False)
        voters += seats.count()
        of_panels = Vote.objects.filter(voter__seat__in=seats, cast_at__gte=week_ago)
        per_day += of_panels.count() / (WEEK / timedelta(days=1))
    return _Recent(tie_rate, voters, per_day)


def _clips_to_make(proposal: Proposal) -> dict[str, Any]:
    """The clips that are missing, and for how long they would hold a GPU by the times so far."""
    missing = clips_missing(proposal)
    known = speeds(Clip.objects.filter(version__in=proposal.versions, category=proposal.category))
    clips: list[dict[str, Any]] = []
    for version in proposal.versions:
        number, speed = missing[version.slug], known.get(version.pk)
        seconds = 0.0 if not number else speed.seconds * number if speed else None
        clips.append(
            {
                "version": version.slug,
                "name": version.name,
                "missing": number,
                "seconds": rounded(seconds) if seconds is not None else None,
            }
        )
    unknown = any(row["seconds"] is None for row in clips)
    total = None if unknown else rounded(sum(row["seconds"] for row in clips))
    return {"clips": clips, "gpu_seconds": total}
