"""What durability sees of a Router."""

import logging
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Literal, cast

from banditroute._core.typing import Arrays, Header
from banditroute.durability.membership import Membership
from banditroute.errors import SnapshotError
from banditroute.policies import Policy
from banditroute.policies.evidence import EvidencePolicy
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
    Note,
    Pending,
    SharedTerm,
    Why,
)
from banditroute.router import changes, feature_maps, state
from banditroute.router.feedback_path import FeedbackPath, asked
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

    __slots__ = ("_feedback", "_limits", "_named", "member", "parts")

    def __init__(
        self,
        parts: RouterParts,
        feedback: FeedbackPath,
        named: "OrderedDict[int, Decision]",
        limits: Limits | None = None,
    ) -> None:
        self.parts, self._feedback, self._named, self._limits = parts, feedback, named, limits
        self.member: Membership | None = None  # who this was in its store, until it joins that again

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the arms now."""
        return self.parts.arms.names

    @property
    def features(self) -> str | None:
        """Fingerprint of what makes contexts of requests; None where requests are contexts."""
        features = self.parts.features
        if features is None:
            return None
        if not features.fitted:
            raise ValueError(f"features must be fitted before join, got {features!r}")
        return features.fingerprint()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock, with no plan under way."""
        with self.parts.lock:
            self.parts.settle()
            yield

    def capture(self) -> tuple[Header, Arrays]:
        """Return the whole state; the lock must be held."""
        return state.capture(self)

    def capture_slices(self) -> Iterator[tuple[Header, Arrays] | None]:
        """Copy the whole state bit by bit, as it is at the first ``next()``; the lock must be held for each."""
        return state.slices(self)

    def held(self) -> AbstractContextManager[Any]:
        """Hold the lock, whatever plan is under way."""
        return self.parts.lock

    def restore(
        self, header: Header, arrays: Arrays, *, arms: Literal["file", "code"] = "file"
    ) -> dict[str, Any]:
        """Put a captured state back, whole or not at all; the lock must be held."""
        member = _member(self.parts.policy, header, arrays)
        report = state.restore(self, header, arrays, arms=arms)
        self.follow(member)
        self._named.clear()
        self.parts.rearm()
        return report

    def follow(self, member: Membership | None) -> None:
        """Have who this was in its store take in what is replayed, until it joins that again; None ends it."""
        if self.member is not None:
            self.parts.listeners.remove(self.member)
        self.member = member
        if member is not None:
            self.parts.listeners.add(member)
        self.parts.rearm()

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
            features = feature_maps.agreed(self.parts.features, header, arrays)
            own = {n.removeprefix("policy."): a for n, a in arrays.items() if n.startswith("policy.")}
            policy.load_state(header["policy"], own, settings="own")
            features()
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
        if isinstance(event, Deferred):
            return self._deferred(event)
        for term in parts.table.terms:
            if term.name == event.term:
                term.replay_mark(event.details)
                return True
        return False

    def _decided(self, event: Decided) -> bool:
        parts, pending = self.parts, event.pending
        policy, books, ledger = parts.policy, parts.books, parts.ledger
        arm = parts.arms.positions.get(pending.arm)
        if event.id in ledger.pending or event.id in ledger.closed:
            return False
        if arm is None and not policy.learns_of(pending.arm):
            return False
        context = policy.check_context(policy.context_of(pending.context))
        policy.advance(pending.at)
        policy.redraw(pending.context)
        if parts.residence is not None and arm is not None:
            controller = parts.residence.controller
            if event.forced and controller.needs[arm] > 0.0:
                controller.needs[arm] -= 1.0
                books.forced += 1
            try:
                controller.observe(arm, context, event.hit)
                if not event.hit and controller.inserts:
                    parts.residence.insert(arm)
            except (Exception, SystemExit) as error:  # as when the decision was made
                books.failed("the controller", error)
        books.index += 1
        books.hits += event.hit
        if arm is not None:
            parts.arms.pending[arm] += 1
            parts.arms.plays[arm] += 1
        books.offset = pending.time - books.clock()
        entry: Any = tuple(pending)
        if parts.table.terms and arm is not None:
            request = asked(tuple(pending), policy)
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
            waited = self._waited(event.id)
            return waited is not None and self.absorb(
                waited, self.feedback(event.id, waited, event, elsewhere=False)
            )
        self._feedback.answer(event.id, entry, event.reward, event.cost, event.seconds, event.failed)
        return True

    def feedback(
        self, decision_id: int, pending: Pending, answer: Answered, *, elsewhere: bool = True
    ) -> Feedback:
        """Return an answer as `Feedback` on the decision it answers."""
        return Feedback(
            decision_id,
            pending.arm,
            asked(tuple(pending), self.parts.policy),
            answer.reward,
            answer.cost,
            answer.seconds,
            answer.failed,
            "elsewhere" if elsewhere else "here",
            pending.context,
        )

    def _dropped(self, event: Dropped) -> bool:
        ledger = self.parts.ledger
        if event.id not in ledger.pending:
            return self._ended(event)
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

    def _deferred(self, event: Deferred) -> bool:
        """Have an answer wait for the store again, until the Router joins it."""
        if self.member is None:
            return False
        ledger = self.parts.ledger
        entry = ledger.pending.get(event.id)
        if entry is not None:
            ledger.answer(event.id)
            arm = self.parts.arms.positions.get(entry[0])
            if arm is not None:
                self.parts.arms.pending[arm] -= 1
            event = event._replace(pending=Pending(*entry))
        self.member.deferred(event)
        return True

    def _waited(self, decision_id: int) -> Pending | None:
        """Return the decision of an answer that waited for the store, where it was made here."""
        event = None if self.member is None else self.member.waiting.get(decision_id)
        return None if event is None else event.pending

    def _ended(self, event: Dropped) -> bool:
        """See the wait of an answer end: the reward stated for decisions that expire was learned, or nothing."""
        if self.member is None or event.id not in self.member.waiting:
            return False
        pending = self._waited(event.id)
        if pending is None or event.reward is None:
            self.drop(event.id, pending, event.why)
            return True
        answer = Answered(event.id, event.reward)
        return self.absorb(pending, self.feedback(event.id, pending, answer)._replace(origin="expired"))

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
        """Have listeners that have a `flush`, a journal, make durable what they were told; without the lock."""
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

    def notes(self, known: Collection[str]) -> dict[str, list[Note]]:
        """Return what each term that shares noted here since the last call; all that a new one knows."""
        parts, found = self.parts, {}
        for term in parts.table.terms:
            if isinstance(term, SharedTerm):
                call = partial(term.notes, anew=term.name not in known)
                found[term.name] = cast("list[Note]", parts.books.guarded(term.name, call) or [])
        return found

    def take(self, term: str, notes: Sequence[Note]) -> None:
        """Have a term take in what other workers noted; listeners are told of what was news."""
        parts = self.parts
        for one in parts.table.terms:
            if one.name == term and isinstance(one, SharedTerm):
                new = cast("list[Note]", parts.books.guarded(term, one.take, notes) or [])
                if new:
                    parts.listeners.marked(Marked(term, {"notes": [list(note) for note in new]}))

    def passed(self, seconds: float) -> None:
        """Have each term that shares see that time stood still here for so long."""
        for term in self.parts.table.terms:
            if isinstance(term, SharedTerm):
                self.parts.books.guarded(term.name, term.passed, seconds)

    @property
    def time(self) -> float:
        """The time now."""
        return self.parts.books.now()

    @property
    def time_limit_s(self) -> float:
        """Seconds after which a decision expires."""
        return self.parts.ledger.time_limit

    @property
    def size_limit(self) -> int:
        """Decisions that may be pending."""
        return self.parts.ledger.size_limit


def _member(policy: Policy, header: Header, arrays: Arrays) -> Membership | None:
    """Return who the Router of a state was in its store; None where it had joined none."""
    if "replica" not in header or not isinstance(policy, EvidencePolicy):
        return None
    own = {
        name.removeprefix("replica."): array for name, array in arrays.items() if name.startswith("replica.")
    }
    try:
        return Membership.of_state(policy, header["replica"], own)
    except (ValueError, TypeError, LookupError) as error:
        raise SnapshotError(f"the snapshot must fit this router: {error}") from error
