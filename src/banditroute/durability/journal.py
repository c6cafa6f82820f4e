"""The journal of a Router: what happened since the last checkpoint, appended off the request path.

A directory holds generations: ``snapshot-N`` is the state at which ``journal-N`` starts. Recovery takes the newest
good snapshot and replays its journal and every later one. A record is ``length (u32) | crc32 (u32) | payload``;
reading stops at the first that does not check, so a torn tail costs the records in it and nothing else.
"""

import json
import logging
import os
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from banditroute._core import container
from banditroute._core import validation as check
from banditroute._core.files import lock, unlock
from banditroute.durability import snapshots as snapshot
from banditroute.errors import SnapshotError
from banditroute.records import Pending

__all__ = ["Journal", "packed", "records", "recover", "unpacked"]

log = logging.getLogger("banditroute.durability.journal")

MAGIC = b"bndjrnl1"
FRAME = struct.Struct("<II")
DECISION = struct.Struct("<BQqdd?H")
FEEDBACK = struct.Struct("<BQd")
EXPIRY = struct.Struct("<BQ")
FOREIGN = struct.Struct("<Bd")
D, F, X, E, A = 1, 2, 3, 4, 5  # decision, feedback, expiry, event, feedback to a decision made elsewhere
LARGEST = 1 << 24  # bytes of a record: longer lengths are torn or hostile
BUFFER_LIMIT = 1 << 26  # bytes kept while the disk refuses; beyond it records are dropped and counted


def records(path: str | os.PathLike[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield where each good record of one journal file ends, and the record, in order.

    Parameters
    ----------
    path : path

    Yields
    ------
    (int, tuple)
        Bytes up to here, and ``("decision", id, Pending, hit)``, ``("feedback", id, reward)``, ``("expiry", id)``,
        ``("foreign", id, Pending, reward)`` or ``("event", dict)``.

    Raises
    ------
    SnapshotError
        Not a journal; torn tails are no error, they end the iteration.
    """
    with open(path, "rb") as file:
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            if MAGIC.startswith(magic):  # the crash came before the first record
                return
            raise SnapshotError(f"{os.fspath(path)}: a journal must start with {MAGIC!r}, got {magic!r}")
        end = len(MAGIC)
        while len(frame := file.read(FRAME.size)) == FRAME.size:
            length, checksum = FRAME.unpack(frame)
            if length > LARGEST:
                return
            payload = file.read(length)
            if len(payload) < length or zlib.crc32(payload) != checksum:
                return
            record = _parsed(payload)
            if record is None:
                return
            end += FRAME.size + length
            yield end, record


def packed(key: int, pending: Pending, hit: bool) -> bytes:
    """Return a decision as bytes.

    Examples
    --------
    >>> unpacked(packed(7, Pending("math", np.ones(2), 1.0, 0.0, 3), True)).arm
    'math'
    """
    name = pending.arm.encode()
    head = DECISION.pack(D, key, pending.at, pending.time, pending.propensity, hit, len(name))
    return head + name + pending.context.tobytes()


def unpacked(data: bytes) -> Pending | None:
    """Return the decision that `packed` was given, or None where the bytes are none."""
    record = _parsed(data)
    return record[2] if record is not None and record[0] == "decision" else None


def _parsed(payload: bytes) -> tuple[Any, ...] | None:
    try:
        kind = payload[0]
        if kind == D:
            _, key, at, time, propensity, hit, size = DECISION.unpack_from(payload)
            start = DECISION.size
            arm = payload[start : start + size].decode()
            context = np.frombuffer(payload, dtype="<f8", offset=start + size).astype(np.float64)
            return "decision", key, Pending(arm, context, propensity, time, at), hit
        if kind == F:
            return ("feedback", *FEEDBACK.unpack(payload)[1:])
        if kind == X:
            return "expiry", EXPIRY.unpack(payload)[1]
        if kind == A:
            inner = _parsed(payload[FOREIGN.size :])
            if inner is not None and inner[0] == "decision":
                return ("foreign", *inner[1:3], FOREIGN.unpack_from(payload)[1])
        if kind == E:
            return "event", dict(json.loads(payload[1:]))
    except (ValueError, IndexError, struct.error, RecursionError):
        pass
    return None


class Journal:
    """Appends what a Router decides and learns, and checkpoints it now and then, in a thread of its own.

    Made by `Router.recover`.

    Notes
    -----
    A record costs the request path about a microsecond: it is packed and put in a list. The thread writes every
    ``flush_s``; a process that is killed loses what came after, a machine that loses power what was not synced.
    When the disk refuses, records are kept (64 MiB at most) and written later; serving goes on.
    """

    def __init__(
        self, router: Any, directory: Path, generation: int, *, checkpoint_s: float, flush_s: float, keep: int
    ) -> None:
        self._router, self._directory, self._keep = router, directory, keep
        self._generation = generation
        self._buffer: list[bytes] = []
        self._unsent = b""
        self._buffered = 0
        self._io = threading.RLock()
        self._file: IO[bytes] | None = None
        self._lock_file: IO[bytes] | None = None
        self._good = 0  # bytes of the file known to be whole
        self.records = self.dropped = self.errors = self.checkpoints = 0
        self._checkpoint_s, self._flush_s = checkpoint_s, flush_s
        self._stop, self.closed = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="banditroute-journal", daemon=True)

    # What the Router calls, with its lock held.

    def decision(self, key: int, pending: Pending, hit: bool) -> None:
        """Record a decision."""
        self._append(packed(key, pending, hit))

    def foreign(self, key: int, pending: Pending, reward: float) -> None:
        """Record the reward of a decision that another replica made."""
        self._append(FOREIGN.pack(A, reward) + packed(key, pending, True))

    def feedback(self, key: int, reward: float) -> None:
        """Record the reward that answered a decision."""
        self._append(FEEDBACK.pack(F, key, reward))

    def expiry(self, key: int) -> None:
        """Record a decision that expired."""
        self._append(EXPIRY.pack(X, key))

    def event(self, what: str, value: Any) -> None:
        """Record a change of arms or of quarantine."""
        self._append(bytes([E]) + json.dumps({"what": what, "value": value}).encode())

    def _append(self, payload: bytes) -> None:
        if self.closed or self._buffered > BUFFER_LIMIT:
            self.dropped += 1
            return
        self._buffer.append(FRAME.pack(len(payload), zlib.crc32(payload)) + payload)
        self._buffered += len(payload) + FRAME.size
        self.records += 1

    # Writing; never with the Router's lock held.

    def flush(self) -> None:
        """Hand everything recorded so far to the operating system and sync it.

        Raises
        ------
        OSError
            The disk refuses; records are kept for the next attempt.
        """
        with self._io:
            with self._router._lock:
                taken, self._buffer = self._buffer, []
            self._unsent += b"".join(taken)
            self._write()

    def _write(self) -> None:
        if not self._unsent or self._file is None:
            return
        try:
            self._file.write(self._unsent)
            os.fsync(self._file.fileno())
        except OSError:
            try:  # a half-written record would hide what comes after it
                self._file.truncate(self._good)
                self._file.seek(self._good)
            except OSError:
                log.exception("journal %s cannot be repaired yet", self._file.name)
            raise
        self._good += len(self._unsent)
        with self._router._lock:
            self._buffered -= len(self._unsent)
        self._unsent = b""

    def checkpoint(self) -> None:
        """Start a generation: a snapshot of now, and a journal that goes on from it.

        Raises
        ------
        OSError
            The disk refuses; the generation before goes on.
        """
        with self._io:
            if self.closed:
                return
            number = self._generation + 1
            path = self._directory / f"journal-{number:012d}"
            fresh = open(path, "wb", buffering=0)  # noqa: SIM115 - it stays open until the next generation
            try:
                fresh.write(MAGIC)
                os.fsync(fresh.fileno())
            except OSError:
                fresh.close()
                path.unlink(missing_ok=True)
                raise
            with self._router._lock:
                self._router._settle()
                header, arrays = snapshot.capture(self._router)
                taken, self._buffer = self._buffer, []
            self._unsent += b"".join(taken)
            try:
                self._write()
            except (
                OSError
            ):  # what the old file lacks is in the snapshot; a reader of the old one must not go on
                log.exception("journal generation %d ends early", self._generation)
            if self._file is not None:
                self._file.close()
            with self._router._lock:
                self._buffered -= len(self._unsent)
            self._unsent, self._file, self._good = b"", fresh, len(MAGIC)
            self._generation = number
        container.write(self._directory / f"snapshot-{number:012d}", container.encode(header, arrays))
        self.checkpoints += 1
        oldest = _generations(self._directory, "snapshot")[-self._keep :][0][0]
        for kind in ("snapshot", "journal"):
            for old, path in _generations(self._directory, kind):
                if old < oldest:
                    path.unlink(missing_ok=True)

    def _run(self) -> None:
        waited = 0.0
        while not self._stop.wait(self._flush_s):
            waited += self._flush_s
            try:
                self.flush()
                if waited >= self._checkpoint_s:
                    waited = 0.0
                    self.checkpoint()
            except OSError as error:
                self.errors += 1
                log.error("journal in %s: %s", self._directory, error)

    def start(self, lock_file: IO[bytes]) -> None:
        """Write the first generation and start the thread."""
        self._lock_file = lock_file
        self.checkpoint()
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, checkpoint, and free the directory."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        try:
            self.checkpoint()
        except OSError as error:
            self.errors += 1
            log.error("journal in %s: %s", self._directory, error)
        if self._lock_file is not None:
            unlock(self._lock_file)
        self.abandon()

    def abandon(self) -> None:
        """Close the files as they are: at the end, and in a forked child, to which they do not belong."""
        self.closed = True
        for file in (self._file, self._lock_file):
            if file is not None:
                file.close()
        self._file = None

    def stats(self) -> dict[str, int]:
        """Return counters: records, dropped, errors, checkpoints and the generation."""
        return {
            "journal_records": self.records,
            "journal_dropped": self.dropped,
            "journal_errors": self.errors,
            "checkpoints": self.checkpoints,
            "generation": self._generation,
        }


def recover(
    router: Any, directory: str | os.PathLike[str], *, checkpoint_s: float, flush_s: float, keep: int
) -> dict[str, Any]:
    """Restore a fresh Router from a directory and keep a journal there; see `Router.recover`."""
    period = check.finite("checkpoint_s", checkpoint_s, low=0.0, high=check.LONGEST_S, open_low=True)
    flush = check.finite("flush_s", flush_s, low=0.0, high=check.LONGEST_S, open_low=True)
    kept = check.integer("keep", keep, low=1)
    if router._index or router._journal is not None:
        raise ValueError(f"recover must come before the first decision, got {router._index} decisions")
    home = Path(directory)
    home.mkdir(parents=True, exist_ok=True)
    lock_file = open(home / "lock", "ab", buffering=0)  # noqa: SIM115 - held as long as the journal is
    try:
        lock(lock_file, wait=False)
    except OSError:
        lock_file.close()
        raise ValueError(f"directory must not be in use by another process, got {home}") from None
    with router._lock:
        fresh = snapshot.capture(router)
    journal = None
    try:
        report = _restore(router, home)
        numbers = [n for kind in ("snapshot", "journal") for n, _ in _generations(home, kind)]
        journal = Journal(
            router, home, max(numbers, default=0), checkpoint_s=period, flush_s=flush, keep=kept
        )
        journal.start(lock_file)
    except BaseException:  # as it was before, so that it can be tried again
        if journal is not None:
            journal.abandon()
        lock_file.close()
        with router._lock:
            snapshot.restore(router, *fresh)
        raise
    with router._lock:
        router._journal = journal
        router._watched = True
    return report


def _restore(router: Any, home: Path) -> dict[str, Any]:
    for torn in home.glob(".snapshot-*"):  # of a process that was killed while it wrote
        torn.unlink(missing_ok=True)
    snapshots = _generations(home, "snapshot")
    refused, found = [], 0
    for number, path in reversed(snapshots):
        try:
            header, arrays = container.read(path)
            with router._lock:
                snapshot.restore(router, header, arrays)
            found = number
            break
        except SnapshotError as error:
            log.warning("snapshot refused: %s", error)
            refused.append(str(error))
    if snapshots and not found:
        raise SnapshotError(f"{home} must hold a good snapshot, got {refused[0]}")
    report: dict[str, Any] = {
        "generation": found,
        "replayed": 0,
        "skipped": 0,
        "torn_bytes": 0,
        "refused": refused,
    }
    for number, path in _generations(home, "journal"):
        if found and number >= found:
            read = min(len(MAGIC), path.stat().st_size)
            for end, record in records(path):
                report["replayed" if _replay(router, record) else "skipped"] += 1
                read = end
            report["torn_bytes"] += path.stat().st_size - read
    return report


def _generations(home: Path, kind: str) -> list[tuple[int, Path]]:
    found = [(re.fullmatch(rf"{kind}-(\d{{12}})", p.name), p) for p in home.iterdir()]
    return sorted((int(m[1]), p) for m, p in found if m)


def _replay(router: Any, record: tuple[Any, ...]) -> bool:
    """Put one record into effect; False where it does not apply (any more)."""
    kind = record[0]
    with router._lock:
        try:
            if kind == "decision":
                return _decided(router, *record[1:])
            if kind == "feedback":
                pending = router._ledger.pending.get(record[1])
                if pending is None:
                    return False
                router._learn(record[1], pending, record[2])
                return True
            if kind == "foreign":
                if record[1] in router._ledger.closed:
                    return False
                router._ledger._remember(record[1], True)
                return bool(router._absorb(*record[1:], foreign=True))
            if kind == "expiry":
                if record[1] not in router._ledger.pending:
                    return False
                router._ledger._expire(record[1])
                return True
            return _happened(router, record[1]["what"], record[1]["value"])
        except (ValueError, TypeError, LookupError) as error:
            log.warning("journal record passed over: %s", error)
            return False


def _decided(router: Any, key: int, pending: Pending, hit: bool) -> bool:
    policy, controller = router.policy, router.residency
    arm = policy.positions.get(pending.arm)
    if arm is None or key in router._ledger.pending or key in router._ledger.closed:
        return False
    policy.check_context(pending.context)
    policy.advance(pending.at)
    policy.select(pending.context)  # for the random numbers that the decision used
    if controller is not None:
        controller.observe(arm, pending.context, hit)
        if not hit and controller.inserts:
            router._insert(arm)
    router._index += 1
    router._hits += hit
    router._pending[arm] += 1
    router._plays[arm] += 1
    router._offset = pending.time - router._clock()
    router._ledger.put(key, pending)
    return True


def _happened(router: Any, what: str, value: Any) -> bool:
    if what in ("quarantine", "release"):
        router._set_quarantine(value, what == "quarantine")
    elif what == "add":
        router.add_arm(value[0], size=value[1], fault=value[2])
    elif what == "answered":  # on another replica
        pending = router._ledger.pending.get(value)
        if pending is None:
            return False
        router._ledger.answer(value)
        router._settled(pending)
    elif what == "remove":
        router.remove_arm(router.policy.arms[value])
    else:
        return False
    return True
