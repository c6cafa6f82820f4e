"""Journal and snapshots by themselves, on a small host in memory: what lies in a directory after whatever happened."""

import errno
import os
import shutil
import stat
import threading
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from banditroute import SnapshotError
from banditroute._core import container, files
from banditroute.durability import journal, snapshots
from banditroute.durability import journal_records as form
from banditroute.durability import journal_writer as writer
from banditroute.durability.journal_files import file_name
from banditroute.errors import BanditRouteError, DirectoryInUse
from banditroute.records import Answered, ArmChange, Decided, Deferred, Dropped, Marked, Pending, Why
from faults.host import MemoryHost, SlicedMemoryHost

LONG = 1e6


def started(home, host=None, *, flush_s=LONG, checkpoint_s=LONG, **options):
    """A host with a journal whose threads do nothing by themselves."""
    host = host or MemoryHost()
    options = {"arms": "file", **options}
    kept, report = journal.recover(host, home, flush_s=flush_s, checkpoint_s=checkpoint_s, **options)
    host.listener = kept
    return host, kept, report


def steps(host, count):
    for _ in range(count):
        host.step()


def crash(kept):
    kept.abandon()


def found(home, **options):
    """What a recovery of a copy of the directory finds, as a crash now would leave it."""
    copy = Path(f"{home}-copy")
    shutil.copytree(home, copy, symlinks=True)
    try:
        host, kept, report = started(copy, **options)
        kept.abandon()
    finally:
        shutil.rmtree(copy)
    return host, report


def twin(count):
    host = MemoryHost()
    steps(host, count)
    return host


EVENTS = [
    Decided(7, Pending("math", np.array([1.0, -2.5]), 0.25, 3.5, 9), True, False),
    Decided(
        2**63 - 1, Pending("é/\n", np.ones((3, 2)), np.nan, 0.0, 0, None, {"cost": 0.5}, "user"), False, True
    ),
    Answered(7, -0.5),
    Answered(2**64 - 1, 0.5, cost=0.0, failed=True),
    Answered(7, 0.5, 1.5, 2.5, False, Pending("math", np.ones(2), 1.0, 0.0, 3)),
    Answered(7, 0.5, None, 2.5, False, None, "judge"),
    Deferred(7, Answered(7, 0.5, 1.5), None, "token"),
    Deferred(7, None, Pending("math", np.ones(2), 1.0, 0.0, 3), "t" * 64),
    Deferred(
        7, Answered(7, 0.5), Pending("math", np.ones(2), 1.0, 0.0, 3, None, {"a": 1.0}), "", expired=True
    ),
    *(Dropped(7, why) for why in get_args(Why)),
    Dropped(7, "expired"),
    Dropped(7, "expired", -1.0),
    Dropped(7, "cancelled"),
    ArmChange("added", "c", ("a", "b", "c"), 2.0, 0.25),
    ArmChange("removed", "b", ("a", "c")),
    Marked("health", {"arm": "a", "state": "down", "count": 3}),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_as_it_was(event):
    again = form.parsed(form.packed(event))
    assert repr(again) == repr(event)


def test_what_a_record_cannot_hold_is_refused_by_name():
    for name, said in {"\ud800x": "UTF-8", "x" * 70_000: "65535 bytes, got 70000"}.items():
        with pytest.raises(ValueError, match=said):
            form.check_name(name)
        with pytest.raises(ValueError, match=said):
            journal.recover(MemoryHost((name, "b")), "/nonexistent")
    assert form.check_name("ü" * 32_767)


def test_what_cannot_be_recorded_costs_a_checkpoint_and_nothing_else(tmp_path):
    host, kept, _ = started(tmp_path / "home")
    steps(host, 20)
    with pytest.raises(TypeError):
        kept.marked(Marked("mine", {"client": object()}))
    with pytest.raises(OSError, match="1 records were dropped"):
        kept.flush()
    steps(host, 5)
    assert kept.stats()["journal_dropped"] == 6
    kept.checkpoint()
    steps(host, 7)
    kept.flush()
    again, report = found(tmp_path / "home")
    assert again.digest() == host.digest() and report["missing"] == 0
    crash(kept)


def test_short_writes_are_completed(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda handle, data, at: real(handle, data[: max(1, len(data) // 3)], at)
    )
    host, kept, _ = started(tmp_path / "home")
    steps(host, 200)
    kept.flush()
    again, report = found(tmp_path / "home")
    assert again.digest() == host.digest() and report["torn_bytes"] == 0
    crash(kept)


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_after_a_failure_the_same_bytes_go_to_the_same_place(tmp_path, monkeypatch, call):
    """Half a record, and pages that a failed sync has dropped, are written over; what was acknowledged is not cut."""
    host, kept, _ = started(tmp_path / "home")
    steps(host, 50)
    kept.flush()
    real, failing = {name: getattr(os, name) for name in ("pwrite", "fsync")}, [True]

    def pwrite(handle, data, at):
        if failing and call == "pwrite":
            real["pwrite"](handle, bytes(data[: len(data) // 2]), at)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real["pwrite"](handle, data, at)

    def fsync(handle):
        if failing and call == "fsync":
            os.ftruncate(handle, kept._files.good)  # what was never synced need not be there
            raise OSError(errno.EIO, "Input/output error")
        real["fsync"](handle)

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "fsync", fsync)
    for _ in range(3):
        steps(host, 20)
        with pytest.raises(OSError):
            kept.flush()
        assert found_at_least(tmp_path / "home", 50, monkeypatch, real)
    failing.clear()
    kept.flush()
    again, report = found(tmp_path / "home")
    assert again.digest() == host.digest() and (report["torn_bytes"], report["missing"]) == (0, 0)
    crash(kept)


def found_at_least(home, count, monkeypatch, real):
    with monkeypatch.context() as quiet:
        for name, call in real.items():
            quiet.setattr(os, name, call)
        again, _ = found(home)
    return again.count >= count and again.digest() == twin(again.count).digest()


def refusing(monkeypatch, *names):
    """The disk takes no write of files of these kinds until the list that is returned is empty."""
    full, open_ = list(names), files.Folder.open

    def opened(self, name, flags, mode=0o600):
        if flags & os.O_CREAT and any(name.startswith(kind) for kind in full):
            raise OSError(errno.ENOSPC, "No space left on device")
        return open_(self, name, flags, mode)

    monkeypatch.setattr(files.Folder, "open", opened)
    return full


def test_a_checkpoint_that_fails_loses_nothing_and_the_generation_before_goes_on(tmp_path, monkeypatch):
    host, kept, _ = started(tmp_path / "home")
    steps(host, 30)
    full = refusing(monkeypatch, ".banditroute-", "journal-")
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            kept.checkpoint()
        steps(host, 10)
        kept.flush()
    full.clear()
    again, report = found(tmp_path / "home")
    assert again.digest() == host.digest() and report["generation"] == 1
    kept.checkpoint()
    again, report = found(tmp_path / "home")
    assert again.digest() == host.digest() and report["replayed"] == 0
    crash(kept)


def test_records_that_no_journal_takes_leave_when_a_snapshot_holds_them(tmp_path, monkeypatch):
    """The file of the journal is broken for good; a snapshot can still be written, and another file started."""
    host, kept, _ = started(tmp_path / "home", keep=3)
    steps(host, 30)
    kept.flush()
    broken, real = os.fstat(kept._files._handle).st_ino, os.pwrite

    def pwrite(handle, data, at):
        if os.fstat(handle).st_ino == broken:
            raise OSError(errno.EIO, "Input/output error")
        return real(handle, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    steps(host, 30)
    with pytest.raises(OSError, match="Input/output"):
        kept.flush()
    kept.checkpoint()
    steps(host, 30)
    kept.flush()
    again, report = found(tmp_path / "home")
    assert again.digest() == host.digest() and report["missing"] == 0
    # Without that snapshot the gap is seen and told; what comes behind names its arms.
    sorted((tmp_path / "home").glob("snapshot-*"))[-1].unlink()
    _, report = found(tmp_path / "home")
    assert report["generation"] == 1 and report["missing"] == 30
    crash(kept)


def test_records_that_two_files_hold_are_replayed_once(tmp_path, monkeypatch):
    """Written, but not synced, when a file is begun that goes on before them: the new one holds them too."""
    host, kept, _ = started(tmp_path / "home", SlicedMemoryHost())
    steps(host, 50)
    kept.flush()
    real, failing = os.fsync, []

    def fsync(handle):
        if failing:
            raise OSError(errno.EIO, "Input/output error")
        real(handle)

    def between_slices(_):
        if host.count < 60:
            steps(host, 10)
            failing.append(True)
            with pytest.raises(OSError, match="Input/output"):
                kept.flush()
            failing.clear()

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(snapshots, "sleep", between_slices)
    full = refusing(monkeypatch, ".banditroute-")
    with pytest.raises(OSError, match="No space"):
        kept.checkpoint()
    full.clear()
    steps(host, 20)
    kept.flush()
    again, report = found(tmp_path / "home")
    assert again.digest() == host.digest() and again.count == 80
    assert (report["generation"], report["replayed"], report["skipped"], report["missing"]) == (1, 80, 0, 0)
    crash(kept)


def test_a_file_that_could_be_neither_begun_nor_removed_ends_the_one_before(tmp_path, monkeypatch):
    """Its head says that later records are in it or behind it; a snapshot is there, though its checkpoint failed."""
    host, kept, _ = started(tmp_path / "home")
    steps(host, 30)
    kept.flush()
    real, begun = {name: getattr(files.Folder, name) for name in ("open", "sync", "unlink")}, []

    def opened(self, name, *given):
        begun.append(name)
        return real["open"](self, name, *given)

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(files.Folder, "open", opened)
        broken.setattr(files.Folder, "sync", refuse)
        broken.setattr(files.Folder, "unlink", refuse)
        with pytest.raises(OSError, match="Input/output"):
            kept.checkpoint()
    there = [path.name for path in sorted((tmp_path / "home").iterdir())]
    assert begun[0] in there and sum(name.startswith("snapshot") for name in there) == 2
    steps(host, 30)
    kept.flush()
    again, report = found(tmp_path / "home")
    assert again.digest() == host.digest() and report["replayed"] == 30
    kept.checkpoint()
    steps(host, 30)
    kept.flush()
    again, report = found(tmp_path / "home")
    assert again.digest() == host.digest() and report["missing"] == 0
    crash(kept)


@pytest.mark.parametrize("size", [0, 14])
def test_files_that_were_never_begun_are_in_nobodys_way(tmp_path, size):
    """A process was killed between making a file and writing its head, again and again."""
    host, kept, _ = started(tmp_path / "home")
    steps(host, 30)
    kept.flush()
    crash(kept)
    for number in range(2, 9):
        (tmp_path / "home" / file_name("journal", number)).write_bytes(form.head(0, 0)[:size])
    host, kept, report = started(tmp_path / "home", keep=2)
    assert host.digest() == twin(30).digest() and not report["refused"]
    assert kept.stats()["journal_errors"] == 0 and kept.stats()["generation"] == 9
    for _ in range(3):
        steps(host, 10)
        kept.checkpoint()
    left = {path.name for path in (tmp_path / "home").iterdir()} - {"lock"}
    assert left == {file_name(kind, number) for kind in ("journal", "snapshot") for number in (11, 12)}
    crash(kept)


def test_dropped_records_are_counted_and_nothing_is_written_behind_the_gap(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "BUFFER_LIMIT", 3000)
    host, kept, _ = started(tmp_path / "home")
    steps(host, 200)
    lost = kept.stats()["journal_dropped"]
    assert lost > 100
    with pytest.raises(OSError, match=f"{lost} records were dropped"):
        kept.flush()
    again, _ = found(tmp_path / "home")
    assert again.count == 200 - lost and again.digest() == twin(again.count).digest()
    full = refusing(monkeypatch, ".banditroute-")
    with pytest.raises(OSError, match="No space"):
        kept.checkpoint()
    steps(host, 5)  # taken again, but not to be written before a snapshot is
    with pytest.raises(OSError, match="dropped"):
        kept.flush()
    assert found_count(tmp_path / "home", full) == 200 - lost
    full.clear()
    kept.checkpoint()
    steps(host, 5)
    kept.flush()
    again, report = found(tmp_path / "home")
    assert again.digest() == host.digest() and report["missing"] == 0
    crash(kept)


def found_count(home, full):
    kinds, full[:] = list(full), []
    again, _ = found(home)
    full[:] = kinds
    return again.count


def test_a_journal_that_was_deleted_is_noticed(tmp_path):
    host, kept, _ = started(tmp_path / "home", flush_s=0.01)
    steps(host, 30)
    kept.flush()
    for path in (tmp_path / "home").glob("journal-*"):
        path.unlink()
    steps(host, 30)
    until(lambda: kept.stats()["checkpoints"] == 2 and kept.stats()["journal_errors"] > 0)
    steps(host, 10)
    kept.flush()
    again, _ = found(tmp_path / "home")
    assert again.digest() == host.digest()
    crash(kept)


def until(reached, seconds=20.0):
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_what_was_loaded_is_durable_before_records_go_on(tmp_path, monkeypatch):
    other = twin(300)
    snapshots.save(other, tmp_path / "file")
    host, kept, _ = started(tmp_path / "home")
    steps(host, 20)
    kept.flush()
    full = refusing(monkeypatch, ".banditroute-")
    snapshots.load(host, tmp_path / "file")
    kept.replaced()
    with pytest.raises(OSError, match="No space"):
        kept.checkpoint()
    steps(host, 10)
    with pytest.raises(OSError):
        kept.flush()
    assert found_count(tmp_path / "home", full) == 20  # as if it had not been loaded, rather than a mixture
    full.clear()
    kept.checkpoint()
    steps(host, 10)
    kept.flush()
    again, report = found(tmp_path / "home")
    assert again.count == 320 and again.digest() == host.digest() and report["missing"] == 0
    crash(kept)


def test_a_state_that_cannot_be_stored_costs_checkpoints_only(tmp_path):
    class Odd(MemoryHost):
        odd = False

        def capture(self):
            header, arrays = super().capture()
            return {**header, **({"model": threading.Lock()} if self.odd else {})}, arrays

    host, kept, _ = started(tmp_path / "home", Odd(), flush_s=0.005, checkpoint_s=0.01)
    steps(host, 20)
    Odd.odd = True
    steps(host, 80)
    until(lambda: kept.stats()["journal_errors"] > 0)
    kept.flush()
    Odd.odd = False
    again, _ = found(tmp_path / "home")
    assert again.digest() == host.digest()
    Odd.odd = True
    again, kept_on, _ = started(copied(tmp_path / "home"), Odd())  # it starts all the same
    steps(again, 10)
    kept_on.flush()
    kept_on.abandon()
    Odd.odd = False
    assert started(tmp_path / "home-2")[0].digest() == again.digest()
    crash(kept)


def copied(home):
    copy = Path(f"{home}-2")
    shutil.copytree(home, copy)
    return copy


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, MemoryError, RuntimeError])
def test_the_threads_live_through_whatever_is_raised(tmp_path, monkeypatch, error):
    host, kept, _ = started(tmp_path / "home", flush_s=0.005)
    failing, real = [True], os.fsync

    def fsync(handle):
        if failing:
            raise error("not today")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    steps(host, 10)
    until(lambda: kept.stats()["journal_errors"] > 0)
    failing.clear()
    until(lambda: kept._files.first == 10)
    crash(kept)


def test_a_directory_in_use_is_an_error_of_its_own(tmp_path):
    _, kept, _ = started(tmp_path / "home")
    with pytest.raises(DirectoryInUse, match="in use by another process") as told:
        started(tmp_path / "home")
    assert isinstance(told.value, BanditRouteError) and isinstance(told.value, ValueError)
    assert kept.close(10.0) is True
    _, again, _ = started(tmp_path / "home")
    again.abandon()


def test_a_folder_that_was_replaced_belongs_to_the_other(tmp_path, caplog):
    home = tmp_path / "home"
    one, first, _ = started(home, flush_s=0.01)
    steps(one, 50)
    first.flush()
    home.rename(tmp_path / "old")
    two, second, _ = started(home, MemoryHost(("x", "y", "z")))
    steps(two, 30)
    second.flush()
    before = {path: path.read_bytes() for path in home.iterdir()}
    until(lambda: first.stats()["journal_moved"] == 1)
    steps(one, 50)
    first.checkpoint()
    assert first.close(10.0)
    assert {path: path.read_bytes() for path in home.iterdir()} == before
    assert "leads elsewhere by now" in caplog.text
    again, _ = found(tmp_path / "old")
    assert again.digest() == one.digest()
    second.abandon()


ODD = {
    "a folder": lambda path, good: path.mkdir(),
    "a dangling link": lambda path, good: path.symlink_to("/nonexistent/snapshot"),
    "a pipe": lambda path, good: os.mkfifo(path),
    "nothing in it": lambda path, good: path.write_bytes(b""),
    "torn": lambda path, good: path.write_bytes(good[:-3]),
    "another shape": lambda path, good: path.write_bytes(
        recoded(good, lambda h, a: a.update(sums=a["sums"][:, :2]))
    ),
    "infinite": lambda path, good: path.write_bytes(recoded(good, lambda h, a: a["sums"].fill(np.inf))),
    "no place": lambda path, good: path.write_bytes(
        recoded(good, lambda h, a: h["journal"].update(record="7"))
    ),
    "a list for a place": lambda path, good: path.write_bytes(
        recoded(good, lambda h, a: h.update(journal=[1]))
    ),
    "a copy of an old one": lambda path, good: path.write_bytes(good),
}


def recoded(data, change):
    header, arrays = container.decode(data)
    change(header, arrays)
    return container.encode(header, arrays)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("number", [99, 999_999_999_999, 10**17])
def test_recovery_passes_by_what_is_no_good_snapshot(tmp_path, kind, number, caplog):
    home = tmp_path / "home"
    host, kept, _ = started(home)
    steps(host, 40)
    kept.checkpoint()
    good = (home / f"snapshot-00000000000{1 if 'copy' in kind else 2}").read_bytes()
    steps(host, 40)
    kept.flush()
    crash(kept)
    ODD[kind](home / file_name("snapshot", number), good)
    for extra in (10, 20):  # and so it does for good: what is written from now on is found again
        again, kept, report = started(home)
        assert again.digest() == host.digest() and report["missing"] == 0
        assert kind == "a copy of an old one" or extra > 10 or str(number) in report["refused"][0]
        steps(again, extra)
        kept.flush()
        crash(kept)
        host = again
    assert kind == "a copy of an old one" or "passed over" in caplog.text


def test_recovery_passes_by_what_cannot_be_read(tmp_path, monkeypatch):
    home = tmp_path / "home"
    host, kept, _ = started(home)
    steps(host, 40)
    kept.checkpoint()
    steps(host, 40)
    kept.flush()
    crash(kept)
    real = container.read_from

    def read_from(file, **options):
        if os.fstat(file.fileno()).st_ino == (home / "snapshot-000000000002").stat().st_ino:
            raise OSError(errno.EIO, "Input/output error")
        return real(file, **options)

    monkeypatch.setattr(container, "read_from", read_from)
    again, kept, report = started(home)
    assert again.digest() == host.digest()
    assert report["generation"] == 1 and "Input/output error" in report["refused"][0]
    crash(kept)


def test_a_state_that_no_reader_would_take_is_not_written(tmp_path, monkeypatch):
    host, kept, _ = started(tmp_path / "home")
    steps(host, 40)
    real = container.pieces
    monkeypatch.setattr(container, "pieces", lambda h, a: real(h, a, limit_bytes=100))
    with pytest.raises(SnapshotError, match="at most limit_bytes = 100"):
        kept.checkpoint()
    with pytest.raises(SnapshotError, match="at most limit_bytes = 100"):
        snapshots.save(host, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    kept.flush()
    monkeypatch.setattr(container, "pieces", real)
    again, _ = found(tmp_path / "home")
    assert again.digest() == host.digest()
    crash(kept)


def test_journals_without_their_snapshots_are_no_silent_start_at_zero(tmp_path, caplog):
    home = tmp_path / "home"
    host, kept, _ = started(home, keep=1)
    steps(host, 40)
    kept.flush()
    (home / "snapshot-000000000001").unlink()
    again, report = found(home)  # all records are there from the first on
    assert again.digest() == host.digest() and report["replayed"] == 40
    assert "holds no snapshot" in caplog.text
    kept.checkpoint()
    steps(host, 10)
    kept.flush()
    (home / "snapshot-000000000002").unlink()
    crash(kept)
    fresh = MemoryHost()
    with pytest.raises(
        SnapshotError, match="must hold a snapshot beside its journals, got none: put one back"
    ):
        started(home, fresh)
    assert fresh.digest() == MemoryHost().digest()


def test_a_hole_in_the_middle_is_told_and_what_follows_names_its_arms(tmp_path):
    home = tmp_path / "home"
    host, kept, _ = started(home, keep=9)
    ends = []
    for _ in range(3):
        steps(host, 60)
        kept.checkpoint()
        ends.append(host.count)
    steps(host, 20)
    kept.flush()
    crash(kept)
    for number in (2, 3, 4):
        (home / file_name("snapshot", number)).unlink()
    path = home / file_name("journal", 2)
    path.write_bytes(path.read_bytes()[:600])
    again, kept, report = started(home, MemoryHost())
    known = 120 - report["missing"]
    assert 60 < known < 120 and report["generation"] == 1 and report["torn_bytes"] > 0
    assert report["replayed"] + report["skipped"] + report["missing"] == host.count
    # No sum of an arm holds anything but what was said of that arm.
    for arm, total in again.sums.items():
        assert arm in host.sums or arm.startswith("n") or arm in "abc"
        if arm in host.sums:
            assert total[0] <= host.sums[arm][0]
    crash(kept)


def test_arms_are_those_of_the_code_or_of_the_file(tmp_path):
    host, kept, _ = started(tmp_path / "home")
    while "n" not in "".join(host.arms):
        host.step()
    steps(host, 60)
    kept.flush()
    crash(kept)
    stays = max(host.arms, key=lambda arm: host.sums[arm][0])
    again, report = found(tmp_path / "home", host=MemoryHost((stays, "new")), arms="file")
    assert again.digest() == host.digest() and report["restored"] == {"added": [], "removed": []}
    again, report = found(tmp_path / "home", host=MemoryHost((stays, "new")), arms="code")
    assert again.arms == (stays, "new") and report["restored"]["added"] == ["new"]
    assert set(report["restored"]["removed"]) == set(host.arms) - {stays}
    assert np.array_equal(again.sums[stays], host.sums[stays]) and again.sums[stays][0] > 0
    with pytest.raises(ValueError, match="arms must be"):
        journal.recover(MemoryHost(), tmp_path / "home", arms="both")


def test_a_failed_recovery_leaves_the_host_and_the_directory_as_they_were(tmp_path, monkeypatch):
    host, kept, _ = started(tmp_path / "home")
    steps(host, 30)
    kept.flush()
    crash(kept)
    full = refusing(monkeypatch, ".banditroute-")
    fresh = MemoryHost()
    with pytest.raises(OSError, match="No space"):
        started(tmp_path / "home", fresh)
    assert fresh.digest() == MemoryHost().digest()
    full.clear()
    again, kept, _ = started(tmp_path / "home", fresh)
    assert again.digest() == host.digest()
    crash(kept)


def test_a_checkpoint_is_of_one_moment_though_it_is_copied_in_slices(tmp_path):
    host, kept, _ = started(tmp_path / "home", SlicedMemoryHost(), flush_s=0.002, checkpoint_s=0.002)

    def enough():
        steps(host, 5)
        return kept.stats()["checkpoints"] > 4

    until(enough)
    kept.flush()
    assert SlicedMemoryHost.slices > 10
    for thread in (kept._flusher, kept._checkpointer):
        thread.close()
    again, report = found(tmp_path / "home")
    assert again.count == host.count and again.digest() == host.digest() and report["generation"] > 1
    assert kept.close(20.0)
    assert found(tmp_path / "home")[0].digest() == host.digest()


def test_closing_writes_first_what_would_be_lost_and_ends_in_time(tmp_path):
    host, kept, _ = started(tmp_path / "home")
    steps(host, 50)
    held, free = threading.Event(), threading.Event()

    def hold():  # as a plan that hangs
        with host.lock:
            held.set()
            free.wait(30.0)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10.0)
    began = time.monotonic()
    assert kept.close(0.5) is False and time.monotonic() - began < 5.0
    with pytest.raises(DirectoryInUse):
        started(tmp_path / "home")
    again, _ = found(tmp_path / "home")
    assert again.digest() == host.digest()  # without a last checkpoint
    free.set()
    holder.join()
    until(lambda: kept.stats()["checkpoints"] == 2)
    until(lambda: kept._folder.closed)
    with pytest.raises(ValueError, match="closed"):
        host.step()
    assert kept.close() is True
    _, report = found(tmp_path / "home")
    assert report["generation"] == 2 and report["replayed"] == 0


def test_generations_are_bounded(tmp_path):
    home = tmp_path / "home"
    host, kept, _ = started(home, keep=2)
    for _ in range(6):
        steps(host, 5)
        kept.checkpoint()
    assert len(list(home.glob("snapshot-*"))) == len(list(home.glob("journal-*"))) == 2
    crash(kept)


def test_files_are_private_and_a_save_keeps_the_mode(tmp_path):
    host, kept, _ = started(tmp_path / "home")
    kept.close()
    snapshots.save(host, tmp_path / "state")
    for path in [*(tmp_path / "home").iterdir(), tmp_path / "state"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    (tmp_path / "state").chmod(0o640)
    snapshots.save(host, tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "state.previous").stat().st_mode) == 0o640


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("name", ["s", "x" * 255, "é\n b" * 40, "line\nbreak", "\udcff"])
def test_a_save_takes_any_name_and_needs_no_hard_links(tmp_path, monkeypatch, name, links):
    def link(*given, **options):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", link)
    path = os.path.join(tmp_path, name)
    host = twin(10)
    snapshots.save(host, path)
    later = twin(30)
    snapshots.save(later, path)
    now, before = MemoryHost(), MemoryHost()
    snapshots.load(now, path)
    snapshots.load(before, os.path.join(tmp_path, files.previous_name(name)))
    assert (now.digest(), before.digest()) == (later.digest(), host.digest())
    assert len(os.listdir(tmp_path)) == 2


def test_a_save_goes_through_a_link_and_leaves_nothing_when_it_fails(tmp_path):
    host = twin(10)
    (tmp_path / "there").mkdir()
    (tmp_path / "current").symlink_to("there/real")  # it need not exist yet
    snapshots.save(host, tmp_path / "current")
    assert (tmp_path / "current").is_symlink() and (tmp_path / "there" / "real").is_file()
    (tmp_path / "there" / "real.previous").mkdir()
    with pytest.raises(OSError):
        snapshots.save(twin(20), tmp_path / "current")
    assert sorted(os.listdir(tmp_path / "there")) == ["real", "real.previous"]
    again = MemoryHost()
    snapshots.load(again, tmp_path / "current")
    assert again.digest() == host.digest()
    for odd in (tmp_path / "there", Path("/dev/null")):
        with pytest.raises(OSError, match="only a regular file"):
            snapshots.save(host, odd)


def test_a_save_that_fails_keeps_the_file_before_the_last(tmp_path, monkeypatch):
    for count in (10, 20):
        snapshots.save(twin(count), tmp_path / "state")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space")))
    with pytest.raises(OSError):
        snapshots.save(twin(30), tmp_path / "state")
    monkeypatch.undo()
    for name, count in {"state": 20, "state.previous": 10}.items():
        again = MemoryHost()
        snapshots.load(again, tmp_path / name)
        assert again.count == count


def test_leftovers_of_saves_that_were_killed_go_when_they_are_old(tmp_path):
    host = twin(5)
    snapshots.save(host, tmp_path / "state")
    old, new, other = (tmp_path / files.Folder._spare(name) for name in ("state", "state", "another"))
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (1.0, 1.0))
    snapshots.save(host, tmp_path / "state")
    assert (old.exists(), new.exists(), other.exists()) == (False, True, True)


def test_a_lock_where_there_is_none_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    with pytest.raises(OSError, match="no file locks"):
        started(tmp_path / "home")


def test_locks_of_windows_are_asked_for_in_their_words(tmp_path, monkeypatch):
    class Windows:
        LK_NBLCK, LK_UNLCK = 2, 0
        held = False

        def locking(self, handle, how, count):
            if how == self.LK_NBLCK and self.held:
                raise OSError(errno.EACCES, "Permission denied")
            self.held = how == self.LK_NBLCK

    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files, "msvcrt", Windows())
    _, kept, _ = started(tmp_path / "home")
    with pytest.raises(DirectoryInUse):
        started(tmp_path / "home")
    kept.close()
    _, kept, _ = started(tmp_path / "home")
    kept.close()


def test_without_handles_of_folders_all_goes_by_path(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "supports_dir_fd", set())
    host, kept, _ = started(tmp_path / "home")
    steps(host, 50)
    kept.checkpoint()
    steps(host, 50)
    kept.flush()
    again, _ = found(tmp_path / "home")
    assert again.digest() == host.digest() and not kept._folder.moved
    assert kept.close()
    snapshots.save(host, tmp_path / "state")
    snapshots.save(host, tmp_path / "state")


def test_a_power_cut_after_any_sync_loses_nothing_that_was_flushed(tmp_path, monkeypatch):
    """A disk that keeps only what was synced: bytes of a file at its last sync, names of a folder at its own."""
    home, real = tmp_path / "home", os.fsync
    content, names, cuts, sure = {}, {}, [], [0]

    def fsync(handle):
        real(handle)
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            names.clear()
            names.update({name: (home / name).stat().st_ino for name in os.listdir(home)})
        else:
            with open(f"/proc/self/fd/{handle}", "rb") as file:
                content[found.st_ino] = file.read()
        cuts.append(({name: content.get(ino, b"") for name, ino in names.items()}, sure[0]))

    home.mkdir()
    monkeypatch.setattr(os, "fsync", fsync)
    host, kept, _ = started(home, keep=2)
    for part in range(12):
        steps(host, 7)
        kept.flush()
        sure[0] = host.count
        steps(host, 3)
        if part % 3 == 2:
            kept.checkpoint()
            sure[0] = host.count
    monkeypatch.undo()
    crash(kept)
    whole, known = twin(0), {0: MemoryHost().digest()}
    while whole.count < host.count:
        whole.step()
        known[whole.count] = whole.digest()
    for number, (files_there, promised) in enumerate(cuts):
        place = tmp_path / f"cut-{number}"
        place.mkdir()
        for name, data in files_there.items():
            (place / name).write_bytes(data)
        again, after, _ = started(place)
        after.abandon()
        assert again.count >= promised and again.digest() == known[again.count], number
    assert len(cuts) > 30
