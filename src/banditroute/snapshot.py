"""Snapshots: a checked container of JSON and arrays, and what of a Router goes into it.

A file is ``magic (8) | format (u32) | header length (u32) | sha256 of the header (32) | header | arrays``. The JSON
header names every array with dtype, shape and offset and holds the sha256 of all of them. Arrays are raw, little-endian
and contiguous. Every byte is covered, so a torn or altered file is refused; sizes are checked against the length of the
file and a limit before anything of that size is read.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from copy import deepcopy
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from banditroute._attributes import fill, flatten
from banditroute.decision import Ledger, Pending
from banditroute.errors import SnapshotError
from banditroute.residency.resident import ResidentSet

__all__ = ["FORMAT", "LIMIT_BYTES", "capture", "decode", "encode", "read", "restore", "write"]

Header = dict[str, Any]
Arrays = dict[str, NDArray[Any]]

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


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one: temporary file, fsync, rename, fsync.

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
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
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


# What of a Router goes in.


def capture(router: Any) -> tuple[Header, Arrays]:
    """Return the whole state of a Router as a header and copies of arrays; the caller holds the lock.

    Statistics, generators, pending decisions, answered ids, residency, counters and the clock. Never callbacks.
    """
    policy_header, policy_arrays = router.policy.to_state()
    arrays: Arrays = {f"policy.{name}": array for name, array in policy_arrays.items()}
    arrays |= _ledger_arrays(router._ledger)
    names = sorted({p.arm for p in router._ledger.pending.values()})
    place = {name: i for i, name in enumerate(names)}
    arrays["pending.arm"] = np.array([place[p.arm] for p in router._ledger.pending.values()], dtype=np.int64)
    header: Header = {
        "policy": policy_header,
        "pending_arms": names,
        "ledger": {k: getattr(router._ledger, k) for k in ("expired", "duplicates", "late")},
        "router": {k: getattr(router, f"_{k}") for k in router._COUNTERS},
        "time": router._now(),
    }
    for name in router._PER_ARM:
        arrays[f"router.{name}"] = getattr(router, f"_{name}").copy()
    for name in router._PER_ARM_LISTS:
        arrays[f"router.{name}"] = np.array(getattr(router, f"_{name}"), dtype=np.float64)
    resident, controller = router._resident, router.residency
    if resident is not None and controller is not None:
        arrays["resident.mask"], arrays["resident.sizes"] = resident.mask.copy(), resident.sizes.copy()
        header["resident"] = [resident.page_ins, resident.evictions, resident.capacity]
        header["controller"] = flatten(controller, "controller", arrays)
    return header, arrays


def restore(router: Any, header: Header, arrays: Arrays) -> None:
    """Put a captured state into a Router of the same settings; the caller holds the lock.

    Raises
    ------
    SnapshotError
        The state does not fit this Router; nothing changed.
    """
    try:
        _restore(router, header, arrays)
    except SnapshotError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise SnapshotError(f"the snapshot must fit this router: {error}") from error


def _restore(router: Any, header: Header, arrays: Arrays) -> None:
    count = len(header["policy"]["arms"])
    counters = {k: header["router"][k] for k in router._COUNTERS if k in header["router"]}
    for key, value in counters.items():
        if type(value) not in (int, float):
            raise ValueError(f"{key} must be a number, got {value!r}")
    per_arm = {k: arrays[f"router.{k}"] for k in router._PER_ARM if f"router.{k}" in arrays}
    for key, values in per_arm.items():
        if values.shape != (count,) or values.dtype != getattr(router, f"_{key}").dtype:
            raise ValueError(f"{key} must have shape ({count},), got {values.shape} of {values.dtype}")
    lists = {k: arrays.get(f"router.{k}", np.zeros(count)).tolist() for k in router._PER_ARM_LISTS}
    if any(len(values) != count for values in lists.values()):
        raise ValueError(f"counters of arms must have shape ({count},)")
    ledger = _ledger(router, header, arrays)
    time = float(header["time"])
    resident, controller = router._resident, router.residency
    if (controller is None) != ("controller" not in header):
        raise ValueError("residency must be there in both or in neither")
    if controller is not None and resident is not None:
        page_ins, evictions, capacity = header["resident"]
        if capacity != resident.capacity:
            raise ValueError(f"capacity must be {resident.capacity:g}, got {capacity:g}")
        controller = fill(deepcopy(controller), header["controller"], arrays)
        pinned = [header["policy"]["arms"].index(a) if isinstance(a, str) else a for a in controller.pinned]
        mask, sizes = arrays["resident.mask"], arrays["resident.sizes"]
        if mask.shape != (count,) or mask.dtype != np.bool_:
            raise ValueError(f"resident must have shape ({count},), got {mask.shape} of {mask.dtype}")
        resident = ResidentSet(count, capacity, sizes=sizes, pinned=pinned)
        resident.replace(np.flatnonzero(mask).tolist())
        resident.page_ins, resident.evictions = int(page_ins), int(evictions)
    policy_arrays = {k.removeprefix("policy."): v for k, v in arrays.items() if k.startswith("policy.")}
    router.policy.load_state(header["policy"], policy_arrays)  # the last step that can fail
    router._ledger = ledger
    for key, value in counters.items():
        setattr(router, f"_{key}", value)
    for key in router._PER_ARM:
        setattr(router, f"_{key}", per_arm.get(key, np.zeros(count, getattr(router, f"_{key}").dtype)))
    for key, values in lists.items():
        setattr(router, f"_{key}", values if key == "reward_sums" else [int(v) for v in values])
    router._offset = time - router._clock()
    router._boundary = 0
    if controller is not None and router.residency is not None:
        vars(router.residency).update(vars(controller))
        router._resident = resident
    router._reprice()


def _ledger_arrays(ledger: Ledger) -> Arrays:
    waiting = ledger.pending.values()
    dim = next(iter(waiting)).context.size if ledger.pending else 0
    return {
        "pending.id": np.fromiter(ledger.pending, dtype=np.uint64, count=len(ledger.pending)),
        "pending.context": np.array([p.context for p in waiting]).reshape(len(ledger.pending), dim),
        "pending.propensity": np.array([p.propensity for p in waiting], dtype=np.float64),
        "pending.time": np.array([p.time for p in waiting], dtype=np.float64),
        "pending.at": np.array([p.at for p in waiting], dtype=np.int64),
        "closed.id": np.fromiter(ledger.closed, dtype=np.uint64, count=len(ledger.closed)),
        "closed.answered": np.fromiter(ledger.closed.values(), dtype=np.bool_, count=len(ledger.closed)),
    }


def _ledger(router: Any, header: Header, arrays: Arrays) -> Ledger:
    old = router._ledger
    new = Ledger(time_limit=old.time_limit, size_limit=old.size_limit, on_expire=old._on_expire)
    new.expired, new.duplicates, new.late = (
        int(header["ledger"][k]) for k in ("expired", "duplicates", "late")
    )
    names = [str(name) for name in header["pending_arms"]]
    contexts = np.ascontiguousarray(arrays["pending.context"], dtype=np.float64)
    if len(contexts) and contexts.shape[1] != router.policy.dim:
        raise ValueError(f"pending contexts must have {router.policy.dim} columns, got {contexts.shape[1]}")
    rows = zip(
        arrays["pending.id"].tolist(),
        arrays["pending.arm"].tolist(),
        contexts,
        arrays["pending.propensity"].tolist(),
        arrays["pending.time"].tolist(),
        arrays["pending.at"].tolist(),
        strict=True,
    )
    for key, arm, context, propensity, time, at in rows:
        new.pending[key] = Pending(names[arm], context.copy(), propensity, time, at)
    ids, answered = arrays["closed.id"].tolist(), arrays["closed.answered"].tolist()
    new.closed.update(zip(ids, answered, strict=True))
    return new
