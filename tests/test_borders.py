"""What a caller, another thread or a fork must not be able to do to a Router."""

import os
import threading

import numpy as np
import pytest

from banditroute import (
    LRU,
    FileStore,
    LinTS,
    LinUCB,
    Polar,
    PolarPlus,
    Router,
    SnapshotError,
    UnknownDecision,
)
from banditroute.policies import LogisticUCB
from banditroute.router import RewardLimits
from test_threads import in_child

MULTI = "ignore:This process.*is multi-threaded:DeprecationWarning"


def test_ids_that_cannot_have_been_issued_are_refused_and_reach_no_store(tmp_path):
    router = Router(LinUCB(2, 2, rng=0))
    replica = router.join(FileStore(tmp_path), share_decisions=True, background=False)
    for key in (10**320, 1 << 64, -1):
        with pytest.raises(UnknownDecision):
            router.update(key, 1.0)
    replica.exchange()
    assert router.stats()["deferred"] == router.stats()["store_errors"] == 0


def test_empty_prices_and_masks_are_not_taken_for_none():
    policy = LinUCB(3, 2, rng=0)
    for target in (policy, Router(LinUCB(3, 2, rng=0))):
        for empty in ([], np.empty(0), np.empty(0, dtype=np.bool_)):
            with pytest.raises((ValueError, TypeError), match="prices must"):
                target.select(
                    [1.0, 0.0],
                    prices=empty if len(np.shape(empty)) and np.asarray(empty).dtype == float else [],
                )
            with pytest.raises((ValueError, TypeError), match="eligible must"):
                target.select([1.0, 0.0], eligible=empty)
        with pytest.raises(ValueError, match="x must have shape"):
            target.select([])


def test_a_reader_writes_nothing():
    policy = LinUCB(3, 4, rng=0)
    policy.update(0, np.ones(4), 1.0)
    before = policy.buffer.copy()
    policy.scores(np.full(4, 0.5))
    policy.scores_batch(np.full((40, 4), 0.25))
    assert np.array_equal(policy.buffer, before)


@pytest.mark.parametrize("more", [1, 12], ids=["in its place", "in another"])
def test_scores_beside_a_change_of_arms_are_of_one_moment(more):
    policy = LinUCB(2, 4, rng=0)
    stale = policy.buffer  # as a thread sees it that has read the buffer before the change
    for i in range(more):
        policy.add_arm(f"new-{i}")
    old = object.__new__(LinUCB)
    old.__dict__.update(policy.__dict__)
    old.buffer = stale
    assert (stale is policy.buffer) == (more == 1)
    one, many = old.scores(np.ones(4)), old.scores_batch(np.eye(4))
    count = len(one.mean)
    assert 2 <= count <= 2 + more and one.width.shape == (count,)
    assert many.mean.shape == many.width.shape == (4, count)


@pytest.mark.filterwarnings(MULTI)
def test_a_router_that_could_not_be_made_does_not_spoil_forks():
    good = [Router(LinUCB(2, 2, rng=0)) for _ in range(3)]
    with pytest.raises(ValueError) as kept:
        Router(LinUCB(2, 2, rng=0), LRU(1), -1.0)
    ids = in_child(lambda: [r.select([1.0, 0.0]).id for r in good])
    assert not {r.select([1.0, 0.0]).id for r in good} & set(ids) and kept.value is not None


@pytest.mark.filterwarnings(MULTI)
def test_a_fork_inside_a_plan_goes_on():
    forked = []

    class Forking(Polar):
        def plan(self, view):
            if not forked:
                forked.append(in_child(lambda: 7))
            return super().plan(view)

    router = Router(LinUCB(3, 2, rng=0), Forking(1, epoch=5), 0.1)
    for _ in range(12):
        router.update(router.select([1.0, 0.0]).id, 1.0)
    assert forked == [7] and router.stats()["epoch"] >= 2


@pytest.mark.filterwarnings(MULTI)
def test_a_fork_waits_for_no_thread_that_waits_for_it():
    one, two = sorted((Router(LinUCB(2, 2, rng=i)) for i in range(2)), key=id)
    inside, forking = threading.Event(), threading.Event()

    def hold():
        with two.parts.lock:  # as in a callback of `two` that asks `one`
            inside.set()
            forking.wait(0.3)
            one.select([1.0, 0.0])

    other = threading.Thread(target=hold)
    other.start()
    inside.wait(10.0)
    assert in_child(lambda: 3) == 3
    forking.set()
    other.join(10.0)
    assert not other.is_alive()


@pytest.mark.filterwarnings(MULTI)
def test_routers_made_during_a_fork_do_not_upset_it():
    done, made = threading.Event(), []

    def make():
        while not done.is_set():
            made.append(Router(LinUCB(1, 1, rng=0)))

    maker = threading.Thread(target=make)
    maker.start()
    answers = [in_child(lambda: 5) for _ in range(5)]
    done.set()
    maker.join()
    assert answers == [5] * 5
    assert all(router.select([1.0]).arm == "0" for router in made)  # no lock is left taken


def test_a_request_that_no_arm_may_serve_is_refused_and_counts_nothing():
    router = Router(LinUCB(["a", "b"], 2, rng=0), Polar(1, epoch=5), 0.1)
    router.quarantine("b")
    for _ in range(5):
        router.select([1.0, 0.0])
    with pytest.raises(ValueError, match="quarantined"):  # the plan that was due may be made by then
        router.select([1.0, 0.0], eligible=np.array([False, True]))
    before = router.stats()
    for given in (np.array([False, True]), {"b"}, {"a": False, "b": True}):
        with pytest.raises(ValueError, match="quarantined"):
            router.select([1.0, 0.0], eligible=given)
    assert router.stats() == before and before["decisions"] == 5


def test_an_expiry_reward_is_one_that_the_policy_learns():
    with pytest.raises(ValueError, match="reward"):
        Router(LogisticUCB(2, 2, rng=0), expired_reward=-1.0)


def test_parts_are_checked_when_the_router_is_made():
    with pytest.raises(TypeError, match="listeners must have"):
        Router(LinUCB(2, 2), recorder=3)
    with pytest.raises(TypeError, match="backend must have"):
        Router(LinUCB(2, 2), LRU(1), 0.1, backend=3)
    with pytest.raises(ValueError, match="paging must price faults"):
        Router(LinUCB(2, 2), LRU(1), 1e40)


def test_a_source_does_not_pay_for_ids_that_nobody_awaits():
    now = [0.0]
    router = Router(LinUCB(2, 2, rng=0), sources={"*": RewardLimits(per_s=2)}, clock=lambda: now[0])
    decision = router.select([1.0, 0.0])
    for junk in range(5):
        with pytest.raises(UnknownDecision):
            router.update(junk, 1.0, source="j")
    assert router.update(decision.id, 1.0, source="j") is True
    assert [router.update(decision.id, 1.0, source="j") for _ in range(9)] == [False] * 9
    assert router.stats()["duplicates"] == 9


def test_recover_may_be_tried_again(tmp_path, monkeypatch):
    from banditroute._core.files import Folder

    first = Router(LinUCB(2, 2, rng=0))
    first.recover(tmp_path)
    for _ in range(20):
        first.update(first.select([1.0, 0.5]).id, 1.0)
    first.close()
    router, write, full = Router(LinUCB(2, 2, rng=1)), Folder.write, [True]

    def maybe(*given, **options):
        if full:
            raise OSError("disk full")
        return write(*given, **options)

    monkeypatch.setattr(Folder, "write", maybe)
    with pytest.raises(OSError, match="disk full"):
        router.recover(tmp_path)
    assert router.stats()["decisions"] == 0 and router.policy.counts.sum() == 0
    full.clear()
    assert router.recover(tmp_path)["generation"] > 0
    assert router.stats()["decisions"] == 20
    router.close()


def test_nothing_is_written_after_close(tmp_path):
    router = Router(LinUCB(2, 2, rng=0))
    router.recover(tmp_path / "home")
    router.save(tmp_path / "state")
    router.close()
    before = sorted(os.listdir(tmp_path / "home"))
    with pytest.raises(ValueError, match="rollback must come before close"):
        router.rollback(tmp_path / "state")
    with pytest.raises((ValueError, RuntimeError), match="closed"):
        router.select([1.0, 0.0])
    with pytest.raises(ValueError, match="checkpoint must come before close"):
        router.checkpoint()
    with pytest.raises(ValueError, match="join must come before close"):
        router.join(FileStore(tmp_path / "store"))
    for change in (router.add_arm, router.remove_arm, router.forget_arm, router.quarantine, router.release):
        with pytest.raises(ValueError, match="closed"):
            change("new" if change == router.add_arm else "1")
    assert router.arms == ("0", "1") and FileStore(tmp_path / "store").index() == {}
    assert sorted(os.listdir(tmp_path / "home")) == before


def test_a_lost_reply_of_the_store_does_not_make_two_answers(tmp_path):
    class Lossy(FileStore):
        lost = 1

        def keep(self, decisions, ttl_s):
            super().keep(decisions, ttl_s)
            if decisions and self.lost:
                self.lost -= 1
                raise OSError("no reply")

    one, two = Router(LinUCB(2, 2, rng=0)), Router(LinUCB(2, 2, rng=1))
    mine = one.join(Lossy(tmp_path), share_decisions=True, background=False)
    theirs = two.join(FileStore(tmp_path), share_decisions=True, background=False)
    decision = one.select([1.0, 0.0])
    with pytest.raises(OSError, match="no reply"):
        mine.exchange()
    assert one.update(decision.id, 1.0) is True  # taken; the store is asked before it is learned
    assert two.update(decision.id, 1.0) is True
    mine.exchange()
    for replica in (mine, theirs, mine):
        replica.sync()
    assert int(one.policy.counts.sum()) == 1


def test_an_arm_that_comes_again_learns_nothing_of_the_one_before(tmp_path):
    router = Router(LinUCB(["a"], 2, rng=0))
    replica = router.join(FileStore(tmp_path), share_decisions=True, background=False)
    decision = router.select([1.0, 0.0])
    replica.exchange()
    router.update(decision.id, 1.0)  # waits for the store
    router.add_arm("b")
    router.remove_arm("a")
    router.add_arm("a")
    replica.exchange()
    assert router.policy.counts.sum() == 0 and router.stats()["dropped"] == 1


def test_forced_decisions_of_thompson_sampling_carry_a_propensity_or_none():
    def course(exact):
        policy = LinTS(3, 2, propensities=exact, rng=0)
        router = Router(policy, PolarPlus(1, first=8, rng=3), 0.1)
        decisions = []
        for i in range(400):
            decisions.append(router.select([1.0, (i % 5) / 5]))
            router.update(decisions[-1].id, 0.5)
        return router, decisions

    (known, exact), (_, quick) = course(True), course(False)
    assert known.stats()["forced"] >= 2
    assert [d.arm for d in exact] == [d.arm for d in quick]
    for a, b in zip(exact, quick, strict=True):
        assert np.isnan(b.propensity) or b.propensity == pytest.approx(a.propensity, abs=1e-9)


@pytest.mark.filterwarnings(MULTI)
def test_a_child_keeps_no_file_of_the_journal(tmp_path):
    router = Router(LinUCB(2, 2, rng=0))
    router.recover(tmp_path)

    def still_open():
        return [
            os.readlink(f"/proc/self/fd/{fd}")
            for fd in os.listdir("/proc/self/fd")
            if os.path.islink(f"/proc/self/fd/{fd}")
        ]

    assert not [path for path in in_child(still_open) if str(tmp_path) in path]
    router.close()


def test_a_state_is_taken_under_other_settings_which_stay_as_they_are(tmp_path):
    taught = Router(LinUCB(2, 2, mix=0.1, rng=0))
    for i in range(40):
        taught.update(taught.select(np.eye(2)[i % 2]).id, float(i % 3))
    taught.save(tmp_path / "state")
    for other in ({"mix": 0.2}, {"alpha": 0.3}, {"ridge": 2.0}, {"max_norm": 5.0}, {"prior": None}):
        policy = LinUCB(2, 2, rng=0, **other)
        router = Router(policy)
        router.load(tmp_path / "state")
        assert np.array_equal(policy.counts, taught.policy.counts)
        assert np.allclose(policy.moment, taught.policy.moment, rtol=1e-12)
        if "alpha" in other or "ridge" in other:
            assert getattr(policy, next(iter(other))) == next(iter(other.values()))
    wider = Router(LinUCB(2, 3, rng=0))
    before = wider.policy.buffer.copy()
    with pytest.raises(SnapshotError, match="must"):
        wider.load(tmp_path / "state")
    assert np.array_equal(wider.policy.buffer, before)


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit])
def test_a_recorder_that_raises_costs_no_request(kind):
    class Faulty:
        def decided(self, *told):
            raise kind("a mistake")

        learned = dropped = arms_changed = marked = decided

    router = Router(LinUCB(2, 2, rng=0), recorder=Faulty())
    decisions = [router.select([1.0, 0.0]) for _ in range(5)]
    assert all(router.update(decision.id, 1.0) for decision in decisions)
    stats = router.stats()
    assert stats["learned"] == 5 and stats["pending"] == 0
    assert stats["callback_errors"] == 10
