"""Ids of the caller: a repeated call gets the first answer, also from another worker."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import NamedTuple

from banditroute._core import validation as check
from banditroute.errors import UnknownDecision
from banditroute.records import Decision
from banditroute.router import Router
from banditroute.router.ledger import LONGEST_ID, decision_key
from banditroute.servers.answers import shared_store, standing

__all__ = ["Chosen", "Ended", "Repeats"]


class Ended(ValueError):
    """The decision under an id of the caller has ended, and what it said is forgotten.

    Examples
    --------
    >>> issubclass(Ended, ValueError)
    True
    """


class Chosen(NamedTuple):
    """What a caller is told of a decision.

    Examples
    --------
    >>> Chosen.read(Chosen(7, "large", 1.0, True).text()).arm
    'large'
    """

    id: int
    arm: str
    propensity: float
    hit: bool

    @classmethod
    def of(cls, decision: Decision) -> "Chosen":
        """Return it of a decision."""
        return cls(decision.id, decision.arm, float(decision.propensity), bool(decision.hit))

    def text(self) -> bytes:
        """Return it as bytes."""
        return json.dumps(self).encode()

    @classmethod
    def read(cls, data: bytes) -> "Chosen":
        """Return what `text` wrote."""
        return cls(*json.loads(data))


class Repeats:
    """Decisions by the caller's own ids.

    Without shared decisions the Router itself keeps them: the id is the decision's. With them the first answer lies in
    the store, which leaves alone what it has: of two workers that are asked at once the second withdraws its own
    decision and tells the first one's.

    Parameters
    ----------
    router : Router

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> repeats = Repeats(router := Router(LinUCB(["a", "b"], 1, rng=0)))
    >>> first, again = (repeats.select("mine", lambda **own: router.select([1.0], **own)) for _ in range(2))
    >>> first == again, router.stats()["decisions"]
    (True, 1)
    """

    def __init__(self, router: Router) -> None:
        self.router, self.store = router, shared_store(router)
        self._limit_s = router.parts.ledger.time_limit

    def select(self, own: str, decide: Callable[..., Decision]) -> Chosen:
        """Return the decision under an id of the caller, made now where there is none; may ask the store.

        Raises
        ------
        Ended
            Its decision has ended; after a restart nobody knows any more what it said.
        ValueError
            Not such an id, or the Router refuses the request.
        """
        _checked(own)
        if self.store is None:
            try:
                return Chosen.of(decide(id=own))
            except ValueError:
                before = self._before(own)
                if before is None:  # the request itself was refused
                    raise
                return before
        key = _place(own)
        try:
            if found := self.store.look([key])[0]:
                return Chosen.read(found)
        except OSError:
            return Chosen.of(decide())  # serving goes on; a repeated call is another decision
        chosen = Chosen.of(decide())
        try:
            self.store.keep({key: chosen.text()}, self._limit_s)
            found = self.store.look([key])[0]
        except OSError:
            return chosen
        first = chosen if not found else Chosen.read(found)
        if first.id != chosen.id:
            self.router.cancel(chosen.id)
        return first

    def _before(self, own: str) -> Chosen | None:
        """Return a decision that was made before a restart: the Router knows it, and no more what it said."""
        parts, key = self.router.parts, decision_key(own)
        with parts.lock:
            entry = parts.ledger.pending.get(key)
        if entry is not None:
            return Chosen(key, entry[0], float(entry[2]), True)
        how = standing(self.router, key)
        if how is None:
            return None
        raise Ended(f"id must be one whose decision has not ended, got {check.shown(own)}, which is {how}")

    async def key(self, given: str) -> int:
        """Return the id of the decision that is meant: by its digits, or by the caller's own id.

        Raises
        ------
        UnknownDecision
            No decision was made under this id, or it is forgotten.
        ValueError
            No id at all.
        """
        if self.store is None or (given.isascii() and given.isdigit()):
            return decision_key(given)
        found = (await asyncio.to_thread(self.store.look, [_place(_checked(given))]))[0]
        if not found:
            raise UnknownDecision(f"id must be one under which a decision was made, got {check.shown(given)}")
        return Chosen.read(found).id


def _checked(own: str) -> str:
    size = len(own.encode(errors="surrogatepass"))
    if not 0 < size <= LONGEST_ID or (own.isascii() and own.isdigit()):
        raise ValueError(
            f"id must have 1 to {LONGEST_ID} bytes, not digits alone, which are ids of decisions, "
            f"got {check.shown(own)}"
        )
    return own


def _place(own: str) -> int:
    """Return where the store keeps the answer; decisions lie under random numbers of the same range."""
    digest = hashlib.blake2b(own.encode(errors="surrogatepass"), digest_size=8, person=b"answer to select")
    return int.from_bytes(digest.digest(), "little") >> 1
