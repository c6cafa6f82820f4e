"""What durability sees of a Router."""

import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from banditroute._core.typing import Arrays, Header
from banditroute.errors import SnapshotError
from banditroute.records import (
    Answered,
    ArmChange,
    Decided,
    Decision,
    Dropped,
    Event,
    Extras,
    Feedback,
    Pending,
    Request,
)
from banditroute.router import changes, state
from banditroute.router.feedback_path import FeedbackPath
from banditroute.router.ledger import ANSWERED
from banditroute.router.parts import RouterParts

__all__ = ["RouterHost"]

log = logging.getLogger("banditroute.router")


class RouterHost:
    """State out and in, events back in, the lock: the `Host` of journals and replicas.

    Parameters
    ----------
    parts : RouterParts
    feedback : FeedbackPath
    named : dict of int to Decision
        Decisions under ids of the caller.
    """

    __slots__ = ("_feedback", "_named", "parts")

    def __init__(
        self, parts: RouterParts, feedback: FeedbackPath, named: "OrderedDict[int, Decision]"
    ) -> None:
        self.parts, self._feedback, self._named = parts, feedback, named

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock, with no plan under way."""
        with self.parts.lock:
            self.parts.settle()
            yield

    def capture(self) -> tuple[Header, Arrays]:
        """Return the whole state; the lock must be held."""
        return state.capture(self)

    def restore(
        self, header: Header, arrays: Arrays, *, arms: Literal["file", "code"] = "file"
    ) -> dict[str, Any]:
        """Put a captured state back, whole or not at all; the lock must be held."""
        report = state.restore(self, header, arrays, arms=arms)
        self._named.clear()
        self.parts.rearm()
        return report

    def restore_statistics(self, header: Header, arrays: Arrays) -> None:
        """Put back what the policy knew in a captured state, and nothing else; the lock must be held.

        Raises
        ------
        SnapshotError
            It does not fit, or is of other arms; nothing changed.
        """
        policy = self.parts.policy
        try:
            if header["policy"]["arms"] != list(policy.arms):
                raise ValueError(f"arms must be {list(policy.arms)}, got {header['policy']['arms']}")
            own = {n.removeprefix("policy."): a for n, a in arrays.items() if n.startswith("policy.")}
            policy.load_state(header["policy"], own, settings="own")
        except (ValueError, TypeError, LookupError) as error:
            raise SnapshotError(f"the snapshot must fit this router: {error}") from error
        self.parts.boundary = self.parts.books.due = 0.0

    # Replay.

    def replay(self, event: Event) -> bool:
        """Put one event into effect again; False where it does not apply (any more). Listeners are not told."""
        parts = self.parts
        with parts.lock, parts.listeners.silent():
            try:
                return self._replayed(event)
            except (ValueError, TypeError, LookupError) as error:
                log.warning("record passed over: %s", error)
                return False

    def _replayed(self, event: Event) -> bool:
        parts = self.parts
        if isinstance(event, Decided):
            return self._decided(event)
        if isinstance(event, Answered):
            return self._answered(event)
        if isinstance(event, Dropped):
            return self._dropped(event)
        if isinstance(event, ArmChange):
            return self._changed(event)
        for term in parts.table.terms:
            if term.name == event.term:
                term.mark(event.details)
                return True
        return False

    def _decided(self, event: Decided) -> bool:
        parts, pending = self.parts, event.pending
        policy, books, ledger = parts.policy, parts.books, parts.ledger
        arm = parts.arms.positions.get(pending.arm)
        if arm is None or event.id in ledger.pending or event.id in ledger.closed:
            return False
        context = policy.check_context(pending.context[: policy.dim])
        policy.advance(pending.at)
        policy.select(context)  # for the random numbers that the decision used
        if parts.residence is not None:
            controller = parts.residence.controller
            if event.forced and controller.needs[arm] > 0.0:
                controller.needs[arm] -= 1.0
                books.forced += 1
            controller.observe(arm, context, event.hit)
            if not event.hit and controller.inserts:
                parts.residence.insert(arm)
        books.index += 1
        books.hits += event.hit
        parts.arms.pending[arm] += 1
        parts.arms.plays[arm] += 1
        books.offset = pending.time - books.clock()
        entry: Any = tuple(pending)
        if parts.table.terms:
            extras = Extras(weights=pending.weights, session=pending.session)
            request = Request(context, pending.at, extras)
            held = tuple(books.guarded(t.name, t.reserve, pending.arm, request) for t in parts.table.terms)
            entry = (*entry[:5], held, *entry[6:])
        ledger.open(entry, event.id)
        return True

    def _answered(self, event: Answered) -> bool:
        parts = self.parts
        if event.foreign is not None:
            if event.id in parts.ledger.closed:
                return False
            return self.absorb(event.foreign, self.feedback(event.id, event.foreign, event))
        entry = parts.ledger.pending.get(event.id)
        if entry is None:
            return False
        self._feedback.answer(event.id, entry, event.reward, event.cost, event.seconds, event.failed)
        return True

    def feedback(
        self, decision_id: int, pending: Pending, answer: Answered, *, elsewhere: bool = True
    ) -> Feedback:
        """Return an answer as `Feedback` on the decision it answers."""
        return Feedback(
            decision_id,
            pending.arm,
            Request(pending.context[: self.parts.policy.dim], pending.at),
            answer.reward,
            answer.cost,
            answer.seconds,
            answer.failed,
            "elsewhere" if elsewhere else "here",
        )

    def _dropped(self, event: Dropped) -> bool:
        ledger = self.parts.ledger
        if event.id not in ledger.pending:
            return False
        if event.why == "expired":
            ledger.expire(event.id)
        elif event.why == "cancelled":
            self._feedback.cancel(event.id)
        else:
            self._feedback.answered_elsewhere(event.id)
        return True

    def _changed(self, event: ArmChange) -> bool:
        parts = self.parts
        if event.what == "added":
            changes.add_arm(parts, event.arm, event.size, event.fault)
        elif event.what == "removed":
            changes.remove_arm(parts, self._feedback, event.arm)
        elif event.what == "forgotten":
            changes.forget_arm(parts, event.arm)
        else:
            changes.mute(parts, event.arm, event.what == "muted")
        parts.rearm()
        return True

    # What replicas do; the lock must be held.

    def absorb(self, pending: Pending, feedback: Feedback) -> bool:
        """Learn an answer to a decision that is not, or no more, in this ledger; False when its arm is gone."""
        return self._feedback.absorb(pending, feedback)

    def answered_elsewhere(self, decision_id: int, feedback: Feedback | None = None) -> bool:
        """Close a decision of this ledger that another worker has answered, and pass the answer on to listeners."""
        closed = self._feedback.answered_elsewhere(decision_id)
        if closed and feedback is not None:
            self.parts.listeners.learned(feedback)
        return closed

    def duplicate(self) -> None:
        """Count an answer that came after another."""
        self.parts.ledger.duplicates += 1

    def dropped(self) -> None:
        """Count an answer that cannot be learned."""
        self.parts.books.dropped += 1

    def remember(self, decision_id: int) -> None:
        """Remember that a decision of another worker has been answered."""
        self.parts.ledger.close(decision_id, ANSWERED)

    @property
    def decisions(self) -> int:
        """Decisions made here."""
        return self.parts.books.index

    @property
    def others(self) -> int:
        """Decisions of other workers, as far as they are known."""
        return self.parts.books.others

    def hear_of(self, others: int) -> None:
        """Move the common clock to so many decisions of others; it never goes back."""
        books = self.parts.books
        books.others = max(books.others, others)
        books.due = 0.0

    @property
    def time_limit_s(self) -> float:
        """Seconds after which a decision expires."""
        return self.parts.ledger.time_limit

    @property
    def size_limit(self) -> int:
        """Decisions that may be pending."""
        return self.parts.ledger.size_limit

    def respread(self, arm: int) -> None:
        """Narrow the bonus of an arm by its pending decisions, where that is switched on."""
        if self.parts.spread_pending:
            changes.spread(self.parts, arm)
