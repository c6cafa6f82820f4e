"""Residency that workers of one store share: one of them plans, by a lease, and all believe the same set."""

import json
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from banditroute._core import validation as check
from banditroute.durability.rows import About, Row, opened, sealed
from banditroute.durability.stores import order
from banditroute.errors import SnapshotError
from banditroute.records import StateStore

__all__ = ["LEASE", "RESIDENT", "SharedResidency", "SharedSet"]

LEASE, RESIDENT = "~lease", "~resident"  # rows that are no replicas


class SharedSet(NamedTuple):
    """What the worker that plans has told: the adapters that its server has, and those it wants there.

    Examples
    --------
    >>> SharedSet(frozenset({"a"}), frozenset({"a", "b"})).desired - {"a"}
    frozenset({'b'})
    """

    actual: frozenset[str]
    desired: frozenset[str]


class SharedResidency:
    """A lease to plan, and the set that whoever has it tells of.

    Time is never compared between machines: a lease is over for a worker that has seen it stand still for `lease_s` on
    its own clock. For a moment after a pause two workers may both plan; the store keeps the word of one.

    Parameters
    ----------
    store : StateStore
    me : str
        Name of this worker, as of its replica.
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
    ...     told = one.tell({"a"}, {"a", "b"})
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
        lease_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lease_s = check.finite("lease_s", lease_s, low=0.0, high=check.LONGEST_S, open_low=True)
        self._store, self._me, self._clock = store, me, clock
        self._seen: tuple[tuple[int, float], float] | None = None  # the lease as last seen, and since when

    def __repr__(self) -> str:
        return f"SharedResidency({self._me!r}, lease_s={self.lease_s:g})"

    def plans(self) -> bool:
        """Take the lease or renew it; False where another worker has it. Call it a few times within `lease_s`.

        Raises
        ------
        OSError
            The store is down: nobody may plan by this lease once it is over.
        """
        raw = self._store.index().get(LEASE)
        now, stamp = self._clock(), order(raw)
        if self._seen is None or self._seen[0] != stamp:
            self._seen = (stamp, now)
        holder = _text(raw, "holder")
        if holder not in ("", self._me) and now < self._seen[1] + self.lease_s:
            return False
        self._put(LEASE, stamp, {"holder": self._me})
        mine = self._store.index().get(LEASE)  # of several who put at once the store keeps one
        self._seen = (order(mine), now)
        return _text(mine, "holder") == self._me

    def release(self) -> None:
        """Let another worker plan at once; at the end of this one. Raises ``OSError`` when the store is down."""
        raw = self._store.index().get(LEASE)
        if _text(raw, "holder") == self._me:
            self._put(LEASE, order(raw), {"holder": ""})

    def tell(self, actual: Iterable[str], desired: Iterable[str]) -> bool:
        """Have all workers believe this set, for the one that plans; False where another one plans by now.

        Raises
        ------
        OSError
            The store is down.
        """
        rows = self._store.index()
        if _text(rows.get(LEASE), "holder") != self._me:
            return False
        told: dict[str, object] = {
            "holder": self._me,
            "actual": sorted(actual),
            "desired": sorted(desired),
        }
        self._put(RESIDENT, order(rows.get(RESIDENT)), told)
        return True

    def believed(self) -> SharedSet | None:
        """Return the set that was told last; None before. Raises ``OSError`` when the store is down."""
        told = _read(self._store.index().get(RESIDENT))
        actual, desired = _names(told.get("actual")), _names(told.get("desired"))
        return None if actual is None or desired is None else SharedSet(actual, desired)

    def _put(self, name: str, before: tuple[int, float], told: dict[str, object]) -> None:
        text = json.dumps(told)
        self._store.put(name, sealed(Row(max(0, before[0]) + 1, 0.0, {}, {}, About({"told": text}))), {})


def _read(raw: object) -> dict[str, object]:
    try:
        told = json.loads(str(opened(raw).about.fingerprint["told"]))
    except (SnapshotError, ValueError, LookupError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _text(raw: object, key: str) -> str:
    value = _read(raw).get(key)
    return value if isinstance(value, str) else ""


def _names(value: object) -> frozenset[str] | None:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return None
    return frozenset(value)
