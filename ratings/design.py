"""What an experiment fixes beforehand, and the bounds of its test that follow.

Standard library only: pages read it, and the web process loads no numpy.
"""

import math
from dataclasses import dataclass

from ratings.elo_scale import block_effect
from ratings.least_numbers import LEAST_BLOCKS


@dataclass(frozen=True)
class Design:
    """What an experiment fixes beforehand.

    Parameters
    ----------
    margin : float
        By how much worse must not pass, in normalised Elo, above 0.
    alpha : float
        Chance of `pass` for a candidate that is worse by the margin, and of a false alarm of the
        e-process.
    beta : float
        Chance of `regressed` by the ratio test for one that is not worse.
    max_blocks : int
        Blocks after which an undecided experiment is inconclusive.

    Raises
    ------
    ValueError
        A value is out of range.
    """

    margin: float
    alpha: float = 0.05
    beta: float = 0.05
    max_blocks: int = 1500

    def __post_init__(self) -> None:
        if not 0 < self.margin < math.inf:
            raise ValueError(f"The margin is {self.margin} Elo; it must be above 0.")
        for name, chance in (("alpha", self.alpha), ("beta", self.beta)):
            if not 0 < chance < 0.5:
                raise ValueError(f"{name} is {chance}; it must be between 0 and 0.5.")
        if self.max_blocks < LEAST_BLOCKS:
            raise ValueError(
                f"The most blocks are {self.max_blocks}; a verdict needs {LEAST_BLOCKS} or more."
            )

    @property
    def gap(self) -> float:
        """The margin in standard deviations of a block's score."""
        return block_effect(self.margin)

    @property
    def bounds(self) -> tuple[float, float]:
        """Wald's lower and upper bound of the log-likelihood ratio."""
        return (
            math.log(self.beta / (1 - self.alpha)),
            math.log((1 - self.beta) / self.alpha),
        )

    @property
    def log_alarm(self) -> float:
        return -math.log(self.alpha)
