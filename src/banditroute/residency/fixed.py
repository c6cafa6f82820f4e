"""Controllers whose set hardly ever changes, and the router that never leaves the resident set."""

from collections.abc import Iterable
from dataclasses import replace
from math import inf

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Ints, Mask, Rng
from banditroute.residency.controller import Controller, View
from banditroute.residency.resident_set import ResidentSet

__all__ = ["Popularity", "RandomSet", "ResidentOnly", "Static"]


class Static(Controller):
    """A fixed set: the best one in hindsight makes it the oracle, an empty one the uncached server.

    Parameters
    ----------
    arms : iterable of str or int
        Names or indices of the arms that stay resident.
    capacity : float, optional
        Their number when left out; needed with sizes.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> Router(LinUCB(arms=["a", "b", "c"], dim=2), residency=Static(["c"]), paging=0.1).resident
    ('c',)
    >>> Router(LinUCB(arms=3, dim=2), residency=Static(()), paging=0.1).resident
    ()
    """

    def __init__(self, arms: Iterable[str | int], capacity: float | None = None) -> None:
        if isinstance(arms, str | int):
            raise TypeError(f"arms must be a sequence of names or indices, got {arms!r}")
        chosen = tuple(arms)
        super().__init__(len(chosen) if capacity is None else capacity, pinned=chosen)

    def begin(self, resident: ResidentSet) -> None:
        """The pins are the set."""
        self.needs = np.zeros(len(resident.mask))

    def resize(self, keep: list[int | None]) -> None:
        """Nothing is kept per arm."""
        self._resize_needs(keep)


class RandomSet(Controller):
    """A fixed set drawn at random.

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    pinned : iterable of str or int
        Arms that are in whatever is drawn.
    rng : int, SeedSequence, Generator or None
        Draws the set.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> len(Router(LinUCB(arms=5, dim=2), residency=RandomSet(2, rng=0), paging=0.1).resident)
    2
    """

    def begin(self, resident: ResidentSet) -> None:
        """Load arms in a random order while they fit."""
        self.needs = np.zeros(len(resident.mask))
        for arm in self._rng.permutation(len(resident.mask)).tolist():
            resident.load(arm)
        resident.page_ins = 0

    def resize(self, keep: list[int | None]) -> None:
        """Nothing is kept per arm."""
        self._resize_needs(keep)


class Popularity(Controller):
    """The most popular arms, fixed once: by shares known beforehand, or by the uses in a first stretch of requests.

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    shares : (N,) array, optional
        Popularity of each arm, in any unit, >= 0; the set is then fixed from the start, free of charge.
    prefix : int
        Without `shares`: requests to count before the set is chosen, and its loads paid, once.
    pinned : iterable of str or int
        Arms that never leave.

    Notes
    -----
    With sizes, arms enter in the order of popularity per size while they fit. An arm added while running stays out.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> Router(LinUCB(arms=3, dim=2), residency=Popularity(1, [0.1, 0.2, 0.7]), paging=0.1).resident
    ('2',)
    """

    def __init__(
        self,
        capacity: float,
        shares: ArrayLike | None = None,
        *,
        prefix: int = 1000,
        pinned: Iterable[str | int] = (),
        rng: Rng = None,
    ) -> None:
        super().__init__(capacity, pinned=pinned, rng=rng)
        self._shares = None if shares is None else np.array(shares, dtype=np.float64)
        if self._shares is not None and not (np.isfinite(self._shares).all() and (self._shares >= 0).all()):
            raise ValueError(f"shares must be finite and >= 0, got {shares!r}")
        self.prefix = check.integer("prefix", prefix, low=1)
        self._uses: Ints = np.zeros(0, dtype=np.int64)

    def begin(self, resident: ResidentSet) -> None:
        """Start from the most popular arms, or from the first that fit where that is still to be learned."""
        count = len(resident.mask)
        self.needs, self._uses = np.zeros(count), np.zeros(count, dtype=np.int64)
        if self._shares is None:
            resident.fill()
            self.next_plan = self.prefix
        else:
            resident.replace(_leaders(check.vector("shares", self._shares, count), resident))
            resident.page_ins = resident.evictions = 0

    def observe(self, arm: int, x: Floats, hit: bool) -> None:
        """Count a use."""
        self._uses[arm] += 1

    def observe_many(self, arms: Ints, contexts: Floats, hits: Mask) -> None:
        """Count many uses."""
        self._uses += np.bincount(arms, minlength=self._uses.size)

    def plan(self, view: View) -> set[int]:
        """Choose the most used arms, for good once all of them load."""
        blocked = view.blocked if view.blocked is not None and view.blocked.any() else None
        self.next_plan = inf if blocked is None else view.clock + self.prefix
        return _leaders(self._uses.astype(np.float64), view.resident, blocked)

    def resize(self, keep: list[int | None]) -> None:
        """Carry the counts over to the new indices."""
        self._resize_needs(keep)
        self._uses = np.array([0 if a is None else self._uses[a] for a in keep], dtype=np.int64)


def _leaders(shares: Floats, resident: ResidentSet, blocked: Mask | None = None) -> set[int]:
    """Return the pins and the most popular arms per size that fit beside them and load; ties by index."""
    chosen = set(resident.pinned)
    room = resident.capacity * (1.0 + 1e-12) - resident.sizes[sorted(chosen)].sum()
    for arm in np.argsort(-shares / resident.sizes, kind="stable").tolist():
        if arm not in chosen and resident.sizes[arm] <= room and (blocked is None or not blocked[arm]):
            chosen.add(arm)
            room -= resident.sizes[arm]
    return chosen


class ResidentOnly(Controller):
    """Route among residents only, and let `inner` plan who they are.

    No request leaves the set while an eligible arm is in it, so an arm outside is tried by loading it: with an
    optimistic `Polar` as `inner`, arms that are uncertain enough get their epoch. This is what a server does that
    holds K models and cannot page. The plan values a set by its best member alone.

    Parameters
    ----------
    inner : Controller
        An epoch controller; its forced decisions are switched off, its pins and capacity are kept.
    surcharge : float
        Added to the price of an arm outside the set, reward units: larger than any difference between rewards.

    Notes
    -----
    A price instead of a mask, so that a request for which no resident is eligible is still served, as a fault at the
    usual price. Controllers that insert on faults would never see one and are refused.

    Examples
    --------
    >>> from banditroute import LinUCB, Polar, Router
    >>> router = Router(LinUCB(arms=3, dim=2, rng=0), residency=ResidentOnly(Polar(1)), paging=0.1)
    >>> {router.select([1.0, 0.0]).arm for _ in range(100)}
    {'0'}
    """

    def __init__(self, inner: Controller, surcharge: float = 1e3) -> None:
        if not isinstance(inner, Controller) or inner.inserts:
            raise TypeError(f"inner must be a controller that plans, got {inner!r}")
        super().__init__(inner.capacity, pinned=inner.pinned)
        self.inner = inner
        self.needs_utilities = inner.needs_utilities
        self.surcharge = check.finite("surcharge", surcharge, low=0.0, open_low=True)
        self.next_plan = inner.next_plan

    def begin(self, resident: ResidentSet) -> None:
        """Start where `inner` does."""
        self.inner.begin(resident)
        self.needs = np.zeros(len(resident.mask))
        self.next_plan = self.inner.next_plan

    def observe(self, arm: int, x: Floats, hit: bool) -> None:
        """Pass on."""
        self.inner.observe(arm, x, hit)

    def observe_many(self, arms: Ints, contexts: Floats, hits: Mask) -> None:
        """Pass on."""
        self.inner.observe_many(arms, contexts, hits)

    def confirmed(self, arm: int, resident: bool) -> None:
        """Pass on."""
        self.inner.confirmed(arm, resident)

    def adopt(self, resident: ResidentSet) -> None:
        """Pass on."""
        self.inner.adopt(resident)

    def plan(self, view: View) -> set[int]:
        """Let `inner` plan with faults that nobody would pay."""
        wanted = self.inner.plan(replace(view, faults=np.full(view.faults.size, self.surcharge)))
        self.next_plan = self.inner.next_plan
        return wanted

    def resize(self, keep: list[int | None]) -> None:
        """Pass on."""
        self._resize_needs(keep)
        self.inner.resize(keep)
