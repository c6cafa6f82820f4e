"""Snapshots: whole, atomic, refused when anything is off, and continuing is continuing."""

import os
import stat
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from banditroute import (
    LFU,
    LRU,
    DiagLinUCB,
    EpsilonGreedy,
    FileStore,
    LinTS,
    LinUCB,
    Polar,
    Router,
    SnapshotError,
    Static,
    UnknownDecision,
)
from banditroute._core import container as box
from banditroute._core import validation as check
from banditroute.residency import FIFO, FTPL, GDSF, SIEVE, DecayedLFU, Popularity, RandomSet, ResidentOnly
from banditroute.router import state as snap

POLICIES = {
    "linucb": lambda rng: LinUCB(4, 5, rng=rng),
    "mixed": lambda rng: LinUCB(4, 5, mix=0.3, prior=None, alpha=0.3, ridge=2.0, rng=rng),
    "discounted": lambda rng: LinUCB(4, 5, discount=0.99, mix=0.1, rng=rng),
    "lints": lambda rng: LinTS(4, 5, propensities=False, rng=rng),
    "diag": lambda rng: DiagLinUCB(4, 5, rng=rng),
    "greedy": lambda rng: EpsilonGreedy(4, 5, epsilon=0.2, rng=rng),
}
CONTROLLERS = {
    "none": lambda rng: None,
    "polar": lambda rng: Polar(2, epoch=7, rng=rng),
    "lru": lambda rng: LRU(2),
    "lfu": lambda rng: LFU(2),
    "fifo": lambda rng: FIFO(2),
    "sieve": lambda rng: SIEVE(2),
    "decayed": lambda rng: DecayedLFU(2),
    "gdsf": lambda rng: GDSF(2),
    "ftpl": lambda rng: FTPL(2, rng=rng),
    "popularity": lambda rng: Popularity(2, prefix=30),
    "random": lambda rng: RandomSet(2, rng=rng),
    "static": lambda rng: Static(["1"]),
    "only": lambda rng: ResidentOnly(Polar(2, epoch=9, rng=rng)),
}


class Clock:
    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


def made(policy="linucb", controller="none", rng=0, clock=None, **options):
    residency = CONTROLLERS[controller](rng)
    return Router(
        POLICIES[policy](rng),
        residency,
        None if residency is None else 0.2,
        clock=clock or Clock(),
        **options,
    )


def serve(router, steps, seed, ids=()):
    """Serve and answer with delay; returns what was decided, and the ids still open."""
    rng = np.random.default_rng(seed)
    trace, waiting = [], list(ids)
    for _ in range(steps):
        router.parts.books.clock.now += 1.0
        decision = router.select(rng.normal(size=5))
        trace.append((decision.arm, decision.propensity, decision.hit, decision.epoch, decision.time))
        waiting.append(decision.id)
        if len(waiting) > 6:
            router.update(waiting.pop(int(rng.integers(len(waiting)))), float(rng.normal()))
    return trace, waiting


@pytest.mark.parametrize(
    ("policy", "controller"),
    [(p, "polar") for p in POLICIES] + [("linucb", c) for c in CONTROLLERS if c != "polar"],
)
def test_save_load_continue_is_continue(tmp_path, policy, controller):
    one = made(policy, controller)
    _, ids = serve(one, 60, seed=1)
    one.save(tmp_path / "state")
    other = made(policy, controller, rng=99, clock=Clock(one._clock.now))
    other.load(tmp_path / "state")
    assert other.resident == one.resident
    before, after = one.stats(), other.stats()
    assert before == after
    # Same requests from here on: every decision, epoch and number drawn is the same, late answers included.
    first, mine = serve(one, 120, seed=2, ids=ids)
    again, theirs = serve(other, 120, seed=2, ids=ids)
    assert repr(first) == repr(again)
    assert [i in one.parts.ledger.pending for i in ids] == [i in other.parts.ledger.pending for i in ids]
    assert one.stats() == other.stats() and len(mine) == len(theirs)
    for name, array in one.policy.to_state()[1].items():
        assert np.array_equal(array, other.policy.to_state()[1][name], equal_nan=True), name


def test_ids_answered_before_are_duplicates_after(tmp_path):
    one = made()
    open_id, shut = one.select(np.ones(5)).id, one.select(np.ones(5)).id
    assert one.update(shut, 1.0)
    one.save(tmp_path / "state")
    two = made(rng=5)
    two.load(tmp_path / "state")
    assert two.update(shut, 1.0) is False
    assert two.update(open_id, 1.0) is True
    assert two.update(open_id, 1.0) is False
    assert two.stats()["duplicates"] == 2
    with pytest.raises(UnknownDecision):
        two.update(12345, 1.0)


def test_time_stands_still_between_save_and_load(tmp_path):
    one = made(clock=Clock(1000.0), feedback_limit_s=10.0)
    key = one.select(np.ones(5)).id
    one._clock.now += 6.0
    one.save(tmp_path / "state")
    two = made(clock=Clock(3.0), feedback_limit_s=10.0)
    two.load(tmp_path / "state")
    assert two.select(np.ones(5)).time == 1006.0
    two._clock.now += 3.5
    assert two.update(key, 1.0) is True  # 9.5 of its 10 seconds
    late = made(clock=Clock(3.0), feedback_limit_s=10.0)
    late.load(tmp_path / "state")
    late._clock.now += 4.5
    assert late.update(key, 1.0) is False


def test_removed_arms_and_quarantine_come_back(tmp_path):
    one = made("linucb", "lru")
    ids = [one.select(np.random.default_rng(i).normal(size=5)).id for i in range(20)]
    one.remove_arm("2")
    one.add_arm("new")
    one.quarantine("1")
    one.save(tmp_path / "state")
    two = made("linucb", "lru")
    two.load(tmp_path / "state")
    assert two.policy.arms == ("0", "1", "3", "new")
    assert [one.update(i, 0.5) for i in ids] == [two.update(i, 0.5) for i in ids]
    assert one.stats() == two.stats()
    assert two.stats()["arms"]["1"]["quarantined"] == 1


def test_previous_generation_is_kept(tmp_path):
    router = made()
    serve(router, 10, 1)
    router.save(tmp_path / "state")
    serve(router, 10, 2)
    router.save(tmp_path / "state")
    now, previous = made(), made()
    now.load(tmp_path / "state")
    previous.load(tmp_path / "state.previous")
    assert (now.stats()["decisions"], previous.stats()["decisions"]) == (20, 10)
    assert sorted(os.listdir(tmp_path)) == ["state", "state.previous"]


def test_rollback_puts_statistics_back_and_keeps_the_rest(tmp_path):
    router = made()
    _, ids = serve(router, 30, 1)
    router.save(tmp_path / "good")
    good = [router.policy.evidence(arm).buckets[0]["gram"] for arm in router.policy.arms]
    serve(router, 30, 2)
    served = router.stats()["decisions"]
    router.rollback(tmp_path / "good")
    now = [router.policy.evidence(arm).buckets[0]["gram"] for arm in router.policy.arms]
    assert np.array_equal(now, good)
    assert router.stats()["decisions"] == served
    assert router.update(ids[-1], 1.0) is True


def state_of(router):
    header, arrays = snap.capture(router)
    return header, {k: v.tobytes() for k, v in arrays.items()}


@pytest.mark.parametrize("length", [0, 10, 47, 48, 60, 500, -1])
def test_torn_files_are_refused_and_change_nothing(tmp_path, length):
    router = made("linucb", "polar")
    serve(router, 20, 1)
    router.save(tmp_path / "state")
    data = (tmp_path / "state").read_bytes()
    (tmp_path / "torn").write_bytes(data[:length])
    target = made("linucb", "polar", rng=3)
    before = state_of(target)
    with pytest.raises(SnapshotError, match="torn: "):
        target.load(tmp_path / "torn")
    assert state_of(target) == before
    with pytest.raises(SnapshotError):
        box.decode(data + b"x")


def test_every_flipped_bit_is_refused(tmp_path):
    router = made()
    serve(router, 3, 1)
    router.save(tmp_path / "state")
    data = bytearray((tmp_path / "state").read_bytes())
    rng = np.random.default_rng(0)
    places = [*range(60), *rng.integers(len(data), size=300).tolist()]
    for at in places:
        bit = 1 << int(rng.integers(8))
        data[at] ^= bit
        with pytest.raises(SnapshotError):
            box.decode(bytes(data))
        data[at] ^= bit
    box.decode(bytes(data))


def test_sizes_are_checked_before_anything_is_read(tmp_path):
    router = made()
    router.save(tmp_path / "state")
    with pytest.raises(SnapshotError, match="limit_bytes"):
        router.load(tmp_path / "state", limit_bytes=1000)
    data = (tmp_path / "state").read_bytes()
    hostile = data[:12] + struct.pack("<I", 0xFFFFFFFF) + data[16:]
    (tmp_path / "state").write_bytes(hostile)
    with pytest.raises(SnapshotError, match="header must end inside"):
        router.load(tmp_path / "state")


def recoded(data, change):
    """A file with valid checksums and another content."""
    header, arrays = box.decode(data)
    change(header, arrays)
    return box.encode(header, arrays)


@pytest.mark.parametrize(
    "change",
    [
        lambda h, a: h["policy"].update(policy="LinTS"),
        lambda h, a: h["policy"].update(dim=6),
        lambda h, a: h["policy"].update(arms=["a", "b"]),
        lambda h, a: h["policy"].pop("rng"),
        lambda h, a: h.pop("ledger"),
        lambda h, a: h["router"].update(index="many"),
        lambda h, a: a.pop("resident.mask"),
        lambda h, a: a.update({"resident.mask": np.ones(4, dtype=np.bool_)}),
        lambda h, a: a.update({"router.pending": np.zeros(3)}),
        lambda h, a: a.update({"pending.arm": np.full_like(a["pending.arm"], 77)}),
        lambda h, a: a.update({"pending.context": a["pending.context"][:, :3]}),
        lambda h, a: a["policy.header"].__setitem__(0, 1e15),  # a billion arms
        lambda h, a: a["policy.header"].__setitem__(1, 1e15),
        lambda h, a: a["policy.header"].__setitem__(12, 1e15),
        lambda h, a: a["policy.header"].__setitem__(13, np.nan),
        lambda h, a: a["policy.header"].__setitem__(14, 1e15),  # a cursor outside the noise
        lambda h, a: a["policy.header"].__setitem__(15, -1.0),
        lambda h, a: a.update({"policy.theta": a["policy.theta"][:2]}),
    ],
)
def test_valid_files_that_do_not_fit_are_refused_and_change_nothing(tmp_path, change):
    source = made("linucb", "polar")
    serve(source, 20, 1)
    source.save(tmp_path / "state")
    (tmp_path / "state").write_bytes(recoded((tmp_path / "state").read_bytes(), change))
    router = made("linucb", "polar", rng=3)
    before = state_of(router)
    with pytest.raises(SnapshotError):
        router.load(tmp_path / "state")
    assert state_of(router) == before
    serve(router, 20, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda h, a: h["controller"].update(object="LRU"),
        lambda h, a: h["resident"].__setitem__(2, 3.0),
        lambda h, a: h.pop("controller"),
    ],
)
def test_a_controller_of_other_settings_starts_anew_and_the_rest_is_taken(tmp_path, change):
    source = made("linucb", "polar")
    serve(source, 20, 1)
    source.save(tmp_path / "state")
    (tmp_path / "state").write_bytes(recoded((tmp_path / "state").read_bytes(), change))
    router = made("linucb", "polar", rng=3)
    report = router.load(tmp_path / "state")
    assert "controller" in report["reset"][0] or "residency" in report["reset"][0]
    assert np.array_equal(router.policy.counts, source.policy.counts)
    serve(router, 20, 2)


def test_offsets_in_a_file_are_never_believed(tmp_path):
    router = made()
    serve(router, 20, 1)
    router.save(tmp_path / "state")

    def change(header, arrays):
        arrays["policy.header"][4:12] = 1e12  # where the kernels find their blocks

    (tmp_path / "state").write_bytes(recoded((tmp_path / "state").read_bytes(), change))
    router.load(tmp_path / "state")
    assert np.all(router.policy.buffer[4:12] < router.policy.buffer.size)
    serve(router, 20, 2)


def test_a_directory_that_cannot_be_written_is_a_clear_error(tmp_path):
    router = made()
    with pytest.raises(OSError):
        router.save(tmp_path / "missing" / "state")
    if os.geteuid():
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(PermissionError):
            router.save(tmp_path / "state")
        tmp_path.chmod(stat.S_IRWXU)
    serve(router, 5, 1)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    router = made()
    router.save(tmp_path / "state")
    old = (tmp_path / "state").read_bytes()
    serve(router, 5, 1)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(box.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        router.save(tmp_path / "state")
    assert (tmp_path / "state").read_bytes() == old
    assert not [n for n in os.listdir(tmp_path) if n.startswith(".")]


def test_nothing_of_the_old_format_is_forgotten():
    """A file written by format 1 loads for ever."""
    router = Router(
        LinUCB(["a", "b", "c"], 3, alpha=0.5, ridge=1.0, rng=0), Polar(2, epoch=5), 0.1, clock=Clock()
    )
    router.load(Path(__file__).parent / "data" / "snapshot-1")
    stats = router.stats()
    assert (stats["decisions"], stats["learned"], stats["pending"]) == (40, 35, 5)
    assert router.resident == ("a", "c")
    assert router.policy.counts.tolist() == [8, 15, 12]
    router.select([1.0, 0.0, 0.0])


@pytest.mark.parametrize("name", ["flush_s", "checkpoint_s", "sync_s"])
def test_periods_that_no_thread_can_wait_for_are_refused(tmp_path, name):
    router, store = Router(LinUCB(2, 2, rng=0)), FileStore(tmp_path / "store")
    call = (
        (lambda **o: router.join(store, **o))
        if name == "sync_s"
        else (lambda **o: router.recover(tmp_path, **o))
    )
    with pytest.raises(ValueError, match=rf"{name} must be in \(0, 1e\+09\], got 10000000000.0"):
        call(**{name: 1e10})
    assert check.LONGEST_S < threading.TIMEOUT_MAX
    router.recover(tmp_path, flush_s=check.LONGEST_S, checkpoint_s=check.LONGEST_S)
    router.select([1.0, 0.0])
    assert router._lasting.journal._flusher.alive and router._lasting.journal._checkpointer.alive
    router.close()
    assert router.stats()["journal_errors"] == 0
