"""Off-policy estimators over plain arrays: each returns its value and the influence of every row on it.

The influence values carry everything an interval needs: their spread is the standard error, and resampling them is the
bootstrap. Source: Dudik, Erhan, Langford and Li, "Doubly robust policy evaluation and optimization" (Statistical
Science 29, 2014); Swaminathan and Joachims, "The self-normalized estimator for counterfactual learning" (NeurIPS 2015).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve

from banditroute._core.typing import Floats, Ints

__all__ = [
    "Fit",
    "Term",
    "clipped",
    "cross_fit",
    "direct",
    "doubly_robust",
    "effective_size",
    "grouped",
    "importance",
    "ips",
    "resample",
    "snips",
]


_BLOCK = 16_384  # rows predicted at once: keeps the scratch far below the trace
_GROUPS = 4096  # rows of a longer trace are resampled in so many groups of neighbours


class Term(NamedTuple):
    """An estimate and the influence of each row on it, (n,), of mean zero: ``value + mean(influence)`` of a resample.

    Examples
    --------
    >>> ips(np.array([1.0, 0.0]), np.array([2.0, 2.0]))
    Term(value=1.0, influence=array([ 1., -1.]))
    """

    value: float
    influence: Floats

    @property
    def std_error(self) -> float:
        """Standard deviation of the value over draws of independent rows."""
        count = len(self.influence)
        return float(np.sqrt(np.dot(self.influence, self.influence) / max(count - 1, 1) / count))


class Fit(NamedTuple):
    """Predicted rewards from a fit that never saw the row: of the logged arm, and averaged over the target, (n,) each.

    Examples
    --------
    >>> Fit(np.zeros(2), np.ones(2)).target
    array([1., 1.])
    """

    logged: Floats
    target: Floats


def importance(arms: Ints, propensities: Floats, target: NDArray[Any]) -> Floats:
    """Return the weight ``pi(a | x) / p`` of every row, (n,).

    Parameters
    ----------
    arms : (n,) int array
        Logged arms.
    propensities : (n,) array
        In (0, 1].
    target : (n,) int array or (n, k) array
        The arm that the target plays on each row, or its probabilities.

    Examples
    --------
    >>> importance(np.array([0, 1]), np.array([0.5, 0.25]), np.array([0, 0]))
    array([2., 0.])
    """
    share = target == arms if target.ndim == 1 else target[np.arange(len(arms)), arms]
    with np.errstate(
        over="ignore"
    ):  # a weight beyond the range of a float is infinite, for the caller to refuse
        result: Floats = share / propensities
    return result


def effective_size(weights: Floats) -> float:
    """Return the effective sample size ``(sum w)^2 / sum w^2``; 0 where all weights are 0 or one is infinite.

    Examples
    --------
    >>> effective_size(np.array([1.0, 1.0, 0.0])), effective_size(np.array([1.0, 1e300]))
    (2.0, 1.0)
    """
    top = float(weights.max(initial=0.0))
    if not 0.0 < top < np.inf:
        return 0.0
    shares = weights / top  # squares of large weights would overflow
    return float(shares.sum() ** 2 / np.dot(shares, shares))


def _mean(values: Floats) -> Term:
    value = float(values.mean())
    return Term(value, values - value)


def ips(rewards: Floats, weights: Floats) -> Term:
    """Inverse propensity scoring: the mean of ``w r``; unbiased, wide.

    Examples
    --------
    >>> ips(np.array([1.0, 3.0]), np.array([1.0, 1.0])).value
    2.0
    """
    return _mean(weights * rewards)


def clipped(rewards: Floats, weights: Floats, limit: float) -> Term:
    """IPS with weights cut at `limit`: narrower, and biased downwards where rewards are positive.

    Examples
    --------
    >>> clipped(np.array([1.0, 1.0]), np.array([0.0, 8.0]), 4.0).value
    2.0
    """
    return _mean(np.minimum(weights, limit) * rewards)


def snips(rewards: Floats, weights: Floats) -> Term:
    """Self-normalised IPS, ``sum w r / sum w``: bias of order 1/n, unmoved by a constant added to all rewards.

    Examples
    --------
    >>> snips(np.array([1.0, 3.0]), np.array([1.0, 3.0])).value
    2.5
    """
    total = weights.mean()
    value = float((weights * rewards).mean() / total)
    return Term(value, weights * (rewards - value) / total)


def direct(fit: Fit) -> Term:
    """Direct method: the predicted reward of the target. Its spread leaves out the bias of the fit.

    Examples
    --------
    >>> direct(Fit(np.zeros(2), np.array([1.0, 2.0]))).value
    1.5
    """
    return _mean(fit.target)


def doubly_robust(rewards: Floats, weights: Floats, fit: Fit) -> Term:
    """Direct method plus the mean of ``w (r - q(x, a))``: unbiased whatever the fit, narrow where it is good.

    Examples
    --------
    >>> doubly_robust(np.array([1.0, 2.0]), np.array([2.0, 0.0]), Fit(np.ones(2), np.ones(2))).value
    1.0
    """
    return _mean(fit.target + weights * (rewards - fit.logged))


def cross_fit(
    contexts: Floats | None,
    arms: Ints,
    rewards: Floats,
    targets: list[NDArray[Any]],
    count: int,
    *,
    ridge: float = 1.0,
    folds: int = 5,
) -> list[Fit]:
    """Fit rewards by ridge regression arm by arm, and predict each row from the other folds.

    Parameters
    ----------
    contexts : (n, d) array or None
        Without contexts the fit is the mean reward of each arm.
    arms, rewards : (n,) arrays
    targets : list of (n,) int or (n, count) arrays
        What to average the predictions over.
    count : int
        Number of arms.
    ridge : float
        Strength with which an arm is drawn towards the fit of all arms together.
    folds : int
        Row i belongs to fold ``i % folds``: neighbours in time are apart, so drift is shared by all fits.

    Returns
    -------
    list of Fit
        One for each target. Cost O(n d (d + count)), scratch a small part of the contexts.

    Examples
    --------
    >>> fit, = cross_fit(None, np.zeros(4, int), np.ones(4), [np.zeros(4, int)], 1, folds=2)
    >>> fit.target.round(6)
    array([1., 1., 1., 1.])
    """
    rows = len(arms)
    width = 1 if contexts is None else contexts.shape[1] + 1
    gram, moment = np.zeros((folds, count, width, width)), np.zeros((folds, count, width))
    fold = np.arange(rows) % folds
    cell = fold * count + arms
    order = np.argsort(cell, kind="stable")
    edges = np.searchsorted(cell[order], np.arange(folds * count + 1))
    for j in range(folds * count):
        f, a = divmod(j, count)
        for start in range(edges[j], edges[j + 1], _BLOCK):
            own = order[start : min(start + _BLOCK, edges[j + 1])]
            x = _with_one(contexts, own)
            gram[f, a] += x.T @ x
            moment[f, a] += x.T @ rewards[own]
    theta = _solved(gram, moment, ridge)
    fits = [Fit(np.empty(rows), np.empty(rows)) for _ in targets]
    for f in range(folds):
        for start in range(f, rows, _BLOCK * folds):
            own = np.arange(start, min(start + _BLOCK * folds, rows), folds)
            q = _with_one(contexts, own) @ theta[f].T
            each = np.arange(len(own))
            for target, fit in zip(targets, fits, strict=True):
                fit.logged[own] = q[each, arms[own]]
                if target.ndim == 1:
                    fit.target[own] = q[each, target[own].astype(np.int64)]
                else:
                    fit.target[own] = np.einsum("ij,ij->i", q, target[own])
    return fits


def _with_one(contexts: Floats | None, rows: Ints) -> Floats:
    if contexts is None:
        return np.ones((len(rows), 1))
    out = np.empty((len(rows), contexts.shape[1] + 1))
    out[:, :-1] = contexts[rows]
    out[:, -1] = 1.0
    return out


def _solved(gram: Floats, moment: Floats, ridge: float) -> Floats:
    """Return the coefficients that score each fold, (folds, arms, width), from the sums of the other folds."""
    folds, count, width = moment.shape
    theta = np.empty_like(moment)
    penalty = ridge * np.eye(width)
    shared_penalty = penalty.copy()
    shared_penalty[-1, -1] = 1e-9  # the level of the rewards is not shrunk, only kept solvable
    for f in range(folds):
        others = (
            np.arange(folds) != f
        )  # summed, not subtracted: the fold must not show in the last bit either
        other_gram, other_moment = gram[others].sum(axis=0), moment[others].sum(axis=0)
        shared = solve(other_gram.sum(axis=0) + shared_penalty, other_moment.sum(axis=0), assume_a="pos")
        for a in range(count):
            pull = other_moment[a] + ridge * shared
            theta[f, a] = solve(other_gram[a] + penalty, pull, assume_a="pos")
    return theta


def grouped(term: Term) -> Floats:
    """Return the influence summed over at most 4096 groups of neighbouring rows: what `resample` draws from.

    Examples
    --------
    >>> grouped(ips(np.array([1.0, 3.0]), np.ones(2)))
    array([-1.,  1.])
    """
    rows = len(term.influence)
    groups = min(rows, _GROUPS)
    sums: Floats = np.add.reduceat(term.influence, np.arange(groups) * rows // groups)
    return sums


def resample(sums: Floats, rows: int, draws: int, rng: np.random.Generator) -> Floats:
    """Return bootstrap deviations, (draws, m), of m terms from their grouped influence, (groups, m).

    The multinomial counts are the same for every term, so differences between columns are paired. Groups keep the
    dependence between neighbours, and the cost, O(draws groups), does not grow with the trace.

    Examples
    --------
    >>> resample(np.zeros((5, 1)), 5, 2, np.random.default_rng(0)).ravel()
    array([0., 0.])
    """
    groups = len(sums)
    out = np.empty((draws, sums.shape[1]))
    for start in range(0, draws, 256):
        size = min(256, draws - start)
        drawn = rng.integers(groups, size=(size, groups)) + groups * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * groups).reshape(size, groups)
        out[start : start + size] = counts @ sums / rows
    return out
