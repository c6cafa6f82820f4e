"""Frames of pandas, polars and pyarrow, or a mapping of columns, read as files are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from banditroute.logs.builder import Batch, Builder
from banditroute.logs.cells import Cells, Coded
from banditroute.logs.fields import BY_ARM, FIELDS, Columns, present

__all__ = ["frame_of", "read_frame", "titles"]


def read_frame(
    frame: Any,
    wanted: Mapping[str, str | Sequence[str] | None],
    *,
    also: Mapping[str, Any] | None = None,
    strict: bool = True,
) -> Builder:
    """Gather the columns of a frame.

    Examples
    --------
    >>> read_frame({"arm": ["a"], "reward": [1.0]}, {}).gathered().values["rewards"]
    array([1.])
    """
    frame = _with_index(frame)
    own = _titles(frame)
    rows = {title: len(frame[key]) for title, key in own.items()}
    if len(set(rows.values())) > 1:
        raise ValueError(f"frame must have columns of one length, got {rows}")
    count = next(iter(rows.values()), 0)
    builder = Builder(wanted, also=also, strict=strict)
    builder.add(own, lambda used: Batch({title: _cells(frame[own[title]]) for title in used}, count))
    return builder


def titles(frame: Any) -> list[str]:
    """Return the titles of a frame, as text.

    Examples
    --------
    >>> titles({"arm": ["a"]})
    ['arm']
    """
    return list(_titles(_with_index(frame)))


def _with_index(frame: Any) -> Any:
    """Return a frame of pandas with the levels of its index that have names as columns: files keep them as such."""
    names = getattr(getattr(frame, "index", None), "names", None)
    if not names or not callable(getattr(frame, "reset_index", None)):
        return frame
    named = [name for name in names if name is not None and name not in frame.columns]
    return frame.reset_index(level=named) if named else frame


def _titles(frame: Any) -> dict[str, Any]:
    if not isinstance(frame, Mapping) and not (hasattr(frame, "columns") and hasattr(frame, "__getitem__")):
        raise TypeError(
            f"frame must be a frame or a mapping of columns, got {type(frame).__name__}; pandas.DataFrame(rows) makes "
            "one of rows"
        )
    found: dict[str, Any] = {}
    columns = frame.column_names if hasattr(frame, "column_names") else getattr(frame, "columns", frame)
    for title in columns:
        # Columns of several levels are called as files call them: ("score", "gpt") is score:gpt.
        text = ":".join(str(part) for part in title if part != "") if isinstance(title, tuple) else str(title)
        if text in found:
            raise ValueError(f"frame must have distinct columns, got {text!r} twice")
        found[text] = title
    return found


def _cells(column: Any) -> Cells:
    """Return a column as an array where that loses nothing; the categories of arms are their names and order."""
    if hasattr(column, "cat") and hasattr(column.cat, "categories"):  # pandas
        words = column.cat.categories.tolist()
        declared = all(isinstance(word, str) for word in words)
        return Coded(words, np.asarray(column.cat.codes, dtype=np.int64), declared)
    zone = getattr(getattr(column, "dtype", None), "tz", None)
    if zone is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if hasattr(column, "to_numpy"):
        column = column.to_numpy()
    elif isinstance(column, list | tuple):
        return column
    array = np.asarray(column)
    if array.dtype.kind in "fiubM":
        return array
    listed: list[Any] = array.tolist()
    return listed


def frame_of(trace: Columns) -> Any:
    """Return the columns of a trace as a frame of pandas."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("frames need pandas: pip install 'banditroute[frame]'") from error
    columns: dict[str, Any] = {}
    for name, values in present(trace).items():
        field = FIELDS[name]
        if name in ("arms", "policy"):
            words = trace.names if name == "arms" else trace.policies
            columns[field] = pandas.Categorical.from_codes(values, list(words))
        elif values.ndim == 2:
            parts = trace.names if name in BY_ARM else range(values.shape[1])
            columns |= {f"{field}:{part}": values[:, i] for i, part in enumerate(parts)}
        else:
            columns[field] = values
    return pandas.DataFrame(columns)
