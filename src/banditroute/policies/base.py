"""The abstract policy: contexts and rewards in, an arm and its propensity out."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from copy import deepcopy
from math import hypot
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.kernels import layout, prepare
from banditroute._core.kernels import linear as k
from banditroute._core.typing import Floats, Rng
from banditroute.errors import UnknownArm

__all__ = ["Choice", "Policy", "Scores"]


LARGEST = layout.LARGEST  # rewards, weights and prices beyond it are refused: products of them would overflow


def compile_kernels() -> None:
    """Compile what checks prices and masks; every policy does so when it is made."""
    none = np.zeros(1)
    prepare(k.fold, none, np.ones(1, dtype=np.bool_), none, none)


class Choice(NamedTuple):
    """The arm chosen for one request and the probability with which it was chosen.

    Examples
    --------
    >>> Choice(2, 0.5).propensity
    0.5
    """

    arm: int
    propensity: float


class Scores(NamedTuple):
    """What a policy believes of every arm: ``mean`` reward and ``std``, the width ``sqrt(x' A^-1 x)``, both (k,).

    Examples
    --------
    >>> Scores(np.zeros(2), np.ones(2)).std.shape
    (2,)
    """

    mean: Floats
    std: Floats


class Policy(ABC):
    """What every policy is: it knows contexts and rewards, never time, memory or ids.

    Parameters
    ----------
    arms : int or sequence of str
        Names of the arms, or a count k for "0" .. "k-1".
    dim : int
        Length of the context vectors.
    max_norm : float
        Contexts with a larger Euclidean norm are refused.
    rng : int, SeedSequence, Generator or None
        Source of randomness, through ``numpy.random.default_rng``.

    Notes
    -----
    A subclass writes `propensities`, `scores` and `update`; drawing, batches, names and checks are here.
    Not safe for use from several threads at once: that is the Router's lock.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> isinstance(LinUCB(arms=2, dim=3), Policy)
    True
    """

    span: int = 0  # decisions per discount bucket; 0 where the policy does not forget by the clock

    def __init__(
        self, arms: int | Iterable[str], dim: int, *, max_norm: float = 1e6, rng: Rng = None
    ) -> None:
        compile_kernels()
        self.rename(check.names("arms", arms))
        self.dim = check.integer("dim", dim, low=1)
        self.max_norm = check.finite("max_norm", max_norm, low=0.0, high=LARGEST, open_low=True)
        self._rng = np.random.default_rng(rng)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what pickling left, as a process does that receives a policy."""
        self.__dict__.update(state)
        compile_kernels()

    def rename(self, arms: tuple[str, ...]) -> None:
        """Take up the names of the arms, after `resize`."""
        self.arms = arms
        self._free, self._everyone = np.zeros(len(arms)), np.ones(len(arms), dtype=np.bool_)
        self.positions = {name: i for i, name in enumerate(arms)}

    @abstractmethod
    def scores(self, x: ArrayLike) -> Scores:
        """Estimated reward and width of every arm for one context; reads only."""

    @abstractmethod
    def propensities(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Floats:
        """Probability of every arm, shape (k,), sums to 1, exactly 0 where not eligible; reads only."""

    @abstractmethod
    def update(
        self, arm: int | str, x: ArrayLike, reward: float, *, weight: float = 1.0, at: int | None = None
    ) -> None:
        """Learn one reward; the only writer of statistics."""

    def select(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Choice:
        """Choose an arm for one context; reads statistics only and uses one random number.

        Parameters
        ----------
        x : (dim,) array
            Context.
        prices : (k,) array, optional
            Known additive cost of each arm for this request, in reward units.
        eligible : (k,) bool array, optional
            Arms allowed for this request.

        Returns
        -------
        Choice
            Index of the arm and its propensity.

        Raises
        ------
        ValueError, TypeError
            Wrong shape, dtype or value; nothing changed.
        """
        given = self.propensities(x, prices=prices, eligible=eligible)
        total = np.cumsum(given)
        arm = int(np.searchsorted(total, self._rng.random() * total[-1], side="right"))
        return Choice(arm, float(given[arm]))

    def select_batch(
        self, contexts: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> tuple[NDArray[np.int64], Floats]:
        """Choose an arm for each row, as a loop over `select` would without feedback in between.

        Parameters
        ----------
        contexts : (n, dim) array
        prices, eligible : (k,) or (n, k) arrays, optional

        Returns
        -------
        arms : (n,) int64 array
        propensities : (n,) float array
        """
        rows = check.matrix("contexts", contexts, columns=self.dim)
        shape = (len(rows), len(self.arms))
        p = None if prices is None else np.broadcast_to(np.asarray(prices), shape)
        e = None if eligible is None else np.broadcast_to(np.asarray(eligible), shape)
        self.check_norms(rows)
        for i in range(len(rows)):  # all of it before any choice: a refused batch draws nothing
            self.effective_prices(None if p is None else p[i], None if e is None else e[i])
        chosen = [
            self.select(x, prices=None if p is None else p[i], eligible=None if e is None else e[i])
            for i, x in enumerate(rows)
        ]
        return np.array([c.arm for c in chosen], dtype=np.int64), np.array([c.propensity for c in chosen])

    def scores_batch(self, contexts: ArrayLike) -> Scores:
        """Estimated reward and width for each row of ``contexts`` (n, dim): two (n, k) arrays; reads only."""
        rows = check.matrix("contexts", contexts, columns=self.dim)
        each = [self.scores(x) for x in rows]
        shape = (len(rows), len(self.arms))
        return Scores(
            np.array([s.mean for s in each]).reshape(shape), np.array([s.std for s in each]).reshape(shape)
        )

    def update_batch(self, contexts: ArrayLike, arms: ArrayLike, rewards: ArrayLike) -> None:
        """Learn many rewards at once: ``contexts`` (n, dim), ``arms`` (n,) indices, ``rewards`` (n,).

        Everything is checked before anything is learned.
        """
        rows, chosen, given = self.check_batch(contexts, arms, rewards)
        for x, a, r in zip(rows, chosen, given, strict=True):
            self.update(int(a), x, float(r))

    def add_arm(self, name: str) -> int:
        """Add an arm that starts cold; returns its index. The others keep theirs."""
        check.names("name", [name])
        if name in self.positions:
            raise ValueError(f"name must be new, got {name!r}")
        self.resize([*range(len(self.arms)), None])
        self.rename((*self.arms, name))
        return len(self.arms) - 1

    def remove_arm(self, name: str) -> None:
        """Remove an arm and its statistics; the indices behind it move down by one."""
        a = self.index(name)
        if len(self.arms) == 1:
            raise ValueError(f"the last arm must stay, got {name!r}")
        keep = [i for i in range(len(self.arms)) if i != a]
        self.resize(list(keep))
        self.rename(tuple(self.arms[i] for i in keep))

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

    def advance(self, at: int) -> None:  # noqa: B027 - most policies do not forget
        """Tell the clock index of the decisions so far; policies that forget age their statistics here."""

    def rewind(self) -> None:  # noqa: B027 - most policies have no clock
        """Start a new clock at index 0: what was learned so far counts as learned just now.

        A Router and `simulate` do so when they take a policy over, for their decisions count from 0.
        """

    # Stand-ins until the piece on policies lands.
    can_widen = False

    def select_priced(self, x, effective):
        allowed = np.isfinite(effective)
        return self.select(x, prices=np.where(allowed, effective, 0.0), eligible=allowed)

    def utilities(self, contexts):
        from collections import namedtuple

        mean, std = self.scores_batch(contexts)
        return namedtuple("Utilities", "mean bonus")(mean, getattr(self, "alpha", 0.0) * std)

    def freeze(self):
        yield self.copy().utilities

    def reseed(self):
        self._rng = np.random.default_rng()

    def forget(self, arm):
        keep = list(range(len(self.arms)))
        keep[self.index(arm)] = None
        self.resize(keep)
        self.rename(self.arms)

    def copy(self) -> Self:
        """Return an independent copy, generator included."""
        return deepcopy(self)

    @abstractmethod
    def to_state(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """Return everything needed to continue: a JSON-able header and named arrays."""

    @abstractmethod
    def load_state(self, header: Mapping[str, Any], arrays: Mapping[str, Floats]) -> None:
        """Continue from `to_state` of a policy with the same settings; errors leave this one unchanged."""

    @abstractmethod
    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None."""

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
