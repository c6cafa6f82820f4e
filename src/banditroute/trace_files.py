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

from banditroute.trace import Trace

__all__ = ["load", "save"]

# Name of a column in a row of a text file or in a table. Columns of strings are indices in memory.
_FIELDS = {
    "times": "time",
    "ids": "id",
    "arms": "arm",
    "propensities": "propensity",
    "rewards": "reward",
    "hits": "hit",
    "latencies": "latency",
    "policy": "policy",
    "versions": "version",
    "eligible": "eligible",
    "prices": "prices",
    "contexts": "context",
}
_MATRICES = ("eligible", "prices", "contexts")
_TYPES: dict[str, Any] = {
    "ids": np.uint64,
    "versions": np.int64,
    "hits": np.bool_,
    "eligible": np.bool_,
}
_MARK = "banditroute trace"
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
    trace: Trace = reader(path)
    return trace


def _format(path: Path) -> Any:
    found = _FORMATS.get(path.suffix)
    if found is None:
        raise ValueError(f"path must end in .npz, .csv, .jsonl or .parquet, got {path.name!r}")
    return found


def _present(trace: Trace) -> dict[str, NDArray[Any]]:
    return {name: getattr(trace, name) for name in _FIELDS if getattr(trace, name) is not None}


def _header(trace: Trace) -> dict[str, Any]:
    return {"format": 1, "names": list(trace.names), "policies": list(trace.policies)}


def _save_npz(trace: Trace, path: Path) -> None:
    columns = _present(trace)
    header = {**_header(trace), "columns": list(columns)}  # a directory can lose an entry and look whole
    arrays: dict[str, Any] = {"header": np.array(json.dumps(header)), **columns}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _load_npz(path: Path) -> Trace:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz file")
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if "header" not in members:
                raise ValueError(f"it is not a trace, it holds {', '.join(members)}")
            arrays = {name: _member(file, info) for name, info in members.items()}
            header = json.loads(str(arrays["header"]))
        missing = {"arms", "rewards", *header.get("columns", ())} - set(arrays)
        if missing:
            raise ValueError(f"it is damaged: {min(missing)} is missing")
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    columns = {name: array for name, array in arrays.items() if name in _FIELDS}
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
    if name not in _MATRICES and values.dtype.kind == "f":
        return [None if value != value else value for value in values.tolist()]  # NaN is not JSON
    listed: list[Any] = values.tolist()
    return listed


def _save_jsonl(trace: Trace, path: Path) -> None:
    columns = {_FIELDS[n]: _plain(trace, n, v) for n, v in _present(trace).items()}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({_MARK: {**_header(trace), "columns": list(columns)}}) + "\n")
        for row in zip(*columns.values(), strict=True):
            file.write(json.dumps(dict(zip(columns, row, strict=True)), separators=(",", ":")) + "\n")


def _load_jsonl(path: Path) -> Trace:
    with path.open(encoding="utf-8") as file:
        try:
            rows = [json.loads(line) for line in file if line.strip()]
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON lines: {error}") from error
    header = rows.pop(0)[_MARK] if rows and _MARK in rows[0] else None
    # A trace without rows has columns all the same; rows from elsewhere name theirs.
    fields = [field for row in rows[:1] for field in row] if header is None else header["columns"]
    return _assemble({field: [row.get(field) for row in rows] for field in fields}, header, path)


def _save_csv(trace: Trace, path: Path) -> None:
    columns: dict[str, list[Any]] = {}
    for name, values in _present(trace).items():
        field = _FIELDS[name]
        if name in _MATRICES:
            own = range(values.shape[1]) if name == "contexts" else trace.names
            listed = (values.astype(np.int64) if name == "eligible" else values).T.tolist()
            columns |= {f"{field}:{one}": column for one, column in zip(own, listed, strict=True)}
        elif name == "hits":
            columns[field] = values.astype(np.int64).tolist()
        else:
            columns[field] = _plain(trace, name, values)
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {_MARK} {json.dumps(_header(trace))}\n")
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _load_csv(path: Path) -> Trace:
    with path.open(newline="", encoding="utf-8") as file:
        first = file.readline()
        mark = f"# {_MARK} "
        header = json.loads(first[len(mark) :]) if first.startswith(mark) else None
        if header is None:
            file.seek(0)
        reader = csv.reader(file)
        titles = next(reader, [])
        rows = list(reader)
    short = [i for i, row in enumerate(rows) if len(row) != len(titles)]
    if short:
        raise ValueError(f"{path} must have {len(titles)} cells in every row, got {len(rows[short[0]])}")
    flat = dict(zip(titles, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(titles, ())
    columns: dict[str, Any] = {}
    for title, cells in flat.items():
        field, _, part = title.partition(":")
        if part and field in ("eligible", "prices", "context"):
            columns.setdefault(field, {})[part] = np.array(cells, dtype=np.float64)
        else:
            columns[title] = [
                None if cell == "" and title not in ("arm", "policy") else cell for cell in cells
            ]
    names = None if header is None else header["names"]
    for field, parts in columns.items():
        if isinstance(parts, dict):
            order = names if names is not None and field != "context" else list(parts)
            if names is None and field != "context":
                names = order
            columns[field] = np.stack([parts[one] for one in order], axis=1)
    if header is None and names is not None:
        header = {"names": names, "policies": None}
    return _assemble(columns, header, path)


def _assemble(columns: dict[str, Any], header: dict[str, Any] | None, path: Path) -> Trace:
    """Return the trace of columns by field; strings become indices into the names."""
    missing = [field for field in ("arm", "reward") if field not in columns]
    if missing:
        raise ValueError(f"{path} must have a column {missing[0]!r}, got {', '.join(columns) or 'none'}")
    names = None if header is None else header.get("names")
    policies = None if header is None else header.get("policies")
    built: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        if field not in columns:
            continue
        cells = columns[field]
        try:
            if name == "arms":
                names, built[name] = _coded(cells, names)
            elif name == "policy":
                policies, built[name] = _coded(cells, policies)
            elif name in ("ids", "versions"):
                built[name] = np.array([int(cell) for cell in cells], dtype=_TYPES[name])
            elif name == "hits":
                built[name] = np.array([_truth(cell) for cell in cells], dtype=np.bool_)
            else:
                built[name] = np.array(cells, dtype=np.float64).astype(
                    _TYPES.get(name, np.float64), copy=False
                )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: column {field!r}: {error}") from error
    return Trace(names=tuple(names or ()), policies=policies or ("",), **built)


def _truth(cell: Any) -> bool:
    if cell not in (True, False, "0", "1", "True", "False", "true", "false"):
        raise ValueError(f"must be 0 or 1, got {cell!r}")
    return cell in (True, "1", "True", "true")


def _coded(cells: Iterable[Any], names: list[str] | None) -> tuple[list[str], NDArray[np.int64]]:
    words = [str(cell) for cell in cells]
    if names is None:
        names = sorted(set(words))
    place = {name: i for i, name in enumerate(names)}
    unknown = next((word for word in words if word not in place), None)
    if unknown is not None:
        raise ValueError(f"must be one of {names}, got {unknown!r}")
    return names, np.array([place[word] for word in words], dtype=np.int64)


# Parquet.


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'banditroute[parquet]'") from error
    return pyarrow


def _save_parquet(trace: Trace, path: Path) -> None:
    pa = _pyarrow()
    columns = {}
    for name, values in _present(trace).items():
        if name in ("arms", "policy"):
            table = trace.names if name == "arms" else trace.policies
            column = pa.DictionaryArray.from_arrays(pa.array(values.astype(np.int32)), pa.array(table))
        elif name in _MATRICES:
            column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        else:
            column = pa.array(values)
        columns[_FIELDS[name]] = column
    meta = {_MARK: json.dumps(_header(trace))}
    table = pa.table(columns).replace_schema_metadata(meta)
    # Random mantissas do not compress; trying takes longer than writing them.
    pa.parquet.write_table(table, path, compression="none", use_dictionary=["arm", "policy"])


def _load_parquet(path: Path) -> Trace:
    pa = _pyarrow()
    try:
        table = pa.parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file: {error}") from error
    marked = (table.schema.metadata or {}).get(_MARK.encode())
    header = {"names": None, "policies": None} if marked is None else json.loads(marked)
    missing = [field for field in ("arm", "reward") if field not in table.column_names]
    if missing:
        raise ValueError(f"{path} must have a column {missing[0]!r}, got {', '.join(table.column_names)}")
    built: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        if field not in table.column_names:
            continue
        column = table.column(field).combine_chunks()
        if name in ("arms", "policy"):
            if not pa.types.is_dictionary(column.type):
                column = column.dictionary_encode()
            key = "names" if name == "arms" else "policies"
            own = column.dictionary.to_pylist()
            header[key], order = _coded(own, header[key])
            built[name] = order[column.indices.to_numpy(zero_copy_only=False)]
        elif name in _MATRICES:
            flat = column.flatten().to_numpy(zero_copy_only=False)
            built[name] = flat.reshape(len(table), -1)
        else:
            built[name] = column.to_numpy(zero_copy_only=False)
    return Trace(names=tuple(header["names"] or ()), policies=header["policies"] or ("",), **built)


_FORMATS = {
    ".npz": (_save_npz, _load_npz),
    ".csv": (_save_csv, _load_csv),
    ".jsonl": (_save_jsonl, _load_jsonl),
    ".parquet": (_save_parquet, _load_parquet),
}
