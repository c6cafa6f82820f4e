"""What decisions keep, as arrays of a state: rows of one length in a matrix, others one after the other."""

import numpy as np

from banditroute._core.typing import Arrays, Floats

__all__ = ["unpacked"]


def unpacked(arrays: Arrays, count: int) -> list[Floats]:
    """Return the rows, each an array of its own: of a matrix, or of numbers and ``pending.length``.

    Raises
    ------
    ValueError
        They are not so many, or not finite.

    Examples
    --------
    >>> unpacked({"pending.context": np.ones(5), "pending.length": np.array([2, 3])}, 2)
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
