"""The ledger of decisions that await feedback."""

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banditroute import UnknownDecision
from banditroute.records import Pending
from banditroute.router import Ledger, waiting


def pending(at, arm="a", time=0.0):
    return Pending(arm, np.zeros(2), 1.0, time, at)


def test_each_decision_is_answered_once():
    ledger = Ledger(time_limit=10.0, size_limit=5)
    keys = [ledger.open(pending(i)) for i in range(3)]
    for i in (2, 0, 1):
        assert ledger.find(keys[i], now=1.0).at == i
        ledger.answer(keys[i])
        assert ledger.find(keys[i], now=1.0) is None
    assert (len(ledger), ledger.duplicates, ledger.expired, ledger.late) == (0, 3, 0, 0)


def test_finding_changes_nothing():
    ledger = Ledger(time_limit=10.0, size_limit=5)
    key = ledger.open(pending(0))
    for _ in range(3):
        assert ledger.find(key, now=9.0).at == 0
    assert (len(ledger), ledger.closed) == (1, {})


@pytest.mark.parametrize("key", [0, -1, 7, 2**64, 1 << 200])
def test_unknown_ids_raise_and_change_nothing(key):
    ledger = Ledger(time_limit=10.0, size_limit=5)
    ledger.open(pending(0))
    with pytest.raises(UnknownDecision, match=f"got {key}"):
        ledger.find(key, now=0.0)
    assert (len(ledger), ledger.closed, ledger.duplicates, ledger.late) == (1, {}, 0, 0)


def test_time_limit_is_exclusive_and_counts():
    seen = []
    ledger = Ledger(time_limit=10.0, size_limit=50, on_expire=lambda key, p: seen.append((key, p.at)))
    keys = [ledger.open(pending(i, time=float(i))) for i in range(6)]
    assert ledger.find(keys[0], now=9.999) is not None
    assert ledger.find(keys[0], now=10.0) is None  # ten seconds old is too old
    assert (ledger.late, ledger.expired, seen) == (1, 1, [(keys[0], 0)])
    ledger.sweep(13.0)
    assert [at for _, at in seen] == [0, 1, 2, 3]
    assert len(ledger) == 2
    assert ledger.find(keys[2], now=13.0) is None
    assert ledger.late == 2
    assert ledger.find(keys[4], now=13.0).at == 4


def test_sweep_can_be_bounded():
    ledger = Ledger(time_limit=1.0, size_limit=50)
    for i in range(20):
        ledger.open(pending(i))
    ledger.sweep(100.0, 7)
    assert (ledger.expired, len(ledger)) == (7, 13)


def test_size_limit_expires_the_oldest_and_bounds_memory():
    seen = []
    ledger = Ledger(time_limit=1e9, size_limit=4, on_expire=lambda _, p: seen.append(p.at))
    keys = [ledger.open(pending(i)) for i in range(20)]
    assert seen == list(range(16))
    assert len(ledger.pending) == len(ledger.closed) == 4
    assert ledger.find(keys[15], now=0.0) is None  # remembered as expired
    with pytest.raises(UnknownDecision):
        ledger.find(keys[11], now=0.0)  # older than the memory of closed ids
    assert (ledger.expired, ledger.late) == (16, 1)


def test_decisions_of_an_arm_that_left_belong_to_nobody():
    ledger = Ledger(time_limit=10.0, size_limit=9)
    keys = [ledger.open(pending(i, arm="ab"[i % 2])) for i in range(6)]
    ledger.disown("a")
    assert [ledger.find(key, now=0.0).arm for key in keys] == ["", "b"] * 3
    assert list(ledger.pending) == keys  # the order of time is kept


def test_ids_are_distinct_random_and_fit_63_bits():
    ledger = Ledger(time_limit=10.0, size_limit=10_000)
    keys = [ledger.open(pending(i)) for i in range(2000)]
    assert len(set(keys)) == 2000
    assert all(type(key) is int and 0 <= key < 2**63 for key in keys)
    bits = np.array([[key >> b & 1 for b in range(63)] for key in keys])
    # Each of 63 bits is set in half of 2,000 ids, six standard deviations: a fair source fails once in 1e7 runs.
    assert (np.abs(bits.mean(axis=0) - 0.5) < 6 * 0.5 / np.sqrt(2000)).all()
    other = Ledger(time_limit=10.0, size_limit=10)
    assert other.open(pending(0)) not in keys


def test_an_id_that_is_in_use_is_not_issued_again():
    ledger = Ledger(time_limit=10.0, size_limit=10)
    ledger._ids = [5, 5, 5]
    assert ledger.open(pending(0)) == 5
    ledger._ids = [6, 5, 5]
    assert ledger.open(pending(1)) == 6
    ledger.answer(5)
    ledger._ids = [7, 5]
    assert ledger.open(pending(2)) == 7  # nor while it is remembered as answered


def test_what_holds_an_object_stays_where_the_collector_sees_it():
    ledger = Ledger(time_limit=10.0, size_limit=100_000)
    first = ledger.open((*pending(0)[:5], ([],), None, None))
    for i in range(3 * waiting.RECENT):
        ledger.open(tuple(pending(i)))
    assert gc.is_tracked(ledger.pending[first]) and not ledger.pending.older
    ledger.answer(first)
    for i in range(3 * waiting.RECENT):
        ledger.open(tuple(pending(i)))
    assert ledger.pending.older and not gc.is_tracked(ledger.pending.older)
    keys = list(ledger.pending)
    assert [ledger.pending[key][4] for key in keys[: waiting.RECENT]] == list(range(waiting.RECENT))
    for key in keys[::-1]:
        ledger.answer(key)
    assert len(ledger) == 0


@pytest.mark.parametrize("recent", [2, waiting.RECENT])
@given(st.lists(st.tuples(st.sampled_from("ofas"), st.integers(0, 30)), max_size=80))
def test_orders_stay_those_of_lists(recent, steps):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(waiting, "RECENT", recent)
        patched.setattr(waiting, "MOVED", 2)
        patched.setattr(waiting, "is_tracked", lambda entry: False)
        follow(steps)


def follow(steps):
    ledger, now = Ledger(time_limit=8.0, size_limit=5), 0.0
    issued, waiting, closed, expired = [], [], [], 0

    def close(key, answered):
        waiting[:] = [w for w in waiting if w[0] != key]
        closed.append((key, answered))
        del closed[:-5]

    for step, number in steps:
        now += number / 10
        if step == "o":
            key = ledger.open(pending(len(issued), time=now))
            issued.append(key)
            waiting.append((key, now))
            if len(waiting) > 5:
                expired += 1
                close(waiting[0][0], False)
        elif step == "s":
            ledger.sweep(now)
            stale = [key for key, time in waiting if time <= now - 8.0]
            expired += len(stale)
            for key in stale:
                close(key, False)
        elif waiting:
            key, time = waiting[number % len(waiting)]
            if ledger.find(key, now=now) is None:
                assert time <= now - 8.0
                expired += 1
                close(key, False)
            elif step == "a":
                ledger.answer(key)
                close(key, True)
        assert list(ledger.pending) == [key for key, _ in waiting]
        assert list(ledger.closed.items()) == closed
        assert ledger.expired == expired


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_limit": 0.0, "size_limit": 1}, r"time_limit must be in \(0, inf\], got 0"),
        ({"time_limit": np.nan, "size_limit": 1}, "time_limit must be a finite number, got nan"),
        ({"time_limit": 1.0, "size_limit": 0}, "size_limit must be >= 1, got 0"),
    ],
)
def test_limits_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Ledger(**options)
