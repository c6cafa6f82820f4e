"""What a request needs beside the choice itself: upkeep, prices, residency, and those who are told."""

from collections import OrderedDict
from collections.abc import Mapping
from math import inf

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.records import Decision, Extras, Parts, Pending, Request
from banditroute.router.arms import Eligible, Priced
from banditroute.router.feedback_path import FeedbackPath, spread
from banditroute.router.ledger import IDS, Entry, decision_key
from banditroute.router.parts import RouterParts
from banditroute.router.planner import Planner

__all__ = ["RequestPath"]

SWEEP = 64  # decisions between looks at what has expired
_new = tuple.__new__


class RequestPath:
    """The steps of `Router.select` that most requests skip; the lock must be held.

    Parameters
    ----------
    parts : RouterParts
    feedback : FeedbackPath
    planner : Planner, optional
        With residency.
    """

    __slots__ = ("_feedback", "_parts", "_planner", "named", "watched")

    def __init__(self, parts: RouterParts, feedback: FeedbackPath, planner: Planner | None) -> None:
        self._parts, self._feedback, self._planner = parts, feedback, planner
        self.named: OrderedDict[int, Decision] = OrderedDict()  # decisions under ids of the caller
        self.watched = False  # whether terms or listeners are told of each decision
        self.collect()

    def collect(self) -> None:
        """See that terms, listeners or claims changed."""
        parts = self._parts
        self._feedback.collect()
        self.watched = bool(parts.table.terms or parts.listeners.deciding or parts.spread_pending)

    def idle(self, index: int) -> bool:
        """Whether nothing is due before a decision after all: every `SWEEP` of them it is only looked at."""
        parts, planner = self._parts, self._planner
        books, span = parts.books, parts.policy.span
        if books.barred or not (planner is None or planner.idle()):
            return False
        if span and index + books.others >= parts.boundary:
            return False
        if parts.ledger.overdue(books.clock() + books.offset):
            return False
        self._look_again(index)
        return True

    def upkeep(self, index: int) -> None:
        """Do what is due before a decision: plan, next bucket of the policy, expiry; `check` comes first."""
        parts = self._parts
        books, policy = parts.books, parts.policy
        if self._planner is not None:
            self._planner.upkeep()
        span, at = policy.span, index + books.others
        if span and at >= parts.boundary:
            policy.advance(at)
            parts.boundary = (at // span + 1) * span
        parts.ledger.sweep(books.now(), 2 * SWEEP)
        self._look_again(index)

    def _look_again(self, index: int) -> None:
        parts, books, span = self._parts, self._parts.books, self._parts.policy.span
        due = float(index // SWEEP + 1) * SWEEP
        if span:
            due = min(due, parts.boundary - books.others)
        if self._planner is not None and parts.residence is not None:
            due = min(due, max(self._planner.due_at(), index + 1.0))
        books.due = due

    def check(
        self,
        x: ArrayLike,
        eligible: Eligible | None,
        prices: Priced | None,
        weights: Mapping[str, float] | None,
        session: str | None,
        id: int | str | None,
        version: int | None,
    ) -> None:
        """Refuse what a choice would refuse, before anything is done for it."""
        parts = self._parts
        if parts.books.barred:
            parts.books.refuse()
        context = parts.policy.check_context(x)
        if all(said is None for said in (eligible, prices, weights, session, id, version)):
            return
        if id is not None and self.repeated(decision_key(id)) is not None:
            return
        extras = self._said(eligible, prices, False, weights, session, version)
        request = Request(context, parts.books.index + parts.books.others, extras, parts.books.now())
        parts.table.check(parts.policy, request, extras.prices, extras.eligible, parts.arms.muted)

    def _said(
        self,
        eligible: Eligible | None,
        prices: Priced | None,
        protected: bool,
        weights: Mapping[str, float] | None,
        session: str | None,
        version: int | None,
    ) -> Extras:
        arms = self._parts.arms
        if version is not None and version != arms.version:
            raise ValueError(f"version must be that of the arms, {arms.version}, got {version}: they changed")
        check_said(weights, session)
        mask = None if eligible is None else arms.allowed(eligible)
        own = None if prices is None else arms.priced(prices)
        return Extras(mask, own, protected, None, None, weights, session)

    def asked(
        self,
        x: ArrayLike,
        eligible: Eligible | None,
        prices: Priced | None,
        protected: bool,
        weights: Mapping[str, float] | None,
        session: str | None,
    ) -> Request:
        """Return a request as the next one would be, from what a caller says of it as in `select`; reads only."""
        parts = self._parts
        books = parts.books
        if books.barred:
            books.refuse()
        extras = self._said(eligible, prices, protected, weights, session, None)
        now = books.clock() + books.offset
        return Request(
            np.array(parts.policy.check_context(x)),
            books.index + books.others,
            extras,
            now if -inf < now < inf else books.time,
        )

    def priced(
        self,
        context: Floats,
        at: int,
        eligible: Eligible | None,
        prices: Priced | None,
        protected: bool,
        weights: Mapping[str, float] | None,
        session: str | None,
        version: int | None,
    ) -> tuple[Extras, Floats]:
        """Return what the caller said, by position, and what every arm costs this request."""
        parts = self._parts
        extras = self._said(eligible, prices, protected, weights, session, version)
        request = Request(context, at, extras, parts.books.now())
        return extras, parts.table.of_request(parts.policy, request, extras.prices, extras.eligible)

    def told(
        self,
        entry: Entry,
        context: Floats,
        extras: Extras | None,
        rows: Parts | None,
        arm: int,
        hit: bool,
        forced: bool,
        key: int | None,
    ) -> Decision:
        """Book a decision that terms or listeners are told of, or that has an id of the caller; arm -1 is a guest."""
        parts = self._parts
        books, table = parts.books, parts.table
        name, _, propensity, now, at = entry[:5]
        request = Request(context, at, extras, now)
        if table.terms and arm >= 0:
            held = tuple(books.guarded(term.name, term.reserve, name, request) for term in table.terms)
            entry = (*entry[:5], held, *entry[6:])
        own = key is not None
        key = parts.ledger.open(entry, key)
        if parts.spread_pending and arm >= 0:
            spread(parts, arm)
        decision: Decision = _new(Decision, (key, name, propensity, hit, books.epoch, now))
        if own:
            self.named[key] = decision
            if len(self.named) > parts.ledger.size_limit:
                self.named.popitem(last=False)
        if parts.listeners.deciding:
            parts.listeners.decided(decision, request, Pending(*entry), forced, rows)
        return decision

    def rows(self, context: Floats, at: int, extras: Extras | None) -> Parts:
        """Return copies of all prices of a request by name."""
        parts = self._parts
        prices, mask = (None, None) if extras is None else (extras.prices, extras.eligible)
        return parts.table.parts(parts.arms.names, Request(context, at, extras), prices, mask)

    def repeated(self, key: int) -> Decision | None:
        """Return the first decision under an id of the caller, or refuse an id that is another decision's."""
        if not 0 <= key < IDS:
            raise ValueError(f"id must be a string or an integer in [0, 2^63), got {key}")
        first = self.named.get(key)
        ledger = self._parts.ledger
        if first is None and (key in ledger.pending or key in ledger.closed):
            raise ValueError(
                f"id must be new or one that was given before, got that of another decision, {key}"
            )
        return first

    def after_fork(self) -> None:
        """Drop what belongs to the parent: pending decisions, prefetched ids and random numbers."""
        parts = self._parts
        for entry in parts.ledger.forget():
            self._feedback.release(entry[0], entry[5])
        self.named.clear()
        parts.arms.pending = [0] * len(parts.arms)
        if parts.spread_pending:
            for arm in range(len(parts.arms)):
                spread(parts, arm)
        parts.policy.reseed()


def check_said(weights: Mapping[str, float] | None, session: str | None) -> None:
    """Refuse weights that are no mapping and a session that is no text.

    Examples
    --------
    >>> check_said(None, 5)
    Traceback (most recent call last):
    TypeError: session must be a string, got 5
    """
    if weights is not None and not isinstance(weights, Mapping):
        raise TypeError(f"weights must map measures to prices, got {check.shown(weights)}")
    if session is not None and not isinstance(session, str):
        raise TypeError(f"session must be a string, got {check.shown(session)}")
