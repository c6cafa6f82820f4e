"""Traces on disk: npz, CSV, JSON lines and Parquet."""

import csv
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.logs.columns import FIELDS, MARK, MATRICES, coded, header_of, present, required, told
from banditroute.logs.parquet import load_parquet, save_parquet
from banditroute.logs.trace import Trace

__all__ = ["load", "save"]

_TEXT = "utf-8-sig"  # of files read: spreadsheets write a byte order mark
_BLOCK = 1 << 16  # bytes summed at once: they stay in the cache


def save(trace: Trace, path: Path) -> Path:
    """Write a trace in the format of the suffix.

    Examples
    --------
    >>> save(Trace(names=["a"], arms=[0], rewards=[1.0]), Path("log.txt"))
    Traceback (most recent call last):
    ValueError: path must end in .npz, .csv, .jsonl or .parquet, got 'log.txt'
    """
    _format(path)[0](trace, path)
    return path


def load(path: Path) -> Trace:
    """Read a trace in the format of the suffix.

    CSV, JSON lines and Parquet may come from elsewhere: a column `arm` of names and a column `reward` are enough, and
    the arms are then the ones that occur.

    Examples
    --------
    >>> load(Path("log.txt"))
    Traceback (most recent call last):
    ValueError: path must end in .npz, .csv, .jsonl or .parquet, got 'log.txt'
    """
    reader = _format(path)[1]
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        trace: Trace = reader(path)
    except (
        ValueError,
        TypeError,
        OverflowError,
        zipfile.BadZipFile,
        NotImplementedError,
        struct.error,
    ) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return trace


def _format(path: Path) -> Any:
    found = _FORMATS.get(path.suffix)
    if found is None:
        raise ValueError(f"path must end in .npz, .csv, .jsonl or .parquet, got {path.name!r}")
    return found


def _save_npz(trace: Trace, path: Path) -> None:
    columns = present(trace)
    header = {**header_of(trace), "columns": list(columns)}  # a directory can lose an entry and look whole
    arrays: dict[str, Any] = {"header": np.array(json.dumps(header)), **columns}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _load_npz(path: Path) -> Trace:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an .npz file")
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if "header" not in members:
            raise ValueError(f"it is not a trace, it holds {', '.join(members)}")
        arrays = {name: _member(file, info) for name, info in members.items()}
    header = told(json.loads(str(arrays["header"])))
    missing = {"arms", "rewards", *header.get("columns", ())} - set(arrays)
    if missing:
        raise ValueError(f"it is damaged: {min(missing)} is missing")
    columns = {name: array for name, array in arrays.items() if name in FIELDS}
    return Trace(names=header["names"], policies=header["policies"], **columns)


def _member(file: BufferedReader, info: zipfile.ZipInfo) -> Any:
    """Read an array straight from its place: numpy's own way through the archive copies every byte.

    The checksum comes first, over a small buffer: what is then read is what was written, and no damaged length asks
    for memory.
    """
    name = info.filename
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} must not be compressed")
    if info.header_offset < 0:
        raise ValueError(f"{name} is damaged: its place is not in the file")
    file.seek(info.header_offset + 26)  # lengths of name and extra field, at the end of the local header
    title, extra = struct.unpack("<HH", file.read(4))
    if file.read(title) != name.encode():
        raise ValueError(f"{name} is damaged: it has another name in its place")
    file.seek(extra, 1)
    start, left, total = file.tell(), info.file_size, 0
    buffer = memoryview(bytearray(_BLOCK))
    while left > 0 and (count := file.readinto(buffer[: min(left, _BLOCK)])):
        total = zlib.crc32(buffer[:count], total)
        left -= count
    if left or total != info.CRC:
        raise ValueError(f"{name} is damaged: its checksum is not the one written")
    file.seek(start)
    return np.lib.format.read_array(file, allow_pickle=False)


# Text: one dictionary of plain values per row.


def _plain(trace: Trace, name: str, values: NDArray[Any]) -> list[Any]:
    if name in ("arms", "policy"):
        table = trace.names if name == "arms" else trace.policies
        return [table[i] for i in values.tolist()]
    if name not in MATRICES and values.dtype.kind == "f":
        return [None if value != value else value for value in values.tolist()]  # NaN is not JSON
    listed: list[Any] = values.tolist()
    return listed


def _save_jsonl(trace: Trace, path: Path) -> None:
    columns = {FIELDS[n]: _plain(trace, n, v) for n, v in present(trace).items()}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({MARK: {**header_of(trace), "columns": list(columns)}}) + "\n")
        for row in zip(*columns.values(), strict=True):
            file.write(json.dumps(dict(zip(columns, row, strict=True)), separators=(",", ":")) + "\n")


def _load_jsonl(path: Path) -> Trace:
    with path.open(encoding=_TEXT) as file:
        try:
            rows = [json.loads(line) for line in file if line.strip()]
        except json.JSONDecodeError as error:
            raise ValueError(f"it is not JSON lines: {error}") from error
    odd = next((row for row in rows if type(row) is not dict), None)
    if odd is not None:
        raise ValueError(f"it is not JSON lines of objects: got {odd!r:.80}")
    header = told(rows.pop(0)[MARK], "columns") if rows and MARK in rows[0] else None
    if header is None:  # rows from elsewhere; what some of them lack is not known of these
        fields = list(dict.fromkeys(field for row in rows for field in row))
    else:  # a trace without rows has columns all the same
        fields = header["columns"]
        wanted = set(fields)
        odd = next((row for row in rows if row.keys() != wanted), None)
        if odd is not None:
            raise ValueError(
                f"every row must hold {', '.join(fields)} as its header says, got {', '.join(odd)}"
            )
    return _assemble({field: [row.get(field) for row in rows] for field in fields}, header)


def _save_csv(trace: Trace, path: Path) -> None:
    columns: dict[str, list[Any]] = {}
    for name, values in present(trace).items():
        field = FIELDS[name]
        if name in MATRICES:
            own = range(values.shape[1]) if name == "contexts" else trace.names
            listed = (values.astype(np.int64) if name == "eligible" else values).T.tolist()
            columns |= {f"{field}:{one}": column for one, column in zip(own, listed, strict=True)}
        elif name == "hits":
            columns[field] = values.astype(np.int64).tolist()
        else:
            columns[field] = _plain(trace, name, values)
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {MARK} {json.dumps(header_of(trace))}\n")
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _load_csv(path: Path) -> Trace:
    with path.open(newline="", encoding=_TEXT) as file:
        first = file.readline()
        mark = f"# {MARK} "
        header = told(json.loads(first[len(mark) :])) if first.startswith(mark) else None
        if header is None:
            file.seek(0)
        reader = csv.reader(file)
        titles = next(reader, [])
        rows = list(reader)
    twice = next((title for i, title in enumerate(titles) if title in titles[:i]), None)
    if twice is not None:
        raise ValueError(f"its columns must be distinct, got {twice!r} twice")
    short = next((i for i, row in enumerate(rows) if len(row) != len(titles)), None)
    if short is not None:
        raise ValueError(
            f"it must have {len(titles)} cells in every row, got {len(rows[short])} in row {short}"
        )
    columns: dict[str, Any] = {}
    for title, cells in zip(titles, zip(*rows, strict=True) if rows else [()] * len(titles), strict=True):
        field, _, part = title.partition(":")
        if part and field in ("eligible", "prices", "context"):
            columns.setdefault(field, {})[part] = _numbers(title, cells)
        else:
            columns[title] = [
                None if cell == "" and title not in ("arm", "policy") else cell for cell in cells
            ]
    for field in ("eligible", "prices"):
        if parts := columns.get(field):
            header = header or {"names": list(parts), "policies": None}
            if set(parts) != set(header["names"]):
                raise ValueError(
                    f"its columns {field}: must be those of the arms {header['names']}, got {list(parts)}"
                )
            columns[field] = np.stack([parts[one] for one in header["names"]], axis=1)
    if parts := columns.get("context"):
        numbered = all(
            part.isdecimal() for part in parts
        )  # in the order of the numbers, named ones in that of the file
        columns["context"] = np.stack(
            [parts[one] for one in (sorted(parts, key=int) if numbered else parts)], axis=1
        )
    return _assemble(columns, header)


def _assemble(columns: dict[str, Any], header: dict[str, Any] | None) -> Trace:
    """Return the trace of columns by field; strings become indices into the names."""
    required(columns)
    names = None if header is None else header.get("names")
    policies = None if header is None else header.get("policies")
    built: dict[str, Any] = {}
    for name, field in FIELDS.items():
        if field not in columns:
            continue
        cells = columns[field]
        if name == "arms":
            names, built[name] = coded(field, cells, names)
        elif name == "policy":
            policies, built[name] = coded(field, cells, policies)
        elif name in ("ids", "versions"):
            built[name] = _integers(field, cells, np.uint64 if name == "ids" else np.int64)
        elif name == "hits":
            built[name] = np.array([_truth(field, cell) for cell in cells], dtype=np.bool_)
        else:
            built[name] = _numbers(field, cells)
    if "eligible" in built:
        allowed = built["eligible"]
        if not ((allowed == 0.0) | (allowed == 1.0)).all():
            raise ValueError("column 'eligible': must be 0 or 1")
        built["eligible"] = allowed.astype(np.bool_)
    return Trace(names=tuple(names or ()), policies=policies or ("",), **built)


def _numbers(field: str, cells: Any) -> NDArray[np.float64]:
    try:
        return np.array(cells, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"column {field!r}: {error}") from error


def _integers(field: str, cells: Iterable[Any], kind: type[np.integer[Any]]) -> NDArray[Any]:
    span = np.iinfo(kind)
    try:
        whole = [int(cell) for cell in cells]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"column {field!r}: {error}") from error
    if whole and not (min(whole) >= max(span.min, 0) and max(whole) <= span.max):
        raise ValueError(f"column {field!r}: must be in [0, {span.max}], got {min(whole)} .. {max(whole)}")
    return np.array(whole, dtype=kind)


def _truth(field: str, cell: Any) -> bool:
    if cell not in (True, False, "0", "1", "True", "False", "true", "false"):
        raise ValueError(f"column {field!r}: must be 0 or 1, got {cell!r}")
    return cell in (True, "1", "True", "true")


_FORMATS = {
    ".npz": (_save_npz, _load_npz),
    ".csv": (_save_csv, _load_csv),
    ".jsonl": (_save_jsonl, _load_jsonl),
    ".parquet": (save_parquet, load_parquet),
}
