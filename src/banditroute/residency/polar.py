"""POLAR-style epochs: plan the resident set from what the router believes about a sample of contexts."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from banditroute import _validate as check
from banditroute.residency.controller import Controller, Rng, View, Window
from banditroute.residency.objective import best_set, gains
from banditroute.residency.reservoir import Reservoir

__all__ = ["Polar"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Index = Literal["mean", "optimistic", "pessimistic"]


class Polar(Controller):
    """Fixed-epoch controller: every `epoch` decisions, load the set that serves recent contexts best.

    The set maximises the mean over a context sample of ``max(A, max_{i in C} u_i)`` with
    ``A = max_j (u_j - fault_j)``, less the load prices of new arms spread over the epoch. A request to a
    non-resident arm passes through: it pays the fault and changes nothing.

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    epoch : int
        Decisions between plans.
    index : "optimistic", "mean" or "pessimistic"
        u = mean + alpha std, mean, or mean - alpha std, with the router's own alpha. Optimistic is the default:
        with the mean, an adapter that is not resident pays faults, is not tried, looks bad and never gets in.
    window : int
        Contexts kept.
    keep : "recent" or "all"
        The last `window` contexts, or a uniform sample of all, for traffic that does not move.
    sample : int
        Contexts used per plan; the recent ones are taken evenly spaced over the window.
    hysteresis : float
        Keep the old set unless the new one is better by this many standard errors of their paired difference.
    pinned : iterable of str or int
        Arms that never leave.
    rng : int, SeedSequence, Generator or None
        The controller's own stream.

    Notes
    -----
    POLAR-style, reconstructed from the abstract of Li and Li, "POLAR" (arXiv 2604.16583, 2026); the paper's own
    algorithm may differ. Greedy and 1-swaps find the set; a plan costs O(sample N dim^2), mostly for the widths. With
    a fixed ridge the routing part of the regret is O~(d sqrt(N T)) for any contexts; no sublinear bound holds
    for the residency part of a deterministic rule of this kind: an adversary can make every epoch prefer an arm
    outside the set. Short epochs win while loads are cheap: see `Polaris`.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(arms=4, dim=2), residency=Polar(2, epoch=100), paging=0.1)
    >>> router.resident
    ('0', '1')
    """

    def __init__(
        self,
        capacity: float,
        epoch: int = 500,
        *,
        index: Index = "optimistic",
        window: int = 4000,
        keep: Literal["recent", "all"] = "recent",
        sample: int = 1024,
        hysteresis: float = 0.0,
        pinned: Iterable[str | int] = (),
        rng: Rng = None,
    ) -> None:
        super().__init__(capacity, pinned=pinned, rng=rng)
        self.epoch = check.integer("epoch", epoch, low=1)
        if index not in ("mean", "optimistic", "pessimistic"):
            raise ValueError(f"index must be 'mean', 'optimistic' or 'pessimistic', got {index!r}")
        if keep not in ("recent", "all"):
            raise ValueError(f"keep must be 'recent' or 'all', got {keep!r}")
        self.index: Index = index
        self.sample = check.integer("sample", sample, low=1)
        self.hysteresis = check.finite("hysteresis", hysteresis, low=0.0)
        self.contexts = Window(window) if keep == "recent" else Reservoir(window, self._rng)
        self.next_plan = self.epoch

    def observe(self, arm: int, x: Floats, hit: bool) -> None:
        """Keep the context."""
        self.contexts.append(x)

    def observe_many(self, arms: Ints, contexts: Floats, hits: NDArray[np.bool_]) -> None:
        """Keep the contexts."""
        self.contexts.extend(contexts)

    def plan(self, view: View) -> set[int]:
        """Return the best set for the next epoch; O(sample N dim^2)."""
        self.next_plan = view.clock + self.epoch
        old = set(view.resident)
        contexts = self.contexts.sample(self.sample)
        if not len(contexts) or view.moot:
            return old
        mean, std = view.scores(contexts)
        width = {"mean": 0.0, "optimistic": view.alpha, "pessimistic": -view.alpha}[self.index]
        return planned(bar_unoffered(mean + width * std, view), view, self.epoch, self.hysteresis)

    def resize(self, keep: list[int | None]) -> None:
        """Nothing is kept per arm."""
        self._resize_needs(keep)


def bar_unoffered(utilities: Floats, view: View) -> Floats:
    """Make arms that no recent request was offered worse than every other one; changes and returns `utilities`."""
    if view.offered is not None:
        utilities[:, ~view.offered] = utilities.min() - view.faults.max() - 1.0
    return utilities


def planned(
    utilities: Floats,
    view: View,
    epoch: float,
    hysteresis: float,
    *,
    capacity: float | None = None,
    previous: NDArray[np.bool_] | None = None,
    incumbent: NDArray[np.bool_] | None = None,
) -> set[int]:
    """Return the best set under `utilities` (n, N), the old one unless the gain clears the hysteresis.

    The gain is the mean over contexts of the difference between the two sets; one standard error of that paired
    difference, times `hysteresis`, is what a change must be worth (load prices, spread over `epoch`, apart).
    """
    resident = view.resident
    loaded = np.flatnonzero(resident.mask if previous is None else previous)
    old = set(np.flatnonzero(resident.mask if incumbent is None else incumbent).tolist())
    loads = view.loads / epoch
    room = resident.capacity if capacity is None else capacity
    equal = bool((resident.sizes == 1.0).all())
    new = set(
        best_set(
            utilities,
            view.faults,
            round(room) if equal else room,
            previous=loaded.tolist(),
            loads=loads,
            sizes=None if equal else resident.sizes,
            pinned=sorted(resident.pinned),
            method="swap",
        )
    )
    if hysteresis > 0.0 and new != old and resident.sizes[sorted(old)].sum() <= room * (1 + 1e-12):
        gain = gains(utilities, view.faults, sorted(new)) - gains(utilities, view.faults, sorted(old))
        error = float(np.std(gain)) / np.sqrt(len(gain))
        fresh = sorted(new - set(loaded.tolist()))
        if float(np.mean(gain)) - float(loads[fresh].sum()) <= hysteresis * error:
            return old
    return new
