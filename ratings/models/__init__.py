"""Leaderboards and verdicts: what the ledger said up to one vote."""

from ratings.models.boards import Leaderboard, Robustness, Standing
from ratings.models.experiments import LARGEST_FLOAT, Assessment, StoppingRule, Verdict
from ratings.models.pipeline import ApiToken, Delivery, Scope
from ratings.models.plans import PlanState, StoredPlan

__all__ = [
    "LARGEST_FLOAT",
    "ApiToken",
    "Assessment",
    "Delivery",
    "Leaderboard",
    "PlanState",
    "Robustness",
    "Scope",
    "Standing",
    "StoppingRule",
    "StoredPlan",
    "Verdict",
]
