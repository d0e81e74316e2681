"""Verdicts on experiments."""

import math

from django.db import models

from arena.models import Experiment

LARGEST_FLOAT = 700.0  # e to this power is still a number


class Verdict(models.TextChoices):
    PASS = "pass", "Pass"
    REGRESSED = "regressed", "Regressed"
    INCONCLUSIVE = "inconclusive", "Inconclusive"


class StoppingRule(models.TextChoices):
    """What ended the experiment, as a sentence goes on after the verdict."""

    SPRT = "sprt", "by the ratio test"
    E_PROCESS = "e-process", "by the e-process"
    VOTES_USED_UP = "votes used up", "because all votes are cast"


class Assessment(models.Model):
    """Where an experiment stood up to one vote; the newest one holds.

    One is stored when its votes or exclusions have changed, in place of the one before unless that
    one had another verdict: every verdict change stays.
    """

    experiment = models.ForeignKey(Experiment, models.PROTECT, related_name="assessments")
    last_vote_id = models.BigIntegerField()
    last_exclusion_id = models.BigIntegerField()
    exclusions_seen = models.BigIntegerField(
        default=0,
        help_text="The last exclusion of which it is known whether it concerns this experiment: of "
        "those after last_exclusion_id none did.",
    )
    simulated_counted = models.BooleanField()
    verdict = models.CharField(
        max_length=12, choices=Verdict, blank=True, help_text="Empty while the experiment runs."
    )
    rule = models.CharField(
        max_length=20, choices=StoppingRule, blank=True, help_text="The rule that gave the verdict."
    )
    votes = models.PositiveIntegerField()
    blocks = models.PositiveIntegerField(help_text="Complete blocks.")
    decided_at = models.PositiveIntegerField(
        null=True, help_text="Number of blocks at the decision."
    )
    llr = models.FloatField()
    log_e = models.FloatField()
    estimate = models.FloatField(null=True, help_text="Elo of the candidate above the baseline.")
    low = models.FloatField(null=True, help_text="95% interval.")
    high = models.FloatField(null=True)
    schema = models.PositiveSmallIntegerField(
        default=0, help_text="Of the findings; those of an earlier one are made again."
    )
    findings = models.JSONField(help_text="Curves, counts, trust, slices, contributors, sound.")
    seconds = models.FloatField(help_text="Duration of the assessment.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        get_latest_by = "pk"
        indexes = [models.Index(fields=["experiment", "-id"], name="assessment_latest")]

    def __str__(self) -> str:
        return f"{self.experiment} up to vote {self.last_vote_id}: {self.verdict or 'goes on'}"

    @property
    def e_value(self) -> float:
        return math.exp(min(self.log_e, LARGEST_FLOAT))
