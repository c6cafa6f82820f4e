"""Replicas: every total is exactly the sum of what each learned, whatever happens on the way."""

import numpy as np
import pytest

import schedules
from banditroute import FileStore, LinUCB, Router, UnknownDecision
from banditroute._core.container import encode
from banditroute.durability.stores import BASE


class Down:
    """A store that can be switched off."""

    def __init__(self, store):
        self.store, self.down = store, False

    def __getattr__(self, name):
        def call(*args):
            if self.down:
                raise OSError("down")
            return getattr(self.store, name)(*args)

        return call


def member(store, rng=0, **options):
    router = Router(LinUCB(3, 2, alpha=0.5, ridge=1.0, mix=0.2, rng=rng), pending_limit=50)
    return router, router.join(store, background=False, **options)


@pytest.mark.parametrize("seed", range(30))
def test_fault_schedules(tmp_path, seed):
    schedules.run_schedule(FileStore(tmp_path), seed)


@pytest.mark.parametrize("seed", range(4))
def test_fault_schedules_with_discount(tmp_path, seed):
    schedules.run_schedule(FileStore(tmp_path), seed, discount=0.5, flushes=False)


def test_the_oracle_can_fail(tmp_path, monkeypatch):
    """A merge that forgets one replica is caught."""
    from banditroute.durability import replicas

    real = replicas.total
    monkeypatch.setattr(replicas, "total", lambda parts, *rest: real(parts[:-1] or parts, *rest))
    caught = 0
    for seed in range(5):
        try:
            schedules.run_schedule(FileStore(tmp_path), seed)
        except AssertionError:
            caught += 1
    assert caught > 0


def test_replicas_come_to_the_same_bits(tmp_path):
    store, rng = FileStore(tmp_path), np.random.default_rng(0)
    members = [member(store, i) for i in range(3)]
    for _ in range(60):
        router, replica = members[int(rng.integers(3))]
        router.update(router.select(rng.normal(size=2)).id, float(rng.normal()))
        if rng.random() < 0.2:
            replica.sync()
    for _ in range(2):
        for _, replica in members:
            replica.sync()
    states = [r.policy.state for r, _ in members]
    for other in states[1:]:
        assert np.array_equal(states[0].gram, other.gram) and np.array_equal(states[0].moment, other.moment)
    assert states[0].arm[:, 0].sum() == 60
    # and derived state is that of a policy which learned it all by itself
    alone = members[0][0].policy.copy()
    alone.rebuild()
    assert np.allclose(alone.cov(0), members[1][0].policy.cov(0), rtol=1e-9)


def test_only_changed_arms_travel(tmp_path):
    sent = []

    class Spy(FileStore):
        def put(self, replica, row, parts):
            sent.append(sorted(parts))
            return super().put(replica, row, parts)

    router, replica = member(Spy(tmp_path))
    for x in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]):
        router.update(router.select(x).id, 1.0)
    replica.sync()
    arm = router.select([1.0, 0.0])
    router.update(arm.id, 1.0)
    sent.clear()
    replica.sync()
    replica.sync()
    assert sent == [[arm.arm], []]


def test_statistics_from_before_joining_count_once(tmp_path):
    trained = LinUCB(3, 2, rng=0)
    for _ in range(10):
        trained.update(0, [1.0, 2.0], 1.0)
    routers = [Router(trained.copy()) for _ in range(2)]
    replicas = [r.join(FileStore(tmp_path), background=False) for r in routers]
    routers[0].update(routers[0].select([1.0, 0.0], eligible=np.array([True, False, False])).id, 1.0)
    for replica in replicas * 2:
        replica.sync()
    assert [r.policy.counts[0] for r in routers] == [11, 11]


def test_a_store_that_is_down_is_counted_and_serving_goes_on(tmp_path):
    store = Down(FileStore(tmp_path))
    one, mine = member(store, share_decisions=True)
    two, theirs = member(store, 1, share_decisions=True)
    store.down = True
    ids = [one.select([1.0, 0.0]).id for _ in range(3)]
    assert mine.sync() is False and one.stats()["store_errors"] == 1
    assert one.update(ids[0], 1.0) is True  # never left this replica
    assert two.update(ids[1], 1.0) is True  # taken for later
    store.down = False
    mine.exchange()
    theirs.exchange()
    assert (one.stats()["learned"], two.stats()["learned"]) == (1, 1)
    mine.sync(), theirs.sync(), mine.sync()
    assert one.policy.counts.sum() == two.policy.counts.sum() == 2


def test_a_decision_is_answered_once_wherever(tmp_path):
    store = FileStore(tmp_path)
    one, mine = member(store, share_decisions=True)
    two, theirs = member(store, 1, share_decisions=True)
    key, other = one.select([1.0, 0.0]).id, one.select([0.0, 1.0]).id
    mine.exchange()
    assert two.update(key, 1.0) is True
    assert two.update(key, 1.0) is False  # duplicate there
    assert one.update(key, 1.0) is True  # taken; the store will say no
    mine.exchange()
    assert one.update(key, 1.0) is False
    assert one.update(other, 1.0) is True
    mine.exchange()
    assert two.update(other, 1.0) is False
    with pytest.raises(UnknownDecision):
        two.update(12345, 1.0)
    for replica in (mine, theirs, mine):
        replica.sync()
    assert one.policy.counts.sum() == two.policy.counts.sum() == 2
    assert one.stats()["duplicates"] + two.stats()["duplicates"] == 4


def test_expired_here_and_answered_there_counts_once(tmp_path):
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    clock, store = Clock(), FileStore(tmp_path)
    one = Router(LinUCB(2, 2, rng=0), feedback_limit_s=10.0, expired_reward=-1.0, clock=clock)
    mine = one.join(store, background=False, share_decisions=True)
    two, theirs = member(store, 1, share_decisions=True)
    two.remove_arm("2")
    answered, forgotten = one.select([1.0, 0.0]).id, one.select([1.0, 0.0]).id
    mine.exchange()
    assert two.update(answered, 5.0)
    clock.now = 11.0
    assert one.stats()["expired"] == 2
    mine.exchange()
    assert one.stats()["learned"] == 1  # the forgotten one, at its stated reward
    with pytest.raises(UnknownDecision):
        two.update(99, 1.0)
    assert two.update(forgotten, 1.0) is False
    for replica in (mine, theirs, mine):
        replica.sync()
    assert one.policy.state.moment.sum() == two.policy.state.moment.sum() == 4.0


def test_foreign_bytes_are_refused_and_counted(tmp_path):
    store = FileStore(tmp_path)
    router, replica = member(store)
    bad = {"gram": np.zeros(3), "moment": np.zeros(3), "sums": np.zeros(3)}
    rows = {
        "torn": b"nonsense",
        "shape": encode({"arm": "0", "seq": 1, "bucket": 0}, bad),
        "nan": encode({"arm": "0", "seq": 1, "bucket": 0}, {n: np.full(64, np.nan) for n in bad}),
    }
    for name, data in rows.items():
        store.put(name, {"seq": 1, "beat": 1, "parts": {"0": 1}, "decisions": 0}, {"0": data})
    assert replica.sync()
    assert router.stats()["parts_refused"] == 3 and router.policy.counts.sum() == 0


def test_compaction_keeps_the_total_and_a_zombie_loses_nothing(tmp_path):
    store = FileStore(tmp_path)
    (one, mine), (two, theirs) = member(store), member(store, 1)
    two.update(two.select([1.0, 0.0]).id, 1.0)
    theirs.sync()
    two.update(two.select([1.0, 0.0]).id, 1.0)  # not published when it is thought dead
    mine.sync()
    assert mine.compact([theirs.id]) is True
    assert mine.compact(["nobody"]) is False
    assert set(store.index()) == {BASE, mine.id}
    for replica in (theirs, mine, theirs):
        replica.sync()
    assert two.stats()["fenced"] == 1 and two.stats()["replica_lost"] == 0
    assert one.policy.counts.sum() == two.policy.counts.sum() == 2


def test_a_restart_from_its_directory_goes_on_as_the_same_replica(tmp_path):
    store = FileStore(tmp_path / "store")

    def start():
        router = Router(LinUCB(3, 2, rng=0))
        router.recover(tmp_path / "home", flush_s=60.0)
        return router, router.join(store, background=False)

    router, replica = start()
    router.update(router.select([1.0, 0.0]).id, 1.0)
    replica.sync()
    router.update(router.select([1.0, 0.0]).id, 1.0)
    router._journal.checkpoint()
    router.update(router.select([1.0, 0.0]).id, 1.0)
    router._journal.flush()
    router._journal._stop.set()
    router._journal._thread.join()
    router._journal._file.close()
    router._journal._lock_file.close()  # killed here: two of three were never published
    again, same = start()
    assert same.id == replica.id
    other, theirs = member(store, 1)
    same.sync(), theirs.sync()
    assert again.policy.counts.sum() == other.policy.counts.sum() == 3
    again.close()


def test_only_linear_policies_and_only_once(tmp_path):
    router, _ = member(FileStore(tmp_path))
    with pytest.raises(ValueError, match="once"):
        router.join(FileStore(tmp_path))
    router.save(tmp_path / "x")
    with pytest.raises(ValueError, match="before join"):
        router.load(tmp_path / "x")
    with pytest.raises(ValueError, match="before join"):
        router.rollback(tmp_path / "x")
