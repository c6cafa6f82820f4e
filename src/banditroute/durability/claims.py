"""Decisions that any replica may answer: which worker learns an answer, once, though replies of the store are lost."""

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from banditroute.durability.membership import Membership
from banditroute.durability.rows import packed, unpacked
from banditroute.durability.waiting import BATCH, Kept, Patience, Ready, as_feedback, batches
from banditroute.errors import SnapshotError, UnknownArm, UnknownDecision
from banditroute.records import (
    Answered,
    Deferred,
    Feedback,
    Host,
    Pending,
    StateStore,
)

__all__ = ["CANCELLED", "SharedDecisions"]

log = logging.getLogger("banditroute.durability.replicas")


HOLD = 64  # answers learned in one hold of the lock
PATIENCE_S = 2.0  # an answer waits so long for a decision that nobody knows yet
SHORTEST_S, LONGEST_S = 0.02, 0.5  # between questions for it
MOST_UNKNOWN = 10_000  # answers that wait so
MOST_LETTERS = 50_000  # to one replica
CANCELLED = "cancelled"  # the token of whoever withdraws a decision, so that any worker can tell


class SharedDecisions:
    """The `Claims` of a replica.

    A decision goes to the store a moment after it was made. An answer to one that is there waits until the store has
    said that no other replica has it; the question carries a token, so that the same question gets the same answer.

    Parameters
    ----------
    host : Host
    store : StateStore
    me : Membership
        Holds the answers that wait.
    clock : callable
        Seconds, never backwards.
    failed : callable
        Is told that the store is down.

    Notes
    -----
    What is kept is never sent twice with effect: a store leaves alone what it has or had. So what became of a call that
    failed need not be known: it is made again.
    """

    def __init__(
        self,
        host: Host,
        store: StateStore,
        me: Membership,
        clock: Callable[[], float],
        failed: Callable[[OSError], None],
    ) -> None:
        self.host, self.store, self.me, self.clock, self.failed = host, store, me, clock, failed
        self.outbox: OrderedDict[int, Kept] = OrderedDict()  # never sent
        self.sent: OrderedDict[int, Kept] = OrderedDict()  # sent; whether they arrived is not known
        self.closing: OrderedDict[int, None] = (
            OrderedDict()
        )  # cancelled here: nobody may answer them any more
        self.patience: dict[int, Patience] = {}
        self._claiming: set[int] = set()
        self._turn = threading.Lock()
        self.token = secrets.token_hex(8)
        self.unshared = self.lost = self.foreign = self.unknown = self.refused = 0

    # With the Router's lock held.

    def decided(self, key: int, pending: Pending) -> None:
        """See a decision made here."""
        self.outbox[key] = Kept(pending, self.me.generation(pending.arm))
        if len(self.outbox) > self.host.size_limit:  # the store is down: this one can be answered here only
            self.outbox.popitem(last=False)
            self.unshared += 1

    def cancelled(self, key: int) -> None:
        """See a decision withdrawn."""
        if self.outbox.pop(key, None) is None:
            self.closing[key] = None
            if len(self.closing) > self.host.size_limit:
                self.closing.popitem(last=False)

    def removed(self, arm: str) -> None:
        """Leave decisions that were not sent yet without a removed arm; one of its name may come again."""
        for waiting in (self.outbox, self.sent):
            for key, kept in waiting.items():
                if kept.pending.arm == arm:
                    waiting[key] = kept._replace(pending=kept.pending._replace(arm=""))

    def defers(self, key: int, pending: Pending, feedback: Feedback | None) -> bool:
        """Tell whether the store must say first that no other replica has answered; None: the decision expired."""
        if self.outbox.pop(key, None) is not None:
            return False
        if feedback is not None and feedback.origin == "here":
            self.host.check(feedback.reward, pending)
        answer = None
        if feedback is not None:
            answer = Answered(key, feedback.reward, feedback.cost, feedback.seconds, feedback.failed)
        policy = self.me.policy
        if pending.arm not in policy.arms and not policy.learns_of(pending.arm):
            # The store knows it still; other workers may have the arm.
            if answer is None:
                return False
            self._defer(key, answer, None)
        else:
            self._defer(key, answer, pending, expired=feedback is not None and feedback.origin == "expired")
        return True

    def _defer(
        self,
        key: int,
        answer: Answered | None,
        pending: Pending | None,
        *,
        expired: bool = False,
        token: str = "",
    ) -> None:
        event = Deferred(key, answer, pending, token or self.token, expired)
        waiting = self.me.waiting
        waiting[key] = event
        self.host.announce(event)
        if len(waiting) > self.host.size_limit:
            oldest = next(iter(waiting.values()))
            self.lost += 1
            self._end(oldest, "expired")

    def _end(self, event: Deferred, why: Any) -> None:
        self.me.waiting.pop(event.id, None)
        self.patience.pop(event.id, None)
        self.host.drop(event.id, event.pending, why)

    # Without it.

    def adopt(self, key: int, fields: Mapping[str, Any]) -> bool:
        """Learn the answer to a decision that another worker made; False when it was answered before.

        Raises
        ------
        ValueError
            A bad reward; the decision still awaits its feedback, here and everywhere.
        UnknownDecision
            Too many answers to unknown decisions wait already.
        """
        answer = Answered(key, **fields)
        with self.host.locked():
            self.host.check(answer.reward, None)
            if key in self.me.waiting or key in self._claiming:
                self.host.duplicate()
                return False
            if len(self.patience) >= MOST_UNKNOWN:
                raise UnknownDecision(f"decision_id must be one that awaits or had its feedback, got {key!r}")
            self._claiming.add(key)
        token = secrets.token_hex(8)
        try:
            return self._claimed(answer, token)
        except OSError as error:
            self.failed(error)
            with self.host.locked():  # asked again later, so that serving goes on
                self.host.refund(answer.source)
                self._defer(key, answer, None, token=token)
            return True
        finally:
            with self.host.locked():
                self._claiming.discard(key)

    def _claimed(self, answer: Answered, token: str) -> bool:
        found = self.store.look([answer.id])[0]
        with self.host.locked():
            if found is None:  # it may be on its way
                self.host.refund(answer.source)
                self._defer(answer.id, answer, None)
                return True
            if not found:
                self.host.duplicate()
                return False
            kept = self._opened(answer.id, found)
            if kept is None:
                return False
            self.host.check(answer.reward, kept[0])
        taken = self.store.take([answer.id], token)[0]
        with self.host.locked():
            if not taken:
                self.host.duplicate()
                return False
            return self._learned(answer, *kept)

    def _opened(self, key: int, data: bytes) -> tuple[Pending, str, int] | None:
        """Return what a store keeps of a decision, or None, counted, where it is none."""
        try:
            return unpacked(data)
        except SnapshotError as error:
            self.refused += 1
            log.warning("decision %d refused: %s", key, error)
            return None

    def _learned(self, answer: Answered, pending: Pending, owner: str, generation: int) -> bool:
        """Learn an answer that is this replica's, to a decision that another made, and write to that one."""
        me, arm = self.me, pending.arm
        self.me.waiting.pop(answer.id, None)
        if generation < me.generation(arm):  # forgotten since it was made
            self.host.drop(answer.id, None, "removed")
            return False
        feedback = as_feedback(answer, pending, "elsewhere")
        try:
            learned = self.host.absorb(pending, feedback)
        except (ValueError, TypeError) as error:
            log.warning("feedback dropped: %s", error)
            self.host.drop(answer.id, None, "removed")
            return False
        entry = me.roster.entries.get(arm)
        if not learned and arm not in me.policy.arms and arm and (entry is None or entry.here):
            me.learn(arm, pending.context, answer.reward, pending.at)  # an arm that only others have
            learned = True
        self.foreign += learned
        if learned and owner not in (me.id, *me.former):
            me.write(owner, answer, arm, MOST_LETTERS)
        return learned

    # Rounds.

    def exchange(self, *, patient: bool = False) -> None:
        """Hand decisions to the store and ask it about the answers that wait.

        ``patient``: decisions that were not there are asked for ever more rarely.

        Raises
        ------
        OSError
            The store is down; nothing is lost.
        """
        with self._turn:
            self._hand_over()
            self._close()
            self._ask(patient)

    def _hand_over(self) -> None:
        while True:
            with self.host.locked():
                while self.outbox and len(self.sent) < BATCH:
                    key, kept = self.outbox.popitem(last=False)
                    self.sent[key] = kept
                batch = dict(self.sent)
                limit_s = self.host.time_limit_s
            if not batch:
                return
            self.store.keep({k: packed(p, self.me.id, g) for k, (p, g) in batch.items()}, limit_s)
            with self.host.locked():
                for key in batch:
                    del self.sent[key]

    def _close(self) -> None:
        while self.closing:
            with self.host.locked():
                keys = [key for key, _ in zip(self.closing, range(BATCH), strict=False)]
            self.store.take(keys, CANCELLED)
            with self.host.locked():
                for key in keys:
                    self.closing.pop(key, None)

    def _ask(self, patient: bool) -> None:
        now = self.clock()
        with self.host.locked():
            due = [
                event
                for event in self.me.waiting.values()
                if not patient or event.id not in self.patience or self.patience[event.id].next <= now
            ]
            if due:
                self.token = secrets.token_hex(8)  # what comes from here on asks by itself
        for events in batches(event for event in due if event.pending is not None):
            self._take(events, self._resolve)
        for events in batches(event for event in due if event.pending is None):
            found = self.store.look([event.id for event in events])
            ready: dict[int, Ready | None] = {}
            with self.host.locked():
                for event, data in zip(events, found, strict=True):
                    if data is None:
                        self._wait(event, now)
                    elif not data:  # taken: by this very question, perhaps, whose reply was lost
                        ready[event.id] = None
                    elif (kept := self._ready(event, data)) is not None:
                        ready[event.id] = kept
            self._take([e for e in events if e.id in ready], partial(self._adopted, ready))

    def _take(self, events: list[Deferred], resolve: Callable[[Deferred, bytes | None], None]) -> None:
        by_token: dict[str, list[Deferred]] = {}
        for event in events:
            by_token.setdefault(event.token, []).append(event)
        for token, asked in by_token.items():
            answers = self.store.take([event.id for event in asked], token)
            for start in range(0, len(asked), HOLD):
                with self.host.locked():
                    held = zip(asked[start : start + HOLD], answers[start : start + HOLD], strict=True)
                    for event, data in held:
                        now = self.me.waiting.get(event.id)
                        if now is not None and now.token == token:
                            resolve(now, data)

    def _resolve(self, event: Deferred, data: bytes | None) -> None:
        """See what the store says of a decision of this replica: nobody else can have what it never saw."""
        assert event.pending is not None
        if data == b"" or event.answer is None:
            self._end(event, "answered" if data == b"" else "expired")
            return
        self.me.waiting.pop(event.id, None)
        feedback = as_feedback(event.answer, event.pending, "expired" if event.expired else "here")
        try:
            self.host.absorb(event.pending, feedback)
        except (ValueError, TypeError, UnknownArm) as error:
            log.warning("feedback dropped: %s", error)
            self._end(event, "removed")

    def _wait(self, event: Deferred, now: float) -> None:
        """See that the decision is not in the store: not yet, or nobody made it."""
        patience = self.patience.get(event.id, Patience(now + PATIENCE_S, now, SHORTEST_S / 2.0))
        if now < patience.until:
            pause = min(2.0 * patience.pause, LONGEST_S)
            self.patience[event.id] = Patience(patience.until, now + pause, pause)
            return
        self.unknown += 1
        if self.unknown == 1:
            log.warning("an answer came for a decision that nobody made: %d", event.id)
        self._end(event, "unknown")

    def _ready(self, event: Deferred, data: bytes) -> Ready | None:
        """Return the decision that an answer waited for, and the answer as admitted; None where it ends here."""
        answer = event.answer
        assert answer is not None
        self.patience.pop(event.id, None)
        kept, reward = self._opened(event.id, data), None
        if kept is not None:
            try:
                self.host.check(answer.reward, kept[0])
                reward = self.host.admit(answer)
            except (ValueError, TypeError) as error:
                log.warning("feedback dropped: %s", error)
        if kept is None or reward is None:  # the decision stays open
            self._end(event, "removed")
            return None
        return Ready(*kept, answer._replace(reward=reward, source=None))

    def _adopted(self, ready: Mapping[int, Ready | None], event: Deferred, data: bytes | None) -> None:
        if not data:
            self._end(event, "answered")
            return
        kept = ready[event.id] or self._ready(event, data)
        if kept is not None:
            self._learned(kept.answer, kept.pending, kept.owner, kept.generation)
