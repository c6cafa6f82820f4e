"""Where replicas meet: the store protocol, and a store of plain files on a shared volume."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from banditroute._core import container
from banditroute._core.files import locked

__all__ = ["BASE", "FileStore", "Row", "StateStore", "actual", "order"]

Row = dict[str, Any]

BASE = "base"  # the evidence of replicas that are gone, under a name that no replica has


def order(row: Row | None) -> tuple[int, float]:
    """Return what tells a newer row from an older one; a missing row is older than any.

    Examples
    --------
    >>> order({"seq": 2, "beat": 5}) > order({"seq": 2, "beat": 4}) > order(None)
    True
    """
    return (-1, -1.0) if row is None else (int(row["seq"]), float(row["beat"]))


def actual(old: Row | None, row: Row, given: Mapping[str, bytes]) -> tuple[Row, list[str]]:
    """Return the row that is true of a store after a put, and the parts missing for the wanted one.

    Examples
    --------
    >>> actual(None, {"parts": {"a": 2, "b": 1}}, {"a": b""})
    ({'parts': {'a': 2}, 'lacking': {'b': 1}}, ['b'])
    """
    wanted = row.get("parts", {})
    before = {} if old is None else old.get("parts", {})
    held = {n: v if n in given else before.get(n) for n, v in wanted.items()}
    missing = [n for n, v in wanted.items() if held[n] != v]
    lacking = {**row.get("lacking", {}), **{n: wanted[n] for n in missing}}
    return {**row, "parts": {n: v for n, v in held.items() if v is not None}, "lacking": lacking}, missing


@runtime_checkable
class StateStore(Protocol):
    """What replicas need of a store; every call may raise ``OSError`` when it is down, and is then tried again.

    A row is a small JSON object with at least ``seq`` and ``beat``; parts are bytes by name. Rows and parts of one
    replica change together. Ids are 64-bit integers.

    Examples
    --------
    >>> issubclass(FileStore, StateStore)
    True
    """

    def index(self) -> dict[str, Row]:
        """Return the row of every replica, `BASE` included."""

    def put(self, replica: str, row: Row, parts: Mapping[str, bytes]) -> list[str]:
        """Replace the row and these parts, unless the row there is as new: retries and stragglers do no harm.

        ``row["parts"]`` tells the version of every part. The row that is stored tells what the store really has: the
        given parts, and the others as before; ``lacking`` names the rest with the version wanted. Returns their
        names: the store has been flushed.
        """

    def fetch(self, replica: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return those of the named parts that exist."""

    def compact(
        self, expected: Row | None, row: Row, parts: Mapping[str, bytes], gone: Mapping[str, Row]
    ) -> bool:
        """Replace `BASE` and delete the replicas in `gone`, at once, if all of them are still as given; else False."""

    def keep(self, decisions: Mapping[int, bytes], ttl_s: float) -> None:
        """Keep pending decisions for any replica to answer."""

    def take(self, keys: Sequence[int]) -> list[bytes | None]:
        """Take decisions, each of them once: its bytes, b"" where it was taken before, None where it is unknown."""


class FileStore:
    """A store of files in a directory that all replicas see; no dependency, no server.

    Parameters
    ----------
    directory : path
        Made when missing. On a network file system it needs working locks (``flock``) and renames.

    Notes
    -----
    Writes are atomic for processes that crash. A machine that loses power may lose the newest files: they are refused
    by checksum and put again by their replica. A kept decision costs a file: tens of microseconds in the thread.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     store = FileStore(directory)
    ...     missing = store.put("a", {"seq": 1, "beat": 0}, {"arm": b"bytes"})
    ...     sorted(store.index()), store.fetch("a", ["arm", "other"])
    (['a'], {'arm': b'bytes'})
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._home = Path(directory)
        for name in ("replicas", "decisions", "answered"):
            (self._home / name).mkdir(parents=True, exist_ok=True)
        self._kept = 0

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self._home / "lock")

    def _place(self, replica: str) -> Path:
        return self._home / "replicas" / replica.encode().hex()

    def _row(self, place: Path) -> Row | None:
        try:
            row = json.loads((place / "row").read_bytes())
            order(row)
            return dict(row)
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
            return None

    def index(self) -> dict[str, Row]:
        """Return the row of every replica; torn ones are left out."""
        with self._locked():
            rows = {bytes.fromhex(p.name).decode(): self._row(p) for p in (self._home / "replicas").iterdir()}
        return {name: row for name, row in rows.items() if row is not None}

    def put(self, replica: str, row: Row, parts: Mapping[str, bytes]) -> list[str]:
        """Replace row and parts, unless the row there is as new; returns the parts that are missing."""
        with self._locked():
            return self._put(replica, row, parts)

    def _put(self, replica: str, row: Row, parts: Mapping[str, bytes]) -> list[str]:
        place = self._place(replica)
        old = self._row(place)
        if order(old) >= order(row):
            return []
        row, missing = actual(old, row, parts)
        place.mkdir(exist_ok=True)
        for name, data in parts.items():
            container.write(place / f"part-{name.encode().hex()}", data, sync=False)
        container.write(place / "row", json.dumps(row).encode(), sync=False)
        return missing

    def fetch(self, replica: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return those of the named parts that exist."""
        found: dict[str, bytes] = {}
        place = self._place(replica)
        with self._locked():
            for name in names:
                with suppress(FileNotFoundError, NotADirectoryError):
                    found[name] = (place / f"part-{name.encode().hex()}").read_bytes()
        return found

    def compact(
        self, expected: Row | None, row: Row, parts: Mapping[str, bytes], gone: Mapping[str, Row]
    ) -> bool:
        """Replace `BASE` and delete the replicas in `gone` if all are as given."""
        with self._locked():
            seen = {BASE: expected, **gone}
            if any(order(self._row(self._place(name))) != order(wanted) for name, wanted in seen.items()):
                return False
            # A crash after this leaves rows that the new base names as folded: readers pass over them.
            self._put(BASE, row, parts)
            for name in gone:
                shutil.rmtree(self._place(name), ignore_errors=True)
        return True

    def keep(self, decisions: Mapping[int, bytes], ttl_s: float) -> None:
        """Keep pending decisions; old ones are cleared now and then."""
        for key, data in decisions.items():
            container.write(self._home / "decisions" / f"{key:016x}", data, sync=False)
        self._kept += len(decisions)
        if self._kept >= 10_000:
            self._kept = 0
            self._clear(2.0 * ttl_s)  # clocks of machines differ

    def _clear(self, age_s: float) -> None:
        for place in ("decisions", "answered"):
            newest = max((e.stat().st_mtime for e in os.scandir(self._home / place)), default=0.0)
            for entry in os.scandir(self._home / place):
                with suppress(FileNotFoundError):
                    if entry.stat().st_mtime < newest - age_s:
                        os.unlink(entry.path)

    def take(self, keys: Sequence[int]) -> list[bytes | None]:
        """Take decisions: of several takers of one, a rename lets one win."""
        return [self._take(f"{key:016x}") for key in keys]

    def _take(self, name: str) -> bytes | None:
        answered = self._home / "answered" / name
        try:
            os.rename(self._home / "decisions" / name, answered)
        except FileNotFoundError:
            return b"" if answered.exists() else None
        data = answered.read_bytes()
        with suppress(OSError):
            os.truncate(answered, 0)
        return data
