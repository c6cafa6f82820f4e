"""Controllers that insert on a fault and count uses: LFU, decayed LFU, GDSF and follow-the-perturbed-leader."""

from collections.abc import Iterable
from math import log, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Rng
from banditroute.residency.classic import Inserting
from banditroute.residency.resident_set import ResidentSet

__all__ = ["FTPL", "GDSF", "LFU", "DecayedLFU"]

LARGEST = 1e100  # counts are scaled down before they overflow


class LFU(Inserting):
    """Evict the least frequently used, and insert only an arm used more often than its victim.

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    pinned : iterable of str or int
        Arms that never leave.

    Notes
    -----
    Uses are counted for arms outside the set too: without them a new arm could never show that it is used more often
    (``cachetools.LFUCache`` forgets the count of what leaves, so it cannot serve here).

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> Router(LinUCB(arms=3, dim=2), residency=LFU(2), paging=0.1).resident
    ('0', '1')
    """

    def __init__(self, capacity: float, *, pinned: Iterable[str | int] = (), rng: Rng = None) -> None:
        super().__init__(capacity, pinned=pinned, rng=rng)
        self._uses: Floats = np.zeros(0)

    def begin(self, resident: ResidentSet) -> None:
        """Start from the first arms that fit, all uses zero."""
        self._uses = np.zeros(len(resident.mask))
        super().begin(resident)

    def observe(self, arm: int, x: Floats, hit: bool) -> None:
        """Count a use."""
        self._uses[arm] += 1.0

    def leaving(self, resident: ResidentSet) -> Iterable[int]:
        """Return the resident arms, the least used first, ties by index."""
        return sorted(resident, key=lambda a: self._uses[a])

    def admits(self, arm: int, victims: list[int]) -> bool:
        """Admit an arm that is used more often than all its victims together."""
        return bool(self._uses[arm] > self._uses[victims].sum())

    def resize(self, keep: list[int | None]) -> None:
        """Carry the counts over to the new indices."""
        self._resize_needs(keep)
        self._uses = np.array([0.0 if a is None else self._uses[a] for a in keep])


class DecayedLFU(LFU):
    """LFU whose counts halve every `half_life` requests.

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    half_life : float
        Requests after which a use counts half.
    pinned : iterable of str or int
        Arms that never leave.

    Notes
    -----
    A use at request t adds ``2 ** (t / half_life)``: the order is that of counts decayed to now, at no cost.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> Router(LinUCB(arms=3, dim=2), residency=DecayedLFU(2, half_life=100), paging=0.1).resident
    ('0', '1')
    """

    def __init__(
        self,
        capacity: float,
        half_life: float = 1000.0,
        *,
        pinned: Iterable[str | int] = (),
        rng: Rng = None,
    ) -> None:
        super().__init__(capacity, pinned=pinned, rng=rng)
        self.half_life = check.finite("half_life", half_life, low=1.0)
        self._weight = 1.0

    def begin(self, resident: ResidentSet) -> None:
        """Start from the first arms that fit, all uses zero."""
        self._weight = 1.0
        super().begin(resident)

    def observe(self, arm: int, x: Floats, hit: bool) -> None:
        """Count a use with the weight of now."""
        self._uses[arm] += self._weight
        self._weight *= 2.0 ** (1.0 / self.half_life)
        if self._weight > LARGEST:
            self._uses /= self._weight
            self._weight = 1.0


class GDSF(Inserting):
    """Greedy-Dual-Size-Frequency: evict the lowest ``age + uses x price / size``.

    ``uses`` counts since the arm became resident; the age is the score of the last eviction, so that what was
    popular long ago sinks.

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    prices : float or (N,) array
        What a fault of each arm costs, in any unit.
    pinned : iterable of str or int
        Arms that never leave.

    Notes
    -----
    Cao and Irani, "Cost-aware WWW proxy caching algorithms" (USITS 1997), with the frequency of Cherkasova (HPL-98-69,
    1998). Every fault inserts. An arm added while running gets the mean price.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> faults = [0.1, 0.2, 0.3]
    >>> Router(LinUCB(arms=3, dim=2), residency=GDSF(2, faults), paging=faults).resident
    ('0', '1')
    """

    def __init__(
        self,
        capacity: float,
        prices: float | ArrayLike = 1.0,
        *,
        pinned: Iterable[str | int] = (),
        rng: Rng = None,
    ) -> None:
        super().__init__(capacity, pinned=pinned, rng=rng)
        self._given = np.array(prices, dtype=np.float64)
        if not (np.isfinite(self._given).all() and (self._given >= 0).all() and self._given.size):
            raise ValueError(f"prices must be finite and >= 0, got {prices!r}")
        self._worth = self._uses = self._score = np.zeros(0)
        self._age = 0.0

    def begin(self, resident: ResidentSet) -> None:
        """Start from the first arms that fit, none of them used."""
        count = len(resident.mask)
        prices = np.full(count, self._given) if self._given.ndim == 0 else self._given
        self._worth = check.vector("prices", prices, count) / resident.sizes
        self._uses, self._score, self._age = np.zeros(count), np.zeros(count), 0.0
        super().begin(resident)

    def observe(self, arm: int, x: Floats, hit: bool) -> None:
        """Raise the score of a used resident."""
        if hit:
            self._uses[arm] += 1.0
            self._score[arm] = self._age + self._uses[arm] * self._worth[arm]

    def leaving(self, resident: ResidentSet) -> Iterable[int]:
        """Return the resident arms, the lowest score first, ties by index."""
        return sorted(resident, key=lambda a: self._score[a])

    def make_room(self, arm: int, resident: ResidentSet) -> list[int] | None:
        """Evict the lowest scores and count the fault as the first use."""
        victims = super().make_room(arm, resident)
        if victims is not None:
            self.observe(arm, np.zeros(0), True)
        return victims

    def confirmed(self, arm: int, resident: bool) -> None:
        """Follow a server: its loads count as a first use, what it displaces is forgotten; neither makes older."""
        if not resident:
            self._uses[arm] = self._score[arm] = 0.0
        elif not self._uses[arm]:
            self.observe(arm, np.zeros(0), True)

    def removed(self, arm: int) -> None:
        """Grow older by what left; its uses are forgotten."""
        self._age = max(self._age, float(self._score[arm]))
        self._uses[arm] = self._score[arm] = 0.0

    def resize(self, keep: list[int | None]) -> None:
        """Carry scores over to the new indices."""
        self._resize_needs(keep)
        mean = float(self._worth.mean())
        self._worth = np.array([mean if a is None else self._worth[a] for a in keep])
        self._uses = np.array([0.0 if a is None else self._uses[a] for a in keep])
        self._score = np.array([0.0 if a is None else self._score[a] for a in keep])


class FTPL(LFU):
    """Follow the perturbed leader: keep the arms with the most uses, counts blurred by noise drawn once.

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    width : float, optional
        Standard deviation of the noise, in uses. By default ``(4 pi ln N)^(-1/4) sqrt(t / capacity)`` at request t,
        with the capacity in slots.
    pinned : iterable of str or int
        Arms that never leave.
    rng : int, SeedSequence, Generator or None
        Draws the noise.

    Notes
    -----
    Mukhopadhyay and Sinha (arXiv 2101.07043): sublinear regret in hits and few switches against any sequence of
    requests. Here the set changes on faults only, one insertion at a time; with equal sizes and a fixed `width` that is
    the rule itself, because a request raises one count, and only a fault can change who leads. It starts from the
    leaders of the noise. The form of the default width follows the literature on caching; its constant is recalled.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> len(Router(LinUCB(arms=3, dim=2), residency=FTPL(2, rng=0), paging=0.1).resident)
    2
    """

    def __init__(
        self,
        capacity: float,
        width: float | None = None,
        *,
        pinned: Iterable[str | int] = (),
        rng: Rng = None,
    ) -> None:
        super().__init__(capacity, pinned=pinned, rng=rng)
        self.width = None if width is None else check.finite("width", width, low=0.0)
        self._draws: Floats = np.zeros(0)
        self._growth = 0.0
        self._seen = 0

    def begin(self, resident: ResidentSet) -> None:
        """Draw the noise and start from its leaders."""
        count = len(resident.mask)
        self.needs, self._uses, self._seen = np.zeros(count), np.zeros(count), 0
        self._draws = self._rng.standard_normal(count)
        slots = max(1.0, resident.capacity / float(resident.sizes.mean()))
        self._growth = (4.0 * pi * log(max(count, 2))) ** -0.25 / sqrt(slots)
        for arm in np.argsort(-self._draws, kind="stable").tolist():
            resident.load(arm)
        resident.page_ins = 0

    def observe(self, arm: int, x: Floats, hit: bool) -> None:
        """Count a use."""
        self._uses[arm] += 1.0
        self._seen += 1

    def blurred(self) -> Floats:
        """Return the counts plus the noise, shape (N,)."""
        width = self._growth * sqrt(self._seen) if self.width is None else self.width
        return self._uses + width * self._draws

    def leaving(self, resident: ResidentSet) -> Iterable[int]:
        """Return the resident arms, the lowest blurred count first."""
        blurred = self.blurred()
        return sorted(resident, key=lambda a: blurred[a])

    def admits(self, arm: int, victims: list[int]) -> bool:
        """Admit an arm that leads each of its victims."""
        blurred = self.blurred()
        return all(blurred[arm] > blurred[victim] for victim in victims)

    def resize(self, keep: list[int | None]) -> None:
        """Carry counts and noise over to the new indices; a new arm gets a new draw."""
        super().resize(keep)
        self._draws = np.array([self._rng.standard_normal() if a is None else self._draws[a] for a in keep])
