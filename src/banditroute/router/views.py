"""What a plan may see: a picture of residency, and the policy as it is now."""

import threading
from collections.abc import Callable, Iterable
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute.policies import Policy
from banditroute.residency import ResidentSet, View
from banditroute.router.parts import RouterParts
from banditroute.router.residence import Residence

__all__ = ["frozen_utilities", "viewed"]


def viewed(
    parts: RouterParts, residence: Residence, blocked: Iterable[str], elsewhere: Iterable[str] | None
) -> View:
    """Return what a plan may see, and start counting anew what is counted between plans; the lock must be held.

    Parameters
    ----------
    parts : RouterParts
    residence : Residence
    blocked : iterable of str
        Arms that will not load now.
    elsewhere : iterable of str, optional
        Arms that were allowed at other workers since the last plan; None for all.
    """
    books, positions = parts.books, parts.arms.positions
    parts.ledger.sweep(books.now(), 1024)  # what has expired is not pending
    count, offered = len(parts.arms), None
    told = None if elsewhere is None else [positions[name] for name in elsewhere if name in positions]
    if told is not None and books.masked == books.index - books.planned and (books.masked or told):
        offered = parts.arms.offered.copy()  # every request had a mask
        offered[told] = True
    closed = np.zeros(count, dtype=np.bool_)
    closed[[positions[name] for name in blocked if name in positions]] = True
    view = View(
        clock=books.index + books.heard,
        utilities=parts.policy.utilities,
        faults=residence.faults,
        loads=residence.loads,
        resident=_copied(residence.actual),
        desired=residence.desired.mask.copy(),
        pending=np.array(parts.arms.pending, dtype=np.float64),
        counts=getattr(parts.policy, "counts", None),
        eligible_since_plan=offered,
        blocked=closed,
    )
    books.planned, books.masked = books.index, 0
    parts.arms.offered = np.zeros(count, dtype=np.bool_)
    return view


def _copied(resident: ResidentSet) -> ResidentSet:
    new = copy(resident)  # a deep copy takes ten times as long, and the lock is held
    new.mask = resident.mask.copy()
    return new


def frozen_utilities(policy: Policy, lock: threading.RLock) -> Callable[[ArrayLike], Any]:
    """Return a stand-in for ``policy.utilities`` that does not hold the lock for long.

    Parameters
    ----------
    policy : Policy
        Copied as it is now, a slice at a time.
    lock : RLock
        Guards the policy.

    Returns
    -------
    callable
        ``utilities(contexts (n, dim)) -> (mean, bonus)``, two (n, k) arrays.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = LinUCB(2, 3)
    >>> frozen_utilities(policy, threading.RLock())(np.eye(3)).bonus.shape
    (3, 2)
    """
    slices = policy.freeze()
    while True:
        with lock:
            found = next(slices)
        if found is not None:
            return found
