"""Separate estimates of quality, cost and latency, combined when a request is decided."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Arrays, Floats, Header
from banditroute.policies import LinUCB
from banditroute.policies.base import LARGEST
from banditroute.records import Feedback, Request
from banditroute.terms.base import Asked, BaseTerm, context_of

__all__ = ["CostModels"]


class CostModels(BaseTerm):
    """Learn what a request costs on each arm, one ridge regression per measure, and price it by weights.

    The policy learns quality; each model learns one other measure of the same decisions. A changed weight changes the
    trade-off at the next request, with nothing relearned, and a request may bring weights of its own.

    Parameters
    ----------
    arms : int or sequence of str
        As in the policy.
    dim : int
        Length of the contexts.
    weights : mapping of str to float
        Measures and their price, reward units per unit of the measure.
    cost : str
        The measure that ``cost`` of a Router's `update` teaches; ``seconds`` teaches the measure of that name.

    Notes
    -----
    BaRP (arXiv 2510.07429) puts the user's weights beside the context and trains on the combined reward; keeping the
    parts as regressions serves all weights from one set of statistics. A model is a `LinUCB` without bonus: its
    estimates are the means, for exploration belongs to the policy. Predictions below 0 count as 0. O(k dim) to
    read and O(dim^2) to learn, for each model.

    Examples
    --------
    >>> models = CostModels(["small", "large"], 1, weights={"usd": 10.0, "seconds": 0.0})
    >>> for _ in range(100):
    ...     models.update("small", [1.0], usd=0.001, seconds=0.5)
    ...     models.update("large", [1.0], usd=0.02, seconds=1.5)
    >>> models.prices([1.0]).round(2)
    array([0.01, 0.2 ])
    >>> models.prices([1.0], weights={"usd": 0.0, "seconds": 0.1}).round(2)
    array([0.05, 0.15])
    """

    name = "costs"
    per_request = True

    def __init__(
        self, arms: int | Iterable[str], dim: int, *, weights: Mapping[str, float], cost: str = "usd"
    ) -> None:
        super().__init__(check.names("arms", arms))
        self.named = not isinstance(arms, int | np.integer)
        self.weights = self._checked(weights, tuple(weights))
        self.cost = cost
        self._models = {name: LinUCB(self.arms, dim, alpha=0.0, rng=0) for name in self.weights}

    def shown(self) -> str:
        """Return what `repr` tells of the state."""
        return f"arms={len(self.arms)}, weights={self.weights}"

    def _checked(self, weights: Mapping[str, float], measures: tuple[str, ...]) -> dict[str, float]:
        for name in weights:
            if name not in measures:
                raise ValueError(f"weights must be of {', '.join(measures)}, got {name!r}")
        return {
            name: check.finite(f"weights[{name!r}]", w, low=0.0, high=LARGEST) for name, w in weights.items()
        }

    def predict(self, measure: str, x: ArrayLike) -> Floats:
        """Return the expected value of one measure on each arm, (k,), at least 0."""
        return np.maximum(self._models[measure].scores(x).mean, 0.0)

    def prices(self, request: Asked = None, *, weights: Mapping[str, float] | None = None) -> Floats:
        """Return the weighted sum of the measures, (k,), in reward units.

        Parameters
        ----------
        request : Request or (dim,) array
        weights : mapping of str to float, optional
            Weights of this request; measures that it does not name keep the standing ones.

        Raises
        ------
        ValueError, TypeError
            A bad context, a weight below 0 or of no measure.
        """
        if request is None:
            raise TypeError("request must be a context, got None")
        if weights is None and isinstance(request, Request) and request.extras is not None:
            weights = request.extras.weights
        used = self.weights if weights is None else self.weights | self._checked(weights, tuple(self._models))
        x, total = context_of(request), np.zeros(len(self.arms))
        assert x is not None
        for name, weight in used.items():
            if weight:
                total += weight * self.predict(name, x)
        return np.minimum(total, LARGEST)

    def update(self, arm: int | str, x: ArrayLike, **measured: float) -> None:
        """Learn measured values of one decision, by name; those not measured are left out.

        Raises
        ------
        KeyError, ValueError, TypeError
            A name that has no model, or a bad value; nothing changed.
        """
        at = self.index(arm)
        for name, value in measured.items():
            if name not in self._models:
                raise KeyError(f"measured must be among {', '.join(self._models)}, got {name!r}")
            self._models[name].check_context(x)
            check.finite(name, value, low=-LARGEST, high=LARGEST)
        for name, value in measured.items():
            self._models[name].update(at, x, float(value))

    def settle(self, arm: int | str, held: Any, feedback: Feedback, /) -> None:
        """Learn what the call did cost and how long it took, as far as it was told."""
        told = {self.cost: feedback.cost, "seconds": feedback.seconds}
        measured = {name: v for name, v in told.items() if v is not None and name in self._models}
        if measured and self.position(arm) is not None:
            self.update(arm, feedback.request.x, **measured)

    def resize(self, keep: list[int | None]) -> None:
        """Keep what is known of arms that stay; a new one is free until it has been measured."""
        names = tuple(str(i) for i in range(len(keep)))  # by position; this term knows the names
        for model in self._models.values():
            model.resize(list(keep))
            model.rename(names)

    def to_state(self) -> tuple[Header, Arrays]:
        """Return everything needed to continue, weights included."""
        header, arrays = super().to_state()
        models: dict[str, Header] = {}
        for name, model in self._models.items():
            models[name], own = model.to_state()
            arrays |= {f"{name}/{key}": array for key, array in own.items()}
        return header | {"weights": dict(self.weights), "models": models}, arrays

    def load_state(self, header: Header, arrays: Arrays) -> None:
        """Continue from `to_state` of models of the same measures and dimension."""
        arms = self.kept_arms(header)
        stored = check.entry("header", header, "models")
        if set(stored) != set(self._models):
            raise ValueError(f"models must be of {sorted(self._models)}, got {sorted(stored)}")
        weights = self._checked(check.entry("header", header, "weights"), tuple(self._models))
        models = {name: model.copy() for name, model in self._models.items()}
        for name, model in models.items():
            prefix = f"{name}/"
            own = {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}
            model.load_state(stored[name], own)
            if len(model.arms) != len(arms):
                raise ValueError(f"models must have {len(arms)} arms, got {len(model.arms)}")
        super().load_state(header, arrays)
        self.weights, self._models = weights, models
