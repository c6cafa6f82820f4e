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
    Deferred,
    Dropped,
    Event,
    Feedback,
    Marked,
    Pending,
    Why,
)
from banditroute.router import changes, state
from banditroute.router.feedback_path import FeedbackPath, asked, spread
from banditroute.router.ledger import ANSWERED, EXPIRED
from banditroute.router.limits import Limits
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

    __slots__ = ("_feedback", "_limits", "_named", "parts")

    def __init__(
        self,
        parts: RouterParts,
        feedback: FeedbackPath,
        named: "OrderedDict[int, Decision]",
        limits: Limits | None = None,
    ) -> None:
        self.parts, self._feedback, self._named, self._limits = parts, feedback, named, limits

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the arms now."""
        return self.parts.arms.names

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
        if isinstance(event, Deferred):  # waits until the Router joins its store again
            return False
        for term in parts.table.terms:
            if term.name == event.term:
                term.replay_mark(event.details)
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
            request = asked(tuple(pending), policy.dim)
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
            asked(tuple(pending), self.parts.policy.dim),
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
        if event.why == "expired":  # with the reward that was stated then, whatever is stated now
            stated, self.parts.expired_reward = self.parts.expired_reward, event.reward
            try:
                ledger.expire(event.id)
            finally:
                self.parts.expired_reward = stated
        elif event.why == "cancelled":
            self._feedback.cancel(event.id)
        else:
            if event.why == "removed":  # an answer came that taught nothing
                self.parts.books.dropped += 1
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

    def flush(self) -> None:
        """Have every listener that writes make durable what it was told; without the lock."""
        for listener in self.parts.listeners.all:
            flush = getattr(listener, "flush", None)
            if flush is not None:
                flush()

    def check(self, reward: float, pending: Pending | None) -> None:
        """Raise ``ValueError`` for a reward that the policy would refuse."""
        self.parts.policy.check_reward(reward, 1.0)

    def admit(self, answer: Answered) -> float | None:
        """Return the reward to learn by the rules of its source; None where that is above its rate."""
        if self._limits is None:
            return answer.reward
        return self._limits.admit(answer.source, answer.reward, self.parts.books.now())

    def refund(self, source: str | None) -> None:
        """Take back what the rate of a source was charged for an answer to a decision that is not known yet."""
        if self._limits is not None:
            self._limits.refund(source)

    def absorb(self, pending: Pending, feedback: Feedback) -> bool:
        """Learn an answer to a decision that is not, or no more, in this ledger; False when its arm is gone."""
        return self._feedback.absorb(pending, feedback)

    def duplicate(self) -> None:
        """Count an answer that came after another."""
        self.parts.ledger.duplicates += 1

    def drop(self, decision_id: int, pending: Pending | None, why: Why) -> None:
        """End an answer that waited for the store and teaches nothing."""
        parts, ledger = self.parts, self.parts.ledger
        if pending is not None:
            self._feedback.release(pending.arm, pending.held)
        if why == "answered":
            if ledger.closed.get(decision_id) == EXPIRED:  # another worker was first: it has not expired
                ledger.expired -= 1
            else:
                ledger.duplicates += 1
            ledger.close(decision_id, ANSWERED)
        elif why == "removed":
            parts.books.dropped += 1
        parts.listeners.dropped(decision_id, why)

    def answered(self, feedback: Feedback) -> bool:
        """See a decision of this Router learned by a peer; False where it awaits feedback no more."""
        return self._feedback.answered_elsewhere(feedback.id, feedback)

    def apply(self, event: ArmChange | Marked) -> bool:
        """Do as another worker did, and tell the listeners; False where there was nothing to do or it is refused."""
        try:
            if isinstance(event, Marked):
                if not self._replayed(event):
                    return False
                self.parts.listeners.marked(event)
                return True
            return self._changed(event)
        except (ValueError, TypeError, LookupError) as error:
            log.warning("%s elsewhere, not possible here: %s", event, error)
            return False

    def announce(self, event: Deferred) -> None:
        """Tell the listeners that an answer waits for the store."""
        self.parts.listeners.deferred(event)

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
            spread(self.parts, arm)
