"""Replicas that share one bandit: each publishes what it learned itself, and every total is a sum of those.

A replica's statistics are ``initial + base + sum over replicas``, in the order of their ids, so that all replicas come
to the same bits whatever was repeated, reordered or lost on the way. Nothing here runs on the request path except the
question to the store for an id that another replica issued.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import Any

from banditroute._core import validation as check
from banditroute._core.background import Background
from banditroute._core.typing import Arrays, Header
from banditroute.durability.claims import SharedDecisions
from banditroute.durability.local_evidence import Shareable
from banditroute.durability.membership import Membership
from banditroute.durability.sharing import Sharing
from banditroute.durability.stores import BASE, FileStore, StateStore
from banditroute.errors import UnknownDecision
from banditroute.policies.evidence import EvidencePolicy
from banditroute.records import (
    ArmChange,
    Decision,
    Deferred,
    Feedback,
    Host,
    Marked,
    Parts,
    Pending,
    Request,
    StoreRow,
    Why,
)

__all__ = ["FileStore", "Replica", "StateStore"]

log = logging.getLogger("banditroute.durability.replicas")

HISTORY = 8  # published states kept, should one be folded into the base while this replica lives
ROUND_S = 0.02  # between questions about shared decisions
SHORTEST_S, LONGEST_S = 0.05, 0.5  # between them while the store is down
IDS = 1 << 63  # ids are below
QUIET_S = 60.0  # between words of that in the log
HOLD = 64  # letters read in one hold of the lock


class Replica:
    """One Router's place among those that share its bandit; made by `Router.join`. A `Listener` and the `Claims`.

    Parameters
    ----------
    host : Host
        The Router.
    policy : EvidencePolicy
        Its policy.
    store : StateStore
    sync_s : float
        Seconds between rounds of `sync` in the thread.
    share_decisions : bool
        Decisions go to the store too, so that any replica can answer them, once.
    background : bool
        Run a thread; otherwise the caller calls `sync` and `exchange`.
    member : Membership, optional
        Taken up from a snapshot; a new one otherwise.
    clock : callable
        Seconds, never backwards.

    Raises
    ------
    TypeError
        The policy cannot share its evidence.
    """

    keeps_parts = False

    def __init__(
        self,
        host: Host,
        policy: Shareable,
        store: StateStore,
        *,
        sync_s: float = 1.0,
        share_decisions: bool = False,
        background: bool = True,
        member: Membership | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(policy, EvidencePolicy):
            raise TypeError(f"policy must share its evidence to join a store, got {type(policy).__name__}")
        fingerprint = json.loads(json.dumps(policy.fingerprint()))
        features = getattr(host, "features", None)
        if features is not None:  # evidence is about contexts: all must make the same ones
            fingerprint["features"] = features
        self.sync_s = check.finite("sync_s", sync_s, low=0.0, high=check.LONGEST_S, open_low=True)
        self.store, self.shares = store, bool(share_decisions)
        self._host, self._policy, self._clock, self._background = host, policy, clock, bool(background)
        self._resumed = member is not None
        self.me = Membership(policy, policy.arms) if member is None else member
        self.me.roster.align({arm: policy.generation(arm) for arm in policy.arms})
        self.sharing = Sharing(host, policy, store, self.me, fingerprint)
        self.decisions = SharedDecisions(host, store, self.me, clock, self._failed)
        self.errors = self.syncs = 0
        self._next_word = -inf  # when to speak of the store again
        self._rest_s = SHORTEST_S
        self._next_sync = self._next_exchange = 0.0
        self._turn = threading.Lock()
        self.also: Callable[[], object] | None = None  # what else is exchanged at each `sync`: residency
        self._stopped = False
        period_s = min(self.sync_s, ROUND_S) if self.shares else self.sync_s
        self._thread = Background("replica", self._round, period_s=period_s, log=log)

    def __repr__(self) -> str:
        return f"Replica({self.id}, {self.store!r}, syncs={self.syncs}, peers={len(self.peers)})"

    @property
    def id(self) -> str:
        """Name of this replica in the store."""
        return self.me.id

    # Listener and Claims: the Router's lock is held, but for `adopt`.

    def decided(
        self, decision: Decision, request: Request, pending: Pending, forced: bool, parts: Parts | None
    ) -> None:
        """See a decision made here."""
        if self.shares:
            self.decisions.decided(decision.id, pending)

    def learned(self, feedback: Feedback) -> None:
        """See a reward learned."""
        self.me.learned(feedback)

    def dropped(self, decision_id: int, why: Why) -> None:
        """See a decision end without one."""
        self.me.dropped(decision_id, why)
        if self.shares and why == "cancelled":
            self.decisions.cancelled(decision_id)

    def deferred(self, event: Deferred) -> None:
        """See an answer wait for the store."""
        self.me.deferred(event)

    def arms_changed(self, change: ArmChange) -> None:
        """Follow arms that come, go or are forgotten."""
        self.me.arms_changed(change)
        self.sharing.peers.stale.add(change.arm)
        if change.what == "removed":
            self.decisions.removed(change.arm)

    def marked(self, mark: Marked) -> None:
        """See a term told something from outside."""
        self.me.marked(mark)

    def defers(self, decision_id: int, pending: Pending, answer: Feedback | None) -> bool:
        """Tell whether the store must say first that no other replica has answered; asked in the background."""
        return self.shares and self.decisions.defers(decision_id, pending, answer)

    def adopt(self, decision_id: int, answer: Mapping[str, Any]) -> bool:
        """Learn the answer to a decision that another replica made; False when it was answered before."""
        if not self.shares or not 0 <= decision_id < IDS:
            raise UnknownDecision(
                f"decision_id must be one that awaits or had its feedback, got {decision_id!r}"
            )
        return self.decisions.adopt(decision_id, answer)

    def rolled_back(self) -> None:
        """Have the statistics as they are now count in the place of all that any replica has learned before.

        The lock is held; the others follow at their next rounds.
        """
        self.sharing.rolled_back()

    # Rounds of the thread.

    def exchange(self) -> None:
        """Hand decisions to the store and ask it about the answered ones; what a round of the thread does.

        Raises
        ------
        OSError
            The store is down; nothing is lost.
        """
        if self.shares:
            self.decisions.exchange()

    def sync(self) -> bool:
        """Publish what was learned here and take in what others learned; False when the store is down.

        Notes
        -----
        Only arms that changed travel. The Router's lock is held while one arm is copied or summed and rebuilt.
        """
        with self._turn:
            try:
                self.sharing.round()
            except OSError as error:
                self._failed(error)
                return False
            self.syncs += 1
        return self.also is None or bool(self.also())

    def _failed(self, error: OSError) -> None:
        self.errors += 1
        now = self._clock()
        if now >= self._next_word:
            self._next_word = now + QUIET_S
            log.warning("store down: %s", error)

    def _round(self) -> None:
        """Do what is due; an error of one half does not keep the other from its turn."""
        now = self._clock()
        if self.shares and now >= self._next_exchange:
            self._next_exchange = now
            self._thread.guard(self._patiently)
        if now >= self._next_sync:
            self._next_sync = now + self.sync_s
            self._thread.guard(self.sync)

    def _patiently(self) -> None:
        try:
            self.decisions.exchange(patient=True)
            self._rest_s = SHORTEST_S
        except OSError as error:
            self._failed(error)
            self._next_exchange = self._clock() + self._rest_s
            self._rest_s = min(2.0 * self._rest_s, LONGEST_S)

    # Those that are gone.

    def compact(self, names: list[str]) -> bool:
        """Fold replicas that are gone into the base, so that the store and every merge stay small.

        Parameters
        ----------
        names : list of str
            Ids, as `peers` shows them. One that is alive after all goes on under a new id and loses nothing.

        Returns
        -------
        bool
            False when something changed meanwhile, or an id is not known: nothing was done.
        """
        with self._turn:
            self.sharing.peers.read()
            return self.sharing.peers.compact(names)

    @property
    def peers(self) -> dict[str, StoreRow]:
        """Rows of the other replicas as last seen; one whose ``beat`` stands still is gone or cut off."""
        rows = self.sharing.peers.rows.items()
        return {
            name: {
                "seq": row.seq,
                "beat": row.beat,
                "parts": dict(row.parts),
                "decisions": row.about.decisions,
            }
            for name, row in rows
            if name != BASE
        }

    # Start, stop, snapshots and forks.

    def start(self) -> None:
        """Take up the identity of a snapshot, if there is one, and begin.

        Raises
        ------
        Exception
            Whatever a store that is none raises; one that is down is tried again, and counted.
        """
        with self._host.locked():
            self._policy.reseed()  # copies of one file must not explore alike
        if self._resumed:
            self._counted(self.sharing.resume)
        self.sharing.peers.stale.update(self._policy.arms, self._policy.shared_names)
        self.sync()
        if self._background:
            self._thread.start()

    def capture(self) -> tuple[Header, Arrays]:
        """Return what a snapshot holds of this replica; the Router's lock is held."""
        return self.me.to_state()

    def reborn(self, host: Host) -> "Replica":
        """Return a replica for a forked child: a new id, nothing learned itself yet, the same view of the others."""
        member = Membership(self._policy, ())
        member.evidence.initial = self.me.evidence.initial
        member.roster, member.muted, member.epoch = self.me.roster, set(self.me.muted), self.me.epoch
        member.known_marks = dict(self.me.known_marks)
        new = Replica(
            host,
            self._policy,
            self.store,
            sync_s=self.sync_s,
            share_decisions=self.shares,
            background=self._background,
            member=member,
            clock=self._clock,
        )
        seen = new.sharing.peers
        seen.rows = dict(self.sharing.peers.rows)
        seen.parts = {name: dict(parts) for name, parts in self.sharing.peers.parts.items()}
        seen.stale.update(self._policy.arms, self._policy.shared_names)
        self._policy.reseed()
        if self._background:
            new._thread.start()
        return new

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Stop the thread, hand over what is left and publish once more; False where that took too long.

        Whatever the store raises is counted: closing goes on.
        """
        if self._stopped:
            return True
        self._stopped = True
        end = time.monotonic() + timeout_s
        self._thread.close(timeout_s)
        last = threading.Thread(target=self._last, name="banditroute-replica-end", daemon=True)
        last.start()
        last.join(max(0.1, end - time.monotonic()))
        return not last.is_alive()

    def _last(self) -> None:
        for call in (self.exchange, self.sync):
            self._thread.guard(partial(self._counted, call))

    def _counted(self, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as error:
            self._failed(error)

    def stats(self) -> dict[str, Any]:
        """Return counters; the Router's lock is held."""
        seen, shared = self.sharing.peers, self.decisions
        return {
            "replicas": 1 + sum(name != BASE for name in seen.rows),
            "store_errors": self.errors + sum(self._thread.errors.values()),
            "syncs": self.syncs,
            "foreign": shared.foreign,
            "deferred": len(self.me.waiting),
            "unshared": shared.unshared,
            "unknown_answers": shared.unknown,
            "letters": sum(map(len, self.me.letters.values())),
            "fenced": self.sharing.fenced,
            "parts_refused": seen.refusals + shared.refused,
            "replica_lost": self.sharing.lost + shared.lost,
            "bases_dropped": seen.ambiguous,
        }
