"""Logs in parts: the numbers of the whole, whatever reads and sums them; bounded memory; policies that learn by batches."""

import resource
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from banditroute import LinUCB, Trace
from banditroute.evaluation import ESTIMATORS, Batches, compare, compare_batches, warm_start_batches


def logged(rows=3000, seed=0):
    rng = np.random.default_rng(seed)
    contexts, arms = rng.standard_normal((rows, 3)), rng.choice(3, size=rows, p=[0.5, 0.3, 0.2])
    means = 0.5 + contexts @ np.random.default_rng(9).standard_normal((3, 3)) / 5
    rewards = means[np.arange(rows), arms] + 0.1 * rng.standard_normal(rows)
    rewards[::97] = np.nan
    return Trace(
        names=["a", "b", "c"],
        arms=arms,
        rewards=rewards,
        propensities=np.array([0.5, 0.3, 0.2])[arms],
        contexts=contexts,
    )


def rule(contexts):
    return (contexts[:, 0] > 0).astype(int)


TARGETS = {"b": "b", "even": [0.4, 0.3, 0.3], "rule": rule}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path, trace = tmp_path_factory.mktemp("log"), logged()
    for i, (start, stop) in enumerate([(0, 1000), (1000, 1010), (1010, 3000)]):
        trace[start:stop].save(path / f"day-{i}.{('parquet', 'csv', 'npz')[i]}")
    return path


@pytest.mark.parametrize("jobs", [1, 2])
def test_values_of_a_folder_are_those_of_the_whole(folder, jobs):
    found = compare_batches(folder, TARGETS, jobs=jobs, backend="threading")
    whole = compare(logged(), TARGETS)
    for name in TARGETS:
        for one in ESTIMATORS:
            # Folds are numbered by file, so the models of rewards differ by their folds.
            near = 1e-9 if one in ("ips", "clipped", "snips") else 1e-3
            assert found[name][one].value == pytest.approx(whole[name][one].value, rel=near)
            assert found[name][one].std_error == pytest.approx(whole[name][one].std_error, rel=0.15)
        assert found[name].ess == pytest.approx(whole[name].ess)
        assert (found[name].rows, found[name].unanswered) == (whole[name].rows, whole[name].unanswered)


def test_one_part_is_the_trace(tmp_path):
    trace = logged(200)
    one, whole = compare_batches(Batches((partial(logged, 200),)), TARGETS), compare(trace, TARGETS)
    assert one["rule"]["dr"].value == pytest.approx(whole["rule"]["dr"].value, rel=1e-9)


def test_large_parquet_is_read_by_batches(tmp_path, monkeypatch):
    trace = logged()
    trace.save(tmp_path / "log.parquet")
    monkeypatch.setattr("banditroute.evaluation.batches._BATCH", 700)
    assert [len(t) for t in Batches.of(tmp_path).traces()] == [700, 700, 700, 700, 200]
    found = compare_batches(tmp_path, TARGETS)
    assert found["rule"]["dr"].value == pytest.approx(compare(trace, TARGETS)["rule"]["dr"].value, rel=1e-9)


def test_files_that_lack_an_arm_are_matched_by_name(tmp_path):
    header = "arm,reward,propensity\n"
    (tmp_path / "1.csv").write_text(header + "10,1,0.5\n2,0,0.5\n" * 30)
    (tmp_path / "2.csv").write_text(header + "9,1,0.5\n2,0,0.5\n" * 30)
    found = compare_batches(
        tmp_path, {"2": 2, "even": {"9": 0.5, "2": 0.5}}, estimators=["ips", "dm"], min_ess=0
    )
    assert found["2"]["ips"].value == 0.0 and found["even"]["ips"].value == pytest.approx(0.25)


def test_what_batches_cannot_answer(folder, tmp_path):
    with pytest.raises(TypeError, match="rows: a log in batches takes an arm, probabilities of the 3 arms"):
        compare_batches(folder, {"rows": np.zeros(3000, int)})
    with pytest.raises(ValueError, match="effective sample size"):
        compare_batches(folder, {"b": "b"}, min_ess=1e6)
    odd = partial(Trace, names=["a"], arms=[0], rewards=[1.0], contexts=[[1.0]], propensities=[1.0])
    with pytest.raises(ValueError, match="contexts of length 3, got 1"):
        compare_batches(Batches((partial(logged, 50), odd)), {"a": "a"})
    with pytest.raises(FileNotFoundError, match="no folder or file"):
        compare_batches(tmp_path / "none", {"a": "a"})


def test_a_policy_learns_batches_as_it_learns_the_whole(folder):
    one, two = (
        LinUCB(order, 3, alpha=0.1, ridge=1.0, prior=None, rng=0)
        for order in (("c", "a", "b"), ("a", "b", "c"))
    )
    learned = warm_start_batches(one, folder)
    log = logged().answered()
    two.update_batch(log.contexts, log.arms, log.rewards)
    assert learned == len(log)
    np.testing.assert_allclose(one.theta[[1, 2, 0]], two.theta, rtol=1e-9)
    with pytest.raises(ValueError, match="got none called 'b'"):
        warm_start_batches(LinUCB(["a", "c"], 3, rng=0), folder)


def test_a_learning_log_is_noted_across_files():
    parts = tuple(partial(replace, logged(100, i), versions=np.full(100, i)) for i in range(2))
    notes = compare_batches(Batches(parts), {"even": [0.4, 0.3, 0.3]})["even"].notes
    assert any("learning policy" in note for note in notes)


def test_memory_stays_that_of_a_batch():
    """A million generated rows in 40 parts: the peak grows by less than 60 MB; as arrays they are 88 MB."""
    bench = Path(__file__).resolve().parents[1] / "benchmarks" / "batches.py"
    code = f"import runpy; runpy.run_path({str(bench)!r})['grown'](1_000_000, 40)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1]) < 60.0
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
