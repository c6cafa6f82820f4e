"""Plans residency without holding up the request path."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf
from typing import Any, Literal

import numpy as np

from banditroute._core.background import Background
from banditroute._core.typing import Floats
from banditroute.policies import Choice
from banditroute.records import AdapterBackend
from banditroute.residency import View
from banditroute.router import forcing
from banditroute.router.backends import CarryOut
from banditroute.router.parts import RouterParts
from banditroute.router.reconciler import Reconciler
from banditroute.router.residence import Residence
from banditroute.router.shared_planning import SharedPlanning
from banditroute.router.views import frozen_utilities, viewed

__all__ = ["Planner", "Where"]

log = logging.getLogger("banditroute.router")

Where = Literal["inline", "background", "manual"]
CATCH_UP = 16  # rounds of observing what came meanwhile without the lock, before the rest is observed with it
RETRY = 1000  # decisions between attempts at a plan that raised
LOOK_S = 0.25  # between looks of the thread at what the server holds
JOIN_S = 5.0  # after a recovery, before a worker that has not joined again takes the server for its own


class Planner:
    """Plans the residency of a Router, one plan at a time, with its lock held only to look and to change.

    While a plan is computed the controller belongs to it: requests are remembered in `waiting` instead of observed,
    and nothing is forced or inserted. The controller catches up before the plan takes effect. A controller that raises
    costs the plan, which is counted and tried again `RETRY` decisions later; the old set serves on. With a server the
    plan is what is wanted of it, and the reconciler brings it there.

    Parameters
    ----------
    parts : RouterParts
        With residence.
    where : "inline", "background" or "manual"
        "background": a thread makes the plans when it is woken.
    backend : AdapterBackend or callable, optional
        The server, for a reconciler.

    Examples
    --------
    >>> from banditroute import LinUCB, Polar, Router
    >>> router = Router(LinUCB(3, 2, rng=0), residency=Polar(1, epoch=2), paging=0.1, maintenance="manual")
    >>> decisions = [router.select([1.0, 0.0]) for _ in range(2)]
    >>> router.maintain(), router.maintain()  # due after two decisions, then no longer
    (True, False)
    """

    __slots__ = (
        "_books", "_caught_up", "_free_s", "_own", "_parts", "_planner", "_residence", "_thread", "_turn", "error",
        "failures", "reconciler", "shared", "waiting", "where",
    )  # fmt: skip

    def __init__(
        self,
        parts: RouterParts,
        residence: Residence,
        where: Where,
        backend: AdapterBackend | CarryOut | None = None,
    ) -> None:
        self._parts, self._residence, self.where = parts, residence, where
        self._books = parts.books
        self.reconciler: Reconciler | None = None
        self.waiting: list[tuple[int, Floats, bool]] | None = None
        self.failures = 0
        self.error: BaseException | None = None
        self.shared: SharedPlanning | None = (
            None  # with the other workers of the server, once the Router has joined
        )
        self._own = True  # whether what is confirmed was brought about here
        self._free_s = -inf  # a worker that was one of several waits so long for its `share`
        self._turn = threading.Lock()
        self._planner: int | None = None  # the thread that is at a plan
        self._caught_up = threading.Condition(parts.lock)
        if backend is not None:
            self.reconciler = Reconciler(backend, confirm=self._confirmed, clock=parts.books.clock)
            self.reconciler.own(parts.arms.names)
            self.reconciler.want(*residence.wanted())
            if where == "inline":
                self._begin_soon(self.reconciler)
        self._thread = self._background()

    def _begin_soon(self, reconciler: Reconciler, delay_s: float = 0.02) -> None:
        """Make the first step on a thread of its own, unless a request has by then: adapters load before any comes."""

        def begin() -> None:
            if time.monotonic() < self._free_s:
                return
            if not reconciler.begun:
                reconciler.step(act=self.leads())
            starter.close(0.0)

        starter = Background("first-loads", begin, period_s=delay_s, log=log)
        starter.start()

    # Several workers.

    def share(self, shared: SharedPlanning | None) -> None:
        """Plan for all workers of the server, or follow the one that does; None: this one is alone."""
        self.shared, self._free_s = shared, -inf
        if shared is None and self.reconciler is not None:
            self.reconciler.used, self.reconciler.allowed = lambda name: None, lambda: True
        self._parts.books.due = 0.0

    def hold(self) -> None:
        """Leave the server alone for a while: this worker is about to `share` it."""
        self._free_s = time.monotonic() + JOIN_S

    def leads(self) -> bool:
        """Whether this worker plans, and brings the server to its plan."""
        return self.shared is None or self.shared.leads()

    def due_at(self) -> float:
        """Return the index of the decision before which the request path has to call `upkeep`; infinite for never."""
        if self.every_request:
            return 0.0
        if not self.leads():
            return inf
        at = self._next_plan()
        # The thread that was woken, or who calls `maintain`, may be long at a load: not every request asks again.
        return inf if self.where != "inline" and at <= self._books.index else at

    def _next_plan(self) -> float:
        """Return the index of the decision before which a plan is due; the controller counts those of others too."""
        return self._residence.controller.next_plan - self._parts.books.heard

    def followed(self, names: Iterable[str]) -> None:
        """See requests that others sent, in this order, at a server that displaces; the lock must be held."""
        if self.reconciler is not None:
            self._own = False
            try:
                self.reconciler.picture.followed(names)
            finally:
                self._own = True

    def heard(self, name: str, resident: bool, own: bool = True) -> bool:
        """Learn from outside, or from another worker, that an arm is resident; whether that was news."""
        with self._parts.lock:
            self._own = own
            try:
                if self.reconciler is not None:
                    news = self.reconciler.heard(name, resident)
                else:
                    news = self._residence.confirm(name, resident, own)
            finally:
                self._own = True
            if own and news and self.shared is not None:
                self.shared.news(name, resident)
            return news

    def _confirmed(self, name: str, resident: bool) -> None:
        with self._parts.lock:
            desired = self._residence.desired
            changes = desired.page_ins + desired.evictions
            self._residence.confirm(name, resident, self._own)
            if desired.page_ins + desired.evictions != changes:
                self.wanted()
        if self.shared is not None:
            self.shared.changed()

    def _background(self) -> Background:
        period_s = None if self.reconciler is None else LOOK_S
        thread = Background("planner", self._round, period_s=period_s, log=log)
        if self.where == "background":
            thread.start()
        return thread

    def after_fork(self) -> None:
        """Begin anew in a forked child: no plan is under way and no thread lives."""
        self.waiting, self._planner, self._residence.later = None, None, None
        self._turn = threading.Lock()
        self._caught_up = threading.Condition(self._parts.lock)
        self._thread = self._background()
        if self.reconciler is not None:
            self.reconciler.invalidate()
        if self.shared is not None:
            self.share(self.shared.again())

    @property
    def busy(self) -> bool:
        """Whether another thread is computing a plan; the lock must be held."""
        return self.waiting is not None and self._planner != threading.get_ident()

    def is_busy(self) -> bool:
        """As `busy`."""
        return self.busy

    def settle(self) -> None:
        """Wait until no plan is being computed; the lock must be held and is released meanwhile."""
        while self.busy:
            self._caught_up.wait(1.0)

    def idle(self) -> bool:
        """Whether `upkeep` would do nothing; the lock must be held."""
        if self.reconciler is not None or self.shared is not None:
            return False
        return self._parts.books.index < self._next_plan()

    def upkeep(self) -> None:
        """Do what is due before a request, with the lock held: plan in line, or wake the thread."""
        if self._parts.books.index >= self._next_plan() and self.leads():
            if self.where == "background":
                self._thread.wake()
            elif self.where == "inline":
                self._guarded(self._plan)
        if self.where == "inline":
            self.reconcile()
            if self.shared is not None:
                self.shared.turned(idle=True)

    def run(self) -> bool:
        """Make the plan that is due, and go a step towards it; False when no plan is due or another thread is at it."""
        return bool(self._guarded(self._turned))

    def _guarded(self, work: Callable[..., object], *arguments: object) -> object:
        """Call what may raise anything on the thread of a request; an interrupt of the user goes on its way."""
        try:
            return work(*arguments)
        except (Exception, SystemExit) as error:
            log.error("a plan or its loads raised %s: %s", type(error).__name__, error)
            return None

    def _round(self) -> None:
        if time.monotonic() >= self._free_s:
            self._turned()

    def _turned(self) -> bool:
        """Plan if that is due, and go a step towards the plan; a worker that follows another only looks."""
        shared = self.shared
        if shared is not None:
            shared.turned(idle=False)
        try:
            made = self.leads() and self._plan()
        finally:
            self.reconcile()
            if shared is not None:
                shared.turned(idle=True)
        return made

    @property
    def every_request(self) -> bool:
        """Whether each request has to look whether the reconciler is due: in line, with a server."""
        return self.reconciler is not None and self.where == "inline"

    def reconcile(self) -> None:
        """Go a step towards the desired set; whatever a backend does, nothing is raised."""
        if self.reconciler is not None:
            self._guarded(self.reconciler.step, self.leads())

    def served(
        self, context: Floats, effective: Floats | None, choice: Choice, protected: bool
    ) -> tuple[int, float, bool, bool]:
        """Let the controller see the choice, force another, and make room; returns arm, propensity, hit, forced.

        The lock must be held.
        """
        arm, propensity = choice
        residence, reconciler, forced = self._residence, self.reconciler, False
        if self.waiting is not None:  # the controller is busy with a plan
            hit = self._there(arm)
            self.waiting.append((arm, context, hit))
            self.sent(arm, context, hit)
            return arm, propensity, hit, False
        controller = residence.controller
        if controller.rate > 0.0 and not protected:
            parts = self._parts
            offers = np.zeros(len(parts.arms)) if effective is None else effective
            try:
                arm, propensity, forced = forcing.forced(parts.policy, controller, context, offers, choice)
            except (Exception, SystemExit) as error:
                self.failed(error)
            parts.books.forced += forced
        hit = residence.actual.mask.item(arm) if reconciler is None else self._there(arm)
        try:
            controller.observe(arm, context, hit)
            if not hit and controller.inserts and self.inserts(arm) and residence.insert(arm):
                self.wanted()
        except (Exception, SystemExit) as error:
            self.failed(error)
        if reconciler is not None or self.shared is not None:
            self.sent(arm, context, hit)
        books = self._books
        if controller.next_plan - books.heard < books.due:
            books.due = min(books.due, self.due_at())
        return arm, propensity, hit, forced

    def failed(self, error: BaseException) -> None:
        """Count what the controller raised at a request, which stands; logged once for each kind."""
        if type(error) is not type(self.error):
            log.error("the controller raised %s: %s; the request stands", type(error).__name__, error)
        self.failures += 1
        self.error = error

    def _there(self, arm: int) -> bool:
        """Whether the server has an arm, by all that it confirmed; what it is just evicting does not count."""
        there = self._residence.actual.mask.item(arm)
        if there and self.reconciler is not None and self.reconciler.leaving is not None:
            return self.reconciler.leaving != self._parts.arms.names[arm]
        return there

    def inserts(self, arm: int) -> bool:
        """Whether a fault may have this arm loaded: not at a server that does so itself, nor what will not load now."""
        reconciler = self.reconciler
        if not self.leads():  # the one that plans hears of the fault
            return False
        if reconciler is None:
            return True
        return not (reconciler.follows_requests or self._parts.arms.names[arm] in reconciler.blocked())

    def blocked(self) -> frozenset[str]:
        """Return the arms that will not load now."""
        return frozenset() if self.reconciler is None else self.reconciler.blocked()

    def sent(self, arm: int, context: Floats, hit: bool) -> None:
        """Follow a request to a server that displaces by requests, and tell the other workers of it."""
        name, reconciler = self._parts.arms.names[arm], self.reconciler
        if reconciler is not None and reconciler.follows_requests:
            reconciler.picture.served(name)
        if self.shared is not None:
            self.shared.sent(name, context, hit)

    def recovered(self, alone: bool = True) -> None:
        """Assert a recovered set at the server, whatever it holds; one worker of several waits for its `share`."""
        if self.reconciler is not None:
            if not alone:
                self.hold()
            self.reconciler.invalidate()
            self.wanted()
            if alone:
                self.reconcile()

    def unload(self, name: str) -> None:
        """Have the server unload an arm that was removed; the worker that plans does so."""
        if self.reconciler is not None:
            if self.leads():
                self.reconciler.forget(name)
            self.wanted()

    def wake(self) -> None:
        """Have the thread look, where there is one."""
        if self.where == "background":
            self._thread.wake()

    def wanted(self) -> None:
        """Tell the reconciler that the desired set has changed."""
        if self.reconciler is not None:
            self.reconciler.own(self._parts.arms.names)
            self.reconciler.want(*self._residence.wanted())
            self._parts.books.due = 0.0
            if self.where == "background":
                self._thread.wake()

    def let_go(self) -> None:
        """Call the server no more, and wait no longer for a call that is under way; without the lock."""
        if self.reconciler is not None:
            self.reconciler.close(0.0)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Stop the thread and the reconciler; False where one of them did not end in time."""
        if self.shared is not None:
            self.shared.close(timeout_s)
        # The reconciler first: it lets go of a call that hangs, so that the thread can end.
        ended = self.reconciler is None or self.reconciler.close(timeout_s)
        return self._thread.close(timeout_s) and ended

    def stats(self) -> dict[str, Any]:
        """Return counters of plans, and of the reconciler where there is one."""
        own: dict[str, Any] = {"plan_failures": self.failures, "load_failures": 0}
        if self.shared is not None:
            own |= self.shared.stats()
        if self.reconciler is not None and self.reconciler.follows_requests:
            own["passed_through"] = 0  # the server takes in what is asked for: a load, and counted as such
        return own if self.reconciler is None else {**own, **self.reconciler.stats()}

    def _plan(self) -> bool:
        if not self._turn.acquire(blocking=False):
            return False
        self._planner = threading.get_ident()
        try:
            return self._planned()
        finally:
            self._planner = None
            self._turn.release()

    def _planned(self) -> bool:
        parts, controller = self._parts, self._residence.controller
        with parts.lock:
            if parts.books.index + parts.books.heard < controller.next_plan:
                return False
            view = self._view()
            self.waiting, self._residence.later = [], []
        try:
            utilities = frozen_utilities(parts.policy, parts.lock)
            wanted = controller.plan(replace(view, utilities=utilities))
            self._catch_up(lambda: self._take_up(wanted))
        except BaseException as error:
            self.failures += 1
            self.error = error
            raise
        finally:
            if self.waiting is not None:
                controller.next_plan = max(controller.next_plan, view.clock + RETRY)
                self._give_up()
        return True

    def _view(self) -> View:
        blocked, elsewhere = self.blocked(), [] if self.shared is None else self.shared.eligible()
        return viewed(self._parts, self._residence, blocked, elsewhere)

    def _take_up(self, wanted: set[int]) -> None:
        """Put a planned set into effect, or have the reconciler bring it about."""
        self._residence.replace(wanted)
        self._parts.books.epoch += 1
        self.wanted()

    def _catch_up(self, then: Callable[[], None]) -> None:
        """Let the controller see what it missed; the lock is held for the last few requests only."""
        for left in range(CATCH_UP, -1, -1):
            with self._parts.lock:
                missed = self.waiting or []
                last = len(missed) <= 4 or left == 0
                if last:
                    self._observe(missed)
                    then()
                    self.waiting = None
                    self._residence.catch_up()
                    self._parts.books.due = 0.0
                    self._caught_up.notify_all()
                    return
                self.waiting = []
            self._observe(missed)
        raise AssertionError("the last round returns")

    def _give_up(self) -> None:
        """End a plan that failed, whatever the controller raises on the way: nobody may wait for it for ever."""
        with self._parts.lock:
            missed, self.waiting = self.waiting or [], None
            try:
                self._observe(missed)
                self._residence.catch_up()
            finally:
                self._residence.later = None
                self._parts.books.due = 0.0
                self._caught_up.notify_all()

    def _observe(self, missed: list[tuple[int, Floats, bool]]) -> None:
        if missed:
            arms, contexts, hits = zip(*missed, strict=True)
            self._residence.controller.observe_many(np.array(arms), np.array(contexts), np.array(hits))
