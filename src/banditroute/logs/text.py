"""Traces as text: CSV and JSON lines, read and written row by row."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from banditroute.logs.builder import Batch, Builder
from banditroute.logs.fields import BY_ARM, FIELDS, MARK, Columns, header_of, present, told

__all__ = ["read_csv", "read_jsonl", "rows_of_json", "save_csv", "save_jsonl", "titles_of"]

ROWS = 4096  # read, and turned into numbers, at once
_MARKED = f"# {MARK} "
_BOM = "\ufeff"  # spreadsheets write one


def save_jsonl(trace: Columns, file: IO[bytes]) -> None:
    """Write a trace as one JSON object per line, the header first."""
    columns = {FIELDS[name]: (name, values) for name, values in present(trace).items()}
    file.write(_line({MARK: header_of(trace)}))
    for start in range(0, len(columns["arm"][1]), ROWS):
        cells = [_plain(trace, name, values[start : start + ROWS]) for name, values in columns.values()]
        for row in zip(*cells, strict=True):
            file.write(_line(dict(zip(columns, row, strict=True))))


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _plain(trace: Columns, name: str, values: NDArray[Any]) -> list[Any]:
    if name in ("arms", "policy"):
        table = trace.names if name == "arms" else trace.policies
        return [table[i] for i in values.tolist()]
    if values.ndim == 1 and values.dtype.kind == "f":
        return [None if value != value else value for value in values.tolist()]  # NaN is not JSON
    listed: list[Any] = values.tolist()
    return listed


def save_csv(trace: Columns, file: IO[bytes]) -> None:
    """Write a trace as CSV, the header as a comment before the titles; matrices as columns of their own."""
    columns: list[tuple[str, str, NDArray[Any]]] = []
    for name, values in present(trace).items():
        if values.dtype == np.bool_:
            values = values.astype(np.int64)
        if values.ndim == 2:
            parts = trace.names if name in BY_ARM else range(values.shape[1])
            columns += [(f"{FIELDS[name]}:{part}", name, values[:, i]) for i, part in enumerate(parts)]
        else:
            columns.append((FIELDS[name], name, values))
    out = csv.writer(_Encoded(file))
    file.write(f"{_MARKED}{json.dumps(header_of(trace))}\n".encode())
    out.writerow([title for title, _, _ in columns])
    for start in range(0, len(columns[0][2]), ROWS):
        cells = [_plain(trace, name, values[start : start + ROWS]) for _, name, values in columns]
        out.writerows(zip(*cells, strict=True))


class _Encoded:
    """A binary file that takes text."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, text: str) -> int:
        return self.file.write(text.encode())


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Yield lines as text; what is no UTF-8 is told with its line."""
    for number, raw in enumerate(file, 1):
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"it must be UTF-8: {error} in line {number}; Trace.from_frame(pandas.read_csv(path, encoding=...)) "
                "reads others"
            ) from None
        yield text.removeprefix(_BOM) if number == 1 else text


def rows_of_json(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the objects of JSON lines."""
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not JSON lines: {error} in line {number}") from None
        if type(row) is not dict:
            raise ValueError(f"it is not JSON lines of objects: got {row!r:.80} in line {number}")
        yield row


def read_jsonl(file: IO[bytes], **options: Any) -> Builder:
    """Read JSON lines; keys may begin late, and what a row lacks is not known of it."""
    rows = rows_of_json(file)
    first = next(rows, {})
    header = told(first[MARK]) if MARK in first else None
    builder = Builder(header=header, **options)
    titles = None
    if header is not None:
        titles = header.get("columns")
        if not isinstance(titles, list):
            raise ValueError(f"its header must list columns, got {header!r:.80}")
    batch = [first] if first and header is None else []
    batch += islice(rows, ROWS - len(batch))
    while True:
        if titles is not None:
            _whole(titles, batch, builder.rows)
        own = dict.fromkeys(key for row in batch for key in row) if titles is None else titles
        builder.add(own, partial(_picked, batch))
        batch = list(islice(rows, ROWS))
        if not batch:
            return builder


def _picked(rows: list[dict[str, Any]], used: list[str]) -> Batch:
    return Batch({title: [row.get(title) for row in rows] for title in used}, len(rows))


def _whole(titles: list[str], rows: list[dict[str, Any]], first: int) -> None:
    wanted = set(titles)
    odd = next((i for i, row in enumerate(rows) if row.keys() != wanted), None)
    if odd is not None:
        raise ValueError(
            f"every row must hold {', '.join(titles)} as its header says, got {', '.join(rows[odd])} "
            f"in row {first + odd}"
        )


def read_csv(file: IO[bytes], *, comment: str | None = None, **options: Any) -> Builder:
    """Read CSV: blank lines are passed over, lines that begin with `comment` too."""
    lines = _lines(file)
    first = next(lines, "")
    header = None
    if first.startswith(_MARKED):
        header = told(json.loads(first[len(_MARKED) :]))
        first = next(lines, "")
    elif first.startswith("#") and not comment:
        raise ValueError(
            f"its first line must be titles, got {first.strip()!r:.60}; comment='#' passes over such lines"
        )
    rows = _cells(_chained(first, lines), comment if header is None else None)
    titles = next(rows, [])
    twice = next((title for i, title in enumerate(titles) if title in titles[:i]), None)
    if twice is not None:
        raise ValueError(f"its columns must be distinct, got {twice!r} twice")
    if not titles:
        raise ValueError("it must hold a line of titles and rows, got an empty file")
    other = next((sign for sign in (";", "\t") if len(titles) == 1 and sign in titles[0]), None)
    if other is not None:
        raise ValueError(
            f"its cells must be separated by commas, got {other!r}; pandas reads it, as in "
            f"Trace.from_frame(pandas.read_csv(path, sep={other!r}))"
        )
    builder = Builder(header=header, **options)
    batch = list(islice(rows, ROWS))
    while True:
        for i, row in enumerate(batch):
            if len(row) != len(titles):
                raise ValueError(
                    f"it must have {len(titles)} cells in every row, got {len(row)} in row {builder.rows + i}"
                )
        cells = list(zip(*batch, strict=True)) if batch else [()] * len(titles)
        builder.add(titles, partial(_taken, dict(zip(titles, cells, strict=True)), len(batch)))
        batch = list(islice(rows, ROWS))
        if not batch:
            return builder


def _taken(table: dict[str, Sequence[Any]], count: int, used: list[str]) -> Batch:
    return Batch({title: table[title] for title in used}, count)


def titles_of(file: IO[bytes], suffix: str) -> list[str]:
    """Return the titles of a CSV file, or the keys of the first object of JSON lines."""
    if suffix == ".jsonl":
        return list(next(rows_of_json(file), {}))
    return next(_cells((line for line in _lines(file) if not line.startswith("#")), None), [])


def _chained(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _cells(lines: Iterator[str], comment: str | None) -> Iterator[list[str]]:
    reader = csv.reader(line for line in lines if not (comment and line.startswith(comment)))
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"it is not CSV: {error} in line {reader.line_num}") from None
        if row is None:
            return
        if row and (len(row) > 1 or row[0].strip()):
            yield row
