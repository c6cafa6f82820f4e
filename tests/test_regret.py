"""Regret against its definition, written out request by request."""

import numpy as np
import pytest
from scipy import stats

from banditroute import LRU, LinUCB, Polar, Problem, RegretTracker, Static, Stream, regret, simulate
from banditroute.simulation import Regret, bands, best_static_set, interval, slope

N, T = 5, 400


def problem(seed, *, available=False, sizes=False):
    rng = np.random.default_rng(seed)
    contexts = rng.standard_normal((T, 4))
    means = contexts @ rng.standard_normal((4, N)) * 0.3
    mask = None
    if available:
        mask = rng.random((T, N)) < 0.6
        mask[np.arange(T), rng.integers(N, size=T)] = True
    stream = Stream(contexts, means, means + rng.standard_normal((T, 1)), tuple("abcde"), available=mask)
    return Problem(
        stream,
        rng.uniform(0.1, 0.4, N),
        rng.uniform(0.0, 0.5, N),
        2.0 if sizes else 2,
        rng.uniform(0.3, 1.5, N) if sizes else None,
    )


def written_out(run, case, best):
    """Return route, residency and switching of every request, from the definition."""
    stream, parts = case.stream, np.zeros((3, T))
    changes = dict(run.epochs)
    chosen = None

    def value(t, inside):
        arms = range(N) if stream.available is None else np.flatnonzero(stream.available[t])
        return max(stream.means[t, a] - (0.0 if a in inside else case.faults[a]) for a in arms)

    for t in range(T):
        chosen = changes.get(t, chosen)
        arm = run.arms[t]
        assert run.hits[t] == (arm in chosen)
        obtained = stream.means[t, arm] - (0.0 if arm in chosen else case.faults[arm])
        parts[0, t] = value(t, chosen) - obtained
        parts[1, t] = value(t, best) - value(t, chosen)
    for t, price in run.loads:
        parts[2, t] += price
    return parts


@pytest.mark.parametrize("options", [{}, {"available": True}, {"sizes": True}])
@pytest.mark.parametrize("kind", [LRU, Polar])
def test_parts_are_their_definition(options, kind):
    case = problem(1, **options)
    controller = LRU(2) if kind is LRU else Polar(2, epoch=40)
    run = simulate(LinUCB(case.stream.arms, 4, rng=0), case, controller)
    best = best_static_set(case.stream, case.capacity, case.faults, sizes=case.sizes)
    found = regret(run, case)
    wanted = np.cumsum(written_out(run, case, best), axis=1)
    for name, part in zip(("route", "residency", "switching"), wanted, strict=True):
        np.testing.assert_allclose(getattr(found, name), part, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.total, wanted.sum(axis=0), rtol=0, atol=1e-9)
    assert found.final == found.total[-1]
    assert (np.diff(found.route, prepend=0.0) >= -1e-12).all()  # no arm beats the best one under the same set
    assert (np.diff(found.switching, prepend=0.0) >= 0.0).all()
    if kind is Polar:
        assert found.switching[-1] == pytest.approx(sum(price for _, price in run.loads)) and run.loads


def test_the_best_set_in_hindsight_has_no_regret_of_residency():
    case = problem(2)
    best = best_static_set(case.stream, 2, case.faults)
    run = simulate(LinUCB(case.stream.arms, 4, rng=0), case, Static(best))
    found = regret(run, case)
    assert not found.residency.any()
    assert not found.switching.any()
    other = regret(run, case, best=[a for a in range(N) if a not in best][:2])
    assert other.residency[-1] <= 0.0
    np.testing.assert_array_equal(other.route, found.route)


def test_without_prices_it_is_the_textbook():
    case = problem(3, available=True)
    run = simulate(LinUCB(case.stream.arms, 4, rng=0), case.stream)
    found = regret(run, case.stream)
    masked = np.where(case.stream.available, case.stream.means, -np.inf)
    wanted = np.cumsum(masked.max(axis=1) - case.stream.means[np.arange(T), run.arms])
    np.testing.assert_allclose(found.total, wanted, rtol=0, atol=1e-9)
    assert not found.residency.any()


def test_noise_does_not_enter():
    case = problem(4)
    run = simulate(LinUCB(case.stream.arms, 4, rng=0), case, LRU(2))
    quiet = Stream(case.stream.contexts, case.stream.means, case.stream.means, case.stream.arms)
    same = Problem(quiet, case.faults, case.loads, case.capacity)
    np.testing.assert_array_equal(regret(run, case).total, regret(run, same).total)


@pytest.mark.parametrize("power", [0.3, 0.5, 1.0])
def test_slope_is_the_exponent(power):
    assert slope(3.0 * np.arange(1, 5001) ** power) == pytest.approx(power, abs=1e-9)


def test_slope_looks_at_the_end_only():
    total = np.append(np.arange(1.0, 101.0) ** 2, 1e4 + np.zeros(9900))
    assert slope(total) == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="total must be positive over the fitted range, got -1"):
        slope(np.full(100, -1.0))


def test_interval_is_students():
    values = np.random.default_rng(0).standard_normal(12)
    mean, low, high = interval(values, level=0.9)
    wanted = stats.t.interval(0.9, 11, loc=values.mean(), scale=stats.sem(values))
    assert (mean, low, high) == pytest.approx((values.mean(), *wanted))
    assert interval([2.0]) == (2.0, -np.inf, np.inf)


def test_interval_covers_as_often_as_it_says():
    # 2,000 intervals from 8 normal values, seed 1: coverage is binomial, five standard deviations are allowed, so a
    # right interval fails with probability below 1e-6.
    rng = np.random.default_rng(1)
    covered = sum(
        low <= 0.0 <= high for _, low, high in (interval(rng.standard_normal(8)) for _ in range(2000))
    )
    assert abs(covered - 1900) <= 5 * np.sqrt(2000 * 0.95 * 0.05)


def test_bands_are_intervals_at_every_time():
    curves = np.random.default_rng(2).standard_normal((6, 9)).cumsum(axis=1)
    mean, low, high = bands(curves)
    for t in range(9):
        assert (mean[t], low[t], high[t]) == pytest.approx(interval(curves[:, t]))
    mean, low, _ = bands(curves[:1])
    assert np.array_equal(mean, curves[0]) and np.isneginf(low).all()


def test_total_is_the_sum():
    parts = np.random.default_rng(3).random((3, 7))
    assert np.array_equal(Regret(*parts).total, parts[0] + parts[1] + parts[2])


# -- tracker ----------------------------------------------------------------------------------------------------------


def test_tracker_totals():
    rng, tracker = np.random.default_rng(4), RegretTracker(rng=0)
    rewards, best, waits, hits = (
        rng.random(500),
        rng.random(500) + 1.0,
        rng.exponential(20.0, 500),
        rng.random(500) < 0.7,
    )
    for r, b, w, h in zip(rewards, best, waits, hits, strict=True):
        tracker.add(reward=float(r), expected=float(r) / 2, best=float(b), hit=bool(h), latency_ms=float(w))
    tracker.load(3, 0.5)
    tracker.load(1)
    summary = tracker.summary()
    assert summary["requests"] == 500
    assert summary["reward"] == pytest.approx(rewards.sum())
    assert summary["mean_reward"] == pytest.approx(rewards.mean())
    assert summary["regret"] == pytest.approx((best - rewards / 2).sum() + 0.5)
    assert summary["hit_rate"] == pytest.approx(hits.mean())
    assert (summary["page_ins"], summary["load_price"]) == (4, 0.5)
    p50, p99 = np.percentile(waits, [50, 99])
    assert (summary["latency_p50_ms"], summary["latency_p99_ms"]) == pytest.approx((p50, p99))


def test_tracker_that_knows_nothing_says_so():
    tracker = RegretTracker()
    assert tracker.summary()["regret"] is None
    assert tracker.summary()["hit_rate"] == 0.0
    tracker.add(reward=1.0)
    assert tracker.summary()["regret"] is None


def test_latencies_are_a_uniform_sample():
    # 1,000 samples of 10 out of 50, seeds 0 .. 999: each wait is kept in a fifth; five standard deviations for each of
    # 50 waits, false alarms below 1e-4.
    kept = np.zeros(50)
    for seed in range(1000):
        tracker = RegretTracker(reservoir=10, rng=seed)
        for wait in range(50):
            tracker.add(reward=0.0, latency_ms=float(wait))
        kept[np.array(tracker._latency, dtype=int)] += 1
    assert kept.sum() == 10_000
    assert (np.abs(kept - 200) <= 5 * np.sqrt(1000 * 0.2 * 0.8)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reward": np.nan}, "reward must be a finite number, got nan"),
        ({"reward": 1.0, "latency_ms": -1.0}, "latency_ms must be in"),
        ({"reward": 1.0, "expected": 1.0}, "expected and best must be given together"),
        ({"reward": 1.0, "expected": 1.0, "best": np.inf}, "best must be a finite number"),
    ],
)
def test_tracker_refuses_and_keeps_its_totals(arguments, message):
    tracker = RegretTracker()
    tracker.add(reward=0.5, expected=0.2, best=0.4)
    before = dict(vars(tracker), _latency=list(tracker._latency))
    with pytest.raises(ValueError, match=message):
        tracker.add(**arguments)
    assert {**vars(tracker), "_latency": list(tracker._latency)} == before
    with pytest.raises(ValueError, match="price must be in"):
        tracker.load(1, -0.1)
    assert {**vars(tracker), "_latency": list(tracker._latency)} == before
