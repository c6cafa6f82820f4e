"""Offline runs: a policy, optionally with residency, over a stream in which every reward is known."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.kernels import loop
from banditroute._core.typing import Floats, Ints
from banditroute.logs import Trace
from banditroute.policies import Compiled, Policy
from banditroute.policies.base import LARGEST
from banditroute.residency import Controller, ResidentSet, View
from banditroute.router import Router
from banditroute.simulation.charges import RunningCosts
from banditroute.simulation.stream import Problem, Stream

__all__ = ["Run", "simulate"]


@dataclass(slots=True, eq=False)
class Run:
    """What happened: one row per request of the stream, and the residency between.

    Parameters
    ----------
    length : int
        Number of requests T.
    arms : (T,) int64
        Arm that served each request.
    propensities : (T,) float64
        Probability with which it was chosen.
    hits : (T,) bool
        Whether it was resident.
    epochs : list of (int, frozenset)
        Index of the first request served with each resident set, and the set.
    loads : list of (int, float)
        Index and price of each change of the set that cost something.
    page_ins : int
        Arms loaded: at plans, and on faults by controllers that insert.
    forced : int
        Decisions forced by the controller.
    problem : Problem or Stream, optional
        What it ran on.
    policy : str
        Name of the policy that ran.
    surcharge : float
        What the controller added to the price of routing to an arm that was not resident.

    Examples
    --------
    >>> Run(3).arms
    array([0, 0, 0])
    """

    length: int
    arms: Ints = field(init=False)
    propensities: Floats = field(init=False)
    hits: NDArray[np.bool_] = field(init=False)
    epochs: list[tuple[int, frozenset[int]]] = field(default_factory=list)
    loads: list[tuple[int, float]] = field(default_factory=list)
    page_ins: int = 0
    forced: int = 0
    problem: Problem | Stream | None = None
    policy: str = ""
    surcharge: float = 0.0

    def __post_init__(self) -> None:
        self.arms = np.zeros(self.length, dtype=np.int64)
        self.propensities = np.ones(self.length)
        self.hits = np.ones(self.length, dtype=np.bool_)

    def __len__(self) -> int:
        return self.length

    def residents(self) -> Iterator[tuple[int, int, frozenset[int]]]:
        """Yield (first, last + 1, set) of each stretch of requests with one resident set."""
        for (start, chosen), (stop, _) in zip(
            self.epochs, [*self.epochs[1:], (self.length, frozenset())], strict=True
        ):
            if stop > start:
                yield start, stop, chosen

    def to_trace(self) -> Trace:
        """Return the run as a recorder would have written it down: the reward of the arm that served, no other.

        Raises
        ------
        ValueError
            The run was not made by `simulate`.

        Examples
        --------
        >>> from banditroute import LinUCB
        >>> stream = Stream(np.eye(2), np.eye(2), np.eye(2), ("a", "b"))
        >>> trace = simulate(LinUCB(("a", "b"), 2, mix=0.2, rng=0), stream).to_trace()
        >>> trace.names, trace.contexts.tolist(), trace.versions
        (('a', 'b'), [[1.0, 0.0], [0.0, 1.0]], array([0, 1]))
        """
        if self.problem is None:
            raise ValueError("a run must know its problem to make a trace; simulate gives it one")
        stream = self.problem if isinstance(self.problem, Stream) else self.problem.stream
        rows = np.arange(len(self))
        _, due = _feedback(stream)
        columns: dict[str, Any] = {}
        if not isinstance(self.problem, Stream) and not self.hits.all():
            columns["fault_prices"] = np.tile(self.problem.faults, (len(self), 1))
            columns["prices"] = columns["fault_prices"] + self.surcharge
            for start, stop, resident in self.residents():
                for name in columns:
                    columns[name][start:stop, sorted(resident)] = 0.0
        return Trace(
            names=stream.arms,
            arms=self.arms,
            rewards=stream.rewards[rows, self.arms],
            propensities=self.propensities,
            contexts=stream.contexts,
            times=stream.arrivals,
            eligible=stream.available,
            costs=None if stream.costs is None else stream.costs[rows, self.arms],
            hits=None if isinstance(self.problem, Stream) else self.hits,
            policies=(self.policy,),
            versions=np.searchsorted(due, rows, side="right"),
            **columns,
        )

    def save(self, path: str | Path) -> Path:
        """Write the run as a trace, as `Trace.save` does.

        Examples
        --------
        >>> Run(1).save("run.npz")
        Traceback (most recent call last):
        ValueError: a run must know its problem to make a trace; simulate gives it one
        """
        return self.to_trace().save(path)


def simulate(
    policy: Policy,
    problem: Problem | Stream,
    residency: Controller | None = None,
    *,
    engine: Literal["auto", "compiled", "router"] = "auto",
    protected: ArrayLike | None = None,
    cost_price: float = 0.0,
    known_costs: bool = False,
) -> Run:
    """Run a policy over a stream, learning each reward after its delay.

    Parameters
    ----------
    policy : Policy
        Changed by the run, as a live one would be.
    problem : Problem or Stream
        A stream; a problem adds fault and load prices, capacity and sizes.
    residency : Controller, optional
        A fresh controller. Without it every request is a hit and costs nothing.
    engine : "auto", "compiled" or "router"
        The compiled loop (linear policies, unwrapped) or a real `Router`, request by request; both give the same run,
        decision for decision. "auto" takes the compiled loop where it can.
    protected : (T,) bool array, optional
        Requests on which nothing may be forced.
    cost_price : float
        What a unit of money is worth in rewards, >= 0: above 0 arms are priced by what they charge (the stream must
        have costs), and a real `Router` runs. Regret knows of rewards only; see `frontier`.
    known_costs : bool
        Price what an arm charges on this very request, as if it were known in advance; otherwise the mean of what it
        has charged so far.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        Contexts or arms of the stream do not fit the policy; nothing ran.

    Notes
    -----
    The compiled loop serves about a million requests a second at 15 arms and 32 dimensions; it returns to Python at
    each plan, and at each fault for controllers that insert.

    Examples
    --------
    >>> from banditroute import LinUCB, Polar
    >>> from banditroute.simulation.workloads import homes
    >>> problem = homes(2000, 0)
    >>> run = simulate(LinUCB(15, 10, rng=0), problem, Polar(4, epoch=500))
    >>> len(run.epochs), run.epochs[0][1] == frozenset({0, 1, 2, 3})
    (4, True)
    """
    stream = problem if isinstance(problem, Stream) else problem.stream
    if len(policy.arms) != len(stream.arms) or policy.dim != stream.dim:
        shape, wanted = (len(stream.arms), stream.dim), (len(policy.arms), policy.dim)
        raise ValueError(f"problem must have (arms, dim) = {wanted} as the policy has, got {shape}")
    if residency is not None and isinstance(problem, Stream):
        raise ValueError("problem must be a Problem with residency: a Stream has no fault prices")
    if engine not in ("auto", "compiled", "router"):
        raise ValueError(f"engine must be 'auto', 'compiled' or 'router', got {engine!r}")
    handle = None if engine == "router" else policy.compiled()
    if engine == "compiled" and handle is None:
        raise ValueError(
            f"engine 'compiled' needs a policy that can run compiled, got {type(policy).__name__}"
        )
    guard = np.zeros(0, dtype=np.bool_) if protected is None else np.array(protected, dtype=np.bool_)
    if protected is not None and guard.shape != (len(stream),):
        raise ValueError(f"protected must have shape ({len(stream)},), got {guard.shape}")
    full = problem if isinstance(problem, Problem) else None
    charges = None
    if check.finite("cost_price", cost_price, low=0.0) > 0.0:
        if stream.costs is None:
            raise ValueError("problem must have costs with cost_price, got none")
        if engine == "compiled":
            raise ValueError("engine 'compiled' knows no costs, got cost_price above 0")
        charges = RunningCosts(cost_price, stream.costs, known=known_costs)
    if handle is not None and charges is None:
        run = _compiled(policy, handle, stream, full, residency, guard)
    else:
        run = _routed(policy, stream, full, residency, guard, charges)
    run.problem, run.policy = problem, type(policy).__name__
    run.surcharge = 0.0 if residency is None else residency.surcharge
    return run


def _feedback(stream: Stream) -> tuple[Ints, Ints]:
    """Return requests in the order in which their feedback arrives, and the request before which it does."""
    due = np.arange(len(stream)) + 1 + stream.delays
    order = np.argsort(due, kind="stable")
    return order.astype(np.int64), due[order].astype(np.int64)


def _compiled(
    policy: Policy,
    handle: Compiled,
    stream: Stream,
    problem: Problem | None,
    controller: Controller | None,
    protected: NDArray[np.bool_],
) -> Run:
    length, count = len(stream), len(stream.arms)
    run = Run(length)
    policy.rewind()
    faults = np.zeros(count)
    resident: ResidentSet | None = None
    pending = np.zeros(count)
    if controller is not None:
        assert problem is not None
        faults = problem.faults
        pinned = [policy.index(a) for a in controller.pinned]
        resident = ResidentSet(count, controller.capacity, sizes=problem.sizes, pinned=pinned)
        controller.begin(resident)
    mask = np.ones(count, dtype=np.bool_) if resident is None else resident.mask
    run.epochs.append((0, frozenset(np.flatnonzero(mask).tolist())))
    order, due = _feedback(stream)
    available = np.zeros((0, count), dtype=np.bool_) if stream.available is None else stream.available
    cursors = np.zeros(4, dtype=np.int64)
    offers, no_needs, no_noise = np.zeros(count), np.zeros(count), np.zeros(0)
    planned = 0
    routing = faults if controller is None else faults + controller.surcharge
    contexts, rewards = (  # read-only arrays are another type to a compiled kernel
        array if array.flags.carray else array.copy() for array in (stream.contexts, stream.rewards)
    )
    available = available if available.flags.carray else available.copy()
    if np.abs(rewards).max() > LARGEST:
        raise ValueError(
            f"problem must have rewards in [-{LARGEST:g}, {LARGEST:g}], got {np.abs(rewards).max():g}"
        )
    now = 0
    while now < length:
        if controller is not None and now >= controller.next_plan:
            assert problem is not None and resident is not None
            _learn_due(policy, stream, run, order, due, cursors, pending, now)  # as a Router would have
            offered = (
                np.asarray(available[planned:now].any(axis=0)) if len(available) and now > planned else None
            )
            view = View(
                clock=now, utilities=policy.utilities, faults=faults, loads=problem.loads, resident=resident,
                pending=pending, counts=getattr(policy, "counts", None), eligible_since_plan=offered,
            )  # fmt: skip
            loaded, evicted = resident.replace(controller.plan(view))
            planned = now
            if loaded:
                run.loads.append((now, float(problem.loads[sorted(loaded)].sum())))
            if loaded or evicted:
                if run.epochs[-1][0] == now:  # an insertion that served no request
                    run.epochs.pop()
                if not run.epochs or run.epochs[-1][1] != frozenset(resident):
                    run.epochs.append((now, frozenset(resident)))
        stop = length if controller is None else int(min(length, max(controller.next_plan, now + 1)))
        forcing = controller is not None and controller.rate > 0.0
        needs = controller.needs if controller is not None and forcing else no_needs
        noise = controller.noise if controller is not None and forcing else no_noise
        rate = controller.rate if controller is not None and forcing else 0.0
        cursors[loop.C_NOISE] = controller.used if controller is not None else 0
        reached = loop.run(
            handle.buffer, contexts, rewards, routing, mask, available, order, due, needs, rate, noise,
            protected, cursors, pending, offers, run.arms, run.propensities, run.hits, now, stop,
            controller is not None and controller.inserts,
        )  # fmt: skip
        if controller is not None:
            controller.used = int(cursors[loop.C_NOISE])
            controller.observe_many(run.arms[now:reached], contexts[now:reached], run.hits[now:reached])
        code = int(cursors[loop.C_CODE])
        if code == loop.FAULT:
            assert controller is not None and resident is not None
            arm = int(run.arms[reached - 1])
            victims = controller.make_room(arm, resident)
            if victims is not None:
                for victim in victims:
                    resident.evict(victim)
                resident.load(arm)
                if reached < length:
                    run.epochs.append((reached, frozenset(resident)))
        elif code == loop.NO_POLICY_NOISE:
            handle.draw_noise()
        elif code == loop.NO_CONTROLLER_NOISE:
            assert controller is not None
            controller.draw()
        elif code == loop.REFUSED:
            policy.check_context(contexts[reached])  # raises with the reason
        now = reached
    _learn_due(policy, stream, run, order, due, cursors, pending, np.iinfo(np.int64).max)
    run.page_ins = 0 if resident is None else resident.page_ins
    run.forced = int(cursors[loop.C_FORCED])
    return run


def _learn_due(
    policy: Policy,
    stream: Stream,
    run: Run,
    order: Ints,
    due: Ints,
    cursors: Ints,
    pending: Floats,
    now: int,
) -> None:
    """Learn, outside the loop, what arrives before request `now`."""
    at = int(cursors[loop.C_FEEDBACK])
    while at < len(order) and due[at] <= now:
        i = int(order[at])
        arm = int(run.arms[i])
        policy.update(arm, stream.contexts[i], float(stream.rewards[i, arm]), at=i)
        pending[arm] -= 1.0
        at += 1
    cursors[loop.C_FEEDBACK] = at


def _routed(
    policy: Policy,
    stream: Stream,
    problem: Problem | None,
    controller: Controller | None,
    protected: NDArray[np.bool_],
    charges: RunningCosts | None = None,
) -> Run:
    length = len(stream)
    if controller is None:
        router = Router(policy, feedback_limit_s=1e18, pending_limit=length + 1)
    else:
        assert problem is not None
        router = Router(
            policy, controller, problem.faults,
            sizes=problem.sizes, loads=problem.loads, maintenance="manual",
            feedback_limit_s=1e18, pending_limit=length + 1,
        )  # fmt: skip
    with router:
        return _served(router, stream, protected, charges)


def _served(
    router: Router, stream: Stream, protected: NDArray[np.bool_], charges: RunningCosts | None
) -> Run:
    """Serve the stream, request by request, each reward learned when it is due."""
    length = len(stream)
    run = Run(length)
    order, due = _feedback(stream)
    ids = [0] * length
    learned = 0
    paid = 0.0
    place = router.policy.positions
    for t in range(length):
        learned = _answer(router, stream, run, ids, order, due, learned, t)
        router.maintain()
        serving = frozenset(
            place[name] for name in router.resident
        )  # an insertion serves from the next request on
        decision = router.select(
            stream.contexts[t],
            prices=None if charges is None else charges.prices(t),
            eligible=None if stream.available is None else stream.available[t],
            protected=bool(protected[t]) if len(protected) else False,
        )
        if not run.epochs or serving != run.epochs[-1][1]:
            run.epochs.append((t, serving))
        cost = router.parts.books.load_price
        if cost != paid:
            run.loads.append((t, cost - paid))
            paid = cost
        ids[t] = decision.id
        run.arms[t] = place[decision.arm]
        if charges is not None:
            charges.paid(int(run.arms[t]), t)
        run.propensities[t] = decision.propensity
        run.hits[t] = decision.hit
    _answer(router, stream, run, ids, order, due, learned, np.iinfo(np.int64).max)
    stats = router.stats()
    run.page_ins, run.forced = int(stats["page_ins"]), int(stats["forced"])
    return run


def _answer(
    router: Router, stream: Stream, run: Run, ids: list[int], order: Ints, due: Ints, learned: int, now: int
) -> int:
    while learned < len(order) and due[learned] <= now:
        i = int(order[learned])
        router.update(ids[i], float(stream.rewards[i, run.arms[i]]))
        learned += 1
    return learned
