"""Backends: what really holds the adapters, what it can be asked to do, and a simulated one.

A controller wants a set; a server has one. A backend is the handle of one replica: the Router hands it the difference
(`Exchange`) off the request path and believes an arm resident when the backend has confirmed it. An arm that is
removed from the Router is left to the server, which displaces it in time.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from banditroute._core import validation as check
from banditroute.residency.paging import Link, Paging

__all__ = ["AdapterBackend", "Capabilities", "Exchange", "SimulatedBackend", "State", "apply", "exchange"]

State = Literal["gpu", "host", "disk", "unknown"]


class Capabilities(NamedTuple):
    """What a server can be asked to do, and whether a load stalls the requests it is serving.

    Examples
    --------
    >>> Capabilities(unload=False).blocking
    True
    """

    load: bool = True
    unload: bool = True
    pin: bool = True
    touch: bool = True
    observe: bool = True
    blocking: bool = True


class Exchange(NamedTuple):
    """A plan, by names: what to load, what to evict and what stays.

    Examples
    --------
    >>> exchange({"a", "b"}, {"b", "c"})
    Exchange(load=('c',), evict=('a',), keep=('b',))
    """

    load: tuple[str, ...]
    evict: tuple[str, ...]
    keep: tuple[str, ...]


@runtime_checkable
class AdapterBackend(Protocol):
    """Handle of one replica's adapter memory. Calls may come from a maintenance thread and may take long.

    Examples
    --------
    >>> from banditroute.residency.paging import PagingModel
    >>> isinstance(SimulatedBackend(["a"], PagingModel(), capacity=1), AdapterBackend)
    True
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this server can do."""

    def ensure(self, name: str) -> bool:
        """Make an adapter resident and wait for it; True when it is. Asking again is harmless."""

    def evict(self, name: str) -> bool:
        """Try to free an adapter's place; False when it could not be done."""

    def pin(self, name: str, pinned: bool = True) -> bool:
        """Keep an adapter from being displaced, or no longer; False when it could not be done."""

    def touch(self, name: str) -> bool:
        """Mark an adapter as just used, so that the server displaces others first; False when it is not there."""

    def observe(self) -> Mapping[str, State]:
        """Return where each adapter is, as far as the server tells: "unknown" where it does not."""


def exchange(now: Iterable[str], wanted: Iterable[str]) -> Exchange:
    """Return the difference between two sets of names: what `apply` would do, without doing it.

    Examples
    --------
    >>> exchange(["a"], [])
    Exchange(load=(), evict=('a',), keep=())
    """
    old, new = set(now), set(wanted)
    return Exchange(tuple(sorted(new - old)), tuple(sorted(old - new)), tuple(sorted(old & new)))


def apply(plan: Exchange, backend: AdapterBackend, confirm: Callable[[str, bool], object]) -> tuple[str, ...]:
    """Carry out a plan: evict, touch what stays, load.

    Parameters
    ----------
    plan : Exchange
    backend : AdapterBackend
    confirm : callable
        Called with (name, whether resident) after each step that changed something.

    Returns
    -------
    tuple of str
        Adapters that did not load.

    Notes
    -----
    An evicted arm is no longer counted on, whatever the server answers: where it lingers, requests to it are merely
    faster than expected. Servers that only displace by age are led by touching what should stay before each load.

    Examples
    --------
    >>> from banditroute.residency.paging import PagingModel
    >>> backend = SimulatedBackend(["a", "b"], PagingModel(), capacity=1, wait=lambda seconds: None)
    >>> apply(exchange([], ["b"]), backend, print)
    b True
    ()
    """
    for name in plan.evict:
        if backend.capabilities.unload:
            backend.evict(name)
        confirm(name, False)
    failed = []
    for name in plan.load:
        if backend.capabilities.touch:
            for kept in plan.keep:
                backend.touch(kept)
        if backend.ensure(name):
            confirm(name, True)
        else:
            failed.append(name)
    return tuple(failed)


class SimulatedBackend:
    """A server with one link to its adapters: loads queue first come first served and may fail or get lost.

    Parameters
    ----------
    arms : sequence of str
        Adapters it can serve, all on disk at first.
    paging : Paging
        How long loads take.
    capacity : int
        Slots; a load displaces the least recently used adapter that is not pinned.
    blocking : bool
        Whether requests wait while a load is under way.
    failures, lost : float
        Probability that a load fails, and that its answer gets lost (it then succeeded half of the time, and the
        adapter is in state "unknown" until someone observes or asks again).
    clock, wait : callable
        Seconds now, and how to wait for some.
    rng : int, SeedSequence, Generator or None
        Draws waits, failures and losses.

    Notes
    -----
    Safe to use from several threads; those that wait for the same load share it.

    Examples
    --------
    >>> from banditroute.residency.paging import as_paging
    >>> waited = []
    >>> backend = SimulatedBackend(["a", "b"], as_paging(0.1, 2), capacity=1, clock=lambda: 0.0, wait=waited.append)
    >>> backend.ensure("a"), backend.ensure("a"), waited
    (True, True, [0.1024])
    >>> backend.observe()
    {'a': 'gpu', 'b': 'disk'}
    """

    def __init__(
        self,
        arms: Iterable[str],
        paging: Paging,
        *,
        capacity: int,
        blocking: bool = True,
        failures: float = 0.0,
        lost: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
        rng: int | np.random.SeedSequence | np.random.Generator | None = None,
    ) -> None:
        self._index = {name: i for i, name in enumerate(check.names("arms", tuple(arms)))}
        self.capacity = check.integer("capacity", capacity, low=1)
        self.failures, self.lost = check.unit("failures", failures), check.unit("lost", lost)
        self._paging, self._clock, self._wait = paging, clock, wait
        self._rng = np.random.default_rng(rng)
        self._lock = threading.Condition()
        self._link = Link()
        self._states: dict[str, State] = dict.fromkeys(self._index, "disk")  # as believed
        self._loaded: OrderedDict[str, None] = OrderedDict()  # in truth, the least recently used first
        self._loading: set[str] = set()
        self._pinned: set[str] = set()
        self._capabilities = Capabilities(blocking=blocking)

    @property
    def capabilities(self) -> Capabilities:
        """Everything; `blocking` as given."""
        return self._capabilities

    def ensure(self, name: str) -> bool:
        """Load an adapter over the link and wait; False when that fails, gets lost, or pins fill every slot."""
        self._known(name)
        with self._lock:
            while name in self._loading:
                self._lock.wait()
            if name in self._loaded:  # also where the answer of an earlier load got lost
                self._states[name] = "gpu"
                self._loaded.move_to_end(name)
                return True
            free = self.capacity - len(self._loaded) - len(self._loading)
            victim = None if free > 0 else next((a for a in self._loaded if a not in self._pinned), None)
            if free <= 0 and victim is None:
                return False
            if victim is not None:
                self._displace(victim)
            self._loading.add(name)
            _, ready_s = self._link.request(self._clock(), self._sampled_ms(name))
            fate = self._rng.random(2)
            pause_s = ready_s - self._clock()
        self._wait(pause_s)
        with self._lock:
            self._loading.discard(name)
            self._lock.notify_all()
            failed = fate[0] < self.failures
            unheard = not failed and fate[1] < self.lost
            if not failed and not (unheard and fate[1] < self.lost / 2.0):
                self._loaded[name] = None
            self._states[name] = "unknown" if unheard else "disk" if failed else "gpu"
            return self._states[name] == "gpu"

    def evict(self, name: str) -> bool:
        """Move an adapter to host memory; False when it is pinned or not there."""
        self._known(name)
        with self._lock:
            there = name in self._loaded and name not in self._pinned
            if there:
                self._displace(name)
            return there

    def pin(self, name: str, pinned: bool = True) -> bool:
        """Keep an adapter from being displaced; False when it is not there."""
        self._known(name)
        with self._lock:
            if pinned and name in self._loaded:
                self._pinned.add(name)
            elif not pinned:
                self._pinned.discard(name)
            return (name in self._pinned) == pinned

    def touch(self, name: str) -> bool:
        """Mark an adapter as just used; False when it is not there."""
        self._known(name)
        with self._lock:
            if name in self._loaded:
                self._loaded.move_to_end(name)
            return name in self._loaded

    def observe(self) -> dict[str, State]:
        """Return where every adapter is; what was unknown is then known."""
        with self._lock:
            for name, state in self._states.items():
                if state == "unknown":
                    self._states[name] = "gpu" if name in self._loaded else "disk"
            return dict(self._states)

    def believed(self) -> dict[str, State]:
        """Return where every adapter is believed to be, from the answers heard so far."""
        with self._lock:
            return dict(self._states)

    def serve(self, name: str) -> float:
        """Serve one request and return how long it waits for memory, in seconds on the clock; does not sleep.

        A resident adapter waits for the loads under way where those block. Any other one queues on the link, serves
        from a scratch slot and is dropped again.
        """
        self._known(name)
        with self._lock:
            now_s = self._clock()
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return max(0.0, self._link.free_s - now_s) if self.capabilities.blocking else 0.0
            return self._link.request(now_s, self._sampled_ms(name))[1] - now_s

    def _known(self, name: str) -> None:
        if name not in self._index:
            raise ValueError(f"name must be one of {list(self._index)}, got {name!r}")

    def _sampled_ms(self, name: str) -> float:
        return self._paging.sample_ms(self._index[name], float(self._rng.standard_normal()))

    def _displace(self, name: str) -> None:
        del self._loaded[name]
        self._states[name] = "host"
