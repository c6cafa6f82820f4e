"""What a log can answer: targets as arrays, and whether the logging policy could have done what they do."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.logs import Trace
from banditroute.policies import Policy

__all__ = ["Target", "check_overlap", "known_propensities", "target_array"]

Target = str | int | ArrayLike | Policy | Callable[[Any], Any]


def known_propensities(log: Trace) -> Floats:
    """Return the propensities of a log, all in (0, 1], or refuse.

    Examples
    --------
    >>> known_propensities(Trace(names=["a"], arms=[0], rewards=[1.0]))
    Traceback (most recent call last):
    ValueError: propensities must be in the trace, got none: without them nothing can be evaluated
    """
    given = log.propensities
    if given is None:
        raise ValueError("propensities must be in the trace, got none: without them nothing can be evaluated")
    bad = ~((given > 0.0) & (given <= 1.0 + 1e-9))
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(
            f"propensities must be in (0, 1], got {given[at]} at row {at} and {int(bad.sum())} such rows"
        )
    return given


def target_array(log: Trace, target: Target) -> NDArray[Any]:
    """Return the arm of each row, (n,) integers, or probabilities, (n, k).

    Examples
    --------
    >>> target_array(Trace(names=["a", "b"], arms=[0, 1], rewards=[1.0, 0.0]), "b")
    array([1, 1])
    """
    count, width = len(log), len(log.names)
    if isinstance(target, str):
        if target not in log.names:
            raise ValueError(f"target must be one of {log.names}, got {target!r}")
        return np.full(count, log.names.index(target), dtype=np.int64)
    if isinstance(target, int | np.integer) and not isinstance(target, bool):
        return np.full(count, check.integer("target", target, high=width - 1), dtype=np.int64)
    if isinstance(target, Policy):
        return _frozen(log, target)
    if callable(target):
        if log.contexts is None:
            raise ValueError("trace must hold contexts for a target that reads them, got none")
        target = target(log.contexts)
    array = np.asarray(target)
    if array.dtype.kind in "iu" and array.shape == (count,):
        if array.min() < 0 or array.max() >= width:
            raise ValueError(f"target must be in [0, {width - 1}], got {array.min()} .. {array.max()}")
        return array
    if array.shape == (width,):
        array = np.broadcast_to(array, (count, width))
    if array.shape != (count, width) or array.dtype.kind not in "fiub":
        raise ValueError(f"target must be an arm, ({count},) indices or ({count}, {width}) probabilities, "
                         f"got {array.dtype} of shape {array.shape}")  # fmt: skip
    sums = array.sum(axis=1)
    if not (array.min() >= 0.0 and np.abs(sums - 1.0).max() < 1e-6):
        raise ValueError(f"target must be probabilities that sum to 1, got sums {sums.min()} .. {sums.max()}")
    return array


def _frozen(log: Trace, policy: Policy) -> Floats:
    if log.contexts is None:
        raise ValueError("trace must hold contexts to evaluate a policy, got none")
    if policy.arms != log.names:
        raise ValueError(f"policy must have the arms of the trace, {log.names}, got {policy.arms}")
    prices, eligible = log.prices, log.eligible
    return np.array(
        [
            policy.propensities(
                x, prices=None if prices is None else prices[i], eligible=None if eligible is None else eligible[i]
            )
            for i, x in enumerate(log.contexts)
        ]
    )  # fmt: skip


def check_overlap(log: Trace, propensities: Floats, target: NDArray[Any], name: str) -> None:
    """Refuse a target that plays what the log could not have played.

    Examples
    --------
    >>> log = Trace(names=["a", "b"], arms=[0, 0], rewards=[1.0, 0.0])
    >>> check_overlap(log, np.ones(2), np.array([1, 1]), "b")
    Traceback (most recent call last):
    ValueError: b: an arm the target plays must have been logged, got no row of 'b'
    """
    width, each = len(log.names), np.arange(len(log))
    seen = np.bincount(log.arms, minlength=width) > 0
    used = np.bincount(target, minlength=width) > 0 if target.ndim == 1 else target.max(axis=0) > 0.0
    if (used & ~seen).any():
        arm = log.names[int((used & ~seen).argmax())]
        raise ValueError(f"{name}: an arm the target plays must have been logged, got no row of {arm!r}")
    if log.eligible is not None:
        if target.ndim == 1:
            outside = ~log.eligible[each, target]
        else:
            outside = (target * ~log.eligible).max(axis=1) > 0.0
        if outside.any():
            raise ValueError(
                f"{name}: the target must play eligible arms, got another at row {outside.argmax()}"
            )
    sure = np.flatnonzero(propensities > 1.0 - 1e-12)
    own = (target[sure] == log.arms[sure]) if target.ndim == 1 else target[sure, log.arms[sure]]
    away = np.flatnonzero(own < 1.0 - 1e-6)
    if len(away):
        raise ValueError(
            f"{name}: the log must be able to choose what the target plays, got propensity 1 for another arm on "
            f"{len(away)} rows (first: {sure[away[0]]}); log with a share of exploration (mix > 0)"
        )
