"""Off-policy estimators over plain arrays: each is a ratio of two sums over rows, which is all that an interval needs.

Sums may be formed in parts and added: so an estimate of a trace in memory and one of a
folder of files are the same computation. Source: Dudik, Erhan, Langford and Li, "Doubly robust policy evaluation and
optimization" (Statistical Science 29, 2014); Swaminathan and Joachims, "The self-normalized estimator for
counterfactual learning" (NeurIPS 2015); Wang, Agarwal and Dudik, "Optimal and adaptive off-policy evaluation" (ICML
2017, SWITCH); Su, Dimakopoulou, Krishnamurthy and Dudik, "Doubly robust off-policy evaluation with shrinkage" (ICML
2020).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditroute._core.typing import Floats, Ints

__all__ = [
    "ESTIMATORS",
    "Fit",
    "Term",
    "clipped",
    "direct",
    "doubly_robust",
    "effective_size",
    "fit_of",
    "importance",
    "ips",
    "shrunk",
    "snips",
    "switch",
    "term",
]

ESTIMATORS = ("ips", "clipped", "snips", "dm", "dr", "switch", "shrunk")
MODELLED = frozenset({"dm", "dr", "switch", "shrunk"})  # those that need a model of rewards


class Term(NamedTuple):
    """An estimate as ``sum top / sum bottom`` over the rows, (n,) each; `bottom` is 1 for a plain mean.

    Examples
    --------
    >>> ips(np.array([1.0, 0.0]), np.array([2.0, 2.0])).influence
    array([ 1., -1.])
    """

    top: Floats
    bottom: Floats

    @property
    def value(self) -> float:
        """The estimate."""
        return float(self.top.mean() / self.bottom.mean())

    @property
    def influence(self) -> Floats:
        """How much each row moves the estimate, (n,), of mean zero."""
        pull: Floats = (self.top - self.value * self.bottom) / self.bottom.mean()
        return pull

    @property
    def std_error(self) -> float:
        """Standard deviation of the value over draws of independent rows."""
        count, pull = len(self.top), self.influence
        return float(np.sqrt(np.dot(pull, pull) / max(count - 1, 1) / count))

    def less(self, other: "Term") -> "Term":
        """Return the difference to another estimate on the same rows, paired row by row, to first order.

        Examples
        --------
        >>> one, two = (ips(np.array([1.0, 0.0]), np.full(2, w)) for w in (2.0, 1.0))
        >>> one.less(two).value
        0.5
        """
        gap = self.value - other.value
        return _mean(gap + self.influence - other.influence)


class Fit(NamedTuple):
    """Predicted rewards from a fit that never saw the row: of the logged arm, and averaged over the target, (n,) each.

    Examples
    --------
    >>> Fit(np.zeros(2), np.ones(2)).target
    array([1., 1.])
    """

    logged: Floats
    target: Floats


def fit_of(expected: Floats, arms: Ints, target: NDArray[Any]) -> Fit:
    """Return what expected rewards of every arm, (n, k), say of the logged arms and of a target.

    Examples
    --------
    >>> fit_of(np.array([[1.0, 3.0]]), np.array([0]), np.array([[0.5, 0.5]]))
    Fit(logged=array([1.]), target=array([2.]))
    """
    each = np.arange(len(arms))
    if target.ndim == 1:
        return Fit(expected[each, arms], expected[each, target])
    return Fit(expected[each, arms], np.einsum("ij,ij->i", expected, target))


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
    return Term(values, np.ones(len(values)))


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
    return Term(weights * rewards, weights)


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


def switch(rewards: Floats, weights: Floats, fit: Fit, limit: float) -> Term:
    """SWITCH: doubly robust where the weight is at most `limit`, the direct method beyond.

    Examples
    --------
    >>> switch(np.array([1.0, 2.0]), np.array([2.0, 9.0]), Fit(np.zeros(2), np.ones(2)), 4.0).value
    2.0
    """
    return doubly_robust(rewards, np.where(weights <= limit, weights, 0.0), fit)


def shrunk(rewards: Floats, weights: Floats, fit: Fit, limit: float) -> Term:
    """Doubly robust with weights shrunk to ``w limit^2 / (w^2 + limit^2)``: half of the weight at the limit.

    Examples
    --------
    >>> shrunk(np.array([1.0, 2.0]), np.array([4.0, 0.0]), Fit(np.zeros(2), np.zeros(2)), 4.0).value
    1.0
    """
    return doubly_robust(rewards, weights / (1.0 + np.square(weights / limit)), fit)


def term(name: str, rewards: Floats, weights: Floats, limit: float, fit: Fit | None) -> Term:
    """Return the estimate of a name of `ESTIMATORS`; those with a model need a fit.

    Examples
    --------
    >>> term("ips", np.ones(2), np.ones(2), 9.0, None).value
    1.0
    """
    if name == "ips":
        return ips(rewards, weights)
    if name == "clipped":
        return clipped(rewards, weights, limit)
    if name == "snips":
        return snips(rewards, weights)
    assert fit is not None
    if name == "dm":
        return direct(fit)
    if name == "dr":
        return doubly_robust(rewards, weights, fit)
    return (switch if name == "switch" else shrunk)(rewards, weights, fit, limit)
