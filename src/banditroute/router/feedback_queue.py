"""Learning off the request path: feedback goes through a bounded queue to a thread, past a gate."""

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from banditroute._core import validation as check
from banditroute._core.background import Background
from banditroute._core.typing import Rng
from banditroute.policies.base import LARGEST
from banditroute.router.ledger import decision_key
from banditroute.router.router import Router

__all__ = ["FeedbackQueue", "Measurement"]

Measurement = tuple[int, float]  # decision id, reward
Gate = Callable[[int, float], bool]


log = logging.getLogger("banditroute.feedback")
_alive: "weakref.WeakSet[FeedbackQueue]" = weakref.WeakSet()


class FeedbackQueue:
    """A thread that feeds a Router with rewards, so that whoever reports one does not wait for it to be learned.

    Parameters
    ----------
    router : Router
        Learns; it takes feedback from any thread, late and in any order.
    gate : callable, optional
        ``gate(decision_id, reward) -> bool``: whether the measurement is valid. Judge how it was made (the judge timed
        out, the answer was cut off), never how it came out: dropping low rewards makes every arm look good.
    sample_rate : float
        In (0, 1]: share of the measurements that is learned, drawn at random whatever they say.
    max_size : int
        Measurements that may wait; one more is refused.
    rng : int, SeedSequence, Generator or None
        Source of the sampling; one number per `put`.

    Notes
    -----
    Source: AMRO-S (arXiv 2603.12933), read in a summary (equation numbers not checked against the text): serving never
    writes, a sampled share of feedback is judged and learned in the background. Its gate lets good answers through
    only, which is right for pheromones and selection bias for a regression; this one must not. Policies keep sums over
    feedback, so the result is that of synchronous learning of the same measurements, whatever order they were learned
    in. Estimated scales and the pooled prior follow the moments at which they were refreshed: equal in the end only
    after `LinearPolicy.refresh`.

    A forked child has a queue, a thread and counts of its own; what waits and what `rng` draws next stay the parent's.

    A full queue refuses instead of blocking, and counts what it refused: an overloaded learner must not slow requests.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> router = Router(LinUCB(2, 1, rng=0))
    >>> with FeedbackQueue(router) as queue:
    ...     for _ in range(100):
    ...         decision = router.select([1.0])
    ...         accepted = queue.put(decision.id, 1.0)
    >>> queue.stats()["learned"]
    100
    """

    def __init__(
        self,
        router: Router,
        *,
        gate: Gate | None = None,
        sample_rate: float = 1.0,
        max_size: int = 10_000,
        rng: Rng = None,
    ) -> None:
        self.router = router
        self.gate = gate
        self.sample_rate = check.finite("sample_rate", sample_rate, low=0.0, high=1.0, open_low=True)
        self.max_size = check.integer("max_size", max_size, low=1)
        self._rng = np.random.default_rng(rng)
        self._closed = False
        self._begin()
        _alive.add(self)

    def _begin(self) -> None:
        self._waiting: deque[Measurement] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._counts = dict.fromkeys(("learned", "dropped", "invalid", "failed", "refused", "skipped"), 0)
        self._thread = Background("feedback", self._round, log=log)
        self._thread.start()

    def __repr__(self) -> str:
        """Show how much waits and what became of the rest."""
        return f"FeedbackQueue(waiting={len(self._waiting)}, learned={self._counts['learned']})"

    def put(self, decision_id: int | str, reward: float) -> bool:
        """Hand over one measurement; returns at once, False when it was refused (full) or left out by sampling.

        Raises
        ------
        ValueError, TypeError
            Not a finite reward, or the queue is closed; nothing changed.
        """
        key = decision_key(decision_id)
        value = check.finite("reward", reward, low=-LARGEST, high=LARGEST)
        with self._changed:
            if self._closed:
                raise ValueError("queue must be open, got one that was closed")
            if self._rng.random() >= self.sample_rate:
                self._counts["skipped"] += 1
                return False
            if len(self._waiting) >= self.max_size:
                self._counts["refused"] += 1
                return False
            self._waiting.append((key, value))
        self._thread.wake()
        return True

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything handed over has been learned; False when the time was over first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout_s)

    def close(self, timeout_s: float = 10.0) -> bool:
        """Learn what waits and end the thread; `put` raises from here on. False where the time was over first."""
        with self._changed:
            self._closed = True
        done = self.flush(timeout_s)
        return self._thread.close(timeout_s) and done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stats(self) -> dict[str, int]:
        """Count measurements learned, dropped by the router, invalid, failed (an error), refused, skipped, waiting."""
        with self._changed:
            return {**self._counts, "waiting": len(self._waiting) + self._busy}

    def _round(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    return
                key, reward = self._waiting.popleft()
                self._busy = True
            outcome = ["failed"]
            self._thread.guard(partial(self._judge, key, reward, outcome))
            with self._changed:
                self._counts[outcome[-1]] += 1
                self._busy = False
                self._changed.notify_all()

    def _judge(self, key: int, reward: float, outcome: list[str]) -> None:
        if self.gate is not None and not self.gate(key, reward):
            outcome.append("invalid")
        else:
            outcome.append("learned" if self.router.update(key, reward) else "dropped")

    def begin_again(self) -> None:
        """Begin anew in a forked child, with other random numbers than the parent will draw."""
        if not self._closed:
            self._rng = np.random.default_rng()
            self._begin()


def _begin_again() -> None:
    """See a fork, in the child."""
    for queue in list(_alive):
        queue.begin_again()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_again)
