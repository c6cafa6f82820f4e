"""LinUCB's counterpart for rewards that are 0 or 1: one logistic regression per arm."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.kernels import logistic as k
from banditroute._core.kernels import prepare
from banditroute._core.typing import Floats
from banditroute.policies.arrays import ArrayPolicy
from banditroute.policies.base import LARGEST, Scores, Settings

__all__ = ["LogisticUCB"]


HUGE = 1e100  # more than any context, weight and ridge lead to; from here on products could overflow


def compile_kernels() -> None:
    """Compile the kernels; a policy does so when it is made."""
    row, square, x = np.zeros((1, 3)), np.zeros((1, 1)), np.zeros(1)
    prepare(k.least_ridge, row, 0, square, 1.0)
    prepare(k.fit, row, 0, square, x, 1.0, x, square, np.zeros((4, 1)))
    prepare(k.fold, row, 0, square, x, x)
    prepare(k.predict, square, np.zeros((1, 1, 1)), 1.0, x, x, x)


class LogisticUCB(ArrayPolicy):
    """Upper confidence bounds on ``P(reward = 1) = s(x'theta_a)`` with ``s(z) = 1 / (1 + exp(-z))``.

    Plays the arm with the largest ``s(x'theta_a + alpha sqrt(x' H_a^-1 x)) - price_a``, where theta_a minimises
    ``sum (log(1 + exp(x'theta)) - r x'theta) + ridge |theta|^2 / 2`` over the rewards r of the arm and
    ``H_a = ridge I + sum s(1 - s) x x'`` is the curvature there. The bound stays below 1 and lives on the scale of the
    rewards, so prices are as for `LinUCB`.

    Parameters
    ----------
    arms, dim, mix, max_norm, rng
        As in `LinUCB`.
    alpha : float
        Width of exploration in standard deviations of the log odds. No scale of noise is needed: the curvature is it.
    ridge : float
        Prior precision of the log odds per unit of context.
    memory : int
        Rewards of an arm kept as they came, at least 2.

    Notes
    -----
    Source: the model, its Gaussian approximation at the optimum and the quadratic in the place of older data are
    Chapelle and Li, "An empirical evaluation of Thompson sampling" (NIPS 2011), Algorithm 3; the bound in place of the
    draw follows Filippi, Cappe, Garivier and Szepesvari, "Parametric bandits: the generalized linear case" (NIPS 2010),
    Algorithm 1, line 6, but widens the log odds instead of the chance.

    Where the paper keeps a diagonal and folds every batch, an arm here keeps the whole curvature and its last
    ``memory / 2`` to ``memory`` rewards: up to `memory` the fit is the exact optimum in whatever order feedback comes,
    and afterwards the older half is replaced by its second-order expansion at the optimum, again and again, which
    leaves optimum and curvature of that moment as they are. Rewards strictly between 0 and 1 count as that share of a
    success (a quasi-likelihood); what is outside is refused. A ridge below 1e-12 of ``sum weight |x|^2 / 4`` counts as
    that much: the rounding of what was seen would outweigh it where nothing was.

    Not covered by theory: the bounds of the papers hold for a width that grows with log t and with the smallest slope
    of s, much wider than a few standard deviations, for independent rewards of a model that is right, and without the
    expansion. Arms are not shrunk towards each other.

    `select` costs O(k dim^2), `update` O(memory dim^2), compiled.

    Examples
    --------
    >>> policy = LogisticUCB(["small", "large"], 1, rng=0)
    >>> for t in range(200):
    ...     policy.update("large", [1.0], float(t % 50 > 0))
    ...     policy.update("small", [1.0], float(t % 10 > 0))
    >>> policy.scores([1.0]).mean.round(2)
    array([0.9 , 0.98])
    >>> policy.arms[policy.select([1.0], prices=[0.0, 0.2]).arm]
    'small'
    """

    _unshared = "the curvature of rewards that it no longer holds was taken at its own coefficients"

    def __init__(
        self,
        arms: int | Iterable[str],
        dim: int,
        *,
        alpha: float = 1.0,
        ridge: float = 0.2,
        memory: int = 256,
        **options: Any,
    ) -> None:
        compile_kernels()
        self.alpha = check.finite("alpha", alpha, low=0.0, high=LARGEST)
        self.ridge = check.finite("ridge", ridge, low=1.0 / LARGEST, high=LARGEST)
        self.memory = check.integer("memory", memory, low=2)
        self._room = min(16, self.memory)  # rows allocated per arm
        super().__init__(arms, dim, **options)
        self._work = np.zeros((self.dim + 3, self.dim))

    def _cold(self) -> dict[str, Floats]:
        d = self.dim
        return {
            "theta": np.zeros(d),
            "cov": np.eye(d) / self.ridge,
            "past": np.zeros((d, d)),
            "pull": np.zeros(d),
            "held": np.array(0.0),
            "count": np.array(0.0),
            "rows": np.zeros((self._room, d + 2)),
        }

    def check_reward(self, reward: Any, weight: Any) -> tuple[float, float]:
        """Return reward and weight as floats, or refuse them."""
        return check.unit("reward", reward), super().check_reward(0.0, weight)[1]

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        self._hold(a, x, reward, weight)
        self._fit(a)

    def _hold(self, a: int, x: Floats, reward: float, weight: float) -> None:
        """Keep one reward; the fit of the arm is left as it is, unless there is no more room."""
        own = self._own
        held = int(own["held"][a])
        if held == self._room < self.memory:
            more = min(2 * held, self.memory)
            own["rows"] = np.pad(own["rows"], ((0, 0), (0, more - held), (0, 0)))
            self._room = more
        elif held == self.memory:
            self._fit(a)
            old = self.memory // 2
            k.fold(own["rows"][a], old, own["past"][a], own["pull"][a], own["theta"][a])
            held -= old
            own["rows"][a, :held] = own["rows"][a, old:].copy()
            own["rows"][a, held:] = 0.0
        own["rows"][a, held, : self.dim] = x
        own["rows"][a, held, self.dim :] = reward, weight
        own["held"][a] = held + 1
        own["count"][a] += 1.0

    def _fit(self, a: int) -> None:
        own, held = self._own, int(self._own["held"][a])
        rows, past = own["rows"][a], own["past"][a]
        ridge = k.least_ridge(rows, held, past, self.ridge)
        k.fit(rows, held, past, own["pull"][a], ridge, own["theta"][a], own["cov"][a], self._work)

    def update_batch(self, contexts: ArrayLike, arms: ArrayLike, rewards: ArrayLike) -> None:
        """Learn many rewards with one fit per arm: ``contexts`` (n, dim), ``arms`` (n,) indices, ``rewards`` (n,)."""
        rows, chosen, given = self.check_batch(contexts, arms, rewards)
        if given.size and not (given.min() >= 0.0 and given.max() <= 1.0):
            raise ValueError(f"rewards must be in [0, 1], got {given.min():g} .. {given.max():g}")
        for x, a, r in zip(rows, chosen, given, strict=True):
            self._hold(int(a), x, float(r), 1.0)
        for a in np.unique(chosen):
            self._fit(int(a))
        self._clock += len(rows)

    def scores(self, x: ArrayLike) -> Scores:
        """Return the chance of a success and its standard deviation for every arm, both (k,)."""
        return Scores(*self._predicted(self.check_context(x), 0.0))

    def _predicted(self, x: Floats, alpha: float) -> tuple[Floats, Floats]:
        mean, width = np.empty(len(self.arms)), np.empty(len(self.arms))
        k.predict(self._own["theta"], self._own["cov"], alpha, x, mean, width)
        return mean, width

    def _utility(self, x: Floats) -> tuple[Floats, Floats]:
        mean, reach = self._predicted(x, self.alpha)
        return mean, self.alpha * reach

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rewards learned per arm, shape (k,)."""
        return self._own["count"].astype(np.int64)

    @property
    def coefficients(self) -> Floats:
        """Coefficients of the log odds of each arm, a (k, dim) copy."""
        return self._own["theta"].copy()

    def _sound(self, own: Mapping[str, Floats]) -> None:
        rows, held, d = own["rows"], own["held"], self.dim
        if not 0 < rows.shape[1] <= self.memory:
            raise ValueError(f"rows must be at most memory = {self.memory} per arm, got {rows.shape[1]}")
        if not (np.all(held == np.floor(held)) and np.all((held >= 0.0) & (held <= rows.shape[1]))):
            raise ValueError(
                f"held must count rows, at most {rows.shape[1]}, got {check.shown(held.tolist())}"
            )
        kept = rows[np.arange(rows.shape[1]) < held[:, None]]
        if not np.all((kept[:, d] >= 0.0) & (kept[:, d] <= 1.0) & (kept[:, d + 1] > 0.0)):
            raise ValueError("rows must hold rewards in [0, 1] and weights > 0")
        for name in ("theta", "cov", "past", "pull", "rows"):
            if not np.abs(own[name]).max(initial=0.0) <= HUGE:
                raise ValueError(f"{name} must be in [-{HUGE:g}, {HUGE:g}], got {np.abs(own[name]).max():g}")

    def load_state(
        self, header: Mapping[str, Any], arrays: Mapping[str, Floats], *, settings: Settings = "strict"
    ) -> None:
        """Continue from `to_state`; errors leave this policy unchanged. With "own" every arm is fitted anew."""
        mine, shape = self._own, np.shape(arrays.get("rows", ()))
        if len(shape) == 3:  # there is room for as many rows as are given, up to `memory`
            self._own = {**mine, "rows": np.zeros((0, shape[1], self.dim + 2))}
        try:
            super().load_state(header, arrays, settings=settings)
        except BaseException:
            self._own = mine
            raise
        self._room = self._own["rows"].shape[1]
        if settings == "own":
            for a in range(len(self.arms)):
                self._fit(a)
