"""The floor on the mean is held at less cost; the threshold rule is what it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banditroute import LinUCB, Router
from banditroute.policies import Scores
from banditroute.terms import QualityFloor, cheapest_above

COSTS = np.array([1.0, 4.0, 30.0])
SKILL = np.array([[0.4, 0.2], [0.6, -0.1], [0.85, 0.0]])


def served(floor, length=8000, seed=0):
    rng = np.random.default_rng(seed)
    policy = LinUCB(3, 2, rng=seed)
    rewards, arms = np.empty(length), np.empty(length, dtype=int)
    for t in range(length):
        x = np.array([1.0, rng.uniform(-1, 1)])
        arm = arms[t] = policy.select(x, prices=floor.prices()).arm
        rewards[t] = rng.random() < SKILL[arm] @ x
        policy.update(int(arm), x, rewards[t])
        floor.report(rewards[t])
    return rewards, arms


@pytest.mark.parametrize(("target", "fixed"), [(0.5, 4.0), (0.7, 30.0), (0.8, 30.0)])
def test_the_floor_is_met_below_the_cost_of_the_cheapest_fixed_arm(target, fixed):
    # 4,000 measured 0/1 rewards, seed fixed. By construction the mean misses by log(price / start) / (rate n) at most,
    # here log(1e4) / (0.05 * 4000) = 0.046; what is seen is far less because the price hardly moves any more.
    rewards, arms = served(QualityFloor(target, COSTS))
    assert rewards[4000:].mean() > target - 0.01
    assert COSTS[arms[4000:]].mean() < fixed


def test_the_mean_misses_by_the_move_of_the_price_exactly_while_it_is_not_clipped():
    floor, rng = QualityFloor(0.6, COSTS, price=0.01), np.random.default_rng(0)
    rewards = rng.random(50) * 0.2 + 0.5
    for reward in rewards:
        floor.report(reward)
    assert np.log(floor.price / 0.01) == pytest.approx(0.05 * (rewards - 0.6).sum())


def test_an_unreachable_floor_ends_with_quality_only():
    _, arms = served(QualityFloor(0.99, COSTS), length=3000)
    assert (arms[2000:] == 2).mean() > 0.95


def test_equal_costs_change_nothing():
    floor, policy = QualityFloor(0.5, [3.0, 3.0, 3.0]), LinUCB(3, 2, rng=0)
    policy.update(1, [1.0, 0.0], 0.4)
    for x in np.random.default_rng(0).normal(size=(20, 2)):
        assert np.array_equal(policy.propensities(x), policy.propensities(x, prices=floor.prices()))


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=6),
    st.floats(-1, 1),
    st.sampled_from([-1.0, 0.0, 1.0]),
)
def test_the_threshold_rule_is_the_sentence(arms, target, width):
    mean, std, costs = (np.array(column, dtype=float) for column in zip(*arms, strict=True))
    chosen = set(np.flatnonzero(cheapest_above(Scores(mean, std), target, costs, width=width)).tolist())
    bounds = [m + width * s for m, s in zip(mean, std, strict=True)]
    good = [i for i, bound in enumerate(bounds) if bound >= target]
    if good:
        assert chosen == {i for i in good if costs[i] == min(costs[j] for j in good)}
    else:
        assert chosen == {i for i, bound in enumerate(bounds) if bound == max(bounds)}


def test_bad_numbers_are_refused_and_change_nothing():
    for costs in ([], [0.0, 1.0], [-1.0], [np.nan]):
        with pytest.raises(ValueError, match="costs"):
            QualityFloor(0.5, costs)
    floor = QualityFloor(0.5, COSTS)
    with pytest.raises(ValueError, match="reward"):
        floor.report(np.nan)
    assert floor.price == 0.01


def test_a_router_reports_the_rewards_and_arms_come_and_go():
    floor = QualityFloor(0.6, [1.0, 20.0])
    router = Router(LinUCB(["small", "large"], 1, rng=0), terms=[floor])
    rng, rewards = np.random.default_rng(0), []
    for _ in range(3000):
        decision = router.select([1.0])
        rewards.append(float(rng.random() < {"small": 0.5, "large": 0.9}[decision.arm]))
        router.update(decision.id, rewards[-1])
    assert abs(np.mean(rewards[1000:]) - 0.6) < 0.03
    before = floor.price
    router.cancel(router.select([1.0]).id)
    assert floor.price == before
    floor.report(0.0)  # measured elsewhere
    assert floor.price < before
    router.add_arm("middle")
    assert floor.costs.tolist() == [1.0, 20.0, 10.5]
    floor.set_cost("middle", 4.0)
    router.remove_arm("large")
    assert floor.costs.tolist() == [1.0, 4.0]
