"""The parts that a Router is made of, by name: what its other parts may hold of it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from banditroute.policies import Policy
from banditroute.records import Claims
from banditroute.router.arms import Arms
from banditroute.router.books import Books
from banditroute.router.feature_maps import FeatureMap
from banditroute.router.ledger import Ledger
from banditroute.router.limits import Limits
from banditroute.router.listeners import Listeners
from banditroute.router.price_table import PriceTable
from banditroute.router.residence import Residence

__all__ = ["RouterParts"]


@dataclass(slots=True, eq=False)
class RouterParts:
    """Policy, ledger, arms, prices, residence, books, listeners and the one lock over all of them.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> Router(LinUCB(["a", "b"], 2, rng=0)).parts.arms
    Arms(a, b; pending=0)
    """

    lock: threading.RLock
    policy: Policy
    books: Books
    ledger: Ledger
    arms: Arms
    table: PriceTable
    listeners: Listeners
    residence: Residence | None = None
    features: FeatureMap | None = None  # what makes contexts of requests
    claims: Claims | None = None
    limits: Limits | None = None
    expired_reward: float | None = None
    spread_pending: bool = False
    boundary: float = 0.0  # index on the common clock at which the policy's next bucket begins
    settle: Callable[[], None] = lambda: None  # waits until no plan is being computed; the lock must be held
    planning: Callable[[], bool] = lambda: False  # whether another thread is computing a plan; likewise
    unload: Callable[[str], None] = lambda name: None  # has the server unload an arm that was removed
    rearm: Callable[[], None] = lambda: (
        None
    )  # collects what the request path keeps of arms, terms and listeners
