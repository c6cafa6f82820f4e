"""Border checks: each returns the normalised value or raises with argument, rule and value received."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core.typing import Floats

__all__ = ["entry", "finite", "generator", "integer", "matrix", "names", "non_negative", "unit", "vector"]

LARGEST_FLOAT = float(np.finfo(np.float64).max)
LONGEST_S = 1e9  # a thread cannot wait for more than 9.2e9 seconds at a time


def shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) > 1 << 1000:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers that are longer still
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def _number(name: str, value: Any) -> float:
    """Return ``value`` as a float; a truth value, a text or a complex number is none, in numpy's types either."""
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError(f"{name} must be a finite number, got an array of shape {value.shape}")
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    try:
        if isinstance(value, bool | str | bytes | bytearray | memoryview) or kind in "bcmMOSU":
            raise TypeError
        return float(value)
    except OverflowError as error:  # an integer beyond the range of a float
        raise ValueError(f"{name} must be a finite number, got {shown(value)}") from error
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a finite number, got {shown(value)}") from error


def finite(
    name: str, value: Any, *, low: float = -np.inf, high: float = np.inf, open_low: bool = False
) -> float:
    """Return ``value`` as a finite float inside ``[low, high]`` (``(low, high]`` with `open_low`).

    >>> finite("alpha", 1, low=0)
    1.0
    >>> finite("alpha", float("nan"))
    Traceback (most recent call last):
    ValueError: alpha must be a finite number, got nan
    """
    number = value if type(value) is float else _number(name, value)
    if not np.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {shown(value)}")
    if number < low or number > high or (open_low and number == low):
        bounds = f"{'(' if open_low else '['}{low:g}, {high:g}]"
        raise ValueError(f"{name} must be in {bounds}, got {shown(value)}")
    return number


def unit(name: str, value: Any) -> float:
    """Return ``value`` as a float inside ``[0, 1]``."""
    return finite(name, value, low=0.0, high=1.0)


def integer(name: str, value: Any, *, low: int = 0, high: int | None = None) -> int:
    """Return ``value`` as an int of at least `low` (and at most `high`).

    >>> integer("dim", 3, low=1)
    3
    >>> integer("dim", 2.5, low=1)
    Traceback (most recent call last):
    TypeError: dim must be an integer, got 2.5
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    number = int(value)
    if number < low or (high is not None and number > high):
        rule = f">= {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be {rule}, got {shown(number)}")
    return number


def _floats(name: str, value: Any) -> Floats:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be an array of real numbers, got {shown(value)}") from error
    if array.dtype.kind == "O" and all(type(item) in (int, float) for item in array.flat):
        for item in array.flat:  # integers that numpy has no type for
            _number(name, item)
        array = array.astype(np.float64)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    array = np.ascontiguousarray(array, dtype=np.float64)
    return array if array.flags.aligned else array.copy()


def vector(name: str, value: ArrayLike, size: int, *, limit: float = LARGEST_FLOAT) -> Floats:
    """Return ``value`` as a finite float64 vector of length `size` that kernels take: contiguous, writeable.

    It is the caller's own array where that will do, so nobody may write into it.

    >>> vector("x", [1, 2], 2)
    array([1., 2.])
    >>> vector("x", [1, 2], 3)
    Traceback (most recent call last):
    ValueError: x must have shape (3,), got (2,)
    """
    array = _floats(name, value)
    if array.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), got {np.shape(value)}")
    if not np.abs(array).max(initial=0.0) <= limit:  # also NaN and infinity
        at = int(np.flatnonzero(~(np.abs(array) <= limit))[0])
        rule = "finite" if limit == LARGEST_FLOAT else f"in [-{limit:g}, {limit:g}]"
        raise ValueError(f"{name} must be {rule}, got {array[at]} at index {at}")
    return array if array.flags.carray else array.copy()


def non_negative(
    name: str,
    value: ArrayLike,
    size: int | None = None,
    *,
    limit: float = LARGEST_FLOAT,
    open_low: bool = False,
) -> Floats:
    """Return ``value`` as a vector of numbers >= 0 (> 0 with `open_low`); without `size` of any length but 0.

    >>> non_negative("costs", [0, 2])
    array([0., 2.])
    >>> non_negative("costs", [0, -2])
    Traceback (most recent call last):
    ValueError: costs must be >= 0, got -2.0 at index 1
    """
    array = vector(name, value, np.size(value) if size is None else size, limit=limit)
    if size is None and not len(array):
        raise ValueError(f"{name} must hold at least one number, got {shown(value)}")
    bad = array <= 0.0 if open_low else array < 0.0
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise ValueError(f"{name} must be {'> 0' if open_low else '>= 0'}, got {array[at]} at index {at}")
    return array


def matrix(name: str, value: ArrayLike, columns: int | None = None, rows: int | None = None) -> Floats:
    """Return ``value`` as a finite, contiguous float64 matrix with the given numbers of rows and columns.

    >>> matrix("contexts", [[1, 2]], columns=2).shape
    (1, 2)
    """
    array = _floats(name, value)
    if array.ndim != 2 or (columns not in (None, array.shape[1])) or (rows not in (None, array.shape[0])):
        wanted = f"({'n' if rows is None else rows}, {'d' if columns is None else columns})"
        raise ValueError(f"{name} must have shape {wanted}, got {np.shape(value)}")
    if not np.isfinite(array).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} must be finite, got {array[row, column]} at [{row}, {column}]")
    return array


def entry(name: str, given: Mapping[str, Any], key: str) -> Any:
    """Return ``given[key]``: what lacks it does not fit, which is no error of the mapping.

    >>> entry("header", {"dim": 3}, "policy")
    Traceback (most recent call last):
    ValueError: header must have 'policy', got ['dim']
    """
    if key not in given:
        raise ValueError(f"{name} must have {key!r}, got {shown(sorted(given))}")
    return given[key]


def generator(name: str, like: np.random.Generator, state: Any) -> np.random.Generator:
    """Return a new generator of the kind of `like` in the given state."""
    new = np.random.Generator(type(like.bit_generator)())
    try:
        new.bit_generator.state = state
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{name} must be the state of a generator, got {shown(state)}") from error
    return new


def names(name: str, value: int | Iterable[str]) -> tuple[str, ...]:
    """Return arm names: the given distinct strings, or "0" .. "k-1" for a count k.

    >>> names("arms", 2)
    ('0', '1')
    >>> names("arms", ["a", "a"])
    Traceback (most recent call last):
    ValueError: arms must be distinct, got 'a' twice
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return tuple(str(i) for i in range(integer(name, value, low=1)))
    if isinstance(value, str | bool) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a count or a sequence of strings, got {shown(value)}")
    given = tuple(value)
    for item in given:
        if not isinstance(item, str):
            raise TypeError(f"{name} must hold strings, got {shown(item)}")
    if not given:
        raise ValueError(f"{name} must not be empty")
    seen = set()
    for item in given:
        if not item or item in seen:
            rule = "distinct" if item else "non-empty"
            raise ValueError(f"{name} must be {rule}, got {shown(item)}{' twice' if item else ''}")
        seen.add(item)
    return given
