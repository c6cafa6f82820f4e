"""The arms of a Router by name, and what is counted for each."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Mask
from banditroute.errors import UnknownArm

__all__ = ["Arms", "Eligible", "Priced"]

# How a caller may speak of arms: by name, or by position as an array.
Eligible = Collection[str] | Mapping[str, bool] | ArrayLike
Priced = Mapping[str, float] | ArrayLike

MASKS = 1024  # sets of names whose masks are kept
FORMER = 4096  # names of removed arms that are remembered


class Arms:
    """Names, positions and counters; a set of names becomes a mask, kept for the next time.

    Parameters
    ----------
    names : tuple of str

    Examples
    --------
    >>> arms = Arms(("a", "b", "c"))
    >>> arms.mask({"a", "c"})
    array([ True, False,  True])
    >>> arms.priced({"b": 0.5})
    array([0. , 0.5, 0. ])
    """

    __slots__ = (
        "_former", "_masks", "answers", "muted", "names", "offered", "pending", "plays", "positions", "reward_sums",
        "version",
    )  # fmt: skip

    def __init__(self, names: tuple[str, ...]) -> None:
        self.version = 0
        self.pending: list[int] = []
        self.plays: list[int] = []
        self.answers: list[int] = []
        self.reward_sums: list[float] = []
        self.muted: Mask = np.zeros(0, dtype=np.bool_)
        self.offered: Mask = np.zeros(0, dtype=np.bool_)  # eligible on some request since the last plan
        self._former: dict[str, None] = {}
        self.names: tuple[str, ...] = ()
        self.positions: dict[str, int] = {}
        self._masks: dict[frozenset[str], Mask] = {}
        self.change(names, [None] * len(names))

    def __repr__(self) -> str:
        """Show the names and how many decisions are pending."""
        return f"Arms({', '.join(self.names)}; pending={sum(self.pending)})"

    def __len__(self) -> int:
        return len(self.names)

    def change(self, names: tuple[str, ...], keep: list[int | None]) -> None:
        """Make arm i, called ``names[i]``, continue ``keep[i]``, or start with empty counters where that is None."""
        for gone in self.names:
            if gone not in names:
                self._former[gone] = None
                if len(self._former) > FORMER:
                    del self._former[next(iter(self._former))]
        for counter in ("pending", "plays", "answers", "reward_sums"):
            old = getattr(self, counter)
            setattr(self, counter, [0 if a is None else old[a] for a in keep])
        self.muted = np.array([a is not None and bool(self.muted[a]) for a in keep], dtype=np.bool_)
        self.offered = np.zeros(len(keep), dtype=np.bool_)
        self.names, self.positions = names, {name: i for i, name in enumerate(names)}
        self.version += 1
        self._masks = {}

    def mask(self, names: Collection[str]) -> Mask:
        """Return the mask of a set of names; one that was removed counts for nothing, another is an ``UnknownArm``."""
        key = names if type(names) is frozenset else frozenset(names)
        mask = self._masks.get(key)
        if mask is None:
            mask = np.zeros(len(self.names), dtype=np.bool_)
            for name in key:
                at = self._known("eligible", name)
                if at is not None:
                    mask[at] = True
            if len(self._masks) >= MASKS:
                self._masks.clear()
            self._masks[key] = mask
        return mask

    def allowed(self, given: Eligible) -> Any:
        """Return a mask from names, from a mapping of every name to a truth value, or from an array as it is."""
        if isinstance(given, Mapping):
            missing = [name for name in self.names if name not in given]
            if missing:
                raise ValueError(f"eligible must name every arm when it is a mapping, got none for {missing}")
            return self.mask(frozenset(name for name, allowed in given.items() if allowed))
        if isinstance(given, set | frozenset) or (
            isinstance(given, list | tuple) and given and isinstance(given[0], str)
        ):
            return self.mask(given)
        return given  # checked where prices and mask are folded

    def priced(self, given: Priced) -> Any:
        """Return prices from a mapping of names, 0 for those left out, or from an array as it is."""
        if not isinstance(given, Mapping):
            return given
        prices: Floats = np.zeros(len(self.names))
        for name, price in given.items():
            at = self._known("prices", name)
            if at is not None:
                prices[at] = check.finite(f"prices[{name!r}]", price)
        return prices

    def _known(self, what: str, name: Any) -> int | None:
        if not isinstance(name, str):
            raise TypeError(f"{what} must name arms by strings, got {check.shown(name)}")
        at = self.positions.get(name)
        if at is None and name not in self._former:
            shown = list(self.names) if len(self.names) <= 8 else f"the {len(self.names)} arms"
            raise UnknownArm(f"{what} must name arms among {shown}, got {name!r}")
        return at
