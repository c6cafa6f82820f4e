"""What the policies on plain numpy arrays share: checks, saving, arms that come and go, ties, the uniform share."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Rng
from banditroute.policies.base import Policy

__all__ = ["ArrayPolicy"]

LATEST = 1 << 52  # clock indices up to here are exact as floats


class ArrayPolicy(Policy):
    """A policy whose statistics are named arrays: `_own` with a row per arm, `_common` without.

    A subclass writes `scores`, `_learn` and, unless it writes `propensities`, `_indices`. Cold rows come from `_cold`.
    """

    def __init__(
        self, arms: int | Iterable[str], dim: int, *, mix: float = 0.0, max_norm: float = 1e6, rng: Rng = None
    ) -> None:
        super().__init__(arms, dim, max_norm=max_norm, rng=rng)
        self.mix = check.unit("mix", mix)
        self._clock = 0
        self._own: dict[str, Floats] = {}
        self._common: dict[str, Floats] = {}
        self.resize([None] * len(self.arms))

    @abstractmethod
    def _cold(self) -> dict[str, Floats]:
        """Return the row of an arm of which nothing is known, for each array."""

    @abstractmethod
    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        """Learn one reward that passed the checks."""

    def _indices(self, x: Floats) -> Floats:
        """Return what is compared between arms before prices, shape (k,); the mean unless overridden."""
        return self.scores(x).mean

    def _best(self, index: Floats, offers: Floats) -> Floats:
        """Return propensities: ties of index less price split evenly, and the uniform share."""
        value = index - (offers - offers.min())
        top = value == value.max()
        allowed = np.isfinite(offers)
        return np.asarray((1.0 - self.mix) * top / top.sum() + self.mix * allowed / allowed.sum())

    def propensities(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Floats:
        """Return the probability of every arm, shape (k,); exactly 0 where not eligible; reads only."""
        row, offers = self.check_context(x), self.effective_prices(prices, eligible)
        return self._best(self._indices(row), offers)

    def update(
        self, arm: int | str, x: ArrayLike, reward: float, *, weight: float = 1.0, at: int | None = None
    ) -> None:
        """Learn one reward; `at` is the clock index of its decision, the next one when left out."""
        a, row = self.index(arm), self.check_context(x)
        value, mass = self.check_reward(reward, weight)
        when = self._clock if at is None else check.integer("at", at, high=LATEST)
        self._learn(a, row, value, mass, when)
        self._clock = max(self._clock, when + 1)

    def rewind(self) -> None:
        """Start a new clock at index 0."""
        self._clock = 0

    def to_state(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """Return a JSON-able header and copies of all arrays."""
        header = {
            "policy": type(self).__name__,
            "arms": list(self.arms),
            "dim": self.dim,
            "clock": self._clock,
        }
        arrays = {name: array.copy() for name, array in {**self._own, **self._common}.items()}
        return {**header, "rng": self._rng.bit_generator.state}, arrays

    def load_state(self, header: Mapping[str, Any], arrays: Mapping[str, Floats]) -> None:
        """Continue from `to_state`; raises ``ValueError`` and changes nothing when the two do not fit."""
        kind, dim, clock = (check.entry("header", header, name) for name in ("policy", "dim", "clock"))
        if kind != type(self).__name__ or dim != self.dim:
            raise ValueError(f"state must be of {(type(self).__name__, self.dim)}, got {(kind, dim)}")
        names = check.names("arms", check.entry("header", header, "arms"))
        clock = check.integer("clock", clock, high=LATEST + 1)
        own, common = (
            {name: np.array(check.entry("arrays", arrays, name), dtype=np.float64) for name in mine}
            for mine in (self._own, self._common)
        )
        shapes = {name: (len(names), *array.shape[1:]) for name, array in self._own.items()}
        for name, array in {**own, **common}.items():
            shape = shapes.get(name, self._common[name].shape if name in self._common else ())
            if array.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
        self._sound(own)
        rng = check.generator("rng", self._rng, check.entry("header", header, "rng"))
        self._own, self._common, self._rng, self._clock = own, common, rng, clock
        self.rename(names)

    def _sound(self, own: Mapping[str, Floats]) -> None:
        """Refuse finite arrays of the right shapes that no feedback can have led to."""

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None."""
        cold = self._cold()
        self._own = {
            name: np.array([row if a is None else self._own[name][a] for a in keep])
            for name, row in cold.items()
        }
