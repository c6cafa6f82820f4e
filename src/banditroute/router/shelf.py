"""Entries by id in the order they came, which cost the collector of garbage nothing and a picture of them little."""

from array import array
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Page", "Picture", "Shelf"]

BITS = 9
SIZE = 1 << BITS  # entries on a page
LAST = SIZE - 1
TIDIED = 4  # pages that are looked at when one is full

Objects = NDArray[np.object_]


class Page(NamedTuple):
    """A page as it was: its ids, its entries (None where one has gone since it came), and how many there were."""

    ids: "array[int]"
    entries: Objects
    stop: int


class Picture:
    """What a shelf held at one moment; the shelf tells it of a page before that changes.

    Examples
    --------
    >>> shelf = Shelf()
    >>> shelf.put(7, ("math",)), shelf.put(9, ("law",))
    (1, 2)
    >>> picture = shelf.picture()
    >>> shelf.pop(7)
    ('math',)
    >>> list(picture.rows(10)), dict(shelf)
    ([[(7, ('math',)), (9, ('law',))]], {9: ('law',)})
    """

    __slots__ = ("_left", "_pages", "count")

    def __init__(self, pages: dict[int, Page], count: int) -> None:
        self._pages, self._left, self.count = pages, set(pages), count

    def keep(self, number: int) -> None:
        """Copy a page that is about to change, unless that was done, or it was read, or is newer."""
        if number in self._left:
            self._left.discard(number)
            page = self._pages[number]
            self._pages[number] = page._replace(entries=page.entries.copy())

    def rows(self, most: int) -> Iterator[list[tuple[int, Any]]]:
        """Yield what there was, in order, of at most so many places at once."""
        for number in list(self._pages):
            stop = self._pages[number].stop
            for at in range(0, stop, most):
                until = min(at + most, stop)
                page = self._pages[number]
                pairs = zip(page.ids[at:until], page.entries[at:until].tolist(), strict=True)
                rows = [pair for pair in pairs if pair[1] is not None]
                if rows:
                    yield rows
            self._left.discard(number)
            del self._pages[number]


class Shelf(Mapping[int, Any]):
    """Entries by id in the order they came, the oldest first, on pages that the collector of garbage does not look at.

    A dictionary of 100,000 tuples takes a full collection 5 ms, an ``OrderedDict`` more, and finding the oldest entry
    of a dictionary scans the gaps that older ones left. A dictionary of numbers is not looked at, nor is an array of
    objects: so the one tells the place of an entry in the other. Entries are plain data and not None; one that leads
    back here would never be freed. `put`, `get` and `pop` are O(1) amortised. ``places`` tells whether an id is there
    and how many are; the ledger of a Router does in line what `put` and `pop` do, on the path of a request.

    Examples
    --------
    >>> shelf = Shelf()
    >>> shelf.put(7, ("math",)), shelf.put(9, ("law",)), shelf.oldest(), shelf.pop(7), shelf.oldest()
    (1, 2, 7, ('math',), 9)
    """

    __slots__ = ("_first", "_next", "_written", "base", "here", "ids", "pages", "pictures", "places")

    def __init__(self) -> None:
        self.places: dict[int, int] = {}  # number of the page and place on it, as one number
        self.pages: dict[int, Objects] = {}
        self._written: dict[int, array[int]] = {}  # the ids on each page
        self._first = self._next = 0  # the place where the oldest may be; the page that is tidied next
        self.pictures: list[Picture] = []
        self._begin(0)

    def _begin(self, number: int) -> None:
        """Begin a page."""
        self.base, self.ids, self.here = number << BITS, array("Q"), np.full(SIZE, None, dtype=object)
        self.pages[number], self._written[number] = self.here, self.ids

    def __repr__(self) -> str:
        """Show ids and entries."""
        return f"Shelf({dict(self)})"

    def put(self, key: int, entry: Any) -> int:
        """Add an entry under a new id; returns how many there are."""
        ids, places = self.ids, self.places
        at = len(ids)
        ids.append(key)
        self.here[at] = entry
        places[key] = self.base + at
        if at == LAST:
            self.turn()
        return len(places)

    def turn(self) -> None:
        """Begin a new page: the last one is full."""
        self._begin((self.base >> BITS) + 1)
        if len(self.pages) > 2 * (len(self.places) >> BITS) + 4 and not self.pictures:
            self._tidy()

    def get(self, key: int, default: Any = None) -> Any:
        """Return an entry, or the default where there is none."""
        at = self.places.get(key)
        return default if at is None else self.pages[at >> BITS][at & LAST]

    def pop(self, key: int) -> Any:
        """Take an entry off and return it; ``KeyError`` where there is none."""
        at = self.places.pop(key)
        if self.pictures:
            self.keep(at >> BITS)
        page = self.pages[at >> BITS]
        at &= LAST
        entry = page[at]
        page[at] = None
        return entry

    def change(self, key: int, entry: Any) -> None:
        """Put another entry in the place of one."""
        at = self.places[key]
        self.keep(at >> BITS)
        self.pages[at >> BITS][at & LAST] = entry

    def oldest(self, steps: int = -1) -> int | None:
        """Return the id of the oldest entry; None where there is none, or it is not among so many places."""
        pages, first, end = self.pages, self._first, self.base + len(self.ids)
        while first < end and steps:
            page = pages.get(first >> BITS)
            if page is None:  # tidied away
                first = ((first >> BITS) + 1) << BITS
                continue
            at = first & LAST
            if page[at] is not None:
                self._first = first
                return self._written[first >> BITS][at]
            steps -= 1
            first += 1
            if not first & LAST:  # nothing on it any more
                del pages[(first >> BITS) - 1], self._written[(first >> BITS) - 1]
        self._first = first
        return None

    def picture(self) -> Picture:
        """Return what is here now, to be read bit by bit; give it back to `end`."""
        pages = {n: Page(self._written[n], page, len(self._written[n])) for n, page in self.pages.items()}
        picture = Picture(pages, len(self.places))
        self.pictures.append(picture)
        return picture

    def end(self, picture: Picture) -> None:
        """Tell a picture nothing any more."""
        if picture in self.pictures:
            self.pictures.remove(picture)

    def keep(self, number: int) -> None:
        """Tell the pictures that a page is about to change."""
        for picture in self.pictures:
            picture.keep(number)

    def _tidy(self) -> None:
        """Bring what is on neighbouring pages together where there is room: a few, in turn."""
        last = self.base >> BITS  # the one that is being written
        numbers = [n for n in self.pages if self._next <= n < last][: TIDIED + 1]
        self._next = numbers[-1] if len(numbers) > TIDIED else 0
        target, kept = -1, list[tuple[int, Any]]()
        for number in numbers:
            pairs = zip(self._written[number], self.pages[number].tolist(), strict=False)
            rows = [pair for pair in pairs if pair[1] is not None]
            if target >= 0 and len(kept) + len(rows) <= SIZE:
                kept += rows
                del self.pages[number], self._written[number]
                self._write(target, kept)
            else:
                target, kept = number, rows

    def _write(self, number: int, rows: list[tuple[int, Any]]) -> None:
        """Write a page anew."""
        ids, page = array("Q"), np.full(SIZE, None, dtype=object)
        for at, (key, entry) in enumerate(rows):
            ids.append(key)
            page[at] = entry
            self.places[key] = (number << BITS) + at
        self.pages[number], self._written[number] = page, ids
        self._first = min(self._first, number << BITS)

    def __getitem__(self, key: int) -> Any:
        at = self.places[key]
        return self.pages[at >> BITS][at & LAST]

    def __contains__(self, key: object) -> bool:
        return key in self.places

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[int]:
        return iter(self.places)

    def __reversed__(self) -> Iterator[int]:
        return reversed(self.places)

    def copy(self) -> dict[int, Any]:
        """Return all of it as a dictionary."""
        return dict(self)
