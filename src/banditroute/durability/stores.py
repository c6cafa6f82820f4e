"""Where replicas meet: what every store has in common, and a store of plain files on a shared volume."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from banditroute._core import container
from banditroute._core.files import locked
from banditroute.records import StateStore, StoreRow

__all__ = ["BASE", "FileStore", "StateStore", "StoreRow", "actual", "order", "parsed"]

BASE = "base"  # the evidence of replicas that are gone, under a name that no replica has
LARGEST = 1 << 53  # numbers of a row are below: JSON of other languages holds no larger integers
LONGEST = 160  # characters of a file's name; longer ones are hashed
ROW_BYTES = 1 << 26  # a larger file is no row


def order(row: object) -> tuple[int, float]:
    """Return what tells a newer row from an older one; what is missing, or no row, is older than any.

    Examples
    --------
    >>> order({"seq": 2, "beat": 5}) > order({"seq": 2, "beat": 4}) > order(None)
    True
    >>> order({"seq": 1e300, "beat": 1}) == order("no row") == order(None)
    True
    """
    if isinstance(row, Mapping):
        seq, beat = _number(row.get("seq")), _number(row.get("beat"))
        if seq >= 0.0 and beat >= 0.0 and seq.is_integer():
            return int(seq), beat
    return -1, -1.0


def _number(value: Any) -> float:
    good = type(value) in (int, float) and 0 <= value < LARGEST  # what is not a number fails both
    return float(value) if good else -1.0


def parsed(data: bytes | None) -> StoreRow:
    """Return the row that these bytes of JSON hold, {} where they hold none.

    Examples
    --------
    >>> parsed(b'{"seq": 1, "beat": 0}'), parsed(b"[]"), parsed(b"[" * 100_000)
    ({'seq': 1, 'beat': 0}, {}, {})
    """
    try:
        row = json.loads(data or b"")
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def actual(old: object, row: StoreRow, given: Mapping[str, bytes]) -> tuple[StoreRow, list[str], list[str]]:
    """Return the row that is true of a store after a put, parts missing for the wanted one, and parts to delete.

    Examples
    --------
    >>> actual({"parts": {"c": 1}}, {"parts": {"a": 2, "b": 1}}, {"a": b""})
    ({'parts': {'a': 2}, 'lacking': {'b': 1}}, ['b'], ['c'])
    """
    wanted: Mapping[str, int] = row.get("parts", {})
    before = old.get("parts") if isinstance(old, Mapping) else None
    before = before if isinstance(before, Mapping) else {}
    held = {n: v if n in given else before.get(n) for n, v in wanted.items()}
    missing = [n for n, v in wanted.items() if held[n] != v]
    lacking = {**row.get("lacking", {}), **{n: wanted[n] for n in missing}}
    parts = {n: v for n, v in held.items() if v is not None}
    gone = [n for n in before if n not in wanted and n not in lacking]
    return {**row, "parts": parts, "lacking": lacking}, missing, gone


def _file_name(name: str) -> str:
    data = name.encode(errors="surrogatepass")
    return data.hex() if 2 * len(data) <= LONGEST else "~" + hashlib.sha256(data).hexdigest()


class FileStore:
    """A store of files in a directory that all replicas see; no dependency, no server.

    Parameters
    ----------
    directory : path
        Made when missing. On a network file system it needs working locks (``flock``) and renames.

    Notes
    -----
    Writes are atomic for processes that crash. A machine that loses power may lose the newest files: they are refused
    by checksum and put again by their replica. Files of other programs are passed over. A kept decision costs a file:
    tens of microseconds in the thread.

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
        self._replicas = self._home / "replicas"
        self._open, self._taken = self._home / "decisions", self._home / "answered"
        self._made()
        self._kept = 0

    def __repr__(self) -> str:
        return f"FileStore({str(self._home)!r})"

    def _made(self) -> None:
        for place in (self._replicas, self._open, self._taken):
            place.mkdir(parents=True, exist_ok=True)

    def _locked(self, name: str = "lock") -> AbstractContextManager[None]:
        return locked(self._home / name)

    def _place(self, replica: str) -> Path:
        return self._replicas / _file_name(replica)

    def _part(self, replica: str, name: str) -> Path:
        return self._place(replica) / f"part-{_file_name(name)}"

    def _row(self, place: Path) -> StoreRow:
        """Return what is stored as the row, with the name of its replica; {} for what is no row."""
        try:
            path = place / "row"
            return {} if path.stat().st_size > ROW_BYTES else parsed(path.read_bytes())
        except OSError:  # missing, a folder, a bad sector: this one alone
            return {}

    def index(self) -> dict[str, StoreRow]:
        """Return the row of every replica; {} for what is no row, under the name of its file."""
        rows = {}
        with self._locked():
            self._made()
            for place in self._replicas.iterdir():
                row = self._row(place)
                name = row.pop("replica", None)
                if not isinstance(name, str) or _file_name(name) != place.name:
                    name, row = place.name, {}
                rows[name] = row
        return rows

    def put(self, replica: str, row: StoreRow, parts: Mapping[str, bytes]) -> list[str]:
        """Replace row and parts, unless the row there is as new; returns the parts that are missing."""
        with self._locked():
            return self._put(replica, row, parts)

    def _put(self, replica: str, row: StoreRow, parts: Mapping[str, bytes]) -> list[str]:
        place = self._place(replica)
        old = self._row(place)
        if order(old) >= order(row):
            return []
        row, missing, gone = actual(old, row, parts)
        place.mkdir(parents=True, exist_ok=True)
        for name, data in parts.items():
            container.write(self._part(replica, name), data, sync=False)
        container.write(place / "row", json.dumps({**row, "replica": replica}).encode(), sync=False)
        for name in gone:
            with suppress(OSError):
                self._part(replica, name).unlink()
        return missing

    def fetch(self, replica: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return those of the named parts that exist and can be read."""
        found: dict[str, bytes] = {}
        with self._locked():
            for name in names:
                with suppress(OSError):
                    found[name] = self._part(replica, name).read_bytes()
        return found

    def compact(
        self,
        expected: StoreRow | None,
        row: StoreRow,
        parts: Mapping[str, bytes],
        gone: Mapping[str, StoreRow],
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

    # Decisions have a lock of their own: an answer does not wait for rows.

    def keep(self, decisions: Mapping[int, bytes], ttl_s: float) -> None:
        """Keep pending decisions; old ones are cleared now and then."""
        with self._locked("claims"):
            self._made()
            for key, data in decisions.items():
                name = f"{key:016x}"
                if not (self._taken / name).exists() and not (self._open / name).exists():
                    container.write(self._open / name, data, sync=False)
        self._kept += len(decisions)
        if self._kept >= 10_000:
            self._kept = 0
            self._clear(2.0 * ttl_s)  # clocks of machines differ

    def _clear(self, age_s: float) -> None:
        for place in (self._open, self._taken):
            with os.scandir(place) as entries:
                files = [e for e in entries if len(e.name) == 16 and not e.name.startswith(".")]
            times = {}
            for entry in files:
                with suppress(OSError):
                    times[entry.path] = entry.stat().st_mtime
            newest = max(times.values(), default=0.0)
            for path, time in times.items():
                if time < newest - age_s:
                    with suppress(OSError):
                        os.unlink(path)

    def look(self, keys: Sequence[int]) -> list[bytes | None]:
        """Return decisions without taking them."""
        with self._locked("claims"):
            return [self._seen(f"{key:016x}") for key in keys]

    def _seen(self, name: str) -> bytes | None:
        if (self._taken / name).exists():
            return b""
        try:
            return (self._open / name).read_bytes()
        except FileNotFoundError:
            return None

    def take(self, keys: Sequence[int], token: str) -> list[bytes | None]:
        """Take decisions for a token; asked with the same token, it answers the same again."""
        with self._locked("claims"):
            return [self._take(f"{key:016x}", token.encode()) for key in keys]

    def _take(self, name: str, token: bytes) -> bytes | None:
        try:
            holder, _, data = (self._taken / name).read_bytes().partition(b"\n")
            return data if holder == token else b""
        except FileNotFoundError:
            pass
        found = self._seen(name)
        if found:
            self._taken.mkdir(parents=True, exist_ok=True)
            container.write(self._taken / name, token + b"\n" + found, sync=False)
            # A crash here leaves both: what is taken counts.
            with suppress(OSError):
                (self._open / name).unlink()
        return found
