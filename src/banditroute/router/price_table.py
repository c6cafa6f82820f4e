"""The price table: a row per standing term, folded into one vector when a row has changed."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core.typing import Floats, Ints, Mask
from banditroute.policies import Policy
from banditroute.records import Parts, PriceRow, Request, Term, TermHost

__all__ = ["PriceTable", "Shown"]


class Shown(NamedTuple):
    """Every price of one request by name, what the arms pay in all, and the soft terms that were passed over.

    Examples
    --------
    >>> Shown({"fault": np.zeros(1)}, np.zeros(1), ()).passed_over
    ()
    """

    rows: dict[str, Floats]
    total: Floats
    passed_over: tuple[str, ...]


class PriceTable:
    """Prices of every arm by term; the first row, "fault", is the Router's own.

    Parameters
    ----------
    count : int
        Number of arms k.

    Notes
    -----
    A term rings when its row is out of date; that clears ``live``, from any thread and without a lock, and the next
    fold has it write. ``live`` is set before rows are read: a ring in between is not lost. ``effective`` (k,) is None
    where nothing is priced and nothing closed, which chooses the plain kernel.

    Examples
    --------
    >>> table = PriceTable(2)
    >>> table.fault.values[1] = 0.1
    >>> table.live = False
    >>> table.fold(np.array([False, False]))
    >>> table.effective
    array([0. , 0.1])
    """

    __slots__ = (
        "_muted",
        "_rows",
        "_stale",
        "effective",
        "fault",
        "host",
        "live",
        "moving",
        "relaxed",
        "terms",
    )

    def __init__(self, count: int) -> None:
        self.terms: tuple[Term, ...] = ()
        self.host: Callable[[], TermHost | None] = lambda: (
            None
        )  # the Router, which the table must not keep alive
        self.moving: tuple[Term, ...] = ()  # terms that price each request
        self.relaxed: Counter[str] = Counter()  # by term: how often it was passed over
        self.fault = PriceRow(np.zeros(count), lambda: None)
        self._muted = np.zeros(count, dtype=np.bool_)
        self._rows: list[tuple[Term, PriceRow]] = []
        self._stale: dict[int, Term] = {}
        self.live = False
        self.effective: Floats | None = None

    def bind(self, terms: Sequence[Term], names: tuple[str, ...]) -> None:
        """Give each term a row for these arms; the fault row starts at zero."""
        self.fault = PriceRow(np.zeros(len(names)), lambda: None)
        self.terms = tuple(terms)
        self.moving = tuple(term for term in terms if term.per_request)
        self._rows, self._stale = [], {}
        for at, term in enumerate(terms):
            ring = partial(self._ring, at, term)
            row = PriceRow(np.zeros(len(names)), ring, self.host)
            self._rows.append((term, row))
            self._stale[at] = term
            term.bind(names, row)
        self.live = False

    def _ring(self, at: int, term: Term) -> None:
        self._stale[at] = term
        self.live = False

    def fold(self, muted: Mask) -> None:
        """Have stale rows written and add all up; a soft term that would leave no arm is passed over and counted.

        Raises
        ------
        ValueError
            No arm is left; the next request tries again.
        """
        self.live = True
        self._write()
        self._muted = muted
        try:
            total, passed = self._folded(muted)
        except ValueError:
            self.live = False
            raise
        if passed:
            self.relaxed.update(passed)
        self.effective = total if total.any() else None

    def reprice(self, arm: int, price: float) -> None:
        """Change what a fault of one arm costs; where terms add to it, the next request folds."""
        self.fault.values[arm] = price
        if not self.live or self._rows:
            self.live = False
            return
        old = self.effective  # which somebody may keep
        total = np.where(self._muted, inf, 0.0) if old is None else old.copy()
        if not self._muted[arm]:
            total[arm] = price
        self.effective = total if price or total.any() else None

    def _write(self) -> None:
        while self._stale:
            at, term = self._stale.popitem()
            try:
                term.write()
            except BaseException:
                self._ring(at, term)
                raise

    def of_candidates(
        self, request: Request, places: Ints, own: Floats, muted: Mask, *, count: bool = True
    ) -> Shown:
        """Return what each candidate of a request pays: those that are arms pay as the arms do, others ``own`` alone.

        ``places`` (m,) are positions of arms, -1 for others; ``own`` (m,) is what the caller says. Soft terms that
        would leave no candidate are passed over, and counted unless `count` is False: then nothing changes.

        Raises
        ------
        ValueError, TypeError
            No candidate is left open; a term that raises.
        """
        arms = places >= 0

        def of_each(values: Floats) -> Floats:
            return np.where(arms, values[places], 0.0) if len(values) else np.zeros(len(places))

        rows = {
            "fault": of_each(self.fault.values),
            "caller": own,
            "quarantine": of_each(np.where(muted, inf, 0.0)),
        }
        total, passed = sum(rows.values(), np.zeros(len(places))), []
        if total.min() == inf:
            raise ValueError("eligible must allow a candidate that is not quarantined, got none")
        if count:
            self._write()
        else:
            for term in list(self._stale.values()):
                term.write()
        for term, row in self._rows:
            priced = self._asked(term, request) if term.per_request else None
            mine = of_each(row.values if priced is None else row.values + priced)
            both = total + mine
            if both.min() < inf:
                total, rows[term.name] = both, mine
            elif term.soft:
                passed.append(term.name)
            else:
                raise ValueError(f"candidates must hold one that term {term.name!r} leaves open, got none")
        if passed and count:
            self.relaxed.update(passed)
        return Shown(rows, total, tuple(passed))

    def _folded(self, muted: Mask) -> tuple[Floats, tuple[str, ...]]:
        """Return the sum of the standing rows, and the soft terms that would leave no arm."""
        total, passed = np.where(muted, inf, self.fault.values), []
        for term, row in self._rows:
            both = total + row.values
            if term.soft and len(both) and both.min() == inf:
                passed.append(term.name)
            else:
                total = both
        if len(total) and total.min() == inf:
            raise ValueError("terms and quarantine must leave an arm, got none")
        return total, tuple(passed)

    def of_request(
        self, policy: Policy, request: Request, prices: ArrayLike | None, eligible: ArrayLike | None
    ) -> Floats:
        """Return what one request pays for each arm, (k,), infinite where it is closed.

        Raises
        ------
        ValueError, TypeError
            Wrong shape, dtype or value, a term that raises, or no arm left.
        """
        base = self.effective
        for term in self.moving:
            own = self._asked(term, request)
            if own is not None:
                base = own if base is None else base + own
        try:
            return policy.effective_prices(prices, eligible, base)
        except ValueError:
            if not any(term.soft for term in self.terms):
                raise
        total, passed = self._softened(policy, request, prices, eligible, self._muted)
        self.relaxed.update(passed)
        return total

    def check(
        self,
        policy: Policy,
        request: Request,
        prices: ArrayLike | None,
        eligible: ArrayLike | None,
        muted: Mask,
    ) -> None:
        """Raise what `of_request` would raise for what the caller said; counts nothing."""
        if self.live:
            for term in self.moving:
                self._asked(term, request)
        policy.effective_prices(prices, eligible, np.where(muted, inf, 0.0))

    def _asked(self, term: Term, request: Request) -> Floats | None:
        weights = None if request.extras is None else request.extras.weights
        own = term.prices(request, weights=weights)
        if own is None:
            return None
        count = len(self.fault.values)
        values = np.asarray(own, dtype=np.float64)
        if values.shape != (count,) or not (values > -inf).all():
            raise ValueError(
                f"prices of term {term.name!r} must be ({count},) numbers or inf, got {values!r}"
            )
        return values

    def _softened(
        self,
        policy: Policy,
        request: Request,
        prices: ArrayLike | None,
        eligible: ArrayLike | None,
        muted: Mask,
    ) -> tuple[Floats, tuple[str, ...]]:
        """As `of_request`, term by term, passing over the soft ones that would leave no arm."""
        passed = []
        total = policy.effective_prices(prices, eligible, np.where(muted, inf, self.fault.values))
        for term, row in self._rows:
            both = total + row.values
            if term.per_request:
                own = self._asked(term, request)
                both = both if own is None else both + own
            if both.min() < inf:
                total = both
            elif term.soft:
                passed.append(term.name)
            else:
                raise ValueError(f"eligible must allow an arm that term {term.name!r} leaves open, got none")
        return total, tuple(passed)

    def shown(
        self,
        policy: Policy,
        request: Request,
        prices: ArrayLike | None,
        eligible: ArrayLike | None,
        muted: Mask,
    ) -> Shown:
        """Return what `fold` and `of_request` would come to, by name; counts nothing and leaves what is stale so.

        Raises
        ------
        ValueError, TypeError
            As these two would.
        """
        for term in list(self._stale.values()):
            term.write()  # the row alone: the next request has it written again
        total, passed = self._folded(muted)
        base = total if total.any() else None
        for term in self.moving:
            own = self._asked(term, request)
            if own is not None:
                base = own if base is None else base + own
        try:
            total = policy.effective_prices(prices, eligible, base)
        except ValueError:
            if not any(term.soft for term in self.terms):
                raise
            total, passed = self._softened(policy, request, prices, eligible, muted)
        rows = {"fault": self.fault.values.copy()}
        for term, row in self._rows:
            own = self._asked(term, request) if term.per_request else None
            rows[term.name] = row.values.copy() if own is None else row.values + own
        return Shown(rows, total, passed)

    def parts(
        self, names: tuple[str, ...], request: Request, prices: ArrayLike | None, eligible: ArrayLike | None
    ) -> Parts:
        """Return copies of all rows by name, those of the caller included."""
        rows = {"fault": self.fault.values.copy()}
        if self._muted.any():
            rows["quarantine"] = np.where(self._muted, inf, 0.0)
        for term, row in self._rows:
            own = self._asked(term, request) if term.per_request else None
            rows[term.name] = row.values.copy() if own is None else row.values + own
        if prices is not None or eligible is not None:
            caller = np.zeros(len(names)) if prices is None else np.array(prices, dtype=np.float64)
            rows["caller"] = caller if eligible is None else np.where(np.asarray(eligible), caller, inf)
        return Parts(names, rows)
