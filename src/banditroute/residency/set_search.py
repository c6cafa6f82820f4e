"""What a controller believes about a sample of contexts, and the best resident set under it."""

from collections.abc import Sequence

import numpy as np

from banditroute._core.kernels import facility
from banditroute._core.typing import Floats, Mask
from banditroute.residency.objectives import NEW, PINNED, how_many_fit, tie_width, whole_slots

__all__ = ["SetSearch"]


class SetSearch:
    """What a controller believes about a sample of contexts: the search of `best_set` without its checks.

    Parameters
    ----------
    utilities : (n, N) array
        Finite, in C order and writeable.
    faults : (N,) array
        Reward units, >= 0.

    Examples
    --------
    >>> look = SetSearch(np.array([[0.9, 0.2], [0.1, 0.8]]), np.array([0.3, 0.3]))
    >>> look.worth(np.array([True, False])), look.losses([0, 1])
    (array([0.9, 0.5]), array([0.15, 0.15]))
    """

    def __init__(self, utilities: Floats, faults: Floats) -> None:
        self.utilities, self.faults = utilities, np.array(faults)
        self._rows = np.empty((3, len(utilities)))
        facility.floor_values(utilities, self.faults, self._rows[0])
        self._members = np.empty(utilities.shape[1], np.int64)

    def best(self, capacity: float, sizes: Floats, pinned: Mask, *, previous: Mask, loads: Floats) -> Mask:
        """Return the best set found by greedy additions and swaps, as `best_set` does, loads per request."""
        n = len(self.utilities)
        standing = previous.astype(np.int8)  # BEFORE or NEW
        standing[pinned] = PINNED
        room, size = whole_slots(capacity, sizes)
        price = n * loads
        price[standing != NEW] = 0.0
        work = facility.workspace(n, len(size), how_many_fit(size, room))
        work[1][0] = self._rows[0]
        tie = tie_width(self._rows[0], self.faults)
        facility.plan(self.utilities, price, size, standing, room, tie, True, *work)
        chosen: Mask = work[0]
        return chosen

    def worth(self, chosen: Mask) -> Floats:
        """Return what the set earns on each context, shape (n,): the best of its members and of what pages in."""
        facility.raise_best(self.utilities, chosen, self._rows, self._members)
        values: Floats = self._rows[1].copy()
        return values

    def losses(self, members: Sequence[int]) -> Floats:
        """Return by how much the mean of `worth` falls without each member, shape (len(members),)."""
        loss = np.empty(len(members))
        facility.losses(self.utilities, self._rows, np.array(members, np.int64), len(members), loss)
        loss /= len(self.utilities)
        return loss
