"""Confidence sequences against their definition in a loop, against streams with nothing in them, and as evaluation."""

import numpy as np
import pytest

from banditroute import Trace
from banditroute.evaluation import ConfidenceSequence, running


def slow(values, error):
    """The bound after each value, value by value."""
    total, spread, bets, sums, best, out = 0.5, 0.25, 0.0, 0.0, 0.0, []
    evidence = np.log(1.0 / error)
    for n, x in enumerate(values):
        forecast = min(total / (n + 1), 1.0)
        bet = min(np.sqrt(2 * evidence / (spread / (n + 1) * (n + 1) * np.log(n + 2))), 0.5)
        # The spread that bets rest on is of the values before, about their forecasts.
        sums += bet * x - (x - forecast) ** 2 * (-np.log(1 - bet) - bet)
        bets, total, spread = bets + bet, total + x, spread + (x - forecast) ** 2
        best = max(best, (sums - evidence) / bets)
        out.append(best)
    return np.array(out)


def test_the_bound_is_its_definition_however_it_is_fed():
    values = np.random.default_rng(0).exponential(0.4, 500)
    whole = ConfidenceSequence(0.025).add(values)
    np.testing.assert_allclose(whole, slow(values, 0.025), rtol=1e-9, atol=1e-12)
    parts = ConfidenceSequence(0.025)
    pieces = [parts.add(values[a:b]) for a, b in [(0, 1), (1, 1), (1, 300), (300, 500)]]
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=1e-9, atol=1e-12)
    assert parts.low == pytest.approx(whole[-1])


def streams(count, rows, seed):
    """Weights and rewards of logs of a rule whose propensities go down to .02; the value of arm 1 is .3."""
    rng = np.random.default_rng(seed)
    p = np.where(rng.random((count, rows)) < 0.5, 0.02, 0.5)
    played = rng.random((count, rows)) < p
    return played / p, (rng.random((count, rows)) < 0.3) * 1.0


def test_intervals_hold_at_every_look():
    """200 streams, 2,000 looks: 95 % must hold throughout; 20 or more misses of 200 have a chance below .3 %."""
    weights, rewards = streams(200, 2000, 0)
    missed = 0
    for w, r in zip(weights, rewards, strict=True):
        low, high = ConfidenceSequence(0.025).add(w * r), 1.0 - ConfidenceSequence(0.025).add(w * (1.0 - r))
        missed += bool((low > 0.3).any() or (high < 0.3).any())
    assert missed < 20


def log(rows=3000, seed=0, span=(0.0, 1.0)):
    rng = np.random.default_rng(seed)
    arms = rng.integers(2, size=rows)
    rewards = (rng.random(rows) < np.where(arms == 1, 0.7, 0.4)) * (span[1] - span[0]) + span[0]
    return Trace(names=["a", "b"], arms=arms, rewards=rewards, propensities=np.full(rows, 0.5))


def test_running_values_close_in_on_the_truth_and_tell_rules_apart():
    trace = log()
    for target, truth in (("a", 0.4), ("b", 0.7)):
        found = running(trace, target)
        assert found.low[-1] < truth < found.high[-1] < found.low[-1] + 0.25
        assert (np.diff(found.low) >= 0).all() and (np.diff(found.high) <= 0).all()
    gap = running(trace, "b", "a")
    assert 0.0 < gap.low[-1] < 0.3 < gap.high[-1]
    assert gap.value[-1] == pytest.approx(running(trace, "b").value[-1] - running(trace, "a").value[-1])
    money = running(log(span=(-50.0, 150.0)), "b", reward_range=(-50.0, 150.0))
    np.testing.assert_allclose(money.low, 200.0 * running(trace, "b").low - 50.0)
    assert running(trace, "b", "a").high[0] <= 1.0


def test_what_cannot_be_followed_is_refused():
    with pytest.raises(ValueError, match=r"rewards must be in reward_range \[0, 0\.5\], got 0 \.\. 1"):
        running(log(), "a", reward_range=(0.0, 0.5))
    with pytest.raises(ValueError, match="low < high"):
        running(log(), "a", reward_range=(1.0, 0.0))
    with pytest.raises(ValueError, match="values must be finite and >= 0"):
        ConfidenceSequence(0.05).add(np.array([-1.0]))
    with pytest.raises(ValueError, match="error must be in"):
        ConfidenceSequence(0.0)
