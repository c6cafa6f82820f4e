"""Arms and marks as all workers of one store know them: the last act on each wins."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from banditroute.records import ArmChange, Marked

__all__ = ["Entry", "Roster", "mark_key"]

LARGEST = 1 << 53


class Entry(NamedTuple):
    """What is known of one arm; ``stamp`` counts the acts on it.

    Stamp 0 is an arm of the code of some worker. An act is `add_arm`, `remove_arm`, muting or unmuting, and
    forgetting, on any worker. ``generation`` counts how often the arm was removed or forgotten.

    Examples
    --------
    >>> Entry(0, True, False, 0, 1.0, 0.0).here
    True
    """

    stamp: int
    here: bool
    muted: bool
    generation: int
    size: float
    fault: float


class Roster:
    """The arms and marks that one worker knows of, to be merged with those of others in any order, any number of times.

    Parameters
    ----------
    arms : mapping of str to int
        Arms of the code, with their generations.

    Examples
    --------
    >>> one, two = Roster({"a": 0}), Roster({"a": 0})
    >>> one.changed(ArmChange("added", "b", ("a", "b")), 0)
    >>> two.merge(one)
    >>> [(change.what, change.arm) for change in two.due(("a",))]
    [('added', 'b')]
    """

    def __init__(self, arms: Mapping[str, int] | None = None) -> None:
        self.entries = {a: Entry(0, True, False, g, 1.0, 0.0) for a, g in (arms or {}).items()}
        self.marks: dict[str, tuple[int, str, dict[str, Any]]] = {}
        self.version = 1
        self.declined: set[str] = set()  # arms of the code of others, which this worker's code does not list
        self._settled = False  # whether `declined` has been told

    # Acts of this worker.

    def changed(self, change: ArmChange, generation: int, *, own: bool = True) -> None:
        """See an act on an arm, after which it has this generation; of another worker its generation alone is new."""
        old = self.entries.get(change.arm, Entry(0, False, False, 0, 1.0, 0.0))
        new = old._replace(stamp=old.stamp + own, generation=max(old.generation, generation))
        if not own:
            pass
        elif change.what == "added":
            new = new._replace(here=True, muted=False, size=float(change.size), fault=float(change.fault))
        elif change.what == "removed":
            new = new._replace(here=False, muted=False)
        elif change.what in ("muted", "unmuted"):
            new = new._replace(muted=change.what == "muted")
        self.entries[change.arm] = new
        self.declined.discard(change.arm)
        self.version += 1

    def marked(self, mark: Marked) -> None:
        """See a term told something."""
        key = mark_key(mark)
        stamp = self.marks[key][0] + 1 if key in self.marks else 1
        self.marks[key] = (stamp, mark.term, dict(mark.details))
        self.version += 1

    def generation(self, arm: str) -> int:
        """Return the highest generation of an arm that anyone has seen."""
        entry = self.entries.get(arm)
        return 0 if entry is None else entry.generation

    # Acts of others.

    def merge(self, other: "Roster") -> None:
        """Take in what another worker knows: on each arm the last act wins, and the highest generation."""
        for arm, theirs in other.entries.items():
            mine = self.entries.get(arm)
            if mine == theirs:
                continue
            new = theirs if mine is None or theirs[:3] > mine[:3] else mine
            new = new._replace(generation=max(new.generation, theirs.generation))
            if new != mine:
                self.entries[arm] = new
                self.version += 1
        for key, theirs_mark in other.marks.items():
            mine_mark = self.marks.get(key)
            if mine_mark is None or _rank(theirs_mark) > _rank(mine_mark):
                self.marks[key] = theirs_mark
                self.version += 1

    def align(self, arms: Mapping[str, int]) -> None:
        """See the arms of the code, with their generations: what it lists no more is not taken over."""
        for arm, generation in arms.items():
            if arm not in self.entries:
                self.entries[arm] = Entry(0, True, False, generation, 1.0, 0.0)
                self.version += 1
        self.declined |= {arm for arm, entry in self.entries.items() if entry.here and arm not in arms}
        self.declined -= set(arms)

    def settle(self, arms: Iterable[str]) -> None:
        """See what others have when this worker joins: arms of their code alone are not taken over."""
        if not self._settled:
            self._settled = True
            mine = set(arms)
            self.declined = {a for a, e in self.entries.items() if e.stamp == 0 and e.here and a not in mine}

    def due(self, arms: tuple[str, ...], muted: Iterable[str] = ()) -> list[ArmChange]:
        """Return what must change for these arms to be those of the roster."""
        changes, now, shut = [], list(arms), set(muted)
        there = set(arms)  # those of `now`
        for arm, entry in self.entries.items():
            if entry.here and arm not in there and arm not in self.declined:
                now.append(arm)
                there.add(arm)
                changes.append(ArmChange("added", arm, tuple(now), entry.size, entry.fault))
            elif not entry.here and arm in there and len(now) > 1:
                now.remove(arm)
                there.discard(arm)
                changes.append(ArmChange("removed", arm, tuple(now)))
            if entry.here and arm in there and entry.muted != (arm in shut):
                changes.append(ArmChange("muted" if entry.muted else "unmuted", arm, tuple(now)))
        return changes

    # As plain data.

    def to_plain(self) -> dict[str, Any]:
        """Return arms and marks as JSON."""
        return {
            "arms": {arm: list(entry) for arm, entry in self.entries.items()},
            "marks": {key: list(mark) for key, mark in self.marks.items()},
        }

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> "Roster":
        """Return the roster that `to_plain` gave.

        Raises
        ------
        ValueError, TypeError, LookupError, AttributeError
            It gave none.
        """
        new = cls()
        for arm, (stamp, here, muted, generation, size, fault) in plain["arms"].items():
            if type(here) is not bool or type(muted) is not bool or not (size > 0.0 and 0.0 <= fault < 1e300):
                raise ValueError(f"arm must be an entry of a roster, got {arm!r}")
            new.entries[arm] = Entry(
                _count(stamp), here, muted, _count(generation), float(size), float(fault)
            )
        for key, (stamp, term, details) in plain["marks"].items():
            if not isinstance(term, str) or mark_key(Marked(term, details)) != key:
                raise ValueError(f"mark must be one of a roster, got {key!r}")
            new.marks[key] = (_count(stamp), term, dict(details))
        return new

    def to_state(self) -> dict[str, Any]:
        """Return everything needed to continue, as JSON."""
        return {**self.to_plain(), "declined": sorted(self.declined), "settled": self._settled}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> "Roster":
        """Return the roster that `to_state` gave."""
        new = cls.of_plain(state)
        new.declined, new._settled = set(map(str, state["declined"])), bool(state["settled"])
        return new


def mark_key(mark: Marked) -> str:
    """Return what a later mark of the same term and arm takes the place of.

    Examples
    --------
    >>> mark_key(Marked("health", {"arm": "a", "state": "up"})) == mark_key(Marked("health", {"arm": "a"}))
    True
    """
    return f"{mark.term}\0{mark.details.get('arm', '')}"


def _rank(mark: tuple[int, str, dict[str, Any]]) -> tuple[int, str]:
    return mark[0], json.dumps(mark[2], sort_keys=True)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < LARGEST:
        raise ValueError(f"a count must be in [0, 2^53), got {value!r}")
    return value
