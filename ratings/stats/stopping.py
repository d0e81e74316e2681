"""How a test that stops by itself ends: the law of a walk between two bounds.

The log-likelihood ratio of a sequential test is, near enough, a Brownian motion in the time of its
information. Where it ends is found on a grid, once, for the drift half-way between the hypotheses;
any other drift weighs the same endings by their likelihood ratio. What is read from it: the
chances of each verdict and how long they take (`planning`), and an estimate that stopping does not
bias (`sequential`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from ratings.significance import LEVEL
from ratings.stats.comparisons import FloatArray, IntArray

# Variance of one step of the grid's walk, where the bounds are some 6 apart.
STEP_VARIANCE = 0.1
# Cells of the grid, 16 bytes each. Designs that can be proposed stay below a tenth of it.
CELLS_AT_MOST = 50_000_000
POINTS_A_STEP = 3  # grid points in a step's standard deviation: moments are then right to 1e-9
TAIL_DEVIATIONS = 6  # a normal density is followed so far: a billionth lies beyond
# A walk looked at every so often passes a bound by 0.583 standard deviations of a step on average
# (Siegmund 1985, Sequential Analysis, section 10.3).
OVERSHOOT = 0.5826


@dataclass(frozen=True, eq=False)
class Stopping:
    """Endings of a test and how likely they are under the drift half-way between the hypotheses.

    Attributes
    ----------
    gap : float
        Between the two hypotheses, in standard deviations of one block.
    spacing : float
        Of the grid of values.
    information : float array, shape (k,)
        Looks, in independent blocks' worth.
    side : int array, shape (m,)
        Of each ending: -1 at or below the lower bound, 1 at or above the upper one, 0 undecided
        after the last look.
    look : int array, shape (m,)
    value : float array, shape (m,)
        Of the log-likelihood ratio.
    log_chance : float array, shape (m,)
    """

    gap: float
    spacing: float
    information: FloatArray
    side: IntArray
    look: IntArray
    value: FloatArray
    log_chance: FloatArray

    def under(self, effect: float) -> FloatArray:
        """Chances of the endings, shape (m,), if the candidate's true effect is this.

        Parameters
        ----------
        effect : float
            Mean of a block's score over even, in a block's standard deviations.
        """
        tilt = (effect + self.gap / 2) / self.gap
        rate = (tilt * self.gap) ** 2 / 2
        log = self.log_chance + tilt * self.value - rate * self.information[self.look]
        chance: FloatArray = np.exp(log - log.max())
        return chance / chance.sum()  # would add up to one, but for what the grid cuts off


def stopping(
    information: FloatArray,
    first: int,
    gap: float,
    bounds: tuple[float, float],
    floor: FloatArray,
    *,
    value: float = 0.0,
) -> Stopping:
    """Follow the walk to the last block.

    Parameters
    ----------
    information : float array, shape (n,)
        After every block, in independent blocks' worth; never falls.
    first : int
        The number of blocks, 1 to n, before which nothing is decided.
    gap : float
        As in `Stopping`.
    bounds : (float, float)
        Of the log-likelihood ratio.
    floor : float array, shape (n,)
        A second lower bound, at every block; minus infinity for none.
    value : float
        One that the grid must hold.

    Raises
    ------
    ValueError
        The grid would take more than CELLS_AT_MOST: the gap is too small for the bounds, or too
        large for so many blocks.

    Notes
    -----
    Armitage, McPherson and Rowe 1969, Journal of the Royal Statistical Society A 132, 235-244:
    between looks the density is convolved with a step's, and what lies beyond a bound is taken
    off. The steps are longer than a block, so bounds are moved in by the difference of the mean
    overshoots.
    """
    begin, end = float(information[first - 1]), float(information[-1])
    steps = math.ceil(gap**2 * (end - begin) / STEP_VARIANCE)
    looks = np.linspace(begin, end, steps + 1)
    spread = gap * math.sqrt((end - begin) / steps) if steps else gap * math.sqrt(begin) / 10
    spacing = spread / POINTS_A_STEP
    reach = TAIL_DEVIATIONS * max(spread, gap * math.sqrt(begin))
    low = min(bounds[0] - TAIL_DEVIATIONS * spread, value, -reach) - spacing
    high = max(bounds[1] + TAIL_DEVIATIONS * spread, value, reach) + spacing
    points = math.ceil((high - low) / spacing) + 1
    if (cells := points * (steps + 2)) > CELLS_AT_MOST:
        raise ValueError(
            f"Hypotheses {gap:.3g} standard deviations of a block apart take a grid of {cells:.1e} "
            f"cells for {len(information)} blocks; {CELLS_AT_MOST:.0e} are allowed."
        )
    at = low + spacing * np.arange(points, dtype=np.float64)

    block = gap * math.sqrt(end / len(information))
    shift = OVERSHOOT * max(0.0, spread - block)
    under = np.maximum(bounds[0], np.interp(looks, information, floor)) + shift
    over = np.full(looks.size, bounds[1] - shift)
    under[0], over[0] = max(bounds[0], floor[first - 1]), bounds[1]
    under = np.minimum(under, over - spacing)

    kernel = _normal(
        np.arange(-TAIL_DEVIATIONS * POINTS_A_STEP, TAIL_DEVIATIONS * POINTS_A_STEP + 1)
        / POINTS_A_STEP
    )
    alive = _normal(at / (gap * math.sqrt(begin)))
    sides, endings = np.zeros((2, looks.size + 1, at.size))
    for look in range(looks.size):
        if look:
            alive = np.convolve(alive, kernel, mode="same")
        sides[look] = np.where(at <= under[look], -1, np.where(at >= over[look], 1, 0))
        endings[look] = np.where(sides[look], alive, 0.0)
        alive = np.where(sides[look], 0.0, alive)
    endings[-1] = alive
    row, column = np.nonzero(endings)
    return Stopping(
        gap=gap,
        spacing=spacing,
        information=looks,
        side=sides[row, column].astype(np.int64),
        look=np.minimum(row, looks.size - 1),
        value=at[column],
        log_chance=np.log(endings[row, column]),
    )


def median_unbiased(
    law: Stopping, verdict: str, value: float, level: float = LEVEL
) -> tuple[float, float, float]:
    """Estimate the effect from how the test ended at its last look, and give an interval.

    Parameters
    ----------
    law : Stopping
        Up to the look at which it ended, or the last one there is.
    verdict : str
        "regressed", "pass", or anything else for a test that has not decided.
    value : float
        The log-likelihood ratio then, by the normal approximation.
    level : float

    Returns
    -------
    estimate, low, high : float
        In a block's standard deviations.

    Notes
    -----
    Endings are ordered from worst to best: regressed, the earlier the worse; undecided, by value;
    passed, the earlier the better (Siegmund 1978, Biometrika 65, 341-349). The estimate is the
    effect under which an ending as bad as this has the chance 1/2; Fishtest does the same.
    """
    information = law.information[-1]
    centre = (value / law.gap - law.gap * information / 2) / information
    reach = TAIL_DEVIATIONS / math.sqrt(information)

    # How far each ending is worse than this one: wholly, not, or half for what is next to it.
    side = {"regressed": -1, "pass": 1}.get(verdict, 0)
    last = law.look == law.information.size - 1
    by_value = np.clip((value - law.value) / law.spacing + 0.5, 0, 1)
    among = by_value if side == 0 or law.information.size == 1 else np.full(last.size, 0.5)
    before = np.where(last, among, 0.0 if side > 0 else 1.0)
    share = np.where(law.side == side, before, law.side < side)

    def worse(effect: float) -> float:
        return float(share @ law.under(effect))

    def solve(chance: float) -> float:
        ends = centre - reach, centre + reach
        if worse(ends[0]) <= chance:
            return ends[0]
        if worse(ends[1]) >= chance:
            return ends[1]
        return float(brentq(lambda effect: worse(effect) - chance, *ends, xtol=1e-6))

    tail = (1 - level) / 2
    return solve(0.5), solve(1 - tail), solve(tail)


def _normal(deviates: FloatArray) -> FloatArray:
    """Chances of grid points under a normal law; they add up to one."""
    mass: FloatArray = np.exp(-(deviates**2) / 2)
    return mass / mass.sum()
