"""The Router: policy, residency, paging, ledger, clock and lock, and the only place where they meet."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.kernels.loop import forced_share
from banditroute._core.typing import Floats
from banditroute.policies import LARGEST, Choice, LinearPolicy, Policy
from banditroute.records import Decision, Pending
from banditroute.residency import AdapterBackend, Controller, Exchange, ResidentSet, View
from banditroute.residency.paging import Paging, as_paging
from banditroute.router.durable import Durable, follow_forks
from banditroute.router.ledger import Ledger
from banditroute.router.limits import Source, Sources
from banditroute.router.planner import Maintenance

if TYPE_CHECKING:
    from banditroute.logs import Recorder

__all__ = ["Router"]

FLOAT = np.dtype(np.float64)
IDS = 1 << 64
_new = tuple.__new__  # makes a named tuple in half the time of its own constructor
Where = Literal["inline", "background", "manual"]


class Router(Durable):
    """Routes requests to arms, learns from late rewards and keeps the right arms resident.

    Parameters
    ----------
    policy : Policy
        Chooses the arm. The Router owns it from here on: do not call its writers beside the Router. Its readers may
        see an update half done when other threads use the Router.
    residency : Controller, optional
        Decides which arms stay in fast memory. Without it every request is a hit.
    paging : Paging, float or (k,) array, optional
        Model of the wait of a fault, or its price in reward units. Needed with `residency`.
    sizes : mapping or (k,) array, optional
        Size of each arm in the unit of the controller's capacity; one slot each when left out.
    switching : float
        Loading an arm between epochs costs this share of its fault price; in [0, 1].
    maintenance : "inline", "background" or "manual"
        Where re-planning runs: inside `select` at its boundaries (deterministic: simulation, notebooks), in a thread,
        or when the caller calls `maintain`. Outside "inline" no request waits for a plan: the old set serves on.
    backend : AdapterBackend or callable, optional
        Carries out the plans; an arm counts as resident once it has confirmed it. A callable gets the `Exchange` and
        returns the names that did load, or None for all. The first set is loaded when the Router is made. Insertions on
        faults (`LRU` and its like) are left to the server.
    feedback_limit_s : float
        Seconds after which a decision without feedback expires.
    pending_limit : int
        Decisions that may await feedback; the oldest expires when one more comes.
    expired_reward : float, optional
        Learn this reward for a decision that expires; without it such a decision is forgotten.
    spread_pending : bool
        Narrow the bonus of an arm by its decisions on play, as if each were one more observation, so that a burst
        without feedback does not herd onto one arm. The statistics do not know of it (linear policies).
    sources : mapping of str to Source, optional
        Range, clipping and rate of the rewards from each source; "*" is for all that are not named.
    recorder : Recorder, optional
        Writes decisions and learned rewards down as a trace.
    clock : callable
        Returns seconds; injected for tests and simulation.

    Notes
    -----
    One lock covers every call: many threads may share a Router. A decision and its feedback cost what the policy's own
    `select` and `update` cost, and some five microseconds more. The fault price of an arm that is not resident is added
    to the caller's prices; rewards are learned as they come, never less a price.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(arms=["small", "large"], dim=2, rng=0))
    >>> decision = router.select([1.0, 0.5])
    >>> router.update(decision.id, reward=0.8)
    True
    >>> router.update(decision.id, reward=0.8)  # a repeated answer is counted and dropped
    False
    >>> router.stats()["duplicates"]
    1
    """

    def __init__(
        self,
        policy: Policy,
        residency: Controller | None = None,
        paging: Paging | float | ArrayLike | None = None,
        *,
        sizes: Mapping[str, float] | ArrayLike | None = None,
        switching: float = 1.0,
        maintenance: Where = "inline",
        backend: AdapterBackend | Callable[[Exchange], Iterable[str] | None] | None = None,
        feedback_limit_s: float = 3600.0,
        pending_limit: int = 100_000,
        expired_reward: float | None = None,
        spread_pending: bool = False,
        sources: Mapping[str, Source] | None = None,
        recorder: "Recorder | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(policy, Policy):
            raise TypeError(f"policy must be a Policy, got {policy!r}")
        if maintenance not in ("inline", "background", "manual"):
            raise ValueError(f"maintenance must be 'inline', 'background' or 'manual', got {maintenance!r}")
        if residency is not None and paging is None:
            raise ValueError("paging must be given with residency: a model or the price of a fault, got None")
        if residency is None and paging is not None:
            raise ValueError("residency must be given with paging: Static(()) caches nothing, got None")
        self.policy = policy
        self.residency = residency
        self.maintenance = maintenance
        self.switching = check.unit("switching", switching)
        self._clock = clock
        self._lock = threading.RLock()
        limit_s = check.finite("feedback_limit_s", feedback_limit_s, low=0.0, open_low=True)
        most = check.integer("pending_limit", pending_limit, low=1)
        self._ledger = Ledger(time_limit=limit_s, size_limit=most, on_expire=self._forget)
        self._fast = policy if isinstance(policy, LinearPolicy) else None
        self._keeps_more = type(policy).kept is not Policy.kept
        self._sources = None if sources is None else Sources(sources)
        for name, given, methods in (
            ("recorder", recorder, ("decided", "answered")),
            ("backend", backend, ("ensure", "evict") if not callable(backend) else ()),
        ):
            if given is not None and not all(hasattr(given, method) for method in methods):
                raise TypeError(f"{name} must have the methods {', '.join(methods)}, got {given!r}")
        self.recorder = recorder
        self._start(expired_reward, spread_pending)
        self._index = 0
        self._epoch = 0
        self._hits = self._learned = self._dropped = self._forced = self._plans = 0
        self._load_price = 0.0
        self._pending = [0.0] * len(policy.arms)
        self._planned, self._masked, self._offered = 0, 0, np.zeros(len(policy.arms), dtype=np.bool_)
        self.paging: Paging | None = None
        self._resident: ResidentSet | None = None
        self.backend = backend
        self._faults = self._loads = self._offers = np.zeros(len(policy.arms))
        if residency is not None:
            assert paging is not None
            self._sizes = self._sized(sizes)
            self.paging = as_paging(paging, len(policy.arms))
            self._faults = self._priced()
            self._loads = self.switching * self._faults
            pinned = [policy.index(a) for a in residency.pinned]
            self._resident = ResidentSet(
                len(policy.arms), residency.capacity, sizes=self._sizes, pinned=pinned
            )
            residency.begin(self._resident)
            self._reprice()
        policy.rewind()  # decisions count from 0 here; evidence from before must not seem to lie in the future
        self._worker = None if residency is None else Maintenance(self)
        if self._worker is not None:
            self._worker.begin()
        follow_forks(self)

    # The request path.

    def select(
        self,
        x: ArrayLike,
        *,
        eligible: ArrayLike | None = None,
        prices: ArrayLike | None = None,
        protected: bool = False,
    ) -> Decision:
        """Choose the arm that serves a request.

        Parameters
        ----------
        x : (dim,) array
            Context of the request; copied.
        eligible : (k,) bool array, optional
            Arms allowed for this request.
        prices : (k,) array, optional
            Known extra cost of each arm for this request, reward units.
        protected : bool
            Never force exploration on this request.

        Returns
        -------
        Decision
            Keep its ``id``: `update` answers it.

        Raises
        ------
        ValueError, TypeError
            Bad context, mask or prices; nothing changed.
        """
        with self._lock:
            now = self._clock() + self._offset
            index, policy, fast = self._index, self.policy, self._fast
            controller, worker = self.residency, self._worker
            if controller is not None and index >= controller.next_plan:
                assert worker is not None
                if self.maintenance == "background":
                    worker.wake()
                elif self.maintenance == "inline":
                    # A refused request must change nothing, so it is looked at before the plan.
                    self._checked(x, prices, eligible)
                    worker.run()
            at = index + self._others
            if policy.span and at >= self._boundary:
                self._checked(x, prices, eligible)
                policy.advance(at)
                self._boundary = (at // policy.span + 1) * policy.span
            if type(x) is np.ndarray and x.dtype is FLOAT:
                context = x.copy()
            else:
                context = np.array(policy.check_context(x))
            if prices is None and eligible is None:
                offers = self._offers
                if fast is not None and self._plain:
                    choice = fast.select(context)
                elif fast is not None:
                    choice = fast.select_priced(context, offers)
                else:
                    choice = self._choose(context, offers)
            else:
                offers = policy.effective_prices(prices, eligible, self._offers)
                if fast is not None:
                    choice = fast.select_priced(context, offers)
                else:
                    choice = self._choose(context, offers)
                if eligible is not None:  # not before the choice: it may refuse the context
                    self._masked += 1
                    self._offered |= offers < np.inf
            arm, propensity = choice
            hit = True
            if controller is not None:
                resident = self._resident
                assert resident is not None and worker is not None
                if worker.waiting is not None:  # the controller is busy with a plan
                    hit = bool(resident.mask[arm])
                    worker.waiting.append((arm, context, hit))
                else:
                    if controller.rate > 0.0 and not protected:
                        arm, propensity = self._force(context, offers, choice)
                    hit = bool(resident.mask[arm])
                    controller.observe(arm, context, hit)
                    if not hit and controller.inserts:
                        self._insert(arm)
            name = policy.arms[arm]
            if self._keeps_more:  # features of the arm as they were now
                context = policy.kept(context, arm)
            pending = _new(Pending, (name, context, propensity, now, at, None, None, None))
            key = self._ledger.open(pending)
            self._index = index + 1
            if hit:
                self._hits += 1
            self._pending[arm] += 1
            self._plays[arm] += 1
            if self._watched:
                self._opened(key, pending, arm, hit)
            if not index & 63:
                self._ledger.sweep(now, 128)
            decision = _new(Decision, (key, name, propensity, hit, self._epoch, now))
            if self.recorder is not None:
                self._record(decision, context, offers)
            return decision

    def update(self, decision_id: int, reward: float, *, source: str | None = None) -> bool:
        """Learn the reward that answers a decision; late, out of order and from any thread.

        Parameters
        ----------
        decision_id : int
            ``Decision.id``.
        reward : float
            Finite; the higher the better.
        source : str, optional
            Who reports it; `sources` says what is made of it.

        Returns
        -------
        bool
            True when it was learned; False when it was counted and dropped: a duplicate, an expired decision, an arm
            that has been removed or is in quarantine, a source above its rate.

        Raises
        ------
        UnknownDecision
            The id was never issued or is older than the bounded memory.
        ValueError, TypeError
            Bad reward, or one outside the range of its source; nothing changed, the decision still awaits its feedback.
        """
        with self._lock:
            # The usual types are told apart first: the full checks cost as much as learning does.
            usual = type(reward) is float and -inf < reward < inf
            value = reward if usual else check.finite("reward", reward)
            key = decision_id
            if type(key) is not int:
                if isinstance(key, bool) or not isinstance(key, np.integer):
                    raise TypeError(f"decision_id must be an integer, got {decision_id!r}")
                key = int(key)
            now = self._clock() + self._offset
            replica, ledger = self._replica, self._ledger
            pending = ledger.pending.get(key)
            current = pending is not None and pending.time > now - ledger.time_limit
            ours = pending is not None or replica is None or key in ledger.closed or not 0 <= key < IDS
            if not current and ours:  # expired, answered before, or never issued
                pending = ledger.find(key, now=now)
                if pending is None:
                    return False
            if self._sources is not None:  # not before: a source does not pay for ids that nobody awaits
                admitted = self._sources.admit(source, value, now)
                if admitted is None:
                    return False
                value = admitted
            if pending is not None:
                learned = self._learn(key, pending, value)
                if learned and self.recorder is not None:
                    self.recorder.answered(key, value)
                return learned
        assert replica is not None
        return replica.foreign(key, value)  # asks the store, so without the lock

    # Residency.

    @property
    def resident(self) -> tuple[str, ...]:
        """Names of the resident arms; all of them without residency control."""
        with self._lock:
            if self._resident is None:
                return self.policy.arms
            return tuple(self.policy.arms[a] for a in self._resident)

    def maintain(self) -> bool:
        """Re-plan residency now if a plan is due; returns whether one was made. For maintenance="manual".

        The plan is computed without the lock, so `select` goes on in other threads meanwhile.
        """
        return self._worker is not None and bool(self._worker.run())

    def confirm(self, name: str, resident: bool) -> bool:
        """Learn from outside that an arm has become resident, or has left; from any thread.

        Parameters
        ----------
        name : str
        resident : bool

        Returns
        -------
        bool
            Whether the set changed: False for an arm that is unknown, pinned, in that state already, or does not fit.
        """
        with self._lock:
            arm = self.policy.positions.get(name)
            if self._resident is None or arm is None:
                return False
            changed = self._resident.load(arm) if resident else self._resident.evict(arm)
            if changed and resident:
                self._load_price += float(self._loads[arm])
            self._reprice()
            return changed

    def close(self) -> None:
        """Stop the background threads, publish and checkpoint; safe to call twice."""
        if self._worker is not None:
            self._worker.stop()
        self._finish()

    def __enter__(self) -> "Router":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Arms.

    def add_arm(self, name: str, *, size: float = 1.0, fault: float | None = None) -> None:
        """Add an arm while running; it starts cold and not resident.

        Parameters
        ----------
        name : str
            A new name.
        size : float
            Its size in the unit of the controller's capacity; positive.
        fault : float, optional
            Price of its fault, reward units; needed where `paging` prices the arms one by one.

        Raises
        ------
        ValueError, TypeError
            The name is taken, or a number is out of range or missing; nothing changed.
        """
        with self._lock:
            self._settle()
            size = check.finite("size", size, low=0.0, open_low=True)
            price = self._new_fault(fault)
            self.policy.add_arm(name)
            self._resized([*range(len(self._pending)), None], size, price)

    def remove_arm(self, name: str) -> None:
        """Remove an arm while running; feedback still due for it will be counted and dropped."""
        with self._lock:
            self._settle()
            gone = self.policy.index(name)
            if self._resident is not None and gone in self._resident.pinned:
                raise ValueError(f"name must not be pinned, got {name!r}")
            if np.delete(self._quarantined, gone).all() and len(self._quarantined) > 1:
                raise ValueError(f"name must not be the last arm that is not in quarantine, got {name!r}")
            if len(self.policy.arms) == 1:
                raise ValueError(f"the last arm must stay, got {name!r}")
            self._ledger.disown(self.policy.arms[gone])
            if self._replica is not None:
                self._replica.disown(self.policy.arms[gone])
            self.policy.remove_arm(self.policy.arms[gone])
            self._resized([a for a in range(len(self._pending)) if a != gone])

    def stats(self) -> dict[str, Any]:
        """Return counters as plain numbers: decisions, hits, learned, pending, expired, duplicates and so on."""
        with self._lock:
            self._ledger.sweep(self._now())
            return {
                **self._durable_stats(),
                "decisions": self._index,
                "hits": self._hits,
                "hit_rate": self._hits / self._index if self._index else 1.0,
                "learned": self._learned,
                "pending": len(self._ledger),
                "expired": self._ledger.expired,
                "late": self._ledger.late,
                "duplicates": self._ledger.duplicates,
                "dropped": self._dropped,
                "forced": self._forced,
                "epoch": self._epoch,
                "page_ins": 0 if self._resident is None else self._resident.page_ins,
                "load_price": self._load_price,
                "plan_failures": 0 if self._worker is None else self._worker.failures,
                "load_failures": 0 if self._worker is None else self._worker.load_failures,
            }

    # What the public calls are made of.

    def _record(self, decision: Decision, context: Floats, offers: Floats) -> None:
        assert self.recorder is not None
        # The array of offers is replaced, never written into: it may be kept.
        own = offers if offers.any() else None
        policy = self.policy
        self.recorder.decided(decision, context, own, policy.arms, type(policy).__name__, self._learned)

    def _checked(self, x: ArrayLike, prices: ArrayLike | None, eligible: ArrayLike | None) -> None:
        self.policy.check_context(x)
        self.policy.effective_prices(prices, eligible, self._offers)

    def _force(self, x: Floats, offers: Floats, choice: Choice) -> tuple[int, float]:
        """Replace the choice, with the controller's probability, by an arm that still needs forced decisions."""
        controller = self.residency
        assert controller is not None
        before = controller.needs.copy()
        drawn = controller.force(offers)
        if drawn is None:
            return choice
        forced, share = drawn
        rest = 1.0 - controller.rate
        if forced < 0:
            share = float(forced_share(before, offers, controller.rate, choice.arm))
            return choice.arm, share + rest * choice.propensity
        self._forced += 1
        pure = choice.propensity if forced == choice.arm else 0.0
        if forced != choice.arm and not choice.propensity >= 1.0:  # also where it is not known yet
            allowed = np.isfinite(offers)
            prices = np.where(allowed, offers, 0.0)
            pure = float(self.policy.propensities(x, prices=prices, eligible=allowed)[forced])
        return forced, share + rest * pure

    def _insert(self, arm: int) -> None:
        assert self.residency is not None and self._resident is not None
        victims = self.residency.make_room(arm, self._resident)
        if victims is not None:
            for victim in victims:
                self._resident.evict(victim)
            self._resident.load(arm)
            offers = self._offers.copy()  # not written into: a recorder may keep it
            for a in (*victims, arm):
                closed = inf if self._quarantined[a] else 0.0
                there = a in self._resident
                offers[a] = closed if there else self._faults[a] + self.residency.surcharge + closed
            self._offers = offers

    def _view(self) -> View:
        """Return what a plan may see, and start counting anew what is counted between plans."""
        assert self._resident is not None
        self._ledger.sweep(self._now())  # what has expired is not pending
        view = View(
            clock=self._index,
            scores=self.policy.scores_batch,
            alpha=float(getattr(self.policy, "alpha", 0.0)),
            faults=self._faults,
            loads=self._loads,
            resident=self._resident,
            pending=np.array(self._pending),
            counts=getattr(self.policy, "counts", None),
            offered=self._offered if self._masked and self._masked == self._index - self._planned else None,
        )
        self._planned, self._masked, self._offered = (
            self._index,
            0,
            np.zeros(len(self._pending), dtype=np.bool_),
        )
        return view

    def _settle(self) -> None:
        """Wait, with the lock held, until no plan is being computed: before arms change or state is saved."""
        if self._worker is not None:
            self._worker.settle()

    def _choose(self, x: Floats, offers: Floats) -> Choice:
        allowed = np.isfinite(offers)
        return self.policy.select(x, prices=np.where(allowed, offers, 0.0), eligible=allowed)

    def _reprice(self) -> None:
        closed = np.where(self._quarantined, np.inf, 0.0)
        self._plain = self._resident is None and not self._quarantined.any()
        if self._resident is None:
            self._offers = closed
            return
        surcharge = 0.0 if self.residency is None else self.residency.surcharge
        self._offers = np.where(self._resident.mask, closed, self._faults + surcharge + closed)

    def _priced(self) -> Floats:
        assert self.paging is not None
        faults = self.paging.prices(len(self.policy.arms))
        if not faults.max() <= LARGEST:
            raise ValueError(f"paging must price faults at {LARGEST:g} at most, got {faults.max():g}")
        return faults

    def _sized(self, sizes: Mapping[str, float] | ArrayLike | None) -> Floats | None:
        if sizes is None:
            return None
        if isinstance(sizes, Mapping):
            missing = [a for a in self.policy.arms if a not in sizes]
            if missing:
                raise ValueError(f"sizes must name every arm, got none for {missing}")
            sizes = [sizes[a] for a in self.policy.arms]
        return check.vector("sizes", sizes, len(self.policy.arms))

    def _new_fault(self, fault: float | None) -> float:
        """Return the fault price of an arm to be added."""
        if fault is not None:
            return check.finite("fault", fault, low=0.0, high=LARGEST)
        if self.paging is None:
            return 0.0
        try:
            return float(self.paging.prices(len(self.policy.arms) + 1)[-1])
        except ValueError as error:
            raise ValueError(
                "fault must be given where paging prices the arms one by one, got None"
            ) from error

    def _resized(self, keep: list[int | None], size: float = 1.0, fault: float = 0.0) -> None:
        def carried(old: Floats, new: float) -> Floats:
            return np.array([new if a is None else old[a] for a in keep])

        self._carry(keep, size, fault)
        self._offered = np.zeros(len(keep), dtype=np.bool_)
        self._masked, self._planned = 0, self._index
        self._offers = np.zeros(len(keep))
        self._faults = carried(self._faults, fault)
        self._loads = carried(self._loads, self.switching * fault)
        if self.residency is None or self._resident is None or self.paging is None:
            self._reprice()
            return
        old = self._resident
        place = {a: i for i, a in enumerate(keep) if a is not None}
        new = ResidentSet(
            len(keep),
            old.capacity,
            sizes=[size if a is None else old.sizes[a] for a in keep],
            pinned=[place[a] for a in old.pinned],
        )
        new.replace(place[a] for a in old if a in place)
        new.page_ins, new.evictions = old.page_ins, old.evictions
        self._resident = new
        self.residency.resize(keep)
        self._reprice()
