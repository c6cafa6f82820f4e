"""Explanations: they add up, name what closes an arm, leave no trace, and say what is stored and what is as of now."""

import json
from math import inf

import numpy as np
import pytest

from banditroute import LinTS, LinUCB, Polar, Recorder, Router, UnknownDecision
from banditroute.features import HashedText
from banditroute.policies import ClusterGraph, GraphDiagLinUCB, SharedLinUCB, SquareCB, Uniform
from banditroute.router.state import capture
from banditroute.terms import ArmHealth, BudgetPacer, CostModels, Queues, Sessions

ARMS = ["small", "medium", "large"]
X = np.array([1.0, 0.5])


def taught(router, n=60, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        x = np.append(1.0, rng.standard_normal(router.policy.dim - 1))
        decision = router.select(x, session="s")
        reward = float(rng.random() < 0.3 + 0.2 * ARMS.index(decision.arm))
        router.update(decision.id, reward, cost=0.1, seconds=0.2)
    return router


def full(**options):
    terms = [
        ArmHealth(),
        BudgetPacer(1.0, [0.1, 0.2, 0.4]),
        Queues([0.1, 0.2, 0.4], per_second=0.1),
        CostModels(ARMS, 2, weights={"usd": 0.1}),
        Sessions([0.1, 0.2, 0.3]),
    ]
    clock = iter(np.arange(1e6)).__next__
    policy = options.pop("policy", None) or LinUCB(ARMS, 2, mix=0.1, rng=0)
    return Router(policy, Polar(2, epoch=16), 0.1, terms=terms, clock=clock, **options)


def plain(state):
    header, arrays = state
    return json.dumps({**header, "time": 0}, sort_keys=True), {n: a.tobytes() for n, a in arrays.items()}


def test_every_price_is_told_by_name_and_sums_to_the_index():
    router = taught(full())
    why = router.explain(X, {"small", "large"}, {"large": 0.3}, weights={"usd": 2.0}, session="s")
    names = {"fault", "caller", *(term.name for term in router.terms)}
    for one in why.arms:
        assert names <= set(one.prices)
        if not one.closed:
            assert one.index == pytest.approx(one.mean + one.bonus - sum(one.prices.values()), abs=1e-12)
    assert why["large"].prices["caller"] == 0.3
    assert why["medium"].closed == ("mask",) and why["medium"].index == -inf
    assert sum(one.propensity for one in why.arms) == pytest.approx(1.0, abs=1e-12)
    assert [one.resident for one in why.arms] == [name in router.resident for name in ARMS]
    json.dumps(why.to_dict(), allow_nan=False)


def test_what_is_explained_is_what_select_then_does():
    explained, left = taught(full()), taught(full())
    rng = np.random.default_rng(1)
    for i in range(200):
        x, prices = rng.standard_normal(2), {"large": float(rng.choice([0.0, 0.2]))}
        mask = None if i % 3 else {"small", ARMS[1 + i % 2]}
        why = explained.explain(x, mask, prices, session="s")
        one, other = (r.select(x, mask, prices, session="s") for r in (explained, left))
        assert (one.arm, one.propensity) == (other.arm, other.propensity)
        if explained.residency.next_plan != one.epoch * 16:  # no plan came in between
            assert why[one.arm].propensity == pytest.approx(one.propensity, abs=1e-12)
        for router, decision in ((explained, one), (left, other)):
            router.update(decision.id, float(i % 2), cost=0.1, seconds=0.1)


@pytest.mark.parametrize("kind", [LinUCB, LinTS])
def test_explaining_changes_nothing_to_the_last_bit(kind):
    router = taught(full(policy=kind(ARMS, 2, mix=0.1, rng=0)))
    router.select(X)  # a row of the queues is stale now
    decision = router.select(X, session="s")
    before, stats = plain(capture(router)), router.stats()
    for _ in range(3):
        str(router.explain(X, {"small"}, {"small": 0.1}))
        str(router.explain(decision))
    assert plain(capture(router)) == before
    assert router.stats() == stats


def test_forced_exploration_is_part_of_the_propensity():
    router = full(policy=LinUCB(ARMS, 2, rng=0))
    controller = router.residency
    for _ in range(64):
        router.update(router.select(X).id, 0.5)
        if controller.rate > 0.0 and controller.needs.sum() > 0.0:
            break
    else:
        controller.rate, controller.needs = 0.3, np.array([0.0, 1.0, 3.0])
    why, calm = router.explain(X), router.explain(X, protected=True)
    share = controller.rate * controller.needs / controller.needs.sum()
    pure = np.array([one.propensity for one in calm.arms])
    wanted = share + (1.0 - controller.rate) * pure
    assert [one.propensity for one in why.arms] == pytest.approx(wanted.tolist(), abs=1e-12)
    assert why.forced == controller.rate and calm.forced == 0.0
    assert "controller" in why.sentence


def test_what_closes_an_arm_is_named():
    health = ArmHealth()
    router = Router(LinUCB(ARMS, 2, rng=0), terms=[health])
    health.mark("small", "down")
    router.quarantine("large")
    why = router.explain(X)
    assert why["small"].closed == ("health: down",)
    assert why["large"].closed == ("quarantine",)
    assert why.best.arm == "medium" and "small (health: down)" in why.sentence
    router.release("large")
    with pytest.raises(ValueError, match="must allow"):
        router.explain(X, {"small"})  # as select would


def test_a_soft_term_that_would_leave_no_arm_is_passed_over():
    router = Router(LinUCB(ARMS, 2, rng=0), terms=[BudgetPacer(0.1, [0.1, 0.2, 5.0])])
    for _ in range(3):
        router.update(router.select(X).id, 0.5, cost=5.0)
    assert "budget" in router.explain(X)["large"].closed
    relaxed = router.stats()["relaxed"]
    why = router.explain(X, {"large"})
    assert why.passed_over == ("budget",) and not why["large"].closed
    assert "budget" not in why["large"].prices and "Passed over" in why.sentence
    assert router.stats()["relaxed"] == relaxed
    assert router.select(X, {"large"}).arm == "large"
    assert router.stats()["relaxed"] == relaxed + 1


def test_a_decision_is_told_as_stored_and_computed_as_of_now():
    recorder = Recorder()
    router = Router(
        LinUCB(ARMS, 2, mix=0.1, rng=0), terms=[Queues([0.1, 0.2, 0.4], per_second=0.1)], recorder=recorder
    )
    decision = router.select(X)
    why = router.explain(decision.id)
    assert why.made.arm == decision.arm and why.made.propensity == decision.propensity
    assert set(why.made.prices) == {"fault", "queues"} and "as of now" in why.sentence
    assert why.made.prices["queues"]["small"] == pytest.approx(0.01)  # of then: nobody was in the queue
    router.update(decision.id, 0.9)
    after = router.explain(decision)
    assert after.made.reward == 0.9 and after[decision.arm].mean != why[decision.arm].mean
    bare = Router(LinUCB(ARMS, 2, rng=0))
    decision = bare.select(X, id="mine")
    assert bare.explain(decision.id).made.prices is None
    assert bare.explain(id="mine").made.id == decision.id
    bare.update("mine", 0.5)
    for gone in (decision.id, 17):
        with pytest.raises(UnknownDecision):
            bare.explain(gone)


def test_requests_as_texts_are_explained_through_the_features():
    router = Router(LinUCB(ARMS, 16, rng=0), features=HashedText(16))
    assert router.explain("how do I sort a list?").best.propensity > 0.0
    decision = router.select("how do I sort a list?", id="one")
    assert router.explain(id="one").made.arm == decision.arm


def test_policies_that_sample_say_what_their_distribution_is():
    for policy, word in [
        (LinTS(ARMS, 2, rng=0), "normal score"),
        (SquareCB(LinUCB(ARMS, 2, rng=0)), "gap"),
        (Uniform(ARMS, 2, rng=0), "same probability"),
    ]:
        why = Router(policy).explain(X)
        assert word in why.sentence
        assert sum(one.propensity for one in why.arms) == pytest.approx(1.0, abs=1e-9)


def test_an_item_without_an_edge_is_closed_by_the_policy():
    graph = ClusterGraph.from_edges([0, 0, 1], ["jazz", "rock", "folk"])
    why = Router(GraphDiagLinUCB(graph, alpha=0.5, rng=0)).explain([1.0, 0.0])
    assert why["folk"].closed == ("policy",) and why["folk"].propensity == 0.0


def test_features_of_a_shared_policy_are_those_of_now():
    load = {"near": 0.9, "far": 0.1}
    policy = SharedLinUCB(["near", "far"], 1, features=lambda arm, x: [1.0, load[arm]], rng=0)
    router = Router(policy)
    for i in range(40):
        decision = router.select([1.0], eligible={["near", "far"][i % 2]})
        router.update(decision.id, 1.0 - load[decision.arm])
    before = router.explain([1.0])["near"].mean
    load["near"] = 0.0
    assert router.explain([1.0])["near"].mean > before


def test_a_table_shows_a_dozen_arms_and_says_how_many_more():
    router = Router(LinUCB(40, 2, rng=0))
    text = str(router.explain(X))
    assert text.count("\n") == 15 and text.endswith("and 28 more arms")
    assert repr(router.explain(X)).startswith("Explanation(best=")
    with pytest.raises(KeyError):
        router.explain(X)["nobody"]


def test_bad_input_is_refused_as_by_select():
    router = full()
    before = plain(capture(router))
    for bad in ([1.0], [np.nan, 1.0], None, "text", True):
        with pytest.raises((ValueError, TypeError, UnknownDecision)):
            router.explain(bad)
    with pytest.raises(TypeError):
        router.explain(X, id=1.5)
    assert plain(capture(router)) == before
    router.close()
    with pytest.raises(ValueError, match="closed"):
        router.explain(X)
