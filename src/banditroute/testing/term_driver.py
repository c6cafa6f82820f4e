"""A Router in miniature: calls terms as a Router does, and writes down what must bring them back."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core.typing import Floats
from banditroute.policies import LinUCB
from banditroute.records import Decision, Extras, Feedback, PriceRow, Request, Term

__all__ = ["TermDriver"]


class Happened(NamedTuple):
    """One event: what happened and with which arguments."""

    what: str
    given: tuple[Any, ...]


class TermDriver:
    """Drives terms through requests, answers, cancellations, marks and changes of arms.

    Parameters
    ----------
    terms : sequence of Term
    arms : sequence of str
    policy : Policy, optional
        Chooses; a `LinUCB` of dimension 2 when left out.

    Examples
    --------
    >>> from banditroute.terms import BudgetPacer
    >>> driver = TermDriver([BudgetPacer(1.0, [0.5, 2.0])], ["small", "large"])
    >>> decision = driver.select([1.0, 0.0])
    >>> driver.update(decision.id, 0.8, cost=0.4)
    True
    >>> driver.terms[0].spent
    0.4
    """

    def __init__(self, terms: Sequence[Term], arms: Sequence[str], policy: LinUCB | None = None) -> None:
        self.policy = LinUCB(arms, 2, rng=0) if policy is None else policy
        self.terms: list[Term] = list(terms)
        self.rows: list[PriceRow] = []
        self.events: list[Happened] = []
        self.open: dict[int, tuple[str, Request, list[Any]]] = {}
        self.count, self.time, self.relaxed = 0, 0.0, 0
        self._stale: set[int] = set()
        self._bind()

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms."""
        return self.policy.arms

    def _bind(self) -> None:
        self.rows = []
        for i, term in enumerate(self.terms):
            row = PriceRow(np.zeros(len(self.arms)), lambda i=i: self._stale.add(i), lambda: self)  # type: ignore[misc]
            self.rows.append(row)
            self._stale.add(i)
            term.bind(self.arms, row)

    def priced(self, request: Request) -> Floats:
        """Return what a request pays for each arm, (k,): stale rows are written, soft terms give way."""
        while self._stale:
            self.terms[self._stale.pop()].write()
        total = np.zeros(len(self.arms))
        for term, row in zip(self.terms, self.rows, strict=True):
            own = term.prices(request) if term.per_request else None
            both = total + row.values if own is None else total + row.values + own
            if term.soft and both.min() == np.inf:
                self.relaxed += 1
            else:
                total = both
        return total

    def select(
        self,
        x: ArrayLike,
        *,
        eligible: Collection[str] | ArrayLike | None = None,
        prices: ArrayLike | None = None,
        protected: bool = False,
        session: str | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Decision:
        """Choose, and have the terms reserve."""
        extras = None if session is None and weights is None else Extras(session=session, weights=weights)
        request = Request(np.array(x, dtype=np.float64), self.count, extras, self.time)
        total = self.priced(request) + (0.0 if prices is None else np.asarray(prices))
        if isinstance(eligible, Collection) and not isinstance(eligible, np.ndarray):
            total = np.where([arm in eligible for arm in self.arms], total, np.inf)
        elif eligible is not None:
            total = np.where(np.asarray(eligible), total, np.inf)
        allowed = total < np.inf
        choice = self.policy.select(request.x, prices=np.where(allowed, total, 0.0), eligible=allowed)
        self.happen("decided", self.count, self.arms[choice.arm], request)
        return Decision(self.count - 1, self.arms[choice.arm], choice.propensity, True, 0, self.time)

    def update(
        self,
        decision_id: int,
        reward: float,
        *,
        cost: float | None = None,
        seconds: float | None = None,
        failed: bool = False,
    ) -> bool:
        """Learn a reward, and have the terms settle."""
        if decision_id not in self.open:
            return False
        arm, request, _ = self.open[decision_id]
        if arm in self.arms and not failed:
            self.policy.update(arm, request.x, reward)
        self.happen("answered", decision_id, reward, cost, seconds, failed)
        return True

    def cancel(self, decision_id: int) -> bool:
        """Withdraw a decision, and have the terms release."""
        if decision_id not in self.open:
            return False
        self.happen("dropped", decision_id)
        return True

    def forget_arm(self, name: str) -> None:
        """Start an arm anew."""
        at = self.policy.index(name)
        self.policy.resize([None if i == at else i for i in range(len(self.arms))])
        self.policy.rename(self.arms)

    def tell_term(self, name: str, details: Mapping[str, Any]) -> None:
        """Have a term take up what it was told from outside."""
        self.happen("marked", name, dict(details))

    def add_term(self, term: Term) -> None:
        """Let one more term shape the choices."""
        self.terms.append(term)
        self._bind()

    def add_arm(self, name: str) -> None:
        """Add an arm, here and in the terms."""
        self.happen("added", name)

    def remove_arm(self, name: str) -> None:
        """Remove an arm; its open decisions come to nothing."""
        self.happen("removed", name)

    def happen(self, what: str, *given: Any) -> None:
        """Let an event take effect, now or in a replay."""
        getattr(self, f"_{what}")(*given)
        self.events.append(Happened(what, given))

    def replay(self, events: Sequence[Happened]) -> "TermDriver":
        """Let the events of another driver take effect here."""
        for event in events:
            self.happen(event.what, *event.given)
        return self

    def _decided(self, key: int, arm: str, request: Request) -> None:
        self.open[key] = (arm, request, [term.reserve(arm, request) for term in self.terms])
        self.count, self.time = key + 1, request.time

    def _answered(
        self, key: int, reward: float, cost: float | None, seconds: float | None, failed: bool
    ) -> None:
        arm, request, held = self.open.pop(key)
        feedback = Feedback(key, arm, request, reward, cost, seconds, failed)
        for term, own in zip(self.terms, held, strict=True):
            term.settle(arm, own, feedback)

    def _dropped(self, key: int) -> None:
        arm, _, held = self.open.pop(key)
        for term, own in zip(self.terms, held, strict=True):
            term.release(arm, own)

    def _marked(self, name: str, details: Mapping[str, Any]) -> None:
        next(term for term in self.terms if term.name == name).replay_mark(details)

    def _added(self, name: str) -> None:
        self.policy.add_arm(name)
        for term in self.terms:
            term.add_arm(name)
        self._bind()

    def _removed(self, name: str) -> None:
        for key in [key for key, (arm, *_) in self.open.items() if arm == name]:
            self._dropped(key)
        self.policy.remove_arm(name)
        for term in self.terms:
            term.remove_arm(name)
        self._bind()
