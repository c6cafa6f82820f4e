"""Traces as npz: the arrays as they are, each with its checksum."""

import json
import struct
import zipfile
import zlib
from io import BufferedReader
from typing import IO, Any

import numpy as np

from banditroute.logs.builder import Gathered
from banditroute.logs.fields import FIELDS, Columns, header_of, present, told

__all__ = ["read_npz", "save_npz"]

_BLOCK = 1 << 16  # bytes summed at once: they stay in the cache


def save_npz(trace: Columns, file: IO[bytes]) -> None:
    """Write a trace as named arrays and a header; a directory can lose an entry and look whole, so it lists them."""
    columns = present(trace)
    header = {**header_of(trace), "columns": list(columns)}
    arrays: dict[str, Any] = {"header": np.array(json.dumps(header)), **columns}
    np.savez(file, **arrays)


def read_npz(file: BufferedReader) -> Gathered:
    """Read the arrays of a trace."""
    if not zipfile.is_zipfile(file):
        raise ValueError("it is not an .npz file")
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if "header" not in members:
            raise ValueError(f"it is not a trace, it holds {', '.join(members)}")
        arrays = {name: _member(file, info) for name, info in members.items()}
    header = told(json.loads(str(arrays["header"])))
    missing = {"arms", "rewards", *header.get("columns", ())} - set(arrays)
    if missing:
        raise ValueError(f"it is damaged: {min(missing)} is missing")
    columns = {name: array for name, array in arrays.items() if name in FIELDS}
    left = [f"`{name}`" for name in arrays if name not in FIELDS and name != "header"]
    notes = (f"not used: {', '.join(left)}",) if left else ()
    return Gathered({"names": header["names"], "policies": header["policies"], **columns}, notes)


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
