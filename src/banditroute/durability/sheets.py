"""What terms of one worker tell the others: notes on numbered sheets, of which only the last one still grows."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, NamedTuple

from banditroute.durability.rows import plain_bytes, read_plain
from banditroute.policies.base import LARGEST

__all__ = ["NOTES", "Sheets", "Told", "gathered", "resealed", "term_of", "told_rows"]

NOTES = "notes:"  # how names of such parts begin: number of the sheet and term follow
SHEET = 256  # notes on a sheet; a full one never travels again
MOST = 10_000  # notes that one worker tells of one term: the latest


class Told(NamedTuple):
    """A note on its way: the generation of its arm keeps it from a later arm of that name; time is the machines'.

    Examples
    --------
    >>> Told("u17", "math", 0, 1200.0, 1.7e9).generation
    0
    """

    key: str
    arm: str
    generation: int
    value: float
    time: float


class Sheets:
    """The latest notes of one worker on one term, in the order in which they were written.

    A sheet is published when it has changed, so that a round costs what is new. Notes that a later one has made
    pointless are struck out, and what is left of old sheets is written again once too many of them are half empty.

    Examples
    --------
    >>> sheets = Sheets("sessions")
    >>> sheets.write(Told("u17", "math", 0, 1200.0, 5.0))
    >>> sheets.write(Told("u17", "math", 0, 1500.0, 9.0))
    >>> sheets.versions, told_rows([list(told) for told in sheets.on("notes:0:sessions")])[0].value
    ({'notes:0:sessions': 2}, 1500.0)
    """

    def __init__(self, term: str) -> None:
        self.term = term
        self.versions: dict[str, int] = {}  # how often each sheet was written on, the oldest first
        self._sheets: dict[str, dict[tuple[str, str], Told]] = {}
        self._where: dict[tuple[str, str], str] = {}
        self._numbers = 0
        self._last = self._new()

    def __len__(self) -> int:
        """Return how many notes there are."""
        return len(self._where)

    def _new(self) -> str:
        self._last = f"{NOTES}{self._numbers}:{self.term}"
        self._numbers += 1
        self._sheets[self._last], self.versions[self._last] = {}, 0
        return self._last

    def on(self, sheet: str) -> list[Told]:
        """Return what stands on a sheet."""
        return list(self._sheets[sheet].values())

    def write(self, told: Told) -> None:
        """Write a note in the place of the one on the same key and arm; the oldest go beyond `MOST`."""
        self._write(told)
        while len(self._where) > MOST:
            self._drop(next(iter(self._sheets)))
        while len(self._sheets) > 2 * (MOST // SHEET + 1):
            for left in self._drop(next(iter(self._sheets))):
                self._write(left)

    def _write(self, told: Told) -> None:
        key = (told.key, told.arm)
        before = self._where.get(key)
        if before is not None:
            del self._sheets[before][key]
            if not self._sheets[before] and before != self._last:
                self._drop(before)
        if len(self._sheets[self._last]) >= SHEET:
            self._new()
        self._sheets[self._last][key] = told
        self.versions[self._last] += 1
        self._where[key] = self._last

    def _drop(self, sheet: str) -> list[Told]:
        left = self._sheets.pop(sheet)
        del self.versions[sheet]
        for key in left:
            del self._where[key]
        if sheet == self._last:
            self._new()
        return list(left.values())


def term_of(part: str) -> str:
    """Return the term that a sheet is about.

    Examples
    --------
    >>> term_of("notes:7:my:term"), term_of("notes:")
    ('my:term', '')
    """
    return part.split(":", 2)[-1]


def told_rows(plain: Any) -> list[Told]:
    """Return notes from plain data.

    Raises
    ------
    ValueError, TypeError
        They are none.

    Examples
    --------
    >>> told_rows([["u17", "math", 0, -1.0, 5.0]])
    Traceback (most recent call last):
    ValueError: a note must tell a number >= 0 of an arm at a time, got ['u17', 'math', 0, -1.0, 5.0]
    """
    told = []
    for row in plain:
        key, arm, generation, value, time = row
        good = isinstance(key, str) and isinstance(arm, str) and type(generation) is int and generation >= 0
        good = good and all(type(number) in (int, float) and isfinite(number) for number in (value, time))
        if not good or not 0.0 <= value <= LARGEST:
            raise ValueError(f"a note must tell a number >= 0 of an arm at a time, got {str(row)[:80]}")
        told.append(Told(key, arm, generation, float(value), float(time)))
    return told


def resealed(part: str, seq: int, data: bytes) -> bytes:
    """Return a sheet as read, as the part of this name and version.

    Examples
    --------
    >>> one = plain_bytes("notes:0:sessions", 3, [["u17", "math", 0, 1.0, 5.0]])
    >>> read_plain("notes:0:sessions", resealed("notes:0:sessions", 4, one), told_rows)[0]
    4
    """
    before, told = read_plain(part, data, told_rows)
    return data if before == seq else plain_bytes(part, seq, [list(one) for one in told])


def gathered(found: Iterable[Mapping[str, bytes]]) -> dict[str, bytes]:
    """Return the notes of several workers as the sheets of one: the latest of each key and arm, and at most `MOST`.

    Examples
    --------
    >>> one, two = ({"notes:0:s": plain_bytes("notes:0:s", 1, [["u", "a", 0, v, v]])} for v in (1.0, 2.0))
    >>> read_plain("notes:0:s", gathered([two, one])["notes:0:s"], told_rows)[1][0].value
    2.0
    """
    latest: dict[str, dict[tuple[str, str], Told]] = {}
    for parts in found:
        for part, data in parts.items():
            known = latest.setdefault(term_of(part), {})
            for told in read_plain(part, data, told_rows)[1]:
                before = known.get(told[:2])
                if before is None or told[::-1] > before[::-1]:
                    known[told[:2]] = told
    total: dict[str, bytes] = {}
    for term, known in latest.items():
        sheets = Sheets(term)
        for told in sorted(known.values(), key=lambda one: one[::-1]):
            sheets.write(told)
        total.update({s: plain_bytes(s, 0, [list(one) for one in sheets.on(s)]) for s in sheets.versions})
    return total
