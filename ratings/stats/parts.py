"""Parts of an experiment's votes: by tag, with and without sound, by voter; and plain shares.

A vote gives the candidate a point for a win, none for a loss and half a point for anything else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import chdtrc, stdtrit

from ratings.elo_scale import ELO_PER_LOGIT, SCORE_MARGIN, elo_of_score
from ratings.significance import LEVEL, discoveries, normal_reach
from ratings.stats.bradley_terry import NO_SPREAD
from ratings.stats.comparisons import BoolArray, FloatArray, IntArray
from ratings.stats.sandwich import clustered
from ratings.stats.slices import satterthwaite_degrees, shrink, t_test_p_values

# Votes of a voter from which on the chi-square of three answers is near its distribution.
FEWEST_TO_TEST = 10


@dataclass(frozen=True, eq=False)
class Parts:
    """The candidate's mean points in parts of the votes.

    Attributes
    ----------
    mean : float array, shape (n_parts,)
        0 to 1; NaN for an empty part.
    covariance : float array, shape (n_parts, n_parts)
        Of these means, clustered by voter and by prompt.
    degrees : int array, shape (n_parts,)
        Of freedom: one less than the part's voters or prompts, whichever are fewer.
    """

    mean: FloatArray
    covariance: FloatArray
    degrees: IntArray

    def interval(self, part: int) -> tuple[float, float]:
        """95 % interval of a part's mean; NaN where its votes can't tell."""
        return _around(self.mean[part], self.covariance[part, part], self.degrees[part])

    def difference(self, one: int, other: int) -> tuple[float, float, float]:
        """One part's mean less another's, and its 95 % interval; NaN where the votes can't tell."""
        found = float(self.mean[one] - self.mean[other])
        pair = self.covariance[np.ix_([one, other], [one, other])]
        variance = pair[0, 0] + pair[1, 1] - 2 * pair[0, 1]
        return found, *_around(found, variance, min(self.degrees[one], self.degrees[other]))


def _around(value: float, variance: float, degrees: int) -> tuple[float, float]:
    if degrees < 1 or variance <= (NO_SPREAD / ELO_PER_LOGIT) ** 2:
        return math.nan, math.nan
    reach = float(stdtrit(degrees, (1 + LEVEL) / 2)) * math.sqrt(variance)
    return float(value) - reach, float(value) + reach


def parts(points: FloatArray, voter: IntArray, prompt: IntArray, members: BoolArray) -> Parts:
    """The candidate's mean points in each part, and how sure they are.

    Parameters
    ----------
    points : float array, shape (n_votes,)
        0, 1/2 or 1.
    voter, prompt : int array, shape (n_votes,)
    members : bool array, shape (n_parts, n_votes)
        Parts may overlap.

    Notes
    -----
    A vote's influence on the mean of a part with n votes is ``(point - mean) / n``; influences are
    added up within voters and within prompts (see `sandwich.clustered`).
    """
    size = members.sum(axis=1)
    mean = np.full(len(members), np.nan)
    np.divide(members @ points, size, out=mean, where=size > 0)
    if not points.size:
        return Parts(mean, np.zeros((len(members),) * 2), np.full(len(members), -1))
    influence = members * (points - np.nan_to_num(mean)[:, None]) / np.maximum(size, 1)[:, None]
    spread = clustered(csr_array(influence.T), np.eye(len(members)), voter, prompt)
    degrees = [min(np.unique(voter[m]).size, np.unique(prompt[m]).size) - 1 for m in members]
    return Parts(mean, spread.covariance, np.array(degrees, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Tags:
    """How the candidate does on the prompts of each tag, in Elo points over the baseline.

    Attributes
    ----------
    raw : float array, shape (n_tags,)
        By the mean points of the tag's votes.
    pooled, low, high : float array, shape (n_tags,)
        The whole's Elo plus the part of the difference that is not noise, with its 95 % interval;
        NaN where fewer than two voters or two prompts say anything of the tag.
    share : float array, shape (n_tags,)
        The part of the difference that is kept, 0 to 1.
    p_value : float array, shape (n_tags,)
        Of "the candidate does on this tag as on all prompts".
    discovery : bool array, shape (n_tags,)
        Whether it does not, after Benjamini and Hochberg's procedure at 5 % over all tags.
    """

    raw: FloatArray
    pooled: FloatArray
    low: FloatArray
    high: FloatArray
    share: FloatArray
    p_value: FloatArray
    discovery: BoolArray


def by_tag(points: FloatArray, voter: IntArray, prompt: IntArray, members: BoolArray) -> Tags:
    """Compare the votes on each tag's prompts with all votes.

    Parameters
    ----------
    points : float array, shape (n_votes,)
        0, 1/2 or 1.
    voter, prompt : int array, shape (n_votes,)
    members : bool array, shape (n_tags, n_votes)
        Which votes are on prompts of each tag.

    Notes
    -----
    The difference d between a tag's mean and the whole's is turned into Elo points by the slope at
    the whole's mean m, ``400 / (ln 10 m (1 - m))``, and pulled towards zero as the slices of a
    leaderboard are (`slices.shrink`): by as much as its noise, clustered by voter and prompt,
    outweighs how differently tags really do. Tests are t tests with the tag's degrees of freedom.
    """
    k = len(members)
    raw, pooled, low, high, share, p_value = np.full((6, k), np.nan)
    found = parts(points, voter, prompt, np.vstack([members, np.ones_like(points, dtype=bool)]))
    raw[:] = [elo_of_score(mean) for mean in found.mean[:k].tolist()]
    known = np.flatnonzero((found.degrees[:k] >= 1) & ~members.all(axis=1))
    if known.size:
        whole = float(np.clip(found.mean[k], SCORE_MARGIN, 1 - SCORE_MARGIN))
        slope = ELO_PER_LOGIT / (whole * (1 - whole))
        difference = slope * (found.mean[known] - found.mean[k])
        contrast = np.hstack([np.eye(k), np.full((k, 1), -1.0)])[known] * slope
        noise = contrast @ found.covariance @ contrast.T
        crossed = contrast @ found.covariance[:, k] * slope
        of_whole = float(found.covariance[k, k]) * slope**2
        shrunk = shrink(
            difference,
            noise,
            np.broadcast_to(crossed[:, None], noise.shape),
            np.full(noise.shape, of_whole),
        )
        share[known] = shrunk.share
        pooled[known] = elo_of_score(whole) + shrunk.share * difference
        variance = np.diagonal(shrunk.covariance)
        degrees = satterthwaite_degrees(
            variance, of_whole, float(found.degrees[k]), shrunk.kept_noise, found.degrees[known]
        )
        reach = stdtrit(degrees, (1 + LEVEL) / 2) * np.sqrt(variance)
        low[known], high[known] = pooled[known] - reach, pooled[known] + reach
        p_value[known] = t_test_p_values(difference, noise, found.degrees[known])
    discovery = np.array(discoveries(p_value.tolist()), dtype=bool)
    return Tags(raw, pooled, low, high, share, p_value, discovery)


@dataclass(frozen=True, eq=False)
class Contributors:
    """Whether each voter answers as the others do.

    Attributes
    ----------
    residual : float array, shape (n_voters,)
        The voter's mean points less those of the rest; NaN where there is no rest.
    chi_square, p_value : float array, shape (n_voters,)
        Of the voter's answers against the rest's; NaN below 10 votes and where nothing varies.
    stands_out : bool array, shape (n_voters,)
        After Benjamini and Hochberg's procedure at 5 % over all voters.
    """

    residual: FloatArray
    chi_square: FloatArray
    p_value: FloatArray
    stands_out: BoolArray


def contributors(counts: IntArray) -> Contributors:
    """Compare each voter's answers with those of the rest.

    Parameters
    ----------
    counts : int array, shape (n_voters, 3)
        Votes for the candidate, for neither, for the baseline.

    Notes
    -----
    Pearson's chi-square of the two rows "voter" and "the rest", as Fishtest (Stockfish's testing
    framework) looks for machines whose results do not fit; an answer that nobody gave is no column.
    """
    counts = np.asarray(counts, dtype=np.int64).reshape(-1, 3)
    votes = counts.sum(axis=1)
    rest = counts.sum(axis=0) - counts
    others = rest.sum(axis=1)
    points = np.array([1.0, 0.5, 0.0])
    mean, mean_of_rest = np.full((2, len(counts)), np.nan)
    np.divide(counts @ points, votes, out=mean, where=votes > 0)
    np.divide(rest @ points, others, out=mean_of_rest, where=others > 0)

    column = (counts + rest)[:, None, :] / np.maximum(votes + others, 1)[:, None, None]
    expected = column * np.stack([votes, others], axis=1)[:, :, None]
    observed = np.stack([counts, rest], axis=1)
    terms = np.divide(
        (observed - expected) ** 2, expected, out=np.zeros(expected.shape), where=expected > 0
    )
    degrees = np.count_nonzero(column[:, 0] > 0, axis=1) - 1
    tested = (degrees > 0) & (votes >= FEWEST_TO_TEST) & (others > 0)
    chi_square, p_value = np.full((2, len(counts)), np.nan)
    chi_square[tested] = terms.sum(axis=(1, 2))[tested]
    p_value[tested] = chdtrc(degrees[tested], chi_square[tested])
    stands_out = np.array(discoveries(p_value.tolist()), dtype=bool)
    return Contributors(mean - mean_of_rest, chi_square, p_value, stands_out)


def wilson(mean: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Interval of a share of n answers; (0, 1) where there are none.

    Wilson (1927, Journal of the American Statistical Association 22, 209-212). With answers that
    count half, it is wider than need be.
    """
    if n == 0:
        return 0.0, 1.0
    z = normal_reach(level)
    middle = (mean + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - reach), min(1.0, middle + reach)
