"""A state that is copied slice by slice is that of the cut, bit for bit, whatever happens in between."""

import gc
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from banditroute import LRU, FileStore, LinUCB, Polar, Router
from banditroute._core.kernels import layout
from banditroute.durability import snapshots
from banditroute.policies import linear, linear_evidence, linear_slices
from banditroute.policies.linear_evidence import EvidenceDraft
from banditroute.policies.linear_state import LinearState
from banditroute.router import ledger, ledger_state, waiting
from storms import Storm, same, terms
from test_evidence import ALONE, SHARING
from test_journal import compared, crash, journal_of, made, serve

POLICIES = {**SHARING, **ALONE}
LINEAR = ("LinUCB", "LinUCB-textbook", "LinUCB-forgetting", "LinTS", "DiagLinUCB", "EpsilonGreedy")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Slices of one arm and of a few decisions, so that small routers take many."""
    monkeypatch.setattr(linear_slices, "MOST", 1)
    monkeypatch.setattr(ledger_state, "HELD", 1)
    monkeypatch.setattr(ledger_state, "MOST", 3)
    monkeypatch.setattr(ledger, "FRONT", 4)
    monkeypatch.setattr(waiting, "RECENT", 3)
    monkeypatch.setattr(waiting, "MOVED", 2)
    monkeypatch.setattr(waiting, "is_tracked", lambda entry: False)


def weathered(name, seed, **options):
    storm = Storm(POLICIES[name](seed), seed, **options)
    for _ in range(150):
        storm.step()
    return storm


def check(storm, rounds=4, between=3):
    """Copy again and again; returns the number of slices."""
    total = 0
    for _ in range(rounds):
        want, found, slices = storm.copied(between)
        assert same(want, found)
        total += slices
        for _ in range(20):
            storm.step()
    return total


@pytest.mark.parametrize("name", POLICIES)
def test_slices_are_the_state_at_the_cut(name):
    storm = weathered(name, 1)
    assert check(storm) > 4
    assert {"select", "update", "cancel", "expire", "forget", "named"} <= set(storm.kinds)


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("seed", range(4))
def test_linear_policies_are_copied_arm_by_arm(name, seed):
    storm = weathered(name, seed)
    assert check(storm, rounds=8, between=8) > 8 * 8
    assert {"add", "remove", "again"} <= set(storm.kinds)


@pytest.mark.parametrize("name", ["LinUCB", "LinUCB-forgetting", "LinTS", "DiagLinUCB", "SlidingWindow"])
def test_with_terms(name):
    storm = weathered(name, 2, terms=terms(), expired_reward=0.0)
    check(storm)
    assert storm.kinds["mark"] > 3


@pytest.mark.parametrize("name", ["LinUCB", "LinUCB-forgetting", "LinTS", "Restarting-Stale"])
@pytest.mark.parametrize("controller", [lambda: LRU(2), lambda: Polar(2, epoch=7)], ids=["lru", "polar"])
def test_with_residency(name, controller):
    check(weathered(name, 3, residency=controller()))


@pytest.mark.parametrize(
    "name", ["LinUCB", "LinUCB-textbook", "DiagLinUCB-forgetting", "Stale", "GraphDiagLinUCB"]
)
def test_joined_to_others(name, tmp_path):
    storm = weathered(name, 4, home=tmp_path)
    check(storm)
    assert storm.kinds["sync"] > 5


def test_the_storm_can_fail(monkeypatch):
    """A policy that does not copy an arm before it changes is caught, and so is a ledger that puts nothing aside."""
    with monkeypatch.context() as broken:
        for module in (linear, linear_evidence):
            broken.setattr(module, "changing", lambda *_: None)
        broken.setattr(linear, "learning", lambda *_: None)
        for name in LINEAR:
            storm = weathered(name, 0)
            assert not all(same(*storm.copied(8)[:2]) for _ in range(8)), name
    for part in ("_keep", "_keep_closed"):
        with monkeypatch.context() as broken:
            broken.setattr(ledger.Ledger, part, lambda *_: None)
            storms = [weathered("LinUCB", seed) for seed in range(4)]
            with pytest.raises((AssertionError, KeyError)):
                check_all(storms)


def check_all(storms):
    for storm in storms:
        check(storm)


def test_only_what_learns_ahead_of_its_turn_is_copied_ahead():
    policy = LinUCB(5, 2, alpha=0.3, ridge=1.0, prior=None, rng=0)
    slices = policy.capture_slices()
    assert next(slices) is None
    copy = policy.state.copies[0]
    policy.update(3, [1.0, 0.0], 1.0)
    assert copy._left.any(axis=0).tolist() == [True, True, True, False, True]
    policy.update(3, [1.0, 0.0], 1.0)
    next(slices)
    assert copy._left.any(axis=0).tolist() == [False, True, True, False, True]
    slices.close()
    assert policy.state.copies == []


def refreshing(seed, **options):
    """A policy whose refresh takes many slices, and what it learns next."""
    rng = np.random.default_rng(seed)
    policy = LinUCB(12, 16, rng=0, **options)
    policy.buffer[layout.H_BUDGET] = 2_000.0

    def learn(times):
        for _ in range(times):
            x = np.append(rng.standard_normal(15), 1.0)
            policy.update(int(rng.integers(12)), x, float(x[:12] @ rng.standard_normal(12)))

    return policy, learn


def copied(policy, learn):
    """The state at the cut, and what slices made of it while it went on learning."""
    twin = policy.state.to_arrays()
    slices = policy.capture_slices()
    for found in slices:  # noqa: B007 - the last one is the state
        learn(1)
    return twin, found[1]


@pytest.mark.parametrize("options", [{}, {"ridge": 1.0}, {"prior": None}], ids=["all", "prior", "scales"])
def test_arms_that_a_refresh_moves_are_copied_before(options, monkeypatch):
    policy, learn = refreshing(1, **options)
    phases, wrong = set(), 0
    for _ in range(60):
        learn(5)
        phases.add(policy.buffer[layout.H_PHASE])
        want, found = copied(policy, learn)
        assert all(np.array_equal(found[name], want[name], equal_nan=True) for name in want)
    assert {layout.IDLE, layout.MOVE} <= phases
    monkeypatch.setattr(linear, "upkeeping", lambda *_: None)
    for _ in range(60):
        learn(5)
        want, found = copied(policy, learn)
        wrong += not all(np.array_equal(found[name], want[name], equal_nan=True) for name in want)
    assert wrong


@pytest.mark.parametrize("queued", [0, 3, 7])
def test_what_is_queued_of_an_arm_stays_queued_in_its_copy(queued):
    """Neither copy drains before the cut: the twin is made of the raw buffer."""
    rng = np.random.default_rng(queued)
    policy = LinUCB(2, 9, alpha=0.3, ridge=1.0, prior=None, rng=0)
    for i in range(16 + 2 * queued):
        policy.update(i % 2, rng.standard_normal(9), float(rng.random()))
    twin = LinearState(2, 9, ridge=1.0, rows=policy.state.noise.size)
    twin.buffer[:] = policy.buffer
    slices = policy.capture_slices()
    next(slices)
    policy.update(1, rng.standard_normal(9), 0.5)
    *_, (_, found) = slices
    want = twin.to_arrays()
    assert list(found) == list(want)
    assert all(np.array_equal(found[name], want[name], equal_nan=True) for name in want)


@pytest.mark.parametrize("controller", ["none", "lru"])
@pytest.mark.parametrize("seed", range(3))
def test_a_checkpoint_in_slices_and_the_records_since_are_the_live_router(
    tmp_path, monkeypatch, controller, seed
):
    router, ids = made(controller), []
    router.recover(tmp_path, flush_s=60.0, checkpoint_s=60.0)
    steps = iter(range(10_000))

    def between(_):
        step = next(steps)
        ids[:] = serve(router, step % 3, 100 * seed + step, ids)
        if step % 7 == 3:
            router.add_arm(f"new {step}", fault=0.3 if controller == "lru" else None)
        if step % 7 == 5:
            router.forget_arm(router.arms[step % len(router.arms)])
        if step % 7 == 6 and len(router.arms) > 2:
            router.remove_arm(router.arms[step % len(router.arms)])
        if step % 5 == 2 and ids:
            router.cancel(ids.pop())

    monkeypatch.setattr(snapshots, "sleep", between)
    for _ in range(3):
        ids[:] = serve(router, 40, seed, ids)
        router.checkpoint()
    assert next(steps) > 40
    journal_of(router).flush()
    wanted = compared(router)
    crash(router)
    again = made(controller, rng=9)
    report = again.recover(tmp_path, arms="file")
    assert report["generation"] == 4 and report["replayed"] > 0
    assert report["skipped"] == report["missing"] == report["torn_bytes"] == 0
    assert compared(again) == wanted
    again.close()


WORKER = """
import os, sys, threading
import numpy as np
from banditroute import LinUCB, Router
from banditroute.durability import snapshots
from banditroute.policies import linear_slices
from banditroute.router import ledger_state
linear_slices.MOST = ledger_state.HELD = 1
ledger_state.MOST = 8
snapshots.PAUSE_S = 0.002
router = Router(LinUCB(40, 4, mix=0.2, rng=0), pending_limit=500)
router.recover(sys.argv[1], checkpoint_s=0.05, flush_s=0.005)
journal, eye, waiting = router._lasting.journal, np.eye(4), []
def flusher():
    while True:
        sure = router.stats()["learned"]
        journal.flush()
        checkpoints, copying = journal.checkpoints, len(router.parts.ledger.copies)
        os.write(1, b"%d %d %d\\n" % (sure, checkpoints, copying))
threading.Thread(target=flusher, daemon=True).start()
rng = np.random.default_rng()
while True:
    waiting.append(router.select(eye[int(rng.integers(4))]).id)
    if len(waiting) > 20:
        router.update(waiting.pop(int(rng.integers(20))), 1.0)
"""


def test_a_process_that_is_killed_while_it_copies_loses_nothing_that_was_flushed(tmp_path):
    """Each reward is 1 and each context a unit vector: sums must count every answer once."""
    copied = 0
    for _ in range(4):
        command = [sys.executable, "-c", WORKER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
            told = []
            for line in worker.stdout:
                told.append([int(number) for number in line.split()])
                if told[-1][1] > 2 and told[-1][2]:  # a later checkpoint is under way
                    break
            worker.kill()
            told += [
                [int(number) for number in line.split()] for line in worker.stdout if line.endswith(b"\n")
            ]
        copied += told[-1][2]
        router = Router(LinUCB(40, 4, mix=0.2, rng=0), pending_limit=500)
        report = router.recover(tmp_path, checkpoint_s=60.0)
        learned = router.stats()["learned"]
        assert learned >= told[-1][0] and not report["refused"]
        assert router.policy.counts.sum() == learned
        assert router.policy.moment.sum() == learned
        router.close()
    assert copied > 0


def test_a_copy_that_is_given_up_leaves_nothing_behind():
    storm = weathered("LinUCB", 0)
    slices = storm.host.capture_slices()
    next(slices)
    books, state = storm.router.parts.ledger, storm.router.policy.state
    held = [books.copies, state.copies]
    assert [len(one) for one in held] == [1, 1]
    slices.close()
    assert held == [[], []]


def test_requests_are_served_between_slices():
    """No slice waits for a request, and a request that waits gets the lock before the next slice."""
    router = Router(LinUCB(50, 4, rng=0))
    host, served, done = router._lasting._host, [], threading.Event()

    def serve():
        while not done.is_set():
            served.append(router.select(np.ones(4)).id)

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(served) < 20:
        time.sleep(0.001)
    before = len(served)
    snapshots.captured(host)
    after = len(served)
    done.set()
    for thread in threads:
        thread.join()
    assert after > before + 10


def test_pending_decisions_are_no_work_for_the_collector():
    """Not in a full collection: 20,000 of them cost it less than 20,000 tuples in a list."""
    router = Router(LinUCB(3, 8, rng=0), pending_limit=50_000)
    tuples = [tuple([i]) for i in range(20_000)]  # noqa: C409 - what is compared with
    gc.collect()
    found = sum(gc.is_tracked(one) for one in tuples)
    for _ in range(20_000):
        router.select(np.ones(8))
    gc.collect()
    entries = router.parts.ledger.pending
    assert found == 0 and not any(gc.is_tracked(entry) for entry in entries.values())
    assert len(entries) == 20_000 and not gc.is_tracked(entries.older)
    assert len(entries.recent) <= waiting.RECENT  # the others are not gone through


@pytest.mark.parametrize("name", ["LinUCB", "LinUCB-textbook", "LinUCB-forgetting", "LinTS", "DiagLinUCB"])
def test_evidence_that_was_drafted_is_evidence_that_was_set(name):
    """To the last bit, also while a copy is under way, which it leaves as it was."""
    rng = np.random.default_rng(5)
    source, one = POLICIES[name](0), POLICIES[name](1)
    for i in range(37):
        source.update(i % 4, np.abs(rng.standard_normal(3)), float(rng.random()), at=i)
        one.update(i % 3, np.abs(rng.standard_normal(3)), float(rng.random()), at=i)
    one.state.buffer[layout.H_REFRESH] = source.state.buffer[layout.H_REFRESH] = 1e6
    other, total = one.copy(), source.evidence("1")
    want = other.to_state()
    slices = one.capture_slices()
    next(slices)
    draft = one.draft_evidence("1", total)
    draft.derive()
    assert draft.apply()
    *_, found = slices
    assert same(found, want)
    other.set_evidence("1", total)
    assert same(one.to_state(), other.to_state())


def test_a_draft_is_refused_where_what_it_was_derived_from_has_changed():
    def drafted(change):
        policy = LinUCB(["a", "b", "c"], 2, alpha=0.3, ridge=1.0, prior="pooled", rng=0)
        policy.update("a", [1.0, 0.5], 1.0)
        draft = policy.draft_evidence("b", policy.evidence("a"))
        draft.derive()
        change(policy)
        before = policy.to_state()
        return draft.apply(), same(policy.to_state(), before)

    def refresh(policy):
        policy.refresh()

    assert drafted(lambda policy: None) == (True, False)
    assert drafted(refresh) == (False, True)
    assert drafted(lambda policy: policy.add_arm("d")) == (True, False)  # moves no other arm
    assert drafted(lambda policy: policy.remove_arm("a")) == (False, True)


def test_rewards_that_come_while_a_total_is_derived_are_in_it(tmp_path, monkeypatch):
    """A total that is out of date is formed anew, and in one go when rewards keep coming."""
    router = Router(LinUCB(2, 2, alpha=0.3, ridge=1.0, prior=None, rng=0))
    replica = router.join(FileStore(tmp_path), background=False)
    derive, came = EvidenceDraft.derive, []

    def late(draft):
        derive(draft)
        came.append(router.update(router.select([1.0, 0.0], eligible=["0"]).id, 1.0))

    router.update(router.select([1.0, 0.0], eligible=["0"]).id, 1.0)
    monkeypatch.setattr(EvidenceDraft, "derive", late)
    replica.sync()
    assert came == [True] * 3
    assert router.policy.counts.tolist() == [4, 0]
    assert router.policy.moment[0].tolist() == [4.0, 0.0]
    assert same(({}, router.policy.evidence("0").buckets[0]), ({}, replica.me.evidence.own["0"].buckets[0]))
