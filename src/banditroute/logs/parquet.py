"""Traces as Parquet, by pyarrow, a batch of rows at a time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from banditroute.logs.builder import Batch, Builder
from banditroute.logs.cells import Cells, Coded
from banditroute.logs.fields import FIELDS, MARK, Columns, header_of, present, told

__all__ = ["add_table", "parquet_batches", "read_parquet", "save_parquet", "titles_of"]

ROWS = 1 << 16  # of a batch, and of a group in a file


def pyarrow() -> Any:
    """Return pyarrow with its reader of Parquet, or tell how to install it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'banditroute[parquet]'") from error
    return pyarrow


def save_parquet(trace: Columns, file: IO[bytes]) -> None:
    """Write a trace as a table, names as dictionaries, the header as metadata."""
    pa = pyarrow()
    columns = {}
    for name, values in present(trace).items():
        if name in ("arms", "policy"):
            table = trace.names if name == "arms" else trace.policies
            column = pa.DictionaryArray.from_arrays(pa.array(values.astype(np.int32)), pa.array(table))
        elif values.ndim == 2:
            column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        else:
            column = pa.array(values)
        columns[FIELDS[name]] = column
    table = pa.table(columns)
    arm = table.schema.get_field_index("arm")
    seal = table.schema.field(arm).with_metadata({MARK: "1"})  # so that a header that is lost is missed
    meta = {MARK: json.dumps(header_of(trace))}
    table = table.cast(table.schema.set(arm, seal).with_metadata(meta))
    # Random mantissas do not compress; trying takes longer than writing them.
    pa.parquet.write_table(
        table, file, compression="none", use_dictionary=["arm", "policy"], row_group_size=ROWS,
        write_page_checksum=True,
    )  # fmt: skip


def read_parquet(file: IO[bytes], **options: Any) -> Builder:
    """Read a table, ours or one from elsewhere, without the columns that are not used."""
    pa = pyarrow()
    try:
        source = pa.parquet.ParquetFile(file, page_checksum_verification=True)
        schema = source.schema_arrow
        marked = (schema.metadata or {}).get(MARK.encode())
        header = None if marked is None else told(json.loads(marked))
        if header is None and any(MARK.encode() in (field.metadata or {}) for field in schema):
            raise ValueError("it is damaged: its header is missing")
        titles = list(schema.names)
        _distinct(titles)
        builder = Builder(header=header, **options)
        used: list[str] = []

        def none(names: list[str]) -> Batch:
            used.extend(names)
            return Batch({}, 0)

        builder.add(titles, none)
        if header is not None and header["format"] > 1 and set(titles) != set(header["columns"]):
            raise ValueError(f"it must have the columns {header['columns']}, got {titles}")
        for batch in source.iter_batches(batch_size=ROWS, columns=used):
            add_table(builder, pa, batch)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"it is not a Parquet file: {error}") from None
    if builder.rows != source.metadata.num_rows:
        raise ValueError(f"it must have {source.metadata.num_rows} rows, got {builder.rows}")
    return builder


def titles_of(file: IO[bytes]) -> list[str]:
    """Return the names of the columns of a table."""
    pa = pyarrow()
    try:
        return list(pa.parquet.ParquetFile(file).schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"it is not a Parquet file: {error}") from None


def _distinct(titles: list[str]) -> None:
    twice = next((title for i, title in enumerate(titles) if title in titles[:i]), None)
    if twice is not None:
        raise ValueError(f"its columns must be distinct, got {twice!r} twice")


def add_table(builder: Builder, pa: Any, table: Any) -> None:
    """Take the rows of a table or record batch of pyarrow."""
    names = list(table.schema.names)
    builder.add(names, lambda used: Batch({n: _cells(pa, table.column(n)) for n in used}, table.num_rows))


def _cells(pa: Any, column: Any) -> Cells:
    """Return a column as an array where that loses nothing, else as Python's own objects."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind, kinds = column.type, pa.types
    if kinds.is_string(kind) or kinds.is_large_string(kind):
        column = column.dictionary_encode()
        kind = column.type
    if kinds.is_dictionary(kind):
        codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return Coded(column.dictionary.to_pylist(), codes)
    if kinds.is_floating(kind) or (
        not column.null_count and (kinds.is_integer(kind) or kinds.is_boolean(kind))
    ):
        array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return array
    if kinds.is_timestamp(kind):
        moments: NDArray[Any] = column.cast(pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False)
        return moments
    matrix = (
        _matrix(column)
        if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)
        else None
    )
    return column.to_pylist() if matrix is None else matrix


def _matrix(column: Any) -> NDArray[Any] | None:
    """Return a column of lists of numbers, all of one length, as a matrix, and None for others."""
    if column.null_count or not len(column):
        return None
    flat = column.flatten()
    width, left = divmod(len(flat), len(column))
    if left or flat.null_count:
        return None
    if hasattr(column, "offsets"):
        lengths = np.diff(column.offsets.to_numpy())
        if (lengths != width).any():
            return None
    values: NDArray[Any] = flat.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "fiub" or not np.isfinite(values).all():
        return None
    return values.reshape(len(column), width)


def parquet_batches(path: str | Path, rows: int = ROWS, **options: Any) -> Iterator[Builder]:
    """Yield the rows of a Parquet file by batches, each gathered on its own: a file may be larger than memory.

    Arms are those of the header where the file is ours, else those that occur in the batch.
    """
    pa = pyarrow()
    with Path(path).open("rb") as file:
        try:
            source = pa.parquet.ParquetFile(file, page_checksum_verification=True)
            marked = (source.schema_arrow.metadata or {}).get(MARK.encode())
            header = None if marked is None else told(json.loads(marked))
            if header is not None:  # the checksum is of the whole; pages have their own
                header = {name: value for name, value in header.items() if name != "checksum"}
            for batch in source.iter_batches(batch_size=rows):
                builder = Builder(header=header, **options)
                add_table(builder, pa, batch)
                yield builder
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is not a Parquet file: {error}") from None
