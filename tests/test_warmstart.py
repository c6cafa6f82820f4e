"""Warm starts add exactly the statistics that they say."""

import numpy as np
import pytest

from banditroute import DiagLinUCB, LinUCB, UnknownArm
from banditroute.policies import (
    UCB1,
    BetaThompson,
    HybridLinUCB,
    Restarting,
    from_averages,
    preference_prior,
    quiz,
    warm_start,
)

TEXTBOOK = {"alpha": 0.2, "ridge": 0.5, "prior": None}


def records(n=400, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)), rng.integers(3, size=n), rng.random(n)


def state(policy):
    header, arrays = policy.to_state()
    return str(header), {name: array.tobytes() for name, array in arrays.items()}


def test_records_at_full_weight_are_learned_as_they_are():
    x, a, r = records()
    warm, plain = LinUCB(3, 4, rng=0, **TEXTBOOK), LinUCB(3, 4, rng=0, **TEXTBOOK)
    warm_start(warm, x, a, r)
    plain.update_batch(x, a, r)
    for arm in range(3):
        np.testing.assert_allclose(warm.precision(arm), plain.precision(arm), rtol=1e-12)
        np.testing.assert_allclose(warm.cov(arm) @ warm.precision(arm), np.eye(4), atol=1e-10)
    np.testing.assert_allclose(warm.theta, plain.theta, rtol=1e-9)
    np.testing.assert_array_equal(warm.counts, plain.counts)


def test_records_count_as_the_effective_sample_and_no_more():
    x, a, r = records()
    policy = LinUCB(3, 4, rng=0, **TEXTBOOK)
    warm_start(policy, x, a, r, effective=20.0)
    for arm in range(3):
        own = x[a == arm]
        gram = own.T @ own * (20.0 / len(own))
        np.testing.assert_allclose(policy.precision(arm), 0.5 * np.eye(4) + gram, rtol=1e-12)
        moment = r[a == arm] @ own * (20.0 / len(own))
        np.testing.assert_allclose(
            policy.theta[arm], np.linalg.solve(0.5 * np.eye(4) + gram, moment), rtol=1e-9
        )
    few = LinUCB(3, 4, rng=0, **TEXTBOOK)
    warm_start(few, x[:30], a[:30], r[:30], effective=1e9)  # never blown up
    np.testing.assert_array_equal(few.counts, np.bincount(a[:30], minlength=3))


def test_an_automatic_policy_goes_on_from_a_warm_start():
    rng = np.random.default_rng(1)
    theta, x = rng.standard_normal((3, 4)), rng.standard_normal((3000, 4))
    a = rng.integers(3, size=3000)
    r = (x * theta[a]).sum(axis=1) + 0.1 * rng.standard_normal(3000)
    policy = LinUCB(3, 4, rng=0)
    warm_start(policy, x, a, r, effective=300.0)
    policy.refresh()
    # The noise is estimated from scaled records too: 900 rewards' worth, and four that are taken to be all noise.
    assert policy.sigma**2 == pytest.approx(0.1**2 + 4.0 * np.mean(r**2) / 900.0, rel=0.05)
    chosen = policy.select_batch(x[:200])[0]
    assert np.mean(chosen == (x[:200] @ theta.T).argmax(axis=1)) > 0.95


def test_preference_prior_is_the_formula():
    means, trust = np.random.default_rng(2).standard_normal((3, 4)), np.array([0.5, 0.8, 1.0])
    policy = LinUCB(3, 4, rng=0, **TEXTBOOK)
    preference_prior(policy, means, trust)
    for arm in range(3):
        np.testing.assert_allclose(policy.precision(arm), (0.5 + 1.0 / trust[arm]) * np.eye(4))
        np.testing.assert_allclose(policy.moment[arm], means[arm] / trust[arm])
    np.testing.assert_array_equal(policy.counts, 0)
    for _ in range(200):
        policy.update(0, [1.0, 0.0, 0.0, 0.0], 0.3)
    assert abs(policy.theta[0, 0] - 0.3) < 0.02 * max(1.0, abs(means[0, 0]))


def test_a_phase_without_context_becomes_the_intercept():
    rng = np.random.default_rng(3)
    first, policy, plain = UCB1(3, 4, rng=0), LinUCB(3, 4, rng=0, **TEXTBOOK), LinUCB(3, 4, rng=0, **TEXTBOOK)
    constant = np.array([0.0, 0.0, 0.0, 1.0])
    for _ in range(200):
        arm, r = int(rng.integers(2)), rng.random()
        first.update(arm, constant, r)
        plain.update(arm, constant, r)
    from_averages(policy, first.counts, first.scores(constant).mean)
    np.testing.assert_allclose(policy.scores(constant), plain.scores(constant), rtol=1e-9)
    assert policy.scores(constant).width[2] == pytest.approx(0.5**-0.5)


@pytest.mark.parametrize("make", [LinUCB, HybridLinUCB, UCB1])
def test_quiz_asks_what_tells_most_and_learns_the_answers(make):
    rng = np.random.default_rng(4)
    rows = np.repeat(np.eye(4), 50, axis=0) + 0.01 * rng.standard_normal((200, 4))
    theta = rng.random(4)
    policy, twin = make(2, 4, rng=0), make(2, 4, rng=0)
    asked = quiz(policy, "new", rows, lambda i: float(rows[i] @ theta), questions=12)
    assert len(set(asked)) == 12
    assert np.bincount(np.array(asked) // 50, minlength=4).tolist() == [3, 3, 3, 3]
    twin.add_arm("new")
    for i in asked:
        twin.update("new", rows[i], float(rows[i] @ theta))
    np.testing.assert_allclose(policy.scores(rows[0]), twin.scores(rows[0]), rtol=1e-9)


def test_what_cannot_be_learned_changes_nothing():
    x, a, r = records(20)
    policy = LinUCB(3, 4, rng=0, **TEXTBOOK)
    before = state(policy)

    def sulk(i):
        raise RuntimeError("no answer")

    calls = [
        (warm_start, (x, a + 1, r), UnknownArm),
        (warm_start, (x[:, :3], a, r), ValueError),
        (preference_prior, (np.zeros((2, 4)), [1.0, 1.0]), ValueError),
        (preference_prior, (np.zeros((3, 4)), [1.0, 0.0, 1.0]), ValueError),
        (from_averages, ([1.0, -1.0, 0.0], [0.0, 0.0, 0.0]), ValueError),
        (quiz, ("new", x, sulk), RuntimeError),
        (quiz, ("new", x, lambda i: float("nan")), ValueError),
    ]
    for call, arguments, error in calls:
        with pytest.raises(error):
            call(policy, *arguments)
        assert state(policy) == before
    with pytest.raises(ValueError, match="effective"):
        warm_start(policy, x, a, r, effective=0.0)
    with pytest.raises(ValueError, match="diagonal"):
        warm_start(DiagLinUCB(3, 4, rng=0), x, a, r)


@pytest.mark.parametrize("policy", [UCB1(3, 4), HybridLinUCB(3, 4), Restarting(LinUCB(3, 4))])
def test_what_is_not_linear_is_refused_by_name(policy):
    x, a, r = records(20)
    for call in (
        lambda: warm_start(policy, x, a, r),
        lambda: from_averages(policy, np.ones(3), np.ones(3)),
        lambda: preference_prior(policy, np.ones((3, 4)), np.ones(3)),
    ):
        with pytest.raises(TypeError, match=f"policy must be a LinearPolicy, .* got {type(policy).__name__}"):
            call()


def test_a_quiz_whose_answers_the_policy_refuses_adds_no_arm():
    policy = BetaThompson(["old"], 4)
    with pytest.raises(ValueError, match=r"reward must be in \[0, 1\]"):
        quiz(policy, "new", records(20)[0], lambda i: 3.0)
    assert policy.arms == ("old",)
