"""Logistic arms: the contract, the optimum against numpy, memory, and rewards of 0 and 1 with extreme chances."""

import numpy as np
import pytest
from scipy.stats import t as student

from banditroute import LinUCB, Router, Stream, simulate
from banditroute._core.kernels import logistic as k
from banditroute.policies import UCB1, LogisticUCB, Restarting
from banditroute.testing import CHECKS

POLICIES = {
    "LogisticUCB": lambda rng: LogisticUCB(4, 3, rng=rng),
    "LogisticUCB-mix": lambda rng: LogisticUCB(5, 4, alpha=0.5, ridge=2.0, mix=0.2, rng=rng),
    "LogisticUCB-greedy": lambda rng: LogisticUCB(3, 2, alpha=0.0, memory=200, mix=0.1, rng=rng),
    "Restarting-LogisticUCB": lambda rng: Restarting(LogisticUCB(3, 2, mix=0.1, rng=rng)),
}
MATRICES = {"cold_start_is_exact", "online_equals_batch"}  # of the linear arms; the optimum is compared below


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", POLICIES)
def test_policy_passes(name, check):
    assert check(POLICIES[name]) is (check.__name__ not in MATRICES | {"evidence_adds_up"})


def optimum(x, r, w, ridge):
    """Batch Newton from zero on all the data, halving steps: coefficients and inverse curvature."""
    theta = np.zeros(x.shape[1])

    def value(at):
        z = x @ at
        return w @ (np.logaddexp(0.0, z) - r * z) + ridge * at @ at / 2.0

    for _ in range(200):
        p = 1.0 / (1.0 + np.exp(-x @ theta))
        curvature = ridge * np.eye(theta.size) + (x.T * (w * p * (1.0 - p))) @ x
        step = np.linalg.solve(curvature, x.T @ (w * (p - r)) + ridge * theta)
        share = 1.0
        while value(theta - share * step) > value(theta) + 1e-12 and share > 1e-12:
            share /= 2.0
        theta = theta - share * step
    return theta, np.linalg.inv(curvature)


def lessons(seed, n, d, scale=2.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    chances = 1.0 / (1.0 + np.exp(-scale * x @ rng.standard_normal(d)))
    return x, (rng.random(n) < chances).astype(float), rng.uniform(0.5, 2.0, n)


@pytest.mark.parametrize(("d", "ridge", "scale"), [(1, 0.3, 1.0), (5, 0.01, 3.0), (17, 1.0, 0.5)])
def test_the_fit_is_the_optimum_of_all_the_data(d, ridge, scale):
    x, r, w = lessons(d, 240, d, scale)
    r[::3] = np.random.default_rng(1).random(80)  # shares of a success count too
    policy = LogisticUCB(2, d, ridge=ridge, rng=0)
    for row in zip(x, r, w, strict=True):
        policy.update(1, row[0], row[1], weight=row[2])
    theta, cov = optimum(x, r, w, ridge)
    np.testing.assert_allclose(policy.coefficients[1], theta, atol=1e-9)
    np.testing.assert_array_equal(policy.coefficients[0], 0.0)
    mean, std = policy.scores(x[0])
    z, width = x[0] @ theta, np.sqrt(x[0] @ cov @ x[0])
    np.testing.assert_allclose(mean, [0.5, 1.0 / (1.0 + np.exp(-z))], atol=1e-9)
    np.testing.assert_allclose(std[1], mean[1] * (1.0 - mean[1]) * width, atol=1e-9)
    bound = np.sum(policy.utilities(x[:1]), axis=0)[0, 1]
    np.testing.assert_allclose(bound, 1.0 / (1.0 + np.exp(-z - width)), atol=1e-9)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("weight", [1e-3, 1e6])
def test_the_fit_converges_from_far_away(size, weight):
    # Separable data of any size: without the prior there would be no optimum. From 30 standard deviations off.
    rng = np.random.default_rng(3)
    x = size * rng.standard_normal((60, 4))
    rows = np.column_stack([x, x[:, 0] > 0.0, np.full(60, weight)])
    theta, cov = 30.0 / size * rng.standard_normal(4), np.zeros((4, 4))
    steps = k.fit(rows, 60, np.zeros((4, 4)), np.zeros(4), 0.1, theta, cov, np.zeros((7, 4)))
    p = 1.0 / (1.0 + np.exp(-np.clip(x @ theta, -700.0, 700.0)))
    slope = x.T @ (weight * (p - rows[:, 4])) + 0.1 * theta
    assert steps < 60
    assert np.sqrt(slope @ cov @ slope) < 1e-6 * max(
        1.0, np.sqrt(weight)
    )  # what is left, in standard deviations


def test_kernels_are_their_source():
    x, r, w = lessons(4, 40, 3)
    rows = np.column_stack([x, r, w])
    past, pull = 0.5 * np.eye(3), np.array([0.1, -0.2, 0.3])
    if not hasattr(k.fit, "py_func"):
        pytest.skip("compilation is switched off")
    made = []
    for fit, fold, predict in (
        (k.fit, k.fold, k.predict),
        (k.fit.py_func, k.fold.py_func, k.predict.py_func),
    ):
        theta, cov, mine, pulled = np.zeros(3), np.zeros((3, 3)), past.copy(), pull.copy()
        fit(rows, 40, mine, pulled, 0.2, theta, cov, np.zeros((6, 3)))
        fold(rows, 20, mine, pulled, theta)
        mean, std = np.zeros(1), np.zeros(1)
        predict(theta[None], cov[None], 0.7, x[0], mean, std)
        made.append(np.concatenate([theta, cov.ravel(), mine.ravel(), pulled, mean, std]))
    np.testing.assert_allclose(made[0], made[1], rtol=1e-9, atol=1e-12)


def test_folding_changes_nothing_that_is_believed():
    x, r, w = lessons(5, 30, 3)
    rows = np.column_stack([x, r, w])
    past, pull, theta, cov = np.zeros((3, 3)), np.zeros(3), np.zeros(3), np.zeros((3, 3))
    k.fit(rows, 30, past, pull, 0.2, theta, cov, np.zeros((6, 3)))
    before = theta.copy(), cov.copy()
    k.fold(rows, 20, past, pull, theta)
    k.fit(rows[20:].copy(), 10, past, pull, 0.2, theta, cov, np.zeros((6, 3)))
    np.testing.assert_allclose(theta, before[0], atol=1e-10)
    np.testing.assert_allclose(cov, before[1], atol=1e-10)


def test_a_short_memory_stays_close_to_the_optimum_and_bounds_the_state():
    x, r, _ = lessons(6, 4000, 8, scale=1.0)
    policy = LogisticUCB(1, 8, ridge=0.3, memory=128, rng=0)
    for row in zip(x, r, strict=True):
        policy.update(0, *row)
    theta, cov = optimum(x, r, np.ones(4000), 0.3)
    off = policy.coefficients[0] - theta
    assert (
        np.sqrt(off @ np.linalg.solve(cov, off) / 8) < 0.5
    )  # standard deviations of the posterior, root mean square
    assert policy.to_state()[1]["rows"].shape == (1, 128, 10)


def test_a_batch_is_the_same_feedback_one_by_one():
    x, r, _ = lessons(7, 700, 4)
    arms = np.random.default_rng(8).integers(3, size=700)
    one, many = LogisticUCB(3, 4, memory=100, rng=0), LogisticUCB(3, 4, memory=100, rng=0)
    for row in zip(arms, x, r, strict=True):
        one.update(int(row[0]), row[1], row[2])
    many.update_batch(x, arms, r)
    np.testing.assert_allclose(many.coefficients, one.coefficients, atol=1e-8)
    np.testing.assert_allclose(many.scores(x[0]), one.scores(x[0]), atol=1e-8)
    np.testing.assert_array_equal(many.counts, one.counts)


@pytest.mark.parametrize("reward", [1.0000001, -0.5, 2, None, "1"])
def test_rewards_outside_the_unit_interval_change_nothing(reward):
    policy = LogisticUCB(3, 2, rng=0)
    policy.update(0, [1.0, 2.0], 1.0)
    before = policy.to_state()[1]
    with pytest.raises((ValueError, TypeError), match="reward"):
        policy.update(0, [1.0, 0.0], reward)
    with pytest.raises((ValueError, TypeError), match="reward"):
        policy.update_batch([[1.0, 0.0]] * 2, [0, 1], [1.0, reward])
    assert all(np.array_equal(array, before[name]) for name, array in policy.to_state()[1].items())


def test_a_router_continues_from_its_snapshot(tmp_path):
    def step(router, n, seed):
        rng, made = np.random.default_rng(seed), []
        for _ in range(n):
            decision = router.select(rng.standard_normal(3))
            made.append((decision.arm, decision.propensity))
            router.update(decision.id, float(rng.random() < 0.7))
        return made

    router = Router(LogisticUCB(4, 3, mix=0.2, memory=40, rng=0))
    step(router, 300, 1)
    router.save(tmp_path / "state")
    again = Router(LogisticUCB(4, 3, mix=0.2, memory=40, rng=9))
    again.load(tmp_path / "state")
    assert step(again, 100, 2) == step(router, 100, 2)


def test_state_that_does_not_fit_is_refused():
    policy, short = LogisticUCB(3, 2, rng=0), LogisticUCB(3, 2, memory=10, rng=0)
    policy.update_batch(np.ones((60, 2)), np.zeros(60, int), np.ones(60))
    header, arrays = policy.to_state()
    before = short.to_state()[1]
    for bad in (arrays, {**arrays, "rows": arrays["rows"][:, :8, :3]}):
        with pytest.raises(ValueError, match="rows"):
            short.load_state(header, bad)
    assert all(np.array_equal(array, before[name]) for name, array in short.to_state()[1].items())


def rare(seed, length):
    """Eight arms that succeed or fail, with logistic chances of .05 at the median and up to .99."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((length, 6))
    x = np.column_stack([x / np.linalg.norm(x, axis=1, keepdims=True), np.ones(length)])
    theta = np.column_stack([3.0 * rng.standard_normal((8, 6)), np.full(8, -3.0)])
    means = 1.0 / (1.0 + np.exp(-x @ theta.T))
    return Stream(x, means, (rng.random((length, 1)) < means).astype(float), tuple("abcdefgh"))


def test_it_beats_the_linear_policy_where_chances_are_extreme():
    # Seeds 0 to 29 (ten for the loss), 2,000 requests each; the upper end of a 95 % t interval of the paired differences is below zero.
    # Both learn the same 1,200 random rewards for the log loss on the other 800, chances cut to [.001, .999].
    regret, loss = [], []
    for seed in range(30):
        stream = rare(seed, 2000)
        policies = LogisticUCB(8, 7, rng=seed), LinUCB(8, 7, rng=seed)
        missed = [
            (stream.means.max(axis=1) - stream.means[np.arange(2000), simulate(p, stream).arms]).sum()
            for p in policies
        ]
        regret.append(missed[0] - missed[1])
        if seed >= 10:
            continue
        arms, taught = np.random.default_rng(seed).integers(8, size=1200), []
        for policy in (LogisticUCB(8, 7, rng=seed), LinUCB(8, 7, rng=seed)):
            policy.update_batch(stream.contexts[:1200], arms, stream.rewards[np.arange(1200), arms])
            p = np.clip(policy.scores_batch(stream.contexts[1200:]).mean, 1e-3, 1.0 - 1e-3)
            r = stream.means[1200:]
            taught.append(-(r * np.log(p) + (1.0 - r) * np.log(1.0 - p)).mean())
        loss.append(taught[0] - taught[1])
    for apart in map(np.array, (regret, loss)):
        half = student.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / len(apart) ** 0.5
        assert apart.mean() + half < 0.0


def bits(policy):
    header, arrays = policy.to_state()
    return repr(header), {name: array.tobytes() for name, array in arrays.items()}


def spoiled(name, place, value):
    def change(arrays):
        arrays[name][place] = value

    return change


HOSTILE = [
    spoiled("held", 0, 10.0**7),  # rows that the kernel would read far behind the array
    spoiled("held", 0, -5.0),
    spoiled("held", 0, 2.5),
    spoiled("held", 0, np.nan),
    spoiled("theta", (0, 0), np.nan),
    spoiled("theta", (0, 0), 1e300),
    spoiled("cov", (0, 0, 0), np.inf),
    spoiled("past", (0, 0, 0), np.nan),
    spoiled("pull", (0, 0), np.nan),
    spoiled("count", 0, np.nan),
    spoiled("rows", (0, 0, 0), np.nan),
    spoiled("rows", (0, 0, 2), 1.5),  # a reward
    spoiled("rows", (0, 0, 3), -1.0),  # a weight
    lambda arrays: arrays.pop("rows"),
    lambda arrays: arrays.pop("held"),
    lambda arrays: arrays.update(rows=arrays["rows"][:, :0]),
    lambda arrays: arrays.update(rows=np.zeros((2, 1000, 4))),  # more than `memory`
    lambda arrays: arrays.update(rows=arrays["rows"].ravel()),
    lambda arrays: arrays.update(rows=arrays["rows"][:, :3]),  # fewer rows than are held
]


@pytest.mark.parametrize("change", HOSTILE)
def test_states_that_make_no_sense_are_refused(change):
    other, policy = LogisticUCB(2, 2, rng=0), LogisticUCB(2, 2, rng=1)
    for i in range(20):
        other.update(i % 2, [1.0, 0.1 * i], float(i % 3 == 0))
    policy.update(1, [1.0, 0.0], 1.0)
    header, arrays = other.to_state()
    before = bits(policy)
    change(arrays)
    with pytest.raises(ValueError):
        policy.load_state(header, arrays)
    assert bits(policy) == before
    policy.load_state(*other.to_state())
    assert bits(policy) == bits(other)


def test_states_of_other_policies_and_none_at_all_are_refused():
    policy = LogisticUCB(2, 2, rng=1)
    with pytest.raises(ValueError, match="state must be of"):
        policy.load_state(*UCB1(2, 2, rng=0).to_state())
    with pytest.raises(ValueError, match="header must have 'policy'"):
        policy.load_state({}, {})


@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e-30, 1e-12, 1e-7])
def test_the_width_of_a_tiny_alpha_is_that_of_none(alpha):
    policies = [LogisticUCB(2, 2, alpha=a, rng=0) for a in (0.0, alpha)]
    for policy in policies:
        policy.update(0, [1.0, 0.0], 1.0)
        policy.select([1.0, 0.5])
    none, tiny = (policy.scores([1.0, 0.5]) for policy in policies)
    np.testing.assert_array_equal(tiny.mean, none.mean)
    np.testing.assert_allclose(tiny.width, none.width, rtol=1e-6)


@pytest.mark.parametrize("n", [60, 1500])  # with and without folding
@pytest.mark.parametrize("size", [1.0, 1e6])
@pytest.mark.parametrize("heavy", [1e12, 1e15, 1e20, 1e29])
def test_nothing_is_made_up_where_nothing_was_seen(heavy, size, n):
    # Contexts along one direction, with weights of which rounding alone outweighs the ridge across it.
    along, across = np.array([0.6, 0.8]), np.array([-0.8, 0.6])
    policy = LogisticUCB(1, 2, max_norm=2e6, rng=0)
    policy.update_batch(np.outer(np.ones(n), along), [0] * n, np.arange(n) % 20 < 7)
    for i in range(60):
        policy.update(0, size * along, float(i % 20 < 7), weight=heavy)
    for i in range(n - 60):
        policy._hold(0, size * along, float(i % 20 < 7), heavy)
    policy._fit(0)
    theta = policy.coefficients[0]
    assert abs(size * theta @ along - np.log(0.35 / 0.65)) < 0.1
    assert abs(size * theta @ across) < 0.1
    widths = policy._own["cov"][0]
    assert (
        np.isfinite(widths).all() and along @ widths @ along < across @ widths @ across <= 1.0 / policy.ridge
    )


@pytest.mark.parametrize("past", [0.0, 1e20])
def test_the_least_ridge_is_a_share_of_the_curvature(past):
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.standard_normal((30, 3)), np.zeros(30), rng.uniform(0.0, 1e15, 30)])
    x, w = rows[:20, :3], rows[:20, 4]
    expected = 1e-12 * (3 * past + sum(w * (x**2).sum(axis=1)) / 4.0)
    for function in (k.least_ridge, k.least_ridge.py_func):
        for ridge in (1e-9, 1e25):
            given = function(rows, 20, past * np.eye(3), ridge)
            np.testing.assert_allclose(given, max(ridge, expected), rtol=1e-12)
