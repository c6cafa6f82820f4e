"""Separate estimates of quality, cost and latency, combined when a request is decided."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.policies import LARGEST, LinUCB

__all__ = ["Heads"]


class Heads:
    """Learn what a request costs on each arm, one ridge regression per measure, and price it by weights.

    The policy learns quality; each head learns one other measure of the same decisions. A changed weight changes the
    trade-off at the next request, with nothing relearned.

    Parameters
    ----------
    arms : int or sequence of str
        As in the policy.
    dim : int
        Length of the contexts.
    weights : mapping of str to float
        Measures and their price, reward units per unit of the measure.

    Notes
    -----
    BaRP (arXiv 2510.07429) puts the user's weights beside the context and trains on the combined reward; keeping the
    parts as regressions serves all weights from one set of statistics. A head is a `LinUCB` without bonus: its
    estimates are the means, for exploration belongs to the policy. Predictions below 0 count as 0. O(k dim) to
    read and O(dim^2) to learn, for each head.

    Examples
    --------
    >>> heads = Heads(["small", "large"], 1, weights={"usd": 10.0, "seconds": 0.0})
    >>> for _ in range(100):
    ...     heads.update("small", [1.0], usd=0.001, seconds=0.5)
    ...     heads.update("large", [1.0], usd=0.02, seconds=1.5)
    >>> heads.prices([1.0]).round(2)
    array([0.01, 0.2 ])
    >>> heads.weights["seconds"] = 0.1
    >>> heads.prices([1.0]).round(2)
    array([0.06, 0.35])
    """

    def __init__(self, arms: int | Iterable[str], dim: int, *, weights: Mapping[str, float]) -> None:
        names = check.names("arms", arms)
        self.weights = {
            name: check.finite(name, weight, low=0.0, high=LARGEST) for name, weight in weights.items()
        }
        self._heads = {name: LinUCB(names, dim, alpha=0.0, rng=0) for name in self.weights}

    def predict(self, measure: str, x: ArrayLike) -> Floats:
        """Return the expected value of one measure on each arm, (k,), at least 0."""
        return np.maximum(self._heads[measure].scores(x).mean, 0.0)

    def prices(self, x: ArrayLike) -> Floats:
        """Return the weighted sum of the measures, (k,), in reward units."""
        return np.asarray(np.sum([w * self.predict(name, x) for name, w in self.weights.items()], axis=0))

    def update(self, arm: int | str, x: ArrayLike, **measured: float) -> None:
        """Learn measured values of one decision, by name; those not measured are left out.

        Raises
        ------
        KeyError, ValueError, TypeError
            A name that has no head, or a bad value; nothing changed.
        """
        for name, value in measured.items():
            if name not in self._heads:
                raise KeyError(f"measured must be among {', '.join(self._heads)}, got {name!r}")
            head = self._heads[name]
            head.index(arm)
            head.check_context(x)
            check.finite(name, value, low=-LARGEST, high=LARGEST)
        for name, value in measured.items():
            self._heads[name].update(arm, x, float(value))
