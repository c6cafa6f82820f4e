"""What arms are expected to charge, as a simulation prices it."""

import numpy as np

from banditroute._core.typing import Floats

__all__ = ["RunningCosts"]


class RunningCosts:
    """What each arm is expected to charge: what it charges on this request, or the mean of what it has charged.

    Examples
    --------
    >>> costs = RunningCosts(2.0, np.ones((3, 2)), known=False)
    >>> costs.prices(0)
    array([0., 0.])
    >>> costs.paid(1, 0)
    >>> costs.prices(1)
    array([0., 2.])
    """

    def __init__(self, price: float, costs: Floats, *, known: bool) -> None:
        self._price, self._costs, self._known = price, costs, known
        self._total, self._count = np.zeros(costs.shape[1]), np.zeros(costs.shape[1])

    def prices(self, request: int) -> Floats:
        """Return the price of every arm for a request, reward units; an arm that never charged is free."""
        if self._known:
            expected: Floats = self._costs[request]
        else:
            expected = self._total / np.maximum(self._count, 1.0)
        return self._price * expected

    def paid(self, arm: int, request: int) -> None:
        """See an arm serve a request."""
        self._total[arm] += self._costs[request, arm]
        self._count[arm] += 1.0
