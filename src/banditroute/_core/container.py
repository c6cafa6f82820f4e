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
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from banditroute._core.typing import Arrays, Header
from banditroute.errors import SnapshotError

__all__ = ["FORMAT", "LIMIT_BYTES", "decode", "encode", "keep_previous", "read", "write"]


MAGIC = b"bndtrout"
FORMAT = 1
LIMIT_BYTES = 1 << 32
PREFIX = struct.Struct("<8sII32s")
DTYPES = ("<f8", "<i8", "<u8", "|b1", "|u1", "<f4", "<i4", "<u4")


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
    table, blocks, offset = [], [], 0
    for name, array in arrays.items():
        block = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        if block.dtype.str not in DTYPES:
            raise TypeError(f"{name} must hold numbers or booleans, got dtype {array.dtype}")
        raw = block.tobytes()
        # The shape is that of the array: ascontiguousarray makes a scalar a vector.
        table.append([name, block.dtype.str, list(array.shape), offset])
        blocks.append(raw)
        offset += len(raw)
    body = b"".join(blocks)
    text = json.dumps(
        {"state": dict(header), "arrays": table, "size": offset, "sha256": hashlib.sha256(body).hexdigest()},
        separators=(",", ":"),
    ).encode()
    return PREFIX.pack(MAGIC, FORMAT, len(text), hashlib.sha256(text).digest()) + text + body


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


def write(path: str | os.PathLike[str], data: bytes, *, sync: bool = True) -> None:
    """Write a file so that a crash leaves the old one or the new one: temporary file, fsync, rename, fsync.

    Without `sync` that holds for crashes of the process, not of the machine, and is hundreds of times faster.

    Raises
    ------
    OSError
        The disk is full, the directory is read-only and so on; the old file is untouched.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(target.parent)


def keep_previous(path: Path) -> None:
    """Keep the file at `path` as ``<path>.previous``; `path` itself stays in place throughout."""
    if path.exists():
        spare = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        os.link(path, spare)
        os.replace(spare, path.with_name(f"{path.name}.previous"))


def sync_directory(path: Path) -> None:
    """Make a rename in a directory last; quietly nothing where directories cannot be opened."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def read(path: str | os.PathLike[str], *, limit_bytes: int = LIMIT_BYTES) -> tuple[Header, Arrays]:
    """Read a file that `write` wrote of `encode`.

    Raises
    ------
    SnapshotError
        As for `decode`; nothing larger than the header has been read unless its sizes are consistent.
    OSError
        The file cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            return _read(file, limit_bytes)
        except SnapshotError as error:
            raise SnapshotError(f"{os.fspath(path)}: {error}") from None


def _read(file: IO[bytes], limit_bytes: int) -> tuple[Header, Arrays]:
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(PREFIX.size)
    length = _header_length(prefix, size, limit_bytes)
    rest = size - PREFIX.size - length
    header, table, digest = _parsed(prefix, file.read(length), rest)
    return header, _unpacked(table, file.read(rest), digest)


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
        table, total = [], 0
        for name, dtype, shape, offset in outer["arrays"]:
            if dtype not in DTYPES or offset != total or not all(type(n) is int and n >= 0 for n in shape):
                raise ValueError(name)
            total += prod(shape) * np.dtype(dtype).itemsize
            table.append((str(name), str(dtype), tuple(shape)))
        header, digest, size = dict(outer["state"]), str(outer["sha256"]), outer["size"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
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
