"""Controllers that know popularity only: LRU, LFU and a fixed set."""

from collections.abc import Iterable

import cachetools
import numpy as np
from numpy.typing import NDArray

from banditroute import _validate as check
from banditroute.residency.controller import Controller, Rng
from banditroute.residency.resident import ResidentSet

__all__ = ["LFU", "LRU", "Inserting", "Static"]

Floats = NDArray[np.float64]


class Inserting(Controller):
    """Base of the controllers that make an arm resident when it faults.

    A subclass names the order in which residents leave (`leaving`) and may refuse an exchange (`admits`).

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
        missing = resident.sizes[arm] - (resident.capacity - resident.used)
        victims: list[int] = []
        for victim in self.leaving(resident):
            if missing <= 1e-9:
                break
            if victim not in resident.pinned:
                victims.append(victim)
                missing -= resident.sizes[victim]
        if missing > 1e-9 or not self.admits(arm, victims):
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


class LRU(Inserting):
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

    def __init__(self, capacity: float, *, pinned: Iterable[str | int] = (), rng: Rng = None) -> None:
        super().__init__(capacity, pinned=pinned, rng=rng)
        self._order: cachetools.LRUCache[int, bool] = cachetools.LRUCache(maxsize=float("inf"))

    def begin(self, resident: ResidentSet) -> None:
        """Start from the first arms that fit, the first one next to leave."""
        self._order.clear()
        super().begin(resident)

    def observe(self, arm: int, x: Floats, hit: bool) -> None:
        """Move a used resident to the end of the order."""
        if hit:
            self._order.get(arm)

    def leaving(self, resident: ResidentSet) -> Iterable[int]:
        """Return the residents, the least recently used first."""
        return list(self._order)

    def inserted(self, arm: int) -> None:
        """Append to the order."""
        self._order[arm] = True

    def removed(self, arm: int) -> None:
        """Take out of the order."""
        del self._order[arm]

    def resize(self, keep: list[int | None]) -> None:
        """Carry the order over to the new indices."""
        self._resize_needs(keep)
        new = {a: i for i, a in enumerate(keep) if a is not None}
        order = [new[a] for a in self._order if a in new]
        self._order.clear()
        for arm in order:
            self._order[arm] = True


class LFU(Inserting):
    """Evict the least frequently used, and insert only an arm used more often than its victim.

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    pinned : iterable of str or int
        Arms that never leave.

    Notes
    -----
    Uses are counted for arms outside the set too: without them a new arm could never show that it is used more often
    (``cachetools.LFUCache`` forgets the count of what leaves, so it cannot serve here).

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> Router(LinUCB(arms=3, dim=2), residency=LFU(2), paging=0.1).resident
    ('0', '1')
    """

    def __init__(self, capacity: float, *, pinned: Iterable[str | int] = (), rng: Rng = None) -> None:
        super().__init__(capacity, pinned=pinned, rng=rng)
        self._uses: Floats = np.zeros(0)

    def begin(self, resident: ResidentSet) -> None:
        """Start from the first arms that fit, all uses zero."""
        self._uses = np.zeros(len(resident.mask))
        super().begin(resident)

    def observe(self, arm: int, x: Floats, hit: bool) -> None:
        """Count a use."""
        self._uses[arm] += 1.0

    def leaving(self, resident: ResidentSet) -> Iterable[int]:
        """Return the residents, the least used first, ties by index."""
        return sorted(resident, key=lambda a: self._uses[a])

    def admits(self, arm: int, victims: list[int]) -> bool:
        """Admit an arm that is used more often than all its victims together."""
        return bool(self._uses[arm] > self._uses[victims].sum())

    def resize(self, keep: list[int | None]) -> None:
        """Carry the counts over to the new indices."""
        self._resize_needs(keep)
        self._uses = np.array([0.0 if a is None else self._uses[a] for a in keep])


class Static(Controller):
    """A fixed set: the best one in hindsight makes it the oracle, an empty one the uncached server.

    Parameters
    ----------
    arms : iterable of str or int
        Names or indices of the arms that stay resident.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> Router(LinUCB(arms=["a", "b", "c"], dim=2), residency=Static(["c"]), paging=0.1).resident
    ('c',)
    >>> Router(LinUCB(arms=3, dim=2), residency=Static(()), paging=0.1).resident
    ()
    """

    def __init__(self, arms: Iterable[str | int]) -> None:
        if isinstance(arms, str | int):
            raise TypeError(f"arms must be a sequence of names or indices, got {arms!r}")
        chosen = tuple(arms)
        super().__init__(check.integer("capacity", len(chosen)), pinned=chosen)

    def begin(self, resident: ResidentSet) -> None:
        """The pins are the set."""
        self.needs = np.zeros(len(resident.mask))

    def resize(self, keep: list[int | None]) -> None:
        """Nothing is kept per arm."""
        self._resize_needs(keep)
