"""Diagnostics against definitions spelt out in plain loops, hand-computed cases and the recorded data."""

import argparse
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import data_file

from banditroute import LinUCB, Polar, simulate
from banditroute.cli import diagnose as cli_diagnose
from banditroute.cli.diagnose import configure, run
from banditroute.evaluation import cross_fitted, diagnose, segment_cache, segment_hits, segment_routing
from banditroute.simulation import homes

TRACES = st.lists(st.integers(0, 4), min_size=1, max_size=40)


def slow_srp(trace, window, arms):
    best = 0.0
    for threshold in range(1, window + 1):
        right = predicted = actual = 0
        for start in range(len(trace) - window + 1):
            segment = trace[start : start + window]
            for arm in range(arms):
                n = segment.count(arm)
                actual += n
                if n >= threshold:
                    right += n
                    predicted += window
        best = max(best, 2 * right / (predicted + actual))
    return best


def slow_sch(trace, window, slots):
    """One cache of one size: a set, evicting by uses ahead, then recency."""
    cache, last, hits = set(), {}, 0
    for t, arm in enumerate(trace):
        hits += arm in cache
        if arm not in cache and len(cache) == slots:
            ahead = trace[t + 1 : t + 1 + window]
            cache.remove(min(cache, key=lambda a: (ahead.count(a), last[a])))
        cache.add(arm)
        last[arm] = t
    return hits / len(trace)


def slow_hits(trace, window, slots, arms):
    total = 0
    for start in range(0, len(trace), window):
        segment = trace[start : start + window]
        total += max(sum(segment.count(a) for a in c) for c in combinations(range(arms), slots))
    return total / len(trace)


@given(TRACES, st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_segments_as_defined(trace, window):
    arms = 5
    for slots in range(1, arms + 1):
        assert segment_cache(trace, window, arms)[slots - 1] == pytest.approx(slow_sch(trace, window, slots))
        assert segment_hits(trace, window, arms)[slots - 1] == pytest.approx(
            slow_hits(trace, window, slots, arms)
        )
    width = min(window, len(trace))
    assert segment_routing(trace, width, arms)[0] == pytest.approx(slow_srp(trace, width, arms))


def test_hand_computed():
    # Windows 001 011 111 (of three) ... threshold 2: TP 2+2+3 = 7, predicted 9, actual 9.
    srp, group = segment_routing([0, 0, 1, 1, 1], 3)
    assert srp == pytest.approx(14 / 18) and group == 1.0
    assert segment_hits([0, 0, 1, 1, 1], 5).tolist() == [0.6, 1.0]
    # One slot sees 0 1 1 0: 0 in, 1 in, hit, 0 in.
    assert segment_cache([0, 1, 1, 0], 2).tolist() == [0.25, 0.5]


def test_extremes():
    steady, uniform = [2] * 300, np.random.default_rng(0).integers(0, 10, 5000)
    assert segment_routing(steady, 50) == (1.0, 1.0)
    assert segment_cache(steady, 10)[-1] == 299 / 300  # the first request misses
    assert segment_hits(steady, 50).tolist() == [1.0, 1.0, 1.0]
    # Even popularity: the best of each 500 is hardly better than its share, 0.4, and SRP is about 2/(10 + 1).
    assert 0.4 < segment_hits(uniform, 500)[3] < 0.46
    assert segment_routing(uniform, 500)[0] == pytest.approx(2 / 11, abs=0.01)


def test_no_epoch_controller_beats_its_segment_bound():
    problem = homes(3000, 1)
    for epoch in (100, 500):
        made = simulate(LinUCB(15, 10, rng=0), problem, Polar(4, epoch=epoch))
        assert made.hits.mean() <= segment_hits(made.arms, epoch, 15)[3]


def test_coverage_worth_and_answer_of_separate_groups():
    # Four groups of requests, each well served by its own arm only: K slots win K/4.
    found = diagnose(np.eye(4).repeat(50, axis=0), 0.2, window=50)
    assert found.worth == pytest.approx(0.2)
    np.testing.assert_allclose(found.coverage, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(found.gap, [0.0, 0.0, 0.0, 0.05], atol=1e-12)
    np.testing.assert_allclose(found.hits, 1.0)
    np.testing.assert_allclose(found.fixed, [0.25, 0.5, 0.75, 1.0])
    assert found.srp > 0.7 and found.enough == 4
    assert "4 slots earn 100% of that" in found.summary()


def test_a_dominant_arm_needs_one_slot():
    utilities = np.column_stack([np.full(200, 0.9), np.full(200, 0.5), np.full(200, 0.4)])
    found = diagnose(utilities, 0.1, window=20)
    assert found.enough == 1 and found.coverage[0] == 1.0
    assert "1 slot earns 100% of that" in found.summary() and "no need to re-plan" in found.summary()


def test_popularity_that_moves_is_worth_re_planning():
    found = diagnose(np.eye(6)[np.tile(np.repeat(np.arange(6), 100), 2)], 0.2, window=100, slots=[1, 5, 6])
    assert found.slots.tolist() == [1, 5, 6]
    assert found.hits[0] == 1.0 and found.fixed[0] == pytest.approx(1 / 6)
    assert found.coverage[0] == pytest.approx(1 / 6)
    mostly = diagnose(0.5 * np.eye(6)[np.repeat(np.arange(6), 100)] + 0.1 * np.eye(6)[0], 0.2, window=100)
    assert mostly.enough == 6


def test_free_paging_and_too_few_slots():
    free = diagnose(np.eye(3), 0.0)
    assert free.enough == 0 and "cannot help" in free.summary()
    few = diagnose(np.eye(8).repeat(5, axis=0), 0.2, slots=[2])
    assert few.enough is None and "2 slots earn 25%" in few.summary()


def test_many_arms_have_no_gap_but_all_else():
    rng = np.random.default_rng(0)
    found = diagnose(rng.random((200, 60)), 0.2, slots=[1, 10])
    assert found.gap[0] > 0 and np.isnan(found.gap[1])
    assert 0 < found.coverage[0] < found.coverage[1] < 1


def test_cross_fitted_never_sees_its_own_fold():
    # Pure noise: predictions do not correlate with the rewards (n = 4,000; 4 standard errors, seed 0).
    rng = np.random.default_rng(0)
    contexts, noise = rng.standard_normal((4000, 30)), rng.standard_normal((4000, 2))
    fitted = cross_fitted(contexts, noise)
    assert abs(np.corrcoef(fitted[:, 0], noise[:, 0])[0, 1]) < 4 / np.sqrt(4000)
    theta = rng.standard_normal((30, 2))
    signal = cross_fitted(contexts, contexts @ theta + noise)
    assert np.abs(signal - contexts @ theta).max() < 1.0
    changed = noise.copy()
    changed[0] = 1e6
    np.testing.assert_array_equal(cross_fitted(contexts, changed)[::5], fitted[::5])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: segment_routing([], 1), ValueError, "trace must be a sequence"),
        (lambda: segment_routing([0, 1], 3), ValueError, r"window must be in \[1, 2\]"),
        (lambda: segment_cache([0.5, 1.0], 1), TypeError, "trace must hold integers"),
        (lambda: segment_hits([0, 7], 1, 3), ValueError, r"trace must be in \[0, 2\]"),
        (lambda: segment_hits([-1], 1), ValueError, "trace must be in"),
        (lambda: cross_fitted(np.eye(3), np.eye(3)), ValueError, "at least 5 rows"),
        (lambda: diagnose(np.eye(3), -0.1), ValueError, "faults must be >= 0"),
        (lambda: diagnose(np.eye(3), 0.1, slots=[4]), ValueError, r"slots must be in \[1, 3\]"),
        (lambda: diagnose(np.eye(3), 0.1, slots=[]), ValueError, "slots must hold"),
        (lambda: diagnose(np.zeros((0, 3)), 0.1), ValueError, "at least one request"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


# The command.


def command(*words):
    parser = argparse.ArgumentParser()
    configure(parser)
    return run(parser.parse_args([str(w) for w in words]))


def test_command_prints_a_table_and_json(tmp_path, capsys):
    path = tmp_path / "log.npz"
    names = np.repeat(["b", "a", "c"], 40)
    np.savez(path, rewards=255 * np.eye(3).repeat(40, axis=0), x=np.eye(3).repeat(40, axis=0), served=names)
    assert command(path, "--scale", 255, "--fault", 0.1, "--window", 40) == 0
    text = capsys.readouterr().out
    assert "3 arms, fault price 0.1, windows of 40 requests" in text and "3 slots earn 100%" in text
    assert command(path, "--contexts", "x", "--scale", 255, "--json", "--profile", "llama-3.1-8b/disk") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["arms"] == 3 and found["enough"] == 3 and found["window"] == 120
    assert (
        command(path, "--rewards", "none", "--trace", "served", "--json", "--slots", 1, "--window", 40) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["hits"] == [1.0] and found["fixed"] == [pytest.approx(1 / 3)] == found["coverage"]
    with pytest.raises(ValueError, match="no array 'scores'; it holds rewards, x, served"):
        command(path, "--rewards", "scores")


def test_command_takes_the_contexts_that_the_file_holds(tmp_path, capsys):
    """As `study matrix`, `tune` and `report` do: the same file, the same question."""
    rng = np.random.default_rng(0)
    contexts, rewards = rng.standard_normal((200, 3)), rng.random((200, 4))
    np.savez(tmp_path / "m.npz", contexts=contexts, rewards=rewards)
    np.savez(tmp_path / "bare.npz", rewards=rewards)

    def worth(*words):
        assert command(*words, "--json") == 0
        return json.loads(capsys.readouterr().out)["worth"]

    fitted = cross_fitted(np.column_stack([contexts, np.ones(200)]), rewards)
    assert worth(tmp_path / "m.npz") == diagnose(fitted, 0.05).worth
    assert worth(tmp_path / "m.npz", "--contexts", "contexts") == diagnose(fitted, 0.05).worth
    oracle = diagnose(rewards, 0.05).worth
    assert worth(tmp_path / "m.npz", "--contexts", "") == worth(tmp_path / "bare.npz") == oracle
    assert oracle != diagnose(fitted, 0.05).worth
    # Arms that served say what was needed; contexts beside them are used when named.
    np.savez(tmp_path / "served.npz", contexts=contexts, served=np.arange(200) % 4)
    assert (
        worth(tmp_path / "served.npz", "--trace", "served")
        == diagnose(np.eye(4)[np.arange(200) % 4], 0.05).worth
    )


@pytest.mark.parametrize("words", [(), ("--contexts", "contexts")])
@pytest.mark.parametrize("shape", [(199, 3), (200,)])
def test_contexts_that_do_not_fit_the_rewards_are_refused(words, shape, tmp_path):
    np.savez(tmp_path / "m.npz", contexts=np.ones(shape), rewards=np.ones((200, 4)))
    with pytest.raises(ValueError, match=r"m\.npz: array 'contexts' must be of shape \(200, d\).*got \("):
        command(tmp_path / "m.npz", *words)


def test_every_word_of_the_table_is_explained(tmp_path, capsys):
    """Two arms in turn and one slot: the cache that sees ahead hits less than a fixed set, and the page says why."""
    np.savez(tmp_path / "m.npz", rewards=np.eye(2)[np.arange(100) % 2])
    assert command(tmp_path / "m.npz", "--window", 10) == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.split()[:1] == ["1"])
    assert row.split()[-3:] == ["50.0%", "50.0%", "0.0%"]
    assert "must take in every arm asked for, so with few slots it may hit less than a fixed set" in shown
    page = (Path(__file__).resolve().parents[1] / "docs" / "residency.md").read_text(encoding="utf-8").lower()
    for word in ("fixed", "per window", "sees ahead", "SRP", "coverage", "gap"):
        assert word in cli_diagnose.__doc__ and word.lower() in page, word


@pytest.mark.parametrize(
    ("name", "words", "best"),
    [
        ("llmrouter9.npz", ("--rewards", "scores", "--scale", 255, "--fault", 1.0), 0.614),
        ("pareto4.npz", ("--fault", 1.0), 0.934),
    ],
)
def test_recorded_matrices(name, words, best, capsys):
    try:
        path = data_file(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert command(path, *words, "--contexts", "minilm_pca64", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert np.all(np.diff(found["coverage"]) >= 0) and found["coverage"][-1] == 1.0
    assert np.all(np.array(found["sch"]) <= 1.0) and np.all(np.diff(found["hits"]) >= 0)
    assert found["enough"] <= 3  # one model is nearly as good as routing, a few are enough
    assert command(path, *words, "--json", "--window", 10**6) == 0
    oracle = json.loads(capsys.readouterr().out)
    assert oracle["hits"] == oracle["fixed"]  # one window is the whole file
    with np.load(path, allow_pickle=False) as file:
        rewards = np.asarray(file[words[1] if "--rewards" in words else "rewards"], float) / (
            255 if "--rewards" in words else 1
        )
    assert rewards.mean(axis=0).max() == pytest.approx(best, abs=5e-3)  # the file is the one described
