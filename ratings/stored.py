"""What boards, robustness reports and assessments share as stored results of the ledger."""

import math
from datetime import timedelta

from django.utils import timezone

from arena.ledger import LedgerEnd
from ratings.models import Assessment, Leaderboard, Robustness

# Decimals kept of every rating, in Elo points: far below what matters, far above rounding error.
DECIMALS = 3
# Beat asks for refits every so many seconds. One that takes long then rests for this many times as
# long, so that a category never takes more than a fifth of a worker's time, however many its votes.
WAKE_EVERY = 10.0
REST = 4.0


def rounded(value: float) -> float | None:
    """A number for a snapshot; None for what is open or unknown."""
    return round(float(value), DECIMALS) if math.isfinite(value) else None


def is_of_another_ledger(made: Leaderboard | Robustness, end: LedgerEnd) -> bool:
    return end != LedgerEnd(made.last_vote_id, made.last_exclusion_id, made.simulated_counted)


def is_throttled(made: Leaderboard | Robustness | Assessment | None) -> bool:
    """Whether what took long to make is too young to be made again."""
    if made is None or made.seconds * REST < WAKE_EVERY:
        return False
    return timezone.now() - made.created_at < timedelta(seconds=made.seconds * REST)
