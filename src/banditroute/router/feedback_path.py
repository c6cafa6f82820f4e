"""The one way of a reward from a decision to the statistics, wherever it comes from."""

from collections.abc import Mapping
from typing import Any

from banditroute.errors import UnknownDecision
from banditroute.policies import Policy
from banditroute.records import ArmChange, Extras, Feedback, Origin, Pending, Request
from banditroute.router.ledger import ANSWERED, Entry
from banditroute.router.parts import RouterParts

__all__ = ["FeedbackPath", "asked", "spread"]


class FeedbackPath:
    """Learns answers, lets decisions expire, cancels them; the lock must be held.

    Order: claims, learn, books, settle, listeners. Should the policy refuse the reward, the decision stays open.

    Parameters
    ----------
    parts : RouterParts
    """

    __slots__ = ("_parts", "plain")

    def __init__(self, parts: RouterParts) -> None:
        self._parts = parts
        self.plain = True
        self.collect()

    def collect(self) -> None:
        """See that terms, listeners or claims changed: without any, an answer takes the short way."""
        parts = self._parts
        self.plain = not (
            parts.table.terms or parts.listeners.all or parts.claims is not None or parts.spread_pending
        )

    def answer(
        self,
        key: int,
        entry: Entry,
        reward: float,
        cost: float | None = None,
        seconds: float | None = None,
        failed: bool = False,
    ) -> bool:
        """Learn the answer to a decision of this ledger; False when its arm is gone or in quarantine."""
        parts = self._parts
        arms = parts.arms
        arm = arms.positions.get(entry[0])
        if self.plain and arm is not None and not arms.muted[arm]:
            ledger = parts.ledger
            ledger.learning = key
            try:
                parts.policy.update(arm, entry[1], reward, at=entry[4])
            except Exception:
                ledger.learning = -1
                raise
            ledger.answer(key)
            ledger.learning = -1
            arms.pending[arm] -= 1
            arms.answers[arm] += 1
            arms.reward_sums[arm] += reward
            parts.books.learned += 1
            if cost is not None:
                parts.books.spend += cost
            return True
        feedback = Feedback(key, entry[0], self._request(entry), reward, cost, seconds, failed, kept=entry[1])
        if parts.claims is not None and parts.claims.defers(key, Pending(*entry), feedback):
            parts.ledger.answer(key)
            self._off_play(arm)
            return True
        parts.ledger.learning = key
        try:
            learned = self._learn(arm, entry[1], feedback)
        except Exception:
            parts.ledger.learning = -1
            raise
        parts.ledger.answer(key)
        parts.ledger.learning = -1
        self._off_play(arm)
        self._told(entry, feedback, learned)
        return learned

    def absorb(self, pending: Pending, feedback: Feedback) -> bool:
        """Learn an answer to a decision that is in this ledger no more, or never was."""
        parts = self._parts
        feedback = feedback._replace(request=asked(pending, parts.policy), kept=pending.context)
        arm = parts.arms.positions.get(pending.arm)
        learned = self._learn(arm, pending.context, feedback)
        parts.ledger.close(feedback.id, ANSWERED)
        if learned and feedback.origin == "elsewhere":
            parts.books.foreign += 1
        self._told(tuple(pending), feedback, learned)
        return learned

    def _learn(self, arm: int | None, context: Any, feedback: Feedback) -> bool:
        parts = self._parts
        guest = arm is None and parts.policy.learns_of(feedback.arm)
        if not guest and (arm is None or parts.arms.muted[arm]):
            parts.books.dropped += 1
            return False
        parts.policy.update(
            feedback.arm if arm is None else arm, context, feedback.reward, at=feedback.request.at
        )
        parts.books.learned += 1
        if feedback.cost is not None:
            parts.books.spend += feedback.cost
        if arm is not None:
            parts.arms.answers[arm] += 1
            parts.arms.reward_sums[arm] += feedback.reward
        return True

    def _told(self, entry: Any, feedback: Feedback, learned: bool) -> None:
        """Settle with the terms and tell the listeners: of a drop, where nothing was learned."""
        parts = self._parts
        held = entry[5]
        for at, term in enumerate(parts.table.terms):
            mine = None if held is None or at >= len(held) else held[at]
            if learned:
                parts.books.guarded(term.name, term.settle, feedback.arm, mine, feedback)
            elif held is not None:
                parts.books.guarded(term.name, term.release, feedback.arm, mine)
        if learned:
            parts.listeners.learned(feedback)
        else:
            parts.listeners.dropped(feedback.id, "removed")

    def expired(self, key: int, entry: Entry) -> None:
        """See a decision expire: the reward stated for that is learned, or nothing is."""
        parts = self._parts
        name, held = entry[0], entry[5]
        arm = parts.arms.positions.get(name)
        self._off_play(arm)
        if self.plain and parts.expired_reward is None:
            return
        reward = parts.expired_reward
        origin: Origin = "expired"
        feedback = None
        if reward is not None:
            feedback = Feedback(key, name, self._request(entry), reward, origin=origin, kept=entry[1])
        if parts.claims is not None and parts.claims.defers(key, Pending(*entry), feedback):
            return
        self.release(name, held)
        learned = feedback is not None and self._learn(arm, entry[1], feedback)
        if learned and feedback is not None:
            parts.listeners.learned(feedback)
        else:
            parts.listeners.dropped(key, "expired")

    def cancel(self, key: int) -> None:
        """Take a decision off the books that nothing will answer: it teaches nothing and frees what it held."""
        parts = self._parts
        entry = parts.ledger.cancel(key)
        self._off_play(parts.arms.positions.get(entry[0]))
        self.release(entry[0], entry[5])
        parts.listeners.dropped(key, "cancelled")

    def answered_elsewhere(self, key: int, feedback: Feedback | None = None) -> bool:
        """Close a decision that another replica has answered; False where it is not open here.

        ``feedback`` is what was learned there: terms settle with it, and listeners hear of it in any case.
        """
        parts = self._parts
        entry = parts.ledger.pending.get(key)
        if entry is not None:
            name, held = entry[0], entry[5]
            parts.ledger.answer(key)
            self._off_play(parts.arms.positions.get(name))
            if feedback is None:
                self.release(name, held)
            else:
                feedback = feedback._replace(arm=name, request=self._request(entry))
                for at, term in enumerate(parts.table.terms):
                    mine = None if held is None or at >= len(held) else held[at]
                    parts.books.guarded(term.name, term.settle, name, mine, feedback)
        if feedback is not None:
            parts.listeners.learned(feedback)
        if entry is not None:
            parts.listeners.dropped(key, "answered")
        return entry is not None

    def adopt(self, key: int, answer: Mapping[str, Any]) -> bool:
        """Learn an answer to a decision of another worker; the store is asked, so without the lock."""
        parts = self._parts
        claims = parts.claims
        assert claims is not None
        try:
            return claims.adopt(key, answer)
        except (UnknownDecision, ValueError, TypeError):
            if parts.limits is not None:
                with parts.lock:
                    parts.limits.refund(answer["source"])
            raise

    def release(self, arm: str, held: tuple[Any, ...] | None) -> None:
        """Give back what the terms set aside for a decision."""
        if held is None:
            return
        parts = self._parts
        for term, mine in zip(parts.table.terms, held, strict=False):
            parts.books.guarded(term.name, term.release, arm, mine)

    def change(self, change: ArmChange) -> None:
        """Tell the listeners that arms changed."""
        self._parts.listeners.arms_changed(change)

    def _off_play(self, arm: int | None) -> None:
        if arm is not None:
            self._parts.arms.pending[arm] -= 1
            if self._parts.spread_pending:
                spread(self._parts, arm)

    def _request(self, entry: Entry) -> Request:
        return asked(entry, self._parts.policy)


def asked(entry: Any, policy: Policy) -> Request:
    """Return the request of a decision in the ledger, as far as it was kept."""
    _, kept, _, time, at, _, weights, session = entry
    extras = None if weights is None and session is None else Extras(weights=weights, session=session)
    return Request(policy.context_of(kept), at, extras, time)


def spread(parts: RouterParts, arm: int) -> None:
    """Narrow the bonus of an arm as if each of its pending decisions were one more observation.

    Exact where contexts are unit vectors along one direction: the width there is (ridge + n)^-1/2, and p plays
    more make it (ridge + n + p)^-1/2. The factor is derived from two counts, so expiry and answers undo it.
    """
    known = parts.policy.mass(arm)
    parts.policy.widen(arm, "pending", (known / (known + max(0.0, parts.arms.pending[arm]))) ** 0.5)
