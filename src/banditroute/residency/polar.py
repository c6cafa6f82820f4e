"""POLAR-style epochs: plan the resident set from what the router believes about a sample of contexts."""

from collections.abc import Iterable
from math import sqrt
from typing import Literal

import numpy as np

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Ints, Mask, Rng
from banditroute.residency.controller import Controller, View, Window
from banditroute.residency.reservoir import Reservoir
from banditroute.residency.set_search import SetSearch

__all__ = ["Polar"]

SLIGHT = 1e-4  # of the largest utility: the price of a fault where none costs anything
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
        u = mean + bonus, mean, or mean - bonus, with the policy's own bonus (`Policy.utilities`; a policy that cannot
        say what it maximises is refused). Optimistic is the default: with the mean, an adapter that is not resident
        pays faults, is not tried, looks bad and never gets in.
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

    needs_utilities = True

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

    def observe_many(self, arms: Ints, contexts: Floats, hits: Mask) -> None:
        """Keep the contexts."""
        self.contexts.extend(contexts)

    def plan(self, view: View) -> set[int]:
        """Return the best set for the next epoch; O(sample N dim^2)."""
        self.next_plan = view.clock + self.epoch
        contexts = self.contexts.sample(self.sample)
        if not len(contexts) or view.fits:
            return view.kept()
        mean, bonus = view.utilities(contexts)
        sign = {"mean": 0.0, "optimistic": 1.0, "pessimistic": -1.0}[self.index]
        look = looked(mean + sign * bonus if sign else mean.copy(), view)
        return set(np.flatnonzero(planned(look, view, self.epoch, self.hysteresis)).tolist())

    def resize(self, keep: list[int | None]) -> None:
        """Nothing is kept per arm."""
        self._resize_needs(keep)


def looked(utilities: Floats, view: View) -> SetSearch:
    """Return the search over these utilities, (n, N), which are changed: arms not worth loading are below all others.

    An infinite bonus, of an arm never tried, is more than any fault is worth.

    Where no fault costs anything all sets are worth the same; then the one that serves most requests is looked for, as
    if a fault cost very little.
    """
    faults = view.faults
    finite = np.isfinite(utilities)
    if not finite.all():
        known = utilities[finite] if finite.any() else np.zeros(1)
        beyond = float(faults.max()) + 1.0
        np.clip(utilities, known.min() - beyond, known.max() + beyond, out=utilities)
    if not (faults > 0.0).any():
        faults = np.full(faults.size, SLIGHT * max(1.0, float(np.abs(utilities).max())))
    barred = view.barred
    if barred is not None and not barred.all():
        utilities[:, barred] = utilities.min() - faults.max() - 1.0
    return SetSearch(utilities, faults)


def planned(
    look: SetSearch,
    view: View,
    epoch: float,
    hysteresis: float,
    *,
    capacity: float | None = None,
    previous: Mask | None = None,
    incumbent: Mask | None = None,
) -> Mask:
    """Return the best set under `look`, the old one unless the gain clears the hysteresis; (N,).

    The gain is the mean over contexts of the difference between the two sets; one standard error of that paired
    difference, times `hysteresis`, is what a change must be worth (load prices, spread over `epoch`, apart).
    """
    resident = view.resident
    loaded = resident.mask if previous is None else previous
    old = view.standing if incumbent is None else incumbent
    room = resident.capacity if capacity is None else capacity
    pins = np.zeros_like(old)
    pins[list(resident.pinned)] = True
    loads = view.loads / epoch
    new = look.best(room, resident.sizes, pins, previous=loaded, loads=loads)
    if hysteresis > 0.0 and (new != old).any() and resident.sizes[old].sum() <= room * (1 + 1e-12):
        gain = look.worth(new) - look.worth(old)
        error = float(gain.std()) / sqrt(len(gain))
        if float(gain.mean()) - float(loads[new & ~loaded].sum()) <= hysteresis * error:
            return old
    return new
