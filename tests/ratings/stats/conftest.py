"""Votes that several test files use."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ratings.stats import Comparisons

Simulate = Callable[..., Comparisons]


def _simulate(
    rng: np.random.Generator, logits: Any, n_votes: int, tie_share: float = 0.2
) -> Comparisons:
    strength = np.asarray(logits, dtype=float)
    n = strength.size
    a = rng.integers(0, n, n_votes)
    b = (a + rng.integers(1, n, n_votes)) % n
    # Ties pull every win rate towards a half: tests that look for the true strengths use none.
    a_wins = rng.random(n_votes) < 1 / (1 + np.exp(strength[b] - strength[a]))
    tie = rng.random(n_votes) < tie_share
    outcome = np.where(tie, 2, np.where(a_wins, 0, 1))
    voter = rng.integers(0, 50, n_votes)
    prompt = rng.integers(0, 30, n_votes)
    return Comparisons(a, b, outcome, voter, prompt, n)


@pytest.fixture
def simulate() -> Simulate:
    """Draw independent votes on random pairs: (rng, logits, n_votes, tie_share=0.2)."""
    return _simulate
