"""Maintenance: plans residency without holding up the request path."""

import threading
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core.typing import Floats
from banditroute.policies import Policy, Utilities
from banditroute.residency import AdapterBackend, Controller, Exchange, apply, exchange

__all__ = ["Maintenance", "frozen_utilities"]

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
            plan = None
            try:
                frozen = frozen_utilities(self._router.policy, self._lock)
                wanted = self._controller.plan(replace(view, scores=frozen, alpha=1.0))
                plan = self._catch_up(lambda: self._finish(wanted))
            finally:
                if self.waiting is not None:
                    self._controller.next_plan = max(self._controller.next_plan, view.clock + RETRY)
                    self._catch_up(lambda: None)
            if plan is not None:
                self.hand_over(plan)
            return True
        finally:
            self._planner = None
            self._turn.release()

    @property
    def busy(self) -> bool:
        """Whether another thread is computing a plan; the lock must be held."""
        return self.waiting is not None and self._planner != threading.get_ident()

    def begin(self) -> None:
        """Have the backend load the set that the controller starts with; what fails is not resident."""
        router = self._router
        if router.backend is None:
            return
        first = list(router._resident)
        for arm in first:
            router._resident.evict(arm)
        router._reprice()
        self.hand_over(exchange((), (router.policy.arms[a] for a in first)))
        router._resident.page_ins = router._resident.evictions = router._epoch = 0
        router._load_price = 0.0

    def hand_over(self, plan: Exchange) -> None:
        """Have the backend carry out a plan; the set changes as it confirms. Takes as long as the loads do."""
        router = self._router
        if isinstance(router.backend, AdapterBackend):
            failed = apply(plan, router.backend, router.confirm)
        else:
            answer = router.backend(plan)
            failed = () if answer is None else tuple(set(plan.load) - set(answer))
            with self._lock:
                for name in plan.evict:
                    router.confirm(name, False)
                for name in plan.load:
                    if name not in failed:
                        router.confirm(name, True)
        with self._lock:
            self.load_failures += len(failed)
            router._epoch += 1

    def _finish(self, wanted: set[int]) -> Exchange | None:
        """Put a planned set into effect, or return what the backend has to do for it."""
        router = self._router
        if router.backend is None:
            loaded, _ = router._resident.replace(wanted)
            router._load_price += float(router._loads[sorted(loaded)].sum())
            router._epoch += 1
            router._reprice()
            return None
        arms, pinned = router.policy.arms, router._resident.pinned
        return exchange((arms[a] for a in router._resident), (arms[a] for a in wanted | pinned))

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


def frozen_utilities(policy: Policy, lock: threading.RLock) -> Callable[[ArrayLike], Utilities]:
    """Return a stand-in for ``policy.utilities`` that does not hold the lock for long.

    Parameters
    ----------
    policy : Policy
        Copied as it is now, a slice at a time.
    lock : RLock
        Guards the policy.

    Returns
    -------
    callable
        ``utilities(contexts (n, dim)) -> (mean, bonus)``, two (n, k) arrays.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> frozen_utilities(LinUCB(2, 3), threading.RLock())(np.eye(3)).bonus.shape
    (3, 2)
    """
    slices = policy.freeze()
    while True:
        with lock:
            found = next(slices)
        if found is not None:
            return found
