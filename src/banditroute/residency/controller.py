"""What a residency controller is, and what it is shown."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import inf

import numpy as np

from banditroute._core import validation as check
from banditroute._core.kernels.loop import forced_arm, forced_share
from banditroute._core.typing import Floats, Ints, Mask, Rng
from banditroute.residency.resident_set import ResidentSet

__all__ = ["Controller", "View", "Window"]

NOISE = 1024  # uniform numbers drawn ahead


@dataclass(frozen=True, slots=True)
class View:
    """What a controller may see when it plans.

    Parameters
    ----------
    clock : int
        Decisions made so far.
    utilities : callable
        ``utilities(contexts (n, d)) -> (mean, bonus)``, two (n, N) arrays in reward units: the policy plays the largest
        ``mean + bonus`` less prices. Raises TypeError for a policy that cannot say what it maximises.
    faults, loads : (N,) arrays
        Price of serving through a non-resident arm and of making one resident, reward units.
    resident : ResidentSet
        What is resident in fact, with capacity, sizes and pins; read it, do not change it. With a backend it is what
        the server confirmed.
    pending : (N,) array
        Decisions awaiting feedback, per arm.
    counts : (N,) array
        Rewards learned, per arm.
    eligible_since_plan : (N,) bool array, optional
        Arms that were eligible on some request since the last plan; None for all. The others are not worth loading.
    desired : (N,) bool array, optional
        The last plan, which a server may not have reached; what is resident where left out.
    blocked : (N,) bool array, optional
        Arms that will not load now; None for none.

    Examples
    --------
    >>> resident = ResidentSet(2, 1)
    >>> View(0, lambda x: (x, x), np.ones(2), np.ones(2), resident, np.zeros(2)).clock
    0
    """

    clock: int
    utilities: Callable[[Floats], tuple[Floats, Floats]]
    faults: Floats
    loads: Floats
    resident: ResidentSet
    pending: Floats
    counts: Floats | Ints | None = None
    eligible_since_plan: Mask | None = None
    desired: Mask | None = None
    blocked: Mask | None = None

    @property
    def fits(self) -> bool:
        """Whether everything fits."""
        return bool(self.resident.sizes.sum() <= self.resident.capacity * (1.0 + 1e-12))

    @property
    def moot(self) -> bool:
        """Whether nothing is at stake: everything fits, or no fault costs anything."""
        return self.fits or bool((self.faults <= 0.0).all())

    @property
    def standing(self) -> Mask:
        """The last plan, with the pins and without what will not load, (N,): what stays where nothing is better."""
        mask = (self.resident.mask if self.desired is None else self.desired).copy()
        if self.blocked is not None:
            mask &= ~self.blocked
        mask[list(self.resident.pinned)] = True
        return mask

    @property
    def barred(self) -> Mask | None:
        """Arms not worth loading, (N,): no request could go there, or they will not load; None for none."""
        barred = None if self.eligible_since_plan is None else ~self.eligible_since_plan
        if self.blocked is not None and self.blocked.any():
            absent = self.blocked & ~self.resident.mask
            barred = absent if barred is None else barred | absent
        return barred

    def kept(self) -> set[int]:
        """Return the set to keep where there is nothing to plan: everything that loads where everything fits."""
        if not self.fits:
            return set(np.flatnonzero(self.standing).tolist())
        mask = self.standing
        mask |= True if self.blocked is None else ~self.blocked
        return set(np.flatnonzero(mask).tolist())


class Window:
    """The last `size` contexts, and evenly spaced samples of them.

    Parameters
    ----------
    size : int
        Contexts kept.

    Examples
    --------
    >>> window = Window(3)
    >>> for value in range(5):
    ...     window.append(np.array([float(value)]))
    >>> window.sample(2).ravel()
    array([2., 4.])
    """

    def __init__(self, size: int) -> None:
        self.size = check.integer("window", size, low=1)
        self.seen = 0
        self._rows: Floats = np.empty((0, 0))

    def __repr__(self) -> str:
        """Show how much is kept of how much."""
        return f"Window(size={self.size}, seen={self.seen})"

    def check_state(self) -> None:
        """Refuse attributes that do not go together, as a file may tell them."""
        kept = min(self.seen, self.size)
        if self.size < 1 or self.seen < 0 or len(self._rows) < kept or len(self._rows) > self.size:
            raise ValueError(f"a window of {self.size} must hold {kept} contexts, got {len(self._rows)}")

    def append(self, x: Floats) -> None:
        """Keep one context."""
        at = self.seen % self.size
        try:
            self._rows[at] = x
        except IndexError:  # grow by doubling: a short run should not pay for a long window
            grown = np.empty((min(self.size, max(64, 2 * at)), x.size))
            grown[:at] = self._rows[:at] if at else grown[:0]
            grown[at] = x
            self._rows = grown
        self.seen += 1

    def extend(self, contexts: Floats) -> None:
        """Keep many contexts, as `append` of each would."""
        while len(contexts):  # up to the end of the ring, then round again
            self.append(contexts[0])
            at = self.seen % self.size
            room = min(len(contexts) - 1, max(len(self._rows) - at, 0))
            self._rows[at : at + room] = contexts[1 : 1 + room]
            self.seen += room
            contexts = contexts[1 + room :]

    def tail(self, count: int) -> Floats:
        """Return the last `count` contexts, oldest first."""
        return self.sample(count, count)

    def sample(self, count: int, last: int | None = None) -> Floats:
        """Return at most `count` of the kept (or `last`) contexts, evenly spaced, oldest first, newest included."""
        kept = min(self.seen, self.size if last is None else min(last, self.size))
        take = min(count, kept)
        if take == 0:
            return np.empty((0, self._rows.shape[1] if self._rows.size else 0))
        index = (self.seen - 1 - _ages(kept, take)) % self.size
        rows: Floats = self._rows.take(index, axis=0)
        return rows


@lru_cache(maxsize=8)  # a controller asks for the same few at every plan
def _ages(kept: int, take: int) -> Ints:
    return np.linspace(kept - 1, 0, take).astype(np.int64) if take > 1 else np.zeros(1, dtype=np.int64)


class Controller(ABC):
    """Decides which arms stay resident, from the requests it observed and the view it is handed.

    A subclass writes `plan` (epoch controllers) or `make_room` (controllers that insert on a fault).

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    pinned : iterable of str or int
        Arms that never leave.
    rng : int, SeedSequence, Generator or None
        The controller's own stream of randomness, apart from the policy's.

    Notes
    -----
    ``next_plan`` is the clock index before whose decision `plan` wants to be called. ``needs`` (N,) counts forced
    decisions still wanted per arm and ``rate`` is the probability of forcing while there are any.

    Examples
    --------
    >>> from banditroute import LRU
    >>> isinstance(LRU(2), Controller), LRU(2).inserts
    (True, True)
    """

    inserts: bool = False  # whether faults insert; may change at a plan
    needs_utilities: bool = False  # whether plans ask what the policy maximises

    def __init__(self, capacity: float, *, pinned: Iterable[str | int] = (), rng: Rng = None) -> None:
        self.capacity = check.finite("capacity", capacity, low=0.0)
        self.pinned = tuple(pinned)
        self.next_plan: float = inf
        self.rate = 0.0
        self.surcharge = 0.0  # added to the price of routing to a non-resident arm, never charged
        self.needs: Floats = np.zeros(0)
        self.noise: Floats = np.empty(NOISE)
        self.used = NOISE  # numbers of `noise` used so far
        self._rng = np.random.default_rng(rng)

    def __repr__(self) -> str:
        """Show capacity, pins and when the next plan is due."""
        pins = f", pinned={list(self.pinned)}" if self.pinned else ""
        return f"{type(self).__name__}(capacity={self.capacity:g}{pins}, next_plan={self.next_plan:g})"

    def begin(self, resident: ResidentSet) -> None:
        """Fill the set where the run starts, free of charge, and size whatever is kept per arm.

        With a backend it is the first set to ask for: what comes of it is told by `confirmed`.
        """
        self.needs = np.zeros(len(resident.mask))
        resident.fill()

    def observe(self, arm: int, x: Floats, hit: bool) -> None:  # noqa: B027 - nothing to remember is fine
        """See one served request."""

    def observe_many(self, arms: Ints, contexts: Floats, hits: Mask) -> None:
        """See many served requests in order, as `observe` of each would."""
        for arm, x, hit in zip(arms.tolist(), contexts, hits.tolist(), strict=True):
            self.observe(arm, x, hit)

    def check_state(self) -> None:
        """Refuse attributes that do not go together, as a file may tell them."""
        if not 0.0 <= self.rate < inf or type(self.used) is not int or self.used < 0 or self.noise.ndim != 1:
            raise ValueError(
                f"a controller must have a rate and a place in its noise, got {self.rate}, {self.used}"
            )

    def force(self, offers: Floats) -> tuple[int, float] | None:
        """Draw whether to force a decision and on whom.

        Parameters
        ----------
        offers : (N,) array
            Infinite where an arm is not eligible.

        Returns
        -------
        (arm, share) or None
            A forced arm and the probability it had; (-1, 0) when forcing was possible and not drawn; None when no
            eligible arm needs it. Uses one random number unless None.
        """
        if self.rate <= 0.0:
            return None
        if self.used >= self.noise.size:
            self.draw()
        arm = int(forced_arm(self.needs, offers, self.rate, self.noise[self.used]))
        if arm == -2:
            return None
        self.used += 1
        if arm < 0:
            return -1, 0.0
        share = float(forced_share(self.needs, offers, self.rate, arm))
        self.needs[arm] -= 1.0
        return arm, share

    def draw(self) -> None:
        """Fill the block of uniform numbers that forcing uses."""
        self.noise = self._rng.random(NOISE)
        self.used = 0

    def make_room(self, arm: int, resident: ResidentSet) -> list[int] | None:
        """Return whom to evict so that `arm` fits after a fault, or None to pass the request through."""
        return None

    def confirmed(self, arm: int, resident: bool) -> None:  # noqa: B027 - nothing to follow is fine
        """See that an arm is resident, or is not, in fact: a change that this controller did not make itself.

        A server displaced it, or took it in; or did not load what a plan or an insertion wanted. Saying again what is
        known already changes nothing.
        """

    def adopt(self, resident: ResidentSet) -> None:  # noqa: B027 - nothing to follow is fine
        """Go on from this set, which the controller of another worker had planned, as if it were the own one."""

    def plan(self, view: View) -> set[int]:
        """Return the set for the next epoch, without ``view.blocked``, and move `next_plan`."""
        return view.kept()

    @abstractmethod
    def resize(self, keep: list[int | None]) -> None:
        """Follow a change of arms: arm i continues ``keep[i]``, or is new where that is None."""

    def _resize_needs(self, keep: list[int | None]) -> None:
        self.needs = np.array([0.0 if a is None else self.needs[a] for a in keep])
