"""What decisions keep, as arrays of a state: rows of one length in a matrix, others one after the other."""

from collections.abc import Sequence

import numpy as np

from banditroute._core.typing import Arrays, Floats

__all__ = ["packed", "unpacked"]


def packed(rows: Sequence[Floats], width: int) -> Arrays:
    """Return rows as arrays: ``pending.context`` (n, width) where all have that length, else flat, with lengths.

    Examples
    --------
    >>> sorted(packed([np.ones(2), np.ones(3)], 2))
    ['pending.context', 'pending.length']
    """
    lengths = [row.size for row in rows]
    if all(length == width for length in lengths):
        return {"pending.context": np.array(rows, dtype=np.float64).reshape(len(rows), width)}
    flat = np.concatenate([np.ravel(row) for row in rows])
    return {"pending.context": flat.astype(np.float64), "pending.length": np.array(lengths, dtype=np.int64)}


def unpacked(arrays: Arrays, count: int) -> list[Floats]:
    """Return the rows again, each an array of its own.

    Raises
    ------
    ValueError
        They are not so many, or not finite.

    Examples
    --------
    >>> unpacked(packed([np.ones(2), np.ones(3)], 2), 2)
    [array([1., 1.]), array([1., 1., 1.])]
    """
    given = np.ascontiguousarray(arrays["pending.context"], dtype=np.float64)
    if not np.isfinite(given).all():
        raise ValueError("pending context must be finite")
    lengths = arrays.get("pending.length")
    if lengths is None:
        if given.ndim != 2 or len(given) != count:
            raise ValueError(f"pending contexts must be {count} rows, got {given.shape}")
        return [row.copy() for row in given]
    sizes = np.asarray(lengths)
    if (
        sizes.shape != (count,)
        or sizes.dtype.kind not in "iu"
        or (sizes < 0).any()
        or sizes.sum() != given.size
    ):
        raise ValueError(f"pending lengths must be {count} counts that sum to {given.size}, got {sizes}")
    return [row.copy() for row in np.split(given.ravel(), np.cumsum(sizes)[:-1])] if count else []
