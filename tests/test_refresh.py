"""The refresh of the pooled prior and the scales: its definition in numpy, its slices, what it must never do."""

import numpy as np
import pytest

from banditroute import DiagLinUCB, LinTS, LinUCB
from banditroute._core.kernels import layout, loop
from banditroute._core.kernels import refresh as refreshing
from banditroute.policies import HybridLinUCB, Restarting, SharedLinUCB, SlidingWindow
from naive_linear import NaiveScales


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def contexts(rng, n, dim, scale=1.0):
    rows = rng.standard_normal((n, dim)) / np.sqrt(dim)
    rows[:, -1] = 1.0
    return scale * rows


def fed(policy, rng, n=300, scale=1.0):
    """Teach a policy n rewards of random arms; returns the feedback."""
    theta = rng.standard_normal((len(policy.arms), policy.dim))
    feedback = []
    for x in contexts(rng, n, policy.dim, scale):
        arm = int(rng.integers(len(policy.arms)))
        reward = float(theta[arm] @ x / scale + 0.3 * rng.standard_normal())
        policy.update(arm, x, reward)
        feedback.append((arm, x, reward))
    return feedback


def finished(policy, rng):
    """Go on teaching until no refresh is under way."""
    feedback = []
    while policy.buffer[layout.H_PHASE] > refreshing.IDLE:
        feedback += fed(policy, rng, 1)
    return feedback


@pytest.mark.parametrize("cls", [LinUCB, LinTS, DiagLinUCB])
@pytest.mark.parametrize("options", [{}, {"prior": None}, {"alpha": 0.4}, {"ridge": 2.0}])
@pytest.mark.parametrize("dim", [1, 6])
def test_a_refresh_is_its_definition(rng, cls, options, dim):
    policy = cls(4, dim, rng=0, **options)
    naive = NaiveScales(4, dim, diagonal=cls is DiagLinUCB, sampling=cls is LinTS, **options)
    policy.buffer[layout.H_REFRESH] = np.inf  # only when this test says so
    true = rng.standard_normal((4, dim))
    for heard in (1, 2, 3, 3, 3):  # the last arm has not answered when all is said
        for x in contexts(rng, 60, dim):
            arm = int(rng.integers(heard))
            reward = float(true[arm] @ x + 0.3 * rng.standard_normal())
            policy.update(arm, x, reward)
            naive.update(arm, x, reward)
        policy.refresh()
        policy.buffer[layout.H_REFRESH] = np.inf
        naive.refresh()
        assert policy.alpha == pytest.approx(naive.alpha, rel=1e-9)
        assert policy.ridge == pytest.approx(naive.ridge, rel=1e-9)
        assert policy.level_ridge == pytest.approx(naive.level_ridge, rel=1e-9)
        assert policy.buffer[layout.H_COLD] == pytest.approx(naive.cold, rel=1e-9)
        np.testing.assert_allclose(policy.prior[0], naive.prior, rtol=1e-9, atol=1e-12)
        for a in range(4):
            cov, theta = naive.solution(a)
            np.testing.assert_allclose(policy.cov(a), cov, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(policy.theta[a], theta, rtol=1e-9, atol=1e-11)
        x = contexts(rng, 1, dim)[0]
        seen = policy.explored(x)
        np.testing.assert_allclose(policy.bonus(seen, policy.scores(seen).width), naive.bonus(x), rtol=1e-9)
        np.testing.assert_allclose(sum(policy.utilities(x[None]))[0], naive.index(x), rtol=1e-9, atol=1e-11)
        if not policy.buffer[layout.H_SAMPLE]:
            assert naive.index(x)[policy.select(x).arm] == pytest.approx(naive.index(x).max(), rel=1e-9)


@pytest.mark.parametrize("dim", [6, 21])
@pytest.mark.parametrize("budget", [1.0, 300.0, 4000.0])
def test_every_arm_is_exact_between_slices(rng, dim, budget):
    policy = LinUCB(3, dim, rng=0)
    policy.buffer[layout.H_BUDGET] = budget
    slices = 0
    for _ in range(400):
        fed(policy, rng, 1)
        slices += policy.buffer[layout.H_PHASE] > refreshing.IDLE
        if slices % 7 == 0:
            for a in range(3):
                A = policy.precision(a)
                np.testing.assert_allclose(policy.cov(a) @ A, np.eye(dim), rtol=0, atol=1e-9)
                theta = np.linalg.solve(A, policy.moment[a] + policy.ridges[a] * policy.prior[a])
                np.testing.assert_allclose(policy.theta[a], theta, rtol=0, atol=1e-9)
                assert np.linalg.eigvalsh(policy.cov(a)).max() <= policy.state.arm[a, layout.A_RADIUS] ** 2
    assert budget == 4000.0 or slices > 50  # it did go in slices


def test_a_refresh_ends_though_every_slice_brings_a_context_of_its_arm(rng):
    policy = LinUCB(2, 8, rng=0)
    policy.buffer[layout.H_BUDGET] = 150.0  # less than it costs to apply one, as at 3,072 dimensions
    x = contexts(rng, 400, 8)
    for t in range(400):
        policy.update(0, x[t], float(x[t, 0] + 0.3 * rng.standard_normal()))
    assert policy.buffer[layout.H_REFRESH] > 20.0  # the first was due at 16
    A = policy.precision(0)
    np.testing.assert_allclose(policy.cov(0) @ A, np.eye(8), rtol=0, atol=1e-9)


@pytest.mark.parametrize("cls", [LinUCB, LinTS, DiagLinUCB])
def test_what_is_frozen_knows_the_widths_of_arms_that_nobody_tried(rng, cls):
    policy = cls(5, 6, rng=0)
    for x in contexts(rng, 80, 6):
        policy.update(int(rng.integers(2)), x, float(x[0] + 0.3 * rng.standard_normal()))
    policy.refresh()
    rows = contexts(rng, 7, 6)
    *_, frozen = policy.freeze()
    wanted = policy.utilities(rows)
    width = np.array([np.sqrt(x @ policy.cov(4) @ x) for x in rows])
    np.testing.assert_allclose(policy.scores_batch(rows).width[:, 4], width, rtol=1e-12)
    for x in contexts(rng, 40, 6):
        policy.update(4, x, float(rng.random()))
    policy.refresh()
    told = frozen(rows)
    np.testing.assert_array_equal(told.mean, wanted.mean)
    np.testing.assert_array_equal(told.bonus, wanted.bonus)


def test_all_arms_have_the_new_ridges_and_prior_when_a_refresh_is_done(rng):
    policy = LinUCB(5, 16, rng=0)
    policy.buffer[layout.H_BUDGET] = 500.0
    fed(policy, rng, 16)
    assert policy.buffer[layout.H_PHASE] > refreshing.IDLE
    finished(policy, rng)
    assert len(np.unique(policy.ridges, axis=0)) == len(np.unique(policy.prior, axis=0)) == 1
    assert policy.ridges[0, 0] == policy.ridge
    assert policy.ridges[0, -1] == policy.level_ridge


def test_slices_go_on_in_a_copy_and_in_a_saved_state(rng):
    policy = LinUCB(3, 16, rng=0)
    policy.buffer[layout.H_BUDGET] = 400.0
    fed(policy, rng, 24)
    assert policy.buffer[layout.H_PHASE] > refreshing.IDLE
    loaded = LinUCB(3, 16, rng=1)
    loaded.load_state(*policy.to_state())
    copy = policy.copy()
    loaded.buffer[layout.H_BUDGET] = copy.buffer[layout.H_BUDGET] = 400.0
    for other in (policy, copy, loaded):
        fed(other, np.random.default_rng(5), 200)
    for other in (copy, loaded):
        assert np.array_equal(other.theta, policy.theta)
        assert np.array_equal(other.state.cov, policy.state.cov)
        assert other.alpha == policy.alpha


def test_rows_in_a_loop_are_the_kernel_over_rows(rng):
    one, many = LinUCB(3, 16, rng=0), LinUCB(3, 16, rng=0)
    one.buffer[layout.H_BUDGET] = many.buffer[layout.H_BUDGET] = 700.0
    feedback = fed(one, rng, 250)
    arms, rows, rewards = (np.array(column) for column in zip(*feedback, strict=True))
    loop.learn_rows(many.buffer, arms, rows, rewards)
    assert np.array_equal(one.theta, many.theta)
    assert np.array_equal(one.state.cov, many.state.cov)


def test_rows_at_once_leave_the_first_alpha_of_the_loop():
    one, many = LinUCB(3, 1, rng=0), LinUCB(3, 1, rng=0)
    rewards = [20.0, 30.0, -10.0, 5.0, 7.0]
    for reward in rewards:
        one.update(1, [1.0], reward)
    many.update_batch(np.ones((5, 1)), [1] * 5, rewards)
    assert one.alpha == many.alpha == 20.0


def test_an_arm_that_rounding_has_worn_is_inverted_anew(rng):
    policy = LinUCB(2, 16, alpha=0.3, ridge=1.0, prior=None, rng=0)
    policy.buffer[layout.H_BUDGET] = 1000.0
    feedback = fed(policy, rng, 40)
    wanted = policy.cov(0)
    policy.state.cov[0] *= 1.0 + 1e-6
    policy.state.arm[0, layout.A_ERROR] = 1.0
    for _ in range(60):
        policy.update(1, feedback[0][1], 0.5)
        policy._attend(layout.DUE, 0, feedback[0][1], 0.5, 1.0, -1)
    np.testing.assert_allclose(policy.cov(0), wanted, rtol=0, atol=1e-12)
    assert policy.state.arm[0, layout.A_ERROR] < 1e-8


def served(policy, worth, length, rng, *, noise=0.0, prices=None, late=None):
    """Serve requests whose context is one of the groups, a row of `worth` each; returns the arms and the groups played."""
    eye, arms, groups = np.eye(len(worth)), np.empty(length, int), rng.integers(len(worth), size=length)
    for t, g in enumerate(groups):
        if t == late:
            policy.add_arm("new")
        arms[t] = policy.select(eye[g], prices=prices).arm
        reward = worth[g, arms[t]]
        policy.update(int(arms[t]), eye[g], float(reward + noise * rng.standard_normal()))
    return arms, groups


@pytest.mark.parametrize("price", [0.0, 0.03])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("rewards", [(0.9, 0.6, 0.3), (0.8, 0.75, 0.7)])
@pytest.mark.parametrize("arms", [3, 10, 30])
def test_the_best_arm_is_found_where_rewards_carry_no_noise(arms, rewards, groups, price):
    length = 6000 if arms == 30 else 2000
    values = np.append(rewards[0], np.linspace(*rewards[1:], arms - 1))
    for seed in range(2 if arms == 30 else 5):
        rng = np.random.default_rng(seed)
        worth = np.array([rng.permutation(values) for _ in range(groups)])
        best = worth.argmax(axis=1)
        prices = price * (np.arange(arms) == best[0])
        played, kinds = served(LinUCB(arms, groups, rng=seed), worth, length, rng, prices=prices)
        assert (played == best[kinds])[-500:].sum() > 250


@pytest.mark.parametrize("cls", [LinUCB, LinTS, DiagLinUCB])
def test_an_arm_added_late_is_tried_though_rewards_carry_no_noise(cls):
    for seed in range(10):
        policy = cls(3, 1, rng=seed)
        if cls is LinTS:
            policy = LinTS(3, 1, propensities=False, rng=seed)
        served(policy, np.array([[0.6, 0.5, 0.4, 0.65]]), 2000, np.random.default_rng(seed), late=1000)
        assert policy.counts[3] > 500


@pytest.mark.parametrize("cls", [LinUCB, LinTS])
@pytest.mark.parametrize("unit", [0.001, 1.0, 1000.0])
def test_an_arm_is_tried_again_after_an_unlucky_answer(cls, unit):
    """One arm always earns .6; the other .9 less a price of .1, but nothing the first time it is asked."""
    policy, asked = cls(2, 1, rng=0), 0
    for _ in range(1500):  # five answers, with which the bad one is outweighed, are due at 496
        arm = policy.select([1.0], prices=[0.0, 0.1 * unit]).arm
        asked += arm
        policy.update(arm, [1.0], unit * (0.6, 0.9 * (asked > 1))[arm])
    assert policy.counts[1] > 900


def test_an_arm_that_costs_more_than_it_may_gain_is_left_alone():
    policy = LinUCB(2, 1, rng=0)
    for _ in range(1000):
        arm = policy.select([1.0], prices=[0.0, 5.0]).arm
        policy.update(arm, [1.0], (0.6, 0.9)[arm])
    assert policy.counts[1] <= 1


def test_an_arm_that_is_seldom_eligible_is_tried():
    policy = LinUCB(3, 1, rng=0)
    for t in range(1000):
        arm = policy.select([1.0], eligible=[True, True, t % 50 == 49]).arm
        policy.update(arm, [1.0], (0.6, 0.5, 0.9)[arm])
    assert policy.counts[2] > 15  # of the 20 times that it might be


@pytest.mark.parametrize("cls", [LinUCB, LinTS, DiagLinUCB])
@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10, 1000.0 / 3.0])
def test_the_unit_of_rewards_changes_no_decision(cls, factor):
    one, other = (
        cls(4, 3, propensities=False, rng=3) if cls is LinTS else cls(4, 3, rng=3) for _ in range(2)
    )
    rng = np.random.default_rng(4)
    true = rng.standard_normal((4, 3))
    for x in contexts(rng, 800, 3):
        prices = rng.uniform(0.0, 0.1, 4)
        arm = one.select(x, prices=prices).arm
        assert other.select(x, prices=factor * prices).arm == arm
        reward = float(0.5 + true[arm] @ x + 0.2 * rng.standard_normal())
        one.update(arm, x, reward)
        other.update(arm, x, factor * reward)
    assert other.alpha == pytest.approx(factor * one.alpha, rel=1e-9)


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_scales_of_contexts_and_rewards_change_no_decision_much(rng, scale):
    one, other = LinUCB(4, 6, rng=0), LinUCB(4, 6, rng=0)
    theta = rng.standard_normal((4, 6))
    for x in contexts(rng, 400, 6):
        arm = int(rng.integers(4))
        reward = float(theta[arm] @ x + 0.3 * rng.standard_normal())
        one.update(arm, x, reward)
        other.update(arm, scale * x, scale**2 * reward)
    one.refresh()
    other.refresh()
    assert other.sigma == pytest.approx(scale**2 * one.sigma, rel=0.05)
    x = contexts(rng, 1, 6)[0]
    np.testing.assert_allclose(
        other.scores(scale * x).mean, scale**2 * one.scores(x).mean, rtol=0.1, atol=0.1 * scale**2
    )


def test_one_more_arm_moves_nothing():
    policy = LinUCB(3, 4, rng=0)
    buffer = policy.buffer
    policy.update(0, np.ones(4), 1.0)
    before = policy.theta
    policy.add_arm("new")
    assert policy.buffer is buffer
    np.testing.assert_array_equal(policy.theta[:3], before)
    for i in range(20):  # more than there was room for
        policy.add_arm(f"more-{i}")
    np.testing.assert_array_equal(policy.theta[:3], before)
    assert policy.counts.tolist() == [1] + [0] * 23


@pytest.mark.parametrize(
    "make",
    [
        lambda: DiagLinUCB(30, 1, rng=0),
        lambda: HybridLinUCB(30, 1, rng=0),
        lambda: SharedLinUCB(30, 1, features=lambda arm, x: np.eye(30)[int(arm)], rng=0),
        lambda: SlidingWindow(LinUCB(30, 1, rng=0)),
        lambda: Restarting(LinUCB(30, 1, rng=0)),
    ],
)
def test_thirty_arms_without_noise_are_all_tried_by_every_linear_policy(make):
    worth, policy, right = np.append(0.5 + 0.002 * np.arange(29), 0.9), make(), 0
    for t in range(3000):
        arm = policy.select([1.0]).arm
        policy.update(arm, [1.0], float(worth[arm]))
        right += t >= 1500 and arm == 29
    assert right > 750


def test_slopes_that_matter_little_are_explored_little(rng):
    """Below the noise, slopes count in a bonus what they move in noise scales; above it, or by themselves, fully."""
    shares = []
    for size, last in ((0.1, 1.0), (3.0, 1.0), (0.1, None)):
        policy, levels = LinUCB(4, 6, rng=0), rng.standard_normal(4)
        theta = size * rng.standard_normal((4, 6))
        for _ in range(600):
            x = rng.standard_normal(6) / np.sqrt(6)
            x[-1] = x[-1] if last is None else last
            arm = int(rng.integers(4))
            policy.update(arm, x, float(levels[arm] + theta[arm, :5] @ x[:5] + rng.standard_normal()))
        seen = policy.explored(x)
        shares.append(seen[0] / x[0])
        if last is not None:
            assert seen[-1] == x[-1]
        assert 0.0 < shares[-1] <= 1.0
        *_, frozen = policy.freeze()
        np.testing.assert_array_equal(frozen(x[None]), policy.utilities(x[None]))
        again = LinUCB(4, 6, rng=1)
        again.load_state(*policy.to_state())
        np.testing.assert_array_equal(again.explored(x), seen)
        header, arrays = policy.to_state()
        arrays["header"][layout.H_CALM] = 1.5
        with pytest.raises(ValueError, match="a share of the slopes"):
            again.load_state(header, arrays)
    assert shares[0] < 0.9 and shares[1] == shares[2] == 1.0


def test_slopes_of_which_nothing_is_known_are_explored_fully(rng):
    """One arm has nearly all the feedback: how far slopes are apart is a guess, and no reason to stay with that arm."""
    policy = LinUCB(3, 5, rng=0)
    for i in range(800):
        x = np.append(rng.standard_normal(4), 1.0)
        policy.update(0 if i % 100 else 1 + i // 100 % 2, x, float(rng.random() < 0.5 + 0.1 * x[0]))
    assert policy.explored(x)[0] / x[0] > 0.9


@pytest.mark.parametrize(
    "options", [{"alpha": 0.3}, {"ridge": 1.0}, {"alpha": 1.0, "ridge": 1.0, "prior": None}]
)
def test_a_given_width_is_the_textbooks(rng, options):
    policy = LinUCB(3, 4, rng=0, **options)
    fed(policy, rng, 200)
    x = contexts(rng, 1, 4)[0]
    assert policy.explored(x) is x
