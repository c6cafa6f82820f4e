"""Cells that hold lists: contexts, and values per arm."""

import json
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute._core.typing import Floats
from banditroute.logs.cells import Cells, each, missing, number, refusal

__all__ = ["by_arm", "vectors"]


def _cell_list(cell: Any) -> Any:
    """Return a list, from JSON where it is a text; a number alone is a list of one."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            cell = number(cell)
    if isinstance(cell, np.ndarray):
        return cell.tolist()
    if isinstance(cell, list | tuple | dict):
        return cell
    if missing(cell):
        raise ValueError
    return [number(cell)]


def vectors(title: str, cells: Cells, first: int = 0) -> Floats:
    """Return lists of numbers, all of one length, as a matrix; a cell may be a JSON list, or one number.

    Examples
    --------
    >>> vectors("context", ["[0.5, 1]", "[1, 2]"])
    array([[0.5, 1. ], [1. , 2. ]])
    >>> vectors("context", [[1.0, 2.0], [3.0]])
    Traceback (most recent call last):
    ValueError: column 'context': must hold lists of one length, got 2 numbers in row 0 and 1 in row 1
    """
    rule = "must have a number, or a list of numbers, in every row"
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiub":
        table: Floats = cells.astype(np.float64).reshape(len(cells), cells.size // max(len(cells), 1))
        odd = np.flatnonzero(~np.isfinite(table).all(axis=1))
        if odd.size:
            raise refusal(title, rule, table[odd[0]].tolist(), first + int(odd[0]))
        return table
    lists = each(_cell_list, rule, title, cells, first)
    for i, one in enumerate(lists):
        if isinstance(one, dict):
            raise refusal(title, rule, one, first + i)
        if len(one) != len(lists[0]):
            raise ValueError(
                f"column {title!r}: must hold lists of one length, got {len(lists[0])} numbers in row {first} "
                f"and {len(one)} in row {first + i}"
            )
    if set(map(type, chain.from_iterable(lists))) <= {float, int, bool}:
        try:
            found = np.array(lists, dtype=np.float64)
        except OverflowError:
            found = np.full(1, np.nan)
        if found.ndim == 2 and np.isfinite(found).all():
            return found
    rows = [_row(title, rule, one, first + i) for i, one in enumerate(lists)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(rows[0]) if rows else 0)


def _row(title: str, rule: str, cells: list[Any], row: int) -> list[float]:
    try:
        found = [number(cell) for cell in cells]
    except (ValueError, TypeError, OverflowError):
        raise refusal(title, rule, cells, row) from None
    if not np.isfinite(found).all():
        raise refusal(title, rule, cells, row)
    return found


def by_arm(title: str, cells: Cells, first: int = 0) -> NDArray[Any]:
    """Return lists by position as a matrix; lists of names and objects by name as they are, to be placed later.

    Examples
    --------
    >>> by_arm("eligible", [["a"], ["a", "b"]])
    array([list(['a']), list(['a', 'b'])], dtype=object)
    """
    if not isinstance(cells, np.ndarray):
        lists = each(_cell_list, "must have a list in every row", title, cells, first)
        if lists and all(isinstance(one, dict) or (one and isinstance(one[0], str)) for one in lists):
            found = np.empty(len(lists), dtype=object)
            found[:] = lists
            return found
        return vectors(title, lists, first)
    return vectors(title, cells, first)
