"""Recorder: writes a Router's decisions and rewards down as a trace."""

import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.logs.trace import Trace

if TYPE_CHECKING:
    from banditroute.records import Decision

__all__ = ["Recorder"]


class _Row(NamedTuple):
    decision: "Decision"
    context: Floats | None
    offers: Floats | None
    names: tuple[str, ...]
    policy: str
    version: int


_alive: "weakref.WeakSet[Recorder]" = weakref.WeakSet()


class Recorder:
    """Keeps a sample of decisions, and the rewards that answer them, until they are fetched as a `Trace`.

    Parameters
    ----------
    share : float
        Share of the decisions recorded, in [0, 1]. Which ones is read off their random ids: it depends on nothing
        else, and what is sampled stays an unbiased log.
    contexts : bool
        Record contexts; without them a trace is small, and the direct method and replay are not to be had.
    limit : int
        Rows kept in memory; further decisions are counted in ``dropped`` until `clear`.

    Notes
    -----
    Give it to one Router as ``recorder=``. A decision costs a few microseconds more, a row the context plus 0.4 kB. A
    reward is recorded when it was learned: what the Router drops stays unanswered here. With ``mix=0`` and no forcing
    the propensities of most policies are 1, and such a log cannot be evaluated off-policy: record with ``mix > 0``.

    A forked child starts empty, for what was recorded before is its parent's: the traces of workers have no row twice.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> recorder = Recorder()
    >>> router = Router(LinUCB(["small", "large"], 2, mix=0.2, rng=0), recorder=recorder)
    >>> decision = router.select([1.0, 0.5])
    >>> router.update(decision.id, reward=0.8)
    True
    >>> trace = recorder.trace()
    >>> trace.rewards, trace.contexts, trace.policies
    (array([0.8]), array([[1. , 0.5]]), ('LinUCB',))
    """

    def __init__(self, *, share: float = 1.0, contexts: bool = True, limit: int = 1_000_000) -> None:
        self.share = check.unit("share", share)
        self.contexts = bool(contexts)
        self.limit = check.integer("limit", limit, low=1)
        self.dropped = 0
        self._below = round(self.share * 2.0**64)
        self._rows: dict[int, _Row] = {}
        self._rewards: dict[int, float] = {}
        self._latencies: dict[int, float] = {}
        self._lock = threading.Lock()
        _alive.add(self)

    def __len__(self) -> int:
        return len(self._rows)

    def decided(
        self,
        decision: "Decision",
        context: Floats,
        offers: Floats | None,
        names: tuple[str, ...],
        policy: str,
        version: int,
    ) -> None:
        """Record a decision; called by the Router. Arrays are kept, not copied: they must not change any more."""
        if decision.id >= self._below:
            return
        with self._lock:
            if len(self._rows) >= self.limit:
                self.dropped += 1
                return
            own = context if self.contexts else None
            self._rows[decision.id] = _Row(decision, own, offers, names, policy, version)

    def answered(self, decision_id: int, reward: float) -> None:
        """Record a reward; called by the Router. Ids that are not in the sample are passed over."""
        with self._lock:
            if decision_id in self._rows:
                self._rewards[decision_id] = reward

    def waited(self, decision_id: int, latency_s: float) -> None:
        """Record how long the answer took, seconds; for the caller, who alone knows."""
        latency = check.finite("latency_s", latency_s, low=0.0)
        with self._lock:
            if decision_id in self._rows:
                self._latencies[decision_id] = latency

    def clear(self) -> None:
        """Forget what was recorded; rewards still due for it will be passed over."""
        with self._lock:
            self._rows, self._rewards, self._latencies = {}, {}, {}
            self.dropped = 0

    def trace(self) -> Trace:
        """Return what was recorded so far, in the order of the decisions.

        An arm that came or went meanwhile has a column throughout, and is not eligible where it did not exist.

        Raises
        ------
        ValueError
            Nothing was recorded.
        """
        with self._lock:
            rows = list(self._rows.values())
            rewards = [self._rewards.get(row.decision.id, np.nan) for row in rows]
            waits = [self._latencies.get(row.decision.id, np.nan) for row in rows]
        if not rows:
            raise ValueError("the recorder must hold a decision to make a trace, got none")
        names = tuple(dict.fromkeys(name for known in dict.fromkeys(r.names for r in rows) for name in known))
        place = {name: i for i, name in enumerate(names)}
        offers = np.full((len(rows), len(names)), np.inf)
        for known in dict.fromkeys(row.names for row in rows):
            own = [i for i, row in enumerate(rows) if row.names == known]
            none = np.zeros(len(known))
            given = [none if (o := rows[i].offers) is None else o for i in own]
            offers[np.ix_(own, [place[name] for name in known])] = given
        eligible = np.isfinite(offers)
        prices = np.where(eligible, offers, 0.0)
        policies = tuple(dict.fromkeys(row.policy for row in rows))
        return Trace(
            names=names,
            arms=_column(rows, lambda r: place[r.decision.arm], np.int64),
            rewards=np.array(rewards),
            propensities=_column(rows, lambda r: r.decision.propensity, np.float64),
            contexts=np.array([row.context for row in rows]) if self.contexts else None,
            times=_column(rows, lambda r: r.decision.time, np.float64),
            ids=_column(rows, lambda r: r.decision.id, np.uint64),
            eligible=None if eligible.all() else eligible,
            prices=prices if prices.any() else None,
            hits=_column(rows, lambda r: r.decision.hit, np.bool_),
            latencies=np.array(waits) if self._latencies else None,
            policies=policies,
            policy=_column(rows, lambda r: policies.index(r.policy), np.int64),
            versions=_column(rows, lambda r: r.version, np.int64),
        )


def _column(rows: list[_Row], of: Callable[[_Row], object], dtype: type[np.generic]) -> NDArray[Any]:
    return np.array([of(row) for row in rows], dtype=dtype)


def _start_empty() -> None:
    """See a fork, in the child."""
    for recorder in list(_alive):
        recorder._lock = threading.Lock()
        recorder.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_empty)
