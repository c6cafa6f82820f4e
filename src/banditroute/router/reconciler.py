"""Brings a server to the set that is wanted, one adapter at a time, and tells what is true there."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import inf
from typing import Any

from banditroute._core import validation as check
from banditroute._core.calls import Outcome
from banditroute._core.typing import Clock
from banditroute.records import AdapterBackend, Capabilities
from banditroute.router.adapters import Action, Adapters, Pause, Progress
from banditroute.router.backends import CarryOut, as_backend
from banditroute.router.conversation import Conversation
from banditroute.router.picture import Picture

__all__ = ["Reconciler"]

FRESH = 0.1  # of the period: a new plan starts from an answer of the server that is no older
FAILURES = {
    "ensure": "load_failures", "evict": "eviction_failures", "forget": "eviction_failures", "pin": "pin_failures",
    "unpin": "pin_failures",
}  # fmt: skip


class Reconciler:
    """Brings a server to the wanted set step by step, and tells what the server confirmed.

    Every call of the backend is made on a thread of its own within a time limit; whatever it raises is counted and
    logged once per kind. An adapter that does not load is tried again after pauses that double, and is `blocked`
    meanwhile; the place it was to have stays with what was there. An eviction is repeated until it is confirmed. The
    server is asked what it holds at the start, after `invalidate`, once a period, after a failure, after loads, and
    before a plan is carried out on older news. Where that fails too the server is away: it is tried again after pauses
    of a period at most, and no adapter is blamed.

    Parameters
    ----------
    backend : AdapterBackend or callable
        Not called before the first `step`.
    confirm : callable
        ``confirm(name, resident)``: what the server confirmed, and that a load failed. Called without a lock of ours.
    clock : callable
        Seconds; for pauses and the period.
    period_s : float
        Seconds between two looks at what the server holds.
    call_timeout_s : float
        Real seconds after which a call is left behind. Its answer counts when it comes after all.
    retry_s : float
        The first pause after a failure.
    log : logging.Logger, optional
        Where failures go.

    Raises
    ------
    ValueError, TypeError
        The backend cannot load and evict, or a time is not positive.

    Notes
    -----
    `want`, `forget`, `own` and `invalidate` return at once and may come from any thread; `step` from one
    at a time, others return at once. A `step` with nothing to do costs a look at the clock and a comparison.

    Examples
    --------
    >>> reconciler = Reconciler(lambda exchange: print(exchange.load, exchange.evict), confirm=print)
    >>> reconciler.want(["a"])
    >>> reconciler.step(), sorted(reconciler.actual)
    ('a',) ()
    a True
    (True, ['a'])
    >>> reconciler.want(["b"])
    >>> reconciler.step()
    () ('a',)
    a False
    ('b',) ()
    b True
    True
    """

    def __init__(
        self,
        backend: AdapterBackend | CarryOut,
        *,
        confirm: Callable[[str, bool], object],
        clock: Clock = time.monotonic,
        period_s: float = 10.0,
        call_timeout_s: float = 30.0,
        retry_s: float = 1.0,
        log: logging.Logger | None = None,
    ) -> None:
        self.backend = as_backend(backend)
        self._server = Conversation(self.backend, call_timeout_s, log)
        self.call_timeout_s = call_timeout_s
        self.period_s = check.finite("period_s", period_s, low=0.0, open_low=True)
        self.retry_s = check.finite("retry_s", retry_s, low=0.0, open_low=True)
        self._clock, self._adapters = clock, Adapters()
        self._away = Pause()  # of the server as a whole
        self._counts = self._server.counts
        self.picture = Picture(self.backend, self._adapters, confirm, self._server)
        self._late: deque[tuple[Action, Outcome]] = deque()
        self._asked_s = self._answered_s = -inf  # when the server was asked what it holds, and when it told
        self._due, self._news, self._closed, self._acts = -inf, False, False, True
        # Told of each load and touch, a use at the server; asked before each action: another worker may plan by now.
        self.used: Callable[[str], object] = lambda name: None
        self.allowed: Callable[[], bool] = lambda: True
        # Whether requests change what the server holds, so that the picture must be told of each; known once asked.
        self.follows_requests = False
        self.leaving: str | None = None  # asked to go at this moment: there or not, nobody can say
        self._fresh_locks()

    def _fresh_locks(self) -> None:
        self._server.begin()
        self._pid = os.getpid()
        self._lock = self.picture.lock = threading.Lock()  # of the state; not held while others are called
        self._turn = threading.Lock()

    def __repr__(self) -> str:
        """Show what is wanted and what is there."""
        own = self._adapters
        return f"Reconciler({type(self.backend).__name__}, desired={list(own.desired)}, actual={list(own.actual)})"

    # From any thread.

    def want(self, names: Iterable[str], pinned: Iterable[str] = ()) -> None:
        """Want these adapters, those `pinned` first; nothing is done before the next `step`."""
        now = self._clock()
        with self._lock:
            news = self._adapters.want(names, pinned)
            if now - self._answered_s >= FRESH * self.period_s:
                self._asked_s, news = -inf, True
            if news:
                self._wake()

    def own(self, names: Iterable[str]) -> None:
        """Say which adapters are ours: the server is rid of those that are not wanted; all others are left alone."""
        with self._lock:
            self._adapters.known.update(names)

    def forget(self, name: str) -> None:
        """Have the server drop an adapter; should one of that name be wanted again, it is loaded anew."""
        with self._lock:
            self._adapters.forget(name)
            self._wake()

    def invalidate(self) -> None:
        """Believe nothing before the server has said it: what is known may be wrong (recovery, a fork)."""
        if os.getpid() != self._pid:  # in the child of a fork no thread lives and a lock may be held for ever
            self._fresh_locks()
            self._adapters.loading.clear()
        with self._lock:
            self._asked_s = self._answered_s = -inf
            self._away = Pause()
            self._wake()
        for name in self.actual:
            self.picture.change(name, False)

    def _wake(self) -> None:
        """Have the next step do something, unless the server is away; the lock is held."""
        self._news, self._due = True, self._away.until

    @property
    def actual(self) -> frozenset[str]:
        """What the server confirmed last."""
        with self._lock:
            return frozenset(self._adapters.actual)

    @property
    def due(self) -> float:
        """When `step` has something to do, on the clock; infinite where never."""
        return self._due

    def blocked(self) -> frozenset[str]:
        """Return the adapters that will not load now: they failed and are in their pause, or their load hangs."""
        own = self._adapters
        if not own.pauses and not own.loading:
            return frozenset()
        now = self._clock()
        with self._lock:
            return own.blocked(now)

    def heard(self, name: str, resident: bool) -> bool:
        """Take over what the server told otherwise than by an answer; whether that is news."""
        news = self.picture.change(name, resident)
        if news:
            with self._lock:
                self._wake()
        return news

    def take_over(self, blocked: Mapping[str, tuple[int, float]]) -> None:
        """Go on where another worker stopped: with its pauses, and after a look at what the server holds."""
        with self._lock:
            self._adapters.take_over(blocked, self._clock())
            self._asked_s = -inf
            self._wake()

    def pauses(self) -> dict[str, tuple[int, float]]:
        """Return the failures of each adapter that will not load now, and the seconds until it is tried again."""
        with self._lock:
            return self._adapters.left(self._clock())

    @property
    def call_timeout_s(self) -> float:
        """Seconds after which a call is given up."""
        return self._server.timeout_s

    @call_timeout_s.setter
    def call_timeout_s(self, seconds: float) -> None:
        self._server.timeout_s = check.finite("call_timeout_s", seconds, low=0.0, open_low=True)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Do nothing any more; False where the step under way did not end in time. A call that hangs is left behind."""
        self._closed, self._due = True, inf
        self._server.close()
        if not self._turn.acquire(timeout=timeout_s):
            return False
        self._turn.release()
        return True

    def stats(self) -> dict[str, Any]:
        """Return counters: loads, evictions, failures of each, and what is wanted, there, blocked or hangs."""
        blocked = len(self.blocked())
        with self._lock:
            counts = self._server.counted()
            wanted, there = len(self._adapters.desired), len(self._adapters.actual)
            counts |= {"desired": wanted, "actual": there, "blocked": blocked}
        return {**counts, "hanging_calls": self._server.hanging}

    @property
    def begun(self) -> bool:
        """Whether a step has been made."""
        return self._server.able is not None

    # From the thread that plans.

    def step(self, act: bool = True) -> bool:
        """Do what is due: ask, evict, load and pin, one adapter at a time; whether the actual set changed.

        Without `act` the server is only asked what it holds: another worker brings it to the plan.
        """
        if self._clock() < self._due and act == self._acts:
            return False
        if self._closed or not self._turn.acquire(blocking=False):
            return False
        self._acts = act
        changes = self._counts["changes"]
        try:
            self._round(act)
        except (Exception, SystemExit) as error:  # of the clock, of the log
            self._server.note("step", error)
        finally:
            self.leaving = None
            self._schedule(act)
            self._server.rest()
            self._turn.release()
        return self._counts["changes"] != changes

    def _round(self, act: bool) -> None:
        with self._lock:
            self._news = False
        able = self._server.capabilities()
        self.follows_requests = able.displaces
        self._take_late(able)
        now, hanging = self._clock(), self._server.hanging
        if able.observe and now - self._asked_s >= self.period_s:
            self._look()  # where that fails, the first call that fails too shows that the server is away
        if not act:
            return
        with self._lock:
            did = Progress(n for n in self._adapters.desired if n in self._adapters.actual)
        if self._server.hanging > hanging:  # nothing else would come back either
            self._stay_away(did)
        while not (did.stop or self._closed) and self.allowed():
            with self._lock:
                action = self._adapters.next(self._clock(), did, able)
            if action is None:
                break
            self._act(action, did, able)
        if did.loaded and not did.stop and (not able.observe or self._look()):
            self._verify(did)

    def _schedule(self, act: bool) -> None:
        with self._lock:
            if self._closed:
                self._due = inf
            elif self._away.failures:
                self._due = self._away.until
            elif self._news or self._late:
                self._due = -inf
            else:
                look = self._server.able is not None and self._server.able.observe and self._adapters.known
                retry_at = self._adapters.retry_at() if act else inf
                self._due = min(retry_at, self._asked_s + self.period_s if look else inf)

    # One thing at a time.

    def _act(self, action: Action, did: Progress, able: Capabilities) -> None:
        what, name = action
        backend: Any = self.backend
        if what == "ensure":
            self._touch(did, able)
            with self._lock:
                self._adapters.asked.add(name)
        calls = {
            "ensure": lambda: backend.ensure(name),
            "evict": lambda: backend.evict(name),
            "forget": lambda: getattr(backend, "forget", backend.evict)(name),
            "pin": lambda: backend.pin(name),
            "unpin": lambda: backend.pin(name, False),
        }
        self.leaving = name if what in ("evict", "forget") else None
        outcome = self._call(action, calls[what])
        if outcome.error is None and not isinstance(outcome.value, bool):
            outcome = Outcome(error=TypeError(f"{what} must return True or False, got {outcome.value!r}"))
        if outcome.value is True:
            self._done(action, did, able)
            return
        lacks_room = what == "ensure" and outcome.error is None
        with self._lock:
            if lacks_room and self._adapters.evictable(self._clock(), did, able):
                did.crowded.add(name)
                return
        did.tried.add(action)
        self._counts[FAILURES[what]] += 1
        if outcome.error is not None:
            self._server.note(what, outcome.error)
        self._failed(action, outcome, did, able)

    def _done(self, action: Action, did: Progress, able: Capabilities) -> None:
        what, name = action
        with self._lock:
            own = self._adapters
            if what != "ensure":
                own.pauses.pop(action, None)
            if what in ("ensure", "evict"):
                own.doubtful.discard(name)
            if what in ("evict", "forget"):
                own.unpinned(name)
            if what == "pin":
                own.pinned.add(name)
                own.perhaps_pinned.discard(name)
            elif what == "unpin":
                own.unpinned(name)
            elif what == "forget":
                own.dropped(name)
            # A server that neither unloads nor tells whom it displaced: the oldest that is not wanted, it is assumed.
            blind = what == "ensure" and not able.unload and not able.observe
            victim = next((n for n in own.actual if n not in own.desired), None) if blind else None
        if what == "ensure":
            did.loaded.append(name)
            self._counts["loads"] += 1
            self.used(name)
            if victim is not None:
                self.picture.change(victim, False)
            self.picture.change(name, True)
        elif what in ("evict", "forget"):
            self._counts["evictions"] += 1
            if what == "evict":
                did.evicted.append(name)
            self.picture.change(name, False)

    def _failed(self, action: Action, outcome: Outcome, did: Progress, able: Capabilities) -> None:
        """Find out what a failure means: the server is away, the answer got lost, or the adapter is to blame."""
        what, name = action
        hung = isinstance(outcome.error, TimeoutError)
        if what == "pin" and outcome.error is not None:
            with self._lock:
                self._adapters.perhaps_pinned.add(name)
        if able.observe:
            if not self._look():
                self._stay_away(did)
                return
        elif hung:
            self._stay_away(did)
        with self._lock:
            now, refused = self._clock(), outcome.error is None
            blamed = self._adapters.blame(
                action, refused, outcome.value, now, self.retry_s, able.observe, did
            )
            if not blamed:
                self._counts["loads"] += what == "ensure"
                return
        if what in ("ensure", "evict") and not able.observe:
            self.picture.change(name, False)  # it may be there or not, and is not counted on
        if what == "ensure":
            self.picture.tell(name, False)

    def _stay_away(self, did: Progress) -> None:
        """Leave the server alone for a while: nothing that is wanted will load."""
        did.stop = True
        with self._lock:
            own = self._adapters
            tried = {action.name for action in did.tried if action.what == "ensure"}
            missing = own.desired.keys() - own.actual.keys() - tried
            self._counts["load_failures"] += len(missing)
            self._away.failed(self._clock(), self.retry_s, self.period_s)

    def _touch(self, did: Progress, able: Capabilities) -> None:
        """Mark what stays as just used, once before the loads of a step, so that a server displaces others."""
        with self._lock:
            own = self._adapters
            full = len(own.actual) >= len(own.desired)
            kept = [name for name in own.desired if name in own.actual]
        if did.touched or not able.touch or not (full or able.displaces or not able.unload):
            return
        did.touched = True
        backend: Any = self.backend
        for name in kept:
            outcome = self._server.run(partial(backend.touch, name))
            if outcome.value is True:
                self.used(name)
            else:
                self._counts["touch_failures"] += 1
                self._asked_s = -inf  # it may not be there
                if outcome.error is not None:
                    self._server.note("touch", outcome.error)
                    return

    def _call(self, action: Action, work: Callable[[], object]) -> Outcome:
        def late(outcome: Outcome) -> None:
            with self._lock:
                self._late.append((action, outcome))
                self._due = -inf

        with self._lock:
            if action.what == "ensure":
                self._adapters.loading.add(action.name)
        outcome = self._server.run(work, late)
        if not outcome.hung:
            with self._lock:
                self._adapters.loading.discard(action.name)
        return outcome

    def _take_late(self, able: Capabilities) -> None:
        """Learn from answers of calls that were left behind."""
        while self._late:
            (what, name), outcome = self._late.popleft()
            with self._lock:
                if what == "ensure":
                    self._adapters.loading.discard(name)
                elif what == "pin" and outcome.value is True:
                    self._adapters.perhaps_pinned.add(name)
            if able.observe:
                self._asked_s = -inf
            elif outcome.value is True and what in ("ensure", "evict"):
                self.picture.change(name, what == "ensure")

    # What is true.

    def _look(self) -> bool:
        """Ask the server what it holds and believe it; False where it does not say."""
        self._asked_s = self._clock()
        states = self._server.observe()
        if states is None:
            return False
        with self._lock:
            own = self._adapters
            self._counts["observations"] += 1
            self._answered_s = self._clock()
            if self._away.failures:
                self._away = Pause()
                own.forgive()
            changes = own.differences(states)
            left = ("gpu", "unknown", "host") if hasattr(self.backend, "forget") else ("gpu", "unknown")
            for name in [name for name in own.forgotten if states.get(name, "disk") not in left]:
                own.dropped(name)
        for name, resident in changes:
            self.picture.change(name, resident)
        return True

    def _verify(self, did: Progress) -> None:
        """Blame loads that the server denies, and what own loads displaced: there is no room for all that is wanted."""
        with self._lock:
            self._counts["load_failures"] += self._adapters.verify(did, self._clock(), self.retry_s)
