"""Replicas: every total is exactly the sum of what each learned, whatever happens on the way."""

import threading
import time
from contextlib import suppress

import numpy as np
import pytest

import mutations
import schedules
from banditroute import FileStore, LinUCB, Router, UnknownDecision
from banditroute.durability.rows import About, Row, evidence_bytes, sealed
from banditroute.durability.stores import BASE
from banditroute.policies import (
    UCB1,
    BetaThompson,
    DiagLinUCB,
    EpsilonGreedy,
    HybridLinUCB,
    LogisticUCB,
    Restarting,
    SharedLinUCB,
    SlidingWindow,
    StalenessInflation,
)
from banditroute.router import RewardLimits
from banditroute.terms import ArmHealth


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


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


def member(store, rng=0, policy=None, *, options=None, **joining):
    policy = LinUCB(3, 2, alpha=0.5, ridge=1.0, mix=0.2, rng=rng) if policy is None else policy
    router = Router(policy, pending_limit=50, **(options or {}))
    return router, router.join(store, background=False, **joining)


@pytest.mark.parametrize("seed", range(30))
def test_fault_schedules(tmp_path, seed):
    schedules.run_schedule(FileStore(tmp_path), seed)


@pytest.mark.parametrize("seed", range(4))
def test_fault_schedules_with_discount(tmp_path, seed):
    schedules.run_schedule(FileStore(tmp_path), seed, discount=0.5, flushes=False)


def test_the_oracle_can_fail(tmp_path, monkeypatch):
    """A merge that forgets one replica is caught."""
    from banditroute.durability import sharing

    real = sharing.summed
    monkeypatch.setattr(sharing, "summed", lambda policy, parts: real(policy, parts[:-1] or parts))
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
    assert sent == [[f"arm:{arm.arm}"], []]


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
    for replica in (mine, theirs, mine):
        replica.sync()
    assert one.policy.counts.sum() == two.policy.counts.sum() == 2
    assert one.stats()["duplicates"] + two.stats()["duplicates"] == 4


def test_expired_here_and_answered_there_counts_once(tmp_path):
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
    assert two.update(forgotten, 1.0) is False
    for replica in (mine, theirs, mine):
        replica.sync()
    assert one.policy.state.moment.sum() == two.policy.state.moment.sum() == 4.0


def row_of(replica, parts, seq=1, **told):
    """A good row of another replica that may join this one."""
    about = About(replica.sharing.peers.fingerprint)._replace(**told)
    return sealed(Row(seq, 1.0, parts, {}, about))


def test_parts_that_are_none_are_refused_and_counted(tmp_path):
    store = FileStore(tmp_path)
    router, replica = member(store)
    good = router.policy.empty_evidence()
    shape = good._replace(buckets={0: {n: np.zeros(3) for n in good.buckets[0]}})
    nan = good._replace(buckets={0: {n: np.full_like(a, np.nan) for n, a in good.buckets[0].items()}})
    huge = good._replace(generation=1 << 60)
    parts = {
        "torn": b"nonsense",
        "shape": evidence_bytes("arm:0", 1, shape),
        "nan": evidence_bytes("arm:0", 1, nan),
        "generation": evidence_bytes("arm:0", 1, huge),
        "another arm": evidence_bytes("arm:1", 1, good),
        "old": evidence_bytes("arm:0", 0, good),
        "text": b"",
    }
    for name, data in parts.items():
        store.put(name, row_of(replica, {"arm:0": 1}), {"arm:0": data})
    real = store.fetch
    store.fetch = lambda name, parts: dict.fromkeys(parts, "text") if name == "text" else real(name, parts)
    assert replica.sync() and replica.sync()  # each is counted once, not at every round
    assert router.stats()["parts_refused"] == len(parts) and router.policy.counts.sum() == 0


def bad_rows(replica):
    good = row_of(replica, {})
    old = {"seq": 1, "beat": 1, "parts": {"0": 1}, "decisions": 10**9}  # of format 1
    return {
        "old": old,
        "nothing": {},
        "list": [],
        "text": "row",
        "null": None,
        "body": {**good, "body": "{"},
        "flipped": {**good, "body": good["body"].replace("2", "3")},
        "absurd": {**good, "seq": 1e300},
        "negative": {**good, "seq": -1},
        "not a number": {**good, "beat": float("nan")},
        "parts": {**good, "parts": {"arm:0": "1"}},
        "lacking": {**good, "lacking": [1]},
        "decisions": row_of(replica, {}, decisions=1 << 50),
        "folded": row_of(replica, {}, folded={"x": -1}),
        "epoch": row_of(replica, {}, epoch=("1", 2)),
        "other": row_of(replica, {}, fingerprint={"dim": 9}),
    }


def test_rows_that_are_none_are_refused_one_by_one(tmp_path, caplog):
    class Odd(FileStore):
        def index(self):
            return super().index() | odd

    odd = {}
    store = Odd(tmp_path)
    (one, mine), (two, theirs) = member(store), member(store, 1)
    odd.update(bad_rows(mine))
    one.update(one.select([1.0, 0.0]).id, 1.0)
    for replica in (mine, theirs, mine):
        assert replica.sync()
    assert two.policy.counts.sum() == 1 and two.policy.bucket == 0
    assert one.stats()["parts_refused"] == two.stats()["parts_refused"] == len(odd)
    assert "dim must be 2, got '9'" in caplog.text
    one.close(), two.close()


def test_what_cannot_be_joined_is_refused_on_both_sides(tmp_path, caplog):
    store = FileStore(tmp_path)
    one, mine = member(store)
    two, theirs = member(store, policy=LinUCB(3, 3, rng=1))
    two.update(two.select([1.0, 0.0, 0.0]).id, 1.0)
    for replica in (theirs, mine, theirs):
        assert replica.sync()
    assert one.policy.counts.sum() == 0 and two.policy.counts.sum() == 1
    assert one.stats()["parts_refused"] == two.stats()["parts_refused"] == 1
    assert "dim must be 2, got '3'" in caplog.text and "dim must be 3, got '2'" in caplog.text


def test_settings_of_exploration_need_not_agree(tmp_path):
    store = FileStore(tmp_path)
    one, mine = member(store, policy=LinUCB(3, 2, alpha=0.1, ridge=2.0, mix=0.3, rng=0))
    two, theirs = member(store, policy=LinUCB(3, 2, alpha=3.0, rng=1))
    one.update(one.select([1.0, 0.0]).id, 1.0)
    mine.sync(), theirs.sync()
    assert two.policy.counts.sum() == 1


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


def test_only_once_and_only_what_shares_its_evidence(tmp_path):
    router, _ = member(FileStore(tmp_path))
    with pytest.raises(ValueError, match="once"):
        router.join(FileStore(tmp_path))
    router.save(tmp_path / "x")
    with pytest.raises(ValueError, match="before join"):
        router.load(tmp_path / "x")
    with pytest.raises(ValueError, match="before join"):
        router.recover(tmp_path / "y")
    with pytest.raises(TypeError):
        Router(LogisticUCB(3, 2, rng=0)).join(FileStore(tmp_path))


def test_joins_again_after_a_store_that_is_none(tmp_path):
    class Wrong(FileStore):
        def index(self):
            raise AttributeError("no store")

    router = Router(LinUCB(3, 2, rng=0))
    with pytest.raises(AttributeError):
        router.join(Wrong(tmp_path), background=False)
    assert router.update(router.select([1.0, 0.0]).id, 1.0)
    replica = router.join(FileStore(tmp_path), background=False)
    assert replica.sync()


# What is torn or gone in the store.


@pytest.mark.parametrize("harm", ["torn", "gone", "row torn", "row gone", "row absurd", "all gone"])
@pytest.mark.parametrize("knew", [False, True])
def test_an_owner_puts_again_what_was_harmed(tmp_path, harm, knew):
    store = FileStore(tmp_path)
    (one, mine), (two, theirs) = member(store), member(store, 1)
    for _ in range(5):
        one.update(one.select([1.0, 0.0]).id, 1.0)
    mine.sync()
    if knew:
        theirs.sync()
    home = tmp_path / "replicas" / mine.id.encode().hex()
    for path in list(home.iterdir()):
        if path.name.startswith("part-") and harm == "torn":
            path.write_bytes(path.read_bytes()[:-1])
        elif (path.name.startswith("part-") and harm == "gone") or (
            path.name == "row" and harm == "row gone"
        ):
            path.unlink()
        elif path.name == "row" and harm == "row torn":
            path.write_bytes(path.read_bytes()[:20])
        elif path.name == "row" and harm == "row absurd":
            path.write_text(path.read_text().replace('"seq": 1', '"seq": 900719925474099'))
    if harm == "all gone":
        schedules.flush(store)
    for _ in range(3):
        theirs.sync(), mine.sync()
    assert two.policy.counts.sum() == 5
    third, other = member(store, 2)
    synced(mine, other)
    assert third.policy.counts.sum() == 5


def test_a_live_replica_puts_again_a_torn_part_of_a_dead_one(tmp_path):
    store = FileStore(tmp_path)
    (one, mine), (_, theirs) = member(store), member(store, 1)
    one.update(one.select([1.0, 0.0]).id, 1.0)
    mine.sync(), theirs.sync()
    for path in (tmp_path / "replicas" / mine.id.encode().hex()).glob("part-*"):
        path.write_bytes(b"")
    third, late = member(store, 2)
    for _ in range(3):
        late.sync(), theirs.sync()
    assert third.policy.counts.sum() == 1


# Arms.


def filled(router, arm, reward, n=1):
    for _ in range(n):
        mask = np.array([name == arm for name in router.policy.arms])
        assert router.update(router.select([1.0, 0.0], eligible=mask).id, reward)


def count(router, arm):
    return int(router.policy.counts[list(router.policy.arms).index(arm)])


def synced(*replicas):
    for _ in range(2):
        for replica in replicas:
            assert replica.sync()


def test_what_was_forgotten_stays_forgotten(tmp_path):
    store = FileStore(tmp_path)
    (one, mine), (two, theirs) = member(store), member(store, 1)
    third, other = member(store, 2)
    for router in (one, two, third):
        filled(router, "1", 0.9, 10)
    synced(mine, theirs, other)
    assert mine.compact([other.id])
    one.forget_arm("1")
    synced(mine, theirs)
    assert count(one, "1") == count(two, "1") == 0
    filled(two, "1", 0.1)
    synced(theirs, mine, other)  # the third was asleep: its answers of before do not come back
    assert count(one, "1") == count(two, "1") == count(third, "1") == 1
    late, new = member(store, 3)
    synced(new)
    assert count(late, "1") == 1


def test_arms_added_and_removed_on_one_worker_reach_the_others(tmp_path):
    store = FileStore(tmp_path)
    (one, mine), (two, theirs) = member(store), member(store, 1)
    one.add_arm("new")
    one.remove_arm("0")
    filled(one, "new", 1.0)
    synced(mine, theirs)
    assert two.policy.arms == ("1", "2", "new") and count(two, "new") == 1
    late, other = member(store, 2)
    assert late.policy.arms == ("1", "2", "new") and count(late, "new") == 1
    late.add_arm("0")
    synced(other, mine, theirs)
    assert set(one.policy.arms) == set(two.policy.arms) == {"0", "1", "2", "new"}
    two.quarantine("1")
    synced(theirs, mine)
    assert {one.select([1.0, 0.0]).arm for _ in range(60)} <= {"0", "2", "new"}
    one.release("1")
    synced(mine, theirs)
    assert two.stats()["arms"]["1"]["quarantined"] == 0


def test_a_worker_does_not_take_over_what_only_the_code_of_others_lists(tmp_path):
    store = FileStore(tmp_path)
    old, mine = member(store, policy=LinUCB(["a", "b", "gone"], 2, rng=0))
    filled(old, "gone", 1.0)
    synced(mine)
    new, theirs = member(store, policy=LinUCB(["a", "b", "c"], 2, rng=1))
    filled(new, "c", 1.0)
    synced(theirs, mine, theirs)
    assert new.policy.arms == ("a", "b", "c")  # its code says so
    assert old.policy.arms == ("a", "b", "gone", "c") and count(old, "c") == 1  # it was there before


def test_the_last_arm_stays(tmp_path):
    store = FileStore(tmp_path)
    one, mine = member(store, policy=LinUCB(["a", "b"], 2, rng=0))
    two, theirs = member(store, policy=LinUCB(["a"], 2, rng=1))
    one.remove_arm("a")
    synced(mine, theirs, mine)
    assert one.policy.arms == ("b",) and two.policy.arms == ("a",)


def test_marks_of_terms_reach_the_others(tmp_path):
    store, terms = FileStore(tmp_path), [ArmHealth() for _ in range(3)]
    one, mine = member(store, options={"terms": [terms[0]]})
    two, theirs = member(store, 1, options={"terms": [terms[1]]})
    terms[0].mark("1", "down")
    synced(mine, theirs, mine)
    assert "1" not in {two.select([1.0, 0.0]).arm for _ in range(60)}
    _, other = member(store, 2, options={"terms": [terms[2]]})
    synced(other)
    assert terms[2].state("1") == terms[1].state("1") == "down"
    terms[2].mark("1", "up")
    synced(other, mine, theirs)
    assert terms[0].state("1") == terms[1].state("1") == "up"
    version = one._lasting.replica.me.roster.version
    synced(mine, theirs, other)
    assert one._lasting.replica.me.roster.version == version  # no echo


def test_long_and_odd_names_are_shared(tmp_path):
    names = ["x" * 60_000, "a/b\0c", "\u00e9" * 200, ".", "row", "roster"]
    store = FileStore(tmp_path)
    one, mine = member(store, policy=LinUCB(names, 2, rng=0))
    two, theirs = member(store, policy=LinUCB(names, 2, rng=1))
    for name in names:
        filled(one, name, 1.0)
    synced(mine, theirs)
    assert two.policy.counts.tolist() == [1] * len(names)


def test_rollback_takes_all_replicas_back(tmp_path):
    store = FileStore(tmp_path / "store")
    (one, mine), (two, theirs) = member(store), member(store, 1)
    third, other = member(store, 2)
    filled(one, "0", 1.0, 3)
    filled(two, "1", 1.0, 3)
    synced(mine, theirs, other)
    one.save(tmp_path / "good")
    filled(two, "1", -9.0, 20)
    filled(third, "2", -9.0, 20)
    synced(mine, theirs, other)
    assert mine.compact([other.id])
    one.rollback(tmp_path / "good")
    synced(mine, theirs)
    filled(two, "2", 1.0)
    synced(theirs, mine, other)
    for router in (one, two, third):
        assert router.policy.counts.tolist() == [3, 3, 1]
    late, new = member(store, 3)
    synced(new)
    assert late.policy.counts.tolist() == [3, 3, 1]
    two.rollback(tmp_path / "good")
    one.rollback(tmp_path / "good")  # at once: one of them counts
    synced(mine, theirs, new, other)
    for router in (one, two, third, late):
        assert router.policy.counts.tolist() == [3, 3, 0]


# Shared decisions.


def test_an_answer_waits_for_a_decision_that_is_on_its_way(tmp_path):
    clock, store = Clock(), FileStore(tmp_path)
    one, mine = member(store, share_decisions=True)
    two, theirs = member(store, 1, share_decisions=True)
    theirs.decisions.clock = clock
    key = one.select([1.0, 0.0]).id
    assert two.update(key, 1.0) is True
    assert two.update(key, 1.0) is False  # it waits already
    assert two.update(12345, 1.0) is True  # nobody made that one: not known yet
    theirs.exchange()
    assert two.stats()["learned"] == 0
    clock.now = 1.9
    mine.exchange(), theirs.exchange()
    assert two.stats()["learned"] == 1 and two.stats()["deferred"] == 1
    clock.now = 2.1
    theirs.exchange()
    assert two.stats()["unknown_answers"] == 1 and two.stats()["deferred"] == 0
    synced(theirs, mine)
    assert one.stats()["pending"] == 0 and one.policy.counts.sum() == 1


def test_a_bad_reward_leaves_the_decision_to_all(tmp_path):
    store = FileStore(tmp_path)
    limits = {"*": RewardLimits(0.0, 1.0, per_s=3.0), "wide": RewardLimits(-5.0, 5.0)}
    one, mine = member(store, share_decisions=True, options={"sources": limits})
    two, theirs = member(store, 1, share_decisions=True, options={"sources": limits})
    own, foreign = two.select([1.0, 0.0]).id, one.select([1.0, 0.0]).id
    mine.exchange(), theirs.exchange()
    for key in (own, foreign):
        for bad in (1e31, 2.0, float("nan"), "1"):
            with pytest.raises((ValueError, TypeError)):
                two.update(key, bad)
        with pytest.raises((ValueError, TypeError)):
            two.update(key, 0.5, cost=-1.0)
    rng = np.random.default_rng(0)
    for _ in range(50):  # guesses cost nothing of the rate
        two.update(int(rng.integers(1, 2**62)), 0.5)
    theirs.exchange()
    assert two.update(own, 0.5) and two.update(foreign, -0.5, source="wide")
    theirs.exchange()
    synced(theirs, mine)
    assert two.stats()["learned"] == 2 and one.policy.counts.sum() == 2


def test_an_answer_above_the_rate_leaves_the_decision_open(tmp_path):
    store = FileStore(tmp_path)
    one, mine = member(store, share_decisions=True)
    limits = {"*": RewardLimits(per_s=1.0)}
    two, theirs = member(store, 1, share_decisions=True, options={"sources": limits})
    first, second = one.select([1.0, 0.0]).id, one.select([1.0, 0.0]).id
    mine.exchange()
    assert two.update(first, 0.5) is True and two.update(second, 0.5) is False
    assert one.update(second, 0.5) is True
    mine.exchange()
    synced(theirs, mine)
    assert two.policy.counts.sum() == 2


def test_guessed_ids_fill_nothing_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("banditroute.durability.claims.MOST_UNKNOWN", 3)
    router, replica = member(FileStore(tmp_path), share_decisions=True)
    for guess in range(3):
        router.update(guess, 1.0)
    replica.exchange()  # now they are known to be unknown
    with pytest.raises(UnknownDecision):
        router.update(9, 1.0)


class Deaf(FileStore):
    """Its replies to some calls are lost: the call has taken effect."""

    def __init__(self, home, *calls):
        super().__init__(home)
        self.deaf = set(calls)

    def _told(self, call, answer):
        if call in self.deaf:
            self.deaf.discard(call)
            raise OSError("no reply")
        return answer

    def keep(self, *args):
        return self._told("keep", super().keep(*args))

    def look(self, *args):
        return self._told("look", super().look(*args))

    def take(self, *args):
        return self._told("take", super().take(*args))


@pytest.mark.parametrize("lost", [("take",), ("keep",), ("keep", "take"), ("look", "take")])
@pytest.mark.parametrize("where", ["here", "there"])
def test_a_lost_reply_neither_loses_nor_doubles_an_answer(tmp_path, lost, where):
    one, mine = member(Deaf(tmp_path, *(set(lost) & {"keep"})), share_decisions=True)
    two, theirs = member(Deaf(tmp_path, *lost), 1, share_decisions=True)
    key = one.select([1.0, 0.0]).id
    for _ in range(2):
        with suppress(OSError):
            mine.exchange()
    if where == "here":
        mine.store.deaf = set(lost)
    assert (one if where == "here" else two).update(key, 1.0) is True
    for _ in range(4):
        for replica in (mine, theirs):
            with suppress(OSError):
                replica.exchange()
            replica.sync()
    assert one.stats()["learned"] + two.stats()["learned"] == 1
    assert one.policy.counts.sum() == two.policy.counts.sum() == 1
    mine.store.deaf = theirs.store.deaf = set()
    assert (two if where == "here" else one).update(key, 1.0) is False
    for replica in (mine, theirs, mine):
        replica.exchange(), replica.sync()
    assert one.policy.counts.sum() == two.policy.counts.sum() == 1
    assert one.stats()["pending"] == 0


def test_a_late_answer_to_a_withdrawn_decision_teaches_nothing_anywhere(tmp_path):
    store = FileStore(tmp_path)
    one, mine = member(store, share_decisions=True)
    two, theirs = member(store, 1, share_decisions=True)
    key = one.select([1.0, 0.0]).id
    mine.exchange()
    one.cancel(key)
    mine.exchange()
    assert two.update(key, 1.0) is False
    synced(theirs, mine)
    assert one.policy.counts.sum() == two.policy.counts.sum() == 0


def test_an_answer_to_an_arm_that_only_others_have_is_not_lost(tmp_path):
    store = FileStore(tmp_path)
    one, mine = member(store, policy=LinUCB(["a", "gone"], 2, rng=0), share_decisions=True)
    two, theirs = member(store, policy=LinUCB(["a"], 2, rng=1), share_decisions=True)
    key = one.select([1.0, 0.0], eligible=np.array([False, True])).id
    mine.exchange()
    assert two.policy.arms == ("a",)
    assert two.update(key, 1.0) is True
    synced(theirs, mine)
    assert count(one, "gone") == 1 and one.stats()["pending"] == 0


def test_an_answer_to_an_arm_that_was_forgotten_meanwhile_teaches_nothing(tmp_path):
    store = FileStore(tmp_path)
    one, mine = member(store, share_decisions=True)
    two, theirs = member(store, 1, share_decisions=True)
    key = one.select([1.0, 0.0], eligible=np.array([True, False, False])).id
    mine.exchange()
    two.remove_arm("0")
    two.add_arm("0")
    assert two.update(key, 1.0) is False
    synced(theirs, mine)
    assert count(one, "0") == count(two, "0") == 0


def test_rewards_learned_elsewhere_are_told_where_the_decision_was_made(tmp_path):
    class Ear:
        def __init__(self):
            self.heard, self.ended = [], []

        def learned(self, feedback):
            self.heard.append(feedback)

        def dropped(self, decision_id, why):
            self.ended.append((decision_id, why))

    ear, store = Ear(), FileStore(tmp_path)
    one, mine = member(store, share_decisions=True, options={"listeners": [ear]})
    two, theirs = member(store, 1, share_decisions=True)
    made = one.select([1.0, 0.5])
    mine.exchange()
    assert two.update(made.id, 0.75, cost=2.0, seconds=0.5) is True
    synced(theirs, mine, theirs)
    [told] = ear.heard
    assert (told.id, told.arm, told.reward, told.cost, told.origin) == (made.id, made.arm, 0.75, 2.0, "peer")
    assert told.request.x.tolist() == [1.0, 0.5] and ear.ended == [(made.id, "answered")]
    assert one.stats()["pending"] == 0 and one.policy.counts.sum() == 1  # not twice
    assert two.stats()["letters"] == 0  # read, so not kept


# Threads.


@pytest.mark.parametrize("error", [SystemExit, KeyError, MemoryError, OSError])
def test_the_thread_outlives_whatever_a_store_raises(tmp_path, error):
    class Moody(FileStore):
        moods = 3

        def index(self):
            self.moods -= 1
            if self.moods in (0, 1):
                raise error("mood")
            return super().index()

    router = Router(LinUCB(3, 2, rng=0))
    replica = router.join(Moody(tmp_path), sync_s=0.01, share_decisions=True)
    end = time.monotonic() + 20.0
    while replica.syncs < 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert replica.syncs >= 3 and router.stats()["store_errors"] == 2
    router.close()


def test_stopping_takes_no_longer_than_it_may(tmp_path):
    class Hangs(FileStore):
        def index(self):
            if hang.is_set():
                done.wait(30.0)
            return super().index()

    hang, done = threading.Event(), threading.Event()
    router = Router(LinUCB(3, 2, rng=0))
    replica = router.join(Hangs(tmp_path), sync_s=0.01)
    hang.set()
    start = time.monotonic()
    assert replica.stop(0.3) is False and time.monotonic() - start < 2.0
    done.set()


@pytest.mark.parametrize("seed", range(4))
def test_mutations_of_parts_and_rows(tmp_path, seed):
    mutations.run(FileStore(tmp_path), np.random.default_rng(seed), 100)


# Restarts.


def home_of(path, store, rng=0, *, arms=("0", "1", "2"), **joining):
    """A router with a journal, in a store."""
    router = Router(LinUCB(arms, 2, mix=0.2, rng=rng))
    router.recover(path, flush_s=60.0, checkpoint_s=600.0)
    return router, router.join(store, background=False, **joining)


def killed(router, *, flushed=True):
    """The process ends here."""
    if flushed:
        router._lasting.journal.flush()
    router._lasting.journal.abandon()


def test_a_restart_goes_on_as_the_same_replica(tmp_path):
    store = FileStore(tmp_path / "store")
    router, replica = home_of(tmp_path / "home", store)
    other, theirs = member(store, 1)
    filled(other, "1", 1.0, 3)
    filled(router, "0", 1.0)
    synced(theirs, replica)
    filled(router, "0", 1.0)
    router.checkpoint()
    filled(router, "0", 1.0)
    killed(router)  # two of three were never published
    again, same = home_of(tmp_path / "home", store)
    assert same.id == replica.id
    synced(same, theirs)
    assert count(again, "0") == count(other, "0") == 3 and count(again, "1") == count(other, "1") == 3
    again.close()


def test_a_crash_right_after_joining_counts_nothing_twice(tmp_path):
    store = FileStore(tmp_path / "store")
    router, replica = home_of(tmp_path / "home", store)
    other, theirs = member(store, 1)
    filled(other, "1", 1.0, 3)
    filled(router, "0", 1.0, 2)
    synced(theirs, replica, theirs)
    killed(router)
    for _ in range(2):
        router, replica = home_of(tmp_path / "home", store)
        synced(replica, theirs)
        assert router.policy.counts.tolist() == other.policy.counts.tolist() == [2, 3, 0]
        killed(router)


def test_an_answer_that_waits_survives_a_crash(tmp_path):
    clock, store = Clock(), Down(FileStore(tmp_path / "store"))
    router, replica = home_of(tmp_path / "home", store, share_decisions=True)
    other, theirs = member(store, 1, share_decisions=True)
    theirs.decisions.clock = clock
    own, foreign = router.select([1.0, 0.0]).id, other.select([0.0, 1.0]).id
    replica.exchange(), theirs.exchange()
    store.down = True
    assert router.update(own, 1.0) is True and router.update(foreign, 1.0) is True
    assert router.update(own, 1.0) is False and router.update(foreign, 1.0) is False
    killed(router)
    store.down = False
    router, replica = home_of(tmp_path / "home", store, share_decisions=True)
    assert router.stats()["deferred"] == 2 and router.stats()["pending"] == 0
    replica.exchange()
    assert router.stats()["learned"] == 2
    killed(router)  # learned, and not published
    router, replica = home_of(tmp_path / "home", store, share_decisions=True)
    assert not router._lasting.replica.me.waiting
    synced(replica, theirs)
    assert router.policy.counts.sum() == other.policy.counts.sum() == 2
    assert other.update(foreign, 1.0) is True  # its own decision: the store will say no
    theirs.exchange(), theirs.sync()
    assert other.policy.counts.sum() == 2 and other.stats()["pending"] == 0
    router.close()


def test_a_rollback_is_published_once_a_crash_cannot_undo_it(tmp_path, monkeypatch):
    store = FileStore(tmp_path / "store")
    router, replica = home_of(tmp_path / "home", store)
    other, theirs = member(store, 1)
    filled(router, "0", 1.0, 2)
    synced(replica, theirs)
    router.save(tmp_path / "good")
    filled(other, "1", -9.0, 9)
    synced(theirs, replica)
    monkeypatch.setattr(router._lasting.journal, "checkpoint", lambda: None)  # killed before it was made
    router.rollback(tmp_path / "good")
    assert replica.sync() is False  # nothing is published of it
    killed(router, flushed=False)
    router, replica = home_of(tmp_path / "home", store)
    synced(replica, theirs, replica)
    assert router.policy.counts.tolist() == other.policy.counts.tolist() == [2, 9, 0]
    router.rollback(tmp_path / "good")
    synced(replica)
    killed(router)
    router, replica = home_of(tmp_path / "home", store)
    synced(theirs, replica)
    assert router.policy.counts.tolist() == other.policy.counts.tolist() == [2, 0, 0]
    router.close()


def test_arms_of_the_code_after_a_restart(tmp_path):
    store = FileStore(tmp_path / "store")
    router, replica = home_of(tmp_path / "home", store)
    other, theirs = member(store, 1)
    filled(router, "2", 1.0)
    synced(replica, theirs)
    router.close()
    router, replica = home_of(tmp_path / "home", store, arms=("0", "1", "new"))
    filled(router, "new", 1.0)
    synced(replica, theirs, replica)
    assert router.policy.arms == ("0", "1", "new") and other.policy.arms == ("0", "1", "2", "new")
    assert count(other, "2") == count(other, "new") == 1
    router.close()


POLICIES = {
    "window": lambda rng: SlidingWindow(LinUCB(3, 2, rng=rng), window=64),
    "restarting": lambda rng: Restarting(LinUCB(3, 2, rng=rng)),
    "discount": lambda rng: LinUCB(3, 2, discount=0.9, rng=rng),
    "hybrid": lambda rng: HybridLinUCB(3, 2, features=lambda arm, x: np.array([float(arm), x[0]]), rng=rng),
    "shared": lambda rng: SharedLinUCB(3, 2, features=lambda arm, x: np.array([float(arm), x[0]]), rng=rng),
    "ucb1": lambda rng: UCB1(3, 2, rng=rng),
    "beta": lambda rng: BetaThompson(3, 2, rng=rng),
    "diagonal": lambda rng: DiagLinUCB(3, 2, rng=rng),
    "greedy": lambda rng: EpsilonGreedy(3, 2, rng=rng),
    "stale": lambda rng: StalenessInflation(LinUCB(3, 2, rng=rng)),
}


@pytest.mark.parametrize("kind", POLICIES)
def test_every_policy_that_can_share_does(tmp_path, kind):
    store, rng = FileStore(tmp_path), np.random.default_rng(0)
    members = [member(store, policy=POLICIES[kind](seed), share_decisions=True) for seed in range(3)]
    for i in range(60):
        made, replica = members[i % 3]
        key = made.select(rng.random(2)).id
        if i % 4 == 0:
            replica.exchange()
        assert members[int(rng.integers(3)) if i % 4 == 0 else i % 3][0].update(
            key, float(rng.random() < 0.5)
        )
    for _, replica in members * 2:
        replica.exchange()
    synced(*(replica for _, replica in members))
    first, *others = (router.policy for router, _ in members)
    assert all(router.stats()["learned"] for router, _ in members)
    assert sum(router.stats()["learned"] for router, _ in members) == 60
    for other in others:
        for arm in (*first.arms, *first.shared_names):
            mine, theirs = first.evidence(arm), other.evidence(arm)
            assert mine.generation == theirs.generation and set(mine.buckets) == set(theirs.buckets)
            for bucket, sums in mine.buckets.items():
                for name, array in sums.items():
                    assert np.array_equal(array, theirs.buckets[bucket][name]), (arm, name)
    assert not any(router.parts.books.errors for router, _ in members)
