"""The journal: what was learned is there after a crash, once."""

import errno
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from banditroute import LRU, LinUCB, Polar, Router, SnapshotError, UnknownDecision
from banditroute._core.kernels import layout
from banditroute.durability import journal_records as forms
from banditroute.durability import journal_writer as writer
from banditroute.router import state

HERE = Path(__file__).parent


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def made(controller="none", rng=0, **options):
    residency = {"none": None, "lru": LRU(2), "polar": Polar(2, epoch=50, rng=rng)}[controller]
    policy = LinUCB(4, 5, mix=0.2, rng=rng)
    return Router(policy, residency, None if residency is None else 0.2, clock=Clock(), **options)


def serve(router, steps, seed, ids=()):
    rng = np.random.default_rng(seed)
    waiting = list(ids)
    for _ in range(steps):
        router.parts.books.clock.now += 1.0
        waiting.append(router.select(rng.normal(size=5)).id)
        if len(waiting) > 6:
            router.update(waiting.pop(int(rng.integers(len(waiting)))), float(rng.normal()))
    return waiting


def journal_of(router):
    return router._lasting.journal


def crash(router):
    """What a kill leaves: no last checkpoint, no unlock by hand."""
    journal = journal_of(router)
    journal._flusher.close()
    journal._checkpointer.close()
    journal.abandon()
    router._lasting.journal = None


def newest(home, kind="journal"):
    return sorted(home.glob(f"{kind}-*"))[-1]


def ends(path):
    """Where the head and each record of a file end."""
    with path.open("rb") as file:
        opening = forms.opening(file)
        return [file.tell(), *(end for end, _ in forms.events(file, opening))]


def compared(router, *, residency=True):
    header, arrays = state.capture(router)
    header.pop("time")
    header["ledger"] |= {"late": 0, "duplicates": 0}  # answers that change nothing leave no record
    arrays["policy.header"][[layout.H_PROPENSITY, layout.H_EVALUATED]] = 0.0  # of the last call only
    if not residency:
        header.pop("controller", None)
    return repr(header), {n: v.tobytes() for n, v in arrays.items() if residency or "controller" not in n}


@pytest.mark.parametrize("controller", ["none", "lru"])
def test_replay_is_exact(tmp_path, controller):
    router = made(controller)
    router.recover(tmp_path, flush_s=60.0)
    ids = serve(router, 100, 1)
    journal_of(router).checkpoint()
    ids = serve(router, 100, 2, ids)
    router.quarantine("2")
    serve(router, 30, 3, ids)
    journal_of(router).flush()
    wanted = compared(router)
    crash(router)
    again = made(controller, rng=9)
    report = again.recover(tmp_path)
    assert report["generation"] == 2 and report["replayed"] > 250
    assert report["skipped"] == report["torn_bytes"] == 0
    assert compared(again) == wanted
    # and it goes on as the other would have
    again.close()


def test_arms_added_and_removed_come_back(tmp_path):
    router = made("lru")
    router.recover(tmp_path, flush_s=60.0)
    ids = serve(router, 40, 1)
    router.add_arm("new", fault=0.3)
    router.remove_arm("1")
    serve(router, 40, 2, ids)
    journal_of(router).flush()
    wanted = compared(router)
    crash(router)
    again = made("lru")
    again.recover(tmp_path, arms="file")
    assert again.policy.arms == ("0", "2", "3", "new")
    assert compared(again) == wanted
    again.close()


def test_expiry_is_replayed_with_its_stated_reward(tmp_path):
    options = {"expired_reward": -1.0, "feedback_limit_s": 5.0}
    router = made(**options)
    router.recover(tmp_path, flush_s=60.0)
    ids = [router.select(np.ones(5)).id for _ in range(3)]
    router.update(ids[0], 1.0)
    router.parts.books.clock.now += 10.0
    assert router.stats()["expired"] == 2
    journal_of(router).flush()
    wanted = compared(router)
    crash(router)
    again = made(rng=4, **options)
    again.recover(tmp_path)
    assert compared(again) == wanted
    assert again.policy.counts.sum() == 3
    assert [again.update(i, 1.0) for i in ids] == [False] * 3
    again.close()


def test_answered_once_whatever_crashes_between(tmp_path):
    router = made()
    router.recover(tmp_path, flush_s=60.0)
    first, second = router.select(np.ones(5)).id, router.select(np.ones(5)).id
    router.update(first, 1.0)
    journal_of(router).flush()
    router.update(second, 1.0)  # not flushed
    third = router.select(np.ones(5)).id  # not flushed
    crash(router)
    again = made()
    again.recover(tmp_path)
    assert again.update(first, 1.0) is False  # it was learned, and that was kept
    assert again.update(second, 1.0) is True  # it was lost, so it is learned now
    with pytest.raises(UnknownDecision):
        again.update(third, 1.0)
    assert again.policy.counts.sum() == 2
    again.close()


@pytest.mark.parametrize("damage", ["torn", "flipped", "garbage"])
def test_a_torn_tail_costs_the_tail(tmp_path, damage):
    router = made()
    router.recover(tmp_path, flush_s=60.0)
    serve(router, 50, 1)
    journal_of(router).flush()
    crash(router)
    path = newest(tmp_path)
    data, places = path.read_bytes(), ends(path)
    whole = len(places) - 1
    at = places[-10] + 5
    if damage == "torn":
        path.write_bytes(data[:at])
    elif damage == "flipped":
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
    else:
        path.write_bytes(data + os.urandom(100))
    again = made()
    report = again.recover(tmp_path)
    assert report["replayed"] == (whole if damage == "garbage" else whole - 9)
    assert report["torn_bytes"] > 0
    again.close()


def test_a_torn_snapshot_falls_back_one_generation_and_loses_nothing(tmp_path):
    router = made()
    router.recover(tmp_path, flush_s=60.0)
    ids = serve(router, 30, 1)
    journal_of(router).checkpoint()
    serve(router, 30, 2, ids)
    journal_of(router).flush()
    wanted = compared(router)
    crash(router)
    last = newest(tmp_path, "snapshot")
    last.write_bytes(last.read_bytes()[:-3])
    again = made()
    report = again.recover(tmp_path)
    assert report["generation"] == 1 and len(report["refused"]) == 1
    assert compared(again) == wanted
    again.close()
    for path in tmp_path.glob("snapshot-*"):
        path.write_bytes(b"none of them is good")
    with pytest.raises(SnapshotError, match="must hold a good snapshot"):
        made().recover(tmp_path)


def test_generations_are_bounded_and_the_directory_is_locked(tmp_path):
    router = made()
    router.recover(tmp_path, keep=2)
    for seed in range(6):
        serve(router, 5, seed)
        journal_of(router).checkpoint()
    assert len(list(tmp_path.glob("snapshot-*"))) == len(list(tmp_path.glob("journal-*"))) == 2
    with pytest.raises(ValueError, match="in use"):
        made().recover(tmp_path)
    router.close()
    other = made()
    other.select(np.ones(5))
    with pytest.raises(ValueError, match="before the first decision"):
        other.recover(tmp_path)


def test_a_full_disk_is_counted_and_serving_goes_on(tmp_path, monkeypatch):
    router = made()
    router.recover(tmp_path, flush_s=60.0)
    journal = journal_of(router)
    ids = serve(router, 20, 1)
    real, refusing = os.fsync, True

    def fsync(handle):
        if refusing:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        journal.flush()
    with pytest.raises(OSError, match="No space left"):
        journal.checkpoint()
    ids = serve(router, 20, 2, ids)
    refusing = False
    journal.flush()
    serve(router, 20, 3, ids)
    journal.flush()
    wanted = compared(router)
    crash(router)
    again = made()
    assert again.recover(tmp_path)["torn_bytes"] == 0
    assert compared(again) == wanted
    again.close()


def test_memory_is_bounded_while_the_disk_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "BUFFER_LIMIT", 2000)
    router = made()
    router.recover(tmp_path, flush_s=60.0)
    serve(router, 200, 1)
    stats = router.stats()
    assert stats["journal_dropped"] > 0
    router.close()
    with made() as again:
        assert again.recover(tmp_path)["generation"] > 0
        assert again.stats()["decisions"] == 200  # the last checkpoint had everything


def test_a_directory_that_cannot_be_used_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        made().recover(tmp_path / "file")


class Ledgered:
    """A term that adds up what it is told: a journal must bring its sums back by telling it again."""

    name, soft, per_request = "ledgered", False, False

    def __init__(self):
        self.reserved = self.settled = self.released = 0.0
        self.marks = []

    def bind(self, arms, row):
        self.row = row

    def write(self):
        self.row.values[:] = 0.0

    def prices(self, request=None, *, weights=None):
        return None

    def reserve(self, arm, request, /):
        weights = request.extras.weights if request.extras is not None and request.extras.weights else {}
        held = float(request.x[0]) + weights.get("cost", 0.0)
        self.reserved += held
        return held

    def settle(self, arm, held, feedback, /):
        self.settled += held * (feedback.cost or 0.0) + (feedback.seconds or 0.0) + feedback.failed

    def release(self, arm, held, /):
        self.released += held

    def replay_mark(self, details):
        self.marks.append(details["what"])

    def add_arm(self, name):
        pass

    def remove_arm(self, name):
        pass

    def to_state(self):
        return {"sums": [self.reserved, self.settled, self.released], "marks": list(self.marks)}, {}

    def load_state(self, header, arrays):
        self.reserved, self.settled, self.released = header["sums"]
        self.marks = list(header["marks"])


def test_everything_a_term_was_told_is_told_again(tmp_path):
    router = made(terms=[Ledgered()], feedback_limit_s=30.0, expired_reward=-0.5)
    router.recover(tmp_path, flush_s=60.0)
    rng, waiting = np.random.default_rng(3), []
    for i in range(300):
        router.parts.books.clock.now += 1.0
        options = {"weights": {"cost": rng.random()}, "session": "u1"} if i % 3 else {}
        waiting.append(router.select(rng.normal(size=5), **options).id)
        if i % 50 == 49:
            router.tell_term("ledgered", {"what": i})
        if len(waiting) > 8:
            key = waiting.pop(int(rng.integers(len(waiting))))
            kind = rng.integers(4)
            if kind == 0:
                router.cancel(key)
            elif kind < 3:
                router.update(
                    key, rng.normal(), cost=rng.random(), seconds=rng.random(), failed=bool(kind == 2)
                )
    stats = router.stats()
    journal_of(router).flush()
    wanted = compared(router)
    assert stats["expired"] > 20 and stats["cancelled"] > 20
    crash(router)
    # Another reward for what expires is stated by now; what did expire counted as was stated then.
    again = made(terms=[Ledgered()], rng=4, feedback_limit_s=30.0, expired_reward=7.0)
    report = again.recover(tmp_path)
    assert report["skipped"] == 0 and compared(again) == wanted
    again.close()


def test_answers_after_close_are_refused(tmp_path):
    router = made()
    router.recover(tmp_path)
    ids = [router.select(np.ones(5)).id for _ in range(4)]
    assert router.update(ids[0], 1.0) is True
    router.close()
    for call in (
        lambda: router.update(ids[1], 1.0),
        lambda: router.select(np.ones(5)),
        lambda: router.cancel(ids[2]),
    ):
        with pytest.raises((ValueError, RuntimeError), match="clos"):
            call()
    again = made()
    again.recover(tmp_path)
    assert again.stats()["learned"] == 1 and again.stats()["pending"] == 3
    again.close()


@pytest.mark.parametrize("call", ["load", "rollback"])
def test_what_was_loaded_after_recover_is_as_durable_as_the_rest(tmp_path, call):
    old = made()
    serve(old, 100, 1)
    old.save(tmp_path / "file")
    router = made()
    router.recover(tmp_path / "home", flush_s=60.0)
    serve(router, 20, 2)
    getattr(router, call)(tmp_path / "file")
    serve(router, 30, 3)
    journal_of(router).flush()
    wanted = compared(router)
    crash(router)
    again = made()
    assert again.recover(tmp_path / "home")["missing"] == 0
    assert compared(again) == wanted
    again.close()


CHANGES = {
    "alpha": {"alpha": 0.3},
    "ridge": {"ridge": 3.0},
    "mix": {"mix": 0.02},
    "prior": {"prior": None},
    "discount": {"discount": 0.999},
}


@pytest.mark.parametrize("change", CHANGES)
def test_settings_may_change_between_runs(tmp_path, change):
    arms = ["a", "b", "c"]
    router = Router(LinUCB(arms, 3, rng=0))
    router.recover(tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(100):
        router.update(router.select(rng.random(3)).id, float(rng.random()))
    open_one = router.select(rng.random(3)).id
    router.close()
    with Router(LinUCB(arms, 3, rng=0, **CHANGES[change])) as router:
        assert not router.recover(tmp_path)["refused"]
        assert router.policy.counts.sum() == router.stats()["learned"] == 100
    router = Router(LinUCB(arms, 3, rng=0))  # and back
    router.recover(tmp_path)
    assert router.policy.counts.sum() == router.stats()["learned"] == 100
    assert router.update(open_one, 1.0) is True
    router.close()


def test_arms_are_those_that_the_code_names_and_changes_are_told(tmp_path):
    router = Router(LinUCB(["a", "b", "gone"], 2, rng=0))
    router.recover(tmp_path)
    for _ in range(60):
        router.update(router.select([1.0, 0.5]).id, 1.0)
    counts = dict(zip(router.policy.arms, router.policy.counts, strict=True))
    router.close()
    router = Router(LinUCB(["new", "b", "a"], 2, rng=0))
    restored = router.recover(tmp_path)["restored"]
    assert restored["arms_added"] == ["new"] and restored["arms_dropped"] == ["gone"]
    assert router.policy.arms == ("new", "b", "a")
    assert router.policy.counts.tolist() == [0, counts["b"], counts["a"]]
    assert {router.select([1.0, 0.5]).arm for _ in range(200)} <= {"new", "b", "a"}
    router.close()


def test_a_directory_of_format_1_is_read_for_ever(tmp_path):
    shutil.copytree(HERE / "data" / "journal-1", tmp_path / "home")
    policy = LinUCB(["a", "b", "c"], 3, alpha=0.5, ridge=1.0, mix=0.1, rng=0)
    router = Router(policy, LRU(2), 0.1, clock=Clock(), feedback_limit_s=40.0)
    report = router.recover(tmp_path / "home", arms="file")
    assert (report["generation"], report["replayed"], report["skipped"], report["torn_bytes"]) == (
        1,
        210,
        0,
        0,
    )
    stats = router.stats()
    assert [stats[name] for name in ("decisions", "learned", "pending", "expired", "dropped")] == [
        105,
        92,
        3,
        6,
        4,
    ]
    assert router.policy.arms == ("b", "c", "new") and router.policy.counts.tolist() == [29, 24, 20]
    assert stats["arms"]["c"]["quarantined"] == 1 and router.resident == ("b", "new")
    assert stats["arms"]["new"]["mean_reward"] == -0.24322762486791208
    decision = router.select([1.0, 0.0, 0.0])
    router.update(decision.id, 1.0)
    journal_of(router).flush()
    crash(router)
    again = Router(LinUCB(["b"], 3, alpha=0.5, ridge=1.0, mix=0.1, rng=0), LRU(2), 0.1, clock=Clock())
    assert again.recover(tmp_path / "home", arms="file")["generation"] == 3
    assert again.stats()["learned"] == 93
    again.close()


def test_names_that_no_journal_holds_are_refused_when_they_are_given():
    for name in ("\ud800x", "x" * 70_000):
        with pytest.raises(ValueError):
            Router(LinUCB([name, "b"], 2, rng=0))
        router = made()
        with pytest.raises(ValueError):
            router.add_arm(name)
        assert router.policy.arms == ("0", "1", "2", "3")


# One process that has imported everything forks a worker for each line it reads: a tenth of a second each, not two.
WORKER = """
import mmap, os, signal, struct, sys, threading
import numpy as np
from banditroute import LinUCB, Polar, Router
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
home, board = sys.argv[1], sys.argv[2]
warm = Router(LinUCB(3, 4, mix=0.2, rng=0), Polar(2, epoch=10), 0.1)
for _ in range(50):
    warm.update(warm.select(np.ones(4)).id, 1.0)
for _ in sys.stdin:
    child = os.fork()
    if not child:
        break
    print(child, flush=True)
else:
    sys.exit()
file = open(board, "r+b")
shared = mmap.mmap(file.fileno(), 64)
router = Router(LinUCB(3, 4, mix=0.2, rng=0), Polar(2, epoch=200), 0.1, pending_limit=500)
router.recover(home, checkpoint_s=0.05, flush_s=0.005)
base = router.stats()["learned"]
eye = np.eye(4)
shared[0:16] = struct.pack("<QQ", base, base)
shared[16:24] = struct.pack("<Q", 1)
rng = np.random.default_rng()
learned = base
waiting = []
def flusher():
    while True:
        with router.parts.lock:
            sure = router.stats()["learned"]
        router._lasting.journal.flush()
        shared[0:8] = struct.pack("<Q", sure)  # this much cannot be lost any more
threading.Thread(target=flusher, daemon=True).start()
while True:
    waiting.append(router.select(eye[int(rng.integers(4))]).id)
    if len(waiting) > 20:
        shared[8:16] = struct.pack("<Q", learned + 1)  # and no more than this was tried
        learned += router.update(waiting.pop(int(rng.integers(20))), 1.0)
"""


def killed(home, board, rounds, rng):
    """Kill a worker at random moments; after each, what a recovery finds must lie between sure and tried."""
    board.write_bytes(bytes(64))
    with board.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 64)
    found = 0
    command = [sys.executable, "-c", WORKER, str(home), str(board)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nursery:
        for _ in range(rounds):
            found = one_kill(nursery, home, shared, rng)
        nursery.stdin.close()
    return found


def one_kill(nursery, home, shared, rng):
    shared[16:24] = bytes(8)
    nursery.stdin.write("\n")
    nursery.stdin.flush()
    worker = int(nursery.stdout.readline())
    while shared[16:24] == bytes(8):
        os.kill(worker, 0)
        time.sleep(0.002)
    time.sleep(float(rng.uniform(0.0, 0.3)))
    os.kill(worker, signal.SIGKILL)
    with suppress(ProcessLookupError):
        while True:
            os.kill(worker, 0)
            time.sleep(0.002)
    sure, tried = struct.unpack("<QQ", shared[0:16])
    router = Router(LinUCB(3, 4, mix=0.2, rng=0), Polar(2, epoch=200), 0.1, pending_limit=500)
    report = router.recover(home, checkpoint_s=60.0)
    stats = router.stats()
    assert sure <= stats["learned"] <= tried, (sure, stats["learned"], tried)
    assert not report["refused"]
    # Each reward is 1 and each context a unit vector: sums must count every feedback once.
    assert router.policy.counts.sum() == stats["learned"]
    state = router.policy.state
    assert sum(np.trace(state.full(g)) for g in state.gram) == stats["learned"]
    assert state.moment.sum() == stats["learned"]
    assert stats["pending"] <= 500
    router.close()
    return stats["learned"]


def test_kill_nine():
    # In memory where there is such a place: what a killed process had written is there on any file system.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as home:
        assert killed(Path(home) / "home", Path(home) / "board", 10, np.random.default_rng(0)) > 0
