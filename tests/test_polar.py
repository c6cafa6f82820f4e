"""Epoch controllers in the style of POLAR and POLAR+."""

from math import ceil, log, log2

import numpy as np
import pytest

from banditroute import LRU, LinUCB, Polar, PolarPlus, Problem, Router, Static, Stream, regret, simulate
from banditroute.residency import Reservoir, ResidentSet, View, Window
from banditroute.simulation import best_static_set, churning, delayed, homes, sized


def view(
    mean, std, faults, resident, *, clock=1000, loads=None, alpha=0.5, eligible=None, counts=None, **more
):
    count = len(faults)
    loads = np.zeros(count) if loads is None else np.asarray(loads, dtype=float)
    counts = np.zeros(count) if counts is None else counts
    utilities = lambda x: (mean(x), alpha * std(x))  # noqa: E731 - a function of the contexts, as a policy's is
    return View(
        clock,
        utilities,
        np.asarray(faults, dtype=float),
        loads,
        resident,
        np.zeros(count),
        counts,
        eligible,
        **more,
    )


def constant(rows):
    return lambda x: np.tile(np.asarray(rows, dtype=float), (len(x), 1))


def started(controller, count, contexts=50, sizes=None, dim=2):
    resident = ResidentSet(count, controller.capacity, sizes=sizes)
    controller.begin(resident)
    controller.observe_many(
        np.zeros(contexts, dtype=int), np.ones((contexts, dim)), np.ones(contexts, dtype=bool)
    )
    return resident


def same(first, second):
    assert (first.arms == second.arms).all() and (first.hits == second.hits).all()
    assert np.allclose(first.propensities, second.propensities, atol=1e-12)
    assert first.epochs == second.epochs
    assert (first.page_ins, first.forced) == (second.page_ins, second.forced)
    assert [at for at, _ in first.loads] == [at for at, _ in second.loads]


# Contexts.


@pytest.mark.parametrize("size", [1, 7, 64, 100, 1000])
def test_window_takes_blocks_as_it_takes_rows(size):
    rng = np.random.default_rng(size)
    rows = rng.standard_normal((700, 3))
    one, many = Window(size), Window(size)
    for x in rows:
        one.append(x)
    at = 0
    while at < len(rows):
        step = int(rng.integers(1, 200))
        many.extend(rows[at : at + step])
        at += step
    assert one.seen == many.seen == 700
    assert (one.sample(size) == many.sample(size)).all() and (one.sample(size) == rows[-size:][-700:]).all()
    assert (many.tail(min(size, 5)) == rows[-min(size, 5) :]).all()
    assert (many.sample(10_000, last=3) == rows[-min(size, 3) :]).all()


def test_reservoir_is_uniform_and_takes_blocks_as_it_takes_rows():
    rows = np.arange(200.0)[:, None]
    one, many = (Reservoir(20, np.random.default_rng(5)) for _ in range(2))
    for x in rows:
        one.append(x)
    for part in np.split(rows, [1, 19, 20, 50, 51]):
        many.extend(part)
    assert (one.sample(20) == many.sample(20)).all()
    # 3,000 reservoirs, seeds 0 .. 2999: each context is kept with probability 0.1. Chi-square over 10 blocks of 20
    # contexts, 9 degrees: above 27.9 with probability 0.1 % (a little less, for the counts add up exactly).
    counts = np.zeros(10)
    for seed in range(3000):
        reservoir = Reservoir(20, np.random.default_rng(seed))
        reservoir.extend(rows)
        counts += np.bincount((reservoir.sample(20).ravel() // 20).astype(int), minlength=10)
    assert ((counts - 6000) ** 2 / 6000).sum() < 27.9


# POLAR.


@pytest.mark.parametrize(("index", "chosen"), [("mean", {0}), ("optimistic", {1}), ("pessimistic", {2})])
def test_polar_indices(index, chosen):
    controller = Polar(1, index=index)
    resident = started(controller, 3)
    means, widths = [0.60, 0.50, 0.59], [0.2, 0.9, 0.0]
    assert controller.plan(view(constant(means), constant(widths), [0.3] * 3, resident)) == chosen


def test_polar_spreads_loads_over_the_epoch():
    for epoch, wanted in ((10, {0}), (1000, {1})):  # 0.1 better per request, 5 to load
        controller = Polar(1, epoch)
        resident = started(controller, 2)
        shown = view(constant([0.5, 0.6]), constant([0, 0]), [0.3, 0.3], resident, loads=[5.0, 5.0])
        assert controller.plan(shown) == wanted
        assert controller.next_plan == 1000 + epoch


def test_polar_hysteresis_wants_a_sure_gain():
    # Arm 1 gains 0.2 on half of the contexts and loses 0.19 on the others: far from one standard error.
    mean = lambda x: np.column_stack([np.full(len(x), 0.5), np.where(np.arange(len(x)) % 2, 0.31, 0.7)])  # noqa: E731
    for hysteresis, wanted in ((0.0, {1}), (1.0, {0})):
        controller = Polar(1, hysteresis=hysteresis)
        resident = started(controller, 2)
        assert controller.plan(view(mean, constant([0, 0]), [0.9, 0.9], resident)) == wanted
    sure = Polar(1, hysteresis=1.0)
    resident = started(sure, 2)
    assert sure.plan(view(constant([0.5, 0.51]), constant([0, 0]), [0.9, 0.9], resident)) == {1}


def test_polar_respects_sizes_pins_and_what_is_offered():
    controller = Polar(4.0)
    resident = started(controller, 3, sizes=[3.0, 2.0, 2.0])
    different = lambda x: np.eye(3)[np.arange(len(x)) % 3] * [0.9, 0.6, 0.6]  # noqa: E731
    assert controller.plan(view(different, constant([0] * 3), [0.5] * 3, resident)) == {1, 2}
    pinned = Polar(2, pinned=[2])
    resident = ResidentSet(3, 2, pinned=[2])
    pinned.begin(resident)
    pinned.observe_many(np.zeros(9, dtype=int), np.ones((9, 2)), np.ones(9, dtype=bool))
    assert pinned.plan(view(different, constant([0] * 3), [0.5] * 3, resident)) == {0, 2}
    eligible = np.array([False, True, True])
    controller = Polar(1)
    resident = started(controller, 3)
    assert controller.plan(view(different, constant([9.0] * 3), [0.5] * 3, resident, eligible=eligible)) == {
        1
    }


@pytest.mark.parametrize("keep", ["recent", "all"])
def test_polar_engines_agree(keep):
    for problem in (delayed(2500, 1), sized(2500, 2), churning(2500, 3)):
        runs = []
        for engine in ("compiled", "router"):
            controller = Polar(
                problem.capacity, 150, window=600, sample=200, keep=keep, hysteresis=0.5, rng=4
            )
            runs.append(simulate(LinUCB(15, 10, rng=5), problem, controller, engine=engine))
        same(*runs)
        assert len(runs[0].epochs) > 2


def test_arms_that_are_not_offered_are_not_loaded():
    problem = churning(6000, 0)
    available = problem.stream.available
    assert available is not None
    run = simulate(LinUCB(15, 10, rng=0), problem, Polar(4, 200))
    loaded = 0
    for (_, before), (start, after) in zip(run.epochs, run.epochs[1:], strict=False):
        for arm in after - before:
            assert available[start - 200 : start, arm].any()
            loaded += 1
    assert loaded > 4


# POLAR+.


def test_polar_plus_doubles_its_epochs_and_loads_little():
    for seed in range(4):
        run = simulate(LinUCB(15, 10, rng=seed), homes(16_384, seed), PolarPlus(4, first=64, rng=seed))
        boundaries = {64 * 2**k for k in range(9)}
        assert {start for start, _ in run.epochs[1:]} <= boundaries
        assert run.page_ins <= 4 * (1 + log2(16_384))
    controller = PolarPlus(1)
    assert controller.next_plan == 64
    resident = started(controller, 2)
    controller.plan(view(constant([0, 1]), constant([0, 0]), [1, 1], resident, clock=64))
    assert controller.next_plan == 128


def test_polar_plus_tops_up_to_the_quota_with_pending_decisions_counted():
    controller = PolarPlus(1, quota=0.5)
    resident = started(controller, 4, dim=10)
    counts = np.array([0, 3, 100, 20])
    shown = view(constant([0.1] * 4), constant([1] * 4), [0.2] * 4, resident, clock=512, counts=counts)
    shown.pending[:] = [1, 2, 0, 0]
    controller.plan(shown)
    target = ceil(0.5 * 10 * log(4 * 512))
    assert controller.needs.tolist() == [target - 1, target - 5, 0, target - 20]
    assert controller.rate == 0.1
    power = PolarPlus(1, quota=0.5, growth="power")
    resident = started(power, 4, dim=10)
    power.plan(view(constant([0.1] * 4), constant([1] * 4), [0.2] * 4, resident, clock=512, counts=counts))
    assert power.needs[0] == ceil(0.5 * (10 * 512 / 4) ** (2 / 3))


def test_polar_plus_counting_forced_requests_only():
    controller = PolarPlus(1, quota=0.5, quota_counts="forced", rate=1.0, rng=0)
    resident = started(controller, 2)
    shown = view(
        constant([0.1, 0.1]), constant([1, 1]), [0.2, 0.2], resident, clock=64, counts=np.full(2, 1e6)
    )
    controller.plan(shown)
    target = ceil(0.5 * 2 * log(128))
    assert controller.needs.tolist() == [target, target]  # the million ordinary ones do not count
    for _ in range(3):
        assert controller.force(np.zeros(2)) is not None
    assert controller.needs.sum() == 2 * target - 3
    left = controller.needs.copy()
    controller.plan(view(constant([0.1, 0.1]), constant([1, 1]), [0.2, 0.2], resident, clock=128))
    assert (controller.needs == left + ceil(0.5 * 2 * log(256)) - target).all()


def test_polar_plus_elimination_is_safe():
    # Arm 1 is sure to be useless, arm 2 may be good: only arm 2 and the member keep their claims.
    controller = PolarPlus(1, quota=1.0, eliminate=True)
    resident = started(controller, 3)
    controller.plan(view(constant([0.9, 0.1, 0.1]), constant([0.0, 0.1, 5.0]), [0.3] * 3, resident))
    assert controller.needs[1] == 0 and controller.needs[2] > 0 and controller.needs[0] > 0


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_polar_plus_engines_agree(rate):
    protected = np.random.default_rng(0).random(2500) < 0.3
    for problem in (homes(2500, 1), delayed(2500, 2), churning(2500, 3)):
        runs = []
        for engine in ("compiled", "router"):
            controller = PolarPlus(problem.capacity, quota=0.3, rate=rate, memory=300, rng=4)
            runs.append(
                simulate(LinUCB(15, 10, rng=5), problem, controller, engine=engine, protected=protected)
            )
        same(*runs)
        assert runs[0].forced > 20


def test_forcing_leaves_protected_requests_alone():
    # All requests protected: nothing is forced, and the propensities are those of the policy.
    run = simulate(
        LinUCB(15, 10, rng=0),
        homes(1000, 0),
        PolarPlus(4, quota=1.0, rng=0),
        protected=np.ones(1000, dtype=bool),
    )
    assert run.forced == 0


def test_nothing_is_forced_when_nothing_is_at_stake():
    problem = homes(1500, 0)
    plain = simulate(LinUCB(15, 10, rng=7), problem.stream)
    full = simulate(LinUCB(15, 10, rng=7), problem, PolarPlus(15, quota=1.0, rng=0))
    free = Problem(problem.stream, np.zeros(15), np.zeros(15), 4)
    costless = simulate(LinUCB(15, 10, rng=7), free, PolarPlus(4, quota=1.0, rng=0))
    for run in (full, costless):
        assert run.forced == 0 and (run.arms == plain.arms).all() and run.page_ins == 0


def test_propensities_under_forcing_are_long_run_frequencies():
    # 20,000 routers differ only in the controller's stream; each is asked once, right after a plan that asks for
    # forced requests. Frequencies of all 5 arms lie within 4.5 standard errors: false alarm below 1e-4.
    stream = Stream(np.ones((1, 1)), np.zeros((1, 5)), np.zeros((1, 5)), 5)
    counts, claimed = np.zeros(5), np.zeros(5)
    rounds = 20_000
    resident = ResidentSet(5, 2)
    controller = PolarPlus(2, quota=3.0, rate=0.4, rng=11)
    router = Router(LinUCB(stream.arms, 1, rng=3), residency=controller, paging=0.1)
    controller.begin(resident)
    controller.observe(0, np.ones(1), True)
    controller.plan(
        view(
            constant(np.zeros(5)),
            constant(np.ones(5)),
            [0.1] * 5,
            resident,
            counts=np.array([0, 2, 5, 9, 30]),
        )
    )
    wanted = controller.needs.copy()
    controller.next_plan = np.inf
    for _ in range(rounds):
        controller.needs[:] = wanted
        decision = router.select(np.ones(1))
        counts[int(decision.arm)] += 1
        claimed[int(decision.arm)] = decision.propensity
    assert abs(claimed.sum() - 1.0) < 1e-12 and (claimed[:4] > 0).all() and counts[4] == 0
    error = np.sqrt(claimed * (1 - claimed) / rounds)
    assert (np.abs(counts / rounds - claimed) <= 4.5 * error).all()


def test_arms_come_and_go():
    policy = LinUCB(5, 2, rng=0)
    router = Router(policy, residency=PolarPlus(2, first=8, quota=1.0, rng=0), paging=0.2)
    rng = np.random.default_rng(0)
    for t in range(400):
        decision = router.select(rng.standard_normal(2))
        router.update(decision.id, float(rng.random()))
        if t == 60:
            router.add_arm("new")
        if t == 150:
            router.remove_arm("1")
    assert len(router.resident) == 2 and "1" not in router.resident
    assert len(router.residency.needs) == 5


@pytest.mark.parametrize("make", [Polar, PolarPlus])
def test_controllers_refuse_what_makes_no_sense(make):
    for wrong in ({"capacity": -1}, {"capacity": 2, "sample": 0}, {"capacity": 2, "hysteresis": -1.0}):
        with pytest.raises(ValueError, match="must be"):
            make(**wrong)
    with pytest.raises(ValueError, match="rate must be"):
        PolarPlus(2, rate=0.0)
    for name in ("growth", "quota_counts"):
        with pytest.raises(ValueError, match=name):
            PolarPlus(2, **{name: "none"})
    for name in ("index", "keep"):
        with pytest.raises(ValueError, match=name):
            Polar(2, **{name: "none"})


def test_regret_lies_near_the_oracle_and_far_below_lru():
    # Seeds 0 .. 7, T = 16,384; the bars of the study are 0.4 and 0.25 in the median of 20 seeds at T = 32,768.
    shares = {"polar": [], "plus": []}
    for seed in range(8):
        problem = homes(16_384, seed)
        best = best_static_set(problem.stream, problem.capacity, problem.faults)

        def final(controller, seed=seed, problem=problem, best=best):
            return regret(simulate(LinUCB(15, 10, rng=seed), problem, controller), problem, best).final

        oracle, lru = final(Static(best)), final(LRU(4))
        shares["polar"].append((final(Polar(4)) - oracle) / (lru - oracle))
        shares["plus"].append((final(PolarPlus(4, rng=1)) - oracle) / (lru - oracle))
    assert np.median(shares["polar"]) < 0.4
    assert np.median(shares["plus"]) < 0.25
