"""A checked container of JSON and arrays: what snapshots and the parts of replicas are written in.

A file is ``magic (8) | format (u32) | header length (u32) | sha256 of the header (32) | header | arrays``. The JSON
header names every array with dtype, shape and offset and holds the sha256 of all of them. Arrays are raw,
little-endian and contiguous. Every byte is covered, so a torn or altered file is refused; sizes are checked against the
length of the file and a limit before anything of that size is read.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from math import prod
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from banditroute._core.files import regular, write
from banditroute._core.typing import Arrays, Header
from banditroute.errors import SnapshotError

__all__ = ["FORMAT", "LIMIT_BYTES", "decode", "encode", "headline", "pieces", "read", "read_from", "write"]


MAGIC = b"bndtrout"
FORMAT = 1
LIMIT_BYTES = 1 << 32
PREFIX = struct.Struct("<8sII32s")
DIMENSIONS, LONGEST = 8, 1 << 40  # of an array, at most
DTYPES = ("<f8", "<i8", "<u8", "|b1", "|u1", "<f4", "<i4", "<u4")


def pieces(
    header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], *, limit_bytes: int = LIMIT_BYTES
) -> list[bytes | memoryview]:
    """Return header and arrays as the bytes of a file, in pieces, so that large arrays are not copied once more.

    Raises
    ------
    TypeError
        The header is not JSON-able, or an array holds neither numbers nor booleans.
    SnapshotError
        They are larger than `limit_bytes`: no reader would take them.

    Examples
    --------
    >>> b"".join(pieces({"a": 1}, {})) == encode({"a": 1}, {})
    True
    """
    table: list[list[Any]] = []
    blocks: list[memoryview] = []
    offset, digest = 0, hashlib.sha256()
    for name, array in arrays.items():
        block = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        if block.dtype.str not in DTYPES:
            raise TypeError(f"{name} must hold numbers or booleans, got dtype {array.dtype}")
        # The shape is that of the array: ascontiguousarray makes a scalar a vector.
        table.append([name, block.dtype.str, list(array.shape), offset])
        raw = block.reshape(-1).view(np.uint8).data
        blocks.append(raw)
        digest.update(raw)
        offset += raw.nbytes
    text = json.dumps(
        {"state": dict(header), "arrays": table, "size": offset, "sha256": digest.hexdigest()},
        separators=(",", ":"),
    ).encode()
    total = PREFIX.size + len(text) + offset
    if total > limit_bytes:
        raise SnapshotError(f"a state must take at most limit_bytes = {limit_bytes}, got {total}")
    return [PREFIX.pack(MAGIC, FORMAT, len(text), hashlib.sha256(text).digest()) + text, *blocks]


def encode(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return header and arrays as the bytes of a file.

    Parameters
    ----------
    header : mapping
        JSON-able.
    arrays : mapping
        Named arrays of numbers or booleans.

    Examples
    --------
    >>> header, arrays = decode(encode({"a": 1}, {"x": np.arange(3.0)}))
    >>> header, arrays["x"]
    ({'a': 1}, array([0., 1., 2.]))
    """
    return b"".join(pieces(header, arrays))


def decode(data: bytes, *, limit_bytes: int = LIMIT_BYTES) -> tuple[Header, Arrays]:
    """Return what `encode` was given.

    Raises
    ------
    SnapshotError
        Torn, altered, foreign, too large or of an unknown format.

    Examples
    --------
    >>> decode(b"something else")
    Traceback (most recent call last):
    banditroute.errors.SnapshotError: a snapshot must have at least 48 bytes, got 14
    """
    prefix = data[: PREFIX.size]
    length = _header_length(prefix, len(data), limit_bytes)
    start = PREFIX.size + length
    header, table, digest = _parsed(prefix, data[PREFIX.size : start], len(data) - start)
    return header, _unpacked(table, data[start:], digest)


def read(path: str | os.PathLike[str], *, limit_bytes: int = LIMIT_BYTES) -> tuple[Header, Arrays]:
    """Read a file that `write` wrote of `encode`.

    Raises
    ------
    SnapshotError
        As for `decode`; nothing larger than the header has been read unless its sizes are consistent.
    OSError
        The file cannot be opened.
    """
    with regular(path) as file:
        try:
            return read_from(file, limit_bytes=limit_bytes)
        except SnapshotError as error:
            raise SnapshotError(f"{os.fspath(path)}: {error}") from None


def read_from(file: IO[bytes], *, limit_bytes: int = LIMIT_BYTES) -> tuple[Header, Arrays]:
    """Read an open file, as `read` does."""
    header, table, digest, rest = _headed(file, limit_bytes)
    return header, _unpacked(table, file.read(rest), digest)


def headline(file: IO[bytes], *, limit_bytes: int = LIMIT_BYTES) -> Header:
    """Return the header of an open file, checked; the arrays behind it are not read.

    Raises
    ------
    SnapshotError
        As for `decode`, as far as the header tells.

    Examples
    --------
    >>> from io import BytesIO
    >>> import tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     place = file.write(encode({"a": 1}, {"x": np.zeros(3)})), file.seek(0)
    ...     headline(file)
    {'a': 1}
    """
    return _headed(file, limit_bytes)[0]


def _headed(
    file: IO[bytes], limit_bytes: int
) -> tuple[Header, list[tuple[str, str, tuple[int, ...]]], str, int]:
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(PREFIX.size)
    length = _header_length(prefix, size, limit_bytes)
    rest = size - PREFIX.size - length
    return *_parsed(prefix, file.read(length), rest), rest


def _header_length(prefix: bytes, size: int, limit_bytes: int) -> int:
    if len(prefix) < PREFIX.size:
        raise SnapshotError(f"a snapshot must have at least {PREFIX.size} bytes, got {size}")
    magic, number, length, _ = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise SnapshotError(f"a snapshot must start with {MAGIC!r}, got {magic!r}")
    if number != FORMAT:
        raise SnapshotError(f"format must be {FORMAT}, got {number}")
    if size > limit_bytes:
        raise SnapshotError(f"size must be at most limit_bytes = {limit_bytes}, got {size}")
    if length > size - PREFIX.size:
        raise SnapshotError(f"header must end inside the file of {size} bytes, got a length of {length}")
    return int(length)


def _parsed(
    prefix: bytes, text: bytes, rest: int
) -> tuple[Header, list[tuple[str, str, tuple[int, ...]]], str]:
    """Return the caller's header, the table of arrays and their digest, once sizes add up to `rest`."""
    if hashlib.sha256(text).digest() != prefix[-32:]:
        raise SnapshotError("header must match its checksum, got another one")
    try:
        outer = json.loads(text)
        table: list[tuple[str, str, tuple[int, ...]]] = []
        total = 0
        for name, dtype, shape, offset in outer["arrays"]:
            if dtype not in DTYPES or offset != total or not all(type(n) is int and n >= 0 for n in shape):
                raise ValueError(name)
            if len(shape) > DIMENSIONS or max(shape, default=0) > LONGEST:
                raise ValueError(name)
            total += prod(shape) * np.dtype(dtype).itemsize
            table.append((str(name), str(dtype), tuple(shape)))
        if len({name for name, _, _ in table}) != len(table):
            raise ValueError("names that repeat")
        header, digest, size = dict(outer["state"]), str(outer["sha256"]), outer["size"]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise SnapshotError(f"header must describe a state and its arrays, got {error!r}") from None
    if not total == size == rest:
        raise SnapshotError(f"arrays must take the {rest} bytes after the header, got {total}")
    return header, table, digest


def _unpacked(table: list[tuple[str, str, tuple[int, ...]]], body: bytes, digest: str) -> Arrays:
    if hashlib.sha256(body).hexdigest() != digest:
        raise SnapshotError("arrays must match their checksum, got another one")
    arrays: Arrays = {}
    start = 0
    for name, dtype, shape in table:
        array = np.frombuffer(body, dtype=dtype, count=prod(shape), offset=start).reshape(shape).copy()
        arrays[name] = array
        start += array.nbytes
    return arrays
