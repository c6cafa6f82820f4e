"""The columns of a trace gathered from batches of rows: which column of a file means what."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditroute.logs import cells as cell
from banditroute.logs import lists
from banditroute.logs.fields import BY_ARM, FIELDS, MARK, checksum

__all__ = ["Batch", "Builder", "Gathered"]

# What else these columns are called by those who write logs.
_ALIASES = {
    "arm": "arms model action actions chosen choice item item_id variant adapter model_name",
    "reward": "rewards score click clicks value label outcome rating feedback",
    "propensity": "propensities pscore prob probability p propensity_score action_prob",
    "context": "contexts x features embedding embeddings vector",
    "cost": "costs spend price usd total_cost",
    "time": "times timestamp ts datetime date starttime created_at",
    "id": "ids request_id event_id decision_id uuid eventid",
    "latency": "latencies latency_s duration seconds response_time",
    "hit": "hits cache_hit resident",
    "policy": "policies",
    "version": "versions",
    "eligible": "mask allowed available",
}
MEANING = {alias: field for field, aliases in _ALIASES.items() for alias in aliases.split()}
_MOST_NAMED = 100  # columns in one message


class Batch(NamedTuple):
    """Some rows of a file: cells by title.

    Examples
    --------
    >>> Batch({"arm": ["a"]}, 1).rows
    1
    """

    cells: Mapping[str, cell.Cells]
    rows: int


class Gathered(NamedTuple):
    """What a file held: arguments of a trace, and what is to be said of it.

    Examples
    --------
    >>> Gathered({"names": ("a",)}, ()).notes
    ()
    """

    values: dict[str, Any]
    notes: tuple[str, ...]
    declared: bool = True  # all arms and their order were given, not only those that occur


class _Rule(NamedTuple):
    """How a field is read from one column, and from several columns of parts."""

    whole: cell.Parse
    part: cell.Parse | None = None


class _Slot:
    """Where a field, or one part of it, comes from, and the values so far."""

    def __init__(self, title: str, label: str | None, order: int, parse: cell.Parse) -> None:
        self.title, self.label, self.order, self.parse = title, label, order, parse
        self.chunks: list[NDArray[Any]] = []

    def add(self, cells: cell.Cells, first: int) -> None:
        found = self.parse(self.title, cells, first)
        if self.chunks and found.shape[1:] != self.chunks[0].shape[1:]:
            raise ValueError(
                f"column {self.title!r}: must hold lists of one length, got {_width(self.chunks[0])} in row 0 and "
                f"{_width(found)} in row {first}"
            )
        self.chunks.append(found)

    def values(self) -> NDArray[Any]:
        if not self.chunks:
            return self.parse(self.title, [], 0)
        return self.chunks[0] if len(self.chunks) == 1 else np.concatenate(self.chunks)


def _ordered(slots: list[_Slot]) -> list[_Slot]:
    """Return parts in the order of the titles given, then by number; named ones in the order of the file."""
    numbered = all((slot.label or "").isdecimal() for slot in slots)
    return sorted(slots, key=lambda slot: (slot.order, int(slot.label or "") if numbered else 0))


def _width(array: NDArray[Any]) -> str:
    return f"{array.shape[1]} numbers" if array.ndim == 2 else "names"


class Builder:
    """Gathers batches of rows, keeping numbers only, and tells which columns it did not use.

    Parameters
    ----------
    wanted : mapping of str to str or list of str, optional
        Titles by field where they are not the fields' own; ``*`` stands for any text. Several columns make a vector,
        or, where a field has a value per arm, name the arms by what the star stands for.
    header : mapping, optional
        Of a file of ours.
    also : mapping of str to parser, optional
        Fields that a trace does not have.
    strict : bool
        Every column that is wanted must be there; otherwise those that a trace needs.

    Examples
    --------
    >>> builder = Builder({"arm": "model"})
    >>> builder.add(["model", "reward"], lambda used: Batch({"model": ["b", "a"], "reward": ["1", "0"]}, 2))
    >>> found = builder.gathered().values
    >>> found["names"], found["arms"], found["rewards"]
    (('a', 'b'), array([1, 0]), array([1., 0.]))
    """

    def __init__(
        self,
        wanted: Mapping[str, str | Sequence[str] | None] | None = None,
        header: Mapping[str, Any] | None = None,
        also: Mapping[str, cell.Parse] | None = None,
        strict: bool = True,
    ) -> None:
        self.header, self.strict = header, strict
        self.arms = cell.Words(None if header is None else header["names"])
        self.policies = cell.Words(None if header is None else header["policies"])
        self._rules = _rules(self.arms, self.policies, also or {})
        self._wanted = {
            field: [given] if isinstance(given, str) else [str(one) for one in given]
            for field, given in (wanted or {}).items()
            if given is not None
        }
        self._patterns = {
            field: self._wanted.get(field, [field, f"{field}:*"] if rule.part else [field])
            for field, rule in self._rules.items()
        }
        unknown = next((field for field in self._wanted if field not in self._rules), None)
        if unknown is not None:
            raise ValueError(f"a column must be given for one of {', '.join(self._rules)}, got {unknown!r}")
        self._fields: dict[str, list[_Slot]] = {}
        self._seen: dict[str, bool] = {}  # titles, and whether they are used
        self.rows = 0

    def add(self, titles: Iterable[str], cells: Callable[[list[str]], Batch]) -> None:
        """Take some rows: `cells` is called with those of the titles that are used."""
        titles = list(titles)
        self._meet(titles)
        batch = cells([title for title in titles if self._seen[title]])
        first, self.rows = self.rows, self.rows + batch.rows
        for slot in (slot for slots in self._fields.values() for slot in slots if batch.rows):
            if first and not slot.chunks:
                slot.add([None] * first, 0)  # rows before the first that has it
            slot.add(batch.cells.get(slot.title, [None] * batch.rows), first)

    def _meet(self, titles: list[str]) -> None:
        for title in titles:
            if title not in self._seen:
                slots = list(self._slots(title))
                self._seen[title] = bool(slots)
                for field, slot in slots:
                    self._fields.setdefault(field, []).append(slot)

    def _slots(self, title: str) -> Iterator[tuple[str, _Slot]]:
        for field, rule in self._rules.items():
            patterns = self._patterns[field]
            listed = field in self._wanted and len(patterns) > 1
            for order, pattern in enumerate(patterns):
                label = _label(pattern, title)
                if label is None:
                    continue
                if label == "" and listed:
                    label = title
                if label and rule.part is None:
                    raise ValueError(f"column {title!r}: {field} must be one column, got {pattern!r}")
                yield (
                    field,
                    _Slot(title, label or None, order, rule.part if label and rule.part else rule.whole),
                )
                break

    def gathered(self, required: Sequence[str] = ("arm", "reward")) -> Gathered:
        """Return the arguments of a trace, and a note of the columns that were not used."""
        self._check(required)
        values: dict[str, Any] = {}
        for name, field in FIELDS.items():
            if field in self._fields and name not in BY_ARM:
                values[name] = self._joined(field)
        names = self._names(values)
        for name in BY_ARM:
            if name in self._fields:
                values[name] = self._placed(name, names)
        if not self.rows and "contexts" in values:
            values["contexts"] = np.zeros((0, self._width(values["contexts"])))
        values |= {"names": tuple(names), "policies": tuple(self.policies.names) or ("",)}
        self._verify(values)
        return Gathered(values, self._notes(), self.header is not None or self.arms.declared)

    def _width(self, contexts: NDArray[Any]) -> int:
        """Return the length of the contexts of a file without rows."""
        given = (self.header or {}).get("dim", contexts.shape[1] if contexts.ndim == 2 else 0)
        return given if type(given) is int and 0 <= given < 1 << 20 else 0

    def extra(self, field: str) -> NDArray[Any] | None:
        """Return the values of a field that a trace does not have, None where no column has it."""
        return self._joined(field) if field in self._fields else None

    def parts(self, field: str) -> dict[str, NDArray[Any]]:
        """Return the columns of a field of several, by what the star stood for."""
        return {slot.label or slot.title: slot.values() for slot in _ordered(self._fields.get(field, []))}

    def _check(self, required: Sequence[str]) -> None:
        held = list(self._seen)
        for field, patterns in self._wanted.items():
            absent = [p for p in patterns if not any(_label(p, title) is not None for title in held)]
            if absent and self.strict:
                raise ValueError(f"it has no column {absent[0]!r}{_near(absent[0], held)}")
            if field not in self._fields and field in required:
                raise ValueError(f"it must have a column for {field}, got {_listed(held)}")
        for field in required:
            if field not in self._fields:
                raise ValueError(
                    f"it must have a column {field!r}, got {_listed(held) or 'none'}{_way_out(field, held)}"
                )

    def _joined(self, field: str) -> NDArray[Any]:
        slots = self._fields[field]
        if len(slots) > 1 and any(slot.label is None for slot in slots):
            titles = [slot.title for slot in slots]
            raise ValueError(f"{field} must be one column or several parts, got {_listed(titles)}")
        if slots[0].label is None:
            return slots[0].values()
        numbered = all(
            (slot.label or "").isdecimal() for slot in slots
        )  # named ones: in the order of the file
        slots = sorted(slots, key=lambda slot: (slot.order, int(slot.label or "") if numbered else 0))
        return np.stack([slot.values() for slot in slots], axis=1)

    def _names(self, values: dict[str, Any]) -> list[str]:
        """Return the names of the arms in order, and put the column of arms and policies into it."""
        if self.header is not None:
            return self.arms.names
        parted = [s.label for name in BY_ARM for s in self._fields.get(name, []) if s.label is not None]
        found = list(dict.fromkeys([*parted, *self.arms.names]))
        if not found and "arms" in values:
            raise ValueError("it must hold a row, got titles alone")
        found = self.arms.names if self.arms.declared else cell.sorted_names(found)
        listed = [
            s.chunks[0] for n in BY_ARM for s in self._fields.get(n, []) if s.label is None and s.chunks
        ]
        width = max((array.shape[1] for array in listed if array.ndim == 2), default=0)
        if width and all(name.isdecimal() and int(name) < width for name in found):
            found = [str(i) for i in range(width)]  # lists by position, and arms by number
        elif width:
            raise ValueError(
                f"lists of values per arm must name the arms {found}: by objects, or one column per arm"
            )
        for name, words, order in (("arms", self.arms, found), ("policy", self.policies, None)):
            if name in values:
                order = cell.sorted_names(words.names) if order is None else order
                place = {word: i for i, word in enumerate(order)}
                lookup = np.array([place[word] for word in words.names], dtype=np.int64)
                values[name] = lookup[values[name]] if lookup.size else values[name]
                words.place = place
        return found

    def _placed(self, name: str, names: list[str]) -> NDArray[Any]:
        slots = self._fields[name]
        if slots[0].label is not None:
            own = {slot.label: slot for slot in slots}
            if own.keys() != set(names):
                raise ValueError(f"its columns {name}: must be those of the arms {names}, got {list(own)}")
            table = np.stack([own[one].values() for one in names], axis=1)
        else:
            table = slots[0].values()
            if table.dtype == object:
                table = _by_name(slots[0].title, table, names)
        if name == "eligible" and table.dtype != np.bool_:
            odd = np.argwhere((table != 0.0) & (table != 1.0))
            if odd.size:
                raise cell.refusal(slots[0].title, "must be 0 or 1", table[tuple(odd[0])], int(odd[0][0]))
            table = table.astype(np.bool_)
        return table.reshape(self.rows, len(names)) if not self.rows else table

    def _verify(self, values: Mapping[str, Any]) -> None:
        if self.header is None or "checksum" not in self.header:
            return
        columns = {name: values[name] for name in FIELDS if name in values}
        if checksum(values["names"], values["policies"], columns) != self.header["checksum"]:
            raise ValueError(
                "its content is not what was written: it is damaged, or was edited; without the line or the "
                f"metadata '{MARK}' it is read as a file from elsewhere"
            )

    def _notes(self) -> tuple[str, ...]:
        left = [title for title, used in self._seen.items() if not used]
        taken = set(self._fields)
        said = []
        for title in left[:_MOST_NAMED]:
            meant = _meaning(title)
            shown = f"`{title}`" if title.strip() else "a column without a title"
            said.append(shown + (f" (did you mean {meant}?)" if meant and meant not in taken else ""))
        if not said:
            return ()
        more = f" and {len(left) - _MOST_NAMED:,} more" if len(left) > _MOST_NAMED else ""
        return (f"not used: {', '.join(said)}{more}",)


def _rules(arms: cell.Words, policies: cell.Words, also: Mapping[str, cell.Parse]) -> dict[str, _Rule]:
    return {
        "arm": _Rule(arms.encode),
        "policy": _Rule(policies.encode),
        "reward": _Rule(cell.numbers),
        "propensity": _Rule(cell.numbers),
        "cost": _Rule(cell.numbers),
        "latency": _Rule(cell.numbers),
        "time": _Rule(cell.times),
        "id": _Rule(cell.ids),
        "version": _Rule(cell.counts),
        "hit": _Rule(cell.truths),
        "context": _Rule(_described(lists.vectors), _described(cell.present_numbers)),
        "candidate_features": _Rule(lists.vectors, cell.present_numbers),
        "eligible": _Rule(lists.by_arm, cell.truths),
        "prices": _Rule(lists.by_arm, cell.present_numbers),
        "fault_prices": _Rule(lists.by_arm, cell.present_numbers),
        **{field: _Rule(parse, parse) for field, parse in also.items()},
    }


def _described(parse: cell.Parse) -> cell.Parse:
    """Return a parser of contexts, whose refusals say what to do about words."""

    def read(title: str, cells: cell.Cells, first: int = 0) -> NDArray[Any]:
        try:
            return parse(title, cells, first)
        except ValueError as error:
            raise ValueError(
                f"{error}; texts, categories and numbers with gaps become contexts by banditroute.features, "
                "--features in a command"
            ) from None

    return read


def _meaning(title: str) -> str | None:
    """Return the field that a title may mean, or None."""
    plain = title.strip().lower()
    known = MEANING.get(plain) or MEANING.get(plain.removesuffix("_id").removesuffix("_name"))
    if known is None:
        near = get_close_matches(plain, [*FIELDS.values(), *FIELDS], 1, 0.8)
        known = near[0] if near else None
    return FIELDS.get(known or "", known)


def _way_out(field: str, held: list[str]) -> str:
    """Return how to say which column holds a field that a trace needs."""
    hint = next((title for title in held if _meaning(title) == field), None)
    if hint is not None:
        return f"; is it {hint!r}? Say {field}={hint!r}, --{field} {hint} in a command"
    if any(title.endswith("|total_cost") for title in held):
        return (
            "; a table of scores as RouterBench's is read by Scores.read, --layout routerbench in a command"
        )
    wide = (
        "; where every row has the scores of all arms, Scores.read or --reward of several columns"
        if held
        else ""
    )
    return f"; {field}= says which it is, --{field} in a command{wide}"


def _label(pattern: str, title: str) -> str | None:
    """Return what the star stands for, "" for a title without one, None where the title does not match."""
    if "*" not in pattern:
        return "" if title == pattern else None
    before, _, after = pattern.partition("*")
    fits = len(title) > len(before) + len(after) and title.startswith(before) and title.endswith(after)
    return title[len(before) : len(title) - len(after)] if fits else None


def _by_name(title: str, cells: NDArray[Any], names: list[str]) -> NDArray[Any]:
    """Return a table of lists of names, or of objects by name."""
    place = {name: i for i, name in enumerate(names)}
    table = np.zeros((len(cells), len(names)))
    for i, one in enumerate(cells):
        if not set(one) <= place.keys():
            raise cell.refusal(title, f"must name arms of {names}", one, i)
        if isinstance(one, dict):
            if len(one) < len(names):
                raise cell.refusal(title, f"must have a value for every arm of {names}", one, i)
            table[i, [place[key] for key in one]] = cell.present_numbers(title, list(one.values()), i)
        else:
            table[i, [place[key] for key in one]] = 1.0
    return table


def _near(wanted: str, held: list[str]) -> str:
    close = get_close_matches(wanted, held, 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; it has {_listed(held)}"


def _listed(titles: Sequence[str]) -> str:
    shown = ", ".join(map(repr, titles[:_MOST_NAMED]))
    return shown + (f" and {len(titles) - _MOST_NAMED:,} more" if len(titles) > _MOST_NAMED else "")
