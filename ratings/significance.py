"""How sure the site wants to be, and what follows from it for normal numbers and many tests.

Standard library only: pages read it, and the web process loads neither numpy nor scipy.
"""

from collections.abc import Sequence
from statistics import NormalDist

# Of every interval that is shown.
LEVEL = 0.95
# Share of false ones among discoveries that is accepted.
FALSE_DISCOVERIES = 0.05


def normal_reach(level: float = LEVEL) -> float:
    """Standard errors from an estimate to each end of its normal interval: 1.96 for 95 %."""
    return NormalDist().inv_cdf((1 + level) / 2)


def two_sided_p_value(deviate: float) -> float:
    """Chance of a normal number at least this many standard errors from zero, on either side."""
    return 2 * NormalDist().cdf(-abs(deviate))


def discoveries(p_values: Sequence[float], rate: float = FALSE_DISCOVERIES) -> list[bool]:
    """Which of several tests are discoveries, with the rate of false ones controlled.

    The procedure of Benjamini and Hochberg (1995, Journal of the Royal Statistical Society B 57,
    289-300): the k smallest of n p-values, for the largest k whose k-th is at most ``rate k / n``.
    A p-value that is NaN is no test and no discovery.
    """
    tested = sorted(p for p in p_values if p == p)
    within = [p for rank, p in enumerate(tested, 1) if p <= rate * rank / len(tested)]
    return [bool(within) and p <= within[-1] for p in p_values]
