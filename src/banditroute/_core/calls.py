"""Calls that may hang or raise anything: each runs on a thread that is left behind when it takes too long."""

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from banditroute._core.background import Background

__all__ = ["LimitedCalls", "Outcome"]


class Outcome(NamedTuple):
    """What became of a call: its value, or the exception that it raised; ``hung`` when it was left behind.

    Examples
    --------
    >>> Outcome(3).error is None
    True
    """

    value: object = None
    error: BaseException | None = None
    hung: bool = False


class _Call:
    """One call: what to do, whom to tell should it end late, and what became of it."""

    __slots__ = ("begun", "done", "late", "left", "outcome", "work")

    def __init__(self, work: Callable[[], object], late: Callable[[Outcome], object] | None) -> None:
        self.work, self.late = work, late
        self.done = threading.Event()
        self.begun = self.left = False
        self.outcome = Outcome()


class LimitedCalls:
    """Makes one call after another, each within a time limit.

    A call that takes longer goes on alone and the next one gets a fresh thread, so nothing waits for it. There is a
    thread while calls are made; `rest` ends it.

    Parameters
    ----------
    name : str
        Of the threads.
    most : int
        Calls that may hang at a time: beyond it a call is refused at once, as one that hung.
    log : logging.Logger, optional
        Where errors outside the calls go.

    Examples
    --------
    >>> calls = LimitedCalls("example")
    >>> calls.run(lambda: 1 + 1, limit_s=5.0)
    Outcome(value=2, error=None, hung=False)
    >>> calls.run(lambda: {}["a"], limit_s=5.0)
    Outcome(value=None, error=KeyError('a'), hung=False)
    >>> calls.rest()
    """

    def __init__(self, name: str, *, most: int = 8, log: logging.Logger | None = None) -> None:
        self._name, self._most, self._log = name, most, log
        self._lock = threading.Lock()
        self._runner: Background | None = None
        self._hanging: set[_Call] = set()
        self._current: _Call | None = None
        self._closed = False

    @property
    def hanging(self) -> int:
        """Calls that were left behind and have not come back."""
        return len(self._hanging)

    def run(
        self, work: Callable[[], object], limit_s: float, late: Callable[[Outcome], object] | None = None
    ) -> Outcome:
        """Call ``work`` and wait for it, ``limit_s`` seconds at most; from one thread at a time.

        `late` is told the outcome, on the thread of the call, should it come after that.
        """
        call = _Call(work, late)
        with self._lock:
            if self._closed:
                return Outcome(error=TimeoutError("no calls are made any more"))
            if len(self._hanging) >= self._most:
                return Outcome(error=TimeoutError(f"{len(self._hanging)} calls hang already"))
            self._current = call
            if self._runner is None:
                self._runner = Background(self._name, self._work, log=self._log)
                self._runner.start()
            runner = self._runner
        runner.wake()
        call.done.wait(limit_s)
        with self._lock:
            if not call.done.is_set():
                self._leave(call, TimeoutError(f"no answer within {limit_s:g} s"))
            self._current = None
            return call.outcome

    def rest(self) -> None:
        """Let the thread end; the next call starts another."""
        with self._lock:
            if self._runner is not None:
                self._runner.close(0.0)
                self._runner = None

    def close(self) -> None:
        """Refuse further calls and leave the one under way behind, so that who waits for it goes on."""
        with self._lock:
            self._closed = True
            if self._current is not None and not self._current.done.is_set():
                self._leave(self._current, TimeoutError("closed"))
        self.rest()

    def _leave(self, call: _Call, error: TimeoutError) -> None:
        """Stop waiting for a call; one that no thread has begun yet is not made any more. The lock is held."""
        call.left, call.outcome = True, Outcome(error=error, hung=call.begun)
        if call.begun:
            self._hanging.add(call)
        if self._runner is not None:
            self._runner.close(0.0)
            self._runner = None
        call.done.set()

    def _work(self) -> None:
        with self._lock:
            call = self._current
            if call is None or call.begun or call.left:
                return
            call.begun = True
        try:
            outcome = Outcome(call.work())
        except BaseException as error:  # whatever it is, it is the outcome
            outcome = Outcome(error=error)
        with self._lock:
            left = call.left
            self._hanging.discard(call)
            if not left:
                call.outcome = outcome
                call.done.set()
        if left and call.late is not None:
            call.late(outcome)
