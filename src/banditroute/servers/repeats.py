"""Ids of the caller: a repeated call gets the first answer, also from another worker."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from banditroute._core import validation as check
from banditroute.errors import UnknownDecision
from banditroute.records import Decision, Ranking
from banditroute.router import Router
from banditroute.router.ledger import LONGEST_ID, decision_key
from banditroute.router.lists import place_id
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
    """What a caller is told of a decision; ``places`` of a list: id, arm, propensity, and prefix where it is known.

    Examples
    --------
    >>> Chosen.read(Chosen(7, "large", 1.0, True).text()).told()
    {'id': '7', 'arm': 'large', 'propensity': 1.0, 'hit': True}
    """

    id: int
    arm: str
    propensity: float
    hit: bool
    places: Sequence[tuple[int, str, float, float | None]] = ()

    @classmethod
    def of(cls, decision: Decision) -> "Chosen":
        """Return it of a decision."""
        one = cls(decision.id, decision.arm, float(decision.propensity), bool(decision.hit))
        if not isinstance(decision, Ranking):
            return one
        parts = zip(decision.places, decision.prefixes, strict=True)
        return one._replace(
            places=[(place.id, place.arm, float(place.propensity), float(prefix)) for place, prefix in parts]
        )

    def told(self) -> dict[str, Any]:
        """Return it with ids as strings, as JSON numbers have 53 bits."""
        told: dict[str, Any] = {
            "id": str(self.id), "arm": self.arm, "propensity": self.propensity, "hit": self.hit
        }  # fmt: skip
        if self.places:
            keys = ("id", "arm", "propensity", "prefix")
            told["places"] = [dict(zip(keys, (str(one[0]), *one[1:]), strict=True)) for one in self.places]
        return told

    def text(self) -> bytes:
        """Return it as bytes."""
        return json.dumps(self if self.places else self[:4]).encode()

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
        found: list[tuple[int, str, float, None]] = []
        with parts.lock:
            pending, closed = parts.ledger.pending, parts.ledger.closed
            while (one := place_id(key, len(found))) in pending:
                found.append((one, pending[one][0], float(pending[one][2]), None))
            whole = one not in closed  # else another place of the list has ended
        if found and whole:
            _, arm, propensity, _ = found[0]
            return Chosen(key, arm, propensity, True, found if len(found) > 1 else ())
        how = standing(self.router, one)
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
