"""Replicas that share one bandit: each publishes what it learned itself, and every total is a sum of those.

A replica's statistics are ``initial + base + sum over replicas``, in the order of their ids, so that all replicas come
to the same bits whatever was repeated, reordered or lost on the way. Nothing here runs on the request path except the
question to the store for an id that another replica issued.
"""

import logging
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any

from banditroute._core import validation as check
from banditroute._core.kernels import derived, layout, refresh
from banditroute.durability.journal import packed, unpacked
from banditroute.durability.local_evidence import Part, Tally, total
from banditroute.durability.stores import BASE, FileStore, Row, StateStore, order
from banditroute.errors import SnapshotError, UnknownDecision
from banditroute.policies import LinearPolicy
from banditroute.records import Pending

__all__ = ["FileStore", "Replica", "StateStore"]

log = logging.getLogger("banditroute.durability.replicas")

HISTORY = 8  # published states kept, should one be folded into the base while this replica lives
BATCH = 512  # decisions per round trip


class Replica:
    """One Router's place among those that share its bandit; made by `Router.join`.

    Parameters
    ----------
    router : Router
    store : StateStore
    sync_s : float
        Seconds between rounds of `sync` in the thread.
    share_decisions : bool
        Decisions go to the store too, so that any replica can answer them, once.
    background : bool
        Run a thread; otherwise the caller calls `sync` and `exchange`.
    """

    def __init__(
        self, router: Any, store: StateStore, *, sync_s: float, share_decisions: bool, background: bool
    ) -> None:
        policy = router.policy
        if not isinstance(policy, LinearPolicy):
            raise TypeError(f"policy must be linear to be shared, got {type(policy).__name__}")
        self.sync_s = check.finite("sync_s", sync_s, low=0.0, high=check.LONGEST_S, open_low=True)
        self._router, self.store, self.shares = router, store, bool(share_decisions)
        self._policy = policy
        self._background = background
        self.id = secrets.token_hex(8)
        self.errors = self.refused = self.fenced = self.lost = self.foreign_learned = self.syncs = 0
        self.unshared = self.ambiguous = 0
        self._seq = self._beat = 0
        self._part_seqs: dict[str, int] = {}
        self._published: dict[str, int] = {}
        self._history: deque[tuple[int, dict[str, Part]]] = deque([(0, {})], maxlen=HISTORY)
        self._rows: dict[str, Row] = {}
        self._parts: dict[str, dict[str, tuple[int, Part]]] = {}
        self._stale: set[str] = set()
        self._outbox: OrderedDict[int, Pending] = OrderedDict()
        self._deferred: deque[tuple[int, Pending | None, float | None]] = deque()
        self._turn, self._failed = threading.Lock(), False
        self._wake, self._stopped = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="banditroute-replica", daemon=True)
        state = policy.state
        slots = [layout.A_COUNT, layout.A_WEIGHT, layout.A_SQUARE]
        bucket = int(policy.buffer[layout.H_BUCKET])
        self._initial = {
            name: Part(state.gram[a].copy(), state.moment[a].copy(), state.arm[a, slots].copy(), bucket)
            for a, name in enumerate(policy.arms)
            if state.arm[a, layout.A_COUNT] > 0.0
        }

    # What the Router calls, with its lock held.

    def opened(self, key: int, pending: Pending) -> None:
        """See a decision made here."""
        if self.shares:
            self._outbox[key] = pending
            if len(self._outbox) > self._router._ledger.size_limit:  # the store is down: this one stays here
                self._outbox.popitem(last=False)
                self.unshared += 1

    def defers(self, key: int, pending: Pending, reward: float | None) -> bool:
        """Tell whether the store must say first that no other replica has answered; asked in the background."""
        if not self.shares or self._outbox.pop(key, None) is not None:
            return False
        self._defer(key, pending, reward)
        return True

    def _defer(self, key: int, pending: Pending | None, reward: float | None) -> None:
        self._deferred.append((key, pending, reward))
        if len(self._deferred) > self._router._ledger.size_limit:
            self._deferred.popleft()
            self.lost += 1

    def disown(self, arm: str) -> None:
        """Leave decisions that are on their way to the store without a removed arm; one of its name may come again."""
        for key, pending in self._outbox.items():
            if pending.arm == arm:
                self._outbox[key] = pending._replace(arm="")
        for at, (key, waiting, reward) in enumerate(self._deferred):
            if waiting is not None and waiting.arm == arm:
                self._deferred[at] = (key, waiting._replace(arm=""), reward)

    # What the Router calls without its lock.

    def foreign(self, key: int, reward: float) -> bool:
        """Learn the reward of a decision that another replica made; False when it was answered before."""
        router = self._router
        if not self.shares:
            raise UnknownDecision(f"decision_id must be one that awaits or had its feedback, got {key!r}")
        try:
            data = self.store.take([key])[0]
        except OSError as error:
            log.warning("store down: %s", error)
            with router._lock:  # asked again later, so that serving goes on
                self.errors += 1
                self._defer(key, None, reward)
            return True
        with router._lock:
            return self._adopted(key, data, reward)

    def _adopted(self, key: int, data: bytes | None, reward: float) -> bool:
        ledger = self._router._ledger
        if data is None:
            raise UnknownDecision(f"decision_id must be one that awaits or had its feedback, got {key!r}")
        if not data:
            ledger.duplicates += 1
            return False
        pending = unpacked(data)
        if pending is None:
            self.refused += 1
            return False
        ledger._remember(key, True)
        learned = self._router._absorb(key, pending, reward, foreign=True)
        self.foreign_learned += learned
        return bool(learned)

    # The thread.

    def exchange(self) -> None:
        """Hand decisions to the store and ask it about the answered ones; what a round of the thread does.

        Raises
        ------
        OSError
            The store is down; nothing is lost.
        """
        router = self._router
        ttl_s = router._ledger.time_limit
        while self.shares and self._outbox:
            if self._failed:
                self.store.keep({}, ttl_s)  # raises while the store is down
                self._failed = False
            with router._lock:
                batch = dict(list(self._outbox.items())[:BATCH])
                for key in batch:
                    del self._outbox[key]
            try:
                self.store.keep({key: packed(key, p, True) for key, p in batch.items()}, ttl_s)
            except OSError:
                # They may be in the store or not: so they are not sent again, and before an answer to one is
                # learned the store is asked for it.
                self._failed = True
                self.unshared += len(batch)
                raise
        while self._deferred:
            with router._lock:
                asked = [self._deferred.popleft() for _ in range(min(BATCH, len(self._deferred)))]
            try:
                answers = self.store.take([key for key, _, _ in asked])
            except OSError:
                with router._lock:
                    self._deferred.extendleft(reversed(asked))
                raise
            with router._lock:
                for (key, pending, reward), data in zip(asked, answers, strict=True):
                    self._answered(key, pending, reward, data)

    def _answered(self, key: int, pending: Pending | None, reward: float | None, data: bytes | None) -> None:
        router = self._router
        try:
            if pending is None:
                assert reward is not None
                self._adopted(key, data, reward)
            elif reward is None or data == b"":  # forgotten, or another replica was first
                router._ledger.duplicates += reward is not None
                if router._journal is not None:
                    router._journal.event("answered", key)
            else:  # taken here, or never seen by the store: nobody else can have it
                router._absorb(key, pending, reward)
        except (ValueError, UnknownDecision) as error:
            log.warning("feedback dropped: %s", error)
            router._dropped += 1

    def sync(self) -> bool:
        """Publish what was learned here and take in what others learned; False when the store is down.

        Notes
        -----
        Only arms that changed travel. The Router's lock is held while one arm is copied or summed and rebuilt.
        """
        with self._turn:
            try:
                journal = self._router._journal
                if journal is not None:
                    journal.flush()  # nothing is published that a crash could make this replica forget
                self._publish()
                self._read()
            except OSError as error:
                self.errors += 1
                log.warning("store down: %s", error)
                return False
            self._merge()
            self.syncs += 1
            return True

    def _publish(self) -> None:
        router, tally = self._router, self._router._tally
        for _ in range(3):
            with router._lock:
                dirty = {a: v for a, v in tally.versions.items() if self._published.get(a) != v}
                parts = {a: tally.copied(a) for a in dirty}
                decisions = router._index
            self._stale.update(dirty)  # summed again in the common order: the same bits everywhere
            if dirty:
                self._seq += 1
                self._part_seqs.update(dict.fromkeys(dirty, self._seq))
                self._history.append((self._seq, {**self._history[-1][1], **parts}))
            self._beat += 1
            row = {"seq": self._seq, "beat": self._beat, "parts": self._part_seqs, "decisions": decisions}
            encoded = {a: p.encode(a, self._seq) for a, p in parts.items()}
            missing = self.store.put(self.id, row, encoded)
            self._published.update(dirty)
            if not missing:
                return
            for name in missing:  # the store was flushed
                self._published.pop(name, None)

    def _read(self) -> None:
        rows = self.store.index()
        mine, base = rows.pop(self.id, None), self._reconciled(rows.pop(BASE, None))
        folded: Mapping[str, int] = {} if base is None else base["folded"]
        if base is not None:
            self._take_in(BASE, base)
        for name, known in list(self._rows.items()):
            if name != BASE and name not in folded and order(rows.get(name)) < order(known):
                self.store.put(
                    name, known, self._encoded(name)
                )  # the store was flushed: any replica heals it
                rows.pop(name, None)
        for name, row in rows.items():
            if name not in folded:
                self._take_in(name, row)
                self._heal(name, row)
        if self._rows.get(BASE) != base:
            return  # its parts were on the move: next time
        for name in [n for n in self._rows if n in folded]:
            self._stale.update(self._parts.pop(name, {}))
            del self._rows[name]
        if self.id in folded:
            self._rebirth(folded[self.id])
            self._publish()
        elif order(mine) < (self._seq, 0):
            self._published.clear()
            self._publish()

    def _heal(self, name: str, row: Row) -> None:
        """Put back parts that a flushed store has lost and whose owner may not live to put again."""
        held = self._parts.get(name, {})
        back = {a: (seq, p) for a, (seq, p) in held.items() if row["parts"].get(a, -1) < seq}
        if back:
            beat = float(row["beat"])
            row = {**row, "beat": beat + (int(beat) + 1 - beat) / 2}  # before the owner's own next one
            row["parts"] = {**row["parts"], **{a: seq for a, (seq, _) in back.items()}}
            lacking = row.get("lacking", {})
            row["lacking"] = {a: v for a, v in lacking.items() if a not in back or back[a][0] != v}
            self.store.put(name, row, {a: p.encode(a, seq) for a, (seq, p) in back.items()})

    def _reconciled(self, base: Row | None) -> Row | None:
        """Return the base to go by: that of the store, unless a flush made it forget replicas that were folded."""
        known = self._rows.get(BASE)
        if known is None or base == known:
            return base
        theirs: Mapping[str, int] = {} if base is None else base["folded"]
        ours: Mapping[str, int] = known["folded"]
        if all(theirs.get(name, -1) >= seq for name, seq in ours.items()):
            return base
        held, nested = dict(self._parts[BASE]), all(ours.get(n, -1) >= s for n, s in theirs.items())
        if not nested and ours.keys() & theirs.keys():
            self.ambiguous += (
                1  # two compactions on both sides of a flush: they cannot be told apart any more
            )
            return base
        sums = {arm: part for arm, (_, part) in held.items()}
        decisions = int(known["decisions"])
        if base is not None and not nested:
            fetched = self.store.fetch(BASE, list(base["parts"]))
            for arm in base["parts"]:
                _, _, part = Part.decode(fetched.get(arm, b""), self._router._tally.empty)
                both = [sums[arm], part] if arm in sums else [part]
                sums[arm] = total(both, max(p.bucket for p in both), self._policy)
            decisions += int(base["decisions"])
        return self._based(base, {**theirs, **ours}, sums, decisions, {})

    def _based(
        self,
        old: Row | None,
        folded: Mapping[str, int],
        sums: Mapping[str, Part],
        decisions: int,
        gone: Mapping[str, Row],
    ) -> Row:
        """Replace the base in the store and here; raises ``OSError`` when something changed meanwhile."""
        known = self._rows.get(BASE)
        seq = 1 + max(0 if row is None else int(row["seq"]) for row in (old, known))
        row = {"seq": seq, "beat": 0, "parts": dict.fromkeys(sums, seq), "decisions": decisions}
        row["folded"] = dict(folded)
        if not self.store.compact(old, row, {a: p.encode(a, seq) for a, p in sums.items()}, gone):
            raise OSError("the store changed meanwhile")
        self._rows[BASE], self._parts[BASE] = row, {a: (seq, p) for a, p in sums.items()}
        self._stale.update(sums)
        for name in gone:
            self._stale.update(self._parts.pop(name, {}))
            self._rows.pop(name, None)
        return row

    def _take_in(self, name: str, row: Row) -> None:
        held = self._parts.setdefault(name, {})
        changed = [a for a, seq in row["parts"].items() if a not in held or held[a][0] < seq]
        if name == BASE:
            if row == self._rows.get(BASE):
                return
            changed = list(row["parts"])
        fetched = self.store.fetch(name, changed)
        new: dict[str, tuple[int, Part]] = {}
        for arm, data in fetched.items():
            try:
                told, seq, part = Part.decode(data, self._router._tally.empty)
                if told != arm or seq < row["parts"][arm]:
                    raise SnapshotError(f"part must be of {arm!r}, got {told!r}")
                new[arm] = (seq, part)
            except SnapshotError as error:
                self.refused += 1
                log.warning("part of %s refused: %s", name, error)
        if name == BASE:
            if len(new) < len(changed):
                return  # all of it or nothing: folded replicas are dropped on its word
            self._stale.update(held)
            held.clear()
        held.update(new)
        self._stale.update(new)
        if len(new) == len(changed):
            self._rows[name] = row

    def _encoded(self, name: str) -> dict[str, bytes]:
        return {arm: part.encode(arm, seq) for arm, (seq, part) in self._parts.get(name, {}).items()}

    def _rebirth(self, seq: int) -> None:
        """Go on under a new id, without what was folded into the base while this replica was thought dead."""
        tally = self._router._tally
        with self._router._lock:
            old = next((parts for s, parts in self._history if s == seq), None)
            self.fenced += 1
            self._stale.update(tally.parts)
            if old is None:
                self.lost += 1
                old = {a: tally.copied(a) for a in tally.parts}
            for arm, part in old.items():
                own = tally.parts[arm].aged(part.bucket, self._policy)
                tally.parts[arm] = own.less(part.aged(own.bucket, self._policy))
            tally.versions = {a: 1 for a, part in tally.parts.items() if part.sums[0] != 0.0}
            tally.parts = {a: tally.parts[a] for a in tally.versions}
        self._anew()

    def _anew(self) -> None:
        self.id = secrets.token_hex(8)
        self._seq = self._beat = 0
        self._part_seqs, self._published = {}, {}
        self._history.clear()
        self._history.append((0, {}))

    def _merge(self) -> None:
        router, policy = self._router, self._policy
        state, s = policy.state, policy.buffer
        others = sum(int(row["decisions"]) for row in self._rows.values())
        with router._lock:
            router._others = max(router._others, others)
            held = [p for parts in self._parts.values() for _, p in parts.values()]
            bucket = max([int(policy.buffer[layout.H_BUCKET]), *(p.bucket for p in held)])
            if policy.span and bucket > policy.buffer[layout.H_BUCKET]:
                policy.advance(bucket * policy.span)
        stale, self._stale = self._stale, set()
        for arm in stale:
            with router._lock:
                state, s = policy.state, policy.buffer
                a = policy.positions.get(arm)
                if a is None:
                    continue
                bucket = max(bucket, int(s[layout.H_BUCKET]))
                parts = [self._initial.get(arm, router._tally.empty)]
                for name in sorted({*self._parts, self.id}, key=lambda n: (n != BASE, n)):
                    own = router._tally.parts.get(arm) if name == self.id else None
                    part = own if name == self.id else self._parts[name].get(arm, (0, None))[1]
                    parts += [] if part is None else [part]
                summed = total(parts, bucket, policy)
                state.gram[a], state.moment[a] = summed.gram, summed.moment
                state.arm[a, [layout.A_COUNT, layout.A_WEIGHT, layout.A_SQUARE]] = summed.sums
                state.arm[a, layout.A_TIGHTEN] = 0.0
                derived.loosen(s, a)
                derived.rebuild(s, a)
                if router._spread:
                    router._respread(a)
        with router._lock:
            s = policy.buffer
            s[layout.H_LEARNED] = policy.state.arm[:, layout.A_COUNT].sum()
            if s[layout.H_LEARNED] >= s[layout.H_REFRESH]:
                refresh.refresh(s)

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
            self._read()
            gone = {n: self._rows[n] for n in names if n in self._rows and n not in (BASE, self.id)}
            if len(gone) < len(names) or not gone:
                return False
            if any({a: q for a, (q, _) in self._parts[n].items()} != row["parts"] for n, row in gone.items()):
                return False  # a part is newer than its row: the replica is alive
            if any(row.get("lacking") for row in gone.values()):
                return False  # other replicas may still hold what the store has lost
            old = self._rows.get(BASE)
            held = [self._parts.get(BASE, {}), *(self._parts[n] for n in sorted(gone))]
            sums: dict[str, Part] = {}
            for arm in sorted({a for parts in held for a in parts}):
                parts = [own[arm][1] for own in held if arm in own]
                sums[arm] = total(parts, max(p.bucket for p in parts), self._policy)
            folded = {**({} if old is None else old["folded"]), **{n: int(r["seq"]) for n, r in gone.items()}}
            decisions = sum(int(r["decisions"]) for r in [*gone.values(), *([] if old is None else [old])])
            try:
                self._based(old, folded, sums, decisions, gone)
            except OSError as error:
                log.warning("not compacted: %s", error)
                return False
            return True

    @property
    def peers(self) -> dict[str, Row]:
        """Rows of the other replicas as last seen; one whose ``beat`` stands still is gone or cut off."""
        return {name: dict(row) for name, row in self._rows.items() if name != BASE}

    # Start, stop, snapshots and forks.

    def start(self, restored: tuple[Mapping[str, Any], Mapping[str, Any]] | None) -> None:
        """Take up the identity of a snapshot, if there is one, and begin."""
        if restored is not None:
            self._resume(*restored)
        self.sync()
        if self._background:
            self._thread.start()

    def _resume(self, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        tally = self._router._tally
        spare = Tally(self._policy)
        spare.load_state(header["initial"], arrays)
        self._initial = spare.parts
        try:
            rows = self.store.index()
        except OSError as error:
            log.warning("store down: %s", error)
            rows = {}
        name = str(header["id"])
        if name in rows.get(BASE, {}).get("folded", {}):
            self.lost += 1  # what had not been published when it was folded
            self._router._tally = Tally(self._policy)
        else:
            self.id, self._beat = name, int(header["beat"])
            self._seq = max(int(header["seq"]), int(rows[name]["seq"]) if name in rows else 0)
            if name in rows:  # a snapshot may be older than what was published
                fetched = self.store.fetch(name, list(rows[name]["parts"]))
                for arm, data in fetched.items():
                    _, _, part = Part.decode(data, tally.empty)
                    if part.sums[0] > tally.copied(arm).sums[0]:
                        tally.parts[arm] = part
                        tally.versions[arm] = tally.versions.get(arm, 0) + 1
            self._part_seqs = dict.fromkeys(tally.parts, self._seq)
            self._history.clear()
            self._history.append((self._seq, {a: tally.copied(a) for a in tally.parts}))
        self._stale.update(self._policy.arms)

    def capture(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return identity and initial statistics for a snapshot; the Router's lock is held."""
        initial = Tally(self._policy)
        initial.parts = self._initial
        header, arrays = initial.to_state()
        return {"id": self.id, "seq": self._seq, "beat": self._beat, "initial": header}, arrays

    def reborn(self) -> "Replica":
        """Return a replica for a forked child: a new id, nothing learned itself yet, the same view of the others."""
        new = Replica(
            self._router,
            self.store,
            sync_s=self.sync_s,
            share_decisions=self.shares,
            background=self._background,
        )
        new._initial, new._rows, new._parts = self._initial, dict(self._rows), dict(self._parts)
        new._stale.update(self._policy.arms)
        self._router._tally = Tally(self._policy)
        if self._background:
            new._thread.start()
        return new

    def _run(self) -> None:
        waited, step = 0.0, min(self.sync_s, 0.02) if self.shares else self.sync_s
        while not self._wake.wait(step):
            waited += step
            try:
                self.exchange()
                if waited >= self.sync_s:
                    waited = 0.0
                    self.sync()
            except OSError as error:
                self.errors += 1
                log.warning("store down: %s", error)

    def stop(self) -> None:
        """Stop the thread, hand over what is left and publish once more."""
        if self._stopped:
            return
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self.exchange()
            self.sync()
        except OSError as error:
            self.errors += 1
            log.warning("store down: %s", error)

    def stats(self) -> dict[str, Any]:
        """Return counters; the Router's lock is held."""
        return {
            "replicas": 1 + sum(name != BASE for name in self._rows),
            "store_errors": self.errors,
            "syncs": self.syncs,
            "foreign": self.foreign_learned,
            "deferred": len(self._deferred),
            "unshared": self.unshared,
            "fenced": self.fenced,
            "parts_refused": self.refused,
            "replica_lost": self.lost,
            "bases_dropped": self.ambiguous,
        }
