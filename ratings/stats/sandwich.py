"""Covariances that allow for votes of one voter, and votes on one prompt, depending on each other.

The cluster-robust "sandwich": each vote's influence on the estimate, added up within clusters
before it is squared. Clustered by voter and by prompt at once, the covariance is
``V = V_voter + V_prompt - V_both`` (Cameron, Gelbach and Miller 2011, Journal of Business and
Economic Statistics 29, 238-249): the last is clustered by voter and prompt together, so that what
two votes share is counted once. Where nobody votes twice on a prompt it is that of single votes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit, stdtrit

from ratings.elo_scale import ELO_PER_LOGIT
from ratings.significance import LEVEL
from ratings.stats.bradley_terry import Ratings
from ratings.stats.comparisons import (
    Comparisons,
    FloatArray,
    IntArray,
    Outcome,
    compact,
)

# V_voter + V_prompt is at most twice too large: when neither voters nor prompts have ways of their
# own. A smaller share of it can only be noise of few clusters, and would claim too much.
LEAST_SHARE = 0.5
# Eigenvalues below this share of the largest are directions without variance: a thousandth
# of the largest standard error.
RANK_TOLERANCE = 1e-6
# Numbers in a table of clusters and parameters above which it is kept sparse: half a gigabyte.
DENSE_AT_MOST = 60_000_000


@dataclass(frozen=True, eq=False)
class Clustered:
    """A covariance clustered by voter and by prompt.

    Attributes
    ----------
    covariance : float array, shape (p, p)
        ``by_voter + by_prompt - by_both`` made positive semi-definite, in the squared unit of the
        bread times the score.
    recolouring : float array, shape (p, p)
        Turns numbers with covariance ``by_voter + by_prompt`` into numbers with `covariance`.
    voters, prompts : int
        Clusters.
    degrees : float
        Of freedom, for a t quantile: one less than the clusters of the kind with fewer, or than
        the votes where there is one voter and one prompt.
    """

    covariance: FloatArray
    recolouring: FloatArray
    voters: int
    prompts: int
    degrees: float

    def reach(self, level: float = LEVEL) -> float:
        """Standard errors from the estimate to each end of an interval: a t quantile."""
        return float(stdtrit(self.degrees, (1 + level) / 2))


def clustered(scores: csr_array, bread: FloatArray, voter: IntArray, prompt: IntArray) -> Clustered:
    """Estimate a covariance from each vote's score, clustered by voter and by prompt.

    Parameters
    ----------
    scores : csr_array, shape (n_votes, p)
        Derivative of each vote's log-likelihood with respect to the p parameters.
    bread : float array, shape (p, p)
        Inverse of the negative Hessian; a pseudo-inverse where the parameters are known up to a
        constant only.
    voter, prompt : int array, shape (n_votes,)

    Returns
    -------
    Clustered

    Notes
    -----
    The one-way covariances need not combine to a positive semi-definite one; see `two_way`.
    """
    covariance, recolouring = two_way(*one_way(scores, bread, voter, prompt))
    voters, prompts = np.unique(voter).size, np.unique(prompt).size
    fewest = min((size for size in (voters, prompts) if size > 1), default=voter.size)
    return Clustered(
        covariance=covariance,
        recolouring=recolouring,
        voters=voters,
        prompts=prompts,
        degrees=float(max(1, fewest - 1)),
    )


def one_way(
    scores: csr_array, bread: FloatArray, voter: IntArray, prompt: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Estimate the covariance by voter, by prompt, and by both together: shape (p, p) each.

    The last has the votes of one voter on one prompt as its clusters. Where there is one voter,
    or one prompt, nothing says how others would differ: that one and the last then have every
    vote as a cluster.

    Notes
    -----
    ``bread @ sum_g (s_g s_g') @ bread * G / (G - 1)``, s_g the scores added up in cluster g of G
    (Liang and Zeger 1986, Biometrika 73, 13-22, with the usual correction for few clusters).
    """
    (voters, of_voter), (prompts, of_prompt) = compact(voter), compact(prompt)
    meat = (scores.T @ scores).toarray()
    by_voter = by_prompt = by_both = _covariance(meat, bread, scores.shape[0])
    if voters.size > 1:
        by_voter = _covariance(_meat(scores, of_voter, voters.size), bread, voters.size)
    if prompts.size > 1:
        by_prompt = _covariance(_meat(scores, of_prompt, prompts.size), bread, prompts.size)
    if min(voters.size, prompts.size) > 1:
        both, of_both = compact(of_voter * prompts.size + of_prompt)
        # Only votes that share both add anything to what single votes have.
        shared = np.flatnonzero(np.bincount(of_both)[of_both] > 1)
        if shared.size:
            some, of_some = compact(of_both[shared])
            part = csr_array(scores[shared])
            together = _meat(part, of_some, some.size) - (part.T @ part).toarray()
            by_both = _covariance(meat + together, bread, both.size)
    return by_voter, by_prompt, by_both


def two_way(
    by_voter: FloatArray, by_prompt: FloatArray, by_both: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Combine one-way covariances, shape (p, p) each, into V and the map that recolours to it.

    With C = by_voter + by_prompt, ``V = C^1/2 R C^1/2`` where ``R = 1 - C^-1/2 by_both C^-1/2``
    has its eigenvalues raised to at least `LEAST_SHARE`: so V is positive semi-definite and in no
    direction below the mean of the two one-way covariances.

    The map is the symmetric ``C^-1/2 (C^1/2 V C^1/2)^1/2 C^-1/2``, which of all maps with the
    right covariance moves normal numbers least (Dowson and Landau 1982, Journal of Multivariate
    Analysis 12, 450-455). Because V is between C / 2 and C, its eigenvalues are between the root
    of a half and one: it can't blow anything up.

    Returns
    -------
    covariance, recolouring : float array, shape (p, p)
    """
    values, vectors = np.linalg.eigh(by_voter + by_prompt)
    kept = values > RANK_TOLERANCE * values.max(initial=0.0)
    values, vectors = values[kept], vectors[:, kept]
    scale = np.sqrt(values)
    whitened = (vectors.T @ by_both @ vectors) / np.outer(scale, scale)
    shares, directions = np.linalg.eigh(np.eye(values.size) - whitened)
    share = (directions * np.clip(shares, LEAST_SHARE, 1.0)) @ directions.T
    covariance: FloatArray = vectors @ (share * np.outer(scale, scale)) @ vectors.T
    squares, axes = np.linalg.eigh(share * np.outer(values, values))
    root = (axes * np.sqrt(np.maximum(squares, 0.0))) @ axes.T / np.outer(scale, scale)
    recolouring: FloatArray = (
        np.eye(len(vectors)) + vectors @ (root - np.eye(values.size)) @ vectors.T
    )
    return covariance, recolouring


def vote_scores(votes: Comparisons, ratings: Ratings) -> csr_array:
    """Give the derivative of each vote's Bradley-Terry log-likelihood.

    Parameters
    ----------
    votes : Comparisons
    ratings : Ratings
        Of these versions.

    Returns
    -------
    csr_array, shape (n_votes, n_versions)
        With respect to the ratings in natural logits: ``weight * (points of A - p)`` for
        version A, p its chance, and the opposite for version B; zero for votes between
        versions that are not comparable.
    """
    n = votes.n_votes
    known = ratings.comparable[votes.a] & ratings.comparable[votes.b]
    logits = np.where(ratings.comparable, ratings.elo, 0.0) / ELO_PER_LOGIT
    points = np.where(votes.outcome == Outcome.TIE, 0.5, votes.outcome == Outcome.A)
    residual = (points - expit(logits[votes.a] - logits[votes.b])) * known
    if votes.weight is not None:
        residual = residual * votes.weight
    return csr_array(
        (
            np.stack([residual, -residual], axis=1).ravel(),
            np.stack([votes.a, votes.b], axis=1).ravel(),
            np.arange(0, 2 * n + 1, 2),
        ),
        shape=(n, votes.n_versions),
    )


def bread(ratings: Ratings) -> FloatArray:
    """Give the matrix that turns scores into influence on the ratings.

    Returns
    -------
    float array, shape (n_versions, n_versions)
        ``scores @ bread`` is, to first order, how many Elo points each vote has moved each
        rating under the anchor of the fit; zero for versions that are not comparable.
    """
    matrix: FloatArray = np.where(
        np.isnan(ratings.covariance), 0.0, ratings.covariance / ELO_PER_LOGIT
    )
    return matrix


def sandwich(votes: Comparisons, ratings: Ratings) -> Clustered:
    """Estimate the covariance of the ratings, clustered by voter and by prompt.

    Parameters
    ----------
    votes : Comparisons
    ratings : Ratings
        Fitted to these votes.

    Returns
    -------
    Clustered
        In squared Elo points; zero for versions that are not comparable.
    """
    known = ratings.comparable[votes.a] & ratings.comparable[votes.b]
    votes = votes if known.all() else votes.select(known)  # others' voters are no clusters here
    return clustered(vote_scores(votes, ratings), bread(ratings), votes.voter, votes.prompt)


def _meat(scores: csr_array, cluster: IntArray, n_clusters: int) -> FloatArray:
    """Add scores up within clusters, shape (G, p), and give their cross products, shape (p, p)."""
    p = scores.shape[1]
    if n_clusters * p > DENSE_AT_MOST:
        n = cluster.size
        member = csr_array((np.ones(n), cluster, np.arange(n + 1)), shape=(n, n_clusters))
        sums = csr_array(member.T @ scores)
        meat: FloatArray = (sums.T @ sums).toarray()
        return meat
    place = np.repeat(cluster * p, np.diff(scores.indptr)) + scores.indices
    flat: FloatArray = np.bincount(place, scores.data, minlength=n_clusters * p).astype(np.float64)
    table = flat.reshape(n_clusters, p)
    return table.T @ table


def _covariance(meat: FloatArray, bread: FloatArray, size: int) -> FloatArray:
    """The sandwich, with the correction for few clusters."""
    covariance: FloatArray = bread @ meat @ bread.T * (size / max(1, size - 1))
    return covariance
