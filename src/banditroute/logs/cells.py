"""What a cell may hold: one parser for every format, so that readers agree on what they take."""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditroute._core.typing import Floats, Ints, Mask
from banditroute._core.validation import shown

__all__ = [
    "Cells",
    "Coded",
    "Parse",
    "Words",
    "counts",
    "each",
    "ids",
    "missing",
    "number",
    "numbers",
    "plain",
    "present_numbers",
    "refusal",
    "sorted_names",
    "times",
    "truths",
]

EXACT = 2.0**53  # a double from here on may stand for another whole number
_MISSING = {"", "na", "n/a", "nan", "nat", "<na>", "null", "none"}
_TRUTHS = {"true": True, "false": False, "1": True, "0": False}
_WHOLE = re.compile(r"([0-9]+)\.0+")
_HEXADECIMAL = re.compile(r"[0-9]{2,}e[0-9]+|[0-9]e[0-9]{4,}|[0-9]{21,}", re.I)  # and no double prints so
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class Coded(NamedTuple):
    """Cells as indices into the words that occur; ``declared`` where all arms and their order are meant.

    Examples
    --------
    >>> Coded(["a", "b"], np.array([1, 0])).words
    ['a', 'b']
    """

    words: Sequence[Any]
    codes: Ints
    declared: bool = False


Cells = Sequence[Any] | NDArray[Any] | Coded
# Title, cells and the number of the first row, for errors, to values.
Parse = Callable[[str, Any, int], NDArray[Any]]


def refusal(title: str, rule: str, cell: Any, row: int) -> ValueError:
    """Return the error that every reader raises of a cell."""
    return ValueError(f"column {title!r}: {rule}, got {shown(cell)} in row {row}")


def plain(cells: Any) -> list[Any]:
    """Return cells as plain objects."""
    if isinstance(cells, Coded):
        return [cells.words[code] if code >= 0 else None for code in cells.codes.tolist()]
    if isinstance(cells, np.ndarray):
        listed: list[Any] = cells.tolist() if cells.ndim == 1 else list(cells)
        return listed
    return list(cells)


def each(parse: Callable[[Any], Any], rule: str, title: str, cells: Any, first: int) -> list[Any]:
    """Return what `parse` makes of every cell; what it cannot take is refused with its row."""
    found = []
    for i, cell in enumerate(plain(cells)):
        try:
            found.append(parse(cell))
        except (ValueError, TypeError, OverflowError, ArithmeticError, RecursionError):
            raise refusal(title, rule, cell, first + i) from None
    return found


def missing(cell: Any) -> bool:
    """Tell whether a cell holds nothing."""
    return cell is None or type(cell).__name__ in ("NAType", "NaTType")


def number(cell: Any) -> float:
    """Return the number in a cell, NaN where there is none; raises where it holds something else."""
    if type(cell) is float:
        return cell
    if isinstance(cell, int | float | Decimal | np.number | np.bool_):
        return float(cell)
    if missing(cell):
        return np.nan
    if not isinstance(cell, str):
        raise TypeError
    text = cell.strip().lower()
    if text in _MISSING:
        return np.nan
    if text in _TRUTHS:
        return float(_TRUTHS[text])
    if "_" in text:  # Python's own way to write 10 as 1_0
        raise ValueError
    return float(text)


def numbers(title: str, cells: Cells, first: int = 0) -> Floats:
    """Return numbers, NaN where there is none.

    Examples
    --------
    >>> numbers("reward", ["1", "", "True", "0.5"])
    array([1. , nan, 1. , 0.5])
    >>> numbers("reward", ["1", "1_0"])
    Traceback (most recent call last):
    ValueError: column 'reward': must hold finite numbers, got '1_0' in row 1
    """
    rule = "must hold finite numbers"
    found = _quick(cells)
    if found is None:
        found = np.array(each(number, rule, title, cells, first), dtype=np.float64)
    odd = np.flatnonzero(np.isinf(found))
    if odd.size:
        raise refusal(title, rule, plain(cells)[odd[0]], first + int(odd[0]))
    return found


def _quick(cells: Cells) -> Floats | None:
    if isinstance(cells, np.ndarray):
        return cells.astype(np.float64) if cells.dtype.kind in "fiub" and cells.ndim == 1 else None
    if isinstance(cells, Coded):
        return None
    kinds = set(map(type, cells))
    try:
        if kinds <= {float, int, bool}:
            return np.array(cells, dtype=np.float64)
        if kinds == {str} and "_" not in "".join(map(str, cells)):
            return np.array(list(map(float, cells)))
    except (ValueError, OverflowError):
        pass
    return None


def present_numbers(title: str, cells: Cells, first: int = 0) -> Floats:
    """Return numbers; there must be one in every row.

    Examples
    --------
    >>> present_numbers("context:0", ["1", ""])
    Traceback (most recent call last):
    ValueError: column 'context:0': must have a value in every row, got '' in row 1
    """
    found = numbers(title, cells, first)
    odd = np.flatnonzero(np.isnan(found))
    if odd.size:
        raise refusal(title, "must have a value in every row", plain(cells)[odd[0]], first + int(odd[0]))
    return found


def times(title: str, cells: Cells, first: int = 0) -> Floats:
    """Return seconds since 1970: numbers are seconds, texts are numbers or ISO 8601, without a zone in UTC.

    Examples
    --------
    >>> times("time", ["1970-01-02", "1970-01-01T00:00:01.5Z", "7", None])
    array([8.64e+04, 1.50e+00, 7.00e+00,      nan])
    """
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
        moments = cells.astype("datetime64[us]")
        return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 1e6)
    found = _quick(cells)
    rule = "must hold seconds or times as in 2024-05-31T12:00:00Z"
    if found is None:
        found = np.array(each(_time, rule, title, cells, first), dtype=np.float64)
    odd = np.flatnonzero(np.isinf(found))
    if odd.size:
        raise refusal(title, rule, plain(cells)[odd[0]], first + int(odd[0]))
    return found


def _time(cell: Any) -> float:
    if isinstance(cell, np.datetime64):
        cell = cell.astype("datetime64[us]").item()
    if missing(cell):
        return np.nan
    if isinstance(cell, str):
        try:
            return number(cell)
        except ValueError:
            cell = datetime.fromisoformat(cell.strip())
    if isinstance(cell, datetime):
        return (cell if cell.tzinfo else cell.replace(tzinfo=UTC)).timestamp()
    if isinstance(cell, date):
        return datetime(cell.year, cell.month, cell.day, tzinfo=UTC).timestamp()
    return number(cell)


def ids(title: str, cells: Cells, first: int = 0) -> NDArray[np.uint64]:
    """Return ids to the digit: whole numbers below 2^64, as numbers or text; other names as 63 bits of their hash.

    Examples
    --------
    >>> ids("id", [3, "18446744073709551615"])
    array([                   3, 18446744073709551615], dtype=uint64)
    >>> ids("id", ["chatcmpl-1"]) == ids("id", ["chatcmpl-1"])
    array([ True])
    >>> ids("id", [3.7])
    Traceback (most recent call last):
    ValueError: column 'id': must hold whole numbers in [0, 2^64 - 1] that went through no double, got 3.7 in row 0
    """
    rule = "must hold whole numbers in [0, 2^64 - 1] that went through no double"
    return _whole(_id, rule, np.uint64, title, cells, first)


def counts(title: str, cells: Cells, first: int = 0) -> Ints:
    """Return whole numbers from 0 to 2^63 - 1, to the digit.

    Examples
    --------
    >>> counts("version", ["2.9"])
    Traceback (most recent call last):
    ValueError: column 'version': must hold whole numbers in [0, 2^63 - 1], got '2.9' in row 0
    """
    return _whole(_count, "must hold whole numbers in [0, 2^63 - 1]", np.int64, title, cells, first)


def _whole(parse: Any, rule: str, kind: Any, title: str, cells: Cells, first: int) -> NDArray[Any]:
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "iu":
        low, high = (int(cells.min()), int(cells.max())) if cells.size else (0, 0)
        if low >= 0 and high <= np.iinfo(kind).max:
            return cells.astype(kind)
    return np.array(each(parse, rule, title, cells, first), dtype=kind)


def _integer(cell: Any) -> int:
    if isinstance(cell, str):
        text = cell.strip()
        if len(text) > 20:
            raise ValueError
        whole = _WHOLE.fullmatch(text)
        if whole and int(whole[1]) < EXACT:
            return int(whole[1])
        if not (text.isascii() and text.isdecimal()):
            raise ValueError
        return int(text)
    if isinstance(cell, bool | np.bool_) or not isinstance(cell, int | float | Decimal | np.number):
        raise TypeError
    value = int(cell)
    if value != cell or value < 0 or (isinstance(cell, float | np.floating) and value >= EXACT):
        raise ValueError
    return value


def _count(cell: Any) -> int:
    value = _integer(cell)
    if value >= 1 << 63:
        raise ValueError
    return value


def _id(cell: Any) -> int:
    try:
        value = _integer(cell)
    except ValueError:
        if not isinstance(cell, str) or _like_a_number(cell):
            raise
        return int.from_bytes(blake2b(cell.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1
    if value >= 1 << 64:
        raise ValueError
    return value


def _like_a_number(text: str) -> bool:
    """Tell a damaged number, which is no id, from a name; hexadecimal names may look like 12e45 and 0012."""
    if text.strip().lower() in _MISSING:
        return True
    if _HEXADECIMAL.fullmatch(text):
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True


def truths(title: str, cells: Cells, first: int = 0) -> Mask:
    """Return truth values: true, false, 0 or 1, as such or as text.

    Examples
    --------
    >>> truths("hit", [True, "0", 1.0, "FALSE"])
    array([ True, False,  True, False])
    """
    if isinstance(cells, np.ndarray) and cells.dtype == np.bool_:
        return cells
    return np.array(each(_truth, "must be 0 or 1", title, cells, first), dtype=np.bool_)


def _truth(cell: Any) -> bool:
    if isinstance(cell, str):
        return _TRUTHS[cell.strip().lower()] if cell.strip().lower() in _TRUTHS else _truth(number(cell))
    if not isinstance(cell, int | float | np.number | np.bool_) or cell not in (0, 1):
        raise ValueError
    return bool(cell)


class Words:
    """Names met so far, by the order in which they came.

    Parameters
    ----------
    known : sequence of str, optional
        All that may occur; without it any may.

    Examples
    --------
    >>> words = Words()
    >>> words.encode("arm", ["b", 10, "b"]), words.names
    (array([0, 1, 0]), ['b', '10'])
    """

    def __init__(self, known: Sequence[str] | None = None) -> None:
        self.place = {name: i for i, name in enumerate(known or ())}
        self.closed = known is not None
        self.declared = False  # all of them and their order were given by the file

    @property
    def names(self) -> list[str]:
        """All names, by code."""
        return list(self.place)

    def encode(self, title: str, cells: Cells, first: int = 0) -> Ints:
        """Return the codes of cells."""
        if isinstance(cells, Coded):
            if cells.declared and not self.place:
                self.encode(title, cells.words, first)
                self.declared = True
            empty = np.flatnonzero(cells.codes < 0)
            if empty.size:
                raise refusal(title, "must hold names", None, first + int(empty[0]))
            beyond = np.flatnonzero(cells.codes >= len(cells.words))
            if beyond.size:
                raise refusal(
                    title, f"must be one of {len(cells.words)} names", int(cells.codes[beyond[0]]), first
                )
            used = np.flatnonzero(np.bincount(cells.codes, minlength=len(cells.words)))
            own = np.zeros(len(cells.words), dtype=np.int64)
            own[used] = self.encode(title, [cells.words[int(i)] for i in used], first)
            return own[cells.codes]
        listed, place = plain(cells), self.place
        if not set(map(type, listed)) <= {str, int}:
            at = next(i for i, cell in enumerate(listed) if type(cell) not in (str, int))
            number = (
                type(listed[at]) is float and listed[at].is_integer()
            )  # as pandas makes of whole ones with gaps
            rule = (
                "must hold names, texts or whole numbers (astype('int64'))" if number else "must hold names"
            )
            raise refusal(title, rule, listed[at], first + at)
        words = listed if set(map(type, listed)) <= {str} else list(map(str, listed))
        for word in dict.fromkeys(words):
            if word not in place:
                if not word:
                    raise refusal(title, "must hold names", word, first + words.index(word))
                if self.closed:
                    raise refusal(title, f"must be one of {self.names}", word, first + words.index(word))
                place[word] = len(place)
        return np.fromiter(map(place.__getitem__, words), dtype=np.int64, count=len(words))


def sorted_names(words: Iterable[str]) -> list[str]:
    """Return names in order: numbers as numbers, as 10.0 where a tool wrote a column of integers so, others as text.

    Examples
    --------
    >>> sorted_names(["10", "2"]), sorted_names(["10.0", "2.0"]), sorted_names(["10", "b", "2"])
    (['2', '10'], ['2.0', '10.0'], ['10', '2', 'b'])
    """
    words = sorted(words)
    return sorted(words, key=Decimal) if all(map(_NUMBER.fullmatch, words)) else words
