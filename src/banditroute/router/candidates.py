"""Requests that bring their own candidates: names with features, another set each time."""

from collections.abc import Mapping
from contextlib import suppress
from math import inf
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.errors import UnknownArm
from banditroute.policies import Choice
from banditroute.policies.base import LARGEST
from banditroute.policies.candidates import CandidatePolicy, Candidates, chooser, unwrapped
from banditroute.records import Decision, Extras, Parts, Request
from banditroute.router.arms import Eligible, Priced
from banditroute.router.explain import Explanation, explained_candidates
from banditroute.router.ledger import decision_key
from banditroute.router.parts import RouterParts
from banditroute.router.planner import Planner
from banditroute.router.request_path import RequestPath, check_said

__all__ = ["CandidatePath", "Candidates"]


class CandidatePath:
    """The way of a request with candidates: `Router.select` and `Router.explain` come here.

    Parameters
    ----------
    parts : RouterParts
    requests : RequestPath
        What all requests have in common.
    planner : Planner, optional
        With residency.

    Examples
    --------
    >>> from banditroute import Router
    >>> from banditroute.policies import SharedLinUCB
    >>> router = Router(SharedLinUCB([], 1, features=2, rng=0))
    >>> router.select([1.0], candidates={"n1": [1.0, 0.2], "n2": [1.0, 0.2]}).propensity
    0.5
    """

    __slots__ = ("_chooser", "_parts", "_planner", "_requests")

    def __init__(self, parts: RouterParts, requests: RequestPath, planner: Planner | None = None) -> None:
        self._parts, self._requests, self._planner = parts, requests, planner
        self._chooser: CandidatePolicy | None = None
        with suppress(TypeError):  # asking takes 30 microseconds
            self._chooser = chooser(parts.policy)

    def select(
        self,
        x: ArrayLike,
        candidates: Candidates,
        eligible: Eligible | None,
        prices: Priced | None,
        protected: bool,
        weights: Mapping[str, float] | None,
        session: str | None,
        id: int | str | None,
        version: int | None,
    ) -> Decision:
        """Choose among the candidates of a request; takes the lock."""
        parts, requests = self._parts, self._requests
        with parts.lock:
            books = parts.books
            if books.barred:
                books.refuse()
            key = None
            if id is not None:
                key = decision_key(id)
                first = requests.repeated(key)
                if first is not None:
                    return first
            policy = self.policy()
            request, names, z, own = self.asked(
                x, candidates, eligible, prices, protected, weights, session, version
            )
            index = books.index
            if index >= books.due:
                requests.upkeep(index)
            places = policy.places(names)
            table, offers, rows = parts.table, own, None
            if (
                table.terms
                or parts.residence is not None
                or parts.arms.muted.any()
                or parts.listeners.keeps_parts
            ):
                shown = table.of_candidates(request, places, own, parts.arms.muted)
                offers, rows = shown.total, Parts(names, shown.rows)
            place, propensity = policy.choose_candidate(request.x, names, z, offers)
            kept = policy.kept_candidate(request.x, z[place])
            return self.booked(request, names[place], int(places[place]), kept, propensity, rows, key)

    def booked(
        self,
        request: Request,
        name: str,
        arm: int,
        kept: Floats,
        propensity: float,
        rows: Parts | None,
        key: int | None,
    ) -> Decision:
        """Book a choice of one candidate, an arm or, where that is -1, a guest; the lock must be held."""
        parts, requests = self._parts, self._requests
        books, arms, extras = parts.books, parts.arms, request.extras
        assert extras is not None
        hit = True
        if self._planner is not None and arm >= 0:
            _, _, hit, _ = self._planner.served(request.x, None, Choice(arm, propensity), True)
        books.index += 1
        books.hits += hit
        if arm >= 0:
            arms.pending[arm] += 1
            arms.plays[arm] += 1
        entry = (name, kept, propensity, request.time, request.at, None, extras.weights, extras.session)
        return requests.told(entry, request.x, extras, rows, arm, hit, False, key)

    def explain(
        self,
        x: ArrayLike,
        candidates: Candidates,
        eligible: Eligible | None,
        prices: Priced | None,
        weights: Mapping[str, float] | None,
        session: str | None,
        blocked: frozenset[str],
    ) -> Explanation:
        """Say what every candidate of a request would be worth; the lock must be held, nothing changes."""
        if self._parts.books.barred:
            self._parts.books.refuse()
        request, _, _, own = self.asked(x, candidates, eligible, prices, True, weights, session)
        return explained_candidates(self._parts, request, own, blocked)

    def policy(self) -> CandidatePolicy:
        """Return what of the policy takes candidates; ``TypeError`` says why nothing does."""
        inner: object = unwrapped(self._parts.policy)
        if self._chooser is not None and self._chooser is inner:
            return self._chooser
        self._chooser = chooser(self._parts.policy)  # a wrapper has put another policy into itself
        return self._chooser

    def asked(
        self,
        x: ArrayLike,
        candidates: Candidates,
        eligible: Eligible | None,
        prices: Priced | None,
        protected: bool,
        weights: Mapping[str, float] | None,
        session: str | None,
        version: int | None = None,
    ) -> tuple[Request, tuple[str, ...], Floats, Floats]:
        """Return the request, names and features, and what the caller charges each; reads only."""
        parts = self._parts
        books = parts.books
        names, z = self.policy().check_candidates(candidates)
        context = np.array(parts.policy.check_context(x))
        check_said(weights, session)
        if version is not None and version != parts.arms.version:
            raise ValueError(
                f"version must be that of the arms, {parts.arms.version}, got {version}: they changed"
            )
        own = _priced(names, prices, parts.arms.positions)
        if eligible is not None:
            own = np.where(_allowed(names, eligible, parts.arms.positions), own, inf)
            if own.min() == inf:
                raise ValueError("eligible must allow a candidate, got none")
        now = books.clock() + books.offset
        now = now if -inf < now < inf else books.time
        told = z.copy() if parts.listeners.deciding else z
        extras = Extras(None, None, protected, (names, told), None, weights, session)
        return Request(context, books.index + books.others, extras, now), names, z, own


def _priced(names: tuple[str, ...], given: Priced | None, arms: Mapping[str, int]) -> Floats:
    """Return the caller's prices of the candidates, by name or by place."""
    if given is None:
        return np.zeros(len(names))
    if not isinstance(given, Mapping):
        return check.vector("prices", given, len(names), limit=LARGEST).copy()
    place = {name: i for i, name in enumerate(names)}
    own = np.zeros(len(names))
    for name, price in given.items():
        if name in place:
            own[place[name]] = check.finite(f"prices[{name!r}]", price, low=-LARGEST, high=LARGEST)
        elif name not in arms:
            raise UnknownArm(f"prices must name candidates or arms, got {check.shown(name)}")
    return own


def _allowed(names: tuple[str, ...], given: Any, arms: Mapping[str, int]) -> Any:
    """Return the mask of the candidates that the caller allows, by name or by place."""
    if isinstance(given, Mapping):
        missing = [name for name in names if name not in given]
        if missing:
            raise ValueError(
                f"eligible must name every candidate when it is a mapping, got none for {missing[:8]}"
            )
        given = {name for name, allowed in given.items() if allowed}
    if isinstance(given, set | frozenset) or (
        isinstance(given, list | tuple) and given and isinstance(given[0], str)
    ):
        known = set(names)
        for name in given:
            if name not in known and name not in arms:
                raise UnknownArm(f"eligible must name candidates or arms, got {check.shown(name)}")
        return np.array([name in given for name in names], dtype=np.bool_)
    mask = np.asarray(given)
    if mask.dtype != np.bool_:
        raise TypeError(f"eligible must be a boolean mask, got dtype {mask.dtype}")
    if mask.shape != (len(names),):
        raise ValueError(f"eligible must have shape ({len(names)},), got {mask.shape}")
    return mask
