"""The families of workloads: each has the property it is named after; real data have their known values."""

from itertools import combinations

import numpy as np
import pytest
from recorded import WORKLOADS, arrivals, data_file
from scipy.stats import kstest

from banditroute import Problem
from banditroute.simulation import (
    LinearEnvironment,
    MatrixEnvironment,
    best_static_set,
    digits_adapters,
    value_with,
    workloads,
)
from banditroute.simulation.popularity import zipf_shares

RECORDED = {
    "llmrouter9": "llmrouter9.npz",
    "llmrouter9-drift": "llmrouter9.npz",
    "pareto4": "pareto4.npz",
    "servegen": "arrivals.npz",
    "azure-code": "arrivals.npz",
    "azure-conversation": "arrivals.npz",
    "mooncake-conversation": "arrivals.npz",
    "mooncake-synthetic": "arrivals.npz",
}


def recorded(name):
    """Return the path of a data file, or skip the test."""
    try:
        return data_file(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))


def drawn(family, length, seed):
    if family in RECORDED:
        recorded(RECORDED[family])
    if family == "digits":
        pytest.importorskip("sklearn", reason="scikit-learn comes with the extra 'demo'")
    return WORKLOADS[family](length, seed)


def arrays(problem):
    stream = problem.stream
    held = [stream.contexts, stream.means, stream.rewards, stream.groups, stream.delays]
    held += [stream.costs, stream.available, stream.arrivals, problem.faults, problem.loads, problem.sizes]
    return [array for array in held if array is not None]


@pytest.mark.parametrize("family", WORKLOADS)
def test_every_family_is_a_problem_that_its_seed_repeats(family):
    problem, again, other = (drawn(family, 400, seed) for seed in (1, np.random.SeedSequence(1), 2))
    assert isinstance(problem, Problem)
    assert len(problem.stream) == 400
    assert all(np.array_equal(a, b) for a, b in zip(arrays(problem), arrays(again), strict=True))
    assert not np.array_equal(problem.stream.means, other.stream.means)
    assert not np.array_equal(problem.faults, other.faults)
    assert (problem.loads > 0).all()
    assert 0 < problem.capacity < (len(problem.faults) if problem.sizes is None else problem.sizes.sum())


@pytest.mark.parametrize("family", WORKLOADS)
def test_residency_matters_in_every_family(family):
    problem = drawn(family, 2000, 1)
    everything = range(len(problem.faults))
    best = best_static_set(problem.stream, problem.capacity, problem.faults, sizes=problem.sizes)
    empty, held, full = (
        value_with(problem.stream, chosen, problem.faults).mean() for chosen in ((), best, everything)
    )
    assert empty < held <= full + 1e-12
    sizes = np.ones(len(problem.faults)) if problem.sizes is None else problem.sizes
    assert sizes[list(best)].sum() <= problem.capacity


def test_homes_is_the_documented_generator():
    problem = WORKLOADS["homes"](4000, 3)
    stream = LinearEnvironment().stream(4000, 3)
    assert np.array_equal(problem.stream.rewards, stream.rewards)
    assert (problem.capacity, problem.sizes) == (4, None)
    assert problem.loads.tolist() == [0.5] * 15
    # Seeds 0..199, n = 3,000 prices: Kolmogorov-Smirnov, false-alarm rate 1e-6.
    prices = np.concatenate([WORKLOADS["homes"](1, seed).faults for seed in range(200)])
    assert kstest(prices, "uniform", args=(0.15, 0.2)).pvalue > 1e-6


def test_the_gap_scale_multiplies_prices_too():
    full, small = workloads.homes(50, 0), workloads.homes(50, 0, scale=0.25)
    assert np.allclose(small.faults, 0.25 * full.faults)
    assert np.allclose(small.loads, 0.25 * full.loads)
    # So regret, a sum of value differences, is multiplied as well.
    gaps = [value_with(p.stream, (0, 1), p.faults) - p.stream.means[:, 2] for p in (full, small)]
    assert np.allclose(gaps[1], 0.25 * gaps[0])


@pytest.mark.parametrize(
    ("family", "arms", "dim", "capacity"),
    [
        ("d-5", 15, 5, 4),
        ("d-32", 15, 32, 4),
        ("d-64", 15, 64, 4),
        ("K-1", 15, 10, 1),
        ("K-2", 15, 10, 2),
        ("K-8", 15, 10, 8),
        ("N-60-K-4", 60, 10, 4),
        ("N-60-K-30", 60, 10, 30),
    ],
)
def test_named_shapes(family, arms, dim, capacity):
    problem = WORKLOADS[family](20, 0)
    assert (len(problem.faults), problem.stream.dim, problem.capacity) == (arms, dim, capacity)


@pytest.mark.parametrize(
    ("family", "low", "high"), [("cheap", 0.02, 0.05), ("dear", 0.5, 1.0), ("bursts-dear", 0.5, 1.0)]
)
def test_named_prices(family, low, high):
    problem = WORKLOADS[family](20, 0)
    assert ((problem.faults >= low) & (problem.faults <= high)).all()
    assert np.ptp(problem.faults) > (high - low) / 2
    assert np.allclose(problem.loads, low + high)


@pytest.mark.parametrize(
    ("family", "sigma"), [("homes", 0.1), ("sigma-0.3", 0.3), ("sigma-0.02", 0.02), ("sigma-0.5", 0.5)]
)
def test_named_noise(family, sigma):
    # Seed 0, n = 5,000: five standard errors, false-alarm rate 1e-6.
    stream = WORKLOADS[family](5000, 0).stream
    assert abs((stream.rewards - stream.means)[:, 0].std() / sigma - 1) < 5 / np.sqrt(10_000)


def popularity(groups, parts=4):
    return np.stack([np.bincount(part, minlength=12) / len(part) for part in np.array_split(groups, parts)])


def test_abrupt_drift_permutes_the_shares_at_each_quarter():
    # Seed 0, n = 10,000 per quarter: 0.025 is five standard errors of a share.
    shares = popularity(WORKLOADS["abrupt"](40_000, 0).stream.groups)
    assert (abs(np.sort(shares, axis=1)[:, ::-1] - zipf_shares(12)) < 0.025).all()
    # One permutation may leave the head in place, but each moves some share by more than chance.
    assert np.ptp(shares, axis=0).max() > 0.2
    assert (np.abs(np.diff(shares, axis=0)).max(axis=1) > 0.05).all()
    still = popularity(WORKLOADS["homes"](40_000, 0).stream.groups)
    assert np.abs(np.diff(still, axis=0)).max() < 0.035


def test_gradual_drift_moves_by_small_steps():
    # Seed 0, n = 2,500 per part: a step of the shares is at most 0.32 / 16, five standard errors are 0.07.
    shares = popularity(WORKLOADS["gradual"](160_000, 0).stream.groups, 64)
    assert np.abs(np.diff(shares, axis=0)).max() < 0.02 + 0.07
    assert np.ptp(shares, axis=0).max() > 0.2


def test_bursts_have_ten_requests():
    # Seed 0, n = 20,000: P(repeat) = 0.9 + 0.1 sum p^2 within five standard errors, false-alarm rate 1e-6.
    groups = WORKLOADS["bursts"](20_000, 0).stream.groups
    expected = 0.9 + 0.1 * (zipf_shares(12) ** 2).sum()
    error = np.sqrt(expected * (1 - expected) / 20_000)
    assert abs((groups[1:] == groups[:-1]).mean() - expected) < 5 * error


def test_delays_are_uniform_from_1_to_200():
    # Seed 0, n = 20,000: five standard errors of the mean, false-alarm rate 1e-6.
    delays = WORKLOADS["delay"](20_000, 0).stream.delays
    assert (delays.min(), delays.max()) == (1, 200)
    assert abs(delays.mean() - 100.5) < 5 * np.sqrt((200**2 - 1) / 12 / 20_000)


def test_curved_rewards_are_a_logistic_function_of_linear_ones():
    curved, linear = WORKLOADS["curved"](300, 0).stream, WORKLOADS["homes"](300, 0).stream
    assert np.allclose(np.log(curved.means / (1 - curved.means)), 10 * (linear.means - 0.3))
    assert np.allclose(curved.rewards - curved.means, linear.rewards - linear.means)
    assert np.linalg.matrix_rank(linear.means) == 10
    assert np.linalg.matrix_rank(curved.means) > 10


def test_correlated_contexts_move_slowly_inside_a_burst():
    # A context is near the one before it far more often than in the plain family; seed 0, n = 5,000.
    steps = []
    for family in ("correlated", "bursts"):
        stream = WORKLOADS[family](5000, 0).stream
        inside = stream.groups[1:] == stream.groups[:-1]
        steps.append(np.linalg.norm(np.diff(stream.contexts, axis=0), axis=1)[inside].mean())
    assert steps[0] < 0.5 * steps[1]


def test_sizes_and_prices_go_together():
    sized, plain = WORKLOADS["sized"](50, 0), WORKLOADS["homes"](50, 0)
    assert set(sized.sizes) == {1.0, 2.0, 4.0}
    assert np.allclose(sized.faults / plain.faults, sized.sizes / sized.sizes.mean())
    assert sized.loads.mean() == pytest.approx(0.5)


def test_changing_utilities_swap_five_arms_half_way():
    changed, plain = WORKLOADS["changing"](1000, 0).stream, WORKLOADS["homes"](1000, 0).stream
    assert np.array_equal(changed.means[:500], plain.means[:500])
    moved = (changed.means[500:] != plain.means[500:]).any(axis=0)
    assert moved.sum() == 5
    assert np.array_equal(np.sort(changed.means), np.sort(plain.means))
    assert np.allclose(changed.rewards - changed.means, plain.rewards - plain.means)


def test_clusters_are_working_sets_of_four():
    groups = WORKLOADS["clustered"](20_000, 0).stream.groups
    active = groups // 4
    # A set stays for 200 requests on average: 0.005 of the requests, or fewer, change it.
    assert (active[1:] != active[:-1]).mean() < 0.0075
    assert len(set(active.tolist())) == 3
    inside = np.bincount(groups[active == 0], minlength=4) / (active == 0).sum()
    assert np.allclose(inside, zipf_shares(4), atol=0.03)


def test_clusters_need_not_divide_the_centres():
    groups = workloads.clustered(5000, 0, size=5, stay=0.5).stream.groups
    assert set(groups.tolist()) == set(range(12))


def test_rotation_makes_every_set_miss_an_epoch():
    problem = workloads.rotating(5000, 0, capacity=3, epoch=250)
    groups = problem.stream.groups.reshape(-1, 250)
    assert (groups == groups[:, :1]).all()
    turns = groups[:, 0]
    assert len(set(turns[:4].tolist())) == 4
    assert np.array_equal(turns[4:], turns[:-4])
    preferred = problem.stream.means.reshape(-1, 250, 15).mean(axis=1).argmax(axis=1)
    assert len(set(preferred.tolist())) == 4


def test_arms_come_and_go_and_the_comparator_knows():
    problem = WORKLOADS["churning"](1000, 0)
    available = problem.stream.available
    assert not available[0].all()
    assert not available[-1].all()
    assert (~available[0]).sum() == 4
    assert (~available[-1]).sum() == 3
    assert ((np.diff(available.astype(int), axis=0) != 0).sum(axis=0) <= 1).all()
    assert available.sum(axis=1).min() >= 8
    gone = np.flatnonzero(~available[-1])
    last = value_with(problem.stream, gone, problem.faults)[-1]
    others = np.flatnonzero(available[-1])
    assert last == pytest.approx((problem.stream.means[-1] - problem.faults)[others].max())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: workloads.homes(0, 0), "length must be >= 1"),
        (lambda: workloads.homes(5, 0, prices=(0.3, 0.1)), "prices must be in"),
        (lambda: workloads.homes(5, 0, capacity=0), "capacity must be >= 1"),
        (lambda: workloads.bursts(5, 0, stay=1.5), "stay must be in"),
        (lambda: workloads.delayed(5, 0, low=3, high=2), "high must be >= 3"),
        (lambda: workloads.changing(5, 0, changed=1), "changed must be in"),
        (lambda: workloads.churning(5, 0, added=10, withdrawn=5), "added \\+ withdrawn must be <"),
        (lambda: workloads.rotating(5, 0, epoch=0), "epoch must be >= 1"),
    ],
)
def test_bad_parameters_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# Digit classifiers.


def test_digit_specialists_know_their_classes():
    pytest.importorskip("sklearn", reason="scikit-learn comes with the extra 'demo'")
    source = digits_adapters()
    assert source.rewards.shape == (899, 15)
    assert set(np.unique(source.rewards)) == {0.0, 1.0}
    assert np.linalg.norm(source.contexts, axis=1).mean() == pytest.approx(1.0, abs=0.05)
    by_class = np.stack([source.rewards[source.groups == c].mean(axis=0) for c in range(10)])
    for i, arm in enumerate(source.arms[1:], start=1):
        own = [int(c) for c in arm.rsplit("-", 1)[1]]
        others = [c for c in range(10) if c not in own]
        assert 3 <= len(own) <= 4
        assert by_class[own, i].min() > 0.9
        assert by_class[others, i].mean() < 0.5
    # The generalist is the best single adapter; three well-chosen specialists are better together.
    assert source.rewards.mean(axis=0).argmax() == 0
    assert 0.8 < source.rewards[:, 0].mean() < 0.95
    best = max(source.rewards[:, list(c)].max(axis=1).mean() for c in combinations(range(15), 3))
    assert best > 0.98


def test_digit_popularity_shifts_half_way():
    pytest.importorskip("sklearn", reason="scikit-learn comes with the extra 'demo'")
    groups = WORKLOADS["digits"](10_000, 0).stream.groups
    before, after = (np.bincount(part, minlength=10) / 5000 for part in (groups[:5000], groups[5000:]))
    assert np.allclose(np.sort(before)[::-1], zipf_shares(10), atol=0.04)
    assert np.abs(before - after).max() > 0.1


# Recorded data.


def test_llmrouter9_has_its_known_values():
    path = recorded("llmrouter9.npz")
    source = MatrixEnvironment.from_npz(
        path, "minilm_pca64", "scores", arms="models", groups="task", scale=255, components=32
    )
    rewards = source.rewards
    assert rewards.shape == (6108, 9)
    assert (source.dim, len(source.labels)) == (33, 14)
    best = [max(rewards[:, c].max(axis=1).mean() for c in combinations(range(9), k)) for k in range(1, 6)]
    measured = [rewards.mean(), *best, rewards.max(axis=1).mean()]
    # All rows of the file. The figures published with it differ from these by up to 0.008.
    assert np.allclose(measured, [0.4244, 0.6165, 0.7067, 0.7440, 0.7649, 0.7780, 0.7969], atol=1e-4)
    assert np.allclose(measured, [0.421, 0.614, 0.700, 0.743, 0.763, 0.773, 0.790], atol=0.008)
    stream = source.stream(len(rewards), 0)
    chosen = best_static_set(stream, 3, 1.0)
    assert stream.means[:, chosen].max(axis=1).mean() == pytest.approx(best[2])


def test_pareto4_has_its_known_values():
    path = recorded("pareto4.npz")
    source = MatrixEnvironment.from_npz(path, "minilm_pca64", "rewards", "cost_usd", arms="models")
    assert source.rewards.shape == (3559, 4)
    assert np.allclose(source.rewards.mean(axis=0), [0.792, 0.925, 0.934, 0.927], atol=5e-4)
    assert source.rewards.max(axis=1).mean() == pytest.approx(0.972, abs=5e-4)
    assert np.allclose(source.costs.mean(axis=0), [2.9e-5, 5.0e-4, 1.5e-2, 8.9e-4], rtol=0.02)
    assert "mistral" in source.arms[1]
    assert WORKLOADS["pareto4"](100, 0).stream.costs.shape == (100, 4)


def test_servegen_popularity_follows_the_rates():
    path = recorded("arrivals.npz")
    stream = WORKLOADS["servegen"](40_000, 0).stream
    with np.load(path, allow_pickle=False) as file:
        rates = file["servegen_m_small_rate"].astype(float)
    rates = rates[:, np.argsort(-rates.sum(axis=0), kind="stable")[:12]]
    total = rates.sum(axis=0) / rates.sum()
    assert np.allclose(np.bincount(stream.groups, minlength=12) / 40_000, total, atol=0.015)
    assert stream.arrivals[0] >= 0
    assert stream.arrivals[-1] <= 14 * 86_400
    # Day by day: the same shares and the same traffic as the rates of that day.
    for day in range(14):
        inside = stream.groups[(stream.arrivals // 86_400).astype(int) == day]
        today = rates[day * 144 : (day + 1) * 144].sum(axis=0)
        assert len(inside) / 40_000 == pytest.approx(today.sum() / rates.sum(), abs=1e-3)
        assert np.allclose(np.bincount(inside, minlength=12) / len(inside), today / today.sum(), atol=0.06)


@pytest.mark.parametrize(
    "log", ["azure23_code", "azure23_conv", "mooncake_conversation", "mooncake_synthetic"]
)
def test_arrivals_are_those_of_the_log_and_feedback_comes_after_half_a_minute(log):
    path = recorded("arrivals.npz")
    with np.load(path, allow_pickle=False) as file:
        times = file[f"{log}_t"].astype(float)
    stream = arrivals(len(times) + 500, 0, log=log).stream
    assert np.allclose(stream.arrivals[: len(times)], times - times[0])
    assert np.allclose(np.diff(stream.arrivals[len(times) :]), np.diff(times[:500]), atol=1e-9)
    for t in range(0, len(stream), 97):
        profiting = t + 1 + stream.delays[t]
        assert profiting == len(stream) or stream.arrivals[profiting] >= stream.arrivals[t] + 30
        assert stream.arrivals[profiting - 1] < stream.arrivals[t] + 30
    repeats = stream.groups[1:] == stream.groups[:-1]
    gaps = np.diff(stream.arrivals)
    near = gaps <= np.median(np.diff(times))
    assert repeats[near].mean() > 0.85
    assert repeats[~near].mean() < 0.25


def test_missing_data_say_where_they_were_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("BANDITROUTE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no pareto4\.npz in .*; BANDITROUTE_DATA names"):
        WORKLOADS["pareto4"](10, 0)
    np.savez(tmp_path / "arrivals.npz", other=np.ones(3))
    with pytest.raises(ValueError, match="no array 'servegen_m_small_rate'; it holds other"):
        WORKLOADS["servegen"](10, 0)
    monkeypatch.delenv("BANDITROUTE_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        data_file("pareto4.npz")
