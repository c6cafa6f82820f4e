"""The contract of a cascade, as checks that anyone can run on their own rule for a second call.

A factory takes a Router with the arms "small" and "large" and returns a new `Cascade`, or what is used like one. A
check raises ``AssertionError`` with what it saw, and returns True. Seeds are fixed: a cascade passes always or never.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from banditroute.policies import LinUCB
from banditroute.records import Decision
from banditroute.router import Router
from banditroute.terms import BudgetPacer, Cascade
from banditroute.testing.material import require

__all__ = [
    "CASCADE_CHECKS",
    "cascade_books_every_call",
    "cascade_ignores_a_useless_confidence",
    "cascade_keeps_to_masks_and_asks_once",
    "cascade_state_continues",
    "check_cascade",
]

CascadeFactory = Callable[[Router], Cascade]
ARMS, COSTS, SKILL = ("small", "large"), np.array([1.0, 10.0]), np.array([0.6, 0.9])


class _Served(NamedTuple):
    """What came of a stream of requests: the arms of each request, in the order of its calls, and what they cost."""

    cascade: Cascade
    router: Router
    calls: list[tuple[str, ...]]
    paid: float


def _served(
    factory: CascadeFactory, n: int, informed: float, *, eligible: frozenset[str] | None = None, seed: int = 0
) -> _Served:
    rng = np.random.default_rng(seed)
    router = Router(LinUCB(ARMS, 1, mix=0.05, rng=seed), terms=[BudgetPacer(5.0, COSTS)])
    return _continued(factory(router), router, rng, n, informed, eligible)


def _continued(
    cascade: Cascade,
    router: Router,
    rng: np.random.Generator,
    n: int,
    informed: float,
    eligible: frozenset[str] | None = None,
) -> _Served:
    calls, paid = [], 0.0
    for _ in range(n):
        good, noise, asked = rng.random(2) < SKILL, rng.normal(size=8), list[str]()
        last = cascade.start([1.0], eligible=eligible)
        decision: Decision | None = last
        while decision is not None and len(asked) < 8:
            last, arm = decision, ARMS.index(decision.arm)
            asked.append(decision.arm)
            paid += COSTS[arm]
            decision = cascade.look(last, informed * good[arm] + noise[len(asked) - 1], cost=COSTS[arm])
        cascade.update(last.id, float(good[ARMS.index(last.arm)]), cost=COSTS[ARMS.index(last.arm)])
        calls.append(tuple(asked))
    return _Served(cascade, router, calls, paid)


def cascade_ignores_a_useless_confidence(factory: CascadeFactory) -> bool:
    """A confidence that tells nothing leads to a second call in fewer than two requests of a hundred.

    Examples
    --------
    >>> from banditroute.terms import Cascade
    >>> cascade_ignores_a_useless_confidence(lambda router: Cascade(router, costs=[0.01, 0.1]))
    True
    """
    calls = _served(factory, 1500, 0.0).calls
    again = float(np.mean([len(asked) > 1 for asked in calls]))
    require(again < 0.02, f"a useless confidence led to a second call in {again:.1%} of the requests")
    return True


def cascade_keeps_to_masks_and_asks_once(factory: CascadeFactory) -> bool:
    """No arm is asked twice for a request, none that the caller has closed, and a confidence that tells is acted on.

    Examples
    --------
    >>> from banditroute.terms import Cascade
    >>> cascade_keeps_to_masks_and_asks_once(lambda router: Cascade(router, costs=[0.01, 0.1]))
    True
    """
    told = _served(factory, 1500, 2.0).calls
    require(all(len(set(asked)) == len(asked) for asked in told), "an arm was asked twice for one request")
    require(any(len(asked) > 1 for asked in told), "a confidence that tells much led to no second call")
    masked = _served(factory, 600, 2.0, eligible=frozenset({"small"})).calls
    require(all(asked == ("small",) for asked in masked), "an arm was asked that the caller has closed")
    return True


def cascade_books_every_call(factory: CascadeFactory) -> bool:
    """Each call is a decision that is answered or withdrawn, its cost is spent, and a request counts once on a budget.

    Examples
    --------
    >>> from banditroute.terms import Cascade
    >>> cascade_books_every_call(lambda router: Cascade(router, costs=[0.01, 0.1]))
    True
    """
    found = _served(factory, 1500, 2.0)
    stats, pacer = found.router.stats(), found.router.terms[0]
    assert isinstance(pacer, BudgetPacer)
    made = sum(map(len, found.calls))
    require(stats["decisions"] == made, f"{made} calls were made, {stats['decisions']} decided by the Router")
    require(stats["pending"] == 0, f"{stats['pending']} decisions await an answer that will not come")
    require(
        abs(pacer.spent - found.paid) < 1e-6 * found.paid,
        f"calls cost {found.paid:g}, {pacer.spent:g} was booked",
    )
    require(pacer.requests == len(found.calls), f"{len(found.calls)} requests count as {pacer.requests}")
    return True


def cascade_state_continues(factory: CascadeFactory) -> bool:
    """A saved state is plain data, and a cascade that loads it makes the calls that the first one makes.

    Examples
    --------
    >>> from banditroute.terms import Cascade
    >>> cascade_state_continues(lambda router: Cascade(router, costs=[0.01, 0.1]))
    True
    """
    twins = [_served(factory, 1000, 2.0) for _ in range(2)]
    header, arrays = twins[0].cascade.to_state()
    second = factory(twins[1].router)
    second.load_state(
        json.loads(json.dumps(header, allow_nan=False)), {n: np.array(a) for n, a in arrays.items()}
    )
    one, two = (
        _continued(cascade, twin.router, np.random.default_rng(7), 300, 2.0).calls
        for cascade, twin in ((twins[0].cascade, twins[0]), (second, twins[1]))
    )
    require(one == two, "the loaded cascade made other calls")
    return True


CASCADE_CHECKS: tuple[Callable[[CascadeFactory], bool], ...] = (
    cascade_ignores_a_useless_confidence,
    cascade_keeps_to_masks_and_asks_once,
    cascade_books_every_call,
    cascade_state_continues,
)


def check_cascade(factory: CascadeFactory) -> list[str]:
    """Run every check on a cascade and return their names.

    Examples
    --------
    >>> class Alone(Cascade):
    ...     def look(self, decision, confidence, *, cost=None, **told):
    ...         return None
    >>> check_cascade(lambda router: Alone(router, costs=[0.01, 0.1]))
    Traceback (most recent call last):
    AssertionError: a confidence that tells much led to no second call
    """
    return [check.__name__ for check in CASCADE_CHECKS if check(factory)]
