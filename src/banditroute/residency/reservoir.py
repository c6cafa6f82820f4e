"""A uniform sample of every context seen."""

import numpy as np

from banditroute._core import validation as check
from banditroute._core.typing import Floats

__all__ = ["Reservoir"]


class Reservoir:
    """`size` contexts, each of those seen so far with the same probability.

    Parameters
    ----------
    size : int
        Contexts kept.
    rng : Generator
        One number per context from the moment the reservoir is full.

    Notes
    -----
    Vitter, "Random sampling with a reservoir" (1985), algorithm R; O(dim) per context.

    Examples
    --------
    >>> reservoir = Reservoir(3, np.random.default_rng(0))
    >>> reservoir.extend(np.arange(100.0)[:, None])
    >>> reservoir.seen, reservoir.sample(3).shape
    (100, (3, 1))
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size = check.integer("size", size, low=1)
        self.seen = 0
        self._rng = rng
        self._rows: Floats = np.empty((0, 0))

    def __repr__(self) -> str:
        """Show how much is kept of how much."""
        return f"Reservoir(size={self.size}, seen={self.seen})"

    def append(self, x: Floats) -> None:
        """See one context."""
        self.extend(x[None, :])

    def extend(self, contexts: Floats) -> None:
        """See many contexts, as `append` of each would."""
        fits = min(max(self.size - self.seen, 0), len(contexts))
        if fits:
            if self.seen + fits > len(self._rows):
                grown = np.empty((min(self.size, max(64, 2 * (self.seen + fits))), contexts.shape[1]))
                grown[: self.seen] = self._rows[: self.seen] if self.seen else grown[:0]
                self._rows = grown
            self._rows[self.seen : self.seen + fits] = contexts[:fits]
        late = contexts[fits:]
        if len(late):
            order = np.arange(self.seen + fits, self.seen + len(contexts))
            places = (self._rng.random(len(late)) * (order + 1)).astype(np.int64)
            for i in np.flatnonzero(places < self.size):
                self._rows[places[i]] = late[i]
        self.seen += len(contexts)

    def sample(self, count: int) -> Floats:
        """Return at most `count` of the kept contexts, in no particular order."""
        kept = min(self.seen, self.size)
        take = min(count, kept)
        if take == 0:
            return np.empty((0, self._rows.shape[1]))
        return np.ascontiguousarray(self._rows[(np.arange(take) * kept) // take])
