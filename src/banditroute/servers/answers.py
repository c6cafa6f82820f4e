"""What a door asks of a Router beside its calls, wherever a decision was made: how it stands, and to withdraw it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, TypeVar

from banditroute._core import validation as check
from banditroute.durability.claims import CANCELLED as WITHDRAWN
from banditroute.durability.replicas import Replica, StateStore
from banditroute.durability.rows import unpacked
from banditroute.errors import SnapshotError, UnknownArm, UnknownDecision
from banditroute.router import Router
from banditroute.router.ledger import ANSWERED, CANCELLED, decision_key
from banditroute.router.lists import Rewards, place_id

__all__ = [
    "Standing",
    "aupdate",
    "in_loop",
    "learn_list",
    "places",
    "shared_store",
    "standing",
    "waits",
    "withdraw",
]

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


def places(router: Router, decision_id: int | str) -> dict[int, str | None]:
    """Return the ids of the places of a list with their arms, None for one that has ended; whoever made it.

    Asks the store where another worker made it, and waits for it to arrive there.

    Raises
    ------
    UnknownDecision
        No worker made it, as far as the store knows.
    OSError
        The store is down.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(["a", "b"], 1, rng=0))
    >>> shown = router.select([1.0], k=2)
    >>> router.update(shown.id, {shown.arms[0]: 1.0})
    True
    >>> list(places(router, shown.id).values()) == [None, shown.arms[1]]
    True
    """
    key, parts, found = decision_key(decision_id), router.parts, dict[int, str | None]()
    with parts.lock:
        pending, closed = parts.ledger.pending, parts.ledger.closed
        while (one := place_id(key, len(found))) in pending or one in closed:
            found[one] = pending[one][0] if one in pending else None
    store = shared_store(router)
    if store is None:
        return found or _arrived(lambda: None, decision_id, patience_s=0.0)
    return found or _arrived(partial(_stored_places, store, key), decision_id)


def _stored_places(store: StateStore, key: int) -> dict[int, str | None] | None:
    """Return what `places` does, from the store; None where it has none of them."""
    found = dict[int, str | None]()
    while (data := store.look([one := place_id(key, len(found))])[0]) is not None:
        try:
            found[one] = unpacked(data)[0].arm if data else None
        except SnapshotError:
            found[one] = None
    return found or None


def _arrived(
    look: Callable[[], Result | None], decision_id: int | str, patience_s: float = PATIENCE_S
) -> Result:
    """Return what the store tells of a decision, once it is there."""
    end = time.monotonic() + patience_s
    while (found := look()) is None:
        if time.monotonic() >= end:
            raise UnknownDecision(
                f"decision_id must be one that awaits or had its feedback, got {decision_id!r}"
            )
        time.sleep(PAUSE_S)
    return found


def learn_list(
    router: Router,
    decision_id: int | str,
    rewards: Rewards,
    cost: float | None = None,
    seconds: float | None = None,
    failed: bool = False,
    source: str | None = None,
) -> tuple[list[Standing], bool]:
    """Learn what places of a list earned as `Router.update` does, whichever worker made it; may ask the store.

    Returns
    -------
    list of str
        How each place stands.
    bool
        Whether the reward of a place was not taken, which still awaits it: its source is above its rate.

    Raises
    ------
    UnknownDecision, UnknownArm, ValueError, TypeError
        As `Router.update`; nothing has changed.
    OSError
        The store is down.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(["a", "b", "c"], 1, rng=0))
    >>> shown = router.select([1.0], k=3)
    >>> learn_list(router, shown.id, {shown.arms[1]: 1.0, shown.arms[2]: None})
    (['pending', 'answered', 'cancelled'], False)
    """
    key = decision_key(decision_id)
    foreign, known = waits(router, key), places(router, decision_id)
    if isinstance(rewards, Mapping):
        told = [(one, rewards[arm]) for one, arm in known.items() if arm in rewards and arm is not None]
    else:
        told = list(zip(known, rewards, strict=False))
    if not foreign:
        router.update(key, rewards, cost, seconds, failed, source)
        now = {one: standing(router, one) or "answered" for one in known}
        return list(now.values()), any(now[one] == "pending" for one, reward in told if reward is not None)
    _check(router, known, rewards)
    now, late, first = {}, False, True
    for one, reward in told:
        if reward is None:
            now[one] = withdraw(router, one)
            continue
        rest = (cost, seconds, failed) if first else (None, None, False)  # of the list, so told once
        first = False
        if router.update(one, reward, *rest, source):
            now[one] = "answered"
        else:
            now[one] = standing(router, one) or "answered"
            late = late or now[one] == "pending"
    return [now.get(one) or standing(router, one) or "answered" for one in known], late


def _check(router: Router, known: Mapping[int, str | None], rewards: Rewards) -> None:
    """Refuse rewards for a list of another worker as its own would."""
    if isinstance(rewards, Mapping):
        arms = set(known.values())
        for arm in rewards:
            if arm not in arms and None not in arms:
                raise UnknownArm(f"reward must be of arms of the list, {list(known.values())}, got {arm!r}")
    elif len(rewards) > len(known):
        raise ValueError(f"reward must hold at most {len(known)} places, got {len(rewards)}")
    for reward in rewards.values() if isinstance(rewards, Mapping) else rewards:
        if reward is not None:
            router.policy.check_reward(check.finite("reward", reward), 1.0)


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
    key = decision_key(decision_id)
    found = _arrived(lambda: store.take([key], WITHDRAWN)[0], decision_id)
    place = 1  # of a list all places; what no list is has one
    while store.take([place_id(key, place)], WITHDRAWN)[0] is not None:
        place += 1
    return "cancelled" if found else "answered"
