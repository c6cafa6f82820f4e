"""The pending decisions and closed ids of a Router as plain arrays, copied bit by bit."""

from collections.abc import Generator
from typing import Any

import numpy as np

from banditroute._core.typing import Arrays, Floats, Header
from banditroute.router.ledger import Entry
from banditroute.router.parts import RouterParts

__all__ = ["ledger_slices"]

HELD = 32_768  # numbers of contexts copied at once
MOST = 512  # decisions, or closed ids, copied at once
COUNTERS = ("expired", "duplicates", "late", "cancelled")


def ledger_slices(parts: RouterParts) -> Generator[tuple[Header, Arrays] | None, None, None]:
    """Copy the ledger as it is at the first ``next()``: None for each bit, and at last header and arrays.

    The lock is held for each ``next()`` and for ``close()``.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(["a", "b"], 2, rng=0))
    >>> _ = router.select([1.0, 0.0])
    >>> *_, (header, arrays) = ledger_slices(router.parts)
    >>> arrays["pending.context"]
    array([[1., 0.]])
    """
    ledger = parts.ledger
    counters = {name: getattr(ledger, name) for name in COUNTERS}
    terms = [term.name for term in parts.table.terms]
    width = parts.policy.dim  # of what the policy keeps of a context
    if ledger.pending:
        width = next(ledger.pending.values())[1].size
    copy = ledger.copy()
    table = _Table(*copy.count, width)
    try:
        yield None
        for rows in copy.pending(max(1, min(MOST, HELD // width))):
            table.add(rows)
            yield None
        for closed in copy.closed(2 * MOST):
            table.add_closed(closed)
            yield None
        table.finish()
        header: Header = {"pending_arms": list(table.arms), "ledger": counters}
        if table.extra:
            header["pending_extra"] = {"terms": terms, "rows": table.extra}
        yield header, table.arrays
    finally:
        copy.end()


class _Table:
    """The columns of a ledger, filled from above: all of their room is there from the beginning."""

    def __init__(self, pending: int, closed: int, width: int) -> None:
        self.arrays: Arrays = {
            "pending.id": np.empty(pending, dtype=np.uint64),
            "pending.arm": np.empty(pending, dtype=np.int64),
            "pending.context": np.empty((pending, width)),
            "pending.propensity": np.empty(pending),
            "pending.time": np.empty(pending),
            "pending.at": np.empty(pending, dtype=np.int64),
            "closed.id": np.empty(closed, dtype=np.uint64),
            "closed.status": np.empty(closed, dtype=np.uint8),
        }
        self.extra: dict[str, list[Any]] = {}
        self.arms: dict[str, int] = {}
        self._pending = self._closed = 0
        # Rows of several lengths lie one after the other, from the first that is not as long as the others.
        self._flat: list[Floats] = []
        self._lengths: list[int] = []

    def add(self, rows: list[tuple[int, Entry]]) -> None:
        """Fill in some decisions."""
        if not rows:
            return
        start, arms = self._pending, self.arms
        self._pending = end = start + len(rows)
        columns: dict[str, list[Any]] = {
            "id": [key for key, _ in rows],
            "arm": [arms.setdefault(entry[0], len(arms)) for _, entry in rows],
            "propensity": [entry[2] for _, entry in rows],
            "time": [entry[3] for _, entry in rows],
            "at": [entry[4] for _, entry in rows],
        }
        for name, values in columns.items():
            column = self.arrays[f"pending.{name}"]
            column[start:end] = np.array(values, dtype=column.dtype)
        self._keep([entry[1] for _, entry in rows], start, end)
        for i, (_, entry) in enumerate(rows, start):
            if entry[5] is not None or entry[6] is not None or entry[7] is not None:
                held = None if entry[5] is None else list(entry[5])
                self.extra[str(i)] = [held, entry[6] and dict(entry[6]), entry[7]]

    def _keep(self, contexts: list[Floats], start: int, end: int) -> None:
        matrix, lengths = self.arrays["pending.context"], [context.size for context in contexts]
        if not self._flat:
            if lengths.count(matrix.shape[1]) == len(lengths):
                matrix[start:end] = np.array(contexts, dtype=np.float64)
                return
            self._flat, self._lengths = [matrix[:start].ravel()], [matrix.shape[1]] * start
        self._flat.append(np.concatenate([np.ravel(context) for context in contexts]))
        self._lengths += lengths

    def finish(self) -> None:
        """Put rows of several lengths into one array: see `kept_rows.unpacked`."""
        if self._flat:
            self.arrays["pending.context"] = np.concatenate(self._flat)
            self.arrays["pending.length"] = np.array(self._lengths, dtype=np.int64)

    def add_closed(self, rows: list[tuple[int, int]]) -> None:
        """Fill in some closed ids."""
        start = self._closed
        self._closed = end = start + len(rows)
        self.arrays["closed.id"][start:end] = np.array([key for key, _ in rows], dtype=np.uint64)
        self.arrays["closed.status"][start:end] = [status for _, status in rows]
