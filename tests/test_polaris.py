"""Polaris: shadows, the rule in force, and what it leaves to the arms that fault."""

from copy import deepcopy

import numpy as np
import pytest

from banditroute import LRU, LinUCB, Polaris, Problem, Router, Static, Stream, regret, simulate
from banditroute._core.kernels.shadow import replay
from banditroute.residency import ResidentSet
from banditroute.residency.polaris import RULES, _left_free, _newest, _worth_holding
from banditroute.residency.set_search import SetSearch
from banditroute.simulation import (
    best_static_set,
    bursts,
    churning,
    clustered,
    delayed,
    drifting,
    homes,
    rotating,
    sized,
)
from test_polar import constant, same, view


def slow_replay(values, faults, sizes, planned, guests, stamps, room, now):
    """Do as the kernel does, with lists."""
    total, order = 0.0, sorted(np.flatnonzero(guests).tolist(), key=lambda a: stamps[a])
    for i, row in enumerate(values):
        net = [row[a] - (0.0 if planned[a] or a in order else faults[a]) for a in range(len(row))]
        arm = int(np.argmax(net))
        total += net[arm]
        stamps[arm] = now + i
        if arm in order:
            order.remove(arm)
            order.append(arm)
        elif not planned[arm] and sizes[arm] <= room:
            while sum(sizes[a] for a in order) + sizes[arm] > room:
                order.pop(0)
            order.append(arm)
    return total, set(order)


@pytest.mark.parametrize("seed", range(6))
def test_replay_is_what_it_says(seed):
    rng = np.random.default_rng(seed)
    n, count = 200, 7
    values = rng.random((n, count))
    faults = rng.uniform(0.0, 0.4, count)
    sizes = rng.integers(1, 4, count).astype(float) if seed % 2 else np.ones(count)
    planned = rng.random(count) < 0.3
    guests = np.zeros(count, dtype=bool)
    room = float(rng.integers(0, 5))
    free = np.flatnonzero(~planned)
    if room >= sizes[free[0]]:
        guests[free[0]] = True
    stamps = np.full(count, -1.0)
    for run in (replay, replay.py_func):
        mine, used = guests.copy(), stamps.copy()
        total = run(values, faults, sizes, planned, mine, used, room, 50.0)
        slow = stamps.copy()
        wanted, order = slow_replay(values, faults, sizes, planned, guests, slow, room, 50.0)
        assert total == pytest.approx(wanted, abs=1e-9)
        assert set(np.flatnonzero(mine).tolist()) == order and (used == slow).all()
        assert sizes[mine].sum() <= room


def test_replay_of_lru_earns_what_lru_earns():
    # With the means as values the last rule is LRU with perfect routing: value by value the same as serving it.
    problem = homes(2000, 3)
    means, faults = problem.stream.means, problem.faults
    order, total = [0, 1, 2, 3], 0.0
    for row in means:
        net = [row[a] - (0.0 if a in order else faults[a]) for a in range(15)]
        arm = int(np.argmax(net))
        total += net[arm]
        if arm in order:
            order.remove(arm)
        else:
            order.pop(0)
        order.append(arm)
    guests, stamps = np.arange(15) < 4, np.arange(15) - 20.0
    earned = replay(means, faults, np.ones(15), np.zeros(15, dtype=bool), guests, stamps, 4.0, 0.0)
    assert earned == pytest.approx(total, abs=1e-9)


def test_room_for_guests():
    slots = ResidentSet(9, 6, pinned=[0, 1])
    assert [_left_free(r.following, slots) for r in RULES] == [0, 0, 2, 3, 4]
    bytes_ = ResidentSet(3, 8.0, sizes=[1.0, 2.0, 4.0])
    assert [_left_free(r.following, bytes_) for r in RULES] == [0, 0, 2, 4, 8]
    kept = _newest(
        np.array([True, True, True, False]), np.array([3.0, 9.0, 5.0, 10.0]), np.array([1.0, 2, 2, 1]), 3.0
    )
    assert kept.tolist() == [True, True, False, False]  # the newest, then what still fits


def test_members_must_be_worth_their_load():
    resident = ResidentSet(3, 3, pinned=[2])
    shown = view(constant([0]), constant([0]), [0.5, 0.5, 0.5], resident, loads=[1.0, 1.0, 1.0])
    look, every = SetSearch(np.array([[0.9, 0.8, 0.0], [0.1, 0.2, 0.0]]), shown.faults), np.arange(3)
    # Without arm 0 the first context loses 0.1, without arm 1 the second does: 0.05 on average, 1 / (2 * 5) is 0.1.
    assert _worth_holding(look, shown, every, 5).tolist() == [False, False, False]
    assert _worth_holding(look, shown, every, 11).tolist() == [True, True, False]  # pins stay in all the same


@pytest.mark.parametrize(
    "make", [homes, bursts, clustered, rotating, delayed, sized, churning], ids=lambda f: f.__name__
)
def test_engines_agree(make):
    problem = make(2500, 1)
    runs, rules = [], []
    for engine in ("compiled", "router"):
        controller = Polaris(problem.capacity, window=600, sample=128, memory=400)
        runs.append(simulate(LinUCB(15, 10, rng=5), problem, controller, engine=engine))
        rules.append((controller.rule, controller._lead.tolist()))
    same(*runs)
    assert rules[0][0] == rules[1][0] and np.allclose(rules[0][1], rules[1][1], atol=1e-12)


def test_the_set_always_fits_and_keeps_its_pins():
    problem = sized(4000, 2)
    small = int(np.argmin(problem.sizes))
    controller = Polaris(problem.capacity, pinned=[small])
    run = simulate(LinUCB(15, 10, rng=0), problem, controller)
    for _, chosen in run.epochs:
        assert small in chosen and problem.sizes[sorted(chosen)].sum() <= problem.capacity + 1e-9
    assert len(run.epochs) > 5


def test_nothing_happens_when_nothing_is_at_stake():
    problem = homes(1500, 0)
    plain = simulate(LinUCB(15, 10, rng=7), problem.stream)
    for costless in (Problem(problem.stream, np.zeros(15), np.zeros(15), 4), problem):
        capacity = 4 if costless is not problem else 15
        run = simulate(LinUCB(15, 10, rng=7), costless, Polaris(capacity))
        assert (run.arms == plain.arms).all() and run.page_ins == 0 and len(run.epochs) == 1


def test_bursts_are_followed_and_steady_traffic_is_planned_for():
    rules = {}
    for name, problem in {"bursts": bursts(8000, 0), "homes": homes(8000, 0)}.items():
        controller = Polaris(4)
        simulate(LinUCB(15, 10, rng=0), problem, controller)
        rules[name] = RULES[controller.rule]
    assert rules["bursts"].following > 0.0
    assert rules["homes"].following == 0.0


@pytest.mark.parametrize("make", [homes, bursts, drifting, rotating], ids=lambda f: f.__name__)
def test_it_beats_lru_with_the_same_router(make):
    # Seeds 0 to 3, T = 12,000; at T = 32,768 the differences are several hundred each.
    gain = 0.0
    for seed in range(4):
        problem = make(12_000, seed)
        best = best_static_set(problem.stream, problem.capacity, problem.faults)
        lost = [
            regret(simulate(LinUCB(15, 10, rng=seed), problem, c), problem, best).final
            for c in (LRU(4), Polaris(4))
        ]
        gain += lost[0] - lost[1]
    assert gain > 200.0


def test_one_slot_does_not_lock_in():
    # The shadow LRU came to hold arm 4 while the router stayed with arm 0, the resident one, for a fault costs more than
    # the difference: no fault, no change, and the plan looked no better than the shadow. Regret was 903 then, 152 now.
    problem = homes(3000, 103, capacity=1)
    run = simulate(LinUCB(15, 10, rng=103), problem, Polaris(1))
    assert regret(run, problem).final < 300.0
    assert np.bincount(run.arms).max() < 2000


def test_steady_regret_is_near_the_oracle():
    problem = homes(16_384, 1)
    best = best_static_set(problem.stream, 4, problem.faults)
    lost = [
        regret(simulate(LinUCB(15, 10, rng=1), problem, c), problem, best).final
        for c in (Static(best), Polaris(4), LRU(4))
    ]
    assert lost[1] - lost[0] < 0.25 * (lost[2] - lost[0])


def test_arms_come_and_go():
    router = Router(LinUCB(5, 2, rng=0), residency=Polaris(2, epoch=20), paging=0.2)
    rng = np.random.default_rng(0)
    for t in range(600):
        decision = router.select(rng.standard_normal(2))
        router.update(decision.id, float(rng.random()))
        if t in (60, 300):
            router.add_arm(f"new {t}")
        if t in (150, 400):
            router.remove_arm("1" if t == 150 else "3")
    assert len(router.policy.arms) == 5 and len(router.resident) <= 2
    assert router.residency._held.shape == (len(RULES), 5)


def test_requests_in_the_short_look_are_not_scored_again():
    rng = np.random.default_rng(4)
    controller, resident = Polaris(2, epoch=40, window=640, sample=80), ResidentSet(5, 2)
    controller.begin(resident)
    controller.observe_many(np.zeros(700, dtype=int), rng.random((700, 5)), np.ones(700, dtype=bool))
    controller._replayed = 660
    scored = []
    mean = lambda x: scored.append(len(x)) or x.copy()  # noqa: E731 - the rewards are the context
    shown = view(mean, lambda x: np.zeros_like(x), np.full(5, 0.3), resident)
    fresh = deepcopy(controller)._earned(shown, SetSearch(np.empty((0, 5)), shown.faults))
    assert scored == [40]
    short = controller._look(shown, 0.125)  # the last 80 of 640, each of them
    assert np.allclose(controller._earned(shown, short), fresh, atol=1e-12)
    assert scored == [40, 80]


def test_who_takes_over():
    # The rule in force yields to one that leads by the scatter of their difference; the first rule needs a lead only.
    controller, resident = Polaris(2), ResidentSet(4, 2)
    controller.begin(resident)
    shown = view(constant([0]), constant([0]), np.full(4, 0.3), resident, loads=np.full(4, 0.5))
    step = np.zeros(len(RULES))
    step[2] = 1.0
    controller._judge(step, shown)  # one epoch: as much doubt as lead
    assert controller.rule == 0
    controller._judge(step, shown)  # 2 > sqrt(2)
    assert controller.rule == 2
    controller._held[0] = [False, False, True, True]  # loads of 1 to take over
    controller._judge(-2.4 * step, shown)
    assert controller._lead[2] == pytest.approx(-0.4) and controller.rule == 2
    controller._judge(-0.7 * step, shown)
    assert controller._lead[2] == pytest.approx(-1.1) and controller.rule == 0


def test_faults_that_cannot_fit_pass_through():
    controller = Polaris(2)
    resident = ResidentSet(3, 2)
    controller.begin(resident)
    assert controller.make_room(2, resident) is None  # the starting rule holds both slots
    controller._kept[1] = False
    assert controller.make_room(2, resident) == [1]


def test_wrong_arguments_are_refused():
    for wrong in ({"epoch": 0}, {"window": 0}, {"sample": 0}, {"memory": 0.5}, {"hysteresis": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Polaris(2, **wrong)


def test_one_arm_is_no_problem():
    stream = Stream(np.ones((300, 1)), np.ones((300, 1)), np.ones((300, 1)), ("only",))
    run = simulate(LinUCB(1, 1, rng=0), Problem(stream, [0.1], [0.1], 1), Polaris(1))
    assert run.hits.all() and run.page_ins == 0
