"""Maintenance: plans residency without holding up the request path."""

import threading
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core.kernels import layout
from banditroute._core.typing import Floats
from banditroute.policies import LinearPolicy, Policy
from banditroute.residency import Controller
from banditroute.router.reconciler import Reconciler

__all__ = ["Maintenance", "frozen_utilities"]

HELD = 32_768  # numbers copied while the lock is held: some 20 microseconds
ROWS = 8  # contexts scored while the lock is held, for policies that cannot be copied
CATCH_UP = 16  # rounds of observing what came meanwhile without the lock, before the rest is observed with it
RETRY = 1000  # decisions between attempts at a plan that raised


class Maintenance:
    """Plans the residency of a Router, one plan at a time, with its lock held only to look and to change.

    While a plan is computed the controller belongs to it: requests are remembered in `waiting` instead of observed,
    and nothing is forced or inserted. The controller catches up before the plan takes effect, at once or, with a
    backend, arm by arm as that confirms.

    Parameters
    ----------
    router : Router
        With residency. With maintenance="background" a thread makes the plans when it is woken.

    Examples
    --------
    >>> from banditroute import LinUCB, Polar, Router
    >>> router = Router(LinUCB(3, 2, rng=0), residency=Polar(1, epoch=2), paging=0.1, maintenance="manual")
    >>> decisions = [router.select([1.0, 0.0]) for _ in range(2)]
    >>> router.maintain(), router.maintain()  # due after two decisions, then no longer
    (True, False)
    """

    def __init__(self, router: Any) -> None:
        self.waiting: list[tuple[int, Floats, bool]] | None = None
        self.failures = self.load_failures = 0
        self.error: Exception | None = None
        self._router, self._lock = router, router._lock
        self._controller: Controller = router.residency
        self.reconciler: Reconciler | None = None
        self.desired: Any = None
        if router.backend is not None:
            self.reconciler = Reconciler(router.backend, confirm=router.confirm, clock=router._clock)
            self.reconciler.own(router.policy.arms)
        self._turn = threading.Lock()
        self._planner: int | None = None  # the thread that is at a plan
        self._caught_up = threading.Condition(router._lock)
        self._woken = self._stopped = False
        self._event = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="banditroute-maintenance", daemon=True)
        if router.maintenance == "background":
            self._thread.start()

    def run(self) -> bool:
        """Make the plan that is due; False when none is, or another thread is at it."""
        if not self._turn.acquire(blocking=False):
            return False
        self._planner = threading.get_ident()
        try:
            with self._lock:
                if self._router._index < self._controller.next_plan:
                    return False
                view = self._router._view()
                resident = copy(view.resident)  # a deep copy takes ten times as long, and the lock is held
                resident.mask = resident.mask.copy()
                view = replace(view, resident=resident)
                self.waiting = []
            try:
                utilities = frozen_utilities(self._router.policy, self._lock)
                wanted = self._controller.plan(replace(view, utilities=utilities))
                self._catch_up(lambda: self._finish(wanted))
            finally:
                if self.waiting is not None:
                    self._controller.next_plan = max(self._controller.next_plan, view.clock + RETRY)
                    self._catch_up(lambda: None)
            if self.reconciler is not None:
                self.reconciler.step()
            return True
        finally:
            self._planner = None
            self._turn.release()

    @property
    def busy(self) -> bool:
        """Whether another thread is computing a plan; the lock must be held."""
        return self.waiting is not None and self._planner != threading.get_ident()

    def begin(self) -> None:
        """Want the set that the controller starts with; nothing is resident before the backend has confirmed it."""
        router = self._router
        if self.reconciler is None:
            return
        self._want(set(router._resident))
        for arm in list(router._resident):
            router._resident.follow(arm, False)
        router._reprice()

    def blocked(self) -> Any:
        if self.reconciler is None:
            return None
        blocked = self.reconciler.blocked()
        return np.array([name in blocked for name in self._router.policy.arms])

    def _want(self, wanted: set[int]) -> None:
        router = self._router
        names, pinned = router.policy.arms, router._resident.pinned
        assert self.reconciler is not None
        self.desired = np.array([a in wanted or a in pinned for a in range(len(names))])
        self.reconciler.want((names[a] for a in wanted | pinned), (names[a] for a in pinned))

    def _finish(self, wanted: set[int]) -> None:
        """Put a planned set into effect, or want it of the backend."""
        router = self._router
        if self.reconciler is not None:
            self._want(wanted)
            router._epoch += 1
            return
        loaded, _ = router._resident.replace(wanted)
        router._load_price += float(router._loads[sorted(loaded)].sum())
        router._epoch += 1
        router._reprice()

    def settle(self) -> None:
        """Wait until no plan is being computed; the lock must be held and is released meanwhile."""
        while self.busy:
            self._caught_up.wait()

    def wake(self) -> None:
        """Have the thread make the plan that is due."""
        if not self._woken:
            self._woken = True
            self._event.set()

    def stop(self) -> None:
        """Stop the thread, if there is one, after the plan it is at."""
        self._stopped = True
        self._event.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _catch_up(self, then: Callable[[], Any]) -> Any:
        """Let the controller see what it missed; the lock is held for the last few requests only."""
        for left in range(CATCH_UP, -1, -1):
            with self._lock:
                missed = self.waiting or []
                last = len(missed) <= 4 or left == 0
                self.waiting = None if last else []
                if last:
                    self._observe(missed)
                    self._caught_up.notify_all()
                    return then()
            self._observe(missed)
        raise AssertionError("the last round returns")

    def _observe(self, missed: list[tuple[int, Floats, bool]]) -> None:
        if missed:
            arms, contexts, hits = zip(*missed, strict=True)
            self._controller.observe_many(np.array(arms), np.array(contexts), np.array(hits))

    def _loop(self) -> None:
        while True:
            self._event.wait()
            self._event.clear()
            if self._stopped:
                return
            try:
                self.run()
            except Exception as error:  # a plan must not take the serving process down
                self.failures += 1
                self.error = error
            self._woken = False


def frozen_utilities(policy: Policy, lock: Any) -> Callable[[ArrayLike], tuple[Floats, Floats]]:
    """Return a stand-in for ``policy.utilities`` that does not hold the lock for long.

    Parameters
    ----------
    policy : Policy
        A linear policy is copied as it is now, a few arms at a time; any other one is asked later, a few contexts at a
        time, and may learn in between.
    lock : RLock
        Guards the policy.

    Returns
    -------
    callable
        ``utilities(contexts (n, dim)) -> (mean, bonus)``, two (n, k) arrays.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = LinUCB(2, 3)
    >>> frozen_utilities(policy, threading.RLock())(np.eye(3))[1].shape
    (3, 2)
    """
    if not isinstance(policy, LinearPolicy):

        def utilities(contexts: ArrayLike) -> tuple[Floats, Floats]:
            rows = np.asarray(contexts)
            parts = []
            for at in range(0, len(rows), ROWS):
                with lock:
                    parts.append(policy.utilities(rows[at : at + ROWS]))
            if not parts:
                return policy.utilities(rows)
            mean, bonus = zip(*parts, strict=True)
            return np.concatenate(mean), np.concatenate(bonus)

        return utilities
    live = policy.buffer
    frozen = object.__new__(type(policy))
    frozen.__dict__.update(policy.__dict__)
    frozen.buffer = np.zeros_like(live)
    start, stop, pack = int(live[layout.H_COV]), int(live[layout.H_GRAM]), int(live[layout.H_PACK])
    with lock:
        frozen.buffer[:start] = live[:start]  # header and means
    step = max(1, HELD // pack) * pack  # whole arms: half of one width and half of another is neither
    for at in range(start, stop, step):
        with lock:
            frozen.buffer[at : min(at + step, stop)] = live[at : min(at + step, stop)]
    return frozen.utilities
