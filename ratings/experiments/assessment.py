"""From the ledger to a verdict on an experiment: the same votes always give the same verdict.

For workers and commands alone: it loads numpy and scipy, which the web process does without.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
from django.conf import settings
from django.db import connection
from django.db.models import Count, Max, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from arena.experiments.panels import voter_names
from arena.ledger import LedgerEnd, advisory_lock, end_of
from arena.models import Defect, Exclusion, Experiment, ExperimentState, Vote
from ratings.experiments.blocks import blocks_of, complete_blocks
from ratings.experiments.findings import compute_findings
from ratings.experiments.state import design_of, newest_assessment, verdict_message
from ratings.experiments.votes import votes_behind
from ratings.models import Assessment, Delivery
from ratings.stats.sequential import SequentialResult, sequential_test
from ratings.stored import is_throttled, rounded

# Raised when the findings get another schema or the method changes: all are then made again.
ASSESSMENT_SCHEMA_VERSION = 3
ENDED = (ExperimentState.CANCELLED, ExperimentState.FAILED)  # without a verdict, for good
POINTS_ON_CURVES = 300
CONCERNED = """
    SELECT experiment_id, max(id) FROM (
        SELECT vote.experiment_id, exclusion.id
        FROM arena_exclusion exclusion JOIN arena_vote vote ON vote.id = exclusion.vote_id
        WHERE exclusion.id > %(after)s
        UNION ALL
        SELECT vote.experiment_id, exclusion.id
        FROM arena_exclusion exclusion JOIN arena_vote vote ON vote.voter_id = exclusion.voter_id
        WHERE exclusion.id > %(after)s
    ) about
    WHERE experiment_id = ANY(%(experiments)s) GROUP BY 1
"""
RECENT_MARKS = 200  # defects; whether they were read already is looked at more closely


def _end(experiment: Experiment) -> LedgerEnd:
    """The last vote of the experiment, checks included, and the last exclusion of all."""
    return end_of(Vote.objects.filter(experiment=experiment))


def assess(experiment: Experiment) -> Assessment:
    """Judge the experiment as the ledger is now and store where it stands; one worker at a time.

    The experiment's state follows the verdict, unless it was cancelled.
    """
    end = _end(experiment)
    with advisory_lock(f"assess {experiment.pk}"):
        return _assess(experiment, end)


def assess_if_behind(experiment: Experiment) -> Assessment | None:
    """The same, unless nothing is new, the last one was too hard a while ago, or another worker is
    at it. Voters wait for the ledger's end only where something is new."""
    before = newest_assessment(experiment)
    if not _has_news(experiment, before) or is_throttled(before):
        return None
    end = _end(experiment)
    with advisory_lock(f"assess {experiment.pk}", wait=False) as free:
        if not free or not _has_news(experiment, newest_assessment(experiment)):
            return None
        return _assess(experiment, end)


def _has_news(experiment: Experiment, made: Assessment | None) -> bool:
    """Whether something that counts came after this assessment. Looked at without the ledger's
    lock: what is not committed yet is news the next time."""
    if made is None:
        return True
    last_vote = Vote.objects.filter(experiment=experiment).aggregate(last=Max("pk"))["last"]
    return (
        (last_vote or 0) > made.last_vote_id
        or made.simulated_counted != settings.COUNT_SIMULATED_VOTES
        or made.schema != ASSESSMENT_SCHEMA_VERSION
        or made.findings["defects_read"] != _defects_read(experiment.pk)
        or _last_concerning([experiment.pk], made.exclusions_seen) != {}
    )


def _last_concerning(experiments: Sequence[UUID], after: int) -> dict[UUID, int]:
    """The last exclusion after this one that is about a vote, or a voter, of each experiment."""
    with connection.cursor() as cursor:
        cursor.execute(CONCERNED, {"after": after, "experiments": list(experiments)})
        return dict(cursor.fetchall())


def changed_experiments() -> Sequence[Experiment]:
    """Those that may need another assessment, running ones first; nobody is waited for.

    Any is among them if a defect was marked there of late. Cancelled ones and those that failed are
    left as they were.
    """
    votes = Vote.objects.filter(experiment=OuterRef("pk")).order_by("-pk")
    made = Assessment.objects.filter(experiment=OuterRef("pk")).order_by("-pk")
    rows = (
        Experiment.objects.exclude(state__in=ENDED)
        .annotate(
            last_vote=Coalesce(Subquery(votes.values("pk")[:1]), 0),
            made=Subquery(made.values("pk")[:1]),
            read_vote=Subquery(made.values("last_vote_id")[:1]),
            exclusions_seen=Subquery(made.values("exclusions_seen")[:1]),
            with_simulated=Subquery(made.values("simulated_counted")[:1]),
            schema=Subquery(made.values("schema")[:1]),
        )
        .order_by("created_at")
    )
    found = list(rows)
    marks = Defect.objects.order_by("-pk").values_list("vote__experiment", flat=True)
    changed = set(marks[:RECENT_MARKS]) | _concerned_by_exclusions(found)
    known = (settings.COUNT_SIMULATED_VOTES, ASSESSMENT_SCHEMA_VERSION)
    changed |= {
        row.pk
        for row in found
        if (row.read_vote, row.with_simulated, row.schema) != (row.last_vote, *known)
    }
    return sorted(
        (row for row in found if row.pk in changed),
        key=lambda row: row.state != ExperimentState.RUNNING,
    )


def _concerned_by_exclusions(rows: Sequence[Any]) -> set[UUID]:
    """Of these experiments, those about whose votes there is an exclusion that their newest
    assessments have not seen. For the others it is stored that they have seen all, so that each
    exclusion is looked at once, however many experiments it does not concern."""
    last = Exclusion.objects.aggregate(last=Max("pk"))["last"] or 0
    behind = [row for row in rows if row.made is not None and row.exclusions_seen < last]
    if not behind:
        return set()
    # The lock, for an instant: no exclusion below the last is still to come.
    last = end_of(Vote.objects.none()).last_exclusion
    after = min(row.exclusions_seen for row in behind)
    concerning = _last_concerning([row.pk for row in behind], after)
    concerned = {row.pk for row in behind if concerning.get(row.pk, 0) > row.exclusions_seen}
    others = [row.made for row in behind if row.pk not in concerned]
    Assessment.objects.filter(pk__in=others).update(exclusions_seen=last)
    return concerned


def _defects_read(experiment_id: UUID) -> list[int]:
    """How many entries about defects there are, and the last: numbers are given before rows are
    committed, so the last alone would not tell that an earlier one turned up later."""
    entries = Defect.objects.filter(vote__experiment=experiment_id)
    found = entries.aggregate(count=Count("pk"), last=Max("pk"))
    return [found["count"], found["last"] or 0]


def _assess(experiment: Experiment, end: LedgerEnd) -> Assessment:
    begin = time.monotonic()
    before = newest_assessment(experiment)
    if before:  # another assessment may have read further while this one waited
        end = replace(
            end,
            last_vote=max(end.last_vote, before.last_vote_id),
            last_exclusion=max(end.last_exclusion, before.last_exclusion_id),
        )
    made = judged(experiment, end)
    made.findings["verdict_change"] = _verdict_change(experiment, before, made)
    made.seconds = time.monotonic() - begin
    made.save()
    if before:
        _drop_unless_changed(before, made)
    _follow(experiment, before, made)
    return made


def judged(experiment: Experiment, end: LedgerEnd) -> Assessment:
    """Where the experiment stood at an end of the ledger; not stored."""
    votes = votes_behind(experiment, end)
    pairs = complete_blocks(votes)
    result = sequential_test(blocks_of(pairs), design_of(experiment))
    counted = sum(not vote.out for vote in votes)
    return Assessment(
        experiment=experiment,
        last_vote_id=end.last_vote,
        last_exclusion_id=end.last_exclusion,
        exclusions_seen=end.last_exclusion,
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
        schema=ASSESSMENT_SCHEMA_VERSION,
        findings={
            "defects_read": _defects_read(experiment.pk),
            **_course_of_test(result),
            **compute_findings(experiment, votes, pairs, end),
        },
    )


def _course_of_test(result: SequentialResult) -> dict[str, Any]:
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


def _verdict_change(
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
    names = voter_names([entry.voter_id for entry in entries if entry.voter_id])
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


def _drop_unless_changed(before: Assessment, made: Assessment) -> None:
    """Every verdict change stays, as it was when it came; of what follows, the newest."""
    if before.verdict != made.verdict:
        return
    earlier = Assessment.objects.filter(experiment=before.experiment_id, pk__lt=before.pk)
    verdict_before = earlier.order_by("-pk").values_list("verdict", flat=True).first()
    if verdict_before == before.verdict:
        before.delete()


def _follow(experiment: Experiment, before: Assessment | None, made: Assessment) -> None:
    """The experiment's state follows its verdict, and whoever asked to be told is told.

    One that was cancelled or failed keeps its state, and nobody is told.
    """
    state = ExperimentState.DECIDED if made.verdict else ExperimentState.RUNNING
    kept = (state, *ENDED)
    Experiment.objects.filter(pk=experiment.pk).exclude(state__in=kept).update(state=state)
    experiment.refresh_from_db(fields=["state"])
    ended = experiment.state in ENDED
    changed = made.verdict != (before.verdict if before else "")
    if experiment.webhook and changed and not ended:
        delivery = Delivery(assessment=made, next_try_at=timezone.now())
        delivery.body = verdict_message(str(delivery.pk), made)
        delivery.save(force_insert=True)
