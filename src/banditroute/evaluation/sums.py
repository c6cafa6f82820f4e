"""What an evaluation needs of the rows: sums that may be formed in parts, anywhere, and joined."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditroute._core.typing import Floats, Mask
from banditroute.evaluation import estimators as e
from banditroute.evaluation.intervals import GROUPS, grouped
from banditroute.evaluation.overlap import check_overlap
from banditroute.logs import Trace

__all__ = ["ValueSums", "Weights", "joined", "value_sums"]

HEAVIEST = 1e100  # a weight; beyond, variances leave the range of a float


class Weights(NamedTuple):
    """Sums over the weights of one target: ``rows``, ``total``, ``square``, the largest, how many are 0, and what a
    limit cuts off.

    Examples
    --------
    >>> Weights.of(np.array([0.0, 2.0]), 1.5).effective
    1.0
    """

    rows: int
    total: float
    square: float
    top: float
    zeros: int
    cut: float

    @classmethod
    def of(cls, weights: Floats, limit: float) -> "Weights":
        """Return the sums of weights, (n,)."""
        return cls(
            len(weights),
            float(weights.sum()),
            float(np.dot(weights, weights)),
            float(weights.max(initial=0.0)),
            int(np.count_nonzero(weights == 0.0)),
            float(np.maximum(weights - limit, 0.0).sum()),
        )

    def plus(self, other: "Weights") -> "Weights":
        """Return the sums over the rows of both."""
        return Weights(
            self.rows + other.rows, self.total + other.total, self.square + other.square,
            max(self.top, other.top), self.zeros + other.zeros, self.cut + other.cut,
        )  # fmt: skip

    @property
    def effective(self) -> float:
        """The effective sample size ``(sum w)^2 / sum w^2``; 0 where all weights are 0."""
        return self.total**2 / self.square if self.square > 0.0 else 0.0

    @property
    def mean(self) -> float:
        """The mean weight: 1 up to noise where propensities are right."""
        return self.total / self.rows

    @property
    def mean_error(self) -> float:
        """The standard error of the mean weight."""
        return float(np.sqrt(max(self.square / self.rows - self.mean**2, 0.0) / self.rows))


@dataclass(frozen=True, slots=True, eq=False)
class ValueSums:
    """Of every target and estimator the sums over groups of rows, (groups, targets, estimators, 3), and its weights.

    Examples
    --------
    >>> one = ValueSums(np.ones((2, 1, 1, 3)), {"a": Weights(2, 2.0, 2.0, 1.0, 0, 0.0)})
    >>> len(joined([one, one]).groups)
    4
    """

    groups: Floats
    weights: dict[str, Weights]


def joined(parts: Sequence[ValueSums]) -> ValueSums:
    """Return the sums over the rows of all parts, in their order; neighbouring groups are added when there are many.

    Examples
    --------
    >>> one = ValueSums(np.ones((3000, 1, 1, 3)), {"a": Weights(3000, 3000.0, 3000.0, 1.0, 0, 0.0)})
    >>> both = joined([one, one])
    >>> both.groups.shape[0], float(both.groups.sum()), both.weights["a"].rows
    (3000, 18000.0, 6000)
    """
    groups = np.concatenate([part.groups for part in parts])
    while len(groups) > GROUPS:
        groups = np.add.reduceat(groups, np.arange(0, len(groups), 2), axis=0)
    weights = dict(parts[0].weights)
    for part in parts[1:]:
        weights = {name: own.plus(part.weights[name]) for name, own in weights.items()}
    return ValueSums(groups, weights)


def value_sums(
    log: Trace,
    propensities: Floats,
    targets: Mapping[str, NDArray[Any]],
    estimators: Sequence[str],
    limit: float,
    *,
    expected: Floats | None = None,
    seen: Mask | None = None,
    groups: int = GROUPS,
) -> ValueSums:
    """Return the sums over the rows of a log, or of a part of one, for targets as arrays.

    Raises
    ------
    ValueError
        The log could not have played what a target plays, or a weight is above 1e100.

    Examples
    --------
    >>> log = Trace(names=["a", "b"], arms=[0, 1], rewards=[1.0, 0.0])
    >>> sums = value_sums(log, np.full(2, 0.5), {"a": np.zeros(2, int)}, ["ips"], 9.0)
    >>> sums.groups[:, 0, 0]
    array([[2., 1., 1.],
           [0., 1., 1.]])
    """
    tables, weights = [], {}
    for name, target in targets.items():
        check_overlap(log, propensities, target, name, seen=seen)
        own = e.importance(log.arms, propensities, target)
        top = int(own.argmax())
        if not own[top] <= HEAVIEST:
            raise ValueError(
                f"{name}: weights must be at most {HEAVIEST:g}, got {own[top]:g} at row {top}, whose "
                f"propensity is {propensities[top]:g}"
            )
        fit = None if expected is None else e.fit_of(expected, log.arms, target)
        tables.append(grouped([e.term(one, log.rewards, own, limit, fit) for one in estimators], groups))
        weights[name] = Weights.of(own, limit)
    return ValueSums(np.stack(tables, axis=1), weights)
