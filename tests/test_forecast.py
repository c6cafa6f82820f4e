"""Forecasts: what was expected of each row before its reward was seen."""

import numpy as np
import pytest

from banditroute import LinUCB, Trace
from banditroute.evaluation import expected_rewards, forecasts


def log(rows=600, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.standard_normal((rows, 2)), np.ones(rows)])
    arms = rng.integers(2, size=rows)
    theta = np.array([[1.0, 0.0, 0.2], [0.0, -1.0, 0.4]])
    rewards = (x * theta[arms]).sum(axis=1) + noise * rng.standard_normal(rows)
    return Trace(names=["a", "b"], arms=arms, rewards=rewards, contexts=x)


def test_each_row_is_forecast_from_the_rows_before_it_only():
    trace = log(60)
    found = forecasts(trace, LinUCB(["a", "b"], 3, prior=None, ridge=1.0))
    for t in (0, 1, 17, 59):
        own = trace.arms[:t] == trace.arms[t]
        seen, came = trace.contexts[:t][own], trace.rewards[:t][own]
        precision = np.eye(3) + seen.T @ seen
        x = trace.contexts[t]
        assert found.means[t] == pytest.approx(x @ np.linalg.solve(precision, seen.T @ came), abs=1e-9)
        assert found.widths[t] == pytest.approx(np.sqrt(x @ np.linalg.solve(precision, x)), abs=1e-9)


def test_errors_find_the_noise_and_intervals_hold_what_they_say():
    """Noise 0.3, n = 4,000: the estimate has standard error 0.0034, coverage of 95 % has 0.0035; seed 0, 4 s.e."""
    found = forecasts(log(4000), LinUCB(["a", "b"], 3, rng=0))
    assert np.isnan(found.errors[:20]).all() and np.isfinite(found.errors[20:]).all()
    assert found.errors[-1] == pytest.approx(0.3, abs=0.014)
    inside = np.abs(found.rewards - found.means)[20:] <= 1.96 * found.errors[20:]
    assert inside.mean() == pytest.approx(0.95, abs=0.014)


def test_rows_without_a_reward_are_passed_over():
    trace = log(50)
    rewards = trace.rewards.copy()
    rewards[::5] = np.nan
    holes = Trace(names=trace.names, arms=trace.arms, rewards=rewards, contexts=trace.contexts)
    assert len(forecasts(holes, LinUCB(["a", "b"], 3)).means) == 40


def test_discounting_policies_are_told_the_time():
    trace = log(400)
    steady, forgetful = (forecasts(trace, LinUCB(["a", "b"], 3, discount=d, rng=0)) for d in (1.0, 0.98))
    assert forgetful.widths[-100:].mean() > 1.5 * steady.widths[-100:].mean()


@pytest.mark.parametrize(
    ("trace", "policy", "reason"),
    [
        (Trace(names=["a"], arms=[0], rewards=[1.0]), LinUCB(["a"], 2), "trace must hold contexts"),
        (log(30), LinUCB(["a", "c"], 3), "policy must have the arms of the trace"),
        (log(30), LinUCB(["a", "b"], 2), "policy must have dim 3"),
    ],
)
def test_what_does_not_fit_is_refused(trace, policy, reason):
    with pytest.raises(ValueError, match=reason):
        forecasts(trace, policy)


def test_expected_rewards_of_a_row_come_from_the_other_folds():
    trace = log(300)
    whole = expected_rewards(trace)
    rewards = trace.rewards.copy()
    rewards[::5] += 100.0  # fold 0
    moved = expected_rewards(
        Trace(names=trace.names, arms=trace.arms, rewards=rewards, contexts=trace.contexts)
    )
    assert np.array_equal(moved[::5], whole[::5])
    assert np.abs(moved[1::5] - whole[1::5]).min() > 1.0


def test_expected_rewards_find_the_better_arm():
    """2,000 rows of noise 0.3 on two linear arms: the sign of the difference is right on all but rows close to a tie."""
    trace = log(2000)
    x = trace.contexts
    truth = np.column_stack([x[:, 0] + 0.2, -x[:, 1] + 0.4])
    found = expected_rewards(trace)
    apart = np.abs(truth[:, 0] - truth[:, 1]) > 0.15
    assert (found.argmax(axis=1) == truth.argmax(axis=1))[apart].all()
    with pytest.raises(ValueError, match="trace must hold contexts"):
        expected_rewards(Trace(names=["a"], arms=[0], rewards=[1.0]))
