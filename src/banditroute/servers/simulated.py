"""A simulated server of adapters: slots, one link, loads that take time, fail or get lost."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

import numpy as np

from banditroute._core import validation as check
from banditroute._core.typing import Clock, Rng
from banditroute.records import Capabilities, State
from banditroute.residency.paging import Link, Paging

__all__ = ["SimulatedBackend"]


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
        clock: Clock = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
        rng: Rng = None,
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
