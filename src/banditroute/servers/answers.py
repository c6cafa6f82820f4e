"""What a door asks of a Router beside its calls: would an answer wait for the store, and how a decision stands."""

import asyncio
from functools import partial
from typing import Literal

from banditroute.durability.replicas import Replica
from banditroute.router import Router
from banditroute.router.ledger import ANSWERED, CANCELLED, decision_key

__all__ = ["Standing", "aupdate", "standing", "waits"]

Standing = Literal["pending", "answered", "cancelled", "expired"]


def waits(router: Router, decision_id: int | str) -> bool:
    """Whether `Router.update` would ask the store: decisions are shared, and this one was made by another worker.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> waits(Router(LinUCB(2, 1, rng=0)), 7)
    False
    """
    parts, key = router.parts, decision_key(decision_id)
    if parts.claims is None:
        return False
    with parts.lock:
        return key not in parts.ledger.pending and key not in parts.ledger.closed


async def aupdate(
    router: Router,
    decision_id: int | str,
    reward: float,
    cost: float | None = None,
    seconds: float | None = None,
    failed: bool = False,
    source: str | None = None,
) -> bool:
    """Learn a reward as `Router.update` does, from an event loop: in a thread where the store must be asked.

    Parameters, answer and errors are those of `Router.update`. An own decision is learned at once, in the loop.

    Examples
    --------
    >>> import asyncio
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(2, 1, rng=0))
    >>> asyncio.run(aupdate(router, router.select([1.0]).id, reward=1.0))
    True
    """
    call = partial(router.update, decision_id, reward, cost, seconds, failed, source)
    return await asyncio.to_thread(call) if waits(router, decision_id) else call()


def standing(router: Router, decision_id: int | str) -> Standing | None:
    """Return how a decision stands, None where nobody knows it; asks the store where another worker made it.

    Parameters
    ----------
    router : Router
    decision_id : int or str
        As in `Router.update`.

    Raises
    ------
    OSError
        The store is down.
    TypeError, ValueError
        It is no id.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(2, 1, rng=0))
    >>> decision = router.select([1.0])
    >>> standing(router, decision.id), router.update(decision.id, 1.0), standing(router, decision.id)
    ('pending', True, 'answered')
    """
    parts, key = router.parts, decision_key(decision_id)
    with parts.lock:
        if key in parts.ledger.pending:
            return "pending"
        how = parts.ledger.closed.get(key)
        claims = parts.claims
    if how is not None:
        return "answered" if how == ANSWERED else "cancelled" if how == CANCELLED else "expired"
    if not isinstance(claims, Replica):
        return None
    found = claims.store.look([key])[0]
    return None if found is None else "pending" if found else "answered"
