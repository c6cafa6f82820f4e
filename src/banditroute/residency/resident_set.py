"""Which arms are in fast memory: the mechanism, without any policy."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check

__all__ = ["ResidentSet"]


class ResidentSet:
    """A set of arm indices that fits a capacity, unless it follows a server that says otherwise.

    Parameters
    ----------
    count : int
        Number of arms N.
    capacity : float
        Slots, or the unit of `sizes` (bytes).
    sizes : (N,) array, optional
        Size of each arm; one slot each when left out.
    pinned : iterable of int
        Arms that are resident from the start and never leave.

    Examples
    --------
    >>> resident = ResidentSet(4, 2)
    >>> resident.load(0), resident.load(3), resident.fits(1)
    (True, True, False)
    >>> resident.replace({1, 3}), sorted(resident)
    (({1}, {0}), [1, 3])
    """

    def __init__(
        self, count: int, capacity: float, *, sizes: ArrayLike | None = None, pinned: Iterable[int] = ()
    ) -> None:
        self.capacity = check.finite("capacity", capacity, low=0.0)
        self.sizes = np.ones(count) if sizes is None else check.vector("sizes", sizes, count)
        if (self.sizes <= 0).any():
            raise ValueError(f"sizes must be positive, got {self.sizes.min():g}")
        self._whole = bool((self.sizes == np.floor(self.sizes)).all())  # then running sums of sizes are exact
        self.mask: NDArray[np.bool_] = np.zeros(count, dtype=np.bool_)
        self.used = 0.0
        self.page_ins = self.evictions = 0
        self.pinned = frozenset(check.integer("pinned", a, high=count - 1) for a in pinned)
        for a in sorted(self.pinned):
            if not self.load(a):
                raise ValueError(f"pinned must fit capacity {self.capacity:g}, got {sorted(self.pinned)}")
        self.page_ins = 0

    def __repr__(self) -> str:
        """Show who is there and how full it is."""
        return f"ResidentSet({list(self)}, used={self.used:g} of {self.capacity:g})"

    def __contains__(self, arm: int) -> bool:
        return bool(self.mask[arm])

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self.mask).tolist())

    def __len__(self) -> int:
        return int(self.mask.sum())

    def bare(self) -> "ResidentSet":
        """Return a set of the same arms, capacity and pins with nothing in it: what a server is known to hold."""
        new = ResidentSet(len(self.mask), self.capacity, sizes=self.sizes)
        new.pinned = self.pinned
        return new

    def fits(self, arm: int) -> bool:
        """Tell whether `arm` could be loaded without evicting anything."""
        # A sum of floats may be off in its last bits: a set that fits exactly must fit.
        return bool(self.used + self.sizes[arm] <= self.capacity * (1.0 + 1e-12))

    def load(self, arm: int) -> bool:
        """Make `arm` resident if it fits; False when it does not, or already was."""
        if self.mask[arm] or not self.fits(arm):
            return False
        self.mask[arm] = True
        self.used = self._filled(float(self.sizes[arm]))
        self.page_ins += 1
        return True

    def evict(self, arm: int) -> bool:
        """Remove `arm`; False when it was not resident or is pinned."""
        if not self.mask[arm] or arm in self.pinned:
            return False
        self.mask[arm] = False
        self.used = self._filled(-float(self.sizes[arm]))
        self.evictions += 1
        return True

    def follow(self, arm: int, resident: bool) -> bool:
        """Take over what a server says of `arm`, fitting or not, pinned or not; returns whether that is a change."""
        if bool(self.mask[arm]) == resident:
            return False
        self.mask[arm] = resident
        self.used = self._filled(float(self.sizes[arm]) if resident else -float(self.sizes[arm]))
        if resident:
            self.page_ins += 1
        else:
            self.evictions += 1
        return True

    def _filled(self, change: float) -> float:
        return self.used + change if self._whole else float(self.sizes[self.mask].sum())

    def replace(self, wanted: Iterable[int]) -> tuple[set[int], set[int]]:
        """Make the set equal to `wanted` plus the pins; returns (loaded, evicted).

        Raises
        ------
        ValueError
            The wanted set does not fit; nothing changed.
        """
        target = set(wanted) | self.pinned
        size = float(self.sizes[sorted(target)].sum())
        if size > self.capacity * (1.0 + 1e-12):
            raise ValueError(
                f"wanted must fit capacity {self.capacity:g}, got {sorted(target)} of size {size:g}"
            )
        now = set(self)
        evicted, loaded = now - target, target - now
        for a in evicted:
            self.evict(a)
        for a in loaded:
            self.load(a)
        return loaded, evicted

    def fill(self) -> None:
        """Load the first arms that fit, free of charge: where every run starts."""
        for a in range(len(self.mask)):
            self.load(a)
        self.page_ins = 0
