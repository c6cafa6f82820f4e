"""Money in simulations: prices of costs, the frontier and its area, and models of others as policies."""

import numpy as np
import pytest

from banditroute import LinUCB
from banditroute.simulation import FittedPolicy, Frontier, Stream, frontier, hull, simulate


def priced(rows=600, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.random(rows), np.ones(rows)])
    means = np.column_stack([0.9 - 0.6 * x[:, 0], np.full(rows, 0.8)])
    costs = np.column_stack([np.full(rows, 0.1), rng.uniform(0.5, 1.5, rows)])
    return Stream(x, means, (rng.random((rows, 2)) < means) * 1.0, ("small", "large"), costs=costs)


def test_hull_is_the_best_mix_of_two_points():
    rng = np.random.default_rng(0)
    for _ in range(20):
        c, r = rng.random((2, 8))
        costs, rewards = hull(c, r)
        assert (np.diff(costs) > 0).all() and (np.diff(rewards) > 0).all()
        for budget in np.linspace(c.min(), c.max(), 7):
            best = max(r[c <= budget])
            for i in range(8):
                for j in range(8):
                    if c[i] <= budget < c[j]:
                        share = (budget - c[i]) / (c[j] - c[i])
                        best = max(best, (1 - share) * r[i] + share * r[j])
            assert np.interp(budget, costs, rewards) == pytest.approx(best)


def test_aiq_is_the_area_under_the_hull_over_its_width():
    found = Frontier({"a": (np.array([[0.2], [0.6]]), np.array([[1.0], [3.0]])),
                      "b": (np.array([[0.5]]), np.array([[2.0]]))}, np.array([1.0, 0.0]))  # fmt: skip
    assert found.span() == (1.0, 3.0)
    assert found.aiq("a") == pytest.approx(0.4)
    assert found.aiq("b") == pytest.approx(0.25)  # nothing below its cost of 2, .5 from there on
    assert np.isnan(found.at("b", 1.9)) and found.at("b", 9.0) == 0.5
    assert found.aiq("a", (3.0, 5.0)) == pytest.approx(0.6)
    with pytest.raises(ValueError, match="low < high"):
        found.aiq("a", (1.0, 1.0))


def test_dearer_money_buys_less():
    found = frontier(
        {"LinUCB": lambda s, seed: LinUCB(s.arms, s.dim, rng=seed)},
        lambda seed: priced(seed=seed),
        [0.0, 0.1, 5.0],
        range(2),
    )
    costs = [point.cost for point in found.points("LinUCB")]
    assert costs[0] > costs[1] > costs[2] and costs[2] < 0.15
    assert found.at("LinUCB", 0.5) >= found.points("LinUCB")[2].reward


def test_costs_are_learned_or_known():
    stream = priced()
    policy = LinUCB(stream.arms, 2, rng=0)
    known = simulate(policy, stream, cost_price=0.2, known_costs=True)
    each = np.arange(len(stream))
    late = each > 300  # where the large arm is dear on this very request it is not taken
    dear = late & (stream.costs[:, 1] > 1.3)
    cheap = late & (stream.costs[:, 1] < 0.7)
    assert known.arms[dear].mean() < known.arms[cheap].mean()
    plain = simulate(LinUCB(stream.arms, 2, rng=0), stream, engine="router")
    assert (
        simulate(LinUCB(stream.arms, 2, rng=0), stream, cost_price=0.0, engine="router").arms == plain.arms
    ).all()
    bare = Stream(stream.contexts, stream.means, stream.rewards, stream.arms)
    with pytest.raises(ValueError, match="must have costs with cost_price"):
        simulate(policy, bare, cost_price=1.0)
    with pytest.raises(ValueError, match="knows no costs"):
        simulate(policy, stream, cost_price=1.0, engine="compiled")
    with pytest.raises(ValueError, match="streams with costs"):
        frontier({}, lambda seed: bare, [0.0])
    with pytest.raises(ValueError, match="prices must be >= 0"):
        frontier({}, lambda seed: stream, [-1.0])


@pytest.mark.parametrize("members", [1, 5])
def test_models_of_scikit_learn_route(members):
    linear, trees = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("sklearn.tree")
    stream = priced(400)
    for model in (linear.LogisticRegression(), linear.Ridge(), trees.DecisionTreeClassifier(max_depth=2)):
        policy = FittedPolicy(stream.arms, 2, model, refit=50, epsilon=0.1, members=members, rng=0)
        run = simulate(policy, stream)
        earned = stream.means[np.arange(400), run.arms]
        assert earned[200:].mean() > stream.means[200:].mean() + 0.02  # better than chance
        assert policy.counts.sum() == 400 and run.propensities.min() >= 0.05 - 1e-12


def test_a_fitted_policy_keeps_to_masks_prices_and_its_rules():
    ridge = pytest.importorskip("sklearn.linear_model").Ridge
    policy = FittedPolicy(["a", "b", "c"], 1, ridge(), refit=1, epsilon=0.2, rng=0)
    for _ in range(3):
        for arm, reward in (("a", 0.1), ("b", 0.9), ("c", 0.5)):
            policy.update(arm, [1.0], reward)
    assert policy.propensities([1.0]).round(6).tolist() == [0.066667, 0.866667, 0.066667]
    masked = policy.propensities([1.0], eligible=[True, False, True])
    assert masked.tolist() == pytest.approx([0.1, 0.0, 0.9])
    assert policy.propensities([1.0], prices=[0.0, 5.0, 0.0]).argmax() == 2
    assert policy.scores([1.0]).mean.argmax() == 1
    with pytest.raises(ValueError, match="weight must be 1"):
        policy.update("a", [1.0], 0.5, weight=2.0)
    with pytest.raises(TypeError, match="cannot be saved"):
        policy.to_state()
    with pytest.raises(TypeError, match="model must have fit and predict"):
        FittedPolicy(2, 1, object())
    policy.remove_arm("b")
    assert policy.counts.tolist() == [3, 3]
