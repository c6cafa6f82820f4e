"""Runs in the compiled loop: Python is there between plans, and at faults for controllers that insert."""

import numpy as np
from numpy.typing import NDArray

from banditroute._core.kernels import loop
from banditroute._core.typing import Floats
from banditroute.policies import Compiled, Policy
from banditroute.policies.base import LARGEST
from banditroute.residency import Controller, ResidentSet, View
from banditroute.simulation.run import Run, feedback_order
from banditroute.simulation.stream import Problem, Stream

__all__ = ["CompiledRun"]

NEVER = np.iinfo(np.int64).max
NONE: Floats = np.zeros(0)


class CompiledRun:
    """One run over a stream, stretch by stretch: equal to a `Router`'s, decision for decision.

    Parameters
    ----------
    policy : Policy
    handle : Compiled
        Of the policy.
    stream : Stream
    problem : Problem, optional
        With a controller.
    controller : Controller, optional
    protected : (T,) or (0,) bool array
        Requests on which nothing may be forced.
    """

    def __init__(
        self,
        policy: Policy,
        handle: Compiled,
        stream: Stream,
        problem: Problem | None,
        controller: Controller | None,
        protected: NDArray[np.bool_],
    ) -> None:
        count = len(stream.arms)
        if np.abs(stream.rewards).max() > LARGEST:
            largest = np.abs(stream.rewards).max()
            raise ValueError(f"problem must have rewards in [-{LARGEST:g}, {LARGEST:g}], got {largest:g}")
        self.policy, self.handle, self.stream = policy, handle, stream
        self.problem, self.controller, self.protected = problem, controller, protected
        self.run = Run(len(stream))
        self.resident: ResidentSet | None = None
        self.faults, self.pending = np.zeros(count), np.zeros(count)
        policy.rewind()
        if controller is not None and problem is not None:
            self.faults = problem.faults
            pinned = [policy.index(a) for a in controller.pinned]
            self.resident = ResidentSet(count, controller.capacity, sizes=problem.sizes, pinned=pinned)
            controller.begin(self.resident)
        self.mask = np.ones(count, dtype=np.bool_) if self.resident is None else self.resident.mask
        self.run.epochs.append((0, frozenset(np.flatnonzero(self.mask).tolist())))
        self.order, self.due = feedback_order(stream)
        self.available = (
            np.zeros((0, count), dtype=np.bool_) if stream.available is None else stream.available
        )
        self.cursors = np.zeros(4, dtype=np.int64)
        self.planned = 0

    def served(self) -> Run:
        """Serve the whole stream."""
        length, controller, cursors, run = len(self.stream), self.controller, self.cursors, self.run
        routing = self.faults if controller is None else self.faults + controller.surcharge
        contexts, rewards, available = self.stream.contexts, self.stream.rewards, self.available
        if not contexts.flags.carray:  # a read-only array is another type to a compiled kernel
            contexts = contexts.copy()
        if not rewards.flags.carray:
            rewards = rewards.copy()
        if not available.flags.carray:
            available = available.copy()
        offers = np.zeros(len(self.mask))
        now = 0
        while now < length:
            if controller is not None and now >= controller.next_plan:
                self._plan(controller, now)
            stop = length if controller is None else int(min(length, max(controller.next_plan, now + 1)))
            needs, noise, rate = NONE, NONE, 0.0
            if controller is not None:
                cursors[loop.C_NOISE] = controller.used
                if controller.rate > 0.0:
                    needs, noise, rate = controller.needs, controller.noise, controller.rate
            reached = loop.run(
                self.handle.buffer, contexts, rewards, routing, self.mask, available, self.order, self.due, needs,
                rate, noise, self.protected, cursors, self.pending, offers, run.arms, run.propensities, run.hits, now,
                stop, controller is not None and controller.inserts,
            )  # fmt: skip
            if controller is not None:
                controller.used = int(cursors[loop.C_NOISE])
                controller.observe_many(run.arms[now:reached], contexts[now:reached], run.hits[now:reached])
            self._attend(int(cursors[loop.C_CODE]), reached)
            now = reached
        self._learn_due(NEVER)
        run.page_ins = 0 if self.resident is None else self.resident.page_ins
        run.forced = int(cursors[loop.C_FORCED])
        return run

    def _plan(self, controller: Controller, now: int) -> None:
        """Let the controller plan, having learned what a Router would have learned by then."""
        problem, resident, run = self.problem, self.resident, self.run
        assert problem is not None and resident is not None
        self._learn_due(now)
        some = len(self.available) and now > self.planned
        offered = np.asarray(self.available[self.planned : now].any(axis=0)) if some else None
        view = View(
            clock=now, utilities=self.policy.utilities, faults=self.faults, loads=problem.loads, resident=resident,
            pending=self.pending, counts=getattr(self.policy, "counts", None), eligible_since_plan=offered,
        )  # fmt: skip
        loaded, evicted = resident.replace(controller.plan(view))
        self.planned = now
        if loaded:
            run.loads.append((now, float(problem.loads[sorted(loaded)].sum())))
        if loaded or evicted:
            if run.epochs[-1][0] == now:  # an insertion that served no request
                run.epochs.pop()
            if not run.epochs or run.epochs[-1][1] != frozenset(resident):
                run.epochs.append((now, frozenset(resident)))

    def _attend(self, code: int, reached: int) -> None:
        """Do what the loop stopped for."""
        controller, resident = self.controller, self.resident
        if code == loop.NO_POLICY_NOISE:
            self.handle.draw_noise()
        elif code == loop.REFUSED:
            self.policy.check_context(self.stream.contexts[reached])  # raises with the reason
        elif code == loop.NO_CONTROLLER_NOISE and controller is not None:
            controller.draw()
        elif code == loop.FAULT and controller is not None and resident is not None:
            arm = int(self.run.arms[reached - 1])
            victims = controller.make_room(arm, resident)
            if victims is not None:
                for victim in victims:
                    resident.evict(victim)
                self.run.inserted += resident.load(arm)
                if reached < len(self.stream):
                    self.run.epochs.append((reached, frozenset(resident)))

    def _learn_due(self, now: int) -> None:
        """Learn, outside the loop, what arrives before request `now`."""
        at = int(self.cursors[loop.C_FEEDBACK])
        while at < len(self.order) and self.due[at] <= now:
            i = int(self.order[at])
            arm = int(self.run.arms[i])
            self.policy.update(arm, self.stream.contexts[i], float(self.stream.rewards[i, arm]), at=i)
            self.pending[arm] -= 1.0
            at += 1
        self.cursors[loop.C_FEEDBACK] = at
