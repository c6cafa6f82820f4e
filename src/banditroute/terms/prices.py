"""Prices of a request: money on a log scale, energy, waiting in queues; and one object that adds them up.

Everything that can be priced or masked here and elsewhere (`BudgetPacer`, `QualityFloor`, `ArmHealth`, `Heads`) has
``prices(x)`` or ``eligible(x)`` with one entry per arm, so they combine. Paging is the Router's own price.
"""

from collections.abc import Callable, Iterable
from math import log

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Ints, Mask
from banditroute.policies import LARGEST, Policy

__all__ = ["Prices", "Queues", "energy", "money"]

Term = Callable[[ArrayLike | None], ArrayLike] | ArrayLike


def _known(name: str, value: ArrayLike) -> Floats:
    array = check.vector(name, value, np.size(value), limit=LARGEST)
    if not len(array) or array.min() < 0.0:
        raise ValueError(f"{name} must be >= 0, one for each arm, got {value!r}")
    return array


def money(usd: ArrayLike, *, low: float = 1e-4, high: float = 0.1, weight: float = 0.3) -> Floats:
    """Return ``weight * log(usd / low) / log(high / low)``, clipped to [0, weight]: each factor of cost counts alike.

    Parameters
    ----------
    usd : (k,) array
        Cost of each arm, >= 0.
    low, high : float
        Costs that are priced at 0 and at `weight`; ``0 < low < high``.
    weight : float
        Reward units; negative would pay for spending and is refused.

    Notes
    -----
    Source: ParetoBandit (arXiv 2604.00136; equation numbers not checked against the text), with its defaults (there
    per 1,000 tokens). A price such as
    ``1 / (1 + usd)`` hardly tells $0.01 from $0.0001.

    Examples
    --------
    >>> money([1e-4, 1e-3, 0.1, 5.0]).round(3)
    array([0. , 0.1, 0.3, 0.3])
    """
    low = check.finite("low", low, low=0.0, open_low=True)
    high = check.finite("high", high, low=low, open_low=True)
    weight = check.finite("weight", weight, low=0.0, high=LARGEST)
    return weight * np.log(np.clip(_known("usd", usd), low, high) / low) / log(high / low)


def energy(joules: ArrayLike, *, weight: float = 0.5, largest: float | None = None) -> Floats:
    """Return ``weight / (1 - weight) * joules / largest``: the energy weighting of GreenServ as a price.

    Its reward ``(1 - weight) * accuracy + weight * (1 - energy / largest)`` ranks arms as ``accuracy - price`` does,
    and the accuracy stays learned apart from the energy.

    Parameters
    ----------
    joules : (k,) array
        Energy of each arm in any unit, >= 0.
    weight : float
        In [0, 1); 0 is accuracy alone.
    largest : float, optional
        Energy that counts as 1; the largest given when left out.

    Notes
    -----
    Source: GreenServ (arXiv 2601.17551; equation numbers not checked against the text), which also clips the reward and
    subtracts the smallest energy; a price that is equal for all arms changes nothing.

    Examples
    --------
    >>> energy([1.0, 4.0], weight=0.5)
    array([0.25, 1.  ])
    """
    used = _known("joules", joules)
    share = check.finite("weight", weight, low=0.0, high=1.0 - 1e-12)
    top = used.max() if largest is None else check.finite("largest", largest, low=0.0, open_low=True)
    return np.asarray(share / (1.0 - share) * used / top) if top else np.zeros(len(used))


class Queues:
    """Predicted wait of each arm from what is in its queue, as a price.

    An arm with n requests in its queue and s seconds each answers the next after ``(n / slots + 1) * s`` seconds.

    Parameters
    ----------
    service_s : (k,) array
        Seconds one request takes on each arm, positive.
    per_second : float
        Price of a second, reward units.
    slots : int or (k,) array
        Requests an arm serves at a time.

    Notes
    -----
    RouteBalance (arXiv 2606.17949; equation numbers not checked against the text) prices latency and load when it
    chooses the model, and counts its own assignments until the next report of the servers; so does `assign`. Here depth
    enters through the wait alone.

    Examples
    --------
    >>> queues = Queues([1.0, 2.0], per_second=0.1)
    >>> queues.start(0)
    >>> queues.prices()
    array([0.2, 0.2])
    """

    def __init__(self, service_s: ArrayLike, *, per_second: float, slots: ArrayLike = 1) -> None:
        self.service_s = _known("service_s", service_s).copy()
        count = len(self.service_s)
        self.per_second = check.finite("per_second", per_second, low=0.0, high=LARGEST)
        self.slots = check.vector("slots", np.broadcast_to(slots, (count,)), count)
        if self.slots.min() < 1.0:
            raise ValueError(f"slots must be >= 1, got {slots!r}")
        self.depth = np.zeros(count)

    def waits_s(self) -> Floats:
        """Return the predicted seconds until each arm would answer, (k,)."""
        return (self.depth / self.slots + 1.0) * self.service_s

    def prices(self, x: ArrayLike | None = None) -> Floats:
        """Return the price of the wait at each arm, (k,); the context is not used."""
        return self.per_second * self.waits_s()

    def start(self, arm: int) -> None:
        """Count a request into the queue of an arm."""
        self.depth[arm] += 1.0

    def finish(self, arm: int) -> None:
        """Count a request out again; reports of servers may set ``depth`` instead."""
        self.depth[arm] = max(self.depth[arm] - 1.0, 0.0)

    def assign(
        self,
        policy: Policy,
        contexts: ArrayLike,
        *,
        work: ArrayLike | None = None,
        prices: ArrayLike | None = None,
        eligible: ArrayLike | None = None,
    ) -> Ints:
        """Choose arms for a batch, each choice seeing the ones before it in the queues; the queues keep them.

        Parameters
        ----------
        policy : Policy
        contexts : (n, dim) array
        work : (n,) array, optional
            Predicted length of each request; the longest is assigned first.
        prices, eligible : (k,) arrays, optional
            As in ``policy.select``, beside the wait.

        Returns
        -------
        (n,) int64 array
            Arms in the order of the rows.
        """
        rows = check.matrix("contexts", contexts, columns=policy.dim)
        lengths = np.zeros(len(rows)) if work is None else check.vector("work", work, len(rows))
        other = np.zeros(len(self.depth)) if prices is None else np.asarray(prices, dtype=float)
        arms = np.empty(len(rows), dtype=np.int64)
        before = self.depth.copy()
        try:
            for i in np.argsort(-lengths, kind="stable"):
                arms[i] = policy.select(rows[i], prices=self.prices() + other, eligible=eligible).arm
                self.start(int(arms[i]))
        except (ValueError, TypeError):
            self.depth = before
            raise
        return arms


class Prices:
    """Add up prices and intersect masks of several sources.

    Parameters
    ----------
    *terms : callable or (k,) array
        Prices, reward units; a callable gets the context. ``pacer.prices``, ``queues.prices`` and so on will do.
    eligible : sequence of callable or (k,) bool array
        Masks, the most important first. One that would leave no arm of those before it is passed over for that
        request and counted in ``relaxed``: an arm that is down must not serve, a budget may have to wait.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> offer = Prices(money([1e-4, 1e-2]), eligible=[np.array([True, True])])
    >>> router, x = Router(LinUCB(2, 1, rng=0)), [1.0]
    >>> router.select(x, prices=offer.prices(x), eligible=offer.eligible(x)).arm
    '0'
    """

    def __init__(self, *terms: Term, eligible: Iterable[Term] = ()) -> None:
        self.terms, self.masks = terms, tuple(eligible)
        self.relaxed = 0

    def prices(self, x: ArrayLike | None = None) -> Floats | None:
        """Return the sum of the terms, (k,); None without terms."""
        parts = [np.asarray(t(x) if callable(t) else t, dtype=np.float64) for t in self.terms]
        return np.sum(parts, axis=0) if parts else None

    def eligible(self, x: ArrayLike | None = None) -> Mask | None:
        """Return the intersection of the masks, (k,); None without masks."""
        allowed: Mask | None = None
        for mask in self.masks:
            given = np.asarray(mask(x) if callable(mask) else mask)
            both = given if allowed is None else given & allowed
            if both.any() or allowed is None:
                allowed = both
            else:
                self.relaxed += 1
        return allowed
