"""A Router put together: its arguments checked and its parts made, before anything is taken over."""

import threading
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Clock
from banditroute.policies import Policy
from banditroute.policies.base import LARGEST
from banditroute.records import AdapterBackend, Term
from banditroute.residency import Controller
from banditroute.residency.paging import Paging
from banditroute.router import changes
from banditroute.router.arms import Arms
from banditroute.router.backends import CarryOut
from banditroute.router.books import Books
from banditroute.router.ledger import Ledger
from banditroute.router.limits import Limits, RewardLimits
from banditroute.router.listeners import Listeners
from banditroute.router.ownership import check_free
from banditroute.router.parts import RouterParts
from banditroute.router.price_table import PriceTable
from banditroute.router.residence import Residence

__all__ = ["RESERVED", "Backend", "PriceOfFault", "assembled", "check_terms"]

Backend = AdapterBackend | CarryOut
PriceOfFault = Paging | float | ArrayLike
RESERVED = ("fault", "caller", "quarantine", "mask", "policy")  # names of rows of prices that are no term's


def assembled(
    policy: Policy,
    residency: Controller | None,
    paging: PriceOfFault | None,
    *,
    sizes: Mapping[str, float] | ArrayLike | None,
    switching: float,
    loads: ArrayLike | None,
    maintenance: str,
    backend: Backend | None,
    feedback_limit_s: float,
    pending_limit: int,
    expired_reward: float | None,
    spread_pending: bool,
    sources: Mapping[str, RewardLimits] | None,
    clock: Clock,
) -> RouterParts:
    """Return the parts of a Router for arguments that fit together; see `Router` for what they mean.

    Raises
    ------
    ValueError, TypeError
        They do not; policy and controller are as they were.
    """
    if not isinstance(policy, Policy):
        raise TypeError(f"policy must be a Policy, got {policy!r}")
    if maintenance not in ("inline", "background", "manual"):
        raise ValueError(f"maintenance must be 'inline', 'background' or 'manual', got {maintenance!r}")
    if residency is not None and paging is None:
        raise ValueError("paging must be given with residency: a model or the price of a fault, got None")
    if residency is None and (paging is not None or backend is not None or loads is not None):
        what = "paging" if paging is not None else "backend" if backend is not None else "loads"
        raise ValueError(f"residency must be given with {what}: Static(()) caches nothing, got None")
    check_free("policy", policy)
    for name in policy.arms:
        changes.check_name(name)
    share = check.unit("switching", switching)
    books, arms, table = Books(clock), Arms(policy.arms), PriceTable(len(policy.arms))
    ledger = Ledger(
        time_limit=check.finite("feedback_limit_s", feedback_limit_s, low=0.0, open_low=True),
        size_limit=check.integer("pending_limit", pending_limit, low=1),
    )
    limits = None if sources is None else Limits(sources)
    residence = None
    if residency is not None and paging is not None:
        residence = Residence(
            residency, paging, arms, table, books,
            sizes=sizes, switching=share, loads=loads, served=backend is not None,
        )  # fmt: skip
        if residency.needs_utilities:
            # Raises where the policy cannot say what it maximises.
            policy.utilities(np.zeros((1, policy.dim)))
    parts = RouterParts(
        threading.RLock(), policy, books, ledger, arms, table, Listeners(books), residence, limits=limits
    )
    if expired_reward is not None:
        parts.expired_reward = check.finite("expired_reward", expired_reward, low=-LARGEST, high=LARGEST)
        policy.check_reward(parts.expired_reward, 1.0)  # what it would refuse must not come up later
    parts.spread_pending = bool(spread_pending)
    if parts.spread_pending and not policy.can_widen:
        raise ValueError(
            f"spread_pending must be False with {type(policy).__name__}: it has no widths to spread"
        )
    return parts


def check_terms(terms: Sequence[Term]) -> None:
    """Refuse what are no terms, terms of one name, and those of another Router.

    Examples
    --------
    >>> from banditroute.terms import ArmHealth
    >>> check_terms([ArmHealth(), ArmHealth()])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: terms must have distinct names, none of fault, caller, quarantine, mask, policy, got [...]
    """
    for term in terms:
        if not isinstance(term, Term):
            raise TypeError(f"terms must hold Terms, got {term!r}")
        check_free(f"term {term.name!r}", term)
    names = [term.name for term in terms]
    if len(set(names)) < len(names) or not set(RESERVED).isdisjoint(names):
        raise ValueError(f"terms must have distinct names, none of {', '.join(RESERVED)}, got {names}")
