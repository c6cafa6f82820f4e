"""Policies that learned from the log they are judged on: found, told, and judged on rows they had not seen."""

from typing import Any

import numpy as np

from banditroute._core.typing import Floats
from banditroute.evaluation.overlap import policy_probabilities
from banditroute.logs import Trace
from banditroute.policies import LinearPolicy, Policy

__all__ = [
    "cross_fitted_policy",
    "has_learned",
    "learned_rewards",
    "same_rewards",
    "started_afresh",
    "warning",
]

PROBES = 16  # contexts
UNCOUNTED = (
    "The policy does not tell how many rewards it has learned. If rows of this log are among them, its value is too "
    "high: evaluate on rows it has not seen."
)


def learned_rewards(policy: Policy, names: tuple[str, ...]) -> Floats | None:
    """Return how many rewards of each arm a policy has learned, in the order of `names`; None where it does not tell.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = LinUCB(["a", "b"], 1, rng=0)
    >>> policy.update("b", [1.0], 0.5)
    >>> learned_rewards(policy, ("b", "a"))
    array([1., 0.])
    """
    counts: Any = getattr(policy, "counts", None)
    if counts is None or len(counts) != len(policy.arms):
        return None
    own = dict(zip(policy.arms, np.asarray(counts, dtype=np.float64).tolist(), strict=True))
    return np.array([own.get(name, 0.0) for name in names])


def same_rewards(policy: Policy, log: Trace) -> bool:
    """Whether a policy has learned exactly as many rewards of every arm as the log holds: then it is from this log.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> same_rewards(LinUCB(["a"], 1), Trace(names=["a"], arms=[0], rewards=[1.0]))
    False
    """
    counts = learned_rewards(policy, log.names)
    return counts is not None and bool(
        counts.sum() > 0 and (counts == np.bincount(log.arms, minlength=len(log.names))).all()
    )


def warning(policy: Policy, log: Trace) -> str | None:
    """Return what to be wary of when a policy is judged on a log as it stands; None for one that has learned nothing.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> warning(LinUCB(["a"], 1), Trace(names=["a"], arms=[0], rewards=[1.0])) is None
    True
    """
    counts = learned_rewards(policy, log.names)
    if counts is None:
        return UNCOUNTED if has_learned(policy, log) else None
    if not counts.sum() > 0:
        return None
    if same_rewards(policy, log):
        return (
            "The policy has learned from this very log: what it learned from noise looks like skill, and its value "
            "is too high."
        )
    return (
        f"The policy has learned {counts.sum():,.0f} rewards. If rows of this log are among them, its value is too "
        "high: evaluate with cross_fit=True, or on rows it has not seen."
    )


def has_learned(policy: Policy, log: Trace) -> bool:
    """Whether a policy that does not count rewards says of contexts of a log what it would not say had it learned none.

    Where its arms cannot start cold, that is: whether it says anything at all, that one arm be played rather than
    another.

    Examples
    --------
    >>> from banditroute.policies import EMA
    >>> policy, log = EMA(["a", "b"], 1), Trace(names=["a", "b"], arms=[0], rewards=[1.0], contexts=[[1.0]])
    >>> policy.update("a", [1.0], 1.0) if not has_learned(policy, log) else None
    >>> has_learned(policy, log)
    True
    """
    rows = np.ones((1, policy.dim)) if log.contexts is None else log.contexts[:PROBES]
    believed = np.array([policy.propensities(x) for x in rows])
    fresh = policy.copy()
    try:
        fresh.resize([None] * len(fresh.arms))
        fresh.rename(fresh.arms)
    except TypeError:  # its arms cannot come and go
        return bool(np.ptp(believed) > 0.0)
    cold = np.array([fresh.propensities(x) for x in rows])
    return not np.array_equal(believed, cold, equal_nan=True)


def started_afresh(policy: Policy) -> Policy | None:
    """Return a copy of a policy that has learned nothing of any arm; None where what it learned cannot be taken out.

    Settings stay, and so do the scales (exploration width, ridge) that a linear policy estimates from all its rewards.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = LinUCB(["a"], 1, rng=0)
    >>> policy.update("a", [1.0], 0.5)
    >>> started_afresh(policy).counts
    array([0])
    """
    fresh: Any = policy.copy()
    if callable(getattr(fresh, "set_evidence", None)):
        try:
            for name in (*fresh.shared_names, *fresh.arms):
                fresh.set_evidence(name, fresh.empty_evidence())
        except TypeError:  # it has no sums after all, and says so
            return None
    else:
        fresh.resize([None] * len(fresh.arms))
        fresh.rename(fresh.arms)
        probe = np.eye(fresh.dim)[:16] * min(1.0, fresh.max_norm)
        if not isinstance(fresh, LinearPolicy) and any(fresh.scores(x).mean.any() for x in probe):
            return None
    counts = learned_rewards(fresh, fresh.arms)
    return None if counts is None or counts.any() else fresh


def cross_fitted_policy(policy: Policy, log: Trace, folds: int) -> Floats | None:
    """Return the probabilities, (n, k), of a policy of the same settings that learned from the other folds.

    None where the policy cannot be started afresh. Row i belongs to fold ``i % folds``, as in the model of rewards.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> log = Trace(names=["a"], arms=[0] * 6, rewards=[1.0] * 6, contexts=[[1.0]] * 6)
    >>> cross_fitted_policy(LinUCB(["a"], 1, rng=0), log, 2).ravel()
    array([1., 1., 1., 1., 1., 1.])
    """
    if log.contexts is None:
        raise ValueError("trace must hold contexts to evaluate a policy, got none")
    if sorted(policy.arms) != sorted(log.names):
        raise ValueError(f"policy must have the arms of the trace, {log.names}, got {policy.arms}")
    place = np.array([policy.arms.index(name) for name in log.names])
    fold = np.arange(len(log)) % folds
    out = np.empty((len(log), len(log.names)))
    for f in range(folds):
        fresh = started_afresh(policy)
        if fresh is None:
            return None
        rest = fold != f
        fresh.update_batch(log.contexts[rest], place[log.arms[rest]], log.rewards[rest])
        refresh = getattr(fresh, "refresh", None)
        if callable(refresh):
            refresh()
        out[fold == f] = policy_probabilities(log[fold == f], fresh)
    return out
