"""A Router's part in the residency that all workers of one server share."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, Protocol

from banditroute._core.background import Background
from banditroute._core.typing import Floats
from banditroute.durability.demand import REQUESTS, Word, read_requests, read_word
from banditroute.durability.shared_residency import Rows, SharedResidency, SharedSet
from banditroute.errors import SnapshotError
from banditroute.records import StateStore, StoreRow
from banditroute.router.outbox import Outbox
from banditroute.router.parts import RouterParts
from banditroute.router.reconciler import Reconciler
from banditroute.router.residence import Residence
from banditroute.router.uses import Uses

__all__ = ["Plans", "SharedPlanning"]

log = logging.getLogger("banditroute.router")

LEASE_S = 10.0
FAST_S, SLOW_S = 0.01, 0.02  # between rounds where requests change what the server holds, and while plans do
SHARE = 0.2  # of its time that the thread spends in rounds, before they come further apart: at most `SLOW_S`
CALM_S = 0.25  # between rounds otherwise
LIVELY_S = 10.0  # after a change, until another is not to be expected
HOLD = 64  # requests taken in for one hold of the lock
PATIENCE = 3.0  # leases that a worker of other settings leaves the place to those that agree with each other
SLACK = 2.0  # times the time limit of a call that a step may take before another worker takes over
QUIET_S = 60.0  # between words of that in the log


class Plans(Protocol):
    """What this needs of the planner."""

    reconciler: Reconciler | None
    waiting: list[tuple[int, Floats, bool]] | None

    def heard(self, name: str, resident: bool, own: bool = True) -> bool:
        """Learn that an arm has become resident, or has left."""

    def inserts(self, arm: int) -> bool:
        """Whether a fault may have this arm loaded."""

    def followed(self, names: Iterable[str]) -> None:
        """See requests that others sent, in this order, at a server that displaces."""

    def wanted(self) -> None:
        """Tell the reconciler that the desired set has changed."""

    def failed(self, error: BaseException) -> None:
        """Count what the controller raised at a request, which stands."""


class SharedPlanning:
    """One worker among those of a server: it plans for all of them while it has the lease, and follows otherwise.

    All calls of the store are made by `exchange`, on a thread. The worker that plans shows its controller the requests
    of the others, as far as they are told (the last 256 of a round), and tells the sets, what will not load, and
    its settings. The others take over what it tells. Where the server displaces by requests, all tell when they used
    which adapter last and follow the common order of uses.

    Parameters
    ----------
    planner : Plans
    parts : RouterParts
    residence : Residence
    store : StateStore
    name : callable
        Name of this worker in the store, as of now.
    server : str
        Name of the server.
    sync_s : float
        Seconds between tellings of requests.
    background : bool
        Run a thread.
    clock : callable
        Seconds, never backwards.
    """

    def __init__(
        self,
        planner: Plans,
        parts: RouterParts,
        residence: Residence,
        store: StateStore,
        name: Callable[[], str],
        *,
        server: str = "",
        sync_s: float = 1.0,
        background: bool = True,
        lease_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._planner, self._parts, self._residence = planner, parts, residence
        self._name, self._server, self._clock = name, server, clock
        self._sync_s, self._background = sync_s, background
        self.store = SharedResidency(store, name(), server=server, lease_s=lease_s or LEASE_S, clock=clock)
        self.uses = Uses(clock)
        self._turn = threading.Lock()
        self._outbox = Outbox(parts, self.uses, sync_s, clock)
        self._signs = (clock(), True)  # when the planner was last seen, and whether it was idle then
        self._leads = self._followed = self._begun = False
        self._known: SharedSet | None = None  # what was told last, by this worker or to it
        self._heard: dict[str, int] = {}  # the last news of each other worker that is in the picture
        self._versions: dict[str, int] = {}  # of the requests of the others as last seen
        self._read: dict[str, StoreRow] = {}  # the rows of the others as last read
        self._eligible: set[str] | None = set()  # elsewhere, since the last plan; None for all
        self._next_told = -inf
        self._disagrees = False
        self.errors = self.refused = 0
        self._next_word = -inf
        self._thread = Background("residency", self._round, period_s=FAST_S, log=log)
        self._next_round = self._lively = -inf
        if planner.reconciler is not None:
            planner.reconciler.used = self.uses.mark
            planner.reconciler.allowed = self.leads

    def again(self) -> "SharedPlanning":
        """Return the part of a forked child, which knows nothing yet."""
        new = SharedPlanning(
            self._planner, self._parts, self._residence, self.store.store, self._name, server=self._server,
            sync_s=self._sync_s, background=self._background, lease_s=self.store.lease_s, clock=self._clock,
        )  # fmt: skip
        new.start()
        return new

    def start(self) -> None:
        """Have a first exchange, and a thread if there is to be one; a store that is down is tried again."""
        self.exchange()
        if self._background:
            self._thread.start()

    def __repr__(self) -> str:
        return f"SharedPlanning({self.store.me}, {'plans' if self.leads() else 'follows'})"

    # From the planner and the request path.

    def leads(self) -> bool:
        """Whether this worker plans; costs a look at the clock and is told by no store."""
        return self._leads and self.store.holds

    def turned(self, idle: bool) -> None:
        """See that the planner is at work, or has finished a turn: a worker that does not plan leaves the lease."""
        self._signs = (self._clock(), idle)

    def sent(self, name: str, context: Floats, hit: bool) -> None:
        """See a request sent here; the lock is held."""
        self._outbox.requests.append((name, context, hit))
        if self.uses.on:
            self.uses.mark(name)
            if not hit:  # it displaces another
                self._hurry()

    def news(self, name: str, resident: bool) -> None:
        """Tell the others what this worker was told from outside; the lock is held."""
        if not self._leads:  # otherwise they learn it from what this one tells
            self._outbox.tell_on(name, resident)

    def eligible(self) -> list[str] | None:
        """Return which arms were allowed elsewhere since the last call, None for all; the lock is held."""
        found, self._eligible = self._eligible, set()
        return None if found is None else sorted(found)

    # With the store.

    def _round(self) -> None:
        began = self._clock()
        if began >= self._next_round and self.exchange():
            now = self._clock()
            fast = self.uses.on or now < self._lively or (self._known is not None and self._known.inserts)
            pause_s = min((now - began) / SHARE, SLOW_S - FAST_S) if fast else CALM_S
            self._next_round = now + pause_s

    def changed(self) -> None:
        """Tell the others at once what this worker, which plans, has changed at the server."""
        if self._leads and not self.uses.on:
            self._hurry()

    def _hurry(self) -> None:
        self._next_round = -inf
        self._thread.wake()

    def exchange(self) -> bool:
        """Take or renew the lease, tell and take in what there is; False where the store is down, which is counted."""
        with self._turn:
            try:
                self._exchanged()
            except OSError as error:
                self.errors += 1
                now = self._clock()
                self._next_round = now + 0.5
                if now >= self._next_word:
                    self._next_word = now + QUIET_S
                    log.warning("residency is not shared, the store is down: %s", error)
                return False
            return True

    def _exchanged(self) -> None:
        store = self.store
        store.me = self._name()
        rows = store.rows()
        if not self._begun:
            self._outbox.begin(store.row, rows.get(store.row))
        reconciler = self._planner.reconciler
        self.uses.on = reconciler is not None and reconciler.follows_requests
        told = store.believed(rows)
        alive = self._alive()
        if not alive and store.holds:
            store.release()
        self._compare(told)
        patience = PATIENCE if self._disagrees else 1.0
        if alive and store.plans(rows, patience=patience):
            if not self._leads:
                self._take_over(told)
            if told is None:  # the store was flushed
                self._known = None
            self._hear(rows)
            self._tell()
        else:
            self._leads = False
            self._follow(told)
            self._hear(rows, plan=False)
        self._begun = True
        inserts = self._known is not None and self._known.inserts
        self._outbox.publish(store.store, store.row, listened=not self._leads, now=inserts)

    def _alive(self) -> bool:
        """Whether the planner here does its work: it was seen within the length of a lease, or of a long call."""
        seen_s, idle = self._signs
        reconciler = self._planner.reconciler
        limit = self.store.lease_s
        if not idle and reconciler is not None:
            limit = max(limit, SLACK * reconciler.call_timeout_s)
        return self._clock() - seen_s < limit

    def _settings(self) -> dict[str, Any]:
        """Return what workers of one server must agree on; the lock is held."""
        desired, names = self._residence.desired, self._parts.arms.names
        sizes = {n: float(size) for n, size in zip(names, desired.sizes, strict=True) if size != 1.0}
        pins = sorted(names[a] for a in desired.pinned)
        return {"capacity": float(desired.capacity), "sizes": sizes, "pinned": pins}

    def _compare(self, told: SharedSet | None) -> None:
        """Say once where the worker that plans has other settings."""
        with self._parts.lock:
            mine, arms = self._settings(), self._parts.arms.names
        theirs: Mapping[str, Any] = {} if told is None else told.settings
        other = {key: theirs[key] for key in mine if key in theirs and theirs[key] != mine[key]}
        if "sizes" in other:  # of arms that both have
            sizes = {name: size for name, size in dict(other["sizes"]).items() if name in arms}
            if sizes == mine["sizes"]:
                del other["sizes"]
        if other and not self._disagrees:
            own = {key: mine[key] for key in other}
            log.warning(
                "residency: the worker that plans has %s, this one %s; its plan is followed", other, own
            )
        self._disagrees = bool(other)

    def _take_over(self, told: SharedSet | None) -> None:
        """Begin to plan for all, from the sets that were told last."""
        planner = self._planner
        self._follow(told)
        with self._parts.lock:
            self._residence.controller.adopt(self._residence.desired)
            if planner.reconciler is not None:
                planner.reconciler.take_over({} if told is None else told.blocked)
            self._heard = {} if told is None else dict(told.heard)
            self._outbox.news.clear()
            self._read.clear()  # what was read as a follower was read for less
            self._known, self._leads = None, True
            planner.wanted()
            self._parts.books.due = 0.0

    def _follow(self, told: SharedSet | None) -> None:
        """Take over what the worker that plans has told, unless it is known."""
        planner, residence, parts = self._planner, self._residence, self._parts
        same = told is not None and self._known is not None and told.number == self._known.number
        if told is None or (same and (self._followed or not self.uses.on)):
            return
        self._lively = self._clock() + LIVELY_S
        with parts.lock:
            names = parts.arms.names
            if self.uses.on and self._followed:
                pass  # all follow the order of uses
            elif self.uses.on:
                planner.followed(sorted(told.actual, key=lambda n: -told.ages.get(n, inf)))
                self._followed = True
            else:
                known = told.heard.get(self.store.me, 0)
                ahead = {name for number, name, _ in self._outbox.news if number > known}
                changes = [(n, n in told.actual) for n in names if n not in ahead]
                for name, resident in sorted(
                    changes, key=lambda change: change[1]
                ):  # those that leave go first
                    planner.heard(name, resident, own=False)
            if residence.want(told.desired):
                parts.books.epoch += 1
                planner.wanted()
            if told.actual | told.desired <= set(names):  # others come with the next round of the replica
                self._known = told

    # What the others tell.

    def _hear(self, rows: Rows, plan: bool = True) -> None:
        """Take in what the others tell: uses and news, and for the one that plans their requests."""
        moved = False
        others = self.store.others(rows)
        self._heard = {n: number for n, number in self._heard.items() if self.store.row_of(n) in others}
        self._read = {row: raw for row, raw in self._read.items() if row in others}
        for row, raw in others.items():
            if self._read.get(row) == raw:
                continue
            word = read_word(raw)
            if word is not None:
                moved |= self._take_word(row, word, plan)
            self._read[row] = raw
        if moved and self.uses.on:
            with self._parts.lock:
                self._planner.followed(self.uses.since_news())

    def _take_word(self, row: str, word: Word, plan: bool) -> bool:
        """Take in what one of them tells; whether there were uses in it that are news."""
        first = not self._begun
        moved = self.uses.take_in(row, word.uses, count=not first)
        if plan:
            self._take_news(row, word)
        if first or not plan:
            self._versions.setdefault(row, word.requests)  # what lay there is old
        elif word.requests > self._versions.get(row, 0):
            self._versions[row] = word.requests
            self._take_requests(row, word)
        return moved

    def _take_news(self, row: str, word: Word) -> None:
        worker = row.rpartition(":")[2]
        for number, name, resident in word.news:
            if number > self._heard.get(worker, 0):
                self._heard[worker] = number
                if name in self._parts.arms.positions:
                    self._planner.heard(name, resident, own=False)

    def _take_requests(self, row: str, word: Word) -> None:
        data = self.store.store.fetch(row, [REQUESTS]).get(REQUESTS)
        if data is None:
            return
        try:
            self._versions[row], requests = read_requests(data, word.requests, self._parts.policy.dim)
        except SnapshotError as error:
            self.refused += 1
            if self.refused == 1:
                log.warning("requests of another worker refused: %s (further ones are counted)", error)
            return
        for start in range(0, len(requests.arms), HOLD):
            part = slice(start, start + HOLD)
            self._show(requests.names, requests.arms[part], requests.contexts[part], requests.hits[part])
        with self._parts.lock:
            if word.eligible is None:
                self._eligible = None
            elif self._eligible is not None:
                self._eligible.update(word.eligible)

    def _show(self, names: tuple[str, ...], arms: Any, contexts: Floats, hits: Any) -> None:
        """Have the controller see requests that others served, as if they had come here."""
        parts, planner, residence = self._parts, self._planner, self._residence
        with parts.lock:
            own = [parts.arms.positions.get(name, -1) for name in names]
            places = [own[arm] for arm in arms.tolist()]
            seen = [
                (arm, x, hit) for arm, x, hit in zip(places, contexts, hits.tolist(), strict=True) if arm >= 0
            ]
            parts.books.heard += len(seen)
            parts.books.due = 0.0
            if planner.waiting is not None:  # the controller is busy with a plan
                planner.waiting.extend(seen)
                return
            changed = False
            for arm, x, hit in seen:
                try:
                    residence.controller.observe(arm, x, hit)
                    if (
                        not residence.actual.mask[arm]
                        and residence.controller.inserts
                        and planner.inserts(arm)
                    ):
                        changed |= residence.insert(arm)
                except (Exception, SystemExit) as error:
                    planner.failed(error)
            if changed:
                planner.wanted()

    # What this one tells.

    def _tell(self) -> None:
        parts, reconciler, now = self._parts, self._planner.reconciler, self._clock()
        with parts.lock:
            names = parts.arms.names
            told = SharedSet(
                frozenset(self._residence.names()),
                frozenset(names[a] for a in self._residence.desired),
                {} if reconciler is None else reconciler.pauses(),
                self.uses.ages() if self.uses.on else {},
                self._settings(),
                self._residence.controller.inserts,
                dict(self._heard),
            )
        if told.alike(self._known) and not (told.ages and now >= self._next_told):
            return
        self._next_told = now + CALM_S
        self._followed = True
        if self.store.tell(told):
            self._known = told
        else:
            self._leads = False

    # The end.

    def close(self, timeout_s: float = 5.0) -> bool:
        """Stop the thread and leave the lease to another worker; False where that took too long."""
        ended = self._thread.close(timeout_s)
        self._leads = False
        last = threading.Thread(target=self._leave, name="banditroute-residency-end", daemon=True)
        last.start()
        last.join(timeout_s)
        return ended and not last.is_alive()

    def _leave(self) -> None:
        try:
            self.store.release()
        except Exception as error:  # closing goes on, whatever a store raises
            self.errors += 1
            log.warning("the lease is left to run out: %s", error)

    def stats(self) -> dict[str, Any]:
        """Return counters."""
        return {
            "plans_residency": int(self.leads()),
            "residency_errors": self.errors + sum(self._thread.errors.values()),
            "residency_refused": self.refused,
            "residency_disagrees": int(self._disagrees),
            "heard": self._parts.books.heard,
        }
