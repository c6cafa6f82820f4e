"""What makes a Router last: files, the journal, its place among replicas; the methods of the same names on `Router`."""

import os
from typing import Any, Literal

from banditroute.durability import journal, snapshots
from banditroute.durability.journal import Journal
from banditroute.durability.local_evidence import Shareable
from banditroute.durability.membership import Membership
from banditroute.durability.replicas import Replica
from banditroute.records import StateStore
from banditroute.router.host import RouterHost
from banditroute.router.planner import Planner
from banditroute.router.shared_planning import SharedPlanning

__all__ = ["Lasting"]

Path = str | os.PathLike[str]


class Lasting:
    """Journal and replica of a Router, if it has them, and what has to happen in which order.

    Parameters
    ----------
    host : RouterHost
    planner : Planner, optional
        Asserts a recovered set at the server.
    """

    __slots__ = ("_host", "_planner", "journal", "replica")

    def __init__(self, host: RouterHost, planner: Planner | None) -> None:
        self._host, self._planner = host, planner
        self.journal: Journal | None = None
        self.replica: Replica | None = None

    def save(self, path: Path) -> None:
        """Write the state to a file."""
        snapshots.save(self._host, path)

    def load(self, path: Path, *, limit_bytes: int, arms: Literal["file", "code"]) -> dict[str, Any]:
        """Put back what a file holds; with a journal it is made as durable as everything else."""
        self._alone("load")
        own = self.journal
        replaced = None if own is None else own.replaced
        report = snapshots.load(self._host, path, limit_bytes=limit_bytes, arms=arms, replaced=replaced)
        if own is not None:
            own.checkpoint()
        if self._planner is not None:
            self._planner.recovered()
        return report

    def recover(
        self,
        directory: Path,
        *,
        checkpoint_s: float,
        flush_s: float,
        keep: int,
        arms: Literal["code", "file"],
    ) -> dict[str, Any]:
        """Continue from a directory and keep a journal there."""
        self._alone("recover")
        parts = self._host.parts
        if parts.books.index or self.journal is not None:
            raise ValueError(
                f"recover must come before the first decision, got {parts.books.index} decisions"
            )
        with parts.lock:  # until the journal listens: what happened in between would be in no record
            self.journal, report = journal.recover(
                self._host, directory, checkpoint_s=checkpoint_s, flush_s=flush_s, keep=keep, arms=arms
            )
            parts.listeners.add(self.journal)
            parts.rearm()
        if self._planner is not None:
            self._planner.recovered(alone=self._host.member is None)
        return report

    def checkpoint(self) -> None:
        """Write a snapshot beside the journal now."""
        if self.journal is None:
            raise ValueError("checkpoint must come after recover: there is no directory to write to")
        if self._host.parts.books.closed:
            raise ValueError("checkpoint must come before close: the directory may be another's by now")
        self.journal.checkpoint()

    def join(
        self,
        store: StateStore,
        share_decisions: bool,
        share_residency: bool | str,
        *,
        sync_s: float,
        background: bool,
    ) -> Replica:
        """Take a place among the replicas of a store; after a failure everything is as it was."""
        if self.replica is not None:
            raise ValueError("join must be called once, got a second call")
        if self._host.parts.books.closed:
            raise ValueError("join must come before close")
        if not isinstance(share_residency, bool | str) or share_residency == "":
            raise ValueError(
                f"share_residency must be True, False or the name of a server, got {share_residency!r}"
            )
        parts, before = self._host.parts, self._host.member
        policy = parts.policy
        if not isinstance(policy, Shareable):
            raise TypeError(f"policy must share its evidence to join a store, got {type(policy).__name__}")
        new = Replica(
            self._host, policy, store,
            sync_s=sync_s, share_decisions=share_decisions, background=background, member=before,
        )  # fmt: skip
        if self._planner is not None and share_residency is not False:
            self._planner.hold()
        with parts.lock:
            self._host.follow(None)
            parts.listeners.add(new)
            parts.claims = new if share_decisions else None
            self.replica = new
            parts.rearm()
        try:
            if self.journal is not None:
                self.journal.checkpoint()  # nothing is published under a name that a crash would make it forget
            new.start()
            if share_residency is not False:
                self._share(store, share_residency, sync_s, background)
        except BaseException:
            self._leave(new, before)
            raise
        return new

    def _share(self, store: StateStore, server: str | bool, sync_s: float, background: bool) -> None:
        """Share the residency with the other workers of the server."""
        planner, parts = self._planner, self._host.parts
        if planner is None or parts.residence is None or self.replica is None:
            return
        name = server if isinstance(server, str) else ""
        shared = SharedPlanning(
            planner, parts, parts.residence, store, self._member_id,
            server=name, sync_s=sync_s, background=background, clock=parts.books.clock,
        )  # fmt: skip
        planner.share(shared)
        shared.start()
        if not background:
            self.replica.also = self._exchanged

    def _exchanged(self) -> bool:
        shared = None if self._planner is None else self._planner.shared
        return shared is None or shared.exchange()

    def _member_id(self) -> str:
        return "" if self.replica is None else self.replica.id

    def _leave(self, replica: Replica, before: Membership | None) -> None:
        parts = self._host.parts
        with parts.lock:
            parts.listeners.remove(replica)
            parts.claims = self.replica = None
            if self._planner is not None:
                if self._planner.shared is not None:
                    self._planner.shared.close(1.0)
                self._planner.share(None)
            self._host.follow(before)
            parts.rearm()

    def rollback(self, path: Path) -> None:
        """Put back the statistics of a file, on all replicas."""
        if self._host.parts.books.closed:
            raise ValueError("rollback must come before close: the directory may be another's by now")
        own = self.journal
        snapshots.rollback(self._host, path, replaced=None if own is None else own.replaced)
        if self.replica is not None:
            self.replica.rolled_back()
        if own is not None:
            own.checkpoint()

    def _alone(self, what: str) -> None:
        if self.replica is not None:
            raise ValueError(f"{what} must come before join: statistics are shared now")
        if self._host.parts.books.closed:
            raise ValueError(f"{what} must come before close")

    def close(self, timeout_s: float) -> None:
        """Refuse calls, publish, checkpoint, free the directory and stop planning; what loses data comes first."""
        if self._planner is not None:
            self._planner.let_go()  # a request that waits for the server holds the lock
        with self._host.parts.lock:
            self._host.parts.books.close()
        if self.replica is not None:
            self.replica.stop(timeout_s)
        if self.journal is not None:
            self.journal.close(timeout_s)
        if self._planner is not None:
            self._planner.close(min(timeout_s, 2.0))

    def after_fork(self) -> None:
        """Leave the journal to the parent, and take a new place among the replicas."""
        parts = self._host.parts
        if self.journal is not None:
            self.journal.abandon()
            parts.listeners.remove(self.journal)
            self.journal = None
        if self.replica is not None:
            parts.listeners.remove(self.replica)
            before = self.replica
            self.replica = before.reborn(self._host)
            self.replica.also = None if before.also is None else self._exchanged
            parts.listeners.add(self.replica)
            parts.claims = self.replica if parts.claims is not None else None

    def stats(self) -> dict[str, Any]:
        """Return the counters of both."""
        own = {} if self.journal is None else self.journal.stats()
        return own if self.replica is None else {**own, **self.replica.stats()}
