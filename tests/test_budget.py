"""The pacer holds the ceiling whatever the costs, and is the plain policy without one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import data_file

from banditroute import LinUCB
from banditroute.records import Feedback, Request
from banditroute.terms import BudgetPacer, knapsack

COSTS = np.array([0.1, 1.0, 8.0])
SKILL = np.array([[0.5, 0.1], [0.7, -0.1], [0.9, 0.2]])


def served(pacer, length=4000, seed=0, delay=0, noise=0.0):
    """Route a stream under the pacer; returns arms, rewards and costs. Costs come back `delay` requests late."""
    rng = np.random.default_rng(seed)
    policy = LinUCB(3, 2, rng=seed)
    contexts = np.column_stack([np.ones(length), rng.normal(size=length)])
    errors = 0.1 * rng.normal(size=length)
    factors = np.exp(noise * rng.normal(size=length) - noise**2 / 2)
    arms, due = [], []
    for x, factor, error in zip(contexts, factors, errors, strict=True):
        arm = policy.select(x, prices=pacer.prices(), eligible=pacer.eligible()).arm
        arms.append(arm)
        due.append((arm, COSTS[arm] * factor, pacer.reserve(arm), x, error))
        if len(due) > delay:
            chosen, cost, held, at, off = due.pop(0)
            pacer.settle(chosen, cost, held)
            policy.update(chosen, at, float(SKILL[chosen] @ at) + off)
    for chosen, cost, held, *_ in due:
        pacer.settle(chosen, cost, held)
    chosen = np.array(arms)
    return chosen, SKILL[chosen, 0] + SKILL[chosen, 1] * contexts[:, 1], COSTS[chosen] * factors


@pytest.mark.parametrize("budget", [0.2, 0.6, 2.0, 6.0])
@pytest.mark.parametrize("delay", [0, 200])
def test_the_ceiling_holds_at_every_request_and_the_money_is_used(budget, delay):
    pacer = BudgetPacer(budget, COSTS, burst=20.0)
    _, _, costs = served(pacer, delay=delay)
    total = np.cumsum(costs)
    # Costs are known here, so what is reserved is what is spent: the promise has no slack.
    assert (total <= budget * (np.arange(1, len(costs) + 1) + 20.0) + 1e-9).all()
    assert costs[2000:].sum() > 0.85 * budget * 2000
    assert pacer.spent == pytest.approx(total[-1])
    assert pacer.requests == len(costs)


def test_costs_that_scatter_stay_within_two_percent():
    for seed in range(3):  # log-normal costs, n = 6,000, fixed seeds; nothing is random
        pacer = BudgetPacer(1.0, COSTS)
        _, _, costs = served(pacer, length=6000, seed=seed, noise=0.5)
        assert costs.sum() <= 1.02 * len(costs)


def test_the_reward_is_that_of_the_best_mixture_or_better():
    _, rewards, costs = served(BudgetPacer(2.0, COSTS), length=8000)
    half = costs[4000:].mean()
    mixture = np.interp(half, COSTS, [0.5, 0.7, 0.9])  # concave: neighbours mix best
    assert rewards[4000:].mean() > mixture - 0.005


def test_recorded_models_under_a_ceiling_beat_the_best_fixed_mixture():
    try:
        path = data_file("pareto4.npz")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with np.load(path, allow_pickle=False) as file:
        contexts = np.column_stack([file["minilm_pca64"][:, :16].astype(float), np.ones(len(file["split"]))])
        rewards, costs = file["rewards"].astype(float), file["cost_usd"].astype(float)
    budget, n = 3e-4, 12_000  # llama at $2.9e-5 and mistral at $5.0e-4 mix best; seed fixed
    policy, pacer = LinUCB(4, 17, rng=0), BudgetPacer(budget, costs.mean(axis=0))
    rows, arms = np.random.default_rng(0).integers(len(contexts), size=n), np.empty(n, dtype=int)
    for t, row in enumerate(rows):
        arm = policy.select(contexts[row], prices=pacer.prices(), eligible=pacer.eligible()).arm
        held = pacer.reserve(arm)
        policy.update(arm, contexts[row], float(rewards[row, arm]))
        pacer.settle(arm, float(costs[row, arm]), held)
        arms[t] = arm
    paid, got = costs[rows, arms], rewards[rows, arms]
    assert paid.sum() <= 1.02 * budget * n
    mixed = np.interp(paid[n // 2 :].mean(), costs.mean(axis=0)[:2], rewards.mean(axis=0)[:2])
    assert got[n // 2 :].mean() > mixed - 0.005


def test_an_infinite_budget_is_the_plain_policy():
    pacer, plain, paced = BudgetPacer(np.inf, COSTS), LinUCB(3, 2, rng=0), LinUCB(3, 2, rng=0)
    rng = np.random.default_rng(1)
    for x in rng.normal(size=(500, 2)):
        one = plain.select(x)
        two = paced.select(x, prices=pacer.prices(), eligible=pacer.eligible())
        assert one == two
        held = pacer.reserve(two.arm)
        pacer.settle(two.arm, COSTS[two.arm], held)
        reward = float(SKILL[one.arm] @ x)
        plain.update(one.arm, x, reward)
        paced.update(two.arm, x, reward)
    assert np.array_equal(plain.theta, paced.theta)


def test_an_equal_cost_of_all_arms_changes_nothing_while_there_is_money():
    pacer, policy = BudgetPacer(1.0, [1.0, 1.0, 1.0]), LinUCB(3, 2, rng=0)
    for x in np.random.default_rng(2).normal(size=(100, 2)):
        plain = policy.propensities(x)
        assert np.array_equal(plain, policy.propensities(x, prices=pacer.prices(), eligible=pacer.eligible()))
        arm = int(plain.argmax())
        policy.update(arm, x, float(SKILL[arm] @ x))
        pacer.settle(arm, 1.0, pacer.reserve(arm))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=60))
def test_the_price_stays_clipped_and_rises_with_spend(costs):
    pacer = BudgetPacer(1.0, COSTS)
    for cost in costs:
        before = pacer.price
        pacer.settle(0, cost, pacer.reserve(0))
        assert 1e-5 <= pacer.price <= 10.0
        assert pacer.price >= before or cost < 1.0
        assert pacer.eligible().any()


@pytest.mark.parametrize("budget", [0.3, 1.0, 3.0])
def test_every_phase_keeps_to_its_own_budget(budget):
    """Savings of a phase in which dear arms are bad are not spent in the next one, where they are good."""
    pacer, rng = BudgetPacer(budget, COSTS), np.random.default_rng(1)
    policy, paid, rewards = LinUCB(3, 1, discount=0.99, rng=0), [], []
    for t in range(3600):
        skill = [0.5, 0.7, 0.9] if (t // 600) % 2 else [0.9, 0.5, 0.4]
        arm = policy.select([1.0], prices=pacer.prices(), eligible=pacer.eligible()).arm
        held = pacer.reserve(arm)
        paid.append(COSTS[arm])
        rewards.append(skill[arm])
        policy.advance(t)
        policy.update(arm, [1.0], skill[arm] + 0.1 * rng.normal(), at=t)
        pacer.settle(arm, COSTS[arm], held)
    total = np.concatenate([[0.0], np.cumsum(paid)])
    in_phases = (
        total[600:] - total[:-600]
    )  # of any 600 requests in a row; the costs are known, so without slack
    assert in_phases.max() <= 1.05 * 600 * budget + COSTS.max() + 1e-9
    spent = np.reshape(paid, (6, 600)).sum(axis=1)
    assert (spent[3::2] > 0.7 * 600 * budget).all(), "phases that can use the money do"


def test_savings_are_forfeited_beyond_the_burst_or_the_dearest_request():
    pacer = BudgetPacer(1.0, [0.0, 50.0], burst=9.0)
    for _ in range(500):
        pacer.settle(0, 0.0, pacer.reserve(0))
    assert pacer.left == 50.0
    assert pacer.eligible().all()
    assert BudgetPacer(1.0, [0.0, 5.0], burst=9.0).left == 10.0


def test_a_request_that_came_to_nothing_counts_as_never_made():
    pacer = BudgetPacer(1.0, COSTS)
    for arm in (0, 1, 1):
        pacer.settle(arm, COSTS[arm], pacer.reserve(arm))
    before = (pacer.left, pacer.spent, pacer.requests, pacer.price)
    for _ in range(50):
        pacer.release(2, pacer.reserve(2))
    assert (pacer.left, pacer.spent, pacer.requests, pacer.price) == pytest.approx(before)


def test_a_cost_that_nobody_reported_is_the_expected_one():
    pacer, x = BudgetPacer(1.0, [0.1, 2.0]), np.ones(1)
    told = Feedback(7, "1", Request(x, 0), 0.5)
    pacer.settle(1, pacer.reserve(1), told)
    assert (pacer.spent, pacer.reserved) == (2.0, 0.0)
    pacer.settle(1, pacer.reserve(1), told._replace(cost=3.0))
    assert pacer.spent == 5.0
    assert pacer.costs() == pytest.approx([0.1, 2.5])  # the cost that was only assumed is no observation


def test_a_new_arm_costs_the_median_until_it_has_been_paid_or_set():
    pacer = BudgetPacer(1.0, [0.1, 1.0, 8.0])
    pacer.add_arm("new")
    assert pacer.costs()[3] == 1.0
    pacer.settle("new", 5.0, pacer.reserve("new"))
    assert pacer.costs()[3] == 5.0
    pacer.set_cost("new", 2.0)
    assert pacer.costs()[3] == 2.0
    pacer.remove_arm("1")
    assert pacer.costs() == pytest.approx([0.1, 8.0, 2.0])
    pacer.add_arm("known", 0.5)
    assert pacer.costs()[3] == 0.5


def test_a_state_goes_on_under_another_budget():
    pacer = BudgetPacer(1.0, COSTS)
    for _ in range(100):
        pacer.settle(0, 0.1, pacer.reserve(0))
    other = BudgetPacer(0.2, COSTS)
    other.load_state(*pacer.to_state())
    assert (other.spent, other.requests) == (pacer.spent, pacer.requests)
    assert 0.0 < other.left <= 8.0  # no debt and no fortune from the old budget
    free = BudgetPacer(np.inf, COSTS)
    free.load_state(*pacer.to_state())
    assert free.left == np.inf
    other.load_state(*free.to_state())
    assert other.left == pytest.approx(0.2 * 30)


def test_a_predicted_cost_is_asked_for_the_request():
    pacer = BudgetPacer(1.0, lambda x: [x[0], -1.0])
    assert pacer.prices([3.0]) == pytest.approx([0.06, 0.0])  # a negative prediction counts as free
    assert pacer.reserve(0, [3.0]) == 3.0
    assert pacer.left == 1.0 * (1 + 1 + 29) - 3.0


def test_expected_costs_follow_what_is_settled():
    pacer = BudgetPacer(1.0, [1.0, 2.0])
    for _ in range(99):
        pacer.settle(1, 4.0, pacer.reserve(1))
    assert pacer.costs() == pytest.approx([1.0, 3.98])


def test_bad_numbers_are_refused_and_change_nothing():
    for arguments in ((0.0, COSTS), (1.0, [-1.0]), (1.0, []), (1.0, [np.nan])):
        with pytest.raises(ValueError):
            BudgetPacer(*arguments)
    pacer = BudgetPacer(1.0, COSTS)
    held = pacer.reserve(1)
    for cost in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="cost"):
            pacer.settle(1, cost, held)
    assert (pacer.spent, pacer.left, pacer.price) == (
        0.0,
        30.0,
        0.02,
    )  # 30 at hand, one to come, one set aside


def test_the_knapsack_threshold_is_the_formula_and_keeps_its_bound():
    low, high = 0.5, 8.0
    for used in (0.0, 0.3, 1.0):
        ratio = (high * np.e / low) ** used * low / np.e
        assert knapsack([ratio * 1.001, ratio * 0.999], [1.0, 1.0], used, low=low, high=high).tolist() == [
            True,
            False,
        ]
    # Items of ratio low .. high in rising order, the hard case: within 1 + ln(high / low) of the optimum.
    budget, size = 1.0, 0.001
    ratios = np.sort(np.random.default_rng(0).uniform(low, high, 5000))
    spent = value = 0.0
    for ratio in ratios:
        mask = knapsack([0.0, ratio * size], [0.0, size], spent / budget, low=low, high=high)
        if mask[1] and spent + size <= budget:
            spent, value = spent + size, value + ratio * size
    best = ratios[-1000:].sum() * size
    assert best / (1 + np.log(high / low)) <= value <= best


def test_the_knapsack_leaves_the_cheapest_when_nothing_is_worth_it():
    assert knapsack([0.1, 0.2], [1.0, 2.0], 1.0, low=1.0, high=9.0).tolist() == [True, False]
    with pytest.raises(ValueError, match="used"):
        knapsack([0.1], [1.0], 1.5, low=1.0, high=9.0)
