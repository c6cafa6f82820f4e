"""A constant that the policy adds is one that the caller sent, to the last bit."""

import numpy as np
import pytest

from banditroute import LinTS, LinUCB, Router
from banditroute.features import HashedText
from banditroute.policies import DiagLinUCB, EpsilonGreedy, Restarting, SlidingWindow
from banditroute.policies.warm_starts import from_averages, preference_prior, warm_start
from banditroute.simulation import Stream, simulate

KINDS = (LinUCB, LinTS, DiagLinUCB, EpsilonGreedy)


def pair(kind, dim, **options):
    return kind(4, dim, intercept=True, rng=1, **options), kind(4, dim + 1, rng=1, **options)


def problem(dim, requests, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((requests, dim))
    means = np.column_stack([rows, np.ones(requests)]) @ rng.standard_normal((dim + 1, 4))
    return rows, means + 0.1 * rng.standard_normal((requests, 4))


def sent(rows):
    return np.column_stack([rows, np.ones(len(rows))])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 7, 8, 12])
def test_one_by_one_and_in_batches(kind, dim):
    ours, theirs = pair(kind, dim)
    rows, rewards = problem(dim, 400)
    for x, z, given in zip(rows, sent(rows), rewards, strict=True):
        one, two = ours.select(x), theirs.select(z)
        assert one.arm == two.arm
        np.testing.assert_equal(one.propensity, two.propensity)
        ours.update(one.arm, x, given[one.arm])
        theirs.update(two.arm, z, given[two.arm])
    np.testing.assert_array_equal(ours.theta, theirs.theta)
    np.testing.assert_array_equal(ours.cov(2), theirs.cov(2))
    np.testing.assert_array_equal(ours.scores_batch(rows), theirs.scores_batch(sent(rows)))
    np.testing.assert_array_equal(ours.utilities(rows), theirs.utilities(sent(rows)))
    np.testing.assert_array_equal(ours.propensities(rows[0]), theirs.propensities(sent(rows)[0]))
    np.testing.assert_array_equal(ours.select_batch(rows)[0], theirs.select_batch(sent(rows))[0])
    *_, frozen = ours.freeze()
    np.testing.assert_array_equal(frozen(rows), ours.utilities(rows))
    chosen = np.arange(400) % 4
    for policy, contexts in ((ours, rows), (theirs, sent(rows))):
        policy.update_batch(contexts, chosen, rewards[np.arange(400), chosen])
    np.testing.assert_allclose(ours.theta, theirs.theta, atol=1e-9)
    assert ours.theta.shape == (4, dim + 1) and ours.dim == dim


def test_it_is_simulated_alike():
    rows, rewards = problem(8, 2000)
    names = tuple("abcd")
    runs = [
        simulate(LinUCB(names, 8, intercept=True, rng=0), Stream(rows, rewards, rewards, names)),
        simulate(LinUCB(names, 9, rng=0), Stream(sent(rows), rewards, rewards, names)),
    ]
    np.testing.assert_array_equal(runs[0].arms, runs[1].arms)


@pytest.mark.parametrize("wrapped", [Restarting, lambda base: SlidingWindow(base, 100)])
def test_wrappers_take_it(wrapped):
    ours, theirs = (wrapped(policy) for policy in pair(LinUCB, 3))
    rows, rewards = problem(3, 300)
    for x, z, given in zip(rows, sent(rows), rewards, strict=True):
        arm = ours.select(x).arm
        assert arm == theirs.select(z).arm
        ours.update(arm, x, given[arm])
        theirs.update(arm, z, given[arm])
    np.testing.assert_array_equal(ours.scores(rows[0]), theirs.scores(sent(rows)[0]))


def test_warm_starts_know_its_coefficient():
    rows, rewards = problem(3, 200)
    made = []
    for policy, contexts in zip(pair(LinUCB, 3, ridge=1.0, prior=None), (rows, sent(rows)), strict=True):
        warm_start(policy, contexts, np.zeros(200, dtype=int), rewards[:, 0], effective=50.0)
        from_averages(policy, [9, 0, 9, 0], [0.5, 0.0, 0.1, 0.0])
        preference_prior(policy, np.ones((4, 4)), np.ones(4))
        made.append(policy)
    np.testing.assert_array_equal(made[0].theta, made[1].theta)


def test_it_comes_back_from_a_state_and_from_evidence():
    ours, theirs = pair(LinUCB, 3)
    rows, rewards = problem(3, 100)
    ours.update_batch(rows, np.zeros(100, dtype=int), rewards[:, 0])
    copied = LinUCB(4, 3, intercept=True, rng=5)
    copied.load_state(*ours.to_state())
    np.testing.assert_array_equal(copied.theta, ours.theta)
    own = LinUCB(4, 3, intercept=True, ridge=2.0, rng=5)
    own.load_state(*ours.to_state(), settings="own")
    np.testing.assert_allclose(own.moment, ours.moment)
    evidence = ours.empty_evidence()
    for x, r in zip(rows, rewards[:, 0], strict=True):
        evidence = ours.credit(evidence, x, r)
    fresh = LinUCB(4, 3, intercept=True, rng=5)
    fresh.set_evidence("0", evidence)
    np.testing.assert_allclose(fresh.moment, ours.moment)
    np.testing.assert_allclose(fresh.precision(0) - np.diag(fresh.ridges[0]), sent(rows).T @ sent(rows))
    assert ours.fingerprint() != theirs.fingerprint()


def test_a_state_without_it_is_another():
    ours, theirs = pair(LinUCB, 3)
    before = theirs.to_state()
    with pytest.raises(ValueError, match="state must be of"):
        theirs.load_state(*ours.to_state())
    header, arrays = ours.to_state()
    with pytest.raises(ValueError, match="intercept must be False in the state too, got True"):
        theirs.load_state(header | {"dim": 4}, arrays)
    np.testing.assert_array_equal(theirs.to_state()[1]["header"], before[1]["header"])
    for claimed in (0.5, 2.0, -1.0):
        arrays["header"][58] = claimed
        with pytest.raises(ValueError, match="whether the last"):
            LinUCB(4, 3, intercept=True).load_state(header, arrays)


@pytest.mark.parametrize("given", [1, 0.0, "yes", None])
def test_it_is_true_or_false(given):
    with pytest.raises(TypeError, match="intercept must be True or False, got"):
        LinUCB(2, 2, intercept=given)


def test_contexts_keep_their_length_and_their_limit():
    policy = LinUCB(2, 2, intercept=True, max_norm=1.0, rng=0)
    policy.select([1.0, 0.0])  # the constant does not count
    with pytest.raises(ValueError, match=r"x must have shape \(2,\), got \(3,\)"):
        policy.select([1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match=r"means of shape \(2, 3\)"):
        LinUCB(2, 2, intercept=True, prior="means")
    np.testing.assert_array_equal(LinUCB(2, 2, intercept=True, prior=np.ones((2, 3))).theta, 1.0)


def test_without_a_constant_in_the_contexts_it_finds_the_better_arm():
    """Arms that differ in their level alone, contexts around zero: no linear function of those tells them apart."""
    rng = np.random.default_rng(0)
    router = Router(LinUCB(["good", "bad"], 4, intercept=True, rng=0))
    served = []
    for _ in range(300):
        decision = router.select(rng.standard_normal(4))
        router.update(decision.id, reward=0.8 if decision.arm == "good" else 0.2)
        served.append(decision.arm)
    assert served[-100:].count("good") == 100


def test_features_need_not_have_one():
    features = HashedText(16)
    router = Router(LinUCB(["a", "b"], features.dim, intercept=True, rng=0), features=features)
    decision = router.select("how long is a piece of string")
    router.update(decision.id, reward=1.0)
    assert router.policy.counts.sum() == 1
