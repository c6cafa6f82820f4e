"""What the columns of a trace are called in files, and the header that goes before them."""

import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["BY_ARM", "FIELDS", "FORMAT", "MARK", "Columns", "checksum", "header_of", "present", "told"]

# Name of a column in a row of a text file or in a table. Columns of strings are indices in memory.
FIELDS = {
    "times": "time",
    "ids": "id",
    "arms": "arm",
    "propensities": "propensity",
    "rewards": "reward",
    "costs": "cost",
    "hits": "hit",
    "latencies": "latency",
    "policy": "policy",
    "versions": "version",
    "eligible": "eligible",
    "prices": "prices",
    "fault_prices": "fault_prices",
    "contexts": "context",
    "candidates": "candidate_features",
}
BY_ARM = ("eligible", "prices", "fault_prices")
MARK = "banditroute trace"
FORMAT = 2  # 1 had neither costs nor fault prices nor a checksum


class Columns(Protocol):
    """What a writer needs of a trace: its names, and its columns as attributes."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arms."""

    @property
    def policies(self) -> tuple[str, ...]:
        """Names of the policies."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say of them."""

    @property
    def arms(self) -> NDArray[np.int64]:
        """Arms that were chosen."""


def present(trace: Columns) -> dict[str, NDArray[Any]]:
    """Return the columns that a trace has, by their names in memory."""
    return {name: getattr(trace, name) for name in FIELDS if getattr(trace, name) is not None}


def header_of(trace: Columns) -> dict[str, Any]:
    """Return what a file says of all rows."""
    columns = present(trace)
    shape = {} if "contexts" not in columns else {"dim": columns["contexts"].shape[1]}
    return {
        "format": FORMAT,
        **shape,
        "names": list(trace.names),
        "policies": list(trace.policies),
        "columns": [FIELDS[name] for name in columns],
        "checksum": checksum(trace.names, trace.policies, columns),
    }


def checksum(names: Iterable[str], policies: Iterable[str], columns: Mapping[str, NDArray[Any]]) -> str:
    """Return a checksum of the content of a trace, the same in every format.

    Examples
    --------
    >>> checksum(["a"], [""], {"arms": np.zeros(2, np.int64)})
    'cabd5042'
    """
    total = zlib.crc32(json.dumps([list(names), list(policies)]).encode())
    for name in FIELDS:
        if name in columns:
            array = np.ascontiguousarray(columns[name])
            if array.dtype.kind == "f" and np.isnan(array).any():
                array = np.where(np.isnan(array), np.nan, array)  # there are many, and text knows one
            total = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), total)
            total = zlib.crc32(array.tobytes() if array.dtype.byteorder == ">" else array.data, total)
    return f"{total:08x}"


def told(header: Any) -> dict[str, Any]:
    """Return the header of a file, which must list names and policies and be of a format that is known."""
    for field in ("names", "policies"):
        if not isinstance(header, dict) or not isinstance(header.get(field), list):
            raise ValueError(f"its header must list {field}, got {header!r:.80}")
    number = header.get("format", 1)
    if type(number) is not int or not 1 <= number <= FORMAT:
        raise ValueError(f"its format must be at most {FORMAT}, got {number!r:.80}; a newer release reads it")
    if number > 1 and not (type(header.get("checksum")) is str and type(header.get("columns")) is list):
        raise ValueError("its header is damaged: it must hold columns and checksum")
    return {**header, "format": number}
