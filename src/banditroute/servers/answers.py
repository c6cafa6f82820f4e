"""What a door asks of a Router beside its calls, wherever a decision was made: how it stands, and to withdraw it."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar

from banditroute.durability.claims import CANCELLED as WITHDRAWN
from banditroute.durability.replicas import Replica, StateStore
from banditroute.errors import UnknownDecision
from banditroute.router import Router
from banditroute.router.ledger import ANSWERED, CANCELLED, decision_key

__all__ = ["Standing", "aupdate", "in_loop", "shared_store", "standing", "waits", "withdraw"]

Standing = Literal["pending", "answered", "cancelled", "expired"]
Result = TypeVar("Result")
PATIENCE_S = 1.0  # a decision of another worker reaches the store within a few rounds
PAUSE_S = 0.02


def shared_store(router: Router) -> StateStore | None:
    """Return the store where workers share their decisions; None where they do not.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> shared_store(Router(LinUCB(2, 1, rng=0))) is None
    True
    """
    claims = router.parts.claims
    return claims.store if isinstance(claims, Replica) and claims.shares else None


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


async def in_loop(router: Router, decision_id: int | str, call: Callable[[], Result]) -> Result:
    """Return what a call about a decision returns; it runs in a thread where the store must be asked.

    Examples
    --------
    >>> import asyncio
    >>> from banditroute import LinUCB, Router
    >>> asyncio.run(in_loop(Router(LinUCB(2, 1, rng=0)), 7, lambda: "done"))
    'done'
    """
    return await asyncio.to_thread(call) if waits(router, decision_id) else call()


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
    return await in_loop(router, decision_id, call)


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
    if how is not None:
        return "answered" if how == ANSWERED else "cancelled" if how == CANCELLED else "expired"
    store = shared_store(router)
    if store is None:
        return None
    found = store.look([key])[0]
    if found == b"":  # taken: the token of whoever withdrew it gets it again, nobody else does
        return "cancelled" if store.take([key], WITHDRAWN)[0] else "answered"
    return None if found is None else "pending"


def withdraw(router: Router, decision_id: int | str) -> Standing:
    """Cancel a decision, whichever worker made it; returns how it stands then.

    Raises
    ------
    UnknownDecision
        No worker made it, as far as the store knows.
    OSError
        The store is down.

    Notes
    -----
    Asks the store where another worker made it. That worker gives back what its terms had set aside when the decision
    expires there.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(2, 1, rng=0))
    >>> decision = router.select([1.0])
    >>> withdraw(router, decision.id), withdraw(router, decision.id)
    ('cancelled', 'cancelled')
    """
    store = shared_store(router)
    if store is None or not waits(router, decision_id):
        return "cancelled" if router.cancel(decision_id) else standing(router, decision_id) or "answered"
    key, end = decision_key(decision_id), time.monotonic() + PATIENCE_S
    while True:
        found = store.take([key], WITHDRAWN)[0]
        if found is not None:
            return "cancelled" if found else "answered"
        if time.monotonic() >= end:
            raise UnknownDecision(
                f"decision_id must be one that awaits or had its feedback, got {decision_id!r}"
            )
        time.sleep(PAUSE_S)
