"""Budgets: a pacer with a dual price and a hard ceiling, and the threshold of the online knapsack."""

from collections.abc import Callable, Mapping
from math import e, exp, inf, isfinite
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Arrays, Floats, Header, Mask
from banditroute.policies.base import LARGEST
from banditroute.records import Feedback, Request
from banditroute.terms.base import Asked, BaseTerm, context_of, kept

__all__ = ["BudgetPacer", "knapsack"]


MEMORY = 500.0  # settled costs that an expected cost remembers: prices change
STEP = 200.0  # one request moves the price by at most this many steps; at 20 the price missed what dear requests cost
RANGE = (1e-5, 10.0)  # of the price of one request's budget, reward units


class BudgetPacer(BaseTerm):
    """Keep the mean cost of a request at a budget: a price while there is money, a mask when there is none.

    A request that spends its whole budget is priced at `price` (reward units), so arm a at ``price * cost_a / budget``.
    After each request ``price <- price * exp(rate * (cost / budget - 1))``, clipped: dual ascent on the logarithm, for
    the right price differs by orders of magnitude between budgets (the 1 is less while little money is at hand).
    Below it lies a ceiling that no price can break: money accrues at `budget` a request, and an arm is eligible only
    while its expected cost is at hand. The cheapest arm always is, for something must serve. Savings are forfeited
    beyond `burst` requests' worth and one request to the dearest arm.

    Parameters
    ----------
    budget : float
        Dollars (or any unit) a request may cost in the mean; positive, ``inf`` for no budget.
    costs : (k,) array or callable
        Expected cost of each arm, >= 0; a callable gets the context and returns it, for costs that depend on the
        request. Given costs are updated to running means of what is settled.
    burst : float
        Requests' worth of budget at hand at the start, and the most that is saved beside one dearest request.
    rate : float
        Step of the dual ascent.
    price : float
        Price at the start. Low enough to try every arm: the ceiling bounds what that costs.

    Notes
    -----
    Any n requests in a row spend at most ``budget * (n + burst + 1)`` and one dearest request, the first n without
    that request; more only by what actual costs exceed expected ones and what the cheapest arm spends above the budget.
    With the default 600 requests spend 1.05 x their budget and one dearest request at most. A decision that ends
    without an answer counts as never made: where answers are rare, settle costs all the same. The dual price and its
    clipping follow ParetoBandit (arXiv 2604.00136; equation numbers not checked against the text), which takes an
    additive step on a smoothed cost and prices the logarithm of the cost; here the price is linear in the cost, the
    Lagrangian of the constraint, and the step multiplicative. No regret bound is claimed: the arms are learned while
    they are priced. Costs O(k) a call.

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

    name = "budget"
    soft = True

    def __init__(
        self,
        budget: float,
        costs: ArrayLike | Callable[[ArrayLike | None], ArrayLike],
        *,
        burst: float = 29.0,
        rate: float = 0.002,
        price: float = 0.02,
    ) -> None:
        if budget != inf:
            budget = check.finite("budget", budget, low=0.0, open_low=True)
        self.budget = float(budget)
        self._predict = costs if callable(costs) else None
        self._means = np.zeros(0) if callable(costs) else _costs(costs).copy()
        super().__init__(None if callable(costs) else len(self._means))
        self.per_request = callable(costs)
        self._settled = np.ones(len(self._means))  # the given cost counts as one observation
        self.burst = check.finite("burst", burst, low=0.0)
        self.rate = check.finite("rate", rate, low=0.0, high=1.0)
        self.price = check.finite("price", price, low=RANGE[0], high=RANGE[1])
        self.spent = self.reserved = 0.0
        self.requests = 0
        self._money = self.budget * (
            1.0 + self.burst
        )  # for the next request, less what is spent and set aside

    def shown(self) -> str:
        """Return what `repr` tells of the state."""
        return (
            f"budget={self.budget:g}, spent={self.spent:g}, requests={self.requests}, price={self.price:.3g}"
        )

    def costs(self, x: Asked = None) -> Floats:
        """Return the expected cost of each arm, (k,), in the unit of the budget."""
        if self._predict is None:
            return self._means.copy()
        return _costs(np.maximum(self._predict(context_of(x)), 0.0), len(self.arms) or None)

    @property
    def left(self) -> float:
        """Money at hand for the next request, that of the next request included."""
        return self._left(self._means.max(initial=0.0) if self._predict is None else inf)

    def _left(self, dearest: float) -> float:
        return min(self._money, max(self.budget * (1.0 + self.burst), dearest))

    def prices(self, request: Asked = None, *, weights: Mapping[str, float] | None = None) -> Floats:
        """Return the price of each arm for the next request, (k,), in reward units; zeros without a budget.

        A `Request` gets arms that are not eligible at an infinite price; a plain context gets finite ones.
        """
        costs = self.costs(request)
        prices = np.minimum(self.price / self.budget * costs, LARGEST)
        return np.where(self._affordable(costs), prices, inf) if isinstance(request, Request) else prices

    def eligible(self, request: Asked = None) -> Mask:
        """Return the mask of arms whose expected cost is at hand, (k,); the cheapest always is."""
        return self._affordable(self.costs(request))

    def _affordable(self, costs: Floats) -> Mask:
        return np.asarray((costs <= self._left(costs.max())) | (costs == costs.min()))

    def _pull(self) -> float:
        """Share of its budget that a request may use: less while little is at hand.

        Otherwise they deadlock: the ceiling holds spend at the budget, and the price sees no reason to rise.
        """
        half = self.budget * (self.burst / 2.0 + 1.0)
        return 1.0 if self.left >= half else max(self.left / half, 0.0)

    def reserve(self, arm: int | str, request: Asked = None, /) -> float:
        """Count a request that was given to an arm and set its expected cost aside; returns that cost."""
        costs = self.costs(request)
        held = float(costs[self.index(arm)])
        self.requests += 1
        self.reserved += held
        if isfinite(self.budget):
            self._money = self._left(costs.max()) + self.budget - held
        self.ring()
        return held

    @overload
    def settle(self, arm: int | str, held: float, feedback: Feedback, /) -> None: ...

    @overload
    def settle(self, arm: int | str, cost: float, held: float = 0.0, /) -> None: ...

    @overload
    def settle(self, arm: int | str, cost: float, /, *, held: float) -> None: ...

    @overload
    def settle(self, arm: int | str, /, *, cost: float, held: float = 0.0) -> None: ...

    def settle(
        self,
        arm: int | str,
        first: float | None = None,
        second: Feedback | float = 0.0,
        /,
        *,
        cost: float | None = None,
        held: float | None = None,
    ) -> None:
        """Book what a request did cost, late and in any order.

        A Router calls ``settle(arm, held, feedback)``: a cost that was not reported counts as the expected one. By hand
        it is ``settle(arm, cost, held)``, `held` being what `reserve` returned.

        Raises
        ------
        ValueError, TypeError
            A cost below 0; nothing changed.
        """
        if isinstance(second, Feedback):
            if first is None:  # a candidate that is no arm, or decided before: it is counted now
                self.requests += 1
                self._free(self.budget, 0.0)
            held, paid = 0.0 if first is None else check.finite("held", first, low=0.0), second.cost
        else:
            held = check.finite("held", second if held is None else held, low=0.0)
            paid = check.finite("cost", first if cost is None else cost, low=0.0, high=LARGEST)
        at = self.position(arm)
        spent = held if paid is None else check.finite("cost", paid, low=0.0, high=LARGEST)
        self._free(held - spent, held)
        self.spent += spent
        if paid is not None and at is not None and self._predict is None:
            self._settled[at] = min(self._settled[at] + 1.0, MEMORY)
            self._means[at] += (spent - self._means[at]) / self._settled[at]
        self._move(min(spent / self.budget - self._pull(), STEP))
        self.ring()

    def _move(self, step: float) -> None:
        self.price = min(max(self.price * exp(self.rate * step), RANGE[0]), RANGE[1])

    def release(self, arm: int | str, held: float = 0.0, /) -> None:
        """Free what `reserve` set aside for a request that came to nothing, as if it had never come."""
        held = check.finite("held", held, low=0.0)
        self.requests = max(0, self.requests - 1)
        self._free(held - self.budget, held)
        self.ring()

    def _free(self, money: float, held: float) -> None:
        self.reserved = max(0.0, self.reserved - held)
        if isfinite(self.budget):
            self._money += money

    def add_arm(self, name: str, cost: float | None = None) -> None:
        """Follow an arm that was added, at this expected cost; where left out, the median until it has been paid."""
        value = None if cost is None else check.finite("cost", cost, low=0.0, high=LARGEST)
        super().add_arm(name)
        if value is not None and self._predict is None:
            self._means[-1], self._settled[-1] = value, 1.0

    def set_cost(self, arm: int | str, cost: float) -> None:
        """Say what an arm is expected to cost from now on, as when a provider changes its price."""
        at = self.index(arm)
        if self._predict is not None:
            raise TypeError("costs must be numbers to be set, got a callable")
        value = check.finite("cost", cost, low=0.0, high=LARGEST)
        self.tell({"arm": self.arms[at], "cost": value})

    def same_request(self) -> None:
        """Say that the last decision was one more call for a request that had its budget already, as in a cascade."""
        self.tell({"same_request": True})

    def replay_mark(self, details: Mapping[str, object]) -> None:
        """Let a cost that was set, or a request that was counted twice, take effect."""
        if "same_request" in details:
            self.requests = max(0, self.requests - 1)
            self._free(-self.budget, 0.0)
            self._move(1.0)  # settling its calls takes one budget off the price too often
            self.ring()
            return
        at = self.position(str(details["arm"]))
        if at is not None:
            self._means[at] = check.finite("cost", details["cost"], low=0.0, high=LARGEST)
            self._settled[at] = 1.0
            self.ring()

    def resize(self, keep: list[int | None]) -> None:
        """Keep the costs of arms that stay; an unknown one is assumed to cost the median, until it has been paid."""
        if self._predict is None:
            middle = float(np.median(self._means)) if len(self._means) else 0.0
            self._means, self._settled = kept(self._means, keep, middle), kept(self._settled, keep, 0.0)

    def to_state(self) -> tuple[Header, Arrays]:
        """Return everything needed to continue; budget, burst and rate are settings, not state."""
        header, arrays = super().to_state()
        header |= {
            "spent": self.spent,
            "reserved": self.reserved,
            "requests": self.requests,
            "price": self.price,
        }
        header |= {"money": self._money if isfinite(self.budget) else None}
        return header, arrays | {"means": self._means.copy(), "settled": self._settled.copy()}

    def load_state(self, header: Header, arrays: Arrays) -> None:
        """Continue from `to_state`, under the budget of this object."""
        arms, count = self.kept_arms(header), len(self.kept_arms(header)) if self._predict is None else 0
        means = check.non_negative("means", check.entry("arrays", arrays, "means"), count, limit=LARGEST)
        settled = check.non_negative("settled", check.entry("arrays", arrays, "settled"), count)
        spent, reserved = (
            check.finite(n, check.entry("header", header, n), low=0.0) for n in ("spent", "reserved")
        )
        requests = check.integer("requests", check.entry("header", header, "requests"))
        price = check.finite("price", check.entry("header", header, "price"), low=RANGE[0], high=RANGE[1])
        given = check.entry("header", header, "money")
        money = self.budget * (1.0 + self.burst)
        if isfinite(self.budget) and given is not None:
            money = check.finite("money", given)
        super().load_state(header, arrays)
        self.arms, self._means, self._settled = arms, means.copy(), settled.copy()
        self.spent, self.reserved, self.requests = spent, reserved, requests
        self.price, self._money = price, money


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


def _costs(value: ArrayLike, size: int | None = None) -> Floats:
    return check.non_negative("costs", value, size, limit=LARGEST)
