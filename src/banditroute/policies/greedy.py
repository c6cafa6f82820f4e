"""Epsilon-greedy on linear models."""

from collections.abc import Iterable
from typing import Any

from banditroute._core import validation as check
from banditroute.policies.linear import LinearPolicy

__all__ = ["EpsilonGreedy"]


class EpsilonGreedy(LinearPolicy):
    """Plays the arm with the largest mean less price, and a uniform one with probability epsilon.

    Parameters
    ----------
    arms, dim, ridge, prior, discount, intercept, max_norm, rng
        As in `LinUCB`.
    epsilon : float
        Share of uniform decisions, in [0, 1]: 0 is greedy, 1 is uniform.

    Notes
    -----
    `LinUCB` with ``alpha=0`` and ``mix=epsilon``: the same kernels, prices, masks and propensities. With a fixed
    epsilon regret grows linearly, at rate epsilon times the mean gap; with epsilon 0 it can lock onto a bad arm.

    Examples
    --------
    >>> EpsilonGreedy(arms=4, dim=2, epsilon=1.0, rng=0).propensities([1.0, 0.0])
    array([0.25, 0.25, 0.25, 0.25])
    """

    def __init__(self, arms: int | Iterable[str], dim: int, *, epsilon: float = 0.05, **options: Any) -> None:
        super().__init__(arms, dim, alpha=0.0, mix=check.unit("epsilon", epsilon), **options)
