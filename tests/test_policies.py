"""The smaller policies: the whole contract for each, and each against what it is defined to be."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from banditroute import LinUCB
from banditroute._core import validation as check
from banditroute.policies import (
    EMA,
    UCB1,
    BetaThompson,
    Fixed,
    GaussianThompson,
    HybridLinUCB,
    RoundRobin,
    SharedLinUCB,
    SquareCB,
    Uniform,
)
from banditroute.testing import CHECKS

TASTE = {"1": [0.0, 1.0], "2": [1.0, 0.0], "3": [0.5, 0.5]}


def features(name, x):
    """Products of what is known of an arm and the context; arms not listed are alike."""
    return np.outer([1.0, *TASTE.get(name, [0.0, 0.0])], x).ravel()


POLICIES = {
    "SquareCB": lambda rng: SquareCB(LinUCB(4, 3, rng=rng)),
    "Uniform": lambda rng: Uniform(4, 3, rng=rng),
    "Fixed": lambda rng: Fixed(4, 3, arm=2, mix=0.1, rng=rng),
    "RoundRobin": lambda rng: RoundRobin(4, 3, rng=rng),
    "UCB1": lambda rng: UCB1(4, 3, mix=0.1, rng=rng),
    "BetaThompson": lambda rng: BetaThompson(3, 2, rng=rng),
    "GaussianThompson": lambda rng: GaussianThompson(3, 2, mix=0.1, rng=rng),
    "EMA": lambda rng: EMA(4, 3, rng=rng),
    "SharedLinUCB": lambda rng: SharedLinUCB(4, 3, features=features, rng=rng),
    "HybridLinUCB": lambda rng: HybridLinUCB(4, 3, rng=rng),
    "HybridLinUCB-features": lambda rng: HybridLinUCB(4, 3, features=features, mix=0.1, rng=rng),
}
MATRICES = {
    "cold_start_is_exact",
    "online_equals_batch",
}  # need matrices per arm; compared with numpy below instead
LEFT_OUT = {
    "Fixed": {"arm_order_does_not_matter"},
    "SharedLinUCB": {"arm_order_does_not_matter"},
    "HybridLinUCB-features": {"arm_order_does_not_matter"},
    **{name: {"utilities_decide"} for name in ("SquareCB", "BetaThompson", "GaussianThompson")},
    **{name: {"utilities_decide", "lists_explore_one_place"} for name in ("Uniform", "RoundRobin")},
    "EMA": {"evidence_adds_up"},
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", POLICIES)
def test_policy_passes(name, check):
    assert check(POLICIES[name]) is (
        check.__name__ not in (MATRICES if name != "SquareCB" else set()) | LEFT_OUT.get(name, set())
    )


def lessons(rng, n, arms, dim):
    return rng.integers(arms, size=n), rng.standard_normal((n, dim)), rng.random(n), rng.uniform(0.5, 2.0, n)


def test_hybrid_without_a_shared_part_is_disjoint():
    rng = np.random.default_rng(0)
    hybrid = HybridLinUCB(4, 5, features=lambda name, x: np.zeros(0), alpha=0.7, ridge=0.3, rng=1)
    disjoint = LinUCB(4, 5, alpha=0.7, ridge=0.3, prior=None, rng=1)
    for a, x, r, w in zip(*lessons(rng, 500, 4, 5), strict=True):
        hybrid.update(int(a), x, r, weight=w)
        disjoint.update(int(a), x, r, weight=w)
        z = rng.standard_normal(5)
        np.testing.assert_allclose(hybrid.scores(z), disjoint.scores(z), rtol=0, atol=1e-9)
        np.testing.assert_array_equal(hybrid.propensities(z), disjoint.propensities(z))


@pytest.mark.parametrize("shared_ridge", [0.5, 3.0])
def test_hybrid_is_ridge_on_the_joint_features(shared_ridge):
    rng, k, d = np.random.default_rng(1), 3, 4
    policy = HybridLinUCB(k, d, features=features, ridge=0.7, shared_ridge=shared_ridge, rng=0)
    m = features("0", np.zeros(d)).size

    def joint(a, x):
        own = np.zeros((k, d))
        own[a] = x
        return np.concatenate([features(str(a), x), own.ravel()])

    A, b = np.diag([shared_ridge] * m + [0.7] * k * d), np.zeros(m + k * d)
    for a, x, r, w in zip(*lessons(rng, 300, k, d), strict=True):
        policy.update(int(a), x, r, weight=w)
        A += w * np.outer(joint(a, x), joint(a, x))
        b += w * r * joint(a, x)
    solution = np.linalg.solve(A, b)
    np.testing.assert_allclose(policy.beta, solution[:m], atol=1e-9)
    np.testing.assert_allclose(policy.theta.ravel(), solution[m:], atol=1e-9)
    x = rng.standard_normal(d)
    rows = np.array([joint(a, x) for a in range(k)])
    mean, std = policy.scores(x)
    np.testing.assert_allclose(mean, rows @ solution, atol=1e-9)
    np.testing.assert_allclose(
        std, np.sqrt(np.einsum("ai,ij,aj->a", rows, np.linalg.inv(A), rows)), atol=1e-9
    )


def test_shared_is_ridge_on_all_feedback():
    rng = np.random.default_rng(2)
    policy = SharedLinUCB(4, 3, features=features, ridge=0.2, rng=0)
    a, x, r, w = lessons(rng, 300, 4, 3)
    z = np.array([features(str(i), row) for i, row in zip(a, x, strict=True)])
    for i in range(300):
        policy.update(int(a[i]), x[i], r[i], weight=w[i])
    wanted = np.linalg.solve(0.2 * np.eye(z.shape[1]) + (z.T * w) @ z, z.T @ (w * r))
    np.testing.assert_allclose(policy.beta, wanted, atol=1e-9)
    policy.add_arm("like 0")
    mean, std = policy.scores(x[0])
    assert mean[4] == mean[0] and std[4] == std[0]


def test_a_new_arm_of_a_hybrid_starts_warm():
    rng = np.random.default_rng(3)
    theta = rng.standard_normal(6)
    hybrid, disjoint = HybridLinUCB(5, 6, rng=0), LinUCB(5, 6, prior=None, alpha=0.25, ridge=1.0, rng=0)
    for a, x, _, _ in zip(*lessons(rng, 400, 5, 6), strict=True):
        for policy in (hybrid, disjoint):
            policy.update(int(a), x, x @ theta)
    hybrid.add_arm("new")
    disjoint.add_arm("new")
    rows = rng.standard_normal((50, 6))
    error = np.abs(hybrid.scores_batch(rows).mean[:, -1] - rows @ theta).mean()
    assert error < 0.3 * np.abs(disjoint.scores_batch(rows).mean[:, -1] - rows @ theta).mean()


@pytest.mark.parametrize("policy", [BetaThompson(4, 1, rng=0), GaussianThompson(4, 1, sigma=0.4, rng=0)])
def test_thompson_propensities_are_frequencies_of_posterior_draws(policy):
    # 200,000 draws: standard error of a share below 0.0012; the bound of six of them errs below 1e-8 per arm.
    rng = np.random.default_rng(4)
    for a, n in enumerate([0, 3, 30, 400]):
        for _ in range(n):
            policy.update(a, [1.0], float(rng.random() < 0.5))
    prices = np.array([0.1, 0.0, -0.05, 0.02])
    mean, std = policy.scores([1.0])
    assert all(np.array_equal(a[0], b) for a, b in zip(policy.utilities([[1.0]]), (mean, std), strict=True))
    if isinstance(policy, BetaThompson):
        total = mean * (1.0 - mean) / std**2 - 1.0
        drawn = rng.beta(mean * total, (1.0 - mean) * total, (200_000, 4))
    else:
        drawn = mean + std * rng.standard_normal((200_000, 4))
    shares = np.bincount((drawn - prices).argmax(axis=1), minlength=4) / 200_000
    np.testing.assert_allclose(policy.propensities([1.0], prices=prices), shares, atol=0.0072)


def test_ema_is_the_recursion_while_an_arm_is_played():
    rewards = np.random.default_rng(5).random(200)
    policy, m = EMA(2, 1, rate=0.1, prior=0.3), 0.3
    for t, r in enumerate(rewards):
        policy.update(0, [1.0], r, at=t)
        m = 0.9 * m + 0.1 * r
        assert abs(policy.scores([1.0]).mean[0] - m) < 1e-12
    assert policy.scores([1.0]).mean[1] == pytest.approx(0.3)


def test_ucb1_plays_every_arm_and_then_the_largest_bound():
    policy, rng = UCB1(5, 1, alpha=0.5, rng=0), np.random.default_rng(6)
    rewards = rng.random((300, 5)) * [0.2, 0.4, 0.6, 0.8, 1.0]
    n, total = np.zeros(5), np.zeros(5)
    for t in range(300):
        arm = policy.select([1.0]).arm
        if t < 5:
            assert n[arm] == 0
        else:
            assert arm == np.argmax(total / n + 0.5 * np.sqrt(2.0 * np.log(t) / n))
        policy.update(arm, [1.0], rewards[t, arm])
        n[arm] += 1
        total[arm] += rewards[t, arm]


def test_round_robin_takes_turns():
    policy = RoundRobin(4, 1, rng=0)
    turns = []
    for _ in range(40):
        turns.append(policy.select([1.0]).arm)
        policy.update(turns[-1], [1.0], 0.0)
    assert all(sorted(turns[i : i + 4]) == [0, 1, 2, 3] for i in range(0, 40, 4))


def test_fixed_is_uniform_over_the_rest_when_its_arm_is_not_eligible():
    policy = Fixed(["a", "b", "c"], 1, arm="b")
    np.testing.assert_array_equal(policy.propensities([1.0], eligible=[True, False, True]), [0.5, 0.0, 0.5])
    np.testing.assert_array_equal(policy.propensities([1.0], prices=[0.0, 9.0, 0.0]), [0.0, 1.0, 0.0])


@pytest.mark.parametrize("make", [lambda: Uniform(3, 1), lambda: RoundRobin(3, 1)])
def test_yardsticks_ignore_prices(make):
    np.testing.assert_array_equal(make().propensities([1.0], prices=[5.0, 0.0, 1.0]), np.full(3, 1 / 3))


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"SquareCB"}))
def test_state_of_another_kind_is_refused(name):
    policy = POLICIES[name](0)
    header, arrays = policy.to_state()
    first = next(iter(arrays))
    for bad in ({**header, "policy": "other"}, {**header, "dim": 99}, {**header, "arms": ["a", "a"]}):
        with pytest.raises(ValueError):
            policy.load_state(bad, arrays)
    with pytest.raises(ValueError, match="must have shape"):
        policy.load_state(header, {**arrays, first: np.zeros((9, 9, 9))})


def test_squarecb_is_inverse_gap_weighting():
    policy = SquareCB(UCB1(4, 1, rng=0), scale=2.0)
    for a, r in enumerate([0.2, 0.9, 0.5, 0.9]):
        policy.update(a, [1.0], r)
    share = 1.0 / (3.0 + 2.0 * np.sqrt(3 * 4.0) * np.array([0.7, 0.4]))
    wanted = np.array([share[0], 1.0 - share.sum(), share[1], 0.0])
    given = policy.propensities([1.0], eligible=[True, True, True, False])
    np.testing.assert_allclose(given, wanted, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"SquareCB"}))
def test_states_that_make_no_sense_are_refused(name):
    def state(policy):
        header, arrays = policy.to_state()
        return repr(header), {key: array.tobytes() for key, array in arrays.items()}

    policy, other = POLICIES[name](0), POLICIES[name](1)
    for i in range(12):
        other.update(i % 3, [0.5] * other.dim, 0.25 * (i % 4))
    before = state(policy)
    header, arrays = other.to_state()
    wrong = [
        ({}, {}),
        (header, {}),
        ({**header, "clock": -5}, arrays),
        ({**header, "clock": 1 << 60}, arrays),
    ]
    needed = set(header) - {"generations"}  # states of old have none
    wrong += [({n: v for n, v in header.items() if n != left}, arrays) for left in needed]
    wrong += [({**header, "generations": given}, arrays) for given in ([], {"0": -1}, {"0": "x"})]
    wrong += [({**header, "rng": given}, arrays) for given in ({}, None, {**header["rng"], "state": "x"})]
    for key, array in arrays.items():
        for value in (np.nan, np.inf):
            spoiled = array.copy()
            spoiled.flat[-1] = value
            wrong.append((header, {**arrays, key: spoiled}))
    for given in wrong:
        with pytest.raises(ValueError):
            policy.load_state(*given)
        assert state(policy) == before
    policy.load_state(header, arrays)
    assert state(policy) == state(other)


@pytest.mark.parametrize(
    "value",
    [
        True, np.True_, np.array(True), "0.5", b"0.5", bytearray(b"1"), memoryview(b"1"), np.array("0.5"), np.str_("1"),
        np.bytes_(b"1"), 1j, np.complex128(1 + 2j), np.timedelta64(3), np.array(None), None, object(), [1.0], np.ones(1),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_number_is_no_reward_and_no_weight(value):
    for policy in (UCB1(2, 1, rng=0), HybridLinUCB(2, 1, rng=0)):
        with pytest.raises(TypeError, match="reward must be a finite number, got"):
            policy.update(0, [1.0], value)
        with pytest.raises(TypeError, match="weight must be a finite number, got"):
            policy.update(0, [1.0], 0.5, weight=value)
        assert policy.counts.sum() == 0


@pytest.mark.parametrize(
    "value", [1, np.int8(1), np.float32(1), Decimal(1), Fraction(1), np.array(1.0), np.array(1)], ids=repr
)
def test_numbers_of_all_kinds_are_rewards(value):
    assert check.finite("reward", value) == 1.0 and type(check.finite("reward", value)) is float


def test_integers_of_any_size_are_numbers_or_named():
    np.testing.assert_array_equal(check.vector("x", [2**70, 1], 2), [2.0**70, 1.0])
    np.testing.assert_array_equal(check.matrix("rows", [[2**70, 0.5]]), [[2.0**70, 0.5]])
    for digits in (400, 5000):  # Python prints up to 4,300 of them
        with pytest.raises(ValueError, match=r"x must be a finite number, got an integer of \d+ bits"):
            check.vector("x", [10**digits, 1], 2)
        with pytest.raises(ValueError, match="x must be an array of real numbers, got"):
            check.vector("x", [[10**digits], [1, 2]], 2)
    for wrong in ([None, 1.0], [True, 2**70], ["a", 2**70]):
        with pytest.raises(TypeError, match="x must hold real numbers"):
            check.vector("x", wrong, 2)


def test_names_in_messages_are_short():
    for given in (["a" * 10_000] * 2, "a" * 10_000):
        with pytest.raises((ValueError, TypeError)) as caught:
            check.names("arms", given)
        assert len(str(caught.value)) < 150
