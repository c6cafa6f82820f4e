"""A policy around another policy: everything is passed on, until a subclass says otherwise."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.policies.base import Choice, Policy, Scores
from banditroute.policies.linear import LinearPolicy

__all__ = ["Wrapper"]

LATEST = 1 << 52


class Wrapper(Policy):
    """Passes everything on to ``base``, which belongs to the wrapper from then on.

    A subclass writes `_learn` and names in ``_kept`` its own arrays (attributes) that are saved beside those of the
    base. What a linear base tells of its statistics (``_passed``) can be asked of the wrapper too.
    """

    _kept: tuple[str, ...] = ()
    _passed: tuple[str, ...] = ("cov", "moment", "precision", "prior", "ridge", "theta")

    def __init__(self, base: Policy) -> None:
        if not isinstance(base, Policy):
            raise TypeError(f"base must be a Policy, got {type(base).__name__}")
        self.base = base
        super().__init__(base.arms, base.dim, max_norm=base.max_norm, rng=base._rng)
        self.clock = 0

    def __getattr__(self, name: str) -> Any:
        """Ask the base for what it tells of its statistics."""
        if name in type(self)._passed:
            return getattr(self.base, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        self.base.update(a, x, reward, weight=weight, at=at)

    def update(
        self, arm: int | str, x: ArrayLike, reward: float, *, weight: float = 1.0, at: int | None = None
    ) -> None:
        """Learn one reward; `at` is the clock index of its decision, the next one when left out."""
        a, row = self.index(arm), self.check_context(x)
        value, mass = self.check_reward(reward, weight)
        when = self.clock if at is None else check.integer("at", at, high=LATEST)
        self._learn(a, row, value, mass, when)
        self.clock = max(self.clock, when + 1)

    def scores(self, x: ArrayLike) -> Scores:
        """Return mean and width of every arm for one context, both (k,)."""
        return self.base.scores(x)

    def propensities(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Floats:
        """Return the probability of every arm, shape (k,)."""
        return self.base.propensities(x, prices=prices, eligible=eligible)

    def select(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Choice:
        """Choose an arm; see `LinUCB.select`."""
        return self.base.select(x, prices=prices, eligible=eligible)

    @property
    def alpha(self) -> float:
        """Exploration width of the base, 0 where it has none."""
        return float(getattr(self.base, "alpha", 0.0))

    @property
    def counts(self) -> NDArray[np.int64] | None:
        """Rewards learned per arm, where the base counts them."""
        return getattr(self.base, "counts", None)

    def advance(self, at: int) -> None:
        """Tell the clock index of the decisions so far."""
        self.clock = max(self.clock, at)
        self.base.advance(at)

    def rewind(self) -> None:
        """Start a new clock at index 0."""
        self.clock = 0
        self.base.rewind()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy everything; the generator stays that of the base."""
        new = object.__new__(type(self))
        new.__dict__.update(
            {name: deepcopy(value, memo) for name, value in self.__dict__.items() if name != "_rng"}
        )
        new._rng = new.base._rng
        return new

    def to_state(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """Return a JSON-able header and copies of all arrays, those of the base under ``base.``."""
        header, arrays = self.base.to_state()
        own = {name: np.array(getattr(self, name), dtype=np.float64) for name in self._kept}
        mine = {"policy": type(self).__name__, "arms": list(self.arms), "clock": self.clock, "base": header}
        return mine, {**{f"base.{name}": array for name, array in arrays.items()}, **own}

    def load_state(self, header: Mapping[str, Any], arrays: Mapping[str, Floats]) -> None:
        """Continue from `to_state`; raises ``ValueError`` and changes nothing when the two do not fit."""
        if header["policy"] != type(self).__name__:
            raise ValueError(f"state must be of {type(self).__name__}, got {header['policy']}")
        if tuple(header["arms"]) != tuple(header["base"]["arms"]):
            raise ValueError(
                f"arms must be those of the base, {header['base']['arms']}, got {header['arms']}"
            )
        own = {name: np.array(arrays[name], dtype=np.float64) for name in self._kept}
        clock = int(header["clock"])
        inner = {name[5:]: array for name, array in arrays.items() if name.startswith("base.")}
        self.base.load_state(header["base"], inner)
        self._rng, self.clock = self.base._rng, clock
        self.rename(self.base.arms)
        for name, array in own.items():
            setattr(self, name, array)

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None."""
        self.base.resize(keep)

    def rename(self, arms: tuple[str, ...]) -> None:
        """Take up the names of the arms, after `resize`."""
        super().rename(arms)
        if self.base.arms != arms or len(self.base.arms) != len(arms):
            self.base.rename(arms)

    def _rows_kept(self, array: Floats, keep: list[int | None], cold: float = 0.0) -> Floats:
        """Return per-arm numbers (k, ...) after a change of arms."""
        blank = np.full(array.shape[1:], cold)
        return np.array([blank if a is None else array[a] for a in keep])


def restart(policy: Policy, arm: int) -> None:
    """Make one arm of a policy start cold; the others do not notice."""
    policy.resize([None if a == arm else a for a in range(len(policy.arms))])
    policy.rename(policy.arms)  # policies bind what points into their arrays when they are named
    while isinstance(policy, Wrapper):
        policy = policy.base
    if isinstance(policy, LinearPolicy):
        policy.refresh()  # what the arm told the pooled prior is forgotten too


def moved(rows: Floats, keep: list[int | None], column: int = 0) -> Floats:
    """Return the rows whose arm (in `column`) stays, with its new index."""
    place = {a: i for i, a in enumerate(keep) if a is not None}
    kept = rows[np.isin(rows[:, column], list(place))]
    kept[:, column] = [place[int(a)] for a in kept[:, column]]
    return kept
