"""The decisions that wait, kept so that the collector of garbage does not look at each of them."""

from collections.abc import Iterable, Iterator, Mapping
from gc import is_tracked
from itertools import chain, islice
from typing import Any

from banditroute._core.typing import Floats

__all__ = ["Entry", "Waiting"]

# A plain tuple with the fields of `Pending`: the collector of garbage stops looking at plain tuples of numbers, strings
# and arrays, and at 100,000 named tuples a full collection took 119 ms.
Entry = tuple[str, Floats, float, float, int, tuple[Any, ...] | None, Mapping[str, float] | None, str | None]

RECENT = 2048  # decisions before the first move; the collector has seen a decision by then, as 700 more are its cue
MOVED = 128  # decisions moved at once, some 15 us


class Recent(dict[int, Entry]):
    """The latest decisions: a dictionary that the collector of garbage looks at in its full rounds only.

    A plain one it takes off its lists when all in it is plain data; the next decision puts it back among the young,
    where each of the next two rounds, however short, goes through all of it.
    """

    __slots__ = ()


class Waiting:
    """Pending decisions by id, in order of time, in two dictionaries.

    Parameters
    ----------
    entries : iterable of (int, Entry)
        In order of time.

    Notes
    -----
    A collection goes through each dictionary that it tracks, entry by entry: 5 to 10 ms for 100,000. A plain dictionary
    is tracked from the first tracked value on. So decisions wait in ``recent`` until the collector has let go of them,
    and move on, in order, to ``older``, which it never comes to know. What holds an object that it must know stays in
    ``recent``, with all that came later. Writers use ``recent`` themselves: it is the request path.

    Examples
    --------
    >>> waiting = Waiting([(7, ("math", [1.0], 1.0, 0.0, 0, None, None, None))])
    >>> 7 in waiting, len(waiting), waiting.pop(7)[0], waiting.get(7)
    (True, 1, 'math', None)
    """

    __slots__ = ("limit", "older", "recent")

    def __init__(self, entries: Iterable[tuple[int, Entry]] = ()) -> None:
        self.recent, self.older = Recent(entries), dict[int, Entry]()
        self.limit = max(RECENT, len(self.recent))  # of `recent`, before some of it moves on

    def __repr__(self) -> str:
        """Show how many wait."""
        return f"Waiting({len(self)})"

    def __len__(self) -> int:
        return len(self.recent) + len(self.older)

    def __contains__(self, key: object) -> bool:
        return key in self.recent or key in self.older

    def __iter__(self) -> Iterator[int]:
        return chain(self.older, self.recent)

    def __getitem__(self, key: int) -> Entry:
        return self.recent[key] if key in self.recent else self.older[key]

    def get(self, key: int) -> Entry | None:
        """Return a decision, None where it does not wait."""
        return self.recent.get(key) or self.older.get(key)

    def items(self) -> Iterator[tuple[int, Entry]]:
        """Yield ids and decisions, oldest first."""
        return chain(self.older.items(), self.recent.items())

    def values(self) -> Iterator[Entry]:
        """Yield the decisions, oldest first."""
        return chain(self.older.values(), self.recent.values())

    def replace(self, key: int, entry: Entry) -> None:
        """Put another entry in the place of one that waits."""
        part = self.recent if key in self.recent else self.older
        part[key] = entry

    def pop(self, key: int) -> Entry:
        """Take a decision out; raises KeyError where it does not wait."""
        return self.recent.pop(key) if key in self.recent else self.older.pop(key)

    def move(self) -> None:
        """Move the first of ``recent`` on, as far as the collector has let go of them."""
        recent, older = self.recent, self.older
        for key, entry in list(islice(recent.items(), MOVED)):
            if is_tracked(entry):
                self.limit = 2 * len(recent)  # not again at every decision
                return
            del recent[key]
            older[key] = entry
        self.limit = max(RECENT, len(recent))
