"""What the columns of a trace are called in files, the header that goes before them, and checks that formats share."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.logs.trace import Trace

__all__ = ["FIELDS", "MARK", "MATRICES", "coded", "header_of", "present", "required", "told"]

# Name of a column in a row of a text file or in a table. Columns of strings are indices in memory.
FIELDS = {
    "times": "time",
    "ids": "id",
    "arms": "arm",
    "propensities": "propensity",
    "rewards": "reward",
    "hits": "hit",
    "latencies": "latency",
    "policy": "policy",
    "versions": "version",
    "eligible": "eligible",
    "prices": "prices",
    "contexts": "context",
}
MATRICES = ("eligible", "prices", "contexts")
MARK = "banditroute trace"


def present(trace: Trace) -> dict[str, NDArray[Any]]:
    """Return the columns that a trace has, by their names in memory."""
    return {name: getattr(trace, name) for name in FIELDS if getattr(trace, name) is not None}


def header_of(trace: Trace) -> dict[str, Any]:
    """Return what a file says of all rows."""
    return {"format": 1, "names": list(trace.names), "policies": list(trace.policies)}


def told(header: Any, *fields: str) -> dict[str, Any]:
    """Return the header of a file, which must list names, policies and more."""
    for field in ("names", "policies", *fields):
        if not isinstance(header, dict) or not isinstance(header.get(field), list):
            raise ValueError(f"its header must list {field}, got {header!r:.80}")
    found: dict[str, Any] = header
    return found


def required(columns: Iterable[str]) -> None:
    """Refuse a file without the columns that make a trace."""
    held = list(columns)
    missing = next((field for field in ("arm", "reward") if field not in held), None)
    if missing is not None:
        raise ValueError(f"it must have a column {missing!r}, got {', '.join(map(repr, held)) or 'none'}")


def coded(field: str, cells: Sequence[Any], names: list[str] | None) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names, those that occur where none are given, and the index of each cell among them."""
    if {type(cell) for cell in cells} - {str, int}:
        odd = next(i for i, cell in enumerate(cells) if type(cell) not in (str, int))
        raise ValueError(f"column {field!r}: must hold names, got {cells[odd]!r:.80} in row {odd}")
    words = [str(cell) for cell in cells]
    if names is None:
        names = sorted(set(words))
    place = {name: i for i, name in enumerate(names)}
    unknown = next((word for word in words if word not in place), None)
    if unknown is not None:
        raise ValueError(f"column {field!r}: must be one of {names}, got {unknown!r}")
    return names, np.array([place[word] for word in words], dtype=np.int64)
