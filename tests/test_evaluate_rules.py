"""What evaluation makes of odd columns, of policies that know the log, of names, pairs and missing propensities."""

from dataclasses import replace

import numpy as np
import pytest

from banditroute import LinUCB, Policy, Trace
from banditroute.evaluation import (
    ESTIMATORS,
    Difference,
    compare,
    difference,
    estimated_propensities,
    evaluate,
    replay,
)
from banditroute.evaluation.learned import cross_fitted_policy, started_afresh
from banditroute.policies import EMA, Restarting, Scores
from test_evaluate import NAMES, TRUTH, logged

WORDS = {
    "bytes and kilobits": (1e9, 8e-3),
    "seconds since 1970 and a copy": (1.7e9, 1.0),
    "one of 1e200": (1e200, 1.0),
}


@pytest.mark.parametrize("what", WORDS)
def test_columns_of_any_scale_and_copies_of_columns_do_no_harm(what):
    size, again = WORDS[what]
    rng = np.random.default_rng(0)
    u, arms = rng.normal(size=2000), rng.integers(2, size=2000)
    x = size * (1.0 + 0.1 * u)
    trace = Trace(
        names=["a", "b"], arms=arms, rewards=0.5 * arms + 0.1 * u, propensities=np.full(2000, 0.5),
        contexts=np.column_stack([x, again * x, u]),
    )  # fmt: skip
    found = evaluate(trace, "b")
    assert abs(found["dr"].value - 0.5) < 0.02 and abs(found["dm"].value - 0.5) < 0.02
    assert "column" in " ".join(found.notes)
    plain = replace(trace, contexts=None)
    for name in ("ips", "snips", "clipped"):
        assert found[name] == evaluate(plain, "b", estimators=ESTIMATORS)[name]


def test_a_target_that_agrees_with_no_row_is_refused_whatever_is_allowed():
    trace = Trace(names=["a", "b"], arms=[0, 1] * 20, rewards=[1.0, 0.0] * 20, propensities=[0.5] * 40)
    with pytest.raises(
        ValueError, match="never: the target must agree with some row of the log, got none of 40"
    ):
        compare(trace, {"never": np.array([1, 0] * 20), "a": "a"}, min_ess=0.0, estimators=["ips", "snips"])


def noise(seed):
    rng = np.random.default_rng(seed)
    x, arms, rewards = rng.normal(size=(400, 12)), rng.integers(0, 4, 400), (rng.random(400) < 0.5) * 1.0
    return Trace(names=list("abcd"), arms=arms, rewards=rewards, propensities=np.full(400, 0.25), contexts=x)


def test_a_policy_judged_on_its_own_log_is_cross_fitted_and_noise_is_no_skill():
    """Truth .5; of ten 95 % intervals two or more lie above with probability 2 % where they hold."""
    high, as_it_stands = 0, 0
    for seed in range(10):
        trace = noise(seed)
        policy = LinUCB(trace.names, 12, alpha=0.0, rng=0)
        policy.update_batch(trace.contexts, trace.arms, trace.rewards)
        found = evaluate(trace, policy)
        assert "learned from this log" in found.notes[0]
        high += found["dr"].low > 0.5
        biased = evaluate(trace, policy, cross_fit=False, estimators=["snips"])
        as_it_stands += biased["snips"].low > 0.5
        assert biased.notes == ()
    assert high <= 2 and as_it_stands >= 5


def test_a_policy_that_learned_elsewhere_is_taken_as_it_stands_with_a_word():
    trace = noise(0)
    policy = LinUCB(trace.names, 12, rng=0)
    policy.update_batch(trace.contexts[:100], trace.arms[:100], trace.rewards[:100])
    found = evaluate(trace, policy)
    assert found["dr"] == evaluate(trace, policy, cross_fit=False)["dr"]
    assert found.notes[0].startswith("The policy has learned 100 rewards. If rows of this log are among them")
    assert (
        "own" in evaluate(trace, policy, cross_fit=True).notes[0]
        or evaluate(trace, policy, cross_fit=True).notes
    )
    assert evaluate(trace, LinUCB(trace.names, 12, mix=0.5, rng=0)).notes == ()


def test_cross_fitting_a_policy_uses_the_other_folds_only():
    trace = noise(1)
    policy = LinUCB(trace.names, 12, alpha=0.1, ridge=1.0, prior=None, rng=0)
    policy.update_batch(trace.contexts, trace.arms, trace.rewards)
    before = policy.theta.copy()
    shares = cross_fitted_policy(policy, trace, 4)
    assert (policy.theta == before).all()
    for f in range(4):
        own = np.arange(400) % 4 == f
        fresh = LinUCB(trace.names, 12, alpha=0.1, ridge=1.0, prior=None, rng=0)
        fresh.update_batch(trace.contexts[~own], trace.arms[~own], trace.rewards[~own])
        assert (shares[own] == [fresh.propensities(x) for x in trace.contexts[own]]).all()
    assert started_afresh(policy).counts.sum() == 0


def test_arms_are_names_wherever_there_are_names():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    item = rng.integers(0, 12, 6000)
    names = sorted(str(i) for i in range(12))  # as text sorts them: 0, 1, 10, 11, 2 ...
    trace = Trace(
        names=names, arms=[names.index(str(i)) for i in item], rewards=(rng.random(6000) < item / 12) * 1.0,
        propensities=np.full(6000, 1 / 12),
    )  # fmt: skip
    shares = pandas.DataFrame(np.tile(np.eye(12)[2], (6000, 1)), columns=range(12))
    wanted = evaluate(trace, "2")["snips"]
    assert abs(wanted.value - 2 / 12) < 0.05
    series = pandas.Series({str(i): float(i == 2) for i in range(12)})
    by_row = [2, "2", np.int64(2), np.full(6000, 2), np.full(6000, "2")]
    for same in [*by_row, {"2": 1.0}, shares, series, shares[shares.columns[::-1]]]:
        assert evaluate(trace, same)["snips"] == wanted
    with pytest.raises(ValueError, match=r"target must have columns of .* got 'z'"):
        evaluate(trace, shares.rename(columns={2: "z"}))
    with pytest.raises(ValueError, match="got 'z'"):
        evaluate(trace, ["z"] * 6000)
    with pytest.raises(ValueError, match=r"target must be one of .* got 12"):
        evaluate(trace, 12)
    text, _ = logged(1, 300)
    assert evaluate(text, 1)["ips"] == evaluate(text, "b")["ips"]  # no name is a number: a position
    assert evaluate(text, ["b"] * 300)["ips"] == evaluate(text, "b")["ips"]


def test_a_policy_with_its_arms_in_another_order_is_matched_by_name():
    trace, _ = logged(9, 300)
    one, two = LinUCB(NAMES, 4, alpha=0.0, rng=0), LinUCB(NAMES[::-1], 4, alpha=0.0, rng=0)
    for policy in (one, two):
        policy.update("b", [1.0, 1.0, 0.0, 0.0], 1.0)
    assert evaluate(trace, one)["ips"] == evaluate(trace, two)["ips"]


def test_difference_is_that_of_the_values_and_narrower():
    trace, means = logged(2)
    best = means.argmax(axis=1)
    near = np.where(np.arange(len(best)) % 20 == 0, 0, best)
    for name in ("ips", "snips", "dr"):
        gap = difference(trace, best, near, estimator=name)
        one, two = (evaluate(trace, t)[name] for t in (best, near))
        assert gap.value == pytest.approx(one.value - two.value, abs=1e-12)
        assert gap.high - gap.low < 0.5 * (one.high - one.low)
    gap = difference(trace, best)
    assert gap.value == pytest.approx(evaluate(trace, best)["dr"].value - trace.rewards.mean())
    assert gap.settled and gap.rows_to_settle < len(trace)
    few = difference(trace[:100], near[:100], best[:100])
    assert not few.settled and "rows would settle it" in str(few)
    assert difference(trace, best, best).rows_to_settle is None


def test_propensities_that_nobody_logged_are_estimated_and_named_so():
    trace, means = logged(3, 4000, "soft")
    bare = replace(trace, propensities=None)
    with pytest.raises(ValueError, match="propensities must be in the trace"):
        evaluate(bare, "a")
    found = evaluate(bare, means.argmax(axis=1), propensities="estimated")
    assert found.notes[-1].startswith("The propensities are estimated from the log")
    assert found["ips"].low < TRUTH < found["ips"].high
    error = np.abs(estimated_propensities(bare).propensities - trace.propensities)
    assert error.mean() < 0.03
    with pytest.raises(ValueError, match="must be 'logged' or 'estimated'"):
        evaluate(bare, "a", propensities="guessed")


def test_replay_of_a_policy_that_knows_the_log_says_so():
    trace = noise(0)
    policy = LinUCB(trace.names, 12, rng=0)
    policy.update_batch(trace.contexts, trace.arms, trace.rewards)
    assert "this very log" in replay(trace, policy).notes[0]
    assert replay(trace, LinUCB(trace.names, 12, rng=0)).notes == ()
    with pytest.raises(ValueError, match="min_rows must be >= 2"):
        replay(trace, policy, min_rows=0)


class Softmax(Policy):
    """Tells nobody how much it has learned; its arms come and go where `cold` is written."""

    def __init__(self, arms, dim):
        super().__init__(arms, dim, rng=0)
        self.total = np.zeros((len(self.arms), dim))

    def scores(self, x):
        return Scores(self.total @ self.check_context(x), np.ones(len(self.arms)))

    def update(self, arm, x, reward, *, weight=1.0, at=None):
        self.total[self.index(arm)] += reward * np.asarray(x)


class Changing(Softmax):
    def resize(self, keep):
        self.total = np.array([np.zeros(self.dim) if a is None else self.total[a] for a in keep])


@pytest.mark.parametrize("kind", [EMA, Softmax, Changing, lambda arms, dim: Restarting(EMA(arms, dim))])
def test_a_policy_that_does_not_count_what_it_learned_is_taken_with_a_word(kind):
    trace = noise(0)
    policy = kind(trace.names, 12)
    assert evaluate(trace, policy).notes == ()
    policy.update_batch(trace.contexts, trace.arms, trace.rewards)
    for found in (evaluate(trace, policy), compare(trace, {"it": policy, "a": "a"})["it"]):
        assert (
            "does not tell how many rewards it has learned. If rows of this log are among" in found.notes[0]
        )
    assert evaluate(trace, policy, cross_fit=False).notes == ()


@pytest.mark.parametrize("value", [0.0, 1e-17, -1e-200, 5e-324])
def test_a_difference_of_rounding_is_settled_by_no_number_of_rows(value):
    found = Difference(value, 0.1, -0.2, 0.2, 300, ())
    assert found.rows_to_settle is None and "settle" not in str(found)
