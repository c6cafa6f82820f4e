"""The ledger of the decisions that await feedback, and the ids they go by."""

import hashlib
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, Literal

import numpy as np

from banditroute._core import validation as check
from banditroute.errors import UnknownDecision
from banditroute.records import Pending
from banditroute.router.waiting import RECENT, Entry, Waiting

__all__ = ["IDS", "Entry", "Ledger", "LedgerCopy", "decision_key"]

Status = Literal[0, 1, 2]
EXPIRED: Final = 0
ANSWERED: Final = 1
CANCELLED: Final = 2
LONGEST_ID = 128  # bytes of a caller's own id
IDS = 1 << 63
FRONT = 512  # oldest decisions that are asked for at once


def decision_key(given: int | str) -> int:
    """Return the id of a decision as an integer; ids of decisions are in [0, 2^63).

    Parameters
    ----------
    given : int or str
        An integer, its decimal digits, or a caller's own name for the decision, at most 128 bytes, which stands for
        63 bits of its BLAKE2b hash.

    Raises
    ------
    TypeError
        Anything else; a float is refused, for it does not hold 63 bits.
    ValueError
        An empty or too long string.

    Examples
    --------
    >>> decision_key("17"), decision_key(17), decision_key("request-17") == decision_key("request-17")
    (17, 17, True)
    """
    if isinstance(given, str):
        if given.isascii() and given.isdigit():
            given = int(given) if len(given) <= 19 else IDS
        else:
            name = given.encode(errors="surrogatepass")
            if not 0 < len(name) <= LONGEST_ID:
                raise ValueError(f"decision_id must have 1 to {LONGEST_ID} bytes, got {len(name)}")
            return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 1
    elif isinstance(given, bool) or not isinstance(given, int | np.integer):
        raise TypeError(f"decision_id must be an integer or a string, got {check.shown(given)}")
    return int(given)


def _drawn_ids() -> list[int]:
    ids: list[int] = (np.frombuffer(secrets.token_bytes(8 * 512), dtype=np.uint64) >> np.uint64(1)).tolist()
    return ids


class Ledger:
    """Decisions awaiting feedback, bounded in time and in number.

    Parameters
    ----------
    time_limit : float
        Seconds after which a decision expires.
    size_limit : int
        Decisions kept; the oldest expires when one more comes. As many closed ids are remembered, so that a repeated
        answer is told from an unknown one.
    on_expire : callable, optional
        Called with (id, entry) of each decision that expires.

    Notes
    -----
    Each call is O(1) amortised. Not locked: the Router's lock covers it.

    Examples
    --------
    >>> ledger = Ledger(time_limit=60.0, size_limit=10)
    >>> key = ledger.open(tuple(Pending("math", np.zeros(2), 1.0, 0.0, 0)))
    >>> ledger.find(key, now=1.0).arm
    'math'
    >>> ledger.answer(key)
    >>> ledger.find(key, now=1.0) is None, ledger.duplicates
    (True, 1)
    """

    __slots__ = (
        "_few", "_front", "_front_closed", "_ids", "cancelled", "closed", "copies", "duplicates", "expired", "late",
        "learning", "on_expire", "pending", "size_limit", "time_limit",
    )  # fmt: skip

    def __init__(
        self,
        *,
        time_limit: float,
        size_limit: int,
        on_expire: Callable[[int, Entry], None] | None = None,
    ) -> None:
        self.time_limit = check.finite("time_limit", time_limit, low=0.0, open_low=True)
        self.size_limit = check.integer("size_limit", size_limit, low=1)
        self._few = min(
            RECENT, self.size_limit
        )  # up to here there is nothing to do but to write a decision down
        self.pending = Waiting()  # in order of time
        self.closed: dict[int, int] = {}  # EXPIRED, ANSWERED or CANCELLED, in the order of that
        # The oldest of both, in reverse. Asked for its first entry, a dictionary scans the gaps that older ones left,
        # 300 us at 100,000 pending (measured): so a few hundred are asked for at once.
        self._front: list[tuple[int, Entry]] = []
        self._front_closed: list[int] = []
        self.copies: list[LedgerCopy] = []  # under way: told before a decision leaves or changes
        self.expired = self.duplicates = self.late = self.cancelled = 0
        self.learning = (
            -1
        )  # the decision whose reward is being learned: still set where a signal cut that short
        self.on_expire = on_expire
        self._ids = _drawn_ids()

    def __repr__(self) -> str:
        """Show what is awaited and what was closed."""
        return f"Ledger(pending={len(self.pending)}, closed={len(self.closed)}, expired={self.expired})"

    def __len__(self) -> int:
        return len(self.pending)

    def new_id(self) -> int:
        """Return 63 random bits nobody can guess, drawn from the system in blocks of 512."""
        if not self._ids:
            self._ids = _drawn_ids()
        return self._ids.pop()

    def open(self, entry: Entry, key: int | None = None) -> int:
        """Keep a decision, under an id of its own where it has one; returns its id."""
        waiting = self.pending
        recent, older = waiting.recent, waiting.older  # their own methods: this is the request path
        if key is None:
            key = self._ids.pop() if self._ids else self.new_id()
            while key in recent or key in older or key in self.closed:
                key = self.new_id()
        recent[key] = entry
        if older or len(recent) > self._few:
            if len(recent) > waiting.limit:
                waiting.move()
            if len(recent) + len(older) > self.size_limit and (oldest := self._oldest()) is not None:
                self.expire(oldest[0])
        return key

    def _oldest(self) -> tuple[int, Entry] | None:
        """Return the oldest decision, None where there is none."""
        front, pending = self._front, self.pending
        while True:
            while front:
                key, entry = front[-1]
                if pending.get(key) is entry:
                    return key, entry
                front.pop()
            front.extend(islice(pending.items(), FRONT))
            if not front:
                return None
            front.reverse()

    def overdue(self, now: float) -> bool:
        """Whether `sweep` would find anything at clock `now`."""
        oldest = self._oldest()
        return oldest is not None and not now - self.time_limit < oldest[1][3] <= now

    def sweep(self, now: float, most: int = sys.maxsize) -> bool:
        """Expire what is older than the time limit at clock `now`, at most so many at once; False where more is left.

        A decision stamped in the future, by a clock that jumped and came back, is stamped anew.
        """
        limit, pending = now - self.time_limit, self.pending
        while (oldest := self._oldest()) is not None:
            key, entry = oldest
            time = entry[3]
            if limit < time <= now:
                return True
            if most <= 0:
                return False
            most -= 1
            if time > now:
                self._keep(key, entry)
                pending.pop(key)
                pending.recent[key] = (*entry[:3], now, *entry[4:])  # to the end
            else:
                self.expire(key)
        return True

    def find(self, key: int, *, now: float) -> Pending | None:
        """Return the decision that `key` answers, or None (and count) when it was answered before or has expired.

        Raises
        ------
        UnknownDecision
            The id was never issued here, or is older than the bounded memory; nothing changed.
        """
        entry = self.pending.get(key)
        if entry is not None and entry[3] > now - self.time_limit:
            return Pending(*entry)
        if entry is not None:
            self.expire(key)
        self.refuse(key)
        return None

    def refuse(self, key: int) -> None:
        """Count an answer to a decision that awaits none; raises ``UnknownDecision`` where none was issued."""
        status = self.closed.get(key)
        if status is None:
            raise UnknownDecision(f"decision_id must be one that awaits or had its feedback, got {key!r}")
        if status == ANSWERED:
            self.duplicates += 1
        else:
            self.late += 1

    def answer(self, key: int) -> None:
        """Take a decision off the books: its feedback has been learned."""
        if self.copies:
            self._keep(key, self.pending[key])
            self._keep_closed(key)
        try:
            del self.pending.recent[key]
        except KeyError:
            del self.pending.older[key]
        closed = self.closed  # `close` without the call: this is the request path
        closed[key] = ANSWERED
        if len(closed) > self.size_limit:
            self._forget_closed()

    def settle_interrupted(self) -> None:
        """Close the decision whose learning a signal handler that raised has cut short: it may have been learned."""
        key, self.learning = self.learning, -1
        if key in self.pending:
            self.answer(key)

    def cancel(self, key: int) -> Entry:
        """Take a decision off the books that nothing will answer; returns it."""
        entry = self.pending.pop(key)
        self._keep(key, entry)
        self.cancelled += 1
        self.close(key, CANCELLED)
        return entry

    def expire(self, key: int) -> None:
        """Let one decision expire."""
        entry = self.pending.pop(key)
        self._keep(key, entry)
        self.expired += 1
        self.close(key, EXPIRED)
        if self.on_expire is not None:
            self.on_expire(key, entry)

    def close(self, key: int, status: Status = ANSWERED) -> None:
        """Remember that an id has been dealt with."""
        self._keep_closed(key)
        self.closed[key] = status
        if len(self.closed) > self.size_limit:
            self._forget_closed()

    def _forget_closed(self) -> None:
        """Forget the oldest closed id."""
        front = self._front_closed
        if not front:
            front.extend(islice(self.closed, FRONT))
            front.reverse()
        key = front.pop()
        self._keep_closed(key)
        del self.closed[key]

    # A copy bit by bit.

    def copy(self) -> "LedgerCopy":
        """Begin a copy of what is here now; end it with `LedgerCopy.end`."""
        return LedgerCopy(self)

    def _keep(self, key: int, entry: Entry) -> None:
        """Put a decision aside that leaves or changes."""
        for one in self.copies:
            one.entries.setdefault(key, entry)

    def _keep_closed(self, key: int) -> None:
        """Put the status of an id aside that is forgotten or changes."""
        for one in self.copies:
            if key in self.closed:
                one.statuses.setdefault(key, self.closed[key])

    def disown(self, arm: str) -> list[Entry]:
        """Leave the pending decisions of a removed arm without one, lest a later arm of that name learns from them.

        Returns them as they were, for what their terms hold.
        """
        found = []
        for key, entry in self.pending.items():
            if entry[0] == arm:
                found.append(entry)
                self._keep(key, entry)
                self.pending.replace(key, ("", *entry[1:5], None, None, None))  # no arm has that name
        self._front.clear()
        return found

    def forget(self) -> list[Entry]:
        """Drop every pending decision and prefetched id, as a forked child does; returns the decisions."""
        held = list(self.pending.values())
        self.replace((), self.closed.items())
        self._ids.clear()
        return held

    def replace(self, pending: Iterable[tuple[int, Entry]], closed: Iterable[tuple[int, int]]) -> None:
        """Take up what a snapshot held; the limits are those of this ledger."""
        self.pending, self.closed = Waiting(pending), dict(list(closed)[-self.size_limit :])
        self._front.clear()
        self._front_closed.clear()
        self.copies = []  # what they copy stays as it is now


class LedgerCopy:
    """The decisions and closed ids of a ledger as they were when it began, for a reader that takes them bit by bit.

    The ids of both are listed at the beginning, some 10 us for 1,000 of them; what leaves or changes from then on, the
    ledger puts aside here.

    Examples
    --------
    >>> ledger = Ledger(time_limit=60.0, size_limit=10)
    >>> key = ledger.open(tuple(Pending("math", np.zeros(2), 1.0, 0.0, 0)))
    >>> copy = ledger.copy()
    >>> ledger.answer(key)
    >>> [[entry[0] for _, entry in rows] for rows in copy.pending(100)], list(copy.closed(100))
    ([['math']], [])
    >>> copy.end()
    """

    __slots__ = ("_closed", "_closed_ids", "_ids", "_ledger", "_pending", "entries", "statuses")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._pending, self._closed = ledger, ledger.pending, ledger.closed
        older, recent = ledger.pending.older, ledger.pending.recent
        self._ids, self._closed_ids = [*older, *recent], list(ledger.closed)
        self.entries: dict[int, Entry] = {}
        self.statuses: dict[int, int] = {}
        ledger.copies.append(self)

    @property
    def count(self) -> tuple[int, int]:
        """How many decisions and closed ids there are."""
        return len(self._ids), len(self._closed_ids)

    def pending(self, most: int) -> Iterator[list[tuple[int, Entry]]]:
        """Yield the decisions in order of time, at most so many at once; the lock is held for each."""
        aside, recent, older = self.entries, self._pending.recent, self._pending.older
        for at in range(0, len(self._ids), most):
            keys = self._ids[at : at + most]
            yield [(key, aside.get(key) or recent.get(key) or older[key]) for key in keys]

    def closed(self, most: int) -> Iterator[list[tuple[int, int]]]:
        """Yield closed ids with their status, oldest first, at most so many at once; the lock is held for each."""
        aside, now = self.statuses, self._closed
        for at in range(0, len(self._closed_ids), most):
            keys = self._closed_ids[at : at + most]
            yield [(key, aside[key] if key in aside else now[key]) for key in keys]

    def end(self) -> None:
        """Have the ledger put nothing aside any more; the lock is held."""
        if self in self._ledger.copies:
            self._ledger.copies.remove(self)
