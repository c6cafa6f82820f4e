"""Contexts out of columns of any kind, as ``--features`` names them."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from banditroute.features import Category, Embedding, Features, Fields, HashedText, Number
from banditroute.logs import Scores, Trace, files, lists
from banditroute.logs import cells as cell
from banditroute.logs.builder import Builder
from banditroute.logs.scores import score_columns

__all__ = ["Column", "column_of", "described"]

KINDS = ("number", "log", "category", "text", "embedding")
CATEGORIES = 30  # distinct texts at most where no kind is named
TEXT = 64  # numbers that a text is hashed into where none is named
Table = TypeVar("Table", Trace, Scores)


class Column(NamedTuple):
    """What one word of ``--features`` says: a column, or a pattern of several, a kind ("" to be seen) and a length.

    Examples
    --------
    >>> Column("prompt", "text", 32).kind
    'text'
    """

    title: str
    kind: str
    length: int | None


def column_of(text: str) -> Column:
    """Read ``COLUMN``, ``COLUMN=KIND`` or ``COLUMN=KIND:N``, for argparse.

    Examples
    --------
    >>> column_of("prompt=text:32"), column_of("tier")
    (Column(title='prompt', kind='text', length=32), Column(title='tier', kind='', length=None))
    """
    title, _, said = text.partition("=")
    kind, _, length = said.partition(":")
    if not title or kind not in ("", *KINDS) or (length and not (length.isdecimal() and int(length) > 0)):
        raise argparse.ArgumentTypeError(
            f"must be COLUMN, or COLUMN=KIND with KIND of {', '.join(KINDS)}, text:64 or embedding:16, got {text!r}"
        )
    if length and kind not in ("category", "text", "embedding"):
        raise argparse.ArgumentTypeError(f"a {kind or 'column'} has no length, got {text!r}")
    return Column(title, kind, int(length) if length else None)


def described(table: Table, path: Path, columns: Mapping[str, Any], wanted: Sequence[Column]) -> Table:
    r"""Return a trace or scores with contexts of the columns that are wanted, before those that it has, and a note.

    `columns` are titles by field, as the file was read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "log.csv")
    ...     _ = path.write_text("arm,reward,tier\na,1,gold\nb,0,free\n")
    ...     log = Trace(names=["a", "b"], arms=[0, 1], rewards=[1.0, 0.0])
    ...     described(log, path, {}, [Column("tier", "", None)]).contexts
    array([[0., 1.],
           [1., 0.]])
    """
    _check_known_before(columns, wanted)
    fields = {f"feature {i}": one for i, one in enumerate(wanted)}
    also: dict[str, cell.Parse] = {
        n: _vectors if one.kind == "embedding" else _raw for n, one in fields.items()
    }
    required: tuple[str, ...] = ("arm", "reward")
    if isinstance(table, Scores):
        columns, required = score_columns(path, **columns), ("score",)
        also |= dict.fromkeys(("score", "charge"), cell.present_numbers)

    def finish(builder: Builder) -> tuple[tuple[str, ...], dict[str, Any]]:
        return builder.gathered(required).notes, {name: builder.extra(name) for name in fields}

    titles = {name: one.title for name, one in fields.items()}
    found: tuple[tuple[str, ...], dict[str, Any]] = files.gather(
        path, {**columns, **titles}, finish=finish, also=also
    )
    cells = found[1]
    parts: dict[str, Features] = {}
    given: dict[str, Sequence[Any]] = {}
    said = []
    for name, one in fields.items():
        if one.title in parts:
            raise ValueError(f"--features must name a column once, got {one.title!r} twice")
        parts[one.title], given[one.title], words = _part(one, cells[name])
        said.append(f"`{one.title}` as {words}")
    rows = [dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)]
    own = Fields(parts)
    own = own if own.fitted else own.fit(rows)
    contexts = own.batch(rows)
    if table.contexts is not None:
        contexts = np.column_stack([contexts, table.contexts])
    note = f"contexts of {contexts.shape[1]} numbers: {', '.join(said)}"
    return replace(table, contexts=contexts, notes=(note, *found[0]))


def _check_known_before(columns: Mapping[str, Any], wanted: Sequence[Column]) -> None:
    """Refuse what nobody knows when a request comes: a rule that looks at its own reward is worth nothing."""
    for field in ("arm", "reward", "propensity", "cost"):
        own = columns.get(field, field)
        odd = next(
            (one.title for one in wanted if one.title in ([own] if isinstance(own, str) else own)), None
        )
        if odd is not None:
            raise ValueError(
                f"--features must be known before the decision, got {odd!r}, the column of {field}"
            )


def _raw(title: str, cells: cell.Cells, first: int = 0) -> NDArray[Any]:
    listed = cell.plain(cells)
    found = np.empty(len(listed), dtype=object)
    found[:] = listed
    return found


def _vectors(title: str, cells: cell.Cells, first: int = 0) -> NDArray[Any]:
    """Return lists as rows, or one column of several."""
    found = lists.vectors(title, cells, first)
    return found[:, 0] if found.shape[1] == 1 else found


def _part(column: Column, cells: NDArray[Any]) -> tuple[Features, Sequence[Any], str]:
    """Return a map, what it takes of every row, and what it is in words."""
    if column.kind == "embedding":
        rows = cells.reshape(len(cells), -1)
        kept = column.length
        words = f"vectors of {rows.shape[1]}" + (f", reduced to {kept} components" if kept else "")
        return Embedding(components=kept), list(rows), words
    if cells.ndim > 1:
        raise ValueError(f"--features {column.title!r} is several columns: say ={KINDS[-1]}, or --context")
    known = [one for one in cells.tolist() if not _absent(one)]
    kind = column.kind or _kind(known)
    if kind in ("number", "log"):
        try:
            numbers = [None if _absent(one) else cell.number(one) for one in cells.tolist()]
        except (ValueError, TypeError, OverflowError):
            odd = next(one for one in known if not _numeric(one))
            raise ValueError(f"--features {column.title}={kind} must hold numbers, got {odd!r}") from None
        return Number(log=kind == "log"), numbers, "a number" + (", its logarithm" if kind == "log" else "")
    texts = [None if _absent(one) else str(one) for one in cells.tolist()]
    if kind == "category":
        values = sorted({one for one in texts if one is not None})
        if column.length is not None:
            return Category(dim=column.length), texts, f"a category hashed into {column.length}"
        return Category(values), texts, f"one of {len(values)} categories"
    length = column.length or TEXT
    return HashedText(length), texts, f"a text hashed into {length}"


def _absent(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return cell.missing(value) or value != value


def _numeric(value: Any) -> bool:
    try:
        cell.number(value)
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def _kind(known: Sequence[Any]) -> str:
    """Return what cells look like: numbers, few distinct texts, or texts."""
    if all(map(_numeric, known)):
        return "number"
    return (
        "category" if len({str(one) for one in known}) <= min(CATEGORIES, max(len(known) // 2, 2)) else "text"
    )
