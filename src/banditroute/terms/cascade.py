"""Cascades: ask one arm, look at a confidence, accept the answer or ask another."""

import threading
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Arrays, Floats, Header
from banditroute.errors import UnknownDecision
from banditroute.policies import Policy
from banditroute.policies.base import LARGEST
from banditroute.records import Decision, Term, TermHost
from banditroute.terms.base import BaseTerm
from banditroute.terms.budget import BudgetPacer

__all__ = ["Cascade"]

PRIOR = np.array(
    [0.0, 1.0, 0.0]
)  # constant, what the policy expects, rank of the confidence: it tells nothing
RIDGE = 5.0  # answers that the prior counts for
RANKED = 500  # confidences of each arm that a new one is ranked among
SURE = 2.5  # standard errors by which a confidence must tell something before it is acted on
RANKS = np.linspace(0.05, 0.95, 10) - 0.5
FEWEST = 200.0  # requests after which what looking has gained counts
LASTING = 0.9995  # of what it has gained, kept from one to the next: beliefs get better


class _Ridge:
    """A ridge regression on three features, from the prior; and how sure it is that the confidence tells something."""

    __slots__ = ("a", "b", "slope", "solution", "squares")

    def __init__(self, a: Floats | None = None, b: Floats | None = None, squares: float = 0.0) -> None:
        self.a = RIDGE * np.eye(3) if a is None else a
        self.b = RIDGE * PRIOR if b is None else b
        self.squares = squares  # of the rewards
        self.solution = np.linalg.solve(self.a, self.b)
        rows = max(float(self.a[0, 0]) - RIDGE, 1.0)  # the first feature is 1
        fitted = float(self.solution @ self.a @ self.solution - 2.0 * self.solution @ self.b)
        residual = max(self.squares + RIDGE + fitted, 0.0)
        error = float(np.sqrt(residual / rows * np.linalg.inv(self.a)[2, 2]))
        self.slope = float(self.solution[2]) - SURE * error  # lower bound of what the confidence tells

    def learned(self, features: Floats, reward: float) -> "_Ridge":
        """Return the regression with one more answer."""
        return _Ridge(
            self.a + np.outer(features, features), self.b + reward * features, self.squares + reward * reward
        )


class _Kept(NamedTuple):
    """What looking was hoped to gain and did, decayed: weight of the requests, both sums, and squares of what it did.

    An answer that is accepted gains nothing; one of an arm of which nothing was hoped tells nothing. The best of many
    noisy beliefs is believed too much, and the second call may not be affordable when its time comes: so what is hoped
    of it must be measured.
    """

    weight: float = 0.0
    hoped: float = 0.0
    gained: float = 0.0
    squares: float = 0.0

    def learned(self, hoped: float, gained: float) -> "_Kept":
        """Return it with one more request."""
        return _Kept(
            LASTING * self.weight + 1.0, LASTING * self.hoped + hoped, LASTING * self.gained + gained,
            LASTING * self.squares + gained * gained,
        )  # fmt: skip

    def faded(self) -> "_Kept":
        """Return it after a call that was not made because such calls lose: one day it is tried again."""
        return _Kept(*(LASTING * value for value in self))

    @property
    def error(self) -> float:
        """Standard error of what a request gains in the mean."""
        mean = self.gained / self.weight
        return float(np.sqrt(max(self.squares / self.weight - mean * mean, 0.0) / self.weight))

    @property
    def harms(self) -> bool:
        """Whether further calls surely cost more than they gain."""
        return self.weight >= FEWEST and self.gained / self.weight < -2.0 * self.error

    @property
    def share(self) -> float:
        """Share of what is hoped that is surely gained, in [0, 1]; all of it before there were some."""
        if self.weight < FEWEST:
            return 1.0
        if self.hoped <= 0.0:
            return 0.0
        return min(max((self.gained - self.weight * self.error) / self.hoped, 0.0), 1.0)


class Cascaded(TermHost, Protocol):
    """A Router: what a cascade asks of it."""

    policy: Policy

    @property
    def terms(self) -> tuple[Term, ...]:
        """Its terms."""


class _Asked(NamedTuple):
    """One call that awaits its look or its answer."""

    arm: str
    x: Floats
    tried: tuple[str, ...]  # arms asked before
    looked: Floats | None  # what the answer was judged by that sent the request here
    own: Floats | None  # what this answer was judged by, once looked at
    options: Mapping[str, Any]
    hoped: float = 0.0  # what looking at the first answer was to gain
    even: float = 0.0  # what the answer of a further call must be worth to gain nothing


class Cascade:
    """Ask one arm, look at how sure it is, and ask another where that is worth its price.

    ``start`` routes a request; ``look`` gets a confidence in the answer and returns None, accept, or the decision of a
    second call; ``update`` reports the reward of the answer that was used. From these it learns what an answer is worth
    at a confidence and what a second call earns after it. A second call is made where it is expected to
    earn more than its price above the answer at hand, and an arm that can be checked is tried first for that chance.

    Parameters
    ----------
    router : Router
        Decides both calls, and has both in its ledger, its terms and its trace.
    costs : (k,) array or callable
        Price of one more call to each arm, reward units, in the order of the arms; a callable gets the context, and
        ``pacer.prices`` of the Router's `BudgetPacer` will do. They price further calls; the first is priced by the
        Router's terms.
    most : int
        Calls for one request at most.
    limit : int
        Requests under way that are remembered; the oldest is forgotten first, as if it had been accepted.

    Notes
    -----
    A confidence is any number that tends to be higher for better answers: its rank among the last 500 of the arm is all
    that counts. Two linear models, of the rank and of what the policy expects, start from the belief that the
    confidence tells nothing, and nothing is done before it is 2.5 standard errors from that: a useless confidence does
    no harm. What looking has gained is measured against what was hoped of it, for the best of many beliefs is believed
    too much: after 200 requests trying an arm for the chance to check it counts for as much of that as is sure, and
    calls that surely lose end. Where an answer is set aside its arm learns what it was expected to be worth, lest only
    its sure answers count; its cost is booked, and a `BudgetPacer` of the Router gives both calls one budget. The rule
    has no regret bound. O(k) a look, O(k log k) a start.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router, rng = Router(LinUCB(["small", "large"], 1, rng=0)), np.random.default_rng(0)
    >>> cascade, calls = Cascade(router, costs=[0.0, 0.25]), []
    >>> for _ in range(2000):
    ...     good = {"small": rng.random() < 0.6, "large": rng.random() < 0.9}
    ...     first = cascade.start([1.0], prices=[0.0, 0.25])
    ...     second = cascade.look(first, confidence=good[first.arm] + rng.normal())
    ...     last = first if second is None else second
    ...     calls.append(1 if second is None else 2)
    ...     learned = cascade.update(last.id, float(good[last.arm]))
    >>> bool(1.2 < np.mean(calls[1000:]) < 1.8)
    True
    """

    def __init__(
        self,
        router: Cascaded,
        costs: ArrayLike | Callable[[ArrayLike], ArrayLike],
        *,
        most: int = 2,
        limit: int = 100_000,
    ) -> None:
        for name in ("select", "update", "policy", "terms"):
            if not hasattr(router, name):
                raise TypeError(f"router must be a Router, got {check.shown(router)}")
        self.router = router
        self._costs = costs
        self.costs(np.zeros(router.policy.dim))
        self.most, self.limit = check.integer("most", most, low=1), check.integer("limit", limit, low=1)
        self.accepted = self.escalated = 0
        self._worth, self._next = _Ridge(), _Ridge()  # of an answer, and of a call after it
        self._kept = _Kept()
        self._ranked: dict[str, tuple[list[float], deque[float]]] = {}  # sorted, and in the order they came
        self._open: OrderedDict[int, _Asked] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Show how often a second call was made."""
        return f"Cascade(accepted={self.accepted}, escalated={self.escalated}, open={len(self._open)})"

    def costs(self, x: ArrayLike) -> Floats:
        """Return the price of one more call to each arm, (k,), reward units."""
        given = self._costs(x) if callable(self._costs) else self._costs
        return check.non_negative("costs", given, len(self.router.policy.arms), limit=LARGEST)

    def start(self, x: ArrayLike, **options: Any) -> Decision:
        """Route a request; `options` are those of ``router.select`` and hold for further calls too.

        Raises
        ------
        ValueError, TypeError
            As ``router.select``; nothing changed.
        """
        policy = self.router.policy
        row = np.array(policy.check_context(x))
        prices, means = self.costs(row), policy.scores(row).mean
        with self._lock:
            hoped = self._chances(policy.arms, means, prices)
            chance = hoped * self._kept.share
        own = options.get("prices")
        if isinstance(own, Mapping):
            own = np.array([own.get(arm, 0.0) for arm in policy.arms])
        decision = self.router.select(
            row, **{**options, "prices": -chance if own is None else np.asarray(own) - chance}
        )
        hopes = float(hoped[policy.index(decision.arm)])
        self._keep(decision, _Asked(decision.arm, row, (), None, None, options, hopes))
        return decision

    def _chances(self, arms: tuple[str, ...], means: Floats, prices: Floats) -> Floats:
        """What each arm is worth as a first one, beyond its answers: the mean gain of looking, (k,)."""
        chance = np.zeros(len(arms))
        if self._worth.slope <= 0.0 or len(arms) == 1 or self.most == 1:
            return chance
        worth, after = self._worth.solution, self._next.solution
        nets = after[0] + after[1] * means - prices
        best, second = np.sort(nets)[-1], np.sort(nets)[-2]
        others = np.where(nets == best, second, best)  # of the arms beside each
        ranks = RANKS[:, None]
        gains = others + after[2] * ranks - (worth[0] + worth[1] * means + worth[2] * ranks)
        return np.asarray(np.maximum(gains, 0.0).mean(axis=0))

    def look(
        self, decision: Decision, confidence: float, *, cost: float | None = None, **told: Any
    ) -> Decision | None:
        """Return None where the answer should be used, else the decision of another call.

        Parameters
        ----------
        decision : Decision
            Of `start`, or of the look before.
        confidence : float
            The higher the better the answer seems.
        cost : float, optional
            What the call did cost; booked here where another call follows, by `update` where none does.
        **told
            Whatever else ``router.update`` takes, such as ``seconds``.

        Raises
        ------
        UnknownDecision
            Not one of this cascade, or answered before; nothing changed.
        ValueError, TypeError
            A confidence that is no finite number; nothing changed.
        """
        sure = check.finite("confidence", confidence)
        policy = self.router.policy
        with self._lock:
            asked = self._open.get(decision.id)
            if asked is None:
                raise UnknownDecision(f"decision must be one of this cascade that is open, got {decision.id}")
            if asked.own is not None or asked.arm not in policy.arms:
                return None
            means, at = policy.scores(asked.x).mean, policy.index(asked.arm)
            features = np.array([1.0, means[at], self._rank(asked.arm, sure) - 0.5])
            worth, after = float(self._worth.solution @ features), self._next.solution
            useful, harms = self._worth.slope > 0.0, self._kept.harms
            self._open[decision.id] = asked = asked._replace(own=features)
        costs = self.costs(asked.x)
        gains = after[0] + after[1] * means + after[2] * features[2] - costs - worth
        tried = (*asked.tried, asked.arm)
        allowed = _names(asked.options.get("eligible"), policy.arms)
        better = {a for a, gain in zip(policy.arms, gains, strict=True) if gain > 0.0 and a not in tried}
        better &= allowed
        for term in self.router.terms:  # a soft one would give way to the last that is left
            if isinstance(term, BaseTerm) and len(term.arms) == len(policy.arms):
                better &= {a for a, may in zip(policy.arms, term.eligible(asked.x), strict=True) if may}
        if not useful or not better or len(tried) >= self.most:
            return None
        if harms:
            with self._lock:
                self._kept = self._kept.faded()
            return None
        second = self.router.select(asked.x, **{**asked.options, "eligible": frozenset(better)})
        self.router.update(decision.id, worth, cost=cost, **told)
        for term in self.router.terms:
            if isinstance(term, BudgetPacer):
                term.same_request()  # both calls on one budget
        self.escalated += 1
        with self._lock:
            self._open.pop(decision.id, None)
        even = float(costs[policy.index(second.arm)]) + worth
        self._keep(
            second, _Asked(second.arm, asked.x, tried, features, None, asked.options, asked.hoped, even)
        )
        return second

    def update(self, decision_id: int, reward: float, **told: Any) -> bool:
        """Report the reward of the answer that was used; `told` is what else ``router.update`` takes.

        Returns
        -------
        bool
            As ``router.update``.
        """
        learned = self.router.update(decision_id, reward, **told)
        with self._lock:
            asked = self._open.pop(int(decision_id), None)
            if asked is None or not learned:
                return learned
            self.accepted += 1
            if asked.own is not None:
                self._worth = self._worth.learned(asked.own, reward)
            if asked.looked is not None or (asked.own is not None and asked.hoped > 0.0):
                gained = 0.0 if asked.looked is None else reward - asked.even
                self._kept = self._kept.learned(asked.hoped, gained)
            policy = self.router.policy
            if asked.looked is not None and asked.arm in policy.arms:
                mean = policy.scores(asked.x).mean[policy.index(asked.arm)]
                self._next = self._next.learned(np.array([1.0, mean, asked.looked[2]]), reward)
        return learned

    def cancel(self, decision_id: int) -> bool:
        """Withdraw a call that came to nothing, as ``router.cancel``."""
        with self._lock:
            self._open.pop(int(decision_id), None)
        return self.router.cancel(decision_id)

    def _keep(self, decision: Decision, asked: _Asked) -> None:
        with self._lock:
            self._open[decision.id] = asked
            if len(self._open) > self.limit:
                self._open.popitem(last=False)

    def _rank(self, arm: str, confidence: float) -> float:
        """Share of the arm's last confidences below this one, which joins them."""
        ranked, order = self._ranked.setdefault(arm, ([], deque()))
        share = 0.5
        if ranked:
            share = (bisect_left(ranked, confidence) + bisect_right(ranked, confidence)) / (2.0 * len(ranked))
        insort(ranked, confidence)
        order.append(confidence)
        if len(order) > RANKED:
            del ranked[bisect_left(ranked, order.popleft())]
        return share

    # State.

    def to_state(self) -> tuple[Header, Arrays]:
        """Return what was learned, as plain data; requests under way end with the process."""
        with self._lock:
            arrays: Arrays = {}
            for name, model in (("worth", self._worth), ("next", self._next)):
                arrays[name] = np.append(np.column_stack([model.a, model.b]).ravel(), model.squares)
            ranked = {arm: list(order) for arm, (_, order) in self._ranked.items()}
            arrays["kept"] = np.array(self._kept)
            return {"ranked": ranked, "accepted": self.accepted, "escalated": self.escalated}, arrays

    def load_state(self, header: Header, arrays: Arrays) -> None:
        """Continue from `to_state`.

        Raises
        ------
        ValueError, TypeError
            It does not fit; nothing changed.
        """
        models = []
        for name in ("worth", "next"):
            row = check.vector(name, check.entry("arrays", arrays, name), 13)
            sums = row[:12].reshape(3, 4)
            models.append(_Ridge(sums[:, :3].copy(), sums[:, 3].copy(), float(row[12])))
        kept = _Kept(*check.vector("kept", check.entry("arrays", arrays, "kept"), 4).tolist())
        if min(kept.weight, kept.hoped, kept.squares) < 0.0:
            raise ValueError(f"kept must hold a weight, hopes and squares >= 0, got {kept}")
        ranked = {}
        for arm, given in check.entry("header", header, "ranked").items():
            order = check.vector("ranked", given, len(given))[-RANKED:].tolist()
            ranked[str(arm)] = (sorted(order), deque(order))
        counts = [check.integer(n, check.entry("header", header, n)) for n in ("accepted", "escalated")]
        with self._lock:
            (self._worth, self._next), self._ranked, self._kept = models, ranked, kept
            self.accepted, self.escalated = counts


def _names(eligible: Any, arms: tuple[str, ...]) -> set[str]:
    """Names that a caller's `eligible` allows: of names, a mapping or a mask."""
    if eligible is None:
        return set(arms)
    if isinstance(eligible, Mapping):
        return {arm for arm, may in eligible.items() if may}
    given = list(eligible)
    if all(isinstance(arm, str) for arm in given):
        return set(given)
    return {arm for arm, may in zip(arms, given, strict=True) if may}
