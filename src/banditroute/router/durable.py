"""What makes a Router last: snapshots, journal, replicas, quarantine, expiry and forks."""

import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from banditroute._core import container
from banditroute._core import validation as check
from banditroute._core.kernels import layout
from banditroute.durability import Replica, StateStore, journal
from banditroute.durability import snapshots as snapshot
from banditroute.durability.local_evidence import Tally
from banditroute.errors import SnapshotError
from banditroute.records import Pending

if TYPE_CHECKING:
    from collections.abc import Callable

    from banditroute.durability.journal import Journal
    from banditroute.logs import Recorder
    from banditroute.policies import LinearPolicy, Policy
    from banditroute.router.ledger import Ledger

__all__ = ["Durable", "follow_forks"]


class Durable:
    """The part of a Router that survives restarts, crashes, forks and bad feedback.

    Examples
    --------
    >>> from banditroute import Router
    >>> Router.quarantine.__qualname__
    'Durable.quarantine'
    """

    # What a snapshot holds of the Router itself, without the leading underscore.
    _COUNTERS: ClassVar = (
        "index", "others", "epoch", "hits", "learned", "dropped", "forced", "plans", "planned", "masked", "load_price",
    )  # fmt: skip
    _PER_ARM: ClassVar = ("offered", "quarantined", "faults", "loads")
    _PER_ARM_LISTS: ClassVar = ("pending", "plays", "answers", "reward_sums")

    if TYPE_CHECKING:  # made by Router
        policy: Policy
        _fast: LinearPolicy | None
        _lock: threading.RLock
        _ledger: Ledger
        _clock: Callable[[], float]
        _index: int
        _learned: int
        _dropped: int
        _pending: list[float]
        _worker: Any
        recorder: Recorder | None

        def _reprice(self) -> None: ...
        def _settle(self) -> None: ...

    def _start(self, expired_reward: float | None, spread_pending: bool) -> None:
        count = len(self.policy.arms)
        self._expired_reward = (
            None
            if expired_reward is None
            else check.finite("expired_reward", expired_reward, low=-layout.LARGEST, high=layout.LARGEST)
        )
        if self._expired_reward is not None:
            self.policy.check_reward(
                self._expired_reward, 1.0
            )  # what it would refuse must not come up in a later request
        self._spread = bool(spread_pending)
        if self._spread and not self.policy.can_widen:
            raise ValueError("spread_pending must be False with this policy: it has no widths to change")
        self._offset = 0.0  # router time less clock: time stands still between save and load
        self._others = 0  # decisions of other replicas on the common clock
        self._boundary = 0
        self._plain = True
        self._quarantined = np.zeros(count, dtype=np.bool_)
        self._plays, self._answers = [0] * count, [0] * count
        self._reward_sums = [0.0] * count
        self._journal: Journal | None = None
        self._replica: Replica | None = None
        self._tally: Tally | None = None
        self._identity: tuple[dict[str, Any], dict[str, Any]] | None = None  # of a replica, from a snapshot
        self._watched = self._spread

    def _now(self) -> float:
        return self._clock() + self._offset

    # Snapshots.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole state to a file; the file it replaces is kept beside it as ``<path>.previous``.

        Parameters
        ----------
        path : path
            Written atomically: after a crash there is the old file or the new one.

        Raises
        ------
        OSError
            Disk full, read-only and so on; the old file is untouched, serving goes on.

        Notes
        -----
        The lock is held while arrays are copied (milliseconds at most), not while they are written.

        Examples
        --------
        >>> import tempfile
        >>> from banditroute import LinUCB, Router
        >>> router, again = Router(LinUCB(2, 3, rng=0)), Router(LinUCB(2, 3, rng=1))
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     router.save(directory + "/state")
        ...     again.load(directory + "/state")
        >>> again.select([1.0, 0.0, 0.0]).arm == router.select([1.0, 0.0, 0.0]).arm
        True
        """
        with self._lock:
            self._settle()
            header, arrays = snapshot.capture(self)
        target = Path(path)
        data = container.encode(header, arrays)
        container.keep_previous(target)
        container.write(target, data)

    def load(self, path: str | os.PathLike[str], *, limit_bytes: int = container.LIMIT_BYTES) -> None:
        """Continue from a file that `save` wrote of a Router with the same settings.

        Parameters
        ----------
        path : path
        limit_bytes : int
            Larger files are refused.

        Raises
        ------
        SnapshotError
            Torn, altered, foreign, too large, or of other settings; nothing changed.
        OSError
            The file cannot be opened.

        Notes
        -----
        Callbacks and the clock itself are not saved; the time of the Router goes on where it stopped. Arms, their sizes
        and their fault prices are those of the file.
        """
        header, arrays = container.read(path, limit_bytes=limit_bytes)
        with self._lock:
            self._alone("load")
            self._settle()
            snapshot.restore(self, header, arrays)

    def recover(
        self,
        directory: str | os.PathLike[str],
        *,
        checkpoint_s: float = 30.0,
        flush_s: float = 0.05,
        keep: int = 3,
    ) -> dict[str, Any]:
        """Continue from a directory, empty the first time, and keep a journal and checkpoints there from now on.

        Takes the newest good snapshot and replays the journal behind it. A process that is killed loses at most what
        it decided and learned in its last `flush_s`; nothing is learned twice.

        Parameters
        ----------
        directory : path
            Of this process alone: it is locked.
        checkpoint_s : float
            Seconds between snapshots, made in a thread.
        flush_s : float
            Seconds between writes of the journal, in the same thread.
        keep : int
            Snapshots kept, newest first.

        Returns
        -------
        dict
            ``generation`` taken (0: none), records ``replayed`` and ``skipped``, ``torn_bytes`` at the ends of
            journals, snapshots ``refused``.

        Raises
        ------
        SnapshotError
            There are snapshots and none is good, or they are of other settings.
        ValueError
            Decisions were made already, or another process uses the directory.
        OSError
            The directory cannot be written.

        Notes
        -----
        Statistics, pending decisions and answered ids come back exactly. Residency comes back as of the snapshot, has
        seen the replayed requests, and plans again when next due.

        Examples
        --------
        >>> import tempfile
        >>> from banditroute import LinUCB, Router
        >>> with tempfile.TemporaryDirectory() as home:
        ...     with Router(LinUCB(2, 2, rng=0)) as router:
        ...         started = router.recover(home)["generation"]
        ...         decision = router.select([1.0, 0.0])
        ...     with Router(LinUCB(2, 2, rng=0)) as router:
        ...         generation = router.recover(home)["generation"]
        ...         learned = router.update(decision.id, 1.0)
        >>> started, generation, learned
        (0, 2, True)
        """
        return journal.recover(self, directory, checkpoint_s=checkpoint_s, flush_s=flush_s, keep=keep)

    def join(
        self,
        store: StateStore,
        *,
        sync_s: float = 1.0,
        share_decisions: bool = False,
        background: bool = True,
    ) -> Replica:
        """Share this bandit with every other Router that joins the same store.

        Parameters
        ----------
        store : StateStore
            `FileStore`, ``RedisStore`` or your own.
        sync_s : float
            Seconds between rounds: how stale the others' evidence is at most.
        share_decisions : bool
            Let any replica answer a decision; the first answer wins. Answers to decisions that the store holds are
            learned a moment later, in the thread, once it has said that no other replica was first: `update` returns
            True when it has taken them.
        background : bool
            Run a thread; otherwise call ``sync()`` and ``exchange()`` of the answer.

        Returns
        -------
        Replica
            For its `sync`, `peers` and `compact`.

        Raises
        ------
        TypeError
            Only linear policies can be shared.
        ValueError
            Joined already.

        Notes
        -----
        All replicas need the same arms, dimension and settings, and the same statistics from before they join (none,
        or those of one file). Call `recover` before `join`. What a replica that dies had not published is lost. While
        the store is down serving goes on and ``store_errors`` counts.

        Examples
        --------
        >>> import tempfile
        >>> from banditroute import FileStore, LinUCB, Router
        >>> with tempfile.TemporaryDirectory() as home:
        ...     one, two = Router(LinUCB(2, 2, rng=0)), Router(LinUCB(2, 2, rng=1))
        ...     first = one.join(FileStore(home), background=False)
        ...     second = two.join(FileStore(home), background=False)
        ...     learned = one.update(one.select([1.0, 0.0]).id, 1.0)
        ...     synced = first.sync(), second.sync()
        >>> int(two.policy.counts.sum())
        1
        """
        if self._replica is not None:
            raise ValueError("join must be called once, got a second call")
        new = Replica(self, store, sync_s=sync_s, share_decisions=share_decisions, background=background)
        with self._lock:
            if self._tally is None:
                assert self._fast is not None
                self._tally = Tally(self._fast)
            restored, self._identity = self._identity, None
            self._replica, self._watched = new, True
        new.start(restored)
        return new

    def rollback(self, path: str | os.PathLike[str]) -> None:
        """Put back the statistics of an earlier snapshot; pending decisions, ids, residency and counters stay.

        For a policy that learned from feedback it should not have seen. Arms must be the same as now.

        Raises
        ------
        SnapshotError
            As for `load`; nothing changed.
        """
        header, arrays = container.read(path)
        with self._lock:
            self._alone("rollback")
            if self._journal is not None and self._journal.closed:
                raise ValueError("rollback must come before close: the directory may be another's by now")
            try:
                if header["policy"]["arms"] != list(self.policy.arms):
                    raise ValueError(f"arms must be {list(self.policy.arms)}, got {header['policy']['arms']}")
                own = {n.removeprefix("policy."): a for n, a in arrays.items() if n.startswith("policy.")}
                self.policy.load_state(header["policy"], own)
            except (ValueError, TypeError, LookupError) as error:
                raise SnapshotError(f"the snapshot must fit this router: {error}") from error
            self._boundary = 0
        if self._journal is not None:
            self._journal.checkpoint()

    def _alone(self, what: str) -> None:
        if self._replica is not None:
            raise ValueError(f"{what} must come before join: statistics are shared now")

    # Arms that misbehave.

    def quarantine(self, arm: str) -> None:
        """Stop choosing an arm and drop its feedback, counted, until `release`; its statistics stay as they are.

        Raises
        ------
        UnknownArm
            No such arm; nothing changed.
        ValueError
            It is the last arm not in quarantine; nothing changed.

        Examples
        --------
        >>> from banditroute import LinUCB, Router
        >>> router = Router(LinUCB(["old", "canary"], 2, rng=0))
        >>> router.quarantine("canary")
        >>> {router.select([1.0, 0.0]).arm for _ in range(50)}
        {'old'}
        """
        self._set_quarantine(arm, True)

    def release(self, arm: str) -> None:
        """End the quarantine of an arm."""
        self._set_quarantine(arm, False)

    def _set_quarantine(self, arm: str, closed: bool) -> None:
        with self._lock:
            index = self.policy.index(arm)
            left = (~self._quarantined).sum() - (closed and not self._quarantined[index])
            if left < 1:
                raise ValueError(f"arm must not be the last one that is not in quarantine, got {arm!r}")
            self._quarantined[index] = closed
            self._reprice()
            if self._journal is not None:
                self._journal.event("quarantine" if closed else "release", self.policy.arms[index])

    # Learning, expiry and what hangs on them; the lock is held.

    def _learn(self, key: int, pending: Pending, reward: float) -> bool:
        """Learn the reward of a decision of this ledger; False when its arm is gone or in quarantine."""
        if (
            not self._watched and self._tally is None
        ):  # nobody else to tell: the same in one piece, and faster
            arm = self.policy.positions.get(pending.arm)
            if arm is not None and not self._quarantined[arm]:
                self.policy.update(arm, pending.context, reward, at=pending.at)
                self._ledger.answer(key)
                self._pending[arm] -= 1
                self._learned += 1
                self._answers[arm] += 1
                self._reward_sums[arm] += reward
                return True
        if self._replica is not None and self._replica.defers(key, pending, reward):
            self._ledger.answer(key)
            self._settled(pending)
            return True
        # Before the books: should the policy refuse the reward, the decision stays open.
        learned = self._absorb(key, pending, reward)
        self._ledger.answer(key)
        self._settled(pending)
        return learned

    def _absorb(self, key: int, pending: Pending, reward: float, *, foreign: bool = False) -> bool:
        """Learn a reward, whoever made the decision, and record it."""
        arm = self.policy.positions.get(pending.arm)
        learns = arm is not None and not self._quarantined[arm]
        if learns:
            assert arm is not None
            self.policy.update(arm, pending.context, reward, at=pending.at)
            self._count(arm, pending, reward)
        else:
            self._dropped += 1
        if self._journal is not None:
            if foreign:
                self._journal.foreign(key, pending, reward)
            else:
                self._journal.feedback(key, reward)
        return learns

    def _count(self, arm: int, pending: Pending, reward: float) -> None:
        self._learned += 1
        self._answers[arm] += 1
        self._reward_sums[arm] += reward
        if self._tally is not None:
            self._tally.add(pending.arm, pending.context, reward, at=pending.at)

    def _settled(self, pending: Pending) -> None:
        """See a decision that is pending no more."""
        arm = self.policy.positions.get(pending.arm)
        if arm is not None:
            self._pending[arm] -= 1
            if self._spread:
                self._respread(arm)

    def _forget(self, key: int, pending: Pending) -> None:
        """See a decision expire."""
        self._settled(pending)
        reward = self._expired_reward
        if self._replica is not None and self._replica.defers(key, pending, reward):
            return
        if self._journal is not None:
            self._journal.expiry(key)
        arm = self.policy.positions.get(pending.arm)
        if arm is not None and reward is not None and not self._quarantined[arm]:
            self.policy.update(arm, pending.context, reward, at=pending.at)
            self._count(arm, pending, reward)

    def _opened(self, key: int, pending: Pending, arm: int, hit: bool) -> None:
        """See a decision made."""
        if self._spread:
            self._respread(arm)
        if self._journal is not None:
            self._journal.decision(key, pending, hit)
        if self._replica is not None:
            self._replica.opened(key, pending)

    def _respread(self, arm: int) -> None:
        """Narrow the bonus of an arm as if each of its pending decisions were one more observation.

        Exact where contexts are unit vectors along one direction: the width there is (ridge + n)^-1/2, and p plays
        more make it (ridge + n + p)^-1/2. The factor is derived from two counts, so expiry and answers undo it.
        """
        known = self.policy.mass(arm)
        self.policy.widen(arm, "pending", (known / (known + max(0.0, self._pending[arm]))) ** 0.5)

    def _carry(self, keep: list[int | None], size: float, fault: float) -> None:
        """Follow a change of arms; the policy has changed already."""
        if self._journal is not None:
            if None in keep:
                self._journal.event("add", [self.policy.arms[keep.index(None)], size, fault])
            else:
                gone = next(a for a in range(len(keep) + 1) if a not in keep)
                self._journal.event("remove", gone)
        self._quarantined = np.array([a is not None and self._quarantined[a] for a in keep], dtype=np.bool_)
        for name in self._PER_ARM_LISTS:
            old = getattr(self, f"_{name}")
            setattr(self, f"_{name}", [0 if a is None else old[a] for a in keep])

    def _durable_stats(self) -> dict[str, Any]:
        arms = {
            name: {
                "decisions": self._plays[a],
                "learned": self._answers[a],
                "mean_reward": self._reward_sums[a] / self._answers[a] if self._answers[a] else 0.0,
                "quarantined": int(self._quarantined[a]),
            }
            for a, name in enumerate(self.policy.arms)
        }
        sources = getattr(self, "_sources", None)
        return {
            "arms": arms,
            "sources": {} if sources is None else {n: dict(c) for n, c in sources.counts.items()},
            **({} if self._journal is None else self._journal.stats()),
            **({} if self._replica is None else self._replica.stats()),
        }

    def _finish(self) -> None:
        if self._replica is not None:
            self._replica.stop()
        if self._journal is not None:
            self._journal.close()


# Forks. Locks are taken before, so that a child never inherits a half-written state; a child keeps the statistics and
# drops what belongs to its parent: pending decisions, prefetched ids, journal, replica identity and threads.

_alive: "weakref.WeakSet[Durable]" = weakref.WeakSet()
_roster = threading.Lock()  # no Router comes into being while a fork is under way
_held: "list[Durable]" = []
PATIENCE_S = 0.02


def follow_forks(router: "Durable") -> None:
    """Keep a Router whole across forks from now on.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> follow_forks(Router(LinUCB(2, 2)))  # every Router is followed already: harmless
    """
    with _roster:
        _alive.add(router)


def _taken(routers: "list[Durable]") -> bool:
    """Take the locks of all, or of none: who waits for one while holding another may be waited for."""
    for at, router in enumerate(routers):
        if not router._lock.acquire(timeout=PATIENCE_S):
            for other in routers[:at]:
                other._lock.release()
            return False
    return True


def _before_fork() -> None:
    _roster.acquire()
    _held[:] = list(_alive)
    while True:
        while not _taken(_held):
            pass
        busy = [router for router in _held if router._worker is not None and router._worker.busy]
        if not busy:
            return
        for router in reversed(_held):
            router._lock.release()
        with busy[0]._lock:
            busy[0]._settle()


def _after_fork_in_parent() -> None:
    for router in reversed(_held):
        router._lock.release()
    _held.clear()
    _roster.release()


def _after_fork_in_child() -> None:
    global _roster
    _roster = threading.Lock()
    for router in _held:
        router._lock = threading.RLock()
        ledger = router._ledger
        ledger._ids.clear()
        ledger.pending.clear()
        router._pending = [0.0] * len(router.policy.arms)
        if router._spread:
            for arm in range(len(router.policy.arms)):
                router._respread(arm)
        if router._journal is not None:
            router._journal.abandon()
            router._journal = None
        if router.recorder is not None:
            router.recorder._lock = threading.Lock()
        if router._replica is not None:
            router._replica = router._replica.reborn()
        if router._worker is not None:
            router._worker = type(router._worker)(router)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
