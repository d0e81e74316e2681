"""How many blocks of an experiment tell as much as one independent block would.

Blocks depend on each other: a voter judges many of them, and a prompt comes up again.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr, stdtrit

from ratings.design import Design
from ratings.stats.blocks import Blocks
from ratings.stats.comparisons import FloatArray, IntArray, compact

# A sum of squared residuals below this is rounding: all blocks have the same score.
NO_VARIANCE = 1e-9
# Degrees of freedom: a design effect measured with one has no t quantile of any use.
LEAST_DEGREES = 2.0
# Share of all pairs of blocks that share neither voter nor prompt. Where it is smaller, as with
# two voters, dividing by it would blow up what the residuals say.
LEAST_UNSHARED = 0.05


def design_effects(blocks: Blocks, design: Design) -> FloatArray:
    """How many blocks tell as much as one independent block would, after every block.

    Parameters
    ----------
    blocks : Blocks
    design : Design

    Returns
    -------
    float array, shape (n,)
        At least 1.

    Notes
    -----
    Rao and Scott 1981, Journal of the American Statistical Association 76, 221-230, divide a
    test's statistic by the variance of the mean over what it would be if all were independent.
    The variance is the two-way clustered one (see `sandwich`): products of the residuals of all
    pairs of blocks that share a voter or a prompt, each pair once. A block has two voters, so by
    voter a pair that shares both is counted twice and taken off once. Residuals from the mean make
    it too small, by the share of all pairs that are in it where the design is balanced. Then it is
    raised by `small_sample_inflation`, the degrees of freedom one less than Kish's effective
    number of voters or of prompts, whichever is less.
    """
    n = len(blocks)
    if n == 0:
        return np.ones(0)
    over_even = blocks.score.astype(np.float64) - 2
    count = np.arange(1, n + 1)
    mean = np.cumsum(over_even) / count
    squares = np.cumsum(over_even**2) - count * mean**2

    shared_squares, shared_pairs = np.zeros(n), np.zeros(n)
    cluster_sizes = []
    for sign, cluster, weight in _cluster_terms(blocks):
        of_sums, of_products, of_sizes = within_group_sums(cluster, weight, over_even)
        shared_squares += sign * (of_sums - 2 * mean * of_products + mean**2 * of_sizes)
        shared_pairs += sign * of_sizes
        cluster_sizes.append(of_sizes)
    unshared = np.maximum(1 - shared_pairs / count**2, LEAST_UNSHARED)
    varied = squares > NO_VARIANCE
    independent = np.where(varied, squares / np.maximum(1 - 1 / count, 0.5), 1.0)
    effect = np.where(varied, shared_squares / unshared / independent, 1.0)

    votes = np.cumsum(1 + (blocks.voter[:, 0] != blocks.voter[:, 1]))
    effective = np.minimum(votes**2 / cluster_sizes[0], count**2 / cluster_sizes[1])
    degrees = np.maximum(effective - 1, LEAST_DEGREES)
    return np.maximum(effect, 1.0) * small_sample_inflation(degrees, design)


def _cluster_terms(blocks: Blocks) -> list[tuple[int, IntArray, IntArray]]:
    """The clusters whose sums make the two-way variance: sign, labels and weights of each kind.

    Labels and weights have shape (n, m), m the clusters of the kind that a block can be in. The
    kinds are voters, prompts, pairs of voters, a voter on a prompt, and a pair on a prompt: pairs
    of blocks that share two of these are counted twice and taken off once. The weight of the
    second voter is 0 where one voter judged the block alone.
    """
    voter = compact(blocks.voter.ravel())[1].reshape(-1, 2)
    prompt = compact(blocks.prompt)[1]
    prompts = int(prompt.max()) + 1
    pair = voter.min(axis=1) * (voter.max() + 1) + voter.max(axis=1)
    one = np.ones((len(blocks), 1), dtype=np.int64)
    two_voters = (voter[:, :1] != voter[:, 1:]).astype(np.int64)
    by_voter = np.hstack([one, two_voters])
    return [
        (1, voter, by_voter),
        (1, prompt[:, None], one),
        (-1, pair[:, None], two_voters),
        (-1, voter * prompts + prompt[:, None], by_voter),
        (1, (pair * prompts + prompt)[:, None], two_voters),
    ]


def small_sample_inflation(degrees: FloatArray, design: Design) -> FloatArray:
    """By what factor a design effect is raised because few voters or prompts measured it.

    The squared ratio of the t quantile with these degrees of freedom, shape (n,), and the normal
    one, at ``sqrt(2 log(1 / alpha))`` standard errors: neither rule decides at fewer.
    """
    deviate = math.sqrt(2 * design.log_alarm)
    ratio: FloatArray = stdtrit(degrees, ndtr(deviate)) / deviate
    return ratio**2


def within_group_sums(
    cluster: IntArray, weight: IntArray, values: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Add up over clusters, after every block, shape (n,) each.

    Parameters
    ----------
    cluster, weight : array, shape (n, m)
        The clusters that each block is in, all different, and 0 for one that it is not in.
    values : float array, shape (n,)

    Returns
    -------
    Of each cluster's sum s and size m: s squared, s times m, and m squared.
    """
    flat, size = cluster.ravel(), weight.ravel().astype(np.float64)
    own = size * np.repeat(values, cluster.shape[1])
    order = np.argsort(flat, kind="stable")
    starts = np.flatnonzero(np.diff(flat[order], prepend=-1))
    lengths = np.diff(np.append(starts, flat.size))

    def before(parts: FloatArray) -> FloatArray:
        """Sum of the same cluster's earlier parts."""
        sums = np.cumsum(parts[order]) - parts[order]
        earlier = np.empty(flat.size)
        earlier[order] = sums - np.repeat(sums[starts], lengths)
        return earlier

    s, m = before(own), before(size)
    growth = (
        own * (2 * s + own),
        own * m + size * s + own * size,
        size * (2 * m + size),
    )
    sums = (np.cumsum(part.reshape(cluster.shape).sum(axis=1)) for part in growth)
    of_sums, of_products, of_sizes = sums
    return of_sums, of_products, of_sizes
