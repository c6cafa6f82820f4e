"""A cascade earns more at equal spend where a confidence tells something, and changes nothing where it does not."""

import json

import numpy as np
import pytest

from banditroute import LinUCB, Router, UnknownDecision
from banditroute.terms import BudgetPacer, Cascade
from banditroute.terms.cascade import _Kept

SKILL = np.array([0.6, 0.9])
COSTS = np.array([1.0, 10.0])


def served(informed, budget=4.0, n=4000, seed=0, cascaded=True):
    """Serve requests; returns reward, cost and calls a request in the second half, and the parts."""
    rng = np.random.default_rng(seed)
    pacer = BudgetPacer(budget, COSTS)
    router = Router(LinUCB(["small", "large"], 1, rng=0), terms=[pacer])
    cascade = Cascade(router, costs=pacer.prices)
    got, paid, calls = np.empty(n), np.empty(n), np.ones(n)
    for t in range(n):
        good, noise = rng.random(2) < SKILL, rng.normal(size=2)
        decision = cascade.start([1.0]) if cascaded else router.select([1.0])
        arm = router.policy.index(decision.arm)
        paid[t] = COSTS[arm]
        second = (
            cascade.look(decision, informed * good[arm] + noise[arm], cost=COSTS[arm]) if cascaded else None
        )
        if second is not None:
            decision, arm, calls[t] = second, router.policy.index(second.arm), 2
            paid[t] += COSTS[arm]
        got[t] = good[arm]
        (cascade if cascaded else router).update(decision.id, got[t], cost=COSTS[arm])
    half = slice(n // 2, None)
    return got[half].mean(), paid[half].mean(), calls[half].mean(), cascade, pacer, router


def test_a_confidence_buys_reward_at_the_same_spend():
    alone, cascade = served(0.0, cascaded=False), served(1.0)  # 1 standard deviation: AUC .76
    assert cascade[0] > alone[0] + 0.02
    assert cascade[1] < 1.02 * 4.0
    assert 1.1 < cascade[2] < 1.6


def test_a_useless_confidence_changes_nothing():
    for seed in range(3):
        alone, cascade = served(0.0, seed=seed, cascaded=False), served(0.0, seed=seed)
        assert cascade[0] > alone[0] - 0.003
        assert cascade[2] < 1.01


class Watched:
    """A Router that tells which arms each call could go to."""

    def __init__(self, router):
        self.router, self.open = router, []
        self.policy, self.terms, self.update, self.cancel = (
            router.policy,
            router.terms,
            router.update,
            router.cancel,
        )

    def select(self, x, **options):
        self.open.append(options.get("eligible") or frozenset(self.policy.arms))
        return self.router.select(x, **options)


def test_propensities_of_both_calls_are_frequencies():
    """Weighed by one over its propensity each arm that a call could go to counts as often as there was such a call."""
    rng, arms, skill = np.random.default_rng(3), ["a", "b", "c"], np.array([0.5, 0.7, 0.9])
    watched = Watched(Router(LinUCB(arms, 1, mix=0.4, rng=0)))
    cascade, off = Cascade(watched, costs=[0.0, 0.02, 0.04]), {1: [], 2: []}
    for _ in range(4000):
        good = rng.random(3) < skill
        decision, call = cascade.start([1.0], prices=[0.0, 0.02, 0.04]), 1
        while decision is not None:
            last = decision
            weighed = [(a == decision.arm) / decision.propensity - (a in watched.open[-1]) for a in arms]
            off[call].append(weighed)
            decision, call = (
                cascade.look(decision, 1.5 * good[arms.index(decision.arm)] + rng.normal()),
                call + 1,
            )
        cascade.update(last.id, float(good[arms.index(last.arm)]))
    assert len(off[2]) > 800
    for rows in map(np.array, off.values()):
        assert (np.abs(rows.mean(axis=0)) <= 3.0 * rows.std(axis=0) / np.sqrt(len(rows))).all()


def test_trying_for_the_chance_to_check_counts_for_what_checks_have_gained():
    """Of many arms the best belief is too good: what further calls gain is measured, and none is made that loses."""
    kept = _Kept()
    assert kept.share == 1.0 and not kept.harms  # hope, until something was measured
    for i in range(400):
        kept = kept.learned(0.2, 0.1 + 0.3 * (-1) ** i)
    assert 0.3 < kept.share < 0.5 and not kept.harms
    for i in range(400):
        kept = kept.learned(0.2, -0.5 + 0.3 * (-1) ** i)
    assert kept.share == 0.0 and kept.harms
    for _ in range(12_000):
        kept = kept.faded()
    assert not kept.harms  # tried again


def test_both_calls_count_on_one_budget_and_are_in_the_ledger():
    *_, cascade, pacer, router = served(1.0, n=2000)
    assert pacer.requests == 2000
    assert cascade.escalated > 100
    assert cascade.accepted == 2000
    counts = router.stats()
    assert counts["decisions"] == 2000 + cascade.escalated
    assert counts["pending"] == 0
    assert pacer.spent <= 4.0 * (2000 + 30) + 10.0
    assert pacer.reserved == pytest.approx(0.0)


def test_what_is_set_aside_does_not_spoil_the_mean_of_its_arm():
    *_, router = served(1.0)
    assert router.policy.scores([1.0]).mean == pytest.approx(SKILL, abs=0.05)


def test_a_state_goes_on_as_plain_data():
    *_, cascade, _, router = served(1.0, n=1000)
    header, arrays = cascade.to_state()
    other = Cascade(router, costs=[0.0, 0.1])
    other.load_state(json.loads(json.dumps(header)), arrays)
    assert json.dumps(other.to_state()[0]) == json.dumps(header)
    assert all(np.array_equal(other.to_state()[1][k], v) for k, v in arrays.items())
    assert repr(other) == f"Cascade(accepted=1000, escalated={cascade.escalated}, open=0)"
    before = json.dumps(other.to_state()[0])
    spoiled = [{**arrays, "worth": np.full(13, np.nan)}, {**arrays, "kept": -np.ones(4)}]
    spoiled += [{k: v for k, v in arrays.items() if k != name} for name in arrays]
    for bad in (({}, {}), *((header, given) for given in ({}, *spoiled))):
        with pytest.raises(ValueError):
            other.load_state(*bad)
    assert json.dumps(other.to_state()[0]) == before
    assert all(np.array_equal(other.to_state()[1][k], v) for k, v in arrays.items())


def test_masks_hold_for_further_calls_and_nobody_is_asked_twice():
    *_, cascade, _, router = served(1.0, n=1500)
    for eligible in ({"small"}, {"small": True, "large": False}, np.array([True, False])):
        decision = cascade.start([1.0], eligible=eligible)
        assert cascade.look(decision, -100.0) is None
    decision = cascade.start([1.0], eligible={"large"})
    assert cascade.look(decision, -100.0) is None or router.stats()["decisions"]
    assert cascade.cancel(decision.id)


def test_bad_calls_are_refused_and_change_nothing():
    router = Router(LinUCB(["small", "large"], 1, rng=0))
    with pytest.raises(TypeError, match="router"):
        Cascade(object(), costs=[0.0, 0.1])
    for costs in ([0.1], [-0.1, 0.1], [np.nan, 0.1]):
        with pytest.raises(ValueError, match="costs"):
            Cascade(router, costs=costs)
    cascade = Cascade(router, costs=[0.0, 0.1], limit=2)
    decision = cascade.start([1.0])
    with pytest.raises(ValueError, match="confidence"):
        cascade.look(decision, float("nan"))
    assert cascade.look(decision, 0.5) is None
    foreign = router.select([1.0])
    with pytest.raises(UnknownDecision):
        cascade.look(foreign, 0.5)
    assert cascade.update(foreign.id, 0.5)  # a plain decision of the Router is learned as ever
    for _ in range(3):
        cascade.start([1.0])
    assert "open=2" in repr(cascade)
    assert cascade.update(decision.id, 0.5)


def test_the_chance_to_check_is_found_though_the_dear_arm_is_the_better_one():
    """.6 for nothing or .9 for .25: the dear one is better by .05 alone, and asked second where needed by .1."""
    found = 0
    for seed in range(8):
        router, rng = Router(LinUCB(["small", "large"], 1, rng=seed)), np.random.default_rng(seed)
        cascade, calls = Cascade(router, costs=[0.0, 0.25]), 0
        for t in range(2000):
            good = {"small": rng.random() < 0.6, "large": rng.random() < 0.9}
            first = cascade.start([1.0], prices=[0.0, 0.25])
            second = cascade.look(first, confidence=good[first.arm] + rng.normal())
            calls += t >= 1000 and second is not None
            last = first if second is None else second
            cascade.update(last.id, float(good[last.arm]))
        found += 200 < calls < 800
    assert found >= 6
