"""Any classifier or regressor as a policy for simulation: people can compare what they have."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Rng
from banditroute.policies import Policy, Scores
from banditroute.policies.base import Settings

__all__ = ["FittedPolicy", "Model"]


class Model(Protocol):
    """What scikit-learn calls an estimator: it is fitted to contexts and rewards, and predicts rewards."""

    def fit(self, X: Floats, y: Floats) -> Any:
        """Fit to contexts (n, d) and rewards (n,)."""

    def predict(self, X: Floats) -> Any:
        """Return predictions, (n,)."""


class FittedPolicy(Policy):
    """A model of rewards for each arm, fitted anew as feedback grows; explores by chance or by bootstrap.

    Parameters
    ----------
    arms, dim, max_norm, rng
        As in `LinUCB`.
    model : object with fit and predict
        An unfitted estimator of scikit-learn or alike; every arm gets copies. One with `predict_proba` is a classifier:
        rewards must be 0 or 1, and its score is the probability of 1.
    refit : int
        Rewards between fits, >= 1: after each all arms that learned something are fitted to all their rewards.
    epsilon : float
        Share of decisions spread over the eligible arms, in [0, 1].
    members : int
        Copies per arm, each fitted to its own bootstrap of the rewards: a decision follows one of them at random, as
        Thompson sampling would. 1 fits all rewards once.

    Notes
    -----
    For simulation and evaluation: fits take as long as the model takes, and states cannot be saved. An arm that has too
    few rewards to be fitted scores their mean, one without any is tried first.

    Examples
    --------
    >>> class Mean:
    ...     def fit(self, X, y): self.level = y.mean()
    ...     def predict(self, X): return np.full(len(X), self.level)
    >>> policy = FittedPolicy(2, 1, Mean(), refit=2, epsilon=0.0, rng=0)
    >>> for arm, reward in ((0, 0.2), (1, 0.9)):
    ...     policy.update(arm, [1.0], reward)
    >>> policy.propensities([1.0])
    array([0., 1.])
    """

    def __init__(
        self,
        arms: int | Iterable[str],
        dim: int,
        model: Model,
        *,
        refit: int = 100,
        epsilon: float = 0.05,
        members: int = 1,
        max_norm: float = 1e6,
        rng: Rng = None,
    ) -> None:
        super().__init__(arms, dim, max_norm=max_norm, rng=rng)
        if not callable(getattr(model, "fit", None)) or not callable(getattr(model, "predict", None)):
            raise TypeError(f"model must have fit and predict, got {type(model).__name__}")
        self.model = model
        self.refit = check.integer("refit", refit, low=1)
        self.epsilon = check.unit("epsilon", epsilon)
        self.members = check.integer("members", members, low=1)
        self._rows: list[list[tuple[Floats, float]]] = [[] for _ in self.arms]
        self._fitted: list[list[Model]] = [[] for _ in self.arms]
        self._fresh = 0

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rewards learned per arm, shape (k,)."""
        return np.array([len(rows) for rows in self._rows], dtype=np.int64)

    def update(
        self, arm: int | str, x: ArrayLike, reward: float, *, weight: float = 1.0, at: int | None = None
    ) -> None:
        """Learn one reward; `weight` must be 1. Fits when so many came since the last time."""
        a, row = self.index(arm), self.check_context(x)
        given, one = self.check_reward(reward, weight)
        if one != 1.0:
            raise ValueError(f"weight must be 1 for a fitted policy, got {weight}")
        if hasattr(self.model, "predict_proba") and given not in (0.0, 1.0):
            raise ValueError(f"reward must be 0 or 1 for a classifier, got {given}")
        self._rows[a].append((row.copy(), given))
        self._fresh += 1
        if self._fresh >= self.refit:
            self._fresh = 0
            for i in range(len(self.arms)):
                self._fit(i)

    def _fit(self, a: int) -> None:
        rows = self._rows[a]
        if not rows:
            return
        x, y = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
        own: list[Model] = []
        for _ in range(self.members):
            drawn = np.arange(len(y)) if self.members == 1 else self._rng.integers(len(y), size=len(y))
            if hasattr(self.model, "predict_proba") and np.ptp(y[drawn]) == 0.0:
                own.append(_Level(float(y[drawn][0])))  # a classifier wants both classes
                continue
            copy = deepcopy(self.model)
            copy.fit(x[drawn], y[drawn])
            own.append(copy)
        self._fitted[a] = own

    def _member_scores(self, x: Floats) -> Floats:
        """Return what each member expects of every arm, (members, k); infinite where nothing was learned."""
        out = np.full((self.members, len(self.arms)), np.inf)
        for a, models in enumerate(self._fitted):
            if models:
                out[:, a] = [_predicted(model, x[None, :]) for model in models]
            elif self._rows[a]:
                out[:, a] = np.mean([reward for _, reward in self._rows[a]])
        return out

    def scores(self, x: ArrayLike) -> Scores:
        """Return the mean over members and their standard deviation, both (k,); 0 and 1 for an arm without rewards."""
        table = self._member_scores(self.check_context(x))
        known = np.isfinite(table[0])
        mean, spread = np.zeros(len(known)), np.ones(len(known))
        mean[known], spread[known] = table[:, known].mean(axis=0), table[:, known].std(axis=0)
        return Scores(mean, spread)

    def propensities(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Floats:
        """Probability of every arm: the share of members that prefer it, and `epsilon` spread over all."""
        row, offers = self.check_context(x), self.effective_prices(prices, eligible)
        allowed = np.isfinite(offers)
        worth = self._member_scores(row) - np.where(allowed, offers, 0.0)
        worth[:, ~allowed] = -np.inf
        best = worth == worth.max(axis=1, keepdims=True)
        shares: Floats = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
        mixed: Floats = (1.0 - self.epsilon) * shares + self.epsilon * allowed / allowed.sum()
        return mixed

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None."""
        self._rows = [[] if i is None else self._rows[i] for i in keep]
        self._fitted = [[] if i is None else self._fitted[i] for i in keep]

    def to_state(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """Refuse: models of others have no state that is plain data."""
        raise TypeError("a FittedPolicy is for simulation: its models cannot be saved as plain data")

    def load_state(
        self, header: Mapping[str, Any], arrays: Mapping[str, Floats], *, settings: Settings = "strict"
    ) -> None:
        """Refuse, as `to_state` does."""
        raise TypeError("a FittedPolicy is for simulation: its models cannot be loaded from plain data")


class _Level:
    """Predicts one number."""

    def __init__(self, level: float) -> None:
        self.level = level

    def fit(self, X: Floats, y: Floats) -> None:
        """Learn nothing."""

    def predict(self, X: Floats) -> Floats:
        """Return the number, (n,)."""
        return np.full(len(X), self.level)


def _predicted(model: Model, x: Floats) -> float:
    if hasattr(model, "predict_proba"):
        return float(model.predict_proba(x)[0, -1])
    return float(np.asarray(model.predict(x)).ravel()[0])
