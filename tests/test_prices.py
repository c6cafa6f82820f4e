"""Prices add up, equal prices change nothing, and a batch sees its own queues."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banditroute import LinUCB, Polar, Router
from banditroute.records import Feedback, Request
from banditroute.router.price_table import PriceTable
from banditroute.router.request_path import SWEEP, RequestPath
from banditroute.terms import BudgetPacer, CostModels, QualityFloor, Queues, energy, money


@given(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=6), st.floats(0.0, 2.0))
def test_money_is_monotone_bounded_and_charges_each_factor_alike(usd, weight):
    prices = money(usd, weight=weight)
    assert ((prices >= 0) & (prices <= weight + 1e-12)).all()
    order = np.argsort(usd)
    assert (np.diff(prices[order]) >= 0).all()
    steps = np.diff(money([1e-4, 1e-3, 1e-2, 1e-1], weight=weight))
    assert steps == pytest.approx(np.full(3, weight / 3))


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 5)), min_size=2, max_size=6),
    st.floats(0.0, 0.95),
)
def test_energy_ranks_arms_as_the_combined_reward_does(arms, weight):
    accuracy, joules = (np.array(column) for column in zip(*arms, strict=True))
    top = joules.max() or 1.0
    combined = (1 - weight) * accuracy + weight * (1 - joules / top)
    priced = accuracy - energy(joules, weight=weight)
    assert combined == pytest.approx((1 - weight) * priced + weight, abs=1e-9)


def test_equal_prices_of_every_kind_change_nothing_to_the_last_bit():
    plain, priced = LinUCB(3, 2, rng=0), LinUCB(3, 2, rng=0)
    terms = [Queues([1.5] * 3, per_second=0.3), BudgetPacer(1.0, [0.5] * 3), QualityFloor(0.5, [0.5] * 3)]
    total = money([0.01] * 3) + energy([2.0] * 3) + np.sum([term.prices() for term in terms], axis=0)
    rng = np.random.default_rng(0)
    for x in rng.normal(size=(300, 2)):
        one, two = plain.select(x), priced.select(x, prices=total, eligible=np.ones(3, dtype=bool))
        assert one == two
        reward = float(rng.normal())
        plain.update(one.arm, x, reward)
        priced.update(two.arm, x, reward)
    assert np.array_equal(plain.theta, priced.theta)


def test_paging_stays_the_price_of_the_router_beside_the_callers():
    from banditroute import Static

    policy = LinUCB(2, 1, prior=[[0.5], [0.55]], alpha=0.0, rng=0)
    router = Router(policy, residency=Static(["0"]), paging=0.1)
    assert router.select([1.0]).arm == "0"
    assert router.select([1.0], prices=[0.2, 0.0]).arm == "1"
    assert router.select([1.0], prices=[0.2, 0.2]).arm == "0"


def test_a_batch_does_not_herd_onto_one_arm():
    policy = LinUCB(3, 1, prior=[[0.50], [0.49], [0.48]], alpha=0.0, rng=0)
    contexts = np.ones((30, 1))
    queues = Queues([1.0, 1.0, 1.0], per_second=0.05)
    arms = queues.assign(policy, contexts)
    assert np.bincount(arms, minlength=3).tolist() == [10, 10, 10]
    assert queues.depth.tolist() == [10.0, 10.0, 10.0]
    assert set(policy.select_batch(contexts, prices=np.zeros(3))[0].tolist()) == {
        0
    }  # without queues: the herd
    free = Queues([1.0, 1.0, 1.0], per_second=0.0)
    assert np.array_equal(free.assign(policy, contexts), policy.select_batch(contexts)[0])
    for arm in arms:
        queues.finish(int(arm))
    assert queues.depth.tolist() == [0.0, 0.0, 0.0]


def test_the_longest_request_of_a_batch_chooses_first():
    policy = LinUCB(2, 1, prior=[[0.50], [0.48]], alpha=0.0, rng=0)
    arms = Queues([1.0, 1.0], per_second=0.05).assign(policy, np.ones((2, 1)), work=[1.0, 9.0])
    assert arms.tolist() == [1, 0]


def test_a_refused_batch_leaves_the_queues_alone():
    policy, queues = LinUCB(2, 1, rng=0), Queues([1.0, 1.0], per_second=0.05)
    with pytest.raises(ValueError, match="prices"):
        queues.assign(policy, np.ones((2, 1)), prices=[0.0, np.inf])
    assert queues.depth.tolist() == [0.0, 0.0]


def test_a_batch_through_a_router_gives_decisions_that_can_be_answered():
    contexts = np.ones((30, 1))
    for inside in (False, True):
        queues = Queues([1.0, 1.0, 1.0], per_second=0.05)
        policy = LinUCB(["a", "b", "c"], 1, prior=[[0.50], [0.49], [0.48]], alpha=0.0, rng=0)
        router = Router(policy, terms=[queues] if inside else [])
        decisions = queues.assign(router, contexts)
        assert sorted(d.arm for d in decisions) == ["a"] * 10 + ["b"] * 10 + ["c"] * 10
        assert queues.depth.tolist() == [10.0, 10.0, 10.0]
        assert all(router.update(d.id, 0.5, seconds=2.0) for d in decisions)
        assert queues.depth.sum() == (0.0 if inside else 30.0)


@pytest.mark.parametrize("inside", [False, True])
def test_a_batch_that_a_router_refuses_is_withdrawn(inside):
    queues = Queues([1.0, 1.0], per_second=0.05)
    router = Router(LinUCB(["a", "b"], 1, rng=0), terms=[queues] if inside else [])
    for bad in ({"prices": [0.0, np.nan]}, {"eligible": np.zeros(2, dtype=bool)}, {"work": [1.0]}):
        with pytest.raises(ValueError):
            queues.assign(router, np.ones((2, 1)), **bad)
    with pytest.raises(ValueError, match="contexts"):
        queues.assign(router, [[1.0], [np.nan]])
    with pytest.raises(TypeError, match="Policy or a Router"):
        queues.assign(lambda x: 0, np.ones((2, 1)))
    with pytest.raises(ValueError, match="2 arms"):
        queues.assign(Router(LinUCB(3, 1, rng=0)), np.ones((2, 1)))
    assert queues.depth.tolist() == [0.0, 0.0]
    assert router.stats()["pending"] == 0


def test_seconds_tell_the_service_time_whatever_was_ahead():
    queues = Queues([1.0, 1.0], per_second=0.1, slots=[1, 2], rate=0.5)
    for _ in range(40):  # two in the queue of arm 1: the second one waits for half a place
        held = [queues.reserve(1) for _ in range(2)]
        assert held == [1.0, 1.5]
        for waits in held:
            queues.settle(1, waits, Feedback(7, "1", Request(np.ones(1), 0), 0.5, seconds=4.0 * waits))
    assert queues.service_s == pytest.approx([1.0, 4.0])
    assert queues.depth.tolist() == [0.0, 0.0]


def test_reports_of_servers_replace_what_was_counted():
    queues = Queues([1.0, 1.0], per_second=0.1)
    queues.start(0)
    queues.set_depth(0, 5.0)
    queues.set_service(1, 3.0)
    assert queues.waits_s().tolist() == [6.0, 3.0]
    with pytest.raises(ValueError, match="depth"):
        queues.set_depth(0, -1.0)
    assert queues.depth[0] == 5.0


def test_slots_divide_the_wait():
    queues = Queues([2.0, 2.0], per_second=1.0, slots=[1, 4])
    for arm in (0, 0, 1, 1):
        queues.start(arm)
    assert queues.waits_s().tolist() == [6.0, 3.0]


def test_models_learn_apart_and_a_weight_acts_at_once():
    rng, policy = np.random.default_rng(0), LinUCB(2, 2, rng=0)
    models = CostModels(policy.arms, 2, weights={"usd": 0.0, "seconds": 0.0})
    cost = np.array([[0.1, 0.0], [1.0, 0.5]])
    for _ in range(400):
        x = np.array([1.0, rng.uniform(-1, 1)])
        for arm in (0, 1):
            policy.update(arm, x, [0.5, 0.8][arm] + 0.05 * rng.normal())
            models.update(arm, x, usd=float(cost[arm] @ x) + 0.01 * rng.normal())
    x = np.array([1.0, 0.5])
    assert models.predict("usd", x) == pytest.approx(cost @ x, abs=0.02)
    before = policy.theta
    assert policy.select(x, prices=models.prices(x)).arm == 1
    models.weights["usd"] = 0.5  # 0.57 dearer against 0.3 better
    assert policy.select(x, prices=models.prices(x)).arm == 0
    assert np.array_equal(before, policy.theta)
    pacer = BudgetPacer(1.0, lambda at: models.predict("usd", at))
    assert pacer.reserve(1, x) == pytest.approx(1.25, abs=0.02)


def test_weights_of_one_request_leave_those_of_the_others():
    models = CostModels(["small", "large"], 1, weights={"usd": 10.0, "seconds": 0.0})
    for _ in range(100):
        models.update("small", [1.0], usd=0.001)
        models.update("large", [1.0], usd=0.02)
    before = models.prices([1.0])
    assert models.prices([1.0], weights={"usd": 50.0})[1] == pytest.approx(5 * before[1])
    assert models.prices([1.0], weights={"usd": 0.0}).tolist() == [0.0, 0.0]
    assert models.prices([1.0]).tolist() == before.tolist()
    for bad in ({"joules": 1.0}, {"usd": -1.0}, {"usd": np.nan}):
        with pytest.raises(ValueError, match="weights"):
            models.prices([1.0], weights=bad)


def test_a_router_teaches_costs_and_seconds_and_passes_weights_on():
    models = CostModels(["small", "large"], 1, weights={"usd": 0.0, "seconds": 0.0})
    router = Router(LinUCB(["small", "large"], 1, rng=0), terms=[models])
    for t in range(60):
        decision = router.select([1.0], eligible={["small", "large"][t % 2]})
        large = decision.arm == "large"
        router.update(
            decision.id, 0.9 if large else 0.8, cost=0.02 if large else 0.001, seconds=2.0 if large else 0.5
        )
    assert models.predict("usd", [1.0]) == pytest.approx([0.001, 0.02], rel=0.05)
    assert models.predict("seconds", [1.0]) == pytest.approx([0.5, 2.0], rel=0.05)
    assert router.select([1.0]).arm == "large"
    assert router.select([1.0], weights={"usd": 50.0}).arm == "small"
    with pytest.raises(ValueError, match="joules"):
        router.select([1.0], weights={"joules": 1.0})


def test_models_refuse_all_or_nothing():
    models = CostModels(2, 1, weights={"usd": 1.0, "seconds": 1.0})
    for bad in ({"usd": 1.0, "joules": 2.0}, {"usd": 1.0, "seconds": np.nan}):
        with pytest.raises((KeyError, ValueError)):
            models.update(0, [1.0], **bad)
    assert models.predict("usd", [1.0]).tolist() == [0.0, 0.0]


def test_bad_numbers_are_refused():
    for call in (
        lambda: money([-1.0]),
        lambda: money([1.0], low=1.0, high=1.0),
        lambda: energy([1.0], weight=1.0),
        lambda: energy([np.nan]),
        lambda: Queues([1.0], per_second=-1.0),
        lambda: Queues([1.0], per_second=1.0, slots=0),
    ):
        with pytest.raises(ValueError):
            call()


@pytest.mark.parametrize("terms", [False, True])
def test_one_price_that_changes_gives_the_sum_that_adding_up_anew_gives(terms):
    rng = np.random.default_rng(3)
    one, anew = PriceTable(4), PriceTable(4)
    for table in (one, anew):
        table.bind([Queues([1.0] * 4, per_second=0.2)] if terms else [], ("0", "1", "2", "3"))
    muted = np.zeros(4, dtype=bool)
    for _ in range(300):
        if rng.random() < 0.1:
            muted = rng.random(4) < 0.3
            one.live = False
        arm, price = int(rng.integers(4)), float(rng.choice([0.0, 0.0, 0.2]))
        kept = one.effective
        before = None if kept is None else kept.copy()
        one.reprice(arm, price)
        assert kept is None or (kept == before).all()  # whoever has the old one
        anew.fault.values[arm] = price
        if not one.live:
            one.fold(muted)
        anew.fold(muted)
        assert (one.effective is None) == (anew.effective is None)
        assert one.effective is None or (one.effective == anew.effective).all()


def test_a_plan_that_is_due_is_asked_for_once_and_not_by_every_request(monkeypatch):
    asked = []
    monkeypatch.setattr(RequestPath, "upkeep", _counting(RequestPath.upkeep, asked))
    router = Router(LinUCB(3, 1, rng=0), Polar(1, epoch=2), 0.1, maintenance="manual")
    for _ in range(256):
        router.select([1.0])
    assert len(asked) <= 256 // SWEEP + 3
    assert router.maintain()
    router.select([1.0])
    assert router.stats()["page_ins"] >= 0 and not router.maintain()


def _counting(work, asked):
    def counted(self, index):
        asked.append(index)
        return work(self, index)

    return counted
