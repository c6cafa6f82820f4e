"""What is asked of a log, and the form of the answer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from banditroute._core import validation as check
from banditroute.evaluation.estimators import ESTIMATORS, MODELLED
from banditroute.evaluation.intervals import Ends, intervals
from banditroute.evaluation.sums import ValueSums, Weights

__all__ = ["LEARNING", "UNANSWERED", "Estimate", "Evaluation", "Question"]

LEARNING = "The log is that of a learning policy: rows depend on each other, intervals are nominal."
UNANSWERED = "without a reward were left out, as if they were missing at random."


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value per request, its standard error, and the ends of its interval.

    Examples
    --------
    >>> Estimate(0.5, 0.1, 0.3, 0.7).value
    0.5
    """

    value: float
    std_error: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Estimates of one target by estimator name, and how far the log bears on that target.

    ``rows`` with a reward were used, ``unanswered`` were not. ``ess`` is the effective sample size
    ``(sum w)^2 / sum w^2``; ``mean_weight`` is 1 up to noise when the propensities are right; ``zero_share`` of the
    rows weigh nothing; ``clip`` is the limit of the clipped estimator and ``clipped_mass`` the share of the weight it
    cut. ``notes`` say in words what to be wary of.

    Examples
    --------
    >>> from banditroute import Trace
    >>> from banditroute.evaluation import evaluate
    >>> trace = Trace(names=["a", "b"], arms=[0, 1] * 50, rewards=[1.0, 0.0] * 50, propensities=[0.5] * 100)
    >>> found = evaluate(trace, "a")
    >>> found["dr"].value, found.ess
    (1.0, 50.0)
    """

    estimates: dict[str, Estimate]
    rows: int
    unanswered: int
    ess: float
    mean_weight: float
    max_weight: float
    zero_share: float
    clip: float
    clipped_mass: float
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> Estimate:
        return self.estimates[name]

    def __str__(self) -> str:
        lines = [
            f"{name:8s} {one.value:9.4f}  "
            + (
                "a model's guess: its error is not known"
                if name == "dm"
                else f"[{one.low:.4f}, {one.high:.4f}]"
            )
            for name, one in self.estimates.items()
        ]
        lines.append(
            f"{self.rows} rows, effective {self.ess:.0f}; weights: mean {self.mean_weight:.3f}, "
            f"largest {self.max_weight:.1f}, zero {self.zero_share:.1%}, clipped {self.clipped_mass:.1%}"
        )
        return "\n".join([*lines, *self.notes])


class Question(NamedTuple):
    """What is asked of a log, checked: the options of `compare` that do not depend on it.

    Examples
    --------
    >>> Question.of(["ips"]).limit(100)
    10.0
    """

    estimators: tuple[str, ...]
    clip: float | None
    ridge: float
    folds: int
    level: float
    fewest: float

    @classmethod
    def of(
        cls,
        estimators: Iterable[str] = ESTIMATORS,
        *,
        clip: float | None = None,
        ridge: float = 1.0,
        folds: int = 5,
        confidence: float = 0.95,
        min_ess: float = 20.0,
    ) -> "Question":
        """Return the checked options."""
        wanted = (estimators,) if isinstance(estimators, str) else tuple(estimators)
        if not wanted or any(name not in ESTIMATORS for name in wanted):
            raise ValueError(f"estimators must be of {ESTIMATORS}, got {wanted}")
        level = check.finite("confidence", confidence, low=0.0, high=1.0, open_low=True)
        if level == 1.0:
            raise ValueError("confidence must be in (0, 1), got 1: no interval is sure")
        return cls(
            wanted,
            None if clip is None else check.finite("clip", clip, low=0.0, open_low=True),
            check.finite("ridge", ridge, low=0.0, open_low=True),
            check.integer("folds", folds, low=2),
            level,
            check.finite("min_ess", min_ess, low=0.0),
        )

    @property
    def modelled(self) -> bool:
        """Whether an estimator needs a model of rewards."""
        return bool(MODELLED & set(self.estimators))

    def limit(self, rows: int) -> float:
        """Return the weight at which weights are cut."""
        return float(np.sqrt(rows)) if self.clip is None else self.clip

    def check_weights(self, sums: ValueSums) -> None:
        """Refuse targets that the log hardly ever agrees with."""
        for name, w in sums.weights.items():
            if not w.total > 0.0:
                raise ValueError(
                    f"{name}: the target must agree with some row of the log, got none of {w.rows}"
                )
            if not w.effective >= self.fewest:
                raise ValueError(
                    f"{name}: the effective sample size must be at least {self.fewest:g}, got {w.effective:.1f} of "
                    f"{w.rows} rows: the log hardly ever did what the target does"
                )

    def answers(
        self,
        sums: ValueSums,
        unanswered: int,
        notes: Iterable[str],
        said: Mapping[str, tuple[str, ...]],
    ) -> dict[str, Evaluation]:
        """Return the evaluations that sums amount to; `said` are notes on single targets."""
        self.check_weights(sums)
        groups, width = len(sums.groups), len(self.estimators)
        ends = intervals(sums.groups.reshape(groups, -1, 3), self.level)
        table = Ends(*(one.reshape(-1, width) for one in ends))
        found, common = {}, tuple(notes)
        for i, (name, w) in enumerate(sums.weights.items()):
            rows = zip(self.estimators, *(one[i].tolist() for one in table), strict=True)
            limit = self.limit(w.rows)
            found[name] = Evaluation(
                {one: Estimate(value, error, low, high) for one, value, error, low, high in rows},
                rows=w.rows,
                unanswered=unanswered,
                ess=w.effective,
                mean_weight=w.mean,
                max_weight=w.top,
                zero_share=w.zeros / w.rows,
                clip=limit,
                clipped_mass=w.cut / w.total,
                notes=(*said.get(name, ()), *_about_weights(w), *common),
            )
        return found


def _about_weights(w: Weights) -> list[str]:
    notes = []
    off = abs(w.mean - 1.0) / (w.mean_error + 1e-12)
    if off > 4.0 and abs(w.mean - 1.0) > 1e-9:
        notes.append(f"The mean weight is {w.mean:.3f}, {off:.0f} standard errors from 1: "
                     "the propensities are not those of the decisions.")  # fmt: skip
    if w.top > 0.05 * w.total:
        notes.append(f"One row carries {w.top / w.total:.0%} of the weight.")
    return notes
