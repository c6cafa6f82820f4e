"""What comes in at the border of a policy: arms by name or index, contexts, prices, masks and rewards, all checked."""

from collections.abc import Iterable
from math import hypot
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.kernels import layout, prepare
from banditroute._core.kernels import linear as k
from banditroute._core.typing import Floats
from banditroute.errors import UnknownArm

__all__ = ["LARGEST", "Border"]


LARGEST = layout.LARGEST  # rewards, weights and prices beyond it are refused: products of them would overflow


def compile_kernels() -> None:
    """Compile what checks prices and masks; every policy does so when it is made."""
    none = np.zeros(1)
    prepare(k.fold, none, np.ones(1, dtype=np.bool_), none, none)


class Border:
    """Names of arms, and the checks of everything that is handed to a policy. Parameters: see `Policy`.

    Examples
    --------
    >>> border = Border(["a", "b"], 2, max_norm=10.0)
    >>> border.index("b"), border.effective_prices([0.1, 0.0], [True, False])
    (1, array([0.1, inf]))
    """

    def __init__(self, arms: int | Iterable[str], dim: int, *, max_norm: float) -> None:
        compile_kernels()
        self.rename(self.check_arms(arms))
        self.dim = check.integer("dim", dim, low=1)
        self.max_norm = check.finite("max_norm", max_norm, low=0.0, high=LARGEST, open_low=True)

    def check_arms(self, arms: int | Iterable[str]) -> tuple[str, ...]:
        """Return names of arms, or refuse them."""
        return check.names("arms", arms)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what pickling left, as a process does that receives a policy."""
        self.__dict__.update(state)
        compile_kernels()

    def rename(self, arms: tuple[str, ...]) -> None:
        """Take up the names of the arms, after `resize`."""
        self.arms = arms
        self._free, self._everyone = np.zeros(len(arms)), np.ones(len(arms), dtype=np.bool_)
        self.positions = {name: i for i, name in enumerate(arms)}

    def index(self, arm: int | str) -> int:
        """Return the index of an arm given by name (str) or index (int); raises ``UnknownArm``."""
        if isinstance(arm, str):
            if arm not in self.positions:
                raise UnknownArm(f"arm must be one of {self._shown()}, got {arm!r}")
            return self.positions[arm]
        if isinstance(arm, bool) or not isinstance(arm, int | np.integer):
            raise TypeError(f"arm must be a name (str) or an index (int), got {arm!r}")
        if not 0 <= arm < len(self.arms):
            raise UnknownArm(f"arm must be in [0, {len(self.arms) - 1}], got {check.shown(arm)}")
        return int(arm)

    def _shown(self) -> str:
        return repr(list(self.arms)) if len(self.arms) <= 8 else f"the {len(self.arms)} arms"

    def check_context(self, x: ArrayLike) -> Floats:
        """Return a context as the kernels want it: (dim,), float64, contiguous, finite, not too long."""
        row = check.vector("x", x, self.dim)
        norm = hypot(*row.tolist())  # never overflows on the way
        if not norm <= self.max_norm:
            raise ValueError(f"x must have norm <= max_norm = {self.max_norm:g}, got {norm:g}")
        return row

    def effective_prices(
        self, prices: ArrayLike | None, eligible: ArrayLike | None, base: Floats | None = None
    ) -> Floats:
        """Fold prices and the mask into one new array: prices, infinite where not eligible, plus those of `base`."""
        count = len(self.arms)
        out = np.empty(count)
        try:
            left = k.fold(
                self._free if prices is None else prices,
                self._everyone if eligible is None else eligible,
                self._free if base is None else base,
                out,
            )
        except (TypeError, ValueError):  # not arrays as the kernel takes them
            left = layout.BAD_PRICES
        if left > 0:
            return out
        offers = np.zeros(count) if prices is None else check.vector("prices", prices, count, limit=LARGEST)
        if eligible is not None:
            mask = np.asarray(eligible)
            if mask.dtype != np.bool_:
                raise TypeError(f"eligible must be a boolean mask, got dtype {mask.dtype}")
            if mask.shape != (count,):
                raise ValueError(f"eligible must have shape ({count},), got {mask.shape}")
            if not mask.any():
                raise ValueError("eligible must allow at least one arm, got none")
            offers = np.where(mask, offers, np.inf)
        if base is not None:
            offers = offers + base
            if offers.min() == np.inf:
                raise ValueError("eligible must allow an arm that is not quarantined, got none")
        return offers

    def check_reward(self, reward: Any, weight: Any) -> tuple[float, float]:
        """Return reward and weight as floats, or refuse them."""
        return (
            check.finite("reward", reward, low=-LARGEST, high=LARGEST),
            check.finite("weight", weight, low=0.0, high=LARGEST, open_low=True),
        )

    def check_batch(
        self, contexts: ArrayLike, arms: ArrayLike, rewards: ArrayLike
    ) -> tuple[Floats, NDArray[Any], Floats]:
        """Return contexts, indices of arms and rewards as arrays, or refuse all of them."""
        rows = check.matrix("contexts", contexts, columns=self.dim)
        chosen = np.asarray(arms)
        if chosen.dtype.kind in "US":
            chosen = np.array([self.index(str(a)) for a in chosen], dtype=np.int64)
        if chosen.shape != (len(rows),) or chosen.dtype.kind not in "iu":
            raise ValueError(f"arms must be {len(rows)} indices, got shape {chosen.shape} of {chosen.dtype}")
        if len(rows) and not (chosen.min() >= 0 and chosen.max() < len(self.arms)):
            raise UnknownArm(
                f"arms must be in [0, {len(self.arms) - 1}], got {chosen.min()} .. {chosen.max()}"
            )
        self.check_norms(rows)
        return rows, chosen.astype(np.int64), check.vector("rewards", rewards, len(rows), limit=LARGEST)

    def check_norms(self, rows: Floats) -> None:
        """Refuse contexts that are too long; the square roots of sums of squares must not overflow."""
        with np.errstate(over="ignore"):
            norm = float(np.sqrt(np.square(rows).sum(axis=1).max(initial=0.0)))
        if not norm <= self.max_norm:
            raise ValueError(f"contexts must have norm <= max_norm = {self.max_norm:g}, got {norm:g}")
