"""The recorder: what a Router tells it becomes rows of a trace, in memory and in files that rotate."""

import os
import signal
import threading

import numpy as np
import pytest

from banditroute import LinUCB, Recorder, Router, Trace
from banditroute.records import Decision, Extras, Feedback, Parts, Pending, Request

ARMS = ("a", "b", "c")


def tell(
    recorder, key, arm="a", *, x=(1.0, 2.0), at=0, time=0.0, rows=None, arms=ARMS, propensity=0.5, hit=True
):
    """Tell of a decision as a Router does."""
    x = np.array(x)
    decision = Decision(key, arm, propensity, hit, 0, time)
    parts = Parts(arms, {"fault": np.zeros(len(arms))} if rows is None else rows)
    recorder.decided(decision, Request(x, at, Extras()), Pending(arm, x, propensity, time, at), False, parts)
    return decision


def answer(recorder, key, reward, **more):
    recorder.learned(Feedback(key, "a", Request(np.ones(2), 0), reward, **more))


def test_rows_are_what_was_told():
    recorder = Recorder(policy="LinUCB")
    rng, inf = np.random.default_rng(0), np.inf
    expected = []
    for i in range(60):
        arm, x, p, hit = (
            int(rng.integers(3)),
            rng.standard_normal(2),
            float(rng.random()),
            bool(rng.random() < 0.5),
        )
        fault, money = np.where(hit, 0.0, 0.4) * (np.arange(3) == arm), rng.random(3) / 9
        closed = np.where((rng.random(3) < 0.3) & (np.arange(3) != arm), inf, 0.0)
        rows = {"fault": fault, "caller": money + closed, "queue": np.full(3, 0.125)}
        tell(recorder, 1000 + i, ARMS[arm], x=x, time=10.0 + i, rows=rows, propensity=p, hit=hit)
        reward = float(rng.standard_normal()) if i % 5 else None
        if reward is not None:
            answer(recorder, 1000 + i, reward, cost=0.5 if i % 2 else None, seconds=0.25)
        expected.append((arm, x, p, hit, fault, fault + money + 0.125, np.isfinite(closed), reward))
    trace = recorder.trace()
    assert (len(recorder), trace.names, trace.policies) == (60, ARMS, ("LinUCB",))
    for i, (arm, x, p, hit, fault, price, allowed, reward) in enumerate(expected):
        assert (int(trace.ids[i]), int(trace.arms[i]), trace.propensities[i], trace.hits[i]) == (
            1000 + i,
            arm,
            p,
            hit,
        )
        assert trace.contexts[i].tolist() == x.tolist() and trace.times[i] == 10.0 + i
        assert trace.eligible[i].tolist() == allowed.tolist()
        assert trace.prices[i] == pytest.approx(np.where(allowed, price, 0.0))
        assert trace.fault_prices[i].tolist() == np.where(allowed, fault, 0.0).tolist()
        assert np.isnan(trace.rewards[i]) if reward is None else trace.rewards[i] == reward
        assert trace.costs[i] == 0.5 if reward is not None and i % 2 else np.isnan(trace.costs[i])
        assert trace.versions[i] == sum(r is not None for *_, r in expected[:i])
    assert recorder.prices(1003).rows["queue"].tolist() == [0.125] * 3
    assert recorder.prices(5) is None
    assert repr(recorder) == "Recorder(60 rows, sample_rate=1, skipped=0)"


def test_a_soft_term_that_closed_every_arm_was_passed_over():
    recorder = Recorder()
    rows = {"fault": np.zeros(3), "health": np.full(3, np.inf), "budget": np.array([0.5, np.inf, 0.0])}
    tell(recorder, 1, rows=rows)
    trace = recorder.trace()
    assert trace.eligible.tolist() == [[True, False, True]]
    assert trace.prices.tolist() == [[0.5, 0.0, 0.0]]


def test_rewards_learned_elsewhere_or_imputed_reach_the_row_of_the_worker_that_decided():
    here, there = Recorder(), Recorder()
    for key in (1, 2, 3):
        tell(here, key)
    for recorder in (here, there):  # both are told; only one has the row
        answer(recorder, 1, 0.75, origin="elsewhere")
    answer(here, 2, 0.0, origin="expired")
    here.dropped(3, "cancelled")
    assert here.trace().rewards[:2].tolist() == [0.75, 0.0] and np.isnan(here.trace().rewards[2])
    assert len(there) == 0 and not there.errors


def test_sampling_goes_by_the_id_and_options_hold():
    keys = np.random.default_rng(0).integers(2**63, size=400).tolist()
    part, small, none = (
        Recorder(sample_rate=0.25, contexts=False),
        Recorder(max_rows=10),
        Recorder(sample_rate=0.0),
    )
    for key in keys:
        for recorder in (part, small, none):
            tell(recorder, key)
            answer(recorder, key, 1.0)
    assert part.trace().ids.tolist() == [key for key in keys if key < 2**61]
    assert 100 - 44 < len(part) < 100 + 44  # 5 standard deviations of a binomial
    assert part.trace().contexts is None
    assert (len(small), small.skipped, len(none)) == (10, 390, 0)
    small.clear()
    answer(small, keys[0], 1.0)
    with pytest.raises(ValueError, match="got none"):
        small.trace()


def test_arms_that_come_and_go_keep_their_columns():
    recorder = Recorder()
    for key, arms in enumerate([("a", "b"), ("a", "b", "new"), ("b", "new")]):
        tell(recorder, key, "b", arms=arms)
    trace = recorder.trace()
    assert trace.names == ("a", "b", "new")
    assert trace.eligible.tolist() == [[True, True, False], [True] * 3, [False, True, True]]


def test_what_goes_wrong_is_counted_and_never_raised(tmp_path, monkeypatch):
    recorder = Recorder(directory=tmp_path, flush_s=1e6)
    recorder.decided(Decision(1, "a", 1.0, True, 0, 0.0), Request(np.ones(2), 0), None, False, None)
    answer(recorder, 1, "soon")
    tell(recorder, 2)
    answer(recorder, 2, "soon")
    assert recorder.errors == {"ValueError": 2}
    tell(recorder, 3)
    monkeypatch.setattr(Trace, "save", lambda self, path: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        recorder.flush()
    assert not recorder.close() and recorder.errors["OSError"] == 1
    monkeypatch.undo()
    recorder.flush()
    assert Trace.load(tmp_path).ids.tolist() == [2, 3]


@pytest.mark.parametrize("suffix", [".npz", ".jsonl"])
def test_files_rotate_and_hold_what_a_trace_in_memory_would(suffix, tmp_path):
    whole = Recorder()
    recorder = Recorder(
        directory=tmp_path, rows_per_file=10, max_files=4, max_rows=35, flush_s=1e6, suffix=suffix
    )
    (tmp_path / "mine.txt").write_text("stays")
    for key in range(95):
        for one in (whole, recorder):
            tell(one, key, ARMS[key % 3], time=float(key))
            if key >= 12:  # answers come late, to rows of a file that was written before
                answer(one, key - 12, key / 100)
        if key % 10 == 4:
            recorder.flush()
            assert len(recorder) <= 35
    recorder.close()
    assert recorder.skipped == 0 and not recorder.errors
    assert len(list(tmp_path.glob(f"log-*{suffix}"))) == 4 and (tmp_path / "mine.txt").read_text() == "stays"
    assert recorder.files.removed == 6
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.glob("log-*"))
    read, expected = Trace.load(tmp_path), whole.trace()[60:]
    assert read.ids.tolist() == expected.ids.tolist() == list(range(60, 95))
    for name in ("arms", "rewards", "times", "versions", "contexts"):
        assert np.array_equal(getattr(read, name), getattr(expected, name), equal_nan=True), name


def test_memory_is_bounded_where_answers_never_come(tmp_path):
    recorder = Recorder(directory=tmp_path, rows_per_file=10, max_rows=40, flush_s=1e6)
    for key in range(200):
        tell(recorder, key)
        if key % 5 == 0:
            recorder.flush()
        assert len(recorder) <= 40
    recorder.close()
    assert recorder.skipped == 0 and Trace.load(tmp_path).ids.tolist() == list(range(200))


def test_files_are_written_by_a_thread(tmp_path):
    recorder = Recorder(directory=tmp_path, flush_s=0.02)
    tell(recorder, 7)
    done = threading.Event()
    for _ in range(500):
        if list(tmp_path.glob("log-*")) or done.wait(0.02):
            break
    assert Trace.load(tmp_path).ids.tolist() == [7]
    assert recorder.close()


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_records_its_own_rows_only(tmp_path):
    recorder = Recorder(directory=tmp_path, flush_s=1e6)
    for key in (1, 2, 3):
        tell(recorder, key)
    answer(recorder, 1, 0.5, seconds=1.0)
    recorder.flush()
    with recorder._lock:  # held by another thread at the moment of the fork
        read, write = os.pipe()
        child = os.fork()
        if not child:
            signal.alarm(120)  # it must not outlive the tests
            try:
                tell(recorder, 9)
                answer(recorder, 9, 0.25)
                trace = recorder.trace()
                own = trace.ids.tolist() == [9] and trace.latencies is None and recorder.close()
                os.write(write, repr((len(recorder), own, trace.rewards.tolist(), recorder.skipped)).encode())
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
    assert os.read(read, 1000) == b"(1, True, [0.25], 0)"
    os.close(read)
    assert recorder.trace().ids.tolist() == [1, 2, 3]
    recorder.close()
    assert sorted(Trace.load(tmp_path).ids.tolist()) == [1, 2, 3, 9]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 1.5}, "sample_rate must be in"),
        ({"max_rows": 0}, "max_rows must be >= 1"),
        ({"directory": "x", "suffix": ".txt"}, "suffix must be one of"),
        ({"directory": "x", "max_files": 0}, "max_files must be >= 1"),
    ],
)
def test_bad_options_are_refused(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        Recorder(**options)
    assert not list(tmp_path.iterdir())


def test_beside_a_router():
    recorder = Recorder(policy="LinUCB")
    router = Router(LinUCB(["a", "b", "c"], 2, mix=0.3, rng=0), recorder=recorder)
    seen = []
    for i in range(50):
        prices = np.array([0.0, 0.1, 0.2]) if i % 2 else None
        decision = router.select([1.0, i / 50], prices=prices, eligible=np.array([True, True, i % 4 > 0]))
        router.update(decision.id, i / 50)
        seen.append(decision)
    trace = recorder.trace()
    assert [trace.names[a] for a in trace.arms] == [d.arm for d in seen]
    assert trace.ids.tolist() == [d.id for d in seen] and trace.rewards.tolist() == [
        i / 50 for i in range(50)
    ]
    assert trace.eligible[:, 2].tolist() == [i % 4 > 0 for i in range(50)]
    assert trace.prices[1].tolist() == [0.0, 0.1, 0.2] and not trace.fault_prices.any()
