"""The resident set, the window of contexts, forcing, and the plans of Polar."""

import shutil
import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banditroute import LFU, LRU, LinUCB, Polar, Router, Static
from banditroute._core.kernels import loop
from banditroute.policies import Choice
from banditroute.residency import ResidentSet, View, Window
from banditroute.residency.polar import planned
from banditroute.residency.set_search import SetSearch
from controllers import Forcing

# -- ResidentSet ------------------------------------------------------------------------------------------------------

SIZES = st.lists(st.sampled_from([0.1, 0.2, 0.7, 1.0, 2.5]), min_size=6, max_size=6)


@given(
    SIZES,
    st.sampled_from([0.0, 0.3, 1.0, 2.7, 100.0]),
    st.lists(st.tuples(st.sampled_from("ler"), st.integers(0, 63)), max_size=40),
)
def test_resident_set_is_a_set_that_fits(sizes, capacity, steps):
    pins = [0] if sizes[0] <= capacity else []
    resident, model = ResidentSet(6, capacity, sizes=sizes, pinned=pins), set(pins)
    loads = evictions = 0
    for step, number in steps:
        arm = number % 6
        if step == "l":
            fits = arm not in model and sum(sizes[a] for a in model | {arm}) <= capacity * (1 + 1e-9)
            assert resident.load(arm) == fits
            loads += fits
            model |= {arm} if fits else set()
        elif step == "e":
            goes = arm in model and arm not in pins
            assert resident.evict(arm) == goes
            evictions += goes
            model -= {arm} if goes else set()
        else:
            wanted = {a for a in range(6) if number >> a & 1}
            target = wanted | set(pins)
            if sum(sizes[a] for a in target) <= capacity * (1 + 1e-9):
                loaded, evicted = resident.replace(wanted)
                assert (loaded, evicted) == (target - model, model - target)
                loads, evictions, model = loads + len(loaded), evictions + len(evicted), target
            else:
                with pytest.raises(ValueError, match="wanted must fit capacity"):
                    resident.replace(wanted)
        assert set(resident) == model
        assert len(resident) == len(model)
        assert [a in resident for a in range(6)] == [a in model for a in range(6)]
        assert resident.used == pytest.approx(sum(sizes[a] for a in model))
        assert resident.used <= capacity * (1 + 1e-9)
        assert (resident.page_ins, resident.evictions) == (loads, evictions)


def test_sizes_that_fill_the_capacity_to_the_last_digit_fit():
    resident = ResidentSet(10, 1.0, sizes=np.full(10, 0.1))
    resident.fill()
    assert len(resident) == 10
    assert resident.page_ins == 0
    resident.replace(())
    assert resident.replace(range(10))[0] == set(range(10))


def test_fill_takes_the_first_arms_that_fit():
    resident = ResidentSet(4, 5.0, sizes=[3.0, 4.0, 1.0, 1.0], pinned=[2])
    resident.fill()
    assert set(resident) == {0, 2, 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": -1.0}, "capacity must be in"),
        ({"capacity": np.nan}, "capacity must be a finite number"),
        ({"sizes": [1.0, 0.0]}, "sizes must be positive, got 0"),
        ({"sizes": [1.0]}, "sizes must have shape"),
        ({"pinned": [2]}, "pinned must be in"),
        ({"pinned": [0, 1]}, "pinned must fit capacity 1"),
    ],
)
def test_resident_set_checks(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResidentSet(**{"count": 2, "capacity": 1.0, **arguments})


# -- Window -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.lists(st.integers(0, 30), max_size=8), st.integers(1, 15))
def test_window_keeps_the_last_contexts(size, batches, count):
    one, many, seen = Window(size), Window(size), 0
    for batch in batches:
        rows = np.arange(seen, seen + batch, dtype=float)[:, None] * np.ones(2)
        for row in rows:
            one.append(row)
        many.extend(rows)
        seen += batch
    kept = list(range(max(0, seen - size), seen))
    for window in (one, many):
        sample = window.sample(count)
        got = sample[:, 0].tolist() if len(kept) else []
        assert len(got) == min(count, len(kept))
        assert got == sorted(set(got))
        assert set(got) <= set(kept)
        if kept:
            assert got[-1] == kept[-1]
            if count >= len(kept):
                assert got == kept
            elif count > 1:  # evenly spaced
                gaps = np.diff(got)
                assert gaps.max() - gaps.min() <= 1
    assert one.seen == many.seen


def test_window_copies_contexts():
    window, x = Window(3), np.zeros(2)
    window.append(x)
    x[:] = 9.0
    assert not window.sample(1).any()
    window.sample(1)[:] = 5.0
    assert not window.sample(1).any()


# -- forcing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [True, False])
def test_forced_arms_have_their_shares(compiled):
    # n = 40,000 evenly spaced numbers stand for a uniform draw: shares are exact up to one number per arm.
    forced_arm = loop.forced_arm if compiled else getattr(loop.forced_arm, "py_func", loop.forced_arm)
    forced_share = loop.forced_share if compiled else getattr(loop.forced_share, "py_func", loop.forced_share)
    n = 40_000 if compiled else 4000
    for needs, closed, rate in (
        ([3.0, 0.0, 1.0, 6.0], [], 0.25),
        ([3.0, 0.0, 1.0, 6.0], [3], 0.25),
        ([1.0, 1.0, 1.0, 1.0], [0, 1], 1.0),
        ([0.0, 0.0, 0.0, 2.0], [0], 0.01),
    ):
        needs, offers = np.array(needs), np.zeros(4)
        offers[closed] = np.inf
        drawn = [forced_arm(needs, offers, rate, (i + 0.5) / n) for i in range(n)]
        live = np.where(np.isfinite(offers), needs, 0.0)
        for arm in range(4):
            share = rate * live[arm] / live.sum()
            assert forced_share(needs, offers, rate, arm) == pytest.approx(share)
            assert abs(drawn.count(arm) - n * share) <= 2
        assert abs(drawn.count(-1) - n * (1.0 - rate)) <= 2
    assert forced_arm(np.array([1.0, 0.0]), np.array([np.inf, 0.0]), 0.5, 0.1) == -2
    assert forced_arm(np.zeros(2), np.zeros(2), 0.5, 0.1) == -2
    last = forced_arm(np.array([0.1, 0.2, 0.0]), np.zeros(3), 1.0, np.nextafter(1.0, 0.0))
    assert last == 1  # rounding in the sum must not fall through to an arm that needs nothing


def test_force_uses_one_number_or_none():
    controller = Forcing(1, rate=0.5, rng=0)
    controller.begin(ResidentSet(3, 1))
    offers = np.zeros(3)
    controller.needs[:] = 0.0
    assert controller.force(offers) is None
    assert controller.used == 0  # drawn ahead, none used
    controller.needs[:] = [2.0, 0.0, 0.0]
    told = [controller.force(offers) for _ in range(40)]
    assert sum(t is not None and t[0] == 0 for t in told) == 2
    assert controller.needs.tolist() == [0.0, 0.0, 0.0]
    assert controller.used == sum(t is not None for t in told)
    controller.rate = 0.0
    controller.needs[:] = 1.0
    assert controller.force(offers) is None


# -- classic controllers, request by request ------------------------------------------------------------------------


class Scripted(LinUCB):
    """Plays arms off a list, whatever they cost."""

    def __init__(self, count, script):
        super().__init__(count, 1, rng=0)
        self.script = list(script)

    def propensities(self, x, *, prices=None, eligible=None):
        return np.eye(len(self.arms))[self.script[0]]

    def select_priced(self, x, offers):
        return Choice(self.script.pop(0), 1.0)


def served(controller, script, count=5):
    router = Router(Scripted(count, script), controller, 0.1)
    return [(router.select([1.0]).hit, set(map(int, router.resident))) for _ in range(len(script))]


@pytest.mark.parametrize("capacity", [1, 2, 4])
@pytest.mark.parametrize("kind", [LRU, LFU])
def test_controllers_follow_their_name(kind, capacity):
    script = np.random.default_rng(capacity).integers(5, size=300).tolist()
    resident = list(range(capacity))  # for LRU: least recently used first
    uses = [0] * 5
    for arm, (hit, after) in zip(script, served(kind(capacity), script), strict=True):
        assert hit == (arm in resident)
        uses[arm] += 1
        if kind is LRU:
            if arm in resident:
                resident.remove(arm)
            else:
                resident.pop(0)
            resident.append(arm)
        elif arm not in resident:
            victim = min(resident, key=lambda a: (uses[a], a))
            if uses[arm] > uses[victim]:
                resident.remove(victim)
                resident.append(arm)
        assert after == set(resident)


def test_static_never_changes():
    made = served(Static([3, 1]), [0, 1, 2, 3, 4] * 4)
    assert {frozenset(after) for _, after in made} == {frozenset({1, 3})}
    assert [hit for hit, _ in made] == [False, True, False, True, False] * 4


# -- plans of Polar ---------------------------------------------------------------------------------------------------


def view(resident, faults, loads, means, stds=0.0, alpha=0.5, clock=100):
    def utilities(contexts):
        rows = contexts[:, 0].astype(int)
        return means[rows], alpha * np.broadcast_to(stds, means.shape)[rows]

    return View(clock, utilities, faults, loads, resident, np.zeros(len(faults)))


def brute(utilities, faults, loads, old, capacity, epoch):
    """Return the value of the best set of at most `capacity` arms: all sets tried."""
    floor = (utilities - faults).max(axis=1)

    def value(chosen):
        inside = utilities[:, sorted(chosen)].max(axis=1) if chosen else floor
        return np.maximum(floor, inside).mean() - loads[sorted(set(chosen) - old)].sum() / epoch

    sets = [c for size in range(capacity + 1) for c in combinations(range(len(faults)), size)]
    return max(value(c) for c in sets), value


@pytest.mark.parametrize("index", ["mean", "optimistic", "pessimistic"])
@pytest.mark.parametrize("seed", range(6))
def test_polar_plans_the_best_set(index, seed):
    rng = np.random.default_rng(seed)
    count, capacity, epoch = 7, 3, 20
    resident = ResidentSet(count, capacity)
    controller = Polar(capacity, epoch=epoch, index=index)
    controller.begin(resident)
    means, stds = rng.random((60, count)), rng.random((60, count)) * 0.5
    for row in range(60):
        controller.observe(0, np.array([float(row)]), True)
    faults, loads = rng.uniform(0.05, 0.4, count), rng.uniform(0.0, 2.0, count)
    chosen = controller.plan(view(resident, faults, loads, means, stds, alpha=0.7))
    width = {"mean": 0.0, "optimistic": 0.7, "pessimistic": -0.7}[index]
    best, value = brute(means + width * stds, faults, loads, set(resident), capacity, epoch)
    assert len(chosen) <= capacity
    assert value(chosen) == pytest.approx(best, abs=1e-9)
    assert controller.next_plan == 120


def test_polar_keeps_everything_where_everything_fits():
    means = np.random.default_rng(0).random((10, 4))
    resident = ResidentSet(4, 4)
    controller = Polar(4, epoch=5)
    controller.begin(resident)
    for row in range(10):
        controller.observe(0, np.array([float(row)]), True)
    assert controller.plan(view(resident, np.full(4, 0.3), np.zeros(4), means)) == set(resident)


def test_where_no_fault_costs_anything_polar_loads_what_the_policy_plays():
    means = np.array([[0.1, 0.9, 0.2, 0.3], [0.1, 0.2, 0.9, 0.3], [0.1, 0.9, 0.2, 0.3], [0.9, 0.1, 0.2, 0.1]])
    for capacity, best in ((1, {1}), (2, {0, 1})):  # of arms 0 and 2, equally often best, 0 is there
        resident = ResidentSet(4, capacity)
        controller = Polar(capacity, epoch=5)
        controller.begin(resident)
        for row in range(4):
            controller.observe(0, np.array([float(row)]), True)
        assert controller.plan(view(resident, np.zeros(4), np.zeros(4), means)) == best


def test_hysteresis_holds_small_gains():
    rng = np.random.default_rng(1)
    resident = ResidentSet(3, 1)
    resident.fill()
    utilities = rng.random((50, 3))
    utilities[:, 1] = (
        utilities[:, 0] + 0.001 + 0.1 * rng.standard_normal(50)
    )  # hardly better than what is loaded
    utilities[:, 2] = 0.0
    at = view(resident, np.full(3, 0.3), np.zeros(3), utilities)
    look = SetSearch(utilities, at.faults)
    free, held = planned(look, at, 100, 0.0), planned(look, at, 100, 3.0)
    assert free.tolist() in ([True, False, False], [False, True, False])
    assert held.tolist() == [True, False, False]
    utilities[:, 1] = utilities[:, 0] + 0.25
    assert planned(SetSearch(utilities, at.faults), at, 100, 3.0).tolist() == [False, True, False]


@pytest.mark.parametrize("base", [LRU, Polar])
@pytest.mark.parametrize("method", ["observe", "make_room", "force"])
@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit])
def test_a_controller_that_raises_at_a_request_costs_no_request(base, method, kind, tmp_path):
    class Faulty(base):
        def broken(self, *arguments):
            raise kind("a mistake")

    def made():
        controller = Faulty(1)
        router = Router(LinUCB(["a", "b", "c"], 1, mix=0.5, rng=0), controller, 0.1)
        setattr(Faulty, method, Faulty.broken)
        if method == "force":
            controller.rate = 0.5
        return router

    reached = base is LRU or method != "make_room"
    with made() as router:
        router.recover(tmp_path)
        for _ in range(50):
            router.update(router.select([1.0]).id, 1.0)
        stats = router.stats()
        assert stats["decisions"] == stats["learned"] == 50
        assert (stats["plan_failures"] > 0) == reached
        router.checkpoint()


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit])
def test_what_a_controller_raised_at_requests_it_raises_at_their_replay_as_well(tmp_path, kind):
    class Faulty(LRU):
        def observe(self, arm, x, hit):
            raise kind("a mistake")

    def made():
        return Router(LinUCB(["a", "b", "c"], 1, mix=0.5, rng=0), Faulty(1), 0.1)

    home, copy = tmp_path / "home", tmp_path / "copy"
    with made() as router:
        router.recover(home, checkpoint_s=1e6, flush_s=0.01)
        for _ in range(20):
            router.update(router.select([1.0]).id, 1.0)
        time.sleep(0.3)
        shutil.copytree(home, copy)
    with made() as again:
        again.recover(copy)
        assert again.stats()["learned"] == 20
