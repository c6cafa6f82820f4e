"""The journal of a Router: what happened since the last checkpoint, appended off the request path."""

import errno
import logging
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from stat import S_ISREG

from banditroute._core import container
from banditroute._core.background import Background
from banditroute._core.files import Folder
from banditroute.durability import journal_records as form
from banditroute.durability.journal_files import Kept, RecordFiles, Written, file_name
from banditroute.durability.snapshots import captured
from banditroute.records import (
    Answered,
    ArmChange,
    Decision,
    Deferred,
    Dropped,
    Event,
    Feedback,
    Host,
    Marked,
    Parts,
    Pending,
    Request,
    Why,
)

__all__ = ["Journal"]

BUFFER_LIMIT = 1 << 26  # bytes kept while the disk refuses; beyond it records are dropped and counted
NAMES = 4096  # encoded names that are kept


class Journal:
    """Records what happens in a Router, and checkpoints it now and then, in threads of its own: a listener.

    Made by `journal.recover`.

    Parameters
    ----------
    host : Host
    folder : Folder
        Locked; the journal closes it.
    position : int
        The number of the next record, and of the first that `host` does not hold.
    follows : int
        Up to where the files there must have been read for nothing to be missing before `position`.
    kept : list of Kept
        Snapshots there, oldest first.
    files : list of Written
        Files of the journal there, oldest first.
    checkpoint_s, flush_s : float
        Seconds between checkpoints and between writes.
    keep : int
        Snapshots to keep.
    log : logging.Logger

    Notes
    -----
    A record costs the request path about a microsecond: it is packed and put in a queue. A thread writes every
    ``flush_s``; a process that is killed loses what came after, a machine that loses power what was not synced.

    Records are numbered, and a snapshot tells the number at which it was taken. A record leaves memory when it is
    durable, or when a snapshot that holds its effect is. When the disk refuses for so long that 64 MiB wait, records
    are dropped and counted, none is taken until the next checkpoint, and what comes then is not written before the
    snapshot of that checkpoint is durable.
    """

    keeps_parts = False

    def __init__(
        self,
        host: Host,
        folder: Folder,
        *,
        position: int,
        follows: int,
        kept: list[Kept],
        files: list[Written],
        checkpoint_s: float,
        flush_s: float,
        keep: int,
        log: logging.Logger,
    ) -> None:
        self._host, self._folder, self._keep, self._log = host, folder, keep, log
        self._kept = kept
        numbers = (form.NUMBERED.fullmatch(name) for name in folder.names())
        number = max((int(match[2]) for match in numbers if match is not None), default=0)
        self._files = RecordFiles(folder, position, follows, files, number)
        self._generation = kept[-1].number if kept else 0
        # Under the host's lock.
        self._next = position
        self._gap = False  # records were dropped: none is taken until the next checkpoint
        self._bytes_in = 0
        self._imputed = -1  # the last decision that expired with a stated reward
        self._names: dict[str, bytes] = {}
        self.recorded = self.lost = 0
        self._io = threading.RLock()  # over the files
        self._noted: set[str] = set()
        self.errors = self.checkpoints = 0
        self.closed = self.moved = False
        self._one = threading.Lock()  # a checkpoint is under way
        self._flusher = Background("journal", self._round, period_s=flush_s, log=log)
        self._checkpointer = Background("checkpoint", self.checkpoint, period_s=checkpoint_s, log=log)

    def __repr__(self) -> str:
        """Show the directory and how many records were taken."""
        state = "closed" if self.closed else f"recorded={self.recorded}, lost={self.lost}"
        return f"Journal({str(self._folder.path)!r}, {state})"

    # What the Router calls, with its lock held.

    def decided(
        self, decision: Decision, request: Request, pending: Pending, forced: bool, parts: Parts | None
    ) -> None:
        """Record a decision."""
        name = self._names.get(pending[0])
        if name is None:
            name = self._known(pending[0])
        try:
            payload = form.decision(decision[0], pending, decision[3], forced, name)
        except BaseException:
            self._lose()
            raise
        self._append(payload)

    def learned(self, feedback: Feedback) -> None:
        """Record an answer, or the reward that stands for one that did not come."""
        if feedback.origin == "peer":  # learned by another worker, whose evidence brings it
            return
        if feedback.origin == "here" and feedback.cost is feedback.seconds is None and not feedback.failed:
            self._append(form.plain_answer(feedback.id, feedback.reward))  # the same in one piece, and faster
            return
        if feedback.origin == "expired":
            self._imputed = feedback.id
            self._record(Dropped(feedback.id, "expired", feedback.reward))
            return
        foreign = None
        if feedback.origin == "elsewhere":
            extras = feedback.request.extras
            kept = feedback.request.x if feedback.kept is None else feedback.kept
            foreign = Pending(
                feedback.arm, kept, 1.0, 0.0, feedback.request.at,
                weights=None if extras is None else extras.weights,
                session=None if extras is None else extras.session,
            )  # fmt: skip
        self._record(
            Answered(feedback.id, feedback.reward, feedback.cost, feedback.seconds, feedback.failed, foreign)
        )

    def dropped(self, decision_id: int, why: Why) -> None:
        """Record a decision that ended without an answer."""
        if decision_id != self._imputed or why != "expired":
            self._record(Dropped(decision_id, why))

    def deferred(self, event: Deferred) -> None:
        """Record an answer that waits for the store; the decision itself is recorded already where it was made here."""
        self._record(event._replace(pending=None))

    def arms_changed(self, change: ArmChange) -> None:
        """Record that arms came, went, or were forgotten."""
        self._record(change)

    def marked(self, mark: Marked) -> None:
        """Record what a term was told from outside."""
        self._record(mark)

    def replaced(self) -> None:
        """See the whole state replaced, by a load or a rollback: call `checkpoint` next, without the lock.

        Until one has succeeded no record is taken, lest it be replayed on a state that is not its own.
        """
        self._next += 1  # a step that is in no file: what came before does not lead to what comes after
        self._gap = True

    def _known(self, arm: str) -> bytes:
        try:
            name = form.check_name(arm)
        except BaseException:
            self._lose()
            raise
        if len(self._names) >= NAMES:
            self._names.clear()
        self._names[arm] = name
        return name

    def _record(self, event: Event) -> None:
        try:
            payload = form.packed(event)
        except BaseException:
            self._lose()
            raise
        self._append(payload)

    def _append(self, payload: bytes) -> None:
        if self.closed:
            raise ValueError("the journal is closed: nothing may be recorded any more")
        size = len(payload) + form.FRAME.size
        if (
            self._gap
            or self._bytes_in - self._files.bytes_out + size > BUFFER_LIMIT
            or len(payload) > form.LARGEST
        ):
            self._lose()
            return
        self._files.queue.append(payload)
        self._bytes_in += size
        self._next += 1
        self.recorded += 1

    def _lose(self) -> None:
        self.lost += 1
        self._next += 1
        self._gap = True

    # Writing; never with the Router's lock held.

    def flush(self) -> None:
        """Write everything recorded so far and sync it: when this returns, a crash loses none of it.

        Raises
        ------
        OSError
            The disk refuses, and records are kept for the next attempt; or records were dropped, and those after them
            wait for a checkpoint.
        """
        with self._io:
            if self._folder.closed:
                return
            self._files.drain()
            self._files.write(self._files.end)
            if self._gap or self._files.broken_off:
                raise OSError(errno.ENOSPC, f"{self.lost} records were dropped: a checkpoint must come first")

    def checkpoint(self) -> None:
        """Write a snapshot of now, and go on in a new file from it; what is older than `keep` snapshots is removed.

        Raises
        ------
        OSError
            The disk refuses; records go on from the snapshot before.
        TypeError, ValueError
            The state cannot be stored; likewise.
        """
        with self._one:
            if self._folder.closed:
                return
            cut = [0]
            header, arrays = captured(self._host, lambda: cut.__setitem__(0, self._cut()))
            pieces = container.pieces({**header, "journal": {"record": cut[0]}}, arrays)
            del arrays
            number, turned = self._turn(cut[0])
            self._folder.write(file_name("snapshot", number), pieces)
            self._kept.append(Kept(number, cut[0]))
            self._generation = number
            self.checkpoints += 1
            with self._io:
                if not turned:
                    self._files.forget(cut[0])
            self._prune()

    def _cut(self) -> int:
        """Return the number of the next record; the host's lock is held."""
        if self._gap:
            self._files.queue.append(self._next)
            self._gap = False
        return self._next

    def _turn(self, cut: int) -> tuple[int, bool]:
        """Go on in a new file from record `cut` on, if all before it are durable; returns the new number."""
        with self._io:
            try:
                self._files.drain()
                if self._files.end >= cut:
                    self._files.write(cut)
                    self._files.open()
                    return self._files.number, True
            except OSError as error:  # the snapshot may yet be written, and then replaces them
                self._note(error)
            self._files.number += 1
            return self._files.number, False

    def _prune(self) -> None:
        while len(self._kept) > self._keep:
            self._kept.pop(0)
        oldest = self._kept[0]
        gone = []
        for mine, after in pairwise(self._files.all):
            if mine.number < oldest.number if oldest.record < 0 else after.first <= oldest.record:
                gone.append(mine)
        names = {file_name("journal", mine.number) for mine in gone}
        known = {file_name("journal", mine.number) for mine in self._files.all}
        try:
            for name in self._folder.names():
                match, there = form.NUMBERED.fullmatch(name), self._folder.stat(name)
                if match is None or there is None or not S_ISREG(there.st_mode):
                    continue
                # A journal of which no more was written than a part of its head holds nothing.
                empty = name not in known and there.st_size < form.HEAD_BYTES
                old = int(match[2]) < oldest.number and (match[1] == "snapshot" or empty)
                if old or name in names:
                    self._folder.unlink(name)
        except OSError as error:  # tried again at the next checkpoint
            self._note(error)
            return
        with self._io:
            self._files.all = [mine for mine in self._files.all if mine not in gone]

    # Threads.

    def _round(self) -> None:
        gap, good = self._gap, self._files.good
        if self._folder.moved and not self.moved:
            self.moved = True
            self._log.error(
                "journal: %s leads elsewhere by now; the folder it led to is kept", self._folder.path
            )
        try:
            self.flush()
            self._noted.clear()
        except OSError as error:
            stuck = gap or isinstance(error, FileNotFoundError)  # only a checkpoint leads on
            # At once, and again when there is room.
            if stuck and (self._files.good > good or "stuck" not in self._noted):
                self._noted.add("stuck")
                self._checkpointer.wake()
            self._note(error)

    def _note(self, error: OSError) -> None:
        """Count an error of the disk; it is logged once until writing succeeds again."""
        self.errors += 1
        kind = f"{type(error).__name__} {error.errno}"
        if kind not in self._noted:
            self._noted.add(kind)
            self._log.error("journal in %s: %s", self._folder.path, error)

    def start(self) -> None:
        """Write the first checkpoint and start the threads; the host's lock is best held.

        Raises ``OSError`` where the directory cannot be written. A state that cannot be stored is counted: then the
        journal goes on from the snapshots that are there.
        """
        try:
            self.checkpoint()
        except OSError:
            raise
        except Exception as error:
            self.errors += 1
            self._log.error("checkpoint: %s: %s", type(error).__name__, error, exc_info=error)
            with self._io:
                if not self._files.opened:
                    self._files.open()
        self._flusher.start()
        self._checkpointer.start()

    def close(self, timeout_s: float = 10.0) -> bool:
        """Write what is recorded, checkpoint, and free the directory, in this order; records are refused from now on.

        False where that takes longer than `timeout_s`: it goes on in the background then, and the directory is free
        when it is over.
        """
        if self.closed:
            return True
        self.closed = True
        end = time.monotonic() + timeout_s
        done = threading.Event()
        last = Background("journal-close", lambda: self._finish(end, done), log=self._log)
        last.start()
        last.wake()
        finished = done.wait(timeout_s)
        last.close(0.0)
        return finished

    def _finish(self, end: float, done: threading.Event) -> None:
        if done.is_set():
            return
        try:
            for step in (self.flush, self._stop(end), self.checkpoint):
                try:
                    step()
                except OSError as error:
                    self._note(error)
                except Exception as error:
                    self.errors += 1
                    self._log.error("journal: %s: %s", type(error).__name__, error, exc_info=error)
        finally:
            with self._io:
                self._files.leave()
                self._folder.close()
            done.set()

    def _stop(self, end: float) -> Callable[[], object]:
        def stop() -> None:
            for thread in (self._flusher, self._checkpointer):
                thread.close(max(0.0, end - time.monotonic()))

        return stop

    def abandon(self) -> None:
        """Close the files as they are: where recovery failed, and in a forked child, to which they do not belong."""
        self.closed = True
        self._files.leave()
        self._folder.close(owner=False)

    def stats(self) -> dict[str, int]:
        """Return counters: records, dropped, errors, checkpoints, the generation, and whether the folder moved."""
        thread_errors = self._flusher.errors.total() + self._checkpointer.errors.total()
        return {
            "journal_records": self.recorded,
            "journal_dropped": self.lost,
            "journal_errors": self.errors + thread_errors,
            "journal_moved": int(self.moved),
            "checkpoints": self.checkpoints,
            "generation": self._generation,
        }
