"""Recovery: a directory of snapshots and journals becomes a state, and a journal that goes on there.

A directory holds generations: ``snapshot-N``, the state when so many records had been made, and files of records,
``journal-N``. Recovery takes the newest good snapshot, replays every later record, and says what it passed over.
"""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from banditroute._core import container
from banditroute._core import validation as check
from banditroute._core.files import Folder
from banditroute.durability import journal_records as form
from banditroute.durability.journal_files import Kept, Written, file_name
from banditroute.durability.journal_format_1 import RemovedAt
from banditroute.durability.journal_records import check_name
from banditroute.durability.journal_writer import Journal
from banditroute.errors import SnapshotError
from banditroute.records import ArmChange, Event, Host

__all__ = ["Journal", "check_name", "recover"]

log = logging.getLogger("banditroute.durability.journal")

Report = dict[str, Any]


@dataclass(slots=True)
class _Found:
    """What a directory holds, oldest first, and what came of reading it."""

    snapshots: list[Kept] = field(default_factory=list)
    files: list[tuple[Written, form.Opening]] = field(default_factory=list)
    names: int = 0  # of snapshots, good or not
    refused: list[str] = field(default_factory=list)
    said: set[str] = field(default_factory=set)  # kinds of errors that were logged
    generation: int = 0
    restored: dict[str, Any] = field(default_factory=dict)
    position: int = 0  # of the next record
    replayed: int = 0
    skipped: int = 0
    missing: int = 0
    torn_bytes: int = 0

    def refuse(self, name: str, error: BaseException) -> None:
        """Pass over a file."""
        said = str(error) or type(error).__name__
        self.refused.append(f"{name}: {said}")
        log.warning("passed over %s: %s", name, said)


def recover(
    host: Host,
    directory: str | os.PathLike[str],
    *,
    checkpoint_s: float = 30.0,
    flush_s: float = 0.05,
    keep: int = 3,
    arms: Literal["code", "file"] = "code",
    log: logging.Logger = log,
) -> tuple[Journal, Report]:
    """Restore a fresh host from a directory and start a journal there.

    Parameters
    ----------
    host : Host
        Nothing decided yet. Best with its lock held until the journal listens: what happens in between is recorded by
        nobody.
    directory : path
        Made when missing; empty the first time.
    checkpoint_s, flush_s : float
        Seconds between checkpoints and between writes, in (0, 1e9].
    keep : int
        Snapshots to keep, at least 1.
    arms : "code" or "file"
        Whose arms there are in the end: those that the host has now, by name, new ones cold, gone ones dropped; or
        those of the file. Records are replayed on the arms of the file either way.
    log : logging.Logger
        Where errors go later on.

    Returns
    -------
    journal : Journal
        Locked and started.
    report : dict
        ``generation`` of the snapshot taken, 0 for none; records ``replayed``, ``skipped`` (they no longer apply) and
        ``missing`` (dropped, or in a file that is gone or torn); ``torn_bytes`` behind the last good record of each
        file; ``refused``, a line for each file passed over; ``restored``, what `Host.restore` says of changed
        settings and arms.

    Raises
    ------
    DirectoryInUse
        Another process, or another Router of this one, keeps its journal there.
    SnapshotError
        Snapshots were there and none is good, or journals without the snapshot they go on from; nothing changed.
    OSError
        The directory cannot be read or written; nothing changed.
    """
    period = check.finite("checkpoint_s", checkpoint_s, low=0.0, high=check.LONGEST_S, open_low=True)
    flush = check.finite("flush_s", flush_s, low=0.0, high=check.LONGEST_S, open_low=True)
    kept = check.integer("keep", keep, low=1)
    if arms not in ("code", "file"):
        raise ValueError(f'arms must be "code" or "file", got {check.shown(arms)}')
    for name in host.arms:
        check_name(name)
    Path(directory).mkdir(parents=True, exist_ok=True)
    folder = Folder(directory)
    journal = None
    try:
        folder.lock()
        with host.locked():
            fresh, own = host.capture(), host.arms
            try:
                found = _restored(host, folder, fresh)
                if arms == "code" and host.arms != own:
                    _reconcile(host, fresh, found)
                journal = Journal(
                    host,
                    folder,
                    position=found.position + found.torn_bytes,
                    follows=found.position,
                    kept=found.snapshots,
                    files=[one for one, _ in found.files],
                    checkpoint_s=period,
                    flush_s=flush,
                    keep=kept,
                    log=log,
                )
                journal.start()
            except BaseException:  # as it was before, so that it can be tried again
                host.restore(*fresh, arms="file")
                raise
    except BaseException:
        if journal is not None:
            journal.abandon()
        folder.close()
        raise
    return journal, {
        "generation": found.generation,
        "replayed": found.replayed,
        "skipped": found.skipped,
        "missing": found.missing,
        "torn_bytes": found.torn_bytes,
        "refused": found.refused,
        "restored": found.restored,
    }


def _reconcile(host: Host, fresh: Any, found: _Found) -> None:
    """Give the host the arms it had before, with what was learned of those that are still there."""
    latest = host.capture()
    host.restore(*fresh, arms="file")
    said = host.restore(*latest, arms="code")
    found.restored = {**found.restored, **{what: value for what, value in (said or {}).items() if value}}


def _restored(host: Host, folder: Folder, fresh: Any) -> _Found:
    folder.sweep(older_s=0.0)  # of a process that was killed while it wrote
    found = _Found()
    for name in folder.names():
        if name.startswith(".snapshot-"):  # the same, of an older version
            folder.unlink(name)
        elif (match := form.NUMBERED.fullmatch(name)) is not None:
            _look(folder, name, match[1], int(match[2]), found)
    found.snapshots.sort(key=lambda one: (one.record, one.number))
    found.files.sort(key=lambda one: one[0])
    for one in found.snapshots[::-1]:
        if _taken(host, folder, one, fresh, found):
            found.generation = one.number
            _replay(host, folder, one, found)
            return found
        found.snapshots.remove(one)
    if found.names:
        raise SnapshotError(f"{folder.path} must hold a good snapshot, got {found.refused[:3]}")
    if found.files and found.files[0][1].first == 0:
        log.warning("%s holds no snapshot, but its records from the first on: they are replayed", folder.path)
        _replay(host, folder, Kept(0, 0), found)
    elif found.files:
        raise SnapshotError(
            f"{folder.path} must hold a snapshot beside its journals, got none: put one back, or move them away "
            "to start from nothing"
        )
    return found


def _look(folder: Folder, name: str, kind: str, number: int, found: _Found) -> None:
    """See what a file says of itself."""
    found.names += kind == "snapshot"
    try:
        with folder.reader(name) as file:
            if kind == "snapshot":
                told = container.headline(file).get("journal", {"record": -1})
                at = told.get("record") if isinstance(told, dict) else told
                if type(at) is not int or not -1 <= at < 1 << 62:
                    raise SnapshotError(f"record must be a number of a record, got {at!r}")
                found.snapshots.append(Kept(number, at))
            elif (opening := form.opening(file)) is not None:
                found.files.append((Written(opening.first, number), opening))
    except (SnapshotError, OSError, LookupError, TypeError, AttributeError) as error:
        found.refuse(name, error)
        if kind == "journal":
            found.torn_bytes += _size(folder, name)


def _size(folder: Folder, name: str) -> int:
    there = folder.stat(name)
    return 0 if there is None else there.st_size


def _taken(host: Host, folder: Folder, one: Kept, fresh: Any, found: _Found) -> bool:
    """Whether a snapshot could be restored; where not the host is as before."""
    name = file_name("snapshot", one.number)
    try:
        with folder.reader(name) as file:
            header, arrays = container.read_from(file)
        header.pop("journal", None)
        found.restored = dict(host.restore(header, arrays, arms="file") or {})
        return True
    except Exception as error:  # whatever a file makes of the state, the one before may be good
        if not isinstance(error, SnapshotError | OSError):
            host.restore(*fresh, arms="file")
        found.refuse(name, error)
        return False


def _replay(host: Host, folder: Folder, start: Kept, found: _Found) -> None:
    """Put every record into effect that the snapshot does not hold, in order."""
    old = start.record < 0
    found.position = max(start.record, 0)
    for at, (mine, opening) in enumerate(found.files):
        if opening.format == 1:
            if old and mine.number >= start.number:
                _replay_file(host, folder, mine, opening, found, -1)
            continue
        after = found.files[at + 1][0].first if at + 1 < len(found.files) else None
        if not old and after is not None and after <= start.record:
            continue  # the snapshot holds all of it
        if not old and opening.follows > found.position:
            found.missing += opening.follows - found.position
            log.warning("%d records are missing before %s", found.missing, file_name("journal", mine.number))
        old = False
        # A file goes on from what is durable: what the one before holds beyond that comes again.
        begin = max(start.record, found.position)
        found.position = max(found.position, _replay_file(host, folder, mine, opening, found, begin))


def _replay_file(
    host: Host, folder: Folder, mine: Written, opening: form.Opening, found: _Found, start: int
) -> int:
    """Replay one file from record `start` on; returns the number behind its last good record."""
    name, record = file_name("journal", mine.number), opening.first
    size, end = _size(folder, name), 0
    try:
        with folder.reader(name) as file:
            form.opening(file)
            end = file.tell()
            for place, event in form.events(file, opening):
                end = place
                if opening.format == 1 or record >= start:
                    if event is not None and _apply(host, event, found):
                        found.replayed += 1
                    else:
                        found.skipped += 1
                record += 1
    except (OSError, SnapshotError) as error:
        found.refuse(name, error)
    found.torn_bytes += size - end
    return record if opening.format > 1 else 0


def _apply(host: Host, event: Event | RemovedAt, found: _Found) -> bool:
    """Put one event into effect; False where it does not apply (any more)."""
    try:
        if isinstance(event, RemovedAt):
            left = list(host.arms)
            event = ArmChange("removed", left.pop(event.index), tuple(left))
        elif isinstance(event, ArmChange) and not event.arms:  # of format 1
            more = (event.arm,) if event.what == "added" else ()
            event = event._replace(arms=(*host.arms, *more))
        return bool(host.replay(event))
    except Exception as error:
        kind = type(error).__name__
        if kind not in found.said:
            found.said.add(kind)
            log.warning("a record was passed over, maybe more like it: %s: %s", kind, error)
        return False
