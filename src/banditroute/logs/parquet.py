"""Traces as Parquet, by pyarrow."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.logs.columns import FIELDS, MARK, MATRICES, coded, header_of, present, required, told
from banditroute.logs.trace import Trace

__all__ = ["load_parquet", "save_parquet"]


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'banditroute[parquet]'") from error
    return pyarrow


def save_parquet(trace: Trace, path: Path) -> None:
    """Write a trace as a table, names as dictionaries, the header as metadata."""
    pa = _pyarrow()
    columns = {}
    for name, values in present(trace).items():
        if name in ("arms", "policy"):
            table = trace.names if name == "arms" else trace.policies
            column = pa.DictionaryArray.from_arrays(pa.array(values.astype(np.int32)), pa.array(table))
        elif name in MATRICES:
            column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        else:
            column = pa.array(values)
        columns[FIELDS[name]] = column
    meta = {MARK: json.dumps(header_of(trace))}
    table = pa.table(columns).replace_schema_metadata(meta)
    # Random mantissas do not compress; trying takes longer than writing them.
    pa.parquet.write_table(table, path, compression="none", use_dictionary=["arm", "policy"])


def load_parquet(path: Path) -> Trace:
    """Read a trace from a table, ours or one that has the columns."""
    pa = _pyarrow()
    try:
        table = pa.parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"it is not a Parquet file: {error}") from error
    marked = (table.schema.metadata or {}).get(MARK.encode())
    header: dict[str, Any] = {"names": None, "policies": None}
    if marked is not None:
        header = told(json.loads(marked))
    required(table.column_names)
    built: dict[str, Any] = {}
    for name, field in FIELDS.items():
        if field not in table.column_names:
            continue
        if table.column_names.count(field) > 1:
            raise ValueError(f"its columns must be distinct, got {field!r} twice")
        column = table.column(field).combine_chunks()
        if name in (*MATRICES, "arms", "policy") and column.null_count:
            raise ValueError(
                f"column {field!r}: must have a value in every row, got none in {column.null_count}"
            )
        if name in ("arms", "policy"):
            if not pa.types.is_dictionary(column.type):
                column = column.dictionary_encode()
            key = "names" if name == "arms" else "policies"
            own = column.dictionary.to_pylist()
            header[key], order = coded(field, own, header[key])
            built[name] = order[column.indices.to_numpy(zero_copy_only=False)]
        elif name in MATRICES:
            built[name] = _matrix(pa, field, column)
        else:
            built[name] = column.to_numpy(zero_copy_only=False)
    return Trace(names=tuple(header["names"] or ()), policies=header["policies"] or ("",), **built)


def _matrix(pa: Any, field: str, column: Any) -> NDArray[Any]:
    """Return a column of lists, all of one length, as a matrix."""
    kinds = pa.types
    if kinds.is_fixed_size_list(column.type):
        width = column.type.list_size
    elif kinds.is_list(column.type) or kinds.is_large_list(column.type):
        lengths = column.value_lengths().to_numpy()
        width = int(lengths[0]) if len(lengths) else 0
        odd = np.flatnonzero(lengths != width)
        if len(odd):
            raise ValueError(
                f"column {field!r}: must hold lists of one length, got {width} numbers in row 0 and "
                f"{lengths[odd[0]]} in row {odd[0]}"
            )
    else:
        raise ValueError(f"column {field!r}: must hold lists, got {column.type}")
    flat = column.flatten()
    if flat.null_count:
        raise ValueError(f"column {field!r}: must hold numbers, got null")
    matrix: NDArray[Any] = flat.to_numpy(zero_copy_only=False).reshape(len(column), width)
    return matrix
