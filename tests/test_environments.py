"""Streams, environments and the popularity of groups, against slow twins and stated statistics."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from banditroute import Problem, Stream
from banditroute.simulation import LinearEnvironment, MatrixEnvironment, best_static_set, value_with
from banditroute.simulation.popularity import draw_groups, generator, zipf_shares


def small(length=6, arms=4, seed=0, **fields):
    rng = np.random.default_rng(seed)
    means = rng.random((length, arms))
    return Stream(rng.random((length, 3)), means, means, tuple("abcdefgh"[:arms]), **fields)


def same(one, two):
    """Whether two streams hold the same numbers."""
    names = ("contexts", "means", "rewards", "groups", "delays", "costs", "available", "arrivals")
    return one.arms == two.arms and all(np.array_equal(getattr(one, n), getattr(two, n)) for n in names)


# Streams.


def test_a_stream_normalises_its_arrays_and_defaults_to_one_group_and_no_delay():
    means = np.ones((3, 2), order="F")
    stream = Stream(np.eye(3, dtype=np.float32), means, means, ["a", "b"])
    assert stream.contexts.dtype == np.float64
    assert stream.means.flags.c_contiguous
    assert stream.arms == ("a", "b")
    assert stream.groups.dtype == stream.delays.dtype == np.int64
    assert stream.groups.tolist() == stream.delays.tolist() == [0, 0, 0]
    assert (len(stream), stream.dim) == (3, 3)


def test_noise_free_rewards_stay_the_same_object_as_the_means():
    stream = small()
    assert stream.rewards is stream.means


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"contexts": np.zeros((0, 3))}, ValueError, "contexts must hold at least one request"),
        ({"contexts": np.full((6, 3), np.nan)}, ValueError, "contexts must be finite"),
        ({"means": np.zeros((6, 5))}, ValueError, r"means must have shape \(6, 4\), got \(6, 5\)"),
        ({"rewards": np.zeros((5, 4))}, ValueError, r"rewards must have shape \(6, 4\)"),
        ({"groups": np.zeros(6)}, TypeError, "groups must hold integers, got dtype float64"),
        ({"groups": np.full(6, -1)}, ValueError, "groups must be >= 0, got -1"),
        ({"delays": np.zeros(5, int)}, ValueError, r"delays must have shape \(6,\), got \(5,\)"),
        ({"costs": np.full((6, 4), np.inf)}, ValueError, "costs must be finite"),
        ({"available": np.ones((6, 4))}, TypeError, "available must be boolean"),
        ({"available": np.ones((6, 3), bool)}, ValueError, r"available must have shape \(6, 4\)"),
        ({"available": np.eye(6, 4, dtype=bool)}, ValueError, "got none at request 4"),
        ({"arrivals": np.array([0, 1, 2, 1, 3, 4.0])}, ValueError, "arrivals must be non-decreasing"),
        ({"arms": ("a", "b", "a", "c")}, ValueError, "arms must be distinct"),
    ],
)
def test_a_stream_refuses_what_does_not_fit(changed, error, words):
    with pytest.raises(error, match=words):
        replace(small(), **changed)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"faults": [0.1, 0.1]}, r"faults must have shape \(4,\)"),
        ({"faults": [-0.1, 0, 0, 0]}, "faults must be >= 0, got -0.1"),
        ({"loads": [0, 0, 0, -1]}, "loads must be >= 0, got -1"),
        ({"capacity": 0}, "capacity must be in"),
        ({"sizes": [1, 1, 1, 3]}, "sizes must be in"),
        ({"sizes": [1, 1, 1, 0]}, "sizes must be in"),
    ],
)
def test_a_problem_refuses_what_does_not_fit(changed, words):
    fields = {"stream": small(), "faults": np.zeros(4), "loads": np.zeros(4), "capacity": 2}
    assert Problem(**fields).sizes is None
    with pytest.raises(ValueError, match=words):
        Problem(**{**fields, **changed})


def slow_value(stream, resident, faults):
    values = []
    for t in range(len(stream)):
        there = [i for i in range(len(stream.arms)) if stream.available is None or stream.available[t, i]]
        values.append(max(stream.means[t, i] - (0 if i in resident else faults[i]) for i in there))
    return np.array(values)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 5), st.booleans(), st.integers(0, 3))
def test_value_and_best_set_are_those_of_the_slow_twin(seed, arms, masked, capacity):
    rng = np.random.default_rng(seed)
    available = rng.random((7, arms)) < 0.5
    available[np.arange(7), rng.integers(arms, size=7)] = True
    stream = small(7, arms, seed, available=available if masked else None)
    faults = rng.random(arms)
    capacity = min(capacity, arms)
    worth = {c: slow_value(stream, c, faults) for c in combinations(range(arms), capacity)}
    for resident, values in worth.items():
        assert np.allclose(value_with(stream, resident, faults), values, rtol=0, atol=1e-14)
    best = best_static_set(stream, capacity, faults)
    reached = slow_value(stream, best, faults).sum()
    assert len(best) <= capacity
    assert reached >= max(values.sum() for values in worth.values()) - 1e-9


def test_sizes_limit_the_best_set():
    means = np.array([[1.0, 0.6, 0.6], [1.0, 0.6, 0.6]])
    stream = Stream(np.eye(2), means, means, ("big", "b", "c"))
    assert best_static_set(stream, 1, 0.9) == (0,)
    assert best_static_set(stream, 1, 0.9, sizes=[2, 1, 1]) in {(1,), (2,)}


@pytest.mark.parametrize(("resident", "faults"), [([4], 0.1), ([-1], 0.1), ([0], -0.1), ([0], [0.1, 0.2])])
def test_value_refuses_unknown_arms_and_bad_prices(resident, faults):
    with pytest.raises(ValueError, match=r"resident must be|faults must"):
        value_with(small(), resident, faults)


def test_value_leaves_the_means_alone():
    stream = small(available=np.eye(6, 4, dtype=bool) | np.eye(6, 4, -4, dtype=bool) | np.eye(6, 4, -2, bool))
    before = stream.means.copy()
    value_with(stream, [0], 0.3)
    best_static_set(stream, 2, 0.3)
    assert np.array_equal(stream.means, before)


# Popularity and random streams.


def test_generators_are_independent_of_order_and_of_spawning():
    root = np.random.SeedSequence(5)
    first = generator(root, 3).random(4)
    root.spawn(3)
    assert np.array_equal(generator(root, 3).random(4), first)
    assert np.array_equal(generator(5, 3).random(4), first)
    child = np.random.SeedSequence(5).spawn(4)[3]
    assert not np.array_equal(np.random.default_rng(child).random(4), first)
    assert not np.array_equal(generator(child, 3).random(4), first)


@pytest.mark.parametrize("seed", [-1, 1.5, None, True])
def test_generators_refuse_other_seeds(seed):
    with pytest.raises((TypeError, ValueError), match="seed must be"):
        generator(seed, 0)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5])
def test_groups_have_zipf_shares(exponent):
    # Seed 0, n = 20,000; chi-square, false-alarm rate 1e-6.
    shares = zipf_shares(12, exponent)
    assert np.allclose(shares * np.arange(1, 13) ** exponent, shares[0])
    counts = np.bincount(draw_groups(shares, 20_000, np.random.default_rng(0)), minlength=12)
    assert chisquare(counts, shares * 20_000).pvalue > 1e-6


def test_each_window_has_its_own_shares():
    # Seed 1, n = 10,000 per window; chi-square, false-alarm rate 1e-6 each.
    table = np.array([[1, 2, 7], [7, 2, 1], [1, 1, 1.0]])
    windows = np.repeat([2, 0, 1], 10_000)
    groups = draw_groups(table, windows, np.random.default_rng(1)).reshape(3, -1)
    for window, part in zip([2, 0, 1], groups, strict=True):
        expected = table[window] / table[window].sum() * 10_000
        assert chisquare(np.bincount(part, minlength=3), expected).pvalue > 1e-6


def test_groups_without_popularity_never_come():
    groups = draw_groups([[0, 1, 0, 2, 0]], 5000, np.random.default_rng(2))
    assert set(groups.tolist()) == {1, 3}


def test_bursts_repeat_the_group_and_keep_the_shares():
    # Seed 3, n = 50,000. P(repeat) = stay + (1 - stay) sum p^2; five standard errors, false-alarm rate 1e-6.
    shares, stay, length = zipf_shares(5), 0.6, 50_000
    groups = draw_groups(shares, length, np.random.default_rng(3), stay=stay)
    repeats = (groups[1:] == groups[:-1]).mean()
    expected = stay + (1 - stay) * (shares**2).sum()
    assert abs(repeats - expected) < 5 * np.sqrt(expected * (1 - expected) / length)
    # Successive requests of one burst count once, which leaves (1 - stay) / (1 + stay) of the sample.
    errors = np.sqrt(shares * (1 - shares) / (length * (1 - stay) / (1 + stay)))
    assert (abs(np.bincount(groups, minlength=5) / length - shares) < 5.2 * errors).all()


def test_staying_for_ever_is_one_group():
    assert len(set(draw_groups(zipf_shares(5), 100, np.random.default_rng(0), stay=1.0).tolist())) == 1


@pytest.mark.parametrize("shares", [[0.0, 0.0], [1.0, -0.5], [np.nan, 1.0]])
def test_bad_shares_are_refused(shares):
    with pytest.raises(ValueError, match="shares must be >= 0"):
        draw_groups(shares, 10, np.random.default_rng(0))


# The linear environment.


def test_same_seed_same_stream_and_another_seed_another():
    source = LinearEnvironment()
    assert same(source.stream(300, 4), source.stream(300, np.random.SeedSequence(4)))
    assert not same(source.stream(300, 4), source.stream(300, 5))


def test_means_are_linear_in_unit_contexts_and_noise_is_shared():
    source = LinearEnvironment()
    stream = source.stream(20_000, 0)
    centres, theta, homes = source.instance(0)
    assert stream.contexts.shape == (20_000, 10)
    assert stream.means.shape == stream.rewards.shape == (20_000, 15)
    assert np.allclose(np.linalg.norm(stream.contexts, axis=1), 1.0)
    assert np.allclose(np.linalg.norm(centres, axis=1), 1.0)
    assert np.allclose(stream.means, stream.contexts @ theta.T)
    assert sorted(homes[:12]) == list(range(12))
    noise = stream.rewards - stream.means
    assert np.allclose(noise, noise[:, :1])
    # Seed 0, n = 20,000: a standard deviation of 0.1 within five standard errors, false-alarm rate 1e-6.
    assert abs(noise[:, 0].std() / 0.1 - 1) < 5 / np.sqrt(2 * 20_000)
    assert chisquare(np.bincount(stream.groups, minlength=12), zipf_shares(12) * 20_000).pvalue > 1e-6


def test_contexts_are_centres_plus_spread():
    centres, _, _ = LinearEnvironment(dim=3).instance(1)
    stream = LinearEnvironment(dim=3, spread=0.0).stream(500, 1)
    assert np.allclose(stream.contexts, centres[stream.groups])
    # cos(angle) is about 1 - spread^2 (dim - 1) / 2 for a small spread; n = 20,000, seed 1.
    stream = LinearEnvironment(dim=3, spread=0.05).stream(20_000, 1)
    cosines = np.einsum("ij,ij->i", stream.contexts, centres[stream.groups])
    assert cosines.mean() == pytest.approx(1 - 0.05**2, abs=1e-4)


def test_theta_points_home():
    centres, theta, homes = LinearEnvironment(own=0.0).instance(2)
    cosines = theta @ centres.T / np.linalg.norm(theta, axis=1)[:, None]
    assert np.array_equal(cosines.argmax(axis=1), homes)
    norms = np.linalg.norm(theta, axis=1)
    assert ((norms >= 0.55 * 0.7) & (norms <= 0.55)).all()


def test_an_own_part_has_the_stated_size():
    # Seed 0, 2,000 x 10 normal numbers: five standard errors, false-alarm rate 1e-6.
    with_own = LinearEnvironment(n_arms=2000).instance(0)[1]
    without = LinearEnvironment(n_arms=2000, own=0.0).instance(0)[1]
    spread = (with_own - without).std() * np.sqrt(10)
    assert abs(spread / 0.10 - 1) < 5 / np.sqrt(2 * 20_000)


def test_level_utilities_are_exact_on_orthogonal_centres():
    source = LinearEnvironment(centres=10, orthogonal=True, strength=1.0, away=0.25, own=0.0)
    centres, theta, homes = source.instance(3)
    utilities = theta @ centres.T
    at_home = utilities[np.arange(15), homes]
    assert ((at_home >= 0.7) & (at_home <= 1.0)).all()
    utilities[np.arange(15), homes] = 0.25
    assert np.allclose(utilities, 0.25)


def test_an_overlap_adds_a_second_home():
    one, two = LinearEnvironment(own=0.0), LinearEnvironment(own=0.0, overlap=0.5)
    centres, theta, homes = one.instance(0)
    rest = two.instance(0)[1] - theta
    cosines = rest @ centres.T / np.linalg.norm(rest, axis=1)[:, None]
    assert np.allclose(cosines.max(axis=1), 1.0)
    assert (cosines.argmax(axis=1) != homes).all()
    assert np.allclose(np.linalg.norm(rest, axis=1), 0.5 * np.linalg.norm(theta, axis=1))


def test_a_low_rank_keeps_the_total_norm():
    full, low = LinearEnvironment().instance(0)[1], LinearEnvironment(rank=3).instance(0)[1]
    assert np.linalg.matrix_rank(low) == 3
    assert np.linalg.norm(low) == pytest.approx(np.linalg.norm(full))


def test_a_common_direction_makes_contexts_collinear_and_keeps_utilities():
    singular = np.linalg.svd(LinearEnvironment(common=4.0).stream(2000, 0).contexts, compute_uv=False)
    assert singular[0] ** 2 / (singular**2).sum() > 0.9
    plain, common = (LinearEnvironment(common=c, own=0.0, spread=0.0) for c in (0.0, 4.0))
    homes = plain.instance(0)[2]
    assert np.array_equal(common.instance(0)[2], homes)
    at_home = [source.stream(15, 0, groups=homes).means.diagonal() for source in (plain, common)]
    assert np.allclose(*at_home)


def test_isotropic_contexts_have_no_direction_and_the_nearest_centre_as_group():
    # Seed 0, n = 20,000: second moments are I / 5 within 0.01, over five standard errors.
    source = LinearEnvironment(dim=5, spread=np.inf)
    stream = source.stream(20_000, 0)
    assert np.allclose(stream.contexts.T @ stream.contexts / 20_000, np.eye(5) / 5, atol=0.01)
    assert np.array_equal(stream.groups, (stream.contexts @ source.instance(0)[0].T).argmax(axis=1))


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_memory_is_the_autocorrelation_of_the_deviations(memory):
    # Seed 0, n = 20,000 in 8 dimensions: 0.02 is over five standard errors.
    source = LinearEnvironment(dim=8, centres=1, spread=0.01, memory=memory)
    stream = source.stream(20_000, 0)
    deviations = stream.contexts - stream.contexts.mean(axis=0)
    lagged = (deviations[1:] * deviations[:-1]).mean() / (deviations**2).mean()
    assert lagged == pytest.approx(memory, abs=0.02)
    assert deviations.std() == pytest.approx(0.01 * np.sqrt(7 / 8), rel=0.05)


def test_the_gap_scale_shrinks_differences_and_nothing_else():
    full, half = (LinearEnvironment(scale=s).stream(500, 0) for s in (1.0, 0.5))
    assert np.array_equal(full.contexts, half.contexts)
    centred = full.means - full.means.mean(axis=1, keepdims=True)
    assert np.allclose(half.means - half.means.mean(axis=1, keepdims=True), 0.5 * centred)
    assert np.allclose(full.means.mean(axis=1), half.means.mean(axis=1))


def test_runs_that_differ_in_noise_stay_paired():
    loud, quiet, silent = (LinearEnvironment(noise=s).stream(500, 0) for s in (0.3, 0.1, 0.0))
    assert np.array_equal(loud.contexts, quiet.contexts)
    assert np.array_equal(loud.means, quiet.means)
    assert np.allclose(loud.rewards - loud.means, 3 * (quiet.rewards - quiet.means))
    assert silent.rewards is silent.means


@pytest.mark.parametrize(
    "settings",
    [
        {"n_arms": 0},
        {"dim": 2.0},
        {"noise": -0.1},
        {"memory": 1.5},
        {"spread": -1.0},
        {"spread": np.nan},
        {"rank": 11},
        {"orthogonal": True},
    ],
)
def test_bad_parameters_are_refused(settings):
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(settings))} must be|centres must be"):
        LinearEnvironment(**settings)


# Full-feedback data.


def table(order="shuffle", **options):
    groups = np.repeat(["x", "y", "z"], [10, 20, 30])
    rewards = np.arange(120.0).reshape(60, 2)
    contexts = np.column_stack([np.arange(60.0), np.ones(60)])
    return MatrixEnvironment(contexts, rewards, costs=rewards / 1000, groups=groups, order=order, **options)


@pytest.mark.parametrize("order", ["shuffle", "replace", "blocks", "drift"])
def test_every_order_draws_whole_rows_and_repeats_itself(order):
    source = table(order)
    stream = source.stream(150, 7)
    rows = stream.contexts[:, 0].astype(int)
    assert np.array_equal(stream.means, source.rewards[rows])
    assert np.array_equal(stream.costs, source.costs[rows])
    assert np.array_equal(stream.groups, source.groups[rows])
    assert stream.rewards is stream.means
    assert source.labels == ("x", "y", "z")
    assert same(stream, source.stream(150, np.random.SeedSequence(7)))
    assert not same(stream, source.stream(150, 8))


def test_a_shuffle_uses_every_row_once_before_any_twice():
    rows = table().stream(150, 0).contexts[:, 0].astype(int)
    assert sorted(rows[:60]) == sorted(rows[60:120]) == list(range(60))
    assert len(set(rows[120:])) == 30
    assert not np.array_equal(rows[:60], rows[60:120])


def test_blocks_are_one_group_after_the_other():
    groups = table("blocks").stream(600, 0).groups
    assert (np.diff(groups) != 0).sum() == 2
    assert np.bincount(groups).tolist() == [100, 200, 300]


def test_drift_permutes_zipf_popularity_at_the_shifts():
    # Seed 3, n = 6,000 per part; chi-square against a permutation of the Zipf shares, false-alarm rate 1e-6.
    parts = table("drift", shifts=(0.25, 0.5)).stream(24_000, 3).groups
    shares = zipf_shares(3)
    ranks = []
    for part in (parts[:6000], parts[6000:12_000], parts[12_000:]):
        counts = np.bincount(part, minlength=3)
        order = np.argsort(-counts)
        assert chisquare(counts[order], shares * len(part)).pvalue > 1e-6
        ranks.append(tuple(order))
    assert len(set(ranks)) > 1


def test_given_groups_are_followed_row_by_row():
    groups = np.tile([2, 0, 1], 40)
    stream = table().stream(120, 0, groups=groups)
    assert np.array_equal(stream.groups, groups)
    assert len(set(stream.contexts[groups == 2, 0])) > 10


@pytest.mark.parametrize("groups", [[0, 3], [-1, 0], [0.0, 1.0], [0], [[0, 1]]])
def test_unknown_groups_are_refused(groups):
    for source in (table(), LinearEnvironment(centres=3)):
        with pytest.raises(ValueError, match=r"groups must be 2 integers in \[0, 2\]"):
            source.stream(2, 0, groups=np.array(groups))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rewards": np.zeros((59, 2))}, r"rewards must have shape \(60, d\)"),
        ({"costs": np.zeros((60, 3))}, r"costs must have shape \(60, 2\)"),
        ({"arms": ["only"]}, "arms must name the 2 columns"),
        ({"groups": [1, 2]}, r"groups must have shape \(60,\)"),
        ({"order": "sorted"}, "order must be one of"),
        ({"shifts": (1.5,)}, "shifts must be in"),
    ],
)
def test_data_that_do_not_fit_are_refused(options, words):
    fields = {"contexts": np.zeros((60, 2)), "rewards": np.zeros((60, 2)), **options}
    with pytest.raises(ValueError, match=words):
        MatrixEnvironment(**fields)


def test_reading_a_file_scales_cuts_and_adds_a_bias(tmp_path):
    path = tmp_path / "m.npz"
    x = np.arange(12, dtype=np.float16).reshape(3, 4)
    np.savez(path, x=x, s=np.array([[0, 255]] * 3, np.uint8), who=np.array(["a", "b"]), g=np.array([5, 5, 9]))
    source = MatrixEnvironment.from_npz(path, "x", "s", arms="who", groups="g", scale=255, components=2)
    assert np.array_equal(source.contexts, np.column_stack([x[:, :2], np.ones(3)]))
    assert source.contexts.dtype == np.float64
    assert np.array_equal(source.rewards, [[0, 1]] * 3)
    assert (source.arms, source.labels, source.costs) == (("a", "b"), (5, 9), None)
    assert MatrixEnvironment.from_npz(path, "x", "s", components=None, bias=False).dim == 4


def test_a_missing_key_lists_those_there(tmp_path):
    np.savez(tmp_path / "m.npz", x=np.eye(2), scores=np.eye(2))
    with pytest.raises(KeyError, match="no array 'rewards'; it holds x, scores"):
        MatrixEnvironment.from_npz(tmp_path / "m.npz", "x")
    with pytest.raises(FileNotFoundError):
        MatrixEnvironment.from_npz(tmp_path / "none.npz")


@pytest.mark.parametrize("shape", [(0, 2), (3, 0)])
def test_a_table_without_a_reward_is_refused_in_words(shape):
    with pytest.raises(ValueError, match="rewards must hold a row and a column"):
        MatrixEnvironment(np.ones((shape[0], 3)), np.ones(shape))
