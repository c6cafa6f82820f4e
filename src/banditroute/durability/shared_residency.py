"""Residency that workers of one store share: one of them plans, by a lease, and all believe the same set."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from math import inf, isfinite
from typing import Any, NamedTuple

from banditroute._core import validation as check
from banditroute.durability.rows import About, Row, opened, sealed
from banditroute.durability.stores import order
from banditroute.errors import SnapshotError
from banditroute.records import StateStore, StoreRow

__all__ = ["LEASE", "RESIDENT", "WORKER", "Rows", "SharedResidency", "SharedSet", "read", "written"]

LEASE, RESIDENT, WORKER = "~lease", "~resident", "~worker"  # rows that are no replicas
VERSION = 1  # of what these rows tell
RENEWALS = 4  # of a lease before it is over

Rows = Mapping[str, StoreRow]


class SharedSet(NamedTuple):
    """What the worker that plans has told: the adapters that its server has, and those it wants there.

    ``blocked`` will not load now: failures so far and seconds until the next try, by name. ``ages`` are seconds since
    the last use, where a server displaces. ``settings`` are those that the plan was made by, ``inserts`` whether
    faults insert, ``heard`` the number of the last news of each worker that is in it, ``number`` the row's own.

    Examples
    --------
    >>> SharedSet(frozenset({"a"}), frozenset({"a", "b"})).desired - {"a"}
    frozenset({'b'})
    """

    actual: frozenset[str]
    desired: frozenset[str]
    blocked: Mapping[str, tuple[int, float]] = {}
    ages: Mapping[str, float] = {}
    settings: Mapping[str, Any] = {}
    inserts: bool = False
    heard: Mapping[str, int] = {}
    number: int = 0

    def alike(self, other: "SharedSet | None") -> bool:
        """Whether there is nothing new in it: ages and waits go on by themselves."""
        if other is None:
            return False
        blocked = {n: tries for n, (tries, _) in self.blocked.items()}
        known = {n: tries for n, (tries, _) in other.blocked.items()}
        plain = self._replace(blocked={}, ages={}, number=0)
        return blocked == known and plain == other._replace(blocked={}, ages={}, number=0)


class SharedResidency:
    """A lease to plan, and the set that whoever has it tells of.

    Time is never compared between machines: a lease is over for a worker that has seen it stand still for `lease_s` on
    its own clock, and for its holder `lease_s` after the last renewal that the store took. A holder that was stopped
    for longer finds out before it does anything.

    Parameters
    ----------
    store : StateStore
    me : str
        Name of this worker, as of its replica.
    server : str
        Name of the server whose adapters these are: workers of other servers have a lease of their own.
    lease_s : float
        Seconds without a renewal after which another worker takes over.
    clock : callable
        Seconds, never backwards.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute import FileStore
    >>> with tempfile.TemporaryDirectory() as home:
    ...     one, two = (SharedResidency(FileStore(home), name) for name in ("one", "two"))
    ...     first, second = one.plans(), two.plans()
    ...     told = one.tell(SharedSet(frozenset("a"), frozenset("ab")))
    ...     two.believed().actual
    frozenset({'a'})
    >>> first, second, told
    (True, False, True)
    """

    def __init__(
        self,
        store: StateStore,
        me: str,
        *,
        server: str = "",
        lease_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lease_s = check.finite("lease_s", lease_s, low=0.0, high=check.LONGEST_S, open_low=True)
        self.store, self.me, self._clock = store, me, clock
        self._end = f":{server}" if server else ""
        self._seen: tuple[tuple[int, float], float] | None = None  # the lease as last seen, and since when
        self._put_s = -inf  # when the last renewal began that the store took

    def __repr__(self) -> str:
        return f"SharedResidency({self.me!r}, lease_s={self.lease_s:g})"

    @property
    def holds(self) -> bool:
        """Whether this worker has the lease, as far as it may believe that without asking the store."""
        return self._clock() < self._put_s + self.lease_s

    def rows(self) -> Rows:
        """Return what the store holds; raises ``OSError`` when it is down."""
        return self.store.index()

    def plans(self, rows: Rows | None = None, *, patience: float = 1.0) -> bool:
        """Take the lease or renew it; False where another worker has it. Call it a few times within `lease_s`.

        With `patience` a lease that is free, or over, is left to others for so many times `lease_s`.

        Raises
        ------
        OSError
            The store is down: nobody may plan by this lease once it is over.
        """
        raw = (self.rows() if rows is None else rows).get(LEASE + self._end)
        now, stamp = self._clock(), order(raw)
        if self._seen is None or self._seen[0] != stamp:
            self._seen = (stamp, now)
        holder = self._holder(raw)
        if holder == self.me and now < self._put_s + self.lease_s / RENEWALS:
            return True
        still = patience if holder or patience > 1.0 else 0.0
        if holder != self.me and now < self._seen[1] + still * self.lease_s:
            self._put_s = -inf
            return False
        self._put(LEASE, stamp, {"holder": self.me})
        mine = self.rows().get(LEASE + self._end)  # of several who put at once the store keeps one
        self._seen = (order(mine), now)
        self._put_s = now if self._holder(mine) == self.me else -inf
        return self._put_s == now

    def release(self) -> None:
        """Let another worker plan at once; at the end of this one. Raises ``OSError`` when the store is down."""
        self._put_s = -inf
        raw = self.rows().get(LEASE + self._end)
        if self._holder(raw) == self.me:
            self._put(LEASE, order(raw), {"holder": ""})

    def tell(self, told: SharedSet) -> bool:
        """Have all workers believe this set, for the one that plans; False where another one plans by now.

        Raises
        ------
        OSError
            The store is down.
        """
        rows = self.rows()
        if self._holder(rows.get(LEASE + self._end)) != self.me:
            return False
        plain = {
            **told._asdict(),
            "actual": sorted(told.actual),
            "desired": sorted(told.desired),
            "blocked": {name: list(pause) for name, pause in told.blocked.items()},
        }
        del plain["number"]
        self._put(RESIDENT, order(rows.get(RESIDENT + self._end)), plain)
        return True

    def believed(self, rows: Rows | None = None) -> SharedSet | None:
        """Return the set that was told last; None before. Raises ``OSError`` when the store is down."""
        raw = (self.rows() if rows is None else rows).get(RESIDENT + self._end)
        told = read(raw)
        try:
            return SharedSet(
                _names(told["actual"]),
                _names(told["desired"]),
                {_name(n): (int(tries), _seconds(wait)) for n, (tries, wait) in told["blocked"].items()},
                {_name(n): _seconds(age) for n, age in told["ages"].items()},
                dict(told["settings"]),
                told["inserts"] is True,
                {_name(n): int(number) for n, number in told["heard"].items()},
                order(raw)[0],
            )
        except (TypeError, ValueError, LookupError, AttributeError):
            return None

    def others(self, rows: Rows) -> dict[str, StoreRow]:
        """Return the rows of the other workers by name, as far as they have an order."""
        start = f"{WORKER}{self._end}:"
        mine = start + self.me
        found = {n: row for n, row in rows.items() if n.startswith(start) and n != mine}
        return {n: row for n, row in found.items() if order(row) >= (0, 0.0)}

    @property
    def row(self) -> str:
        """Name of this worker's own row."""
        return self.row_of(self.me)

    def row_of(self, worker: str) -> str:
        """Return the name of a worker's row."""
        return f"{WORKER}{self._end}:{worker}"

    def _holder(self, raw: object) -> str:
        value = read(raw).get("holder")
        return value if isinstance(value, str) else ""

    def _put(self, name: str, before: tuple[int, float], told: Mapping[str, Any]) -> None:
        self.store.put(name + self._end, written(max(0, before[0]) + 1, told), {})


def written(seq: int, told: Mapping[str, Any], parts: Mapping[str, int] | None = None) -> StoreRow:
    """Return a row that tells plain data, under a checksum.

    Examples
    --------
    >>> read(written(1, {"holder": "me"}))["holder"]
    'me'
    """
    text = json.dumps({**told, "version": VERSION})
    return sealed(Row(seq, 0.0, {} if parts is None else parts, {}, About({"told": text})))


def read(raw: object) -> dict[str, Any]:
    """Return what `written` was given; {} for a row that is torn, foreign or of another version.

    Examples
    --------
    >>> read({"seq": 1, "beat": 0, "body": "nonsense"})
    {}
    """
    try:
        told = json.loads(str(opened(raw).about.fingerprint["told"]))
    except (SnapshotError, ValueError, LookupError, RecursionError):
        return {}
    return told if isinstance(told, dict) and told.get("version") == VERSION else {}


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a name must be a string, got {value!r}")
    return value


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not isfinite(seconds):
        raise ValueError(f"seconds must be finite, got {seconds}")
    return seconds


def _names(value: Iterable[object]) -> frozenset[str]:
    if not isinstance(value, list):
        raise TypeError(f"names must be a list, got {value!r}")
    return frozenset(_name(name) for name in value)
