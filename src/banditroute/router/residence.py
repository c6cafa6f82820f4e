"""The resident set of a Router, desired and actual, and what a fault costs."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.errors import UnknownArm
from banditroute.policies.base import LARGEST
from banditroute.residency import Controller, ResidentSet
from banditroute.residency.paging import Paging, as_paging, fault_prices
from banditroute.router.arms import Arms
from banditroute.router.books import Books
from banditroute.router.price_table import PriceTable

__all__ = ["Residence"]


class Residence:
    """What a controller wants resident, what is, and the prices that follow.

    Without a server the two are one set. With one, ``actual`` changes only as the server confirms.

    Parameters
    ----------
    controller : Controller
    paging : Paging, float or (k,) array
        Model of the wait of a fault, or its price in reward units.
    arms, table, books
        The Router's own.
    sizes : mapping or (k,) array, optional
        Size of each arm in the unit of the capacity.
    switching : float
        Loading an arm at a plan costs this share of its fault price.
    loads : (k,) array, optional
        Price of loading each arm at a plan, in place of ``switching * faults``.
    served : bool
        Whether a server holds the adapters.

    Examples
    --------
    >>> from banditroute.residency import Static
    >>> arms = Arms(("a", "b"))
    >>> residence = Residence(Static(["a"]), 0.1, arms, PriceTable(2), Books(lambda: 0.0))
    >>> list(residence.actual), residence.faults
    ([0], array([0.1, 0.1]))
    """

    __slots__ = (
        "_arms", "_books", "_slots", "_table", "actual", "controller", "desired", "faults", "later", "loads", "paging",
        "served", "switching",
    )  # fmt: skip

    def __init__(
        self,
        controller: Controller,
        paging: Paging | float | ArrayLike,
        arms: Arms,
        table: PriceTable,
        books: Books,
        *,
        sizes: Mapping[str, float] | ArrayLike | None = None,
        switching: float = 1.0,
        loads: ArrayLike | None = None,
        served: bool = False,
    ) -> None:
        self._arms, self._table, self._books = arms, table, books
        self.controller, self.switching, self.served = controller, switching, served
        known = self._sized(sizes)
        self._slots = known is None
        self.later: list[tuple[int, bool, bool]] | None = None  # while the controller is busy with a plan
        self.paging = as_paging(paging, len(arms))
        self.faults = self._priced(known)
        self.loads = switching * self.faults if loads is None else check.vector("loads", loads, len(arms))
        pinned = [arms.positions[a] if isinstance(a, str) else a for a in self._pins()]
        self.desired = ResidentSet(len(arms), controller.capacity, sizes=known, pinned=pinned)
        controller.begin(self.desired)
        self.actual = self.desired
        if served:
            self.actual = self.desired.bare()
        self.reprice()

    def __repr__(self) -> str:
        """Show what is resident and what is wanted."""
        return f"Residence({type(self.controller).__name__}, resident={list(self.names())})"

    def _pins(self) -> Iterable[str | int]:
        for pin in self.controller.pinned:
            if isinstance(pin, str) and pin not in self._arms.positions:
                raise UnknownArm(f"arm must be one of {list(self._arms.names)}, got {pin!r}")
            yield pin

    def names(self) -> tuple[str, ...]:
        """Return the names of the arms that are resident."""
        return tuple(self._arms.names[a] for a in self.actual)

    def wanted(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the names of the desired set, and of those of it that are pinned."""
        names = self._arms.names
        return frozenset(names[a] for a in self.desired), frozenset(names[a] for a in self.desired.pinned)

    def reprice(self) -> None:
        """Write the fault row anew: an arm that is not resident costs its fault and the controller's surcharge."""
        dear = self.faults + self.controller.surcharge
        self._table.fault.values[:] = np.where(self.actual.mask, 0.0, dear)
        self._table.live = False

    def _reprice_one(self, arm: int) -> None:
        there = self.actual.mask[arm]
        self._table.reprice(arm, 0.0 if there else float(self.faults[arm]) + self.controller.surcharge)

    def replace(self, wanted: set[int]) -> None:
        """Take up a plan; without a server it is in force at once and its loads are paid."""
        loaded, _ = self.desired.replace(wanted)
        if not self.served:
            self._books.load_price += float(self.loads[sorted(loaded)].sum())
            self.reprice()

    def insert(self, arm: int) -> bool:
        """Have the controller make room for an arm after a fault; whether the desired set changed."""
        if self.desired.mask[arm]:  # it is wanted already, and on its way
            return False
        victims = self.controller.make_room(arm, self.desired)
        if victims is None:
            return False
        for victim in victims:
            self.desired.evict(victim)
        self.desired.load(arm)
        if not self.served:
            for a in (*victims, arm):
                self._reprice_one(a)
            self._books.inserted += 1
        return True

    def confirm(self, name: str, resident: bool, own: bool = True) -> bool:
        """Learn that an arm has become resident, or has left; whether that was news. Loads of others are not paid."""
        arm = self._arms.positions.get(name)
        if arm is None:
            return False
        if self.served:
            changed = self.actual.follow(arm, resident)
        else:
            changed = self.actual.load(arm) if resident else self.actual.evict(arm)
        if self.later is not None:
            self.later.append((arm, resident, changed))
        else:
            self._tell(arm, resident, changed)
        if changed:
            if resident and own:
                self._books.load_price += float(self.loads[arm])
            self._reprice_one(arm)  # this one alone: at a server that displaces, requests come this way
        return changed

    def want(self, names: Iterable[str]) -> bool:
        """Take up the desired set of the worker that plans; False where that does not fit here, or is the same."""
        if not self.served:  # it is the actual set, which `confirm` follows
            return False
        positions = self._arms.positions
        wanted = {positions[name] for name in names if name in positions}
        if wanted == set(self.desired):
            return False
        try:
            self.desired.replace(wanted)
        except ValueError:
            return False
        return True

    def _tell(self, arm: int, resident: bool, changed: bool) -> None:
        """Let the controller follow what was confirmed."""
        if self.served and self.controller.inserts and resident != bool(self.desired.mask[arm]):
            # Faults, not plans, say what is wanted: what the server displaced, or could not load, is not.
            if self.desired.load(arm) if resident else self.desired.evict(arm):
                self.controller.confirmed(arm, resident)
        elif changed:
            self.controller.confirmed(arm, resident)

    def catch_up(self) -> None:
        """Tell the controller what was confirmed while it was busy with a plan."""
        told, self.later = self.later or [], None
        for arm, resident, changed in told:
            self._tell(arm, resident, changed)

    def new_fault(self, fault: float | None, size: float) -> float:
        """Return the fault price of an arm to be added."""
        if fault is not None:
            return check.finite("fault", fault, low=0.0, high=LARGEST)
        sizes = None if self._slots and size == 1.0 else np.append(self.desired.sizes, size)
        try:
            return float(fault_prices(self.paging, len(self._arms) + 1, sizes)[-1])
        except ValueError as error:
            raise ValueError(
                "fault must be given where paging prices the arms one by one, got None"
            ) from error

    def change(self, keep: list[int | None], size: float, fault: float) -> None:
        """Follow a change of arms; the arms and the table have changed already."""
        self.faults = carried(self.faults, keep, fault)
        self.loads = carried(self.loads, keep, self.switching * fault)
        one = self.desired is self.actual
        self.desired = _moved(self.desired, keep, size)
        self.actual = self.desired if one else _followed(self.actual, self.desired, keep)
        self.controller.resize(keep)
        self.reprice()

    def _priced(self, sizes: Floats | None) -> Floats:
        faults = fault_prices(self.paging, len(self._arms), sizes)
        if not faults.max() <= LARGEST:
            raise ValueError(f"paging must price faults at {LARGEST:g} at most, got {faults.max():g}")
        return faults

    def _sized(self, sizes: Mapping[str, float] | ArrayLike | None) -> Floats | None:
        if sizes is None:
            return None
        if isinstance(sizes, Mapping):
            missing = [a for a in self._arms.names if a not in sizes]
            if missing:
                raise ValueError(f"sizes must name every arm, got none for {missing}")
            sizes = [sizes[a] for a in self._arms.names]
        return check.vector("sizes", sizes, len(self._arms))


def carried(old: Floats, keep: list[int | None], new: float) -> Floats:
    """Return per-arm numbers after a change of arms.

    Examples
    --------
    >>> carried(np.array([1.0, 2.0]), [1, None], 0.5)
    array([2. , 0.5])
    """
    return np.array([new if a is None else old[a] for a in keep])


def _followed(old: ResidentSet, desired: ResidentSet, keep: list[int | None]) -> ResidentSet:
    new = desired.bare()
    for arm, before in enumerate(keep):
        if before is not None:
            new.follow(arm, bool(old.mask[before]))
    new.page_ins, new.evictions = old.page_ins, old.evictions
    return new


def _moved(old: ResidentSet, keep: list[int | None], size: float) -> ResidentSet:
    place = {a: i for i, a in enumerate(keep) if a is not None}
    new = ResidentSet(
        len(keep),
        old.capacity,
        sizes=[size if a is None else old.sizes[a] for a in keep],
        pinned=[place[a] for a in old.pinned],
    )
    new.replace(place[a] for a in old if a in place)
    new.page_ins, new.evictions = old.page_ins, old.evictions
    return new
