"""The scale of the ratings: what Elo points, natural logits, scores and normalised Elo are.

Standard library only: pages read it, and the web process loads no numpy.
"""

import math

# 400 points are a factor of ten in the odds (Elo 1978, The Rating of Chessplayers).
ELO_PER_LOGIT = 400 / math.log(10)
# The mean of the versions of a leaderboard.
MEAN_ELO = 1000.0
# Van den Bergh ("Normalized Elo", cantate.be/Fishtest): normalised Elo is Elo where the score of
# a single vote, 0 to 1, has the standard deviation 1/2.
NORMALISED_ELO = 800 / math.log(10)
# Scores nearer to 0 or 1 than this count as this near: at most 1,200 points.
SCORE_MARGIN = 1e-3


def elo_of_score(score: float) -> float:
    """Elo points of a mean score from 0 to 1; at most 1,200 either way, NaN of NaN."""
    if score < SCORE_MARGIN:
        score = SCORE_MARGIN
    elif score > 1 - SCORE_MARGIN:
        score = 1 - SCORE_MARGIN
    return 400 * math.log10(score / (1 - score))


def block_effect(normalised: float) -> float:
    """Normalised Elo as the mean of a block's score over even, in its standard deviations.

    A block's score is the mean of two votes, so its deviation is smaller by the root of 2.
    """
    return normalised / NORMALISED_ELO * math.sqrt(2)


def normalised_elo(effect: float) -> float:
    """The opposite of `block_effect`."""
    return effect * NORMALISED_ELO / math.sqrt(2)
