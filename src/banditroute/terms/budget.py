"""Budgets: a pacer with a dual price and a hard ceiling, and the threshold of the online knapsack."""

from collections.abc import Callable
from math import e, exp, inf

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Mask
from banditroute.policies import LARGEST

__all__ = ["BudgetPacer", "knapsack"]


STEP = 200.0  # one request moves the price by at most this many steps; at 20 the price missed what dear requests cost
RANGE = (1e-5, 10.0)  # of the price of one request's budget, reward units


class BudgetPacer:
    """Keep the mean cost of a request at a budget: a price while there is money, a mask when there is none.

    A request that spends its whole budget is priced at `price` (reward units), so arm a at ``price * cost_a / budget``.
    After each request ``price <- price * exp(rate * (cost / budget - 1))``, clipped: dual ascent on the logarithm, for
    the right price differs by orders of magnitude between budgets (the 1 is less while little money is at hand).
    Below it lies a ceiling that no price can break: money accrues at `budget` a request, and an arm is eligible only
    while its expected cost is at hand. The cheapest arm always is, for something must serve.

    Parameters
    ----------
    budget : float
        Dollars (or any unit) a request may cost in the mean; positive, ``inf`` for no budget.
    costs : (k,) array or callable
        Expected cost of each arm, >= 0; a callable gets the context and returns it, for costs that depend on the
        request. Given costs are updated to running means of what is settled.
    burst : float
        Requests' worth of budget at hand at the start, and the most that can be overdrawn on the whole run; savings
        beyond it are kept.
    rate : float
        Step of the dual ascent.
    price : float
        Price at the start. Low enough to try every arm: the ceiling bounds what that costs.

    Notes
    -----
    Total spend never exceeds ``budget * (requests + burst)`` by more than what actual costs exceed expected ones in the
    requests under way plus what the cheapest arm spends above the budget. The dual price and its clipping follow
    ParetoBandit (arXiv 2604.00136; equation numbers not checked against the text), which takes an additive step on a
    smoothed cost and prices the logarithm of the cost; here the price is linear in the cost, the Lagrangian of the
    constraint, and the step multiplicative. No regret bound is claimed: the arms are learned while they are priced.
    Costs O(k) a call; not thread-safe.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy, pacer = LinUCB(2, 1, rng=0), BudgetPacer(budget=0.5, costs=[0.1, 1.0])
    >>> for _ in range(2000):
    ...     arm = policy.select([1.0], prices=pacer.prices(), eligible=pacer.eligible()).arm
    ...     held = pacer.reserve(arm)
    ...     policy.update(arm, [1.0], reward=[0.2, 0.9][arm])
    ...     pacer.settle(arm, cost=[0.1, 1.0][arm], held=held)
    >>> 0.45 < pacer.spent / pacer.requests < 0.53
    True
    """

    def __init__(
        self,
        budget: float,
        costs: ArrayLike | Callable[[ArrayLike | None], ArrayLike],
        *,
        burst: float = 100.0,
        rate: float = 0.002,
        price: float = 0.02,
    ) -> None:
        if budget != inf:
            budget = check.finite("budget", budget, low=0.0, open_low=True)
        self.budget = float(budget)
        self._predict = costs if callable(costs) else None
        self._means = np.zeros(0) if callable(costs) else _costs(costs).copy()
        self._settled = np.ones(len(self._means))  # the given cost counts as one observation
        self.burst = check.finite("burst", burst, low=0.0)
        self.rate = check.finite("rate", rate, low=0.0, high=1.0)
        self.price = check.finite("price", price, low=RANGE[0], high=RANGE[1])
        self.spent = self._held = 0.0
        self.requests = 0

    def costs(self, x: ArrayLike | None = None) -> Floats:
        """Return the expected cost of each arm, (k,), in the unit of the budget."""
        if self._predict is None:
            return self._means.copy()
        return _costs(np.maximum(self._predict(x), 0.0))

    @property
    def left(self) -> float:
        """Money at hand for the next request, that of the next request included."""
        return self.budget * (self.requests + 1 + self.burst) - self.spent - self._held

    def prices(self, x: ArrayLike | None = None) -> Floats:
        """Return the price of each arm for the next request, (k,), in reward units; zeros without a budget."""
        return np.minimum(self.price / self.budget * self.costs(x), LARGEST)

    def eligible(self, x: ArrayLike | None = None) -> Mask:
        """Return the mask of arms whose expected cost is at hand, (k,); the cheapest always is."""
        costs = self.costs(x)
        return np.asarray((costs <= self.left) | (costs == costs.min()))

    def _pull(self) -> float:
        """Share of its budget that a request may use: less while little is at hand.

        Otherwise they deadlock: the ceiling holds spend at the budget, and the price sees no reason to rise.
        """
        half = self.budget * (self.burst / 2.0 + 1.0)
        return 1.0 if self.left >= half else max(self.left / half, 0.0)

    def reserve(self, arm: int, x: ArrayLike | None = None) -> float:
        """Count a request that was given to an arm and set its expected cost aside; returns that cost."""
        held = float(self.costs(x)[arm])
        self.requests += 1
        self._held += held
        return held

    def settle(self, arm: int, cost: float, held: float = 0.0) -> None:
        """Book what a request did cost, late and in any order; `held` is what `reserve` returned for it."""
        cost, held = check.finite("cost", cost, low=0.0, high=LARGEST), check.finite("held", held, low=0.0)
        self._held = max(0.0, self._held - held)
        self.spent += cost
        if self._predict is None:
            self._settled[arm] += 1.0
            self._means[arm] += (cost - self._means[arm]) / self._settled[arm]
        step = min(cost / self.budget - self._pull(), STEP)
        self.price = min(max(self.price * exp(self.rate * step), RANGE[0]), RANGE[1])


def knapsack(estimates: ArrayLike, costs: ArrayLike, used: float, *, low: float, high: float) -> Mask:
    """Return the arms worth their cost when a share `used` of a fixed budget is gone: an ``eligible`` mask.

    An arm passes when ``estimate / cost >= (high e / low) ** used * low / e``: nearly everything while the budget is
    fresh, only the best ratio at its end. Let the policy choose among the arms that pass. When none does the cheapest
    passes, for something must serve; add an arm of cost 0 for "do not answer".

    Parameters
    ----------
    estimates, costs : (k,) arrays
        Expected reward (upper bounds while learning) and expected cost, >= 0, of each arm.
    used : float
        Share of the budget that is spent, in [0, 1].
    low, high : float
        Bounds of the ratio reward / cost that can occur, ``0 < low <= high``.

    Returns
    -------
    (k,) bool array

    Raises
    ------
    ValueError, TypeError
        Wrong shape or a number out of range.

    Notes
    -----
    Source: the threshold of Zhou, Chakrabarty and Lukose, "Budget constrained bidding in keyword auctions and online
    knapsack problems" (WINE 2008), as PILOT (arXiv 2508.21141) uses it (equation numbers not checked against the text).
    Their bound, a factor ``1 + ln(high / low)`` of the optimum, is for known values of items small beside the budget;
    estimates are not covered. Against a long run of like requests `BudgetPacer` is the better tool. PILOT splits Q
    requests into bins of their own budget that roll over, so that money is left for the last ones.

    Examples
    --------
    >>> knapsack([0.5, 0.9], [0.1, 1.0], used=0.0, low=0.5, high=5.0)
    array([ True,  True])
    >>> knapsack([0.5, 0.9], [0.1, 1.0], used=0.9, low=0.5, high=5.0)
    array([ True, False])
    """
    prices = _costs(costs)
    values = check.vector("estimates", estimates, len(prices), limit=LARGEST)
    low = check.finite("low", low, low=0.0, open_low=True)
    high = check.finite("high", high, low=low)
    threshold = (high * e / low) ** check.unit("used", used) * low / e
    passed = np.asarray(values >= threshold * prices)
    return passed if passed.any() else np.asarray(prices == prices.min())


def _costs(value: ArrayLike) -> Floats:
    costs = check.vector("costs", value, np.size(value), limit=LARGEST)
    if not len(costs) or costs.min() < 0.0:
        raise ValueError(f"costs must be >= 0, one for each arm, got {value!r}")
    return costs
