"""Controllers that insert on a fault and evict by order of use: LRU, FIFO and SIEVE."""

from collections.abc import Iterable
from math import inf

import cachetools

from banditroute._core.typing import Floats, Rng
from banditroute.residency.controller import Controller
from banditroute.residency.resident_set import ResidentSet

__all__ = ["FIFO", "LRU", "SIEVE", "Inserting"]

SLACK = 1e-9  # sums of sizes are off in their last bits


class Inserting(Controller):
    """Base of the controllers that make an arm resident when it faults.

    A subclass names the residents in the order in which they would leave (`leaving`), may refuse an exchange
    (`admits`) and is told what came of it (`inserted`, `removed`).

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    pinned : iterable of str or int
        Arms that never leave.
    rng : int, SeedSequence, Generator or None
        For subclasses that draw.

    Notes
    -----
    An insertion costs nothing beyond the fault that caused it. Pins are passed over.

    Examples
    --------
    >>> from banditroute import LRU
    >>> isinstance(LRU(1), Inserting)
    True
    """

    inserts = True

    def begin(self, resident: ResidentSet) -> None:
        """Start from the first arms that fit."""
        super().begin(resident)
        for arm in resident:
            self.inserted(arm)

    def make_room(self, arm: int, resident: ResidentSet) -> list[int] | None:
        """Return the first residents in leaving order that free enough room, or None when `arm` stays out."""
        sizes, pinned = resident.sizes, resident.pinned
        missing = sizes[arm] - (resident.capacity - resident.used)
        if missing > sum(sizes[a] for a in resident if a not in pinned) + SLACK:
            return None
        victims: list[int] = []
        if missing > SLACK:
            for victim in self.leaving(resident):
                if victim not in pinned and victim in resident:
                    victims.append(victim)
                    missing -= sizes[victim]
                    if missing <= SLACK:
                        break
        if not self.admits(arm, victims):
            return None
        for victim in victims:
            self.removed(victim)
        self.inserted(arm)
        return victims

    def leaving(self, resident: ResidentSet) -> Iterable[int]:
        """Return the resident arms, the next to leave first."""
        raise NotImplementedError

    def admits(self, arm: int, victims: list[int]) -> bool:
        """Tell whether `arm` is worth its victims."""
        return True

    def inserted(self, arm: int) -> None:
        """See `arm` become resident."""

    def removed(self, arm: int) -> None:
        """See `arm` leave."""

    def confirmed(self, arm: int, resident: bool) -> None:
        """Follow a server: what it took in is as one inserted now, what it displaced as one that left."""
        if resident:
            self.inserted(arm)
        else:
            self.removed(arm)


class _Ordered(Inserting):
    """An order of the residents kept by a cachetools cache, which also names the victims; it never holds pins."""

    @staticmethod
    def _cache() -> cachetools.Cache[int, bool]:
        raise NotImplementedError

    def __init__(self, capacity: float, *, pinned: Iterable[str | int] = (), rng: Rng = None) -> None:
        super().__init__(capacity, pinned=pinned, rng=rng)
        self._order = self._cache()
        self._fixed: frozenset[int] = frozenset()  # the pins, by index

    def begin(self, resident: ResidentSet) -> None:
        """Start from the first arms that fit, the first one next to leave."""
        Controller.begin(self, resident)
        self._order.clear()
        self._fixed = resident.pinned
        for arm in resident:
            if arm not in resident.pinned:
                self._order[arm] = True

    def observe(self, arm: int, x: Floats, hit: bool) -> None:
        """Tell the cache of a used resident."""
        if hit:
            self._order.get(arm)

    def make_room(self, arm: int, resident: ResidentSet) -> list[int] | None:
        """Evict what the cache evicts until `arm` fits; None when it never could."""
        missing = resident.sizes[arm] - (resident.capacity - resident.used)
        if missing > sum(resident.sizes[a] for a in self._order if a in resident) + SLACK:
            return None
        victims: list[int] = []
        while missing > SLACK:
            # Iterating over the cache would give the order of insertion, whatever its kind.
            victim = self._order.popitem()[0]
            if victim in resident:
                victims.append(victim)
                missing -= resident.sizes[victim]
        self._order[arm] = True
        return victims

    def confirmed(self, arm: int, resident: bool) -> None:
        """Follow a server: what it took in is as one inserted now, unless it was here; what it displaced is not."""
        if not resident:
            self._order.pop(arm, None)
        elif arm not in self._order and arm not in self._fixed:
            self._order[arm] = True

    def resize(self, keep: list[int | None]) -> None:
        """Carry the order over to the new indices."""
        self._resize_needs(keep)
        new = {a: i for i, a in enumerate(keep) if a is not None}
        self._fixed = frozenset(new[a] for a in self._fixed)
        order = [self._order.popitem()[0] for _ in range(len(self._order))]
        for arm in order:
            if arm in new:
                self._order[new[arm]] = True


class LRU(_Ordered):
    """Insert on every fault, evict the least recently used.

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    pinned : iterable of str or int
        Arms that never leave.

    Notes
    -----
    The order is that of ``cachetools.LRUCache``.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> Router(LinUCB(arms=3, dim=2), residency=LRU(1), paging=0.1).resident
    ('0',)
    """

    @staticmethod
    def _cache() -> cachetools.Cache[int, bool]:
        return cachetools.LRUCache(inf)


class FIFO(_Ordered):
    """Insert on every fault, evict what has been resident longest.

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    pinned : iterable of str or int
        Arms that never leave.

    Notes
    -----
    The order is that of ``cachetools.FIFOCache``.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> Router(LinUCB(arms=3, dim=2), residency=FIFO(2), paging=0.1).resident
    ('0', '1')
    """

    @staticmethod
    def _cache() -> cachetools.Cache[int, bool]:
        return cachetools.FIFOCache(inf)


class SIEVE(Inserting):
    """FIFO that spares what was used since its hand last passed.

    Residents queue in the order of insertion, each with a mark that a hit sets. The hand walks from the oldest to
    the newest and round again, clears marks, evicts the first unmarked resident and stays there.

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    pinned : iterable of str or int
        Arms that never leave.

    Notes
    -----
    Zhang, Yang, Yue, Vigfusson and Rashmi, "SIEVE is simpler than LRU" (NSDI 2024). O(residents) per fault.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> Router(LinUCB(arms=3, dim=2), residency=SIEVE(2), paging=0.1).resident
    ('0', '1')
    """

    def __init__(self, capacity: float, *, pinned: Iterable[str | int] = (), rng: Rng = None) -> None:
        super().__init__(capacity, pinned=pinned, rng=rng)
        self._queue: list[int] = []  # the oldest first
        self._marked: set[int] = set()
        self._hand = 0

    def begin(self, resident: ResidentSet) -> None:
        """Start from the first arms that fit, none of them used."""
        self._queue, self._marked, self._hand = [], set(), 0
        super().begin(resident)

    def observe(self, arm: int, x: Floats, hit: bool) -> None:
        """Mark a used resident."""
        if hit:
            self._marked.add(arm)

    def leaving(self, resident: ResidentSet) -> Iterable[int]:
        """Walk the hand: clear marks, yield whom it finds unmarked."""
        met: set[int] = set()  # evicted below, once it is known whom
        while len(met) < len(self._queue):
            arm = self._queue[self._hand]
            self._hand = (self._hand + 1) % len(self._queue)
            if arm in self._marked and arm not in resident.pinned:
                self._marked.discard(arm)
            elif arm not in met:
                met.add(arm)
                yield arm

    def inserted(self, arm: int) -> None:
        """Join the queue as its newest, behind the hand when that starts over."""
        if arm not in self._queue:
            self._queue.append(arm)

    def removed(self, arm: int) -> None:
        """Leave the queue; the hand stays on the same neighbour."""
        if arm not in self._queue:
            return
        at = self._queue.index(arm)
        del self._queue[at]
        self._marked.discard(arm)
        if at < self._hand:
            self._hand -= 1
        if self._hand >= len(self._queue):
            self._hand = 0

    def resize(self, keep: list[int | None]) -> None:
        """Carry queue, marks and hand over to the new indices."""
        self._resize_needs(keep)
        new = {a: i for i, a in enumerate(keep) if a is not None}
        before = sum(a in new for a in self._queue[: self._hand])
        self._queue = [new[a] for a in self._queue if a in new]
        self._marked = {new[a] for a in self._marked if a in new}
        self._hand = before % max(len(self._queue), 1)
